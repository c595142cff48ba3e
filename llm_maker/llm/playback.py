"""The slow loop of a backtest: the configured models in virtual time, played from a cassette, asked for what it lacks if wanted.

Owns whom a cassette is played for, what may be spent, and what is told of it afterwards. Knows no tape, no journal and no clock.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.commands import Level
from llm_maker.keys import Secrets
from llm_maker.llm.analyst import DecisionFacts
from llm_maker.llm.budget import DailyBudget, RateLimit, Reservation
from llm_maker.llm.build import Mind, NotAvailable, Plan, Surroundings, build_analyst, resolve, templates_of
from llm_maker.llm.cassette import Cassette, CassetteError, Player, Recorder, Writer, contamination
from llm_maker.llm.offline import OfflineAnalyst, Outside, VirtualTime
from llm_maker.llm.providers import PROVIDERS, Model

MAX_SAID = 20
"""Different lines of the models' doings that are kept for the report."""


class Wanted(msgspec.Struct, frozen=True):
    """Which cassette, whether what it lacks is asked for and recorded, and what that takes."""

    cassette: Path
    ask: bool
    secrets: Secrets
    base: Path
    """Where relative paths of the config start."""


class WholeBudget(DailyBudget):
    """A day's money for all of a backtest, however many days of market time it has: a day that never ends."""

    def spent_usd(self, now: int) -> Decimal:
        return super().spent_usd(0)

    def exhausted(self, now: int) -> bool:
        return super().exhausted(0)

    def holds(self, now: int, worst_usd: Decimal) -> bool:
        return super().holds(0, worst_usd)

    def reserve(self, now: int, worst_usd: Decimal) -> Reservation | None:
        return super().reserve(0, worst_usd)

    def charge(self, now: int, usd: Decimal) -> None:
        super().charge(0, usd)

    def words(self, now: int) -> str:
        return f"budget of this backtest spent: {self.spent_usd(now):.4f} of {self.limit_usd} USD (llm.daily_budget_usd)"


class Playback:
    """Made before a backtest, closed after it; `analyst` answers in between. Raises `NotAvailable` where it cannot be."""

    analyst: OfflineAnalyst

    def __init__(
        self,
        config: Config,
        wanted: Wanted,
        rules: Callable[[str], str],
        *,
        today: Callable[[], str],
        wall: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`rules`: a market's own, by its id; `today`: the moment, ISO 8601 UTC, for the record; `wall`: ns, for latencies."""
        self._config, self._wanted, self._today, self._wall = config, wanted, today, wall
        self._time = VirtualTime()
        self._players: list[Player] = []
        self._writer: Writer | None = None
        self._facts: dict[str, dict[str, Any]] = {}
        self._cycles: Counter[str] = Counter()
        self._said: dict[str, None] = {}
        self._budget = WholeBudget(Decimal(str(config.llm.daily_budget_usd)) if wanted.ask else None)
        try:
            self._open(rules)
        except CassetteError as error:
            self.close()
            raise NotAvailable(str(error)) from None
        except NotAvailable:
            self.close()
            raise

    def _open(self, rules: Callable[[str], str]) -> None:
        config, wanted = self._config, self._wanted
        if wanted.ask:
            self._mind = resolve(config, wanted.secrets, simulated_feed=False)
            if not self._mind.members:
                raise NotAvailable(f"--ask needs a model: {self._mind.text}")
            self._writer = Writer(wanted.cassette, wanted.secrets.values())
        self._cassette = Cassette.read(wanted.cassette)
        if not wanted.ask:
            self._mind = _played(config, self._cassette, wanted.cassette)
        self._plans = (*self._mind.members, *self._mind.reserve)
        names = [plan.name for plan in self._plans]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise NotAvailable(f"llm: {twice[0]} is named more than once: a cassette could not tell whose answer is whose")
        around = Surroundings(
            budget=self._budget,
            record=lambda facts: None,  # `analyst.run` alone calls it
            say=self._hear,
            skills={},  # in a backtest nothing is learned
            rules=rules,
            opened=self._opened,
            clock=self._time.clock,
        )
        built = build_analyst(config, wanted.secrets, self._mind, around, templates_of(config, wanted.base))
        self.analyst = OfflineAnalyst(built.analyst, self._time, self._remember)

    def _opened(self, plan: Plan, make: Callable[[], Model]) -> Model:
        behind: Model | None = None
        if self._writer is not None:
            outside = Outside(make, self._wall, rate=RateLimit(self._config.llm.max_requests_per_minute))
            behind = Recorder(outside, self._writer.append, clock=self._time.clock, today=self._today)
        player = Player(self._cassette, plan.spec.name, plan.model, behind=behind)
        self._players.append(player)
        return player

    def _hear(self, level: Level, text: str) -> None:
        if level is not Level.INFO and len(self._said) < MAX_SAID:
            self._said[text] = None

    def _remember(self, facts: DecisionFacts) -> None:
        self._cycles[facts.outcome] += 1
        usage = facts.usage
        tokens = {"input": usage.input, "cached": usage.cached, "output": usage.output} if usage else None
        self._facts[facts.request.request_id] = {"latency_ms": round(facts.latency_ms, 1), "tokens": tokens}

    def facts_of(self, request_id: str) -> dict[str, Any]:
        """What a call took, once."""
        return self._facts.pop(request_id, {})

    def close(self) -> None:
        """Every client, and the cassette; may be called again."""
        if not self._time.loop.is_closed():
            for player in self._players:
                self._time.run(player.close())
            self._time.close()
        if self._writer is not None:
            self._writer.close()

    def result(self, first_day: str) -> dict[str, Any]:
        """What the report says of it; `first_day` of the tape, ISO."""
        days = self._cassette.models()
        played, asked, missing = (sum(getattr(p, name) for p in self._players) for name in ("played", "asked", "missing"))
        cutoffs = {plan.name: _cutoff(plan, self._config.llm.cutoff) for plan in self._plans}
        return {
            "cassette": str(self._wanted.cassette),
            "models": [{"name": plan.name, "recorded_since": days.get(plan.name)} for plan in self._plans],
            "played": played,
            "asked": asked,
            "missing": missing,
            "cost_usd": float(self._budget.spent_usd(0)),
            "cycles": dict(sorted(self._cycles.items())),
            "contamination": contamination(cutoffs, first_day),
            "said": list(self._said),
        }


def _played(config: Config, cassette: Cassette, path: Path) -> Mind:
    """Whom a cassette is played for: those of the config, without key or address; with `auto` the one model that is on it."""
    llm, held = config.llm, list(cassette.models())
    if llm.provider in ("none", "simulated"):
        raise NotAvailable(f"llm.provider is {llm.provider!r}: a cassette is played for a model; name the one that is on it")
    if llm.ensemble:
        members = tuple(_plan(one.provider, one.model) for one in llm.ensemble)
    elif llm.provider != "auto":
        members = (_plan(llm.provider, llm.model),)
    else:
        fitting = [name for name in held if llm.model is None or name.partition("/")[2] == llm.model]
        if len(fitting) != 1:
            raise NotAvailable(f"{path}: llm.provider is 'auto' and {_held(held)}; name one in the config")
        members = (_plan(*fitting[0].split("/", 1)),)
    reserve = tuple(_plan(one.provider, one.model) for one in llm.reserve)
    if not {plan.name for plan in (*members, *reserve)} & set(held):
        wanted = ", ".join(plan.name for plan in members)
        raise NotAvailable(f"{path}: nothing of {wanted} is on the cassette: {_held(held)}")
    return Mind("cassette", f"played from {path.name}", members, reserve)


def _held(models: Sequence[str]) -> str:
    return f"it holds {', '.join(models)}" if models else "it holds no exchange"


def _plan(provider: str, model: str | None) -> Plan:
    spec = PROVIDERS.get(provider)
    if spec is None:
        raise NotAvailable(f"the cassette is of {provider!r}, which is no provider; there are {', '.join(PROVIDERS)}")
    if not (model or spec.model):
        raise NotAvailable(f"llm.model is empty; provider '{provider}' has no default model: name the one that is on the cassette")
    return Plan(spec, model or spec.model, "", (Decimal(0), Decimal(0)), {})


def _cutoff(plan: Plan, told: str | None) -> str | None:
    """The later of what is known of the model and what the config says."""
    return max((day for day in (plan.spec.cutoffs.get(plan.model), told) if day is not None), default=None)


def lines(told: Mapping[str, Any], signals: int) -> list[str]:
    """For people: what was played and asked, and first of all what spoils it."""
    found = [f"!! {line}" for line in told["contamination"]]
    names = ", ".join(f"{m['name']} (recorded since {m['recorded_since'] or 'this run'})" for m in told["models"])
    found.append(f"models: {names}")
    cycles = ", ".join(f"{name} {count}" for name, count in told["cycles"].items()) or "none"
    counts = f"{told['played']} played, {told['asked']} asked, {told['missing']} missing"
    found.append(f"exchanges: {counts}; the models cost {told['cost_usd']:.6f} USD in this run")
    found.append(f"cycles of the slow loop: {cycles}; {signals} signals")
    if told["missing"]:
        found.append(f"!! {told['missing']} questions are not on the cassette and got no answer: --ask asks and records them")
    return found + [f"the slow loop said: {text}" for text in told["said"]]
