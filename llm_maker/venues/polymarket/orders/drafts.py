"""An order as it will be signed: a core command becomes a token, exact integer amounts, and the digest, the venue's order id.

Pure, and without a private key: the same command gives the same digest at any time, so a journal tells the venue's id of every
order it holds. Struct, domains and contracts are those of `polymarket.md` 1.3 and 1.4, amounts those of 4.3.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from hashlib import blake2b
from math import gcd

import msgspec
from Crypto.Hash import keccak

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import NS_PER_MS, Grid, Instrument, Leg, Side, leg_price, leg_side
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.numbers import PAYOUT, PRICE_DECIMALS, QTY_DECIMALS

ROUTES = ("ctf", "neg_risk", "v3")
CHAIN_ID = 137
EXCHANGES = {
    "ctf": "0xE111180000d2663C0091e4f400237545B87B996B",
    "neg_risk": "0xe2222d279d744050d28e00520010520000310F59",
    "v3": "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa",
}
"""The contract that settles a route's orders."""
_VERSIONS = {"ctf": "2", "neg_risk": "2", "v3": "3"}
ORDER_TYPE = (
    "Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,"
    "uint8 side,uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)"
)

LOT = 10 ** (QTY_DECIMALS - 2)
"""Quantity units in 0.01 share, the step of every order; price x lots is cash in 10^-6 USD, exactly."""
_LOTS_PER_SHARE = 100
_CENT = 100
"""Price units."""
_PAID = 10_000
"""Cash units in one cent: what an order that takes may pay is a multiple of it."""
_GOT = 100
"""Cash units in 10^-4 USD: what an order that takes may ask for its shares is a multiple of it."""
_SALT_BITS = 53
"""A JSON number holds no more (`polymarket.md` 1.3)."""


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def word(value: int) -> bytes:
    """A number as the contract's 32 bytes."""
    return value.to_bytes(32, "big")


@lru_cache(maxsize=64)
def address_word(address: str) -> bytes:
    """An address as the contract's 32 bytes."""
    raw = bytes.fromhex(address[2:])
    assert address.startswith("0x") and len(raw) == 20, "an address"
    return raw.rjust(32, b"\0")


@lru_cache(maxsize=4096)
def _token_word(token_id: str) -> bytes:
    assert token_id.isascii() and token_id.isdecimal(), "a token id, as it is sent"
    return word(int(token_id))


def _domain(route: str) -> bytes:
    domain_type = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    name, version = keccak256(b"Polymarket CTF Exchange"), keccak256(_VERSIONS[route].encode())
    return keccak256(domain_type + name + version + word(CHAIN_ID) + address_word(EXCHANGES[route]))


DOMAINS = {route: _domain(route) for route in ROUTES}
"""Each route's domain separator."""
_PREFIXES = {route: b"\x19\x01" + domain for route, domain in DOMAINS.items()}
_ORDER_TYPE_HASH = keccak256(ORDER_TYPE.encode())
_WORDS = tuple(word(value) for value in range(4))
"""Of sides and signature types."""
_NO_METADATA_NO_BUILDER = bytes(64)


class Draft(msgspec.Struct, frozen=True, dict=True):
    """The eleven fields of an order but its two empty ones, and the route whose contract settles it.

    Amounts in 10^-6 USD and shares: `maker_amount` is given, `taker_amount` wanted. `side` 0 buys the token, 1 sells it. `signer`
    is the key's address, for a deposit wallet the wallet's own (`polymarket.md` 1.3).
    """

    salt: int
    maker: str
    signer: str
    token_id: str
    maker_amount: int
    taker_amount: int
    side: int
    signature_type: int
    timestamp_ms: int
    route: str

    @property
    def qty(self) -> int:
        """Shares (10^-6) that the order trades: less than the command's where an order that takes had to be cut."""
        return self.maker_amount if self.side else self.taker_amount

    @cached_property
    def struct_hash(self) -> bytes:
        """The order without its domain."""
        packed = (
            _ORDER_TYPE_HASH,
            word(self.salt),
            address_word(self.maker),
            address_word(self.signer),
            _token_word(self.token_id),
            word(self.maker_amount),
            word(self.taker_amount),
            _WORDS[self.side],
            _WORDS[self.signature_type],
            word(self.timestamp_ms),
            _NO_METADATA_NO_BUILDER,
        )
        return keccak256(b"".join(packed))

    @cached_property
    def digest(self) -> bytes:
        """What a plain key signs, and whatever signs: the venue's order id."""
        return keccak256(_PREFIXES[self.route] + self.struct_hash)

    @property
    def venue_id(self) -> str:
        return "0x" + self.digest.hex()


def draft(command: PlaceOrder, instrument: Instrument, wallet: Wallet) -> Draft:
    """A command as its order. Nothing but the command, the wallet and the instrument's fixed facts enters.

    An order that takes (IOC, FOK) may come out smaller than asked, see `_taking`: what `qty` lacks is not at the venue.
    """
    assert instrument.id == command.instrument and instrument.route in ROUTES, f"no route to {command.instrument}"
    assert (instrument.price_decimals, instrument.qty_decimals, instrument.payout) == (PRICE_DECIMALS, QTY_DECIMALS, PAYOUT)
    assert 0 < command.price < PAYOUT and command.leg is not Leg.NONE, "a price between 0 and 1 of YES or NO"
    assert command.qty > 0 and command.qty % LOT == 0, "a size of whole 0.01 shares"
    assert command.decided_ns > 0, "a command without its time"
    side, price = leg_side(command.side, command.leg), int(leg_price(instrument, command.price, command.leg))
    lots = command.qty // LOT
    if command.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        price, lots = _taking(side, price, lots, instrument.grid)
    shares, cash = lots * LOT, lots * price
    buys = side is Side.BUY
    return Draft(
        salt=_salt(wallet.maker, command),
        maker=wallet.maker,
        signer=wallet.maker if wallet.kind is WalletKind.DEPOSIT else wallet.signer,
        token_id=instrument.token_ids[1 if command.leg is Leg.NO else 0],
        maker_amount=cash if buys else shares,
        taker_amount=shares if buys else cash,
        side=0 if buys else 1,
        signature_type=int(wallet.kind),
        timestamp_ms=command.decided_ns // NS_PER_MS,
        route=instrument.route,
    )


def _salt(maker: str, command: PlaceOrder) -> int:
    said = f"{maker.lower()} {command.decided_ns} {command.order_id}".encode()
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "big") >> (64 - _SALT_BITS)


def _taking(side: Side, price: int, lots: int, grid: Grid) -> tuple[int, int]:
    """Price and lots that an order may take with: what it gives has 2 decimals, what it wants 4, whatever the tick.

    The venue reads the price as the ratio of the amounts. A hair below an ask never lifts it, a hair above the limit breaks our
    word: so the ratio is a price of the grid, exactly, and the size is cut to lots whose cash fits: whole cents where it is paid,
    10^-4 USD where it is got. A sale loses less than a share by that. A purchase may go to a lower price where more is kept so: of
    the grid prices less than a cent below the limit it takes the one for the most whole shares, the highest of equals; from 0.01
    upwards that too costs less than a share. Where nothing fits the order stays as it is, within its limit, for the venue to
    refuse.
    """
    if side is Side.SELL:
        return price, _fitting(price, lots, _GOT) or lots
    prices = [price]
    while (lower := grid.floor(prices[-1] - 1)) > max(price - _CENT, 0):
        prices.append(lower)
    found, fits = max(((each, _fitting(each, lots, _PAID)) for each in prices), key=lambda of: (of[1] // _LOTS_PER_SHARE, of[0]))
    return (found, fits) if fits else (price, lots)


def _fitting(price: int, lots: int, quantum: int) -> int:
    """The most lots, of so many, whose cash at this price is a multiple of `quantum`."""
    return lots - lots % (quantum // gcd(price, quantum))
