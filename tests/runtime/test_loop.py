"""The loop: written before sent, cancels first, failures of the disk and of our own, one order of time, rotation only when idle."""

import asyncio
import errno
import os

import pytest

from llm_maker.core.commands import CancelOrder, LookUpOrder, Notice, PlaceOrder, RequestAccount, RequestSignals, Stop
from llm_maker.core.engine import Engine
from llm_maker.core.events import (
    InstrumentListed,
    OperatorActed,
    OrderFilled,
    Started,
    StopRequested,
    StorageFailed,
    Tick,
    VenueUp,
    Verb,
)
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.clock import PacedClock, VirtualClock
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.journal import files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.loop import HOT, Account, Outbox, Session
from llm_maker.runtime.replay import replay
from llm_maker.runtime.timeline import Timeline
from tests.runtime.world import STRATEGIES, World

SAFE = (CancelOrder, LookUpOrder, RequestAccount, Stop)


class Port:
    """A live port that remembers, and looks at the journal's bytes the moment a command reaches it."""

    name = "port"

    def __init__(self, path=None):
        self.sent, self.seen, self.flushed, self.path = [], [], [], path

    def execute(self, command):
        self.sent.append(command)
        if self.path is not None:
            self.seen.append(self.path().read_bytes())

    def flush(self):
        self.flushed.append(len(self.sent))

    async def run(self, emit):
        raise AssertionError("never run here")


class Spy:
    """A simulator that hears everything and says nothing; stands where the exchange stands."""

    name = "spy"

    def __init__(self):
        self.sent = []

    def observe(self, now, event):
        pass

    def execute(self, now, command):
        self.sent.append(command)

    def next_ns(self):
        return None

    def advance(self, now):
        return []

    def checkpoint(self):
        return b"{}"

    def restore(self, saved):
        pass


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self):
        self.told = []

    def record(self, seq, ts, event, commands):
        self.told.append((seq, ts, event, list(commands)))


def started(folder, *, os_write=os.write, venue=None, recorder=None, **limits):
    """A world that has begun, and its session; the disk writes through `os_write`."""
    world = World(seed=3, activity=400.0)
    journal = JournalWriter.create(folder, "main", world.checkpoint, os_write=os_write)
    session, account = world.session(journal, recorder=recorder, venue=venue)
    session.deliver(world.start_ns, "main", Started(1, False))
    return world, session, account


def drive(session, seconds):
    until = session.now + int(seconds * NS_PER_S)
    while not session.stopped and session.timeline.next_ns() <= until:
        session.deliver(*session.timeline.pop())


def test_no_command_leaves_before_its_line_is_with_the_operating_system(tmp_path):
    port = Port(lambda: files(tmp_path, "main")[-1])
    _, session, _ = started(tmp_path, venue=port)
    drive(session, 20)
    placed = [(c, seen) for c, seen in zip(port.sent, port.seen, strict=True) if isinstance(c, PlaceOrder | CancelOrder)]
    assert len(placed) > 10
    for command, seen in placed:
        last = seen.splitlines()[-1]
        kind = b'"PlaceOrder"' if isinstance(command, PlaceOrder) else b'"CancelOrder"'
        assert kind in last and f'"order_id":"{command.order_id}"'.encode() in last


def test_cancels_go_first_and_the_rest_in_order():
    port = Port()
    box = Outbox(port)
    cancels = [CancelOrder(f"c{n}", "m", "r") for n in range(2)]
    asks = [RequestAccount(f"a{n}") for n in range(3)]
    for command in (asks[0], cancels[0], asks[1], cancels[1], asks[2]):
        box.put(command)
    box.send()
    assert port.sent == [*cancels, *asks]
    assert port.flushed == [5], "once, when all has been handed over"
    box.send()
    assert port.flushed == [5], "nothing was handed over"
    box.send()
    assert len(port.sent) == 5, "nothing is sent twice"


def test_questions_go_to_the_analyst_and_orders_to_the_venue(tmp_path):
    world = World(analyst=False)
    venue, analyst = Port(), Port()
    account = Account(world.engine, world.journal(tmp_path), simulators=[world.exchange], venue=venue, analyst=analyst)
    session = Session([account], world.timeline)
    session.deliver(world.start_ns, "main", Started(1, False))
    drive(session, 15)
    assert {type(c) for c in analyst.sent} == {RequestSignals}
    assert any(isinstance(c, PlaceOrder) for c in venue.sent) and not any(isinstance(c, RequestSignals) for c in venue.sent)


def full_disk_after(lines):
    """An `os.write` that works for so many lines and then finds the disk full."""
    left = [lines]

    def write(fd, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    return write


@pytest.mark.parametrize("writes", [3, 30, 60, 110])
def test_a_full_disk_halts_and_only_safe_commands_leave(tmp_path, writes):
    port, notes = Port(), Notes()
    world, session, account = started(tmp_path, os_write=full_disk_after(writes), venue=port, recorder=notes)
    while not account.storage_failed:
        session.deliver(*session.timeline.pop())
    before, resting = list(port.sent), [o.order_id for o in world.engine.state.orders.values() if o.is_live]
    drive(session, 70)
    after = port.sent[len(before) :]
    assert "No space left" in account.storage_failed and "storage" in world.engine.state.halts
    assert account.stop is not None and account.stop.clean, "quotes gone, proved, ended"
    assert all(isinstance(c, SAFE) for c in after)
    sent = {c.order_id for c in before if isinstance(c, PlaceOrder)}
    assert {i for i in resting if i in sent} <= {c.order_id for c in [*before, *after] if isinstance(c, CancelOrder)}
    assert not world.exchange.resting()
    told = [event for _, _, event, _ in notes.told]
    assert sum(isinstance(e, StorageFailed) for e in told) == 1 and sum(isinstance(e, StopRequested) for e in told) == 1


def test_what_the_journal_lacks_gets_no_number_in_the_ledger(tmp_path):
    """After a restart these numbers are given again, to other events: a row under one of them would hide theirs."""
    notes = Notes()
    _, session, account = started(tmp_path, os_write=full_disk_after(40), recorder=notes)
    drive(session, 60)
    assert account.storage_failed
    path = files(tmp_path, "main")[-1]
    journalled = read_journal(path).scan().last_seq
    assert max(seq for seq, *_ in notes.told) == journalled
    assert any(seq == 0 for seq, *_ in notes.told)


def test_a_journal_that_cannot_begin_a_new_file_stops_the_run(tmp_path):
    full = []

    def write(fd, data):
        if full and data.startswith(b'{"journal"'):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    world = World(seed=3, activity=400.0)
    journal = JournalWriter.create(tmp_path, "main", world.checkpoint, limits=JournalLimits(max_file=50_000), os_write=write)
    session, account = world.session(journal)
    session.deliver(world.start_ns, "main", Started(1, False))
    drive(session, 60)
    full.append(True)
    session.rotate()
    assert "No space left" in account.storage_failed and world.engine.state.stopping
    drive(session, 70)
    assert account.stop.clean and not world.exchange.resting()


def test_rotation_waits_until_nothing_is_half_handed_on(tmp_path):
    world = World(seed=3, activity=400.0)
    journal = world.journal(tmp_path, max_file=1)
    session, account = world.session(journal)
    session.deliver(world.start_ns, "main", Started(1, False))
    rotated = waited = 0
    while account.seq < 300:
        session.deliver(*session.timeline.pop())
        before, idle = journal.path, session.timeline.idle
        journal._tail.opening = 0  # else a file waits until it holds as much as its checkpoint
        session.rotate()
        assert (journal.path != before) == idle
        rotated, waited = rotated + idle, waited + (not idle)
    journal.close()
    assert rotated > 50 and waited > 5
    for path in files(tmp_path, "main"):
        replay(path, STRATEGIES)


def test_a_run_over_many_files_is_one_run(tmp_path):
    one, many = World(seed=3, activity=400.0), World(seed=3, activity=400.0)
    one.run(tmp_path / "one", 120)
    many.run(tmp_path / "many", 120, max_file=20_000)
    paths = files(tmp_path / "many", "main")
    assert len(paths) > 2
    whole = list(read_journal(files(tmp_path / "one", "main")[0]))
    assert [entry for path in paths for entry in read_journal(path)] == whole


class Broken(Engine):
    """An engine with a bug that shows after some events."""

    def __init__(self, state, strategy, good):
        super().__init__(state, strategy)
        self.good = good

    def on_event(self, now, event):
        self.good -= 1
        assert self.good > 0, "a bug of ours"
        return super().on_event(now, event)


def test_a_bug_of_ours_cancels_what_is_live_without_asking_the_core(tmp_path):
    port = Port()
    world = World(seed=3, activity=400.0)
    world.engine = Broken(world.engine.state, STRATEGIES["maker"], 200)
    session, account = world.session(world.journal(tmp_path), venue=port)
    session.deliver(world.start_ns, "main", Started(1, False))
    with pytest.raises(AssertionError, match="a bug of ours"):
        drive(session, 600)
    live = [o.order_id for o in world.engine.state.orders.values() if o.is_live]
    before = len(port.sent)
    ids = session.emergency("a bug of ours")
    assert ids == live != []
    assert [c.order_id for c in port.sent[before:]] == live and all("emergency" in c.reason for c in port.sent[before:])
    world.exchange.advance(session.now + NS_PER_S)
    assert world.exchange.resting() == []
    assert read_journal(account.journal.path).scan().last_seq <= account.seq


class Hand:
    """A monotonic clock moved by hand."""

    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns


async def test_events_from_outside_fall_between_due_ones_and_time_never_runs_back(tmp_path):
    """A person presses something at many moments; stamped by the clock, no later than what is still due."""
    world, session, account = started(tmp_path)
    hand = Hand()
    clock = PacedClock(60.0, world.start_ns, monotonic=hand)
    inbox = Inbox(clock, "simulated")
    inbox.bind(asyncio.get_running_loop())
    pressed = 0

    def idle():
        nonlocal pressed
        hand.ns += 3_000_000
        if session.now > world.start_ns + 90 * NS_PER_S and not world.engine.state.stopping:
            inbox.put(StopRequested("enough"), "main")
        elif pressed < 40 and session.events > 40 * pressed:
            pressed += 1
            inbox.put(OperatorActed(Verb.RESUME, "test"), "main")

    async def no_rest(*_):
        await asyncio.sleep(0)

    session._rest = no_rest
    await asyncio.wait_for(session.run(inbox, clock, on_idle=idle), 30)
    account.journal.close()
    entries = list(read_journal(account.journal.path))
    assert account.stop.clean and pressed > 10
    times = [entry.ts for entry in entries]
    assert times == sorted(times)
    outside = [n for n, entry in enumerate(entries) if isinstance(entry.event, OperatorActed)]
    assert len(outside) == pressed
    assert any(entries[n - 1].ts < entries[n].ts < entries[n + 1].ts for n in outside), "between two due events"
    assert replay(account.journal.path, STRATEGIES).entries == len(entries)


class Silent(Spy):
    """Due at every moment and with nothing to say until `until_ns`."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def next_ns(self):
        return self.at

    def advance(self, now):
        self.at += NS_PER_S // 10
        return []


def test_what_is_not_due_yet_is_not_delivered_because_a_silent_source_was(tmp_path):
    world = World(seed=3)
    timeline = Timeline([("", Silent(world.start_ns)), *world.timeline.sources])
    account = Account(world.engine, world.journal(tmp_path), simulators=[world.exchange])
    session = Session([account], timeline)
    hand = Hand()
    clock = PacedClock(1.0, world.start_ns, monotonic=hand)
    for _ in range(300):
        hand.ns += 5_000_000
        session._run_due(timeline, clock, None)
        assert session.now <= clock.now()
    assert session.events > 10


async def test_the_market_time_asked_for_ends_the_run(tmp_path):
    world, session, account = started(tmp_path)
    clock = VirtualClock(session.now)
    inbox = Inbox(clock, "simulated")
    inbox.bind(asyncio.get_running_loop())
    await asyncio.wait_for(session.run(inbox, clock, until_ns=world.start_ns + 30 * NS_PER_S), 30)
    assert account.stop.clean and 30 <= (session.now - world.start_ns) / NS_PER_S < 40


def test_a_stop_is_asked_once_and_ends_only_with_proof(tmp_path):
    world, session, account = started(tmp_path)
    drive(session, 20)
    assert [o for o in world.engine.state.orders.values() if o.is_live]
    session.request_stop("one")
    session.request_stop("two")
    assert account.stop is None and not session.stopped
    drive(session, 10)
    assert account.stop.clean and account.stop.reason == "one" and world.exchange.resting() == []


def test_public_data_waits_for_the_next_flush_and_everything_else_does_not(tmp_path):
    world = World(seed=3, activity=400.0)
    journal = world.journal(tmp_path)
    session, account = world.session(journal)
    session.deliver(world.start_ns, "main", Started(1, False))
    waited = 0
    while account.seq < 1_500:
        ts, name, event = session.timeline.pop()
        seq = account.seq
        session.deliver(ts, name, event)
        if journal.pending_bytes:
            waited += 1
            assert account.seq == seq + 1 and type(event) in HOT
        assert not (isinstance(event, Tick | OrderFilled | InstrumentListed | VenueUp) and journal.pending_bytes)
    assert waited > 100


def test_the_recorder_hears_all_but_plain_public_data(tmp_path):
    notes = Notes()
    _, session, account = started(tmp_path, recorder=notes)
    drive(session, 30)
    kinds = {type(event).__name__ for _, _, event, _ in notes.told}
    assert {"Started", "Tick", "OrderAccepted", "AccountSnapshot"} <= kinds
    assert all(c for _, _, event, c in notes.told if type(event).__name__ in ("BookDelta", "TradePrinted", "TopReported"))
    assert [seq for seq, *_ in notes.told] == sorted({seq for seq, *_ in notes.told})
    assert account.seq >= notes.told[-1][0]
    assert not any(isinstance(c, Notice) and c.code == "halt" for *_, cs in notes.told for c in cs)


async def test_an_event_is_stamped_between_what_was_and_what_is_due(tmp_path):
    """The clock may be ahead of a batch that is not worked off, or an event may have waited while one was."""
    world, session, account = started(tmp_path)
    drive(session, 5)
    clock = VirtualClock(session.now + 60 * NS_PER_S)
    inbox = Inbox(clock, "simulated")
    inbox.bind(asyncio.get_running_loop())
    inbox.put(OperatorActed(Verb.RESUME, "early"), "main")
    due = session.timeline.next_ns()
    session._run_inbox(inbox, session.timeline)
    assert session.now == due, "not after what is due"
    old = Inbox(VirtualClock(session.now - NS_PER_S), "simulated")
    old.put(OperatorActed(Verb.RESUME, "late"), "main")
    session._run_inbox(old, session.timeline)
    assert session.now == due == world.engine.state.now, "and never before what was"
    drive(session, 5)
    account.journal.close()
    assert replay(account.journal.path, STRATEGIES).entries == account.seq
