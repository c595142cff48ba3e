"""Properties of the whole fast loop: a mirrored market is traded in mirror, deep changes decide nothing, what is shaped passes."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from llm_maker.core import quote, risk
from llm_maker.core.book import Applied
from llm_maker.core.commands import CancelOrder, LookUpOrder, MergeSets, PlaceOrder, RequestAccount
from llm_maker.core.engine import Engine, checkpoint, new_state, restore
from llm_maker.core.events import (
    AccountSnapshot,
    BookDelta,
    BookSnapshot,
    CashMoved,
    MarketResolved,
    OrderFilled,
    Started,
    Tick,
    TopReported,
    TradePrinted,
)
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Leg
from llm_maker.strategy.maker import Maker, MakerParams
from llm_maker.venues.paper.exchange import Exchange, ExchangeParams
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from tests.core.builders import T0, TICK_NS, USD, params

PAYOUT = 10_000

OTHER = {Leg.YES: Leg.NO, Leg.NO: Leg.YES, Leg.NONE: Leg.NONE}
TO_VENUE = (PlaceOrder, CancelOrder, MergeSets, LookUpOrder, RequestAccount)


def flip(price):
    return None if price is None else PAYOUT - price


def levels(side):
    return tuple((flip(price), qty) for price, qty in side)


def mirrored(thing):
    """The same event or command seen from NO: price p becomes payout - p, sides and legs swap."""
    change = msgspec.structs.replace
    match thing:
        case BookSnapshot():
            return change(thing, bids=levels(thing.asks), asks=levels(thing.bids))
        case BookDelta():
            told = {"best_bid": flip(thing.best_ask), "best_ask": flip(thing.best_bid)}
            return change(thing, bids=levels(thing.asks), asks=levels(thing.bids), **told)
        case TopReported():
            return change(thing, best_bid=flip(thing.best_ask), best_ask=flip(thing.best_bid))
        case TradePrinted():
            return change(thing, price=flip(thing.price), side=thing.side.other)
        case MarketResolved():
            return change(thing, price=flip(thing.price))
        case PlaceOrder() | OrderFilled():
            return change(thing, price=flip(thing.price), side=thing.side.other, leg=OTHER[thing.leg])
        case CashMoved():
            return change(thing, leg=OTHER[thing.leg])
        case AccountSnapshot():
            orders = tuple(change(o, price=flip(o.price), side=o.side.other, leg=OTHER[o.leg]) for o in thing.orders)
            return change(thing, orders=orders, holdings=tuple(change(h, leg=OTHER[h.leg]) for h in thing.holdings))
    return thing


def renamed(thing, names):
    """The same with order ids exchanged; a list of the account is left to hold the names it holds."""
    if isinstance(thing, AccountSnapshot):
        orders = tuple(msgspec.structs.replace(o, order_id=names[o.order_id]) for o in thing.orders)
        return msgspec.structs.replace(thing, orders=orders)
    known = names.get(getattr(thing, "order_id", None))
    return thing if known is None else msgspec.structs.replace(thing, order_id=known)


class Half:
    """An engine and its exchange, in one of the two worlds."""

    def __init__(self, seed, limits, maker, cash, exchange):
        self.engine = Engine(new_state("a", limits, Maker(), maker, cash), Maker())
        self.exchange = Exchange(ExchangeParams(seed=seed, start_cash=cash, **exchange))

    @property
    def state(self):
        return self.engine.state


class Worlds:
    """A simulated market and its mirror, each traded in closed loop; `deliver` compares the commands of every event.

    Which of two orders of one step has the lower number is a tie that is broken (bids first), so ids are matched, and the
    mirror's exchange hears the names of the straight one: its dice hang on them.
    """

    def __init__(self, seed, *, maker, limits=None, cash=1000, feed=None, exchange=None):
        market = {"markets": 3, "activity": 300.0, "rewards": False} | (feed or {})
        self.feed = SimulatedMarket(MarketParams(seed=seed, start_ns=T0, **market))
        self.straight, self.mirror = (Half(seed, limits or params(**BANK), maker, cash * USD, exchange or {}) for _ in range(2))
        self.names = {}
        self.next_tick = T0
        self.commands = self.events = self.kept_order = 0
        self.kinds = {}
        self.deliver(T0, Started(1, resumed=False), Started(1, resumed=False))

    def run(self, events):
        while self.events < events:
            due = {"feed": self.feed.next_ns(), "exchange": self.straight.exchange.next_ns(), "tick": self.next_tick}
            name = min((k for k in due if due[k] is not None), key=lambda k: due[k])
            getattr(self, "_" + name)(due[name])
        return self

    def _feed(self, now):
        for event in self.feed.advance(now):
            for half, seen in ((self.straight, event), (self.mirror, mirrored(event))):
                half.exchange.observe(now, seen)
            self.deliver(now, event, mirrored(event))

    def _exchange(self, now):
        assert self.mirror.exchange.next_ns() == now
        heard, reflected = self.straight.exchange.advance(now), self.mirror.exchange.advance(now)
        assert [mirrored(event) for event in heard] == reflected, f"the exchanges part at event {self.events}"
        back = {ours: theirs for theirs, ours in self.names.items()}
        for event, image in zip(heard, reflected, strict=True):
            self.deliver(now, event, renamed(image, back))

    def _tick(self, now):
        self.next_tick = now + TICK_NS
        self.deliver(now, Tick(), Tick())

    def deliver(self, now, event, image):
        self.events += 1
        out = [c for c in self.straight.engine.on_event(now, event) if isinstance(c, TO_VENUE)]
        reflected = [c for c in self.mirror.engine.on_event(now, image) if isinstance(c, TO_VENUE)]
        wanted = [mirrored(c) for c in out]
        self._match(wanted, reflected, event)
        named = [renamed(c, self.names) for c in reflected]
        assert sorted(wanted, key=repr) == sorted(named, key=repr), f"event {self.events} at {now}: {event}"
        for command in out:
            self.kinds[type(command).__name__] = self.kinds.get(type(command).__name__, 0) + 1
            self.straight.exchange.execute(now, command)
            self.mirror.exchange.execute(now, mirrored(command))
            self.feed.execute(now, command)

    def _match(self, wanted, reflected, event):
        for image in [c for c in reflected if isinstance(c, PlaceOrder)]:
            twin = next((c for c in wanted if isinstance(c, PlaceOrder) and _same_order(c, image)), None)
            assert twin is not None, f"event {self.events}, {event}: nothing mirrors {image}; wanted {wanted}"
            self.names[image.order_id] = twin.order_id

    def check_money(self):
        here, there = self.straight, self.mirror
        assert here.state.cash == there.state.cash
        assert here.exchange.cash == there.exchange.cash
        assert here.state.flows == there.state.flows
        for name, market in here.state.markets.items():
            assert market.position.net == -there.state.markets[name].position.net
        swapped = {(name, OTHER[leg]): qty for (name, leg), qty in there.exchange.holdings().items()}
        assert here.exchange.holdings() == swapped


def _same_order(one, two):
    return (one.instrument, one.side, one.price) == (two.instrument, two.side, two.price)


BANK = {"bankroll": 1000 * USD, "max_order_cost": 50 * USD}
SHORT_LIVES = {"days_to_end": 0.04}
NEAR_ENDS = {"resolution_pull_ns": 60 * NS_PER_S, "resolution_reduce_ns": 600 * NS_PER_S}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("quoting", ["inventory", "touch"])
def test_a_mirrored_market_is_traded_in_mirror_to_the_cash_unit(quoting, seed):
    worlds = Worlds(seed, maker=MakerParams(quoting=quoting), limits=params(**BANK, **NEAR_ENDS), feed=SHORT_LIVES).run(6_000)
    worlds.check_money()
    print(quoting, seed, worlds.kinds, worlds.straight.state.counts)
    assert worlds.kinds["PlaceOrder"] > 50 and worlds.straight.state.counts.fills > 5, "something happened"
