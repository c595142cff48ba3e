"""Reading the journal: one file verified line by line, many as one chain, and a torn end cut off.

A last line that was not written whole is cut and told; any other damage is `JournalDamaged` with its line. It refuses to write a
line, and to know what an event means.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import zstandard

from llm_maker.runtime.journal import (
    ENTRY_DECODER,
    FORMAT,
    MAX_LINE_BYTES,
    RAW_DECODER,
    SEAL_BYTES,
    Entry,
    Header,
    JournalDamaged,
    JournalError,
    RawEntry,
    files,
    find_latest,
    first_seq_of,
    seal,
)

_EntryT = TypeVar("_EntryT", Entry, RawEntry)
_HEADER_DECODER = msgspec.json.Decoder(Header)


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
                chain = seal(chain, line[:-SEAL_BYTES])
                if line[-SEAL_BYTES:] != b',"h":"' + chain + b'"}\n':
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
                msgspec.json.decode(line[:-1])
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
    starts = [first_seq_of(path) for path in found]
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
