"""Polymarket's market channel: golden frames, exact numbers, mirror folding, malformed messages, tape headers."""

import json
import os
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_maker.core.events import BookDelta, BookSnapshot, FeedLost, TradePrinted
from llm_maker.core.values import FeeCurve, FixedGrid, Side
from llm_maker.runtime.tape import TapeReader
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.venues.polymarket.listing.tape_header import header_from_instruments, instruments_from_header
from llm_maker.venues.polymarket.numbers import WireError, units

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LLM_MAKER_SHARED_DATA", ROOT.parent / "shared" / "data"))
TAPES = sorted((SHARED / "tapes").glob("polymarket_*.jsonl.zst"))
FIXTURES = SHARED / "wire_fixtures_nautilus"
GOLDEN = [json.loads(line) for line in (ROOT / "tests/golden/polymarket_frames.jsonl").read_text().splitlines()]
HEADER = GOLDEN[0]["header"]
COUNTERS = ("pongs", "unknown_asset", "new_markets", "mirror_mismatch", "malformed", "unknown")
MS = "1757908892351"
TS = 1757908892351 * 10**6


def wire():
    return Wire(instruments_from_header(HEADER))


def encode(message):
    return message.encode() if isinstance(message, str) else json.dumps(message).encode()


def change(asset_id, price, size, side, bests=(None, None)):
    entry = {"asset_id": asset_id, "price": price, "size": size, "side": side}
    return {**entry, "best_bid": bests[0], "best_ask": bests[1]}


def price_change(*entries, ts=MS):
    return {"event_type": "price_change", "market": "0xaa", "timestamp": ts, "price_changes": list(entries)}


def book(asset_id, bids, asks, ts=MS):
    sides = [[{"price": price, "size": size} for price, size in levels] for levels in (bids, asks)]
    return {"event_type": "book", "asset_id": asset_id, "bids": sides[0], "asks": sides[1], "timestamp": ts}


def trade(asset_id="1001", price="0.5", size="1", side="BUY", ts=MS):
    entry = {"asset_id": asset_id, "price": price, "size": size, "side": side}
    return {"event_type": "last_trade_price", **entry, "timestamp": ts}


@pytest.mark.parametrize("case", GOLDEN[1:], ids=lambda case: case["name"])
def test_golden(case):
    parser = wire()
    told = [msgspec.to_builtins(event) for frame in case["frames"] for event in parser.parse(encode(frame))]
    assert json.loads(json.dumps(told)) == case["events"]
    assert {name: value for name in COUNTERS if (value := getattr(parser, name))} == case["counted"]
    assert parser.frames == len(case["frames"])


@pytest.mark.parametrize("case", GOLDEN[1:], ids=lambda case: case["name"])
def test_golden_through_a_tape_envelope(case):
    parser, direct = wire(), wire()
    for frame in case["frames"]:
        line = json.dumps({"frame": frame}, indent=1).encode()
        raw = msgspec.json.decode(line, type=dict[str, msgspec.Raw])["frame"]
        assert parser.parse(raw) == direct.parse(encode(frame))
    assert parser.malformed == direct.malformed and parser.pongs == direct.pongs


# Numbers.


@settings(max_examples=400, deadline=None)
@given(st.from_regex(r"\A[0-9]{0,13}(\.[0-9]{0,9})?\Z") | st.text(max_size=12), st.sampled_from([0, 2, 4, 6]))
@example("0.46", 4)
@example(".5", 4)
@example(".0", 0)
@example("1.", 4)
@example("0.50000000", 4)
@example("1e-3", 4)
@example("1_0", 4)
@example("\u0663", 4)
@example("\u00b2", 4)
@example("+1", 4)
@example(" 1", 4)
@example("NaN", 4)
def test_units_are_exact(text, decimals):
    """Against Decimal: the same value wherever a plain decimal fits the unit, an error everywhere else."""
    plain = set(text) <= set("0123456789.") and text.count(".") <= 1
    try:
        scaled = Decimal(text).scaleb(decimals) if plain else None
    except InvalidOperation:
        scaled = None
    if scaled is not None and scaled == scaled.to_integral_value() and scaled < 2**63:
        assert units(text, decimals, "x") == int(scaled)
    else:
        with pytest.raises(WireError, match="x: "):
            units(text, decimals, "x")


def test_units_by_hand():
    assert units("0.46", 4, "price") == 4600
    assert units("17549.29", 6, "size") == 17549290000
    assert [units(text, 4, "price") for text in (".5", "1", "1.", "0.5000000")] == [5000, 10000, 10000, 5000]
    for text, what in {"0.12345": "more than 4 decimals", "1e-3": "plain", "": "plain", ".": "plain"}.items():
        with pytest.raises(WireError, match=what):
            units(text, 4, "price")
    with pytest.raises(WireError, match="out of range"):
        units("9223372036855", 6, "size")
    with pytest.raises(WireError, match="plain decimal"):
        units("0" * 41, 6, "size")


def test_caches_are_bounded_and_change_nothing():
    parser = wire()
    for qty in range(1, 40_000):
        (event,) = parser.parse(encode(trade(size=f"{qty}.5")))
        assert event.qty == qty * 10**6 + 500_000
    assert all(len(sizes) <= 1 << 15 for sizes in parser._sizes.values())


# Folding.

CENTS = st.integers(1, 99)
TOPS = st.none() | st.integers(0, 100)
LEVEL = st.tuples(CENTS, st.integers(0, 10**9), st.sampled_from(["BUY", "SELL"]), TOPS, TOPS)
OTHER = {"BUY": "SELL", "SELL": "BUY"}


def entry_of(level, *, no):
    cents, qty, side, bid, ask = level
    text = [None if top is None else f"{Decimal(top) / 100}" for top in (bid, ask)]
    size = f"{Decimal(qty) / 100}"
    if not no:
        return change("1001", f"{Decimal(cents) / 100}", size, side, text)
    flipped = [None if top is None else f"{(100 - Decimal(top)) / 100}" for top in (ask, bid)]
    return change("1002", f"{(100 - Decimal(cents)) / 100}", size, OTHER[side], flipped)


@settings(max_examples=200, deadline=None)
@given(st.lists(LEVEL, min_size=1, max_size=4))
def test_mirrored_price_change_gives_the_same_delta(levels):
    """YES alone, NO alone, both in either order: one and the same delta."""
    parser = wire()
    yes = [entry_of(level, no=False) for level in levels]
    no = [entry_of(level, no=True) for level in levels]
    (alone,) = parser.parse(encode(price_change(*yes)))
    assert isinstance(alone, BookDelta)
    interleaved = [entry for pair in zip(no, yes, strict=True) for entry in pair]
    for told in (no, yes + no, no + yes, interleaved):
        assert parser.parse(encode(price_change(*told))) == [alone]
    assert parser.mirror_mismatch == 0 and not parser.malformed


@settings(max_examples=200, deadline=None)
@given(LEVEL, LEVEL, st.booleans())
def test_the_short_way_says_what_the_long_way_says(yes, no, swap):
    """Whatever the two legs tell, agreeing or not."""
    parser, direct = wire(), wire()
    entries = [entry_of(yes, no=False), entry_of(no, no=True)]
    message = encode(price_change(*(reversed(entries) if swap else entries)))
    assert parser.parse(message) == direct._folded(direct._decode(message))
    assert parser.mirror_mismatch == direct.mirror_mismatch


@settings(max_examples=100, deadline=None)
@given(LEVEL, st.sampled_from(["price", "size", "side", "best_bid", "best_ask"]))
def test_any_disagreement_of_the_legs_is_a_gap(level, field):
    parser = wire()
    cents, qty, side, _, _ = level
    told = {"price": cents, "size": qty, "side": side, "best_bid": 40, "best_ask": 41}
    other = {"price": cents % 99 + 1, "size": qty + 1, "side": OTHER[side], "best_bid": 39, "best_ask": 42}
    entries = [
        entry_of(tuple(told.values()), no=False),
        entry_of(tuple({**told, field: other[field]}.values()), no=True),
    ]
    (event,) = parser.parse(encode(price_change(*entries)))
    assert event == FeedLost(("0xaa",), "price_change: YES and NO disagree")
    assert parser.mirror_mismatch == 1


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(CENTS, st.integers(1, 10**9), max_size=8), st.integers(0, 100))
def test_mirrored_book_gives_the_same_snapshot(levels, middle):
    def told(no):
        sides = {"bids": [], "asks": []}
        for cents, qty in levels.items():
            bid = (cents <= middle) != no
            price = Decimal(100 - cents if no else cents) / 100
            sides["bids" if bid else "asks"].append((str(price), str(Decimal(qty) / 100)))
        return encode(book("1002" if no else "1001", sides["bids"], sides["asks"]))

    (yes,) = wire().parse(told(False))
    assert wire().parse(told(True)) == [yes] and isinstance(yes, BookSnapshot)
    assert list(yes.bids) == sorted(yes.bids, reverse=True) and list(yes.asks) == sorted(yes.asks)
    both = wire()
    assert both.parse(told(True)) + both.parse(told(False)) == [yes]


@settings(max_examples=60, deadline=None)
@given(CENTS, st.integers(1, 10**12), st.sampled_from(["BUY", "SELL"]))
def test_mirrored_trade_is_the_same_trade(cents, micro, side):
    size = f"{Decimal(micro).scaleb(-6):f}"
    yes = trade("1001", str(Decimal(cents) / 100), size, side)
    no = trade("1002", str(Decimal(100 - cents) / 100), size, OTHER[side])
    expected = TradePrinted("0xaa", cents * 100, micro, Side[side], TS)
    assert wire().parse(encode(yes)) == wire().parse(encode(no)) == [expected]


def test_a_trade_carries_its_transaction_where_it_is_told():
    for told, heard in ((("0xab"), "0xab"), (None, ""), ("", "")):
        message = trade("1001", "0.4", "5", "BUY") | {"transaction_hash": told}
        assert wire().parse(encode(message)) == [TradePrinted("0xaa", 4_000, 5_000_000, Side.BUY, TS, heard)]


def test_a_pair_of_books_is_cross_checked_once_and_the_next_pair_starts_anew():
    parser = wire()
    yes, no = book("1001", [("0.4", "1")], []), book("1002", [], [("0.6", "1")])
    for _ in range(2):
        assert isinstance(parser.parse(encode(yes))[0], BookSnapshot)
        assert parser.parse(encode(no)) == []
    parser.parse(encode(yes))
    assert isinstance(parser.parse(encode(yes))[0], BookSnapshot), "the same leg again is a snapshot again"


def test_tick_size_change_is_remembered_and_leaves_unpaired_books_behind():
    parser = wire()
    message = {"event_type": "tick_size_change", "asset_id": "1002", "new_tick_size": "0.001", "timestamp": MS}
    parser.parse(encode(book("1001", [("0.4", "1")], [])))
    listed, lost = parser.parse(encode(message))
    assert listed.instrument.grid == FixedGrid(10) == parser.instruments[0].grid
    assert lost.instruments == ("0xaa",)
    assert isinstance(parser.parse(encode(book("1002", [], [("0.6", "1")])))[0], BookSnapshot), "the gap can end"


# What cannot be read.

GOOD = change("1001", "0.4", "5", "BUY", ("0.4", "0.5"))
LOST = [FeedLost(("0xaa",), "malformed price_change")]
MALFORMED = {
    "price too fine": (price_change({**GOOD, "price": "0.40001"}), "price_change.price: more than 4 decimals", LOST),
    "price of zero": (price_change({**GOOD, "price": "0"}), "price_change.price: out of range", LOST),
    "price of one": (price_change({**GOOD, "price": "1.0"}), "price_change.price: out of range", LOST),
    "price a number": (price_change({**GOOD, "price": 0.4}), "price_changes[].price", LOST),
    "size negative": (price_change({**GOOD, "size": "-1"}), "price_change.size: not a plain decimal", LOST),
    "size huge": (price_change({**GOOD, "size": "1" * 30}), "price_change.size: out of range", LOST),
    "side unknown": (price_change({**GOOD, "side": "HOLD"}), "price_changes[].side", LOST),
    "best above one": (price_change({**GOOD, "best_ask": "1.5"}), "price_change.best_ask: out of range", LOST),
    "second entry bad": (price_change(GOOD, {**GOOD, "size": "x"}), "price_change.size: not a plain decimal", LOST),
    "no size": (price_change({"asset_id": "1001", "price": "0.4", "side": "BUY"}), "field size", LOST),
    "seconds": (price_change(GOOD, ts="1757908892"), "price_change.message: Expected int", LOST),
    "no time": (price_change(GOOD, ts=""), "timestamp", LOST),
    "level twice": (
        book("1001", [("0.4", "1"), ("0.40", "2")], []),
        "book.price: one level told twice",
        [FeedLost(("0xaa",), "malformed book")],
    ),
    "no asks": (
        {"event_type": "book", "asset_id": "1002", "bids": [], "timestamp": MS},
        "book.message: Object missing required field asks",
        [FeedLost(("0xaa",), "malformed book")],
    ),
    "tick odd": (
        {"event_type": "tick_size_change", "asset_id": "2001", "new_tick_size": "0.03", "timestamp": MS},
        "tick_size_change.tick_size: not a tick",
        [FeedLost(("0xbb",), "malformed tick_size_change")],
    ),
    "winner unknown": (
        {"event_type": "market_resolved", "market": "0xaa", "winning_asset_id": "", "timestamp": MS},
        "market_resolved.winning_asset_id: not a token of the market",
        [FeedLost(("0xaa",), "malformed market_resolved")],
    ),
    "trade of nothing": (trade(size="0.0"), "last_trade_price.size: a trade of nothing", []),
    "trade at one": (trade(price="1"), "last_trade_price.price: out of range", []),
    "kind missing": ({"asset_id": "1001"}, "field event_type", [FeedLost(("0xaa",), "malformed frame")]),
    "kind missing, not ours": ({"asset_id": "9"}, "field event_type", []),
    "torn": ('{"event_type":"book","asset_id":"2001","bi', "not JSON", [FeedLost(("0xbb",), "malformed frame")]),
    "torn, no name": ('{"event_type":"boo', "not JSON", [FeedLost(("0xaa", "0xbb"), "malformed frame")]),
    "torn array": ('[{"event_type":', "frame.json: not JSON", [FeedLost(("0xaa", "0xbb"), "malformed frame")]),
    "bare text": ("INVALID OPERATION", "frame: bare text", []),
    "nothing": ("", "frame: bare text", []),
    "number": ("7", "frame: bare text", []),
    "not objects": ("[1]", "frame.message: Expected object, got int", []),
}


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
def test_malformed_is_named_counted_and_never_applied(case):
    message, name, events = case
    parser = wire()
    assert parser.parse(encode(message)) == events
    assert list(parser.malformed.values()) == [1] and name in next(iter(parser.malformed))
    assert next(iter(parser.malformed)) in parser.last_fault
    assert parser.instruments == instruments_from_header(HEADER)
    after = parser.parse(encode(price_change(GOOD)))
    assert after == wire().parse(encode(price_change(GOOD))), "the parser goes on"


def test_a_malformed_kind_that_is_not_ours_loses_nothing():
    parser = wire()
    message = {**price_change({**GOOD, "asset_id": "9", "size": 5}), "market": "0xcc"}
    assert parser.parse(encode(message)) == []
    assert sum(parser.malformed.values()) == 1


def test_names_are_bounded():
    parser = wire()
    for place in range(500):
        parser.parse(encode({"event_type": f"{place}" + "x" * 1000}))
    assert len(parser.unknown) == 65 and sum(parser.unknown.values()) == 500
    assert all(len(name) <= 120 for name in parser.unknown)


def test_deep_nesting_is_only_malformed():
    parser = wire()
    parser.parse(b'{"event_type":"price_change","asset_id":"1001","x":' + b"[" * 200_000)
    parser.parse(b"[" * 200_000)
    parser.parse(b'{"event_type":"trad\xff","asset_id":"1001"}')
    assert sum(parser.malformed.values()) == 3


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_never_fatal(data):
    """Any bytes, and any golden frame with bytes changed or cut."""
    frames = [encode(frame) for case in GOLDEN[1:] for frame in case["frames"]]
    frame = bytearray(data.draw(st.binary(max_size=40) | st.sampled_from(frames)))
    for place in data.draw(st.lists(st.integers(0, max(len(frame) - 1, 0)), max_size=3)):
        if place < len(frame):
            frame[place] = data.draw(st.integers(0, 255))
    parser = wire()
    told = parser.parse(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    assert parser.frames == 1 and json.loads(msgspec.json.encode(told)) is not None


# Headers.


def test_header_to_instruments():
    first = instruments_from_header(HEADER)[0]
    assert (first.id, first.venue, first.token_ids, first.outcomes) == (
        "0xaa",
        "polymarket",
        ("1001", "1002"),
        ("Yes", "No"),
    )
    assert (first.price_decimals, first.qty_decimals, first.payout) == (4, 6, 10_000)
    assert (first.grid, first.min_qty, first.qty_step) == (FixedGrid(100), 5_000_000, 10_000)
    assert (first.fee.curve, first.fee.taker_ppm, first.fee.quantum) == (FeeCurve.VARIANCE, 50_000, 10)
    assert (first.fee.maker_ppm, first.fee.rebate_ppm) == (0, 250_000)
    assert (first.end_ns, first.guard_end, first.exclusive) == (None, False, False)


@pytest.mark.parametrize(
    ("more", "share"),
    [
        ({"category": "sports"}, 150_000),
        ({"category": "crypto"}, 200_000),
        ({"category": "politics"}, 250_000),
        ({"category": "sports", "rebate_share": "0.25"}, 250_000),
        ({"rebate_share": "0"}, 0),
    ],
)
def test_rebate_share(more, share):
    header = {**HEADER, "instruments": [{**HEADER["instruments"][0], **more}]}
    assert instruments_from_header(header)[0].fee.rebate_ppm == share


def test_header_round_trip():
    more = {
        "neg_risk": True,
        "event_id": "e7",
        "category": "sports",
        "cluster": "nhl",
        "tick_size": "0.0025",
        "reward": ["0.045", "20", "3.5"],
        "start_time": "2026-06-07T01:00:00Z",
        "end_time": "2026-06-07T04:00:00.000001Z",
    }
    listings = [HEADER["instruments"][0], {**HEADER["instruments"][1], **more}]
    found = instruments_from_header({**HEADER, "instruments": listings})
    assert found[1].end_ns == 1780804800 * 10**9 + 1000 and found[1].guard_end and found[1].exclusive
    assert found[1].reward.max_spread == 450 and found[1].reward.pool_per_day == 3_500_000
    assert instruments_from_header(json.loads(json.dumps(header_from_instruments(found)))) == found


@pytest.mark.parametrize(
    ("change_of", "message"),
    [
        ({"tick_size": "0.03"}, r"instruments\[1\].tick_size: not a tick: '0.03'"),
        ({"fee_rate": "5%"}, r"instruments\[1\].fee_rate: not a plain decimal"),
        ({"end_time": "2026-06-07T04:00:00"}, r"instruments\[1\].end_time: not an ISO 8601 time with an offset"),
        ({"token_ids": ["1", "1"]}, "a token is listed twice"),
        ({"token_ids": ["1"]}, "token_ids"),
        ({"fee_rate": None}, "fee_rate"),
    ],
)
def test_header_faults_are_named(change_of, message):
    listings = [HEADER["instruments"][0], {**HEADER["instruments"][1], **change_of}]
    with pytest.raises(WireError, match=message) as caught:
        instruments_from_header({**HEADER, "instruments": listings})
    assert "\n" not in str(caught.value)


def test_header_of_another_venue_or_none():
    with pytest.raises(WireError, match="venue"):
        instruments_from_header({**HEADER, "venue": "kalshi"})
    with pytest.raises(WireError, match="instruments"):
        instruments_from_header({"venue": "polymarket"})


# Real data, where it lies beside the checkout.


@pytest.mark.skipif(not TAPES, reason="no recorded tape beside the checkout")
def test_the_recorded_tape_is_read_whole():
    reader = TapeReader(TAPES[0])
    parser = Wire(instruments_from_header(reader.header))
    kinds, bests = {}, {}
    for line in reader:
        if parser.frames == 5_000:
            break
        for event in parser.parse(line.frame):
            kinds[type(event).__name__] = kinds.get(type(event).__name__, 0) + 1
            if isinstance(event, BookDelta):
                bests[event.instrument] = event.best_bid, event.best_ask
    print(kinds, "mirror mismatches:", parser.mirror_mismatch)
    assert parser.malformed == parser.unknown == {} and parser.unknown_asset == 0
    assert parser.mirror_mismatch == 0
    # One event a frame but for the mirrors of six books; a book may tell another tick than the header.
    listed = kinds.pop("InstrumentListed", 0)
    assert listed <= 1 and kinds["BookSnapshot"] == 6 and sum(kinds.values()) == 5_000 - 6
    assert all(0 <= bid < ask <= 10_000 for bid, ask in bests.values())


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no fixture messages beside the checkout")
def test_fixture_messages_of_another_project_are_understood():
    names = [
        *FIXTURES.glob("crates/adapters/polymarket/test_data/ws_market_*.json"),
        *FIXTURES.glob("tests/**/ws_messages/last_trade_price.json"),
        *FIXTURES.glob("tests/**/ws_messages/tick_size_change.json"),
    ]
    assert names
    for path in sorted(names):
        message = json.loads(path.read_text())
        changed = message.get("price_changes", [{}])
        asset = message.get("asset_id") or message.get("winning_asset_id") or changed[0].get("asset_id") or "none"
        listing = {**HEADER["instruments"][0], "token_ids": [asset, "other"], "condition_id": message["market"]}
        parser = Wire(instruments_from_header({**HEADER, "instruments": [{**listing, "tick_size": "0.1"}]}))
        events = parser.parse(path.read_bytes())
        assert parser.malformed == parser.unknown == {}, path.name
        assert events or parser.new_markets or "tick" in path.name, path.name
