"""The HTTP server on a loopback socket, a client that may send anything at all, and a daemon that has run for it to show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_maker import app
from llm_maker.config import load
from llm_maker.config_console import Console
from llm_maker.console.desk import Desk
from llm_maker.console.http import HttpServer
from llm_maker.core.events import Event
from llm_maker.keys import Secrets

PAGE = "<!DOCTYPE html><style>b { color: red }</style><b>a page</b><script>document.title = 'ran'</script>"
PATIENCE = 10.0
"""Seconds before a test says that an answer never came; the server's own limits are far below."""


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, names in small letters. Raises `EOFError` when it was cut instead."""
        try:
            raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("cut") from error
        first, *rest = raw.decode("latin-1").split("\r\n")[:-2]
        return int(first.split()[1]), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}

    async def got(self) -> Got:
        status, headers = await self.head()
        length = int(headers.get("content-length", "0"))
        try:
            return Got(status, headers, await asyncio.wait_for(self.reader.readexactly(length), PATIENCE))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("cut in the middle") from error

    async def event(self) -> dict[str, Any]:
        """The next event of a chunked stream."""
        size = int(await asyncio.wait_for(self.reader.readline(), PATIENCE), 16)
        raw = await asyncio.wait_for(self.reader.readexactly(size + 2), PATIENCE)
        assert raw.startswith(b"data: ") and raw.endswith(b"\n\n\r\n")
        return json.loads(raw[6:])

    async def is_cut(self) -> bool:
        """True once the other end has closed; never answers False, it times out."""
        try:
            while await asyncio.wait_for(self.reader.read(65_536), PATIENCE):
                pass
        except ConnectionError:
            pass
        return True


@dataclass
class Served:
    """A server that listens, and what became of it."""

    home: Path
    server: HttpServer
    task: asyncio.Task[None]
    emitted: list[Event] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2])

    def key(self, name: str = "http_key") -> str:
        return (self.home / "positions" / name).read_text().strip()

    @asynccontextmanager
    async def line(self, limit: int = 1 << 22) -> AsyncIterator[Line]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        try:
            yield Line(reader, writer)
        finally:
            writer.close()

    def head(self, method: str, target: str, headers: dict[str, str] | None = None, *, key: str | None = "http_key") -> bytes:
        """A request's head; `key` is the file of the key that is shown."""
        shown = {"Host": f"127.0.0.1:{self.port}"}
        if key is not None:
            shown["Authorization"] = f"Bearer {self.key(key)}"
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in (shown | (headers or {})).items())]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        key: str | None = "http_key",
    ) -> Got:
        """One request on a connection of its own."""
        more = dict(headers or {})
        if body is not None:
            more = {"Content-Type": "application/json", "Content-Length": str(len(body))} | more
        async with self.line() as line:
            await line.send(self.head(method, target, more, key=key) + (body or b""))
            return Got(*await line.head(), b"") if method == "HEAD" else await line.got()

    async def act(self, verb: str, args: dict[str, Any] | None = None, *, key: str | None = "http_key") -> Got:
        return await self.ask("POST", f"/api/act/{verb}", json.dumps(args or {}).encode(), key=key)


@asynccontextmanager
async def serving(
    home: Path, desk: Desk, limits: Any = None, page: Callable[[], str] | None = lambda: PAGE, **settings: Any
) -> AsyncIterator[Served]:
    """A server on any free port until the block ends; None of `page`: ours."""
    said: list[tuple[str, str]] = []
    console = Console(**({"http_port": 0} | settings))
    server = HttpServer(home, desk, console, lambda level, code, text: said.append((str(level), text)), limits, page)
    emitted: list[Event] = []
    task = asyncio.create_task(server.run(emitted.append))
    try:
        while not server.address and not said and not task.done():
            await asyncio.sleep(0.005)
        yield Served(home, server, task, emitted, said)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ran(home: Path, until: float = 50.0) -> app.Daemon:
    """A daemon on the simulated market after a short run, so that its seat has something to show."""
    overrides: dict[str, Any] = {"paper.markets": 3, "console.http": False}
    daemon = app.Daemon(load(None, {}, overrides), Secrets({}), home, app.Options(speed=0.0, until=until), lambda line: None)
    assert await daemon.run()
    return daemon
