"""How sure a running sum is, from how much it moved by the hour: for `status`, which has no time for more.

The limits are normal, of hours taken as independent, and of this session's hours alone; the report's are bootstrapped and of all.
"""

from __future__ import annotations

import math

from llm_maker.core.values import NS_PER_S

HOUR_NS = 3_600 * NS_PER_S
MIN_HOURS = 5
"""Fewer say nothing of how much the hours differ."""


class Hourly:
    """Looked at now and then; each look in a new hour ends a step of one or more hours."""

    def __init__(self) -> None:
        self._from: tuple[int, int] | None = None
        self._steps = 0
        self._hours = self._squares = self._products = self._hour_squares = self._moved = 0.0

    def look(self, now: int, value: int) -> None:
        """The sum as it is now, cash units."""
        if self._from is None:
            self._from = (now, value)
            return
        then, before = self._from
        if now // HOUR_NS == then // HOUR_NS:
            return
        hours, moved = (now - then) / HOUR_NS, float(value - before)
        self._from = (now, value)
        self._steps += 1
        self._hours += hours
        self._moved += moved
        self._squares += moved * moved
        self._products += moved * hours
        self._hour_squares += hours * hours

    def half(self, span_ns: int) -> float | None:
        """Half of a 95 % interval of what the sum made in `span_ns`, cash units; None after fewer than five steps."""
        if self._steps < MIN_HOURS:
            return None
        mean = self._moved / self._hours
        spread = self._squares - 2 * mean * self._products + mean * mean * self._hour_squares
        return 1.96 * math.sqrt(max(spread, 0.0) / self._hours * span_ns / HOUR_NS)
