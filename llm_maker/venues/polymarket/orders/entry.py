"""Order entry: the one way by which an order or a cancel leaves this house.

What is executed before one `flush` (or, where nobody flushes, within one turn of the event loop) leaves together, cancels first,
and is written before the flush returns. An order's digest is its venue id and is known in `OwnOrders` before the order leaves
(`polymarket.md` 0.5). No order is sent twice. Orders and cancels have token buckets of their own (2.6), so no cancel waits behind
an order; an order that waits too long is refused here and never leaves.

Every order of every request has exactly one end, an event. It refuses to judge: whether to quote is the core's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from llm_maker.core.commands import CancelOrder, Level, PlaceOrder
from llm_maker.core.events import CancelRejected, OrderAccepted, OrderCanceled, OrderRejected, OrderUncertain
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.port import Emit
from llm_maker.venues.net import Bucket, Pace, Reply
from llm_maker.venues.polymarket.auth import Wallet
from llm_maker.venues.polymarket.orders.ours import OwnOrders
from llm_maker.venues.polymarket.orders.regimes import Regimes, met
from llm_maker.venues.polymarket.orders.replies import Answer, CancelAnswer, Ended, Fate, Fault, canceled, fault_of, placed
from llm_maker.venues.polymarket.orders.sign import Signer
from llm_maker.venues.polymarket.orders.tickets import Ticket, ours_of, ticket
from llm_maker.venues.polymarket.rest import Clob

MAX_ORDERS = 15
MAX_CANCELS = 1000
"""Of one request (`polymarket.md` 2.3)."""
MAX_POSTS = 16
"""Order requests in flight: a venue that answers none of them must not take the connections that cancels need."""
_PAUSE_NS = NS_PER_S
"""A cancel that did not do it is not sent again before this, whatever the venue says about the order meanwhile."""
_LONGEST_REST_S = 30.0
"""The longest `Retry-After` that is believed."""
_MAX_SAID = 256
_NEVER = float("inf")
Say = Callable[[Level, str], None]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


class VenueSettings(msgspec.Struct, frozen=True):
    """Rates of the venue's tier (`polymarket.md` 2.6: Standard) and patience, in venue seconds."""

    orders_per_s: float = 40.0
    orders_burst: float = 60.0
    cancels_per_s: float = 80.0
    cancels_burst: float = 120.0
    request_s: float = 5.0
    max_wait_s: float = 1.0
    """An order that waited longer than this for its turn is refused here: it never left."""


class Counters(msgspec.Struct):
    """Since the start; the account's and the look-ups' too."""

    orders: int = 0
    order_requests: int = 0
    cancels: int = 0
    cancel_requests: int = 0
    accepted: int = 0
    rejected: int = 0
    uncertain: int = 0
    held_here: int = 0
    """Orders that were refused here and never left."""
    lookups: int = 0
    lookups_failed: int = 0
    account_reads: int = 0
    works: int = 0


class IdentityFault(AssertionError):
    """The venue knows an order of ours by another id than its digest: what we sign is not what we think."""


class OrderEntry:
    """Queues, buckets and requests for orders and cancels."""

    def __init__(
        self,
        clob: Clob,
        wallet: Wallet,
        signer: Signer,
        own: OwnOrders,
        pace: Pace,
        settings: VenueSettings,
        regimes: Regimes,
        counters: Counters,
        *,
        emit: Emit,
        spawn: Spawn,
        say: Say,
        follow: Callable[[str], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """`spawn` runs a request; `follow(order_id)` asks about an order that will not simply rest; `fail` takes our own fault."""
        self._clob, self._wallet, self._signer, self._own = clob, wallet, signer, own
        self._pace, self._settings, self._regimes, self._counters = pace, settings, regimes, counters
        self._emit, self._spawn, self._say, self._follow, self._fail = emit, spawn, say, follow, fail
        now = pace.now()
        self._order_tokens = Bucket(settings.orders_per_s, settings.orders_burst, now)
        self._cancel_tokens = Bucket(settings.cancels_per_s, settings.cancels_burst, now)
        self._orders: deque[Ticket] = deque()
        self._cancels: dict[str, str] = {}
        """Our id -> the venue's, in the order they came."""
        self._held: dict[str, int] = {}
        """Cancels that wait out a failed one: our id -> when it is over."""
        self._failed: dict[str, int] = {}
        """Our id -> when its cancel last did not do it."""
        self._posts = 0
        self._open = False
        self._turn: asyncio.Handle | None = None
        """Something was gathered: the next turn of the loop lets it go, if no flush does it before."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = ""
        self._said: set[str] = set()

    # Taking commands.

    def place(self, command: PlaceOrder, instrument: Instrument) -> None:
        """Draft it, know it, put it in the queue."""
        made = ticket(command, instrument, self._wallet, self._pace.now())
        self._own.add(ours_of(command, instrument, made.draft))
        hindrance = self._hindrance(made)
        if hindrance:
            self._hold_here(made, "closed", hindrance)
        elif made.too_late:
            self._hold_here(made, "other", "it would expire too soon for the venue's rule")
        else:
            self._orders.append(made)
            self._soon()

    def cancel(self, command: CancelOrder) -> None:
        """Queue it; an order that has not left yet simply does not."""
        order_id, now = command.order_id, self._pace.now()
        unsent = [made for made in self._orders if made.order_id != order_id]
        if len(unsent) < len(self._orders):
            self._orders = deque(unsent)
            self._counters.held_here += 1
            self._emit(OrderCanceled(order_id, "withdrawn before it was sent"))
            return
        ours = self._own.by_order(order_id)
        if ours is None:
            self._say_once(Level.WARNING, f"cancel of {order_id}, whose id at the venue is not known: nothing was sent")
            self._emit(CancelRejected(order_id, "never sent", gone=True))
            return
        failed = self._failed.get(order_id)
        if failed is not None and now < failed + _PAUSE_NS:
            self._held[order_id] = failed + _PAUSE_NS
        elif order_id not in self._held:
            self._cancels.setdefault(order_id, ours.venue_id)
        self._soon()

    def stop(self, reason: str) -> None:
        """No order leaves any more; cancels do."""
        self._stopped = reason
        self._soon()

    def tell(self, fault: Fault | None) -> None:
        """We are set up wrong: said once, and no quoting until the venue, or a person, has changed that."""
        if fault is None:
            return
        self._say_once(Level.ERROR, fault.cure)
        if fault.lasting:
            self.stop(fault.cure)
            self._regimes.shut()

    def opened(self) -> None:
        """The port runs: what waits may leave."""
        self._open = True
        self._soon()

    def closed(self) -> None:
        """The port has ended: nothing leaves any more."""
        self._open = False
        for waiting in (self._turn, self._timer):
            if waiting is not None:
                waiting.cancel()
        self._turn = self._timer = None

    # Letting go, as the buckets allow.

    def _soon(self) -> None:
        if self._open and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Let go at once of what was gathered since the last time."""
        if self._turn is None:
            return
        self._turn.cancel()
        try:
            self._release()
        except Exception as fault:
            # Whoever flushed may be a callback, where it would be lost.
            self._fail(fault)
            raise

    def _release(self) -> None:
        self._turn = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._pace.now()
        wait = min(self._release_cancels(now), self._release_orders(now))
        if wait < _NEVER:
            self._timer = asyncio.get_running_loop().call_later(self._pace.wall(wait), self._soon)

    def _release_cancels(self, now: int) -> float:
        """Send what may be sent; venue seconds until there is more to do."""
        for order_id in [order_id for order_id, again in self._held.items() if now >= again]:
            del self._held[order_id]
            ours = self._own.by_order(order_id)
            if ours is not None:
                self._cancels.setdefault(order_id, ours.venue_id)
        while self._cancels:
            wait = self._cancel_tokens.delay(1.0, now)
            if wait > 0:
                return wait
            # A request over what the limiter has left is refused whole, so no more than that leaves at once.
            room = min(MAX_CANCELS, max(1, int(self._cancel_tokens.tokens(now))))
            chunk = list(self._cancels.items())[:room]
            for order_id, _ in chunk:
                del self._cancels[order_id]
            self._cancel_tokens.take(len(chunk), now)
            self._counters.cancels += len(chunk)
            self._counters.cancel_requests += 1
            self._delete(chunk)
        return min((again - now for again in self._held.values()), default=_NEVER * NS_PER_S) / NS_PER_S

    def _release_orders(self, now: int) -> float:
        """As `_release_cancels`; orders that may not leave, or have waited too long, end here."""
        self._refuse_waiting(now)
        trial = self._regimes.on_trial
        while self._orders:
            patience = (self._orders[0].since - now) / NS_PER_S + self._settings.max_wait_s
            if self._posts >= (1 if trial else MAX_POSTS):
                return max(patience, 0.0)
            room = min(1 if trial else MAX_ORDERS, len(self._orders), int(self._order_tokens.tokens(now)))
            if room < 1:
                return max(min(patience, self._order_tokens.delay(1.0, now)), 0.0)
            chunk = [self._orders.popleft() for _ in range(room)]
            self._order_tokens.take(room, now)
            self._posts += 1
            self._counters.orders += room
            self._counters.order_requests += 1
            self._post(chunk)
        return _NEVER

    def _refuse_waiting(self, now: int) -> None:
        kept: deque[Ticket] = deque()
        for made in self._orders:
            hindrance = self._hindrance(made)
            if hindrance:
                self._hold_here(made, "closed", hindrance)
            elif now - made.since > self._settings.max_wait_s * NS_PER_S:
                self._hold_here(made, "rate", f"it waited longer than {self._settings.max_wait_s:g}s for its turn")
            else:
                kept.append(made)
        self._orders = kept

    def _hindrance(self, made: Ticket) -> str:
        return self._stopped or self._regimes.hinders(post_only=made.command.post_only)

    def _hold_here(self, made: Ticket, reason: str, why: str) -> None:
        self._counters.held_here += 1
        self._emit(OrderRejected(made.order_id, reason, f"never sent: {why}"))

    # Requests and what came of them.

    def _post(self, chunk: list[Ticket]) -> None:
        """Sign and write, here and now; the answer is waited for elsewhere."""
        credentials = self._clob.credentials
        assert credentials is not None
        bodies = [made.body(self._signer, credentials.key) for made in chunk]
        batch = len(chunk) > 1
        path, body = ("/orders", b"[" + b",".join(bodies) + b"]") if batch else ("/order", bodies[0])
        answer = self._clob.hurry("POST", path, body, timeout=self._settings.request_s)
        self._spawn(self._posted(chunk, answer, batch=batch))

    async def _posted(self, chunk: list[Ticket], answer: Awaitable[Reply], *, batch: bool) -> None:
        try:
            reply = await answer
        finally:
            self._posts -= 1
        self._heard(reply, self._order_tokens)
        judged = reply.ok or reply.status == 400
        for made, told in zip(chunk, placed(reply, [made.draft.venue_id for made in chunk], batch=batch), strict=True):
            self._answered(made, told, judged=judged)
        self._soon()

    def _delete(self, chunk: list[tuple[str, str]]) -> None:
        ids = [venue_id for _, venue_id in chunk]
        path, what = ("/orders", msgspec.json.encode(ids)) if len(ids) > 1 else ("/order", msgspec.json.encode({"orderID": ids[0]}))
        answer = self._clob.hurry("DELETE", path, what, timeout=self._settings.request_s)
        self._spawn(self._deleted(chunk, answer))

    async def _deleted(self, chunk: list[tuple[str, str]], answer: Awaitable[Reply]) -> None:
        reply = await answer
        self._heard(reply, self._cancel_tokens)
        for (order_id, _), told in zip(chunk, canceled(reply, [venue_id for _, venue_id in chunk]), strict=True):
            self._cancel_answered(order_id, told)
        self._soon()

    def _heard(self, reply: Reply, tokens: Bucket) -> None:
        """What a reply says beside its answer: tokens left, a rest, a regime, a fault of ours."""
        now = self._pace.now()
        if reply.remaining is not None:
            tokens.told(reply.remaining, now)
        if reply.status == 429:
            rest = 1.0 if reply.retry_after is None else min(max(reply.retry_after, 0.0), _LONGEST_REST_S)
            tokens.told(1.0 - rest * tokens.rate, now)
        self._regimes.meet(reply)
        if not reply.ok:
            self.tell(fault_of(reply.status, reply.error))

    def _answered(self, made: Ticket, answer: Answer, *, judged: bool) -> None:
        """`judged`: the venue looked at the order."""
        order_id = made.order_id
        match answer.fate:
            case Fate.UNKNOWN:
                self._counters.uncertain += 1
                self._emit(OrderUncertain(order_id, answer.detail))
            case Fate.REJECTED:
                self._counters.rejected += 1
                self._regimes.told(met(200, answer.detail))
                if judged and answer.reason not in ("closed", "rate") and not answer.fault:
                    self._regimes.answered()
                self._emit(OrderRejected(order_id, answer.reason, answer.detail))
                self.tell(answer.fault)
            case Fate.ACCEPTED if answer.venue_id != made.draft.venue_id:
                self._mistaken(made, answer)
            case Fate.ACCEPTED:
                self._counters.accepted += 1
                self._regimes.answered()
                self._emit(OrderAccepted(order_id, answer.venue_id))
                if answer.status != "live" or made.takes:
                    self._follow(order_id)

    def _mistaken(self, made: Ticket, answer: Answer) -> None:
        """Known by another id, which is then the one to find and cancel it by; no further order leaves."""
        order_id, ours = made.order_id, self._own.by_order(made.order_id)
        assert ours is not None
        self._own.add(msgspec.structs.replace(ours, venue_id=answer.venue_id))
        words = f"order {order_id} is {answer.venue_id} at the venue, not its digest {made.draft.venue_id}"
        self.stop(words)
        self._counters.uncertain += 1
        self._emit(OrderUncertain(order_id, words))
        self._fail(IdentityFault(words))

    def _cancel_answered(self, order_id: str, answer: CancelAnswer) -> None:
        if answer.ended is not Ended.CANCELED:
            now = self._pace.now()
            self._failed = {known: at for known, at in self._failed.items() if now < at + _PAUSE_NS} | {order_id: now}
        match answer.ended:
            case Ended.CANCELED:
                self._emit(OrderCanceled(order_id, "asked"))
            case Ended.GONE:
                self._emit(CancelRejected(order_id, answer.detail, gone=True))
            case Ended.REFUSED:
                self._emit(CancelRejected(order_id, answer.detail, gone=False))
            case Ended.UNKNOWN:
                self._counters.uncertain += 1
                self._emit(OrderUncertain(order_id, f"cancel: {answer.detail}"))

    def _say_once(self, level: Level, words: str) -> None:
        if words not in self._said and len(self._said) < _MAX_SAID:
            self._said.add(words)
            self._say(level, words)
