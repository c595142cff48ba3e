"""How soon a resting order of ours fills, and what its fills cost: learned online from our own orders (`quoting.md` 2.4).

    lam = exp(w . f)     fills per second, f = (1, ticks from the touch, ln(1 + queue ahead / average trade),
                         spread in ticks - 1, ln(prints per second / 0.02)); a fill counts by its share of the order
    adv                  mean adverse move of the mid within 5 minutes of a fill, ticks, by ticks from the touch

One `Hazard` per class of tick and spread, pooled over all markets of an account. Floats, because this is the model's side of the
house. It knows no book, no order and no clock: what is observed is handed in.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.values import Instrument

Features = tuple[float, float, float, float, float]

_TYPICAL_RATE, _LEAST_RATE = 0.02, 1e-4
"""Prints per second: what the intercept stands for, and what a market without prints is taken to have."""
_PRIOR_WEIGHTS = (math.log(0.15 * _TYPICAL_RATE), -0.8, -1.0, 0.0, 1.0)
"""Before any fill: of the prints that hit our side (half of all), a third reaches a lone order at the touch; less than half of
that one tick deeper (`quoting.md` 9.1: reservations decay by e per 1.67 ticks, and others stand in between); a queue shares it."""
_PRIOR_VARIANCES = (1.0, 0.25, 0.25, 0.04, 0.10)
_LEAST_VARIANCE = 5.0 / 400.0
"""Of w . f: after n fills it is 5 / n on the mean; held from below, so that about the last 400 fills count: markets change."""
_LOG_RATE_RANGE = (-16.0, 2.0)
_MAX_STEP = 2.0
"""Of the logarithm of lam by one observation."""
MAX_EXPOSURE_S = 60.0
"""An order that nobody looked at for longer teaches no more than this: we were away."""
_TICK_RANGE = (-4, 8)
_ADVERSE_RANGE = (-2, 3)
"""Classes of the markout by ticks from the touch; what is further out falls into the last one."""
_MAX_SPREAD = 8
_MAX_ADVERSE = 10.0
_ADVERSE_MEMORY = 200.0
_ADVERSE_PRIOR = 20.0
"""Fills that the prior of a markout is worth."""
_FINE = 0.005


class Adverse(msgspec.Struct, array_like=True):
    """An exponential mean over about the last 200 fills of one class; ticks."""

    count: float = 0.0
    mean: float = 0.0


class Resting(msgspec.Struct, array_like=True):
    """What one resting order of ours faces: its queue, and since when it has been exposed to which features."""

    key: str
    features: Features
    ticks: int
    """From the touch, plus is deeper."""
    tick: int
    ahead: int
    """Quantity before ours at its own price, quantity units; an upper estimate: what is canceled is taken to stand behind us."""
    since_ns: int


class Lesson(msgspec.Struct, array_like=True):
    """A fill of ours whose 5 minutes are not over. `share` of its order, `mid` and `tick` of its moment."""

    key: str
    ticks: int
    side: int
    share: float
    mid: float
    tick: int
    at_ns: int


class Hazard(msgspec.Struct):
    """The fill rate and the cost of fills of one class of tick and spread.

    lam is a Poisson regression, updated observation by observation as a dynamic generalised linear model (West, Harrison and Migon
    1985): the belief about w . f is matched by a gamma of the same mean and relative variance, which exposure and fills update in
    closed form; the change flows back to `weights` and `cov` along f. No step size is to be chosen, and the order of two
    observations with equal features does not matter.
    """

    weights: list[float] = msgspec.field(default_factory=lambda: list(_PRIOR_WEIGHTS))
    cov: list[list[float]] = msgspec.field(
        default_factory=lambda: [[v if i == j else 0.0 for j in range(5)] for i, v in enumerate(_PRIOR_VARIANCES)]
    )
    seconds: float = 0.0
    """Exposure learned from."""
    fills: float = 0.0
    adverse: dict[int, Adverse] = {}

    def rate(self, features: Features) -> float:
        """lam: expected fills per second of an order with these features, each fill counted by its share of the order."""
        return math.exp(self._log_rate(features))

    def _log_rate(self, f: Features) -> float:
        w = self.weights
        log_rate = w[0] + w[1] * f[1] + w[2] * f[2] + w[3] * f[3] + w[4] * f[4]
        return min(max(log_rate, _LOG_RATE_RANGE[0]), _LOG_RATE_RANGE[1])

    def learn(self, f: Features, seconds: float, fills: float) -> None:
        """An order stood `seconds` with these features and was filled by this share of itself (0: it was not)."""
        assert seconds >= 0.0 and fills >= 0.0, (seconds, fills)
        seconds = min(seconds, MAX_EXPOSURE_S)
        self.seconds += seconds
        self.fills += fills
        along = [r[0] + r[1] * f[1] + r[2] * f[2] + r[3] * f[3] + r[4] * f[4] for r in self.cov]
        variance = along[0] + along[1] * f[1] + along[2] * f[2] + along[3] * f[3] + along[4] * f[4]
        if variance < 1e-9:
            return
        # Gamma(1 / v, 1 / (v lam)): after the exposure and the fills its mean is lam (1 + v fills) / (1 + v lam seconds).
        step = math.log1p(variance * fills) - math.log1p(variance * self.rate(f) * seconds)
        gain = min(max(step, -_MAX_STEP), _MAX_STEP) / variance
        self.weights = [w + gain * a for w, a in zip(self.weights, along, strict=True)]
        if fills and variance > _LEAST_VARIANCE:
            less = fills / (1.0 + variance * fills)
            self.cov = [[c - less * a * b for c, b in zip(row, along, strict=True)] for row, a in zip(self.cov, along, strict=True)]

    def learn_adverse(self, ticks: int, move: float, share: float) -> None:
        """A fill at so many ticks from the touch was followed by an adverse move of `move` ticks within 5 minutes."""
        seen = self.adverse.setdefault(_clip(ticks, _ADVERSE_RANGE), Adverse())
        seen.count += share
        gain = share / min(seen.count, _ADVERSE_MEMORY)
        seen.mean += gain * (min(max(move, -_MAX_ADVERSE), _MAX_ADVERSE) - seen.mean)

    def adv(self, ticks: int, prior: float) -> float:
        """Expected adverse move of a fill at so many ticks from the touch, ticks; shrunk to `prior` by the count of fills."""
        seen = self.adverse.get(_clip(ticks, _ADVERSE_RANGE))
        if seen is None:
            return prior
        return (seen.count * seen.mean + _ADVERSE_PRIOR * prior) / (seen.count + _ADVERSE_PRIOR)


def features(ticks: int, ahead: int, spread: int, avg_trade: float, trade_rate: float) -> Features:
    """What the fill rate depends on: `ahead` is all quantity that trades before us, `spread` ticks without us.

    Where no print was seen yet, the queue counts as one average trade.
    """
    queue = math.log1p(ahead / avg_trade) if avg_trade > 0.0 else math.log(2.0)
    return (
        1.0,
        float(_clip(ticks, _TICK_RANGE)),
        queue,
        float(_clip(spread, (1, _MAX_SPREAD)) - 1),
        math.log(max(trade_rate, _LEAST_RATE) / _TYPICAL_RATE),
    )


def key(instrument: Instrument, tick: int, spread: int) -> str:
    """The class that is learned together: fine or coarse tick of a binary market, or linear; spread of 1, 2, 3 or more ticks."""
    kind = "linear"
    if instrument.is_binary:
        kind = "fine" if tick < _FINE * instrument.payout else "coarse"
    return f"{kind} {_clip(spread, (1, 3))}"


def _clip(value: int, bounds: tuple[int, int]) -> int:
    return min(max(value, bounds[0]), bounds[1])


PRIOR = Hazard()
"""What is believed of a class before anything was seen of it; to be read, never taught."""
