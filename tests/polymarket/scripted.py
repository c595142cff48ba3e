"""A small HTTP server on loopback that says what a test tells it to, and remembers what it was asked in which order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.auth import Credentials
from llm_maker.venues.polymarket.rest import Clob

KEY = "0x" + "11" * 32  # throwaway, marked: worth nothing anywhere
SECRET = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="  # throwaway, of polymarket.md 1.5
START = 1_763_000_000 * NS_PER_S


def paced(speed: float = 20.0) -> Pace:
    began = time.monotonic_ns()
    return Pace(lambda: START + round((time.monotonic_ns() - began) * speed), speed)


def clob_of(server: Server, pace: Pace, timeout: float = 5.0) -> Clob:
    return Clob(server.url, pace, Credentials("0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", "api-key", SECRET, "pass"), timeout)


@dataclass
class Seen:
    """One request as it arrived; `at` is venue time."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    at: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Say:
    """A reply: `body` as JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


HANG = Say(status=-1)
"""Never answer; the connection ends with the server."""
Reply = Say | Callable[[Seen], Say | Awaitable[Say]]


class Server:
    """`script[(method, path)]`: replies in turn, the last one for ever; a path ends in `*` to match by its beginning."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.url, self.seen = pace, "", []
        self.script: dict[tuple[str, str], list[Reply]] = {}
        self._closing = asyncio.Event()
        self._arrived = asyncio.Condition()

    def on(self, method: str, path: str, *replies: Reply) -> None:
        self.script[method, path] = list(replies)

    def lines(self, prefix: str = "") -> list[str]:
        return [seen.line for seen in self.seen if seen.line.startswith(prefix)]

    def of(self, prefix: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.line.startswith(prefix)]

    async def until(self, prefix: str, count: int = 1, limit_s: float = 10.0) -> list[Seen]:
        async with asyncio.timeout(limit_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.of(prefix)) >= count)
        return self.of(prefix)

    async def __aenter__(self) -> Server:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.path, await request.read(), dict(request.headers), self.pace.now())
        self.seen.append(seen)
        async with self._arrived:
            self._arrived.notify_all()
        replies = self._replies(seen)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        told = reply if isinstance(reply, Say) else reply(seen)
        said = told if isinstance(told, Say) else await told
        if said.status == -1:
            await self._closing.wait()
            return web.Response(status=503)
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        return web.Response(body=body, status=said.status, headers=said.headers, content_type="application/json")

    def _replies(self, seen: Seen) -> list[Reply]:
        exact = self.script.get((seen.method, seen.path))
        if exact:
            return exact
        for (method, path), replies in self.script.items():
            if method == seen.method and path.endswith("*") and seen.path.startswith(path[:-1]):
                return replies
        return [Say({"error": f"no script for {seen.line}"}, 500)]
