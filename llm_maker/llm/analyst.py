"""The port to the models: one `RequestSignals` in, exactly one event out, whatever the world does.

Owns no timer, no rhythm and no opinion: the core asks, this asks the models side by side, those in reserve if none answered, and
pools what came. It keeps the newest request only: one that arrives while another is in flight waits, and a third replaces the
waiting one, which is answered `busy`. Facts that may not enter the journal (latency, tokens, raw text) go to `record`. How one
model is asked and paid for is `member`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from llm_maker.core.advice import MemberAnswer, Signal
from llm_maker.core.commands import Command, Level, RequestSignals
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.llm import answer, pool
from llm_maker.llm.budget import DailyBudget, PriceSource, Usage, to_cash
from llm_maker.llm.member import MIN_CALL_S, Member, MemberFacts, Reply
from llm_maker.llm.prompt import Prompt
from llm_maker.llm.snapshot import clean
from llm_maker.port import Emit

MAX_DETAIL = 300
_GRAVITY = (
    "auth", "billing", "bad_request", "truncated", "malformed", "refusal", "overload", "rate_limit", "timeout", "connection",
    "budget",
)  # fmt: skip
"""What a cycle is named after: first what only a person can mend, then what another model or limit would, last what passes."""
_SOURCES: tuple[PriceSource, ...] = ("unknown", "assumed", "config", "table", "billed", "cassette", "local")
"""The least certain first: a sum is as certain as its least certain part."""

Render = Callable[[RequestSignals, Member], Prompt]
Chooser = Callable[[RequestSignals, Sequence[Member]], Sequence[Member]]


class AnalystSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`timeout_s`: one model. `deadline_s`: from request to answer, waiting and reserve included; below the core's own patience."""

    timeout_s: float = 20.0
    deadline_s: float = 40.0
    show_price: bool = True
    portfolio: bool = False
    """Whether an answer may say which part of the capital goes to each market."""


class DecisionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All about one request that the logs want and the journal must not have. `outcome`: ok, or a reason of ours.

    Of several models: the sums, `model` as the event names it, and each one's own in `members`.
    """

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
    """Of the one model that was asked; empty of several."""
    signals: tuple[Signal, ...] = ()
    invalid: tuple[str, ...] = ()
    usage: Usage | None = None
    cost_usd: Decimal = Decimal(0)
    price_source: PriceSource | None = None
    """`unknown`: the cost is the configured worst case."""
    retry_after_s: float | None = None
    members: tuple[MemberFacts, ...] = ()


class _Heard(msgspec.Struct, frozen=True):
    """One model's part in a cycle, its answer read. `outcome`: ok, a reason of ours, `open` or `rate_wait`."""

    member: Member
    key: str
    question: Prompt
    reply: Reply
    outcome: str
    detail: str
    signals: tuple[Signal, ...] = ()
    invalid: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def raw(self) -> str:
        return self.reply.completion.text if self.reply.completion else ""

    def facts(self, system: str, user: str) -> MemberFacts:
        """For the logs, without the words of the question that are known already."""
        reply, completion = self.reply, self.reply.completion
        return MemberFacts(
            name=self.member.name,
            key=self.key,
            outcome=self.outcome,
            detail=clean(self.detail, MAX_DETAIL),
            latency_ms=reply.latency_ms,
            attempts=reply.attempts,
            system=self.question.system if self.question.system != system else "",
            user=self.question.user if self.question.user != user else "",
            raw_answer=self.raw,
            usage=completion.usage if completion else None,
            cost_usd=reply.cost_usd,
            price_source=reply.price_source,
            schema_mode=completion.schema_mode if completion else None,
            retry_after_s=reply.retry_after_s,
        )


class Analyst:
    """The slow loop's port. `clock` gives ns since the epoch; it and `sleep` are injected for tests.

    `skills` is read at each cycle, so that what is learned meanwhile counts. `chooser` picks from `members` at each request (one at
    least); without it all are asked. `mode` speaks only where several are configured.
    """

    name = "llm"

    def __init__(
        self,
        members: Sequence[Member],
        reserve: Sequence[Member],
        *,
        render: Render,
        skills: Mapping[str, Skill],
        mode: pool.Mode,
        budget: DailyBudget,
        record: Callable[[DecisionFacts], None],
        say: Callable[[Level, str], None],
        settings: AnalystSettings | None = None,
        chooser: Chooser | None = None,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        assert members, "somebody must be asked"
        self._members, self._reserve = tuple(members), tuple(reserve)
        self._render = render
        self._skills = skills
        self._mode: pool.Mode = mode if len(self._members) > 1 else "pool"
        self._budget = budget
        self._record = record
        self._say = say
        self._settings = settings or AnalystSettings()
        self._chooser = chooser
        self._clock = clock
        self._waiting: RequestSignals | None = None
        self._replaced: list[RequestSignals] = []
        self._wake = asyncio.Event()
        self._out: set[Member] = set()
        """Failing at present, and said so."""
        self._stand_in: Member | None = None

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
        """Answer requests, one cycle at a time, until cancelled."""
        cycle: asyncio.Task[None] | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._dismiss(emit)
                if cycle is not None and cycle.done():
                    cycle.result()  # a bug of ours in a cycle ends the port, and not in silence
                    cycle = None
                if cycle is None and self._waiting is not None:
                    request, self._waiting = self._waiting, None
                    cycle = asyncio.create_task(self._serve(request, emit), name=f"llm:{request.request_id}")
        finally:
            if cycle is not None:
                cycle.cancel()
                await asyncio.gather(cycle, return_exceptions=True)

    def _dismiss(self, emit: Emit) -> None:
        """Those that were replaced are told at once, not when the cycle in flight ends."""
        replaced, self._replaced = self._replaced, []
        for request in replaced:
            emit(SignalsSkipped(request.request_id, "busy"))

    async def _serve(self, request: RequestSignals, emit: Emit) -> None:
        try:
            event, facts = await self.answer(request)
            emit(event)
            self._record(facts)
        finally:
            self._wake.set()

    async def answer(self, request: RequestSignals) -> tuple[Event, DecisionFacts]:
        """One cycle: the event for the core and the facts for the logs. Raises only for a bug of ours."""
        begun = self._clock()
        if not request.markets:
            self._say(Level.INFO, "No markets to analyze")
            return self._told(request, begun, [], SignalsSkipped(request.request_id, "empty_agenda"))
        chosen = self._members if self._chooser is None else tuple(self._chooser(request, self._members))
        assert chosen, "a chooser chooses at least one"
        heard = await self._side_by_side(request, chosen, begun)
        for spare in self._reserve:
            if any(one.ok for one in heard) or self._left_s(begun) < MIN_CALL_S:
                break
            heard.append(await self._ask(request, spare, begun))
        self._tell_changes(heard)
        good = [one for one in heard if one.ok]
        if good:
            return self._received(request, begun, chosen, heard, good)
        if all(one.reply.attempts == 0 for one in heard) and any(one.outcome == "rate_wait" for one in heard):
            return self._told(request, begun, heard, SignalsSkipped(request.request_id, "rate_wait"))
        return self._failed(request, begun, heard)

    def _left_s(self, begun: int) -> float:
        return self._settings.deadline_s - (self._clock() - begun) / NS_PER_S

    async def _side_by_side(self, request: RequestSignals, chosen: Sequence[Member], begun: int) -> list[_Heard]:
        tasks = [asyncio.create_task(self._ask(request, member, begun), name=f"llm:{member.name}") for member in chosen]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # those still running when one raised or all were cancelled
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, request: RequestSignals, member: Member, begun: int) -> _Heard:
        question = self._render(request, member)
        reply = await member.ask(question, min(self._settings.timeout_s, self._left_s(begun)), self._budget)
        if reply.completion is None:
            return _Heard(member, member.last_key, question, reply, reply.outcome, reply.detail)
        key = member.key(reply.completion.model)
        text, finish = reply.completion.text, reply.completion.finish
        read = answer.parse(text, question.snapshot.handles, finish, portfolio=self._settings.portfolio)
        if isinstance(read, answer.Answer):
            return _Heard(member, key, question, reply, "ok", "", read.signals, read.invalid)
        # The journal knows no "empty": an answer without an answer is malformed.
        reason = "malformed" if read.reason == "empty" else read.reason
        member.breaker.counts[reason] += 1
        return _Heard(member, key, question, reply, reason, f"{read.reason}: {read.detail}")

    def _tell_changes(self, heard: Sequence[_Heard]) -> None:
        """Where there are several, who is out and who stands in; once when it begins and once when it ends."""
        if len(self._members) + len(self._reserve) < 2:
            return  # the core says that the only one failed
        for one in heard:
            if one.ok and one.member in self._out:
                self._out.discard(one.member)
                self._say(Level.INFO, f"{one.member.name} answers again and is asked for its part as before")
            elif one.outcome not in ("ok", "rate_wait") and one.member not in self._out:
                self._out.add(one.member)
                self._say(Level.WARNING, f"{one.member.name} is left out: {one.outcome} ({clean(one.detail, MAX_DETAIL)})")
        by = next((one.member for one in heard if one.ok), None)
        stand_in = by if by in self._reserve else None
        if stand_in is not self._stand_in and by is not None:
            self._stand_in = stand_in
            text = (
                f"{stand_in.name} stands in: nobody else answered" if stand_in else f"nobody stands in any more: {by.name} answers"
            )
            self._say(Level.WARNING if stand_in else Level.INFO, text)

    def _received(
        self, request: RequestSignals, begun: int, chosen: Sequence[Member], heard: Sequence[_Heard], good: Sequence[_Heard]
    ) -> tuple[Event, DecisionFacts]:
        categories = {market.market_id: market.category for market in request.markets}
        voices = [pool.Voice(one.key, one.signals) for one in good]
        parts = dict(zip(map(id, good), pool.parts(voices, self._skills, categories), strict=True))
        event = SignalsReceived(
            request_id=request.request_id,
            decision_id=answer.decision_id(request.request_id),
            model=self._name(chosen, good),
            prompt_version="+".join(sorted({one.question.version for one in good})),
            signals=pool.pool(voices, self._skills, categories, self._mode),
            invalid=sum(len(one.invalid) for one in good),
            cost=to_cash(_cost(heard)),
            members=tuple(_answer_of(one, parts.get(id(one), 0.0)) for one in heard),
        )
        return self._told(request, begun, heard, event)

    def _name(self, chosen: Sequence[Member], good: Sequence[_Heard]) -> str:
        """Whose opinion it is: a model's, or the pool's, which keeps its name when one of it is out."""
        if len(chosen) == 1 or good[0].member in self._reserve:
            return good[0].key
        # By the names they were configured with: a member that has not answered yet has no other, and the record would fall apart.
        return "pool:" + "+".join(sorted({member.key(member.model.model) for member in chosen}))

    def _failed(self, request: RequestSignals, begun: int, heard: Sequence[_Heard]) -> tuple[Event, DecisionFacts]:
        reasons = [str(one.reply.cause or "connection") if one.outcome == "open" else one.outcome for one in heard]
        reason = min((r for r in reasons if r != "rate_wait"), key=_GRAVITY.index)
        if len(heard) == 1:
            detail = clean(heard[0].detail, MAX_DETAIL)
        else:
            room = MAX_DETAIL // len(heard) - 2
            detail = "; ".join(clean(f"{one.member.name}: {one.outcome} ({one.detail})", room) for one in heard)
        event = SignalsFailed(request.request_id, answer.decision_id(request.request_id), reason, detail, to_cash(_cost(heard)))
        return self._told(request, begun, heard, event)

    def _told(
        self, request: RequestSignals, begun: int, heard: Sequence[_Heard], event: SignalsReceived | SignalsFailed | SignalsSkipped
    ) -> tuple[Event, DecisionFacts]:
        first = heard[0] if heard else None
        system, user = (first.question.system, first.question.user) if first else ("", "")
        received = event if isinstance(event, SignalsReceived) else None
        return event, DecisionFacts(
            request=request,
            decision_id=answer.decision_id(request.request_id),
            outcome="ok" if isinstance(event, SignalsReceived) else event.reason,
            detail=event.detail if isinstance(event, SignalsFailed) else "",
            asked_ns=begun,
            latency_ms=(self._clock() - begun) / NS_PER_MS,
            provider="+".join(sorted({one.member.model.provider for one in heard})),
            model=received.model if received else "+".join(sorted({one.key for one in heard})),
            prompt_version="+".join(sorted({one.question.version for one in heard})),
            show_price=self._settings.show_price,
            system=system,
            user=user,
            raw_answer=first.raw if first and len(heard) == 1 else "",
            signals=received.signals if received else (),
            invalid=tuple(why for one in heard for why in one.invalid),
            usage=_usage(heard),
            cost_usd=_cost(heard),
            price_source=next((s for s in _SOURCES if any(one.reply.price_source == s for one in heard)), None),
            retry_after_s=first.reply.retry_after_s if first and len(heard) == 1 else None,
            members=tuple(one.facts(system, user) for one in heard),
        )


def _answer_of(one: _Heard, weight: float) -> MemberAnswer:
    return MemberAnswer(
        model=one.key,
        prompt_version=one.question.version,
        outcome=one.outcome,
        signals=one.signals,
        weight=weight,
        cost=to_cash(one.reply.cost_usd),
        detail=clean(one.detail, MAX_DETAIL),
    )


def _cost(heard: Sequence[_Heard]) -> Decimal:
    return sum((one.reply.cost_usd for one in heard), Decimal(0))


def _usage(heard: Sequence[_Heard]) -> Usage | None:
    """The sum of what was told; None: nothing was."""
    told = [one.reply.completion.usage for one in heard if one.reply.completion]
    fields = Usage.__struct_fields__
    return Usage(**{field: sum(getattr(usage, field) for usage in told) for field in fields}) if told else None
