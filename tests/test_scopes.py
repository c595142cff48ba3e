"""Whose rows and whose world: no scope reads another's, a home goes on only in its own world, lost files come back or refuse."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from llm_maker.runtime.journal import files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.rows import CashRow, DecisionRow, EquityRow, FillRow, RiskRow, Scope, TripRow

ROOT = Path(__file__).parents[1]
PAPER = Scope("polymarket", "paper", "paper", "main")
FILL = FillRow(
    order_id="1-1", fill_id="1-1/1", instrument="m", side=1, leg="yes", price=5000, qty=500, price_scale=10_000, qty_scale=100,
    cash=-2_500_000, fee=0, liquidity="maker", cash_after=0, position_after=500,
)  # fmt: skip
ROWS = (
    FILL,
    TripRow(instrument="m", side=1, qty=5, opened_ns=1, entry_price=1, exit_price=2, pnl=5, fees=0, exit_reason="target"),
    CashRow(kind="reward", amount=7, instrument="m"),
    EquityRow(equity=1, cash=1, realized_pnl=0, unrealized_pnl=0),
    DecisionRow(decision_id="D-1", model="m", prompt_version="v", signals=1, outcome="ok", cost=3),
    RiskRow(key="risk", value='{"day_base":-1}'),
)
OTHERS = [
    Scope("polymarket", "live", "paper", "main"),
    Scope("polymarket", "live", "0xabc", "main"),
    Scope("simulated", "paper", "paper", "main"),
    Scope("polymarket", "paper", "tape:x#1", "main"),
    Scope("polymarket", "paper", "paper", "second"),
]


@pytest.fixture
def ledger(tmp_path):
    made = Ledger.open(tmp_path / "ledger.sqlite3")
    yield made
    made.close()


@pytest.mark.parametrize("other", OTHERS, ids=lambda s: "-".join(s.key))
def test_no_read_of_one_scope_sees_a_row_of_another(ledger, other):
    ledger.append(PAPER, 5, 1, ROWS)
    ledger.drain()
    assert ledger.positions(PAPER) == {"m": 500} and ledger.totals(PAPER).decisions == 1 and ledger.last_seq(PAPER) == 5
    assert ledger.positions(other) == {} and ledger.holdings(other) == [] and ledger.fills(other) == []
    assert ledger.risk_state(other) == {} and ledger.last_seq(other) == 0
    totals = ledger.totals(other)
    assert (totals.fills, totals.trips, totals.trip_pnl, totals.decisions, totals.cash_by_kind) == (0, 0, 0, 0, {})
    assert all(ledger.read(type(row), other) == [] for row in ROWS)


def test_the_same_sequence_and_fill_of_two_scopes_stand_side_by_side(ledger):
    live = OTHERS[1]
    ledger.append(PAPER, 5, 1, ROWS)
    ledger.append(live, 5, 1, (FILL,))
    ledger.drain()
    assert ledger.failure is None
    assert ledger.positions(live) == ledger.positions(PAPER) == {"m": 500}
    assert ledger.totals(live).decisions == 0


def test_the_views_name_the_scope_in_every_row(ledger):
    ledger.append(PAPER, 5, 1, ROWS)
    ledger.append(OTHERS[1], 5, 1, (FILL,))
    ledger.drain()
    with sqlite3.connect(ledger.path) as db:
        names = [row[0] for row in db.execute("SELECT bot_name FROM trades ORDER BY bot_name")]
    assert names == ["main@live:polymarket", "main@paper:polymarket"]


# Homes, over real processes.


def llm_maker(*args, **env):
    command = [sys.executable, "-m", "llm_maker", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)


def run(home, *args, **env):
    """A minute of simulated market, as fast as possible."""
    busy = {"LLM_MAKER__PAPER__ACTIVITY": "300", "LLM_MAKER__PAPER__MARKETS": "3"}
    return llm_maker("run", "--home", home, "--speed", 0, "--until", 60, "--json", *args, **busy | env)


def result_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refused(done, *words):
    """One line and exit 2."""
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A home after two sessions with fills."""
    home = tmp_path_factory.mktemp("home")
    first, second = result_of(run(home)), result_of(run(home))
    assert (first["resumed"], second["resumed"]) == (False, True) and first["fills"] + second["fills"] > 5
    return home


@pytest.fixture
def home(used, tmp_path):
    """A copy of it to break."""
    copy = tmp_path / "home"
    subprocess.run(["/bin/cp", "-r", str(used), str(copy)], check=True)
    return copy


def bytes_of(home):
    return {path.relative_to(home): path.read_bytes() for path in sorted((home / "logs" / "journal").rglob("*.jsonl*"))}


def rows_of(home, sql):
    with sqlite3.connect(home / "positions" / "ledger.sqlite3") as db:
        return db.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (("--seed", 2), {}),
        ((), {"LLM_MAKER__PAPER__MARKETS": "5"}),
        ((), {"LLM_MAKER__PAPER__ENTRY_MS": "100"}),
        ((), {"LLM_MAKER__PAPER__REGIME": "toxic"}),
    ],
)
def test_a_home_of_another_world_is_refused(home, args, env):
    before = bytes_of(home)
    refused(run(home, *args, **env), str(home), "another simulated world", "another --home")
    assert bytes_of(home) == before
    assert result_of(run(home))["resumed"] is True, "and nothing was spoilt"


def test_other_limits_are_no_other_world(home):
    result = result_of(run(home, LLM_MAKER__RISK__MAX_ORDER_USD="50", LLM_MAKER__STRATEGY__BASE_POSITION_SIZE="20"))
    assert result["resumed"] is True and result["clean_stop"] is True
    newest = files(home / "logs" / "journal" / "simulated-paper-paper", "main")[-2]
    kinds = [type(entry.event).__name__ for entry in read_journal(newest)]
    assert kinds[:2] == ["Started", "ParamsChanged"]


def test_live_is_refused_here_and_touches_nothing(home):
    before, rows = bytes_of(home), rows_of(home, "SELECT * FROM fills")
    refused(run(home, "--mode", "live"), "live")
    assert bytes_of(home) == before and rows_of(home, "SELECT * FROM fills") == rows


def test_another_account_on_the_same_home_begins_anew(home):
    result = result_of(run(home, LLM_MAKER__ACCOUNT="second"))
    assert result["resumed"] is False and result["session"] == 3
    with_second = rows_of(home, "SELECT account, MIN(seq) FROM fills GROUP BY account ORDER BY account")
    assert [name for name, _ in with_second] == ["main", "second", "twin"]
    starts = rows_of(home, "SELECT account, value FROM risk_state WHERE key = 'flows' AND account <> 'twin'")
    assert len(starts) == 2


def test_the_report_never_mixes_two_accounts(home):
    result_of(run(home, LLM_MAKER__ACCOUNT="second"))
    done = llm_maker("report", "--home", home, "--json")
    accounts = json.loads(done.stdout)["accounts"]
    assert [a["account"] for a in accounts] == ["main", "second", "twin", "twin"], "the second's twin has not lived as main's has"
    assert len({(a["account"], a["wallet"]) for a in accounts}) == 4
    for a in accounts:
        whose = f"account = '{a['account']}' AND wallet = '{a['wallet']}'"
        (count,) = rows_of(home, f"SELECT COUNT(*) FROM fills WHERE {whose} AND status <> 'failed'")[0]
        assert a["fills"] == count > 0


@pytest.mark.parametrize("account", ["main", "twin"])
def test_a_lost_ledger_is_made_anew_from_every_journal_file(home, account):
    rows = "SELECT seq, order_id, fill_id, instrument, side, leg, price, qty, cash, fee, cash_after, position_after FROM fills"
    rows, moves = f"{rows} WHERE account = '{account}'", f"SELECT seq, kind, amount FROM cash_moves WHERE account = '{account}'"
    before = rows_of(home, rows), rows_of(home, moves)
    last = max(seq for seq, *_ in before[0])
    for path in (home / "positions").glob("ledger*"):
        path.unlink()
    result = result_of(run(home))
    assert result["resumed"] is True and result["session"] == 3, "session numbers are not given again"
    again = rows_of(home, rows)
    assert [row for row in again if row[0] <= last] == before[0] and len(again) >= len(before[0])
    assert rows_of(home, moves)[: len(before[1])] == before[1]


def test_a_lost_journal_is_refused_because_limits_and_positions_would_be_forgotten(home):
    for path in (home / "logs" / "journal").rglob("*.jsonl*"):
        path.unlink()
    refused(run(home), "journal is gone", "--home")


def test_a_damaged_journal_is_refused_with_its_line(home):
    path = files(home / "logs" / "journal" / "simulated-paper-paper", "main")[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    refused(run(home), path.name, "line 1")


def test_an_analyst_may_change_between_two_sessions(home):
    result = result_of(run(home, LLM_MAKER__LLM__PROVIDER="none"))
    assert result["resumed"] is True and result["provider"] == "none" and result["decisions"] == 0
    back = result_of(run(home))
    assert back["provider"] == "simulated" and back["clean_stop"] is True and back["decisions"] > 0
