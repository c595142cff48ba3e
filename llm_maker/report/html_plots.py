"""From the record of accounts to the geometry of plots: points, units, hover texts. Pure; it knows no HTML and no colour value.

A colour is named by its meaning (`@main`, `@bid`, `@ink`, `@bid/0.2` with opacity); the page has the values, light and dark. Text
that comes from markets is escaped here, for plotly reads markup in text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S
from llm_maker.report.html_extras import Difference, MoneyRow
from llm_maker.report.track import Track

COLOURS = {"main": "@main", "twin": "@twin", "placebo": "@placebo", "main-paper": "@paper"}
SPARE = ("@spare1", "@spare2", "@spare3")
DASHES = {"placebo": "dot", "main-paper": "dash"}
MAX_POINTS = 5_000
"""A longer series is thinned."""
REASONS = 14


class Plot(msgspec.Struct, kw_only=True):
    """One place for a plot. `figures` by the numbers of what was chosen, joined by `|` (`0|2`); without choices by `` (empty)."""

    id: str
    title: str
    lead: str
    figures: dict[str, dict[str, Any]] = {}
    choices: list[tuple[str, list[str]]] = []
    """What can be chosen: label and options."""
    empty: str
    """The sentence in place of a figure that is not there."""
    square: bool = False
    """Drawn as high as wide, its words beside it where there is room."""
    notes: list[str] = []


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A track with the name, colour and dash that it has everywhere on the page."""

    name: str
    track: Track
    colour: str
    dash: str


def accounts_of(tracks: Sequence[Track]) -> list[Account]:
    """A name is the account's; where two are the same, with what tells them apart."""
    names = [str(track.label.get("account", "account")) for track in tracks]
    found, spare, used = [], iter(SPARE * len(tracks)), set()
    for n, (name, track) in enumerate(zip(names, tracks, strict=True)):
        full = name
        if names.count(name) > 1:
            others = [t.label for t, other in zip(tracks, names, strict=True) if other == name]
            told = [str(v) for k, v in track.label.items() if any(other.get(k) != v for other in others)]
            full = f"{name} ({', '.join(told) or n + 1})"
        colour = COLOURS.get(name, "")
        if not colour or colour in used:
            colour = next(spare)
        used.add(colour)
        found.append(Account(name=full, track=track, colour=colour, dash=DASHES.get(name, "solid")))
    return found


def ms(ts: int) -> int:
    return ts // NS_PER_MS


def unit(text: str, axis: str = "y") -> dict[str, Any]:
    """The unit of a vertical axis, written level above its top: a turned title costs a phone a sixth of its width."""
    place = {"xref": "paper", "yref": f"{axis} domain", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"color": "@muted", "size": 11}, "yshift": 3, **place}


def unit_below(text: str, axis: str = "x", lines: int = 1) -> dict[str, Any]:
    """The unit of a horizontal axis, under `lines` of tick labels."""
    place = {"xref": f"{axis} domain", "yref": "paper", "x": 0.5, "y": 0, "xanchor": "center", "yanchor": "top"}
    return {"text": text, "showarrow": False, "font": {"color": "@muted", "size": 11}, "yshift": -8 - 14 * lines, **place}


TIME = unit_below("market time, UTC", lines=2)
BELOW_TIME = {"b": 58}


def time_axis(**more: Any) -> dict[str, Any]:
    return {"type": "date", "hoverformat": "%d %b %H:%M:%S", **more}


def equity(accounts: Sequence[Account]) -> Plot:
    """Change of equity since the start without transfers, and below it the fall from its highest point."""
    plot = Plot(
        id="equity",
        title="Equity and drawdown",
        lead="Equity at mid prices as its change since the start, transfers of cash taken out; below, the distance to its highest "
        "point so far. The model's cost is paid outside the account and is not in it.",
        empty="No equity point was recorded yet.",
    )
    data: list[dict[str, Any]] = []
    for account in accounts:
        data += _equity_of(account, plot.notes)
    if data:
        layout = {
            "height": 460,
            "hovermode": "x unified",
            "xaxis": time_axis(anchor="y2", ranges="all"),
            "yaxis": {"domain": [0.42, 1], "tickformat": ",.4~f", "zeroline": True},
            "yaxis2": {"domain": [0, 0.3], "tickformat": ",.4~f", "zeroline": True},
            "annotations": [unit("change since the start, USD"), unit("drawdown, USD", "y2"), TIME],
            "margin": BELOW_TIME,
        }
        plot.figures[""] = {"data": data, "layout": layout}
    return plot


def _equity_of(account: Account, notes: list[str]) -> list[dict[str, Any]]:
    track = account.track
    if not track.points:
        return []
    moved, transfers = 0, sorted((m.ts, m.amount) for m in track.money if m.kind == "transfer")
    change, fall, peak, at = [], [], 0.0, 0
    for point in track.points:
        while at < len(transfers) and transfers[at][0] <= point.ts:
            moved += transfers[at][1]
            at += 1
        change.append((point.equity - track.start_cash - moved) / CASH_PER_USD)
        peak = max(peak, change[-1])
        fall.append(change[-1] - peak)
    rows = kept([change, fall], MAX_POINTS)
    if len(rows) < len(change):
        notes.append(thinned(account.name, len(rows), len(change), "equity points"))
    x = [ms(track.points[i].ts) for i in rows]
    line = {"color": account.colour, "width": 2, "dash": account.dash}
    name = escape(account.name)
    shared = {"type": "scatter", "mode": "lines", "name": name, "legendgroup": name, "x": x, "line": line}
    return [
        {**shared, "y": [round(change[i], 6) for i in rows], "hovertemplate": "%{y:+,.4f} USD"},
        {
            **shared,
            "y": [round(fall[i], 6) for i in rows],
            "yaxis": "y2",
            "showlegend": False,
            "hovertemplate": "drawdown %{y:,.4f} USD",
        },
    ]


def kept(columns: Sequence[Sequence[float | None]], most: int) -> list[int]:
    """Rows to draw, in order: all, or at most about `most`: of each of equal stretches the first row and every column's extremes.

    `columns` are series on the same rows, None where there is no value. The last row is always drawn.
    """
    import numpy as np

    n = len(columns[0])
    if n <= most:
        return list(range(n))
    stretches = max(1, (most - 1) // (2 * len(columns) + 1))
    width = -(-n // stretches)
    stretches = -(-n // width)
    values = np.full((len(columns), stretches * width), np.nan)
    values[:, :n] = np.array(columns, dtype=np.float64)
    cut = values.reshape(len(columns), stretches, width)
    starts = np.arange(stretches) * width
    lowest = np.where(np.isnan(cut), np.inf, cut).argmin(axis=2) + starts
    highest = np.where(np.isnan(cut), -np.inf, cut).argmax(axis=2) + starts
    rows = np.unique(np.concatenate([starts, lowest.ravel(), highest.ravel(), [n - 1]]))
    return [int(row) for row in rows]


def thinned(of: str, drawn: int, there: int, what: str) -> str:
    return f"{of}: {drawn:,} of {there:,} {what} are drawn; the lowest and the highest of every stretch are kept."


def refusals(accounts: Sequence[Account], meanings: Mapping[str, str]) -> Plot:
    """How long each reason kept a quote away, the longest first."""
    longest: dict[str, int] = {}
    for account in accounts:
        for reason, (_, ns) in account.track.refusals.items():
            longest[reason] = max(longest.get(reason, 0), ns)
    shown = sorted(longest, key=lambda reason: (-longest[reason], reason))[:REASONS]
    plot = Plot(
        id="refusals",
        title="What kept us from quoting",
        lead="Time for which a reason refused a quote, summed over markets and sides (so it can be longer than the run).",
        empty="Nothing was refused.",
    )
    if not shown:
        return plot
    if len(longest) > len(shown):
        plot.notes.append(f"The {len(shown)} longest of {len(longest)} reasons.")
    top = longest[shown[0]] / NS_PER_S
    per, word = (3_600, "hours") if top >= 7_200 else (60, "minutes") if top >= 120 else (1, "seconds")
    names = [escape(reason.replace("_", " ")) for reason in shown]
    data = []
    for account in accounts:
        tallies = [account.track.refusals.get(reason) for reason in shown]
        if any(tallies):
            told = [
                [f"{tally[0]:,}" if tally else "", escape(meanings.get(reason, ""))]
                for reason, tally in zip(shown, tallies, strict=True)
            ]
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": escape(account.name),
                    "y": names,
                    "x": [None if tally is None else round(tally[1] / NS_PER_S / per, 4) for tally in tallies],
                    "marker": {"color": account.colour},
                    "customdata": told,
                    "hovertemplate": f"<b>%{{y}}</b>, {escape(account.name)}<br>%{{x:,.2~f}} {word} in %{{customdata[0]}} episodes"
                    "<br>%{customdata[1]}<extra></extra>",
                }
            )
    layout = {
        "height": 110 + len(shown) * (16 + 11 * len(data)),
        "hovermode": "closest",
        "barmode": "group",
        "bargap": 0.35,
        "xaxis": {"rangemode": "tozero"},
        "annotations": [unit_below(word)],
        "margin": {"t": 6},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "fixedrange": True, "labels": names},
    }
    plot.figures[""] = {"data": data, "layout": layout}
    return plot


def waterfall(identity: Mapping[str, Sequence[MoneyRow]], accounts: Sequence[Account]) -> Plot:
    """The lines of the P&L identity, one on the other, to its total."""
    plot = Plot(
        id="waterfall",
        title="Where the money came from",
        lead="The parts of the profit or loss, each starting where the one above it ends. Solid bars gained, pale bars lost.",
        empty="The profit and loss was not split.",
        choices=[("Account", list(identity))] if len(identity) > 1 else [],
    )
    colours = {account.name: account.colour for account in accounts}
    for n, (name, rows) in enumerate(identity.items()):
        known = [row for row in rows if row.usd is not None]
        if known:
            plot.figures[str(n) if plot.choices else ""] = _waterfall(known, colours.get(name, SPARE[0]))
        if missing := [row.label for row in rows if row.usd is None]:
            plot.notes.append(f"{name}: not known, so not drawn: {', '.join(missing)}.")
    return plot


def _waterfall(rows: Sequence[MoneyRow], colour: str) -> dict[str, Any]:
    values = [row.usd or 0.0 for row in rows]
    names = [escape(row.label) for row in rows]
    trace = {
        "type": "waterfall",
        "orientation": "h",
        "y": names,
        "x": values,
        "measure": ["total" if row.total else "relative" for row in rows],
        "text": [f"{value:+,.2f}".replace("-", "−") for value in values],
        "textposition": "outside",
        "cliponaxis": False,
        "constraintext": "none",
        "textfont": {"color": "@ink"},
        "increasing": {"marker": {"color": colour}},
        "decreasing": {"marker": {"color": f"{colour}/0.35", "line": {"color": colour, "width": 1.5}}},
        "totals": {"marker": {"color": "@ink"}},
        "connector": {"line": {"color": "@muted", "width": 1, "dash": "dot"}},
        "customdata": [[f"{value:+,.6f}", escape(row.note)] for value, row in zip(values, rows, strict=True)],
        "hovertemplate": "<b>%{y}</b> %{customdata[0]} USD<br>%{customdata[1]}<extra></extra>",
        "showlegend": False,
    }
    layout = {
        "height": 90 + 34 * len(rows),
        "hovermode": "closest",
        "annotations": [unit_below("USD")],
        "margin": {"t": 6},
        "xaxis": {"tickformat": ",.4~f", "zeroline": True, "range": _room(rows)},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "fixedrange": True, "labels": names},
    }
    return {"data": [trace], "layout": layout}


def _room(rows: Sequence[MoneyRow]) -> list[float]:
    """From the lowest to the highest place that a bar or the number at its end reaches."""
    at, ends = 0.0, [(0.0, 0)]
    for row in rows:
        usd = row.usd or 0.0
        at = usd if row.total else at + usd
        ends.append((at, -1 if usd < 0 else 1))
    number = 0.27 * ((max(ends)[0] - min(ends)[0]) or 1.0)
    reached = [place for place, _ in ends] + [place + number * way for place, way in ends]
    return [min(reached) - number / 8, max(reached)]


def difference(found: Sequence[Difference], accounts: Sequence[Account]) -> Plot:
    """The cumulative difference of each pair, net of what the model cost, with its band."""
    drawn = [each for each in found if each.series]
    plot = Plot(
        id="difference",
        title="Does the model pay for itself?",
        lead="The first account's profit or loss less the other's on the same market at the same moments, net of the model's cost, "
        "summed up over time, with its 95 % band. It tells something where the band leaves zero.",
        empty="There is no second account to compare with." if not found else "Too little was recorded to draw the difference.",
        choices=[("Accounts", [f"{each.first} − {each.second}" for each in drawn])] if len(drawn) > 1 else [],
    )
    colours = {account.name: account.colour for account in accounts}
    for n, each in enumerate(drawn):
        colour = colours.get(each.second, SPARE[0])
        plot.figures[str(n) if plot.choices else ""] = _difference(each, colour, plot.notes)
    return plot


def _difference(found: Difference, colour: str, notes: list[str]) -> dict[str, Any]:
    series = found.series
    rows = kept([[p.usd for p in series], [p.low for p in series], [p.high for p in series]], MAX_POINTS)
    name = f"{found.first} − {found.second}"
    if len(rows) < len(series):
        notes.append(thinned(name, len(rows), len(series), "points"))
    data: list[dict[str, Any]] = []
    banded = [series[i] for i in rows if series[i].low is not None and series[i].high is not None]
    if banded:
        x = [ms(point.ts) for point in banded]
        outline = {"x": x + x[::-1], "y": [p.high for p in banded] + [p.low for p in banded][::-1]}
        quiet = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"width": 0, "color": colour}}
        data.append({**quiet, **outline, "fill": "toself", "fillcolor": f"{colour}/0.18", "name": "95 % band"})
    told = [
        "no interval" if p.low is None or p.high is None else f"95 %: {p.low:+,.4f} to {p.high:+,.4f} USD"
        for p in (series[i] for i in rows)
    ]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(name),
            "x": [ms(series[i].ts) for i in rows],
            "y": [series[i].usd for i in rows],
            "line": {"color": colour, "width": 2},
            "text": told,
            "hovertemplate": "%{x}<br>%{y:+,.4f} USD<br>%{text}<extra></extra>",
        }
    )
    layout = {
        "height": 340,
        "hovermode": "x",
        "xaxis": time_axis(ranges="all"),
        "yaxis": {"tickformat": ",.4~f", "zeroline": True},
        "annotations": [unit("USD, net of the model's cost"), TIME],
        "margin": BELOW_TIME,
    }
    return {"data": data, "layout": layout}
