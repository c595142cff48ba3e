"""The port to the model: one event per request, the newest wins, limits skip, failures count, facts stay outside."""

import asyncio
import json
from decimal import Decimal

import msgspec
import pytest

from llm_maker.core.commands import CancelOrder, Level
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.analyst import Analyst, AnalystSettings
from llm_maker.llm.apis.chat import OpenAICompatible
from llm_maker.llm.budget import DailyBudget, Pricer, RateLimit, Usage
from llm_maker.llm.prompt import PROMPT_VERSION
from llm_maker.llm.providers import PROVIDERS, Completion, ProviderError
from tests.fakes.model_server import STEPS, THROWAWAY_KEY, ModelServer
from tests.llm.samples import brief, request

T0 = 1_700_000_000 * NS_PER_S


class Scripted:
    """A model in memory: each call takes the next step, an exception or a text; `gate` holds calls back."""

    provider, model = "fake", "fake-model"

    def __init__(self, *steps, cost=Decimal("0.002")):
        self.steps, self.cost, self.asked, self.deadlines = list(steps), cost, [], []
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, system, user, schema, deadline_s):
        self.asked.append(user)
        self.deadlines.append(deadline_s)
        await self.gate.wait()
        step = self.steps.pop(0) if self.steps else good()
        if isinstance(step, Exception):
            raise step
        source = "table" if self.cost is not None else "unknown"
        return Completion(step, "stop", Usage(input=100, output=50), self.cost, source, "fake-model-1")


def good(handle="M1"):
    return json.dumps({"signals": [{"market_id": handle, "action": "hold", "confidence": 0.6, "directional_bias": "neutral"}]})


class Bench:
    """An analyst with a clock that only sleeping moves."""

    def __init__(self, model, *, limit=15, budget=None, **settings):
        self.now, self.slept = T0, []
        self.events: list[Event] = []
        self.facts, self.said = [], []
        self.budget = DailyBudget(budget)
        self.analyst = Analyst(
            model,
            rate=RateLimit(limit),
            budget=self.budget,
            record=self.facts.append,
            say=lambda level, text: self.said.append((level, text)),
            settings=AnalystSettings(**settings),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += round(seconds * NS_PER_S)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.analyst.run(self.events.append))
        return self

    async def __aexit__(self, *exc):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def ask(self, *requests):
        """Hand in requests and wait until each has its event."""
        wanted = len(self.events) + len(requests)
        for command in requests:
            self.analyst.execute(command)
        await self.until(wanted)
        return self.events[-1]

    async def until(self, count):
        async with asyncio.timeout(8):
            while len(self.events) < count and not self.task.done():
                await asyncio.sleep(0.001)


async def test_a_good_answer():
    async with Bench(Scripted()) as bench:
        event = await bench.ask(request(request_id="R7"))
    assert isinstance(event, SignalsReceived)
    assert (event.request_id, event.decision_id, event.model) == ("R7", "D-R7", "fake-model-1")
    assert (event.prompt_version, event.cost, event.simulated, event.invalid) == (PROMPT_VERSION, 2000, False, 0)
    assert [s.market_id for s in event.signals] == ["0xaaaa"]
    (facts,) = bench.facts
    assert (facts.outcome, facts.decision_id, facts.raw_answer, facts.provider) == ("ok", "D-R7", good(), "fake")
    assert facts.signals == event.signals and "[M1]" in facts.user and facts.request.request_id == "R7"
    assert bench.budget.spent_usd(bench.now) == Decimal("0.002")
    msgspec.json.encode(facts)


async def test_the_newest_request_wins_and_each_is_answered():
    model = Scripted()
    model.gate.clear()
    async with Bench(model) as bench:
        bench.analyst.execute(request(request_id="R1"))
        while not model.asked:
            await asyncio.sleep(0)
        for name in ("R2", "R3", "R4"):
            bench.analyst.execute(request(request_id=name))
        await bench.until(2)
        assert bench.events == [SignalsSkipped("R2", "busy"), SignalsSkipped("R3", "busy")], "told before R1 is done"
        model.gate.set()
        await bench.until(4)
        await asyncio.sleep(0.01)
    assert [(type(e).__name__, e.request_id) for e in bench.events[2:]] == [
        ("SignalsReceived", "R1"), ("SignalsReceived", "R4"),
    ]  # fmt: skip
    assert len(model.asked) == 2


async def test_requests_before_the_start_are_not_lost():
    bench = Bench(Scripted())
    bench.analyst.execute(request(request_id="R1"))
    bench.analyst.execute(request(request_id="R2"))
    bench.analyst.execute(CancelOrder("o", "i", "not for us"))
    async with bench:
        await bench.until(2)
    assert [(type(e).__name__, e.request_id) for e in bench.events] == [
        ("SignalsSkipped", "R1"),
        ("SignalsReceived", "R2"),
    ]


async def test_an_empty_agenda_asks_nobody():
    model = Scripted()
    async with Bench(model) as bench:
        empty = msgspec.structs.replace(request(), markets=())
        assert await bench.ask(empty) == SignalsSkipped("R1", "empty_agenda")
    assert bench.said == [(Level.INFO, "No markets to analyze")] and not model.asked


async def test_a_short_rate_wait_is_waited_and_a_long_one_skips():
    model = Scripted()
    async with Bench(model, limit=2, deadline_s=30.0, timeout_s=20.0) as bench:
        await bench.ask(request())
        bench.now += 10 * NS_PER_S
        await bench.ask(request())
        bench.now += 5 * NS_PER_S
        assert await bench.ask(request(request_id="R3")) == SignalsSkipped("R3", "rate_wait")
        assert bench.said == [(Level.INFO, "Rate limit: 2/2 RPM. Waiting 45.0s...")] and bench.slept == []
        bench.now += 25 * NS_PER_S
        assert isinstance(await bench.ask(request(request_id="R4")), SignalsReceived)
        assert bench.slept == [20.0]
    assert model.deadlines == [20.0, 20.0, 10.0], "waiting is taken from the call's time"
    assert [f.outcome for f in bench.facts] == ["ok", "ok", "rate_wait", "ok"]


async def test_a_call_that_would_have_no_time_left_is_not_begun():
    model = Scripted()
    async with Bench(model, limit=1, deadline_s=31.0) as bench:
        await bench.ask(request())
        bench.now += 30 * NS_PER_S
        assert await bench.ask(request(request_id="R2")) == SignalsSkipped("R2", "rate_wait")
    assert len(model.asked) == 1 and bench.slept == []


async def test_retry_after_is_honoured_within_reason():
    model = Scripted(ProviderError("rate_limit", "slow down", retry_after_s=90.0), ProviderError("overload", "x", 1e9))
    async with Bench(model) as bench:
        assert (await bench.ask(request())).reason == "rate_limit"
        assert await bench.ask(request(request_id="R2")) == SignalsSkipped("R2", "rate_wait")
        bench.now += 90 * NS_PER_S
        assert (await bench.ask(request())).reason == "overload"
        bench.now += 120 * NS_PER_S
        assert isinstance(await bench.ask(request()), SignalsReceived)
    assert bench.facts[0].retry_after_s == 90.0
    assert "patience" in bench.said[0][1]


async def test_a_spent_budget_is_a_failure_and_asks_nobody():
    model = Scripted()
    async with Bench(model, budget=Decimal("0.003")) as bench:
        await bench.ask(request())
        await bench.ask(request())
        event = await bench.ask(request(request_id="R3"))
        assert isinstance(event, SignalsFailed) and (event.reason, event.cost) == ("budget", 0)
        assert "llm.daily_budget_usd" in event.detail and len(model.asked) == 2
        bench.now += 86_400 * NS_PER_S
        assert isinstance(await bench.ask(request()), SignalsReceived)


async def test_an_unknown_price_is_charged_as_the_worst_case():
    async with Bench(Scripted(cost=None), unknown_cost_usd=Decimal("0.04")) as bench:
        event = await bench.ask(request())
    assert event.cost == 40_000 and bench.facts[0].price_source == "unknown"
    assert bench.budget.spent_usd(bench.now) == Decimal("0.04")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (ProviderError("auth", "no"), "auth"), (TimeoutError(), "timeout"), (ConnectionResetError("x"), "connection"),
        (ValueError("odd"), "malformed"), (KeyError("k"), "malformed"), (ArithmeticError(), "malformed"),
        ("", "malformed"), ("prose", "malformed"), (good("M5"), "malformed"), (good()[:-4], "truncated"),
    ],
)  # fmt: skip
async def test_whatever_happens_there_is_one_event(step, reason):
    async with Bench(Scripted(step)) as bench:
        event = await bench.ask(request())
        assert isinstance(event, SignalsFailed) and event.reason == reason
        assert isinstance(await bench.ask(request(request_id="R2")), SignalsReceived), "the next one is served"
    assert [f.outcome for f in bench.facts] == [reason, "ok"]
    assert event.cost == (0 if isinstance(step, Exception) else 2000), "a useless answer costs money all the same"


async def test_a_bug_of_ours_is_not_swallowed():
    async with Bench(Scripted(TypeError("bug"))) as bench:
        bench.analyst.execute(request())
        with pytest.raises(TypeError, match="bug"):
            async with asyncio.timeout(2):
                await bench.task
    assert bench.events == []


async def test_a_provider_that_forgets_its_deadline_is_cut_off():
    model = Scripted()
    model.gate.clear()
    async with Bench(model, timeout_s=0.0, deadline_s=60.0) as bench:
        event = await bench.ask(request())
    assert event.reason == "timeout"


_EXPECTED = {
    "ok": "ok", "seed": "ok", "fenced": "ok", "bare_list": "ok", "billed": "ok", "ticks": "ok", "no_usage": "ok",
    "garbage": "malformed", "prose": "malformed", "nan": "malformed", "wrong_handle": "malformed",
    "duplicate_keys": "malformed", "empty_text": "malformed", "no_signals": "malformed", "empty_body": "malformed",
    "html": "malformed", "not_completion": "malformed", "huge": "malformed", "truncated": "truncated",
    "refusal": "refusal", "filtered": "refusal", "hang": "timeout", "drip": "timeout", "reset": "connection",
    "400": "bad_request", "404": "bad_request", "413": "bad_request", "307": "bad_request", "401": "auth",
    "403": "auth",
    "402": "billing", "429_quota": "billing", "429": "rate_limit", "500": "overload", "503": "overload",
    "529": "overload",
    "schema_400": "ok", "object_400": "ok",
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
async def test_each_misbehaviour_end_to_end(step):
    """Socket -> SDK -> parse -> event, for every step the fake server knows."""
    async with ModelServer([step], hang_s=20.0) as server:
        model = OpenAICompatible(
            PROVIDERS["openai_compatible"],
            api_key=THROWAWAY_KEY,
            base_url=server.url,
            model="m",
            pricer=Pricer("", "m", local=True),
        )
        call_s = 0.3 if step in ("hang", "drip") else 5.0
        async with Bench(model, timeout_s=call_s) as bench:
            event = await bench.ask(request(brief("0xaa"), brief("0xbb")))
        await model.close()
    got = "ok" if isinstance(event, SignalsReceived) else event.reason
    assert got == _EXPECTED[step]
    if got == "ok":
        assert [s.market_id for s in event.signals] == ["0xaa", "0xbb"]
    everything = msgspec.json.encode([event]).decode() + msgspec.json.encode(bench.facts).decode() + str(bench.said)
    assert THROWAWAY_KEY not in everything
