"""Gemini's generateContent, structured or grounded in a search, through the `google-genai` SDK.

Owns that wire's bodies and the SDK's client: no retry, no rate limit, no budget, no reading of the answer. The SDK is imported when
a client is made, never before. The key goes into the x-goog-api-key header and nowhere else.
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
from llm_maker.llm.snapshot import clean

if TYPE_CHECKING:
    import httpx2
    from google.genai import errors

_PER_DAY = re.compile(r"per_?day|daily", re.IGNORECASE)
_SPENT = re.compile(r"\blimit: 0\b|credits? .{0,20}(deplet|exhaust)|spend(ing)?[ -](cap|limit)|enable billing", re.IGNORECASE)
"""A quota of nothing, no money left, or no more of it allowed: none of it passes with a minute's patience."""
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s", re.ASCII)
_FINISH: dict[str, Finish] = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # the rest would be another call
    "SAFETY": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "BLOCKLIST": "refusal",
    "SPII": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "ESCALATION": "refusal",
    "PUP_LIMITED_DISABLED": "refusal",
}
_BROKEN_OFF = re.compile(r"MALFORMED_\w+|UNEXPECTED_TOOL_CALL|TOO_MANY_TOOL_CALLS|MISSING_THOUGHT_SIGNATURE|OTHER")
_NULL = msgspec.Raw(b"null")


# Only what we read of a reply; all else is ignored.


class _Wire(msgspec.Struct, rename="camel"):
    pass


class _Part(_Wire):
    text: str | None = None
    thought: bool | None = None
    """A summary of the reasoning, not of the answer."""


class _Content(_Wire):
    parts: list[_Part] | None = None


class _Web(_Wire):
    uri: str | None = None
    title: str | None = None


class _Chunk(_Wire):
    web: _Web | None = None


class _Grounding(_Wire):
    grounding_chunks: list[_Chunk] | None = None
    web_search_queries: list[str] | None = None


class _Candidate(_Wire):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    grounding_metadata: _Grounding | None = None


class _Feedback(_Wire):
    block_reason: str | None = None


class _Reply(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    model_version: str | None = None


class _Paid(_Wire):
    usage_metadata: msgspec.Raw = _NULL


class _Usage(_Wire):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


# And of an error's details.


class _Violation(_Wire):
    quota_id: str = ""
    quota_value: str | int | None = None


class _Detail(_Wire):
    reason: str = ""
    retry_delay: str = ""
    violations: list[_Violation] = []


class _ErrorPage(Exception):
    """A refusal by status that is no JSON: a proxy's, mostly."""

    def __init__(self, status: int, text: str, retry_after: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.retry_after = retry_after


class Gemini(NativeClient):
    """Gemini's generateContent with a key of AI Studio; `base_url` is without the version."""

    _reserved = frozenset(("model", "contents", "systemInstruction", "tools"))
    _default_extra: ClassVar[dict[str, Any]] = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}
    _about_thinking = re.compile(r"thinking|thought", re.IGNORECASE)
    _about_schema = re.compile(r"schema|response_?(json|mime|format)|json mode|structured", re.IGNORECASE)

    def _open(self) -> None:
        from google import genai
        from google.genai.client import DebugConfig
        from google.genai.types import HttpOptions, HttpRetryOptions

        # All of it is given, even when empty: the SDK would else look into the environment for a key, an address, another
        # backend, and a folder to record into.
        self._client = genai.Client(
            vertexai=False,
            api_key=self._secret or "none",
            debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
            http_options=HttpOptions(
                base_url=self._base_url,
                api_version="v1beta",
                retry_options=HttpRetryOptions(attempts=1),
                # Else it takes aiohttp where that is installed, which fails with exceptions of its own.
                httpx_async_client=self._http,
            ),
        )
        self._http.event_hooks = {"request": [_connect_sooner], "response": [_keep_the_status]}

    async def close(self) -> None:
        await self._client.aio.aclose()
        self._client.close()
        await self._http.aclose()

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline. A 400 to the schema or the thinking is met by asking with less."""

        async def send(mode: SchemaMode, thinking: bool) -> bytes:
            form: dict[str, Any] = {} if mode == "prompt_only" else {"response_mime_type": "application/json"}
            if mode == "json_schema":
                form["response_json_schema"] = schema
            return await self._send(system, user, form, thinking, deadline_s)

        body, mode = await self._ask(send, deadline_s, schema=True)
        text, finish, usage, reply = self._read(body)
        return self._completion(text, finish, usage, reply.model_version, mode)

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        """One answer grounded in a search, as text."""
        self._must_search()

        async def send(mode: SchemaMode, thinking: bool) -> bytes:
            return await self._send(system, user, {"tools": [{self._spec.search_tools[0]: {}}]}, thinking, deadline_s)

        body, _ = await self._ask(send, deadline_s, schema=False)
        text, finish, usage, reply = self._read(body)
        chunks = [chunk.web for seen in _groundings(reply) for chunk in seen.grounding_chunks or [] if chunk.web]
        return self._found(text, (Citation(w.uri or "", w.title or "") for w in chunks), finish, usage, reply.model_version)

    async def _send(self, system: str, user: str, form: dict[str, Any], thinking: bool, deadline_s: float) -> bytes:
        import httpx2
        from google.genai import errors
        from google.genai.types import GenerateContentConfig

        generation = dict(self._extra.get("generationConfig", {}))
        if not thinking:
            generation.pop("thinkingConfig", None)
        config = {
            **form,
            "system_instruction": system,
            "max_output_tokens": self._max_output_tokens,
            # We read the reply ourselves: the SDK's reading fails in ways that lose usage.
            "should_return_http_response": True,
            # Either would make further calls behind our back.
            "automatic_function_calling": {"disable": True},
            "automatic_continuation": False,
            "http_options": {
                "timeout": max(1, round(deadline_s * 1_000)),
                "extra_body": {**self._extra, "generationConfig": generation},
            },
        }
        try:
            answer = await self._client.aio.models.generate_content(
                model=self.model, contents=user, config=GenerateContentConfig.model_validate(config)
            )
        except errors.APIError as error:
            raise self._refused(error) from None
        except (httpx2.HTTPError, faults.BodyTooLong) as error:
            raise faults.broken(error, self._secret) from None
        except _ErrorPage as page:
            raise self._answered(page.status, page.text, None, page.retry_after) from None
        raw = answer.sdk_http_response
        return (raw.body or "").encode() if raw else b""

    def _refused(self, error: errors.APIError) -> Exception:
        """An HTTP status, with Google's details, -> our kinds (`llm-providers.md` 2.6)."""
        message = error.message if isinstance(error.message, str) else ""
        details = _details(error.details)
        reasons = " ".join(filter(None, [str(error.status or ""), *(d.reason for d in details)]))
        fault = self._answered(
            error.code,
            f"{clean(reasons, 80)} {message}",
            # A 429 says "check your quota" of everything; only its details tell which.
            "" if error.code == 429 else f"{reasons} {message}",
            getattr(error.response, "headers", {}).get("retry-after"),
        )
        delay = fault.retry_after_s
        if delay is None:
            told = (_DURATION.fullmatch(d.retry_delay) for d in details)
            delay = next((faults.retry_after_s(match[1], 0.0) for match in told if match), None)
        if error.code in (400, 429) and _is_spent(message, details):
            return ProviderError("billing", fault.detail, delay)
        fault = ProviderError(fault.kind, fault.detail, delay)
        return self._less(fault, message) if error.code == 400 and fault.kind == "bad_request" else fault

    def _answered(self, status: int, message: str, code: str | None, retry_after: str | None) -> ProviderError:
        now_s = self._clock() / 1e9
        return faults.refused(status, message, code=code, secret=self._secret, retry_after=retry_after, now_s=now_s)

    def _read(self, body: bytes) -> tuple[str, Finish, Usage, _Reply]:
        """(the text without thoughts; how it ended; usage; the reply)."""
        usage = _usage_of(body)
        reply = self._decoded(body, _Reply, "an answer of generateContent", usage)
        searches = sum(len(seen.web_search_queries or []) for seen in _groundings(reply))
        told = msgspec.structs.replace(usage or Usage(), searches=searches)
        first = reply.candidates[0] if reply.candidates else None
        if first is None:
            if reply.prompt_feedback and reply.prompt_feedback.block_reason:
                return "", "refusal", told, reply
            raise self._malformed("an answer without candidates", told if usage else None)
        reason = first.finish_reason or ""
        if _BROKEN_OFF.fullmatch(reason):
            raise self._malformed(f"{reason} {first.finish_message or ''}", told if usage else None)
        parts = first.content.parts if first.content else None
        text = "".join(part.text or "" for part in parts or [] if not part.thought)
        return text, _FINISH.get(reason, "stop"), told, reply


async def _connect_sooner(request: httpx2.Request) -> None:
    """The SDK gives one number for all phases; with it, a call that never connected would look like one that was sent."""
    request.extensions["timeout"] = faults.timeouts(request.extensions["timeout"]["read"]).as_dict()


async def _keep_the_status(response: httpx2.Response) -> None:
    """The SDK stumbles over an error's page that is not UTF-8, or nests too deep, and its status is lost."""
    if response.is_success:
        return
    body = await response.aread()
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _ErrorPage(response.status_code, body.decode("utf-8", "replace"), response.headers.get("retry-after")) from None


def _usage_of(body: bytes) -> Usage | None:
    """What it tells of its tokens, whatever became of the rest; None: nothing."""
    try:
        wire = wire_usage(bytes(msgspec.json.decode(body, type=_Paid).usage_metadata), _Usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if wire is None:
        return None
    return Usage(
        input=count(wire.prompt_token_count) + count(wire.tool_use_prompt_token_count),
        cached=count(wire.cached_content_token_count),
        # Thoughts are beside the candidates' tokens, not among them.
        output=count(wire.candidates_token_count) + count(wire.thoughts_token_count),
        reasoning=count(wire.thoughts_token_count),
    )


def _groundings(reply: _Reply) -> list[_Grounding]:
    return [each.grounding_metadata for each in reply.candidates or [] if each.grounding_metadata]


def _details(body: Any) -> list[_Detail]:
    """The details of an error that have the form we know; the others are left out."""
    error = body.get("error") if isinstance(body, dict) else None
    listed = error.get("details") if isinstance(error, dict) else None
    found: list[_Detail] = []
    for raw in listed if isinstance(listed, list) else []:
        try:
            found.append(msgspec.convert(raw, _Detail))
        except msgspec.ValidationError:
            continue
    return found


def _is_spent(message: str, details: list[_Detail]) -> bool:
    """Whether waiting a minute will not help: a day's quota, a quota of nothing, or no money left."""
    violations = [v for d in details for v in d.violations]
    gone = any(_PER_DAY.search(v.quota_id) or str(v.quota_value) == "0" for v in violations)
    return gone or _SPENT.search(message) is not None
