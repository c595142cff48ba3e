"""The local HTTP server: the page, the API on the desk, a stream of changes, and `/metrics`; for whoever holds a key."""

from __future__ import annotations

import asyncio
import errno
import importlib
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_maker.config_console import Console
from llm_maker.console import http_keys
from llm_maker.console.desk import Desk
from llm_maker.console.http_api import Api, Page, page_of
from llm_maker.console.http_guard import Guard
from llm_maker.console.http_keys import Keys, KeyUnsafe
from llm_maker.core.commands import Command, Level
from llm_maker.port import Emit

if TYPE_CHECKING:
    from llm_maker.console.http_wire import Limits

Say = Callable[[Level, str, str], None]
PORTS = 20
"""How many are tried, from the one that is asked for."""
FAREWELL_SECONDS = 1.0


class HttpServer:
    """A port: serves until cancelled; where it cannot it says so once and trading goes on without it."""

    name = "http"

    def __init__(
        self,
        home: Path,
        desk: Desk,
        settings: Console,
        say: Say,
        limits: Limits | None = None,
        page: Callable[[], str] | None = None,
    ) -> None:
        """`limits` are those of `http_wire` and `page` the text of `console/page` unless given."""
        self._positions = home / "positions"
        self._desk, self._settings, self._say = desk, settings, say
        self._limits, self._page = limits, page
        self.address = ""
        """`http://127.0.0.1:8787` once it listens."""

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled."""
        self._desk.emit = emit
        try:
            keys, page, listening = await asyncio.to_thread(self._open)
        except (KeyUnsafe, OSError, ValueError) as error:
            self._say(Level.WARNING, "http", f"no page and no API: {error}")
            await asyncio.Event().wait()
            return
        wire = await asyncio.to_thread(importlib.import_module, "llm_maker.console.http_wire")
        await self._serve(keys, page, listening, wire)

    def _open(self) -> tuple[Keys, Page, socket.socket]:
        """Files and socket. Raises `KeyUnsafe`, `OSError`, `ValueError`."""
        keys = http_keys.open_keys(self._positions)
        page = page_of((self._page or _our_page)().encode())
        return keys, page, bind(self._settings.http_host, self._settings.http_port)

    async def _serve(self, keys: Keys, page: Page, listening: socket.socket, wire: Any) -> None:
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()

        def fault(error: BaseException) -> None:
            # A failed assertion is ours: it ends the daemon in order, not a connection in silence.
            if not broken.done():
                broken.set_exception(error)

        host, port = listening.getsockname()[:2]
        shown = _in_url(host)
        guard = Guard(keys, shown, port, self._settings.http_names)
        connections = wire.Wire(Api(self._desk, guard, page, self._say, fault), self._limits or wire.Limits())
        server = await loop.create_server(connections, sock=listening)
        try:
            self.address = f"http://{_in_url(_reachable(host))}:{port}"
            self._announce(host, port)
            await broken
        finally:
            self.address = ""
            http_keys.remove_address(self._positions)
            server.close()
            connections.cut()
            await connections.shutdown(FAREWELL_SECONDS)

    def _announce(self, host: str, port: int) -> None:
        try:
            http_keys.write_address(self._positions, self.address)
        except OSError as error:
            self._say(Level.WARNING, "http", f"where the page is could not be written: {error}")
        if self._settings.http_port not in (0, port):
            self._say(Level.INFO, "http", f"port {self._settings.http_port} is taken: the page is at {self.address}")
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            text = f"console.http_host {self._settings.http_host}: others on the network reach it, and keys travel unencrypted; "
            self._say(Level.WARNING, "http", text + "put a proxy with TLS before it, or use 127.0.0.1 and `ssh -L`")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on the port or the next free one after it; 0: any. Raises `OSError` in words."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise OSError(f"console.http_host {host}: {error.strerror or error}") from None
    last = port if port == 0 else min(65_535, port + PORTS - 1)
    for number in range(port, last + 1):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((place[0], number, *place[2:]))
            listening.listen(64)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise OSError(f"{host} port {number}: {error.strerror or error}") from None
        else:
            return listening
    raise OSError(f"the ports {port} to {last} of {host} are all taken: set console.http_port, or console.http: false")


def _our_page() -> str:
    from llm_maker.console.page import page_text

    return page_text()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reachable(host: str) -> str:
    """All addresses are none that a browser can open; this machine's own is among them."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
