"""What `top` knows of the daemon: the last picture, how old it is, and why there is no newer one. No terminal.

Every call goes over the control socket in a thread, with a limit in time; whatever comes of it is a value, never an exception.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.console.cells import clean
from llm_maker.console.control import ControlClient, NotRunning, Unanswered
from llm_maker.console.shapes import Board, Detail, Entry

CALL_SECONDS = 3.0
RETRY_SECONDS_MAX = 5.0
ENTRIES = 500
WHO = "top"


class Look:
    """One daemon seen from outside: `home` is where its socket is found, now or later."""

    def __init__(self, home: Path, refresh_seconds: float) -> None:
        self.home, self.refresh_seconds = home, refresh_seconds
        self.board: Board | None = None
        self.entries: deque[Entry] = deque(maxlen=ENTRIES)
        self.fault = ""
        """Why there is no newer picture; empty: there is, or nobody has asked yet."""
        self.tries = 0
        """In a row without an answer."""
        self.detail_fault = ""
        self._detail: Detail | None = None
        self._seen = time.monotonic()
        self._run: tuple[int, int] | None = None
        self._last = 0
        self._wait = refresh_seconds

    @property
    def age_seconds(self) -> float:
        """Of the picture, wall time."""
        return time.monotonic() - self._seen

    @property
    def stale(self) -> bool:
        """What was seen is not what is."""
        return bool(self.fault) or self.age_seconds > CALL_SECONDS + 2 * self.refresh_seconds

    def detail_of(self, market: str) -> Detail | None:
        """The market's detail, if it was the last that was asked for."""
        detail = self._detail
        return detail if detail is not None and detail["row"]["market_id"] == market else None

    async def look(self) -> float:
        """A new picture, or why there is none; answers how many seconds to wait before the next."""
        self.fault = await self._look()
        self.tries = self.tries + 1 if self.fault else 0
        self._wait = min(RETRY_SECONDS_MAX, max(0.5, self._wait * 1.5)) if self.fault else self.refresh_seconds
        return self._wait

    async def _look(self) -> str:
        answer = await self._ask("board", {"since": self._last})
        if isinstance(answer, str):
            return answer
        try:
            board = msgspec.convert(answer, Board)
        except msgspec.ValidationError as error:
            return clean(f"its answer is not of this version of top: {error}")
        run = (board["session"], board["started_ns"])
        if run != self._run:
            # Another daemon: its stream counts from the beginning, so what came before was asked for with the wrong number.
            again, self._run, self._last = self._last > 0, run, 0
            self.entries.clear()
            if again:
                return await self._look()
        self.board, self._seen, self._last = board, time.monotonic(), board["last"]
        self.entries.extend(board["tail"])
        return ""

    async def look_at(self, market: str) -> None:
        """One market, whole."""
        answer = await self._ask("detail", {"market": market})
        # What could not be had again is not shown as if it were.
        self._detail, self.detail_fault = None, answer if isinstance(answer, str) else ""
        try:
            if not isinstance(answer, str):
                self._detail = msgspec.convert(answer, Detail)
        except msgspec.ValidationError as error:
            self.detail_fault = clean(f"its answer is not of this version of top: {error}")

    async def _ask(self, verb: str, args: dict[str, Any]) -> dict[str, Any] | str:
        """The answer, or why there is none in one line."""
        try:
            answer = await asyncio.to_thread(ControlClient.call, self.home, verb, args, CALL_SECONDS)
        except (NotRunning, Unanswered) as error:
            return clean(str(error)) or "no answer"
        if answer.get("ok") is not True:
            return clean(str(answer.get("error", ""))) or "it refused to tell"
        return answer

    async def act(self, verb: str, args: dict[str, Any]) -> tuple[bool, str]:
        """Whether the daemon took it, and in words what came of it."""
        try:
            answer = await asyncio.to_thread(ControlClient.call, self.home, verb, args, CALL_SECONDS, WHO)
        except NotRunning as error:
            return False, f"NOT DONE: {error}"
        except Unanswered as error:
            return False, f"NOT KNOWN whether done: {error}"
        if answer.get("ok") is not True:
            return False, f"REFUSED: {answer.get('error', 'no reason told')}"
        return True, "done"


async def woken(event: asyncio.Event, seconds: float | None) -> None:
    """When it is set, or the seconds are over."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
    event.clear()
