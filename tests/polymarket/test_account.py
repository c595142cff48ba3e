"""The whole account over REST: the order of the calls, what is read again, and never a snapshot of a failed call."""

import asyncio
import base64
import contextlib
import json
import math
import time
from itertools import pairwise

import pytest
from aiohttp import web

from llm_maker.core.commands import Level
from llm_maker.core.events import AccountSnapshot, AccountUnknown, FillSettled, Holding, OrderFilled, RestingOrder
from llm_maker.core.values import FixedGrid, Instrument, InstrumentId, Kind, Leg, Side
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.account import reader as account
from llm_maker.venues.polymarket.account.reader import AccountReader
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Credentials, Wallet, WalletKind
from llm_maker.venues.polymarket.orders.ours import Ours, OwnOrders
from llm_maker.venues.polymarket.rest import Clob

SPEED = 200.0
SHARE = 10**6
NOW_S = 1_767_225_600
WALLET = Wallet(WalletKind.SAFE, "0x00000000000000000000000000000000000000DD", "0x00000000000000000000000000000000000000EE")
SECRET = base64.urlsafe_b64encode(b"k" * 32).decode()  # throwaway, worth nothing anywhere
CREDENTIALS = Credentials(WALLET.signer, "throwaway-key", SECRET, "throwaway")
ASKED, SINCE = (NOW_S + 5) * 10**9, (NOW_S - 600) * 10**9


def market(number, **changes):
    return Instrument(
        id=InstrumentId(f"0x{number:02x}"), venue="polymarket", kind=Kind.BINARY, price_decimals=4, qty_decimals=6,
        grid=FixedGrid(100), qty_step=10_000, min_qty=5 * SHARE, payout=10_000,
        token_ids=(f"{number}001", f"{number}002"), **changes,
    )  # fmt: skip


def digest(pair):
    return "0x" + pair * 32


def trade(trade_id="t1", status="MATCHED", pair="a1", token="1001", price="0.5", amount="5", at=NOW_S):
    entry = {"order_id": digest(pair), "owner": CREDENTIALS.key, "matched_amount": amount, "price": price, "asset_id": token}
    told = {"id": trade_id, "status": f"TRADE_STATUS_{status}", "trader_side": "MAKER", "taker_order_id": digest("ee")}
    return {**told, "match_time": str(at), "maker_orders": [entry], "fee_rate_bps": "", "transaction_hash": ""}


def order(pair="a1", matched="0", **more):
    told = {"id": digest(pair), "status": "LIVE", "asset_id": "1001", "side": "BUY", "price": "0.5", "original_size": "10"}
    return {**told, "owner": CREDENTIALS.key, "market": "0x01", "size_matched": matched, **more}


class Venue:
    """The CLOB's private reads on loopback; `then[n]` runs before the n-th call is answered, `broken` is a path's other answer."""

    def __init__(self):
        self.trades, self.orders, self.balances = [], [], {"": 1000 * SHARE}
        self.calls, self.then, self.broken, self.page = [], {}, {}, 100

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        await self._runner.cleanup()

    async def _handle(self, request):
        assert request.headers["POLY_API_KEY"] == CREDENTIALS.key
        query = dict(request.query)
        self.calls.append((request.path, query))
        for act in self.then.pop(len(self.calls), []):
            await act() if asyncio.iscoroutinefunction(act) else act()
        token = query.get("token_id", "")
        broken = self.broken.get((request.path, token), self.broken.get(request.path))
        if broken is not None:
            status, body = broken
            return web.Response(status=status, text=body)
        match request.path:
            case "/data/trades":
                assert not {"market", "asset_id", "maker_address"} & query.keys()
                after = int(query.get("after", 0))
                return self._page([row for row in self.trades if int(row["match_time"]) >= after], query)
            case "/data/orders":
                return self._page(self.orders, query)
            case "/balance-allowance":
                assert query["signature_type"] == "2" and (query["asset_type"] == "COLLATERAL") is (token == "")
                return web.json_response({"balance": str(self.balances.get(token, 0)), "allowances": {"0x0": "", "0x1": None}})
            case "/balance-allowance/update":
                return web.Response(status=200)
        return web.Response(status=404)

    def _page(self, rows, query):
        at = 0 if query["next_cursor"] == "MA==" else int(query["next_cursor"])
        end = at + self.page
        return web.json_response({"data": rows[at:end], "next_cursor": str(end) if end < len(rows) else "LTE="})

    def tokens(self, path="/balance-allowance"):
        """What balances were asked for since the last time this was."""
        asked = [query.get("token_id", "") for called, query in self.calls if called == path]
        self.calls = []
        return asked


class Bench:
    def __init__(self, venue, markets=2):
        began = time.monotonic_ns()
        self.pace = Pace(lambda: NOW_S * 10**9 + int((time.monotonic_ns() - began) * SPEED), SPEED)
        self.venue, self.own, self.said = venue, OwnOrders(), []
        self.markets = [market(number) for number in range(1, markets + 1)]
        for each in self.markets:
            self.own.know(each)
        for pair, at, leg in (("a1", 0, Leg.YES), ("a2", 0, Leg.NO), ("b1", 1, Leg.YES)):
            self.own.add(Ours(pair.upper(), digest(pair), self.markets[at], Side.BUY, leg, 5000, 10 * SHARE, True))
        self.wire = AccountWire(self.own, CREDENTIALS.key, WALLET.maker)
        self.clob = Clob(venue.url, self.pace, CREDENTIALS, timeout=400.0)
        said = self.said
        self.reader = AccountReader(
            self.clob, self.wire, self.own, WALLET, self.pace, say=lambda level, text: said.append((level, text))
        )

    async def read(self, since=SINCE):
        return await self.reader.read(ASKED, since)


@contextlib.asynccontextmanager
async def bench(markets=2):
    async with Venue() as venue:
        made = Bench(venue, markets)
        try:
            yield made
        finally:
            await made.clob.close()


async def test_the_account_whole():
    async with bench() as b:
        b.venue.trades = [trade(), trade("t2", "CONFIRMED", "b1", "2001", amount="2.5")]
        b.venue.orders = [order(matched="5"), order("c1", asset_id="77", market="0x77", side="SELL")]
        b.venue.balances |= {"1001": 5 * SHARE, "2001": 2_500000, "2002": 7}
        *fills, snapshot = await b.read()
        assert [type(event) for event in fills] == [OrderFilled, OrderFilled, FillSettled]
        assert snapshot == AccountSnapshot(
            orders=(
                RestingOrder("A1", digest("a1"), "0x01", Side.BUY, Leg.YES, 5000, 5 * SHARE),
                RestingOrder("", digest("c1"), "0x77", Side.SELL, Leg.NONE, 5000, 10 * SHARE),
            ),
            holdings=(
                Holding("0x01", Leg.YES, 5 * SHARE),
                Holding("0x01", Leg.NO, 0),
                Holding("0x02", Leg.YES, 2_500000),
                Holding("0x02", Leg.NO, 7),
            ),
            cash=1000 * SHARE,
            asked_ns=ASKED,
        )
        assert b.said == []
        paths = [path for path, _ in b.venue.calls]
        listed = [path for path in paths if path.startswith("/data/")]
        assert listed == ["/data/trades", "/data/orders", "/data/trades"] and paths[-1] == "/data/trades"
        assert b.venue.calls[0][1]["after"] == str(NOW_S - 600 - account.MARGIN_S)
        assert int(b.venue.calls[-1][1]["after"]) >= NOW_S - account.MARGIN_S


async def test_from_the_beginning_there_is_no_after_and_all_pages_are_read():
    async with bench() as b:
        b.venue.page = 2
        b.venue.trades = [trade(f"t{number}", at=NOW_S - 10**6) for number in range(5)]
        b.venue.orders = [order(pair) for pair in ("a1", "a2", "b1", "c1", "c2")]
        *fills, snapshot = await b.read(since=0)
        assert len(fills) == 5 and len(snapshot.orders) == 5 and "after" not in b.venue.calls[0][1]


async def test_a_fill_between_the_calls_is_told_before_the_snapshot():
    """The list and the balance already show it; whoever reads the events in order never sees shares of nobody."""
    async with bench() as b:
        b.venue.orders = [order()]

        def fills():
            b.venue.orders = []
            b.venue.balances["1001"] = 10 * SHARE
            b.venue.trades.append(trade(amount="10", at=NOW_S + 1))

        b.venue.then = {2: [fills]}
        fill, snapshot = await b.read()
        assert isinstance(fill, OrderFilled) and fill.qty == 10 * SHARE
        assert snapshot.orders == () and Holding("0x01", Leg.YES, 10 * SHARE) in snapshot.holdings


async def test_what_the_channel_told_is_not_told_again_but_its_end_is_asked_for():
    """A trade that matched long ago and was settled while nobody listened is older than the moment asked for."""
    async with bench() as b:
        old = trade(at=NOW_S - 5_000)
        assert len(b.wire.trades([json.dumps(old).encode()])) == 1
        b.venue.trades = [old]
        assert [type(event) for event in await b.read()] == [AccountSnapshot]
        b.venue.trades = [trade(status="CONFIRMED", at=NOW_S - 5_000)]
        assert [type(event) for event in await b.read()] == [OrderFilled, FillSettled, AccountSnapshot]
        b.venue.calls = []
        await b.read()
        assert b.venue.calls[0][1]["after"] == str(NOW_S - 600 - account.MARGIN_S)


async def test_a_trade_that_never_settles_is_not_asked_for_for_ever():
    async with bench() as b:
        b.wire.trades([json.dumps(trade(at=NOW_S - 10 * account.PENDING_S)).encode()])
        await b.read()
        after = int(b.venue.calls[0][1]["after"])
        assert NOW_S - account.PENDING_S - account.MARGIN_S <= after < NOW_S - 600


BROKEN = {
    "/data/trades": [(500, "down"), (425, "service not ready"), (200, "nonsense"), (200, '{"data":[{"id":5}]}')],
    "/data/orders": [(429, "slow down"), (200, "[]"), (200, '{"data":[{"id":"0x1","original_size":"x"}]}')],
    "/balance-allowance": [
        (401, '{"error":"Unauthorized/Invalid api key"}'),
        (503, "{}"),
        *((200, body) for body in ("", "{}", '{"balance":""}', '{"balance":"-1"}', '{"balance":"250.5"}', '{"balance":1e3}')),
    ],
    "/balance-allowance/update": [(500, "down")],
}


@pytest.mark.parametrize(("path", "answer"), [(path, answer) for path, answers in BROKEN.items() for answer in answers])
async def test_a_call_that_fails_is_never_nothing_there(path, answer):
    async with bench() as b:
        b.venue.trades = [trade()]
        b.venue.broken[path] = answer
        *told, unknown = await b.read()
        assert isinstance(unknown, AccountUnknown) and unknown.reason.startswith(path), unknown
        assert (len(told) == 1) is (path != "/data/trades")
        b.venue.broken.clear()
        *told, snapshot = await b.read()
        assert isinstance(snapshot, AccountSnapshot) and (len(told) == 1) is (path == "/data/trades")


@pytest.mark.parametrize("token", ["1002", "2001"])
async def test_one_balance_that_fails_is_enough_and_is_named(token):
    async with bench() as b:
        b.venue.broken["/balance-allowance", token] = (500, "down")
        (unknown,) = await b.read()
        assert isinstance(unknown, AccountUnknown) and token in unknown.reason


async def test_the_second_look_at_trades_must_succeed_too():
    async with bench() as b:
        b.venue.then = {3: [lambda: b.venue.broken.update({"/data/trades": (500, "down")})]}
        (unknown,) = await b.read()
        assert isinstance(unknown, AccountUnknown) and unknown.reason == "/data/trades: down"


async def test_a_silent_venue_is_unknown():
    async with bench() as b:
        b.clob.http.timeout = 100.0  # venue seconds

        async def silent():
            await asyncio.sleep(1)

        b.venue.then = {2: [silent]}
        (unknown,) = await b.read()
        assert isinstance(unknown, AccountUnknown) and unknown.reason == "/data/orders: no answer within 100s"


async def test_a_page_that_fails_loses_no_trade_that_was_read():
    async with bench() as b:
        b.venue.page = 1
        b.venue.trades = [trade(), trade("t2")]
        b.venue.then = {2: [lambda: b.venue.broken.update({"/data/trades": (500, "down")})]}
        told = await b.read()
        assert [type(event) for event in told] == [OrderFilled, AccountUnknown]
        b.venue.broken.clear()
        fill, _ = await b.read()
        assert fill.fill_id == "t2:A1"


async def test_a_reading_that_is_cancelled_loses_no_fill():
    async with bench() as b:
        b.venue.trades = [trade()]
        reading = []

        async def cancel():
            reading[0].cancel()
            await asyncio.sleep(0.05)

        b.venue.then = {2: [cancel]}
        reading.append(asyncio.create_task(b.read()))
        with pytest.raises(asyncio.CancelledError):
            await reading[0]
        fill, snapshot = await b.read()
        assert isinstance(fill, OrderFilled) and isinstance(snapshot, AccountSnapshot)


async def test_a_broken_fill_of_ours_is_said():
    async with bench() as b:
        b.venue.trades = [trade(amount="5.0000001")]
        (unknown,) = await b.read()
        assert isinstance(unknown, AccountUnknown) and "matched_amount" in unknown.reason
        ((level, text),) = b.said
        assert level is Level.WARNING and "1 not readable" in text


# Which balances are asked for.


async def test_every_token_first_then_ours_and_a_slice_of_the_others():
    async with bench(markets=20) as b:
        every = [token for each in b.markets for token in each.token_ids]
        b.venue.balances["7001"] = 3
        await b.read()
        assert b.venue.tokens() == ["", *every]
        b.venue.orders = [order("b1", asset_id="2001")]
        b.wire.parse(json.dumps(trade(token="1001") | {"event_type": "trade"}).encode())
        rounds = []
        for _ in range(account.READS_FOR_ALL):
            (snapshot,) = await b.read()
            assert len(snapshot.holdings) == len(every) and Holding("0x07", Leg.YES, 3) in snapshot.holdings
            rounds.append(b.venue.tokens())
        always, size = {"", "1001", "2001", "7001"}, 4 + math.ceil(len(every) / account.READS_FOR_ALL)
        assert all(always <= set(asked) and len(asked) == len(set(asked)) <= size for asked in rounds)
        assert set(every) <= {token for asked in rounds for token in asked}
        assert all((set(one) & set(two)) <= always for one, two in pairwise(rounds))


async def test_shares_that_came_by_themselves_are_seen_within_ten_reads_and_kept_in_sight():
    async with bench(markets=20) as b:
        await b.read()
        b.venue.balances["17002"] = 42
        seen = [Holding("0x11", Leg.NO, 42) in (await b.read())[-1].holdings for _ in range(account.READS_FOR_ALL)]
        assert seen[-1] and seen == sorted(seen)
        b.venue.balances["17002"] = 0
        assert Holding("0x11", Leg.NO, 0) in (await b.read())[-1].holdings


async def test_a_market_listed_later_is_read_before_it_is_told():
    async with bench() as b:
        await b.read()
        b.own.know(market(9))
        b.venue.balances["9002"] = 11
        assert Holding("0x09", Leg.NO, 11) in (await b.read())[-1].holdings
        b.venue.then = {len(b.venue.calls) + 2: [lambda: b.own.know(market(10))]}
        assert [type(event) for event in await b.read()] == [AccountSnapshot]
        b.venue.then = {len(b.venue.calls) + 3: [lambda: b.own.know(market(11))]}
        (unknown,) = await b.read()
        assert unknown == AccountUnknown("markets were listed while the account was read")
        assert isinstance((await b.read())[-1], AccountSnapshot)


async def test_the_venue_refreshes_its_view_of_what_moved_and_of_nothing_else():
    async with bench() as b:
        await b.read()
        assert b.venue.tokens("/balance-allowance/update") == [""]
        await b.read()
        assert b.venue.tokens("/balance-allowance/update") == []
        b.wire.parse(json.dumps(trade() | {"event_type": "trade"}).encode())
        await b.read()
        paths = [(path, query.get("token_id", "")) for path, query in b.venue.calls if path.startswith("/balance")]
        assert paths[:2] == [("/balance-allowance/update", ""), ("/balance-allowance/update", "1001")] or paths[:2] == [
            ("/balance-allowance/update", "1001"),
            ("/balance-allowance/update", ""),
        ]
        assert {path for path, _ in paths[2:]} == {"/balance-allowance"}
        b.venue.calls = []
        await b.read()
        assert b.venue.tokens("/balance-allowance/update") == []
        b.reader.touch(b.markets[1])
        await b.read()
        assert sorted(b.venue.tokens("/balance-allowance/update")) == ["", "2001", "2002"]


async def test_refreshes_are_bounded_and_the_rest_waits_for_the_next_reading():
    async with bench(markets=20) as b:
        await b.read()
        b.venue.calls = []
        for each in b.markets[:10]:
            b.reader.touch(each)
        rounds = []
        for _ in range(3):
            await b.read()
            rounds.append(b.venue.tokens("/balance-allowance/update"))
        assert len(rounds[0]) == account.MAX_REFRESHES and rounds[2] == []
        assert {token for asked in rounds for token in asked} == {"", *(t for m in b.markets[:10] for t in m.token_ids)}


async def test_a_refresh_that_failed_is_made_up_for():
    async with bench() as b:
        await b.read()
        b.reader.touch(b.markets[0])
        b.venue.broken["/balance-allowance/update", "1002"] = (500, "down")
        assert isinstance((await b.read())[-1], AccountUnknown)
        b.venue.broken.clear()
        b.venue.calls = []
        assert isinstance((await b.read())[-1], AccountSnapshot)
        assert "1002" in b.venue.tokens("/balance-allowance/update")


async def test_assets_of_the_newer_protocol_are_asked_for_by_their_own_name():
    async with bench() as b:
        b.own.know(market(3, route="v3"))
        b.venue.calls = []
        await b.read()
        kinds = {query.get("token_id", ""): query["asset_type"] for path, query in b.venue.calls if path == "/balance-allowance"}
        assert kinds == {
            "": "COLLATERAL", "1001": "CONDITIONAL", "1002": "CONDITIONAL", "2001": "CONDITIONAL", "2002": "CONDITIONAL",
            "3001": "CONDITIONAL-V2", "3002": "CONDITIONAL-V2",
        }  # fmt: skip


async def test_one_reading_at_a_time():
    async with bench() as b:
        first = asyncio.create_task(b.read())
        await asyncio.sleep(0)
        with pytest.raises(AssertionError):
            await b.read()
        assert isinstance((await first)[-1], AccountSnapshot)
