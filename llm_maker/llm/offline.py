"""The real analyst in virtual time: the same limits, retries, pool and budget, driven by market time instead of the wall.

For backtests and simulations. A loop of its own, whose clock jumps to the next timer instead of waiting, runs one cycle to its end
whenever the core asks; the answer is due as much later in market time as the cycle took in the loop's. Knows no file and no config.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

import msgspec

from llm_maker.core.commands import Command, RequestSignals
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.analyst import Analyst, DecisionFacts
from llm_maker.llm.budget import RateLimit
from llm_maker.llm.providers import Completion, Found, Model, ProviderError

T = TypeVar("T")

_GRACE_S = 5.0
"""Beyond its deadline a real call is waited for so long; then it is left behind."""
_MAX_PATIENCE_S = 120.0
"""Of the wall, when a server asks for it."""


_MAX_INTERRUPTS = 10


class Deadlock(RuntimeError):
    """Every task waits for something that no timer brings."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where nothing is ready, its clock moves to the next timer. For timers and tasks alone.

    A socket or another thread would be overtaken by the clock. Where no timer is left, `Deadlock` is raised.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._seconds

    def jump(self, seconds: float) -> None:
        self._seconds += seconds
        # asyncio adds it to the time to see whether a timer is due: after months that must still make a difference.
        self._clock_resolution = max(1e-9, math.ulp(self._seconds))


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock("nothing is ready and nothing is timed: this would wait for ever")
        if timeout > 0:
            self._loop.jump(timeout)
        return super().select(0)


class VirtualTime:
    """The clock and the loop for an `Analyst` and its members that are to be driven here; their sleep is `asyncio.sleep`."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self._base_ns: int | None = None
        self._base_s = 0.0

    def clock(self) -> int:
        """Market ns: where the last question stood, and what the loop has jumped since; 0 before the first."""
        return (self._base_ns or 0) + round((self.loop.time() - self._base_s) * NS_PER_S)

    def at(self, now: int) -> None:
        """Market time has come to `now`: what is still under way goes on until then. The clock never steps back."""
        gap_s = (now - self.clock()) / NS_PER_S
        if self._base_ns is not None and gap_s > 0:
            if asyncio.all_tasks(self.loop):
                self.run(asyncio.sleep(gap_s))
            else:
                self.loop.jump(gap_s)
        self._base_ns = now if self._base_ns is None else max(now, self.clock())
        self._base_s = self.loop.time()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """To its end, in no time."""
        try:
            return self.loop.run_until_complete(work)
        except KeyboardInterrupt:
            self._end_tasks()
            raise

    def close(self) -> None:
        """What is still under way is cancelled; what will not be is given up."""
        self._end_tasks()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def _end_tasks(self) -> None:
        for _ in range(_MAX_INTERRUPTS):
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if not left:
                return
            # asyncio throws an interrupt out of the loop once more for each task that waited for the one it came up in.
            with contextlib.suppress(KeyboardInterrupt):
                self.loop.run_until_complete(asyncio.wait(left, timeout=_GRACE_S))
                return


class _Due(msgspec.Struct):
    at_ns: int
    event: SignalsReceived | SignalsFailed | SignalsSkipped


class OfflineAnalyst:
    """A `port.Simulator` around an analyst made with `time.clock` and `asyncio.sleep`; `record` hears the facts of each cycle.

    A question that comes while the cycle before it would still be running is taken up when that has ended.
    """

    name = "llm"

    def __init__(self, analyst: Analyst, time: VirtualTime, record: Callable[[DecisionFacts], None] = lambda facts: None) -> None:
        self._analyst, self._time, self._record = analyst, time, record
        self._due: list[_Due] = []

    def observe(self, now: int, event: Event) -> None:
        """Markets are seen through the brief only."""

    def execute(self, now: int, command: Command) -> None:
        if not isinstance(command, RequestSignals):
            return
        self._time.at(now)
        event, facts = self._time.run(self._analyst.answer(command))
        assert isinstance(event, SignalsReceived | SignalsFailed | SignalsSkipped), "an analyst answers with one of these"
        self._record(facts)
        self._due.append(_Due(max(now + 1, self._time.clock()), event))
        self._due.sort(key=lambda due: due.at_ns)

    def next_ns(self) -> int | None:
        return self._due[0].at_ns if self._due else None

    def advance(self, now: int) -> list[Event]:
        ready: list[Event] = [due.event for due in self._due if due.at_ns <= now]
        self._due = self._due[len(ready) :]
        return ready

    def checkpoint(self) -> bytes:
        """What is due; the analyst's own limits and budget start afresh, for a backtest is not gone on with."""
        return msgspec.json.encode(self._due)

    def restore(self, saved: bytes) -> None:
        self._due = msgspec.json.decode(saved, type=list[_Due])


class Outside:
    """A real model for an analyst in virtual time: its call runs in a thread with a loop of its own while market time stands.

    The caller is then made to sleep, in virtual time, for as long as the call took, to the microsecond. Market time passes faster
    than the wall's: `rate`, and what the server asks for, are kept by the wall too, which no answer's latency shows.
    """

    def __init__(
        self,
        make: Callable[[], Model],
        clock: Callable[[], int],
        *,
        rate: RateLimit | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`make` is called in the thread, so that the client belongs to its loop; `clock`: ns that never step back."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        self._clock, self._rate, self._pause, self._not_before = clock, rate, pause, 0
        try:
            self._model = asyncio.run_coroutine_threadsafe(_made(make), self._loop).result()
        except BaseException:
            self._end()
            raise
        self.provider, self.model = self._model.provider, self._model.model

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        return await self._timed(lambda: self._model.complete(system, user, schema, deadline_s), deadline_s)

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        return await self._timed(lambda: self._model.search(system, user, deadline_s), deadline_s)

    async def close(self) -> None:
        """The client, its loop and its thread; may be called again."""
        if self._thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(self._model.close(), self._loop)
            futures.wait([closing], _GRACE_S)
            self._end()

    async def _timed(self, call: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        self._keep_pace()
        began = self._clock()
        work = asyncio.run_coroutine_threadsafe(_awaited(call), self._loop)
        futures.wait([work], deadline_s + _GRACE_S)
        took_s = round((self._clock() - began) / NS_PER_S, 6)
        await asyncio.sleep(min(took_s, deadline_s))
        if not work.done():
            work.cancel()
            raise ProviderError("timeout", f"no answer within {deadline_s:.1f} s", maybe_billed=True)
        try:
            answer = work.result()
        except ProviderError as error:
            patience_s = min(error.retry_after_s or 0.0, _MAX_PATIENCE_S)
            self._not_before = self._clock() + int(max(0.0, patience_s) * NS_PER_S)
            raise
        if took_s > deadline_s:
            usage = answer.usage if isinstance(answer, Completion | Found) else None
            raise ProviderError("timeout", f"no answer within {deadline_s:.1f} s", maybe_billed=True, usage=usage)
        return answer

    def _keep_pace(self) -> None:
        now = self._clock()
        wait_ns = max(self._not_before - now, self._rate.wait_ns(now) if self._rate is not None else 0)
        if wait_ns > 0:
            self._pause(wait_ns / NS_PER_S)
        if self._rate is not None:
            self._rate.take(self._clock())

    def _end(self) -> None:
        """What is still under way is cancelled; a thread that will not end is a daemon's."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).add_done_callback(
            lambda _: self._loop.call_soon_threadsafe(self._loop.stop)
        )
        self._thread.join(_GRACE_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _made(make: Callable[[], Model]) -> Model:
    return make()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1.0)
