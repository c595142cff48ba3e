"""Fair value, reservation price and half-spread: the micro-price, moved by each term that is on, and what each of them added.

    FV = N * expit(log(F) - log(N - F) + shift) + flow + parity + decay
    flow   = flow_ticks * tau * clip(z, -2, 2), z the signed taker flow in standard deviations (`quoting.md` 1.1)
    parity = what the other outcomes of the event say (1.3), `core/parity.py`
    decay  = the drift of a "by date" market while nothing happens (1.2), `by_date`
    q*     = the position wanted; with `kelly` clip(kf B e / (p (1 - p)), -q_max / 2, q_max / 2), e what the opinion moved FV by (3)

Every term is a multiple of 1/64 price unit, so a mirrored market has exactly the mirrored fair value; but `parity` and `decay` are
about YES by nature. Knows no candidate, no size and no order.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.strategy import MarketView
from llm_maker.core.values import CASH_PER_USD, Instrument, expit
from llm_maker.strategy import by_date
from llm_maker.strategy.params import MakerParams

_GRAIN = 64.0
_FLOW_BOUND = 2.0
"""Standard deviations of flow that count at most."""


class Valuation(msgspec.Struct):
    """What a market is worth to us now, price units: FV, the reservation price r, the half-spread, and their parts.

    `terms` names all that moved them: opinion, flow, parity, decay, target and skew sum to `reservation` less the micro-price;
    half and toxicity sum to `half`.
    """

    fair: float
    reservation: float
    half: float
    terms: dict[str, float]


def valuation(view: MarketView, params: MakerParams) -> Valuation:
    """All of the head of this file, for `inventory` quoting."""
    on = params.terms
    market = micro_price(view)
    informed = _informed(view, market)
    flow = _flow(view, params) if on.flow else 0.0
    parity = _parity(view, params) if on.parity and view.parity else 0.0
    decay = _decay(view, params) if on.decay else 0.0
    fair = informed + flow + parity + decay
    step = tick(view)
    kappa = _kappa(view, params, step)
    net, wanted = view.position.net, wanted_net(view, params, market, informed)
    floor, toxicity = _edge_floor(view, fair, params, step), view.toxicity if on.toxicity else 0.0
    terms = {
        "opinion": informed - market,
        "flow": flow,
        "parity": parity,
        "decay": decay,
        "target": wanted * kappa,
        "skew": -net * kappa,
        "half": floor,
        "toxicity": toxicity,
    }
    return Valuation(fair, fair - (net - wanted) * kappa, floor + toxicity, terms)


def micro_price(view: MarketView) -> float:
    """F: the micro-price; of a binary market rounded to 1/64 around N / 2."""
    fair = view.estimators.fair
    if not view.instrument.is_binary:
        return fair
    half = view.instrument.payout / 2
    return half + _grain(fair - half)


def fair_value(view: MarketView) -> float:
    """The micro-price moved by the opinion alone: in log-odds (binary) or log price (linear)."""
    return _informed(view, micro_price(view))


def _informed(view: MarketView, fair: float) -> float:
    instrument, shift = view.instrument, view.opinion.shift
    if shift == 0.0:
        return fair
    if not instrument.is_binary:
        return fair * math.exp(shift)
    return _about_half(instrument, math.log(fair) - math.log(instrument.payout - fair) + shift)


def _about_half(instrument: Instrument, x: float) -> float:
    """N * expit(x), rounded around N / 2 so that x and -x give mirror prices."""
    half = instrument.payout / 2
    return half + _grain((expit(abs(x)) - 0.5) * instrument.payout) * (1.0 if x >= 0 else -1.0)


def _grain(value: float) -> float:
    """To 1/64 price unit; ties go to even, which is odd-symmetric."""
    return round(value * _GRAIN) / _GRAIN


def _flow(view: MarketView, params: MakerParams) -> float:
    """w_f clip(z, -2, 2) tau (1.1)."""
    z = min(max(view.estimators.flow_z, -_FLOW_BOUND), _FLOW_BOUND)
    return _grain(params.flow_ticks * z * tick(view))


def _parity(view: MarketView, params: MakerParams) -> float:
    """What the other outcomes ask for; from below only in an event that is known to be listed whole (1.3)."""
    if view.parity > 0.0 and view.instrument.event_id not in params.complete_events:
        return 0.0
    return _grain(view.parity)


def _decay(view: MarketView, params: MakerParams) -> float:
    return _grain(by_date.drift(view.instrument, view.estimators.fair, view.now, params.decay_hold_ns, params.by_date))


def wanted_net(view: MarketView, params: MakerParams, market: float, informed: float) -> int:
    """q*, quantity units: what the opinion asks for; with `kelly` the bet behind a buy, from what it moved FV by.

    A hold, a sell and an exit keep their word: none of them opens a side. Nor does a buy open the other one, should the smoothed
    opinion still point there.
    """
    opinion, instrument = view.opinion, view.instrument
    if not params.terms.kelly or opinion.lean == 0 or not instrument.is_binary:
        return opinion.target_net or 0
    edge = (informed - market) * opinion.lean
    if edge <= 0.0:
        return 0
    shares = params.kelly_ratio * view.bankroll / CASH_PER_USD * edge * instrument.payout / (market * (instrument.payout - market))
    qty = shares * float(10**instrument.qty_decimals)
    return opinion.lean * round(min(qty, 0.5 * view.max_position))


def skew_per_unit(view: MarketView, params: MakerParams) -> float:
    """kappa: price units that the reservation price gives way per quantity unit held."""
    return _kappa(view, params, tick(view))


def _kappa(view: MarketView, params: MakerParams, step: int) -> float:
    instrument = view.instrument
    scale = instrument.payout if instrument.is_binary else view.estimators.fair
    sigma = view.estimators.sig_price(instrument, view.estimators.fair)
    ratio = min(max(sigma / (params.sig_ref * scale), 0.5), 2.0) if scale > 0 else 1.0
    return params.skew_max_ticks * step * ratio / max(view.max_position, 1)


def half_spread(view: MarketView, fair: float, params: MakerParams) -> float:
    """The edge floor: a tick, or the floor scaled by 4p(1-p), times what risk asks, plus measured toxicity."""
    return _edge_floor(view, fair, params, tick(view)) + (view.toxicity if params.terms.toxicity else 0.0)


def _edge_floor(view: MarketView, fair: float, params: MakerParams, step: int) -> float:
    instrument, shape = view.instrument, 1.0
    if instrument.is_binary:
        shape = 4.0 * fair * (instrument.payout - fair) / (instrument.payout * instrument.payout)
    return max(1.0, params.edge_floor_ticks * shape) * step * view.widen


def tick(view: MarketView) -> int:
    """One tick at the touch; of two different grids' steps the coarser, so that both sides agree."""
    return max(view.instrument.tick_at(view.book.best_bid), view.instrument.tick_at(view.book.best_ask))
