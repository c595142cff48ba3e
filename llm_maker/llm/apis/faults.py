"""What every client of a model shares: an HTTP client that leaks nothing, and the world's failures in our words.

Owns the limits of an answer's size, the redaction of keys, and the map from a status or a transport's error to a kind
(`llm-providers.md` 2.6). It refuses to know any provider's SDK. httpx2, which all three SDKs stand on, is imported on use.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from llm_maker.llm.providers import Kind, ProviderError
from llm_maker.llm.snapshot import clean

if TYPE_CHECKING:
    import httpx2

MAX_BODY_BYTES = 2_000_000
MAX_REFUSAL_BYTES = 64_000
"""Of an error's body; the rest is not read."""
MAX_DETAIL = 300
MAX_LOOKED_AT = 8_000
"""Characters of a foreign error that are searched for keys before it is cut to `MAX_DETAIL`."""
CONNECT_S = 5.0
MIN_SECRET = 8
"""A shorter key guards nothing (`none`, `EMPTY`), and taking it out of an answer would ruin the answer's words."""
MAX_RETRY_AFTER_S = 7 * 86_400.0

_KEY_LIKE = re.compile(
    r"\b(?:sk|xai|gsk)-[\w*.-]{4,}|\bAIza[\w*-]{8,}|\bAQ\.[\w*-]{8,}|\bBearer\s+[^\s'\"]+|[^\s'\"*]{0,80}\*{3,}[^\s'\"]{0,80}",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"quota|billing|balance|credit", re.IGNORECASE)
_BAD_KEY = re.compile(r"api[ _-]?key", re.IGNORECASE)


def without(text: str, secret: str) -> str:
    """The text with the key itself taken out, as it stands or as a URL has it: for what a model wrote."""
    if len(secret) < MIN_SECRET:
        return text
    return text.replace(secret, "***").replace(quote(secret, safe=""), "***")


def redact(text: str, secret: str) -> str:
    """Remove the key, and whatever looks like one: providers echo keys, masked or whole, in their errors."""
    return _KEY_LIKE.sub("***", without(text, secret))


def safe(text: str, secret: str) -> str:
    """A foreign error's words, fit for a log: no key, one line, at most 300 characters."""
    # Twice: a cut must not leave half a key, and cleaning may put together what stood apart.
    return redact(clean(redact(text[:MAX_LOOKED_AT], secret), MAX_DETAIL), secret)[:MAX_DETAIL]


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds from now, of either form of Retry-After (RFC 9110 10.2.3); nonsense is none, a date gone by is 0."""
    text = (header or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, at - now_s), MAX_RETRY_AFTER_S)


def kind_of(status: int, code: str | None) -> Kind:
    """An HTTP status, with the provider's own code for it, as one of our kinds."""
    if status == 429:
        return "billing" if _QUOTA.search(code or "") else "rate_limit"
    if status >= 500:
        return "overload"
    if status == 400 and _BAD_KEY.search(code or ""):
        return "auth"
    named: dict[int, Kind] = {401: "auth", 403: "auth", 402: "billing", 408: "timeout"}
    return named.get(status, "bad_request")


def refused(
    status: int, message: str, *, code: str | None, secret: str, retry_after: str | None = None, now_s: float = 0.0
) -> ProviderError:
    """The error of an answer that was no success. Its detail begins with `HTTP <status>:`."""
    detail = safe(f"HTTP {status}: {message}", secret)
    return ProviderError(kind_of(status, code), detail, retry_after_s(retry_after, now_s))


def checked_key(secret: str) -> None:
    """ProviderError of kind auth if the key cannot stand in a header: a library's own error would quote it."""
    if not all("!" <= c <= "~" for c in secret):
        raise ProviderError("auth", "the key holds a character that no key has (a space, a quote mark, a line end?)")


class BodyTooLong(Exception):
    """The answer is longer than we read, or packed so that it may be."""


def cause_of(error: BaseException) -> BaseException:
    """What happened on the wire, out of the SDK's error around it: the first of httpx2 or of ours, else the innermost."""
    import httpx2

    while not isinstance(error, BodyTooLong | TimeoutError | httpx2.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def transport_kind(error: BaseException) -> Kind:
    """What broke between us and the server: an error of httpx2, of ours, or of an SDK around one of these."""
    import httpx2

    cause = cause_of(error)
    if isinstance(cause, TimeoutError | httpx2.TimeoutException):
        return "timeout"
    return "malformed" if isinstance(cause, BodyTooLong | httpx2.DecodingError) else "connection"


def was_sent(error: BaseException) -> bool:
    """Whether the request may have reached the server before this broke, and so may be on the bill."""
    import httpx2

    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    return not isinstance(cause_of(error), never)


def broken(error: BaseException, secret: str) -> ProviderError:
    """The error of a call that got no whole answer."""
    cause = cause_of(error)
    return ProviderError(transport_kind(error), safe(f"{type(cause).__name__}: {cause}", secret), maybe_billed=was_sent(error))


def timeouts(deadline_s: float) -> httpx2.Timeout:
    """Within a deadline: connecting has a third of it at most, so that running into the deadline means that we had sent."""
    import httpx2

    whole = max(deadline_s, 0.001)
    return httpx2.Timeout(whole, connect=min(CONNECT_S, whole / 3))


def client() -> httpx2.AsyncClient:
    """An HTTP client for one SDK: no proxy of the environment, no redirect may carry the key elsewhere; TLS trusts
    what the operating system trusts; no body is read past its limit, whatever the SDK does with it.
    """
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, inner: httpx2.AsyncByteStream, limit: int, *, cut: bool) -> None:
            self._inner, self._left, self._cut = inner, limit, cut

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._inner:
                self._left -= len(chunk)
                if self._left < 0 and not self._cut:
                    raise BodyTooLong(f"the answer is longer than {MAX_BODY_BYTES} bytes")
                yield chunk
                if self._left < 0:
                    return

        async def aclose(self) -> None:
            await self._inner.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            # We asked for none: unpacking could make a thousand times more of it than any limit on what arrives.
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise BodyTooLong("the answer is compressed, which we had not asked for")
            is_answer = response.is_success
            limit = MAX_BODY_BYTES if is_answer else MAX_REFUSAL_BYTES
            response.stream = Bounded(response.stream, limit, cut=not is_answer)
            return response

    return httpx2.AsyncClient(
        transport=Transport(trust_env=False),
        trust_env=False,
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        timeout=timeouts(600.0),
    )
