"""`--until`: the market time asked for is where a run ends, however many events the loop takes at a time."""

import asyncio

import pytest

from llm_maker.core.events import Started
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.clock import PacedClock, VirtualClock
from llm_maker.runtime.inbox import Inbox
from tests.runtime.world import World

STOP_S = 5
"""Cancels travel, and the account is asked: a stop is proved within this."""


def _run(clock_of, until_s: float) -> tuple[float, World]:
    world = World(markets=2, activity=1.0)
    session, account = world.session()
    session.deliver(world.start_ns, "main", Started(1, False))
    clock = clock_of(world.start_ns)
    asyncio.run(session.run(Inbox(clock, "simulated"), clock, world.start_ns + int(until_s * NS_PER_S)))
    assert account.stop is not None and account.stop.clean
    return (session.now - world.start_ns) / NS_PER_S, world


@pytest.mark.parametrize("clock_of", [VirtualClock, lambda start: PacedClock(1_000.0, start)], ids=["as fast as possible", "paced"])
@pytest.mark.parametrize("until_s", [1.0, 7.3, 30.0])
def test_a_run_ends_at_the_market_time_asked_for(clock_of, until_s):
    ended_s, world = _run(clock_of, until_s)
    assert until_s - 0.25 <= world.engine.state.stop_ns / NS_PER_S - world.start_ns / NS_PER_S <= until_s
    assert ended_s <= until_s + STOP_S


def test_a_virtual_run_without_a_loop_ends_there_too():
    world = World(markets=2, activity=1.0)
    session, account = world.session()
    session.deliver(world.start_ns, "main", Started(1, False))
    session.run_virtual(world.start_ns + 10 * NS_PER_S)
    assert account.stop is not None and account.stop.clean
    assert 9.75 <= (world.engine.state.stop_ns - world.start_ns) / NS_PER_S <= 10.0
