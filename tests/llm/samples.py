"""Briefs, requests and their context for the tests of the slow loop."""

import re
from typing import Any

from llm_maker.core.commands import MarketBrief, PastDecision, PortfolioBrief, RequestSignals
from llm_maker.llm.news import Note, Report
from llm_maker.llm.snapshot import Context

HANDLE_LINE = re.compile(r"^\[(M\d+)\]$", re.MULTILINE)
NOW = 1_800_000_000_000_000_000

PORTFOLIO = PortfolioBrief(
    equity_usd=1000.5, cash_usd=871.25, pnl_today_usd=-3.75, exposure_usd=129.25, open_positions=2, mode="active"
)


def brief(market_id: str = "0xaaaa", **changed: Any) -> MarketBrief:
    fields: dict[str, Any] = {
        "market_id": market_id,
        "question": "Will it rain in Oslo on Friday?",
        "outcomes": ("Yes", "No"),
        "category": "weather",
        "kind": "binary",
        "yes_price": 0.4351,
        "spread": 0.0172,
        "bid": 0.4265,
        "ask": 0.4437,
        "bid_depth": 1200.0,
        "ask_depth": 800.0,
        "imbalance": 1.5,
        "trend_5m": 0.0113,
        "trend_1h": -0.0219,
        "trend_24h": None,
        "volatility": 0.0137,
        "flow": 120.0,
        "position": 50.0,
        "avg_price": 0.4219,
        "pnl_pct": 3.13,
        "hours_to_end": 36.5,
        "last_action": "buy_yes",
        "last_p_yes": 0.4777,
        "last_age_s": 1800.0,
    } | changed
    return MarketBrief(**fields)


def request(*markets: MarketBrief, request_id: str = "R1", probe: bool = False) -> RequestSignals:
    return RequestSignals(request_id=request_id, markets=markets or (brief(),), portfolio=PORTFOLIO, reason="interval", probe=probe)


PAST = (
    PastDecision(1800.0, "buy_yes", 0.71, 0.4777, 0.4213, 0.0138, 12.0, 0.37),
    PastDecision(5400.0, "hold", 0.52, 0.4551, 0.4192, 0.0159, 40.0, -1.29),
)


def rich(market_id: str = "0xaaaa", **changed: Any) -> MarketBrief:
    """A brief with everything that can be known."""
    fields: dict[str, Any] = {
        "trend_4h": 0.0307,
        "trend_24h": -0.0411,
        "bids": ((0.4265, 700.0), (0.4212, 300.0), (0.4188, 200.0), (0.4001, 9.0)),
        "asks": ((0.4437, 500.0), (0.4479, 300.0)),
        "avg_trade": 37.0,
        "trades_per_hour": 14.25,
        "own_bid": (0.4212, 61.0),
        "own_ask": (0.4479, 62.0),
        "reward_usd_per_day": 25.5,
        "reward_max_spread": 0.035,
        "reward_min_size": 50.0,
        "event_id": "0xeeee",
        "trigger": "near stop",
        "past": PAST,
        "indicators": "log-odds EMA9 -0.262 EMA21 -0.281, RSI14 54, MACD +0.012 signal +0.009, CVD 1h +120, POC 0.43 (0.41-0.45)",
    } | changed
    return brief(market_id, **fields)


def note(
    text: str = "The forecast says rain.", date: str = "2026-11-20", url: str = "https://met.example/oslo?utm_source=x&id=77"
) -> Note:
    return Note(text=text, date=date, url=url)


def context(rules: str = "YES if it rains on Friday by the airport's gauge.", notes: tuple[Note, ...] = (note(),)) -> Context:
    """The same rules and news for every market; the news are 12 minutes old."""
    report = Report(market_id="any", found_ns=NOW - 12 * 60 * 10**9, model="m", notes=notes)
    return Context(lambda _: rules, lambda _: report, NOW)
