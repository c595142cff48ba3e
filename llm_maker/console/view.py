"""The state as plain dicts, for a person: `status`, `markets`, `why`. Pure: reads the state, changes nothing, sends nothing."""

from __future__ import annotations

from typing import Any

from llm_maker.core import risk
from llm_maker.core.account import equity, exit_equity
from llm_maker.core.params import sizes
from llm_maker.core.quote import effective
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S, Side, usd


def status(state: State) -> dict[str, Any]:
    """One page: mode, money, markets, orders, the slow loop."""
    worth = equity(state)
    return {
        "account": state.account,
        "mode": state.mode.value,
        "why": state.mode_text(),
        "now_ns": state.now,
        "session": state.session,
        "equity_usd": usd(worth),
        "exit_equity_usd": usd(exit_equity(state)),
        "cash_usd": usd(state.cash),
        "pnl_usd": usd(worth - state.flows.start - state.flows.transfers),
        "exposure_usd": usd(state.gross),
        "markets": [line(state, m) for m in state.markets.values()],
        "orders": sum(len(m.live) for m in state.markets.values()),
        "unknown_orders": [o.order_id for m in state.markets.values() for o in state.live_orders(m) if o.status == "UNKNOWN"],
        "foreign_orders": len(state.foreign_orders),
        "slow_loop": slow_loop(state),
        "counts": {name: getattr(state.counts, name) for name in state.counts.__struct_fields__},
        "venues": {v.name: {"up": v.up, "regime": v.regime.value, "lag_ms": v.lag.lag_ns / 1e6} for v in state.venues.values()},
        "refused": {reason: tally.count for reason, tally in state.refused.items()},
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
        "why": allowed.text if allowed.pull or allowed.mode.value != "active" else market.own.note,
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


def find(state: State, text: str) -> str | None:
    """The id of the market a person means: an id, the beginning of one, or a piece of its question; None if unclear."""
    if text in state.markets:
        return text
    hits = [i for i, m in state.markets.items() if i.startswith(text) or text.lower() in m.instrument.question.lower()]
    return hits[0] if len(hits) == 1 else None


def why(state: State, market: Market) -> dict[str, Any]:
    """The whole gate chain of a market with its numbers, both sides, and what would have to change."""
    chain = risk.chain(state, market)
    closed = [g for g in chain if g.mode.value != "active" or g.pull]
    instrument = market.instrument
    base, limit = sizes(state.params, instrument, market.mark)
    opinion = effective(state, market, state.now)
    sides = {}
    for side in (Side.BUY, Side.SELL):
        name = side.name.lower()
        sides[name] = {
            "wanted": instrument.usd_price(market.wanted[name]) if name in market.wanted else None,
            "resting": [_order(state, market, i) for i in market.live if state.orders[i].side is side],
            "refused": [k.partition(" ")[2] for k in market.refusals if k.startswith((name, "both"))],
        }
    return {
        "market_id": instrument.id,
        "question": instrument.question,
        "gates": [{"gate": g.name, "mode": g.mode.value, "open": g not in closed, "numbers": g.text} for g in chain],
        "caps": dict(risk.describe_caps(state, market)),
        "base_size": instrument.usd_qty(base),
        "max_position": instrument.usd_qty(limit),
        "fair": instrument.usd_price(market.estimators.fair),
        "opinion": {
            "shift_log_odds": round(opinion.shift, 5),
            "weight": round(opinion.weight, 5),
            "size_ratio": opinion.size_ratio,
            "widen": opinion.widen,
            "target": None if opinion.target_net is None else instrument.usd_qty(opinion.target_net),
            "exit": opinion.exit,
        },
        "strategy_note": market.own.note,
        "sides": sides,
        "exit": market.exit_plan.exiting if market.exit_plan else "",
        "first_closed": closed[0].text if closed else "",
        "nearest_change": nearest_change(market, closed),
    }


_CHANGES = {
    "mode": "`llm-maker resume`, once the reason is dealt with",
    "account": "the venue must answer about the account",
    "venue": "the connection must come back",
    "silence": "the feed must speak again",
    "lag": "the feed must catch up",
    "book": "a fresh snapshot must arrive",
    "resolution": "nothing: the market is about to end",
    "schedule": "wait until the event's window is over",
    "pull": "wait until the pause is over",
    "market": "`llm-maker resume MARKET`",
    "cooldown": "wait until the pause after the stop is over",
    "positions": "raise risk.max_open_positions, or let a position go flat",
    "wide spread": "raise execution.max_spread_threshold, or wait for a tighter book",
    "thin book": "lower execution.min_liquidity_threshold, or wait for depth",
    "market cap": "raise risk.max_market_pct or risk.bankroll_usd",
    "free cash": "lower risk.min_free_cash_pct, or let positions be merged or sold",
    "order cap": "raise risk.max_order_usd",
    "gross cap": "raise risk.max_gross_pct",
    "position cap": "raise strategy.max_position_size",
}


def nearest_change(market: Market, closed: list[risk.Gate]) -> str:
    """What would make it quote, in words; empty when it does."""
    if closed:
        return _CHANGES.get(closed[0].name, "")
    for key in market.refusals:
        change = _CHANGES.get(key.partition(" ")[2])
        if change:
            return change
    return ""


def _order(state: State, market: Market, order_id: str) -> dict[str, Any]:
    order, instrument = state.orders[order_id], market.instrument
    return {
        "order_id": order_id,
        "status": order.status.value,
        "price": instrument.usd_price(order.price),
        "remaining": instrument.usd_qty(order.remaining),
        "token": order.leg.value,
        "age_s": (state.now - order.placed_ns) / NS_PER_S,
        "reason": order.reason,
    }


def ask(state: State, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """What the control socket's reading verbs answer."""
    if verb == "status":
        return status(state)
    if verb == "markets":
        return {"markets": [line(state, m) for m in state.markets.values()]}
    wanted = str(args.get("market", ""))
    found = find(state, wanted)
    if found is None:
        return {"ok": False, "error": f"no single market matches {wanted!r}; `llm-maker status` lists them"}
    return why(state, state.markets[found])
