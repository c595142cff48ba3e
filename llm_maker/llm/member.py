"""One model as the slow loop asks it: whatever the world does, one `Reply` with its cost, within a deadline and the day's budget.

Owns the order of the gates (breaker, budget, rate), the one retry, and who pays for a call that never came back whole. It reads no
answer, knows no other model and no cycle. All waiting goes through the injected `sleep`, which must let other tasks run meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from typing import Any, Literal

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.llm import breaker
from llm_maker.llm.budget import DailyBudget, Pricer, PriceSource, RateLimit, Usage
from llm_maker.llm.prompt import Prompt
from llm_maker.llm.providers import Completion, Kind, Model, ProviderError, SchemaMode
from llm_maker.llm.snapshot import clean
from llm_maker.llm.templates import DEFAULT as BUILT_IN_NAME
from llm_maker.llm.templates import Template

MIN_CALL_S = 2.0
"""A call that would have less time than this after a wait is not begun."""
MAX_WAIT_S = 120.0
"""Patience that a server asks for beyond this is no wait but an outage: rules take over as they do for any other."""
MAX_DETAIL = 300
_MAX_WAITS = 3
"""A sleep may end a little early by the other clock; it is then slept again, but not for ever."""
_OWN_DEADLINE = 0.98
"""The client's part of the deadline: it knows better than we do whether the request had left when the time was over."""
_BACK_OFF_S = (0.2, 0.8)
_ADDED_TOKENS = 512
"""What a provider adds to our words: the frame of a conversation, and its own words around the schema."""
_KEY_CHARS = str.maketrans("|+#~", "____")

Outcome = Literal["ok", "open", "budget", "rate_wait"] | Kind
Sleep = Callable[[float], Awaitable[None]]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How asking one model ended. `ok`: `completion` is there, unread. `cost_usd` is of all attempts, useless ones too."""

    outcome: Outcome
    cause: breaker.Outcome | None = None
    """What the breaker is open for; None: it is not."""
    detail: str = ""
    completion: Completion | None = None
    cost_usd: Decimal = Decimal(0)
    price_source: PriceSource | None = None
    """Of the last attempt that cost anything; None: none did."""
    latency_ms: float = 0.0
    """From being asked to the end, waits and retry included."""
    attempts: int = 0
    retry_after_s: float | None = None


class MemberFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What asking one model took and brought. `system` and `user` are empty where they are those of the decision."""

    name: str
    key: str
    outcome: str
    detail: str = ""
    latency_ms: float = 0.0
    attempts: int = 0
    system: str = ""
    user: str = ""
    raw_answer: str = ""
    usage: Usage | None = None
    cost_usd: Decimal = Decimal(0)
    price_source: PriceSource | None = None
    schema_mode: SchemaMode | None = None
    retry_after_s: float | None = None


class Member:
    """One model with what bounds it; asked by one task at a time. `name` is for people, `key` for measurements.

    `template` is for whoever renders; its name, and `blind` where the price is hidden, are part of the key. `clock` gives ns since
    the epoch, `dice` numbers in [0, 1).
    """

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        template: Template,
        blind: bool,
        rate: RateLimit,
        breaker: breaker.Breaker,
        pricer: Pricer,
        max_output_tokens: int,
        unknown_call_usd: Decimal,
        say: Callable[[Level, str], None],
        clock: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio.sleep,
        dice: Callable[[], float] | None = None,
    ) -> None:
        assert unknown_call_usd > 0, "a call whose price nobody knows is never free"
        self.name = name
        self.model = model
        self.template = template
        self.breaker = breaker
        self._blind = blind
        self.last_key = self.key(model.model)
        """By the model's name as the server last said it; as configured before it has answered."""
        self._rate = rate
        self._pricer = pricer
        self._max_output_tokens = max_output_tokens
        self._unknown_call_usd = unknown_call_usd
        self._say = say
        self._clock, self._sleep = clock, sleep
        # Each its own, and the same in each run: a backtest is repeated to the nanosecond.
        self._dice = random.Random(name).random if dice is None else dice
        self._waiting = False
        self._said: set[str] = set()

    def key(self, completion_model: str) -> str:
        """Its name in all measurements: another model, prompt or arm is another record."""
        named = clean(f"{self.model.provider}/{completion_model}", 120).translate(_KEY_CHARS).replace(" ", "_")
        prompt = "" if self.template.name == BUILT_IN_NAME else f"#{self.template.name}"
        return f"{named}{prompt}{'~blind' if self._blind else ''}"

    async def ask(self, question: Prompt, deadline_s: float, budget: DailyBudget) -> Reply:
        """One answer within `deadline_s`, or why there is none; at most one retry. Raises only for a bug of ours."""
        begun = self._clock()
        reply = await self._through_gates(question, begun, deadline_s, budget)
        if self._worth_retrying(reply):
            pause_s = max(_BACK_OFF_S[0] + (_BACK_OFF_S[1] - _BACK_OFF_S[0]) * self._dice(), reply.retry_after_s or 0.0)
            if 2 * (self._elapsed_s(begun) + pause_s) <= deadline_s:
                await self._sleep(pause_s)
                reply = await self._once_more(question, begun, deadline_s, budget, reply)
        return msgspec.structs.replace(reply, latency_ms=(self._clock() - begun) / NS_PER_MS)

    def _worth_retrying(self, reply: Reply) -> bool:
        """Overload and a lost connection pass; and a failure that opened the breaker is not asked for again."""
        return reply.outcome in ("overload", "connection") and self.breaker.state == "closed"

    async def _once_more(self, question: Prompt, begun: int, deadline_s: float, budget: DailyBudget, first: Reply) -> Reply:
        now = self._clock()
        left_s = deadline_s - (now - begun) / NS_PER_S
        stopped = left_s <= 0 or not self.breaker.may(now) or self._rate.wait_ns(now) > 0
        if stopped or not budget.holds(now, self._worst_usd(question, now)):
            return first
        second = await self._call(question, now, left_s, budget)
        return msgspec.structs.replace(
            second,
            attempts=first.attempts + second.attempts,
            cost_usd=first.cost_usd + second.cost_usd,
            price_source=second.price_source or first.price_source,
        )

    async def _through_gates(self, question: Prompt, begun: int, deadline_s: float, budget: DailyBudget) -> Reply:
        now = begun
        for attempt in range(_MAX_WAITS):
            patience_ns = self.breaker.patience_ns(now)
            if not self.breaker.may(now) and (patience_ns == 0 or patience_ns > MAX_WAIT_S * NS_PER_S):
                return Reply(outcome="open", cause=self.breaker.cause, detail=self.breaker.why(now))
            if not budget.holds(now, self._worst_usd(question, now)):
                return self._too_dear(question, budget, now)
            wait_ns = max(self._rate.wait_ns(now), patience_ns)
            left_s = deadline_s - (now - begun + wait_ns) / NS_PER_S
            words = self._wait_words(now, wait_ns)
            if wait_ns <= 0:
                self._waiting = False
            elif not self._waiting:
                # Once until a call goes without waiting: one that is always at its limit has said so.
                self._waiting = True
                self._say(Level.INFO, words)
            if left_s < MIN_CALL_S and (attempt > 0 or wait_ns > 0):
                return Reply(outcome="rate_wait", detail=words)
            if wait_ns <= 0:
                return await self._call(question, now, left_s, budget)
            await self._sleep(wait_ns / NS_PER_S)
            now = self._clock()
        return Reply(outcome="rate_wait", detail="the wait did not end when it should have")

    def _wait_words(self, now: int, wait_ns: int) -> str:
        if self._rate.wait_ns(now) == wait_ns:
            return self._rate.words(now)
        return f"{self.name}: the model's server asked for patience. Waiting {wait_ns / NS_PER_S:.1f}s..."

    async def _call(self, question: Prompt, now: int, left_s: float, budget: DailyBudget) -> Reply:
        """One call, begun at once: neither an await nor another look at the clock stands between the gates and this."""
        worst = self._worst_usd(question, now)
        reservation = budget.reserve(now, worst)
        if reservation is None:
            return self._too_dear(question, budget, now)
        self._rate.take(now)
        self.breaker.begin(now)
        # What a call costs that is cancelled under way, or ends by a bug of ours: nobody can tell, so the most it may.
        cost: Decimal = worst
        try:
            reply = await self._outcome(question, left_s, worst)
            cost = reply.cost_usd
        finally:
            budget.settle(reservation, cost)
            self.breaker.drop()
        return reply

    async def _outcome(self, question: Prompt, left_s: float, worst: Decimal) -> Reply:
        asked = self.model.complete(question.system, question.user, question.schema, left_s * _OWN_DEADLINE)
        try:
            completion = await _within(asked, left_s, self._sleep)
        except ProviderError as error:
            cost, source = self._cost_of(error, worst)
            return self._failed(error.kind, error.detail, cost, source, error.retry_after_s)
        except TimeoutError:
            return self._failed("timeout", f"no answer within {left_s:.1f} s", worst, self._assumed())
        except ConnectionRefusedError:
            return self._failed("connection", "refused", Decimal(0), None)
        except OSError as error:
            # A foreign exception's own words may quote a header or an address with the key in it.
            return self._failed("connection", f"{type(error).__name__} {error.strerror or ''}", worst, self._assumed())
        except (ValueError, LookupError, ArithmeticError) as error:
            # The client stumbled over what came: it came, so it is paid for.
            return self._failed("malformed", f"the client could not read it: {type(error).__name__}", worst, self._assumed())
        self._note("ok", "", None)
        self.last_key = self.key(completion.model)
        cost, source = self._priced(completion.cost_usd, completion.price_source, worst)
        if cost > worst:
            self._say_once(
                Level.WARNING, f"{self.name}: a call cost {cost} USD; at most {worst} USD had been thought possible", "worst"
            )
        return Reply(outcome="ok", completion=completion, cost_usd=cost, price_source=source, attempts=1)

    def _failed(
        self, kind: Kind, detail: str, cost: Decimal, source: PriceSource | None, retry_after_s: float | None = None
    ) -> Reply:
        detail = clean(detail, MAX_DETAIL)
        self._note(kind, detail, retry_after_s)
        return Reply(outcome=kind, detail=detail, cost_usd=cost, price_source=source, attempts=1, retry_after_s=retry_after_s)

    def _note(self, outcome: breaker.Outcome, detail: str, retry_after_s: float | None) -> None:
        change = self.breaker.record(outcome, self._clock(), retry_after_s)
        if change is not None:
            self._say(change.level, f"{self.name}: {change.text}{f' ({detail})' if detail else ''}")

    def _cost_of(self, error: ProviderError, worst: Decimal) -> tuple[Decimal, PriceSource | None]:
        """Of a failure: by its tokens if they were told, the worst if it may be on the bill, else nothing."""
        if error.usage is not None:
            cost = self._pricer.cost(error.usage, None, self._clock())
            return self._priced(cost.usd, cost.source, worst)
        return (worst, self._assumed()) if error.maybe_billed else (Decimal(0), None)

    def _priced(self, usd: Decimal | None, source: PriceSource, worst: Decimal) -> tuple[Decimal, PriceSource]:
        if usd is None or not (usd.is_finite() and usd >= 0):
            if self._pricer.known:
                return worst, "assumed"
            self._alarm_price()
            return self._unknown_call_usd, "unknown"
        return usd, source

    def _assumed(self) -> PriceSource:
        return "assumed" if self._pricer.known else "unknown"

    def _alarm_price(self) -> None:
        charged = f"{self._unknown_call_usd} USD is charged for each (llm.unknown_call_usd)"
        self._say_once(Level.ERROR, f"{self.name}: nobody knows what a call costs; {charged}", "price")

    def _say_once(self, level: Level, text: str, about: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._say(level, text)

    def _worst_usd(self, question: Prompt, now: int) -> Decimal:
        """The dearest this question may be.

        No tokenizer makes a token of less than a byte, so the bytes bound the tokens: three to four times too high for prose, near
        the truth for digits, and small beside `max_output_tokens`. A bound that only mostly held would not bound the bill.
        """
        schema = msgspec.json.encode(question.schema)
        tokens = len(question.system.encode()) + len(question.user.encode()) + len(schema) + _ADDED_TOKENS
        worst = self._pricer.worst(tokens, self._max_output_tokens, now)
        if worst is None:
            self._alarm_price()
            return self._unknown_call_usd
        return worst

    def _too_dear(self, question: Prompt, budget: DailyBudget, now: int) -> Reply:
        worst = self._worst_usd(question, now)
        return Reply(outcome="budget", detail=f"{budget.words(now)}; a call may cost up to {worst:.4f} USD")

    def _elapsed_s(self, begun: int) -> float:
        return (self._clock() - begun) / NS_PER_S


async def _within(work: Coroutine[Any, Any, Completion], seconds: float, sleep: Sleep) -> Completion:
    """The result, or TimeoutError when `sleep` has slept that long; time is only what `sleep` says it is.

    What does not end when it is cancelled is left behind, so that a client that hangs in its own clean-up cannot hold up the cycle.
    """
    call = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(sleep(max(0.0, seconds)))
    try:
        await asyncio.wait((call, timer), return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
        timer.result()
        raise TimeoutError
    finally:
        timer.cancel()
        call.cancel()
        call.add_done_callback(_forget)


def _forget(call: asyncio.Future[Completion]) -> None:
    """It has been given up; what it raises now is nobody's business."""
    if not call.cancelled():
        call.exception()
