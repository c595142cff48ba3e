"""What every live venue's connection is made of: paced time, back-off, token buckets, typed HTTP replies, one thin socket.

It knows transport and nothing of any venue's words. A reply is one of four things, never an exception: OK, REFUSED (the venue said
no), UNSENT (it never left, or never arrived) and UNKNOWN (it may have been done).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from llm_maker.core.values import NS_PER_S

if TYPE_CHECKING:
    import aiohttp
    from websockets.asyncio.client import ClientConnection

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a reply that are read at most."""
MAX_FRAME = 16 * 1024 * 1024
Query = Mapping[str, str] | Sequence[tuple[str, str]]


class Pace:
    """Venue time: `now` in ns since the epoch, and waits told in venue seconds.

    In the real world both are the world's; against a fake venue a `speed` above 1 is given to both sides.
    """

    def __init__(self, now: Callable[[], int], speed: float = 1.0) -> None:
        assert speed > 0
        self.now, self.speed = now, speed

    def wall(self, seconds: float) -> float:
        """Wall seconds of so many venue seconds: what a timeout or a sleep is given."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0) / self.speed)


class Backoff:
    """Waits that double from `first` to `most` venue seconds, each blurred by half, so that many clients do not come at once."""

    def __init__(self, first: float, most: float, seed: int = 0) -> None:
        assert 0 < first <= most
        self.first, self.most, self.tries = first, most, 0
        self._dice = random.Random(seed)

    def next(self) -> float:
        """The next wait, venue seconds."""
        full = min(self.first * 2.0 ** min(self.tries, 30), self.most)
        self.tries += 1
        return full * (0.5 + self._dice.random() / 2)

    def reset(self) -> None:
        self.tries = 0


class Bucket:
    """A token bucket on venue time: `rate` a second, `burst` at most. With `debt` a spend may take it below zero."""

    def __init__(self, rate: float, burst: float, now: int, *, debt: bool = False) -> None:
        self.rate, self.burst, self.debt = rate, burst, debt
        self._tokens, self._at = burst, now

    def tokens(self, now: int) -> float:
        self._tokens = min(self.burst, self._tokens + self.rate * max(now - self._at, 0) / NS_PER_S)
        self._at = max(now, self._at)
        return self._tokens

    def delay(self, count: float, now: int) -> float:
        """Venue seconds until `count` may be taken; 0: now."""
        missing = (1.0 if self.debt else min(count, self.burst)) - self.tokens(now)
        return max(missing, 0.0) / self.rate

    def take(self, count: float, now: int) -> None:
        self._tokens = self.tokens(now) - count

    def told(self, remaining: float, now: int) -> None:
        """The venue says how many are left: believed where it is less than ours."""
        self._tokens = min(self.tokens(now), remaining)


class Outcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    """The venue read it and said no; nothing was done."""
    UNSENT = "unsent"
    """No connection came about: the venue never heard of it."""
    UNKNOWN = "unknown"
    """Timeout, broken connection, 425, 5xx, a limit without a word when to come back: it may have been done."""


class Reply(msgspec.Struct, frozen=True):
    """A request's end. `error` is the venue's or the transport's words, cut to 300 characters."""

    outcome: Outcome
    status: int = 0
    body: bytes = b""
    error: str = ""
    retry_after: float | None = None
    """Venue seconds, where it was told."""
    remaining: float | None = None
    """Tokens that the venue's limiter says are left."""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


class Http:
    """One host, one session, connections kept alive. Nothing is tried twice here: that is for who knows what it means.

    But for one case, which is the library's: a GET or DELETE that finds its kept connection closed is sent once more on a new one.
    """

    def __init__(
        self, base: str, pace: Pace, *, timeout: float = 5.0, limits: Mapping[tuple[str, str], tuple[float, float]] | None = None
    ) -> None:
        """`limits`: (method or '*', path prefix) -> (rate a second, burst); every one that fits is waited for."""
        self.base, self.pace, self.timeout = base.rstrip("/"), pace, timeout
        self._buckets = [(*key, Bucket(*limit, pace.now())) for key, limit in (limits or {}).items()]
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Send once and wait at most `timeout` venue seconds; never raises for what the world may do."""
        import aiohttp

        await self._admit(method, path)
        session = self._session or self._open()
        sent = {"Content-Type": "application/json"} if body is not None else {}
        limit = self.pace.wall(timeout or self.timeout)
        try:
            async with (
                asyncio.timeout(limit),
                session.request(
                    method,
                    self.base + path,
                    params=query,
                    data=body,
                    headers={**sent, **(headers or {})},
                    allow_redirects=False,
                ) as response,
            ):
                return await _read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return Reply(Outcome.UNSENT, error=words_of(error))
        except TimeoutError:
            return Reply(Outcome.UNKNOWN, error=f"no answer within {timeout or self.timeout:g}s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(Outcome.UNKNOWN, error=words_of(error))

    async def _admit(self, method: str, path: str) -> None:
        for verb, prefix, bucket in self._buckets:
            if verb in ("*", method) and path.startswith(prefix):
                while (wait := bucket.delay(1.0, self.pace.now())) > 0:
                    await self.pace.sleep(wait)
                bucket.take(1.0, self.pace.now())

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=55.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent",),
        )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(response: aiohttp.ClientResponse) -> Reply:
    body = await response.content.read(MAX_BODY)
    while not response.content.at_eof() and len(body) < MAX_BODY:
        body += await response.content.read(MAX_BODY - len(body))
    return classified(response.status, body, response.headers.get("Retry-After"), response.headers.get("Poly-RateLimit-Remaining"))


def classified(status: int, body: bytes, retry_after: str | None, remaining: str | None) -> Reply:
    """What an answer means, whoever read it; the last two are its headers `Retry-After` and `Poly-RateLimit-Remaining`."""
    after, left = _number(retry_after), _number(remaining)
    if 200 <= status < 300:
        return Reply(Outcome.OK, status, body, "", after, left)
    doubtful = status in (408, 425) or status >= 500 or status < 400 or (status == 429 and after is None)
    told, told_after = _told(body)
    return Reply(
        Outcome.UNKNOWN if doubtful else Outcome.REFUSED,
        status,
        body,
        told or f"HTTP {status}",
        after if after else told_after,
        left,
    )


def _told(body: bytes) -> tuple[str, float | None]:
    """The words and the wait in an error's body, whatever its shape."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:300].decode(errors="replace"), None
    if not isinstance(found, dict):
        return str(found)[:300], None
    words = [str(found[key]) for key in ("error", "errorMsg", "error_msg", "message", "code") if found.get(key)]
    after = found.get("retry_after_seconds")
    return "; ".join(words)[:300], float(after) if isinstance(after, int | float) else None


def _number(text: str | None) -> float | None:
    try:
        found = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def words_of(error: BaseException) -> str:
    """The transport's words, one line."""
    return f"{type(error).__name__}: {error}"[:300]


class SocketClosed(Exception):
    """The connection ended, or never came about; one line why."""


class Socket:
    """A WebSocket as text out and bytes in; everything that can happen to it is `SocketClosed`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, url: str, pace: Pace, timeout: float = 10.0) -> Socket:
        """Connect within `timeout` venue seconds. Keep-alive is the venue's own words, not the protocol's pings."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidURI, WebSocketException

        try:
            async with asyncio.timeout(pace.wall(timeout)):
                connection = await connect(
                    url,
                    ping_interval=None,
                    compression=None,
                    max_size=MAX_FRAME,
                    max_queue=1024,
                    open_timeout=None,
                    close_timeout=1,
                )
        except TimeoutError:
            raise SocketClosed(f"no connection within {timeout:g}s") from None
        except (OSError, InvalidURI, WebSocketException, ValueError) as error:
            raise SocketClosed(words_of(error)) from None
        return cls(connection)

    async def send(self, text: str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(text)
        except (ConnectionClosed, OSError) as error:
            raise SocketClosed(words_of(error)) from None

    async def receive(self) -> bytes:
        """The next message whole, undecoded."""
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._connection.recv(decode=False)
        except (ConnectionClosed, OSError) as error:
            raise SocketClosed(words_of(error)) from None

    async def close(self) -> None:
        await self._connection.close()
