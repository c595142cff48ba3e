"""The inbox: one queue, one order; everything that happens enters here and gets its market time.

It knows which events are full books and which are public data that may be lost with notice; it decides nothing else.
Sequence numbers belong to an account and are given by the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    Event,
    LiquidationReported,
    OpenInterestReported,
    PriceReported,
    TopReported,
    TradePrinted,
    VenueDown,
)
from llm_maker.runtime.clock import Clock

Stamped = tuple[int, str, Event]
"""Market time (ns), account ('' for all), event."""

LOSSY = frozenset((BookSnapshot, BookDelta, TopReported, TradePrinted, PriceReported, OpenInterestReported, LiquidationReported))
"""Dropped when the queue is full; every other event is kept whatever the length."""


class InboxFull(Exception):
    """Too many events of other threads wait for the loop: it is dead or blocked."""


class Inbox:
    """Filled from the loop's thread by `put`, from others by `put_threadsafe`; emptied by one consumer.

    More than `behind` events waiting: a full book makes the changes and books of its instrument before it worthless,
    and they are left out (`conflated`). At `limit`: public data is dropped (`dropped`) and one `VenueDown` says so;
    once half of the queue is worked off, data is taken again and `on_room` is called, for the feed to start afresh.
    """

    def __init__(
        self,
        clock: Clock,
        venue: str,
        limit: int = 100_000,
        behind: int = 256,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        assert 0 < behind < limit
        self._clock, self._venue, self._limit, self._behind, self._on_room = clock, venue, limit, behind, on_room
        self._queue: deque[Stamped] = deque()
        self._taken = 0
        self._newest: dict[str, int] = {}
        """Instrument -> place (counted from the first event ever) of a full book that outdates what is before it."""
        self._last_ts = 0
        self._waiter: asyncio.Future[bool] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._foreign = 0
        self._foreign_lock = threading.Lock()
        self.overflowing = False
        self.conflated = 0
        self.dropped = 0
        self.overflows = 0

    def __len__(self) -> int:
        return len(self._queue)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop that other threads wake; before the first `put_threadsafe`."""
        self._loop = loop

    def put(self, event: Event, account: str = "") -> None:
        """Stamp and queue; from the loop's thread."""
        waiting = len(self._queue)
        if waiting >= self._behind and not self._admit(event, waiting):
            return
        now = self._last_ts = max(self._clock.now(), self._last_ts)
        self._queue.append((now, account, event))
        if self._waiter is not None:
            self._wake(True)

    def put_threadsafe(self, event: Event, account: str = "") -> bool:
        """Queue from another thread, stamped when the loop takes it; False if the loop has ended."""
        assert self._loop is not None, "bind first"
        with self._foreign_lock:
            if self._foreign >= self._limit:
                raise InboxFull(f"{self._foreign} events wait for the loop")
            self._foreign += 1
        try:
            self._loop.call_soon_threadsafe(self._put_foreign, event, account)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def get_nowait(self) -> Stamped | None:
        """The oldest event that still matters; None when there is none."""
        queue = self._queue
        while queue:
            item = queue.popleft()
            place = self._taken
            self._taken = place + 1
            if self.overflowing and len(queue) <= self._limit // 2:
                self._recover()
            if not self._newest or not self._outdated(item[2], place):
                return item
            self.conflated += 1
        return None

    async def wait(self, timeout: float | None = None) -> bool:
        """Sleep until something is queued (True) or `timeout` wall seconds have passed (False); one waiter only."""
        if self._queue:
            return True
        assert self._waiter is None, "one consumer"
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self._wake, False) if timeout is not None else None
        try:
            filled: bool = await waiter
            return filled
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _put_foreign(self, event: Event, account: str) -> None:
        with self._foreign_lock:
            self._foreign -= 1
        self.put(event, account)

    def _wake(self, filled: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(filled)

    def _admit(self, event: Event, waiting: int) -> bool:
        """What being behind changes: full books outdate, a full queue drops."""
        kind = type(event)
        if kind not in LOSSY:
            return True
        if not self.overflowing and waiting >= self._limit:
            self._compact()
            if len(self._queue) >= self._limit:
                self._overflow()
        if self.overflowing:
            self.dropped += 1
            return False
        if kind is BookSnapshot:
            self._newest[event.instrument] = self._taken + len(self._queue)  # type: ignore[attr-defined]
        return True

    def _outdated(self, event: Event, place: int) -> bool:
        if type(event) is not BookDelta and type(event) is not BookSnapshot:
            return False
        newest = self._newest.get(event.instrument)
        if newest is None or place > newest:
            return False
        if place == newest:
            del self._newest[event.instrument]
            return False
        return True

    def _compact(self) -> None:
        """Leave out now what would be left out later."""
        kept = [item for at, item in enumerate(self._queue) if not self._outdated(item[2], self._taken + at)]
        self.conflated += len(self._queue) - len(kept)
        self._queue = deque(kept)
        assert not self._newest, "each names a full book that waits, and all of those were passed"

    def _overflow(self) -> None:
        self.overflowing = True
        self.overflows += 1
        self.put(VenueDown(self._venue, "inbox overflow"))

    def _recover(self) -> None:
        self.overflowing = False
        if self._on_room is not None:
            self._on_room()
