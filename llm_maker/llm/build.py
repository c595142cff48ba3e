"""From the config to a running slow loop: which models, with which keys, prices, limits, prompts and budget.

Chooses and parametrizes. An SDK is imported only when its provider is among the chosen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llm_maker.config import Config
from llm_maker.config_llm import BUILT_IN, MemberConfig
from llm_maker.core.commands import Level, RequestSignals
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import SECRET_NAMES, Secrets
from llm_maker.llm.analyst import Analyst, AnalystSettings, Chooser, DecisionFacts
from llm_maker.llm.apis.open_model import open_model
from llm_maker.llm.bandit import Bandit, arm_of
from llm_maker.llm.bandit import Record as ArmRecord
from llm_maker.llm.blocks import BlockBudget
from llm_maker.llm.breaker import Breaker
from llm_maker.llm.budget import DailyBudget, Pricer, RateLimit
from llm_maker.llm.member import Member
from llm_maker.llm.news import NewsBoard, Report
from llm_maker.llm.prompt import Prompt, render
from llm_maker.llm.providers import PROVIDERS, Model, ProviderSpec, choose, replacement
from llm_maker.llm.scout import Scout, ScoutFacts, ScoutSettings, Wanted
from llm_maker.llm.snapshot import Context
from llm_maker.llm.templates import Template, TemplateError, load
from llm_maker.tuning import cycle_seconds

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SEARCH_OUTPUT_TOKENS = 3_000
SEARCH_INPUT_TOKENS = 60_000
"""What pages a search model reads and writes, at most: set aside before each search."""
SEARCHES = 6
"""One call may search this often."""

Say = Callable[[Level, str], None]


class NotAvailable(Exception):
    """What is configured cannot be had; one line."""


class Plan(msgspec.Struct, frozen=True):
    """One model to be asked: what is known of its provider, and what the config says of it."""

    spec: ProviderSpec
    model: str
    base_url: str
    per_million: tuple[Decimal, Decimal] | None
    """Own prices, USD per million tokens of input and output; they come before the table."""
    extra: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.spec.name}/{self.model}"

    @property
    def local(self) -> bool:
        """A server of one's own costs nothing, unless the config says what it costs; a provider behind a proxy here does."""
        here = not self.spec.key_required and urlsplit(self.base_url or self.spec.base_url).hostname in _LOOPBACK
        return (self.spec.local or here) and self.per_million is None


class Mind(msgspec.Struct, frozen=True):
    """Whom the slow loop asks (`none` and `simulated` are ours), and the line that says why."""

    provider: str
    text: str
    members: tuple[Plan, ...] = ()
    reserve: tuple[Plan, ...] = ()


class Surroundings(msgspec.Struct, frozen=True):
    """What the analyst needs of the house: the record, the voice, what was learned, and what is known of markets."""

    budget: DailyBudget
    record: Callable[[DecisionFacts], None]
    say: Say
    skills: Mapping[str, Skill]
    rules: Callable[[str], str] = lambda market_id: ""
    news: NewsBoard | None = None
    shown: Callable[[Prompt], None] = lambda prompt: None
    """Hears every prompt before it is sent."""
    arms: Callable[[], Mapping[str, ArmRecord]] = dict
    """What became of each arm's answers, for the bandit."""
    wrap: Callable[[Model], Model] = lambda model: model
    """Put around every client: a cassette that records, or one that plays."""
    opened: Callable[[Plan, Callable[[], Model]], Model] = lambda plan, make: make()
    """How a client comes to be; a backtest makes it in another thread, or not at all."""
    clock: Callable[[], int] = time.time_ns
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def resolve(config: Config, secrets: Secrets, *, simulated_feed: bool) -> Mind:
    """Whom the config means: `auto` is the first usable key, else the simulated analyst on its own feed, else rules alone."""
    mind = _resolve(config, secrets, simulated_feed=simulated_feed)
    if config.llm.reserve and not mind.members:
        raise NotAvailable(
            f"llm.reserve names models, and there is none they could stand in for ({mind.text}); name it in llm.provider"
        )
    return mind


def _resolve(config: Config, secrets: Secrets, *, simulated_feed: bool) -> Mind:
    llm = config.llm
    reserve = tuple(_plan(one, secrets) for one in llm.reserve)
    if llm.ensemble:
        members = tuple(_plan(one, secrets) for one in llm.ensemble)
        how = "the bandit chooses among" if llm.bandit else "an ensemble of"
        return Mind("ensemble", f"{how} {', '.join(p.name for p in members)}{_backed(reserve)}", members, reserve)
    if llm.provider == "none":
        return Mind("none", "rules only: llm.provider is none")
    if llm.provider == "simulated":
        return Mind("simulated", "a simulated analyst (it is told a noisy truth)")
    found = choose(llm.provider, {key: secrets.get(key) or "" for key in SECRET_NAMES})
    if found.spec is not None:
        plan = _planned(found.spec, llm.model, llm.base_url, llm.price_per_million_input_usd, llm.price_per_million_output_usd, {})
        where = f" at {llm.base_url}" if llm.base_url else ""
        return Mind(found.spec.name, f"{found.text}, model {plan.model}{where}{_backed(reserve)}", (plan,), reserve)
    if found.status == "none_set" and simulated_feed:
        return Mind("simulated", f"a simulated analyst (it is told a noisy truth): {found.text}")
    if found.status == "none_set":
        return Mind("none", f"rules only: {found.text}")
    raise NotAvailable(found.text)


def _backed(reserve: Sequence[Plan]) -> str:
    return f"; in reserve {', '.join(p.name for p in reserve)}" if reserve else ""


def _plan(named: MemberConfig, secrets: Secrets) -> Plan:
    spec = PROVIDERS[named.provider]
    if spec.key_required and secrets.get(spec.env_key) is None:
        raise NotAvailable(f"Missing API key: {spec.env_key} not set. Add {spec.env_key}=... to .env ({spec.name} is named in llm)")
    prices = (named.price_per_million_input_usd, named.price_per_million_output_usd)
    return _planned(spec, named.model, named.base_url, *prices, named.extra)


def _planned(
    spec: ProviderSpec,
    model: str | None,
    base_url: str | None,
    input_usd: float | None,
    output_usd: float | None,
    extra: dict[str, Any],
) -> Plan:
    named = model or spec.model
    if not named:
        raise NotAvailable(f"llm.model is empty; provider '{spec.name}' has no default model: name one that your server has")
    newer = replacement(spec, named)
    if newer is not None and base_url is None:
        raise NotAvailable(f"llm.model: {named} of {spec.name} was retired; set {newer}")
    own = (Decimal(str(input_usd)), Decimal(str(output_usd))) if input_usd is not None and output_usd is not None else None
    return Plan(spec, named, base_url or "", own, extra)


def templates_of(config: Config, base: Path) -> tuple[Template, ...]:
    """The prompts that are named, built-in or own; a relative folder is looked for from `base`."""
    folder = None if config.llm.prompts_dir is None else base / Path(config.llm.prompts_dir).expanduser()
    try:
        return load(folder, config.llm.prompts)
    except TemplateError as error:
        raise NotAvailable(f"llm.prompts_dir: {error}") from None


def pricer_of(plan: Plan, clock: Callable[[], int] = time.time_ns) -> Pricer:
    """With its price table loaded (about 0.2 s the first time)."""
    return Pricer(plan.spec.price_id, plan.model, per_million=plan.per_million, local=plan.local, now=clock())


def client_of(plan: Plan, secrets: Secrets, pricer: Pricer, max_output_tokens: int, say: Say, clock: Callable[[], int]) -> Model:
    """The client of one model; raises `NotAvailable` for an address or an extra that no request can have."""
    key = secrets.get(plan.spec.env_key) if plan.spec.env_key else None
    try:
        return open_model(
            plan.spec,
            api_key=key or "",
            pricer=pricer,
            base_url=plan.base_url,
            model=plan.model,
            extra=plan.extra,
            max_output_tokens=max_output_tokens,
            clock=clock,
            on_step=lambda line: say(Level.WARNING, line),
        )
    except ValueError as error:
        raise NotAvailable(f"{plan.name}: {error}") from None


class Built(msgspec.Struct, frozen=True):
    """An analyst and the clients that must be closed after it."""

    analyst: Analyst
    models: tuple[Model, ...]


def build_analyst(config: Config, secrets: Secrets, mind: Mind, around: Surroundings, templates: Sequence[Template]) -> Built:
    """The slow loop's port for the models of `mind`."""
    models: list[Model] = []

    def members_of(plans: Sequence[Plan], prompts: Sequence[Template]) -> list[Member]:
        found = []
        for plan in plans:
            pricer = pricer_of(plan, around.clock)
            make = _maker(config, plan, secrets, pricer, around)
            model = around.wrap(around.opened(plan, make))
            models.append(model)
            # The arms of one model share its limits: it is one server that they ask.
            rate, breaker = RateLimit(config.llm.max_requests_per_minute), Breaker()
            for template in prompts:
                name = plan.name if template.name == BUILT_IN else f"{plan.name}#{template.name}"
                found.append(
                    Member(
                        name,
                        model,
                        template=template,
                        blind=not config.llm.show_price,
                        rate=rate,
                        breaker=breaker,
                        pricer=pricer,
                        max_output_tokens=config.llm.max_output_tokens,
                        unknown_call_usd=Decimal(str(config.llm.unknown_call_usd)),
                        say=around.say,
                        clock=around.clock,
                        sleep=around.sleep,
                    )
                )
        return found

    members = members_of(mind.members, templates)
    reserve = members_of(mind.reserve, templates[:1])
    analyst = Analyst(
        members,
        reserve,
        render=_renderer(config, around),
        skills=around.skills,
        mode=config.llm.ensemble_mode,
        budget=around.budget,
        record=around.record,
        say=around.say,
        settings=AnalystSettings(
            timeout_s=config.llm.timeout_seconds,
            deadline_s=cycle_seconds(config),
            show_price=config.llm.show_price,
            portfolio=config.llm.portfolio,
        ),
        chooser=_chooser(config, around) if config.llm.bandit else None,
        clock=around.clock,
        sleep=around.sleep,
    )
    return Built(analyst, tuple(models))


def _maker(config: Config, plan: Plan, secrets: Secrets, pricer: Pricer, around: Surroundings) -> Callable[[], Model]:
    return lambda: client_of(plan, secrets, pricer, config.llm.max_output_tokens, around.say, around.clock)


def _renderer(config: Config, around: Surroundings) -> Callable[[RequestSignals, Member], Prompt]:
    llm = config.llm
    blocks = BlockBudget(
        question=llm.blocks.question,
        rules=llm.blocks.rules,
        news=llm.blocks.news,
        past=llm.blocks.past,
        market=llm.blocks.market,
    )

    last: dict[str, tuple[str, Prompt]] = {}
    """Template -> request id and prompt: members side by side are asked the same."""

    def rendered(request: RequestSignals, member: Member) -> Prompt:
        known = last.get(member.template.name)
        if known is not None and known[0] == request.request_id:
            return known[1]
        now = around.clock()

        def news(market_id: str) -> Report | None:
            return around.news.of(market_id, now) if around.news is not None else None

        prompt = render(
            request,
            member.template,
            show_price=llm.show_price,
            context=Context(rules=around.rules, news=news, now=now),
            budget=blocks,
            portfolio=llm.portfolio,
        )
        last[member.template.name] = (request.request_id, prompt)
        around.shown(prompt)
        return prompt

    return rendered


def _chooser(config: Config, around: Surroundings) -> Chooser:
    """One arm a request: a model by the name its server gives it, with a prompt by its version."""
    arms_of_config = ("-portfolio" if config.llm.portfolio else "") + ("" if config.llm.show_price else "-blind")

    def choose_one(request: RequestSignals, members: Sequence[Member]) -> Sequence[Member]:
        by_arm = {arm_of(member.last_key, member.template.version + arms_of_config): member for member in members}
        arm = Bandit(sorted(by_arm), seed=config.seed).choose(request.request_id, around.arms())
        return (by_arm[arm],)

    return choose_one


def news_plan(config: Config, secrets: Secrets) -> Plan | None:
    """The scout's model; None: there is no scout."""
    news = config.llm.news
    if news.provider == "none":
        return None
    spec = PROVIDERS[news.provider]
    if secrets.get(spec.env_key) is None:
        raise NotAvailable(f"Missing API key: {spec.env_key} not set; llm.news.provider is '{news.provider}'")
    if news.search_usd is not None:
        spec = msgspec.structs.replace(spec, search_usd=Decimal(str(news.search_usd)))
    return _planned(spec, news.model, news.base_url, None, None, news.extra)


def build_scout(
    config: Config,
    secrets: Secrets,
    plan: Plan,
    board: NewsBoard,
    *,
    wanted: Callable[[], Sequence[Wanted]],
    budget: DailyBudget,
    record: Callable[[ScoutFacts], None],
    say: Say,
    clock: Callable[[], int] = time.time_ns,
) -> tuple[Scout, Model]:
    """The news scout and its client."""
    news, pricer = config.llm.news, pricer_of(plan, clock)
    model = client_of(plan, secrets, pricer, SEARCH_OUTPUT_TOKENS, say, clock)
    tokens = pricer.worst(SEARCH_INPUT_TOKENS, SEARCH_OUTPUT_TOKENS, clock())
    worst = (Decimal(str(config.llm.unknown_call_usd)) if tokens is None else tokens) + SEARCHES * plan.spec.search_usd
    every_s = 60 * news.every_minutes
    settings = ScoutSettings(
        every_s=every_s,
        max_markets=news.max_markets,
        fresh_s=60 * news.fresh_minutes,
        timeout_s=news.timeout_seconds,
        deadline_s=max(0.9 * every_s, news.timeout_seconds),
        worst_usd=worst,
    )
    scout = Scout(model, board, wanted=wanted, budget=budget, record=record, say=say, settings=settings, clock=clock)
    return scout, model


def board_of(config: Config) -> NewsBoard:
    return NewsBoard(int(60 * config.llm.news.fresh_minutes * NS_PER_S))
