"""Which of the program's words are alarms, how bad each is, and what helps: one table; and what stands now. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_maker.console.shapes import Alarm
from llm_maker.core.commands import Notice
from llm_maker.core.state import State


class Rule(msgspec.Struct, frozen=True):
    """What a code of `logs/daemon.jsonl` means to a person."""

    title: str
    cure: str
    sent: bool = True
    """False: shown, but sent to nobody."""


RULES: dict[str, Rule] = {}
"""Every code that a notice or a line of the wiring can have."""


class Alarms:
    """What was raised and what stands."""

    def __init__(self, state: Callable[[], State], unknown_order_seconds: float, *, daily_summary: bool) -> None:
        self._state = state

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log."""

    def look(self) -> list[Notice]:
        """About once a second: what no event tells (an order unknown for too long, a day that ended), each once."""
        return []

    def board(self) -> list[Alarm]:
        """Newest first: what stands now, and what happened lately."""
        return []
