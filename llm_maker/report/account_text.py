"""An account's numbers as lines for a terminal and rows for CSV. It computes nothing but sums of widths."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from llm_maker.report.account import Account, Row
from llm_maker.report.metrics import Interval
from llm_maker.report.pnl import HORIZONS
from llm_maker.report.text_table import table

NAMES = {1: "1 s", 10: "10 s", 60: "60 s", 300: "300 s", 3_600: "1 h", 86_400: "1 d", 0: "settlement"}
_MARKETS = 12
"""Rows of a table that the terminal shows; JSON, CSV and HTML have all."""


def title(a: Account) -> str:
    """What this is, and that it is simulated where it is."""
    label = a.label
    simulated = ", SIMULATED market" if label.get("simulated") else ""
    where = f"{label.get('account')} on {label.get('venue')}, {str(label.get('mode')).upper()} money{simulated}"
    return f"{where} ({label.get('wallet')}), {moment(a.start_ns)} to {moment(a.end_ns)}"


def moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M") if ns else "no time"


def lines(a: Account) -> list[str]:
    """The report of one account."""
    return [title(a), *_split_lines(a), "", *_horizon_lines(a), "", *_ratio_lines(a), *_group_lines(a), *_refusal_lines(a), ""]


def _split_lines(a: Account) -> list[str]:
    s = a.split
    sixty = s.horizons[60]
    parts: list[tuple[str, float | None, str]] = [
        ("capture", s.capture, f"against the mid of their moment: {a.fills - s.unknown_fills} of {a.fills} fills"),
        ("markout 60 s", sixty[0], f"what the mid did then, of {sixty[2]} of {sixty[3]} fills; minus is against us"),
        ("inventory", sixty[1], "what it did after that"),
        ("fees", s.fees, ""),
        ("rebates", s.rebates, ""),
        ("rewards", s.rewards, ""),
        ("funding", s.funding, "") if s.funding else ("", None, ""),
        ("unknown", s.unknown, f"fills without a mid: {s.unknown_fills}") if s.unknown_fills else ("", None, ""),
        ("rounding", s.rounding, "of cash, fill by fill"),
    ]
    told = [
        f"  P&L at mid   {s.pnl:+12.4f} USD   at the touch with fees {s.pnl_exit:+.4f}",
        *(f"    {name:<12} {_usd(value)}   {note}".rstrip() for name, value, note in parts if name),
    ]
    if not s.closes:
        told.append(f"    UNEXPLAINED  {s.unexplained:+12.4f}   {s.why}")
    told.append(f"  model cost   {s.llm_cost:+12.4f}       paid elsewhere, not in the P&L")
    return told


def _usd(value: float | None) -> str:
    return f"{'n/a':>12}" if value is None else f"{value:+12.4f}"


def _horizon_lines(a: Account) -> list[str]:
    """The same P&L, split at every horizon."""
    rows = [["  after", "markout", "inventory", "fills"]]
    for horizon in HORIZONS:
        markout, inventory, known, of = a.split.horizons[horizon]
        rows.append(
            [f"  {NAMES[horizon]}", "n/a" if markout is None else f"{markout:+.4f}", f"{inventory:+.4f}", f"{known} of {of}"]
        )
    return table(rows)


def _ratio_lines(a: Account) -> list[str]:
    r = a.ratios
    unit = "day" if r.step_s == 86_400 else "hour"
    few = "" if r.days >= 20 else f"; {r.days:.2f} days are too few for a verdict (20 needed)"
    wins = "n/a" if r.wins is None else f"{r.wins.value:.0%} [{r.wins.low:.0%}, {r.wins.high:.0%}]"
    return [
        f"  a day        {_interval(r.per_day)} USD{few}",
        f"  per {unit}     Sharpe {_number(r.sharpe)}, Sortino {_number(r.sortino)}; a year's "
        f"{_number(r.sharpe_year)} and {_number(r.sortino_year)} (30 days needed)",
        f"  drawdown     {r.drawdown_usd:.4f} USD"
        + ("" if r.drawdown_share is None else f", {r.drawdown_share:.2%} of the highest equity"),
        f"  round trips  {r.trips}, won {wins}; average win {_number(r.average_win_usd, 4)}, "
        f"loss {_number(r.average_loss_usd, 4)} USD, held {_time(r.hold_s)}",
        f"  traded       {r.shares:.2f} shares, {r.turnover_usd:.2f} USD; {_number(r.per_share_cents, 4)} cents a share, "
        f"{_number(None if r.return_on_capital is None else 100 * r.return_on_capital, 4)} % of the mean equity",
        f"  quoted       {_part(r.quoted_share)} of the time, mean of the markets; rewards "
        f"{_number(r.rewards_per_day, 4)} USD a day, {_part(r.reward_share)} of the pools",
        f"  counts       {a.fills} fills ({a.failed_fills} failed to settle), {a.counts.get('placed', 0)} orders, "
        f"{a.counts.get('decisions', 0)} decisions, halts {a.counts.get('halts', 0)}, fallbacks {a.counts.get('fallbacks', 0)}",
    ]


def _group_lines(a: Account) -> list[str]:
    told: list[str] = []
    for heading, rows in a.by.items():
        if len(rows) < 2 and heading != "market":
            continue
        shown = sorted(rows, key=lambda row: -row.fills)[:_MARKETS]
        cells = [[f"  by {heading}", "fills", "shares", "capture", "60 s", "1 h", "P&L", "a day, 95 %"], *map(_cells, shown)]
        told += ["", *table(cells)]
        if len(rows) > len(shown):
            told.append(f"  ... and {len(rows) - len(shown)} more (--json, --csv)")
    return told


def _cells(row: Row) -> list[str]:
    money = (row.capture, row.markouts[60], row.markouts[3_600], row.pnl)
    return [f"  {row.name[:60]}", str(row.fills), f"{row.shares:.1f}", *(_number(v, 4) for v in money), _interval(row.per_day)]


def _refusal_lines(a: Account) -> list[str]:
    told = [f"    {seconds:10.0f}s {count:6d}x  {reason}" for reason, (count, seconds) in list(a.refusals.items())[:12]]
    return ["", "  refused, by time:", *(told or ["    nothing"])]


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:+.{digits}f}"


def _interval(value: Interval | None) -> str:
    return "n/a" if value is None else f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _part(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    return f"{seconds:.0f}s" if seconds < 120 else f"{seconds / 60:.0f}min" if seconds < 7_200 else f"{seconds / 3_600:.1f}h"


def csv_tables(a: Account) -> dict[str, list[dict[str, Any]]]:
    """File name -> rows, for `--csv`."""
    who = {key: a.label.get(key) for key in ("account", "venue", "mode")} | {"simulated": bool(a.label.get("simulated"))}
    s = a.split
    money = (
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
    horizons = [
        {**who, "horizon_s": h, "horizon": NAMES[h], "markout_usd": v[0], "inventory_usd": v[1], "fills": v[2], "of": v[3]}
        for h, v in s.horizons.items()
    ]
    groups = [
        {
            **who,
            "by": heading,
            "name": row.name,
            "fills": row.fills,
            "shares": row.shares,
            "capture_usd": row.capture,
            **{f"markout_{h}s_usd" if h else "markout_settlement_usd": row.markouts[h] for h in HORIZONS},
            "pnl_usd": row.pnl,
            **_limits(row.per_day),
        }
        for heading, rows in a.by.items()
        for row in rows
    ]
    refusals = [{**who, "reason": reason, "episodes": n, "seconds": t} for reason, (n, t) in a.refusals.items()]
    return {
        "pnl": [{**who, "line": name, "usd": getattr(s, name)} for name in money],
        "markouts": horizons,
        "groups": groups,
        "refusals": refusals,
    }


def _limits(value: Interval | None) -> dict[str, float | None]:
    found: Iterable[float | None] = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip(("per_day_usd", "per_day_low_usd", "per_day_high_usd"), found, strict=True))


def beside(accounts: dict[str, Account]) -> list[str]:
    """Several accounts in one table, by name."""
    rows = [["", "P&L", "capture", "60 s", "inventory", "fees", "rebates", "rewards", "model", "fills", "shares", "drawdown"]]
    for name, a in accounts.items():
        s = a.split
        markout, inventory, _, _ = s.horizons[60]
        money = (s.pnl, s.capture, markout, inventory, s.fees, s.rebates, s.rewards, s.llm_cost)
        cells = [_number(value, 4) for value in money]
        rows.append([name, *cells, str(a.fills), f"{a.ratios.shares:.1f}", f"{a.ratios.drawdown_usd:.2f}"])
    return table(rows)
