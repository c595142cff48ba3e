"""Each quoting term that can be switched: by hand, off is as if it were not there, mirrored where it has a mirror, and recorded."""

from __future__ import annotations

import math
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.config import Config, load
from llm_maker.core.book import Book
from llm_maker.core.events import AccountSnapshot, BookSnapshot, Started, VenueUp
from llm_maker.core.strategy import View
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.strategy import by_date, fair, size
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, MakerState, Terms
from llm_maker.tuning import maker_params
from tests.core.builders import SHARE, T0, USD, Rig, advice, binary, linear, params
from tests.core.test_symmetry import BANK, WORLDS, Worlds
from tests.strategy.test_maker import CALM_X, prices, quote, see

BUY, SELL = Side.BUY, Side.SELL
HOUR_NS = 3_600 * NS_PER_S
DAY_NS = 24 * HOUR_NS
NONE = dict.fromkeys(Terms.__struct_fields__, False)


def only(*names, **more):
    """Params with these terms on and every other off."""
    return {"terms": Terms(**NONE | dict.fromkeys(names, True)), **more}


def worth(view, *names, **more):
    return fair.valuation(view, MakerParams(**only(*names, **more)))


# Flow (1.1).


def flowing(z, **more):
    view = see(**{"fair": 5000.0} | more)
    view.estimators.flow, view.estimators.flow_var = z * 300.0, 300.0**2
    return view


@pytest.mark.parametrize(("z", "ticks"), [(1.0, 0.25), (-1.0, -0.25), (2.0, 0.5), (7.0, 0.5), (-7.0, -0.5), (0.0, 0.0)])
def test_flow_leans_fair_value_by_its_ticks_for_each_deviation_up_to_two(z, ticks):
    assert worth(flowing(z), "flow").fair == 5000.0 + 100 * ticks
    assert worth(flowing(z), "flow", flow_ticks=0.5).terms["flow"] == 200 * ticks


def test_without_a_deviation_there_is_no_flow():
    assert worth(see(fair=5000.0), "flow").terms["flow"] == 0.0


def test_flow_moves_the_quotes_of_a_linear_market_too():
    instrument = linear()
    view = flowing(2.0, bid=6_800_000, ask=6_800_004, instrument=instrument, fair=6_800_002.0)
    assert worth(view, "flow", flow_ticks=0.5).fair == 6_800_003.0


# Parity (1.3): what is made of it; the projection itself is in tests/core/test_parity.py.


def test_parity_counts_from_above_anywhere_and_from_below_where_the_event_is_listed_whole():
    instrument = binary(event_id="E", exclusive=True)
    assert worth(see(fair=5000.0, instrument=instrument, parity=-40.0), "parity").fair == 4960.0
    below = see(fair=5000.0, instrument=instrument, parity=40.0)
    assert worth(below, "parity").fair == 5000.0
    assert worth(below, "parity", complete_events=("D", "E")).fair == 5040.0


# Decay (1.2).

END = T0 + 10 * DAY_NS
"""2026-01-11."""


def dated(question="Will the bridge open by January 10?", end=END, **more):
    return binary(question=question, end_ns=end, guard_end=True, **more)


@pytest.mark.parametrize(
    ("p", "left_days", "hold_h", "wanted"),
    [
        (0.5, 10, 6, -0.5 * math.log(2) * 6 / 240),
        (0.1, 5, 12, 0.9 * math.log(0.9) * 12 / 120),
        (0.9, 5, 6, 0.1 * math.log(0.1) * 6 / 120),
        (0.5, 0.125, 6, -0.5 * math.log(2)),
        (0.5, 14, 6, 0.0),
        (0.5, 0, 6, 0.0),
    ],
)
def test_the_drift_by_hand(p, left_days, hold_h, wanted):
    now = END - int(left_days * DAY_NS)
    drift = by_date.drift(dated(), 10_000 * p, now, hold_h * HOUR_NS, ())
    assert drift == pytest.approx(10_000 * wanted)
    assert 0.0 <= 10_000 * p + drift <= 10_000


def test_the_drift_is_what_a_hazard_leaves_of_the_price_after_a_short_while():
    """p(t) = 1 - exp(-lam (H - t)): its slope at t = 0."""
    p, left, step = 0.3, 10 * 86_400.0, 60.0
    lam = -math.log(1 - p) / left
    slope = (1 - math.exp(-lam * (left - step)) - p) / step
    assert by_date.drift(dated(), 3000.0, T0, 3_600 * NS_PER_S, ()) == pytest.approx(slope * 3_600 * 10_000, rel=1e-3)


def test_decay_lowers_fair_value_and_only_where_it_is_on_and_known():
    view = see(fair=5000.0, instrument=dated())
    drift = -5000 * math.log(2) * 6 / 240
    assert worth(view, "decay").fair == pytest.approx(5000 + drift, abs=1 / 64)
    assert worth(view).fair == 5000.0
    other = see(fair=5000.0, instrument=dated("Will the bridge open?"))
    assert worth(other, "decay").fair == 5000.0
    assert worth(other, "decay", by_date=("x", "m")).fair == pytest.approx(5000 + drift, abs=1 / 64), "named by a person"
    assert worth(see(fair=5000.0, instrument=dated(end=None)), "decay", by_date=("m",)).fair == 5000.0


@pytest.mark.parametrize(
    "question",
    [
        "Will the bridge open by January 10?",
        "Will the bridge open by Jan 10, 2026?",
        "Will the bridge open BY  JAN. 10TH?",
        "Bridge opens before January 12?",
        "Will the bridge open before January 12, 2026, to all traffic?",
        "Will the war end by January 9?",
    ],
)
def test_questions_that_are_by_date(question):
    assert by_date.is_by_date(dated(question))


@pytest.mark.parametrize(
    ("question", "end"),
    [
        ("Will the bridge open by end of 2025?", T0),
        ("Will the bridge open by the end of December?", T0 + 5 * HOUR_NS),
        ("Will the bridge open by end of February 2028?", T0 + 790 * DAY_NS),
        ("Will the bridge open before 2026?", T0),
        ("Will the bridge open before January 2026?", T0 - HOUR_NS),
        ("Will the bridge open by December 31?", T0 + HOUR_NS),
    ],
)
def test_ends_of_months_and_years(question, end):
    assert by_date.is_by_date(dated(question, end=end))
    assert not by_date.is_by_date(dated(question, end=end + 20 * DAY_NS)), "the end is another day"


@pytest.mark.parametrize(
    "question",
    [
        "Will the bridge open?",
        "Will the bridge open on January 10?",
        "Will the bridge open by June 30?",
        "Will the bridge open by January 10, 2027?",
        "Will the bridge not open by January 10?",
        "Won't the bridge open by January 10?",
        "Will the bridge stay closed by January 10?",
        "Will the mayor remain in office by January 10?",
        "Will fewer than 10 ships pass by January 10?",
        "Which bridge will open by January 10?",
        "Will the ceasefire hold by January 10?",
        "Will the price be above $100 by January 10?",
        "Will the play by May run on January 10?",
    ],
)
def test_questions_that_are_not(question):
    assert not by_date.is_by_date(dated(question))


@pytest.mark.parametrize(
    "changes",
    [{"exclusive": True}, {"start_ns": T0}, {"outcomes": ("Lakers", "Celtics")}, {"outcomes": ("No", "Yes")}, {"end_ns": None}],
)
def test_markets_that_are_not_whatever_they_ask(changes):
    assert by_date.is_by_date(dated()) and not by_date.is_by_date(msgspec.structs.replace(dated(), **changes))


# Toxicity (2.3).


def test_toxicity_widens_where_it_is_on():
    view = see(fair=5000.0, toxicity=70.0)
    assert (worth(view, "toxicity").half, worth(view).half) == (170.0, 100.0)
    assert fair.half_spread(view, 5000.0, MakerParams(**only())) == 100.0
    assert prices(see(toxicity=70.0), **only("toxicity")) == (4900, 5300)
    assert prices(see(toxicity=70.0), **only()) == (5000, 5200)


# Unwind-cost sizing.


def deep(bids, asks, **more):
    """A view of the book given as (price, shares), fair 5100 unless said."""
    view = see(**{"fair": 5100.0} | more)
    book = Book(payout=view.instrument.payout)
    sides = (tuple((price, int(shares * SHARE)) for price, shares in side) for side in (bids, asks))
    book.apply_snapshot(BookSnapshot(view.instrument.id, *sides, 0), T0)
    view.book = book
    return view


BIDS, ASKS = ((5000, 10), (4800, 10), (4300, 100)), ((5200, 30), (5300, 5), (5900, 100))


def test_what_the_book_takes_back_by_hand():
    view, bound = deep(BIDS, ASKS), MakerParams(unwind_max_ticks=3.0)
    # Bids: 10 at 100 and 10 at 300 leave 2000 of 300 x 20 - 4000; at 800 each share over costs 500: 4 more.
    assert size.leavable(view, BUY, bound) == pytest.approx(24 * SHARE)
    # Asks: 30 at 100 and 5 at 200 leave 6500; at 800 each costs 500: 13 more.
    assert size.leavable(view, SELL, bound) == pytest.approx(48 * SHARE)
    assert size.leavable(view, BUY, MakerParams(unwind_max_ticks=0.5)) == 0.0, "not even the best price"


@pytest.mark.parametrize(("net", "bid", "ask"), [(0, 24, 48), (10, 14, 50), (24, None, 50), (40, None, 50), (-30, 50, 18)])
def test_no_more_is_bought_than_could_be_left_and_reducing_is_never_blocked(net, bid, ask):
    # At +40 the bid has no room; the ask may sell the 40 and 48 beyond. At -30 the bid may buy back 30 and 24 beyond.
    wanted, _ = quote(deep(BIDS, ASKS, net=net, bid_depth=10**6, ask_depth=10**6), **only("unwind"))
    assert [wanted[s][1] if s in wanted else None for s in (BUY, SELL)] == [bid, ask]


def test_our_own_orders_are_no_way_out():
    view = deep(BIDS, ASKS, shown_bids={4800: 6 * SHARE, 4300: 500 * SHARE}, shown_asks={5200: 30 * SHARE})
    assert size.leavable(view, BUY, MakerParams()) == pytest.approx(14 * SHARE)
    assert size.leavable(view, SELL, MakerParams()) == pytest.approx(5 * SHARE + 5 * SHARE * 100 / 500)


class Watching(Maker):
    """The maker, with the last view it was shown."""

    def on_market(self, view, own, params):
        self.seen = view
        return super().on_market(view, own, params)


@pytest.mark.parametrize("shows_own", [True, False])
def test_the_view_tells_which_part_of_the_book_is_ours(shows_own):
    rig = Rig(strategy=Watching(), wants=MakerParams())
    rig.listed()
    rig.send(VenueUp("v", True, shows_own=shows_own), Started(1, False), AccountSnapshot((), ()))
    rig.book()
    assert (rig.strategy.seen.shown_bids, rig.strategy.seen.shown_asks) == ({}, {})
    rig.ack()
    rig.fill(rig.one(BUY), 10 * SHARE)
    rig.run(1)
    ours = ({5000: 40 * SHARE}, {5200: 50 * SHARE}) if shows_own else ({}, {})
    assert (rig.strategy.seen.shown_bids, rig.strategy.seen.shown_asks) == ours


BOOKS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 120)), min_size=1, max_size=7)


@given(BOOKS, BOOKS, st.integers(-199, 199), st.floats(0.25, 8.0), st.booleans())
@settings(max_examples=200)
def test_nothing_is_entered_that_the_visible_book_would_not_take_back(below, above, net, bound, tapered):
    bids, asks, at = [], [], 5100
    for step, shares in below:
        bids.append((at := at - 100 * step, shares))
    at = 5100
    for step, shares in above:
        asks.append((at := at + 100 * step, shares))
    view = deep([b for b in bids if b[0] > 0], [a for a in asks if a[0] < 10_000], net=net)
    terms = only("unwind", *(["taper"] if tapered else []), unwind_max_ticks=bound)
    for side in (BUY, SELL):
        qty = size.size(view, side, MakerParams(**terms))
        position = side * net * SHARE + qty
        if position > max(0, side * net * SHARE):
            assert mean_cost(view, side, position) <= bound * 100 + 1e-6
        if side * net < 0:
            assert qty >= min(50, abs(net)) * SHARE, "what reduces is not touched"


def mean_cost(view, side, position):
    """What a share gives up against the mid on the mean when the position is sold into the book; infinite where it cannot be."""
    left, cost = position, 0.0
    levels = sorted((view.book.bids if side is BUY else view.book.asks).items(), reverse=side is BUY)
    for price, qty in levels:
        part = min(left, qty)
        cost, left = cost + part * side * ((view.book.best_bid + view.book.best_ask) / 2 - price), left - part
    return cost / position if left == 0 else math.inf


# Taper.


@pytest.mark.parametrize(("hours", "share"), [(100, 1.0), (72, 1.0), (56, 0.75), (48, 0.625), (24.0, 0.25), (3, 0.25), (None, 1.0)])
def test_orders_shrink_towards_a_quarter_at_the_reduce_only_hour(hours, share):
    end = None if hours is None else T0 + int(hours * HOUR_NS)
    view = see(instrument=binary(end_ns=end))
    wanted, _ = quote(view, **only("taper"))
    assert [wanted[s][1] for s in (BUY, SELL)] == [50 * share, 50 * share]
    assert quote(view, **only())[0][BUY][1] == 50


@pytest.mark.parametrize(("net", "bid", "ask"), [(30, 10.62, 30), (10, 11.87, 12.5), (60, 8.75, 50), (-60, 50, 8.75)])
def test_the_taper_keeps_what_reduces(net, bid, ask):
    wanted, _ = quote(see(instrument=binary(end_ns=T0 + 20 * HOUR_NS), net=net), **only("taper"))
    assert [wanted[s][1] for s in (BUY, SELL)] == [bid, ask]


def test_a_taper_that_begins_at_its_end_is_a_step():
    terms = MakerParams(**only("taper", taper_ns=24 * HOUR_NS, taper_end_ns=24 * HOUR_NS))
    for hours, wanted in ((24, 12.5), (25, 50)):
        assert size.size(see(instrument=binary(end_ns=T0 + hours * HOUR_NS)), BUY, terms) == wanted * SHARE


# Kelly (3).


def bet(opinion, bankroll=10_000, fair_=5000.0, **more):
    view = see(fair=fair_, opinion=opinion, bankroll=bankroll * USD)
    made = MakerParams(**only("kelly", **more))
    return fair.wanted_net(view, made, fair.micro_price(view), fair.fair_value(view)) / SHARE


def test_the_wanted_position_is_the_kelly_bet_of_what_the_opinion_moved():
    shift = math.log(0.51 / 0.49)
    # 0.1 x $10,000 x 0.01 / 0.25
    assert bet(View(shift=shift, lean=1, target_net=9)) == pytest.approx(40, abs=0.01)
    assert bet(View(shift=-shift, lean=-1, target_net=-9)) == pytest.approx(-40, abs=0.01)
    assert bet(View(shift=shift, lean=1), kelly_ratio=0.05) == pytest.approx(20, abs=0.01)
    low = math.log(0.21 / 0.79) - math.log(0.20 / 0.80)
    assert bet(View(shift=low, lean=1), fair_=2000.0) == pytest.approx(0.1 * 10_000 * 0.01 / 0.16, abs=0.05)


def test_and_at_most_half_the_position_cap():
    assert bet(View(shift=0.5, lean=1)) == 100
    assert bet(View(shift=-0.5, lean=-1)) == -100


@pytest.mark.parametrize("target", [None, 0, 30 * SHARE, -30 * SHARE])
def test_what_opens_nothing_keeps_its_word(target):
    """hold, sell and exit lean to no side; so does an opinion below the confidence that is needed."""
    assert bet(View(shift=0.5, lean=0, target_net=target)) == (target or 0) / SHARE


def test_a_buy_never_opens_the_other_side():
    assert bet(View(shift=-0.5, lean=1, target_net=40 * SHARE)) == 0
    assert bet(View(shift=0.5, lean=-1, target_net=-40 * SHARE)) == 0
    assert bet(View(shift=0.0, lean=1, target_net=40 * SHARE)) == 0, "no edge, no bet"


def opined(action, p, *, terms, hold, confidence=0.7):
    """The position an answer asks for, shares: what the target adds to the reservation price over what a share held takes off."""
    rig = Rig(strategy=Maker(), wants=MakerParams(terms=terms), prior_weight=0.5)
    rig.start()
    rig.hold(BUY if hold > 0 else SELL, 5100, abs(hold) * SHARE)
    rig.advise(advice(action, confidence, p_yes=p))
    rig.run(1)
    terms = rig.market().own.terms
    assert rig.state.counts.signals_refused == 0 and terms["opinion"] * (p - 0.51) > 0
    return -hold * terms["target"] / terms["skew"]


def test_through_the_engine_a_sell_only_reduces_whatever_the_probability_says():
    kelly = Terms(**NONE | {"kelly": True})
    for terms in (kelly, Terms(**NONE)):
        assert opined("sell_yes", 0.2, terms=terms, hold=20) == pytest.approx(0.0)
        assert opined("sell_no", 0.8, terms=terms, hold=-20) == pytest.approx(0.0)
    step, asked = opined("buy_yes", 0.53, terms=Terms(**NONE), hold=20), opined("buy_yes", 0.53, terms=kelly, hold=20)
    assert step == pytest.approx(70)
    assert 1 < asked < 20, "a small edge is a small position, even below what is held"
    assert opined("buy_yes", 0.53, terms=kelly, hold=20, confidence=0.5) == pytest.approx(0.0), "too unsure for any position"


# All of them: off is nothing, mirrored, recorded.


def test_off_is_as_if_it_were_not_there():
    seen = see(net=40, opinion=View(shift=0.03, target_net=20 * SHARE))
    plain = quote(seen, **only())
    end = T0 + 30 * HOUR_NS
    instrument = dated("Will the bridge open by January 2?", end, event_id="E", exclusive=False)
    lean = View(shift=0.03, target_net=20 * SHARE, lean=1)
    view = see(net=40, opinion=lean, instrument=instrument, parity=-90.0, toxicity=150.0, bankroll=10_000 * USD)
    view.estimators.flow, view.estimators.flow_var = 900.0, 300.0**2
    named = {"complete_events": ("E",), "by_date": ("m",), "unwind_max_ticks": 0.01}
    assert quote(view, **only(**named)) == plain
    for name in ("flow", "parity", "decay", "toxicity", "unwind", "taper", "kelly"):
        changed = worth(view, name, **named).terms != worth(view, **named).terms or quote(view, **only(name, **named)) != plain
        assert changed, f"{name} would have been seen"
    everything = only(*(n for n in NONE if n != "table"), **named)
    touch = quote(see(net=40, opinion=lean), quoting="touch")
    untouched = see(net=40, opinion=lean, instrument=instrument, parity=-90.0)
    assert quote(untouched, quoting="touch", **everything) == touch, "and the seed's rule knows none"


def test_what_is_off_by_default():
    assert [name for name in NONE if getattr(Terms(), name)] == ["toxicity", "reward", "rebate"]


SYMMETRIC = ("toxicity", "flow", "unwind", "taper", "kelly")


def ladder(dice, at, way):
    """Up to four levels from a price (cents) outwards, (price, shares)."""
    return tuple(((at + way * n) * 100, dice.randrange(1, 400)) for n in range(4) if 0 < at + way * n < 100)


def flipped(side):
    return tuple((10_000 - price, shares) for price, shares in side)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_a_mirrored_market_is_quoted_in_mirror_by_every_term_that_has_one(seed):
    dice = Random(seed)
    bid = dice.randrange(2, 95)
    ask = min(bid + dice.randrange(1, 8), 98)
    bids, asks = ladder(dice, bid, -1), ladder(dice, ask, 1)
    price, net, z, shift = (
        dice.randrange(bid * 6400, ask * 6400 + 1) / 64,
        dice.randrange(-150, 151),
        dice.gauss(0, 1.5),
        dice.gauss(0, 0.1),
    )
    lean, target, shown = dice.choice((-1, 0, 1)), dice.randrange(-9000, 9000), dice.randrange(50) * SHARE
    more = {
        "instrument": binary(end_ns=dice.choice((None, T0 + dice.randrange(100) * HOUR_NS))), "bankroll": 10_000 * USD,
        "toxicity": dice.random() * 90, "sig_x": CALM_X * dice.random() * 3,
    }  # fmt: skip
    here = deep(bids, asks, fair=price, net=net, shown_bids={bid * 100: shown},
                opinion=View(shift=shift, lean=lean, target_net=target), **more)  # fmt: skip
    there = deep(flipped(asks), flipped(bids), fair=10_000 - price, net=-net, shown_asks={10_000 - bid * 100: shown},
                 opinion=View(shift=-shift, lean=-lean, target_net=-target), **more)  # fmt: skip
    for view, sign in ((here, 1), (there, -1)):
        view.estimators.flow, view.estimators.flow_var = sign * z * 300, 300.0**2
    wants = only(*SYMMETRIC, unwind_max_ticks=dice.uniform(0.5, 8), min_liquidity_usd=0.0, kelly_ratio=0.02)
    straight, mirror = quote(here, **wants), quote(there, **wants)
    assert ({side.other: (10_000 - at, qty) for side, (at, qty) in straight[0].items()}, straight[1]) == mirror


def test_what_the_mirror_property_compares_is_orders():
    made = [quote(flowing(1.0, fair=5100.0, net=net), **only(*SYMMETRIC))[0] for net in (-100, -20, 0, 20, 100)]
    assert all(set(wanted) == {BUY, SELL} for wanted in made)


@pytest.mark.parametrize("world", ["plain", "short lives"])
def test_a_mirrored_market_is_traded_in_mirror_with_them_on(world):
    days = {"taper_ns": 3_600 * NS_PER_S, "taper_end_ns": 600 * NS_PER_S}
    maker = MakerParams(**only(*SYMMETRIC, "parity", flow_ticks=0.5, unwind_max_ticks=4.0, **days))
    worlds = Worlds(61, maker=maker, **{"limits": params(**BANK)} | WORLDS[world]).run(1_200)
    worlds.check_money()
    print(f"{world}, seed 61: {worlds.kinds}, fills {worlds.straight.state.counts.fills}")
    assert worlds.kinds["PlaceOrder"] > 20 and worlds.straight.state.counts.fills > 2


@settings(max_examples=100)
@given(
    st.integers(-190, 190), st.floats(-0.4, 0.4), st.integers(-15_000, 15_000), st.floats(-4, 4), st.floats(-200, 200),
    st.floats(0, 200), st.sampled_from([1.0, 2.0, 3.0]),
)  # fmt: skip
def test_the_recorded_parts_sum_to_the_prices(net, shift, target, z, asked, toxicity, widen):
    view = flowing(
        z, net=net, opinion=View(shift=shift, target_net=target), parity=asked, toxicity=toxicity, widen=widen,
        instrument=dated(event_id="E"), fair=5100.0,
    )  # fmt: skip
    found = fair.valuation(view, MakerParams(terms=Terms(flow=True, decay=True), complete_events=("E",)))
    moved = ("opinion", "flow", "parity", "decay", "target", "skew")
    assert sum(found.terms[name] for name in moved) == pytest.approx(found.reservation - 5100.0, abs=1e-6)
    assert sum(found.terms[name] for name in moved[:4]) == pytest.approx(found.fair - 5100.0, abs=1e-9)
    assert found.terms["half"] + found.terms["toxicity"] == found.half
    assert set(found.terms) == {*moved, "half", "toxicity"}


def test_each_part_by_hand():
    view = flowing(1.0, net=60, opinion=View(shift=math.log(0.51 / 0.49), target_net=20 * SHARE), parity=-12.0, toxicity=30.0)
    own = MakerState()
    Maker().on_market(view, own, MakerParams(terms=Terms(flow=True, parity=True)))
    wanted = {"opinion": 100, "flow": 25, "parity": -12, "decay": 0, "target": 35, "skew": -105, "half": 100, "toxicity": 30}
    assert own.terms == pytest.approx(wanted, abs=0.02)
    terms = only("unwind", "taper")
    view = deep(BIDS, ASKS, instrument=binary(end_ns=T0 + 48 * HOUR_NS))
    Maker().on_market(view, own, MakerParams(min_liquidity_usd=0.0, **terms))
    # A taper to 31.25 a side; of the bid no more than 24 could be left.
    assert (own.terms["taper"], own.terms["unwind"]) == pytest.approx((37.5, 7.25))


def test_no_terms_are_recorded_where_nothing_is_valued():
    own = MakerState(terms={"skew": 1.0})
    Maker().on_market(see(4500, 5600), own, MakerParams())
    assert (own.note, own.terms) == ("wide spread", {})
    own.terms = {"skew": 1.0}
    assert Maker().on_market(see(), own, MakerParams(quoting="touch")) and own.terms == {}


def test_a_restart_remembers_what_made_the_last_prices():
    rig = Rig(strategy=Maker(), wants=MakerParams()).start()
    rig.hold(BUY, 5000, 40 * SHARE)
    assert rig.market().own.terms["skew"] < 0
    other = rig.reborn()
    assert other.market().own == rig.market().own and other.market().position.yes.settled == 40 * SHARE
    assert rig.run(2) == other.run(2) and rig.saved() == other.saved()


# From config.

KEYS: list[tuple[str, object, str, object]] = [
    ("strategy.flow_ticks", 0.4, "flow_ticks", 0.4),
    ("strategy.decay_hold_hours", 1.5, "decay_hold_ns", 5_400 * NS_PER_S),
    ("strategy.by_date", ["0xa", "0xb"], "by_date", ("0xa", "0xb")),
    ("strategy.complete_events", ["7"], "complete_events", ("7",)),
    ("strategy.unwind_max_ticks", 2, "unwind_max_ticks", 2.0),
    ("strategy.taper_hours", 96, "taper_ns", 96 * HOUR_NS),
    ("risk.resolution_reduce_hours", 12, "taper_end_ns", 12 * HOUR_NS),
    ("strategy.kelly", 0.2, "kelly_ratio", 0.2),
    *((f"strategy.terms.{name}", not getattr(Terms(), name), f"terms.{name}", not getattr(Terms(), name)) for name in NONE),
]


def flat(made):
    values = msgspec.structs.asdict(made)
    return values | {f"terms.{name}": on for name, on in msgspec.structs.asdict(values.pop("terms")).items()}


@pytest.mark.parametrize(("key", "value", "param", "wanted"), KEYS, ids=[row[0] for row in KEYS])
def test_each_key_reaches_its_parameter_exactly_and_no_other(key, value, param, wanted):
    before, after = flat(maker_params(Config())), flat(maker_params(load(None, {}, {key: value})))
    assert {name: after[name] for name in after if after[name] != before[name]} == {param: wanted}


def test_the_defaults_of_the_file_are_those_of_the_maker():
    made = maker_params(Config())
    assert msgspec.structs.replace(made, sig_ref=MakerParams().sig_ref) == MakerParams()
