"""Recorded decisions as an analyst: answers each request with the signals a `llm_decisions.jsonl` holds for that moment.

For backtests with `--signals FILE`. A signal is given only after the time it was received then, and once.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core.commands import Command, RequestSignals
from llm_maker.core.events import Event, Signal, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.tape import TapeError

_FIELDS = frozenset(Signal.__struct_fields__)


class Recorded(msgspec.Struct, frozen=True):
    """One line of the file that has signals."""

    ts: int
    decision_id: str
    model: str
    prompt_version: str
    signals: tuple[Signal, ...]


class SignalsFile:
    """A `port.Simulator` that plays recorded answers; `name` is that of an analyst."""

    name = "llm"

    def __init__(self, path: Path) -> None:
        self._lines = _read(path)
        self._given: list[str] = []
        self._due: list[tuple[int, Event]] = []

    def observe(self, now: int, event: Event) -> None:
        """Recorded answers need no market."""

    def execute(self, now: int, command: Command) -> None:
        if not isinstance(command, RequestSignals):
            return
        asked = {m.market_id for m in command.markets}
        ready = [r for r in self._lines if r.ts <= now and r.decision_id not in self._given]
        signals = tuple(s for r in ready for s in r.signals if s.market_id in asked)
        self._given += [r.decision_id for r in ready]
        if not signals:
            self._due.append((now, SignalsSkipped(command.request_id, "busy")))
            return
        last = ready[-1]
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
        self._given = msgspec.json.decode(saved)["given"]


def _read(path: Path) -> list[Recorded]:
    if not path.exists():
        raise TapeError(f"{path}: no such signals file")
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            raw = msgspec.json.decode(line, type=dict[str, Any])
            signals = tuple(msgspec.convert(_only(s), Signal) for s in raw.get("signals", []))
            ts = int(datetime.fromisoformat(raw["timestamp"]).timestamp() * 1000) * (NS_PER_S // 1000)
        except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
            raise TapeError(f"{path}: line {number}: not a decision: {error}") from None
        if signals:
            found.append(Recorded(ts, raw["decision_id"], raw["model"], raw["prompt_version"], signals))
    return found


def _only(signal: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in signal.items() if k in _FIELDS}
