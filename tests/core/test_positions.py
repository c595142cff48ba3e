"""Positions: the money identity over random histories, the mirror, settlements, merges, foreign shares, exits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.events import OrderFilled
from llm_maker.core.exits import ExitPlan, arm, begin, gain_ratio, judge
from llm_maker.core.params import ExitParams
from llm_maker.core.positions import (
    EARLY_LIMIT,
    SEEN_LIMIT,
    Held,
    Position,
    RoundTrip,
)
from llm_maker.core.values import FixedGrid, Instrument, InstrumentId, Kind, Leg, Liquidity, Side

PAYOUT = 10_000


def binary(qty_decimals=6) -> Instrument:
    return Instrument(
        id=InstrumentId("m"), venue="v", kind=Kind.BINARY, price_decimals=4, qty_decimals=qty_decimals,
        grid=FixedGrid(100), qty_step=1, min_qty=5 * 10**qty_decimals, payout=PAYOUT,
    )  # fmt: skip


def linear(price_decimals=2, qty_decimals=3) -> Instrument:
    return Instrument(
        id=InstrumentId("l"), venue="v", kind=Kind.LINEAR, price_decimals=price_decimals, qty_decimals=qty_decimals,
        grid=FixedGrid(1), qty_step=1, min_qty=1,
    )  # fmt: skip


SHARES = binary(2)
"""One cash unit is one price x quantity unit: sums can be read."""


def told(n, side, leg, price, qty, *, fee=0, settled=False) -> OrderFilled:
    return OrderFilled(f"o{n}", f"f{n}", "m", side, leg, price, qty, fee, Liquidity.MAKER, settled)


def after(*fills, instrument=SHARES) -> tuple[Position, int]:
    """A position made by (side, leg, price, qty) fills that settle at once, and the cash they moved."""
    position, cash = Position(), 0
    for n, (side, leg, price, qty) in enumerate(fills):
        cash += position.apply_fill(instrument, told(n, side, leg, price, qty, settled=True), 100 + n).cash
    return position, cash


BUY_YES = (Side.BUY, Leg.YES)
SELL_YES = (Side.SELL, Leg.YES)
BUY_NO = (Side.SELL, Leg.NO)
SELL_NO = (Side.BUY, Leg.NO)


# The identity.


class Account:
    """A position with the cash that it reports, and the identity of its module docstring."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.position = Position()
        self.cash = 0
        self.given = 0
        """Worth of adopted shares, price x quantity units."""

    def check(self, mark: int) -> None:
        p, i = self.position, self.instrument
        exponent = i.price_decimals + i.qty_decimals - 6
        # One cash unit is `unit` and one price x quantity unit is `fine` of something that both are multiples of.
        unit, fine = 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
        money = unit * (self.cash + p.fees)
        gain = p.realised + p.net * mark - p.cost
        value = unit * p.value(i, mark)
        assert p.unrealised(mark) == p.net * mark - p.cost
        if not i.is_binary:
            assert money + fine * p.cash_remainder == fine * p.realised, "cash moves by exactly what was realised"
            assert 0 <= p.cash_remainder < unit
            assert money + value <= fine * gain < money + value + unit
        else:
            yes, no = p.yes.settled + p.yes.pending, p.no.settled + p.no.pending
            worth = yes * mark + no * (i.payout - mark)
            assert money + fine * (p.cash_rounding + worth) == fine * (gain + self.given)
            assert p.cash_rounding >= 0
            assert value <= fine * worth < value + unit
        if p.net == 0:
            assert p.cost == 0 and p.avg_price is None
        for leg in p.legs(i):
            held = p.held(leg)
            assert held.unsettled == sum(f.qty for f in p.pending.values() if f.leg is leg and _bought(f))
            assert held.pending == min(held.unsettled, max(0, held.settled + held.pending))


def _other(leg: Leg) -> Leg:
    return {Leg.YES: Leg.NO, Leg.NO: Leg.YES, Leg.NONE: Leg.NONE}[leg]


def _bought(fill) -> bool:
    return (fill.side is Side.BUY) is not (fill.leg is Leg.NO)


PRICES = st.integers(1, PAYOUT - 1)
FILLS = st.tuples(
    st.just("fill"),
    st.sampled_from(Side),
    st.sampled_from((Leg.YES, Leg.NO)),
    PRICES,
    st.integers(1, 3_000_000),
    st.integers(-40, 900),
    st.booleans(),
)
OTHERS = st.one_of(
    st.tuples(st.sampled_from(("settle", "fail", "again", "merge", "unmerge")), st.integers(0, 10**6)),
    st.tuples(st.just("redeem"), st.sampled_from((Leg.YES, Leg.NO)), st.sampled_from((0, PAYOUT))),
    st.tuples(st.just("adopt"), st.sampled_from((Leg.YES, Leg.NO)), PRICES, st.integers(1, 10**6)),
)
HISTORIES = st.lists(st.one_of(FILLS, FILLS, OTHERS), min_size=1, max_size=25)


def play(account: Account, history, *, mirrored=False) -> list[tuple]:
    """Drive a position through a history; returns what each step reported (cash, realised, closed, opened)."""
    reports = []
    for n, step in enumerate(history):
        reports.append(_play_one(account, n, step, mirrored))
    return reports


def _play_one(account: Account, n: int, step, mirrored: bool):
    p, i, kind = account.position, account.instrument, step[0]
    waiting = list(p.pending)
    if kind == "fill":
        _, side, leg, price, qty, fee, settled = step
        if not i.is_binary:
            leg = Leg.NONE
        elif mirrored:
            side, leg, price = side.other, _other(leg), PAYOUT - price
        result = p.apply_fill(i, told(n, side, leg, price, qty, fee=fee, settled=settled), n)
        account.cash += result.cash
        return result.cash, result.realised, result.closed, result.opened, result.flipped
    if kind == "settle" and waiting:
        return p.settle(waiting[step[1] % len(waiting)])
    if kind == "fail" and waiting:
        back = p.fail(i, waiting[step[1] % len(waiting)], n)
        account.cash += back
        return back
    if kind == "again" and p.seen:
        fill_id = list(p.seen)[step[1] % len(p.seen)]
        before = msgspec.json.encode(p)
        result = p.apply_fill(i, msgspec.structs.replace(_any_fill(i), fill_id=fill_id), n)
        assert result.duplicate and result.cash == 0 and msgspec.json.encode(p) == before
        return result.duplicate
    return _play_binary(account, n, step, mirrored) if i.is_binary else None


def _play_binary(account: Account, n: int, step, mirrored: bool):
    p, i, kind = account.position, account.instrument, step[0]
    if kind in ("merge", "unmerge") and p.sets() > 0:
        net, cost = p.net, p.cost
        qty = step[1] % p.sets() + 1
        p.merge_started(qty)
        if kind == "unmerge":
            p.merge_failed(qty)
            return None
        cash = p.merged(i, qty)
        account.cash += cash
        assert (p.net, p.cost) == (net, cost), "a merge changes neither exposure nor its cost"
        return cash
    if kind == "redeem":
        leg, price = (_other(step[1]), PAYOUT - step[2]) if mirrored else step[1:]
        if p.free_to_sell(leg) > 0:
            cash = p.redeem(i, leg, p.free_to_sell(leg), price, n)
            account.cash += cash
            return cash
    if kind == "adopt":
        leg, price = (_other(step[1]), PAYOUT - step[2]) if mirrored else step[1:3]
        p.set_foreign(leg, step[3])
        net = p.net
        assert p.adopt(leg, price, n) == step[3]
        assert p.net == net + (step[3] if leg is Leg.YES else -step[3]) and p.foreign_net == 0
        account.given += step[3] * (price if leg is Leg.YES else PAYOUT - price)
    return None


def _any_fill(instrument: Instrument) -> OrderFilled:
    return told(0, Side.BUY, Leg.YES if instrument.is_binary else Leg.NONE, 5_000, 7)


@given(history=HISTORIES, mark=st.integers(0, PAYOUT), qty_decimals=st.sampled_from((0, 2, 4, 6)))
@settings(max_examples=150, deadline=None)
def test_binary_cash_and_holdings_are_realised_and_unrealised_to_the_last_unit(history, mark, qty_decimals):
    account = Account(binary(qty_decimals))
    for n, step in enumerate(history):
        _play_one(account, n, step, False)
        account.check(mark)


@given(history=HISTORIES, mark=st.integers(1, 10**7), decimals=st.sampled_from(((2, 3), (1, 5), (4, 6), (6, 6))))
@settings(max_examples=100, deadline=None)
def test_linear_cash_is_what_was_realised_to_the_last_unit(history, mark, decimals):
    account = Account(linear(*decimals))
    for n, step in enumerate(history):
        _play_one(account, n, step, False)
        account.check(mark)


@given(history=HISTORIES, qty_decimals=st.sampled_from((2, 6)))
@settings(max_examples=100, deadline=None)
def test_a_mirrored_history_moves_the_same_money_and_ends_opposite(history, qty_decimals):
    account, mirror = Account(binary(qty_decimals)), Account(binary(qty_decimals))
    assert play(account, history) == play(mirror, history, mirrored=True)
    a, b = account.position, mirror.position
    assert account.cash == mirror.cash
    assert (a.realised, a.fees, a.cash_rounding, a.volume) == (b.realised, b.fees, b.cash_rounding, b.volume)
    assert a.net == -b.net
    assert a.cost == b.cost + a.net * PAYOUT, "the average price is the complement"
    assert (a.yes, a.no) == (b.no, b.yes)


@given(history=HISTORIES)
@settings(max_examples=50, deadline=None)
def test_round_trips_add_up_to_what_was_realised_when_flat(history):
    position, trips = Position(), []
    for n, step in enumerate(h for h in history if h[0] == "fill"):
        event = told(n, *step[1:5], fee=step[5], settled=step[6])
        result = position.apply_fill(SHARES, event, n)
        if result.round_trip is not None:
            trips.append(result.round_trip)
    if position.net:
        leg = Leg.YES
        side = Side.SELL if position.net > 0 else Side.BUY
        last = position.apply_fill(SHARES, told("last", side, leg, 5_000, abs(position.net)), 999)
        trips.append(last.round_trip)
    assert position.net == 0
    assert sum(t.realised for t in trips) == position.realised
    assert sum(t.fees for t in trips) == position.fees


@given(history=HISTORIES)
@settings(max_examples=50, deadline=None)
def test_a_position_survives_its_checkpoint(history):
    account = Account(binary(6))
    play(account, history)
    saved = msgspec.json.encode(account.position)
    back = msgspec.json.decode(saved, type=Position)
    assert back == account.position and msgspec.json.encode(back) == saved
    assert list(back.seen) == list(account.position.seen)


# Fills by hand.


def test_average_cost_and_realised_by_hand():
    position, cash = after((*BUY_YES, 5_000, 100), (*BUY_YES, 6_000, 100), (*SELL_YES, 6_500, 100))
    # 1 share at 0.50, 1 at 0.60, 1 sold at 0.65: average 0.55, realised 0.10
    assert position.net == 100 and position.avg_price == 5_500 and position.cost == 550_000
    assert position.realised == 100_000 and cash == -450_000
    assert position.unrealised(6_000.0) == 50_000


def test_the_released_cost_is_floored_and_the_last_share_takes_the_rest():
    position, _ = after((*BUY_YES, 5_000, 1), (*BUY_YES, 5_001, 2), (*SELL_YES, 6_000, 1))
    # 15,002 / 3 = 5,000.67
    assert position.realised == 1_000 and position.cost == 10_002
    position.apply_fill(SHARES, told("z", *SELL_YES, 6_000, 2), 9)
    assert position.realised == 3 * 6_000 - 15_002 and position.cost == 0


def test_buying_no_against_yes_closes_at_the_complement_and_leaves_sets():
    position, cash = after((*BUY_YES, 5_000, 100), (*BUY_NO, 5_500, 100))
    assert position.net == 0 and position.cost == 0 and position.realised == 50_000
    assert cash == -500_000 - 450_000
    assert position.sets() == 100
    position.merge_started(100)
    assert position.sets() == 0 and position.free_to_sell(Leg.YES) == 0
    assert position.merged(SHARES, 100) == 1_000_000
    assert (position.yes, position.no) == (Held(), Held())


def test_through_zero_tells_the_round_trip_and_opens_the_rest():
    position = Position()
    position.apply_fill(SHARES, told(1, *BUY_YES, 4_000, 100, fee=10), 1_000, "quote", "d1")
    result = position.apply_fill(SHARES, told(2, *BUY_NO, 5_000, 300, fee=30), 4_000, "lean", "d2")
    assert (result.closed, result.opened, result.flipped, result.realised) == (100, 200, True, 100_000)
    assert result.round_trip == RoundTrip(
        side=Side.BUY, qty=100, entry_price=4_000.0, exit_price=5_000.0, realised=100_000, fees=20,
        entry_ns=1_000, exit_ns=4_000, hold_ns=3_000, entry_reason="quote", entry_decision="d1",
    )  # fmt: skip
    assert position.last_trip == result.round_trip
    assert position.net == -200 and position.avg_price == 5_000
    assert (position.entry_ns, position.entry_reason, position.entry_decision) == (4_000, "lean", "d2")
    assert position.trip.fees == 20 and position.fees == 40


def test_linear_goes_from_long_to_short_and_cash_moves_by_the_difference_only():
    instrument = linear()
    position = Position()
    assert position.apply_fill(instrument, told(1, Side.BUY, Leg.NONE, 6_800_012, 1), 1).cash == 0
    result = position.apply_fill(instrument, told(2, Side.SELL, Leg.NONE, 6_800_112, 3, fee=50), 2)
    assert result.cash == 1_000 - 50, "one dollar on 0.001"
    assert result.flipped and position.net == -2 and position.avg_price == 6_800_112
    assert position.value(instrument, 6_800_012) == 2_000


def test_linear_remainders_are_carried_not_lost():
    instrument = linear(6, 6)
    position, cash = Position(), 0
    for n in range(10):
        cash += position.apply_fill(instrument, told(2 * n, Side.BUY, Leg.NONE, 1_000_000, 1), n).cash
        cash += position.apply_fill(instrument, told(2 * n + 1, Side.SELL, Leg.NONE, 1_100_000, 1), n).cash
    assert position.realised == 1_000_000 and cash == 1 and position.cash_remainder == 0


def test_a_leg_that_does_not_fit_the_instrument_is_our_own_bug():
    with pytest.raises(AssertionError):
        Position().apply_fill(SHARES, told(1, Side.BUY, Leg.NONE, 5_000, 1), 1)
    with pytest.raises(AssertionError):
        Position().apply_fill(linear(), told(1, *BUY_YES, 5_000, 1), 1)


# Settlement.


def test_only_settled_shares_are_free_and_sales_take_those_first():
    position = Position()
    position.apply_fill(SHARES, told(1, *BUY_YES, 5_000, 100), 1)
    assert position.net == 100 and position.free_to_sell(Leg.YES) == 0
    assert position.settle("f1") and not position.settle("f1")
    assert position.free_to_sell(Leg.YES) == 100
    position.apply_fill(SHARES, told(2, *BUY_YES, 5_000, 50), 2)
    position.apply_fill(SHARES, told(3, *SELL_YES, 5_100, 30), 3)
    assert (position.yes.settled, position.yes.pending) == (70, 50)
    position.apply_fill(SHARES, told(4, *SELL_YES, 5_100, 90), 4)
    assert (position.yes.settled, position.yes.pending) == (0, 30)
    position.settle("f2")
    assert (position.yes.settled, position.yes.pending) == (30, 0)


def test_a_failed_purchase_takes_back_shares_cash_and_fee():
    position = Position()
    cash = position.apply_fill(SHARES, told(1, *BUY_YES, 5_000, 100, fee=70), 1).cash
    assert cash == -500_070
    assert position.fail(SHARES, "f1", 2) == 500_070
    assert position.fail(SHARES, "f1", 3) == 0
    assert (position.net, position.cost, position.realised, position.fees, position.volume) == (0, 0, 0, 0, 0)
    assert position.yes == Held() and not position.pending
    assert position.apply_fill(SHARES, told(1, *BUY_YES, 5_000, 100), 4).duplicate


def test_a_failed_sale_gives_the_settled_shares_back():
    position, _ = after((*BUY_YES, 5_000, 100))
    position.apply_fill(SHARES, told("s", *SELL_YES, 6_000, 100), 5)
    assert position.net == 0
    assert position.fail(SHARES, "fs", 6) == -600_000
    assert position.net == 100 and position.free_to_sell(Leg.YES) == 100
    # The reverse trade at the same price: bought back at 0.60, with the 0.10 stays realised.
    assert position.realised == 100_000 and position.avg_price == 6_000
    assert position.entry_reason == "settlement failed"


def test_shares_sold_before_their_purchase_failed_leave_the_holding_negative():
    position = Position()
    position.apply_fill(SHARES, told(1, *BUY_YES, 5_000, 100), 1)
    position.apply_fill(SHARES, told(2, *SELL_YES, 6_000, 100), 2)
    position.fail(SHARES, "f1", 3)
    assert position.yes == Held(settled=-100)
    assert position.net == -100 and position.free_to_sell(Leg.YES) == 0 and position.sets() == 0


def test_a_settlement_that_overtakes_its_fill_is_remembered():
    position = Position()
    assert not position.settle("f1")
    assert position.fail(SHARES, "f2", 1) == 0
    result = position.apply_fill(SHARES, told(1, *BUY_YES, 5_000, 100), 2)
    assert not result.duplicate and position.free_to_sell(Leg.YES) == 100 and not position.pending
    result = position.apply_fill(SHARES, told(2, *BUY_YES, 5_000, 100), 3)
    assert result.void and result.cash == 0 and position.net == 100 and position.volume == 100
    assert not position.early
    assert position.apply_fill(SHARES, told(2, *BUY_YES, 5_000, 100), 4).duplicate


def test_memories_are_bounded_but_a_pending_fill_is_never_forgotten():
    position = Position()
    position.apply_fill(SHARES, told("keep", *BUY_YES, 5_000, 1), 0)
    for n in range(SEEN_LIMIT + 50):
        position.apply_fill(SHARES, told(n, *BUY_YES, 5_000, 1, settled=True), n)
        position.settle(f"never{n}")
    assert len(position.seen) == SEEN_LIMIT and "fkeep" in position.seen and "f0" not in position.seen
    assert len(position.early) == EARLY_LIMIT
    assert position.apply_fill(SHARES, told("keep", *BUY_YES, 5_000, 1), 9).duplicate


# Sets, redemption, foreign shares, worth.


def test_merging_reserves_and_gives_back():
    position, _ = after((*BUY_YES, 5_000, 100), (*BUY_NO, 5_500, 60))
    position.merge_started(40)
    assert (position.free_to_sell(Leg.YES), position.free_to_sell(Leg.NO), position.sets()) == (60, 20, 20)
    with pytest.raises(AssertionError):
        position.merge_started(21)
    position.merge_failed(40)
    assert position.sets() == 60


@pytest.mark.parametrize(("leg", "paid"), [(Leg.YES, 1_000_000), (Leg.NO, 0)])
def test_redemption_sells_at_the_outcome(leg, paid):
    fill = (*BUY_YES, 4_000, 100) if leg is Leg.YES else (*BUY_NO, 4_000, 100)
    position, cash = after(fill)
    assert position.redeem(SHARES, leg, 100, PAYOUT, 500) == paid
    assert position.net == 0 and position.realised == cash + paid
    assert position.last_trip is not None and position.last_trip.realised == cash + paid
    assert position.last_trip.exit_ns == 500


def test_foreign_shares_are_apart_until_adopted():
    position, _ = after((*BUY_YES, 4_000, 100))
    position.set_foreign(Leg.NO, 50)
    assert (position.net, position.foreign_net, position.sets()) == (100, -50, 0)
    assert position.value(SHARES, 6_000) == 600_000
    assert position.adopt(Leg.NO, 6_000) == 50
    assert position.adopt(Leg.NO, 6_000) == 0
    assert (position.net, position.foreign_net, position.sets()) == (50, 0, 50)
    assert position.realised == 100_000, "half of the YES was closed at 0.60"


EXITS = ExitParams(stop_ratio=0.05, target_ratio=0.08, hold_ns=30, deadline_ns=0)


def test_the_stop_must_hold_and_a_recovery_starts_it_anew():
    position, _ = after((*BUY_YES, 5_000, 1_000))
    plan = arm(position, EXITS, 100)
    assert judge(plan, position, SHARES, 4_751.0, EXITS, 100) == "" and plan.breached_ns == 0
    assert judge(plan, position, SHARES, 4_750.0, EXITS, 110) == "" and plan.breached_ns == 110
    assert judge(plan, position, SHARES, 4_760.0, EXITS, 130) == "" and plan.breached_ns == 0
    assert judge(plan, position, SHARES, 4_700.0, EXITS, 140) == ""
    assert judge(plan, position, SHARES, 4_700.0, EXITS, 169) == ""
    assert judge(plan, position, SHARES, 4_700.0, EXITS, 170) == "stop"
    assert (plan.exiting, plan.started_ns, plan.goal_net) == ("stop", 170, 0)
    assert judge(plan, position, SHARES, 4_700.0, EXITS, 171) == "", "it has begun already"


@pytest.mark.parametrize(
    ("fill", "stop_mid", "target_mid"),
    [
        # YES at 0.20: 5 % of 0.20 is one cent.
        ((*BUY_YES, 2_000, 1_000), 1_900.0, 2_160.0),
        # NO at 0.80 (YES 0.20): 5 % of 0.80 is four cents, and the YES price rises when it loses.
        ((*BUY_NO, 2_000, 1_000), 2_400.0, 1_360.0),
    ],
)
def test_ratios_are_of_the_price_of_the_side_held(fill, stop_mid, target_mid):
    position, _ = after(fill)
    sign = 1 if position.net > 0 else -1
    assert gain_ratio(position, SHARES, stop_mid) == pytest.approx(-0.05)
    assert judge(arm(position, EXITS, 1), position, SHARES, target_mid - sign, EXITS, 2) == ""
    plan = arm(position, EXITS, 1)
    assert judge(plan, position, SHARES, target_mid, EXITS, 2) == "target" and plan.goal_net == 0
    plan = arm(position, EXITS, 1)
    assert judge(plan, position, SHARES, stop_mid + sign, EXITS, 2) == "" and plan.breached_ns == 0
    assert judge(plan, position, SHARES, stop_mid, EXITS, 2) == "" and plan.breached_ns == 2


def test_linear_short_is_stopped_when_the_price_rises():
    position = Position()
    position.apply_fill(linear(), told(1, Side.SELL, Leg.NONE, 6_800_000, 5), 1)
    assert gain_ratio(position, linear(), 7_140_000.0) == pytest.approx(-0.05)
    plan = arm(position, msgspec.structs.replace(EXITS, hold_ns=0), 1)
    assert judge(plan, position, linear(), 7_140_000.0, msgspec.structs.replace(EXITS, hold_ns=0), 2) == "stop"


def test_partial_targets_are_taken_once_each():
    position, _ = after((*BUY_NO, 5_000, 2_000))
    plan = arm(position, EXITS, 1, targets=((0.10, 0.5), (0.04, 0.25)))
    assert judge(plan, position, SHARES, 4_800.0, EXITS, 2) == "target" and plan.goal_net == -1_500
    assert judge(plan, position, SHARES, 4_800.0, EXITS, 3) == ""
    position.apply_fill(SHARES, told("a", *SELL_NO, 4_800, 500), 4)
    assert judge(plan, position, SHARES, 4_800.0, EXITS, 5) == "" and plan.exiting == ""
    assert judge(plan, position, SHARES, 4_500.0, EXITS, 6) == "target"
    # 25 % is 5 shares, the smallest order: it may stay.
    assert plan.goal_net == -500
    position.apply_fill(SHARES, told("b", *SELL_NO, 4_500, 1_000), 7)
    assert judge(plan, position, SHARES, 4_000.0, EXITS, 8) == ""


def test_a_target_that_ended_short_of_its_goal_is_not_begun_again():
    position, _ = after((*BUY_YES, 5_000, 2_000))
    plan = arm(position, EXITS, 1, targets=((0.04, 0.25),))
    assert judge(plan, position, SHARES, 5_200.0, EXITS, 2) == "target" and plan.goal_net == 1_500
    position.apply_fill(SHARES, told("a", *SELL_YES, 5_200, 400), 3)
    # The caller ends it: what is missing is less than the smallest order.
    plan.exiting = ""
    assert judge(plan, position, SHARES, 5_200.0, EXITS, 4) == ""


def test_a_rest_too_small_to_sell_is_taken_with_the_target():
    position, _ = after((*BUY_YES, 5_000, 900))
    plan = arm(position, EXITS, 1, targets=((0.10, 0.5),))
    assert judge(plan, position, SHARES, 5_600.0, EXITS, 2) == "target" and plan.goal_net == 0


def test_a_stop_takes_over_from_another_exit():
    position, _ = after((*BUY_YES, 5_000, 1_000))
    plan = arm(position, EXITS, 1)
    begin(plan, "signal", 2)
    assert judge(plan, position, SHARES, 4_000.0, EXITS, 3) == ""
    assert judge(plan, position, SHARES, 4_000.0, EXITS, 33) == "stop" and plan.started_ns == 33


def test_the_deadline_counts_from_the_entry_and_needs_no_mid():
    params = msgspec.structs.replace(EXITS, deadline_ns=50)
    position, _ = after((*BUY_YES, 5_000, 1_000))
    plan = arm(position, params, 120)
    assert plan.deadline_ns == 150, "entry at 100; a restart does not move it"
    assert judge(plan, position, SHARES, 0.0, params, 149) == ""
    assert judge(plan, position, SHARES, 0.0, params, 150) == "deadline"


def test_a_decision_brings_its_own_stop_and_targets():
    position, _ = after((*BUY_YES, 5_000, 1_000))
    plan = arm(position, EXITS, 1, stop=0.2, targets=((0.5, 1.0),))
    assert (plan.stop_ratio, plan.targets) == (0.2, ((0.5, 1.0),))
    assert arm(position, EXITS, 1).targets == ((0.08, 1.0),)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=ExitPlan) == plan


def test_a_plan_is_armed_again_from_average_price_and_net_alone():
    whole, _ = after((*BUY_NO, 2_000, 1_000), (*BUY_NO, 3_000, 1_000))
    row = Position(no=Held(settled=2_000), cost=whole.cost, entry_ns=whole.entry_ns)
    assert arm(row, EXITS, 7) == arm(whole, EXITS, 7)
    for mid in (2_000.0, 2_600.0, 3_000.0):
        assert gain_ratio(row, SHARES, mid) == gain_ratio(whole, SHARES, mid)


def test_a_flip_forgets_what_was_done_about_the_other_side():
    position, _ = after((*BUY_YES, 5_000, 1_000))
    plan = arm(position, EXITS, 1)
    begin(plan, "target", 2)
    position.apply_fill(SHARES, told("x", *BUY_NO, 5_000, 3_000), 3)
    assert judge(plan, position, SHARES, 5_000.0, EXITS, 4) == ""
    assert (plan.exiting, plan.full_net, plan.taken) == ("", -2_000, 0.0)
    assert judge(plan, Position(), SHARES, 1.0, EXITS, 5) == "", "flat: nothing to leave"
