"""How far later prices went the way a model said: a slope through zero, its interval by event and day, and its shapes.

Rows are (disagreement d, later move y) in log-odds, or what comes to the same for small moves. Knows no model and no rule of
what a slope is worth.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import msgspec

from llm_maker.core.skill import HORIZONS_S, Forecast
from llm_maker.core.values import NS_PER_S, expit

UNBOUNDED = 1_000.0
"""What stands for infinity in an interval: nothing is known; JSON has no other word for it."""
MAX_X = 100.0
"""Log-odds, or a log price, beyond this are no market's."""
REFERENCE_S = HORIZONS_S[0]
"""After the answer: where the later move is measured from."""
_FAR = 5.3
"""Log-odds of half a cent from 0 or 1: no market's price is read as nearer, and 1 / (p (1 - p)) stays a number."""
_DAY_NS = 86_400 * NS_PER_S


class Row(msgspec.Struct, frozen=True):
    """One opinion with a later price. `weight` is 1 over the opinions that overlap with it."""

    d: float
    y: float
    weight: float
    event_day: tuple[str, int]
    block: tuple[str, int]
    ts: int
    confidence: float


class Slope(msgspec.Struct, frozen=True):
    """y = slope x d; `low`, `high`: 95 % interval; `bound`: one-sided 95 % lower bound. All within +-UNBOUNDED."""

    slope: float = 0.0
    low: float = -UNBOUNDED
    high: float = UNBOUNDED
    bound: float = -UNBOUNDED
    xy: float = 0.0
    xx: float = 0.0
    """Weighted sums of d y and of d squared."""
    signals: int = 0
    """Opinions, overlapping ones counted once."""
    event_days: int = 0
    """Days of an event on which the model disagreed with the market at all."""


def rows(forecasts: Iterable[Forecast], horizon_s: int, disagreement: Callable[[Forecast], float | None]) -> list[Row]:
    """Opinions with a price at the horizon, in the order they came; those of which nothing can be said (None) are left out.

    The move is from the price a while after the answer: the one at the answer is part of d, and its noise would look like skill.

    Opinions of one market within one span of the horizon's length (spans start at midnight UTC) look at the same move:
    they share the weight of one.
    """
    span_ns = horizon_s * NS_PER_S
    found = []
    for f in forecasts:
        d, first, later = disagreement(f), f.later.get(REFERENCE_S), f.later.get(horizon_s)
        if d is None or first is None or later is None or not (abs(later) <= MAX_X and abs(first) <= MAX_X):
            continue
        event_day = (f.event_id or f.instrument, f.ts // _DAY_NS)
        found.append(Row(d, _move(first, later), 1.0, event_day, (f.instrument, f.ts // span_ns), f.ts, f.confidence))
    sharing = Counter(row.block for row in found)
    return [msgspec.structs.replace(row, weight=1.0 / sharing[row.block]) for row in found]


def _move(x: float, later: float) -> float:
    """The change of the price over p (1 - p): for a small move that of the log-odds, and fair for a large one.

    A fair price is a martingale and its log-odds are not: on the way to 0 or 1 they run away from 1/2, and a model that only
    exaggerates the market would seem to have known.
    """
    p = expit(min(max(x, -_FAR), _FAR))
    return (expit(later) - p) / (p * (1.0 - p))


def through_zero(sample: Sequence[Row]) -> Slope:
    """The least-squares slope without intercept; standard error by leaving out one event-day at a time (CR3 jackknife).

    One event-day tells nothing of its own luck: with fewer than two that disagree at all, the interval is unbounded.
    """
    days: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in sample:
        day = days[row.event_day]
        day[0] += row.weight * row.d * row.y
        day[1] += row.weight * row.d * row.d
    signals, count = len({row.block for row in sample}), sum(day[1] > 0.0 for day in days.values())
    xy, xx = (math.fsum(day[k] for day in days.values()) for k in (0, 1))
    if xx <= 1e-12:
        return Slope(signals=signals, event_days=count)
    slope = xy / xx
    if count < 2 or max(day[1] for day in days.values()) > 0.999 * xx:
        return Slope(_within(slope), xy=xy, xx=xx, signals=signals, event_days=count)
    # Leaving day g out moves the slope by u_g / (xx (1 - h_g)): u its score, h its leverage.
    moves = ((dxy - slope * dxx) / (xx - dxx) for dxy, dxx in days.values())
    error = math.sqrt((count - 1) / count * math.fsum(move * move for move in moves))
    two, one = (student_quantile(q, count - 1) * error for q in (0.975, 0.95))
    return Slope(_within(slope), _within(slope - two), _within(slope + two), _within(slope - one), xy, xx, signals, count)


def _within(value: float) -> float:
    return min(max(value, -UNBOUNDED), UNBOUNDED)


def student_quantile(q: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else Fisher and Cornish's expansion (error < 1 %)."""
    if freedom == 1:
        return math.tan(math.pi * (q - 0.5))
    if freedom == 2:
        return (2.0 * q - 1.0) * math.sqrt(0.5 / (q * (1.0 - q)))
    z = NormalDist().inv_cdf(q)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest values that never fall (pool adjacent violators), in weighted least squares."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [value for value, _, count in pools for _ in range(count)]
