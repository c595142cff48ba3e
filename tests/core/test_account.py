"""Orders and money through engine events: every way an order can end, what the account says, merges, transfers, stopping."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llm_maker.core import events as ev
from llm_maker.core import worth
from llm_maker.core.commands import (
    CancelOrder,
    Level,
    LookUpOrder,
    MergeSets,
    Notice,
    PlaceOrder,
    RedeemShares,
    RequestAccount,
    SplitCash,
    Stop,
)
from llm_maker.core.orders import Status
from llm_maker.core.risk import chain
from llm_maker.core.values import NS_PER_S, Leg, Liquidity, Mode, Side
from tests.core.builders import CASH, SHARE, USD, Rig, Wants, acts, binary, linear, notices, of, places

BUY, SELL = Side.BUY, Side.SELL
BID = ((1, 5000, 20 * SHARE),)
BOTH = ((1, 5000, 20 * SHARE), (-1, 5200, 20 * SHARE))


def quoting(wants=BID, **changes) -> Rig:
    """A bid of ours is in flight."""
    rig = Rig(wants=wants, **changes).start()
    assert rig.one(BUY).status is Status.PENDING_NEW
    return rig


def resting(wants=BID, **changes) -> Rig:
    rig = quoting(wants, **changes)
    rig.ack()
    assert all(o.status is Status.OPEN for o in rig.live())
    return rig


def doubtful(**changes) -> Rig:
    """The bid timed out at the socket: UNKNOWN."""
    rig = quoting(**changes)
    rig.send(ev.OrderUncertain(rig.one().order_id, "timeout"))
    assert rig.one().status is Status.UNKNOWN
    return rig


def told(rig: Rig, found: str, filled: int = 0, order=None):
    return rig.send(ev.OrderLookedUp((order or rig.one()).order_id, found, filled))


# The life of an order.


def test_an_order_is_in_flight_and_reserved_from_the_step_that_decides_it():
    rig = quoting()
    assert rig.state.reserved == 20 * SHARE * 5000 == rig.market().reserved
    assert rig.state.gross == 20 * SHARE * 5000


def test_an_acknowledged_order_rests_and_steady_input_sends_nothing():
    rig = resting()
    assert rig.one().venue_id == "x-1-1"
    assert acts(rig.run(5)) == []


@pytest.mark.parametrize("reason", ["post_only", "balance", "tick", "size", "closed", "rate", "other"])
def test_a_refused_order_is_gone_counted_by_reason_and_frees_its_cash(reason):
    rig = quoting()
    out = rig.send(ev.OrderRejected(rig.one().order_id, reason))
    assert rig.live() == [] and rig.state.reserved == 0 and rig.state.gross == 0
    assert rig.state.refused[f"venue: {reason}"].count == 1
    assert len(notices(out, "order_rejected")) == (reason != "post_only")


def test_a_duplicate_is_no_refusal_of_the_order_it_repeats():
    rig = quoting()
    out = rig.send(ev.OrderRejected(rig.one().order_id, "duplicate"))
    assert rig.one().status is Status.UNKNOWN and of(out, LookUpOrder)


@pytest.mark.parametrize(("reason", "tries"), [("balance", 2), ("post_only", 25)])
def test_a_refused_order_is_not_hammered(reason, tries):
    rig = quoting()
    sent = 0
    for _ in range(4 * 25):
        for order in rig.live():
            rig.send(ev.OrderRejected(order.order_id, reason))
        sent += len(places(rig.run(0.25)))
    assert 1 <= sent <= tries


def test_a_fill_before_the_acknowledgement_books_once_and_the_late_ack_changes_nothing():
    rig = quoting()
    order = rig.one()
    rig.fill(order, 5 * SHARE)
    assert order.status is Status.OPEN
    rig.send(ev.OrderAccepted(order.order_id, "x"))
    assert order.status is Status.OPEN and order.filled == 5 * SHARE
    assert rig.market().position.net == 5 * SHARE
    assert rig.state.cash == CASH - 5 * SHARE * 5000


def test_a_full_fill_before_the_acknowledgement_ends_the_order():
    rig = quoting()
    order = rig.one()
    rig.state.strategy_params = Wants()
    rig.fill(order)
    rig.send(ev.OrderAccepted(order.order_id, "x"))
    assert order.status is Status.FILLED and rig.live() == [] and rig.state.reserved == 0


def test_a_repeated_fill_is_booked_once():
    rig = resting()
    order = rig.one()
    rig.fill(order, 5 * SHARE, fill_id="same")
    rig.fill(order, 5 * SHARE, fill_id="same")
    assert rig.market().position.net == 5 * SHARE and order.filled == 5 * SHARE and rig.state.counts.fills == 1


def canceling() -> tuple[Rig, object]:
    rig = resting()
    rig.state.strategy_params = Wants()
    rig.run(1)
    order = rig.one()
    assert order.status is Status.PENDING_CANCEL
    return rig, order


def test_a_fill_after_the_cancel_was_sent_counts_and_the_cancel_stands():
    rig, order = canceling()
    rig.fill(order, 5 * SHARE)
    assert order.status is Status.PENDING_CANCEL and rig.market().position.net == 5 * SHARE
    rig.send(ev.OrderCanceled(order.order_id))
    assert order.status is Status.CANCELED and rig.state.reserved == 0


def test_a_fill_after_the_confirmed_cancel_is_still_ours():
    rig, order = canceling()
    rig.send(ev.OrderCanceled(order.order_id))
    rig.fill(order, 5 * SHARE)
    assert order.status is Status.CANCELED and rig.market().position.net == 5 * SHARE
    assert rig.state.cash == CASH - 5 * SHARE * 5000


def test_a_cancel_is_sent_once_however_often_it_is_wanted():
    rig, _ = canceling()
    assert of(rig.run(5), CancelOrder) == []


def test_cancel_gone_is_no_proof_it_is_looked_up():
    rig, order = canceling()
    out = rig.send(ev.CancelRejected(order.order_id, "not found", True))
    assert order.status is Status.UNKNOWN and order.is_live
    assert [c.order_id for c in of(out, LookUpOrder)] == [order.order_id]


def test_a_refused_cancel_is_tried_again():
    rig, order = canceling()
    rig.send(ev.CancelRejected(order.order_id, "rate", False))
    assert order.status is Status.OPEN
    assert [c.order_id for c in of(rig.run(1), CancelOrder)] == [order.order_id]


def test_a_late_refusal_of_a_cancel_does_not_touch_a_final_order():
    rig, order = canceling()
    rig.send(ev.OrderCanceled(order.order_id))
    assert rig.send(ev.CancelRejected(order.order_id, "gone", True)) == [] and order.status is Status.CANCELED


def test_an_expired_order_is_gone():
    rig = resting()
    rig.state.strategy_params = Wants()
    rig.send(ev.OrderExpired(rig.one().order_id))
    assert rig.live() == [] and rig.state.reserved == 0


def test_an_answer_for_an_order_we_do_not_hold_is_told_and_harmless():
    rig = resting()
    before = rig.saved()
    for event in (ev.OrderAccepted("9-9", "x"), ev.OrderCanceled("9-9"), ev.OrderExpired("9-9"), ev.OrderUncertain("9-9", "?")):
        assert notices(rig.send(event), "unknown_order")
    assert rig.send(ev.OrderLookedUp("9-9", "open")) == [] == rig.send(ev.CancelRejected("9-9", "gone", True))
    assert rig.saved() == before


def test_a_fill_of_an_order_nobody_remembers_is_a_fill():
    rig = Rig().start()
    rig.hold(BUY, 5000, 5 * SHARE)
    assert rig.market().position.net == 5 * SHARE and rig.state.cash == CASH - 5 * SHARE * 5000


def test_an_overfill_is_booked_and_shouted():
    rig = resting()
    out = rig.fill(rig.one(), 25 * SHARE)
    assert rig.market().position.net == 25 * SHARE
    assert notices(out, "overfill")[0].level is Level.ERROR and rig.state.counts.overfills == 1


# UNKNOWN.


def test_an_order_without_an_answer_becomes_unknown_and_is_looked_up():
    rig = quoting()
    out = rig.run(9)
    assert rig.one().status is Status.PENDING_NEW and not of(out, LookUpOrder)
    out = rig.run(3)
    assert rig.one().status is Status.UNKNOWN and len(of(out, LookUpOrder)) == 1
    assert rig.state.counts.unknown == 1


def test_a_cancel_without_an_answer_becomes_unknown():
    rig, order = canceling()
    rig.run(12)
    assert order.status is Status.UNKNOWN


def test_unknown_keeps_its_cash_its_exposure_and_its_side():
    rig = doubtful()
    assert rig.state.reserved == 20 * SHARE * 5000 == rig.state.gross
    assert places(rig.run(8)) == [], "no second order on a side where one may rest"


def test_lookups_back_off_and_never_end():
    rig = doubtful()
    asked = [0.0]
    start = rig.now
    for _ in range(4 * 300):
        if of(rig.run(0.25), LookUpOrder):
            asked.append((rig.now - start) / NS_PER_S)
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps[0] >= 4 and all(b >= a - 1 for a, b in pairwise(gaps))
    assert 8 <= gaps[-1] <= 9, gaps
    assert rig.one().status is Status.UNKNOWN


def test_found_open_rests_again_and_may_be_canceled():
    rig = doubtful()
    told(rig, "open")
    assert rig.one().status is Status.OPEN
    rig.state.strategy_params = Wants()
    assert len(of(rig.run(1), CancelOrder)) == 1


def test_found_filled_with_every_fill_known_ends_it():
    rig = doubtful()
    order = rig.one()
    rig.fill(order, 10 * SHARE)
    told(rig, "canceled", 10 * SHARE, order)
    assert order.status is Status.CANCELED


@pytest.mark.parametrize("found", ["filled", "canceled", "expired"])
def test_an_ended_order_whose_fills_are_missing_stays_unknown_until_they_come(found):
    rig = doubtful()
    order = rig.one()
    told(rig, found, 20 * SHARE, order)
    assert order.status is Status.UNKNOWN and rig.state.reserved > 0
    rig.fill(order, 12 * SHARE)
    assert order.status is Status.UNKNOWN
    rig.fill(order, 8 * SHARE)
    assert order.status is Status.FILLED and rig.market().position.net == 20 * SHARE


def test_missing_fills_put_even_an_open_order_in_doubt():
    rig = resting()
    order = rig.one()
    told(rig, "filled", 20 * SHARE, order)
    assert order.status is Status.UNKNOWN
    assert of(rig.run(1.5), LookUpOrder)


@pytest.mark.parametrize(("found", "status"), [("canceled", Status.CANCELED), ("expired", Status.EXPIRED)])
def test_found_ended_without_fills_ends_it(found, status):
    rig = doubtful()
    order = rig.one()
    rig.state.strategy_params = Wants()
    told(rig, found)
    assert order.status is status and rig.state.reserved == 0


def test_what_replaces_an_order_that_has_ended_is_sent_in_the_same_step():
    rig = resting()
    rig.state.strategy_params = Wants(((1, 4900, 20 * SHARE),))
    (cancel,) = of(rig.run(3), CancelOrder)
    (made,) = places(rig.send(ev.OrderCanceled(cancel.order_id)))
    assert made.price == 4900


def test_absent_is_no_proof_before_its_time():
    rig = doubtful()
    order = rig.one()
    rig.run(8)
    assert order.lookups >= 2
    told(rig, "absent")
    assert order.status is Status.UNKNOWN


def test_absent_is_no_proof_before_a_second_lookup():
    rig = quoting()
    order = rig.one()
    rig.wait(30)
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    assert order.lookups == 1
    told(rig, "absent")
    assert order.status is Status.UNKNOWN


def test_absent_is_a_proof_after_time_and_two_late_lookups():
    rig = doubtful()
    order = rig.one()
    rig.run(12)
    assert order.lookup_ns - order.placed_ns < 10 * NS_PER_S
    told(rig, "absent")
    told(rig, "absent")
    assert order.status is Status.UNKNOWN, "answers to questions of before may arrive late, and twice"
    rig.run(60)
    told(rig, "absent")
    told(rig, "absent")
    assert order.status is Status.UNKNOWN, "one late question, answered twice"
    rig.run(60)
    rig.state.strategy_params = Wants()
    told(rig, "absent")
    assert order.status is Status.REJECTED and rig.state.reserved == 0


def test_an_order_that_filled_is_never_taken_for_absent():
    rig = doubtful()
    order = rig.one()
    rig.fill(order, 5 * SHARE)
    rig.run(12)
    told(rig, "absent")
    assert order.status is Status.UNKNOWN


def test_an_order_taken_for_absent_that_fills_after_all_counts_again():
    rig = doubtful()
    order = rig.one()
    rig.state.strategy_params = Wants()
    rig.run(12)
    told(rig, "absent")
    rig.fill(order, 5 * SHARE)
    assert order.status is Status.UNKNOWN and order.order_id in rig.market().live
    assert rig.state.reserved == 15 * SHARE * 5000
    assert of(rig.run(1.5), LookUpOrder)


def test_an_order_taken_for_absent_that_is_accepted_after_all_is_looked_up_and_canceled():
    rig = doubtful()
    order = rig.one()
    rig.state.strategy_params = Wants()
    rig.run(12)
    told(rig, "absent")
    assert of(rig.send(ev.OrderAccepted(order.order_id, "x")) + rig.run(1.5), LookUpOrder)
    told(rig, "open", order=order)
    assert [c.order_id for c in of(rig.run(1), CancelOrder)] == [order.order_id]


# Settlement.


def test_a_failed_settlement_gives_position_and_cash_back():
    rig = resting()
    rig.fill(rig.one(), settled=False, fill_id="f", fee=70)
    assert rig.state.cash == CASH - 20 * SHARE * 5000 - 70
    out = rig.send(ev.FillFailed("f", "m"))
    assert rig.market().position.net == 0 and rig.state.cash == CASH and rig.state.held == []
    assert notices(out, "settlement_failed") and rig.state.counts.failed_settlements == 1


def test_only_settled_shares_are_sold():
    rig = Rig(wants=((-1, 5200, 20 * SHARE),)).start()
    rig.fill(rig.one(SELL), settled=True)
    rig.state.strategy_params = Wants()
    rig.run(1)
    position = rig.market().position
    assert position.no.settled == 20 * SHARE
    rig.state.strategy_params = Wants(BID)
    assert places(rig.run(1))[0].leg is Leg.NO, "selling NO is the cheaper way to buy exposure"
    other = Rig(wants=((-1, 5200, 20 * SHARE),)).start()
    other.fill(other.one(SELL), settled=False, fill_id="f")
    other.state.strategy_params = Wants(BID)
    other.run(1)
    assert other.one(BUY).leg is Leg.YES, "an unsettled NO share may not be sold"


# What is not ours.


def snapshot(*holdings, orders=(), cash=None) -> ev.AccountSnapshot:
    return ev.AccountSnapshot(tuple(orders), tuple(ev.Holding(*h) for h in holdings), cash)


def test_no_order_before_the_first_account_snapshot():
    rig = Rig(wants=BOTH)
    rig.listed()
    out = rig.send(ev.Started(1, False))
    assert [c.reason for c in of(out, RequestAccount)] == ["start"]
    rig.book()
    assert places(rig.log) == [] and any(g.name == "account" and g.pull for g in chain(rig.state, rig.market()))
    out = rig.run(12)
    assert places(out) == [] and 2 <= len(of(out, RequestAccount)) <= 3, "asked again, at most every five seconds"
    rig.send(snapshot())
    assert len(places(rig.run(0.25))) == 2


def test_account_unknown_is_never_read_as_nothing_there():
    rig = Rig(wants=BOTH)
    rig.listed()
    rig.send(ev.Started(1, False))
    rig.book()
    out = rig.send(ev.AccountUnknown("502"))
    assert notices(out, "account_unknown") and not rig.state.account_known
    assert places(rig.run(3)) == []


def test_account_unknown_ends_no_order():
    rig = resting()
    rig.send(ev.AccountUnknown("502"))
    assert rig.one().status is Status.OPEN


def test_a_foreign_holding_is_shown_counted_and_not_ours():
    rig = Rig().start(account=snapshot(("m", Leg.YES, 40 * SHARE)))
    rig.run(1.5)
    position = rig.market().position
    assert position.yes.foreign == 40 * SHARE and position.net == 0 and rig.state.held == []
    assert rig.state.gross == 40 * SHARE * 5100, "its whole worth may be lost"


def test_a_foreign_holding_counts_at_once_when_the_price_was_known_first():
    rig = Rig().start()
    rig.send(snapshot(("m", Leg.YES, 40 * SHARE)))
    rig.run(1.5)
    assert rig.state.gross == 40 * SHARE * 5100


def test_a_foreign_holding_is_never_sold_nor_merged():
    rig = Rig(wants=((-1, 5200, 20 * SHARE),)).start(account=snapshot(("m", Leg.YES, 40 * SHARE), ("m", Leg.NO, 40 * SHARE)))
    assert rig.one(SELL).leg is Leg.NO and not rig.one(SELL).reduce_only, "bought NO, sold nothing"
    assert of(rig.run(5), MergeSets) == []


def test_flatten_leaves_foreign_shares_alone():
    rig = Rig().start(account=snapshot(("m", Leg.YES, 40 * SHARE)))
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", take=True))
    assert places(rig.run(5)) == []


def test_adopt_makes_a_holding_ours_without_moving_the_pnl():
    rig = Rig().start(account=snapshot(("m", Leg.YES, 40 * SHARE)))
    rig.run(2)
    before = worth.equity(rig.state)
    rig.send(ev.OperatorActed(ev.Verb.ADOPT, "cli", "m"))
    state, position = rig.state, rig.market().position
    assert position.yes.foreign == 0 and position.net == 40 * SHARE and rig.market().exit_plan is not None
    value = 40 * SHARE * 5100
    assert worth.equity(state) - before == value == state.flows.transfers
    assert state.risk.day_base == before + value == state.risk.high_water
    assert worth.equity(state) - state.flows.start - state.flows.transfers == 0


def test_adopt_waits_for_a_price():
    rig = Rig()
    rig.listed()
    rig.send(ev.Started(1, False), snapshot(("m", Leg.YES, 40 * SHARE)))
    assert notices(rig.send(ev.OperatorActed(ev.Verb.ADOPT, "cli", "m")), "adopt")
    assert rig.market().position.yes.foreign == 40 * SHARE


FOREIGN_ORDER = ev.RestingOrder("", "x-99", "m", BUY, Leg.YES, 4800, 10 * SHARE)


def test_a_foreign_order_is_named_once_and_never_canceled():
    rig = Rig(wants=BOTH).start(account=snapshot(orders=[FOREIGN_ORDER]))
    assert list(rig.state.foreign_orders) == ["x-99"] and len(notices(rig.log, "foreign_order")) == 1
    rig.send(snapshot(orders=[FOREIGN_ORDER]))
    rig.send(ev.OperatorActed(ev.Verb.CANCEL_ALL, "cli"))
    assert len(notices(rig.log, "foreign_order")) == 1
    assert {c.order_id for c in of(rig.log, CancelOrder)} == {"1-1", "1-2"}


def test_a_foreign_order_is_counted_in_the_worst_case_until_it_leaves():
    rig = Rig().start(account=snapshot(orders=[FOREIGN_ORDER]))
    assert rig.state.gross == rig.market().worst == 10 * SHARE * 4800
    rig.send(snapshot())
    assert rig.state.gross == 0 and rig.state.foreign_orders == {}


def test_a_fill_that_a_snapshot_showed_first_is_not_ours_twice():
    rig = quoting()
    order = rig.one()
    rig.send(snapshot(("m", Leg.YES, 5 * SHARE), orders=[ev.RestingOrder(order.order_id, "v", "m", BUY, Leg.YES, 5000, order.qty)]))
    assert rig.market().position.yes.foreign == 5 * SHARE
    rig.fill(order, 5 * SHARE)
    rig.send(ev.OperatorActed(ev.Verb.ADOPT, "cli", "m"))
    assert rig.market().position.net == 5 * SHARE, "adopting waits while the account is in doubt"
    assert of(rig.run(6), RequestAccount)
    rig.send(snapshot(("m", Leg.YES, 5 * SHARE)))
    assert rig.market().position.yes.foreign == 0 and not rig.state.account_doubted


def test_live_does_not_start_beside_foreign_orders_until_resume():
    rig = Rig(wants=BOTH, live=True).start(binary(guard_end=False), account=snapshot(orders=[FOREIGN_ORDER]))
    assert rig.state.mode is Mode.HALTED and "foreign_orders" in rig.state.halts and places(rig.log) == []
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    assert len(places(rig.log)) == 2
    rig.send(snapshot(orders=[FOREIGN_ORDER]))
    assert rig.state.halts == {}, "a person has said it once"


def twice(rig: Rig, account):
    """The account's list, and again when it was asked for again."""
    rig.send(account)
    assert rig.state.halts == {}, "one list may have been overtaken by a message"
    assert of(rig.run(6), RequestAccount)
    return rig.send(account)


def test_a_list_that_was_overtaken_is_no_drift():
    rig = Rig().start()
    rig.hold(BUY, 5000, 40 * SHARE)
    rig.send(snapshot(("m", Leg.YES, 30 * SHARE)))
    rig.run(6)
    rig.send(snapshot(("m", Leg.YES, 40 * SHARE)))
    assert rig.state.halts == {} and not rig.state.drift_ns


def test_less_than_our_fills_made_is_drift_and_halts_until_resume():
    rig = Rig().start()
    rig.hold(BUY, 5000, 40 * SHARE)
    out = twice(rig, snapshot(("m", Leg.YES, 30 * SHARE)))
    assert "drift" in rig.state.halts and notices(out, "halt_drift")[0].level is Level.ERROR
    rig.run(3)
    assert rig.state.mode is Mode.HALTED
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    assert rig.state.halts == {}


def test_what_agrees_is_no_drift():
    rig = Rig().start()
    rig.hold(BUY, 5000, 40 * SHARE)
    rig.send(snapshot(("m", Leg.YES, 40 * SHARE)))
    assert rig.state.halts == {} and rig.market().position.yes.foreign == 0


def test_a_difference_is_no_drift_while_a_fill_settles():
    rig = resting()
    rig.fill(rig.one(), settled=False)
    rig.send(snapshot())
    assert rig.state.halts == {}


def test_drift_in_one_market_does_not_hide_foreign_shares_of_another():
    rig = Rig().start(binary("a"), binary("b"))
    rig.hold(BUY, 5000, 40 * SHARE, "a")
    twice(rig, snapshot(("b", Leg.YES, 10 * SHARE)))
    assert "drift" in rig.state.halts and rig.market("b").position.yes.foreign == 10 * SHARE


def test_linear_drift_halts():
    rig = Rig().start(linear())
    rig.hold(SELL, 6_800_012, 3, "l")
    rig.send(snapshot(("l", Leg.NONE, -3)))
    assert rig.state.halts == {}
    twice(rig, snapshot(("l", Leg.NONE, -2)))
    assert "drift" in rig.state.halts


def test_a_fill_that_the_account_showed_first_is_not_foreign_for_long():
    rig = doubtful()
    order = rig.one()
    rig.send(snapshot(("m", Leg.YES, 20 * SHARE)))
    rig.fill(order)
    rig.send(snapshot(("m", Leg.YES, 20 * SHARE)))
    position = rig.market().position
    assert position.net == 20 * SHARE and position.yes.foreign == 0


def test_an_order_the_account_does_not_list_is_looked_up_not_dropped():
    rig = resting()
    rig.wait(5)
    rig.send(ev.Started(2, True))
    order = rig.one()
    assert order.status is Status.UNKNOWN
    rig.wait(1)
    rig.send(snapshot())
    assert order.is_live
    assert of(rig.run(2), LookUpOrder)


def test_an_open_order_missing_from_the_list_is_looked_up():
    rig = resting()
    rig.wait(2)
    rig.state.account_asked_ns = rig.now - 1
    assert len(of(rig.send(snapshot()), LookUpOrder)) == 1
    assert rig.one().is_live


def test_an_order_younger_than_the_question_is_not_doubted():
    rig = resting()
    rig.state.account_asked_ns = rig.now - 1
    assert of(rig.send(snapshot()), LookUpOrder) == []


def test_an_unknown_order_that_the_account_lists_is_open():
    rig = doubtful()
    order = rig.one()
    rig.send(snapshot(orders=[ev.RestingOrder(order.order_id, "x", "m", BUY, Leg.YES, 5000, order.qty)]))
    assert order.status is Status.OPEN


def test_an_order_of_an_earlier_session_is_canceled():
    rig = Rig().start()
    out = rig.send(snapshot(orders=[ev.RestingOrder("0-7", "x", "m", BUY, Leg.YES, 4800, 500)]))
    assert [c.order_id for c in of(out, CancelOrder)] == ["0-7"]


def test_a_restart_doubts_every_order_and_sends_none_before_it_knows():
    rig = resting(BOTH).reborn()
    out = rig.send(ev.Started(2, True))
    assert [o.status for o in rig.live()] == [Status.UNKNOWN] * 2
    assert places(out + rig.run(2)) == []
    rig.send(snapshot())
    rig.book()
    assert places(rig.run(2)) == [], "both sides may still rest"
    out = [c for order in rig.live() for c in told(rig, "canceled", order=order)]
    assert [p.order_id for p in places(out + rig.run(1))] == ["2-1", "2-2"]


def test_a_restart_with_fresh_books_waits_for_the_account_all_the_same():
    rig = Rig(wants=BOTH).start(binary())
    rig.state.strategy_params = Wants()
    for _ in range(3):
        rig.run(1)
        rig.ack()
    other = rig.reborn()
    other.state.strategy_params = Wants(BOTH)
    other.send(ev.Started(2, True))
    other.wait(1)
    assert places(other.book() + other.run(3)) == []
    other.send(snapshot())
    assert len(places(other.run(1))) == 2


# Merges.


def sets(rig: Rig, shares: int) -> Rig:
    rig.hold(BUY, 5000, shares * SHARE)
    rig.hold(SELL, 5200, shares * SHARE)
    assert rig.market().position.sets() == shares * SHARE
    return rig


def test_complete_sets_are_merged_from_the_threshold_on():
    assert of(sets(Rig().start(), 19).run(3), MergeSets) == []
    rig = sets(Rig().start(), 20)
    (merge,) = of(rig.run(3), MergeSets)
    assert merge.qty == 20 * SHARE and merge.reason == "complete sets"


def test_fewer_sets_are_merged_when_cash_is_short():
    rig = sets(Rig(cash=2_900 * USD).start(), 6)
    (merge,) = of(rig.run(3), MergeSets)
    assert merge.reason == "cash is short"


def test_a_merge_pays_out_and_is_no_pnl():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    before = worth.equity(rig.state)
    rig.send(ev.SetsMerged("m", 20 * SHARE, cost=100, work_id=only_work(rig)))
    assert worth.equity(rig.state) == before - 100
    assert rig.market().position.sets() == 0 and rig.state.counts.merges == 1 and rig.state.held == []
    assert rig.state.flows.fees == -100


def test_a_merge_without_a_result_keeps_its_shares():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    asked = only_work(rig)
    rig.send(ev.MergeFailed("m", 20 * SHARE, "timeout", final=False, work_id=asked))
    assert rig.market().position.sets() == 0 and of(rig.run(30), MergeSets) == []
    rig.send(ev.SetsMerged("m", 20 * SHARE, work_id=asked))
    assert rig.state.counts.merges == 1


def test_what_a_merge_under_way_has_burned_is_not_taken_from_a_foreign_holding():
    rig = sets(Rig().start(account=snapshot(("m", Leg.YES, 40 * SHARE))), 20)
    rig.run(3)
    rig.send(snapshot(("m", Leg.YES, 40 * SHARE)))
    assert rig.market().position.yes.foreign == 40 * SHARE, "our 20 are burned already, though nobody has said so yet"
    rig.send(ev.SetsMerged("m", 20 * SHARE, work_id=only_work(rig)))
    rig.send(snapshot(("m", Leg.YES, 40 * SHARE)))
    assert rig.market().position.yes.foreign == 40 * SHARE and rig.state.halts == {}


def test_a_merge_that_failed_gives_its_shares_free_and_is_tried_again():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    rig.send(ev.MergeFailed("m", 20 * SHARE, "gas", final=True, work_id=only_work(rig)))
    assert of(rig.run(50), MergeSets) == [], "not again and again"
    assert len(of(rig.run(15), MergeSets)) == 1


def only_work(rig: Rig) -> str:
    (work_id,) = rig.state.works
    return work_id


def test_a_merge_told_twice_is_booked_once():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    told = ev.SetsMerged("m", 20 * SHARE, work_id=only_work(rig))
    rig.send(told)
    cash = rig.state.cash
    assert [c.code for c in of(rig.send(told), Notice)] == ["unasked_work"]
    assert rig.state.cash == cash and rig.state.counts.merges == 1 and rig.market().position.net == 0


def held_at_venue(rig: Rig, yes: int, no: int, cash: int | None = None) -> ev.AccountSnapshot:
    held = (ev.Holding("m", Leg.YES, yes), ev.Holding("m", Leg.NO, no))
    return ev.AccountSnapshot((), held, cash, asked_ns=rig.now)


@pytest.mark.parametrize(("left", "merged"), [(0, True), (20 * SHARE, False)])
def test_a_merge_that_is_never_answered_ends_as_the_account_shows(left: int, merged: bool):
    rig = sets(Rig().start(), 20)
    rig.run(3)
    rig.send(held_at_venue(rig, left, left))
    assert rig.state.works, "not yet: the answer may still come"
    rig.wait(601)
    rig.send(held_at_venue(rig, left, left))
    assert not rig.state.works and rig.state.counts.merges == int(merged)
    assert rig.market().position.sets() == left and not rig.state.halts


def test_one_merge_at_a_time_in_a_market_so_that_the_account_can_tell_which_was_done():
    rig = sets(Rig().start(), 20)
    assert len(of(rig.run(3), MergeSets)) == 1
    assert of(sets(rig, 30).run(30), MergeSets) == [], "the first is still under way"
    rig.send(ev.SetsMerged("m", 20 * SHARE, work_id=only_work(rig)))
    (second,) = of(rig.run(3), MergeSets)
    assert second.qty == 30 * SHARE


def test_a_merge_of_an_earlier_session_that_was_done_is_seen_at_once():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    worth_before = worth.equity(rig.state)
    rig.send(ev.Started(2, True), held_at_venue(rig, 20 * SHARE, 20 * SHARE))
    assert rig.state.works and rig.state.counts.merges == 0, "it may still be on its way"
    rig.wait(6)
    rig.send(held_at_venue(rig, 0, 0))
    assert not rig.state.works and rig.state.counts.merges == 1 and not rig.state.halts
    assert worth.equity(rig.state) == worth_before and rig.market().position.sets() == 0


def test_a_person_splits_cash_into_sets():
    rig = Rig().start()
    before = worth.equity(rig.state)
    (asked,) = of(rig.send(ev.OperatorActed(ev.Verb.SPLIT, "cli", "m", qty=30 * SHARE)), SplitCash)
    rig.send(ev.SetsSplit("m", 30 * SHARE, work_id=asked.work_id))
    assert rig.market().position.sets() == 30 * SHARE and worth.equity(rig.state) == before and rig.state.cash == CASH - 30 * USD
    assert of(rig.send(ev.OperatorActed(ev.Verb.SPLIT, "cli", "m", qty=10**13)), SplitCash) == []


def live_rig(cash: int = 5_000 * USD) -> Rig:
    return Rig(cash=0, live=True).start(binary(guard_end=False), account=ev.AccountSnapshot((), (), cash))


def test_the_first_cash_of_a_live_account_is_a_transfer_and_no_profit():
    rig = live_rig()
    assert rig.state.cash == rig.state.flows.transfers == 5_000 * USD and not rig.state.halts
    rig.run(3)
    assert worth.equity(rig.state) == rig.state.risk.day_base == 5_000 * USD


def test_cash_that_no_fill_explains_is_booked_once_seen_twice_and_a_loss_of_it_halts():
    rig = live_rig()
    for gap, halted in ((7 * USD, False), (-3 * USD, True)):
        before, pnl = rig.state.cash, worth.equity(rig.state) - rig.state.flows.transfers
        rig.send(held_at_venue(rig, 0, 0, before + gap))
        assert rig.state.cash == before, "one list may have been overtaken"
        rig.wait(6)
        rig.send(held_at_venue(rig, 0, 0, before + gap))
        assert rig.state.cash == before + gap and worth.equity(rig.state) - rig.state.flows.transfers == pnl
        assert ("cash" in rig.state.halts) is halted


def test_cash_that_went_by_orders_of_somebody_else_is_told_and_does_not_halt():
    rig = live_rig()
    seen = held_at_venue(rig, 0, 0, rig.state.cash)
    rig.send(ev.AccountSnapshot((FOREIGN_ORDER,), (), rig.state.cash, rig.now), ev.OperatorActed(ev.Verb.RESUME, "cli"))
    before = rig.state.cash
    for _ in range(2):
        rig.wait(6)
        rig.send(ev.AccountSnapshot((), seen.holdings, before - 3 * USD, rig.now))
    assert rig.state.cash == before - 3 * USD and not rig.state.halts


def test_an_account_that_cannot_be_read_for_minutes_pulls_the_quotes():
    rig = live_rig()
    rig.state.strategy_params = Wants(BOTH)
    rig.run(1)
    rig.ack()
    rig.run(298)
    assert len(rig.live()) == 2
    rig.run(4)
    assert all(order.sent_cancel for order in rig.live()), "nobody has confirmed what we hold for five minutes"
    rig.ack()
    rig.send(held_at_venue(rig, 0, 0, rig.state.cash))
    assert len(places(rig.run(1))) == 2


def test_cash_of_fills_under_way_is_explained_either_way():
    rig = live_rig()
    rig.state.strategy_params = Wants(BOTH)
    rig.run(1)
    rig.ack()
    rig.fill(rig.one(BUY), settled=False)
    paid = -rig.state.flows.trading
    assert paid > 0
    for _ in range(3):
        rig.wait(6)
        rig.send(held_at_venue(rig, 0, 0, 5_000 * USD), held_at_venue(rig, 0, 0, 5_000 * USD - paid))
    assert rig.state.cash == 5_000 * USD - paid and not rig.state.halts


def test_a_resolved_market_is_redeemed_once_and_never_while_part_is_foreign():
    rig = live_rig()
    rig.hold(BUY, 4000, 20 * SHARE)
    rig.send(held_at_venue(rig, 25 * SHARE, 0), ev.MarketResolved("m", 10_000))
    assert of(rig.run(3), RedeemShares) == [], "five of them are not ours"
    rig.send(held_at_venue(rig, 20 * SHARE, 0))
    (asked,) = of(rig.run(3), RedeemShares)
    assert (asked.yes_qty, asked.no_qty) == (20 * SHARE, 0)
    paid = ev.CashMoved(ev.CashKind.REDEMPTION, 20 * USD, "m", Leg.YES, 20 * SHARE, asked.work_id)
    rig.send(paid)
    cash = rig.state.cash
    rig.send(paid)
    assert rig.state.cash == cash and rig.market().position.net == 0 and not rig.state.works


def test_shares_that_the_venue_pays_by_itself_are_booked_after_two_lists():
    rig = live_rig()
    rig.hold(BUY, 4000, 20 * SHARE)
    cash = rig.state.cash
    rig.send(ev.MarketResolved("m", 10_000), held_at_venue(rig, 0, 0))
    assert rig.state.cash == cash and rig.market().position.net
    rig.wait(6)
    rig.send(held_at_venue(rig, 0, 0))
    assert rig.state.cash == cash + 20 * USD and rig.market().position.net == 0


def test_without_the_accounts_stream_nothing_rests_until_the_account_was_read_again():
    rig = live_rig()
    rig.state.strategy_params = Wants(BOTH)
    rig.run(1)
    rig.ack()
    assert len(rig.live()) == 2
    out = rig.send(ev.AccountStreamDown("v", "no answer"))
    assert len(of(out, CancelOrder)) == 2
    for order in rig.live():
        rig.send(ev.OrderCanceled(order.order_id))
    assert places(rig.run(2)) == []
    assert of(rig.send(ev.AccountStreamUp("v")), RequestAccount) and places(rig.run(2)) == []
    assert len(places(rig.send(held_at_venue(rig, 0, 0, rig.state.cash)) + rig.run(1))) == 2


def test_a_part_filled_order_that_nobody_finds_any_more_ends_after_look_ups_and_lists():
    rig = Rig(wants=((1, 4800, 20 * SHARE),)).start()
    rig.ack()
    order = rig.one(BUY)
    rig.fill(order, qty=5 * SHARE)
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    for _ in range(4):
        rig.run(12)
        rig.send(ev.OrderLookedUp(order.order_id, "absent"))
    assert order.is_live
    for _ in range(2):
        rig.wait(1)
        assert order.is_live
        rig.send(held_at_venue(rig, 5 * SHARE, 0))
    assert order.status is Status.CANCELED and order.filled == 5 * SHARE


def test_shares_of_a_merge_under_way_are_not_sold():
    rig = sets(Rig().start(), 20)
    rig.run(3)
    rig.state.strategy_params = Wants(((-1, 5200, 20 * SHARE),))
    rig.run(1)
    assert rig.one(SELL).leg is Leg.NO


def test_shares_that_a_resting_order_sells_are_not_merged():
    rig = Rig(wants=((-1, 5200, 20 * SHARE),)).start()
    rig.state.strategy_params = Wants()
    rig.ack()
    rig.run(1)
    rig.ack()
    rig.hold(BUY, 5000, 20 * SHARE)
    rig.state.strategy_params = Wants(((-1, 5200, 20 * SHARE),))
    rig.run(1)
    assert rig.one(SELL).leg is Leg.YES
    rig.hold(SELL, 5200, 20 * SHARE)
    assert of(rig.run(3), MergeSets) == []


# Money that is not a fill.


def test_a_transfer_moves_the_bases_and_never_the_pnl():
    rig = Rig().start()
    rig.run(2)
    rig.send(ev.CashMoved(ev.CashKind.TRANSFER, -500 * USD))
    rig.run(2)
    state = rig.state
    assert state.halts == {} and state.cash == CASH - 500 * USD and state.flows.transfers == -500 * USD
    assert state.risk.day_base == state.risk.week_base == state.risk.month_base == state.risk.high_water == CASH - 500 * USD
    assert worth.equity(state) - state.flows.start - state.flows.transfers == 0


@pytest.mark.parametrize(("kind", "field"), [("fee", "fees"), ("rebate", "rebates"), ("reward", "rewards"), ("funding", "funding")])
def test_money_that_comes_with_time_is_pnl_of_its_own_kind(kind, field):
    rig = Rig().start()
    rig.run(2)
    rig.send(ev.CashMoved(ev.CashKind(kind), -70, "m"))
    assert rig.state.cash == CASH - 70 and getattr(rig.state.flows, field) == -70
    assert rig.state.risk.day_base == CASH


def test_a_redemption_burns_the_shares_at_the_outcome():
    rig = Rig().start()
    rig.hold(BUY, 5000, 40 * SHARE)
    rig.send(ev.MarketResolved("m", 10_000))
    assert worth.equity(rig.state) == CASH + 40 * SHARE * 5000
    rig.send(ev.CashMoved(ev.CashKind.REDEMPTION, 40 * SHARE * 10_000, "m", Leg.YES, 40 * SHARE))
    assert rig.state.cash == CASH + 40 * SHARE * 5000 == worth.equity(rig.state)
    assert rig.market().position.net == 0 and rig.state.held == [] and rig.market().exit_plan is None
    assert rig.state.closed[0].trip.realised == 40 * SHARE * 5000


def test_the_losing_side_is_redeemed_for_nothing():
    rig = Rig().start()
    rig.hold(SELL, 5200, 40 * SHARE)
    rig.send(ev.MarketResolved("m", 10_000))
    rig.send(ev.CashMoved(ev.CashKind.REDEMPTION, 0, "m", Leg.NO, 40 * SHARE))
    assert worth.equity(rig.state) == CASH - 40 * SHARE * 4800 == rig.state.cash


def test_a_resolved_market_is_left_marked_at_its_outcome_and_quoted_no_more():
    rig = resting(BOTH)
    rig.hold(BUY, 5000, 20 * SHARE)
    out = rig.send(ev.MarketResolved("m", 0))
    assert len(of(out, CancelOrder)) == 2
    rig.ack()
    rig.move(5100)
    assert acts(rig.run(40)) == [] and worth.equity(rig.state) == CASH - 20 * SHARE * 5000
    assert worth.exit_equity(rig.state) == CASH - 20 * SHARE * 5000


def test_exit_equity_leaves_at_the_touch():
    rig = Rig().start()
    rig.hold(BUY, 5000, 20 * SHARE)
    assert worth.equity(rig.state) == CASH + 20 * SHARE * 100
    assert worth.exit_equity(rig.state) == CASH


@pytest.mark.parametrize(
    "event",
    [
        ev.FillSettled("f", "nowhere"),
        ev.FillFailed("f", "nowhere"),
        ev.SetsMerged("nowhere", 100),
        ev.MergeFailed("nowhere", 100, "gas"),
        ev.CashMoved(ev.CashKind.REDEMPTION, 100, "nowhere", Leg.YES, 100),
        ev.OrderFilled("o", "f", "nowhere", BUY, Leg.YES, 5000, 100, 0, Liquidity.MAKER),
    ],
    ids=lambda e: type(e).__name__,
)
def test_money_of_a_market_that_is_not_loaded_halts_and_does_not_crash(event):
    rig = Rig(wants=BOTH).start()
    rig.send(event)
    assert rig.state.mode is Mode.HALTED and rig.state.cash == CASH


# Stopping.


def test_a_stop_cancels_all_and_is_proved_by_an_account_without_us():
    rig = resting(BOTH)
    out = rig.send(ev.StopRequested("ctrl-c"))
    assert len(of(out, CancelOrder)) == 2 and rig.state.mode is Mode.HALTED
    rig.ack()
    rig.wait(5)
    out = rig.run(1)
    assert [c.reason for c in of(out, RequestAccount)] == ["stop"] and not of(out, Stop)
    assert rig.send(snapshot(orders=[FOREIGN_ORDER]))[-1] == Stop(True, "ctrl-c", ())


def test_an_account_that_cannot_be_read_proves_nothing():
    rig = resting(BOTH)
    rig.send(ev.StopRequested("ctrl-c"))
    rig.ack()
    rig.wait(5)
    rig.run(1)
    assert of(rig.send(ev.AccountUnknown("502")), Stop) == []
    assert len(of(rig.run(6), RequestAccount)) == 1


def test_an_account_list_asked_before_the_stop_proves_nothing():
    rig = Rig()
    rig.listed()
    rig.send(ev.Started(1, False))
    rig.wait(1)
    rig.send(ev.StopRequested("ctrl-c"))
    assert of(rig.send(snapshot()), Stop) == []


def test_an_account_list_with_one_of_ours_proves_nothing_and_cancels_it():
    rig = resting()
    rig.send(ev.StopRequested("ctrl-c"))
    rig.ack()
    rig.wait(5)
    rig.run(1)
    out = rig.send(snapshot(orders=[ev.RestingOrder("1-1", "x", "m", BUY, Leg.YES, 5000, 500)]))
    assert of(out, Stop) == [] and [c.order_id for c in of(out, CancelOrder)] == ["1-1"]


def test_a_stop_that_cannot_be_proved_says_so_once_and_names_the_orders():
    rig = resting(BOTH)
    rig.send(ev.StopRequested("ctrl-c"))
    out = rig.run(70)
    assert of(out, Stop) == [Stop(False, "ctrl-c", ("1-1", "1-2"))]


def test_an_order_that_turns_up_while_stopping_is_canceled():
    rig = doubtful()
    rig.send(ev.StopRequested("ctrl-c"))
    told(rig, "open")
    assert len(of(rig.run(0.5), CancelOrder)) == 1


def test_no_order_is_placed_while_stopping_whatever_comes():
    rig = resting(BOTH)
    rig.hold(BUY, 5000, 30 * SHARE)
    rig.send(ev.StopRequested("ctrl-c"))
    out = (
        rig.ack() + rig.move(5500) + rig.move(4500) + rig.run(20) + rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli")) + rig.run(20)
    )
    assert places(out) == []


def test_a_fill_while_stopping_is_booked_and_stops_nothing():
    rig = resting()
    rig.send(ev.StopRequested("ctrl-c"))
    rig.fill(rig.one())
    assert rig.market().position.net == 20 * SHARE and places(rig.run(1)) == []


def test_a_second_stop_changes_nothing():
    rig = resting()
    rig.send(ev.StopRequested("one"))
    assert rig.send(ev.StopRequested("two")) == [] and rig.state.stopping == "one"


def test_a_command_of_ours_is_well_formed():
    (order,) = [c for c in resting().log if isinstance(c, PlaceOrder)]
    assert order.post_only and order.time_in_force == "gtc" and order.order_id == "1-1" and order.reason
