"""Inbox: one order, time never back, full books conflate when behind, overflow drops data but never account events."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.events import BookDelta, BookSnapshot, OrderAccepted, Tick, TradePrinted, VenueDown
from llm_maker.core.values import Side
from llm_maker.runtime.clock import VirtualClock
from llm_maker.runtime.inbox import Inbox


class Jumpy:
    def __init__(self, *times):
        self.times = list(times)

    def now(self):
        return self.times.pop(0)


def snap(instrument="A", mark=0):
    return BookSnapshot(instrument, ((mark + 1, 1),), (), mark)


def delta(instrument="A", mark=0):
    return BookDelta(instrument, ((mark + 1, 1),), (), None, None, mark)


def trade(instrument="A", mark=0):
    return TradePrinted(instrument, 1, 1, Side.BUY, mark)


def drain(inbox):
    taken = []
    while (item := inbox.get_nowait()) is not None:
        taken.append(item[2])
    return taken


def test_order_account_and_time_are_kept_and_time_never_runs_back():
    inbox = Inbox(Jumpy(10, 8, 12), "v")
    inbox.put(Tick())
    inbox.put(OrderAccepted("1", "x"), "main")
    inbox.put(Tick())
    assert [inbox.get_nowait() for _ in range(4)] == [
        (10, "", Tick()),
        (10, "main", OrderAccepted("1", "x")),
        (12, "", Tick()),
        None,
    ]


def test_nothing_is_conflated_while_we_keep_up():
    inbox = Inbox(VirtualClock(), "v", behind=10)
    events = [delta(), snap(), delta(), snap()]
    for event in events:
        inbox.put(event)
    assert drain(inbox) == events


def test_behind_a_full_book_outdates_what_came_before_it_for_its_instrument_only():
    inbox = Inbox(VirtualClock(), "v", behind=1)
    events = [snap("A", 1), delta("A", 2), trade("A", 3), delta("B", 4), snap("A", 5), delta("A", 6), snap("A", 7)]
    for event in [*events, delta("A", 8)]:
        inbox.put(event)
    assert drain(inbox) == [trade("A", 3), delta("B", 4), snap("A", 7), delta("A", 8)]
    assert inbox.conflated == 4
    inbox.put(delta("A", 9))
    assert drain(inbox) == [delta("A", 9)]


def books(events):
    """What a reader ends with: each instrument's last full book and the changes after it, and all else in order."""
    held, rest = {}, []
    for event in events:
        if isinstance(event, BookSnapshot):
            held[event.instrument] = [event]
        elif isinstance(event, BookDelta):
            held.setdefault(event.instrument, []).append(event)
        else:
            rest.append(event)
    return held, rest


@given(
    st.lists(st.tuples(st.sampled_from("sdtg"), st.sampled_from("AB")), max_size=60),
    st.integers(1, 8),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_conflation_never_changes_the_books_a_reader_ends_with(script, behind, every):
    inbox = Inbox(VirtualClock(), "v", behind=behind)
    sent, got = [], []
    for mark, (what, instrument) in enumerate(script):
        if what == "g":
            item = inbox.get_nowait()
            got += [item[2]] if item else []
        else:
            event = {"s": snap, "d": delta, "t": trade}[what](instrument, mark)
            sent.append(event)
            inbox.put(event)
    got += drain(inbox)
    assert books(got) == books(sent)
    assert len(got) + inbox.conflated == len(sent)


def test_overflow_drops_data_says_so_once_and_keeps_account_events():
    room = []
    inbox = Inbox(VirtualClock(), "venue", limit=10, behind=2, on_room=lambda: room.append(1))
    for mark in range(15):
        inbox.put(trade("A", mark))
        inbox.put(OrderAccepted(str(mark), "x"), "main")
    taken = []
    while not room:
        taken.append(inbox.get_nowait()[2])
    assert not inbox.overflowing
    inbox.put(trade("A", 99))
    taken += drain(inbox)
    assert [event for event in taken if isinstance(event, VenueDown)] == [VenueDown("venue", "inbox overflow")]
    assert [event.order_id for event in taken if isinstance(event, OrderAccepted)] == [str(n) for n in range(15)]
    assert inbox.dropped == 10
    assert taken[-1] == trade("A", 99)
    assert room == [1]


def test_a_queue_full_of_outdated_books_is_no_overflow():
    for total in range(2, 60):
        inbox = Inbox(VirtualClock(), "v", limit=10, behind=1)
        for mark in range(total):
            inbox.put(snap("A", mark))
            assert len(inbox) <= 10
        assert drain(inbox) == [snap("A", total - 1)]
        assert inbox.overflows == 0
        assert inbox.conflated == total - 1
        assert not inbox._newest


def test_wait_wakes_on_an_event_and_on_its_timeout():
    async def main():
        inbox = Inbox(VirtualClock(), "v")
        assert await inbox.wait(0.001) is False
        asyncio.get_running_loop().call_later(0.005, inbox.put, Tick())
        assert await asyncio.wait_for(inbox.wait(), 2) is True
        assert await inbox.wait(0) is True
        assert inbox.get_nowait()[2] == Tick()
        cancelled = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await inbox.wait(0.001) is False

    asyncio.run(main())


def test_other_threads_enter_in_their_own_order_and_are_refused_by_a_closed_loop():
    inbox = Inbox(VirtualClock(), "v")

    async def main():
        inbox.bind(asyncio.get_running_loop())

        def feed():
            for number in range(100):
                assert inbox.put_threadsafe(OrderAccepted(str(number), "x"), "main")

        thread = threading.Thread(target=feed)
        thread.start()
        taken = []
        while len(taken) < 100:
            assert await inbox.wait(5)
            taken += drain(inbox)
        thread.join()
        return [event.order_id for event in taken]

    assert asyncio.run(main()) == [str(number) for number in range(100)]
    assert inbox.put_threadsafe(Tick()) is False
