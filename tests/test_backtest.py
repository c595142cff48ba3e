"""Backtests: the recorded tape against an independent reading of it, the golden simulated journal, recorded signals."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import zstandard

from llm_maker.core.agenda import brief, portfolio
from llm_maker.core.commands import CancelOrder, PlaceOrder, RequestSignals
from llm_maker.core.events import InstrumentListed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.lab import replay as prove
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.replay import engine_from
from llm_maker.runtime.signals_file import SignalsFile
from llm_maker.runtime.tape import TapeError
from tests.core import builders as b
from tests.runtime.world import STRATEGIES, World

ROOT = Path(__file__).parents[1]
TAPE = "tapes/polymarket_nhl_20260607_0130.jsonl.zst"
GOLDEN = Path(__file__).parent / "golden" / "simulated_journal.jsonl"
GOLDEN_SECONDS = 45


def run_backtest(tape, home, hash_seed="0", *args):
    """The verb in a process of its own; its JSON."""
    command = [sys.executable, "-m", "llm_maker", "backtest", "--tape", str(tape), "--home", str(home), "--json", *args]
    env = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def twice(tmp_path_factory):
    """The real tape under two hash seeds in two folders; skipped where it is absent."""
    folder = Path(os.environ.get("LLM_MAKER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    tape = folder / TAPE
    if not tape.exists():
        pytest.skip(f"no recorded tape at {tape}")
    homes = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two") / "deeper"]
    return tape, [run_backtest(tape, home, seed) for home, seed in zip(homes, ("1", "77"), strict=True)]


def told_tops(tape):
    """Token -> the venue's last told (bid, ask), read from the raw frames with json alone; None for an empty side."""
    last = {}
    with tape.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode()
    for line in text.splitlines()[1:]:
        frame = json.loads(line)["frame"]
        for message in frame if isinstance(frame, list) else [frame]:
            if message["event_type"] == "price_change":
                for change in message["price_changes"]:
                    last[change["asset_id"]] = (float(change["best_bid"]), float(change["best_ask"]))
            elif message["event_type"] == "book":
                bids, asks = ([float(level["price"]) for level in message[side]] for side in ("bids", "asks"))
                last[message["asset_id"]] = (max(bids, default=0.0), min(asks, default=1.0))
    return {token: (bid or None, ask if 0 < ask < 1 else None) for token, (bid, ask) in last.items()}


def test_every_frame_of_the_tape_is_understood(twice):
    for result in twice[1]:
        assert (result["frames"], result["malformed"], result["gaps"], result["truncated"]) == (97742, 0, 0, None)
        assert result["clean_stop"] is True and result["halts"] == 0
        assert result["resolution_guard"].startswith("off"), "the tape tells no end, and the report says so"
        assert result["frames_per_second"] > 0 and result["decode_only_frames_per_second"] > 0


def test_the_last_top_of_every_token_is_the_venues(twice):
    tape, (result, _) = twice
    told = told_tops(tape)
    assert len(told) == 12
    ours = {token: (top["best_bid"], top["best_ask"]) for token, top in result["tops"].items()}
    assert set(ours) == set(told)
    for token, (bid, ask) in told.items():
        assert ours[token] == (pytest.approx(bid) if bid else None, pytest.approx(ask) if ask else None), token


def test_the_bands_are_monotone(twice):
    bands = twice[1][0]["bands"]
    quantities = [bands[name]["qty"] for name in ("pessimistic", "realistic", "optimistic")]
    assert quantities == sorted(quantities)
    result = twice[1][0]
    assert bands["realistic"]["fills"] == result["fills"]
    assert result["fills"] > 0 or result["refusals"], "few fills are an answer if the report says why"


def test_two_runs_write_equal_bytes_whatever_folder_and_hash_seed(twice):
    one, two = twice[1]
    assert one["journal_sha256"] == two["journal_sha256"] and one["journal"] != two["journal"]
    assert Path(one["journal"]).read_bytes() == Path(two["journal"]).read_bytes()
    same = ("fills", "orders_placed", "orders_canceled", "pnl_usd", "pnl_exit_usd", "bands", "refusals", "tops")
    assert [one[k] for k in same] == [two[k] for k in same]


def test_the_journal_of_a_backtest_replays(twice):
    found = prove(Path(twice[1][0]["journal"]))
    assert found["proved"] and found["entries"] > 97_742


# The golden journal. A changed golden is read line by line in review; to make it anew: python -m tests.test_backtest


def make_golden(path):
    """A short simulated run with fills; few markets, so that it stays small."""
    world = World(seed=11, markets=2, activity=400.0)
    folder = path.parent / "draft"
    account = world.run(folder, GOLDEN_SECONDS)
    account.journal.path.replace(path)
    folder.rmdir()
    return world


def integers(command):
    """What of a command is compared between machines: its kind and its integers."""
    if isinstance(command, PlaceOrder):
        return ("PlaceOrder", command.order_id, int(command.side), command.leg.value, command.price, command.qty)
    return (type(command).__name__, command.order_id) if isinstance(command, CancelOrder) else (type(command).__name__,)


def test_the_golden_journal_is_decided_the_same_today():
    assert GOLDEN.stat().st_size < 200_000
    reader = read_journal(GOLDEN)
    engine = engine_from(reader.header, STRATEGIES)
    placed = 0
    for entry in reader:
        made = engine.on_event(entry.ts, entry.event)
        assert [integers(c) for c in made] == [integers(c) for c in entry.commands], f"sequence {entry.seq}"
        placed += sum(isinstance(c, PlaceOrder) for c in made)
    assert reader.torn is None and placed > 5 and engine.state.counts.fills > 0


# Recorded signals.


def decision(at_ms, *signals, decision_id="D-1"):
    stamp = datetime.fromtimestamp(b.T0 // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms:03d}Z"
    fields = {"confidence": 0.9, "directional_bias": "bullish", "p_yes": 0.6, "weight": 0.1, "question": "?"}
    return {
        "timestamp": stamp,
        "decision_id": decision_id,
        "model": "m",
        "prompt_version": "v",
        "signals": [{"market_id": market, "action": action, **fields} for market, action in signals],
    }


def signals_file(tmp_path, *decisions):
    path = tmp_path / "llm_decisions.jsonl"
    path.write_text("".join(json.dumps(d) + "\n" for d in decisions))
    return SignalsFile(path)


def ask(source, at_ms, *markets):
    world = World()
    engine = world.engine
    for name in markets:
        engine.on_event(engine.state.now, InstrumentListed(b.binary(name)))
    briefs = tuple(brief(engine.state, engine.state.markets[name], 0) for name in markets)
    now = b.T0 + at_ms * NS_PER_MS
    source.execute(now, RequestSignals("1-r1", briefs, portfolio(engine.state), "interval"))
    assert source.next_ns() == now
    (event,) = source.advance(now)
    assert source.next_ns() is None
    return {s.market_id: s.action.value for s in event.signals} if isinstance(event, SignalsReceived) else event


BUSY = SignalsSkipped("1-r1", "busy")


def test_a_recorded_signal_is_never_heard_before_its_time(tmp_path):
    source = signals_file(tmp_path, decision(500, ("a", "buy_yes")))
    assert ask(source, 499, "a") == BUSY
    assert ask(source, 500, "a") == BUSY, "the log cuts microseconds: it may have come later in this millisecond"
    assert ask(source, 501, "a") == {"a": "buy_yes"}


def test_a_recorded_signal_is_given_once_and_only_the_newest(tmp_path):
    older, newer = decision(100, ("a", "buy_yes"), ("b", "hold")), decision(200, ("a", "sell_yes"), decision_id="D-2")
    source = signals_file(tmp_path, older, newer)
    assert ask(source, 300, "a") == {"a": "sell_yes"}
    assert ask(source, 400, "a") == BUSY
    assert ask(source, 500, "a", "b") == {"b": "hold"}, "who was not asked keeps his"


def test_a_market_asked_again_hears_the_next_one(tmp_path):
    source = signals_file(tmp_path, decision(100, ("a", "buy_yes")), decision(300, ("a", "exit"), decision_id="D-2"))
    assert ask(source, 200, "a") == {"a": "buy_yes"}
    again = signals_file(tmp_path, decision(100, ("a", "buy_yes")), decision(300, ("a", "exit"), decision_id="D-2"))
    again.restore(source.checkpoint())
    assert ask(again, 250, "a") == BUSY and ask(again, 400, "a") == {"a": "exit"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1"),
        ('{"timestamp": "yesterday", "signals": []}', "line 1"),
        ('{"timestamp": "2026-01-01T00:00:00", "decision_id": "D", "model": "", "prompt_version": "", "signals": []}', "line 1"),
        (json.dumps(decision(1, ("a", "buy_everything"))), "buy_everything"),
        (json.dumps(decision(1)) + "\n[]", "line 2"),
    ],
)
def test_a_damaged_signals_file_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "signals.jsonl"
    path.write_text(text)
    with pytest.raises(TapeError, match=said):
        SignalsFile(path)


def test_no_signals_file_is_said_in_one_line(tmp_path):
    with pytest.raises(TapeError, match="no such signals file"):
        SignalsFile(tmp_path / "none.jsonl")


if __name__ == "__main__":
    made = make_golden(GOLDEN)
    counts = msgspec.to_builtins(made.engine.state.counts)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes, {counts}")
