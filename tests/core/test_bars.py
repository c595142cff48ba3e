"""Closed bars: right against a plain model, flat where nothing happened, bounded, honest about what is not known."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.bars import INTERVALS_S, LIMIT, Bar, Bars
from llm_maker.core.events import BarsLoaded
from llm_maker.core.values import NS_PER_S

T0 = 1_780_272_000 * NS_PER_S
MINUTE = 60 * NS_PER_S
assert T0 % (86_400 * NS_PER_S) == 0


def row(bar):
    return (bar.open, bar.high, bar.low, bar.close, bar.volume)


def test_a_minute_closes_with_its_prices_and_prints():
    bars = Bars()
    bars.on_price(5_000, T0 + 5 * NS_PER_S)
    bars.on_price(5_100, T0 + 10 * NS_PER_S)
    bars.on_trade(5_200, 7, T0 + 20 * NS_PER_S)
    bars.on_trade(4_900, 3, T0 + 30 * NS_PER_S)
    assert bars.closed(60) == []
    bars.on_price(5_050, T0 + MINUTE)
    assert bars.closed(60) == [Bar(T0, 5_000, 5_200, 4_900, 5_100, 10)]
    bars.on_price(5_050, T0 + 2 * MINUTE)
    assert row(bars.closed(60)[-1]) == (5_100, 5_100, 5_050, 5_050, 0)


def test_quiet_minutes_are_not_kept_but_read_flat():
    bars = Bars()
    bars.on_price(5_000, T0)
    for minute in range(1, 11):
        bars.on_price(5_000, T0 + minute * MINUTE)
    bars.on_price(5_400, T0 + 10 * MINUTE + 1)
    bars.on_price(5_400, T0 + 12 * MINUTE)
    assert len(bars.packed[60]) == 2 * 44
    read = bars.closed(60)
    assert [bar.start_ns for bar in read] == [T0 + i * MINUTE for i in range(12)]
    assert row(read[9]) == (5_000, 5_000, 5_000, 5_000, 0)
    assert row(read[10]) == (5_000, 5_400, 5_000, 5_400, 0) and row(read[11]) == (5_400,) * 4 + (0,)
    assert [row(bar) for bar in bars.closed(300)] == [(5_000, 5_000, 5_000, 5_000, 0)] * 2


def test_the_same_price_within_the_bar_changes_nothing():
    bars = Bars()
    bars.on_price(5_000, T0)
    before = msgspec.json.encode(bars)
    bars.on_price(5_000, T0 + MINUTE - 1)
    assert msgspec.json.encode(bars) == before


def test_a_print_before_any_price_is_the_price():
    bars = Bars()
    bars.on_trade(4_200, 5, T0)
    bars.on_trade(4_300, 5, T0 + 1)
    assert bars.price == 4_200
    bars.on_price(4_200, T0 + MINUTE)
    assert row(bars.closed(60)[0]) == (4_200, 4_300, 4_200, 4_200, 10)


moves = st.lists(st.tuples(st.integers(1, 1_500), st.integers(1, 99), st.integers(0, 3)), min_size=1, max_size=80)


def model(points, end_ns, interval_s):
    """Bars from a list of (ns, price, qty): price in force carried, qty > 0 a print that only stretches."""
    step, bars, price = interval_s * NS_PER_S, [], points[0][1]
    inside = {}
    for at, value, qty in points:
        inside.setdefault(at - at % step, []).append((value, qty))
    for start in range(points[0][0] - points[0][0] % step, end_ns - step + 1, step):
        opened, high, low, volume = price, price, price, 0
        for value, qty in inside.get(start, ()):
            high, low, volume = max(high, value), min(low, value), volume + qty
            price = price if qty else value
        bars.append(Bar(start, opened, high, low, price, volume))
    return bars


@given(moves=moves, encode_at=st.integers(0, 80))
@settings(max_examples=100, deadline=None)
def test_every_interval_equals_a_plain_model(moves, encode_at):
    bars, now, points = Bars(), T0 + 7 * NS_PER_S, []
    for i, (gap_s, price, qty) in enumerate([(1, 50, 0), *moves]):
        now += gap_s * NS_PER_S
        points.append((now, price, qty))
        if qty:
            bars.on_trade(price, qty, now)
        else:
            bars.on_price(price, now)
        if i == encode_at:
            bars = msgspec.json.decode(msgspec.json.encode(bars), type=Bars)
    end = now + 86_400 * NS_PER_S - now % (86_400 * NS_PER_S)
    bars.on_price(bars.price, end)
    for interval_s in INTERVALS_S:
        assert bars.closed(interval_s) == model(points, end, interval_s)[-LIMIT:]


def test_bars_are_bounded_and_compact():
    bars = Bars()
    for i in range(2_000):
        bars.on_price(5_000 + i % 2, T0 + i * MINUTE)
    assert len(bars.closed(60)) == LIMIT and len(bars.packed[60]) <= 44 * (LIMIT + 40)
    assert bars.closed(60)[-1].start_ns == T0 + 1_998 * MINUTE
    assert len(bars.closed(300)) == LIMIT and len(bars.closed(3_600)) == 33 and bars.closed(86_400)[0].start_ns == T0


def test_change_over_horizons():
    bars = Bars()
    assert bars.change(T0, MINUTE) is None
    for i in range(2_000):
        bars.on_price(1_000 + i, T0 + i * MINUTE)
    now = T0 + 1_999 * MINUTE + NS_PER_S
    for minutes in (1, 5, 60):
        assert abs(bars.change(now, minutes * MINUTE) - minutes) <= 1
    assert abs(bars.change(now, 1_440 * MINUTE) - 1_440) <= 6
    assert bars.change(now, 1_999 * MINUTE) == 1_999
    assert bars.change(now, 2_001 * MINUTE) is None


def test_loaded_bars_fill_the_past_and_ours_stay():
    bars = Bars()
    candles = tuple((T0 - (5 - i) * 3_600 * NS_PER_S, 40 + i, 49, 39, 41 + i, 7) for i in range(5))
    bars.load(BarsLoaded("m", 3_600, candles))
    assert [bar.close for bar in bars.closed(3_600)] == [41, 42, 43, 44, 45]
    assert bars.change(T0, 3_600 * NS_PER_S) is None
    bars.on_price(50, T0 + NS_PER_S)
    bars.on_price(60, T0 + 3_600 * NS_PER_S)
    assert bars.closed(3_600)[-1] == Bar(T0, 50, 50, 50, 50, 0)
    assert bars.change(T0 + 3_600 * NS_PER_S, 3 * 3_600 * NS_PER_S) == 60 - 43
    bars.load(BarsLoaded("m", 3_600, (*candles, (T0, 46, 55, 45, 50, 9))))
    assert bars.closed(3_600)[-1] == Bar(T0, 46, 55, 45, 50, 9) and len(bars.closed(3_600)) == 6
    bars.load(BarsLoaded("m", 3_600, candles))
    assert len(bars.closed(3_600)) == 6
    bars.load(BarsLoaded("m", 3_600, ()))
    assert len(bars.closed(3_600)) == 6


def test_more_candles_than_the_limit_keep_the_newest():
    bars = Bars()
    bars.load(BarsLoaded("m", 60, tuple((T0 + i * MINUTE, i, i, i, i, 1) for i in range(LIMIT + 50))))
    assert len(bars.closed(60)) == LIMIT and bars.closed(60)[-1].close == LIMIT + 49


@pytest.mark.parametrize("interval_s", INTERVALS_S)
def test_an_empty_market_has_no_bars(interval_s):
    assert Bars().closed(interval_s) == []
