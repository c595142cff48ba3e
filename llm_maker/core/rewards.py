"""The score of a venue's liquidity reward (`quoting.md` 2.7, `polymarket.md` 5), in integers.

Both outcomes stand folded into the YES book: a bid on NO is an ask here. Scores are numerators over `scale(rule)`,
which cancels in every ratio. It knows no account, no clock and no payment day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_maker.core.values import RewardRule, Side

ONE_SIDED_DIVISOR = 3
"""c of the rule: a one-sided maker gets a third, where the midpoint allows it at all."""


def scale(rule: RewardRule) -> int:
    """What a score is divided by to read as quantity units: S(v, s) = ((v - s) / v)^2 with half price units."""
    return (2 * rule.max_spread) ** 2


def score(rule: RewardRule, price: int, qty: int, mid2: int) -> int:
    """S(v, s) x qty, times `scale`; `mid2` is twice the midpoint. 0 from `max_spread` on or under the minimum size."""
    room = 2 * rule.max_spread - abs(2 * price - mid2)
    return room * room * qty if room > 0 and qty >= rule.min_qty else 0


def sides(rule: RewardRule, quotes: Iterable[tuple[Side, int, int]], mid2: int) -> tuple[int, int]:
    """(Q_one, Q_two) of (side, price, quantity): one is what buys YES exposure, two what sells it."""
    one = two = 0
    for side, price, qty in quotes:
        if side is Side.BUY:
            one += score(rule, price, qty, mid2)
        else:
            two += score(rule, price, qty, mid2)
    return one, two


def q_min(one: int, two: int, mid2: int, payout: int) -> int:
    """max(min(one, two), max(one, two) / c) with the midpoint in [0.10, 0.90], else min(one, two); rounded down."""
    smaller, larger = min(one, two), max(one, two)
    return max(smaller, larger // ONE_SIDED_DIVISOR) if _one_sided_counts(mid2, payout) else smaller


def rivals(one: int, two: int, mid2: int, payout: int) -> int:
    """The most that makers who together show (one, two) can score: paired as far as it goes, the rest one-sided."""
    smaller, larger = min(one, two), max(one, two)
    unpaired = -((smaller - larger) // ONE_SIDED_DIVISOR) if _one_sided_counts(mid2, payout) else 0
    return smaller + unpaired


def _one_sided_counts(mid2: int, payout: int) -> bool:
    return 2 * payout <= 10 * mid2 <= 18 * payout


def midpoint2(rule: RewardRule, bids: Mapping[int, int], asks: Mapping[int, int]) -> int | None:
    """Twice the mid of the best prices that show at least the minimum size; None if a side shows none."""
    bid = max((price for price, qty in bids.items() if qty >= rule.min_qty), default=None)
    ask = min((price for price, qty in asks.items() if qty >= rule.min_qty), default=None)
    return None if bid is None or ask is None else bid + ask
