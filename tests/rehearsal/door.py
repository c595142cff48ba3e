"""A door on loopback before the fake venue: open, shut (nobody listens), or slammed on whoever knocks, who is then noted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

_BLOCK = 1 << 16
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Door:
    """One port, another behind it; shut at first. A thread and a loop of its own."""

    def __init__(self, behind: Callable[[], int]) -> None:
        """`behind`: the port that an open door leads to."""
        self._behind = behind
        self.knocks: list[tuple[float, str]] = []
        """When (monotonic), and the path asked for, while it was slammed."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._through = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        self._do(self._listen(through=True))

    def slam(self) -> None:
        """Take every connection, and send it away as soon as it has said what it wants."""
        self._do(self._listen(through=False))

    def shut(self) -> None:
        """Nobody listens any more, and whoever was inside is out."""
        self._do(self._close())

    def _do(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    async def _listen(self, *, through: bool) -> None:
        await self._close()
        self._through = through
        self._server = await asyncio.start_server(self._come_in, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _come_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._through:
                line = (await reader.readline()).decode(errors="replace").split()
                self.knocks.append((time.monotonic(), line[1] if len(line) > 1 else ""))
                while (await reader.readline()).strip():
                    pass
                writer.write(_UNAVAILABLE)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return
            inner, outer = await asyncio.open_connection("127.0.0.1", self._behind())
            self._writers.add(outer)
            try:
                await _first(_pump(reader, outer), _pump(inner, writer))
            finally:
                self._writers.discard(outer)
                outer.transport.abort()
        except (ConnectionError, asyncio.CancelledError):
            pass  # whoever it was has gone, or the door was shut on him
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()


async def _first(*jobs: Awaitable[None]) -> None:
    """Until one of them has ended."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
