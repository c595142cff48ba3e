"""One live home over the fakes of venue and models, as the doctor finds it: whole, until a test breaks something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_maker import local_checkup
from llm_maker.checkup import Check
from llm_maker.config import Config, Hosts, Llm, Polymarket, Risk
from llm_maker.doctor import examine
from llm_maker.keys import Secrets
from llm_maker.round_trip import CONSENT, round_trip
from llm_maker.venues.net import Pace
from tests.fakes.models import ModelServer
from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.house import FakeAccount
from tests.fakes.polymarket.relayer import RELAYER_KEY
from tests.fakes.polymarket.server import FakePolymarket
from tests.fakes.polymarket.setup import THROWAWAY_KEY, some_house, throwaway_account

NOW_MS = 1_790_000_000_000
MODEL_KEY = "model-throwaway-key-1"  # marked: worth nothing anywhere
SPEED = 10.0
ALERT_URL = "json://127.0.0.1:9/throwaway-alert-path"  # marked: nobody listens there
EVERYTHING = [
    "config", "secrets", "home", "past", "disk", "control", "kill file", "python", "packages", "open files", "memory", "page port",
    "page keys", "logs", "core dumps", "user", "model", "risk", "budget", "twin", "alert urls", "signing", "clob", "clock",
    "version", "gamma", "data", "relayer", "node", "market socket", "user socket", "place", "key", "wallet", "contract", "api key",
    "standing", "orders", "money", "selling", "merges",
]  # fmt: skip


@dataclass
class Scene:
    venue: FakePolymarket
    account: FakeAccount
    home: Path
    config: Config
    env: dict[str, str]
    models: ModelServer
    skew_s: float = 0.0

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self.venue.now_ns() + int(self.skew_s * 1e9), SPEED)

    @property
    def market(self) -> str:
        return self.venue.markets[0].condition_id

    def hosts(self, limit_s: float = 5.0, **changes: str) -> None:
        hosts = Hosts(**(self.venue.hosts | changes))
        self.config = self.config.model_copy(update={"polymarket": Polymarket(hosts=hosts, request_timeout_seconds=limit_s)})

    async def look(self) -> dict[str, Check]:
        told: list[Check] = []
        found = await examine(
            self.config, Secrets(self.env), self.home, progress=told.append, pace=self.pace, env_file=self.home / ".env"
        )
        assert found == told and len({check.name for check in found}) == len(found)
        _spotless(found, self.env)
        return {check.name: check for check in found}

    async def trip(self, market: str = "", consent: str = CONSENT) -> dict[str, Check]:
        found = await round_trip(
            self.config, Secrets(self.env), market or self.market, consent=consent, progress=lambda check: None, pace=self.pace
        )
        _spotless(found, self.env)
        return {check.name: check for check in found}


def _spotless(found: list[Check], env: dict[str, str]) -> None:
    """No secret anywhere; every fault has a cure; everything is one line."""
    text = "\n".join(f"{check.name} {check.state} {check.text} {check.cure}" for check in found)
    for name, value in env.items():
        if name not in ("LLM_MAKER_BROWSER_ADDRESS", "LLM_MAKER_RELAYER_ADDRESS"):
            assert value not in text and value.removeprefix("0x") not in text, name
    account = throwaway_account()
    assert account.secret not in text and account.passphrase not in text
    for check in found:
        assert check.text and "\n" not in check.text + check.cure
        assert bool(check.cure) == (check.state in ("warning", "failed")), check


@asynccontextmanager
async def scene(tmp_path: Path, *, kind: int = 3, faults: Faults | None = None, **risk: Any) -> AsyncIterator[Scene]:
    account = throwaway_account(kind)
    house = some_house(markets=2, now_ms=NOW_MS, accounts=[account])
    models = ModelServer(key=MODEL_KEY, models=["gpt-6-luna"])
    async with models, FakePolymarket(house, faults, speed=SPEED, anchor_ms=NOW_MS) as venue:
        for _ in range(20):
            venue.step()
        (tmp_path / ".env").write_text("")
        (tmp_path / ".env").chmod(0o600)
        env = {
            "LLM_MAKER_PK": THROWAWAY_KEY,
            "LLM_MAKER_BROWSER_ADDRESS": account.maker,
            "LLM_MAKER_RELAYER_KEY": RELAYER_KEY,
            "LLM_MAKER_RELAYER_ADDRESS": account.signer,
            "OPENAI_API_KEY": MODEL_KEY,
            "LLM_MAKER_ALERT_URLS": ALERT_URL,
        }
        limits = Risk(bankroll_usd=risk.get("bankroll_usd", 200.0))
        config = Config(venue="polymarket", mode="live", risk=limits, llm=Llm(base_url=models.openai_url))
        at = Scene(venue, account, tmp_path, config, env, models)
        at.hosts()
        yield at


def fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing to complain of, whoever runs the tests and wherever."""
    core = local_checkup.resource.RLIMIT_CORE
    monkeypatch.setattr(local_checkup.os, "geteuid", lambda: 1_000)
    monkeypatch.setattr(local_checkup.resource, "getrlimit", lambda what: (0, 0) if what == core else (4_096, 4_096))
    monkeypatch.setattr(local_checkup, "_free_mb", lambda: 1_000.0)
    monkeypatch.setattr(local_checkup, "_bindable", lambda host, port: 0)
