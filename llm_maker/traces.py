"""What the files of a home say of one order or fill without any engine: log lines, ledger rows, and the journal that holds it.

Reads beside a running daemon and disturbs nothing: the ledger is opened for reading alone, the newest journal to its last whole
line. It refuses to know what an event means and why an order was made.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zstandard

from llm_maker.runtime.journal import JournalDamaged, files
from llm_maker.runtime.journal_reader import JournalReader

ORDER = re.compile(r"(\d{1,9})-(\d{1,12})")
"""SESSION-N, as every order of ours is called."""
_ID = re.compile(r"[\w:./#-]*\d[\w:./#-]*")
"""What may be an id of a venue: only for that whole journals are searched."""
_CHUNK = 1 << 20
_NEWEST = 3

Look = Callable[[int], None]
"""Told how many lines, or megabytes, were read so far."""


class Named(msgspec.Struct, frozen=True):
    """What a person's text means: one order of ours, and perhaps one fill of it."""

    order_id: str
    fill_id: str = ""


class Rows(msgspec.Struct, frozen=True):
    """What the ledger has of one order: fills, what stood beside them, prices after them; plain rows, in the market's units."""

    fills: list[dict[str, Any]] = []
    facts: dict[str, dict[str, Any]] = {}
    marks: dict[str, dict[int, int]] = {}
    """Fill -> horizon in seconds -> doubled mid."""
    last: tuple[int, float] | None = None
    """(market time, doubled price) of the newest sample of the market, or of its outcome."""
    trouble: str = ""


class Peek(msgspec.Struct):
    """The place of a checkpoint among the ids that are ever given."""

    session: int
    next_order: int


class Held(msgspec.Struct, frozen=True):
    """Where an order was decided: the file, and those that follow it; and what could not be read on the way."""

    paths: list[Path]
    trouble: list[str]
    lost: str = ""
    """Why no file holds it."""


def logs_of(home: Path, account: str) -> Path:
    """The folder of an account's log lines; those of an account beside the others are in one of its own name."""
    own = home / "logs" / account
    return own if (own / "executions.jsonl").exists() else home / "logs"


def executions(logs: Path, account: str, *names: str) -> list[dict[str, Any]]:
    """Lines of executions.jsonl that name any of these ids, oldest first; a line that is no JSON is passed over."""
    wanted = [f'"{name}"'.encode() for name in names if name]
    found = []
    for line in _lines(logs, "executions.jsonl"):
        if any(name in line for name in wanted):
            told = _decoded(line)
            if told.get("account") == account and {told.get("order_id"), told.get("fill_id"), told.get("venue_id")} & set(names):
                found.append(told)
    return found


def decision(logs: Path, account: str, decision_id: str) -> dict[str, Any] | None:
    """The line of llm_decisions.jsonl of a decision; None: it is not there, or was rotated away."""
    needle = f'"decision_id":"{decision_id}"'.encode()
    for line in _lines(logs, "llm_decisions.jsonl") if decision_id else ():
        if needle in line:
            told = _decoded(line)
            if (told.get("decision_id"), told.get("account")) == (decision_id, account):
                return told
    return None


def newest(logs: Path, account: str) -> tuple[list[str], list[str]]:
    """The last ids of orders and of fills, the newest first."""
    orders: list[str] = []
    fills: list[str] = []
    for line in _lines(logs, "executions.jsonl"):
        if b'"event":"order"' in line or b'"event":"fill"' in line:
            told = _decoded(line)
            if told.get("account") == account:
                kept, key = (orders, "order_id") if told.get("event") == "order" else (fills, "fill_id")
                kept.append(str(told.get(key, "")))
                del kept[:-_NEWEST]
    return orders[::-1], fills[::-1]


def _lines(logs: Path, name: str) -> Iterator[bytes]:
    for path in (logs / f"{name}.1", logs / name):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            yield from file


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(line)
    except msgspec.DecodeError:  # a line that is being written
        return {}
    return told if isinstance(told, dict) else {}


def name_of(home: Path, account: str, text: str, look: Look) -> Named | None:
    """The order, or the fill, that a person's text names: ours, or the venue's id of it; None: it is none that is known here."""
    if ORDER.fullmatch(text):
        return Named(text)
    order, _, number = text.partition("/")
    if number.isdigit() and ORDER.fullmatch(order):
        return Named(order, text)  # a fill of the paper exchange
    # A ledger that cannot be read has nothing to say here; the logs and the journal have it too.
    with contextlib.suppress(sqlite3.Error), _ledger(home) as ledger:
        if ledger is not None:
            sql = "SELECT order_id FROM fills WHERE fill_id = ? AND account = ? ORDER BY id DESC LIMIT 1"
            for (order_id,) in ledger.execute(sql, (text, account)):
                return Named(str(order_id), text)
    for line in executions(logs_of(home, account), account, text):
        if line.get("order_id"):
            return Named(str(line["order_id"]), text if line.get("fill_id") == text else "")
    return _named_in_journals(home, account, text, look) if _ID.fullmatch(text) else None


def _named_in_journals(home: Path, account: str, text: str, look: Look) -> Named | None:
    kinds = (f'"fill_id":"{text}"'.encode(), f'"venue_id":"{text}"'.encode())
    for paths in journals(home, account):
        for path in reversed(paths):
            for needle in kinds:
                line = _line_with(path, needle, look)
                order = re.search(rb'"type":"Order(?:Filled|Accepted)","order_id":"([^"]+)"', line or b"")
                if order:
                    return Named(order[1].decode(), text if needle is kinds[0] else "")
    return None


def journals(home: Path, account: str) -> list[list[Path]]:
    """Every chain of journal files of an account in a home, each oldest first: the venue's, and those of played tapes."""
    root = home / "logs" / "journal"
    chains = [files(folder, account) for folder in (sorted(root.iterdir()) if root.is_dir() else [])]
    return [chain for chain in chains if chain]


def accounts(home: Path) -> list[str]:
    """Whose journals a home holds."""
    found = (home / "logs" / "journal").glob("*/journal-*.jsonl*")
    return sorted({path.name.removeprefix("journal-").partition(".")[0].rpartition("-")[0] for path in found})


def holder(home: Path, account: str, order_id: str, look: Look) -> Held:
    """The files from the one in which the order was decided on: by what their checkpoints say, then by its very line."""
    match = ORDER.fullmatch(order_id)
    assert match is not None
    wanted, trouble, before = (int(match[1]), int(match[2])), [], False
    for chain in journals(home, account):
        for at in range(len(chain) - 1, -1, -1):
            try:
                peek = msgspec.json.decode(JournalReader(chain[at]).header.state, type=Peek)
            except (JournalDamaged, OSError, msgspec.DecodeError) as damage:
                trouble.append(str(damage))
                continue
            if (peek.session, peek.next_order) > wanted:
                before = True
                continue
            if _line_with(chain[at], f'"type":"PlaceOrder","order_id":"{order_id}"'.encode(), look):
                return Held(chain[at:], trouble)
            before = False
            break
    return Held([], trouble, "the journal of that time is gone, by rotation" if before else "no journal here holds it")


def _line_with(path: Path, needle: bytes, look: Look) -> bytes | None:
    """The first whole line with these bytes, its hash not looked at; None: there is none, or the file is gone or damaged."""
    rest, read = b"", 0
    try:
        with path.open("rb") as file:
            packed = path.suffix == ".zst"
            stream: BinaryIO = zstandard.ZstdDecompressor().stream_reader(file) if packed else file  # type: ignore[assignment,unused-ignore]
            while chunk := stream.read(_CHUNK):
                read += len(chunk)
                look(read // _CHUNK)
                block, newline, tail = (rest + chunk).rpartition(b"\n")
                at = block.find(needle) if newline else -1
                if at >= 0:
                    begin, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
                    return block[begin : end if end >= 0 else len(block)]
                rest = tail
    except (OSError, zstandard.ZstdError):
        return None
    return None


@contextlib.contextmanager
def _ledger(home: Path) -> Iterator[sqlite3.Connection | None]:
    """The ledger for reading alone, beside whoever writes it; None: there is none, or it cannot be read."""
    path = home / "positions" / "ledger.sqlite3"
    connection = None
    try:
        if path.exists():
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)
        yield connection
    finally:
        if connection is not None:
            connection.close()


def rows(home: Path, account: str, named: Named) -> Rows:
    """What the ledger has of an order; a ledger that cannot be read is named in `trouble`."""
    try:
        with _ledger(home) as ledger:
            return Rows(trouble="there is no ledger") if ledger is None else _rows(ledger, account, named.order_id)
    except sqlite3.Error as error:
        return Rows(trouble=f"the ledger could not be read: {error}")


def _rows(ledger: sqlite3.Connection, account: str, order_id: str) -> Rows:
    fills = _select(ledger, "SELECT * FROM fills WHERE order_id = ? AND account = ? ORDER BY id", (order_id, account))
    facts, marks, last = {}, {}, None
    for fill in fills:
        key = (fill["fill_id"], fill["instrument"], account)
        where = "WHERE fill_id = ? AND instrument = ? AND account = ?"
        for fact in _select(ledger, f"SELECT * FROM fill_facts {where}", key):
            facts[fill["fill_id"]] = fact
        found = _select(ledger, f"SELECT horizon_s, mid2 FROM fill_marks {where} ORDER BY horizon_s", key)
        marks[fill["fill_id"]] = {row["horizon_s"]: row["mid2"] for row in found}
    if fills:
        instrument = fills[0]["instrument"]
        sample = "SELECT ts, bid, ask FROM samples WHERE instrument = ? AND account = ? AND bid AND ask ORDER BY id DESC LIMIT 1"
        for row in _select(ledger, sample, (instrument, account)):
            last = (row["ts"], float(row["bid"] + row["ask"]))
        paid = "SELECT ts, paid_ppm FROM outcomes WHERE instrument = ? AND account = ? LIMIT 1"
        for row in _select(ledger, paid, (instrument, account)):
            last = (row["ts"], 2 * row["paid_ppm"] * fills[0]["price_scale"] / 1e6)
    return Rows(fills, facts, marks, last)


def _select(ledger: sqlite3.Connection, sql: str, values: tuple[str, ...]) -> list[dict[str, Any]]:
    cursor = ledger.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
