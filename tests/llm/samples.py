"""Briefs and requests for the tests of the slow loop."""

from typing import Any

from llm_maker.core.commands import MarketBrief, PortfolioBrief, RequestSignals

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
