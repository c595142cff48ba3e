"""Every way in which a model server misbehaves, by name; and a refusal by status in each wire's own format and headers.

Owns the table of steps. Knows no socket and no script.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec

from tests.fakes.models.asked import Seen, Wire
from tests.fakes.models.texts import SPOKEN
from tests.fakes.models.wires import Ended


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do with one request; what `value` means depends on the step (`--help` has the list)."""

    name: str
    value: str = ""

    def __post_init__(self) -> None:
        if self.name not in STEPS:
            raise ValueError(f"no such step: {self.name!r}; there are {', '.join(STEPS)}")


@functools.lru_cache(1024)
def step_of(text: str) -> Step:
    """`429=30` -> the step 429 with the value 30."""
    name, _, value = text.partition("=")
    return Step(name, value)


ENDED: dict[str, Ended] = {
    "truncated": "length",  # two thirds of the text
    "truncated_empty": "length",  # all went into thinking
    "context_window": "window",
    "refusal": "refusal",  # =REASON: the wire's own word
    "filtered": "filtered",  # a content filter; on Gemini the prompt is blocked and there is no candidate
    "malformed_response": "malformed",  # Gemini's finish reason; elsewhere nonsense that ends as it should
    "failed": "failed",  # 200, and the wire says that it did not work
}
SHAPED = (
    "text",  # =TEXT: that text
    "thinking",  # thoughts beside the text
    "split",  # the text in two pieces
    "no_choices",
    "no_usage",
    "bad_usage",
    "hit_tokens",  # DeepSeek's names of the cache counters
    "billed",  # =USD: OpenRouter's usage.cost
    "ticks",  # =TICKS: xAI's usage.cost_in_usd_ticks
    "no_citations",
    "no_search",
)
BODIES: dict[str, tuple[str, bytes]] = {
    "empty_body": ("application/json", b""),
    "html": ("text/html", b"<html><body>Bad gateway</body></html>"),
    "not_completion": ("application/json", b'{"hello": [1, 2'),
    "wrong_object": ("application/json", b'{"hello": "world"}'),
    "list_body": ("application/json", b"[]"),
    "null_body": ("application/json", b"null"),
    "bad_utf8": ("application/json", b'{"id": "\xff\xfe'),
    "error_200": ("application/json", b'{"error": {"code": 502, "message": "Provider returned error"}}'),
}
LINE = (
    "slow",  # =SECONDS, then ok
    "hang",  # =SECONDS of nothing
    "drip",  # =SECONDS, a byte at a time
    "reset",  # cut in the middle of the body
    "no_reply",  # cut before the first byte
    "huge",  # ten megabytes of blanks
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    message: str
    openai: str | None = None
    """OpenAI's `code`."""
    anthropic: str = "api_error"
    """Anthropic's `type`."""
    google: str = "UNKNOWN"
    """Google's `status`."""
    detail: str = ""
    """Anthropic's `details.error_code`."""


_BAD, _ANT_BAD, _INVALID = 400, "invalid_request_error", "INVALID_ARGUMENT"
_RATE = _Refusal(429, "slow down", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED")
_QUOTA = "You exceeded your current quota, please check your plan and billing details"
ERRORS: dict[str, _Refusal] = {
    "400": _Refusal(_BAD, "context length exceeded", "context_length_exceeded", _ANT_BAD, _INVALID),
    "400_hold": _Refusal(
        _BAD, "the organization is on hold", "billing_not_active", _ANT_BAD, "FAILED_PRECONDITION", "organization_on_hold"
    ),
    "schema_400": _Refusal(
        _BAD, "This response_format type is unavailable now: json_schema", "invalid_request_error", _ANT_BAD, _INVALID
    ),
    "object_400": _Refusal(_BAD, "'response_format.type' must be 'text'", None, _ANT_BAD, _INVALID),
    # Google and xAI say 400 to a wrong key; Anthropic does not.
    "key_400": _Refusal(_BAD, "API key not valid. Please pass a valid API key: KEY", None, "authentication_error", _INVALID),
    "401": _Refusal(401, "Incorrect API key provided: KEY", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "401_text": _Refusal(401, "Authentication Fails for KEY"),  # not JSON at all
    "402": _Refusal(
        402, "Insufficient Balance", None, "billing_error", "FAILED_PRECONDITION", "linked_organization_billing_unavailable"
    ),
    "403": _Refusal(403, "not for this key", None, "permission_error", "PERMISSION_DENIED"),
    "404": _Refusal(404, "no such model", "model_not_found", "not_found_error", "NOT_FOUND"),
    "408": _Refusal(408, "took too long", None, "timeout_error", "DEADLINE_EXCEEDED"),
    "409": _Refusal(409, "conflict", None, "conflict_error", "ABORTED"),
    "410": _Refusal(410, "Live search is deprecated: use the web_search tool", None, _ANT_BAD, "NOT_FOUND"),
    "413": _Refusal(413, "too long", None, "request_too_large", _INVALID),
    "422": _Refusal(422, "cannot be processed", None, _ANT_BAD, _INVALID),
    "429": _RATE,
    "429_body": _RATE,  # the delay in Gemini's body only, elsewhere none
    "429_date": _RATE,  # the delay as a date
    "429_minute": _RATE,  # Gemini's quota of a minute, which is a rate
    "429_quota": _Refusal(
        429, _QUOTA, "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", "enforced_spend_limit_reached"
    ),
    "500": _Refusal(500, "internal error", None, "api_error", "INTERNAL"),
    "502": _Refusal(502, "<html><body>Bad gateway</body></html>"),
    "503": _Refusal(503, "overloaded", None, "overloaded_error", "UNAVAILABLE"),
    "504": _Refusal(504, "deadline expired", None, "timeout_error", "DEADLINE_EXCEEDED"),
    "529": _Refusal(529, "overloaded", None, "overloaded_error", "UNAVAILABLE"),
    "307": _Refusal(307, "moved"),
}
"""Statuses. A value is the delay to tell, in seconds: `429=30`, `503=2`; 429 and 503 tell the server's own without one."""
STEPS: tuple[str, ...] = (*SPOKEN, *ENDED, *SHAPED, *BODIES, *ERRORS, *LINE)
REDIRECTED = "redirected=1"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    status: int
    headers: dict[str, str]
    body: bytes
    content_type: str = "application/json"


def error_reply(step: Step, seen: Seen, retry_after: str, root: str) -> ErrorReply:
    """The refusal as the wire says it. Providers echo keys in their errors: so does this one."""
    refusal = ERRORS[step.name]
    status, message = refusal.status, refusal.message.replace("KEY", seen.credential)
    if step.name == "key_400" and seen.wire == "messages":
        status = 401
    delay = step.value or (retry_after if status in (429, 503) else "")
    headers = {"x-request-id": "req_fake", "request-id": "req_fake"}
    if status == 307:
        headers["Location"] = f"{root}{seen.path}?{REDIRECTED}"
    elif delay and step.name == "429_date":
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=float(delay)), usegmt=True)
    elif delay and step.name != "429_body":
        headers["Retry-After"] = delay
    if status in (429, 500, 503, 529):
        headers["x-should-retry"] = "true"  # what an SDK left to itself would obey
    if step.name in ("401_text", "502"):
        return ErrorReply(status, headers, message.encode(), "text/html" if status == 502 else "text/plain")
    body = msgspec.json.encode(_body(step, refusal, seen.wire, message, status, delay))
    return ErrorReply(status, headers, body)


def _body(step: Step, refusal: _Refusal, wire: Wire, message: str, status: int, delay: str) -> dict[str, Any]:
    if wire == "messages":
        said: dict[str, Any] = {"type": refusal.anthropic, "message": message}
        if refusal.detail:
            said["details"] = {"error_code": refusal.detail}
        return {"type": "error", "error": said, "request_id": "req_fake"}
    if wire == "gemini":
        said = {"code": status, "message": message, "status": refusal.google, "details": _google_details(step, delay)}
        return {"error": said}
    if step.name == "key_400":  # xAI's form: `error` is a text
        return {"code": "Client specified an invalid argument", "error": message.replace("API key not valid", "Incorrect API key")}
    param = "response_format" if step.name in ("schema_400", "object_400") and wire == "chat" else None
    kind = "insufficient_quota" if step.name == "429_quota" else "fake_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": refusal.openai}}


def _google_details(step: Step, delay: str) -> list[dict[str, Any]]:
    types = "type.googleapis.com/google.rpc."
    details: list[dict[str, Any]] = []
    if step.name == "key_400":
        domain = "googleapis.com"
        details.append({"@type": f"{types}ErrorInfo", "reason": "API_KEY_INVALID", "domain": domain, "metadata": {}})
    if step.name in ("429_quota", "429_minute"):
        per = "Day" if step.name == "429_quota" else "Minute"
        quota = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier",
            "quotaValue": "20",
        }
        details.append({"@type": f"{types}QuotaFailure", "violations": [quota]})
    if delay and step.name.startswith(("429", "503")) and step.name != "429_date":
        details.append({"@type": f"{types}RetryInfo", "retryDelay": f"{delay}s"})
    return details
