"""Statistics of a series of returns or P&L: ratios per period, drawdown, intervals, tests, and what many tries do to them.

`quoting.md` 6.2, 6.5, 6.6 and 6.7. Values come in any unit, oldest first, one a period (a day, an hour). Every answer is per
period: `annualised` is the one door to a year, and is shut below 30 days. Too few values, or values that do not differ, give
None: never a nan, never a zero that looks like a finding. It knows nothing of accounts. Dice are seeded by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Stat = Callable[[Floats], float]

LEVEL = 0.95
"""Of every interval."""
DAYS_A_YEAR = 365
MIN_DAYS_ANNUAL = 30
MIN_BOOTSTRAP = 5
"""Fewer values have no interval."""
MIN_BLOCK = 2.0
_CHUNK = 1_000_000
"""Values resampled at a time: what keeps the memory small."""
_EULER = 0.5772156649015329
_SAME = 1e-12
"""Values that differ by less than this part of their size do not differ."""


class Interval(msgspec.Struct, frozen=True):
    """An estimate and its 95 % limits."""

    value: float
    low: float
    high: float


class Drawdown(msgspec.Struct, frozen=True):
    """The deepest fall from a peak: in the unit of the series, and as a part of its peak; None where no peak was above zero."""

    amount: float
    share: float | None


def mean(values: Floats) -> float:
    return float(values.mean())


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and standard deviation (n - 1); None where they are fewer than two or all alike."""
    n = len(values)
    if n < 2:
        return None
    middle = math.fsum(values) / n
    sd = math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1))
    return (middle, sd) if sd > _SAME * abs(middle) else None


def sharpe(returns: Sequence[float]) -> float | None:
    """Mean over standard deviation (n - 1), per period."""
    spread = _spread(returns)
    return spread[0] / spread[1] if spread else None


def sortino(returns: Sequence[float]) -> float | None:
    """Mean over the downside deviation about 0 (all n in the divisor), per period; None where nothing was lost."""
    n = len(returns)
    down = math.sqrt(math.fsum(min(r, 0.0) ** 2 for r in returns) / n) if n >= 2 else 0.0
    return math.fsum(returns) / n / down if down > 0.0 else None


def annualised(ratio: float | None, days: float, per_year: float = DAYS_A_YEAR) -> float | None:
    """A ratio per period times the root of the periods in a year; None for a record of under 30 days."""
    return None if ratio is None or days < MIN_DAYS_ANNUAL else ratio * math.sqrt(per_year)


def max_drawdown(equity: Sequence[float]) -> Drawdown | None:
    """Deepest fall of a level (transfers taken out), in its unit and relative to the peak; each by its own worst moment."""
    if not equity:
        return None
    peak, amount, share = equity[0], 0.0, 0.0
    for level in equity:
        peak = max(peak, level)
        amount = max(amount, peak - level)
        if peak > 0:
            share = max(share, (peak - level) / peak)
    return Drawdown(float(amount), share if peak > 0 else None)


def wilson(wins: int, n: int, z: float = 1.959963984540054) -> Interval | None:
    """A part of n with Wilson's score interval; None of nothing."""
    if n <= 0:
        return None
    part, square = wins / n, z * z / n
    middle = (part + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(part * (1 - part) / n + square / (4 * n))
    return Interval(part, max(middle - half, 0.0), min(middle + half, 1.0))


# The stationary bootstrap (Politis and Romano 1994).


def optimal_block_length(values: Sequence[float]) -> float:
    """Mean block of the stationary bootstrap that serves a mean best (Politis and White 2004, corrected by Patton 2009).

        b = (G^2 n / s^4)^(1/3),   G = sum_k lambda(k/m) |k| R(k),   s^2 = sum_k lambda(k/m) R(k),   |k| <= m

    with autocovariances R, the flat-top window lambda, and m twice the lag after which max(5, log10 n) correlations in a row lie
    within 2 sqrt(log10(n) / n); at most 3 sqrt(n) and n/3. 1 where the values do not differ.
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 3 or _spread(values) is None:
        return 1.0
    x = x - x.mean()
    run = max(5, int(math.log10(n)))
    last = min(math.ceil(math.sqrt(n)) + run, n - 2)
    covariance = np.array([x[k:] @ x[: n - k] for k in range(last + 1)])
    scale = np.array([math.sqrt((x[k + 1 :] @ x[k + 1 :]) * (x[: n - k - 1] @ x[: n - k - 1])) for k in range(last + 1)])
    small = np.abs(covariance) < 2.0 * math.sqrt(math.log10(n) / n) * scale
    quiet = next((k for k in range(last - run + 1) if small[k : k + run].all()), None)
    reach = last if quiet is None else min(2 * max(quiet, 1), last)
    lags = np.arange(1, reach + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - lags / reach)) * covariance[1 : reach + 1] / n
    slope, long_run = 2.0 * float(lags @ window), float(covariance[0]) / n + 2.0 * float(window.sum())
    longest = math.ceil(min(3.0 * math.sqrt(n), n / 3.0))
    if long_run == 0.0:
        return float(longest)
    return math.cbrt(min((slope / long_run) ** 2 * n, longest**3))


def bootstrap(
    values: Sequence[float], stat: Stat = mean, *, block: float | None = None, resamples: int = 2_000, seed: int = 0
) -> Interval | None:
    """`stat` of the values with BCa 95 % limits of the stationary bootstrap (`quoting.md` 6.5); None for fewer than five values.

    `block` is the mean length of a block: `optimal_block_length` unless given, and at least 2 then. `stat` takes an array and is
    called on every resample. The bias is where `stat` lies among the resamples (ties count half), the acceleration that of leaving
    out one value at a time (Efron 1987). Values that do not differ have an interval of one point.

    Limits of 95 % held the mean of skewed values in 92 % of 1,000 series of 60 and 94 % of 240; with an autocorrelation of 0.4, of
    which few values tell little, in 84 % and 91 % (`tests/report/test_metrics.py`; arch's BCa does the same).
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < MIN_BOOTSTRAP:
        return None
    mean_block = max(optimal_block_length(values), MIN_BLOCK) if block is None else max(block, 1.0)
    found = _resampled(x, stat, 1.0 / mean_block, resamples, seed)
    value = stat(x)
    below = (float((found < value).sum()) + 0.5 * float((found == value).sum())) / resamples
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 0.5 / resamples), 1.0 - 0.5 / resamples))
    pull = _acceleration(x, stat)

    def corrected(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        room = 1.0 - pull * z
        return normal.cdf(bias + z / room) if room > 0.0 else float(z > 0.0)

    low, high = (float(np.quantile(found, corrected(tail))) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, low, high)


def _resampled(x: Floats, stat: Stat, leave: float, resamples: int, seed: int) -> Floats:
    """`stat` of each resample: blocks start anywhere, go round the end, and end at each step with probability `leave`."""
    import numpy as np

    dice = np.random.default_rng(seed)
    n = len(x)
    steps = np.arange(n)
    rows = max(1, _CHUNK // n)
    found: list[Floats] = []
    for at in range(0, resamples, rows):
        shape = (min(rows, resamples - at), n)
        begins = dice.random(shape) < leave
        begins[:, 0] = True
        last = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
        picks = (np.take_along_axis(dice.integers(n, size=shape), last, axis=1) + steps - last) % n
        sample = x[picks]
        found.append(sample.mean(axis=1) if stat is mean else np.array([stat(row) for row in sample]))
    return np.concatenate(found)


def _acceleration(x: Floats, stat: Stat) -> float:
    import numpy as np

    left = (x.sum() - x) / (len(x) - 1) if stat is mean else np.array([stat(np.delete(x, i)) for i in range(len(x))])
    moves = left.mean() - left
    size = float((moves**2).sum()) ** 1.5
    return float((moves**3).sum()) / (6.0 * size) if size > 0.0 else 0.0


# What is left after many tries (`quoting.md` 6.6, Bailey and Lopez de Prado 2014).


def psr(returns: Sequence[float], benchmark: float = 0.0) -> float | None:
    """Probability that the true Sharpe ratio is above `benchmark` (both per period), with the series' own skew g3 and kurtosis g4.

    Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1)/4 SR^2)), moments over n. None for fewer than three values.
    """
    spread, n = _spread(returns), len(returns)
    if spread is None or n < 3:
        return None
    middle = spread[0]
    ratio = middle / spread[1]
    second, third, fourth = (math.fsum((r - middle) ** k for r in returns) / n for k in (2, 3, 4))
    room = 1.0 - third / second**1.5 * ratio + (fourth / second**2 - 1.0) / 4.0 * ratio * ratio
    return NormalDist().cdf((ratio - benchmark) * math.sqrt(n - 1) / math.sqrt(room)) if room > 0.0 else None


def null_best_sharpe(sd: float, n_trials: int) -> float:
    """The best Sharpe ratio to expect of `n_trials` worthless tries whose ratios have the standard deviation `sd`; 0 of one."""
    if n_trials < 2:
        return 0.0
    quantile = NormalDist().inv_cdf
    return sd * ((1 - _EULER) * quantile(1 - 1 / n_trials) + _EULER * quantile(1 - 1 / (n_trials * math.e)))


def deflated_sharpe(returns: Sequence[float], trial_sharpes: Sequence[float]) -> float | None:
    """`psr` against the null best of all the trials ever made, this one among them; ratios per period."""
    if not trial_sharpes:
        return None
    spread = _spread(trial_sharpes)
    return psr(returns, null_best_sharpe(spread[1] if spread else 0.0, len(trial_sharpes)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    adjusted, floor, left = [0.0] * len(p_values), 0.0, len(p_values)
    for i in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        floor = max(floor, min(p_values[i] * left, 1.0))
        adjusted[i] = floor
        left -= 1
    return adjusted


def diebold_mariano(differences: Sequence[float], lag: int | None = None) -> tuple[float, float] | None:
    """(statistic, two-sided p) for a mean difference of 0, with Newey and West's variance up to `lag` (4 (n/100)^(2/9) if None).

    The limit is normal: below some 20 values p is too small, and an interval should say the same before it is believed.
    """
    spread, n = _spread(differences), len(differences)
    if spread is None or n < MIN_BOOTSTRAP:
        return None
    reach = min(math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0)) if lag is None else lag, n - 1)
    off = [d - spread[0] for d in differences]
    variance = math.fsum(v * v for v in off)
    for k in range(1, reach + 1):
        variance += 2.0 * (1.0 - k / (reach + 1.0)) * math.fsum(a * b for a, b in zip(off[k:], off, strict=False))
    if variance <= 0.0:
        return None
    statistic = spread[0] * n / math.sqrt(variance)
    return statistic, 2.0 * NormalDist().cdf(-abs(statistic))
