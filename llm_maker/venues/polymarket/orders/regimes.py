"""What the venue itself allows: restart, post-only, cancel-only, closed; met in replies, left by probes and by time.

- 425: RESTART. `GET /ok` is asked with back-off; when it answers, two minutes of POST_ONLY follow, then OPEN (`polymarket.md` 2.5).
- 503 `post_only_mode`: POST_ONLY for as long as the venue says.
- 503 cancel-only, 503 disabled, 401, 403: no question tells their end, so after a bounded wait (doubling to five minutes) it is
  OPEN again, on trial: until the venue has taken or properly refused an order, one order at a time is risked.
- a fault of our own: CLOSED until the daemon is started again.

Each change is told once. It refuses to know orders: what a reply means for them is `replies`' business.
"""

from __future__ import annotations

import asyncio

import msgspec

from llm_maker.core.events import RegimeChanged
from llm_maker.core.values import NS_PER_S, Regime
from llm_maker.port import Emit
from llm_maker.venues.net import Backoff, Pace, Reply
from llm_maker.venues.polymarket.rest import Clob

POST_ONLY_S = 120.0
"""After every restart (`polymarket.md` 2.5)."""
_LONGEST_S = 600.0
"""The longest post-only time that is believed."""
_LOOK_S = 1.0
"""How often the end of a wait is looked for."""


class Met(msgspec.Struct, frozen=True):
    """A regime that a reply speaks of; `seconds` where it says for how long."""

    regime: Regime
    seconds: float | None = None


def met(status: int, words: str, retry_after: float | None = None) -> Met | None:
    """The regime that a reply, or an entry of a batch, speaks of; None: it speaks of none."""
    if status == 425:
        return Met(Regime.RESTART)
    if status in (401, 403):
        return Met(Regime.CLOSED)
    lower = words.lower()
    if "post-only mode" in lower or "post_only_mode" in lower:
        return Met(Regime.POST_ONLY, retry_after)
    if "cancel-only" in lower:
        return Met(Regime.CANCEL_ONLY)
    return Met(Regime.CLOSED) if "trading is currently disabled" in lower else None


class Regimes:
    """The venue's regime now; `run` finds the way back."""

    def __init__(self, clob: Clob, pace: Pace, emit: Emit, name: str) -> None:
        self.regime = Regime.OPEN
        self.on_trial = False
        """It was shut and has answered no order since: risk one order at a time."""
        self._clob, self._pace, self._emit, self._name = clob, pace, emit, name
        self._until = 0
        self._shut = False
        self._left = asyncio.Event()
        self._probes = Backoff(2.0, 30.0)
        self._closures = Backoff(60.0, 300.0)

    def hinders(self, *, post_only: bool) -> str:
        """Why an order would not be taken now; empty: it may be sent."""
        if self.regime is Regime.OPEN or (self.regime is Regime.POST_ONLY and post_only):
            return ""
        return f"the venue is in {self.regime.value}"

    def meet(self, reply: Reply) -> None:
        """Learn from any reply of the venue's that is not OK."""
        if not reply.ok:
            self.told(met(reply.status, reply.error, reply.retry_after))

    def told(self, met: Met | None) -> None:
        """Enter a regime; the one we are in already only goes on."""
        if met is None or self._shut:
            return
        if met.regime is Regime.POST_ONLY:
            seconds = POST_ONLY_S if met.seconds is None else min(max(met.seconds, 1.0), _LONGEST_S)
            self._set(met.regime, seconds)
        elif met.regime is not self.regime:
            self.on_trial = True
            self._set(met.regime, 0.0 if met.regime is Regime.RESTART else self._closures.next())

    def answered(self) -> None:
        """An order was taken, or refused for what it is: the venue works."""
        if self.regime in (Regime.OPEN, Regime.POST_ONLY):
            self.on_trial = False
            self._probes.reset()
            self._closures.reset()

    def shut(self) -> None:
        """Our own fault: closed for good."""
        if not self._shut:
            self._shut = True
            self._set(Regime.CLOSED, 0.0)

    def _set(self, regime: Regime, seconds: float) -> None:
        self._until = self._pace.now() + round(seconds * NS_PER_S)
        if regime is not self.regime:
            self.regime = regime
            self._emit(RegimeChanged(self._name, regime))
        if regime is not Regime.OPEN:
            self._left.set()

    async def run(self) -> None:
        """Wait out what is met, for ever."""
        while True:
            await self._left.wait()
            self._left.clear()
            while self.regime is not Regime.OPEN and not self._shut:
                await self._wait_out()

    async def _wait_out(self) -> None:
        if self.regime is Regime.RESTART:
            await self._pace.sleep(self._probes.next())
            if (await self._clob.public("GET", "/ok")).ok and self.regime is Regime.RESTART:
                self._set(Regime.POST_ONLY, POST_ONLY_S)
            return
        left = (self._until - self._pace.now()) / NS_PER_S
        if left > 0:
            # In short steps, because the venue may say something else meanwhile.
            await self._pace.sleep(min(left, _LOOK_S))
        else:
            self._set(Regime.OPEN, 0.0)
