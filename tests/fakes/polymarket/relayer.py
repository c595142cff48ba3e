"""A fake relayer and a fake node of the chain: they check who signed, decode what was signed, and move shares and cash.

`routes(lookup)` mounts both under one application: the relayer's paths at the root, the node at `/rpc`. `lookup(request)` gives the
`ChainHouse` that answers; a test scripts its faults. Written from the calls' signatures with eth_abi, without the SDK.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import rlp
from aiohttp import web
from eth_abi import decode, encode
from eth_account import Account
from eth_utils import keccak, to_checksum_address

from tests.fakes.polymarket.envelopes import RELAY, recovered, unwrapped

PUSD = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
CTF = "0x4D97DCd97eC945f40cF65F87097ACe5EA0476045"
ADAPTERS = {"ctf": "0xAdA100Db00Ca00073811820692005400218FcE1f", "neg_risk": "0xadA2005600Dec949baf300f4C6120000bDB6eAab"}
EXCHANGES = {"ctf": "0xE111180000d2663C0091e4f400237545B87B996B", "neg_risk": "0xe2222d279d744050d28e00520010520000310F59"}
RELAYER_KEY = "relayer-throwaway-key"  # marked: worth nothing anywhere
TRANSFER = "0x" + keccak(b"Transfer(address,address,uint256)").hex()
SUBMITS = ("ok", "refuse", "busy", "unauthorized", "fail", "stuck", "lost", "drop", "garbage")
"""Fates of a submit: `lost` is done but its answer is not sent, `drop` is neither, `garbage` is done and answered badly."""
_ZERO = "00" * 32


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


MERGE = selector("mergePositions(address,bytes32,bytes32,uint256[],uint256)")
SPLIT = selector("splitPosition(address,bytes32,bytes32,uint256[],uint256)")
REDEEM = selector("redeemPositions(address,bytes32,bytes32,uint256[])")
BALANCES = selector("balanceOfBatch(address[],uint256[])")
RESOLVED = selector("payoutDenominator(bytes32)")
APPROVED = selector("isApprovedForAll(address,address)")


class Reverted(Exception):
    """The chain would not do it."""


@dataclass
class Work:
    """One call of an adapter, decoded."""

    what: str
    wallet: str
    condition: str
    qty: int = 0
    cash: int = 0
    adapter: str = ""


@dataclass
class Transaction:
    """One transaction on its way; final after `polls` more looks."""

    id: str
    hash: str
    signature: str
    final: str
    polls: int
    work: Work | None = None


@dataclass
class ChainHouse:
    """What the chain holds, whom the relayer knows, and what it is told to do wrong."""

    shares: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(wallet lower case, token id) -> 10^-6 share."""
    cash: Counter[str] = field(default_factory=Counter)
    conditions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Condition id, lower case -> its tokens YES and NO."""
    payouts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Condition id -> what a share of YES and of NO pays, 10^-6; only resolved ones."""
    deployed: set[str] = field(default_factory=set)
    unmade: bool = False
    """No wallet exists, whatever `deployed` holds."""
    approved: bool = True
    """Of the adapters: they may move the wallets' shares."""
    sellable: bool = True
    """The same of the exchanges."""
    nonces: Counter[str] = field(default_factory=Counter)
    builder: tuple[str, str, str] | None = None
    """Key, secret and passphrase of a builder, who may come instead of the relayer key."""
    submits: list[str] = field(default_factory=list)
    """Fate of each submit in turn, then `ok`."""
    rpc_faults: dict[str, str] = field(default_factory=dict)
    """Method -> the error it answers with."""
    polls: int = 1
    chain_id: int = 137
    pol: int = 10**18
    """Gas money of every address."""
    on_done: Callable[[Work], None] = lambda work: None
    """Told when a work is done on the chain."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def hold(self, wallet: str, condition: str, yes: int, no: int) -> None:
        """Put shares into a wallet."""
        for token, qty in zip(self.conditions[condition.lower()], (yes, no), strict=True):
            self.shares[wallet.lower(), token] = qty

    def do(self, wallet: str, to: str, data: bytes) -> Work:
        """Carry a call of an adapter out."""
        work = decoded(wallet, to, data)
        condition = work.condition
        if to not in ADAPTERS.values() or condition not in self.conditions:
            raise Reverted("no such contract or condition")
        keys = [(wallet.lower(), token) for token in self.conditions[condition]]
        if work.what == "redeem":
            if condition not in self.payouts:
                raise Reverted("result for condition not received yet")
            work.cash = sum(self.shares[key] * pays for key, pays in zip(keys, self.payouts[condition], strict=True)) // 1_000_000
            for key in keys:
                self.shares[key] = 0
        else:
            sign = -1 if work.what == "merge" else 1
            if sign < 0 and min(self.shares[key] for key in keys) < work.qty:
                raise Reverted("SafeMath: subtraction overflow")
            for key in keys:
                self.shares[key] += sign * work.qty
            work.cash = -sign * work.qty
        self.cash[wallet.lower()] += work.cash
        self.works.append(work)
        self.on_done(work)
        return work

    def begin(self, signature: str, final: str, work: Work | None) -> Transaction:
        number = len(self.transactions) + 1
        made = Transaction(f"tx-{number}", "0x" + keccak(signature.encode()).hex(), signature, final, self.polls, work)
        self.transactions[made.id] = made
        return made


def decoded(wallet: str, to: str, data: bytes) -> Work:
    """An adapter's calldata in words."""
    kind, raw = data[:4], data[4:]
    if kind == REDEEM:
        token, parent, condition, sets = decode(["address", "bytes32", "bytes32", "uint256[]"], raw)
        qty = 0
    elif kind in (MERGE, SPLIT):
        token, parent, condition, sets, qty = decode(["address", "bytes32", "bytes32", "uint256[]", "uint256"], raw)
    else:
        raise Reverted("no such function")
    if to_checksum_address(token) != PUSD or any(parent) or tuple(sets) != (1, 2):
        raise Reverted("not a whole set of pUSD")
    what = {MERGE: "merge", SPLIT: "split", REDEEM: "redeem"}[kind]
    return Work(what, wallet, "0x" + condition.hex(), qty, adapter=to)


Lookup = Callable[[web.Request], ChainHouse]


def routes(lookup: Lookup) -> list[web.RouteDef]:
    """The relayer's paths, and the node at `/rpc`."""

    def bound(handler: Callable[[web.Request, ChainHouse], Any]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            house = lookup(request)
            house.asked[request.path] += 1
            found: web.StreamResponse = await handler(request, house)
            return found

        return handle

    return [
        web.get("/relay-payload", bound(_nonce)),
        web.get("/v1/account/transactions/params", bound(_nonce)),
        web.get("/v1/account/transactions/{id}", bound(_state)),
        web.get("/transactions", bound(_listing)),
        web.get("/deployed", bound(_deployed)),
        web.post("/submit", bound(_submit)),
        web.post("/rpc", bound(_rpc)),
    ]


# The relayer.


def _known(request: web.Request, house: ChainHouse, body: str) -> bool:
    headers = request.headers
    if headers.get("RELAYER_API_KEY") == RELAYER_KEY:
        return True
    if house.builder is None or headers.get("POLY_BUILDER_API_KEY") != house.builder[0]:
        return False
    said = headers["POLY_BUILDER_TIMESTAMP"] + request.method + request.path + body
    right = hmac.new(base64.urlsafe_b64decode(house.builder[1]), said.encode(), hashlib.sha256).digest()
    return (
        headers["POLY_BUILDER_SIGNATURE"] == base64.urlsafe_b64encode(right).decode()
        and headers["POLY_BUILDER_PASSPHRASE"] == house.builder[2]
    )


async def _nonce(request: web.Request, house: ChainHouse) -> web.Response:
    address, kind = request.query["address"], request.query["type"]
    assert (kind == "PROXY") == (request.path == "/relay-payload"), f"{kind} asked of {request.path}"
    return web.json_response({"address": RELAY, "nonce": str(house.nonces[address.lower()])})


async def _deployed(request: web.Request, house: ChainHouse) -> web.Response:
    return web.json_response({"deployed": request.query["address"].lower() in house.deployed})


async def _state(request: web.Request, house: ChainHouse) -> web.Response:
    found = house.transactions.get(request.match_info["id"])
    if found is None:
        return web.json_response({"error": "transaction not found"}, status=404)
    found.polls -= 1
    state = found.final if found.polls < 0 else "STATE_MINED"
    error = "execution reverted" if state == "STATE_FAILED" else None
    return web.json_response({"transaction_id": found.id, "transaction_hash": found.hash, "state": state, "error_msg": error})


async def _listing(request: web.Request, house: ChainHouse) -> web.Response:
    if not _known(request, house, ""):
        return web.json_response({"error": "invalid authorization"}, status=401)
    rows = [
        {"transactionID": t.id, "transactionHash": t.hash, "signature": t.signature, "state": t.final}
        for t in house.transactions.values()
    ]
    return web.json_response(rows)


async def _submit(request: web.Request, house: ChainHouse) -> web.StreamResponse:
    text = await request.text()
    if not _known(request, house, text):
        return web.json_response({"error": "invalid authorization"}, status=401)
    body = json.loads(text)
    house.bodies.append(body)
    fate = house.submits.pop(0) if house.submits else "ok"
    assert fate in SUBMITS, fate
    if fate == "refuse":
        return web.json_response({"error": "quota exceeded: 0 units remaining"}, status=400)
    if fate == "busy":
        return web.json_response({"error": "wallet busy: active action"}, status=400)
    if fate == "unauthorized":
        return web.json_response({"error": "invalid authorization"}, status=401)
    if fate == "drop":
        return await _cut(request)
    wallet, to, data = unwrapped(body)
    if recovered(body) != to_checksum_address(body["from"]) or int(body["nonce"]) != house.nonces[body["from"].lower()]:
        return web.json_response({"error": "invalid signature"}, status=400)
    house.nonces[body["from"].lower()] += 1
    final, work = {"fail": "STATE_FAILED", "stuck": "STATE_MINED"}.get(fate, "STATE_CONFIRMED"), None
    if final == "STATE_CONFIRMED":
        try:
            work = house.do(wallet, to, data)
        except Reverted:
            final = "STATE_FAILED"
    made = house.begin(body["signature"], final, work)
    if fate == "lost":
        return await _cut(request)
    if fate == "garbage":
        return web.Response(text="<html>accepted</html>")
    return web.json_response({"transactionID": made.id, "transactionHash": "", "state": "STATE_NEW"})


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


# The node.


async def _rpc(request: web.Request, house: ChainHouse) -> web.StreamResponse:
    asked = await request.json()
    method, params = asked["method"], asked["params"]
    house.asked[method] += 1
    fault = house.rpc_faults.get(method)
    if fault == "drop":
        return await _cut(request)
    if fault is not None:
        return _answer(asked, error=fault)
    try:
        return _answer(asked, _asked(house, method, params))
    except Reverted as error:
        return _answer(asked, error=f"execution reverted: {error}")


def _answer(asked: dict[str, Any], result: Any = None, error: str = "") -> web.Response:
    told = {"error": {"code": -32000, "message": error}} if error else {"result": result}
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **told})


def _asked(house: ChainHouse, method: str, params: list[Any]) -> Any:
    match method:
        case "eth_chainId":
            return hex(house.chain_id)
        case "eth_getTransactionCount":
            return hex(house.nonces[params[0].lower()])
        case "eth_getBalance":
            return hex(house.pol)
        case "eth_gasPrice":
            return hex(30_000_000_000)
        case "eth_estimateGas":
            return hex(180_000)
        case "eth_getBlockByNumber":
            return {"timestamp": "0x0"}
        case "eth_getCode":
            return "0x6001" if params[0].lower() in house.deployed and not house.unmade else "0x"
        case "eth_call":
            return _view(house, params[0]["to"], bytes.fromhex(params[0]["data"][2:]))
        case "eth_sendRawTransaction":
            return _mined(house, params[0])
        case "eth_getTransactionReceipt":
            return _receipt(house, params[0])
    raise Reverted(f"no such method: {method}")


def _view(house: ChainHouse, to: str, data: bytes) -> str:
    if to != CTF:
        return "0x"
    kind, raw = data[:4], data[4:]
    if kind == BALANCES:
        owners, tokens = decode(["address[]", "uint256[]"], raw)
        found = [house.shares[owner, token] for owner, token in zip(owners, tokens, strict=True)]
        return "0x" + encode(["uint256[]"], [found]).hex()
    if kind == RESOLVED:
        return "0x" + encode(["uint256"], [int("0x" + raw.hex() in house.payouts)]).hex()
    assert kind == APPROVED
    operator = to_checksum_address(decode(["address", "address"], raw)[1])
    if operator in EXCHANGES.values():
        return "0x" + encode(["bool"], [house.sellable]).hex()
    assert operator in ADAPTERS.values(), operator
    return "0x" + encode(["bool"], [house.approved]).hex()


def _mined(house: ChainHouse, raw: str) -> str:
    sender = Account.recover_transaction(raw)
    nonce, _, _, to, value, data, *_ = rlp.decode(bytes.fromhex(raw[2:]))
    if int.from_bytes(nonce, "big") != house.nonces[sender.lower()] or value:
        raise Reverted("nonce too low")
    house.nonces[sender.lower()] += 1
    fate = house.submits.pop(0) if house.submits else "ok"
    work = None
    if fate == "ok":
        try:
            work = house.do(sender, to_checksum_address(to), data)
        except Reverted:
            fate = "fail"
    made = house.begin(raw, {"ok": "0x1", "fail": "0x0", "stuck": ""}[fate], work)
    made.hash = "0x" + keccak(bytes.fromhex(raw[2:])).hex()
    return made.hash


def _receipt(house: ChainHouse, wanted: str) -> dict[str, Any] | None:
    found = next((t for t in house.transactions.values() if t.hash == wanted), None)
    if found is None or not found.final or found.final == "STATE_MINED":
        return None
    if found.final.startswith("0x") and found.polls > 0:
        found.polls -= 1
        return None
    logs = []
    if found.work is not None and found.work.cash:
        ours, other = "0x" + found.work.wallet[2:].lower().rjust(64, "0"), "0x" + _ZERO
        topics = [TRANSFER, other, ours] if found.work.cash > 0 else [TRANSFER, ours, other]
        amount = "0x" + abs(found.work.cash).to_bytes(32, "big").hex()
        logs = [
            {"address": CTF.lower(), "topics": [TRANSFER, other, ours], "data": "0x" + "ff" * 32},
            {"address": PUSD.lower(), "topics": topics, "data": amount},
        ]
    status = found.final if found.final.startswith("0x") else "0x0" if found.final == "STATE_FAILED" else "0x1"
    return {"transactionHash": wanted, "status": status, "logs": logs}
