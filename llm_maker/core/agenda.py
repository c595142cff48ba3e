"""The core's side of the slow loop: when to ask the model, about which markets, and what a failure means.

The agenda is open positions first, then low volatility, then tight spread, then depth. A market is asked again only when its
answer is older than `refresh_ns` or something happened there. Three failed cycles in a row: FALLBACK, where rules quote alone,
the model is probed with growing pauses, and one good answer brings it back. No model is called here.
"""

from __future__ import annotations

from llm_maker.core import signals
from llm_maker.core.advice import Action, Signal
from llm_maker.core.brief import HOUR_NS, brief, portfolio, remember
from llm_maker.core.commands import Level, RequestSignals
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.exits import gain_ratio
from llm_maker.core.params import sizes
from llm_maker.core.skill import skill_of
from llm_maker.core.state import Market, State, Tally, acting
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Mode

PROBE_MARKETS = 1
NEAR_STOP = 0.5
"""Share of the loss that a stop allows; from here on the stop is near."""
END_HOURS = (48, 25, 7)
"""Before the end, at which the model looks again: ahead of reduce-only, and ahead of where its word counts for nothing."""


def drive(step: Step) -> None:
    """Ask when it is due; give up on an answer that does not come. Called on every Tick."""
    state, slow, params = step.state, step.state.slow, step.state.params.slow
    if not params.enabled or state.stopping or not state.account_known:
        return
    if slow.pending:
        if step.now - slow.asked_ns > params.answer_timeout_ns:
            _fail(step, "timeout", "no answer in time")
        return
    if state.mode is Mode.HALTED:
        return  # an answer that nothing may act on is not worth its price
    if slow.fallback:
        if step.now >= slow.probe_ns:
            _ask(step, "probe", probe=True)
        return
    if step.strategy.due(slow.asked_ns, step.now, state.strategy_params):
        _ask(step, "interval", probe=False)
    elif slow.failures or step.now - slow.asked_ns < params.min_gap_ns:
        return  # a model that has just failed is asked at its rhythm, whatever happens
    elif any(_triggered(step, m) for m in state.markets.values()):
        _ask(step, "trigger", probe=False)


def look_out(step: Step) -> None:
    """Once a second: what no message tells, and the model should still look at: a stop that comes near, an end that does."""
    for market in step.state.markets.values():
        plan, position = market.exit_plan, market.position
        if plan is not None and position.net and market.mark > 0 and plan.stop_ratio > 0 and not plan.exiting:
            lost, allowed = -gain_ratio(position, market.instrument, market.mark), NEAR_STOP * plan.stop_ratio
            near = lost >= allowed
            if near and not market.near_stop:
                market.trigger = market.trigger or "near stop"
            if near or lost < allowed / 2:
                market.near_stop = near  # in between it stays: one look for each approach
        elif not position.net:
            market.near_stop = False
        if market.instrument.end_ns is not None:
            left = market.instrument.end_ns - step.now
            stage = sum(left <= hours * HOUR_NS for hours in END_HOURS)
            if stage > market.end_stage >= 0:
                market.trigger = market.trigger or "end near"
            market.end_stage = stage


def _triggered(step: Step, market: Market) -> bool:
    """Something happened there; fills alone, of which there may be many, wait until the last answer has had its minute."""
    gap = step.state.params.slow.fill_gap_ns if market.trigger == "fill" else 0
    return bool(market.trigger) and _eligible(market) and _age(market, step.now) >= gap


def attention(state: State) -> list[Market]:
    """Every market that the model may be asked about, the one that needs it most first."""
    return sorted((m for m in state.markets.values() if _eligible(m)), key=_rank)


def _ask(step: Step, reason: str, *, probe: bool) -> None:
    state, slow = step.state, step.state.slow
    eligible = [m for m in state.markets.values() if _eligible(m)]
    fresh = state.params.signals.refresh_ns
    chosen = [m for m in eligible if probe or _triggered(step, m) or _age(m, step.now) >= fresh]
    chosen.sort(key=_rank)
    most = PROBE_MARKETS if probe else min(state.params.slow.max_markets, slow.most or state.params.slow.max_markets)
    if chosen and state.params.slow.whole and not probe:
        chosen += sorted((m for m in eligible if m not in chosen), key=_rank)
    chosen = chosen[:most]
    slow.asked_ns = step.now
    if not eligible and not slow.said_empty:
        step.notice(Level.INFO, "no_markets", "No markets to analyze")
    slow.said_empty = not eligible
    if not chosen:
        if probe:
            slow.probe_ns = step.now + slow.probe_gap_ns
        return
    why = ", ".join(sorted({m.trigger for m in chosen if m.trigger})) or reason
    request = RequestSignals(
        request_id=f"{state.session}-r{state.next_request}",
        markets=tuple(brief(state, m, step.now) for m in chosen),
        portfolio=portfolio(state),
        reason="probe" if probe else why,
        probe=probe,
    )
    state.next_request += 1
    slow.pending = request.request_id
    slow.markets = [m.instrument.id for m in chosen]
    for market in chosen:
        market.trigger = ""
    step.out.append(request)


def _eligible(market: Market) -> bool:
    usable = market.book.trusted and market.book.mid is not None and market.resolved is None
    return usable and (market.in_universe or market.position.net != 0) and market.operator_mode is not Mode.HALTED


def _age(market: Market, now: int) -> int:
    """Since it was last answered about: silence on a market, or a word that was refused, is an answer too."""
    return now - market.answered_ns if market.answered_ns else 1 << 62


def _rank(market: Market) -> tuple[int, float, float, int, str]:
    """Open positions, triggers, low volatility, tight spread, depth; the id breaks ties so that the order is fixed."""
    spread = market.book.spread
    urgency = 0 if market.position.net else 1 if market.trigger else 2
    depth = market.bid_depth + market.ask_depth
    volatility = market.estimators.sig_price(market.instrument, market.mark)
    return urgency, volatility, float(spread if spread is not None else 1 << 30), -depth, market.instrument.id


def on_received(step: Step, event: SignalsReceived) -> None:
    """A valid answer: leave FALLBACK if we were in it, judge each signal, look at its market again."""
    state, slow = step.state, step.state.slow
    state.flows.llm_cost -= event.cost
    if not _awaited(state, event.request_id):
        step.notice(Level.INFO, "late_answer", f"answer {event.decision_id} came too late and is not used")
        return
    asked = slow.markets
    slow.pending, slow.markets, slow.failures, slow.answered_ns = "", [], 0, step.now
    if slow.most:
        slow.most += 1
    for one in [state.markets[i] for i in asked if i in state.markets]:
        one.answered_ns = step.now
    state.counts.decisions += 1
    if slow.fallback:
        slow.fallback = False
        text = f"Back to LLM mode: {event.model} answered; it had failed with {slow.cause}"
        step.notice(Level.WARNING, "fallback_over", text)
        slow.cause = ""
        _all_dirty(state)
    for signal in event.signals:
        market = state.markets.get(signal.market_id)
        if market is None or (signal.market_id not in asked and not state.params.slow.listens):
            _refuse(step, "signal: not asked", signal.market_id)
        else:
            _take_signal(step, market, signal, event)


def _awaited(state: State, request_id: str) -> bool:
    """Whether an answer is the one that is waited for; who only listens is told by its having a request at all."""
    return bool(request_id) if state.params.slow.listens else request_id == state.slow.pending


def _take_signal(step: Step, market: Market, signal: Signal, event: SignalsReceived) -> None:
    state = step.state
    state.counts.signals += 1
    if not market.book.trusted or market.book.mid is None:
        # Nothing was wrong with the answer: the market is asked about again as soon as its book can be trusted.
        market.trigger = market.trigger or "asked again"
        _refuse(step, "signal: no trusted book", market.instrument.id)
        return
    verdict = signals.accept(
        signal,
        market.opinion,
        market.instrument,
        market.book.mid,
        market.position.net,
        sizes(state.params, market.instrument, market.mark),
        state.params.signals,
        step.now,
        (event.decision_id, event.model),
        skill_of(state.skills, event.model, market.instrument.category),
        state.params.risk.bankroll,
    )
    if verdict.opinion is None:
        _refuse(step, f"signal: {verdict.refused}", market.instrument.id)
        return
    market.opinion = verdict.opinion
    market.dirty = True
    remember(market, signal, step.now)
    if signal.action is Action.EXIT and market.position.net and acting(state, market) is not None:
        step.notice(Level.INFO, "exit_signal", "the model says exit: reduce-only until flat", market.instrument.id)


def _refuse(step: Step, reason: str, instrument: str) -> None:
    step.state.counts.signals_refused += 1
    step.state.refused.setdefault(reason, Tally()).count += 1
    step.notice(Level.INFO, "signal_refused", reason, instrument)


def on_failed(step: Step, event: SignalsFailed) -> None:
    step.state.flows.llm_cost -= event.cost
    if _awaited(step.state, event.request_id):
        _fail(step, event.reason, event.detail)


def on_skipped(step: Step, event: SignalsSkipped) -> None:
    """Nobody was asked: no failure, and the markets keep their turn, those too that were only due by a trigger."""
    slow = step.state.slow
    if _awaited(step.state, event.request_id):
        _keep_turns(step)
        slow.pending, slow.markets = "", []
        if slow.fallback:
            slow.probe_ns = step.now + slow.probe_gap_ns


def _keep_turns(step: Step) -> None:
    """What happened in a market still waits for an answer, where its last one is not old enough to be asked for by itself."""
    state, slow = step.state, step.state.slow
    for market in [state.markets[i] for i in slow.markets if i in state.markets]:
        if not slow.fallback and _age(market, step.now) < state.params.signals.refresh_ns:
            market.trigger = market.trigger or "asked again"


_CURES = {
    "timeout": "raise llm.timeout_seconds or choose a faster model",
    "auth": "check the key in .env",
    "billing": "check the provider's billing page",
    "rate_limit": "lower llm.max_requests_per_minute",
    "budget": "raise llm.daily_budget_usd or wait for the next UTC day",
    "overload": "the provider is overloaded: wait, or choose another model",
    "malformed": "choose a model that keeps to the schema; logs/llm_raw.jsonl has what came back",
    "truncated": "raise llm.max_output_tokens or lower strategy.max_markets_per_query",
    "refusal": "choose another model: this one will not answer",
    "bad_request": "check llm.model and llm.base_url",
    "connection": "check llm.base_url and the network",
}


def _fail(step: Step, reason: str, detail: str) -> None:
    state, slow, params = step.state, step.state.slow, step.state.params.slow
    if reason == "truncated":
        # A shorter question may have a whole answer; each that has is followed by one that is one market longer.
        slow.most = max(1, len(slow.markets) // 2)
    _keep_turns(step)
    slow.pending, slow.markets = "", []
    slow.failures += 1
    state.counts.failures += 1
    cause = f"{reason} ({detail})" if detail else reason
    cure = _CURES.get(reason, "see logs/llm_raw.jsonl for what came back")
    if slow.fallback:
        slow.probe_gap_ns = min(slow.probe_gap_ns * 2, params.probe_max_ns)
        slow.probe_ns = step.now + slow.probe_gap_ns
        step.notice(Level.INFO, "probe_failed", f"still no answer: {cause}; next try in {slow.probe_gap_ns // NS_PER_S}s")
        return
    step.notice(Level.WARNING, "llm_failed", f"no valid answer ({slow.failures} in a row): {cause}; {cure}")
    if slow.failures >= params.failures_to_fallback:
        slow.fallback, slow.cause = True, cause
        slow.probe_gap_ns = params.probe_ns
        slow.probe_ns = step.now + params.probe_ns
        state.counts.fallbacks += 1
        text = f"Switching to fallback mode after {slow.failures} consecutive failures: {cause}. Cure: {cure}"
        step.notice(Level.WARNING, "fallback", text)
        _all_dirty(state)


def _all_dirty(state: State) -> None:
    for market in state.markets.values():
        market.dirty = True
