"""How much is quoted on a side: the base size, less what the position, the book and the calendar say.

    L * (1 - max(0, s q / q_max)), nothing from the soft cap on (`quoting.md` 3); with the terms that are on:
    taper   the adding part falls linearly from all of it, `taper_ns` before the end, to a quarter at the reduce-only hour
    unwind  after the fill the whole position is no more than the visible book takes back at a mean price within
            `unwind_max_ticks` of the mid. The taker's fee is left out: it is about the same for every share, so it says
            whether to quote a market at all, not how much; what size changes is how deep the exit has to reach.

Neither touches what reduces a position.
"""

from __future__ import annotations

from llm_maker.core.strategy import MarketView
from llm_maker.core.values import Side
from llm_maker.strategy.fair import tick
from llm_maker.strategy.params import MakerParams
from llm_maker.strategy.touch import others

EXIT_LEVELS = 5
"""Of the book, read for the way out; what lies deeper is not counted on."""
_LEAST_SHARE = 0.25


def size(view: MarketView, side: Side, params: MakerParams, taken: dict[str, float] | None = None) -> int:
    """Quantity to quote on a side, quantity units. `taken`: term -> shares that it took off, to be added to."""
    if view.max_position <= 0:
        return 0
    load = side * view.position.net / view.max_position
    if load >= params.soft_cap:
        return 0
    wanted = view.base_qty * (1.0 - max(0.0, load))
    if params.quoting == "inventory":
        terms = params.terms
        if terms.taper:
            wanted = _cut("taper", view, wanted, _tapered(view, side, wanted, params), taken)
        if terms.unwind:
            room = max(0.0, leavable(view, side, params) - side * view.position.net)
            wanted = _cut("unwind", view, wanted, min(wanted, room), taken)
    return view.instrument.floor_qty(wanted)


def _cut(term: str, view: MarketView, before: float, after: float, taken: dict[str, float] | None) -> float:
    if taken is not None and after < before:
        taken[term] = taken.get(term, 0.0) + view.instrument.usd_qty(before - after)
    return after


def _tapered(view: MarketView, side: Side, wanted: float, params: MakerParams) -> float:
    """What is left of a quantity this near to the end; an unknown end is far away."""
    end = view.instrument.end_ns
    if end is None:
        return wanted
    left = end - view.now
    if left <= params.taper_end_ns:
        share = _LEAST_SHARE
    elif left < params.taper_ns:
        share = _LEAST_SHARE + (1.0 - _LEAST_SHARE) * (left - params.taper_end_ns) / (params.taper_ns - params.taper_end_ns)
    else:
        return wanted
    return max(share * wanted, min(wanted, -side * view.position.net))


def leavable(view: MarketView, side: Side, params: MakerParams) -> float:
    """The largest position of a side's sign that the best levels of the book take back at a bearable mean price, quantity units.

    Mean price against the middle of the others' best prices, without our own orders and without fees. The micro-price would
    not do where the book shows our orders: it moves with them, so an order would shrink itself, come back, and shrink again. The
    mean only gets worse with depth, so the walk ends in the level where it reaches the bound.
    """
    bound = params.unwind_max_ticks * tick(view)
    own = view.shown_bids if side is Side.BUY else view.shown_asks
    mid = (others(view, Side.BUY)[0] + others(view, Side.SELL)[0]) / 2
    taken = cost = 0.0
    levels = [(price, there - own.get(price, 0)) for price, there in view.book.top(side, EXIT_LEVELS + len(own))]
    for price, left in [level for level in levels if level[1] > 0][:EXIT_LEVELS]:
        qty, worse = float(left), side * (mid - price)
        if worse > bound:
            slack = bound * taken - cost
            if slack <= 0.0:
                break
            qty = min(qty, slack / (worse - bound))
        taken += qty
        cost += worse * qty
    return taken
