"""Polymarket's words about one account: user-channel messages and REST rows, field by field (`polymarket.md` 2.3, 3.4).

Only what we read is declared. Amounts stay the text they are and may be empty; what they are worth, and whose they are, is not
this file's. The same shapes serve the socket and REST: a row of one is a message of the other without its envelope.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Envelope(msgspec.Struct):
    """What kind of message this is; `type` alone tells it where `event_type` is missing."""

    event_type: str = ""
    type: str = ""

    @property
    def kind(self) -> str:
        return self.event_type or _KIND_OF_TYPE.get(self.type.upper(), self.type)


_KIND_OF_TYPE = {"TRADE": "trade", "PLACEMENT": "order", "UPDATE": "order", "CANCELLATION": "order"}


class OrderNote(msgspec.Struct):
    """An order as the account is told of it. `type` is empty in a REST row; `size_matched` "" means nothing matched."""

    id: str
    type: str = ""
    status: str | None = None
    market: str = ""
    asset_id: str = ""
    side: str = ""
    price: str = ""
    original_size: str = ""
    size_matched: str | None = None


class MakerEntry(msgspec.Struct):
    """One maker's share of a trade, in the terms of that maker's own token."""

    order_id: str = ""
    asset_id: str = ""
    price: str = ""
    matched_amount: str = ""
    owner: str | None = None
    maker_address: str | None = None


class TradeNote(msgspec.Struct):
    """A trade; everything at the top level is the taker's."""

    id: str
    taker_order_id: str | None = None
    asset_id: str = ""
    price: str = ""
    size: str = ""
    status: str | None = None
    owner: str | None = None
    maker_address: str | None = None
    trader_side: str | None = None
    match_time: str | int | None = None
    maker_orders: list[MakerEntry] | None = None

    @property
    def matched_s(self) -> int:
        """Unix seconds of the match; 0 where it is not told as a number."""
        text = str(self.match_time or "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


class Balance(msgspec.Struct):
    """Units of 10^-6, an integer in text; allowances are not read here."""

    balance: str | int


class TradeStatus(StrEnum):
    """How far a trade has come; only the last two are final (`polymarket.md` 4.1)."""

    MATCHED = "MATCHED"
    MINED = "MINED"
    RETRYING = "RETRYING"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self in (TradeStatus.CONFIRMED, TradeStatus.FAILED)


def trade_status(text: str | None) -> TradeStatus | None:
    """REST puts `TRADE_STATUS_` before the word, and knows a match that was not sent to the chain yet; None: a new word."""
    word = (text or "").upper().removeprefix("TRADE_STATUS_")
    if word == "MATCHED_NOT_BROADCASTED":
        return TradeStatus.MATCHED
    return TradeStatus(word) if word in TradeStatus.__members__ else None


class OrderEnd(StrEnum):
    """What an order's status says of its end."""

    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"


def order_end(text: str | None) -> OrderEnd | None:
    """By prefix, because free text may follow (`CANCELED_order couldn't be ...`); None: a word we do not know."""
    word = (text or "").upper().removeprefix("ORDER_STATUS_")
    if word.startswith(("LIVE", "DELAYED", "UNMATCHED")):
        return OrderEnd.OPEN
    if word.startswith("MATCHED"):
        return OrderEnd.FILLED
    if word.startswith(("CANCEL", "INVALID", "EXPIRED")):
        return OrderEnd.EXPIRED if "EXPIRED" in word else OrderEnd.CANCELED
    return None
