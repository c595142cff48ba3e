"""What rehearsals with paper money share: a daemon without a key, its proofs at the end, and what the venue said beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import lab
from llm_maker.app import STRATEGIES
from llm_maker.core.commands import CancelOrder
from llm_maker.core.events import BookDelta, BookSnapshot, FeedLost, Started, Tick, VenueDown
from llm_maker.core.state import State
from llm_maker.core.values import Leg
from llm_maker.runtime.journal import Entry
from llm_maker.runtime.journal import files as journal_files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.replay import compare, engine_from
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.records import ExchangeParams
from tests.rehearsal.stage import Rehearsal

Status = dict[str, Any]


def paper(home: Path, seed: int, speed: float, **settings: Any) -> Rehearsal:
    return Rehearsal(home, seed, speed, mode="paper", **settings)


def calm() -> dict[str, Any]:
    """Settings under which only the feed takes quotes away, not the market's moves."""
    return {"risk": {"jump_ticks": 1_000, "sweep_pct": 100, "volatility_widen_ratio": 500, "volatility_pull_ratio": 1_000}}


def quoted(status: Status) -> bool:
    """Something of ours rests in every market, and no gate is closed."""
    return bool(status["markets"]) and all(
        line["mode"] == "active" and (line["our_bid"] or line["our_ask"]) for line in status["markets"]
    )


def ended(rehearsal: Rehearsal) -> dict[str, Any]:
    """Stopped in order, with nothing resting; what the journal holds is proved, and agrees with the paper exchange."""
    result = rehearsal.stop()
    assert (result["exit_code"], result["clean_stop"], result["resting"]) == (0, True, []), rehearsal.errors()[-3000:]
    assert lab.replay(rehearsal.journal)["proved"] is True
    agree(rehearsal)
    return result


def agree(rehearsal: Rehearsal) -> None:
    """After a clean stop: cash and shares of the core are those of the paper exchange, which holds no order any more."""
    header = read_journal(journal_files(rehearsal.journal, "main")[-1]).header
    state = engine_from(header, STRATEGIES).state
    exchange = Exchange(msgspec.convert(header.meta["exchange"], ExchangeParams))
    exchange.restore(bytes(header.simulators["main/paper"]))
    assert state.cash == exchange.cash and exchange.resting() == []
    theirs = {key: qty for key, qty in exchange.holdings().items() if qty}
    ours = {
        (name, leg): side.settled + side.pending
        for name, market in state.markets.items()
        for leg, side in ((Leg.YES, market.position.yes), (Leg.NO, market.position.no))
        if side.settled + side.pending
    }
    assert ours == theirs


def replayed(rehearsal: Rehearsal) -> Iterator[tuple[Entry, State]]:
    """Every entry of the journal with the state after it."""
    for path in journal_files(rehearsal.journal, "main"):
        reader = read_journal(path)
        engine = engine_from(reader.header, STRATEGIES)
        for entry in reader:
            compare(entry, engine.on_event(entry.ts, entry.event))
            yield entry, engine.state


def nothing_rests_on_doubt(rehearsal: Rehearsal) -> None:
    """At every Tick, and in the step that learns of a gap: where a book is not trusted, all of ours is on its way out."""
    for entry, state in replayed(rehearsal):
        if not isinstance(entry.event, Tick | FeedLost | VenueDown | BookSnapshot | BookDelta):
            continue
        for market in state.markets.values():
            venue = state.venues[market.instrument.venue]
            blind = not market.book.trusted or not venue.up
            if blind or (isinstance(entry.event, Tick) and (venue.lagging or venue.silent or venue.delayed)):
                left = [order for order in state.live_orders(market) if order.may_cancel]
                assert not left, f"entry {entry.seq}, {entry.event}: {left}"


def pulled(entries: list[Entry], from_ns: int, to_ns: int) -> set[str]:
    """Why quotes were canceled in a stretch of market time."""
    commands = [command for entry in entries if from_ns <= entry.ts <= to_ns for command in entry.commands]
    return {command.reason for command in commands if isinstance(command, CancelOrder)}


def sessions(entries: list[Entry]) -> list[list[Entry]]:
    """The entries of each run, each from its `Started` on."""
    starts = [place for place, entry in enumerate(entries) if isinstance(entry.event, Started)]
    return [entries[begin:end] for begin, end in zip(starts, [*starts[1:], len(entries)], strict=True)]


def push(rehearsal: Rehearsal, *frames: str) -> None:
    """Texts from the venue to everybody who listens to market data."""

    def send() -> None:
        for connection in rehearsal.venue.sockets.connections:
            for frame in frames:
                connection.put(frame)

    rehearsal.background.call(send)


def pass_time(rehearsal: Rehearsal, hours: float) -> None:
    """The venue's clock goes ahead, with nobody there to see it."""

    def ahead() -> None:
        rehearsal.venue._anchor_ms += int(hours * 3_600_000)

    rehearsal.background.call(ahead)
