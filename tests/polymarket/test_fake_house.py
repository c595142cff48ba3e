"""The inside of the fake venue: who meets whom, which orders it takes, and in which words it refuses."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.fakes.polymarket.stage import NO, START_MS, YES, Stage, a_market

D = Decimal
BALANCE = "not enough balance / allowance"


# Matching.


def test_each_kind_of_match_moves_exact_cash_and_shares_at_the_makers_price():
    direct, mint, merge = Stage(), Stage(), Stage()
    for stage, maker, taker, moved in (
        # (maker's side, token, price), (taker's), {who: (cash, yes, no)}
        (direct, ("SELL", YES, "0.53"), ("BUY", YES, "0.55"), {"m": ("1005.3", 90, 100), "t": ("994.7", 110, 100)}),
        (mint, ("BUY", NO, "0.47"), ("BUY", YES, "0.55"), {"m": ("995.3", 100, 110), "t": ("994.7", 110, 100)}),
        (merge, ("SELL", NO, "0.47"), ("SELL", YES, "0.50"), {"m": ("1004.7", 100, 90), "t": ("1005.3", 90, 100)}),
    ):
        accounts = {name: stage.account(name, yes="100", no="100") for name in "mt"}
        assert stage.place(accounts["m"], *maker, "10", post_only=True).status == "live"
        placed = stage.place(accounts["t"], *taker, "10")
        cash = "5.3"
        assert (placed.status, placed.making, placed.taking) == ("matched", *((cash, "10") if taker[0] == "BUY" else ("10", cash)))
        stage.wait(10)
        for name, (cash, yes, no) in moved.items():
            account = accounts[name]
            assert (account.cash, account.shares[YES], account.shares[NO]) == (D(cash), yes, no), name
        stage.house.check()


def test_price_goes_before_time_and_time_before_size():
    stage = Stage()
    maker, taker = stage.account("m", yes="100"), stage.account("t")
    late_good = [("0.56", "5"), ("0.55", "7"), ("0.55", "40"), ("0.54", "6")]
    ids = [stage.place(maker, "SELL", YES, price, size).order_id for price, size in late_good]
    stage.place(taker, "BUY", YES, "0.55", "20")
    matched = [stage.house.order(maker, each)["size_matched"] for each in ids]
    assert matched == ["0", "7", "7", "6"]
    fills = stage.house.truth(taker)["fills"]
    assert [(fill["price"], fill["size"]) for fill in fills] == [(D("0.54"), 6), (D("0.55"), 14)]


def test_one_book_is_shown_twice_mirrored_with_the_touch_last():
    stage = Stage()
    account = stage.account("a", yes="100", no="100")
    for order in (("BUY", YES, "0.45", "10"), ("SELL", NO, "0.55", "5"), ("BUY", NO, "0.48", "8"), ("SELL", YES, "0.6", "9.5")):
        stage.place(account, *order)
    yes, no = stage.house.book(YES, stage.now), stage.house.book(NO, stage.now)
    assert yes["bids"] == [{"price": "0.45", "size": "15"}]
    assert yes["asks"] == [{"price": "0.6", "size": "9.5"}, {"price": "0.52", "size": "8"}]
    assert no["bids"] == [{"price": "0.4", "size": "9.5"}, {"price": "0.48", "size": "8"}]
    assert no["asks"] == [{"price": "0.55", "size": "15"}]
    assert yes["tick_size"] == "0.01" and yes["min_order_size"] == "5" and yes["timestamp"] == str(stage.now)
    assert stage.house.book("1", stage.now) is None


# Admission.


@pytest.mark.parametrize(
    ("order", "other", "error"),
    [
        (("BUY", "123", "0.5", "10"), {}, "No orderbook exists for the requested token id"),
        (("BUY", YES, "0.505", "10"), {"maker_amount": 5_050_000}, "breaks minimum tick size rule: 0.01"),
        (("BUY", YES, "0.999", "1000"), {}, "breaks minimum tick size rule: 0.01"),
        (("BUY", YES, "1", "10"), {}, "invalid price (1), min: 0.01 - max: 0.99"),
        (("BUY", YES, "0.5", "4.99"), {}, "Size (4.99) lower than the minimum: 5"),
        (("BUY", YES, "0.53", "10.129"), {"maker_amount": 5_368_370}, "max accuracy of 4 decimals, taker amount a max of 2"),
        (("SELL", YES, "0.22", "19.69"), {"taker_amount": 4_330_000}, "order of size 19.69 should be '4.3318'"),
        (("BUY", YES, "0.53", "10.13", "FAK"), {}, "the market buy orders maker amount supports a max accuracy of 2 decimals"),
        (("BUY", YES, "0.1", "5"), {}, "invalid amount for a marketable BUY order ($0.5), min size: $1"),
        (("BUY", YES, "0.5", "2000.02"), {}, f"{BALANCE}: the balance is not enough -> balance: 1000000000, sum"),
        (("SELL", NO, "0.5", "10"), {}, BALANCE),
        (("BUY", YES, "0.10", "10"), {"post_only": True}, "invalid post-only order: order crosses book"),
        (("BUY", NO, "0.99", "10"), {"post_only": True}, "invalid post-only order: order crosses book"),
        (("BUY", YES, "0.5", "10", "FOK"), {"post_only": True}, "invalid post-only order"),
        (("BUY", YES, "0.05", "10", "GTD"), {"expiration": START_MS // 1000 + 179}, "invalid expiration"),
        (("BUY", YES, "0.05", "10", "GTD"), {}, "invalid expiration"),
        (("BUY", YES, "0.05", "10"), {"expiration": START_MS // 1000 + 600}, "invalid expiration"),
        (("BUY", YES, "0.1", "100", "FOK"), {}, "FOK orders are fully filled or killed"),
        (("BUY", YES, "0.04", "100", "FAK"), {}, "no orders found to match with FAK order"),
        (("BUY", YES, "0.05", "10"), {"signer": "0x1"}, "the order signer address has to be the address of the API KEY"),
        (("BUY", YES, "0.05", "10"), {"signature_type": 3}, "maker address not allowed, please use the deposit wallet flow"),
        (("BUY", YES, "0.05", "10"), {"taker_amount": 0}, "invalid amounts"),
    ],
)  # fmt: skip
def test_what_is_not_in_order_is_refused_in_the_venues_words_and_leaves_nothing(order, other, error):
    stage = Stage()
    other_side, account = stage.account("o", yes="50", no="50"), stage.account("a", yes="100")
    stage.place(other_side, "SELL", YES, "0.1", "20")
    stage.place(other_side, "SELL", NO, "0.95", "20")  # a bid for YES at 0.05
    placed = stage.place(account, *order, **other)
    assert not placed.success and error in placed.error and placed.order_id == ""
    assert stage.house.available(account, None) == 1000 and stage.house.open_orders(account) == []
    stage.house.check()


def test_sizes_and_prices_of_the_reference_are_taken():
    fine = Stage(markets=[a_market(tick=D("0.0025"))])
    account = fine.account("a", yes="100")
    assert fine.place(account, "SELL", YES, "0.0025", "7").status == "live"
    milli = Stage(markets=[a_market(tick=D("0.001"))])
    account = milli.account("a", yes="100")
    assert milli.place(account, "SELL", YES, "0.513", "5.55").status == "live"
    for price in ("0.5131", "0.9995"):
        assert "tick size rule" in milli.place(account, "SELL", YES, price, "100").error


def test_a_market_buy_cut_to_cents_has_the_price_it_was_meant_to_have():
    stage = Stage()
    maker, taker = stage.account("m", yes="100"), stage.account("t")
    stage.place(maker, "SELL", YES, "0.53", "60")
    short = stage.place(taker, "BUY", YES, "0.53", "18.87", "FAK", maker_amount=10_000_000)
    assert "no orders found" in short.error, "10 / 18.87 is a hair below 0.53"
    assert "tick size rule" in stage.place(taker, "BUY", YES, "0.53", "100", "FAK", maker_amount=53_500_000).error
    placed = stage.place(taker, "BUY", YES, "0.53", "0", "FAK", maker_amount=10_000_000, taker_amount=18_867_900)
    assert (placed.making, placed.taking) == ("9.999987", "18.8679")
    over = stage.place(taker, "BUY", YES, "0.53", "0", "FOK", maker_amount=5_370_000, taker_amount=10_130_000)
    assert (over.making, over.taking) == ("5.3689", "10.13")
    stage.wait(10)
    assert taker.cash == D("1000") - D("9.999987") - D("5.3689")
    stage.house.check()


def test_open_orders_and_matched_ones_reserve_what_they_need():
    stage = Stage()
    account, other = stage.account("a", "10", yes="20"), stage.account("o", yes="20")
    assert stage.place(account, "BUY", YES, "0.5", "12").success
    assert BALANCE in stage.place(account, "BUY", NO, "0.3", "14").error
    assert stage.place(account, "BUY", NO, "0.3", "13").success
    assert stage.place(account, "SELL", YES, "0.8", "15").success
    assert BALANCE in stage.place(account, "SELL", YES, "0.9", "6").error
    stage.place(other, "SELL", YES, "0.5", "12")
    error = stage.place(account, "BUY", YES, "0.4", "5").error
    assert "sum of active orders: 3900000, sum of matched orders: 6000000, order amount: 2000000" in error
    account.allowance = False
    assert "allowance is not enough" in stage.place(account, "BUY", YES, "0.01", "5").error
    assert stage.house.balance(account, None)["balance"] == "10000000"
    assert set(stage.house.balance(account, YES)["allowances"].values()) == {"0"}


def test_the_same_signed_order_is_taken_once():
    stage = Stage()
    account = stage.account("a")
    fields = stage.fields(account, "BUY", YES, "0.4", "10")
    assert stage.house.submit(account, fields, stage.now).success
    assert stage.house.submit(account, fields, stage.now).error == "Duplicated."
    stage.house.cancel_all(account, stage.now)
    assert stage.house.submit(account, fields, stage.now).error == "Duplicated."


def test_who_may_only_close_may_not_buy_and_who_is_banned_may_nothing():
    stage = Stage()
    account = stage.account("a", yes="20")
    account.closed_only = True
    assert "in closed only mode" in stage.place(account, "BUY", YES, "0.4", "10").error
    assert stage.place(account, "SELL", YES, "0.4", "10").success
    account.banned = True
    assert "banned" in stage.place(account, "SELL", YES, "0.4", "10").error


def test_fok_is_whole_or_nothing_and_fak_drops_the_rest():
    stage = Stage()
    maker, taker = stage.account("m", yes="30"), stage.account("t")
    stage.place(maker, "SELL", YES, "0.5", "20")
    stage.user(taker)
    assert "FOK" in stage.place(taker, "BUY", YES, "0.5", "20.02", "FOK").error
    (killed,) = stage.user(taker)
    assert killed["status"].startswith("CANCELED_order couldn't be fully filled") and killed["type"] == "CANCELLATION"
    assert stage.place(taker, "BUY", YES, "0.5", "8", "FOK").status == "matched"
    stage.user(taker)
    placed = stage.place(taker, "BUY", YES, "0.5", "20", "FAK")
    assert (placed.status, placed.taking) == ("matched", "12")
    told = [(each["event_type"], each.get("type"), each["status"]) for each in stage.user(taker)]
    assert told == [
        ("order", "PLACEMENT", "LIVE"), ("order", "UPDATE", "CANCELED"),
        ("trade", "TRADE", "MATCHED"), ("order", "CANCELLATION", "CANCELED"),
    ]  # fmt: skip
    assert stage.house.order(taker, placed.order_id)["size_matched"] == "12"
    assert stage.house.open_orders(taker) == [] and stage.house.book(YES, stage.now)["asks"] == []


def test_gtd_ends_a_minute_early():
    stage = Stage()
    account = stage.account("a")
    placed = stage.place(account, "BUY", YES, "0.4", "10", "GTD", expiration=stage.now // 1000 + 180)
    stage.wait(119.9)
    assert stage.house.order(account, placed.order_id)["status"] == "LIVE"
    stage.wait(0.1)
    assert stage.house.order(account, placed.order_id)["status"] == "CANCELED_EXPIRED_ORDER"
    assert stage.user(account)[-1]["type"] == "CANCELLATION" and stage.house.book(YES, stage.now)["bids"] == []


def test_a_taker_is_held_for_the_markets_delay_and_cannot_be_cancelled():
    stage = Stage(markets=[a_market(seconds_delay=3)])
    maker, taker = stage.account("m", yes="20"), stage.account("t", "5.5")
    resting = stage.place(maker, "SELL", YES, "0.5", "10")
    placed = stage.place(taker, "BUY", YES, "0.55", "10")
    assert (placed.status, placed.trade_ids) == ("delayed", [])
    assert stage.house.cancel(taker, [placed.order_id], stage.now)[1] == {placed.order_id: "order is delayed and can't be canceled"}
    assert BALANCE in stage.place(taker, "BUY", YES, "0.4", "5").error
    assert stage.house.cancel(maker, [resting.order_id], stage.now)[0] == [resting.order_id]
    stage.user(taker)
    stage.wait(3)
    assert [each["status"] for each in stage.user(taker)] == ["UNMATCHED"]
    assert stage.house.book(YES, stage.now)["bids"] == [{"price": "0.55", "size": "10"}]
    assert [row["status"] for row in stage.house.open_orders(taker)] == ["LIVE"]
    matched = stage.place(maker, "SELL", YES, "0.4", "10")
    assert matched.status == "delayed"
    stage.wait(3)
    assert stage.house.order(maker, matched.order_id)["status"] == "MATCHED"
    stage.house.check()


# Cancels.


def test_a_cancel_says_which_and_why_not():
    stage = Stage()
    account, other = stage.account("a", yes="20"), stage.account("o")
    kept, filled, foreign = (
        stage.place(account, "BUY", YES, "0.4", "10").order_id,
        stage.place(account, "SELL", YES, "0.6", "10").order_id,
        stage.place(other, "BUY", YES, "0.6", "10").order_id,
    )
    gone = stage.house.cancel(account, [kept, kept, filled, foreign, "0xno"], stage.now)
    assert gone == (
        [kept],
        {filled: "already canceled or matched", foreign: "order can't be found", "0xno": "order can't be found"},
    )
    assert stage.house.cancel(account, [kept], stage.now) == ([], {kept: "already canceled or matched"})
    told = stage.user(account)[-1]
    assert (told["type"], told["status"], told["size_matched"]) == ("CANCELLATION", "CANCELED", "0")


def test_cancel_all_may_be_of_one_market_or_one_token():
    stage = Stage(markets=[a_market(1), a_market(2)])
    account = stage.account("a", yes="10")
    other = stage.markets[1]
    ids = [stage.place(account, "BUY", token, "0.1", "10").order_id for token in (YES, NO, other.yes, other.no)]
    assert stage.house.cancel_all(account, stage.now, asset=NO)[0] == [ids[1]]
    assert stage.house.cancel_all(account, stage.now, market=other.condition_id)[0] == ids[2:]
    assert stage.house.cancel_all(account, stage.now)[0] == [ids[0]]
