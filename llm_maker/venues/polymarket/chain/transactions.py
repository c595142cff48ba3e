"""What is signed for the chain: calls of the venue's contracts, and their envelope for each kind of wallet.

The one place that knows `polymarket-client`: its addresses, encodings and signatures. Slow to import and to run, so its functions
are called in a thread; pure otherwise, no host and no clock.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import msgspec

from llm_maker.core.values import Instrument
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain.relayer import Turn
from llm_maker.venues.polymarket.chain.rpc import CHAIN_ID

ROUTES = ("ctf", "neg_risk")
"""`Instrument.route` of markets whose sets can be handled here; Protocol V2 is refused by name (`polymarket.md` 1.4)."""
PROXY_GAS = 200_000
"""Gas of a proxy wallet's transaction that the node cannot estimate, as in the SDK."""
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""The first topic of an ERC-20 transfer in a receipt: Transfer(address,address,uint256)."""


class CannotSign(Exception):
    """The key, or what is to be signed, is not usable; one line that holds no secret."""


class Call(msgspec.Struct, frozen=True):
    """One call of a contract: its address and the encoded call, `0x`."""

    to: str
    data: str


class Signed(msgspec.Struct, frozen=True):
    """A transaction as it is sent: a body for the relayer, or a raw transaction for the node; and what it is found by again."""

    body: bytes
    mark: str
    """The hash of a raw transaction, else the first half of the signature; `0x` and 64 hex digits."""


@lru_cache(maxsize=1)
def _sdk() -> Any:
    # Its addresses are branded strings and its builders private: pinned by version and by tests, not by types.
    from polymarket._internal import wallet
    from polymarket._internal.actions.relayer import calls, gasless
    from polymarket._internal.actions.relayer.signing import deposit_wallet, proxy, safe
    from polymarket._internal.environment import get_environment_config
    from polymarket.environments import PRODUCTION

    config = get_environment_config(PRODUCTION)
    return SimpleNamespace(
        calls=calls, gasless=gasless, deposit=deposit_wallet, proxy=proxy, safe=safe, wallet=wallet, config=config
    )


def _adapter(instrument: Instrument) -> str:
    config = _sdk().config
    return str(config.neg_risk_collateral_adapter if instrument.route == "neg_risk" else config.collateral_adapter)


def collateral() -> str:
    """pUSD's address."""
    return str(_sdk().config.collateral_token)


def merge_call(instrument: Instrument, qty: int) -> Call:
    made = _sdk().calls.ctf_merge_positions_call(
        target=_adapter(instrument), collateral=collateral(), condition_id=instrument.id, amount=qty
    )
    return Call(made.to, made.data)


def split_call(instrument: Instrument, qty: int) -> Call:
    made = _sdk().calls.ctf_split_position_call(
        target=_adapter(instrument), collateral=collateral(), condition_id=instrument.id, amount=qty
    )
    return Call(made.to, made.data)


def redeem_call(instrument: Instrument) -> Call:
    """Burns the whole balance of both tokens (`polymarket.md` 4.6)."""
    made = _sdk().calls.ctf_redeem_positions_call(ctf=_adapter(instrument), collateral=collateral(), condition_id=instrument.id)
    return Call(made.to, made.data)


def balances_call(instrument: Instrument, owner: str) -> Call:
    """Asks for the balances of YES and NO; the answer is offset, length, YES, NO."""
    made = _sdk().calls.erc1155_balance_of_batch_call(
        token_address=_sdk().config.conditional_tokens, owners=[owner, owner], token_ids=list(instrument.token_ids)
    )
    return Call(made.to, made.data)


def resolved_call(instrument: Instrument) -> Call:
    """Asks for the denominator of the condition's payout: 0 until it is resolved."""
    from eth_abi.abi import encode
    from eth_utils.crypto import keccak

    data = keccak(b"payoutDenominator(bytes32)")[:4] + encode(["bytes32"], [bytes.fromhex(instrument.id.removeprefix("0x"))])
    return Call(_sdk().config.conditional_tokens, "0x" + data.hex())


def approval_calls(owner: str) -> tuple[tuple[str, Call], ...]:
    """Asks, of each contract that a merge goes through, whether it may move the wallet's shares."""
    config, made = _sdk().config, []
    for name, adapter in (("the adapter", config.collateral_adapter), ("the neg-risk adapter", config.neg_risk_collateral_adapter)):
        call = _sdk().calls.erc1155_is_approved_for_all_call(token_address=config.conditional_tokens, owner=owner, operator=adapter)
        made.append((name, Call(call.to, call.data)))
    return tuple(made)


def selling_calls(owner: str) -> tuple[tuple[str, Call], ...]:
    """Asks, of each exchange, whether it may take the wallet's shares when they are sold."""
    config, made = _sdk().config, []
    for name, exchange in (("the exchange", config.standard_exchange), ("the neg-risk exchange", config.neg_risk_exchange)):
        call = _sdk().calls.erc1155_is_approved_for_all_call(
            token_address=config.conditional_tokens, owner=owner, operator=exchange
        )
        made.append((name, Call(call.to, call.data)))
    return tuple(made)


def proxy_call(call: Call) -> Call:
    """The call as the factory of proxy wallets takes it."""
    data = _sdk().calls.encode_proxy_call([_sdk().calls.TransactionCall(to=call.to, data=call.data)])
    return Call(_sdk().config.wallet_derivation.proxy_factory, data)


def signed_envelope(key: str, wallet: Wallet, call: Call, turn: Turn, *, gas: int, deadline: int, note: str) -> Signed:
    """The body of POST /submit. `gas` is a proxy wallet's alone, `deadline` (Unix seconds) a deposit wallet's."""
    from polymarket.errors import PolymarketError

    seal = {WalletKind.PROXY: _proxy, WalletKind.SAFE: _safe, WalletKind.DEPOSIT: _deposit}[wallet.kind]
    account = _account(key)
    if account.address != wallet.signer:
        raise CannotSign("the private key is not that of the wallet's signer")
    try:
        payload = seal(account, wallet, call, turn, gas, deadline)
    except (PolymarketError, ValueError, TypeError) as error:
        raise CannotSign(f"{type(error).__name__} while the transaction was made") from None  # the library's frames hold the key
    return Signed(msgspec.json.encode(payload | {"metadata": note}), str(payload["signature"])[:66].lower())


def _proxy(account: Any, wallet: Wallet, call: Call, turn: Turn, gas: int, deadline: int) -> dict[str, Any]:
    sdk, wrapped = _sdk(), proxy_call(call)
    digest = sdk.proxy.build_proxy_transaction_hash(
        from_address=account.address,
        to=wrapped.to,
        data=wrapped.data,
        relayer_fee="0",
        gas_price="0",
        gas_limit=str(gas),
        nonce=turn.nonce,
        relay_hub=sdk.config.relay_hub,
        relay=turn.relay,
    )
    made: dict[str, Any] = sdk.gasless.build_proxy_payload(
        signer_address=account.address,
        proxy_factory=wrapped.to,
        wallet=wallet.maker,
        data=wrapped.data,
        nonce=turn.nonce,
        signature=sdk.proxy.sign_proxy_message(account, digest),
        gas_limit=str(gas),
        relay=turn.relay,
        relay_hub=sdk.config.relay_hub,
        metadata="",
    )
    return made


def _safe(account: Any, wallet: Wallet, call: Call, turn: Turn, gas: int, deadline: int) -> dict[str, Any]:
    sdk = _sdk()
    fields = {"to": call.to, "data": call.data, "value": 0, "operation": 0, "nonce": turn.nonce}
    signature = sdk.safe.sign_safe_transaction(account, safe_address=wallet.maker, chain_id=CHAIN_ID, **fields)
    made: dict[str, Any] = sdk.gasless.build_safe_payload(
        signer_address=account.address,
        wallet=wallet.maker,
        target=call.to,
        data=call.data,
        value=0,
        operation=0,
        nonce=turn.nonce,
        signature=signature,
        metadata="",
    )
    return made


def _deposit(account: Any, wallet: Wallet, call: Call, turn: Turn, gas: int, deadline: int) -> dict[str, Any]:
    sdk = _sdk()
    calls = [sdk.calls.TransactionCall(to=call.to, data=call.data)]
    fields = {"wallet": wallet.maker, "calls": calls, "nonce": turn.nonce, "deadline": str(deadline)}
    made: dict[str, Any] = sdk.gasless.build_deposit_wallet_payload(
        signer_address=account.address,
        deposit_wallet_factory=sdk.config.wallet_derivation.deposit_wallet_factory,
        signature=sdk.deposit.sign_deposit_wallet_batch(account, chain_id=CHAIN_ID, **fields),
        metadata="",
        **fields,
    )
    return made


def signed_raw(key: str, call: Call, *, nonce: int, gas: int, gas_price: int) -> Signed:
    """A plain key's own transaction; `body` is hexadecimal with `0x`."""
    account = _account(key)
    fields = {"to": call.to, "value": 0, "data": call.data, "gas": gas, "gasPrice": gas_price, "nonce": nonce, "chainId": CHAIN_ID}
    try:
        made = account.sign_transaction(fields)
    except (ValueError, TypeError) as error:
        raise CannotSign(f"{type(error).__name__} while the transaction was made") from None  # the library's frames hold the key
    return Signed(b"0x" + made.raw_transaction.hex().encode(), "0x" + made.hash.hex())


def _account(key: str) -> Any:
    from eth_account import Account

    try:
        return Account.from_key(key)
    except (ValueError, TypeError):
        # The library's words may quote what it was given.
        raise CannotSign("the private key is not one") from None
