"""The chain's own node over JSON-RPC, behind typed answers: a few questions, and a signed transaction on its way.

It knows the envelope and hexadecimal. What a call means is known where it is asked for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.venues.net import Http, Outcome, Pace

CHAIN_ID = 137
"""Polygon."""


class Answer(msgspec.Struct, frozen=True):
    """`result` as the node gave it, if the outcome is OK. REFUSED: the node answered with an error."""

    outcome: Outcome
    result: Any = None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


class _Error(msgspec.Struct):
    code: int = 0
    message: str = "no reason"


class _Envelope(msgspec.Struct):
    result: Any = None
    error: _Error | None = None


class Rpc:
    """One node."""

    def __init__(self, base: str, pace: Pace, timeout: float = 10.0) -> None:
        self.http = Http(base, pace, timeout=timeout)
        self._count = 0

    async def ask(self, method: str, *params: Any) -> Answer:
        """One question; never raises for what the world may do."""
        self._count += 1
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": self._count, "method": method, "params": params})
        reply = await self.http.request("POST", "", body=body)
        if not reply.ok:
            return Answer(reply.outcome, error=f"{method}: {reply.error}")
        try:
            told = msgspec.json.decode(reply.body, type=_Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Answer(Outcome.UNKNOWN, error=f"{method}: not an answer: {error}"[:300])
        if told.error is not None:
            return Answer(Outcome.REFUSED, error=f"{method}: {told.error.message}"[:300])
        return Answer(Outcome.OK, told.result)

    async def number(self, method: str, *params: Any) -> Answer:
        """A question whose answer is one hexadecimal number; `result` is an int."""
        answer = await self.ask(method, *params)
        if not answer.ok:
            return answer
        try:
            return Answer(Outcome.OK, int(answer.result, 16))
        except (TypeError, ValueError):
            return Answer(Outcome.UNKNOWN, error=f"{method}: not a number: {str(answer.result)[:60]}")

    async def words(self, to: str, data: str) -> Answer:
        """A contract's view; `result` is its answer as a list of 32-byte numbers."""
        answer = await self.ask("eth_call", {"to": to, "data": data}, "latest")
        if not answer.ok:
            return answer
        try:
            raw = bytes.fromhex(answer.result.removeprefix("0x"))
        except (AttributeError, TypeError, ValueError):
            raw = b""
        if not raw or len(raw) % 32:
            return Answer(Outcome.UNKNOWN, error="eth_call: nothing came back: no such contract on this chain")
        return Answer(Outcome.OK, [int.from_bytes(raw[at : at + 32], "big") for at in range(0, len(raw), 32)])

    async def close(self) -> None:
        await self.http.close()
