"""Every alarm of the core, and of what stands for long, by its real cause: events into a real engine, and what it said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_maker.console.alarms import DAY_NS, Alarms, Day
from llm_maker.core import events as ev
from llm_maker.core.commands import Notice
from llm_maker.core.values import NS_PER_S, Leg, Liquidity, Regime, Side
from llm_maker.report import summary
from tests.core.builders import SHARE, T0, USD, Rig, binary, of
from tests.core.test_account import FOREIGN_ORDER, doubtful, held_at_venue, live_rig, resting, sets, snapshot
from tests.core.test_agenda import answer, fallen, first, slow
from tests.core.test_losses import holding, live

BUY, SELL = Side.BUY, Side.SELL
CASES: dict[str, Callable[[], list[Notice]]] = {}
Cause = Callable[[], Any]


def cause(*codes: str) -> Callable[[Cause], Cause]:
    """What makes the alarms of these codes; a function gives a rig, or the notices themselves."""

    def keep(made: Cause) -> Cause:
        for code in codes:
            CASES[code] = lambda: _notices(made())
        return made

    return keep


def _notices(made: Any) -> list[Notice]:
    return of(made.log, Notice) if isinstance(made, Rig) else made


def sent(rig: Rig, *events: ev.Event) -> Rig:
    rig.send(*events)
    return rig


def alarms_of(rig: Rig, *, unknown_s: float = 60.0, daily: bool = True, **more: Any) -> Alarms:
    day = Day(summary.mark, summary.result, lambda: 0.25, " (paper money)")
    return Alarms(lambda: rig.state, unknown_s, daily_summary=daily, day=day, **more)


def watched(rig: Rig, alarms: Alarms, seconds: int, *, alive: bool = True) -> list[Notice]:
    """Both go on side by side, as in the daemon: a look each second."""
    told: list[Notice] = []
    for _ in range(seconds):
        told += of(rig.run(1, alive=alive), Notice)
        told += alarms.look()
    return told


# Limits.


@cause("halt_kill")
def _kill() -> Rig:
    return sent(Rig().start(), ev.OperatorActed(ev.Verb.KILL, "test"))


def _loss(**limits: Any) -> Rig:
    """A position loses two thirds of its worth; only one limit is near."""
    wide = {"daily_loss_ratio": 1.0, "weekly_loss_ratio": 1.0, "monthly_loss_ratio": 1.0, "max_drawdown_ratio": 1.0}
    rig = Rig(**{**wide, **limits}).start()
    rig.run(2)
    rig.hold(BUY, 5100, 500 * SHARE)
    rig.move(1700)
    rig.run(2)
    return rig


@cause("halt_daily_loss")
def _day() -> Rig:
    return _loss(daily_loss_ratio=0.01)


@cause("halt_weekly_loss")
def _week() -> Rig:
    return _loss(weekly_loss_ratio=0.01)


@cause("halt_monthly_loss")
def _month() -> Rig:
    return _loss(monthly_loss_ratio=0.01)


@cause("halt_drawdown")
def _drawdown() -> Rig:
    return _loss(max_drawdown_ratio=0.01)


@cause("halt_daily_loss_over")
def _day_over() -> Rig:
    rig = _day()
    rig.now = T0 + DAY_NS
    rig.run(2)
    return rig


@cause("halt_weekly_loss_over")
def _week_over() -> Rig:
    rig = _week()
    rig.now = T0 + 7 * DAY_NS
    rig.run(2)
    return rig


@cause("exit_stop")
def _stop() -> Rig:
    rig = holding()
    live(rig, 35, 4700)
    return rig


# Data.


@cause("trouble_lasts", "trouble_over")
def _trouble() -> list[Notice]:
    rig = Rig().start()
    alarms = alarms_of(rig)
    rig.send(ev.VenueDown("v", "the socket was closed"))
    told = watched(rig, alarms, 90, alive=False)
    rig.send(ev.VenueUp("v", True))
    rig.book()
    return told + watched(rig, alarms, 90)


@cause("regime")
def _regime() -> Rig:
    return sent(Rig().start(), ev.RegimeChanged("v", Regime.CANCEL_ONLY))


# Orders.


@cause("unknown_too_long")
def _unknown() -> list[Notice]:
    rig = doubtful()
    return watched(rig, alarms_of(rig), 65)


@cause("unknown_order")
def _nobodys() -> Rig:
    return sent(Rig().start(), ev.OrderAccepted("9-9", "x"))


@cause("order_rejected")
def _refused() -> Rig:
    rig = Rig(wants=((1, 5000, 20 * SHARE),)).start()
    return sent(rig, ev.OrderRejected(rig.one().order_id, "balance", "not enough balance / allowance"))


@cause("order_lost")
def _lost() -> Rig:
    rig = Rig(wants=((1, 4800, 20 * SHARE),)).start()
    rig.ack()
    order = rig.one(BUY)
    rig.fill(order, qty=5 * SHARE)
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    for _ in range(4):
        rig.run(12)
        rig.send(ev.OrderLookedUp(order.order_id, "absent"))
    for _ in range(2):
        rig.wait(1)
        rig.send(held_at_venue(rig, 5 * SHARE, 0))
    return rig


@cause("overfill")
def _overfill() -> Rig:
    rig = resting()
    rig.fill(rig.one(), 25 * SHARE)
    return rig


@cause("forgotten_order")
def _forgotten() -> Rig:
    rig = Rig().start()
    old = ev.RestingOrder("0-7", "x7", "m", BUY, Leg.YES, 4000, 5 * SHARE)
    return sent(rig, ev.AccountSnapshot((old,), (), asked_ns=rig.now))


@cause("foreign_order")
def _foreign() -> Rig:
    return sent(Rig().start(), snapshot(orders=[FOREIGN_ORDER]))


@cause("halt_foreign_orders")
def _foreign_start() -> Rig:
    return Rig(live=True).start(binary(guard_end=False), account=snapshot(orders=[FOREIGN_ORDER]))


@cause("settlement_failed")
def _reversed() -> Rig:
    rig = resting()
    rig.fill(rig.one(), 20 * SHARE, settled=False, fill_id="f1")
    return sent(rig, ev.FillFailed("f1", "m"))


# Account and money.


def _cash(gap: int) -> Rig:
    rig = live_rig()
    cash = rig.state.cash
    for _ in range(2):
        rig.wait(6)
        rig.send(held_at_venue(rig, 0, 0, cash + gap))
    return rig


@cause("transfer")
def _came() -> Rig:
    return _cash(7 * USD)


@cause("halt_cash")
def _went() -> Rig:
    return _cash(-3 * USD)


@cause("drift", "halt_drift")
def _drift() -> Rig:
    rig = Rig().start()
    rig.hold(BUY, 5000, 40 * SHARE)
    rig.send(snapshot(("m", Leg.YES, 30 * SHARE)))
    rig.run(6)
    return sent(rig, snapshot(("m", Leg.YES, 30 * SHARE)))


def _paid(amount: int, *, told: bool) -> Rig:
    rig = Rig().start()
    rig.hold(BUY, 5000, 50 * SHARE)
    if told:
        rig.send(ev.MarketResolved("m", 10_000))
    return sent(rig, ev.CashMoved(ev.CashKind.REDEMPTION, amount, "m", Leg.YES, 50 * SHARE))


@cause("redemption")
def _paid_less() -> Rig:
    return _paid(49 * USD, told=True)


@cause("halt_redemption")
def _paid_early() -> Rig:
    return _paid(50 * USD, told=False)


@cause("halt_unknown_fill")
def _fill_of_nothing() -> Rig:
    return sent(Rig().start(), ev.OrderFilled("o", "f", "nowhere", BUY, Leg.YES, 5000, 100, 0, Liquidity.MAKER))


@cause("halt_unknown_settlement")
def _settlement_of_nothing() -> Rig:
    return sent(Rig().start(), ev.FillSettled("f", "nowhere"))


@cause("halt_unknown_merge")
def _merge_of_nothing() -> Rig:
    return sent(Rig().start(), ev.SetsMerged("nowhere", 100))


@cause("halt_unknown_split")
def _split_of_nothing() -> Rig:
    return sent(Rig().start(), ev.SetsSplit("nowhere", 100))


@cause("halt_unknown_redemption")
def _redemption_of_nothing() -> Rig:
    return sent(Rig().start(), ev.CashMoved(ev.CashKind.REDEMPTION, 100, "nowhere", Leg.YES, 100))


@cause("merge_failed")
def _no_merge() -> Rig:
    rig = sets(Rig().start(), 20)
    rig.run(3)
    return sent(rig, ev.MergeFailed("m", 20 * SHARE, "no gas", work_id=next(iter(rig.state.works))))


@cause("split_failed")
def _no_split() -> Rig:
    rig = sent(Rig().start(), ev.OperatorActed(ev.Verb.SPLIT, "test", "m", qty=30 * SHARE))
    return sent(rig, ev.SplitFailed("m", 30 * SHARE, "no gas", work_id=next(iter(rig.state.works))))


@cause("redeem_failed")
def _no_claim() -> Rig:
    return sent(Rig().start(), ev.RedeemFailed("m", "the relayer says no"))


@cause("work_judged")
def _unanswered() -> Rig:
    rig = sets(Rig().start(), 20)
    rig.run(3)
    rig.wait(601)
    return sent(rig, held_at_venue(rig, 20 * SHARE, 20 * SHARE))


@cause("unasked_work")
def _unasked() -> Rig:
    return sent(sets(Rig().start(), 20), ev.SetsMerged("m", 20 * SHARE, work_id="w99"))


# The model.


@cause("fallback")
def _fallback() -> Rig:
    return fallen(slow())


@cause("fallback_over")
def _back() -> Rig:
    rig = fallen(slow())
    rig.wait(60)
    answer(rig, first(rig))
    return rig


def _spending(*shares: float) -> list[Notice]:
    rig = Rig().start()
    spent = [0.0]
    alarms = alarms_of(rig, budgets=lambda: {"models": (spent[0], 2.0)})
    told: list[Notice] = []
    for share in shares:
        spent[0] = 2.0 * share
        told += alarms.look() + alarms.look()
    return told


@cause("budget_nearly_spent")
def _nearly() -> list[Notice]:
    return _spending(0.1, 0.85, 0.9)


@cause("budget_spent")
def _spent() -> list[Notice]:
    return _spending(0.1, 1.0, 1.0)


# The machine and the person.


@cause("halt_storage")
def _storage() -> Rig:
    return sent(Rig().start(), ev.StorageFailed("the journal", "No space left on device"))


@cause("halt_clock")
def _clock() -> Rig:
    return sent(Rig().start(), ev.ClockStepped(90 * NS_PER_S))


@cause("approve")
def _approval() -> Rig:
    rig = Rig(wants=(), approve_above=100 * USD).start()
    return sent(rig, ev.IntentReceived("i1", "m", 150 * SHARE, "test", "a wish"))


@cause("daily_summary")
def _midnight() -> list[Notice]:
    rig = Rig(now=T0 + DAY_NS - 30 * NS_PER_S).start()
    return watched(rig, alarms_of(rig), 60)
