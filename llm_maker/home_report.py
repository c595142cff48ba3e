"""The report of a home: what made or lost the money of each account, and what its models' opinions were worth. Reads the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core.skill import Skill
from llm_maker.core.state import Counts, Flows, Tally
from llm_maker.core.values import usd
from llm_maker.report import skill_page, summary
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import SKILL
from llm_maker.runtime.rows import Scope


def report(home: Path) -> dict[str, Any]:
    """Totals of every account that has rows in the home's ledger; each of its own mode and venue, never mixed."""
    path = home / "positions" / "ledger.sqlite3"
    if not path.exists():
        return {"accounts": []}
    ledger = Ledger.open(path)
    try:
        return {"accounts": [_account(ledger, scope) for scope in ledger.scopes()]}
    finally:
        ledger.close()


def _account(ledger: Ledger, scope: Scope) -> dict[str, Any]:
    kept = ledger.risk_state(scope)
    totals = ledger.totals(scope)

    def read(key: str, kind: Any, default: Any) -> Any:
        return msgspec.json.decode(kept[key], type=kind) if key in kept else default

    flows = read("flows", Flows, Flows())
    refused = read("refused", dict[str, Tally], {})
    worth = read("equity", int, 0)
    parts = summary.split(worth - flows.start - flows.transfers, flows)
    ranked = sorted(refused.items(), key=lambda item: -item[1].ns)
    return {
        "venue": scope.venue,
        "mode": scope.mode,
        "wallet": scope.wallet,
        "account": scope.account,
        "equity_usd": usd(worth),
        "pnl_usd": parts.pnl,
        "pnl_exit_usd": usd(read("exit_equity", int, 0) - flows.start - flows.transfers),
        "pnl_split_usd": msgspec.to_builtins(parts),
        "llm_cost_usd": usd(totals.decision_cost),
        "counts": msgspec.to_builtins(read("counts", Counts, Counts())),
        "fills": totals.fills,
        "failed_settlements": totals.failed_fills,
        "round_trips": totals.trips,
        "winning_round_trips": totals.winning_trips,
        "decisions": totals.decisions,
        "positions": ledger.positions(scope),
        "refusals": {k: {"episodes": t.count, "seconds": round(t.ns / 1e9, 3)} for k, t in ranked},
        "quoted_seconds": {k: round(ns / 1e9, 1) for k, ns in read("quoted", dict[str, int], {}).items()},
        "names": read("names", dict[str, str], {}),
        "opinions": {key.removeprefix(SKILL): msgspec.json.decode(value) for key, value in kept.items() if key.startswith(SKILL)},
    }


def report_lines(found: dict[str, Any]) -> list[str]:
    """The report for people: one block an account."""
    lines: list[str] = []
    for a in found["accounts"]:
        parts = a["pnl_split_usd"]
        simulated = ", SIMULATED market" if a["venue"] == "simulated" else ""
        lines += [
            f"{a['account']} on {a['venue']}, {a['mode'].upper()} money{simulated} ({a['wallet']})",
            f"  P&L at mid {parts['pnl']:+10.2f}   at the touch with fees {a['pnl_exit_usd']:+.2f}",
            f"    spread   {parts['spread']:+10.2f}   what the fills earned against the mid of their moment",
            f"    inventory{parts['inventory']:+10.2f}   what the market did to the position afterwards",
            f"    fees     {parts['fees']:+10.2f}",
            f"    rebates  {parts['rebates']:+10.2f}",
            f"    rewards  {parts['rewards']:+10.2f}",
            f"  model cost {a['llm_cost_usd']:10.4f}   for {a['decisions']} decisions (paid elsewhere, not in the P&L)",
            f"  fills {a['fills']} ({a['failed_settlements']} failed to settle), round trips {a['round_trips']} "
            f"({a['winning_round_trips']} won), halts {a['counts']['halts']}, fallbacks {a['counts']['fallbacks']}",
            "  refused, by time:",
        ]
        lines += [f"    {v['seconds']:10.0f}s {v['episodes']:6g}x  {k}" for k, v in list(a["refusals"].items())[:12]] or [
            "    nothing"
        ]
        lines += skill_page.lines({key: msgspec.convert(skill, Skill) for key, skill in a["opinions"].items()})
        lines.append("")
    return lines
