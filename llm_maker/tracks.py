"""The record of an account, read from its ledger or from memory: a `report.track.Track` of each.

What is read ends with the last totals on record, so that money and fills are of one moment even while a daemon writes. Everything
is read a few thousand rows at a time; equity points are thinned, samples are read only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Any

import msgspec

from llm_maker.core.state import Counts, Flows, Tally
from llm_maker.report.track import Fill, Money, Point, Quoted, Sample, Track, Trip
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import (
    CashRow,
    DecisionRow,
    EquityRow,
    FillFactRow,
    FillMarkRow,
    FillRow,
    SampleRow,
    Scope,
    TripRow,
)

Source = Ledger | Memory
BUCKETS = 4_000
"""Of a longer record the highest, the lowest and the last equity point of each bucket are kept: a drawdown stays what it was."""
_TERMS = msgspec.json.Decoder(dict[str, float])


def tracks_of(home: Path, *, backtest: bool = False, since_ns: int = 0, samples: bool = False) -> list[Track]:
    """The tracks of all accounts of a home; with `backtest` also that of its last backtest, after them.

    Raises `LedgerError` for a ledger that cannot be read. Nothing there gives none.
    """
    paths = [home / "positions" / "ledger.sqlite3"]
    if backtest:
        paths.append(home / "logs" / "backtest" / "ledger.sqlite3")
    found: list[Track] = []
    for path in paths:
        if path.exists():
            ledger = Ledger.open(path)
            try:
                found += [track(ledger, scope, since_ns, samples=samples) for scope in ledger.scopes()]
            finally:
                ledger.close()
    return found


def track(source: Source, scope: Scope, since_ns: int = 0, *, samples: bool = False) -> Track:
    """The record of one account since then, oldest first.

    A record that begins later than the account (`label["since_ns"]`) opens with the first equity point from then on: that equity is
    its `start_cash`, and its `flows` are those after it.
    """
    kept = _Kept(source.risk_state(scope))
    began = _opening(source, scope, since_ns) if since_ns > kept.start_ns else None
    since, after = (0, -1) if began is None else (since_ns, began[0])
    window = _Window(since, after, kept.seq)
    fills, failed = _fills(source, scope, window)
    money = [
        Money(ts=ts, kind=row.kind, amount=row.amount, instrument=row.instrument)
        for ts, row in window.of(source.scan(CashRow, scope, since))
    ]
    flows = kept.flows if began is None else _window_flows(began[1], fills, money)
    start_ns = kept.start_ns if began is None else began[1].ts
    trips = [_trip(ts, row) for ts, row in window.of(source.scan(TripRow, scope, since))]
    return Track(
        label={
            "account": scope.account,
            "venue": scope.venue,
            "mode": scope.mode,
            "wallet": scope.wallet,
            "simulated": scope.venue == "simulated",
            **({} if began is None else {"since_ns": start_ns}),
        },
        start_ns=start_ns,
        end_ns=kept.now,
        start_cash=flows.start,
        equity=kept.read("equity", int, 0),
        exit_equity=kept.read("exit_equity", int, 0),
        flows=msgspec.to_builtins(flows),
        counts=msgspec.to_builtins(kept.read("counts", Counts, Counts())),
        fills=fills,
        instruments=_instruments(source, scope, kept, fills),
        money=money,
        trips=trips,
        points=([] if began is None else [began[1]]) + _points(source, scope, window, kept, start_ns),
        samples=_samples(source, scope, window) if samples else {},
        refusals={reason: (tally.count, tally.ns) for reason, tally in kept.read("refused", dict[str, Tally], {}).items()},
        model_costs=[(ts, row.cost) for ts, row in window.of(source.scan(DecisionRow, scope, since))],
        failed_fills=failed,
    )


class _Kept:
    """The totals of an account as they were last written."""

    def __init__(self, state: dict[str, str]) -> None:
        self._state = state
        self.now: int = self.read("now", int, 0)
        self.start_ns: int = self.read("start_ns", int, 0)
        self.seq: int = self.read("seq", int, 0) or 1 << 62
        """The last entry that they know of; of an older build: all."""
        self.flows: Flows = self.read("flows", Flows, Flows())

    def read(self, key: str, kind: Any, default: Any) -> Any:
        return msgspec.json.decode(self._state[key], type=kind) if key in self._state else default


class _Window(msgspec.Struct, frozen=True):
    """Which entries count: from a moment on, past one sequence, up to another."""

    since_ns: int
    after: int
    last: int

    def of(self, rows: Iterator[tuple[int, int, Any]]) -> Iterator[tuple[int, Any]]:
        return ((ts, row) for seq, ts, row in rows if self.after < seq <= self.last)


def _opening(source: Source, scope: Scope, since_ns: int) -> tuple[int, Point] | None:
    """(seq, point) of the first equity point from then on; None: there is none, and the record is read whole."""
    for seq, ts, row in source.scan(EquityRow, scope, since_ns):
        return seq, Point(ts, row.equity, row.cash)
    return None


def _window_flows(opening: Point, fills: list[Fill], money: list[Money]) -> Flows:
    """Where the money of a window went, from its rows."""

    def moved(kind: str) -> int:
        return sum(move.amount for move in money if move.kind == kind)

    return Flows(
        start=opening.equity,
        trading=sum(fill.cash for fill in fills) + sum(moved(kind) for kind in ("redemption", "merge", "split", "work")),
        fees=moved("fee") - sum(fill.fee for fill in fills),
        rebates=moved("rebate"),
        rewards=moved("reward"),
        funding=moved("funding"),
        transfers=moved("transfer"),
    )


def _fills(source: Source, scope: Scope, window: _Window) -> tuple[list[Fill], int]:
    """The fills that stand, with their facts and marks; and how many failed."""
    facts = source.scan(FillFactRow, scope, window.since_ns)
    fact = next(facts, None)
    fills: list[Fill] = []
    places: dict[tuple[str, str], int] = {}
    failed = 0
    for seq, ts, row in source.scan(FillRow, scope, window.since_ns):
        if not window.after < seq <= window.last:
            continue
        while fact is not None and fact[0] < seq:
            fact = next(facts, None)
        if row.status == "failed":
            failed += 1
            continue
        places[row.instrument, row.fill_id] = len(fills)
        fills.append(_fill(ts, row, fact[2] if fact is not None and fact[0] == seq else None))
    for _, mark in window.of(source.scan(FillMarkRow, scope, window.since_ns)):
        place = places.get((mark.instrument, mark.fill_id))
        if place is not None:
            # A restart may look at a fill again; what was seen first stands.
            fills[place].marks.setdefault(mark.horizon_s, mark.mid2)
    return fills, failed


def _fill(ts: int, row: FillRow, fact: FillFactRow | None) -> Fill:
    known: dict[str, Any] = (
        {}
        if fact is None
        else {
            "mid2": fact.mid2,
            "fair": fact.fair,
            "terms": _TERMS.decode(fact.terms),
            "model": intern(fact.model),
            "action": intern(fact.action),
            "confidence": fact.confidence,
            "shift": fact.shift,
        }
    )
    return Fill(
        ts=ts,
        fill_id=row.fill_id,
        order_id=row.order_id,
        instrument=intern(row.instrument),
        side=row.side,
        price=row.price,
        qty=row.qty,
        fee=row.fee,
        maker=row.liquidity == "maker",
        cash=row.cash,
        position_after=row.position_after,
        marks={},
        decision_id=intern(row.decision_id),
        reason=intern(row.reason),
        **known,
    )


def _instruments(source: Source, scope: Scope, kept: _Kept, fills: list[Fill]) -> dict[str, Quoted]:
    """What was traded or quoted; of a ledger without the list, what its fills tell of theirs."""
    told = kept.read("instruments", dict[str, dict[str, Any]], {})
    marks, settled = kept.read("marks", dict[str, int], {}), kept.read("settled", dict[str, int], {})
    quoted, nets = kept.read("quoted", dict[str, int], {}), kept.read("nets", dict[str, int], None)
    last = {fill.instrument: fill for fill in fills}
    missing = last.keys() - told.keys()
    if missing:
        for _, _, row in source.scan(FillRow, scope):
            if row.instrument in missing:
                missing = missing - {row.instrument}
                told[row.instrument] = {
                    "name": row.instrument,
                    "price_scale": row.price_scale,
                    "qty_scale": row.qty_scale,
                    "payout": 0 if row.leg == "none" else row.price_scale,
                }
    if nets is None:
        nets = {name: fill.position_after for name, fill in last.items()}
    return {
        name: Quoted(
            **facts, mid2=marks.get(name, 0), settled2=settled.get(name), net=nets.get(name, 0), quoted_ns=quoted.get(name, 0)
        )
        for name, facts in told.items()
    }


def _trip(ts: int, row: TripRow) -> Trip:
    return Trip(
        instrument=row.instrument,
        opened_ns=row.opened_ns,
        closed_ns=ts,
        side=row.side,
        qty=row.qty,
        pnl=row.pnl,
        exit_reason=row.exit_reason,
    )


def _points(source: Source, scope: Scope, window: _Window, kept: _Kept, start_ns: int) -> list[Point]:
    """Equity over time, thinned, and at the end."""
    width = max(1, (kept.now - start_ns) // BUCKETS)
    points: list[Point] = []
    bucket: list[Point] = []
    for ts, row in window.of(source.scan(EquityRow, scope, window.since_ns)):
        point = Point(ts, row.equity, row.cash)
        if bucket and bucket[0].ts // width != ts // width:
            points += _extremes(bucket)
            bucket = []
        bucket.append(point)
    points += _extremes(bucket)
    ended = Point(kept.now, kept.read("equity", int, 0), kept.read("cash", int, 0))
    return points if not kept.now or (points and points[-1] == ended) else [*points, ended]


def _extremes(bucket: list[Point]) -> list[Point]:
    """The lowest, the highest and the last of them, in order of time."""
    if not bucket:
        return []
    wanted = {min(bucket, key=lambda p: p.equity).ts, max(bucket, key=lambda p: p.equity).ts, bucket[-1].ts}
    return [point for point in bucket if point.ts in wanted]


def _samples(source: Source, scope: Scope, window: _Window) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for ts, row in window.of(source.scan(SampleRow, scope, window.since_ns)):
        sample = Sample(ts, row.bid, row.ask, row.own_bid, row.own_ask, row.net, row.fair)
        found.setdefault(row.instrument, []).append(sample)
    return found
