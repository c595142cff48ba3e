"""An order's EIP-712 digest and signer, worked out apart from the program under test: the loopback venue's ids and its proof.

The venue's id of an order is its digest (`polymarket.md` 1.3); a maker that is told another id stops at once.
"""

from __future__ import annotations

from typing import Any

from coincurve import PublicKey
from Crypto.Hash import keccak

_EXCHANGE = "E111180000d2663C0091e4f400237545B87B996B"
"""Of standard markets; the loopback venue lists no other kind."""
_ORDER_TYPE = (
    b"Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,"
    b"uint8 side,uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)"
)


def hashed(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def _number(value: str | int) -> bytes:
    return int(value).to_bytes(32, "big")


def _hex(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x")).rjust(32, b"\0")


_DOMAIN = hashed(
    hashed(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    + hashed(b"Polymarket CTF Exchange")
    + hashed(b"2")
    + _number(137)
    + _hex(_EXCHANGE)
)
_TYPE = hashed(_ORDER_TYPE)


def digest(order: dict[str, Any]) -> bytes:
    """Of an order as it is posted."""
    struct = (
        _TYPE,
        _number(order["salt"]),
        _hex(order["maker"]),
        _hex(order["signer"]),
        _number(order["tokenId"]),
        _number(order["makerAmount"]),
        _number(order["takerAmount"]),
        _number(order["side"] == "SELL"),
        _number(order["signatureType"]),
        _number(order["timestamp"]),
        _hex(order["metadata"]),
        _hex(order["builder"]),
    )
    return hashed(b"\x19\x01" + _DOMAIN + hashed(b"".join(struct)))


def signed_by(order_digest: bytes, signature: str) -> str:
    """The address whose key made the signature, lower case."""
    raw = bytes.fromhex(signature.removeprefix("0x"))
    recovered = PublicKey.from_signature_and_message(raw[:64] + bytes([raw[64] - 27]), order_digest, hasher=None)
    return "0x" + hashed(recovered.format(compressed=False)[1:])[12:].hex()
