"""What models' opinions are worth, learned from the record: weight, calibration, trust in their confidence (`quoting.md` 1.4).

Pure: forecasts in, a `Skill` per model and category out; the same in any order. It writes nothing and tells nobody.

Models are told apart by name alone, and one function measures all. `used` rows are what the core was told, after calibration and
pooling: they give a name its weight, read as they are, because so the core reads them. `member` rows are a model's own words: they
give it its calibration, and, where the name has no `used` rows (a member of a pool), its weight too, of the calibrated words. A
calibration is never learned from `used` rows: it would be one of what is calibrated already, and undo itself from day to day.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from llm_maker.core.skill import HORIZONS_S, Forecast, Knots, Skill, at, skill_key
from llm_maker.core.values import NS_PER_S, expit, logit
from llm_maker.report import platt
from llm_maker.report.slope import MAX_X, UNBOUNDED, Row, Slope, rising, rows, through_zero

_DAY_NS = 86_400 * NS_PER_S
_EDGE = 0.005
"""Probabilities nearer than this to 0 or 1 are read as this near, as the core reads them."""
_BETA_BINS = (0.6, 0.7, 0.8, 0.9, 1.0)
_MAX_KNOTS = 10
_MAX_TRUST = 2.0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How much proof is asked for. The defaults are those of paper; live has `prior_weight` 0 and `gate`.

    `horizon_s`, one of `HORIZONS_S`: when the market is looked at again. An hour is the short end of how long a position is held,
    and sees skill best: on the simulated venue six hours show about twice the slope with nearly five times the error
    (`python -m benchmarks.skill`). The price of it is caution: what takes longer than an hour to reach the price is not counted.
    """

    prior_weight: float = 0.15
    prior_signals: float = 200.0
    """Event-days that the prior weighs as much as."""
    horizon_s: int = 3_600
    max_weight: float = 0.5
    gate: bool = False
    gate_event_days: int = 300
    user_weight: float = 0.0
    """While the gate has not been passed."""
    recent_days: int = 30
    recent_event_days: int = 100
    platt_min: int = 200
    platt_questions: float = 50.0
    trust_min: int = 300
    forget_days: int = 90


class _Judged(msgspec.Struct, frozen=True):
    """A weight with its reason. `zeroed`: no skill of late; `proved`: it stands on the model's own gate.

    `measured` False: too little is known, and the prior that is set stands in its place.
    """

    weight: float
    why: str
    zeroed: bool = False
    proved: bool = False
    measured: bool = True


def measure(forecasts: Sequence[Forecast], *, now_ns: int, rules: Rules) -> dict[str, Skill]:
    """`skill_key(model, category)` -> skill, for every model heard of within `forget_days`; category "" is all together.

    The slope is of later moves of the market on the disagreement d (both log-odds), through zero, every opinion of one market
    within one horizon sharing the weight of one. Its interval is by event-day, and an event-day is what the prior counts in:

        W = (sum w d y + n0 v W0) / (sum w d^2 + n0 v),    v = (sum w d^2 of the model) / (its event-days),    n0 = 200

    so v is the squared disagreement of the model's typical event-day. Over all categories this is (n slope + n0 W0) / (n + n0)
    for n event-days; a category is shrunk in the same way towards the model's W. Raises AssertionError where simulated and
    real forecasts are mixed: one scope at a time.
    """
    assert rules.horizon_s in HORIZONS_S[1:], "the market is looked at again at these horizons, and the first one is the reference"
    assert len({f.simulated for f in forecasts}) <= 1, "simulated forecasts say nothing of real models"
    named: dict[str, list[Forecast]] = defaultdict(list)
    for f in sorted(forecasts, key=_in_order):
        if f.ts <= now_ns and _sound(f):
            named[f.model].append(f)
    found: dict[str, Skill] = {}
    for model, own in sorted(named.items()):
        if max(f.ts for f in own) >= now_ns - rules.forget_days * _DAY_NS:
            found |= {skill_key(model, category): skill for category, skill in _of_model(own, now_ns, rules).items()}
    return found


def _in_order(f: Forecast) -> tuple[int, str, str, str, str, float, float, float, int]:
    """Sorts forecasts the same however they came: sums of floats depend on their order."""
    p = -1.0 if f.p_yes is None else f.p_yes
    return f.ts, f.decision_id, f.instrument, f.model, f.role, p, f.confidence, f.x_market, f.bias


def _sound(f: Forecast) -> bool:
    """Holds numbers only, each where it can be; comparisons with NaN are false."""
    return abs(f.x_market) <= MAX_X and (f.p_yes is None or 0.0 <= f.p_yes <= 1.0) and 0.0 <= f.confidence <= 1.0


def _of_model(forecasts: list[Forecast], now_ns: int, rules: Rules) -> dict[str, Skill]:
    used, words = ([f for f in forecasts if f.role == role] for role in ("used", "member"))
    told, scored = used or words, words or used
    scales = _scales(words, rules)
    betas = _betas(told, rules)
    d = _disagreement({} if used else scales, _halves(told, rules))
    whole = rows(told, rules.horizon_s, d)
    slope = through_zero(whole)
    v = slope.xx / slope.event_days if slope.event_days else 0.0
    shrunk = _shrunk(slope, v, rules.prior_weight, rules)
    verdict = _judge(whole, slope, shrunk, now_ns, rules)
    found = {"": _skill(verdict, slope, scales[""], _trust(whole, slope, rules), betas, _scored(scored))}
    for category in sorted({f.category for f in forecasts} - {""}):
        told_here, scored_here = ([f for f in group if f.category == category] for group in (told, scored))
        part = rows(told_here, rules.horizon_s, d)
        here = through_zero(part)
        own = _judge(part, here, _shrunk(here, v, shrunk, rules), now_ns, rules, verdict)
        scale = scales.get(category, scales[""])
        found[category] = _skill(own, here, scale, found[""].trust, betas, _scored(scored_here))
    return found


def _skill(
    verdict: _Judged,
    slope: Slope,
    scale: tuple[float, float],
    trust: Knots,
    betas: Knots,
    scored: tuple[int, float | None, float | None],
) -> Skill:
    return Skill(
        weight=verdict.weight,
        measured=verdict.measured,
        why=verdict.why,
        platt=scale,
        trust=trust,
        betas=betas,
        signals=slope.signals,
        event_days=slope.event_days,
        slope=slope.slope,
        slope_low=slope.low,
        slope_high=slope.high,
        outcomes=scored[0],
        brier=scored[1],
        brier_market=scored[2],
    )


# The weight.


def _shrunk(slope: Slope, v: float, prior: float, rules: Rules) -> float:
    """Ridge towards a prior that weighs `prior_signals` typical event-days; the prior itself where nobody disagreed."""
    strength = rules.prior_signals * v
    return (slope.xy + strength * prior) / (slope.xx + strength) if slope.xx + strength > 0.0 else prior


def _judge(sample: list[Row], slope: Slope, shrunk: float, now_ns: int, rules: Rules, whole: _Judged | None = None) -> _Judged:
    """The weight in force. A category without proof enough of its own (`whole` is the model's) follows the model."""
    weight = _clipped(shrunk, rules)
    since = now_ns - rules.recent_days * _DAY_NS
    recent = through_zero([row for row in sample if row.ts >= since])
    if recent.event_days >= rules.recent_event_days:
        if recent.low <= 0.0:
            text = f"no skill in {rules.recent_days} days: slope {_interval(recent)}"
            return _Judged(0.0, text, zeroed=True)
    elif whole is not None and whole.zeroed:
        return _Judged(0.0, f"of all categories: {whole.why}", zeroed=True)
    if not rules.gate:
        if slope.xx > 0.0:
            return _Judged(weight, f"measured: slope {_interval(slope)} in {slope.event_days} event-days")
        if whole is None:
            return _Judged(weight, "prior", measured=False)
        return _Judged(weight, f"of all categories: {whole.why}", measured=whole.measured)
    if slope.event_days < rules.gate_event_days:
        if whole is not None and whole.proved:
            return _Judged(min(weight, whole.weight), f"of all categories: {whole.why}")
        return _Judged(rules.user_weight, f"gate: {slope.event_days} of {rules.gate_event_days} event-days", measured=False)
    if slope.bound <= 0.0:
        return _Judged(rules.user_weight, f"gate: lower bound {slope.bound:.3f} of the slope is not above 0", measured=False)
    return _Judged(_clipped(slope.bound, rules), f"gate passed: slope {_interval(slope)}, at its lower bound", proved=True)


def _clipped(weight: float, rules: Rules) -> float:
    return min(max(weight, 0.0), rules.max_weight)


def _interval(slope: Slope) -> str:
    if slope.low <= -UNBOUNDED:
        return f"{slope.slope:.3f} (no interval yet)"
    return f"{slope.slope:.3f} ({slope.low:.3f} to {slope.high:.3f})"


# What is put into it.


def _disagreement(scales: Mapping[str, tuple[float, float]], halves: tuple[Knots, Knots]) -> Callable[[Forecast], float]:
    """d of a forecast: as it was used, else calibrated log-odds less the market's, or of a bare bias the mean move after it.

    That mean is of the other half of the days (even, odd), for a forecast must not be judged by a number made of itself.
    """

    def d(f: Forecast) -> float:
        if f.d is not None:
            return f.d  # the weight is measured on what it will multiply
        if f.p_yes is None:
            return f.bias * at(halves[1 - f.ts // _DAY_NS % 2], f.confidence, 0.0)
        alpha, beta = scales.get(f.category, scales.get("", platt.IDENTITY))
        return _x(expit(alpha + beta * _x(f.p_yes))) - f.x_market

    return d


def _x(p: float) -> float:
    return logit(min(max(p, _EDGE), 1.0 - _EDGE))


def _halves(told: list[Forecast], rules: Rules) -> tuple[Knots, Knots]:
    even, odd = ([f for f in told if f.ts // _DAY_NS % 2 == half] for half in (0, 1))
    return _betas(even, rules), _betas(odd, rules)


def _betas(told: list[Forecast], rules: Rules) -> Knots:
    """Mean log-odds move after a bare bias, by confidence, bullish and bearish together, shrunk to 0; empty without any.

    A mean below 0 is read as 0: a bias that fails is not traded against.
    """
    sample = rows([f for f in told if f.p_yes is None and f.bias], rules.horizon_s, lambda f: float(f.bias))
    knots = []
    for low, high in zip((-math.inf, *_BETA_BINS), _BETA_BINS, strict=False):
        slope = through_zero([row for row in sample if low < row.confidence <= high])
        mean = _shrunk(slope, slope.xx / slope.event_days, 0.0, rules) if slope.event_days else 0.0
        knots.append((high, max(0.0, mean)))
    return tuple(knots) if sample else ()


def _trust(sample: list[Row], slope: Slope, rules: Rules) -> Knots:
    """rho: stated confidence -> slope there over the slope of all, rising, at most `_MAX_KNOTS` knots, within 0 to 2.

    Empty below `trust_min` signals, and while the slope's interval reaches 0: a ratio to what may be nothing says nothing.
    Each bin's slope is shrunk to that of all. Behind the gate at most 1: nothing counts for more than the lower bound.
    """
    most = 1.0 if rules.gate else _MAX_TRUST
    if slope.signals < rules.trust_min or slope.low <= 0.0:
        return ()
    bins = _bins(sample)
    v = slope.xx / slope.event_days
    slopes = [through_zero(part) for part in bins]
    values = rising([_shrunk(one, v, slope.slope, rules) for one in slopes], [one.xx + 1e-12 for one in slopes])
    knots: dict[float, float] = {}
    for part, value in zip(bins, values, strict=True):
        ratio = min(max(value / slope.slope, 0.0), most)
        knots = {upper: known for upper, known in knots.items() if known != ratio} | {part[-1].confidence: ratio}
    return tuple(sorted(knots.items()))


def _bins(sample: list[Row]) -> list[list[Row]]:
    """By confidence, about equally many in each, equal confidences never parted."""
    ordered = sorted(sample, key=lambda row: row.confidence)
    size = math.ceil(len(ordered) / _MAX_KNOTS)
    bins: list[list[Row]] = []
    for row in ordered:
        full = not bins or len(bins[-1]) >= size
        if full and not (bins and bins[-1][-1].confidence == row.confidence):
            bins.append([])
        bins[-1].append(row)
    return bins


# Against outcomes.


def _resolved(stated: Iterable[Forecast]) -> list[tuple[Forecast, float, float, float]]:
    """(forecast, p, outcome, weight) of resolved questions; the opinions on one question weigh 1 together."""
    found = [(f, f.p_yes, f.outcome) for f in stated if f.p_yes is not None and f.outcome is not None and 0.0 <= f.outcome <= 1.0]
    asked = Counter(f.instrument for f, _, _ in found)
    return [(f, p, outcome, 1.0 / asked[f.instrument]) for f, p, outcome in found]


def _scales(words: list[Forecast], rules: Rules) -> dict[str, tuple[float, float]]:
    """Platt per category, shrunk to that of all (""), itself shrunk to the identity; the identity before `platt_min` questions."""
    resolved = _resolved(words)
    if len({f.instrument for f, *_ in resolved}) < rules.platt_min:
        return {"": platt.IDENTITY}
    answers: dict[str, list[platt.Answer]] = defaultdict(list)
    for f, p, outcome, weight in resolved:
        answers[f.category].append(platt.Answer(_x(p), outcome, weight))
    whole = platt.fit([a for part in answers.values() for a in part], platt.IDENTITY, rules.platt_questions)
    parts = {category: platt.fit(part, whole, rules.platt_questions) for category, part in answers.items()}
    return parts | {"": whole}


def _scored(stated: list[Forecast]) -> tuple[int, float | None, float | None]:
    """(questions, Brier score of the stated probabilities, of the market's at the same moments); a question weighs 1."""
    resolved = _resolved(stated)
    count = len({f.instrument for f, *_ in resolved})
    if not count:
        return 0, None, None
    own = math.fsum(weight * (p - outcome) ** 2 for _, p, outcome, weight in resolved)
    market = math.fsum(weight * (expit(f.x_market) - outcome) ** 2 for f, _, outcome, weight in resolved)
    return count, own / count, market / count
