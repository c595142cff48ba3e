"""What hostile weather found: contradictions of the world that the core must come through."""

from __future__ import annotations

from llm_maker.core import events as ev
from llm_maker.core.commands import CancelOrder, LookUpOrder, RequestSnapshot
from llm_maker.core.orders import Status
from llm_maker.core.values import Leg, Side
from tests.core.builders import CASH, SHARE, Rig, of, places

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
