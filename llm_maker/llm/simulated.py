"""A simulated analyst: a noisy view of a simulator's truth, as skilled as it is set. For the simulated venue only.

Lives in virtual time and says in every answer that it is simulated. Its noise model is `quoting.md` 9.2: L = x + eta,
the variance of eta half fixed per market and half fresh at each question, so that R2 = var(e) / (var(e) + var(eta)),
where e is the market's own error. Dice are seeded by identity, never shared, so no other market can disturb a draw.
Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import msgspec

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.commands import Command, MarketBrief, RequestSignals
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S, PPM, Kind, expit, logit
from llm_maker.llm.answer import decision_id

PROMPT_VERSION = "simulated"
_PLACEBO_R2 = 0.10
"""R2 = 0 disagrees as loudly as this skill would, and knows nothing: the placebo of `quoting.md` 9.3."""
_EDGE = 0.005
"""Probabilities and prices are read as at least this far from 0 and 1, as the core reads them."""
_INTERVAL_SDS = 1.2816
"""80 percent of a normal distribution."""
_SURE_SDS = 2.0
_LEAN_SDS = 0.25

Answered = SignalsReceived | SignalsFailed | SignalsSkipped


class _Due(msgspec.Struct):
    at_ns: int
    event: Answered


class _Saved(msgspec.Struct):
    requests: int = 0
    asked: dict[str, int] = msgspec.field(default_factory=dict)
    """Questions so far per market: the identity of the next fresh draw."""
    due: list[_Due] = msgspec.field(default_factory=list)


class SimulatedAnalyst:
    """Answers each request `latency_ns` of market time later.

    `truth` gives a market's true log-odds; `error_variance` is var(e) of the market's price in log-odds; `r2` the
    skill, 0 to 1. Failures: `fail_ppm` of requests time out, and `outcomes` scripts the first requests (`ok`, a reason
    of `SignalsFailed`, or `silence`: no answer ever).
    """

    name = "llm"

    def __init__(
        self,
        truth: Callable[[str], float],
        *,
        seed: int,
        error_variance: float,
        r2: float = 0.10,
        latency_ns: int = 2 * NS_PER_S,
        fail_ppm: int = 0,
        outcomes: tuple[str, ...] = (),
    ) -> None:
        assert 0.0 <= r2 <= 1.0 and error_variance > 0.0, "config checks the skill"
        self._truth = truth
        self._seed = seed
        self._r2 = r2
        skill = r2 or _PLACEBO_R2
        self._noise_sd = math.sqrt(error_variance * (1.0 - skill) / skill)
        self._typical_sd = math.sqrt(error_variance / skill)
        """Of the disagreement with the market: its error and our noise."""
        self._latency_ns = latency_ns
        self._fail_ppm = fail_ppm
        self._outcomes = outcomes
        self._saved = _Saved()
        self.model = f"simulated(R2={r2:.2f})"

    def observe(self, now: int, event: Event) -> None:
        """Markets are seen through the brief only."""

    def execute(self, now: int, command: Command) -> None:
        if not isinstance(command, RequestSignals):
            return
        event = self._answer(command)
        if event is not None:
            self._saved.due.append(_Due(now + self._latency_ns, event))

    def next_ns(self) -> int | None:
        return self._saved.due[0].at_ns if self._saved.due else None

    def advance(self, now: int) -> list[Event]:
        # One latency for all: answers are due in the order of the questions.
        ready = [due.event for due in self._saved.due if due.at_ns <= now]
        self._saved.due = self._saved.due[len(ready) :]
        return list(ready)

    def checkpoint(self) -> bytes:
        return msgspec.json.encode(self._saved, order="sorted")

    def restore(self, saved: bytes) -> None:
        self._saved = msgspec.json.decode(saved, type=_Saved)

    def _answer(self, request: RequestSignals) -> Answered | None:
        count = self._saved.requests
        self._saved.requests += 1
        if not request.markets:
            return SignalsSkipped(request.request_id, "empty_agenda")
        outcome = self._outcome(count)
        if outcome == "silence":
            return None
        decision = decision_id(request.request_id)
        if outcome != "ok":
            return SignalsFailed(request.request_id, decision, outcome, "simulated failure")
        signals = tuple(self._signal(brief) for brief in request.markets)
        return SignalsReceived(request.request_id, decision, self.model, PROMPT_VERSION, signals, simulated=True)

    def _outcome(self, count: int) -> str:
        if count < len(self._outcomes):
            return self._outcomes[count]
        failed = Random(f"{self._seed}:failure:{count}").randrange(PPM) < self._fail_ppm
        return "timeout" if failed else "ok"

    def _signal(self, brief: MarketBrief) -> Signal:
        if brief.kind != Kind.BINARY:
            return _no_view(brief)
        count = self._saved.asked.get(brief.market_id, 0)
        self._saved.asked[brief.market_id] = count + 1
        market = logit(min(max(brief.yes_price, _EDGE), 1.0 - _EDGE))
        return self._judge(brief, market, self._belief(brief.market_id, count, market))

    def _belief(self, market_id: str, count: int, market: float) -> float:
        """Log-odds L: the truth (without skill: the market) and noise, half of its variance fixed, half fresh."""
        half = math.sqrt(0.5)
        fixed = Random(f"{self._seed}:{market_id}:fixed").gauss(0.0, 1.0)
        fresh = Random(f"{self._seed}:{market_id}:{count}").gauss(0.0, 1.0)
        eta = half * (fixed + fresh)
        if self._r2 == 0.0:
            return market + self._typical_sd * eta
        return self._truth(market_id) + self._noise_sd * eta

    def _judge(self, brief: MarketBrief, market: float, belief: float) -> Signal:
        """A view in the words of the contract: it acts only where the price lies outside its own interval."""
        p, low, high = (_clip(belief + k * _INTERVAL_SDS * self._noise_sd) for k in (0.0, -1.0, 1.0))
        strength = abs(belief - market) / self._typical_sd
        action = _action(brief.position, _clip(market), low, high)
        bias = Bias.NEUTRAL
        if action in (Action.BUY_YES, Action.SELL_NO) or (belief > market and strength > _LEAN_SDS):
            bias = Bias.BULLISH
        elif action in (Action.BUY_NO, Action.SELL_YES) or (belief < market and strength > _LEAN_SDS):
            bias = Bias.BEARISH
        return Signal(
            market_id=brief.market_id,
            action=action,
            confidence=round(0.5 + 0.5 * math.tanh(strength / _SURE_SDS), 4),
            directional_bias=bias,
            risk_level=_risk(brief, market),
            priority=Grade.HIGH if action is not Action.HOLD else Grade.MEDIUM if strength > 0.5 else Grade.LOW,
            p_yes=p,
            p_low=low,
            p_high=high,
            reasoning=f"simulated: {p:.3f} against a price of {brief.yes_price:.3f}",
            evidence=f"simulated: the simulator's truth with noise, skill R2={self._r2:.2f}",
        )


def _action(position: float, price: float, low: float, high: float) -> Action:
    if low > price:
        return Action.SELL_NO if position < 0 else Action.BUY_YES
    if high < price:
        return Action.SELL_YES if position > 0 else Action.BUY_NO
    return Action.HOLD


def _risk(brief: MarketBrief, market: float) -> Grade:
    near_end = brief.hours_to_end is not None and brief.hours_to_end < 24.0
    if near_end or abs(market) > 2.5:
        return Grade.HIGH
    return Grade.LOW if abs(market) < 1.0 else Grade.MEDIUM


def _no_view(brief: MarketBrief) -> Signal:
    return Signal(
        market_id=brief.market_id,
        action=Action.HOLD,
        confidence=0.0,
        directional_bias=Bias.NEUTRAL,
        priority=Grade.LOW,
        reasoning="simulated: no view on an instrument that pays no fixed sum",
    )


def _clip(x: float) -> float:
    return min(max(expit(x), _EDGE), 1.0 - _EDGE)
