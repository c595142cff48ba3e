"""Two-sided quoting, in two forms. Prices are price units of the YES book, `tau` the tick, q the net position, L the order size.

`inventory` (default; the adapted form of `quoting.md` 2.1 to 2.6):
    x    = log(F) - log(N - F) + shift               F the micro-price, N the payout, shift the pooled opinion's w d
    FV   = N * expit(x)                              linear instruments: FV = F * exp(shift)
    r    = FV - (q - q*) * kappa,                    kappa * q_max = skew_max_ticks * tau * clip(sig_p / sig_ref, 1/2, 2)
    half = max(tau, edge_floor_ticks * tau * 4p(1-p)) * widen + toxicity
    bid  = min(touch candidate, floor(r - half)),    ask = max(touch candidate, ceil(r + half))
  The candidate improves by `tick_improvement` in a spread of 3 ticks or more, joins at 2, and at 1 joins only a short queue.
`touch` (the seed's rule): the candidate alone, improve or join, tilted by the opinion: bullish tightens the bid and widens the
  ask, bearish the reverse; no inventory term.

Both skip books wider than `max_spread` or thinner than `min_liquidity`, and taper the adding side to nothing at `soft_cap` of the
position cap. Mirroring the market (p -> 1 - p) mirrors the quotes exactly: the fair value is rounded to 1/64 unit around N / 2, so
that log(F) - log(N - F) is exactly odd. Ties: `round` goes to even, which is odd-symmetric.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.strategy import MarketView, QuoteTarget, Target
from llm_maker.core.values import NS_PER_S, Instrument, Side, ceil_to_grid, expit, floor_to_grid

_GRAIN = 64.0
_MAX_TILT_TICKS = 2.0


class MakerParams(msgspec.Struct, frozen=True, kw_only=True):
    """What the maker is tuned by; ratios and USD as people write them."""

    quoting: str = "inventory"
    signal_rule: str = "pooled"
    interval_ns: int = 45 * NS_PER_S
    tick_improvement: int = 1
    max_spread_usd: float = 0.10
    max_spread_ratio: float = 0.002
    """Linear instruments: of the price."""
    min_liquidity_usd: float = 50.0
    """Within three levels, on each side; read as the cost of the token a taker of that side would get."""
    skew_max_ticks: float = 3.5
    edge_floor_ticks: float = 1.0
    soft_cap: float = 0.7
    queue_patience: float = 5.0
    """Join a one-tick spread only behind fewer average trades than this."""
    sig_ref: float = 0.0625 / 293.9387691339814
    """Price volatility per square root of a second that `skew_max_ticks` is meant for: 6.25c a day, as a share of the payout."""


class MakerState(msgspec.Struct):
    """The maker keeps only why it wanted nothing."""

    note: str = ""


class Maker:
    """The strategy object; holds nothing."""

    name = "maker"
    params_type = MakerParams
    state_type = MakerState

    def due(self, last_asked_ns: int, now: int, params: MakerParams) -> bool:
        return now - last_asked_ns >= params.interval_ns

    def on_market(self, view: MarketView, own: MakerState, params: MakerParams) -> list[Target]:
        """At most one quote a side; an empty list with `own.note` set where the market is not worth quoting."""
        own.note = unfit(view, params)
        if own.note:
            return []
        quotes: list[Target] = []
        prices = _inventory_prices(view, params) if params.quoting == "inventory" else _touch_prices(view, params)
        for side, price in zip((Side.BUY, Side.SELL), prices, strict=True):
            size = _size(view, side, params)
            if view.instrument.min_price <= price <= view.instrument.max_price and size >= view.instrument.min_qty:
                quotes.append(QuoteTarget(side, price, size, params.quoting))
        return quotes


def unfit(view: MarketView, params: MakerParams) -> str:
    """Why this book is not quoted at all, or an empty string; the words are few, so that episodes can be counted."""
    book, instrument = view.book, view.instrument
    if not book.two_sided:
        return "one-sided book"
    spread = book.best_ask - book.best_bid
    if instrument.is_binary:
        wide = instrument.usd_price(spread) > params.max_spread_usd + 1e-12
    else:
        wide = spread > params.max_spread_ratio * book.best_bid
    if wide:
        return "wide spread"
    bid_worth, ask_worth = liquidity_usd(view)
    if min(bid_worth, ask_worth) < params.min_liquidity_usd:
        return "thin book"
    if view.base_qty <= 0:
        return "no size configured"
    return ""


def liquidity_usd(view: MarketView) -> tuple[float, float]:
    """(bid side, ask side) depth in USD; the ask side at the NO price, so that a mirrored market measures the same."""
    instrument, book = view.instrument, view.book
    ask_price = instrument.payout - book.best_ask if instrument.is_binary else book.best_ask
    bid_worth = instrument.usd_qty(view.bid_depth) * instrument.usd_price(book.best_bid)
    return bid_worth, instrument.usd_qty(view.ask_depth) * instrument.usd_price(ask_price)


def fair_value(view: MarketView) -> float:
    """FV: the micro-price moved by the opinion in log-odds (binary) or log price (linear)."""
    instrument, fair, shift = view.instrument, view.estimators.fair, view.opinion.shift
    if not instrument.is_binary:
        return fair * math.exp(shift)
    half = instrument.payout / 2
    centred = round((fair - half) * _GRAIN) / _GRAIN
    if shift == 0.0:
        return half + centred
    x = math.log(half + centred) - math.log(half - centred) + shift
    return _about_half(instrument, x)


def _about_half(instrument: Instrument, x: float) -> float:
    """N * expit(x), rounded around N / 2 so that x and -x give mirror prices."""
    half = instrument.payout / 2
    return half + round((expit(abs(x)) - 0.5) * instrument.payout * _GRAIN) / _GRAIN * (1.0 if x >= 0 else -1.0)


def skew_per_unit(view: MarketView, params: MakerParams) -> float:
    """kappa: price units that the reservation price gives way per quantity unit held."""
    instrument = view.instrument
    tick = _tick(view)
    scale = instrument.payout if instrument.is_binary else view.estimators.fair
    sigma = view.estimators.sig_price(instrument, view.estimators.fair)
    ratio = min(max(sigma / (params.sig_ref * scale), 0.5), 2.0) if scale > 0 else 1.0
    return params.skew_max_ticks * tick * ratio / max(view.max_position, 1)


def half_spread(view: MarketView, fair: float, params: MakerParams) -> float:
    """The edge floor: a tick, or the floor scaled by 4p(1-p), times what risk asks, plus measured toxicity."""
    tick, instrument = _tick(view), view.instrument
    shape = 1.0
    if instrument.is_binary:
        shape = 4.0 * fair * (instrument.payout - fair) / (instrument.payout * instrument.payout)
    return max(1.0, params.edge_floor_ticks * shape) * tick * view.widen + view.toxicity


def _tick(view: MarketView) -> int:
    """One tick at the touch; of two different grids' steps the coarser, so that both sides agree."""
    return max(view.instrument.tick_at(view.book.best_bid), view.instrument.tick_at(view.book.best_ask))


def _inventory_prices(view: MarketView, params: MakerParams) -> tuple[int, int]:
    fair = fair_value(view)
    wanted = view.opinion.target_net or 0
    reservation = fair - (view.position.net - wanted) * skew_per_unit(view, params)
    half = half_spread(view, fair, params)
    return (
        min(_candidate(view, Side.BUY, params), floor_to_grid(view.instrument, reservation - half)),
        max(_candidate(view, Side.SELL, params), ceil_to_grid(view.instrument, reservation + half)),
    )


def _candidate(view: MarketView, side: Side, params: MakerParams) -> int:
    """Improve, join or stay back by the width of the spread (the rules under the table of `quoting.md` 2.4)."""
    best, queue, ticks = _others(view, side)
    if ticks >= 3:
        return _deeper(view, side, best, -_improvement(ticks, params))
    if ticks <= 1 and queue >= params.queue_patience * max(view.estimators.avg_trade, 1.0):
        return _deeper(view, side, best, 1)
    return best


def _others(view: MarketView, side: Side) -> tuple[int, int, int]:
    """(best price of a side, quantity there, spread in ticks) without us, so that nobody improves on himself.

    Where only we are left, our own price is the best there is.
    """
    book = view.book
    bid, ask = view.best_bid or book.best_bid, view.best_ask or book.best_ask
    ticks = (ask - bid) // _tick(view)
    if side is Side.BUY:
        return bid, view.bid_qty if view.best_bid else book.bid_qty, ticks
    return ask, view.ask_qty if view.best_ask else book.ask_qty, ticks


def _improvement(ticks: int, params: MakerParams) -> int:
    """As far as both sides can go without meeting."""
    return min(params.tick_improvement, (ticks - 1) // 2)


def _touch_prices(view: MarketView, params: MakerParams) -> tuple[int, int]:
    return _touch_price(view, Side.BUY, params), _touch_price(view, Side.SELL, params)


def _touch_price(view: MarketView, side: Side, params: MakerParams) -> int:
    """The seed's rule with its directional tilt, never through the other side."""
    book = view.book
    best, _, ticks = _others(view, side)
    wide = ticks >= 3
    tilt = tilt_ticks(view, params) * side
    steps = -_improvement(ticks, params) if wide else 0
    if tilt < 0:
        steps += math.ceil(-tilt)
    elif not wide:
        closer = -min(round(tilt), params.tick_improvement)
        steps = closer if _pays(view, side, _deeper(view, side, best, closer), params) else 0
    price = _deeper(view, side, best, steps)
    if side is Side.BUY:
        return min(price, view.instrument.next_bid(book.best_ask))
    return max(price, view.instrument.next_ask(book.best_bid))


def _pays(view: MarketView, side: Side, price: int, params: MakerParams) -> bool:
    """Whether half a tick of edge is left after the measured toxicity; the raw rule does not ask (`quoting.md` 2.5)."""
    edge = side * (fair_value(view) - price) - view.toxicity
    return params.signal_rule == "seed" or edge >= 0.5 * _tick(view)


def tilt_ticks(view: MarketView, params: MakerParams) -> float:
    """How many ticks the opinion moves the quotes: plus is bullish; the raw rule knows only the bias."""
    if params.signal_rule == "seed":
        return float(view.opinion.bias)
    fair = view.estimators.fair
    scale = fair * (view.instrument.payout - fair) / view.instrument.payout if view.instrument.is_binary else fair
    ticks = view.opinion.shift * scale / _tick(view)
    return min(max(ticks, -_MAX_TILT_TICKS), _MAX_TILT_TICKS)


def _deeper(view: MarketView, side: Side, price: int, steps: int) -> int:
    """`steps` ticks away from the other side; negative steps towards it."""
    away = side is Side.BUY if steps > 0 else side is Side.SELL
    return view.instrument.next_bid(price, abs(steps)) if away else view.instrument.next_ask(price, abs(steps))


def _size(view: MarketView, side: Side, params: MakerParams) -> int:
    """L times the taper of the adding side (`quoting.md` 3); nothing beyond the soft cap of the position."""
    if view.max_position <= 0:
        return 0
    load = side * view.position.net / view.max_position
    if load >= params.soft_cap:
        return 0
    return view.instrument.floor_qty(view.base_qty * (1.0 - max(0.0, load)))
