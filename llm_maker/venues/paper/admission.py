"""What an order must satisfy to enter: the venue's rules, and cash, shares or margin behind it.

It decides no fill, moves no money and emits nothing.
"""

from __future__ import annotations

from llm_maker.core import values
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.values import PPM, Instrument, Leg, Liquidity, Regime, Side
from llm_maker.venues.paper import matching
from llm_maker.venues.paper.matching import Market
from llm_maker.venues.paper.purse import Purse
from llm_maker.venues.paper.records import ExchangeParams, State


def refusal(state: State, params: ExchangeParams, now: int, command: PlaceOrder) -> tuple[str, str] | None:
    """The reason and detail of a rejection, or None; the cheap and certain reasons first."""
    order_id = command.order_id
    if order_id in state.where or order_id in state.finished:
        return "duplicate", ""
    market = state.markets.get(command.instrument)
    if market is None or market.instrument is None or market.closed:
        return "closed", "" if market else "unknown instrument"
    instrument = market.instrument
    regime = state.regimes.get(instrument.venue, Regime.OPEN)
    if regime not in (Regime.OPEN, Regime.POST_ONLY):
        return "closed", regime.value
    if not allowed(instrument, command.price):
        return "tick", ""
    if command.qty < max(instrument.min_qty, 1) or command.qty % instrument.qty_step:
        return "size", ""
    if (command.leg is Leg.NONE) is instrument.is_binary:
        return "other", "leg"
    if command.expires_ns is not None and command.expires_ns <= now:
        return "other", "expired"
    if matching.chance(params.seed, "reject", order_id, params.reject_ppm):
        return "other", "injected"
    if not command.post_only and regime is Regime.POST_ONLY:
        return "post_only", regime.value
    if any(o.side is not command.side and (command.price - o.price) * command.side >= 0 for o in market.orders):
        return "post_only" if command.post_only else "other", "self_trade"
    if command.post_only and _crosses(market, command):
        return "post_only", ""
    if not affordable(state.purse, market, instrument, command, params.linear_stress_ppm):
        return "balance", ""
    return None


def allowed(instrument: Instrument, price: int) -> bool:
    """Whether an order may carry the price: in range and on the grid."""
    return instrument.min_price <= price <= instrument.max_price and instrument.on_grid(price)


def reserve(purse: Purse, market: Market, stress_ppm: int) -> None:
    """Recompute the cash behind one market's orders (and its linear position)."""
    instrument = market.instrument
    needed = 0
    if instrument is not None and not instrument.is_binary:
        needed = _margin(purse, market, instrument, stress_ppm)
    elif instrument is not None:
        needed = sum(
            _resting_cost(instrument, order.side, order.leg, order.price, order.remaining)
            for order in market.orders
            if values.leg_side(order.side, order.leg) is Side.BUY
        )
    purse.reserved += needed - market.reserved
    market.reserved = needed


def affordable(purse: Purse, market: Market, instrument: Instrument, command: PlaceOrder, stress_ppm: int) -> bool:
    """Whether free cash, or settled and unreserved shares, carry the order at its worst."""
    if not instrument.is_binary:
        return _margin_suffices(purse, market, instrument, command, stress_ppm)
    if values.leg_side(command.side, command.leg) is Side.SELL:
        lot = purse.lot(market.id, command.leg)
        return lot.settled - lot.locked - reserved_shares(market, command.leg) >= command.qty
    cost, rest = 0, command.qty
    for price, qty in [] if command.post_only else matching.walk(market, command.side, command.price, rest):
        cost -= values.cash_flow(instrument, command.side, command.leg, price, qty)
        cost += values.fee(instrument, price, qty, Liquidity.TAKER)
        rest -= qty
    if rest:
        cost += _resting_cost(instrument, command.side, command.leg, command.price, rest)
    return cost <= purse.free


def reserved_shares(market: Market, leg: Leg) -> int:
    """Shares of one token that our resting orders would sell."""
    return sum(o.remaining for o in market.orders if o.leg is leg and values.leg_side(o.side, leg) is Side.SELL)


def _margin_suffices(purse: Purse, market: Market, instrument: Instrument, command: PlaceOrder, stress_ppm: int) -> bool:
    signed, net = command.side * command.qty, purse.perp(market.id).net
    shrinks = signed * net < 0 and abs(signed) <= abs(net)
    if command.reduce_only and not shrinks:
        return False
    worst = _margin(purse, market, instrument, stress_ppm, signed=signed, price=command.price)
    # Leaving a position needs no margin, whatever is left of the cash.
    return (shrinks and not market.orders) or worst - market.reserved <= purse.free


def _margin(purse: Purse, market: Market, instrument: Instrument, stress_ppm: int, *, signed: int = 0, price: int = 0) -> int:
    """Stress on the larger of both ways everything resting could fill, at the highest price in play."""
    net = purse.perp(market.id).net
    buys = max(signed, 0) + sum(o.remaining for o in market.orders if o.side is Side.BUY)
    sells = max(-signed, 0) + sum(o.remaining for o in market.orders if o.side is Side.SELL)
    worst = max(abs(net + buys), abs(net - sells), abs(net))
    highest = max([price, market.last_price] + [order.price for order in market.orders])
    return int(values.to_cash_up(instrument, -(-worst * highest * stress_ppm // PPM)))


def _resting_cost(instrument: Instrument, side: Side, leg: Leg, price: int, qty: int) -> int:
    """Cash a resting token purchase needs, with the fee a maker pays."""
    return values.fee(instrument, price, qty, Liquidity.MAKER) - values.cash_flow(instrument, side, leg, price, qty)


def _crosses(market: Market, command: PlaceOrder) -> bool:
    best = market.best_ask if command.side is Side.BUY else market.best_bid
    return (command.price - best) * command.side >= 0
