"""The fake Polymarket answers as the venue does: each family of requests, every kind of signature, limits, heartbeats, sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from polymarket import AsyncPublicClient, AsyncSecureClient, RelayerApiKey
from polymarket._internal.actions.relayer.calls import ctf_merge_positions_call
from polymarket.environments import PRODUCTION, _create_environment

from llm_maker.config import Polymarket
from tests.fakes.polymarket.records import FakeMarket
from tests.fakes.polymarket.relayer import RELAYER_KEY, Reverted
from tests.fakes.polymarket.server import Background, FakePolymarket
from tests.fakes.polymarket.setup import THROWAWAY_KEY, some_house, throwaway_account
from tests.fakes.polymarket.verify import SignedOrder, credentials, domain_separator, order_digest, order_signer
from tests.polymarket.fake_client import ANCHOR_MS, OTHER_KEY, Client, eventually, world

ROOT = Path(__file__).parent.parent.parent
ZERO32 = "0x" + "00" * 32
KNOWN = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


def environment(venue: FakePolymarket) -> Any:
    hosts = venue.hosts
    config = dataclasses.replace(
        PRODUCTION._config,
        clob_url=hosts["clob"],
        gamma_url=hosts["gamma"],
        data_url=hosts["data"],
        relayer_url=hosts["relayer"],
        rpc_url=hosts["rpc"],
        relayer_poll_frequency_ms=5,
    )
    return _create_environment(name="rehearsal", config=config)


# Signatures.


def test_digest_and_separators_are_the_references_own():
    """The golden vectors of `polymarket.md` 1.3."""
    signature = (
        "e5c5d392d3ecf4af37535cdd0718fd1e05973831ad43cd63e6fa45efe568cf4f"
        "7f92b4c7aaae8023c84500b86b5d9203e1252d7f4afa7eba29d8bb964534ef651b"
    )
    token = "71321045679252212594626385532706912750332728571942532289631379312455583992563"
    order = SignedOrder(
        12345, KNOWN, KNOWN, token, 40_000_000, 100_000_000, "BUY", 0, 1_763_000_000_000, ZERO32, ZERO32, 0,
        bytes.fromhex(signature), "", "GTC", True,
    )  # fmt: skip
    assert order_digest(order, "standard") == "0x5c258659f556bdde8620651707ecf32879827661c1b8ed1375028ca3a4945cc0"
    assert order_signer(order, "standard") == KNOWN.lower() != order_signer(order, "neg_risk")
    assert domain_separator("neg_risk").hex() == "9b858f53327b0bd13af8ec14cfb35234fb9eb7b0504d1a4e61f433840d30e81a"
    assert domain_separator("v3").hex() == "466c63910185bbd55e8679264200c4e0abdcbb0c6264eb3d41d13326022e095b"


@pytest.mark.parametrize("kind", [0, 1, 2, 3], ids=["eoa", "proxy", "safe", "deposit"])
async def test_a_signature_is_good_for_its_kind_and_route_alone(kind):
    async with world(kind=kind, markets=3) as venue, Client(venue) as client:
        standard, exclusive, newest = venue.markets
        newest.version, newest.neg_risk = "v2", False
        for market, route in ((standard, "standard"), (exclusive, "neg_risk"), (newest, "v3")):
            taken = await client.place(market, route=route)
            assert (taken.status, taken.body["status"]) == (200, "live"), taken.body
            for wrong in {"standard", "neg_risk", "v3"} - {route}:
                refused = await client.place(market, route=wrong)
                assert (refused.status, refused.body) == (400, {"error": "invalid signature"})
                assert f"wants {route}, good for ['{wrong}']" in venue.log[-1][4]
        body = client.order(standard)
        for name, value in (
            ("takerAmount", "11000000"),
            ("salt", 5),
            ("timestamp", "1763000000001"),
            ("builder", "0x" + "01" * 32),
        ):
            bent = {**body, "order": {**body["order"], name: value}}
            assert (await client.private("POST", "/order", bent)).body == {"error": "invalid signature"}, name
        cut = {**body, "order": {**body["order"], "signature": body["order"]["signature"][:-2]}}
        assert (await client.private("POST", "/order", cut)).body == {"error": "invalid signature"}


async def test_an_order_of_somebody_else_is_refused_in_the_venues_words():
    async with world(kind=3) as venue, Client(venue) as client:
        market = venue.markets[0]
        stranger = throwaway_account(0, key=OTHER_KEY)
        venue.house.add_account(stranger)
        body = client.order(market)

        async def said(**changed: Any) -> str:
            order = {**body["order"], **{name: value for name, value in changed.items() if name in body["order"]}}
            envelope = {name: value for name, value in changed.items() if name not in body["order"]}
            return str((await client.private("POST", "/order", {**body, **envelope, "order": order})).body["error"])

        assert await said(owner=stranger.api_key) == "the order owner has to be the owner of the API KEY"
        assert await said(owner=client.account.maker) == "the order owner has to be the owner of the API KEY"
        assert await said(signer=client.account.signer) == "the order signer address has to be the address of the API KEY"
        assert await said(maker=stranger.maker) == "maker address not allowed, please use the deposit wallet flow"
        assert await said(signatureType=0) == "maker address not allowed, please use the deposit wallet flow"
        assert await said(tokenId="12345") == "No orderbook exists for the requested token id"
        for name, value in (
            ("side", 0),
            ("salt", "5"),
            ("takerAmount", 10),
            ("signature", "0x"),
            ("orderType", "IOC"),
            ("postOnly", 1),
        ):
            assert await said(**{name: value}) == "Invalid order payload", name
        old = {name: value for name, value in body["order"].items() if name != "timestamp"} | {"nonce": "0", "feeRateBps": "0"}
        answer = await client.private("POST", "/order", {**body, "order": old})
        assert (answer.status, answer.body) == (400, {"error": "order_version_mismatch"})
        async with Client(venue, stranger, THROWAWAY_KEY) as forged:
            assert (await forged.place(market)).body["error"] == "the order signer address has to be the address of the API KEY"


# Proofs.


async def test_a_private_request_needs_an_exact_proof():
    async with world() as venue, Client(venue) as client:
        good = await client.private("GET", "/data/orders", query={"market": "0x1"})
        assert (good.status, good.body["next_cursor"]) == (200, "LTE=")
        stranger = throwaway_account(0, key=OTHER_KEY)
        venue.house.add_account(stranger)
        signed = await client.private("POST", "/order", client.order(venue.markets[0]), POLY_SIGNATURE="AAAA")
        wrong = [
            signed,
            await client.private("GET", "/data/orders", late_s=61),
            await client.private("GET", "/data/orders", late_s=-61),
            await client.private("GET", "/data/orders", POLY_API_KEY=stranger.api_key),
            await client.private("GET", "/data/orders", POLY_API_KEY="nobody"),
            await client.private("GET", "/data/orders", POLY_PASSPHRASE="x"),
            await client.private("GET", "/data/orders", POLY_ADDRESS=stranger.signer),
            await client.private("GET", "/data/orders", POLY_TIMESTAMP="soon"),
        ]
        assert {(answer.status, answer.body["error"]) for answer in wrong} == {(401, "Unauthorized/Invalid api key")}


async def test_a_key_is_made_once_of_address_and_nonce():
    async with world() as venue, Client(venue) as client:
        exists = await client.prove("POST", "/auth/api-key", nonce=1)
        assert (exists.status, exists.body) == (400, {"error": "Could not create api key"})
        found = await client.prove("GET", "/auth/derive-api-key", nonce=1)
        assert found.body["apiKey"] == client.account.api_key and found.body["secret"] == client.account.secret
        missing = await client.prove("GET", "/auth/derive-api-key", nonce=8)
        assert (missing.status, missing.body) == (400, {"error": "Could not derive api key!"})
        made = await client.prove("POST", "/auth/api-key", nonce=8)
        assert made.body["apiKey"] == credentials(client.account.signer, 8)[0] != client.account.api_key
        assert (await client.prove("GET", "/auth/derive-api-key", nonce=8)).body == made.body
        for answer in (
            await client.prove("POST", "/auth/api-key", nonce=9, late_s=61),
            await client.prove("POST", "/auth/api-key", nonce=9, POLY_NONCE="10"),
            await client.prove("POST", "/auth/api-key", nonce=9, POLY_ADDRESS="0x" + "12" * 20),
        ):
            assert (answer.status, answer.body) == (401, {"error": "Invalid L1 Request headers"})
        assert (await client.private("GET", "/auth/api-keys")).body["apiKeys"] == [client.account.api_key, made.body["apiKey"]]
        # An order posted with the second key is the same account's, and is read in that key's name.
        second = dataclasses.replace(
            client.account, api_key=made.body["apiKey"], secret=made.body["secret"], passphrase=made.body["passphrase"]
        )
        async with Client(venue, second) as other:
            user = await other.user_socket()
            order_id = (await other.place(venue.markets[0])).body["orderID"]
            assert (await user.until("order", id=order_id))["owner"] == second.api_key
            assert [row["owner"] for row in (await other.private("GET", "/data/orders")).body["data"]] == [second.api_key]


async def test_a_stranger_gets_keys_but_has_nothing():
    async with world() as venue, Client(venue, throwaway_account(0, key=OTHER_KEY), OTHER_KEY) as stranger:
        assert (await stranger.private("GET", "/data/orders")).status == 401
        assert (await stranger.prove("POST", "/auth/api-key", nonce=1)).status == 200
        assert "not enough balance / allowance" in (await stranger.place(venue.markets[0])).body["error"]


# The SDK is content with every answer it reads.


@pytest.mark.parametrize("kind", [0, 3], ids=["eoa", "deposit"])
async def test_the_sdk_trades_here(kind):
    account = throwaway_account(kind)
    now_ms = 0
    venue = FakePolymarket(some_house(3, markets=2, now_ms=now_ms, accounts=[account]), crowd_every_ms=0)
    async with venue:
        sdk = await AsyncSecureClient.create(
            private_key=THROWAWAY_KEY, wallet=account.maker, nonce=1, environment=environment(venue)
        )
        try:
            assert sdk.credentials.key == account.api_key
            for market in venue.markets:
                placed = await sdk.place_limit_order(
                    token_id=market.yes, price=Decimal("0.2"), size=Decimal(10), side="BUY", post_only=True
                )
                assert placed.ok, placed
                orders = [order async for order in sdk.list_open_orders().iter_items()]
                assert [order.id for order in orders] == [placed.order_id]
                assert (await sdk.get_order(order_id=placed.order_id)).price == Decimal("0.2")
                canceled = await sdk.cancel_order(order_id=placed.order_id)
                assert canceled.canceled == (placed.order_id,)
            balance = await sdk.get_balance_allowance(asset_type="COLLATERAL")
            assert balance.balance == 10_000_000_000
            assert not await sdk.get_closed_only_mode()
            beat = await sdk.send_order_heartbeat()
            assert (await sdk.send_order_heartbeat(heartbeat_id=beat.heartbeat_id)).heartbeat_id != beat.heartbeat_id
        finally:
            await sdk.close()


async def test_what_the_relayer_merges_is_merged_in_the_house():
    account = throwaway_account(3)
    async with FakePolymarket(some_house(3, markets=2, now_ms=0, accounts=[account]), crowd_every_ms=0) as venue:
        market, exclusive = venue.markets
        for token in (*market.tokens, *exclusive.tokens):
            venue.house.grant(account, token, Decimal(9))
        sdk = await AsyncSecureClient.create(
            private_key=THROWAWAY_KEY,
            wallet=account.maker,
            nonce=1,
            environment=environment(venue),
            api_key=RelayerApiKey(key=RELAYER_KEY, address=account.signer),
        )
        try:
            done = await sdk.merge_positions(condition_id=market.condition_id, amount=4_000_000)
            await done.wait()
            assert (account.cash, account.shares[market.yes], account.shares[market.no]) == (10_004, 5, 5)
            await (await sdk.split_position(condition_id=market.condition_id, amount=1_000_000)).wait()
            assert (account.cash, account.shares[market.yes], account.shares[market.no]) == (10_003, 6, 6)
            venue.house.resolve(market.condition_id, "no", venue.now_ms())
            await (await sdk.redeem_positions(condition_id=market.condition_id)).wait()
            assert (account.cash, account.shares[market.yes], account.shares[market.no]) == (10_009, 0, 0)
            venue.house.check()
            config = sdk.environment._config
            for target, goes in ((config.collateral_adapter, False), (config.neg_risk_collateral_adapter, True)):
                call = ctf_merge_positions_call(
                    target=target, collateral=config.collateral_token, condition_id=exclusive.condition_id, amount=2_000_000
                )
                with contextlib.nullcontext() if goes else pytest.raises(Reverted):
                    venue.chain.do(account.maker, call.to, bytes.fromhex(call.data[2:]))
            assert (account.cash, account.shares[exclusive.yes]) == (10_011, 7)
        finally:
            await sdk.close()


async def test_the_sdk_reads_markets_books_and_positions():
    async with world(markets=5, crowd=500, speed=20) as venue:
        account = next(iter(venue.house.accounts.values()))
        venue.house.grant(account, venue.markets[0].yes, Decimal(12))
        await eventually(lambda: venue.touch(venue.markets[0])[0] > 0)
        venue.crowd_every_ms = 0
        public = AsyncPublicClient(environment=environment(venue))
        try:
            found = [market async for market in public.list_markets(page_size=2).iter_items()]
            assert [market.condition_id for market in found] == [market.condition_id for market in venue.markets]
            first, told = venue.markets[0], found[0]
            assert (told.outcomes.yes.token_id, told.outcomes.no.token_id) == first.tokens
            assert told.trading.fee_schedule is not None and told.trading.fee_schedule.rate == first.fee_rate
            assert told.rewards.rewards_min_size == 20
            events = [event async for event in public.list_events().iter_items()]
            assert [len(event.markets) for event in events] == [1, 2, 1, 1]
            assert (await public.get_market(slug="market-1")).state.neg_risk
            book = await public.get_order_book(token_id=first.yes)
            assert book.bids[-1].price == max(level.price for level in book.bids) < book.asks[-1].price
            assert await public.get_midpoint(token_id=first.yes) == (book.bids[-1].price + book.asks[-1].price) / 2
            (position,) = [row async for row in public.list_positions(user=account.maker).iter_items()]
            assert (position.asset_id, position.current_size) == (first.yes, 12)
        finally:
            await public.close()


# Public reads, raw.


async def test_public_reads():
    async with world(markets=3, crowd=500, speed=20) as venue, Client(venue) as client:
        first = venue.markets[0]
        await eventually(lambda: venue.touch(first)[0] > 0)
        venue.crowd_every_ms = 0
        assert abs((await client.get("/clob/time")).body - venue.now_ms() // 1000) <= 60
        assert (await client.get("/clob/ok")).body == "OK" and (await client.get("/clob/version")).body == {"version": 2}
        book = (await client.get("/clob/book", token_id=first.no)).body
        assert book["asset_id"] == first.no and book["bids"] and set(book["bids"][0]) == {"price", "size"}
        unknown = await client.get("/clob/book", token_id="7")
        assert (unknown.status, unknown.body["error"]) == (404, "No orderbook exists for the requested token id")
        assert (await client.get("/clob/book")).body == {"error": "Invalid token id"}
        rows = json.dumps([{"token_id": first.yes}, {"token_id": "7"}, {"token_id": first.no}])
        assert [row["asset_id"] for row in (await client._send("POST", "/clob/books", raw=rows)).body] == [first.yes, first.no]
        both = json.dumps([{"token_id": first.yes, "side": "BUY"}, {"token_id": first.yes, "side": "SELL"}])
        prices = (await client._send("POST", "/clob/prices", raw=both)).body[first.yes]
        assert Decimal(prices["BUY"]) < Decimal(prices["SELL"])
        rules = (await client.get(f"/clob/clob-markets/{first.condition_id}")).body
        assert rules["t"] == [{"t": first.yes, "o": "Yes"}, {"t": first.no, "o": "No"}]
        assert (rules["mts"], rules["mos"], rules["fd"]["r"], rules["r"]["mi"]) == (0.01, 5, 0.05, 20)
        told = (await client.get(f"/clob/markets/{first.condition_id}")).body
        assert [token["token_id"] for token in told["tokens"]] == list(first.tokens) and told["accepting_orders"]
        assert (await client.get("/clob/markets/0x1")).status == 404
        assert (await client.get(f"/clob/markets-by-token/{first.no}")).body["condition_id"] == first.condition_id
        assert (await client.get("/clob/tick-size", token_id=first.yes)).body == {"minimum_tick_size": 0.01}
        assert (await client.get("/clob/neg-risk", token_id=venue.markets[1].yes)).body == {"neg_risk": True}
        now_s = venue.now_ms() // 1000
        asked = {"market": first.yes, "startTs": str(now_s - 7_200), "endTs": str(now_s), "fidelity": "5"}
        history = (await client.get("/clob/prices-history", **asked)).body["history"]
        assert len(history) == 25 and history == (await client.get("/clob/prices-history", **asked)).body["history"]
        rewards = (await client.get("/clob/rewards/markets/current")).body
        assert [row["condition_id"] for row in rewards["data"]] == [first.condition_id, venue.markets[2].condition_id]
        assert (await client.get("/geoblock")).body["blocked"] is False


async def test_gamma_pages_filters_and_arrays_in_text():
    async with world(markets=5) as venue, Client(venue) as client:
        first = (await client.get("/gamma/markets/keyset", limit="3")).body
        rest = (await client.get("/gamma/markets/keyset", limit="3", after_cursor=first["next_cursor"])).body
        assert [len(first["markets"]), len(rest["markets"])] == [3, 2] and "next_cursor" not in rest
        told = first["markets"][0]
        assert isinstance(told["clobTokenIds"], str) and json.loads(told["clobTokenIds"]) == list(venue.markets[0].tokens)
        assert json.loads(told["outcomes"]) == ["Yes", "No"] and told["version"] == "v1"
        assert told["feeSchedule"] == {"rate": 0.05, "exponent": 1, "takerOnly": True, "rebateRate": 0.25}

        async def slugs(**query: str) -> list[str]:
            return [row["slug"] for row in (await client.get("/gamma/markets/keyset", **query)).body["markets"]]

        venue.house.close_market(venue.markets[4].condition_id, venue.now_ms())
        assert await slugs(closed="false") == ["market-0", "market-1", "market-2", "market-3"]
        assert await slugs(condition_ids=venue.markets[2].condition_id) == ["market-2"]
        assert await slugs(slug="market-3") == ["market-3"]
        assert await slugs(order="volumeNum", ascending="false", limit="2") == ["market-4", "market-3"]
        politics = (await client.get("/gamma/tags/slug/politics")).body["id"]
        assert await slugs(tag_id=politics) == ["market-1", "market-2"]
        assert await slugs(liquidity_num_min="23500") == ["market-4"]
        event = (await client.get("/gamma/events", slug="race-0")).body
        assert [market["slug"] for market in event[0]["markets"]] == ["market-1", "market-2"] and event[0]["negRisk"]
        assert (await client.get("/gamma/markets/slug/none")).status == 404


# Batches, cancels, pages.


async def test_batches_have_a_least_and_a_most():
    async with world(rate_limits=False) as venue, Client(venue) as client:
        market = venue.markets[0]
        bodies = [client.order(market, price=f"0.{10 + number}") for number in range(16)]
        assert (await client.private("POST", "/orders", bodies)).body == {
            "error": "Too many orders in payload: 16, max allowed: 15"
        }
        assert (await client.private("POST", "/orders", [])).status == 400
        bodies[3] = client.order(market, price="0.305")
        bodies[4]["owner"] = "x"
        answer = await client.private("POST", "/orders", bodies[:15])
        assert answer.status == 200 and len(answer.body) == 15
        assert [number for number, entry in enumerate(answer.body) if not entry["orderID"]] == [3, 4]
        assert answer.body[3]["success"] and "breaks minimum tick size rule" in answer.body[3]["errorMsg"]
        ids = [entry["orderID"] for entry in answer.body if entry["orderID"]]
        assert (await client.private("DELETE", "/orders", [f"0x{n:064x}" for n in range(1001)])).status == 400
        assert (await client.private("DELETE", "/orders", ["nonsense"])).body == {"error": "Invalid orderID"}
        gone = await client.private("DELETE", "/orders", [*ids[:2], f"0x{7:064x}"])
        assert gone.status == 200 and gone.body["canceled"] == ids[:2] and list(gone.body["not_canceled"]) == [f"0x{7:064x}"]
        again = await client.private("DELETE", "/order", {"orderID": ids[0]})
        assert again.body["not_canceled"] == {ids[0]: "already canceled or matched"}
        other = (await client.place(venue.markets[1])).body["orderID"]
        swept = await client.private("DELETE", "/cancel-market-orders", {"market": market.condition_id})
        assert sorted(swept.body["canceled"]) == sorted(ids[2:])
        assert (await client.private("GET", f"/data/order/{ids[0]}")).body["status"] == "CANCELED"
        assert [row["id"] for row in (await client.private("GET", "/data/orders")).body["data"]] == [other]
        assert (await client.private("GET", f"/data/order/0x{7:064x}")).status == 404
        assert (await client.cancel_all()).body == {"canceled": [other], "not_canceled": {}}


async def test_listings_come_in_pages():
    async with world(rate_limits=False) as venue, Client(venue) as client:
        market = venue.markets[0]
        for start in range(0, 60, 15):
            await client.private(
                "POST", "/orders", [client.order(market, price="0.01", size=f"{10 + start + n}") for n in range(15)]
            )
        first = (await client.private("GET", "/data/orders", query={"next_cursor": "MA=="})).body
        rest = (await client.private("GET", "/data/orders", query={"next_cursor": first["next_cursor"]})).body
        assert [first["count"], rest["count"], rest["next_cursor"]] == [50, 10, "LTE="]
        assert len({row["id"] for row in first["data"] + rest["data"]}) == 60


# Limits.


async def test_an_order_more_than_the_bucket_holds_must_wait():
    async with world() as venue, Client(venue) as client:
        market = venue.markets[0]
        venue.now_ns = lambda: ANCHOR_MS * 10**6  # type: ignore[method-assign]  # time stands still: nothing flows back
        bodies = [client.order(market, price="0.01", size=f"{10 + n}") for n in range(61)]
        for start in range(0, 45, 15):
            answer = await client.private("POST", "/orders", bodies[start : start + 15])
        assert answer.headers["Poly-RateLimit-Remaining"] == "15" and answer.headers["Poly-RateLimit-Tier"] == "Standard"
        await client.private("POST", "/order", bodies[45])
        refused = await client.private("POST", "/orders", bodies[46:61])
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert len(venue.house.open_orders(client.account)) == 46, "a batch is all or nothing"
        assert (await client.private("POST", "/orders", bodies[46:60])).status == 200
        assert (await client.private("POST", "/order", bodies[60])).status == 429
        # Cancels have a bucket of their own, which a sweep may leave owing; what exceeds the burst is never admitted.
        too_many = await client.private("DELETE", "/orders", [f"0x{n:064x}" for n in range(121)])
        assert too_many.status == 429 and "Retry-After" not in too_many.headers
        ids = [row["id"] for row in venue.house.open_orders(client.account)]
        assert (await client.private("DELETE", "/orders", [f"0x{n:064x}" for n in range(100)])).status == 200
        swept = await client.cancel_all()
        assert len(swept.body["canceled"]) == len(ids) == 60
        assert swept.headers["Poly-RateLimit-Remaining"] == str(120 - 100 - 61)
        assert (await client.private("DELETE", "/order", {"orderID": ids[0]})).status == 429


# Heartbeats.


async def test_silence_after_the_first_beat_cancels_everything():
    async with world(speed=100) as venue, Client(venue) as client:
        await client.place(venue.markets[0])
        first = await client.private("POST", "/v1/heartbeats", {"heartbeat_id": ""})
        second = await client.private("POST", "/v1/heartbeats", {"heartbeat_id": first.body["heartbeat_id"]})
        wrong = await client.private("POST", "/v1/heartbeats", {"heartbeat_id": first.body["heartbeat_id"]})
        assert (wrong.status, wrong.body) == (400, {"error_msg": "Invalid Heartbeat ID", **second.body})
        assert venue.house.open_orders(client.account)
        await eventually(lambda: not venue.house.open_orders(client.account))
        assert venue.counters["heartbeat_cancels"] == 1
        beats = [row for row in venue.log if row[1] == "BEAT"]
        posts = [row for row in venue.log if row[2].endswith("heartbeats")]
        assert beats[0][0] - posts[1][0] > 10_000, "ten seconds at the least"
        assert (await client.private("POST", "/v1/heartbeats", {"heartbeat_id": ""})).status == 400, "it is never disarmed"


async def test_orders_without_a_heartbeat_stay():
    async with world(speed=400) as venue, Client(venue) as client:
        await client.place(venue.markets[0])
        start = venue.now_ms()
        await eventually(lambda: venue.now_ms() - start > 60_000)
        assert venue.house.open_orders(client.account)


# Sockets.


async def test_the_market_channel():
    async with world() as venue, Client(venue) as client:
        first, second = venue.markets
        ears = await client.market_socket(first.yes, "12345")
        assert (await ears.until("book"))["asset_id"] == first.yes
        await ears.ping()
        assert await ears.next() == "PONG"
        await ears.ws.send_str("hello")
        assert await ears.next() == "INVALID OPERATION"
        await client.place(first, price="0.30")
        told = await ears.until("price_change")
        change = told["price_changes"][0]
        assert (change["asset_id"], change["price"], change["size"], change["best_bid"]) == (first.yes, "0.3", "10", "0.3")
        assert told["price_changes"][1]["asset_id"] == first.no, "one message tells both outcomes"
        await client.place(second)
        assert await ears.quiet(), "nothing of a market that is not followed, nothing that was not asked for"
        await ears.ws.send_json({"operation": "subscribe", "assets_ids": [second.no, first.yes], "custom_feature_enabled": True})
        assert (await ears.until("book"))["asset_id"] == second.no
        assert await ears.quiet(), "a token already followed is not dumped again"
        await client.place(second, price="0.31")
        assert (await ears.until("best_bid_ask"))["asset_id"] == second.no
        venue.list_market(FakeMarket("0x" + "ab" * 32, "111", "222", "New?"))
        assert (await ears.until("new_market"))["assets_ids"] == ["111", "222"]
        await ears.ws.send_json({"operation": "unsubscribe", "assets_ids": [second.no]})
        await ears.ping()
        assert await ears.next() == "PONG"
        await client.place(second, price="0.32")
        assert await ears.quiet()


async def test_the_user_channel_follows_an_order_to_the_end():
    async with world(speed=20) as venue, Client(venue) as client:
        taker_account = throwaway_account(0, key=OTHER_KEY)
        venue.house.add_account(taker_account)
        market = venue.markets[0]
        for wrong in ({"secret": "x"}, {"apiKey": "nobody"}, {"passphrase": taker_account.passphrase}):
            refused = await client.user_socket(**wrong)
            assert await refused.closed()
        ears = await client.user_socket()
        await ears.ping()
        assert await ears.next() == "PONG"
        order_id = (await client.place(market, price="0.40")).body["orderID"]
        placed = await ears.until("order", type="PLACEMENT")
        assert (placed["id"], placed["status"], placed["owner"]) == (order_id, "LIVE", client.account.api_key)
        async with Client(venue, taker_account, OTHER_KEY) as taker:
            met = await taker.place(market, no=True, price="0.60", size="6", post_only=False)
            assert met.body["status"] == "matched" and len(met.body["tradeIDs"]) == 1
        assert (await ears.until("order", type="UPDATE"))["size_matched"] == "6"
        trade = await ears.until("trade", status="MATCHED")
        assert (trade["asset_id"], trade["trader_side"]) == (market.no, "MAKER"), "its top level is the taker's"
        mine = trade["maker_orders"][0]
        assert (mine["order_id"], mine["asset_id"], mine["matched_amount"]) == (order_id, market.yes, "6")
        assert (await ears.until("trade", status="CONFIRMED"))["id"] == trade["id"]
        assert (await client.private("GET", "/data/trades")).body["data"][0]["status"] == "TRADE_STATUS_CONFIRMED"
        await client.cancel_all()
        assert (await ears.until("order", type="CANCELLATION"))["id"] == order_id
        again = await client.user_socket()
        assert await again.quiet(), "nothing is replayed"
        held = await client.private(
            "GET", "/balance-allowance", query={"asset_type": "CONDITIONAL", "token_id": market.yes, "signature_type": "0"}
        )
        assert held.body["balance"] == "6000000"


# In the background.


def test_a_thread_of_its_own_takes_orders_from_a_test():
    venue = world()
    with Background(venue) as fake:
        account = next(iter(venue.house.accounts.values()))
        assert fake.call(venue.house.open_orders, account) == []
        with pytest.raises(KeyError):
            fake.call(venue.house.close_market, "0xnone", 0)


def test_a_taken_port_is_said_at_once():
    with Background(world()) as fake:
        port = int(fake.venue.base.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address already in use"), Background(world(), port):
            pass


async def test_a_bug_of_the_fake_is_no_fault_of_the_venue():
    venue = world()
    with pytest.raises(ZeroDivisionError):
        async with venue, Client(venue) as client:
            venue.listings.market = lambda market, **named: 1 // 0  # type: ignore[method-assign]
            assert (await client.get("/gamma/markets")).status == 500


def test_as_a_process_it_prints_what_a_config_needs():
    command = [sys.executable, "-m", "tests.fakes.polymarket", "--port", "0", "--markets", "3", "--kind", "safe", "--storm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        told = "".join(line for _, line in zip(range(15), process.stdout, strict=False))
        section = yaml.safe_load(told)["polymarket"]
        with urllib.request.urlopen(section["hosts"]["clob"] + "/ok") as answer:
            assert json.load(answer) == "OK"
        process.terminate()
    assert throwaway_account(2).maker in told and section["signature_type"] == "safe"
    assert Polymarket.model_validate(section).hosts.ws_user.startswith("ws://127.0.0.1:")
