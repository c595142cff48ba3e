"""An account's numbers as the HTML page is told them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from llm_maker.core.skill import Forecast
from llm_maker.core.values import CASH_PER_USD
from llm_maker.report.account import HORIZONS, Account, Row
from llm_maker.report.account_text import interval, number
from llm_maker.report.html_extras import Difference, DifferencePoint, Extras, KeyFigure, MoneyRow, StatedBin, Table
from llm_maker.report.paired import MIN_DAYS, Level, Paired
from llm_maker.report.track import Track

BINS = 10
_MIN_OUTCOMES = 20
_POINTS = 500
"""Of a cumulative difference, at most."""


def extras(
    accounts: Mapping[str, Account], pairs: Sequence[tuple[Paired, Track, Track]], forecasts: Sequence[Forecast], build: str
) -> Extras:
    """All that the page shows and does not compute; accounts by their name on the page, main first."""
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
    likely = "" if r.wins is None else f", 95 % {r.wins.low:.0%} to {r.wins.high:.0%}"
    return [
        KeyFigure(label="P&L at mid", value=f"{s.pnl:+.2f} USD", note=f"at the touch with fees {s.pnl_exit:+.2f}"),
        KeyFigure(label="a day", value=interval(r.per_day_usd), note="USD with 95 % limits"),
        KeyFigure(label="drawdown", value=f"{r.drawdown_usd:.2f} USD"),
        KeyFigure(label="fills", value=str(a.fills), note=f"{r.shares:.1f} shares"),
        KeyFigure(label="round trips won", value=wins, note=f"of {r.trips}{likely}"),
        KeyFigure(label="model cost", value=f"{abs(s.llm_cost):.4f} USD", note="paid elsewhere, not in the P&L"),
    ]


def _money(a: Account) -> list[MoneyRow]:
    s = a.split
    after = s.horizons[HORIZONS[60]]
    rows = [
        MoneyRow(label="capture", usd=s.capture, note="fills against the mid of their moment"),
        MoneyRow(label="markout 60 s", usd=after.markout_usd, note=f"of {after.known} of {after.fills} fills"),
        MoneyRow(label="inventory", usd=after.inventory_usd, note="what the market did after that"),
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
    """Its mean a day only where there are limits to it: of some minutes it would be nonsense."""
    limits = p.per_day
    return Difference(
        first=p.first,
        second=p.second,
        mean=limits.value / CASH_PER_USD if limits else None,
        low=limits.low / CASH_PER_USD if limits else None,
        high=limits.high / CASH_PER_USD if limits else None,
        days=p.days,
        verdict=p.verdict or f"none, {p.why}",
        series=_series(a, b),
    )


def _series(a: Track, b: Track) -> list[DifferencePoint]:
    """Gain of the one less that of the other since both are there, net of what their models cost; thinned, the last one stays."""
    start, end = max(a.start_ns, b.start_ns), min(a.end_ns, b.end_ns)
    if start >= end:
        return []
    ours, theirs = Level(a), Level(b)
    moments = sorted({start, end} | {ts for ts in (*ours.times, *theirs.times) if start < ts < end})
    costs = sorted([(ts, cost) for ts, cost in a.model_costs] + [(ts, -cost) for ts, cost in b.model_costs])
    base, paid, at, bucket = ours.at(start) - theirs.at(start), 0, 0, -1
    found: list[DifferencePoint] = []
    for ts in moments:
        while at < len(costs) and costs[at][0] <= ts:
            paid += costs[at][1] if costs[at][0] >= start else 0
            at += 1
        if (ts - start) * _POINTS // (end - start) != bucket:
            bucket = (ts - start) * _POINTS // (end - start)
            found.append(DifferencePoint(ts, (ours.at(ts) - theirs.at(ts) - base - paid) / CASH_PER_USD))
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
    for n in range(BINS):
        part = pairs[n * len(pairs) // BINS : (n + 1) * len(pairs) // BINS]
        if part:
            count, stated = len(part), sum(p for p, _ in part) / len(part)
            half = 1.96 * (sum(p * (1 - p) for p, _ in part) / count / count) ** 0.5
            low, high = max(stated - half, 0.0), min(stated + half, 1.0)
            observed = sum(o for _, o in part) / count
            found.append(StatedBin(stated=stated, observed=observed, low=low, high=high, n=count))
    return found


def _horizons(a: Account) -> Table:
    rows = [
        [name, number(after.markout_usd, 4), number(after.inventory_usd, 4), f"{after.known} of {after.fills}"]
        for name, after in a.split.horizons.items()
    ]
    note = "capture, the markout at one horizon and the inventory after it add up to what the fills made, at every horizon alike"
    return Table(title="After the fills", columns=["horizon", "markout, USD", "inventory, USD", "fills"], rows=rows, note=note)


def _tables(a: Account) -> list[Table]:
    groups = [(heading, rows) for heading, rows in a.by.items() if len(rows) > 1 or heading == "market"]
    if a.terms:
        by_term = [structs.replace(row, name=f"{term}, {row.name}") for term, rows in a.terms.items() for row in rows]
        groups.append(("term of the strategy", by_term))
    columns = ["fills", "shares", "capture, USD", "60 s", "1 h", "P&L, USD", "P&L a day, 95 %"]
    note = "P&L is of the fills to the end, less fees, before rebates, rewards and rounding"
    return [
        Table(title=f"By {heading}", columns=[heading, *columns], rows=[_cells(row) for row in rows], note=note)
        for heading, rows in groups
    ]


def _cells(row: Row) -> list[str]:
    money = (row.capture_usd, row.markouts_usd[HORIZONS[60]], row.markouts_usd[HORIZONS[3_600]], row.pnl_usd)
    return [row.name, str(row.fills), f"{row.shares:.1f}", *(number(value, 4) for value in money), interval(row.per_day_usd)]


def _notes(a: Account) -> list[str]:
    notes = []
    if a.ratios.days < MIN_DAYS:
        notes.append(f"{a.ratios.days:.2f} days are too few for a verdict: {MIN_DAYS} are needed.")
    if a.label.get("simulated"):
        notes.append("The market is simulated: what was earned here says nothing of a real one.")
    return notes
