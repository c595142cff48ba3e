"""One LINEAR instrument (price 68,000.12, size 0.001) through the whole house: book to replay, to the cash unit. Simulated."""

import random
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.advice import Action, Bias, Signal
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import (
    BookSnapshot,
    CashKind,
    FundingReported,
    InstrumentListed,
    IntentReceived,
    MarketResolved,
    OrderFilled,
    SignalsReceived,
    Started,
    TradePrinted,
    VenueUp,
)
from llm_maker.core.params import ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.positions import Position
from llm_maker.core.values import (
    CASH_PER_USD,
    NS_PER_S,
    FeeCurve,
    FeeRule,
    FixedGrid,
    Instrument,
    Kind,
    Leg,
    Liquidity,
    Side,
    to_cash_up,
)
from llm_maker.core.worth import equity, exit_equity
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.replay import engine_from, replay
from llm_maker.runtime.rows import CashRow, FillRow, Scope, TripRow
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.purse import Purse
from llm_maker.venues.paper.records import ExchangeParams
from tests.runtime.world import net_of_fills

T0 = 1_767_225_600 * NS_PER_S
START = 100_000 * CASH_PER_USD
MAKER = {"maker": Maker()}
SCOPE = Scope("perps", "paper", "paper", "main")
BUY, SELL = Side.BUY, Side.SELL
PRICE = 6_800_012


def perp(price_decimals=2, qty_decimals=3, maker_ppm=150):
    return Instrument(
        id="BTC", venue="perps", kind=Kind.LINEAR, price_decimals=price_decimals, qty_decimals=qty_decimals,
        grid=FixedGrid(1), qty_step=1, min_qty=1, fee=FeeRule(curve=FeeCurve.NOTIONAL, taker_ppm=450, maker_ppm=maker_ppm),
    )  # fmt: skip


class Script:
    """A feed that says what it is told, when it is told."""

    name = "script"

    def __init__(self, steps):
        self.steps = sorted(steps, key=lambda step: step[0])

    def observe(self, now, event):
        pass

    def execute(self, now, command):
        pass

    def next_ns(self):
        return self.steps[0][0] if self.steps else None

    def advance(self, now):
        due = [event for at, event in self.steps if at <= now]
        self.steps = self.steps[len(due) :]
        return due

    def checkpoint(self):
        return b"{}"

    def restore(self, saved):
        pass


def settings_of(**signals):
    wide = {"market_ratio": 0.9, "event_ratio": 0.9, "cluster_ratio": 0.9, "gross_ratio": 0.9, "daily_loss_ratio": 0.5}
    more = {"weekly_loss_ratio": 0.5, "monthly_loss_ratio": 0.5, "max_drawdown_ratio": 0.5}
    return Params(
        risk=RiskParams(bankroll=START, max_order_cost=50_000 * CASH_PER_USD, **wide, **more),
        exits=ExitParams(stop_ratio=0.5, target_ratio=0.5),
        signals=SignalParams(**{"base_cash": 1_000 * CASH_PER_USD, "max_position_cash": 5_000 * CASH_PER_USD} | signals),
        slow=SlowParams(enabled=False),
    )


class Rig:
    """Feed, exchange, maker, journal, ledger of one linear market in virtual time."""

    def __init__(self, folder, steps, settings=None, instrument=None):
        self.feed = Script([(T0, InstrumentListed(instrument or perp())), (T0, VenueUp("perps", True)), *steps])
        self.exchange = Exchange(ExchangeParams(seed=1, start_cash=START, volume_cap_ratio=1.0, improve_share=1.0))
        self.timeline = Timeline([("", self.feed), ("main", self.exchange), ("", Ticker(T0))])
        self.engine = Engine(new_state("main", settings or settings_of(), MAKER["maker"], MakerParams(), START), MAKER["maker"])
        self.state = self.engine.state
        self.journal = JournalWriter.create(
            folder / "journal",
            "main",
            lambda: Checkpoint(checkpoint(self.state), self.timeline.checkpoint()),
            limits=JournalLimits(compress=False),
        )
        self.ledger = Ledger.open(folder / "ledger.sqlite3")
        recorder = Recorder(self.state, SCOPE, self.ledger, folder / "logs", simulated=True)
        account = Account(self.engine, self.journal, recorder, [self.exchange])
        self.session = Session([account], self.timeline)
        self.account = account
        self.session.deliver(T0, "main", Started(1, False))

    @property
    def market(self):
        return self.state.markets["BTC"]

    def until(self, seconds):
        end = T0 + int(seconds * NS_PER_S)
        while self.timeline.next_ns() <= end:
            self.session.deliver(*self.timeline.pop())

    def say(self, event):
        self.session.deliver(self.session.now, "main", event)

    def agree(self):
        """Engine and exchange hold the same cash and the same position, to the unit."""
        assert self.state.cash == self.exchange.cash
        assert self.exchange.holdings().get(("BTC", Leg.NONE), 0) == self.market.position.net
        assert not self.state.halts

    def end(self):
        self.session.request_stop("test")
        while not self.session.stopped:
            self.session.deliver(*self.timeline.pop())
        assert self.account.stop.clean
        self.journal.close()
        self.ledger.drain()


def book(at, mid=PRICE, half=50, depth=900):
    bids = tuple((mid - half - 10 * n, depth) for n in range(4))
    asks = tuple((mid + half + 10 * n, depth) for n in range(4))
    return (T0 + int(at * NS_PER_S), BookSnapshot("BTC", bids, asks, T0 + int(at * NS_PER_S)))


def quiet(until, mid=PRICE):
    return [book(at, mid) for at in range(1, until, 2)]


def trade(at, side, qty, beyond=60, mid=PRICE):
    """A print that goes through our quote on the other side."""
    return (T0 + int(at * NS_PER_S), TradePrinted("BTC", mid + side * beyond, qty, side, T0 + int(at * NS_PER_S)))


def flow(count, side, start, qty=7):
    return [trade(start + 3 * n + 0.3, side, qty) for n in range(count)]


def test_the_maker_quotes_a_linear_market_in_money(tmp_path):
    rig = Rig(tmp_path, quiet(6))
    rig.until(5)
    quotes = {o.side: o for o in rig.state.live_orders(rig.market)}
    assert set(quotes) == {BUY, SELL} and all(o.leg is Leg.NONE for o in quotes.values())
    assert all(o.qty == 14 for o in quotes.values()), "$1,000 at 68,000.12 is 0.014"
    assert PRICE - 50 <= quotes[BUY].price < PRICE < quotes[SELL].price <= PRICE + 50
    rig.agree()
    rig.end()


def test_a_linear_market_without_a_size_is_not_quoted(tmp_path):
    rig = Rig(tmp_path, quiet(6), settings_of(base_cash=0, max_position_cash=0))
    rig.until(5)
    assert not rig.market.live and rig.market.own.note == "no size configured"
    rig.end()


def test_worst_case_of_a_linear_market_is_its_stressed_notional(tmp_path):
    rig = Rig(tmp_path, quiet(20) + flow(3, SELL, 5))
    rig.until(16)
    net = rig.market.position.net
    buys = sum(o.remaining for o in rig.state.live_orders(rig.market) if o.side is BUY)
    assert net > 0 and buys > 0
    assert rig.market.worst == to_cash_up(perp(), int((net + buys) * rig.market.mark * 0.2))
    assert rig.market.reserved == 0
    rig.end()


def test_the_position_cap_in_money_holds(tmp_path):
    rig = Rig(tmp_path, quiet(200) + flow(60, SELL, 5, qty=40))
    for second in range(1, 190):
        rig.until(second)
        resting = sum(o.remaining for o in rig.state.live_orders(rig.market) if o.side is BUY)
        assert rig.market.position.net + resting <= 5_000 * 1_000 * 100 // (PRICE - 200)
    assert rig.market.position.net > 30
    rig.agree()
    rig.end()


def test_from_long_to_short_through_zero_with_funding_to_the_unit(tmp_path):
    """The whole way: quotes filled long, one sale through zero, funding on both sides, and every book agrees at the end."""
    half = [(T0 + 30 * NS_PER_S, FundingReported("BTC", 125, T0 + 40 * NS_PER_S))]
    late = [(T0 + 80 * NS_PER_S, FundingReported("BTC", -70, T0 + 100 * NS_PER_S))]
    steps = quiet(140) + flow(6, SELL, 5) + half + [trade(50.4, BUY, 200), trade(60.4, BUY, 7), *late]
    rig = Rig(tmp_path, steps)
    rig.until(39)
    long = rig.market.position.net
    assert long > 0 and rig.state.flows.funding == 0
    rig.agree()
    rig.until(45)
    paid = rig.state.flows.funding
    assert paid < 0, "longs pay a positive rate"
    rig.say(IntentReceived("i1", "BTC", -long, "test", "through zero"))
    rig.until(56)
    assert rig.market.position.net == -long
    assert [t.instrument for t in rig.state.closed] == [] and rig.market.position.last_trip.side is BUY
    rig.agree()
    rig.until(101)
    assert rig.state.flows.funding < paid, "shorts pay a negative rate"
    rig.agree()
    rig.say(IntentReceived("i2", "BTC", 0, "test", "flat"))
    rig.feed.steps = [*quiet(130)[60:], trade(120.4, SELL, 200)]
    rig.until(125)
    assert rig.market.position.net == 0
    rig.end()
    rig.agree()
    flows = rig.state.flows
    assert flows.start + flows.trading + flows.fees + flows.funding == rig.state.cash
    assert equity(rig.state) == exit_equity(rig.state) == rig.state.cash == rig.exchange.cash
    judge_files(rig)


def judge_files(rig):
    """Journal and ledger tell the same story as the state."""
    entries = list(read_journal(rig.journal.path))
    fills = [entry.event for entry in entries if isinstance(entry.event, OrderFilled)]
    assert replay(rig.journal.path, MAKER).entries == len(entries)
    rows = [row for _, _, row in rig.ledger.read(FillRow, SCOPE)]
    assert [row.fill_id for row in rows] == [fill.fill_id for fill in fills]
    assert all(row.status == "settled" and row.leg == "none" for row in rows)
    moved = [row for _, _, row in rig.ledger.read(CashRow, SCOPE)]
    funding = [row.amount for row in moved if row.kind == CashKind.FUNDING.value]
    assert len(funding) == 2 and sum(funding) == rig.state.flows.funding
    assert START + sum(row.cash - row.fee for row in rows) + sum(row.amount for row in moved) == rig.state.cash
    assert rig.ledger.positions(SCOPE) == net_of_fills(fills) == {}
    trips = [row for _, _, row in rig.ledger.read(TripRow, SCOPE)]
    assert [row.side for row in trips] == [1, -1]
    engine = engine_from(read_journal(rig.journal.path).header, MAKER)
    for entry in entries:
        engine.on_event(entry.ts, entry.event)
    assert engine.state.cash == rig.state.cash
    rig.ledger.close()


def test_the_trades_view_shows_people_prices_and_sizes(tmp_path):
    rig = Rig(tmp_path, quiet(10) + flow(1, SELL, 5))
    rig.until(9)
    rig.end()
    with sqlite3.connect(rig.ledger.path) as db:
        (price, size, side), *more = db.execute("SELECT price, size, side FROM trades").fetchall()
    assert more == [] and side == "buy" and size == 0.007 and price == pytest.approx(68_000.12, abs=0.6)


def test_a_fill_that_moves_no_cash_is_still_a_row(tmp_path):
    """Opening a linear position without a fee costs nothing at that moment."""
    rig = Rig(tmp_path, quiet(10) + flow(1, SELL, 5), instrument=perp(maker_ppm=0))
    rig.until(9)
    rig.end()
    assert rig.state.cash == START and rig.ledger.positions(SCOPE) == {"BTC": rig.market.position.net} == {"BTC": 7}


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_linear_market_that_ends_is_closed_at_its_last_price(tmp_path, side):
    other = SELL if side is BUY else BUY
    end = (T0 + 20 * NS_PER_S, MarketResolved("BTC", PRICE + 5_000))
    rig = Rig(tmp_path, quiet(20) + flow(2, other, 5) + [end])
    rig.until(19)
    assert rig.market.position.net * side > 0
    rig.until(22)
    assert rig.market.position.net == 0
    rig.agree()
    rig.end()
    assert rig.ledger.positions(SCOPE) == {}
    gain = (rig.state.cash - START) * side
    assert gain > 0 and exit_equity(rig.state) == rig.state.cash


def test_a_bias_moves_a_linear_quote_a_little_and_p_yes_not_at_all(tmp_path):
    """`p_yes` speaks of a market that pays 1 or nothing; of a price of 68,000 it says nothing."""
    rig = Rig(tmp_path, quiet(30), settings_of(bias_beta=0.001))
    rig.until(5)
    quiet_bid = {o.side: o.price for o in rig.state.live_orders(rig.market)}[BUY]
    rig.state.slow.pending, rig.state.slow.markets = "1-r1", ["BTC"]
    view = Signal("BTC", Action.HOLD, 0.9, Bias.BULLISH, p_yes=0.01)
    rig.say(SignalsReceived("1-r1", "D-1", "m", "v", (view,)))
    rig.until(20)
    assert 0 < rig.market.opinion.d0 < 0.001
    bid = {o.side: o.price for o in rig.state.live_orders(rig.market)}[BUY]
    assert abs(bid - quiet_bid) < 1_000
    rig.end()


def test_bars_and_estimators_follow_a_linear_price(tmp_path):
    dice, mid, steps = random.Random(4), PRICE, []
    for at in range(1, 200, 2):
        mid += dice.randrange(-40, 41)
        steps.append(book(at, mid))
    rig = Rig(tmp_path, steps)
    rig.until(199)
    bars = rig.market.bars.closed(60)
    assert len(bars) >= 3 and all(bar.low <= bar.close <= bar.high for bar in bars)
    assert abs(bars[-1].close - PRICE) < 2_000
    assert 0 < rig.market.estimators.sig_price(perp(), float(mid)) < 100_000
    assert abs(rig.market.estimators.fair - mid) <= 50
    rig.end()


@settings(max_examples=60)
@given(
    trades=st.lists(
        st.tuples(st.sampled_from([1, -1]), st.integers(6_000_000, 7_500_000), st.integers(1, 400)), min_size=1, max_size=40
    ),
    decimals=st.sampled_from([(2, 3), (2, 5), (4, 6), (6, 6), (0, 0)]),
    end=st.integers(6_000_000, 7_500_000),
)
def test_both_ends_keep_the_same_books_of_a_linear_position(trades, decimals, end):
    """The exchange's purse and the core's position after any trades through zero, and after the end: equal cash, always."""
    instrument = perp(*decimals)
    purse, position, cash = Purse(cash=0), Position(), 0
    for number, (side, price, qty) in enumerate(trades):
        fill = OrderFilled("1-1", f"f{number}", "BTC", Side(side), Leg.NONE, price, qty, 3, Liquidity.MAKER, settled=True)
        purse.book(instrument, fill)
        cash += position.apply_fill(instrument, fill, number).cash
        assert purse.cash == cash and purse.perp("BTC").net == position.net
    for leg, qty, amount in purse.redeem(instrument, end):
        assert amount == position.redeem(instrument, leg, qty, end)
        cash += amount
    assert purse.cash == cash and position.net == 0 == position.cost
