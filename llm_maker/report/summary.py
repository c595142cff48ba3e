"""What a run came to: the numbers of `--json`, the P&L split, and the five closing lines. Pure; reads a state, writes nothing.

P&L at mid = spread captured at the fills + what the market did to the inventory - fees + rebates + rewards + funding. The model's
bill is paid elsewhere and stands beside it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.core.state import Counts, Flows, State, Tally
from llm_maker.core.values import NS_PER_S, usd
from llm_maker.core.worth import equity, exit_equity


class Split(msgspec.Struct, frozen=True):
    """Where the money of an account came from, USD; the parts add up to `pnl`."""

    pnl: float
    spread: float
    inventory: float
    fees: float
    rebates: float
    rewards: float
    funding: float
    llm_cost: float


class Mark(msgspec.Struct, frozen=True):
    """A state's money and counts at one moment, to measure a run by its difference."""

    equity: int
    exit_equity: int
    flows: Flows
    counts: Counts
    now: int
    refused: dict[str, Tally]


def mark(state: State) -> Mark:
    """Remember where the account stands now."""
    return Mark(
        equity(state),
        exit_equity(state),
        msgspec.convert(msgspec.to_builtins(state.flows), Flows),
        msgspec.convert(msgspec.to_builtins(state.counts), Counts),
        state.now,
        {k: Tally(t.count, t.ns) for k, t in state.refused.items()},
    )


def split(pnl: int, flows: Flows, before: Flows | None = None) -> Split:
    """The parts of `pnl` (cash units, transfers already out) between two moments."""
    base = before or Flows()
    fees, rebates = flows.fees - base.fees, flows.rebates - base.rebates
    rewards, funding = flows.rewards - base.rewards, flows.funding - base.funding
    capture = flows.capture - base.capture
    return Split(
        pnl=usd(pnl),
        spread=usd(capture),
        inventory=usd(pnl - capture - fees - rebates - rewards - funding),
        fees=usd(fees),
        rebates=usd(rebates),
        rewards=usd(rewards),
        funding=usd(funding),
        llm_cost=usd(base.llm_cost - flows.llm_cost),
    )


def refusals(state: State, before: dict[str, Tally]) -> dict[str, dict[str, float]]:
    """Reason -> episodes and seconds since `before`, still open ones counted up to now; the longest first."""
    totals = {k: [t.count, t.ns] for k, t in state.refused.items()}
    for market in state.markets.values():
        for key, since in market.refusals.items():
            totals[key.partition(" ")[2]][1] += state.now - since
    for key, tally in before.items():
        totals[key][0] -= tally.count
        totals[key][1] -= tally.ns
    ranked = sorted(totals.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    return {k: {"episodes": count, "seconds": round(ns / NS_PER_S, 3)} for k, (count, ns) in ranked if count or ns}


def result(state: State, before: Mark) -> dict[str, Any]:
    """What this run did, for `--json`; the caller adds what only it knows (mode, seed, speed)."""
    flows, counts, base = state.flows, state.counts, before.counts
    transfers = flows.transfers - before.flows.transfers
    pnl = equity(state) - before.equity - transfers
    parts = split(pnl, flows, before.flows)
    return {
        "account": state.account,
        "markets": len(state.markets),
        "decisions": counts.decisions - base.decisions,
        "failures": counts.failures - base.failures,
        "fallbacks": counts.fallbacks - base.fallbacks,
        "signals": counts.signals - base.signals,
        "signals_refused": counts.signals_refused - base.signals_refused,
        "orders_placed": counts.placed - base.placed,
        "orders_canceled": counts.canceled - base.canceled,
        "fills": counts.fills - base.fills,
        "merges": counts.merges - base.merges,
        "pnl_usd": parts.pnl,
        "pnl_exit_usd": usd(exit_equity(state) - before.equity - transfers),
        "pnl_split_usd": msgspec.to_builtins(parts),
        "llm_cost_usd": parts.llm_cost,
        "equity_usd": usd(equity(state)),
        "gaps": counts.gaps - base.gaps,
        "halts": counts.halts - base.halts,
        "down": {venue.name: venue.down_reason for venue in state.venues.values() if not venue.up},
        "halted_by": {name: halt.text for name, halt in state.halts.items()},
        "refusals": refusals(state, before.refused),
        "market_seconds": (state.now - before.now) / NS_PER_S if before.now else (state.now - state.counts.started_ns) / NS_PER_S,
    }


_WORTH_TELLING_S = 1.0
_ADVICE = {
    "wide spread": "raise execution.max_spread_threshold, or select markets with tighter books",
    "thin book": "lower execution.min_liquidity_threshold, or select deeper markets",
    "market cap": "raise risk.bankroll_usd or risk.max_market_pct: the cap per market binds",
    "free cash": "lower risk.min_free_cash_pct or quote fewer markets: cash binds",
    "order cap": "raise risk.max_order_usd: orders are cut by it",
    "gross cap": "raise risk.max_gross_pct: the cap over all markets binds",
    "position cap": "raise strategy.max_position_size: the position cap binds",
    "pull": "nothing: jumps and sweeps pulled the quotes, as they should",
    "resolution": "select markets further from their end",
    "book": "look at the feed: books were not trusted for long",
    "venue": "look at the connection to the venue",
    "low confidence": "lower strategy.min_confidence_to_trade, or use signal_rule: pooled",
}


def closing_lines(run: dict[str, Any]) -> list[str]:
    """Five lines after each run: spread, adverse moves, model cost, top refusal by time, the change that would help most.

    Where a twin ran, a sixth: what the model was worth so far.
    """
    parts, refused = run["pnl_split_usd"], run["refusals"]
    # A fraction of a second at the start, before the first book, is no refusal worth a word.
    top = next((name for name, n in refused.items() if n["seconds"] >= _WORTH_TELLING_S), "")
    seconds = refused[top]["seconds"] if top else 0.0
    label = " (paper money, simulated market)" if run["simulated"] else " (paper money)" if run["paper_money"] else ""
    moves = "lost to adverse moves" if parts["inventory"] <= 0 else "gained on inventory"
    told = f"{top}, {seconds:.0f}s over all markets" if top else "none"
    return [
        f"earned from spread      {gain(parts['spread'])}{label}",
        f"{moves:<23} {gain(parts['inventory'])}; fees {gain(parts['fees'])}, "
        f"rebates {gain(parts['rebates'])}, rewards {gain(parts['rewards'])}",
        f"model cost              ${run['llm_cost_usd']:.4f} for {run['decisions']} decision{'' if run['decisions'] == 1 else 's'}",
        f"top refusal by time     {told}",
        f"what would help most    {advice(run, top)}",
        *worth_lines(run),
    ]


def worth_lines(run: dict[str, Any]) -> list[str]:
    """What the model was worth against the twin since both began, its cost paid; nothing where no twin ran."""
    twin = run.get("twin")
    if twin is None:
        return []
    if twin["difference_usd"] is None:
        return ["the model's worth so far  unknown: the twin did not run to the end"]
    days = twin["verdict_days"]
    doubt = f"no verdict under {days} days" if twin["days"] < days else "its interval is in the report"
    return [f"the model's worth so far  {gain(twin['difference_usd'])} against the twin ({doubt})"]


def gain(value: float) -> str:
    """`+$8.52`, `-$0.05`, `$0.00`: the sign before the dollar, as in `status`."""
    shown = round(value, 2)
    return f"{'-' if shown < 0 else '+' if shown > 0 else ''}${abs(shown):,.2f}"


def advice(run: dict[str, Any], top: str) -> str:
    """The one change that would help most, from the numbers of the run."""
    if run["markets"] == 0 and run["down"]:
        return "look at the connection to the venue: " + "; ".join(run["down"].values())
    if run["markets"] == 0:
        return "select a market: market_selection lets none in; `llm-maker markets` says why of each"
    if run["halted_by"]:
        return "see why it halted: " + "; ".join(run["halted_by"].values())
    if run["fallbacks"]:
        return "the model failed: see logs/llm_decisions.jsonl for cause and cure"
    if run["fills"] == 0:
        return _ADVICE.get(top, "run longer, or choose busier markets: nothing filled")
    if run["pnl_split_usd"]["inventory"] < -run["pnl_split_usd"]["spread"]:
        return "raise strategy.edge_floor_ticks or skew_max_ticks: moves against the position cost more than the spread earned"
    return _ADVICE.get(top, "run longer: these numbers are few")
