"""The inside of a fake Polymarket: markets, accounts, orders, trades, balances. No socket, no clock; dice from a seed.

Time comes in as `now_ms` and never runs back; what is to be pushed is collected for `take_messages`. Beside it: `admission`:
the rules; `matching`: the books; `settlement`: the way of a trade; `vault`: all money; `shapes`, `outbox`: the wire; `crowd`:
all the other traders; `audit`: the invariants. Decisions the reference leaves open:

- one trade for each price a taker reaches, so price x size is what its taker pays; it may hold several makers at that price;
- own orders meet one another; the trade then says TAKER, and the maker's side stands in `maker_orders`;
- after a trade come `last_trade_price` and both books; `price_change` tells only what was placed, cancelled or expired;
- the minimum size holds for every order type; a BUY that would match needs 1 pUSD as well;
- what a trade brings can be spent once it is CONFIRMED; a FAILED one gives the money back, never the order's size;
- the taker's fee is rounded half up (`fee_rounding`), once a trade, and is cash on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from typing import Any

from tests.fakes.polymarket import admission, audit, shapes
from tests.fakes.polymarket.crowd import Crowd
from tests.fakes.polymarket.matching import Book
from tests.fakes.polymarket.outbox import Outbox
from tests.fakes.polymarket.records import (
    ONE,
    ZERO,
    FakeAccount,
    FakeMarket,
    Message,
    Order,
    OrderFields,
    Placed,
    text,
    units,
)
from tests.fakes.polymarket.settlement import Clearing, Trade, propose
from tests.fakes.polymarket.vault import Vault

__all__ = ["FakeAccount", "FakeMarket", "House", "Message", "OrderFields", "Placed"]

SPENDERS = (
    "0xE111180000d2663C0091e4f400237545B87B996B",
    "0xe2222d279d744050d28e00520010520000310F59",
    "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa",
    "0xAdA100Db00Ca00073811820692005400218FcE1f",
    "0xadA2005600Dec949baf300f4C6120000bDB6eAab",
)
"""Both exchanges, ExchangeV3 and the two collateral adapters (1.4)."""
ENDLESS = str(2**256 - 1)
GTD_EARLY_S = 60
NOT_FOUND = "order can't be found"
ENDED = "already canceled or matched"
FROZEN = "order is delayed and can't be canceled"


class House:
    """The venue. `accounts` are found by API key; `settle_s` is how long a plain trade takes from MATCHED to CONFIRMED."""

    fee_rounding = ROUND_HALF_UP

    def __init__(
        self, seed: int, *, settle_s: tuple[float, float] = (1.0, 5.0), fail_share: float = 0.0, retry_share: float = 0.0
    ) -> None:
        self.markets: dict[str, FakeMarket] = {}
        self.accounts: dict[str, FakeAccount] = {}
        self.crowd = Crowd(seed)
        self.vault = Vault(self.crowd.wallet)
        self.clearing = Clearing(random.Random(f"{seed} settle"), self.vault, settle_s, fail_share, retry_share)
        self.outbox = Outbox()
        self._books: dict[str, Book] = {}
        self._of_token: dict[str, FakeMarket] = {}
        self._orders: dict[str, Order] = {}
        self._open: dict[str, Order] = {}
        """Orders of accounts, LIVE or DELAYED, in order of arrival."""
        self._delayed: list[tuple[int, Order]] = []
        self._now_ms = 0
        """As last told."""

    # Who and what there is.

    def add_market(self, market: FakeMarket) -> None:
        assert market.condition_id not in self.markets, "a market is listed once"
        assert not {market.yes, market.no} & self._of_token.keys() and market.yes != market.no, "a token has one market"
        self.markets[market.condition_id] = market
        self._books[market.condition_id] = Book()
        self._of_token |= dict.fromkeys(market.tokens, market)
        self.vault.open_pot(market, self.crowd.sets)
        for account in self.accounts.values():
            self.vault.join(account, market)

    def add_account(self, account: FakeAccount) -> None:
        assert account.api_key not in self.accounts, "an API key is issued once"
        self.accounts[account.api_key] = account
        self.vault.endowed += account.cash
        for market in self.markets.values():
            self.vault.join(account, market)

    def grant(self, account: FakeAccount, token: str | None, amount: Decimal) -> None:
        """More (or less) of an asset from outside the venue, now; `token` None is cash."""
        self.vault.grant(account, self._of_token[token] if token else None, token, amount)
        self._uncover(account, token, self._now_ms)

    # Orders.

    def submit(self, account: FakeAccount, fields: OrderFields, now_ms: int) -> Placed:
        """One order whose signature is good: taken, or refused in the venue's words."""
        self._now_ms, order_id = now_ms, fields.id.lower()
        if order_id in self._orders:
            return Placed(False, admission.DUPLICATED)
        market = self._of_token.get(fields.token_id)
        try:
            price, size = admission.examine(account, market, fields, now_ms)
            assert market is not None
            order = Order(
                order_id, account, account.api_key, account.maker, market, fields.token_id, fields.side, price, size,
                fields.order_type, fields.post_only, fields.expiration, now_ms,
            )  # fmt: skip
            trades = self._proposals(order)
            self._admit(order, trades)
        except admission.Refused as refused:
            return Placed(False, str(refused))
        return self._killed(order, trades, now_ms) or self._take(order, trades, now_ms)

    def _admit(self, order: Order, trades: list[Trade]) -> None:
        if order.post_only and trades:
            raise admission.Refused(admission.CROSSES)
        notional = order.price * order.size
        if trades and order.side == "BUY" and notional < admission.MARKETABLE_MIN:
            raise admission.Refused(f"invalid amount for a marketable BUY order (${text(notional)}), min size: $1")
        free, needs = self.available(order.wallet, order.gives), _needs(order, trades)
        if not order.wallet.allowance or needs > free:
            why = "the balance is not enough" if order.wallet.allowance else "the allowance is not enough"
            held = self.clearing.held(order.wallet, order.gives)
            raise admission.Refused(
                f"{admission.BALANCE}: {why} -> balance: {units(order.wallet.holds(order.gives))}, sum of active orders: "
                f"{units(self._reserved(order.wallet, order.gives))}, sum of matched orders: {units(held)}, "
                f"order amount: {units(needs)}"
            )

    def _killed(self, order: Order, trades: list[Trade], now_ms: int) -> Placed | None:
        """A FOK order that cannot match whole and a FAK order that cannot match at all leave one cancellation behind."""
        why = ""
        if order.kind == "FOK" and sum((trade.size for trade in trades), ZERO) < order.size:
            why = admission.FOK_KILLED
        elif order.kind == "FAK" and not trades:
            why = admission.FAK_KILLED
        if not why:
            return None
        order.status = "CANCELED"
        self._orders[order.id] = order
        self.outbox.user(order.wallet, shapes.killed_event(order, why, now_ms))
        return Placed(False, why)

    def _take(self, order: Order, trades: list[Trade], now_ms: int) -> Placed:
        self._orders[order.id] = self._open[order.id] = order
        delay_s = order.market.seconds_delay if trades else 0
        order.status = "DELAYED" if delay_s else "LIVE"
        self.outbox.order(order, "PLACEMENT", now_ms)
        if delay_s:
            self._delayed.append((now_ms + delay_s * 1000, order))
            return Placed(True, "", order.id, "delayed")
        self._enter(order, trades, now_ms)
        if not trades:
            return Placed(True, "", order.id, "live")
        cash, shares = sum((trade.paid for trade in trades), ZERO), sum((trade.size for trade in trades), ZERO)
        making, taking = (cash, shares) if order.side == "BUY" else (shares, cash)
        return Placed(True, "", order.id, "matched", text(making), text(taking), [trade.id for trade in trades])

    def enter(self, order: Order, now_ms: int) -> None:
        """An order of the background, which nobody examines."""
        self._enter(order, self._proposals(order), now_ms)

    def _proposals(self, order: Order) -> list[Trade]:
        hits = self._books[order.market.condition_id].plan(order)
        return [propose(order, list(group), self.fee_rounding) for _, group in groupby(hits, key=lambda hit: hit.maker.yes_price)]

    def _enter(self, order: Order, trades: list[Trade], now_ms: int) -> None:
        """Match, then rest or drop the rest, then say what happened."""
        market, book = order.market, self._books[order.market.condition_id]
        top = book.top
        for trade in trades:
            self._match(trade, book, now_ms)
        if not order.remaining:
            order.status = "MATCHED"
        elif order.rests:
            order.status = "LIVE"
            book.rest(order)
        else:
            order.status = "CANCELED"
        if order.status != "LIVE":
            self._open.pop(order.id, None)
        if trades:
            self.outbox.order(order, "UPDATE", now_ms)
            for trade in trades:
                self.outbox.trade(trade)
                self.outbox.market(order.token, shapes.last_trade(trade, now_ms))
            self.outbox.books(market, book, now_ms)
        elif order.status == "LIVE":
            self.outbox.level(order, book, now_ms)
        if order.status == "CANCELED":
            self.outbox.order(order, "CANCELLATION", now_ms)
        self.outbox.top(market, book, top, now_ms)

    def _match(self, trade: Trade, book: Book, now_ms: int) -> None:
        self.clearing.open(trade, now_ms)
        for order, size in [(trade.taker, trade.size), *((hit.maker, hit.size) for hit in trade.hits)]:
            order.matched += size
            order.trade_ids.append(trade.id)
        for hit in trade.hits:
            maker = hit.maker
            if not maker.remaining:
                maker.status = "MATCHED"
                book.remove(maker)
                self._open.pop(maker.id, None)
            self.outbox.order(maker, "UPDATE", now_ms)
        book.version += 1
        book.last = trade.hits[-1].maker.yes_price
        trade.market.volume_24h += trade.paid

    # Cancels.

    def cancel(self, account: FakeAccount, ids: Iterable[str], now_ms: int) -> tuple[list[str], dict[str, str]]:
        """Which were cancelled, and why the others were not."""
        canceled: list[str] = []
        refused: dict[str, str] = {}
        for order_id in dict.fromkeys(ids):
            order = self._orders.get(order_id.lower())
            if order is None or order.wallet is not account:
                refused[order_id] = NOT_FOUND
            elif order.status != "LIVE":
                refused[order_id] = FROZEN if order.status == "DELAYED" else ENDED
            else:
                self.withdraw(order, now_ms)
                canceled.append(order_id)
        return canceled, refused

    def cancel_all(
        self, account: FakeAccount, now_ms: int, market: str | None = None, asset: str | None = None
    ) -> tuple[list[str], dict[str, str]]:
        """Every LIVE order of the account, of one market or of one token."""
        wanted = [
            order.id
            for order in self._of(account)
            if order.status == "LIVE" and market in (None, order.market.condition_id) and asset in (None, order.token)
        ]
        return self.cancel(account, wanted, now_ms)

    def withdraw(self, order: Order, now_ms: int, status: str = "CANCELED") -> None:
        """An order's end before it is filled, with the word for why."""
        market, book = order.market, self._books[order.market.condition_id]
        top = book.top
        resting = order.status == "LIVE"
        order.status = status
        self._open.pop(order.id, None)
        if resting:
            book.remove(order)
            self.outbox.level(order, book, now_ms)
        self.outbox.order(order, "CANCELLATION", now_ms)
        self.outbox.top(market, book, top, now_ms)

    # Time.

    def advance(self, now_ms: int) -> None:
        """Settlements that fell due, delays that ended, orders that expired."""
        self._now_ms = now_ms
        for trade in self.clearing.steps(now_ms):
            self.outbox.trade(trade)
        ready = [order for release_ms, order in self._delayed if release_ms <= now_ms and order.status == "DELAYED"]
        self._delayed = [(release_ms, order) for release_ms, order in self._delayed if release_ms > now_ms]
        for order in ready:
            self._release(order, now_ms)
        for order in list(self._open.values()):
            if order.expiration and order.status == "LIVE" and now_ms >= (order.expiration - GTD_EARLY_S) * 1000:
                self.withdraw(order, now_ms, "CANCELED_EXPIRED_ORDER")

    def crowd_step(self, now_ms: int) -> None:
        """What all others did since the last step."""
        self.crowd.step(self, now_ms)

    def _release(self, order: Order, now_ms: int) -> None:
        """The end of a taker's delay: the book is another one by now."""
        trades = self._proposals(order)
        if order.kind == "FOK" and sum((trade.size for trade in trades), ZERO) < order.size:
            self.withdraw(order, now_ms, f"CANCELED_{admission.FOK_KILLED}")
        elif order.kind == "FAK" and not trades:
            self.withdraw(order, now_ms, f"CANCELED_{admission.FAK_KILLED}")
        elif _needs(order, trades) > self.available(order.wallet, order.gives) + order.reserve:
            self.withdraw(order, now_ms, "CANCELED_NOT_ENOUGH_BALANCE")
        else:
            self._enter(order, trades, now_ms)
            if not trades:
                self.outbox.order(order, "UPDATE", now_ms, status="UNMATCHED")

    # What an account may know.

    def book(self, token_id: str, now_ms: int) -> dict[str, Any] | None:
        """None where there is no orderbook: an unknown token, or a closed market."""
        market = self._of_token.get(token_id)
        if market is None or market.closed:
            return None
        return shapes.book_row(market, self._books[market.condition_id], token_id, now_ms)

    def open_orders(self, account: FakeAccount) -> list[dict[str, Any]]:
        return [shapes.order_row(order) for order in self._of(account) if order.status == "LIVE"]

    def order(self, account: FakeAccount, order_id: str) -> dict[str, Any] | None:
        """Any order that was ever taken, whatever became of it."""
        order = self._orders.get(order_id.lower())
        return shapes.order_row(order) if order is not None and order.wallet is account else None

    def trades(self, account: FakeAccount, after_s: int | None = None) -> list[dict[str, Any]]:
        """Newest first; `after_s` leaves out what was matched in that second or before."""
        rows = [trade for trade in reversed(self.clearing.trades.values()) if account in trade.accounts]
        return [shapes.trade_row(trade, account) for trade in rows if after_s is None or trade.matched_ms // 1000 > after_s]

    def balance(self, account: FakeAccount, token_id: str | None) -> dict[str, Any]:
        """What the chain holds, reserved or not."""
        allowance = ENDLESS if account.allowance else "0"
        return {"balance": units(account.holds(token_id)), "allowances": dict.fromkeys(SPENDERS, allowance)}

    def available(self, account: FakeAccount, asset: str | None) -> Decimal:
        """The balance without what open orders reserve and unsettled trades hold; `asset` None is cash."""
        return account.holds(asset) - self.clearing.held(account, asset) - self._reserved(account, asset)

    def _reserved(self, account: FakeAccount, asset: str | None) -> Decimal:
        return sum((order.reserve for order in self._of(account) if order.gives == asset), ZERO)

    def _of(self, account: FakeAccount) -> list[Order]:
        return [order for order in self._open.values() if order.wallet is account]

    # Pairs and payouts: at once, as the chain sees them.

    def split(self, account: FakeAccount, condition_id: str, amount: Decimal, now_ms: int) -> str:
        """Cash into as many of both shares; "" or what was wrong."""
        return self._convert(account, condition_id, amount, (None,), now_ms)

    def merge(self, account: FakeAccount, condition_id: str, amount: Decimal, now_ms: int) -> str:
        """As many of both shares into cash. Orders that are no longer covered are cancelled by the venue."""
        market = self.markets.get(condition_id)
        return self._convert(account, condition_id, amount, market.tokens if market else (), now_ms)

    def _convert(self, account: FakeAccount, condition_id: str, amount: Decimal, gives: tuple[str | None, ...], now_ms: int) -> str:
        market = self.markets.get(condition_id)
        if market is None or market.resolved is not None:
            return "no such condition" if market is None else "condition is resolved"
        if amount <= 0:
            return "invalid amount"
        if any(account.holds(asset) - self.clearing.held(account, asset) < amount for asset in gives):
            return "not enough balance"
        self.vault.pair(account, market, amount if gives == (None,) else -amount)
        for asset in gives:
            self._uncover(account, asset, now_ms)
        return ""

    def redeem(self, account: FakeAccount, condition_id: str, now_ms: int) -> str:
        """All settled shares of a resolved market: 1 for each that won, nothing for the others."""
        market = self.markets.get(condition_id)
        if market is None or market.winner is None:
            return "no such condition" if market is None else "condition is not resolved"
        for token in market.tokens:
            self.vault.pay_out(account, market, token, account.holds(token) - self.clearing.held(account, token))
        return ""

    def _uncover(self, account: FakeAccount, asset: str | None, now_ms: int) -> None:
        """Cancel the newest orders that the balance does not carry any more."""
        for order in reversed(self._of(account)):
            if order.gives == asset and self.available(account, asset) < 0:
                self.withdraw(order, now_ms, "CANCELED_NOT_ENOUGH_BALANCE")

    # What happens to a market.

    def change_tick(self, condition_id: str, new_tick: Decimal, now_ms: int) -> None:
        """A new grid; what rests off it is cancelled by the venue."""
        market = self.markets[condition_id]
        assert text(new_tick) in admission.PRICE_DECIMALS, "a tick the venue has"
        old, market.tick = market.tick, new_tick
        for token in market.tokens:
            self.outbox.market(token, shapes.tick_size_change(market, token, old, now_ms))
        for order in self._books[condition_id].orders():
            if order.price % new_tick or not new_tick <= order.price <= ONE - new_tick:
                self.withdraw(order, now_ms, "INVALID")
        self.outbox.books(market, self._books[condition_id], now_ms)

    def close_market(self, condition_id: str, now_ms: int) -> None:
        """No more trading: every order ends as the venue's own cancellation, status INVALID."""
        market = self.markets[condition_id]
        if market.closed:
            return
        market.accepting = False
        delayed = [order for order in self._open.values() if order.market is market and order.status == "DELAYED"]
        for order in [*self._books[condition_id].orders(), *delayed]:
            self.withdraw(order, now_ms, "INVALID")
        market.closed = True

    def resolve(self, condition_id: str, winner: str, now_ms: int) -> None:
        assert winner in ("yes", "no"), "one of two outcomes"
        self.close_market(condition_id, now_ms)
        market = self.markets[condition_id]
        assert market.resolved in (None, winner), "a market has one outcome"
        market.resolved = winner
        number = str(list(self.markets).index(condition_id) + 1)
        self.outbox.market(market.yes, shapes.market_resolved(market, number, now_ms))

    # For tests and for the crowd.

    def truth(self, account: FakeAccount) -> dict[str, Any]:
        return audit.truth(self, account)

    def check(self) -> None:
        audit.check(self)

    def top(self, condition_id: str) -> tuple[Decimal | None, Decimal | None]:
        """Best bid and ask of YES."""
        return self._books[condition_id].top

    def resting(self, condition_id: str) -> list[Order]:
        return self._books[condition_id].orders()

    def orders(self) -> list[Order]:
        """Every order an account ever had taken."""
        return list(self._orders.values())

    def take_messages(self) -> list[Message]:
        """What is to be pushed since the last call, in order."""
        return self.outbox.take()


def _needs(order: Order, trades: list[Trade]) -> Decimal:
    """What must be there for an order: its whole amount at its own price, or what it takes now with its fee if that is more."""
    rest = order.remaining - sum((trade.size for trade in trades), ZERO)
    takes = sum((trade.taker_gives for trade in trades), ZERO) + (rest * order.price if order.side == "BUY" else rest)
    return max(order.reserve, takes)
