"""Plots of single markets: the book with our quotes and fills, and what we held. Pure.

Prices in USD, positions in shares (or units), as the core's integers divided by their scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from llm_maker.core.values import CASH_PER_USD
from llm_maker.report.html_plots import BELOW_TIME, MAX_POINTS, TIME, Account, Plot, kept, ms, thinned, time_axis, unit
from llm_maker.report.track import Fill, Quoted, Sample, Track

MAX_MARKETS = 40
"""That can be chosen; those with the most fills."""
MAX_ROWS = 10
"""Markets in the picture of inventory; those with the largest positions."""
ROWS_IN_ALL = 100_000
"""Samples drawn of all markets together: what keeps the page at a few megabytes."""
_NAME = 120
_COLUMNS = ("bid", "ask", "own_bid", "own_ask", "fair", "net")
_SEEN = (
    "%{x}<br>book %{customdata[0]} / %{customdata[1]}<br>ours %{customdata[2]} / %{customdata[3]}"
    "<br>fair value %{customdata[4]}<br>position %{customdata[5]}<extra></extra>"
)


def name_of(track: Track, instrument: str) -> str:
    quoted = track.instruments.get(instrument)
    name = quoted.name if quoted and quoted.name else instrument
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def quotes(accounts: Sequence[Account]) -> Plot:
    """Book, our quotes, fair value and fills of one market and account at a time, and the position below."""
    fills: dict[str, int] = {}
    for account in accounts:
        for fill in account.track.fills:
            fills[fill.instrument] = fills.get(fill.instrument, 0) + 1
    for account in accounts:
        fills |= {instrument: 0 for instrument, rows in account.track.samples.items() if rows and instrument not in fills}
    known = [i for i in fills if any(i in account.track.instruments for account in accounts)]
    markets = sorted(known, key=lambda i: (-fills[i], i))[:MAX_MARKETS]
    plot = Plot(
        id="quotes",
        title="Quotes against the book",
        lead="The book's best bid and ask as a band, our own quotes, our fair value, and our fills. The "
        "buttons set how much time is shown.",
        empty="Nothing was recorded of this account in this market.",
    )
    if not markets:
        plot.empty = "No market was sampled and there are no fills yet."
        return plot
    titles = [next(name_of(a.track, i) for a in accounts if i in a.track.instruments) for i in markets]
    plot.choices = [("Market", _distinct(titles, markets)), ("Account", [account.name for account in accounts])]
    if len(known) > len(markets):
        plot.notes.append(f"The {len(markets)} markets with the most fills, of {len(known)}.")
    most = min(MAX_POINTS, max(500, ROWS_IN_ALL // (len(markets) * len(accounts))))
    for m, instrument in enumerate(markets):
        for a, account in enumerate(accounts):
            if figure := _market(account, instrument, most, plot.notes):
                plot.figures[f"{m}|{a}"] = figure
    return plot


def _distinct(titles: list[str], instruments: list[str]) -> list[str]:
    return [f"{t} ({i})" if titles.count(t) > 1 else t for t, i in zip(titles, instruments, strict=True)]


def _market(account: Account, instrument: str, most: int, notes: list[str]) -> dict[str, Any] | None:
    track = account.track
    quoted, samples = track.instruments.get(instrument), track.samples.get(instrument, [])
    mine = [fill for fill in track.fills if fill.instrument == instrument]
    if quoted is None or not (samples or mine):
        return None
    rows = _kept(samples, most)
    of = f"{name_of(track, instrument)}, {account.name}"
    if len(rows) < len(samples):
        notes.append(thinned(of, len(rows), len(samples), "samples"))
    drawn = [samples[i] for i in rows]
    data: list[dict[str, Any]] = _lines() if drawn else []
    for side in (1, -1):
        hits = [fill for fill in mine if fill.side == side]
        at = kept([[fill.price for fill in hits]], MAX_POINTS) if hits else []
        if len(at) < len(hits):
            notes.append(thinned(of, len(at), len(hits), "fills"))
        if at:
            data.append(_fills([hits[i] for i in at], side, quoted))
    if not drawn:
        data.append(_positions(mine, quoted))
    what = "shares" if quoted.payout else "units"
    layout = {
        "height": 560,
        "hovermode": "closest",
        "xaxis": time_axis(anchor="y2", ranges="6 h"),
        "yaxis": {"domain": [0.32, 1], "tickformat": ".4~f"},
        "yaxis2": {"domain": [0, 0.2], "tickformat": ",.4~f", "zeroline": True},
        "annotations": [unit("price, USD a share" if quoted.payout else "price, USD"), unit(f"position, {what}", "y2"), TIME],
        "margin": BELOW_TIME,
    }
    return {"columns": _columns(drawn, quoted), "data": data, "layout": layout}


def _kept(samples: Sequence[Sample], most: int) -> list[int]:
    """The extremes of every line, and where a quote of ours is missing."""
    if not samples:
        return []
    seen = [[getattr(sample, name) or None for sample in samples] for name in _COLUMNS]
    missing = [[0 if sample.own_bid and sample.own_ask else 1 for sample in samples]]
    return kept([*seen, *missing], most)


def _columns(samples: Sequence[Sample], quoted: Quoted) -> dict[str, Any]:
    """Each column once; the page hands them to the lines that draw them. `t` in ms after `start`."""
    if not samples:
        return {}
    start = ms(samples[0].ts)
    columns: dict[str, Any] = {"start": start, "t": [ms(sample.ts) - start for sample in samples]}
    for name in ("bid", "ask", "own_bid", "own_ask", "fair"):
        columns[name] = [_price(round(getattr(sample, name), 1), quoted) for sample in samples]
    columns["net"] = [_plain(sample.net / quoted.qty_scale) for sample in samples]
    return columns


def _price(value: float, quoted: Quoted) -> float | None:
    return _plain(value / quoted.price_scale) if value else None


def _plain(value: float) -> float:
    """Short in the page: 12 instead of 12.0, seven digits at most."""
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() else short


def _lines() -> list[dict[str, Any]]:
    def line(column: str, name: str, colour: str, width: float, **more: Any) -> dict[str, Any]:
        drawn = {"color": colour, "width": width, "shape": "hv", **more.pop("line", {})}
        return {"type": "scatter", "mode": "lines", "column": column, "name": name, "line": drawn, "hovertemplate": _SEEN, **more}

    band = {"fill": "tonexty", "fillcolor": "@ink/0.10", "legendgroup": "book"}
    return [
        line("bid", "book", "@ink/0.35", 1, legendgroup="book", showlegend=False),
        line("ask", "book, best bid to ask", "@ink/0.35", 1, **band),
        line("fair", "our fair value", "@ink", 1.5, line={"dash": "dot", "shape": "linear"}),
        line("own_bid", "our bid", "@bid", 1.75),
        line("own_ask", "our ask", "@ask", 1.75),
        *_signed(),
    ]


def _signed() -> list[dict[str, Any]]:
    shape = {"type": "scatter", "mode": "lines", "yaxis": "y2", "showlegend": False, "fill": "tozeroy", "hovertemplate": _SEEN}
    return [
        {**shape, "column": column, "line": {"color": colour, "width": 0, "shape": "hv"}, "fillcolor": f"{colour}/0.6"}
        for column, colour in (("long", "@bid"), ("short", "@ask"))
    ]


def _fills(fills: Sequence[Fill], side: int, quoted: Quoted) -> dict[str, Any]:
    word, colour, symbol = ("buy", "@bid", "triangle-up") if side > 0 else ("sell", "@ask", "triangle-down")
    what = "shares" if quoted.payout else "units"
    marker = {"color": colour, "symbol": symbol, "size": 11, "opacity": 1, "line": {"color": "@card", "width": 1.25}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"our {word}",
        "x": [ms(fill.ts) for fill in fills],
        "y": [_plain(fill.price / quoted.price_scale) for fill in fills],
        "marker": marker,
        "customdata": [_told(fill, quoted) for fill in fills],
        "hovertemplate": f"<b>{word} %{{customdata[0]}} {what} at %{{y}} USD</b><br>%{{x}}<br>capture %{{customdata[1]}}"
        "<br>reason: %{customdata[2]}<br>model: %{customdata[3]}<extra></extra>",
    }


def _told(fill: Fill, quoted: Quoted) -> list[str]:
    capture = "not known, there was no mid"
    if fill.mid2:
        gained = fill.side * (fill.mid2 / 2 - fill.price) / quoted.price_scale
        each = f"{gained * 100:+.3g} cents a share" if quoted.payout else f"{gained:+.6g} USD a unit"
        capture = f"{each}, {gained * fill.qty / quoted.qty_scale:+.4f} USD"
    fee = f", fee {fill.fee / CASH_PER_USD:.4f} USD" if fill.fee else ""
    opinion = f"{fill.action.replace('_', ' ')}, confidence {fill.confidence:.2f} ({fill.model})" if fill.action else "no opinion"
    return [f"{fill.qty / quoted.qty_scale:,.6g}", capture + fee, escape(fill.reason or "not kept"), escape(opinion)]


def _positions(fills: Sequence[Fill], quoted: Quoted) -> dict[str, Any]:
    """Without samples the position is known at the fills only."""
    return {
        "type": "scatter",
        "mode": "lines",
        "yaxis": "y2",
        "showlegend": False,
        "x": [ms(fill.ts) for fill in fills],
        "y": [_plain(fill.position_after / quoted.qty_scale) for fill in fills],
        "line": {"color": "@ink", "width": 1.25, "shape": "hv"},
        "hovertemplate": "%{x}<br>position %{y:,}<extra></extra>",
    }


def inventory(accounts: Sequence[Account]) -> Plot:
    """The position in each market over time, one row a market, each on its own scale."""
    plot = Plot(
        id="inventory",
        title="Inventory",
        lead="Position in each market, each row on its own scale: above the line we are long YES, below it short (NO is held).",
        empty="This account held nothing.",
        choices=[("Account", [account.name for account in accounts])] if len(accounts) > 1 else [],
    )
    for n, account in enumerate(accounts):
        if figure := _inventory(account, plot.notes):
            plot.figures[str(n) if plot.choices else ""] = figure
    return plot


def _inventory(account: Account, notes: list[str]) -> dict[str, Any] | None:
    track = account.track
    held = {instrument: _held(track, instrument) for instrument in track.instruments}
    largest = {i: max(abs(net) for _, net in rows) for i, rows in held.items() if any(net for _, net in rows)}
    shown = sorted(largest, key=lambda i: (-largest[i], i))[:MAX_ROWS]
    if not shown:
        return None
    if len(shown) < len(largest):
        notes.append(f"{account.name}: the {len(shown)} markets with the largest positions, of {len(largest)}.")
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"hovermode": "closest", "showlegend": False, "annotations": [TIME]}
    row_px, above_px, below_px = 84, 24, BELOW_TIME["b"]
    height = len(shown) * row_px
    layout |= {"height": height + below_px, "margin": {"t": 0, "b": below_px}}
    for n, instrument in enumerate(shown):
        axis = "y" if n == 0 else f"y{n + 1}"
        quoted, rows = track.instruments[instrument], held[instrument]
        at = kept([[net for _, net in rows]], MAX_POINTS // 2)
        if len(at) < len(rows):
            notes.append(thinned(f"{name_of(track, instrument)}, {account.name}", len(at), len(rows), "positions"))
        top = 1 - (n * row_px + above_px) / height
        layout[f"yaxis{axis[1:]}"] = {
            "domain": [max(0.0, 1 - (n + 1) * row_px / height + 0.04 / len(shown)), top],
            "tickvals": _ticks([net / quoted.qty_scale for _, net in rows]),
            "tickformat": ",.4~f",
            "zeroline": True,
            "fixedrange": True,
        }
        what = "shares" if quoted.payout else "units"
        label = unit("", axis)
        layout["annotations"].append(
            {**label, "font": {"color": "@ink", "size": 12}, "market": name_of(track, instrument), "what": what}
        )
        data += _row([rows[i] for i in at], quoted, axis)
    layout["xaxis"] = time_axis(anchor="y" if len(shown) == 1 else f"y{len(shown)}")
    return {"data": data, "layout": layout}


def _ticks(nets: Sequence[float]) -> list[float]:
    """Zero and the extremes, but for one that is too near to zero to have room."""
    low, high = min(*nets, 0.0, 0.0), max(*nets, 0.0, 0.0)
    return [low] * (-low > 0.25 * (high - low)) + [0.0] + [high] * (high > 0.25 * (high - low))


def _held(track: Track, instrument: str) -> list[tuple[int, int]]:
    """(ts, net) where it changed, of the samples and of the fills between them, and at the end."""
    at = [(sample.ts, sample.net) for sample in track.samples.get(instrument, [])]
    at += [(fill.ts, fill.position_after) for fill in track.fills if fill.instrument == instrument]
    at.sort(key=lambda each: each[0])
    return [each for n, each in enumerate(at) if n in (0, len(at) - 1) or each[1] != at[n - 1][1]]


def _row(rows: Sequence[tuple[int, int]], quoted: Quoted, axis: str) -> list[dict[str, Any]]:
    x = [ms(ts) for ts, _ in rows]
    nets = [net / quoted.qty_scale for _, net in rows]
    what = "shares" if quoted.payout else "units"
    data = []
    for sign, colour in ((1, "@bid"), (-1, "@ask")):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": [_plain(net) if net * sign > 0 else 0 for net in nets],
                "yaxis": axis,
                "fill": "tozeroy",
                "fillcolor": f"{colour}/0.6",
                "line": {"color": colour, "width": 0, "shape": "hv"},
                "hovertemplate": f"%{{x}}<br>%{{y:,.6~f}} {what}<extra></extra>",
            }
        )
    return data
