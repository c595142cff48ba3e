"""What could cost money: orders in doubt that nobody cancels, hammered cancels, money and limits booked in the wrong place."""

from __future__ import annotations

from llm_maker.core import events as ev
from llm_maker.core.commands import CancelOrder
from llm_maker.core.events import Verb
from llm_maker.core.orders import Status
from llm_maker.core.values import Side
from tests.core.builders import SHARE, Rig, binary, of

BID = ((Side.BUY, 5000, 20 * SHARE),)


def quoting() -> Rig:
    rig = Rig(wants=BID).start()
    rig.run(1)
    return rig


def kill(rig: Rig):
    return rig.send(ev.OperatorActed(Verb.KILL, "test"))


def test_a_kill_tries_to_cancel_an_order_in_doubt_too():
    rig = quoting()
    order = rig.one()
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    assert order.status is Status.UNKNOWN
    assert [c.order_id for c in of(kill(rig), CancelOrder)] == [order.order_id]


def test_a_kill_repeats_a_cancel_that_was_lost():
    rig = quoting()
    rig.ack()
    order = rig.one()
    rig.send(ev.OperatorActed(Verb.PAUSE, "test"))
    rig.send(ev.OrderUncertain(order.order_id, "timeout of the cancel"))
    assert order.status is Status.UNKNOWN and order.sent_cancel
    assert [c.order_id for c in of(kill(rig), CancelOrder)] == [order.order_id]


def test_a_pause_tries_to_cancel_an_order_in_doubt_once():
    rig = quoting()
    order = rig.one()
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    out = rig.send(ev.OperatorActed(Verb.PAUSE, "test"))
    assert [c.order_id for c in of(out, CancelOrder)] == [order.order_id]
    rig.send(ev.CancelRejected(order.order_id, "no such order", True))
    assert not of(rig.run(5), CancelOrder), "the look-ups tell, not a stream of cancels"


def test_a_market_listed_again_under_another_event_counts_there_and_can_be_forgotten():
    rig = Rig().start(binary(event_id="e1", cluster="c1"))
    rig.send(ev.InstrumentListed(binary(event_id="e2", cluster="c2")))
    assert rig.state.events == {"e2": ["m"]} and rig.state.clusters == {"c2": ["m"]}
    rig.send(ev.MarketResolved("m", 10_000))
    rig.wait(3 * 3_600)
    rig.run(2, alive=False)
    assert "m" not in rig.state.markets
    assert not rig.state.events and not rig.state.clusters


def test_a_failed_settlement_gives_its_fee_back_to_the_fees():
    rig = quoting()
    rig.ack()
    rig.fill(rig.one(), settled=False, fill_id="f", fee=1_000)
    assert rig.state.flows.fees == -1_000
    for _ in range(2):
        rig.send(ev.FillFailed("f", "m"))
        assert (rig.state.flows.fees, rig.state.flows.trading, rig.state.cash) == (0, 0, rig.state.flows.start)


def test_an_order_taken_for_absent_that_rests_after_all_counts_again_and_is_not_doubled():
    rig = quoting()
    order = rig.one()
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    for _ in range(3):
        rig.run(20)
        rig.send(ev.OrderLookedUp(order.order_id, "absent", 0))
    assert order.status is Status.REJECTED
    rig.send(ev.OperatorActed(Verb.PAUSE, "test"))
    rig.ack()
    rig.run(61)  # the account is asked again
    resting = ev.RestingOrder(order.order_id, "x", "m", order.side, order.leg, order.price, order.qty)
    out = rig.send(ev.AccountSnapshot((resting,), ()))
    assert order.is_live and rig.market().worst > 0, "what rests is exposure, whatever we had believed"
    out += rig.run(1)
    assert order.order_id in [c.order_id for c in of(out, CancelOrder)]
