"""What stands behind the first reason that keeps a side from being quoted: a change is told with all that it would need beside it.

A change is tried on the state as it would be with it (`assumed`), by the functions that trade, until the side passes or what is
left cannot be set. Pure. What other markets would take meanwhile of a cap that all share is not foreseen.
"""

from __future__ import annotations

import msgspec

from llm_maker.console.changes import Case, Change, alone, assign, change_for, lack_change
from llm_maker.console.keys_in_force import assumed
from llm_maker.console.wishes import wishes
from llm_maker.core import risk
from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.state import Market, State, order_cash
from llm_maker.core.step import choose_leg
from llm_maker.core.strategy import QuoteTarget, Strategy
from llm_maker.core.values import Side

_MOST = 8
"""Reasons behind one another; each names another key, or the same with a better number."""


def whole(state: State, market: Market, strategy: Strategy | None, side: Side, wish: QuoteTarget | None, first: Change) -> Change:
    """`first` with every other key that would still be in its way; `wish`: what an exit or an intent wants, if one is at work."""
    if first.do != "set":
        return first
    part = wish is not None and _fits(state, market, wish, risk.allowance(state, market)) >= market.instrument.min_qty
    values, rest = dict(first.values), Change("outside", "")
    for _ in range(_MOST):
        rest = _next(assumed(state, values), market, strategy, side, wish, part=part)
        if rest.do != "set" or values | rest.values == values:
            break
        values |= rest.values
    if values == first.values and not rest.text:
        return first
    told = assign(state, values, first.otherwise)
    behind = rest.text if rest.do != "set" else ""
    return msgspec.structs.replace(told, text=told.text + (f"; then {behind}" if behind else ""))


def _next(state: State, market: Market, strategy: Strategy | None, side: Side, wish: QuoteTarget | None, *, part: bool) -> Change:
    """What the next obstacle asks for; without words: there is none. `part`: the side quotes, and less than it wants."""
    allowed = risk.allowance(state, market)
    wanted = wishes(state, market, strategy, allowed)
    target = wanted.targets.get(side) if wanted.asked else wish
    if target is None:
        lack = wanted.lacks.get(side)
        return lack_change(state, market, lack, wanted.factor) if lack is not None else Change("outside", "")
    shaped = risk.shape(state, market, [target], allowed)
    size = sum(fitting.qty for fitting in shaped.targets)
    if size < (target.qty if part else market.instrument.min_qty) and shaped.refusals:
        reason = shaped.refusals[-1].partition(" ")[2]
    else:
        reason = _refused(state, market, QuoteTarget(side, target.price, size, target.reason), allowed)
    return change_for(reason, Case(state, market, side, target)) if reason else Change("outside", "")


def _fits(state: State, market: Market, wish: QuoteTarget, allowed: risk.Gate) -> int:
    return sum(target.qty for target in risk.shape(state, market, [wish], allowed).targets)


def _refused(state: State, market: Market, target: QuoteTarget, allowed: risk.Gate) -> str:
    """The gate's word on an order in place of ours on its side."""
    placed = alone(state, market, target.side)
    gone = [order for order in state.live_orders(market) if order.side is target.side]
    freed = sum(order_cash(market.instrument, order, order.remaining) for order in gone)
    state = msgspec.structs.replace(state, reserved=state.reserved - freed)
    command = PlaceOrder(
        order_id="",
        instrument=market.instrument.id,
        side=target.side,
        leg=choose_leg(state, placed, target.side, target.qty),
        price=target.price,
        qty=target.qty,
        time_in_force=TimeInForce.GTC,
        post_only=True,
        reduce_only=target.qty <= risk.reducible(state, placed, target.side),
        reason=target.reason,
    )
    return risk.gate(state, placed, command, allowed)
