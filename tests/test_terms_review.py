"""Faults found in the quoting terms by hostile reading, each as the sequence that showed it."""

from __future__ import annotations

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core import parity
from llm_maker.core.commands import CancelOrder, PlaceOrder
from llm_maker.core.orders import Status
from llm_maker.core.values import Liquidity, Side
from llm_maker.runtime.fill_book import FillBook
from llm_maker.runtime.rows import FillFactRow
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, Terms
from tests.core.builders import SHARE, TICK_NS, Rig, binary

BUY, SELL = Side.BUY, Side.SELL
BID, ASK = ((1, 5000, 50 * SHARE),), ((-1, 5200, 50 * SHARE),)


# Steady input sends nothing: a venue whose book shows our own orders, and nobody else moves.


def told(rig, bids, asks):
    """The venue's book: the others' levels and what of ours rests."""
    sides = {BUY: dict(bids), SELL: dict(asks)}
    for order in rig.live():
        if order.status in (Status.OPEN, Status.PENDING_CANCEL):
            levels = sides[order.side]
            levels[order.price] = levels.get(order.price, 0) + order.remaining
    rig.book(bids=tuple(sides[BUY].items()), asks=tuple(sides[SELL].items()))


def levels(best, step, *shares):
    return tuple((best + n * step, size * SHARE) for n, size in enumerate(shares))


def messages(bids, asks, terms, net=0, seconds=30):
    """How many orders and cancels are sent after the first twelve seconds of a book that stands still."""
    rig = Rig(strategy=Maker(), wants=MakerParams(terms=terms))
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()), ev.VenueUp("v", True, shows_own=True))
    if net:
        rig.hold(BUY, bids[0][0], net * SHARE)
    told(rig, bids, asks)
    late = 0
    for n in range(4 * seconds):
        rig.now += TICK_NS
        before = len(rig.log)
        rig.send(ev.Tick())
        if n % 2:
            rig.ack()
            told(rig, bids, asks)
        late += sum(isinstance(c, (PlaceOrder, CancelOrder)) for c in rig.log[before:]) if n >= 48 else 0
    assert rig.state.counts.placed, "it does quote"
    return late


THIN = levels(6600, -100, 50, 50, 20, 50, 500), levels(6900, 100, 50, 50, 500, 20, 50)
"""Without us the third ask is worth $155; with an ask of ours before it, it is the fourth, and the rest is worth $46."""
LEANING = levels(6300, -100, 200, 500, 20, 500, 20), levels(6500, 100, 50, 20, 200, 20, 500)
WIDE = levels(7500, -100, 20, 500, 500, 200, 50), levels(7900, 100, 250, 50, 200, 50, 200)


@pytest.mark.parametrize(("book", "terms", "net"), [(THIN, Terms(), 0), (LEANING, Terms(table=True), 100)], ids=["rule", "table"])
def test_our_own_order_does_not_make_a_book_thin(book, terms, net):
    assert messages(*book, terms, net) == 0


def test_our_own_order_does_not_change_what_the_book_would_take_back():
    assert messages(*WIDE, Terms(unwind=True)) == 0


# Learning.


def lessons_of(side, resolved):
    """A fill of ours, and its market resolves within the five minutes."""
    rig = Rig(wants=BID if side is BUY else ASK).start()
    rig.run(0.25)
    rig.ack()
    rig.run(2.0)
    rig.fill(rig.one(side))
    rig.send(ev.MarketResolved("m", resolved))
    rig.run(310.0)
    return {key: hazard.adverse for key, hazard in rig.state.hazards.items()}, rig.market().lessons


@pytest.mark.parametrize("won", [True, False])
def test_what_resolves_at_nothing_teaches_as_much_as_what_resolves_at_one(won):
    bought, open_bought = lessons_of(BUY, 10_000 if won else 0)
    sold, open_sold = lessons_of(SELL, 0 if won else 10_000)
    assert bought == sold and bought["coarse 2"][0].mean == (-10.0 if won else 10.0)
    assert open_bought == open_sold == []


# Parity.


def event(*mids):
    rig = Rig(strategy=Maker(), wants=MakerParams(terms=Terms(parity=True), complete_events=("E",)))
    names = "abcdef"[: len(mids)]
    rig.listed(*(binary(name, event_id="E", exclusive=True) for name in names))
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    for name, mid in zip(names, mids, strict=True):
        rig.move(mid, name)
    return rig


def corrections(rig):
    return [parity.correction(rig.state, market) for market in rig.state.markets.values()]


def test_an_event_that_is_wrongly_called_exclusive_is_not_sold():
    """Two of three qualify: the bids alone are worth 1.97. Somebody who believed the listing would sell every leg."""
    assert corrections(event(7000, 7000, 6000)) == [0.0, 0.0, 0.0]
    assert all(c < 0 for c in corrections(event(3500, 3500, 3200))), "within the spreads it is too much"


def test_a_leg_whose_book_is_no_longer_followed_says_nothing():
    rig = event(5000, 3000, 2200)
    assert sum(corrections(rig)) < 0
    rig.send(ev.InstrumentDropped("c", "filters"))
    assert corrections(rig)[:2] == [0.0, 0.0], "its last price may be of last week"


def test_parity_is_off_until_somebody_asks_for_it():
    assert not Terms().parity and not Maker().needs(MakerParams()).parity


# What made the price of an order.


@pytest.mark.parametrize("why", ["exit", "intent"])
def test_an_order_that_no_strategy_has_priced_is_put_down_to_no_term(why):
    rig = Rig(strategy=Maker(), wants=MakerParams(), approve_above=10**12).start()
    rig.run(1)
    book = FillBook(rig.state, 0)
    rig.hold(BUY, 5000, 150 * SHARE)
    rig.ack()
    rig.run(1)
    assert rig.market().own.terms["skew"] < 0.0
    if why == "exit":
        rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"))
    else:
        rig.send(ev.IntentReceived("i", "m", 0, "bot", "why"))
    for _ in range(8):
        rig.now += TICK_NS
        book.rows(rig.now, ev.Tick(), rig.send(ev.Tick()))
        rig.ack()
    order = rig.one(SELL)
    assert order.reason.startswith(why)
    for stood in (book, FillBook(rig.state, 0)):
        filled = ev.OrderFilled(
            order.order_id, f"f-{id(stood)}", "m", order.side, order.leg, order.price, SHARE, 0, Liquidity.MAKER, True
        )
        (fact,) = [row for row in stood.rows(rig.now, filled, rig.send(filled)) if isinstance(row, FillFactRow)]
        assert msgspec.json.decode(fact.terms) == {}
