"""How long a maker took: each move of a best price against the requests that answer it, by order id and by price. No I/O, no clock.

A move asks for two things, timed apart. *cancel*: what rests of ours at another price is named in a DELETE; matched by the order's
id. *order*: a POST with a new order of that market and side at exactly the price that the move made right; matched by that price.
An order that has to wait for a cancel of the same move is a *replace*, one where nothing rested an *order*. What the same side's
next move overtakes is counted as missed, never dropped silently, and so is every request that answers nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

Key = tuple[str, str]
"""Market and side (BUY or SELL, in terms of YES)."""
KINDS = ("order", "cancel", "replace")


class Resting:
    """One order at the venue."""

    __slots__ = ("key", "price", "row")

    def __init__(self, key: Key, price: int, row: dict[str, Any]) -> None:
        self.key, self.price, self.row = key, price, row


class Reactions:
    """Times in ns of one clock. `scored` switches the taking of samples; what a warm-up asked for is answered but not counted."""

    def __init__(self) -> None:
        self.live: dict[str, Resting] = {}
        self.scored = False
        self.samples: dict[str, list[int]] = {kind: [] for kind in KINDS}
        self.counts: Counter[str] = Counter()
        self._cancels: dict[str, tuple[int, bool]] = {}
        self._orders: dict[Key, tuple[int, int, str, bool]] = {}

    def moved(self, at: int, market: str, wanted: dict[str, int]) -> None:
        """A frame was written that makes `wanted` (side -> cents, 0: no quote) right in a market."""
        for side, price in wanted.items():
            key = (market, side)
            self._overtaken(key)
            wrong = [order_id for order_id, order in self.live.items() if order.key == key and order.price != price]
            for order_id in wrong:
                self._cancels[order_id] = (at, self.scored)
            if price and not any(order.key == key and order.price == price for order in self.live.values()):
                self._orders[key] = (at, price, "replace" if wrong else "order", self.scored)
            self.counts["moves"] += self.scored

    def _overtaken(self, key: Key) -> None:
        asked = self._orders.pop(key, None)
        if asked is not None:
            self.counts["missed"] += asked[3]

    def ordered(self, at: int, order_id: str, order: Resting) -> None:
        asked = self._orders.get(order.key)
        self.live[order_id] = order
        if asked is None or asked[1] != order.price:
            self.counts["other orders"] += self.scored
            return
        del self._orders[order.key]
        self._take(asked[2], at - asked[0], scored=asked[3])

    def canceled(self, at: int, order_id: str) -> bool:
        """Whether it rested until now."""
        asked = self._cancels.pop(order_id, None)
        if asked is not None:
            self._take("cancel", at - asked[0], scored=asked[1])
        else:
            self.counts["other cancels"] += self.scored
        return self.live.pop(order_id, None) is not None

    def _take(self, kind: str, took: int, *, scored: bool) -> None:
        if scored:
            self.samples[kind].append(took)

    def quoted(self, markets: int) -> bool:
        """Two quotes in every market."""
        return len({order.key for order in self.live.values()}) == 2 * markets

    def report(self) -> dict[str, Any]:
        """And begin anew; what is still open is missed."""
        for _, _, _, scored in self._orders.values():
            self.counts["missed"] += scored
        self.counts["missed cancels"] += sum(scored for _, scored in self._cancels.values())
        told = {**self.samples, "counts": dict(self.counts)}
        self.samples, self.counts = {kind: [] for kind in KINDS}, Counter()
        self._orders, self._cancels = {}, {}
        return told
