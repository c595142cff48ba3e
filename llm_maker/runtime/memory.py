"""A ledger in memory: what a recorder writes and a report reads, in lists, for runs that leave no file.

Same methods, same rules as `ledger.Ledger`: entries come in order and twice is once, the newest risk state stands, a settlement
changes its fill, every read names its scope. It forgets nothing, and knows no disk and no thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any, cast

import msgspec

from llm_maker.core.skill import Forecast
from llm_maker.core.values import PPM
from llm_maker.runtime.fill_book import PendingFill
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.rows import (
    FillMarkRow,
    FillRow,
    ForecastRow,
    MarkRow,
    OutcomeRow,
    RiskRow,
    Row,
    RowT,
    Scope,
    SettleRow,
)

_Entry = tuple[int, int, Any]
"""(seq, ts, row)."""


class _Account:
    """The rows of one scope."""

    def __init__(self) -> None:
        self.last_seq: int | None = None
        self.rows: dict[type[Row], list[_Entry]] = {}
        self.risk: dict[str, str] = {}
        self.risk_ns = 0
        self.fills: dict[tuple[str, str], int] = {}
        """(instrument, fill) -> its place among the fills."""

    def add(self, seq: int, ts: int, row: Row) -> None:
        if isinstance(row, RiskRow):
            self.risk[row.key], self.risk_ns = row.value, ts
            return
        if isinstance(row, SettleRow):
            self._settle(row)
            return
        kept = self.rows.setdefault(type(row), [])
        if isinstance(row, FillRow):
            self.fills[row.instrument, row.fill_id] = len(kept)
        kept.append((seq, ts, row))

    def _settle(self, told: SettleRow) -> None:
        place = self.fills.get((told.instrument, told.fill_id))
        if place is not None:
            seq, ts, fill = self.rows[FillRow][place]
            self.rows[FillRow][place] = (seq, ts, msgspec.structs.replace(fill, status=told.status))


class Memory:
    """All scopes of one run."""

    def __init__(self) -> None:
        self._accounts: dict[Scope, _Account] = {}

    def append(self, scope: Scope, seq: int, ts: int, rows: Sequence[Row], *, wait: bool = False) -> None:
        """Keep the rows of one journal entry; those at or under the last sequence change nothing. Nothing ever waits."""
        account = self._account(scope)
        if account.last_seq is not None and seq <= account.last_seq:
            return
        account.last_seq = seq
        for row in rows:
            account.add(seq, ts, row)

    def remember(self, scope: Scope, values: dict[str, str], ts: int = 0) -> None:
        """Keep facts that belong to no journal entry; the newest stays."""
        account = self._account(scope)
        account.risk |= values
        account.risk_ns = ts

    def scopes(self) -> list[Scope]:
        """Every scope that has left totals, in order of name."""
        return sorted((scope for scope, account in self._accounts.items() if account.risk), key=lambda scope: scope.key)

    def risk_state(self, scope: Scope) -> dict[str, str]:
        """Key -> JSON of the newest risk state."""
        return dict(sorted(self._account(scope).risk.items()))

    def read(self, kind: type[RowT], scope: Scope, after_seq: int = 0, limit: int = 1_000) -> list[tuple[int, int, RowT]]:
        """Rows of one kind as (seq, ts, row), oldest first, at most `limit` of them past `after_seq`."""
        return list(islice((entry for entry in self.scan(kind, scope) if entry[0] > after_seq), limit))

    def scan(self, kind: type[RowT], scope: Scope, since_ns: int = 0) -> Iterator[tuple[int, int, RowT]]:
        """Every row of one kind since then as (seq, ts, row), oldest first."""
        kept = cast(list[tuple[int, int, RowT]], self._account(scope).rows.get(kind, []))
        return (entry for entry in kept if entry[1] >= since_ns)

    def forecasts(self, scope: Scope, since_ns: int = 0) -> list[Forecast]:
        """Every opinion since then with what became of it, oldest first."""
        later: dict[tuple[str, str], dict[int, float]] = {}
        for _, _, mark in self.scan(MarkRow, scope, since_ns):
            later.setdefault((mark.decision_id, mark.instrument), {})[mark.horizon_s] = mark.x_market
        paid = {row.instrument: row.paid_ppm / PPM for _, _, row in self.scan(OutcomeRow, scope)}
        return [
            Forecast(
                ts=ts,
                later=later.get((row.decision_id, row.instrument), {}),
                outcome=paid.get(row.instrument),
                **msgspec.structs.asdict(row),
            )
            for _, ts, row in self.scan(ForecastRow, scope, since_ns)
        ]

    def pending_fills(self, scope: Scope, since_ns: int) -> list[PendingFill]:
        """Fills since then that stand, with the horizons at which the price is on record."""
        seen: dict[tuple[str, str], tuple[int, ...]] = {}
        for _, _, mark in self.scan(FillMarkRow, scope, since_ns):
            key = (mark.fill_id, mark.instrument)
            seen[key] = (*seen.get(key, ()), mark.horizon_s)
        return [
            PendingFill(ts, row.fill_id, row.instrument, seen.get((row.fill_id, row.instrument), ()))
            for _, ts, row in self.scan(FillRow, scope, since_ns)
            if row.status != "failed"
        ]

    def write(self, ledger: Ledger) -> None:
        """Everything into a ledger that knows none of these scopes yet; waits while its queue is full."""
        for scope, account in self._accounts.items():
            ledger.remember(scope, account.risk, account.risk_ns)
        for scope, account in self._accounts.items():
            entries = sorted((e for kept in account.rows.values() for e in kept), key=lambda entry: entry[0])
            for seq, group in groupby(entries, key=lambda entry: entry[0]):
                same = list(group)
                ledger.append(scope, seq, same[0][1], [row for _, _, row in same], wait=True)

    def _account(self, scope: Scope) -> _Account:
        return self._accounts.setdefault(scope, _Account())
