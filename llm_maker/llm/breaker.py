"""Whether a model may be asked now: what its failures mean for the next call, told apart by kind.

closed -> open after three failures of the server or the way there within ten minutes -> half-open: one probe -> closed, or open for
twice as long. stopped: a person must act (key, balance, model name); it is said once and tried again at most once an hour. A server
that names a time is not asked before it. Pure; time is an argument (ns). Knows no call, no retry and no other model.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Literal

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.providers import Kind

TRIP_FAILURES = 3
TRIP_WINDOW_NS = 600 * NS_PER_S
FIRST_PAUSE_NS = 30 * NS_PER_S
LONGEST_PAUSE_NS = 900 * NS_PER_S
LONGEST_PATIENCE_S = 3_600.0
"""A server may ask for this much and no more."""
STOPPED_NS = 3_600 * NS_PER_S
"""A balance is topped up, a 403 may pass, a model comes back: so long between two tries."""

Outcome = Literal["ok"] | Kind
State = Literal["closed", "open", "stopped"]

_TRIPPING = frozenset({"overload", "timeout", "connection"})
_STOPPING = frozenset({"auth", "billing", "bad_request"})
_CURES = {
    "auth": "check the key in .env",
    "billing": "check the balance on the provider's billing page",
    "bad_request": "check the model's name, base_url and extra",
}


class Change(msgspec.Struct, frozen=True):
    """What to say about it: the model's state is another one now. The text lacks the model's name."""

    level: Level
    text: str


class Breaker:
    """Of one model. `cause` is the kind that last stood against asking.

    `counts` holds every outcome that was ever recorded; whoever reads the answers adds what was wrong with them (truncated too).
    """

    def __init__(self) -> None:
        self.state: State = "closed"
        self.cause: Outcome | None = None
        self.counts: Counter[str] = Counter()
        self._failures: deque[int] = deque(maxlen=TRIP_FAILURES)
        self._not_before = 0
        """Open or stopped: the next probe."""
        self._pause = FIRST_PAUSE_NS
        self._told = 0
        """The server's own word when it may be asked again."""
        self._told_pause = FIRST_PAUSE_NS
        """For a rate limit without a time."""
        self._probing = False

    def may(self, now: int) -> bool:
        """Whether a call may be begun; while half-open, only one at a time."""
        self._mend(now)
        return self._stands(now) and now >= self._told

    def patience_ns(self, now: int) -> int:
        """How long the server itself asked us to wait, where nothing else stands against asking; 0: not at all."""
        return max(0, self._told - now) if self._stands(now) else 0

    def _mend(self, now: int) -> None:
        """A clock that was set back makes nobody wait longer than the longest wait there is."""
        self._told = min(self._told, now + int(LONGEST_PATIENCE_S * NS_PER_S))
        self._not_before = min(self._not_before, now + max(STOPPED_NS, LONGEST_PAUSE_NS))

    def why(self, now: int) -> str:
        """Why it may not be asked; empty: it may."""
        if self.may(now):
            return ""
        if self._stands(now):
            return f"{self.cause}: the server asked for patience, {_span(self._told - now)} more"
        if self._probing:
            return f"{self.cause}: a probe is under way"
        word = "stopped" if self.state == "stopped" else "paused"
        return f"{word} after {self.cause}; next try in {_span(max(self._not_before, self._told) - now)}"

    def begin(self, now: int) -> None:
        """A call is begun: while half-open, no other one before its outcome is recorded or it is dropped."""
        assert self.may(now), "asked against the breaker"
        self._probing = self.state != "closed"

    def drop(self) -> None:
        """The call begun ended without an outcome: it was cancelled."""
        self._probing = False

    def record(self, outcome: Outcome, now: int, retry_after_s: float | None) -> Change | None:
        """Take note of how a call ended."""
        self.counts[outcome] += 1
        self._probing = False
        if outcome in _STOPPING:
            return self._stop(outcome, now)
        if outcome != "rate_limit" and outcome not in _TRIPPING:
            return self._close()
        told = retry_after_s is not None and retry_after_s > 0
        if retry_after_s is not None and told:
            self._told = max(self._told, now + int(min(retry_after_s, LONGEST_PATIENCE_S) * NS_PER_S))
        if self.state == "stopped":
            self._not_before = now + STOPPED_NS
            return None
        if outcome in _TRIPPING:
            return self._trip(outcome, now)
        self._slow_down(now, told=told)
        return None

    def _stands(self, now: int) -> bool:
        return self.state == "closed" or (now >= self._not_before and not self._probing)

    def _stop(self, kind: Outcome, now: int) -> Change | None:
        known = self.state == "stopped" and self.cause == kind
        self.state, self.cause, self._not_before = "stopped", kind, now + STOPPED_NS
        if known:
            return None
        return Change(Level.ERROR, f"stopped after {kind}: {_CURES[kind]}; it is tried again once an hour")

    def _trip(self, kind: Outcome, now: int) -> Change | None:
        self._failures.append(now)
        self.cause = kind
        if self.state == "closed":
            if len(self._failures) < TRIP_FAILURES or now - self._failures[0] > TRIP_WINDOW_NS:
                return None
            self.state, self._pause = "open", FIRST_PAUSE_NS
            self._not_before = max(now + self._pause, self._told)
            pause = _span(self._not_before - now)
            return Change(Level.WARNING, f"paused for {pause}: {TRIP_FAILURES} failures within 10 minutes, {kind} last")
        self._pause = min(2 * self._pause, LONGEST_PAUSE_NS)
        self._not_before = max(now + self._pause, self._told)
        return None

    def _slow_down(self, now: int, *, told: bool) -> None:
        """The server is there, and busy with others: neither a failure nor the end of one."""
        if self.state == "closed":
            self.cause = "rate_limit"
        if not told:
            self._told = max(self._told, now + self._told_pause)
            self._told_pause = min(2 * self._told_pause, LONGEST_PAUSE_NS)

    def _close(self) -> Change | None:
        """It answered, be it nonsense."""
        self._told_pause = FIRST_PAUSE_NS
        if self.state == "closed":
            return None
        self._failures.clear()
        self.state, self._pause, self._not_before = "closed", FIRST_PAUSE_NS, 0
        return Change(Level.INFO, f"answers again; it had been left alone after {self.cause}")


def _span(ns: int) -> str:
    seconds = max(0, -(-ns // NS_PER_S))
    return f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"
