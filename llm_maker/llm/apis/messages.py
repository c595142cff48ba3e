"""Anthropic's messages, structured or with a search of the web, through the `anthropic` SDK.

Owns that wire's bodies and the SDK's client: no retry, no rate limit, no budget, no reading of the answer. The SDK is imported when
a client is made, never before (it takes about a second). The key goes into the Authorization header and nowhere else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from llm_maker.llm.apis import faults
from llm_maker.llm.apis.native import NativeClient
from llm_maker.llm.apis.openai_sdk import count, wire_usage
from llm_maker.llm.budget import Usage
from llm_maker.llm.providers import Citation, Completion, Finish, Found, ProviderError, SchemaMode

if TYPE_CHECKING:
    import anthropic

MAX_SEARCHES = 2
"""In one call; each costs beside the tokens."""
_NO_MONEY = re.compile(r"spend_limit|billing|billable|on_hold|credit balance|usage limits?\b", re.IGNORECASE)
"""In an error's code or, where it has none, its words: an empty account is answered with a 400, a limit of spending with a 429."""
_FINISH: dict[str, Finish] = {
    "refusal": "refusal",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the server stopped amid its searches; the rest would be another call
}
_NULL = msgspec.Raw(b"null")


# Only what we read of a message; all else is ignored.


class _Cited(msgspec.Struct):
    url: str | None = None
    title: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    citations: list[_Cited] | None = None


class _Reply(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    model: str | None = None


class _Paid(msgspec.Struct):
    usage: msgspec.Raw = _NULL


class _Searched(msgspec.Struct):
    web_search_requests: int | None = None


class _Thought(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    """Without what the cache had or took in."""
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Thought | None = None
    server_tool_use: _Searched | None = None


class Messages(NativeClient):
    """Anthropic's messages; `base_url` is without `/v1`."""

    _reserved = frozenset(("model", "messages", "system", "stream"))
    _steps = ("json_schema", "prompt_only")
    _default_extra: ClassVar[dict[str, Any]] = {"output_config": {"effort": "low"}}
    # A field that is unknown as a whole takes both with it.
    _about_thinking = re.compile(r"effort|thinking|output_config(?!\.format)", re.IGNORECASE)
    _about_schema = re.compile(r"output_config|output_format|schema|structured|grammar", re.IGNORECASE)

    def _open(self) -> None:
        from anthropic import AsyncAnthropic

        # Key and address are given even when empty: the SDK would else look for both in the environment and in profiles on disk.
        self._client = AsyncAnthropic(
            api_key=self._secret or "none", base_url=self._base_url, max_retries=0, http_client=self._http, open_telemetry=False
        )
        # Filled from ANTHROPIC_CUSTOM_HEADERS, which may hold another key.
        self._client._custom_headers = {}
        self._messages = self._client.messages.with_streaming_response

    async def close(self) -> None:
        await self._client.close()
        await self._http.aclose()

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline. A 400 to the schema or the effort is met by asking without it."""

        async def send(mode: SchemaMode, effort: bool) -> bytes:
            return await self._send(system, user, self._rest(schema if mode == "json_schema" else None, effort), deadline_s)

        body, mode = await self._ask(send, deadline_s, schema=True)
        text, finish, usage, reply = self._read(body)
        return self._completion(text, finish, usage, reply.model, mode)

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        """One answer after at most two searches of the web; as text, for citations and a schema exclude each other."""
        self._must_search()
        tool = {
            "type": self._spec.search_tools[0],
            "name": "web_search",
            "max_uses": MAX_SEARCHES,
            # Else it is offered to the model's code, and models that run none answer 400.
            "allowed_callers": ["direct"],
        }

        async def send(mode: SchemaMode, effort: bool) -> bytes:
            return await self._send(system, user, {**self._rest(None, effort), "tools": [tool]}, deadline_s)

        body, _ = await self._ask(send, deadline_s, schema=False)
        text, finish, usage, reply = self._read(body)
        cited = (Citation(c.url or "", c.title or "") for block in reply.content or [] for c in block.citations or [])
        return self._found(text, cited, finish, usage, reply.model)

    def _rest(self, schema: dict[str, Any] | None, effort: bool) -> dict[str, Any]:
        """The part of the body that config and models differ in."""
        config = dict(self._extra.get("output_config", {}))
        if not effort:
            config.pop("effort", None)
        if schema is not None:
            config["format"] = {"type": "json_schema", "schema": schema}
        rest = {name: value for name, value in self._extra.items() if name != "output_config"}
        return {**rest, "output_config": config} if config else rest

    async def _send(self, system: str, user: str, rest: dict[str, Any], deadline_s: float) -> bytes:
        import anthropic
        import httpx2

        try:
            async with self._messages.create(
                model=self.model,
                max_tokens=self._max_output_tokens,
                system=[{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
                messages=[{"role": "user", "content": user}],
                timeout=faults.timeouts(deadline_s),
                extra_body=rest,
            ) as response:
                return await response.read()
        except anthropic.APIStatusError as error:
            raise self._refused(error) from None
        except (anthropic.APIError, httpx2.HTTPError, faults.BodyTooLong) as error:
            raise faults.broken(error, self._secret) from None
        except UnicodeEncodeError:
            raise ProviderError("bad_request", "the prompt holds a character that no text has (half of a surrogate pair)") from None

    def _refused(self, error: anthropic.APIStatusError) -> Exception:
        """An HTTP status -> our kinds (`llm-providers.md` 2.6)."""
        message = error.api_message if isinstance(error.api_message, str) else error.message
        fault = faults.refused(
            error.status_code,
            message,
            code=error.error_code,
            secret=self._secret,
            retry_after=error.response.headers.get("retry-after"),
            now_s=self._clock() / 1e9,
        )
        words = error.error_code or f"{error.type} {message if error.status_code == 400 else ''}"
        if _NO_MONEY.search(words):
            return ProviderError("billing", fault.detail, fault.retry_after_s)
        return self._less(fault, message) if error.status_code in (400, 422) and fault.kind == "bad_request" else fault

    def _read(self, body: bytes) -> tuple[str, Finish, Usage, _Reply]:
        """(the text blocks joined as they stand, for a citation cuts a sentence in the middle; how it ended; usage; the reply)."""
        usage = _usage_of(body)
        reply = self._decoded(body, _Reply, "a message", usage)
        if reply.content is None:
            raise self._malformed("an answer without content", usage)
        text = "".join(block.text or "" for block in reply.content if block.type == "text")
        return text, _FINISH.get(reply.stop_reason or "", "stop"), usage or Usage(), reply


def _usage_of(body: bytes) -> Usage | None:
    """What it tells of its usage, whatever became of the rest; None: nothing."""
    try:
        wire = wire_usage(bytes(msgspec.json.decode(body, type=_Paid).usage), _Usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if wire is None:
        return None
    read, written = count(wire.cache_read_input_tokens), count(wire.cache_creation_input_tokens)
    return Usage(
        input=count(wire.input_tokens) + read + written,
        cached=read,
        cache_write=written,
        output=count(wire.output_tokens),
        reasoning=count(wire.output_tokens_details.thinking_tokens if wire.output_tokens_details else None),
        searches=count(wire.server_tool_use.web_search_requests if wire.server_tool_use else None),
    )
