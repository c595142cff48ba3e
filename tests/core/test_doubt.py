"""What hostile weather found: contradictions of the world that the core must come through."""

from __future__ import annotations

from llm_maker.core import events as ev
from llm_maker.core import worth
from llm_maker.core.commands import CancelOrder, LookUpOrder, RequestAccount, RequestSnapshot
from llm_maker.core.orders import Status
from llm_maker.core.values import Leg, Side
from tests.core.builders import CASH, SHARE, USD, Rig, Wants, binary, of, places

BOTH = ((1, 5000, 50 * SHARE), (-1, 5200, 50 * SHARE))
BUY, SELL = Side.BUY, Side.SELL


def quoting(**changes):
    rig = Rig(wants=BOTH, **changes).start()
    rig.run(1)
    return rig


def foreign(rig, leg=Leg.YES):
    return rig.market().position.held(leg).foreign


def test_a_book_of_the_last_session_is_not_quoted_on():
    rig = quoting()
    rig.ack()
    reborn = rig.reborn()
    reborn.wait(3_600)
    reborn.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    assert not reborn.market().book.trusted
    sent = reborn.run(2, alive=False)
    assert of(sent, RequestSnapshot) and not places(sent)
    for order in reborn.live():
        reborn.send(ev.OrderCanceled(order.order_id))
    assert places(reborn.book())


def test_a_look_up_that_overtook_our_cancel_sends_no_second_one():
    rig = quoting()
    rig.ack()
    order = rig.one(BUY)
    assert of(rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test")), CancelOrder)
    rig.send(ev.OrderLookedUp(order.order_id, "open"))
    assert order.status is Status.PENDING_CANCEL and order.sent_cancel
    assert not of(rig.run(2), CancelOrder)


def test_an_acceptance_of_an_order_in_doubt_is_looked_into_at_once():
    rig = quoting()
    order = rig.one(BUY)
    rig.send(ev.OrderUncertain(order.order_id, "timeout"), ev.OrderLookedUp(order.order_id, "absent"))
    assert order.status is Status.UNKNOWN
    asked = of(rig.send(ev.OrderAccepted(order.order_id, "x")), LookUpOrder)
    assert [c.order_id for c in asked] == [order.order_id]


def test_a_redemption_that_overtakes_the_outcome_is_booked_and_halts():
    for leg, amount, gain in ((Leg.YES, 10_000 * 50 * SHARE, 1), (Leg.NO, 0, 0)):
        rig = quoting()
        rig.hold(BUY if leg is Leg.YES else SELL, 5000, 50 * SHARE, leg=leg)
        before = rig.state.cash
        rig.send(ev.CashMoved(ev.CashKind.REDEMPTION, amount, "m", leg, 50 * SHARE))
        assert rig.state.cash == before + amount
        position = rig.market().position
        assert position.net == 0 and (position.realised > 0) == gain
        assert "redemption" in rig.state.halts


def test_shares_of_fills_we_have_not_heard_of_stay_foreign_only_until_we_do():
    rig = quoting()
    rig.ack()
    order = rig.one(BUY)
    # The account already shows what the fill's own message will tell later.
    shown = ev.AccountSnapshot((), (ev.Holding("m", Leg.YES, 20 * SHARE),), CASH)
    rig.send(shown)
    assert foreign(rig) == 20 * SHARE
    rig.fill(order, 20 * SHARE, settled=False)
    rig.send(shown)
    assert foreign(rig) <= 20 * SHARE
    # More fills keep settling in an active market: what is explained must not stay foreign.
    rig.send(ev.FillSettled("f1", "m"))
    rig.fill(order, 5 * SHARE, settled=False)
    rig.send(ev.AccountSnapshot((), (ev.Holding("m", Leg.YES, 25 * SHARE),), CASH))
    assert foreign(rig) <= 5 * SHARE
    rig.send(ev.FillSettled("f2", "m"), ev.AccountSnapshot((), (ev.Holding("m", Leg.YES, 25 * SHARE),), CASH))
    assert foreign(rig) == 0


def test_a_sale_that_settles_does_not_make_its_shares_foreign():
    rig = quoting()
    rig.hold(BUY, 5000, 50 * SHARE)
    order = next(o for o in rig.live(SELL))
    rig.fill(order, 10 * SHARE, settled=False)
    rig.send(ev.AccountSnapshot((), (ev.Holding("m", Leg.YES, 50 * SHARE),), CASH))
    assert foreign(rig) == 0


def test_true_foreign_shares_are_seen_while_fills_settle():
    rig = quoting()
    rig.hold(BUY, 5000, 50 * SHARE)
    order = next(o for o in rig.live(SELL))
    rig.fill(order, 10 * SHARE, settled=False)
    rig.send(ev.AccountSnapshot((), (ev.Holding("m", Leg.YES, 150 * SHARE),), CASH))
    assert foreign(rig) >= 100 * SHARE


def live(wants=((1, 5000, 20 * SHARE),), cash=5_000 * USD, **instrument):
    """A live account whose bid rests."""
    rig = Rig(cash=0, live=True, wants=wants)
    rig.start(binary(guard_end=False, **instrument), account=ev.AccountSnapshot((), (), cash))
    rig.ack()
    return rig


def test_a_cancel_that_was_lost_is_sent_again_though_no_look_up_is_answered():
    rig = live()
    order = rig.one(BUY)
    rig.send(ev.VenueDown("v", "test"), ev.OrderUncertain(order.order_id, "cancel: timeout"))
    asked = [c.order_id for c in of(rig.run(25, alive=False), CancelOrder)]
    assert asked == [order.order_id] * 2, "every ten seconds, for as long as nobody says that it is gone"
    rig.send(ev.OrderLookedUp(order.order_id, "canceled"))
    assert of(rig.run(25, alive=False), CancelOrder) == []


def test_an_order_filled_but_for_the_venues_rounding_has_ended():
    share = 1_000_000
    rig = live(((1, 5000, 20 * share),), qty_decimals=6, qty_step=share // 100, min_qty=5 * share)
    order = rig.one(BUY)
    rig.fill(order, 20 * share - 60)
    rig.state.strategy_params = Wants()
    rig.send(ev.OrderLookedUp(order.order_id, "filled", 20 * share))
    assert order.status is Status.FILLED and rig.live() == []


def test_an_ended_order_that_is_told_to_have_traded_more_has_its_fills_asked_for():
    """The reply to a cancel carries no matched size; the word that does comes after it."""
    rig = live()
    order = rig.one(BUY)
    rig.state.strategy_params = Wants()
    rig.run(1)
    rig.send(ev.OrderCanceled(order.order_id, "asked"), ev.OrderLookedUp(order.order_id, "canceled", 5 * SHARE))
    assert order.status is Status.CANCELED and of(rig.run(6), RequestAccount)


def test_sets_of_a_split_whose_answer_is_late_are_ours_and_not_foreign():
    rig = live(())
    rig.send(ev.OperatorActed(ev.Verb.SPLIT, "cli", "m", qty=30 * SHARE))
    (work,) = rig.state.works
    rig.send(ev.SplitFailed("m", 30 * SHARE, "not known yet", final=False, work_id=work))
    sets = tuple(ev.Holding("m", leg, 30 * SHARE) for leg in (Leg.YES, Leg.NO))
    for _ in range(12):
        rig.wait(60)
        rig.send(ev.AccountSnapshot((), sets, 4_970 * USD, rig.now))
    assert foreign(rig) == 0 and rig.market().position.yes.settled == 30 * SHARE
    assert rig.state.cash == 4_970 * USD and not rig.state.halts and not rig.state.works


def test_small_losses_that_nothing_explains_count_as_losses():
    """As transfers they would move the limits along with them, however many they were."""
    rig = live(())
    rig.run(2)
    told = 5_000 * USD
    while "daily_loss" not in rig.state.halts and told > 4_000 * USD:
        told -= USD // 2
        for _ in range(2):
            rig.wait(6)
            rig.send(ev.AccountSnapshot((), (), told, rig.now), ev.Tick())
    assert told == 5_000 * USD - 200 * USD - USD // 2, "two percent of the bankroll"
    assert rig.state.flows.transfers == 5_000 * USD and worth.equity(rig.state) == rig.state.cash == told
