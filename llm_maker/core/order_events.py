"""Our orders as the venue tells of them, and how the core makes sure of what it does not tell.

An order without an answer is UNKNOWN and counts as live until it is looked up; absence is believed only after time and tries.
Knows no money: what a fill moves is `money`'s business.
"""

from __future__ import annotations

from llm_maker.core import orders
from llm_maker.core.commands import (
    Level,
    LookUpOrder,
)
from llm_maker.core.events import (
    CancelRejected,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
)
from llm_maker.core.orders import Order, Status, What
from llm_maker.core.state import Tally
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S

ABSENT_PROOF_NS = 10 * NS_PER_S
"""An order that the venue does not find this long after it was sent is taken as never arrived."""
ABSENT_PROOF_LOOKUPS = 2
LOOKUP_MAX_NS = 8 * NS_PER_S
HELD_OFF_NS = 10 * NS_PER_S
"""A side that the venue refused waits this long."""
HELD_OFF_CROSSED_NS = NS_PER_S


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
            look_up(step, order, "accepted after all")


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
            look_up(step, order, "the venue says it has this order")
        return
    crossed = event.reason == "post_only"
    market = step.state.markets[order.instrument]
    # A refused quote is no reason to wait with an exit that takes, nor the other way round.
    held = order.side.name.lower() + ("" if order.post_only else " taking")
    market.held_off[held] = step.now + (HELD_OFF_CROSSED_NS if crossed else HELD_OFF_NS)
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
    on_order(step, event.order_id, What.CANCEL_GONE if event.gone else What.CANCEL_REFUSED)
    if event.gone:
        order.sent_cancel = False
        look_up(step, order, f"cancel answered: {event.reason}")
    step.state.markets[order.instrument].dirty = True


def on_uncertain(step: Step, event: OrderUncertain) -> None:
    order = on_order(step, event.order_id, What.UNCERTAIN)
    if order is not None and not order.is_final:
        step.state.counts.unknown += 1
        look_up(step, order, event.reason)


def on_looked_up(step: Step, event: OrderLookedUp) -> None:
    """The venue's answer about one order. An ended order whose fills we miss stays UNKNOWN until they come.

    Less than 0.01 share of them is the venue's rounding, which no fill will ever tell.
    """
    order = step.state.orders.get(event.order_id)
    if order is None:
        return
    least = max(1, orders.dust(step.state.markets[order.instrument].instrument))
    missing = event.found not in ("open", "absent") and event.filled - order.filled >= least
    if missing:
        step.state.account_doubted = True  # the fills are asked for
    if order.is_final and event.found != "open":
        return
    if event.found == "absent":
        # Only questions asked late enough prove anything, and one answer each: an old answer, or one told twice, may come late.
        aged = order.lookup_ns - order.placed_ns >= ABSENT_PROOF_NS
        if aged and order.lookups > order.absent_of:
            order.absents, order.absent_of, order.absent_ns = order.absents + 1, order.lookups, step.now
        if order.absents >= ABSENT_PROOF_LOOKUPS and order.filled == 0:
            on_order(step, event.order_id, What.FOUND_ABSENT)
        return
    if missing:
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


def look_up(step: Step, order: Order, reason: str) -> None:
    """Ask about one order, at most so often; every further try waits longer."""
    params = step.state.params.risk
    wait = min(params.unknown_lookup_ns * 2 ** min(order.lookups, 10), LOOKUP_MAX_NS)
    if order.lookups and step.now - order.lookup_ns < wait:
        return
    order.lookups += 1
    order.lookup_ns = step.now
    step.out.append(LookUpOrder(order.order_id, order.instrument, reason))
