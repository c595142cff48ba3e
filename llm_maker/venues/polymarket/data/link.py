"""One connection to Polymarket's market channel, from its subscription to its end (`polymarket.md` 3.1-3.3).

It subscribes, reads, keeps alive and says why it ended. It refuses to know books, other connections, and what follows from its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from llm_maker.core.events import Event
from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Pace, Socket, SocketClosed
from llm_maker.venues.polymarket.data.wire import Wire

PONG = b"PONG"
_CLOSE_S = 3.0
"""Wall seconds for a close that cannot even be written."""


class FeedSettings(msgspec.Struct, frozen=True):
    """How the market channel is kept alive and checked; venue seconds."""

    assets_per_socket: int = 200
    ping_s: float = 10.0
    pong_s: float = 30.0
    frozen_s: float = 30.0
    book_check_s: float = 30.0
    reconnect_s: float = 3600.0
    backoff_max_s: float = 30.0
    connect_s: float = 10.0


Say = Callable[[str, str], None]
"""Level (info, warning, error) and text, for a person."""
Tap = Callable[[int, bytes], None]
"""Receive time (ns) and the raw frame."""


class Line(msgspec.Struct):
    """What every connection of the feed shares."""

    url: str
    pace: Pace
    settings: FeedSettings
    counts: dict[str, int]
    say: Say
    tap: Tap | None = None

    def ns(self, seconds: float) -> int:
        return round(seconds * NS_PER_S)

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by


class Link:
    """A connected socket with the parser of its frames; `take` gets (receive ns, raw frame, its events) of each but a PONG.

    `ended` is set as soon as the connection is good for nothing, with the reason; the closing itself comes after that.
    """

    def __init__(self, socket: Socket, wire: Wire, line: Line, take: Callable[[int, bytes, list[Event]], None]) -> None:
        self.wire, self.take = wire, take
        self.reason = ""
        self.ended = asyncio.Event()
        self.opened_ns = self.data_ns = self.pong_ns = line.pace.now()
        self.probed_ns = 0
        """When REST was last asked whether this silence is one."""
        self.renew_ns = 0
        """When it is to be replaced."""
        self.quiet_pongs: Callable[[], None] = _nothing
        """Called when data flows and PONGs do not."""
        self._socket, self._line = socket, line
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, token_ids: Sequence[str], *, first: bool = False) -> None:
        """`first` opens the subscription; custom features stay off: a top told before its change would be a false gap."""
        if first:
            self._say({"type": "market", "assets_ids": token_ids, "initial_dump": True, "custom_feature_enabled": False})
        else:
            self._say({"operation": "subscribe", "assets_ids": token_ids, "custom_feature_enabled": False})

    def unsubscribe(self, token_ids: Sequence[str]) -> None:
        self._say({"operation": "unsubscribe", "assets_ids": token_ids})

    def _say(self, message: object) -> None:
        self._outbox.put_nowait(msgspec.json.encode(message).decode())

    def start(self, group: asyncio.TaskGroup) -> None:
        self._task = group.create_task(self._live())

    def stop(self) -> None:
        """Nothing is taken from it any more; it closes behind our back."""
        self.take = _discard
        if self.ended.is_set():
            return
        self.ended.set()
        if self._task is not None:
            # Not at once: a task that is cancelled before its first step would never close the socket.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    async def _close(self, tasks: Sequence[asyncio.Task[str]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close()
        except (TimeoutError, OSError):
            self._line.count("close_failed")

    async def _live(self) -> None:
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._talk())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.reason = next(task.result() for task in tasks if task in done)
        finally:
            self.ended.set()
            await _to_its_end(asyncio.create_task(self._close(tasks)))

    async def _read(self) -> str:
        receive, parse, now = self._socket.receive, self.wire.parse, self._line.pace.now
        counts, tap = self._line.counts, self._line.tap
        try:
            while True:
                raw = await receive()
                at = now()
                counts["frames"] += 1
                if raw == PONG:
                    self.pong_ns = at
                    if tap is not None:
                        tap(at, raw)
                    continue
                events = parse(raw)
                if events:
                    self.data_ns = at
                self.take(at, raw, events)
        except SocketClosed as why:
            return str(why)

    async def _talk(self) -> str:
        """Send what is queued, and a PING where it is due; the reason to give up where PONGs stay out and data too."""
        line, now = self._line, self._line.pace.now
        ping_ns, pong_ns = line.ns(line.settings.ping_s), line.ns(line.settings.pong_s)
        asked, next_ping = 0, now() + ping_ns
        doubted = self.pong_ns
        try:
            while True:
                text = await self._next_text(min(next_ping, max(self.pong_ns, doubted) + pong_ns))
                at = now()
                if at - max(self.pong_ns, self.data_ns) >= pong_ns:
                    line.count("half_open")
                    return f"half-open: no PONG for {(at - self.pong_ns) / NS_PER_S:.0f}s"
                if at - max(self.pong_ns, doubted) >= pong_ns:
                    doubted = at
                    self.quiet_pongs()
                if at >= next_ping:
                    if asked > self.pong_ns:
                        line.count("pongs_late")
                    asked, next_ping = at, at + ping_ns
                    await self._send("PING")
                if text:
                    await self._send(text)
        except SocketClosed as why:
            return str(why)
        except TimeoutError:
            line.count("half_open")
            return "half-open: nothing can be written"

    async def _next_text(self, due_ns: int) -> str:
        """What is to be sent next; empty when `due_ns` has come."""
        wait = max(due_ns - self._line.pace.now(), 0) / NS_PER_S
        try:
            async with asyncio.timeout(self._line.pace.wall(wait)):
                return await self._outbox.get()
        except TimeoutError:
            return ""

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(self._line.pace.wall(self._line.settings.pong_s)):
            await self._socket.send(text)


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """A cancellation waits: it would leave the socket open."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _nothing() -> None:
    """Before anybody listens."""


def _discard(at: int, raw: bytes, events: list[Event]) -> None:
    """What a connection still brings after it was given up."""
