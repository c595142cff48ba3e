"""Where one of our resting orders stands at its price, from level totals and prints alone (`quoting.md` 5.1, 5.2).

Integers; every rounding keeps us further back. It knows one level: no book, no order, no money, no dice.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from llm_maker.core.values import NS_PER_MS

Model = Literal["risk_adverse", "power_prob", "power_prob_2", "power_prob_3", "log_prob", "log_prob_2"]
"""Which share of a cancelled quantity left from in front of us; the numbers are those of the public queue models."""


class Law(msgspec.Struct, frozen=True):
    """A queue model with its numbers: `power` is that of the power models; `share` the units of one share (or contract).

    The power models know no scale. The logarithm of the log models counts whole shares: ln(1 + quantity / share).
    """

    model: Model
    power: int = 3
    share: int = 1


MATCH_NS = 500 * NS_PER_MS
"""A print and a decrease this close in time, in either order, are one thing."""


class Queue(msgspec.Struct):
    """Quantity ahead of us in two opinions, and the prints and decreases that still look for their other half.

    `adverse`: prints only. `likely`: the configured model. Quantities in the instrument's units, times in ns.
    """

    adverse: int
    likely: int
    traded: int = 0
    """Printed, the level has not shrunk by it yet."""
    traded_ns: int = 0
    gone: int = 0
    """The level shrank by it, no print has explained it yet."""
    gone_ns: int = 0
    gone_from: int = 0
    """The level's total before `gone` left."""
    low: int = 0
    """The smallest total seen since `gone_ns`: nobody can stand further back than that."""

    @classmethod
    def behind(cls, level: int) -> Queue:
        """Last in a level that shows `level`."""
        return cls(adverse=level, likely=level)

    def on_print(self, now: int, printed: int, reach: tuple[int, int], law: Law) -> tuple[int, int]:
        """A print at our price; what is left of it for us, in the adverse and in the likely opinion.

        `printed` is what the tape says, `reach` what of it is not already used by us, for each opinion.
        """
        self._expire(now, law)
        matched = min(printed, self.gone)
        self.gone -= matched
        self.gone_from -= matched
        self.traded += printed - matched
        self.traded_ns = now
        over = (max(reach[0] - self.adverse, 0), max(reach[1] - self.likely, 0))
        self.adverse = max(self.adverse - reach[0], 0)
        self.likely = max(self.likely - reach[1], 0)
        if matched:
            self._clamp(self.low)
        return over

    def on_change(self, now: int, before: int, after: int, law: Law) -> None:
        """The level's total went from `before` to `after`; a decrease no print explains is a cancel, somewhere."""
        self._expire(now, law)
        if after >= before:
            return
        matched = min(before - after, self.traded)
        self.traded -= matched
        cancelled = before - after - matched
        if not self.gone and cancelled:
            self.gone_ns, self.gone_from, self.low = now, before - matched, after
        self.gone += cancelled
        self.low = min(self.low, after)
        if not self.gone:
            self._clamp(after)

    def _expire(self, now: int, law: Law) -> None:
        if self.traded and now - self.traded_ns > MATCH_NS:
            self.traded = 0  # netted away by a refill: the front has already moved
        if self.gone and now - self.gone_ns > MATCH_NS:
            self.likely -= _left_ahead(self.likely, self.gone_from - self.likely, self.gone, law)
            self.gone = 0
            self._clamp(self.low)

    def _clamp(self, level: int) -> None:
        self.adverse = min(self.adverse, level)
        self.likely = min(self.likely, level)


def _left_ahead(front: int, back: int, cancelled: int, law: Law) -> int:
    """How much of `cancelled` stood in front of us, rounded down; what cannot have stood behind is added."""
    back = max(back, 0)
    if front == 0 or law.model == "risk_adverse":
        return 0
    numerator, denominator = _odds(front, back, law)
    ahead = cancelled * numerator // denominator
    return min(front, ahead + max(cancelled - ahead - back, 0))


def _odds(front: int, back: int, law: Law) -> tuple[int, int]:
    """The probability that what left stood in front of us (1 - P of `quoting.md` 5.1), as a fraction."""
    power, total = law.power, front + back
    match law.model:
        case "power_prob":
            return front**power, front**power + back**power
        case "power_prob_2":
            return total**power - back**power, total**power
        case "power_prob_3":
            return front**power, total**power
        case "log_prob":
            return max(_log(front, law) - 1, 0), _log(front, law) + _log(back, law) + _GRAIN
        case "log_prob_2":
            return max(_log(total, law) - _log(back, law) - _GRAIN, 0), _log(total, law) + _GRAIN
        case "risk_adverse":
            return 0, 1


_SCALE = 1 << 40
_GRAIN = 2
"""More than a logarithm in 1 / `_SCALE` can be off by: in the fractions above it only ever keeps us further back."""


def _log(qty: int, law: Law) -> int:
    return int(math.log1p(qty / law.share) * _SCALE)
