"""The market data port against a small venue over real sockets: shards, silence, frozen sockets, REST, exchange without a break."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import WSMsgType, web

from llm_maker.core.book import Applied, Book
from llm_maker.core.commands import CancelOrder, RequestSnapshot
from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    FeedLost,
    InstrumentListed,
    TopReported,
    TradePrinted,
    VenueDown,
    VenueUp,
)
from llm_maker.core.values import NS_PER_MS, NS_PER_S, FixedGrid, Instrument, InstrumentId, Kind, Side
from llm_maker.runtime.clock import rehearsal_clock
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.data import bookcheck
from llm_maker.venues.polymarket.data.feed import Feed, FeedSettings
from llm_maker.venues.polymarket.rest import Clob

SPEED = 20.0
START_NS = 1_790_000_000 * NS_PER_S
OTHER = {"BUY": "SELL", "SELL": "BUY"}


def instrument(n, tick=100):
    return Instrument(
        id=InstrumentId(f"0xm{n}"),
        venue="polymarket",
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=6,
        grid=FixedGrid(tick),
        qty_step=10_000,
        min_qty=5_000_000,
        payout=10_000,
        token_ids=(f"{n}1", f"{n}2"),
    )


class Line:
    """The venue's end of one socket; `lag` wall seconds late."""

    def __init__(self, ws, lag):
        self.ws, self.lag = ws, lag
        self.assets, self.first = [], {}
        self.muted, self.silent = set(), False
        self.queue = asyncio.Queue()

    def send(self, message):
        due = asyncio.get_running_loop().time() + self.lag
        self.queue.put_nowait((due, message if isinstance(message, str) else json.dumps(message)))

    async def write(self):
        while True:
            due, text = await self.queue.get()
            await asyncio.sleep(max(due - asyncio.get_running_loop().time(), 0))
            await self.ws.send_str(text)


class Venue:
    """Books told over sockets and by REST; every way to misbehave is an attribute."""

    def __init__(self, pace):
        self.pace = pace
        self.bids, self.asks, self.stamps = defaultdict(dict), defaultdict(dict), {}
        self.lines, self.opened, self.subscriptions, self.rest_asked = [], [], [], []
        self.port = 0
        self.pongs, self.bookless = True, set()
        self.stale_rest, self.rest_status, self.lags = {}, 200, []
        self.told = []

    def now_ms(self):
        return self.pace.now() // NS_PER_MS

    def open_market(self, n, bid=45, ask=55, age_ms=0):
        self.bids[n], self.asks[n] = {bid: 100, bid - 1: 50}, {ask: 100, ask + 1: 50}
        self.stamps[n] = self.now_ms() - age_ms

    def book(self, token):
        """One token's book as REST tells it; the touch is last."""
        n, no = int(token[:-1]), token[-1] == "2"
        bids, asks = self.bids[n], self.asks[n]
        if no:
            bids, asks = ({100 - cents: size for cents, size in side.items()} for side in (asks, bids))
        sides = sorted(bids.items()), sorted(asks.items(), reverse=True)
        told = [[{"price": f"{cents / 100:.2f}", "size": str(size)} for cents, size in side] for side in sides]
        return {
            "market": f"0xm{n}",
            "asset_id": token,
            "timestamp": str(self.stamps[n]),
            "bids": told[0],
            "asks": told[1],
            "min_order_size": "5",
            "tick_size": "0.01",
        }

    def books(self, n):
        return [{"event_type": "book", **self.book(f"{n}{leg}")} for leg in (1, 2)]

    def change(self, n, cents, size, side="BUY", *, tell=True, ts=None):
        levels = self.bids[n] if side == "BUY" else self.asks[n]
        levels[cents] = size
        if not size:
            del levels[cents]
        self.stamps[n] = ts or max(self.now_ms(), self.stamps[n])
        bid, ask = max(self.bids[n], default=0) / 100, min(self.asks[n], default=100) / 100
        legs = [(f"{n}1", cents / 100, side, bid, ask), (f"{n}2", 1 - cents / 100, OTHER[side], 1 - ask, 1 - bid)]
        changes = [
            {
                "asset_id": token,
                "price": f"{price:.2f}",
                "size": str(size),
                "side": way,
                "best_bid": f"{b:.2f}",
                "best_ask": f"{a:.2f}",
            }
            for token, price, way, b, a in legs
        ]
        message = {"event_type": "price_change", "market": f"0xm{n}", "timestamp": str(self.stamps[n]), "price_changes": changes}
        if tell:
            self.tell(n, message)

    def trade(self, n, size, ts):
        entry = {"asset_id": f"{n}1", "price": "0.55", "size": str(size), "side": "BUY", "timestamp": str(ts)}
        self.tell(n, {"event_type": "last_trade_price", **entry})

    def tell(self, n, message):
        for line in self.lines:
            if f"{n}1" in line.assets and not line.silent and n not in line.muted:
                line.send(message)

    async def on_socket(self, request):
        ws = web.WebSocketResponse(autoping=True)
        await ws.prepare(request)
        line = Line(ws, self.lags.pop(0) if self.lags else 0)
        self.lines.append(line)
        self.opened.append(self.pace.now())
        writer = asyncio.create_task(line.write())
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    self.hear(line, message.data)
        finally:
            self.lines.remove(line)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return ws

    def hear(self, line, text):
        if text == "PING":
            if self.pongs:
                line.send("PONG")
            return
        told = json.loads(text)
        self.subscriptions.append(told)
        if told.get("operation") == "unsubscribe":
            line.assets = [token for token in line.assets if token not in told["assets_ids"]]
            return
        if told.get("type") == "market":
            line.first = told
        line.assets += told["assets_ids"]
        markets = dict.fromkeys(int(token[:-1]) for token in told["assets_ids"])
        for n in markets:
            if n not in self.bookless:
                line.send(self.books(n))

    async def on_books(self, request):
        tokens = [each["token_id"] for each in await request.json()]
        self.rest_asked.append(tokens)
        if self.rest_status != 200:
            return web.Response(status=self.rest_status, text="no")
        return web.json_response([self.stale_rest.get(token) or self.book(token) for token in tokens])

    @asynccontextmanager
    async def open(self):
        app = web.Application()
        app.router.add_get("/ws/market", self.on_socket)
        app.router.add_post("/books", self.on_books)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


class Core:
    """What the core makes of the events: a book for each market, and whether it ever doubted one by itself."""

    def __init__(self, pace):
        self.pace, self.events, self.books, self.gaps = pace, [], {}, []

    def emit(self, event):
        self.events.append(event)
        now = self.pace.now()
        applied = None
        if isinstance(event, FeedLost | VenueDown):
            lost = event.instruments if isinstance(event, FeedLost) else tuple(self.books)
            for name in lost:
                self.books.setdefault(name, Book(payout=10_000)).lose(now, event.reason)
        elif isinstance(event, BookSnapshot):
            applied = self.books.setdefault(event.instrument, Book(payout=10_000)).apply_snapshot(event, now)
        elif isinstance(event, BookDelta):
            applied = self.books.setdefault(event.instrument, Book(payout=10_000)).apply_delta(event, now)
        elif isinstance(event, TopReported):
            applied = self.books.setdefault(event.instrument, Book(payout=10_000)).check_top(event, now)
        if applied is Applied.GAP:
            self.gaps.append(event)

    def of(self, kind, n=None):
        return [event for event in self.events if isinstance(event, kind) and (n is None or event.instrument == f"0xm{n}")]

    def trusts(self, *markets):
        return all((book := self.books.get(f"0xm{n}")) is not None and book.trusted for n in markets)

    def shows(self, venue, n):
        book = self.books.get(f"0xm{n}") or Book()
        bids = {cents * 100: size * 10**6 for cents, size in venue.bids[n].items()}
        asks = {cents * 100: size * 10**6 for cents, size in venue.asks[n].items()}
        return book.trusted and (book.bids, book.asks) == (bids, asks)


class House:
    def __init__(self, pace, settings, markets, **options):
        self.pace, self.venue, self.core = pace, Venue(pace), Core(pace)
        self.said, self.settings, self.markets, self.options = [], settings, markets, options
        self.feed: Feed
        self.task: asyncio.Task

    def say(self, level, text):
        assert level in ("info", "warning", "error")
        self.said.append((level, text))

    async def until(self, condition, what=""):
        for _ in range(2_000):
            if self.task.done():
                self.task.result()
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never: {what or condition}\n{self.core.events[-8:]}\n{self.feed.counters}\n{self.said}")

    def clob(self):
        return Clob(f"http://127.0.0.1:{self.venue.port}", self.pace)


@asynccontextmanager
async def house(markets=(1,), *, speed=SPEED, before=None, url=None, **options):
    settings = FeedSettings(**{key: options.pop(key) for key in list(options) if key in FeedSettings.__struct_fields__})
    pace = Pace(rehearsal_clock(speed, START_NS).now, speed)
    home = House(pace, settings, markets, **options)
    tasks = asyncio.all_tasks()
    async with home.venue.open() as venue:
        for n in markets:
            venue.open_market(n)
        if before is not None:
            before(home)
        clob = home.clob()
        target = url or f"ws://127.0.0.1:{venue.port}/ws/market"
        home.feed = Feed(target, clob, pace, settings, say=home.say, **options)
        for n in markets:
            home.feed.add(instrument(n))
        home.task = asyncio.create_task(home.feed.run(home.core.emit))
        try:
            yield home
        finally:
            home.task.cancel()
            await asyncio.gather(home.task, return_exceptions=True)
            await clob.close()
        for _ in range(400):
            if not venue.lines:
                break
            await asyncio.sleep(0.005)
        assert not venue.lines, "a socket was left open"
    left = [task for task in asyncio.all_tasks() - tasks if not task.done()]
    assert not left, left


async def test_books_come_first_then_changes():
    async with house((1, 2), shows_own=True) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        assert home.core.events[0] == VenueUp("polymarket", snapshots=True, shows_own=True)
        (first,) = home.core.of(BookSnapshot, 1)
        assert first.bids == ((4500, 100_000_000), (4400, 50_000_000)) and first.asks[0] == (5500, 100_000_000)
        home.venue.change(1, 46, 7)
        stamp = home.venue.stamps[1]
        home.venue.change(1, 44, 0)
        home.venue.trade(1, 3, home.venue.now_ms())
        await home.until(lambda: home.core.of(TradePrinted))
        first, second = home.core.of(BookDelta, 1)
        assert (first.bids, first.best_bid, first.best_ask) == (((4600, 7_000_000),), 4600, 5500)
        assert second.bids == ((4400, 0),) and first.venue_ts == stamp * NS_PER_MS
        assert home.core.of(TradePrinted)[0].side is Side.BUY
        assert home.core.shows(home.venue, 1) and not home.core.gaps and not home.core.of(FeedLost)
        assert home.feed.sick() == "" and home.feed.counters["connected"] == 1
        assert home.venue.lines[0].first["custom_feature_enabled"] is False


async def test_both_tokens_of_a_market_share_a_socket_of_bounded_size():
    markets = tuple(range(1, 6))
    async with house(markets, assets_per_socket=4) as home:
        await home.until(lambda: home.core.trusts(*markets))
        assert sorted(len(line.assets) for line in home.venue.lines) == [2, 4, 4]
        assert all(line.assets.count(token) == 1 for line in home.venue.lines for token in line.assets)
        assert all({f"{token[:-1]}1", f"{token[:-1]}2"} <= set(line.assets) for line in home.venue.lines for token in line.assets)
        for n in markets:
            home.venue.change(n, 46, n)
        await home.until(lambda: len(home.core.of(BookDelta)) == 5)
        assert all(home.core.shows(home.venue, n) for n in markets)
        # One socket breaks: its markets alone are lost, the venue is not, and a fresh book heals them.
        line = next(line for line in home.venue.lines if "51" in line.assets)
        line.ws._req.transport.abort()
        await home.until(lambda: home.core.of(FeedLost))
        assert home.core.of(FeedLost)[0].instruments == ("0xm5",) and not home.core.of(VenueDown)
        await home.until(lambda: home.core.shows(home.venue, 5))
        assert home.feed.counters["reconnects"] == 1


async def test_markets_come_and_go_while_it_runs():
    async with house((1,), assets_per_socket=4) as home:
        await home.until(lambda: home.core.trusts(1))
        for n in (2, 3):
            home.venue.open_market(n)
            home.feed.add(instrument(n))
        await home.until(lambda: home.core.trusts(1, 2, 3))
        assert sorted(sorted(line.assets) for line in home.venue.lines) == [["11", "12", "21", "22"], ["31", "32"]]
        assert not home.core.of(FeedLost) and len(home.core.of(VenueUp)) == 1
        home.feed.remove("0xm2")
        home.feed.remove("0xm3")
        seen = len(home.core.events)
        home.venue.change(2, 46, 1)
        home.venue.lines[0].send({"event_type": "book", "asset_id": "21"})  # damaged, and of a market that is gone
        home.venue.change(1, 46, 1)
        await home.until(lambda: home.core.of(BookDelta, 1))
        await home.until(lambda: len(home.venue.lines) == 1 and sorted(home.venue.lines[0].assets) == ["11", "12"])
        assert [event.instrument for event in home.core.events[seen:]] == ["0xm1"]
        home.feed.execute(RequestSnapshot("0xm2", "gone"))
        home.feed.remove("0xm1")
        await home.until(lambda: not home.venue.lines)
        assert not home.core.of(VenueDown) and home.feed.sick() == ""
        home.feed.add(instrument(1))
        await home.until(lambda: len(home.venue.lines) == 1 and len(home.core.of(BookSnapshot, 1)) == 2)
        assert home.core.shows(home.venue, 1)


async def test_new_rules_of_a_market_reach_the_parser():
    async with house((1,)) as home:
        await home.until(lambda: home.core.trusts(1))
        home.feed.add(instrument(1, tick=10))  # told by discovery; the socket's next book says otherwise
        for message in home.venue.books(1):
            home.venue.tell(1, message)
        await home.until(lambda: home.core.of(InstrumentListed))
        assert home.core.of(InstrumentListed)[0].instrument.grid == FixedGrid(100)


async def test_half_open():
    async with house((1,), ping_s=5.0, pong_s=12.0, book_check_s=1000.0) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.rest_status = 500
        home.venue.pongs = False
        await home.until(lambda: home.core.of(VenueDown))
        assert "half-open" in home.core.of(VenueDown)[0].reason
        home.venue.pongs = True
        await home.until(lambda: home.core.trusts(1))
        assert home.feed.counters["half_open"] == 1 and home.feed.counters["pongs_late"] >= 1
        assert [type(event) for event in home.core.events if isinstance(event, VenueUp | VenueDown)] == [
            VenueUp,
            VenueDown,
            VenueUp,
        ]


async def test_data_without_pongs_changes_the_socket_and_pulls_no_quote():
    async with house((1,), ping_s=5.0, pong_s=12.0) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.pongs = False
        n = 0
        while home.feed.counters.get("exchanges", 0) == 0:
            n += 1
            home.venue.change(1, 40, n)
            await asyncio.sleep(0.01)
        assert not home.core.of(FeedLost) and not home.core.of(VenueDown)


async def test_a_quiet_market_is_not_frozen_and_a_book_that_agrees_is_a_word():
    async with house((1, 2), frozen_s=8.0, book_check_s=10.0) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        begun = home.pace.now()
        await home.until(lambda: home.pace.now() - begun > 25 * NS_PER_S)
        assert {event.instrument for event in home.core.of(TopReported)} == {"0xm1", "0xm2"}
        assert all((top.best_bid, top.best_ask, top.venue_ts) == (4500, 5500, 0) for top in home.core.of(TopReported))
        assert len(home.venue.opened) == 1 and not home.core.of(FeedLost) and not home.core.gaps and home.core.trusts(1, 2)
        # Every look while nothing comes is one; a look and the silence before it are well within the core's ten seconds.
        assert 2 <= len(home.venue.rest_asked) <= len({id(top) for top in home.core.of(TopReported)}) + 3
        assert bookcheck.WORD_S + 2 * bookcheck.BEAT_S < 10


async def test_pongs_alone_are_no_word():
    async with house((1,), frozen_s=8.0) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.rest_status = 503
        seen, frames = len(home.core.events), home.feed.counters["frames"]
        await home.until(lambda: home.feed.counters["frames"] >= frames + 2)
        await home.until(lambda: home.feed.counters.get("rest_failed", 0) >= 2)
        assert len(home.core.events) == seen and home.feed.sick() == ""


async def test_a_frozen_socket_is_found_out_by_rest():
    async with house((1, 2, 3), frozen_s=8.0, book_check_s=1000.0) as home:
        await home.until(lambda: home.core.trusts(1, 2, 3))
        begun, home.venue.lines[0].silent = home.pace.now(), True
        await home.until(lambda: home.pace.now() - begun > 9 * NS_PER_S)
        assert home.core.trusts(1, 2, 3), "a quiet market is not frozen"
        home.venue.change(2, 47, 9)
        await home.until(lambda: home.core.of(VenueDown))
        assert "frozen" in home.core.of(VenueDown)[0].reason and home.feed.counters["frozen"] == 1
        assert not home.core.trusts(1) and home.feed.sick()
        await home.until(lambda: all(home.core.shows(home.venue, n) for n in (1, 2, 3)))
        assert home.feed.sick() == "" and len(home.venue.opened) == 2


async def test_a_frozen_socket_is_found_out_by_levels_below_the_top():
    async with house((1,), frozen_s=8.0) as home:
        await home.until(lambda: home.core.trusts(1))
        begun, home.venue.lines[0].silent = home.pace.now(), True
        await home.until(lambda: home.pace.now() - begun > 9 * NS_PER_S)
        size = 0
        while not home.core.of(VenueDown):
            size += 1
            home.venue.change(1, 30, size)
            asked = len(home.venue.rest_asked)
            await home.until(lambda asked=asked: len(home.venue.rest_asked) > asked or home.core.of(VenueDown))
        assert "levels below" in home.core.of(VenueDown)[0].reason


async def freeze_market_2(home):
    """Its changes stop while the others' go on; it moves once it has been silent for `frozen_s`."""
    home.venue.lines[0].muted = {2}
    begun, size = home.pace.now(), 0
    while not home.feed.counters["frozen"]:
        size += 1
        home.venue.change(1, 40, size)
        home.venue.change(3, 40, size)
        if home.pace.now() - begun > 9 * NS_PER_S:
            home.venue.change(2, 48, size)
        await asyncio.sleep(0.01)


async def test_one_frozen_market_is_lost_alone_and_the_others_never_notice():
    async with house((1, 2, 3), frozen_s=8.0, book_check_s=6.0) as home:
        await home.until(lambda: home.core.trusts(1, 2, 3))
        await freeze_market_2(home)
        await home.until(lambda: home.core.shows(home.venue, 2), "healed by the successor")
        assert {name for event in home.core.of(FeedLost) for name in event.instruments} == {"0xm2"}
        assert home.feed.counters["exchanges"] == 1 and not home.core.of(VenueDown) and not home.core.gaps
        await home.until(lambda: home.core.shows(home.venue, 1) and home.core.shows(home.venue, 3))


async def test_a_frozen_market_is_not_quoted_from_rest():
    async with house((1, 2, 3), frozen_s=8.0, book_check_s=6.0, connect_s=5.0) as home:
        await home.until(lambda: home.core.trusts(1, 2, 3))
        home.venue.bookless = {1, 2, 3}  # no successor is ever ready
        await freeze_market_2(home)
        home.feed.execute(RequestSnapshot("0xm2", "gap"))
        await asyncio.sleep(0.1)
        assert not home.core.trusts(2)
        # A new socket without its book at last: REST may stand in, and is looked at until the socket speaks.
        home.venue.bookless = {2}
        await home.until(lambda: home.feed.counters.get("exchanges"))
        begun = home.pace.now()
        await home.until(lambda: home.pace.now() - begun > 4 * NS_PER_S)
        home.feed.execute(RequestSnapshot("0xm2", "gap"))
        await home.until(lambda: home.core.shows(home.venue, 2))
        lost = len(home.core.of(FeedLost)) + len(home.core.of(VenueDown))
        home.venue.change(2, 49, 1, tell=False)
        await home.until(lambda: len(home.core.of(FeedLost)) + len(home.core.of(VenueDown)) > lost)


async def test_a_late_first_book_tells_nothing_when_rest_stood_in_for_it():
    def before(home):
        home.venue.open_market(1, age_ms=600_000)
        home.venue.bookless = {1}

    async with house((1,), before=before) as home:
        await home.until(lambda: home.feed.counters["connected"])
        begun = home.pace.now()
        home.feed.execute(RequestSnapshot("0xm1", "no book"))
        await home.until(lambda: home.pace.now() - begun > 4 * NS_PER_S)
        assert not home.core.of(BookSnapshot), "its first book may still come"
        home.feed.execute(RequestSnapshot("0xm1", "no book"))
        await home.until(lambda: home.core.trusts(1))
        for message in home.venue.books(1):
            home.venue.tell(1, message)
        home.venue.change(1, 46, 1)
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert [event.venue_ts for event in home.core.of(BookSnapshot)] == [0]


async def test_a_lost_change_is_found_out_by_rest():
    async with house((1,), book_check_s=4.0) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.change(1, 48, 5, tell=False)
        await home.until(lambda: home.core.shows(home.venue, 1))
        (lost,) = home.core.of(FeedLost)
        assert lost.instruments == ("0xm1",) and "REST" in lost.reason
        at = home.core.events.index(lost)
        assert isinstance(home.core.events[at + 1], BookSnapshot)
        assert home.feed.counters["rest_mismatch"] == 1
        await home.until(lambda: home.feed.counters.get("exchanges"), "a socket that lost a change is not kept")
        home.venue.change(1, 49, 5)
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert not home.core.gaps


async def test_rest_ahead_of_the_socket_is_no_fault():
    async with house((1,), book_check_s=2.0, before=lambda home: home.venue.lags.append(0.03)) as home:
        await home.until(lambda: home.core.trusts(1))
        for n in range(90):
            home.venue.change(1, 46 + n % 5, n % 3) if n % 3 else home.venue.change(1, 46 + n % 5, 5)
            await asyncio.sleep(0.01)
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert not home.core.of(FeedLost) and len(home.venue.rest_asked) >= 5


async def test_stale_rest_is_counted_and_never_believed():
    async with house((1,), book_check_s=2.0, frozen_s=6.0) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.stale_rest["11"] = {**home.venue.book("11"), "bids": [], "timestamp": str(home.venue.now_ms() - 60_000)}
        await home.until(lambda: home.feed.counters["stale_rest"] >= 5)
        home.feed.execute(RequestSnapshot("0xm1", "gap"))
        stale = home.feed.counters["stale_rest"]
        await home.until(lambda: home.feed.counters["stale_rest"] >= stale + 5)
        assert len(home.core.of(BookSnapshot)) == 1 and not home.core.of(FeedLost) and not home.core.of(TopReported)


async def test_an_abrupt_end_is_told_at_once_and_healed():
    async with house((1,), before=lambda home: home.venue.open_market(1, age_ms=600_000)) as home:
        await home.until(lambda: home.core.trusts(1))
        home.venue.lines[0].ws._req.transport.abort()
        await home.until(lambda: home.core.of(VenueDown))
        # The market has not changed meanwhile: its book carries the time of before the gap, and must heal it all the same.
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert all(event.venue_ts == 0 for event in home.core.of(BookSnapshot)), "an old book's time would be taken for lag"


async def test_reconnects_back_off_and_never_stop():
    async with house((1,), backoff_max_s=4.0) as home:
        await home.until(lambda: home.core.trusts(1))
        for n in range(8):
            await home.until(lambda opened=n + 1: len(home.venue.opened) >= opened and home.venue.lines and home.core.trusts(1))
            home.venue.lines[0].ws._req.transport.abort()
            await home.until(lambda: not home.venue.lines)
        await home.until(lambda: home.core.trusts(1))
        waits = [after - before for before, after in pairwise(home.venue.opened)]
        assert len(waits) == 8 and all(wait >= 0.2 * NS_PER_S for wait in waits)
        assert all(wait >= 1.9 * NS_PER_S for wait in waits[4:]), "half of the bound at least, after as many failures"


async def test_a_refused_connection_is_said_once_and_told_to_the_core():
    async with house((1,), url="ws://127.0.0.1:9/ws/market", backoff_max_s=2.0, speed=60.0) as home:
        await home.until(lambda: home.core.of(VenueDown))
        assert re.search("refused|Connect call failed", home.core.of(VenueDown)[0].reason)
        await home.until(lambda: home.feed.counters["connect_failed"] >= 8)
        (said,) = home.said
        assert said[0] == "warning" and "127.0.0.1:9" in said[1] and "Connect" in said[1]
        assert "127.0.0.1" in home.feed.sick() or "Connect" in home.feed.sick()
        await home.until(lambda: len(home.said) == 2, "once a minute")


@pytest.mark.parametrize("lags", [[0, 0.02, 0, 0.02], [0.02, 0, 0.02, 0]], ids=["slower successor", "faster successor"])
async def test_sockets_are_exchanged_without_losing_or_repeating_anything(lags):
    tapped = []
    taps = {"tap": lambda at, raw: tapped.append((at, raw))}
    async with house((1, 2), reconnect_s=10.0, before=lambda home: home.venue.lags.extend(lags), **taps) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        n = 0
        while home.feed.counters.get("exchanges", 0) < 3:
            ts = max(home.venue.now_ms(), home.venue.stamps[1])
            for _ in range(3):  # of one millisecond
                n += 1
                home.venue.change(1, 30, n, ts=ts)
                home.venue.trade(1, n, ts)
            await asyncio.sleep(0.004)
        await home.until(lambda: len(home.core.of(BookDelta, 1)) >= n)
        await asyncio.sleep(0.05)
        whole = [number * 10**6 for number in range(1, n + 1)]
        assert [event.bids[0][1] for event in home.core.of(BookDelta, 1)] == whole
        assert [event.qty for event in home.core.of(TradePrinted, 1)] == whole
        assert not home.core.of(FeedLost) and not home.core.of(VenueDown) and not home.core.gaps
        assert len(home.core.of(BookSnapshot, 1)) == len(home.core.of(BookSnapshot, 2)) == 1
        assert home.core.books["0xm1"].pruned == home.core.books["0xm1"].skipped == 0
        assert home.feed.counters["duplicates"] > 0 and home.core.shows(home.venue, 1)
        numbers = [int(size) for _, raw in tapped if b"price_change" in raw for size in re.findall(rb'"size": "(\d+)"', raw)[:1]]
        assert numbers == list(range(1, n + 1)), "a tape tells everything once"
        assert all(before[0] <= after[0] for before, after in pairwise(tapped))
        await home.until(lambda: len(home.venue.lines) == 1, "the old sockets are closed")


async def test_what_the_old_socket_missed_comes_with_the_new_one():
    async with house((1, 2), reconnect_s=12.0, book_check_s=1000.0) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        home.venue.rest_status = 500
        home.venue.change(1, 47, 5, tell=False)
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert not home.core.of(FeedLost) and home.feed.counters["exchanges"] == 1


async def test_a_successor_takes_over_when_the_old_socket_dies_meanwhile():
    async with house((1, 2), reconnect_s=10.0, connect_s=60.0) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        home.venue.bookless = {2}
        await home.until(lambda: len(home.venue.lines) == 2)
        home.venue.lines[0].ws._req.transport.abort()
        await home.until(lambda: home.core.of(FeedLost))
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert len(home.venue.opened) == 2 and not home.core.of(VenueDown) and not home.core.trusts(2)
        for message in home.venue.books(2):
            home.venue.tell(2, message)
        await home.until(lambda: home.core.shows(home.venue, 2))


async def test_a_successor_that_never_gets_ready_is_given_up_twice():
    async with house((1, 2), reconnect_s=6.0, connect_s=4.0, backoff_max_s=2.0, book_check_s=1000.0) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        home.venue.bookless = {2}
        await home.until(lambda: home.feed.counters.get("exchanges_failed", 0) == 2)
        assert not home.core.of(FeedLost) and home.core.trusts(1, 2)
        await home.until(lambda: home.core.of(FeedLost))
        assert home.core.of(FeedLost)[0].instruments == ("0xm2",) and home.feed.counters["exchanges"] == 1


async def test_the_core_may_ask_for_a_book():
    async with house((1, 2), book_check_s=1000.0) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        home.feed.execute(CancelOrder("1-1", "0xm1", "not for us"))
        home.venue.lines[0].send('{"event_type":"price_change","timestamp":"' + str(home.venue.now_ms()) + '","market":"0xm1"}')
        await home.until(lambda: home.core.of(FeedLost))
        assert home.core.of(FeedLost)[0].instruments == ("0xm1",)
        for _ in range(5):
            home.feed.execute(RequestSnapshot("0xm1", "gap"))
        await home.until(lambda: home.core.shows(home.venue, 1), "a market that stands still heals too")
        assert sum("11" in tokens for tokens in home.venue.rest_asked) == 1 and len(home.core.of(BookSnapshot, 1)) == 2
        home.venue.lines[0].send('{"event_type":"book"')  # could have named any
        await home.until(lambda: home.core.books["0xm2"].trusted is False)
        home.venue.change(2, 46, 3)
        home.feed.execute(RequestSnapshot("0xm2", "gap"))
        await home.until(lambda: home.core.shows(home.venue, 2))
        home.venue.change(2, 46, 4)
        await home.until(lambda: home.core.shows(home.venue, 2))
        assert not home.core.gaps


async def test_a_tap_sees_every_frame():
    tapped = []
    async with house((1,), ping_s=2.0, tap=lambda at, raw: tapped.append((at, raw))) as home:
        await home.until(lambda: home.core.trusts(1))
        for n in range(10):
            home.venue.change(1, 40, n + 1)
        home.venue.lines[0].send("{}")
        await home.until(lambda: b"PONG" in [raw for _, raw in tapped] and (b"{}" in [raw for _, raw in tapped]))
        assert len(tapped) == home.feed.counters["frames"] >= 13
        assert all(isinstance(raw, bytes) and START_NS <= at <= home.pace.now() for at, raw in tapped)


async def test_it_can_be_ended_while_it_connects():
    ended = asyncio.Event()

    async def on_connect(reader, writer):
        while await reader.read(1024):
            pass
        writer.close()
        ended.set()

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/market"
        async with house((1,), url=url, connect_s=1000.0) as home:
            await home.until(lambda: home.core.of(VenueDown))
            assert "not connected" in home.core.of(VenueDown)[0].reason and not home.said
        await asyncio.wait_for(ended.wait(), 5)


async def test_start_afresh_tells_every_book_again():
    async with house((1, 2), assets_per_socket=2) as home:
        await home.until(lambda: home.core.trusts(1, 2))
        home.feed.start_afresh("inbox overflow")
        assert [type(event) for event in home.core.events[-2:]] == [FeedLost, VenueDown] and not home.core.trusts(1)
        await home.until(lambda: home.core.shows(home.venue, 1) and home.core.shows(home.venue, 2))


async def test_changes_before_a_late_first_book_are_laid_over_it():
    async with house((1,), before=lambda home: home.venue.bookless.add(1), book_check_s=1000.0) as home:
        await home.until(lambda: home.venue.lines and home.venue.lines[0].assets)
        late = home.venue.books(1)
        home.venue.stamps[1] += 1
        home.venue.change(1, 46, 5, ts=home.venue.stamps[1])
        for message in late:
            home.venue.tell(1, message)
        await home.until(lambda: home.core.shows(home.venue, 1))
        assert [type(event) for event in home.core.events] == [VenueUp, BookSnapshot, BookDelta]
