"""The table of candidates: values by hand, the place in the queue, what reward and rebate change, and the rule it replaces."""

from __future__ import annotations

import math
from random import Random

import pytest

from llm_maker.core.hazard import Hazard, features
from llm_maker.core.rewards import midpoint2, q_min, rivals, score, sides
from llm_maker.core.values import (
    CASH_PER_USD,
    NS_PER_S,
    FeeCurve,
    FeeRule,
    Liquidity,
    RewardRule,
    Side,
    ceil_to_grid,
    fee,
    floor_to_grid,
    rebate,
)
from llm_maker.strategy import table, touch
from llm_maker.strategy.fair import valuation
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, MakerState, Terms
from tests.core.builders import SHARE, Rig, binary, linear
from tests.strategy.test_maker import see

BUY, SELL = Side.BUY, Side.SELL
LOT = 50 * SHARE
FEES = FeeRule(FeeCurve.VARIANCE, taker_ppm=70_000, rebate_ppm=250_000)


def market(bid=4900, ask=5300, **more):
    """Average trades of 100 shares, one in 50 s: the prior's intercept says lam = 0.003 a second at the front."""
    view = see(bid, ask, avg_trade=100.0 * SHARE, **more)
    view.estimators.trade_rate = 0.02
    return view


def prices(view, reservation=5100.0, half=100.0, own=None, **terms):
    """(bid, ask); 0: not quoted."""
    return table.table_prices(view, own or MakerState(), reservation, half, MakerParams(terms=Terms(table=True, **terms)))


def paying(usd_per_day, **changes):
    return binary(reward=RewardRule(max_spread=350, min_qty=50 * SHARE, pool_per_day=usd_per_day * CASH_PER_USD), **changes)


# Values.


def test_the_value_of_each_candidate_is_the_one_worked_out_by_hand():
    # r 5100, floor 100: the bid may go up to 5000. Prior lam: 0.003 e^(-0.8 k) / (1 + queue / 100); half a tick of adverse move.
    view, params = market(), MakerParams(terms=Terms(table=True))
    near = table._near(view, MakerState())
    ladder = table._ladder(view, near, BUY, 5100.0, {BUY: 5000, SELL: 5200}, {BUY: LOT, SELL: LOT}, params)
    by_hand = {
        5000: 0.003 * math.exp(0.8) * (100 - 50) * LOT,
        4900: 0.003 / 6 * (200 - 50) * LOT,
        4800: 0.003 / 11 * math.exp(-0.8) * (300 - 50) * LOT,
        4700: 0.003 / 16 * math.exp(-1.6) * (400 - 50) * LOT,
    }
    assert {price: ladder.value(price, ladder.ahead(price)) for price in by_hand} == pytest.approx(by_hand)
    assert prices(view) == (5000, 5200)


def by_formula(view, side, price, ahead, reservation, lot, other, terms):
    """EV once more, written from `quoting.md` 2.4, 2.7 and 2.8 and from the venue's integer functions."""
    estimators, instrument, hazard = view.estimators, view.instrument, view.hazard or Hazard()
    best = view.book.best_bid if side is BUY else view.book.best_ask
    ticks = abs(best - price) // 100 * (1 if (best - price) * side >= 0 else -1)
    spread = (view.book.best_ask - view.book.best_bid) // 100
    seen = features(ticks, ahead, spread, estimators.avg_trade, estimators.trade_rate)
    lam = math.exp(sum(w * f for w, f in zip(hazard.weights, seen, strict=True)))
    adv = 100 * hazard.adv(ticks, view.adverse / 100 if view.adverse is not None else 0.5)
    edge = reservation - price if side is BUY else price - reservation
    back = rebate(instrument, price, 10**6 * SHARE) / 10**6 / SHARE if terms.rebate else 0.0
    back -= fee(instrument, price, 10**6 * SHARE, Liquidity.MAKER) / 10**6 / SHARE
    total, rule = lam * (edge - adv + back) * lot, instrument.reward
    if terms.reward and rule is not None:
        book = view.book
        mid2 = midpoint2(rule, book.bids, book.asks)
        if mid2 is None:
            return total
        shown = [(BUY, p, q) for p, q in book.bids.items()] + [(SELL, p, q) for p, q in book.asks.items()]
        others = rivals(*sides(rule, shown, mid2), mid2, instrument.payout)
        beside = score(rule, *other, mid2)
        share = [(own := q_min(s, beside, mid2, instrument.payout)) / (own + others) for s in (score(rule, price, lot, mid2), 0)]
        total += rule.pool_per_day / 86_400 * (share[0] - share[1])
    return total


@pytest.mark.parametrize("seed", range(5))
def test_in_random_markets_the_choice_is_the_best_candidate_by_the_formula_and_never_inside_the_floor(seed):
    dice, quoted, out = Random(seed), 0, 0
    for _ in range(40):
        bid = dice.randrange(10, 80) * 100
        ask = bid + dice.randrange(1, 6) * 100
        hazard = Hazard()
        for _ in range(dice.randrange(60)):
            hazard.learn(features(dice.randrange(-2, 3), dice.randrange(9_000), 2, 100.0, 0.02), 5.0, float(dice.random() < 0.2))
            hazard.learn_adverse(dice.randrange(-2, 4), dice.gauss(1.0, 1.0), 1.0)
        instrument = paying(dice.choice([1, 100, 5_000]), fee=FEES)
        adverse = dice.choice([None, 30.0, 250.0])
        view = market(bid, ask, instrument=instrument, qty=dice.randrange(20, 900), hazard=hazard, adverse=adverse)
        fair, half = (bid + ask) / 2 + dice.randrange(-150, 150), dice.choice([100.0, 130.0, 250.0])
        terms = Terms(table=True, reward=dice.random() < 0.6, rebate=dice.random() < 0.6)
        limits = {
            BUY: min(floor_to_grid(instrument, fair - half), ask - 100),
            SELL: max(ceil_to_grid(instrument, fair + half), bid + 100),
        }
        got = table.table_prices(view, MakerState(), fair, half, MakerParams(terms=terms))
        for side, price in zip((BUY, SELL), got, strict=True):
            best, behind = (bid, min) if side is BUY else (ask, max)
            levels = view.book.bids if side is BUY else view.book.asks
            joined = (SELL, max(ask, limits[SELL])) if side is BUY else (BUY, min(bid, limits[BUY]))
            values = {}
            for step in range(-2, 3):
                here = behind(best - side * 100 * step, limits[side])
                ahead = sum(qty for level, qty in levels.items() if side * (level - here) >= 0)
                if 100 <= here <= 9900:
                    other = (joined[1], LOT)
                    values[here] = by_formula(view, side, here, ahead, fair, LOT, other, terms)
            wanted = max(values, key=values.get) if values and max(values.values()) > 0 else 0
            assert price == wanted, (seed, side, values)
            assert not price or side * (limits[side] - price) >= 0
            quoted, out = quoted + bool(price), out + (not price)
    print(f"seed {seed}: {quoted} sides quoted, {out} left out")
    assert quoted > 20 and out > 1


def test_where_nothing_gains_no_side_is_quoted_and_the_note_says_so():
    own = MakerState()
    view = market(adverse=1_000.0)
    assert prices(view, own=own) == (0, 0) and own.note == "no expected gain"
    own = MakerState()
    assert Maker().on_market(view, own, MakerParams(terms=Terms(table=True))) == []
    assert own.note == "no expected gain"
    hazard = Hazard()
    for _ in range(200):
        hazard.learn_adverse(0, 4.0, 1.0)
    one = prices(market(5000, 5100, hazard=hazard, adverse=0.0), 5030.0, half=100.0)
    assert one != (0, 0), "a side that gains is quoted alone"


def test_a_side_without_size_is_left_out_without_that_note():
    own, view = MakerState(), market(base_qty=0)
    assert prices(view, own=own) == (0, 0) and own.note == ""


def test_what_is_learned_of_the_fills_moves_the_choice():
    # At the front of a new level fills cost three ticks, behind a queue nothing.
    hazard = Hazard()
    for _ in range(200):
        hazard.learn_adverse(-1, 3.0, 1.0)
        hazard.learn_adverse(0, 0.0, 1.0)
    assert prices(market()) == (5000, 5200)
    assert prices(market(hazard=hazard)) == (4900, 5300)


# The place in the queue.


@pytest.mark.parametrize(
    ("held", "ahead", "adverse", "wanted"),
    [
        (0, -1, None, 5000),
        # 26 a second over 1 / (nu + lam) = 1050 s is less than the place at 4900: e^(-nu 294) (100 - 50) L and a message.
        (4900, 0, None, 4900),
        # Last in that level 128 a second are lost, which is still less.
        (4900, -1, None, 4900),
        # 240 a second are more than a place so far out.
        (4600, 0, None, 5000),
        # Fills that cost the whole half-spread leave no place a value.
        (4900, -1, 100.0, 5000),
        # Inside the edge floor nothing stays.
        (5100, 0, None, 5000),
    ],
)
def test_a_resting_order_keeps_its_place_unless_moving_gains_more(held, ahead, adverse, wanted):
    view = market(5000, 5200, own_bid=held, bid_ahead=ahead, adverse=adverse)
    assert prices(view, 5150.0)[0] == wanted
    mirror = market(4800, 5000, own_ask=10_000 - held if held else 0, ask_ahead=ahead, adverse=adverse)
    assert prices(mirror, 4850.0)[1] == 10_000 - wanted


def test_the_value_of_a_place_falls_with_the_queue_before_it_and_with_the_speed_of_the_market():
    view, params = market(5000, 5200), MakerParams(terms=Terms(table=True))
    near = table._near(view, MakerState())
    ladder = table._ladder(view, near, BUY, 5100.0, {BUY: 5000, SELL: 5200}, {BUY: LOT, SELL: LOT}, params)
    nu = (0.25 * 0.25 / math.sqrt(86_400)) ** 2 * 10**4
    assert ladder.moves() == pytest.approx(nu, rel=1e-3)
    assert ladder.place_value(5000, 0, 100.0) == pytest.approx(50.0 * LOT)
    wait = 300.0 * math.log(1.0 + 500.0 / 300.0)
    assert ladder.place_value(5000, 500 * SHARE, 100.0) == pytest.approx(math.exp(-nu * wait) * 50.0 * LOT, rel=1e-3)
    assert ladder.place_value(5000, 0, 50.0) == 0.0


def test_a_shorter_queue_of_our_own_makes_the_price_that_is_held_the_best_one():
    # 5000 is joined behind 500 shares, or held with nobody before us.
    back, front = market(5000, 5200, own_bid=5000), market(5000, 5200, own_bid=5000, bid_ahead=0)
    params, own = MakerParams(terms=Terms(table=True)), MakerState()
    near = table._near(back, own)
    ladder = table._ladder(back, near, BUY, 5100.0, {BUY: 5000, SELL: 5200}, {BUY: LOT, SELL: LOT}, params)
    assert ladder.value(5000, 0) == pytest.approx(6 * ladder.value(5000, 500 * SHARE))
    assert prices(back, 5150.0)[0] == prices(front, 5150.0)[0] == 5000


def test_deeper_levels_are_read_when_the_top_has_changed_or_a_second_later():
    view, own = market(), MakerState()
    assert table._near(view, own).bids == (500 * SHARE, 1_000 * SHARE, 1_500 * SHARE)
    view.book.bids[4800] = 7 * SHARE
    assert table._near(view, own).bids[1] == 1_000 * SHARE
    view.now += NS_PER_S
    assert table._near(view, own).bids == (500 * SHARE, 507 * SHARE, 1_007 * SHARE)
    view.book.bids[4800] = 8 * SHARE
    view.book.top_version += 1
    assert table._near(view, own).bids[1] == 508 * SHARE


def test_our_own_orders_are_neither_queue_nor_rivals():
    plain, shown = market(instrument=paying(100)), market(instrument=paying(100), shown_bids={4900: 100 * SHARE})
    assert table._near(shown, MakerState()).bids[0] == 400 * SHARE
    assert table._near(shown, MakerState()).rivals < table._near(plain, MakerState()).rivals


# Reward and rebate.


@pytest.mark.parametrize(("usd_per_day", "wanted"), [(0, 4700), (100, 4700), (500, 4900)])
def test_the_reward_pulls_the_quote_in_when_it_pays_for_the_adverse_selection_and_not_otherwise(usd_per_day, wanted):
    # Three ticks adverse: without a reward only the deepest candidate gains.
    view = market(instrument=paying(usd_per_day), adverse=300.0)
    params = MakerParams(terms=Terms(table=True))
    ladder = table._ladder(
        view, table._near(view, MakerState()), BUY, 5100.0, {BUY: 5000, SELL: 5200}, {BUY: LOT, SELL: LOT}, params
    )
    pay, cost = ladder.pay.per_second(4900, LOT), ladder.rate(0, 500 * SHARE) * LOT * (300 - 200)
    assert (pay > cost) is (wanted == 4900)
    assert prices(view)[0] == wanted
    assert prices(view, reward=False)[0] == 4700


def test_a_bid_nearer_in_than_our_ask_scores_no_more_than_the_ask():
    # min(Q_one, Q_two): only an ask as near makes the nearest bid worth its adverse selection.
    far, near = ({"instrument": paying(20_000), "adverse": 300.0, "own_ask": ask, "ask_ahead": 0} for ask in (5300, 5200))
    assert (prices(market(**far))[0], prices(market(**near))[0]) == (4900, 5000)


def test_a_reward_is_what_this_order_adds_beside_our_other_side():
    # Outside [0.10, 0.90] one side alone scores nothing, so a bid is worth nothing without an ask.
    view = market(600, 800, instrument=paying(100))
    near, params = table._near(view, MakerState()), MakerParams(terms=Terms(table=True))
    limits = {BUY: 600, SELL: 800}
    both = table._ladder(view, near, BUY, 700.0, limits, {BUY: LOT, SELL: LOT}, params).pay
    alone = table._ladder(view, near, BUY, 700.0, limits, {BUY: LOT, SELL: 0}, params).pay
    assert both.per_second(600, LOT) > 0.0 == alone.per_second(600, LOT)
    assert both.per_second(600, LOT - 1) == 0.0, "under the minimum size"


def test_the_rebate_pays_for_a_price_nearer_in_and_not_where_it_is_switched_off():
    # 120 of adverse move against an edge of 100: 43.75 of rebate turn it.
    view = market(instrument=binary(fee=FEES), adverse=120.0)
    assert table.kept(view.instrument, 5000, rebates=True) == pytest.approx(43.75)
    assert prices(view)[0] == 5000
    assert prices(view, rebate=False)[0] == 4900
    assert prices(market(adverse=120.0))[0] == 4900


@pytest.mark.parametrize(
    ("instrument", "price"),
    [
        (binary(fee=FeeRule(FeeCurve.VARIANCE, taker_ppm=40_000, maker_ppm=17_500, rebate_ppm=200_000)), 3_100),
        (binary(), 3_100),
        (linear(), 6_800_000),
    ],
)
def test_what_the_venue_adds_to_a_fill_is_the_rebate_less_the_makers_fee(instrument, price):
    qty = 10**7
    unit = qty * 10.0 ** (6 - instrument.price_decimals - instrument.qty_decimals)
    paid, back = fee(instrument, price, qty, Liquidity.MAKER) / unit, rebate(instrument, price, qty) / unit
    assert table.kept(instrument, price, rebates=True) == pytest.approx(back - paid, abs=1e-6)
    assert table.kept(instrument, price, rebates=False) == pytest.approx(-paid, abs=1e-6)


def test_a_linear_market_is_quoted_by_the_same_table():
    view = see(6_800_000, 6_800_040, instrument=linear(), qty=5, avg_trade=20.0, fair=6_800_020.0)
    bid, ask = prices(view, 6_800_020.0, half=10.0)
    assert 6_799_998 <= bid <= 6_800_002 and ask == 13_600_040 - bid


@pytest.mark.parametrize("seed", [7])
def test_after_a_restart_the_table_decides_the_same(seed):
    """Fills, queue places and the levels as last read are in the checkpoint; both go on through the same books."""
    dice, rig = Random(seed), Rig(strategy=Maker(), wants=MakerParams(terms=Terms(table=True)))
    rig.start(paying(500, fee=FEES))

    def step(*rigs, mid, size, fills):
        for each in rigs:
            each.run(2.0)
            each.move(mid, half=200, size=size * SHARE)
            each.ack()
            if fills and each.live(BUY):
                each.fill(each.live(BUY)[0], 7 * SHARE)
            each.ack()

    def drawn():
        return {"mid": 5100 + 100 * dice.randrange(-1, 2), "size": dice.randrange(100, 900), "fills": dice.random() < 0.3}

    for _ in range(20):
        step(rig, **drawn())
    other = rig.reborn()
    other._fills = rig._fills
    rig.log.clear()
    for _ in range(20):
        step(rig, other, **drawn())
    print(f"seed {seed}: {len(rig.log)} commands, {rig.state.counts.fills} fills")
    assert rig.log == other.log and len(rig.log) > 10 and rig.state.counts.fills > 5
    assert rig.saved() == other.saved()


# Off.


@pytest.mark.parametrize("seed", range(3))
def test_off_is_exactly_the_rule_of_spreads_whatever_was_learned(seed):
    dice = Random(seed)
    hazard = Hazard()
    for _ in range(50):
        hazard.learn_adverse(dice.randrange(-2, 3), 5.0, 1.0)
        hazard.learn(features(0, 10, 2, 100.0, 0.02), 1.0, 1.0)
    for _ in range(60):
        bid = dice.randrange(10, 80) * 100
        ask = bid + dice.randrange(1, 8) * 100
        plain = {"net": dice.randrange(-150, 150), "qty": 900, "instrument": paying(1_000, fee=FEES)}
        held = {"own_bid": bid - 100, "own_ask": ask + 100}
        told = {"hazard": hazard, "adverse": 400.0, "bid_ahead": 0, "ask_ahead": 0}
        view, params = market(bid, ask, **plain, **held), MakerParams()
        worth = valuation(view, params)
        rule = (
            min(touch.candidate(view, BUY, params), floor_to_grid(view.instrument, worth.reservation - worth.half)),
            max(touch.candidate(view, SELL, params), ceil_to_grid(view.instrument, worth.reservation + worth.half)),
        )
        for terms in (Terms(), Terms(reward=False, rebate=False)):
            for seen in (view, market(bid, ask, **plain, **held, **told)):
                own = MakerState()
                wanted = {t.side: t.price for t in Maker().on_market(seen, own, MakerParams(terms=terms))}
                assert all(price == rule[0 if side is BUY else 1] for side, price in wanted.items()) and wanted
                assert own.near is None
