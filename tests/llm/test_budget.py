"""Requests per minute and USD per day: the seed's words, the window's edges, midnight, a restart, calls side by side."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.values import NS_PER_S
from llm_maker.llm.budget import DAY_NS, MINUTE_NS, DailyBudget, Pricer, RateLimit, Usage, to_cash

T0 = 1_700_000_000 * NS_PER_S
NOON = 20_000 * DAY_NS + DAY_NS // 2
CENT = Decimal("0.01")


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
    budget = DailyBudget(CENT)
    assert not budget.exhausted(NOON)
    budget.charge(NOON, Decimal("0.004"))
    budget.charge(NOON, Decimal("0.006"))
    assert budget.exhausted(NOON) and "0.0100 of 0.01 USD" in budget.words(NOON)
    again = DailyBudget.from_plain(CENT, budget.to_plain())
    assert again.exhausted(20_001 * DAY_NS - 1), "a restart does not refill it"
    assert not again.exhausted(20_001 * DAY_NS)
    again.charge(20_001 * DAY_NS, Decimal("0.001"))
    assert again.spent_usd(20_001 * DAY_NS) == Decimal("0.001")
    assert not DailyBudget(None, day=20_000, spent_usd=Decimal(10**9)).exhausted(NOON)


def test_what_is_set_aside_is_not_there_for_another():
    budget = DailyBudget(CENT)
    first = budget.reserve(NOON, Decimal("0.006"))
    assert first is not None and budget.reserve(NOON, Decimal("0.006")) is None
    second = budget.reserve(NOON, Decimal("0.004"))
    assert second is not None and budget.exhausted(NOON) and budget.spent_usd(NOON) == 0
    budget.settle(first, Decimal("0.001"))
    assert budget.spent_usd(NOON) == Decimal("0.001") and budget.holds(NOON, Decimal("0.005"))
    assert not budget.holds(NOON, Decimal("0.0051"))
    budget.release(second)
    budget.settle(first, Decimal(5))
    assert budget.spent_usd(NOON) == Decimal("0.001"), "settled once"
    budget.charge(NOON, Decimal("0.02"))
    assert budget.reserve(NOON, Decimal(0)) is not None, "a call that costs nothing is always held"
    assert budget.reserve(NOON, Decimal("0.0000001")) is None


def test_a_call_belongs_to_the_day_on_which_it_was_begun():
    midnight = 20_001 * DAY_NS
    budget = DailyBudget(CENT)
    late = budget.reserve(midnight - 1, CENT)
    assert late is not None and budget.reserve(midnight - 1, CENT) is None
    assert not budget.exhausted(midnight) and budget.to_plain() == {"day": "20000", "spent_usd": "0.01"}
    early = budget.reserve(midnight, CENT)
    assert early is not None
    budget.settle(late, CENT)
    assert budget.spent_usd(midnight) == 0, "yesterday's bill"
    budget.settle(early, Decimal("0.003"))
    assert budget.spent_usd(midnight) == Decimal("0.003")


def test_a_restart_counts_what_was_set_aside_and_each_change_is_kept():
    kept = []
    budget = DailyBudget(CENT, keep=kept.append)
    budget.charge(NOON, Decimal("0.001"))
    reservation = budget.reserve(NOON, Decimal("0.009"))
    killed = DailyBudget.from_plain(CENT, kept[-1])
    assert killed.spent_usd(NOON) == CENT and killed.exhausted(NOON)
    budget.settle(reservation, Decimal("0.002"))
    assert kept[-1] == {"day": "20000", "spent_usd": "0.003"} and len(kept) == 3
    for damaged in ({}, {"day": "x", "spent_usd": "0"}, {"day": "1", "spent_usd": "NaN"}, {"day": "1", "spent_usd": "-1"}):
        with pytest.raises((KeyError, ValueError, ArithmeticError)):
            DailyBudget.from_plain(CENT, damaged)


def test_a_clock_that_steps_back_refills_nothing():
    midnight = 20_001 * DAY_NS
    budget = DailyBudget(CENT)
    budget.charge(midnight, CENT)
    assert budget.exhausted(midnight - 1) and budget.reserve(midnight - 1, CENT) is None
    assert budget.exhausted(midnight)
    ahead = DailyBudget(CENT)  # a clock that had been a year ahead: no day is locked for ever
    ahead.charge(20_365 * DAY_NS, CENT)
    assert ahead.exhausted(NOON)
    ahead.charge(NOON, Decimal(0))
    assert ahead.exhausted(NOON) and not ahead.exhausted(NOON + DAY_NS)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2_000),
    st.lists(
        st.tuples(st.sampled_from(("begin", "end", "wait", "restart")), st.integers(0, 900), st.integers(0, 100)), max_size=80
    ),
)
def test_no_order_of_calls_makes_a_day_dearer_than_its_limit(limit, steps):
    """Calls begin and end in any order, over midnights and restarts; each costs up to what was set aside for it."""
    budget, now, under_way, bill = DailyBudget(Decimal(limit)), NOON, [], {}
    for what, amount, percent in steps:
        if what == "begin":
            reservation = budget.reserve(now, Decimal(amount))
            if reservation is not None:
                under_way.append((now // DAY_NS, reservation))
        elif what == "end" and under_way:
            day, reservation = under_way.pop(amount % len(under_way))
            cost = reservation.usd * percent / 100
            budget.settle(reservation, cost)
            bill[day] = bill.get(day, Decimal(0)) + cost
        elif what == "wait":
            now += amount * MINUTE_NS
        elif what == "restart":
            budget = DailyBudget.from_plain(budget.limit_usd, budget.to_plain())
            for day, reservation in under_way:  # killed under way: nobody knows what they cost, at most the whole
                bill[day] = bill.get(day, Decimal(0)) + reservation.usd
            under_way = []
        open_usd = sum((r.usd for day, r in under_way if day == now // DAY_NS), Decimal(0))
        assert bill.get(now // DAY_NS, Decimal(0)) + open_usd <= limit
    assert all(usd <= limit for usd in bill.values())
    assert not under_way or Decimal(budget.to_plain()["spent_usd"]) >= 0


def _at(hour, minute=0, second=0):
    return int(datetime(2026, 11, 23, hour, minute, second, tzinfo=UTC).timestamp()) * NS_PER_S


def test_the_worst_of_a_call_is_never_less_than_the_call():
    for price_id, model in (("anthropic", "claude-haiku-5-5"), ("openai", "gpt-6-luna"), ("deepseek", "deepseek-flash")):
        pricer, now = Pricer(price_id, model), _at(0, 59, 50)
        worst = pricer.worst(10_000, 1_000, now)
        for cached, written in ((0, 0), (10_000, 0), (0, 10_000), (4_000, 6_000), (9_000, 9_000)):
            usage = Usage(input=10_000, cached=cached, cache_write=written, output=1_000)
            for later in (now, now + 30 * NS_PER_S):
                assert pricer.cost(usage, None, later).usd <= worst, (model, cached, written)
        assert pricer.worst(20_000, 1_000, now) > worst


def test_a_written_cache_costs_more_and_a_peak_hour_too():
    claude, deepseek = Pricer("anthropic", "claude-haiku-5-5"), Pricer("deepseek", "deepseek-flash")
    plain, written = Usage(input=10_000), Usage(input=10_000, cache_write=10_000)
    assert claude.cost(plain, None, T0).usd * 5 == claude.cost(written, None, T0).usd * 4
    assert deepseek.cost(plain, None, _at(1)).usd == 2 * deepseek.cost(plain, None, _at(0)).usd
    assert deepseek.worst(10_000, 0, _at(0)) == deepseek.cost(plain, None, _at(0)).usd
    assert deepseek.worst(10_000, 0, _at(0, 59)) == deepseek.cost(plain, None, _at(1)).usd, "dearer before it has ended"


def test_the_worst_of_an_unknown_a_local_and_a_configured_price():
    assert Pricer("", "nobody-knows").worst(1_000, 1_000, T0) is None
    assert Pricer("openai", "no-such-model").worst(1_000, 1_000, T0) is None
    assert Pricer("", "m", local=True).worst(10**6, 10**6, T0) == 0
    assert Pricer("", "m", per_million=(Decimal(1), Decimal(2))).worst(10**6, 10**6, T0) == 3


def test_cost_is_rounded_against_us():
    assert to_cash(Decimal("0.0000001")) == 1
    assert to_cash(Decimal("0.00123")) == 1230
    assert to_cash(Decimal(0)) == 0
