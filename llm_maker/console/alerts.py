"""Alarms on their way to a person: deduplicated, rate-limited, never in the way of trading; the port that sends them by apprise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llm_maker.config_console import Alerts as Settings
from llm_maker.core.commands import Command, Level, Notice
from llm_maker.port import Emit

Say = Callable[[Level, str, str], None]


class Alerts:
    """A port without commands or events: what it hears leaves by the services of `urls`, if any."""

    name = "alerts"

    def __init__(self, settings: Settings, urls: str, label: str, say: Say) -> None:
        """`urls`: apprise URLs separated by spaces, secret; `label`: which daemon speaks, as `main on simulated, PAPER`."""

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log; never blocks, never raises for what a service does."""

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Send until cancelled."""
        await asyncio.Event().wait()

    async def farewell(self, seconds: float) -> None:
        """The run ends: what still waits may leave, for no longer than this."""
