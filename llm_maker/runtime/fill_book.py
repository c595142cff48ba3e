"""The record behind the report: what stood beside each fill, where the price went afterwards, and every market now and then.

Makes rows from events and the state after them, as `forecasts` does for opinions. It judges nothing, and adds nothing up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llm_maker.core import events as e
from llm_maker.core.commands import AnyCommand, PlaceOrder
from llm_maker.core.quote import EXIT, INTENT, effective
from llm_maker.core.signals import Opinion
from llm_maker.core.state import Market, State, acting
from llm_maker.core.values import NS_PER_S, FeeCurve, Side, expit, logit
from llm_maker.runtime.due import DueList, Later
from llm_maker.runtime.rows import FillFactRow, FillMarkRow, Row, SampleRow

MARKOUTS_S = (1, 10, 60, 300, 3_600, 86_400)
"""Horizons after a fill, seconds: those of `report.track`, which this floor may not know."""
PATIENCE = 0.1
"""Of a horizon, and a second at least: a market without a trusted price at its end is looked at for this much longer."""
SAMPLE_NS = 60 * NS_PER_S
MOST_SAMPLES = 20
"""Markets sampled in one `sample_ns`, on the mean: more of them are looked at less often."""

_STOOD_SLACK = 500
"""So many more orders than the core knows, and half as many again, may be remembered before those it has forgotten go."""


class PendingFill(msgspec.Struct, frozen=True):
    """A fill of an earlier run some of whose later prices are still to come; `seen` are the horizons on record."""

    ts: int
    fill_id: str
    instrument: str
    seen: tuple[int, ...] = ()


class _Stood(msgspec.Struct, frozen=True):
    """What made the price of an order when it was placed."""

    terms: dict[str, float]
    opinion: Opinion | None


class FillBook:
    """Of one account. `sample_ns` 0 takes no samples; `pending` are fills of an earlier run."""

    def __init__(self, state: State, sample_ns: int = SAMPLE_NS, pending: Iterable[PendingFill] = ()) -> None:
        self._state = state
        self._sample_ns, self._next_sample = sample_ns, 0
        self._fills = state.counts.fills
        self._due = DueList()
        self._stood: dict[str, _Stood] = {}
        for fill in pending:
            self._watch(fill.ts, fill.instrument, fill.fill_id, fill.seen)

    def rows(self, ts: int, event: e.Event, commands: Sequence[AnyCommand] = ()) -> list[Row]:
        """What one step adds to the record; `commands` are what came of it."""
        rows: list[Row] = []
        if isinstance(event, e.Tick):
            rows = self._marks(ts)
            if self._sample_ns and ts >= self._next_sample:
                rows += self._samples(ts)
        elif isinstance(event, e.OrderFilled) and self._state.counts.fills != self._fills:
            self._fills = self._state.counts.fills
            rows = self._filled(ts, event)
        for command in commands:
            if isinstance(command, PlaceOrder):
                self._placed(command)
        return rows

    def _placed(self, command: PlaceOrder) -> None:
        """A fill makes the strategy look again before we do: what made the price is kept from when it was sent."""
        market = self._state.markets[command.instrument]
        if len(self._stood) >= 1.5 * len(self._state.orders) + _STOOD_SLACK:
            self._forget()
        self._stood[command.order_id] = _Stood(dict(_priced_by(market, command.reason)), acting(self._state, market))

    def _forget(self) -> None:
        """What stood beside orders that the core has forgotten goes."""
        self._stood = {i: stood for i, stood in self._stood.items() if i in self._state.orders}

    def _filled(self, ts: int, event: e.OrderFilled) -> list[Row]:
        market = self._state.markets[event.instrument]
        stood = self._stood.get(event.order_id)
        order = self._state.orders.get(event.order_id)
        terms = stood.terms if stood is not None else _priced_by(market, order.reason if order is not None else "")
        opinion = acting(self._state, market)
        if opinion is None and market.opinion is None and stood is not None:
            opinion = stood.opinion  # this very fill has ended the exit that it asked for
        shift = self._shift(market, ts)
        fact = FillFactRow(
            fill_id=event.fill_id,
            instrument=event.instrument,
            mid2=round(market.mark * 2),
            fair=_fair(market, terms, shift),
            terms=msgspec.json.encode(terms).decode(),
            model=opinion.model if opinion is not None else "",
            action=opinion.signal.action.value if opinion is not None else "",
            confidence=opinion.signal.confidence if opinion is not None else 0.0,
            shift=shift if opinion is not None else 0.0,
        )
        self._watch(ts, event.instrument, event.fill_id, ())
        return [fact, self._sample(market, ts)] if self._sample_ns else [fact]

    def _shift(self, market: Market, ts: int) -> float:
        return effective(self._state, market, ts).shift if market.opinion is not None else 0.0

    def _watch(self, ts: int, instrument: str, fill_id: str, seen: Sequence[int]) -> None:
        for horizon in MARKOUTS_S:
            if horizon not in seen:
                self._due.add(Later(ts + horizon * NS_PER_S, horizon, instrument, fill_id))

    def _marks(self, ts: int) -> list[Row]:
        """The doubled mid of every fill whose horizon has come; one that comes too late is never told."""
        rows: list[Row] = []
        waiting = []
        while (later := self._due.take(ts)) is not None:
            due, horizon, instrument, fill_id = later
            market = self._state.markets.get(instrument)
            late = ts - due > max(PATIENCE * horizon, 1.0) * NS_PER_S
            mid2 = None if market is None or late else _mid2(market)
            if market is not None and not late and mid2 is None:
                waiting.append(later)
                continue
            if mid2 is not None:
                rows.append(FillMarkRow(fill_id=fill_id, instrument=instrument, horizon_s=horizon, mid2=mid2))
        for later in waiting:
            self._due.add(later)
        return rows

    def _samples(self, ts: int) -> list[Row]:
        """Every market that is quoted or held; and what stood beside orders that the core has forgotten goes."""
        state = self._state
        shown = [m for m in state.markets.values() if m.quoted or m.position.net]
        self._next_sample = ts + self._sample_ns * max(1, -(-len(shown) // MOST_SAMPLES))
        self._forget()
        return [self._sample(market, ts) for market in shown]

    def _sample(self, market: Market, ts: int) -> Row:
        book, orders = market.book, self._state.orders
        return SampleRow(
            instrument=market.instrument.id,
            bid=book.best_bid if book.trusted else 0,
            ask=book.best_ask if book.trusted else 0,
            own_bid=market.own_price(Side.BUY, orders),
            own_ask=market.own_price(Side.SELL, orders),
            net=market.position.net,
            fair=_fair(market, _terms(market), self._shift(market, ts)),
        )


class Roll:
    """Every instrument that was ever traded or quoted, kept when the core has long forgotten it; for the totals of `report`."""

    def __init__(self, state: State, kept: Mapping[str, str]) -> None:
        """`kept`: the totals of an earlier run as they were written, JSON."""
        self._state = state

        def old(key: str) -> dict[str, Any]:
            return msgspec.json.decode(kept[key], type=dict[str, Any]) if key in kept else {}

        self._instruments, self._marks, self._settled, self._quoted = (
            old(key) for key in ("instruments", "marks", "settled", "quoted")
        )

    def totals(self) -> dict[str, Any]:
        """Instrument -> what it is, its last doubled mid, twice what it paid, ns quoted; and what is held of it now."""
        nets = {}
        for name, market in self._state.markets.items():
            quoted = market.quoted_ns + (self._state.now - market.quoted_since if market.quoted else 0)
            net = market.position.net
            if not quoted and not net and not market.position.volume and name not in self._instruments:
                continue
            instrument = market.instrument
            self._instruments[name] = {
                "name": instrument.question or name,
                "price_scale": 10**instrument.price_decimals,
                "qty_scale": 10**instrument.qty_decimals,
                "payout": instrument.payout,
                "category": instrument.category,
                "taker_ppm": instrument.fee.taker_ppm if instrument.fee.curve is FeeCurve.VARIANCE else 0,
                "pool_per_day": instrument.reward.pool_per_day if instrument.reward else 0,
                "event_id": instrument.event_id,
            }
            self._quoted[name] = quoted
            self._marks[name] = round(market.mark * 2)
            if market.resolved is not None:
                self._settled[name] = 2 * market.resolved
            if net:
                nets[name] = net
        return {
            "instruments": self._instruments,
            "marks": self._marks,
            "settled": self._settled,
            "quoted": self._quoted,
            "nets": nets,
        }


def _terms(market: Market) -> dict[str, float]:
    """What the strategy says made its last prices; a strategy that says nothing has none."""
    terms: dict[str, float] = getattr(market.own, "terms", {})
    return terms


def _priced_by(market: Market, reason: str) -> Mapping[str, float]:
    """The terms behind an order of this reason: exits and intents are priced by the touch, whatever the strategy last said."""
    return {} if reason.startswith((EXIT, INTENT)) else _terms(market)


def _mid2(market: Market) -> int | None:
    """Twice the price of now: the outcome once it is known, else the mid of the trusted book; None: there is none."""
    if market.resolved is not None:
        return 2 * market.resolved
    return market.book.best_bid + market.book.best_ask if market.book.two_sided else None


def _fair(market: Market, terms: Mapping[str, float], shift: float) -> float:
    """The strategy's own fair value where it tells one, else the micro-price moved by the opinion (`quoting.md` 1.4)."""
    if "fair" in terms:
        return terms["fair"]
    fair, payout = market.estimators.fair, market.instrument.payout
    if shift == 0.0 or fair <= 0.0:
        return fair
    if not payout:
        return fair * math.exp(shift)
    return payout * expit(logit(fair / payout) + shift) if fair < payout else fair
