"""What a call may cost: requests per minute, USD per UTC day, and the price of one answer.

A call sets aside the dearest it may become before it is begun and is settled when it has ended, so that calls side by side cannot
spend the same dollar twice. Pure but for the price table, which is data inside a package and imported on first use. Time is an
argument (ns since the epoch). Knows no provider's wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Literal

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_S

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
_MILLION = Decimal(1_000_000)

_LONGEST_CALL_NS = 15 * MINUTE_NS
"""A price that changes with the hour may change while a call is under way; none takes longer than this."""

PriceSource = Literal["billed", "table", "config", "local", "cassette", "assumed", "unknown"]
"""`cassette`: recorded before, free now. `assumed`: the answer never came whole, and the dearest it may have cost is charged.

`unknown`: nobody knows the price, and the configured one is charged.
"""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call: `input` with what was read from the cache and written to it, `output` with what went into reasoning."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write: int = 0
    searches: int = 0
    """Of the web; each has its own price, which is not in the token table."""


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
        if self._taken and self._taken[-1] - now > MINUTE_NS:
            self._taken.clear()  # the clock was set back: when they were, nobody knows
        if len(self._taken) < self.limit:
            return 0
        return max(0, self._taken[0] + MINUTE_NS - now)

    def take(self, now: int) -> None:
        self._taken.append(now)

    def words(self, now: int) -> str:
        """The line the seed's users know."""
        return f"Rate limit: {self.used(now)}/{self.limit} RPM. Waiting {self.wait_ns(now) / NS_PER_S:.1f}s..."


class Reservation(msgspec.Struct, frozen=True, eq=False):
    """Money set aside for one call, on the bill of the day on which it was begun."""

    usd: Decimal


Keep = Callable[[dict[str, str]], None]


class DailyBudget:
    """USD of one UTC day against a limit (None: none): what was spent, and what calls under way may yet cost.

    Spent and set aside together never exceed the limit, as long as no call costs more than was set aside for it; one that does is
    booked as it is. `to_plain` and `from_plain` carry it over a restart; `keep` is told of every change, so that a process that is
    killed in the middle of a call remembers what it had set aside.
    """

    def __init__(
        self, limit_usd: Decimal | None, *, day: int = 0, spent_usd: Decimal = Decimal(0), keep: Keep | None = None
    ) -> None:
        self.limit_usd = limit_usd
        self._day = day
        self._spent = spent_usd
        self._open: dict[int, Reservation] = {}
        """By identity; those of a day that is over are on that day's bill and no longer here."""
        self._keep = keep

    @classmethod
    def from_plain(cls, limit_usd: Decimal | None, saved: dict[str, str], keep: Keep | None = None) -> DailyBudget:
        """Continue from `to_plain`; an unreadable one is an error of ours (KeyError, ValueError, ArithmeticError)."""
        spent = Decimal(saved["spent_usd"])
        if not (spent.is_finite() and spent >= 0):
            raise ValueError(f"spent_usd is {spent}")
        return cls(limit_usd, day=int(saved["day"]), spent_usd=spent, keep=keep)

    def to_plain(self) -> dict[str, str]:
        """What calls under way have set aside counts as spent: nobody will be there to settle them."""
        return {"day": str(self._day), "spent_usd": str(self._committed())}

    def spent_usd(self, now: int) -> Decimal:
        """Settled on this day, without what is set aside."""
        return Decimal(0) if self._is_over(now) else self._spent

    def exhausted(self, now: int) -> bool:
        """Whether nothing is left that has not been spent or set aside."""
        return self.limit_usd is not None and self._left(now) <= 0

    def holds(self, now: int, worst_usd: Decimal) -> bool:
        """Whether `reserve` would succeed. A call that costs nothing always does."""
        return self.limit_usd is None or worst_usd <= max(Decimal(0), self._left(now))

    def reserve(self, now: int, worst_usd: Decimal) -> Reservation | None:
        """Set aside what a call may cost at most; None: what is left of the day does not hold it."""
        assert worst_usd >= 0, "a call does not pay us"
        if not self.holds(now, worst_usd):
            return None
        self._turn(now)
        reservation = Reservation(worst_usd)
        self._open[id(reservation)] = reservation
        self._tell()
        return reservation

    def settle(self, reservation: Reservation, usd: Decimal) -> None:
        """The call has ended and cost this much; nothing changes for one of a day that is over, or settled before."""
        if self._open.pop(id(reservation), None) is not None:
            self._spent += usd
            self._tell()

    def release(self, reservation: Reservation) -> None:
        """The call cost nothing."""
        self.settle(reservation, Decimal(0))

    def charge(self, now: int, usd: Decimal) -> None:
        """Book a cost for which nothing was set aside."""
        self._turn(now)
        self._spent += usd
        self._tell()

    def words(self, now: int) -> str:
        return (
            f"daily budget spent: {self.spent_usd(now):.4f} of {self.limit_usd} USD; it starts anew at 00:00 UTC "
            f"(llm.daily_budget_usd)"
        )

    def _committed(self) -> Decimal:
        return self._spent + sum((r.usd for r in self._open.values()), Decimal(0))

    def _left(self, now: int) -> Decimal:
        assert self.limit_usd is not None
        return self.limit_usd - (Decimal(0) if self._is_over(now) else self._committed())

    def _is_over(self, now: int) -> bool:
        """Whether a new day has begun. A clock that steps back begins none: that would fill the purse twice."""
        return now // DAY_NS > self._day

    def _turn(self, now: int) -> None:
        day = now // DAY_NS
        if self._is_over(now):
            self._day, self._spent = day, Decimal(0)
            self._open.clear()
        elif day < self._day - 1:
            # More than a jump about midnight: the clock had been far ahead. What was spent then counts today.
            self._day = day

    def _tell(self) -> None:
        if self._keep is not None:
            self._keep(self.to_plain())


class Pricer:
    """The price of a call to one model: what was billed, else what the config says, else the package's table, else unknown.

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
        if self._per_million is not None:
            per_input, per_output = self._per_million
            return Cost((usage.input * per_input + usage.output * per_output) / _MILLION, "config")
        listed = self._listed(usage, now) if self._provider_id else None
        return Cost(None, "unknown") if listed is None else Cost(listed, "table")

    def worst(self, input_tokens_bound: int, max_output_tokens: int, now: int) -> Decimal | None:
        """USD of the dearest a call begun now may be: nothing from the cache, all of it written there; None: no price known."""
        plain = Usage(input=input_tokens_bound, output=max_output_tokens)
        written = msgspec.structs.replace(plain, cache_write=input_tokens_bound)
        costs = [self.cost(usage, None, at).usd for usage in (plain, written) for at in (now, now + _LONGEST_CALL_NS)]
        known = [usd for usd in costs if usd is not None]
        return max(known) if len(known) == len(costs) else None

    def _listed(self, usage: Usage, now: int) -> Decimal | None:
        from genai_prices import Usage as TableUsage
        from genai_prices import calc_price

        cached = min(usage.cached, usage.input)
        tokens = TableUsage(
            input_tokens=usage.input,
            cache_read_tokens=cached,
            cache_write_tokens=min(usage.cache_write, usage.input - cached),
            output_tokens=usage.output,
        )
        at = datetime.fromtimestamp(now / NS_PER_S, UTC)  # some prices change with the hour
        try:
            return calc_price(tokens, self._model, provider_id=self._provider_id, genai_request_timestamp=at).total_price
        except LookupError:
            return None


def to_cash(usd: Decimal) -> int:
    """USD -> cash units, rounded against us."""
    return int((usd * CASH_PER_USD).to_integral_value(ROUND_CEILING))
