"""Polymarket's public market data as a port: books, changes and prints of up to thousands of tokens, over several sockets.

Beside it `link` is one connection, `shard` the markets on one, `tracks` what was told of each, `bookcheck` what REST says of them.
This file shares the markets out, and says when the venue as a whole is up or down.

Frames are parsed where they come in and told at once. Custom features of the channel are off, since a `best_bid_ask` may come
before the change it tells of and would be a false gap; `market_resolved` is one of them: that a market has ended is discovery's
to tell.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from llm_maker.core.commands import Command, RequestSnapshot
from llm_maker.core.events import Event, FeedLost, VenueDown, VenueUp
from llm_maker.core.values import Instrument
from llm_maker.port import Emit
from llm_maker.venues.net import Backoff, Pace, Socket, SocketClosed
from llm_maker.venues.polymarket.data.bookcheck import BookCheck
from llm_maker.venues.polymarket.data.link import FeedSettings, Line, Say, Tap
from llm_maker.venues.polymarket.data.shard import Shard, wire_counts
from llm_maker.venues.polymarket.rest import Clob

__all__ = ["Feed", "FeedSettings"]

START_S = 5.0
"""Nothing heard for so long after the start: the core is told why there is no market."""
KNOCK_S, FIRST_WAIT_S = 2.0, 1.0
"""Without a market for so long, the host is tried all the same; the first wait after a try that failed."""
SAY_S = 60.0
"""Between two warnings of the same trouble."""


class Feed:
    """The market data port. Markets may be added and removed before and while it runs.

    A tap gets every frame that is acted on, in the order it is acted on: while one socket replaces another, frames of the new one
    that repeat the old one's are left out, so that a tape tells everything once.
    """

    name = "polymarket"

    def __init__(
        self,
        url: str,
        clob: Clob,
        pace: Pace,
        settings: FeedSettings,
        *,
        say: Say,
        tap: Tap | None = None,
        shows_own: bool = False,
    ) -> None:
        assert settings.assets_per_socket >= 2, "a market has two tokens"
        self._line = Line(
            url, pace, settings, dict.fromkeys(("frames", "reconnects", "frozen", "half_open", "stale_rest"), 0), say, tap
        )
        self._host = urlsplit(url).netloc
        self._shows_own = shows_own
        self._shards: list[Shard] = []
        self._homes: dict[str, Shard] = {}
        self._check = BookCheck(clob, self._line, self._homes)
        self._group: asyncio.TaskGroup | None = None
        self._up = False
        self._told_down = ""
        self._last_trouble = ""
        self._said_ns: int | None = None
        self._trouble = False
        self.emit: Emit = _nobody

    @property
    def counters(self) -> dict[str, int]:
        """Since the start; `markets`, `sockets` and `connected` are of now."""
        found = dict(self._line.counts)
        for shard in self._shards:
            if shard.link is not None:
                for name, number in wire_counts(shard.link.wire).items():
                    found[name] = found.get(name, 0) + number
        peopled = [shard for shard in self._shards if shard.tracks]
        found |= {"markets": len(self._homes), "sockets": len(peopled)}
        return found | {"connected": sum(shard.link is not None for shard in peopled)}

    def sick(self) -> str:
        """Why not every market can be seen, in one line; empty while each socket lives. Meant to starve the heartbeat."""
        return next((why for shard in self._shards if (why := shard.sick())), "")

    def add(self, instrument: Instrument) -> None:
        """A market to follow, or new rules of one that is followed."""
        home = self._homes.get(instrument.id)
        if home is None:
            limit = self._line.settings.assets_per_socket - len(instrument.token_ids)
            home = next((shard for shard in self._shards if shard.assets <= limit), None) or self._new_shard()
            self._homes[instrument.id] = home
        home.add(instrument)
        self._check.add(instrument)

    def remove(self, instrument_id: str) -> None:
        """Nothing is told of it from now on; one that is not followed is none of ours."""
        home = self._homes.pop(instrument_id, None)
        if home is not None:
            home.remove(instrument_id)

    def execute(self, command: Command) -> None:
        """`RequestSnapshot` of a market that a living socket follows; all else is for others."""
        if isinstance(command, RequestSnapshot) and command.instrument in self._homes:
            self._check.want(command.instrument)

    def flush(self) -> None:
        """Nothing is gathered here."""

    def start_afresh(self, reason: str) -> None:
        """Every socket anew, every book again: what was told has been lost on its way to the core."""
        for shard in self._shards:
            if shard.link is not None:
                shard.fall(reason)

    async def run(self, emit: Emit) -> None:
        """Tell what happens until cancelled."""
        self.emit = emit
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for shard in self._shards:
                    group.create_task(shard.run())
                group.create_task(self._check.run())
                group.create_task(self._knock())
                await self._line.pace.sleep(START_S)
                if not self._up and not self._told_down:
                    none = "no book has come yet" if self._homes else "no market is known yet"
                    self._tell_down(self._last_trouble or self.sick() or none)
        finally:
            self._group, self.emit = None, _nobody

    async def _knock(self) -> None:
        """Until there is a market nothing is connected; whether the host can be reached is told all the same."""
        pace, settings = self._line.pace, self._line.settings
        backoff = Backoff(FIRST_WAIT_S, settings.backoff_max_s)
        await pace.sleep(KNOCK_S)
        while not self._homes:
            try:
                socket = await Socket.open(self._line.url, pace, settings.connect_s / 2)
            except SocketClosed as why:
                self._line.count("connect_failed")
                self.unreachable(str(why))
                await pace.sleep(backoff.next())
            else:
                self.reachable()
                await socket.close()
                return

    def _new_shard(self) -> Shard:
        shard = Shard(len(self._shards) + 1, self, self._line)
        self._shards.append(shard)
        if self._group is not None:
            self._group.create_task(shard.run())
        return shard

    # What the shards tell.

    def came_up(self) -> None:
        """A book is about to be told."""
        if not self._up:
            self._up, self._told_down = True, ""
            self.emit(VenueUp(self.name, snapshots=True, shows_own=self._shows_own))

    def fell(self, shard: Shard, seeing: tuple[str, ...], reason: str) -> None:
        """One socket's markets are lost; with the last one, the venue is."""
        self._line.say("warning", f"market data socket {shard.number} of {self._host}: {reason}; connecting again")
        if self._up and not any(each.link is not None for each in self._shards):
            self._up = False
            self._tell_down(reason)
        elif self._up and seeing:
            self.emit(FeedLost(seeing, reason))

    def unreachable(self, reason: str) -> None:
        """A try to connect failed: said at once, then once a minute."""
        self._last_trouble = reason
        now = self._line.pace.now()
        if self._said_ns is None or now - self._said_ns >= self._line.ns(SAY_S):
            self._said_ns, self._trouble = now, True
            self._line.say("warning", f"market data: {self._host} cannot be reached: {reason}; trying on")

    def reachable(self) -> None:
        if self._trouble:
            self._trouble = False
            self._line.say("info", f"market data: {self._host} is reached again")

    def _tell_down(self, reason: str) -> None:
        self._told_down = reason
        self.emit(VenueDown(self.name, reason))


def _nobody(event: Event) -> None:
    """Before the port runs, and after."""
