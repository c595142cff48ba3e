"""Merges, splits and redemptions on their way through the chain, one at a time; each command is answered by events of its id.

A result that is not known yet is told as such (`final=False`) and asked about for as long as the core waits for it; after that the
core judges by the account. Nothing is ever sent twice, and nothing is begun long after it was asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from llm_maker.core.commands import MergeSets, RedeemShares, SplitCash
from llm_maker.core.events import CashKind, CashMoved, Event, MergeFailed, RedeemFailed, SetsMerged, SetsSplit, SplitFailed
from llm_maker.core.values import NS_PER_S, Instrument, Leg
from llm_maker.port import Emit
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.chain.chain import WorkResult

Work = MergeSets | SplitCash | RedeemShares
MAX_WAITING = 64
MAX_WAIT_S = 240.0
"""Work that waited longer for its turn is not begun: the core judges by the account after 600 s, and must not be overtaken."""
CHECK_S = 20.0
CHECKS = 30
"""Looks at a result that is not known, so many, so far apart: as long as the core waits."""


class Chain(Protocol):
    """What moves shares and cash between the outcomes and the wallet (`chain.Chain`)."""

    async def merge(self, instrument: Instrument, qty: int) -> WorkResult: ...
    async def split(self, instrument: Instrument, qty: int) -> WorkResult: ...
    async def redeem(self, instrument: Instrument, yes_qty: int, no_qty: int) -> WorkResult: ...
    async def check(self, tx: str) -> WorkResult: ...


class ChainWork:
    """A queue and one worker."""

    def __init__(self, chain: Chain, pace: Pace, *, emit: Emit, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._chain, self._pace, self._emit, self._spawn = chain, pace, emit, spawn
        self._waiting: deque[tuple[Work, Instrument, int]] = deque()
        self._busy = False

    def do(self, command: Work, instrument: Instrument) -> None:
        """Queue it."""
        if len(self._waiting) >= MAX_WAITING:
            self._emit(_failed(command, "never sent: too much is waiting for the chain", final=True))
            return
        self._waiting.append((command, instrument, self._pace.now()))
        if not self._busy:
            self._busy = True
            self._spawn(self._work())

    async def _work(self) -> None:
        while self._waiting:
            command, instrument, since = self._waiting.popleft()
            if self._pace.now() - since > MAX_WAIT_S * NS_PER_S:
                self._emit(_failed(command, "never sent: it waited too long for its turn", final=True))
                continue
            result = await self._begin(command, instrument)
            if not self._told(command, result):
                self._emit(_failed(command, result.reason or "its outcome is not known yet", final=False))
                if result.tx:
                    self._spawn(self._watch(command, result.tx))
        self._busy = False

    async def _begin(self, command: Work, instrument: Instrument) -> WorkResult:
        match command:
            case MergeSets():
                return await self._chain.merge(instrument, command.qty)
            case SplitCash():
                return await self._chain.split(instrument, command.qty)
            case RedeemShares():
                return await self._chain.redeem(instrument, command.yes_qty, command.no_qty)

    async def _watch(self, command: Work, tx: str) -> None:
        for _ in range(CHECKS):
            await self._pace.sleep(CHECK_S)
            result = await self._chain.check(tx)
            if self._told(command, result):
                return
            tx = result.tx or tx

    def _told(self, command: Work, result: WorkResult) -> bool:
        """Tell the end, where it is known; a redemption's end is known with its cash."""
        if result.outcome == "failed":
            self._emit(_failed(command, result.reason, final=True))
        elif result.outcome == "unknown" or (isinstance(command, RedeemShares) and result.cash is None):
            return False
        else:
            for event in _done(command, result):
                self._emit(event)
        return True


def _done(command: Work, result: WorkResult) -> list[Event]:
    match command:
        case MergeSets():
            return [SetsMerged(command.instrument, command.qty, work_id=command.work_id)]
        case SplitCash():
            return [SetsSplit(command.instrument, command.qty, work_id=command.work_id)]
        case RedeemShares():
            assert result.cash is not None
            return _redeemed(command, result.cash)


def _redeemed(command: RedeemShares, cash: int) -> list[Event]:
    """The sum paid, split over the legs held: YES paid p a share and NO 1 - p, so the sum tells p (equal legs: any p does)."""
    yes, no = command.yes_qty, command.no_qty
    paid_yes = min(max(yes * (cash - no) // (yes - no), 0), yes, cash) if yes != no else cash // 2
    if not yes or not no:
        paid_yes = cash if yes else 0
    legs = ((Leg.YES, yes, paid_yes), (Leg.NO, no, cash - paid_yes))
    return [
        CashMoved(CashKind.REDEMPTION, amount, command.instrument, leg, held, command.work_id) for leg, held, amount in legs if held
    ]


def _failed(command: Work, reason: str, *, final: bool) -> Event:
    match command:
        case MergeSets():
            return MergeFailed(command.instrument, command.qty, reason, final, command.work_id)
        case SplitCash():
            return SplitFailed(command.instrument, command.qty, reason, final, command.work_id)
        case RedeemShares():
            return RedeemFailed(command.instrument, reason, final, command.work_id)
