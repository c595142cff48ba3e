"""The relayer's envelopes, read without the SDK: what is in one of each kind of wallet, and who signed it."""

from __future__ import annotations

from typing import Any

from eth_abi import decode
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_utils import keccak, to_checksum_address

PROXY_FACTORY = "0xaB45c5A4B0c941a2F231C04C3f49182e1A254052"
DEPOSIT_FACTORY = "0x00000000000Fb5C9ADea0298D729A0CB3823Cc07"
RELAY_HUB = "0xD216153c06E857cD7f72665E0aF1d7D82172F494"
RELAY = "0x" + "4e" * 20
PROXY = keccak(b"proxy((uint8,address,uint256,bytes)[])")[:4]


def unwrapped(body: dict[str, Any]) -> tuple[str, str, bytes]:
    """(wallet, contract, calldata) of an envelope with one call."""
    if body["type"] == "WALLET":
        params = body["depositWalletParams"]
        (call,) = params["calls"]
        assert body["to"] == DEPOSIT_FACTORY and call["value"] == "0"
        return params["depositWallet"], call["target"], bytes.fromhex(call["data"][2:])
    data = bytes.fromhex(body["data"][2:])
    if body["type"] == "SAFE":
        assert body["signatureParams"]["operation"] == "0" and "value" not in body
        return body["proxyWallet"], body["to"], data
    assert body["type"] == "PROXY" and body["to"] == PROXY_FACTORY and data[:4] == PROXY
    ((kind, to, value, inner),) = decode(["(uint8,address,uint256,bytes)[]"], data[4:])[0]
    assert (kind, value) == (1, 0)
    return body["proxyWallet"], to_checksum_address(to), inner


def recovered(body: dict[str, Any]) -> str:
    """Who signed an envelope."""
    signature = body["signature"]
    if body["type"] == "PROXY":
        said, params = b"rlx:", body["signatureParams"]
        said += bytes.fromhex(body["from"][2:]) + bytes.fromhex(body["to"][2:]) + bytes.fromhex(body["data"][2:])
        for number in (params["relayerFee"], params["gasPrice"], params["gasLimit"], body["nonce"]):
            said += int(number).to_bytes(32, "big")
        said += bytes.fromhex(params["relayHub"][2:]) + bytes.fromhex(params["relay"][2:])
        assert (params["relayHub"], params["relay"]) == (RELAY_HUB, RELAY)
        return str(Account.recover_message(encode_defunct(keccak(said)), signature=signature))
    if body["type"] == "SAFE":
        typed = _typed_safe(body)
        signable = encode_typed_data(full_message=typed)
        digest = keccak(b"\x19" + signable.version + signable.header + signable.body)
        last = int(signature[-2:], 16)
        assert last in (31, 32), "a Safe takes an eth_sign signature"
        return str(Account.recover_message(encode_defunct(digest), signature=signature[:-2] + f"{last - 4:02x}"))
    return str(Account.recover_message(encode_typed_data(full_message=_typed_batch(body)), signature=signature))


def _typed_safe(body: dict[str, Any]) -> dict[str, Any]:
    zero = "0x" + "00" * 20
    fields = "address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice"
    return {
        "domain": {"chainId": 137, "verifyingContract": body["proxyWallet"]},
        "primaryType": "SafeTx",
        "types": {
            "EIP712Domain": _fields("uint256 chainId,address verifyingContract"),
            "SafeTx": _fields(fields + ",address gasToken,address refundReceiver,uint256 nonce"),
        },
        "message": {
            "to": body["to"], "value": 0, "data": bytes.fromhex(body["data"][2:]), "operation": 0, "safeTxGas": 0, "baseGas": 0,
            "gasPrice": 0, "gasToken": zero, "refundReceiver": zero, "nonce": int(body["nonce"]),
        },
    }  # fmt: skip


def _typed_batch(body: dict[str, Any]) -> dict[str, Any]:
    params = body["depositWalletParams"]
    calls = [{"target": c["target"], "value": int(c["value"]), "data": bytes.fromhex(c["data"][2:])} for c in params["calls"]]
    return {
        "domain": {"name": "DepositWallet", "version": "1", "chainId": 137, "verifyingContract": params["depositWallet"]},
        "primaryType": "Batch",
        "types": {
            "EIP712Domain": _fields("string name,string version,uint256 chainId,address verifyingContract"),
            "Batch": _fields("address wallet,uint256 nonce,uint256 deadline,Call[] calls"),
            "Call": _fields("address target,uint256 value,bytes data"),
        },
        "message": {
            "wallet": params["depositWallet"],
            "nonce": int(body["nonce"]),
            "deadline": int(params["deadline"]),
            "calls": calls,
        },
    }


def _fields(text: str) -> list[dict[str, str]]:
    pairs = [part.split() for part in text.split(",")]
    return [{"type": kind, "name": name} for kind, name in pairs]
