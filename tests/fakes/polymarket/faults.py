"""Misbehaviour on request: every kind of fault the fake venue knows, switched on and off while it runs, seeded and counted.

`on` gives a kind a share of chances, an end, a number of times or a place (`only`); the servers ask `hit` at each chance. `seen`
counts what really happened, so that a test can say that it did.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

POST_ONLY_S = 120.0
"""After every engine restart (`polymarket.md` 2.5)."""

KINDS: dict[str, float] = {
    # Market sockets. `only` is a token.
    "market_drop": 0,  # a frame is lost
    "market_delay": 3,  # value: seconds late, and all behind it
    "market_duplicate": 0,
    "market_reorder": 0,  # a frame and the one after it change places
    "market_freeze": 0,  # PONG goes on, data never comes again on this connection
    "market_freeze_token": 0,  # the same for one token of a connection
    "market_half_open": 0,  # nothing ever again, not even PONG; the connection stays open
    "market_close": 0,  # abrupt, without a goodbye
    "market_crossed": 0,  # a book whose bid is above its ask
    "market_wrong_best": 0,  # a price_change that names a best which is not
    # User sockets. `only` is an API key.
    "user_drop": 0,
    "user_delay": 3,
    "user_duplicate": 0,
    "user_reorder": 0,
    "user_freeze": 0,
    "user_half_open": 0,
    "user_close": 0,
    # HTTP. `only` is a part of "METHOD /prefix/path".
    "restart": 0.5,  # 425 to orders and cancels; value: share that is done all the same; then two minutes post-only
    "post_only": 0,  # 503 to what is not post-only
    "cancel_only": 0,  # 503 to orders
    "disabled": 0,  # 503 to orders and cancels
    "error_500": 0.5,  # value: share of orders and cancels that is done all the same
    "post_hang_done": 60,  # the order is taken, the answer never comes; value: seconds until the connection breaks
    "post_hang_lost": 60,  # neither the order nor the answer
    "delete_hang_done": 60,
    "delete_hang_lost": 60,
    "slow": 2,  # value: seconds before the answer
    "limited": 1,  # 429; value: Retry-After, 0 for none
    "malformed": 0,  # 200 and half a body, after all is done
    "orders_fail": 0,  # 500 to GET /data/orders
    "stale_book": 20,  # REST books of so many seconds ago
    "stale_balance": 0,  # /balance-allowance shows what it last showed, until /update
    # The house. `only` is a market's condition id, or an API key.
    "settle_failed": 0.3,  # value: share of trades
    "settle_retrying": 0.5,
    "settle_late": 60,  # value: seconds more until CONFIRMED
    "tick_change": 0,
    "market_closed": 0,
    "foreign_order": 0,  # an order of the account that the program did not send
    "foreign_holding": 25,  # value: shares that come from elsewhere
}
"""Each kind and the `value` it has where none is given."""
ONCE = ("tick_change", "market_closed", "foreign_order", "foreign_holding")
"""Happen one time where no number of times is given."""


@dataclass
class Fault:
    """One kind that is on."""

    share: float = 1.0
    until_ms: int | None = None
    times: int | None = None
    only: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Gust:
    """One entry of a schedule: from `at_s` to `until_s` of venue time after its start, `kind` is on."""

    at_s: float
    until_s: float
    kind: str
    share: float = 1.0
    times: int | None = None


class Faults:
    """What is on, the dice, and what happened. Nothing is on at first."""

    def __init__(self, seed: int = 1) -> None:
        self.seen: Counter[str] = Counter()
        self.calms = 0
        """How often all was ended: connections that a fault had spoiled before are closed."""
        self._on: dict[str, Fault] = {}
        self._dice = random.Random(seed)
        self._gusts: list[tuple[int, int, Gust]] = []
        self._restarting = False

    def on(
        self,
        kind: str,
        share: float = 1.0,
        *,
        until_ms: int | None = None,
        times: int | None = None,
        only: str = "",
        value: float | None = None,
    ) -> None:
        """Switch a kind on; one already on is replaced. It ends at `until_ms` or after `times`, whichever is first."""
        if kind not in KINDS:
            raise ValueError(f"no such fault: {kind}; there are {', '.join(KINDS)}")
        times = 1 if times is None and kind in ONCE else times
        self._on[kind] = Fault(share, until_ms, times, only, KINDS[kind] if value is None else value)

    def off(self, kind: str) -> None:
        """What it did stays done: a frozen connection stays frozen until somebody closes it."""
        self._on.pop(kind, None)

    def calm(self) -> None:
        """End all, a schedule too; connections that were frozen or half open are closed, so that a client can begin anew."""
        self._on.clear()
        self._gusts.clear()
        self._restarting = False
        self.calms += 1

    def active(self, kind: str, now_ms: int, about: str = "") -> Fault | None:
        """The fault, if it is on here and now; no dice, no count."""
        fault = self.told(kind, now_ms)
        return fault if fault is not None and fault.only in about else None

    def told(self, kind: str, now_ms: int) -> Fault | None:
        """The fault, if it is on anywhere."""
        fault = self._on.get(kind)
        if fault is not None and ((fault.until_ms is not None and now_ms >= fault.until_ms) or fault.times == 0):
            del self._on[kind]
            return None
        return fault

    def hit(self, kind: str, now_ms: int, about: str = "") -> Fault | None:
        """One chance for a kind: the fault if it happens now. It is counted as seen."""
        fault = self.active(kind, now_ms, about)
        if fault is None or (fault.share < 1 and self._dice.random() >= fault.share):
            return None
        self.happened(kind)
        return fault

    def happened(self, kind: str) -> None:
        """Count one, for those who look first and then see whether they can."""
        fault = self._on.get(kind)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        self.seen[kind] += 1

    def chance(self, share: float) -> bool:
        return self._dice.random() < share

    def pick(self, count: int) -> int:
        return self._dice.randrange(count)

    def play(self, schedule: Iterable[Gust], start_ms: int) -> None:
        """Let a schedule run from `start_ms` on; `step` turns its pages."""
        for gust in schedule:
            self._gusts.append((start_ms + int(gust.at_s * 1000), start_ms + int(gust.until_s * 1000), gust))
        self._gusts.sort(key=lambda entry: entry[0])

    def step(self, now_ms: int) -> None:
        """Begin what is due; a restart that has ended becomes two minutes of post-only."""
        while self._gusts and self._gusts[0][0] <= now_ms:
            _, until_ms, gust = self._gusts.pop(0)
            self.on(gust.kind, gust.share, until_ms=until_ms, times=gust.times)
        restarting = self.told("restart", now_ms) is not None
        if self._restarting and not restarting:
            self.on("post_only", until_ms=now_ms + int(POST_ONLY_S * 1000))
        self._restarting = restarting

    def left_s(self, kind: str, now_ms: int) -> int:
        """Whole seconds until a kind ends, at least 1; two minutes where it has no end."""
        fault = self._on.get(kind)
        end = fault.until_ms if fault is not None and fault.until_ms is not None else now_ms + int(POST_ONLY_S * 1000)
        return max(1, (end - now_ms + 999) // 1000)

    @staticmethod
    def storm(seed: int, level: int = 1) -> list[Gust]:
        """A venue hour of bad weather: every kind goes on and off `level` times (1 to 3), the higher the more often it hits."""
        assert 1 <= level <= 3, "levels are 1, 2 and 3"
        dice = random.Random(seed)
        gusts = []
        for kind in KINDS:
            gust, room = _GUSTS[kind], 3_300.0 / level
            for number in range(level):
                at_s = 60.0 + number * room + dice.random() * max(room - gust.until_s, 1.0)
                share = min(1.0, gust.share * (1 + level) / 2)
                gusts.append(replace(gust, at_s=at_s, until_s=at_s + gust.until_s * (0.7 + 0.3 * dice.random()), share=share))
        return sorted(gusts, key=lambda gust: gust.at_s)


def _gust(kind: str, lasts_s: float, share: float = 1.0, times: int | None = None) -> Gust:
    return Gust(0.0, lasts_s, kind, share, times)


_GUSTS = {
    gust.kind: gust
    for gust in (
        _gust("market_drop", 120, 0.03),
        _gust("market_delay", 60, 0.1),
        _gust("market_duplicate", 120, 0.05),
        _gust("market_reorder", 120, 0.05),
        _gust("market_freeze", 300, times=1),
        _gust("market_freeze_token", 300, times=1),
        _gust("market_half_open", 300, times=1),
        _gust("market_close", 300, times=1),
        _gust("market_crossed", 300, 0.2, times=2),
        _gust("market_wrong_best", 300, 0.2, times=3),
        _gust("user_drop", 300, 0.1),
        _gust("user_delay", 120, 0.3),
        _gust("user_duplicate", 300, 0.3),
        _gust("user_reorder", 300, 0.3),
        _gust("user_freeze", 300, times=1),
        _gust("user_half_open", 300, times=1),
        _gust("user_close", 300, times=1),
        _gust("restart", 25),
        _gust("post_only", 60),
        _gust("cancel_only", 40),
        _gust("disabled", 40),
        _gust("error_500", 120, 0.1),
        _gust("post_hang_done", 600, 0.5, times=2),
        _gust("post_hang_lost", 600, 0.5, times=2),
        _gust("delete_hang_done", 600, 0.5, times=2),
        _gust("delete_hang_lost", 600, 0.5, times=2),
        _gust("slow", 120, 0.1),
        _gust("limited", 120, 0.1),
        _gust("malformed", 300, 0.05, times=4),
        _gust("orders_fail", 120),
        _gust("stale_book", 120),
        _gust("stale_balance", 300),
        _gust("settle_failed", 600),
        _gust("settle_retrying", 600),
        _gust("settle_late", 600),
        _gust("tick_change", 300, times=1),
        _gust("market_closed", 300, times=1),
        _gust("foreign_order", 300, times=1),
        _gust("foreign_holding", 300, times=1),
    )
}
assert _GUSTS.keys() == KINDS.keys(), "every kind has its weather"
