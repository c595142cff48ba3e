"""What the venue lists and what is written down of it: tapes of `record`, the survey, and markets that change, end and begin."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_maker.console.control import ControlClient
from llm_maker.core.book import Book
from llm_maker.core.commands import CancelOrder, PlaceOrder
from llm_maker.core.events import BookDelta, BookSnapshot, CashKind, CashMoved, InstrumentListed, MarketResolved
from llm_maker.runtime.tape import TapeReader
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.venues.polymarket.listing.tape_header import instruments_from_header
from tests.fakes.polymarket.setup import some_markets
from tests.rehearsal.paper import calm, ended, nothing_rests_on_doubt, paper, quoted
from tests.rehearsal.stage import Rehearsal

# Tapes.


class Sent:
    """Every frame of market data that the venue has sent, in order; PONGs are left out."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.frames: list[bytes] = []
        sockets = rehearsal.venue.sockets
        send = sockets._send

        def noted(connection: Any, text: str) -> None:
            self.frames.append(text.encode())
            send(connection, text)

        sockets._send = noted


def frames_of(tape: Path) -> list[bytes]:
    return [bytes(frame.frame) for frame in TapeReader(tape) if b"PONG" not in bytes(frame.frame)]


def fall_silent(rehearsal: Rehearsal) -> None:
    """Nobody trades any more, and what was said has arrived."""

    def silent() -> None:
        rehearsal.venue.crowd_every_ms = 0

    rehearsal.background.call(silent)
    time.sleep(0.3)


def record(rehearsal: Rehearsal, tape: Path) -> None:
    rehearsal.start("--out", str(tape), verb=("record",))


def heard(rehearsal: Rehearsal, tape: Path, frames: int, sent: Sent) -> None:
    end = time.monotonic() + 20
    while len(sent.frames) < frames or not tape.exists():
        assert rehearsal.alive() and time.monotonic() < end, rehearsal.errors()
        time.sleep(0.02)


def backtest(rehearsal: Rehearsal, tape: Path) -> dict[str, Any]:
    done = rehearsal.verb("backtest", "--tape", str(tape), "--json", "--home", str(rehearsal.home / "lab"))
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("suffix", ["jsonl.zst", pytest.param("jsonl", marks=pytest.mark.prove)])
def test_a_tape_holds_what_was_sent_to_the_last_word_and_is_never_written_over(tmp_path, suffix):
    tape = tmp_path / f"some.{suffix}"
    with paper(tmp_path / "home", 21, 20.0) as rehearsal:
        sent = Sent(rehearsal)
        record(rehearsal, tape)
        heard(rehearsal, tape, 150, sent)
        fall_silent(rehearsal)
        result = rehearsal.stop()
        assert (result["exit_code"], result["markets"], result["markets_heard"]) == (0, 3, 3)
        assert frames_of(tape) == sent.frames and TapeReader(tape).header["venue"] == "polymarket"
        assert result["bytes"] == tape.stat().st_size
        played = backtest(rehearsal, tape)
        assert played["frames"] == result["frames"] and played["orders_placed"] > 0 and not played.get("truncated")
        before = tape.read_bytes()
        again = rehearsal.verb("record", "--out", str(tape), "--duration", "1")
        assert again.returncode == 2 and again.stderr == f"error: {tape} is there already; a tape is never written over\n"
        assert tape.read_bytes() == before


def books_of(tape: Path) -> dict[str, Book]:
    """Every book as a tape leaves it."""
    reader = TapeReader(tape)
    instruments = instruments_from_header(reader.header)
    wire = Wire(instruments)
    books = {instrument.id: Book(payout=instrument.payout) for instrument in instruments}
    for frame in reader:
        for event in wire.parse(frame.frame):
            if isinstance(event, BookSnapshot):
                books[event.instrument].apply_snapshot(event, frame.recv_ns)
            elif isinstance(event, BookDelta):
                books[event.instrument].apply_delta(event, frame.recv_ns)
    return books


@pytest.mark.prove
def test_a_tape_over_lost_and_exchanged_sockets_ends_with_the_true_books(tmp_path):
    tape = tmp_path / "long.jsonl.zst"
    with paper(tmp_path / "home", 22, 20.0, polymarket={"reconnect_minutes": 1}) as rehearsal:
        sent = Sent(rehearsal)
        record(rehearsal, tape)
        heard(rehearsal, tape, 30, sent)
        rehearsal.background.call(rehearsal.faults.on, "market_close", 1.0, times=1)
        rehearsal.wait(80)
        assert rehearsal.venue.counters["sockets_market"] >= 3, "one was closed, and one was exchanged"
        fall_silent(rehearsal)
        rehearsal.stop()
        books = books_of(tape)
        for market in rehearsal.venue.markets:
            truth = rehearsal.background.call(rehearsal.venue.house.book, market.yes, rehearsal.venue.now_ms())
            sides = [
                {int(Decimal(level["price"]) * 10_000): int(Decimal(level["size"]) * 1_000_000) for level in truth[side]}
                for side in ("bids", "asks")
            ]
            book = books[market.condition_id]
            assert book.trusted and [book.bids, book.asks] == sides
        backtest(rehearsal, tape)


@pytest.mark.prove
def test_a_killed_recording_is_read_to_its_last_whole_block(tmp_path):
    tape = tmp_path / "torn.jsonl.zst"
    with paper(tmp_path / "home", 23, 20.0) as rehearsal:
        sent = Sent(rehearsal)
        record(rehearsal, tape)
        heard(rehearsal, tape, 200, sent)
        rehearsal.kill()
        frames = frames_of(tape)
        assert len(frames) > 0 and frames == sent.frames[: len(frames)]
        backtest(rehearsal, tape)


# The survey, without a daemon.


def test_the_survey_names_every_market_and_why(tmp_path):
    with paper(tmp_path, 24, 1.0, market_selection={"max_markets": 2, "exclude": ["ferry"]}) as rehearsal:
        told = rehearsal.verb("markets", "--survey", "--json")
        found = json.loads(told.stdout)
        assert told.returncode == 0 and (found["surveyed"], found["chosen"]) == (3, 2)
        out = [row for row in found["markets"] if not row["chosen"]]
        assert [(row["question"], row["why"]) for row in out] == [
            ("Will the ferry leave on time?", "named in market_selection.exclude")
        ]
        text = rehearsal.verb("markets", "--survey")
        assert text.returncode == 0 and text.stdout.splitlines()[0] == "3 candidates, 2 chosen"
        assert "named in market_selection.exclude" in text.stdout and text.stderr == ""


# Markets that change.


@pytest.mark.prove
def test_markets_change_end_and_begin_while_it_runs(tmp_path):
    settings = {**calm(), "market_selection": {"max_markets": 3}, "polymarket": {"discovery_minutes": 1}}
    with paper(tmp_path, 25, 20.0, **settings) as rehearsal:
        venue, call = rehearsal.venue, rehearsal.background.call
        rehearsal.start()
        status = rehearsal.until(lambda s: quoted(s) and any(line["position"] for line in s["markets"]), 600)
        ending = next(line["market_id"] for line in status["markets"] if line["position"])
        moving = next(line["market_id"] for line in status["markets"] if line["market_id"] != ending)

        for tick in ("0.001", "0.01"):
            call(venue.house.change_tick, moving, Decimal(tick), venue.now_ms())
            placed = rehearsal.status()["counts"]["placed"]
            rehearsal.until(lambda s, placed=placed: s["counts"]["placed"] > placed + 2 and quoted(s))

        newcomer = some_markets(4, rehearsal.seed, venue.now_ms())[3]
        call(venue.list_market, newcomer)
        out: list[Any] = []
        rehearsal.until(lambda s: out.extend(ControlClient.call(tmp_path, "markets")["not_chosen"]) or out, 240)
        assert out[0]["market_id"] == newcomer.condition_id and "max_markets is 3" in out[0]["why"]

        call(venue.house.close_market, ending, venue.now_ms())
        status = rehearsal.until(lambda s: len(s["markets"]) == 4, 240)
        rehearsal.until(lambda s: all(line["our_bid"] or line["our_ask"] for line in s["markets"] if line["market_id"] != ending))
        why = ControlClient.call(tmp_path, "why", {"market": ending})
        gates = {gate["gate"]: gate for gate in why["gates"]}
        assert gates["market"]["mode"] == "reduce_only" and "closed" in gates["market"]["numbers"], gates["market"]
        held = why["position"]

        call(venue.house.resolve, ending, "yes", venue.now_ms())
        rehearsal.until(lambda s: not next(line for line in s["markets"] if line["market_id"] == ending)["position"], 240)
        ended(rehearsal)
        nothing_rests_on_doubt(rehearsal)
        entries = rehearsal.entries()

    regrids = [
        place for place, e in enumerate(entries) if isinstance(e.event, InstrumentListed) and e.event.instrument.id == moving
    ]
    grids = {entries[place].event.instrument.grid: place for place in regrids}
    assert len(grids) == 2
    for begin, end in zip(regrids[1:3], [regrids[2], len(entries)], strict=True):
        instrument = entries[begin].event.instrument
        orders = [c for e in entries[begin:end] for c in e.commands if isinstance(c, PlaceOrder) and c.instrument == moving]
        assert orders and all(instrument.on_grid(order.price) for order in orders)
        gone = [c for c in entries[begin].commands if isinstance(c, CancelOrder)]
        assert gone and {(c.instrument, c.reason) for c in gone} == {(moving, "tick change")}
    assert [e.event.price for e in entries if isinstance(e.event, MarketResolved)] == [10_000]
    paid = [e.event for e in entries if isinstance(e.event, CashMoved) and e.event.kind is CashKind.REDEMPTION]
    assert {event.instrument for event in paid} == {ending}
    assert sum(event.amount for event in paid) == max(0, round(held * 1_000_000)) or held < 0
