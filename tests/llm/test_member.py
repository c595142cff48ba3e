"""One model: each failure reaches its reaction, each call is paid for, nothing is asked in vain or too often."""

import asyncio
import json
from decimal import Decimal

import pytest

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.budget import Pricer, Usage
from llm_maker.llm.prompt import render
from llm_maker.llm.providers import ProviderError
from llm_maker.llm.templates import BUILT_IN, Template
from tests.llm.members import NEVER, Scripted, Time, good, member
from tests.llm.samples import request

QUESTION = render(request())
BYTES = sum(len(text.encode()) for text in (QUESTION.system, QUESTION.user)) + len(
    json.dumps(QUESTION.schema, separators=(",", ":"))
)
WORST = (BYTES + 512 + 4_000 * 10) / Decimal(10**6)
"""Of `members.PRICED`."""


def budget(limit=None):
    from llm_maker.llm.budget import DailyBudget

    return DailyBudget(limit)


async def ask(*steps, times=1, deadline_s=20.0, gap_s=45.0, limit=None, **changed):
    """The replies of a member asked again and again, with all that can be looked at."""
    time, said = Time(), []
    fields = {name: changed.pop(name) for name in ("cost", "takes_s") if name in changed}
    model = Scripted(*steps, time=time, **fields)
    asked, purse, replies = member(model, said=said, **changed), budget(limit), []
    async with time.running():
        for i in range(times):
            if i:
                await time.sleep(gap_s)
            replies.append(await asked.ask(QUESTION, deadline_s, purse))
    return replies, model, asked, purse, said


async def test_a_good_answer():
    (reply,), model, asked, purse, said = await ask(good())
    assert (reply.outcome, reply.attempts, reply.cost_usd, reply.price_source) == ("ok", 1, Decimal("0.002"), "table")
    assert reply.completion.text == good() and reply.latency_ms == 1000.0 and said == []
    assert all(waiter.done() for *_, waiter in model.time._due), "no timer is left behind"
    assert purse.spent_usd(asked._clock()) == Decimal("0.002") and asked.breaker.counts == {"ok": 1}
    assert model.deadlines == [pytest.approx(19.6)], "the client's own deadline comes before ours"


def error(kind, **changed):
    return ProviderError(kind, f"{kind} it was", **changed)


@pytest.mark.parametrize("kind", ["auth", "billing", "bad_request"])
async def test_stop_and_alarm(kind):
    replies, model, asked, _, said = await ask(*[error(kind)] * 9, times=200)
    assert [r.outcome for r in replies[:2]] == [kind, "open"] and replies[1].cause == kind and "stopped" in replies[1].detail
    assert len(model.asked) == 3, "200 cycles of 45 s are two and a half hours"
    ((level, text),) = said
    assert level is Level.ERROR and kind in text and asked.name in text


async def test_wait_as_told():
    replies, model, _, _, said = await ask(error("rate_limit", retry_after_s=50.0), times=2, gap_s=20.0, deadline_s=40.0)
    assert [r.outcome for r in replies] == ["rate_limit", "ok"] and replies[1].latency_ms == 31_000.0
    assert said == [(Level.INFO, "m: the model's server asked for patience. Waiting 30.0s...")]
    assert model.deadlines[1] == pytest.approx(0.98 * 10), "waiting is taken from the call's time"
    replies, model, *_ = await ask(error("rate_limit", retry_after_s=90.0), times=2)
    assert [r.outcome for r in replies] == ["rate_limit", "rate_wait"] and len(model.asked) == 1


async def test_a_long_patience_is_an_outage_and_not_a_wait():
    replies, model, *_ = await ask(error("rate_limit", retry_after_s=1e9), times=85)
    assert [r.outcome for r in replies[:3]] == ["rate_limit", "open", "open"] and replies[1].cause == "rate_limit"
    assert "rate_wait" in {r.outcome for r in replies}, "near its end it is one"
    assert replies[-1].outcome == "ok" and len(model.asked) >= 2, "an hour is the most"


@pytest.mark.parametrize("kind", ["overload", "connection"])
async def test_one_retry_and_then_back_off(kind):
    replies, model, asked, _, said = await ask(error(kind), times=1)
    assert (replies[0].outcome, replies[0].attempts) == ("ok", 2) and replies[0].latency_ms == 2_500.0
    replies, model, asked, _, said = await ask(*[error(kind)] * 9, times=3)
    assert [(r.attempts, r.latency_ms) for r in replies] == [(2, 2_500.0), (1, 1_000.0), (1, 1_000.0)] and [
        r.outcome for r in replies
    ] == [kind] * 3
    assert asked.breaker.state == "open" and len(model.asked) == 4, "the third failure opens it, 45 s later comes a probe"
    assert [level for level, _ in said] == [Level.WARNING]


async def test_a_retry_waits_as_told_or_is_left():
    (reply,), *_ = await ask(error("overload", retry_after_s=7.0))
    assert (reply.outcome, reply.attempts, reply.latency_ms) == ("ok", 2, 9_000.0)
    (reply,), *_ = await ask(error("overload", retry_after_s=9.5))
    assert (reply.outcome, reply.attempts) == ("overload", 1), "less than half of the deadline would be left"
    (reply,), *_ = await ask(error("overload"), takes_s=9.6)
    assert reply.attempts == 1
    (reply,), *_ = await ask(error("overload"), limit=WORST, rate=_one_a_minute())
    assert reply.attempts == 1, "the rate is ours to keep"


def _one_a_minute():
    from llm_maker.llm.budget import RateLimit

    return RateLimit(1)


@pytest.mark.parametrize("kind", ["timeout", "refusal", "malformed", "rate_limit", "auth", "billing", "bad_request"])
async def test_what_does_not_pass_is_not_asked_again(kind):
    (reply,), model, *_ = await ask(error(kind))
    assert (reply.outcome, reply.attempts, reply.detail) == (kind, 1, f"{kind} it was") and len(model.asked) == 1


@pytest.mark.parametrize("kind", ["refusal", "malformed"])
async def test_a_useless_answer_is_counted_and_asked_again_next_time(kind):
    _, model, asked, *_ = await ask(*[error(kind)] * 20, times=20)
    assert len(model.asked) == 20 and asked.breaker.counts == {kind: 20}


@pytest.mark.parametrize(
    ("step", "outcome", "cost", "source"),
    [
        (error("connection", retry_after_s=99.0), "connection", Decimal(0), None),
        (error("overload", maybe_billed=True, retry_after_s=99.0), "overload", WORST, "assumed"),
        (error("timeout", maybe_billed=True), "timeout", WORST, "assumed"),
        (error("timeout"), "timeout", Decimal(0), None),
        (error("malformed", usage=Usage(input=1_000, output=100)), "malformed", Decimal("0.002"), "config"),
        (TimeoutError(), "timeout", WORST, "assumed"),
        (NEVER, "timeout", WORST, "assumed"),
        (ValueError("odd"), "malformed", WORST, "assumed"),
        (KeyError("odd"), "malformed", WORST, "assumed"),
        (ArithmeticError("odd"), "malformed", WORST, "assumed"),
    ],
)
async def test_who_pays_for_a_failure(step, outcome, cost, source):
    (reply,), _, asked, purse, _ = await ask(step)
    assert (reply.outcome, reply.cost_usd, reply.price_source) == (outcome, cost, source)
    assert purse.spent_usd(asked._clock()) == cost and purse.to_plain()["spent_usd"] == str(cost), "nothing stays set aside"


@pytest.mark.parametrize(("step", "cost"), [(ConnectionRefusedError("x"), Decimal(0)), (ConnectionResetError("x"), 2 * WORST)])
async def test_a_connection_that_was_refused_costs_nothing_and_one_that_broke_may(step, cost):
    (reply,), *_ = await ask(step, step)
    assert (reply.outcome, reply.attempts, reply.cost_usd) == ("connection", 2, cost)


async def test_an_unknown_price_is_the_configured_one_and_said_once():
    replies, _, asked, purse, said = await ask(times=3, cost=None, per_million=None)
    assert {(r.cost_usd, r.price_source) for r in replies} == {(Decimal("0.05"), "unknown")}
    assert purse.spent_usd(asked._clock()) == Decimal("0.15") and [level for level, _ in said] == [Level.ERROR]
    assert "llm.unknown_call_usd" in said[0][1]
    (reply,), *_ = await ask(NEVER, per_million=None)
    assert (reply.cost_usd, reply.price_source) == (Decimal("0.05"), "unknown")
    for nonsense in (Decimal("NaN"), Decimal("-1"), Decimal("Infinity")):
        (reply,), *_ = await ask(cost=nonsense)
        assert (reply.cost_usd, reply.price_source) == (WORST, "assumed"), "of a known price no more than was set aside"


async def test_a_dearer_call_than_was_thought_possible_is_booked_and_said():
    replies, _, asked, purse, said = await ask(cost=Decimal(3), limit=Decimal(4), times=3)
    assert [r.outcome for r in replies] == ["ok", "ok", "budget"]
    assert purse.spent_usd(asked._clock()) == 6 and purse.exhausted(asked._clock())
    ((level, text),) = said
    assert level is Level.WARNING and "3 USD" in text


async def test_a_budget_that_does_not_hold_the_worst_is_not_touched():
    (reply,), model, *_ = await ask(limit=WORST - Decimal("0.000001"))
    assert reply.outcome == "budget" and not model.asked and "llm.daily_budget_usd" in reply.detail
    replies, model, *_ = await ask(limit=WORST, times=2)
    assert [r.outcome for r in replies] == ["ok", "budget"]
    replies, *_ = await ask(limit=Decimal(0), times=2, pricer=Pricer("", "m", local=True), cost=Decimal(0))
    assert [r.outcome for r in replies] == ["ok", "ok"], "a server of one's own costs nothing"
    replies, model, *_ = await ask(error("overload", maybe_billed=True), limit=WORST * 3 / 2)
    assert (replies[0].outcome, len(model.asked)) == ("overload", 1), "no retry without the money for it"


async def test_the_rate_is_waited_for_in_the_seeds_words():
    replies, model, _, _, said = await ask(times=2, limit=None, gap_s=14.0, deadline_s=50.0, rate=_one_a_minute())
    assert said == [(Level.INFO, "Rate limit: 1/1 RPM. Waiting 45.0s...")] and replies[1].outcome == "ok"
    replies, model, _, _, said = await ask(times=2, gap_s=41.0, deadline_s=18.0, rate=_one_a_minute())
    assert [r.outcome for r in replies] == ["ok", "rate_wait"], "one second is not enough for a call"
    assert replies[1].detail == "Rate limit: 1/1 RPM. Waiting 18.0s..." and len(model.asked) == 1


async def test_a_sleep_that_takes_longer_than_asked_leaves_no_time_for_a_call():
    time, rate = Time(), _one_a_minute()
    rate.take(time.now)
    model = Scripted(time=time)

    async def drowsy(seconds):
        await time.sleep(seconds + 30)

    async with time.running():
        reply = await member(model, rate=rate, sleep=drowsy).ask(QUESTION, 70.0, budget())
    assert reply.outcome == "rate_wait" and not model.asked


async def test_a_clock_that_steps_back_between_two_looks_is_no_bug():
    time = Time()
    model = Scripted(error("rate_limit", retry_after_s=30.0), time=time)
    back = iter(range(10**6))
    asked = member(model, clock=lambda: time.now - next(back))
    async with time.running():
        assert (await asked.ask(QUESTION, 20.0, budget())).outcome == "rate_limit"
        for _ in range(3):
            await time.sleep(30)
            assert (await asked.ask(QUESTION, 20.0, budget())).outcome in ("ok", "rate_wait")


async def test_two_who_share_a_rate_keep_it_together():
    time, rate = Time(), _one_a_minute()
    models = [Scripted(time=time, model=name) for name in "ab"]
    async with time.running():
        replies = await asyncio.gather(*(member(m, rate=rate).ask(QUESTION, 40.0, budget()) for m in models))
    assert [r.outcome for r in replies] == ["ok", "rate_wait"]


async def test_a_cancelled_call_is_paid_in_full_and_leaves_the_place_free():
    time = Time()
    model = Scripted(NEVER, time=time)
    asked, purse = member(model), budget(Decimal(1))
    task = asyncio.create_task(asked.ask(QUESTION, 20.0, purse))
    while not model.asked:
        await asyncio.sleep(0)
    assert purse.to_plain()["spent_usd"] == str(WORST) and purse.spent_usd(time.now) == 0, "set aside"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert purse.spent_usd(time.now) == WORST and asked.breaker.may(time.now)
    await asyncio.sleep(0)
    assert model.ended == 1, "the client's call has ended too"


async def test_a_cancelled_probe_leaves_its_place_free():
    time = Time()
    asked = member(Scripted(*[error("overload")] * 3, NEVER, time=time))
    async with time.running():
        for _ in range(2):
            await asked.ask(QUESTION, 20.0, budget())
        await time.sleep(60)
        probe = asyncio.create_task(asked.ask(QUESTION, 20.0, budget()))
        await time.sleep(1)
        assert (await asked.ask(QUESTION, 20.0, budget())).outcome == "open", "one probe at a time"
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert (await asked.ask(QUESTION, 20.0, budget())).outcome == "ok"


async def test_a_client_that_will_not_be_cancelled_does_not_hold_us_up():
    time, freed = Time(), asyncio.Event()

    class Stubborn(Scripted):
        async def complete(self, *words):
            try:
                await freed.wait()
            except asyncio.CancelledError:
                await freed.wait()
            raise RuntimeError("whom nobody asks any more")

    async with time.running(), asyncio.timeout(5):
        reply = await member(Stubborn(time=time)).ask(QUESTION, 20.0, budget())
    assert reply.outcome == "timeout" and time.now == Time().now + 20 * NS_PER_S
    freed.set()
    await asyncio.sleep(0)


async def test_a_bug_of_ours_is_not_swallowed_and_is_paid_for():
    time, purse = Time(), budget()
    async with time.running():
        with pytest.raises(TypeError, match="bug"):
            await member(Scripted(TypeError("bug"), time=time)).ask(QUESTION, 20.0, purse)
    assert purse.spent_usd(time.now) == WORST


def test_the_key_tells_model_prompt_and_arm_apart():
    own = Template(name="terse", system="", ask="", market="", version="v")
    model = Scripted(time=Time(), provider="openai", model="gpt-6-luna")
    assert member(model).last_key == "openai/gpt-6-luna"
    assert member(model, template=own).key("gpt-6-luna-2026") == "openai/gpt-6-luna-2026#terse"
    assert member(model, blind=True, template=own).last_key == "openai/gpt-6-luna#terse~blind"
    assert member(model, template=BUILT_IN).key("x|y+z#a~blind\n b" + "c" * 999).startswith("openai/x_y_z_a_blind_b")
    assert len(member(model).key("c" * 999)) <= 120


async def test_the_key_follows_the_servers_name():
    _, _, asked, *_ = await ask()
    assert asked.last_key == "fake/fake-model-1"


async def test_a_foreign_error_is_not_quoted():
    for step in (ValueError("Invalid header value b'Bearer sk-throwaway'"), OSError("https://x/?key=sk-throwaway")):
        (reply,), *_ = await ask(step, step)
        assert "sk-throwaway" not in repr(reply) and type(step).__name__ in reply.detail
