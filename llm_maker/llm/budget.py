"""What a call may cost: requests per minute, USD per UTC day, and the price of one answer.

Pure but for the price table, which is data inside a package and imported on first use. Time is an argument (ns since
the epoch). Knows no provider's wire.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Literal

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_S

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
_MILLION = Decimal(1_000_000)

PriceSource = Literal["billed", "table", "config", "local", "unknown"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call: `input` with what came from the cache, `output` with what was spent on reasoning."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class Cost(msgspec.Struct, frozen=True):
    """USD of one call and who says so; None when nobody can."""

    usd: Decimal | None
    source: PriceSource


class RateLimit:
    """At most `limit` requests in any sixty seconds."""

    def __init__(self, limit: int) -> None:
        assert limit > 0, "config allows only limits above zero"
        self.limit = limit
        self._taken: deque[int] = deque(maxlen=limit)

    def used(self, now: int) -> int:
        return sum(1 for at in self._taken if now - at < MINUTE_NS)

    def wait_ns(self, now: int) -> int:
        """How long until the next request may go; 0: now."""
        if len(self._taken) < self.limit:
            return 0
        return max(0, self._taken[0] + MINUTE_NS - now)

    def take(self, now: int) -> None:
        self._taken.append(now)

    def words(self, now: int) -> str:
        """The line the seed's users know."""
        return f"Rate limit: {self.used(now)}/{self.limit} RPM. Waiting {self.wait_ns(now) / NS_PER_S:.1f}s..."


class DailyBudget:
    """USD spent in this UTC day against a limit (None: none). `to_plain` and `from_plain` carry it over a restart."""

    def __init__(self, limit_usd: Decimal | None, *, day: int = 0, spent_usd: Decimal = Decimal(0)) -> None:
        self.limit_usd = limit_usd
        self._day = day
        self._spent = spent_usd

    @classmethod
    def from_plain(cls, limit_usd: Decimal | None, saved: dict[str, str]) -> DailyBudget:
        """Continue from `to_plain`; an unreadable one is an error of ours (KeyError, ValueError, ArithmeticError)."""
        return cls(limit_usd, day=int(saved["day"]), spent_usd=Decimal(saved["spent_usd"]))

    def to_plain(self) -> dict[str, str]:
        return {"day": str(self._day), "spent_usd": str(self._spent)}

    def spent_usd(self, now: int) -> Decimal:
        return self._spent if now // DAY_NS == self._day else Decimal(0)

    def exhausted(self, now: int) -> bool:
        return self.limit_usd is not None and self.spent_usd(now) >= self.limit_usd

    def charge(self, now: int, usd: Decimal) -> None:
        self._spent = self.spent_usd(now) + usd
        self._day = now // DAY_NS

    def words(self, now: int) -> str:
        return (
            f"daily budget spent: {self.spent_usd(now):.4f} of {self.limit_usd} USD; it starts anew at 00:00 UTC "
            f"(llm.daily_budget_usd)"
        )


class Pricer:
    """The price of a call to one model: what was billed, else the package's table, else config, else unknown.

    `per_million` is (input, output) USD per million tokens from config; `local` models cost nothing by config.
    Constructing one loads the table (about 0.2 s), so that no call in the loop pays for it.
    """

    def __init__(
        self,
        provider_id: str,
        model: str,
        *,
        per_million: tuple[Decimal, Decimal] | None = None,
        local: bool = False,
        now: int = 0,
    ) -> None:
        self._provider_id = provider_id
        self._model = model
        self._per_million = per_million
        self._local = local
        self.known = self.cost(Usage(input=1, output=1), None, now).usd is not None

    def cost(self, usage: Usage, billed: Decimal | None, now: int) -> Cost:
        if billed is not None:
            return Cost(billed, "billed")
        if self._local:
            return Cost(Decimal(0), "local")
        listed = self._listed(usage, now) if self._provider_id else None
        if listed is not None:
            return Cost(listed, "table")
        if self._per_million is not None:
            per_input, per_output = self._per_million
            return Cost((usage.input * per_input + usage.output * per_output) / _MILLION, "config")
        return Cost(None, "unknown")

    def _listed(self, usage: Usage, now: int) -> Decimal | None:
        from genai_prices import Usage as TableUsage
        from genai_prices import calc_price

        tokens = TableUsage(input_tokens=usage.input, cache_read_tokens=min(usage.cached, usage.input), output_tokens=usage.output)
        at = datetime.fromtimestamp(now / NS_PER_S, UTC)  # some prices change with the hour
        try:
            return calc_price(tokens, self._model, provider_id=self._provider_id, genai_request_timestamp=at).total_price
        except LookupError:
            return None


def to_cash(usd: Decimal) -> int:
    """USD -> cash units, rounded against us."""
    return int((usd * CASH_PER_USD).to_integral_value(ROUND_CEILING))
