"""The core's side of the slow loop: when to ask the model, about which markets, and what a failure means.

The agenda is open positions first, then low volatility, then tight spread, then depth. A market is asked again only when its
answer is older than `refresh_ns` or something happened there. Three failed cycles in a row: FALLBACK, where rules quote alone,
the model is probed with growing pauses, and one good answer brings it back. No model is called here.
"""

from __future__ import annotations

from llm_maker.core import signals
from llm_maker.core.advice import Action, Signal
from llm_maker.core.commands import Level, MarketBrief, PortfolioBrief, RequestSignals
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.params import sizes
from llm_maker.core.risk import open_positions
from llm_maker.core.skill import skill_of
from llm_maker.core.state import Market, State, Tally
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Mode, usd
from llm_maker.core.worth import equity

HOUR_NS = 3_600 * NS_PER_S
PROBE_MARKETS = 1


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
    elif step.now - slow.asked_ns >= params.min_gap_ns and any(m.trigger for m in state.markets.values()):
        _ask(step, "trigger", probe=False)


def _ask(step: Step, reason: str, *, probe: bool) -> None:
    state, slow = step.state, step.state.slow
    eligible = [m for m in state.markets.values() if _eligible(m)]
    fresh = state.params.signals.refresh_ns
    chosen = [m for m in eligible if probe or m.trigger or _age(m, step.now) >= fresh]
    chosen.sort(key=_rank)
    chosen = chosen[: PROBE_MARKETS if probe else state.params.slow.max_markets]
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
    return now - market.opinion.received_ns if market.opinion else 1 << 62


def _rank(market: Market) -> tuple[int, float, float, int, str]:
    """Open positions, triggers, low volatility, tight spread, depth; the id breaks ties so that the order is fixed."""
    spread = market.book.spread
    urgency = 0 if market.position.net else 1 if market.trigger else 2
    depth = market.bid_depth + market.ask_depth
    volatility = market.estimators.sig_price(market.instrument, market.mark)
    return urgency, volatility, float(spread if spread is not None else 1 << 30), -depth, market.instrument.id


def brief(state: State, market: Market, now: int) -> MarketBrief:
    """One market as the model may see it, frozen."""
    instrument, book, position, bars = market.instrument, market.book, market.position, market.bars
    price, size = instrument.usd_price, instrument.usd_qty
    opinion = market.opinion
    average = position.avg_price
    return MarketBrief(
        market_id=instrument.id,
        question=instrument.question,
        outcomes=instrument.outcomes,
        category=instrument.category,
        kind=instrument.kind.value,
        yes_price=price(market.mark),
        spread=price(book.spread or 0),
        bid=price(book.best_bid),
        ask=price(book.best_ask),
        bid_depth=size(market.bid_depth),
        ask_depth=size(market.ask_depth),
        imbalance=market.bid_depth / market.ask_depth if market.ask_depth else 0.0,
        trend_5m=_trend(market, bars.change(now, 300 * NS_PER_S)),
        trend_1h=_trend(market, bars.change(now, HOUR_NS)),
        trend_24h=_trend(market, bars.change(now, 24 * HOUR_NS)),
        volatility=price(market.estimators.sig_price(instrument, market.mark) * 60.0),
        flow=size(market.estimators.flow),
        position=size(position.net),
        avg_price=None if average is None else price(average),
        pnl_pct=_pnl_pct(market),
        hours_to_end=None if instrument.end_ns is None else (instrument.end_ns - now) / HOUR_NS,
        last_action=opinion.signal.action.value if opinion else "",
        last_p_yes=opinion.signal.p_yes if opinion else None,
        last_age_s=(now - opinion.received_ns) / NS_PER_S if opinion else None,
    )


def _trend(market: Market, change: float | None) -> float | None:
    return None if change is None else market.instrument.usd_price(change)


def _pnl_pct(market: Market) -> float | None:
    """P&L of the open position over the cost of the side held, percent."""
    position, average = market.position, market.position.avg_price
    if average is None or position.net == 0:
        return None
    basis = average if position.net > 0 or not market.instrument.is_binary else market.instrument.payout - average
    direction = 1 if position.net > 0 else -1
    return 100.0 * direction * (market.mark - average) / basis if basis > 0 else None


def portfolio(state: State) -> PortfolioBrief:
    worth = equity(state)
    base = state.risk.day_base if state.risk.day >= 0 else worth
    return PortfolioBrief(
        equity_usd=usd(worth),
        cash_usd=usd(state.cash),
        pnl_today_usd=usd(worth - base),
        exposure_usd=usd(state.gross),
        open_positions=open_positions(state),
        mode=state.mode.value,
    )


def on_received(step: Step, event: SignalsReceived) -> None:
    """A valid answer: leave FALLBACK if we were in it, judge each signal, look at its market again."""
    state, slow = step.state, step.state.slow
    state.flows.llm_cost -= event.cost
    if event.request_id != slow.pending:
        step.notice(Level.INFO, "late_answer", f"answer {event.decision_id} came too late and is not used")
        return
    asked = slow.markets
    slow.pending, slow.markets, slow.failures, slow.answered_ns = "", [], 0, step.now
    state.counts.decisions += 1
    if slow.fallback:
        slow.fallback = False
        text = f"Back to LLM mode: {event.model} answered; it had failed with {slow.cause}"
        step.notice(Level.WARNING, "fallback_over", text)
        slow.cause = ""
        _all_dirty(state)
    for signal in event.signals:
        market = state.markets.get(signal.market_id)
        if market is None or signal.market_id not in asked:
            _refuse(step, "signal: not asked", signal.market_id)
        else:
            _take_signal(step, market, signal, event)


def _take_signal(step: Step, market: Market, signal: Signal, event: SignalsReceived) -> None:
    state = step.state
    state.counts.signals += 1
    if not market.book.trusted or market.book.mid is None:
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
    )
    if verdict.opinion is None:
        _refuse(step, f"signal: {verdict.refused}", market.instrument.id)
        return
    market.opinion = verdict.opinion
    market.dirty = True
    if signal.action is Action.EXIT and market.position.net:
        step.notice(Level.INFO, "exit_signal", "the model says exit: reduce-only until flat", market.instrument.id)


def _refuse(step: Step, reason: str, instrument: str) -> None:
    step.state.counts.signals_refused += 1
    step.state.refused.setdefault(reason, Tally()).count += 1
    step.notice(Level.INFO, "signal_refused", reason, instrument)


def on_failed(step: Step, event: SignalsFailed) -> None:
    step.state.flows.llm_cost -= event.cost
    if event.request_id == step.state.slow.pending:
        _fail(step, event.reason, event.detail)


def on_skipped(step: Step, event: SignalsSkipped) -> None:
    """Nobody was asked: no failure, and the markets keep their turn, those too that were only due by a trigger."""
    slow = step.state.slow
    if event.request_id == slow.pending:
        for market in [step.state.markets[i] for i in slow.markets if i in step.state.markets]:
            if not slow.fallback and _age(market, step.now) < step.state.params.signals.refresh_ns:
                market.trigger = market.trigger or "asked again"
        slow.pending, slow.markets = "", []
        if slow.fallback:
            slow.probe_ns = step.now + slow.probe_gap_ns


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
