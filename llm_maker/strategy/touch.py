"""Prices relative to the touch: improve, join or stay back by the width of the spread; and the seed's whole rule.

Knows fair value only through what the opinion is worth; knows no size.
"""

from __future__ import annotations

import math

from llm_maker.core.strategy import MarketView
from llm_maker.core.values import Side
from llm_maker.strategy.fair import fair_value, tick
from llm_maker.strategy.params import MakerParams

_MAX_TILT_TICKS = 2.0


def candidate(view: MarketView, side: Side, params: MakerParams) -> int:
    """Improve, join or stay back by the width of the spread (the rules under the table of `quoting.md` 2.4)."""
    best, queue, ticks = others(view, side)
    if ticks >= 3:
        return deeper(view, side, best, -_improvement(ticks, params))
    if ticks <= 1 and queue >= params.queue_patience * max(view.estimators.avg_trade, 1.0):
        return deeper(view, side, best, 1)
    return best


def others(view: MarketView, side: Side) -> tuple[int, int, int]:
    """(best price of a side, quantity there, spread in ticks) without us, so that nobody improves on himself.

    Where only we are left, our own price is the best there is.
    """
    book = view.book
    bid, ask = view.best_bid or book.best_bid, view.best_ask or book.best_ask
    ticks = (ask - bid) // tick(view)
    if side is Side.BUY:
        return bid, view.bid_qty if view.best_bid else book.bid_qty, ticks
    return ask, view.ask_qty if view.best_ask else book.ask_qty, ticks


def _improvement(ticks: int, params: MakerParams) -> int:
    """As far as both sides can go without meeting."""
    return min(params.tick_improvement, (ticks - 1) // 2)


def touch_prices(view: MarketView, params: MakerParams) -> tuple[int, int]:
    return _touch_price(view, Side.BUY, params), _touch_price(view, Side.SELL, params)


def _touch_price(view: MarketView, side: Side, params: MakerParams) -> int:
    """The seed's rule with its directional tilt, never through the other side."""
    book = view.book
    best, _, ticks = others(view, side)
    wide = ticks >= 3
    tilt = tilt_ticks(view, params) * side
    steps = -_improvement(ticks, params) if wide else 0
    if tilt < 0:
        steps += math.ceil(-tilt)
    elif not wide:
        closer = -min(round(tilt), params.tick_improvement)
        steps = closer if _pays(view, side, deeper(view, side, best, closer), params) else 0
    price = deeper(view, side, best, steps)
    if side is Side.BUY:
        return min(price, view.instrument.next_bid(book.best_ask))
    return max(price, view.instrument.next_ask(book.best_bid))


def _pays(view: MarketView, side: Side, price: int, params: MakerParams) -> bool:
    """Whether half a tick of edge is left after the measured toxicity; the raw rule does not ask (`quoting.md` 2.5)."""
    edge = side * (fair_value(view) - price) - view.toxicity
    return params.signal_rule == "seed" or edge >= 0.5 * tick(view)


def tilt_ticks(view: MarketView, params: MakerParams) -> float:
    """How many ticks the opinion moves the quotes: plus is bullish; the raw rule knows only the bias."""
    if params.signal_rule == "seed":
        return float(view.opinion.bias)
    fair = view.estimators.fair
    scale = fair * (view.instrument.payout - fair) / view.instrument.payout if view.instrument.is_binary else fair
    ticks = view.opinion.shift * scale / tick(view)
    return min(max(ticks, -_MAX_TILT_TICKS), _MAX_TILT_TICKS)


def deeper(view: MarketView, side: Side, price: int, steps: int) -> int:
    """`steps` ticks away from the other side; negative steps towards it."""
    away = side is Side.BUY if steps > 0 else side is Side.SELL
    return view.instrument.next_bid(price, abs(steps)) if away else view.instrument.next_ask(price, abs(steps))
