"""The local HTTP server: the page, the API on the desk, a stream of changes, and `/metrics`; for whoever holds a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from llm_maker.config_console import Console
from llm_maker.console.desk import Desk
from llm_maker.core.commands import Command, Level
from llm_maker.port import Emit

Say = Callable[[Level, str, str], None]


class HttpServer:
    """A port: serves until cancelled; where no port is free it says so once and trading goes on without it."""

    name = "http"

    def __init__(self, home: Path, desk: Desk, settings: Console, say: Say) -> None:
        self.address = ""
        """`http://127.0.0.1:8787` once it listens."""

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled."""
        await asyncio.Event().wait()
