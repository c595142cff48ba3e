"""Every provider, each through its real SDK and over a real socket: a structured call completes, and each failure of the failure
map (`llm-providers.md` 2.6) reaches its reaction. What the reaction was is read off the outside: who was asked, when, how often.

`pytest -s` prints the table."""

import asyncio
import sys
import time
from decimal import Decimal

import pytest

from llm_maker.config import load
from llm_maker.core.commands import Level
from llm_maker.core.events import SignalsReceived
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import KEY_OF, Secrets
from llm_maker.llm.analyst import Analyst, AnalystSettings
from llm_maker.llm.breaker import Breaker
from llm_maker.llm.budget import DailyBudget, RateLimit
from llm_maker.llm.build import client_of, pricer_of, resolve
from llm_maker.llm.member import Member
from llm_maker.llm.prompt import render
from llm_maker.llm.providers import PROVIDERS
from llm_maker.llm.templates import BUILT_IN
from tests.fakes.models import THROWAWAY_KEY, ModelServer, Step, refused
from tests.llm.samples import brief, request
from tests.llm.test_answer import SEED_EXAMPLE

SECRETS = Secrets(dict.fromkeys(KEY_OF.values(), THROWAWAY_KEY))
ASKED = request(brief("0xaa"), brief("0xbb"))
QUESTION = render(ASKED)
ONE_OF_EACH_WIRE = ("gemini", "anthropic", "openai", "deepseek")
SLOW = ("hang", "drip")
DEADLINE_S = {True: 0.5, False: 6.0}
"""Of a step that never ends, and of one that does."""

ROWS = {
    "auth": ("401", "key_400"),
    "billing": ("402", "429_quota"),
    "rate_limit": ("429", "429_date"),
    "overload": ("500", "503"),
    "timeout": ("hang",),
    "connection": ("reset", "no_reply"),
    "bad_request": ("400", "404"),
    "refusal": ("refusal", "filtered"),
    "truncated": ("truncated", "truncated_empty"),
    "malformed": ("garbage", "prose", "no_signals", "schema_wrong", "html"),
}
"""Kind -> steps of the fake that are one: every row, in the ways that differ most."""
MORE_ROWS = {
    "auth": ("401_text", "403"),
    "overload": ("502", "529"),
    "timeout": ("408", "drip"),
    "bad_request": ("413", "422", "307"),
    "truncated": ("context_window",),
    "malformed": ("empty_text", "wrong_handle", "no_choices", "empty_body", "not_completion", "huge"),
}
OWN_ROWS = {
    "anthropic": {"billing": ("400_hold",)},
    "gemini": {"rate_limit": ("429_body", "429_minute"), "malformed": ("malformed_response",)},
}
"""What only one of them says like this."""
REACTIONS = {
    "auth": "reserve answers; alarm; stopped, tried again after an hour",
    "billing": "reserve answers; alarm; stopped, tried again after an hour",
    "bad_request": "reserve answers; alarm; stopped, tried again after an hour",
    "rate_limit": "reserve answers; waits 7 s as told",
    "overload": "retried once; reserve answers; asked again at once; paused for 30 s after 3",
    "connection": "retried once; reserve answers; asked again at once; paused for 30 s after 3",
    "timeout": "reserve answers; asked again at once; paused for 30 s after 3",
    "refusal": "reserve answers; asked again at once; counted",
    "truncated": "reserve answers; asked again at once; counted",
    "malformed": "reserve answers; asked again at once; counted",
    "503": "reserve answers; waits 7 s as told",
}
"""By kind; and of the one step whose server names a time beside its overload."""


class Desk:
    """One provider as the config leads to it, with a model in reserve on the same server; its clock can be set forward."""

    def __init__(self, provider, server, url=None, **llm):
        self.provider, self.server = provider, server
        self.skipped_ns, self.said = 0, []
        named = {"provider": provider, "base_url": url or server.base_url(wire_of(provider)), "model": "spare"}
        overrides = {f"llm.{key}": value for key, value in (named | {"model": PROVIDERS[provider].model or "m"} | llm).items()}
        config = load(None, {}, overrides | {"llm.reserve": [named]})
        self.mind = resolve(config, SECRETS, simulated_feed=True)
        self.clients = [self._client(plan) for plan in (*self.mind.members, *self.mind.reserve)]
        self.budget = DailyBudget(Decimal(100))

    def _client(self, plan):
        pricer = pricer_of(plan)
        client = client_of(plan, SECRETS, pricer, 4_000, self.say, time.time_ns)
        return (self.server.watch(client) if self.server is not None else client), pricer

    def clock(self):
        return time.time_ns() + self.skipped_ns

    def say(self, level, text):
        assert THROWAWAY_KEY not in text
        self.said.append((level, text))

    def member(self, which=0):
        """A fresh one on the same client: what came before is forgotten."""
        client, pricer = self.clients[which]
        return Member(
            f"m{which}", client, template=BUILT_IN, blind=False, rate=RateLimit(1_000), breaker=Breaker(), pricer=pricer,
            max_output_tokens=4_000, unknown_call_usd=Decimal("0.05"), say=self.say, clock=self.clock, dice=lambda: 0.0,
        )  # fmt: skip

    def analyst(self, *members, reserve=(), timeout_s=6.0):
        settings = AnalystSettings(timeout_s=timeout_s, deadline_s=36.0)
        return Analyst(
            members, reserve, render=lambda asked, member: QUESTION, skills={}, mode="pool", budget=self.budget,
            record=lambda facts: None, say=self.say, settings=settings, clock=self.clock,
        )  # fmt: skip

    async def close(self):
        for client, _ in self.clients:
            await client.close()


def wire_of(provider):
    return PROVIDERS[provider].api


def key_of(provider):
    """The only key that the server takes; None: a server of one's own asks for none."""
    return THROWAWAY_KEY if PROVIDERS[provider].env_key else None


async def reaction(desk, step):
    """(kind, what it led to) of one step, as seen from outside."""
    server, deadline_s, told = desk.server, DEADLINE_S[step in SLOW], []
    first, failing = desk.mind.members[0].model, True
    server.fault = lambda seen: step if failing and seen.model == first else None

    def requests():
        return sum(seen.model == first for seen in server.seen)

    desk.said.clear()
    member = desk.member()
    before = requests()
    analyst = desk.analyst(member, reserve=[desk.member(1)], timeout_s=deadline_s)
    event, facts = await analyst.answer(ASKED)
    kind = facts.members[0].outcome
    assert requests() - before <= 2
    if requests() - before == 2:
        told.append("retried once")
    assert kind == "rate_limit" or member.breaker.counts[kind], "every failure is counted"
    if isinstance(event, SignalsReceived) and "spare" in event.model:
        told.append("reserve answers")
    alarms = [text for level, text in desk.said if level is Level.ERROR and "m0" in text]
    if alarms:
        assert len(alarms) == 1 and "stopped" in alarms[0]
        told.append("alarm")

    async def asked_after(seconds):
        desk.skipped_ns += int(seconds * NS_PER_S)
        before = requests()
        reply = await member.ask(QUESTION, 6.0, desk.budget)
        assert (reply.outcome == "ok") == (requests() > before), reply
        return reply.outcome == "ok"

    failing = False
    if await asked_after(0):
        told.append("asked again at once")
        failing = True
        told.append(await _worn_out(desk, step, deadline_s, requests))
    elif await asked_after(1.9):
        told.append("asked again too early")
    elif await asked_after(5.2):
        told.append("waits 7 s as told")  # 1.9 and 5.2
    elif not await asked_after(3_580) and await asked_after(20):
        told.append("stopped, tried again after an hour")
    server.fault = None
    return kind, "; ".join(told)


async def _worn_out(desk, step, deadline_s, requests):
    """What three failures lead to."""
    member = desk.member()
    while member.breaker.state == "closed" and sum(member.breaker.counts.values()) < 3:
        await member.ask(QUESTION, deadline_s, desk.budget)
    failures, before = sum(member.breaker.counts.values()), requests()
    if member.breaker.state == "closed":
        return "counted"
    assert (await member.ask(QUESTION, deadline_s, desk.budget)).outcome == "open" and requests() == before
    desk.skipped_ns += 29 * NS_PER_S
    early = (await member.ask(QUESTION, deadline_s, desk.budget)).outcome
    desk.skipped_ns += 2 * NS_PER_S
    desk.server.fault = None
    late = (await member.ask(QUESTION, 6.0, desk.budget)).outcome
    return f"paused for 30 s after {failures}" if (early, late, member.breaker.state) == ("open", "ok", "closed") else "paused"


async def table_of(provider, *more):
    """(provider, expected kind, step, kind, reaction) of every row."""
    found = []
    async with ModelServer(hang_s=20.0, key=key_of(provider)) as server:
        desk = Desk(provider, server)
        wanted = [(k, step) for rows in (ROWS, OWN_ROWS.get(provider, {}), *more) for k, steps in rows.items() for step in steps]
        for kind, step in wanted:
            found.append((provider, kind, step, *await reaction(desk, step)))
        await desk.close()
    assert server.violations == []
    return found


def judge(table):
    """Print it, and hold it against the map."""
    lines = [f"{provider:18} {step:18} {kind:11} {led_to}" for provider, _, step, kind, led_to in table]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    wrong = [row for row in table if row[3] != row[1] or row[4] != REACTIONS.get(row[2], REACTIONS[row[1]])]
    assert wrong == []


async def test_each_failure_reaches_its_reaction_on_each_wire():
    table = [row for found in await asyncio.gather(*map(table_of, ONE_OF_EACH_WIRE)) for row in found]
    judge(table)
    assert {(p, kind) for p, kind, *_ in table} == {(p, kind) for p in ONE_OF_EACH_WIRE for kind in ROWS}


@pytest.mark.prove
async def test_each_failure_reaches_its_reaction_with_every_provider():
    judge([row for found in await asyncio.gather(*(table_of(name, MORE_ROWS) for name in PROVIDERS)) for row in found])


@pytest.mark.parametrize("provider", ONE_OF_EACH_WIRE)
async def test_a_server_that_is_not_there_is_a_lost_connection_and_free(provider):
    with refused() as nowhere:
        desk = Desk(provider, None, nowhere.base_url(wire_of(provider)))
        reply = await desk.member().ask(QUESTION, 6.0, desk.budget)
        await desk.close()
    assert (reply.outcome, reply.attempts, reply.cost_usd) == ("connection", 2, 0), "retried once"
    assert desk.budget.spent_usd(desk.clock()) == 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_every_provider_completes_a_structured_call_and_takes_the_seeds_answer(provider):
    spec = PROVIDERS[provider]
    async with ModelServer(["ok", "seed", Step("text", SEED_EXAMPLE)], key=key_of(provider)) as server:
        # Another name of this machine: what is not called one's own has its price.
        desk = Desk(provider, server, server.base_url(spec.api).replace("127.0.0.1", "127.1"))
        member = desk.member()
        analyst = desk.analyst(member)
        answers = [await analyst.answer(ASKED) for _ in range(3)]
        await desk.close()
    assert server.violations == []
    whole, seed, example = (event for event, _ in answers)
    assert all(isinstance(event, SignalsReceived) and event.invalid == 0 for event in (whole, seed, example))
    assert all([s.market_id for s in event.signals] == ["0xaa", "0xbb"] for event in (whole, seed, example))
    assert whole.signals[0].p_yes == 0.56 and {s.p_yes for s in (*seed.signals, *example.signals)} == {None}
    assert {str(s.risk_level) for s in (*seed.signals, *example.signals)} == {"medium"}, "absent is medium"
    assert [str(s.action) for s in example.signals] == ["buy_yes", "hold"] and seed.signals[0].confidence == 0.82
    (seen, *_), facts = server.seen, answers[0][1]
    assert (seen.wire, seen.model, seen.schema_mode) == (spec.api, spec.model or "m", spec.schema_mode)
    assert seen.system == QUESTION.system and seen.user == QUESTION.user
    assert whole.model == f"{provider}/{spec.model or 'm'}" and facts.usage.output > 0
    source = "local" if spec.local else "table" if spec.price_id else "unknown"
    assert facts.price_source == source, "the default model of each provider has its price in the table"
    spent = desk.budget.spent_usd(desk.clock())
    assert spent == sum(one.cost_usd for _, one in answers) and (spent == 0) == (source == "local")
    if source == "unknown":
        assert spent == 3 * Decimal("0.05"), "what nobody knows the price of is never free"
        assert [level for level, text in desk.said if "nobody knows what a call costs" in text] == [Level.ERROR]


@pytest.mark.parametrize("provider", ["gemini", "anthropic", "openai", "openrouter"])
async def test_a_server_without_schemas_is_asked_with_less_by_every_wire_that_can(provider):
    async with ModelServer(refuses={"json_schema"}) as server:
        desk = Desk(provider, server)
        event, facts = await desk.analyst(desk.member()).answer(ASKED)
        await desk.close()
    assert isinstance(event, SignalsReceived) and facts.members[0].schema_mode in ("json_object", "prompt_only")
    assert all(level is Level.WARNING for level, _ in desk.said) and desk.said
