"""REST against what the sockets told: frozen sockets, lost changes, and a word of a market in which nothing happens.

It asks `POST /books` (`polymarket.md` 2.2, 500 in 10 s) for one token of each market and compares. It refuses to know sockets:
what is wrong is told to the market's shard.

A look at a seeing market ends in one of four ways. *Stale*: REST's book is older than our newest event; counted, never believed.
*Moved on*: the socket told something newer meanwhile; nothing to say. *Agrees*: same top, and no level has changed since the look
before while the socket was silent; this is a word of the venue, and told as `TopReported` without a time: the core takes that as a
sign of life, measures no lag by it, and cannot be misled by it, since its own top is the same. *Differs*: looked at again after
`SECOND_LOOK_S`; if the socket has caught up by then, nothing was wrong; if not, the market is lost, or frozen.

Agreement forgives `SAME_NS` of age, since two clocks of the venue may stamp one change; a difference forgives nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from llm_maker.core.events import BookSnapshot, TopReported
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.venues.polymarket.data.link import Line
from llm_maker.venues.polymarket.data.shard import Shard
from llm_maker.venues.polymarket.data.tracks import SAME_NS, Suspicion, Track, top_of
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.venues.polymarket.rest import Clob

BEAT_S = 2.0
SECOND_LOOK_S = 2.0
WORD_S = 4.0
"""A market that was silent for so long is told to agree; well below the core's limit of 10 s without any word."""
BOOK_GRACE_S = 3.0
"""What a fresh socket has to bring its first books, before REST is asked for them."""
BATCH = 20
"""Books in one request: what is parsed in one go stays within a few milliseconds."""
MOST = 200
"""Looks in one beat."""
PROBE = 10
"""Markets of a silent socket that are looked at."""
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class Asked:
    """How a market stood when REST was asked."""

    __slots__ = ("books", "count", "link", "track", "venue_ts")

    def __init__(self, shard: Shard, track: Track) -> None:
        self.track, self.link = track, shard.link
        self.venue_ts, self.count, self.books = track.venue_ts, track.count, track.books


class BookCheck:
    """Two loops: looks on a schedule, and books that the core asked for. `homes`: every market's shard."""

    def __init__(self, clob: Clob, line: Line, homes: Mapping[str, Shard]) -> None:
        self._clob, self._line, self._homes = clob, line, homes
        self._wire = Wire(())
        self._wanted: dict[str, None] = {}
        self._asked = asyncio.Event()
        self._cursor = 0
        self._owed = 0.0

    def add(self, instrument: Instrument) -> None:
        self._wire.add(instrument)

    def want(self, instrument_id: str) -> None:
        """The core asks for a book; once at a time for a market."""
        self._wanted[instrument_id] = None
        self._asked.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_around())
            group.create_task(self._serve())

    # What the core asked for.

    async def _serve(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._wanted:
                names = list(self._wanted)[:BATCH]
                asked = self._ask(name for name in names if self._answerable(name))
                for name, book in (await self._books(asked)).items():
                    self._answer(asked[name], book)
                for name in names:
                    self._wanted.pop(name, None)

    def _answerable(self, name: str) -> bool:
        """A book without a living socket behind it would be trusted and never change again."""
        shard = self._homes.get(name)
        if shard is None or shard.link is None or shard.tracks[name].frozen:
            return False
        age = self._line.pace.now() - shard.link.opened_ns
        return shard.tracks[name].live or age >= self._line.ns(BOOK_GRACE_S)

    def _answer(self, asked: Asked, book: BookSnapshot) -> None:
        shard, track = self._still(asked)
        if shard is None or track.books != asked.books or track.frozen:
            return
        now = self._line.pace.now()
        if not track.live:
            shard.telling.heal(track, book, now, by_rest=True)
        elif book.venue_ts < asked.venue_ts:
            self._line.count("stale_rest")
        elif book.venue_ts > asked.venue_ts:
            shard.telling.update(track, book)
        elif track.count == asked.count:
            # Nothing has changed since the gap, and by its time alone the core could not see that the book holds all of it.
            shard.telling.replace(track, book, now, "book read again")

    # Looks on a schedule.

    async def _look_around(self) -> None:
        while True:
            await self._line.pace.sleep(BEAT_S)
            names = self._due()[:MOST]
            for start in range(0, len(names), BATCH):
                asked = self._ask(names[start : start + BATCH])
                for name, book in (await self._books(asked)).items():
                    self._judge(asked[name], book)

    def _due(self) -> list[str]:
        """Second looks, silent sockets, markets that REST alone spoke of, and the next few of all in turn."""
        line, now = self._line, self._line.pace.now()
        due: dict[str, None] = {}
        newest = 0
        for shard in dict.fromkeys(self._homes.values()):
            if shard.link is None:
                continue
            newest = max(newest, shard.link.data_ns)
            seeing = {name: track for name, track in shard.tracks.items() if track.live}
            for name, track in seeing.items():
                if track.rest_count == track.count or (track.suspicion is not None and now >= track.suspicion.again_ns):
                    due[name] = None
            frozen_ns = line.ns(line.settings.frozen_s)
            if now - shard.link.data_ns >= frozen_ns and now - shard.link.probed_ns >= frozen_ns // 3:
                shard.link.probed_ns = now
                due |= dict.fromkeys(sorted(seeing, key=lambda name: -seeing[name].heard_ns)[:PROBE])
        self._owed += len(self._homes) * BEAT_S / line.settings.book_check_s
        if now - newest >= line.ns(WORD_S):
            self._owed = max(self._owed, 3.0)
        due |= dict.fromkeys(self._turn())
        return list(due)

    def _turn(self) -> list[str]:
        names = list(self._homes)
        found = []
        for _ in names:
            if self._owed < 1.0:
                break
            self._cursor = (self._cursor + 1) % len(names)
            shard = self._homes[names[self._cursor]]
            track = shard.tracks[names[self._cursor]]
            if shard.link is not None and track.live and track.suspicion is None:
                self._owed -= 1.0
                found.append(names[self._cursor])
        self._owed = min(self._owed, len(names))
        return found

    def _judge(self, asked: Asked, book: BookSnapshot) -> None:
        shard, track = self._still(asked)
        if shard is None or not track.live or asked.books != track.books:
            return
        if track.bid is None or track.ask is None:
            self._line.count("unverified")
            return
        levels = hash((book.bids, book.asks))
        moved = track.looked is not None and track.looked[0] == track.count and track.looked[1] != levels
        agrees = top_of(track, book) == (track.bid, track.ask) and not moved
        if book.venue_ts < (asked.venue_ts - SAME_NS if agrees else asked.venue_ts):
            self._line.count("stale_rest")
            return
        if agrees:
            self._agreed(track, levels)
        elif track.count == asked.count or book.venue_ts > track.venue_ts:
            self._differs(shard, track, book)

    def _agreed(self, track: Track, levels: int) -> None:
        track.suspicion, track.looked = None, (track.count, levels)
        now = self._line.pace.now()
        if now - track.heard_ns >= self._line.ns(WORD_S):
            self._line.count("words")
            self._homes[track.instrument.id].owner.emit(TopReported(track.instrument.id, track.bid, track.ask, 0))

    def _differs(self, shard: Shard, track: Track, book: BookSnapshot) -> None:
        now, line, first = self._line.pace.now(), self._line, track.suspicion
        if first is None or (track.count != first.count and track.venue_ts >= first.venue_ts):
            track.suspicion = Suspicion(book.venue_ts, track.count, now + line.ns(SECOND_LOOK_S))
            return
        assert shard.link is not None
        silent = now - max(track.heard_ns, shard.link.opened_ns)
        told, shown = (track.bid, track.ask), top_of(track, book)
        words = f"top {told} here, {shown} at REST" if told != shown else f"top {told}, levels below it moved at REST"
        if silent >= line.ns(line.settings.frozen_s):
            shard.freeze(track, f"silent for {silent / NS_PER_S:.0f}s while the market moved: {words}")
        else:
            line.count("rest_mismatch")
            shard.telling.replace(track, book, now, f"REST shows another book: {words}")
            shard.renew(f"a change of {track.instrument.id} never came")

    # Asking.

    def _ask(self, names: Iterable[str]) -> dict[str, Asked]:
        return {name: Asked(self._homes[name], self._homes[name].tracks[name]) for name in names if name in self._homes}

    def _still(self, asked: Asked) -> tuple[Shard | None, Track]:
        """The market's shard, if market and socket are the ones that were asked about."""
        name = asked.track.instrument.id
        shard = self._homes.get(name)
        same = shard is not None and shard.tracks.get(name) is asked.track and shard.link is asked.link
        return (shard if same else None), asked.track

    async def _books(self, asked: Mapping[str, Asked]) -> dict[str, BookSnapshot]:
        """REST's books by market; what is absent could not be had."""
        if not asked:
            return {}
        body = [{"token_id": each.track.instrument.token_ids[0]} for each in asked.values()]
        reply = await self._clob.public("POST", "/books", body=body)
        if not reply.ok:
            self._line.count("rest_failed")
            return {}
        try:
            raws = _RAWS.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._line.count("rest_failed")
            return {}
        found: dict[str, BookSnapshot] = {}
        for raw in raws:
            for event in self._wire.parse(_as_message(bytes(raw))):
                # A tick that REST tells is left to the socket: REST may be stale, and orders at an old tick are refused.
                if isinstance(event, BookSnapshot) and event.instrument in asked:
                    found[event.instrument] = event
        self._line.count("rest_missing", len(asked) - len(found))
        return found


def _as_message(raw: bytes) -> bytes:
    """A book of REST as the message a socket would send; it lacks the word for what it is."""
    body = raw.strip()
    return b'{"event_type":"book",' + body[1:] if body.startswith(b"{") and b'"event_type"' not in body[:40] else body
