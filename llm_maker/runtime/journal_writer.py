"""Writing the journal: lines buffered, handed to the operating system, and rotated into compressed files.

It knows file descriptors, sizes and a disk that refuses. It refuses to know what an event means, to read the clock, and to write
past a line that could not be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import zstandard

from llm_maker import __version__
from llm_maker.core.commands import Command
from llm_maker.core.events import Event
from llm_maker.runtime.journal import (
    FORMAT,
    GENESIS,
    HASH_AT,
    Checkpoint,
    Header,
    JournalError,
    file_name,
    files,
    find_latest,
    first_seq_of,
    seal,
)
from llm_maker.runtime.journal_reader import JournalReader, repair

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ENCODER = msgspec.json.Encoder()
_HEADER_ENCODER = msgspec.json.Encoder(order="deterministic")

MakeCheckpoint = Callable[[], Checkpoint]
OsWrite = Callable[[int, bytes | memoryview], int]


class JournalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. A file ends at the first rotation point past `max_file`; above `max_total` the oldest finished ones go.

    `indexed` tells up to which sequence the entries stand elsewhere too (the ledger): a file that holds a later one stays,
    above `max_total` as well, for the next start takes it from there. None: nobody else needs them.
    `max_buffer` is what may wait in memory while the disk refuses; past it the writer gives up for good.
    """

    max_file: int = 64 << 20
    max_total: int = 2 << 30
    flush_at: int = 256 << 10
    max_buffer: int = 32 << 20
    compress: bool = True
    indexed: Callable[[], int] | None = None


DEFAULT_LIMITS = JournalLimits()


class _Tail(msgspec.Struct):
    """The end of the file being written."""

    fd: int
    path: Path
    first_seq: int
    seq: int
    ts: int
    hash: bytes
    size: int
    opening: int = 0
    """Bytes of the checkpoint that opens it; 0: not known."""


class JournalWriter:
    """Appends to the journal of one account; made by `create` or `resume`.

    The loop's order: `write` (buffers), `flush` (the operating system has it), then the commands go out; between two
    events `rotate_if_due`. Every failure of the disk is a `JournalError`; the lines stay buffered in order, the file
    is cut back to whole lines, and a later `flush` tries again.
    """

    def __init__(
        self, tail: _Tail, account: str, make_checkpoint: MakeCheckpoint, limits: JournalLimits, os_write: OsWrite
    ) -> None:
        self.account = account
        self._tail = tail
        self._make_checkpoint = make_checkpoint
        self._limits = limits
        self._os_write = os_write
        self._template = b'{"seq":%d,"ts":%d,"a":"' + account.encode() + b'","event":%b,"commands":%b'
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._ragged = False
        self._given_up = ""
        self._digest = hashlib.sha256()
        self._archivist = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._tidying: Future[None] | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        account: str,
        make_checkpoint: MakeCheckpoint,
        *,
        first_seq: int = 1,
        limits: JournalLimits = DEFAULT_LIMITS,
        os_write: OsWrite = os.write,
    ) -> JournalWriter:
        """Begin the journal of an account that has none in `directory`."""
        assert _ACCOUNT.fullmatch(account), f"account {account!r}"
        present = find_latest(directory, account)
        if present is not None:
            raise JournalError(f"{present} exists: a journal is continued, never overwritten")
        directory.mkdir(parents=True, exist_ok=True)
        header = _header_line(account, first_seq, GENESIS, make_checkpoint())
        tail = _new_file(directory / file_name(account, first_seq), header, os_write, first_seq=first_seq, ts=0)
        writer = cls(tail, account, make_checkpoint, limits, os_write)
        writer._digest.update(header)
        return writer

    @classmethod
    def resume(
        cls,
        path: Path,
        make_checkpoint: MakeCheckpoint,
        *,
        fresh: bool = True,
        reader: JournalReader | None = None,
        limits: JournalLimits = DEFAULT_LIMITS,
        os_write: OsWrite = os.write,
    ) -> JournalWriter:
        """Continue after the last whole line of `path` (`recover` names it), whose chain goes on.

        `fresh` opens a new file with a checkpoint of now, which a changed build or parameter needs; otherwise (and if
        not compressed) `path` is appended to. `reader` saves a second pass when it has been read to its end.
        """
        if reader is not None and reader.finished and reader.torn is None:
            end = reader
        else:
            repair(path)
            end = JournalReader(path).scan()
        account = end.header.account
        tail = _Tail(-1, path, end.header.first_seq, end.last_seq, end.last_ts, end.last_hash.encode(), end.size)
        header = b""
        if fresh or path.suffix == ".zst":
            # A file with a checkpoint and nothing after it is replaced: the new one bears the same number.
            previous = end.last_hash if end.last_seq >= end.header.first_seq else end.header.previous
            header = _header_line(account, end.last_seq + 1, previous, make_checkpoint())
            target = path.with_name(file_name(account, end.last_seq + 1))
            tail = _new_file(target, header, os_write, first_seq=end.last_seq + 1, ts=end.last_ts)
        else:
            tail.fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        writer = cls(tail, account, make_checkpoint, limits, os_write)
        writer._digest.update(header)
        writer._tidy()
        return writer

    @property
    def path(self) -> Path:
        """The file being written."""
        return self._tail.path

    @property
    def last_seq(self) -> int:
        return self._tail.seq

    @property
    def last_hash(self) -> str:
        return self._tail.hash.decode()

    @property
    def pending_bytes(self) -> int:
        """Written but not yet with the operating system."""
        return self._pending_bytes

    @property
    def hexdigest(self) -> str:
        """SHA-256 of every byte this writer has handed over, headers included, in order."""
        return self._digest.hexdigest()

    def write(self, seq: int, ts: int, event: Event, commands: Sequence[Command]) -> None:
        """Buffer one line. `seq` follows the last one, `ts` (ns) never runs back. A full buffer is flushed."""
        tail = self._tail
        assert seq == tail.seq + 1, f"sequence {seq} after {tail.seq}"
        assert ts >= tail.ts, f"time {ts} after {tail.ts}"
        self._check_room()
        encode = _ENCODER.encode
        body = self._template % (seq, ts, encode(event), encode(commands) if commands else b"[]")
        chain = hashlib.blake2b(tail.hash + body, digest_size=8).hexdigest().encode()
        line = body + b',"h":"' + chain + b'"}\n'
        tail.seq, tail.ts, tail.hash = seq, ts, chain
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= self._limits.flush_at:
            self.flush()

    def flush(self) -> None:
        """Hand all buffered lines to the operating system; after it they survive our death (not the machine's)."""
        if self._given_up:
            raise JournalError(self._given_up)
        if not self._pending:
            return
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._push(data)
        self._pending.clear()
        self._pending_bytes = 0
        self._tail.size += len(data)
        self._digest.update(data)

    def rotate_if_due(self) -> bool:
        """Begin a new file if this one is full, and holds at least as much of events as of its checkpoint; True if it did.

        Of many markets a checkpoint alone may be larger than a file should be: each event would then begin a new one.
        Between two events only, after the commands of the last one were executed: the checkpoint must hold them.
        """
        tail = self._tail
        if os.fstat(tail.fd).st_nlink == 0:
            raise JournalError(f"{tail.path}: somebody has deleted the journal that is being written")
        if tail.size + self._pending_bytes < max(self._limits.max_file, 2 * tail.opening) or tail.seq < tail.first_seq:
            return False
        self.rotate()
        return True

    def rotate(self) -> None:
        """Begin a new file now; at the end of a clean run, so that another build finds a checkpoint and no old decisions."""
        tail = self._tail
        if tail.seq < tail.first_seq:
            return
        self.flush()
        if self._tidying is not None and self._tidying.done() and (error := self._tidying.exception()):
            self._tidying = None
            raise JournalError(f"a finished journal could not be compressed: {error}") from error
        header = _header_line(self.account, tail.seq + 1, tail.hash.decode(), self._make_checkpoint())
        path = tail.path.with_name(file_name(self.account, tail.seq + 1))
        self._tail = _new_file(path, header, self._os_write, first_seq=tail.seq + 1, ts=tail.ts)
        os.close(tail.fd)
        self._digest.update(header)
        self._tidy()

    def close(self) -> None:
        """Flush, wait for compression, close. Raises `JournalError` if the last lines could not be written."""
        try:
            self.flush()
        finally:
            os.close(self._tail.fd)
            self._archivist.shutdown(wait=True)
        if self._tidying is not None and (error := self._tidying.exception()):
            raise JournalError(f"a finished journal could not be compressed: {error}") from error

    def _check_room(self) -> None:
        if self._pending_bytes > self._limits.max_buffer:
            self._given_up = self._given_up or (
                f"{self._tail.path}: {self._pending_bytes} bytes could not be written; the journal ends here"
            )
        if self._given_up:
            raise JournalError(self._given_up)

    def _push(self, data: bytes) -> None:
        tail = self._tail
        try:
            if self._ragged:
                os.ftruncate(tail.fd, tail.size)
            self._ragged = True
            _write_all(tail.fd, data, self._os_write)
            self._ragged = False
        except OSError as error:
            with contextlib.suppress(OSError):  # else `_ragged` makes the next push cut first
                os.ftruncate(tail.fd, tail.size)
                self._ragged = False
            raise JournalError(f"{tail.path}: {error.strerror or error}") from error

    def _tidy(self) -> None:
        directory, current = self._tail.path.parent, self._tail.path
        self._tidying = self._archivist.submit(_tidy, directory, self.account, current, self._limits)


def _header_line(account: str, first_seq: int, previous: str, checkpoint: Checkpoint) -> bytes:
    raws = {name: msgspec.Raw(checkpoint.simulators[name]) for name in sorted(checkpoint.simulators)}
    header = Header(
        journal=FORMAT,
        version=__version__,
        account=account,
        first_seq=first_seq,
        previous=previous,
        state=msgspec.Raw(checkpoint.state),
        simulators=raws,
        meta=checkpoint.meta,
    )
    body = _HEADER_ENCODER.encode(header)[:-1]
    assert b"\n" not in body, "a checkpoint is JSON on one line"
    return body + b',"h":"' + seal(previous.encode(), body) + b'"}\n'


def _new_file(path: Path, header: bytes, os_write: OsWrite, *, first_seq: int, ts: int) -> _Tail:
    """A file that appears whole, checkpoint and all, or not at all."""
    draft = path.with_name(path.name + ".tmp")
    fd = -1
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _write_all(fd, header, os_write)
        draft.rename(path)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        draft.unlink(missing_ok=True)
        raise JournalError(f"{path}: {error.strerror or error}") from error
    return _Tail(fd, path, first_seq, first_seq - 1, ts, header[HASH_AT], len(header), len(header))


def _write_all(fd: int, data: bytes, os_write: OsWrite) -> None:
    written = os_write(fd, data)
    while written < len(data):
        step = os_write(fd, memoryview(data)[written:])
        if step <= 0:
            raise OSError(f"only {written} of {len(data)} bytes were taken")
        written += step


def _tidy(directory: Path, account: str, current: Path, limits: JournalLimits) -> None:
    """Compress finished files and delete the oldest above the cap; in the background, never the current one."""
    if limits.compress:
        for path in files(directory, account):
            if path != current and path.suffix != ".zst" and first_seq_of(path) < first_seq_of(current):
                _compress(path)
    kept = [path for path in files(directory, account) if first_seq_of(path) <= first_seq_of(current)]
    total = sum(path.stat().st_size for path in kept)
    spare = limits.indexed() if limits.indexed is not None else None
    for path, following in pairwise(kept):
        if total <= limits.max_total or (spare is not None and first_seq_of(following) > spare + 1):
            break
        total -= path.stat().st_size
        path.unlink()


def _compress(path: Path) -> None:
    target = path.with_name(path.name + ".zst")
    draft = path.with_name(path.name + ".zst.tmp")
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    # As private as what it is made from.
    private = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, path.stat().st_mode & 0o777)
    with path.open("rb") as source, os.fdopen(private, "wb") as sink:
        compressor.copy_stream(source, sink, size=path.stat().st_size)
        sink.flush()
        os.fsync(sink.fileno())
    draft.rename(target)
    path.unlink()
