"""The answer: the JSON schema that asks for it, and a model's text -> checked signals or one named failure, never an exception.

Pure. Tolerated, because models do it: prose and code fences around the JSON, a bare list instead of `{"signals":
[...]}`, a single signal object alone, words in other case, `null` or absent probabilities, evidence as a list. Not
tolerated: two answers in one text, a document that ends too early, duplicate keys, numbers out of range, a market that
was not asked about. A bad signal is refused alone; the good ones beside it stand. Shares of the capital are read only where
they were asked for, and scaled to a sum of 1. Knows no provider, price or order.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec.structs import replace
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.commands import MarketBrief
from llm_maker.core.values import Kind
from llm_maker.llm.snapshot import clean

MAX_CHARS = 200_000
MAX_ENTRIES = 400
"""Twice what one request may ask about; more than that is not an answer."""
MAX_PROSE = 600
MAX_DETAIL = 200
_MAX_DIGITS = 30
_SHARE_SLACK = 1e-9
"""Thirds and tenths do not add up to 1 exactly."""
_MAX_STARTS = 50
"""Places in the surrounding prose where the JSON is looked for."""

_NUMBER_OR_NULL: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
_FIELDS: dict[str, Any] = {
    "market_id": {"type": "string"},
    # Fields are generated in this order: what is believed comes before what is advised.
    "evidence": {"type": "string"},
    "p_yes": _NUMBER_OR_NULL,
    "p_low": _NUMBER_OR_NULL,
    "p_high": _NUMBER_OR_NULL,
    "action": {"type": "string", "enum": list(map(str, Action))},
    "confidence": {"type": "number"},
    "reasoning": {"type": "string"},
    "directional_bias": {"type": "string", "enum": list(map(str, Bias))},
    "risk_level": {"type": "string", "enum": list(map(str, Grade))},
    "priority": {"type": "string", "enum": list(map(str, Grade))},
}

FailureReason = Literal["malformed", "truncated", "refusal", "empty"]


class Failure(msgspec.Struct, frozen=True):
    """No usable answer, and why."""

    reason: FailureReason
    detail: str


class Answer(msgspec.Struct, frozen=True):
    """At least one valid signal; `invalid` holds a reason for each refused one. `scaled`: the shares summed to more than 1."""

    signals: tuple[Signal, ...]
    invalid: tuple[str, ...] = ()
    scaled: bool = False


def schema_of(*, portfolio: bool) -> dict[str, Any]:
    """What asks for the answer, in the strictest common subset: closed objects, all required, null by anyOf, no bounds."""
    fields = _FIELDS | ({"share": _NUMBER_OR_NULL} if portfolio else {})
    return _closed({"signals": {"type": "array", "items": _closed(fields)}})


def _closed(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def decision_id(request_id: str) -> str:
    """One decision per request: the same id in a replay."""
    return f"D-{request_id}"


def parse(
    text: str | bytes, handles: Mapping[str, MarketBrief], finish: str = "stop", *, portfolio: bool = False
) -> Answer | Failure:
    """Check a whole answer. `handles` are those of the question, `finish` is the provider's stop reason."""
    if finish == "refusal":
        return Failure("refusal", _short(text))
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    if len(text) > MAX_CHARS:
        return Failure("malformed", f"{len(text)} characters, at most {MAX_CHARS} are read")
    if not text.strip():
        return Failure("truncated" if finish == "length" else "empty", "no text")
    entries = _entries(text)
    if isinstance(entries, Failure):
        cut = finish == "length" and entries.reason == "malformed"
        return Failure("truncated", entries.detail) if cut else entries
    return _check(entries, handles, _RawShare if portfolio else _RawSignal)


def _check(entries: list[Any], handles: Mapping[str, MarketBrief], form: type[_RawSignal]) -> Answer | Failure:
    if not entries:
        return Failure("empty", "no signals")
    if len(entries) > MAX_ENTRIES:
        return Failure("malformed", f"{len(entries)} signals for {len(handles)} markets")
    read = [_read(entry, handles, form) for entry in entries]
    named = Counter(_handle(entry) for entry in entries)
    signals: list[Signal] = []
    invalid: list[str] = []
    for entry, result in zip(entries, read, strict=True):
        if isinstance(result, str):
            invalid.append(result)
        elif named[_handle(entry)] > 1:
            invalid.append(f"{_handle(entry)}: named {named[_handle(entry)]} times")
        else:
            signals.append(result)
    if not signals:
        return Failure("malformed", clean("no valid signal: " + "; ".join(invalid[:3]), MAX_DETAIL))
    total = math.fsum(signal.share or 0.0 for signal in signals)
    if total > 1.0 + _SHARE_SLACK:
        scaled = (signal if signal.share is None else replace(signal, share=signal.share / total) for signal in signals)
        return Answer(tuple(scaled), tuple(invalid), scaled=True)
    return Answer(tuple(signals), tuple(invalid))


# Text -> JSON.


class _Duplicate:
    """Stands for an object that named one key twice: which value was meant is not known."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Duplicate:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Duplicate()


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float("inf")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _entries(text: str) -> list[Any] | Failure:
    """The list of raw signals: the one JSON document in the text that can be an answer."""
    found: list[list[Any]] = []
    at, detail = 0, "no JSON in the text"
    for _ in range(_MAX_STARTS):
        at = _next_start(text, at)
        if at < 0:
            break
        try:
            document, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if found:
                break
            if _ran_out(text, error):
                return Failure("truncated", f"the JSON ends too early: {error.msg}")
            # Go on behind the damage: what stood whole inside a damaged document is not an answer.
            detail, at = f"{error.msg} at character {error.pos}", max(error.pos, at + 1)
            continue
        except RecursionError:
            return Failure("malformed", "nested too deep")
        entries = _as_entries(document)
        if entries is not None:
            found.append(entries)
    filled = [entries for entries in found if entries]  # an empty pair of brackets in the prose is not an answer
    if len(filled) > 1:
        return Failure("malformed", f"{len(filled)} answers in one text")
    found = filled or found
    return found[0] if found else Failure("malformed", clean(detail, MAX_DETAIL))


def _next_start(text: str, at: int) -> int:
    places = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(places, default=-1)


def _ran_out(text: str, error: json.JSONDecodeError) -> bool:
    """Whether more text could have made it whole: a string without its end is reported at its start."""
    return error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")


def _as_entries(document: Any) -> list[Any] | None:
    if isinstance(document, dict):
        if "signals" in document:
            signals = document["signals"]
            return signals if isinstance(signals, list) else None
        return [document] if "market_id" in document or "handle" in document else None
    if isinstance(document, list) and all(isinstance(entry, dict | _Duplicate) for entry in document):
        return document
    return None


# JSON -> signal.


def _folded(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _joined(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "; ".join(value)
    return value


_Prose = Annotated[str, BeforeValidator(_joined)]
_Probability = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False, strict=True)]


class _RawSignal(BaseModel):
    """One signal as a model writes it; fields it adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    market_id: str = Field(validation_alias=AliasChoices("market_id", "handle"))
    action: Annotated[Action, BeforeValidator(_folded)]
    confidence: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)]
    directional_bias: Annotated[Bias, BeforeValidator(_folded)]
    risk_level: Annotated[Grade, BeforeValidator(_folded)] = Grade.MEDIUM
    priority: Annotated[Grade, BeforeValidator(_folded)] = Grade.MEDIUM
    p_yes: _Probability | None = None
    p_low: _Probability | None = None
    p_high: _Probability | None = None
    reasoning: _Prose = ""
    evidence: _Prose = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        known = [p for p in (self.p_low, self.p_yes, self.p_high) if p is not None]
        if self.p_yes is None and known:
            raise ValueError("an interval without p_yes")
        if known != sorted(known):
            raise ValueError("not p_low <= p_yes <= p_high")
        return self


class _RawShare(_RawSignal):
    """One of a whole portfolio's signals: it may say what part of the capital it is worth."""

    share: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)] | None = None


def _handle(entry: Any) -> str:
    """The handle an entry names, in its one spelling; empty if it names none."""
    if not isinstance(entry, dict):
        return ""
    named = entry.get("market_id", entry.get("handle"))
    return named.strip().strip("[]").upper() if isinstance(named, str) else ""


def _read(entry: Any, handles: Mapping[str, MarketBrief], form: type[_RawSignal]) -> Signal | str:
    """A signal under its real market id, or why there is none."""
    if isinstance(entry, _Duplicate):
        return "an object with a duplicate key"
    if not isinstance(entry, dict):
        return "not an object"
    handle = _handle(entry)
    market = handles.get(handle)
    if market is None:
        return f"unknown handle {clean(handle, 40)!r}"
    try:
        raw = form.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{handle}: {clean('.'.join(map(str, first['loc'])) + ' ' + first['msg'], MAX_DETAIL)}"
    binary = market.kind == Kind.BINARY
    share = raw.share if isinstance(raw, _RawShare) else None
    return Signal(
        market_id=market.market_id,
        action=raw.action,
        confidence=raw.confidence + 0.0,  # minus zero is zero
        directional_bias=raw.directional_bias,
        risk_level=raw.risk_level,
        priority=raw.priority,
        # A probability has no meaning where nothing pays out: log-odds against a log price would be nonsense.
        p_yes=raw.p_yes if binary else None,
        p_low=raw.p_low if binary else None,
        p_high=raw.p_high if binary else None,
        reasoning=clean(raw.reasoning, MAX_PROSE),
        evidence=clean(raw.evidence, MAX_PROSE),
        share=None if share is None else share + 0.0,
    )


def _short(text: str | bytes) -> str:
    head = text[:1000]
    return clean(head.decode("utf-8", errors="replace") if isinstance(head, bytes) else head, MAX_DETAIL)
