"""One stateless structured call to any server that speaks chat completions, through the `openai` SDK.

Owns the SDK client and nothing else: no retry, no rate limit, no budget, no reading of the answer. The SDK is imported when a
client is made, never before. The key goes into the Authorization header and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from llm_maker.llm.budget import Cost, Pricer, Usage
from llm_maker.llm.providers import Completion, Finish, Kind, ProviderError, ProviderSpec, SchemaMode
from llm_maker.llm.snapshot import clean

if TYPE_CHECKING:
    import openai

MAX_BODY_BYTES = 2_000_000
MAX_DETAIL = 300
CONNECT_S = 5.0
_STEPS: tuple[SchemaMode, ...] = ("json_schema", "json_object", "prompt_only")
_TICKS_PER_USD = Decimal(10**10)
"""xAI bills in `cost_in_usd_ticks` (`llm-providers.md` 2.5)."""
_KEY_LIKE = re.compile(r"\b(?:sk|xai)-[\w*.-]{4,}|\bAIza[\w*-]{8,}|\bBearer\s+\S+", re.IGNORECASE)
_ABOUT_SCHEMA = re.compile(r"response_format|json_schema|json_object|schema|structured|grammar", re.IGNORECASE)


def redact(text: str, secret: str) -> str:
    """Remove the key, and whatever looks like one: providers echo keys, masked or whole, in their errors."""
    return _KEY_LIKE.sub("***", _without(text, secret))


def _without(text: str, secret: str) -> str:
    return text.replace(secret, "***") if secret else text


# Only what we read of a chat completion; all else is ignored.


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for the cached ones."""
    cost: Decimal | None = None
    """OpenRouter's bill, USD."""
    cost_in_usd_ticks: Decimal | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None


class OpenAICompatible:
    """Any server that speaks chat completions, through the `openai` SDK.

    `base_url` contains `/v1` where the server wants it. Made once, closed once. Constructing imports the SDK (about
    half a second): do it at the start, not in the loop. `on_step` hears when a server will not take a schema and one
    less is asked.
    """

    def __init__(
        self,
        spec: ProviderSpec,
        *,
        api_key: str,
        pricer: Pricer,
        base_url: str = "",
        model: str = "",
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
        self._secret = api_key
        self._pricer = pricer
        self._max_output_tokens = max_output_tokens
        self._clock = clock
        self._on_step = on_step
        self._client = AsyncOpenAI(
            api_key=api_key or "none",
            base_url=base_url or spec.base_url,
            max_retries=0,
            # Neither proxies of the environment nor a redirect may carry the key elsewhere.
            http_client=httpx2.AsyncClient(trust_env=False, follow_redirects=False),
        )
        # The SDK fills these from the environment; they belong to another account than the key may.
        self._client.organization = self._client.project = None
        self._completions = self._client.chat.completions.with_streaming_response

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline. A server's 400 to the schema is met by asking with less, once per step."""
        try:
            async with asyncio.timeout(deadline_s):
                body, mode = await self._ask_stepping_down(system, user, schema, deadline_s)
        except TimeoutError:
            raise ProviderError("timeout", f"no whole answer within {deadline_s:.1f} s") from None
        return self._read(body, mode)

    async def _ask_stepping_down(
        self, system: str, user: str, schema: dict[str, Any], deadline_s: float
    ) -> tuple[bytes, SchemaMode]:
        for mode in _STEPS[_STEPS.index(self.schema_mode) :]:
            try:
                body = await self._ask(system, user, schema, mode, deadline_s)
            except _SchemaRefused as refused:
                if mode == _STEPS[-1]:
                    raise ProviderError("bad_request", refused.detail) from None
                self._on_step(f"{self.provider} {self.model}: {mode} refused ({refused.detail}); asking with less")
                continue
            self.schema_mode = mode
            return body, mode
        raise AssertionError("the last step answers or raises")

    async def _ask(self, system: str, user: str, schema: dict[str, Any], mode: SchemaMode, deadline_s: float) -> bytes:
        import httpx2
        import openai

        try:
            async with self._completions.create(
                model=self.model,
                messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
                timeout=httpx2.Timeout(deadline_s, connect=min(CONNECT_S, deadline_s)),
                extra_body=self._extra(schema, mode),
            ) as response:
                return await self._bounded_body(response.iter_bytes())
        except openai.APITimeoutError:
            raise ProviderError("timeout", "the connection timed out") from None
        except openai.APIStatusError as error:
            raise self._refused(error, mode) from None
        except (openai.APIError, httpx2.HTTPError) as error:
            kind: Kind = "timeout" if isinstance(error, httpx2.TimeoutException) else "connection"
            raise ProviderError(kind, self._safe(_cause(error))) from None

    def _extra(self, schema: dict[str, Any], mode: SchemaMode) -> dict[str, Any]:
        """The part of the body that differs between servers."""
        body: dict[str, Any] = {self._spec.max_tokens_field: self._max_output_tokens, **self._spec.extra}
        if mode == "json_schema":
            named = {"name": "signals", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif mode == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def _bounded_body(self, chunks: Any) -> bytes:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ProviderError("malformed", f"the answer is longer than {MAX_BODY_BYTES} bytes")
        return bytes(body)

    def _read(self, body: bytes, mode: SchemaMode) -> Completion:
        try:
            reply = msgspec.json.decode(body, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = "an empty body" if not body.strip() else f"not a chat completion: {error}"
            raise ProviderError("malformed", self._safe(what)) from None
        if not reply.choices:
            raise ProviderError("malformed", "an answer without choices")
        first = reply.choices[0]
        usage, cost = self._priced(reply.usage or _Usage())
        return Completion(
            text=_without(first.message.content or first.message.refusal or "", self._secret),
            finish=_finish(first),
            usage=usage,
            cost_usd=cost.usd,
            price_source=cost.source,
            model=clean(reply.model or self.model, 80),
            schema_mode=mode,
        )

    def _priced(self, wire: _Usage) -> tuple[Usage, Cost]:
        cached = wire.prompt_tokens_details.cached_tokens if wire.prompt_tokens_details else None
        reasoned = wire.completion_tokens_details.reasoning_tokens if wire.completion_tokens_details else None
        usage = Usage(
            input=_count(wire.prompt_tokens),
            cached=_count(cached if cached is not None else wire.prompt_cache_hit_tokens),
            output=_count(wire.completion_tokens),
            reasoning=_count(reasoned),
        )
        billed = wire.cost
        if billed is None and wire.cost_in_usd_ticks is not None:
            billed = wire.cost_in_usd_ticks / _TICKS_PER_USD
        if billed is not None and not (billed.is_finite() and billed >= 0):
            billed = None
        return usage, self._pricer.cost(usage, billed, self._clock())

    def _refused(self, error: openai.APIStatusError, mode: SchemaMode) -> Exception:
        """An HTTP status -> our kinds (`llm-providers.md` 2.6)."""
        status = error.status_code
        detail = self._safe(f"HTTP {status}: {_message(error)}")
        asked_schema = mode != "prompt_only"
        if status in (400, 422) and asked_schema and (_ABOUT_SCHEMA.search(detail) or error.param == "response_format"):
            return _SchemaRefused(detail)
        return ProviderError(_kind(status, error.code), detail, _retry_after(error.response.headers.get("retry-after")))

    def _safe(self, text: str) -> str:
        return clean(redact(text, self._secret), MAX_DETAIL)


class _SchemaRefused(Exception):
    """The server answered 400 because of the response format."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def _kind(status: int, code: str | None) -> Kind:
    if status == 429:
        return "billing" if code in ("insufficient_quota", "billing_hard_limit_reached") else "rate_limit"
    if status >= 500:
        return "overload"
    named: dict[int, Kind] = {401: "auth", 403: "auth", 402: "billing", 408: "timeout"}
    return named.get(status, "bad_request")


def _finish(choice: _Choice) -> Finish:
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return "refusal"
    return "length" if choice.finish_reason == "length" else "stop"


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message


def _cause(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"


def _retry_after(header: str | None) -> float | None:
    """Seconds; a date form, or nonsense, is none."""
    if header is None or not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", header.strip()):
        return None
    return float(header)


def _count(tokens: int | None) -> int:
    return max(0, tokens or 0)
