"""Shared builders of the core's tests: an instrument, an account with an engine, events delivered in market time."""

from __future__ import annotations

import msgspec

from llm_maker.core.commands import CancelOrder, PlaceOrder
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.events import (
    AccountSnapshot,
    BookSnapshot,
    FillSettled,
    InstrumentListed,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    Started,
    Tick,
    VenueUp,
)
from llm_maker.core.params import ExecutionParams, ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.values import (
    CASH_PER_USD,
    NS_PER_MS,
    NS_PER_S,
    FixedGrid,
    Instrument,
    Kind,
    Leg,
    Liquidity,
    Side,
)
from llm_maker.strategy.maker import Maker, MakerParams

BUY, SELL = Side.BUY, Side.SELL
T0 = 1_767_225_600 * NS_PER_S
PAYOUT = 10_000
CENT = 100
SHARE = 1_000_000
TICK_NS = 250 * NS_PER_MS


def usd(amount):
    return int(amount * CASH_PER_USD)


def binary(name="M", **changes):
    """A Polymarket-like market: 1c tick, shares of 10^-6, orders of 5 shares or more in steps of 0.01."""
    rules = {
        "venue": "v", "kind": Kind.BINARY, "price_decimals": 4, "qty_decimals": 6, "grid": FixedGrid(CENT),
        "qty_step": 10_000, "min_qty": 5 * SHARE, "payout": PAYOUT, "end_ns": T0 + 30 * 86_400 * NS_PER_S,
    }  # fmt: skip
    return Instrument(id=name, **rules | changes)


def linear(name="L", **changes):
    """A perpetual: price to the cent, size to 0.001, one dollar of tick."""
    rules = {
        "venue": "v", "kind": Kind.LINEAR, "price_decimals": 2, "qty_decimals": 3, "grid": FixedGrid(100),
        "qty_step": 1, "min_qty": 1,
    }  # fmt: skip
    return Instrument(id=name, **rules | changes)


def make_params(*, execution=None, signals=None, exits=None, **risk):
    """The shipped limits on a bankroll of 1,000 USD without the slow loop; `risk` overrides RiskParams."""
    limits = {"bankroll": usd(1000), "max_order_cost": usd(50), "market_ratio": 0.1, "event_ratio": 0.2} | risk
    return Params(
        risk=RiskParams(**limits),
        exits=ExitParams(**exits or {}),
        execution=ExecutionParams(**execution or {}),
        signals=SignalParams(**signals or {}),
        slow=SlowParams(enabled=False),
    )


class Rig:
    """One account on one venue, opened: instruments listed, feed up, account known. `now` is market time, ns."""

    def __init__(self, *instruments, params=None, maker=None, cash=1000, skip_deep=True, strategy=None):
        strategy = strategy or Maker()
        self.state = new_state("a", params or make_params(), strategy, maker or MakerParams(), usd(cash))
        self.engine = Engine(self.state, strategy, skip_deep=skip_deep)
        self.now = T0
        self.fills = 0
        for instrument in instruments or (binary(),):
            self.send(InstrumentListed(instrument))
        self.send(VenueUp("v", snapshots=True))
        self.send(Started(1, resumed=False))
        self.send(AccountSnapshot((), ()))

    def market(self, name="M"):
        return self.state.markets[name]

    def send(self, event, after_s=0.0):
        """Deliver one event `after_s` later; returns the commands."""
        self.now += int(after_s * NS_PER_S)
        return self.engine.on_event(self.now, event)

    def tick(self, seconds=0.25):
        """Ticks every 250 ms for so long; returns all commands."""
        out = []
        for _ in range(round(seconds * 4)):
            self.now += TICK_NS
            out += self.engine.on_event(self.now, Tick())
        return out

    def alive(self, seconds, name="M"):
        """Ticks with a feed that repeats its book every second, so that silence does not set in."""
        out = []
        for _ in range(round(seconds)):
            out += self.tick(1)
            book = self.market(name).book
            out += self.send(BookSnapshot(name, tuple(book.bids.items()), tuple(book.asks.items()), 0))
        return out

    def book(self, bid, ask, qty=500, name="M", depth=3, after_s=0.0):
        """A snapshot with `depth` levels a side, a tick apart, of `qty` whole units each; 0 leaves a side empty."""
        instrument = self.market(name).instrument
        tick, unit = instrument.tick_at(max(bid, ask)), 10**instrument.qty_decimals
        bids = tuple((bid - i * tick, int(qty * unit)) for i in range(depth)) if bid else ()
        asks = tuple((ask + i * tick, int(qty * unit)) for i in range(depth)) if ask else ()
        return self.send(BookSnapshot(name, bids, asks, 0), after_s)

    def live(self, name="M"):
        return self.state.live_orders(self.market(name))

    def resting(self, side, name="M"):
        """Our live orders of one side."""
        return [o for o in self.live(name) if o.side is side]

    def accept_all(self, name="M"):
        out = []
        for order in self.live(name):
            if order.status.value == "pending_new":
                out += self.send(OrderAccepted(order.order_id, "x" + order.order_id))
        return out

    def end_cancels(self, name="M"):
        """The venue confirms every cancel that is on its way."""
        out = []
        for order in self.live(name):
            if order.sent_cancel:
                out += self.send(OrderCanceled(order.order_id))
        return out

    def fill(self, order, qty=None, *, settled=True):
        self.fills += 1
        event = OrderFilled(
            order.order_id, f"f{self.fills}", order.instrument, order.side, order.leg, order.price,
            qty or order.remaining, 0, Liquidity.MAKER, settled,
        )  # fmt: skip
        return self.send(event)

    def settle(self, number, name="M"):
        return self.send(FillSettled(f"f{number}", name))

    def hold(self, net, price=5000, name="M", *, settled=True):
        """Give the account a position of `net` whole units bought (or sold through NO) at a YES price."""
        self.fills += 1
        instrument = self.market(name).instrument
        side = BUY if net > 0 else SELL
        leg = Leg.NONE if not instrument.is_binary else Leg.YES if net > 0 else Leg.NO
        qty = int(abs(net) * 10**instrument.qty_decimals)
        event = OrderFilled(
            f"old-{self.fills}", f"f{self.fills}", name, side, leg, price, qty, 0, Liquidity.MAKER, settled
        )
        return self.send(event)


def quotes(rig, name="M"):
    """(price, whole units) of our one live order a side, None where there is none."""
    found = {}
    for side in (BUY, SELL):
        orders = rig.resting(side, name)
        assert len(orders) <= 1, "one order a side"
        unit = 10 ** rig.market(name).instrument.qty_decimals
        found[side] = (orders[0].price, orders[0].remaining / unit) if orders else None
    return found[BUY], found[SELL]


def places(commands):
    return [c for c in commands if isinstance(c, PlaceOrder)]


def cancels(commands):
    return [c for c in commands if isinstance(c, CancelOrder)]


def orders_of(commands):
    """Places and cancels: what reaches the venue and costs messages."""
    return [c for c in commands if isinstance(c, PlaceOrder | CancelOrder)]


def with_risk(params, **risk):
    return msgspec.structs.replace(params, risk=msgspec.structs.replace(params.risk, **risk))
