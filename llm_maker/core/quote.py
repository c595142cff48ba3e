"""The fast path of one market: what is wanted now, made to fit, compared with what rests, sent.

targets (exit, intent or strategy) -> `risk.shape` -> `reconcile.diff` -> `risk.gate` -> commands. Runs on every change of the
top and on a timer; the same input twice sends nothing the second time.
"""

from __future__ import annotations

from llm_maker.core import parity, places, reconcile, risk, signals
from llm_maker.core.commands import Level
from llm_maker.core.exits import ExitPlan, arm, begin
from llm_maker.core.orders import Order
from llm_maker.core.params import sizes
from llm_maker.core.state import Market, State, Tally, weight_of
from llm_maker.core.step import Step
from llm_maker.core.strategy import MarketView, PositionTarget, QuoteTarget, Target, Urgency, View
from llm_maker.core.values import NS_PER_S, Mode, Side, ceil_to_grid, floor_to_grid

EXIT, INTENT = "exit: ", "intent "
"""How the reason of an order begins that no strategy has priced."""
REQUOTE_NS = NS_PER_S
"""How often a quiet market is looked at again for what time alone changes (decay, tapers, ends of pauses)."""


def requote(step: Step, market: Market) -> None:
    """Bring what rests on a market in line with what is wanted there now."""
    state = step.state
    market.dirty = False
    market.requote_ns = step.now + REQUOTE_NS
    if step.needs.places:
        places.look(state, market, step.now)
    allowed = risk.allowance(state, market)
    if allowed.pull or allowed.mode is Mode.HALTED:
        step.withdraw(market, allowed.name)
        market.wanted.clear()
        _note_refusals(step, market, [f"both {allowed.name}"])
        _note_quoting(step, market)
        return
    opinion = effective(state, market, step.now)
    crossing = _crossing_exit(step, market)
    if crossing is not None and _takeable(step, market, crossing):
        refusals = _take(step, market, crossing, allowed)
    else:
        targets = _targets(step, market, opinion, allowed)
        shaped = risk.shape(state, market, targets, allowed)
        refusals = shaped.refusals + _settle(step, market, shaped.targets, allowed, opinion)
        if crossing is not None:
            # While there is nothing to take, the exit goes on as maker.
            refusals.append(f"{_exit_side(market, crossing).name.lower()} no depth within the slippage limit")
        if not targets and market.own.note:
            refusals.append(f"both {market.own.note}")
    _note_refusals(step, market, refusals)
    _note_quoting(step, market)


def effective(state: State, market: Market, now: int) -> View:
    """The opinion as it counts now; none in FALLBACK, except that an exit keeps its word."""
    opinion = market.opinion
    if opinion is None:
        return View()
    view = signals.view(opinion, market.instrument, market.mark, weight_of(state, market), state.params.signals, now)
    if state.slow.fallback:
        return View(exit=view.exit)
    return view


def market_view(step: Step, market: Market, opinion: View, allowed: risk.Gate) -> MarketView:
    """What the strategy is shown."""
    state = step.state
    base, limit = sizes(state.params, market.instrument, market.mark)
    bids, asks = places.shown(state, market, Side.BUY), places.shown(state, market, Side.SELL)
    bid, bid_qty = places.best_without(market, Side.BUY, bids)
    ask, ask_qty = places.best_without(market, Side.SELL, asks)
    own_bid, own_ask = market.own_price(Side.BUY, state.orders), market.own_price(Side.SELL, state.orders)
    view = MarketView(
        now=step.now,
        instrument=market.instrument,
        book=market.book,
        estimators=market.estimators,
        bars=market.bars,
        position=market.position,
        opinion=opinion,
        max_position=limit,
        base_qty=int(base * opinion.size_ratio * risk.slim(state, market) * (0.5 if state.slow.fallback else 1.0)),
        mode=allowed.mode,
        fallback=state.slow.fallback,
        own_bid=own_bid,
        own_ask=own_ask,
        bid_depth=market.bid_depth,
        ask_depth=market.ask_depth,
        widen=opinion.widen * risk.widen(state, market),
        toxicity=_toxicity(market),
        free_cash_ratio=(state.cash - state.reserved) / max(state.params.risk.bankroll, 1),
        best_bid=bid,
        best_ask=ask,
        bid_qty=bid_qty,
        ask_qty=ask_qty,
        bankroll=state.params.risk.bankroll,
        shown_bids=bids,
        shown_asks=asks,
    )
    if step.needs.parity:
        view.parity = parity.correction(state, market)
    if step.needs.places:
        view.hazard, view.adverse = places.hazard_of(state, market, bid, ask), _adverse(market)
        view.bid_ahead = places.own_place(state, market, Side.BUY, own_bid)
        view.ask_ahead = places.own_place(state, market, Side.SELL, own_ask)
    return view


def _toxicity(market: Market) -> float:
    """Price units to add to the half-spread: clip(adverse_60 - capture / 2, 0, 3 ticks) (`quoting.md` 2.3)."""
    worst = 0.0
    for side in (Side.BUY, Side.SELL):
        adverse, capture = market.markouts.adverse(side, 60), market.markouts.capture(side)
        if adverse is not None and capture is not None:
            worst = max(worst, adverse - 0.5 * capture)
    return min(worst, 3.0 * market.instrument.tick_at(int(market.mark) or 1))


def _adverse(market: Market) -> float | None:
    """Mean adverse move in the 60 s after our fills, of the sides that have one."""
    known = [cost for side in (Side.BUY, Side.SELL) if (cost := market.markouts.adverse(side, 60)) is not None]
    return sum(known) / len(known) if known else None


def _targets(step: Step, market: Market, opinion: View, allowed: risk.Gate) -> list[QuoteTarget]:
    plan = market.exit_plan
    market.own.note = ""
    sellable = abs(market.position.net) >= market.instrument.min_qty
    if opinion.exit and sellable and plan is not None and not plan.exiting:
        start_exit(step, market, "signal", 0)
    if plan is not None and plan.exiting:
        wanted = PositionTarget(plan.goal_net, Urgency.TOUCH, EXIT + plan.exiting)
        return _position_quotes(market, wanted)
    if market.intent is not None:
        wanted = PositionTarget(market.intent.target_net, Urgency.TOUCH, INTENT + market.intent.intent_id)
        return _position_quotes(market, wanted)
    if allowed.mode is Mode.REDUCE_ONLY and market.position.net == 0:
        market.own.note = allowed.name
        return []
    if opinion.silent:
        market.own.note = "low confidence"
        return []
    view = market_view(step, market, opinion, allowed)
    return _as_quotes(market, step.strategy.on_market(view, market.own, step.state.strategy_params))


def _as_quotes(market: Market, targets: list[Target]) -> list[QuoteTarget]:
    quotes: list[QuoteTarget] = []
    for target in targets:
        if isinstance(target, QuoteTarget):
            quotes.append(target)
        else:
            quotes.extend(_position_quotes(market, target))
    return quotes


def _position_quotes(market: Market, target: PositionTarget) -> list[QuoteTarget]:
    """Work towards a net position as maker at the touch, never through the other side."""
    missing = target.net - market.position.net
    size = market.instrument.floor_qty(abs(missing))
    if size == 0:
        return []
    side = Side.BUY if missing > 0 else Side.SELL
    price = _touch(market, side)
    return [QuoteTarget(side, price, size, target.reason)] if price else []


def _touch(market: Market, side: Side) -> int:
    """The price to join; one tick inside the other side where our own side is empty; 0 where there is none."""
    book, instrument = market.book, market.instrument
    if side is Side.BUY:
        price = book.best_bid or (instrument.next_bid(book.best_ask) if book.best_ask else 0)
    else:
        price = book.best_ask or (instrument.next_ask(book.best_bid) if book.best_bid else 0)
    return price if instrument.min_price <= price <= instrument.max_price else 0


def _settle(step: Step, market: Market, targets: list[QuoteTarget], allowed: risk.Gate, opinion: View) -> list[str]:
    """Cancel, then place, the least that makes what rests equal to the targets; returns refusals."""
    state = step.state
    market.wanted = {t.side.name.lower(): t.price for t in targets}
    plan = reconcile.diff(
        market.instrument, targets, state.live_orders(market), market.off_target, state.params.execution, step.now
    )
    for order, reason in plan.cancel:
        step.cancel(order, reason)
    refusals = []
    for target in sorted(plan.place, key=lambda t: _need(market, t)):
        waiting = step.now < market.held_off.get(target.side.name.lower(), 0)
        refused = "venue refused" if waiting else step.quote(market, target, allowed, _decision(target, opinion))
        if refused:
            refusals.append(f"{target.side.name.lower()} {refused}")
    return refusals


def _decision(target: QuoteTarget, opinion: View) -> str:
    """The decision that shaped a target: none a wish's, nor an exit's but that which a signal asked for."""
    foreign = target.reason.startswith((EXIT, INTENT)) and target.reason != EXIT + "signal"
    return "" if foreign else opinion.decision_id


def _need(market: Market, target: QuoteTarget) -> tuple[bool, int]:
    """Who goes first where cash or messages suffice for one side only: what reduces, then the cheaper token.

    So a mirrored market is served in mirror. The tie that is left, both tokens at one price, is broken: the bid goes first.
    """
    buys = target.side is Side.BUY or not market.instrument.is_binary
    return target.side * market.position.net >= 0, target.price if buys else market.instrument.payout - target.price


def start_exit(step: Step, market: Market, reason: str, goal_net: int, *, take: bool = False) -> None:
    """Begin to leave a position, unless less than the smallest order is left of it; the next requote does the work."""
    if abs(market.position.net - goal_net) < market.instrument.min_qty:
        return
    plan = market.exit_plan
    if plan is None:
        plan = market.exit_plan = arm(market.position, step.state.params.exits, step.now)
    begin(plan, reason, step.now, goal_net)
    plan.take = take
    overrule_intent(step, market, reason)
    market.dirty = True


def overrule_intent(step: Step, market: Market, reason: str) -> None:
    """An exit goes before a wish, which is over then; whoever wished is told."""
    intent, market.intent = market.intent, None
    if intent is not None:
        text = f"intent {intent.intent_id} of {intent.who} is over, unfinished: an exit ({reason}) goes before it"
        step.notice(Level.WARNING, "intent_done", text, market.instrument.id)


def _crossing_exit(step: Step, market: Market) -> ExitPlan | None:
    """The plan, if it is time to take: the operator said so, or a stop has waited long enough as maker."""
    plan, params = market.exit_plan, step.state.params.risk
    if plan is None or not plan.exiting or abs(market.position.net - plan.goal_net) < market.instrument.min_qty:
        return None
    if plan.take:
        return plan
    patient = step.now - plan.started_ns < params.exit_patience_ns
    return plan if plan.exiting == "stop" and params.stop_exit_crosses and not patient else None


def _take(step: Step, market: Market, plan: ExitPlan, allowed: risk.Gate) -> list[str]:
    """Cross once what still rests is gone: visible quantity only, never beyond the slippage limit."""
    live = step.state.live_orders(market)
    if live:
        if all(o.post_only for o in live):
            # An order that takes ends by itself: to cancel it could only race its own fills.
            step.withdraw(market, "exit takes")
        return []
    side, size = _exit_side(market, plan), _takeable(step, market, plan)
    limit = _limit_price(step, market, side)
    if step.now < market.held_off.get(f"{side.name.lower()} taking", 0):
        return [f"{side.name.lower()} venue refused"]
    refused = step.cross(market, QuoteTarget(side, limit, size, f"{EXIT}{plan.exiting}, taking"), allowed)
    return [f"{side.name.lower()} {refused}"] if refused else []


def _exit_side(market: Market, plan: ExitPlan) -> Side:
    return Side.BUY if plan.goal_net > market.position.net else Side.SELL


def _takeable(step: Step, market: Market, plan: ExitPlan) -> int:
    """What an exit could take now within the slippage limit; 0 where it is less than an order may be."""
    side, missing = _exit_side(market, plan), abs(plan.goal_net - market.position.net)
    size = market.instrument.floor_qty(min(missing, _visible(market, side, _limit_price(step, market, side))))
    return size if size >= market.instrument.min_qty else 0


def _limit_price(step: Step, market: Market, side: Side) -> int:
    slip = step.state.params.risk.exit_max_slippage_ratio
    instrument = market.instrument
    if side is Side.BUY:
        basis = instrument.payout - market.mark if instrument.is_binary else market.mark
        return min(floor_to_grid(instrument, market.mark + slip * basis), instrument.max_price)
    return max(ceil_to_grid(instrument, market.mark - slip * market.mark), instrument.min_price)


def _visible(market: Market, side: Side, limit: int) -> int:
    levels = market.book.asks if side is Side.BUY else market.book.bids
    return sum(size for price, size in levels.items() if side * (limit - price) >= 0)


def _note_refusals(step: Step, market: Market, refusals: list[str]) -> None:
    """One count per (market, side, reason) episode, with its duration when it ends."""
    current = market.refusals
    for key in refusals:
        if key not in current:
            current[key] = step.now
            step.state.refused.setdefault(key.partition(" ")[2], Tally()).count += 1
    for key in [k for k in current if k not in refusals]:
        step.state.refused[key.partition(" ")[2]].ns += step.now - current.pop(key)


def _note_quoting(step: Step, market: Market) -> None:
    resting = any(_rests(o) for o in step.state.live_orders(market))
    if resting and not market.quoted:
        market.quoted, market.quoted_since = True, step.now
    elif market.quoted and not resting:
        market.quoted = False
        market.quoted_ns += step.now - market.quoted_since


def _rests(order: Order) -> bool:
    return order.post_only and not order.sent_cancel
