"""How well the daemon's own loop turns, and how large its journal is: what `board` shows of its health."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from pathlib import Path

from llm_maker.core.commands import Command
from llm_maker.port import Emit

BEAT_SECONDS = 0.25
WINDOW_SECONDS = 60.0
SIZE_SECONDS = 15.0
"""How often the journal's files are counted, in a thread."""


class Pulse:
    """Beats four times a second; a beat that comes late is what the loop stood still."""

    name = "pulse"

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._delays: deque[tuple[float, float]] = deque(maxlen=int(WINDOW_SECONDS / BEAT_SECONDS))
        self.journal_mb: float | None = None
        """Of all its accounts; None: not counted yet."""

    @property
    def loop_delay_ms(self) -> float:
        """The longest of the last minute; 0 before the first beat."""
        since = time.monotonic() - WINDOW_SECONDS
        return round(max((delay for at, delay in self._delays if at >= since), default=0.0) * 1_000, 1)

    def execute(self, command: Command) -> None:
        """It takes no commands."""

    def flush(self) -> None:
        """There is nothing to flush."""

    async def run(self, emit: Emit) -> None:
        """Beat until cancelled; emits nothing."""
        count_at = 0.0
        while True:
            if time.monotonic() >= count_at:
                self.journal_mb = round(await asyncio.to_thread(_bytes_in, self._journal) / 1e6, 1)
                count_at = time.monotonic() + SIZE_SECONDS
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            self._delays.append((now, max(0.0, now - due)))


def _bytes_in(folder: Path) -> int:
    """Of all files under a folder; what goes while we look, or cannot be looked at, counts for nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over a folder that it cannot read
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
