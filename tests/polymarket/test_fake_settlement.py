"""The inside of the fake venue: what trades move and tell, pairs and payouts, and money kept whatever is done."""

from __future__ import annotations

import random
from collections import Counter
from decimal import ROUND_FLOOR, Decimal

import pytest

from tests.fakes.polymarket.stage import CID, NO, START_MS, YES, Follower, Stage, a_market

D = Decimal
BALANCE = "not enough balance / allowance"


# What the user is told of a trade.


def test_the_top_level_of_a_trade_is_the_taker_and_one_trade_holds_several_of_ones_orders():
    stage = Stage()
    maker, taker = stage.account("m", no="30"), stage.account("t")
    mine = [stage.place(maker, "BUY", YES, "0.52", "6").order_id, stage.place(maker, "SELL", NO, "0.48", "7").order_id]
    stage.house.take_messages()
    placed = stage.place(taker, "BUY", NO, "0.55", "20")
    stage.wait(10)
    told = [each for each in stage.user(maker) if each["event_type"] == "trade"]
    assert [each["status"] for each in told] == ["MATCHED", "MINED", "CONFIRMED"]
    assert {each["id"] for each in told} == set(placed.trade_ids) and len(placed.trade_ids) == 1
    first = told[0]
    top = (first["asset_id"], first["side"], first["price"], first["size"], first["trader_side"], first["owner"])
    assert top == (NO, "BUY", "0.48", "13", "MAKER", taker.api_key) and "transaction_hash" not in first
    entries = {
        each["order_id"]: (each["asset_id"], each["side"], each["price"], each["matched_amount"], each["owner"])
        for each in first["maker_orders"]
    }
    assert entries == {
        mine[0]: (YES, "BUY", "0.52", "6", maker.api_key),
        mine[1]: (NO, "SELL", "0.48", "7", maker.api_key),
    }
    (row,) = stage.house.trades(maker)
    assert row["status"] == "TRADE_STATUS_CONFIRMED" and row["transaction_hash"] == told[-1]["transaction_hash"] != ""
    assert stage.house.trades(maker, after_s=START_MS // 1000) == []
    assert len(stage.house.trades(maker, after_s=START_MS // 1000 - 1)) == 1
    assert stage.house.truth(maker)["final_cash"] == maker.cash == 1000 - D("0.52") * 6 + D("0.48") * 7


def test_ones_own_orders_meet_and_the_trade_is_told_once():
    stage = Stage()
    account = stage.account("a")
    resting = stage.place(account, "BUY", NO, "0.5", "10").order_id
    stage.house.take_messages()
    stage.place(account, "BUY", YES, "0.5", "10")
    (trade,) = (each for each in stage.user(account) if each["event_type"] == "trade")
    assert trade["trader_side"] == "TAKER" and [each["order_id"] for each in trade["maker_orders"]] == [resting]
    stage.wait(10)
    assert (account.cash, account.shares) == (990, {YES: 10, NO: 10})
    stage.house.check()


# Settlement and fees.


def test_shares_can_be_sold_once_their_trade_is_confirmed():
    stage = Stage()
    maker, buyer = stage.account("m", yes="10"), stage.account("b")
    stage.place(maker, "SELL", YES, "0.5", "10")
    stage.place(buyer, "BUY", YES, "0.5", "10")
    assert (buyer.cash, buyer.holds(YES)) == (1000, 0), "nothing has moved at MATCHED"
    stage.wait(1)
    assert (buyer.cash, buyer.holds(YES)) == (995, 10), "MINED"
    assert BALANCE in stage.place(buyer, "SELL", YES, "0.6", "10").error
    assert stage.house.merge(buyer, CID, D(1), stage.now) == "not enough balance"
    stage.wait(1)
    assert stage.place(buyer, "SELL", YES, "0.6", "10").success


@pytest.mark.parametrize("seed", range(12))
def test_a_failed_trade_gives_everything_back_and_a_retried_one_arrives(seed):
    outcome = Counter()
    for shares in ({"fail_share": 1.0}, {"retry_share": 1.0}):
        stage = Stage(seed, **shares)
        maker, buyer = stage.account("m", yes="10"), stage.account("b")
        stage.place(maker, "SELL", YES, "0.5", "10")
        placed = stage.place(buyer, "BUY", YES, "0.5", "10")
        seen = []
        for _ in range(100):
            stage.wait(0.1)
            stage.house.check()
            seen += [each["status"] for each in stage.user(buyer) if each["event_type"] == "trade"]
        outcome[seen[-1]] += 1
        truth = stage.house.truth(buyer)
        kept = seen[-1] == "CONFIRMED"
        assert (buyer.cash, buyer.holds(YES), maker.cash) == ((995, 10, 1005) if kept else (1000, 0, 1000))
        assert truth["final_cash"] == buyer.cash and truth["settled"] == placed.trade_ids and truth["unsettled"] == []
        assert stage.house.order(buyer, placed.order_id)["status"] == "MATCHED"
        assert seen.count("CONFIRMED") + seen.count("FAILED") == 1 and (not kept or "RETRYING" in seen)
    assert outcome == {"FAILED": 1, "CONFIRMED": 1}


def test_the_taker_alone_pays_the_fee_in_cash_half_up_at_five_decimals():
    stage = Stage(markets=[a_market(fee_rate=D("0.05"))])
    maker, buyer, seller = stage.account("m", "100", yes="50"), stage.account("b", "5"), stage.account("s", "0", yes="10")
    stage.place(maker, "SELL", YES, "0.53", "9.37")
    stage.place(maker, "BUY", YES, "0.5", "10")
    assert BALANCE in stage.place(buyer, "BUY", YES, "0.53", "9.37").error, "4.9661 and the fee are more than 5"
    stage.house.grant(buyer, None, D(1))
    stage.place(buyer, "BUY", YES, "0.53", "9.37")
    stage.place(seller, "SELL", YES, "0.5", "10")
    stage.wait(10)
    # 9.37 x 0.05 x 0.53 x 0.47 = 0.116703...; 10 x 0.05 x 0.25 = 0.125
    assert buyer.cash == 6 - D("4.9661") - D("0.11670")
    assert seller.cash == 5 - D("0.125")
    assert maker.cash == 100 + D("4.9661") - 5
    assert stage.house.vault.fees == D("0.2417") and stage.house.truth(buyer)["fees"] == D("0.11670")
    stage.house.check()


# Pairs, payouts, the market's own events.


def test_pairs_are_made_unmade_and_uncovered_orders_are_cancelled():
    stage = Stage()
    account = stage.account("a", "10")
    assert stage.house.split(account, CID, D(11), stage.now) == "not enough balance"
    assert stage.house.split(account, CID, D(10), stage.now) == ""
    assert (account.cash, account.shares) == (0, {YES: 10, NO: 10})
    order = stage.place(account, "SELL", YES, "0.7", "8").order_id
    assert stage.house.merge(account, CID, D(4), stage.now) == ""
    assert stage.house.order(account, order)["status"] == "CANCELED_NOT_ENOUGH_BALANCE"
    assert (account.cash, account.shares) == (4, {YES: 6, NO: 6})
    assert stage.house.redeem(account, CID, stage.now) == "condition is not resolved"
    stage.house.check()


def test_a_closing_market_cancels_and_a_resolved_one_pays_settled_shares():
    stage = Stage()
    account, other = stage.account("a", yes="10", no="4"), stage.account("o", yes="20")
    resting = stage.place(account, "BUY", YES, "0.3", "10").order_id
    stage.place(other, "SELL", YES, "0.5", "5")
    stage.place(account, "BUY", YES, "0.5", "5")
    stage.house.take_messages()
    stage.house.resolve(CID, "yes", stage.now)
    messages = stage.house.take_messages()
    assert [message.payload["status"] for message in messages if message.channel == "user"] == ["INVALID"]
    assert messages[-1].payload["winning_asset_id"] == YES and messages[-1].payload["event_type"] == "market_resolved"
    assert stage.house.book(YES, stage.now) is None and stage.house.order(account, resting)["status"] == "INVALID"
    assert "No orderbook" in stage.place(account, "BUY", YES, "0.3", "10").error
    assert stage.house.redeem(account, CID, stage.now) == ""
    assert (account.cash, account.shares) == (1010, {YES: 0, NO: 0})
    stage.wait(1)
    assert stage.house.redeem(account, CID, stage.now) == ""
    assert account.holds(YES) == 5, "what is not confirmed is not redeemed"
    stage.wait(1)
    assert stage.house.redeem(account, CID, stage.now) == ""
    assert account.cash == 1010 - D("2.5") + 5
    stage.house.check()


def test_a_coarser_tick_cancels_what_is_off_it_and_tells_both_tokens():
    stage = Stage(markets=[a_market(tick=D("0.001"))])
    account = stage.account("a")
    on, off = (stage.place(account, "BUY", YES, price, "10").order_id for price in ("0.45", "0.451"))
    stage.house.take_messages()
    stage.house.change_tick(CID, D("0.01"), stage.now)
    messages = stage.house.take_messages()
    ticks = [message.payload for message in messages if message.payload["event_type"] == "tick_size_change"]
    assert [(each["asset_id"], each["old_tick_size"], each["new_tick_size"]) for each in ticks] == [
        (YES, "0.001", "0.01"), (NO, "0.001", "0.01"),
    ]  # fmt: skip
    assert [stage.house.order(account, each)["status"] for each in (on, off)] == ["LIVE", "INVALID"]
    assert "tick size rule: 0.01" in stage.place(account, "BUY", YES, "0.451", "100").error
    stage.house.check()


def test_a_market_that_does_not_accept_says_so():
    stage = Stage()
    account = stage.account("a")
    stage.markets[0].accepting = False
    assert stage.place(account, "BUY", YES, "0.45", "10").error == "the market is not yet ready to process new orders"


# Everything at once.


def some_operation(stage: Stage, dice: random.Random) -> None:
    house, account = stage.house, dice.choice(list(stage.house.accounts.values()))
    market = dice.choice(stage.markets)
    token, side = dice.choice(market.tokens), dice.choice(("BUY", "SELL"))
    match dice.choices(
        ("place", "cancel", "wait", "crowd", "merge", "split", "all", "grant", "tick"), (50, 12, 20, 20, 4, 4, 1, 1, 0.3)
    )[0]:
        case "place":
            price = (D(dice.randint(2000, 8000)) * D("0.0001") / market.tick).to_integral_value(ROUND_FLOOR) * market.tick
            kind = dice.choice(("GTC", "GTC", "GTD", "FAK", "FOK"))
            size, other = D(dice.randint(400, 6000)) / 100, {}
            if side == "BUY" and kind in ("FAK", "FOK"):
                cash = D(dice.randint(100, 3000)) / 100
                shares = (cash / price).quantize(D("0.0001"), ROUND_FLOOR)
                other = {"maker_amount": int(cash * 10**6), "taker_amount": int(shares * 10**6)}
            if kind == "GTD":
                other = {"expiration": stage.now // 1000 + dice.randint(170, 400)}
            other["post_only"] = dice.random() < 0.2
            stage.place(account, side, token, str(price), str(size), kind, **other)
        case "cancel":
            house.cancel(account, [row["id"] for row in house.open_orders(account) if dice.random() < 0.3], stage.now)
        case "wait":
            stage.wait(dice.choice((0.05, 0.5, 3, 30)))
        case "crowd":
            house.crowd_step(stage.now)
        case "merge":
            house.merge(account, market.condition_id, D(dice.randint(1, 2000)) / 100, stage.now)
        case "split":
            house.split(account, market.condition_id, D(dice.randint(1, 2000)) / 100, stage.now)
        case "all":
            house.cancel_all(account, stage.now, market=dice.choice((None, market.condition_id)))
        case "grant":
            house.grant(account, dice.choice((None, token)), D(dice.randint(1, 50)))
        case "tick":
            house.change_tick(market.condition_id, dice.choice((D("0.01"), D("0.001"), D("0.0025"))), stage.now)


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_operations_make_and_lose_no_money(seed):
    dice = random.Random(seed)
    markets = [a_market(1, fee_rate=D("0.05")), a_market(2, tick=D("0.001")), a_market(3, seconds_delay=2, fee_rate=D("0.07"))]
    stage = Stage(seed, markets, settle_s=(0.2, 8.0), fail_share=0.1, retry_share=0.2)
    for name in "abc":
        stage.account(name, "300", yes="50", no="30")
    follower = Follower()
    for _ in range(1000):
        some_operation(stage, dice)
        stage.house.check()
        for message in stage.house.take_messages():
            follower.hear(message)
        for token in markets[0].tokens + markets[1].tokens:
            follower.agrees(stage.house.book(token, stage.now))
    trades = stage.house.clearing.trades.values()
    assert len(trades) > 100 and {trade.status for trade in trades} >= {"CONFIRMED", "FAILED"}
    truths = {name: stage.house.truth(account) for name, account in stage.house.accounts.items()}
    sure = all("FAILED" not in trade.ahead for trade in trades)
    for market in markets:
        stage.house.resolve(market.condition_id, dice.choice(("yes", "no")), stage.now)
    stage.wait(200)
    for name, account in stage.house.accounts.items():
        truth = stage.house.truth(account)
        assert truth["unsettled"] == [] and truth["final_cash"] == truth["cash"] == account.cash
        assert not sure or truth["cash"] == truths[name]["final_cash"]
        for market in markets:
            assert stage.house.redeem(account, market.condition_id, stage.now) == ""
        assert not any(account.shares.values())
    stage.house.check()


def test_the_truth_is_the_sum_of_the_fills():
    stage = Stage(5, [a_market(fee_rate=D("0.04"))], fail_share=0.2)
    account, other = stage.account("a", yes="100", no="100"), stage.account("o", yes="200", no="200")
    dice = random.Random(5)
    for _ in range(150):
        stage.place(
            dice.choice((account, other)), dice.choice(("BUY", "SELL")), dice.choice((YES, NO)), f"0.{dice.randint(45, 55)}", "7.31"
        )
        stage.wait(0.3)
    stage.wait(60)
    cash, shares = D(1000), {YES: D(100), NO: D(100)}
    fills = stage.house.truth(account)["fills"]
    for fill in fills:
        if fill["status"] == "CONFIRMED":
            sign = 1 if fill["side"] == "BUY" else -1
            shares[fill["token"]] += sign * fill["size"]
            cash -= sign * fill["price"] * fill["size"] + fill["fee"]
    assert (cash, shares) == (account.cash, account.shares) and len(fills) > 20
    assert {fill["status"] for fill in fills} == {"CONFIRMED", "FAILED"} and {fill["role"] for fill in fills} == {"MAKER", "TAKER"}
