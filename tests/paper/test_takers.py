"""Several prints of one taker order are one thing, and a print told twice is one print (`quoting.md` 5.2)."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.events import TradePrinted
from llm_maker.core.values import NS_PER_MS, Side
from tests.paper.test_exchange import BUY, SELL, filled, opened


def tell(rig, price, qty, side=SELL, transaction="", venue_ts=None):
    return filled(rig.see(TradePrinted("M", price, qty, side, rig.now if venue_ts is None else venue_ts, transaction)))


def total(deals):
    return sum(qty for _, qty in deals)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_a_taker_cut_into_prints_fills_what_the_whole_of_him_fills(seed, told):
    """Behind a queue or improving, whatever the seed of the share draws: by transaction, or by the venue's instant."""
    dice = random.Random(seed)
    parts = [dice.randint(1, 3_000) for _ in range(dice.randint(2, 5))]
    price, own = dice.choice(((5000, 5000), (5000, 5100), (4900, 5000)))
    got = []
    for prints in ([sum(parts)], parts):
        rig = opened(seed=seed, improve_share=0.5)
        rig.delta(bids=[(5000, 2_000)])
        rig.place(BUY, own, 4_000)
        at = rig.now
        deals = []
        for number, qty in enumerate(prints):
            # Distinct sizes, so that none is taken for a repetition.
            deals += tell(rig, price, qty, transaction="0xa" if told else "", venue_ts=at + number * told)
        got.append((total(deals), rig.exchange.band_fills()["total"]["optimistic"]["qty"]))
    if len(set(parts)) == len(parts) or not told:
        assert got[0] == got[1], (parts, price, own)


def test_the_minute_cap_of_a_taker_in_parts_is_that_of_the_whole():
    for parts in ([20_000], [10_000, 10_000], [5_000, 15_000]):
        rig = opened(volume_cap_ratio=0.10)
        rig.place(BUY, 5000, 5_000)
        rig.delta(bids=[(5000, 0)])
        rig.wait(1)
        assert sum(total(tell(rig, 5000, qty)) for qty in parts) == 2_000


def test_another_taker_pays_the_debt_of_the_first_and_has_a_draw_of_his_own():
    rig = opened()
    rig.place(BUY, 5000, 3_000)
    rig.delta(bids=[(5000, 0)])
    rig.wait(1)
    assert tell(rig, 5000, 1_000, transaction="0xa") == [(5000, 1_000)]
    assert tell(rig, 5000, 1_200, transaction="0xb") == [(5000, 200)], "later print, less what we took"
    won = set()
    for seed in range(12):
        rig = opened(seed=seed, improve_share=0.5)
        rig.place(BUY, 5100, 3_000)
        first = bool(tell(rig, 5000, 500, transaction="0xa"))
        rig.wait(2)
        won.add((first, bool(tell(rig, 5000, 600, transaction="0xb"))))
    assert len(won) == 4, "the draws of two takers are two draws"


def test_a_repeated_print_counts_once_wherever_it_counts():
    def end(*prints):
        rig = opened(volume_cap_ratio=0.5)
        rig.place(BUY, 5000, 5_000)
        rig.delta(bids=[(5000, 2_000)])
        for price, qty, transaction in prints:
            tell(rig, price, qty, transaction=transaction)
            rig.wait(0.191)
        market = rig.exchange._state.markets["M"]
        return rig.exchange.band_fills()["total"], market.tape, rig.exchange.resting()[0].queue.likely

    once = end((5000, 1_500, "0xa"), (5000, 900, "0xb"))
    assert end((5000, 1_500, "0xa"), (5000, 900, "0xb"), (5000, 1_500, "0xa")) == once
    assert end((5000, 1_500, "0xa"), (5000, 900, "0xb"), (5000, 1_500, "")) != once, "without a transaction nobody can tell"
    assert end((5000, 1_500, "0xa"), (5000, 900, "0xb"), (5000, 1_501, "0xa")) != once


def test_what_is_remembered_of_prints_is_bounded_and_survives_a_restart():
    rig = opened()
    for number in range(500):
        tell(rig, 5000, 500, transaction=f"0x{number:x}")
    market = rig.exchange._state.markets["M"]
    assert len(market.heard) == 64 and market.first == market.prints == 500
    rig.exchange.restore(rig.exchange.checkpoint())
    tell(rig, 5000, 500, transaction="0x1f3")
    assert rig.exchange._state.markets["M"].prints == 500, "told before"
    tell(rig, 5000, 501, transaction="0x1f3")
    assert rig.exchange._state.markets["M"].first == 500, "the same taker"


def test_prints_without_time_or_transaction_are_takers_of_their_own():
    rig = opened()
    firsts = []
    for side, venue_ts in ((SELL, 0), (SELL, 0), (SELL, NS_PER_MS), (SELL, NS_PER_MS), (BUY, NS_PER_MS), (BUY, 0)):
        tell(rig, 5000, 500, side=side, venue_ts=venue_ts)
        firsts.append(rig.exchange._state.markets["M"].first)
    assert firsts == [1, 2, 3, 3, 5, 6]


def test_a_journal_from_before_reads_and_one_without_transactions_looks_as_before():
    old = b'{"type":"TradePrinted","instrument":"M","price":5000,"qty":7,"side":1,"venue_ts":9}'
    event = msgspec.json.decode(old, type=TradePrinted)
    assert event == TradePrinted("M", 5000, 7, Side.BUY, 9, "") and msgspec.json.encode(event) == old
    told = TradePrinted("M", 5000, 7, Side.BUY, 9, "0xa")
    assert msgspec.json.decode(msgspec.json.encode(told), type=TradePrinted) == told
