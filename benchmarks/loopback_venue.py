"""A tiny, fast stand-in of the venue on loopback, for benchmarks only; a process, so that nobody's interpreter lock is shared.

`python -m benchmarks.loopback_venue --rates 100,2000 --seconds 10` prints its port and waits until a maker rests two quotes in each
market (or, where nothing shall move, follows every token). Then it sends seeded, numbered frames at each rate in turn and times the
answers (`reactions`): from just before a frame that moves a best price is written to the socket, to when the whole request that
answers it has been read from its own. Each rate's figures are one line of JSON; then it serves on until its standard input ends.

It takes every order and cancel at once and says so on the user channel. It checks nothing before it answers: digests make the ids,
and who signed each order is worked out at the end, so that nobody is timed for orders that no venue would take. The loop is the
standard one on purpose: a write to a socket is then done when the call returns.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.digests import digest, signed_by
from benchmarks.loopback_markets import BUY, SELL, TICKS, Feed
from benchmarks.reactions import Reactions, Resting

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PAGE = 100
_IDLE_RATE = 100
"""Frames a second before and after the measured ones: a feed that falls silent would pull every quote."""
_TAIL_S = 1.0
"""After a rate, for the last answers; half as long as the rate itself at most."""
_PATIENCE_S = 120.0
_CASH = str(10**12)
_PROVED = 20_000
"""Orders whose signatures are kept for the proof at the end."""


class Connection(asyncio.Protocol):
    """One socket: HTTP/1.1 kept alive, or after an upgrade a WebSocket."""

    def __init__(self, venue: LoopbackVenue) -> None:
        self.venue = venue
        self.transport: asyncio.Transport | None = None
        self.channel = ""
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.venue.listeners[self.channel].discard(self)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns()
        self._held += data
        while self._held and (self._message() if self.channel else self._request(at)):
            pass

    def _request(self, at: int) -> bool:
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return False
        body, self._held = rest[:length], rest[length:]
        method, target, _ = first.split(" ")
        if "upgrade" in headers.get("connection", "").lower():
            self._upgrade(target, headers["sec-websocket-key"])
            return True
        status, answer, then = self.venue.answer(at, method, target, body)
        text = json.dumps(answer, separators=(",", ":")).encode()
        reason = {200: "OK", 404: "Not Found"}[status]
        self._write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
        )
        then()
        return True

    def _upgrade(self, target: str, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        self._write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self.channel = target.rsplit("/", 1)[-1]

    def _message(self) -> bool:
        """One masked frame of a client; none of ours is split."""
        held = self._held
        if len(held) < 2:
            return False
        length, at = held[1] & 127, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length, at = int.from_bytes(held[2 : 2 + width], "big"), 2 + width
        end = at + 4 + length
        if len(held) < end:
            return False
        self._held = held[end:]
        kind, mask = held[0] & 15, held[at : at + 4]
        payload = bytes(byte ^ mask[place & 3] for place, byte in enumerate(held[at + 4 : end]))
        assert self.transport is not None
        if kind == 8:
            self._write(b"\x88\x00")
            self.transport.close()
        elif kind == 9:
            self._write(bytes([0x8A, len(payload)]) + payload)
        elif kind == 1:
            self.venue.heard(self, payload)
        return True

    def say(self, payload: bytes) -> None:
        """One text frame."""
        length = len(payload)
        size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
        self._write(b"\x81" + (size if length < 65_536 else b"\x7f" + length.to_bytes(8, "big")) + payload)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


Answer = tuple[int, Any, Callable[[], None]]


class LoopbackVenue:
    """The markets, what rests, who listens."""

    def __init__(self, seed: int, markets: int) -> None:
        self.feed = Feed(seed, markets)
        self.reactions = Reactions()
        self.listeners: dict[str, set[Connection]] = {"": set(), "market": set(), "user": set()}
        self.subscribed: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self._proofs: list[tuple[dict[str, Any], bytes]] = []
        self._maker = ""
        now_ms = time.time_ns() // 1_000_000
        for market in self.feed.markets:
            market.changed_ms = now_ms

    # Sockets.

    def heard(self, connection: Connection, payload: bytes) -> None:
        if payload == b"PING":
            connection.say(b"PONG")
            return
        told = json.loads(payload)
        self.listeners[connection.channel].add(connection)
        for token in told.get("assets_ids", ()) if connection.channel == "market" else ():
            if told.get("operation") != "unsubscribe":
                self.subscribed.add(token)
                connection.say(json.dumps(self.feed.by_token[token].book(token), separators=(",", ":")).encode())

    def send(self, every: int) -> None:
        """The next frame; `every` 0 moves nothing."""
        told = self.feed.next(every) if every else self.feed.idle()
        self.sent += 1
        frame = told.frame(self.sent, time.time_ns() // 1_000_000)
        at = time.monotonic_ns()
        for listener in self.listeners["market"]:
            listener.say(frame)
        if told.kind:
            self.reactions.moved(at, told.market.id, told.wanted)

    # Requests. What is not known is 404, and counted.

    def answer(self, at: int, method: str, target: str, body: bytes) -> Answer:
        url = urlsplit(target)
        path = url.path
        self.requests[f"{method} {path if path.count('/') < 2 else path[: path.rindex('/')]}"] += 1
        if path in ("/order", "/orders") and method == "POST":
            return self._post(at, json.loads(body), batch=path == "/orders")
        if path in ("/order", "/orders") and method == "DELETE":
            told = json.loads(body)
            return self._delete(at, told if path == "/orders" else [told["orderID"]])
        if path == "/books":
            tokens = [row["token_id"] for row in json.loads(body)]
            return _ok([self.feed.by_token[token].book(token) for token in tokens])
        if path == "/gamma/markets/keyset":
            return _ok(self._listing(parse_qs(url.query)))
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/clob-markets/") and name in self.feed.by_id:
            return _ok(self.feed.by_id[name].rules())
        if path.startswith("/data/order/") and name in self.reactions.live:
            return _ok(self.reactions.live[name].row)
        known = _FIXED.get(path)
        if path == "/data/orders":
            known = {"data": [order.row for order in self.reactions.live.values()], "next_cursor": "LTE="}
        if path == "/balance-allowance":
            known = {"balance": _CASH if "asset_type=COLLATERAL" in url.query else "0", "allowances": {}}
        if path == "/time":
            known = time.time_ns() // 1_000_000_000
        return (404, {"error": f"no {path} here"}, _nothing) if known is None else _ok(known)

    def _listing(self, query: dict[str, list[str]]) -> dict[str, Any]:
        wanted = set(query.get("condition_ids", ()))
        if query.get("closed") == ["true"]:
            return {"markets": []}
        found = [market for market in self.feed.markets if not wanted or market.id in wanted]
        start = int(query.get("after_cursor", ["0"])[0])
        page = {"markets": [market.listing() for market in found[start : start + _PAGE]]}
        return {**page, "next_cursor": str(start + _PAGE)} if start + _PAGE < len(found) else page

    def _post(self, at: int, told: Any, *, batch: bool) -> Answer:
        answers, notes = [], []
        for entry in told if batch else [told]:
            order = entry["order"]
            order_digest = digest(order)
            order_id = "0x" + order_digest.hex()
            resting = self._resting(order, order_id)
            self.reactions.ordered(at, order_id, resting)
            self._maker = order["maker"]
            if len(self._proofs) < _PROVED:
                self._proofs.append((order, order_digest))
            notes.append({"event_type": "order", "type": "PLACEMENT", **resting.row})
            answers.append({"success": True, "errorMsg": "", "orderID": order_id, "status": "live", "tradeIDs": []})
        return 200, answers if batch else answers[0], lambda: self._note(notes)

    def _resting(self, order: dict[str, Any], order_id: str) -> Resting:
        token = order["tokenId"]
        market = self.feed.by_token[token]
        given, wanted = int(order["makerAmount"]), int(order["takerAmount"])
        cash, shares = (wanted, given) if order["side"] == SELL else (given, wanted)
        price = round(cash * TICKS / shares)
        yes = token == market.yes
        side = order["side"] if yes else SELL if order["side"] == BUY else BUY
        row = {
            "id": order_id,
            "status": "LIVE",
            "owner": "",
            "maker_address": order["maker"],
            "market": market.id,
            "asset_id": token,
            "side": order["side"],
            "original_size": str(shares / 1e6),
            "size_matched": "0",
            "price": f"{price / TICKS:g}",
        }
        return Resting((market.id, side), price if yes else TICKS - price, row)

    def _delete(self, at: int, ids: list[str]) -> Answer:
        rows = {order_id: order.row for order_id in ids if (order := self.reactions.live.get(order_id)) is not None}
        gone = [order_id for order_id in ids if self.reactions.canceled(at, order_id)]
        missed = {order_id: "order can't be found" for order_id in ids if order_id not in rows}
        notes = [{"event_type": "order", "type": "CANCELLATION", **rows[order_id], "status": "CANCELED"} for order_id in gone]
        return 200, {"canceled": gone, "not_canceled": missed}, lambda: self._note(notes)

    def _note(self, notes: list[dict[str, Any]]) -> None:
        for listener in self.listeners["user"]:
            for note in notes:
                listener.say(json.dumps(note, separators=(",", ":")).encode())

    # The measurement.

    def ready(self, *, quoted: bool) -> bool:
        """Every token is followed, and two quotes rest in every market if that is asked for."""
        markets = len(self.feed.markets)
        return len(self.subscribed) == 2 * markets and (not quoted or self.reactions.quoted(markets))

    async def idle(self, ready: Callable[[], bool]) -> bool:
        """Frames that move nothing, until it is so; False: it never was."""
        limit = time.monotonic() + _PATIENCE_S
        while time.monotonic() < limit:
            if ready():
                return True
            await self.pace(_IDLE_RATE, 0.05, 0)
        return False

    async def pace(self, rate: int, seconds: float, every: int) -> None:
        """Frames at a rate; the timer's grain is a millisecond, so the fast ones leave in twos and threes."""
        began = time.monotonic()
        done, whole = 0, round(rate * seconds)
        while done < whole:
            due = min(int((time.monotonic() - began) * rate) + 1, whole)
            while done < due:
                self.send(every)
                done += 1
            await asyncio.sleep(max(began + done / rate - time.monotonic(), 0))

    async def measure(self, rate: int, every: int, warm_s: float, seconds: float) -> dict[str, Any]:
        await self.pace(rate, warm_s, every)
        self.reactions.scored = True
        began = time.monotonic()
        await self.pace(rate, seconds, every)
        took = time.monotonic() - began
        self.reactions.scored = False
        await self.pace(_IDLE_RATE, min(_TAIL_S, seconds / 2), 0)
        return {"rate": rate, "achieved": rate * seconds / took, "resting": len(self.reactions.live), **self.reactions.report()}

    def forged(self) -> int:
        """Orders of the run that their maker's key did not sign."""
        return sum(signed_by(known, order["signature"]) != order["signer"].lower() for order, known in self._proofs)


def _ok(body: Any) -> Answer:
    return 200, body, _nothing


def _nothing() -> None:
    """Nothing is to be told after the answer."""


_CREDENTIALS = {"apiKey": "loopback", "secret": base64.urlsafe_b64encode(b"k" * 32).decode(), "passphrase": "loopback"}
_FIXED: dict[str, Any] = {
    "/auth/api-key": _CREDENTIALS,
    "/auth/derive-api-key": _CREDENTIALS,
    "/balance-allowance/update": {},
    "/data/trades": {"data": [], "next_cursor": "LTE="},
    "/gamma/v2/prices-history": {"data": []},
    "/neg-risk": {"neg_risk": False},
    "/ok": "OK",
    "/tick-size": {"minimum_tick_size": 0.01},
    "/v1/heartbeats": {"heartbeat_id": "loopback"},
    "/v2/prices-history": {"data": []},
    "/version": {"version": 2},
}


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def _serve(args: argparse.Namespace) -> None:
    venue = LoopbackVenue(args.seed, args.markets)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(venue), "127.0.0.1", 0)
    ended = asyncio.Event()
    threading.Thread(target=_watch_input, args=(loop, ended), daemon=True).start()
    _say({"port": server.sockets[0].getsockname()[1]})
    if args.rates:
        work = asyncio.create_task(_measure(venue, args))
        ending = asyncio.create_task(ended.wait())
        await asyncio.wait((work, ending), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        work.cancel()
    while not ended.is_set():
        await venue.pace(_IDLE_RATE, 0.05, 0)
    _say({"orders": len(venue._proofs), "forged": venue.forged(), "requests": dict(venue.requests)})


def _watch_input(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(ended.set)


async def _measure(venue: LoopbackVenue, args: argparse.Namespace) -> None:
    if not await venue.idle(lambda: venue.ready(quoted=args.moves > 0)):
        followed, rests = len(venue.subscribed), len(venue.reactions.live)
        _say({"failed": f"of {args.markets} markets {followed} tokens are followed and {rests} orders rest: no maker is ready"})
        return
    _say({"ready": True})
    for rate in (int(rate) for rate in args.rates.split(",")):
        every = max(rate // args.moves, 1) if args.moves else 0
        _say(await venue.measure(rate, every, args.warm, args.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.loopback_venue", description="A stand-in of the venue, for benchmarks.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--markets", type=int, default=10)
    parser.add_argument("--rates", default="", help="frames a second, one after another; empty: only serve")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured, at each rate")
    parser.add_argument("--warm", type=float, default=2.0, help="before them, not measured")
    parser.add_argument("--moves", type=int, default=20, help="frames a second that a quote must follow; 0: only watch")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
