"""The real analyst in virtual time: the same limits, retries, pool and budget, driven by market time instead of the wall.

For backtests and simulations. A loop of its own, whose clock jumps to the next timer instead of waiting, runs one cycle to its end
whenever the core asks; the answer is due as much later in market time as the cycle took in the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from llm_maker.core.commands import Command, RequestSignals
from llm_maker.core.events import Event, SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.analyst import Analyst, DecisionFacts
from llm_maker.llm.providers import Completion, Found, Model

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where nothing is ready, its clock moves to the next timer. No sockets in it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._seconds

    def jump(self, seconds: float) -> None:
        self._seconds += seconds


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "a virtual loop with nothing to wait for would wait for ever"
        if timeout > 0:
            self._loop.jump(timeout)
        return super().select(0)


class VirtualTime:
    """The clock and the sleep to make an `Analyst` and its members with, when it is to be driven here."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self._base_ns, self._base_s = 0, 0.0

    def clock(self) -> int:
        """Market ns: where the last question stood, and what the loop has jumped since."""
        return self._base_ns + round((self.loop.time() - self._base_s) * NS_PER_S)

    def at(self, now: int) -> None:
        """A question stands at this market time."""
        self._base_ns, self._base_s = now, self.loop.time()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.loop.close()


class _Due(msgspec.Struct):
    at_ns: int
    event: SignalsReceived | SignalsFailed | SignalsSkipped


class OfflineAnalyst:
    """A `port.Simulator` around an analyst made with `time.clock` and `asyncio.sleep`; `record` hears the facts of each cycle."""

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

    The caller is then made to sleep, in virtual time, for as long as the call took.
    """

    def __init__(self, make: Callable[[], Model], clock: Callable[[], int]) -> None:
        """`make` is called in the thread, so that the client belongs to its loop; `clock`: ns that never step back."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        self._clock = clock
        self._model = self._wait(_made(make))
        self.provider, self.model = self._model.provider, self._model.model

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        return await self._timed(self._model.complete(system, user, schema, deadline_s))

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        return await self._timed(self._model.search(system, user, deadline_s))

    async def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed twice
            self._wait(self._model.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)

    async def _timed(self, work: Coroutine[Any, Any, T]) -> T:
        began = self._clock()
        try:
            return self._wait(work)
        finally:
            await asyncio.sleep((self._clock() - began) / NS_PER_S)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _made(make: Callable[[], Model]) -> Model:
    return make()
