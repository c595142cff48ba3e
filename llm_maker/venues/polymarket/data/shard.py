"""A shard: the markets that share one socket, told to the core without a break while sockets come and go under them.

It owns reconnects and the change from one socket to the next (make before break), and knows per market what was told last. It
refuses to know REST, other shards, and what a gap means.

A socket's life. A fresh one opens with each token's book; a market is *blind* until that came, what changes meanwhile is held and
laid over it. While a successor warms up, everything told is noted; once each seeing market's book has come there, the successor's
frames are told in order, less what the old one had told already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from llm_maker.core.events import BookSnapshot, Event, FeedLost
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.venues.net import Backoff, Socket, SocketClosed
from llm_maker.venues.polymarket.data.link import Line, Link
from llm_maker.venues.polymarket.data.tracks import Listener, Telling, Track
from llm_maker.venues.polymarket.data.wire import Wire

BUFFER_LIMIT = 20_000
"""Frames of a successor that is not ready yet."""
_FIRST_S = 0.5
_IDLE_S = 3600.0
_CATCH_UP_S, _LINGER_S = 2.0, 0.5
"""What an old socket is waited for at most that has not told what the successor's books hold, and after it has."""
_PATIENCE = 2
"""Successors given up because a book stayed out, before one is taken without it."""


class Owner(Listener, Protocol):
    """What a shard asks of the feed."""

    def fell(self, shard: Shard, seeing: tuple[str, ...], reason: str) -> None:
        """The socket is gone; these markets had books on it."""
        ...

    def unreachable(self, reason: str) -> None: ...
    def reachable(self) -> None: ...


class Shard:
    """Some markets on one socket; `run` keeps it connected until cancelled."""

    def __init__(self, number: int, owner: Owner, line: Line) -> None:
        self.number, self.owner, self.line = number, owner, line
        self.telling = Telling(owner, line)
        self.tracks = self.telling.tracks
        self.link: Link | None = None
        self.reason = "not connected yet"
        self._successor: Link | None = None
        self._buffer: list[tuple[bytes, list[Event]]] = []
        self._books: dict[str, int] = {}
        """Market -> venue time of its first book on the successor; `_missing` are without one."""
        self._missing: set[str] = set()
        self._ready = asyncio.Event()
        self._peopled = asyncio.Event()
        self._nudge = asyncio.Event()
        self._doubt = self._last_why = ""
        self._given_up = 0
        self._lived = False
        self._backoff = Backoff(_FIRST_S, line.settings.backoff_max_s, number)
        self._renew_backoff = Backoff(_FIRST_S, line.settings.backoff_max_s, number)
        self._stagger = Backoff(1.0, 1.0, number)

    @property
    def assets(self) -> int:
        return sum(len(track.instrument.token_ids) for track in self.tracks.values())

    def sick(self) -> str:
        """Empty while connected, or while there is nothing to be connected for."""
        return f"market data socket {self.number}: {self.reason}" if self.tracks and self.link is None else ""

    # Markets.

    def add(self, instrument: Instrument) -> None:
        """A new market, or new rules of a known one."""
        known = self.tracks.get(instrument.id)
        if known is not None:
            if known.instrument != instrument:
                self.rule(known, instrument)
            return
        self.tracks[instrument.id] = Track(instrument)
        self._peopled.set()
        for link in self._links():
            link.wire.add(instrument)
            link.subscribe(instrument.token_ids)

    def rule(self, track: Track, instrument: Instrument) -> None:
        track.instrument = instrument
        for link in self._links():
            link.wire.add(instrument)

    def remove(self, instrument_id: str) -> None:
        track = self.tracks.pop(instrument_id)
        self._missing.discard(instrument_id)
        for link in self._links():
            link.unsubscribe(track.instrument.token_ids)
        if not self.tracks:
            self._peopled.clear()
            for link in self._links():
                link.stop()
                self._retire(link)
            self.link = self._successor = None
            self.reason = "not connected yet"
        self._check_ready()

    def _links(self) -> list[Link]:
        return [link for link in (self.link, self._successor) if link is not None]

    # Connections.

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renewals(group))
            while True:
                await self._peopled.wait()
                link = await self._dial(group)
                if not self.tracks:
                    link.stop()
                    continue
                self._adopt(link)
                while (link_now := self.link) is not None:
                    await link_now.ended.wait()
                    if self.link is link_now:
                        self.fall(link_now.reason)

    async def _dial(self, group: asyncio.TaskGroup) -> Link:
        """Connect, however long it takes, never faster than the back-off allows."""
        if self._lived:
            await self.line.pace.sleep(self._backoff.next())
        while True:
            try:
                return await self._open(group)
            except SocketClosed as why:
                self.reason = str(why)
                self.line.count("connect_failed")
                self.owner.unreachable(self.reason)
            await self.line.pace.sleep(self._backoff.next())

    async def _open(self, group: asyncio.TaskGroup) -> Link:
        line = self.line
        socket = await Socket.open(line.url, line.pace, line.settings.connect_s)
        link = Link(socket, Wire(track.instrument for track in self.tracks.values()), line, self._take)
        link.quiet_pongs = self._on_quiet_pongs
        share = 0.5 + self._stagger.next() / 2  # 3/4 to all of it: shards do not change together
        link.renew_ns = link.opened_ns + line.ns(line.settings.reconnect_s * share)
        link.subscribe([token for track in self.tracks.values() for token in track.instrument.token_ids], first=True)
        self.owner.reachable()
        link.start(group)
        return link

    def _adopt(self, link: Link) -> None:
        """A first socket, or one after a loss: every market is blind."""
        if self._lived:
            self.line.count("reconnects")
        self._lived = True
        self._see_through(link)

    def _see_through(self, link: Link) -> None:
        self.link, self.reason = link, ""
        link.take = self._take
        for track in self.tracks.values():
            track.frozen = False
        self._nudge.set()

    def fall(self, reason: str) -> None:
        """The socket is lost, or given up: every market of it is, at once; a successor under way takes over."""
        link = self.link
        assert link is not None, "nothing to fall from"
        link.stop()
        self._retire(link)
        self.link, self.reason, self._doubt, self.telling.noting = None, reason, "", False
        if self.line.pace.now() - link.opened_ns > self.line.ns(self.line.settings.backoff_max_s):
            self._backoff.reset()
        seeing = tuple(name for name, track in self.tracks.items() if track.live)
        for track in self.tracks.values():
            track.blind()
        successor = self._successor if self._successor is not None and not self._successor.ended.is_set() else None
        self._successor = None
        if successor is not None:
            self._missing = set()
            self._adopt(successor)
        self.owner.fell(self, seeing, reason)
        if successor is not None:
            self._replay()

    def _retire(self, link: Link) -> None:
        """Keep what its parser counted."""
        for name, number in wire_counts(link.wire).items():
            self.line.count(name, number)

    # Make before break.

    def renew(self, reason: str) -> None:
        """Change to a new socket soon, without a gap where this one delivers."""
        if self.link is not None:
            self._doubt = self._doubt or reason
            self._nudge.set()

    def _on_quiet_pongs(self) -> None:
        self.renew("data comes, but no PONG")

    async def _renewals(self, group: asyncio.TaskGroup) -> None:
        earliest = 0
        while True:
            now = self.line.pace.now()
            due = now + self.line.ns(_IDLE_S)
            if self.link is not None:
                due = max(now if self._doubt else self.link.renew_ns, earliest)
            if self.link is not None and now >= due:
                doubt, self._doubt = self._doubt, ""
                if now - earliest > self.line.ns(4 * self.line.settings.backoff_max_s):
                    self._renew_backoff.reset()
                if not await self._exchange(self.link, group, doubt):
                    self._doubt = doubt or "the last try failed"
                earliest = self.line.pace.now() + self.line.ns(self._renew_backoff.next())
                continue
            self._nudge.clear()
            try:
                async with asyncio.timeout(self.line.pace.wall(min((due - now) / NS_PER_S, _IDLE_S))):
                    await self._nudge.wait()
            except TimeoutError:
                pass

    async def _exchange(self, old: Link, group: asyncio.TaskGroup, doubt: str) -> bool:
        """Open a successor, wait for its books, change over; False: it came to nothing and `old` goes on."""
        self.telling.noting = True
        for track in self.tracks.values():
            if track.live:
                track.note()
        why = await self._warm_up(old, group)
        if why and self.link is old and old.ended.is_set():
            self.fall(old.reason)
        if self.link is not old:  # what there is of a successor took over
            return True
        self.telling.noting = False
        successor, self._successor = self._successor, None
        if why or successor is None:
            self.line.count("exchanges_failed")
            if successor is not None:
                successor.stop()
            for track in self.tracks.values():
                track.unnote()
            if why != self._last_why:
                self.line.say("warning", f"market data socket {self.number} stays: its successor {why}")
            self._last_why = why
            return False
        self._change_over(old, successor)
        self._last_why = ""
        self.line.count("exchanges")
        self.line.say("info", f"market data socket {self.number} was exchanged: {doubt or 'planned'}")
        return True

    async def _warm_up(self, old: Link, group: asyncio.TaskGroup) -> str:
        """Why there is no successor to change to; empty where there is one."""
        try:
            link = await self._open(group)
        except SocketClosed as why:
            return f"could not connect: {why}"
        if self.link is not old:
            link.stop()
            return "came too late"
        self._buffer, self._books = [], {}
        self._missing = {name for name, track in self.tracks.items() if track.live}
        self._ready.clear()
        self._successor, link.take = link, self._keep
        self._check_ready()
        waiting = [asyncio.create_task(event.wait()) for event in (self._ready, link.ended, old.ended)]
        try:
            limit = self.line.pace.wall(self.line.settings.connect_s)
            await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if not self._missing:
            await self._catch_up(old, link)
        if link.ended.is_set():
            return f"ended: {link.reason}"
        if not self._missing or self._given_up >= _PATIENCE:
            self._given_up = 0
            return ""
        self._given_up += 1
        return f"had no book of {len(self._missing)} markets"

    async def _catch_up(self, old: Link, link: Link) -> None:
        """The successor's books may hold changes that the old socket is yet to tell: each shall be told as what it was."""
        pace, now = self.line.pace, self.line.pace.now
        limit = now() + self.line.ns(_CATCH_UP_S)
        while now() < limit and not link.ended.is_set() and self.link is old:
            books = self._books.items()
            if all(name not in self.tracks or self.tracks[name].venue_ts >= venue_ts for name, venue_ts in books):
                await pace.sleep(_LINGER_S)  # there may be more of the same millisecond
                return
            await pace.sleep(_LINGER_S / 5)

    def _keep(self, at: int, raw: bytes, events: list[Event]) -> None:
        """A frame of the successor, until it is changed to."""
        if len(self._buffer) >= BUFFER_LIMIT:
            assert self._successor is not None
            self._successor.reason = f"was not ready after {BUFFER_LIMIT} frames"
            self._successor.stop()
            return
        self._buffer.append((raw, events))
        if self._missing:
            for event in events:
                if type(event) is BookSnapshot:
                    self._missing.discard(event.instrument)
                    self._books.setdefault(event.instrument, event.venue_ts)
            self._check_ready()

    def _check_ready(self) -> None:
        if not self._missing:
            self._ready.set()

    def _change_over(self, old: Link, successor: Link) -> None:
        """One step: the old socket's last word is told, the new one's first that was not told yet follows."""
        old.stop()
        self._retire(old)
        lost = []
        for name, track in self.tracks.items():
            if name in self._missing:
                lost.append(name)
                track.blind()
            elif track.live:
                track.change_over()
            else:
                track.held = []
        self._missing = set()
        self._see_through(successor)
        if lost:
            self.owner.emit(FeedLost(tuple(lost), "no book on the new socket"))
        self._replay()

    def _replay(self) -> None:
        buffer, self._buffer = self._buffer, []
        now = self.line.pace.now()  # a tape's times never run back
        for raw, events in buffer:
            self._take(now, raw, events)

    # Events.

    def _take(self, at: int, raw: bytes, events: list[Event]) -> None:
        """Tell a frame's events. A tape gets it unless the socket before had told all of it."""
        told = False
        for event in events:
            told = self.telling.deliver(event, at) or told
        if self.line.tap is not None and (told or not events):
            self.line.tap(at, raw)

    def freeze(self, track: Track, reason: str) -> None:
        """The socket is silent of a market that moves: the whole socket goes if it is silent of all, else it is exchanged."""
        assert self.link is not None
        self.line.count("frozen")
        if self.line.pace.now() - self.link.data_ns >= self.line.ns(self.line.settings.frozen_s):
            self.fall(f"frozen: {reason}")
            return
        track.blind()
        track.frozen = True
        self.owner.emit(FeedLost((track.instrument.id,), f"frozen: {reason}"))
        self.renew(f"{track.instrument.id} is frozen")


def wire_counts(wire: Wire) -> dict[str, int]:
    """What a parser counted, by our names."""
    found = {"unknown_asset": wire.unknown_asset, "mirror_mismatch": wire.mirror_mismatch}
    found |= {"malformed": _total(wire.malformed.values()), "unknown": _total(wire.unknown.values())}
    return found


def _total(numbers: Iterable[int]) -> int:
    return sum(numbers)
