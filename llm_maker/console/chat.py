"""A Telegram chat as one more door to the desk: look, pause, resume, reduce, cancel, kill; for the configured chats alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llm_maker.console.desk import Desk
from llm_maker.core.commands import Command, Level
from llm_maker.port import Emit

Say = Callable[[Level, str, str], None]


class Chat:
    """A port: long-polls the bot's messages, answers them."""

    name = "chat"

    def __init__(self, desk: Desk, token: str, chats: tuple[int, ...], host: str, say: Say) -> None: ...

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled."""
        await asyncio.Event().wait()
