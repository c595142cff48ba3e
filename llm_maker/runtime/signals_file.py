"""Recorded decisions as an analyst: answers each request with the signals a `llm_decisions.jsonl` holds for that moment.

For backtests with `--signals FILE`. A signal is given only after the time it was received then, and once.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core.advice import Signal
from llm_maker.core.commands import Command, RequestSignals
from llm_maker.core.events import Event, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_MS
from llm_maker.runtime.tape import TapeError

_FIELDS = frozenset(Signal.__struct_fields__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Recorded(msgspec.Struct, frozen=True):
    """One line of the file that has signals."""

    ts: int
    decision_id: str
    model: str
    prompt_version: str
    signals: tuple[Signal, ...]


class SignalsFile:
    """A `port.Simulator` that plays recorded answers; `name` is that of an analyst.

    A market that is asked about gets its newest signal of the file that was there by then and that it has not had.
    """

    name = "llm"

    def __init__(self, path: Path) -> None:
        self._lines = sorted(_read(path), key=lambda line: line.ts)
        self._given: dict[str, int] = {}
        """Market -> number of lines that were looked at when it last got a signal."""
        self._due: list[tuple[int, Event]] = []

    def observe(self, now: int, event: Event) -> None:
        """Recorded answers need no market."""

    def execute(self, now: int, command: Command) -> None:
        if not isinstance(command, RequestSignals):
            return
        ready = bisect_right(self._lines, now, key=lambda line: line.ts)
        newest: dict[str, tuple[int, Signal]] = {}
        for number, line in enumerate(self._lines[:ready]):
            newest.update({s.market_id: (number, s) for s in line.signals})
        asked = [m.market_id for m in command.markets]
        found = [newest[m] for m in asked if m in newest and newest[m][0] >= self._given.get(m, 0)]
        if not found:
            self._due.append((now, SignalsSkipped(command.request_id, "busy")))
            return
        self._given.update({signal.market_id: ready for _, signal in found})
        last = self._lines[max(number for number, _ in found)]
        signals = tuple(signal for _, signal in found)
        answer = SignalsReceived(command.request_id, last.decision_id, last.model, last.prompt_version, signals)
        self._due.append((now, answer))

    def next_ns(self) -> int | None:
        return self._due[0][0] if self._due else None

    def advance(self, now: int) -> list[Event]:
        due, self._due = self._due, []
        return [event for _, event in due]

    def checkpoint(self) -> bytes:
        return msgspec.json.encode({"given": self._given})

    def restore(self, saved: bytes) -> None:
        self._given = msgspec.json.decode(saved, type=dict[str, dict[str, int]])["given"]


def _read(path: Path) -> list[Recorded]:
    if not path.exists():
        raise TapeError(f"{path}: no such signals file")
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            raw = msgspec.json.decode(line, type=dict[str, Any])
            signals = tuple(msgspec.convert(_only(s), Signal) for s in raw.get("signals", []))
            ts = _ns(datetime.fromisoformat(raw["timestamp"]))
        except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
            raise TapeError(f"{path}: line {number}: not a decision: {error}") from None
        if signals:
            found.append(Recorded(ts, raw["decision_id"], raw["model"], raw["prompt_version"], signals))
    return found


def _ns(moment: datetime) -> int:
    """The end of the millisecond that was written, for the log cuts what is finer: never before it was received."""
    return ((moment - _EPOCH) // timedelta(milliseconds=1) + 1) * NS_PER_MS


def _only(signal: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in signal.items() if k in _FIELDS}
