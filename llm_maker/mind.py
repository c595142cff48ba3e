"""The slow loop's side of a run: which models are asked, what they may cost, what is learned of them, where their words go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.agenda import attention
from llm_maker.core.brief import HOUR_NS
from llm_maker.core.commands import Level
from llm_maker.core.skill import Skill
from llm_maker.core.state import State
from llm_maker.keys import Secrets
from llm_maker.learn import Learner, rules_of
from llm_maker.llm import cassette
from llm_maker.llm.analyst import DecisionFacts
from llm_maker.llm.budget import DailyBudget
from llm_maker.llm.build import (
    NotAvailable,
    Surroundings,
    board_of,
    build_analyst,
    build_scout,
    news_plan,
    resolve,
    templates_of,
)
from llm_maker.llm.prompt import Prompt
from llm_maker.llm.providers import Model
from llm_maker.llm.scout import ScoutFacts, Wanted
from llm_maker.port import Port
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import LineLog, iso
from llm_maker.runtime.rows import Scope
from llm_maker.world import Refused

BUDGET, NEWS_BUDGET = "llm_budget", "news_budget"
"""Keys of what was spent today, in the ledger."""
WANTED_MARKETS = 30
"""Offered to the scout, the ones that need it most first."""


class House(msgspec.Struct, frozen=True):
    """What the mind is given of the run around it."""

    home: Path
    ledger: Ledger
    scope: Scope
    log: DaemonLog
    state: Callable[[], State]
    rules: Callable[[str], str]
    """A market's own rules, by its id."""
    paced: bool
    """Market time runs beside the wall's; False: as fast as it can."""


class Mind:
    """Chosen at the start by config and keys; raises `world.Refused` where what is named cannot be had."""

    def __init__(
        self, config: Config, secrets: Secrets, *, simulated_feed: bool, base: Path, wall: Callable[[], int] = time.time_ns
    ) -> None:
        """`base`: where relative paths of the config start; `wall`: ns since the epoch, by which budgets and limits go."""
        self._wall = wall
        self._config, self._secrets, self._base = config, secrets, base
        try:
            self._chosen = resolve(config, secrets, simulated_feed=simulated_feed)
            self._news = news_plan(config, secrets)
            self._templates = templates_of(config, base)
        except NotAvailable as error:
            raise Refused(str(error)) from None
        self.provider, self.text = self._chosen.provider, self._chosen.text
        self._board = board_of(config)
        self._facts: dict[str, dict[str, Any]] = {}
        self._models: list[Model] = []
        self._logs: list[LineLog] = []
        self._cassette: cassette.Writer | None = None
        self._cassette_failed = False
        self._say: Callable[[Level, str], None] = lambda level, text: None
        self._learner: Learner | None = None
        self._writing: asyncio.Future[None] | None = None
        self._analysts_budget: DailyBudget | None = None

    def analyst(self, house: House) -> Port | None:
        """The port that asks real models, with what is left of today's budget; None for rules and for the simulated one."""
        if not self._chosen.members:
            return None
        raw = self._log_of(house, "llm_raw.jsonl")
        self._say = lambda level, text: house.log.say(level, "llm", text)

        def remember(facts: DecisionFacts) -> None:
            """What a call cost in time and tokens goes to the decision log; its words, if wanted, to llm_raw.jsonl."""
            usage = facts.usage
            tokens = {"input": usage.input, "cached": usage.cached, "output": usage.output} if usage else None
            self._facts[facts.request.request_id] = {"latency_ms": round(facts.latency_ms, 1), "tokens": tokens}
            if self._config.logging.raw_llm:
                raw.write([_line(house.log.redacted(msgspec.to_builtins(facts)))])

        self._analysts_budget = self._budget(house, BUDGET, self._config.llm.daily_budget_usd)
        around = Surroundings(
            budget=self._analysts_budget,
            record=remember,
            say=self._say,
            skills=_Skills(house.state),
            rules=house.rules,
            news=self._board if self._news is not None else None,
            shown=lambda prompt: self._show(house, prompt),
            arms=lambda: self._learner.arms if self._learner is not None else {},
            wrap=self._recorded,
            clock=self._wall,
        )
        try:
            built = build_analyst(self._config, self._secrets, self._chosen, around, self._templates)
        except NotAvailable as error:
            raise Refused(str(error)) from None
        self._models += built.models
        return built.analyst

    def ports(self, house: House) -> list[Port]:
        """What runs beside the analyst: the learner and the scout, where they are wanted."""
        found: list[Port] = []
        if self._config.llm.learn and self.provider != "none" and house.paced:
            rules = rules_of(self._config)
            self._learner = Learner(
                house.ledger.path,
                house.scope,
                rules,
                lambda: house.state().now,
                lambda: house.state().skills,
                lambda level, text: house.log.say(level, "learn", text),
                lambda: house.ledger.has_forecasts(house.scope),
            )
            found.append(self._learner)
        if self._news is not None:
            found.append(self._scout(house))
        return found

    def _scout(self, house: House) -> Port:
        assert self._news is not None
        raw = self._log_of(house, "news.jsonl")

        def wanted() -> list[Wanted]:
            state = house.state()
            return [
                Wanted(
                    market_id=m.instrument.id,
                    question=m.instrument.question,
                    category=m.instrument.category,
                    rules=house.rules(m.instrument.id),
                    hours_to_end=None if m.instrument.end_ns is None else (m.instrument.end_ns - state.now) / HOUR_NS,
                )
                for m in attention(state)[:WANTED_MARKETS]
            ]

        def record(facts: ScoutFacts) -> None:
            raw.write([_line(house.log.redacted(msgspec.to_builtins(facts)))])

        try:
            scout, model = build_scout(
                self._config,
                self._secrets,
                self._news,
                self._board,
                wanted=wanted,
                budget=self._budget(house, NEWS_BUDGET, self._config.llm.news.daily_budget_usd),
                record=record,
                say=lambda level, text: house.log.say(level, "news", text),
                clock=self._wall,
            )
        except NotAvailable as error:
            raise Refused(str(error)) from None
        self._models.append(model)
        return scout

    def _budget(self, house: House, key: str, limit: float) -> DailyBudget:
        """What is left of today's, and every change of it kept: a kill in the middle of a call forgets nothing."""
        saved = house.ledger.risk_state(house.scope).get(key)
        plain = msgspec.json.decode(saved, type=dict[str, str]) if saved else {"day": "0", "spent_usd": "0"}

        def keep(spent: dict[str, str]) -> None:
            house.ledger.remember(house.scope, {key: msgspec.json.encode(spent).decode()})

        return DailyBudget.from_plain(Decimal(str(limit)), plain, keep)

    def _log_of(self, house: House, name: str) -> LineLog:
        size = int(self._config.logging.decisions_max_mb * 1_000_000)
        log = LineLog(house.home / "logs" / name, size, lambda reason: house.log.say(Level.ERROR, "log", reason))
        self._logs.append(log)
        return log

    def _recorded(self, model: Model) -> Model:
        """With a cassette, every exchange is kept; without one the model as it is."""
        if self._config.llm.cassette is None:
            return model
        if self._cassette is None:
            self._cassette = self._open_cassette(self._base / Path(self._config.llm.cassette).expanduser())
        return cassette.Recorder(model, self._keep, clock=time.monotonic_ns, today=lambda: iso(self._wall()))

    def _open_cassette(self, path: Path) -> cassette.Writer:
        try:
            return cassette.Writer(path, self._secrets.values())
        except cassette.CassetteError as error:
            raise Refused(f"llm.cassette: {error}") from None

    def _keep(self, line: bytes) -> None:
        """A cassette that can be written no more is told of once; it stops no trading."""
        assert self._cassette is not None
        if self._cassette_failed:
            return
        try:
            self._cassette.append(line)
        except cassette.CassetteError as error:
            self._cassette_failed = True
            self._say(Level.ERROR, f"llm.cassette: {error}; no more is kept")

    def _show(self, house: House, prompt: Prompt) -> None:
        """The last question as JSON that a person can read; written beside the loop, and not while the one before still is."""
        if self._writing is not None and not self._writing.done():
            return
        view = house.log.redacted(prompt.snapshot.view | {"prompt_version": prompt.version})
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, _write_view, house.home / "logs" / "snapshot.json", view)

    def facts_of(self, request_id: str) -> dict[str, Any]:
        """What a call took, once."""
        return self._facts.pop(request_id, {})

    def spent_today_usd(self) -> float | None:
        """What the analyst's calls have cost since 00:00 UTC, by the wall clock as its budget goes; None: no model is paid."""
        return None if self._analysts_budget is None else float(self._analysts_budget.spent_usd(self._wall()))

    async def hang_up(self) -> None:
        """Close every client."""
        for model in self._models:
            with contextlib.suppress(OSError, RuntimeError):  # what is left of a connection is the system's
                await model.close()
        self._models = []

    def close(self) -> None:
        for log in self._logs:
            log.close()
        if self._cassette is not None:
            self._cassette.close()
            self._cassette = None


class _Skills(Mapping[str, Skill]):
    """What the core goes by at this moment."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def __getitem__(self, key: str) -> Skill:
        return self._state().skills[key]

    def __iter__(self) -> Any:
        return iter(self._state().skills)

    def __len__(self) -> int:
        return len(self._state().skills)


def _line(told: Any) -> bytes:
    """JSON whatever a model wrote: half a character that no encoding has becomes a question mark."""
    try:
        return msgspec.json.encode(told)
    except UnicodeEncodeError:
        return json.dumps(told).encode("utf-8", "replace")


def _write_view(path: Path, view: dict[str, Any]) -> None:
    """Whole or not at all; a disk that takes nothing loses a file that only people read."""
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(OSError):
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(view), indent=2) + b"\n")
        fresh.replace(path)
