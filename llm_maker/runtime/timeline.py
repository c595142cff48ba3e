"""Simulated sources merged into one order of market time: feeds, exchanges, analysts, and the Ticks between them.

At equal times the source named first goes first. Knows no wall clock and no meaning of an event.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, runtime_checkable

import msgspec

from llm_maker.core.commands import Command
from llm_maker.core.events import AnyEvent, Event, Tick
from llm_maker.core.values import NS_PER_MS
from llm_maker.port import Simulator

TICK_NS = 250 * NS_PER_MS
_TICK = Tick()
_MAX_EMPTY = 10_000
"""Sources that are due but give nothing, in a row: past this one of them is broken."""

_READY = "timeline/ready"
_READY_DECODER = msgspec.json.Decoder(list[tuple[int, str, AnyEvent]])

Due = tuple[int, str, Event]
"""Market time, account ('' for all), event."""


@runtime_checkable
class _Skips(Protocol):
    """A source that does things merely because time passes."""

    def skip_to(self, now: int) -> None: ...


class Ticker:
    """A Tick every 250 ms of market time, from `start_ns` on."""

    name = "ticker"

    def __init__(self, start_ns: int) -> None:
        self._next = start_ns + TICK_NS

    def observe(self, now: int, event: Event) -> None:
        """A ticker listens to nobody."""

    def execute(self, now: int, command: Command) -> None:
        """A ticker obeys nobody."""

    def next_ns(self) -> int | None:
        return self._next

    def advance(self, now: int) -> list[Event]:
        if now < self._next:
            return []
        self._next += TICK_NS
        return [_TICK]

    def skip_to(self, now: int) -> None:
        """Leave out the Ticks of a time in which nothing ran."""
        self._next = max(self._next, now - now % TICK_NS + TICK_NS)

    def checkpoint(self) -> bytes:
        return msgspec.json.encode({"next": self._next})

    def restore(self, saved: bytes) -> None:
        self._next = msgspec.json.decode(saved)["next"]


class Timeline:
    """The earliest event of many simulators."""

    def __init__(self, sources: list[tuple[str, Simulator]]) -> None:
        """`sources` are (account, simulator); account '' is a feed that every account sees."""
        self.sources = sources
        self._feeds = [s for account, s in sources if not account and not isinstance(s, Ticker)]
        self._ready: deque[Due] = deque()

    @property
    def idle(self) -> bool:
        """Nothing has been taken from a source that was not yet handed on: the moment to begin a new file."""
        return not self._ready

    def skip_to(self, now: int) -> None:
        """Time passed in which nothing ran: its Ticks are left out, and whatever else only the passing of time brings."""
        for _, source in self.sources:
            if isinstance(source, _Skips):
                source.skip_to(now)

    def next_tick_ns(self) -> int | None:
        """When the next Tick is due; None: there are none."""
        return next((source.next_ns() for _, source in self.sources if isinstance(source, Ticker)), None)

    def next_ns(self) -> int | None:
        """When the next event is due; None: never."""
        if self._ready:
            return self._ready[0][0]
        turn = self._turn()
        return turn[0] if turn else None

    def pop(self, until_ns: int | None = None) -> Due | None:
        """The next event, in time order; None when there is none (by `until_ns`)."""
        ready = self._ready
        if not ready and not self._fill(until_ns):
            return None
        return ready.popleft()

    def peek(self, until_ns: int | None = None) -> Due | None:
        """The same without taking it."""
        return self._ready[0] if self._ready or self._fill(until_ns) else None

    def feeds_ended(self) -> bool:
        """Every shared feed but the ticker has nothing more to say."""
        if self._ready:
            return False
        for feed in self._feeds:  # noqa: SIM110  # asked before every event: a loop costs half of `all`
            if feed.next_ns() is not None:
                return False
        return True

    def _turn(self) -> tuple[int, str, Simulator] | None:
        """Whose turn it is, with its time and account; of two at one moment the one named first."""
        best: int | None = None
        account, chosen = self.sources[0] if self.sources else ("", None)
        for name, source in self.sources:
            due = source.next_ns()
            if due is not None and (best is None or due < best):
                best, account, chosen = due, name, source
        return None if best is None or chosen is None else (best, account, chosen)

    def _fill(self, until_ns: int | None) -> bool:
        """Take the next moment's events from their source; False where there is none (by `until_ns`)."""
        for _ in range(_MAX_EMPTY):
            turn = self._turn()
            if turn is None or (until_ns is not None and turn[0] > until_ns):
                return False
            due, account, source = turn
            for event in source.advance(due):
                self._ready.append((due, account, event))
            if self._ready:
                return True
        raise AssertionError("a source is due again and again and gives nothing")

    def checkpoint(self, *accounts: str) -> dict[str, bytes]:
        """Every source, and what was taken from one but not yet handed on (a crash may fall between two such events).

        With `accounts` ('' for the feeds) those of these alone: each journal holds what its own account goes on from.
        """
        saved = {self._key(name, source): source.checkpoint() for name, source in self.sources if not accounts or name in accounts}
        ready = [item for item in self._ready if not accounts or item[1] in accounts]
        if ready:
            saved[_READY] = msgspec.json.encode(ready)
        return saved

    def join(self, other: Timeline) -> None:
        """Take over the sources of another, each before the Ticks, and what they had ready."""
        at = next((n for n, (_, source) in enumerate(self.sources) if isinstance(source, Ticker)), len(self.sources))
        self.sources[at:at] = other.sources
        self._ready.extend(other._ready)

    def restore(self, saved: dict[str, bytes], may_change: tuple[str, ...] = ()) -> list[Simulator]:
        """Continue every source; those that were not there before, and start anew.

        A source without a checkpoint, or one too many, is another configuration, unless `may_change` has its name.
        """
        keys = {self._key(account, source): source for account, source in self.sources}
        changed = [key for key in {**keys, **saved} if (key in keys) != (key in saved) and key != _READY]
        if any(key.rpartition("/")[2] not in may_change for key in changed):
            raise ValueError(f"the checkpoint holds {', '.join(sorted(saved))}; this configuration has {', '.join(sorted(keys))}")
        for key, source in keys.items():
            if key in saved:
                source.restore(saved[key])
        self._ready = deque(_READY_DECODER.decode(saved[_READY]) if _READY in saved else ())
        return [keys[key] for key in changed if key in keys]

    def _key(self, account: str, source: Simulator) -> str:
        return f"{account or 'all'}/{source.name}"
