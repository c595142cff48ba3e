"""What the strategy wants of a market now, before any limit: asked again beside the trading loop, on a copy of its own state."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from llm_maker.core.params import sizes
from llm_maker.core.quote import effective, market_view
from llm_maker.core.risk import Gate
from llm_maker.core.state import Market, State
from llm_maker.core.step import Step
from llm_maker.core.strategy import QuoteTarget, Strategy
from llm_maker.core.values import Side


class Wishes(msgspec.Struct):
    """The answer. `asked` False: an exit, an intent or a missing book leaves nothing to ask; `factor`: how much of the base size
    the strategy was shown."""

    asked: bool
    targets: dict[Side, QuoteTarget] = {}
    note: str = ""
    terms: dict[str, float] = {}
    lacks: dict[Side, tuple[str, str, float]] = {}
    """By side on which nothing is wanted; empty for a strategy that does not say."""
    factor: float = 1.0


def wishes(state: State, market: Market, strategy: Strategy | None, allowed: Gate) -> Wishes:
    """Ask a strategy; the market, its own state included, stays as it was."""
    busy = (market.exit_plan is not None and market.exit_plan.exiting) or market.intent is not None
    opinion = effective(state, market, state.now)
    if strategy is None or busy or not market.book.trusted or market.mark <= 0 or opinion.silent:
        return Wishes(False)
    own: Any = copy.deepcopy(market.own)
    view = market_view(Step(state, strategy, state.now), market, opinion, allowed)
    targets = strategy.on_market(view, own, state.strategy_params)
    found = {target.side: target for target in targets if isinstance(target, QuoteTarget)}
    base, _ = sizes(state.params, market.instrument, market.mark)
    wanted = Wishes(True, found, getattr(own, "note", ""), getattr(own, "terms", {}), factor=view.base_qty / base if base else 1.0)
    lack = getattr(strategy, "lack", None)
    if lack is not None:
        wanted.lacks = {side: lack(view, own, state.strategy_params, side) for side in Side if side not in found}
    return wanted
