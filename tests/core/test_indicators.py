"""Indicators against TA-Lib at 1e-9 and against plain models, alone and on the engine's way through real bars, gaps and candles."""

from __future__ import annotations

import math
from random import Random

import msgspec
import numpy as np
import pytest
import talib

from llm_maker.core.bars import Bars
from llm_maker.core.brief import brief
from llm_maker.core.events import BarsLoaded, TradePrinted
from llm_maker.core.indicators import CVD_BARS, INTERVAL_NS, INTERVAL_S, MAX_PROFILE, Averages, Indicators
from llm_maker.core.values import NS_PER_S, Price, Qty, Side, logit
from tests.core.builders import T0, Rig, binary, linear

SEED = 20_261_121
NEAR = 1e-9


def oracle(x):
    """What TA-Lib says of a series, by name; nan until warm."""
    x = np.asarray(x, dtype=float)
    macd, signal, _ = talib.MACD(x, 12, 26, 9)
    return {"ema9": talib.EMA(x, 9), "ema21": talib.EMA(x, 21), "rsi": talib.RSI(x, 14), "macd": macd, "signal": signal}


def told(averages):
    """The same of ours; None until warm."""
    macd = averages.macd
    return {
        "ema9": averages.ema9.value if averages.ema9.ready else None,
        "ema21": averages.ema21.value if averages.ema21.ready else None,
        "rsi": averages.rsi.value if averages.rsi.ready else None,
        "macd": macd.value if macd.ready else None,
        "signal": macd.signal.value if macd.ready else None,
    }


def walk(seed, n, start=0.0, sd=0.02):
    dice = np.random.default_rng(seed)
    return list(start + np.cumsum(dice.normal(0.0, sd, n) * (dice.random(n) < 0.7)))


def printed(side, price, qty):
    return TradePrinted("m", Price(price), Qty(qty), Side(side), 0)


@pytest.mark.parametrize(("start", "sd"), [(0.0, 0.02), (68_000.0, 40.0)])
def test_every_value_is_that_of_talib_from_the_first_warm_bar_on(start, sd):
    print("seed", SEED)
    x = walk(SEED, 2_000, start, sd)
    theirs, averages = oracle(x), Averages()
    for i, value in enumerate(x):
        averages.push(value)
        for name, ours in told(averages).items():
            expected = theirs[name][i]
            assert (ours is None) == math.isnan(expected), (name, i)
            assert ours is None or ours == pytest.approx(expected, rel=NEAR, abs=NEAR), (name, i)
    assert averages.ready and told(averages)["macd"] is not None


def test_a_series_that_never_moved_has_no_strength_and_one_that_only_rose_all_of_it():
    for x, expected in (([1.0] * 40, 0.0), (list(range(40)), 100.0), (list(range(40, 0, -1)), 0.0)):
        averages = Averages()
        for value in x:
            averages.push(float(value))
        assert averages.rsi.value == expected == talib.RSI(np.asarray(x, dtype=float), 14)[-1]


class Path:
    """Prices and prints through `Bars` and `Indicators` as the engine leads them, and every close written down by hand."""

    def __init__(self, instrument):
        self.instrument, self.bars, self.indicators = instrument, Bars(), Indicators()
        self.closes = []
        self.end = 0

    def _closing(self, now):
        while self.end and now >= self.end:
            self.closes.append(self.bars.price)
            self.end += INTERVAL_NS
        self.end = self.end or now - now % INTERVAL_NS + INTERVAL_NS

    def price(self, price, now):
        self._closing(now)
        self.indicators.on_time(self.instrument, self.bars.price, now)
        self.bars.on_price(price, now)

    def trade(self, side, price, qty, now):
        self._closing(now)
        self.indicators.on_trade(self.instrument, printed(side, price, qty), self.bars.price, now)
        self.bars.on_trade(price, qty, now)


def drive(path, dice, steps, price, step):
    now = T0 + dice.randrange(INTERVAL_NS)
    for _ in range(steps):
        now += int(dice.expovariate(1.0) * dice.choice([2, 40, 1_500]) * NS_PER_S)
        if dice.random() < 0.7:
            price += step * dice.choice([-2, -1, 0, 1, 2])
            price = min(max(price, step), 99 * step) if path.instrument.is_binary else price
            path.price(price, now)
        else:
            path.trade(dice.choice([1, -1]), price, dice.randint(1, 500), now)
    return now, price


@pytest.mark.parametrize("make", [binary, linear])
def test_through_real_bars_with_gaps_the_values_are_those_of_talib(make):
    """Most bars of these runs are left out of `Bars` as flat; the averages have had them all."""
    for seed in range(SEED, SEED + 4):
        print("seed", seed)
        path, dice = Path(make()), Random(seed)
        price, step = (5_000, 100) if make is binary else (6_800_000, 313)
        drive(path, dice, 2_000, price, step)
        # One price after everything closes what has ended, so that the bars can be read.
        end = path.end + 3 * INTERVAL_NS
        path.price(path.bars.price + step, end)
        read = path.bars.closed(INTERVAL_S)
        assert [bar.close for bar in read] == path.closes[-len(read) :] and len(path.closes) > 1_000
        assert len(path.bars.packed[INTERVAL_S]) // 44 < 0.8 * len(path.closes), "no gap was tried"
        x = [logit(c / 10_000) if make is binary else float(c) for c in path.closes]
        theirs = oracle(x)
        for name, ours in told(path.indicators.averages).items():
            assert ours == pytest.approx(theirs[name][-1], rel=NEAR, abs=NEAR), (name, seed)


def test_the_open_bar_is_looked_at_and_not_fed():
    path = Path(binary())
    drive(path, Random(SEED), 800, 5_000, 100)
    before = msgspec.json.encode(path.indicators)
    now = path.end - 1
    seen = path.indicators.provisional(path.instrument, 6_200, now)
    theirs = oracle([logit(c / 10_000) for c in [*path.closes, 6_200]])
    assert {k: v == pytest.approx(theirs[k][-1], abs=NEAR) for k, v in told(seen).items()} == dict.fromkeys(theirs, True)
    assert msgspec.json.encode(path.indicators) == before


def test_a_silent_market_is_read_as_flat_until_now():
    path = Path(binary())
    _, price = drive(path, Random(SEED), 800, 5_000, 100)
    price = path.bars.price
    later = path.end + 40 * INTERVAL_NS + 5
    seen = path.indicators.provisional(path.instrument, price, later)
    theirs = oracle([logit(c / 10_000) for c in [*path.closes, *[price] * 42]])
    for name, ours in told(seen).items():
        assert ours == pytest.approx(theirs[name][-1], abs=NEAR), name


def test_a_silence_of_weeks_costs_no_more_than_one_of_a_day():
    long, short = Path(binary()), Path(binary())
    for path, bars in ((long, 100_000), (short, 400)):
        drive(path, Random(SEED), 400, 5_000, 100)
        price = path.bars.price
        path.price(price + 100, path.end + bars * INTERVAL_NS)
        assert path.indicators.averages.ema21.value == pytest.approx(logit(price / 10_000), abs=NEAR)
        assert path.indicators.averages.macd.value == pytest.approx(0.0, abs=NEAR)
        assert path.indicators.averages.rsi.count < 2_000
    assert long.indicators.flows == [0] * CVD_BARS and long.indicators.profile == {}


def candles(closes, end_ns):
    """Five-minute candles before `end_ns`."""
    first = end_ns - len(closes) * INTERVAL_NS
    return tuple((first + i * INTERVAL_NS, c, c + 10, c - 10, c, 0) for i, c in enumerate(closes))


def near(averages, closes):
    theirs = oracle([logit(c / 10_000) for c in closes])
    for name, ours in told(averages).items():
        assert ours == pytest.approx(theirs[name][-1], abs=NEAR), name


def history(n=200):
    dice = Random(SEED)
    return [5_000 + 10 * dice.randint(-40, 40) for _ in range(n)]


def test_candles_of_the_venue_warm_it_at_once():
    """Loaded before the first price, with a hole in them; then two hours of our own, silent but for one word at their end."""
    rig = Rig()
    rig.listed()
    start = rig.now - rig.now % INTERVAL_NS
    closes = history()
    bars = candles(closes, start)
    rig.send(BarsLoaded("m", INTERVAL_S, bars[:150] + bars[160:]))
    filled = closes[:150] + [closes[149]] * 10 + closes[160:]
    market = rig.market()
    near(market.indicators.averages, filled)
    rig.wait(1_000)
    rig.book()
    near(market.indicators.averages, [*filled, *[closes[-1]] * (1_000 // INTERVAL_S)])
    held = market.bars.price
    rig.wait(7_200)
    rig.move(6_000)
    near(market.indicators.averages, [*filled, *[closes[-1]] * 3, *[held] * 24])
    assert [bar.close for bar in market.bars.closed(INTERVAL_S)][-27:] == [closes[-1]] * 3 + [held] * 24


def test_candles_that_come_late_take_the_place_of_what_was_seen():
    """In the midst of a run: the averages begin anew from the venue's past and go on with our own bars, none fed twice."""
    rig = Rig().start()
    for step in range(30):
        rig.wait(200)
        rig.move(5_000 + 100 * (step % 7))
    rig.wait(700)
    market = rig.market()
    end = rig.now - 10 * INTERVAL_NS
    end -= end % INTERVAL_NS
    rig.send(BarsLoaded("m", INTERVAL_S, candles(history(), end)))
    assert market.indicators.next_ns == rig.now - rig.now % INTERVAL_NS + INTERVAL_NS
    near(market.indicators.averages, [bar.close for bar in market.bars.closed(INTERVAL_S)])
    rig.wait(400)
    rig.move(4_000)
    near(market.indicators.averages, [bar.close for bar in market.bars.closed(INTERVAL_S)])


def test_no_candles_and_candles_of_another_length_change_nothing():
    rig = Rig().start()
    rig.wait(1_000)
    rig.move(5_500)
    before = msgspec.json.encode(rig.market().indicators)
    rig.send(BarsLoaded("m", INTERVAL_S, ()), BarsLoaded("m", 3_600, ((T0 - 3_600 * NS_PER_S, 10, 10, 10, 10, 0),)))
    assert msgspec.json.encode(rig.market().indicators) == before


def test_a_checkpoint_brings_them_back_and_an_old_one_begins_anew():
    rig = Rig().start()
    rig.send(BarsLoaded("m", INTERVAL_S, candles(history(), T0)), printed(1, 5_200, 700))
    rig.wait(400)
    rig.move(5_500)
    other = rig.reborn()
    for twin in (rig, other):
        twin.wait(1_000)
        twin.move(5_100)
        twin.send(printed(-1, 5_100, 300))
    assert other.market().indicators == rig.market().indicators and other.saved() == rig.saved()
    assert other.market().indicators.cvd == 400 and other.market().indicators.averages.ready
    raw = msgspec.json.decode(msgspec.json.encode(rig.market()))
    del raw["indicators"]
    old = msgspec.convert(raw, type(rig.market()), strict=False)
    assert old.indicators == Indicators()


def test_the_cvd_is_taker_buying_less_selling_and_its_hour_forgets():
    path, dice = Path(binary()), Random(SEED)
    flows = []
    now = T0
    for _ in range(600):
        now += dice.randrange(60) * NS_PER_S
        side, qty = dice.choice([1, -1]), dice.randint(1, 900)
        path.trade(side, 5_000, qty, now)
        flows.append((now - now % INTERVAL_NS, side * qty))
        assert path.indicators.cvd == sum(flow for _, flow in flows)
    for bars in (0, 1, 7, 11, 12, 30):
        later = now + bars * INTERVAL_NS
        first = later - later % INTERVAL_NS - (CVD_BARS - 1) * INTERVAL_NS
        line = path.indicators.line(path.instrument, 5_000, later)
        expected = sum(flow for start, flow in flows if start >= first) / 100
        assert f"CVD 1h {expected:+.0f}" in line, (bars, line)


def test_the_profile_is_that_of_a_plain_model_and_stays_bounded():
    path, dice = Path(binary()), Random(SEED)
    prints, now = [], T0
    for _ in range(1_500):
        now += int(dice.expovariate(1 / 60) * NS_PER_S)
        price = 5_000 + 100 * round(dice.gauss(0, 3))
        path.trade(dice.choice([1, -1]), price, dice.randint(1, 900), now)
        prints.append((now // INTERVAL_NS, price, path.indicators.profile))
    bar = now // INTERVAL_NS
    plain, dice, then = {}, Random(SEED), T0
    for _ in range(1_500):
        then += int(dice.expovariate(1 / 60) * NS_PER_S)
        price = 5_000 + 100 * round(dice.gauss(0, 3))
        dice.choice([1, -1])
        plain[price] = plain.get(price, 0.0) + dice.randint(1, 900) * 0.5 ** ((bar - then // INTERVAL_NS) * INTERVAL_S / 43_200)
    total = sum(plain.values())
    ours = path.indicators.profile
    assert all(ours.get(price, 0.0) == pytest.approx(volume, abs=0.003 * total) for price, volume in plain.items())
    area = path.indicators.value_area()
    assert area.poc == max(plain, key=plain.get)
    inside = sum(volume for price, volume in plain.items() if area.low <= price <= area.high)
    edge = max(plain[area.low], plain[area.high])
    assert 0.7 * total <= inside + 0.003 * total and inside - edge < 0.7 * total
    for price in range(1, 10_000, 7):
        path.trade(1, price, 5, now)
    assert len(path.indicators.profile) == MAX_PROFILE and area.poc in path.indicators.profile


@pytest.mark.parametrize(
    ("volumes", "area"),
    [
        ({50: 100}, (50, 50, 50)),
        ({49: 30, 50: 100, 51: 20}, (50, 49, 50)),
        ({49: 30, 50: 60, 51: 30}, (50, 49, 51)),
        ({10: 5, 50: 60, 51: 30, 90: 5}, (50, 50, 51)),
    ],
)
def test_the_value_area_grows_from_the_price_with_the_most(volumes, area):
    shown = Indicators(profile={k: float(v) for k, v in volumes.items()}, step=1)
    assert shown.value_area() == area
    mirrored = Indicators(profile={100 - k: float(v) for k, v in volumes.items()}, step=1)
    assert mirrored.value_area() == (100 - area[0], 100 - area[2], 100 - area[1])


def test_the_model_is_told_in_one_line_once_all_of_it_is_warm():
    rig = Rig().start()
    for bar in range(40):
        assert (brief(rig.state, rig.market(), rig.now).indicators == "") == (bar < 34), bar
        rig.wait(INTERVAL_S)
        rig.move(5_000 + 100 * (bar % 5))
    rig.send(printed(1, 5_300, 1_200), printed(-1, 5_200, 200))
    line = brief(rig.state, rig.market(), rig.now).indicators
    assert line.startswith("log-odds EMA9 +0.0") and line.endswith("CVD 1h +10, POC 0.53 (0.53-0.53)"), line
    assert [word for word in ("EMA21", "RSI14", "MACD", "signal") if word not in line] == [] and "\n" not in line


def test_a_price_at_the_end_of_the_scale_is_a_number():
    path = Path(binary())
    for bar in range(60):
        path.price(10_000 if bar % 2 else 0, T0 + bar * INTERVAL_NS)
    assert all(math.isfinite(value) for value in told(path.indicators.averages).values())
    assert "nan" not in path.indicators.line(path.instrument, 10_000, T0 + 60 * INTERVAL_NS)


def test_the_mirror_of_a_market_has_the_mirrored_averages():
    ours, theirs = Path(binary()), Path(binary())
    dice, price, now = Random(SEED), 5_000, T0
    for _ in range(1_000):
        now += dice.randrange(200) * NS_PER_S
        price = min(max(price + 50 * dice.randint(-3, 3), 100), 9_900)
        ours.price(price, now)
        theirs.price(10_000 - price, now)
    a, b = told(ours.indicators.averages), told(theirs.indicators.averages)
    assert {name: -value for name, value in a.items() if name != "rsi"} == {n: v for n, v in b.items() if n != "rsi"}
    assert a["rsi"] == pytest.approx(100.0 - b["rsi"], abs=NEAR)
