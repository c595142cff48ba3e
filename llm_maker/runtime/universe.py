"""A feed that tells of chosen markets only: the filter between a feed and everything else.

Which are chosen, and why, is the universe's; this knows neither names nor prices.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.commands import Command
from llm_maker.core.events import Event, InstrumentListed
from llm_maker.port import Simulator
from llm_maker.universe import Choice, Universe


class SelectedFeed:
    """A feed that tells of chosen markets only."""

    def __init__(self, feed: Simulator, universe: Universe) -> None:
        self._feed, self._universe = feed, universe
        self.name = feed.name

    def observe(self, now: int, event: Event) -> None:
        self._feed.observe(now, event)

    def execute(self, now: int, command: Command) -> None:
        self._feed.execute(now, command)

    def next_ns(self) -> int | None:
        return self._feed.next_ns()

    def advance(self, now: int) -> list[Event]:
        """Events of chosen markets; may be empty though something was due."""
        return [event for event in self._feed.advance(now) if self._passes(event, now)]

    def _passes(self, event: Event, now: int) -> bool:
        if isinstance(event, InstrumentListed):
            return self._universe.judge(event.instrument, now).chosen
        instrument = getattr(event, "instrument", None)
        if instrument is None:
            return True
        choice = self._universe.choices.get(instrument)
        return choice is not None and choice.chosen

    def checkpoint(self) -> bytes:
        return msgspec.json.encode({"feed": msgspec.Raw(self._feed.checkpoint()), "choices": list(self._universe.choices.values())})

    def restore(self, saved: bytes) -> None:
        kept = msgspec.json.decode(saved, type=_Saved)
        self._feed.restore(bytes(kept.feed))
        self._universe.choices = {c.instrument: c for c in kept.choices}


class _Saved(msgspec.Struct):
    feed: msgspec.Raw
    choices: list[Choice]
