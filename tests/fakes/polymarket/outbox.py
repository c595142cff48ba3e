"""What the house has to say, in order, until somebody takes it: to all who follow a token, or to one account."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.fakes.polymarket import shapes
from tests.fakes.polymarket.matching import Book
from tests.fakes.polymarket.records import FakeAccount, FakeMarket, Message, Order
from tests.fakes.polymarket.settlement import Trade

Top = tuple[Decimal | None, Decimal | None]


class Outbox:
    def __init__(self) -> None:
        self._messages: list[Message] = []

    def take(self) -> list[Message]:
        taken, self._messages = self._messages, []
        return taken

    def market(self, token: str, payload: dict[str, Any]) -> None:
        self._messages.append(Message("market", token, payload))

    def user(self, account: FakeAccount, payload: dict[str, Any]) -> None:
        self._messages.append(Message("user", account.api_key, payload))

    def order(self, order: Order, kind: str, now_ms: int, **other: Any) -> None:
        """`kind`: PLACEMENT, UPDATE or CANCELLATION; nobody hears of the background's orders."""
        if not order.background:
            self.user(order.wallet, {**shapes.order_event(order, kind, now_ms), **other})

    def trade(self, trade: Trade) -> None:
        """Its status, to each account in it once."""
        for account in trade.accounts:
            self.user(account, shapes.trade_event(trade, account))

    def level(self, order: Order, book: Book, now_ms: int) -> None:
        """The level of an order that came or went."""
        self.market(order.market.yes, shapes.price_change(order.market, book, order.is_bid, order.yes_price, now_ms))

    def books(self, market: FakeMarket, book: Book, now_ms: int) -> None:
        for token in market.tokens:
            self.market(token, {"event_type": "book", **shapes.book_row(market, book, token, now_ms)})

    def top(self, market: FakeMarket, book: Book, before: Top, now_ms: int) -> None:
        """Both tokens' best prices, if they are others than before."""
        if book.top != before:
            for token in market.tokens:
                self.market(token, shapes.best_bid_ask(market, book, token, now_ms))
