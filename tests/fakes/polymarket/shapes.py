"""The venue's messages and rows, field by field (`polymarket.md` 2.2, 2.3, 3.3, 3.4). Numbers are plain decimal text.

A trade's top level is the taker, whoever reads it; makers are in `maker_orders` alone. REST writes a trade's status with its prefix
and its times as text seconds, as the SDK's reader expects to find them.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

from tests.fakes.polymarket.matching import Book
from tests.fakes.polymarket.records import ONE, FakeAccount, FakeMarket, Order, text
from tests.fakes.polymarket.settlement import Trade

Json = dict[str, Any]


def mark(book: Book, token: str) -> str:
    """An opaque change marker: another one after every change of the book (3.5)."""
    return hashlib.sha1(f"{token}{book.version}".encode(), usedforsecurity=False).hexdigest()


def book_row(market: FakeMarket, book: Book, token: str, now_ms: int) -> Json:
    """The whole book of one token; the touch is last on both sides."""
    is_yes = token == market.yes
    sides = {
        name: [{"price": text(price), "size": text(size)} for price, size in book.levels(is_yes, bid)]
        for name, bid in (("bids", True), ("asks", False))
    }
    last = book.last if is_yes or book.last is None else ONE - book.last
    return {
        "market": market.condition_id,
        "asset_id": token,
        "timestamp": str(now_ms),
        "hash": mark(book, token),
        **sides,
        "min_order_size": text(market.min_size),
        "tick_size": text(market.tick),
        "neg_risk": market.neg_risk,
        "last_trade_price": "" if last is None else text(last),
    }


def top(market: FakeMarket, book: Book, token: str) -> tuple[Decimal, Decimal]:
    """Best bid and ask of one token; 0 and 1 where a side is empty."""
    bid, ask = book.best(True), book.best(False)
    bid, ask = (0 * ONE if bid is None else bid), (ONE if ask is None else ask)
    return (bid, ask) if token == market.yes else (ONE - ask, ONE - bid)


def price_change(market: FakeMarket, book: Book, bid: bool, yes_price: Decimal, now_ms: int) -> Json:
    """One level as it is now, told by YES and mirrored by NO."""
    size = text(book.total(bid, yes_price))
    changes = []
    for token in market.tokens:
        is_yes = token == market.yes
        best_bid, best_ask = top(market, book, token)
        changes.append(
            {
                "asset_id": token,
                "price": text(yes_price if is_yes else ONE - yes_price),
                "size": size,
                "side": "BUY" if bid == is_yes else "SELL",
                "hash": mark(book, token),
                "best_bid": text(best_bid),
                "best_ask": text(best_ask),
            }
        )
    return {
        "event_type": "price_change",
        "market": market.condition_id,
        "price_changes": changes,
        "timestamp": str(now_ms),
    }


def last_trade(trade: Trade, now_ms: int) -> Json:
    return {
        "event_type": "last_trade_price",
        "market": trade.market.condition_id,
        "asset_id": trade.taker.token,
        "price": text(trade.price),
        "size": text(trade.size),
        "side": trade.taker.side,
        "fee_rate_bps": "0",
        "timestamp": str(now_ms),
    }


def best_bid_ask(market: FakeMarket, book: Book, token: str, now_ms: int) -> Json:
    bid, ask = top(market, book, token)
    return {
        "event_type": "best_bid_ask",
        "market": market.condition_id,
        "asset_id": token,
        "best_bid": text(bid),
        "best_ask": text(ask),
        "spread": text(ask - bid),
        "timestamp": str(now_ms),
    }


def tick_size_change(market: FakeMarket, token: str, old: Decimal, now_ms: int) -> Json:
    return {
        "event_type": "tick_size_change",
        "market": market.condition_id,
        "asset_id": token,
        "old_tick_size": text(old),
        "new_tick_size": text(market.tick),
        "timestamp": str(now_ms),
    }


def market_resolved(market: FakeMarket, number: str, now_ms: int) -> Json:
    winner = market.winner
    assert winner is not None
    return {
        "event_type": "market_resolved",
        "id": number,
        "market": market.condition_id,
        "assets_ids": list(market.tokens),
        "winning_asset_id": winner,
        "winning_outcome": market.outcome(winner),
        "tags": list(market.tags),
        "timestamp": str(now_ms),
    }


def _order(order: Order) -> Json:
    return {
        "id": order.id,
        "status": order.status,
        "owner": order.owner,
        "maker_address": order.maker,
        "market": order.market.condition_id,
        "asset_id": order.token,
        "side": order.side,
        "original_size": text(order.size),
        "size_matched": text(order.matched),
        "price": text(order.price),
        "outcome": order.market.outcome(order.token),
        "expiration": str(order.expiration),
        "order_type": order.kind,
    }


def order_row(order: Order) -> Json:
    return {**_order(order), "associate_trades": list(order.trade_ids), "created_at": order.created_ms // 1000}


def order_event(order: Order, kind: str, now_ms: int) -> Json:
    """`kind`: PLACEMENT, UPDATE or CANCELLATION."""
    return {
        "event_type": "order",
        "type": kind,
        **_order(order),
        "order_owner": order.owner,
        "associate_trades": list(order.trade_ids) or None,
        "created_at": str(order.created_ms // 1000),
        "timestamp": str(now_ms),
    }


def killed_event(order: Order, why: str, now_ms: int) -> Json:
    """An order that never was: the venue leaves out what it did not get to know."""
    return {
        **order_event(order, "CANCELLATION", now_ms),
        "status": f"CANCELED_{why}",
        "size_matched": "",
        "outcome": "",
        "created_at": "",
        "associate_trades": [],
    }


def _trade(trade: Trade, reader: FakeAccount) -> Json:
    taker = trade.taker
    return {
        "id": trade.id,
        "taker_order_id": taker.id,
        "market": trade.market.condition_id,
        "asset_id": taker.token,
        "side": taker.side,
        "size": text(trade.size),
        "price": text(trade.price),
        "fee_rate_bps": "0",
        "match_time": str(trade.matched_ms // 1000),
        "last_update": str(trade.last_ms // 1000),
        "outcome": trade.market.outcome(taker.token),
        "bucket_index": 0,
        "owner": taker.owner,
        "maker_address": taker.maker,
        "trader_side": "TAKER" if taker.wallet is reader else "MAKER",
        "maker_orders": [
            {
                "order_id": hit.maker.id,
                "owner": hit.maker.owner,
                "maker_address": hit.maker.maker,
                "matched_amount": text(hit.size),
                "price": text(hit.maker.price),
                "asset_id": hit.maker.token,
                "outcome": trade.market.outcome(hit.maker.token),
                "side": hit.maker.side,
                "fee_rate_bps": "0",
            }
            for hit in trade.hits
        ],
    }


def trade_row(trade: Trade, reader: FakeAccount) -> Json:
    return {**_trade(trade, reader), "status": f"TRADE_STATUS_{trade.status}", "transaction_hash": trade.tx_hash}


def trade_event(trade: Trade, reader: FakeAccount) -> Json:
    """The transaction's hash is there from MINED on."""
    event = {
        "event_type": "trade",
        "type": "TRADE",
        **_trade(trade, reader),
        "status": trade.status,
        "trade_owner": trade.taker.owner,
        "timestamp": str(trade.last_ms),
    }
    return {**event, "transaction_hash": trade.tx_hash} if trade.tx_hash else event
