"""What following a model's signals would have brought: by action, confidence and model, after spread and fee. From `Forecast`s.

A signal is followed by taking: bought (or sold) at the market's price plus half the spread and the taker fee of that moment, and
marked at the mid a horizon later, or held to what the share paid; who leaves at the touch pays half a spread and a fee once more.
Returns are cents a share. The hit rate is before cost: how often the price went the signalled way where it went anywhere. What is
not known is n/a. Signals on one event on one day are one observation (`quoting.md` 6.4): means and intervals are of event-days.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence

import msgspec

from llm_maker.core.skill import Forecast
from llm_maker.core.values import PPM, expit
from llm_maker.report import metrics
from llm_maker.report.metrics import Interval
from llm_maker.report.paired import DAY_NS, HOUR_NS
from llm_maker.report.pnl import confidence_bin
from llm_maker.report.text_table import table
from llm_maker.report.track import Sample, Track

OUTCOME = 0
HORIZONS = {300: "5 min", 3_600: "1 h", 86_400: "1 d", OUTCOME: "outcome"}
"""Seconds after the signal -> what it is called."""
_DIRECTIONS = {"buy_yes": 1, "sell_no": 1, "buy_no": -1, "sell_yes": -1}
_NEAR_NS = HOUR_NS
"""A spread seen longer before or after a signal is not the spread that it would have paid."""

Actions = Mapping[tuple[str, str], str]
"""(decision, instrument) -> the action that was advised."""


class Cost(msgspec.Struct, frozen=True):
    """Of taking one share: half the spread, USD, and the fee, times p(1-p)."""

    half_spread: float
    fee_rate: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One horizon of one group."""

    known: int
    """Signals with a direction whose price is known then."""
    moved: int
    """Of them, where the price was another one then."""
    hits: Interval | None
    """Part of those that went the signalled way, with Wilson's limits."""
    cents: float | None
    """Mean return of the event-days; None where no price or no cost is known."""
    limits: Interval | None
    """The same with 95 % limits; None where event-days are too few."""
    event_days: int


class Group(msgspec.Struct, frozen=True):
    """Signals of one kind; cells by name of horizon."""

    heading: str
    name: str
    signals: int
    cells: dict[str, Cell]


def costs(track: Track) -> Callable[[Forecast], Cost | None]:
    """What taking cost when a signal came: by the sample of its market nearest in time; None: none within an hour."""
    books = {name: [s for s in samples if s.bid and s.ask] for name, samples in track.samples.items()}

    def of(f: Forecast) -> Cost | None:
        quoted, sample = track.instruments.get(f.instrument), _nearest(books.get(f.instrument, []), f.ts)
        if quoted is None or sample is None:
            return None
        return Cost((sample.ask - sample.bid) / 2 / quoted.price_scale, quoted.taker_ppm / PPM)

    return of


def _nearest(samples: Sequence[Sample], ts: int) -> Sample | None:
    at = bisect.bisect_left(samples, ts, key=lambda sample: sample.ts)
    near = min(samples[max(at - 1, 0) : at + 1], key=lambda sample: abs(sample.ts - ts), default=None)
    return near if near is not None and abs(near.ts - ts) <= _NEAR_NS else None


def side_of(f: Forecast, action: str = "") -> int:
    """Which way a signal would have one trade: its action's, else its bias, else that of its disagreement; 0: neither."""
    if action in _DIRECTIONS or f.bias:
        return _DIRECTIONS.get(action, f.bias)
    d = f.d if f.d is not None else 0.0 if f.p_yes is None else f.p_yes - expit(f.x_market)
    return (d > 0) - (d < 0)


def gain(f: Forecast, side: int, horizon_s: int) -> float | None:
    """What a share went the signalled way, USD, before cost; None where the price then is not known."""
    then = f.outcome if horizon_s == OUTCOME else expit(f.later[horizon_s]) if horizon_s in f.later else None
    return None if then is None else side * (then - expit(f.x_market))


def signal_table(
    forecasts: Sequence[Forecast], cost: Callable[[Forecast], Cost | None], actions: Actions | None = None, seed: int = 0
) -> list[Group]:
    """Groups by action, confidence and model; members of an ensemble by model alone, for their words were not used as they are."""
    told = actions or {}

    def action(f: Forecast) -> str:
        return told.get((f.decision_id, f.instrument), "") if f.role == "used" else ""

    keys: dict[str, Callable[[Forecast], str]] = {
        "all": lambda f: "all",
        "action": lambda f: action(f) or "not on record",
        "confidence": lambda f: confidence_bin(f.confidence),
        "model": lambda f: f.model,
    }
    found = []
    for heading, key in keys.items():
        groups: dict[str, list[Forecast]] = {}
        for f in forecasts:
            if f.role == "used" or heading == "model":
                groups.setdefault(key(f), []).append(f)
        for name, group in sorted(groups.items()):
            sided = [(f, side) for f in group if (side := side_of(f, action(f)))]
            cells = {told_as: _cell(sided, horizon, cost, seed) for horizon, told_as in HORIZONS.items()}
            found.append(Group(heading, name, len(group), cells))
    return found


def _cell(sided: Sequence[tuple[Forecast, int]], horizon_s: int, cost: Callable[[Forecast], Cost | None], seed: int) -> Cell:
    gains = [(f, gained) for f, side in sided if (gained := gain(f, side, horizon_s)) is not None]
    moved, hits = sum(1 for _, gained in gains if gained), sum(1 for _, gained in gains if gained > 0)
    days: dict[tuple[str, int], list[float]] = {}
    for f, gained in gains:
        paid = cost(f)
        if paid is not None:
            now = expit(f.x_market)
            cents = 100 * (gained - paid.half_spread - paid.fee_rate * now * (1 - now))
            days.setdefault((f.event_id or f.instrument, f.ts // DAY_NS), []).append(cents)
    means = [sum(values) / len(values) for values in days.values()]
    return Cell(
        known=len(gains),
        moved=moved,
        hits=metrics.wilson(hits, moved),
        cents=sum(means) / len(means) if means else None,
        # Event-days are independent: they are resampled one by one.
        limits=metrics.bootstrap(means, block=1.0, seed=seed),
        event_days=len(means),
    )


def lines(groups: Sequence[Group]) -> list[str]:
    """For a terminal. Of a group only the horizons that are known, of all signals every one."""
    head = ["", "signals", "horizon", "known", "went its way, of those that moved", "cents a share if followed", "event-days"]
    rows, heading = [head], "all"
    for group in groups:
        if group.heading != heading:
            heading = group.heading
            rows.append([f"by {heading}", *[""] * (len(head) - 1)])
        told = [name for name, cell in group.cells.items() if cell.known or heading == "all"]
        for n, name in enumerate(told or ["any"]):
            first = [f"  {_short(group.name)}", str(group.signals)] if n == 0 else ["", ""]
            rows.append([*first, name, *(_texts(group.cells[name]) if told else ("0", "n/a", "n/a", "0"))])
    return [
        "Signals if followed by taking: cents a share after half the spread and the fee at entry, marked at the mid then.",
        "[ ] is 95 %, by event and day; the hit rate is before cost; n/a: the price then, or the spread at the signal, is unknown.",
        "",
        *(line.rstrip() for line in table(rows)),
    ]


def _texts(cell: Cell) -> tuple[str, str, str, str]:
    hit = "n/a" if cell.hits is None else f"{cell.hits.value:.0%} [{cell.hits.low:.0%}, {cell.hits.high:.0%}] of {cell.moved}"
    cents = "n/a" if cell.cents is None else f"{cell.cents:+.2f}"
    if cell.limits is not None:
        cents += f" [{cell.limits.low:+.2f}, {cell.limits.high:+.2f}]"
    return str(cell.known), hit, cents, str(cell.event_days)


def _short(name: str, limit: int = 40) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
