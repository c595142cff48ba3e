"""The outcomes of one event priced together: the projection by hand and as a property, which legs count, and through the engine."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_maker.core import events as ev
from llm_maker.core import parity
from llm_maker.core.values import Side
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, Terms
from tests.core.builders import SHARE, Rig, binary

BUY, SELL = Side.BUY, Side.SELL
PROBABILITY = st.floats(0.001, 0.999)
LEGS = st.lists(st.tuples(PROBABILITY, st.floats(1e-6, 1.0)), min_size=2, max_size=12)


# The projection.


def test_three_legs_by_hand():
    # 0.55 + 0.30 + 0.20 is 0.05 too much; of the variances 1 : 2 : 2 the legs give 0.01, 0.02 and 0.02.
    assert parity.project([0.55, 0.30, 0.20], [1e-4, 2e-4, 2e-4], complete=False) == pytest.approx([0.54, 0.28, 0.18])
    assert parity.project([0.45, 0.30, 0.20], [1e-4, 2e-4, 2e-4], complete=True) == pytest.approx([0.46, 0.32, 0.22])


@given(LEGS)
def test_all_known_outcomes_sum_to_one_and_move_by_their_variance(legs):
    prices, variances = [p for p, _ in legs], [v for _, v in legs]
    moved = parity.project(prices, variances, complete=True)
    assert sum(moved) == pytest.approx(1.0)
    for before, after, v in zip(prices, moved, variances, strict=True):
        assert after - before == pytest.approx(v / sum(variances) * (1.0 - sum(prices)), abs=1e-9)


@given(LEGS)
def test_an_incomplete_list_is_corrected_from_above_only(legs):
    prices, variances = [p for p, _ in legs], [v for _, v in legs]
    moved = parity.project(prices, variances, complete=False)
    if sum(prices) <= 1.0:
        assert moved == prices
    else:
        assert sum(moved) == pytest.approx(1.0)


def test_what_is_certain_stays_and_where_nothing_is_uncertain_nothing_moves():
    assert parity.project([0.7, 0.4], [0.0, 1e-4], complete=True) == pytest.approx([0.7, 0.3])
    assert parity.project([0.7, 0.4], [0.0, 0.0], complete=True) == [0.7, 0.4]


# Which legs count.


def leg(name, **changes):
    return binary(name, event_id="E", exclusive=True, **changes)


def event(*mids, maker=None, half=200, **changes):
    """A rig of one event with a leg for each mid, spread twice `half`, its name the position in the alphabet."""
    rig = Rig(strategy=Maker(), wants=maker or MakerParams(terms=Terms(parity=True)))
    rig.listed(*(leg("abcdef"[n], **changes) for n in range(len(mids))))
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    for n, mid in enumerate(mids):
        rig.move(mid, "abcdef"[n], half)
    return rig


def corrections(rig):
    return [parity.correction(rig.state, market) for market in rig.state.markets.values()]


def test_the_correction_of_every_leg_by_hand():
    rig = event(5000, 3000, 2500)
    # The sum is 1.05; (p (1 - p))^2 at one volatility: 0.0625, 0.0441, 0.03515625.
    total = 0.0625 + 0.0441 + 0.03515625
    wanted = [-0.05 * v / total * 10_000 for v in (0.0625, 0.0441, 0.03515625)]
    assert max(wanted) < -100 and min(wanted) < -200, "the first would leave its spread"
    assert corrections(rig) == pytest.approx([-200.0, *wanted[1:]])
    for name, sig in (("a", 1e-3), ("b", 2e-3), ("c", 1e-3)):
        rig.market(name).estimators.sig_x = sig
    uncertain = [-0.05 * v / (0.0625 + 4 * 0.0441 + 0.03515625) * 10_000 for v in (0.0625, 4 * 0.0441, 0.03515625)]
    assert uncertain[1] < -200
    assert corrections(rig) == pytest.approx([uncertain[0], -200.0, uncertain[2]]), "the uncertain leg takes most"


def test_a_small_excess_is_taken_out_whole():
    rig = event(5000, 3100, 2100)
    moved = corrections(rig)
    assert sum(moved) == pytest.approx(-200.0)
    fairs = [m.estimators.fair for m in rig.state.markets.values()]
    assert sum(fairs) + sum(moved) == pytest.approx(10_000)


def test_a_sum_below_one_asks_for_more_and_the_strategy_knows_where_to_believe_it():
    rig = event(5000, 3000, 1900)
    assert sum(corrections(rig)) == pytest.approx(100.0)
    rig.run(1)
    assert rig.market("a").own.terms["parity"] == 0.0
    named = event(5000, 3000, 1900, maker=MakerParams(complete_events=("E",), terms=Terms(parity=True)))
    named.run(1)
    assert named.market("a").own.terms["parity"] == pytest.approx(corrections(named)[0], abs=1 / 64)
    assert corrections(named)[0] > 40


@pytest.mark.parametrize("how", ["gap", "one-sided", "wide", "not exclusive"])
def test_a_leg_that_says_nothing_makes_the_list_incomplete(how):
    rig = event(5000, 3000, 1000, 700)
    assert sum(corrections(rig)) == pytest.approx(300.0)
    silence(rig, "d", how)
    assert corrections(rig)[:3] == [0.0, 0.0, 0.0]
    above = event(5300, 3000, 2000, 300)
    silence(above, "d", how)
    moved = corrections(above)
    assert all(m < 0 for m in moved[:3]), "above 1 it is too much whatever the silent one says"
    assert moved[3] == 0.0 or how == "wide"


def silence(rig, name, how):
    if how == "gap":
        rig.send(ev.FeedLost((name,), "a gap"))
    elif how == "one-sided":
        rig.book(name, bids=(), asks=((800, 500 * SHARE),))
    elif how == "wide":
        rig.book(name, bids=((100, 500 * SHARE),), asks=((1300, 500 * SHARE),))
    else:
        rig.market(name).instrument = msgspec.structs.replace(rig.market(name).instrument, exclusive=False)


def test_asks_that_sum_to_less_than_one_are_not_all_there_are():
    # Mids of 0.95; with 2c to each ask the three cannot be bought for less than 1, with 1c they can.
    assert sum(corrections(event(5000, 3000, 1500, half=200))) > 400
    assert corrections(event(5000, 3000, 1500, half=100)) == [0.0, 0.0, 0.0]


def test_a_resolved_leg_is_certain():
    rig = event(6000, 3700, 500)
    assert sum(corrections(rig)) == pytest.approx(-200.0)
    rig.market("c").resolved = 0
    assert sum(corrections(rig)[:2]) == pytest.approx(300.0), "the others are worth all of it"
    rig.market("b").resolved = 10_000
    assert corrections(rig)[0] == 0.0, "who bids for another once one has won knows that several can"


def test_markets_that_stand_alone_or_do_not_exclude_one_another_are_left_alone():
    assert corrections(event(5000)) == [0.0]
    rig = Rig(strategy=Maker(), wants=MakerParams())
    rig.start(*(binary(name, event_id="E") for name in "ab"))
    assert [m.estimators.fair for m in rig.state.markets.values()] == [5100.0, 5100.0]
    assert corrections(rig) == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(3, 95), st.integers(1, 8)), min_size=2, max_size=5))
def test_no_fair_value_leaves_its_own_spread(books):
    rig = Rig(strategy=Maker(), wants=MakerParams())
    rig.start(*(leg("abcdef"[n]) for n in range(len(books))))
    for n, (bid, width) in enumerate(books):
        ask = min(bid + width, 99)
        rig.book("abcdef"[n], ((bid * 100, 100 * SHARE),), ((ask * 100, 300 * SHARE),))
    for market, moved in zip(rig.state.markets.values(), corrections(rig), strict=True):
        assert market.book.best_bid <= market.estimators.fair + moved <= market.book.best_ask


# Through the engine.


def quoted(rig, name):
    return tuple(rig.one(side, name).price for side in (BUY, SELL))


def test_two_legs_that_sum_to_more_than_one_are_both_quoted_lower():
    apart, rig = (event(5000, 5200, maker=MakerParams(terms=Terms(parity=on))) for on in (False, True))
    assert (quoted(apart, "a"), quoted(apart, "b")) == ((4900, 5100), (5100, 5300))
    assert (quoted(rig, "a"), quoted(rig, "b")) == ((4900, 5100), (5000, 5300)), "the first knew of no other leg yet"
    for _ in range(4):
        rig.ack()
        rig.run(1)
    terms = [rig.market(name).own.terms["parity"] for name in "ab"]
    share = 0.25**2 / (0.25**2 + 0.2496**2)
    assert terms == pytest.approx([-200 * share, -200 * (1 - share)], abs=0.5)
    # Fair values of 4899.8 and 5100.2, half a spread of a tick: 4799.8 and 5000.2 at most.
    assert (quoted(rig, "a"), quoted(rig, "b")) == ((4700, 5100), (5000, 5300)), "bids give way, asks stay at the touch"


def test_a_sibling_that_moves_is_felt_within_a_second():
    rig = event(5000, 5000)
    rig.run(2)
    assert rig.market("a").own.terms["parity"] == 0.0
    rig.move(5300, "b", 200)
    assert rig.market("a").own.terms["parity"] == 0.0, "nothing of its own has changed"
    rig.run(1)
    assert rig.market("a").own.terms["parity"] < -100


def test_a_restart_decides_the_same():
    rig = event(5000, 5400)
    other = rig.reborn()
    assert corrections(other) == corrections(rig)
    rig.run(2), other.run(2)
    assert other.saved() == rig.saved()
