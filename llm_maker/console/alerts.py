"""Alarms on their way to a person: deduplicated, rate-limited, never in the way of trading; the port that sends them by apprise.

All of it goes by the monotonic clock: a market may run at any speed, a person does not.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from llm_maker.config_console import Alerts as Settings
from llm_maker.console.alarm_rules import RULES, cure_of
from llm_maker.console.sender import CALL_SECONDS, UNKNOWN_ADDRESS, Hands, Service
from llm_maker.core.commands import Command, Level, Notice
from llm_maker.core.values import NS_PER_S
from llm_maker.port import Emit

Say = Callable[[Level, str, str], None]

_RANK = {Level.INFO: 0, Level.WARNING: 1, Level.ERROR: 2}
_HOUR_S = 3_600.0
_LOOK_S = 0.2
MOST_HEARD = 200
"""Alarms that wait to be made into messages."""
MOST_WAITING = 50
"""Messages that wait for one service; the oldest are dropped first, and the loss is told."""
MOST_SEEN = 1_000
TRIES = 5
"""Of one message to one service."""
_PAUSE_S, _PAUSE_MAX_S = 5.0, 600.0
MOST_LINES = 20
"""Of a digest."""
_MOST_TEXT = 1_000
_OVER = {"fallback": "fallback_over", "trouble_lasts": "trouble_over"}
"""Each of the two takes the other back: when one has been told, the other is news again."""


class _Seen(msgspec.Struct):
    """When an alarm was last told, how bad it was, and how often it was raised since."""

    at: float
    ts: int
    rank: int
    repeats: int = 0


class _Heard(msgspec.Struct, frozen=True):
    ts: int
    notice: Notice
    since: str
    """How often it was raised since it was last told; empty: it was not."""


class _Message(msgspec.Struct):
    title: str
    body: str
    level: Level
    tries: int = 0


class _Line(msgspec.Struct):
    """One address: what waits for it, and how it has done."""

    service: Service
    waiting: deque[_Message]
    failures: int = 0
    due: float = 0.0
    lost: int = 0
    useless: bool = False


class Alerts:
    """A port without commands or events: what it hears leaves by the services of `urls`, if any."""

    name = "alerts"

    def __init__(
        self,
        settings: Settings,
        urls: str,
        label: str,
        say: Say,
        *,
        hide: Callable[[str], str] = lambda text: text,
        question: Callable[[str], str] = lambda market_id: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`urls`: apprise URLs separated by spaces, secret; `label`: which daemon speaks, as `main on simulated, PAPER`.

        `hide` takes secrets out of a text; `question` names a market by its id.
        """
        self._settings, self._label, self._say = settings, label, say
        self._hide, self._question, self._clock = hide, question, clock
        self._lines = [_Line(Service(url), deque()) for url in urls.split()]
        self._lock = threading.Lock()
        """The ledger's thread speaks here too."""
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._heard: deque[_Heard] = deque()
        self._held: dict[tuple[str, str], tuple[int, Notice]] = {}
        """What the limit an hour keeps back: how often, and the last of it."""
        self._sent: deque[float] = deque()
        self._dropped = 0
        """Heard, but pushed out before it became a message."""
        self._hands = Hands()
        self._running = False
        self._hurry: tuple[float, float] | None = None
        """The run ends: since when, and for how many seconds more."""

    def open(self) -> None:
        """Load what the services need, while the loop has nothing else to do: it holds the interpreter for a third of a second.

        No traffic. Without it that happens in the worker's thread, and quotes would feel it.
        """
        for line in self._lines:
            line.service.load()

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log; from any thread, never blocks, never raises for what a service does."""
        if not self._lines:
            return
        with self._lock:
            self._forget(notice)
            if not self._wanted(notice):
                return
            now, key, rank = self._clock(), (notice.code, notice.instrument), _RANK[notice.level]
            seen = self._seen.pop(key, None)
            if seen is not None and rank <= seen.rank and now - seen.at < 60 * self._settings.repeat_minutes:
                seen.repeats += 1
                self._seen[key] = seen
                return
            since = f"{seen.repeats} times since {_time(seen.ts)}" if seen is not None and seen.repeats else ""
            self._seen[key] = _Seen(now, ts, rank)
            if len(self._seen) > MOST_SEEN:
                del self._seen[next(iter(self._seen))]
            self._heard.append(_Heard(ts, notice, since))
            if len(self._heard) > MOST_HEARD:
                self._heard.popleft()
                self._dropped += 1

    def _wanted(self, notice: Notice) -> bool:
        rule = RULES.get(notice.code)
        if notice.code in self._settings.mute or (rule is not None and not rule.sent):
            return False
        return _RANK[notice.level] >= _RANK[Level(self._settings.level)] or (rule is not None and rule.always)

    def _forget(self, notice: Notice) -> None:
        """What is over, or dealt with, is news when it comes back."""
        code = notice.code
        other = next((begin for begin, over in _OVER.items() if code == over), _OVER.get(code, ""))
        other = other or (code.removesuffix("_over") if code.startswith("halt_") and code.endswith("_over") else "")
        resumed = code == "operator_resume" and not notice.instrument
        if other or resumed:
            self._seen = {
                key: seen for key, seen in self._seen.items() if key[0] != other and not (resumed and key[0].startswith("halt_"))
            }

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Send until cancelled."""
        self._tell_of_mute()
        if not self._lines:
            await asyncio.Event().wait()
        self._running = True
        try:
            for line in self._lines:
                why = await self._call(line.service.load)
                if why == UNKNOWN_ADDRESS:
                    line.useless = True
                    self._say(Level.WARNING, "alerts", f"LLM_MAKER_ALERT_URLS: {self._named(line)} is {why}; nothing is sent there")
            while True:
                self._take()
                line_due = self._due()
                if line_due is None:
                    await asyncio.sleep(_LOOK_S)
                else:
                    await self._send(line_due)
        finally:
            self._running = False
            self._hands.end()

    async def farewell(self, seconds: float) -> None:
        """The run ends: what still waits may leave, for no longer than this."""
        if not self._running:
            return
        self._hurry = (time.monotonic(), seconds)
        for line in self._lines:
            line.due = 0.0
        while time.monotonic() - self._hurry[0] < seconds and self._running and self._unsaid():
            await asyncio.sleep(_LOOK_S / 4)

    # From what was heard to messages.

    def _take(self) -> None:
        with self._lock:
            heard, self._heard = self._heard, deque()
            dropped, self._dropped = self._dropped, 0
        for line in self._lines:
            line.lost += dropped
        for one in heard:
            if self._room(one.notice.level):
                self._put(self._message(one))
            else:
                key = (one.notice.code, one.notice.instrument)
                self._held[key] = (self._held.get(key, (0, one.notice))[0] + 1, one.notice)
                if len(self._held) > MOST_SEEN:
                    del self._held[next(iter(self._held))]
        if self._held:
            worst = max((notice.level for _, notice in self._held.values()), key=_RANK.__getitem__)
            if self._hurry is not None or self._room(worst):
                self._put(self._digest(worst))

    def _room(self, level: Level) -> bool:
        """Whether the hour has room for one more; a fifth of it is kept for errors."""
        now, most = self._clock(), self._settings.max_per_hour
        while self._sent and now - self._sent[0] >= _HOUR_S:
            self._sent.popleft()
        return len(self._sent) < (most if level is Level.ERROR else most - most // 5)

    def _put(self, message: _Message) -> None:
        self._sent.append(self._clock())
        for line in self._lines:
            if line.useless:
                continue
            line.waiting.append(msgspec.structs.replace(message))
            if len(line.waiting) > MOST_WAITING:
                line.waiting.popleft()
                line.lost += 1

    def _message(self, heard: _Heard) -> _Message:
        notice = heard.notice
        rule = RULES.get(notice.code)
        lines = [_plain(notice.text)]
        if notice.instrument:
            lines.append(f"market: {_plain(self._question(notice.instrument))} {notice.instrument}".replace(":  ", ": "))
        if cure := cure_of(notice.code, notice.instrument):
            lines.append(f"what to do: {cure}")
        if heard.since:
            lines.append(f"raised {heard.since}")
        lines.append(f"{notice.code}, market time {_time(heard.ts)}")
        title = f"{notice.level.value.upper()} {rule.title if rule is not None else notice.code} [{self._label}]"
        return _Message(self._hide(title), self._hide("\n".join(lines)), notice.level)

    def _digest(self, worst: Level) -> _Message:
        """What was held back, in one."""
        held, self._held = list(self._held.values()), {}
        held.sort(key=lambda each: -_RANK[each[1].level])
        lines = [
            f"{notice.level.value.upper()} {notice.code}{f' {times} times' if times > 1 else ''}"
            f"{f' [{notice.instrument}]' if notice.instrument else ''}: {_plain(notice.text)[:200]}"
            for times, notice in held[:MOST_LINES]
        ]
        if len(held) > MOST_LINES:
            lines.append(f"and {len(held) - MOST_LINES} more")
        lines.append("what to do: `llm-maker status`; `jq . logs/daemon.jsonl` has each of them")
        title = f"{worst.value.upper()} {sum(times for times, _ in held)} alarms were held back [{self._label}]"
        return _Message(self._hide(title), self._hide("\n".join(lines)), worst)

    # From messages to services.

    def _due(self) -> _Line | None:
        """Who is served next: those that work before those that do not."""
        now = time.monotonic()
        found = [line for line in self._lines if line.waiting and now >= line.due]
        return min(found, key=lambda line: (line.failures, line.due)) if found else None

    async def _send(self, line: _Line) -> None:
        message = line.waiting[0]
        body = message.body + (
            f"\n{line.lost} alarms before this one were too many, or could not be delivered here" if line.lost else ""
        )
        message.tries += 1
        lost = line.lost
        why = await self._call(lambda: line.service.send(message.title, body, message.level))
        here = bool(line.waiting) and line.waiting[0] is message
        if not why:
            if line.failures:
                self._say(Level.INFO, "alerts", f"{self._named(line)} takes alarms again")
            line.failures, line.due, line.lost = 0, 0.0, line.lost - lost
            if here:
                line.waiting.popleft()
            return
        if not line.failures:
            self._say(Level.WARNING, "alerts", f"{self._named(line)} takes no alarm: {why}; tried again, trading goes on")
        line.failures += 1
        line.due = time.monotonic() + min(_PAUSE_S * 3.0 ** (line.failures - 1), _PAUSE_MAX_S)
        if self._hurry is not None:
            line.waiting.clear()
        elif here and message.tries >= TRIES:
            line.waiting.popleft()
            line.lost += 1

    async def _call(self, call: Callable[[], str]) -> str:
        began = time.monotonic()
        return await self._hands.do(call, lambda: self._until(began))

    def _until(self, began: float) -> float:
        """A call's deadline; at the end of the run each service has its share of what is left."""
        if self._hurry is None:
            return began + CALL_SECONDS
        since, seconds = self._hurry
        return min(began + CALL_SECONDS, max(began, since) + seconds / len(self._lines))

    def _unsaid(self) -> bool:
        return bool(self._heard or self._held or any(line.waiting for line in self._lines))

    def _named(self, line: _Line) -> str:
        return f"{line.service.name} (address {self._lines.index(line) + 1} of {len(self._lines)})"

    def _tell_of_mute(self) -> None:
        for code in self._settings.mute:
            if code not in RULES:
                near = difflib.get_close_matches(code, RULES, 1)
                hint = f"did you mean {near[0]!r}?" if near else "`llm-maker alerts` lists them"
                self._say(Level.WARNING, "alerts", f"alerts.mute: no alarm has the code {code!r}; {hint}")


def try_services(urls: str, label: str) -> dict[str, Any]:
    """One test alarm to each service, one after the other; what came of it, for the command line."""
    title = f"INFO this is a test [{label}]"
    body = "An alarm would come like this, with the command that helps.\nwhat to do: nothing"

    async def tried() -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for service in map(Service, urls.split()):
            hands, until = Hands(), time.monotonic() + CALL_SECONDS
            why = await hands.do(partial(service.send, title, body, Level.INFO), partial(float, until))
            found.append((service.name, why))
            hands.end()
        return found

    found = asyncio.run(tried())
    return {
        "ok": not any(why for _, why in found),
        "services": [{"service": name, "ok": not why, "why": why} for name, why in found],
    }


def _plain(text: str) -> str:
    """One bounded line without control marks: words that came from outside are in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MOST_TEXT]


def _time(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / NS_PER_S, UTC):%Y-%m-%d %H:%M:%S} UTC" if ts else "before the market's first moment"
