"""Polymarket as a live venue: the core's commands go in, what becomes of orders, fills, money and the account comes out.

It wires what knows: `entry` sends orders and cancels, `lookups` asks about one of them, the account's reader and stream tell of
fills and holdings, `chain_work` moves sets and shares, `regimes` follows what the venue allows, `heartbeat` is the dead man's
switch. It decides nothing about trading. Market data comes by another port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import msgspec

from llm_maker.core.commands import (
    CancelOrder,
    Command,
    Level,
    LookUpOrder,
    MergeSets,
    PlaceOrder,
    RedeemShares,
    RequestAccount,
    SplitCash,
)
from llm_maker.core.events import Event, MergeFailed, OrderLookedUp, OrderRejected, RedeemFailed, SplitFailed
from llm_maker.core.values import Instrument
from llm_maker.port import Emit
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Wallet
from llm_maker.venues.polymarket.chain.work import Chain, ChainWork
from llm_maker.venues.polymarket.orders.drafts import draft
from llm_maker.venues.polymarket.orders.entry import Counters, OrderEntry, Say, VenueSettings
from llm_maker.venues.polymarket.orders.heartbeat import Heartbeat
from llm_maker.venues.polymarket.orders.lookups import LookUps
from llm_maker.venues.polymarket.orders.ours import OwnOrders
from llm_maker.venues.polymarket.orders.regimes import Regimes
from llm_maker.venues.polymarket.orders.replies import Fault
from llm_maker.venues.polymarket.orders.sign import Signer
from llm_maker.venues.polymarket.orders.tickets import ours_of
from llm_maker.venues.polymarket.rest import Clob

__all__ = ["FAULT_GRACE_S", "NAME", "Counters", "PolymarketVenue", "VenueSettings"]

NAME = "polymarket"
FAULT_GRACE_S = 10.0
"""After a fault of our own the venue is told closed to the core, and its cancels have this long to leave before `run` raises."""
MAX_WAITING = 10_000
"""Commands taken before `run` began."""


class AccountReader(Protocol):
    async def read(self, asked_ns: int, since_ns: int) -> list[Event]: ...
    def touch(self, instrument: Instrument) -> None: ...


class UserStream(Protocol):
    async def run(self, emit: Emit) -> None: ...
    def sick(self) -> str: ...


class OrderRows(Protocol):
    """Reads one order's row (`account_wire.AccountWire`)."""

    def order(self, row: bytes) -> OrderLookedUp | None: ...


class PolymarketVenue:
    """One wallet at Polymarket, a `port.Port`."""

    name = NAME

    def __init__(
        self,
        clob: Clob,
        wallet: Wallet,
        signer: Signer,
        own: OwnOrders,
        reader: AccountReader,
        stream: UserStream,
        chain: Chain,
        pace: Pace,
        settings: VenueSettings,
        *,
        say: Say,
        heartbeat: Heartbeat | None,
        wire: OrderRows | None = None,
    ) -> None:
        """`own` is that of `reader` and `stream`, and so is `wire` (None: one of its own, which counts for itself).

        `clob` has credentials, and is not closed here; the heartbeat's own is.
        """
        assert clob.credentials is not None, "trading needs credentials"
        self.counters = Counters()
        self._own, self._wallet, self._pace, self._say = own, wallet, pace, say
        self._clob, self._reader, self._stream, self._heartbeat = clob, reader, stream, heartbeat
        self._instruments: dict[str, Instrument] = {}
        self._emit: Emit | None = None
        self._ended = False
        self._early: list[Command] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[BaseException] | None = None
        self._reading = False
        self._asked: RequestAccount | None = None
        self._regimes = Regimes(clob, pace, self._tell, NAME)
        self._lookups = LookUps(
            clob,
            own,
            pace,
            self._regimes,
            self.counters,
            (wire or AccountWire(own, clob.credentials.key, wallet.maker)).order,
            emit=self._tell,
            spawn=self._spawn,
            tell=self._set_up_wrong,
            timeout_s=settings.request_s,
        )
        self._entry = OrderEntry(
            clob,
            wallet,
            signer,
            own,
            pace,
            settings,
            self._regimes,
            self.counters,
            emit=self._tell,
            spawn=self._spawn,
            say=say,
            follow=self._lookups.follow,
            fail=self._failed,
        )
        self._work = ChainWork(chain, pace, emit=self._worked, spawn=self._spawn)

    def know(self, instrument: Instrument) -> None:
        """A market we may trade, or new rules of one."""
        self._instruments[instrument.id] = instrument
        self._own.know(instrument)

    def remember(self, commands: Iterable[tuple[PlaceOrder, Instrument]]) -> None:
        """After a restart: the ids of earlier orders, derived again from the journal's commands."""
        for command, instrument in commands:
            self._own.add(ours_of(command, instrument, draft(command, instrument, self._wallet)))

    def sick(self) -> str:
        """Why we might not hear of a fill; empty: we would."""
        return self._stream.sick()

    def execute(self, command: Command) -> None:
        """Take a command; before `run` it waits, after its end it is too late. Commands of others are ignored."""
        if self._ended:
            return
        if self._emit is None:
            assert len(self._early) < MAX_WAITING, "commands without a run"
            self._early.append(command)
            return
        match command:
            case PlaceOrder():
                self._place(command)
            case CancelOrder():
                self._entry.cancel(command)
            case LookUpOrder():
                self._lookups.ask(command.order_id)
            case RequestAccount():
                self._ask_account(command)
            case MergeSets() | SplitCash() | RedeemShares():
                self._do(command)
            case _:
                pass

    def flush(self) -> None:
        """What was executed leaves now, not in the next turn of the loop."""
        self._entry.flush()

    async def run(self, emit: Emit) -> None:
        """Own the stream, the heartbeat and all requests until cancelled.

        Raises what we did wrong (`IdentityFault`, a failed assertion), `FAULT_GRACE_S` after the core was told that the venue is
        closed: its cancels leave meanwhile, no order does.
        """
        assert self._emit is None and not self._ended, "one run, once"
        self._emit = emit
        self._fault = asyncio.get_running_loop().create_future()
        self._own_until_the_end("the user stream", self._stream.run(emit))
        self._own_until_the_end("the regime watch", self._regimes.run())
        if self._heartbeat is not None:
            self._own_until_the_end("the heartbeat", self._heartbeat.run())
        self._spawn(self._clob.warm())
        self._entry.opened()
        early, self._early = self._early, []
        for command in early:
            self.execute(command)
        try:
            fault = await self._fault
            await self._pace.sleep(FAULT_GRACE_S)
            raise fault
        finally:
            self._entry.closed()
            self._emit, self._ended = None, True
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Commands that need more than one line.

    def _place(self, command: PlaceOrder) -> None:
        instrument = self._instruments.get(command.instrument)
        if instrument is None:
            self._tell(OrderRejected(command.order_id, "other", f"never sent: the port does not know {command.instrument}"))
        else:
            self._entry.place(command, instrument)

    def _do(self, command: MergeSets | SplitCash | RedeemShares) -> None:
        instrument = self._instruments.get(command.instrument)
        if instrument is not None:
            self.counters.works += 1
            self._work.do(command, instrument)
            return
        reason = "never sent: the port does not know the market"
        match command:
            case MergeSets():
                self._tell(MergeFailed(command.instrument, command.qty, reason, work_id=command.work_id))
            case SplitCash():
                self._tell(SplitFailed(command.instrument, command.qty, reason, work_id=command.work_id))
            case RedeemShares():
                self._tell(RedeemFailed(command.instrument, reason, work_id=command.work_id))

    def _ask_account(self, command: RequestAccount) -> None:
        """One reading at a time; of what is asked meanwhile the newest is kept, with the oldest `since`."""
        if self._asked is not None:
            command = msgspec.structs.replace(command, since_ns=min(command.since_ns, self._asked.since_ns))
        self._asked = command
        if not self._reading:
            self._reading = True
            self._spawn(self._read_account())

    async def _read_account(self) -> None:
        while self._asked is not None:
            asked, self._asked = self._asked, None
            self.counters.account_reads += 1
            for event in await self._reader.read(asked.asked_ns, asked.since_ns):
                self._tell(event)
        self._reading = False

    # Tasks, and what we did wrong.

    def _tell(self, event: Event) -> None:
        if self._emit is not None:
            self._emit(event)

    def _worked(self, event: Event) -> None:
        """The chain has moved shares or cash: the next reading of the account must ask for them."""
        instrument = self._instruments.get(getattr(event, "instrument", ""))
        if instrument is not None:
            self._reader.touch(instrument)
        self._tell(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Whoever cancels a task of a running port, it was not us.
        error = AssertionError("a task of the port was cancelled") if task.cancelled() else task.exception()
        if error is not None and self._emit is not None:
            self._failed(error)

    def _own_until_the_end(self, name: str, running: Coroutine[Any, Any, None]) -> None:
        """A task that must not end by itself."""

        async def owned() -> None:
            await running
            raise AssertionError(f"{name} ended by itself")

        self._spawn(owned())

    def _set_up_wrong(self, fault: Fault | None) -> None:
        self._entry.tell(fault)

    def _failed(self, error: BaseException) -> None:
        """Our own fault: no order leaves, the core is told to pull its quotes, and `run` raises it a little later."""
        if self._fault is None or self._fault.done():
            return
        words = f"{type(error).__name__}: {error}"[:300]
        self._say(Level.ERROR, f"a fault of our own: {words}; no order is sent any more, quotes are pulled, then the daemon ends")
        self._fault.set_result(error)
        self._entry.stop(words)
        self._regimes.shut()
