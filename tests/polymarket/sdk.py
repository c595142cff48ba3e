"""Random orders, and what the SDK makes of the same: amounts, digest, signature and body, all by its own code."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from polymarket._internal.actions.orders import limit, market, orders
from polymarket._internal.actions.orders.post import build_post_order_request
from polymarket._internal.actions.orders.typed_data import (
    _app_domain_separator,
    _order_contents_hash,
    build_order_signature,
    build_order_typed_data,
)
from polymarket._internal.environment import PRODUCTION_CONFIG
from polymarket._internal.wallet import wrap_deposit_wallet_signature

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import FixedGrid, Instrument, InstrumentId, Kind, Leg, Side, leg_price, leg_side
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.orders.drafts import ROUTES, Draft

THROWAWAY_KEY = "0x" + "11" * 32
ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
FUNDS = "0x93070a847efEf7F70739046A929D47a521F5B8ee"
ACCOUNT = Account.from_key(THROWAWAY_KEY)
TICKS = (1000, 100, 50, 25, 10, 1)
"""0.1 to 0.0001."""
TOKEN = "71321045679252212594626385532706912750332728571942532289631379312455583992563"
DECIDED_NS = 1_763_000_000_123_456_789
_KINDS = {
    WalletKind.EOA: "EOA",
    WalletKind.PROXY: "POLY_PROXY",
    WalletKind.SAFE: "GNOSIS_SAFE",
    WalletKind.DEPOSIT: "DEPOSIT_WALLET",
}
TAKING = (TimeInForce.IOC, TimeInForce.FOK)


def instrument(tick: int = 100, route: str = "ctf", tokens: tuple[str, str] = (TOKEN, "7")) -> Instrument:
    return Instrument(
        id=InstrumentId("0xm"),
        venue="polymarket",
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=6,
        grid=FixedGrid(tick),
        qty_step=10**4,
        min_qty=5 * 10**6,
        payout=10_000,
        token_ids=tokens,
        route=route,
    )


def wallet(kind: WalletKind = WalletKind.EOA) -> Wallet:
    return Wallet(kind, ADDRESS if kind is WalletKind.EOA else FUNDS, ADDRESS)


def place(side: Side = Side.BUY, price: int = 5300, lots: int = 1000, **changes: Any) -> PlaceOrder:
    """`lots` of 0.01 share; a post-only quote on YES unless told otherwise."""
    tif = changes.get("time_in_force", TimeInForce.GTC)
    base = PlaceOrder(
        order_id="3-41",
        instrument="0xm",
        side=side,
        leg=Leg.YES,
        price=price,
        qty=lots * 10**4,
        time_in_force=tif,
        post_only=tif not in TAKING,
        reduce_only=False,
        reason="quote",
        decided_ns=DECIDED_NS,
    )
    return msgspec.structs.replace(base, **changes)


def _token(rng: random.Random, route: str) -> str:
    """A token of the newest protocol has 64 zero bits within, by which the SDK chooses the route (`polymarket.md` 1.4)."""
    if route == "v3":
        return str(rng.choice((1, 2)) << 248 | rng.getrandbits(128) << 120 | rng.getrandbits(16) << 104 | rng.getrandbits(40))
    return str(rng.getrandbits(256) | 1 << 50)


def random_order(rng: random.Random) -> tuple[PlaceOrder, Instrument, Wallet]:
    """Any side, leg, tick, price, size, time in force, route and kind of wallet."""
    tick, route = rng.choice(TICKS), rng.choice(ROUTES)
    command = place(
        rng.choice((Side.BUY, Side.SELL)),
        rng.randrange(tick, 10_000, tick),
        rng.randint(500, 100_000),
        leg=rng.choice((Leg.YES, Leg.NO)),
        order_id=f"{rng.randint(1, 99)}-{rng.randint(1, 10**6)}",
        time_in_force=rng.choice(tuple(TimeInForce)),
        decided_ns=rng.randint(17 * 10**17, 19 * 10**17),
    )
    tokens = (_token(rng, route), _token(rng, route))
    return command, instrument(tick, route, tokens), wallet(rng.choice(tuple(WalletKind)))


class Theirs(msgspec.Struct):
    digest: bytes
    signature: str
    body: Any


def theirs(monkeypatch: Any, command: PlaceOrder, instrument: Instrument, wallet: Wallet, ours: Draft, expiration_s: int) -> Theirs:
    """What the SDK builds of the command, from its amounts to the body it would post. Only the salt and the time are told to it.

    An order that takes is given to it by what it may pay or sell, which is ours, and by the price that our amounts make.
    """
    made = _draft(command, instrument, wallet, ours, expiration_s)
    with monkeypatch.context() as patch:
        patch.setattr(orders, "_generate_salt", lambda: ours.salt)
        patch.setattr(orders, "_current_timestamp_ms", lambda: ours.timestamp_ms)
        unsigned = orders.create_unsigned_order(made, wallet=wallet.maker, wallet_type=_KINDS[wallet.kind])
    typed = build_order_typed_data(unsigned)
    signed = ACCOUNT.sign_typed_data(full_message=typed).signature.hex()
    signature = wrap_deposit_wallet_signature(
        signer=ACCOUNT.address,
        signer_type="OWNER",
        signature=build_order_signature(unsigned, "0x" + signed.removeprefix("0x")),
    )
    if wallet.kind is WalletKind.DEPOSIT:
        domain = bytes.fromhex(_app_domain_separator(unsigned, protocol_version=unsigned.protocol_version)[2:])
        digest = keccak(b"\x19\x01" + domain + _order_contents_hash(unsigned))
    else:
        message = encode_typed_data(full_message=typed)
        digest = keccak(b"\x19" + message.version + message.header + message.body)
    order = orders.create_signed_order(unsigned, signature, post_only=command.post_only)
    _, body = build_post_order_request(order, owner_api_key="owner")
    return Theirs(digest, signature, json.loads(json.dumps(body)))


def _draft(command: PlaceOrder, instrument: Instrument, wallet: Wallet, ours: Draft, expiration_s: int) -> Any:
    token = instrument.token_ids[command.leg is Leg.NO]
    side = leg_side(command.side, command.leg).name
    price = Decimal(leg_price(instrument, command.price, command.leg)).scaleb(-4)
    told: Any = SimpleNamespace(environment_config=PRODUCTION_CONFIG, wallet=wallet.maker, signer=ACCOUNT)
    info: Any = SimpleNamespace(tick_size=tick_size(instrument), neg_risk=instrument.route == "neg_risk")
    if command.time_in_force not in TAKING:
        wanted = limit.PrepareLimitOrderParams(
            asset_id=token,
            price=price,
            size=Decimal(command.qty).scaleb(-6),
            side=side,
            post_only=command.post_only,
            expiration=expiration_s or None,
        )
        return limit._build_limit_order_draft(told, wanted, price=price, metadata=info)
    cash = ours.taker_amount if ours.side else ours.maker_amount
    exact = Decimal(cash) / Decimal(ours.qty)
    given = Decimal(ours.maker_amount).scaleb(-6)
    kind = "FAK" if command.time_in_force is TimeInForce.IOC else "FOK"
    terms: dict[str, Any] = {"amount": given, "max_price": exact} if side == "BUY" else {"shares": given, "min_price": exact}
    taking = market.validate_market_order_params(asset_id=token, side=side, order_type=kind, **terms)
    return market._build_protected_market_order_draft(told, taking, metadata=info, builder_taker_fee_rate=Decimal(0))


def tick_size(instrument: Instrument) -> Decimal:
    assert isinstance(instrument.grid, FixedGrid)
    return Decimal(instrument.grid.step).scaleb(-4).normalize()
