"""What an account is worth: at the last mid, and at the touch with fees. Pure reading."""

from __future__ import annotations

from llm_maker.core.state import Market, State
from llm_maker.core.values import Liquidity, fee


def equity(state: State) -> int:
    """Cash plus own holdings at the last mid, rounded down; cash units."""
    total = state.cash
    for instrument_id in state.held:
        market = state.markets[instrument_id]
        total += market.position.value(market.instrument, mark_price(market))
    return total


def exit_equity(state: State) -> int:
    """Cash plus what leaving every position at the touch would bring, fees paid; cash units."""
    total = state.cash
    for instrument_id in state.held:
        market = state.markets[instrument_id]
        net = market.position.net
        touch = market.book.best_bid if net > 0 else market.book.best_ask
        price = touch or mark_price(market)
        if market.resolved is not None:
            price = market.resolved
        total += market.position.value(market.instrument, price)
        if market.resolved is None and touch:
            total -= fee(market.instrument, price, abs(net), Liquidity.TAKER)
    return total


def mark_price(market: Market) -> int:
    """The integer mark: the outcome once known, else the last mid, halves towards less for us."""
    if market.resolved is not None:
        return market.resolved
    doubled = round(market.mark * 2)
    return doubled // 2 if market.position.net > 0 else -(-doubled // 2)
