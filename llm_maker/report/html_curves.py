"""Plots of means with their doubt: markouts by horizon, and stated probabilities against what came of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.report.html_extras import StatedBin
from llm_maker.report.html_plots import Account, Plot, unit, unit_below
from llm_maker.report.track import MARKOUTS_S, Fill, Track

HORIZONS = {1: "1 s", 10: "10 s", 60: "1 min", 300: "5 min", 3_600: "1 h", 86_400: "1 d"}
SHORT, LONG = MARKOUTS_S[:4], MARKOUTS_S[4:]
"""Drawn on a scale each: the moves of a day would flatten those of a minute."""
MIN_GROUPS = 10
"""Fewer independent moves have no interval."""
_Z = 1.96


def markouts(accounts: Sequence[Account], side: int) -> Plot:
    """Mean move of the mid after our fills on one side, by horizon, with its interval."""
    word = "buys" if side > 0 else "sells"
    plot = Plot(
        id=f"markout-{word}",
        title=f"Markout after {word}",
        lead="Mean move of the mid in our favour after a fill. Below zero the market went against us: adverse selection.",
        empty=f"No {word} with a known mid after them yet.",
    )
    linear = any(each.payout == 0 for account in accounts for each in account.track.instruments.values())
    scale = "basis points" if linear else "cents a share"
    data: list[dict[str, Any]] = []
    for n, account in enumerate(accounts):
        points = {horizon: _markout(account.track, side, horizon, linear) for horizon in MARKOUTS_S}
        if any(points.values()):
            shift = (n - (len(accounts) - 1) / 2) * 0.11
            data += [_markout_trace(account, points, horizons, shift, scale) for horizons in (SHORT, LONG)]
    if data:
        layout = {
            "height": 330,
            "hovermode": "closest",
            "xaxis": {**_steps(SHORT), "domain": [0, 0.6]},
            "xaxis2": {**_steps(LONG), "domain": [0.74, 1], "anchor": "y2"},
            "yaxis": {"tickformat": ",.3~f", "zeroline": True},
            "yaxis2": {"tickformat": ",.3~f", "zeroline": True, "anchor": "x2", "nticks": 5},
            "annotations": [unit(scale), {**unit("own scale", "y2"), "x": 0.74}, unit_below("time after the fill")],
        }
        plot.figures[""] = {"data": data, "layout": layout}
    return plot


def _steps(horizons: Sequence[int]) -> dict[str, Any]:
    ticks = {"tickvals": list(range(len(horizons))), "ticktext": [HORIZONS[horizon] for horizon in horizons]}
    return {**ticks, "range": [-0.5, len(horizons) - 0.5], "fixedrange": True}


class Markout(msgspec.Struct, frozen=True):
    """Mean over `n` fills and the half width of its 95 % interval (None: too few); `capture` is theirs at the fill."""

    mean: float
    half: float | None
    n: int
    groups: int
    capture: float


def _markout(track: Track, side: int, horizon: int, linear: bool) -> Markout | None:
    """Fills of one market within one horizon share their move, so the error is clustered by market and horizon."""
    moves: list[float] = []
    captures: list[float] = []
    sums: dict[tuple[str, int], list[float]] = {}
    for fill in track.fills:
        if fill.side != side or fill.mid2 == 0 or horizon not in fill.marks:
            continue
        per = _per_unit(track, fill, linear)
        moves.append(side * (fill.marks[horizon] - fill.mid2) / 2 * per)
        captures.append(side * (fill.mid2 / 2 - fill.price) * per)
        sums.setdefault((fill.instrument, fill.ts // (horizon * NS_PER_S)), []).append(moves[-1])
    if not moves:
        return None
    n, groups, mean = len(moves), len(sums), math.fsum(moves) / len(moves)
    half = None
    if groups >= MIN_GROUPS:
        square = math.fsum(math.fsum(move - mean for move in each) ** 2 for each in sums.values())
        half = _Z * math.sqrt(square * groups / (groups - 1)) / n
    return Markout(mean, half, n, groups, math.fsum(captures) / n)


def _per_unit(track: Track, fill: Fill, linear: bool) -> float:
    """From price units to cents a share, or to basis points of the mid."""
    return 2e4 / fill.mid2 if linear else 100 / track.instruments[fill.instrument].price_scale


def _markout_trace(
    account: Account, points: Mapping[int, Markout | None], horizons: Sequence[int], shift: float, scale: str
) -> dict[str, Any]:
    name = escape(account.name)
    shown = [points[horizon] for horizon in horizons]
    halves = [round(point.half or 0.0, 5) if point else 0.0 for point in shown]
    axes = {"showlegend": True} if horizons is SHORT else {"xaxis": "x2", "yaxis": "y2", "showlegend": False}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "x": [round(n + shift, 3) for n in range(len(shown))],
        "y": [None if point is None else round(point.mean, 5) for point in shown],
        "error_y": {"type": "data", "array": halves, "color": account.colour, "thickness": 1.5, "width": 3},
        "line": {"color": account.colour, "width": 2, "dash": account.dash},
        "marker": {"color": account.colour, "size": 7},
        "customdata": [[HORIZONS[h], _markout_told(points[h], scale)] for h in horizons],
        "hovertemplate": f"<b>{name}</b>, %{{customdata[0]}}: %{{customdata[1]}}<extra></extra>",
        **axes,
    }


def _markout_told(point: Markout | None, scale: str) -> str:
    if point is None:
        return ""
    doubt = f"± {point.half:.3f}" if point.half is not None else f"(no interval: {point.groups} of {MIN_GROUPS} moves needed)"
    return (
        f"{point.mean:+.3f} {doubt} {scale}<br>{point.n:,} fills, {point.groups:,} separate moves<br>"
        f"capture at the fill {point.capture:+.3f}, left of it {point.capture + point.mean:+.3f}"
    )


def reliability(curves: Mapping[str, Sequence[StatedBin]]) -> Plot:
    """What happened over what was stated, with the band in which right forecasts would lie."""
    plot = Plot(
        id="reliability",
        title="Are the model's probabilities right?",
        lead="Share of YES outcomes over the probability that the model stated. The band holds 95 % of the points of a model that "
        "is right; a hollow point lies outside it. A larger point stands for more forecasts.",
        empty="No forecast has an outcome yet.",
        choices=[("Model", list(curves))] if len(curves) > 1 else [],
        square=True,
    )
    for n, bins in enumerate(curves.values()):
        if bins:
            plot.figures[str(n) if plot.choices else ""] = _reliability(sorted(bins, key=lambda each: each.stated))
    return plot


def _reliability(bins: Sequence[StatedBin]) -> dict[str, Any]:
    x = [each.stated for each in bins]
    quiet = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    edge = {"width": 0, "color": "@ink"}
    most = max(each.n for each in bins)
    outside = [not each.low <= each.observed <= each.high for each in bins]
    points = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": [each.observed for each in bins],
        "name": "observed",
        "line": {"color": "@main", "width": 1.5},
        "marker": {
            "color": ["@card" if out else "@main" for out in outside],
            "line": {"color": "@main", "width": 2},
            "size": [7 + 11 * math.sqrt(each.n / most) for each in bins],
            "opacity": 1,
        },
        "customdata": [[each.n, each.low, each.high] for each in bins],
        "hovertemplate": "stated %{x:.1%}<br>happened %{y:.1%}<br>if right %{customdata[1]:.1%} to %{customdata[2]:.1%}"
        "<br>%{customdata[0]:,} forecasts<extra></extra>",
    }
    band = {"fill": "tonexty", "fillcolor": "@ink/0.10", "name": "95 % of a model that is right", "showlegend": True}
    axis = {"range": [-0.03, 1.03], "tickformat": ".0%", "dtick": 0.25}
    return {
        "data": [
            {**quiet, "x": x, "y": [each.low for each in bins], "line": edge},
            {**quiet, "x": x, "y": [each.high for each in bins], "line": edge, **band},
            {**quiet, "x": [0, 1], "y": [0, 1], "line": {"color": "@muted", "width": 1, "dash": "dot"}},
            {**points, "showlegend": False},
        ],
        "layout": {
            "height": 440,
            "hovermode": "closest",
            "xaxis": axis,
            "yaxis": axis,
            "annotations": [unit("share that came out YES"), unit_below("stated probability of YES")],
        },
    }
