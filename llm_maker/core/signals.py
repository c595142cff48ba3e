"""Opinions: when a signal is acceptable, how far it reaches, how it fades. And the failure count of the slow loop.

The mathematics is `quoting.md` 1.4: disagreement `d` in log-odds against the market, smoothed over refreshes in time, faded with
age, used up when the market moves its way, multiplied by a measured weight. This file knows no book and no order; the market
comes in as a mid and a position.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.params import SignalParams
from llm_maker.core.skill import Skill, at
from llm_maker.core.strategy import View
from llm_maker.core.values import CASH_PER_USD, Instrument, Kind, expit, logit

_EDGE = 0.005
"""Probabilities nearer than this to 0 or 1 are read as this near."""


class Opinion(msgspec.Struct):
    """The last accepted signal of a market, with what the market was at that moment."""

    signal: Signal
    decision_id: str
    model: str
    received_ns: int
    expires_ns: int
    x0: float
    """The market's log-odds (linear: log price) when the signal was accepted."""
    d0: float
    """Smoothed disagreement then: plus is a higher fair value than the market's."""
    raw_d: float
    """The signal's own disagreement, unsmoothed; for the log."""
    target_net: int | None
    """The position it asks for, quantity units; None when it may not."""


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A decision of the past, with where the market and our position in it stood."""

    at_ns: int
    action: Action
    confidence: float
    p_yes: float | None
    mark: float
    volume: int
    gain: int
    """What the market had brought by then, cash units."""


class Verdict(msgspec.Struct, frozen=True):
    """An opinion, or the reason why there is none."""

    opinion: Opinion | None
    refused: str = ""


class SlowLoop(msgspec.Struct):
    """Where the slow loop stands: what was asked, how often it failed, whether rules have taken over."""

    fallback: bool = False
    cause: str = ""
    failures: int = 0
    """Cycles without a valid answer, in a row."""
    asked_ns: int = 0
    pending: str = ""
    """Request id without an answer yet; empty: none."""
    markets: list[str] = msgspec.field(default_factory=list)
    """Instruments of the pending request."""
    probe_ns: int = 0
    probe_gap_ns: int = 0
    answered_ns: int = 0
    most: int = 0
    """Markets in one question at most, after an answer that was cut off; 0: as configured."""
    said_empty: bool = False


def _earned_target(opinion: Opinion, earned: float) -> int | None:
    """As much of the wanted position as its weight has earned: without any, quotes lean towards none at all."""
    return None if opinion.target_net is None else round(earned * opinion.target_net)


def market_x(instrument: Instrument, price: float) -> float:
    """A price (price units) in the instrument's fair-value space: log-odds, or log price for a linear one."""
    if instrument.kind is Kind.BINARY:
        p = min(max(price / instrument.payout, _EDGE), 1.0 - _EDGE)
        return logit(p)
    return math.log(max(price, 1.0))


def smoothing(params: SignalParams, gap_ns: int) -> float:
    """K(dt) = 1 - (1 - K)^(dt / refresh): the share of a new opinion that replaces the old one."""
    return 1.0 - math.pow(1.0 - params.smoothing, gap_ns / params.refresh_ns)


def remaining(opinion: Opinion, x_market: float) -> float:
    """What is left of the disagreement after the market's own move; a move the other way does not enlarge it."""
    sign = 1.0 if opinion.d0 >= 0 else -1.0
    moved = max(0.0, sign * (x_market - opinion.x0))
    return sign * max(0.0, abs(opinion.d0) - moved)


def accept(
    signal: Signal,
    previous: Opinion | None,
    instrument: Instrument,
    mid: float,
    net: int,
    sizes: tuple[int, int],
    params: SignalParams,
    now: int,
    source: tuple[str, str],
    skill: Skill | None = None,
    bankroll: int = 0,
) -> Verdict:
    """Judge one signal against the market it speaks of; `sizes` are (base, maximum) quantity, `source` (decision, model).

    `bankroll` (cash units) is what a share of the capital is a share of.
    """
    refused = contradiction(signal, instrument, mid)
    if refused:
        return Verdict(None, refused)
    x = market_x(instrument, mid)
    raw = _disagreement(signal, instrument, x, params, skill)
    gap = now - previous.received_ns if previous else params.refresh_ns
    k = smoothing(params, gap)
    kept = remaining(previous, x) if previous and now < previous.expires_ns else 0.0
    expires = now + params.expiry_ns
    if instrument.end_ns is not None:
        expires = min(expires, max(now, instrument.end_ns - params.expire_before_end_ns))
    d0 = (1.0 - k) * kept + k * raw
    allotted = None
    buys = signal.action in (Action.BUY_YES, Action.BUY_NO)
    if signal.share is not None and buys and instrument.kind is Kind.BINARY:
        allotted = _allotted(signal, instrument, mid, d0, skill, bankroll, params)
    opinion = Opinion(
        signal=signal,
        decision_id=source[0],
        model=source[1],
        received_ns=now,
        expires_ns=expires,
        x0=x,
        d0=d0,
        raw_d=raw,
        target_net=_target(signal, net, sizes, params, allotted),
    )
    return Verdict(opinion)


def contradiction(signal: Signal, instrument: Instrument, mid: float) -> str:
    """Why the signal argues against itself, or an empty string."""
    opposed = {Action.BUY_YES: Bias.BEARISH, Action.BUY_NO: Bias.BULLISH}
    if opposed.get(signal.action) is signal.directional_bias:
        return "contradiction"
    if instrument.kind is Kind.BINARY:
        p = mid / instrument.payout
        high = signal.p_high if signal.p_high is not None else signal.p_yes
        low = signal.p_low if signal.p_low is not None else signal.p_yes
        if signal.action is Action.BUY_YES and high is not None and high < p:
            return "contradiction"
        if signal.action is Action.BUY_NO and low is not None and low > p:
            return "contradiction"
    return ""


def size_multiplier(confidence: float, params: SignalParams) -> float:
    """1 up to the size-up confidence, then linear to `size_up_max` at 1."""
    span = 1.0 - params.size_up_confidence
    if confidence <= params.size_up_confidence or span <= 0:
        return 1.0
    return 1.0 + (params.size_up_max - 1.0) * (confidence - params.size_up_confidence) / span


def bias_sign(bias: Bias) -> int:
    return {Bias.BULLISH: 1, Bias.BEARISH: -1, Bias.NEUTRAL: 0}[bias]


def _disagreement(signal: Signal, instrument: Instrument, x: float, params: SignalParams, skill: Skill | None) -> float:
    binary = instrument.kind is Kind.BINARY
    if signal.p_yes is not None and binary:
        return logit(min(max(signal.p_yes, _EDGE), 1.0 - _EDGE)) - x
    # What was measured is in log-odds, and a linear market has none.
    beta = at(skill.betas if skill and binary else (), signal.confidence, params.bias_beta * signal.confidence)
    return bias_sign(signal.directional_bias) * beta


def weight_in_force(skill: Skill | None, confidence: float, params: SignalParams) -> float:
    """W times rho of a stated confidence where it was measured, else the prior."""
    if skill is None or not skill.measured:
        return params.prior_weight
    return skill.weight * at(skill.trust, confidence, 1.0)


def _allotted(
    signal: Signal, instrument: Instrument, mid: float, d: float, skill: Skill | None, bankroll: int, params: SignalParams
) -> int:
    """Quantity of the side that the action names which a share of the capital buys, and no more than its Kelly bet.

    n = kf B e / (p (1 - p)) shares, e the edge on that side in price after weight (`quoting.md` 3); nothing where there is none.
    """
    p = min(max(mid / instrument.payout, _EDGE), 1.0 - _EDGE)
    weight = min(weight_in_force(skill, signal.confidence, params), params.max_weight)
    sign = -1.0 if signal.action is Action.BUY_NO else 1.0
    edge = max(0.0, sign * (expit(logit(p) + weight * d) - p))
    ratio = params.kelly_measured_ratio if skill is not None and skill.slope_low > 0.0 else params.kelly_ratio
    usd = bankroll / CASH_PER_USD
    kelly = ratio * usd * edge / (p * (1.0 - p))
    bought = (signal.share or 0.0) * usd / (p if sign > 0 else 1.0 - p)
    return instrument.floor_qty(min(kelly, bought) * 10**instrument.qty_decimals)


def _target(signal: Signal, net: int, sizes: tuple[int, int], params: SignalParams, allotted: int | None) -> int | None:
    """The position asked for: moved by base x multiplier, or up to what was allotted; within the maximum.

    Sells never open the other side.
    """
    base, limit = sizes
    if signal.action is Action.EXIT:
        return 0
    if signal.confidence < params.min_confidence:
        return None
    step = int(base * size_multiplier(signal.confidence, params))
    if allotted is not None:
        limit = min(limit, allotted)
        step = limit + abs(net)
    match signal.action:
        case Action.BUY_YES:
            return max(net, min(net + step, limit))
        case Action.BUY_NO:
            return min(net, max(net - step, -limit))
        case Action.SELL_YES:
            return max(net - step, min(net, 0)) if net > 0 else net
        case Action.SELL_NO:
            return min(net + step, max(net, 0)) if net < 0 else net
        case _:
            return net


def view(opinion: Opinion | None, instrument: Instrument, mid: float, weight: float, params: SignalParams, now: int) -> View:
    """The effective opinion at this moment (`quoting.md` 1.4); past its expiry, or at weight 0 (shadow), a signal is nothing."""
    if opinion is None or now >= opinion.expires_ns or weight <= 0:
        return View()
    signal = opinion.signal
    sure = signal.confidence >= params.min_confidence
    risky = signal.risk_level is Grade.HIGH
    doubt = 0.5 * min(1.0, signal.disagreement / params.disagreement_logit)
    age = now - opinion.received_ns
    weight = min(weight, params.max_weight)
    earned = min(1.0, weight / params.full_weight)
    faded = weight * 0.5 ** (age / params.half_life_ns)
    d = remaining(opinion, market_x(instrument, mid)) if mid > 0 else 0.0
    return View(
        shift=faded * d,
        size_ratio=(1.0 + earned * (size_multiplier(signal.confidence, params) - 1.0)) * (0.5 if risky else 1.0) * (1.0 - doubt),
        widen=(1.5 if risky else 1.0) * (1.0 + doubt),
        target_net=_earned_target(opinion, earned),
        exit=signal.action is Action.EXIT,
        silent=params.rule == "seed" and not sure,
        bias=bias_sign(signal.directional_bias) if sure else 0,
        lean={Action.BUY_YES: 1, Action.BUY_NO: -1}.get(signal.action, 0) if sure else 0,
        weight=faded,
        decision_id=opinion.decision_id,
    )
