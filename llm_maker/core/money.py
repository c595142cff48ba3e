"""Fills, settlements and every other movement of money, and what follows from a changed position.

Cash moves by typed events only. Late, early and repeated fills are all the same here. Sends no order.
"""

from __future__ import annotations

from llm_maker.core import orders, places
from llm_maker.core.commands import Level
from llm_maker.core.events import (
    CashKind,
    CashMoved,
    FillFailed,
    FillSettled,
    OrderFilled,
)
from llm_maker.core.exits import ExitPlan, arm
from llm_maker.core.orders import Order
from llm_maker.core.positions import FillResult, RoundTrip
from llm_maker.core.state import ClosedTrip, Market, State, acting, refresh_exposure
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Leg, to_cash_down

REPEATED_STOPS = 3


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
        if not result.void and step.needs.places:
            places.on_fill(state, market, order, event, step.now)
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
    if market.position.held(event.leg).foreign > 0:
        state.account_doubted = True  # a snapshot may have shown this fill before we heard of it
    market.trigger = market.trigger or "fill"
    after_position(step, market)
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


def after_position(step: Step, market: Market) -> None:
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


def loaded(step: Step, instrument: str, what: str) -> Market | None:
    """The market of an event that moves what we own; without it the money cannot be booked, and that halts."""
    market = step.state.markets.get(instrument)
    if market is None:
        step.halt(f"unknown_{what}", f"a {what} of {instrument}, which is not loaded", 0)
    return market


def on_settled(step: Step, event: FillSettled) -> None:
    market = loaded(step, event.instrument, "settlement")
    if market is None:
        return
    market.position.settle(event.fill_id)
    market.dirty = True


def on_failed(step: Step, event: FillFailed) -> None:
    """A settlement failed: position and cash go back."""
    state, market = step.state, loaded(step, event.instrument, "settlement")
    if market is None:
        return
    before, fill = market.position.last_trip, market.position.pending.get(event.fill_id)
    paid = fill.fee if fill is not None else 0
    cash = market.position.fail(market.instrument, event.fill_id, step.now)
    if market.position.last_trip is not before:
        _note_trip(step, market, market.position.last_trip)
    state.cash += cash
    state.flows.trading += cash - paid
    state.flows.fees += paid
    state.counts.failed_settlements += 1
    step.notice(Level.WARNING, "settlement_failed", f"fill {event.fill_id} was reversed", event.instrument)
    after_position(step, market)


def on_cash(step: Step, event: CashMoved) -> None:
    """Money that is not a fill. A transfer moves the bases of the loss limits, never the P&L."""
    state, flows = step.state, step.state.flows
    amount = event.amount
    assert event.kind is not CashKind.REDEMPTION, "redemptions are works"
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
            transfer(state, amount)


def transfer(state: State, amount: int) -> None:
    """Money that came or went without trading: the bases of the loss limits move with it."""
    state.flows.transfers += amount
    risk = state.risk
    risk.day_base += amount
    risk.week_base += amount
    risk.month_base += amount
    risk.high_water += amount


def adopted(step: Step, market: Market, worth: int) -> None:
    """Foreign holdings of this worth have become ours: a transfer in kind."""
    transfer(step.state, worth)
    after_position(step, market)


def redeem(step: Step, market: Market, event: CashMoved) -> None:
    """Shares of a resolved market became cash; what the venue paid is booked, and a difference is told."""
    state = step.state
    price = market.resolved
    if price is None:
        # The account's channel may overtake the market's: money that moved is booked, and what it paid tells the outcome.
        step.halt("redemption", f"{event.instrument} paid out, but its outcome was never told", 0)
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
    after_position(step, market)
