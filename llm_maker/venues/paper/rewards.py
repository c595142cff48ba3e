"""One sample of a market's liquidity reward: what our orders earn beside the visible book.

The score itself is `core.rewards`. It knows no account, no clock and no payment day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_maker.core.rewards import midpoint2, q_min, rivals, sides
from llm_maker.core.values import Instrument, Side

SAMPLES_PER_DAY = 1_440


def sample(
    instrument: Instrument,
    bids: Mapping[int, int],
    asks: Mapping[int, int],
    ours: Iterable[tuple[Side, int, int]],
) -> int:
    """What one sample earns, cash units, rounded down.

    The visible book (ours is not in it) is all rivals, split among makers in the way that scores most: our share is
    never flattered. The midpoint is that of the visible book as well.
    """
    rule = instrument.reward
    if rule is None:
        return 0
    mid2 = midpoint2(rule, bids, asks)
    if mid2 is None:
        return 0
    own = q_min(*sides(rule, ours, mid2), mid2, instrument.payout)
    if own == 0:
        return 0
    shown = [(Side.BUY, price, qty) for price, qty in bids.items()]
    shown += [(Side.SELL, price, qty) for price, qty in asks.items()]
    others = rivals(*sides(rule, shown, mid2), mid2, instrument.payout)
    return rule.pool_per_day * own // ((own + others) * SAMPLES_PER_DAY)
