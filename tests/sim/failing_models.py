"""Stand-ins for models that fail in every way of `llm-providers.md` 2.6, by seeded dice, in episodes; each keeps its own books.

They know tokens, prices and what a server really charges; they know nothing of who asks, and of limits only what they print.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from llm_maker.core.values import NS_PER_S
from llm_maker.llm.budget import Usage
from llm_maker.llm.providers import Completion, ProviderError

DAY_NS = 86_400 * NS_PER_S
MINUTE_NS = 60 * NS_PER_S
_MARKET = re.compile(r"^\[(M\d+)\]$.*?yes_price ([0-9.]+)", re.MULTILINE | re.DOTALL)

STOPPING = ("auth", "quota", "bad_request")
"""A person must act: kinds that last for hours."""
KINDS = (
    "auth", "quota", "bad_request", "rate_told", "rate_long", "rate_bare", "overload", "overload_told", "overload_billed",
    "broken_off", "timeout", "hang", "deaf", "connection", "connection_billed", "refused_socket", "reset_socket", "stumble",
    "refusal", "refusal_error", "truncated", "not_json", "wrong_handles", "nan", "duplicate_keys", "empty", "huge",
    "malformed_error", "unknown_price", "nan_price", "above_worst", "slow", "flapping",
)  # fmt: skip
_ANSWERS = {"refusal", "truncated", "not_json", "wrong_handles", "nan", "duplicate_keys", "empty", "huge", "unknown_price",
            "nan_price", "above_worst", "slow"}  # fmt: skip
"""Kinds that come as an answer, good or bad."""
_USEFUL = {"unknown_price", "nan_price", "above_worst", "slow", ""}


@dataclass
class Call:
    """One call as the server saw it. `seen`: what whoever asks must take it for; `usd`: what the server charges."""

    began: int
    kind: str
    usd: Decimal
    seen: str = ""
    """ok, or the kind of failure; empty: not ended."""
    retry_after_s: float | None = None
    ended: int = 0
    excess: Decimal = Decimal(0)
    """What it costs beyond what its tokens can."""
    deadline_s: float = 0.0


class FailingModel:
    """A `Model`. `episodes` are (from, to, kind), not overlapping; outside of them it is well."""

    def __init__(self, provider, model, *, price, max_output, seed, clock, episodes):
        self.provider, self.model = provider, model
        self.price, self.max_output, self.clock, self.episodes = price, max_output, clock, episodes
        self.dice = Random(f"{seed} {provider} {model}")
        self.calls: list[Call] = []
        self.useful = 0

    async def search(self, system, user, deadline_s):
        raise AssertionError("nobody searches here")

    async def close(self):
        return

    def kind_at(self, now):
        while self.episodes and self.episodes[0][1] <= now:
            self.episodes.pop(0)
        kind = self.episodes[0][2] if self.episodes and self.episodes[0][0] <= now else ""
        return self.dice.choice(("", *KINDS[3:-1])) if kind == "flapping" else kind

    async def complete(self, system, user, schema, deadline_s):
        kind = self.kind_at(self.clock())
        text = self._text(kind, user)
        written = self.max_output if kind == "truncated" else min(self.max_output, len(text) // 4 + self.dice.randrange(200))
        tokens = Usage(input=(len(system) + len(user) + len(json.dumps(schema))) // 4, output=written)
        cost = (tokens.input * self.price[0] + tokens.output * self.price[1]) / Decimal(10**6)
        call = Call(self.clock(), kind, cost, deadline_s=deadline_s)
        self.calls.append(call)
        try:
            answer = await self._served(kind, call, tokens, text)
            call.seen = "ok"
            return answer
        except ProviderError as error:
            call.seen, call.retry_after_s = error.kind, error.retry_after_s
            raise
        except asyncio.CancelledError:
            call.seen = "timeout"  # given up
            raise
        except OSError:
            call.seen = "connection"
            raise
        except ValueError:
            call.seen = "malformed"
            raise
        finally:
            call.ended = call.ended or self.clock()

    async def _served(self, kind, call, tokens, text):
        if kind in ("hang", "deaf"):
            await self._hang(call, deaf=kind == "deaf")
        await asyncio.sleep(0.95 * call.deadline_s if kind == "slow" else self.dice.uniform(0.3, 6.0))
        if kind in _ANSWERS or not kind:
            return self._answer(kind, call, tokens, text)
        free = kind not in ("overload_billed", "broken_off", "timeout", "connection_billed", "reset_socket", "stumble",
                            "refusal_error", "malformed_error")  # fmt: skip
        if free:
            call.usd = Decimal(0)
        raise self._failure(kind, tokens)

    async def _hang(self, call, *, deaf):
        try:
            await asyncio.sleep(10_000.0)
        except asyncio.CancelledError:
            call.ended, call.seen = self.clock(), "timeout"
            if deaf:
                await asyncio.sleep(90.0)  # its own clean-up hangs as well
            raise

    def _answer(self, kind, call, tokens, text):
        cost, finish = call.usd, {"refusal": "refusal", "truncated": "length"}.get(kind, "stop")
        source = "table"
        if kind == "unknown_price":
            cost, source = None, "unknown"
        elif kind == "nan_price":
            cost = self.dice.choice((Decimal("NaN"), Decimal(-1), Decimal("Infinity")))
        elif kind == "above_worst":
            call.excess, cost, source = Decimal("0.05"), call.usd + Decimal("0.05"), "billed"
            call.usd = cost
        self.useful += kind in _USEFUL
        return Completion(text, finish, tokens, cost, source, f"{self.model}-2026")

    def _failure(self, kind, tokens):
        dice = self.dice
        return {
            "auth": ProviderError("auth", "HTTP 401"),
            "quota": ProviderError("billing", "insufficient_quota"),
            "bad_request": ProviderError("bad_request", "HTTP 404: no such model"),
            "rate_told": ProviderError("rate_limit", "HTTP 429", dice.uniform(1, 100)),
            "rate_long": ProviderError("rate_limit", "HTTP 429", dice.choice((dice.uniform(130, 900), 1e9))),
            "rate_bare": ProviderError("rate_limit", "HTTP 429", dice.choice((None, 0.0, -3.0))),
            "overload": ProviderError("overload", "HTTP 503"),
            "overload_told": ProviderError("overload", "HTTP 529", dice.uniform(0.5, 200)),
            "overload_billed": ProviderError("overload", "broke off", maybe_billed=True),
            "broken_off": ProviderError("overload", "broke off", usage=tokens),
            "timeout": ProviderError("timeout", "no answer", maybe_billed=True),
            "connection": ProviderError("connection", "no route"),
            "connection_billed": ProviderError("connection", "cut", maybe_billed=True),
            "refused_socket": ConnectionRefusedError("refused"),
            "reset_socket": ConnectionResetError("reset"),
            "stumble": ValueError("the client could not read it"),
            "refusal_error": ProviderError("refusal", "blocked", usage=tokens),
            "malformed_error": ProviderError("malformed", "no completion", usage=tokens),
        }[kind]

    def _text(self, kind, user):
        if kind in ("empty", "refusal"):
            return "" if kind == "refusal" else '{"signals": []}'
        signals = [self._signal(handle, float(price)) for handle, price in _MARKET.findall(user)]
        assert signals, "the question names no market"
        if kind == "wrong_handles":
            signals = [signal | {"market_id": "M77"} for signal in signals]
        elif kind == "nan":
            signals = [signal | {"confidence": float("nan"), "p_yes": float("inf")} for signal in signals]
        whole = json.dumps({"signals": signals})
        return {
            "truncated": whole[: len(whole) // 2],
            "not_json": "I would rather not say, but the market looks interesting: }{",
            "duplicate_keys": whole.replace('"confidence"', '"action": "exit", "confidence"'),
            "huge": whole + " " + "x" * 300_000,
        }.get(kind, whole)

    def _signal(self, handle, price):
        action = self.dice.choice(("hold", "buy_yes", "buy_yes", "buy_no", "buy_no", "sell_yes", "sell_no"))
        way = {"buy_yes": 1, "sell_no": 1, "buy_no": -1, "sell_yes": -1}.get(action, 0)
        p = min(0.97, max(0.03, price + way * self.dice.uniform(0.01, 0.08)))
        bias = {1: "bullish", -1: "bearish", 0: "neutral"}[way]
        told = {"evidence": "dice", "p_yes": p, "p_low": max(0.01, p - 0.1), "p_high": min(0.99, p + 0.1), "action": action}
        more = {"confidence": self.dice.uniform(0.5, 1.0), "reasoning": "dice", "directional_bias": bias, "risk_level": "low"}
        return {"market_id": handle, **told, **more, "priority": "medium"}


def episodes(dice, start, end, kinds=KINDS):
    """A deck of all kinds in a random order, dealt out with pauses between them, again and again until the end."""
    found, now, deck = [], start + int(dice.uniform(5, 30) * MINUTE_NS), []
    while now < end:
        if not deck:
            deck = sorted(kinds, key=lambda kind: (kind == "quota", dice.random()))
        kind = deck.pop(0)
        if kind == "quota":
            until = min((now // DAY_NS + 1) * DAY_NS, now + 5 * 3_600 * NS_PER_S)  # until midnight, or near enough
        else:
            until = now + int(dice.uniform(62, 150) if kind in STOPPING else dice.uniform(5, 22)) * MINUTE_NS
        found.append((now, min(until, end), kind))
        now = until + int(dice.uniform(1, 15) * MINUTE_NS)
    return found


def with_outages(dice, own, outages):
    """The same with what befalls all at once in between: there its own episodes are cut out."""
    cut = []
    for since, ended, kind in own:
        began = since
        for first, last, _ in outages:
            if began < last and first < ended:
                if began < first:
                    cut.append((began, first, kind))
                began = last
        if began < ended:
            cut.append((began, ended, kind))
    return sorted([*cut, *outages])


def happened(models):
    """Kind -> how many calls met it, over all models."""
    counts = Counter(call.kind for model in models for call in model.calls)
    return {kind: counts[kind] for kind in KINDS if kind != "flapping"}
