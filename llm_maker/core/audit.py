"""What the venue says we have, held against what we believe. Differences are named, never silently adopted.

"The call failed" is never "nothing there". Only what our own fills made is ours; the rest is foreign: shown, counted, left alone.
"""

from __future__ import annotations

from llm_maker.core.commands import (
    CancelOrder,
    Level,
)
from llm_maker.core.events import (
    AccountSnapshot,
    AccountUnknown,
    RestingOrder,
)
from llm_maker.core.order_events import look_up, on_order
from llm_maker.core.orders import Status, What
from llm_maker.core.positions import Position
from llm_maker.core.state import Market, refresh_exposure
from llm_maker.core.step import ACCOUNT_RETRY_NS, Step
from llm_maker.core.stopping import prove_stop
from llm_maker.core.values import Leg, Side, leg_side


def on_account(step: Step, event: AccountSnapshot) -> None:
    """Compare what the venue says with what we believe; differences are named, never silently adopted."""
    state = step.state
    listed = {o.order_id for o in event.orders if o.order_id}
    here = {o.venue_id for o in event.orders if not o.order_id}
    for gone in [i for i in state.foreign_orders if i not in here]:
        del state.foreign_orders[gone]
    for resting in event.orders:
        _compare_resting(step, resting)
    for order in [o for o in state.orders.values() if o.is_live]:
        missing = order.order_id not in listed and order.changed_ns < state.account_asked_ns
        if missing and order.status in (Status.OPEN, Status.PENDING_CANCEL):
            look_up(step, order, "not in the account's list")
    state.account_doubted = False
    _judge_drift(step, _compare_holdings(step, event))
    first = not state.account_known
    state.account_known = True
    if first:
        for market in state.markets.values():
            market.dirty = True
    if state.stopping:
        prove_stop(step, {o.order_id for o in event.orders if o.order_id})


def _judge_drift(step: Step, drift: str) -> None:
    """Shares that are missing twice, some seconds apart, halt: one list alone may have been overtaken by a message."""
    state = step.state
    if not drift:
        state.drift_ns = 0
    elif not state.drift_ns:
        state.drift_ns, state.account_doubted = step.now, True
        step.notice(Level.WARNING, "drift", f"{drift}; asked again")
    elif step.now - state.drift_ns >= ACCOUNT_RETRY_NS:
        step.halt("drift", drift, 0)
    else:
        state.account_doubted = True


def _compare_resting(step: Step, resting: RestingOrder) -> None:
    state = step.state
    if not resting.order_id:
        known = resting.venue_id in state.foreign_orders
        state.foreign_orders[resting.venue_id] = resting
        if not known:
            text = f"order {resting.venue_id} rests on the account and is not ours; it is left alone"
            step.notice(Level.WARNING, "foreign_order", text, resting.instrument)
        if state.params.risk.live and not state.account_known:
            step.halt("foreign_orders", "orders that are not ours rest on the account; `resume` trades beside them", 0)
        return
    order = state.orders.get(resting.order_id)
    if order is None or order.is_final:
        step.notice(Level.WARNING, "forgotten_order", f"{resting.order_id} of an earlier session rests: canceled")
        if order is not None and order.changed_ns < state.account_asked_ns:
            # It had ended before this list was asked for, so the list is no old news: what rests is exposure again.
            on_order(step, order.order_id, What.FOUND_OPEN)
        if order is not None and order.is_live:
            step.cancel(order, "had ended, but rests")
        else:
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
            # A resolved market's shares leave the list before the payment is told.
            drift = drift or (found if market.resolved is None else "")
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
