"""The book: what is applied, skipped and a gap; and that it always equals a plain model of the venue's book."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.book import HEAL_NS, HELD_LIMIT, PRUNE_LIMIT, PRUNE_WINDOW_NS, Applied, Book
from llm_maker.core.events import BookDelta, BookSnapshot, TopReported
from llm_maker.core.values import NS_PER_S, Side

PAYOUT = 10_000
BIDS = ((4_900, 10), (4_800, 20), (4_700, 30), (4_600, 40))
ASKS = ((5_100, 11), (5_200, 21), (5_300, 31), (5_400, 41))


def snapshot(bids=BIDS, asks=ASKS, ts=100):
    return BookSnapshot("m", tuple(bids), tuple(asks), ts)


def delta(bids=(), asks=(), told=(None, None), ts=101):
    return BookDelta("m", tuple(bids), tuple(asks), told[0], told[1], ts)


def opened(**kwargs):
    book = Book(payout=PAYOUT, **kwargs)
    assert book.apply_snapshot(snapshot(), 1) is Applied.APPLY
    return book


def test_snapshot_opens_the_book():
    book = opened()
    assert (book.best_bid, book.best_ask, book.mid, book.spread) == (4_900, 5_100, 5_000.0, 200)
    assert book.trusted and book.two_sided and book.gap_reason == "" and book.changed_ns == 1
    assert book.top(Side.BUY, 2) == [(4_900, 10), (4_800, 20)]
    assert book.top(Side.SELL, 2) == [(5_100, 11), (5_200, 21)]
    assert book.top(Side.SELL, 2, min_qty=30) == [(5_300, 31), (5_400, 41)]
    assert book.depth(Side.BUY, 3) == 60 and book.depth(Side.SELL, 9) == 104
    assert book.qty_at(Side.SELL, 5_200) == 21 and book.qty_at(Side.BUY, 5_200) == 0


@pytest.mark.parametrize(
    ("side", "price", "ahead"),
    [
        (Side.BUY, 4_900, 0),
        (Side.BUY, 4_950, 0),
        (Side.BUY, 4_750, 30),
        (Side.BUY, 1, 100),
        (Side.SELL, 5_100, 0),
        (Side.SELL, 5_000, 0),
        (Side.SELL, 5_200, 11),
        (Side.SELL, 9_999, 104),
    ],
)
def test_ahead_counts_only_strictly_better_levels(side, price, ahead):
    assert opened().ahead(side, price) == ahead


def test_an_unopened_book_knows_nothing():
    book = Book(payout=PAYOUT)
    assert book.apply_delta(delta(bids=[(4_000, 5)]), 1) is Applied.SKIP
    assert (book.mid, book.spread, book.two_sided, book.skipped) == (None, None, False, 1)
    assert book.ahead(Side.BUY, 1) == 0 and book.ahead(Side.SELL, 9_999) == 0


def test_deep_change_leaves_the_top_version():
    book = opened()
    before = book.top_version
    assert book.apply_delta(delta(bids=[(4_600, 99)], told=(4_900, 5_100)), 2) is Applied.APPLY
    assert book.apply_delta(delta(asks=[(5_400, 0)], told=(4_900, 5_100), ts=102), 3) is Applied.APPLY
    assert book.top_version == before and book.qty_at(Side.BUY, 4_600) == 99 and 5_400 not in book.asks
    assert book.changed_ns == 3


@pytest.mark.parametrize(
    ("change", "best", "rises"),
    [
        ({"bids": [(4_900, 12)]}, (4_900, 5_100), True),
        ({"bids": [(4_900, 10)]}, (4_900, 5_100), False),
        ({"bids": [(4_900, 0)]}, (4_800, 5_100), True),
        ({"bids": [(5_000, 1)]}, (5_000, 5_100), True),
        ({"asks": [(5_100, 0)]}, (4_900, 5_200), True),
        ({"asks": [(5_000, 3)]}, (4_900, 5_000), True),
        ({"asks": [(5_000, 0)]}, (4_900, 5_100), False),
        ({"asks": [(p, 0) for p, _ in ASKS]}, (4_900, PAYOUT), True),
        ({"bids": [(p, 0) for p, _ in BIDS]}, (0, 5_100), True),
    ],
)
@pytest.mark.parametrize("tells", [True, False])
def test_changes_at_the_top(change, best, rises, tells):
    book = opened()
    before = book.top_version
    assert book.apply_delta(delta(**change, told=best if tells else (None, None)), 2) is Applied.APPLY
    assert (book.best_bid, book.best_ask or PAYOUT) == best
    assert (book.top_version > before) is rises
    assert book.bid_qty == book.bids.get(book.best_bid, 0) and book.ask_qty == book.asks.get(book.best_ask, 0)


def test_stale_levels_are_pruned_and_counted():
    book = opened()
    assert book.apply_delta(delta(bids=[(4_600, 1)], told=(4_700, 5_300)), 2) is Applied.APPLY
    assert (book.best_bid, book.best_ask, book.pruned) == (4_700, 5_300, 4)
    assert set(book.bids) == {4_700, 4_600} and set(book.asks) == {5_300, 5_400}


def test_a_told_empty_side_prunes_all_of_it():
    book = opened()
    assert book.apply_delta(delta(bids=[(4_600, 1)], told=(4_900, PAYOUT)), 2) is Applied.APPLY
    assert (book.asks, book.best_ask, book.pruned, book.mid, book.trusted) == ({}, 0, 4, None, True)
    assert book.apply_delta(delta(asks=[(5_500, 1)], told=(0, 5_500), ts=102), 3) is Applied.APPLY
    assert (book.bids, book.best_bid, book.best_ask) == ({}, 0, 5_500)


def gone_wrong():
    return [
        ("best_missing", delta(bids=[(4_600, 1)], told=(4_950, 5_100))),
        ("best_missing", delta(bids=[(4_600, 1)], told=(4_900, 5_050))),
        ("best_missing", delta(bids=[(4_900, 0)], told=(4_850, 5_100))),
        ("crossed", delta(bids=[(5_100, 1)])),
        ("crossed", delta(asks=[(4_850, 1)])),
        ("out_of_order", delta(bids=[(4_600, 1)], told=(4_900, 5_100), ts=104)),
    ]


@pytest.mark.parametrize(("reason", "event"), gone_wrong())
def test_what_cannot_be_explained_is_a_gap(reason, event):
    book = opened()
    if reason == "out_of_order":
        assert book.apply_delta(delta(asks=[(5_400, 1)], told=(4_900, 5_100), ts=105), 2) is Applied.APPLY
    before = book.top_version
    assert book.apply_delta(event, 7) is Applied.GAP
    assert (book.trusted, book.gaps, book.gap_reason, book.gap_ns) == (False, 1, reason, 7)
    assert (book.bids, book.asks, book.best_bid, book.best_ask, book.mid) == ({}, {}, 0, 0, None)
    assert book.top_version > before


def test_a_cross_that_pruning_resolves_is_no_gap():
    book = opened()
    assert book.apply_delta(delta(bids=[(5_100, 7)], told=(5_100, 5_200)), 2) is Applied.APPLY
    assert (book.best_bid, book.best_ask, book.pruned) == (5_100, 5_200, 1)


def crowded(n):
    book = Book(payout=PAYOUT)
    book.apply_snapshot(snapshot([(1_000 + i, 5) for i in range(n)]), 1)
    return book


def test_too_many_prunes_in_ten_seconds_are_a_gap():
    book = crowded(PRUNE_LIMIT + 3)
    for i in range(1, PRUNE_LIMIT + 1):
        told = (1_000 + PRUNE_LIMIT + 2 - i, 5_100)
        assert book.apply_delta(delta(asks=[(9_000, i)], told=told, ts=100 + i), i) is Applied.APPLY
    assert book.pruned == PRUNE_LIMIT
    last = delta(asks=[(9_000, 999)], told=(1_001, 5_100), ts=900)
    patient = msgspec.json.decode(msgspec.json.encode(book), type=Book)
    assert book.apply_delta(last, 900) is Applied.GAP and book.gap_reason == "pruned_too_often"
    assert patient.apply_delta(last, PRUNE_LIMIT + PRUNE_WINDOW_NS) is Applied.APPLY


def test_a_gap_waits_for_a_newer_snapshot_and_ignores_deltas():
    book = opened()
    assert book.apply_delta(delta(bids=[(4_600, 1)], told=(4_950, 5_100), ts=110), 2) is Applied.GAP
    assert book.apply_delta(delta(bids=[(4_950, 1)], told=(4_950, 5_100), ts=111), 3) is Applied.SKIP
    assert book.apply_snapshot(snapshot(ts=110), 4) is Applied.SKIP
    assert not book.trusted and book.skipped == 2 and book.bids == {}
    assert book.apply_snapshot(snapshot(ts=112), 5) is Applied.APPLY
    assert book.trusted and (book.gap_ns, book.gap_reason, book.gaps) == (0, "", 1)
    assert book.bids == dict(BIDS)


def test_deltas_newer_than_a_late_snapshot_are_laid_over_it():
    book = opened()
    book.lose(2, "feed")
    book.apply_delta(delta(bids=[(4_600, 1)], told=(4_900, 5_100), ts=111), 3)
    book.apply_delta(delta(bids=[(4_950, 2)], told=(4_950, 5_100), ts=113), 4)
    assert book.apply_snapshot(snapshot(ts=112), 5) is Applied.APPLY
    assert book.best_bid == 4_950 and book.qty_at(Side.BUY, 4_600) == 40 and book.held == []


def test_laying_over_may_find_the_next_gap():
    book = opened()
    book.lose(2, "feed")
    book.apply_delta(delta(bids=[(4_600, 1)], told=(4_990, 5_100), ts=113), 3)
    assert book.apply_snapshot(snapshot(ts=112), 5) is Applied.GAP
    assert not book.trusted and book.gap_reason == "best_missing" and book.gaps == 2


def test_what_is_held_in_a_gap_is_bounded():
    book = Book(payout=PAYOUT)
    for i in range(HELD_LIMIT + 5):
        book.apply_delta(delta(bids=[(4_600, i + 1)], ts=200 + i), i)
    assert len(book.held) == HELD_LIMIT and book.held[-1].venue_ts == 200 + HELD_LIMIT + 4


def test_losing_twice_keeps_the_first_reason_and_counts_once():
    book = opened()
    book.lose(5, "venue_down")
    book.lose(9, "frozen")
    assert (book.gap_ns, book.gap_reason, book.gaps) == (5, "venue_down", 1)
    unopened = Book(payout=PAYOUT)
    unopened.lose(5, "venue_down")
    assert (unopened.gap_ns, unopened.gap_reason, unopened.gaps) == (5, "venue_down", 0)


def test_duplicates_and_old_news_are_skipped():
    book = opened()
    once = delta(bids=[(4_900, 3)], told=(4_900, 5_100), ts=105)
    assert book.apply_delta(once, 2) is Applied.APPLY
    assert book.apply_delta(msgspec.structs.replace(once), 3) is Applied.SKIP
    assert book.apply_snapshot(snapshot(ts=104), 4) is Applied.SKIP
    assert book.check_top(TopReported("m", 4_800, 5_100, 104), 5) is Applied.SKIP
    assert book.bid_qty == 3 and book.changed_ns == 2 and book.skipped == 3
    assert book.apply_snapshot(snapshot(ts=110), 6) is Applied.APPLY
    assert book.apply_delta(delta(bids=[(4_900, 0)], told=(4_800, 5_100), ts=109), 7) is Applied.SKIP
    assert book.bid_qty == 10


def test_changes_of_one_moment_all_count():
    book = opened()
    assert book.apply_delta(delta(bids=[(4_900, 3)], told=(4_900, 5_100), ts=105), 2) is Applied.APPLY
    assert book.apply_delta(delta(bids=[(4_900, 0)], told=(4_800, 5_100), ts=105), 2) is Applied.APPLY
    assert book.best_bid == 4_800


def test_a_crossed_snapshot_is_a_gap():
    book = opened()
    assert book.apply_snapshot(snapshot(bids=[(5_100, 1)], ts=120), 2) is Applied.GAP
    assert not book.trusted and book.bids == {}


def test_check_top_judges_without_a_change():
    book = opened()
    assert book.check_top(TopReported("m", 4_900, 5_100, 101), 2) is Applied.APPLY
    assert book.check_top(TopReported("m", 4_800, None, 102), 3) is Applied.APPLY
    assert (book.best_bid, book.pruned, book.changed_ns) == (4_800, 1, 3)
    assert book.check_top(TopReported("m", 4_800, 5_000, 103), 4) is Applied.GAP
    assert book.check_top(TopReported("m", 4_800, 5_000, 104), 5) is Applied.SKIP


def test_without_snapshots_five_seconds_of_agreement_heal():
    book = opened(heals_by_top=True)
    assert book.apply_delta(delta(bids=[(4_600, 1)], told=(4_950, 5_100)), 2) is Applied.GAP
    steps = [
        (delta(bids=[(4_950, 5)], told=(4_950, 5_100), ts=110), 0),
        (delta(asks=[(5_100, 5)], told=(4_950, 5_100), ts=111), 1),
        (delta(asks=[(5_050, 5)], told=(4_960, 5_050), ts=112), HEAL_NS),
        (delta(bids=[(4_960, 5)], told=(4_960, 5_050), ts=113), HEAL_NS + 10),
        (delta(bids=[(4_000, 5)], told=(None, None), ts=114), HEAL_NS + 11),
        (delta(bids=[(4_000, 6)], told=(4_960, 5_050), ts=115), HEAL_NS + 12),
        (delta(bids=[(4_000, 7)], told=(4_960, 5_050), ts=116), 2 * HEAL_NS + 11),
    ]
    for event, at in steps:
        assert book.apply_delta(event, 1_000 + at) is Applied.SKIP
        assert not book.trusted and book.mid is None
    assert book.check_top(TopReported("m", 4_960, 5_050, 117), 1_000 + 2 * HEAL_NS + 12) is Applied.APPLY
    assert book.trusted and (book.best_bid, book.best_ask, book.gap_ns) == (4_960, 5_050, 0)
    assert book.bids == {4_950: 5, 4_960: 5, 4_000: 7}


def test_what_is_held_of_the_snapshots_own_moment_counts_as_contained():
    book = opened()
    book.lose(2, "feed")
    book.apply_delta(delta(bids=[(4_600, 1)], told=(4_990, 5_100), ts=112), 3)
    assert book.apply_snapshot(snapshot(ts=112), 5) is Applied.APPLY
    assert book.qty_at(Side.BUY, 4_600) == 40


def test_the_snapshot_must_be_newer_than_what_showed_the_gap():
    book = opened()
    assert book.check_top(TopReported("m", 4_950, 5_100, 120), 2) is Applied.GAP
    assert book.apply_snapshot(snapshot(ts=120), 3) is Applied.SKIP
    assert book.apply_snapshot(snapshot(ts=121), 4) is Applied.APPLY


@pytest.mark.parametrize("told", [(None, None), (4_900, 5_300)])
def test_an_empty_side_fills_again(told):
    book = Book(payout=PAYOUT)
    book.apply_snapshot(snapshot(asks=()), 1)
    assert book.trusted and not book.two_sided
    assert book.apply_delta(delta(asks=[(5_300, 2)], told=told), 2) is Applied.APPLY
    assert (book.best_ask, book.ask_qty, book.two_sided) == (5_300, 2, True)


def test_where_snapshots_exist_agreement_never_heals():
    book = opened()
    book.lose(2, "feed")
    for i in range(20):
        told = delta(bids=[(4_900, 1 + i)], asks=[(5_100, 5)], told=(4_900, 5_100), ts=200 + i)
        assert book.apply_delta(told, i * NS_PER_S) is Applied.SKIP
    assert not book.trusted


def test_a_linear_book_of_untold_times_and_tops():
    book = Book()
    assert book.apply_snapshot(BookSnapshot("p", ((6_800_012, 5),), ((6_800_013, 4),), 0), 1) is Applied.APPLY
    assert book.apply_delta(BookDelta("p", ((6_800_012, 0),), (), None, None, 0), 2) is Applied.APPLY
    assert book.best_bid == 0 and not book.two_sided and book.best_ask == 6_800_013


levels = st.dictionaries(st.integers(1, 40), st.integers(1, 9), max_size=12)
changes = st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 4), st.booleans()), max_size=60)


@given(bids=levels, asks=levels, changes=changes, encode_at=st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_the_book_follows_the_venue_even_when_removals_are_lost(bids, asks, changes, encode_at):
    """Simulated: a venue tells its top with every change, some removals are lost: no gap, and the top is right."""
    venue = {1: dict(bids), -1: {p + 40: q for p, q in asks.items()}}
    book = Book(payout=1_000)
    book.apply_snapshot(BookSnapshot("m", tuple(venue[1].items()), tuple(venue[-1].items()), 1), 1)
    lost = False
    for step, (is_bid, at, qty, lose) in enumerate(changes, start=2):
        side, price = (1, at) if is_bid else (-1, at + 40)
        known = venue[side].pop(price, 0)
        if qty:
            venue[side][price] = qty
        if lose and known and not qty:
            lost = True
            continue
        told = (max(venue[1], default=0), min(venue[-1], default=1_000))
        change = ((price, qty),)
        event = BookDelta("m", change if is_bid else (), () if is_bid else change, *told, step)
        version, top = book.top_version, (book.best_bid, book.bid_qty, book.best_ask, book.ask_qty)
        assert book.apply_delta(event, step * NS_PER_S) is Applied.APPLY
        assert (book.best_bid, book.best_ask or 1_000) == told
        assert (book.top_version > version) == (top != (book.best_bid, book.bid_qty, book.best_ask, book.ask_qty))
        if not lost:
            assert (book.bids, book.asks) == (venue[1], venue[-1])
        if step == encode_at:
            book = msgspec.json.decode(msgspec.json.encode(book), type=Book)
    assert book.trusted


@given(
    steps=st.lists(
        st.one_of(
            st.builds(
                delta,
                bids=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=3),
                asks=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=3),
                told=st.tuples(st.none() | st.integers(0, 9), st.none() | st.integers(1, 10)),
                ts=st.integers(0, 30),
            ),
            st.builds(
                snapshot,
                bids=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=4),
                asks=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=4),
                ts=st.integers(0, 30),
            ),
        ),
        max_size=40,
    ),
    heals=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_hostile_input_never_breaks_the_books_promises(steps, heals):
    """Whatever comes: trusted means uncrossed, with true bests and only positive levels; a gap means empty."""
    book = Book(payout=10, heals_by_top=heals)
    for now, event in enumerate(steps, start=1):
        version, top = book.top_version, (book.best_bid, book.best_ask)
        apply = book.apply_delta if isinstance(event, BookDelta) else book.apply_snapshot
        result = apply(event, now * NS_PER_S)
        assert book.best_bid == max(book.bids, default=0) and book.best_ask == min(book.asks, default=0)
        assert all(q > 0 for q in [*book.bids.values(), *book.asks.values()])
        assert top == (book.best_bid, book.best_ask) or book.top_version > version
        if book.trusted:
            assert not 0 < book.best_ask <= book.best_bid
        if result is Applied.GAP:
            assert not book.trusted and not book.bids and not book.asks
        if result is Applied.APPLY:
            assert book.trusted and book.changed_ns == now * NS_PER_S
        assert msgspec.json.decode(msgspec.json.encode(book), type=Book) == book
