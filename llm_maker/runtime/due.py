"""What is to be looked at later, each once: tens of thousands may wait for a day, so they wait packed."""

from __future__ import annotations

import heapq
import struct
from typing import NamedTuple

_HEAD = struct.Struct(">qII")
"""Due, horizon, number of the instrument; big-endian, so that the order of the bytes is that of the moments."""


class Later(NamedTuple):
    """`name` of an instrument is to be looked at at `due` (ns), `horizon` seconds after it happened."""

    due: int
    horizon: int
    instrument: str
    name: str


class DueList:
    """A queue by moment; what waits already is not added again."""

    def __init__(self) -> None:
        self._heap: list[bytes] = []
        self._waiting: set[bytes] = set()
        self._numbers: dict[str, int] = {}
        self._instruments: list[str] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, later: Later) -> None:
        number = self._numbers.setdefault(later.instrument, len(self._instruments))
        if number == len(self._instruments):
            self._instruments.append(later.instrument)
        entry = _HEAD.pack(later.due, later.horizon, number) + later.name.encode()
        if entry not in self._waiting:
            self._waiting.add(entry)
            heapq.heappush(self._heap, entry)

    def take(self, now: int) -> Later | None:
        """The next one that is due at `now`, out of the list; None: nothing is."""
        if not self._heap or _HEAD.unpack_from(self._heap[0])[0] > now:
            return None
        entry = heapq.heappop(self._heap)
        self._waiting.discard(entry)
        due, horizon, number = _HEAD.unpack_from(entry)
        return Later(due, horizon, self._instruments[number], entry[_HEAD.size :].decode())
