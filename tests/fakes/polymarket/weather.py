"""Faults of the world rather than of a connection: what happens to markets, settlements and accounts while the venue runs."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.fakes.polymarket.faults import Fault
from tests.fakes.polymarket.records import FakeAccount, FakeMarket, Message, OrderFields

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket

FINE, COARSE = Decimal("0.001"), Decimal("0.01")
LATE_MS = 5_000
"""Beyond the house's longest settlement."""


class Weather:
    """Applies the house's kinds of fault at every step, and counts what its messages show."""

    def __init__(self, venue: FakePolymarket) -> None:
        self.venue = venue
        self._calm_settle_s = venue.house.clearing.settle_s
        self._bent: dict[str, Any] = {}
        """The house's own numbers, while a fault has others in their place."""
        self._foreign = 0

    def step(self, now_ms: int) -> None:
        faults = self.venue.faults
        faults.step(now_ms)
        self._settlements(now_ms)
        for kind, happen in (
            ("tick_change", self._tick_change),
            ("market_closed", self._market_closed),
            ("foreign_order", self._foreign_order),
            ("foreign_holding", self._foreign_holding),
        ):
            fault = faults.told(kind, now_ms)
            if fault is not None and faults.chance(fault.share) and happen(fault, now_ms):
                faults.happened(kind)
                self.venue.note("FAULT", kind, 0, fault.only)

    def saw(self, messages: Iterable[Message]) -> None:
        """Settlement faults are seen when their message is."""
        seen = self.venue.faults.seen
        longest_ms = self._calm_settle_s[1] * 1000 + LATE_MS
        for message in messages:
            payload = message.payload
            if message.channel != "user" or payload["event_type"] != "trade":
                continue
            status = payload["status"]
            if status in ("FAILED", "RETRYING"):
                seen["settle_failed" if status == "FAILED" else "settle_retrying"] += 1
            elif status == "CONFIRMED" and int(payload["timestamp"]) - int(payload["match_time"]) * 1000 > longest_ms:
                seen["settle_late"] += 1

    def _settlements(self, now_ms: int) -> None:
        clearing = self.venue.house.clearing
        for kind, name in (("settle_failed", "fail_share"), ("settle_retrying", "retry_share"), ("settle_late", "settle_s")):
            fault = self.venue.faults.told(kind, now_ms)
            if fault is not None and kind not in self._bent:
                self._bent[kind] = usual = getattr(clearing, name)
                late = kind == "settle_late"
                setattr(clearing, name, (usual[0] + fault.value, usual[1] + fault.value) if late else fault.value)
            elif fault is None and kind in self._bent:
                setattr(clearing, name, self._bent.pop(kind))

    # Each happens, or says that it cannot.

    def _tick_change(self, fault: Fault, now_ms: int) -> bool:
        market = self._market(fault)
        if market is None:
            return False
        self.venue.house.change_tick(market.condition_id, COARSE if market.tick < COARSE else FINE, now_ms)
        return True

    def _market_closed(self, fault: Fault, now_ms: int) -> bool:
        """Never the last one, unless it is named."""
        market = self._market(fault)
        if market is None or (not fault.only and len(self._open()) < 2):
            return False
        self.venue.house.close_market(market.condition_id, now_ms)
        return True

    def _foreign_order(self, fault: Fault, now_ms: int) -> bool:
        """A small bid a little behind the touch, as the wallet's owner may have put it by hand."""
        account, open_markets = self._account(fault), self._open()
        if account is None or not open_markets:
            return False
        market = open_markets[self.venue.faults.pick(len(open_markets))]
        price = max(market.tick, self.venue.touch(market)[0] - 5 * market.tick)
        self._foreign += 1
        fields = OrderFields(
            id=f"0x{now_ms:032x}{self._foreign:032x}",
            maker=account.maker,
            signer=account.maker if account.kind == 3 else account.signer,
            token_id=market.yes,
            maker_amount=int(price * market.min_size * 1_000_000),
            taker_amount=int(market.min_size * 1_000_000),
            side="BUY",
            signature_type=account.kind,
            timestamp_ms=now_ms,
            expiration=0,
            order_type="GTC",
            post_only=True,
        )
        return self.venue.house.submit(account, fields, now_ms).success

    def _foreign_holding(self, fault: Fault, now_ms: int) -> bool:
        account, open_markets = self._account(fault), self._open()
        if account is None or not open_markets:
            return False
        market = open_markets[self.venue.faults.pick(len(open_markets))]
        self.venue.house.grant(account, market.tokens[self.venue.faults.pick(2)], Decimal(str(fault.value)))
        return True

    def _open(self) -> list[FakeMarket]:
        return [market for market in self.venue.markets if market.accepting and not market.closed]

    def _market(self, fault: Fault) -> FakeMarket | None:
        found = [market for market in self._open() if fault.only in market.condition_id]
        return found[self.venue.faults.pick(len(found))] if found else None

    def _account(self, fault: Fault) -> FakeAccount | None:
        found = [account for account in self.venue.house.accounts.values() if fault.only in account.api_key]
        return found[self.venue.faults.pick(len(found))] if found else None
