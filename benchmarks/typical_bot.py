"""A maker as a good user writes it, to measure ourselves against: websockets, json, dict books, `py-clob-client-v2` in a thread.

One bid and one ask at the touch of every market, the ask as a purchase of NO; nothing where the spread is above ten cents. When a
best price moves, the order at the old one is canceled and one at the new one signed and posted, in a worker thread so that the loop
goes on reading. Nothing is slow on purpose: uvloop where it installs, coincurve behind eth-account, the library's one HTTP client,
kept alive; tick size, neg risk and version asked for once before the start; two orders in one request where two are due; no market
waits for another's requests. It has no journal, no ledger, no limits, and checks no books, which ours does beside it.

`python -m benchmarks.typical_bot PORT`; ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from py_clob_client_v2.client import ClobClient
from py_clob_client_v2.clob_types import OrderArgsV2, OrderPayload, OrderType, PartialCreateOrderOptions, PostOrdersV2Args
from websockets.asyncio.client import connect

KEY = "0x" + "11" * 32
"""Throwaway, known to everybody."""
SIZE = 5.0
MAX_SPREAD = 0.10
OPTIONS = PartialCreateOrderOptions(tick_size="0.01", neg_risk=False)


class Market:
    """Books of both tokens, what is wanted and what rests: side -> (price, order id)."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.tokens: list[str] = json.loads(row["clobTokenIds"])
        self.books: dict[str, dict[str, dict[float, float]]] = {token: {"BUY": {}, "SELL": {}} for token in self.tokens}
        self.best: tuple[float, float] = (0.0, 1.0)
        self.resting: dict[str, tuple[float, str]] = {}
        self.busy = False

    def snapshot(self, message: dict[str, Any]) -> None:
        book = self.books[message["asset_id"]]
        for side, name in (("BUY", "bids"), ("SELL", "asks")):
            book[side] = {float(level["price"]): float(level["size"]) for level in message[name]}
        if message["asset_id"] == self.tokens[0]:
            self.best = max(book["BUY"], default=0.0), min(book["SELL"], default=1.0)

    def change(self, change: dict[str, Any]) -> None:
        levels = self.books[change["asset_id"]][change["side"]]
        price, size = float(change["price"]), float(change["size"])
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)
        if change["asset_id"] == self.tokens[0]:
            self.best = float(change["best_bid"]), float(change["best_ask"])

    def wanted(self) -> dict[str, float]:
        bid, ask = self.best
        if bid <= 0 or ask >= 1 or ask - bid > MAX_SPREAD + 1e-9:
            return {}
        return {"BUY": bid, "SELL": ask}

    def settled(self) -> bool:
        return {side: price for side, (price, _) in self.resting.items()} == self.wanted()


class Bot:
    def __init__(self, host: str) -> None:
        maker = ClobClient(host, 137, key=KEY)
        self.credentials = maker.create_or_derive_api_key()
        self.client = ClobClient(host, 137, key=KEY, creds=self.credentials, signature_type=0)
        self.markets: list[Market] = []
        self.of_token: dict[str, Market] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def learn(self, rows: list[dict[str, Any]]) -> None:
        """The markets, and all that the library would otherwise ask for at the first order of each."""
        self.markets = [Market(row) for row in rows]
        self.of_token = {token: market for market in self.markets for token in market.tokens}
        for token in self.of_token:
            self.client.get_tick_size(token)
            self.client.get_neg_risk(token)
        self.client.create_order(OrderArgsV2(self.markets[0].tokens[0], 0.5, SIZE, "BUY"), OPTIONS)

    async def watch(self, url: str) -> None:
        async with connect(url, compression=None, ping_interval=None, max_queue=None) as socket:
            await socket.send(json.dumps({"type": "market", "assets_ids": list(self.of_token)}))
            self.spawn(ping(socket))
            async for text in socket:
                if text != "PONG":
                    told = json.loads(text)
                    for message in told if isinstance(told, list) else [told]:
                        self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        if message["event_type"] == "price_change":
            for change in message["price_changes"]:
                market = self.of_token.get(change["asset_id"])
                if market is not None:
                    before = market.best
                    market.change(change)
                    if market.best != before:
                        self.requote(market)
        elif message["event_type"] == "book":
            market = self.of_token[message["asset_id"]]
            market.snapshot(message)
            self.requote(market)

    def requote(self, market: Market) -> None:
        if not market.busy and not market.settled():
            market.busy = True
            self.spawn(self.follow(market))

    async def follow(self, market: Market) -> None:
        """Until what rests is what is wanted, which may have moved on meanwhile."""
        while not market.settled():
            await asyncio.to_thread(self.replace, market, market.wanted())
        market.busy = False

    def replace(self, market: Market, wanted: dict[str, float]) -> None:
        """In a thread: cancel what is wrong, then place what is missing."""
        wrong = [side for side, (price, _) in market.resting.items() if wanted.get(side) != price]
        if len(wrong) == 1:
            self.client.cancel_order(OrderPayload(market.resting.pop(wrong[0])[1]))
        elif wrong:
            self.client.cancel_orders([market.resting.pop(side)[1] for side in wrong])
        missing = [side for side in wanted if side not in market.resting]
        signed = [self.client.create_order(_args(market, side, wanted[side]), OPTIONS) for side in missing]
        if len(signed) == 1:
            answers = [self.client.post_order(signed[0], OrderType.GTC, post_only=True)]
        elif signed:
            answers = self.client.post_orders([PostOrdersV2Args(order, OrderType.GTC) for order in signed], post_only=True)
        else:
            answers = []
        for side, answer in zip(missing, answers, strict=True):
            market.resting[side] = (wanted[side], answer["orderID"])

    async def hear_of_fills(self, url: str) -> None:
        auth = {
            "apiKey": self.credentials.api_key,
            "secret": self.credentials.api_secret,
            "passphrase": self.credentials.api_passphrase,
        }
        async with connect(url, compression=None, ping_interval=None) as socket:
            await socket.send(json.dumps({"type": "user", "auth": auth}))
            self.spawn(ping(socket))
            async for text in socket:
                if text != "PONG":
                    json.loads(text)

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise SystemExit(f"the typical bot broke: {task.exception()!r}")


def _args(market: Market, side: str, price: float) -> OrderArgsV2:
    """A bid buys YES; an ask, without shares to sell, buys NO."""
    token = market.tokens[0 if side == "BUY" else 1]
    return OrderArgsV2(token, price if side == "BUY" else round(1 - price, 2), SIZE, "BUY")


async def ping(socket: Any) -> None:
    while True:
        await asyncio.sleep(10)
        await socket.send("PING")


async def run(port: int) -> None:
    import httpx

    host = f"http://127.0.0.1:{port}"
    bot = Bot(host)
    bot.learn(httpx.get(f"{host}/gamma/markets/keyset", params={"limit": 100, "closed": "false"}).json()["markets"])
    bot.spawn(bot.hear_of_fills(f"ws://127.0.0.1:{port}/ws/user"))
    bot.spawn(bot.watch(f"ws://127.0.0.1:{port}/ws/market"))
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(int(sys.argv[1])))
        return
    asyncio.run(run(int(sys.argv[1])))


if __name__ == "__main__":
    main()
