"""An account's numbers as lines for a terminal and rows for CSV. It computes nothing but widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.report.account import HORIZONS, LEANINGS, Account, Row
from llm_maker.report.metrics import MIN_BOOTSTRAP, MIN_DAYS_ANNUAL, Interval
from llm_maker.report.paired import MIN_DAYS, Paired
from llm_maker.report.text_table import table

_ROWS = 12
"""Of a table that the terminal shows; JSON and CSV have all."""
_NAME = 40
"""Letters of a name."""


def title(a: Account) -> str:
    """What this is, from when to when, and that it is simulated where it is."""
    return f"{whose(a.label)}, {moment(a.start_ns)} to {moment(a.end_ns)} UTC"


def whose(label: Mapping[str, object]) -> str:
    """`main on polymarket, PAPER money`: which account, and what kind of money and market it is about."""
    market = ", SIMULATED market" if label.get("simulated") else ""
    wallet = str(label.get("wallet") or "")
    told = "" if wallet in ("", label.get("mode")) else f", {wallet}"
    return f"{label.get('account')} on {label.get('venue')}, {str(label.get('mode')).upper()} money{market}{told}"


def moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M") if ns else "no time"


def lines(a: Account, *, short: bool = False) -> list[str]:
    """The report of one account; `short`: without who made it."""
    told = [title(a), *_split_lines(a), "", *_horizon_lines(a), "", *_ratio_lines(a)]
    return told if short else [*told, *_group_lines(a), *_term_lines(a), *_refusal_lines(a)]


def _split_lines(a: Account) -> list[str]:
    s = a.split
    after = s.horizons[HORIZONS[60]]
    parts: list[tuple[str, float | None, str]] = [
        ("capture", s.capture, f"against the mid at the fill, {a.fills - s.unknown_fills} of {a.fills} fills"),
        ("markout 60 s", after.markout_usd, f"what the mid did then, {after.known} of {a.fills} fills; minus is against us"),
        ("inventory", after.inventory_usd, "what it did afterwards"),
        *([("unknown", s.unknown, f"{s.unknown_fills} fills whose mid is not on record")] if s.unknown_fills else []),
        ("fees", s.fees, ""),
        ("rebates", s.rebates, ""),
        ("rewards", s.rewards, ""),
        *([("funding", s.funding, "")] if s.funding else []),
        ("rounding", s.rounding, "of cash to 0.000001 USD and of marks to the price unit"),
        *([] if s.closes else [("UNEXPLAINED", s.unexplained, "see below")]),
    ]
    return [
        f"  P&L at mid      {_usd(s.pnl)} USD   {'the parts add up to it exactly' if s.closes else 'THE PARTS DO NOT EXPLAIN IT'}",
        *(f"    {name:<14}{_usd(value)}       {note}".rstrip() for name, value, note in parts),
        f"  P&L at touch    {_usd(s.pnl_exit)} USD   after the taker fee, were all sold now",
        f"  model cost      {_usd(s.llm_cost)} USD   paid elsewhere, not in the P&L",
        *([] if s.closes else [f"  UNEXPLAINED: {s.why}"]),
    ]


def _usd(value: float | None) -> str:
    return f"{'n/a':>14}" if value is None else f"{_zero(value, 6):+14.6f}"


def _horizon_lines(a: Account) -> list[str]:
    """The same P&L, split at every horizon."""
    rows = [["  after the fills", "markout USD", "inventory USD", "fills"]]
    for name, after in a.split.horizons.items():
        rows.append([f"  {name}", number(after.markout_usd, 4), number(after.inventory_usd, 4), f"{after.known} of {after.fills}"])
    return table(rows)


def _ratio_lines(a: Account) -> list[str]:
    r, counts = a.ratios, a.counts
    unit = "day" if r.step_s == 86_400 else "hour"
    needed = f"n/a ({r.steps} {unit}{'' if r.steps == 1 else 's'}, {MIN_BOOTSTRAP} with a change needed)"
    per_day = f"{interval(r.per_day_usd)} USD" if r.per_day_usd else needed
    few = f"; NO VERDICT: {_time(r.days * 86_400)} seen, {MIN_DAYS} days needed" if r.days < MIN_DAYS else ""
    wins = "n/a" if r.wins is None else f"{r.wins.value:.0%} [{r.wins.low:.0%}, {r.wins.high:.0%}]"
    win, loss = number(r.average_win_usd, 4), number(r.average_loss_usd, 4)
    share = "" if r.drawdown_share is None else f", {_part(r.drawdown_share, 3)} of the equity at its peak"
    years = f"a year's {number(r.sharpe_year)} and {number(r.sortino_year)} ({MIN_DAYS_ANNUAL} days needed)"
    told = {
        "a day": f"{per_day}{few}",
        f"per {unit}": f"Sharpe {number(r.sharpe, 3)}, Sortino {number(r.sortino, 3)}; {years}",
        "drawdown": f"{r.drawdown_usd:.4f} USD{share}",
        "round trips": f"{r.trips}, won {wins}; average win {win} USD, loss {loss} USD, before fees; held {_time(r.hold_s)}",
        "traded": f"{r.shares:.2f} shares for {r.turnover_usd:.2f} USD, {_part(r.turnover_share)} of the mean equity; "
        f"P&L {number(r.per_share_cents, 4)} cents a share",
        "return": f"{_part(r.return_on_capital, 4)} of the mean equity of {_plain(r.equity_usd)} USD",
        "quoted": f"{_part(r.quoted_share)} of the time, mean of the markets",
        "rewards": f"{number(r.rewards_per_day_usd, 4)} USD a day, {_part(r.reward_share)} of the pools while quoted",
        "counts": f"{a.fills} fills ({a.failed_fills} failed to settle), {counts.get('placed', 0)} orders, "
        f"{counts.get('decisions', 0)} decisions, {counts.get('halts', 0)} halts, {counts.get('fallbacks', 0)} fallbacks",
    }
    return [f"  {name:<16}{line}" for name, line in told.items()]


def _group_lines(a: Account) -> list[str]:
    told = [
        "",
        "  Who made it, USD: P&L is of the fills to the end, less fees, before rebates, rewards and rounding; [ ] is 95 %;",
        "  60 s and 1 h are the markouts of those fills whose price then is known; of 20 rows one leaves its interval by luck.",
    ]
    for heading, rows in a.by.items():
        if heading != "market" and len({row.name for row in rows} - {"none"}) < (1 if _opinions(heading) else 2):
            continue
        shown = sorted(rows, key=lambda row: -row.fills)[:_ROWS]
        told += ["", *table([_head(heading), *map(_cells, shown)])]
        if len(rows) > len(shown):
            told.append(f"  and {len(rows) - len(shown)} more with fewer fills (--json, --csv)")
    return told


def _head(heading: str) -> list[str]:
    return [f"  by {heading}".ljust(_NAME + 2), "fills", "shares", "capture", "60 s", "1 h", "P&L", "P&L a day"]


def _opinions(heading: str) -> bool:
    return heading in ("model", "action", "confidence")


def _cells(row: Row) -> list[str]:
    money = (row.capture_usd, row.markouts_usd[HORIZONS[60]], row.markouts_usd[HORIZONS[3_600]], row.pnl_usd)
    return [
        f"  {shortened(row.name)}",
        str(row.fills),
        f"{row.shares:.1f}",
        *(number(value, 4) for value in money),
        interval(row.per_day_usd),
    ]


def shortened(name: str) -> str:
    """The beginning and the end of a long name: a market's number stands at its end."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 15]}…{name[-14:]}"


def _term_lines(a: Account) -> list[str]:
    """Of each term of the strategy the fills that went the way it moved the quotes, and those against it."""
    rows = [
        [f"  {term}, {row.name}", *_cells(row)[1:]]
        for term, found in a.terms.items()
        for row in sorted(found, key=lambda row: LEANINGS.index(row.name))
        if row.name != LEANINGS[-1]
    ]
    if not rows:
        return []
    note = "  With: bought where the term raised the price we quote around, sold where it lowered it."
    return ["", note, *table([_head("term of the strategy"), *rows])]


def _refusal_lines(a: Account) -> list[str]:
    shown = list(a.refusals.items())[:_ROWS]
    rows = [[f"  {reason}", _time(seconds), f"{count} times"] for reason, (count, seconds) in shown]
    told = ["", "  refused, by time over all markets:", *(table(rows) if rows else ["  nothing"])]
    return [*told, f"  and {len(a.refusals) - len(shown)} more (--json, --csv)"] if len(a.refusals) > len(shown) else told


def _zero(value: float, digits: int) -> float:
    """Without the sign of a zero."""
    return round(value, digits) + 0.0


def number(value: float | None, digits: int = 2) -> str:
    """With its sign; None is n/a."""
    return "n/a" if value is None else f"{_zero(value, digits):+.{digits}f}"


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def interval(value: Interval | None) -> str:
    """`+1.20 [-0.30, +2.70]`."""
    if value is None:
        return "n/a"
    digits = 2 if max(abs(value.low), abs(value.high)) >= 1 else 4
    return f"{number(value.value, digits)} [{number(value.low, digits)}, {number(value.high, digits)}]"


def _part(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{_zero(100 * value, digits):.{digits}f} %"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.1f} h"
        if seconds < 172_800
        else f"{seconds / 86_400:.1f} days"
    )


# Tables.


def csv_tables(a: Account) -> dict[str, list[dict[str, Any]]]:
    """File name -> rows, for `--csv`; what is not known is None."""
    who = {key: a.label.get(key) for key in ("account", "venue", "mode", "wallet")} | {"simulated": bool(a.label.get("simulated"))}
    s = a.split
    lines_of = (
        "pnl",
        "pnl_exit",
        "capture",
        "unknown",
        "fees",
        "rebates",
        "rewards",
        "funding",
        "rounding",
        "unexplained",
        "llm_cost",
    )
    ratios = {name: value for name, value in msgspec.structs.asdict(a.ratios).items() if not isinstance(value, Interval)}
    groups = [(heading, row) for heading, rows in a.by.items() for row in rows]
    groups += [(f"term: {term}", row) for term, rows in a.terms.items() for row in rows]
    return {
        "pnl": [{**who, "line": name, "usd": getattr(s, name)} for name in lines_of],
        "markouts": [{**who, "horizon": name, **msgspec.structs.asdict(after)} for name, after in s.horizons.items()],
        "ratios": [{**who, **ratios, **_limits("per_day_usd", a.ratios.per_day_usd), **_limits("wins", a.ratios.wins)}],
        "groups": [{**who, "by": heading, **_group(row)} for heading, row in groups],
        "refusals": [{**who, "reason": reason, "episodes": n, "seconds": t} for reason, (n, t) in a.refusals.items()],
    }


def _group(row: Row) -> dict[str, Any]:
    marks = {f"markout_{name.replace(' ', '')}_usd": value for name, value in row.markouts_usd.items()}
    known = {f"fills_{name.replace(' ', '')}": count for name, count in row.known.items()}
    return {
        "name": row.name,
        "instrument": row.instrument,
        "fills": row.fills,
        "shares": row.shares,
        "capture_usd": row.capture_usd,
        **marks,
        **known,
        "pnl_usd": row.pnl_usd,
        **_limits("per_day_usd", row.per_day_usd),
    }


def _limits(name: str, value: Interval | None) -> dict[str, float | None]:
    found = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def beside(accounts: Mapping[str, Account]) -> list[str]:
    """Several accounts in one table, by name; USD."""
    rows = [["USD", "P&L", "capture", "60 s", "inventory", "fees", "rebates", "rewards", "model", "drawdown", "fills", "shares"]]
    for name, a in accounts.items():
        s, after = a.split, a.split.horizons[HORIZONS[60]]
        money = (s.pnl, s.capture, after.markout_usd, after.inventory_usd, s.fees, s.rebates, s.rewards, s.llm_cost)
        cells = [number(value, 4) for value in money]
        rows.append([shortened(name), *cells, f"{a.ratios.drawdown_usd:.4f}", str(a.fills), f"{a.ratios.shares:.1f}"])
    return table(rows)


def differences(pairs: Sequence[Paired]) -> list[dict[str, Any]]:
    """Comparisons as plain data, in USD and seconds."""
    return [_difference(p) for p in pairs]


def _difference(p: Paired) -> dict[str, Any]:
    million = 1_000_000
    limits = None if p.per_day is None else Interval(p.per_day.value / million, p.per_day.low / million, p.per_day.high / million)
    return {
        "first": p.first,
        "second": p.second,
        "total_usd": p.total / million,
        "before_model_cost_usd": p.gross / million,
        "days": p.days,
        "step_s": p.step_ns // NS_PER_S,
        "steps": p.steps,
        "partial_steps": p.partial,
        **_limits("per_day_usd", limits),
        "p": p.p,
        "variants": p.variants,
        "verdict": p.verdict or None,
        "why": p.why,
    }
