"""Who we are to Polymarket: wallet kind, API credentials, and the headers that prove a private request (`polymarket.md` 1.5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from enum import IntEnum

import msgspec

CREDENTIALS_BROKEN = "the API secret is not URL-safe base64"


class WalletKind(IntEnum):
    """The signature type of an order: what kind of wallet holds the funds."""

    EOA = 0
    PROXY = 1
    SAFE = 2
    DEPOSIT = 3


class Wallet(msgspec.Struct, frozen=True):
    """The funds' address and the key's address; the same for a plain key. Checksummed, `0x`."""

    kind: WalletKind
    maker: str
    """Holds pUSD and shares: what the browser shows."""
    signer: str
    """The key's own address; API credentials belong to it."""


class Credentials:
    """API key, secret and passphrase of one signer; never shown."""

    __slots__ = ("_passphrase", "_secret", "address", "key")

    def __init__(self, address: str, key: str, secret: str, passphrase: str) -> None:
        """`secret` as the venue gave it; raises ValueError if it cannot be one."""
        self.address, self.key, self._passphrase = address, key, passphrase
        try:
            self._secret = base64.urlsafe_b64decode(secret)
        except (binascii.Error, ValueError):
            raise ValueError(CREDENTIALS_BROKEN) from None

    def __repr__(self) -> str:
        return f"Credentials({self.address})"

    def headers(self, seconds: int, method: str, path: str, body: bytes | None) -> dict[str, str]:
        """L2 headers over the exact bytes sent; `path` without its query, `seconds` Unix time."""
        message = f"{seconds}{method}{path}".encode() + (body or b"")
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return {
            "POLY_ADDRESS": self.address,
            "POLY_API_KEY": self.key,
            "POLY_PASSPHRASE": self._passphrase,
            "POLY_TIMESTAMP": str(seconds),
            "POLY_SIGNATURE": base64.urlsafe_b64encode(digest).decode(),
        }

    def for_socket(self) -> dict[str, str]:
        """What the user channel wants in its first frame."""
        return {
            "apiKey": self.key,
            "secret": base64.urlsafe_b64encode(self._secret).decode(),
            "passphrase": self._passphrase,
        }
