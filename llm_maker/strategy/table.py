"""Which tick to quote: candidates around the touch compared by expected value per second, queue place included (`quoting.md` 2.4).

    EV(pi) = lam(pi) * (edge(pi) - adv(pi) + reb(pi)) * L + rho(pi)
    edge   = s (r - pi)            s +1 for a bid. r is the reservation price, so `inv` of 2.4 is in it and not taken off again
    reb    = share * rate * p(1-p) less the maker's own fee (2.8)
    rho    = pool per second * (share of the reward with this order less the share without it), beside our other side (2.7)
    pi in {b+2, b+1, b, b-1, b-2 ticks}, each no nearer than the edge floor and the post-only limit allow; asks in mirror

A resting order keeps its place unless (EV_new - EV_old) / (nu + lam_new) > V_queue + message cost. EV is per second and V_queue per
order: 1 / (nu + lam) is how long an order lives until it fills or its level moves, and brings both to one order.
    V_queue = e^(-nu T) (half - adv) L,  T = ln(1 + theta n / mu) / theta,  mu = half of the prints' quantity per second,
    nu = (sig_p / tau)^2, the rate at which a random walk of this volatility leaves a tick;
    theta is a constant: no estimator sees single cancels.

lam and adv come from `core.hazard`. Deeper levels are read when the top has changed or once a second, so that what changes below
the top decides nothing in between. Prices in price units, money in price x quantity units.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.hazard import PRIOR, Hazard, features
from llm_maker.core.rewards import midpoint2, q_min, rivals, score
from llm_maker.core.strategy import MarketView
from llm_maker.core.values import CASH_PER_USD, NS_PER_S, PPM, FeeCurve, Instrument, RewardRule, Side, ceil_to_grid, floor_to_grid
from llm_maker.strategy.fair import tick
from llm_maker.strategy.params import MakerParams, MakerState, Near
from llm_maker.strategy.size import size
from llm_maker.strategy.touch import deeper, others

_REACH = 2
"""Candidates lie up to so many ticks before and behind the best price; nearest first, so that of equal values that is taken."""
_CANCELS = 1.0 / 300.0
"""theta: cancels per resting share and second."""
_MESSAGE_TICKS = 0.05
"""What a replacement must gain beyond the queue place, ticks a share."""
_PRIOR_ADVERSE = 0.5
"""Ticks; before any markout of ours."""
_GRAIN = 64.0
_SECONDS_PER_DAY = 86_400.0


class Pay(msgspec.Struct):
    """The reward of a market as one side sees it: what our other side scores, and the rivals."""

    rule: RewardRule
    payout: int
    mid2: int
    beside: int
    rivals: int
    pool: float
    """Price x quantity units per second."""
    without: float = 0.0
    """Our share with the other side alone."""

    def per_second(self, price: int, qty: int) -> float:
        """What an order of this side adds to our reward, price x quantity units per second."""
        own = score(self.rule, price, qty, self.mid2)
        return self.pool * (self.share(own) - self.without) if own else 0.0

    def share(self, own: int) -> float:
        """Q_min / (Q_min + Q_others) with an order of this score on this side."""
        mine = q_min(own, self.beside, self.mid2, self.payout)
        return mine / (mine + self.rivals) if mine else 0.0


class Ladder(msgspec.Struct):
    """One side of one market at one look: all that its candidates are valued by."""

    view: MarketView
    side: Side
    best: int
    spread: int
    tick: int
    lot: int
    reservation: float
    queue: tuple[int, ...]
    """Quantity at or better than 0, 1, 2 ticks behind the best price, without us."""
    hazard: Hazard
    prior: float
    """Of the adverse move, ticks."""
    pay: Pay | None
    rebates: bool

    def steps(self, price: int) -> int:
        """Ticks behind the best price; negative where it improves."""
        return self.side * (self.best - price) // self.tick

    def ahead(self, price: int) -> int:
        """Quantity that trades before a new order at this price."""
        steps = self.steps(price)
        return self.queue[min(steps, len(self.queue) - 1)] if steps >= 0 else 0

    def better(self, price: int) -> int:
        """Quantity at better prices."""
        steps = self.steps(price) - 1
        return self.queue[min(steps, len(self.queue) - 1)] if steps >= 0 else 0

    def rate(self, steps: int, ahead: int) -> float:
        """lam: orders filled per second, so many ticks behind the best price and behind `ahead`."""
        estimators = self.view.estimators
        return self.hazard.rate(features(steps, ahead, self.spread, estimators.avg_trade, estimators.trade_rate))

    def adverse(self, steps: int) -> float:
        """adv, price units."""
        return self.hazard.adv(steps, self.prior) * self.tick

    def value(self, price: int, ahead: int) -> float:
        """EV of resting at a price behind `ahead`, price x quantity units per second."""
        steps = self.steps(price)
        # To 1/64: the edges of a mirrored market agree but for the last bits of a float.
        edge = round(self.side * (self.reservation - price) * _GRAIN) / _GRAIN
        gain = edge - self.adverse(steps) + kept(self.view.instrument, price, rebates=self.rebates)
        paid = self.pay.per_second(price, self.lot) if self.pay is not None else 0.0
        return self.rate(steps, ahead) * gain * self.lot + paid

    def moves(self) -> float:
        """nu: how often a second the level moves away."""
        sigma = self.view.estimators.sig_price(self.view.instrument, self.view.estimators.fair)
        return (sigma / self.tick) ** 2

    def place_value(self, price: int, ahead: int, half: float) -> float:
        """V_queue: what the place of a resting order is worth, price x quantity units."""
        estimators = self.view.estimators
        traded = 0.5 * estimators.trade_rate * estimators.avg_trade
        if ahead and traded <= 0.0:
            return 0.0
        wait_s = math.log1p(_CANCELS * ahead / traded) / _CANCELS if ahead else 0.0
        return math.exp(-self.moves() * wait_s) * max(0.0, half - self.adverse(self.steps(price))) * self.lot


def table_prices(view: MarketView, own: MakerState, reservation: float, half: float, params: MakerParams) -> tuple[int, int]:
    """The best bid and ask by expected value; 0 for a side on which no candidate has any, with a note when neither has."""
    near = _near(view, own)
    limits = {side: _limit(view, side, reservation, half) for side in Side}
    lots = {side: size(view, side, params) for side in Side}
    bid, ask = (
        _price(_ladder(view, near, side, reservation, limits, lots, params), limits[side], half) if lots[side] else 0
        for side in (Side.BUY, Side.SELL)
    )
    if not bid and not ask and any(lots.values()):
        own.note = "no expected gain"
    return bid, ask


def _price(ladder: Ladder, limit: int, half: float) -> int:
    """The candidate of the highest EV, or the price that rests already where moving gains too little; 0: nothing gains."""
    view, side, instrument = ladder.view, ladder.side, ladder.view.instrument
    held, known = (view.own_bid, view.bid_ahead) if side is Side.BUY else (view.own_ask, view.ask_ahead)
    held_ahead = ladder.better(held) + known if known >= 0 else ladder.ahead(held)
    best_price, best_value, seen = 0, 0.0, 0
    wanted = deeper(view, side, ladder.best, -_REACH)
    for _ in range(2 * _REACH + 1):
        price = min(wanted, limit) if side is Side.BUY else max(wanted, limit)
        wanted = deeper(view, side, wanted, 1)
        if price == seen or not instrument.min_price <= price <= instrument.max_price:
            continue
        seen = price
        value = ladder.value(price, held_ahead if price == held else ladder.ahead(price))
        if value > best_value:
            best_price, best_value = price, value
    if not held or held == best_price or side * (limit - held) < 0:
        return best_price
    value = ladder.value(held, held_ahead)
    if value <= 0.0 or not best_price:
        return held if value > 0.0 else best_price
    gain = (best_value - value) / (ladder.moves() + ladder.rate(ladder.steps(best_price), ladder.ahead(best_price)))
    place = ladder.place_value(held, held_ahead, half) + _MESSAGE_TICKS * ladder.tick * ladder.lot
    return best_price if gain > place else held


def _ladder(
    view: MarketView,
    near: Near,
    side: Side,
    reservation: float,
    limits: dict[Side, int],
    lots: dict[Side, int],
    params: MakerParams,
) -> Ladder:
    """What a side's candidates are valued by."""
    best, _, spread = others(view, side)
    step = tick(view)
    return Ladder(
        view=view,
        side=side,
        best=best,
        spread=spread,
        tick=step,
        lot=lots[side],
        reservation=reservation,
        queue=near.bids if side is Side.BUY else near.asks,
        hazard=view.hazard or PRIOR,
        prior=max(0.0, view.adverse) / step if view.adverse is not None else _PRIOR_ADVERSE,
        pay=_pay(view, near, side, limits[side.other], lots[side.other]) if params.terms.reward else None,
        rebates=params.terms.rebate,
    )


def _limit(view: MarketView, side: Side, reservation: float, half: float) -> int:
    """The edge floor, and a tick short of the other side: post-only."""
    other = others(view, side.other)[0]
    if side is Side.BUY:
        return min(floor_to_grid(view.instrument, reservation - half), view.instrument.next_bid(other))
    return max(ceil_to_grid(view.instrument, reservation + half), view.instrument.next_ask(other))


def _pay(view: MarketView, near: Near, side: Side, other_limit: int, other_lot: int) -> Pay | None:
    """The reward as this side sees it. Our other side: where it rests, or where it would join; nothing if it has no size."""
    instrument = view.instrument
    rule = instrument.reward
    if rule is None or not near.mid2:
        return None
    joined = others(view, side.other)[0]
    beside = (view.own_ask or max(joined, other_limit)) if side is Side.BUY else (view.own_bid or min(joined, other_limit))
    units = float(10 ** (instrument.price_decimals + instrument.qty_decimals)) / CASH_PER_USD
    pay = Pay(
        rule=rule,
        payout=instrument.payout,
        mid2=near.mid2,
        beside=score(rule, beside, other_lot, near.mid2),
        rivals=near.rivals,
        pool=rule.pool_per_day * units / _SECONDS_PER_DAY,
    )
    pay.without = pay.share(0)
    return pay


def kept(instrument: Instrument, price: int, *, rebates: bool) -> float:
    """What the venue adds to a maker's fill at a price: the rebate, less the maker's fee; price units a share (2.8)."""
    rule = instrument.fee
    if rule.curve is FeeCurve.NONE:
        return 0.0
    ppm = (rule.taker_ppm * rule.rebate_ppm / PPM if rebates else 0.0) - rule.maker_ppm
    if rule.curve is FeeCurve.VARIANCE:
        return ppm / PPM * (price * (instrument.payout - price)) / float(10**instrument.price_decimals)
    return ppm / PPM * price


def _near(view: MarketView, own: MakerState) -> Near:
    """The levels near the touch without us, and the reward's rivals; read anew when the top has changed, or after a second."""
    book, near = view.book, own.near
    if near is not None and near.version == book.top_version and view.now - near.at_ns < NS_PER_S:
        return near
    bids, asks = _queue(view, Side.BUY), _queue(view, Side.SELL)
    mid2, against = _rivals(view)
    own.near = Near(book.top_version, view.now, bids, asks, mid2, against)
    return own.near


def _queue(view: MarketView, side: Side) -> tuple[int, ...]:
    """Quantity at or better than 0, 1 and 2 ticks behind the best price, without us."""
    ours, price, total = view.shown_bids if side is Side.BUY else view.shown_asks, others(view, side)[0], 0
    found = []
    for _ in range(3):
        total += max(0, view.book.qty_at(side, price) - ours.get(price, 0))
        found.append(total)
        price = deeper(view, side, price, 1)
    return tuple(found)


def _rivals(view: MarketView) -> tuple[int, int]:
    """(twice the reward's midpoint, the most that the others can score); (0, 0) where there is no reward or no midpoint."""
    rule, book = view.instrument.reward, view.book
    if rule is None:
        return 0, 0
    (bid, bid_qty, _), (ask, ask_qty, _) = others(view, Side.BUY), others(view, Side.SELL)
    mid2: int | None = bid + ask
    if min(bid_qty, ask_qty) < rule.min_qty:
        mid2 = midpoint2(rule, _without(book.bids, view.shown_bids), _without(book.asks, view.shown_asks))
    if mid2 is None:
        return 0, 0
    # The rest of a deep book scores nothing, and is most of it.
    low, high = mid2 // 2 - rule.max_spread, mid2 // 2 + rule.max_spread + 1
    ours = view.shown_bids
    one = sum([score(rule, price, qty - ours.get(price, 0), mid2) for price, qty in book.bids.items() if price >= low])
    ours = view.shown_asks
    two = sum([score(rule, price, qty - ours.get(price, 0), mid2) for price, qty in book.asks.items() if price <= high])
    return mid2, rivals(one, two, mid2, view.instrument.payout)


def _without(levels: dict[int, int], ours: dict[int, int]) -> dict[int, int]:
    return {price: qty - ours.get(price, 0) for price, qty in levels.items()} if ours else levels
