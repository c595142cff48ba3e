"""The place of our resting orders among the others', and what it teaches: queue ahead, exposure, fills, markouts.

Fed by the looks at a market, by public prints and by our fills; the model it teaches is `hazard`. Exposure is booked under the
features of the interval's start, at most once a second an order; what ended between two looks is booked up to its end.
Decides nothing and sends nothing. Followed only for a strategy that reads it (`Needs.places`): it costs a quarter of a look.
"""

from __future__ import annotations

from llm_maker.core.events import OrderFilled, TradePrinted
from llm_maker.core.hazard import Features, Hazard, Lesson, Resting, features, key
from llm_maker.core.orders import Order, Status
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S, Liquidity, Side

LESSON_NS = 300 * NS_PER_S
_LESSON_LATE_NS = 75 * NS_PER_S
"""A fill whose 5 minutes ended longer ago without a price teaches nothing."""
_LESSON_LIMIT = 256


def others_best(state: State, market: Market, side: Side) -> tuple[int, int]:
    """(price, quantity) of the best level without us, where the venue's book shows our own orders; else the book's best.

    An order in flight may not be in the book yet: at most what the level holds is taken off it.
    """
    return best_without(market, side, shown(state, market, side))


def best_without(market: Market, side: Side, own: dict[int, int]) -> tuple[int, int]:
    """The same where it is known what is ours (`shown`)."""
    book = market.book
    best = book.best_bid if side is Side.BUY else book.best_ask
    if best not in own:
        return best, book.bid_qty if side is Side.BUY else book.ask_qty
    for price, size in book.top(side, len(own) + 1):
        if size > own.get(price, 0):
            return price, size - own.get(price, 0)
    return 0, 0


def others_depth(state: State, market: Market, side: Side, n_levels: int) -> int:
    """Quantity of the `n_levels` best levels that others hold, without ours: our own orders make no book liquid, nor thin."""
    own = shown(state, market, side)
    if not own:
        return market.book.depth(side, n_levels)
    rest = [size - own.get(price, 0) for price, size in market.book.top(side, n_levels + len(own))]
    return sum([size for size in rest if size > 0][:n_levels])


def shown(state: State, market: Market, side: Side) -> dict[int, int]:
    """Price -> quantity of our own orders that the venue's book contains; empty where it does not show them."""
    own: dict[int, int] = {}
    if not market.live or not state.venues[market.instrument.venue].shows_own:
        return own
    for order in state.live_orders(market):
        if order.side is side and order.status is not Status.PENDING_NEW:
            own[order.price] = own.get(order.price, 0) + order.remaining
    return own


def tick_of(market: Market) -> int:
    """One tick at the touch; of two different grids' steps the coarser, so that both sides agree."""
    return max(market.instrument.tick_at(market.book.best_bid), market.instrument.tick_at(market.book.best_ask))


def hazard_of(state: State, market: Market, bid: int, ask: int) -> Hazard | None:
    """What is known of this market's class of tick and spread (best prices without us); None before the first lesson."""
    tick = tick_of(market)
    return state.hazards.get(key(market.instrument, tick, (ask - bid) // tick))


def own_place(state: State, market: Market, side: Side, price: int) -> int:
    """Quantity ahead of our best order of a side, which rests at `price`; -1: not known, or it is on its way out."""
    known = -1
    for order_id, rest in market.resting.items():
        order = state.orders.get(order_id)
        if order is None or not order.is_live or order.sent_cancel:
            continue
        if order.side is side and order.price == price:
            known = rest.ahead if known < 0 else min(known, rest.ahead)
    return known


def look(state: State, market: Market, now: int) -> None:
    """At every look of a strategy that reads places: follow the queues, book the last second's exposure, settle due markouts."""
    if market.lessons:
        _settle(state, market, now)
    if not market.live and not market.resting:
        return
    for order in state.live_orders(market):
        if order.order_id not in market.resting and order.status is Status.OPEN and order.post_only:
            _begin(state, market, order, order.changed_ns)
    due: list[tuple[str, Features, float]] = []
    for order_id, rest in list(market.resting.items()):
        found = state.orders.get(order_id)
        if found is None or not found.is_live:
            if found is not None:
                due.append(_exposed(rest, found.changed_ns))
            del market.resting[order_id]
            continue
        _follow_level(state, market, found, rest)
        if now - rest.since_ns >= NS_PER_S:
            due.append(_exposed(rest, now))
            _refresh(state, market, found, rest, now)
    # Sorted by what the model sees, which a mirrored market shares: both sides teach in an order that knows no side.
    for name, seen, seconds in sorted(due):
        state.hazards.setdefault(name, Hazard()).learn(seen, seconds, 0.0)


def on_print(state: State, market: Market, event: TradePrinted) -> None:
    """A public print: what traded at our price stood before us, and what traded through it leaves nobody there."""
    for order_id, rest in market.resting.items():
        order = state.orders.get(order_id)
        if order is None or order.side is event.side:
            continue
        if order.price == event.price:
            rest.ahead = max(0, rest.ahead - event.qty)
        elif order.side * (order.price - event.price) > 0:
            rest.ahead = 0


def on_fill(state: State, market: Market, order: Order, event: OrderFilled, now: int) -> None:
    """A fill of a resting order of ours, before the order is moved by it."""
    if event.liquidity is not Liquidity.MAKER or not order.post_only:
        return
    rest = market.resting.get(order.order_id)
    if rest is None:
        # Filled before it was ever looked at.
        rest = _begin(state, market, order, order.placed_ns)
    if rest is None:
        return
    share = min(event.qty / order.qty, 1.0)
    name, seen, seconds = _exposed(rest, now)
    state.hazards.setdefault(name, Hazard()).learn(seen, seconds, share)
    rest.since_ns, rest.ahead = now, 0
    if market.mark > 0:
        if len(market.lessons) == _LESSON_LIMIT:
            del market.lessons[0]
        market.lessons.append(Lesson(rest.key, rest.ticks, int(order.side), share, market.mark, rest.tick, now))


def _exposed(rest: Resting, until_ns: int) -> tuple[str, Features, float]:
    return rest.key, rest.features, max(0, until_ns - rest.since_ns) / NS_PER_S


def _begin(state: State, market: Market, order: Order, since_ns: int) -> Resting | None:
    """An order that has come to rest: last in its level. None while the book does not say where it stands."""
    rest = Resting("", (0.0, 0.0, 0.0, 0.0, 0.0), 0, 1, market.book.qty_at(order.side, order.price), since_ns)
    if not _refresh(state, market, order, rest, since_ns):
        return None
    market.resting[order.order_id] = rest
    return rest


def _follow_level(state: State, market: Market, order: Order, rest: Resting) -> None:
    """No more can stand before us than the level holds beside ourselves."""
    book = market.book
    if rest.ahead and book.trusted:
        level = book.qty_at(order.side, order.price)
        if state.venues[market.instrument.venue].shows_own:
            level -= order.remaining
        rest.ahead = min(rest.ahead, max(level, 0))


def _refresh(state: State, market: Market, order: Order, rest: Resting, now: int) -> bool:
    """What it faces from now on; False, and as it was, where the book has no two sides without us."""
    rest.since_ns = now
    bid, ask = others_best(state, market, Side.BUY)[0], others_best(state, market, Side.SELL)[0]
    if not bid or not ask or not market.book.trusted:
        return False
    tick, estimators = tick_of(market), market.estimators
    best, spread = bid if order.side is Side.BUY else ask, (ask - bid) // tick
    rest.key, rest.tick = key(market.instrument, tick, spread), tick
    rest.ticks = order.side * (best - order.price) // tick
    ahead = rest.ahead + market.book.ahead(order.side, order.price)
    rest.features = features(rest.ticks, ahead, spread, estimators.avg_trade, estimators.trade_rate)
    return True


def _settle(state: State, market: Market, now: int) -> None:
    """Lessons whose 5 minutes are over; without a price they wait, and lapse."""
    if now - market.lessons[0].at_ns < LESSON_NS:
        return
    # What has resolved at 0 has a price, as what has resolved at 1 has; a mark of 0 alone is none.
    priced = market.resolved is not None or (market.book.trusted and market.mark > 0)
    for lesson in market.lessons:
        age = now - lesson.at_ns
        if LESSON_NS <= age <= LESSON_NS + _LESSON_LATE_NS and priced:
            move = lesson.side * (lesson.mid - market.mark) / lesson.tick
            state.hazards.setdefault(lesson.key, Hazard()).learn_adverse(lesson.ticks, move, lesson.share)
    late = LESSON_NS + (0 if priced else _LESSON_LATE_NS)
    market.lessons = [lesson for lesson in market.lessons if now - lesson.at_ns < late]
