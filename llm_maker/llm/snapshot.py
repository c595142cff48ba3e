"""What the model is shown: `RequestSignals` -> a compact text under opaque handles, and the same as JSON for a person.

Pure. Knows no provider, no answer, no venue. Everything a venue wrote (question, outcomes, category) is untrusted:
cleaned, cut, and fenced in characters that cannot occur inside; ids and addresses never enter the text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

import msgspec

from llm_maker.core.commands import MarketBrief, PortfolioBrief, RequestSignals

OPEN, CLOSE = "⟦", "⟧"
MAX_QUESTION = 300
MAX_OUTCOME = 40
MAX_OUTCOMES = 6
MAX_CATEGORY = 40
MAX_MARKETS = 200
"""More in one request is our own error, not the world's: config allows far fewer."""
_FENCE_CHARS = str.maketrans("", "", OPEN + CLOSE)
_HANDLE_LIKE = re.compile(r"(?<![A-Za-z0-9])([Mm])(?=\d)")
_INVISIBLE = ("C", "Zl", "Zp")
"""Unicode categories that print nothing or rearrange what does: control, format, surrogate, private, unassigned."""

Shown = dict[str, Any]


class Snapshot(msgspec.Struct, frozen=True):
    """One request as the model sees it: `text`, `handles` (M1 -> brief, in order), and `view` for a person."""

    text: str
    handles: dict[str, MarketBrief]
    view: Shown
    show_price: bool


def take(request: RequestSignals, *, show_price: bool = True) -> Snapshot:
    """Freeze a request. `show_price` False is the blind arm: nothing is shown that would betray the price."""
    assert len(request.markets) <= MAX_MARKETS, "a request carries at most 200 markets"
    handles = {f"M{i}": market for i, market in enumerate(request.markets, 1)}
    shown = {handle: _shown(market, show_price) for handle, market in handles.items()}
    portfolio = _portfolio(request.portfolio, show_price)
    blocks = [_line("portfolio", portfolio), *(_block(h, shown[h], m) for h, m in handles.items())]
    view = {
        "show_price": show_price,
        "portfolio": portfolio,
        "markets": [{"handle": h, "market_id": m.market_id, **_untrusted(m), **shown[h]} for h, m in handles.items()],
    }
    return Snapshot("\n\n".join(blocks), handles, view, show_price)


def clean(text: str, limit: int) -> str:
    """Foreign text made harmless to print: compatibility forms folded, invisible characters gone, one line, cut."""
    folded = unicodedata.normalize("NFKC", text[: 4 * limit])
    spaced = "".join(c if c.isprintable() or not _invisible(c) else " " for c in folded)
    line = " ".join(spaced.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def fence(text: str, limit: int) -> str:
    """Foreign text inside the fence: it holds neither the fence's characters nor anything that reads as a handle."""
    inner = _HANDLE_LIKE.sub(r"\1 ", clean(text, limit).translate(_FENCE_CHARS))
    return f"{OPEN}{inner}{CLOSE}"


def _invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return category.startswith(_INVISIBLE)


def _untrusted(market: MarketBrief) -> Shown:
    return {
        "question": clean(market.question, MAX_QUESTION),
        "outcomes": [clean(o, MAX_OUTCOME) for o in market.outcomes[:MAX_OUTCOMES]],
        "category": clean(market.category, MAX_CATEGORY),
    }


def _shown(market: MarketBrief, show_price: bool) -> dict[str, Shown]:
    """The lines of one market in reading order; values as they are printed."""
    lines: dict[str, Shown] = {"market": {"kind": market.kind, "hours_to_end": _number(market.hours_to_end, 1)}}
    if show_price:
        lines["price"] = {
            "yes_price": _number(market.yes_price),
            "bid": _number(market.bid),
            "ask": _number(market.ask),
            "spread": _number(market.spread),
        }
        lines["trend"] = {
            "5m": _signed(market.trend_5m),
            "1h": _signed(market.trend_1h),
            "24h": _signed(market.trend_24h),
            "volatility_per_sqrt_hour": _number(market.volatility),
        }
    lines["depth"] = {
        "bid_shares": _number(market.bid_depth, 0),
        "ask_shares": _number(market.ask_depth, 0),
        "imbalance": _number(market.imbalance, 2),
        "taker_flow": _signed(market.flow, 0),
    }
    lines["position"] = {"yes_shares": _signed(market.position, 2)}
    if show_price:
        lines["position"] |= {"avg_price": _number(market.avg_price), "pnl_pct": _signed(market.pnl_pct, 2)}
        # Which way we last leaned, and our last probability, betray the price that they were compared with.
        lines["last_answer"] = {
            "action": clean(market.last_action, 20) or "none",
            "p_yes": _number(market.last_p_yes),
            "age_s": _number(market.last_age_s, 0),
        }
    return lines


def _portfolio(portfolio: PortfolioBrief, show_price: bool) -> Shown:
    """In the blind arm without money: with one position open, exposure over shares is its price."""
    shown: Shown = {"mode": portfolio.mode, "open_positions": portfolio.open_positions}
    if show_price:
        shown |= {
            "equity_usd": _number(portfolio.equity_usd, 2),
            "cash_usd": _number(portfolio.cash_usd, 2),
            "pnl_today_usd": _signed(portfolio.pnl_today_usd, 2),
            "exposure_usd": _number(portfolio.exposure_usd, 2),
        }
    return shown


def _block(handle: str, lines: dict[str, Shown], market: MarketBrief) -> str:
    outcomes = " ".join(fence(o, MAX_OUTCOME) for o in market.outcomes[:MAX_OUTCOMES])
    head = [f"[{handle}]", f"question: {fence(market.question, MAX_QUESTION)}"]
    head.append(f"outcomes: {outcomes or 'n/a'} category: {fence(market.category, MAX_CATEGORY)}")
    return "\n".join(head + [_line(name, values) for name, values in lines.items()])


def _line(name: str, values: Shown) -> str:
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items())


def _number(value: float | None, places: int = 6) -> str:
    """Plain decimals, no exponent, no trailing zeros; `n/a` for what is not known."""
    if value is None or not math.isfinite(value):
        return "n/a"
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(value: float | None, places: int = 6) -> str:
    text = _number(value, places)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text
