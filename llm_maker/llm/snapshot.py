"""What the model is shown: `RequestSignals` and its context -> values under opaque handles, and the same as JSON for a person.

Pure. Knows no provider, no answer, no venue, and no word of the prompt around the values. Everything that a stranger wrote
(question, outcomes, category, rules, news) is untrusted: cleaned, its links reduced to their host, cut to its budget, and
fenced in characters that cannot occur inside; ids and addresses never enter the text.

The blind arm hides every number that says or implies the price: prices, trend, indicators, book, own quotes, average price,
P&L, past decisions (which way we leaned tells where the price was), money (over shares it is the price) and why it is asked.
Question and rules are shown as they are: they were written before there was a price, and their numbers are what the question
is about.
A note of the news that speaks of odds, betting or a price below a dollar is withheld whole, for numbers cut out of a
sentence leave a sentence that says something else. That is best effort: a price told in other words passes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from llm_maker.core.commands import MarketBrief, PastDecision, PortfolioBrief, RequestSignals
from llm_maker.llm.blocks import CLOSE, OPEN, BlockBudget, fit, tokens
from llm_maker.llm.news import Note, Report

MAX_OUTCOMES = 6
MAX_MARKETS = 200
"""More in one request is our own error, not the world's: config allows far fewer."""
MAX_NOTES = 12
MAX_NOTE = 1_000
"""Characters; a fact that takes more is none."""
MAX_PAST = 20
LEVELS = 3
"""Of each side of the book."""
_MIN_NOTE = 40
"""A note that has fewer tokens than this left is not begun."""
_LARGEST = 1e15
"""What is larger is no number of a market."""

_FENCE_LIKE = str.maketrans(dict.fromkeys(OPEN + "〚⟬⦗⦋⟮【〖〘⁅❲", "(") | dict.fromkeys(CLOSE + "〛⟭⦘⦌⟯】〗〙⁆❳", ")"))
_IGNORED = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
_UNSEEN = dict.fromkeys([*_IGNORED, *range(0xE0100, 0xE01F0)])
"""Marks and letters that print nothing, though Unicode does not count them as invisible; some carry hidden text."""
_HANDLE_LIKE = re.compile(r"(?<![A-Za-z0-9])([MmМмΜϺᎷꓟⲘⲙ])(?=\d)")
"""With the look-alikes of M that compatibility folding leaves alone: Cyrillic, Greek, Cherokee, Lisu, Coptic."""
_LINK = re.compile(r"(?i)(?:\b[a-z][a-z0-9+.-]{0,20}://|\bwww\.)(?:[^\s/?#]*@)?([^\s/?#:]*)\S*")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,60}")
_ADDRESS = re.compile(r"(?i)0x[0-9a-f]{8,}|[0-9]{20,}")
_FENCED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ODDS = re.compile(
    r"(?i)polymarket|kalshi|predictit|manifold|betfair|smarkets|prediction market|bookmak|bookie|sportsbook|\bodds\b"
    r"|\bbet(?:s|ting|tors?)?\b|wager|implied|\bpriced\b|\btrad(?:es?|ed|ing) at\b|\bcents?\b|¢|\$0?\.\d"
)

Shown = dict[str, Any]


def _no_rules(_market_id: str) -> str:
    return ""


def _no_news(_market_id: str) -> Report | None:
    return None


class Context(msgspec.Struct, frozen=True):
    """What is known of a market beside its brief, by market id; `now` is the market time of the question (0: not told)."""

    rules: Callable[[str], str] = _no_rules
    news: Callable[[str], Report | None] = _no_news
    now: int = 0


EMPTY = Context()
BUDGET = BlockBudget()


class Snapshot(msgspec.Struct, frozen=True):
    """One request as the model sees it: `handles` (M1 -> brief, in order), the values to print, and `view` for a person."""

    handles: dict[str, MarketBrief]
    portfolio: str
    values: dict[str, dict[str, str]]
    """Handle -> name of the value -> text, empty if there is none; the names are those of `templates.VARIABLES`."""
    view: Shown
    show_price: bool


def take(request: RequestSignals, *, show_price: bool = True, context: Context = EMPTY, budget: BlockBudget = BUDGET) -> Snapshot:
    """Freeze a request. `show_price` False is the blind arm: nothing is shown that would betray the price."""
    assert len(request.markets) <= MAX_MARKETS, "a request carries at most 200 markets"
    handles = {f"M{i}": market for i, market in enumerate(request.markets, 1)}
    portfolio = _portfolio(request.portfolio, show_price)
    hung_on = [market.event_id for market in request.markets if market.event_id]
    events = {event: f"E{i}" for i, event in enumerate(dict.fromkeys(e for e in hung_on if hung_on.count(e) > 1), 1)}
    values: dict[str, dict[str, str]] = {}
    markets: list[Shown] = []
    for handle, market in handles.items():
        values[handle], seen = _market(market, events.get(market.event_id, ""), show_price, context, budget)
        ids = {"handle": handle, "market_id": market.market_id, "event_id": market.event_id}
        markets.append(ids | seen | {"tokens": sum(map(tokens, values[handle].values()))})
    view = {"show_price": show_price, "portfolio": portfolio, "markets": markets}
    return Snapshot(handles, _line(portfolio), values, view, show_price)


# Foreign text.


@lru_cache(maxsize=1024)
def clean(text: str, limit: int) -> str:
    """Foreign text made harmless to print: compatibility forms folded, invisible characters gone, one line, cut."""
    line = _one_line(text, limit)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


@lru_cache(maxsize=1024)
def fence(text: str, budget: int) -> str:
    """Foreign text inside the fence, `budget` tokens at most; it holds no fence, no link, no address, nothing like a handle."""
    room = budget - tokens(OPEN + CLOSE)
    return f"{OPEN}{fit(_harmless(text, 4 * budget), room)}{CLOSE}" if room > 0 else ""


def host(url: str) -> str:
    """Of a link, where it leads; empty if that cannot be told."""
    found = _LINK.match(clean(url, 300))
    return found[1].lower() if found and _HOST.fullmatch(found[1]) else ""


def _one_line(text: str, limit: int) -> str:
    """Twice the limit of it, for what is folded or taken out may make it shorter, and megabytes take time."""
    line = text[: 2 * limit]
    if not line.isascii():
        line = _folded(line, 2 * limit).translate(_UNSEEN)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    return " ".join(line.split())


def _folded(text: str, limit: int) -> str:
    """Compatibility forms folded, no further than to the limit: one character may become eighteen."""
    folded = ""
    for at in range(0, len(text), 100):
        folded += unicodedata.normalize("NFKC", text[at : at + 100])
        if len(folded) >= limit:
            break
    return folded[:limit]


def _harmless(text: str, limit: int) -> str:
    line = _LINK.sub(lambda link: link[1] if _HOST.fullmatch(link[1]) else "(link)", _one_line(text, limit))
    line = _ADDRESS.sub("…", line.translate(_FENCE_LIKE))
    # Last, for what was taken out may have stood between the letter and its number.
    return _HANDLE_LIKE.sub(r"\1 ", line)


# One market.


def _market(
    market: MarketBrief, event: str, show_price: bool, context: Context, budget: BlockBudget
) -> tuple[dict[str, str], Shown]:
    """Every value of one market as text, and as a person reads it."""
    values = _question(market, budget.question)
    values["rules"] = _rules(context.rules(market.market_id), budget.rules)
    seen: Shown = {name: "".join(_FENCED.findall(text)) for name, text in values.items()}
    seen["outcomes"] = _FENCED.findall(values["outcomes"])
    values["news"], seen["news"] = _news(context.news(market.market_id), context.now, show_price, budget.news)
    left, left_out = budget.market, []
    for name, numbers in _numbers(market, event, show_price).items():
        text = _line(numbers)
        # A line is shown whole or not at all: half a number is another number.
        values[name] = text if tokens(text) <= left else ""
        left -= tokens(values[name])
        if values[name]:
            seen[name] = numbers
        elif numbers:
            left_out.append(name)
    values["past"], seen["past"] = _past(market, budget.past) if show_price else ("", [])
    return values, seen | {"left_out": left_out}


def _question(market: MarketBrief, budget: int) -> dict[str, str]:
    """The names of things may take half of the room, the question what they leave."""
    outcomes = market.outcomes[:MAX_OUTCOMES]
    each = budget // 2 // (len(outcomes) + 1)
    named = {"outcomes": " ".join(fence(o, each) for o in outcomes).strip(), "category": fence(market.category, each)}
    return {"question": fence(market.question, budget - sum(map(tokens, named.values())))} | named


def _rules(text: str, budget: int) -> str:
    fenced = fence(text, budget)
    return fenced if fenced != OPEN + CLOSE else ""


def _news(report: Report | None, now: int, show_price: bool, budget: int) -> tuple[str, Shown]:
    """The notes in the order in which they were told, each with a fair part of what is left."""
    if report is None or not budget:
        return "", {}
    age = _number(max(0, now - report.found_ns) / 60e9 if now else None, 0)
    notes = [(_source(note), _harmless(note.text, min(4 * budget, MAX_NOTE))) for note in report.notes[:MAX_NOTES]]
    told = [note for note in notes if show_price or not _ODDS.search(" ".join(note))]
    seen: Shown = {"age_minutes": age, "notes": [], "withheld": len(notes) - len(told)}
    text = f"age_minutes {age}" + ("" if notes else ", nothing found")
    if tokens(text) > budget or (notes and not told):
        return "", seen
    for i, (source, words) in enumerate(told):
        left = budget - tokens(text)
        head = f"\n- {OPEN}{source}: "
        cut = fit(words, min(left, max(left // (len(told) - i), _MIN_NOTE)) - tokens(head + CLOSE))
        if left < _MIN_NOTE or not cut:
            break
        text += f"{head}{cut}{CLOSE}"
        seen["notes"].append(f"{source}: {cut}")
    return text, seen | {"left_out": len(told) - len(seen["notes"])}


def _source(note: Note) -> str:
    """Of a note's date only a day, of its source only the host."""
    day = _DAY.match(note.date.strip())
    where = _HANDLE_LIKE.sub(r"\1 ", host(note.url))
    return f"{day[0] if day else 'undated'}, {where or 'no source'}"


def _past(market: MarketBrief, budget: int) -> tuple[str, list[Shown]]:
    """Whole decisions only, newest first, as many as fit."""
    decisions = [_decision(past) for past in market.past[:MAX_PAST]]
    if not decisions and market.last_action:
        action, p_yes = clean(market.last_action, 20), _number(market.last_p_yes, 3)
        decisions = [{"age_minutes": _minutes(market.last_age_s), "action": action, "p_yes": p_yes}]
    text, shown = "newest first", 0
    for decision in decisions:
        # Without commas: each would be a token, and no value holds a space.
        line = f"\n- {_line(decision).replace(',', '')}"
        if tokens(text + line) > budget:
            break
        text, shown = text + line, shown + 1
    return text if shown else "", decisions[:shown]


def _decision(past: PastDecision) -> Shown:
    return {
        "age_minutes": _minutes(past.age_s),
        "action": clean(past.action, 20),
        "confidence": _number(past.confidence, 2),
        "p_yes": _number(past.p_yes, 3),
        "price": _number(past.price, 4),
        "moved": _signed(past.moved, 4),
        "filled": _number(past.filled, 0),
        "pnl_usd": _signed(past.pnl_usd, 2),
    }


def _numbers(market: MarketBrief, event: str, show_price: bool) -> dict[str, Shown]:
    """The lines of numbers, the most important first; an empty one has nothing to say."""
    lines: dict[str, Shown] = {"price": _price(market) if show_price else {}}
    lines["market"] = {"kind": market.kind, "hours_to_end": _number(market.hours_to_end, 1)}
    if event:
        lines["market"]["event"] = event
    if show_price and market.trigger:
        lines["market"]["asked_because"] = clean(market.trigger, 40)
    lines["position"] = {"yes_shares": _signed(market.position, 2)}
    if show_price:
        lines["position"] |= {"avg_price": _number(market.avg_price), "pnl_pct": _signed(market.pnl_pct, 2)}
    lines["trend"] = _trend(market) if show_price else {}
    lines["depth"] = {
        "bid_shares": _number(market.bid_depth, 0),
        "ask_shares": _number(market.ask_depth, 0),
        "imbalance": _number(market.imbalance, 2),
    }
    lines["flow"] = {
        "taker_flow": _signed(market.flow, 0),
        "avg_trade": _number(market.avg_trade, 0),
        "trades_per_hour": _number(market.trades_per_hour, 1),
    }
    lines["own_quotes"], lines["book"] = {}, {}
    if show_price and (market.own_bid or market.own_ask):
        lines["own_quotes"] = {"bid": _level(market.own_bid), "ask": _level(market.own_ask)}
    if show_price and (market.bids or market.asks):
        lines["book"] = {
            "bids": " ".join(map(_level, market.bids[:LEVELS])) or "none",
            "asks": " ".join(map(_level, market.asks[:LEVELS])) or "none",
        }
    lines["reward"] = _reward(market)
    lines["indicators"] = {"5m": market.indicators} if show_price and market.indicators else {}
    return lines


def _price(market: MarketBrief) -> Shown:
    told = {"yes_price": market.yes_price, "bid": market.bid, "ask": market.ask, "spread": market.spread}
    return {name: _number(value) for name, value in told.items()}


def _trend(market: MarketBrief) -> Shown:
    told = {"5m": market.trend_5m, "1h": market.trend_1h, "4h": market.trend_4h, "24h": market.trend_24h}
    changes = {span: _signed(change) for span, change in told.items()}
    return changes | {"volatility_per_sqrt_hour": _number(market.volatility, 4)}


def _reward(market: MarketBrief) -> Shown:
    """What resting orders earn; it says how wide they may rest, not where."""
    if market.reward_usd_per_day is None:
        return {}
    return {
        "usd_per_day": _number(market.reward_usd_per_day, 2),
        "max_spread": _number(market.reward_max_spread, 4),
        "min_shares": _number(market.reward_min_size, 0),
    }


def _portfolio(portfolio: PortfolioBrief, show_price: bool) -> Shown:
    """In the blind arm without money: with one position open, exposure over shares is its price."""
    shown: Shown = {"mode": clean(portfolio.mode, 20), "open_positions": portfolio.open_positions}
    if show_price:
        shown |= {
            "equity_usd": _number(portfolio.equity_usd, 2),
            "cash_usd": _number(portfolio.cash_usd, 2),
            "pnl_today_usd": _signed(portfolio.pnl_today_usd, 2),
            "exposure_usd": _number(portfolio.exposure_usd, 2),
        }
    return shown


# How values are printed.


def _line(values: Shown) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _level(level: tuple[float, float] | None) -> str:
    return "none" if level is None else f"{_number(level[0])}x{_number(level[1], 0)}"


def _minutes(seconds: float | None) -> str:
    return _number(None if seconds is None else seconds / 60.0, 0)


def _number(value: float | None, places: int = 6) -> str:
    """Plain decimals, no exponent, no trailing zeros; `n/a` for what is not known or cannot be."""
    if value is None or not math.isfinite(value) or abs(value) > _LARGEST:
        return "n/a"
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _signed(value: float | None, places: int = 6) -> str:
    text = _number(value, places)
    return text if text in ("n/a", "0") or text.startswith("-") else f"+{text}"
