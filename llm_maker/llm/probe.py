"""Whether a model can be asked at all: one look at the table of the dead, then one tiny structured call, in one line with the cure.

For the start and the doctor. Owns the words; refuses to know a wire, and to ask twice.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

import msgspec

from llm_maker.llm.providers import Completion, Model, ProviderError, ProviderSpec, SchemaMode, replacement

Status = Literal["ok", "unknown_model", "retired", "auth", "billing", "unreachable", "no_schema", "failed"]

SYSTEM = 'You check a connection. Answer with JSON and nothing else, exactly like this example: {"ok": true}'
USER = 'Answer with the JSON {"ok": true}.'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")
_ABOUT_MODEL = re.compile(
    r"\bmodels?\b.*(?:not (?:exist|found|available)|not a valid model|decommissioned|deprecated|retired)"
    r"|(?:no such|unknown|invalid|unsupported) model|not a valid model|no endpoints found for|HTTP 404: model",
    re.IGNORECASE,
)
"""As OpenAI, xAI, DeepSeek, OpenRouter, Ollama, vLLM, Anthropic and Gemini say it."""
_STATUS: dict[str, Status] = {"auth": "auth", "billing": "billing", "timeout": "unreachable", "connection": "unreachable"}


class Probe(msgspec.Struct, frozen=True):
    """What came of it. `text` is for a person; `cost_usd` None: nobody knows, or nothing came back."""

    status: Status
    text: str
    latency_ms: int | None = None
    """None: nothing was sent, or nothing came back."""
    schema_mode: SchemaMode | None = None
    cost_usd: Decimal | None = None


class _Ok(msgspec.Struct):
    ok: bool


async def probe(
    model: Model, spec: ProviderSpec, deadline_s: float, *, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> Probe:
    """Ask for about twenty tokens, once and within the deadline; a name known to be retired is not asked."""
    newer = replacement(spec, model.model)
    if newer is not None:
        return Probe("retired", f"{spec.name}: {model.model} was retired; set llm.model: {newer}")
    began = monotonic_ns()
    try:
        async with asyncio.timeout(deadline_s):
            done = await model.complete(SYSTEM, USER, SCHEMA, deadline_s)
    except TimeoutError:
        return failed(spec, model.model, ProviderError("timeout", f"no answer within {deadline_s:.1f} s", maybe_billed=True))
    except ProviderError as error:
        return failed(spec, model.model, error)
    return answered(spec, model.model, done, (monotonic_ns() - began) // 1_000_000)


def answered(spec: ProviderSpec, model: str, done: Completion, latency_ms: int) -> Probe:
    """What a whole answer proves of a model."""
    who, status = f"{spec.name} {model}", _judged(done)
    if status == "ok":
        text = f"{who}: answers in {latency_ms} ms as {done.schema_mode}" + _told_name(model, done.model)
    elif done.finish == "length":
        text = f"{who}: the answer was cut off before its end; raise llm.max_output_tokens, or ask for less reasoning in extra"
    elif done.finish == "refusal":
        text = f"{who}: refused a harmless question; name another llm.model"
    else:
        text = f"{who}: does not answer in the form asked for ({done.schema_mode}); name another llm.model"
    return Probe(status, text, latency_ms, done.schema_mode, done.cost_usd)


def failed(spec: ProviderSpec, model: str, error: ProviderError) -> Probe:
    """What a failure means to a person, and what to do about it."""
    who, detail = f"{spec.name} {model}", error.detail
    if error.kind == "bad_request" and _ABOUT_MODEL.search(detail):
        instead = f"for example {spec.model}" if spec.model and spec.model != model else "one that this server has"
        return Probe("unknown_model", f"{who}: no such model for this key; set llm.model to {instead} ({detail})")
    return Probe(_STATUS.get(error.kind, "failed"), f"{who}: {_cure(spec, error)} ({detail})")


def _judged(done: Completion) -> Status:
    if done.finish != "stop":
        return "failed"
    try:
        msgspec.json.decode(_FENCE.sub("", done.text.strip()), type=_Ok)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "no_schema"
    return "ok"


def _told_name(asked: str, called: str) -> str:
    return "" if asked.rpartition("/")[2] in called else f" (it calls itself {called})"


def _cure(spec: ProviderSpec, error: ProviderError) -> str:
    """What is wrong and what to do, by kind."""
    key, where = spec.env_key or "the key", "look at llm.base_url"
    wait = f"; it says to wait {error.retry_after_s:.0f} s" if error.retry_after_s is not None else ""
    if error.kind == "rate_limit":
        # One user saw it, once (`llm-providers.md` 2.6).
        gone = "; a retired Gemini model has been seen to answer like that: check llm.model" if spec.name == "gemini" else ""
        return f"rate limit reached by this one call{wait}; try again later, or another key{gone}"
    return {
        "auth": f"the key is not accepted; check {key} in .env" + (f", made at {spec.key_url}" if spec.key_url else ""),
        "billing": "the account has no credit, or its quota is spent; top it up with the provider",
        "timeout": "no answer in time; is the server up, or llm.timeout_seconds too short?",
        "connection": f"cannot be reached; is {'the server running' if spec.local else 'the network up'}? Else {where}",
        "overload": f"the server is overloaded or failing{wait}; try again later, or name a reserve",
        "malformed": f"answers, but not as this API does; {where}",
        "refusal": "refused a harmless question; name another llm.model",
        "bad_request": f"will not take the request; {where} (most end in /v1) and at extra",
    }[error.kind]
