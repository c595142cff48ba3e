"""The one shape of everything outside the core: commands go in, events come out.

`Port` lives in real time and owns sockets or tasks; `Simulator` lives in virtual time and owns nothing. Live, paper, replay
and backtest differ only in which of these are plugged in. Neither decides anything about trading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm_maker.core.commands import Command
from llm_maker.core.events import Event

Emit = Callable[[Event], None]


class Port(Protocol):
    """Something real: a venue, a model, a person. Failures of the world leave it as events, never as exceptions."""

    name: str

    def execute(self, command: Command) -> None:
        """Take the command; never blocks, never raises for what the world may do."""
        ...

    def flush(self) -> None:
        """All commands of one decision have been handed over: what was gathered may leave now. A port may ignore it."""
        ...

    async def run(self, emit: Emit) -> None:
        """Own the sockets and emit events until cancelled."""
        ...


class Simulator(Protocol):
    """Something simulated, driven by market time: a generated feed, a recorded feed, an exchange, an analyst.

    Deterministic: the same calls give the same events. All times are market time in ns.
    """

    name: str

    def observe(self, now: int, event: Event) -> None:
        """A market event happened; called before the core sees it. A feed ignores it."""
        ...

    def execute(self, now: int, command: Command) -> None:
        """Take a command; its effects come out of `advance`. Commands of others are ignored."""
        ...

    def next_ns(self) -> int | None:
        """When the next event is due; None: nothing is."""
        ...

    def advance(self, now: int) -> list[Event]:
        """All events due at or before `now`, in order. Called with `now` == `next_ns()` in the ordinary run."""
        ...

    def checkpoint(self) -> bytes:
        """Everything needed to continue, as JSON; equal states give equal bytes."""
        ...

    def restore(self, saved: bytes) -> None:
        """Continue from a checkpoint made by the same configuration."""
        ...
