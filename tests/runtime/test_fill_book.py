"""What stands beside a fill, where the price went after it, samples; the same after a restart; a ledger in memory is a ledger."""

from __future__ import annotations

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core.values import NS_PER_S, Leg, Liquidity, Side, expit, logit
from llm_maker.report import track as record
from llm_maker.runtime import fill_book as fb
from llm_maker.runtime.fill_book import FillBook, PendingFill
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import (
    CashRow,
    EquityRow,
    FillFactRow,
    FillMarkRow,
    FillRow,
    ForecastRow,
    MarkRow,
    OutcomeRow,
    RiskRow,
    SampleRow,
    Scope,
    SettleRow,
)
from tests.core.builders import BOOK, SHARE, T0, Rig, Scripted, advice, binary

SCOPE = Scope("v", "paper", "", "a")
MINUTE = 60 * NS_PER_S


class Desk:
    """A rig whose events go into a fill book."""

    def __init__(self, sample_ns=0, strategy=None, **changes) -> None:
        self.rig = Rig(strategy=strategy, wants=((1, 4900, 10 * SHARE), (-1, 5300, 10 * SHARE)), **changes)
        self.rig.start(binary("m"))
        self.book = FillBook(self.rig.state, sample_ns)
        self.say(ev.Tick())

    def say(self, event):
        return self.book.rows(self.rig.now, event, self.rig.send(event))

    def filled(self, fill_id="f1", qty=SHARE, price=4900, order_id="old"):
        return self.say(ev.OrderFilled(order_id, fill_id, "m", Side.BUY, Leg.YES, price, qty, 0, Liquidity.MAKER, True))

    def later(self, seconds):
        self.rig.wait(seconds)
        self.rig.send(*(self.rig.echo(m) for m in self.rig.state.markets.values() if m.book.trusted))
        return self.say(ev.Tick())


def marks(rows):
    return {row.horizon_s: row.mid2 for row in rows if isinstance(row, FillMarkRow)}


def test_the_horizons_are_those_of_the_report():
    assert fb.MARKOUTS_S == record.MARKOUTS_S


def test_a_fill_is_noted_once_with_the_mid_of_its_moment():
    desk = Desk()
    desk.rig.book(bids=((5000, 500 * SHARE),), asks=((5101, 500 * SHARE),))
    (fact,) = desk.filled()
    assert isinstance(fact, FillFactRow) and (fact.fill_id, fact.instrument, fact.mid2) == ("f1", "m", 10_101)
    assert (fact.model, fact.action, fact.confidence, fact.shift) == ("", "", 0.0, 0.0)
    assert desk.filled() == [], "told again"
    assert fact.fair == desk.rig.market().estimators.fair != 0


def test_the_opinion_in_force_stands_beside_the_fill():
    desk = Desk(prior_weight=0.5)
    desk.rig.advise(advice("buy_yes", 0.8, "bullish", p_yes=0.7))
    (fact,) = desk.filled()
    market = desk.rig.market()
    assert (fact.model, fact.action, fact.confidence) == ("gpt", "buy_yes", 0.8)
    assert fact.shift == pytest.approx(0.5 * market.opinion.d0) and fact.shift > 0
    assert fact.fair == pytest.approx(10_000 * expit(logit(market.estimators.fair / 10_000) + fact.shift))
    desk.rig.wait(desk.rig.state.params.signals.expiry_ns / NS_PER_S)
    (fact,) = desk.filled("f2")
    assert (fact.model, fact.action, fact.confidence, fact.shift) == ("", "", 0.0, 0.0), "past its end it is nothing"


class Own(msgspec.Struct):
    note: str = ""
    terms: dict[str, float] = {}


class Telling(Scripted):
    """A strategy that says what made its prices, of what it holds at that moment."""

    state_type = Own

    def on_market(self, view, own, params):
        own.terms = {"fair": 5077.0, "skew": -float(view.position.net)}
        return super().on_market(view, own, params)


def test_terms_are_those_that_made_the_price_of_the_order():
    desk = Desk(strategy=Telling())
    desk.rig.ack()
    desk.rig.book(asks=((5300, 500 * SHARE),))
    (fact,) = desk.filled("f1")
    assert msgspec.json.decode(fact.terms)["skew"] == -SHARE, "of an order nobody remembers: those of now"
    assert fact.fair == 5077.0
    order = desk.rig.one()
    (fact,) = desk.filled("f2", 5 * SHARE, order.price, order.order_id)
    assert msgspec.json.decode(fact.terms)["skew"] == -6 * SHARE, "placed before the book of fills began"
    desk.rig.send(ev.FeedLost(("m",), "test"))
    desk.rig.ack()
    desk.rig.wait(3)
    event = ev.BookSnapshot("m", *BOOK, desk.rig.now)
    desk.book.rows(desk.rig.now, event, desk.rig.send(event))
    order = desk.rig.one()
    desk.filled("f3", SHARE)
    (fact,) = desk.filled("f4", SHARE, order.price, order.order_id)
    assert msgspec.json.decode(fact.terms)["skew"] == -6 * SHARE, "as when it was sent, though another fill came since"


def test_the_price_is_looked_at_at_each_horizon_and_only_once():
    desk = Desk()
    desk.filled()
    at = 0
    for n, horizon in enumerate(fb.MARKOUTS_S):
        assert marks(desk.later(horizon - at - 0.5)) == {}, horizon
        desk.rig.move(5000 + 100 * n)
        assert marks(desk.later(0.5)) == {horizon: 2 * (5000 + 100 * n)}
        at = horizon
    assert marks(desk.later(1_000_000)) == {}


def test_without_a_trusted_price_it_is_waited_for_and_then_missing():
    desk = Desk()
    desk.filled()
    desk.rig.send(ev.FeedLost(("m",), "test"))
    assert desk.later(1) == [] and desk.later(1) == []
    desk.rig.move(5200)
    assert marks(desk.later(0.5)) == {}, "1 s and 1.5 s late"
    desk.rig.send(ev.FeedLost(("m",), "test"))
    assert marks(desk.later(7.5)) == {}
    desk.rig.move(5300)
    assert marks(desk.later(0.75)) == {10: 10_600}, "0.75 s late is within a second"


def test_a_resolved_market_is_worth_what_it_paid():
    desk = Desk()
    desk.filled()
    desk.say(ev.MarketResolved("m", 0))
    assert marks(desk.later(1)) == {1: 0}, "nothing, and not: not known"


def test_a_forgotten_market_ends_the_looking():
    desk = Desk()
    desk.filled()
    del desk.rig.state.markets["m"], desk.rig.state.held[:]
    assert desk.later(1) == []
    assert desk.later(9) == []


def test_what_an_earlier_run_still_owes_is_paid_and_not_paid_twice():
    desk = Desk()
    desk.book = FillBook(desk.rig.state, 0, [PendingFill(desk.rig.now - 50 * NS_PER_S, "f0", "m", (1, 10))])
    assert marks(desk.later(9)) == {}
    assert marks(desk.later(1)) == {60: 10_200}
    assert marks(desk.later(240)) == {300: 10_200}
    desk.book = FillBook(desk.rig.state, 0, [PendingFill(desk.rig.now - 400 * NS_PER_S, "f0", "m", (1, 10, 60))])
    assert desk.later(1) == [], "its five minutes ended while nobody looked"


def test_markets_are_sampled_while_quoted_or_held():
    desk = Desk(sample_ns=MINUTE)
    desk.rig.ack()
    assert desk.later(30) == []
    (row,) = desk.later(30)
    assert (row.bid, row.ask, row.own_bid, row.own_ask, row.net) == (5000, 5200, 4900, 5300, 0)
    fact, row = desk.filled()
    assert isinstance(fact, FillFactRow) and row.net == SHARE
    desk.rig.send(ev.FeedLost(("m",), "test"))
    desk.rig.ack()
    (row,) = desk.later(60)
    assert (row.bid, row.ask, row.own_bid, row.own_ask) == (0, 0, 0, 0), "held, but neither trusted nor quoted"


def test_many_markets_are_sampled_less_often():
    desk = Desk(sample_ns=MINUTE)
    names = [f"n{i}" for i in range(2 * fb.MOST_SAMPLES)]
    desk.rig.listed(*(binary(name) for name in names))
    for name in names:
        desk.rig.hold(Side.BUY, 4900, SHARE, name)
    counted = [len(desk.later(60)) for _ in range(9)]
    assert counted == [41, 0, 0] * 3, "40 held and one quoted, 20 a minute"


# In memory as on the disk.


def entries():
    """Rows of every kind that memory treats in a way of its own, twice told, over one another."""
    fill = FillRow(
        order_id="o", fill_id="f", instrument="m", side=1, leg="yes", price=1, qty=2, price_scale=1, qty_scale=1, cash=-2, fee=0,
        liquidity="maker", cash_after=0, position_after=2,
    )  # fmt: skip
    opinion = ForecastRow(
        decision_id="d", model="x", role="used", prompt_version="v", instrument="m", category="", event_id="", p_yes=0.5,
        confidence=0.6, bias=0, x_market=0.1, d=None, simulated=True,
    )  # fmt: skip
    fact = FillFactRow(fill_id="f", instrument="m", mid2=3, fair=1.5, terms="{}")
    mark = FillMarkRow(fill_id="f", instrument="m", horizon_s=1, mid2=4)
    sample = SampleRow(instrument="m", bid=1, ask=2, own_bid=0, own_ask=0, net=2, fair=1.5)
    equity = EquityRow(equity=1, cash=1, realized_pnl=0, unrealized_pnl=0)
    seen = MarkRow(decision_id="d", instrument="m", horizon_s=300, x_market=0.2)
    other = msgspec.structs.replace(fill, fill_id="g", order_id="p")
    yield 1, [opinion, RiskRow(key="a", value="1")]
    yield 3, [fill, fact, sample]
    yield 4, [mark, sample, sample, equity]
    yield 4, [mark]
    yield 3, [CashRow(kind="reward", amount=1)]
    yield 6, [other, SettleRow(fill_id="f", instrument="m", status="settled")]
    yield 7, [SettleRow(fill_id="g", instrument="m", status="failed"), SettleRow(fill_id="zzz", instrument="m", status="failed")]
    yield 9, [seen, OutcomeRow(instrument="m", paid_ppm=1_000_000), RiskRow(key="a", value="2")]


KINDS = (FillRow, FillFactRow, FillMarkRow, SampleRow, EquityRow, CashRow, ForecastRow, MarkRow, OutcomeRow)


def answers(source):
    told = {
        kind.table: [list(source.scan(kind, SCOPE)), list(source.scan(kind, SCOPE, 4)), source.read(kind, SCOPE, 3)]
        for kind in KINDS
    }
    return told, source.forecasts(SCOPE), source.pending_fills(SCOPE, 2), source.risk_state(SCOPE), source.scopes()


def test_memory_answers_as_the_ledger_does(tmp_path):
    memory, ledger = Memory(), Ledger.open(tmp_path / "one.sqlite3")
    for source in (memory, ledger):
        for seq, rows in entries():
            source.append(SCOPE, seq, seq, rows)
        source.remember(SCOPE, {"b": "3"}, 9)
    ledger.drain()
    assert answers(memory) == answers(ledger)
    assert [row.status for _, _, row in memory.scan(FillRow, SCOPE)] == ["settled", "failed"]
    assert memory.pending_fills(SCOPE, 2) == [PendingFill(3, "f", "m", (1,))] and memory.risk_state(SCOPE) == {"a": "2", "b": "3"}
    assert list(memory.scan(FillRow, Scope("v", "paper", "", "b"))) == []
    ledger.close()
    copy = Ledger.open(tmp_path / "two.sqlite3")
    memory.write(copy)
    copy.drain()
    assert answers(copy) == answers(memory)
    copy.close()


def test_a_scan_reads_every_row_of_an_entry_that_its_pages_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("llm_maker.runtime.ledger._CHUNK", 3)
    ledger = Ledger.open(tmp_path / "l.sqlite3")
    for seq in range(1, 6):
        rows = [SampleRow(instrument=str(n), bid=seq, ask=n, own_bid=0, own_ask=0, net=0, fair=0.0) for n in range(4)]
        ledger.append(SCOPE, seq, 10 * seq, rows)
    ledger.drain()
    for since, first in ((0, 1), (30, 3), (31, 4), (51, 6)):
        found = [(seq, ts, row.instrument) for seq, ts, row in ledger.scan(SampleRow, SCOPE, since)]
        assert found == [(seq, 10 * seq, str(n)) for seq in range(first, 6) for n in range(4)], since
    ledger.close()


def test_samples_go_after_a_month_and_only_those_of_their_account(tmp_path):
    ledger, other = Ledger.open(tmp_path / "l.sqlite3"), Scope("v", "paper", "", "b")
    day = 86_400 * NS_PER_S
    row = SampleRow(instrument="m", bid=1, ask=2, own_bid=0, own_ask=0, net=0, fair=0.0)
    for n in range(41):
        ledger.append(SCOPE, n + 1, n * day, [row])
    ledger.append(other, 1, 0, [row])
    ledger.drain()
    assert [ts // day for _, ts, _ in ledger.scan(SampleRow, SCOPE)] == list(range(10, 41))
    assert len(list(ledger.scan(SampleRow, other))) == 1
    ledger.close()


# What a recorder leaves for the report.


def test_instruments_are_listed_until_long_after_the_core_has_forgotten_them():
    rig, memory = Rig(wants=((1, 4900, 10 * SHARE),)).start(binary("m", category="sport", event_id="e")), Memory()
    recorder = Recorder(rig.state, SCOPE, memory, None, simulated=True)
    seq = 0

    def say(event):
        nonlocal seq
        seq += 1
        recorder.record(seq, rig.now, event, rig.send(event))

    say(ev.OrderFilled("old", "f1", "m", Side.BUY, Leg.YES, 4900, SHARE, 0, Liquidity.MAKER, True))
    rig.wait(60)
    say(ev.Tick())
    kept = {key: msgspec.json.decode(value) for key, value in memory.risk_state(SCOPE).items()}
    shown = {"name": "m?", "price_scale": 10_000, "qty_scale": 100, "payout": 10_000, "category": "sport", "event_id": "e"}
    assert shown.items() <= kept["instruments"]["m"].items()
    assert (kept["marks"], kept["nets"], kept["settled"]) == ({"m": 10_200}, {"m": SHARE}, {})
    assert kept["quoted"]["m"] >= 60 * NS_PER_S and (kept["seq"], kept["start_ns"], kept["now"]) == (2, T0, rig.now)
    say(ev.MarketResolved("m", 10_000))
    recorder.save_state(rig.now)
    again = Recorder(rig.state, SCOPE, memory, None, simulated=True)
    del rig.state.markets["m"], rig.state.held[:]
    again.save_state(rig.now)
    later = {key: msgspec.json.decode(value) for key, value in memory.risk_state(SCOPE).items()}
    assert later["instruments"] == kept["instruments"] and later["settled"] == {"m": 20_000} and later["start_ns"] == T0


def test_an_answer_told_twice_burns_no_shares(tmp_path):
    rig, memory = Rig().start(binary("m")), Memory()
    recorder = Recorder(rig.state, SCOPE, memory, None, simulated=True)
    event = ev.SetsMerged("m", 100, work_id="nobody asked")
    recorder.record(1, rig.now, event, rig.send(event))
    assert memory.read(CashRow, SCOPE) == []
