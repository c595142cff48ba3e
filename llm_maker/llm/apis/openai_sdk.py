"""What chat completions and Responses have in common: one server behind the `openai` SDK, asked once per attempt.

Owns the SDK's client, the deadline, the stepping down when a server will not take a schema, and what a call cost. It refuses to
know either wire's bodies. The SDK is imported when a client is made (about half a second: do it at the start), never before. The
key goes into the Authorization header and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llm_maker.llm.apis import faults
from llm_maker.llm.budget import Cost, Pricer, Usage
from llm_maker.llm.providers import ProviderError, ProviderSpec, SchemaMode
from llm_maker.llm.snapshot import clean

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

X_SEARCH = "x_search"
"""Not of the body: `extra: {x_search: true}` lets a search look through posts too, at about five times the price."""
_STEPS: tuple[SchemaMode, ...] = ("json_schema", "json_object", "prompt_only")
_TICKS_PER_USD = Decimal(10**10)
"""xAI bills in `cost_in_usd_ticks`, tools included (`llm-providers.md` 2.5)."""
_MAX_BILL_USD = Decimal(1_000)
"""One call of ours costs cents; a bill above this is a mistake, and the tokens are priced instead."""
_MAX_TOKENS = 100_000_000
_ABOUT_SCHEMA = re.compile(
    # The last is OpenRouter's 404 when `require_parameters` leaves no route that can do schemas.
    r"response_format|text\.format|json_schema|json_object|schema|structured|grammar|can handle the requested parameters",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"(?:incorrect|invalid|unknown) api[ _-]?key", re.IGNORECASE)
"""xAI answers a wrong key with 400."""


class _CostDetails(msgspec.Struct):
    upstream_inference_cost: Decimal | None = None


class Bill(msgspec.Struct):
    """The price that a server itself puts into its usage; each wire's usage adds its tokens."""

    cost: Decimal | None = None
    """OpenRouter's, USD; with a key of one's own (`is_byok`) only its fee, beside what the model's maker charges."""
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None
    cost_in_usd_ticks: Decimal | None = None

    def usd(self) -> Decimal | None:
        """None: none given, or none that can be true."""
        if self.cost_in_usd_ticks is not None:
            return _believed(self.cost_in_usd_ticks, _TICKS_PER_USD)
        fee = _believed(self.cost)
        if fee is None or not self.is_byok:
            return fee
        upstream = _believed(self.cost_details.upstream_inference_cost if self.cost_details else None)
        return None if upstream is None else fee + upstream


def _believed(amount: Decimal | None, per_usd: Decimal = Decimal(1)) -> Decimal | None:
    if amount is None or not amount.is_finite() or not 0 <= amount <= _MAX_BILL_USD * per_usd:
        return None
    return amount / per_usd


class OpenAIClient:
    """One model at one server. Made once, closed once. `extra` is laid over the provider's own and joins the body as it stands; a
    null in it takes a field out. `on_step` hears when a server will not take a schema and one less is asked. ValueError: `extra`
    holds what no body can, or a field that is ours.
    """

    _reserved: tuple[str, ...] = ("model", "stream")

    def __init__(
        self,
        spec: ProviderSpec,
        *,
        api_key: str,
        pricer: Pricer,
        base_url: str = "",
        model: str = "",
        extra: dict[str, Any] | None = None,
        schema_mode: SchemaMode | None = None,
        max_output_tokens: int = 4_000,
        clock: Callable[[], int] = time.time_ns,
        on_step: Callable[[str], None] = lambda line: None,
    ) -> None:
        import httpx2
        from openai import AsyncOpenAI

        self.provider = spec.name
        self.model = model or spec.model
        self.schema_mode: SchemaMode = schema_mode or spec.schema_mode
        self._spec = spec
        extra = _checked(extra or {}, self._reserved)
        self._x_search = extra.get(X_SEARCH) is True
        self._extra = (spec.extra, {name: value for name, value in extra.items() if name != X_SEARCH})
        self._secret = api_key
        self._pricer = pricer
        self._max_output_tokens = max_output_tokens
        self._clock = clock
        self._on_step = on_step
        where = base_url or spec.base_url
        try:
            self._client = AsyncOpenAI(api_key=api_key or "none", base_url=where, max_retries=0, http_client=faults.client())
        except httpx2.InvalidURL as error:
            raise ValueError(f"base_url {where!r}: {error}") from None
        # The SDK fills these from the environment; they belong to another account than the key may.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = {}

    async def close(self) -> None:
        await self._client.close()

    async def _within(self, deadline_s: float, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(deadline_s):
                return await call
        except TimeoutError:
            raise ProviderError("timeout", f"no whole answer within {deadline_s:.1f} s", maybe_billed=True) from None

    async def _stepping_down(self, ask: Callable[[SchemaMode], Awaitable[bytes]]) -> tuple[bytes, SchemaMode]:
        """Meet a server's refusal of the schema by asking with less, once per step; what was answered is remembered."""
        for mode in _STEPS[_STEPS.index(self.schema_mode) :]:
            try:
                body = await ask(mode)
            except _Refused as refused:
                if mode == _STEPS[-1] or not refused.about_schema:
                    raise
                self._on_step(f"{self.provider} {self.model}: {mode} refused ({refused.detail}); asking with less")
                continue
            self.schema_mode = mode
            return body, mode
        raise AssertionError("the last step answers or raises")

    async def _body_of(self, create: Callable[..., Any], body: dict[str, Any], deadline_s: float) -> bytes:
        """One request and its whole body, or ProviderError."""
        import httpx2
        import openai

        faults.checked_key(self._secret)
        try:
            async with create(**body, timeout=faults.timeouts(deadline_s)) as response:
                return b"".join([chunk async for chunk in response.iter_bytes()])
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except (openai.APIError, httpx2.HTTPError, faults.BodyTooLong) as error:
            raise faults.broken(error, self._secret) from None
        except UnicodeEncodeError:
            raise ProviderError("bad_request", "the prompt holds a character that no text has (half of a surrogate pair)") from None

    def _refused(self, error: openai.APIStatusError) -> ProviderError:
        status, message = error.status_code, _message(error)
        code = "api_key" if _BAD_KEY.search(message) else error.code
        retry_after, now_s = error.response.headers.get("retry-after"), self._clock() / 1e9
        seen = faults.refused(status, message, code=code, secret=self._secret, retry_after=retry_after, now_s=now_s)
        about_schema = seen.kind == "bad_request" and status in (400, 404, 422)
        about_schema = about_schema and bool(error.param == "response_format" or _ABOUT_SCHEMA.search(message))
        return _Refused(seen, about_schema=about_schema)

    def _priced(self, usage: Usage, bill: Bill, *, searches_usd: Decimal = Decimal(0)) -> Cost:
        """What was billed, else the tokens' price and the searches'. A reply without tokens in its usage has an unknown price."""
        billed = bill.usd()
        cost = self._pricer.cost(usage, billed, self._clock())
        if billed is not None or cost.usd is None:
            return cost
        if cost.source != "local" and not (usage.input or usage.output):
            return Cost(None, "unknown")
        return Cost(cost.usd + searches_usd, cost.source)

    def _decoded(self, body: bytes, shape: type[T], name: str, usage_of: Callable[[bytes], Usage | None]) -> T:
        """The reply; of one that is not what it should be, what it says of its usage."""
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            what = f"not {name}: {error}" if body.strip() else "an empty body"
            raise ProviderError("malformed", self._told(what), maybe_billed=True, usage=usage_of(_usage_in(body))) from None

    def _told(self, text: str) -> str:
        return faults.safe(text, self._secret)

    def _wrote(self, text: str) -> str:
        return faults.without(text, self._secret)

    def _called(self, model: str | None) -> str:
        """The model's name as the server has it, harmless to print."""
        return clean(self._wrote(model or self.model), 80)


class _Refused(ProviderError):
    """A status that is no success; `about_schema`: because of the form that we asked for."""

    def __init__(self, error: ProviderError, *, about_schema: bool) -> None:
        super().__init__(error.kind, error.detail, error.retry_after_s)
        self.about_schema = about_schema


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Later over earlier, mappings field by field; null takes the field out."""
    whole: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if value is None:
                whole.pop(name, None)
            elif isinstance(value, dict):
                below = whole.get(name)
                whole[name] = merged(below if isinstance(below, dict) else {}, value)
            else:
                whole[name] = value
    return whole


def are_counts(*totals: int | None) -> bool:
    """Whether a usage can be believed: its totals are there, and are no nonsense."""
    return all(total is not None and 0 <= total <= _MAX_TOKENS for total in totals)


def count(tokens: int | None) -> int:
    """A part of a total; absent is none."""
    return min(max(0, tokens or 0), _MAX_TOKENS)


class _Paid(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


def _usage_in(body: bytes) -> bytes:
    try:
        return bytes(msgspec.json.decode(body, type=_Paid).usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"null"


def wire_usage(raw: bytes, shape: type[T]) -> T | None:
    """The usage of a reply; one that cannot be read must not take the answer with it."""
    try:
        return msgspec.json.decode(raw, type=shape | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _checked(extra: dict[str, Any], reserved: tuple[str, ...]) -> dict[str, Any]:
    ours = sorted(set(extra) & set(reserved))
    if ours:
        raise ValueError(f"extra sets {', '.join(ours)}; these fields are ours")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra holds what no JSON can: {error}") from None
    return extra


def _message(error: openai.APIStatusError) -> str:
    """The words of an error's body: OpenAI's object, xAI's bare string, else whatever came."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message")
    return body if isinstance(body, str) and body else error.message
