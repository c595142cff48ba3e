"""The user channel's socket: connected for ever, proved alive, and its end told at once (`polymarket.md` 3.1, 3.2).

Dull on purpose: frames go to `AccountWire`, events to `emit`. On a reconnect the venue repeats nothing: `AccountStreamUp` also says
that what happened before must be asked for. It refuses to know what an order is.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.events import AccountStreamDown, AccountStreamUp
from llm_maker.core.values import NS_PER_S
from llm_maker.port import Emit
from llm_maker.venues.net import Backoff, Pace, Socket, SocketClosed
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Credentials
from llm_maker.venues.polymarket.listing.tape_header import VENUE

REFUSED_TIMES = 3
"""Connections in a row that the venue closed soon after the credentials, telling nothing, before it counts as a refusal."""
_FIRST_WAIT_S = 1.0
T = TypeVar("T")


_SLACK_NS = 5 * NS_PER_S
"""How far the venue's clock may be from ours, to the second that it tells."""


class UserStream:
    """The whole account's orders and trades as they happen; one connection at a time.

    Proved alive is: the first PONG, or the first event, after the frame with the credentials. The venue has no word for "accepted";
    it reads frames in order, and closes where it does not accept. Three connections in a row that the venue itself ended within one
    `ping_s` of the credentials, without an event, are a refusal: said by name, once until the next success, and from then on only
    the second PONG, a `ping_s` later, is a proof.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        wire: AccountWire,
        pace: Pace,
        *,
        ping_s: float = 10.0,
        pong_s: float = 30.0,
        backoff_max_s: float = 30.0,
        say: Callable[[Level, str], None],
    ) -> None:
        """A PING every `ping_s`; no PONG for `pong_s` ends the connection; all in venue seconds."""
        self._url, self._credentials, self._wire, self._pace, self._say = url, credentials, wire, pace, say
        self._ping_ns, self._pong_ns = int(ping_s * NS_PER_S), int(pong_s * NS_PER_S)
        self._pong_s, self._lasting_ns = pong_s, int(backoff_max_s * NS_PER_S)
        # Jittered by the key, so that many daemons do not come back at once.
        self._backoff = Backoff(min(_FIRST_WAIT_S, backoff_max_s), backoff_max_s, zlib.crc32(credentials.key.encode()))
        self._up = False
        self._trouble = "not connected yet"
        self._refusals = 0
        self._up_ns = 0
        self._deaf = False

    def missed(self, matched_ns: int) -> None:
        """A fill was matched then that this stream has not told though it was up: PONGs alone are no proof that it tells anything.

        A connection that was up well before is given up for a new one.
        """
        if self._up and self._up_ns < matched_ns - _SLACK_NS:
            self._deaf = True

    def sick(self) -> str:
        """Why nothing would be heard of a fill; empty while the stream is up."""
        return "" if self._up else f"user channel: {self._trouble}"

    async def run(self, emit: Emit) -> None:
        """Stay connected until cancelled; after every loss the wait doubles, until a connection has lasted."""
        while True:
            began = self._pace.now()
            reason = await self._connection(emit)
            if self._pace.now() - began > self._lasting_ns:
                self._backoff.reset()
            wait = self._backoff.next()
            self._say(Level.WARNING, f"user channel: {reason}; again in {wait:.1f}s")
            await self._pace.sleep(wait)

    async def _connection(self, emit: Emit) -> str:
        """One connection from its beginning to its end, and why it ended."""
        try:
            socket = await Socket.open(self._url, self._pace)
        except SocketClosed as closed:
            self._trouble = str(closed)
            return self._trouble
        try:
            return await self._serve(socket, emit)
        finally:
            await socket.close()

    async def _serve(self, socket: Socket, emit: Emit) -> str:
        began, told, self._deaf = self._pace.now(), self._told(), False
        reason, hung_up = "", False
        try:
            await self._within(self._pong_s, socket.send(_subscription(self._credentials)))
            await self._listen(socket, emit)
        except SocketClosed as closed:
            reason, hung_up = str(closed), True
        except TimeoutError:
            reason = f"no PONG for {self._pong_s:g}s"
        soon = self._pace.now() - began <= self._ping_ns and self._told() == told
        self._refusals = self._refusals + 1 if hung_up and soon else 0
        self._trouble = reason
        if self._refusals >= REFUSED_TIMES:
            self._trouble = f"credentials refused: closed soon after them {self._refusals} times in a row ({reason})"
        if self._refusals == REFUSED_TIMES:
            self._say(
                Level.ERROR,
                f"user channel: {self._trouble}; unless the venue is restarting, the API credentials were deleted or are another "
                "wallet's: derive them again",
            )
        if self._up:
            self._up = False
            emit(AccountStreamDown(VENUE, self._trouble))
        return self._trouble

    async def _listen(self, socket: Socket, emit: Emit) -> None:
        """Frames in, events out, a PING when it is due. Raises SocketClosed, and TimeoutError when PONGs stay away."""
        now = self._pace.now()
        ping_at, deadline = now, now + self._pong_ns
        proof = self._wire.pongs + (2 if self._refusals >= REFUSED_TIMES else 1)
        while True:
            now = self._pace.now()
            if self._deaf:
                raise SocketClosed("it has not told a fill of ours")
            if now >= deadline:
                raise TimeoutError
            if now >= ping_at:
                await self._within((deadline - now) / NS_PER_S, socket.send("PING"))
                ping_at = now + self._ping_ns
            try:
                frame = await self._within((min(ping_at, deadline) - now) / NS_PER_S, socket.receive())
            except TimeoutError:
                continue
            pongs = self._wire.pongs
            events = self._wire.parse(frame)
            if self._wire.pongs > pongs:
                deadline = self._pace.now() + self._pong_ns
            if not self._up and (events or self._wire.pongs >= proof):
                self._up, self._up_ns, self._trouble = True, self._pace.now(), ""
                emit(AccountStreamUp(VENUE))
            for event in events:
                emit(event)
            if words := self._wire.complaint():
                self._say(Level.WARNING, words)

    def _told(self) -> int:
        """Frames that were not a PONG."""
        return self._wire.frames - self._wire.pongs

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        async with asyncio.timeout(self._pace.wall(seconds)):
            return await work


def _subscription(credentials: Credentials) -> str:
    """The first frame; without `markets` it is the whole account."""
    return msgspec.json.encode({"type": "user", "auth": credentials.for_socket()}).decode()
