"""Throwaway accounts and markets to fill a fake house with."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from eth_account import Account

from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.house import FakeAccount, FakeMarket, House
from tests.fakes.polymarket.verify import credentials

THROWAWAY_KEY = "0x" + "11" * 32  # marked: worth nothing anywhere
KINDS = {"eoa": 0, "proxy": 1, "safe": 2, "deposit": 3}
_SUBJECTS = (
    ("Will the ferry leave on time?", "weather", ["weather"]),
    ("Will the incumbent win?", "politics", ["politics", "elections"]),
    ("Will the challenger win?", "politics", ["politics", "elections"]),
    ("Will the index close higher?", "finance", ["finance"]),
    ("Will the home team win?", "sports", ["sports"]),
)
_FEES = {"weather": "0.05", "politics": "0.04", "finance": "0.04", "sports": "0.05"}


def wallet_of(signer: str, kind: int) -> str:
    """The address that holds a key's funds, by kind, as the venue's contracts derive it."""
    from polymarket._internal.wallet import (
        derive_beacon_deposit_wallet_address,
        derive_proxy_wallet_address,
        derive_safe_wallet_address,
    )
    from polymarket.environments import PRODUCTION

    rules = PRODUCTION._config.wallet_derivation
    ways = {1: derive_proxy_wallet_address, 2: derive_safe_wallet_address, 3: derive_beacon_deposit_wallet_address}
    return ways[kind](signer, rules) if kind else signer


def throwaway_account(kind: int = 0, *, key: str = THROWAWAY_KEY, nonce: int = 1, cash: int = 10_000) -> FakeAccount:
    """The account of a key, whose credentials are those that an L1 proof with this nonce derives."""
    signer = str(Account.from_key(key).address)
    api_key, secret, passphrase = credentials(signer, nonce)
    return FakeAccount(wallet_of(signer, kind), signer, kind, api_key, secret, passphrase, cash=Decimal(cash))


def some_markets(count: int, seed: int, now_ms: int) -> list[FakeMarket]:
    """So many markets, each second and third of five being one neg-risk event; all end in a month."""
    dice = random.Random(f"{seed} markets")
    now = datetime.fromtimestamp(now_ms / 1000, UTC).replace(microsecond=0)
    made = []
    for number in range(count):
        question, category, tags = _SUBJECTS[number % len(_SUBJECTS)]
        exclusive = category == "politics"
        event = f"{'race' if exclusive else 'event'}-{number // len(_SUBJECTS)}{'' if exclusive else f'-{number}'}"
        made.append(
            FakeMarket(
                condition_id=f"0x{dice.getrandbits(256):064x}",
                yes=str(dice.getrandbits(255) | 1 << 50),  # not of the newest protocol's form
                no=str(dice.getrandbits(255) | 1 << 50),
                question=question,
                slug=f"market-{number}",
                event_id=str(9_000 + (number // len(_SUBJECTS)) * 10 + (0 if exclusive else number % len(_SUBJECTS) + 1)),
                event_slug=event,
                neg_risk=exclusive,
                fee_rate=Decimal(_FEES[category]),
                category=category,
                tags=tags,
                start_iso=(now - timedelta(days=7)).isoformat().replace("+00:00", "Z"),
                end_iso=(now + timedelta(days=30)).isoformat().replace("+00:00", "Z"),
                rewards={"min_size": 20, "max_spread": 4.5, "rate_per_day": 5} if number % 2 == 0 else None,
                volume_24h=Decimal(50_000 + 1_000 * number),
                liquidity=Decimal(20_000 + 1_000 * number),
            )
        )
    return made


def some_house(
    seed: int = 1,
    *,
    markets: int = 2,
    now_ms: int,
    accounts: Iterable[FakeAccount] = (),
    settle_s: tuple[float, float] = (1.0, 5.0),
) -> House:
    house = House(seed, settle_s=settle_s)
    for market in some_markets(markets, seed, now_ms):
        house.add_market(market)
    for account in accounts:
        house.add_account(account)
    return house


__all__ = ["KINDS", "THROWAWAY_KEY", "Faults", "some_house", "some_markets", "throwaway_account", "wallet_of"]
