"""The journal: the truth of one account, every event with the commands it caused, one JSON line each.

Every file opens with a checkpoint, so it replays alone; every line carries a running hash, so damage is found and
named. It knows bytes, sequence numbers and files. It refuses to know what an event means, what time it is on the wall,
and who reads the lines; no path, pid or latency enters them, so equal runs write equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import zstandard

from llm_maker import __version__
from llm_maker.core.commands import AnyCommand, Command
from llm_maker.core.events import AnyEvent, Event

FORMAT = 1
GENESIS = "0" * 16
"""The hash before the first file."""
MAX_LINE_BYTES = 256 << 20
_SEQ_DIGITS = 12
_SEAL_BYTES = len(b',"h":"0123456789abcdef"}\n')
_HASH = slice(-19, -3)
"""Where the hash stands in a line."""
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ENCODER = msgspec.json.Encoder()
_EntryT = TypeVar("_EntryT", "Entry", "RawEntry")
_HEADER_ENCODER = msgspec.json.Encoder(order="deterministic")

MakeCheckpoint = Callable[[], "Checkpoint"]
OsWrite = Callable[[int, bytes | memoryview], int]


class JournalError(Exception):
    """The journal could not be written, or is not where it should be; one line for a person."""


class JournalDamaged(Exception):
    """A journal is not what was written; names the file and the line (1 is the header)."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}: line {line}: {reason}")
        self.path, self.line, self.reason = path, line, reason


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything a file needs to replay alone: JSON of the state and of each simulator, and what they were built from.

    `meta` holds deterministic facts only: strategy name, parameters.
    """

    state: bytes
    simulators: dict[str, bytes] = {}
    meta: dict[str, Any] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file. `previous` is the last hash of the file before it; `first_seq` is its first entry's."""

    journal: int
    version: str
    account: str
    first_seq: int
    previous: str
    state: msgspec.Raw
    simulators: dict[str, msgspec.Raw]
    meta: dict[str, Any]


class Entry(msgspec.Struct, frozen=True):
    """One line: an event and what the core asked for because of it. `ts` is market time, ns."""

    seq: int
    ts: int
    account: str = msgspec.field(name="a")
    event: AnyEvent
    commands: tuple[AnyCommand, ...]


class RawEntry(msgspec.Struct, frozen=True):
    """The same line with event and commands still JSON; the bytes are those that were written."""

    seq: int
    ts: int
    account: str = msgspec.field(name="a")
    event: msgspec.Raw
    commands: msgspec.Raw


ENTRY_DECODER = msgspec.json.Decoder(Entry)
RAW_DECODER = msgspec.json.Decoder(RawEntry)
EVENT_DECODER = msgspec.json.Decoder(AnyEvent)
COMMAND_DECODER = msgspec.json.Decoder(AnyCommand)
_HEADER_DECODER = msgspec.json.Decoder(Header)


class JournalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. A file ends at the first rotation point past `max_file`; above `max_total` the oldest finished ones go.

    `max_buffer` is what may wait in memory while the disk refuses; past it the writer gives up for good.
    """

    max_file: int = 64 << 20
    max_total: int = 2 << 30
    flush_at: int = 256 << 10
    max_buffer: int = 32 << 20
    compress: bool = True


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


def seal(previous: bytes, body: bytes) -> bytes:
    """The running hash (16 hex digits) of a line without its closing `h` field, after the line before it."""
    return hashlib.blake2b(previous + body, digest_size=8).hexdigest().encode()


def file_name(account: str, first_seq: int) -> str:
    return f"journal-{account}-{first_seq:0{_SEQ_DIGITS}d}.jsonl"


def files(directory: Path, account: str) -> list[Path]:
    """All journal files of the account, oldest first; of a file and its compressed copy, the file."""
    pattern = re.compile(rf"journal-{re.escape(account)}-(\d{{{_SEQ_DIGITS},}})\.jsonl(\.zst)?")
    found: dict[int, Path] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), path)
    return [found[first] for first in sorted(found)]


def find_latest(directory: Path, account: str) -> Path | None:
    """The newest journal file of the account; None when there is none."""
    found = files(directory, account)
    return found[-1] if found else None


class JournalReader:
    """One journal file, `.jsonl` or `.jsonl.zst`, verified line by line while it is read.

    Iterate for `Entry`, or `raw()` for `RawEntry`. Once read to its end (`finished`), `last_seq`, `last_ts`,
    `last_hash`, `size` (bytes of whole lines) and `torn` (what was cut, or None) are known. Raises `JournalDamaged`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.compressed = path.suffix == ".zst"
        self.torn: str | None = None
        self.finished = False
        self.header: Header = None  # type: ignore[assignment]  # the next lines set it or raise
        self._line = 0
        lines = self._lines()
        with contextlib.closing(lines):
            if next(lines, None) is None:
                raise JournalDamaged(path, 1, "no whole checkpoint line")
        self._start()

    def __iter__(self) -> Iterator[Entry]:
        return self._entries(ENTRY_DECODER)

    def raw(self) -> Iterator[RawEntry]:
        return self._entries(RAW_DECODER)

    def scan(self) -> JournalReader:
        """Read to the end for its hashes and numbers alone."""
        for _ in self.raw():
            pass
        return self

    def _start(self) -> None:
        self.last_seq, self.last_ts = self.header.first_seq - 1, 0

    def _decode_header(self, line: bytes) -> Header:
        try:
            header = _HEADER_DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise JournalDamaged(self.path, 1, f"not a checkpoint line: {error}") from error
        if header.journal != FORMAT:
            raise JournalDamaged(self.path, 1, f"journal format {header.journal}; this build reads {FORMAT}")
        return header

    def _entries(self, decoder: msgspec.json.Decoder[_EntryT]) -> Iterator[_EntryT]:
        lines = self._lines()
        next(lines, None)
        self._start()
        for line in lines:
            try:
                entry = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise JournalDamaged(self.path, self._line, f"not an entry of this build: {error}") from error
            if entry.seq != self.last_seq + 1:
                raise JournalDamaged(self.path, self._line, f"sequence {entry.seq} after {self.last_seq}")
            if entry.account != self.header.account:
                raise JournalDamaged(self.path, self._line, f"account {entry.account} among {self.header.account}")
            self.last_seq, self.last_ts = entry.seq, entry.ts
            yield entry

    def _lines(self) -> Generator[bytes, None, None]:
        """Whole lines with a right hash. Sets `size` and `last_hash` behind each, `torn` at the end."""
        self.torn, self.finished, self.size, self._line = None, False, 0, 0
        with contextlib.ExitStack() as stack:
            stream = self._open(stack)
            chain = b""
            while line := self._read_line(stream):
                self._line += 1
                torn = self._torn(line, stream)
                if torn:
                    self.torn = torn
                    break
                if self._line == 1:
                    self.header = self.header or self._decode_header(line)
                    chain = self.header.previous.encode()
                chain = seal(chain, line[:-_SEAL_BYTES])
                if line[-_SEAL_BYTES:] != b',"h":"' + chain + b'"}\n':
                    raise JournalDamaged(self.path, self._line, f"its hash should be {chain.decode()}")
                self.size += len(line)
                self.last_hash = chain.decode()
                yield line
        if self.compressed and (self.torn or self.size != self._stated_size()):
            raise JournalDamaged(self.path, self._line + 1, "the compressed file ends before its contents do")
        self.finished = True

    def _open(self, stack: contextlib.ExitStack) -> BinaryIO:
        file = stack.enter_context(self.path.open("rb"))
        if not self.compressed:
            return file
        reader = stack.enter_context(zstandard.ZstdDecompressor().stream_reader(file))
        return io.BufferedReader(reader, 1 << 20)  # type: ignore[return-value,arg-type,unused-ignore]

    def _read_line(self, stream: BinaryIO) -> bytes:
        try:
            line = stream.readline(MAX_LINE_BYTES)
        except zstandard.ZstdError as error:
            raise JournalDamaged(self.path, self._line + 1, f"does not decompress: {error}") from error
        if len(line) == MAX_LINE_BYTES:
            raise JournalDamaged(self.path, self._line + 1, f"longer than {MAX_LINE_BYTES} bytes")
        return line

    def _torn(self, line: bytes, stream: BinaryIO) -> str | None:
        """What is wrong with a last line that was not written whole; None for any other line, right or wrong."""
        if line.endswith(b"\n"):
            if line.endswith(b'"}\n') or stream.read(1):
                return None
            try:
                msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                if "truncated" not in str(error):
                    return None
            else:
                return None
        return f"{self.path.name}: line {self._line}: the last line is torn; {len(line)} bytes are cut"

    def _stated_size(self) -> int:
        """What the compressed file says it holds; -1 if not even that can be read."""
        with self.path.open("rb") as file:
            try:
                return zstandard.get_frame_parameters(file.read(18)).content_size
            except zstandard.ZstdError:
                return -1


def read_journal(path: Path) -> JournalReader:
    """Open one file and check its header."""
    return JournalReader(path)


def repair(path: Path) -> str | None:
    """Cut a torn last line off a file, keeping it in `<name>.torn`; what was cut, or None. A file without a whole
    header is moved aside entirely."""
    try:
        reader = JournalReader(path).scan()
    except JournalDamaged as damage:
        if path.suffix == ".zst" or not _header_is_torn(path):
            raise
        path.rename(_free_name(path))
        return f"{path.name}: its first line is torn; the file is kept aside ({damage.reason})"
    if reader.torn is None:
        return None
    with path.open("r+b") as file:
        file.seek(reader.size)
        with path.with_name(path.name + ".torn").open("ab") as aside:
            aside.write(file.read())
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(reader.size)
        os.fsync(file.fileno())
    return reader.torn


def _header_is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        return not file.readline(MAX_LINE_BYTES).endswith(b"\n")


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.torn{suffix}") for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not name.exists())


def recover(directory: Path, account: str) -> tuple[Path | None, list[str]]:
    """Make the newest file fit to be read and continued: (that file or None, what was cut). Raises `JournalDamaged`."""
    cuts: list[str] = []
    while (path := find_latest(directory, account)) is not None:
        cut = None if path.suffix == ".zst" else repair(path)
        if cut:
            cuts.append(cut)
        if path.exists():
            break
    return path, cuts


def read_tail(directory: Path, account: str, after_seq: int) -> Iterator[Entry]:
    """Every entry past `after_seq`, over all files, their chain checked from file to file."""
    found = files(directory, account)
    starts = [_first_seq(path) for path in found]
    if found and starts[0] > after_seq + 1:
        raise JournalError(f"the journal begins at {starts[0]}; the entries from {after_seq + 1} on are gone")
    later = [at for at, start in enumerate(starts) if start > after_seq + 1]
    first = (later[0] if later else len(found)) - 1
    previous: JournalReader | None = None
    for path in found[max(first, 0) :]:
        reader = JournalReader(path)
        if previous is not None and (reader.header.previous, reader.header.first_seq) != (
            previous.last_hash,
            previous.last_seq + 1,
        ):
            raise JournalDamaged(path, 1, f"does not continue {previous.path.name}")
        yield from (entry for entry in reader if entry.seq > after_seq)
        previous = reader


def _first_seq(path: Path) -> int:
    return int(path.name.removesuffix(".zst").removesuffix(".jsonl").rpartition("-")[2])


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
        """Begin a new file if this one is full; True if it did.

        Between two events only, after the commands of the last one were executed: the checkpoint must hold them.
        """
        tail = self._tail
        if tail.size + self._pending_bytes < self._limits.max_file or tail.seq < tail.first_seq:
            return False
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
        return True

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
    return _Tail(fd, path, first_seq, first_seq - 1, ts, header[_HASH], len(header))


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
            if path != current and path.suffix != ".zst" and _first_seq(path) < _first_seq(current):
                _compress(path)
    kept = [path for path in files(directory, account) if _first_seq(path) <= _first_seq(current)]
    total = sum(path.stat().st_size for path in kept)
    for path in kept:
        if total <= limits.max_total or path == current:
            break
        total -= path.stat().st_size
        path.unlink()


def _compress(path: Path) -> None:
    target = path.with_name(path.name + ".zst")
    draft = path.with_name(path.name + ".zst.tmp")
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    with path.open("rb") as source, draft.open("wb") as sink:
        compressor.copy_stream(source, sink, size=path.stat().st_size)
        sink.flush()
        os.fsync(sink.fileno())
    draft.rename(target)
    path.unlink()
