"""Exact values: grids, fees, cash and its rounding, the mirror; properties and sums worked by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_maker.core.values import (
    FeeCurve,
    FeeRule,
    FixedGrid,
    Instrument,
    InstrumentId,
    Kind,
    Leg,
    Liquidity,
    Side,
    SignificantGrid,
    TieredGrid,
    cash_flow,
    ceil_to_grid,
    complement,
    expit,
    fee,
    floor_to_grid,
    leg_price,
    leg_side,
    logit,
    rebate,
    to_cash_down,
    to_cash_up,
)

PAYOUT = 10_000
POLYMARKET = FixedGrid(100)
KALSHI = TieredGrid(((1_000, 10), (9_000, 100), (10_000, 10)))
HYPERLIQUID = SignificantGrid(figures=5, finest=1, whole=10)
"""szDecimals 5: one decimal (BTC)."""


def binary(grid=POLYMARKET, qty_decimals=6, rule=None) -> Instrument:
    return Instrument(
        id=InstrumentId("m"),
        venue="v",
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=qty_decimals,
        grid=grid,
        qty_step=10 ** max(qty_decimals - 2, 0),
        min_qty=5 * 10**qty_decimals,
        payout=PAYOUT,
        fee=rule or FeeRule(),
    )


def linear(grid=None, price_decimals=2, rule=None) -> Instrument:
    return Instrument(
        id=InstrumentId("l"),
        venue="v",
        kind=Kind.LINEAR,
        price_decimals=price_decimals,
        qty_decimals=3,
        grid=grid or FixedGrid(1),
        qty_step=1,
        min_qty=1,
        fee=rule or FeeRule(),
    )


@dataclass
class Case:
    """An instrument and the price range that its grid is for."""

    instrument: Instrument
    low: int
    high: int


CASES = {
    "fixed cent": Case(binary(), 1, PAYOUT - 1),
    "fixed quarter cent": Case(binary(FixedGrid(25)), 1, PAYOUT - 1),
    "tiered": Case(binary(KALSHI), 1, PAYOUT - 1),
    "significant": Case(linear(HYPERLIQUID, 1), 20, 20_000_000),
    "significant, fine": Case(linear(SignificantGrid(5, 1, 10**6), 6), 20, 10**12),
}


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return CASES[request.param]


# Grids.


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_grid_floor_and_ceil_enclose_the_price_with_no_grid_line_between(data):
    case = CASES[data.draw(st.sampled_from(list(CASES)))]
    grid = case.instrument.grid
    price = data.draw(st.integers(case.low, case.high))
    below, above = grid.floor(price), grid.ceil(price)
    assert below <= price <= above
    assert grid.floor(below) == below == grid.ceil(below)
    assert grid.floor(above) == above == grid.ceil(above)
    assert case.instrument.on_grid(price) is (below == above)
    if below != above:
        assert case.instrument.next_ask(below) == above
        assert case.instrument.next_bid(above) == below


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_next_bid_and_next_ask_are_each_others_way_back(data):
    case = CASES[data.draw(st.sampled_from(list(CASES)))]
    instrument = case.instrument
    steps = data.draw(st.integers(1, 5))
    margin = 10 * instrument.tick_at(case.high)
    price = instrument.grid.floor(data.draw(st.integers(case.low + 1_000, case.high - margin)))
    up, down = instrument.next_ask(price, steps), instrument.next_bid(price, steps)
    assert down < price < up
    assert instrument.next_bid(up, steps) == price
    assert instrument.next_ask(down, steps) == price
    assert instrument.next_ask(price) - price == instrument.tick_at(instrument.next_ask(price))
    assert price - instrument.next_bid(price) == instrument.tick_at(price)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_floats_round_away_from_crossing_and_grid_prices_survive_float_noise(data):
    case = CASES[data.draw(st.sampled_from(list(CASES)))]
    instrument = case.instrument
    value = data.draw(st.floats(case.low + 100, min(case.high - 200, 1e9), allow_nan=False))
    bid, ask = floor_to_grid(instrument, value), ceil_to_grid(instrument, value)
    assert bid <= value + 1e-6 and ask >= value - 1e-6 and bid <= ask
    on = instrument.grid.floor(int(value))
    assert floor_to_grid(instrument, on - 1e-7) == on == ceil_to_grid(instrument, on + 1e-7)


def test_order_price_bounds_lie_inside_the_open_interval(case):
    instrument = case.instrument
    assert instrument.min_price >= 1 and instrument.on_grid(instrument.min_price)
    if instrument.is_binary:
        assert instrument.max_price < PAYOUT and instrument.on_grid(instrument.max_price)
        assert instrument.next_ask(instrument.max_price) == PAYOUT


@pytest.mark.parametrize(
    ("grid", "price", "floor", "ceil", "tick_below"),
    [
        (POLYMARKET, 5_349, 5_300, 5_400, 100),
        (FixedGrid(25), 5_349, 5_325, 5_350, 25),
        (KALSHI, 995, 990, 1_000, 10),
        (KALSHI, 1_000, 1_000, 1_000, 10),
        (KALSHI, 1_001, 1_000, 1_100, 100),
        (KALSHI, 9_000, 9_000, 9_000, 100),
        (KALSHI, 9_001, 9_000, 9_010, 10),
        # 12345.6 has six figures: 12345 or 12346; integers are allowed at any size.
        (HYPERLIQUID, 123_456, 123_450, 123_460, 10),
        (HYPERLIQUID, 12_345, 12_345, 12_345, 1),
        (HYPERLIQUID, 100_000, 100_000, 100_000, 1),
        (HYPERLIQUID, 100_001, 100_000, 100_010, 10),
        (HYPERLIQUID, 1_234_567, 1_234_560, 1_234_570, 10),
    ],
)
def test_grid_examples(grid, price, floor, ceil, tick_below):
    assert (grid.floor(price), grid.ceil(price), grid.step_below(price)) == (floor, ceil, tick_below)


# Fees: taker fee = shares x rate x p(1-p), 5 decimals, at least 0.00001 (`polymarket.md` 4.5).


def polymarket_fee(taker_ppm: int, rebate_ppm: int = 0) -> FeeRule:
    return FeeRule(FeeCurve.VARIANCE, taker_ppm=taker_ppm, rebate_ppm=rebate_ppm, quantum=10, minimum=10)


@pytest.mark.parametrize(
    ("taker_ppm", "price", "shares_e6", "cash"),
    [
        (70_000, 5_000, 100_000_000, 1_750_000),  # crypto: 100 x 0.07 x 0.25 = 1.75
        (50_000, 3_000, 10_000_000, 105_000),  # sports: 10 x 0.05 x 0.21 = 0.105
        (40_000, 5_300, 10_120_000, 100_840),  # politics: 10.12 x 0.04 x 0.2491 = 0.10083568 -> 0.10084
        (40_000, 100, 10_000, 10),  # 0.01 x 0.04 x 0.0099 = 0.00000396 -> the minimum
        (0, 5_000, 100_000_000, 0),  # geopolitics
    ],
)
def test_polymarket_taker_fee_by_hand(taker_ppm, price, shares_e6, cash):
    instrument = binary(rule=polymarket_fee(taker_ppm))
    assert fee(instrument, price, shares_e6, Liquidity.TAKER) == cash
    assert fee(instrument, price, shares_e6, Liquidity.MAKER) == 0
    assert fee(instrument, PAYOUT - price, shares_e6, Liquidity.TAKER) == cash


def test_a_minimum_above_the_quantum_holds():
    instrument = binary(rule=FeeRule(FeeCurve.VARIANCE, taker_ppm=40_000, quantum=1, minimum=10))
    assert fee(instrument, 5_000, 1, Liquidity.TAKER) == 10
    assert fee(instrument, 5_000, 100_000, Liquidity.TAKER) == 1_000


def test_fee_does_not_depend_on_the_unit_of_quantity():
    rule = polymarket_fee(40_000)
    assert fee(binary(qty_decimals=2, rule=rule), 5_300, 1_012, Liquidity.TAKER) == 100_840
    assert fee(binary(qty_decimals=0, rule=rule), 5_000, 100, Liquidity.TAKER) == 1_000_000


@given(
    price=st.integers(1, PAYOUT - 1),
    qty=st.integers(1, 10**9),
    rate=st.integers(1, 100_000),
    share=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_fee_rounds_up_and_rebate_down_to_the_quantum(price, qty, rate, share):
    instrument = binary(rule=FeeRule(FeeCurve.VARIANCE, rate, 0, share, quantum=10))
    exact = rate * qty * price * (PAYOUT - price) / (10**6 * 10**4 * 10**4)
    charged, back = fee(instrument, price, qty, Liquidity.TAKER), rebate(instrument, price, qty)
    assert charged % 10 == 0 and back % 10 == 0
    assert exact - 1e-3 <= charged < exact + 10 + 1e-3
    assert back <= charged * share / 10**6 + 1e-3
    assert back > exact * share / 10**6 - 10 - exact * 1.1 / rate


def test_maker_rebate_by_hand():
    # sports, 15 %: 0.15 x 0.105 = 0.01575
    instrument = binary(rule=polymarket_fee(50_000, 150_000))
    assert rebate(instrument, 3_000, 10_000_000) == 15_750
    assert rebate(instrument, 3_000, 1) == 0


def test_notional_fee_of_a_linear_fill():
    # 4.5 bp of 68,000.12 x 0.001 = 68.00012 -> 0.030600054 -> up
    rule = FeeRule(FeeCurve.NOTIONAL, taker_ppm=450)
    assert fee(linear(rule=rule), 6_800_012, 1, Liquidity.TAKER) == 30_601


# Cash.


def test_linear_notional_is_exact():
    instrument = linear()
    assert to_cash_down(instrument, 6_800_012 * 1) == to_cash_up(instrument, 6_800_012 * 1) == 68_000_120


@pytest.mark.parametrize(
    ("side", "leg", "cash"),
    [
        # 0.000001 share at 0.5301 and 0.4699: below one cash unit, so it rounds against us.
        (Side.BUY, Leg.YES, -1),
        (Side.SELL, Leg.YES, 0),
        (Side.SELL, Leg.NO, -1),
        (Side.BUY, Leg.NO, 0),
    ],
)
def test_cash_of_dust_rounds_against_us(side, leg, cash):
    assert cash_flow(binary(), side, leg, 5_301, 1) == cash


@pytest.mark.parametrize(
    ("side", "price", "qty", "cash"),
    [
        (Side.BUY, 5_300, 10_000_000, -5_300_000),  # BUY 10 @ .53
        (Side.BUY, 5_300, 10_120_000, -5_363_600),  # BUY 10.12 @ .53
        (Side.SELL, 25, 7_000_000, 17_500),  # SELL 7 @ .0025
        (Side.SELL, 5_130, 5_550_000, 2_847_150),  # SELL 5.55 @ .513
    ],
)
def test_cash_is_what_the_venue_signs(side, price, qty, cash):
    assert cash_flow(binary(), side, Leg.YES, price, qty) == cash


@given(
    side=st.sampled_from(Side),
    leg=st.sampled_from((Leg.YES, Leg.NO)),
    price=st.integers(1, PAYOUT - 1),
    qty=st.integers(1, 10**9),
    decimals=st.sampled_from((0, 2, 6)),
)
@example(Side.BUY, Leg.YES, 5_301, 1, 6)
@settings(max_examples=150, deadline=None)
def test_cash_flow_rounds_against_us_by_less_than_one_unit_and_mirrors(side, leg, price, qty, decimals):
    instrument = binary(qty_decimals=decimals)
    cash = cash_flow(instrument, side, leg, price, qty)
    exact = -leg_side(side, leg) * leg_price(instrument, price, leg) * qty / 10 ** (4 + decimals - 6)
    assert exact - 1 - 1e-3 < cash <= exact + 1e-3
    other = Leg.NO if leg is Leg.YES else Leg.YES
    assert cash_flow(instrument, side.other, other, complement(instrument, price), qty) == cash
    assert (cash <= 0) is (leg_side(side, leg) is Side.BUY) or cash == 0


def test_order_quantity_is_floored_to_its_step():
    assert binary().floor_qty(10_129_999) == 10_120_000
    assert binary().floor_qty(9_999) == 0


# Log-odds.


@given(x=st.floats(-30, 30))
@settings(max_examples=100, deadline=None)
def test_expit_is_exactly_odd_around_a_half(x):
    assert expit(-x) == 1.0 - expit(x)
    assert 0.0 <= expit(x) <= 1.0


@given(n=st.integers(1, (1 << 20) - 1))
@settings(max_examples=100, deadline=None)
def test_logit_is_exactly_odd_where_the_complement_is_exact(n):
    p = n / (1 << 20)
    assert logit(1.0 - p) == -logit(p)
    assert math.isclose(expit(logit(p)), p, abs_tol=1e-12)
