"""The simulated exchange: every fill rule, refusal and payment, and its invariants on seeded tapes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import values
from llm_maker.core.commands import (
    CancelOrder,
    LookUpOrder,
    MergeSets,
    PlaceOrder,
    RequestAccount,
    RequestSnapshot,
    TimeInForce,
)
from llm_maker.core.events import (
    AccountSnapshot,
    BookDelta,
    BookSnapshot,
    CancelRejected,
    CashKind,
    CashMoved,
    FillFailed,
    FillSettled,
    FundingReported,
    InstrumentListed,
    MarketResolved,
    MergeFailed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    RegimeChanged,
    SetsMerged,
    TradePrinted,
)
from llm_maker.core.values import (
    CASH_PER_USD,
    NS_PER_MS,
    NS_PER_S,
    PPM,
    FeeCurve,
    FeeRule,
    FixedGrid,
    Instrument,
    Kind,
    Leg,
    Liquidity,
    Regime,
    RewardRule,
    Side,
)
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.records import ExchangeParams

PAYOUT = 10_000
DAY = 86_400 * NS_PER_S
BUY, SELL, YES, NO = Side.BUY, Side.SELL, Leg.YES, Leg.NO
FEE = FeeRule(curve=FeeCurve.VARIANCE, taker_ppm=40_000, rebate_ppm=250_000, quantum=10, minimum=10)


def binary(**changes):
    fields = {
        "id": "M", "venue": "sim", "kind": Kind.BINARY, "price_decimals": 4, "qty_decimals": 2, "grid": FixedGrid(100),
        "qty_step": 1, "min_qty": 500, "payout": PAYOUT, "fee": FEE,
    }  # fmt: skip
    return Instrument(**fields | changes)


def perp():
    return Instrument(
        id="BTC", venue="sim", kind=Kind.LINEAR, price_decimals=2, qty_decimals=3, grid=FixedGrid(1), qty_step=1,
        min_qty=1, fee=FeeRule(curve=FeeCurve.NOTIONAL, taker_ppm=450, maker_ppm=150),
    )  # fmt: skip


def settings_of(**changes):
    """No luck, no cap: the bare rules, unless a test asks for more."""
    plain = {"seed": 1, "settle_fail_ppm": 0, "volume_cap_ratio": 1.0, "improve_share": 1.0}
    return ExchangeParams(**plain | changes)


class Rig:
    """An exchange driven the way a runner does: everything due first, then the event or the command."""

    def __init__(self, instrument=None, **changes):
        self.instrument = instrument or binary()
        self.exchange = Exchange(settings_of(**changes))
        self.now, self.heard, self.placed = 1_000 * DAY, [], 0
        self.see(InstrumentListed(self.instrument))

    def wait(self, seconds):
        return self.until(self.now + round(seconds * NS_PER_S))

    def until(self, now):
        heard = []
        while (due := self.exchange.next_ns()) is not None and due <= now:
            heard += self.exchange.advance(due)
        self.now = now
        self.heard += heard
        return heard

    def see(self, event):
        self.until(self.now)
        self.exchange.observe(self.now, event)
        return self.until(self.now)

    def send(self, command):
        self.exchange.execute(self.now, command)

    def book(self, bids, asks):
        return self.see(BookSnapshot(self.instrument.id, tuple(bids.items()), tuple(asks.items()), self.now))

    def delta(self, bids=(), asks=(), best_bid=None, best_ask=None):
        return self.see(BookDelta(self.instrument.id, tuple(bids), tuple(asks), best_bid, best_ask, self.now))

    def print(self, price, qty, side=SELL):
        return self.see(TradePrinted(self.instrument.id, price, qty, side, self.now))

    def place(self, side, price, qty, leg=None, tif=TimeInForce.GTC, **changes):
        self.placed += 1
        fields = {
            "order_id": f"1-{self.placed}", "instrument": self.instrument.id, "side": side, "price": price, "qty": qty,
            "leg": leg or (YES if side is BUY else NO), "time_in_force": tif, "reduce_only": False, "reason": "test",
            "post_only": tif in (TimeInForce.GTC, TimeInForce.GTD),
        }  # fmt: skip
        if not self.instrument.is_binary:
            fields["leg"] = Leg.NONE
        self.send(PlaceOrder(**fields | changes))
        return self.wait(0.25)


def fills(heard):
    return [event for event in heard if isinstance(event, OrderFilled)]


def filled(heard):
    return [(event.price, event.qty) for event in fills(heard)]


def only(heard, kind):
    found = [event for event in heard if isinstance(event, kind)]
    assert len(found) == 1, heard
    return found[0]


def opened(**changes):
    rig = Rig(**changes)
    rig.book({5000: 10_000, 4900: 20_000}, {5200: 10_000, 5300: 20_000})
    return rig


# Latency and answers


def test_an_order_travels_for_the_entry_latency():
    rig = opened()
    rig.exchange.execute(rig.now, PlaceOrder("1-1", "M", BUY, YES, 5000, 500, TimeInForce.GTC, True, False, "test"))
    assert rig.wait(0.249) == []
    assert rig.print(5000, 20_000) == []
    assert rig.wait(0.001) == [OrderAccepted("1-1", "paper-1-1")]
    assert [(order.order_id, order.queue.likely) for order in rig.exchange.resting()] == [("1-1", 10_000)]


def test_answers_take_the_response_latency():
    rig = opened(response_ns=20 * NS_PER_MS)
    assert rig.place(BUY, 5000, 500) == []
    assert rig.wait(0.02) == [OrderAccepted("1-1", "paper-1-1")]


def test_a_cancel_takes_effect_late_and_fills_in_flight_happen():
    rig = opened()
    rig.place(BUY, 5000, 500)
    rig.send(CancelOrder("1-1", "M", "test"))
    rig.wait(0.1)
    assert filled(rig.print(4900, 20_000)) == [(5000, 500)]
    assert only(rig.wait(0.2), CancelRejected) == CancelRejected("1-1", "filled", gone=True)


def test_a_cancel_never_arrives_before_its_order():
    rig = opened(cancel_ns=0)
    rig.exchange.execute(rig.now, PlaceOrder("1-1", "M", BUY, YES, 5000, 500, TimeInForce.GTC, True, False, "test"))
    rig.send(CancelOrder("1-1", "M", "test"))
    assert rig.wait(0.249) == []
    assert rig.wait(0.001) == [OrderAccepted("1-1", "paper-1-1"), OrderCanceled("1-1", "requested")]


def test_cancel_and_lookup_and_account():
    rig = opened()
    rig.place(BUY, 5000, 1_000)
    rig.place(SELL, 5200, 1_000)
    rig.print(4900, 400)
    rig.send(CancelOrder("1-2", "M", "test"))
    assert only(rig.wait(0.25), OrderCanceled).order_id == "1-2"
    for order_id in ("1-1", "1-2", "9-9"):
        rig.send(LookUpOrder(order_id, "M", "test"))
    rig.send(RequestSnapshot("M", "test"))
    rig.send(RequestAccount("test"))
    heard = rig.wait(0.25)
    assert [(e.found, e.filled) for e in heard if isinstance(e, OrderLookedUp)] == [
        ("open", 400), ("canceled", 0), ("absent", 0),
    ]  # fmt: skip
    told = only(heard, AccountSnapshot)
    assert [(order.order_id, order.qty) for order in told.orders] == [("1-1", 600)]
    assert [(holding.leg, holding.qty) for holding in told.holdings] == [(YES, 400)]
    assert told.cash == rig.exchange.cash == 1_000 * CASH_PER_USD - 2 * CASH_PER_USD


# Fill rules


def test_a_touch_without_a_print_fills_nothing():
    rig = opened()
    rig.place(BUY, 5000, 500)
    assert fills(rig.delta(bids=[(5000, 100)])) == []
    assert fills(rig.delta(bids=[(5000, 0)])) == []
    assert fills(rig.delta(asks=[(5100, 900)])) == []


def test_a_print_at_our_price_waits_for_the_queue_and_fills_in_parts():
    rig = opened()
    rig.place(BUY, 5000, 1_000)
    assert filled(rig.print(5000, 9_000)) == []
    assert filled(rig.print(5000, 1_300)) == [(5000, 300)]
    rig.wait(2)
    assert filled(rig.print(5000, 5_000)) == [(5000, 700)]
    assert rig.exchange.resting() == []


def test_a_print_through_our_price_fills_us_whatever_the_queue_or_cap():
    rig = opened(volume_cap_ratio=0.0)
    rig.place(BUY, 5000, 1_000)
    assert filled(rig.print(4900, 700)) == [(5000, 700)]
    rig.wait(2)
    assert filled(rig.print(4900, 700)) == [(5000, 300)]


def test_a_print_of_the_other_side_or_above_us_does_nothing():
    rig = opened()
    rig.place(BUY, 5000, 1_000)
    assert filled(rig.print(5100, 90_000)) == []
    assert filled(rig.print(5000, 90_000, BUY)) == []


def test_an_ask_of_no_is_hit_by_a_taker_of_no_on_the_folded_book():
    # A taker who buys NO at 0.48 sells YES at 0.52 terms: folded, it is a SELL print and hits YES bids at 0.52 or more.
    rig = opened()
    rig.place(SELL, 5200, 1_000)
    heard = rig.print(5300, 2_000, BUY)
    fill = only(heard, OrderFilled)
    assert (fill.leg, fill.price, fill.qty, fill.fee, fill.liquidity) == (NO, 5200, 1_000, 0, Liquidity.MAKER)
    assert rig.exchange.cash == 1_000 * CASH_PER_USD - 4_800_000
    assert rig.exchange.holdings() == {("M", NO): 1_000}


def test_a_book_that_crosses_us_fills_no_more_than_it_shows_and_only_once():
    rig = opened(volume_cap_ratio=10.0)
    rig.place(BUY, 5000, 1_000)
    rig.delta(bids=[(5000, 0), (4900, 0)])
    assert filled(rig.delta(asks=[(4900, 300)])) == [(5000, 300)]
    assert filled(rig.delta(asks=[(4900, 250)])) == []
    assert filled(rig.delta(asks=[(5200, 9_000)])) == []
    assert filled(rig.delta(asks=[(4900, 600)])) == [(5000, 600)]
    # The print behind the crossing comes late: it is the same quantity.
    assert filled(rig.print(5000, 900)) == []
    assert filled(rig.print(5000, 900)) == [(5000, 100)]


def test_one_print_serves_our_orders_once_in_price_and_time_order():
    rig = opened()
    rig.place(BUY, 5000, 600)
    rig.place(BUY, 4900, 600)
    rig.place(BUY, 5000, 600)
    heard = fills(rig.print(4800, 1_000))
    assert [(fill.order_id, fill.qty) for fill in heard] == [("1-1", 600), ("1-3", 400)]


def test_our_fill_is_missing_from_later_prints_for_a_second():
    rig = opened()
    rig.place(BUY, 5000, 600)
    rig.print(4900, 600)
    rig.place(BUY, 5000, 600)
    assert filled(rig.print(4900, 700)) == [(5000, 100)]
    rig.wait(2)
    assert filled(rig.print(4900, 700)) == [(5000, 500)]


def test_improving_quotes_get_a_seeded_share_of_prints():
    won = 0
    for seed in range(200):
        rig = opened(seed=seed, improve_share=0.5)
        rig.place(BUY, 5100, 500)
        won += bool(filled(rig.print(5000, 500)))
    assert 70 < won < 130
    rig = opened(improve_share=0.0)
    rig.place(BUY, 5100, 500)
    assert filled(rig.print(5000, 500)) == []
    assert filled(rig.print(4900, 500)) == [(5100, 500)], "past the best price shown there is no doubt"


def test_volume_cap_per_minute():
    rig = opened(volume_cap_ratio=0.10)
    rig.place(BUY, 5000, 5_000)
    assert filled(rig.print(5000, 20_000)) == [(5000, 2_000)]
    rig.wait(2)
    assert filled(rig.print(5000, 5_000)) == [(5000, 500)]
    rig.wait(61)
    assert filled(rig.print(5000, 5_000)) == [(5000, 500)]


def test_told_best_prices_prune_what_got_lost():
    rig = opened()
    rig.delta(bids=[(4800, 100)], best_bid=4900, best_ask=5300)
    assert only(rig.place(BUY, 5200, 500), OrderAccepted)
    assert rig.exchange.resting()[0].queue.likely == 0
    rig = opened()
    rig.delta(asks=[(5400, 100)], best_bid=4900, best_ask=5200)
    assert only(rig.place(SELL, 5000, 500), OrderAccepted)


# Refusals


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"price": 5200}, "post_only"),
        ({"price": 5050}, "tick"),
        ({"price": 10_000}, "tick"),
        ({"qty": 499}, "size"),
        ({"qty": 0}, "size"),
        ({"instrument": "other"}, "closed"),
        ({"qty": 300_000}, "balance"),
        ({"leg": NO}, "balance"),
        ({"leg": Leg.NONE}, "other"),
        ({"order_id": "used"}, "duplicate"),
        ({"expires_ns": 5}, "other"),
    ],
)
def test_refusals(order, reason):
    rig = opened()
    rig.place(BUY, 4800, 500, order_id="used")
    fields = {"side": BUY, "price": 5000, "qty": 500} | order
    assert only(rig.place(**fields), OrderRejected).reason == reason
    assert len(rig.exchange.resting()) == 1


def test_own_orders_never_meet():
    rig = opened()
    rig.place(BUY, 5100, 500)
    assert only(rig.place(SELL, 5100, 500), OrderRejected).reason == "post_only"
    assert only(rig.place(SELL, 5000, 500, tif=TimeInForce.IOC), OrderRejected).detail == "self_trade"


def test_resting_orders_reserve_cash_and_shares():
    rig = opened(start_cash=10 * CASH_PER_USD)
    rig.place(BUY, 5000, 1_900)
    assert only(rig.place(BUY, 4900, 500), OrderRejected).reason == "balance"
    rig.send(CancelOrder("1-1", "M", "test"))
    rig.wait(0.25)
    rig.place(BUY, 5000, 1_900)
    rig.print(4900, 1_900)
    assert only(rig.place(SELL, 5200, 500, leg=YES), OrderRejected).reason == "balance", "not settled yet"
    assert only(rig.wait(3600), FillSettled)
    assert only(rig.place(SELL, 5200, 1_900, leg=YES), OrderAccepted)
    assert only(rig.place(SELL, 5300, 500, leg=YES), OrderRejected).reason == "balance", "already for sale"


def test_regimes_of_the_venue():
    rig = opened()
    rig.see(RegimeChanged("sim", Regime.POST_ONLY))
    assert only(rig.place(BUY, 5200, 500, tif=TimeInForce.IOC), OrderRejected).reason == "post_only"
    assert only(rig.place(BUY, 5000, 500), OrderAccepted)
    rig.see(RegimeChanged("sim", Regime.CANCEL_ONLY))
    assert only(rig.place(BUY, 5000, 500), OrderRejected).reason == "closed"


def test_a_new_grid_cancels_what_is_off_it():
    rig = opened()
    rig.place(BUY, 5000, 500)
    rig.place(BUY, 4900, 500)
    heard = rig.see(InstrumentListed(binary(grid=FixedGrid(1000))))
    assert heard == [OrderCanceled("1-2", "tick_change")]


# Takers


def test_an_ioc_walks_the_visible_book_pays_the_fee_and_leaves_it_used_up():
    rig = opened()
    heard = rig.place(BUY, 5300, 15_000, tif=TimeInForce.IOC)
    assert filled(heard) == [(5200, 10_000), (5300, 5_000)]
    assert [fill.fee for fill in fills(heard)] == [
        values.fee(rig.instrument, price, qty, Liquidity.TAKER) for price, qty in filled(heard)
    ]
    again = rig.place(BUY, 5300, 20_000, tif=TimeInForce.IOC)
    assert filled(again) == [(5300, 15_000)]
    assert only(again, OrderCanceled).reason == "ioc"
    rig.delta(asks=[(5200, 10_001)])
    assert filled(rig.place(BUY, 5200, 500, tif=TimeInForce.IOC)) == [(5200, 500)]


def test_a_fok_takes_all_or_nothing():
    rig = opened()
    heard = rig.place(BUY, 5200, 10_500, tif=TimeInForce.FOK)
    assert fills(heard) == []
    assert only(heard, OrderCanceled).reason == "fok"
    assert filled(rig.place(BUY, 5200, 10_000, tif=TimeInForce.FOK)) == [(5200, 10_000)]


def test_a_gtd_order_expires():
    rig = opened()
    rig.place(BUY, 5000, 500, tif=TimeInForce.GTD, expires_ns=rig.now + NS_PER_S)
    assert rig.wait(1) == [OrderExpired("1-1")]


# Settlement, merges, payments


def test_a_failed_settlement_gives_everything_back():
    rig = opened(settle_fail_ppm=PPM)
    rig.place(BUY, 5200, 1_000, tif=TimeInForce.IOC)
    assert rig.exchange.holdings() == {("M", YES): 1_000}
    assert only(rig.wait(3600), FillFailed)
    assert rig.exchange.holdings() == {}
    assert rig.exchange.cash == 1_000 * CASH_PER_USD


def test_settlement_times_are_spread_around_their_median():
    rig = opened()
    for _ in range(60):
        rig.place(BUY, 4900, 500)
    rig.print(4800, 30_000)
    matched = rig.now
    rig.wait(4.9)
    early = sum(isinstance(event, FillSettled) for event in rig.heard)
    rig.until(matched + 3_600 * NS_PER_S)
    assert 15 < early < 45
    assert sum(isinstance(event, FillSettled) for event in rig.heard) == 60


def test_sets_merge_into_cash_after_settlement():
    rig = opened()
    rig.place(BUY, 5000, 1_000)
    rig.place(SELL, 5200, 1_000)
    rig.print(4900, 1_000)
    rig.print(5300, 1_000, BUY)
    rig.send(MergeSets("M", 1_000, "test"))
    assert only(rig.wait(0.25), MergeFailed).reason == "balance"
    rig.wait(3600)
    rig.send(MergeSets("M", 1_000, "test"))
    rig.send(MergeSets("M", 1_000, "test"))
    heard = rig.wait(3600)
    assert only(heard, SetsMerged).qty == 1_000
    assert only(heard, MergeFailed).reason == "balance"
    assert rig.exchange.holdings() == {}
    assert rig.exchange.cash == 1_000 * CASH_PER_USD + 200_000


def test_resolution_cancels_settles_and_pays():
    rig = opened()
    rig.place(BUY, 5000, 1_000)
    rig.print(4900, 1_000)
    rig.place(SELL, 5200, 1_000)
    rig.print(5300, 400, BUY)
    heard = rig.see(MarketResolved("M", PAYOUT))
    assert only(heard, OrderCanceled).reason == "resolved"
    assert sum(isinstance(event, FillSettled) for event in heard) == 2
    paid = [(event.leg, event.qty, event.amount) for event in heard if isinstance(event, CashMoved)]
    assert paid == [(YES, 1_000, 10 * CASH_PER_USD), (NO, 400, 0)]
    assert only(rig.place(BUY, 5000, 500), OrderRejected).reason == "closed"
    assert rig.exchange.cash == 1_000 * CASH_PER_USD - 5_000_000 - 1_920_000 + 10_000_000
    assert rig.wait(3600) == []


def test_maker_rebates_are_paid_at_midnight_from_a_dollar_on():
    for qty, paid in ((50_000, 500 * 2_500), (30_000, 0)):
        rig = Rig(start_cash=10_000 * CASH_PER_USD)
        rig.book({5000: 100}, {5100: 100})
        rig.place(BUY, 5000, qty)
        rig.print(4900, qty)
        heard = rig.wait(86_400)
        moved = [event.amount for event in heard if isinstance(event, CashMoved) and event.kind is CashKind.REBATE]
        assert moved == ([paid] if paid else [])
        assert rig.exchange.next_ns() is None


def test_rewards_are_sampled_once_a_minute_and_paid_at_midnight():
    rig = Rig(binary(reward=RewardRule(max_spread=300, min_qty=1_000, pool_per_day=60 * CASH_PER_USD)))
    rig.book({4900: 10_000}, {5100: 10_000})
    rig.place(BUY, 4900, 10_000)
    rig.place(SELL, 5100, 10_000)
    rig.wait(86_400)
    moved = only(rig.heard, CashMoved)
    half = 30 * CASH_PER_USD
    assert moved.kind is CashKind.REWARD
    assert abs(moved.amount - half) <= half // 1_000
    assert rig.exchange.cash == 1_000 * CASH_PER_USD + moved.amount


def test_a_reward_that_starts_later_is_sampled_for_what_already_rests():
    rig = opened()
    rig.place(BUY, 5000, 10_000)
    assert rig.exchange.next_ns() is None
    rig.see(InstrumentListed(RULED))
    assert rig.exchange.next_ns() is not None
    rig.wait(600)
    assert rig.exchange._state.purse.rewards["M"] > 0
    rig.send(CancelOrder("1-1", "M", "test"))
    rig.wait(2 * 86_400)
    assert rig.exchange.next_ns() is None, "nothing rests, nothing is sampled"


# Linear


def test_a_perp_goes_from_long_to_short_through_zero_and_pays_funding():
    rig = Rig(perp(), start_cash=100_000 * CASH_PER_USD)
    rig.book({6_800_000: 5_000}, {6_800_012: 5_000})
    rig.place(BUY, 6_800_012, 1_000, tif=TimeInForce.IOC)
    fee = fills(rig.heard)[0].fee
    assert fills(rig.heard)[0].settled
    assert rig.exchange.cash == 100_000 * CASH_PER_USD - fee
    rig.book({6_900_000: 5_000}, {6_900_012: 5_000})
    rig.place(SELL, 6_900_000, 3_000, tif=TimeInForce.IOC)
    fee += fills(rig.heard)[1].fee
    profit = (6_900_000 - 6_800_012) * 10_000
    assert rig.exchange.holdings() == {("BTC", Leg.NONE): -2_000}
    assert rig.exchange.cash == 100_000 * CASH_PER_USD - fee + profit
    rig.see(FundingReported("BTC", 100, rig.now + NS_PER_S))
    moved = only(rig.wait(1), CashMoved)
    assert (moved.kind, moved.amount) == (CashKind.FUNDING, 2 * 69_000_060_000 * 100 // PPM)


def test_a_perp_needs_margin_to_open_and_none_to_leave():
    rig = Rig(perp(), start_cash=20_000 * CASH_PER_USD)
    rig.book({6_800_000: 50_000}, {6_800_100: 50_000})
    assert only(rig.place(SELL, 6_800_000, 2_000, tif=TimeInForce.IOC), OrderRejected).reason == "balance"
    rig.place(SELL, 6_800_000, 1_400, tif=TimeInForce.IOC)
    assert only(rig.place(SELL, 6_800_000, 1_000, tif=TimeInForce.IOC), OrderRejected).reason == "balance"
    rig.place(BUY, 6_800_100, 1_400, tif=TimeInForce.IOC, reduce_only=True)
    assert rig.exchange.holdings() == {}
    assert only(rig.place(BUY, 6_800_100, 100, tif=TimeInForce.IOC, reduce_only=True), OrderRejected)


# Faults


def test_injected_faults():
    rig = opened(drop_ack_ppm=PPM)
    assert rig.place(BUY, 5000, 500) == []
    assert len(rig.exchange.resting()) == 1
    rig = opened(reject_ppm=PPM)
    assert only(rig.place(BUY, 5000, 500), OrderRejected).reason == "other"
    rig = opened(uncertain_ppm=PPM)
    for _ in range(40):
        assert [type(event) for event in rig.place(BUY, 5000, 500)] == [OrderUncertain]
    assert 8 < len(rig.exchange.resting()) < 32


# Seeded tapes


def tape(seed, steps=300):
    """A wandering book with prints before or after its changes, lost removals and jumps: (gap ns, event)."""
    dice = random.Random(seed)
    bid, made = 50, []
    bids, asks = {}, {}

    def rebuild():
        bids.clear()
        asks.clear()
        for depth in range(4):
            if bid - depth > 0:
                bids[(bid - depth) * 100] = dice.randint(1, 40) * 100
            if bid + 1 + depth < 100:
                asks[(bid + 1 + depth) * 100] = dice.randint(1, 40) * 100
        return BookSnapshot("M", tuple(bids.items()), tuple(asks.items()), 0)

    made.append((0, rebuild()))
    for _ in range(steps):
        gap = dice.choice((0, 50, 200, 700, 5_000)) * NS_PER_MS
        kind = dice.random()
        if kind < 0.35:
            side = dice.choice((BUY, SELL))
            price = max(bids, default=100) if side is SELL else min(asks, default=9_900)
            price += side * dice.choice((0, 0, 0, 100))
            made.append((gap, TradePrinted("M", min(max(price, 100), 9_900), dice.randint(1, 5_000), side, 0)))
        elif kind < 0.94:
            levels, is_bid = (bids, True) if dice.random() < 0.5 else (asks, False)
            price = dice.choice(sorted(levels)) if levels else (bid if is_bid else bid + 1) * 100
            levels[price] = dice.choice((0, dice.randint(1, 5_000)))
            changed = ((price, levels[price]),)
            if not levels[price]:
                del levels[price]
            told = (max(bids, default=0), min(asks, default=PAYOUT)) if dice.random() < 0.5 else (None, None)
            made.append((gap, BookDelta("M", changed if is_bid else (), () if is_bid else changed, *told, 0)))
        else:
            bid = min(max(bid + dice.choice((-2, -1, 1, 2)), 5), 94)
            made.append((gap, rebuild()))
    return made


def mirrored(event):
    """The same market seen from NO: price p becomes payout - p, sides and legs swap."""
    flip = PAYOUT.__sub__

    def levels(side):
        return tuple((flip(price), qty) for price, qty in side)

    match event:
        case BookSnapshot():
            return BookSnapshot("M", levels(event.asks), levels(event.bids), 0)
        case BookDelta(best_bid=bid, best_ask=ask):
            told = (None if ask is None else flip(ask), None if bid is None else flip(bid))
            return BookDelta("M", levels(event.asks), levels(event.bids), *told, 0)
        case TradePrinted():
            return TradePrinted("M", flip(event.price), event.qty, event.side.other, 0)
        case MarketResolved():
            return MarketResolved("M", flip(event.price))
        case PlaceOrder():
            leg = NO if event.leg is YES else YES
            return PlaceOrder(
                event.order_id, "M", event.side.other, leg, flip(event.price), event.qty, event.time_in_force,
                event.post_only, False, "test", event.expires_ns,
            )  # fmt: skip
    return event


def script(seed, steps=300):
    """A tape with a random trader's commands between: (gap ns, event or command)."""
    dice, made, ids, shown = random.Random(f"orders {seed}"), [], [], None
    for gap, event in tape(seed, steps):
        made.append((gap, event))
        shown = event if isinstance(event, BookSnapshot) else shown
        kind = dice.random()
        if kind < 0.25:
            ids.append(f"1-{len(ids)}")
            crossing = dice.random() < 0.2
            tif = dice.choice((TimeInForce.IOC, TimeInForce.FOK)) if crossing else TimeInForce.GTC
            side = dice.choice((BUY, SELL))
            near = [price for price, _ in (shown.bids if (side is BUY) is not crossing else shown.asks)[:2]]
            made.append((0, PlaceOrder(
                ids[-1], "M", side, dice.choice((YES, NO)), dice.choice([*near, near[0] + side * 100]),
                dice.randint(5, 30) * 100, tif, not crossing, False, "test")))  # fmt: skip
        elif kind < 0.35 and ids:
            made.append((0, CancelOrder(dice.choice(ids), "M", "test")))
        elif kind < 0.37:
            made.append((0, MergeSets("M", dice.randint(1, 9) * 100, "test")))
    made.append((0, MarketResolved("M", dice.choice((0, PAYOUT, PAYOUT // 2)))))
    return made


RULED = binary(reward=RewardRule(max_spread=300, min_qty=500, pool_per_day=2_000 * CASH_PER_USD))
STRICT = {"volume_cap_ratio": 0.5, "improve_share": 0.5, "settle_fail_ppm": 100_000, "min_payout": 1}


def play(steps, *, check=None, instrument=RULED, **changes):
    rig = Rig(instrument, **STRICT | changes)
    for gap, step in steps:
        rig.until(rig.now + gap)
        rig.until(rig.now)
        if hasattr(step, "reason") and hasattr(step, "instrument"):
            rig.send(step)
        else:
            rig.see(step)
        if check:
            check(rig)
    rig.until((rig.now // DAY + 2) * DAY)
    return rig


def rebuilt(rig):
    """Cash and holdings as the emitted events alone tell them."""
    cash, held, seen = rig.exchange.params.start_cash, {}, {}

    def move(leg, qty):
        held[("M", leg)] = held.get(("M", leg), 0) + qty

    for event in rig.heard:
        match event:
            case OrderFilled() | FillFailed():
                sign = 1 if isinstance(event, OrderFilled) else -1
                fill = seen.setdefault(event.fill_id, event)
                cash += sign * (values.cash_flow(RULED, fill.side, fill.leg, fill.price, fill.qty) - fill.fee)
                move(fill.leg, sign * values.leg_side(fill.side, fill.leg) * fill.qty)
            case SetsMerged(qty=qty, cost=cost):
                cash += values.to_cash_down(RULED, PAYOUT * qty) - cost
                move(YES, -qty)
                move(NO, -qty)
            case CashMoved(amount=amount, leg=leg, qty=qty):
                cash += amount
                move(leg, -qty)
    return cash, {key: qty for key, qty in held.items() if qty}


SEEDS = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_cash_and_shares_are_conserved(seed):
    def check(rig):
        assert rebuilt(rig) == (rig.exchange.cash, rig.exchange.holdings())
        assert all(qty > 0 for qty in rig.exchange.holdings().values()), "no token is sold that is not held"
        purse = rig.exchange._state.purse
        bought = [order for order in rig.exchange.resting() if (order.side is BUY) == (order.leg is YES)]
        need = sum(values.leg_price(RULED, order.price, order.leg) * order.remaining for order in bought)
        assert purse.reserved == need

    rig = play(script(seed, 120), check=check)
    assert rig.exchange.holdings() == {}
    assert rig.exchange._state.purse.reserved == rig.exchange._state.purse.incoming == 0


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(["pessimistic", "realistic", "optimistic"]))
def test_bands_are_ordered_and_no_print_is_used_twice(seed, band):
    wanted = {step.order_id: step.qty for _, step in script(seed) if isinstance(step, PlaceOrder)}
    done, budget = {}, [0, 0]

    def check(rig):
        new, budget[1] = fills(rig.heard[budget[0] :]), 0
        budget[0] = len(rig.heard)
        for fill in new:
            done[fill.order_id] = done.get(fill.order_id, 0) + fill.qty
        for bands in rig.exchange.band_fills()["orders"].values():
            low, real, high = (bands[name]["qty"] for name in ("pessimistic", "realistic", "optimistic"))
            assert low <= real <= high

    rig = play(script(seed), check=check, band=band)
    assert all(qty <= wanted[order_id] for order_id, qty in done.items())
    told = rig.exchange.band_fills()["orders"]
    assert {order_id: told[order_id][band]["qty"] for order_id in done} == done


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_fills_of_one_print_fit_into_it(seed):
    rig = Rig(RULED, **STRICT)
    for gap, step in script(seed):
        rig.until(rig.now + gap)
        if isinstance(step, TradePrinted):
            assert sum(fill.qty for fill in fills(rig.see(step))) <= step.qty
        elif hasattr(step, "reason") and hasattr(step, "instrument"):
            rig.send(step)
        else:
            rig.see(step)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_mirrored_tape_gives_the_same_cash_and_the_opposite_position(seed):
    steps = script(seed)
    straight = play(steps[:-1])
    mirror = play([(gap, mirrored(step)) for gap, step in steps[:-1]])
    swap = {YES: NO, NO: YES}
    assert mirror.exchange.cash == straight.exchange.cash
    assert mirror.exchange.holdings() == {(market, swap[leg]): qty for (market, leg), qty in straight.exchange.holdings().items()}
    assert [type(event) for event in mirror.heard] == [type(event) for event in straight.heard]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 300))
def test_a_restart_in_the_middle_changes_nothing(seed, cut):
    steps = script(seed)
    whole = play(steps)

    def check(rig):
        check.left -= 1
        if check.left == 0:
            saved = rig.exchange.checkpoint()
            rig.exchange = Exchange(rig.exchange.params)
            rig.exchange.restore(saved)
            assert rig.exchange.checkpoint() == saved

    check.left = cut + 1
    broken = play(steps, check=check)
    assert broken.heard == whole.heard
    assert broken.exchange.checkpoint() == whole.exchange.checkpoint()


def test_scripts_reach_what_they_are_meant_to_test():
    kinds, bands = {}, [0, 0, 0]
    for seed in range(30):
        rig = play(script(seed))
        for event in rig.heard:
            name = getattr(event, "reason", "") if isinstance(event, OrderRejected) else type(event).__name__
            kinds[name] = kinds.get(name, 0) + 1
        total = rig.exchange.band_fills()["total"]
        bands = [have + total[name]["qty"] for have, name in zip(bands, total, strict=True)]
    for name in ("OrderFilled", "FillFailed", "SetsMerged", "CashMoved", "OrderCanceled", "post_only", "balance"):
        assert kinds.get(name, 0) > 5, kinds
    assert bands[0] < bands[1] < bands[2]


def test_less_latency_fills_no_less_on_average():
    slow = quick = 0
    for seed in range(40):
        steps = [step for step in script(seed) if not isinstance(step[1], MergeSets)]
        slow += play(steps).exchange.band_fills()["total"]["realistic"]["qty"]
        quick += play(steps, entry_ns=0, cancel_ns=0).exchange.band_fills()["total"]["realistic"]["qty"]
    assert quick >= slow * 0.95


def null_market(seed, edge_ticks):
    """Takers move a martingale mid their way by `edge_ticks`; a viewless quoter's P&L at mid, and what it traded."""
    dice = random.Random(seed)
    rig = Rig(binary(fee=FeeRule()), seed=seed, volume_cap_ratio=1.0, confirm_sigma=0.0)
    mid = 5_000

    def show():
        rig.book({mid - 100 * step: 20_000 for step in (1, 2, 3)}, {mid + 100 * step: 20_000 for step in (1, 2, 3)})

    show()
    for _ in range(60):
        rig.place(BUY, mid - 100, 1_000)
        rig.place(SELL, mid + 100, 1_000)
        side = dice.choice((BUY, SELL))
        rig.print(mid + side * 200, 3_000, side)
        mid = min(max(mid + side * edge_ticks * 100, 1_000), 9_000)
        for order in rig.exchange.resting():
            rig.send(CancelOrder(order.order_id, "M", "test"))
        rig.wait(0.25)
        show()
        rig.wait(60)
    held = rig.exchange.holdings()
    worth = held.get(("M", YES), 0) * mid + held.get(("M", NO), 0) * (PAYOUT - mid)
    return rig.exchange.cash + worth - rig.exchange.params.start_cash, sum(fill.qty for fill in fills(rig.heard))


def test_a_quoter_without_a_view_earns_the_spread_less_what_takers_know():
    for edge_ticks in (0, 1, 2):
        pnl, traded = map(sum, zip(*(null_market(seed, edge_ticks) for seed in range(6)), strict=True))
        assert traded > 0
        ticks = pnl / traded / 100
        assert abs(ticks - (1 - edge_ticks)) < 0.35, (edge_ticks, ticks)


def test_a_random_taker_loses_the_half_spread_and_the_fee():
    dice, rig = random.Random(5), Rig(start_cash=10_000 * CASH_PER_USD)
    cost = 0
    for _ in range(100):
        rig.book({4900: 20_000}, {5100: 20_000})
        side = dice.choice((BUY, SELL))
        fill = only(rig.place(side, 5100 if side is BUY else 4900, 1_000, tif=TimeInForce.IOC), OrderFilled)
        cost += 100 * fill.qty + fill.fee
        rig.book({}, {})
    worth = sum(rig.exchange.holdings().values()) * 5_000
    assert rig.exchange.cash + worth == 10_000 * CASH_PER_USD - cost
