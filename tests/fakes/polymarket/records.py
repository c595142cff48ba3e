"""What the fake venue keeps: markets, accounts, orders; what it is handed and what it hands back. Decimal throughout.

A price is that of the order's own token, in pUSD; a size counts shares; times are milliseconds of venue time unless named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

ZERO, ONE = Decimal(0), Decimal(1)
MICRO = Decimal("0.000001")
"""The finest sum of money and the finest share."""


def text(value: Decimal) -> str:
    """Plain decimal text as the wire has it: no exponent, no trailing zeros."""
    return f"{value.normalize():f}" if value else "0"


def units(value: Decimal) -> str:
    """An amount as the wire's 6-decimals integer."""
    return str(int((value / MICRO).to_integral_value(ROUND_FLOOR)))


@dataclass
class FakeMarket:
    """One market of two outcomes; `yes` and `no` are token ids as decimal text."""

    condition_id: str
    yes: str
    no: str
    question: str = ""
    slug: str = ""
    event_id: str = ""
    event_slug: str = ""
    tick: Decimal = Decimal("0.01")
    min_size: Decimal = Decimal(5)
    neg_risk: bool = False
    fee_rate: Decimal = ZERO
    category: str = ""
    tags: list[str] = field(default_factory=list)
    end_iso: str | None = None
    start_iso: str | None = None
    rewards: dict[str, Any] | None = None
    """`min_size`, `max_spread` (cents), `rate_per_day`."""
    accepting: bool = True
    closed: bool = False
    resolved: str | None = None
    """`yes` or `no`, once it is known."""
    version: str = "v1"
    volume_24h: Decimal = ZERO
    liquidity: Decimal = ZERO
    seconds_delay: int = 0

    @property
    def tokens(self) -> tuple[str, str]:
        return self.yes, self.no

    def other(self, token: str) -> str:
        return self.no if token == self.yes else self.yes

    def outcome(self, token: str) -> str:
        return "Yes" if token == self.yes else "No"

    @property
    def winner(self) -> str | None:
        """The token that pays."""
        return {"yes": self.yes, "no": self.no, None: None}[self.resolved]


@dataclass(eq=False)
class FakeAccount:
    """One API key and the wallet behind it; `cash` and `shares` are what the chain holds, settled or not yet final."""

    maker: str
    signer: str
    kind: int
    api_key: str
    secret: str
    passphrase: str
    cash: Decimal
    shares: dict[str, Decimal] = field(default_factory=dict)
    allowance: bool = True
    closed_only: bool = False
    banned: bool = False

    def holds(self, asset: str | None) -> Decimal:
        """`asset` None is cash, else a token."""
        return self.cash if asset is None else self.shares.get(asset, ZERO)

    def move(self, asset: str | None, amount: Decimal) -> None:
        if asset is None:
            self.cash += amount
        else:
            self.shares[asset] = self.shares.get(asset, ZERO) + amount


@dataclass
class OrderFields:
    """An order whose signature is already checked; amounts are 6-decimals integers, `expiration` unix seconds or 0."""

    id: str
    maker: str
    signer: str
    token_id: str
    maker_amount: int
    taker_amount: int
    side: str
    signature_type: int
    timestamp_ms: int
    expiration: int
    order_type: str
    post_only: bool


@dataclass
class Placed:
    """The answer to one order; `making` and `taking` are what matched at once, empty where nothing did."""

    success: bool
    error: str = ""
    order_id: str = ""
    status: str = ""
    making: str = ""
    taking: str = ""
    trade_ids: list[str] = field(default_factory=list)


@dataclass
class Message:
    """One message to be pushed: `key` is a token id on `market`, an API key on `user`.

    A message about both outcomes (price_change, market_resolved) is told once, under YES; its payload names both tokens.
    """

    channel: str
    key: str
    payload: dict[str, Any]


@dataclass(eq=False)
class Order:
    """An order as the venue holds it. `owner` and `maker` are what others see; `wallet` is who pays."""

    id: str
    wallet: FakeAccount
    owner: str
    maker: str
    market: FakeMarket
    token: str
    side: str
    price: Decimal
    size: Decimal
    kind: str = "GTC"
    post_only: bool = False
    expiration: int = 0
    created_ms: int = 0
    background: bool = False
    status: str = "LIVE"
    matched: Decimal = ZERO
    trade_ids: list[str] = field(default_factory=list)

    @property
    def remaining(self) -> Decimal:
        return self.size - self.matched

    @property
    def is_bid(self) -> bool:
        """On the one logical book, whose prices are those of YES: a bid buys YES or sells NO."""
        return (self.side == "BUY") == (self.token == self.market.yes)

    @property
    def yes_price(self) -> Decimal:
        return self.price if self.token == self.market.yes else ONE - self.price

    @property
    def rests(self) -> bool:
        """Whether what does not match at once stays."""
        return self.kind in ("GTC", "GTD")

    @property
    def gives(self) -> str | None:
        """The asset it pays with: a token, or None for cash."""
        return None if self.side == "BUY" else self.token

    @property
    def reserve(self) -> Decimal:
        """How much of it the open rest may still take."""
        return self.remaining * self.price if self.side == "BUY" else self.remaining
