"""Exits of positions and halts of the account: what starts them, what they may send, when they end."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import events as ev
from llm_maker.core.commands import CancelOrder, LookUpOrder, TimeInForce
from llm_maker.core.losses import DAY_NS, _month
from llm_maker.core.orders import Status
from llm_maker.core.params import RiskParams
from llm_maker.core.risk import chain
from llm_maker.core.values import NS_PER_S, Mode, Side
from tests.core.builders import CASH, SHARE, T0, USD, Rig, Wants, binary, linear, notices, of, places

BUY, SELL = Side.BUY, Side.SELL
BOTH = ((1, 4900, 20 * SHARE), (-1, 5100, 20 * SHARE))


def live(rig: Rig, seconds: int, mid: int | None = None) -> list:
    """Seconds in which the venue answers at once."""
    out = rig.move(mid) if mid is not None else []
    for _ in range(seconds):
        out += rig.run(1) + rig.ack()
    return out


def holding(side=BUY, price=5000, shares=40, *, wants=(), mid=5000, **changes) -> Rig:
    rig = Rig(wants=wants, **changes).start()
    live(rig, 2, mid)
    rig.hold(side, price, shares * SHARE)
    return rig


def plan(rig: Rig):
    return rig.market().exit_plan


# The stop.


def test_a_stop_needs_its_hold():
    rig = holding()
    assert not notices(live(rig, 29, 4700), "exit_stop")
    assert notices(live(rig, 3), "exit_stop") and plan(rig).exiting == "stop"


def test_a_dip_shorter_than_the_hold_is_no_stop():
    rig = holding()
    live(rig, 20, 4700)
    live(rig, 2, 4900)
    live(rig, 20, 4700)
    assert plan(rig).exiting == ""


def test_the_stop_is_judged_against_the_cost_of_the_side_held():
    assert notices(live(holding(SELL, 5000), 32, 5300), "exit_stop"), "NO cost 0.50, five percent of it is 2.5c"
    cheap = holding(SELL, 9000, mid=9000)
    assert notices(live(cheap, 32, 9100), "exit_stop"), "NO cost 0.10: one cent is ten percent"
    assert not notices(live(holding(BUY, 9000, mid=9000), 40, 8800), "exit_stop"), "YES cost 0.90: two cents are not five percent"


def test_a_stop_cancels_the_adding_side_and_reduces_as_maker_at_the_touch():
    rig = holding(wants=BOTH)
    live(rig, 32, 4700)
    rig.ack()
    (sell,) = rig.live()
    assert sell.side is SELL and sell.remaining == 40 * SHARE and sell.post_only and sell.price == 4800


def test_a_stop_follows_the_touch_down():
    rig = holding()
    live(rig, 32, 4700)
    live(rig, 3, 4500)
    (sell,) = rig.live()
    assert sell.price == 4600


def test_a_stop_crosses_only_after_its_patience_within_the_slippage_and_depth():
    rig = holding()
    live(rig, 33, 4700)
    out = live(rig, 590)
    assert all(p.post_only for p in places(out))
    rig.move(4700, size=15 * SHARE)
    out = live(rig, 10)
    taking = [p for p in places(out) if not p.post_only]
    assert taking and taking[0].time_in_force is TimeInForce.IOC and taking[0].reduce_only
    # Mid 4700 less 5 %: nothing below 4465, so the bids 4600 and 4500 of 15 shares each.
    assert taking[0].price == 4500 and taking[0].qty == 30 * SHARE
    assert "taking" in taking[0].reason


def test_what_rests_is_canceled_before_the_taking_order_is_sent():
    rig = holding()
    live(rig, 33, 4700)
    rig.wait(plan(rig).started_ns / NS_PER_S + 600 - rig.now / NS_PER_S)
    out = rig.run(3)
    assert len(of(out, CancelOrder)) == 1 and places(out) == [], "the cancel is not yet confirmed"
    assert [p for p in places(rig.ack() + rig.run(1)) if not p.post_only]
    assert of(rig.run(3), CancelOrder) == [], "an order that takes ends by itself"


def test_a_taking_order_without_a_last_word_is_looked_up():
    rig = holding()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "m", True))
    rig.ack()
    (take,) = rig.live()
    assert take.status is Status.OPEN and not take.post_only
    out = live(rig, 12)
    assert take.status is Status.UNKNOWN and [c.order_id for c in of(out, LookUpOrder)] == [take.order_id]
    out = rig.send(ev.OrderLookedUp(take.order_id, "canceled"))
    assert len([p for p in places(out + live(rig, 2)) if not p.post_only]) == 1, "what is left is tried again"


def test_a_taking_order_that_the_venue_refuses_is_not_hammered():
    rig = holding()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "m", True))
    for n in range(80):
        for order in rig.live():
            rig.send(ev.OrderRejected(order.order_id, "balance"))
        rig.move(5000, size=500 * SHARE + n)
        rig.run(0.25)
    assert len([p for p in places(rig.log) if not p.post_only]) == 2, "at once, and after ten seconds"


def test_a_taking_order_that_ended_in_part_is_not_sent_again_before_its_fills_are_known():
    """The venue's word of the end may come before the trade, and says how much was matched."""
    rig = holding()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "m", True))
    rig.ack()
    (take,) = rig.live()
    out = rig.send(ev.OrderLookedUp(take.order_id, "canceled", 15 * SHARE))
    assert places(out + rig.run(2)) == [], "15 of them are sold already"
    rig.fill(take, 15 * SHARE)
    rig.send(ev.OrderLookedUp(take.order_id, "canceled", 15 * SHARE))
    again = rig.live() or [rig.state.orders[p.order_id] for p in places(rig.run(2))]
    assert [o.qty for o in again] == [25 * SHARE]


def test_a_maker_only_house_never_crosses():
    rig = holding(stop_exit_crosses=False)
    live(rig, 33, 4700)
    assert all(p.post_only for p in places(live(rig, 700)))


def test_no_depth_within_the_limit_sends_nothing_and_says_so():
    rig = holding()
    live(rig, 33, 4700)
    rig.wait(600)
    rig.book("m", bids=((3000, 500 * SHARE),), asks=((6400, 500 * SHARE),))
    out = live(rig, 5)
    assert not [p for p in places(out) if not p.post_only]
    assert "no depth within the slippage limit" in rig.state.refused
    resting = rig.live(Side.SELL)
    assert resting and all(o.post_only and o.price == 6400 for o in resting), "it goes on as maker meanwhile"
    rig.book("m", bids=((4650, 500 * SHARE),), asks=((4900, 500 * SHARE),))
    assert [p for p in places(live(rig, 5)) if not p.post_only], "and takes once there is something to take"


def test_a_stop_on_an_untrusted_book_waits_and_begins_with_the_next():
    rig = holding()
    rig.move(4700)
    rig.run(20)
    rig.send(ev.FeedLost(("m",), "shard"))
    rig.run(60)
    assert plan(rig).exiting == ""
    live(rig, 2, 4700)
    assert plan(rig).exiting == "stop"


def stopped_out(rig: Rig, mid: int = 4700) -> Rig:
    live(rig, 33, mid)
    rig.fill(rig.one(SELL))
    assert rig.market().position.net == 0 and plan(rig) is None
    return rig


def test_after_a_stop_no_new_risk_for_fifteen_minutes():
    rig = stopped_out(holding())
    rig.state.strategy_params = Wants(((1, 4600, 20 * SHARE), (-1, 4800, 20 * SHARE)))
    live(rig, 2, 4700)
    rig.wait(850)
    assert places(live(rig, 5)) == [] and "cooldown" in rig.state.refused
    rig.wait(60)
    assert len(places(live(rig, 3))) == 2


def test_the_third_stop_of_a_day_rests_an_hour():
    rig = holding()
    for pause in (900, 900, 3_600):
        stopped_out(rig)
        left = (rig.market().cooldown_until - rig.now) / NS_PER_S
        assert left == pause
        rig.wait(pause)
        live(rig, 2, 5000)
        rig.hold(BUY, 5000, 40 * SHARE)
    rig.wait(86_400)
    live(rig, 2, 5000)
    stopped_out(rig)
    assert (rig.market().cooldown_until - rig.now) / NS_PER_S == 900, "a new day counts anew"


def test_a_stop_asks_the_model_to_look_and_drops_the_opinion_that_built_the_position():
    rig = holding()
    live(rig, 33, 4700)
    assert rig.market().trigger == "stop"


def test_a_stop_takes_over_from_a_patient_exit():
    rig = holding()
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "m"))
    assert plan(rig).exiting == "operator"
    live(rig, 33, 4700)
    assert plan(rig).exiting == "stop"


def test_dust_is_no_exit_and_the_market_is_quoted_on():
    rig = holding(shares=3, wants=((1, 4500, 20 * SHARE), (-1, 4800, 20 * SHARE)))
    live(rig, 40, 4700)
    assert plan(rig).exiting == "" and len(rig.live()) == 2


def test_an_exit_that_leaves_dust_has_ended():
    rig = holding(wants=((1, 4500, 20 * SHARE), (-1, 4800, 20 * SHARE)))
    live(rig, 33, 4700)
    rig.fill(rig.one(SELL), 38 * SHARE)
    assert rig.market().position.net == 2 * SHARE and rig.market().exit_plan.exiting == ""
    assert rig.market().cooldown_until > rig.now


def test_a_failed_settlement_of_an_entry_leaves_no_plan():
    rig = Rig(wants=BOTH).start()
    live(rig, 2, 5000)
    rig.fill(rig.one(BUY), settled=False, fill_id="f")
    assert plan(rig) is not None
    rig.send(ev.FillFailed("f", "m"))
    assert plan(rig) is None


# Target, deadline.


def test_the_target_is_taken_at_once_as_maker_and_has_no_cooldown():
    rig = holding()
    out = live(rig, 33, 5500)
    assert notices(out, "exit_target") and plan(rig).exiting == "target"
    (sell,) = rig.live()
    assert sell.price == 5600 and sell.post_only
    rig.fill(sell)
    assert rig.market().cooldown_until == 0
    assert rig.state.closed[0].exit_reason == "target" and rig.state.closed[0].trip.realised == 40 * SHARE * 600


def test_a_target_never_crosses():
    rig = holding()
    live(rig, 33, 5500)
    assert all(p.post_only for p in places(live(rig, 700)))


def test_several_targets_are_taken_one_by_one():
    rig = holding()
    plan(rig).targets = ((0.04, 0.25), (0.08, 0.5))
    live(rig, 3, 5200)
    (sell,) = rig.live()
    assert sell.remaining == 10 * SHARE
    rig.fill(sell)
    assert plan(rig).exiting == "" and rig.market().position.net == 30 * SHARE
    live(rig, 3, 5300)
    assert plan(rig).exiting == ""
    live(rig, 3, 5400)
    (sell,) = rig.live()
    assert sell.remaining == 20 * SHARE
    rig.fill(sell)
    assert rig.market().position.net == 10 * SHARE
    live(rig, 3, 6000)
    assert plan(rig).exiting == "" and rig.live() == []


def test_the_deadline_ends_a_position():
    rig = holding(deadline_ns=100 * NS_PER_S)
    assert not notices(live(rig, 98), "exit_deadline")
    assert notices(live(rig, 5), "exit_deadline") and plan(rig).exiting == "deadline"
    assert all(p.post_only for p in places(live(rig, 700)))


def test_an_exit_goes_on_after_a_restart():
    rig = holding()
    live(rig, 33, 4700)
    other = rig.reborn()
    other.send(ev.Started(2, True), ev.AccountSnapshot((), (ev.Holding("m", "yes", 40 * SHARE),)))
    other.move(4700)
    for order in other.live():
        other.send(ev.OrderLookedUp(order.order_id, "canceled"))
    live(other, 3)
    assert plan(other).exiting == "stop" and other.one(SELL).remaining == 40 * SHARE


def test_a_linear_short_is_stopped_out_with_buys():
    rig = Rig(linear_stress_ratio=0.1).start(linear())
    rig.book("l", ((6_799_900, 9_000),), ((6_800_100, 9_000),))
    rig.hold(SELL, 6_800_012, 10, "l")
    rig.book("l", ((7_199_900, 9_000),), ((7_200_100, 9_000),))
    rig.run(35)
    order = rig.one(BUY, "l")
    assert (order.price, order.remaining) == (7_199_900, 10)


# Flatten.


def test_flatten_reduces_as_maker_and_adds_nothing():
    rig = holding(wants=BOTH)
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli"))
    live(rig, 3)
    (sell,) = rig.live()
    assert sell.side is SELL and sell.remaining == 40 * SHARE and sell.post_only
    assert all(p.post_only for p in places(live(rig, 700)))


def test_flatten_take_crosses_at_once():
    rig = holding()
    out = rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "m", True))
    (take,) = places(out + live(rig, 1))
    assert not take.post_only and take.side is SELL and take.qty == 40 * SHARE and take.price == 4800
    rig.fill(rig.one(SELL))
    assert rig.market().position.net == 0 and plan(rig) is None


def test_resume_after_flatten_quotes_again_everywhere():
    rig = holding(wants=BOTH)
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", take=True))
    live(rig, 2)
    for order in rig.live(SELL):
        rig.fill(order)
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    live(rig, 3)
    assert len(rig.live()) == 2


# Halts of the account.


def losing(usd: float, **changes) -> Rig:
    """A loss of so much, told as a fee."""
    rig = Rig(wants=BOTH, **changes).start()
    live(rig, 2, 5000)
    rig.send(ev.CashMoved(ev.CashKind.FEE, -int(usd * USD)))
    return rig


LIMITS = {"daily_loss_ratio": 1.0, "weekly_loss_ratio": 1.0, "monthly_loss_ratio": 1.0, "max_drawdown_ratio": 1.0}
NAMES = {
    "daily_loss": "daily_loss_ratio", "weekly_loss": "weekly_loss_ratio", "monthly_loss": "monthly_loss_ratio",
    "drawdown": "max_drawdown_ratio",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_halts_once_it_is_passed_and_not_before(name):
    limits = LIMITS | {NAMES[name]: 0.02}
    assert live(losing(200, **limits), 3) is not None
    rig = losing(200, **limits)
    live(rig, 2)
    assert rig.state.halts == {} and len(rig.live()) == 2
    rig.send(ev.CashMoved(ev.CashKind.FEE, -1))
    out = live(rig, 2)
    assert list(rig.state.halts) == [name] and notices(out, f"halt_{name}")
    assert rig.live() == [] and rig.state.mode is Mode.HALTED and rig.state.counts.halts == 1


def test_a_loss_at_the_mark_counts_on_a_silent_feed():
    rig = holding(daily_loss_ratio=0.0001)
    rig.send(ev.VenueDown("v", "socket"))
    rig.market().mark = 4700.0
    rig.run(2, alive=False)
    assert "daily_loss" in rig.state.halts


def test_halts_are_judged_on_the_timer_only():
    rig = losing(300)
    rig.move(5100)
    assert rig.state.halts == {}


DAY, WEEK = 86_400, 7 * 86_400


@pytest.mark.parametrize(("name", "seconds"), [("daily_loss", DAY), ("weekly_loss", 4 * DAY)])
def test_it_is_lifted_at_the_next_period_and_trading_goes_on(name, seconds):
    """T0 is a Thursday midnight, so the week ends four days later."""
    rig = losing(300, **(LIMITS | {NAMES[name]: 0.02}))
    live(rig, 2)
    rig.wait(seconds - 6)
    live(rig, 1, 5000)
    assert name in rig.state.halts
    out = live(rig, 4)
    assert rig.state.halts == {} and notices(out, f"halt_{name}_over") and len(rig.live()) == 2


@pytest.mark.parametrize("name", ["monthly_loss", "drawdown"])
def test_it_waits_for_a_person_and_counts_anew_after_resume(name):
    rig = losing(300, **(LIMITS | {NAMES[name]: 0.02}))
    live(rig, 2)
    rig.wait(40 * DAY)
    live(rig, 3, 5000)
    assert name in rig.state.halts
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    live(rig, 5)
    assert rig.state.halts == {} and len(rig.live()) == 2


def test_resume_does_not_lift_a_daily_halt():
    rig = losing(300, **(LIMITS | {"daily_loss_ratio": 0.02}))
    live(rig, 2)
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    live(rig, 2)
    assert "daily_loss" in rig.state.halts and rig.live() == []


def test_a_plain_resume_does_not_move_the_high_water():
    rig = losing(150, **(LIMITS | {"max_drawdown_ratio": 0.02}))
    live(rig, 2)
    rig.send(ev.ClockStepped(2 * NS_PER_S), ev.OperatorActed(ev.Verb.PAUSE, "cli"), ev.OperatorActed(ev.Verb.RESUME, "cli"))
    rig.send(ev.CashMoved(ev.CashKind.FEE, -100 * USD))
    live(rig, 2)
    assert "drawdown" in rig.state.halts


def test_bases_and_halts_survive_a_restart():
    rig = losing(150, **(LIMITS | {"daily_loss_ratio": 0.02}))
    live(rig, 2)
    other = rig.reborn()
    other.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    other.send(ev.CashMoved(ev.CashKind.FEE, -100 * USD))
    live(other, 2)
    assert other.state.risk.day_base == CASH and "daily_loss" in other.state.halts
    third = other.reborn()
    third.send(ev.Started(3, True), ev.AccountSnapshot((), ()))
    third.move(5000)
    assert places(live(third, 3)) == [] and third.state.mode is Mode.HALTED


def test_exits_cannot_trade_while_the_account_is_halted_but_are_remembered():
    rig = holding(daily_loss_ratio=0.0001)
    live(rig, 40, 4700)
    assert "daily_loss" in rig.state.halts and plan(rig).exiting == "stop" and rig.live() == []
    assert [g.name for g in chain(rig.state, rig.market()) if g.pull] == ["mode"]


def test_a_gain_moves_only_the_high_water():
    rig = losing(-300)
    live(rig, 2)
    risk = rig.state.risk
    assert risk.high_water == CASH + 300 * USD and risk.day_base == risk.week_base == risk.month_base == CASH


def test_periods_roll_at_their_utc_boundaries():
    rig = losing(50, **LIMITS)
    live(rig, 1)
    risk = rig.state.risk
    first = (risk.day, risk.week, risk.month)
    bases = []
    for days in (1, 4, 31):
        rig.now = T0 + days * DAY_NS
        rig.run(1)
        bases.append((risk.day_base != CASH, risk.week_base != CASH, risk.month_base != CASH))
    assert first != (risk.day, risk.week, risk.month)
    assert bases == [(True, False, False), (True, True, False), (True, True, True)]


@given(st.integers(0, 60_000))
@settings(max_examples=300, deadline=None)
def test_months_are_those_of_the_calendar(day):
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    after = date + datetime.timedelta(days=1)
    assert (_month(day + 1) != _month(day)) == (after.month != date.month)
    assert _month(day + 1) - _month(day) in (0, 1)


def test_the_defaults_are_the_designs():
    risk = RiskParams(bankroll=1, max_order_cost=1)
    assert (risk.daily_loss_ratio, risk.max_drawdown_ratio, risk.exit_patience_ns) == (0.02, 0.06, 600 * NS_PER_S)
    assert (risk.stop_cooldown_ns, risk.repeated_stop_cooldown_ns) == (900 * NS_PER_S, 3_600 * NS_PER_S)
    assert binary().min_qty == 5 * SHARE
