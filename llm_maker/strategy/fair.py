"""Fair value and reservation price: the micro-price, moved by opinion and by what the inventory asks for.

Equations in `maker`. Knows no candidate, no size and no order.
"""

from __future__ import annotations

import math

from llm_maker.core.strategy import MarketView
from llm_maker.core.values import Instrument, expit
from llm_maker.strategy.params import MakerParams

_GRAIN = 64.0


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
    step = tick(view)
    scale = instrument.payout if instrument.is_binary else view.estimators.fair
    sigma = view.estimators.sig_price(instrument, view.estimators.fair)
    ratio = min(max(sigma / (params.sig_ref * scale), 0.5), 2.0) if scale > 0 else 1.0
    return params.skew_max_ticks * step * ratio / max(view.max_position, 1)


def half_spread(view: MarketView, fair: float, params: MakerParams) -> float:
    """The edge floor: a tick, or the floor scaled by 4p(1-p), times what risk asks, plus measured toxicity."""
    step, instrument = tick(view), view.instrument
    shape = 1.0
    if instrument.is_binary:
        shape = 4.0 * fair * (instrument.payout - fair) / (instrument.payout * instrument.payout)
    return max(1.0, params.edge_floor_ticks * shape) * step * view.widen + view.toxicity


def tick(view: MarketView) -> int:
    """One tick at the touch; of two different grids' steps the coarser, so that both sides agree."""
    return max(view.instrument.tick_at(view.book.best_bid), view.instrument.tick_at(view.book.best_ask))
