"""A whole daemon in a process of its own against the fake venue in a thread of ours: started, killed, stopped, looked into."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from llm_maker.app import STRATEGIES
from llm_maker.console.control import ControlClient, NotRunning
from llm_maker.core.orders import Order
from llm_maker.core.state import State
from llm_maker.runtime.journal import Entry
from llm_maker.runtime.journal import files as journal_files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.replay import compare, engine_from
from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.server import Background, FakePolymarket
from tests.fakes.polymarket.setup import THROWAWAY_KEY, some_house, throwaway_account

ROOT = Path(__file__).resolve().parents[2]
SHARE = 1_000_000
_NOISE = re.compile(r"unclosed|was destroyed|never (retrieved|awaited)|ResourceWarning|Traceback|Exception ignored", re.IGNORECASE)


class Rehearsal:
    """One venue, one account, one home; the daemon comes and goes."""

    def __init__(
        self, home: Path, seed: int, speed: float, *, markets: int = 3, kind: int = 0, mode: str = "live", **settings: Any
    ) -> None:
        """`settings`: sections of the config, laid over those of `_config` key by key."""
        self.home, self.seed, self.speed, self.mode = home, seed, speed, mode
        now_ms = time.time_ns() // 1_000_000
        self.account = throwaway_account(kind)
        house = some_house(seed, markets=markets, now_ms=now_ms, accounts=[self.account])
        # The rule that the program books by: the venue's own is not known to the last unit.
        house.fee_rounding = "ROUND_UP"
        self.faults = Faults(seed)
        self.venue = FakePolymarket(house, self.faults, speed=speed, anchor_ms=now_ms)
        self.watch = Watch(self.venue, self.account)
        self.background = Background(self.venue)
        self.process: subprocess.Popen[str] | None = None
        self.settings = settings
        self.output: list[str] = []

    def __enter__(self) -> Rehearsal:
        self.background.__enter__()
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config.yaml").write_text(yaml.safe_dump(self._config()))
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self.background.__exit__(None, None, None)

    def _config(self) -> dict[str, Any]:
        """Everything in venue seconds but what this machine's own pauses make: those are as many times longer."""
        slack = max(1.0, self.speed)
        config = {
            "venue": "polymarket",
            "mode": self.mode,
            "llm": {"provider": "none"},
            "market_selection": {"max_markets": 20},
            "strategy": {"base_position_size": 10, "max_position_size": 60, "quoting": "touch"},
            "execution": {"min_liquidity_threshold": 1, "merge_min_sets": 10},
            "live": {"max_markets": 20, "max_order_shares": 10, "max_position_shares": 60, "daily_loss_usd": 5_000},
            "risk": {
                "bankroll_usd": 5_000,
                "max_feed_lag_ms": int(min(600_000, 1_000 * slack)),
                "max_loop_delay_ms": int(min(600_000, 250 * slack)),
                "max_silence_seconds": max(10.0, 1.0 * slack),
                "jump_cooldown_seconds": 5,
                "stop_cooldown_seconds": 20,
                "repeated_stop_cooldown_seconds": 60,
                "exit_patience_seconds": 30,
            },
            "polymarket": {
                "hosts": self.venue.hosts,
                "request_timeout_seconds": min(60.0, max(5.0, 1.0 * slack)),
                "discovery_minutes": 2,
                "reconnect_minutes": 10,
            },
        }
        for name, section in self.settings.items():
            config[name] = {**config.get(name, {}), **section} if isinstance(section, dict) else section
        return config

    # The daemon.

    def _env(self) -> dict[str, str]:
        """The account's key where there is one to trade with; with paper money there is none, and what leaks is told."""
        keys = {"LLM_MAKER_PK": THROWAWAY_KEY, "LLM_MAKER_BROWSER_ADDRESS": self.account.maker} if self.mode == "live" else {}
        told = {"XDG_STATE_HOME": str(self.home / "state"), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default::ResourceWarning"}
        return {**os.environ, **keys, **told}

    def start(self, *args: str, verb: tuple[str, ...] = ("run", "--yes")) -> None:
        command = [sys.executable, "-m", "llm_maker", *verb, "--speed", str(self.speed), "--json", *args]
        with (self.home / "stderr.txt").open("a") as errors:
            self.process = subprocess.Popen(
                command, cwd=self.home, env=self._env(), stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
            )

    def verb(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Another verb of the program on this home, to its end."""
        command = [sys.executable, "-m", "llm_maker", *args]
        return subprocess.run(command, cwd=self.home, env=self._env(), capture_output=True, text=True, timeout=60, check=False)

    def kill(self) -> None:
        """As the power goes: no word, no time."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, wait_s: float = 60.0) -> dict[str, Any]:
        """In order, by Ctrl-C; the run's own result."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=wait_s)
        lines = out.strip().splitlines()
        assert lines, f"exit {self.process.returncode}: {self.errors()[-2000:]}"
        assert not self.noise(), self.noise()
        result: dict[str, Any] = json.loads(lines[-1])
        result["exit_code"] = self.process.returncode
        return result

    def errors(self) -> str:
        return (self.home / "stderr.txt").read_text()

    def noise(self) -> list[str]:
        """Lines on stderr of what was left open or not waited for, and of faults nobody caught."""
        return [line for line in self.errors().splitlines() if _NOISE.search(line)]

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, venue_seconds: float) -> None:
        """So many venue seconds; a daemon that ends meanwhile is told at once."""
        until = time.monotonic() + venue_seconds / self.speed
        while time.monotonic() < until:
            assert self.process is None or self.alive(), f"the daemon ended: {self.errors()[-3000:]}"
            time.sleep(0.02)

    def status(self) -> dict[str, Any] | None:
        """What the daemon answers; None while nobody listens."""
        try:
            return ControlClient.call(self.home, "status")
        except NotRunning:
            return None

    def until(self, what: Callable[[dict[str, Any]], Any], venue_seconds: float = 120.0) -> dict[str, Any]:
        """The first status of which `what` is true; fails with the last after so many venue seconds (10 of the wall at least)."""
        end = time.monotonic() + max(10.0, venue_seconds / self.speed)
        while True:
            assert self.alive(), f"the daemon ended: {self.errors()[-3000:]}"
            status = self.status()
            if status is not None and what(status):
                return status
            assert time.monotonic() < end, f"not so after {venue_seconds:g}s: {json.dumps(status)}\n{self.errors()[-3000:]}"
            time.sleep(0.01)

    def trades(self, more: int = 1, venue_seconds: float = 600.0) -> None:
        """Until the venue has taken so many more orders of ours: a busy machine is slow to start a daemon."""
        before = self.watch.accepted
        self.until(lambda status: self.watch.accepted >= before + more, venue_seconds)

    # What is known at the end.

    def foreign(self) -> dict[str, Decimal]:
        """Shares by token that no order of the program made: granted from outside, or bought by somebody else's order."""
        found: dict[str, Decimal] = dict(self.watch.granted)
        for fill in self.truth()["fills"]:
            if fill["order"] not in self.watch.sent and fill["status"] != "FAILED":
                sign = 1 if fill["side"] == "BUY" else -1
                found[fill["token"]] = found.get(fill["token"], Decimal(0)) + sign * fill["size"]
        return found

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = self.background.call(self.venue.house.truth, self.account)
        return found

    def check(self) -> None:
        """The venue's own books add up, and no rule of ours was broken on its side."""
        self.background.call(self.venue.house.check)
        assert not self.watch.faults, self.watch.faults

    @property
    def journal(self) -> Path:
        """The folder of the account's journal."""
        return next((self.home / "logs" / "journal").glob(f"polymarket-{self.mode}-*"))

    def entries(self) -> list[Entry]:
        """Everything that was journalled, oldest first."""
        return [entry for path in journal_files(self.journal, "main") for entry in read_journal(path)]

    def state(self) -> State:
        """The account as its journal has it; on the way every command is proved to be the one recorded."""
        reader = read_journal(journal_files(self.journal, "main")[-1])
        engine = engine_from(reader.header, STRATEGIES)
        for entry in reader:
            compare(entry, engine.on_event(entry.ts, entry.event))
        return engine.state


class Watch:
    """Stands at the venue's door: every order of the account that is taken, beside those that rest there already."""

    def __init__(self, venue: FakePolymarket, account: Any) -> None:
        self.faults: list[str] = []
        self.sent: Counter[str] = Counter()
        self.accepted = 0
        self.granted: dict[str, Decimal] = {}
        house, submit, grant = venue.house, venue.house.submit, venue.house.grant

        def granting(who: Any, token: str | None, amount: Decimal) -> None:
            if token is not None:
                self.granted[token] = self.granted.get(token, Decimal(0)) + amount
            grant(who, token, amount)

        self.withdrawn: list[str] = []
        """Orders that the account itself has canceled."""
        cancel = house.cancel

        def canceling(who: Any, ids: Any, now_ms: int) -> Any:
            done = cancel(who, ids, now_ms)
            self.withdrawn += done[0] if who is account else []
            return done

        silence = house.cancel_all

        def falling_silent(*args: Any, **named: Any) -> Any:
            """The venue's own word, which takes everything under the key, ours or not."""
            before = len(self.withdrawn)
            done = silence(*args, **named)
            del self.withdrawn[before:]
            return done

        house.grant, house.cancel, house.cancel_all = granting, canceling, falling_silent

        def watched(who: Any, fields: Any, now_ms: int) -> Any:
            if who is not account or fields.id.startswith(f"0x{now_ms:032x}"):
                return submit(who, fields, now_ms)
            self.sent[fields.id] += 1
            market = house._of_token.get(fields.token_id)
            bids = (fields.side == "BUY") is (market is not None and fields.token_id == market.yes)
            beside = []
            for row in house.open_orders(account):
                if market is not None and row["market"] == market.condition_id and self.sent[row["id"]]:
                    its = (row["side"] == "BUY") is (row["asset_id"] == market.yes)
                    beside += [row["id"]] if its is bids else []
            placed = submit(who, fields, now_ms)
            if placed.success:
                self.accepted += 1
                if beside:
                    self.faults.append(f"{now_ms}: {fields.id} beside {beside}: two of ours on one side")
            return placed

        house.submit = watched


def held(state: State) -> dict[str, int]:
    """Own shares by token, units."""
    found: dict[str, int] = {}
    for market in state.markets.values():
        if not market.instrument.token_ids:
            continue
        for token, leg in zip(market.instrument.token_ids, (market.position.yes, market.position.no), strict=True):
            found[token] = leg.settled + leg.pending
    return found


def live(state: State) -> list[Order]:
    return [order for order in state.orders.values() if order.is_live]


def units(amount: Decimal) -> int:
    return int(amount * SHARE)


def agree(state: State, truth: dict[str, Any], foreign: dict[str, Decimal]) -> None:
    """Position and cash of the ledger are the venue's, to the last unit; what others made is seen and is not ours.

    A merge that was on its way when the daemon stopped is still reserved in the ledger, and may be done at the venue.
    """
    ours, cash, seen = held(state), state.cash, {}
    for market in state.markets.values():
        legs = dict(zip(market.instrument.token_ids, (market.position.yes, market.position.no), strict=True))
        seen |= {token: leg.foreign for token, leg in legs.items()}
        on_its_way = [w.qty for w in state.works.values() if w.instrument == market.instrument.id and w.what == "merge"]
        assert sum(on_its_way) == market.position.yes.merging == market.position.no.merging
        for size in on_its_way:
            theirs = {token: units(truth["shares"].get(token, Decimal(0)) - foreign.get(token, Decimal(0))) for token in legs}
            if all(theirs[token] <= ours[token] - size for token in legs):
                cash += size
                ours |= {token: ours[token] - size for token in legs}
    for token, amount in truth["shares"].items():
        others = units(foreign.get(token, Decimal(0)))
        told = f"token {token[:8]}: ledger {ours.get(token, 0)}, foreign {seen.get(token, 0)}; venue {amount}, {others} of others"
        assert ours.get(token, 0) == units(amount) - others, told
        assert seen.get(token, 0) == others, told
    assert cash == units(truth["cash"]), f"cash: ledger {cash}, venue {units(truth['cash'])}"
