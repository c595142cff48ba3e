"""Backtests with models: asked once over sockets, recorded, played again exactly and for nothing; what is missing is said."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llm_maker.core.values import NS_PER_S
from llm_maker.llm.cassette import HEADER
from llm_maker.runtime.tape import TapeWriter
from tests.fakes.models import THROWAWAY_KEY, ModelServer

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


def make_tape(path, seconds=240, seed=5):
    """A market that walks a tick now and then, told as whole books, with a print behind each."""
    dice, tape, cents = random.Random(seed), TapeWriter(path, HEADER_OF_TAPE), 48
    for second in range(seconds):
        cents = min(70, max(30, cents + dice.choice((-1, 0, 0, 0, 0, 1))))
        now = T0 + second * NS_PER_S
        common = {"asset_id": TOKENS[0], "market": HEADER_OF_TAPE["instruments"][0]["condition_id"], "timestamp": str(now // 10**6)}
        levels = [[{"price": f"0.{cents + side * (1 + step)}", "size": "500"} for step in range(3)] for side in (-1, 1)]
        book = {"event_type": "book", "hash": "", "bids": levels[0], "asks": levels[1], **common}
        taker, price = dice.choice((("BUY", cents + 1), ("SELL", cents - 1)))
        trade = {"event_type": "last_trade_price", "price": f"0.{price}", "size": "700", "side": taker, "fee_rate_bps": "0", **common}
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
    plain = {"llm": fields, "strategy": {"refresh_seconds": 30, "decision_interval": 30}}
    path.write_text(json.dumps(plain))
    return path


def backtest(tape, home, *args, config, code=0, hash_seed="0", key=None):
    """The verb in a process of its own: its JSON, or its line."""
    command = [sys.executable, "-m", "llm_maker", "backtest", "--tape", str(tape), "--home", str(home), "--config", str(config)]
    env = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | {"PYTHONHASHSEED": hash_seed}
    env |= {} if key is None else {"OPENAI_API_KEY": key}
    wanted = [*command, *map(str, args), *(["--json"] if code == 0 else [])]
    done = subprocess.run(wanted, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if code == 0 else done.stderr.strip()


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


@pytest.fixture(scope="module")
def asked(server, tmp_path_factory):
    """A tape, a config, a cassette that was recorded by asking, and what that run said."""
    folder = tmp_path_factory.mktemp("asked")
    tape, config, cassette = make_tape(folder / "tape.jsonl"), config_file(folder, server.port), folder / "deep" / "one.cassette"
    server.fault = lambda seen: "503" if server.requests % 4 == 3 else None
    result = backtest(tape, folder, "--cassette", cassette, "--ask", config=config, key=THROWAWAY_KEY)
    server.fault = None
    return folder, tape, config, cassette, result


def test_asked(server, asked):
    folder, _, _, cassette, result = asked
    print(json.dumps(result["llm"], indent=1))
    print(result["signals"], result["fills"], result["llm_cost_usd"])
