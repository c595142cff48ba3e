"""One logical book a market, in prices of YES, shown twice (`polymarket.md` 4.4): who meets whom, at whose price.

A bid buys YES or sells NO, an ask the reverse. Price first, then time; a match is at the resting order's price, so every
improvement is the taker's. Nothing here moves money, and an owner's own orders do meet: the venue documents no protection.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tests.fakes.polymarket.records import ONE, ZERO, Order

Side = dict[Decimal, dict[str, Order]]


class How(StrEnum):
    """What a match does with shares: hand them over, make new pairs of YES and NO, or take pairs back for cash."""

    COMPLEMENTARY = "COMPLEMENTARY"
    MINT = "MINT"
    MERGE = "MERGE"


def how(taker: Order, maker: Order) -> How:
    if taker.token == maker.token:
        return How.COMPLEMENTARY
    return How.MINT if taker.side == "BUY" else How.MERGE


@dataclass(frozen=True)
class Hit:
    """So many shares of a resting order."""

    maker: Order
    size: Decimal


class Book:
    """Resting orders by price and time. `version` grows with every change; `last` is the last price of YES."""

    def __init__(self) -> None:
        self.bids: Side = {}
        self.asks: Side = {}
        self.version = 0
        self.last: Decimal | None = None

    def side(self, bid: bool) -> Side:
        return self.bids if bid else self.asks

    def orders(self) -> list[Order]:
        return [order for side in (self.bids, self.asks) for level in side.values() for order in level.values()]

    def rest(self, order: Order) -> None:
        """Behind all others of its price."""
        self.side(order.is_bid).setdefault(order.yes_price, {})[order.id] = order
        self.version += 1

    def remove(self, order: Order) -> None:
        side = self.side(order.is_bid)
        level = side[order.yes_price]
        del level[order.id]
        if not level:
            del side[order.yes_price]
        self.version += 1

    def best(self, bid: bool) -> Decimal | None:
        side = self.side(bid)
        return (max(side) if bid else min(side)) if side else None

    @property
    def top(self) -> tuple[Decimal | None, Decimal | None]:
        return self.best(True), self.best(False)

    def total(self, bid: bool, yes_price: Decimal) -> Decimal:
        """The size of one level, zero where there is none."""
        return sum((order.remaining for order in self.side(bid).get(yes_price, {}).values()), ZERO)

    def levels(self, token_is_yes: bool, bid: bool) -> list[tuple[Decimal, Decimal]]:
        """Prices and sizes as that token's book has them, worst first: bids ascend, asks descend."""
        of_yes = bid if token_is_yes else not bid
        prices = sorted(self.side(of_yes), reverse=not of_yes)
        return [(price if token_is_yes else ONE - price, self.total(of_yes, price)) for price in prices]

    def plan(self, taker: Order) -> list[Hit]:
        """What this order would meet now, best price first, oldest first."""
        hits: list[Hit] = []
        wanted, limit = taker.remaining, taker.yes_price
        against = self.side(not taker.is_bid)
        for price in sorted(against, reverse=not taker.is_bid):
            if not wanted or (price > limit if taker.is_bid else price < limit):
                break
            for maker in against[price].values():
                size = min(wanted, maker.remaining)
                hits.append(Hit(maker, size))
                wanted -= size
                if not wanted:
                    break
        return hits
