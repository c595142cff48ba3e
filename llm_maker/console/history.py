"""What the page draws: the account's and each market's curves since the start, in bounded memory."""

from __future__ import annotations

import math
from array import array
from typing import Literal

from llm_maker.console.shapes import Curve, Entry, History
from llm_maker.core.state import Market, State, worst_loss
from llm_maker.core.values import Side, usd
from llm_maker.core.worth import equity

POINTS = 2_000
"""Of a curve at most; from there on every second one goes, and the next are taken half as often."""
MARKET_POINTS_IN_ALL = 120_000
"""Shared by the markets, so that hundreds of them cost no more than a few: 600 each of 200, 32 bytes a point."""
MARKET_POINTS_LEAST = 200
ACCOUNT = ("equity", "drawdown", "exposure", "inventory", "model_cost", "twin")
MARKET = ("bid", "ask", "our_bid", "our_ask", "fair", "position")
_NS_PER_MS = 1_000_000


class Columns:
    """One curve: times and values, thinned as it grows. `code` is the `array` type of a value."""

    __slots__ = ("_step_ns", "_ts", "_values")

    def __init__(self, names: tuple[str, ...], code: Literal["f", "d"]) -> None:
        self._ts: array[int] = array("q")
        self._values: dict[str, array[float]] = {name: array(code) for name in names}
        self._step_ns = 0

    def due(self, ts: int) -> bool:
        """Whether a point at this time would be kept."""
        return not self._ts or ts - self._ts[-1] >= max(self._step_ns, 1)

    def add(self, ts: int, values: tuple[float | None, ...], most: int) -> None:
        """A point; None is kept as not a number."""
        self._ts.append(ts)
        for column, value in zip(self._values.values(), values, strict=True):
            column.append(math.nan if value is None else value)
        while len(self._ts) > most:
            # The newest stays, whatever the count.
            first = (len(self._ts) + 1) % 2
            self._ts = self._ts[first::2]
            self._values = {name: column[first::2] for name, column in self._values.items()}
            self._step_ns = (self._ts[-1] - self._ts[0]) // max(len(self._ts) - 1, 1)

    def told(self, places: int) -> Curve:
        """As JSON, values rounded."""
        return {
            "ts_ms": [ts // _NS_PER_MS for ts in self._ts],
            "values": {
                name: [None if math.isnan(value) else round(value, places) for value in column]
                for name, column in self._values.items()
            },
        }


class Past:
    """Looked at about once a second of wall time; keeps columns by market time, thinned as they grow."""

    def __init__(self) -> None:
        self._account = Columns(ACCOUNT, "d")
        self._markets: dict[str, Columns] = {}

    def look(self, state: State, twin_usd: float | None) -> None:
        """A sample of everything, if market time has moved on."""
        if self._account.due(state.now):
            self._account.add(state.now, _account(state, twin_usd), POINTS)
        most = min(POINTS, max(MARKET_POINTS_LEAST, MARKET_POINTS_IN_ALL // max(len(state.markets), 1)))
        for name, market in state.markets.items():
            kept = self._markets.get(name)
            if kept is None:
                kept = self._markets[name] = Columns(MARKET, "f")
            if kept.due(state.now):
                kept.add(state.now, _market(state, market), most)
        if len(self._markets) > len(state.markets):
            self._markets = {name: kept for name, kept in self._markets.items() if name in state.markets}

    def told(self, state: State, market_id: str, marks: list[Entry]) -> History:
        """`shapes.History`; `market_id` empty: the account alone."""
        kept = self._markets.get(market_id)
        market = state.markets.get(market_id)
        decimals = market.instrument.price_decimals if market is not None else 0
        return {
            "ok": True,
            "account": self._account.told(4),
            "market": None if kept is None else kept.told(max(decimals, 4)),
            "marks": marks,
            "calibration": [_skill(key, state) for key in state.skills],
        }


def _account(state: State, twin_usd: float | None) -> tuple[float | None, ...]:
    worth = equity(state)
    positions = sum(worst_loss(state.params, state.markets[name], 0, 0, 0, 0) for name in state.held)
    fallen = max(0, state.risk.high_water - worth) if state.risk.judged_ns else 0
    return usd(worth), usd(fallen), usd(state.gross), usd(positions), usd(-state.flows.llm_cost), twin_usd


def _market(state: State, market: Market) -> tuple[float | None, ...]:
    instrument, book = market.instrument, market.book
    prices = (
        book.best_bid if book.trusted else 0,
        book.best_ask if book.trusted else 0,
        market.own_price(Side.BUY, state.orders),
        market.own_price(Side.SELL, state.orders),
        market.estimators.fair,
    )
    return (*(instrument.usd_price(price) if price else None for price in prices), instrument.usd_qty(market.position.net))


def _skill(key: str, state: State) -> dict[str, object]:
    """What was measured of a model in a category (empty: in all of them)."""
    skill = state.skills[key]
    model, _, category = key.rpartition("|")
    return {
        "model": model,
        "category": category,
        "n": skill.signals,
        "weight": skill.weight if skill.measured else state.params.signals.prior_weight,
        "measured": skill.measured,
        "why": skill.why,
        "slope": skill.slope,
        "slope_low": skill.slope_low,
        "slope_high": skill.slope_high,
        "outcomes": skill.outcomes,
        "brier": skill.brier,
        "brier_market": skill.brier_market,
        "confidence": [{"up_to": up_to, "rho": rho} for up_to, rho in skill.trust],
    }
