"""A server on loopback that says what it is told, for words and headers that the fake model server has no step for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Page:
    body: Any
    """A str or bytes as it stands, all else as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Pages:
    """One page for each request, the last one again and again; `seen` is (path, body, headers) of what was sent."""

    pages: list[Page]
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)

    async def __aenter__(self) -> Pages:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.root = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, await request.json(), {k.lower(): v for k, v in request.headers.items()}))
        page = self.pages[min(len(self.seen), len(self.pages)) - 1]
        raw = page.body if isinstance(page.body, str | bytes) else json.dumps(page.body)
        raw = raw.encode() if isinstance(raw, str) else raw
        return web.Response(status=page.status, body=raw, headers={"content-type": "application/json", **page.headers})
