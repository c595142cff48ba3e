"""One stateless structured call to any server that speaks chat completions.

Owns the wire's two bodies; `openai_sdk.py` has the rest. No retry, no rate limit, no budget, no reading of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.llm.apis import faults
from llm_maker.llm.apis.openai_sdk import Bill, are_counts, count, merged, wire_usage
from llm_maker.llm.apis.responses import ResponsesClient
from llm_maker.llm.budget import Usage
from llm_maker.llm.providers import Completion, Finish, Found, ProviderError, SchemaMode

_BROKEN_OFF = ("error", "insufficient_system_resource")
"""OpenRouter's and DeepSeek's words for a server that failed while it wrote."""

# Only what we read of a chat completion; all else is ignored.


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Failure(msgspec.Struct):
    """OpenRouter's: what failed once its own 200 was on its way."""

    code: int | str | None = None
    message: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    finish_reason: str | None = None
    error: _Failure | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    error: _Failure | str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(Bill):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for the cached ones."""


class Chat(ResponsesClient):
    """Any server that speaks chat completions; `base_url` contains `/v1` where the server wants it."""

    _reserved = ("model", "stream", "messages", "response_format")

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline. A server's 400 to the schema is met by asking with less, once per step."""
        create = self._client.chat.completions.with_streaming_response.create
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]

        async def ask(mode: SchemaMode) -> bytes:
            limit: dict[str, Any] = {self._spec.max_tokens_field: self._max_output_tokens}
            extra_body = merged(limit, *self._extra, _format(schema, mode))
            return await self._body_of(create, {"model": self.model, "messages": messages, "extra_body": extra_body}, deadline_s)

        body, mode = await self._within(deadline_s, self._stepping_down(ask))
        return self._read(body, mode)

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        """Through the Responses API of the same server: xAI has no other search, and no other server of this wire has one."""
        return await self._search((), system, user, deadline_s)

    def _read(self, body: bytes, mode: SchemaMode) -> Completion:
        reply = self._decoded(body, _Reply, "a chat completion", lambda raw: _tokens(wire_usage(raw, _Usage)))
        wire = wire_usage(reply.usage, _Usage)
        usage = _tokens(wire)
        first = reply.choices[0] if reply.choices else _Choice()
        failure = reply.error or first.error
        if failure is not None:
            raise self._failed(failure, usage)
        if not reply.choices:
            raise ProviderError("malformed", "an answer without choices", maybe_billed=True, usage=usage)
        if first.finish_reason in _BROKEN_OFF:
            raise ProviderError("overload", f"the server broke off: {first.finish_reason}", usage=usage)
        cost = self._priced(usage or Usage(), wire or _Usage())
        return Completion(
            text=self._wrote(first.message.content or first.message.refusal or ""),
            finish=_finish(first),
            usage=usage or Usage(),
            cost_usd=cost.usd,
            price_source=cost.source,
            model=self._called(reply.model),
            schema_mode=mode,
        )

    def _failed(self, failure: _Failure | str, usage: Usage | None) -> ProviderError:
        told = _Failure(message=failure) if isinstance(failure, str) else failure
        status = told.code if isinstance(told.code, int) and 400 <= told.code < 600 else 500
        seen = faults.refused(status, told.message or "an error inside a 200", code=str(told.code), secret=self._secret)
        return ProviderError(seen.kind, seen.detail, usage=usage)


def _format(schema: dict[str, Any], mode: SchemaMode) -> dict[str, Any]:
    """The part of the body that says in what form to answer."""
    if mode == "json_schema":
        named = {"name": "signals", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {"response_format": {"type": "json_object"}} if mode == "json_object" else {}


def _finish(choice: _Choice) -> Finish:
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return "refusal"
    return "length" if choice.finish_reason == "length" else "stop"


def _tokens(wire: _Usage | None) -> Usage | None:
    if wire is None or not are_counts(wire.prompt_tokens, wire.completion_tokens):
        return None
    read = wire.prompt_tokens_details or _Cached()
    reasoned = wire.completion_tokens_details or _Reasoned()
    return Usage(
        input=count(wire.prompt_tokens),
        cached=count(read.cached_tokens if read.cached_tokens is not None else wire.prompt_cache_hit_tokens),
        cache_write=count(read.cache_write_tokens),
        output=count(wire.completion_tokens),
        reasoning=count(reasoned.reasoning_tokens),
    )
