"""The private half of the fake CLOB: keys, orders, cancels, listings, balances, heartbeats (`polymarket.md` 2.3 to 2.6)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.polymarket.access import Key
from tests.fakes.polymarket.books import END, NO_BOOK
from tests.fakes.polymarket.listings import cursor_place, cursor_text
from tests.fakes.polymarket.records import OrderFields, Placed
from tests.fakes.polymarket.verify import (
    BAD_PAYLOAD,
    BAD_SIGNATURE,
    WRONG_MAKER,
    WRONG_OWNER,
    WRONG_SIGNER,
    Refused,
    SignedOrder,
    decode_order,
    order_digest,
    order_signer,
    signed_for,
)

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket

PAGE = 50
POST_MOST, DELETE_MOST = 15, 1000
POST_ONLY = "post-only mode: only post-only orders and cancels are allowed"
_ORDER_ID = re.compile(r"0x[0-9a-fA-F]{64}")


class Trading:
    """Everything that needs a key."""

    def __init__(self, venue: FakePolymarket) -> None:
        self.venue = venue
        self._shown: dict[tuple[str, str | None], dict[str, Any]] = {}
        """Balances as they were last shown: what a stale cache shows again."""

    def routes(self) -> list[web.RouteDef]:
        get, post, delete = web.get, web.post, web.delete
        return [
            post("/clob/auth/api-key", self.create_key),
            get("/clob/auth/derive-api-key", self.derive_key),
            get("/clob/auth/api-keys", self.api_keys),
            get("/clob/auth/ban-status/closed-only", self.closed_only),
            post("/clob/order", self.post_order),
            post("/clob/orders", self.post_orders),
            delete("/clob/order", self.delete_order),
            delete("/clob/orders", self.delete_orders),
            delete("/clob/cancel-all", self.cancel_all),
            delete("/clob/cancel-market-orders", self.cancel_market),
            get("/clob/data/orders", self.orders),
            get("/clob/data/order/{id}", self.order),
            get("/clob/data/trades", self.trades),
            get("/clob/balance-allowance", self.balance),
            get("/clob/balance-allowance/update", self.balance_update),
            post("/clob/v1/heartbeats", self.heartbeat),
            get("/clob/order-scoring", self.scoring),
            post("/clob/orders-scoring", self.orders_scoring),
        ]

    async def _key(self, request: web.Request) -> Key:
        """Who asks: proved over the exact bytes, the path without this server's prefix."""
        path, body = request.path.removeprefix("/clob"), await request.read()
        return self.venue.keys.check(request.headers, request.method, path, body, self.venue.now_ms())

    def _reply(self, key: Key, body: Any, headers: dict[str, str] | None = None) -> web.Response:
        """The house speaks of an account by its first key; whoever asked with another reads of that one."""
        text = json.dumps(body, separators=(",", ":"))
        if key.api_key != key.account.api_key:
            text = text.replace(key.account.api_key, key.api_key)
        return web.json_response(text=text, headers=headers)

    # Keys.

    async def create_key(self, request: web.Request) -> web.Response:
        return self._made(request, create=True)

    async def derive_key(self, request: web.Request) -> web.Response:
        return self._made(request, create=False)

    def _made(self, request: web.Request, *, create: bool) -> web.Response:
        key = self.venue.keys.prove(request.headers, self.venue.now_ms(), create=create)
        return web.json_response({"apiKey": key.api_key, "secret": key.secret, "passphrase": key.passphrase})

    async def api_keys(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        return web.json_response({"apiKeys": self.venue.keys.of(key.account)})

    async def closed_only(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        return web.json_response({"closed_only": key.account.closed_only})

    # Orders.

    async def post_order(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        body = await _body(request, dict)
        headers = self.venue.limits.orders(key.account.signer, 1, self.venue.now_ms())
        try:
            placed = self._submit(key, body)
        except Refused as refused:
            refused.headers |= headers
            raise
        if not placed.success:
            raise Refused(404 if placed.error == NO_BOOK else 400, placed.error, headers=headers)
        return self._reply(key, _placed(placed), headers)

    async def post_orders(self, request: web.Request) -> web.Response:
        """Each on its own: a refused one is an entry of its own, which the venue calls a success without an id."""
        key = await self._key(request)
        bodies = await _body(request, list)
        if not bodies:
            raise Refused(400, BAD_PAYLOAD, "no orders")
        if len(bodies) > POST_MOST:
            raise Refused(400, f"Too many orders in payload: {len(bodies)}, max allowed: {POST_MOST}")
        headers = self.venue.limits.orders(key.account.signer, len(bodies), self.venue.now_ms())
        answers = []
        for body in bodies:
            try:
                placed = self._submit(key, body)
            except Refused as refused:
                self.venue.note("POST", "/orders[]", refused.status, f"{refused.words}; {refused.note}")
                placed = Placed(False, refused.words)
            answers.append(_placed(placed))
        return self._reply(key, answers, headers)

    def _submit(self, key: Key, body: Any) -> Placed:
        order, now_ms = decode_order(body), self.venue.now_ms()
        fields = self._verified(key, order)
        if not order.post_only and self.venue.faults.hit("post_only", now_ms, key.api_key):
            seconds = self.venue.faults.left_s("post_only", now_ms)
            raise Refused(
                503, POST_ONLY, "", headers={"Retry-After": str(seconds)}, code="post_only_mode", retry_after_seconds=seconds
            )
        placed = self.venue.house.submit(key.account, fields, now_ms)
        self.venue.counters["orders_taken" if placed.success else "orders_refused"] += 1
        return placed

    def _verified(self, key: Key, order: SignedOrder) -> OrderFields:
        account, market = key.account, self.venue.market_of(order.token_id)
        owner = self.venue.keys.find(order.owner)
        if owner is None or order.owner != key.api_key:
            raise Refused(400, WRONG_OWNER, f"owner {order.owner}")
        signer = account.maker if account.kind == 3 else account.signer
        if order.signer.lower() != signer.lower():
            raise Refused(400, WRONG_SIGNER, f"signer {order.signer}")
        if order.maker.lower() != account.maker.lower() or order.signature_type != account.kind:
            raise Refused(400, WRONG_MAKER, f"maker {order.maker}, kind {order.signature_type}")
        if market is None:
            raise Refused(404, NO_BOOK, order.token_id[:12])
        route = "v3" if market.version == "v2" else "neg_risk" if market.neg_risk else "standard"
        if order_signer(order, route) != account.signer.lower():
            raise Refused(400, BAD_SIGNATURE, f"wants {route}, good for {signed_for(order, account.signer) or 'none'}")
        return OrderFields(
            id=order_digest(order, route),
            maker=order.maker,
            signer=order.signer,
            token_id=order.token_id,
            maker_amount=order.maker_amount,
            taker_amount=order.taker_amount,
            side=order.side,
            signature_type=order.signature_type,
            timestamp_ms=order.timestamp_ms,
            expiration=order.expiration,
            order_type=order.order_type,
            post_only=order.post_only,
        )

    # Cancels.

    async def delete_order(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        body = await _body(request, dict)
        return self._cancel(key, [_order_id(body.get("orderID"))])

    async def delete_orders(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        body = await _body(request, list)
        if len(body) > DELETE_MOST:
            raise Refused(400, f"Too many orders in payload, max allowed: {DELETE_MOST}", str(len(body)))
        return self._cancel(key, [_order_id(each) for each in body])

    def _cancel(self, key: Key, ids: list[str]) -> web.Response:
        now_ms = self.venue.now_ms()
        headers = self.venue.limits.cancels(key.account.signer, len(ids), now_ms)
        return self._canceled(key, self.venue.house.cancel(key.account, ids, now_ms), headers)

    async def cancel_all(self, request: web.Request) -> web.Response:
        return self._sweep(await self._key(request), None, None)

    async def cancel_market(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        body = await _body(request, dict)
        market, asset = body.get("market") or None, body.get("asset_id") or None
        if (market is None and asset is None) or not all(isinstance(each, str | None) for each in (market, asset)):
            raise Refused(400, BAD_PAYLOAD, "market or asset_id")
        return self._sweep(key, market, asset)

    def _sweep(self, key: Key, market: str | None, asset: str | None) -> web.Response:
        """One token now, and one for each that went, which may leave the bucket owing."""
        now_ms, signer = self.venue.now_ms(), key.account.signer
        self.venue.limits.cancels(signer, 1, now_ms)
        done = self.venue.house.cancel_all(key.account, now_ms, market=market, asset=asset)
        return self._canceled(key, done, self.venue.limits.swept(signer, len(done[0]), now_ms))

    def _canceled(self, key: Key, done: tuple[list[str], dict[str, str]], headers: dict[str, str]) -> web.Response:
        self.venue.counters["orders_canceled"] += len(done[0])
        return self._reply(key, {"canceled": done[0], "not_canceled": done[1]}, headers)

    # What an account may read.

    async def orders(self, request: web.Request) -> web.Response:
        """Live ones, unless an id asks for one of any status."""
        key = await self._key(request)
        query, house = request.query, self.venue.house
        if "id" in query:
            found = house.order(key.account, query["id"])
            rows = [found] if found is not None else []
        else:
            rows = house.open_orders(key.account)
        return self._page(key, request, [row for row in rows if _fits(row, query, ("market", "asset_id"))])

    async def order(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        found = self.venue.house.order(key.account, _order_id(request.match_info["id"]))
        if found is None:
            raise Refused(404, "Order not found", request.match_info["id"])
        return self._reply(key, found)

    async def trades(self, request: web.Request) -> web.Response:
        """`market` and `asset_id` look at the taker's side only, as the venue's do (`polymarket.md` 2.3)."""
        key = await self._key(request)
        query = request.query
        try:
            after, before = (int(query[name]) if name in query else None for name in ("after", "before"))
        except ValueError:
            raise Refused(400, "Invalid trade params payload") from None
        rows = self.venue.house.trades(key.account, after)
        rows = [row for row in rows if _fits(row, query, ("id", "market", "asset_id", "maker_address"))]
        return self._page(key, request, [row for row in rows if before is None or int(row["match_time"]) < before])

    def _page(self, key: Key, request: web.Request, rows: list[dict[str, Any]]) -> web.Response:
        start = cursor_place(request.query.get("next_cursor", ""))
        end = start + PAGE
        found = rows[start:end]
        cursor = cursor_text(end) if end < len(rows) else END
        return self._reply(key, {"data": found, "next_cursor": cursor, "limit": PAGE, "count": len(found)})

    async def balance(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        token = _asset(request)
        if request.query.get("signature_type", "0") != str(int(key.account.kind)):
            return self._reply(key, {"balance": "0", "allowances": {}})  # the wallet of that kind, which holds nothing
        slot = (key.account.api_key, token)
        if slot in self._shown and self.venue.faults.hit("stale_balance", self.venue.now_ms(), key.api_key):
            return self._reply(key, self._shown[slot])
        self._shown[slot] = self.venue.house.balance(key.account, token)
        return self._reply(key, self._shown[slot])

    async def balance_update(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        token = _asset(request)
        self._shown.pop((key.account.api_key, token), None)
        return web.Response(text="")

    async def heartbeat(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        body = await _body(request, dict)
        told = body.get("heartbeat_id")
        if not isinstance(told, str):
            raise Refused(400, BAD_PAYLOAD, "heartbeat_id")
        return self._reply(key, {"heartbeat_id": self.venue.heartbeats.beat(key.api_key, told, self.venue.now_ms())})

    async def scoring(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        return self._reply(key, {"scoring": self._scores(key, request.query.get("order_id", ""))})

    async def orders_scoring(self, request: web.Request) -> web.Response:
        key = await self._key(request)
        return self._reply(key, {str(each): self._scores(key, str(each)) for each in await _body(request, list)})

    def _scores(self, key: Key, order_id: str) -> bool:
        found = self.venue.house.order(key.account, order_id)
        market = self.venue.house.markets.get(found["market"]) if found is not None else None
        return found is not None and found["status"] == "LIVE" and market is not None and bool(market.rewards)


def _placed(placed: Placed) -> dict[str, Any]:
    """A refused order of a batch is `success` all the same, without an id (`polymarket.md` 2.3)."""
    return {
        "success": True,
        "errorMsg": placed.error,
        "orderID": placed.order_id,
        "status": placed.status,
        "makingAmount": placed.making,
        "takingAmount": placed.taking,
        "tradeIDs": placed.trade_ids,
        "transactionsHashes": [],
    }


async def _body(request: web.Request, kind: type) -> Any:
    try:
        found = json.loads(await request.read())
    except ValueError:
        raise Refused(400, BAD_PAYLOAD, "not JSON") from None
    if not isinstance(found, kind):
        raise Refused(400, BAD_PAYLOAD, f"not a {kind.__name__}")
    return found


def _order_id(told: Any) -> str:
    if not isinstance(told, str) or not _ORDER_ID.fullmatch(told):
        raise Refused(400, "Invalid orderID", str(told)[:20])
    return told


def _fits(row: dict[str, Any], query: Any, names: tuple[str, ...]) -> bool:
    return all(name not in query or str(row[name]).lower() == query[name].lower() for name in names)


def _asset(request: web.Request) -> str | None:
    """The token asked for; None is cash."""
    query = request.query
    kind = query.get("asset_type", "")
    if kind == "COLLATERAL":
        return None
    if kind not in ("CONDITIONAL", "CONDITIONAL-V2") or not query.get("token_id", "").isdecimal():
        raise Refused(400, "invalid asset_type or token_id", f"{kind} {query.get('token_id', '')[:12]}")
    return str(query["token_id"])
