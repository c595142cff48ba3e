"""Whether one forecaster was nearer than another on the same questions, and how sure that is (`quoting.md` 6.4, 6.5, 6.7).

    gain      sum over rows of loss(other) - loss(this), over their number; positive: this one was nearer
    units     all forecasts of one question are one cluster, for they share its outcome; it stands on the day of the first. Where
              every row tells its time and there are 20 days, days are resampled by the stationary bootstrap (Politis, Romano 1994)
              in blocks of the automatic length (Patton, Politis, White 2009), at least 2; else questions, one by one
    interval  quantiles of the resampled gains, which are first stretched about the gain as a normal quantile is to Student's t with
              units / block - 1 degrees of freedom: few units make a bootstrap too narrow. The p-value is the interval inverted.
              BCa covers less: of 95 %, 88 to 94 at 20 to 120 questions with rare outcomes or not, where this covers 92 to 95
    needed    16 sum(d^2 p(1-p)) / sum(d^2) / mean(d^2), d = p - market: questions until who is right shows by 2 sigma

It refuses to know what a file or a page is. Dice are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import msgspec

from llm_maker.report.forecast_scores import LEVEL, brier_losses, clipped, log_losses

if TYPE_CHECKING:
    import numpy as np

    from llm_maker.report.forecast_scores import Floats, Ints

MIN_UNITS = 20
"""Fewer days or questions than this give an interval but no verdict."""
_CELLS = 1_000_000
"""Numbers drawn at once."""
_NORMAL = NormalDist()
_NEAR_ZERO = 1e-12
"""Differences of losses below this are rounding."""

Verdict = Literal["better", "worse", "cannot be told", "none"]


class Gain(msgspec.Struct, frozen=True):
    """A paired difference of mean losses with its 95 % interval; `units` were resampled, in blocks of `block` on the mean."""

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    questions: int
    days: int | None
    unit: Literal["day", "question"]
    units: int
    block: float
    verdict: Verdict
    why: str = ""
    """Of a verdict `none`."""
    p_holm: float | None = None
    """Adjusted for all models that were compared with the market."""


class Rows(msgspec.Struct, frozen=True):
    """Forecasts as arrays: p, outcome, question counted from 0 without gaps, UTC day (None where a row tells no time)."""

    p: Floats
    y: Floats
    question: Ints
    day: Ints | None

    @property
    def questions(self) -> int:
        return int(self.question.max()) + 1

    @property
    def days(self) -> int | None:
        return None if self.day is None else len(set(self.day.tolist()))


def gains(rows: Rows, other: Floats, dice: np.random.Generator, resamples: int) -> tuple[Gain, Gain]:
    """(Brier, log score) gained over another forecaster's p on the same rows; both from the same resamples."""
    import numpy as np

    brier = brier_losses(other, rows.y) - brier_losses(rows.p, rows.y)
    log = log_losses(clipped(other), rows.y) - log_losses(clipped(rows.p), rows.y)
    size = np.bincount(rows.question, np.ones_like(rows.y))
    sums = np.column_stack([np.bincount(rows.question, each) for each in (brier, log)])
    unit: Literal["day", "question"] = "question"
    days, block = None, 1.0
    if rows.day is not None:
        first = np.full(rows.questions, np.iinfo(np.int64).max)
        np.minimum.at(first, rows.question, rows.day)
        asked, place = np.unique(first, return_inverse=True)
        days = len(asked)
        if days >= MIN_UNITS:
            unit = "day"
            size = np.bincount(place, size)
            sums = np.column_stack([np.bincount(place, each) for each in sums.T])
            block = max(2.0, *(block_length(each - size * each.sum() / size.sum()) for each in sums.T))
    units, mean = len(size), sums.sum(axis=0) / size.sum()
    why = ""
    if units < MIN_UNITS:
        why = f"{units} question{'s' if units > 1 else ''}, at least {MIN_UNITS} are needed"
    elif days is not None and days < MIN_UNITS:
        why = f"questions of {days} day{'s' if days > 1 else ''}, at least {MIN_UNITS} are needed"
    drawn = np.concatenate(
        [sums[at].sum(axis=1) / size[at].sum(axis=1)[:, None] for at in _resampled(units, block, resamples, dice)]
    )

    def gain(which: int, losses: Floats) -> Gain:
        low = high = p_value = None
        verdict: Verdict = "none"
        said = why
        if not (np.abs(losses) > _NEAR_ZERO).any():
            low, high, said = 0.0, 0.0, "it says what the other says"
        elif units > 1:
            low, high, p_value = interval(float(mean[which]), drawn[:, which], units / block)
            if not why:
                verdict = "better" if low > 0 else "worse" if high < 0 else "cannot be told"
        return Gain(
            float(mean[which]), low, high, p_value, len(rows.y), rows.questions, days, unit, units, float(block), verdict, said
        )

    return gain(0, brier), gain(1, log)


def _resampled(units: int, block: float, resamples: int, dice: np.random.Generator) -> Iterator[Ints]:
    """Indices of the stationary bootstrap, some resamples at a time; a block of 1 draws each unit by itself."""
    import numpy as np

    step = max(1, _CELLS // units)
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), units)
        at = dice.integers(0, units, shape)
        if block > 1:
            begins = dice.random(shape) < 1 / block
            begins[:, 0] = True
            place = np.arange(units)
            begun = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
            at = (np.take_along_axis(at, begun, axis=1) + place - begun) % units
        yield at


def block_length(series: Floats) -> float:
    """The mean block of the stationary bootstrap that suits a series' autocorrelation; at least 1, at most a third of it."""
    import numpy as np

    n = len(series)
    centred = series - series.mean()
    limit = math.ceil(min(3 * math.sqrt(n), n / 3))
    patience = max(5, math.ceil(math.sqrt(math.log10(n))))
    lags = min(n - 1, math.ceil(math.sqrt(n)) + patience)
    covariance = np.array([centred[k:] @ centred[: n - k] / n for k in range(lags + 1)])
    if covariance[0] <= 0:
        return 1.0
    quiet = np.abs(covariance[1:]) < 2 * math.sqrt(math.log10(n) / n) * covariance[0]
    last = next((m for m in range(1, lags - patience + 2) if quiet[m - 1 : m - 1 + patience].all()), lags)
    bandwidth = min(2 * last, lags)
    lag = np.arange(1, bandwidth + 1)
    window = np.minimum(1.0, 2 * (1 - lag / bandwidth))  # flat to one half, then falling to 0
    variance = covariance[0] + 2 * float(window @ covariance[1 : bandwidth + 1])
    bias = 2 * float((window * lag) @ covariance[1 : bandwidth + 1])
    if variance == 0:
        return float(limit)
    return float(min(max(1.0, (bias**2 / variance**2 * n) ** (1 / 3)), limit))


def interval(mean: float, drawn: Floats, independent: float) -> tuple[float, float, float]:
    """(low, high, two-sided p-value of no difference) from resampled means; `independent`: how many units, or blocks of them."""
    import numpy as np

    wanted = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    stretch = widened(wanted, independent) / wanted
    drawn = mean + stretch * (drawn - mean)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    z = abs(_NORMAL.inv_cdf(_share_below(drawn, 0.0)))
    return float(low), float(high), 2 * _NORMAL.cdf(-narrowed(stretch * z, independent))


def _share_below(drawn: Floats, value: float) -> float:
    """Ties count half; never 0 or 1, for so many draws cannot tell less than half of one."""
    below = (float((drawn < value).sum()) + float((drawn <= value).sum())) / 2
    return min(max(below, 0.5), len(drawn) - 0.5) / len(drawn)


def widened(z: float, independent: float) -> float:
    """A normal quantile as Student's with `independent` - 1 degrees of freedom (Wallace 1959), times sqrt(n / (n - 1))."""
    n = max(independent, 2.0)
    freedom = n - 1
    t = math.sqrt(freedom * math.expm1((z * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom))
    return t * math.sqrt(n / freedom)


def narrowed(t: float, independent: float) -> float:
    """The inverse of `widened`."""
    n = max(independent, 2.0)
    freedom = n - 1
    t *= math.sqrt(freedom / n)
    return (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t**2 / freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def questions_needed(p: Floats, market: Floats) -> int | None:
    """Questions until a forecaster who is right shows by 2 sigma; None: it says what the market says."""
    squared = (p - market) ** 2
    if not squared.any():
        return None
    spread = float((squared * p * (1 - p)).sum() / squared.sum())
    return max(1, math.ceil(16 * spread / float(squared.mean()) - 1e-9))
