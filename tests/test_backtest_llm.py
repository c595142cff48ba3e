"""Backtests with models: asked once over sockets, recorded, played again exactly and for nothing; what is missing is said."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_maker import cli, lab
from llm_maker.config import load
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.lab import replay as prove
from llm_maker.llm.cassette import HEADER, MISSING, CassetteError, Writer
from llm_maker.llm.offline import Outside
from llm_maker.llm.playback import Wanted
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.tape import TapeWriter
from tests.fakes.models import THROWAWAY_KEY, ModelServer
from tests.fakes.models import signal as fake_signal

ROOT = Path(__file__).parents[1]
TAPE = "tapes/polymarket_nhl_20260607_0130.jsonl.zst"
T0 = 1_780_795_800 * NS_PER_S  # 2026-06-07
TOKENS = ("1" * 40, "2" * 40)
HEADER_OF_TAPE = {
    "tape": 1,
    "venue": "polymarket",
    "instruments": [
        {
            "condition_id": "0x" + "ab" * 32,
            "token_ids": TOKENS,
            "outcomes": ["Yes", "No"],
            "question": "Will it rain in Oslo on Friday?",
            "tick_size": "0.01",
            "min_order_size": "5",
            "neg_risk": False,
            "fee_rate": "0",
            "rules": "YES if the gauge at the airport says so.",
        }
    ],
}


def make_tape(path, seconds=240, seed=5, at=T0):
    """A market that walks a tick now and then, told as whole books, with a print behind each."""
    dice, tape, cents = random.Random(seed), TapeWriter(path, HEADER_OF_TAPE), 48
    for second in range(seconds):
        cents = min(70, max(30, cents + dice.choice((-1, 0, 0, 0, 0, 1))))
        now = at + second * NS_PER_S
        common = {"asset_id": TOKENS[0], "market": HEADER_OF_TAPE["instruments"][0]["condition_id"], "timestamp": str(now // 10**6)}
        levels = [[{"price": f"0.{cents + side * (1 + step)}", "size": "500"} for step in range(3)] for side in (-1, 1)]
        book = {"event_type": "book", "hash": "", "bids": levels[0], "asks": levels[1], **common}
        taker, price = dice.choice((("BUY", cents + 1), ("SELL", cents - 1)))
        trade = {
            "event_type": "last_trade_price",
            "price": f"0.{price}",
            "size": "700",
            "side": taker,
            "fee_rate_bps": "0",
            **common,
        }
        for frame in (book, trade):
            tape.write(now, json.dumps(frame).encode())
    tape.close()
    return path


def config_file(folder, port=1, **llm):
    """One model behind the fake server, as a person would configure it."""
    fields = {
        "provider": "openai_compatible",
        "model": "some-model",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "price_per_million_input_usd": 1,
        "price_per_million_output_usd": 10,
        "cutoff": "2026-01-31",
    } | llm
    path = folder / "config.yaml"
    plain = {
        "llm": {key: value for key, value in fields.items() if value is not None},
        "strategy": {"refresh_seconds": 30, "decision_interval": 30},
    }
    path.write_text(json.dumps(plain))
    return path


def run(tape, home, cassette, config, *, ask=False, env=None):
    """A backtest in this process."""
    wanted = Wanted(cassette, ask, Secrets(env or {}), config.parent)
    return lab.backtest(load(config, {}, {}), tape, home, "none", None, wanted)


def verb(*args):
    """The verb as it is typed: (exit code, what it said)."""
    done = CliRunner().invoke(cli.app, ["backtest", *map(str, args)])
    return done.exit_code, done.output.strip()


def decided(result):
    """What was sent and when, from the journal."""
    entries = read_journal(Path(result["journal"]))
    return [(entry.ts, entry.commands) for entry in entries if entry.commands]


def decisions(home):
    return [json.loads(line) for line in (home / "logs" / "backtest" / "llm_decisions.jsonl").read_text().splitlines()]


def lines_of(cassette):
    head, *lines = cassette.read_bytes().splitlines()
    assert head == HEADER
    return [json.loads(line) for line in lines]


def cassette_of(path, exchanges):
    path.write_bytes(b"\n".join([HEADER, *(json.dumps(one).encode() for one in exchanges), b""]))
    return path


@pytest.fixture(scope="module")
def server():
    """The fake model server on a thread of its own."""
    ready, over = threading.Event(), []

    async def serve():
        stop = asyncio.Event()
        async with ModelServer() as running:
            over.extend((running, stop, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(10)
    running, stop, loop = over
    yield running
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    assert running.violations == []


KEYS = {"OPENAI_API_KEY": THROWAWAY_KEY}


@pytest.fixture(scope="module")
def asked(server, tmp_path_factory):
    """A tape, a config, a cassette that was recorded by asking, and what that run said."""
    folder = tmp_path_factory.mktemp("asked")
    tape, config, cassette = make_tape(folder / "tape.jsonl"), config_file(folder, server.port), folder / "deep" / "one.cassette"
    server.fault = lambda seen: "500" if server.requests % 4 == 3 else None
    result = run(tape, folder, cassette, config, ask=True, env=KEYS)
    server.fault = None
    return folder, tape, config, cassette, result, list(server.bill)


def test_what_is_not_there_is_asked_recorded_and_paid_for(asked):
    _, _, _, cassette, result, bill = asked
    told = result["llm"]
    assert (told["played"], told["missing"]) == (0, 0) and told["asked"] == len(lines_of(cassette)) >= 8
    paid = sum(Decimal(row.input + 10 * row.output) / 10**6 for row in bill)
    assert told["cost_usd"] == float(paid) == result["llm_cost_usd"] > 0, "to the cent of the price table"
    assert {one["error"] for one in lines_of(cassette)} == {"", "overload"}, "failures are kept too"
    assert told["cycles"] == {"ok": result["decisions"]} and result["signals"] == result["decisions"] >= 6
    assert told["models"] == [{"name": "openai_compatible/some-model", "recorded_since": None}]
    assert "gauge at the airport" in lines_of(cassette)[0]["user"], "the rules of the tape's header are shown"
    assert result["signals_from"] == "models asked, and cassette" and result["fills"] > 0


def test_no_key_is_in_anything_that_was_written(asked):
    folder = asked[0]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 5 and not [path for path in files if THROWAWAY_KEY.encode() in path.read_bytes()]


def test_played_twice_is_the_same_to_the_byte_and_free(asked, tmp_path):
    _, tape, config, cassette, first, _ = asked
    before = decided(first)  # the run that asked
    kept = cassette.read_bytes()
    one, two = (run(tape, tmp_path / name, cassette, config) for name in ("one", "two"))
    assert one["journal_sha256"] == two["journal_sha256"] and one["journal"] != two["journal"]
    assert (tmp_path / "one/logs/backtest/llm_decisions.jsonl").read_bytes() == (
        tmp_path / "two/logs/backtest/llm_decisions.jsonl"
    ).read_bytes()
    assert decided(one) == before, "and as it was when it was asked, to the nanosecond"
    told = one["llm"]
    assert (told["played"], told["asked"], told["missing"], told["cost_usd"]) == (first["llm"]["asked"], 0, 0, 0.0)
    assert one["llm_cost_usd"] == 0 and told["cycles"] == first["llm"]["cycles"] and told["models"][0]["recorded_since"]
    assert cassette.read_bytes() == kept, "playing leaves a cassette as it is"
    assert prove(Path(one["journal"]))["proved"]
    for line in decisions(tmp_path / "one"):
        assert line["simulated"] is True and line["mode"] == "paper" and line["tokens"]["input"] > 0 and line["latency_ms"] > 0


def test_a_process_of_its_own_plays_the_same_and_loads_no_sdk(asked, tmp_path):
    _, tape, config, cassette, _, _ = asked
    here = run(tape, tmp_path / "here", cassette, config)
    arguments = ["backtest", "--tape", tape, "--home", tmp_path / "there", "--config", config, "--cassette", cassette, "--json"]
    script = f"""
import sys
from llm_maker.cli import app
try:
    app({list(map(str, arguments))!r})
except SystemExit as end:
    loaded = [name for name in ("openai", "anthropic", "google.genai") if name in sys.modules]
    sys.exit(f"loaded {{loaded}}" if loaded else end.code)
"""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | {"PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["journal_sha256"] == here["journal_sha256"]


def test_what_is_missing_is_counted_and_said_and_never_a_silent_hold(asked, tmp_path):
    _, tape, config, cassette, _, _ = asked
    exchanges = lines_of(cassette)
    some = cassette_of(tmp_path / "some", exchanges[:4])
    result = run(tape, tmp_path / "home", some, config)
    told = result["llm"]
    assert told["played"] == 4 and told["missing"] > 0 and told["cycles"]["refusal"] == told["missing"] == result["failures"]
    silent = [line for line in decisions(tmp_path / "home") if line["outcome"] == "refusal"]
    assert len(silent) == told["missing"] and all(MISSING in line["note"] for line in silent)
    said = "\n".join(lab.backtest_lines(result))
    assert f"!! {told['missing']} questions are not on the cassette" in said and result["fallbacks"] == 1


def test_only_what_is_missing_is_asked(asked, server, tmp_path):
    _, tape, config, cassette, first, _ = asked
    exchanges = lines_of(cassette)
    most = cassette_of(tmp_path / "most", exchanges[:-1])
    result = run(tape, tmp_path / "home", most, config, ask=True, env=KEYS)
    assert (result["llm"]["played"], result["llm"]["asked"]) == (len(exchanges) - 1, 1)
    assert len(lines_of(most)) == len(exchanges) and 0 < result["llm"]["cost_usd"] < first["llm"]["cost_usd"]
    again = run(tape, tmp_path / "home", most, config)
    assert (again["llm"]["played"], again["llm"]["missing"]) == (len(exchanges), 0)


def test_the_budget_is_for_the_whole_backtest(asked, server, tmp_path):
    """A tape over midnight, where a daily budget would begin anew."""
    midnight = -(-T0 // (86_400 * NS_PER_S)) * 86_400 * NS_PER_S
    tape = make_tape(tmp_path / "tape.jsonl", at=midnight - 120 * NS_PER_S)
    config = config_file(tmp_path, server.port, daily_budget_usd=0.0525, max_output_tokens=4_000)
    result = run(tape, tmp_path, tmp_path / "c", config, ask=True, env=KEYS)
    told = result["llm"]
    assert 0 < told["cost_usd"] <= 0.0525 and told["cycles"]["budget"] >= 3 and 2 <= told["asked"] == told["cycles"]["ok"]
    last = decisions(tmp_path)[-1]
    assert "budget of this backtest spent" in "".join(line["note"] for line in decisions(tmp_path)) and last["outcome"] != "ok"


def test_an_ensemble_is_played_each_member_its_own_part(server, tmp_path):
    tape = make_tape(tmp_path / "tape.jsonl")
    member = {"provider": "openai_compatible", "base_url": f"http://127.0.0.1:{server.port}/v1"}
    prices = {"price_per_million_input_usd": 1, "price_per_million_output_usd": 10}
    server.answer, plain = different, server.answer
    alone = dict.fromkeys(("provider", "model", "base_url", *prices))
    config = config_file(tmp_path, ensemble=[{**member, "model": name, **prices} for name in ("one", "two")], **alone)
    first = run(tape, tmp_path / "asked", tmp_path / "c", config, ask=True, env=KEYS)
    server.answer = plain
    again = run(tape, tmp_path / "played", tmp_path / "c", config)
    assert decided(again) == decided(first) and again["llm"]["played"] == first["llm"]["asked"] == 2 * first["decisions"] > 8
    assert [m["name"] for m in again["llm"]["models"]] == ["openai_compatible/one", "openai_compatible/two"]
    said = [[m["signals"][0]["p_yes"] for m in line["members"]] for line in decisions(tmp_path / "played")]
    assert said and all(pair == [0.2, 0.7] for pair in said)


def different(handles, seen):
    p_yes = 0.2 if seen.model == "one" else 0.7
    return {"signals": [fake_signal(handle, p_yes=p_yes, p_low=None, p_high=None) for handle in handles]}


def test_auto_plays_the_one_model_that_is_on_it(asked, tmp_path):
    _, tape, _, cassette, first, _ = asked
    config = config_file(tmp_path, provider="auto", model=None, base_url=None)
    assert decided(run(tape, tmp_path, cassette, config)) == decided(first)


# What is refused, and what is flagged.


@pytest.mark.parametrize(
    ("args", "llm", "said"),
    [
        (["--signals", "F", "--cassette", "C"], {}, "--signals F and --cassette exclude one another"),
        (["--signals", "F", "--ask", "--cassette", "C"], {}, "--signals F and --ask exclude one another"),
        (["--ask"], {}, "--ask records what it paid for: it goes with --cassette FILE, or llm.cassette"),
        (["--cassette", "no/such"], {}, "no/such: No such file"),
        (["--cassette", "TAPE"], {}, "not a cassette"),
        (["--cassette", "C"], {"model": "another"}, "nothing of openai_compatible/another is on the cassette: it holds"),
        (["--cassette", "C"], {"provider": "none"}, "llm.provider is 'none'"),
        (["--cassette", "EMPTY"], {"provider": "auto", "base_url": None}, "llm.provider is 'auto' and it holds no exchange"),
        (["--cassette", "C"], {"reserve": [{"provider": "openai_compatible", "model": "some-model", "base_url": "http://x/v1"}]},
         "openai_compatible/some-model is named more than once"),
        (["--cassette", "C", "--ask"], {"provider": "gemini", "base_url": None}, "Missing API key: GEMINI_API_KEY not set"),
        (["--cassette", "NEW", "--ask"], {"provider": "auto", "base_url": None}, "--ask needs a model: rules only: no model key"),
        (["--cassette", "C"], {"prompts_dir": "nowhere", "prompts": ["own"]}, "llm.prompts_dir"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_all_as_it_was(asked, tmp_path, args, llm, said):
    _, tape, _, cassette, _, _ = asked
    (tmp_path / "logs" / "backtest").mkdir(parents=True)
    (tmp_path / "logs" / "backtest" / "earlier").touch()
    named = {"C": cassette, "TAPE": tape, "EMPTY": cassette_of(tmp_path / "empty", []), "NEW": tmp_path / "new"}
    kept = cassette.read_bytes()
    config = config_file(tmp_path, **llm)
    code, output = verb("--tape", tape, "--home", tmp_path, "--config", config, *(named.get(arg, arg) for arg in args))
    assert (code, said in output) == (2, True) and len(output.splitlines()) == 1, output
    assert (tmp_path / "logs" / "backtest" / "earlier").exists(), "an earlier backtest is still there"
    assert cassette.read_bytes() == kept and not (tmp_path / "new").exists() and not threads()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "model"]


@pytest.mark.parametrize(
    ("cutoff", "flag"),
    [
        (
            "2026-06-30",
            "CONTAMINATED: trained on data up to 2026-06-30, and the tape begins on 2026-06-07",
        ),
        ("2026-06-06", None),
        (None, "its cut-off is not known (llm.cutoff)"),
    ],
)
def test_a_model_that_may_have_read_the_news_is_flagged_first(asked, tmp_path, cutoff, flag):
    _, tape, _, cassette, _, _ = asked
    config = config_file(tmp_path, cutoff=cutoff)
    code, output = verb("--tape", tape, "--home", tmp_path, "--config", config, "--cassette", cassette)
    first = output.splitlines()[0]
    assert code == 0 and first.startswith(f"!! openai_compatible/some-model: {flag}" if flag else "models: "), output
    assert "0 asked, 0 missing; the models cost 0.000000 USD in this run" in output


def test_a_known_cut_off_counts_where_it_is_later(tmp_path):
    from llm_maker.llm.playback import _cutoff, _plan

    assert _cutoff(_plan("xai", "grok-4.3"), None) == _cutoff(_plan("xai", "grok-4.3"), "2020-01-01") == "2025-12-31"
    assert _cutoff(_plan("xai", "grok-4.3"), "2026-02-01") == "2026-02-01" and _cutoff(_plan("gemini", None), None) is None


def test_a_full_disk_ends_it_at_once_and_what_was_paid_for_is_kept(server, tmp_path, monkeypatch):
    tape, config = make_tape(tmp_path / "tape.jsonl"), config_file(tmp_path, server.port)
    append, written = Writer.append, []

    def full(self, line):
        if len(written) == 2:
            raise CassetteError(f"{self._path}: the disk is full")
        written.append(line)
        append(self, line)

    monkeypatch.setattr(Writer, "append", full)
    with pytest.raises(OSError, match="the disk is full"):
        run(tape, tmp_path, tmp_path / "c", config, ask=True, env=KEYS)
    assert len(lines_of(tmp_path / "c")) == 2 and not threads()


@pytest.mark.timeout(60)
def test_an_interrupt_leaves_what_was_paid_for_and_nothing_running(server, tmp_path, monkeypatch):
    tape, config, paces = make_tape(tmp_path / "tape.jsonl"), config_file(tmp_path, server.port), []

    def interrupted(self):
        paces.append(1)
        if len(paces) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Outside, "_keep_pace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tape, tmp_path, tmp_path / "c", config, ask=True, env=KEYS)
    assert len(lines_of(tmp_path / "c")) == 2 and not threads()
    monkeypatch.undo()
    result = run(tape, tmp_path, tmp_path / "c", config, ask=True, env=KEYS)
    assert result["llm"]["played"] == 2 and result["llm"]["asked"] == result["decisions"] - 2, "it is gone on with"


@pytest.mark.shared
@pytest.mark.prove
@pytest.mark.timeout(0)
def test_the_real_tape_is_played_the_same_twice(shared, server, tmp_path):
    config, cassette = config_file(tmp_path, server.port, max_requests_per_minute=1_000), tmp_path / "c"
    asked = run(shared / TAPE, tmp_path / "asked", cassette, config, ask=True, env=KEYS)
    one, two = (run(shared / TAPE, tmp_path / name, cassette, config) for name in ("one", "two"))
    print({key: one[key] for key in ("journal_sha256", "signals", "fills", "frames_per_second")}, one["llm"], asked["llm"])
    assert one["journal_sha256"] == two["journal_sha256"] and one["llm"]["missing"] == 0 and one["llm_cost_usd"] == 0
    assert decided(one) == decided(asked) and one["llm"]["played"] == asked["llm"]["asked"] > 20 and one["signals"] > 20
