"""What every request must be, whatever came back: the right key in the right place, our shape, no secret, one attempt.

Pure. Each finding is one line for a person; knows no reply and no socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.fakes.models.asked import Seen
from tests.fakes.models.faults import REDIRECTED

_BANNED_KNOBS = {"temperature", "top_p", "top_k", "topP", "topK", "n", "stream", "search_parameters"}
_BANNED_WORDS = {
    "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
    "pattern", "format", "multipleOf", "$ref", "$defs", "nullable", "oneOf", "allOf", "uniqueItems",
}  # fmt: skip
_CAPS = {
    "responses": ("max_output_tokens",),
    "chat": ("max_tokens", "max_completion_tokens"),
    "messages": ("max_tokens",),
}


def violations(seen: Seen, raw: bytes, key: str | None, secrets: Sequence[str]) -> Iterator[str]:
    """Everything about one request that a provider or a careful reader would object to. `key` None: any will do."""
    yield from _key(seen, key)
    if seen.wire != "gemini" and seen.headers.get("x-stainless-retry-count") != "0":
        yield f"x-stainless-retry-count is {seen.headers.get('x-stainless-retry-count')!r}: the SDK retries"
    if REDIRECTED in seen.query:
        yield "a redirect was followed"
    for secret in {*secrets, key or "", seen.credential} - {"", "none"}:
        if secret.encode() in raw:
            yield "a secret stands in the body"
        if secret in seen.path or secret in seen.query:
            yield "a secret stands in the address"
    for secret in set(secrets) - {seen.credential}:
        if any(secret in value for value in seen.headers.values()):
            yield "a foreign secret stands in a header"
    yield from _shape(seen)
    if seen.schema is not None:
        yield from (f"schema: {finding}" for finding in _open_objects(seen.schema, "$"))


def _key(seen: Seen, key: str | None) -> Iterator[str]:
    named = "x-goog-api-key" if seen.wire == "gemini" else "authorization"
    value = seen.headers.get(named, "")
    if seen.wire == "messages" and not value:
        named, value = "x-api-key", seen.headers.get("x-api-key", "")
    if not value:
        yield f"no key in {named}"
    elif named == "authorization" and not value.startswith("Bearer "):
        yield "the key is not a bearer token"
    if key is not None and seen.credential != key:
        yield "another key than the test's"


def _shape(seen: Seen) -> Iterator[str]:
    body = seen.body
    config = body.get("generationConfig", {}) if seen.wire == "gemini" else body
    for knob in sorted(_BANNED_KNOBS & set(config)):
        if config[knob] is not False:
            yield f"{knob} is sent"
    caps = ("maxOutputTokens",) if seen.wire == "gemini" else _CAPS[seen.wire]
    if not any(isinstance(config.get(cap), int) for cap in caps):
        yield f"no limit of the answer ({' or '.join(caps)})"
    if seen.wire != "gemini" and not seen.model:
        yield "no model"
    if not seen.user:
        yield "nothing is asked"
    if not seen.system:
        yield "no system prompt"
    if seen.schema_mode == "json_object" and seen.wire != "gemini" and "json" not in (seen.system + seen.user).lower():
        yield "json_object without the word JSON in the prompt"
    yield from {"responses": _responses, "chat": _chat, "messages": _messages, "gemini": _gemini}[seen.wire](seen)


def _responses(seen: Seen) -> Iterator[str]:
    if seen.body.get("store") is not False:
        yield "store is not false"
    wanted = seen.body["text"]["format"] if seen.schema_mode == "json_schema" else None
    if wanted is not None and not (wanted.get("strict") is True and wanted.get("name")):
        yield "text.format is not strict or has no name"


def _chat(seen: Seen) -> Iterator[str]:
    if seen.schema_mode == "json_schema":
        named = seen.body["response_format"].get("json_schema") or {}
        if not (named.get("strict") is True and named.get("name")):
            yield "response_format is not strict or has no name"


def _messages(seen: Seen) -> Iterator[str]:
    if not seen.headers.get("anthropic-version"):
        yield "no anthropic-version header"
    if any(turn.get("role") != "user" for turn in seen.body.get("messages", [])):
        yield "a turn that is not the user's"


def _gemini(seen: Seen) -> Iterator[str]:
    if any(turn.get("role") != "user" for turn in seen.body.get("contents", [])):
        yield "a turn that is not the user's"
    config = seen.body.get("generationConfig", {})
    if seen.schema is not None and config.get("responseMimeType") != "application/json":
        yield "a schema without responseMimeType application/json"


def _open_objects(schema: Any, at: str) -> Iterator[str]:
    """Where a schema leaves the strictest common subset (`llm-providers.md` 2.2)."""
    if isinstance(schema, list):
        for i, each in enumerate(schema):
            yield from _open_objects(each, f"{at}[{i}]")
        return
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield f"{at} is not closed"
        if sorted(schema.get("required", [])) != sorted(properties or {}):
            yield f"{at} does not require every property"
    if isinstance(schema.get("type"), list):
        yield f"{at} has several types"
    for word in sorted(_BANNED_WORDS & set(schema)):
        yield f"{at} says {word}"
    for name, each in (properties or {}).items():
        yield from _open_objects(each, f"{at}.{name}")
    for word in ("items", "anyOf"):
        if word in schema:
            yield from _open_objects(schema[word], f"{at}.{word}")
