"""Lines of llm_decisions.jsonl: one for each cycle of the slow loop, with what each member said and what became of it.

Every line has the same keys. Latency and tokens, which may not enter the journal, are handed in by the analyst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from llm_maker.core import events as e
from llm_maker.core.advice import MemberAnswer, Signal
from llm_maker.core.brief import portfolio
from llm_maker.core.commands import AnyCommand, MarketBrief, Notice, RequestSignals
from llm_maker.core.quote import effective
from llm_maker.core.signals import market_x
from llm_maker.core.state import State
from llm_maker.core.values import expit, usd
from llm_maker.runtime.line_log import iso

MAX_REQUESTS = 64
Ahead = Callable[[], tuple[float | None, tuple[float, float] | None]]
"""A difference and its 95 % limits, USD."""
Facts = Callable[[str], dict[str, Any]]
"""Request id -> latency_ms, tokens, ... of the call; empty where there was none."""


class DecisionLines:
    """Of one account; remembers the requests whose answers are still to come."""

    def __init__(self, state: State, facts: Facts, difference: Ahead) -> None:
        self._state, self._facts, self._difference = state, facts, difference
        self._requests: dict[str, RequestSignals] = {}

    def asked(self, commands: Iterable[AnyCommand]) -> None:
        """Keep what was asked, to show it beside its answer."""
        self._requests.update({c.request_id: c for c in commands if isinstance(c, RequestSignals)})
        for request_id in list(self._requests)[:-MAX_REQUESTS]:
            del self._requests[request_id]

    def of(self, event: e.Event, commands: Iterable[AnyCommand], ts: int) -> list[dict[str, Any]]:
        """What one step adds."""
        lines = self._decision(event, ts)
        for command in commands:
            if isinstance(command, Notice) and command.code in ("fallback", "fallback_over"):
                lines.append(self._decide({"outcome": command.code, "note": command.text}))
        return lines

    def _decision(self, event: e.Event, ts: int) -> list[dict[str, Any]]:
        match event:
            case e.SignalsReceived():
                facts = {
                    "decision_id": event.decision_id,
                    "model": event.model,
                    "prompt_version": event.prompt_version,
                    "outcome": "ok",
                    "signals_simulated": event.simulated,
                    "signals_invalid": event.invalid,
                    "members": [_member(m) for m in event.members],
                }
                signals = [self._signal(ts, s, event.request_id) for s in event.signals]
                return [self._decide(facts, event.request_id, signals, event.cost)]
            case e.SignalsFailed():
                facts = {"decision_id": event.decision_id, "outcome": event.reason, "note": event.detail}
                return [self._decide(facts, event.request_id, [], event.cost)]
            case e.SignalsSkipped():
                return [self._decide({"outcome": f"skipped: {event.reason}"}, event.request_id)]
            case _:
                return []

    def _decide(
        self, facts: dict[str, Any], request_id: str = "", signals: list[dict[str, Any]] | None = None, cost: int = 0
    ) -> dict[str, Any]:
        """One line of llm_decisions.jsonl; every line has the same keys."""
        request = self._requests.pop(request_id, None)
        call = self._facts(request_id)
        ahead, limits = self._difference()
        return {
            "decision_id": "",
            "model": "",
            "prompt_version": "",
            "num_signals": len(signals or []),
            "signals": signals or [],
            "portfolio_state": request.portfolio if request else portfolio(self._state),
            "reason": request.reason if request else "",
            "latency_ms": call.get("latency_ms"),
            "tokens": call.get("tokens"),
            "cost_usd": usd(cost),
            "twin_difference_usd": ahead,
            "twin_interval_usd": limits,
            "outcome": "",
            "note": "",
            "fallback": self._state.slow.fallback,
            "signals_simulated": False,
            "signals_invalid": 0,
            "members": [],
            **facts,
        }

    def _signal(self, ts: int, signal: Signal, request_id: str) -> dict[str, Any]:
        """A signal with the market it met and what became of it."""
        request = self._requests.get(request_id)
        brief = next((m for m in request.markets if m.market_id == signal.market_id), None) if request else None
        line: dict[str, Any] = {"market_id": signal.market_id, **_market_facts(brief)}
        line.update({k: v for k, v in msgspec.to_builtins(signal).items() if k != "market_id"})
        market = self._state.markets.get(signal.market_id)
        opinion = market.opinion if market else None
        accepted = opinion is not None and opinion.signal == signal
        line |= {"accepted": accepted, "weight": None, "p_final": None, "expires": None}
        if market is not None and opinion is not None and accepted and market.mark > 0:
            view = effective(self._state, market, ts)
            line["weight"] = round(view.weight, 6)
            if market.instrument.is_binary:
                line["p_final"] = round(expit(market_x(market.instrument, market.mark) + view.shift), 6)
            line["expires"] = iso(opinion.expires_ns)
        return line


def _member(answer: MemberAnswer) -> dict[str, Any]:
    """One model's own answer, as it was, with its part in the pool; or why it was left out."""
    return {
        "model": answer.model,
        "prompt_version": answer.prompt_version,
        "outcome": answer.outcome,
        "note": answer.detail,
        "weight": round(answer.weight, 6),
        "cost_usd": usd(answer.cost),
        "signals": [msgspec.to_builtins(signal) for signal in answer.signals],
    }


def _market_facts(brief: MarketBrief | None) -> dict[str, Any]:
    if brief is None:
        return dict.fromkeys(("question", "yes_price", "spread", "imbalance", "position", "avg_price"))
    return {
        "question": brief.question,
        "yes_price": brief.yes_price,
        "spread": brief.spread,
        "imbalance": round(brief.imbalance, 4),
        "position": brief.position,
        "avg_price": brief.avg_price,
    }
