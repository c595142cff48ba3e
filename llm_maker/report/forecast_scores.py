"""The scores of one forecaster on resolved questions (`quoting.md` 6.3): p in [0, 1] and outcomes y as arrays, one row a forecast.

    loss   Brier (p - y)^2; log -(y ln q + (1 - y) ln(1 - q)) with q = p held to [0.01, 0.99]; both are better when smaller
    CORP   loss = MCB - DSC + UNC: with r the isotonic regression (PAV) of y on p and b the base rate,
           MCB = loss(p) - loss(r), DSC = loss(b) - loss(r), UNC = loss(b)   (Dimitriadis, Gneiting, Jordan 2021)

An outcome between 0 and 1 (a void split in halves) is taken as it stands: the log loss is then the expected one. It refuses to know
what a file, a model or a market is. The order of rows plays no part, and the dice are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Loss = Callable[[Floats, Floats], Floats]

CLIP = 0.01
"""The log score and the logits take a probability nearer than this to 0 or 1 as this near."""
BINS = 10
LEVEL = 0.95
"""Of every interval and band."""
_NEWTON_STEPS = 100
_ROUNDING = 1e-12
_SETTLED = 1e-10
"""The last step of the logistic fit, in standard deviations of the logit."""


class Bin(msgspec.Struct, frozen=True):
    """One point of the reliability curve; `low`, `high`: where 95 % of `observed` would lie were every forecast exactly right."""

    forecast: float
    observed: float
    n: int
    low: float
    high: float


class Reliability(msgspec.Struct, frozen=True):
    """Expected calibration error over the bins; what it would be, on the mean and at 95 %, were every forecast exactly right."""

    ece: float
    ece_if_calibrated: float
    ece_if_calibrated_95: float
    bins: tuple[Bin, ...]


class Corp(msgspec.Struct, frozen=True):
    """score = miscalibration - discrimination + uncertainty. The recalibration is fitted on the rows it is scored on."""

    score: float
    miscalibration: float
    discrimination: float
    uncertainty: float


class Slope(msgspec.Struct, frozen=True):
    """Logistic regression of the outcome on logit p: 0 and 1 are calibrated, a slope below 1 is overconfident; None: `why`."""

    intercept: float | None
    slope: float | None
    slope_error: float | None
    """Standard error, clustered by question."""
    why: str = ""


def clipped(p: Floats) -> Floats:
    return p.clip(CLIP, 1 - CLIP)


def brier_losses(p: Floats, y: Floats) -> Floats:
    return (p - y) ** 2


def log_losses(p: Floats, y: Floats) -> Floats:
    """Expected log loss, with 0 ln 0 = 0: a recalibrated 0 that never happened costs nothing."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        yes = np.where(y > 0, y * np.log(p), 0.0)
        no = np.where(y < 1, (1 - y) * np.log1p(-p), 0.0)
    result: Floats = -(yes + no)
    return result


def isotonic(p: Floats, y: Floats) -> Floats:
    """The rising function of p nearest to y by pooling adjacent violators; equal p are one value."""
    import numpy as np

    _, group, counts = np.unique(p, return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=y)
    pools: list[tuple[float, int, int]] = []  # sum, rows, groups
    for total, n in zip(sums.tolist(), counts.tolist(), strict=True):
        pool = (total, n, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    levels = np.repeat([total / n for total, n, _ in pools], [groups for _, _, groups in pools])
    result: Floats = levels[group]
    return result


def corp(p: Floats, y: Floats, losses: Loss) -> Corp:
    """The decomposition of a mean loss; p as the loss takes it."""
    import numpy as np

    told = float(losses(p, y).mean())
    best = float(losses(isotonic(p, y), y).mean())
    base = float(losses(np.full_like(y, y.mean()), y).mean())
    return Corp(told, told - best, base - best, base)


def calibration(p: Floats, y: Floats, question: Ints) -> Slope:
    """Maximum likelihood by Newton's method with halved steps; where no finite fit exists it says why."""
    import numpy as np

    x = np.log(clipped(p) / (1 - clipped(p)))
    if x.min() == x.max():
        return Slope(None, None, None, "every forecast is the same")
    zero, one = x[y < 1], x[y > 0]
    if not len(zero) or not len(one):
        return Slope(None, None, None, "every outcome is the same")
    if zero.max() <= one.min() or one.max() <= zero.min():
        return Slope(None, None, None, "one threshold separates the outcomes")
    middle, scale = x.mean(), x.std()
    design = np.column_stack([np.ones_like(x), (x - middle) / scale])
    fit = np.zeros(2)

    def lost(at: Floats) -> float:
        z = design @ at
        return float((np.logaddexp(0, z) - y * z).sum())

    for _ in range(_NEWTON_STEPS):
        q = (1 + np.tanh(design @ fit / 2)) / 2
        try:
            inverse = np.linalg.inv(design.T @ (design * (q * (1 - q))[:, None]))
        except np.linalg.LinAlgError:
            break
        step = inverse @ (design.T @ (y - q))
        while lost(fit + step) > lost(fit) * (1 + _ROUNDING) and np.abs(step).max() > _SETTLED:
            step = step / 2
        fit = fit + step
        if np.abs(step).max() <= _SETTLED:
            score = np.column_stack([np.bincount(question, each) for each in (design * (y - q)[:, None]).T]) @ inverse
            error = float(np.sqrt((score[:, 1] ** 2).sum()) / scale)
            return Slope(float(fit[0] - fit[1] * middle / scale), float(fit[1] / scale), error)
    return Slope(None, None, None, "the fit did not settle")


def equal_count_bins(p: Floats) -> Ints:
    """The bin of each row, from 0 without gaps: by the middle rank of its value, so that equal forecasts are never parted."""
    import numpy as np

    _, group, counts = np.unique(p, return_inverse=True, return_counts=True)
    twice_middle = 2 * np.cumsum(counts) - counts - 1
    _, bins = np.unique((BINS * twice_middle // (2 * len(p)))[group], return_inverse=True)
    result: Ints = bins.astype(np.int64)
    return result


def reliability(p: Floats, y: Floats, question: Ints, dice: np.random.Generator, resamples: int) -> Reliability:
    """The curve over equal-count bins; the band draws outcomes from the forecasts, one throw for each question."""
    import numpy as np

    bins = equal_count_bins(p)
    n = np.bincount(bins)
    forecast, observed = np.bincount(bins, p) / n, np.bincount(bins, y) / n
    questions = int(question.max()) + 1
    drawn = np.empty((resamples, len(n)))
    for i in range(resamples):
        drawn[i] = np.bincount(bins, dice.random(questions)[question] < p) / n
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    errors = np.abs(drawn - forecast) @ (n / len(p))
    return Reliability(
        float(np.abs(observed - forecast) @ (n / len(p))),
        float(errors.mean()),
        float(np.quantile(errors, LEVEL)),
        tuple(
            Bin(float(f), float(o), int(k), float(lo), float(hi))
            for f, o, k, lo, hi in zip(forecast, observed, n, low, high, strict=True)
        ),
    )
