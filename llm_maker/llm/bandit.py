"""Which arm, a model with a prompt version, answers a request: Thompson sampling over what each arm's opinions were worth.

Pure; time is an argument, the dice are seeded by identity, so that a replay chooses the same. What one opinion was worth is what
pooling it with the market at a small fixed weight w would have taken off the market's squared error,

    (p - t)^2 - (q - t)^2    with p the market's price, x its log-odds, d = logit(p_yes) - x, q = S(x + w d)

t being the outcome once it is known, and until then the market's price at the horizon. Both are in units of price, and that is what
makes them one scale: if the later price is a fair forecast of the outcome, the value against it is the expectation of the value
against the outcome, exactly, and less noisy. In log-odds neither holds: a fair price does not stand still there but drifts outward
(`quoting.md` 1.2), and an arm that only exaggerates the market would be paid for it; here it pays for every disagreement that no
move bears out, the more the louder it is, and no value leaves -1 to 1. Knows no model, no call and no weight in force.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from statistics import median_low

import msgspec

from llm_maker.core.skill import HORIZONS_S, Forecast
from llm_maker.core.values import NS_PER_S, expit, logit

EXPLORED = 0.05
"""Of the requests, for any arm alike, whatever is known."""
_DAY_NS = 86_400 * NS_PER_S
HALF_LIFE_NS = 30 * _DAY_NS
_FORGOTTEN_NS = 12 * HALF_LIFE_NS
_EDGE = 0.005
"""Probabilities nearer than this to 0 or 1 are read as this near, as the core reads them."""
_PRIOR_N = 1.0
"""The prior is worth as much as one value of 0 ..."""
_PRIOR_SHAPE = 1.0
"""... and two values of the usual spread."""
_LEAST_VARIANCE = 1e-12


class Record(msgspec.Struct, frozen=True):
    """What an arm's opinions were worth; old ones count less, and `n` is what is left of their number."""

    n: float
    mean: float
    var: float


class Bandit:
    """Chooses among arms; a new one is explored as one of which nothing is known."""

    def __init__(self, arms: Sequence[str], *, seed: int) -> None:
        assert arms and len(set(arms)) == len(arms), "config names at least two, each once"
        self._arms = tuple(arms)
        self._seed = seed

    def choose(self, request_id: str, records: Mapping[str, Record]) -> str:
        """The arm for this request; the same for the same records, in whatever order the arms were named."""
        explores = Random(f"{self._seed}:{request_id}").random() < EXPLORED
        usual = _usual_variance(records.values())
        drawn: dict[str, float] = {}
        for arm in self._arms:
            dice = Random(f"{self._seed}:{request_id}:{arm}")
            drawn[arm] = dice.random() if explores else _draw(records.get(arm), usual, dice)
        return max(self._arms, key=drawn.__getitem__)


def arm_of(model: str, prompt_version: str) -> str:
    """The arm's name; `model` is its name in all measurements."""
    return f"{model}@{prompt_version}"


def records(forecasts: Iterable[Forecast], now: int, *, horizon_s: int = 3_600, weight: float = 0.15) -> dict[str, Record]:
    """Arm -> its record, from members' own answers, or from what the core was told where there was no other.

    One value for each event (or instrument) and UTC day, the mean of that day's; one for all days of an event whose outcome is
    known, for they share one throw of the dice. Opinions without a probability, or too young to be judged, are left out.
    """
    told = [forecast for forecast in forecasts if now - _FORGOTTEN_NS < forecast.ts <= now]
    with_members = {forecast.decision_id for forecast in told if forecast.role == "member"}
    clusters: dict[tuple[str, str, int | None], list[tuple[int, float]]] = {}
    for forecast in told:
        if forecast.role == "used" and forecast.decision_id in with_members:
            continue
        value = _value(forecast, now, horizon_s, weight)
        if value is not None:
            day = forecast.ts // _DAY_NS if forecast.outcome is None else None
            key = (arm_of(forecast.model, forecast.prompt_version), forecast.event_id or forecast.instrument, day)
            clusters.setdefault(key, []).append((forecast.ts, value))
    values: dict[str, list[tuple[float, float]]] = {}
    for (arm, _, _), cluster in clusters.items():
        newest = max(ts for ts, _ in cluster)
        mean = math.fsum(value for _, value in cluster) / len(cluster)
        values.setdefault(arm, []).append((0.5 ** ((now - newest) / HALF_LIFE_NS), mean))
    return {arm: _record(weighed) for arm, weighed in values.items()}


def _value(forecast: Forecast, now: int, horizon_s: int, weight: float) -> float | None:
    """What the opinion took off the market's squared error; None: it cannot be said, or not yet."""
    x, target = forecast.x_market, forecast.outcome
    if target is None:
        # From the price a while after the answer: what was shown, and came back of itself, was no merit of the answer.
        first, later = forecast.later.get(HORIZONS_S[0]), forecast.later.get(horizon_s)
        if first is None or later is None or forecast.ts + horizon_s * NS_PER_S > now or not math.isfinite(later):
            return None
        d = _disagreement(forecast, x)
        return None if d is None or not math.isfinite(first) else _taken_off(first, d, expit(later), weight)
    d = _disagreement(forecast, x)
    return None if d is None or not math.isfinite(target) else _taken_off(x, d, target, weight)


def _disagreement(forecast: Forecast, x: float) -> float | None:
    if forecast.p_yes is None or not all(map(math.isfinite, (forecast.p_yes, x))):
        return None
    return logit(min(max(forecast.p_yes, _EDGE), 1.0 - _EDGE)) - x


def _taken_off(x: float, d: float, target: float, weight: float) -> float:
    return (expit(x) - target) ** 2 - (expit(x + weight * d) - target) ** 2


def _record(weighed: list[tuple[float, float]]) -> Record:
    n = math.fsum(weight for weight, _ in weighed)
    mean = math.fsum(weight * value for weight, value in weighed) / n
    return Record(n, mean, math.fsum(weight * (value - mean) ** 2 for weight, value in weighed) / n)


def _usual_variance(known: Iterable[Record]) -> float:
    """The scale of the prior, so that it is weak whatever the unit; the lower median, for one loud arm must not set it."""
    spreads = [record.var for record in known if record.n >= 2.0]
    return max(median_low(spreads), _LEAST_VARIANCE) if spreads else 1.0


def _draw(record: Record | None, usual: float, dice: Random) -> float:
    """A mean that the arm may have, from its normal-gamma posterior; the prior's mean is 0."""
    n, mean, var = (record.n, record.mean, record.var) if record is not None else (0.0, 0.0, 0.0)
    strength = _PRIOR_N + n
    shape = _PRIOR_SHAPE + n / 2.0
    rate = _PRIOR_SHAPE * usual + n * (var + _PRIOR_N * mean * mean / strength) / 2.0
    precision = max(dice.gammavariate(shape, 1.0 / rate), 1e-300)
    return n * mean / strength + dice.gauss(0.0, 1.0) / math.sqrt(strength * precision)
