"""Liquidity rewards: the worked example of the venue's page, the band of midpoints, and a sample."""

import pytest

from llm_maker.core import rewards
from llm_maker.core.values import FixedGrid, Instrument, Kind, RewardRule, Side
from llm_maker.venues.paper.rewards import sample

RULE = RewardRule(max_spread=300, min_qty=20, pool_per_day=50_000_000)
PAYOUT = 10_000
MID2 = 10_000


def folded(orders):
    """(outcome, side, price, qty) -> quotes on the YES book: a bid on the complement is an ask."""
    return [(side, price, qty) if outcome == "m" else (side.other, PAYOUT - price, qty) for outcome, side, price, qty in orders]


def test_worked_example():
    one_orders = [("m", Side.BUY, 4900, 100), ("m", Side.BUY, 4800, 200), ("m'", Side.SELL, 5100, 100)]
    # 100 at 1.5c, 100 at 2c, 200 at 0.5c from the midpoint
    two_orders = [("m", Side.SELL, 5150, 100), ("m'", Side.BUY, 4800, 100), ("m", Side.SELL, 5050, 200)]
    one, two = rewards.sides(RULE, folded(one_orders + two_orders), MID2)
    unit = rewards.scale(RULE)
    assert round(one / unit, 1) == 111.1
    assert round(two / unit, 1) == 175.0
    assert round(rewards.q_min(one, two, MID2, PAYOUT) / unit, 1) == 111.1


@pytest.mark.parametrize(("mid2", "expected"), [(2_000, 100), (18_000, 100), (1_999, 0), (18_001, 0), (10_000, 100)])
def test_one_sided_scores_a_third_inside_the_band_and_nothing_outside(mid2, expected):
    assert rewards.q_min(300, 0, mid2, PAYOUT) == expected
    assert rewards.q_min(0, 300, mid2, PAYOUT) == expected


def test_far_and_small_orders_score_nothing():
    assert rewards.score(RULE, 4700, 100, MID2) == 0
    assert rewards.score(RULE, 4701, 100, MID2) > 0
    assert rewards.score(RULE, 4900, 19, MID2) == 0


def test_rivals_is_a_bound_over_every_split():
    total = rewards.rivals(10, 1, MID2, PAYOUT)
    assert total >= rewards.q_min(1, 1, MID2, PAYOUT) + rewards.q_min(9, 0, MID2, PAYOUT)


def market(**changes):
    fields = {
        "id": "M", "venue": "sim", "kind": Kind.BINARY, "price_decimals": 4, "qty_decimals": 0, "grid": FixedGrid(100),
        "qty_step": 1, "min_qty": 5, "payout": PAYOUT, "reward": RULE,
    }  # fmt: skip
    return Instrument(**fields | changes)


def test_sample_is_our_share_of_the_pool_of_one_minute():
    bids, asks = {4900: 200}, {5100: 200}
    ours = [(Side.BUY, 4900, 100), (Side.SELL, 5100, 100)]
    assert sample(market(), bids, asks, ours) == 50_000_000 // (3 * 1_440)
    assert sample(market(), bids, asks, []) == 0
    assert sample(market(reward=None), bids, asks, ours) == 0


def test_midpoint_ignores_dust():
    assert rewards.midpoint2(RULE, {4950: 1, 4900: 20}, {5100: 30}) == 10_000
    assert rewards.midpoint2(RULE, {4950: 1}, {5100: 30}) is None
