"""All money of the house: what came in from outside, what is locked behind pairs of shares, what fees took.

One YES and one NO are made from 1 pUSD and unmade into it, so a market's pot is its number of pairs. Shares that appear from
outside have their other half, and the cash behind both, come in with them: the crowd holds the half.
"""

from __future__ import annotations

from decimal import Decimal

from tests.fakes.polymarket.records import ZERO, FakeAccount, FakeMarket


class Vault:
    """`endowed` is all cash that ever came in: it lies in wallets, in pots or with the fees."""

    def __init__(self, crowd: FakeAccount) -> None:
        self.crowd = crowd
        self.endowed = crowd.cash
        self.fees = ZERO
        self.pots: dict[str, Decimal] = {}
        self._joined: set[tuple[str, str]] = set()

    def open_pot(self, market: FakeMarket, sets: Decimal) -> None:
        """A new market, with so many pairs in the crowd's hands."""
        self.pots[market.condition_id] = ZERO
        self.pair(self.crowd, market, sets)

    def pair(self, account: FakeAccount, market: FakeMarket, amount: Decimal) -> None:
        """Cash into pairs; negative: pairs into cash."""
        account.move(None, -amount)
        for token in market.tokens:
            account.move(token, amount)
        self.pots[market.condition_id] += amount

    def pay_out(self, account: FakeAccount, market: FakeMarket, token: str, amount: Decimal) -> None:
        """Burn shares of a resolved market."""
        account.move(token, -amount)
        if token == market.winner:
            account.move(None, amount)
            self.pots[market.condition_id] -= amount

    def join(self, account: FakeAccount, market: FakeMarket) -> None:
        """What an account already holds of a market, once for each token."""
        for token in market.tokens:
            if account.shares.get(token) and (account.api_key, token) not in self._joined:
                self._joined.add((account.api_key, token))
                self._match_half(market, token, account.shares[token])

    def grant(self, account: FakeAccount, market: FakeMarket | None, token: str | None, amount: Decimal) -> None:
        """An asset from outside, or (negative) gone there; `market` is the token's, both None for cash."""
        account.move(token, amount)
        if market is None or token is None:
            self.endowed += amount
        else:
            self._joined.add((account.api_key, token))
            self._match_half(market, token, amount)

    def _match_half(self, market: FakeMarket, token: str, amount: Decimal) -> None:
        self.crowd.move(market.other(token), amount)
        self.pots[market.condition_id] += amount
        self.endowed += amount
