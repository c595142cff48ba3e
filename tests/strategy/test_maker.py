"""The maker's two rules, number by number: inventory quoting (2.1 to 2.6 of the mathematics) and the seed's touch rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.bars import Bars
from llm_maker.core.book import Book
from llm_maker.core.estimators import Estimators, fair_value
from llm_maker.core.events import BookSnapshot, OrderFilled
from llm_maker.core.positions import Position
from llm_maker.core.strategy import MarketView, View
from llm_maker.core.values import NS_PER_S, FixedGrid, Leg, Liquidity, Mode, Side
from llm_maker.strategy import fair, touch
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, MakerState
from tests.core.builders import SHARE, T0, binary, linear

BUY, SELL = Side.BUY, Side.SELL
CALM_X = 0.25 / 86_400**0.5
"""Belief volatility at which a price of 0.50 moves as `sig_ref` says: a skew of exactly `skew_max_ticks`."""


def see(bid=4900, ask=5300, *, net=0, qty=500, instrument=None, fair=None, opinion=None, depth=3, **more):
    """A market as the strategy sees it: `depth` levels of `qty` shares a side; `net` in shares."""
    instrument = instrument or binary()
    tick = instrument.tick_at(ask or bid)
    bids = tuple((bid - i * tick, qty * SHARE) for i in range(depth)) if bid else ()
    asks = tuple((ask + i * tick, qty * SHARE) for i in range(depth)) if ask else ()
    book = Book(payout=instrument.payout)
    book.apply_snapshot(BookSnapshot(instrument.id, bids, asks, 0), T0)
    estimators = Estimators(sig_x=more.pop("sig_x", CALM_X), avg_trade=more.pop("avg_trade", 0.0))
    estimators.fair = fair if fair is not None else fair_value(instrument, book) if book.two_sided else 0.0
    position = Position()
    if net:
        side, leg = (BUY, Leg.YES) if net > 0 else (SELL, Leg.NO)
        leg = leg if instrument.is_binary else Leg.NONE
        fill = OrderFilled("o", "f", instrument.id, side, leg, 5000, abs(net) * SHARE, 0, Liquidity.MAKER, True)
        position.apply_fill(instrument, fill, T0)
    view = {
        "max_position": 200 * SHARE, "base_qty": 50 * SHARE, "mode": Mode.ACTIVE, "fallback": False, "own_bid": 0, "own_ask": 0,
        "bid_depth": book.depth(BUY, 3), "ask_depth": book.depth(SELL, 3),
    }  # fmt: skip
    return MarketView(
        now=T0, instrument=instrument, book=book, estimators=estimators, bars=Bars(), position=position,
        opinion=opinion or View(), **view | more,
    )  # fmt: skip


def quote(view, **params):
    """{side: (price, shares)} and the note."""
    own = MakerState()
    wanted = Maker().on_market(view, own, MakerParams(**params))
    return {t.side: (t.price, t.qty / SHARE) for t in wanted}, own.note


def prices(view, **params):
    wanted, _ = quote(view, **params)
    return tuple(wanted[side][0] if side in wanted else None for side in (BUY, SELL))


# Improve, join, stay back (2.4).


@pytest.mark.parametrize(
    ("bid", "ask", "wanted"),
    [
        (4900, 5300, (5000, 5200)),
        (4900, 5200, (4900, 5200)),
        (5000, 5200, (5000, 5200)),
        (5000, 5100, (4900, 5200)),
    ],
)
def test_inventory_improves_from_three_ticks_where_the_edge_allows_and_never_gives_up_the_edge_floor(bid, ask, wanted):
    # Three ticks: improving to 5000 / 5100 would leave half a tick to the fair of 5050, the floor is one.
    assert prices(see(bid, ask)) == wanted


def test_one_tick_is_joined_only_behind_a_short_queue():
    short, long = {"avg_trade": 101.0 * SHARE}, {"avg_trade": 100.0 * SHARE}
    book = {"bid": 5000, "ask": 5100, "qty": 500}
    assert prices(see(**book, **short), edge_floor_ticks=0.0, quoting="inventory") == (4900, 5200), "the floor of a tick holds"
    view = see(**book, **short)
    assert [touch.candidate(view, side, MakerParams()) for side in (BUY, SELL)] == [5000, 5100]
    view = see(**book, **long)
    assert [touch.candidate(view, side, MakerParams()) for side in (BUY, SELL)] == [4900, 5200]


def test_two_ticks_are_joined_and_three_improved_by_the_tick_improvement():
    for ask, steps in ((5200, 0), (5300, 1), (5400, 1)):
        view = see(5000, ask)
        assert touch.candidate(view, BUY, MakerParams()) == 5000 + 100 * steps
        assert touch.candidate(view, SELL, MakerParams()) == ask - 100 * steps
    assert touch.candidate(see(4900, 5500), BUY, MakerParams(tick_improvement=2)) == 5100


# Reservation price and skew (2.1).


@pytest.mark.parametrize(("net", "skew"), [(200, -350.0), (100, -175.0), (-100, 175.0), (-200, 350.0)])
def test_the_skew_is_linear_in_the_position_and_reaches_its_ticks_at_the_cap(net, skew):
    view = see(5000, 5000 + 100, net=net, fair=5000.0)
    assert -view.position.net * fair.skew_per_unit(view, MakerParams()) == pytest.approx(skew)


@pytest.mark.parametrize(("sig_x", "factor"), [(CALM_X / 4, 0.5), (CALM_X * 1.5, 1.5), (CALM_X * 9, 2.0)])
def test_the_skew_follows_volatility_between_half_and_twice(sig_x, factor):
    calm, other = see(fair=5000.0), see(fair=5000.0, sig_x=sig_x)
    ratio = fair.skew_per_unit(other, MakerParams()) / fair.skew_per_unit(calm, MakerParams())
    assert ratio == pytest.approx(factor)


@pytest.mark.parametrize(
    ("net", "wanted"),
    [(0, (5000, 5200)), (60, (4800, 5200)), (-60, (5000, 5400)), (120, (4700, 5200)), (-120, (5000, 5500))],
)
def test_a_held_position_moves_the_adding_side_away_and_keeps_the_reducing_side_at_the_touch(net, wanted):
    # fair 5100; 60 shares skew by 105, 120 by 210; half a spread of one tick.
    assert prices(see(net=net)) == wanted


def test_no_skew_where_it_is_switched_off():
    assert prices(see(net=120), skew_max_ticks=0.0) == (5000, 5200)


@pytest.mark.parametrize(("target", "wanted"), [(60, (5000, 5400)), (-60, (4800, 5200))])
def test_a_wanted_position_leans_the_quotes_towards_it(target, wanted):
    assert prices(see(opinion=View(target_net=target * SHARE))) == wanted
    assert prices(see(net=target, opinion=View(target_net=target * SHARE))) == (5000, 5200), "there it leans no more"


# Half-spread (2.2, 2.3).


@pytest.mark.parametrize(
    ("more", "params", "half"),
    [
        ({}, {}, 100.0),
        ({}, {"edge_floor_ticks": 2.5}, 250.0),
        ({"fair": 1000.0}, {"edge_floor_ticks": 2.5}, 100.0),
        ({"fair": 1000.0}, {"edge_floor_ticks": 5.0}, 180.0),
        ({"widen": 2.0}, {}, 200.0),
        ({"widen": 2.0, "toxicity": 70.0}, {}, 270.0),
    ],
)
def test_the_half_spread_is_the_edge_floor_scaled_by_4p_times_1_p_widened_plus_toxicity(more, params, half):
    view = see(**{"fair": 5000.0} | more)
    assert fair.half_spread(view, view.estimators.fair, MakerParams(**params)) == pytest.approx(half)


@pytest.mark.parametrize(
    ("more", "wanted"), [({"widen": 2.0}, (4900, 5300)), ({"toxicity": 30.0}, (4900, 5300)), ({"widen": 3.0}, (4800, 5400))]
)
def test_width_moves_both_sides(more, wanted):
    assert prices(see(**more)) == wanted


def test_fair_is_the_micro_price_moved_in_log_odds():
    view = see(fair=5000.0, opinion=View(shift=0.4))
    assert fair.fair_value(view) == pytest.approx(10_000 / (1 + 2.718281828**-0.4), abs=0.02)
    assert fair.fair_value(see(fair=2000.0, opinion=View(shift=0.4))) == pytest.approx(2716, abs=1), "less in the tails"
    assert fair.fair_value(see(fair=5000.0)) == 5000.0


def test_a_bullish_opinion_moves_the_ask_away_and_a_bearish_one_the_bid():
    assert prices(see(opinion=View(shift=0.05))) == (5000, 5400)
    assert prices(see(opinion=View(shift=-0.05))) == (4800, 5200)


@given(st.integers(100 * 64, 9900 * 64), st.floats(-1, 1))
@settings(max_examples=200, deadline=None)
def test_the_fair_of_a_mirrored_market_is_exactly_the_mirror(sixtyfourths, shift):
    value = sixtyfourths / 64
    here, there = see(fair=value, opinion=View(shift=shift)), see(fair=10_000 - value, opinion=View(shift=-shift))
    assert fair.fair_value(here) == 10_000 - fair.fair_value(there)


# Sizes (3).


@pytest.mark.parametrize(
    ("net", "bid", "ask"),
    [(0, 50, 50), (40, 40, 50), (100, 25, 50), (139, 15.25, 50), (140, None, 50), (-100, 50, 25), (-200, 50, None)],
)
@pytest.mark.parametrize("quoting", ["inventory", "touch"])
def test_the_adding_side_tapers_and_stops_at_the_soft_cap(quoting, net, bid, ask):
    wanted, _ = quote(see(net=net), quoting=quoting)
    assert [wanted[s][1] if s in wanted else None for s in (BUY, SELL)] == [bid, ask]


def test_less_than_the_smallest_order_is_not_wanted():
    assert quote(see(base_qty=5 * SHARE - 1)) == ({}, "")
    assert quote(see(base_qty=0)) == ({}, "no size configured")


# Which books are not quoted (2.5).


@pytest.mark.parametrize(
    ("book", "note"),
    [
        ({"bid": 4500, "ask": 5500}, ""),
        ({"bid": 4500, "ask": 5600}, "wide spread"),
        ({"bid": 0, "ask": 5600}, "one-sided book"),
        ({"bid": 5000, "ask": 0}, "one-sided book"),
        ({"bid": 5000, "ask": 5200, "qty": 35}, ""),
        ({"bid": 5000, "ask": 5200, "qty": 33}, "thin book"),
        ({"bid": 900, "ask": 1000, "qty": 185}, "thin book"),
        ({"bid": 900, "ask": 1000, "qty": 186}, ""),
        ({"bid": 9000, "ask": 9100, "qty": 185}, "thin book"),
        ({"bid": 9000, "ask": 9100, "qty": 186}, ""),
    ],
)
@pytest.mark.parametrize("quoting", ["inventory", "touch"])
def test_wide_thin_and_one_sided_books_are_skipped_with_their_reason(quoting, book, note):
    wanted, said = quote(see(**book), quoting=quoting)
    assert said == note
    assert bool(wanted) is not bool(note)


def test_the_note_of_the_last_look_does_not_stay():
    own = MakerState("thin book")
    Maker().on_market(see(), own, MakerParams())
    assert own.note == ""


# The seed's rule.


def touched(bid, ask, opinion=None, *, params=None, **more):
    return prices(see(bid, ask, opinion=opinion, **more), quoting="touch", **params or {})


@pytest.mark.parametrize(
    ("bid", "ask", "wanted"),
    [
        (4900, 5300, (5000, 5200)),
        (5000, 5300, (5100, 5200)),
        (5000, 5200, (5000, 5200)),
        (5000, 5100, (5000, 5100)),
    ],
)
def test_touch_improves_by_a_tick_from_three_ticks_and_joins_below(bid, ask, wanted):
    assert touched(bid, ask) == wanted


def test_touch_knows_no_inventory():
    assert touched(4900, 5300, net=120) == touched(4900, 5300)


def test_touch_never_goes_through_the_other_side():
    assert touched(4900, 5200, params={"tick_improvement": 5}) == (5000, 5100), "as far as both sides can go without meeting"
    assert touched(4900, 5400, params={"tick_improvement": 5}) == (5100, 5200)


RAW = {"signal_rule": "seed"}


@pytest.mark.parametrize(
    ("bid", "ask", "bias", "wanted"),
    [
        (4900, 5300, 1, (5000, 5300)),
        (4900, 5300, -1, (4900, 5200)),
        (5000, 5200, 1, (5100, 5300)),
        (5000, 5200, -1, (4900, 5100)),
        (5000, 5100, 1, (5000, 5200)),
        (5000, 5100, -1, (4900, 5100)),
    ],
)
def test_the_raw_tilt_tightens_its_side_by_the_improvement_and_widens_the_other_by_a_tick(bid, ask, bias, wanted):
    assert touched(bid, ask, View(bias=bias), params=RAW) == wanted


def test_the_raw_rule_reads_the_bias_and_the_pooled_one_the_weighted_shift():
    opinion = View(bias=1, shift=-0.08)
    assert touch.tilt_ticks(see(opinion=opinion, fair=5000.0), MakerParams(signal_rule="seed")) == 1.0
    assert touch.tilt_ticks(see(opinion=opinion, fair=5000.0), MakerParams()) == pytest.approx(-2.0)


@pytest.mark.parametrize(("shift", "ticks"), [(0.02, 0.5), (0.04, 1.0), (0.4, 2.0), (-0.4, -2.0)])
def test_the_tilt_is_the_shift_in_ticks_and_at_most_two(shift, ticks):
    assert touch.tilt_ticks(see(opinion=View(shift=shift), fair=5000.0), MakerParams()) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("shift", "wanted"),
    [(0.01, (5000, 5300)), (0.045, (5100, 5400)), (0.06, (5100, 5400)), (-0.045, (4800, 5100)), (0.0, (5000, 5200))],
)
def test_the_pooled_tilt_moves_the_wrong_side_by_its_whole_ticks_up_and_the_right_one_by_one(shift, wanted):
    assert touched(5000, 5200, View(shift=shift)) == wanted


def test_the_right_side_tightens_only_while_half_a_tick_of_edge_is_left():
    opinion = View(shift=0.03)
    assert fair.fair_value(see(5000, 5200, opinion=opinion)) - 5100 > 50
    assert touched(5000, 5200, opinion)[0] == 5100
    assert touched(5000, 5200, opinion, toxicity=30.0)[0] == 5000, "toxicity eats the edge"
    assert touched(5000, 5200, opinion, fair=5060.0)[0] == 5000, "so does a fair below the mid"


# Both rules, anywhere.


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 97), st.integers(1, 10), st.integers(-200, 200), st.floats(-0.5, 0.5), st.sampled_from(["inventory", "touch"]),
    st.sampled_from(["pooled", "seed"]), st.integers(-1, 1), st.floats(0, 300), st.sampled_from([1.0, 2.0, 3.0]), st.booleans(),
)  # fmt: skip
def test_quotes_stay_on_the_grid_inside_the_range_and_never_touch_the_other_side_or_one_another(
    tick, width, net, shift, quoting, rule, bias, toxicity, widen, fine
):
    instrument = binary(grid=FixedGrid(10)) if fine else binary()
    step = 10 if fine else 100
    bid = tick * step
    ask = min(bid + width * step, 10_000 - step)
    view = see(
        bid, ask, net=net, qty=10**6, depth=1, instrument=instrument, toxicity=toxicity, widen=widen,
        opinion=View(shift=shift, bias=bias),
    )  # fmt: skip
    low, high = prices(view, quoting=quoting, signal_rule=rule)
    for price in (low, high):
        assert price is None or (price % step == 0 and step <= price <= 10_000 - step)
    assert low is None or low < ask
    assert high is None or high > bid
    assert low is None or high is None or low < high


# Linear instruments.


def test_a_linear_market_is_quoted_around_its_price_with_the_same_rules():
    instrument = linear()
    view = see(6_800_000, 6_800_004, instrument=instrument, qty=500)
    wanted, note = quote(view)
    assert note == "" and set(wanted) == {BUY, SELL}
    assert fair.fair_value(see(6_800_000, 6_800_004, instrument=instrument, opinion=View(shift=0.001))) == pytest.approx(
        6_806_805, rel=1e-6
    )
    assert quote(see(6_800_000, 6_820_000, instrument=instrument))[1] == "wide spread"


def test_the_rhythm_is_the_decision_interval():
    params = MakerParams(interval_ns=45 * NS_PER_S)
    assert not Maker().due(T0, T0 + 45 * NS_PER_S - 1, params)
    assert Maker().due(T0, T0 + 45 * NS_PER_S, params)
