"""What the slow loop is shown: one market, its recent decisions with what became of them, and the portfolio, frozen.

Money in USD and quantities in shares, because a model reads them; nothing is computed from them again.
"""

from __future__ import annotations

from llm_maker.core.advice import Signal
from llm_maker.core.commands import MarketBrief, PastDecision, PortfolioBrief
from llm_maker.core.orders import Order
from llm_maker.core.risk import open_positions
from llm_maker.core.signals import Remembered
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S, Instrument, Side, to_cash_down, usd
from llm_maker.core.worth import equity

HOUR_NS = 3_600 * NS_PER_S
LEVELS = 4
"""Of each side of the book."""
MAX_PAST = 4
"""Decisions of one market that are remembered."""


def brief(state: State, market: Market, now: int) -> MarketBrief:
    """One market as the model may see it, frozen."""
    instrument, book, position, bars = market.instrument, market.book, market.position, market.bars
    price, size = instrument.usd_price, instrument.usd_qty
    opinion = market.opinion
    average, reward, orders = position.avg_price, instrument.reward, state.live_orders(market)
    return MarketBrief(
        market_id=instrument.id,
        question=instrument.question,
        outcomes=instrument.outcomes,
        category=instrument.category,
        kind=instrument.kind.value,
        yes_price=price(market.mark),
        spread=price(book.spread or 0),
        bid=price(book.best_bid),
        ask=price(book.best_ask),
        bid_depth=size(market.bid_depth),
        ask_depth=size(market.ask_depth),
        imbalance=market.bid_depth / market.ask_depth if market.ask_depth else 0.0,
        trend_5m=_trend(market, bars.change(now, 300 * NS_PER_S)),
        trend_1h=_trend(market, bars.change(now, HOUR_NS)),
        trend_4h=_trend(market, bars.change(now, 4 * HOUR_NS)),
        trend_24h=_trend(market, bars.change(now, 24 * HOUR_NS)),
        volatility=price(market.estimators.sig_price(instrument, market.mark) * 60.0),
        flow=size(market.estimators.flow),
        position=size(position.net),
        avg_price=None if average is None else price(average),
        pnl_pct=_pnl_pct(market),
        hours_to_end=None if instrument.end_ns is None else (instrument.end_ns - now) / HOUR_NS,
        last_action=opinion.signal.action.value if opinion else "",
        last_p_yes=opinion.signal.p_yes if opinion else None,
        last_age_s=(now - opinion.received_ns) / NS_PER_S if opinion else None,
        bids=_levels(instrument, book.top(Side.BUY, LEVELS)),
        asks=_levels(instrument, book.top(Side.SELL, LEVELS)),
        avg_trade=size(market.estimators.avg_trade),
        trades_per_hour=market.estimators.trade_rate * 3_600,
        own_bid=_own(market, orders, Side.BUY),
        own_ask=_own(market, orders, Side.SELL),
        reward_usd_per_day=None if reward is None else usd(reward.pool_per_day),
        reward_max_spread=None if reward is None else price(reward.max_spread),
        reward_min_size=None if reward is None else size(reward.min_qty),
        event_id=instrument.event_id,
        trigger=market.trigger,
        past=_past(market, now),
        indicators=market.indicators.line(instrument, bars.price, now),
    )


def _trend(market: Market, change: float | None) -> float | None:
    return None if change is None else market.instrument.usd_price(change)


def _pnl_pct(market: Market) -> float | None:
    """P&L of the open position over the cost of the side held, percent."""
    position, average = market.position, market.position.avg_price
    if average is None or position.net == 0:
        return None
    basis = average if position.net > 0 or not market.instrument.is_binary else market.instrument.payout - average
    direction = 1 if position.net > 0 else -1
    return 100.0 * direction * (market.mark - average) / basis if basis > 0 else None


def portfolio(state: State) -> PortfolioBrief:
    worth = equity(state)
    base = state.risk.day_base if state.risk.day >= 0 else worth
    return PortfolioBrief(
        equity_usd=usd(worth),
        cash_usd=usd(state.cash),
        pnl_today_usd=usd(worth - base),
        exposure_usd=usd(state.gross),
        open_positions=open_positions(state),
        mode=state.mode.value,
    )


def remember(market: Market, signal: Signal, now: int) -> None:
    """Keep a decision with where the market and our position stood, to tell later what became of it."""
    market.past.append(
        Remembered(
            at_ns=now,
            action=signal.action,
            confidence=signal.confidence,
            p_yes=signal.p_yes,
            mark=market.mark,
            volume=market.position.volume,
            gain=_gain(market),
        )
    )
    del market.past[:-MAX_PAST]


def _past(market: Market, now: int) -> tuple[PastDecision, ...]:
    """Newest first."""
    instrument, gain = market.instrument, _gain(market)
    return tuple(
        PastDecision(
            age_s=(now - then.at_ns) / NS_PER_S,
            action=then.action.value,
            confidence=then.confidence,
            p_yes=then.p_yes,
            price=instrument.usd_price(then.mark),
            moved=instrument.usd_price(market.mark - then.mark),
            filled=instrument.usd_qty(max(0, market.position.volume - then.volume)),
            pnl_usd=usd(gain - then.gain),
        )
        for then in reversed(market.past)
    )


def _gain(market: Market) -> int:
    """What this market has brought so far, marked at the mid, after fees; cash units."""
    position = market.position
    return to_cash_down(market.instrument, position.realised + round(position.unrealised(market.mark))) - position.fees


def _levels(instrument: Instrument, levels: list[tuple[int, int]]) -> tuple[tuple[float, float], ...]:
    return tuple((instrument.usd_price(price), instrument.usd_qty(qty)) for price, qty in levels)


def _own(market: Market, orders: list[Order], side: Side) -> tuple[float, float] | None:
    """Our best resting quote of a side."""
    ours = [o for o in orders if o.side is side and o.post_only]
    if not ours:
        return None
    best = max(ours, key=lambda o: side * o.price)
    return market.instrument.usd_price(best.price), market.instrument.usd_qty(best.remaining)
