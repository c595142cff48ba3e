"""Cassettes: every exchange with a model kept under the hash of its prompt, and a model that plays them again.

A cassette is JSON lines: a header, then one line an exchange with the model's name, the day it was recorded, how long it took,
what was asked and what came back (an answer or a failure). No key is in it: what it keeps has left a client that cleans it. A
played exchange answers as it did, as late as it did, and costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from llm_maker.llm.budget import Usage
from llm_maker.llm.providers import Completion, Found, Kind, Model, ProviderError

HEADER = b'{"cassette":1}'
NS_PER_S = 1_000_000_000


class CassetteError(Exception):
    """The file cannot be used; one line with its place."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One call as it went. `error` is empty where an answer came."""

    key: str
    provider: str
    model: str
    """As it was asked for."""
    at: str
    """When, ISO 8601 UTC."""
    latency_s: float
    user: str
    """What was asked; the system prompt and the schema are in the hash alone."""
    told: str = ""
    """The model's name as its server says it."""
    text: str = ""
    finish: Literal["stop", "length", "refusal"] = "stop"
    usage: Usage = Usage()
    cost_usd: str = ""
    """What it cost then, as a decimal; empty: nobody knew."""
    error: Kind | Literal[""] = ""
    detail: str = ""
    retry_after_s: float | None = None


def key_of(system: str, user: str, schema: dict[str, Any]) -> str:
    """The hash under which an exchange is found again: over every word that was sent."""
    content = json.dumps([system, user, schema], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


class Cassette:
    """The exchanges of one file; several of one prompt are played in the order they were recorded, the last one again."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self._by_key: dict[tuple[str, str, str], list[Exchange]] = {}
        for exchange in exchanges:
            self._by_key.setdefault((exchange.provider, exchange.model, exchange.key), []).append(exchange)
        self._played: dict[tuple[str, str, str], int] = {}

    @classmethod
    def read(cls, path: Path) -> Cassette:
        """Raises `CassetteError`; a last line that is cut off is left out, other damage is refused with its place."""
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise CassetteError(f"{path}: {error.strerror}") from None
        if not lines or lines[0].strip() != HEADER:
            raise CassetteError(f"{path}: line 1: not a cassette; its first line is {HEADER.decode()}")
        found = []
        for number, line in enumerate(lines[1:], 2):
            if not line.strip():
                continue
            try:
                found.append(msgspec.json.decode(line, type=Exchange))
            except msgspec.MsgspecError as error:
                if number == len(lines):
                    break  # a kill cut it: without its end of line it was never whole
                raise CassetteError(f"{path}: line {number}: {error}") from None
        return cls(found)

    def next(self, provider: str, model: str, key: str) -> Exchange | None:
        """What came back the next time this was asked; None: it never was."""
        name = (provider, model, key)
        kept = self._by_key.get(name)
        if not kept:
            return None
        turn = self._played.get(name, 0)
        self._played[name] = turn + 1
        return kept[min(turn, len(kept) - 1)]

    def models(self) -> dict[str, str]:
        """`provider/model` -> the day of its earliest exchange."""
        days: dict[str, str] = {}
        for exchange in self.exchanges:
            name = f"{exchange.provider}/{exchange.model}"
            days[name] = min(days.get(name, exchange.at[:10]), exchange.at[:10])
        return days


class Recorder:
    """A `Model` that asks another and hands every exchange to `keep` as one line; searches are not kept."""

    def __init__(self, model: Model, keep: Callable[[bytes], None], *, clock: Callable[[], int], today: Callable[[], str]) -> None:
        """`clock`: ns that never step back, for the latency; `today`: the moment, ISO 8601 UTC."""
        self.provider, self.model = model.provider, model.model
        self._behind, self._keep, self._clock, self._today = model, keep, clock, today

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        began = self._clock()

        def kept(**told: Any) -> None:
            exchange = Exchange(
                key=key_of(system, user, schema),
                provider=self.provider,
                model=self.model,
                at=self._today(),
                latency_s=(self._clock() - began) / NS_PER_S,
                user=user,
                **told,
            )
            self._keep(msgspec.json.encode(exchange))

        try:
            answer = await self._behind.complete(system, user, schema, deadline_s)
        except ProviderError as error:
            kept(error=error.kind, detail=error.detail, retry_after_s=error.retry_after_s, usage=error.usage or Usage())
            raise
        cost = "" if answer.cost_usd is None else str(answer.cost_usd)
        kept(told=answer.model, text=answer.text, finish=answer.finish, usage=answer.usage, cost_usd=cost)
        return answer

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        return await self._behind.search(system, user, deadline_s)

    async def close(self) -> None:
        await self._behind.close()


class Player:
    """A `Model` that answers from a cassette, as late as it was; what was never recorded is asked of `behind`, or missing.

    `missing` counts what could not be answered: a connection that nobody takes, for whoever asks.
    """

    def __init__(
        self,
        cassette: Cassette,
        provider: str,
        model: str,
        *,
        behind: Model | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.provider, self.model = provider, model
        self._cassette, self._behind, self._sleep = cassette, behind, sleep
        self.played = self.asked = self.missing = 0

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        exchange = self._cassette.next(self.provider, self.model, key_of(system, user, schema))
        if exchange is None and self._behind is not None:
            self.asked += 1
            return await self._behind.complete(system, user, schema, deadline_s)
        if exchange is None:
            self.missing += 1
            raise ProviderError("connection", "this prompt is not on the cassette")
        self.played += 1
        await self._sleep(exchange.latency_s)
        if exchange.error:
            raise ProviderError(exchange.error, exchange.detail, exchange.retry_after_s)
        return Completion(
            text=exchange.text,
            finish=exchange.finish,
            usage=exchange.usage,
            cost_usd=Decimal(0),
            price_source="cassette",
            model=exchange.told,
        )

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        raise ProviderError("bad_request", "a cassette cannot search")

    async def close(self) -> None:
        if self._behind is not None:
            await self._behind.close()


def contamination(models: dict[str, str], cutoffs: dict[str, str], first_day: str) -> list[str]:
    """What may spoil a backtest of days since `first_day` (ISO): a model that had read of them. Empty: none can have.

    `models` are names, `cutoffs` the last day each was trained on, where known; a day on or before it is contaminated.
    """
    lines = []
    for name in sorted(models):
        cutoff = cutoffs.get(name)
        if cutoff is None:
            lines.append(f"{name}: its cut-off is not known (llm.cutoff): it may have read of what happened after {first_day}")
        elif first_day <= cutoff:
            lines.append(f"{name}: CONTAMINATED: trained on data up to {cutoff}, and the tape begins on {first_day}")
    return lines
