"""Which of our resting orders trade, and how much: the fill rules of `quoting.md` 5.1-5.3 and 5.5 on a visible book.

The book is the feed's: ours is never in it, and nothing fills from its size alone. All on the YES book, integers. It
knows no money, no latency, no commands and no events but the feed's.

Three opinions ("bands") of every order are kept on one order stream: pessimistic <= realistic <= optimistic, by
`grant`. One of them moves money; its fills alone are subtracted from the tape.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from llm_maker.core.events import BookDelta, BookSnapshot, TradePrinted
from llm_maker.core.values import NS_PER_S, PPM, Instrument, Leg, Side
from llm_maker.venues.paper.queue import Law, Queue

BANDS = ("pessimistic", "realistic", "optimistic")
MAX_DECIMALS = 18
"""Of a quantity."""
NO_ASK = 1 << 62
"""The best ask of an empty side; the best bid of one is 0."""
_MINUTE_NS = 60 * NS_PER_S
_BUY = Side.BUY
_HEARD = 64
"""Prints remembered to know a repeated one."""


class FillRules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the fill model. `money` indexes `BANDS`; `laws` is indexed by an instrument's quantity decimals."""

    seed: int
    improve_ppm: int
    cap_ppm: int
    subtract_ns: int
    laws: tuple[Law, ...]
    money: int

    def law(self, market: Market) -> Law:
        """The queue model in the units of a listed market."""
        assert market.instrument is not None, "an order rests only in a listed market"
        return self.laws[market.instrument.qty_decimals]


class Resting(msgspec.Struct, kw_only=True):
    """One of our orders at the exchange; `bands` are cumulative fills, `counts` how many fills made them."""

    order_id: str
    instrument: str
    side: Side
    leg: Leg
    price: int
    qty: int
    queue: Queue
    bands: list[int]
    counts: list[int]
    filled: int = 0
    """Cumulative fills that moved money."""

    @property
    def remaining(self) -> int:
        return self.qty - self.filled


class Debt(msgspec.Struct):
    """What our fill took out of the tape: for a while, later prints of that side and price are smaller by it.

    `taker` is whose print filled us: the other prints of that order are no later ones, and stay whole.
    """

    price: int
    side: Side
    qty: int
    until_ns: int
    taker: str = ""


class Market(msgspec.Struct, kw_only=True):
    """The visible book of one instrument, our orders in it in the order they came, and what of the tape is used up."""

    id: str
    instrument: Instrument | None = None
    closed: bool = False
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    best_bid: int = 0
    best_ask: int = NO_ASK
    orders: list[Resting] = []
    used_bids: dict[int, int] = {}
    """Quantity of visible levels we took, until the level grows or goes."""
    used_asks: dict[int, int] = {}
    debts: list[Debt] = []
    taker: str = ""
    """Who made the newest print; "": nobody can tell."""
    prints: int = 0
    first: int = 0
    """Number of the first print of that taker."""
    heard: list[tuple[str, int, int, Side]] = []
    """The last prints whose transaction was told: (transaction, price, quantity, side)."""
    last_price: int = 0
    """Of the last print or fill of ours; 0: none yet."""
    minute: int = -1
    tape: int = 0
    """Printed in `minute`."""
    ours: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    """Filled in `minute`, by band."""
    band_qty: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    band_fills: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    reserved: int = 0
    """Cash behind our orders (and the perpetual position) here."""
    funding: dict[int, int] = {}
    """Due time -> rate in ppm, not yet paid."""


Taken = tuple[Resting, int]
"""An order and what it just filled in the band that moves money."""


def draw(seed: int, purpose: str, key: str) -> int:
    """64 seeded bits that depend on what is asked and on nothing asked before."""
    return int.from_bytes(blake2b(f"{seed}:{purpose}:{key}".encode(), digest_size=8).digest(), "big")


def chance(seed: int, purpose: str, key: str, ppm: int) -> bool:
    """Whether the thing named happens; true in `ppm` of a million names."""
    return ppm > 0 and draw(seed, purpose, key) % PPM < ppm


def apply_delta(market: Market, event: BookDelta) -> None:
    """New totals, then the told best prices: what is better than those is a removal that got lost."""
    bids, asks = market.bids, market.asks
    for price, qty in event.bids:
        if market.used_bids:
            _refresh(market.used_bids, price, bids.get(price, 0), qty)
        if qty:
            bids[price] = qty
            market.best_bid = max(market.best_bid, price)
        elif bids.pop(price, 0) and price == market.best_bid:
            market.best_bid = max(bids, default=0)
    for price, qty in event.asks:
        if market.used_asks:
            _refresh(market.used_asks, price, asks.get(price, 0), qty)
        if qty:
            asks[price] = qty
            market.best_ask = min(market.best_ask, price)
        elif asks.pop(price, 0) and price == market.best_ask:
            market.best_ask = min(asks, default=NO_ASK)
    if event.best_bid is not None and event.best_bid < market.best_bid:
        for price in [price for price in bids if price > event.best_bid]:
            del bids[price]
        market.best_bid = max(bids, default=0)
    if event.best_ask is not None and event.best_ask > market.best_ask:
        for price in [price for price in asks if price < event.best_ask]:
            del asks[price]
        market.best_ask = min(asks, default=NO_ASK)


def apply_snapshot(market: Market, event: BookSnapshot) -> None:
    """The whole book anew; a level that only shrank stays used up."""
    before_bids, before_asks = market.bids, market.asks
    market.bids = {price: qty for price, qty in event.bids if qty}
    market.asks = {price: qty for price, qty in event.asks if qty}
    market.best_bid = max(market.bids, default=0)
    market.best_ask = min(market.asks, default=NO_ASK)
    for price in list(market.used_bids):
        _refresh(market.used_bids, price, before_bids.get(price, 0), market.bids.get(price, 0))
    for price in list(market.used_asks):
        _refresh(market.used_asks, price, before_asks.get(price, 0), market.asks.get(price, 0))


def on_book(market: Market, now: int, event: BookDelta | BookSnapshot, rules: FillRules) -> list[Taken]:
    """A book change where orders of ours rest: queues move; an opposite level at or through our price fills us."""
    bids, asks = market.bids, market.asks
    before = [(bids if order.side is _BUY else asks).get(order.price, 0) for order in market.orders]
    if isinstance(event, BookDelta):
        apply_delta(market, event)
    else:
        apply_snapshot(market, event)
        bids, asks = market.bids, market.asks
    best_bid, best_ask, crossed = market.best_bid, market.best_ask, False
    for order, was in zip(market.orders, before, strict=True):
        price = order.price
        if order.side is _BUY:
            after = bids.get(price, 0)
            crossed = crossed or price >= best_ask
        else:
            after = asks.get(price, 0)
            crossed = crossed or price <= best_bid
        if after != was:
            order.queue.on_change(now, was, after, rules.law(market))
    return _crossed(market, now, rules) if crossed else []


def on_trade(market: Market, now: int, event: TradePrinted, rules: FillRules) -> list[Taken]:
    """A public print. Price priority, then time; what one order takes the next cannot, in any band.

    Through our price: filled as far as the print reaches, whatever queue or cap. At it: the queue decides. Between a
    better price of ours and the best one shown, rivals would have undercut us: a seeded share of takers is ours.

    The cap on our share of the minute does not excuse us from a print that went through us: nothing could have. So of a tape
    of rare small prints we get a tenth of each harmless one and the whole of each that moves the market: a worse mix than an
    uncapped one, against us. Measured at the truth (a quoter at the touch, simulated market, 12 seeds): the cap costs 0.4 cents
    a share where prints are rare and 0.1 to 0.5 where they are dense. Without the exemption the edge of a share moves by less
    than 0.25 cents either way, but 6 to 34 % of the shares are gone, in toxic markets with up to two fifths of the loss: it
    would only hide them.
    """
    if _told_before(market, event):
        return []
    _meet(market, event)
    market.last_price = event.price
    _roll(market, now)
    market.tape += event.qty
    if not market.orders:
        return []
    reach = _undebted(market, now, event)
    taken: list[Taken] = []
    for order, got in _shared(market, now, event, reach, rules):
        give(market, order, got, rules.money)
        _note(market, taken, order, got[rules.money])
    used = sum(qty for _, qty in taken)
    if used:
        market.debts.append(Debt(event.price, event.side, used, now + rules.subtract_ns, market.taker))
    return taken


def walk(market: Market, side: Side, limit: int, qty: int) -> list[tuple[int, int]]:
    """What a taker on `side` finds in the visible book up to `limit`: (price, unused quantity), best first."""
    buying = side is Side.BUY
    levels, used = (market.asks, market.used_asks) if buying else (market.bids, market.used_bids)
    found = []
    for price in sorted((p for p in levels if (limit - p) * side >= 0), reverse=not buying):
        here = min(levels[price] - used.get(price, 0), qty)
        if here > 0:
            found.append((price, here))
            qty -= here
    return found


def use_up(market: Market, side: Side, price: int, qty: int) -> None:
    """Mark what a taker on `side` took of a visible level."""
    used = market.used_asks if side is Side.BUY else market.used_bids
    used[price] = used.get(price, 0) + qty


def grant(market: Market, order: Resting, qty: int, money: int) -> int:
    """Give every band `qty`, as far as the order goes; what moved money."""
    got = [min(qty, order.qty - was) for was in order.bands]
    give(market, order, got, money)
    return got[money]


def give(market: Market, order: Resting, got: list[int], money: int) -> None:
    """Note what each band got; pessimistic <= realistic <= optimistic must hold after it."""
    order.bands = [was + qty for was, qty in zip(order.bands, got, strict=True)]
    order.filled = order.bands[money]
    for band, qty in enumerate(got):
        market.ours[band] += qty
        market.band_qty[band] += qty
        market.band_fills[band] += qty > 0
        order.counts[band] += qty > 0


def level(market: Market, order: Resting) -> int:
    """The visible total at the order's own price and side."""
    return (market.bids if order.side is Side.BUY else market.asks).get(order.price, 0)


def _crossed(market: Market, now: int, rules: FillRules) -> list[Taken]:
    """The visible book went to or through us without a print: filled, with no more than is shown there."""
    taken: list[Taken] = []
    for side in (Side.BUY, Side.SELL):
        for order in _by_priority(market, side):
            best = market.best_ask if side is Side.BUY else market.best_bid
            if (order.price - best) * side < 0:
                break
            found = walk(market, side, order.price, order.remaining)
            shown = sum(qty for _, qty in found)
            if not shown:
                continue
            _roll(market, now)
            got = grant(market, order, shown, rules.money)
            spend = got
            for price, qty in found:
                use_up(market, side, price, min(qty, spend))
                spend -= min(qty, spend)
            _note(market, taken, order, got)
            if got:
                # The print that made this may still come.
                market.debts.append(Debt(order.price, side.other, got, now + rules.subtract_ns))
    return taken


def _by_priority(market: Market, side: Side) -> list[Resting]:
    return sorted((o for o in market.orders if o.side is side), key=lambda order: -order.price * side)


def _undercut(market: Market, order: Resting, price: int) -> bool:
    """Our price is better than any shown, and the print went no further than the best one shown."""
    best = market.best_bid if order.side is Side.BUY else market.best_ask
    return (order.price - best) * order.side > 0 and (price - best) * order.side >= 0


def _shared(market: Market, now: int, event: TradePrinted, reach: int, rules: FillRules) -> list[tuple[Resting, list[int]]]:
    """What each order gets of `reach` in each band.

    The optimistic band comes last: each order must have what the realistic one has, and only the rest goes by priority.
    """
    cap = market.tape * rules.cap_ppm // PPM
    left, ours, found = [reach, reach], market.ours[:2], []
    for order in _by_priority(market, event.side.other):
        beyond = (order.price - event.price) * order.side
        if beyond < 0:
            break
        capped, wants = True, (left[0], left[1])
        if _undercut(market, order, event.price):
            if not chance(rules.seed, "improve", f"{market.id}:{market.first}", rules.improve_ppm):
                wants = (0, 0)
        elif beyond > 0:
            capped = False
        else:
            wants = order.queue.on_print(now, event.qty, wants, rules.law(market))
        if capped:
            wants = (min(wants[0], max(cap - ours[0], 0)), min(wants[1], max(cap - ours[1], 0)))
        real = min(wants[1], order.qty - order.bands[1])
        low = min(wants[0], order.bands[1] + real - order.bands[0])
        left, ours = [left[0] - low, left[1] - real], [ours[0] + low, ours[1] + real]
        found.append((order, capped, [low, real, max(order.bands[1] + real - order.bands[2], 0)]))
    spare, high = reach - sum(got[2] for _, _, got in found), market.ours[2]
    for order, capped, got in found:
        more = min(spare, order.qty - order.bands[2] - got[2])
        if capped:
            more = min(more, max(cap - high - got[2], 0))
        spare -= more
        got[2] += more
        high += got[2]
    return [(order, got) for order, _, got in found]


def _told_before(market: Market, event: TradePrinted) -> bool:
    """Whether this very print was heard, where its transaction tells: two makers of one size then count as one of them."""
    if not event.transaction:
        return False
    print_ = (event.transaction, event.price, event.qty, event.side)
    if print_ in market.heard:
        return True
    market.heard = [*market.heard[1 - _HEARD :], print_]
    return False


def _meet(market: Market, event: TradePrinted) -> None:
    """Know the print's taker: his transaction, else the venue's instant, makes several prints one order (`quoting.md` 5.2)."""
    market.prints += 1
    source = event.transaction or event.venue_ts
    taker = f"{source}:{event.side.name}" if source else ""
    if not taker or taker != market.taker:
        market.taker, market.first = taker, market.prints


def _undebted(market: Market, now: int, event: TradePrinted) -> int:
    """The print's quantity less what our fills of the last moment already took at that price from other takers."""
    reach = event.qty
    market.debts = [debt for debt in market.debts if debt.until_ns >= now and debt.qty > 0]
    for debt in market.debts:
        if debt.price == event.price and debt.side is event.side and not (debt.taker and debt.taker == market.taker):
            paid = min(debt.qty, reach)
            debt.qty -= paid
            reach -= paid
    return reach


def _refresh(used: dict[int, int], price: int, before: int, after: int) -> None:
    if price not in used:
        return
    if after > before or after == 0:
        del used[price]
    else:
        used[price] = min(used[price], after)


def _roll(market: Market, now: int) -> None:
    minute = now // _MINUTE_NS
    if minute != market.minute:
        market.minute, market.tape, market.ours = minute, 0, [0, 0, 0]


def _note(market: Market, taken: list[Taken], order: Resting, qty: int) -> None:
    if qty:
        market.last_price = order.price
        taken.append((order, qty))
