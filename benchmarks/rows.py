"""One measured figure with its goal, the sizes of a run, and the table. Measures nothing itself."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("LLM_MAKER_SHARED_DATA", ROOT.parent / "shared" / "data"))


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. `markets`: for memory; `growth`: fewest and most markets for the cost per message."""

    repeats: int = 5
    tape_frames: int = 100_000
    """Of a tape that the benchmark makes itself; a recorded one is read whole."""
    recorded: bool = True
    messages: int = 20_000
    warm_s: float = 60.0
    """Market time that a simulated world runs before it is measured."""
    markets: tuple[int, ...] = (20, 500, 1_000)
    memory_s: float = 120.0
    growth: tuple[int, int] = (10, 1_000)
    signatures: int = 2_000
    burst_orders: int = 1_500
    live_rounds: int = 3
    """Of each leg at the loopback venue, turn about."""
    live_s: float = 12.0
    """Measured at each rate, after `live_warm_s`."""
    live_warm_s: float = 3.0
    live_rates: tuple[int, ...] = (100, 2_000)
    """Messages a second; `live_moves` of them move a best price, over `live_markets`."""
    live_moves: int = 20
    live_markets: int = 10
    live_memory_markets: tuple[int, ...] = (20, 500, 1_000)
    watched_rounds: int = 6
    """At each rate, of each way of looking; `watched_moves` a second, so that a round has hundreds of answers."""
    watched_s: float = 10.0
    watched_warm_s: float = 4.0
    """Long enough for a browser to load the page."""
    watched_moves: int = 60


FULL = Size()
TINY = Size(
    repeats=1,
    tape_frames=400,
    recorded=False,
    messages=300,
    warm_s=10.0,
    markets=(3,),
    memory_s=3.0,
    growth=(2, 4),
    signatures=20,
    burst_orders=60,
    live_rounds=1,
    live_s=1.2,
    live_warm_s=0.2,
    live_rates=(300,),
    live_markets=4,
    live_memory_markets=(3,),
    watched_rounds=1,
    watched_s=1.2,
    watched_warm_s=0.5,
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `goal` None: the design names none. `worst`, `best`: over the repeats, so that noise can be seen."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    more_is_better: bool = False
    best: float | None = None
    worst: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal


def row(name: str, samples: Iterable[float], unit: str, *, goal: float | None = None, more: bool = False, note: str = "") -> Row:
    """The median of the samples."""
    values = sorted(samples, reverse=more)
    return Row(
        name=name,
        value=statistics.median(values),
        unit=unit,
        goal=goal,
        more_is_better=more,
        best=values[0],
        worst=values[-1],
        note=note,
    )


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentile(values: list[int], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def table(rows: list[Row]) -> list[str]:
    """The rows as lines of text: figure, the spread of the repeats, goal, and whether it is met."""
    head = ("", "median", "best .. worst", "", "goal", "met")
    cells = [head]
    for r in rows:
        spread = "" if r.best is None or r.best == r.worst else f"{_figure(r.best)} .. {_figure(r.worst)}"
        goal = "" if r.goal is None else f"{'>=' if r.more_is_better else '<='} {_figure(r.goal)}"
        met = "" if r.met is None else "yes" if r.met else "NO"
        cells.append((r.name, _figure(r.value), spread, r.unit, goal, met))
    widths = [max(len(line[at]) for line in cells) for at in range(len(head))]
    lines = []
    for line, note in zip(cells, ["", *(r.note for r in rows)], strict=True):
        padded = [
            text.rjust(width) if at in (1, 2) else text.ljust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join([*padded, note]).rstrip())
    return lines


def as_plain(rows: list[Row]) -> list[dict[str, Any]]:
    return [{**msgspec.to_builtins(r), "met": r.met} for r in rows]
