"""`record`: the public market data of a venue, as it comes, into a tape. No key, no order, no opinion.

What is chosen at the start stays what is recorded; a market that comes later belongs to the next tape.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_maker.config import Config
from llm_maker.core.commands import Level
from llm_maker.core.events import BookSnapshot, Event
from llm_maker.core.state import State
from llm_maker.keys import Secrets
from llm_maker.live import LiveVenue, live_clock
from llm_maker.runtime.tape import TapeWriter
from llm_maker.venues.polymarket.listing.survey import Failed
from llm_maker.venues.polymarket.listing.tape_header import header_from_instruments
from llm_maker.world import Refused

SOURCE = "recorded live from the venue's public market channel"
SURVEY_WAIT_S = 10.0


class Recording:
    """One recording under way; `lines` says how it stands."""

    def __init__(self, config: Config, out: Path, speed: float, say: Callable[[str], None]) -> None:
        if config.venue == "simulated":
            raise Refused("record needs a live venue: --venue polymarket")
        if out.exists():
            raise Refused(f"{out} is there already; a tape is never written over")
        if not out.parent.is_dir():
            raise Refused(f"{out.parent} is no folder")
        self.out, self._say = out, say
        self.clock = live_clock(config, speed)
        self.live = LiveVenue(config, Secrets({}), self.clock, speed, self._told, lambda: _NOTHING_HELD, tap=self._keep)
        self._writer: TapeWriter | None = None
        self._latest = 0
        self.books: set[str] = set()
        self.events = 0

    def _told(self, level: Level, code: str, text: str) -> None:
        self._say(f"{level.value}: {code}: {text}")

    def _keep(self, recv_ns: int, frame: bytes) -> None:
        if self._writer is not None:
            self._latest = max(self._latest, recv_ns)
            self._writer.write(self._latest, frame)

    def _hear(self, event: Event) -> None:
        self.events += 1
        if isinstance(event, BookSnapshot):
            self.books.add(event.instrument)

    async def run(self, duration: float | None, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
        """Until `duration` wall seconds have passed or Ctrl-C; raises `Refused` where no market can be chosen."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        try:
            instruments = await self._chosen(ended)
            if instruments:
                await self._record(instruments, ended, duration, progress)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            await self.live.close()
            if self._writer is not None:
                self._writer.close()
        return {
            "tape": str(self.out) if self._writer else None,
            "markets": len(instruments),
            "markets_heard": len(self.books),
            "frames": self._writer.frames if self._writer else 0,
            "bytes": self.out.stat().st_size if self._writer else 0,
        }

    async def _chosen(self, ended: asyncio.Event) -> list[Any]:
        """The markets of the first survey that works, or none once a person has had enough."""
        while not ended.is_set():
            candidates = await self.live.discovery.survey()
            if isinstance(candidates, Failed):
                self._say(f"warning: {candidates.why}; tried again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), self.live.pace.wall(SURVEY_WAIT_S))
                continue
            by_id = {c.id: c for c in candidates}
            chosen = [by_id[c.instrument].instrument for c in self.live.universe.rejudge(candidates, self.clock.now()) if c.chosen]
            if not chosen:
                raise Refused("no market passes market_selection; `llm-maker markets` tells why of each")
            return chosen
        return []

    async def _record(
        self, instruments: list[Any], ended: asyncio.Event, duration: float | None, progress: Callable[[int, int], None] | None
    ) -> None:
        self._writer = writer = TapeWriter(self.out, header_from_instruments(instruments, SOURCE))
        for instrument in instruments:
            self.live.feed.add(instrument)
        feed = asyncio.create_task(self.live.feed.run(self._hear), name="feed")
        began = time.monotonic()
        try:
            while not ended.is_set() and not feed.done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.5)
                passed = time.monotonic() - began
                if progress:
                    progress(writer.frames, 0)
                if duration is not None and passed >= duration:
                    break
        finally:
            feed.cancel()
            results = await asyncio.gather(feed, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


def _no_state() -> State:
    from llm_maker.core.params import Params, RiskParams

    return State("record", Params(risk=RiskParams(bankroll=0, max_order_cost=0)), "none", None)


_NOTHING_HELD = _no_state()


def record(
    config: Config,
    out: Path,
    duration: float | None,
    speed: float,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Record until Ctrl-C or `duration`; what was written."""
    return asyncio.run(Recording(config, out, speed, say).run(duration, progress))


async def _survey(config: Config, say: Callable[[str], None]) -> dict[str, Any]:
    clock = live_clock(config, 1.0)
    live = LiveVenue(
        config, Secrets({}), clock, 1.0, lambda level, code, text: say(f"{level.value}: {text}"), lambda: _NOTHING_HELD
    )
    try:
        candidates = await live.discovery.survey()
    finally:
        await live.close()
    if isinstance(candidates, Failed):
        raise Refused(f"the venue's listings cannot be read: {candidates.why}")
    choices = live.universe.rejudge(candidates, clock.now())
    rows = [{"market_id": c.instrument, "question": c.question, "chosen": c.chosen, "why": c.why} for c in choices]
    return {"surveyed": len(rows), "chosen": sum(c.chosen for c in choices), "markets": rows}


def survey(config: Config, say: Callable[[str], None]) -> dict[str, Any]:
    """One look at the venue's listings without a daemon: every candidate with why it is in or out."""
    return asyncio.run(_survey(config, say))
