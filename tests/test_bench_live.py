"""Every live benchmark runs at its smallest size and gives its rows; their venue counts honestly; no test looks at a time."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from benchmarks import __main__ as main
from benchmarks import legs, live, watched
from benchmarks.digests import digest, signed_by
from benchmarks.loopback_markets import BUY, SELL, Feed, Market
from benchmarks.reactions import Reactions, Resting
from benchmarks.rows import TINY
from llm_maker.core.book import Applied, Book
from llm_maker.core.events import BookDelta, BookSnapshot
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.venues.polymarket.listing import gamma

KINDS = ("tick to order, where nothing rests", "tick to cancel, where the price moved", "tick to the new order behind that cancel")

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells another process's peak memory")


def test_every_live_benchmark_is_tested_here():
    assert list(main.LIVE) == ["sign", "burst", "wire", "live_memory", "watched"]
    assert list(main.ALL) == [*main.BENCHMARKS, *main.LIVE]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sign", ["draft and sign an order", "one coincurve signature and two keccaks", "draft and sign over that"]),
        ("burst", ["orders through our port"]),
        pytest.param("live_memory", ["peak memory live, 3 markets"], marks=linux),
    ],
)
def test_a_live_benchmark_gives_its_rows(name, expected, tmp_path):
    rows = main.LIVE[name](TINY, tmp_path)
    assert [r.name for r in rows][: len(expected)] == expected
    assert all(r.value > 0 for r in rows), "a figure of nothing was measured"


@pytest.mark.prove
def test_both_legs_answer_on_the_wire(tmp_path):
    rows = {r.name: r for r in live.wire(TINY, tmp_path)}
    bots = ["ours"] if legs.missing_bot() else ["ours", "typical bot"]
    for rate in TINY.live_rates:
        for words in KINDS:
            assert all(rows[f"{words}, {rate}/s: {bot}"].value > 0 for bot in bots)
            if not legs.missing_bot():
                assert rows[f"{words}, {rate}/s: p50 over the typical bot's"].goal == 0.5
                assert rows[f"{words}, {rate}/s: p99 over the typical bot's"].goal == 0.5


@pytest.mark.prove
def test_the_daemon_is_measured_alone_and_watched(tmp_path):
    rows = {r.name: r for r in watched.watched(TINY, tmp_path)}
    for rate in TINY.live_rates:
        for words in KINDS[:2]:
            assert all(rows[f"{words}, {rate}/s: {look}"].value > 0 for look in watched.LOOKS)
            for other in ("alone", "eyes elsewhere"):
                assert rows[f"{words}, {rate}/s: p99 watched over {other}"].goal == watched.GOAL


def test_without_the_typical_bot_ours_is_measured_alone_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(legs, "missing_bot", lambda: "the library is not there")
    told = {"ours": [{**{kind: [1_000] for kind in ("order", "cancel", "replace")}, "counts": {}, "achieved": 100.0}]}
    rows = live._of_rate(100, told)
    assert len(rows) == 3 and all("the library is not there" in r.note and r.goal is None for r in rows)


# The venue's own arithmetic.


def test_the_frames_make_a_true_book_of_which_both_tokens_tell():
    feed = Feed(3, 4)
    found = [gamma.candidate(json.dumps(market.listing()).encode(), 1).instrument for market in feed.markets]
    wire = Wire(instrument for instrument in found if instrument is not None)
    books = {market.id: Book(payout=10_000) for market in feed.markets}
    now_ms = 10**12 + 1
    for market in feed.markets:
        market.changed_ms = now_ms
        for token in (market.yes, market.no):
            for event in wire.parse(json.dumps(market.book(token)).encode()):
                assert isinstance(event, BookSnapshot)
                books[event.instrument].apply_snapshot(event, 1)
    kinds = set()
    for number in range(3_000):
        told = feed.next(5)
        kinds.add(told.kind)
        tops = told.market.best
        before = books[told.market.id].best_bid, books[told.market.id].best_ask
        (event,) = wire.parse(told.frame(number, now_ms + number))
        assert isinstance(event, BookDelta)
        book = books[event.instrument]
        assert book.apply_delta(event, number) is Applied.APPLY and book.pruned == 0
        assert (book.best_bid, book.best_ask) == (100 * tops[0], 100 * tops[1])
        assert ((book.best_bid, book.best_ask) != before) == bool(told.kind), "a frame moves the top, and says so"
        spread = tops[1] - tops[0]
        assert spread > 10 if told.market.wide else 4 <= spread <= 10
    assert kinds == {"", "move", "wide", "back"}
    assert (wire.malformed, wire.mirror_mismatch) == ({}, 0)


def test_the_same_seed_gives_the_same_frames():
    one, other, third = ([Feed(seed, 3).next(4).frame(n, 10**12) for n in range(200)] for seed in (1, 1, 2))
    assert one == other != third


def _resting(side: str, price: int) -> Resting:
    return Resting(("m", side), price, {})


def test_a_move_is_answered_by_its_cancel_and_then_by_its_price():
    reactions = Reactions()
    reactions.ordered(1, "a", _resting(BUY, 40))
    reactions.scored = True
    reactions.moved(100, "m", {BUY: 41})
    reactions.canceled(130, "a")
    reactions.ordered(140, "b", _resting(BUY, 40))
    reactions.ordered(150, "c", _resting(BUY, 41))
    told = reactions.report()
    assert (told["order"], told["cancel"], told["replace"]) == ([], [30], [50])
    assert told["counts"]["other orders"] == 1


def test_what_comes_back_has_nothing_to_cancel_and_what_is_overtaken_is_missed():
    reactions = Reactions()
    reactions.scored = True
    reactions.moved(100, "m", {BUY: 41, SELL: 45})
    reactions.ordered(110, "a", _resting(BUY, 41))
    reactions.moved(200, "m", {SELL: 46})
    reactions.ordered(230, "b", _resting(SELL, 46))
    reactions.moved(300, "m", {BUY: 0, SELL: 0})
    reactions.canceled(320, "a")
    told = reactions.report()
    assert (told["order"], told["cancel"], told["replace"]) == ([10, 30], [20], [])
    assert (told["counts"]["missed"], told["counts"]["missed cancels"]) == (1, 1)


def test_answers_to_a_warm_up_are_no_samples():
    reactions = Reactions()
    reactions.moved(100, "m", {BUY: 41})
    reactions.scored = True
    reactions.ordered(150, "a", _resting(BUY, 41))
    assert reactions.report()["order"] == []


def test_a_digest_is_that_of_another_implementation_and_tells_the_signer():
    dice = Random(5)
    for _ in range(5):
        order = {
            "salt": dice.getrandbits(53),
            "maker": legs.ADDRESS,
            "signer": legs.ADDRESS,
            "tokenId": Market(3, dice).no,
            "makerAmount": str(dice.randrange(1, 10**9)),
            "takerAmount": str(dice.randrange(1, 10**9)),
            "side": dice.choice((BUY, SELL)),
            "signatureType": 0,
            "timestamp": "1763000000000",
            "metadata": "0x" + "00" * 32,
            "builder": "0x" + "00" * 32,
        }
        typed = encode_typed_data(full_message=_typed_data(order))
        signed = Account.sign_message(typed, legs.KEY)
        assert digest(order) == signed.message_hash
        assert signed_by(digest(order), "0x" + signed.signature.hex().removeprefix("0x")) == legs.ADDRESS.lower()
        assert signed_by(digest({**order, "salt": 1}), signed.signature.hex()) != legs.ADDRESS.lower()


def _typed_data(order: dict[str, object]) -> dict[str, object]:
    kinds = {"salt": "uint256", "maker": "address", "signer": "address", "tokenId": "uint256", "makerAmount": "uint256"}
    kinds |= {"takerAmount": "uint256", "side": "uint8", "signatureType": "uint8", "timestamp": "uint256"}
    kinds |= {"metadata": "bytes32", "builder": "bytes32"}
    domain = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    numbers = {name: int(str(order[name])) for name in ("tokenId", "makerAmount", "takerAmount", "timestamp")}
    return {
        "primaryType": "Order",
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain.items()],
            "Order": [{"name": name, "type": kind} for name, kind in kinds.items()],
        },
        "domain": {
            "name": "Polymarket CTF Exchange",
            "version": "2",
            "chainId": 137,
            "verifyingContract": "0xE111180000d2663C0091e4f400237545B87B996B",
        },
        "message": {**order, **numbers, "side": int(order["side"] == SELL), "metadata": bytes(32), "builder": bytes(32)},
    }
