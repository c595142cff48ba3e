"""How good forecasts were, model by model: against the outcomes, against the market at the same moment, against one another.

It puts together what `forecast_scores` (one forecaster) and `forecast_gain` (two on the same rows) compute. It refuses to know
where rows come from and what a page looks like. Nothing depends on the order of rows; all dice come from the seed.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from llm_maker.report.forecast_gain import Gain, Rows, gains, holm, questions_needed
from llm_maker.report.forecast_scores import (
    LEVEL,
    Corp,
    Reliability,
    Slope,
    brier_losses,
    calibration,
    clipped,
    corp,
    log_losses,
    reliability,
)

if TYPE_CHECKING:
    import numpy as np

_US_PER_DAY = 86_400_000_000


class ForecastLine(msgspec.Struct, frozen=True):
    """One forecast: `p` of yes, the market's at that moment, what came of it (None: pending), when (microseconds; None: untold)."""

    question_id: str
    model: str
    p: float
    market_p: float | None = None
    outcome: float | None = None
    ts_us: int | None = None


class AgainstMarket(msgspec.Struct, frozen=True):
    """A model beside the market on its rows that have a market price. `needed`: questions for 2 sigma if the model is right."""

    n: int
    brier: float
    log_score: float
    market_brier: float
    market_log_score: float
    brier_gain: Gain
    log_gain: Gain
    rms_difference: float
    needed: int | None


class ModelScores(msgspec.Struct, frozen=True):
    """All that is known of one model's resolved forecasts. `sharpness`: standard deviation of p; `split`: outcomes not 0 or 1."""

    model: str
    n: int
    questions: int
    days: int | None
    pending: int
    split: int
    base_rate: float
    brier: float
    log_score: float
    sharpness: float
    calibration: Slope
    brier_parts: Corp
    log_parts: Corp
    reliability: Reliability
    market: AgainstMarket | None


class BestTwo(msgspec.Struct, frozen=True):
    """The two lowest Brier scores, paired where both forecast the same question at the same moment; gains are `first`'s."""

    first: str
    second: str
    brier_gain: Gain
    log_gain: Gain


class Scores(msgspec.Struct, frozen=True):
    """Everything: models by Brier score, best first; `same_rows`: all of them forecast the same questions at the same moments."""

    rows: int
    resolved: int
    pending: int
    unpaired: int
    """Resolved rows without a market price: scored, not compared."""
    silent: tuple[str, ...]
    """Models none of whose questions has resolved."""
    same_rows: bool
    models: tuple[ModelScores, ...]
    best_two: BestTwo | None
    seed: int
    resamples: int


def score(rows: Sequence[ForecastLine], seed: int = 0, resamples: int = 2_000) -> Scores:
    """Score every model of `rows`; where nothing has resolved yet, `models` is empty."""
    resolved = sorted((row for row in rows if row.outcome is not None), key=_place)
    waiting = Counter(row.model for row in rows if row.outcome is None)
    by_model: dict[str, list[ForecastLine]] = {}
    for row in resolved:
        by_model.setdefault(row.model, []).append(row)
    found = [_model(name, mine, waiting[name], seed, resamples) for name, mine in by_model.items()]
    found = _adjusted(sorted(found, key=lambda m: (m.brier, m.model)))
    keys = [{(row.question_id, row.ts_us) for row in mine} for mine in by_model.values()]
    return Scores(
        rows=len(rows),
        resolved=len(resolved),
        pending=sum(waiting.values()),
        unpaired=sum(row.market_p is None for row in resolved),
        silent=tuple(sorted(set(waiting) - set(by_model))),
        same_rows=all(each == keys[0] for each in keys),
        models=tuple(found),
        best_two=_best_two([by_model[m.model] for m in found[:2]], seed, resamples),
        seed=seed,
        resamples=resamples,
    )


def _place(row: ForecastLine) -> tuple[int, str]:
    return (-1 if row.ts_us is None else row.ts_us, row.question_id)


def _arrays(rows: Sequence[ForecastLine]) -> Rows:
    import numpy as np

    number = {name: i for i, name in enumerate(sorted({row.question_id for row in rows}))}
    days = [row.ts_us // _US_PER_DAY for row in rows if row.ts_us is not None]
    return Rows(
        p=np.array([row.p for row in rows], dtype=np.float64),
        y=np.array([row.outcome for row in rows], dtype=np.float64),
        question=np.array([number[row.question_id] for row in rows], dtype=np.int64),
        day=np.array(days, dtype=np.int64) if len(days) == len(rows) else None,
    )


def _dice(seed: int, *names: str) -> np.random.Generator:
    """Dice of their own for each name, so that one more model in the file moves no other's interval."""
    import numpy as np

    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def _model(name: str, rows: list[ForecastLine], pending: int, seed: int, resamples: int) -> ModelScores:
    data = _arrays(rows)
    p, y = data.p, data.y
    paired = [row for row in rows if row.market_p is not None]
    return ModelScores(
        model=name,
        n=len(rows),
        questions=data.questions,
        days=data.days,
        pending=pending,
        split=int(((y > 0) & (y < 1)).sum()),
        base_rate=float(y.mean()),
        brier=float(brier_losses(p, y).mean()),
        log_score=float(log_losses(clipped(p), y).mean()),
        sharpness=float(p.std()),
        calibration=calibration(p, y, data.question),
        brier_parts=corp(p, y, brier_losses),
        log_parts=corp(clipped(p), y, log_losses),
        reliability=reliability(p, y, data.question, _dice(seed, name, "band"), resamples),
        market=_against_market(name, paired, seed, resamples) if paired else None,
    )


def _against_market(name: str, rows: list[ForecastLine], seed: int, resamples: int) -> AgainstMarket:
    import numpy as np

    data = _arrays(rows)
    market = np.array([row.market_p for row in rows], dtype=np.float64)
    brier, log = gains(data, market, _dice(seed, name, "market"), resamples)
    return AgainstMarket(
        n=len(rows),
        brier=float(brier_losses(data.p, data.y).mean()),
        log_score=float(log_losses(clipped(data.p), data.y).mean()),
        market_brier=float(brier_losses(market, data.y).mean()),
        market_log_score=float(log_losses(clipped(market), data.y).mean()),
        brier_gain=brier,
        log_gain=log,
        rms_difference=math.sqrt(float(brier_losses(data.p, market).mean())),
        needed=questions_needed(data.p, market),
    )


def _best_two(pair: list[list[ForecastLine]], seed: int, resamples: int) -> BestTwo | None:
    """None where there is one model only, or no forecast that both made."""
    import numpy as np

    if len(pair) < 2:
        return None
    first, second = pair
    other = {(row.question_id, row.ts_us): row.p for row in second}
    common = [row for row in first if (row.question_id, row.ts_us) in other]
    if not common:
        return None
    names = (first[0].model, second[0].model)
    theirs = np.array([other[row.question_id, row.ts_us] for row in common], dtype=np.float64)
    return BestTwo(*names, *gains(_arrays(common), theirs, _dice(seed, *names, "pair"), resamples))


def _adjusted(models: list[ModelScores]) -> list[ModelScores]:
    """Holm over all models compared with the market: a verdict needs the adjusted p-value as well as the interval."""
    brier = _holm_of({m.model: m.market.brier_gain for m in models if m.market})
    log = _holm_of({m.model: m.market.log_gain for m in models if m.market})
    replace = msgspec.structs.replace
    return [
        replace(m, market=replace(m.market, brier_gain=brier[m.model], log_gain=log[m.model])) if m.market else m for m in models
    ]


def _holm_of(found: dict[str, Gain]) -> dict[str, Gain]:
    told = {name: gain.p_value for name, gain in found.items() if gain.p_value is not None}
    result = dict(found)
    for name, p_holm in zip(told, holm(list(told.values())), strict=True):
        gain = found[name]
        unsure = gain.verdict in ("better", "worse") and p_holm > 1 - LEVEL
        result[name] = msgspec.structs.replace(gain, p_holm=p_holm, verdict="cannot be told" if unsure else gain.verdict)
    return result
