"""The record of opinions: what each model said of a market, where the market stood then, and where it stood later.

Makes rows from events and the state after them, so a journal makes the same rows again; and reads them back. It scores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from llm_maker.core import events as e
from llm_maker.core.advice import Signal
from llm_maker.core.places import others_best
from llm_maker.core.signals import bias_sign, market_x
from llm_maker.core.skill import HORIZONS_S, Forecast
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S, PPM, Side
from llm_maker.runtime.due import DueList, Later
from llm_maker.runtime.rows import ForecastRow, MarkRow, OutcomeRow, Row, Scope

PATIENCE = 0.1
"""Of a horizon: a market without a trusted price at its end is looked at for this much longer, then no more."""
_LOOK_NS = 5 * NS_PER_S


class ForecastBook:
    """Of one account; `pending` are opinions of an earlier run whose later prices are still to come."""

    def __init__(self, state: State, pending: Iterable[Forecast] = ()) -> None:
        self._state = state
        self._due = DueList()
        self._looked_ns = 0
        for told in pending:
            self._watch(told.ts, told.decision_id, told.instrument, told.later)

    def rows(self, ts: int, event: e.Event) -> list[Row]:
        """What one step adds to the record."""
        match event:
            case e.SignalsReceived():
                return self._received(ts, event)
            case e.MarketResolved():
                market = self._state.markets.get(event.instrument)
                if market is None or not market.instrument.is_binary:
                    return []
                return [OutcomeRow(instrument=event.instrument, paid_ppm=event.price * PPM // market.instrument.payout)]
            case e.Tick() if ts - self._looked_ns >= _LOOK_NS:
                self._looked_ns = ts
                return self._marks(ts)
            case _:
                return []

    def _received(self, ts: int, event: e.SignalsReceived) -> list[Row]:
        rows: list[Row] = []
        said = [(signal, event.model, "used", event.prompt_version) for signal in event.signals]
        said += [(signal, m.model, "member", m.prompt_version) for m in event.members for signal in m.signals]
        for signal, model, role, version in said:
            market = self._market(signal.market_id)
            x = self._x(market)
            d = _used(event, signal, market) if market is not None and role == "used" else None
            # What the core refused, or heard too late, was not used and measures nothing.
            if market is not None and x is not None and (d is not None or role == "member"):
                rows.append(_row(event, signal, market, x, model, role, version, d))
                self._watch(ts, event.decision_id, signal.market_id, {})
        return rows

    def _x(self, market: Market | None) -> float | None:
        """The market's log-odds without our own quotes, which an opinion tilts; None: no trust, or nobody else on both sides."""
        if market is None or not market.book.trusted:
            return None
        bid, ask = (others_best(self._state, market, side)[0] for side in (Side.BUY, Side.SELL))
        return market_x(market.instrument, (bid + ask) / 2) if bid and ask else None

    def _market(self, name: str) -> Market | None:
        """A market whose price can be compared with a probability now."""
        market = self._state.markets.get(name)
        known = market is not None and market.instrument.is_binary and market.mark > 0 and market.resolved is None
        return market if known else None

    def _watch(self, ts: int, decision: str, instrument: str, seen: dict[int, float]) -> None:
        for horizon in HORIZONS_S:
            if horizon not in seen:
                self._due.add(Later(ts + horizon * NS_PER_S, horizon, instrument, decision))

    def _marks(self, ts: int) -> list[Row]:
        rows: list[Row] = []
        waiting = []
        while (later := self._due.take(ts)) is not None:
            due, horizon, instrument, decision = later
            market = self._market(instrument)
            x, late = self._x(market), ts - due > PATIENCE * horizon * NS_PER_S
            if market is not None and x is None and not late:
                waiting.append(later)
                continue
            if x is not None and not late:
                rows.append(MarkRow(decision_id=decision, instrument=instrument, horizon_s=horizon, x_market=x))
        for later in waiting:
            self._due.add(later)
        return rows


_SCOPED = "venue = ? AND mode = ? AND wallet = ? AND account = ?"
Select = Callable[[str, Sequence[str | int]], list[Any]]


def read_forecasts(
    select: Select, scope: Scope, since_ns: int = 0, *, most: int = -1, horizons: Sequence[int] = HORIZONS_S
) -> list[Forecast]:
    """Opinions of one scope since then, oldest first, with what became of them; the last word on an outcome stands.

    At most the newest `most` of them, and only these horizons: a year of a large ensemble does not fit into a small machine.
    """
    newest = f"SELECT ts FROM forecasts WHERE {_SCOPED} ORDER BY seq DESC, n DESC LIMIT 1 OFFSET ?"
    cut = select(newest, (*scope.key, most)) if most >= 0 else []
    since_ns = max(since_ns, cut[0][0] + 1) if cut else since_ns
    later: dict[tuple[str, str], dict[int, float]] = {}
    wanted = ", ".join(str(int(h)) for h in horizons)
    marks = f"""SELECT decision_id, instrument, horizon_s, x_market FROM forecast_marks
      WHERE {_SCOPED} AND ts >= ? AND horizon_s IN ({wanted})"""
    for decision, instrument, horizon, x in select(marks, (*scope.key, since_ns)):
        later.setdefault((decision, instrument), {})[horizon] = x
    paid = dict(select(f"SELECT instrument, paid_ppm FROM outcomes WHERE {_SCOPED} ORDER BY seq, n", scope.key))
    names = ("ts", *ForecastRow.__struct_fields__)
    found = []
    for row in select(
        f"SELECT {', '.join(names)} FROM forecasts WHERE {_SCOPED} AND ts >= ? ORDER BY seq, n", (*scope.key, since_ns)
    ):
        told = dict(zip(names, row, strict=True))
        ppm = paid.get(told["instrument"])
        told["later"] = later.get((told["decision_id"], told["instrument"]), {})
        told["outcome"] = None if ppm is None else ppm / PPM
        found.append(msgspec.convert(told, Forecast, strict=False))
    return found


def _row(
    e_: e.SignalsReceived, signal: Signal, market: Market, x: float, model: str, role: str, version: str, d: float | None
) -> ForecastRow:
    instrument = market.instrument
    return ForecastRow(
        decision_id=e_.decision_id,
        model=model,
        role=role,
        prompt_version=version,
        instrument=instrument.id,
        category=instrument.category,
        event_id=instrument.event_id,
        p_yes=signal.p_yes,
        confidence=signal.confidence,
        bias=bias_sign(signal.directional_bias),
        x_market=x,
        d=d,
        simulated=e_.simulated,
    )


def _used(e_: e.SignalsReceived, signal: Signal, market: Market) -> float | None:
    """The disagreement that the core took from this signal; None: it refused it."""
    opinion = market.opinion
    return opinion.d0 if opinion is not None and opinion.decision_id == e_.decision_id and opinion.signal == signal else None
