"""The chain and its relayer over the one house: what is merged, split or redeemed there is so on the books as well."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.polymarket.records import MICRO, FakeAccount
from tests.fakes.polymarket.relayer import ADAPTERS, ChainHouse, Reverted, Work, decoded, routes

if TYPE_CHECKING:
    from tests.fakes.polymarket.server import FakePolymarket


class Chain(ChainHouse):
    """A chain that holds what the house's wallets hold; every wallet is deployed."""

    def __init__(self, venue: FakePolymarket) -> None:
        super().__init__()
        self._venue = venue

    def routes(self) -> list[web.RouteDef]:
        return routes(self._now)

    def do(self, wallet: str, to: str, data: bytes) -> Work:
        """As the chain does it, on the house's own ledger."""
        work, house, now_ms = decoded(wallet, to, data), self._venue.house, self._venue.now_ms()
        account, market = self._account(wallet), house.markets.get(work.condition)
        if account is None or market is None or to != ADAPTERS["neg_risk" if market.neg_risk else "ctf"]:
            raise Reverted("no such wallet, contract or condition")
        before = account.cash
        if work.what == "redeem":
            wrong = house.redeem(account, work.condition, now_ms)
        else:
            wrong = (house.merge if work.what == "merge" else house.split)(account, work.condition, work.qty * MICRO, now_ms)
        if wrong:
            raise Reverted(wrong)
        work.cash = int((account.cash - before) / MICRO)
        self.works.append(work)
        self.on_done(work)
        return work

    def _now(self, request: web.Request) -> ChainHouse:
        """The house as it is at this request."""
        house = self._venue.house
        for market in house.markets.values():
            condition = market.condition_id.lower()
            self.conditions[condition] = (int(market.yes), int(market.no))
            if market.resolved is not None:
                self.payouts[condition] = (1_000_000, 0) if market.resolved == "yes" else (0, 1_000_000)
        for account in house.accounts.values():
            wallet = account.maker.lower()
            self.deployed.add(wallet)
            self.cash[wallet] = int(account.cash / MICRO)
            for token, shares in account.shares.items():
                self.shares[wallet, int(token)] = int(Decimal(shares) / MICRO)
        return self

    def _account(self, wallet: str) -> FakeAccount | None:
        accounts = self._venue.house.accounts.values()
        return next((account for account in accounts if account.maker.lower() == wallet.lower()), None)
