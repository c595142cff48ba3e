"""Our orders and our money: what the venue says of them, and how the core makes sure of what it does not say.

An order without an answer is UNKNOWN and counts as live until it is looked up. "The call failed" is never "nothing there".
Stopping is proved here: nothing of ours in flight, then an account snapshot that lists nothing of ours.
"""

from __future__ import annotations

from llm_maker.core import orders
from llm_maker.core.commands import (
    CancelOrder,
    Level,
    LookUpOrder,
    MergeSets,
    RequestAccount,
    Stop,
)
from llm_maker.core.events import (
    AccountSnapshot,
    AccountUnknown,
    CancelRejected,
    CashKind,
    CashMoved,
    FillFailed,
    FillSettled,
    MergeFailed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    RestingOrder,
    SetsMerged,
)
from llm_maker.core.exits import ExitPlan, arm
from llm_maker.core.orders import Order, Status, What
from llm_maker.core.params import qty
from llm_maker.core.positions import FillResult, Position, RoundTrip
from llm_maker.core.state import ClosedTrip, Halt, Market, State, Tally, acting, refresh_exposure, reserved_shares
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Leg, Liquidity, Side, fee, leg_side, to_cash_down

ABSENT_PROOF_NS = 10 * NS_PER_S
"""An order that the venue does not find this long after it was sent is taken as never arrived."""
ABSENT_PROOF_LOOKUPS = 2
LOOKUP_MAX_NS = 60 * NS_PER_S
STOP_PATIENCE_NS = 60 * NS_PER_S
"""Market time to prove that nothing rests; after it the stop says what it could not prove."""
ACCOUNT_RETRY_NS = 5 * NS_PER_S
REPEATED_STOPS = 3
HELD_OFF_NS = 10 * NS_PER_S
"""A side that the venue refused waits this long."""
HELD_OFF_CROSSED_NS = NS_PER_S
FORGET_NS = 3_600 * NS_PER_S
"""A resolved market with nothing of ours left in it is dropped after this long."""


def on_order(step: Step, order_id: str, what: What) -> Order | None:
    """Move an order through the table; tell of ids we do not know."""
    order = step.state.orders.get(order_id)
    if order is None:
        step.notice(Level.WARNING, "unknown_order", f"{what.value} for order {order_id}, which we do not hold")
        return None
    was_final = order.is_final
    orders.step(order, what, step.now)
    step.settle_order(step.state.markets[order.instrument], order, was_final=was_final)
    return order


def on_accepted(step: Step, event: OrderAccepted) -> None:
    order = on_order(step, event.order_id, What.ACCEPTED)
    if order is not None:
        order.venue_id = event.venue_id
        step.state.markets[order.instrument].dirty = True
        if order.status is Status.UNKNOWN:
            # News that contradicts "absent": it may rest now, so the next look-up does not wait its turn.
            order.lookup_ns = 0
            _look_up(step, order, "accepted after all")


def on_rejected(step: Step, event: OrderRejected) -> None:
    """The venue refused: said, counted, and that side waits, because the same order would be refused again at once."""
    duplicate = event.reason == "duplicate"
    # "Already there" is about the order itself: it may well rest, and only a look-up tells.
    order = on_order(step, event.order_id, What.UNCERTAIN if duplicate else What.REJECTED)
    if order is None:
        return
    step.state.refused.setdefault(f"venue: {event.reason}", Tally()).count += 1
    if duplicate:
        if not order.is_final:
            step.state.counts.unknown += 1
            _look_up(step, order, "the venue says it has this order")
        return
    crossed = event.reason == "post_only"
    market = step.state.markets[order.instrument]
    market.held_off[order.side.name.lower()] = step.now + (HELD_OFF_CROSSED_NS if crossed else HELD_OFF_NS)
    if not crossed:
        text = f"{order.order_id} refused: {event.reason} {event.detail}"
        step.notice(Level.WARNING, "order_rejected", text, order.instrument)


def on_canceled(step: Step, event: OrderCanceled) -> None:
    order = on_order(step, event.order_id, What.CANCELED)
    if order is not None:
        step.state.counts.canceled += 1


def on_expired(step: Step, event: OrderExpired) -> None:
    on_order(step, event.order_id, What.EXPIRED)


def on_cancel_rejected(step: Step, event: CancelRejected) -> None:
    order = step.state.orders.get(event.order_id)
    if order is None or order.is_final:
        return
    order.sent_cancel = False
    on_order(step, event.order_id, What.CANCEL_GONE if event.gone else What.CANCEL_REFUSED)
    if event.gone:
        _look_up(step, order, f"cancel answered: {event.reason}")
    step.state.markets[order.instrument].dirty = True


def on_uncertain(step: Step, event: OrderUncertain) -> None:
    order = on_order(step, event.order_id, What.UNCERTAIN)
    if order is not None and not order.is_final:
        step.state.counts.unknown += 1
        _look_up(step, order, event.reason)


def on_looked_up(step: Step, event: OrderLookedUp) -> None:
    """The venue's answer about one order. An ended order whose fills we miss stays UNKNOWN until they come."""
    order = step.state.orders.get(event.order_id)
    if order is None or (order.is_final and event.found != "open"):
        return
    if event.found == "absent":
        aged = step.now - order.placed_ns >= ABSENT_PROOF_NS and order.lookups >= ABSENT_PROOF_LOOKUPS
        if aged and order.filled == 0:
            on_order(step, event.order_id, What.FOUND_ABSENT)
        return
    if event.found != "open" and event.filled > order.filled:
        if order.status is not Status.UNKNOWN:
            on_order(step, event.order_id, What.UNCERTAIN)
        return
    what = {
        "open": What.FOUND_OPEN,
        "filled": What.FOUND_FILLED,
        "canceled": What.FOUND_CANCELED,
        "expired": What.FOUND_EXPIRED,
    }[event.found]
    on_order(step, event.order_id, what)
    if event.found == "canceled":
        step.state.counts.canceled += 1
    step.state.markets[order.instrument].dirty = True


def on_filled(step: Step, event: OrderFilled) -> FillResult | None:
    """Book a fill once: position, cash, order, markouts, exit plan. Late and early fills are all the same here."""
    state = step.state
    market = state.markets[event.instrument]
    order = state.orders.get(event.order_id)
    why = (order.reason, order.decision_id) if order is not None else ("", "")
    result = market.position.apply_fill(market.instrument, event, step.now, *why)
    if result.duplicate:
        return None
    if order is not None:
        _fill_order(step, market, order, event)
    if result.void:
        state.counts.failed_settlements += 1
        return result
    state.cash += result.cash
    state.flows.fees -= event.fee
    state.flows.trading += result.cash + event.fee
    state.counts.fills += 1
    _note_trip(step, market, result.round_trip)
    if market.mark > 0:
        earned = event.side * (round(market.mark * 2) - 2 * event.price) * event.qty
        state.flows.capture += to_cash_down(market.instrument, earned // 2)
        market.markouts.on_fill(event.side, event.price, event.qty, market.mark, step.now)
    market.trigger = market.trigger or "fill"
    _after_position(step, market)
    return result


def _note_trip(step: Step, market: Market, trip: RoundTrip | None) -> None:
    """Remember a position that came back to flat, for the ledger."""
    if trip is None:
        return
    plan, opinion = market.exit_plan, market.opinion
    why = plan.exiting if plan is not None and plan.exiting else "quote"
    thought = opinion.signal.reasoning if opinion is not None else ""
    step.state.closed.append(ClosedTrip(market.instrument.id, trip, why, thought))


def _fill_order(step: Step, market: Market, order: Order, event: OrderFilled) -> None:
    was_final = order.is_final
    excess = orders.fill(order, event.qty, step.now, orders.dust(market.instrument))
    if excess > 0:
        step.state.counts.overfills += 1
        step.notice(Level.ERROR, "overfill", f"{order.order_id} filled {excess} units beyond its quantity", event.instrument)
    step.settle_order(market, order, was_final=was_final)


def _after_position(step: Step, market: Market) -> None:
    """What follows every change of a position: caches, exit plan, a fresh look."""
    state, position = step.state, market.position
    refresh_exposure(state, market)
    instrument_id = market.instrument.id
    holds = position.net != 0 or position.sets() > 0 or bool(position.pending)
    if holds and instrument_id not in state.held:
        state.held.append(instrument_id)
    elif not holds and instrument_id in state.held:
        state.held.remove(instrument_id)
    _after_exit(step, market)
    judge_intent(step, market)
    if position.net == 0:
        market.exit_plan = None
    elif market.exit_plan is None:
        market.exit_plan = _armed(step, market)
    market.dirty = True


def _armed(step: Step, market: Market) -> ExitPlan:
    opinion = acting(step.state, market)
    signal = opinion.signal if opinion else None
    stop = signal.stop_ratio if signal else None
    target = signal.target_ratio if signal else None
    targets = ((target, 1.0),) if target else None
    return arm(market.position, step.state.params.exits, step.now, stop, targets)


def _after_exit(step: Step, market: Market) -> None:
    """An exit has ended when less than the smallest order is left to do."""
    plan = market.exit_plan
    if plan is None or not plan.exiting:
        return
    if abs(market.position.net - plan.goal_net) >= market.instrument.min_qty:
        return
    if plan.exiting == "stop":
        _cool_down(step, market)
    if plan.exiting == "signal":
        market.opinion = None  # it has had its way; quoting goes on without it
    step.notice(Level.INFO, "exit_done", f"exit by {plan.exiting} has ended", market.instrument.id)
    plan.exiting = ""
    plan.take = False


def judge_intent(step: Step, market: Market) -> None:
    """A wish is done when less than the smallest order is missing; then the strategy has the market again."""
    intent = market.intent
    if intent is None or abs(intent.target_net - market.position.net) >= market.instrument.min_qty:
        return
    market.intent = None
    step.notice(Level.INFO, "intent_done", f"intent {intent.intent_id} of {intent.who} is done", market.instrument.id)


def _cool_down(step: Step, market: Market) -> None:
    """15 minutes without new risk after a stop; an hour from the third of a day (`quoting.md` 4)."""
    risk, day = step.state.params.risk, step.now // (86_400 * NS_PER_S)
    market.stops = market.stops + 1 if market.stops_day == day else 1
    market.stops_day = day
    pause = risk.repeated_stop_cooldown_ns if market.stops >= REPEATED_STOPS else risk.stop_cooldown_ns
    market.cooldown_until = step.now + pause


def _loaded(step: Step, instrument: str, what: str) -> Market | None:
    """The market of an event that moves what we own; without it the money cannot be booked, and that halts."""
    market = step.state.markets.get(instrument)
    if market is None:
        halt(step, f"unknown_{what}", f"a {what} of {instrument}, which is not loaded", 0)
    return market


def on_settled(step: Step, event: FillSettled) -> None:
    market = _loaded(step, event.instrument, "settlement")
    if market is None:
        return
    market.position.settle(event.fill_id)
    market.dirty = True


def on_failed(step: Step, event: FillFailed) -> None:
    """A settlement failed: position and cash go back."""
    state, market = step.state, _loaded(step, event.instrument, "settlement")
    if market is None:
        return
    before = market.position.last_trip
    cash = market.position.fail(market.instrument, event.fill_id, step.now)
    if market.position.last_trip is not before:
        _note_trip(step, market, market.position.last_trip)
    state.cash += cash
    state.flows.trading += cash
    state.counts.failed_settlements += 1
    step.notice(Level.WARNING, "settlement_failed", f"fill {event.fill_id} was reversed", event.instrument)
    _after_position(step, market)


def on_merged(step: Step, event: SetsMerged) -> None:
    state, market = step.state, _loaded(step, event.instrument, "merge")
    if market is None:
        return
    cash = market.position.merged(market.instrument, event.qty) - event.cost
    state.cash += cash
    state.flows.trading += cash + event.cost
    state.flows.fees -= event.cost
    state.counts.merges += 1
    _after_position(step, market)


def on_merge_failed(step: Step, event: MergeFailed) -> None:
    market = _loaded(step, event.instrument, "merge")
    if market is not None and event.final:
        market.position.merge_failed(event.qty)
    step.notice(Level.WARNING, "merge_failed", f"merge of {event.qty} units: {event.reason}", event.instrument)


def on_cash(step: Step, event: CashMoved) -> None:
    """Money that is not a fill. A transfer moves the bases of the loss limits, never the P&L."""
    state, flows = step.state, step.state.flows
    amount = event.amount
    if event.kind is CashKind.REDEMPTION:
        _redeem(step, event)
        return
    state.cash += amount
    match event.kind:
        case CashKind.FEE:
            flows.fees += amount
        case CashKind.REBATE:
            flows.rebates += amount
        case CashKind.REWARD:
            flows.rewards += amount
        case CashKind.FUNDING:
            flows.funding += amount
        case CashKind.TRANSFER:
            _transfer(state, amount)


def _transfer(state: State, amount: int) -> None:
    state.flows.transfers += amount
    risk = state.risk
    risk.day_base += amount
    risk.week_base += amount
    risk.month_base += amount
    risk.high_water += amount


def adopted(step: Step, market: Market, worth: int) -> None:
    """Foreign holdings of this worth have become ours: a transfer in kind."""
    _transfer(step.state, worth)
    _after_position(step, market)


def _redeem(step: Step, event: CashMoved) -> None:
    """Shares of a resolved market became cash; what the venue paid is booked, and a difference is told."""
    state, market = step.state, _loaded(step, event.instrument, "redemption")
    if market is None:
        return
    price = market.resolved
    if price is None:
        # The account's channel may overtake the market's: money that moved is booked, and what it paid tells the outcome.
        halt(step, "redemption", f"{event.instrument} paid out, but its outcome was never told", 0)
        price = market.instrument.payout if (event.amount > 0) is (event.leg is Leg.YES) else 0
    before = market.position.last_trip
    due = market.position.redeem(market.instrument, event.leg, event.qty, price, step.now)
    if due != event.amount:
        text = f"redemption paid {event.amount} of {due} cash units due"
        step.notice(Level.WARNING, "redemption", text, event.instrument)
    state.cash += event.amount
    state.flows.trading += event.amount
    if market.position.last_trip is not before:
        _note_trip(step, market, market.position.last_trip)
    _after_position(step, market)


def on_account(step: Step, event: AccountSnapshot) -> None:
    """Compare what the venue says with what we believe; differences are named, never silently adopted."""
    state = step.state
    listed = {o.order_id for o in event.orders if o.order_id}
    for resting in event.orders:
        _compare_resting(step, resting)
    for order in [o for o in state.orders.values() if o.is_live]:
        missing = order.order_id not in listed and order.changed_ns < state.account_asked_ns
        if missing and order.status in (Status.OPEN, Status.PENDING_CANCEL):
            _look_up(step, order, "not in the account's list")
    drift = _compare_holdings(step, event)
    if drift:
        halt(step, "drift", drift, 0)
    first = not state.account_known
    state.account_known = True
    if first:
        for market in state.markets.values():
            market.dirty = True
    if state.stopping:
        prove_stop(step, {o.order_id for o in event.orders if o.order_id})


def _compare_resting(step: Step, resting: RestingOrder) -> None:
    state = step.state
    if not resting.order_id:
        if resting.venue_id not in state.foreign_orders:
            state.foreign_orders[resting.venue_id] = resting.instrument
            text = f"order {resting.venue_id} rests on the account and is not ours; it is left alone"
            step.notice(Level.WARNING, "foreign_order", text, resting.instrument)
        if state.params.risk.live and not state.account_known:
            halt(step, "foreign_orders", "orders that are not ours rest on the account; `resume` trades beside them", 0)
        return
    order = state.orders.get(resting.order_id)
    if order is None or order.is_final:
        step.notice(Level.WARNING, "forgotten_order", f"{resting.order_id} of an earlier session rests: canceled")
        step.out.append(CancelOrder(resting.order_id, resting.instrument, "of an earlier session"))
    elif order.status is Status.UNKNOWN:
        order.sent_cancel = False
        on_order(step, order.order_id, What.FOUND_OPEN)


def _compare_holdings(step: Step, event: AccountSnapshot) -> str:
    """More than ours is foreign; less than ours settled is drift, unless fills are still under way. The first drift's words."""
    drift = ""
    told = {(h.instrument, h.leg): h.qty for h in event.holdings}
    for market in step.state.markets.values():
        for leg in market.position.legs(market.instrument):
            found = _compare_leg(market, leg, told.get((market.instrument.id, leg), 0))
            drift = drift or found
        refresh_exposure(step.state, market)
    return drift


def _compare_leg(market: Market, leg: Leg, have: int) -> str:
    position, held, name = market.position, market.position.held(leg), market.instrument.id
    if not market.instrument.is_binary:
        differs = have != held.settled + held.pending and not position.pending
        return f"{name}: venue says {have}, our fills make {held.settled + held.pending}" if differs else ""
    position.set_foreign(leg, _foreign(position, leg, have))
    lacks = have < held.settled - held.merging and not position.pending and not market.live
    return f"{name} {leg.value}: venue says {have}, our fills make {held.settled}" if lacks else ""


def _foreign(position: Position, leg: Leg, have: int) -> int:
    """What our fills do not explain of a told holding; while some settle it is known within bounds, and moves no further.

    Until then the venue may show shares that we have sold, and not show those that we have bought.
    """
    held = position.held(leg)
    unexplained = have - held.settled - held.pending
    fills = [(f.qty, leg_side(f.side, f.leg)) for f in position.pending.values() if f.leg is leg]
    sold = sum(size for size, side in fills if side is Side.SELL)
    bought = sum(size for size, side in fills if side is Side.BUY)
    return max(0, min(max(held.foreign, unexplained - sold), unexplained + bought))


def on_account_unknown(step: Step, event: AccountUnknown) -> None:
    step.notice(Level.WARNING, "account_unknown", f"the account could not be read: {event.reason}; asked again")


def halt(step: Step, name: str, text: str, until_ns: int) -> None:
    halts = step.state.halts
    if name not in halts:
        halts[name] = Halt(step.now, until_ns, text)
        step.state.counts.halts += 1
        step.notice(Level.ERROR, f"halt_{name}", text)
        for market in step.state.markets.values():
            market.dirty = True


def _look_up(step: Step, order: Order, reason: str) -> None:
    """Ask about one order, at most so often; every further try waits longer."""
    params = step.state.params.risk
    wait = min(params.unknown_lookup_ns * 2 ** min(order.lookups, 10), LOOKUP_MAX_NS)
    if order.lookups and step.now - order.lookup_ns < wait:
        return
    order.lookups += 1
    order.lookup_ns = step.now
    step.out.append(LookUpOrder(order.order_id, order.instrument, reason))


def on_timer(step: Step) -> None:
    """Deadlines of orders, merges and the account: once a second of market time."""
    state = step.state
    timeout = state.params.risk.ack_timeout_ns
    for market in state.markets.values():
        for order in state.live_orders(market):
            late = step.now - order.changed_ns > timeout
            # An order that takes ends at once: one that is still open has lost its last word.
            waiting = order.status in (Status.PENDING_NEW, Status.PENDING_CANCEL) or not order.post_only
            if late and waiting and order.status is not Status.UNKNOWN:
                on_order(step, order.order_id, What.UNCERTAIN)
                state.counts.unknown += 1
            if order.status is Status.UNKNOWN:
                _look_up(step, order, "no answer")
        if market.instrument.is_binary and market.position.no.settled and market.position.yes.settled:
            _merge(step, market)
        if market.position.yes.foreign or market.position.no.foreign:
            # What is not ours is worth its mark, and the mark moves without us.
            refresh_exposure(state, market)
    for market in [m for m in state.markets.values() if m.resolved is not None]:
        _forget(step, market)
    if not state.account_known and not state.stopping and step.now - state.account_asked_ns >= ACCOUNT_RETRY_NS:
        ask_account(step, "start")


def _forget(step: Step, market: Market) -> None:
    """Drop a market that is over and holds nothing, so that months of markets do not pile up."""
    state, held = step.state, market.position
    anything = market.live or held.pending or any((h.settled, h.pending, h.foreign, h.merging) for h in (held.yes, held.no))
    if anything or step.now - market.mark_ns < FORGET_NS:
        return
    instrument = market.instrument
    for groups, key in ((state.events, instrument.event_id), (state.clusters, instrument.cluster)):
        if key in groups:
            groups[key].remove(instrument.id)
            if not groups[key]:
                del groups[key]
    for name, since in market.refusals.items():
        state.refused[name.partition(" ")[2]].ns += step.now - since
    state.gross -= market.worst
    state.reserved -= market.reserved
    for order_id in [i for i, o in state.orders.items() if o.instrument == instrument.id]:
        del state.orders[order_id]
    state.recent = [i for i in state.recent if i in state.orders]
    del state.markets[instrument.id]


def _merge(step: Step, market: Market) -> None:
    """Turn complete sets back into cash when there are enough of them or cash is short (`quoting.md` 2.6)."""
    state, params = step.state, step.state.params.execution
    sets = min(market.position.free_to_sell(leg) - reserved_shares(state, market, leg) for leg in (Leg.YES, Leg.NO))
    if sets < market.instrument.min_qty or state.stopping:
        return
    short = state.cash - state.reserved < params.merge_cash_ratio * state.params.risk.bankroll
    if sets >= qty(market.instrument, params.merge_min_milli) or short:
        market.position.merge_started(sets)
        step.out.append(MergeSets(market.instrument.id, sets, "cash is short" if short else "complete sets"))


def ask_account(step: Step, reason: str) -> None:
    step.state.account_asked_ns = step.now
    step.out.append(RequestAccount(reason))


def begin_stop(step: Step, reason: str) -> None:
    """Cancel everything of ours; `drive_stop` proves it."""
    state = step.state
    if state.stopping:
        return
    state.stopping = reason
    state.stop_ns = step.now
    for market in state.markets.values():
        step.withdraw(market, f"stop: {reason}")


def drive_stop(step: Step) -> None:
    """While stopping: cancel what became open again, ask for the account once all is final, give up at the deadline."""
    state = step.state
    if state.stopped:
        return
    live = [o for o in state.orders.values() if o.is_live]
    for order in live:
        if order.status is Status.OPEN and not order.sent_cancel:
            step.cancel(order, f"stop: {state.stopping}")
    if step.now - state.stop_ns > STOP_PATIENCE_NS:
        resting = tuple(o.order_id for o in live)
        _stop(step, clean=False, resting=resting)
    elif not live and step.now - state.account_asked_ns >= ACCOUNT_RETRY_NS:
        ask_account(step, "stop")


def prove_stop(step: Step, resting: set[str]) -> None:
    """An account list taken after our last order ended, with nothing of ours in it, is the proof."""
    live = [o for o in step.state.orders.values() if o.is_live]
    if not live and not resting and step.state.account_asked_ns >= step.state.stop_ns:
        _stop(step, clean=True, resting=())


def _stop(step: Step, *, clean: bool, resting: tuple[str, ...]) -> None:
    step.state.stopped = True
    step.out.append(Stop(clean, step.state.stopping, resting))


def equity(state: State) -> int:
    """Cash plus own holdings at the last mid, rounded down; cash units."""
    total = state.cash
    for instrument_id in state.held:
        market = state.markets[instrument_id]
        total += market.position.value(market.instrument, mark_price(market))
    return total


def exit_equity(state: State) -> int:
    """Cash plus what leaving every position at the touch would bring, fees paid; cash units."""
    total = state.cash
    for instrument_id in state.held:
        market = state.markets[instrument_id]
        net = market.position.net
        touch = market.book.best_bid if net > 0 else market.book.best_ask
        price = touch or mark_price(market)
        if market.resolved is not None:
            price = market.resolved
        total += market.position.value(market.instrument, price)
        if market.resolved is None and touch:
            total -= fee(market.instrument, price, abs(net), Liquidity.TAKER)
    return total


def mark_price(market: Market) -> int:
    """The integer mark: the outcome once known, else the last mid, halves towards less for us."""
    if market.resolved is not None:
        return market.resolved
    doubled = round(market.mark * 2)
    return doubled // 2 if market.position.net > 0 else -(-doubled // 2)
