"""What a model says of one market, in its own words: an action, how sure it is, and why. It names no order."""

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
