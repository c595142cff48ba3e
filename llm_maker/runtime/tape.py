"""Tapes: a recorded feed as JSON lines, plain, gzip or zstd; reading, writing, and playing one as a simulated feed.

The first line is a header, each other line `{"recv_ns", "channel", "frame"}` with the venue's raw message. This file
knows lines, times and compression; it refuses to know what a frame says: a parser is handed in, frames stay raw bytes.

A tail that was cut off (a torn last line, a compressed stream that ends early) is read to its last whole line and said
so. Anything else that is wrong is refused with its line: damage in the middle must not pass for a quiet market.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol

import msgspec
import zstandard

from llm_maker.core.commands import Command
from llm_maker.core.events import Event, InstrumentListed, VenueUp
from llm_maker.core.values import NS_PER_S, Instrument

VERSION = 1
MARKET = "market"
_READ = 1 << 14
"""Compressed bytes taken at a time; a recording unpacks about fiftyfold, so a block stays under a few MB."""
_MAX_LINE = 1 << 24
_BLOCK_NS = 5 * NS_PER_S
_MAX_BLOCK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TapeError(Exception):
    """A tape that cannot be read: one line with the file, the place and what was expected there."""


class TapeFrame(msgspec.Struct, gc=False):
    """One line: when the frame came (ns), on which channel, and the frame itself, not decoded."""

    recv_ns: Annotated[int, msgspec.Meta(ge=0)]
    frame: msgspec.Raw
    channel: str = MARKET


class _Header(msgspec.Struct):
    tape: int
    venue: str
    instruments: list[dict[str, Any]]


_HEADER_LOOKS = '{"tape":1,"venue":...,"instruments":[...]}'
_FRAMES = msgspec.json.Decoder(TapeFrame)


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _unzip() -> _Unpacker:
    return zlib.decompressobj(wbits=31)


def _unzstd() -> _Unpacker:
    return zstandard.ZstdDecompressor().decompressobj()


class TapeReader:
    """A tape file; each iteration is one streaming pass over its frames, one pass at a time.

    Raises `TapeError` for anything wrong but a cut tail. `header` is the first line, decoded. `truncated` is None, or
    after a pass says where the tape was cut. `line` is the number of the last line read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.truncated: str | None = None
        self.line = 1
        self._torn = False
        self.header = self._read_header()
        self.venue: str = self.header["venue"]

    def __iter__(self) -> Iterator[TapeFrame]:
        self.truncated, self.line, latest = None, 1, 0
        for frames in self._runs():
            times = [latest, *(frame.recv_ns for frame in frames)]
            if times != sorted(times):
                raise self._step_back(times)
            self.line, latest = self.line + len(frames), times[-1]
            yield from frames
        if self._torn and self.truncated is None:
            self.truncated = f"{self.path}: cut off after line {self.line}; read to there"

    def check(self) -> int:
        """Read the whole tape without parsing its frames, to find damage before a run; the number of frames."""
        return sum(1 for _ in self)

    def _read_header(self) -> dict[str, Any]:
        first = next(self._blocks(), b"").partition(b"\n")[0]
        try:
            known = msgspec.json.decode(first, type=_Header)
            header: dict[str, Any] = msgspec.json.decode(first)
        except _UNREADABLE as error:
            raise self._error(1, f'expected a tape header {{"tape":1,"venue":...,"instruments":[...]}}: {error}') from error
        if known.tape != VERSION:
            raise self._error(1, f"tape version {known.tape}, expected {VERSION}")
        return header

    def _runs(self) -> Iterator[list[TapeFrame]]:
        """All frames, a block's at a time; the good ones of a damaged block before its error."""
        blocks = self._blocks()
        rest = next(blocks, b"").partition(b"\n")[2]
        for block in chain([rest] if rest else [], blocks):
            try:
                frames = _FRAMES.decode_lines(block)
            except _UNREADABLE:
                frames = []
            if len(frames) == block.count(b"\n") + (not block.endswith(b"\n")):
                yield frames
            else:
                yield from self._one_by_one(block)

    def _one_by_one(self, block: bytes) -> Iterator[list[TapeFrame]]:
        for text in _split(block):
            try:
                frame = _FRAMES.decode(text)
            except _UNREADABLE as error:
                if text.endswith(b"\n"):
                    raise self._error(self.line + 1, f"expected a frame: {error}") from error
                self.truncated = f"{self.path}: cut off in line {self.line + 1}; read to line {self.line}"
            else:
                yield [frame]

    def _step_back(self, times: list[int]) -> TapeError:
        place = next(place for place in range(1, len(times)) if times[place] < times[place - 1])
        what = f"receive time steps back from {times[place - 1]} to {times[place]}"
        return self._error(self.line + place, what)

    def _blocks(self) -> Iterator[bytes]:
        """Runs of whole lines; a last line without an end comes alone."""
        tail = b""
        for chunk in self._chunks():
            cut = chunk.rfind(b"\n") + 1
            if cut:
                yield tail + chunk[:cut]
                tail = chunk[cut:]
            else:
                tail += chunk
                if len(tail) > _MAX_LINE:
                    raise self._error(self.line + 1, f"a line of more than {_MAX_LINE} bytes")
        if tail:
            yield tail

    def _chunks(self) -> Iterator[bytes]:
        """The unpacked bytes; `_torn` is set where a compressed stream ends before its own end."""
        self._torn = False
        try:
            with self.path.open("rb") as file:
                start = file.read(4)
                file.seek(0)
                if start.startswith(_GZIP):
                    yield from self._unpacked(file, _unzip)
                elif start == _ZSTD:
                    yield from self._unpacked(file, _unzstd)
                else:
                    yield from iter(lambda: file.read(_READ), b"")
        except OSError as error:
            raise TapeError(f"{self.path}: cannot be read: {error.strerror}") from error
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._error(self.line + 1, f"compressed data damaged at or after this line: {error}") from error

    def _unpacked(self, file: BinaryIO, unpacker: Callable[[], _Unpacker]) -> Iterator[bytes]:
        stream, fed = unpacker(), False
        while data := file.read(_READ):
            while data:
                yield stream.decompress(data)
                fed = True
                if not stream.eof:
                    break
                data = stream.unused_data
                stream, fed = unpacker(), False
        self._torn = fed

    def _error(self, line: int, what: str) -> TapeError:
        return TapeError(f"{self.path}:{line}: {what}")


def _split(block: bytes) -> list[bytes]:
    """Lines with their line feeds, and nothing else taken for an end of line."""
    lines = [text + b"\n" for text in block.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _pack_nothing(data: bytes) -> bytes:
    return data


def _pack_gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _pack_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


_PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": _pack_gzip, ".zst": _pack_zstd}


class TapeWriter:
    """Writes a new tape, never over an existing file (`FileExistsError`); the suffix `.gz` or `.zst` says how to pack.

    Lines reach the file as whole compressed frames, at the latest with the first line 5 s of receive time after the
    oldest one held back, or by `flush`: a kill loses no more than that.
    """

    def __init__(self, path: Path | str, header: dict[str, Any]) -> None:
        assert header.get("tape") == VERSION, "a tape header"
        self.path = Path(path)
        self.frames = 0
        self._pack = _PACKERS.get(self.path.suffix, _pack_nothing)
        self._file = self.path.open("xb")
        self._held: list[bytes] = [msgspec.json.encode(header)]
        self._held_bytes = 0
        self._since = self._latest = 0
        self.flush()

    def write(self, recv_ns: int, frame: bytes, channel: str = MARKET) -> None:
        """One frame as it came; text that is not JSON is kept as a JSON string."""
        assert recv_ns >= self._latest, "receive times never step back"
        if self._held and (recv_ns - self._since >= _BLOCK_NS or self._held_bytes >= _MAX_BLOCK):
            self.flush()
        if not self._held:
            self._since = recv_ns
        self._latest = recv_ns
        line = msgspec.json.encode({"recv_ns": recv_ns, "channel": channel, "frame": msgspec.Raw(_one_line(frame))})
        self._held.append(line)
        self._held_bytes += len(line)
        self.frames += 1

    def flush(self) -> None:
        """Hand what is held to the operating system, as a frame of its own."""
        if not self._held:
            return
        self._file.write(self._pack(b"\n".join([*self._held, b""])))
        self._file.flush()
        self._held, self._held_bytes = [], 0

    def close(self) -> None:
        self.flush()
        self._file.close()


def _one_line(frame: bytes) -> bytes:
    """The frame's own bytes where they are JSON on one line; its JSON on one line; or its text as a JSON string."""
    try:
        msgspec.json.decode(frame, type=msgspec.Raw)
        return msgspec.json.format(frame, indent=-1) if b"\n" in frame or b"\r" in frame else frame
    except _UNREADABLE:
        return msgspec.json.encode(frame.decode(errors="replace"))


class FrameParser(Protocol):
    """What turns a venue's raw frame into events; never raises."""

    malformed: dict[str, int]

    def parse(self, frame: msgspec.Raw) -> list[Event]: ...


class _Place(msgspec.Struct):
    """A checkpoint: how many frames were played, and the receive time of the last, to know the tape again."""

    frames: int
    recv_ns: int


class TapeFeed:
    """A recorded market feed as a simulator: each frame's events at its receive time, in order.

    With the first frame come `InstrumentListed` of every instrument and `VenueUp` without snapshots. Takes no command.
    `frames` counts frames played, with or without events; lines of other channels are skipped and counted in `skipped`.
    """

    name = "tape"

    def __init__(self, reader: TapeReader, instruments: Sequence[Instrument], parser: FrameParser) -> None:
        self.frames = self.skipped = 0
        self._reader, self._parser = reader, parser
        self._instruments = tuple(instruments)
        self._lines = iter(reader)
        self._ahead = self._read()
        self._latest = 0

    @property
    def malformed(self) -> dict[str, int]:
        return self._parser.malformed

    @property
    def truncated(self) -> str | None:
        """Where the tape was cut off, once its end was reached."""
        return self._reader.truncated

    def observe(self, now: int, event: Event) -> None:
        """A feed hears nothing."""

    def execute(self, now: int, command: Command) -> None:
        """A recording answers nothing."""

    def next_ns(self) -> int | None:
        return None if self._ahead is None else self._ahead.recv_ns

    def advance(self, now: int) -> list[Event]:
        """The events of every frame received at or before `now`; raises `TapeError` at damage."""
        line = self._ahead
        if line is None or line.recv_ns > now:
            return []
        events = [*self._opening(), *self._play(line)] if not self.frames else self._play(line)
        while (line := self._ahead) is not None and line.recv_ns <= now:
            events = events + self._play(line)
        return events

    def checkpoint(self) -> bytes:
        return msgspec.json.encode(_Place(self.frames, self._latest))

    def restore(self, saved: bytes) -> None:
        """Play on from a checkpoint: reads forward to it, through a parser that is new like this feed."""
        assert self.frames == 0, "a feed is restored before it plays"
        place = msgspec.json.decode(saved, type=_Place)
        while self.frames < place.frames and self._ahead is not None:
            self._play(self._ahead)
        if (self.frames, self._latest) != (place.frames, place.recv_ns):
            raise TapeError(f"{self._reader.path}: not the tape of the checkpoint: frame {place.frames} is not there")

    def _play(self, line: TapeFrame) -> list[Event]:
        self.frames += 1
        self._latest = line.recv_ns
        self._ahead = self._read()
        return self._parser.parse(line.frame)

    def _opening(self) -> list[Event]:
        listed: list[Event] = [InstrumentListed(instrument) for instrument in self._instruments]
        return [*listed, VenueUp(self._reader.venue, snapshots=False)]

    def _read(self) -> TapeFrame | None:
        for line in self._lines:
            if line.channel == MARKET:
                return line
            self.skipped += 1
        return None
