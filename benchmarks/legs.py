"""The processes of a live measurement: the loopback venue, our whole daemon, the typical bot; started, heard and ended in order."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from benchmarks.rows import ROOT

KEY = "0x" + "11" * 32
ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
"""Throwaway, known to everybody."""
_PATIENCE_S = 120.0
_NO_BOT = "py-clob-client-v2 is not installed: pip install '.[bench]'"


def missing_bot() -> str:
    """Why the typical bot cannot run here; empty: it can."""
    return "" if importlib.util.find_spec("py_clob_client_v2") else _NO_BOT


class Venue:
    """The loopback venue's process: its port, its lines of JSON in order, and its last word at the end."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "benchmarks.loopback_venue", *args]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port: int = self.next()["port"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def next(self, patience_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Its next line."""
        limit = time.monotonic() + patience_s
        while time.monotonic() < limit:
            with contextlib.suppress(Empty):
                told: dict[str, Any] = json.loads(self._lines.get(timeout=0.2))
                assert "failed" not in told, told["failed"]
                return told
            assert self._process.poll() is None or not self._lines.empty(), "the loopback venue has ended"
        raise AssertionError(f"the loopback venue said nothing for {patience_s:g}s")

    def end(self) -> dict[str, Any]:
        """Close it; what it says of the whole run. An order that its maker did not sign makes every figure worthless."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        told = self.next()
        while "forged" not in told:
            told = self.next()
        self._process.wait(_PATIENCE_S)
        assert told["forged"] == 0, f"{told['forged']} of {told['orders']} orders were not signed by their maker's key"
        return told

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def venue(*args: str) -> Iterator[Venue]:
    standing = Venue(*args)
    try:
        yield standing
    finally:
        standing.kill()


def environment(**keys: object) -> dict[str, str]:
    """Ours without any key of a person's; `keys` are those of the config."""
    foreign = ("LLM_MAKER_", "PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) and not name.endswith("_API_KEY")}
    return {**kept, "PYTHONPATH": str(ROOT), **{f"LLM_MAKER__{name}": str(value) for name, value in keys.items()}}


def live_keys(port: int, markets: int) -> dict[str, object]:
    """Our config for the measurement: rules only, quotes at the touch, every feature on, no limit that would hide a latency.

    A tick away is off target (the shipped file lets such an order keep its place for two seconds), and the frames' wild moves
    are no jump and no storm.
    """
    http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
    hosts = {"CLOB": http, "GAMMA": f"{http}/gamma", "DATA": http, "RELAYER": http, "GEOBLOCK": http, "RPC": http}
    hosts |= {"WS_MARKET": f"{ws}/ws/market", "WS_USER": f"{ws}/ws/user"}
    return {
        "MODE": "live",
        "VENUE": "polymarket",
        "LLM__PROVIDER": "none",
        "MARKET_SELECTION__MAX_MARKETS": markets,
        "LIVE__MAX_MARKETS": markets,
        "STRATEGY__QUOTING": "touch",
        "EXECUTION__TICK_IMPROVEMENT": 0,
        "EXECUTION__REPRICE_TICKS": 0,
        "RISK__BANKROLL_USD": 1_000_000,
        "RISK__MAX_OPEN_POSITIONS": 5_000,
        "RISK__MESSAGES_PER_10S": 100_000,
        "RISK__JUMP_TICKS": 1_000,
        "RISK__VOLATILITY_WIDEN_RATIO": 999,
        "RISK__VOLATILITY_PULL_RATIO": 1_000,
        "POLYMARKET__ORDERS_PER_SECOND": 600,
        "POLYMARKET__CANCELS_PER_SECOND": 1_200,
        **{f"POLYMARKET__HOSTS__{name}": url for name, url in hosts.items()},
    }


@contextlib.contextmanager
def daemon(port: int, markets: int, home: Path, *, orderly: bool = True) -> Iterator[subprocess.Popen[str]]:
    """Our daemon, live on the loopback venue. Leaving stops it in order, with the proof that nothing rests; or just ends it."""
    home.mkdir(parents=True, exist_ok=True)
    secrets = {"LLM_MAKER_PK": KEY, "LLM_MAKER_BROWSER_ADDRESS": ADDRESS, "XDG_STATE_HOME": str(home)}
    command = [
        sys.executable,
        "-m",
        "llm_maker",
        "run",
        "--config",
        str(ROOT / "config.yaml"),
        "--home",
        str(home),
        "--yes",
        "--json",
    ]
    with (home / "said.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command,
            cwd=home,
            env={**environment(**live_keys(port, markets)), **secrets},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        yield process
        assert process.poll() is None, f"our daemon ended with exit {process.returncode}: see {said.name}"
        if not orderly:
            return
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=_PATIENCE_S)[0]
        words = (home / "said.txt").read_text(encoding="utf-8")[-2_000:]
        assert process.returncode == 0, f"our daemon ended with exit {process.returncode}: {words}"
        result = json.loads(told.splitlines()[-1])
        refused = [name for name in result["refusals"] if name.startswith("venue: ")]
        assert result["clean_stop"] and not refused, f"{refused} {words}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def typical_bot(port: int, markets: int, home: Path) -> Iterator[subprocess.Popen[str]]:
    """The other one; it ends with its input."""
    command = [sys.executable, "-m", "benchmarks.typical_bot", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
        assert process.poll() is None, "the typical bot broke"
    finally:
        process.kill()
        process.wait()
