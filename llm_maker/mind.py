"""The slow loop's side of a run: which model is asked, what it may cost, and where its words are kept."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.commands import Level
from llm_maker.keys import Secrets
from llm_maker.llm.budget import DailyBudget
from llm_maker.llm.build import NotAvailable, build_analyst, resolve
from llm_maker.port import Port
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import LineLog
from llm_maker.runtime.rows import Scope
from llm_maker.world import Refused


class Mind:
    """Chosen at the start by config and keys; raises `world.Refused` where what is named cannot be had."""

    def __init__(self, config: Config, secrets: Secrets, *, simulated_feed: bool) -> None:
        self._config, self._secrets = config, secrets
        try:
            chosen = resolve(config, secrets, simulated_feed=simulated_feed)
        except NotAvailable as error:
            raise Refused(str(error)) from None
        self.provider, self.text = chosen.provider, chosen.text
        self._facts: dict[str, dict[str, Any]] = {}
        self._raw: LineLog | None = None

    def analyst(self, home: Path, ledger: Ledger, scope: Scope, log: DaemonLog) -> Port | None:
        """The port that asks a real model, with what is left of today's budget; None for rules and for the simulated one."""
        if self.provider in ("none", "simulated"):
            return None
        limit = Decimal(str(self._config.llm.daily_budget_usd))
        saved = ledger.risk_state(scope).get("llm_budget")
        plain = msgspec.json.decode(saved, type=dict[str, str]) if saved else {}
        budget = DailyBudget.from_plain(limit, plain) if plain else DailyBudget(limit)
        size = int(self._config.logging.decisions_max_mb * 1_000_000)
        self._raw = raw = LineLog(home / "logs" / "llm_raw.jsonl", size, lambda reason: log.say(Level.ERROR, "log", reason))

        def remember(facts: Any) -> None:
            """What a call cost in time and tokens goes to the decision log; its words, if wanted, to llm_raw.jsonl."""
            usage = facts.usage
            tokens = {"input": usage.input, "cached": usage.cached, "output": usage.output} if usage else None
            self._facts[facts.request.request_id] = {"latency_ms": round(facts.latency_ms, 1), "tokens": tokens}
            if self._config.logging.raw_llm:
                raw.write([msgspec.json.encode(log.redacted(msgspec.to_builtins(facts)))])
            ledger.remember(scope, {"llm_budget": msgspec.json.encode(budget.to_plain()).decode()})

        def say(level: Level, text: str) -> None:
            log.say(level, "llm", text)

        try:
            return build_analyst(self._config, self._secrets, self.provider, budget, remember, say)
        except NotAvailable as error:
            raise Refused(str(error)) from None

    def facts_of(self, request_id: str) -> dict[str, Any]:
        """What a call took, once."""
        return self._facts.pop(request_id, {})

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
