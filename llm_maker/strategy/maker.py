"""Two-sided quoting, in two forms. Prices are price units of the YES book, `tau` the tick, q the net position, L the order size.

`inventory` (default; the adapted form of `quoting.md` 2.1 to 2.6):
    x    = log(F) - log(N - F) + shift               F the micro-price, N the payout, shift the pooled opinion's w d
    FV   = N * expit(x) + flow + parity + decay      linear instruments: F * exp(shift); the three: `fair`, each off or on
    r    = FV - (q - q*) * kappa,                    kappa * q_max = skew_max_ticks * tau * clip(sig_p / sig_ref, 1/2, 2)
    half = max(tau, edge_floor_ticks * tau * 4p(1-p)) * widen + toxicity
    bid  = min(touch candidate, floor(r - half)),    ask = max(touch candidate, ceil(r + half))
  The candidate improves by `tick_improvement` in a spread of 3 ticks or more, joins at 2, and at 1 joins only a short queue;
  with `terms.table` both prices are those of the highest expected value no nearer than that floor (`table`).
`touch` (the seed's rule): the candidate alone, improve or join, tilted by the opinion: bullish tightens the bid and widens the
  ask, bearish the reverse; no inventory term.

Both skip books wider than `max_spread` or thinner than `min_liquidity`, and taper the adding side to nothing at `soft_cap` of the
position cap. Mirroring the market (p -> 1 - p) mirrors the quotes exactly: the fair value is rounded to 1/64 unit around N / 2, so
that log(F) - log(N - F) is exactly odd. Ties: `round` goes to even, which is odd-symmetric. Two terms of FV are about YES by nature
and have no mirror: `parity` and `decay`.
"""

from __future__ import annotations

from llm_maker.core.strategy import MarketView, Needs, QuoteTarget, Target
from llm_maker.core.values import Side, ceil_to_grid, floor_to_grid
from llm_maker.strategy.fair import valuation
from llm_maker.strategy.params import MakerParams, MakerState
from llm_maker.strategy.size import size
from llm_maker.strategy.table import table_prices
from llm_maker.strategy.touch import candidate, touch_prices


class Maker:
    """The strategy object; holds nothing."""

    name = "maker"
    params_type = MakerParams
    state_type = MakerState

    def needs(self, params: MakerParams) -> Needs:
        inventory = params.quoting == "inventory"
        return Needs(places=inventory and params.terms.table, parity=inventory and params.terms.parity)

    def due(self, last_asked_ns: int, now: int, params: MakerParams) -> bool:
        return now - last_asked_ns >= params.interval_ns

    def on_market(self, view: MarketView, own: MakerState, params: MakerParams) -> list[Target]:
        """At most one quote a side; an empty list with `own.note` set where the market is not worth quoting."""
        own.note, own.terms = unfit(view, params), {}
        if own.note:
            return []
        quotes: list[Target] = []
        prices = _inventory_prices(view, own, params) if params.quoting == "inventory" else touch_prices(view, params)
        for side, price in zip((Side.BUY, Side.SELL), prices, strict=True):
            qty = size(view, side, params, own.terms)
            if view.instrument.min_price <= price <= view.instrument.max_price and qty >= view.instrument.min_qty:
                quotes.append(QuoteTarget(side, price, qty, params.quoting))
        return quotes

    def lack(self, view: MarketView, own: MakerState, params: MakerParams, side: Side) -> tuple[str, str, float]:
        """Why a side is not wanted, after `on_market`: (words, the parameter behind it, what it would have to be).

        The parameter is one of `params`, or `base_qty` or `max_position` of the view; empty where only the market can change it.
        """
        if own.note == "no expected gain":
            return own.note, "terms.table", 0.0
        if own.note:
            return own.note, *_fitting(view, own.note)
        least, load = view.instrument.min_qty, side * view.position.net
        if load > 0 and load >= params.soft_cap * view.max_position:
            # A share more than the bound, and room for the smallest order beside it.
            return "position near its cap", "max_position", max(load / params.soft_cap + 1, load + 2 * least)
        if size(view, side, params) >= least:
            return ("no expected gain", "terms.table", 0.0) if params.terms.table else ("off the grid", "", 0.0)
        for term in ("taper", "unwind"):
            if term in own.terms:
                return f"{term} leaves less than the smallest order", f"terms.{term}", 0.0
        share = 1.0 - max(0.0, load / max(view.max_position, 1))
        return "less than the smallest order", "base_qty", (least + 1) / max(share, 0.01)


def _fitting(view: MarketView, note: str) -> tuple[str, float]:
    """The parameter behind a note of `unfit`, and the value that lets this book pass."""
    book, instrument = view.book, view.instrument
    if note == "wide spread":
        spread = book.best_ask - book.best_bid
        binary = instrument.is_binary
        return ("max_spread_usd", instrument.usd_price(spread)) if binary else ("max_spread_ratio", spread / book.best_bid)
    if note == "thin book":
        return "min_liquidity_usd", min(liquidity_usd(view))
    return ("base_qty", float(instrument.min_qty)) if note == "no size configured" else ("", 0.0)


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


def _inventory_prices(view: MarketView, own: MakerState, params: MakerParams) -> tuple[int, int]:
    worth = valuation(view, params)
    own.terms = worth.terms
    if params.terms.table:
        return table_prices(view, own, worth.reservation, worth.half, params)
    return (
        min(candidate(view, Side.BUY, params), floor_to_grid(view.instrument, worth.reservation - worth.half)),
        max(candidate(view, Side.SELL, params), ceil_to_grid(view.instrument, worth.reservation + worth.half)),
    )
