"""The report as one HTML page that needs nothing else: text, tables, and interactive plots drawn by the plotly.js inside it.

The page may not reach anywhere: its own content security policy allows only its two scripts, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.report.html_curves import markouts, reliability
from llm_maker.report.html_extras import Difference, Extras, KeyFigure, MoneyRow, StatedBin, Table
from llm_maker.report.html_markets import inventory, quotes
from llm_maker.report.html_plots import Account, Plot, accounts_of, difference, equity, refusals, waterfall
from llm_maker.report.track import Track

ROLES = {
    "main": "the strategy with the model's advice",
    "twin": "the same without the model",
    "placebo": "the same with shuffled advice",
    "main-paper": "a paper copy of main beside live money",
}
_SLOT = re.compile(r"<!--slot:(\w+)-->")
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def page(tracks: Sequence[Track], extras: Extras) -> str:
    """The whole document. `tracks` are the accounts of one or more runs, the one that matters first; empty tracks are fine."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    template = resources.files("llm_maker.report").joinpath("html_page.html").read_text(encoding="utf-8")
    library = str(get_plotlyjs()).replace("\r\n", "\n")
    own = _SCRIPT.findall(template)[-1]
    accounts = accounts_of(tracks)
    plots = _plots(accounts, extras)
    title = extras.title or " and ".join(dict.fromkeys(account.name for account in accounts)) or "no account"
    parts = {
        "policy": _policy(library, own),
        "title": escape(title),
        "library": library,
        "header": _header(title, accounts, extras),
        "nav": _nav(accounts, extras),
        "body": "".join(_body(plots, accounts, extras)),
        "data": _json({plot.id: {"figures": plot.figures, "empty": plot.empty} for plot in plots}),
        "footer": _footer(extras),
    }
    return _SLOT.sub(lambda found: parts[found.group(1)], template)


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts)
    nowhere = "default-src 'none'; form-action 'none'; base-uri 'none'"
    return f"{nowhere}; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _json(value: object) -> str:
    """JSON that ends no script element, whatever it says."""
    text = msgspec.json.encode(value).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plots(accounts: Sequence[Account], extras: Extras) -> list[Plot]:
    return [
        equity(accounts),
        waterfall(extras.identity, accounts),
        difference(extras.differences, accounts),
        quotes(accounts),
        inventory(accounts),
        markouts(accounts, 1),
        markouts(accounts, -1),
        reliability(extras.reliability),
        refusals(accounts, extras.refusals),
    ]


def _header(title: str, accounts: Sequence[Account], extras: Extras) -> str:
    labels = [account.track.label for account in accounts]
    venues = dict.fromkeys(str(label["venue"]) for label in labels if label.get("venue"))
    facts = [f"<div><dt>Venue</dt><dd>{escape(', '.join(venues) or 'not told')}</dd></div>"]
    if accounts:
        start = min(account.track.start_ns for account in accounts)
        end = max(account.track.end_ns for account in accounts)
        facts.append(f"<div><dt>Period</dt><dd>{_moment(start)} to {_moment(end)} UTC</dd></div>")
        facts.append(f"<div><dt>Length</dt><dd>{_length(end - start)} of market time</dd></div>")
    if extras.build:
        facts.append(f"<div><dt>Build</dt><dd>{escape(extras.build)}</dd></div>")
    legend = "".join(
        f'<li><span class="swatch" style="--c:var(--{account.colour[1:]})"></span><b>{escape(account.name)}</b>'
        f"{_role(account, accounts)}</li>"
        for account in accounts
    )
    return (
        f'<p class="brand">llm_maker report {_badges(accounts)}</p><h1>{escape(title)}</h1>'
        f'<dl class="facts">{"".join(facts)}</dl><ul class="accounts">{legend}</ul>'
    )


def _badges(accounts: Sequence[Account]) -> str:
    labels = [account.track.label for account in accounts]
    badges = [_badge(mode) for mode in dict.fromkeys(str(label["mode"]) for label in labels if label.get("mode"))]
    if any(label.get("simulated") for label in labels):
        badges.append('<span class="badge simulated" title="No real market: a generated one">SIMULATED</span>')
    return "".join(badges)


def _badge(mode: str) -> str:
    kind = "live" if mode == "live" else "paper"
    told = "Real money" if kind == "live" else "No real money"
    return f'<span class="badge {kind}" title="{told}">{escape(mode.upper())}</span>'


def _role(account: Account, beside: Sequence[Account]) -> str:
    """What the account is; where not all are of one kind, of which it is."""
    kinds = [
        ", ".join([str(a.track.label.get("mode", "")), *(["simulated"] if a.track.label.get("simulated") else [])]) for a in beside
    ]
    told = [ROLES.get(str(account.track.label.get("account", "")), "")]
    told += [kinds[beside.index(account)]] if len(set(kinds)) > 1 else []
    said = "; ".join(filter(None, told))
    return f" <span>{escape(said)}</span>" if said else ""


def _moment(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // NS_PER_S, UTC):%Y-%m-%d %H:%M}"


def _length(ns: int) -> str:
    minutes = ns // NS_PER_S // 60
    days, hours = minutes // 1_440, minutes // 60 % 24
    parts = [(days, "d"), (hours, "h"), (minutes % 60, "min")]
    return " ".join(f"{n} {word}" for n, word in parts if n) or f"{ns / NS_PER_S:.0f} s"


def _body(plots: Sequence[Plot], accounts: Sequence[Account], extras: Extras) -> Iterable[str]:
    by_id = {plot.id: plot for plot in plots}
    yield _tiles(extras.headline)
    yield _section("money", "Money", [_card(by_id["equity"]), _card(by_id["waterfall"]), _identity(extras.identity, accounts)])
    yield _section(
        "model",
        "The model",
        [_differences(extras.differences), _card(by_id["difference"]), _card(by_id["reliability"], _bins(extras.reliability))],
    )
    yield _section("markets", "Markets", [_card(by_id["quotes"]), _card(by_id["inventory"])])
    curves = "".join(_card(by_id[each]) for each in ("markout-buys", "markout-sells"))
    note = (
        "<p class='note'>Whiskers are 95 % intervals; fills in one market within one horizon count as one move, and where there "
        "are too few moves there is no whisker. A horizon that the record does not reach is absent.</p>"
    )
    yield _section("fills", "After the fills", [f'<div class="pair">{curves}</div>{note}', _card(by_id["refusals"])])
    if extras.tables:
        yield _section("tables", "Tables", [_table(table) for table in extras.tables])


def _section(name: str, title: str, parts: Iterable[str]) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{"".join(parts)}</section>'


def _nav(accounts: Sequence[Account], extras: Extras) -> str:
    places = [("money", "Money"), ("model", "The model"), ("markets", "Markets"), ("fills", "After the fills")]
    places += [("tables", "Tables")] if extras.tables else []
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in places)
    return f'{links}<span class="badges">{_badges(accounts)}</span>'


def _tiles(figures: Sequence[KeyFigure]) -> str:
    if not figures:
        return '<p class="none">No key figures were computed.</p>'
    tiles = "".join(
        f'<div class="tile"><dt>{escape(each.label)}</dt><dd><b>{_measured(each.value)}</b>'
        f"{f'<small>{escape(each.note)}</small>' if each.note else ''}</dd></div>"
        for each in figures
    )
    return f'<dl class="tiles" id="figures">{tiles}</dl>'


def _measured(value: str) -> str:
    """The number large, its unit small."""
    found = re.match(r"([+−-]?[\d.,]+)(\s.+)", value)
    return f"{escape(found[1])}<span>{escape(found[2])}</span>" if found else escape(value)


def _bins(curves: dict[str, list[StatedBin]]) -> str:
    """The points of the reliability curves as numbers, beside them."""
    rows = [
        f'<tr><th scope="row">{escape(model) + ", " if len(curves) > 1 else ""}{each.stated:.1%}</th><td>{each.observed:.1%}</td>'
        f"<td>{each.low:.1%} to {each.high:.1%}</td><td>{each.n:,}</td></tr>"
        for model, bins in curves.items()
        for each in bins
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("stated", "happened", "if right, 95 %", "forecasts"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>' if rows else ""


def _card(plot: Plot, beside: str = "") -> str:
    choices = ""
    for label, options in plot.choices:
        listed = "".join(f'<option value="{n}">{escape(option)}</option>' for n, option in enumerate(options))
        choices += f"<label>{escape(label)}<select>{listed}</select></label>"
    choices = f'<div class="choices">{choices}</div>' if choices else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in plot.notes)
    if len(plot.notes) > 3:
        notes = f"<details><summary>{len(plot.notes)} notes on what is drawn</summary><ul>{notes}</ul></details>"
    elif notes:
        notes = f"<ul class='note'>{notes}</ul>"
    kind = "card plot square" if plot.square else "card plot"
    return (
        f'<figure class="{kind}" id="plot-{plot.id}" aria-labelledby="title-{plot.id}"><div><h3 id="title-{plot.id}">'
        f'{escape(plot.title)}</h3><p class="lead">{escape(plot.lead)}</p>{choices}</div>'
        f'<div class="drawing"><div class="canvas"></div>{notes}</div>{beside}</figure>'
    )


def _identity(identity: dict[str, list[MoneyRow]], accounts: Sequence[Account]) -> str:
    """One line for each part, one column for each account."""
    if not identity:
        return ""
    lines = dict.fromkeys(row.label for rows in identity.values() for row in rows)
    found = {name: {row.label: row for row in rows} for name, rows in identity.items()}
    notes = {row.label: row.note for rows in reversed(list(identity.values())) for row in rows}
    totals = {row.label for rows in identity.values() for row in rows if row.total}
    body = []
    for line in lines:
        cells = "".join(f"<td>{_usd(rows[line].usd) if line in rows else ''}</td>" for rows in found.values())
        kind = ' class="total"' if line in totals else ""
        note = f"<small>{escape(notes[line])}</small>" if notes[line] else ""
        body.append(f'<tr{kind}><th scope="row">{escape(line)}{note}</th>{cells}</tr>')
    colours = {account.name: account.colour[1:] for account in accounts}
    head = "".join(
        f'<th scope="col"><span class="swatch" style="--c:var(--{colours.get(name, "muted")})"></span>{escape(name)}, USD</th>'
        for name in found
    )
    return _framed("Profit and loss, line by line", f'<tr><th scope="col"></th>{head}</tr>', body, "")


def _usd(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None else f"{value:+,.{digits}f}".replace("-", "−")


def _differences(found: Sequence[Difference]) -> str:
    if not found:
        return ""
    body = []
    for each in found:
        digits = 2 if max(abs(each.mean or 0.0), abs(each.low or 0.0), abs(each.high or 0.0)) >= 1.0 else 4
        known = each.low is not None and each.high is not None
        interval = f"{_usd(each.low, digits)} to {_usd(each.high, digits)}" if known else "no interval"
        cells = "".join(f"<td>{cell}</td>" for cell in (_usd(each.mean, digits), interval, f"{each.days:.3g}"))
        name = f"{escape(each.first)} − {escape(each.second)}<small>verdict: {escape(each.verdict)}</small>"
        body.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "USD a day", "95 % interval", "days"))
    return _framed("Paired differences, net of the model's cost", f"<tr>{head}</tr>", body, "")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in table.columns)
    body = [
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
        if row
    ]
    if not body:
        return f'<div class="card"><h3>{escape(table.title)}</h3><p class="none">No rows yet.</p></div>'
    return _framed(table.title, f"<tr>{head}</tr>", body, table.note)


def _framed(title: str, head: str, body: Sequence[str], note: str) -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<div class="card"><h3>{escape(title)}</h3><div class="scroll" tabindex="0"><table><thead>{head}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{below}</div>"
    )


def _footer(extras: Extras) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in extras.notes)
    beware = f"<h2>To beware of</h2><ul>{notes}</ul>" if notes else ""
    how = "With a pointer: drag over a plot to zoom, double-click to return. An entry of a legend hides its line."
    return (
        f"{beware}<p>{how} This page is complete in itself and asks nothing of any network. Plots by plotly.js (MIT licence).</p>"
    )
