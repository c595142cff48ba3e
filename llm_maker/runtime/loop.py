"""The loop: events in one order through each account's engine, journal, then commands out. Nearly nothing else.

For every event: `engine.on_event` -> journal (flushed to the operating system before anything is sent) -> outboxes, cancels
first -> logs. Live, paper, tape and backtest are the same loop with other sources. It decides nothing about trading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from llm_maker.core.commands import (
    AnyCommand,
    CancelOrder,
    Command,
    LookUpOrder,
    RequestAccount,
    RequestSignals,
    RequestSnapshot,
    Stop,
)
from llm_maker.core.engine import Engine
from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    Event,
    LoopDelayed,
    OperatorActed,
    StopRequested,
    StorageFailed,
    TopReported,
    TradePrinted,
)
from llm_maker.core.values import NS_PER_S
from llm_maker.port import Port, Simulator
from llm_maker.runtime.clock import LiveClock, PacedClock, VirtualClock
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.journal import JournalError
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.timeline import Timeline

HOT = frozenset((BookDelta, BookSnapshot, TopReported, TradePrinted))
"""Public data: may wait in the journal's buffer for the next Tick, because a restart hears it again."""
BATCH = 256
"""Simulated events handled between two looks at the event loop."""
LOST_NS = NS_PER_S
"""A live loop whose next Tick is this late has stood still, or its clock was set ahead."""
_SAFE_UNWRITTEN = (CancelOrder, LookUpOrder, RequestAccount, Stop)
"""What may be sent though the journal cannot be written: it adds no risk that a restart could forget."""


class Recorder(Protocol):
    """Writes logs and ledger rows; sees every event that is not plain public data, after the state has moved."""

    def record(self, seq: int, ts: int, event: Event, commands: list[AnyCommand]) -> None: ...


class Outbox:
    """Commands on their way to one live port: cancels first, then in order of decision."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._waiting: list[Command] = []

    def put(self, command: Command) -> None:
        self._waiting.append(command)

    def send(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for command in sorted(waiting, key=lambda c: not isinstance(c, CancelOrder)):
                self.port.execute(command)
            self.port.flush()


class Account:
    """One engine with its journal, its simulators, its live ports and its recorder."""

    def __init__(
        self,
        engine: Engine,
        journal: JournalWriter | None,
        recorder: Recorder | None = None,
        simulators: list[Simulator] | None = None,
        venue: Port | None = None,
        analyst: Port | None = None,
        feed: Port | None = None,
        seq: int = 0,
        *,
        durable: bool = True,
    ) -> None:
        """`durable` False leaves flushing to the buffer's size: for a backtest, where no command leaves the process."""
        self.engine = engine
        self.durable = durable
        self.name = engine.state.account
        self.journal = journal
        self.recorder = recorder
        self.simulators = simulators or []
        self.venue = Outbox(venue) if venue else None
        self.analyst = Outbox(analyst) if analyst else None
        self.feed = feed
        self.seq = seq
        self.stop: Stop | None = None
        self.stop_ns = 0
        self.storage_failed = ""

    def step(self, ts: int, event: Event, feeds: list[Simulator]) -> None:
        """One event, whole: decide, write, send, record."""
        commands = self.engine.on_event(ts, event)
        self.seq += 1
        told = bool(commands) or type(event) not in HOT
        written = self._write(ts, event, commands, told)
        if not told:
            return
        for command in commands:
            if written or isinstance(command, _SAFE_UNWRITTEN):
                self._dispatch(ts, command, feeds)
        if self.venue:
            self.venue.send()
        if self.analyst:
            self.analyst.send()
        if self.recorder:
            # The ledger is the journal's index: what the journal lacks gets no number there, only its lines in the logs.
            self.recorder.record(self.seq if written else 0, ts, event, commands)

    def _write(self, ts: int, event: Event, commands: list[AnyCommand], told: bool) -> bool:
        if self.storage_failed:
            return False
        if self.journal is None:
            return True
        try:
            self.journal.write(self.seq, ts, event, commands)
            if told and self.durable:
                self.journal.flush()
        except JournalError as error:
            self.storage_failed = str(error)
            return False
        return True

    def _dispatch(self, ts: int, command: AnyCommand, feeds: list[Simulator]) -> None:
        if isinstance(command, Stop):
            self.stop, self.stop_ns = command, ts
            return
        for simulator in self.simulators:
            simulator.execute(ts, command)
        for feed in feeds:
            feed.execute(ts, command)
        if isinstance(command, RequestSignals):
            if self.analyst:
                self.analyst.put(command)
        elif isinstance(command, RequestSnapshot):
            if self.feed:
                self.feed.execute(command)
        elif self.venue:
            self.venue.put(command)


def fault_of(task: asyncio.Task[None]) -> BaseException | None:
    """What ended a task that nobody has stopped: a client that cancels itself is as dead as one that raises; None: it runs."""
    if not task.done():
        return None
    return asyncio.CancelledError("cancelled by itself") if task.cancelled() else task.exception()


class Beside(Protocol):
    """A paper account beside the others: hears every event after they have acted on it, and harms none of them."""

    def hear(self, ts: int, account: str, event: Event) -> None: ...
    def rotate(self) -> None: ...
    def ended(self, waited: int) -> bool: ...


class Session:
    """All accounts, one order of events."""

    def __init__(self, accounts: list[Account], timeline: Timeline, shadows: Sequence[Beside] = ()) -> None:
        self.accounts = accounts
        self.shadows = shadows
        self.timeline = timeline
        self.feeds = [s for account, s in timeline.sources if not account]
        self.now = 0
        self.events = 0
        self.frames = 0
        """Public market messages delivered."""
        self.dead = False
        """A fault of ours has ended it: what is handed in now is handled by nobody."""

    @property
    def stopped(self) -> bool:
        for account in self.accounts:  # asked before every event: a loop costs half of `all`
            if account.stop is None:
                return False
        waited = self.now - max((account.stop_ns for account in self.accounts), default=0)
        return all(shadow.ended(waited) for shadow in self.shadows)

    def deliver(self, ts: int, account: str, event: Event) -> None:
        """Hand one event to the account it belongs to, or to all; the simulated world hears of it first."""
        self.now = ts
        self.events += 1
        if type(event) in HOT:
            self.frames += 1
        elif type(event) is LoopDelayed:
            self.timeline.skip_to(ts)
        for target in self.accounts:
            if account and account != target.name:
                continue
            if not account:
                for simulator in target.simulators:
                    simulator.observe(ts, event)
            target.step(ts, event, self.feeds)
            if target.storage_failed:
                self._storage_failed(ts, target)
        for shadow in self.shadows:
            shadow.hear(ts, account, event)

    def _storage_failed(self, ts: int, target: Account) -> None:
        """The journal is gone: quotes away, and the end; once."""
        if not target.engine.state.stopping:
            for event in (StorageFailed("journal", target.storage_failed), StopRequested("the journal cannot be written")):
                target.step(ts, event, self.feeds)

    def rotate(self) -> None:
        """Begin new journal files where they are due; only between two moments, when nothing is half handed on."""
        if self.timeline.idle:
            for account in self.accounts:
                if account.journal is not None and not account.storage_failed:
                    try:
                        account.journal.rotate_if_due()
                    except JournalError as error:
                        account.storage_failed = str(error)
                        self._storage_failed(self.now, account)
            for shadow in self.shadows:
                shadow.rotate()

    def request_stop(self, reason: str) -> None:
        """Ask every account to stop; to be called between two events."""
        for account in self.accounts:
            if account.stop is None and not account.engine.state.stopping:
                self.deliver(max(self.now, account.engine.state.now), account.name, StopRequested(reason))

    def run_virtual(self, until_ns: int | None = None, progress: Callable[[int], None] | None = None) -> None:
        """As fast as possible, without an event loop, until the feeds end (then stop cleanly) or every account stopped."""
        timeline, count, asked = self.timeline, 0, False
        while not self.stopped:
            count += 1
            if count % BATCH == 0:
                self.rotate()
                if progress:
                    progress(self.events)
            ended = not asked and timeline.feeds_ended()
            item = None if ended else timeline.pop(None if asked else until_ns)
            if item is not None:
                self.deliver(*item)
            elif asked:
                break
            else:
                asked = True
                self.request_stop("the feed has ended" if ended else "the market time asked for has passed")

    async def run(
        self,
        inbox: Inbox,
        clock: LiveClock | PacedClock | VirtualClock,
        until_ns: int | None = None,
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        """In step with a clock: simulated events when they are due, everything else as it comes in."""
        timeline = self.timeline
        while not self.stopped:
            if isinstance(clock, LiveClock):
                self._skip_lost_time(clock.now())
            self._run_due(timeline, clock, until_ns)
            self.rotate()
            due = timeline.next_ns()
            if until_ns is not None and (self.now >= until_ns or (due is not None and due > until_ns)):
                self.request_stop("the market time asked for has passed")
                until_ns = None
            if timeline.feeds_ended() and self.feeds and len(self.feeds) > 1:
                self.request_stop("the feed has ended")
            self._run_inbox(inbox, timeline)
            if on_idle:
                on_idle()
            await self._rest(inbox, timeline, clock)
        while (item := inbox.get_nowait()) is not None:
            # Pressed in the last moment, and said to be done: a kill holds over the next start.
            if isinstance(item[2], OperatorActed):
                self.deliver(max(self.now, item[0]), item[1], item[2])

    def _skip_lost_time(self, now: int) -> None:
        """What a real feed says is stamped no later than the next Tick: lived through late, each would date it back."""
        tick = self.timeline.next_tick_ns()
        if tick is not None and now - tick > LOST_NS:
            self.deliver(max(now, self.now), "", LoopDelayed(now - tick))

    def _run_due(self, timeline: Timeline, clock: LiveClock | PacedClock | VirtualClock, until_ns: int | None) -> None:
        latest = until_ns if isinstance(clock, VirtualClock) else min(clock.now(), until_ns or 1 << 63)
        for _ in range(BATCH):
            # A source may be due and have nothing to say; what comes after it may not be due yet.
            item = None if self.stopped else timeline.pop(latest)
            if item is None:
                return
            if isinstance(clock, VirtualClock):
                clock.set(max(item[0], clock.now()))
            self.deliver(max(item[0], self.now), item[1], item[2])

    def _run_inbox(self, inbox: Inbox, timeline: Timeline) -> None:
        """What came from outside, stamped no later than what is still due: time never runs back."""
        for _ in range(BATCH):
            item = inbox.get_nowait()
            if item is None or self.stopped:
                return
            due = timeline.next_ns()
            ts = max(self.now, item[0] if due is None else min(item[0], due))
            self.deliver(ts, item[1], item[2])

    async def _rest(self, inbox: Inbox, timeline: Timeline, clock: LiveClock | PacedClock | VirtualClock) -> None:
        due = timeline.next_ns()
        if isinstance(clock, VirtualClock):
            await asyncio.sleep(0 if due is not None else 0.01)
        elif isinstance(clock, PacedClock):
            # Never longer than a moment: `--duration` and the kill file's word are looked at between two rests.
            delay = min(clock.wall_delay(due), 0.25) if due is not None else 0.25
            await (inbox.wait(delay) if delay > 0 else asyncio.sleep(0))
        else:
            delay = (due - clock.now()) / 1e9 if due is not None else 0.25
            await (inbox.wait(delay) if delay > 0 else asyncio.sleep(0))

    def emergency(self, reason: str) -> list[str]:
        """Our own fault: cancel all that is ours without asking the core again; returns the ids that were live."""
        self.dead = True
        ids: list[str] = []
        for account in self.accounts:
            for order in account.engine.state.orders.values():
                if order.is_live:
                    ids.append(order.order_id)
                    command = CancelOrder(order.order_id, order.instrument, f"emergency: {reason}")
                    account._dispatch(self.now, command, self.feeds)
            if account.venue:
                account.venue.send()
        return ids
