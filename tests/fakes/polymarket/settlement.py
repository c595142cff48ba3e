"""From a match to the chain: what a trade moves, and when it has moved (`polymarket.md` 4.1, 4.5).

MATCHED moves nothing; MINED moves cash and shares of all at once; RETRYING and FAILED take a mined transaction back; CONFIRMED and
FAILED end it. What a trade brings may be spent once it is CONFIRMED; what it takes is held from MATCHED on. So taking it back never
leaves anyone in debt.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from tests.fakes.polymarket.matching import Hit, How, how
from tests.fakes.polymarket.records import MICRO, ONE, ZERO, FakeAccount, FakeMarket, Order
from tests.fakes.polymarket.vault import Vault

FEE_STEP = Decimal("0.00001")
ENDS = ("CONFIRMED", "FAILED")
PLAIN = ("MINED", "CONFIRMED")
RETRIED = (("RETRYING", "MINED", "CONFIRMED"), ("MINED", "RETRYING", "MINED", "CONFIRMED"))
FAILING = (("FAILED",), ("RETRYING", "FAILED"), ("MINED", "FAILED"), ("MINED", "RETRYING", "FAILED"))
Move = tuple[FakeAccount, str | None, Decimal]
"""Who, which asset (None: cash), how much more of it."""


def taker_fee(size: Decimal, price: Decimal, rate: Decimal, rounding: str) -> Decimal:
    """shares x rate x p(1-p), to 5 decimals, at least 0.00001 where there is any (4.5)."""
    exact = size * rate * price * (ONE - price)
    return max(exact.quantize(FEE_STEP, rounding), FEE_STEP) if exact else ZERO


@dataclass(eq=False)
class Trade:
    """One taker order and the makers it met at one price; `price` is the taker's own token's."""

    market: FakeMarket
    taker: Order
    hits: list[Hit]
    price: Decimal
    size: Decimal
    fee: Decimal
    moves: list[Move]
    sets: Decimal
    """Pairs of YES and NO that it makes, or takes back (negative)."""
    paid: Decimal
    """What the taker's side costs or brings, before the fee."""
    id: str = ""
    status: str = "MATCHED"
    matched_ms: int = 0
    last_ms: int = 0
    tx_hash: str = ""
    applied: bool = False
    ahead: list[str] = field(default_factory=list)

    @property
    def taker_gives(self) -> Decimal:
        """Of the asset the taker pays with."""
        return self.paid + self.fee if self.taker.side == "BUY" else self.size

    @property
    def accounts(self) -> list[FakeAccount]:
        """Whoever has an API key, the taker first, each once."""
        orders = [self.taker, *(hit.maker for hit in self.hits)]
        return list(dict.fromkeys(order.wallet for order in orders if not order.background))


def propose(taker: Order, hits: list[Hit], rounding: str) -> Trade:
    """The trade these hits of one price would be; `rounding` is the fee's.

    Money has 6 decimals: exact for sizes of 2 decimals, else half up for the maker, and the taker has the other side of it.
    """
    size = sum((hit.size for hit in hits), ZERO)
    price = hits[0].maker.yes_price if taker.token == taker.market.yes else ONE - hits[0].maker.yes_price
    fee = taker_fee(size, price, taker.market.fee_rate, rounding)
    moves: list[Move] = []
    paid = sets = ZERO
    for hit in hits:
        maker = hit.maker
        cash = (maker.price * hit.size).quantize(MICRO, ROUND_HALF_UP)
        kind = how(taker, maker)
        moves += _leg(maker, hit.size, cash)
        paid += cash if kind is How.COMPLEMENTARY else hit.size - cash
        sets += {How.COMPLEMENTARY: ZERO, How.MINT: hit.size, How.MERGE: -hit.size}[kind]
    moves += _leg(taker, size, paid + fee if taker.side == "BUY" else paid - fee)
    return Trade(taker.market, taker, hits, price, size, fee, moves, sets, paid)


def _leg(order: Order, size: Decimal, cash: Decimal) -> list[Move]:
    sign = 1 if order.side == "BUY" else -1
    return [(order.wallet, order.token, sign * size), (order.wallet, None, -sign * cash)]


class Clearing:
    """All trades that an account had part in, oldest first, and those of them that are under way."""

    def __init__(
        self, dice: random.Random, vault: Vault, settle_s: tuple[float, float], fail_share: float, retry_share: float
    ) -> None:
        self.dice, self.vault = dice, vault
        self.settle_s, self.fail_share, self.retry_share = settle_s, fail_share, retry_share
        self.trades: dict[str, Trade] = {}
        self._due: list[tuple[int, int, Trade]] = []
        self._count = 0

    def open(self, trade: Trade, now_ms: int) -> None:
        """Number it and throw its way to the end. A trade of the background alone is settled where it stands."""
        self._count += 1
        trade.id = _uuid(self.dice)
        trade.matched_ms = trade.last_ms = now_ms
        if not trade.accounts:
            trade.status = "CONFIRMED"
            self._apply(trade, forth=True)
            return
        luck = self.dice.random()
        if luck < self.fail_share:
            trade.ahead = list(self.dice.choice(FAILING))
        elif luck < self.fail_share + self.retry_share:
            trade.ahead = list(self.dice.choice(RETRIED))
        else:
            trade.ahead = list(PLAIN)
        self.trades[trade.id] = trade
        self._schedule(trade, now_ms)

    def steps(self, now_ms: int) -> Iterator[Trade]:
        """Each trade after each step that has fallen due, in order of time; `last_ms` is that time."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, _, trade = heapq.heappop(self._due)
            trade.status, trade.last_ms = trade.ahead.pop(0), due_ms
            if trade.status == "MINED":
                # A retried transaction is another transaction.
                trade.tx_hash = "0x" + hashlib.sha256(f"{trade.id}{due_ms}{len(trade.ahead)}".encode()).hexdigest()
            mined = trade.status in ("MINED", "CONFIRMED")
            if mined != trade.applied:
                self._apply(trade, forth=mined)
            if trade.ahead:
                self._schedule(trade, due_ms)
            yield trade

    def held(self, account: FakeAccount, asset: str | None) -> Decimal:
        """What of the balance may not be spent: owed by matched trades, or brought by ones not yet confirmed."""
        held = ZERO
        for _, _, trade in self._due:
            for who, what, amount in trade.moves:
                if who is account and what == asset and (amount > 0) == trade.applied:
                    held += abs(amount)
        return held

    def _schedule(self, trade: Trade, from_ms: int) -> None:
        """Two steps make the plain way, so each takes half of a throw."""
        wait_ms = max(1, round(self.dice.uniform(*self.settle_s) * 500))
        self._count += 1
        heapq.heappush(self._due, (from_ms + wait_ms, self._count, trade))

    def _apply(self, trade: Trade, forth: bool) -> None:
        sign = 1 if forth else -1
        for account, asset, amount in trade.moves:
            account.move(asset, sign * amount)
        self.vault.pots[trade.market.condition_id] += sign * trade.sets
        self.vault.fees += sign * trade.fee
        trade.applied = forth


def _uuid(dice: random.Random) -> str:
    digits = f"{dice.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
