"""The private key and all it signs: orders of every kind of wallet, and the proof that asks for API credentials.

It asks no clock and sends nothing; the key is read once and shown nowhere. Forms are those of `polymarket.md` 1.3, 1.5 and 2.3.
Only live trading imports this file.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec
from coincurve import PrivateKey

from llm_maker.core.commands import TimeInForce
from llm_maker.venues.polymarket.auth import WalletKind
from llm_maker.venues.polymarket.orders.drafts import CHAIN_ID, DOMAINS, ORDER_TYPE, Draft, address_word, keccak256, word

KEY_BROKEN = "the private key is not one: 64 hex digits, with or without 0x, of a number below the curve's order"
ADDRESS_BROKEN = "not an address: 0x and 40 hex digits, in one case or with its checksum right"
_NOTHING = "0x" + "00" * 32
_ORDER_TYPES = {TimeInForce.GTC: "GTC", TimeInForce.GTD: "GTD", TimeInForce.IOC: "FAK", TimeInForce.FOK: "FOK"}
_RESTING = ("GTC", "GTD")

# A deposit wallet signs an order wrapped in its own domain (ERC-7739), so that one wallet's signature is no other's.
_WRAPPED_TYPE_HASH = keccak256(
    b"TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
    + ORDER_TYPE.encode()
)
_WALLET_DOMAIN = keccak256(b"DepositWallet") + keccak256(b"1") + word(CHAIN_ID)
_CONTENTS_TYPE = ORDER_TYPE.encode() + len(ORDER_TYPE).to_bytes(2, "big")

_CLOB_DOMAIN = keccak256(
    keccak256(b"EIP712Domain(string name,string version,uint256 chainId)")
    + keccak256(b"ClobAuthDomain")
    + keccak256(b"1")
    + word(CHAIN_ID)
)
_CLOB_TYPE_HASH = keccak256(b"ClobAuth(address address,string timestamp,uint256 nonce,string message)")
_CLOB_MESSAGE_HASH = keccak256(b"This message attests that I control the given wallet")


class Signer:
    """One private key. It can sign and say its address; nothing else leaves it, neither shown nor pickled nor copied."""

    __slots__ = ("_private", "address")

    def __init__(self, key: str) -> None:
        """`key`: 64 hex digits, with or without 0x; raises ValueError without a word of it."""
        self.address = ""  # so that a half-made one can be shown
        private = _private_key(key)
        del key  # a traceback that shows locals has nothing to show
        if private is None:
            raise ValueError(KEY_BROKEN)
        self._private = private
        self.address = checksum("0x" + keccak256(private.public_key.format(compressed=False)[1:])[12:].hex())

    def sign(self, digest: bytes) -> bytes:
        """r, s and v (27 or 28) of 32 bytes; s is the low one, the nonce is RFC 6979's, so the same digest gives the same bytes."""
        assert len(digest) == 32, "a digest"
        signature = self._private.sign_recoverable(digest, hasher=None)
        return signature[:64] + (b"\x1c" if signature[64] else b"\x1b")

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def __getstate__(self) -> NoReturn:
        raise TypeError("a private key is neither copied nor stored")


def _private_key(key: str) -> PrivateKey | None:
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", key) is None:
        return None
    try:
        return PrivateKey(bytes.fromhex(key[-64:]))
    except ValueError:
        return None


def checksum(address: str) -> str:
    """An address in EIP-55's mixed case; ValueError for what is none, and for mixed case that is not its own."""
    if re.fullmatch(r"0x[0-9a-fA-F]{40}", address) is None:
        raise ValueError(ADDRESS_BROKEN)
    digits = address[2:].lower()
    marks = keccak256(digits.encode()).hex()
    cased = "0x" + "".join(c.upper() if mark >= "8" else c for c, mark in zip(digits, marks, strict=False))
    if address[2:] not in (cased[2:], digits, digits.upper()):
        raise ValueError(ADDRESS_BROKEN)
    return cased


def order_signature(draft: Draft, signer: Signer) -> str:
    """`0x` and the order's signature: 65 bytes over its digest, for a deposit wallet the nested form of 317."""
    if draft.signature_type != WalletKind.DEPOSIT:
        assert draft.signer == signer.address, "signed by another key than the order names"
        return "0x" + signer.sign(draft.digest).hex()
    domain = DOMAINS[draft.route]
    wrapped = keccak256(_WRAPPED_TYPE_HASH + draft.struct_hash + _WALLET_DOMAIN + address_word(draft.signer) + word(0))
    signature = signer.sign(keccak256(b"\x19\x01" + domain + wrapped))
    return "0x" + (signature + domain + draft.struct_hash + _CONTENTS_TYPE).hex()


def order_type_of(tif: TimeInForce) -> str:
    """The venue's word for how long an order stands."""
    return _ORDER_TYPES[tif]


def order_json(draft: Draft, signature: str, *, owner: str, order_type: str, expiration_s: int, post_only: bool) -> bytes:
    """The bytes of one order as POST /order takes it; several in brackets are POST /orders.

    `owner`: the API key; `expiration_s`: Unix time of a GTD order, 0 for any other. It is sent but not signed.
    """
    assert order_type in _RESTING or not post_only, "only an order that rests is post-only"
    assert (order_type == "GTD") == (expiration_s > 0), "an expiration belongs to GTD, and GTD to an expiration"
    body: dict[str, Any] = {
        "order": {
            "salt": draft.salt,
            "maker": draft.maker,
            "signer": draft.signer,
            "tokenId": draft.token_id,
            "makerAmount": str(draft.maker_amount),
            "takerAmount": str(draft.taker_amount),
            "side": "SELL" if draft.side else "BUY",
            "expiration": str(expiration_s),
            "signatureType": draft.signature_type,
            "timestamp": str(draft.timestamp_ms),
            "metadata": _NOTHING,
            "builder": _NOTHING,
            "signature": signature,
        },
        "owner": owner,
        "orderType": order_type,
        "deferExec": False,
    }
    if post_only:
        body["postOnly"] = True
    return msgspec.json.encode(body)


def l1_headers(signer: Signer, seconds: int, nonce: int) -> dict[str, str]:
    """The headers that create or derive API credentials; `seconds` is Unix time."""
    said = _CLOB_TYPE_HASH + address_word(signer.address) + keccak256(str(seconds).encode()) + word(nonce) + _CLOB_MESSAGE_HASH
    signature = signer.sign(keccak256(b"\x19\x01" + _CLOB_DOMAIN + keccak256(said)))
    return {
        "POLY_ADDRESS": signer.address,
        "POLY_SIGNATURE": "0x" + signature.hex(),
        "POLY_TIMESTAMP": str(seconds),
        "POLY_NONCE": str(nonce),
    }
