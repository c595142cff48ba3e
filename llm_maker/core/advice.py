"""What models say of one market, in their own words: an action, how sure they are, and why. It names no order."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Action(StrEnum):
    BUY_YES = "buy_yes"
    BUY_NO = "buy_no"
    SELL_YES = "sell_yes"
    SELL_NO = "sell_no"
    HOLD = "hold"
    EXIT = "exit"


class Bias(StrEnum):
    BULLISH = "bullish"
    BEARISH = "bearish"
    NEUTRAL = "neutral"


class Grade(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Signal(msgspec.Struct, frozen=True):
    """One market's advice. Probabilities are of YES; `p_yes` None when the model gave only a bias."""

    market_id: str
    action: Action
    confidence: float
    directional_bias: Bias
    risk_level: Grade = Grade.MEDIUM
    priority: Grade = Grade.MEDIUM
    p_yes: float | None = None
    p_low: float | None = None
    p_high: float | None = None
    reasoning: str = ""
    evidence: str = ""
    stop_ratio: float | None = None
    target_ratio: float | None = None
    share: float | None = None
    """Of the capital, 0 to 1, where one call saw the whole portfolio; None: nothing was said."""
    disagreement: float = 0.0
    """Of the models that were asked side by side: weighted standard deviation of their log-odds; 0 for one model."""


class MemberAnswer(msgspec.Struct, frozen=True):
    """What one of several models answered, as it was: before calibration and pooling."""

    model: str
    """Its name in all measurements: provider, model as the server calls it, and what else sets it apart."""
    prompt_version: str
    outcome: str
    """`ok`, or why it was left out: a reason of `events.SignalsFailed`, or `open` while its breaker is."""
    signals: tuple[Signal, ...] = ()
    weight: float = 0.0
    """Its part in the pool, 0 to 1."""
    cost: int = 0
    detail: str = ""
