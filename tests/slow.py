"""A daemon on the simulated market, asking fake model servers over real sockets; and what such a run leaves behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_maker import app
from llm_maker.config import load
from llm_maker.core.commands import RequestSignals
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.keys import KEY_OF, Secrets
from llm_maker.llm.providers import PROVIDERS
from llm_maker.runtime.journal import files
from llm_maker.runtime.journal_reader import JournalReader
from tests.fakes.models import THROWAWAY_KEY, ModelServer

KEYS = dict.fromkeys(KEY_OF.values(), THROWAWAY_KEY)
SMALL = {"paper.markets": 3}
"""As much of a market as a test of the slow loop needs."""
DECISION = {
    "timestamp", "decision_id", "model", "prompt_version", "num_signals", "signals", "portfolio_state", "reason", "latency_ms",
    "tokens", "cost_usd", "twin_difference_usd", "twin_interval_usd", "outcome", "note",
    "fallback", "signals_simulated", "signals_invalid", "members",
    "account", "venue", "mode", "simulated",
}  # fmt: skip
"""The keys of every line of llm_decisions.jsonl."""


@dataclass
class Run:
    """One run that has ended, its files closed."""

    home: Path
    daemon: app.Daemon

    def lines(self, name: str = "llm_decisions") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "logs" / f"{name}.jsonl").read_text().splitlines()]

    @property
    def answered(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["outcome"] == "ok"]

    @property
    def said(self) -> list[str]:
        """What daemon.jsonl says, in order."""
        return [line["text"] for line in self.lines("daemon")]

    def events(self, kind: type[Any]) -> list[Any]:
        """Of the journal, in order."""
        journals = files(self.daemon.account.journal.path.parent, self.daemon.config.account)
        entries = (entry for path in journals for entry in JournalReader(path))
        return [entry.event for entry in entries if isinstance(entry.event, kind)]

    @property
    def unanswered(self) -> int:
        """Requests that the end of the run cut off: the server has seen them, and nobody waits for their answers."""
        journals = files(self.daemon.account.journal.path.parent, self.daemon.config.account)
        entries = [entry for path in journals for entry in JournalReader(path)]
        asked = sum(isinstance(command, RequestSignals) for entry in entries for command in entry.commands)
        return asked - sum(isinstance(entry.event, SignalsReceived | SignalsFailed | SignalsSkipped) for entry in entries)

    def kept(self, key: str) -> Any:
        """A value of the ledger's risk state."""
        from llm_maker.runtime.ledger import Ledger

        ledger = Ledger.open(self.home / "positions" / "ledger.sqlite3")
        try:
            return ledger.risk_state(self.daemon.scope).get(key)
        finally:
            ledger.close()


def named(provider: str, server: ModelServer, **more: Any) -> dict[str, Any]:
    """One model of an ensemble, of the reserve or of the news, at the fake."""
    return {"provider": provider, "base_url": server.base_url(PROVIDERS[provider].api), **more}


def single(provider: str, server: ModelServer, **more: Any) -> dict[str, Any]:
    """The same as the only model."""
    return {f"llm.{key}": value for key, value in named(provider, server, **more).items()}


async def play(
    home: Path,
    overrides: dict[str, Any],
    *,
    secrets: Mapping[str, str] = KEYS,
    until: float = 60.0,
    speed: float = 60.0,
    wall: float = 90.0,
    on_idle: Callable[[], None] = lambda: None,
) -> Run:
    """Run to the end of `until` market seconds, proved clean; `wall` seconds at most."""
    daemon = app.Daemon(load(None, {}, overrides), Secrets(secrets), home, app.Options(speed=speed, until=until), lambda line: None)
    try:
        assert await asyncio.wait_for(daemon.run(on_idle), wall)
    finally:
        daemon.close()
    return Run(home, daemon)
