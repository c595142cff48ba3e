"""The state as plain dicts, for a person: `status`, `markets`, `why`. Pure: reads the state, changes nothing, sends nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from llm_maker.console import chain
from llm_maker.console.chain import caps
from llm_maker.core import risk
from llm_maker.core.orders import Status
from llm_maker.core.quote import effective
from llm_maker.core.state import Intent, Market, State, Venue
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, Side, usd
from llm_maker.core.worth import equity, exit_equity

__all__ = ["ask", "caps", "counts", "find", "intents", "line", "slow_loop", "status", "units", "unknown_orders", "venues", "why"]


def status(state: State) -> dict[str, Any]:
    """One page: mode, money, markets, orders, the slow loop."""
    worth = equity(state)
    return {
        "account": state.account,
        "real_money": state.params.risk.live,
        "mode": state.mode.value,
        "why": state.mode_text(),
        "now_ns": state.now,
        "session": state.session,
        "equity_usd": usd(worth),
        "exit_equity_usd": usd(exit_equity(state)),
        "cash_usd": usd(state.cash),
        "pnl_usd": usd(worth - state.flows.start - state.flows.transfers),
        "today_usd": usd(worth - state.risk.day_base) if state.risk.judged_ns else None,
        "exposure_usd": usd(state.gross),
        "markets": [line(state, m) for m in state.markets.values()],
        "orders": sum(len(m.live) for m in state.markets.values()),
        "unknown_orders": unknown_orders(state),
        "foreign_orders": len(state.foreign_orders),
        "intents": intents(state),
        "at_work": [_wanted(state, m.intent) for m in state.markets.values() if m.intent is not None],
        "slow_loop": slow_loop(state),
        "counts": counts(state),
        "venues": venues(state),
        "refused": {reason: tally.count for reason, tally in state.refused.items()},
    }


def counts(state: State) -> dict[str, int]:
    """What happened so far."""
    return {name: getattr(state.counts, name) for name in state.counts.__struct_fields__}


def unknown_orders(state: State) -> list[str]:
    """Ids of orders of which nobody knows whether they rest."""
    live = (state.orders[i] for m in state.markets.values() for i in m.live)
    return [o.order_id for o in live if o.status is Status.UNKNOWN]


def intents(state: State) -> list[dict[str, Any]]:
    """What waits for `approve`, as a person reads it; shares of YES, minus is NO."""
    return [_wanted(state, intent) for intent in state.intents.values()]


def _wanted(state: State, intent: Intent) -> dict[str, Any]:
    market = state.markets.get(intent.instrument)
    return {
        "intent_id": intent.intent_id,
        "market_id": intent.instrument,
        "target": None if market is None else market.instrument.usd_qty(intent.target_net),
        "who": intent.who,
        "reason": intent.reason,
    }


def venues(state: State) -> dict[str, dict[str, Any]]:
    """Every venue's connection and the soundness of its books."""
    return {v.name: _venue(state, v) for v in state.venues.values()}


def _venue(state: State, venue: Venue) -> dict[str, Any]:
    books = [m.book for m in state.markets.values() if m.instrument.venue == venue.name]
    return {
        "up": venue.up,
        "down_reason": venue.down_reason,
        "regime": venue.regime.value,
        "lag_ms": venue.lag.lag_ns / 1e6,
        "lagging": venue.lagging,
        "silent": venue.silent,
        "heard_s": (state.now - venue.heard_ns) / NS_PER_S if venue.heard_ns else None,
        "trusted": sum(book.trusted for book in books),
        "gaps": sum(book.gaps for book in books),
        "pruned": sum(book.pruned for book in books),
        "skipped": sum(book.skipped for book in books),
    }


def slow_loop(state: State) -> dict[str, Any]:
    slow = state.slow
    if not state.params.slow.enabled:
        return {"mode": "rules only", "cause": "no model is configured"}
    return {
        "mode": "FALLBACK" if slow.fallback else "LLM",
        "cause": slow.cause,
        "failures_in_a_row": slow.failures,
        "waiting_for": slow.pending,
    }


def line(state: State, market: Market) -> dict[str, Any]:
    """One market in a row."""
    instrument, book = market.instrument, market.book
    opinion = effective(state, market, state.now)
    allowed = risk.allowance(state, market)
    return {
        "market_id": instrument.id,
        "question": instrument.question,
        "mode": allowed.mode.value,
        "why": _why_not(market, allowed),
        "bid": instrument.usd_price(book.best_bid),
        "ask": instrument.usd_price(book.best_ask),
        "our_bid": instrument.usd_price(market.own_price(Side.BUY, state.orders)),
        "our_ask": instrument.usd_price(market.own_price(Side.SELL, state.orders)),
        "fair": round(instrument.usd_price(market.estimators.fair), 5),
        "position": instrument.usd_qty(market.position.net),
        "avg_price": None if market.position.avg_price is None else instrument.usd_price(market.position.avg_price),
        "signal": market.opinion.signal.action.value if market.opinion else "",
        "confidence": market.opinion.signal.confidence if market.opinion else None,
        "signal_age_s": (state.now - market.opinion.received_ns) / NS_PER_S if market.opinion else None,
        "weight": round(opinion.weight, 4),
        "exit": market.exit_plan.exiting if market.exit_plan else "",
    }


def _why_not(market: Market, allowed: risk.Gate) -> str:
    """What keeps quotes away, or some of them; empty when nothing does."""
    if chain.closed(allowed):
        return allowed.text
    return market.own.note or ", ".join(key.removeprefix("both ") for key in market.refusals)


def find(state: State, text: str) -> str | None:
    """The id of the market a person means: an id, the beginning of one, or a piece of its question; None if unclear."""
    hits = _matches(state, text)
    return hits[0] if len(hits) == 1 else None


def _matches(state: State, text: str) -> list[str]:
    if text in state.markets:
        return [text]
    words = text.lower()
    return [i for i, m in state.markets.items() if text and (i.startswith(text) or words in m.instrument.question.lower())]


_MOST_UNITS = 10**15


def units(state: State, market_id: str, shares: str) -> int | None:
    """Shares as a person types them, in units of the market; None where they are none."""
    market = state.markets.get(market_id)
    try:
        found = Decimal(shares) * 10**market.instrument.qty_decimals if market else Decimal("NaN")
        # A number that no journal could hold is no size: it would end the daemon instead of being refused.
        return int(found) if abs(found) <= _MOST_UNITS and found == found.to_integral_value() else None
    except ArithmeticError:  # no number, or one beyond any decimal: `9e999999`
        return None


def why(state: State, market: Market, strategy: Strategy | None = None) -> dict[str, Any]:
    """The whole gate chain of a market with its numbers, both sides, and what would have to change."""
    kind = {"account": state.account, "real_money": state.params.risk.live}
    return kind | line(state, market) | chain.chain(state, market, strategy)


def ask(state: State, verb: str, args: dict[str, Any], strategy: Strategy | None = None) -> dict[str, Any]:
    """What the control socket's reading verbs answer; `strategy` is asked what it wants, by `why`."""
    if verb == "status":
        return status(state)
    if verb == "markets":
        return {
            "account": state.account,
            "real_money": state.params.risk.live,
            "markets": [line(state, m) for m in state.markets.values()],
        }
    wanted = str(args.get("market", ""))
    hits = _matches(state, wanted)
    if len(hits) != 1:
        count = f"{len(hits)} markets match" if hits else "no market matches"
        return {"ok": False, "error": f"{count} {wanted!r}; `llm-maker markets` lists them"}
    return why(state, state.markets[hits[0]], strategy)
