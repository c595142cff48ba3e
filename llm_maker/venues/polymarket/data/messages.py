"""Polymarket's market channel as it is written: the kinds of message we read, field by field (`polymarket.md` 3.3).

Only what we read is declared; all else of a message is ignored. Prices and sizes stay the text they are: what they are worth, whose
they are and what follows from them is not this file's.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_Ms = Annotated[int, msgspec.Meta(ge=10**12, lt=10**13)]
"""A timestamp in milliseconds, from 2001 to 2286; seconds and microseconds are refused."""


class Level(msgspec.Struct, gc=False):
    """One level of a book, in its token's own price."""

    price: str
    size: str


class Change(msgspec.Struct, gc=False):
    """A level as it is now, with the best prices behind it; a size of 0 takes the level away."""

    asset_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    best_bid: str | None = None
    best_ask: str | None = None


class Book(msgspec.Struct, tag_field="event_type", tag="book"):
    """The whole book of one token."""

    asset_id: str
    bids: list[Level]
    asks: list[Level]
    timestamp: _Ms
    tick_size: str | None = None
    min_order_size: str | None = None


class PriceChange(msgspec.Struct, tag_field="event_type", tag="price_change", gc=False):
    """Levels that changed at one time, ordinarily one of YES and its mirror of NO."""

    timestamp: _Ms
    price_changes: list[Change]


class LastTrade(msgspec.Struct, tag_field="event_type", tag="last_trade_price"):
    """A public print; `side` is the taker's, in this token's terms."""

    asset_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    timestamp: _Ms
    transaction_hash: str | None = None
    """Sometimes told; one for all prints of a taker order."""


class TickSize(msgspec.Struct, tag_field="event_type", tag="tick_size_change"):
    """A new grid; what was on the old one is gone."""

    asset_id: str
    new_tick_size: str
    timestamp: _Ms


class Top(msgspec.Struct, tag_field="event_type", tag="best_bid_ask"):
    """The best prices alone."""

    asset_id: str
    timestamp: _Ms
    best_bid: str | None = None
    best_ask: str | None = None


class NewMarket(msgspec.Struct, tag_field="event_type", tag="new_market"):
    """Some market was listed; nothing of it is read here."""


class Resolved(msgspec.Struct, tag_field="event_type", tag="market_resolved"):
    """The end of a market, and the token that won it."""

    market: str
    winning_asset_id: str


class Tag(msgspec.Struct):
    """The kind alone, of a message that could not be read whole."""

    event_type: str


Message = Book | PriceChange | LastTrade | TickSize | Top | NewMarket | Resolved
