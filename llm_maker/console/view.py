"""The state as plain dicts, for a person: `status`, `markets`, `why`. Pure: reads the state, changes nothing, sends nothing."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from llm_maker.core import risk
from llm_maker.core.orders import Status
from llm_maker.core.params import sizes
from llm_maker.core.quote import effective
from llm_maker.core.skill import skill_of
from llm_maker.core.state import Market, State, Venue, foreign_resting, worst_loss
from llm_maker.core.values import CASH_PER_USD, NS_PER_S, Mode, Side, usd
from llm_maker.core.worth import equity, exit_equity


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
        "unknown_orders": [o.order_id for o in state.orders.values() if o.status is Status.UNKNOWN],
        "foreign_orders": len(state.foreign_orders),
        "slow_loop": slow_loop(state),
        "counts": {name: getattr(state.counts, name) for name in state.counts.__struct_fields__},
        "venues": {v.name: _venue(state, v) for v in state.venues.values()},
        "refused": {reason: tally.count for reason, tally in state.refused.items()},
    }


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


def _closed(gate: risk.Gate) -> bool:
    return gate.pull or gate.mode is not Mode.ACTIVE


def _why_not(market: Market, allowed: risk.Gate) -> str:
    """What keeps quotes away, or some of them; empty when nothing does."""
    if _closed(allowed):
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


def units(state: State, market_id: str, shares: str) -> int | None:
    """Shares as a person types them, in units of the market; None where they are none."""
    market = state.markets.get(market_id)
    try:
        found = Decimal(shares) * 10**market.instrument.qty_decimals if market else Decimal("NaN")
        return int(found) if found == found.to_integral_value() else None
    except InvalidOperation:
        return None


def why(state: State, market: Market) -> dict[str, Any]:
    """The whole gate chain of a market with its numbers, both sides, and what would have to change."""
    instrument = market.instrument
    base, limit = sizes(state.params, instrument, market.mark)
    opinion = effective(state, market, state.now)
    allowed = risk.allowance(state, market)
    return line(state, market) | {
        "gates": [
            {"gate": g.name, "mode": g.mode.value, "open": not _closed(g), "numbers": g.text} for g in risk.chain(state, market)
        ],
        "caps": caps(state, market),
        "base_size": instrument.usd_qty(base),
        "max_position": instrument.usd_qty(limit),
        "opinion": {
            "shift_log_odds": round(opinion.shift, 5),
            "weight": round(opinion.weight, 5),
            "size_ratio": opinion.size_ratio,
            "widen": opinion.widen,
            "target": None if opinion.target_net is None else instrument.usd_qty(opinion.target_net),
            "exit": opinion.exit,
            **_measured(state, market),
        },
        "strategy_note": market.own.note,
        "sides": {side.name.lower(): _side(state, market, side) for side in (Side.BUY, Side.SELL)},
        "first_closed": allowed.text if _closed(allowed) else "",
        "nearest_change": nearest_change(state, market),
    }


def _measured(state: State, market: Market) -> dict[str, Any]:
    """Whose opinion it is, and why it counts for what it does."""
    if market.opinion is None:
        return {"model": "", "why_weight": "", "disagreement": 0.0}
    skill = skill_of(state.skills, market.opinion.model, market.instrument.category)
    prior = f"prior {state.params.signals.prior_weight:g}, nothing measured yet"
    return {
        "model": market.opinion.model,
        "why_weight": prior if skill is None else f"W {skill.weight:.3f}, {skill.why}",
        "disagreement": market.opinion.signal.disagreement,
    }


def _side(state: State, market: Market, side: Side) -> dict[str, Any]:
    name = side.name.lower()
    return {
        "wanted": market.instrument.usd_price(market.wanted[name]) if name in market.wanted else None,
        "resting": [_order(state, market, i) for i in market.live if state.orders[i].side is side],
        "refused": [k.partition(" ")[2] for k in market.refusals if k.startswith((name, "both"))],
    }


_CHANGES = {
    "account": "the venue must answer about the account",
    "venue": "the connection must come back, or the venue open",
    "silence": "the feed must speak again",
    "lag": "the feed must catch up",
    "book": "a fresh, sound book must arrive",
    "schedule": "wait until the event's window is over",
    "pull": "wait until the market is calm again",
    "cooldown": "wait until the pause after the stop is over",
    "positions": "raise risk.max_open_positions, or let a position go flat",
    "wide spread": "raise execution.max_spread_threshold, or wait for a tighter book",
    "one-sided book": "wait for the other side of the book",
    "thin book": "lower execution.min_liquidity_threshold, or wait for depth",
    "low confidence": "lower strategy.min_confidence_to_trade, or set strategy.signal_rule: pooled",
    "no size configured": "raise strategy.base_position_size (strategy.base_usd where sizes are in money)",
    "order cap": "raise risk.max_order_usd",
    "market cap": "raise risk.max_market_pct or risk.bankroll_usd",
    "event cap": "raise risk.max_event_pct, or let positions of the same event go",
    "cluster cap": "raise risk.max_cluster_pct, or let positions of the same cluster go",
    "gross cap": "raise risk.max_gross_pct",
    "free cash": "lower risk.min_free_cash_pct, or let positions be merged or sold",
    "position cap": "raise strategy.max_position_size",
    "message budget": "raise risk.messages_per_10s, or wait",
    "own cross": "wait until our own order of the other side is gone",
    "would cross": "wait: the book moved while the quote was made",
    "no depth within the slippage limit": "raise risk.exit_max_slippage, or wait for depth",
}


def nearest_change(state: State, market: Market) -> str:
    """What would make it quote, or quote more, in words; empty when nothing stands in the way or nothing is known to help."""
    allowed = risk.allowance(state, market)
    if _closed(allowed):
        return _gate_change(state, market, allowed.name)
    for key in market.refusals:
        change = _CHANGES.get(key.partition(" ")[2])
        if change:
            return change
    return ""


def _gate_change(state: State, market: Market, name: str) -> str:
    if name == "mode":
        return _mode_change(state)
    if name == "market":
        if market.operator_mode is Mode.ACTIVE:
            return "market_selection must choose it again"
        return f"`llm-maker resume {market.instrument.id}`"
    if name == "resolution":
        if market.resolved is not None:
            return "nothing: it is resolved"
        return "nothing: its end is near" if market.instrument.end_ns is not None else "its end time must be known"
    return _CHANGES.get(name, "")


def _mode_change(state: State) -> str:
    if state.stopping:
        return "nothing: the daemon is stopping"
    if "kill" in state.halts:
        return "nothing: it was killed"
    timed = [h.until_ns for h in state.halts.values() if h.until_ns]
    if timed and len(timed) == len(state.halts):
        return f"wait {(max(timed) - state.now) / NS_PER_S / 3600:.1f}h until the halt runs out"
    return "`llm-maker resume`, once the reason is dealt with"


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
    hits = _matches(state, wanted)
    if len(hits) != 1:
        count = f"{len(hits)} markets match" if hits else "no market matches"
        return {"ok": False, "error": f"{count} {wanted!r}; `llm-maker markets` lists them"}
    return why(state, state.markets[hits[0]])


def caps(state: State, market: Market) -> dict[str, str]:
    """The money caps with their numbers."""
    limits, instrument = state.params.risk, market.instrument
    _, limit = sizes(state.params, instrument, market.mark)
    alone = worst_loss(state.params, market, *foreign_resting(state, market))
    bank = limits.bankroll
    return {
        "position": f"{instrument.usd_qty(market.position.net):g} of {instrument.usd_qty(limit):g}",
        "market": f"worst case {_usd(market.worst)} (position alone {_usd(alone)}) of {_usd(limits.market_ratio * bank)}",
        "gross": f"{_usd(state.gross)} of {_usd(limits.gross_ratio * bank)}",
        "free cash": f"{_usd(state.cash - state.reserved)}, at least {_usd(limits.free_cash_ratio * bank)}",
    }


def _usd(cash: float) -> str:
    return f"${cash / CASH_PER_USD:.2f}"
