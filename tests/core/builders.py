"""Small builders for tests of the core: an instrument, an engine with a strategy that wants what it is told, events in and out.

In `binary` a share is 100 quantity units and one price x quantity unit is one cash unit, so sums can be read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.core import events as ev
from llm_maker.core.advice import Action, Bias, Signal
from llm_maker.core.commands import AnyCommand, Command, Notice, PlaceOrder
from llm_maker.core.engine import Engine, checkpoint, new_state, restore
from llm_maker.core.events import Event, SignalsReceived
from llm_maker.core.orders import Order, Status
from llm_maker.core.params import Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.state import Market, State
from llm_maker.core.strategy import MarketView, Needs, QuoteTarget, Target
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, FixedGrid, Instrument, InstrumentId, Kind, Leg, Liquidity, Side

T0 = 1_767_225_600 * NS_PER_S
"""2026-01-01T00:00:00Z, a Thursday."""
TICK_NS = 250 * NS_PER_MS
SHARE = 100
USD = CASH_PER_USD
CASH = 10_000 * USD
BOOK = (((5000, 500 * SHARE), (4900, 500 * SHARE)), ((5200, 500 * SHARE), (5300, 500 * SHARE)))


def binary(name: str = "m", **changes: Any) -> Instrument:
    base = Instrument(
        id=InstrumentId(name), venue="v", kind=Kind.BINARY, price_decimals=4, qty_decimals=2, grid=FixedGrid(100),
        qty_step=1, min_qty=5 * SHARE, payout=10_000, guard_start=False, guard_end=False, question=f"{name}?",
        outcomes=("Yes", "No"),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def linear(name: str = "l") -> Instrument:
    """Price 68,000.12, size 0.001."""
    return Instrument(
        id=InstrumentId(name),
        venue="v",
        kind=Kind.LINEAR,
        price_decimals=2,
        qty_decimals=3,
        grid=FixedGrid(1),
        qty_step=1,
        min_qty=1,
    )


def params(**changes: Any) -> Params:
    """Params with a bankroll of $10,000 and a silent slow loop; keywords of any group, e.g. `prior_weight=0.0`."""
    groups: dict[str, Any] = {
        "risk": RiskParams(bankroll=CASH, max_order_cost=200 * USD),
        "slow": SlowParams(enabled=False),
        "signals": SignalParams(),
    }
    made = Params(**groups)
    for key, value in changes.items():
        name = next(g for g in Params.__struct_fields__ if key in type(getattr(made, g)).__struct_fields__)
        made = msgspec.structs.replace(made, **{name: msgspec.structs.replace(getattr(made, name), **{key: value})})
    return made


class Wants(msgspec.Struct, frozen=True):
    """(side, price, quantity) of every quote the scripted strategy wants, on every market."""

    quotes: tuple[tuple[int, int, int], ...] = ()
    interval_ns: int = 45 * NS_PER_S


class Own(msgspec.Struct):
    note: str = ""


class Scripted:
    """A strategy without an opinion: it wants what its params say."""

    name = "scripted"
    params_type = Wants
    state_type = Own

    def due(self, last_asked_ns: int, now: int, params: Wants) -> bool:
        return now - last_asked_ns >= params.interval_ns

    def needs(self, params: Wants) -> Needs:
        return Needs(places=True, parity=True)

    def on_market(self, view: MarketView, own: Own, params: Wants) -> list[Target]:
        return [QuoteTarget(Side(side), price, qty, "scripted") for side, price, qty in params.quotes]


class Rig:
    """One engine with its market time; every call returns the commands that came of it."""

    def __init__(
        self, *, strategy: Any = None, wants: Any = None, now: int = T0, cash: int = CASH, account: str = "a", **changes: Any
    ):
        self.strategy = strategy or Scripted()
        if wants is None:
            wants = self.strategy.params_type()
        elif isinstance(wants, tuple):
            wants = Wants(wants)
        self.engine = Engine(new_state(account, params(**changes), self.strategy, wants, cash), self.strategy)
        self.now = now
        self.log: list[AnyCommand] = []
        self._fills = 0

    @property
    def state(self) -> State:
        return self.engine.state

    def market(self, name: str = "m") -> Market:
        return self.state.markets[name]

    def wait(self, seconds: float) -> None:
        """Move the clock without an event."""
        self.now += int(seconds * NS_PER_S)

    def send(self, *events: Event) -> list[AnyCommand]:
        out: list[AnyCommand] = []
        for event in events:
            out += self.engine.on_event(self.now, event)
        self.log += out
        return out

    def run(self, seconds: float, *, alive: bool = True) -> list[AnyCommand]:
        """Ticks of 250 ms; the feed says its top again each second while `alive`."""
        out: list[AnyCommand] = []
        for n in range(round(seconds * 4)):
            self.now += TICK_NS
            if alive and n % 4 == 0:
                out += self.send(*(self.echo(m) for m in self.state.markets.values() if m.book.trusted))
            out += self.send(ev.Tick())
        return out

    def echo(self, market: Market) -> ev.TopReported:
        book = market.book
        return ev.TopReported(market.instrument.id, book.best_bid, book.best_ask or market.instrument.payout, self.now)

    def book(self, name: str = "m", bids: Any = BOOK[0], asks: Any = BOOK[1]) -> list[AnyCommand]:
        return self.send(ev.BookSnapshot(name, tuple(bids), tuple(asks), self.now))

    def move(self, mid: int, name: str = "m", half: int = 100, size: int = 500 * SHARE) -> list[AnyCommand]:
        """A new book around a mid, levels on the grid."""
        bids = tuple((mid - half - n * 100, size) for n in range(3) if mid - half - n * 100 > 0)
        asks = tuple((mid + half + n * 100, size) for n in range(3))
        return self.book(name, bids, asks)

    def start(self, *instruments: Instrument, account: ev.AccountSnapshot | None = None) -> Rig:
        """Listed, connected, started, account read, books there."""
        self.listed(*instruments)
        self.send(ev.Started(1, False))
        if self.state.params.risk.live:
            self.send(ev.AccountStreamUp("v"))
        self.send(account or ev.AccountSnapshot((), ()))
        for name in list(self.state.markets):
            self.book(name)
        return self

    def listed(self, *instruments: Instrument) -> None:
        self.send(*(ev.InstrumentListed(i) for i in instruments or (binary(),)), ev.VenueUp("v", True))

    # Orders.

    def live(self, side: Side | None = None, name: str = "m") -> list[Order]:
        return [o for o in self.state.live_orders(self.market(name)) if side in (None, o.side)]

    def one(self, side: Side = Side.BUY, name: str = "m") -> Order:
        (order,) = self.live(side, name)
        return order

    def ack(self) -> list[AnyCommand]:
        """The venue accepts whatever waits for it, and confirms every cancel."""
        out: list[AnyCommand] = []
        for order in [o for o in self.state.orders.values() if o.is_live]:
            if order.status is Status.PENDING_NEW:
                out += self.send(ev.OrderAccepted(order.order_id, f"x-{order.order_id}"))
            elif order.status is Status.PENDING_CANCEL:
                out += self.send(ev.OrderCanceled(order.order_id))
        return out

    def fill(
        self, order: Order, qty: int | None = None, *, settled: bool = True, fill_id: str = "", fee: int = 0
    ) -> list[AnyCommand]:
        self._fills += 1
        return self.send(
            ev.OrderFilled(
                order.order_id, fill_id or f"f{self._fills}", order.instrument, order.side, order.leg, order.price,
                order.remaining if qty is None else qty, fee, Liquidity.MAKER, settled,
            )
        )  # fmt: skip

    def hold(self, side: Side, price: int, qty: int, name: str = "m", *, leg: Leg | None = None) -> list[AnyCommand]:
        """A position from a settled fill of an order nobody remembers."""
        self._fills += 1
        if leg is None:
            binary_market = self.market(name).instrument.is_binary
            leg = Leg.NONE if not binary_market else Leg.YES if side is Side.BUY else Leg.NO
        return self.send(ev.OrderFilled("old", f"f{self._fills}", name, side, leg, price, qty, 0, Liquidity.MAKER, True))

    # Opinions.

    def advise(self, *signals: Signal, model: str = "gpt", cost: int = 0, request_id: str = "") -> list[AnyCommand]:
        """A valid answer, whether or not the core has asked."""
        slow = self.state.slow
        slow.pending = slow.pending or "r"
        slow.markets = [s.market_id for s in signals]
        return self.send(SignalsReceived(request_id or slow.pending, "d1", model, "v1", signals, 0, cost))

    def saved(self) -> bytes:
        return checkpoint(self.state)

    def reborn(self) -> Rig:
        """The same from its checkpoint."""
        other = Rig.__new__(Rig)
        other.__dict__.update(self.__dict__, log=[])
        other.engine = Engine(restore(self.saved(), self.strategy), self.strategy)
        return other


def advice(action: str = "hold", confidence: float = 0.7, bias: str = "neutral", market: str = "m", **more: Any) -> Signal:
    return Signal(market, Action(action), confidence, Bias(bias), **more)


def of(commands: list[AnyCommand], kind: type[Command]) -> list[Any]:
    return [c for c in commands if isinstance(c, kind)]


def places(commands: list[AnyCommand]) -> list[PlaceOrder]:
    return of(commands, PlaceOrder)


def notices(commands: list[AnyCommand], code: str = "") -> list[Notice]:
    return [n for n in of(commands, Notice) if code in ("", n.code)]


def acts(commands: list[AnyCommand]) -> list[AnyCommand]:
    """All but the words."""
    return [c for c in commands if not isinstance(c, Notice)]
