"""Which wallets a key can stand for: their addresses by CREATE2, from the venue's factories and init codes (`polymarket.md` 4.6).

Pure arithmetic, so that a start needs no library of the chain for it; tests hold it to the SDK's own derivation.
"""

from __future__ import annotations

from llm_maker.venues.polymarket.auth import WalletKind
from llm_maker.venues.polymarket.orders.drafts import address_word, keccak256
from llm_maker.venues.polymarket.orders.sign import checksum

PROXY_FACTORY = "0xaB45c5A4B0c941a2F231C04C3f49182e1A254052"
PROXY_CODE_HASH = bytes.fromhex("d21df8dc65880a8606f09fe0ce3df9b8869287ab0b058be05aa9e8af6330a00b")
SAFE_FACTORY = "0xaacFeEa03eb1561C4e67d661e40682Bd20E3541b"
SAFE_CODE_HASH = bytes.fromhex("2bce2127ff07fb632d16c8347c4ebf501f4841168bed00d9e6ef715ddb6fcecf")
DEPOSIT_FACTORY = "0x00000000000Fb5C9ADea0298D729A0CB3823Cc07"
# A deposit wallet is a small proxy with its factory and its owner at its end, so that each has an init code of its own. The length
# of that end, 64 bytes, is part of the first word.
_BEACON = bytes.fromhex(
    "6100923d8160233d3973"
    "7a18edfe055488a3128f01f563e5b479d92ffc3a"
    "60195155f3363d3d373d3d363d602036600436635c60da1b60e01b36527fa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6c"
    "b3582b35133d50545afa5036515af43d6000803e604d573d6000fd5b3d6000f3"
)
"""Newer: the implementation is asked of a beacon."""
_DIRECT = bytes.fromhex(
    "61007d3d8160233d3973"
    "58ca52ebe0dadfdf531cde7062e76746de4db1eb"
    "60095155f3363d3d373d3d363d7f360894a13ba1a3210667c828492db98dca3e2076"
    "cc3735a920a3ca505d382bbc545af43d6000803e6038573d6000fd5b3d6000f3"
)
"""Older: the implementation is in the wallet."""


def derived(signer: str) -> tuple[tuple[WalletKind, str], ...]:
    """Every wallet that a key can stand for, by its checksummed address; all are checksummed."""
    owner = address_word(signer)
    end = address_word(DEPOSIT_FACTORY) + owner
    return (
        (WalletKind.EOA, signer),
        (WalletKind.DEPOSIT, _create2(DEPOSIT_FACTORY, keccak256(end), keccak256(_BEACON + end))),
        (WalletKind.DEPOSIT, _create2(DEPOSIT_FACTORY, keccak256(end), keccak256(_DIRECT + end))),
        (WalletKind.PROXY, _create2(PROXY_FACTORY, keccak256(owner[12:]), PROXY_CODE_HASH)),
        (WalletKind.SAFE, _create2(SAFE_FACTORY, keccak256(owner), SAFE_CODE_HASH)),
    )


def _create2(factory: str, salt: bytes, code_hash: bytes) -> str:
    """Where a factory puts a contract of that init code (EIP-1014)."""
    return checksum("0x" + keccak256(b"\xff" + address_word(factory)[12:] + salt + code_hash)[12:].hex())
