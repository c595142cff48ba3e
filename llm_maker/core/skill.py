"""What is known of a model's opinions: what they were, what became of them, and what that makes them worth.

`Forecast` is one line of the record, `Skill` what was learned from many; how it is learned is no business of the core. Keys are
`model|category`; an empty category means all of them together, and serves where a category has no record of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from llm_maker.core.values import expit, logit

_EDGE = 0.005
"""Probabilities nearer than this to 0 or 1 are read as this near."""
HORIZONS_S = (300, 3_600, 21_600, 86_400)
"""When the market is looked at again after an opinion: 5 minutes, 1, 6 and 24 hours."""

Knots = tuple[tuple[float, float], ...]
"""(confidence up to, value) in rising order; beyond the last one the last value holds."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """One opinion with what the market thought then and later; log-odds of YES throughout."""

    ts: int
    decision_id: str
    model: str
    category: str
    instrument: str
    event_id: str
    role: Literal["used", "member"]
    """`used`: what the core was told; `member`: one model's own answer before calibration and pooling."""
    p_yes: float | None
    confidence: float
    bias: int
    x_market: float
    """The market's log-odds at that moment."""
    d: float | None = None
    """The disagreement that the core went by, smoothed over earlier ones; None: it was another's word, or refused."""
    later: dict[int, float] = {}
    """Horizon in seconds -> the market's log-odds then."""
    outcome: float | None = None
    """What a YES share paid, 0 to 1; None: not resolved."""
    prompt_version: str = ""
    simulated: bool = False


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's opinion counts for in one category, and the numbers that say so (`quoting.md` 1.4)."""

    weight: float
    """W in force, 0 to 0.5."""
    measured: bool = True
    """False: too little is known, and the prior that is set stands in the place of `weight`."""
    why: str = ""
    """In a few words: prior, measured, gate not passed, no skill in 30 days."""
    platt: tuple[float, float] = (0.0, 1.0)
    """(alpha, beta): the calibrated log-odds are alpha + beta times the model's own."""
    trust: Knots = ()
    """Stated confidence -> its measured slope over W (rho); empty: 1."""
    betas: Knots = ()
    """Stated confidence -> log-odds that a bare bias moved the market on the mean; empty: the configured one."""
    signals: int = 0
    """Opinions with a later price, overlapping ones counted once."""
    event_days: int = 0
    slope: float = 0.0
    """Of later price moves on the disagreement, before shrinking."""
    slope_low: float = 0.0
    slope_high: float = 0.0
    """95 % interval, clustered by event and day."""
    outcomes: int = 0
    """Questions that have resolved."""
    brier: float | None = None
    brier_market: float | None = None
    """Of the same questions at the same moments."""

    def calibrated(self, p: float) -> float:
        """A model's probability on the scale of what happened."""
        alpha, beta = self.platt
        return expit(alpha + beta * logit(min(max(p, _EDGE), 1.0 - _EDGE)))


def skill_key(model: str, category: str) -> str:
    return f"{model}|{category}"


def skill_of(skills: Mapping[str, Skill], model: str, category: str) -> Skill | None:
    """The record in this category, else over all of them, else None."""
    return skills.get(skill_key(model, category)) or skills.get(skill_key(model, ""))


def at(knots: Knots, confidence: float, otherwise: float) -> float:
    """The value of the first knot at or above a confidence."""
    if not knots:
        return otherwise
    return next((value for up_to, value in knots if confidence <= up_to), knots[-1][1])
