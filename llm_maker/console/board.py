"""The state as `shapes.Board` and `shapes.Detail`: what `top` and the page show. Pure: reads the state, changes nothing.

A row costs some 40 us, and a board is made between two events of the trading loop. So `Rows` can keep them and make a few afresh
at a time; whatever is counted over all markets is always of now.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.console import view
from llm_maker.console.shapes import Alarm, Board, Detail, Entry, Level, Money, Row
from llm_maker.core import places
from llm_maker.core.orders import Order, Status
from llm_maker.core.rewards import midpoint2, q_min, rivals, score, sides
from llm_maker.core.state import Market, State
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, Side, to_cash_down, usd
from llm_maker.core.worth import equity, exit_equity, mark_price

LEVELS = 10
"""Of each side of the book, in the detail of a market."""


class Around(msgspec.Struct, frozen=True):
    """What the wiring knows and the state does not."""

    version: str
    venue: str
    provider: str
    simulated: bool
    started_ns: int
    twin: dict[str, Any] | None
    health: dict[str, Any]
    model_cost_today: float | None
    model_budget: float | None
    alarms: list[Alarm]
    tail: list[Entry]
    last: int
    rows: list[Row] | None = None
    """Kept ones (`Rows`); None: all are made now."""


class Rows:
    """The rows of all markets, made afresh a few at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._due: list[str] = []

    def refresh(self, state: State, most: int) -> None:
        """The next `most` markets in turn."""
        for _ in range(min(most, len(state.markets))):
            if not self._due:
                self._due = list(state.markets)
            market = state.markets.get(self._due.pop())
            if market is not None:
                self._rows[market.instrument.id] = row(state, market)

    def told(self, state: State) -> list[Row]:
        """One row for every market there is, in its order; those that were never made are made now."""
        if self._rows.keys() - state.markets.keys():
            self._rows = {name: kept for name, kept in self._rows.items() if name in state.markets}
        for name, market in state.markets.items():
            if name not in self._rows:
                self._rows[name] = row(state, market)
        return [self._rows[name] for name in state.markets]


def board(state: State, around: Around) -> Board:
    """Everything a screen shows at a glance."""
    return {
        "ok": True,
        "version": around.version,
        "account": state.account,
        "real_money": state.params.risk.live,
        "simulated": around.simulated,
        "venue": around.venue,
        "provider": around.provider,
        "mode": state.mode.value,
        "why": state.mode_text(),
        "now_ns": state.now,
        "started_ns": around.started_ns,
        "session": state.session,
        "money": _money(state, around),
        "slow_loop": view.slow_loop(state),
        "counts": view.counts(state),
        "venues": view.venues(state),
        "orders": sum(len(m.live) for m in state.markets.values()),
        "unknown_orders": view.unknown_orders(state),
        "foreign_orders": len(state.foreign_orders),
        "intents": view.intents(state),
        "refused": {reason: tally.count for reason, tally in state.refused.items()},
        "twin": around.twin,
        "health": around.health,
        "rows": [row(state, m) for m in state.markets.values()] if around.rows is None else around.rows,
        "alarms": around.alarms,
        "tail": around.tail,
        "last": around.last,
    }


def _money(state: State, around: Around) -> Money:
    worth, limits, flows = equity(state), state.params.risk, state.flows
    daily = limits.daily_loss_ratio * limits.bankroll
    judged = bool(state.risk.judged_ns)
    return {
        "equity": usd(worth),
        "exit": usd(exit_equity(state)),
        "cash": usd(state.cash),
        "pnl": usd(worth - flows.start - flows.transfers),
        "today": usd(worth - state.risk.day_base) if judged else None,
        "drawdown": usd(max(0, state.risk.high_water - worth)) if judged else 0.0,
        "exposure": usd(state.gross),
        "bankroll": usd(limits.bankroll),
        "daily_loss_limit": usd(round(min(daily, limits.daily_loss or daily))),
        "drawdown_limit": usd(round(limits.max_drawdown_ratio * limits.bankroll)),
        "model_cost": usd(-flows.llm_cost),
        "model_cost_today": around.model_cost_today,
        "model_budget": around.model_budget,
        "earned_spread": usd(flows.capture),
        "fees": usd(-flows.fees),
        "rebates": usd(flows.rebates),
        "rewards": usd(flows.rewards),
    }


# One market in a row.


def row(state: State, market: Market) -> Row:
    """One market at a glance."""
    instrument, book, reward = market.instrument, market.book, market.instrument.reward
    orders = state.live_orders(market)
    (bid_shares, bid_ahead), (ask_shares, ask_ahead) = (_place(state, market, side, orders) for side in (Side.BUY, Side.SELL))
    line = view.line(state, market)
    return {
        "market_id": instrument.id,
        "question": instrument.question,
        "mode": line["mode"],
        "why": line["why"],
        "bid": line["bid"],
        "ask": line["ask"],
        "our_bid": line["our_bid"],
        "our_ask": line["our_ask"],
        "our_bid_shares": bid_shares,
        "our_ask_shares": ask_shares,
        "bid_ahead": bid_ahead,
        "ask_ahead": ask_ahead,
        "book_age_s": (state.now - book.changed_ns) / NS_PER_S if book.changed_ns else None,
        "fair": line["fair"],
        "position": line["position"],
        "avg_price": line["avg_price"],
        "pnl_usd": usd(gain(market)),
        "worst_usd": usd(market.worst),
        "signal": line["signal"],
        "confidence": line["confidence"],
        "signal_age_s": line["signal_age_s"],
        "weight": line["weight"],
        "exit": line["exit"],
        "reward_usd_per_day": None if reward is None else usd(reward.pool_per_day),
        "reward_share": reward_share(state, market, orders),
    }


def gain(market: Market) -> int:
    """What a market has brought since it was first traded, at its outcome or the last mid, fees paid; cash units.

    While no price is known the position counts for what it cost.
    """
    position, instrument = market.position, market.instrument
    known = market.resolved is not None or market.mark > 0
    open_gain = position.net * mark_price(market) - position.cost if known and position.net else 0
    return to_cash_down(instrument, position.realised + open_gain) - position.fees


def _place(state: State, market: Market, side: Side, orders: list[Order]) -> tuple[float, float | None]:
    """(our shares at our best price of a side, shares that trade before them as far as it is known); (0, None): nothing rests."""
    ours = [o for o in orders if o.side is side]
    if not ours:
        return 0.0, None
    best = max(side * o.price for o in ours) * side
    here = sum(o.remaining for o in ours if o.price == best)
    size = market.instrument.usd_qty
    if not market.book.trusted:
        return size(here), None
    shown = places.shown(state, market, side)
    level = places.own_place(state, market, side, best)
    if level < 0:
        level = max(0, market.book.qty_at(side, best) - shown.get(best, 0))
    return size(here), size(level + market.book.ahead(side, best))


def reward_share(state: State, market: Market, orders: list[Order]) -> float | None:
    """Our part of the venue's reward by what rests now and by what the others show; None: no programme, or no midpoint."""
    rule, book, payout = market.instrument.reward, market.book, market.instrument.payout
    if rule is None or not book.two_sided:
        return None
    ours = [(o.side, o.price, o.remaining) for o in orders if o.status is Status.OPEN and o.post_only]
    shown = {side: places.shown(state, market, side) for side in (Side.BUY, Side.SELL)}
    (bid, bid_qty), (ask, ask_qty) = (places.best_without(market, side, shown[side]) for side in (Side.BUY, Side.SELL))
    mid2: int | None = bid + ask
    if not bid or not ask or min(bid_qty, ask_qty) < rule.min_qty:
        # The venue looks past what is too small to count.
        mid2 = midpoint2(rule, book.bids, book.asks)
    if mid2 is None:
        return None
    if not ours:
        return 0.0
    low, high = mid2 // 2 - rule.max_spread, mid2 // 2 + rule.max_spread + 1
    bids, asks = shown[Side.BUY], shown[Side.SELL]
    one = sum([score(rule, price, qty - bids.get(price, 0), mid2) for price, qty in book.bids.items() if price >= low])
    two = sum([score(rule, price, qty - asks.get(price, 0), mid2) for price, qty in book.asks.items() if price <= high])
    mine = q_min(*sides(rule, ours, mid2), mid2, payout)
    return round(mine / (mine + rivals(one, two, mid2, payout)), 4) if mine else 0.0


# One market, whole.


def detail(state: State, market: Market, tail: list[Entry], strategy: Strategy | None = None) -> Detail:
    """One market, whole; `strategy` is asked what it wants there."""
    opinion, price = market.opinion, market.instrument.usd_price
    return {
        "ok": True,
        "row": row(state, market),
        "bids": _ladder(state, market, Side.BUY),
        "asks": _ladder(state, market, Side.SELL),
        "why": view.why(state, market, strategy),
        "reasoning": opinion.signal.reasoning if opinion else "",
        "model": opinion.model if opinion else "",
        "decision_id": opinion.decision_id if opinion else "",
        "past": [
            {
                "age_s": (state.now - then.at_ns) / NS_PER_S,
                "action": then.action.value,
                "confidence": then.confidence,
                "p_yes": then.p_yes,
                "price": price(then.mark),
            }
            for then in reversed(market.past)
        ],
        "tail": tail,
    }


def _ladder(state: State, market: Market, side: Side) -> list[Level]:
    """The best levels with what of them is ours; our own price is a level though the venue's book does not show it."""
    instrument = market.instrument
    ours: dict[int, int] = {}
    for order in state.live_orders(market):
        if order.side is side:
            ours[order.price] = ours.get(order.price, 0) + order.remaining
    levels = dict(market.book.top(side, LEVELS))
    for price in ours:
        levels.setdefault(price, market.book.qty_at(side, price))
    return [
        {
            "price": instrument.usd_price(price),
            "shares": instrument.usd_qty(levels[price]),
            "ours": instrument.usd_qty(ours.get(price, 0)),
        }
        for price in sorted(levels, reverse=side is Side.BUY)[:LEVELS]
    ]
