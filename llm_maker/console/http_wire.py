"""The HTTP server's sockets: what a client may hold, and for how long. Loads aiohttp; `http.py` imports it in a thread.

A connection that has not finished a request, or does not take its answer, is cut; so is what is beyond the number there may be.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any, cast

import msgspec
from aiohttp import web

from llm_maker.console.http_api import MAX_BODY_BYTES, SAFE, Answer, Api, Call, denial, failure
from llm_maker.console.http_guard import TOO_MANY, Bucket, Denied


class Limits(msgspec.Struct, frozen=True):
    """Seconds, and how many at once."""

    head: float = 10.0
    """From the first byte of a request (or a new connection) to the end of its head; then again to the end of its body."""
    write: float = 10.0
    """For a client to take an answer, or one event of a stream."""
    idle: float = 30.0
    beat: float = 1.0
    """Between two events of a stream."""
    connections: int = 64
    streams: int = 8
    refusals: float = 50.0
    """A second, of all clients; what is refused beyond that waits for its answer."""
    wait: float = 1.0
    """For one who asks again and again for what is refused: whoever does not wait costs the loop all its time."""


_silent = logging.getLogger("llm_maker.http")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class Connection(web.RequestHandler):
    """aiohttp's connection under a clock: there is always one limit running unless an answer is being made."""

    __slots__ = ("_clock", "_line", "_reading", "_wire", "timed_loop")

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(wire, loop=loop, **settings)
        self._wire, self.timed_loop = wire, loop
        self._clock: asyncio.TimerHandle | None = None
        self._line: asyncio.Transport | None = None
        """Ours until it is lost: aiohttp lets go of its own when it closes, and what it then still has to send nobody would cut."""
        self._reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if len(self._wire.open) >= self._wire.limits.connections:
            line.write(_BUSY)
            line.close()
            self._force_close = True
            return
        self._wire.open.add(self)
        self._line = line
        super().connection_made(transport)
        self._limit(self._wire.limits.head)
        self._reading = True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire.open.discard(self)
        self._line = None
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._clock is not None and not self._reading:
            self._reading = True
            self._limit(self._wire.limits.head)

    def begun(self) -> None:
        """A whole head is there and its answer is being made."""
        self._stop()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._limit(self._wire.limits.write)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._reading = False
            self._limit(self._wire.limits.idle)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp could not read, or a fault of ours: JSON like everything else, and the connection ends."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer is on its way already, or nobody is there to take it")
        if status >= 500 and exc is not None:
            self._wire.api.fault("a request", exc)
        response = respond(failure(status, "not a request that can be read" if status < 500 else "a fault of the server"))
        response.force_close()
        return response

    def cut(self) -> None:
        if self._line is not None:
            self._line.abort()

    def _limit(self, seconds: float) -> None:
        self._stop()
        if self._line is not None:
            self._clock = self.timed_loop.call_later(seconds, self.cut)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


class Wire(web.Server):
    """The factory of connections, and what is done with a request once its head is whole."""

    def __init__(self, api: Api, limits: Limits) -> None:
        super().__init__(self.serve, handler_cancellation=True)
        self.api, self.limits = api, limits
        self.open: set[Connection] = set()
        self._streams = 0
        self._pictures: dict[int, tuple[bytes, int]] = {}
        self._pictured = self._scraped = float("-inf")
        self._scrape = b""
        self._refusals = Bucket(limits.refusals, 2 * limits.refusals)

    def __call__(self) -> Connection:
        return Connection(
            self,
            asyncio.get_running_loop(),
            keepalive_timeout=2 * self.limits.idle,
            lingering_time=1.0,
            auto_decompress=False,
            access_log=None,
            logger=_silent,
            max_headers=64,
        )

    def cut(self) -> None:
        """All of them, now."""
        for connection in list(self.open):
            connection.cut()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begun()
        now = asyncio.get_running_loop().time()
        try:
            call = self.api.judge(request.method, request.raw_path, request.headers.items(), now)
            if call.kind == "stream":
                return await self._stream(request, call)
            if call.kind == "metrics":
                return respond(await self._metrics(call))
            body = await self._body(request) if call.kind == "act" else b""
            return respond(self.api.answer(call, body))
        except Denied as denied:
            if self._refusals.take(now) or denied.status == TOO_MANY:
                await asyncio.sleep(self.limits.wait)
            response = respond(denial(denied))
            if not request.content.is_eof():
                response.force_close()
            return response

    async def _body(self, request: web.BaseRequest) -> bytes:
        found = bytearray()
        try:
            async with asyncio.timeout(self.limits.head):
                async for part in request.content.iter_any():
                    found += part
                    if len(found) > MAX_BODY_BYTES:
                        raise Denied(413, f"a body is at most {MAX_BODY_BYTES} bytes")
        except TimeoutError:
            raise Denied(408, "the body did not come in time") from None
        except web.RequestPayloadError:
            raise Denied(400, "the body cannot be read") from None
        return bytes(found)

    async def _metrics(self, call: Call) -> Answer:
        """However many scrape, the text is made about once a second, and between two of its parts the loop goes on."""
        now = asyncio.get_running_loop().time()
        metrics = await asyncio.to_thread(importlib.import_module, "llm_maker.console.metrics")
        if now - self._scraped > self.limits.beat:
            text = bytearray()
            for part in metrics.parts(self.api.ask(call, {})):
                text += part
                await asyncio.sleep(0)
            self._scraped, self._scrape = now, bytes(text)
        return Answer(200, self._scrape, metrics.CONTENT_TYPE)

    # The stream.

    async def _stream(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """The board about once a second, until the reader leaves or does not keep up."""
        if self._streams >= self.limits.streams:
            raise Denied(429, f"{self.limits.streams} streams are open: close one", 5)
        self._streams += 1
        try:
            picture, since = self._picture(call, int(call.args.get("since", 0)))
            response = web.StreamResponse(headers=SAFE | {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await response.prepare(request)
            loop = asyncio.get_running_loop()
            while True:
                async with asyncio.timeout(self.limits.write):
                    await response.write(picture)
                # All streams wake on the same beat, so that one picture serves them all.
                beat = self.limits.beat
                await asyncio.sleep(beat - loop.time() % beat)
                picture, since = self._picture(call, since)
        except TimeoutError:
            return self._cut(request)
        except Denied:
            if request.writer.output_size == 0:
                raise
            return self._cut(request)
        finally:
            self._streams -= 1

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, Connection)
        request.protocol.cut()
        raise ConnectionResetError("the stream was cut")

    def _picture(self, call: Call, since: int) -> tuple[bytes, int]:
        """One event, and what the next `since` is; made once for all who have read as far."""
        now = asyncio.get_running_loop().time()
        if now - self._pictured > self.limits.beat / 2:
            self._pictures.clear()
            self._pictured = now
        if since not in self._pictures:
            board = self.api.ask(call, {"since": since})
            self._pictures[since] = (b"data: " + msgspec.json.encode(board) + b"\n\n", board["last"])
        return self._pictures[since]


def respond(answer: Answer) -> web.Response:
    """An answer with the headers that every one has."""
    return web.Response(status=answer.status, body=answer.body, headers={**SAFE, **answer.headers, "Content-Type": answer.kind})


def _raw(answer: Answer) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in SAFE.items())
    return (
        f"HTTP/1.1 {answer.status} Busy\r\n{head}Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + answer.body


_BUSY = _raw(failure(503, "too many connections: close one"))
