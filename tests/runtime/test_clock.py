"""Clocks: never back, steps reported once, paced time waits for us, late beats are told."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.events import ClockStepped, LoopDelayed
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.runtime.clock import LiveClock, LoopWatch, PacedClock, VirtualClock


class Machine:
    def __init__(self):
        self.wall_ns, self.mono_ns = 1_700_000_000 * NS_PER_S, 5 * NS_PER_S

    def wall(self):
        return self.wall_ns

    def mono(self):
        return self.mono_ns

    def run(self, ns):
        self.wall_ns += ns
        self.mono_ns += ns


@pytest.fixture
def machine():
    return Machine()


def live(machine):
    return LiveClock(machine.wall, machine.mono)


def test_live_starts_at_the_wall_and_runs_with_the_monotonic_clock(machine):
    clock = live(machine)
    assert clock.now() == machine.wall_ns
    machine.run(3 * NS_PER_S)
    machine.wall_ns += 900 * NS_PER_MS
    assert clock.check() is None
    assert clock.now() == 1_700_000_003 * NS_PER_S


def test_a_step_ahead_is_reported_once_and_followed(machine):
    clock = live(machine)
    machine.wall_ns += 60 * NS_PER_S
    assert clock.check() == ClockStepped(60 * NS_PER_S)
    assert clock.check() is None
    assert clock.now() == machine.wall_ns


def test_a_step_back_is_reported_once_and_time_goes_on(machine):
    clock = live(machine)
    before = clock.now()
    machine.wall_ns -= 3_600 * NS_PER_S
    assert clock.check() == ClockStepped(-3_600 * NS_PER_S)
    assert clock.check() is None
    machine.run(NS_PER_S)
    assert clock.now() == before + NS_PER_S
    assert clock.ahead_ns == 3_600 * NS_PER_S


def test_small_steps_add_up_to_a_report(machine):
    clock = live(machine)
    reports = []
    for _ in range(3):
        machine.wall_ns += 400 * NS_PER_MS
        reports.append(clock.check())
    assert reports == [None, None, ClockStepped(1_200 * NS_PER_MS)]


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(-(10**12), 10**12)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_live_never_runs_back_and_never_stands_still(moves):
    machine = Machine()
    clock = live(machine)
    last = clock.now()
    for run, step in moves:
        machine.run(run)
        machine.wall_ns += step
        clock.check()
        assert clock.now() >= last + run
        last = clock.now()


def test_paced_runs_at_its_speed(machine):
    clock = PacedClock(60.0, 1_000, machine.mono, max_leap_ns=10 * NS_PER_S)
    machine.run(100 * NS_PER_MS)
    assert clock.now() == 1_000 + 6 * NS_PER_S
    assert clock.wall_delay(1_000 + 12 * NS_PER_S) == pytest.approx(0.1)
    assert clock.wall_delay(0) == 0
    assert clock.speed_achieved == pytest.approx(60)


def test_paced_does_not_leap_when_we_fall_behind(machine):
    clock = PacedClock(10.0, 0, machine.mono, max_leap_ns=NS_PER_S)
    machine.run(5 * NS_PER_S)
    assert clock.now() == NS_PER_S
    assert clock.slipped_ns == 49 * NS_PER_S
    machine.run(50 * NS_PER_MS)
    assert clock.now() == NS_PER_S + 500 * NS_PER_MS


def test_paced_sleep_that_was_announced_is_no_falling_behind(machine):
    clock = PacedClock(10.0, 0, machine.mono, max_leap_ns=NS_PER_S)
    machine.run(int(clock.wall_delay(100 * NS_PER_S) * NS_PER_S))
    assert clock.now() == 100 * NS_PER_S
    assert clock.slipped_ns == 0
    machine.run(10 * NS_PER_S)
    assert clock.now() == 101 * NS_PER_S


def test_paced_pause_stops_market_time(machine):
    clock = PacedClock(1.0, 0, machine.mono)
    machine.run(NS_PER_S // 2)
    clock.pause()
    machine.run(100 * NS_PER_S)
    assert clock.now() == NS_PER_S // 2
    clock.resume()
    machine.run(NS_PER_S // 4)
    assert clock.now() == NS_PER_S * 3 // 4
    assert clock.slipped_ns == 0


def test_virtual_time_is_what_the_driver_says_and_never_back():
    clock = VirtualClock(5)
    clock.set(5)
    clock.set(9)
    assert clock.now() == 9
    with pytest.raises(AssertionError):
        clock.set(8)


def test_a_late_beat_is_told_once_with_its_delay(machine):
    watch = LoopWatch(machine.mono)
    machine.run(300 * NS_PER_MS)
    assert watch.beat() is None, "exactly the limit is not over it"
    machine.run(301 * NS_PER_MS)
    assert watch.beat() == LoopDelayed(251 * NS_PER_MS)
    machine.run(50 * NS_PER_MS)
    assert watch.beat() is None
    assert watch.longest_ns == 251 * NS_PER_MS


def test_a_blocked_loop_is_noticed(machine):
    emitted = []

    async def main():
        watch = LoopWatch(machine.mono, interval_ns=NS_PER_MS)
        task = asyncio.create_task(watch.run(emitted.append))
        await asyncio.sleep(0.005)
        machine.run(400 * NS_PER_MS)
        await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(main())
    assert [type(event) for event in emitted] == [LoopDelayed]
    assert emitted[0].delay_ns == 399 * NS_PER_MS
