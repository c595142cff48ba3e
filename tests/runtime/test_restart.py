"""A real daemon in a process of its own: killed at random moments and restarted, interrupted, doubled, stopped by a file."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from llm_maker.core.commands import CancelOrder, PlaceOrder
from llm_maker.core.events import FillFailed, OrderFilled, Started
from llm_maker.runtime.journal import files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.replay import engine_from, replay
from tests.runtime.world import STRATEGIES, net_of_fills, net_of_state

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def start(home, *args):
    """The daemon on its own config, at 60 times the pace; its simulated market is busy so that orders fill at once."""
    config = home / "config.yaml"
    if not config.exists():
        home.mkdir(parents=True, exist_ok=True)
        config.write_text("paper: {activity: 300, markets: 4}\n")
    command = [sys.executable, "-m", "llm_maker", "run", "--config", str(config), "--home", str(home), "--speed", "60", "--json"]
    return subprocess.Popen([*command, *args], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def journal_folder(home):
    return home / "logs" / "journal" / "simulated-paper-paper"


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def lines_of(home):
    path = home / "logs" / "executions.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def running(home, *args):
    """A daemon that has begun to write since it was started."""
    before, process = lines_of(home), start(home, *args)
    wait_until(lambda: lines_of(home) > before + 5 or process.poll() is not None, "orders")
    assert process.poll() is None, process.communicate()[1]
    return process


def finish(process):
    """(exit code, last JSON object, stderr) of a daemon that is ending."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, json.loads(out.splitlines()[-1]) if out.strip() else None, err


def kill_and_restart(home, kills, dice):
    for number in range(kills):
        process = running(home) if number % 2 else start(home)
        time.sleep(dice.uniform(0.05, 0.9))
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()
    process = running(home)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    return finish(process)


def judge_home(home):
    """Everything that must hold of a home, however often it was killed."""
    folder = journal_folder(home)
    paths = files(folder, "main")
    entries = []
    for path in paths:
        assert replay(path, STRATEGIES).torn is None
        entries += list(read_journal(path))
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    last = read_journal(paths[-1])
    engine = engine_from(last.header, STRATEGIES)
    for entry in last:
        engine.on_event(entry.ts, entry.event)

    placed = [c for entry in entries for c in entry.commands if isinstance(c, PlaceOrder)]
    assert max(Counter(c.order_id for c in placed).values()) == 1, "an order id was given twice"
    sessions = [entry.event.session for entry in entries if isinstance(entry.event, Started)]
    assert sessions == sorted(set(sessions)), "a session number was given twice"
    fills = [entry.event for entry in entries if isinstance(entry.event, OrderFilled)]
    assert max(Counter(f.fill_id for f in fills).values(), default=1) == 1, "a fill was told twice"
    asked = {c.order_id: c.qty for c in placed}
    got = Counter()
    for fill in fills:
        got[fill.order_id] += fill.qty
    assert all(got[order_id] <= asked[order_id] for order_id in got), "an order filled beyond its quantity"
    assert not engine.state.counts.overfills and not engine.state.halts
    rest = [o.order_id for o in engine.state.orders.values() if o.is_live]
    assert rest == []

    failed = {entry.event.fill_id for entry in entries if isinstance(entry.event, FillFailed)}
    net = net_of_fills(fill for fill in fills if fill.fill_id not in failed)
    assert net == net_of_state(engine.state)
    assert engine.state.counts.fills == len(fills)
    judge_ledger(home, engine.state, fills, net)
    judge_log(home, placed, fills)
    return entries, fills


def judge_ledger(home, state, fills, net):
    with sqlite3.connect(home / "positions" / "ledger.sqlite3") as db:
        good = "FROM fills WHERE account = 'main' AND status <> 'failed'"
        rows = db.execute(f"SELECT instrument, SUM(side * qty) {good} GROUP BY instrument").fetchall()
        assert {name: qty for name, qty in rows if qty} == net
        told = db.execute("SELECT fill_id FROM fills WHERE account = 'main' ORDER BY seq, n").fetchall()
        assert [r[0] for r in told] == [f.fill_id for f in fills]
        (moved,) = db.execute(f"SELECT IFNULL(SUM(cash) - SUM(fee), 0) {good}").fetchone()
        (other,) = db.execute("SELECT IFNULL(SUM(amount), 0) FROM cash_moves WHERE account = 'main'").fetchone()
        assert state.flows.start + moved + other == state.cash


def judge_log(home, placed, fills):
    lines = [json.loads(line) for line in (home / "logs" / "executions.jsonl").read_text().splitlines()]
    assert [line["order_id"] for line in lines if line["event"] == "order"] == [c.order_id for c in placed]
    assert [line["fill_id"] for line in lines if line["event"] == "fill"] == [f.fill_id for f in fills]


def check_kills(home, kills, seed):
    print(f"kills {kills}, seed {seed}")
    code, result, err = kill_and_restart(home, kills, random.Random(seed))
    assert code == 0, err
    assert result["clean_stop"] is True and result["resting"] == [] and result["resumed"] is True
    _, fills = judge_home(home)
    assert len(fills) > kills


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path):
    check_kills(tmp_path / "home", 4, 1)


@pytest.mark.prove
def test_killed_fifty_times(tmp_path):
    check_kills(tmp_path / "home", 50, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_order(tmp_path, number):
    home = tmp_path / "home"
    process = running(home)
    process.send_signal(number)
    code, result, err = finish(process)
    assert code == 0, err
    assert result["clean_stop"] is True and result["resting"] == [] and result["orders_placed"] > 0
    entries, _ = judge_home(home)
    newest = files(journal_folder(home), "main")[-1]
    assert list(read_journal(newest)) == [], "another build must find a checkpoint and no decisions of this one"
    last = entries[-1]
    assert last.commands[-1].clean and not any(isinstance(c, CancelOrder) for c in last.commands)


def test_a_second_instance_on_the_same_home_is_refused_with_one_line(tmp_path):
    home = tmp_path / "home"
    process = running(home)
    second = start(home)
    code, result, err = finish(second)
    assert (code, result) == (2, None) and len(err.strip().splitlines()) == 1 and str(process.pid) in err
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0
    judge_home(home)


def test_the_kill_file_stops_and_only_a_person_brings_trading_back(tmp_path):
    home = tmp_path / "home"
    process = running(home)
    (home / "KILL").touch()
    code, result, err = finish(process)
    assert code == 0, err
    assert result["clean_stop"] is True and "kill" in result["halted_by"]
    (home / "KILL").unlink()
    again = start(home)
    resume = [sys.executable, "-m", "llm_maker", "resume", "--home", str(home)]

    def resumed() -> bool:
        assert again.poll() is None, again.communicate()[1]
        return subprocess.run(resume, cwd=ROOT, capture_output=True, text=True, check=False).returncode == 0

    wait_until(resumed, "the daemon to listen")
    before = lines_of(home)
    wait_until(lambda: lines_of(home) > before + 5, "orders after resume")
    again.send_signal(signal.SIGTERM)
    code, result, err = finish(again)
    assert code == 0 and result["halted_by"] == {} and result["orders_placed"] > 0, err


def test_a_second_interrupt_ends_at_once_and_says_what_may_rest(tmp_path):
    home = tmp_path / "home"
    process = running(home, "--speed", "1")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, result, err = finish(process)
    assert code == 1 and result["clean_stop"] is False and result["resting"]
    assert all(order_id in err.splitlines()[-1] for order_id in result["resting"])


BROKEN = """
import sys
from llm_maker.core.engine import Engine
from llm_maker import cli

decide, left = Engine.on_event, [400]

def on_event(self, now, event):
    left[0] -= 1
    if left[0] < 0:
        raise {fault}("a bug of ours")
    return decide(self, now, event)

Engine.on_event = on_event
sys.argv = ["llm-maker", "run", "--home", {home!r}, "--config", {config!r}, "--speed", "60", "--json"]
cli.main()
"""


@pytest.mark.parametrize("fault", ["AssertionError", "KeyError"])
def test_a_bug_of_ours_pulls_the_quotes_and_ends_with_one_line(tmp_path, fault):
    """Cancels go out without asking the core, the traceback is in the log, and the home goes on with a build that is well."""
    home = tmp_path / "home"
    finish_now = start(home)
    wait_until(lambda: lines_of(home) > 5, "orders")
    finish_now.send_signal(signal.SIGTERM)
    assert finish(finish_now)[0] == 0
    script = BROKEN.format(fault=fault, home=str(home), config=str(home / "config.yaml"))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "a bug of ours" in done.stderr.splitlines()[-1]
    last = json.loads((home / "logs" / "daemon.jsonl").read_text().splitlines()[-1])
    assert last["level"] == "error" and fault in last["traceback"] and "cancels sent for" in last["text"]
    process = running(home)
    process.send_signal(signal.SIGTERM)
    code, result, err = finish(process)
    assert code == 0 and result["clean_stop"] is True, err
    judge_home(home)
