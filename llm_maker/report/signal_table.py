"""What following a model's signals would have brought: by action, confidence and model, after spread and fee. From `Forecast`s.

A signal is followed by taking: bought at the market's price plus half the spread and the taker fee, and marked at the mid a
horizon later (left again at the touch it would cost the same once more), or held to what the share paid. Returns are in cents a
share; the hit rate is how often the price moved the way the signal said, whatever the cost. What is not known yet is n/a.
Signals on one event on one day count once for the interval (`quoting.md` 6.4): it is of the means by event and day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from llm_maker.core.skill import Forecast
from llm_maker.core.values import expit
from llm_maker.report import metrics
from llm_maker.report.metrics import Interval
from llm_maker.report.text_table import table

HORIZONS_S = (300, 3_600, 86_400)
OUTCOME = 0
_DAY_NS = 86_400 * 10**9
_BINS = (0.5, 0.6, 0.7, 0.8, 0.9)
_NAMES = {300: "5 min", 3_600: "1 h", 86_400: "1 d", OUTCOME: "outcome"}


class Cell(msgspec.Struct, frozen=True):
    """One horizon of one group."""

    n: int
    """Signals whose price is known then."""
    hits: Interval | None
    """Part that moved the signalled way, with Wilson's limits; what did not move counts as no hit."""
    cents: Interval | None
    """Mean return a share if followed, after spread and fee; limits None where independent event-days are too few."""
    mean_cents: float | None
    event_days: int


class Group(msgspec.Struct, frozen=True):
    """Signals of one kind."""

    heading: str
    name: str
    signals: int
    cells: dict[int, Cell]


def side_of(f: Forecast) -> int:
    """Which way a signal would have one trade: its bias, else the side of its disagreement with the market; 0: neither."""
    if f.bias:
        return f.bias
    d = f.d if f.d is not None else 0.0
    return (d > 0) - (d < 0)


def followed(f: Forecast, horizon_s: int, half_spread: float, fee_rate: float) -> tuple[bool, float] | None:
    """(whether the price went the signalled way, return in cents a share); None where the price then is not known."""
    side = side_of(f)
    then = f.outcome if horizon_s == OUTCOME else expit(f.later[horizon_s]) if horizon_s in f.later else None
    if side == 0 or then is None:
        return None
    now = expit(f.x_market)
    moved = side * (then - now)
    return moved > 0, 100 * (moved - half_spread - fee_rate * now * (1 - now))


def signal_table(
    forecasts: Sequence[Forecast],
    half_spread: float,
    fee_rate: float,
    seed: int = 0,
    actions: dict[tuple[str, str], str] | None = None,
) -> list[Group]:
    """Groups by action, confidence and model. `half_spread` in USD, `fee_rate` times p(1-p) in USD a share.

    `actions`: (decision, instrument) -> the action that was advised; without it the direction stands for it.
    """
    told = actions or {}
    keys: dict[str, Callable[[Forecast], str]] = {
        "all": lambda f: "all",
        "action": lambda f: told.get((f.decision_id, f.instrument)) or {1: "bullish", -1: "bearish", 0: "neutral"}[side_of(f)],
        "confidence": lambda f: _bin(f.confidence),
        "model": lambda f: f.model + (" (simulated)" if f.simulated and "simulated" not in f.model else ""),
    }
    found = []
    for heading, key in keys.items():
        groups: dict[str, list[Forecast]] = {}
        for f in forecasts:
            groups.setdefault(key(f), []).append(f)
        for name in sorted(groups):
            cells = {h: _cell(groups[name], h, half_spread, fee_rate, seed) for h in (*HORIZONS_S, OUTCOME)}
            found.append(Group(heading, name, len(groups[name]), cells))
    return found


def lines(groups: Sequence[Group], half_spread: float, fee_rate: float) -> list[str]:
    """For a terminal."""
    told = [
        f"signals if followed: cents a share after half a spread of {100 * half_spread:.2f}c and a fee of {fee_rate:g} x p(1-p)",
        "the hit rate is before cost; [ ] is 95 %, by event and day; n/a: the price then is not known",
        "",
    ]
    rows = [["", "signals", *(f"{_NAMES[h]}: {what}" for h in (*HORIZONS_S, OUTCOME) for what in ("hit", "cents"))]]
    heading = ""
    for group in groups:
        if group.heading != heading:
            heading = group.heading
            if heading != "all":
                rows.append([f"by {heading}", *[""] * (len(rows[0]) - 1)])
        cells = [text for h in (*HORIZONS_S, OUTCOME) for text in _texts(group.cells[h])]
        rows.append([f"  {group.name}", str(group.signals), *cells])
    return told + table(rows)


def _texts(cell: Cell) -> tuple[str, str]:
    if cell.n == 0 or cell.hits is None or cell.mean_cents is None:
        return "n/a", "n/a"
    hit = f"{cell.hits.value:.0%} of {cell.n}"
    if cell.cents is None:
        return hit, f"{cell.mean_cents:+.2f}"
    return hit, f"{cell.cents.value:+.2f} [{cell.cents.low:+.2f}, {cell.cents.high:+.2f}]"


def _cell(group: Sequence[Forecast], horizon_s: int, half_spread: float, fee_rate: float, seed: int) -> Cell:
    hits, returns = 0, []
    days: dict[tuple[str, int], list[float]] = {}
    for f in group:
        result = followed(f, horizon_s, half_spread, fee_rate)
        if result is not None:
            hits += result[0]
            returns.append(result[1])
            days.setdefault((f.event_id or f.instrument, f.ts // _DAY_NS), []).append(result[1])
    means = [sum(values) / len(values) for values in days.values()]
    mean = sum(returns) / len(returns) if returns else None
    # Event-days are independent: they are resampled one by one.
    return Cell(len(returns), metrics.wilson(hits, len(returns)), metrics.bootstrap(means, block=1.0, seed=seed), mean, len(means))


def _bin(confidence: float) -> str:
    low = max((edge for edge in _BINS if edge <= confidence), default=0.0)
    high = min((edge for edge in _BINS if edge > confidence), default=1.0)
    return f"{low:.1f}-{high:.1f}"
