"""Config keys in force in people's units, and the state with others in their place; of the keys that a change may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llm_maker.core.state import State
from llm_maker.core.values import CASH_PER_USD, NS_PER_S

RAISED_WITH: dict[str, tuple[str, ...]] = {
    "risk.max_market_pct": ("risk.max_event_pct", "risk.max_cluster_pct", "risk.max_gross_pct"),
    "risk.max_event_pct": ("risk.max_cluster_pct", "risk.max_gross_pct"),
    "risk.max_cluster_pct": ("risk.max_gross_pct",),
    "strategy.base_position_size": ("strategy.max_position_size",),
    "strategy.base_usd": ("strategy.max_usd",),
}
"""Key -> those that the config will not have below it."""
LIVE_CAPS = {
    "strategy.base_position_size": "live.max_order_shares",
    "strategy.max_position_size": "live.max_position_shares",
}
"""Real money trades the smaller of both."""

_PCT, _USD, _HOURS, _MILLI, _PLAIN = (100, 1), (1, CASH_PER_USD), (1, 3_600 * NS_PER_S), (1, 1_000), (1, 1)
"""(times, per): a number of the core times the one and by the other is what people write."""
_PLACES: dict[str, tuple[str, tuple[int, int]]] = {
    "risk.max_order_usd": ("params.risk.max_order_cost", _USD),
    "risk.max_market_pct": ("params.risk.market_ratio", _PCT),
    "risk.max_event_pct": ("params.risk.event_ratio", _PCT),
    "risk.max_cluster_pct": ("params.risk.cluster_ratio", _PCT),
    "risk.max_gross_pct": ("params.risk.gross_ratio", _PCT),
    "risk.min_free_cash_pct": ("params.risk.free_cash_ratio", _PCT),
    "risk.max_open_positions": ("params.risk.max_open_positions", _PLAIN),
    "risk.resolution_pull_hours": ("params.risk.resolution_pull_ns", _HOURS),
    "risk.resolution_reduce_hours": ("params.risk.resolution_reduce_ns", _HOURS),
    "risk.volatility_pull_ratio": ("params.risk.volatility_pull_ratio", _PLAIN),
    "risk.fat_finger_ticks": ("params.risk.fat_finger_ticks", _PLAIN),
    "risk.exit_max_slippage": ("params.risk.exit_max_slippage_ratio", _PLAIN),
    "strategy.min_confidence_to_trade": ("params.signals.min_confidence", _PLAIN),
    "strategy.base_position_size": ("params.signals.base_milli", _MILLI),
    "strategy.max_position_size": ("params.risk.max_position_milli", _MILLI),
    "strategy.base_usd": ("params.signals.base_cash", _USD),
    "strategy.max_usd": ("params.signals.max_position_cash", _USD),
    "live.max_order_shares": ("params.signals.base_milli", _MILLI),
    "live.max_position_shares": ("params.risk.max_position_milli", _MILLI),
    "execution.max_spread_threshold": ("strategy_params.max_spread_usd", _PLAIN),
    "execution.min_liquidity_threshold": ("strategy_params.min_liquidity_usd", _PLAIN),
    "strategy.terms.table": ("strategy_params.terms.table", _PLAIN),
    "strategy.terms.taper": ("strategy_params.terms.taper", _PLAIN),
    "strategy.terms.unwind": ("strategy_params.terms.unwind", _PLAIN),
}
"""Key -> where the state has it, and its unit."""
KEYS = tuple(_PLACES)


def in_force(state: State, key: str) -> float:
    """The value of a key; a switch is a bool. Raises `KeyError` for a key that no change names."""
    path, (times, per) = _PLACES[key]
    raw: Any = state
    for name in path.split("."):
        raw = getattr(raw, name)
    return raw if isinstance(raw, bool) else round(raw * times / per, 9)


def assumed(state: State, values: Mapping[str, float]) -> State:
    """The state as it would be with new values of keys; whatever they do not touch is shared with it: to be read only."""
    for key, value in values.items():
        path, (times, per) = _PLACES[key]
        state = _with(state, path.split("."), value * per / times)
    return state


def _with(part: Any, path: list[str], value: float) -> Any:
    now = getattr(part, path[0])
    if len(path) > 1:
        return msgspec.structs.replace(part, **{path[0]: _with(now, path[1:], value)})
    kept = bool(value) if isinstance(now, bool) else round(value) if isinstance(now, int) else value
    return msgspec.structs.replace(part, **{path[0]: kept})
