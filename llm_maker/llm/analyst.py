"""The port to the model: one `RequestSignals` in, exactly one event out, whatever the world does.

Owns no timer, no rhythm and no opinion: the core asks, this asks the model and answers. It keeps the newest request
only: one that arrives while another is in flight waits, and a third replaces the waiting one, which is answered
`busy`. Facts that may not enter the journal (latency, tokens, raw text) go to `record`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

import msgspec

from llm_maker.core.advice import Signal
from llm_maker.core.commands import Command, Level, RequestSignals
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.llm import answer, prompt
from llm_maker.llm.budget import DailyBudget, PriceSource, RateLimit, Usage, to_cash
from llm_maker.llm.prompt import Prompt
from llm_maker.llm.providers import Completion, Model, ProviderError
from llm_maker.llm.snapshot import clean
from llm_maker.port import Emit

MAX_RETRY_AFTER_S = 120.0
"""A server may ask for this much patience and no more."""
MIN_CALL_S = 2.0
"""A call that has less time than this left is not begun."""
_MAX_DETAIL = 300
_MAX_WAITS = 3
"""A sleep may end a little early by the other clock; it is then slept again, but not for ever."""


class AnalystSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`timeout_s`: one call. `deadline_s`: from request to answer, waiting included; below the core's own patience.

    `unknown_cost_usd`: charged for a call whose price nobody knows, never silently nothing.
    """

    timeout_s: float = 30.0
    deadline_s: float = 55.0
    show_price: bool = True
    unknown_cost_usd: Decimal = Decimal("0.05")


class DecisionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All about one request that the logs want and the journal must not have. `outcome`: ok, or a reason of ours."""

    request: RequestSignals
    decision_id: str
    outcome: str
    detail: str = ""
    asked_ns: int
    """When the request was taken up; ns since the epoch."""
    latency_ms: float = 0.0
    provider: str = ""
    model: str = ""
    prompt_version: str = ""
    show_price: bool = True
    system: str = ""
    user: str = ""
    raw_answer: str = ""
    signals: tuple[Signal, ...] = ()
    invalid: tuple[str, ...] = ()
    usage: Usage | None = None
    cost_usd: Decimal = Decimal(0)
    price_source: PriceSource | None = None
    """`unknown`: the cost is the configured worst case."""
    retry_after_s: float | None = None


class Analyst:
    """The slow loop's port. `clock` gives ns since the epoch; it and `sleep` are injected for tests."""

    name = "llm"

    def __init__(
        self,
        model: Model,
        *,
        rate: RateLimit,
        budget: DailyBudget,
        record: Callable[[DecisionFacts], None],
        say: Callable[[Level, str], None],
        settings: AnalystSettings | None = None,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._model = model
        self._rate = rate
        self._budget = budget
        self._record = record
        self._say = say
        self._settings = settings or AnalystSettings()
        self._clock = clock
        self._sleep = sleep
        self._waiting: RequestSignals | None = None
        self._replaced: list[RequestSignals] = []
        self._wake = asyncio.Event()
        self._not_before_ns = 0

    def execute(self, command: Command) -> None:
        """Take a request; the one still waiting, if any, gives way to it."""
        if not isinstance(command, RequestSignals):
            return
        if self._waiting is not None:
            self._replaced.append(self._waiting)
        self._waiting = command
        self._wake.set()

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Answer requests, one call at a time, until cancelled."""
        call: asyncio.Task[None] | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._dismiss(emit)
                if call is not None and call.done():
                    call.result()  # a bug of ours in a call ends the port, and not in silence
                    call = None
                if call is None and self._waiting is not None:
                    request, self._waiting = self._waiting, None
                    call = asyncio.create_task(self._serve(request, emit), name=f"llm:{request.request_id}")
        finally:
            if call is not None:
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)

    def _dismiss(self, emit: Emit) -> None:
        """Those that were replaced are told at once, not when the call in flight ends."""
        replaced, self._replaced = self._replaced, []
        for request in replaced:
            emit(SignalsSkipped(request.request_id, "busy"))

    async def _serve(self, request: RequestSignals, emit: Emit) -> None:
        try:
            event, facts = await self._answer(request)
            emit(event)
            self._record(facts)
        finally:
            self._wake.set()

    async def _answer(self, request: RequestSignals) -> tuple[Event, DecisionFacts]:
        asked = self._clock()
        if not request.markets:
            self._say(Level.INFO, "No markets to analyze")
            return self._skipped(request, asked, SignalsSkipped(request.request_id, "empty_agenda"))
        if self._budget.exhausted(asked):
            self._say(Level.WARNING, self._budget.words(asked))
            return self._failed(_Facts(request, asked), "budget", self._budget.words(asked))
        if not await self._in_time(asked):
            return self._skipped(request, asked, SignalsSkipped(request.request_id, "rate_wait"))
        return await self._call(request, asked)

    async def _in_time(self, asked: int) -> bool:
        """Wait for the rate limit and a server's Retry-After; False if that leaves no time for the call."""
        now = asked
        for attempt in range(_MAX_WAITS):
            wait_ns = self._wait_ns(now)
            left_s = self._settings.deadline_s - (now - asked + max(0, wait_ns)) / NS_PER_S
            if wait_ns > 0 and attempt == 0:
                self._say(Level.INFO, self._wait_words(now, wait_ns))
            if left_s < MIN_CALL_S:
                return False
            if wait_ns <= 0:
                return True
            await self._sleep(wait_ns / NS_PER_S)
            now = self._clock()
        return False

    def _wait_ns(self, now: int) -> int:
        return max(self._rate.wait_ns(now), self._not_before_ns - now)

    def _wait_words(self, now: int, wait_ns: int) -> str:
        if self._rate.wait_ns(now) == wait_ns:
            return self._rate.words(now)
        return f"The model's server asked for patience. Waiting {wait_ns / NS_PER_S:.1f}s..."

    async def _call(self, request: RequestSignals, asked: int) -> tuple[Event, DecisionFacts]:
        question = prompt.render(request, show_price=self._settings.show_price)
        facts = _Facts(request, asked, question)
        now = self._clock()
        self._rate.take(now)
        left_s = min(self._settings.timeout_s, self._settings.deadline_s - (now - asked) / NS_PER_S)
        try:
            # The provider keeps the deadline itself; this one is for a provider that does not.
            async with asyncio.timeout(left_s + 1.0):
                completion = await self._model.complete(question.system, question.user, question.schema, left_s)
        except ProviderError as error:
            return self._refused(facts, error)
        except TimeoutError:
            return self._failed(facts, "timeout", f"no answer within {left_s:.1f} s")
        except OSError as error:
            return self._failed(facts, "connection", f"{type(error).__name__}: {error}")
        except (ValueError, LookupError, ArithmeticError) as error:
            return self._failed(facts, "malformed", f"{type(error).__name__}: {error}")
        return self._read(facts, question, completion)

    def _refused(self, facts: _Facts, error: ProviderError) -> tuple[Event, DecisionFacts]:
        if error.retry_after_s is not None:
            patience = min(error.retry_after_s, MAX_RETRY_AFTER_S)
            self._not_before_ns = self._clock() + int(patience * NS_PER_S)
        facts.retry_after_s = error.retry_after_s
        return self._failed(facts, error.kind, error.detail)

    def _read(self, facts: _Facts, question: Prompt, completion: Completion) -> tuple[Event, DecisionFacts]:
        facts.completion = completion
        facts.cost_usd = self._settings.unknown_cost_usd if completion.cost_usd is None else completion.cost_usd
        self._budget.charge(self._clock(), facts.cost_usd)
        result = answer.parse(completion.text, question.snapshot.handles, completion.finish)
        if isinstance(result, answer.Failure):
            # The journal knows no "empty": an answer without an answer is malformed.
            reason = "malformed" if result.reason == "empty" else result.reason
            return self._failed(facts, reason, f"{result.reason}: {result.detail}")
        event = SignalsReceived(
            request_id=facts.request.request_id,
            decision_id=answer.decision_id(facts.request.request_id),
            model=completion.model,
            prompt_version=question.version,
            signals=result.signals,
            invalid=len(result.invalid),
            cost=to_cash(facts.cost_usd),
        )
        return event, self._facts(facts, "ok", signals=result.signals, invalid=result.invalid)

    def _failed(self, facts: _Facts, reason: str, detail: str) -> tuple[Event, DecisionFacts]:
        detail = clean(detail, _MAX_DETAIL)
        request_id = facts.request.request_id
        cost = to_cash(facts.cost_usd)
        event = SignalsFailed(request_id, answer.decision_id(request_id), reason, detail, cost)
        return event, self._facts(facts, reason, detail)

    def _skipped(self, request: RequestSignals, asked: int, event: SignalsSkipped) -> tuple[Event, DecisionFacts]:
        return event, self._facts(_Facts(request, asked), event.reason)

    def _facts(
        self,
        facts: _Facts,
        outcome: str,
        detail: str = "",
        signals: tuple[Signal, ...] = (),
        invalid: tuple[str, ...] = (),
    ) -> DecisionFacts:
        question, completion = facts.question, facts.completion
        return DecisionFacts(
            request=facts.request,
            decision_id=answer.decision_id(facts.request.request_id),
            outcome=outcome,
            detail=detail,
            asked_ns=facts.asked,
            latency_ms=(self._clock() - facts.asked) / NS_PER_MS,
            provider=self._model.provider,
            model=completion.model if completion else self._model.model,
            prompt_version=question.version if question else "",
            show_price=self._settings.show_price,
            system=question.system if question else "",
            user=question.user if question else "",
            raw_answer=completion.text if completion else "",
            signals=signals,
            invalid=invalid,
            usage=completion.usage if completion else None,
            cost_usd=facts.cost_usd,
            price_source=completion.price_source if completion else None,
            retry_after_s=facts.retry_after_s,
        )


class _Facts:
    """What is known of one request so far."""

    __slots__ = ("asked", "completion", "cost_usd", "question", "request", "retry_after_s")

    def __init__(self, request: RequestSignals, asked: int, question: Prompt | None = None) -> None:
        self.request = request
        self.asked = asked
        self.question = question
        self.completion: Completion | None = None
        self.cost_usd = Decimal(0)
        self.retry_after_s: float | None = None
