"""Sets merged and made, shares redeemed: one signed transaction each, sent once, watched to its end, told as a typed result.

A plain key pays its own gas through the node; every other wallet goes through the relayer (`polymarket.md` 4.6). What is signed is
made by the SDK in a thread; what is sent goes through `venues.net`, which tells a request that never left from one that may have
arrived: so `failed` means that nothing happened, and whatever may have happened is `unknown` until it is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.venues.net import Outcome, Pace
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain import transactions
from llm_maker.venues.polymarket.chain.relayer import NO_KEY, Relayer, RelayerKey, Told, Turn, transaction_id
from llm_maker.venues.polymarket.chain.rpc import CHAIN_ID, Answer, Rpc
from llm_maker.venues.polymarket.chain.transactions import Call, CannotSign, Signed

POLL_S = 2.0
"""Venue seconds between two looks at a transaction."""
VALID_S = 300
"""How long a deposit wallet's signature can be used: less than the core waits for an answer. A submit that the relayer does not
know after this long was lost on the way."""
DUST = 10_000
"""0.01 share: what a balance may miss our own count by (`polymarket.md` 6)."""
_RECEIPT_TRIES = 5
_LOST = "lost:"
"""Begins the handle of a submit whose answer never came; then until when it may appear (Unix seconds), its nonce and its mark."""
_REFUSALS = ("insufficient funds", "nonce too low", "underpriced", "intrinsic gas", "gas limit", "invalid sender", "exceeds")
"""A node's words for a raw transaction that it has not taken. Whatever else it says, the transaction may be on its way."""


class WorkResult(msgspec.Struct, frozen=True):
    """`failed`: nothing happened and nothing will. `unknown`: `check(tx)` may tell later; without a `tx` only the account can."""

    outcome: Literal["done", "failed", "unknown"]
    reason: str = ""
    cash: int | None = None
    """Cash units received (negative: paid), where known."""
    tx: str = ""
    """The transaction's hash once done; else a handle for `check`."""


class ChainHosts(msgspec.Struct, frozen=True):
    """Base addresses: the venue's relayer, and a node of the chain."""

    relayer: str
    rpc: str


class Chain:
    """One wallet's work on the chain, one transaction at a time."""

    def __init__(
        self,
        key: Callable[[], str],
        wallet: Wallet,
        hosts: ChainHosts,
        pace: Pace,
        *,
        relayer_key: RelayerKey | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        """`key` hands out the private key at the moment of signing; `timeout_s` (venue seconds): until a result is `unknown`."""
        self._key, self._wallet, self._pace, self._timeout_s = key, wallet, pace, timeout_s
        self._rpc = Rpc(hosts.rpc, pace)
        self._relayer = Relayer(hosts.relayer, pace, relayer_key)
        self._busy = asyncio.Lock()

    async def merge(self, instrument: Instrument, qty: int) -> WorkResult:
        """`qty` (10^-6 share) of each outcome -> as much pUSD."""
        assert qty > 0
        if refused := _unfit(instrument):
            return _failed(refused)
        held = await self._held(instrument)
        if isinstance(held, str):
            return _failed(held)
        if min(held) < qty:
            return _failed(f"the wallet holds {held[0]} YES and {held[1]} NO (10^-6 share), fewer than {qty} sets")
        call = await asyncio.to_thread(transactions.merge_call, instrument, qty)
        return await self._do(call, f"merge {qty} of {instrument.id}", qty)

    async def split(self, instrument: Instrument, qty: int) -> WorkResult:
        """`qty` (10^-6) pUSD -> as many shares of each outcome."""
        assert qty > 0
        if refused := _unfit(instrument):
            return _failed(refused)
        call = await asyncio.to_thread(transactions.split_call, instrument, qty)
        return await self._do(call, f"split {qty} of {instrument.id}", -qty)

    async def redeem(self, instrument: Instrument, yes_qty: int, no_qty: int) -> WorkResult:
        """All shares of a resolved market -> what they pay. It burns the whole balance, so that must be what we count."""
        if refused := _unfit(instrument):
            return _failed(refused)
        asked = await asyncio.to_thread(transactions.resolved_call, instrument)
        resolved = await self._rpc.words(asked.to, asked.data)
        if not resolved.ok:
            return _failed(resolved.error)
        if not any(resolved.result):
            return _failed("the market is not resolved on the chain yet")
        held = await self._held(instrument)
        if isinstance(held, str):
            return _failed(held)
        if not any(held):
            return _failed("the wallet holds no share of it: the venue may have paid by itself")
        if abs(held[0] - yes_qty) > DUST or abs(held[1] - no_qty) > DUST:
            told = f"the wallet holds {held[0]} YES and {held[1]} NO (10^-6 share), we count {yes_qty} and {no_qty}"
            return _failed(f"{told}; redeeming takes all of them")
        call = await asyncio.to_thread(transactions.redeem_call, instrument)
        return await self._do(call, f"redeem {instrument.id}", None)

    async def check(self, tx: str) -> WorkResult:
        """One more look at a result that was `unknown`, by its `tx`."""
        if not tx:
            return WorkResult("unknown", "nothing to look it up by")
        return await self._ended(await self._look(tx), tx, None)

    async def close(self) -> None:
        await self._rpc.close()
        await self._relayer.close()

    async def _do(self, call: Call, note: str, cash: int | None) -> WorkResult:
        """Send once, then look until it has ended or time is up. `cash`: what it moves if it is done, where that is certain."""
        try:
            async with asyncio.timeout(self._pace.wall(self._timeout_s)):
                await self._busy.acquire()
        except TimeoutError:
            return _failed("another transaction of this wallet is still under way")
        try:
            until = self._pace.now() + int(self._timeout_s * NS_PER_S)
            sent = await (self._broadcast(call) if self._wallet.kind is WalletKind.EOA else self._relay(call, note))
            while sent.outcome == "unknown" and self._pace.now() < until:
                await self._pace.sleep(POLL_S)
                sent = await self._ended(await self._look(sent.tx), sent.tx, cash)
            return sent
        finally:
            self._busy.release()

    async def _ended(self, told: Told, tx: str, cash: int | None) -> WorkResult:
        if told.state == "done":
            return WorkResult("done", cash=cash if cash is not None else await self._paid(told.hash), tx=told.hash or tx)
        return WorkResult(told.state, told.error, tx=(told.hash or tx) if told.state == "failed" else tx)

    async def _relay(self, call: Call, note: str) -> WorkResult:
        """Sign over the wallet's next nonce and hand it to the relayer."""
        relayer, wallet = self._relayer, self._wallet
        if relayer.key is None:
            return _failed(NO_KEY)
        turn = await relayer.turn(wallet)
        if isinstance(turn, str):
            return _failed(turn)
        gas = await self._proxy_gas(call) if wallet.kind is WalletKind.PROXY else 0
        deadline = self._pace.now() // NS_PER_S + VALID_S

        def sign() -> Signed:
            return transactions.signed_envelope(self._key(), wallet, call, turn, gas=gas, deadline=deadline, note=note)

        try:
            signed = await asyncio.to_thread(sign)
        except CannotSign as error:
            return _failed(str(error))
        reply = await relayer.submit(signed.body)
        if reply.outcome in (Outcome.REFUSED, Outcome.UNSENT):
            return _failed(f"the relayer {'refused' if reply.outcome is Outcome.REFUSED else 'is unreachable'}: {reply.error}")
        if found := transaction_id(reply):
            return WorkResult("unknown", "sent, not confirmed yet", tx=found)
        return WorkResult("unknown", f"sent, but no answer came: {reply.error}", tx=f"{_LOST}{deadline}:{turn.nonce}:{signed.mark}")

    async def _proxy_gas(self, call: Call) -> int:
        # The node may refuse to estimate what the relayer can well do; the SDK then takes a fixed sum too.
        wrapped = await asyncio.to_thread(transactions.proxy_call, call)
        estimate = {"from": self._wallet.signer, "to": wrapped.to, "data": wrapped.data}
        answer = await self._rpc.number("eth_estimateGas", estimate)
        return int(answer.result) if answer.ok else transactions.PROXY_GAS

    async def _broadcast(self, call: Call) -> WorkResult:
        """Sign over the key's next nonce and hand it to the node; its hash is known before it leaves."""
        rpc, signer = self._rpc, self._wallet.signer
        chain = await rpc.number("eth_chainId")
        if chain.ok and chain.result != CHAIN_ID:
            return _failed(f"the node is of chain {chain.result}, not of Polygon ({CHAIN_ID}): set polymarket.hosts.rpc")
        nonce = await rpc.number("eth_getTransactionCount", signer, "pending")
        price = await rpc.number("eth_gasPrice")
        gas = await rpc.number("eth_estimateGas", {"from": signer, "to": call.to, "value": "0x0", "data": call.data})
        for answer in (chain, nonce, price, gas):
            if not answer.ok:
                return _failed(answer.error)

        def sign() -> Signed:
            # A quarter more of both, for both may rise until it is mined; what is not used is not paid.
            more = {"gas": gas.result * 5 // 4, "gas_price": price.result * 5 // 4}
            return transactions.signed_raw(self._key(), call, nonce=nonce.result, **more)

        try:
            signed = await asyncio.to_thread(sign)
        except CannotSign as error:
            return _failed(str(error))
        answer = await rpc.ask("eth_sendRawTransaction", signed.body.decode())
        if answer.outcome is Outcome.UNSENT or _refused(answer):
            cure = f"; send POL to {signer}" if "insufficient funds" in answer.error.lower() else ""
            return _failed(answer.error + cure)
        return WorkResult("unknown", answer.error or "sent, not mined yet", tx=signed.mark)

    async def _look(self, tx: str) -> Told:
        """What is known of a transaction by its hash, the relayer's id, or the signature of one whose answer was lost."""
        if tx.startswith("0x"):
            receipt = await self._receipt(tx)
            status = receipt.get("status") if isinstance(receipt, dict) else None
            if status in ("0x1", "0x0"):
                return Told("done", tx) if status == "0x1" else Told("failed", tx, "the transaction was mined and reverted")
            return Told("unknown", error=receipt if isinstance(receipt, str) else "the receipt has no status")
        if not tx.startswith(_LOST):
            return await self._relayer.told(tx)
        until, nonce, mark = tx.removeprefix(_LOST).split(":")
        found = await self._relayer.find(mark)
        if found is not None:
            return found
        if self._pace.now() // NS_PER_S <= int(until):
            return Told("unknown", error="the relayer does not know it yet")
        turn = await self._relayer.turn(self._wallet)
        if isinstance(turn, Turn) and turn.nonce == nonce:
            return Told("failed", error="the relayer never received it")
        return Told("unknown", error="the relayer does not know it, but its nonce is used: the account will tell")

    async def _receipt(self, tx: str) -> dict[str, Any] | str:
        answer = await self._rpc.ask("eth_getTransactionReceipt", tx)
        if not answer.ok:
            return answer.error
        return answer.result if isinstance(answer.result, dict) else "not mined yet"

    async def _paid(self, tx: str) -> int | None:
        """What a mined transaction moved into the wallet (negative: out of it), pUSD units; None: no receipt to read it from."""
        token = await asyncio.to_thread(transactions.collateral)
        for attempt in range(_RECEIPT_TRIES if tx else 0):
            if attempt:
                await self._pace.sleep(POLL_S)
            receipt = await self._receipt(tx)
            if isinstance(receipt, dict):
                return _moved(receipt, token, self._wallet.maker)
        return None

    async def _held(self, instrument: Instrument) -> tuple[int, int] | str:
        """The wallet's shares of YES and NO on the chain, 10^-6, or why they are not known."""
        call = await asyncio.to_thread(transactions.balances_call, instrument, self._wallet.maker)
        answer = await self._rpc.words(call.to, call.data)
        if not answer.ok:
            return f"the wallet's shares are not known: {answer.error}"
        if len(answer.result) != 4:
            return "the wallet's shares are not known: the node's answer is not two balances"
        return answer.result[2], answer.result[3]


def _failed(reason: str) -> WorkResult:
    return WorkResult("failed", reason)


def _unfit(instrument: Instrument) -> str:
    """Why sets of this market cannot be handled; empty if they can."""
    if instrument.route in transactions.ROUTES:
        return ""
    return f"sets of a market of route {instrument.route or 'unknown'!r} are not handled; known: {', '.join(transactions.ROUTES)}"


def _refused(answer: Answer) -> bool:
    return answer.outcome is Outcome.REFUSED and any(words in answer.error.lower() for words in _REFUSALS)


def _moved(receipt: dict[str, Any], token: str, wallet: str) -> int | None:
    """The token's transfers to the wallet less those from it; None if the receipt cannot be read."""
    ours = wallet.lower().removeprefix("0x").rjust(64, "0")
    total = 0
    try:
        for log in receipt["logs"]:
            topics = [str(topic).lower().removeprefix("0x") for topic in log["topics"]]
            if log["address"].lower() != token.lower() or topics[0] != transactions.TRANSFER.removeprefix("0x"):
                continue
            amount = int(log["data"], 16)
            total += amount * ((topics[2] == ours) - (topics[1] == ours))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return total
