"""Questions about single orders: the core's, and our own about orders that take.

At most one question about an order is in flight, and an answer only answers what was asked before it was sent: what is asked while
another question is on its way is asked again, because old news must not prove an absence. A question that failed tells nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from llm_maker.core.events import OrderLookedUp, OrderUncertain
from llm_maker.port import Emit
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.orders.entry import Counters
from llm_maker.venues.polymarket.orders.ours import Ours, OwnOrders
from llm_maker.venues.polymarket.orders.regimes import Regimes
from llm_maker.venues.polymarket.orders.replies import Fault, fault_of, looked_up
from llm_maker.venues.polymarket.rest import Clob

MAX_ASKING = 8
"""Questions in flight: a storm of doubts must not take the connections that cancels need."""
FOLLOW_S = (1.0, 1.0, 2.0, 4.0)
"""Waits before each of our own questions about an order that takes, or is delayed."""


class LookUps:
    """`GET /data/order/{id}`, read by `read_order`."""

    def __init__(
        self,
        clob: Clob,
        own: OwnOrders,
        pace: Pace,
        regimes: Regimes,
        counters: Counters,
        read_order: Callable[[bytes], OrderLookedUp | None],
        *,
        emit: Emit,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        tell: Callable[[Fault | None], None],
        timeout_s: float,
    ) -> None:
        """`read_order`: a row -> what it says, None where it cannot be read; `tell` hears that we are set up wrong."""
        self._clob, self._own, self._pace, self._regimes, self._counters = clob, own, pace, regimes, counters
        self._read, self._emit, self._spawn = read_order, emit, spawn
        self._tell, self._timeout_s = tell, timeout_s
        self._asked: dict[str, bool] = {}
        """Orders with a question in flight -> asked once more since."""
        self._following: set[str] = set()
        self._turns = asyncio.Semaphore(MAX_ASKING)

    def ask(self, order_id: str) -> None:
        """The core wants to know; the answer is an event, a failure is silence."""
        if order_id in self._asked:
            self._asked[order_id] = True
            return
        ours = self._own.by_order(order_id)
        if ours is None:
            # Nothing can be asked without the venue's id, and nothing asked is nothing known.
            self._counters.lookups_failed += 1
            return
        self._asked[order_id] = False
        self._spawn(self._answer(ours))

    def follow(self, order_id: str) -> None:
        """An order that ends by itself: find out how, a few times; then the core is told of the doubt."""
        ours = self._own.by_order(order_id)
        if ours is not None and order_id not in self._following:
            self._following.add(order_id)
            self._spawn(self._watch(ours))

    async def _answer(self, ours: Ours) -> None:
        found = await self._look(ours)
        while self._asked[ours.order_id]:
            self._asked[ours.order_id] = False
            found = await self._look(ours)
        del self._asked[ours.order_id]
        if found is not None:
            self._emit(found)

    async def _watch(self, ours: Ours) -> None:
        try:
            for wait in FOLLOW_S:
                await self._pace.sleep(wait)
                if ours.order_id in self._asked:
                    continue  # the core is asking by itself
                self._asked[ours.order_id] = False
                found = await self._look(ours)
                if self._asked.pop(ours.order_id):
                    self.ask(ours.order_id)
                if found is not None and found.found not in ("open", "absent"):
                    self._emit(found)
                    return
        finally:
            self._following.discard(ours.order_id)
        self._emit(OrderUncertain(ours.order_id, "the venue did not tell how it ended"))

    async def _look(self, ours: Ours) -> OrderLookedUp | None:
        async with self._turns:
            # Whoever asked before this moment is answered by what is asked now.
            self._asked[ours.order_id] = False
            self._counters.lookups += 1
            current = self._own.by_order(ours.order_id) or ours
            reply = await self._clob.private("GET", f"/data/order/{current.venue_id}", timeout=self._timeout_s)
        self._regimes.meet(reply)
        if not reply.ok:
            self._tell(fault_of(reply.status, reply.error))
        row = looked_up(reply)
        found = OrderLookedUp(ours.order_id, "absent") if row == b"" else self._read(row) if row else None
        if found is None or found.order_id != ours.order_id:
            self._counters.lookups_failed += 1
            return None
        return found
