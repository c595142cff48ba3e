"""Proof of a journal: its events through a fresh engine must give, command for command, what was recorded.

Also the way back after a crash: the same, with the simulated world moved along. Reads files, writes none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec

from llm_maker.core.commands import AnyCommand
from llm_maker.core.engine import Engine, restore
from llm_maker.core.events import (
    AccountEvent,
    ClockStepped,
    Event,
    IntentReceived,
    LoopDelayed,
    MarketEvent,
    OperatorActed,
    ParamsChanged,
    SignalsFailed,
    SignalsReceived,
    SignalsSkipped,
    Started,
    StopRequested,
    StorageFailed,
    VenueDown,
    WeightUpdated,
)
from llm_maker.core.strategy import Strategy
from llm_maker.port import Simulator
from llm_maker.runtime.journal import Entry, Header
from llm_maker.runtime.journal_reader import JournalReader, read_journal
from llm_maker.runtime.timeline import Timeline

_OF_ACCOUNTS = frozenset(get_args(AccountEvent))
_FROM_OUTSIDE: frozenset[type[Event]] = frozenset(
    (Started, StopRequested, OperatorActed, IntentReceived, ParamsChanged, WeightUpdated, StorageFailed, ClockStepped, LoopDelayed)
)
"""No simulator ever says these."""
_OF_A_MODEL: frozenset[type[Event]] = frozenset((SignalsReceived, SignalsFailed, SignalsSkipped))


OF_A_FEED: frozenset[type[Event]] = frozenset(get_args(MarketEvent))
OF_A_VENUE: frozenset[type[Event]] = OF_A_FEED | _OF_ACCOUNTS
"""What a live feed says, and a live venue."""


_SHOWN = 300
"""Characters of a value that differs."""


class ReplayDiffers(Exception):
    """The engine of this build decides otherwise than the journal says; names the line's sequence and both commands."""


class Replayed(msgspec.Struct, frozen=True):
    """What a proof found: every entry's commands were the recorded ones."""

    entries: int
    commands: int
    torn: str | None
    final_ts: int


def engine_from(header: Header, strategies: dict[str, Strategy]) -> Engine:
    """The engine as the file's checkpoint left it."""
    name = msgspec.json.decode(header.state, type=_StrategyName).strategy
    strategy = strategies[name]
    return Engine(restore(bytes(header.state), strategy), strategy)


class _StrategyName(msgspec.Struct):
    strategy: str


def replay(path: Path, strategies: dict[str, Strategy], progress: Callable[[int], None] | None = None) -> Replayed:
    """Replay one journal file; raises `ReplayDiffers`, or `JournalDamaged` with the line."""
    reader = read_journal(path)
    engine = engine_from(reader.header, strategies)
    entries = commands = 0
    for entry in reader:
        compare(entry, engine.on_event(entry.ts, entry.event))
        entries += 1
        commands += len(entry.commands)
        if progress and entries % 5000 == 0:
            progress(entries)
    return Replayed(entries, commands, reader.torn, reader.last_ts)


def compare(entry: Entry, made: list[AnyCommand]) -> None:
    """The recorded commands against those just made."""
    if tuple(made) == entry.commands:
        return
    for number, (old, new) in enumerate(zip(entry.commands, made, strict=False)):
        if old != new:
            raise ReplayDiffers(f"entry {entry.seq}, command {number}: {_difference(old, new)}")
    raise ReplayDiffers(f"entry {entry.seq}: recorded {len(entry.commands)} commands, now {len(made)}")


def _difference(old: object, new: object, name: str = "") -> str:
    """Where two values part, down to the first field: a question to the model alone would fill a page."""
    if type(old) is type(new):
        fields = getattr(old, "__struct_fields__", ())
        parts = [(f"{name or type(old).__name__}.{field}", getattr(old, field), getattr(new, field)) for field in fields]
        if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
            parts = [(f"{name}[{n}]", mine, other) for n, (mine, other) in enumerate(zip(old, new, strict=True))]
        for where, mine, other in parts:
            if mine != other:
                return _difference(mine, other, where)
    return f"{name + ': ' if name else ''}recorded {str(old)[:_SHOWN]}, now {str(new)[:_SHOWN]}"


def catch_up(
    reader: JournalReader,
    engine: Engine,
    timeline: Timeline,
    simulators: list[Simulator],
    feeds: list[Simulator],
    on_entry: Callable[[Entry], None],
    *,
    real_analyst: bool = False,
    outside: frozenset[type[Event]] = frozenset(),
) -> int:
    """Move engine and simulated world from a file's checkpoint to its last whole line; returns the last sequence.

    What the simulated world said must be what the timeline gives next; what came from outside (a person, with
    `real_analyst` a model, and whatever kind of event `outside` names) is applied as it stands. Commands are executed again,
    because the world they went to is rebuilt here. Raises `ReplayDiffers` where world or engine go another way: going on
    would fill an order twice.
    """
    for entry in reader:
        if outside and isinstance(entry.event, Started | LoopDelayed):
            timeline.skip_to(entry.ts)
        if _said_by_world(entry, timeline, outside | (_OF_A_MODEL if real_analyst else frozenset()), live=bool(outside)):
            timeline.pop()
        if type(entry.event) not in _OF_ACCOUNTS:
            for simulator in simulators:
                simulator.observe(entry.ts, entry.event)
        compare(entry, engine.on_event(entry.ts, entry.event))
        for command in entry.commands:
            for simulator in simulators + feeds:
                simulator.execute(entry.ts, command)
        on_entry(entry)
    return reader.last_seq


def _said_by_world(entry: Entry, timeline: Timeline, others: frozenset[type[Event]], *, live: bool) -> bool:
    """Whether the timeline's next event is this entry, which then is to be taken from it.

    For an entry from outside no source of the same moment may be asked: what the entry commands comes before that.
    """
    kind = type(entry.event)
    outside = kind in _FROM_OUTSIDE or kind in others
    item = timeline.peek(entry.ts - 1 if outside else entry.ts)
    if item is not None and item[2] == entry.event:
        return True
    # Beside a live feed what the exchange owes from before a restart comes after the restart.
    if not (outside or kind is VenueDown) or (item is not None and item[0] < entry.ts and not live):
        told = "nothing" if item is None else f"{item[2]} at {item[0]}"
        raise ReplayDiffers(f"entry {entry.seq}: recorded {entry.event} at {entry.ts}, the simulated world now says {told}")
    return False
