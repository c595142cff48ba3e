"""Virtual time: asyncio's own waiting in no time, in order, without an end to hang in; and a real model outside of it."""

import asyncio
import threading
import time as wall
from decimal import Decimal

import pytest

from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.analyst import Analyst, AnalystSettings
from llm_maker.llm.budget import DailyBudget, RateLimit, Usage
from llm_maker.llm.offline import Deadlock, OfflineAnalyst, Outside, VirtualTime
from llm_maker.llm.prompt import render
from llm_maker.llm.providers import Completion, ProviderError
from tests.llm.members import NEVER, T0, Scripted, good, member
from tests.llm.samples import brief, request

YEAR_S = 365 * 86_400.0


@pytest.fixture
def time():
    made = VirtualTime()
    made.sleep = asyncio.sleep
    yield made
    made.close()


# The loop.


def test_a_year_of_sleep_takes_no_time_and_ends_when_it_should(time):
    async def work():
        await asyncio.sleep(YEAR_S)
        return time.clock()

    began = wall.process_time()
    time.at(T0)
    assert time.run(work()) == T0 + int(YEAR_S) * NS_PER_S and wall.process_time() - began < 5.0


def test_many_sleeps_add_up_to_the_nanosecond(time):
    time.at(T0)

    async def work():
        for _ in range(1_000):
            await asyncio.sleep(0.1)

    time.run(work())
    assert time.clock() == T0 + 100 * NS_PER_S


def test_timers_fire_in_order_and_side_by_side(time):
    fired = []

    async def one(name, seconds):
        await asyncio.sleep(seconds)
        fired.append((name, asyncio.get_running_loop().time()))
        return name

    async def all_of_them():
        return await asyncio.gather(one("slow", 3.0), one("quick", 1.0), one("also quick", 1.0))

    assert time.run(all_of_them()) == ["slow", "quick", "also quick"]
    assert fired == [("quick", 1.0), ("also quick", 1.0), ("slow", 3.0)]


def test_timeouts_are_of_virtual_time(time):
    async def work():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10.0), 2.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.Event().wait()
        done, pending = await asyncio.wait({asyncio.ensure_future(asyncio.sleep(s)) for s in (1.0, 9.0)}, timeout=4.0)
        for late in pending:
            late.cancel()
        return len(done), asyncio.get_running_loop().time()

    assert time.run(work()) == (1, 9.0)


def test_a_cancelled_task_ends_where_it_stands(time):
    ended = []

    async def stubborn():
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            await asyncio.sleep(5.0)  # its own clean-up takes time
            ended.append(asyncio.get_running_loop().time())
            raise

    async def work():
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    time.run(work())
    assert ended == [6.0]


@pytest.mark.timeout(20)
def test_what_would_wait_for_ever_is_an_error_and_the_loop_is_still_good(time):
    async def for_ever():
        await asyncio.Event().wait()

    async def locked():
        lock = asyncio.Lock()
        async with lock:
            await lock.acquire()

    for hopeless in (for_ever, locked):
        with pytest.raises(Deadlock):
            time.run(hopeless())
    assert time.run(asyncio.sleep(1.0, "well")) == "well"


def test_an_error_comes_out_as_it_is(time):
    async def wrong():
        await asyncio.sleep(1.0)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        time.run(wrong())


def test_what_is_left_behind_goes_on_in_market_time_and_not_before(time):
    ended = []

    async def behind():
        await asyncio.sleep(10.0)
        ended.append(time.clock())

    async def leaves():
        tasks.append(asyncio.create_task(behind()))

    tasks = []
    time.at(T0)
    time.run(leaves())
    time.at(T0 + 9 * NS_PER_S)
    assert ended == [] and time.clock() == T0 + 9 * NS_PER_S
    time.at(T0 + 60 * NS_PER_S + 7)
    assert ended == [T0 + 10 * NS_PER_S] and time.clock() == T0 + 60 * NS_PER_S + 7
    time.at(T0)
    assert time.clock() == T0 + 60 * NS_PER_S + 7, "market time does not step back"


@pytest.mark.timeout(20)
def test_closing_ends_what_is_under_way_and_gives_up_what_will_not_end():
    made, ended = VirtualTime(), []

    async def polite():
        try:
            await asyncio.sleep(100.0)
        finally:
            ended.append("polite")

    async def deaf():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("deaf")

    tasks = []

    async def leave():
        tasks.extend(asyncio.create_task(work()) for work in (polite, deaf))
        await asyncio.sleep(1.0)

    made.run(leave())
    made.loop.set_exception_handler(lambda loop, context: None)
    made.close()
    assert sorted(ended) == ["deaf", "polite"] and made.loop.is_closed()
    tasks[1]._log_destroy_pending = False


# The analyst in it.


def analyst_of(time, *steps, limit=None, deadline_s=40.0, takes_s=1.0, **changed):
    facts, events = [], []
    model = Scripted(*steps, time=time, takes_s=takes_s)
    one = member(model, **changed)
    analyst = Analyst(
        [one],
        [],
        render=lambda asked, _: render(asked),
        skills={},
        mode="pool",
        budget=DailyBudget(limit),
        record=lambda told: None,
        say=lambda level, text: None,
        settings=AnalystSettings(timeout_s=20.0, deadline_s=deadline_s),
        clock=time.clock,
    )
    return OfflineAnalyst(analyst, time, facts.append), model, facts, events


def ask(offline, at_s, request_id="R1", drain=True):
    """(seconds it was due after, event)."""
    now = T0 + round(at_s * NS_PER_S)
    offline.execute(now, request(brief(), request_id=request_id))
    if not drain:
        return None
    due = offline.next_ns()
    assert offline.advance(due - 1) == []
    (event,) = offline.advance(due)
    assert offline.next_ns() is None
    return (due - now) / NS_PER_S, event


def test_an_answer_is_due_when_the_cycle_has_ended(time):
    offline, _, facts, _ = analyst_of(time, good(), ProviderError("refusal", "no"), NEVER, takes_s=1.5)
    assert offline.next_ns() is None and offline.advance(T0) == []
    seconds, event = ask(offline, 0)
    assert seconds == 1.5 and isinstance(event, SignalsReceived) and event.cost == 2_000
    seconds, event = ask(offline, 45)
    assert seconds == 1.5 and isinstance(event, SignalsFailed) and event.reason == "refusal"
    seconds, event = ask(offline, 90)
    assert seconds == pytest.approx(20.0) and event.reason == "timeout", "a call that hangs costs no real time"
    assert [f.outcome for f in facts] == ["ok", "refusal", "timeout"] and facts[1].asked_ns == T0 + 45 * NS_PER_S


def test_limits_run_on_market_time(time):
    offline, model, *_ = analyst_of(time, rate=RateLimit(2))
    assert [ask(offline, s)[0] for s in (0, 10)] == [1.0, 1.0]
    seconds, event = ask(offline, 20)
    assert isinstance(event, SignalsSkipped) and event.reason == "rate_wait" and seconds < 1e-6, "it would take 40 s of 20"
    assert ask(offline, 45)[0] == 16.0 and len(model.asked) == 3, "two in a minute, and the third when it is over"


def test_an_answer_without_delay_still_comes_later(time):
    offline, *_ = analyst_of(time, takes_s=0.0)
    offline.execute(T0, request(brief()))
    assert offline.next_ns() == T0 + 1


def test_a_question_within_the_last_cycle_waits_for_its_end(time):
    offline, *_ = analyst_of(time, takes_s=10.0)
    ask(offline, 0, "R1", drain=False)
    ask(offline, 4, "R2", drain=False)
    assert offline.next_ns() == T0 + 10 * NS_PER_S
    one, two = offline.advance(T0 + 20 * NS_PER_S)
    assert (one.request_id, two.request_id) == ("R1", "R2") and offline.next_ns() is None


def test_what_is_due_survives_a_checkpoint(time):
    offline, *_ = analyst_of(time)
    ask(offline, 0, drain=False)
    again, *_ = analyst_of(time)
    again.restore(offline.checkpoint())
    assert again.next_ns() == T0 + NS_PER_S and again.advance(T0 + NS_PER_S) == offline.advance(T0 + NS_PER_S)
    assert again.checkpoint() == b"[]"


def test_one_seed_one_story(time):
    """The pause before a retry is the only dice there are; a member throws its own."""

    def story():
        made = VirtualTime()
        made.sleep = asyncio.sleep
        offline, *_ = analyst_of(made, *[ProviderError("overload", "x")] * 2, good(), dice=None)
        told = [ask(offline, 45 * n)[0] for n in range(3)]
        made.close()
        return told

    first = story()
    assert first == story() and first[0] != round(first[0], 3), "thrown, and thrown the same"


# A real model beside it.


class Real:
    """Answers after real moments, on the loop it was made in."""

    provider, model = "fake", "m"

    def __init__(self, clock, took_s=0.5, step=None):
        self.loop = asyncio.get_running_loop()
        self.clock, self.took_s, self.step, self.closed = clock, took_s, step, 0

    async def complete(self, system, user, schema, deadline_s):
        assert asyncio.get_running_loop() is self.loop and threading.current_thread().name == "model"
        self.clock[0] += round(self.took_s * NS_PER_S)
        if isinstance(self.step, Exception):
            raise self.step
        if self.step is NEVER:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return Completion("x", "stop", Usage(output=1), Decimal(0), "table", "m")

    async def search(self, system, user, deadline_s):
        raise ProviderError("bad_request", "it cannot search")

    async def close(self):
        self.closed += 1


def outside(time, **changed):
    clock, made, pauses = [0], [], []
    extra = {name: changed.pop(name) for name in ("rate",) if name in changed}

    def make():
        made.append(Real(clock, **changed))
        return made[0]

    def pause(seconds):
        pauses.append(seconds)
        clock[0] += round(seconds * NS_PER_S)

    return Outside(make, lambda: clock[0], pause=pause, **extra), made[0], pauses


def timed(time, work):
    began = time.loop.time()
    try:
        return time.run(work), time.loop.time() - began
    except ProviderError as error:
        return error, time.loop.time() - began


def threads():
    return [t for t in threading.enumerate() if t.name == "model"]


def test_a_real_call_takes_as_long_in_market_time(time):
    model, real, _ = outside(time, took_s=0.7)
    answer, took = timed(time, model.complete("s", "u", {}, 20.0))
    assert (answer.text, took, model.provider, model.model) == ("x", 0.7, "fake", "m")
    assert timed(time, model.search("s", "u", 20.0))[0].kind == "bad_request"
    time.run(model.close())
    time.run(model.close())
    assert real.closed == 1 and threads() == [] and real.loop.is_closed()


def test_real_failures_and_late_answers(time):
    model, *_ = outside(time, took_s=0.25, step=ProviderError("overload", "x", 3.0))
    error, took = timed(time, model.complete("s", "u", {}, 20.0))
    assert (error.kind, took) == ("overload", 0.25)
    time.run(model.close())
    model, *_ = outside(time, took_s=30.0)
    error, took = timed(time, model.complete("s", "u", {}, 20.0))
    assert (error.kind, error.maybe_billed, error.usage, took) == ("timeout", True, Usage(output=1), 20.0)
    time.run(model.close())
    assert threads() == []


@pytest.mark.timeout(30)
def test_a_real_call_that_never_ends_is_left(time, monkeypatch):
    monkeypatch.setattr("llm_maker.llm.offline._GRACE_S", 0.2)
    model, *_ = outside(time, took_s=1.0, step=NEVER)
    error, took = timed(time, model.complete("s", "u", {}, 0.1))
    assert (error.kind, error.maybe_billed, took) == ("timeout", True, 0.1)
    time.run(model.close())
    assert threads() == []


def test_the_wall_keeps_the_rate_and_the_servers_word_and_market_time_does_not_pay(time):
    model, _, pauses = outside(time, took_s=1.0, rate=RateLimit(2))
    tooks = [timed(time, model.complete("s", "u", {}, 20.0))[1] for _ in range(3)]
    assert pauses == [58.0] and tooks == [1.0, 1.0, 1.0]
    time.run(model.close())
    model, _, pauses = outside(time, took_s=1.0, step=ProviderError("rate_limit", "x", 30.0))
    for _ in range(2):
        timed(time, model.complete("s", "u", {}, 20.0))
    assert pauses == [30.0]
    time.run(model.close())


def test_a_client_that_cannot_be_made_leaves_no_thread():
    def make():
        raise LookupError("no such model")

    with pytest.raises(LookupError):
        Outside(make, wall.monotonic_ns)
    assert threads() == []
