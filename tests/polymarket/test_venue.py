"""The live trading port against a scripted venue on loopback: every order of every request has one end, and one only."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec import structs

from llm_maker.core.commands import (
    CancelOrder,
    Level,
    LookUpOrder,
    MergeSets,
    Notice,
    PlaceOrder,
    RedeemShares,
    RequestAccount,
    SplitCash,
    TimeInForce,
)
from llm_maker.core.events import (
    AccountSnapshot,
    AccountUnknown,
    CancelRejected,
    CashKind,
    CashMoved,
    FillSettled,
    MergeFailed,
    OrderAccepted,
    OrderCanceled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    RedeemFailed,
    RegimeChanged,
    SetsMerged,
    SetsSplit,
    SplitFailed,
)
from llm_maker.core.values import NS_PER_S, FixedGrid, Instrument, InstrumentId, Kind, Leg, Regime, Side
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain import work as chain_work
from llm_maker.venues.polymarket.chain.chain import WorkResult
from llm_maker.venues.polymarket.orders import entry
from llm_maker.venues.polymarket.orders.drafts import draft
from llm_maker.venues.polymarket.orders.entry import IdentityFault, VenueSettings
from llm_maker.venues.polymarket.orders.ours import OwnOrders
from llm_maker.venues.polymarket.orders.sign import Signer
from llm_maker.venues.polymarket.orders.venue import PolymarketVenue
from tests.polymarket.scripted import HANG, KEY, SECRET, START, Say, Server, clob_of, paced

MARKET = Instrument(
    id=InstrumentId("0xmarket"),
    venue="polymarket",
    kind=Kind.BINARY,
    price_decimals=4,
    qty_decimals=6,
    grid=FixedGrid(100),
    qty_step=10_000,
    min_qty=5_000_000,
    payout=10_000,
    token_ids=("123", "456"),
    route="ctf",
)
SIGNER = Signer(KEY)
WALLET = Wallet(WalletKind.EOA, SIGNER.address, SIGNER.address)
GENEROUS = VenueSettings(orders_per_s=1e6, orders_burst=1e6, cancels_per_s=1e6, cancels_burst=1e6, max_wait_s=1e5)


def place(order_id="1-1", price=4_600, tif=TimeInForce.GTC, **more) -> PlaceOrder:
    taking = tif in (TimeInForce.IOC, TimeInForce.FOK)
    fields = {
        "order_id": order_id,
        "instrument": "0xmarket",
        "side": Side.BUY,
        "leg": Leg.YES,
        "price": price,
        "qty": 10_000_000,
        "time_in_force": tif,
        "post_only": not taking,
        "reduce_only": False,
        "reason": "test",
        "decided_ns": START,
    }
    return PlaceOrder(**(fields | more))


def cancel(order_id="1-1") -> CancelOrder:
    return CancelOrder(order_id, "0xmarket", "test")


def look_up(order_id="1-1") -> LookUpOrder:
    return LookUpOrder(order_id, "0xmarket", "test")


def id_of(command: PlaceOrder) -> str:
    return draft(command, MARKET, WALLET).venue_id


def taken(venue_id: str, status="live") -> dict:
    return {"success": True, "errorMsg": "", "orderID": venue_id, "status": status, "makingAmount": "", "takingAmount": ""}


class Book:
    """A venue that takes every order: it knows each one's id by its salt, from the commands it was told of."""

    def __init__(self, *commands: PlaceOrder, status="live") -> None:
        self.ids = {draft(command, MARKET, WALLET).salt: id_of(command) for command in commands}
        self.status = status

    def __call__(self, seen) -> Say:
        sent = seen.json
        told = [taken(self.ids[order["order"]["salt"]], self.status) for order in (sent if isinstance(sent, list) else [sent])]
        return Say(told if isinstance(sent, list) else told[0])


def cancels_all(seen) -> Say:
    ids = seen.json if isinstance(seen.json, list) else [seen.json["orderID"]]
    return Say({"canceled": ids, "not_canceled": {}})


class Stream:
    def __init__(self) -> None:
        self.ends, self.fault = asyncio.Event(), None

    async def run(self, emit) -> None:
        await self.ends.wait()
        if self.fault:
            raise self.fault

    def sick(self) -> str:
        return "as the stream says"


class Reader:
    """Answers each reading when it is let go; `fault` is raised instead."""

    def __init__(self) -> None:
        self.asked, self.gate, self.fault = [], asyncio.Event(), None
        self.touched = []

    def touch(self, instrument):
        self.touched.append(instrument.id)

    async def read(self, asked_ns, since_ns):
        self.asked.append((asked_ns, since_ns))
        await self.gate.wait()
        if self.fault:
            raise self.fault
        return [FillSettled(f"fill-{asked_ns}", "0xmarket"), AccountSnapshot((), (), asked_ns=asked_ns)]


class Rows:
    """Reads what this test's venue tells of an order: our own shape, since the real reader is tested elsewhere."""

    def __init__(self, own: OwnOrders) -> None:
        self.own = own

    def order(self, row):
        told = json.loads(row)
        ours = self.own.by_venue(told.get("id", ""))
        return OrderLookedUp(ours.order_id, told["found"], told.get("filled", 0)) if ours else None


class ChainStub:
    def __init__(self) -> None:
        self.calls, self.results, self.busy = [], [], 0

    async def _next(self, *call):
        assert self.busy == 0, "one at a time"
        self.busy += 1
        self.calls.append(call)
        await asyncio.sleep(0.001)
        self.busy -= 1
        return self.results.pop(0)

    async def merge(self, instrument, qty):
        return await self._next("merge", qty)

    async def split(self, instrument, qty):
        return await self._next("split", qty)

    async def redeem(self, instrument, yes_qty, no_qty):
        return await self._next("redeem", yes_qty, no_qty)

    async def check(self, tx):
        return await self._next("check", tx)


class Rig:
    """A running port with everything it touches."""

    def __init__(self, server: Server, settings: VenueSettings, url: str | None = None, wall_s: float = 2.0) -> None:
        settings = structs.replace(settings, request_s=wall_s * server.pace.speed)
        self.server, self.pace = server, server.pace
        self.own, self.events, self.said = OwnOrders(), [], []
        self.clob = clob_of(server, self.pace, settings.request_s)
        if url:
            self.clob.http.base = url
        self.reader, self.stream, self.chain = Reader(), Stream(), ChainStub()
        self.venue = PolymarketVenue(
            self.clob,
            WALLET,
            SIGNER,
            self.own,
            self.reader,
            self.stream,
            self.chain,
            self.pace,
            settings,
            wire=Rows(self.own),
            say=lambda level, words: self.said.append((level, words)),
            heartbeat=None,
        )
        self.venue.know(MARKET)

    def do(self, *commands) -> None:
        for command in commands:
            self.venue.execute(command)

    def of(self, *kinds):
        return [event for event in self.events if isinstance(event, kinds)]

    async def until(self, condition, limit_s=10.0) -> None:
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"not so: {self.events}, {self.server.lines()}, {self.said}") from None

    async def heard(self, count: int, *kinds) -> list:
        await self.until(lambda: len(self.of(*kinds) if kinds else self.events) >= count)
        return self.of(*kinds) if kinds else list(self.events)

    async def pass_s(self, seconds: float) -> None:
        then = self.pace.now() + round(seconds * NS_PER_S)
        await self.until(lambda: self.pace.now() >= then)


@asynccontextmanager
async def rig(settings=GENEROUS, *, speed=20.0, url=None, fault=None, wall_s=2.0):
    """A port that runs until it is cancelled, or until `run` raises `fault` by itself; `wall_s`: how long a request waits.

    Nothing of it may be left afterwards.
    """
    before = asyncio.all_tasks()
    async with Server(paced(speed)) as server:
        made = Rig(server, settings, url, wall_s)
        task = asyncio.create_task(made.venue.run(made.events.append))
        await asyncio.sleep(0)
        try:
            yield made
            if fault:
                with pytest.raises(fault):
                    async with asyncio.timeout(10):
                        await task
            else:
                assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            await made.clob.close()
        told = len(made.events)
        made.do(place("late"), cancel("late"))
    await asyncio.sleep(0)
    assert len(made.events) == told, "after the end nothing is done"
    left = [task for task in asyncio.all_tasks() - before if "scripted" not in repr(task) and "aiohttp" not in repr(task)]
    assert not left


# Orders.


async def test_one_order_is_known_before_it_leaves_and_sent_as_it_was_signed():
    command, known = place(), []
    async with rig() as r:

        def answer(seen):
            known.append(r.own.by_venue(id_of(command)))
            return Say(taken(id_of(command)))

        r.server.on("POST", "/order", answer)
        r.do(command)
        assert await r.heard(1) == [OrderAccepted("1-1", id_of(command))]
        (seen,) = r.server.seen
    (ours,) = known
    assert (ours.order_id, ours.price, ours.qty, ours.side, ours.leg, ours.post_only) == ("1-1", 4_600, 10_000_000, 1, "yes", True)
    sent = seen.json
    assert (sent["owner"], sent["orderType"], sent["postOnly"], sent["order"]["expiration"]) == ("api-key", "GTC", True, "0")
    assert (sent["order"]["makerAmount"], sent["order"]["takerAmount"], sent["order"]["side"]) == ("4600000", "10000000", "BUY")
    proof = f"{seen.headers['POLY_TIMESTAMP']}POST/order".encode() + seen.body
    mac = hmac.new(base64.urlsafe_b64decode(SECRET), proof, hashlib.sha256).digest()
    assert seen.headers["POLY_SIGNATURE"] == base64.urlsafe_b64encode(mac).decode()


async def test_what_is_executed_in_one_turn_leaves_in_batches_of_fifteen_cancels_first():
    commands = [place(f"1-{n}") for n in range(17)]
    old = [place(f"0-{n}") for n in range(3)]
    async with rig() as r:
        r.venue.remember((command, MARKET) for command in old)
        r.server.on("POST", "/order*", Book(*commands))
        r.server.on("DELETE", "/orders", cancels_all)
        r.do(*commands, *[cancel(command.order_id) for command in old])
        await r.heard(20)
        assert r.server.seen[0].line == "DELETE /orders"
        assert r.server.seen[0].json == [id_of(command) for command in old]
        assert sorted(len(seen.json) for seen in r.server.of("POST /orders")) == [2, 15]
        assert {event.order_id for event in r.of(OrderAccepted)} == {command.order_id for command in commands}
        assert r.of(OrderCanceled) == [OrderCanceled(command.order_id, "asked") for command in old]
        assert len(r.events) == 20


async def test_a_flush_writes_what_was_executed_at_once_cancels_first_and_once():
    commands = [place(f"1-{n}") for n in range(3)]
    book = Book(*commands, place("2-1"))
    async with rig() as r:
        r.server.on("POST", "/order", book)
        r.server.on("POST", "/orders", book)
        r.server.on("DELETE", "/order", cancels_all)
        r.do(place("2-1"))
        await r.heard(1, OrderAccepted)
        written, hurry = [], r.clob.hurry

        def listening(method, path, body, **more):
            written.append((method, path))
            return hurry(method, path, body, **more)

        r.clob.hurry = listening
        r.do(*commands, cancel("2-1"))
        assert written == []
        r.venue.flush()
        assert written == [("DELETE", "/order"), ("POST", "/orders")], "before any turn of the loop"
        r.venue.flush()
        await r.heard(4, OrderAccepted)
        await r.heard(1, OrderCanceled)
        assert len(written) == 2
        r.do(place("1-0"))
        await r.heard(5, OrderAccepted)
        assert written[2:] == [("POST", "/order")], "and who does not flush waits for the next turn"


async def test_a_batch_has_one_end_for_each_order():
    a, b, c, d = commands = [place(f"1-{n}") for n in range(4)]
    async with rig() as r:
        refused = taken("") | {"errorMsg": "not enough balance / allowance"}
        crossed = taken("") | {"success": False, "errorMsg": "invalid post-only order: order crosses book"}
        doubt = taken(id_of(d)) | {"status": "something new"}
        r.server.on("POST", "/orders", Say([taken(id_of(a)), refused, crossed, doubt]))
        r.do(*commands)
        ends = {event.order_id: event for event in await r.heard(4)}
        await r.pass_s(1)
    assert len(r.events) == 4
    assert ends["1-0"] == OrderAccepted("1-0", id_of(a))
    assert ends["1-1"] == OrderRejected(b.order_id, "balance", "not enough balance / allowance")
    assert ends["1-2"] == OrderRejected(c.order_id, "post_only", "invalid post-only order: order crosses book")
    assert isinstance(ends["1-3"], OrderUncertain)


async def test_a_good_till_date_order_says_a_minute_more():
    command = place(tif=TimeInForce.GTD, expires_ns=START + 300 * NS_PER_S)
    async with rig() as r:
        r.server.on("POST", "/order", Book(command))
        r.do(command)
        await r.heard(1, OrderAccepted)
        assert r.server.seen[0].json["orderType"] == "GTD"
        assert r.server.seen[0].json["order"]["expiration"] == str(START // NS_PER_S + 360)
        with pytest.raises(AssertionError, match="too short"):
            r.do(place("1-2", tif=TimeInForce.GTD, expires_ns=START + 119 * NS_PER_S))
        with pytest.raises(AssertionError, match="never post-only"):
            r.do(place("1-3", tif=TimeInForce.IOC, post_only=True))
        # Its time has run down before it came to us: the world's doing, so a refusal.
        r.do(place("1-4", tif=TimeInForce.GTD, decided_ns=START - 90 * NS_PER_S, expires_ns=START + 60 * NS_PER_S))
        (told,) = await r.heard(1, OrderRejected)
        assert told.order_id == "1-4" and told.detail.startswith("never sent")
        assert len(r.server.lines("POST")) == 1


@pytest.mark.parametrize(("tif", "word"), [(TimeInForce.IOC, "FAK"), (TimeInForce.FOK, "FOK")])
async def test_an_order_that_takes_is_looked_up_until_its_end_is_told(tif, word):
    command = place(tif=tif)
    venue_id = id_of(command)
    async with rig(speed=100.0) as r:
        r.server.on("POST", "/order", Book(command, status="matched"))
        rows = [{"id": venue_id, "found": "open"}, None, {"id": venue_id, "found": "canceled", "filled": 4_000_000}]
        r.server.on("GET", f"/data/order/{venue_id}", *[Say(row) for row in rows])
        r.do(command)
        assert await r.heard(2) == [OrderAccepted("1-1", venue_id), OrderLookedUp("1-1", "canceled", 4_000_000)]
        sent = r.server.seen[0].json
        assert sent["orderType"] == word and "postOnly" not in sent
        await r.pass_s(10)
        assert len(r.server.lines("GET")) == 3 and len(r.events) == 2


async def test_an_order_that_takes_and_never_ends_is_in_doubt_after_a_few_questions():
    command = place(tif=TimeInForce.IOC)
    async with rig(speed=100.0) as r:
        r.server.on("POST", "/order", Book(command, status="delayed"))
        r.server.on("GET", "/data/order/*", Say({"id": id_of(command), "found": "open"}))
        r.do(command)
        _, doubt = await r.heard(2)
        assert isinstance(doubt, OrderUncertain)
        await r.pass_s(20)
        assert len(r.server.lines("GET")) == 4


@pytest.mark.parametrize(
    "reply",
    [
        HANG,
        Say({"error": "there are no matching orders"}, 500),
        Say({}, 429),
        Say(b"<html>"),
        Say({"error": "service not ready"}, 425),
    ],
)
async def test_no_word_means_doubt_and_nothing_is_sent_twice(reply):
    async with rig(wall_s=0.1, speed=100.0) as r:
        r.server.on("POST", "/order", reply)
        r.server.on("GET", "/ok", Say({}, 425))
        r.do(place())
        (event, *_) = await r.heard(1, OrderUncertain)
        assert event.order_id == "1-1"
        await r.pass_s(10)
        assert r.server.lines("POST") == ["POST /order"] and len(r.of(OrderUncertain)) == 1


async def test_an_order_whose_reply_is_lost_is_found_by_its_digest():
    command = place()
    async with rig(wall_s=0.2) as r:
        r.server.on("POST", "/order", HANG)
        r.server.on("GET", f"/data/order/{id_of(command)}", Say({"id": id_of(command), "found": "open", "filled": 5}))
        r.do(command)
        await r.heard(1, OrderUncertain)
        r.do(look_up())
        assert await r.heard(1, OrderLookedUp) == [OrderLookedUp("1-1", "open", 5)]


async def test_a_fault_of_ours_while_sending_is_not_lost(monkeypatch):
    async with rig(fault=ZeroDivisionError, speed=50.0) as r:
        monkeypatch.setattr(r.venue._entry, "_release_orders", lambda now: 1 // 0)
        r.do(place())
        await r.heard(1, RegimeChanged)


async def test_a_fault_of_ours_in_a_flush_reaches_who_flushed_and_no_order_leaves_any_more(monkeypatch):
    async with rig(fault=ZeroDivisionError, speed=50.0) as r:
        r.do(place("1-1"))
        with monkeypatch.context() as broken:
            broken.setattr(r.venue._entry, "_release_orders", lambda now: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                r.venue.flush()
        r.do(place("1-2"))
        r.venue.flush()
        await r.heard(1, RegimeChanged)
        assert sorted((event.order_id, event.reason) for event in r.of(OrderRejected)) == [("1-1", "closed"), ("1-2", "closed")]
        assert not r.server.seen


async def test_what_never_left_is_refused_and_a_cancel_that_never_left_changes_nothing():
    async with Server(paced()) as dead:
        url = dead.url
    async with rig(url=url) as r:
        r.do(place("1-1"), place("1-2"))
        await r.heard(2)
        r.do(cancel("1-1"))
        await r.heard(3)
    assert [(event.reason, event.detail[:11]) for event in r.of(OrderRejected)] == [("other", "never sent:")] * 2
    (event,) = r.of(CancelRejected)
    assert event.order_id == "1-1" and not event.gone and event.reason.startswith("never sent:")


async def test_another_id_than_our_digest_stops_all_orders_and_ends_the_run():
    command, other = place(), "0x" + "ab" * 32
    async with rig(fault=IdentityFault, speed=50.0) as r:
        r.server.on("POST", "/order", Say(taken(other)))
        r.server.on("DELETE", "/order", cancels_all)
        r.do(command)
        doubt, regime = await r.heard(2)
        assert isinstance(doubt, OrderUncertain) and regime == RegimeChanged("polymarket", Regime.CLOSED)
        # The order is found, and canceled, by what the venue calls it; no other leaves.
        assert r.own.by_venue(other).order_id == r.own.by_venue(id_of(command)).order_id == "1-1"
        r.do(place("1-2"), cancel("1-1"))
        await r.heard(4)
        assert [event.reason for event in r.of(OrderRejected)] == ["closed"]
        assert r.server.of("DELETE")[0].json == {"orderID": other} and r.of(OrderCanceled)
        assert len(r.server.lines("POST")) == 1
        assert [level for level, _ in r.said] == [Level.ERROR]


async def test_a_restart_knows_earlier_orders_by_the_same_ids():
    command = place()
    async with rig() as r:
        r.server.on("POST", "/order", Book(command))
        r.do(command)
        (accepted,) = await r.heard(1)
    async with rig() as r:
        r.venue.remember([(command, MARKET)])
        r.server.on("DELETE", "/order", cancels_all)
        r.do(cancel())
        assert await r.heard(1) == [OrderCanceled("1-1", "asked")]
        assert r.server.seen[0].json == {"orderID": accepted.venue_id}


async def test_markets_and_commands_that_are_not_ours():
    async with rig() as r:
        r.do(Notice(Level.INFO, "x", "y"), place("1-1", instrument="0xother"), MergeSets("0xother", 5, "r", "w1"))
        r.do(SplitCash("0xother", 5, "r", "w2"), RedeemShares("0xother", 5, 0, "r", "w3"))
        rejected, merge, split, redeem = await r.heard(4)
        assert isinstance(rejected, OrderRejected) and rejected.detail.startswith("never sent")
        assert (merge.work_id, split.work_id, redeem.work_id) == ("w1", "w2", "w3") and merge.final and split.final and redeem.final
        assert not r.server.seen and r.venue.sick() == "as the stream says"


async def test_commands_before_the_run_wait_for_it():
    command = place()
    async with Server(paced()) as server:
        r = Rig(server, GENEROUS)
        server.on("POST", "/order", Book(command))
        r.do(command)
        task = asyncio.create_task(r.venue.run(r.events.append))
        assert await r.heard(1) == [OrderAccepted("1-1", id_of(command))]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await r.clob.close()


# Limits.

TIGHT = VenueSettings(orders_per_s=0.001, orders_burst=2, cancels_per_s=0.001, cancels_burst=1, max_wait_s=5.0)


async def test_an_order_over_the_limit_waits_is_refused_here_and_never_leaves():
    commands = [place(f"1-{n}") for n in range(4)]
    async with rig(TIGHT) as r:
        r.server.on("POST", "/orders", Book(*commands))
        r.do(*commands)
        await r.heard(4)
        assert [event.order_id for event in r.of(OrderAccepted)] == ["1-0", "1-1"]
        assert [(event.order_id, event.reason, event.detail[:10]) for event in r.of(OrderRejected)] == [
            ("1-2", "rate", "never sent"),
            ("1-3", "rate", "never sent"),
        ]
        assert len(r.server.lines("POST")) == 1


async def test_a_cancel_waits_behind_no_order_and_leaves_in_portions_that_the_limiter_takes():
    old = [place(f"0-{n}") for n in range(40)]
    commands = [place(f"1-{n}") for n in range(10)]
    settings = VenueSettings(orders_per_s=0.001, orders_burst=1, cancels_per_s=100.0, cancels_burst=25, max_wait_s=1_000.0)
    async with rig(settings) as r:
        r.venue.remember((command, MARKET) for command in old)
        r.server.on("POST", "/order", Book(*commands))
        r.server.on("DELETE", "/orders", cancels_all)
        r.server.on("DELETE", "/order", cancels_all)
        r.do(*commands)
        await r.heard(1, OrderAccepted)
        r.do(*[cancel(command.order_id) for command in old])
        await r.heard(40, OrderCanceled)
        assert r.server.lines()[0] == "POST /order" and "POST /orders" not in r.server.lines(), "nine orders wait"
        portions = [len(seen.json) if isinstance(seen.json, list) else 1 for seen in r.server.of("DELETE /orders")]
        assert portions[0] == 25 and max(portions) <= 25, "more at once would be refused whole"


async def test_a_thousand_and_one_cancels_are_two_requests():
    old = [place(f"0-{n}") for n in range(1_001)]
    async with rig() as r:
        r.venue.remember((command, MARKET) for command in old)
        r.server.on("DELETE", "/orders", cancels_all)
        r.server.on("DELETE", "/order", cancels_all)
        r.do(*[cancel(command.order_id) for command in old])
        await r.heard(1_001, OrderCanceled)
        assert [len(seen.json) for seen in r.server.of("DELETE /orders")] == [1_000]
        assert len(r.events) == 1_001


async def test_the_waiting_order_that_is_canceled_never_leaves():
    commands = [place(f"1-{n}") for n in range(3)]
    async with rig(VenueSettings(orders_per_s=0.001, orders_burst=1, max_wait_s=1_000.0)) as r:
        r.server.on("POST", "/order", Book(*commands))
        r.do(*commands, cancel("1-2"))
        await r.heard(2)
        assert set(map(type, r.events)) == {OrderAccepted, OrderCanceled}
        assert r.of(OrderCanceled)[0].order_id == "1-2" and r.server.lines() == ["POST /order"]


async def test_the_venues_own_count_of_tokens_is_believed():
    commands = [place("1-1"), place("1-2")]
    settings = VenueSettings(orders_per_s=0.001, orders_burst=100, max_wait_s=2.0)
    async with rig(settings) as r:
        told = Say(taken(id_of(commands[0])), headers={"Poly-RateLimit-Remaining": "0"})
        r.server.on("POST", "/order", told)
        r.do(commands[0])
        await r.heard(1, OrderAccepted)
        r.do(commands[1])
        (event,) = await r.heard(1, OrderRejected)
        assert (event.order_id, event.reason) == ("1-2", "rate") and len(r.server.seen) == 1


async def test_the_limiters_no_is_a_refusal_and_the_rest_waits():
    settings = VenueSettings(max_wait_s=2.0)
    async with rig(settings) as r:
        r.server.on("POST", "/order", Say({"error": "Too Many Requests"}, 429, {"Retry-After": "20"}))
        r.do(place("1-1"))
        await r.heard(1, OrderRejected)
        r.do(place("1-2"))
        first, second = await r.heard(2, OrderRejected)
        assert (first.reason, second.reason) == ("rate", "rate") and second.detail.startswith("never sent")
        assert len(r.server.seen) == 1


async def test_requests_in_flight_are_bounded_so_that_cancels_find_a_connection(monkeypatch):
    monkeypatch.setattr(entry, "MAX_POSTS", 2)
    commands = [place(f"1-{n}") for n in range(4)]
    async with rig() as r:
        r.server.on("POST", "/order", HANG)
        r.server.on("DELETE", "/order", cancels_all)
        for command in commands:
            r.do(command)
            await asyncio.sleep(0.01)
        r.do(cancel("1-0"))
        await r.heard(1, OrderCanceled)
        assert len(r.server.lines("POST")) == 2


# Cancels.


async def test_cancels_end_each_in_its_own_way():
    old = [place(f"0-{n}") for n in range(4)]
    ids = [id_of(command) for command in old]
    async with rig() as r:
        r.venue.remember((command, MARKET) for command in old)
        told = {"canceled": [ids[0]], "not_canceled": {ids[1]: "already canceled or matched", ids[2]: "order is delayed"}}
        r.server.on("DELETE", "/orders", Say(told))
        r.do(*[cancel(command.order_id) for command in old])
        done, gone, refused, doubt = await r.heard(4)
    assert done == OrderCanceled("0-0", "asked")
    assert gone == CancelRejected("0-1", "already canceled or matched", gone=True)
    assert refused == CancelRejected("0-2", "order is delayed", gone=False)
    assert isinstance(doubt, OrderUncertain) and doubt.order_id == "0-3"


@pytest.mark.parametrize("reply", [HANG, Say({}, 500), Say({"error": "service not ready"}, 425), Say(b"<html>")])
async def test_a_cancel_without_an_answer_is_doubt(reply):
    async with rig(wall_s=0.1) as r:
        r.venue.remember([(place(), MARKET)])
        r.server.on("DELETE", "/order", reply)
        r.do(cancel())
        (event,) = await r.heard(1, OrderUncertain)
        assert event.order_id == "1-1" and event.reason.startswith("cancel: ")


async def test_a_cancel_of_an_order_without_an_id_is_gone_and_said_once():
    async with rig() as r:
        r.do(cancel("9-9"), cancel("9-9"))
        assert await r.heard(2) == [CancelRejected("9-9", "never sent", gone=True)] * 2
        assert [level for level, _ in r.said] == [Level.WARNING] and not r.server.seen


@pytest.mark.parametrize(
    "failure",
    [
        Say({"canceled": [], "not_canceled": {id_of(place()): "order is delayed"}}),
        Say({"canceled": [], "not_canceled": {id_of(place()): "already canceled or matched"}}),
        Say({"error": "Trading is currently disabled"}, 503),
    ],
)
async def test_a_cancel_that_failed_is_not_repeated_within_the_second_but_not_forgotten(failure):
    async with rig(speed=4.0) as r:
        r.venue.remember([(place(), MARKET)])
        r.server.on("DELETE", "/order", failure, cancels_all)
        r.do(cancel())
        await r.heard(1, CancelRejected, OrderUncertain)
        refused_at = r.pace.now()
        for _ in range(3):
            r.do(cancel())
            await asyncio.sleep(0)
        await r.heard(1, OrderCanceled)
        first, second = r.server.of("DELETE")
        # The port noted the refusal between these two moments.
        assert first.at <= refused_at and second.at - first.at >= NS_PER_S
        assert len(r.of(CancelRejected, OrderUncertain, OrderCanceled)) == 2


# Regimes.


async def test_a_restart_is_waited_out_and_ends_in_post_only():
    commands = [place("1-1"), place("1-2"), place("1-3"), place("1-4", tif=TimeInForce.IOC), place("1-5", tif=TimeInForce.IOC)]
    async with rig(speed=100.0) as r:
        r.server.on("POST", "/order", Say({"error": "service not ready"}, 425), Book(*commands))
        r.server.on("GET", "/ok", Say({}, 425), Say({}, 425), Say("OK"))
        r.server.on("GET", "/data/order/*", Say({"id": id_of(commands[4]), "found": "filled", "filled": 10_000_000}))
        r.do(commands[0])
        await r.heard(1, RegimeChanged)
        assert r.of(RegimeChanged) == [RegimeChanged("polymarket", Regime.RESTART)]
        assert [event.order_id for event in await r.heard(1, OrderUncertain)] == ["1-1"]
        r.do(commands[1])
        (held,) = await r.heard(1, OrderRejected)
        assert (held.order_id, held.reason, held.detail) == ("1-2", "closed", "never sent: the venue is in restart")
        await r.heard(2, RegimeChanged)
        r.do(commands[2], commands[3])
        await r.heard(1, OrderAccepted)
        await r.heard(2, OrderRejected)
        assert r.of(OrderRejected)[1].order_id == "1-4", "not post-only"
        await r.heard(3, RegimeChanged)
        r.do(commands[4])
        await r.heard(2, OrderAccepted)
        assert [event.regime for event in r.of(RegimeChanged)] == [Regime.RESTART, Regime.POST_ONLY, Regime.OPEN]
        assert len(r.server.lines("GET /ok")) == 3


@pytest.mark.parametrize(
    ("status", "body", "regime"),
    [
        (503, {"error": "post-only mode: only post-only", "code": "post_only_mode", "retry_after_seconds": 79}, Regime.POST_ONLY),
        (503, {"error": "Trading is currently cancel-only. New orders are not accepted"}, Regime.CANCEL_ONLY),
        (503, {"error": "Trading is currently disabled. Check polymarket.com for updates"}, Regime.CLOSED),
        (401, {"error": "Unauthorized/Invalid api key"}, Regime.CLOSED),
    ],
)
async def test_a_regime_is_told_once_and_left_after_a_while(status, body, regime):
    commands = [place(f"1-{n}") for n in range(4)]
    async with rig(speed=500.0) as r:
        r.server.on("POST", "/order", Say(body, status), Say(body, status), Book(*commands))
        r.do(commands[0])
        await asyncio.sleep(0)
        await r.until(lambda: r.of(OrderUncertain, OrderRejected))
        assert [event.regime for event in r.of(RegimeChanged)] == [regime]
        assert isinstance(r.of(OrderUncertain, OrderRejected)[0], OrderRejected if status == 401 else OrderUncertain)
        await r.heard(2, RegimeChanged)
        assert [event.regime for event in r.of(RegimeChanged)] == [regime, Regime.OPEN]
        assert len([words for level, words in r.said if level is Level.ERROR]) == (1 if status == 401 else 0)


async def test_after_a_closure_one_order_at_a_time_is_risked_until_one_is_answered():
    commands = [place(f"1-{n}") for n in range(6)]
    gate, sizes = asyncio.Event(), []
    async with rig(speed=500.0) as r:
        book = Book(*commands)

        async def slow(seen):
            await gate.wait()
            return book(seen)

        r.server.on("POST", "/order", Say({"error": "Trading is currently disabled"}, 503), slow)
        r.server.on("POST", "/orders", lambda seen: sizes.append(len(seen.json)) or book(seen))
        r.do(commands[0])
        await r.heard(2, RegimeChanged)
        r.do(*commands[1:])
        await r.server.until("POST", 2)
        await asyncio.sleep(0.02)
        assert r.server.lines("POST") == ["POST /order"] * 2, "one alone"
        gate.set()
        await r.heard(5, OrderAccepted)
        assert sizes == [4]


async def test_a_batch_that_tells_of_post_only_mode():
    a, b = place("1-1", post_only=False), place("1-2", post_only=False)
    async with rig() as r:
        words = "post-only mode: only post-only orders and cancels are allowed"
        r.server.on("POST", "/orders", Say([taken("") | {"errorMsg": words}] * 2))
        r.do(a, b)
        await r.heard(3)
        assert [event.reason for event in r.of(OrderRejected)] == ["closed"] * 2
        assert r.of(RegimeChanged) == [RegimeChanged("polymarket", Regime.POST_ONLY)]


@pytest.mark.parametrize(
    "words", ["order_version_mismatch", "the order signer address has to be the address of the API KEY", "address banned"]
)
async def test_set_up_wrong_is_said_once_and_closes_for_good(words):
    commands = [place(f"1-{n}") for n in range(3)]
    async with rig(speed=500.0) as r:
        r.venue.remember([(place("0-1"), MARKET)])
        r.server.on("POST", "/order*", Say({"error": words}, 400))
        r.server.on("DELETE", "/order", Say({"error": "service not ready"}, 425), cancels_all)
        r.do(*commands[:2])
        await r.heard(2, OrderRejected)
        r.do(commands[2], cancel("0-1"))
        await r.heard(3, OrderRejected)
        await r.heard(1, OrderUncertain)
        r.do(cancel("0-1"))
        await r.heard(1, OrderCanceled)
        await r.pass_s(400)
        assert r.of(RegimeChanged) == [RegimeChanged("polymarket", Regime.CLOSED)]
        assert len(r.server.lines("POST")) == 1
        assert len([words for level, words in r.said if level is Level.ERROR]) == 1


# Look-ups, the account, the chain.


async def test_a_look_up_tells_what_was_found_or_that_nothing_is_there():
    command = place()
    async with rig() as r:
        r.venue.remember([(command, MARKET)])
        path = f"/data/order/{id_of(command)}"
        replies = [
            Say({"id": id_of(command), "found": "filled", "filled": 10_000_000}),
            Say({"error": "not found"}, 404),
            Say(None),
        ]
        r.server.on("GET", path, *replies)
        for count in (1, 2, 3):
            r.do(look_up())
            await r.heard(count)
        absent = OrderLookedUp("1-1", "absent")
        assert r.events == [OrderLookedUp("1-1", "filled", 10_000_000), absent, absent]


ANOTHER = Say({"id": id_of(place("1-2")), "found": "filled"})


@pytest.mark.parametrize(
    "reply", [HANG, Say({}, 500), Say(b"<html>", 404), Say(b"<html>"), Say({"id": "0xother"}), Say({}, 400), ANOTHER]
)
async def test_a_look_up_that_failed_tells_nothing(reply):
    async with rig(wall_s=0.1) as r:
        r.venue.remember([(place(), MARKET), (place("1-2"), MARKET)])
        r.server.on("GET", "/data/order/*", reply)
        r.do(look_up())
        await r.until(lambda: r.venue.counters.lookups_failed == 1)
        assert not r.events
        r.do(look_up("9-9"))
        assert r.venue.counters.lookups_failed == 2 and not r.events


async def test_the_real_reader_of_rows_is_used_where_none_is_given():
    command = place()
    async with rig() as r:
        venue = PolymarketVenue(
            r.clob, WALLET, SIGNER, r.own, r.reader, Stream(), r.chain, r.pace, GENEROUS, say=r.venue._say, heartbeat=None
        )
        venue.remember([(command, MARKET)])
        row = {"id": id_of(command), "status": "LIVE", "original_size": "10", "size_matched": "4", "asset_id": "123"}
        row |= {"side": "BUY", "price": "0.46", "market": "0xmarket", "owner": "api-key", "maker_address": WALLET.maker}
        r.server.on("GET", "/data/order/*", Say(row))
        events = []
        task = asyncio.create_task(venue.run(events.append))
        venue.execute(look_up())
        await r.until(lambda: events)
        assert events == [OrderLookedUp("1-1", "open", 4_000_000)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_question_at_a_time_and_old_news_answers_no_later_question():
    gate = asyncio.Event()
    async with rig() as r:
        r.venue.remember([(place(), MARKET)])

        async def slow(seen):
            await gate.wait()
            return Say(None)

        r.server.on("GET", "/data/order/*", slow, Say({"id": id_of(place()), "found": "open"}))
        r.do(look_up())
        await r.server.until("GET", 1)
        r.do(look_up(), look_up())
        await asyncio.sleep(0.01)
        assert len(r.server.lines("GET")) == 1
        gate.set()
        assert await r.heard(1) == [OrderLookedUp("1-1", "open")]
        await r.pass_s(1)
        assert len(r.server.lines("GET")) == 2 and len(r.events) == 1


async def test_the_account_is_read_once_at_a_time_and_the_newest_question_is_kept():
    async with rig() as r:
        r.do(*[RequestAccount("test", asked_ns=asked, since_ns=since) for asked, since in [(1, 50), (2, 20), (3, 30)]])
        await asyncio.sleep(0)
        r.do(RequestAccount("test", asked_ns=4, since_ns=40), RequestAccount("test", asked_ns=5, since_ns=45))
        r.reader.gate.set()
        await r.heard(4)
        assert r.reader.asked == [(3, 20), (5, 40)]
        kinds = [type(event) for event in r.events]
        assert kinds == [FillSettled, AccountSnapshot] * 2 and AccountUnknown not in kinds


async def test_a_fault_of_our_own_closes_lets_cancels_leave_and_ends_the_run():
    async with rig(fault=ZeroDivisionError, speed=50.0) as r:
        r.venue.remember([(place(), MARKET)])
        r.server.on("DELETE", "/order", cancels_all)
        r.reader.fault = ZeroDivisionError("a bug")
        r.reader.gate.set()
        r.do(RequestAccount("test"))
        assert await r.heard(1) == [RegimeChanged("polymarket", Regime.CLOSED)]
        r.do(cancel(), place("1-2"))
        await r.heard(3)
        assert r.of(OrderCanceled) and r.of(OrderRejected) and len(r.said) == 1


@pytest.mark.parametrize("fault", [None, asyncio.CancelledError()])
async def test_a_stream_that_ends_by_itself_is_a_fault(fault):
    async with rig(fault=AssertionError, speed=50.0) as r:
        r.stream.fault = fault
        r.stream.ends.set()
        await r.heard(1, RegimeChanged)


async def test_work_on_the_chain_is_done_one_after_another_and_told():
    async with rig() as r:
        r.chain.results = [
            WorkResult("done", cash=5),
            WorkResult("failed", "no gas"),
            WorkResult("done", cash=-7),
            WorkResult("failed"),
        ]
        r.do(MergeSets("0xmarket", 5, "r", "w1"), MergeSets("0xmarket", 6, "r", "w2"), SplitCash("0xmarket", 7, "r", "w3"))
        r.do(SplitCash("0xmarket", 8, "r", "w4"))
        await r.heard(4)
    assert r.events == [
        SetsMerged("0xmarket", 5, 0, "w1"),
        MergeFailed("0xmarket", 6, "no gas", True, "w2"),
        SetsSplit("0xmarket", 7, 0, "w3"),
        SplitFailed("0xmarket", 8, "", True, "w4"),
    ]
    assert r.chain.calls == [("merge", 5), ("merge", 6), ("split", 7), ("split", 8)]
    assert r.reader.touched, "the next reading of the account asks for what has moved"


async def test_a_result_that_is_not_known_is_asked_about_and_never_done_again():
    async with rig(speed=500.0) as r:
        r.chain.results = [
            WorkResult("unknown", "no receipt", tx="0x1"),
            WorkResult("unknown", "", tx="0x2"),
            WorkResult("done", cash=5),
        ]
        r.do(MergeSets("0xmarket", 5, "r", "w1"))
        await r.heard(2)
        assert r.events == [MergeFailed("0xmarket", 5, "no receipt", False, "w1"), SetsMerged("0xmarket", 5, 0, "w1")]
        assert r.chain.calls == [("merge", 5), ("check", "0x1"), ("check", "0x2")]


async def test_asking_about_a_result_has_an_end_and_without_a_handle_no_beginning(monkeypatch):
    monkeypatch.setattr(chain_work, "CHECKS", 3)
    async with rig(speed=500.0) as r:
        r.chain.results = [WorkResult("unknown", "lost"), WorkResult("unknown", "slow", tx="0x1"), *[WorkResult("unknown")] * 3]
        r.do(MergeSets("0xmarket", 5, "r", "w1"), RedeemShares("0xmarket", 5, 0, "r", "w2"))
        await r.until(lambda: len(r.chain.calls) == 5)
        await r.pass_s(100)
        assert [event.final for event in r.events] == [False, False] and len(r.chain.calls) == 5


@pytest.mark.parametrize(
    ("yes", "no", "cash", "legs"),
    [
        (10, 0, 10, [(Leg.YES, 10, 10)]),
        (0, 10, 0, [(Leg.NO, 10, 0)]),
        (10, 4, 10, [(Leg.YES, 10, 10), (Leg.NO, 4, 0)]),
        (10, 4, 4, [(Leg.YES, 10, 0), (Leg.NO, 4, 4)]),
        (4, 10, 10, [(Leg.YES, 4, 0), (Leg.NO, 10, 10)]),
        (10, 4, 7, [(Leg.YES, 10, 5), (Leg.NO, 4, 2)]),
        (6, 6, 6, [(Leg.YES, 6, 3), (Leg.NO, 6, 3)]),
        (10, 4, 0, [(Leg.YES, 10, 0), (Leg.NO, 4, 0)]),
    ],
)
async def test_a_redemption_is_told_leg_by_leg(yes, no, cash, legs):
    async with rig() as r:
        r.chain.results = [WorkResult("done", cash=cash)]
        r.do(RedeemShares("0xmarket", yes, no, "r", "w1"))
        await r.heard(len(legs))
    assert r.events == [CashMoved(CashKind.REDEMPTION, amount, "0xmarket", leg, qty, "w1") for leg, qty, amount in legs]


async def test_a_redemption_without_its_cash_is_not_told_as_done():
    async with rig(speed=500.0) as r:
        r.chain.results = [WorkResult("done", tx="0x1"), WorkResult("done", cash=10, tx="0x1")]
        r.do(RedeemShares("0xmarket", 10, 0, "r", "w1"))
        first, second = await r.heard(2)
        assert isinstance(first, RedeemFailed) and not first.final
        assert second == CashMoved(CashKind.REDEMPTION, 10, "0xmarket", Leg.YES, 10, "w1")


async def test_work_that_waited_too_long_is_not_begun(monkeypatch):
    monkeypatch.setattr(chain_work, "MAX_WAIT_S", -1.0)
    async with rig() as r:
        r.do(SplitCash("0xmarket", 7, "r", "w1"))
        (event,) = await r.heard(1)
        assert isinstance(event, SplitFailed) and event.final and not r.chain.calls
