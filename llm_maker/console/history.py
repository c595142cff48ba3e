"""What the page draws: the account's and each market's curves since the start, in bounded memory."""

from __future__ import annotations

from llm_maker.console.shapes import Entry
from llm_maker.core.state import State


class Past:
    """Looked at about once a second of wall time; keeps columns by market time, thinned as they grow."""

    def look(self, state: State, twin_usd: float | None) -> None:
        """A sample of everything, if market time has moved on."""

    def told(self, state: State, market_id: str, marks: list[Entry]) -> dict[str, object]:
        """`shapes.History`; `market_id` empty: the account alone."""
        raise NotImplementedError
