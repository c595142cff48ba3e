"""The short way to a venue, for orders: HTTP/1.1 over connections kept warm, written to at once where one is idle.

When `Express.send` returns, the request is with the operating system: no task, no turn of the event loop before it. Answers are
`net.Reply` with the meaning that `net.Http` gives them. A request is UNSENT only where none of its bytes was written. A connection
carries one request at a time; redirects are not followed, and compression is not asked for.

A POST is written once. A GET or DELETE whose kept connection ends before the first byte of an answer is written once more, on
another one, as `net.Http` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import MAX_BODY, Outcome, Pace, Reply, classified, words_of

WARM = 2
"""Connections that are kept open once `warm` was asked for."""
IDLE_S = 50.0
"""A connection that was idle for so long is closed by us, before the venue does it under a request."""
MAX_HEAD = 64 * 1024
"""Bytes of an answer that are not its body: status lines, headers, trailers."""
_CHUNK_COST = 8
"""What each byte of a body may cost on the wire besides: chunks of one byte cost five."""
_SWEEP_S = 5.0
_HEAD_START_S = 0.25
"""Of one address before the next is tried too (RFC 8305)."""
_SWITCHED = 101
_SAFE_TWICE = ("GET", "DELETE")


class _Call:
    """One request, from `send` to its answer."""

    __slots__ = ("answer", "connection", "data", "timer", "tried", "twice")

    def __init__(self, answer: asyncio.Future[Reply], data: bytes, *, twice: bool) -> None:
        """`twice`: it may be written again."""
        self.answer, self.data, self.twice = answer, data, twice
        self.connection: _Connection | None = None
        self.tried = False
        """Some of it may have reached the venue."""
        self.timer: asyncio.TimerHandle | None = None

    def end(self, reply: Reply) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, words: str) -> None:
        self.end(Reply(Outcome.UNKNOWN if self.tried else Outcome.UNSENT, error=words))


class _Connection(asyncio.Protocol):
    """One connection and the answer that comes on it; it tells its owner how that ended."""

    def __init__(self, owner: Express) -> None:
        self._owner = owner
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self.call: _Call | None = None
        self.used = False
        """It has carried a whole exchange."""
        self.since = 0
        """Idle since, venue ns."""
        self._start_answer()

    # What the owner asks.

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, call: _Call) -> None:
        """Write the request, now."""
        assert self.call is None and self._transport is not None
        self.call, call.connection, call.tried = call, self, True
        self._start_answer()
        self._transport.write(call.data)

    def abort(self) -> None:
        self.call = None
        if self._transport is not None:
            self._transport.abort()

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.call is None or self._parser is None:
            # Nobody asked: the venue says good-bye, or speaks out of turn.
            self._owner.drop(self)
            return
        self._fed += len(data)
        trouble = ""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            trouble = "the server switched to another protocol"
        except HttpParserError as error:
            trouble = words_of(error)
        if self._reply is not None:
            self._owner.answered(self, self._reply, keep=self._keep and not self._surplus and not trouble)
        elif trouble:
            self._owner.broken(self, trouble)
        elif len(self._body) >= MAX_BODY:
            self._owner.answered(self, self._whole(), keep=False)
        elif self._fed > MAX_HEAD + _CHUNK_COST * len(self._body):
            self._owner.broken(self, f"more than {MAX_HEAD} bytes of headers")

    def eof_received(self) -> None:
        # An answer without a length ends with its connection; every other one is cut off.
        if self.call is not None and self._headed and not self._framed:
            self._owner.answered(self, self._whole(), keep=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = None
        if not self.lost.done():
            self.lost.set_result(None)
        self._owner.broken(self, words_of(exc) if exc is not None else "the connection was closed", heard=self._fed > 0)

    # What the parser tells.

    def _start_answer(self) -> None:
        self._fed = 0
        self._reply: Reply | None = None
        self._keep = self._surplus = False
        self._start_message()

    def _start_message(self) -> None:
        self._body = bytearray()
        self._after: str | None = None
        self._left: str | None = None
        self._headed = self._framed = False

    def on_message_begin(self) -> None:
        self._surplus = self._reply is not None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed or self._reply is not None:
            return
        match name.lower():
            case b"content-length":
                self._framed = True
            case b"transfer-encoding":
                self._framed = self._framed or value.rstrip().lower().endswith(b"chunked")
            case b"retry-after":
                self._after = value.decode("latin-1")
            case b"poly-ratelimit-remaining":
                self._left = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headed = self._reply is None

    def on_body(self, body: bytes) -> None:
        if self._reply is None:
            self._body += body

    def on_message_complete(self) -> None:
        if self._reply is not None:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 and status != _SWITCHED:
            # Not the answer yet: 100 Continue, 103 Early Hints.
            self._start_message()
            return
        self._reply = self._whole()
        self._keep = self._parser.should_keep_alive() and status != _SWITCHED

    def _whole(self) -> Reply:
        assert self._parser is not None
        return classified(self._parser.get_status_code(), bytes(self._body[:MAX_BODY]), self._after, self._left)


class Express:
    """One host, connections kept alive; see the module."""

    def __init__(self, base: str, pace: Pace, *, timeout: float = 5.0, connections: int = 16) -> None:
        """`timeout`: of a request, and of making a connection, venue seconds. `connections`: open at once, at most."""
        parts = urlsplit(base)
        assert parts.scheme in ("http", "https") and parts.hostname, "a base address"
        self.pace, self.timeout, self.connections = pace, timeout, connections
        self._host = parts.hostname
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        self._constant = f" HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        self._all: set[_Connection] = set()
        self._idle: list[_Connection] = []
        """The one that was used last is taken first, so that the others may grow old."""
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Call] = deque()
        self._kept = 0
        self._sweeping: asyncio.TimerHandle | None = None

    def send(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str], timeout: float | None = None
    ) -> asyncio.Future[Reply]:
        """Write the request now where a connection is idle, else as soon as there is one; the future never raises.

        `timeout`: venue seconds until the answer is whole, waiting for a connection included.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        try:
            data = self._message(method, path, body, headers)
        except ValueError as error:
            answer.set_result(Reply(Outcome.UNSENT, error=words_of(error)))
            return answer
        call, limit = _Call(answer, data, twice=method in _SAFE_TWICE), timeout or self.timeout
        call.timer = loop.call_later(self.pace.wall(limit), self._late, call, limit)
        self._place(call)
        return answer

    async def warm(self) -> None:
        """Open `WARM` connections and keep so many from now on; a venue that cannot be reached is for the requests to tell."""
        self._kept = min(WARM, self.connections)
        self._top_up()
        self._sweep_later()
        if self._opening:
            await asyncio.wait(self._opening)

    async def close(self) -> None:
        """What waits is UNSENT, what is in flight UNKNOWN."""
        self._kept = 0
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for call in self._waiting:
            call.fail("closed by us")
        self._waiting.clear()
        opening, ending = list(self._opening), list(self._all)
        for task in opening:
            task.cancel()
        for connection in ending:
            self.broken(connection, "closed by us")
        await asyncio.gather(*opening, return_exceptions=True)
        if ending:
            await asyncio.wait([connection.lost for connection in ending], timeout=self.pace.wall(self.timeout))

    # The way of a request.

    def _message(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        """The request's bytes; ValueError for what no request may hold."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if any("\n" in line or "\r" in line for line in (method, path, *lines)):
            raise ValueError("a header cannot hold more than one line")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        elif method == "POST":
            lines.append("Content-Length: 0")
        head = f"{method} {self._prefix}{path}{self._constant}" + "\r\n".join([*lines, "", ""])
        return head.encode() + (body or b"")

    def _place(self, call: _Call) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                connection.begin(call)
                return
            self.drop(connection)
        self._waiting.append(call)
        self._open_for_waiting()

    def _give(self, connection: _Connection) -> None:
        """A free connection: to who has waited longest, else among the idle."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answer.done():
                connection.begin(call)
                return
        connection.since = self.pace.now()
        self._idle.append(connection)
        self._sweep_later()

    def _late(self, call: _Call, limit: float) -> None:
        connection = call.connection
        if connection is None:
            if call in self._waiting:
                self._waiting.remove(call)
            call.fail(f"no connection within {limit:g}s")
        else:
            call.fail(f"no answer within {limit:g}s")
            self.drop(connection)

    # What connections tell.

    def answered(self, connection: _Connection, reply: Reply, *, keep: bool) -> None:
        """A whole answer has come; `keep`: the connection can be used again."""
        call, connection.call = connection.call, None
        assert call is not None
        call.end(reply)
        if keep and connection.open:
            connection.used = True
            self._give(connection)
        else:
            self.drop(connection)

    def broken(self, connection: _Connection, words: str, *, heard: bool = True) -> None:
        """The connection is of no more use, perhaps under a request; `heard`: some of an answer came."""
        call, connection.call = connection.call, None
        if call is not None and call.twice and connection.used and not heard:
            call.twice, call.connection = False, None
            self.drop(connection)
            self._place(call)
            return
        if call is not None:
            call.fail(words)
        self.drop(connection)

    def drop(self, connection: _Connection) -> None:
        """Forget it and end it; its request has been answered for."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        connection.abort()
        self._open_for_waiting()

    # Opening connections, and closing old ones.

    def _open_for_waiting(self) -> None:
        while len(self._opening) < len(self._waiting) and len(self._all) + len(self._opening) < self.connections:
            self._open_one()

    def _top_up(self) -> None:
        while len(self._all) + len(self._opening) < self._kept:
            self._open_one()

    def _open_one(self) -> None:
        task = asyncio.get_running_loop().create_task(self._open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        loop, task, words = asyncio.get_running_loop(), asyncio.current_task(), ""
        assert task is not None
        try:
            async with asyncio.timeout(self.pace.wall(self.timeout)):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                # A family of addresses that leads nowhere must not use up the time of the one that does.
                reached = await start_connection(found, happy_eyeballs_delay=self.pace.wall(_HEAD_START_S))
                name = self._host if self._tls is not None else None
                made = await loop.create_connection(partial(_Connection, self), sock=reached, ssl=self._tls, server_hostname=name)
        except TimeoutError:
            words = f"no connection within {self.timeout:g}s"
        except (OSError, ValueError) as error:
            words = words_of(error)
        finally:
            self._opening.discard(task)
        if not words:
            connection = made[1]
            if connection.open:
                self._all.add(connection)
                self._give(connection)
                return
            words = "the connection was closed as soon as it was made"
        self._refuse(words)

    def _refuse(self, words: str) -> None:
        """No connection came about: so ends the request that has waited longest."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answer.done():
                call.fail(words)
                break
        self._open_for_waiting()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self.pace.wall(_SWEEP_S), self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self.pace.now()
        for connection in [each for each in self._idle if now - each.since >= IDLE_S * NS_PER_S]:
            self.drop(connection)
        self._top_up()
        if self._all or self._kept:
            self._sweep_later()
