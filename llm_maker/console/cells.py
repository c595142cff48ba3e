"""Text cells for terminals: cut, padded, and numbers as a person reads them. Pure.

Text that came from outside (a question, a venue's reason) is stripped of whatever could move a terminal's cursor.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size


def clean(text: str) -> str:
    """One line without control, escape or direction marks."""
    return "".join(c if c.isprintable() else " " for c in text)


def clip(text: str, width: int) -> str:
    """Exactly `width` cells; what is too long loses its end."""
    text = clean(text)
    if cell_len(text) > width > 2:
        text = set_cell_size(text, width - 2) + ".."
    return set_cell_size(text, width)


def clip_middle(text: str, width: int) -> str:
    """Exactly `width` cells; what is too long loses its middle, because markets often differ in their last word only."""
    text = clean(text)
    if cell_len(text) <= width or width < 8:
        return clip(text, width)
    tail = text[1 - width // 2 :]
    return set_cell_size(set_cell_size(text, max(0, width - 2 - cell_len(tail))) + ".." + tail, width)


def fit(text: str, width: int) -> str:
    """At least `width` cells; never shortened."""
    return text + " " * max(0, width - cell_len(text))


def price(value: float | None) -> str:
    """`0.42`, `0.4205`, `68000.12`; `-` where there is none."""
    if not value:
        return "-"
    if abs(value) >= 10:
        return f"{value:.2f}"
    whole, _, part = f"{value:.4f}".partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


def number(value: float) -> str:
    """A quantity without needless zeros."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def money(value: float, *, signed: bool = False) -> str:
    """`$1,234.50`; with a sign where it is a gain or a loss."""
    sign = "-" if round(value, 2) < 0 else "+" if signed else ""
    return f"{sign}${abs(value):,.2f}"


def age(seconds: float) -> str:
    """`45s`, `12m`, `3h`, `2d`."""
    for limit, unit, letter in ((100, 1, "s"), (6_000, 60, "m"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f}{letter}"
    return f"{seconds / 86_400:.0f}d"


def when(now_ns: int) -> str:
    """Market time, UTC, to the second."""
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if now_ns else "not yet"
