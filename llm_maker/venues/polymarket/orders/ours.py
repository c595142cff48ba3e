"""Our own orders as the venue knows them: its id, our id, and what we meant. Bounded; asks nobody.

The venue's id is the order's digest, so it is here before the order leaves (`polymarket.md` 0.5).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_maker.core.values import Instrument, Leg, Side

LIMIT = 20_000
"""Orders remembered: far more than can be live, so that late words about ended ones still find them."""


class Ours(msgspec.Struct, frozen=True):
    """One order of ours; prices and side are those of the YES book, quantity units of the instrument."""

    order_id: str
    venue_id: str
    """The digest, `0x` and 64 hex digits, lower case."""
    instrument: Instrument
    side: Side
    leg: Leg
    price: int
    qty: int
    post_only: bool


class OwnOrders:
    """Found by either id; and the markets we know, found by token."""

    def __init__(self, is_live: Callable[[str], bool] = lambda order_id: False) -> None:
        """`is_live`: whether an order of ours (by our id) may still rest, so that it is not forgotten for its age."""
        self._is_live = is_live
        self._by_order: dict[str, Ours] = {}
        self._by_venue: dict[str, Ours] = {}
        self._tokens: dict[str, tuple[Instrument, Leg]] = {}

    def add(self, ours: Ours) -> None:
        self._by_order[ours.order_id] = ours
        self._by_venue[ours.venue_id] = ours
        while len(self._by_order) > LIMIT:
            oldest = next(iter(self._by_order))
            gone = self._by_order.pop(oldest)
            if self._is_live(oldest):
                self._by_order[oldest] = gone  # young again
            else:
                self._by_venue.pop(gone.venue_id, None)

    def by_order(self, order_id: str) -> Ours | None:
        return self._by_order.get(order_id)

    def by_venue(self, venue_id: str) -> Ours | None:
        return self._by_venue.get(venue_id.lower())

    def know(self, instrument: Instrument) -> None:
        """A market of ours, or new rules of one."""
        for token, leg in zip(instrument.token_ids, (Leg.YES, Leg.NO), strict=True):
            self._tokens[token] = (instrument, leg)

    def token(self, token_id: str) -> tuple[Instrument, Leg] | None:
        return self._tokens.get(token_id)

    @property
    def instruments(self) -> list[Instrument]:
        """Each market once."""
        return [instrument for instrument, leg in self._tokens.values() if leg is Leg.YES]
