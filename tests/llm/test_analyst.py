"""The port to the models: one event per request, the newest wins, several side by side, the reserve, the pool, the bill."""

import asyncio
import random
from decimal import Decimal
from typing import get_args

import msgspec
import pytest

from llm_maker.core.advice import Action
from llm_maker.core.commands import CancelOrder, Level
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.analyst import _GRAVITY, Analyst, AnalystSettings
from llm_maker.llm.budget import DAY_NS, DailyBudget, RateLimit
from llm_maker.llm.prompt import PROMPT_VERSION, render
from llm_maker.llm.providers import Kind, ProviderError
from llm_maker.llm.templates import Template
from tests.llm.members import NEVER, T0, Scripted, Time, good, member, signal
from tests.llm.samples import brief, request
from tests.llm.test_answer import SEED_EXAMPLE

YES = {"action": "buy_yes", "directional_bias": "bullish"}


class Bench:
    """An analyst around scripted models in market time; what it says, records and emits is kept."""

    def __init__(
        self, *scripts, reserve=(), limit=None, mode="pool", skills=None, chooser=None, show=render, members=None, **settings
    ):
        self.time = Time()
        self.events, self.facts, self.said = [], [], []
        self.budget = DailyBudget(limit)
        changed = members or {}
        self.models = [self._model(name, script) for name, script in zip("abcdefgh", scripts, strict=False)]
        self.spares = [self._model(name, script) for name, script in zip("rst", reserve, strict=False)]
        self.members = [member(model, model.model, said=self.said, **changed) for model in self.models]
        self.analyst = Analyst(
            self.members,
            [member(model, model.model, said=self.said, **changed) for model in self.spares],
            render=lambda asked, one: show(asked, one.template),
            skills={} if skills is None else skills,
            mode=mode,
            budget=self.budget,
            record=self.facts.append,
            say=lambda level, text: self.said.append((level, text)),
            settings=AnalystSettings(**settings),
            chooser=chooser,
            clock=self.time.clock,
        )

    def _model(self, name, script):
        steps, changed = (
            (script, {}) if isinstance(script, list) else (script["steps"], {k: v for k, v in script.items() if k != "steps"})
        )
        return Scripted(*steps, time=self.time, provider="fake", model=name, **changed)

    async def cycles(self, count=1, *markets, gap_s=45.0):
        """The events of so many requests, each asked when the one before was answered and the gap is over."""
        events = []
        async with self.time.running():
            for i in range(count):
                event, facts = await self.analyst.answer(request(*markets, request_id=f"R{i}"))
                msgspec.json.encode((event, facts))
                events.append(event)
                self.facts.append(facts)
                if i + 1 < count:
                    await self.time.sleep(gap_s)
        return events

    def levels(self):
        return [level for level, _ in self.said]


class Served(Bench):
    """The same as a port: requests in, events out."""

    async def __aenter__(self):
        self._ticking = self.time.running()
        await self._ticking.__aenter__()
        self.task = asyncio.create_task(self.analyst.run(self.events.append))
        return self

    async def __aexit__(self, *exc):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._ticking.__aexit__(*exc)

    async def until(self, count):
        async with asyncio.timeout(8):
            while len(self.events) < count and not self.task.done():
                await asyncio.sleep(0)


def fault(kind, **changed):
    return ProviderError(kind, f"{kind} it was", **changed)


async def test_a_good_answer_of_one():
    bench = Bench([])
    (event,) = await bench.cycles()
    assert isinstance(event, SignalsReceived)
    assert (event.request_id, event.decision_id, event.model) == ("R0", "D-R0", "fake/a-1")
    assert (event.prompt_version, event.cost, event.simulated, event.invalid) == (PROMPT_VERSION, 2000, False, 0)
    assert [s.market_id for s in event.signals] == ["0xaaaa"]
    (answered,) = event.members
    assert (answered.model, answered.outcome, answered.weight, answered.cost) == ("fake/a-1", "ok", 1.0, 2000)
    (facts,) = bench.facts
    assert (facts.outcome, facts.decision_id, facts.raw_answer, facts.provider) == ("ok", "D-R0", good(), "fake")
    assert facts.signals == event.signals and "[M1]" in facts.user and facts.request.request_id == "R0"
    assert (facts.latency_ms, facts.usage.input, facts.price_source) == (1000.0, 100, "table")
    (one,) = facts.members
    assert (one.name, one.system, one.user, one.attempts, one.raw_answer) == ("a", "", "", 1, good())
    assert bench.budget.spent_usd(bench.time.now) == Decimal("0.002") and bench.said == []


async def test_the_seeds_example_is_accepted():
    (event,) = await Bench([SEED_EXAMPLE]).cycles(1, brief("0xaa"), brief("0xbb"))
    assert [(s.market_id, s.action.value, s.confidence, s.p_yes) for s in event.signals] == [
        ("0xaa", "buy_yes", 0.82, None), ("0xbb", "hold", 0.4, None),
    ]  # fmt: skip


async def test_the_newest_request_wins_and_each_is_answered():
    gate = asyncio.Event()
    async with Served([]) as bench:
        ask = bench.models[0].complete

        async def complete(*words):
            await gate.wait()
            return await ask(*words)

        bench.models[0].complete = complete
        bench.analyst.execute(request(request_id="R1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for name in ("R2", "R3", "R4"):
            bench.analyst.execute(request(request_id=name))
        await bench.until(2)
        assert bench.events == [SignalsSkipped("R2", "busy"), SignalsSkipped("R3", "busy")], "told before R1 is done"
        gate.set()
        await bench.until(4)
        await asyncio.sleep(0)
    assert [(type(e).__name__, e.request_id) for e in bench.events[2:]] == [
        ("SignalsReceived", "R1"), ("SignalsReceived", "R4"),
    ]  # fmt: skip
    assert [f.request.request_id for f in bench.facts] == ["R1", "R4"]


async def test_requests_before_the_start_are_not_lost():
    bench = Served([])
    bench.analyst.execute(request(request_id="R1"))
    bench.analyst.execute(request(request_id="R2"))
    bench.analyst.execute(CancelOrder("o", "i", "not for us"))
    async with bench:
        await bench.until(2)
    assert [(type(e).__name__, e.request_id) for e in bench.events] == [("SignalsSkipped", "R1"), ("SignalsReceived", "R2")]


async def test_an_empty_agenda_asks_nobody():
    bench = Bench([])
    event, facts = await bench.analyst.answer(msgspec.structs.replace(request(), markets=()))
    assert event == SignalsSkipped("R1", "empty_agenda") and facts.outcome == "empty_agenda"
    assert bench.said == [(Level.INFO, "No markets to analyze")] and not bench.models[0].asked


async def test_a_bug_of_ours_is_not_swallowed():
    async with Served([TypeError("bug")], [NEVER]) as bench:
        bench.analyst.execute(request())
        with pytest.raises(TypeError, match="bug"):
            async with asyncio.timeout(2):
                await bench.task
        assert bench.time.now == T0 + NS_PER_S and bench.models[1].ended == 1, "and takes the others with it at once"
    assert bench.events == []


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (fault("auth"), "auth"), (TimeoutError(), "timeout"), (NEVER, "timeout"), (ValueError("odd"), "malformed"),
        ("", "malformed"), ("prose", "malformed"), (good(signal("M5")), "malformed"), (good()[:-4], "truncated"),
    ],
)  # fmt: skip
async def test_whatever_happens_there_is_one_event(step, reason):
    bench = Bench([step])
    event, after = await bench.cycles(2)
    assert isinstance(event, SignalsFailed) and event.reason == reason
    if reason == "auth":
        assert isinstance(after, SignalsFailed) and after.reason == "auth" and "stopped" in after.detail
    else:
        assert isinstance(after, SignalsReceived), "the next one is served"
    if isinstance(step, str) and step is not NEVER:
        assert event.cost == 2000, "a useless answer costs money all the same"
        assert bench.members[0].breaker.counts[reason] == 1
    assert bench.facts[0].outcome == reason


async def test_only_a_wait_is_no_failure():
    bench = Bench([], members={"rate": RateLimit(1)}, deadline_s=30.0)
    events = await bench.cycles(2, gap_s=10.0)
    assert events[1] == SignalsSkipped("R1", "rate_wait") and bench.facts[1].outcome == "rate_wait"
    assert bench.said == [(Level.INFO, "Rate limit: 1/1 RPM. Waiting 49.0s...")]
    both = Bench([], [fault("overload", retry_after_s=99.0)] * 2, members={"rate": RateLimit(2)}, deadline_s=30.0)
    events = await both.cycles(2, gap_s=10.0)
    assert events[1] == SignalsSkipped("R1", "rate_wait")


async def test_a_failure_beside_a_wait_is_a_failure():
    bench = Bench([good(), fault("timeout")], [fault("rate_limit", retry_after_s=90.0)])
    events = await bench.cycles(2, gap_s=10.0)
    assert [m.outcome for m in events[0].members] == ["ok", "rate_limit"]
    assert [m.outcome for m in bench.facts[1].members] == ["timeout", "rate_wait"] and events[1].reason == "timeout"


async def test_a_spent_budget_is_a_failure_and_asks_nobody():
    bench = Bench([], [], limit=Decimal("0.001"))
    (event,) = await bench.cycles()
    assert (event.reason, event.cost) == ("budget", 0) and "llm.daily_budget_usd" in event.detail
    assert not any(model.asked for model in bench.models)


async def test_side_by_side_and_pooled():
    up, down = good(signal(p_yes=0.9, **YES)), good(signal(p_yes=0.5))
    bench = Bench(
        [up],
        [down],
        skills={"fake/a-1|": Skill(weight=0.0, slope=0.3, signals=99), "fake/b-1|": Skill(weight=0.0, slope=0.1, signals=99)},
    )
    (event,) = await bench.cycles()
    assert event.model == "pool:fake/a+fake/b" and event.cost == 4000
    (pooled,) = event.signals
    assert pooled.action is Action.BUY_YES and pooled.confidence == pytest.approx(0.45) and pooled.disagreement > 0.9
    assert [(m.model, m.weight, m.signals[0].p_yes) for m in event.members] == [
        ("fake/a-1", pytest.approx(0.75), 0.9), ("fake/b-1", pytest.approx(0.25), 0.5),
    ]  # fmt: skip
    assert bench.facts[0].latency_ms == 1000.0, "not one after the other"
    assert bench.facts[0].raw_answer == "" and [m.raw_answer for m in bench.facts[0].members] == [up, down]
    assert bench.facts[0].usage.input == 200 and bench.facts[0].cost_usd == Decimal("0.004")


async def test_the_vote_alone_where_it_is_wished_and_only_among_several():
    script = [good(signal(p_yes=0.9, **YES))]
    (event,) = await Bench(script, list(script), mode="vote").cycles()
    assert event.signals[0].p_yes is None and event.members[0].signals[0].p_yes == 0.9
    (event,) = await Bench(list(script), mode="vote").cycles()
    assert event.signals[0].p_yes == 0.9


async def test_who_hangs_is_left_out_and_holds_nobody_up():
    bench = Bench([NEVER, NEVER, NEVER], [], timeout_s=20.0)
    first, second, *_, last = await bench.cycles(5)
    assert bench.facts[0].latency_ms == 20_000.0
    assert first.model == second.model == "pool:fake/a+fake/b", "the name stays when one of it is out"
    assert last.model == "pool:fake/a+fake/b"
    assert [(m.outcome, m.weight) for m in first.members] == [("timeout", 0.0), ("ok", 1.0)]
    assert [s.disagreement for s in first.signals] == [0.0]
    assert [text.split(" (")[0].split(":")[0] for _, text in bench.said] == [
        "a is left out", "a", "a", "a answers again and is asked for its part as before",
    ], "once per episode; between them the breaker's two words"  # fmt: skip
    assert bench.levels() == [Level.WARNING, Level.WARNING, Level.INFO, Level.INFO]


async def test_the_reserve_stands_in_under_its_own_name_one_after_another():
    bench = Bench([fault("overload")] * 2, [fault("malformed")], reserve=([fault("refusal")], []))
    events = await bench.cycles(2)
    assert events[0].model == "fake/s-1" and events[1].model == "pool:fake/a+fake/b"
    assert [(m.model, m.outcome) for m in events[0].members] == [
        ("fake/a", "overload"), ("fake/b", "malformed"), ("fake/r", "refusal"), ("fake/s-1", "ok"),
    ]  # fmt: skip
    assert [len(model.asked) for model in bench.spares] == [1, 1], "only where nobody else answered"
    stand_in = [(level, text) for level, text in bench.said if "stand" in text]
    assert [level for level, _ in stand_in] == [Level.WARNING, Level.INFO]


async def test_a_reserve_without_time_is_not_asked():
    bench = Bench([NEVER], reserve=([],), timeout_s=20.0, deadline_s=21.0)
    (event,) = await bench.cycles()
    assert event.reason == "timeout" and not bench.spares[0].asked
    late = Bench([NEVER], reserve=([NEVER],), timeout_s=20.0, deadline_s=25.0)
    (event,) = await late.cycles()
    assert event.reason == "timeout" and late.facts[0].latency_ms == 25_000.0, "the whole cycle keeps its deadline"


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (("timeout", "auth", "billing"), "auth"), (("billing", "bad_request"), "billing"),
        (("overload", "bad_request"), "bad_request"), (("timeout", "overload"), "overload"),
        (("malformed", "timeout"), "malformed"), (("connection", "timeout"), "timeout"),
    ],
)  # fmt: skip
async def test_all_fail_is_one_failure_named_after_the_gravest(kinds, reason):
    bench = Bench(*([fault(kind, retry_after_s=99.0)] for kind in kinds))
    (event,) = await bench.cycles()
    assert isinstance(event, SignalsFailed) and event.reason == reason
    assert all(f"{name}: {kind}" in event.detail for name, kind in zip("abc", kinds, strict=False))
    assert len(event.detail) <= 300


def test_every_failure_has_its_place_among_the_gravest():
    assert {*get_args(Kind), "truncated", "budget"} == {*_GRAVITY}


async def test_a_stopped_one_does_not_make_a_budget_failure_of_the_other():
    bench = Bench([fault("auth")], [], limit=Decimal("0.1"))
    first, second = await bench.cycles(2)
    assert isinstance(first, SignalsReceived) and isinstance(second, SignalsReceived)
    bench.budget.charge(bench.time.now, Decimal("0.08"))
    (third,) = await bench.cycles()
    assert (third.reason, bench.facts[-1].members[1].outcome) == ("auth", "budget")


@pytest.mark.parametrize(("portfolio", "share"), [(True, 0.3), (False, None)])
async def test_a_share_counts_only_where_it_was_asked_for(portfolio, share):
    (event,) = await Bench([good(signal(share=0.3))], portfolio=portfolio).cycles()
    assert event.signals[0].share == share


async def test_a_chooser_asks_only_whom_it_chose():
    bench = Bench([], [], chooser=lambda asked, members: members[1:])
    (event,) = await bench.cycles()
    assert event.model == "fake/b-1" and not bench.models[0].asked
    with pytest.raises(AssertionError):
        await Bench([], chooser=lambda asked, members: ()).cycles()


async def test_each_is_asked_in_its_own_words():
    terse = Template(name="terse", system="s", ask="a", market="$handle $question", version="p-terse")
    bench = Bench([], [])
    bench.members[1].template = terse
    (event,) = await bench.cycles()
    assert event.prompt_version == f"{PROMPT_VERSION}+p-terse" and event.members[1].model == "fake/b-1#terse"
    first, second = bench.facts[0].members
    assert first.user == "" and second.user == bench.models[1].asked[0] and second.user != bench.facts[0].user


async def test_cancelled_in_the_middle_of_a_cycle_everything_is_paid():
    async with Served([NEVER], [], limit=Decimal(1)) as bench:
        bench.analyst.execute(request())
        while not (bench.models[0].asked and bench.models[1].ended):
            await asyncio.sleep(0)
    spent, kept = bench.budget.spent_usd(bench.time.now), bench.budget.to_plain()["spent_usd"]
    assert spent == Decimal(kept) > Decimal("0.04"), "the one under way in full, nothing left set aside"
    assert bench.events == []
    await asyncio.sleep(0)
    assert bench.models[0].ended == 1


@pytest.mark.parametrize("seed", range(6))
async def test_no_day_costs_more_than_its_budget(seed):
    """Four models side by side for three days, costs at random up to the worst, every failure, over two midnights and restarts."""
    dice = random.Random(seed)
    limit, worst = Decimal("0.9"), Decimal("0.04")
    kinds = ("overload", "timeout", "connection", "rate_limit", "malformed", "refusal", "billing")
    bill, begun = {}, {}

    def cost():
        return worst * dice.randrange(101) / 100

    def script():
        return [
            dice.choice((good(), good(), "prose", NEVER, fault(dice.choice(kinds), maybe_billed=dice.random() < 0.5)))
            for _ in range(120)
        ]

    bench = Bench(*({"steps": script(), "cost": cost} for _ in range(4)), reserve=({"steps": script(), "cost": cost},), limit=limit)
    asked = 0
    async with bench.time.running():
        for i in range(100):
            day = bench.time.now // DAY_NS
            if i % 17 == 16:
                again = DailyBudget.from_plain(limit, bench.budget.to_plain())
                bench.budget = bench.analyst._budget = again
            _, facts = await bench.analyst.answer(request(request_id=f"R{i}"))
            bill[day] = bill.get(day, Decimal(0)) + facts.cost_usd
            begun[day] = begun.get(day, 0) + sum(m.attempts for m in facts.members)
            asked += sum(m.outcome == "budget" for m in facts.members)
            await bench.time.sleep(dice.uniform(60, 4_000))
    assert asked and len(bill) >= 2 and all(n > 5 for n in list(begun.values())[:-1]), "the budget was reached"
    assert all(usd <= limit for usd in bill.values()), (seed, bill)


async def test_midnight_within_a_call():
    bench = Bench({"steps": [], "takes_s": 10.0}, limit=Decimal("0.05"))
    bench.time.now = (T0 // DAY_NS + 1) * DAY_NS - 5 * NS_PER_S
    first, second = await bench.cycles(2)
    assert isinstance(first, SignalsReceived) and isinstance(second, SignalsReceived)
    assert bench.budget.spent_usd(bench.time.now) == Decimal("0.002"), "the first is on yesterday's bill"
