"""How much is quoted on a side: the base size, less what the position, the book and the calendar say."""

from __future__ import annotations

from llm_maker.core.strategy import MarketView
from llm_maker.core.values import Side
from llm_maker.strategy.params import MakerParams


def size(view: MarketView, side: Side, params: MakerParams) -> int:
    """L times the taper of the adding side (`quoting.md` 3); nothing beyond the soft cap of the position."""
    if view.max_position <= 0:
        return 0
    load = side * view.position.net / view.max_position
    if load >= params.soft_cap:
        return 0
    return view.instrument.floor_qty(view.base_qty * (1.0 - max(0.0, load)))
