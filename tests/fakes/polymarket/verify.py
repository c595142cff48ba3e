"""Whether a signature or a proof is good: orders by every route and wallet kind, L1 and L2 headers (`polymarket.md` 1.3 to 1.5).

Written from the specification; it shares nothing with the program it judges. What is not as it must be raises `Refused` with the
venue's own words, and a note for the log saying what was really wrong.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.messages import SignableMessage
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak

CHAIN = 137
ROUTES = {
    "standard": ("2", "0xE111180000d2663C0091e4f400237545B87B996B"),
    "neg_risk": ("2", "0xe2222d279d744050d28e00520010520000310F59"),
    "v3": ("3", "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"),
}
"""Domain version and exchange of each order route (`polymarket.md` 1.4)."""
ORDER_TYPE = (
    b"Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,uint8 side,"
    b"uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)"
)
_NESTED_TYPE = (
    b"TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)" + ORDER_TYPE
)
_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_AUTH_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId)"
_AUTH_TYPE = b"ClobAuth(address address,string timestamp,uint256 nonce,string message)"
_AUTH_WORDS = b"This message attests that I control the given wallet"
_CURVE_HALF = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_BYTES32 = re.compile(r"0x[0-9a-fA-F]{64}")
_DIGITS = re.compile(r"0|[1-9][0-9]{0,77}")
_V1_FIELDS = {"taker", "nonce", "feeRateBps"}

BAD_KEY = "Unauthorized/Invalid api key"
BAD_L1 = "Invalid L1 Request headers"
BAD_PAYLOAD = "Invalid order payload"
BAD_SIGNATURE = "invalid signature"
WRONG_VERSION = "order_version_mismatch"
WRONG_OWNER = "the order owner has to be the owner of the API KEY"
WRONG_SIGNER = "the order signer address has to be the address of the API KEY"
WRONG_MAKER = "maker address not allowed, please use the deposit wallet flow"


class Refused(Exception):
    """The venue says no: status and words as it says them; `note` is what was wrong, for whoever reads the log."""

    def __init__(self, status: int, words: str, note: str = "", *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(f"{status} {words} ({note})")
        self.status, self.words, self.note = status, words, note
        self.headers, self.more = dict(headers or {}), more


@dataclass(frozen=True)
class SignedOrder:
    """One order as it was posted, its numbers read; the envelope (owner, type, post-only) is not signed."""

    salt: int
    maker: str
    signer: str
    token_id: str
    maker_amount: int
    taker_amount: int
    side: str
    signature_type: int
    timestamp_ms: int
    metadata: str
    builder: str
    expiration: int
    signature: bytes
    owner: str
    order_type: str
    post_only: bool


def decode_order(body: Any) -> SignedOrder:
    """One element of POST /order(s), field by field as `polymarket.md` 2.3 has them: text is text, numbers are numbers."""
    order = _of(body, "order", dict)
    if not {"timestamp", "metadata", "builder"} <= order.keys() or _V1_FIELDS & order.keys():
        raise Refused(400, WRONG_VERSION, f"fields {sorted(order)}")
    kind, order_type, post_only = _of(order, "signatureType", int), _of(body, "orderType", str), body.get("postOnly", False)
    if not isinstance(post_only, bool) or not isinstance(body.get("deferExec", False), bool):
        raise Refused(400, BAD_PAYLOAD, "postOnly and deferExec are booleans")
    if kind not in (0, 1, 2, 3) or order_type not in ("GTC", "GTD", "FOK", "FAK"):
        raise Refused(400, BAD_PAYLOAD, f"signatureType {kind}, orderType {order_type}")
    side, signature = _of(order, "side", str), _of(order, "signature", str)
    if side not in ("BUY", "SELL") or not re.fullmatch(r"0x([0-9a-fA-F]{2})+", signature):
        raise Refused(400, BAD_PAYLOAD, f"side {side}, signature {signature[:12]}")
    if post_only and order_type not in ("GTC", "GTD"):
        raise Refused(400, BAD_PAYLOAD, f"post-only {order_type}")
    return SignedOrder(
        salt=_of(order, "salt", int),
        maker=_text(order, "maker", _ADDRESS),
        signer=_text(order, "signer", _ADDRESS),
        token_id=_text(order, "tokenId", _DIGITS),
        maker_amount=int(_text(order, "makerAmount", _DIGITS)),
        taker_amount=int(_text(order, "takerAmount", _DIGITS)),
        side=side,
        signature_type=kind,
        timestamp_ms=int(_text(order, "timestamp", _DIGITS)),
        metadata=_text(order, "metadata", _BYTES32),
        builder=_text(order, "builder", _BYTES32),
        expiration=int(_text(order, "expiration", _DIGITS)),
        signature=bytes.fromhex(signature[2:]),
        owner=_of(body, "owner", str),
        order_type=order_type,
        post_only=post_only,
    )


def order_digest(order: SignedOrder, route: str) -> str:
    """The EIP-712 digest, which is the order's id: `0x` and 64 hex digits."""
    return "0x" + keccak(b"\x19\x01" + domain_separator(route) + order_hash(order)).hex()


@functools.cache
def domain_separator(route: str) -> bytes:
    version, exchange = ROUTES[route]
    return _hashed(_DOMAIN_TYPE, b"Polymarket CTF Exchange", version.encode(), CHAIN, exchange)


def order_hash(order: SignedOrder) -> bytes:
    """The struct hash of the eleven signed fields."""
    return _hashed(
        ORDER_TYPE,
        order.salt,
        order.maker,
        order.signer,
        int(order.token_id),
        order.maker_amount,
        order.taker_amount,
        0 if order.side == "BUY" else 1,
        order.signature_type,
        order.timestamp_ms,
        order.metadata,
        order.builder,
    )


def order_signer(order: SignedOrder, route: str) -> str | None:
    """Whose key signed it for this route, lower case; None where it is no signature at all.

    A deposit wallet's (type 3) is nested: 65 bytes over `TypedDataSign`, then the exchange's separator, the order's hash, its type
    and the type's length (`polymarket.md` 1.3).
    """
    separator, contents, signature = domain_separator(route), order_hash(order), order.signature
    if order.signature_type != 3:
        return _recover(separator, contents, signature)
    tail = separator + contents + ORDER_TYPE + len(ORDER_TYPE).to_bytes(2, "big")
    if signature[65:] != tail:
        return None
    nested = _hashed(_NESTED_TYPE, contents, b"DepositWallet", b"1", CHAIN, order.signer, 0)
    return _recover(separator, nested, signature[:65])


def signed_for(order: SignedOrder, signer: str) -> list[str]:
    """The routes on which this very order would have been good: a refusal's note says so."""
    return [route for route in ROUTES if order_signer(order, route) == signer.lower()]


def check_l1(headers: Mapping[str, str], now_s: int, window_s: float) -> tuple[str, int]:
    """The address and nonce that a ClobAuth signature proves (`polymarket.md` 1.5)."""
    address, signature = headers.get("POLY_ADDRESS", ""), headers.get("POLY_SIGNATURE", "")
    timestamp, nonce = headers.get("POLY_TIMESTAMP", ""), headers.get("POLY_NONCE", "")
    shapes = (_ADDRESS, address), (_DIGITS, timestamp), (_DIGITS, nonce), (re.compile(r"0x[0-9a-fA-F]{130}"), signature)
    if not all(shape.fullmatch(text) for shape, text in shapes):
        raise Refused(401, BAD_L1, "a header is missing or no such thing")
    if abs(now_s - int(timestamp)) > window_s:
        raise Refused(401, BAD_L1, f"timestamp {timestamp}, now {now_s}")
    separator = _hashed(_AUTH_DOMAIN_TYPE, b"ClobAuthDomain", b"1", CHAIN)
    message = _hashed(_AUTH_TYPE, address, timestamp.encode(), int(nonce), _AUTH_WORDS)
    if _recover(separator, message, bytes.fromhex(signature[2:])) != address.lower():
        raise Refused(401, BAD_L1, "signed by another key")
    return address, int(nonce)


def credentials(address: str, nonce: int) -> tuple[str, str, str]:
    """API key, secret and passphrase: always the same for one (address, nonce)."""
    seed = hashlib.sha256(f"fake polymarket {address.lower()} {nonce}".encode()).digest()
    secret = base64.urlsafe_b64encode(hashlib.sha256(seed + b"secret").digest()).decode()
    return str(uuid.UUID(bytes=seed[:16], version=4)), secret, hashlib.sha256(seed + b"passphrase").hexdigest()


def check_l2(
    headers: Mapping[str, str],
    method: str,
    path: str,
    body: bytes,
    *,
    address: str,
    secret: str,
    passphrase: str,
    now_s: int,
    window_s: float,
) -> None:
    """The HMAC over the exact bytes sent, by the key's own secret, near enough in time; `path` without its query."""
    timestamp = headers.get("POLY_TIMESTAMP", "")
    if headers.get("POLY_ADDRESS", "").lower() != address.lower() or headers.get("POLY_PASSPHRASE") != passphrase:
        raise Refused(401, BAD_KEY, "address or passphrase of another")
    if not _DIGITS.fullmatch(timestamp) or abs(now_s - int(timestamp)) > window_s:
        raise Refused(401, BAD_KEY, f"timestamp {timestamp!r}, now {now_s}")
    message = f"{timestamp}{method}{path}".encode() + body
    expected = base64.urlsafe_b64encode(hmac.new(base64.urlsafe_b64decode(secret), message, hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(expected, headers.get("POLY_SIGNATURE", "")):
        raise Refused(401, BAD_KEY, "HMAC")


def _hashed(type_string: bytes, *fields: int | str | bytes) -> bytes:
    """A struct's hash; 32 bytes are a hash already, other bytes are a `string`, `0x` text is an address or a bytes32."""
    return keccak(keccak(type_string) + b"".join(map(_word, fields)))


def _word(field: int | str | bytes) -> bytes:
    if isinstance(field, int):
        return field.to_bytes(32, "big")
    if isinstance(field, str):
        return bytes.fromhex(field[2:]).rjust(32, b"\x00")
    return field if len(field) == 32 else keccak(field)


def _recover(separator: bytes, struct: bytes, signature: bytes) -> str | None:
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > _CURVE_HALF:
        return None  # the contracts take no other form
    try:
        return str(Account.recover_message(SignableMessage(b"\x01", separator, struct), signature=signature)).lower()
    except (BadSignature, ValueError):
        return None


def _of(body: Any, name: str, kind: type) -> Any:
    found = body.get(name) if isinstance(body, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool) or (isinstance(found, int) and not 0 <= found < 2**256):
        raise Refused(400, BAD_PAYLOAD, f"{name} is {found!r}")
    return found


def _text(order: dict[str, Any], name: str, shape: re.Pattern[str]) -> str:
    found = str(_of(order, name, str))
    if not shape.fullmatch(found) or (shape is _DIGITS and int(found) >= 2**256):
        raise Refused(400, BAD_PAYLOAD, f"{name} is {found!r}")
    return found
