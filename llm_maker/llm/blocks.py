"""How much of the prompt a text takes and how it is cut: an estimate of tokens, the fence's two characters, the budgets.

Pure. Knows no market, no model and no tokenizer.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

OPEN, CLOSE = "⟦", "⟧"
"""Around everything that strangers wrote."""
_ELLIPSIS = "…"
_PER_TOKEN = 4
"""Weights are counted in quarters of a token, so that sums are exact."""
_LETTER, _SIGN, _BYTE = 1, 4, 2
_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123)) + b" "
_ASCII = bytes(range(128))


class BlockBudget(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens the values of one market may take, by part; 0 leaves the part out. `question`: outcomes and category too."""

    question: int = 120
    rules: int = 250
    news: int = 300
    past: int = 150
    market: int = 380


def tokens(text: str) -> int:
    """How many tokens a text takes, estimated high: a letter a quarter, a digit or sign a whole one, else half a byte's worth.

    Providers cut differently and their tables are large, so none is asked. English words take 4 to 5 letters a token in
    all of them; some give each digit a token of its own; other scripts take 2 to 4 bytes a token, counted as 2. Only
    letters in no order take more than this, four times at the worst.
    """
    return -(-_weight(text) // _PER_TOKEN)


def fit(text: str, budget: int) -> str:
    """The text, or as much of it as fits into `budget` tokens, cut at a word, with an ellipsis; a fence it cuts open it closes."""
    if tokens(text) <= budget:
        return text
    tail = _ELLIPSIS + CLOSE if OPEN in text else _ELLIPSIS
    room = _PER_TOKEN * budget - _weight(tail)
    if room <= 0:
        return ""
    reach = text[: room + 1]  # no character weighs less than 1
    at = bisect_right(range(1, len(reach) + 1), room, key=lambda count: _weight(reach[:count]))
    head = reach[:at]
    if not reach[at : at + 1].isspace():
        words = head.rsplit(None, 1)
        # A word longer than half of the room is cut in its middle: else little would be left.
        head = words[0] if len(words) == 2 and 2 * len(words[0]) >= at else head
    head = head.rstrip()
    if not head:
        return ""
    return head + _ELLIPSIS + (CLOSE if head.count(OPEN) > head.count(CLOSE) else "")


def _weight(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    letters = len(data) - len(data.translate(None, _LETTERS))
    foreign = len(data.translate(None, _ASCII))
    return _LETTER * letters + _SIGN * (len(data) - letters - foreign) + _BYTE * foreign
