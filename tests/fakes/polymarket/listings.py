"""What the fake venue tells anybody about its markets: Gamma, the Data API, the geoblock (`polymarket.md` 2.1, 2.7)."""

from __future__ import annotations

import base64
import json
import zlib
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.polymarket.records import FakeMarket
from tests.fakes.polymarket.verify import Refused

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket

REBATES = {"crypto": "0.2", "sports": "0.15"}
COLLATERAL = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
PAGE_MOST = 100


class Listings:
    """Gamma and Data, over the house's markets."""

    def __init__(self, venue: FakePolymarket) -> None:
        self.venue = venue

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/gamma/markets/keyset", self.markets_keyset),
            web.get("/gamma/markets", self.markets),
            web.get("/gamma/markets/slug/{slug}", self.market_by_slug),
            web.get("/gamma/markets/{id}", self.market_by_id),
            web.get("/gamma/events/keyset", self.events_keyset),
            web.get("/gamma/events", self.events),
            web.get("/gamma/events/slug/{slug}", self.event_by_slug),
            web.get("/gamma/events/{id}", self.event_by_id),
            web.get("/gamma/tags/slug/{slug}", self.tag),
            web.get("/data/v2/positions", self.positions),
            web.get("/data/v2/trades", self.nothing),
            web.get("/data/v2/activity", self.nothing),
            web.get("/data/positions", self.positions_v1),
            web.get("/geoblock", self.geoblock),
        ]

    # Gamma: markets.

    async def markets_keyset(self, request: web.Request) -> web.Response:
        found, cursor = self._page(request, self._filtered(request))
        page: dict[str, Any] = {"markets": [self.market(market) for market in found]}
        return _json(page | ({"next_cursor": cursor} if cursor else {}))

    async def markets(self, request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset > 2000:
            raise Refused(422, "offset too large, use /markets/keyset")
        found = self._filtered(request)[offset : offset + _limit(request)]
        return _json([self.market(market) for market in found])

    async def market_by_slug(self, request: web.Request) -> web.Response:
        return self._one(request, [each for each in self.venue.markets if each.slug == request.match_info["slug"]])

    async def market_by_id(self, request: web.Request) -> web.Response:
        return self._one(request, [each for each in self.venue.markets if self.market_id(each) == request.match_info["id"]])

    def _one(self, request: web.Request, found: list[FakeMarket]) -> web.Response:
        if not found:
            raise Refused(404, "not found", request.path)
        return _json(self.market(found[0]))

    def _filtered(self, request: web.Request) -> list[FakeMarket]:
        query = request.query
        wanted = {name: set(_many(request, name)) for name in ("id", "slug", "condition_ids", "clob_token_ids", "tag_id")}
        if len(wanted["condition_ids"]) > 100:
            raise Refused(422, "too many condition_ids")
        found = []
        for market in self.venue.markets:
            mine = {
                "id": {self.market_id(market)},
                "slug": {market.slug},
                "condition_ids": {market.condition_id},
                "clob_token_ids": set(market.tokens),
                "tag_id": {_tag_id(tag) for tag in market.tags},
            }
            if any(names and not names & mine[name] for name, names in wanted.items()):
                continue
            facts = {"closed": market.closed, "active": True, "version": market.version}
            if any(name in query and query[name].lower() != str(fact).lower() for name, fact in facts.items()):
                continue
            numbers = {"volume_num": market.volume_24h, "liquidity_num": market.liquidity}
            numbers["rewards_min_size"] = Decimal((market.rewards or {}).get("min_size", 0))
            if all(_between(query, name, number) for name, number in numbers.items()) and _ends_between(query, market):
                found.append(market)
        keys = {"volumeNum": "volume_24h", "volume24hr": "volume_24h", "liquidityNum": "liquidity", "endDate": "end_iso"}
        order = keys.get(query.get("order", "").split(",")[0])
        if order:
            found.sort(key=lambda market: getattr(market, order) or "", reverse=query.get("ascending", "true").lower() == "false")
        return found

    def market(self, market: FakeMarket, *, with_event: bool = True) -> dict[str, Any]:
        """One market as Gamma words it: arrays as JSON text, numbers as numbers, prices that lag."""
        bid, ask = self.venue.touch(market)
        mid = (bid + ask) / 2
        share = REBATES.get(market.category, "0.25")
        rewards = market.rewards or {}
        told: dict[str, Any] = {
            "id": self.market_id(market),
            "question": market.question,
            "conditionId": market.condition_id,
            "questionID": "0x" + f"{zlib.crc32(market.condition_id.encode()):064x}",
            "slug": market.slug,
            "description": f"Resolves by the fake's own dice: {market.question}",
            "resolutionSource": "",
            "category": market.category,
            "version": market.version,
            "outcomes": json.dumps(["Yes", "No"]),
            "outcomePrices": json.dumps([f"{mid:f}", f"{1 - mid:f}"]),
            "clobTokenIds": json.dumps(list(market.tokens)),
            "positionIds": [],
            "active": True,
            "closed": market.closed,
            "archived": False,
            "acceptingOrders": market.accepting,
            "enableOrderBook": True,
            "negRisk": market.neg_risk,
            "negRiskMarketID": "0x" + f"{zlib.crc32(market.event_id.encode()):064x}" if market.neg_risk else "",
            "orderPriceMinTickSize": float(market.tick),
            "orderMinSize": float(market.min_size),
            "startDate": market.start_iso,
            "endDate": market.end_iso,
            "secondsDelay": market.seconds_delay,
            "feesEnabled": market.fee_rate > 0,
            "makerBaseFee": 1000,
            "takerBaseFee": 1000,
            "rewardsMinSize": float(rewards.get("min_size", 0)),
            "rewardsMaxSpread": float(rewards.get("max_spread", 0)),
            "clobRewards": [_reward(market)] if rewards else [],
            "umaResolutionStatus": "resolved" if market.resolved else "",
            "bestBid": float(bid),
            "bestAsk": float(ask),
            "spread": float(ask - bid),
            "lastTradePrice": float(mid),
            "volume": f"{market.volume_24h:f}",
            "volumeNum": float(market.volume_24h),
            "volume24hr": float(market.volume_24h),
            "liquidity": f"{market.liquidity:f}",
            "liquidityNum": float(market.liquidity),
        }
        if market.fee_rate > 0:
            told["feeType"] = market.category or "general"
            told["feeSchedule"] = {"rate": float(market.fee_rate), "exponent": 1, "takerOnly": True, "rebateRate": float(share)}
        if with_event:
            told["events"] = [self._event(market.event_id, [market], whole=False)]
            told["tags"] = [_tag(tag) for tag in market.tags]
        return told

    def market_id(self, market: FakeMarket) -> str:
        return str(500_000 + list(self.venue.house.markets).index(market.condition_id))

    # Gamma: events.

    async def events_keyset(self, request: web.Request) -> web.Response:
        found, cursor = self._page(request, self._events(request))
        return _json({"events": found} | ({"next_cursor": cursor} if cursor else {}))

    async def events(self, request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        return _json(self._events(request)[offset : offset + _limit(request)])

    async def event_by_id(self, request: web.Request) -> web.Response:
        return self._one_event(request, "id")

    async def event_by_slug(self, request: web.Request) -> web.Response:
        return self._one_event(request, "slug")

    def _one_event(self, request: web.Request, name: str) -> web.Response:
        found = [event for event in self._events(request) if event[name] == request.match_info[name]]
        if not found:
            raise Refused(404, "not found", request.path)
        return _json(found[0])

    def _events(self, request: web.Request) -> list[dict[str, Any]]:
        groups: dict[str, list[FakeMarket]] = {}
        for market in self.venue.markets:
            groups.setdefault(market.event_id, []).append(market)
        events = [self._event(event_id, markets, whole=True) for event_id, markets in groups.items()]
        slugs, ids, tags = (set(_many(request, name)) for name in ("slug", "id", "tag_id"))
        closed = request.query.get("closed", "").lower()
        return [
            event
            for event in events
            if (not slugs or event["slug"] in slugs)
            and (not ids or event["id"] in ids)
            and (not tags or tags & {tag["id"] for tag in event["tags"]})
            and (not closed or str(event["closed"]).lower() == closed)
        ]

    def _event(self, event_id: str, markets: list[FakeMarket], *, whole: bool) -> dict[str, Any]:
        first = markets[0]
        event: dict[str, Any] = {
            "id": event_id,
            "slug": first.event_slug,
            "title": first.event_slug.replace("-", " ") or first.question,
            "active": True,
            "closed": all(market.closed for market in markets),
            "archived": False,
            "negRisk": first.neg_risk,
            "enableNegRisk": first.neg_risk,
            "negRiskAugmented": False,
            "startDate": first.start_iso,
            "endDate": first.end_iso,
            "volume24hr": float(sum(market.volume_24h for market in markets)),
            "liquidity": float(sum(market.liquidity for market in markets)),
        }
        if whole:
            event["tags"] = [_tag(tag) for tag in dict.fromkeys(tag for market in markets for tag in market.tags)]
            event["markets"] = [self.market(market, with_event=False) for market in markets]
        return event

    async def tag(self, request: web.Request) -> web.Response:
        slug = request.match_info["slug"]
        if all(slug not in market.tags for market in self.venue.markets):
            raise Refused(404, "not found", request.path)
        return _json(_tag(slug))

    def _page(self, request: web.Request, rows: list[Any]) -> tuple[list[Any], str]:
        """One page, and where the next begins; empty text at the end."""
        start = cursor_place(request.query.get("after_cursor", ""))
        end = start + _limit(request)
        return rows[start:end], cursor_text(end) if end < len(rows) else ""

    # Data, and whence.

    async def positions(self, request: web.Request) -> web.Response:
        return _json({"data": self._holdings(request), "pagination": {"has_more": False, "next_cursor": None}})

    async def positions_v1(self, request: web.Request) -> web.Response:
        names = {"proxy_wallet": "proxyWallet", "token_id": "asset", "condition_id": "conditionId", "current_size": "size"}
        return _json([{names.get(key, key): value for key, value in row.items()} for row in self._holdings(request)])

    async def nothing(self, request: web.Request) -> web.Response:
        return _json({"data": [], "pagination": {"has_more": False, "next_cursor": None}})

    async def geoblock(self, request: web.Request) -> web.Response:
        return _json({"blocked": self.venue.blocked, "ip": "127.0.0.1", "country": "CH", "region": "ZH"})

    def _holdings(self, request: web.Request) -> list[dict[str, Any]]:
        """What the wallet holds, at the price of now: the fake keeps no costs."""
        rows = []
        for account in self.venue.house.accounts.values():
            if account.maker.lower() != request.query.get("user", "").lower():
                continue
            for token, shares in account.shares.items():
                market = self.venue.market_of(token)
                if market is not None and shares > 0:
                    rows.append(self._holding(account.maker, market, token, shares))
            break
        return rows

    def _holding(self, maker: str, market: FakeMarket, token: str, shares: Decimal) -> dict[str, Any]:
        bid, ask = self.venue.touch(market)
        price = (bid + ask) / 2 if token == market.yes else 1 - (bid + ask) / 2
        worth = float(price * shares)
        zeros = dict.fromkeys(
            ("entry_fees_usdc", "realized_pnl", "unrealized_pnl", "total_pnl", "percent_pnl", "percent_realized_pnl"), 0.0
        )
        return zeros | {
            "proxy_wallet": maker,
            "token_id": token,
            "condition_id": market.condition_id,
            "current_size": float(shares),
            "total_size": float(shares),
            "avg_price": float(price),
            "current_price": float(price),
            "entry_cost_usdc": worth,
            "total_cost_usdc": worth,
            "current_value": worth,
            "status": "CLOSED" if market.closed else "OPEN",
            "redeemable": market.resolved is not None,
            "mergeable": False,
            "negative_risk": market.neg_risk,
            "archived": False,
            "verified": True,
            "outcome": market.outcome(token),
            "outcome_index": market.tokens.index(token),
            "opposite_token_id": market.other(token),
            "title": market.question,
            "slug": market.slug,
            "event_id": market.event_id,
        }


def cursor_place(cursor: str) -> int:
    """Where a page begins; `MA==` is 0."""
    try:
        return int(base64.b64decode(cursor)) if cursor else 0
    except ValueError:
        raise Refused(400, "invalid cursor", cursor) from None


def cursor_text(place: int) -> str:
    return base64.b64encode(str(place).encode()).decode()


def _json(body: Any) -> web.Response:
    return web.json_response(body)


def _limit(request: web.Request) -> int:
    try:
        return max(1, min(int(request.query.get("limit", 20)), PAGE_MOST))
    except ValueError:
        raise Refused(422, "invalid limit") from None


def _many(request: web.Request, name: str) -> list[str]:
    return [part for text in request.query.getall(name, []) for part in text.split(",") if part]


def _between(query: Any, name: str, number: Decimal) -> bool:
    """`name_min` and `name_max` (or `name` itself as a least) against one number."""
    try:
        least, most = (Decimal(query[key]) if key in query else None for key in (f"{name}_min", f"{name}_max"))
        least = Decimal(query[name]) if name in query else least
    except InvalidOperation:
        raise Refused(422, f"invalid {name}") from None
    return (least is None or number >= least) and (most is None or number <= most)


def _ends_between(query: Any, market: FakeMarket) -> bool:
    """ISO texts of one form compare as they are read."""
    least, most = query.get("end_date_min"), query.get("end_date_max")
    end = (market.end_iso or "")[:19]
    return (not least or (bool(end) and end >= least[:19])) and (not most or (bool(end) and end <= most[:19]))


def _reward(market: FakeMarket) -> dict[str, Any]:
    rate = float((market.rewards or {}).get("rate_per_day", 0))
    return {
        "id": str(zlib.crc32(market.condition_id.encode()) % 100_000),
        "conditionId": market.condition_id,
        "assetAddress": COLLATERAL,
        "rewardsAmount": 0,
        "rewardsDailyRate": rate,
        "startDate": "2026-01-01",
        "endDate": "2500-12-31",
    }


def _tag(tag: str) -> dict[str, str]:
    return {"id": _tag_id(tag), "label": tag.title(), "slug": tag}


def _tag_id(tag: str) -> str:
    return str(100_000 + zlib.crc32(tag.encode()) % 10_000)
