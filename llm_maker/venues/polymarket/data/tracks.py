"""What was told of each market of a shard, and what of a frame is still to be told.

It knows the order that the core needs: a book first, then its changes, each once, and none older than what was told. It refuses to
know sockets: a shard says which frames count, and when sockets are being exchanged.
"""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    Event,
    FeedLost,
    InstrumentListed,
    MarketResolved,
    TopReported,
    TradePrinted,
)
from llm_maker.core.values import NS_PER_MS, NS_PER_S, Instrument
from llm_maker.venues.polymarket.data.link import Line

FRESH_NS = 500 * NS_PER_MS
"""A first book that is older tells of a quiet market, not of a late feed: it is told without its time."""
SAME_NS = NS_PER_S
"""What two clocks of the venue may differ by: a book older than this is stale."""
HELD_LIMIT = 512


class Listener(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None: ...
    def came_up(self) -> None:
        """A book is about to be told."""
        ...


class Suspicion:
    """REST showed another book than we told: how it stood at the first look."""

    __slots__ = ("again_ns", "count", "venue_ts")

    def __init__(self, venue_ts: int, count: int, again_ns: int) -> None:
        self.venue_ts, self.count, self.again_ns = venue_ts, count, again_ns


class Track:
    """One market: what was told of it last. `plain`: seeing, and no socket is being exchanged, so events pass as they come."""

    __slots__ = (
        "ask", "bid", "books", "count", "floor", "frozen", "heard_ns", "held", "instrument", "live", "looked", "noted", "plain",
        "rest_count", "suspicion", "told", "trade_floor", "trade_ts", "venue_ts",
    )  # fmt: skip

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.venue_ts = self.trade_ts = 0
        """Newest venue time told, of the book and of prints."""
        self.bid: int | None = None
        self.ask: int | None = None
        """Best prices as told last: 0 and the payout mean an empty side; None: not told."""
        self.count = self.books = 0
        """Book events of the socket, and snapshots from anywhere."""
        self.heard_ns = 0
        """When the socket last spoke of its book."""
        self.live = self.plain = self.frozen = False
        self.rest_count = -1
        """`count` when REST, not the socket, ended the blindness: while it stays so, REST alone speaks of this market."""
        self.held: list[BookDelta] = []
        self.noted: dict[Event, int] | None = None
        """While a successor warms up: what was told, and how often."""
        self.told: dict[Event, int] | None = None
        """After the exchange, until it has caught up: what the successor must not tell again."""
        self.floor = self.trade_floor = 0
        """Times that the successor's events must reach until then."""
        self.suspicion: Suspicion | None = None
        self.looked: tuple[int, int] | None = None
        """`count` and a hash of the levels at REST's last look."""

    def blind(self) -> None:
        self.live = self.plain = False
        self.rest_count = -1
        self.forget()
        self.told, self.noted, self.held = None, None, []

    def forget(self) -> None:
        """What REST showed is no longer comparable."""
        self.suspicion = self.looked = None

    def note(self) -> None:
        """From now on remember what is told: the successor will tell it too."""
        self.noted, self.plain = {}, False

    def unnote(self) -> None:
        """The successor came to nothing."""
        self.noted, self.plain = None, self.live and self.told is None

    def change_over(self) -> None:
        """From now on the successor speaks."""
        self.told, self.floor, self.trade_floor, self.noted = self.noted, self.venue_ts, self.trade_ts, None

    def settle(self) -> None:
        """The successor has caught up."""
        self.told, self.plain = None, self.live and self.noted is None


class Telling:
    """The markets of one shard and the way of their events to the core. `noting`: a successor of the socket is warming up."""

    def __init__(self, owner: Listener, line: Line) -> None:
        self._owner, self._line = owner, line
        self.tracks: dict[str, Track] = {}
        self.noting = False

    def deliver(self, event: Event, at: int) -> bool:
        """False: it was told before."""
        if type(event) is not BookDelta:
            return self._other(event, at)
        track = self.tracks.get(event.instrument)
        if track is None:
            return True
        if not track.plain and not self._passes(track, event):
            return not track.live
        venue_ts = event.venue_ts
        track.count += 1
        track.heard_ns, track.bid, track.ask = at, event.best_bid, event.best_ask
        if venue_ts >= track.venue_ts:
            track.venue_ts = venue_ts
        else:
            self._line.count("out_of_order")
        self._owner.emit(event)
        return True

    def _other(self, event: Event, at: int) -> bool:
        if isinstance(event, FeedLost):
            ours = tuple(name for name in event.instruments if name in self.tracks)
            if ours:
                self._line.count("damaged")
                self._owner.emit(event if ours == event.instruments else FeedLost(ours, event.reason))
            return True
        if isinstance(event, InstrumentListed):
            track = self.tracks.get(event.instrument.id)
            if track is not None and track.instrument != event.instrument:
                track.instrument = event.instrument
                self._owner.emit(event)
            return True
        if not isinstance(event, BookSnapshot | TradePrinted | TopReported | MarketResolved):
            return True
        track = self.tracks.get(event.instrument)
        if track is None:
            return True
        if isinstance(event, BookSnapshot):
            return self._book(track, event, at)
        if isinstance(event, TradePrinted):
            if track.live and not track.plain and not self._passes(track, event):
                return False
            track.trade_ts = max(track.trade_ts, event.venue_ts)
        self._owner.emit(event)
        return True

    def _book(self, track: Track, event: BookSnapshot, at: int) -> bool:
        if not track.live:
            track.heard_ns = at
            self.heal(track, event, at)
            return True
        if not track.plain and not self._passes(track, event):
            return False
        track.count += 1
        track.heard_ns = at
        if event.venue_ts <= track.venue_ts and at - event.venue_ts >= FRESH_NS:
            # A first book that comes after REST stood in for it, or is told twice: nothing new, and its age is no lag.
            self._line.count("duplicates")
            return False
        self._note_book(track, event)
        self._owner.emit(event)
        return True

    def _passes(self, track: Track, event: BookDelta | BookSnapshot | TradePrinted) -> bool:
        """Whether an event of a market that is blind, or whose socket is being exchanged, is to be told now."""
        if not track.live:
            if isinstance(event, BookDelta):
                self._hold(track, event)
            return False
        if track.told is not None and self._repeats(track, track.told, event):
            self._line.count("duplicates")
            return False
        if track.noted is not None:
            track.noted[event] = track.noted.get(event, 0) + 1
        return True

    def _repeats(self, track: Track, told: dict[Event, int], event: BookDelta | BookSnapshot | TradePrinted) -> bool:
        """Whether the socket before had told it."""
        times = told.get(event, 0)
        if times:
            told[event] = times - 1
            return True
        floor = track.trade_floor if isinstance(event, TradePrinted) else track.floor
        if event.venue_ts < floor or (event.venue_ts == floor and isinstance(event, BookSnapshot)):
            return True
        if event.venue_ts > floor and not isinstance(event, TradePrinted):
            track.settle()
        return False

    def _hold(self, track: Track, event: BookDelta) -> None:
        if len(track.held) >= HELD_LIMIT:
            del track.held[0]
        track.held.append(event)

    # Books of blind markets, and books of REST.

    def heal(self, track: Track, book: BookSnapshot, now: int, *, by_rest: bool = False) -> None:
        """A blind market's first book, then what changed since. An older one than was told is refused.

        The core takes only a book newer than its gap, and measures lag by its time: that of a quiet market, which did not
        change meanwhile, is therefore told without a time (0). Nothing is held there that it could be mixed up with.
        """
        if book.venue_ts < track.venue_ts - SAME_NS:
            self._line.count("stale_rest" if by_rest else "stale_book")
            return
        self._tell(track, book, now)
        track.live, track.frozen, track.rest_count = True, False, track.count if by_rest else -1
        track.plain = True
        if self.noting:
            track.note()
        held, track.held = track.held, []
        for event in held:
            if event.venue_ts > book.venue_ts:
                self.deliver(event, now)

    def replace(self, track: Track, book: BookSnapshot, now: int, reason: str) -> None:
        """A gap, closed at once by a book of REST."""
        self._owner.emit(FeedLost((book.instrument,), reason))
        self._tell(track, book, now)
        track.forget()

    def update(self, track: Track, book: BookSnapshot) -> None:
        """A book of REST newer than what was told; deltas told since are still held by the core where it has a gap."""
        self._owner.emit(book)
        self._note_book(track, book)

    def _tell(self, track: Track, book: BookSnapshot, now: int) -> None:
        self._owner.came_up()
        fresh = book.venue_ts > track.venue_ts and now - book.venue_ts < FRESH_NS
        self._owner.emit(book if fresh else replace(book, venue_ts=0))
        self._note_book(track, book)

    def _note_book(self, track: Track, book: BookSnapshot) -> None:
        track.books += 1
        if book.venue_ts >= track.venue_ts or not track.live:
            track.bid, track.ask = top_of(track, book)
        track.venue_ts = max(track.venue_ts, book.venue_ts)


def top_of(track: Track, book: BookSnapshot) -> tuple[int, int]:
    """Best prices in the words of a delta: 0 and the payout for an empty side."""
    return (book.bids[0][0] if book.bids else 0, book.asks[0][0] if book.asks else track.instrument.payout)
