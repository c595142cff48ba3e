"""Polymarket's HTTP hosts behind typed replies: the CLOB, public and private, Gamma and Data (`polymarket.md` 2).

It knows paths, limits and the private headers. What a reply means is read where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Http, Outcome, Pace, Query, Reply
from llm_maker.venues.polymarket.auth import Credentials

if TYPE_CHECKING:
    from llm_maker.venues.express import Express

CLOB_LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("*", "/"): (900.0, 900.0),
    ("GET", "/books"): (50.0, 50.0),
    ("POST", "/books"): (50.0, 50.0),
    ("GET", "/book"): (150.0, 150.0),
    ("GET", "/data/"): (50.0, 50.0),
    ("GET", "/balance-allowance/update"): (5.0, 20.0),
    ("GET", "/balance-allowance"): (20.0, 60.0),
    ("GET", "/auth/"): (10.0, 10.0),
}
"""Per second and burst, of the ten-second allowances of `polymarket.md` 2.6; orders have buckets of their own."""
GAMMA_LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {("GET", "/markets"): (30.0, 60.0), ("GET", "/events"): (50.0, 60.0)}
DATA_LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {("GET", "/"): (15.0, 30.0)}
HURRIED = 32
"""Connections of orders and cancels: twice what orders can hold (`orders.entry.MAX_POSTS`), so that cancels find one."""
MAX_PAGES = 200
"""Of one listing: more is a venue that never ends its pages."""


class Clob:
    """The order book's host. `credentials` None: only the public part can be asked."""

    def __init__(self, base: str, pace: Pace, credentials: Credentials | None = None, timeout: float = 5.0) -> None:
        self.http = Http(base, pace, timeout=timeout, limits=CLOB_LIMITS)
        self.pace, self.credentials = pace, credentials
        self._express: Express | None = None

    async def public(
        self, method: str, path: str, *, query: Query | None = None, body: Any = None, timeout: float | None = None
    ) -> Reply:
        """`body`: anything that JSON can carry."""
        raw = None if body is None else msgspec.json.encode(body)
        return await self.http.request(method, path, query=query, body=raw, timeout=timeout)

    async def private(
        self, method: str, path: str, *, query: Query | None = None, body: bytes | None = None, timeout: float | None = None
    ) -> Reply:
        """`body`: the exact bytes that are signed and sent."""
        assert self.credentials is not None, "a private request without credentials"
        headers = self.credentials.headers(self.pace.now() // NS_PER_S, method, path, body)
        return await self.http.request(method, path, query=query, body=body, headers=headers, timeout=timeout)

    def hurry(self, method: str, path: str, body: bytes, *, timeout: float | None = None) -> asyncio.Future[Reply]:
        """As `private`, but written before it returns where a connection is free; for orders, whose limits are their own."""
        assert self.credentials is not None, "a private request without credentials"
        headers = self.credentials.headers(self.pace.now() // NS_PER_S, method, path, body)
        return self._hurried().send(method, path, body=body, headers=headers, timeout=timeout)

    async def warm(self) -> None:
        """Have connections ready for `hurry`, from now on."""
        await self._hurried().warm()

    def _hurried(self) -> Express:
        if self._express is None:
            from llm_maker.venues.express import Express

            self._express = Express(self.http.base, self.pace, timeout=self.http.timeout, connections=HURRIED)
        return self._express

    async def pages(self, path: str, query: Mapping[str, str] | None = None) -> tuple[list[msgspec.Raw], Reply]:
        """Every row of a private listing, page by page; the rows are whole only if the reply is OK."""
        rows: list[msgspec.Raw] = []
        cursor = "MA=="
        for _ in range(MAX_PAGES):
            reply = await self.private("GET", path, query={**(query or {}), "next_cursor": cursor})
            if not reply.ok:
                return rows, reply
            try:
                page = msgspec.json.decode(reply.body, type=_Page)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                return rows, Reply(Outcome.UNKNOWN, reply.status, error=f"not a page: {error}"[:300])
            rows.extend(page.data)
            if page.next_cursor in ("", "LTE=") or page.next_cursor == cursor:
                return rows, reply
            cursor = page.next_cursor
        return rows, Reply(Outcome.UNKNOWN, error=f"{path} gave more than {MAX_PAGES} pages")

    async def close(self) -> None:
        await self.http.close()
        if self._express is not None:
            await self._express.close()
            self._express = None


class _Page(msgspec.Struct):
    data: list[msgspec.Raw] = []
    next_cursor: str = ""
