"""What a person types: bad input is one line and exit code 2 with nothing lost, good input does what it says; real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llm_maker.cli import app
from llm_maker.runtime.journal import first_seq_of
from llm_maker.runtime.ledger import Ledger

ROOT = Path(__file__).parent.parent


def llm_maker(*args: str, home: Path, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end in an empty folder of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY") and not k.startswith("LLM_MAKER")}
    return subprocess.run(
        [sys.executable, "-m", "llm_maker", *args],
        cwd=home,
        env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def started(home: Path, *args: str) -> subprocess.Popen[str]:
    """A daemon that is up: its control socket answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_maker", "run", "--speed", "20", "--json", *args],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if llm_maker("status", "--json", home=home).returncode == 0:
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate())


def stopped(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stratgy: {quoting: touch}", "unknown key 'stratgy'; did you mean 'strategy'?"),
        ("strategy: {quoting: inventry}", "inventory"),
        ("seed: many", "seed is 'many'; must be a whole number"),
        ("risk: {daily_loss_pct: 250}", "risk.daily_loss_pct is 250"),
        ("mode: [paper", "not YAML"),
        ("llm: {provider: deepseek}", "Missing API key: DEEPSEEK_API_KEY not set"),
        ("llm: {provider: gemini}", "Missing API key: GEMINI_API_KEY not set"),
        ("mode: live", "mode is 'live' and venue is 'simulated'"),
        ("{venue: polymarket, mode: live}", "risk.bankroll_usd is empty"),
        ("{venue: polymarket, mode: live, risk: {bankroll_usd: 100}}", "LLM_MAKER_PK is not set"),
    ],
)
def test_a_bad_config_is_one_line_and_exit_2(tmp_path: Path, text: str, told: str):
    (tmp_path / "config.yaml").write_text(text)
    assert told in refused(llm_maker("run", "--duration", "1", home=tmp_path))
    assert not (tmp_path / "positions" / "ledger.sqlite3").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["runn"], "did you mean 'run'?"),
        (["run", "--sped", "2"], "--sped"),
        (["run", "--speed", "-1"], "--speed is -1"),
        (["run", "--duration", "0"], "--duration is 0; must be above 0"),
        (["run", "--leave"], "--leave goes with --once"),
        (["run", "--config", "none.yaml"], "none.yaml: no such file"),
        (["backtest"], "--tape"),
        (["backtest", "--tape", "none.zst"], "none.zst"),
        (["replay", "none.jsonl"], "none.jsonl"),
        (["run", "--tape", "none.zst"], "none.zst"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tmp_path: Path, args: list[str], told: str):
    assert told in refused(llm_maker(*args, home=tmp_path))


def test_a_tape_without_header_or_damaged_in_the_middle_is_refused_with_its_place(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"recv_ns":1,"channel":"market","frame":{}}\n')
    assert "a.jsonl" in refused(llm_maker("backtest", "--tape", "a.jsonl", home=tmp_path))
    header = {"tape": 1, "venue": "polymarket", "instruments": [_instrument()]}
    frame = {"recv_ns": 1, "channel": "market", "frame": {"event_type": "x"}}
    lines = [json.dumps(header), json.dumps(frame), "{damage", json.dumps(frame)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
    assert "b.jsonl:3" in refused(llm_maker("backtest", "--tape", "b.jsonl", home=tmp_path))


def _instrument() -> dict[str, object]:
    return {
        "condition_id": "0xabc",
        "token_ids": ["1", "2"],
        "outcomes": ["Yes", "No"],
        "question": "?",
        "tick_size": "0.01",
        "min_order_size": "5",
        "neg_risk": False,
        "fee_rate": "0.05",
    }


def test_verbs_that_need_a_daemon_say_so(tmp_path: Path):
    for verb in (["status"], ["why", "x"], ["pause"], ["kill", "--yes"]):
        result = llm_maker(*verb, home=tmp_path)
        assert result.returncode == 1 and "no daemon runs" in result.stderr


def test_report_of_an_empty_home(tmp_path: Path):
    result = llm_maker("report", home=tmp_path)
    assert result.returncode == 1 and "nothing has been traded here yet" in result.stderr


def test_an_unreadable_ledger_is_kept_aside_and_never_overwritten(tmp_path: Path):
    ledger = tmp_path / "positions" / "ledger.sqlite3"
    ledger.parent.mkdir()
    ledger.write_bytes(b"this is no database, but it may be all that is left of one" * 100)
    line = refused(llm_maker("run", "--duration", "1", home=tmp_path))
    assert "ledger" in line
    kept = [p for p in ledger.parent.iterdir() if "unreadable" in p.name]
    assert len(kept) == 1 and kept[0].read_bytes().startswith(b"this is no database")


def test_a_second_daemon_on_the_same_home_is_refused_and_the_first_obeys(tmp_path: Path):
    process = started(tmp_path)
    try:
        assert "another llm_maker (pid" in refused(llm_maker("run", "--duration", "1", home=tmp_path))
        status = json.loads(llm_maker("status", "--json", home=tmp_path).stdout)
        assert status["mode"] == "active" and status["markets"]
        market = status["markets"][0]["market_id"]
        why = json.loads(llm_maker("why", market, "--json", home=tmp_path).stdout)
        assert {g["gate"] for g in why["gates"]} >= {"mode", "book", "resolution", "pull"}
        assert market in llm_maker("why", market, home=tmp_path).stdout
        assert llm_maker("markets", home=tmp_path).stdout.startswith("main: PAPER money on a SIMULATED market\n")
        _wishes_and_costs(tmp_path, market)
        assert llm_maker("pause", home=tmp_path).returncode == 0
        time.sleep(0.5)
        status = json.loads(llm_maker("status", "--json", home=tmp_path).stdout)
        assert status["mode"] == "halted" and status["orders"] == 0
        assert llm_maker("resume", home=tmp_path).returncode == 0
        assert llm_maker("reduce", market, home=tmp_path).returncode == 0
        assert llm_maker("why", "no such market", home=tmp_path).returncode == 1
        assert llm_maker("kill", "--yes", home=tmp_path).returncode == 0
        result = stopped(process)
        assert result["clean_stop"] and result["resting"] == []
    finally:
        process.kill()
    assert json.loads(llm_maker("report", "--json", home=tmp_path).stdout)["accounts"][0]["venue"] == "simulated"


def _wishes_and_costs(home: Path, market: str) -> None:
    """What a verb says is of the market, the wish and the file that it was asked about."""

    def said(code: int, *args: str) -> Result:
        result = CliRunner().invoke(app, [*args, "--home", str(home)])
        assert result.exit_code == code, result.output
        return result

    assert "no wish 'w9-9' waits here; none does" in said(1, "approve", "w9-9").stderr
    assert said(0, "intend", market, "-20").stdout.startswith("w1-1: asked for")
    assert f"crossing the spread in {market} costs about $" in said(0, "flatten", market, "--take", "--yes").stderr
    assert "crossing the spread on every position costs about $" in said(1, "flatten", "--take").stderr
    (home / "config.yaml").write_text("seed: 77\n")
    told = json.loads(said(1, "reload", "--check", "--json").stdout)
    assert not told["allowed"] and [change["key"] for change in told["changes"]] == ["seed"]
    (home / "config.yaml").unlink()
    assert "nothing has changed" in said(0, "reload", "--check").stdout, "of the file as it is now"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_journal_replays(tmp_path: Path, number: signal.Signals):
    process = started(tmp_path)
    process.send_signal(number)
    result = stopped(process)
    assert result["clean_stop"] and result["orders_placed"] > 0
    folder = tmp_path / "logs" / "journal" / "simulated-paper-paper"
    proved = llm_maker("replay", str(folder), "--json", home=tmp_path)
    assert proved.returncode == 0, proved.stderr
    assert json.loads(proved.stdout)["entries"] > 0


def test_the_kill_file_works_without_the_socket(tmp_path: Path):
    process = started(tmp_path)
    (tmp_path / "KILL").touch()
    assert stopped(process)["clean_stop"]


def test_a_kill_file_from_before_is_named_and_nothing_starts(tmp_path: Path):
    (tmp_path / "KILL").touch()
    assert "KILL is there" in refused(llm_maker("run", "--duration", "1", home=tmp_path))


@pytest.mark.prove
def test_a_restart_says_where_it_goes_on_and_a_kill_that_it_stays_down(tmp_path: Path):
    llm_maker("run", "--duration", "1", "--json", home=tmp_path)
    again = llm_maker("run", "--duration", "1", "--json", home=tmp_path)
    assert "goes on where session 1 stopped" in again.stderr and "NOT ACTIVE" not in again.stderr
    process = started(tmp_path)
    assert llm_maker("kill", "--yes", home=tmp_path).returncode == 0
    stopped(process)
    killed = llm_maker("run", "--duration", "1", "--json", home=tmp_path)
    assert "NOT ACTIVE (kill: killed by control socket)" in killed.stderr
    assert json.loads(killed.stdout.splitlines()[-1])["orders_placed"] == 0


def test_once_asks_quotes_and_leaves_nothing(tmp_path: Path):
    result = llm_maker("run", "--once", "--speed", "5", "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["decisions"] >= 1 and told["orders_placed"] > 0 and told["resting"] == []


def test_the_promised_result_has_every_field(tmp_path: Path):
    result = llm_maker("run", "--duration", "3", "--speed", "120", "--json", home=tmp_path)
    told = json.loads(result.stdout.splitlines()[-1])
    wanted = (
        "mode venue simulated seed frames decisions signals orders_placed orders_canceled fills pnl_usd pnl_exit_usd "
        "llm_cost_usd halts refusals first_quote_seconds speed_achieved"
    )
    assert set(wanted.split()) <= set(told)
    assert told["simulated"] is True and told["mode"] == "paper"
    for key in ("frames", "decisions", "signals", "orders_placed", "fills"):
        assert told[key] > 0, key
    for log in ("llm_decisions.jsonl", "executions.jsonl"):
        assert (tmp_path / "logs" / log).stat().st_size > 0
    with sqlite3.connect(tmp_path / "positions" / "ledger.sqlite3") as ledger:
        assert ledger.execute("SELECT count(*) FROM trades WHERE bot_name LIKE 'main@%'").fetchone()[0] == told["fills"]
    assert result.stderr.splitlines()[-7].startswith("earned from spread")
    assert result.stderr.splitlines()[-2].startswith("the model's worth so far")
    assert result.stderr.splitlines()[-1] == "stopped: proved that no order of ours rests"
    # Into one pipe, as a service manager has it: that line is still the last one.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    closing = [sys.executable, "-c", f"from llm_maker.cli import _closing; _closing({told!r}, False)"]
    shown = subprocess.run(closing, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    assert shown.startswith("earned from spread") and shown.splitlines()[-1].startswith("stopped: proved")
    # A terminal that was closed, or `| head`: nobody reads it, and the run was well all the same.
    reader, writer = os.pipe()
    os.close(reader)
    assert subprocess.run(closing, env=env, stdout=writer, stderr=writer, check=False).returncode == 0
    os.close(writer)


def test_help_loads_no_model_sdk(tmp_path: Path):
    sdks = "('openai', 'httpx2', 'genai_prices', 'anthropic')"
    code = f"import sys, llm_maker.cli, llm_maker.app; print([m for m in {sdks} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert llm_maker("--help", home=tmp_path).returncode == 0
    for verb in ("run", "backtest", "replay", "status", "markets", "why", "report", "pause", "flatten", "kill", "cancel-all"):
        assert "--help" in llm_maker(verb, "--help", home=tmp_path).stdout


def test_a_ledger_that_cannot_be_written_costs_no_word_of_the_run_and_the_next_start_mends_it(tmp_path: Path, monkeypatch):
    def full(self: Ledger, connection: sqlite3.Connection, group: list[object]) -> None:
        self._fail(f"{self.path}: the disk is full")

    def ran(until: int) -> tuple[Result, dict[str, Any], list[int]]:
        small = {"LLM_MAKER__LOGGING__JOURNAL_MAX_MB": "0.05", "LLM_MAKER__LOGGING__JOURNAL_TOTAL_MB": "0.2"}
        told = CliRunner().invoke(
            app,
            ["run", "--home", str(tmp_path), "--speed", "0", "--until", str(until), "--json"],
            env=small,
            catch_exceptions=False,
        )
        found = sorted((tmp_path / "logs" / "journal").rglob("journal-main-*"), key=first_seq_of)
        return told, json.loads(told.stdout.splitlines()[-1]), [first_seq_of(path) for path in found]

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_commit", full)
        told, result, starts = ran(300)
    assert told.exit_code == 1 and "the disk is full" in told.stderr and "Traceback" not in told.output
    before = result["fills"]
    assert result["clean_stop"] is True and before > 0, "how it ended is told all the same"
    assert starts[0] == 1 and len(starts) > 3, "the ledger lacks everything: the journal keeps it, above its cap"

    told, result, starts = ran(60)
    assert told.exit_code == 0 and result["clean_stop"] is True, told.output
    with closing(sqlite3.connect(tmp_path / "positions" / "ledger.sqlite3")) as ledger:
        ((fills,),) = ledger.execute("SELECT COUNT(*) FROM fills WHERE account = 'main'").fetchall()
    assert fills == before + result["fills"]
    assert starts[0] > 1, "and what it has may go again"
