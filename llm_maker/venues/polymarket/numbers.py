"""Polymarket's numbers: decimal text becomes integer units exactly, and back; the tick among them.

No float, sign, exponent or rounding is accepted. It refuses to know which message a text stood in: a fault names the field it was
asked for, and the text.
"""

from __future__ import annotations

from decimal import Decimal

from llm_maker.core.values import FixedGrid

PRICE_DECIMALS = 4
QTY_DECIMALS = 6
PAYOUT = 10_000
_MAX_DIGITS = 40
_MAX_UNITS = (1 << 63) - 1
"""What a journal can hold."""
MAX_NAME = 120
"""Characters of a text, or of a fault's name, that are kept."""


class WireError(ValueError):
    """A text that is not what the venue's rules say: which field, what is wrong, and the text itself."""

    def __init__(self, field: str, what: str, text: str = "") -> None:
        super().__init__(f"{field}: {what}" + (f": {text[:MAX_NAME]!r}" if text else ""))
        self.field, self.what, self.text = field, what, text

    @property
    def name(self) -> str:
        """Without the text: what faults are counted under."""
        return f"{self.field}: {self.what}"


def units(text: str, decimals: int, field: str) -> int:
    """Plain decimal text -> an integer of 10^-decimals, exactly; no sign, exponent, float or rounding.

    "0.46" at 4 decimals is 4600. Trailing zeros beyond the unit are exact and pass; any other digit there is an error.
    """
    whole, _, part = text.partition(".")
    digits = whole + part
    if len(text) > _MAX_DIGITS or not (digits.isascii() and digits.isdecimal()):
        raise WireError(field, "not a plain decimal", text)
    if len(part) > decimals:
        part = part.rstrip("0")
        if len(part) > decimals:
            raise WireError(field, f"more than {decimals} decimals", text)
    value = int("0" + whole + part + "0" * (decimals - len(part)))
    if value > _MAX_UNITS:
        raise WireError(field, "out of range", text)
    return value


def tick_grid(field: str, text: str) -> FixedGrid:
    """A tick's text -> the grid of a market; it must divide the payout."""
    step = units(text, PRICE_DECIMALS, field)
    if step == 0 or PAYOUT % step:
        raise WireError(field, "not a tick", text)
    return FixedGrid(step)


def text_of(value: int, decimals: int) -> str:
    """The inverse of `units`, without trailing zeros."""
    return f"{Decimal(value).scaleb(-decimals).normalize():f}"
