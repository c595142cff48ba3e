"""The venue's relayer, which pays the gas of proxy, Safe and deposit wallets: its key, its four questions, its words for a state.

It knows paths and shapes (`polymarket.md` 4.6; the SDK's relayer actions) and sends what it is given, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Http, Outcome, Pace, Reply
from llm_maker.venues.polymarket.auth import CREDENTIALS_BROKEN, Credentials, Wallet, WalletKind

RELAYER_SECRETS = ("LLM_MAKER_RELAYER_KEY", "LLM_MAKER_RELAYER_ADDRESS")
"""A relayer API key and the address that owns it."""
BUILDER_SECRETS = ("LLM_MAKER_BUILDER_KEY", "LLM_MAKER_BUILDER_SECRET", "LLM_MAKER_BUILDER_PASSPHRASE")
"""Or a builder API key, which signs each request."""
NO_KEY = (
    "merging, splitting and redeeming from this kind of wallet go through the relayer, which wants a key of its own: "
    f"make one at polymarket.com (Settings, API keys) and put {' and '.join(RELAYER_SECRETS)} into .env"
)
LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {("POST", "/submit"): (25 / 60, 5.0)}
"""25 a minute (`polymarket.md` 2.6)."""
TYPE_OF = {WalletKind.PROXY: "PROXY", WalletKind.SAFE: "SAFE", WalletKind.DEPOSIT: "WALLET"}
"""The relayer's word for a wallet's kind."""
_STATES: dict[str, Literal["done", "failed"]] = {
    "STATE_CONFIRMED": "done",
    "STATE_FAILED": "failed",
    "STATE_INVALID": "failed",
}
"""Every other state is on its way."""


class RelayerKey:
    """What proves us to the relayer; never shown."""

    __slots__ = ("_builder", "_fixed")

    def __init__(self, fixed: Mapping[str, str] | None = None, builder: Credentials | None = None) -> None:
        self._fixed, self._builder = fixed, builder

    def __repr__(self) -> str:
        return f"RelayerKey({'builder' if self._builder else 'relayer'})"

    def headers(self, seconds: int, method: str, path: str, body: bytes | None) -> dict[str, str]:
        """For one request; `path` without its query, `seconds` Unix time."""
        if self._builder is None:
            return dict(self._fixed or {})
        signed = self._builder.headers(seconds, method, path, body)
        return {name.replace("POLY_", "POLY_BUILDER_"): value for name, value in signed.items() if name != "POLY_ADDRESS"}


def relayer_key(get: Callable[[str], str | None]) -> RelayerKey | str | None:
    """The key that the secrets hold; None: there is none; a text: what is wrong with it."""
    relayer, builder = [get(name) for name in RELAYER_SECRETS], [get(name) for name in BUILDER_SECRETS]
    for names, values in ((RELAYER_SECRETS, relayer), (BUILDER_SECRETS, builder)):
        if any(values) and not all(values):
            return (
                f"{' and '.join(names)} go together; missing: {', '.join(n for n, v in zip(names, values, strict=True) if not v)}"
            )
    if all(relayer):
        return RelayerKey(fixed={"RELAYER_API_KEY": str(relayer[0]), "RELAYER_API_KEY_ADDRESS": str(relayer[1])})
    if not all(builder):
        return None
    try:
        return RelayerKey(builder=Credentials("", str(builder[0]), str(builder[1]), str(builder[2])))
    except ValueError:
        return f"{BUILDER_SECRETS[1]}: {CREDENTIALS_BROKEN}"


class Turn(msgspec.Struct, frozen=True):
    """What a wallet's next transaction is signed over. `relay` is the address that will send a proxy wallet's."""

    nonce: str
    relay: str = ""


class Told(msgspec.Struct, frozen=True):
    """What the relayer says of one transaction."""

    state: Literal["done", "failed", "unknown"]
    hash: str = ""
    error: str = ""


class Relayer:
    """One relayer, asked in the name of one wallet."""

    def __init__(self, base: str, pace: Pace, key: RelayerKey | None, timeout: float = 10.0) -> None:
        self.http = Http(base, pace, timeout=timeout, limits=LIMITS)
        self.pace, self.key = pace, key

    async def turn(self, wallet: Wallet) -> Turn | str:
        """The wallet's next nonce, or why there is none."""
        path = "/relay-payload" if wallet.kind is WalletKind.PROXY else "/v1/account/transactions/params"
        reply = await self._request("GET", path, query={"address": wallet.signer, "type": TYPE_OF[wallet.kind]})
        told = _object(reply)
        nonce, relay = told.get("nonce"), told.get("address", "")
        if not isinstance(nonce, str) or not nonce.isdecimal() or not isinstance(relay, str):
            return f"the relayer gives no nonce: {reply.error or reply.body[:100].decode(errors='replace')}"
        return Turn(nonce, relay)

    async def submit(self, body: bytes) -> Reply:
        """Send a signed transaction, once."""
        return await self._request("POST", "/submit", body=body)

    async def told(self, transaction: str) -> Told:
        """The state of a transaction whose id we know."""
        reply = await self._request("GET", f"/v1/account/transactions/{transaction}")
        return _told(_object(reply), reply.error)

    async def find(self, signed: str) -> Told | None:
        """The state of a transaction by our own signature; None: the relayer lists its latest ones and this is not among them."""
        reply = await self._request("GET", "/transactions")
        if not reply.ok:
            return Told("unknown", error=reply.error)
        try:
            rows = msgspec.json.decode(reply.body, type=list[dict[str, Any]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Told("unknown", error=f"not a list of transactions: {error}"[:200])
        for row in rows:
            if signed in str(row.get("signature", "")).lower():
                return _told(row, "")
        if not all(row.get("signature") for row in rows):
            return Told("unknown", error="the relayer lists transactions without their signatures")
        return None

    async def _request(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None) -> Reply:
        headers = self.key.headers(self.pace.now() // NS_PER_S, method, path, body) if self.key else {}
        return await self.http.request(method, path, query=query, body=body, headers=headers)

    async def close(self) -> None:
        await self.http.close()


def transaction_id(reply: Reply) -> str:
    """The id in the reply to a submit; empty where there is none."""
    found = _object(reply).get("transactionID", "")
    return found if isinstance(found, str) else ""


def _object(reply: Reply) -> dict[str, Any]:
    """The reply's JSON object; empty if it is none."""
    if reply.outcome is not Outcome.OK:
        return {}
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _told(row: Mapping[str, Any], error: str) -> Told:
    # One path spells in snake case and the other in camel case.
    state = str(row.get("state", ""))
    found = str(row.get("transaction_hash") or row.get("transactionHash") or "")
    reason = str(row.get("error_msg") or row.get("errorMsg") or error or state)
    return Told(_STATES.get(state, "unknown"), found, reason[:300])
