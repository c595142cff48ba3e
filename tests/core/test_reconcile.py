"""From wanted quotes to the fewest messages: what keeps its place, what moves when, and what blocks a second order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.orders import FINAL, Status, new
from llm_maker.core.params import ExecutionParams
from llm_maker.core.reconcile import diff
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import NS_PER_S, FixedGrid, Leg, Side
from tests.core.builders import SHARE, T0, binary

BUY, SELL = Side.BUY, Side.SELL
CENTS = binary()
FINE = binary(grid=FixedGrid(10))


def want(side=BUY, price=5000, shares=50):
    return QuoteTarget(side, price, shares * SHARE, "test")


def rest(side=BUY, price=5000, shares=50, status=Status.OPEN, name="1-1", leg=Leg.YES, *, post_only=True):
    tif = TimeInForce.GTC if post_only else TimeInForce.IOC
    order = new(PlaceOrder(name, "m", side, leg, price, shares * SHARE, tif, post_only, False, "test"), T0)
    order.status = status
    return order


class Desk:
    """One market's diff over time, with its memory of what is tolerated since when."""

    def __init__(self, instrument=CENTS, **params):
        self.instrument, self.params, self.off = instrument, ExecutionParams(**params), {}

    def at(self, seconds, targets, orders):
        """([(canceled id, why)], [(side, price)]) at T0 + seconds."""
        plan = diff(self.instrument, targets, orders, self.off, self.params, T0 + int(seconds * NS_PER_S))
        return [(o.order_id, why) for o, why in plan.cancel], [(t.side, t.price) for t in plan.place]


def test_nothing_rests_so_both_sides_are_placed():
    assert Desk().at(0, [want(), want(SELL, 5200)], []) == ([], [(BUY, 5000), (SELL, 5200)])


def test_what_is_as_wanted_is_left_alone():
    assert Desk().at(0, [want(), want(SELL, 5200)], [rest(), rest(SELL, 5200, name="1-2")]) == ([], [])


def test_the_leg_is_never_compared():
    assert Desk().at(0, [want(SELL, 5200)], [rest(SELL, 5200, leg=Leg.NO)]) == ([], [])
    assert Desk().at(0, [want(SELL, 5200)], [rest(SELL, 5200, leg=Leg.YES)]) == ([], [])


def test_an_order_nobody_wants_goes():
    assert Desk().at(0, [want(SELL, 5200)], [rest()]) == ([("1-1", "not wanted")], [(SELL, 5200)])


@pytest.mark.parametrize(
    ("instrument", "gap", "keeps"),
    [(CENTS, 100, True), (CENTS, 200, False), (FINE, 10, True), (FINE, 20, True), (FINE, 30, False)],
)
def test_the_tolerance_is_one_tick_and_two_where_ticks_are_fine(instrument, gap, keeps):
    for side in (BUY, SELL):
        for away in (gap, -gap):
            found = Desk(instrument).at(0, [want(side)], [rest(side, 5000 + away)])
            assert found == (([], []) if keeps else ([("1-1", "reprice")], [])), "the place waits for the cancel's end"


def test_a_tolerated_order_is_moved_after_the_flicker_and_not_before():
    desk, order = Desk(), rest(price=4900)
    for seconds in (0, 1, 1.999):
        assert desk.at(seconds, [want()], [order]) == ([], [])
    assert desk.at(2, [want()], [order]) == ([("1-1", "reprice")], [])


def test_the_flicker_clock_begins_anew_once_the_order_was_on_target():
    desk, order = Desk(), rest(price=4900)
    desk.at(0, [want()], [order])
    desk.at(1.5, [want(price=4900)], [order])
    assert desk.at(2.5, [want()], [order]) == ([], [])
    assert desk.at(4.5, [want()], [order]) == ([("1-1", "reprice")], [])


def test_a_target_that_wobbles_within_the_tolerance_does_not_restart_the_clock():
    desk, order = Desk(), rest(price=5000)
    for step in range(8):
        assert desk.at(step / 4, [want(price=5100 if step % 2 else 4900)], [order]) == ([], [])
    assert desk.at(2, [want(price=4900)], [order]) == ([("1-1", "reprice")], [])


def test_what_is_remembered_of_an_order_goes_with_it():
    desk = Desk()
    desk.at(0, [want()], [rest(price=4900)])
    assert list(desk.off) == ["1-1"]
    desk.at(1, [want()], [])
    assert desk.off == {}


@pytest.mark.parametrize(("shares", "keeps"), [(38, True), (62, True), (37, False), (63, False)])
def test_a_size_off_by_more_than_a_quarter_is_replaced(shares, keeps):
    found = Desk().at(0, [want(shares=50)], [rest(shares=shares)])
    assert found == (([], []) if keeps else ([("1-1", "resize")], []))


def test_what_was_filled_no_longer_counts_as_size():
    order = rest(shares=50)
    order.filled = 20 * SHARE
    assert Desk().at(0, [want(shares=50)], [order]) == ([("1-1", "resize")], [])
    assert Desk().at(0, [want(shares=30)], [order]) == ([], [])


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.PENDING_CANCEL])
@pytest.mark.parametrize("price", [5000, 4800])
def test_an_order_of_open_fate_blocks_its_side_and_is_not_canceled_again(status, price):
    found = Desk().at(0, [want(), want(SELL, 5200)], [rest(price=price, status=status)])
    assert found == ([], [(SELL, 5200)])


def test_an_order_whose_cancel_was_sent_blocks_its_side():
    order = rest()
    order.sent_cancel = True
    assert Desk().at(0, [want()], [order]) == ([], [])


def test_an_order_on_its_way_is_kept_or_canceled_and_never_doubled():
    assert Desk().at(0, [want()], [rest(status=Status.PENDING_NEW)]) == ([], [])
    assert Desk().at(0, [want()], [rest(price=4000, status=Status.PENDING_NEW)]) == ([("1-1", "reprice")], [])


def test_an_order_that_takes_is_no_quote():
    assert Desk().at(0, [want()], [rest(post_only=False)]) == ([("1-1", "resize")], [])


def test_of_two_orders_on_a_side_one_is_kept():
    found = Desk().at(0, [want()], [rest(), rest(price=4900, name="1-2")])
    assert found == ([("1-2", "reprice")], [])


LIVE = [s for s in Status if s not in FINAL]
ORDERS = st.lists(
    st.builds(
        lambda side, tick, shares, status, sent: (side, tick * 100, shares, status, sent),
        st.sampled_from([BUY, SELL]), st.integers(40, 60), st.integers(5, 100), st.sampled_from(LIVE), st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    ORDERS,
    st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(40, 60), st.integers(5, 100)), max_size=2),
    st.integers(0, 5),
)
def test_after_the_plan_there_is_at_most_what_was_wanted_and_nothing_is_doubled(resting, wanted, seconds):
    orders = []
    for number, (side, price, shares, status, sent) in enumerate(resting):
        orders.append(rest(side, price, shares, status, f"1-{number}"))
        orders[-1].sent_cancel = sent
    targets = [want(side, tick * 100, shares) for side, tick, shares in {t[0]: t for t in wanted}.values()]
    canceled, placed = Desk().at(seconds, targets, orders)
    assert len(placed) == len(set(placed)) and all(any((t.side, t.price) == p for t in targets) for p in placed)
    for side in (BUY, SELL):
        held = [o for o in orders if o.side is side]
        kept = [o for o in held if o.order_id not in dict(canceled) and o.status in (Status.OPEN, Status.PENDING_NEW)]
        new_ones = [p for p in placed if p[0] is side]
        assert not (new_ones and held), "a side with anything of ours on it gets no second order"
        assert len([o for o in kept if not o.sent_cancel]) + len(new_ones) <= len([t for t in targets if t.side is side])
    gone = {o.order_id for o in orders if o.sent_cancel or o.status in (Status.UNKNOWN, Status.PENDING_CANCEL)}
    assert not gone & set(dict(canceled)), "a cancel is sent once"
