"""An account's numbers as the HTML page is told them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from llm_maker.core.skill import Forecast
from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.report.account import Account, Row
from llm_maker.report.account_text import NAMES
from llm_maker.report.html_extras import Difference, DifferencePoint, Extras, KeyFigure, MoneyRow, StatedBin, Table
from llm_maker.report.metrics import Interval
from llm_maker.report.paired import Paired
from llm_maker.report.pnl import HORIZONS
from llm_maker.report.track import Track

BINS = 10
_MIN_OUTCOMES = 20
_GRAIN_NS = 600 * NS_PER_S
"""Between two points of a cumulative difference, at least."""


def extras(
    accounts: Mapping[str, Account], pairs: Sequence[tuple[Paired, Track, Track]], forecasts: Sequence[Forecast], build: str
) -> Extras:
    """All that the page shows and does not compute; accounts by their name, main first."""
    first = next(iter(accounts.values()))
    return Extras(
        title=f"{first.label.get('account')} on {first.label.get('venue')}",
        build=build,
        headline=_headline(first),
        identity={name: _money(a) for name, a in accounts.items()},
        differences=[_difference(*pair) for pair in pairs],
        reliability=_reliability(forecasts),
        tables=[_horizons(first), *_tables(first)],
        notes=_notes(first),
    )


def _headline(a: Account) -> list[KeyFigure]:
    r, s = a.ratios, a.split
    wins = "n/a" if r.wins is None else f"{r.wins.value:.0%}"
    return [
        KeyFigure(label="P&L at mid", value=f"{s.pnl:+.2f} USD", note=f"at the touch with fees {s.pnl_exit:+.2f}"),
        KeyFigure(label="a day", value=_interval(r.per_day), note="USD with 95 % limits"),
        KeyFigure(label="drawdown", value=f"{r.drawdown_usd:.2f} USD"),
        KeyFigure(label="fills", value=str(a.fills), note=f"{r.shares:.1f} shares"),
        KeyFigure(label="round trips won", value=wins, note=f"of {r.trips}"),
        KeyFigure(label="model cost", value=f"{-s.llm_cost:.4f} USD", note="paid elsewhere, not in the P&L"),
    ]


def _money(a: Account) -> list[MoneyRow]:
    s = a.split
    markout, inventory, known, of = s.horizons[60]
    rows = [
        MoneyRow(label="capture", usd=s.capture, note="fills against the mid of their moment"),
        MoneyRow(label="markout 60 s", usd=markout, note=f"of {known} of {of} fills"),
        MoneyRow(label="inventory", usd=inventory, note="what the market did after that"),
        MoneyRow(label="fees", usd=s.fees),
        MoneyRow(label="rebates", usd=s.rebates),
        MoneyRow(label="rewards", usd=s.rewards),
        MoneyRow(label="rounding", usd=s.rounding, note="of cash, fill by fill"),
    ]
    if s.funding:
        rows.insert(-1, MoneyRow(label="funding", usd=s.funding))
    if s.unknown_fills:
        rows.insert(-1, MoneyRow(label="unknown", usd=s.unknown, note=f"{s.unknown_fills} fills without a mid"))
    if not s.closes:
        rows.append(MoneyRow(label="UNEXPLAINED", usd=s.unexplained, note=s.why))
    rows.append(MoneyRow(label="P&L at mid", usd=s.pnl, total=True))
    return [*rows, MoneyRow(label="model cost", usd=s.llm_cost, note="paid elsewhere, not in the P&L")]


def _difference(p: Paired, a: Track, b: Track) -> Difference:
    limits = p.per_day
    return Difference(
        first=p.first,
        second=p.second,
        mean=p.total / CASH_PER_USD / p.days if p.days else None,
        low=limits.low / CASH_PER_USD if limits else None,
        high=limits.high / CASH_PER_USD if limits else None,
        days=p.days,
        verdict=p.verdict or f"no verdict: {p.why}",
        series=_series(a, b),
    )


def _series(a: Track, b: Track) -> list[DifferencePoint]:
    """Equity of the one less that of the other since both are there, net of what their models cost."""
    start, end = max(a.start_ns, b.start_ns), min(a.end_ns, b.end_ns)
    moments = [(p.ts, side, p.equity) for side, t in ((0, a), (1, b)) for p in t.points if start <= p.ts <= end]
    costs = sorted([(ts, -cost) for ts, cost in a.model_costs] + list(b.model_costs))
    levels: list[int | None] = [None, None]
    base: int | None = None
    found: list[DifferencePoint] = []
    paid, at = 0, 0
    for ts, _ in itertools.groupby(sorted(moments), key=lambda one: one[0]):
        for when, side, equity in moments:
            if when == ts:
                levels[side] = equity
        while at < len(costs) and costs[at][0] <= ts:
            paid += costs[at][1] if costs[at][0] >= start else 0
            at += 1
        if levels[0] is None or levels[1] is None:
            continue
        gap = levels[0] - levels[1]
        base = gap if base is None else base
        if not found or ts - found[-1].ts >= _GRAIN_NS:
            found.append(DifferencePoint(ts, (gap - base + paid) / CASH_PER_USD))
    return found


def _reliability(forecasts: Sequence[Forecast]) -> dict[str, list[StatedBin]]:
    """By model, of forecasts whose market has resolved, in bins of equal count."""
    models: dict[str, list[tuple[float, float]]] = {}
    for f in forecasts:
        if f.p_yes is not None and f.outcome is not None:
            models.setdefault(f.model, []).append((f.p_yes, f.outcome))
    return {model: _bins(sorted(pairs)) for model, pairs in sorted(models.items()) if len(pairs) >= _MIN_OUTCOMES}


def _bins(pairs: Sequence[tuple[float, float]]) -> list[StatedBin]:
    found = []
    for number in range(BINS):
        part = pairs[number * len(pairs) // BINS : (number + 1) * len(pairs) // BINS]
        if part:
            n, stated = len(part), sum(p for p, _ in part) / len(part)
            half = 1.96 * (sum(p * (1 - p) for p, _ in part) / n / n) ** 0.5
            observed = sum(o for _, o in part) / n
            found.append(
                StatedBin(stated=stated, observed=observed, low=max(stated - half, 0.0), high=min(stated + half, 1.0), n=n)
            )
    return found


def _horizons(a: Account) -> Table:
    rows = []
    for horizon in HORIZONS:
        markout, inventory, known, of = a.split.horizons[horizon]
        rows.append([NAMES[horizon], _number(markout), f"{inventory:+.4f}", f"{known} of {of}"])
    note = "capture, the markout at one horizon and the inventory after it add up to what the fills made, at every horizon alike"
    return Table(title="After the fills", columns=["horizon", "markout, USD", "inventory, USD", "fills"], rows=rows, note=note)


def _tables(a: Account) -> list[Table]:
    columns = ["", "fills", "shares", "capture", "60 s", "1 h", "P&L, USD", "a day, 95 %"]
    return [
        Table(title=f"By {heading}", columns=[heading, *columns[1:]], rows=[_cells(row) for row in rows])
        for heading, rows in a.by.items()
        if len(rows) > 1 or heading == "market"
    ]


def _cells(row: Row) -> list[str]:
    money = (row.capture, row.markouts[60], row.markouts[3_600], row.pnl)
    return [row.name, str(row.fills), f"{row.shares:.1f}", *(_number(value) for value in money), _interval(row.per_day)]


def _notes(a: Account) -> list[str]:
    notes = []
    if a.ratios.days < 20:
        notes.append(f"{a.ratios.days:.2f} days are too few for a verdict: 20 are needed.")
    if a.label.get("simulated"):
        notes.append("The market is simulated: what was earned here says nothing of a real one.")
    return notes


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.4f}"


def _interval(value: Interval | None) -> str:
    return "n/a" if value is None else f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
