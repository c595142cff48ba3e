"""Ledger: positions are the sum of fills, twice applied is once, scopes never mix, damage is kept aside."""

import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.values import Leg, Side
from llm_maker.runtime import ledger as ledger_module
from llm_maker.runtime.ledger import Ledger, LedgerError, LedgerUnreadable
from llm_maker.runtime.rows import CashRow, DecisionRow, EquityRow, FillRow, Holding, RiskRow, Scope, SettleRow, TripRow

PAPER = Scope("polymarket", "paper", "", "main")
LIVE = Scope("polymarket", "live", "0xabc", "main")


def fill(number, side=Side.BUY, leg=Leg.YES, qty=1_000, instrument="A", **more):
    return FillRow(
        order_id=f"1-{number}",
        fill_id=f"f{number}",
        instrument=instrument,
        side=side,
        leg=leg,
        price=4_200,
        qty=qty,
        price_scale=10_000,
        qty_scale=100,
        cash=-4_200_000,
        fee=10,
        liquidity="maker",
        cash_after=95_800_000,
        position_after=qty,
        **more,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "positions" / "ledger.sqlite3"


@pytest.fixture
def ledger(path):
    opened = Ledger.open(path)
    yield opened
    if opened._thread.is_alive():
        opened.close()


def entries():
    trip = TripRow(
        instrument="A",
        side=Side.BUY,
        qty=1_000,
        opened_ns=1,
        entry_price=4_200,
        exit_price=4_300,
        pnl=100_000,
        fees=20,
        exit_reason="target",
        reasoning="because",
    )
    decision = DecisionRow(decision_id="d1", model="m", prompt_version="1", signals=2, outcome="ok", cost=1_500, simulated=True)
    return [
        [fill(1), EquityRow(equity=100, cash=60, realized_pnl=0, unrealized_pnl=-5)],
        [fill(2, Side.SELL, Leg.NO, 700), RiskRow(key="halt", value="null")],
        [SettleRow(fill_id="f1", instrument="A", status="settled")],
        [SettleRow(fill_id="f2", instrument="A", status="failed")],
        [fill(3, Side.SELL, Leg.NO, 300)],
        [CashRow(kind="merge", amount=2_000_000, instrument="A", qty=200)],
        [CashRow(kind="reward", amount=7), CashRow(kind="reward", amount=5), trip, decision],
        [RiskRow(key="halt", value='{"until":9}')],
        [],
    ]


def apply(ledger, scope, rows):
    for seq, some in enumerate(rows, 1):
        ledger.append(scope, seq, seq * 1_000, some)
    ledger.drain()


def everything(ledger, scope):
    kinds = (FillRow, TripRow, CashRow, EquityRow, DecisionRow, RiskRow)
    return [ledger.read(kind, scope) for kind in kinds], ledger.holdings(scope), ledger.totals(scope)


def test_rows_come_back_and_add_up(ledger):
    apply(ledger, PAPER, entries())
    assert ledger.holdings(PAPER) == [Holding("A", "no", 100), Holding("A", "yes", 800)]
    assert ledger.positions(PAPER) == {"A": 700}
    assert [row.status for row in ledger.fills(PAPER)] == ["settled", "failed", "provisional"]
    assert ledger.read(FillRow, PAPER, after_seq=2, limit=5) == [(5, 5_000, fill(3, Side.SELL, Leg.NO, 300))]
    assert ledger.read(DecisionRow, PAPER) == [(7, 7_000, entries()[6][3])]
    assert ledger.risk_state(PAPER) == {"halt": '{"until":9}'}
    assert ledger.last_seq(PAPER) == 9
    totals = ledger.totals(PAPER)
    assert (totals.fills, totals.failed_fills, totals.fees) == (2, 1, 20)
    assert (totals.trips, totals.winning_trips, totals.trip_pnl) == (1, 1, 100_000)
    assert (totals.decisions, totals.decision_cost) == (1, 1_500)
    assert totals.cash_by_kind == {"merge": 2_000_000, "reward": 12}


def test_the_same_tail_twice_changes_nothing_even_in_a_new_process_life(ledger, path):
    apply(ledger, PAPER, entries())
    before = everything(ledger, PAPER)
    apply(ledger, PAPER, entries())
    assert everything(ledger, PAPER) == before
    ledger.close()
    again = Ledger.open(path)
    apply(again, PAPER, entries())
    assert everything(again, PAPER) == before
    again.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(Side), st.sampled_from([Leg.YES, Leg.NO]), st.integers(1, 10**6), st.sampled_from("AB")),
        max_size=20,
    ),
    st.lists(st.integers(0, 20), max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_positions_are_the_sum_of_fills_whatever_the_restarts(tmp_path_factory, trades, restarts):
    place = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    rows = [[fill(number, side, leg, qty, name)] for number, (side, leg, qty, name) in enumerate(trades)]
    for upto in [*restarts, len(rows)]:
        ledger = Ledger.open(place)
        apply(ledger, PAPER, rows[:upto])
        ledger.close()
    ledger = Ledger.open(place)
    net = {name: sum(side * qty for side, _, qty, other in trades if other == name) for name in "AB"}
    assert ledger.positions(PAPER) == {name: qty for name, qty in net.items() if qty}
    ledger.close()


def test_no_scope_reads_what_another_wrote(ledger):
    apply(ledger, PAPER, entries())
    others = [
        LIVE,
        Scope("kalshi", "paper", "", "main"),
        Scope("polymarket", "live", "", "main"),
        Scope("polymarket", "paper", "0xabc", "main"),
        Scope("polymarket", "paper", "", "twin"),
    ]
    for other in others:
        kinds, holdings, totals = everything(ledger, other)
        assert kinds == [[]] * 6
        assert holdings == []
        assert (totals.fills, totals.cash_by_kind, totals.decision_cost) == (0, {}, 0)
        assert ledger.last_seq(other) == 0
        assert ledger.risk_state(other) == {}
        assert ledger.positions(other) == {}
    before = everything(ledger, PAPER)
    apply(ledger, LIVE, [[fill(1)], [SettleRow(fill_id="f3", instrument="A", status="failed")]])
    assert everything(ledger, PAPER) == before
    assert ledger.positions(LIVE) == {"A": 1_000}


def test_the_views_have_the_promised_columns_and_people_s_units(ledger, path):
    apply(ledger, PAPER, entries())
    with sqlite3.connect(path) as reader:
        cursor = reader.execute("SELECT * FROM trades ORDER BY id")
        assert [column[0] for column in cursor.description] == [
            "id", "time", "bot_name", "symbol", "side", "size", "price", "cash_after", "position_after",
        ]  # fmt: skip
        first = cursor.fetchone()
        assert first[1:] == (
            "1970-01-01T00:00:00.000Z", "main@paper:polymarket", "A", "buy", 10.0, 0.42, 95.8, 10.0,
        )  # fmt: skip
        assert len(cursor.fetchall()) == 1, "a failed fill is no trade"
        cursor = reader.execute("SELECT * FROM equity")
        assert [column[0] for column in cursor.description] == [
            "id", "time", "bot_name", "equity", "realized_pnl", "unrealized_pnl",
        ]  # fmt: skip
        assert cursor.fetchone()[3:] == (0.0001, 0.0, -0.000005)
        assert reader.execute("SELECT hold_ns FROM round_trips").fetchone() == (6_999,)
    reader.close()


def test_sessions_never_repeat(ledger, path):
    assert [ledger.next_session(), ledger.next_session()] == [1, 2]
    ledger.close()
    again = Ledger.open(path)
    other = Ledger.open(path)
    assert [again.next_session(), other.next_session(), again.next_session(above=40), other.next_session()] == [
        3, 4, 41, 42,
    ]  # fmt: skip
    again.close()
    other.close()


@pytest.mark.parametrize("damage", ["garbage", "middle", "short"])
def test_an_unreadable_ledger_is_kept_aside_and_never_overwritten(path, damage):
    ledger = Ledger.open(path)
    apply(ledger, PAPER, [[fill(number)] for number in range(400)])
    ledger.close()
    whole = path.read_bytes()
    broken = {
        "garbage": b"not a ledger" * 1_000,
        "middle": whole[:4096] + b"\xa5" * (len(whole) - 8192) + whole[-4096:],
        "short": whole[: len(whole) // 2],
    }[damage]
    for number in (1, 2):
        path.write_bytes(broken)
        with pytest.raises(LedgerUnreadable) as refused:
            Ledger.open(path)
        assert "\n" not in str(refused.value)
        assert refused.value.kept.name == f"ledger.sqlite3.unreadable-{number}"
        assert refused.value.kept.read_bytes() == broken
        assert not path.exists()
    fresh = Ledger.open(path)
    assert fresh.last_seq(PAPER) == 0
    fresh.close()


def test_a_ledger_of_a_newer_build_is_refused_and_left_in_place(path):
    Ledger.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="newer build"):
        Ledger.open(path)
    assert path.exists()


def test_a_migration_keeps_the_rows(path, monkeypatch):
    ledger = Ledger.open(path)
    apply(ledger, PAPER, entries())
    before = everything(ledger, PAPER)
    ledger.close()
    monkeypatch.setattr(ledger_module, "SCHEMA_VERSION", ledger_module.SCHEMA_VERSION + 1)
    monkeypatch.setattr(ledger_module, "MIGRATIONS", (*ledger_module.MIGRATIONS, "CREATE TABLE later (x INTEGER);"))
    again = Ledger.open(path)
    assert everything(again, PAPER) == before
    assert again._select("SELECT COUNT(*) FROM later", ()) == [(0,)]
    again.close()


def test_a_failure_is_told_once_and_ends_all_writing(path):
    told = []
    ledger = Ledger.open(path, on_failure=told.append)
    ledger.append(PAPER, 1, 1, [fill(1)])
    ledger.drain()
    ledger.append(PAPER, 2, 2, [fill(1)])
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.drain()
    ledger.append(PAPER, 3, 3, [fill(3)])
    with pytest.raises(LedgerError):
        ledger.close()
    assert len(told) == 1
    again = Ledger.open(path)
    assert (again.last_seq(PAPER), len(again.fills(PAPER))) == (1, 1)
    again.close()


def test_what_waits_behind_a_failure_is_not_written(path):
    ledger = Ledger.open(path)
    with sqlite3.connect(path, isolation_level=None) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        for seq in range(1, 2_000):
            ledger.append(PAPER, seq, seq, [fill(max(seq, 2))])
        blocker.execute("ROLLBACK")
    blocker.close()
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.close()
    again = Ledger.open(path)
    assert again.last_seq(PAPER) == len(again.fills(PAPER)) < 2
    again.close()


def test_a_number_too_large_for_the_file_is_a_failure_not_a_silent_death(path):
    told = []
    ledger = Ledger.open(path, on_failure=told.append)
    ledger.append(PAPER, 1, 1, [fill(1, qty=1 << 70)])
    with pytest.raises(LedgerError, match="too large"):
        ledger.close()
    assert len(told) == 1


def test_a_full_queue_fails_at_once_and_keeps_only_a_prefix(path):
    told = []
    ledger = Ledger.open(path, limit=5, on_failure=told.append)
    with sqlite3.connect(path, isolation_level=None) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        for seq in range(1, 50):
            ledger.append(PAPER, seq, seq, [fill(seq)])
        blocker.execute("ROLLBACK")
    blocker.close()
    assert len(told) == 1
    assert "wait to be written" in told[0]
    with pytest.raises(LedgerError):
        ledger.close()
    again = Ledger.open(path)
    assert len(again.fills(PAPER)) == again.last_seq(PAPER)
    again.close()


def test_a_fill_that_settles_is_found_by_its_id_however_many_there_are(ledger, path):
    apply(ledger, PAPER, entries())
    ledger.drain()
    with closing(sqlite3.connect(path)) as connection:
        plans = connection.execute(f"EXPLAIN QUERY PLAN {ledger_module._SETTLE}", [""] * 7).fetchall()
    assert [plan[3] for plan in plans] == ["SEARCH fills USING INDEX fills_by_fill_id (fill_id=?)"]


def test_how_far_it_is_written_can_be_asked_whatever_its_state(ledger):
    indexed = ledger.indexed(PAPER)
    assert indexed() == 0
    apply(ledger, PAPER, entries())
    ledger.drain()
    assert indexed() == len(entries()) and ledger.indexed(LIVE)() == 0
    ledger.close()
    assert indexed() == 0


def test_append_with_wait_never_overflows(path):
    ledger = Ledger.open(path, limit=3)
    for seq in range(1, 300):
        ledger.append(PAPER, seq, seq, [fill(seq)], wait=True)
    ledger.close()
    again = Ledger.open(path)
    assert again.last_seq(PAPER) == 299
    again.close()


def test_reads_from_many_threads_do_not_disturb_the_writer(ledger):
    seen = []

    def read():
        for _ in range(50):
            seen.append(ledger.positions(PAPER).get("A", 0))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    apply(ledger, PAPER, [[fill(number)] for number in range(100)])
    for thread in threads:
        thread.join()
    assert ledger.positions(PAPER) == {"A": 100_000}
    assert len(seen) == 100
    assert all(qty % 1_000 == 0 for qty in seen)
