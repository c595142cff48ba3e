"""What config keys are in force, read back from the core's numbers in people's units; of the keys that a change may name."""

from __future__ import annotations

from collections.abc import Callable

from llm_maker.core.state import State
from llm_maker.core.values import NS_PER_S, usd

_HOUR_NS = 3_600 * NS_PER_S

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

_READ: dict[str, Callable[[State], float]] = {
    "risk.max_order_usd": lambda s: usd(s.params.risk.max_order_cost),
    "risk.max_market_pct": lambda s: _pct(s.params.risk.market_ratio),
    "risk.max_event_pct": lambda s: _pct(s.params.risk.event_ratio),
    "risk.max_cluster_pct": lambda s: _pct(s.params.risk.cluster_ratio),
    "risk.max_gross_pct": lambda s: _pct(s.params.risk.gross_ratio),
    "risk.min_free_cash_pct": lambda s: _pct(s.params.risk.free_cash_ratio),
    "risk.max_open_positions": lambda s: s.params.risk.max_open_positions,
    "risk.resolution_pull_hours": lambda s: s.params.risk.resolution_pull_ns / _HOUR_NS,
    "risk.resolution_reduce_hours": lambda s: s.params.risk.resolution_reduce_ns / _HOUR_NS,
    "risk.volatility_pull_ratio": lambda s: s.params.risk.volatility_pull_ratio,
    "risk.fat_finger_ticks": lambda s: s.params.risk.fat_finger_ticks,
    "risk.exit_max_slippage": lambda s: s.params.risk.exit_max_slippage_ratio,
    "strategy.min_confidence_to_trade": lambda s: s.params.signals.min_confidence,
    "strategy.base_position_size": lambda s: s.params.signals.base_milli / 1_000,
    "strategy.max_position_size": lambda s: s.params.risk.max_position_milli / 1_000,
    "strategy.base_usd": lambda s: usd(s.params.signals.base_cash),
    "strategy.max_usd": lambda s: usd(s.params.signals.max_position_cash),
    "live.max_order_shares": lambda s: s.params.signals.base_milli / 1_000,
    "live.max_position_shares": lambda s: s.params.risk.max_position_milli / 1_000,
    "execution.max_spread_threshold": lambda s: s.strategy_params.max_spread_usd,
    "execution.min_liquidity_threshold": lambda s: s.strategy_params.min_liquidity_usd,
    "strategy.terms.table": lambda s: s.strategy_params.terms.table,
    "strategy.terms.taper": lambda s: s.strategy_params.terms.taper,
    "strategy.terms.unwind": lambda s: s.strategy_params.terms.unwind,
}
KEYS = tuple(_READ)


def in_force(state: State, key: str) -> float:
    """The value of a key; a switch is a bool. Raises `KeyError` for a key that no change names."""
    return _READ[key](state)


def _pct(ratio: float) -> float:
    return round(100.0 * ratio, 9)
