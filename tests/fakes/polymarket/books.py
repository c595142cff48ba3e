"""The public half of the fake CLOB: books, prices, one market's rules, price history, reward lists (`polymarket.md` 2.2)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.polymarket.listings import COLLATERAL, cursor_place, cursor_text
from tests.fakes.polymarket.records import FakeMarket
from tests.fakes.polymarket.verify import Refused

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket

NO_BOOK = "No orderbook exists for the requested token id"
END = "LTE="
BATCH_MOST = 500
HISTORY_S = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "1w": 604_800, "1m": 2_592_000, "max": 2_592_000}
SAMPLING_PAGE = 500


class Books:
    """Public CLOB reads; with `stale_book` on, they show the past."""

    def __init__(self, venue: FakePolymarket) -> None:
        self.venue = venue
        self._shots: list[tuple[int, dict[str, dict[str, Any]]]] = []
        """When, and every token's book then; kept only while `stale_book` is on."""

    def routes(self) -> list[web.RouteDef]:
        get, post = web.get, web.post
        return [
            get("/clob/time", self.time),
            get("/clob/ok", self.ok),
            get("/clob/", self.ok),
            get("/clob/version", self.version),
            get("/clob/book", self.book),
            post("/clob/books", self.books),
            *(get(f"/clob/{path}", self._single(told)) for path, told in _SINGLES.items()),
            *(post(f"/clob/{path}", self._plural(told)) for path, told in _PLURALS.items()),
            get("/clob/tick-size", self._rule("minimum_tick_size", lambda market: float(market.tick))),
            get("/clob/neg-risk", self._rule("neg_risk", lambda market: market.neg_risk)),
            get("/clob/fee-rate", self._rule("base_fee", lambda market: 1000 if market.fee_rate else 0)),
            get("/clob/markets-by-token/{token}", self.market_by_token),
            get("/clob/clob-markets/{cid}", self.clob_market),
            get("/clob/markets/{cid}", self.market),
            get("/clob/sampling-markets", self.sampling),
            get("/clob/prices-history", self.history),
            get("/clob/rewards/markets/current", self.rewards),
        ]

    def step(self, now_ms: int) -> None:
        """Remember the books while old ones may be shown."""
        fault = self.venue.faults.told("stale_book", now_ms)
        if fault is None:
            self._shots.clear()
            return
        if not self._shots or now_ms - self._shots[-1][0] >= fault.value * 500:
            shot = {token: book for market in self.venue.markets for token in market.tokens if (book := self._now(token, now_ms))}
            self._shots.append((now_ms, shot))
        while len(self._shots) > 1 and self._shots[1][0] <= now_ms - fault.value * 1000:
            self._shots.pop(0)

    def _now(self, token: str, now_ms: int) -> dict[str, Any] | None:
        return self.venue.house.book(token, now_ms)

    def _book(self, token: str) -> dict[str, Any]:
        now_ms = self.venue.now_ms()
        found = self._now(token, now_ms)
        if found is None:
            raise Refused(404, NO_BOOK, token[:12])
        if self._shots and token in self._shots[0][1] and self.venue.faults.hit("stale_book", now_ms, token):
            return self._shots[0][1][token]
        return found

    # Books and prices.

    async def time(self, request: web.Request) -> web.Response:
        return _json(self.venue.now_ms() // 1000)

    async def ok(self, request: web.Request) -> web.Response:
        return _json("OK")

    async def version(self, request: web.Request) -> web.Response:
        return _json({"version": 2})

    async def book(self, request: web.Request) -> web.Response:
        return _json(self._book(_token(request)))

    async def books(self, request: web.Request) -> web.Response:
        """Tokens without a book are left out."""
        found = []
        for row in await _rows(request):
            try:
                found.append(self._book(row["token_id"]))
            except Refused:
                continue
        return _json(found)

    def _single(self, told: Callable[[dict[str, Any], str], dict[str, str]]) -> Any:
        async def handler(request: web.Request) -> web.Response:
            return _json(told(self._book(_token(request)), request.query.get("side", "")))

        return handler

    def _plural(self, told: Callable[[dict[str, Any], str], Any]) -> Any:
        async def handler(request: web.Request) -> web.Response:
            rows = await _rows(request)
            answers = [(row["token_id"], told(self._book(row["token_id"]), str(row.get("side", "")))) for row in rows]
            if any(isinstance(answer, dict) and "token_id" in answer for _, answer in answers):
                return _json([answer for _, answer in answers])
            merged: dict[str, Any] = {}
            for token, answer in answers:
                merged[token] = merged[token] | answer if isinstance(answer, dict) and token in merged else answer
            return _json(merged)

        return handler

    # A market's rules.

    def _rule(self, name: str, told: Callable[[FakeMarket], Any]) -> Any:
        async def handler(request: web.Request) -> web.Response:
            market = self.venue.market_of(_token(request))
            if market is None:
                raise Refused(404, "market not found")
            return _json({name: told(market)})

        return handler

    async def market_by_token(self, request: web.Request) -> web.Response:
        market = self.venue.market_of(request.match_info["token"])
        if market is None:
            raise Refused(404, "market not found")
        return _json({"condition_id": market.condition_id, "primary_token_id": market.yes, "secondary_token_id": market.no})

    async def clob_market(self, request: web.Request) -> web.Response:
        market = self._market(request)
        told: dict[str, Any] = {
            "c": market.condition_id,
            "t": [{"t": market.yes, "o": "Yes"}, {"t": market.no, "o": "No"}],
            "mts": float(market.tick),
            "mos": float(market.min_size),
            "nr": market.neg_risk,
            "mbf": 1000,
            "tbf": 1000,
            "ao": market.accepting,
            "cbos": not market.closed,
            "itode": False,
            "sd": market.seconds_delay,
        }
        if market.fee_rate > 0:
            told["fd"] = {"r": float(market.fee_rate), "e": 1, "to": True}
        if market.rewards:
            told["r"] = {"mi": float(market.rewards["min_size"]), "ma": float(market.rewards["max_spread"]), "moas": 30}
        return _json(told)

    async def market(self, request: web.Request) -> web.Response:
        return _json(self._market_row(self._market(request)))

    async def sampling(self, request: web.Request) -> web.Response:
        rows = [self._market_row(market) for market in self.venue.markets if market.rewards and not market.closed]
        return _json(_page(request, rows, SAMPLING_PAGE))

    def _market(self, request: web.Request) -> FakeMarket:
        market = self.venue.house.markets.get(request.match_info["cid"])
        if market is None:
            raise Refused(404, "market not found", request.path)
        return market

    def _market_row(self, market: FakeMarket) -> dict[str, Any]:
        bid, ask = self.venue.touch(market)
        mid = float((bid + ask) / 2)
        tokens = [
            {"token_id": token, "outcome": market.outcome(token), "price": price, "winner": token == market.winner}
            for token, price in ((market.yes, mid), (market.no, 1 - mid))
        ]
        rewards = market.rewards or {}
        rates = [{"asset_address": COLLATERAL, "rewards_daily_rate": float(rewards["rate_per_day"])}] if rewards else None
        return {
            "condition_id": market.condition_id,
            "question_id": "0x" + f"{zlib.crc32(market.condition_id.encode()):064x}",
            "question": market.question,
            "market_slug": market.slug,
            "description": "",
            "enable_order_book": True,
            "active": True,
            "closed": market.closed,
            "archived": False,
            "accepting_orders": market.accepting,
            "minimum_order_size": float(market.min_size),
            "minimum_tick_size": float(market.tick),
            "end_date_iso": market.end_iso,
            "game_start_time": None,
            "seconds_delay": market.seconds_delay,
            "neg_risk": market.neg_risk,
            "maker_base_fee": 1000,
            "taker_base_fee": 1000,
            "rewards": {
                "rates": rates,
                "min_size": float(rewards.get("min_size", 0)),
                "max_spread": float(rewards.get("max_spread", 0)),
            },
            "tokens": tokens,
            "tags": list(market.tags),
        }

    async def history(self, request: web.Request) -> web.Response:
        """Made-up past prices: near where the book was when first asked for, and the same whenever asked for again."""
        query, now_s = request.query, self.venue.now_ms() // 1000
        token = query.get("market", "")
        market = self.venue.market_of(token)
        if market is None:
            return _json({"history": []})
        span = HISTORY_S.get(query.get("interval", "1d"))
        if span is None and "startTs" not in query:
            raise Refused(400, "invalid interval")
        try:
            end = min(int(query.get("endTs", now_s)), now_s)
            start, step = int(query.get("startTs", end - (span or 0))), max(60, int(query.get("fidelity", 1)) * 60)
        except ValueError:
            raise Refused(400, "invalid filters") from None
        level = self.venue.level_of(market)
        points = []
        for at in range(start - start % step, end + 1, step):
            wave = sum(math.sin(at / period + zlib.crc32(market.yes.encode()) % 97) for period in (911.0, 4_133.0, 30_011.0))
            price = min(max(level + 0.01 * wave, 0.01), 0.99)
            points.append({"t": at, "p": round(price if token == market.yes else 1 - price, 4)})
        return _json({"history": points})

    async def rewards(self, request: web.Request) -> web.Response:
        rows = []
        for number, market in enumerate(self.venue.markets):
            if not market.rewards or market.closed:
                continue
            rate = float(market.rewards["rate_per_day"])
            config = {
                "id": number,
                "asset_address": COLLATERAL,
                "start_date": "2026-01-01",
                "end_date": "2500-12-31",
                "rate_per_day": rate,
                "total_rewards": 0,
            }
            rows.append(
                {
                    "condition_id": market.condition_id,
                    "rewards_max_spread": float(market.rewards["max_spread"]),
                    "rewards_min_size": float(market.rewards["min_size"]),
                    "rewards_config": [config],
                    "sponsored_daily_rate": 0.0,
                    "native_daily_rate": rate,
                    "total_daily_rate": rate,
                }
            )
        return _json(_page(request, rows, SAMPLING_PAGE))


def best(book: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Bid and ask of a book; 0 and 1 where a side is empty."""
    bids, asks = ([Decimal(level["price"]) for level in book[side]] for side in ("bids", "asks"))
    return max(bids, default=Decimal(0)), min(asks, default=Decimal(1))


def _mid(book: dict[str, Any]) -> str:
    bid, ask = best(book)
    return f"{(bid + ask) / 2:f}"


def _price(book: dict[str, Any], side: str) -> str:
    """BUY is the best bid, SELL the best ask."""
    if side.upper() not in ("BUY", "SELL"):
        raise Refused(400, "Invalid side")
    return f"{best(book)[side.upper() == 'SELL']:f}"


def _spread(book: dict[str, Any]) -> str:
    bid, ask = best(book)
    return f"{ask - bid:f}"


def _last(book: dict[str, Any]) -> dict[str, str]:
    price = book["last_trade_price"]
    return {"price": price or "0.5", "side": "BUY" if price else ""}


_SINGLES: dict[str, Callable[[dict[str, Any], str], dict[str, str]]] = {
    "midpoint": lambda book, side: {"mid": _mid(book)},
    "price": lambda book, side: {"price": _price(book, side)},
    "spread": lambda book, side: {"spread": _spread(book)},
    "last-trade-price": lambda book, side: _last(book),
}
_PLURALS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "midpoints": lambda book, side: _mid(book),
    "prices": lambda book, side: {side.upper(): _price(book, side)},
    "spreads": lambda book, side: _spread(book),
    "last-trades-prices": lambda book, side: {"token_id": book["asset_id"], **_last(book)},
}


def _json(body: Any) -> web.Response:
    return web.json_response(body)


def _page(request: web.Request, rows: list[Any], size: int) -> dict[str, Any]:
    start = cursor_place(request.query.get("next_cursor", ""))
    end = start + size
    found = rows[start:end]
    return {"data": found, "next_cursor": cursor_text(end) if end < len(rows) else END, "limit": size, "count": len(found)}


def _token(request: web.Request) -> str:
    token = request.query.get("token_id", "")
    if not token.isdecimal():
        raise Refused(400, "Invalid token id", token[:20])
    return token


async def _rows(request: web.Request) -> list[dict[str, Any]]:
    try:
        rows = json.loads(await request.read())
    except ValueError:
        raise Refused(400, "Invalid payload") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("token_id"), str) for row in rows):
        raise Refused(400, "Invalid payload")
    if len(rows) > BATCH_MOST:
        raise Refused(400, "Payload exceeds the limit")
    return rows
