"""The outcomes of one event, of which exactly one pays, priced together (`quoting.md` 1.3).

    p*_i = p_i - v_i (sum p - 1) / sum v,    v_i = (p_i (1 - p_i))^2 s_i^2,    s_i the belief volatility of leg i

It knows the micro-prices and no opinion. "Exactly one pays" is about YES by nature: of n outcomes n - 1 pay NO, so this term has
no mirror. A leg whose sibling moves is not quoted anew for that: the look that every market gets once a second is soon enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_maker.core.state import Market, State

_WIDE_RATIO = 0.10
"""Of the payout: the middle of a book this wide says nothing of the other outcomes (2.5 does not quote it either)."""

_ROUNDING = 1e-9


def project(prices: Sequence[float], variances: Sequence[float], *, complete: bool) -> list[float]:
    """Probabilities moved so that they sum to 1, the uncertain ones most; those of variance 0 stay.

    Of an incomplete list the sum may be anything up to 1: it is corrected only when it is above.
    """
    excess, total = sum(prices) - 1.0, sum(variances)
    if total <= 0.0 or (excess < 0.0 and not complete):
        return list(prices)
    return [p - v * excess / total for p, v in zip(prices, variances, strict=True)]


def correction(state: State, market: Market) -> float:
    """Price units that the other outcomes move a market's micro-price by; 0 where they say nothing. O(legs), keeps nothing.

    Plus means a sum below 1, which says something only where every outcome of the event is listed: no venue tells how many
    there are, so that is for the strategy to know. What shows here makes the list incomplete all the same: a leg without a
    trusted, two-sided, tolerably narrow book, one that has left the universe (its book is no longer kept), or asks that sum to
    less than 1, which nobody leaves where they are all there is. In mirror, bids that sum to more than 1 say that several can
    win, whatever the listing calls the event, or that some book is not of now: nobody leaves those where only one can. Then 0.
    Never beyond the market's own best prices: if the sum asks for more, either book may be the wrong one.
    """
    instrument, book = market.instrument, market.book
    if not instrument.exclusive or not instrument.is_binary or not book.two_sided:
        return 0.0
    members = state.events.get(instrument.event_id, ())
    if len(members) < 2:
        return 0.0
    prices: list[float] = []
    variances: list[float] = []
    bids, asks, place = 0.0, 0.0, -1
    for member in members:
        leg = _leg(state.markets[member])
        if leg is None:
            continue
        if member == instrument.id:
            place = len(prices)
        prices.append(leg[0])
        variances.append(leg[1])
        bids += leg[2]
        asks += leg[3]
    if place < 0 or bids > 1.0 + _ROUNDING:
        return 0.0
    complete = len(prices) == len(members) and asks >= 1.0
    moved = project(prices, variances, complete=complete)[place] - prices[place]
    fair = market.estimators.fair
    return min(max(moved * instrument.payout, book.best_bid - fair), book.best_ask - fair)


def _leg(market: Market) -> tuple[float, float, float, float] | None:
    """(probability, variance, best bid, best ask) of one outcome, as shares of the payout; None where nothing can be said.

    What has resolved is certain.
    """
    instrument, book = market.instrument, market.book
    payout = instrument.payout
    if not instrument.exclusive or not instrument.is_binary:
        return None
    if market.resolved is not None:
        price = market.resolved / payout
        return price, 0.0, price, price
    if not market.in_universe or not book.two_sided or book.best_ask - book.best_bid > _WIDE_RATIO * payout:
        return None
    fair = market.estimators.fair
    deviation = market.estimators.sig_price(instrument, fair) / payout
    return fair / payout, deviation * deviation, book.best_bid / payout, book.best_ask / payout
