"""The fast loop: what one message costs, from the venue's bytes to the line in the journal, and how that grows with the markets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import ROOT, Row, Size, percentile, row, seconds
from benchmarks.stage import Costs, Stage
from benchmarks.tapes import find
from llm_maker import lab
from llm_maker.app import STRATEGIES
from llm_maker.config import load
from llm_maker.core.book import Book
from llm_maker.core.events import BookDelta, BookSnapshot
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.loop import HOT
from llm_maker.runtime.replay import engine_from
from llm_maker.world import open_tape

_CHUNK = 1_000
"""Messages measured in a world before the other has its turn, so that a busy machine disturbs both alike."""


def backtest(size: Size, folder: Path) -> list[Row]:
    """A whole backtest, everything on: cross-checked legs, bands, journal encoded, hashed and written, against bare decoding."""
    tape, what = find(size, folder)
    config = load(ROOT / "config.yaml", {}, {})
    results = [lab.backtest(config, tape, folder, "none") for _ in range(size.repeats)]
    hashes = {r["journal_sha256"] for r in results}
    assert len(hashes) == 1, f"backtests of one tape differ: {hashes}"
    note = f"{what}, {results[0]['frames']} frames, {results[0]['orders_placed']} orders"
    decoding = [r["decode_only_frames_per_second"] for r in results]
    return [
        row("backtest", [r["frames_per_second"] for r in results], "frames/s", more=True, note=note),
        row("bare msgspec decode of the same file", decoding, "frames/s", more=True),
        row("backtest over bare decode, per frame", [r["times_decode_only"] for r in results], "x", goal=10.0),
    ]


def messages(size: Size, folder: Path) -> list[Row]:
    """Parse, book, engine and journal on the tape: each alone, and in the order in which a live message meets them."""
    tape, what = find(size, folder)
    reader, instruments, _ = open_tape(tape)
    frames = [line.frame for line in reader]
    lab.backtest(load(ROOT / "config.yaml", {}, {}), tape, folder, "none")
    journal = read_journal(next((folder / "logs" / "backtest").glob("journal-*")))
    entries = list(journal)
    lines = _Lines(folder, journal.header.account)

    def books() -> None:
        parse, held = open_tape(tape, checked=True)[2].parse, {i.id: Book(payout=i.payout, heals_by_top=True) for i in instruments}
        for frame in frames:
            for event in parse(frame):
                if type(event) is BookDelta:
                    held[event.instrument].apply_delta(event, event.venue_ts)
                elif type(event) is BookSnapshot:
                    held[event.instrument].apply_snapshot(event, event.venue_ts)

    def written() -> None:
        write = lines.fresh().write
        for entry in entries:
            write(entry.seq, entry.ts, entry.event, entry.commands)

    def live() -> None:
        parse, engine, write = open_tape(tape, checked=True)[2].parse, engine_from(journal.header, STRATEGIES), lines.fresh().write
        told = iter(frames)
        for entry in entries:
            if type(entry.event) in HOT:
                parse(next(told))
            write(entry.seq, entry.ts, entry.event, engine.on_event(entry.ts, entry.event))

    decode = msgspec.json.Decoder().decode

    def decoded() -> None:
        for frame in frames:
            decode(frame)

    count = sum(type(e.event) in HOT for e in entries)
    try:
        bare = _each(size, decoded, len(frames))
        to_book = _each(size, books, len(frames))
        whole = _each(size, live, count)
        return [
            row("bytes to book (parse both legs, apply)", to_book, "us/message", note=what),
            row("bytes to book over bare decode of a frame", [b / d for b, d in zip(to_book, bare, strict=True)], "x"),
            row("journal line (encode, hash, buffer, write)", _each(size, written, len(entries)), "us/line"),
            row("bytes to decision to journal", whole, "us/message", note="without the socket and without the simulated exchange"),
            row("the same, on one core", [1e6 / w for w in whole], "messages/s", goal=50_000, more=True),
        ]
    finally:
        lines.close()


def _each(size: Size, work: Callable[[], Any], count: int) -> list[float]:
    """Microseconds per item, once a repeat."""
    return [seconds(work) / count * 1e6 for _ in range(size.repeats)]


class _Lines:
    """A new journal each time, over the old one."""

    def __init__(self, folder: Path, account: str) -> None:
        self._folder, self._account = folder / "lines", account
        self._writer: JournalWriter | None = None

    def fresh(self) -> JournalWriter:
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = JournalWriter.create(self._folder, self._account, lambda: Checkpoint(b"{}"))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def engine(size: Size, folder: Path) -> list[Row]:
    """`Engine.on_event` alone in a living simulated world, strategy and gates on, orders resting and positions held."""
    stage, costs = Stage(folder, 20, size.warm_s), Costs()
    stage.measure(size.messages, costs)
    stage.close()
    note = f"SIMULATED, 20 markets, {sum(m.position.net != 0 for m in stage.state.markets.values())} of them with a position"
    rows = [_spread("on_event, a change below the top", costs.deep, note), _spread("on_event, the top changes", costs.top, note)]
    if costs.held:
        rows.append(_spread("on_event, the top changes where we hold and quote", costs.held, note))
    return rows


def _spread(name: str, took: list[int], note: str) -> Row:
    """The median, with p99 as the worst."""
    middle, high = percentile(took, 0.5) / 1e3, percentile(took, 0.99) / 1e3
    return Row(name=name, value=middle, unit="us", best=min(took) / 1e3, worst=high, note=f"worst is p99; {note}")


def growth(size: Size, folder: Path) -> list[Row]:
    """The median cost of a message (exchange, engine, journal) with few and with many markets, measured turn about."""
    stages = [Stage(folder, markets, size.warm_s) for markets in size.growth]
    rounds = [[Costs() for _ in stages] for _ in range(max(1, size.messages // _CHUNK))]
    for costs in rounds:
        for stage, cost in zip(stages, costs, strict=True):
            stage.measure(min(_CHUNK, size.messages), cost)
    for stage in stages:
        stage.close()
    few, many = size.growth

    def middle(kind: str, at: int) -> float:
        return percentile([took for costs in rounds for took in getattr(costs[at], kind)], 0.5) / 1e3

    note = f"SIMULATED, {few} and {many:,} markets, every one quoted"
    whole = middle("whole", 1) / middle("whole", 0)
    tops = middle("top", 1) / middle("top", 0)
    return [
        Row(name=f"p50 of a message, {few} markets", value=middle("whole", 0), unit="us", note=note),
        Row(name=f"p50 of a message, {many:,} markets", value=middle("whole", 1), unit="us"),
        Row(name="growth of the p50", value=whole, unit="x", goal=1.15),
        Row(name="growth where the top changes (engine alone)", value=tops, unit="x"),
    ]
