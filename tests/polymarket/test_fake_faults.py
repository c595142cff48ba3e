"""The fake Polymarket misbehaves on request: each kind of fault does what it says, is counted, and ends; a storm holds them all."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from tests.fakes.polymarket.faults import KINDS, POST_ONLY_S, Faults
from tests.fakes.polymarket.records import FakeMarket
from tests.fakes.polymarket.server import CANCEL_ONLY, DISABLED, FakePolymarket
from tests.fakes.polymarket.setup import throwaway_account
from tests.polymarket.fake_client import OTHER_KEY, Client, eventually, world

CUT = (aiohttp.ClientError, asyncio.TimeoutError)


def orders_of(venue: FakePolymarket, client: Client) -> list[str]:
    return [row["id"] for row in venue.house.open_orders(client.account)]


def bid(told: dict[str, Any]) -> str:
    """The YES price of a price_change."""
    return str(told["price_changes"][0]["price"])


async def bids(client: Client, market: FakeMarket, *prices: str) -> None:
    for price in prices:
        assert (await client.place(market, price=price)).status == 200


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no such fault: thunder"):
        Faults().on("thunder")


def test_a_fault_has_an_end_a_number_a_place_and_a_share():
    faults = Faults(3)
    faults.on("slow", until_ms=10)
    assert faults.hit("slow", 9) and not faults.hit("slow", 10)
    faults.on("slow", times=2, only="/book")
    assert [bool(faults.hit("slow", 0, about)) for about in ("GET /time", "GET /book", "GET /books", "GET /book")] == [0, 1, 1, 0]
    faults.on("slow", 0.25)
    hits = sum(faults.hit("slow", 0) is not None for _ in range(1000))
    assert 200 < hits < 300 and faults.seen["slow"] == hits + 3
    faults.calm()
    assert not faults.hit("slow", 0)


# Frames.


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        ("market_drop", ["0.11", "0.12"]),
        ("market_duplicate", ["0.1", "0.1", "0.11", "0.12"]),
        ("market_reorder", ["0.11", "0.1", "0.12"]),
    ],
)
async def test_one_market_frame_goes_wrong(kind, arrives):
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        ears = await client.market_socket(market.yes)
        await ears.until("book")
        venue.faults.on(kind, times=1)
        await bids(client, market, "0.10", "0.11", "0.12")
        assert [bid(await ears.until("price_change")) for _ in arrives] == arrives
        assert await ears.quiet() and venue.faults.seen == {kind: 1}


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [("user_drop", "BC"), ("user_duplicate", "AABC"), ("user_reorder", "BAC")],
)
async def test_one_user_frame_goes_wrong(kind, arrives):
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        ears = await client.user_socket()
        await eventually(lambda: venue.sockets.connections[0].api_key)
        venue.faults.on(kind, times=1)
        await bids(client, market, "0.10", "0.11", "0.12")
        names = {"0.1": "A", "0.11": "B", "0.12": "C"}
        assert "".join([names[(await ears.until("order"))["price"]] for _ in arrives]) == arrives
        assert await ears.quiet() and venue.faults.seen == {kind: 1}


@pytest.mark.parametrize("channel", ["market", "user"])
async def test_a_late_frame_holds_up_those_behind_it(channel):
    async with world(speed=20) as venue, Client(venue) as client:
        market = venue.markets[0]
        ears = await (client.market_socket(market.yes, dump=False) if channel == "market" else client.user_socket())
        await eventually(lambda: venue.sockets.connections[0].tokens or venue.sockets.connections[0].api_key)
        venue.faults.on(f"{channel}_delay", times=1, value=6)
        await bids(client, market, "0.10", "0.11")
        placed_ms = venue.now_ms()
        kind = "price_change" if channel == "market" else "order"
        first, second = await ears.until(kind), await ears.until(kind)
        told = [bid(each) if channel == "market" else each["price"] for each in (first, second)]
        assert told == ["0.1", "0.11"] and venue.now_ms() - placed_ms > 4_000


@pytest.mark.parametrize("channel", ["market", "user"])
async def test_a_frozen_socket_answers_pings_and_is_closed_at_the_calm(channel):
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        listen = (lambda: client.market_socket(market.yes, dump=False)) if channel == "market" else client.user_socket
        ears = await listen()
        await eventually(lambda: venue.sockets.connections[0].tokens or venue.sockets.connections[0].api_key)
        venue.faults.on(f"{channel}_freeze", times=1)
        await bids(client, market, "0.10", "0.11")
        await ears.ping()
        assert await ears.next() == "PONG"
        fresh = await listen()
        await eventually(
            lambda: len(venue.sockets.connections) == 2 and all(c.tokens or c.api_key for c in venue.sockets.connections)
        )
        await bids(client, market, "0.12")
        assert await fresh.next() is not None, "another connection is well"
        assert await ears.quiet()
        venue.faults.calm()
        assert await ears.closed()
        assert venue.faults.seen == {f"{channel}_freeze": 1}


@pytest.mark.parametrize("channel", ["market", "user"])
async def test_a_half_open_socket_says_nothing_at_all(channel):
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        ears = await (client.market_socket(market.yes, dump=False) if channel == "market" else client.user_socket())
        await eventually(lambda: venue.sockets.connections[0].tokens or venue.sockets.connections[0].api_key)
        venue.faults.on(f"{channel}_half_open", times=1)
        await bids(client, market, "0.10")
        await ears.ping()
        assert await ears.quiet() and not ears.ws.closed
        assert venue.faults.seen == {f"{channel}_half_open": 1}


@pytest.mark.parametrize("channel", ["market", "user"])
async def test_a_socket_closes_without_a_goodbye(channel):
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        ears = await (client.market_socket(market.yes, dump=False) if channel == "market" else client.user_socket())
        await eventually(lambda: venue.sockets.connections[0].tokens or venue.sockets.connections[0].api_key)
        venue.faults.on(f"{channel}_close", times=1)
        await bids(client, market, "0.10")
        assert await ears.closed() and ears.ws.close_code == 1006
        assert venue.faults.seen == {f"{channel}_close": 1}


async def test_one_token_of_a_socket_falls_silent():
    async with world() as venue, Client(venue) as client:
        first, second = venue.markets
        ears = await client.market_socket(first.yes, second.yes, dump=False)
        await eventually(lambda: venue.sockets.connections[0].tokens)
        venue.faults.on("market_freeze_token", times=1, only=first.yes)
        await bids(client, first, "0.10", "0.11")
        await bids(client, second, "0.12")
        assert bid(await ears.until("price_change")) == "0.12"
        await bids(client, first, "0.13")
        assert await ears.quiet() and venue.faults.seen == {"market_freeze_token": 1}


async def test_a_book_that_is_crossed_and_a_best_that_is_not():
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        await bids(client, market, "0.30")
        await client.place(market, no=True, price="0.40")
        ears = await client.market_socket(market.yes, market.no, dump=False)
        await eventually(lambda: venue.sockets.connections[0].tokens)
        venue.faults.on("market_wrong_best", times=1)
        await bids(client, market, "0.31")
        yes, no = (await ears.until("price_change"))["price_changes"]
        assert (yes["best_bid"], yes["best_ask"], no["best_ask"]) == ("0.32", "0.6", "0.68")
        venue.faults.on("market_crossed", times=1)
        await bids(client, market, "0.29")
        book = await ears.until("book")
        assert max(Decimal(level["price"]) for level in book["bids"]) > min(Decimal(level["price"]) for level in book["asks"])
        assert venue.faults.seen == {"market_wrong_best": 1, "market_crossed": 1}


# Answers.


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("disabled", 503, DISABLED), ("cancel_only", 503, CANCEL_ONLY), ("limited", 429, "Too Many Requests")],
)
async def test_an_order_meets_a_closed_door(kind, status, words):
    async with world() as venue, Client(venue) as client:
        venue.faults.on(kind, times=2)
        refused = await client.place(venue.markets[0])
        assert (refused.status, refused.body, orders_of(venue, client)) == (status, {"error": words}, [])
        swept = await client.cancel_all()
        assert swept.status == (200 if kind == "cancel_only" else status)
        assert refused.headers.get("Retry-After") == ("1" if kind == "limited" else None)
        venue.faults.on("limited", times=1, value=0)
        assert "Retry-After" not in (await client.cancel_all()).headers


@pytest.mark.parametrize("kind", ["restart", "error_500"])
@pytest.mark.parametrize("taken", [0, 1])
async def test_an_error_that_says_nothing_of_what_was_done(kind, taken):
    async with world() as venue, Client(venue) as client:
        venue.faults.on(kind, times=1, value=taken)
        answer = await client.place(venue.markets[0])
        words = {"restart": (425, "service not ready"), "error_500": (500, "Internal server error")}[kind]
        assert (answer.status, answer.body["error"]) == words and len(orders_of(venue, client)) == taken


async def test_after_a_restart_only_post_only_orders_for_two_minutes():
    async with world(speed=300, rate_limits=False) as venue, Client(venue) as client:
        market = venue.markets[0]
        venue.faults.on("restart", until_ms=venue.now_ms() + 5_000, value=0)
        assert (await client.place(market)).status == 425 and (await client.cancel_all()).status == 425
        await eventually(lambda: venue.faults.told("post_only", venue.now_ms()))
        refused = await client.place(market, post_only=False)
        assert (refused.status, refused.body["code"]) == (503, "post_only_mode")
        assert 0 < refused.body["retry_after_seconds"] == int(refused.headers["Retry-After"]) <= POST_ONLY_S
        mixed = await client.private("POST", "/orders", [client.order(market, post_only=each) for each in (True, False)])
        assert [bool(entry["orderID"]) for entry in mixed.body] == [True, False]
        await eventually(lambda: not venue.faults.told("post_only", venue.now_ms()))
        assert (await client.place(market, price="0.2", post_only=False)).status == 200


@pytest.mark.parametrize("outcome", ["done", "lost"])
async def test_a_post_and_a_delete_hang(outcome):
    async with world(speed=500) as venue, Client(venue) as client:
        market = venue.markets[0]
        venue.faults.on(f"post_hang_{outcome}", times=1)
        with pytest.raises(CUT):
            await client.place(market)
        assert len(orders_of(venue, client)) == (outcome == "done")
        await bids(client, market, "0.2")
        before = len(orders_of(venue, client))
        venue.faults.on(f"delete_hang_{outcome}", times=1)
        with pytest.raises(CUT):
            await client.cancel_all()
        assert len(orders_of(venue, client)) == (0 if outcome == "done" else before)
        assert venue.faults.seen == {f"post_hang_{outcome}": 1, f"delete_hang_{outcome}": 1}


async def test_slow_malformed_and_failing_answers():
    async with world(speed=100) as venue, Client(venue) as client:
        venue.faults.on("slow", times=1, value=30, only="/clob/time")
        start = venue.now_ms()
        await client.get("/clob/ok")
        assert not venue.faults.seen
        await client.get("/clob/time")
        assert venue.now_ms() - start >= 30_000
        venue.faults.on("malformed", times=1)
        torn = await client.place(venue.markets[0])
        assert torn.status == 200 and isinstance(torn.body, str) and len(orders_of(venue, client)) == 1
        venue.faults.on("orders_fail", times=1)
        assert (await client.private("GET", "/data/orders")).status == 500
        assert (await client.private("GET", "/data/orders")).body["count"] == 1


async def test_stale_books_and_balances():
    async with world(speed=100, settle_s=(0.1, 0.2)) as venue, Client(venue) as client:
        market = venue.markets[0]
        query = {"asset_type": "COLLATERAL", "signature_type": "0"}
        assert (await client.private("GET", "/balance-allowance", query=query)).body["balance"] == "10000000000"
        venue.house.grant(client.account, None, Decimal(5))
        venue.faults.on("stale_balance")
        assert (await client.private("GET", "/balance-allowance", query=query)).body["balance"] == "10000000000"
        assert (await client.private("GET", "/balance-allowance/update", query=query)).status == 200
        assert (await client.private("GET", "/balance-allowance", query=query)).body["balance"] == "10005000000"
        wrong_kind = await client.private("GET", "/balance-allowance", query={**query, "signature_type": "3"})
        assert wrong_kind.body["balance"] == "0"
        venue.faults.on("stale_book", value=20)
        await eventually(lambda: venue.books._shots)
        await bids(client, market, "0.10")
        assert (await client.get("/clob/book", token_id=market.yes)).body["bids"] == []
        await asyncio.sleep(venue.wall(45))
        late = (await client.get("/clob/book", token_id=market.yes)).body
        assert late["bids"] and venue.now_ms() - int(late["timestamp"]) >= 20_000
        venue.faults.off("stale_book")
        assert venue.now_ms() - int((await client.get("/clob/book", token_id=market.yes)).body["timestamp"]) < 5_000


# The world.


async def traded(venue: FakePolymarket, client: Client) -> None:
    """One trade between the account and another."""
    other = venue.house.accounts.get(throwaway_account(0, key=OTHER_KEY).api_key) or throwaway_account(0, key=OTHER_KEY)
    if other.api_key not in venue.house.accounts:
        venue.house.add_account(other)
    async with Client(venue, other, OTHER_KEY) as taker:
        assert (await client.place(venue.markets[0], price="0.5")).status == 200
        assert (await taker.place(venue.markets[0], no=True, price="0.5", post_only=False)).body["status"] == "matched"


@pytest.mark.parametrize("kind", ["settle_failed", "settle_retrying", "settle_late"])
async def test_a_settlement_goes_wrong(kind):
    async with world(speed=200, settle_s=(0.5, 1.0)) as venue, Client(venue) as client:
        ears = await client.user_socket()
        venue.faults.on(kind, value=30 if kind == "settle_late" else 1)
        await asyncio.sleep(0.02)
        await traded(venue, client)
        status = {"settle_failed": "FAILED", "settle_retrying": "RETRYING", "settle_late": "CONFIRMED"}[kind]
        told = await ears.until("trade", status=status)
        assert venue.faults.seen[kind] >= 1
        if kind == "settle_late":
            assert int(told["timestamp"]) - 1000 * int(told["match_time"]) > 30_000
        venue.faults.off(kind)
        await asyncio.sleep(0.02)
        clearing = venue.house.clearing
        assert (clearing.fail_share, clearing.retry_share, clearing.settle_s) == (0.0, 0.0, (0.5, 1.0))


async def test_the_market_changes_under_our_feet():
    async with world(speed=50) as venue, Client(venue) as client:
        first, second = venue.markets
        ears = await client.market_socket(first.yes)
        venue.faults.on("tick_change", only=first.condition_id)
        told = await ears.until("tick_size_change")
        assert (told["old_tick_size"], told["new_tick_size"]) == ("0.01", "0.001")
        await bids(client, second, "0.10")
        user = await client.user_socket()
        # Counted before it has said who it is; what happens until then it does not hear.
        await eventually(lambda: any(one.api_key for one in venue.sockets.connections))
        venue.faults.on("market_closed", only=second.condition_id)
        assert (await user.until("order", type="CANCELLATION"))["status"] == "INVALID"
        assert (await client.get("/clob/book", token_id=second.yes)).status == 404
        venue.faults.on("market_closed")
        await asyncio.sleep(0.05)
        assert not first.closed, "the last open market stays, unless it is named"
        assert venue.faults.seen == {"tick_change": 1, "market_closed": 1}


async def test_what_the_program_did_not_do_appears_on_its_account():
    async with world(kind=3, speed=50) as venue, Client(venue) as client:
        venue.faults.on("foreign_order")
        venue.faults.on("foreign_holding", value=40)
        await eventually(lambda: venue.faults.seen == {"foreign_order": 1, "foreign_holding": 1})
        assert len((await client.private("GET", "/data/orders")).body["data"]) == 1
        rows = (await client.get("/data/v2/positions", user=client.account.maker)).body["data"]
        assert [row["current_size"] for row in rows] == [40.0]


# A storm.


def test_a_storm_turns_every_kind_on_and_off_within_the_hour():
    for level in (1, 2, 3):
        storm = Faults.storm(5, level)
        assert storm == Faults.storm(5, level) != Faults.storm(6, level)
        assert {gust.kind for gust in storm} == set(KINDS) and len(storm) == level * len(KINDS)
        assert all(60 <= gust.at_s < gust.until_s <= 3_960 for gust in storm)
    faults = Faults()
    faults.play(Faults.storm(5, 2), 0)
    on = set()
    for now_s in range(0, 4_100):
        faults.step(now_s * 1000)
        on |= {kind for kind in KINDS if faults.told(kind, now_s * 1000)}
    assert on == set(KINDS) and not [kind for kind in KINDS if faults.told(kind, 4_100_000)]


async def test_in_a_storm_every_kind_happens():
    """Venue hours of some seconds each, a crowd, a restless client; the house's money adds up at the end.

    On a busy machine a client may come too seldom to meet a short gust: then another hour follows, four at most.
    """
    async with world(markets=4, crowd=5_000, speed=1_000, rate_limits=False) as venue, Client(venue) as client:
        listeners = [asyncio.create_task(_listen(venue, client, channel)) for channel in ("market", "user")]
        for seed in (11, 12, 13, 14):
            start = venue.now_ms()
            venue.faults.play(Faults.storm(seed, 3), start)
            await asyncio.gather(*(_restless(venue, client, start + 4_000_000) for _ in range(4)))
            if set(venue.faults.seen) == set(KINDS):
                break
        venue.faults.calm()
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        assert set(venue.faults.seen) == set(KINDS), set(KINDS) - set(venue.faults.seen)
        venue.house.check()


async def _restless(venue: FakePolymarket, client: Client, until_ms: int) -> None:
    """Quotes, takes, cancels and looks, one after the other, whatever comes back."""
    while venue.now_ms() < until_ms:
        open_markets = [market for market in venue.markets if not market.closed]
        await _one_round(venue, client, open_markets[venue.now_ms() // 1000 % len(open_markets)])


async def _one_round(venue: FakePolymarket, client: Client, market: FakeMarket) -> None:
    touch_bid, touch_ask = venue.touch(market)
    price = f"{max(touch_bid, market.tick):f}"
    for ask in (
        lambda: client.place(market, price=price, size="6"),
        lambda: client.place(market, price=f"{touch_ask:f}" if touch_ask < 1 else price, post_only=False, size="6"),
        lambda: client.private("DELETE", "/cancel-all"),
        lambda: client.private("GET", "/data/orders"),
        lambda: client.private("GET", "/balance-allowance", query={"asset_type": "COLLATERAL", "signature_type": "0"}),
        lambda: client.get("/clob/book", token_id=market.yes),
    ):
        with contextlib.suppress(*CUT):
            await ask()


async def _listen(venue: FakePolymarket, client: Client, channel: str) -> None:
    """Follow everything; come back when the socket is gone or has been silent for a while."""
    tokens = [token for market in venue.markets for token in market.tokens]
    while True:
        with contextlib.suppress(*CUT):
            ears = await (client.market_socket(*tokens) if channel == "market" else client.user_socket())
            while await ears.next(0.1) is not None:
                pass
        with contextlib.suppress(*CUT):
            await ears.ws.close()
