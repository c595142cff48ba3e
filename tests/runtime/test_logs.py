"""What a person reads with jq after a short run, the daemon's own log with its redaction, and rows of odd fills."""

import json
import re
import shutil
import subprocess

import pytest

from llm_maker.core import events as ev
from llm_maker.core.commands import Level, Notice, RequestSignals
from llm_maker.core.values import Leg, Liquidity, Side
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import LineLog
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.rows import FillRow, Scope
from tests.core import builders as b
from tests.runtime.world import World

SCOPE = Scope("simulated", "paper", "paper", "main")
LINE_KEYS = {
    "timestamp", "decision_id", "model", "prompt_version", "num_signals", "signals", "portfolio_state", "latency_ms",
    "tokens", "cost_usd", "outcome",
}  # fmt: skip
SIGNAL_KEYS = {
    "market_id", "action", "confidence", "reasoning", "directional_bias", "risk_level", "priority", "evidence", "p_yes",
    "p_low", "p_high", "question", "yes_price", "spread", "imbalance", "position", "avg_price", "weight", "p_final", "expires",
}  # fmt: skip


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The folder of logs of a short simulated run with fills and decisions."""
    folder = tmp_path_factory.mktemp("home") / "logs"
    world = World(seed=3, activity=400.0)
    recorder = Recorder(world.engine.state, SCOPE, None, folder, simulated=True)
    world.run(folder / "journal", 200, recorder=recorder)
    recorder.close()
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def shell(command, folder):
    """The command as typed, in the home."""
    if command.startswith("jq") and shutil.which("jq") is None:
        pytest.skip("no jq on this machine")
    return subprocess.run(["/bin/sh", "-c", command], cwd=folder.parent, capture_output=True, text=True, check=True).stdout


def test_every_decision_line_has_every_key(logs):
    found = lines(logs / "llm_decisions.jsonl")
    assert len(found) > 10
    for line in found:
        assert set(line) >= LINE_KEYS and len(line["signals"]) == line["num_signals"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
        assert line["portfolio_state"]["equity_usd"] > 0
        assert all(set(signal) >= SIGNAL_KEYS for signal in line["signals"])
    signals = [s for line in found for s in line["signals"]]
    accepted = [s for s in signals if s["accepted"]]
    assert accepted and all(s["expires"] and 0 < s["p_final"] < 1 and s["weight"] > 0 for s in accepted)
    assert all(s["question"].startswith("Simulated") and s["market_id"].startswith("SIM-") for s in signals)
    assert all(line["simulated"] is True for line in found)


def test_the_paths_of_the_jq_lines(logs):
    """What the lines of the README ask for, with or without a jq on this machine."""
    rows = [[s["market_id"], s["action"], s["confidence"]] for line in lines(logs / "llm_decisions.jsonl") for s in line["signals"]]
    assert rows and all(isinstance(c, float) for *_, c in rows)
    assert (logs / "llm_decisions.jsonl").read_text().count("buy_yes") > 0
    fills = [line for line in lines(logs / "executions.jsonl") if line["event"] == "fill"]
    assert len(fills) > 5


def test_the_jq_lines_as_typed(logs):
    tsv = shell("jq -r '.signals[] | [.market_id,.action,.confidence] | @tsv' logs/llm_decisions.jsonl", logs)
    assert all(len(row.split("\t")) == 3 for row in tsv.splitlines()) and tsv
    fills = shell("""jq 'select(.event=="fill")' logs/executions.jsonl""", logs)
    assert fills.count('"event": "fill"') > 5


def test_grep_counts_as_typed(logs):
    assert int(shell("grep buy_yes logs/llm_decisions.jsonl | wc -l", logs)) > 0
    assert len(lines(logs / "llm_decisions.jsonl")) == int(shell("cat logs/llm_decisions.jsonl | wc -l", logs))


def test_every_order_and_fill_says_why_and_names_its_decision(logs):
    found = lines(logs / "executions.jsonl")
    decisions = {line["decision_id"] for line in lines(logs / "llm_decisions.jsonl")}
    orders = {line["order_id"]: line for line in found if line["event"] == "order"}
    fills = [line for line in found if line["event"] == "fill"]
    assert all(line["reason"] for line in orders.values())
    for fill in fills:
        order = orders[fill["order_id"]]
        assert (fill["reason"], fill["decision_id"], fill["token"]) == (order["reason"], order["decision_id"], order["token"])
    shaped = {line["decision_id"] for line in orders.values()} - {""}
    assert shaped and shaped <= decisions
    for line in found:
        if line["event"] in ("order", "fill") and line["token"] == "no":
            assert line["price"] + line["yes_price"] == pytest.approx(1.0)
    assert [line["timestamp"] for line in found] == sorted(line["timestamp"] for line in found)


def filled(order_id, fill_id, qty=500, settled=False, price=5000):
    return ev.OrderFilled(order_id, fill_id, "m", Side.BUY, Leg.YES, price, qty, 0, Liquidity.MAKER, settled)


class Desk:
    """An engine with one market, its recorder and its ledger."""

    def __init__(self, tmp_path):
        world = World()
        self.engine, self.seq = world.engine, 0
        self.ledger = Ledger.open(tmp_path / "ledger.sqlite3")
        self.path = tmp_path / "logs"
        self.recorder = Recorder(self.engine.state, SCOPE, self.ledger, self.path, simulated=True)
        self.say(ev.Started(1, False))
        self.say(ev.InstrumentListed(b.binary("m")))

    def say(self, event):
        self.seq += 1
        commands = self.engine.on_event(b.T0 + self.seq, event)
        self.recorder.record(self.seq, b.T0 + self.seq, event, commands)
        return commands

    def rows(self):
        self.ledger.drain()
        return {row.fill_id: row for _, _, row in self.ledger.read(FillRow, SCOPE)}

    def logged(self, name="executions"):
        return lines(self.path / f"{name}.jsonl")


def test_a_fill_told_twice_is_one_row_and_one_line(tmp_path):
    desk = Desk(tmp_path)
    for _ in range(3):
        desk.say(filled("1-1", "f1"))
    desk.say(filled("1-1", "f2"))
    assert list(desk.rows()) == ["f1", "f2"] and desk.ledger.failure is None
    assert [line["fill_id"] for line in desk.logged() if line["event"] == "fill"] == ["f1", "f2"]
    assert desk.ledger.positions(SCOPE) == {"m": 1000}


def test_a_settlement_told_before_its_fill(tmp_path):
    desk = Desk(tmp_path)
    desk.say(ev.FillSettled("f1", "m"))
    desk.say(ev.FillFailed("f2", "m"))
    desk.say(filled("1-1", "f1"))
    desk.say(filled("1-1", "f2"))
    rows = desk.rows()
    assert {key: row.status for key, row in rows.items()} == {"f1": "settled"}, "f2 never moved anything"
    assert desk.ledger.positions(SCOPE) == {"m": 500} == {"m": desk.engine.state.markets["m"].position.net}


def test_a_failed_settlement_takes_its_row_out(tmp_path):
    desk = Desk(tmp_path)
    desk.say(filled("1-1", "f1"))
    assert desk.rows()["f1"].status == "provisional"
    desk.say(ev.FillFailed("f1", "m"))
    assert desk.rows()["f1"].status == "failed" and desk.ledger.positions(SCOPE) == {}


def test_prices_and_sizes_of_rows_carry_their_scale(tmp_path):
    desk = Desk(tmp_path)
    desk.say(filled("1-1", "f1"))
    row = desk.rows()["f1"]
    assert row.price / row.price_scale == 0.5 and row.qty / row.qty_scale == 5.0


def test_while_quiet_rows_are_made_and_only_the_last_lines_are_completed(tmp_path):
    desk = Desk(tmp_path)
    desk.recorder.quiet = True
    desk.say(filled("1-1", "f1"))
    desk.say(filled("1-1", "f2"))
    assert [line for line in desk.logged() if line["event"] == "fill"] == []
    desk.recorder.speak()
    assert [line["fill_id"] for line in desk.logged() if line["event"] == "fill"] == ["f2"], "f1 was written before the kill"
    assert list(desk.rows()) == ["f1", "f2"]


def test_lines_that_are_there_are_not_written_again(tmp_path):
    desk = Desk(tmp_path)
    desk.say(filled("1-1", "f1"))
    before = desk.logged()
    desk.recorder.quiet = True
    desk.recorder._latest = (b.T0 + desk.seq, filled("1-1", "f1"), [])
    desk.recorder.speak()
    assert desk.logged() == before


def test_a_decision_whose_cost_in_time_only_the_first_life_knew_is_not_written_twice(tmp_path):
    desk = Desk(tmp_path)
    desk.recorder._decision_lines._facts = lambda request_id: {"latency_ms": 12.5, "tokens": {"input": 1}}
    answer = ev.SignalsFailed("1-r1", "D-1", "timeout")
    desk.say(answer)
    desk.recorder._decision_lines._facts = lambda request_id: {}
    desk.recorder.quiet = True
    desk.recorder._latest = (b.T0 + desk.seq, answer, [])
    desk.recorder.speak()
    assert len(desk.logged("llm_decisions")) == 1 and desk.logged("llm_decisions")[0]["latency_ms"] == 12.5


def test_the_story_of_a_fallback_is_in_the_decision_log(tmp_path):
    desk = Desk(tmp_path)
    notice = Notice(Level.WARNING, "fallback", "Switching to fallback mode after 3 consecutive failures: timeout")
    desk.recorder.record(desk.seq + 1, b.T0 + 99, ev.Tick(), [notice])
    (line,) = desk.logged("llm_decisions")
    assert set(line) >= LINE_KEYS and line["outcome"] == "fallback" and line["signals"] == [] and "timeout" in line["note"]


def test_questions_nobody_answered_do_not_pile_up(tmp_path):
    from llm_maker.core.brief import portfolio
    from llm_maker.runtime.decision_lines import MAX_REQUESTS

    desk = Desk(tmp_path)
    for number in range(3 * MAX_REQUESTS):
        asked = RequestSignals(f"1-r{number}", (), portfolio(desk.engine.state), "interval")
        desk.recorder.record(0, b.T0 + 10, ev.Tick(), [asked])
    assert len(desk.recorder._decision_lines._requests) == MAX_REQUESTS


def test_a_line_log_keeps_one_older_file_and_cuts_a_torn_end(tmp_path):
    path = tmp_path / "x.jsonl"
    log = LineLog(path, 100)
    for number in range(9):
        log.write([b'{"n":%d}' % number + b" " * 20])
    log.close()
    assert path.with_name("x.jsonl.1").exists() and path.stat().st_size <= 100
    with path.open("ab") as file:
        file.write(b'{"n":')
    again = LineLog(path, 100)
    assert json.loads(again.last()) == {"n": 8}
    again.write([b'{"n":9}'])
    again.close()
    assert [line["n"] for line in lines(path)][-2:] == [8, 9]


def test_a_new_line_log_has_no_last_line(tmp_path):
    log = LineLog(tmp_path / "x.jsonl", 100)
    assert log.last() == b""
    log.close()


SECRET = "0xdeadbeef" * 4


def test_no_held_secret_reaches_file_or_screen(tmp_path):
    shown = []
    log = DaemonLog(tmp_path / "daemon.jsonl", [SECRET, "", "abc"], "info", shown.append)
    log.say(Level.WARNING, "control", f"key {SECRET} was refused")
    log.notice(b.T0, Notice(Level.INFO, "gap", f"see {SECRET}", "m"))
    try:
        raise ValueError(SECRET)
    except ValueError as fault:
        log.fault(fault, ["1-1"])
    log.close()
    text = (tmp_path / "daemon.jsonl").read_text()
    assert SECRET not in text + "".join(shown) and text.count("***") >= 3 and len(shown) == 3
    assert "abc" not in log._secrets, "too short to be a secret"
    last = lines(tmp_path / "daemon.jsonl")[-1]
    assert last["level"] == "error" and "Traceback" in last["traceback"] and "1-1" in last["text"]


def test_a_secret_inside_any_value_is_redacted(tmp_path):
    log = DaemonLog(tmp_path / "daemon.jsonl", [SECRET], "info", lambda line: None)
    assert log.redacted({"a": [f"x{SECRET}", (SECRET, 1)], "b": {"c": SECRET}}) == {"a": ["x***", ["***", 1]], "b": {"c": "***"}}
    log.close()


def test_what_is_below_the_level_goes_to_the_file_only(tmp_path):
    shown = []
    log = DaemonLog(tmp_path / "daemon.jsonl", [], "warning", shown.append)
    log.say(Level.INFO, "a", "quiet")
    log.notice(b.T0, Notice(Level.WARNING, "b", "loud", "m"))
    log.close()
    assert shown == ["2026-01-01T00:00:00.000Z WARNING loud [m]"]
    assert [line["event"] for line in lines(tmp_path / "daemon.jsonl")] == ["a", "b"]
