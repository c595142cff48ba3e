"""The markets of the loopback venue: seeded books, frames in the venue's words, and who must move a quote after each. No I/O.

Near levels come and go a tick at a time, so that the touch moves; far levels, outside what a maker may quote in, only change their
sizes. A market is sometimes *wide*: no ask is left near its bid, both quotes must go, and come back with the ask. Of the frames
that move nothing, six in a hundred change the size at the touch and the rest lie deep: as in a recorded tape of real markets.
"""

from __future__ import annotations

import hashlib
import json
from random import Random
from typing import Any

BUY, SELL = "BUY", "SELL"
TICKS = 100
"""Of a payout: prices here are cents."""
_FAR = 14
"""Cents from the near levels to the first far one: more than the 10 cents in which makers quote, with the near spread on top."""
_STEPS = 2
_TOUCH_SHARE = 0.06
_WIDE_SHARE = 0.2
_SHARES = 300, 900


class Told:
    """A frame, and what it asks of a maker: `wanted` side -> price, 0 for no quote; empty for a frame that moves nothing."""

    __slots__ = ("changes", "kind", "market", "wanted")

    def __init__(self, market: Market, changes: str, kind: str = "", wanted: dict[str, int] | None = None) -> None:
        self.market, self.changes, self.kind, self.wanted = market, changes, kind, wanted or {}

    def frame(self, number: int, now_ms: int) -> bytes:
        text = self.changes.replace("#", str(number))
        market = self.market
        market.changed_ms = now_ms
        return (f'{{"market":"{market.id}","price_changes":[{text}],"timestamp":"{now_ms}","event_type":"price_change"}}').encode()


class Market:
    """One market: YES levels in cents and whole shares; NO is its mirror."""

    def __init__(self, number: int, dice: Random) -> None:
        self.number, self._dice = number, dice
        self.id = "0x" + hashlib.sha256(f"loopback {number}".encode()).hexdigest()
        self.yes, self.no = str(10**76 + 2 * number), str(10**76 + 2 * number + 1)
        low = dice.randrange(30, 60)
        self._low, self._high = low, low + 8
        self._bid_steps = self._ask_steps = 1
        self.wide = False
        self.changed_ms = 0
        self.bids = {price: self._size() for price in (low, low + 1, low - _FAR, low - _FAR - 1, low - _FAR - 2)}
        top = self._high
        self.asks = {price: self._size() for price in (top, top - 1, top + _FAR, top + _FAR + 1, top + _FAR + 2)}

    @property
    def best(self) -> tuple[int, int]:
        return max(self.bids), min(self.asks)

    @property
    def quotes(self) -> dict[str, int]:
        """What a maker at the touch wants here."""
        bid, ask = self.best
        return {BUY: 0, SELL: 0} if self.wide else {BUY: bid, SELL: ask}

    def _size(self) -> int:
        return self._dice.randrange(*_SHARES)

    def idle(self) -> Told:
        """A change that moves no best price."""
        side = self._dice.choice((BUY, SELL))
        levels = self.bids if side == BUY else self.asks
        far = sorted(levels, reverse=side == BUY)
        price = far[0] if self._dice.random() < _TOUCH_SHARE else self._dice.choice(far[-2:])
        levels[price] = self._other_size(levels[price])
        return Told(self, self._changes([(side, price)]))

    def _other_size(self, size: int) -> int:
        return size + 1 if size < _SHARES[1] else _SHARES[0]

    def move(self) -> Told:
        """A change of the best price that a maker must follow."""
        if self.wide:
            return self._back()
        if self._dice.random() < _WIDE_SHARE:
            return self._widen()
        return self._step(self._dice.choice((BUY, SELL)))

    def _step(self, side: str) -> Told:
        steps = self._bid_steps if side == BUY else self._ask_steps
        up = steps == 0 or (steps < _STEPS and self._dice.random() < 0.5)
        price = self._near(side, steps + 1 if up else steps)
        levels = self.bids if side == BUY else self.asks
        if up:
            levels[price] = self._size()
        else:
            del levels[price]
        if side == BUY:
            self._bid_steps = steps + (1 if up else -1)
        else:
            self._ask_steps = steps + (1 if up else -1)
        return Told(self, self._changes([(side, price)]), "move", {side: self.quotes[side]})

    def _near(self, side: str, steps: int) -> int:
        return self._low + steps if side == BUY else self._high - steps

    def _widen(self) -> Told:
        near = [self._near(SELL, steps) for steps in range(self._ask_steps + 1)]
        for price in near:
            del self.asks[price]
        self.wide = True
        return Told(self, self._changes([(SELL, price) for price in near]), "wide", self.quotes)

    def _back(self) -> Told:
        self._ask_steps = 0
        self.asks[self._high] = self._size()
        self.wide = False
        return Told(self, self._changes([(SELL, self._high)]), "back", self.quotes)

    def _changes(self, levels: list[tuple[str, int]]) -> str:
        """Each level told by YES and by NO, `#` where the frame's number goes."""
        bid, ask = self.best
        yes_best, no_best = _best(bid, ask), _best(TICKS - ask, TICKS - bid)
        parts = []
        for side, price in levels:
            size = (self.bids if side == BUY else self.asks).get(price, 0)
            other = SELL if side == BUY else BUY
            parts.append(_change(self.yes, price, size, side, yes_best))
            parts.append(_change(self.no, TICKS - price, size, other, no_best))
        return ",".join(parts)

    def book(self, token: str) -> dict[str, Any]:
        """The whole book of one token, touch last as the venue has it."""
        yes = token == self.yes
        bids = self.bids if yes else {TICKS - price: size for price, size in self.asks.items()}
        asks = self.asks if yes else {TICKS - price: size for price, size in self.bids.items()}
        return {
            "event_type": "book",
            "market": self.id,
            "asset_id": token,
            "timestamp": str(self.changed_ms),
            "hash": "",
            "bids": [{"price": _text(price), "size": str(bids[price])} for price in sorted(bids)],
            "asks": [{"price": _text(price), "size": str(asks[price])} for price in sorted(asks, reverse=True)],
            "min_order_size": "5",
            "tick_size": "0.01",
            "neg_risk": False,
            "last_trade_price": "",
        }

    def listing(self) -> dict[str, Any]:
        """Its row in Gamma."""
        bid, ask = self.best
        return {
            "id": str(500_000 + self.number),
            "question": f"Loopback market {self.number}?",
            "conditionId": self.id,
            "slug": f"loopback-{self.number}",
            "category": "politics",
            "version": "v1",
            "outcomes": json.dumps(["Yes", "No"]),
            "outcomePrices": json.dumps(["0.5", "0.5"]),
            "clobTokenIds": json.dumps([self.yes, self.no]),
            "active": True,
            "closed": False,
            "archived": False,
            "acceptingOrders": True,
            "enableOrderBook": True,
            "negRisk": False,
            "orderPriceMinTickSize": 0.01,
            "orderMinSize": 5,
            "endDate": "2099-01-01T00:00:00Z",
            "feesEnabled": False,
            "bestBid": bid / TICKS,
            "bestAsk": ask / TICKS,
            "spread": (ask - bid) / TICKS,
            "volume24hr": 100_000.0,
            "liquidityNum": 100_000.0,
            "events": [{"id": str(900_000 + self.number), "slug": f"loopback-event-{self.number}", "title": "Loopback"}],
        }

    def rules(self) -> dict[str, Any]:
        """Its row in the CLOB's own list."""
        tokens = [{"t": self.yes, "o": "Yes"}, {"t": self.no, "o": "No"}]
        return {"t": tokens, "mts": 0.01, "mos": 5, "nr": False, "ao": True, "fd": {"r": 0, "e": 1, "to": True}}


class Feed:
    """All markets, and the one seeded order of their frames; a frame that moves something comes every `every` on average."""

    def __init__(self, seed: int, count: int) -> None:
        self._dice = Random(seed)
        self.markets = [Market(number, self._dice) for number in range(count)]
        self.by_id = {market.id: market for market in self.markets}
        self.by_token = {token: market for market in self.markets for token in (market.yes, market.no)}
        self._turn = self._until_move = 0

    def idle(self) -> Told:
        return self._dice.choice(self.markets).idle()

    def next(self, every: int) -> Told:
        """Moves take the markets in turn, half to one and a half times `every` frames apart."""
        if self._until_move > 0:
            self._until_move -= 1
            return self.idle()
        self._until_move = self._dice.randrange(every // 2, every + every // 2 + 1) - 1
        self._turn = (self._turn + 1) % len(self.markets)
        return self.markets[self._turn].move()


def _text(price: int) -> str:
    return f"0.{price:02d}"


def _best(bid: int, ask: int) -> str:
    return f'"best_bid":"{_text(bid)}","best_ask":"{_text(ask)}"'


def _change(token: str, price: int, size: int, side: str, best: str) -> str:
    return f'{{"asset_id":"{token}","price":"{_text(price)}","size":"{size}","side":"{side}","hash":"#",{best}}}'
