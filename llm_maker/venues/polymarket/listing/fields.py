"""One JSON object of Polymarket's listings, read field by field, each only as what it is asked for.

The listings are loose where the CLOB is strict (`polymarket.md` 2.1): a list may be JSON inside a string, a flag "false", a number
a float or a text, and anything null or "". So nothing is decoded before it is asked for, no number passes through a float, and a
field that is not what it should be is a `WireError` of that field alone. What a field means is not this file's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal, InvalidOperation

import msgspec

from llm_maker.venues.polymarket.numbers import WireError, units

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NOTHING = (b"null", b'""')
_FLAGS = {b"true": True, b'"true"': True, b"false": False, b'"false"': False}
_MAX_TEXT = 80
_MAX_POWER = 30
"""Of ten: a number beyond it is none of ours, and writing it out would be long."""


def time_ns(text: str, field: str) -> int:
    """ISO 8601 as the venue writes it, with a space or a T, "+00" or "Z" or a bare date; UTC where it does not say."""
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise WireError(field, "not an ISO 8601 time", text) from None
    since = (told if told.tzinfo else told.replace(tzinfo=UTC)) - _EPOCH
    ns = since // timedelta(microseconds=1) * 1000
    if not 0 <= ns < 1 << 63:
        raise WireError(field, "out of range", text)
    return ns


class Fields:
    """An object's fields; absent, null and "" are the same: nothing told."""

    def __init__(self, raw: bytes | msgspec.Raw, name: str = "object") -> None:
        try:
            self._held = _OBJECT.decode(raw)
        except _UNREADABLE:
            raise WireError(name, "not an object", bytes(raw)[:60].decode(errors="replace")) from None

    def raw(self, name: str) -> bytes | None:
        """The value as it was written, or None where nothing was told."""
        held = self._held.get(name)
        value = b"" if held is None else bytes(held)
        return None if not value or value in _NOTHING else value

    def has(self, name: str) -> bool:
        return self.raw(name) is not None

    def text(self, name: str) -> str:
        """A text, or a number's own text (ids come as either); "" where nothing was told."""
        raw = self.raw(name)
        if raw is None:
            return ""
        if raw[:1] != b'"':
            if raw[:1] in b"{[tf":
                raise WireError(name, "not a text", raw[:60].decode(errors="replace"))
            return raw.decode()
        try:
            return _TEXT.decode(raw)
        except _UNREADABLE:
            raise WireError(name, "not a text") from None

    def flag(self, name: str) -> bool | None:
        raw = self.raw(name)
        if raw is None:
            return None
        if raw not in _FLAGS:
            raise WireError(name, "neither true nor false", raw[:60].decode(errors="replace"))
        return _FLAGS[raw]

    def number(self, name: str) -> Decimal | None:
        text = self.text(name)
        if not text:
            return None
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise WireError(name, "not a number", text) from None
        if len(text) > _MAX_TEXT or not value.is_finite() or abs(value.adjusted()) > _MAX_POWER:
            raise WireError(name, "out of range", text)
        return value

    def units(self, name: str, decimals: int) -> int | None:
        """An exact integer of 10^-decimals: a tick, a size, a rate. A digit more than that is a fault."""
        value = self.number(name)
        return None if value is None else units(f"{value:f}", decimals, name)

    def about(self, name: str, decimals: int) -> int | None:
        """The integer of 10^-decimals at or below: a volume or a price that is only looked at."""
        value = self.number(name)
        if value is None:
            return None
        whole = int(value.scaleb(decimals).to_integral_value(rounding=ROUND_FLOOR))
        if abs(whole) >= 1 << 63:
            raise WireError(name, "out of range", self.text(name))
        return whole

    def time(self, name: str) -> int | None:
        text = self.text(name)
        return time_ns(text, name) if text else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or the JSON of one inside a string; () where nothing was told."""
        raw = self.raw(name)
        if raw is None:
            return ()
        try:
            return tuple(_TEXTS.decode(_TEXT.decode(raw) if raw[:1] == b'"' else raw))
        except _UNREADABLE:
            raise WireError(name, "not a list of texts", raw[:60].decode(errors="replace")) from None

    def raws(self, name: str) -> list[msgspec.Raw]:
        """The members of a list as they were written; [] where nothing was told."""
        raw = self.raw(name)
        try:
            return [] if raw is None else _RAWS.decode(raw)
        except _UNREADABLE:
            raise WireError(name, "not a list") from None

    def objects(self, name: str) -> list[Fields]:
        return [Fields(raw, name) for raw in self.raws(name)]

    def object(self, name: str) -> Fields | None:
        raw = self.raw(name)
        return None if raw is None else Fields(raw, name)
