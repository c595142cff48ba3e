"""Estimators: fair value and its mirror, volatility of simulated beliefs, jump, sweep, flow, markouts, lag."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.book import Book
from llm_maker.core.estimators import STEP_NS, Estimators, belief, fair_value
from llm_maker.core.events import BookSnapshot, TradePrinted
from llm_maker.core.lag import Lag
from llm_maker.core.markouts import MARKOUT_HORIZONS_S, Markouts
from llm_maker.core.values import NS_PER_MS, NS_PER_S, FixedGrid, Instrument, Kind, RewardRule, Side, TieredGrid, expit

PAYOUT = 10_000
T0 = 1_780_000_000 * NS_PER_S
ROOT_DAY = math.sqrt(86_400)


def binary(grid=None, reward=None, min_qty=5):
    return Instrument(
        id="m",
        venue="v",
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=0,
        grid=grid or FixedGrid(100),
        qty_step=1,
        min_qty=min_qty,
        payout=PAYOUT,
        reward=reward,
    )


LINEAR = Instrument(id="p", venue="v", kind=Kind.LINEAR, price_decimals=2, qty_decimals=3, grid=FixedGrid(1), qty_step=1, min_qty=1)


def book_of(bids, asks, payout=PAYOUT):
    book = Book(payout=payout)
    book.apply_snapshot(BookSnapshot("m", tuple(bids), tuple(asks), 1), T0)
    return book


def around(mid, half=100, qty=50, payout=PAYOUT):
    return book_of([(mid - half, qty)], [(mid + half, qty)], payout)


def mirrored(book):
    return book_of(
        [(PAYOUT - price, qty) for price, qty in book.asks.items()],
        [(PAYOUT - price, qty) for price, qty in book.bids.items()],
    )


# Fair value.


def test_fair_leans_half_of_the_way_to_the_weighted_mid():
    book = book_of([(4_900, 20), (4_800, 20), (4_700, 35), (4_600, 999)], [(5_100, 10), (5_200, 10), (5_300, 5)])
    assert fair_value(binary(), book) == 5_000 + (0.75 * 5_100 + 0.25 * 4_900 - 5_000) / 2


def test_dust_has_no_say():
    plain = book_of([(4_900, 20)], [(5_100, 10)])
    dusty = book_of([(4_950, 4), (4_900, 20)], [(5_100, 10), (5_150, 4)])
    assert fair_value(binary(), dusty) == pytest.approx(fair_value(binary(), plain))
    rewarded = binary(reward=RewardRule(max_spread=300, min_qty=15, pool_per_day=1))
    assert fair_value(rewarded, book_of([(4_900, 20)], [(5_100, 14)])) == 5_000


def test_fair_stays_within_the_best_prices_even_when_they_are_dust():
    assert fair_value(binary(), book_of([(5_080, 1), (4_000, 50)], [(5_100, 50)])) == 5_080


book_sides = st.dictionaries(st.integers(1, 4_999), st.integers(1, 10**9), min_size=1, max_size=6)


@given(bids=book_sides, asks=book_sides, shift=st.integers(-4_000, 4_000))
@settings(max_examples=200, deadline=None)
def test_a_mirrored_book_has_exactly_the_mirrored_fair(bids, asks, shift):
    bids = {p + shift: q for p, q in bids.items() if 0 < p + shift < PAYOUT}
    asks = {PAYOUT - p + shift: q for p, q in asks.items() if 0 < PAYOUT - p + shift < PAYOUT}
    book = book_of(bids.items(), asks.items())
    if not book.two_sided:
        return
    fair = fair_value(binary(), book)
    assert PAYOUT - fair == fair_value(binary(), mirrored(book))
    assert book.best_bid <= fair <= book.best_ask
    assert belief(binary(), fair) == -belief(binary(), PAYOUT - fair)


def test_belief_is_clipped():
    assert belief(binary(), 1) == -6.0 and belief(binary(), PAYOUT - 1) == 6.0 and belief(LINEAR, math.e) == 1.0


@pytest.mark.parametrize("grid", [FixedGrid(100), TieredGrid(((1_000, 10), (9_000, 100), (10_000, 10)))])
def test_everything_measured_on_a_mirrored_market_is_the_same_or_opposite(grid):
    dice = random.Random(4)
    instrument, ours, theirs, mid = binary(grid), Estimators(), Estimators(), 1_500
    for i in range(4_000):
        now = T0 + i * 250 * NS_PER_MS
        mid = min(max(mid + dice.choice([-100, 0, 0, 0, 100]), 300), 9_700)
        half = dice.choice([100, 200])
        book = book_of([(mid - half, dice.randint(1, 90))], [(mid + half, dice.randint(1, 90))])
        for estimators, seen, sign in ((ours, book, 1), (theirs, mirrored(book), -1)):
            price = 5_000 + sign * (mid - 5_000)
            event = TradePrinted("m", price, 1 + i % 60, Side(sign * (1 if i % 3 else -1)), i + 1)
            estimators.on_trade(instrument, seen, event, now, 0.8)
            estimators.on_top(instrument, seen, now, 5)
            estimators.on_clock(instrument, seen, now)
        assert theirs.fair == PAYOUT - ours.fair and theirs.flow == -ours.flow
        assert (theirs.jumped_ns, theirs.swept_ns) == (ours.jumped_ns, ours.swept_ns)
    assert ours.jumped_ns and ours.swept_ns and ours.sig_x == theirs.sig_x and ours.flow_z == -theirs.flow_z
    assert ours.volatility_ratio == theirs.volatility_ratio and ours.jump_var == theirs.jump_var


# Volatility.


def simulate(dice, instrument, steps, sig_day, *, noise=0.0, jump_at=None, linear=False, estimators=None, start_ns=T0):
    """Simulated beliefs on the 10 s clock, seen through a fine book; returns the estimators."""
    estimators = estimators or Estimators()
    x, payout = (math.log(6_800_000) if linear else 0.2), 0 if linear else PAYOUT * 10_000
    for i in range(steps):
        x += dice.gauss(0, sig_day / ROOT_DAY * math.sqrt(10)) + (0.5 if i == jump_at else 0)
        seen = x + dice.gauss(0, noise)
        mid = round(math.exp(seen) * 1_000 if linear else expit(seen) * payout)
        estimators.on_clock(instrument, around(mid, 1, payout=payout), start_ns + i * STEP_NS)
    return estimators


FINE = msgspec.structs.replace(binary(FixedGrid(1)), price_decimals=8, payout=PAYOUT * 10_000)


@pytest.mark.parametrize(("sig_day", "noise"), [(0.5, 0.0), (2.0, 0.0), (2.0, 0.01)])
def test_volatility_is_recovered_with_noise_and_without(sig_day, noise):
    """Simulated: a diffusion of known volatility; half-life 30 min leaves an error of about a tenth."""
    found = [simulate(random.Random(seed), FINE, 1_500, sig_day, noise=noise).sig_x * ROOT_DAY for seed in range(6)]
    assert sum(found) / 6 == pytest.approx(sig_day, rel=0.15), found


def test_a_jump_is_flagged_and_kept_out_of_the_diffusion():
    calm = simulate(random.Random(7), FINE, 600, 1.0)
    jumpy = simulate(random.Random(7), FINE, 600, 1.0, jump_at=500)
    assert calm.jumped_ns != jumpy.jumped_ns == T0 + 500 * STEP_NS
    assert jumpy.sig_x < 1.6 * calm.sig_x
    assert jumpy.jump_var > 3 * jumpy.sig_x**2 > 0
    extra = jumpy.variance(FINE, FINE.payout / 2, 60) - calm.variance(FINE, FINE.payout / 2, 60)
    assert extra > 60 * jumpy.jump_var * (FINE.payout / 4) ** 2 * 0.9


def test_linear_volatility_is_of_the_log_price():
    fine = msgspec.structs.replace(LINEAR, price_decimals=5)
    estimators = simulate(random.Random(3), fine, 1_500, 0.04, linear=True)
    assert estimators.sig_x * ROOT_DAY == pytest.approx(0.04, rel=0.2)
    assert estimators.sig_price(fine, 100.0) == 100.0 * estimators.sig_x
    assert estimators.variance(fine, 100.0, 10.0) == pytest.approx(1e4 * 10 * (estimators.sig_x**2 + estimators.jump_var))


def test_volatility_is_sampled_on_the_clock_and_not_per_event():
    estimators, instrument = Estimators(), binary()
    for i in range(100):
        estimators.on_clock(instrument, around(5_000 + 100 * (i % 2)), T0 + i * 50 * NS_PER_MS)
    assert estimators.steps == 0 and estimators.last_step_ns == T0


def test_a_hole_in_the_book_breaks_the_chain():
    estimators, instrument = Estimators(), binary()
    closed = Book(payout=PAYOUT)
    for i, book in enumerate([around(5_000), around(5_000), closed, around(7_000), around(7_000)]):
        estimators.on_clock(instrument, book, T0 + i * STEP_NS)
    estimators.on_clock(instrument, around(3_000), T0 + 50 * STEP_NS)
    assert estimators.steps == 2 and estimators.jumped_ns == 0 and estimators.fair == 3_000


def test_volatility_has_a_prior_and_a_floor():
    estimators, instrument = Estimators(), binary()
    assert estimators.sig_price(instrument, 5_000) == pytest.approx(2_500 * 0.3 / ROOT_DAY)
    for i in range(5_000):
        estimators.on_clock(instrument, around(5_000), T0 + i * STEP_NS)
    assert estimators.sig_x * ROOT_DAY == pytest.approx(0.12)
    assert estimators.sig_price(instrument, 1_000) == pytest.approx(0.9 * 1_000 * estimators.sig_x)


@pytest.mark.parametrize("price", [1, 50, 5_000, 9_950])
def test_variance_is_bounded_by_p_times_one_less_p(price):
    estimators = simulate(random.Random(1), FINE, 100, 3.0)
    bound = price * (PAYOUT - price)
    assert estimators.variance(binary(), price, 1e9) == bound
    assert 0 < estimators.variance(binary(), price, 1.0) < bound


def test_volatility_ratio_rises_in_a_storm_and_not_by_one_tick():
    estimators = simulate(random.Random(5), FINE, 2_000, 0.5)
    assert 0.5 < estimators.volatility_ratio < 2.0
    later = T0 + 2_000 * STEP_NS
    simulate(random.Random(6), FINE, 60, 6.0, estimators=estimators, start_ns=later)
    assert estimators.volatility_ratio > 4.0
    quiet, instrument = Estimators(), binary()
    assert quiet.volatility_ratio == 1.0
    for i in range(500):
        quiet.on_clock(instrument, around(5_000 if i < 499 else 5_100), T0 + i * STEP_NS)
    assert 0.5 < quiet.volatility_ratio < 1.5 and quiet.jumped_ns == 0
    quiet.on_clock(instrument, around(5_600), T0 + 500 * STEP_NS)
    assert quiet.volatility_ratio > 3.0 and quiet.jumped_ns == T0 + 500 * STEP_NS


def test_the_median_follows_a_lasting_change_within_a_day():
    estimators = simulate(random.Random(5), FINE, 500, 0.5)
    before = estimators.sig_5m_median * ROOT_DAY
    simulate(random.Random(6), FINE, 8_640, 2.0, estimators=estimators, start_ns=T0 + 500 * STEP_NS)
    assert before == pytest.approx(0.5, rel=0.3) and estimators.sig_5m_median * ROOT_DAY == pytest.approx(2.0, rel=0.2)


# Jump and sweep.


@pytest.mark.parametrize(
    ("path", "jumps"),
    [
        ([(0, 5_000), (1, 5_200), (2, 5_500)], True),
        ([(0, 5_000), (1, 5_200), (2, 5_400)], False),
        ([(0, 5_000), (60, 4_500)], True),
        ([(0, 5_000), (5, 5_300), (15, 5_500)], True),
        ([(0, 5_000), (5, 5_300), (16, 5_500)], False),
        ([(0, 5_000), (5, 5_200), (17, 5_500)], False),
        ([(0, 5_000), (1, 4_800), (2, 5_300)], True),
    ],
)
def test_a_fast_move_of_the_mid_is_a_jump(path, jumps):
    estimators = Estimators()
    for at_s, mid in path:
        estimators.on_top(binary(), around(mid), T0 + at_s * NS_PER_S, 5)
    assert estimators.jumped_ns == (T0 + path[-1][0] * NS_PER_S if jumps else 0)


def test_one_jump_is_one_event():
    estimators = Estimators()
    for at_s, mid in [(0, 5_000), (1, 5_600), (2, 5_700), (3, 5_600)]:
        estimators.on_top(binary(), around(mid), T0 + at_s * NS_PER_S, 5)
    assert estimators.jumped_ns == T0 + NS_PER_S


def test_an_untrusted_book_measures_nothing():
    estimators, book = Estimators(), around(5_000)
    estimators.on_top(binary(), book, T0, 5)
    book.lose(T0, "feed")
    estimators.on_top(binary(), book, T0 + 1, 5)
    estimators.on_trade(binary(), book, TradePrinted("m", 5_100, 10**9, Side.BUY, 5), T0 + 1, 0.8)
    assert estimators.fair == 5_000 and estimators.swept_ns == 0


DEEP = ([(4_900, 99)], [(5_100, 50), (5_200, 30), (5_300, 20), (5_400, 999)])


@pytest.mark.parametrize(
    ("prints", "swept"),
    [
        ([(80, Side.BUY, 7)], True),
        ([(79, Side.BUY, 7)], False),
        ([(79, Side.SELL, 7)], False),
        ([(80, Side.SELL, 7)], True),
        ([(40, Side.BUY, 7), (40, Side.BUY, 7)], True),
        ([(40, Side.BUY, 7), (40, Side.BUY, 8)], False),
        ([(40, Side.BUY, 0), (40, Side.BUY, 0)], False),
        ([(40, Side.BUY, 7), (40, Side.SELL, 7)], False),
    ],
)
def test_a_sweep_takes_most_of_three_levels(prints, swept):
    estimators, book = Estimators(), book_of(*DEEP)
    for qty, side, ts in prints:
        estimators.on_trade(binary(), book, TradePrinted("m", 5_100, qty, side, ts), T0, 0.8)
    assert estimators.swept_ns == (T0 if swept else 0)


# Flow.


def test_flow_decays_by_half_in_two_minutes():
    estimators, book = Estimators(), around(5_000)
    estimators.on_trade(binary(), book, TradePrinted("m", 5_100, 40, Side.BUY, 1), T0, 0.8)
    estimators.on_trade(binary(), book, TradePrinted("m", 4_900, 10, Side.SELL, 2), T0 + 120 * NS_PER_S, 0.8)
    assert estimators.flow == pytest.approx(10.0)
    assert estimators.avg_trade == pytest.approx(40 - 0.05 * 30)
    estimators.on_clock(binary(), book, T0 + 240 * NS_PER_S)
    assert estimators.flow == pytest.approx(5.0)


def test_flow_z_and_trade_rate_find_their_level():
    """Simulated: one print a second of a random side."""
    dice, estimators, book = random.Random(2), Estimators(), around(5_000)
    assert estimators.flow_z == 0.0
    squares = []
    for i in range(6_000):
        now = T0 + i * NS_PER_S
        side = dice.choice([Side.BUY, Side.SELL])
        estimators.on_trade(binary(), book, TradePrinted("m", 5_000, 3, side, i + 1), now, 0.8)
        estimators.on_clock(binary(), book, now)
        squares.append(estimators.flow_z**2)
    assert estimators.trade_rate == pytest.approx(1.0, rel=0.05) and estimators.avg_trade == pytest.approx(3)
    assert 0.5 < sum(squares[1_000:]) / 5_000 < 2.0


def test_estimators_survive_a_checkpoint():
    dice, whole, instrument = random.Random(9), Estimators(), binary()
    half = Estimators()
    for i in range(400):
        now, mid = T0 + i * 3 * NS_PER_S, 5_000 + 100 * dice.randint(-4, 4)
        for estimators in (whole, half):
            estimators.on_trade(instrument, around(mid), TradePrinted("m", mid, 7, Side.BUY, i + 1), now, 0.8)
            estimators.on_top(instrument, around(mid), now, 5)
            estimators.on_clock(instrument, around(mid), now)
        if i % 50 == 0:
            half = msgspec.json.decode(msgspec.json.encode(half), type=Estimators)
    assert half == whole and whole.steps > 100
    assert all(math.isfinite(v) for v in json.loads(msgspec.json.encode(whole)).values() if isinstance(v, float))


# Markouts.


def test_markouts_measure_cost_and_capture_per_side_and_horizon():
    markouts = Markouts()
    assert markouts.adverse(Side.BUY, 60) is None and markouts.capture(Side.SELL) is None
    markouts.on_fill(Side.BUY, 4_900, 50, 5_000.0, T0)
    markouts.on_fill(Side.SELL, 5_150, 50, 5_000.0, T0)
    mids = {1: 4_990.0, 10: 4_950.0, 60: 5_020.0, 300: 5_000.0, 3_600: 4_000.0}
    for second in range(3_601):
        markouts.on_clock(mids.get(second, 4_444.0), T0 + second * NS_PER_S)
    for horizon_s, mid in mids.items():
        assert markouts.adverse(Side.BUY, horizon_s) == pytest.approx(5_000 - mid)
        assert markouts.adverse(Side.SELL, horizon_s) == pytest.approx(mid - 5_000)
    assert (markouts.capture(Side.BUY), markouts.capture(Side.SELL)) == (pytest.approx(100), pytest.approx(150))
    assert markouts.pending == [] and markouts.dropped == 0


def test_markouts_weigh_by_quantity_and_forget():
    markouts = Markouts()
    markouts.on_fill(Side.BUY, 4_900, 1, 5_000.0, T0)
    for _ in range(300):
        markouts.on_fill(Side.BUY, 4_990, 10, 5_000.0, T0)
    assert markouts.capture(Side.BUY) == pytest.approx(10, rel=1e-3)
    even = Markouts()
    even.on_fill(Side.BUY, 4_900, 25, 5_000.0, T0)
    even.on_fill(Side.BUY, 5_000, 75, 5_000.0, T0)
    assert even.capture(Side.BUY) == pytest.approx(25, rel=0.05)


def test_waiting_markouts_are_bounded_and_late_ones_lapse():
    markouts = Markouts()
    for i in range(300):
        markouts.on_fill(Side.BUY, 4_900, 5, 5_000.0, T0 + i)
    assert len(markouts.pending) == 256 and markouts.dropped == 44
    markouts.on_clock(None, T0 + 60 * NS_PER_S)
    markouts.on_clock(4_000.0, T0 + 61 * NS_PER_S)
    assert markouts.adverse(Side.BUY, 1) is None and markouts.adverse(Side.BUY, 10) is None
    assert markouts.adverse(Side.BUY, 60) == pytest.approx(1_000) and markouts.dropped == 44 + 2 * 256
    assert msgspec.json.decode(msgspec.json.encode(markouts), type=Markouts) == markouts
    assert {abs(key) for key in markouts.costs} < set(MARKOUT_HORIZONS_S)


# Lag.


def test_lag_is_measured_against_the_earliest():
    lag, offset = Lag(), 7 * NS_PER_S
    for i, (late_ms, seen_ms) in enumerate([(50, 0), (0, 0), (90, 90), (1_500, 1_500), (1, 1)]):
        now = T0 + i * NS_PER_S + late_ms * NS_PER_MS
        found = lag.on_message(now, T0 + i * NS_PER_S - offset)
        assert found == lag.lag_ns == pytest.approx(seen_ms * NS_PER_MS, abs=NS_PER_MS)
    assert lag.on_message(T0 + 60 * NS_PER_S, 0) == found
    assert msgspec.json.decode(msgspec.json.encode(lag), type=Lag) == lag


def test_a_lasting_lag_stays_seen_for_over_an_hour():
    lag = Lag()
    lag.on_message(T0, T0)
    for second in range(1, 3_600):
        now = T0 + second * NS_PER_S
        assert lag.on_message(now, now - 2 * NS_PER_S) > 1.2 * NS_PER_S


@pytest.mark.parametrize("ppm", [100, -100])
def test_a_drifting_clock_makes_no_lag(ppm):
    lag = Lag()
    for second in range(0, 86_400, 10):
        now = T0 + second * NS_PER_S
        assert lag.on_message(now, now - ppm * second * 1_000) < 10 * NS_PER_MS
