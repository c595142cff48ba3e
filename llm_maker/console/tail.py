"""What happened lately, in words with numbers beside them: the stream of `top` and the page. Bounded; forgets the oldest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llm_maker.console.shapes import Entry
from llm_maker.core.commands import AnyCommand, Notice
from llm_maker.core.events import Event
from llm_maker.core.state import State

MOST = 2_000


class Tail:
    """Hears what the recorder hears, after the state has moved, and every line of the daemon's log."""

    def __init__(self, state: Callable[[], State], most: int = MOST) -> None:
        self._state = state
        self._entries: deque[Entry] = deque(maxlen=most)
        self.last = 0

    def record(self, seq: int, ts: int, event: Event, commands: list[AnyCommand]) -> None:
        """One step: what was decided, ordered, filled, and what a person did."""

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log."""

    def since(self, n: int, most: int = 200) -> list[Entry]:
        """Entries with a number above `n`, oldest first; of more than `most` the newest."""
        return [entry for entry in self._entries if entry["n"] > n][-most:]

    def of(self, market_id: str, most: int = 50) -> list[Entry]:
        """The last entries of one market, oldest first."""
        return [entry for entry in self._entries if entry["market_id"] == market_id][-most:]
