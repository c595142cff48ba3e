"""A JSONL file of bounded size, and the way its lines tell the time. It refuses to know what a line says and when it is now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from llm_maker.core.values import NS_PER_S


def iso(ts: int) -> str:
    """Market time as ISO 8601 UTC with milliseconds."""
    moment = datetime.fromtimestamp(ts // NS_PER_S, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts % NS_PER_S // 1_000_000:03d}Z"


_MAX_LINE = 1 << 20
"""Looked at from the end of a file for its last line."""


class LineLog:
    """A JSONL file, appended whole lines at a time; at `max_bytes` the file becomes `.1` (one is kept).

    A log that cannot be written stops no trading (the journal does): its lines are dropped and counted in `lost`, the file is
    cut back to whole lines, and `on_failure` hears of it once, until a write succeeds again.
    """

    def __init__(self, path: Path, max_bytes: int, on_failure: Callable[[str], None] = lambda reason: None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._max, self._on_failure = path, max_bytes, on_failure
        self.lost = 0
        self._failing = False
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, lines: Sequence[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        try:
            if self._size and self._size + len(data) > self._max:
                self._rotate()
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._drop(len(lines), error)
            return
        self._size += len(data)
        self._failing = False

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # the last try got as far as this
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        before = self._fd
        self._open()  # first: a number that is closed already may be somebody else's file by the next line
        os.close(before)

    def _drop(self, lines: int, error: OSError) -> None:
        self.lost += lines
        with contextlib.suppress(OSError):  # a torn line then stays; whoever reads JSON lines will see it
            os.ftruncate(self._fd, self._size)
        if not self._failing:
            self._failing = True
            self._on_failure(f"{self.path}: {error.strerror or error}; its lines are dropped until it can be written again")

    def last(self) -> bytes:
        """The last whole line, b"" for none; what a kill left of a torn one is cut."""
        older = self.path.with_name(self.path.name + ".1")
        path = self.path if self._size or not older.exists() else older
        with path.open("rb") as file:
            file.seek(-min(_MAX_LINE, file.seek(0, os.SEEK_END)), os.SEEK_CUR)
            whole, _, torn = file.read().rpartition(b"\n")
        if torn and path == self.path:
            self._size -= len(torn)
            os.truncate(path, self._size)
        return whole.rpartition(b"\n")[2]

    def close(self) -> None:
        os.close(self._fd)
