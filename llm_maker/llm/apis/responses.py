"""One stateless structured call, or one search, through the Responses API: OpenAI's, and what xAI offers of it for searching.

Owns the wire's bodies; `openai_sdk.py` has the rest. No retry, no rate limit, no budget, no reading of the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_maker.llm.apis import faults
from llm_maker.llm.apis.openai_sdk import X_SEARCH, Bill, OpenAIClient, are_counts, count, merged, wire_usage
from llm_maker.llm.budget import Usage
from llm_maker.llm.providers import Citation, Completion, Finish, Found, Kind, ProviderError, SchemaMode
from llm_maker.llm.snapshot import clean

MAX_CITATIONS = 50
MAX_URL = 1_000
MAX_TITLE = 200
_SEARCH_COUNTS = ("web_search_calls", "x_search_calls")

# Only what we read of a response; all else is ignored.


class _Annotation(msgspec.Struct):
    type: str | None = None
    url: str | None = None
    title: str | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    annotations: list[_Annotation] | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    phase: str | None = None
    name: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")
    """Of a message, its parts; of other items whatever they like."""


class _Failure(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Why(msgspec.Struct):
    reason: str | None = None


class _Reply(msgspec.Struct):
    status: str | None = None
    error: _Failure | None = None
    incomplete_details: _Why | None = None
    output: list[_Item] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    citations: msgspec.Raw = msgspec.Raw(b"null")
    """xAI's: the addresses of all that it looked at."""
    model: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(Bill):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoned | None = None
    server_side_tool_usage_details: dict[str, int | None] | None = None


class _Answer(msgspec.Struct):
    text: str
    finish: Finish
    model: str
    citations: tuple[Citation, ...]
    searches: int
    usage: Usage
    bill: Bill


class ResponsesClient(OpenAIClient):
    """A client that can ask `/responses`."""

    async def _respond(self, system: str, user: str, body: dict[str, Any], deadline_s: float) -> bytes:
        create = self._client.responses.with_streaming_response.create
        request = {"model": self.model, "instructions": system, "input": user, "store": False, "extra_body": body}
        return await self._body_of(create, request, deadline_s)

    async def _search(self, extra: tuple[dict[str, Any], ...], system: str, user: str, deadline_s: float) -> Found:
        """The price of the searches is added to the tokens' unless the server names the whole bill."""
        tools = [{"type": tool} for tool in self._spec.search_tools if tool != X_SEARCH or self._x_search]
        if not tools:
            raise ProviderError("bad_request", f"{self.provider} cannot search")
        body = merged({"max_output_tokens": self._max_output_tokens}, *extra, {"tools": tools})
        answer = self._answer(await self._within(deadline_s, self._respond(system, user, body, deadline_s)))
        cost = self._priced(answer.usage, answer.bill, searches_usd=answer.searches * self._spec.search_usd)
        return Found(
            text=answer.text,
            citations=answer.citations,
            searches=answer.searches,
            finish=answer.finish,
            usage=answer.usage,
            cost_usd=cost.usd,
            price_source=cost.source,
            model=answer.model,
        )

    def _answer(self, body: bytes) -> _Answer:
        """What a whole body says; a failed or unreadable one is a ProviderError with its usage, where that can be read."""
        reply = self._decoded(body, _Reply, "a response", lambda raw: _tokens(wire_usage(raw, _Usage), 0))
        wire = wire_usage(reply.usage, _Usage)
        searches = _searches(wire, reply.output or [])
        usage = _tokens(wire, searches)
        if reply.status == "failed" or reply.error is not None:
            raise self._response_failed(reply.error or _Failure(), usage)
        if not reply.output or reply.status not in (None, "completed", "incomplete"):
            told = self._told(f"an answer without output (status {reply.status})")
            raise ProviderError("malformed", told, maybe_billed=True, usage=usage)
        parts = list(_parts(reply.output))
        refusal = next((part.refusal for part in parts if part.refusal), None)
        return _Answer(
            text=self._wrote("".join(part.text or "" for part in parts) or refusal or ""),
            finish="refusal" if refusal else _finish(reply),
            model=self._called(reply.model),
            citations=tuple(self._cited(parts, reply.citations)),
            searches=searches,
            usage=usage or Usage(searches=searches),
            bill=wire or _Usage(),
        )

    def _response_failed(self, failure: _Failure, usage: Usage | None) -> ProviderError:
        """A 200 whose status is failed; its codes are words."""
        code = failure.code or ""
        detail = self._told(f"the response failed: {code or 'no reason given'}: {failure.message or ''}")
        kind: Kind = "bad_request"
        if code in ("", "server_error", "vector_store_timeout"):
            kind = "overload"
        elif "policy" in code:
            kind = "refusal"
        elif "rate_limit" in code or "quota" in code:
            kind = faults.kind_of(429, code)
        return ProviderError(kind, detail, usage=usage)

    def _cited(self, parts: list[_Part], seen: msgspec.Raw) -> Iterator[Citation]:
        """What the text cites, then what was looked at beside; each address once, at most 50, none that is not plain."""
        try:
            looked_at = msgspec.json.decode(seen, type=list[str] | None) or []
        except (msgspec.DecodeError, UnicodeDecodeError):
            looked_at = []
        cited = [note for part in parts for note in part.annotations or [] if note.type == "url_citation"]
        titles: dict[str, str] = {}
        for url, title in [*((note.url or "", note.title or "") for note in cited), *((url, "") for url in looked_at)]:
            if url.startswith(("https://", "http://")) and url == clean(self._wrote(url), MAX_URL):
                titles.setdefault(url, clean(self._wrote(title), MAX_TITLE))
        for url in list(titles)[:MAX_CITATIONS]:
            yield Citation(url, titles[url])


class Responses(ResponsesClient):
    """OpenAI's models, or any server that speaks the Responses API; nothing is stored there."""

    _reserved = ("model", "stream", "input", "instructions", "store", "background")

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline. A server's 400 to the schema is met by asking with less, once per step."""
        # The same for the same instructions: the cycles of a day meet in one cache.
        cache_key = f"llm-maker-{hashlib.sha256(system.encode('utf-8', 'replace')).hexdigest()[:16]}"
        basics = {"max_output_tokens": self._max_output_tokens, "prompt_cache_key": cache_key}

        async def ask(mode: SchemaMode) -> bytes:
            return await self._respond(system, user, merged(basics, *self._extra, _format(schema, mode)), deadline_s)

        body, mode = await self._within(deadline_s, self._stepping_down(ask))
        answer = self._answer(body)
        cost = self._priced(answer.usage, answer.bill)
        return Completion(
            text=answer.text,
            finish=answer.finish,
            usage=answer.usage,
            cost_usd=cost.usd,
            price_source=cost.source,
            model=answer.model,
            schema_mode=mode,
        )

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        """One answer after looking on the web; ProviderError `bad_request` where the provider cannot."""
        return await self._search(self._extra, system, user, deadline_s)


def _format(schema: dict[str, Any], mode: SchemaMode) -> dict[str, Any]:
    """The part of the body that says in what form to answer."""
    if mode == "json_schema":
        return {"text": {"format": {"type": "json_schema", "name": "signals", "strict": True, "schema": schema}}}
    return {"text": {"format": {"type": "json_object"}}} if mode == "json_object" else {}


def _parts(output: list[_Item]) -> Iterator[_Part]:
    """Of the messages that are the answer; a commentary on the way to it is not."""
    for item in output:
        if item.type == "message" and item.phase != "commentary":
            try:
                parts = msgspec.json.decode(item.content, type=list[_Part] | None) or []
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            yield from (part for part in parts if part.type in ("output_text", "refusal"))


def _finish(reply: _Reply) -> Finish:
    if reply.status != "incomplete":
        return "stop"
    reason = reply.incomplete_details.reason if reply.incomplete_details else None
    return "refusal" if reason == "content_filter" else "length"


def _searches(wire: _Usage | None, output: list[_Item]) -> int:
    """As the server counts them; else as many as it shows."""
    details = wire.server_side_tool_usage_details if wire else None
    if details:
        return sum(count(details.get(name)) for name in _SEARCH_COUNTS)
    on_x = sum(item.type == "custom_tool_call" and (item.name or "").startswith("x_") for item in output)
    return on_x + sum(item.type == "web_search_call" for item in output)


def _tokens(wire: _Usage | None, searches: int) -> Usage | None:
    if wire is None or not are_counts(wire.input_tokens, wire.output_tokens):
        return None
    read = wire.input_tokens_details or _Cached()
    reasoned = wire.output_tokens_details or _Reasoned()
    return Usage(
        input=count(wire.input_tokens),
        cached=count(read.cached_tokens),
        cache_write=count(read.cache_write_tokens),
        output=count(wire.output_tokens),
        reasoning=count(reasoned.reasoning_tokens),
        searches=searches,
    )
