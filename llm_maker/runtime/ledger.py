"""The ledger: an index of the journal in one SQLite file, written by a thread of its own.

Rows come from the journal's events and carry the sequence that made them, so applying the same journal twice changes
nothing. It knows connections, batches and questions; `rows` has the records and the schema. It refuses to know how a row is
computed, and to show one scope the rows of another: every read names its scope. Losing it loses nothing that the journal holds.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core.skill import Forecast
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.fill_book import PendingFill
from llm_maker.runtime.forecasts import read_forecasts
from llm_maker.runtime.rows import (
    MIGRATIONS,
    SCHEMA_VERSION,
    CashRow,
    DecisionRow,
    EquityRow,
    FillFactRow,
    FillMarkRow,
    FillRow,
    ForecastRow,
    Holding,
    MarkRow,
    OutcomeRow,
    RiskRow,
    Row,
    RowT,
    SampleRow,
    Scope,
    SettleRow,
    Totals,
    TripRow,
)

_BUSY_S = 5.0
_BATCHES_PER_COMMIT = 500
_CHUNK = 4_000
_SAMPLES_KEPT_NS = 30 * 86_400 * NS_PER_S
"""Samples are for the eye: older ones go, a bounded number at a time."""
_PRUNE_NS = 3_600 * NS_PER_S
_PRUNED_AT_ONCE = 5_000
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCOPED = "venue = ? AND mode = ? AND wallet = ? AND account = ?"


class LedgerError(Exception):
    """The ledger could not be opened, read or written; one line."""


class LedgerUnreadable(LedgerError):
    """The file is not a readable ledger; it was renamed, never overwritten, and a new start makes a new one."""

    def __init__(self, path: Path, kept: Path, reason: str) -> None:
        super().__init__(f"{path} is unreadable ({reason}); kept as {kept.name}; start again to rebuild from the journal")
        self.kept = kept


def _insert(kind: type[Row]) -> str:
    names = ("venue", "mode", "wallet", "account", "seq", "n", "ts", *kind.__struct_fields__)
    # Only the risk state has one row a key: the newest stands.
    verb = "INSERT OR REPLACE" if kind is RiskRow else "INSERT"
    return f"{verb} INTO {kind.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


_KINDS = (
    FillRow, TripRow, CashRow, EquityRow, DecisionRow, RiskRow, ForecastRow, MarkRow, OutcomeRow,
    FillFactRow, FillMarkRow, SampleRow,
)  # fmt: skip
_INSERTS: dict[type[Row], str] = {kind: _insert(kind) for kind in _KINDS}
# By itself SQLite takes the index that begins with the scope, and reads every fill of it for each that settles.
_SETTLE = f"UPDATE fills INDEXED BY fills_by_fill_id SET status = ? WHERE {_SCOPED} AND fill_id = ? AND instrument = ?"
_ADVANCE = """INSERT INTO progress VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (venue, mode, wallet, account) DO UPDATE SET last_seq = excluded.last_seq"""
_LEG_QTY = "SUM(side * (CASE leg WHEN 'no' THEN -1 ELSE 1 END) * qty)"
_OLD = f"SELECT id FROM samples INDEXED BY samples_by_time WHERE ts < ? AND {_SCOPED} LIMIT {_PRUNED_AT_ONCE}"
_PRUNE = f"DELETE FROM samples WHERE id IN ({_OLD})"
_BURNT = f"""SELECT instrument, leg, -qty FROM cash_moves WHERE {_SCOPED} AND kind <> 'merge' AND qty <> 0
  UNION ALL SELECT instrument, 'yes', -qty FROM cash_moves WHERE {_SCOPED} AND kind = 'merge'
  UNION ALL SELECT instrument, 'no', -qty FROM cash_moves WHERE {_SCOPED} AND kind = 'merge'"""
_HELD = f"""SELECT instrument, leg, SUM(q) FROM (
  SELECT instrument, leg, {_LEG_QTY} AS q FROM fills WHERE {_SCOPED} AND status <> 'failed' GROUP BY instrument, leg
  UNION ALL {_BURNT}) GROUP BY instrument, leg HAVING SUM(q) <> 0 ORDER BY instrument, leg"""


_ASIDE = -1
"""The sequence of what comes from no journal entry."""


class _Batch(msgspec.Struct, frozen=True):
    scope: Scope
    seq: int
    ts: int
    rows: tuple[Row, ...]


_Item = _Batch | threading.Event | None


class Ledger:
    """One file for all scopes of a home; made by `open`.

    `append` never waits for the disk. The first failure ends all writing, for a later row would hide that an earlier
    one is missing; it is told once to `on_failure`, in the writer's thread (or in the caller's for a full queue), and
    the next start takes the rest from the journal. Reads see what is committed: `drain` first to see it all.
    """

    def __init__(self, path: Path, limit: int, on_failure: Callable[[str], None] | None) -> None:
        self.path = path
        self.failure: str | None = None
        self._on_failure = on_failure
        self._failing = threading.Lock()
        self._queue: queue.Queue[_Item] = queue.Queue(limit)
        self._connection = _connect(path)
        self._reading = threading.Lock()
        self._pruned: dict[Scope, int] = {}
        """When old samples were last taken out, market time; of the writer's thread."""
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, limit: int = 10_000, on_failure: Callable[[str], None] | None = None) -> Ledger:
        """Create or migrate the file, and check it whole.

        Raises `LedgerUnreadable` after setting a damaged file aside, `LedgerError` for anything else in the way.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(_connect(path)) as connection:
                damage = _prepare(connection, path)
            if damage is None:
                _private(path)
                return cls(path, limit, on_failure)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _CORRUPT:
                raise LedgerError(f"{path}: {error}") from error
            damage = str(error)
        raise LedgerUnreadable(path, _set_aside(path), damage)

    def next_session(self, above: int = 0) -> int:
        """A number never given before by this file, nor at or under `above`; on the disk before it is returned.

        `above`: the last session the journal knows, for a ledger that had to be made anew.
        """
        with self._reader() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT value FROM counters WHERE name = 'session'").fetchone()
            session = max(found[0] if found else 0, above) + 1
            connection.execute("INSERT OR REPLACE INTO counters VALUES ('session', ?)", (session,))
        return session

    def append(self, scope: Scope, seq: int, ts: int, rows: Sequence[Row], *, wait: bool = False) -> None:
        """Queue the rows of one journal entry; entries come in order, those at or under `last_seq` change nothing.

        `wait` blocks while the queue is full, for a driver that has no loop to hold up.
        """
        self._enqueue(_Batch(scope, seq, ts, tuple(rows)), wait=wait)

    def _enqueue(self, batch: _Batch, *, wait: bool) -> None:
        if self.failure is not None:
            return
        try:
            self._queue.put(batch, block=wait, timeout=60 if wait else None)
        except queue.Full:
            self._fail(f"{self.path}: {self._queue.maxsize} entries wait to be written")

    def remember(self, scope: Scope, values: dict[str, str], ts: int = 0) -> None:
        """Keep facts that belong to no journal entry (totals at the end, money spent on models); the newest stays."""
        rows = tuple(RiskRow(key=key, value=value) for key, value in values.items())
        self._enqueue(_Batch(scope, _ASIDE, ts, rows), wait=False)

    def drain(self, timeout: float = 30.0) -> None:
        """Return when everything appended so far is committed; `LedgerError` if it could not be."""
        done = threading.Event()
        if not self._thread.is_alive():
            raise LedgerError(self.failure or f"{self.path}: closed")
        try:
            self._queue.put(done, timeout=timeout)
        except queue.Full:
            raise LedgerError(f"{self.path}: not written after {timeout} s") from None
        if not done.wait(timeout):
            raise LedgerError(f"{self.path}: not written after {timeout} s")
        if self.failure is not None:
            raise LedgerError(self.failure)

    def close(self, timeout: float = 30.0) -> None:
        """Write what waits and end; `LedgerError` if not all of it could be written."""
        try:
            self.drain(timeout)
        finally:
            if self._thread.is_alive():
                self._queue.put(None, timeout=timeout)
            self._thread.join(timeout)
            with self._reading:
                self._connection.close()

    def last_seq(self, scope: Scope) -> int:
        """The last journal sequence applied for the scope, 0 for none."""
        found = self._select(f"SELECT last_seq FROM progress WHERE {_SCOPED}", scope.key)
        return int(found[0][0]) if found else 0

    def indexed(self, scope: Scope) -> Callable[[], int]:
        """Asks for `last_seq` without ever raising: of a ledger that cannot be read, nothing is known to be written."""

        def ask() -> int:
            try:
                return self.last_seq(scope)
            except LedgerError:
                return 0

        return ask

    def scopes(self) -> list[Scope]:
        """Every scope that has left totals or progress, in order of name."""
        rows = self._select("SELECT DISTINCT venue, mode, wallet, account FROM risk_state ORDER BY 1, 2, 3, 4", ())
        return [Scope(*row) for row in rows]

    def holdings(self, scope: Scope) -> list[Holding]:
        """Our shares by instrument and leg, in its own terms (NO bought is plus); zero ones left out."""
        return [Holding(*found) for found in self._select(_HELD, scope.key * 4)]

    def positions(self, scope: Scope) -> dict[str, int]:
        """Net quantity by instrument: YES minus NO, or the signed linear one; zero ones left out."""
        net: dict[str, int] = {}
        for held in self.holdings(scope):
            net[held.instrument] = net.get(held.instrument, 0) + (-held.qty if held.leg == "no" else held.qty)
        return {instrument: qty for instrument, qty in net.items() if qty}

    def fills(self, scope: Scope, after_seq: int = 0, limit: int = 1_000) -> list[FillRow]:
        return [row for _, _, row in self.read(FillRow, scope, after_seq, limit)]

    def read(self, kind: type[RowT], scope: Scope, after_seq: int = 0, limit: int = 1_000) -> list[tuple[int, int, RowT]]:
        """Rows of one kind as (seq, ts, row), oldest first, at most `limit` of them past `after_seq`."""
        names = kind.__struct_fields__
        sql = f"SELECT seq, ts, {', '.join(names)} FROM {kind.table} WHERE {_SCOPED} AND seq > ? ORDER BY seq, n LIMIT ?"
        found = self._select(sql, (*scope.key, after_seq, limit))
        return [(row[0], row[1], msgspec.convert(dict(zip(names, row[2:], strict=True)), kind, strict=False)) for row in found]

    def scan(self, kind: type[RowT], scope: Scope, since_ns: int = 0) -> Iterator[tuple[int, int, RowT]]:
        """Every row of one kind since then as (seq, ts, row), oldest first; holds a few thousand of them at a time."""
        names = ", ".join(kind.__struct_fields__)
        sql = f"""SELECT n, seq, ts, {names} FROM {kind.table}
          WHERE {_SCOPED} AND (seq, n) > (?, ?) ORDER BY seq, n LIMIT {_CHUNK}"""
        at: tuple[int, int] = (self._before(kind, scope, since_ns), 1 << 62)
        while True:
            found: list[Any] = self._select(sql, (*scope.key, *at))
            for row in found:
                told = dict(zip(kind.__struct_fields__, row[3:], strict=True))
                yield row[1], row[2], msgspec.convert(told, kind, strict=False)
            if len(found) < _CHUNK:
                return
            at = (found[-1][1], found[-1][0])

    def _before(self, kind: type[Row], scope: Scope, since_ns: int) -> int:
        """The sequence of the last row before a moment, -1 for none: market time never runs back, so all later rows are younger."""
        if since_ns <= 0:
            return -1
        sql = f"SELECT seq FROM {kind.table} WHERE {_SCOPED} AND ts < ? ORDER BY seq DESC LIMIT 1"
        found = self._select(sql, (*scope.key, since_ns))
        return int(found[0][0]) if found else -1

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

    def risk_state(self, scope: Scope) -> dict[str, str]:
        """Key -> JSON of the newest risk state."""
        return dict(self._select(f"SELECT key, value FROM risk_state WHERE {_SCOPED} ORDER BY key", scope.key))

    def has_forecasts(self, scope: Scope) -> bool:
        """Whether there is any opinion on record."""
        return bool(self._select(f"SELECT 1 FROM forecasts WHERE {_SCOPED} LIMIT 1", scope.key))

    def forecasts(self, scope: Scope, since_ns: int = 0) -> list[Forecast]:
        """Every opinion since then with what became of it, oldest first."""
        return read_forecasts(self._select, scope, since_ns)

    def totals(self, scope: Scope) -> Totals:
        fills, failed, fees = self._one(
            "SELECT COUNT(*) - COUNT(f), COUNT(f), IFNULL(SUM(CASE WHEN f IS NULL THEN fee END), 0)"
            f" FROM (SELECT fee, NULLIF(status = 'failed', 0) AS f FROM fills WHERE {_SCOPED})",
            scope,
        )
        trips, wins, pnl = self._one(
            f"SELECT COUNT(*), IFNULL(SUM(pnl > 0), 0), IFNULL(SUM(pnl), 0) FROM round_trips WHERE {_SCOPED}", scope
        )
        asked, cost = self._one(f"SELECT COUNT(*), IFNULL(SUM(cost), 0) FROM decisions WHERE {_SCOPED}", scope)
        kinds = self._select(f"SELECT kind, SUM(amount) FROM cash_moves WHERE {_SCOPED} GROUP BY kind ORDER BY kind", scope.key)
        return Totals(fills, failed, fees, trips, wins, pnl, asked, cost, dict(kinds))

    def _one(self, sql: str, scope: Scope) -> tuple[int, ...]:
        return tuple(int(value) for value in self._select(sql, scope.key)[0])

    def _select(self, sql: str, values: Sequence[str | int]) -> list[Any]:
        with self._reader() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._reading:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise LedgerError(f"{self.path}: {error}") from error

    def _fail(self, reason: str) -> None:
        with self._failing:
            if self.failure is not None:
                return
            self.failure = reason
        if self._on_failure is not None:
            self._on_failure(reason)

    def _work(self) -> None:
        """The writer's thread: many batches a commit; after a failure it only answers those who wait."""
        reason = "the writer of the ledger died"
        try:
            with closing(_connect(self.path)) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                open_ = True
                while open_:
                    group = self._take()
                    open_ = group[-1] is not None
                    if self.failure is None:
                        self._commit(connection, group)
                    for item in group:
                        if isinstance(item, threading.Event):
                            item.set()
            reason = "closed"
        except (sqlite3.Error, OverflowError) as error:
            reason = str(error)
        finally:
            if reason != "closed":
                self._fail(f"{self.path}: {reason}")

    def _take(self) -> list[_Item]:
        """At least one item, and what else waits; nothing behind the end mark."""
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < _BATCHES_PER_COMMIT and not self._queue.empty():
            group.append(self._queue.get())
        return group

    def _prune(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        """Once an hour of market time take out samples that are too old."""
        if batch.ts - self._pruned.get(batch.scope, 0) >= _PRUNE_NS and any(isinstance(row, SampleRow) for row in batch.rows):
            self._pruned[batch.scope] = batch.ts
            connection.execute(_PRUNE, (batch.ts - _SAMPLES_KEPT_NS, *batch.scope.key))

    def _commit(self, connection: sqlite3.Connection, group: list[_Item]) -> None:
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for item in group:
                    if isinstance(item, _Batch):
                        _apply(connection, item)
                        self._prune(connection, item)
        except (sqlite3.Error, OverflowError) as error:
            self._fail(f"{self.path}: {error}")


def _apply(connection: sqlite3.Connection, batch: _Batch) -> None:
    """One journal entry's rows, unless this scope is already past it."""
    key = batch.scope.key
    found = connection.execute(f"SELECT last_seq FROM progress WHERE {_SCOPED}", key).fetchone()
    if batch.seq != _ASIDE and found and batch.seq <= found[0]:
        return
    for n, row in enumerate(batch.rows):
        if isinstance(row, SettleRow):
            # Of a fill older than the ledger there is nothing to settle.
            connection.execute(_SETTLE, (row.status, *key, row.fill_id, row.instrument))
        else:
            connection.execute(_INSERTS[type(row)], (*key, batch.seq, n, batch.ts, *msgspec.structs.astuple(row)))
    if batch.seq != _ASIDE:
        connection.execute(_ADVANCE, (*key, batch.seq))


def _private(path: Path) -> None:
    """What was traded is nobody else's business."""
    with suppress(OSError):  # a file system without modes keeps its own rules
        path.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> str | None:
    """Check the whole file and bring its schema up to date; what is damaged, or None."""
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        return found
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise LedgerError(f"{path}: schema {version} of a newer build; this one knows {SCHEMA_VERSION}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
    return None


def _set_aside(path: Path) -> Path:
    """Rename the file and its two companions to the first free `<name>.unreadable-N`."""
    number = 1
    while (kept := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    for companion in ("", "-wal", "-shm"):
        part = path.with_name(path.name + companion)
        if part.exists():
            part.rename(kept.with_name(kept.name + companion))
    return kept
