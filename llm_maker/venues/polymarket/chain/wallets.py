"""Which wallet a key trades for, whether it exists, and the API key that only this program uses.

What is wrong with any of it comes back as a `Problem`: a text and its cure, neither of which holds a secret.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Outcome, Pace, Reply
from llm_maker.venues.polymarket.auth import CREDENTIALS_BROKEN, Credentials, Wallet, WalletKind
from llm_maker.venues.polymarket.chain.addresses import derived
from llm_maker.venues.polymarket.chain.rpc import Rpc
from llm_maker.venues.polymarket.orders.sign import Signer, checksum, l1_headers
from llm_maker.venues.polymarket.rest import Clob


class Problem(msgspec.Struct, frozen=True):
    """Why not, and what to do about it; one line each."""

    text: str
    cure: str


def detect(signer_address: str, browser_address: str, configured: str = "auto") -> Wallet | Problem:
    """The wallet that holds the funds, by the address that the site shows: the one derived from the key that equals it.

    The exchange derives a proxy and a Safe from the key itself, so an address that no derivation gives cannot trade with this key.
    `configured` is `polymarket.signature_type`: what a person expects; it is checked, never believed. Asks nobody.
    """
    try:
        maker = checksum(browser_address)
    except ValueError as error:
        return Problem(f"LLM_MAKER_BROWSER_ADDRESS is {error}", "copy the address from your profile on the site")
    found = derived(signer_address)
    kinds = [kind for kind, address in found if address == maker]
    if not kinds:
        listed = ", ".join(f"{kind.name.lower()} {address}" for kind, address in found)
        return Problem(
            f"the key does not belong to the wallet {maker}; it can stand for: {listed}",
            "export the key of the account that shows this address, or correct LLM_MAKER_BROWSER_ADDRESS",
        )
    if configured not in ("auto", kinds[0].name.lower()):
        return Problem(
            f"polymarket.signature_type is {configured}, but {maker} is this key's {kinds[0].name.lower()} wallet",
            "set polymarket.signature_type: auto",
        )
    return Wallet(kinds[0], maker, signer_address)


async def deployed(rpc: Rpc, address: str) -> bool | Problem:
    """Whether a wallet's contract exists; a deposit wallet without one is refused with misleading words (`polymarket.md` 4.6)."""
    answer = await rpc.ask("eth_getCode", address, "latest")
    if not answer.ok or not isinstance(answer.result, str):
        return Problem(f"the chain's node does not say whether the wallet exists: {answer.error}", "check polymarket.hosts.rpc")
    return answer.result not in ("", "0x")


async def credentials(
    clob: Clob, signer: Signer, nonce: int, given: tuple[str, str, str] | None, pace: Pace
) -> Credentials | Problem:
    """The API key: `given` (key, secret, passphrase) as it is, else made or derived under our own nonce: nothing else uses it."""
    if given is not None:
        return _made(signer.address, *given)
    headers = l1_headers(signer, pace.now() // NS_PER_S, nonce)
    made = await clob.http.request("POST", "/auth/api-key", headers=headers)
    told = _told(made)
    if told is not None:
        return _made(signer.address, told.apiKey, told.secret, told.passphrase)
    if made.outcome is Outcome.UNSENT:
        return Problem(f"no API key: the venue cannot be reached: {made.error}", "check the network and polymarket.hosts.clob")
    # It exists already, or the answer was lost: the same signature derives it.
    derived = await clob.http.request("GET", "/auth/derive-api-key", headers=headers)
    told = _told(derived)
    if told is not None:
        return _made(signer.address, told.apiKey, told.secret, told.passphrase)
    text = f"no API key: asked for one: {_word(made)}; asked for ours again: {_word(derived)}"
    if derived.status in (401, 403):
        return Problem(text, "set the clock (NTP), and check that LLM_MAKER_PK is the key of your account")
    return Problem(text, "try again later; if it stays, set another polymarket.api_key_nonce")


class _ApiKey(msgspec.Struct):
    apiKey: str
    secret: str
    passphrase: str


def _told(reply: Reply) -> _ApiKey | None:
    if not reply.ok:
        return None
    try:
        return msgspec.json.decode(reply.body, type=_ApiKey)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _word(reply: Reply) -> str:
    # Never the body of an answer that was OK: it may hold half of a secret.
    return "an answer without one" if reply.ok else reply.error


def _made(address: str, key: str, secret: str, passphrase: str) -> Credentials | Problem:
    try:
        return Credentials(address, key, secret, passphrase)
    except ValueError:
        return Problem(
            CREDENTIALS_BROKEN, "copy LLM_MAKER_API_SECRET again, or leave all three LLM_MAKER_API_* out to have them derived"
        )


def kind_name(kind: WalletKind) -> str:
    """For people."""
    return {
        WalletKind.EOA: "plain key",
        WalletKind.PROXY: "proxy wallet",
        WalletKind.SAFE: "Safe",
        WalletKind.DEPOSIT: "deposit wallet",
    }[kind]
