"""The order machine: the whole table, the story behind each surprising line, and a venue that misbehaves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.orders import (
    FINAL,
    TABLE,
    ImpossibleTransition,
    Order,
    Status,
    What,
    dust,
    fill,
    new,
    step,
)
from llm_maker.core.values import FixedGrid, Instrument, InstrumentId, Kind, Leg, Side

IMPOSSIBLE = {
    # We never cancel what has ended.
    (Status.FILLED, What.CANCEL_SENT),
    (Status.CANCELED, What.CANCEL_SENT),
    (Status.REJECTED, What.CANCEL_SENT),
    (Status.EXPIRED, What.CANCEL_SENT),
    # An answer to a cancel that was never sent: sending one leaves PENDING_NEW for good.
    (Status.PENDING_NEW, What.CANCEL_REFUSED),
    (Status.PENDING_NEW, What.CANCEL_GONE),
}

RESURRECTIONS = {
    (Status.CANCELED, What.FOUND_OPEN): Status.UNKNOWN,
    (Status.EXPIRED, What.FOUND_OPEN): Status.UNKNOWN,
    (Status.REJECTED, What.ACCEPTED): Status.UNKNOWN,
    (Status.REJECTED, What.FILLED_PART): Status.UNKNOWN,
    (Status.REJECTED, What.FOUND_OPEN): Status.OPEN,
}


def placed(qty: int = 1_000) -> Order:
    command = PlaceOrder("1-1", "m", Side.BUY, Leg.YES, 5_300, qty, TimeInForce.GTC, True, False, "quote", 99, "d1")
    return new(command, 10)


def told(*whats: What, qty: int = 1_000) -> Order:
    order = placed(qty)
    for now, what in enumerate(whats, 11):
        step(order, what, now)
    return order


# The table.


def test_every_pair_is_in_the_table_or_named_impossible(capsys):
    with capsys.disabled():
        print("\n" + table_text())
    pairs = {(status, what) for status in Status for what in What}
    assert set(TABLE) | IMPOSSIBLE == pairs
    assert not set(TABLE) & IMPOSSIBLE


def table_text() -> str:
    names = [s.value for s in Status]
    lines = [" " * 15 + "".join(f"{name:>15}" for name in names)]
    for what in What:
        cells = [TABLE.get((status, what)) for status in Status]
        shown = ["impossible" if c is None else "." if c is s else c.value for c, s in zip(cells, Status, strict=True)]
        lines.append(f"{what.value:<15}" + "".join(f"{cell:>15}" for cell in shown))
    return "\n".join(lines)


@pytest.mark.parametrize(("status", "what"), sorted(IMPOSSIBLE))
def test_an_impossible_pair_is_a_named_error_and_changes_nothing(status, what):
    order = placed()
    order.status = status
    before = msgspec.json.encode(order)
    with pytest.raises(ImpossibleTransition, match=f"1-1: {what.value} while {status.value}"):
        step(order, what, 11)
    assert msgspec.json.encode(order) == before


def test_only_the_documented_lines_bring_a_final_order_back():
    back = {pair: after for pair, after in TABLE.items() if pair[0] in FINAL and after not in FINAL}
    assert back == RESURRECTIONS


def test_a_filled_order_stays_filled():
    assert {after for (status, _), after in TABLE.items() if status is Status.FILLED} == {Status.FILLED}


def test_unknown_ends_only_by_a_proof():
    out = {what for (status, what), after in TABLE.items() if status is Status.UNKNOWN and after is not Status.UNKNOWN}
    assert out == {
        What.REJECTED, What.FILLED_ALL, What.CANCELED, What.EXPIRED, What.FOUND_OPEN, What.FOUND_FILLED,
        What.FOUND_CANCELED, What.FOUND_EXPIRED, What.FOUND_ABSENT,
    }  # fmt: skip


@pytest.mark.parametrize("status", [s for s in Status if s not in FINAL])
def test_doubt_leads_every_live_order_to_unknown(status):
    assert TABLE[status, What.UNCERTAIN] is Status.UNKNOWN


# Stories.


@pytest.mark.parametrize(
    ("story", "end"),
    [
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCELED], Status.CANCELED),
        ([What.FILLED_PART, What.ACCEPTED], Status.OPEN),
        ([What.FILLED_ALL, What.ACCEPTED], Status.FILLED),
        ([What.CANCEL_SENT, What.ACCEPTED], Status.PENDING_CANCEL),
        ([What.CANCEL_SENT, What.REJECTED, What.CANCEL_GONE], Status.REJECTED),
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCEL_REFUSED], Status.OPEN),
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCEL_GONE], Status.UNKNOWN),
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCEL_GONE, What.FOUND_FILLED], Status.FILLED),
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCELED, What.FILLED_PART], Status.CANCELED),
        ([What.ACCEPTED, What.CANCEL_SENT, What.CANCELED, What.FILLED_ALL], Status.FILLED),
        ([What.UNCERTAIN, What.FOUND_ABSENT], Status.REJECTED),
        ([What.UNCERTAIN, What.FOUND_ABSENT, What.ACCEPTED, What.FOUND_OPEN], Status.OPEN),
        ([What.UNCERTAIN, What.REJECTED], Status.REJECTED),
        ([What.CANCEL_SENT, What.UNCERTAIN, What.ACCEPTED], Status.UNKNOWN),
        ([What.ACCEPTED, What.REJECTED], Status.UNKNOWN),
        ([What.FOUND_ABSENT], Status.REJECTED),
        ([What.ACCEPTED, What.FOUND_ABSENT], Status.UNKNOWN),
        ([What.CANCEL_SENT, What.FOUND_OPEN], Status.PENDING_CANCEL),
    ],
)
def test_stories(story, end):
    assert told(*story).status is end


def test_new_copies_the_command_and_is_in_flight():
    order = placed()
    assert order.status is Status.PENDING_NEW and order.is_live and not order.is_final
    assert (order.order_id, order.price, order.qty, order.remaining) == ("1-1", 5_300, 1_000, 1_000)
    assert (order.post_only, order.reduce_only, order.reason, order.decision_id) == (True, False, "quote", "d1")
    assert (order.expires_ns, order.placed_ns, order.changed_ns) == (99, 10, 10)


def test_step_says_whether_the_status_changed_and_keeps_the_time_of_it():
    order = placed()
    assert step(order, What.ACCEPTED, 20) and order.changed_ns == 20
    assert not step(order, What.ACCEPTED, 30) and order.changed_ns == 20


def test_the_cancel_flag_follows_the_cancel():
    order = told(What.ACCEPTED, What.CANCEL_SENT)
    assert order.sent_cancel and order.cancel_ns == 12
    step(order, What.CANCEL_REFUSED, 13)
    assert not order.sent_cancel
    order = told(What.ACCEPTED, What.CANCEL_SENT, What.UNCERTAIN)
    assert order.sent_cancel
    step(order, What.FOUND_OPEN, 14)
    assert not order.sent_cancel and order.status is Status.OPEN


def test_a_new_doubt_counts_its_lookups_anew():
    order = told(What.UNCERTAIN)
    order.lookups, order.lookup_ns = 3, 12
    step(order, What.UNCERTAIN, 13)
    assert order.lookups == 3
    step(order, What.FOUND_OPEN, 14)
    step(order, What.UNCERTAIN, 15)
    assert (order.lookups, order.lookup_ns) == (0, 0)


def test_fills_add_up_and_full_means_full():
    order = told(What.ACCEPTED)
    assert fill(order, 999, 20) == 0 and order.status is Status.OPEN and order.remaining == 1
    assert fill(order, 1, 21) == 0 and order.status is Status.FILLED and order.remaining == 0


def test_overfill_is_booked_dust_is_tolerated_and_more_is_told():
    shares = Instrument(
        id=InstrumentId("m"), venue="v", kind=Kind.BINARY, price_decimals=4, qty_decimals=6, grid=FixedGrid(100),
        qty_step=10_000, min_qty=5_000_000, payout=10_000,
    )  # fmt: skip
    limit = dust(shares)
    assert limit == 10_000
    order = told(What.ACCEPTED, qty=5_000_000)
    assert fill(order, 5_009_999, 20, limit) == 0
    assert (order.filled, order.remaining, order.status) == (5_009_999, 0, Status.FILLED)
    assert fill(order, 1, 21, limit) == 10_000, "the excess in all, dust included"
    assert order.filled == 5_010_000
    assert fill(told(What.ACCEPTED), 1_001, 20) == 1, "without a tolerance any excess is told"


def test_an_order_survives_its_checkpoint():
    order = told(What.ACCEPTED, What.CANCEL_SENT)
    fill(order, 400, 20)
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


# A misbehaving venue.


class Weather(RuleBasedStateMachine):
    """The venue matches, cancels, answers late, twice or never; we keep to what we may send."""

    @initialize(qty=st.integers(1, 50))
    def place(self, qty):
        self.now = 10
        self.order = placed(qty)
        self.filled = 0
        self.canceled = False
        self.proof: What | None = None

    def _tell(self, what):
        self.now += 1
        before = self.order.status
        changed = step(self.order, what, self.now)
        self._check(before, what, changed)

    def _check(self, before, what, changed):
        after = self.order.status
        assert changed is (after is not before)
        assert TABLE[before, what] is after
        if before in FINAL and after not in FINAL:
            assert RESURRECTIONS[before, what] is after
            self.proof = None
        if before not in FINAL and after in FINAL:
            self.proof = what

    @rule(what=st.sampled_from([w for w in What if not w.value.startswith(("filled", "cancel_"))]))
    def anything_at_any_time(self, what):
        self._tell(what)

    @precondition(lambda self: self.order.is_live)
    @rule()
    def we_cancel(self):
        self.canceled = True
        self._tell(What.CANCEL_SENT)

    @precondition(lambda self: self.canceled)
    @rule(what=st.sampled_from((What.CANCEL_REFUSED, What.CANCEL_GONE)))
    def the_cancel_is_answered(self, what):
        self._tell(what)

    @rule(qty=st.integers(1, 30))
    def fills(self, qty):
        self.now += 1
        before = self.order.status
        excess = fill(self.order, qty, self.now)
        self.filled += qty
        what = What.FILLED_ALL if self.filled >= self.order.qty else What.FILLED_PART
        self._check(before, what, self.order.status is not before)
        assert excess == max(0, self.filled - self.order.qty)

    @invariant()
    def fills_are_kept(self):
        if hasattr(self, "order"):
            assert self.order.filled == self.filled
            assert self.order.remaining == max(0, self.order.qty - self.filled)

    @invariant()
    def exposure_counts_until_the_end_is_proved(self):
        if hasattr(self, "order"):
            assert self.order.is_live is not self.order.is_final
            ends = {
                What.REJECTED, What.FILLED_ALL, What.CANCELED, What.EXPIRED, What.FOUND_FILLED, What.FOUND_CANCELED,
                What.FOUND_EXPIRED, What.FOUND_ABSENT,
            }  # fmt: skip
            assert self.order.is_live is (self.proof is None)
            assert self.proof is None or self.proof in ends

    @invariant()
    def time_of_change_is_known(self):
        if hasattr(self, "order"):
            assert self.order.changed_ns <= self.now


TestWeather = Weather.TestCase
TestWeather.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
