"""Models in memory, members around them, and a clock that only moves when everybody waits."""

import asyncio
import heapq
import json
from contextlib import asynccontextmanager
from decimal import Decimal

from llm_maker.core.values import NS_PER_S
from llm_maker.llm.breaker import Breaker
from llm_maker.llm.budget import Pricer, RateLimit, Usage
from llm_maker.llm.member import Member
from llm_maker.llm.providers import Completion
from llm_maker.llm.templates import BUILT_IN

T0 = 1_700_000_000 * NS_PER_S  # 22:13:20 UTC
NEVER = "never answers"


class Time:
    """Market time for tasks: `sleep` parks a task, and when all are parked the next one due is woken."""

    def __init__(self, now=T0):
        self.now, self._due, self._seq = now, [], 0

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        waiter = asyncio.get_running_loop().create_future()
        self._seq += 1
        heapq.heappush(self._due, (self.now + round(seconds * NS_PER_S), self._seq, waiter))
        await waiter

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()

    async def _run(self):
        while True:
            for _ in range(25):  # more steps than any chain of callbacks takes until all are parked
                await asyncio.sleep(0)
            while self._due and self._due[0][2].done():
                heapq.heappop(self._due)
            if self._due:
                at, _, waiter = heapq.heappop(self._due)
                self.now = max(self.now, at)
                waiter.set_result(None)


def signal(handle="M1", **changed):
    return {"market_id": handle, "action": "hold", "confidence": 0.6, "directional_bias": "neutral"} | changed


def good(*signals):
    return json.dumps({"signals": signals or [signal()]})


class Scripted:
    """Each call takes the next step, an exception, a text, or NEVER; after the last one it answers well. `takes_s` each."""

    def __init__(self, *steps, time, cost=Decimal("0.002"), takes_s=1.0, provider="fake", model="fake-model", says=None):
        self.steps, self.time, self.cost, self.takes_s = list(steps), time, cost, takes_s
        self.provider, self.model, self.says = provider, model, says or f"{model}-1"
        self.asked, self.deadlines, self.ended = [], [], 0

    async def complete(self, system, user, schema, deadline_s):
        self.asked.append(user)
        self.deadlines.append(deadline_s)
        step = self.steps.pop(0) if self.steps else good()
        try:
            await self.time.sleep(1e9 if step is NEVER else self.takes_s)
        finally:
            self.ended += 1
        if isinstance(step, Exception):
            raise step
        cost = self.cost() if callable(self.cost) else self.cost
        usage = Usage(input=100, output=50)
        return Completion(step, "stop", usage, cost, "table" if cost is not None else "unknown", self.says)


PRICED = (Decimal(1), Decimal(10))
"""USD per million tokens, in and out: a call with 4,000 tokens out is 0.04 USD and a little."""


def member(model, name="m", *, said=None, limit=1000, per_million=PRICED, **changed):
    fields = {
        "template": BUILT_IN,
        "blind": False,
        "rate": RateLimit(limit),
        "breaker": Breaker(),
        "pricer": Pricer("", model.model, per_million=per_million),
        "max_output_tokens": 4_000,
        "unknown_call_usd": Decimal("0.05"),
        "say": lambda level, text: None if said is None else said.append((level, text)),
        "clock": model.time.clock,
        "sleep": model.time.sleep,
        "dice": lambda: 0.5,
    }
    return Member(name, model, **(fields | changed))
