"""The fake venue's other traders: prices in range, fills of every kind for whoever quotes, messages that the SDK can read."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from tests.fakes.polymarket.house import FakeAccount
from tests.fakes.polymarket.matching import how
from tests.fakes.polymarket.stage import NO, YES, Follower, Stage, a_market

D = Decimal
MINUTES = 6


class Quoter:
    """20 shares at the touch on both sides without inventory: BUY YES and BUY NO, moved when the touch moves."""

    def __init__(self, stage: Stage, account: FakeAccount) -> None:
        self.stage, self.account = stage, account
        self.quotes: dict[str, tuple[str, Decimal]] = {}

    def quote(self) -> None:
        for market in self.stage.markets:
            bid, ask = self.stage.house.top(market.condition_id)
            assert bid is not None and ask is not None, "the crowd left a side empty"
            for token, price in ((market.yes, bid), (market.no, 1 - ask)):
                resting, at = self.quotes.pop(token, ("", D(0)))
                row = self.stage.house.order(self.account, resting)
                if row is not None and row["status"] == "LIVE":
                    if at == price:
                        self.quotes[token] = resting, at
                        continue
                    self.stage.house.cancel(self.account, [resting], self.stage.now)
                placed = self.stage.place(self.account, "BUY", token, str(price), "20", post_only=True)
                if placed.success:
                    self.quotes[token] = placed.order_id, price


@pytest.mark.parametrize(("tick", "step_s"), [("0.01", 0.25), ("0.01", 1), ("0.001", 0.5), ("0.0025", 0.5)])
def test_who_quotes_at_the_touch_is_filled_directly_and_across_outcomes_several_times_a_minute(tick, step_s):
    stage = Stage(3, [a_market(number, tick=D(tick), fee_rate=D("0.05")) for number in (1, 2, 3)])
    account = stage.account("a", "100000")
    quoter, follower = Quoter(stage, account), Follower()
    mids = set()
    for _ in range(round(MINUTES * 60 / step_s)):
        stage.wait(step_s)
        stage.house.crowd_step(stage.now)
        quoter.quote()
        for message in stage.house.take_messages():
            follower.hear(message)
        for market in stage.markets:
            for token in market.tokens:
                follower.agrees(stage.house.book(token, stage.now))
            bid, ask = stage.house.top(market.condition_id)
            assert D("0.1") < bid < ask < D("0.9")
            assert bid % market.tick == ask % market.tick == 0
            mids.add((market.slug, bid + ask))
    stage.house.check()
    for market in stage.markets:
        fills = [fill for fill in stage.house.truth(account)["fills"] if fill["token"] in market.tokens]
        assert 3 * MINUTES < len(fills) < 30 * MINUTES
        met = Counter(
            (hit.maker.token == market.yes, how(trade.taker, hit.maker).name)
            for trade in stage.house.clearing.trades.values()
            if trade.market is market
            for hit in trade.hits
            if hit.maker.wallet is account
        )
        assert min(met[yes, kind] for yes in (True, False) for kind in ("COMPLEMENTARY", "MINT")) > MINUTES / 3, met
    assert len(mids) > 10, "prices move"


def test_books_are_a_few_levels_deep():
    stage = Stage(4)
    deep = []
    for _ in range(600):
        stage.wait(0.5)
        stage.house.crowd_step(stage.now)
        book = stage.house.book(YES, stage.now)
        deep += [len(book["bids"]), len(book["asks"])]
    assert min(deep) >= 1 and sorted(deep)[len(deep) // 10] >= 3


def test_the_same_seed_is_the_same_day_and_another_is_not():
    def day(seed: int) -> list[object]:
        stage = Stage(seed, fail_share=0.1, retry_share=0.1)
        quoter = Quoter(stage, stage.account("a", "100000"))
        for _ in range(200):
            stage.wait(0.5)
            stage.house.crowd_step(stage.now)
            quoter.quote()
        return stage.house.take_messages()

    assert day(1) == day(1) and day(1) != day(2)


def test_the_sdk_reads_every_message_and_every_row():
    from polymarket.models.clob.account import BalanceAllowance, ClobTrade, OpenOrder
    from polymarket.models.clob.market_events import parse_market_event
    from polymarket.models.clob.order_book import OrderBook
    from polymarket.models.clob.user_events import parse_user_event

    stage = Stage(2, [a_market(fee_rate=D("0.05"))], fail_share=0.1, retry_share=0.3)
    account = stage.account("a", "100000")
    quoter = Quoter(stage, account)
    for step in range(400):
        stage.wait(0.5)
        stage.house.crowd_step(stage.now)
        quoter.quote()
        if step % 50 == 0:
            stage.place(account, "BUY", YES, "0.9", "10", "FAK", maker_amount=9_000_000)
            stage.place(account, "BUY", NO, "0.05", "100", "FOK")
    rows = [OpenOrder.model_validate(row) for row in stage.house.open_orders(account)]
    trades = [ClobTrade.model_validate(row) for row in stage.house.trades(account)]
    assert rows and trades and {"TAKER", "MAKER"} == {trade.trader_side for trade in trades}
    assert [trade.matched_at for trade in trades] == sorted((trade.matched_at for trade in trades), reverse=True)
    book = OrderBook.model_validate(stage.house.book(NO, stage.now))
    assert book.bids[-1].price < book.asks[-1].price
    assert BalanceAllowance.model_validate(stage.house.balance(account, None)).balance == int(account.cash * 10**6)
    stage.house.change_tick(stage.markets[0].condition_id, D("0.001"), stage.now)
    stage.house.resolve(stage.markets[0].condition_id, "no", stage.now)
    kinds: Counter[str] = Counter()
    for message in stage.house.take_messages():
        if message.payload.get("size_matched") == "":
            # A killed order as the venue tells it: the SDK itself cannot read that one.
            assert message.payload["order_type"] == "FOK" and message.payload["status"].startswith("CANCELED_order couldn't")
            continue
        reader = parse_user_event if message.channel == "user" else parse_market_event
        read = reader(message.payload)
        assert message.key in (account.api_key, YES, NO)
        kinds[f"{read.topic} {read.type} {message.payload.get('type', '')} {message.payload.get('status', '')[:20]}".strip()] += 1
    assert {name for name in kinds if name.startswith("market")} == {
        "market book", "market price_change", "market last_trade_price", "market best_bid_ask",
        "market tick_size_change", "market market_resolved",
    }  # fmt: skip
    statuses = ("MATCHED", "MINED", "CONFIRMED", "RETRYING", "FAILED")
    assert {name for name in kinds if name.startswith("user trade")} == {f"user trade TRADE {status}" for status in statuses}
    assert kinds["user order PLACEMENT LIVE"] and kinds["user order UPDATE MATCHED"] and kinds["user order CANCELLATION CANCELED"]
