"""The daemon's own log: notices and faults as JSON lines in `daemon.jsonl`, and in plain words for whoever watches.

Every line passes a redaction of the secrets that are held. Market time stamps what the core said, so logs of one run agree.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from llm_maker.core.commands import Level, Notice
from llm_maker.runtime.line_log import LineLog, iso

_ORDER = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_MAX_BYTES = 64 << 20
_MIN_SECRET = 6
"""A shorter value is no secret worth hiding, and would blank out ordinary words."""


class DaemonLog:
    """structlog rendering JSON into a file; `say` shows lines at or above `level` to a person."""

    def __init__(self, path: Path, secrets: Sequence[str], level: str, show: Callable[[str], None]) -> None:
        self._file = LineLog(path, _MAX_BYTES, show)
        self._secrets = [s for s in secrets if len(s) >= _MIN_SECRET]
        self._level = _ORDER[level]
        self._show = show
        self.now: Callable[[], int] | None = None
        """Market time, once there is one; what is said before has no timestamp."""
        self.also: Callable[[int, Notice], None] = lambda ts, notice: None
        """Hears every line that is written here, secrets taken out, at its market time (0: there is none yet)."""
        self._logger: Any = structlog.wrap_logger(
            self._file,
            processors=[self._redact, structlog.processors.JSONRenderer()],
            wrapper_class=_Bound,
        )

    def notice(self, ts: int, notice: Notice) -> None:
        """What the core told the operator, at market time `ts`."""
        self._emit(notice.level, notice.code, notice.text, timestamp=iso(ts), market_id=notice.instrument)
        self._pass_on(ts, notice)

    def say(self, level: Level, code: str, text: str) -> None:
        """What a port or the wiring has to tell."""
        now = 0 if self.now is None else self.now()
        self._emit(level, code, text, **({"timestamp": iso(now)} if now else {}))
        self._pass_on(now, Notice(level, code, text))

    def fault(self, fault: BaseException, resting: list[str]) -> None:
        """A bug of ours: the whole story into the file, one line to the person."""
        story = "".join(traceback.format_exception(fault))
        text = f"{type(fault).__name__}: {fault}; cancels sent for {len(resting)} orders {' '.join(resting)}"
        self._emit(Level.ERROR, "fault", text, traceback=story)
        self._pass_on(0 if self.now is None else self.now(), Notice(Level.ERROR, "fault", text))

    def _pass_on(self, ts: int, notice: Notice) -> None:
        self.also(ts, Notice(notice.level, notice.code, self.redacted(notice.text), notice.instrument))

    def redacted(self, value: Any) -> Any:
        """The same value with every held secret replaced."""
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, dict):
            return {k: self.redacted(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.redacted(v) for v in value]
        return value

    def close(self) -> None:
        self._file.close()

    def _redact(self, logger: Any, method: str, event: Any) -> Any:
        return self.redacted(dict(event))

    def _emit(self, level: Level, code: str, text: str, **facts: Any) -> None:
        self._logger.log(level.value, code, text=text, **facts)
        if _ORDER[level.value] >= self._level:
            market = f" [{facts['market_id']}]" if facts.get("market_id") else ""
            stamp = f"{facts['timestamp']} " if facts.get("timestamp") else ""
            self._show(self.redacted(f"{stamp}{level.value.upper()} {text}{market}"))


class _Bound(structlog.BoundLoggerBase):
    """The one method we use."""

    def log(self, level: str, code: str, **facts: Any) -> None:
        rendered, _ = self._process_event("log", code, {"level": level, **facts})
        line = rendered[0] if rendered else ""
        self._logger.write([line.encode()])


def stderr(line: str) -> None:
    """Plain lines for a terminal or a pipe; stdout is kept for results."""
    with contextlib.suppress(OSError):  # the terminal is gone, or the pipe: the file has the line, and the quotes matter more
        sys.stderr.write(line + "\n")
