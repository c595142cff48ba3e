"""Market time as a value: the live clock, the paced one of a simulation, the virtual one of a backtest, the loop watch.

They hand out nanoseconds that never run back and know nothing of events' meaning. What reads the machine's clocks
(`wall`, `monotonic`) is passed in, so a test owns time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from llm_maker.core.events import ClockStepped, LoopDelayed
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.port import Emit

NsSource = Callable[[], int]


class Clock(Protocol):
    """Anything that says what the market time is, ns since the epoch; never less than it said before."""

    def now(self) -> int: ...


class LiveClock:
    """The wall time at start, carried on by the monotonic clock; wall steps are reported, not just followed."""

    def __init__(self, wall: NsSource = time.time_ns, monotonic: NsSource = time.monotonic_ns, max_step_ns: int = NS_PER_S) -> None:
        self._wall, self._monotonic, self._max_step_ns = wall, monotonic, max_step_ns
        self._market_offset = self._wall_offset = wall() - monotonic()

    def now(self) -> int:
        return self._monotonic() + self._market_offset

    def check(self) -> ClockStepped | None:
        """Compare both clocks (call it a few times a second); a step over `max_step_ns` since the last one reported.

        A step ahead (a suspended machine) moves market time ahead. A step back does not: market time would have to
        stand still meanwhile, and with it every deadline; it goes on from where it is, ahead of the wall.
        """
        wall_offset = self._wall() - self._monotonic()
        step = wall_offset - self._wall_offset
        if abs(step) <= self._max_step_ns:
            return None
        self._wall_offset = wall_offset
        self._market_offset = max(self._market_offset, wall_offset)
        return ClockStepped(step)

    @property
    def ahead_ns(self) -> int:
        """How far market time is ahead of the wall because the wall was set back."""
        return self._market_offset - self._wall_offset


def rehearsal_clock(speed: float, start_ns: int, monotonic: NsSource = time.monotonic_ns) -> LiveClock:
    """A live clock whose seconds are `speed` times as short, from `start_ns` on: for a venue that runs as fast."""
    began = monotonic()

    def passed() -> int:
        return int((monotonic() - began) * speed)

    return LiveClock(lambda: start_ns + passed(), passed)


class PacedClock:
    """Market time that runs `speed` times as fast as the monotonic clock, from `start_ns`.

    If we fall behind, the market waits for us instead of leaping: beyond the moment last announced to `wall_delay`,
    one reading is at most `max_leap_ns` after the one before; what is left out is counted in `slipped_ns`.
    """

    def __init__(
        self,
        speed: float,
        start_ns: int,
        monotonic: NsSource = time.monotonic_ns,
        max_leap_ns: int = NS_PER_S,
    ) -> None:
        assert speed > 0, "speed 0 is the virtual clock"
        self.speed, self.slipped_ns = speed, 0
        self._monotonic, self._max_leap_ns = monotonic, max_leap_ns
        self._start = self._now = self._announced = start_ns
        self._first_read = self._last_read = monotonic()
        self._paused = False

    def now(self) -> int:
        read = self._monotonic()
        elapsed = 0 if self._paused else int((read - self._last_read) * self.speed)
        latest = max(self._announced, self._now) + self._max_leap_ns
        reached = min(self._now + elapsed, latest)
        self.slipped_ns += self._now + elapsed - reached
        self._now, self._last_read = reached, read
        return reached

    def wall_delay(self, until_ns: int) -> float:
        """Wall seconds from now to a market time, 0 if it is past; sleeping that long is no falling behind."""
        now = self.now()
        self._announced = max(self._announced, until_ns)
        return max(until_ns - now, 0) / self.speed / NS_PER_S

    def pause(self) -> None:
        self.now()
        self._paused = True

    def resume(self) -> None:
        self.now()
        self._paused = False

    @property
    def speed_achieved(self) -> float:
        """Market time over wall time since the start, pauses included."""
        wall = self._monotonic() - self._first_read
        return (self._now - self._start) / wall if wall else 0.0


class VirtualClock:
    """Market time set by its driver: a backtest, a replay, a run at speed 0."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns

    def now(self) -> int:
        return self._now

    def set(self, now: int) -> None:
        assert now >= self._now, f"time {now} after {self._now}"
        self._now = now


class LoopWatch:
    """Notices that the event loop did not run: a beat that comes more than `limit_ns` late is a `LoopDelayed`."""

    def __init__(
        self,
        monotonic: NsSource = time.monotonic_ns,
        limit_ns: int = 250 * NS_PER_MS,
        interval_ns: int = 50 * NS_PER_MS,
    ) -> None:
        self._monotonic, self._limit_ns, self._interval_ns = monotonic, limit_ns, interval_ns
        self._due = monotonic() + interval_ns
        self.longest_ns = 0

    def beat(self) -> LoopDelayed | None:
        """Call when the interval has been slept; says how late that is, if too late."""
        now = self._monotonic()
        delay = now - self._due
        self._due = now + self._interval_ns
        self.longest_ns = max(self.longest_ns, delay)
        return LoopDelayed(delay) if delay > self._limit_ns else None

    async def run(self, emit: Emit) -> None:
        """Beat until cancelled."""
        self._due = self._monotonic() + self._interval_ns
        while True:
            await asyncio.sleep(self._interval_ns / NS_PER_S)
            delayed = self.beat()
            if delayed is not None:
                emit(delayed)
