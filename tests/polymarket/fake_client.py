"""A small client of the fake venue, nothing of it ours: orders and proofs by `polymarket-client`, the rest by aiohttp."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import aiohttp
from eth_account import Account
from polymarket._internal.actions.auth import build_l1_auth_headers
from polymarket._internal.actions.orders.orders import create_signed_order, create_unsigned_order
from polymarket._internal.actions.orders.post import build_post_order_request
from polymarket._internal.actions.orders.typed_data import build_order_signature, build_order_typed_data
from polymarket._internal.actions.orders.types import OrderDraft
from polymarket._internal.environment import PRODUCTION_CONFIG
from polymarket._internal.hmac import build_hmac_signature
from polymarket._internal.l1_auth import sign_api_key_auth

from tests.fakes.polymarket.house import FakeAccount, FakeMarket
from tests.fakes.polymarket.server import FakePolymarket
from tests.fakes.polymarket.setup import THROWAWAY_KEY, some_house, throwaway_account

WALLETS: tuple[Any, ...] = ("EOA", "POLY_PROXY", "GNOSIS_SAFE", "DEPOSIT_WALLET")
EXCHANGES = {
    "standard": PRODUCTION_CONFIG.standard_exchange,
    "neg_risk": PRODUCTION_CONFIG.neg_risk_exchange,
    "v3": PRODUCTION_CONFIG.exchange_v3,
}
OTHER_KEY = "0x" + "22" * 32  # marked: worth nothing anywhere
ANCHOR_MS = 1_763_000_000_000


def world(
    *, kind: int = 0, markets: int = 2, crowd: int = 0, speed: float = 1.0, settle_s: tuple[float, float] = (1.0, 5.0), **named: Any
) -> FakePolymarket:
    """A venue with one throwaway account; alone in the house unless `crowd` (ms) says otherwise."""
    house = some_house(7, markets=markets, now_ms=ANCHOR_MS, accounts=[throwaway_account(kind)], settle_s=settle_s)
    return FakePolymarket(house, crowd_every_ms=crowd, speed=speed, anchor_ms=ANCHOR_MS, **named)


@dataclass
class Answer:
    status: int
    body: Any
    headers: Any


class Client:
    """One account's own requests, signed by the SDK."""

    def __init__(self, venue: FakePolymarket, account: FakeAccount | None = None, key: str = THROWAWAY_KEY) -> None:
        self.venue, self.key = venue, key
        self.account = account or next(iter(venue.house.accounts.values()))
        self.signer = Account.from_key(key)
        self.session = aiohttp.ClientSession()
        self.session._retry_connection = False  # aiohttp sends a GET or DELETE again by itself when a connection breaks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.session.close()

    async def get(self, path: str, **query: str) -> Answer:
        """Public; `path` from the server's root."""
        return await self._send("GET", path, query=query)

    async def private(
        self, method: str, path: str, body: Any = None, *, query: dict[str, str] | None = None, late_s: int = 0, **changed: str
    ) -> Answer:
        """`path` as the CLOB has it; `changed` replaces headers, `late_s` ages the proof."""
        raw = None if body is None else json.dumps(body, separators=(",", ":"))
        seconds, account = self.venue.now_ms() // 1000 - late_s, self.account
        headers = {
            "POLY_ADDRESS": account.signer,
            "POLY_API_KEY": account.api_key,
            "POLY_PASSPHRASE": account.passphrase,
            "POLY_TIMESTAMP": str(seconds),
            "POLY_SIGNATURE": build_hmac_signature(secret=account.secret, timestamp=seconds, method=method, path=path, body=raw),
        }
        return await self._send(method, f"/clob{path}", query=query, raw=raw, headers={**headers, **changed})

    async def prove(self, method: str, path: str, *, nonce: int, late_s: int = 0, **changed: str) -> Answer:
        """An L1 request."""
        seconds = self.venue.now_ms() // 1000 - late_s
        signed = sign_api_key_auth(self.signer, chain_id=137, timestamp=seconds, nonce=nonce)
        return await self._send(method, f"/clob{path}", headers={**build_l1_auth_headers(signed), **changed})

    async def _send(
        self, method: str, path: str, *, query: dict[str, str] | None = None, raw: str | None = None, headers: Any = None
    ) -> Answer:
        async with self.session.request(method, self.venue.base + path, params=query, data=raw, headers=headers) as response:
            text = await response.text()
            try:
                body = json.loads(text)
            except ValueError:
                body = text
            return Answer(response.status, body, response.headers)

    def order(
        self,
        market: FakeMarket,
        *,
        no: bool = False,
        side: Any = "BUY",
        price: str = "0.30",
        size: str = "10",
        route: str = "",
        post_only: bool = True,
        order_type: Any = "GTC",
        expiration: int = 0,
    ) -> dict[str, Any]:
        """A signed body, all of it by the SDK's builders; the route is the market's unless told otherwise."""
        shares = int(Decimal(size) * 1_000_000)
        cash = int(Decimal(price) * Decimal(size) * 1_000_000)
        route = route or ("neg_risk" if market.neg_risk else "standard")
        draft: Any = OrderDraft(
            chain_id=137,
            exchange_address=EXCHANGES[route],  # type: ignore[arg-type]
            expiration=expiration,
            funder_address=self.account.maker,  # type: ignore[arg-type]
            offered_amount=cash if side == "BUY" else shares,
            order_type=order_type,
            side=side,
            signer=self.signer.address,
            requested_amount=shares if side == "BUY" else cash,
            asset_id=market.no if no else market.yes,  # type: ignore[arg-type]
        )
        unsigned = create_unsigned_order(draft, wallet=self.account.maker, wallet_type=WALLETS[self.account.kind])  # type: ignore[arg-type]
        version = "3" if route == "v3" else "2"
        typed = build_order_typed_data(unsigned, protocol_version=version)
        signed: Any = "0x" + self.signer.sign_typed_data(full_message=typed).signature.hex()
        signature = build_order_signature(unsigned, signed, protocol_version=version)
        made = create_signed_order(unsigned, signature, post_only=post_only)
        return build_post_order_request(made, owner_api_key=self.account.api_key)[1]

    async def place(self, market: FakeMarket, **terms: Any) -> Answer:
        return await self.private("POST", "/order", self.order(market, **terms))

    async def cancel_all(self) -> Answer:
        return await self.private("DELETE", "/cancel-all")

    async def market_socket(self, *tokens: str, custom: bool = False, dump: bool = True) -> Ears:
        frame = {"type": "market", "assets_ids": list(tokens), "custom_feature_enabled": custom, "initial_dump": dump}
        return await self._socket("ws_market", frame)

    async def user_socket(self, **changed: Any) -> Ears:
        account = self.account
        proof = {"apiKey": account.api_key, "secret": account.secret, "passphrase": account.passphrase}
        return await self._socket("ws_user", {"type": "user", "auth": {**proof, **changed}})

    async def _socket(self, host: str, frame: dict[str, Any]) -> Ears:
        ears = Ears(await self.session.ws_connect(self.venue.hosts[host]))
        await ears.ws.send_json(frame)
        return ears


class Ears:
    """A socket whose frames, object or array, are read as messages."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heard: list[Any] = []
        """Messages read and not yet asked for; `PONG` is one too."""

    async def next(self, timeout: float = 5.0) -> Any:
        """The next message; None once the socket is closed."""
        while not self.heard:
            message = await self.ws.receive(timeout)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return None
            told = json.loads(message.data) if message.data[0] in "[{" else message.data
            self.heard += told if isinstance(told, list) else [told]
        return self.heard.pop(0)

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of a kind with these fields; others are let go."""
        while True:
            told = await self.next()
            assert told is not None, f"closed before {kind} {fields}"
            if isinstance(told, dict) and told["event_type"] == kind and fields.items() <= told.items():
                return told

    async def closed(self) -> bool:
        """Whether the other side hangs up; what comes before is let go."""
        while await self.next() is not None:
            pass
        return True

    async def quiet(self, seconds: float = 0.1) -> bool:
        try:
            told = await self.next(seconds)
        except TimeoutError:
            return True
        self.heard.append(told)
        return False

    async def ping(self) -> None:
        await self.ws.send_str("PING")


async def eventually(true: Any, seconds: float = 5.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
