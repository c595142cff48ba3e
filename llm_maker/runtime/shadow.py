"""A shadow: a paper account on main's feed, stepped after main's commands have been handed over, that can harm nobody.

Whatever goes wrong in it ends it, with one line; main's loop goes on. It decides nothing about trading, and not what of main's
own events a shadow may hear: that is its ear's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from llm_maker.core.commands import Command
from llm_maker.core.engine import Engine
from llm_maker.core.events import Event, Tick, VenueUp
from llm_maker.core.values import NS_PER_S
from llm_maker.port import Simulator
from llm_maker.runtime.journal import JournalError
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.ledger import LedgerError
from llm_maker.runtime.loop import Account, Recorder

STOP_PATIENCE_NS = 5 * NS_PER_S
"""Market time that a run whose main has stopped still waits for a shadow."""
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, JournalError, LedgerError, LookupError,
    NameError, OSError, RuntimeError, StopIteration, TypeError, ValueError, msgspec.MsgspecError,
)  # fmt: skip
"""All that a bug of ours, or the disk, can raise in a shadow; the end of the process and memory running out are not among them."""
_NO_FEEDS: list[Simulator] = []
"""A shadow sends nothing to a feed: what it caused there would be missing where main's journal is played alone."""
_Told = TypeVar("_Told")


class Ear(Protocol):
    """What a shadow hears of events that were meant for main; asked after main has acted on them."""

    def on_main(self, event: Event) -> Iterable[Event]: ...
    def on_tick(self) -> Iterable[Event]: ...


class Guarded:
    """A simulator whose faults are kept for its account's end instead of ending the timeline; after one it is silent."""

    def __init__(self, inner: Simulator) -> None:
        self.name = inner.name
        self.fault: Exception | None = None
        self._inner = inner

    def observe(self, now: int, event: Event) -> None:
        self._inner.observe(now, event)

    def execute(self, now: int, command: Command) -> None:
        self._inner.execute(now, command)

    def next_ns(self) -> int | None:
        return self._guard(self._inner.next_ns, None)

    def advance(self, now: int) -> list[Event]:
        return self._guard(lambda: self._inner.advance(now), [])

    def skip_to(self, now: int) -> None:
        """Leave out what only the passing of time brings, where the simulator knows of such things."""
        skip: Callable[[int], None] = getattr(self._inner, "skip_to", lambda now: None)
        self._guard(lambda: skip(now), None)

    def checkpoint(self) -> bytes:
        return self._inner.checkpoint()

    def restore(self, saved: bytes) -> None:
        self._inner.restore(saved)

    def _guard(self, act: Callable[[], _Told], nothing: _Told) -> _Told:
        """The timeline asks for every account: a fault here would stop them all."""
        if self.fault is not None:
            return nothing
        try:
            return act()
        except FAULTS as fault:
            self.fault = fault
            return nothing


class Shadow(Account):
    """One paper account beside main; never has a live port."""

    def __init__(
        self,
        engine: Engine,
        journal: JournalWriter,
        recorder: Recorder,
        exchange: Guarded,
        seq: int,
        main: str,
        ear: Ear,
        on_fault: Callable[[str, Exception], None],
    ) -> None:
        """`main`: the account whose own events go through `ear`; `on_fault` hears its name and what ended it, once."""
        super().__init__(engine, journal, recorder, [exchange], seq=seq)
        self.exchange = exchange
        self._main, self._ear, self._on_fault = main, ear, on_fault
        self.fault = ""
        """What ended it before its time; empty: nothing did."""

    def hear(self, ts: int, account: str, event: Event) -> None:
        """One event of the session, of all (`account` ''), of main, or its own; never raises."""
        if self.fault:
            return
        try:
            self._hear(ts, account, event)
        except FAULTS as fault:
            self._broke(fault)

    def _hear(self, ts: int, account: str, event: Event) -> None:
        if not account:
            if type(event) is VenueUp and event.shows_own:
                # The orders of our own that a live book shows are main's: to a shadow they are somebody's.
                event = msgspec.structs.replace(event, shows_own=False)
            self._take(ts, event, public=True)
            if type(event) is Tick:
                for told in self._ear.on_tick():
                    self._take(ts, told)
        elif account == self.name:
            self._take(ts, event)
        elif account == self._main:
            for told in self._ear.on_main(event):
                self._take(ts, told)

    def _take(self, ts: int, event: Event, *, public: bool = False) -> None:
        # After a kill it may stand some events ahead of main: its time waits until the world has caught up.
        at = max(ts, self.engine.state.now)
        if public:
            self.exchange.observe(at, event)
        self.step(at, event, _NO_FEEDS)
        if self.exchange.fault is not None:
            raise self.exchange.fault
        if self.storage_failed:
            raise JournalError(self.storage_failed)

    def rotate(self) -> None:
        """Begin a new journal file where it is due; between two moments."""
        if self.journal is None or self.fault:
            return
        try:
            self.journal.rotate_if_due()
        except FAULTS as fault:
            self._broke(fault)

    def ended(self, waited: int) -> bool:
        """Whether main, that ended `waited` ns ago, may go: it stopped, broke, was never asked to stop, or takes too long."""
        asked, broke = self.engine.state.stopping, bool(self.fault) or self.exchange.fault is not None
        return self.stop is not None or broke or not asked or waited > STOP_PATIENCE_NS

    def _broke(self, fault: Exception) -> None:
        """Whatever is wrong with a shadow, a failed assertion included, is its own end and not main's."""
        self.fault = f"{type(fault).__name__}: {fault}"
        self.exchange.fault = self.exchange.fault or fault
        self._on_fault(self.name, fault)
