"""The market table of `top`: which columns a width has room for, what stands in them, in what order the markets come. Pure.

Every column has a rank; of those that do not all fit, the lowest ranks stay, and a number is never cut to make room. At 80 columns
these stay: book, position, mode, P&L, our quotes (or why there are none) and the signal with its age: what a person must know
before pressing a key. The rest is one key away, in the pane of the market, and comes back with the width of the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from rich.cells import cell_len

from llm_maker.console.cells import age, clean, clip, clip_middle, fit, money, price
from llm_maker.console.shapes import Board, Row
from llm_maker.console.tables import position, touch
from llm_maker.console.top_text import DIM, LABEL, OURS, PLAIN, STRONG, WARN, Line, Span, called, gain, mode

NAME_MIN, NAME_MAX, WHY_MIN = 12, 60, 24
STAY_SECONDS = 10.0
ALL = "*"
"""The id of the row above the markets: everything."""

_WISHES = {"buy_yes": "YES+", "sell_yes": "YES-", "buy_no": "NO+", "sell_no": "NO-"}


class Column(msgspec.Struct, frozen=True):
    """One column; `rank` 0 is the last to go."""

    title: str
    rank: int
    cell: Callable[[Row], Span]
    right: bool = False


def quoted(row: Row) -> bool:
    return bool(row["our_bid"] or row["our_ask"])


def _ours(row: Row) -> Span:
    if not quoted(row):
        return "-", DIM
    # Short, but never silent about a side that is held back.
    return touch(row["our_bid"], row["our_ask"]) + ("!" if row["why"] or row["exit"] else ""), OURS


def _signal(row: Row) -> Span:
    if not row["signal"] or row["signal_age_s"] is None:
        return "-", DIM
    return f"{_WISHES.get(row['signal'], clean(row['signal']))} {age(row['signal_age_s'])}", PLAIN


def _ahead(row: Row) -> Span:
    bid, ask = ("-" if value is None else f"{value:.0f}" for value in (row["bid_ahead"], row["ask_ahead"]))
    return f"{bid}/{ask}", PLAIN if quoted(row) else DIM


def _reward(row: Row) -> Span:
    paid, share = row["reward_usd_per_day"], row["reward_share"]
    return ("-", DIM) if paid is None else (f"${paid:.0f} {'?' if share is None else f'{share:.0%}'}", PLAIN)


def _position(row: Row) -> Span:
    return position(dict(row)), STRONG if row["position"] else DIM


def _why(row: Row) -> Span:
    said = "; ".join(filter(None, (f"leaving: {row['exit']}" if row["exit"] else "", row["why"])))
    return clean(said or ("" if quoted(row) else "no quote wanted")), WARN


COLUMNS = (
    Column("bid/ask", 0, lambda row: (touch(row["bid"], row["ask"]), PLAIN)),
    Column("old", 6, lambda row: _old(row["book_age_s"]), right=True),
    Column("fair", 7, lambda row: (price(row["fair"]), PLAIN)),
    Column("position", 1, _position),
    Column("P&L", 3, lambda row: gain(row["pnl_usd"]), right=True),
    Column("worst", 11, lambda row: (money(row["worst_usd"]), DIM), right=True),
    Column("ours", 4, _ours),
    Column("ahead", 8, _ahead),
    Column("signal", 5, _signal),
    Column("sure", 12, lambda row: _share(row["confidence"]), right=True),
    Column("weight", 9, lambda row: _share(row["weight"] if row["signal"] else None), right=True),
    Column("reward", 10, _reward, right=True),
)
_MODE_RANK, _MODE_WIDTH = 2, 6


def _old(seconds: float | None) -> Span:
    return ("-", DIM) if seconds is None else (age(seconds), WARN if seconds >= 60 else DIM)


def _share(value: float | None) -> Span:
    return ("-", DIM) if value is None else (f"{value:.2f}", PLAIN)


class Shape(msgspec.Struct, frozen=True):
    """What stands where at one width. `why` 0: no column of its own, a reason stands in the place of our quotes."""

    mode: bool
    name: int
    columns: tuple[tuple[int, int], ...]
    """(index in COLUMNS, width), left to right."""
    why: int


class Widths:
    """How wide each column has to be; they only grow, so that nothing dances when a number gets shorter."""

    def __init__(self) -> None:
        self._widths = [len(column.title) for column in COLUMNS]
        self._name = NAME_MIN

    def shape(self, cells: Sequence[Sequence[Span]], names: Sequence[str], width: int) -> Shape:
        """As many columns, by rank, as `width` holds beside a market's name."""
        for row in cells:
            self._widths = [max(wide, cell_len(text)) for wide, (text, _) in zip(self._widths, row, strict=True)]
        self._name = max([self._name, *(min(NAME_MAX, cell_len(name)) for name in names)])
        wanted = sorted([(column.rank, i, self._widths[i]) for i, column in enumerate(COLUMNS)] + [(_MODE_RANK, -1, _MODE_WIDTH)])
        least = max(NAME_MIN, width // 4)
        free, taken = width - 1 - least, set()
        for _, i, wide in wanted:
            if wide + 1 > free:
                break
            free -= wide + 1
            taken.add(i)
        kept = tuple((i, self._widths[i]) for i in sorted(taken - {-1}))
        name = max(NAME_MIN, min(least + free, self._name))
        free += least - name
        return Shape(-1 in taken, name, kept, free - 1 if free > WHY_MIN else 0)


class Order:
    """Positions first, then orders, then the rest; a market falls back only after a while, so that rows do not dance."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, float]] = {}

    def sorted(self, rows: Sequence[Row], now: float) -> list[Row]:
        """`now` is monotonic seconds; within a group the daemon's own order."""
        kept: dict[str, tuple[int, float]] = {}
        for row in rows:
            group = 0 if row["position"] else 1 if quoted(row) else 2
            before, until = self._kept.get(row["market_id"], (group, now))
            kept[row["market_id"]] = (before, until) if group > before and now < until else (group, now + STAY_SECONDS)
        self._kept = kept
        return sorted(rows, key=lambda row: kept[row["market_id"]][0])


def matching(rows: Sequence[Row], text: str) -> list[Row]:
    """Those with `text` in their name or id."""
    wanted = text.lower()
    return [row for row in rows if wanted in clean(row["question"]).lower() or wanted in row["market_id"].lower()]


def heading(shape: Shape) -> Line:
    titles = [_set(COLUMNS[i].title, wide, COLUMNS[i].right) for i, wide in shape.columns]
    words = [
        " " + clip("market", shape.name),
        *(["mode  "] if shape.mode else []),
        *titles,
        *(["why not, or held back"] if shape.why else []),
    ]
    return ((" ".join(words), LABEL),)


def cells(row: Row) -> list[Span]:
    return [column.cell(row) for column in COLUMNS]


def line(row: Row, told: Sequence[Span], shape: Shape) -> Line:
    """One market; the first cell is left for the cursor."""
    name = clip_middle(called(row["market_id"], row["question"]), shape.name)
    spans: list[Span] = [(" ", PLAIN), (name, PLAIN if quoted(row) else DIM)]
    if shape.mode:
        word, style = mode(row["mode"])
        spans.append((f" {word:<{_MODE_WIDTH}}", style))
    left = [*shape.columns]
    why, why_style = _why(row)
    while left:
        i, wide = left.pop(0)
        if COLUMNS[i].title == "ours" and not quoted(row) and not shape.why:
            room = wide + sum(more + 1 for _, more in left)
            return (*spans, (" " + clip(why, room).rstrip(), why_style))
        text, style = told[i]
        spans.append((" " + _set(text, wide, COLUMNS[i].right), style))
    return (*spans, (" " + clip(why, shape.why).rstrip(), why_style)) if shape.why else tuple(spans)


def total(board: Board, hidden: int, shape: Shape) -> Line:
    """The row above all: what a key does while it is chosen, it does to everything."""
    rows = board["rows"]
    word, style = mode(board["mode"])
    held, quoting = sum(1 for row in rows if row["position"]), sum(1 for row in rows if quoted(row))
    name = f"ALL {len(rows)}, {hidden} hidden" if hidden else f"ALL {len(rows)} markets"
    spans: list[Span] = [(" ", PLAIN), (clip(name, shape.name), STRONG)]
    if shape.mode:
        spans.append((f" {word:<{_MODE_WIDTH}}", style))
    pnl = gain(sum(row["pnl_usd"] for row in rows))
    facts = {"position": (f"{held} held", PLAIN), "P&L": pnl, "ours": (f"{quoting} quoted", PLAIN)}
    facts["worst"] = (money(sum(row["worst_usd"] for row in rows)), DIM)
    for i, wide in shape.columns:
        text, style = facts.get(COLUMNS[i].title, ("", PLAIN))
        spans.append((" " + _set(text, wide, COLUMNS[i].right), style))
    return tuple(spans)


def still(rows: Sequence[Row], width: int) -> list[Line]:
    """Every market that is not quoted, and why."""
    found: list[Line] = []
    for row in rows:
        if not quoted(row):
            found += [((clip_middle(called(row["market_id"], row["question"]), width).rstrip(), STRONG),)]
            found += [(("  " + clip(_why(row)[0], width - 2).rstrip(), WARN),)]
    return found or [(("every market is quoted", PLAIN),)]


def _set(text: str, width: int, right: bool) -> str:
    return " " * max(0, width - cell_len(text)) + text if right else fit(text, width)
