"""Requests per minute and USD per day: the seed's words, the window's edges, a restart in the middle of the day."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.values import NS_PER_S
from llm_maker.llm.budget import DAY_NS, MINUTE_NS, DailyBudget, RateLimit, to_cash

T0 = 1_700_000_000 * NS_PER_S


def test_the_seeds_words():
    rate = RateLimit(15)
    for i in range(15):
        rate.take(T0 + i * NS_PER_S)
    now = T0 + int(14.8 * NS_PER_S)
    assert rate.words(now) == "Rate limit: 15/15 RPM. Waiting 45.2s..."
    assert rate.wait_ns(T0 + MINUTE_NS - 1) == 1
    assert rate.wait_ns(T0 + MINUTE_NS) == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 40 * NS_PER_S), max_size=60))
def test_no_window_of_a_minute_holds_more_than_the_limit(limit, gaps):
    rate, now, taken = RateLimit(limit), T0, []
    for gap in gaps:
        now += gap
        if rate.wait_ns(now) == 0:
            rate.take(now)
            taken.append(now)
    for at in taken:
        assert sum(1 for t in taken if at <= t < at + MINUTE_NS) <= limit
    assert rate.wait_ns(now) <= MINUTE_NS


def test_the_budget_ends_and_begins_with_the_utc_day():
    budget, noon = DailyBudget(Decimal("0.01")), 20_000 * DAY_NS + DAY_NS // 2
    assert not budget.exhausted(noon)
    budget.charge(noon, Decimal("0.004"))
    budget.charge(noon, Decimal("0.006"))
    assert budget.exhausted(noon) and "0.0100 of 0.01 USD" in budget.words(noon)
    again = DailyBudget.from_plain(Decimal("0.01"), budget.to_plain())
    assert again.exhausted(20_001 * DAY_NS - 1), "a restart does not refill it"
    assert not again.exhausted(20_001 * DAY_NS)
    again.charge(20_001 * DAY_NS, Decimal("0.001"))
    assert again.spent_usd(20_001 * DAY_NS) == Decimal("0.001")
    assert not DailyBudget(None, day=20_000, spent_usd=Decimal(10**9)).exhausted(noon)


def test_cost_is_rounded_against_us():
    assert to_cash(Decimal("0.0000001")) == 1
    assert to_cash(Decimal("0.00123")) == 1230
    assert to_cash(Decimal(0)) == 0
