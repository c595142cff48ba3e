"""From targets to orders: legs, post-only, exits as maker and as taker, one order a side, nothing twice."""

from __future__ import annotations

import pytest

from llm_maker.core import events as ev
from llm_maker.core.advice import Grade
from llm_maker.core.commands import CancelOrder, PlaceOrder, TimeInForce
from llm_maker.core.orders import Status
from llm_maker.core.strategy import PositionTarget, Urgency
from llm_maker.core.values import Leg, Mode, Side
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from tests.core.builders import SHARE, Rig, Scripted, Wants, advice, linear, of, places

BUY, SELL = Side.BUY, Side.SELL
BOTH = ((BUY, 5000, 50 * SHARE), (SELL, 5200, 50 * SHARE))


def opened(wants=BOTH, *, before=lambda rig: None, **changes):
    """A rig whose first book comes after `before`."""
    rig = Rig(wants=wants, **changes)
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    before(rig)
    rig.book()
    return rig


def lively(rig, seconds):
    """Time passes at a venue that answers within a second."""
    out = []
    for _ in range(seconds):
        rig.ack()
        out += rig.run(1)
    return out


def sent(commands):
    return [c for c in commands if isinstance(c, PlaceOrder | CancelOrder)]


def kinds(commands):
    return [type(c) for c in sent(commands)]


# Legs.


def leg_of(rig, side=SELL):
    return rig.one(side).leg


def test_without_inventory_both_sides_buy_a_token():
    rig = opened()
    assert (leg_of(rig, BUY), leg_of(rig, SELL)) == (Leg.YES, Leg.NO)


@pytest.mark.parametrize(("held", "leg"), [(50, Leg.YES), (49.99, Leg.NO), (200, Leg.YES)])
def test_a_token_is_sold_only_where_the_whole_order_is_held(held, leg):
    rig = opened(before=lambda r: r.hold(BUY, 5000, round(held * SHARE)))
    assert leg_of(rig, SELL) is leg


@pytest.mark.parametrize(("held", "leg"), [(50, Leg.NO), (49.99, Leg.YES)])
def test_the_same_on_the_other_outcome(held, leg):
    rig = opened(before=lambda r: r.hold(SELL, 5200, round(held * SHARE)))
    assert leg_of(rig, BUY) is leg


def test_provisional_shares_are_not_sold():
    def bought(rig):
        rig.send(ev.OrderFilled("old", "f", "m", BUY, Leg.YES, 5000, 80 * SHARE, 0, ev.Liquidity.MAKER, False))

    rig = opened(before=bought)
    assert leg_of(rig, SELL) is Leg.NO
    rig = opened(before=lambda r: (bought(r), r.send(ev.FillSettled("f", "m"))))
    assert leg_of(rig, SELL) is Leg.YES


def test_shares_of_a_merge_under_way_are_not_sold():
    def sets(rig):
        rig.hold(BUY, 5000, 60 * SHARE)
        rig.hold(SELL, 5200, 60 * SHARE, leg=Leg.NO)
        rig.market().position.merge_started(20 * SHARE)

    assert leg_of(opened(before=sets), SELL) is Leg.NO


def test_foreign_shares_are_never_sold():
    rig = opened(before=lambda r: r.market().position.set_foreign(Leg.YES, 100 * SHARE))
    assert leg_of(rig, SELL) is Leg.NO


def test_shares_that_a_resting_sale_claims_are_not_sold_twice():
    rig = opened(((SELL, 5200, 50 * SHARE), (SELL, 5300, 50 * SHARE)), before=lambda r: r.hold(BUY, 5000, 80 * SHARE))
    assert [o.leg for o in rig.live(SELL)] == [Leg.YES, Leg.NO]


def test_a_linear_instrument_has_no_legs():
    wants = ((BUY, 6_800_000, 10), (SELL, 6_800_100, 10))
    rig = Rig(wants=wants, base_cash=10**9, max_position_cash=10**10)
    rig.listed(linear())
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    rig.book("l", ((6_800_000, 500),), ((6_800_100, 500),))
    assert [o.leg for o in rig.live(name="l")] == [Leg.NONE, Leg.NONE]


# Quotes.


def test_every_quote_is_post_only_and_good_till_canceled():
    for strategy, wants in ((Scripted(), BOTH), (Maker(), None), (Maker(), MakerParams(quoting="touch"))):
        rig = Rig(strategy=strategy, wants=wants).start()
        made = places(rig.log)
        assert made and all(c.post_only and c.time_in_force is TimeInForce.GTC for c in made)


@pytest.mark.parametrize("action", ["buy_yes", "buy_no", "sell_yes", "sell_no", "exit", "hold"])
def test_no_answer_of_a_model_makes_an_order_that_takes(action):
    rig = Rig(strategy=Maker(), prior_weight=0.5)
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    rig.hold(BUY, 5000, 60 * SHARE)
    rig.book()
    rig.ack()
    bias = {"buy_yes": "bullish", "buy_no": "bearish"}.get(action, "neutral")
    rig.advise(advice(action, 1.0, bias, priority=Grade.HIGH))
    rig.run(30)
    assert all(c.post_only for c in places(rig.log))


def test_a_position_target_is_worked_at_the_touch_whatever_its_urgency():
    class Urgent(Scripted):
        def on_market(self, view, own, params):
            return [PositionTarget(50 * SHARE, Urgency.CROSS, "urgent")]

    rig = Rig(strategy=Urgent()).start()
    assert (rig.one(BUY).price, rig.one(BUY).post_only) == (5000, True)


def test_a_quote_that_would_cross_our_own_waits_for_it():
    rig = opened(((BUY, 5000, 50 * SHARE), (SELL, 5100, 50 * SHARE)))
    rig.ack()
    rig.engine.state.strategy_params = Wants(((BUY, 5100, 50 * SHARE), (SELL, 5300, 50 * SHARE)))
    out = rig.book()
    assert kinds(out) == [CancelOrder], "the bid is within a tick of its place and stays, the ask moves"
    assert not any(b.price >= a.price for b in rig.live(BUY) for a in rig.live(SELL))
    for _ in range(4):
        rig.ack()
        rig.run(1)
        assert not any(b.price >= a.price for b in rig.live(BUY) for a in rig.live(SELL))
    rig.ack()
    assert (rig.one(BUY).price, rig.one(SELL).price) == (5100, 5300)


def test_cancels_come_before_places():
    rig = opened(((BUY, 4800, 50 * SHARE),))
    rig.ack()
    rig.engine.state.strategy_params = Wants(BOTH)
    assert kinds(rig.book()) == [CancelOrder, PlaceOrder], "the old bid goes before the new ask comes"


def test_a_side_of_unknown_fate_gets_no_second_order_and_still_counts():
    rig = opened()
    bid = rig.one(BUY)
    rig.send(ev.OrderUncertain(bid.order_id, "timeout"))
    reserved = rig.state.reserved
    rig.run(10)
    assert rig.live(BUY) == [bid] and bid.status is Status.UNKNOWN
    assert rig.state.reserved == reserved


def test_steady_input_sends_nothing_after_the_first_pass():
    for strategy, wants in ((Scripted(), Wants(BOTH)), (Maker(), None), (Maker(), MakerParams(quoting="touch"))):
        rig = Rig(strategy=strategy, wants=wants).start()
        rig.ack()
        assert len(rig.live()) == 2
        assert sent(rig.run(60)) == []


def test_a_partial_fill_of_the_whole_side_is_refilled_once():
    rig = opened()
    rig.ack()
    rig.fill(rig.one(BUY), 30 * SHARE)
    assert kinds(rig.log)[-1] is CancelOrder, "off by more than a quarter: replaced"
    rig.ack()
    rig.run(1)
    assert rig.one(BUY).remaining == 50 * SHARE


def test_halted_withdraws_everything_and_reduce_only_the_adding_side():
    rig = opened()
    rig.ack()
    rig.hold(BUY, 5000, 80 * SHARE)
    out = rig.send(ev.OperatorActed(ev.Verb.REDUCE, "test", "m"))
    assert [rig.state.orders[c.order_id].side for c in of(out, CancelOrder)] == [BUY]
    assert len(of(rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test", "m")), CancelOrder)) == 1
    assert all(o.sent_cancel for o in rig.live())


def test_the_seed_rule_is_silent_below_the_confidence_it_wants():
    rig = Rig(strategy=Maker(), rule="seed").start()
    rig.ack()
    assert len(rig.live()) == 2
    rig.advise(advice("hold", 0.5))
    rig.run(1)
    assert all(o.sent_cancel for o in rig.live())
    assert list(rig.market().refusals) == ["both low confidence"]


def test_fallback_quotes_half_the_size():
    rig = Rig(strategy=Maker()).start()
    full = rig.one(BUY).qty
    other = Rig(strategy=Maker())
    other.state.slow.fallback = True
    other.start()
    assert other.one(BUY).qty * 2 == full


def test_a_storm_halves_the_size():
    rig = Rig(strategy=Maker()).start()
    full = rig.one(BUY).qty
    rig.ack()
    estimators = rig.market().estimators
    estimators.steps, estimators.sig_5m, estimators.sig_5m_median, estimators.sig_calm = 100, 5.0, 1.0, 0.0
    rig.book()
    rig.ack()
    rig.book()
    assert rig.one(BUY).qty * 2 == full


# Exits.


def held(rig_side=BUY, shares=100, **changes):
    """A position with quotes on both sides, accepted."""
    rig = opened(before=lambda r: r.hold(rig_side, 5000 if rig_side is BUY else 5200, shares * SHARE), **changes)
    rig.ack()
    return rig


@pytest.mark.parametrize("side", [BUY, SELL])
def test_an_exit_cancels_the_adding_side_and_rests_at_the_touch(side):
    rig = held(side)
    out = rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"))
    assert side in [rig.state.orders[c.order_id].side for c in of(out, CancelOrder)], "at once"
    lively(rig, 3)
    (order,) = rig.live()
    touch = rig.market().book.best_ask if side is BUY else rig.market().book.best_bid
    assert (order.side, order.price, order.remaining, order.post_only) == (side.other, touch, 100 * SHARE, True)


def test_an_exit_follows_the_touch_and_never_crosses_by_itself():
    rig = held()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"))
    for mid in (5300, 5500, 5200, 4900):
        rig.move(mid)
        lively(rig, 40)
        assert rig.one(SELL).price == rig.market().book.best_ask
    assert all(c.post_only for c in places(rig.log))


def test_an_exit_joins_one_tick_inside_where_its_own_side_is_empty():
    rig = held()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"))
    rig.book(asks=())
    rig.ack()
    rig.run(3)
    assert rig.one(SELL).price == 5100


def stopped(**changes):
    """A long position bought at 0.51 (mid), then the mid falls to 0.47: over the 5 % stop, held for 30 s."""
    rig = held(**changes)
    rig.move(4800)
    lively(rig, 32)
    assert rig.market().exit_plan.exiting == "stop"
    return rig


def test_a_stop_works_as_maker_until_its_patience_ends_and_then_takes():
    rig = stopped(stop_ratio=0.03)
    lively(rig, 590)
    assert all(c.post_only for c in places(rig.log))
    began = len(rig.log)
    lively(rig, 20)
    taking = [c for c in places(rig.log[began:]) if not c.post_only]
    assert taking, "the stop takes after 600 s"
    order = taking[0]
    assert (order.side, order.time_in_force, order.reduce_only, order.qty) == (SELL, TimeInForce.IOC, True, 100 * SHARE)
    assert order.price >= 4800 * 0.95, "never below the slippage limit"
    assert kinds(rig.log[began:])[0] is CancelOrder, "what rests goes first"
    assert order.leg is Leg.YES


def test_a_stop_that_may_not_cross_never_does():
    rig = stopped(stop_ratio=0.03, stop_exit_crosses=False)
    lively(rig, 900)
    assert all(c.post_only for c in places(rig.log))


@pytest.mark.parametrize("side", [BUY, SELL])
def test_the_operators_flatten_with_take_crosses_once_nothing_rests(side):
    rig = held(side)
    out = rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m", take=True))
    assert kinds(out) == [CancelOrder, CancelOrder]
    out = places(rig.ack() + rig.run(1))
    assert [(c.side, c.post_only, c.qty) for c in out] == [(side.other, False, 100 * SHARE)]
    assert out[0].price == (4900 if side is BUY else 5300), "the grid price within 5 % of the mark of 0.51"
    assert places(rig.run(5)) == [], "one at a time"


def test_taking_takes_no_more_than_is_shown_within_the_limit():
    rig = opened(before=lambda r: r.hold(BUY, 5000, 100 * SHARE))
    rig.book(bids=((5000, 30 * SHARE), (4900, 20 * SHARE), (4800, 900 * SHARE)))
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m", take=True))
    taking = [c for c in places(rig.ack() + rig.run(1)) if not c.post_only]
    assert [c.qty for c in taking] == [50 * SHARE]


def test_without_depth_in_the_limit_it_waits_and_says_so():
    rig = opened(before=lambda r: r.hold(BUY, 5000, 100 * SHARE))
    rig.book(bids=((5000, 3 * SHARE), (4100, 900 * SHARE)))
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m", take=True))
    rig.ack()
    assert places(rig.run(2)) == []
    assert list(rig.market().refusals) == ["sell no depth within the slippage limit"]


def test_taking_waits_for_an_order_of_unknown_fate():
    rig = held()
    rig.send(ev.OrderUncertain(rig.one(SELL).order_id, "timeout"))
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m", take=True))
    rig.ack()
    assert not [c for c in places(rig.run(5)) if not c.post_only]


def test_an_exit_by_signal_reduces_until_flat_as_maker():
    rig = Rig(strategy=Maker())
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    rig.hold(BUY, 5000, 60 * SHARE)
    rig.book()
    rig.ack()
    rig.advise(advice("exit", 0.1))
    rig.run(1)
    rig.ack()
    rig.run(3)
    assert [o.side for o in rig.live()] == [SELL]
    assert rig.one(SELL).price == 5200


def test_reduce_only_is_what_a_reducing_quote_says_and_no_other():
    rig = opened(before=lambda r: r.hold(BUY, 5000, 80 * SHARE))
    assert (rig.one(SELL).reduce_only, rig.one(BUY).reduce_only) == (True, False)
    rig = opened(before=lambda r: r.hold(BUY, 5000, 40 * SHARE))
    assert rig.one(SELL).reduce_only is False, "beyond flat it is new risk"


def test_reduce_only_mode_with_a_resolution_near_sells_what_is_held_and_nothing_else():
    rig = held()
    rig.market().operator_mode = Mode.REDUCE_ONLY
    rig.run(2)
    rig.ack()
    assert [o.side for o in rig.live()] == [SELL]
