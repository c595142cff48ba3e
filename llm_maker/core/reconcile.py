"""From wanted quotes to the fewest messages.

In: targets and our orders that are not final. Out: orders to cancel, targets to place.

An order within tolerance keeps its place in the queue; cancels come first; a side with any order still in flight, in cancel or
UNKNOWN gets no second one, so that nothing of ours is ever doubled. Compares YES price, side and quantity, never the leg. No I/O.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.orders import Order, Status
from llm_maker.core.params import ExecutionParams
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import Instrument, Side

_FINE_TICK = 0.005
"""USD: below this the finer tolerance holds."""


class Plan(msgspec.Struct):
    """What to send: cancels with their reasons first, then places."""

    cancel: list[tuple[Order, str]]
    place: list[QuoteTarget]


def diff(
    instrument: Instrument,
    targets: list[QuoteTarget],
    orders: list[Order],
    off_target: dict[str, int],
    params: ExecutionParams,
    now: int,
) -> Plan:
    """Match targets with resting orders side by side; `off_target` remembers since when an order is tolerated."""
    plan = Plan([], [])
    for side in (Side.BUY, Side.SELL):
        wanted = [t for t in targets if t.side is side]
        held = [o for o in orders if o.side is side]
        _match_side(plan, instrument, wanted, held, off_target, params, now)
    for order_id in [i for i in off_target if not any(o.order_id == i for o in orders)]:
        del off_target[order_id]
    return plan


def _match_side(
    plan: Plan,
    instrument: Instrument,
    wanted: list[QuoteTarget],
    held: list[Order],
    off_target: dict[str, int],
    params: ExecutionParams,
    now: int,
) -> None:
    free = list(wanted)
    busy = False
    for order in held:
        kept = next((t for t in free if _keeps(instrument, t, order, off_target, params, now)), None)
        if kept is not None:
            free.remove(kept)
            continue
        busy = True
        if order.status in (Status.OPEN, Status.PENDING_NEW) and not order.sent_cancel:
            plan.cancel.append((order, _why(wanted, order)))
    if not busy:
        plan.place.extend(free)


def _keeps(
    instrument: Instrument,
    target: QuoteTarget,
    order: Order,
    off_target: dict[str, int],
    params: ExecutionParams,
    now: int,
) -> bool:
    if order.status not in (Status.OPEN, Status.PENDING_NEW) or order.sent_cancel or not order.post_only:
        return False
    tick = instrument.tick_at(target.price)
    gap = abs(order.price - target.price)
    size_off = abs(order.remaining - target.qty) > params.resize_ratio * target.qty
    if gap == 0 and not size_off:
        off_target.pop(order.order_id, None)
        return True
    allowed = params.fine_reprice_ticks if instrument.usd_price(tick) < _FINE_TICK else params.reprice_ticks
    if size_off or gap > allowed * tick:
        return False
    since = off_target.setdefault(order.order_id, now)
    return now - since < params.flicker_ns


def _why(wanted: list[QuoteTarget], order: Order) -> str:
    if not wanted:
        return "not wanted"
    return "reprice" if all(t.price != order.price for t in wanted) else "resize"
