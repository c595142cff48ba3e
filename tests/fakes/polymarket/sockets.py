"""The two WebSocket channels: subscriptions, fan-out, and connections that go wrong on request (`polymarket.md` 3)."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.fakes.polymarket.faults import Fault
from tests.fakes.polymarket.records import Message

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket

CUSTOM = ("best_bid_ask", "new_market", "market_resolved")
"""Sent only where `custom_feature_enabled` was asked for."""
NOT_UNDERSTOOD = "INVALID OPERATION"
BACKLOG = 50_000
"""Frames that wait for a client that does not read, before it is thrown out."""

HELD_MS = 5_000


class Connection:
    """One client: what it follows, what waits to be sent, and what a fault has made of it."""

    def __init__(self, channel: str, request: web.Request, ws: web.WebSocketResponse) -> None:
        self.channel, self.ws, self._request = channel, ws, request
        self.tokens: set[str] = set()
        self.custom = False
        self.api_key = ""
        """The user channel's; empty until it has proved itself."""
        self.rename = ""
        """The key in which the house speaks of its account, where it is another."""
        self.markets: set[str] | None = None
        self.frozen = self.half_open = False
        self.frozen_tokens: set[str] = set()
        self.calms = 0
        """How many calms had been when it was spoiled."""
        self.held: tuple[int, str] | None = None
        """A frame that waits for the next to go before it, and since when."""
        self.outbox: asyncio.Queue[tuple[float, str]] = asyncio.Queue()
        self._due = 0.0

    @property
    def spoiled(self) -> bool:
        return self.frozen or self.half_open or bool(self.frozen_tokens)

    def put(self, text: str, delay: float = 0.0) -> None:
        """Send after `delay` wall seconds; what comes after waits with it."""
        self._due = max(self._due, asyncio.get_running_loop().time() + delay)
        self.outbox.put_nowait((self._due, text))
        if self.outbox.qsize() > BACKLOG:
            self.abort()

    def abort(self) -> None:
        """Gone, without a goodbye."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, text = await self.outbox.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not self.half_open:
                try:
                    await self.ws.send_str(text)
                except (ConnectionError, RuntimeError):
                    return  # it is closed, or closing


class Sockets:
    """All connections of both channels."""

    def __init__(self, venue: FakePolymarket) -> None:
        self.venue = venue
        self.connections: list[Connection] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        channel = "market" if request.path.endswith("/market") else "user"
        # Pings of the protocol are answered by hand: a half-open connection answers nothing.
        ws = web.WebSocketResponse(autoping=False, compress=False)
        await ws.prepare(request)
        connection = Connection(channel, request, ws)
        self.connections.append(connection)
        self.venue.counters[f"sockets_{channel}"] += 1
        self.venue.note("WS", request.path, 101, "open")
        writer = asyncio.create_task(connection.write())
        try:
            async for message in ws:
                if connection.half_open:
                    continue
                if message.type is WSMsgType.PING:
                    await ws.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._heard(connection, message.data)
        except ConnectionError:
            pass  # it ended while we answered
        finally:
            writer.cancel()
            self.connections.remove(connection)
            self.venue.note("WS", request.path, 0, "closed")
        return ws

    async def close(self) -> None:
        for connection in list(self.connections):
            if connection.half_open:
                connection.abort()
            else:
                await connection.ws.close(code=1001)

    def step(self, now_ms: int) -> None:
        """Send what was held back for a next frame that does not come; close what was spoiled before the last calm."""
        for connection in list(self.connections):
            if connection.held is not None and now_ms - connection.held[0] > HELD_MS:
                connection.put(connection.held[1])
                connection.held = None
            if connection.spoiled and connection.calms != self.venue.faults.calms:
                connection.abort()

    # What a client says.

    async def _heard(self, connection: Connection, text: str) -> None:
        if text == "PING":
            connection.put("PONG")
            return
        try:
            frame = json.loads(text)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            connection.put(NOT_UNDERSTOOD)
        elif connection.channel == "market":
            self._market_frame(connection, frame)
        else:
            await self._user_frame(connection, frame)

    def _market_frame(self, connection: Connection, frame: dict[str, Any]) -> None:
        tokens, operation = frame.get("assets_ids"), frame.get("operation")
        first = str(frame.get("type", "")).lower() == "market"
        if not isinstance(tokens, list) or not (first or operation in ("subscribe", "unsubscribe")):
            connection.put(NOT_UNDERSTOOD)
            return
        if operation == "unsubscribe":
            connection.tokens -= set(tokens)
            connection.frozen_tokens -= set(tokens)
            return
        if "custom_feature_enabled" in frame:
            connection.custom = bool(frame["custom_feature_enabled"])
        fresh = [token for token in dict.fromkeys(tokens) if token not in connection.tokens]
        connection.tokens.update(fresh)
        if frame.get("initial_dump", True):
            now_ms = self.venue.now_ms()
            books = [book for token in fresh if (book := self.venue.book_event(token, now_ms)) is not None]
            self._push(connection, books)

    async def _user_frame(self, connection: Connection, frame: dict[str, Any]) -> None:
        markets, operation = frame.get("markets"), frame.get("operation")
        if not connection.api_key:
            told = frame.get("auth")
            proof = told if isinstance(told, dict) else {}
            key = self.venue.keys.find(str(proof.get("apiKey")))
            good = key is not None and (key.secret, key.passphrase) == (proof.get("secret"), proof.get("passphrase"))
            if not good or key is None or str(frame.get("type", "")).lower() != "user":
                self.venue.counters["sockets_refused"] += 1
                self.venue.note("WS", "/ws/user", 401, "bad auth")
                await connection.ws.close(code=1008)
                return
            connection.api_key, connection.rename = key.api_key, key.account.api_key
            connection.markets = {str(market) for market in markets} if isinstance(markets, list) and markets else None
        elif operation == "subscribe" and isinstance(markets, list) and connection.markets is not None:
            connection.markets |= set(markets)
        elif operation == "unsubscribe" and isinstance(markets, list) and connection.markets is not None:
            connection.markets -= set(markets)

    # What the venue says.

    def deliver(self, messages: Iterable[Message]) -> None:
        """Give each connection what it follows; one call's messages may come as one frame."""
        told = list(messages)
        for connection in list(self.connections):
            payloads = [payload for message in told if (payload := self._wanted(connection, message)) is not None]
            if payloads:
                self._push(connection, payloads)

    def _wanted(self, connection: Connection, message: Message) -> dict[str, Any] | None:
        payload = message.payload
        if message.channel != connection.channel:
            return None
        if message.channel == "user":
            mine = connection.rename and message.key in ("", connection.rename)
            return payload if mine and (connection.markets is None or payload["market"] in connection.markets) else None
        kind = payload["event_type"]
        if kind in CUSTOM and not connection.custom:
            return None
        about = _tokens_of(message)
        if message.key and kind != "new_market" and not about & connection.tokens:
            return None
        if connection.frozen_tokens and about & connection.tokens <= connection.frozen_tokens and kind != "new_market":
            return None
        if kind == "price_change" and connection.frozen_tokens:
            changes = [change for change in payload["price_changes"] if change["asset_id"] not in connection.frozen_tokens]
            return {**payload, "price_changes": changes}
        return payload

    def _push(self, connection: Connection, payloads: list[dict[str, Any]]) -> None:
        """Through the faults of this moment, as objects or as an array."""
        faults, now_ms = self.venue.faults, self.venue.now_ms()
        if not connection.half_open and self._hit(connection, "half_open"):
            connection.half_open, connection.calms = True, faults.calms
        if not connection.frozen and self._hit(connection, "freeze"):
            connection.frozen, connection.calms = True, faults.calms
        if self._hit(connection, "close"):
            connection.abort()
        if connection.frozen or connection.half_open:
            return
        if connection.channel == "market":
            payloads = [each for payload in payloads for each in self._market_faults(connection, payload, now_ms)]
        texts = [self._text(connection, payload) for payload in payloads]
        if len(texts) > 1 and faults.chance(0.5):
            texts = ["[" + ",".join(texts) + "]"]
        for text in texts:
            self._send(connection, text if text[0] == "[" or faults.chance(0.7) else f"[{text}]")

    def _text(self, connection: Connection, payload: dict[str, Any]) -> str:
        text = json.dumps(payload, separators=(",", ":"))
        return text.replace(connection.rename, connection.api_key) if connection.rename != connection.api_key else text

    def _send(self, connection: Connection, text: str) -> None:
        self.venue.counters[f"frames_{connection.channel}"] += 1
        if self._hit(connection, "drop"):
            return
        late = self._hit(connection, "delay")
        delay = self.venue.wall(late.value) if late else 0.0
        if connection.held is None and self._hit(connection, "reorder"):
            connection.held = (self.venue.now_ms(), text)
            return
        connection.put(text, delay)
        if self._hit(connection, "duplicate"):
            connection.put(text)
        if connection.held is not None:
            connection.put(connection.held[1])
            connection.held = None

    def _hit(self, connection: Connection, kind: str) -> Fault | None:
        faults, kind, now_ms = self.venue.faults, f"{connection.channel}_{kind}", self.venue.now_ms()
        if faults.told(kind, now_ms) is None:
            return None
        return faults.hit(kind, now_ms, connection.api_key or " ".join(connection.tokens))

    def _market_faults(self, connection: Connection, payload: dict[str, Any], now_ms: int) -> list[dict[str, Any]]:
        """This message, perhaps bent, perhaps with a lie behind it, perhaps nothing from now on."""
        faults, kind = self.venue.faults, payload["event_type"]
        if kind not in ("price_change", "book"):
            return [payload]
        token = payload["asset_id"] if kind == "book" else payload["price_changes"][0]["asset_id"]
        if faults.hit("market_freeze_token", now_ms, token):
            connection.frozen_tokens.add(token)
            connection.calms = faults.calms
            return []
        if kind == "price_change" and faults.active("market_wrong_best", now_ms, token) is not None:
            wrong = _wrong_best(payload, self.venue.tick_of(token))
            if wrong is not None and faults.hit("market_wrong_best", now_ms, token):
                payload = wrong
        if faults.active("market_crossed", now_ms, token) is not None:
            crossed = _crossed(self.venue.book_event(token, now_ms), self.venue.tick_of(token))
            if crossed is not None and faults.hit("market_crossed", now_ms, token):
                return [payload, crossed]
        return [payload]


def _tokens_of(message: Message) -> set[str]:
    payload = message.payload
    if "price_changes" in payload:
        return {change["asset_id"] for change in payload["price_changes"]}
    if "assets_ids" in payload:
        return set(payload["assets_ids"])
    return {payload["asset_id"]} if "asset_id" in payload else ({message.key} if message.key else set())


def _crossed(book: dict[str, Any] | None, tick: Decimal) -> dict[str, Any] | None:
    """The same book with a bid above its best ask; None where there is no room for one."""
    if book is None or not book["asks"]:
        return None
    above = min(Decimal(level["price"]) for level in book["asks"]) + tick
    return {**book, "bids": [*book["bids"], {"price": f"{above:f}", "size": "10"}]} if above < 1 else None


def _wrong_best(payload: dict[str, Any], tick: Decimal) -> dict[str, Any] | None:
    """The same changes with a best bid that nobody made, told alike by both outcomes; None where there is no room for one."""
    wrong = copy.deepcopy(payload)
    first = wrong["price_changes"][0]
    bid, ask = Decimal(first.get("best_bid") or 0), Decimal(first.get("best_ask") or 1)
    if ask - bid < 2 * tick:
        return None
    for change in wrong["price_changes"]:
        if change["asset_id"] == first["asset_id"]:
            change["best_bid"] = f"{bid + tick:f}"
        else:
            change["best_ask"] = f"{1 - bid - tick:f}"
    return wrong
