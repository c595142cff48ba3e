"""What our own orders teach: rates and markouts of a known world are found again, queues followed, a restart changes nothing."""

from __future__ import annotations

import math
from random import Random

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core import places
from llm_maker.core.hazard import MAX_EXPOSURE_S, PRIOR, Hazard, features, key
from llm_maker.core.values import NS_PER_S, FixedGrid, Side
from llm_maker.strategy.params import MakerParams, Terms
from tests.core.builders import SHARE, Rig, binary, linear
from tests.core.test_checkpoint import World, account_params

TRUE = (math.log(0.02), -0.5, -0.7, 0.1, 0.8)
"""Not the prior: fills come seven times as often, and depth and queue cost less."""


def poisson(dice, mean):
    """Knuth's method; small means only."""
    count, left = 0, math.exp(-mean)
    product = dice.random()
    while product > left:
        count, product = count + 1, product * dice.random()
    return count


def drawn(dice):
    """An order somewhere near the touch of some market."""
    ahead = 0 if dice.random() < 0.3 else dice.randrange(20_000)
    return features(dice.randrange(-1, 4), ahead, dice.randrange(1, 5), 4_000.0, dice.choice([0.01, 0.02, 0.05, 0.1]))


def taught(seed, orders, true=TRUE, hazard=None):
    dice, hazard = Random(seed), hazard or Hazard()
    for _ in range(orders):
        seen, seconds = drawn(dice), dice.choice([0.5, 1.0, 4.0])
        rate = math.exp(sum(w * f for w, f in zip(true, seen, strict=True)))
        hazard.learn(seen, seconds, float(poisson(dice, rate * seconds)))
    return hazard


def sd(hazard, seen):
    """Standard deviation of the logarithm of lam as the model believes it."""
    return math.sqrt(sum(hazard.cov[i][j] * seen[i] * seen[j] for i in range(5) for j in range(5)))


# The fill rate.


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_rates_of_a_poisson_world_are_found_within_the_models_own_error(seed):
    hazard, dice = taught(seed, 25_000), Random(seed + 100)
    off, off_before = [], []
    for _ in range(200):
        seen = drawn(dice)
        true = sum(w * f for w, f in zip(TRUE, seen, strict=True))
        off.append(abs(math.log(hazard.rate(seen)) - true))
        off_before.append(abs(math.log(PRIOR.rate(seen)) - true))
        assert off[-1] < 4.0 * sd(hazard, seen)
    print(f"seed {seed}: {hazard.fills:.0f} fills in {hazard.seconds:.0f} s, mean error of ln lam {sum(off) / len(off):.3f}")
    assert sum(off) / len(off) < 0.15 < sum(off_before) / len(off_before) / 5
    assert [round(w, 1) for w in hazard.weights[1:3]] == pytest.approx(TRUE[1:3], abs=0.15)


def test_before_any_fill_the_trade_rate_sets_the_rate_and_depth_and_queue_lower_it():
    front = PRIOR.rate(features(0, 0, 2, 100.0, 0.02))
    assert front == pytest.approx(0.003)
    assert PRIOR.rate(features(0, 0, 2, 100.0, 0.04)) == pytest.approx(2 * front)
    assert PRIOR.rate(features(0, 300, 2, 100.0, 0.02)) == pytest.approx(front / 4), "three average trades ahead: a quarter"
    assert PRIOR.rate(features(1, 0, 2, 100.0, 0.02)) == pytest.approx(front * math.exp(-0.8))
    assert 0.0 < PRIOR.rate(features(0, 10**9, 2, 0.0, 0.0)) < front / 100, "a market without prints"


def test_one_observation_is_the_gamma_update():
    hazard, seen = Hazard(), (1.0, 0.0, 0.0, 0.0, 0.0)
    hazard.learn(seen, 30.0, 1.0)
    # Prior of lam: gamma of shape 1 / v = 1 and rate 1 / 0.003; one fill in 30 s: mean (1 + 1) / (1 / 0.003 + 30), variance 1 / 2.
    assert hazard.rate(seen) == pytest.approx(2.0 / (1.0 / 0.003 + 30.0))
    assert hazard.cov[0][0] == pytest.approx(0.5)
    hazard.learn(seen, 30.0, 0.0)
    # Without a fill the shape stays 2; the rate goes on by 30 s.
    assert hazard.rate(seen) == pytest.approx(2.0 / (1.0 / 0.003 + 60.0), rel=1e-2)
    assert hazard.cov[0][0] == pytest.approx(0.5)


def test_a_market_that_changes_is_followed():
    hazard = taught(5, 20_000)
    seen = features(0, 0, 2, 4_000.0, 0.02)
    before, fills = hazard.rate(seen), hazard.fills
    faster = (TRUE[0] + math.log(4.0), *TRUE[1:])
    hazard = taught(6, 15_000, faster, hazard)
    print(f"{fills:.0f} fills, then {hazard.fills - fills:.0f}: {hazard.rate(seen) / before:.2f} times")
    assert 2.5 < hazard.rate(seen) / before < 5.0


def test_nothing_observed_drives_it_out_of_bounds():
    hazard, seen = Hazard(), features(8, 10**12, 99, 1.0, 1e6)
    for _ in range(300):
        hazard.learn(seen, 10.0**9, 0.0)
    assert hazard.rate(seen) > 0.0 and hazard.seconds == 300 * MAX_EXPOSURE_S
    for _ in range(300):
        hazard.learn(seen, 0.0, 100.0)
    assert hazard.rate(seen) <= math.exp(2.0)
    assert all(math.isfinite(c) for row in hazard.cov for c in row) and all(hazard.cov[i][i] >= -1e-12 for i in range(5))


# The markout.


@pytest.mark.parametrize("seed", [21, 22])
def test_the_adverse_moves_of_each_class_are_found_and_few_fills_are_shrunk_to_the_prior(seed):
    dice, hazard = Random(seed), Hazard()
    means = {-2: 1.5, -1: 1.0, 0: 0.4, 1: -0.3, 3: 0.0}
    for _ in range(600):
        for ticks, mean in means.items():
            hazard.learn_adverse(ticks, dice.gauss(mean, 1.0), 1.0)
    print(f"seed {seed}", {ticks: round(hazard.adv(ticks, 0.5), 2) for ticks in means})
    for ticks, mean in means.items():
        # An exponential mean over 200 has an error of 1 / sqrt(400); the prior weighs 20 of 620.
        assert hazard.adv(ticks, 0.5) == pytest.approx(mean + (0.5 - mean) * 20 / 620, abs=4 / math.sqrt(400))
    assert hazard.adv(9, 0.5) == hazard.adv(3, 0.5), "what is further out is one class"
    assert hazard.adv(2, 0.5) == 0.5
    hazard.learn_adverse(2, 2.5, 1.0)
    assert hazard.adv(2, 0.5) == pytest.approx((2.5 + 20 * 0.5) / 21)


# Restart.


def test_a_restart_in_the_middle_learns_on_identically():
    seed = 31
    print(f"seed {seed}")
    straight, dice = taught(seed, 500), Random(seed)
    straight.learn_adverse(0, 0.7, 0.3)
    reborn = msgspec.json.decode(msgspec.json.encode(straight), type=Hazard)
    for _ in range(500):
        seen, filled = drawn(dice), float(dice.random() < 0.05)
        for hazard in (straight, reborn):
            hazard.learn(seen, 1.0, filled)
            hazard.learn_adverse(1, filled, 1.0)
    assert msgspec.json.encode(straight) == msgspec.json.encode(reborn)


# Classes.


@pytest.mark.parametrize(
    ("instrument", "tick", "spread", "wanted"),
    [
        (binary(), 100, 1, "coarse 1"),
        (binary(), 100, 9, "coarse 3"),
        (binary(grid=FixedGrid(10)), 10, 2, "fine 2"),
        (linear(), 1, 0, "linear 1"),
    ],
)
def test_classes_are_few(instrument, tick, spread, wanted):
    assert key(instrument, tick, spread) == wanted


# Queues, in the engine: 500 shares at 5000 / 5200 (BOOK of the builders).

BID = ((1, 5000, 50 * SHARE),)


def rested(price=5000, **more):
    rig = Rig(wants=((1, price, 50 * SHARE),), **more).start()
    rig.run(0.25)
    rig.ack()
    rig.run(0.25)
    return rig


def ahead(rig):
    return places.own_place(rig.state, rig.market(), Side.BUY, 5000)


def printed(rig, side, price, qty):
    rig.now += 1
    rig.send(ev.TradePrinted("m", price, qty, side, rig.now))


def test_a_new_order_stands_behind_its_level_and_one_in_flight_nowhere():
    rig = Rig(wants=BID).start()
    rig.run(0.25)
    assert rig.live() and ahead(rig) == -1
    rig.ack()
    rig.run(0.25)
    assert ahead(rig) == 500 * SHARE


def test_prints_at_the_price_and_a_shrinking_level_bring_it_forward_and_nothing_brings_it_back():
    rig = rested()
    printed(rig, Side.SELL, 5000, 120 * SHARE)
    assert ahead(rig) == 380 * SHARE
    printed(rig, Side.BUY, 5200, 50 * SHARE)
    assert ahead(rig) == 380 * SHARE, "the other side's print"
    rig.book(bids=((5000, 200 * SHARE), (4900, 500 * SHARE)))
    assert ahead(rig) == 200 * SHARE
    rig.book(bids=((5000, 900 * SHARE), (4900, 500 * SHARE)))
    assert ahead(rig) == 200 * SHARE, "who comes later stands behind"
    printed(rig, Side.SELL, 4900, 1 * SHARE)
    assert ahead(rig) == 0, "traded through"


def test_a_gap_in_the_book_does_not_bring_it_to_the_front():
    rig = rested()
    rig.send(ev.FeedLost(("m",), "gone"))
    assert rig.live() and rig.market().resting["1-1"].ahead == 500 * SHARE


def test_where_the_book_shows_us_our_own_quantity_is_not_ahead():
    rig = Rig(wants=BID).start()
    rig.send(ev.VenueUp("v", True, shows_own=True))
    rig.run(0.25)
    rig.ack()
    rig.book(bids=((5000, 550 * SHARE), (4900, 500 * SHARE)))
    assert ahead(rig) == 500 * SHARE


def test_exposure_is_booked_once_a_second_and_up_to_the_end_and_a_fill_by_its_share():
    rig = rested()
    hazards, accepted = rig.state.hazards, rig.one().changed_ns
    rig.run(10.0)
    assert hazards["coarse 2"].seconds == pytest.approx(10.0, abs=1.0) and hazards["coarse 2"].fills == 0.0
    before = hazards["coarse 2"].rate(rig.market().resting["1-1"].features)
    rig.wait(0.5)
    rig.fill(rig.one(), 20 * SHARE)
    assert hazards["coarse 2"].fills == pytest.approx(0.4)
    assert hazards["coarse 2"].rate(rig.market().resting["1-1"].features) > before
    rig.wait(0.25)
    rig.send(ev.OrderCanceled("1-1"))
    end = rig.now
    rig.run(1.0)
    assert hazards["coarse 2"].seconds == pytest.approx((end - accepted) / NS_PER_S, abs=1e-6)
    assert "1-1" not in rig.market().resting


def test_a_fill_that_comes_before_the_first_look_counts_with_its_whole_wait():
    rig = Rig(wants=BID).start()
    rig.run(0.25)
    rig.wait(0.2)
    rig.fill(rig.one())
    hazard, waited = rig.state.hazards["coarse 2"], rig.now - rig.state.orders["1-1"].placed_ns
    assert (hazard.fills, hazard.seconds) == (1.0, waited / NS_PER_S)
    assert waited >= NS_PER_S // 5


@pytest.mark.parametrize(("mid", "adverse"), [(4900, 2.0), (5200, -1.0)])
def test_five_minutes_after_a_fill_its_class_learns_the_move_of_the_mid_in_ticks(mid, adverse):
    rig = rested()
    rig.fill(rig.one())
    rig.run(1.0)
    rig.move(mid)
    rig.run(298.0)
    assert not rig.state.hazards["coarse 2"].adverse
    rig.run(2.0)
    seen = rig.state.hazards["coarse 2"].adverse[0]
    assert (seen.count, seen.mean) == (1.0, pytest.approx(adverse))
    assert not [lesson for lesson in rig.market().lessons if lesson.at_ns < rig.now - 300 * NS_PER_S]


def test_a_fill_whose_five_minutes_end_in_the_dark_waits_and_then_lapses():
    rig = rested()
    rig.fill(rig.one())
    rig.run(290.0)
    rig.send(ev.FeedLost(("m",), "gone"))
    rig.run(60.0, alive=False)
    assert rig.market().lessons and not rig.state.hazards["coarse 2"].adverse
    rig.run(30.0, alive=False)
    assert not [lesson for lesson in rig.market().lessons if lesson.at_ns < rig.now - 380 * NS_PER_S]
    assert not rig.state.hazards["coarse 2"].adverse


def test_two_markets_of_one_class_teach_one_model():
    rig = Rig(wants=BID).start(binary("m"), binary("n"))
    rig.run(0.25)
    rig.ack()
    rig.run(10.0)
    assert list(rig.state.hazards) == ["coarse 2"]
    assert rig.state.hazards["coarse 2"].seconds == pytest.approx(20.0, abs=2.0)


def test_what_was_learned_survives_a_restart_and_goes_on_identically():
    rig = rested()
    rig.run(5.0)
    rig.fill(rig.one(), 20 * SHARE)
    rig.run(1.0)
    other = rig.reborn()
    for each in (rig, other):
        each.run(310.0)
    assert rig.saved() == other.saved() and rig.state.hazards["coarse 2"].adverse


def test_a_checkpoint_of_before_there_was_any_of_this_still_loads():
    rig = rested()
    old = msgspec.json.decode(rig.saved())
    del old["hazards"], old["markets"]["m"]["resting"], old["markets"]["m"]["lessons"]
    rig.saved = lambda: msgspec.json.encode(old)
    other = rig.reborn()
    assert other.state.hazards == {} and other.market().resting == {}


def test_places_are_followed_and_fills_learned_from_only_while_the_table_reads_them():
    """The same seeded run, faults and signals in it."""
    seed = 3
    print(f"seed {seed}")
    for table in (False, True):
        world = World(seed, {"a": (account_params(), MakerParams(terms=Terms(table=table)))}).run(2_500)
        state = world.engines["a"].state
        kept = [state.hazards, *(m.resting for m in state.markets.values()), *(m.lessons for m in state.markets.values())]
        assert state.counts.fills and any(kept) is table
