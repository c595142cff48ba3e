"""An account brought back: the newest journal file's checkpoint, its entries on top, the simulated world moved along beside it.

The journal is the truth; the ledger is indexed from it where it lies behind. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.engine import Engine
from llm_maker.core.events import Event, OrderAccepted
from llm_maker.core.state import State
from llm_maker.core.strategy import Strategy
from llm_maker.port import Simulator
from llm_maker.runtime.journal import JournalDamaged
from llm_maker.runtime.journal import files as journal_files
from llm_maker.runtime.journal_reader import JournalReader, read_journal, recover
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.replay import ReplayDiffers, catch_up, engine_from
from llm_maker.runtime.rows import Scope
from llm_maker.runtime.timeline import Timeline
from llm_maker.world import Refused, same_world

TAPE = "-tape_"
"""In the folder name of a run on a recorded tape, which is a world of its own each time."""
ANALYST = "llm"
"""The name every analyst has, simulated or not."""
MakeRecorder = Callable[[State], Recorder]


def scope_of(config: Config, tape: Path | None, session: int | None = None, wallet: str = "") -> Scope:
    """Whose rows these are; a tape rehearsal is a new one each time, a live account is its `wallet`'s."""
    wallet = f"tape:{tape.name}#{session}" if tape else config.mode if config.mode == "paper" else wallet
    return Scope("polymarket" if tape else config.venue, config.mode, wallet, config.account)


def folder_of(scope: Scope) -> str:
    """The name of an account's folder of journals."""
    return "-".join(part.replace(":", "_").replace("#", "_").replace("/", "_") for part in scope.key[:3])


class Place(msgspec.Struct, frozen=True):
    """Where an account lives: its home, its journal's folder, its scope in the ledger."""

    home: Path
    folder: Path
    account: str
    scope: Scope
    ledger: Ledger


class Comeback(msgspec.Struct, frozen=True):
    """The account as it was, ready to go on; `reader` None: it never ran."""

    engine: Engine
    recorder: Recorder
    seq: int = 0
    latest: Path | None = None
    reader: JournalReader | None = None
    cuts: tuple[str, ...] = ()
    """What a kill had left half written, and was cut."""


def bring_back(
    place: Place,
    timeline: Timeline,
    simulators: list[Simulator],
    fresh: Engine,
    strategies: dict[str, Strategy],
    label: dict[str, Any],
    make_recorder: MakeRecorder,
    outside: frozenset[type[Event]] = frozenset(),
) -> Comeback:
    """Restore what the journal holds, or hand back `fresh`; raises `world.Refused` for a home that cannot go on as asked.

    `outside`: kinds of event that no simulator says in this run.
    """
    _refuse_mixing(place)
    latest, cuts = recover(place.folder, place.account)
    if latest is None:
        if place.ledger.last_seq(place.scope):
            raise Refused(
                f"{place.folder}: the ledger knows this account, but its journal is gone; bring it back, or give another --home"
            )
        return Comeback(fresh, make_recorder(fresh.state), cuts=tuple(cuts))
    reader = read_journal(latest)
    engine = engine_from(reader.header, strategies)
    if engine.state.strategy != fresh.state.strategy:
        raise Refused(
            f"{place.home}: this home is of strategy {engine.state.strategy!r}, whose state another cannot go on from; "
            f"for {fresh.state.strategy!r} give another --home"
        )
    same_world(reader.header.meta, label, place.home)
    # The model behind the signals may be another one each time; feed, exchange and clock may not.
    saved = {name: bytes(raw) for name, raw in reader.header.simulators.items()}
    joined = timeline.restore(saved, may_change=(ANALYST,))
    _index_older(place, reader.header.first_seq, strategies, make_recorder)
    recorder = make_recorder(engine.state)
    seq = _replay_tail(place, reader, engine, timeline, [s for s in simulators if s not in joined], recorder, outside)
    return Comeback(engine, recorder, seq, latest, reader, tuple(cuts))


def _refuse_mixing(place: Place) -> None:
    """Real money, paper money and each venue have homes of their own; a tape may be played on any."""
    if TAPE in place.folder.name or not place.folder.parent.is_dir():
        return
    for other in sorted(place.folder.parent.iterdir()):
        if other != place.folder and TAPE not in other.name and any(other.glob("journal-*")):
            there, asked = other.name.split("-", 2), place.scope.key
            raise Refused(f"{place.home}: this home is of {_named(*there)}; for {_named(*asked[:3])} give another --home")


def _named(venue: str, mode: str, wallet: str) -> str:
    return f"{mode} on {venue}" + (f" with {wallet}" if mode == "live" else "")


def _replay_tail(
    place: Place,
    reader: JournalReader,
    engine: Engine,
    timeline: Timeline,
    there: list[Simulator],
    recorder: Recorder,
    outside: frozenset[type[Event]],
) -> int:
    recorder.quiet = True
    try:
        seq = catch_up(
            reader,
            engine,
            timeline,
            there,
            [s for account, s in timeline.sources if not account],
            lambda entry: recorder.record(entry.seq, entry.ts, entry.event, list(entry.commands)),
            real_analyst=all(s.name != ANALYST for s in there),
            outside=outside,
        )
    except ReplayDiffers as error:
        raise Refused(
            f"{place.home}: its last run ended in a crash, and this build decides otherwise than the one that wrote it; start it "
            f"once with that build ({reader.header.version}) and stop it, or give another --home ({error})"
        ) from None
    recorder.speak()
    recorder.indexed(seq)
    return seq


def _index_older(place: Place, before_seq: int, strategies: dict[str, Strategy], make_recorder: MakeRecorder) -> None:
    """Rows that the ledger lacks from files before the newest: it lay behind at a kill, or had to be made anew."""
    behind = place.ledger.last_seq(place.scope)
    older = journal_files(place.folder, place.account)[:-1] if behind + 1 < before_seq else []
    for path in older:
        reader = read_journal(path)
        engine = engine_from(reader.header, strategies)
        recorder = make_recorder(engine.state)
        recorder.quiet = True
        for entry in reader:
            engine.on_event(entry.ts, entry.event)
            recorder.record(entry.seq, entry.ts, entry.event, list(entry.commands))
        recorder.close()


def known_orders(home: Path) -> list[str]:
    """The venue's ids of our own orders, as the newest journals of a home tell them; [] where there is none that can be read."""
    found: list[str] = []
    for folder in sorted((home / "logs" / "journal").glob("*-live-*")):
        try:
            for path in journal_files(folder, "main")[-2:]:
                for entry in read_journal(path):
                    if isinstance(entry.event, OrderAccepted):
                        found.append(entry.event.venue_id)
        except (JournalDamaged, OSError):
            continue
    return found
