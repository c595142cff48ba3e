"""What became of the mid after our fills: markouts and captures, by side and horizon (`quoting.md` 2.3).

Floats, because this is the model's side of the house; times stay integers. It knows our fills and the mid; it refuses to know why
we traded and what to do about it.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.values import NS_PER_S, Side

MARKOUT_HORIZONS_S = (1, 10, 60, 300, 3_600)
_PENDING_LIMIT = 256
_MARKOUT_GAIN = 2.0 / 51.0
"""An exponential mean over about the last 50 fills."""


class PendingFill(msgspec.Struct, array_like=True):
    """A fill of ours that still waits for some horizon."""

    side: int
    qty: int
    mid: float
    at_ns: int
    next_horizon: int = 0


class Mean(msgspec.Struct, array_like=True):
    """A quantity-weighted exponential mean over about the last 50 fills; made when there is a first sample to add."""

    weight: float = 0.0
    total: float = 0.0

    def add(self, value: float, qty: int) -> None:
        self.weight += _MARKOUT_GAIN * (qty - self.weight)
        self.total += _MARKOUT_GAIN * (qty * value - self.total)

    @property
    def value(self) -> float:
        return self.total / self.weight


class Markouts(msgspec.Struct):
    """What became of the mid after our fills, by side and horizon (`quoting.md` 2.3); price units per share."""

    pending: list[PendingFill] = []
    costs: dict[int, Mean] = {}
    """By horizon in seconds, negative for sells."""
    captures: dict[int, Mean] = {}
    dropped: int = 0
    """Fills that lost a horizon: too many waiting, or no price when it was due."""

    def on_fill(self, side: Side, price: int, qty: int, mid: float, now: int) -> None:
        """A fill of ours, with the mid of that moment."""
        assert qty > 0, qty
        self.captures.setdefault(int(side), Mean()).add(side * (mid - price), qty)
        if len(self.pending) == _PENDING_LIMIT:
            del self.pending[0]
            self.dropped += 1
        self.pending.append(PendingFill(int(side), qty, mid, now))

    def on_clock(self, mid: float | None, now: int) -> None:
        """Settle the horizons that have come; without a mid they wait, and lapse when a quarter too late."""
        if not self.pending or mid is None:
            return
        for fill in self.pending:
            self._settle(fill, mid, now)
        if any(fill.next_horizon == len(MARKOUT_HORIZONS_S) for fill in self.pending):
            self.pending = [fill for fill in self.pending if fill.next_horizon < len(MARKOUT_HORIZONS_S)]

    def adverse(self, side: Side, horizon_s: int) -> float | None:
        """Mean move against us from the fill's mid to the mid `horizon_s` later; None before the first."""
        assert horizon_s in MARKOUT_HORIZONS_S, horizon_s
        mean = self.costs.get(int(side) * horizon_s)
        return None if mean is None else mean.value

    def capture(self, side: Side) -> float | None:
        """Mean distance from our price to the mid at the fill, plus when earned; None before the first."""
        mean = self.captures.get(int(side))
        return None if mean is None else mean.value

    def _settle(self, fill: PendingFill, mid: float, now: int) -> None:
        elapsed_ns = now - fill.at_ns
        while fill.next_horizon < len(MARKOUT_HORIZONS_S):
            horizon_s = MARKOUT_HORIZONS_S[fill.next_horizon]
            if elapsed_ns < horizon_s * NS_PER_S:
                return
            fill.next_horizon += 1
            if elapsed_ns <= (horizon_s + max(horizon_s / 4, 1.0)) * NS_PER_S:
                mean = self.costs.setdefault(fill.side * horizon_s, Mean())
                mean.add(fill.side * (fill.mid - mid), fill.qty)
            else:
                self.dropped += 1
