"""Cassettes: every exchange with a model kept under the hash of its prompt, and a model that plays them again.

A cassette is JSON lines: a header, then one line an exchange with the model's name, when it was recorded, how long it took, what
was asked and what came back, an answer or a failure. No key is in it: what it keeps has left a client that cleans it, and held
secrets are taken out of each line. A played exchange answers as it did, as late as it did, and costs nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llm_maker.llm.budget import Usage
from llm_maker.llm.prompt import key_of
from llm_maker.llm.providers import Completion, Found, Kind, Model, ProviderError, SchemaMode

HEADER = b'{"cassette":1}'
NS_PER_S = 1_000_000_000
MISSING = "never recorded: this prompt is not on the cassette"
_MIN_SECRET = 6
"""A shorter value is no secret worth hiding, and would blank out ordinary words."""


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
    latency_s: Annotated[float, msgspec.Meta(ge=0.0)]
    user: str
    """What was asked, for people; the system prompt and the schema are in the hash alone."""
    told: str = ""
    """The model's name as its server says it."""
    text: str = ""
    finish: Literal["stop", "length", "refusal"] = "stop"
    usage: Usage = Usage()
    schema_mode: SchemaMode = "json_schema"
    cost_usd: str = ""
    """What it cost then, as a decimal; empty: nobody knew."""
    error: Kind | Literal[""] = ""
    detail: str = ""
    retry_after_s: float | None = None


class Cassette:
    """The exchanges of one file; several of one prompt are played in the order they were recorded, the last one again."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self.exchanges = exchanges
        self._by_key: dict[tuple[str, str, str], list[Exchange]] = {}
        for exchange in exchanges:
            self._by_key.setdefault((exchange.provider, exchange.model, exchange.key), []).append(exchange)
        self._played: dict[tuple[str, str, str], int] = {}

    @classmethod
    def read(cls, path: Path) -> Cassette:
        """Raises `CassetteError`; a last line without its end is left out, other damage is refused with its place.

        What was asked is checked and not kept: it may be megabytes that only people read.
        """
        found: list[Exchange] = []
        try:
            with path.open("rb") as file:
                if file.readline().rstrip(b"\r\n") != HEADER:
                    raise CassetteError(f"{path}: line 1: not a cassette; its first line is {HEADER.decode()}")
                for number, line in enumerate(file, 2):
                    if not line.endswith(b"\n"):
                        break  # a kill cut it
                    if line.strip():
                        found.append(msgspec.structs.replace(_exchange(path, number, line), user=""))
        except OSError as error:
            raise CassetteError(f"{path}: {error.strerror}") from None
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


def _exchange(path: Path, number: int, line: bytes) -> Exchange:
    try:
        return msgspec.json.decode(line, type=Exchange)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CassetteError(f"{path}: line {number}: {error}") from None


class Writer:
    """A cassette to record on, made or gone on with; half a line that a kill left at its end is cut off first.

    One at a time: a second one on the same file is refused. A line that cannot be written whole ends the recording, so that nothing
    is ever glued to half a line. Every failure is a `CassetteError`.
    """

    def __init__(self, path: Path, secrets: Sequence[str] = ()) -> None:
        """`secrets` are taken out of every line."""
        self._path, self._broken = path, ""
        held = [secret for secret in secrets if len(secret) >= _MIN_SECRET]
        self._secrets = list(dict.fromkeys(form.encode() for one in held for form in (one, json.dumps(one)[1:-1])))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise CassetteError(f"{path}: {error.strerror}") from None
        try:
            self._begin()
        except BlockingIOError:
            self.close()
            raise CassetteError(f"{path}: another run is recording on it") from None
        except OSError as error:
            self.close()
            raise CassetteError(f"{path}: {error.strerror}") from None
        except CassetteError:
            self.close()
            raise

    def _begin(self) -> None:
        fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        whole = self._path.read_bytes()
        if HEADER.startswith(whole):  # new, or a kill came before the first line was whole
            os.ftruncate(self._out, 0)
            os.write(self._out, HEADER + b"\n")
            return
        Cassette.read(self._path)
        os.ftruncate(self._out, whole.rfind(b"\n") + 1)

    def append(self, line: bytes) -> None:
        """One exchange, without its end of line; it has reached the operating system when this returns."""
        if self._broken:
            raise CassetteError(f"{self._path}: nothing more is recorded: {self._broken}")
        for secret in self._secrets:
            line = line.replace(secret, b"***")
        try:
            size = os.fstat(self._out).st_size
            if os.write(self._out, line + b"\n") <= len(line):
                self._broken = "the disk is full"
                os.ftruncate(self._out, size)
        except OSError as error:
            self._broken = error.strerror or "it cannot be written"
        if self._broken:
            raise CassetteError(f"{self._path}: {self._broken}")

    def close(self) -> None:
        if self._out >= 0:
            os.close(self._out)
        self._out = -1


class Recorder:
    """A `Model` that asks another and hands every exchange to `keep` as one line; searches are not kept."""

    def __init__(self, model: Model, keep: Callable[[bytes], None], *, clock: Callable[[], int], today: Callable[[], str]) -> None:
        """`clock`: ns that never step back, for the latency; `today`: the moment, ISO 8601 UTC."""
        self.provider, self.model = model.provider, model.model
        self._behind, self._keep, self._clock, self._today = model, keep, clock, today

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        began = self._clock()

        def took_s() -> float:
            return round(max(0, self._clock() - began) / NS_PER_S, 6)

        def kept(**told: Any) -> None:
            exchange = Exchange(
                key=key_of(system, user, schema),
                provider=self.provider,
                model=self.model,
                at=self._today(),
                latency_s=took_s(),
                user=user,
                **told,
            )
            self._keep(_line(exchange))

        try:
            answer = await self._behind.complete(system, user, schema, deadline_s)
        except ProviderError as error:
            kept(error=error.kind, detail=error.detail, retry_after_s=error.retry_after_s, usage=error.usage or Usage())
            raise
        except (OSError, ValueError, LookupError, ArithmeticError) as error:
            # Its words may quote an address or a header: the class alone is told.
            kept(error=_kind(error), detail=type(error).__name__)
            raise
        except asyncio.CancelledError:
            if took_s() >= deadline_s:  # given up by who asked; before that nobody knows what would have come
                kept(error="timeout", detail="given up")
            raise
        kept(
            told=answer.model,
            text=answer.text,
            finish=answer.finish,
            usage=answer.usage,
            schema_mode=answer.schema_mode,
            cost_usd="" if answer.cost_usd is None else str(answer.cost_usd),
        )
        return answer

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        return await self._behind.search(system, user, deadline_s)

    async def close(self) -> None:
        await self._behind.close()


def _kind(error: Exception) -> Kind:
    """As whoever asks takes it."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, OSError) else "malformed"


def _line(exchange: Exchange) -> bytes:
    """JSON whatever a model wrote: half a character that no encoding has becomes a question mark."""
    try:
        return msgspec.json.encode(exchange)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(exchange), ensure_ascii=False).encode("utf-8", "replace")


class Player:
    """A `Model` that answers from a cassette, as late as it was; what was never recorded is asked of `behind`, or missing.

    What is missing is a refusal: it says why, it is not asked again at once, and it stands against no question after it.
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
            raise ProviderError("refusal", MISSING)
        self.played += 1
        await self._sleep(min(exchange.latency_s, deadline_s))
        if exchange.latency_s > deadline_s:
            raise ProviderError("timeout", f"recorded with {exchange.latency_s:.1f} s, more than the {deadline_s:.1f} s there are")
        if exchange.error:
            raise ProviderError(exchange.error, exchange.detail, exchange.retry_after_s)
        return Completion(
            text=exchange.text,
            finish=exchange.finish,
            usage=exchange.usage,
            cost_usd=Decimal(0),
            price_source="cassette",
            model=exchange.told,
            schema_mode=exchange.schema_mode,
        )

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        raise ProviderError("bad_request", "a cassette cannot search")

    async def close(self) -> None:
        if self._behind is not None:
            await self._behind.close()


def contamination(cutoffs: Mapping[str, str | None], first_day: str) -> list[str]:
    """What may spoil a backtest of days since `first_day` (ISO): a model that had read of them. Empty: none can have.

    `cutoffs`: a model's name -> the last day it was trained on, None where nobody knows; a day on or before it is contaminated.
    """
    lines = []
    for name, cutoff in sorted(cutoffs.items()):
        if cutoff is None:
            lines.append(f"{name}: its cut-off is not known (llm.cutoff): it may have read of what happened after {first_day}")
        elif first_day <= cutoff:
            lines.append(f"{name}: CONTAMINATED: trained on data up to {cutoff}, and the tape begins on {first_day}")
    return lines
