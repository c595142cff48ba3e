"""The venue as our dead man's switch: a beat every 5 s, and without one it cancels all of ours (`polymarket.md` 2.4).

Beats are sent only while `well` says so, on a connection of their own; a daemon that is not well starves it on purpose. The first
accepted beat arms it for every order of this API key, and nothing disarms it: ending means that all is canceled 10 to 15 s later.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Outcome, Pace, Reply
from llm_maker.venues.polymarket.rest import Clob

EVERY_S = 5.0
RETRY_S = 1.0
"""After a beat that was not accepted, and between two looks at `well` while starved."""
DEADLINE_S = 10.0
"""Without an accepted beat the venue cancels after this (its check runs every 5 s)."""
REQUEST_S = 3.0
_PATH = "/v1/heartbeats"
_MAX_ID = 200
Say = Callable[[Level, str], None]


class Pulse(StrEnum):
    BEATING = "beating"
    STARVED = "starved"
    """We keep it back: we are not well."""
    FAILING = "failing"
    """The venue does not accept it, or does not answer."""


class Heartbeat:
    """One task, one beat in flight at a time; survives every reply."""

    def __init__(
        self, clob: Clob, pace: Pace, well: Callable[[], str], say: Say, on_lost: Callable[[str], None] = lambda why: None
    ) -> None:
        """`clob` is the heartbeat's own (its connection is shared with nothing); `well`: empty, or why not.

        `on_lost` hears why when no beat was accepted in time, and "" when one is again: meanwhile the venue cancels what we place.
        """
        self._on_lost = on_lost
        self._clob, self._pace, self._well, self._say = clob, pace, well, say
        self._id = ""
        self._accepted_ns = 0
        self._alarmed = False
        self.pulse, self.why = Pulse.FAILING, "no beat yet"
        self.beats = self.missed = 0
        """Accepted ones, and requests that were not."""

    @property
    def state(self) -> str:
        """For the status: `beating`, `starved: why`, `failing: why`."""
        return self.pulse.value if self.pulse is Pulse.BEATING else f"{self.pulse.value}: {self.why}"

    async def run(self) -> None:
        """Beat until cancelled."""
        self._accepted_ns = self._pace.now()
        try:
            while True:
                began = self._pace.now()
                healthy = await self._turn()
                self._watch()
                spent = (self._pace.now() - began) / NS_PER_S
                await self._pace.sleep(max(EVERY_S - spent, 0.0) if healthy else RETRY_S)
        finally:
            await self._clob.close()

    async def _turn(self) -> bool:
        """Beat once where we are well; True if it was accepted."""
        why = self._well()
        if why:
            self._starve(why)
            return False
        reply = await self._send()
        expected = _expected_id(reply)
        if expected is not None and not self._well():
            # A rejected beat does not move the deadline: again at once with the id the venue wants.
            self._id = expected
            reply = await self._send()
        told = _told_id(reply)
        if told is None:
            self.missed += 1
            self.pulse, self.why = Pulse.FAILING, reply.error or "the reply names no id"
            return False
        self._id, self._accepted_ns = told, self._pace.now()
        self.beats += 1
        self._recover()
        return True

    async def _send(self) -> Reply:
        return await self._clob.private("POST", _PATH, body=msgspec.json.encode({"heartbeat_id": self._id}), timeout=REQUEST_S)

    def _starve(self, why: str) -> None:
        if self.pulse is not Pulse.STARVED and self.beats:
            # Before the first beat nothing is armed, and there is nothing to keep back.
            self._say(Level.ERROR, f"heartbeat kept back: {why}; the venue cancels all of ours within 15 s")
        self.pulse, self.why = Pulse.STARVED, why

    def _recover(self) -> None:
        if self._alarmed or (self.pulse is Pulse.STARVED and self.beats > 1):
            self._say(Level.INFO, "heartbeat accepted again")
        if self._alarmed:
            self._on_lost("")
        self._alarmed = False
        self.pulse, self.why = Pulse.BEATING, ""

    def _watch(self) -> None:
        late = self._pace.now() - self._accepted_ns > DEADLINE_S * NS_PER_S
        if late and self.pulse is Pulse.FAILING and not self._alarmed:
            self._alarmed = True
            self._say(Level.ERROR, f"no heartbeat accepted for {DEADLINE_S:g}s: {self.why}; the venue cancels all of ours")
            self._on_lost(self.why)


class _Told(msgspec.Struct):
    heartbeat_id: str


def _told_id(reply: Reply) -> str | None:
    """The id of an accepted beat; None: it was not accepted, or not in so many words."""
    return _id_in(reply.body) if reply.ok else None


def _expected_id(reply: Reply) -> str | None:
    """The id that the venue wants instead of ours."""
    return _id_in(reply.body) if reply.outcome is Outcome.REFUSED and reply.status == 400 else None


def _id_in(body: bytes) -> str | None:
    try:
        told = msgspec.json.decode(body, type=_Told).heartbeat_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told if 0 < len(told) <= _MAX_ID else None
