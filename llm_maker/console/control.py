"""How a person reaches a running daemon: a local socket (Unix, mode 0600, JSON lines), and a kill file beside it.

What is read and done is the desk's (`console/desk.py`); this file moves lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from llm_maker.console.desk import Desk, Refused
from llm_maker.core.commands import Command
from llm_maker.core.events import OperatorActed, Verb
from llm_maker.port import Emit

MAX_LINE_BYTES = 65_536
MAX_ANSWER_BYTES = 16_777_216
MAX_CLIENTS = 16
MAX_SOCKET_PATH_BYTES = 100
"""Linux takes 107 bytes of path, macOS 103."""
IDLE_SECONDS = 30.0
KILL_CHECK_SECONDS = 0.5
_TEMP_PREFIX = "llm_maker-"
VIEW_FAULTS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)


class ControlFailed(Exception):
    """The socket cannot be opened; the kill file still works."""


class NotRunning(Exception):
    """No daemon listens for this home."""


class Unanswered(Exception):
    """The daemon took the connection and gave no answer: it may or may not have acted."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    verb: str
    args: dict[str, Any] = {}
    who: Literal["control socket", "top"] = "control socket"
    """The door within the door; nobody can pass for another."""


class _Place(msgspec.Struct):
    """positions/control.json: where the socket is."""

    socket: str


class ControlServer:
    """The port of a person: one JSON line in (`{"verb": ..., "args": {...}}`), one out (`{"ok": true, ...}`)."""

    name = "control"

    def __init__(self, home: Path, desk: Desk) -> None:
        self._home = home
        self._desk = desk
        self._listening: socket.socket | None = None
        self._place: Path | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] | None = None

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    def open(self) -> None:
        """Bind the socket, replacing what a dead daemon left. Raises `ControlFailed`; `run` calls it if nobody did."""
        if not hasattr(socket, "AF_UNIX"):
            raise ControlFailed("this system has no Unix sockets: stop the daemon with the kill file")
        record = _record(self._home)
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            _clear_dead(self._home)
            self._place = _choose_place(record.with_name("control.sock"))
            self._listening = _bind(self._place)
            _write_private(record, msgspec.json.encode(_Place(str(self._place))))
        except OSError as error:
            self.close()
            raise ControlFailed(f"control socket in {record.parent}: {error.strerror or error}") from None

    def close(self) -> None:
        """Stop listening and take the files away."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._place is not None:
            _record(self._home).unlink(missing_ok=True)
            _remove_socket(self._place)
            self._place = None

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled."""
        if self._listening is None:
            self.open()
        assert self._listening is not None
        self._desk.emit = emit
        server = await asyncio.start_unix_server(self._accept, sock=self._listening, limit=MAX_LINE_BYTES)
        self._broken = asyncio.get_running_loop().create_future()
        try:
            await self._broken
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._ended)
        try:
            if len(self._clients) >= MAX_CLIENTS:
                await _send(writer, _failure("too many connections: close one"))
                return
            self._clients.add(task)
            await self._serve(reader, writer)
        except (ConnectionError, TimeoutError):
            return  # The person left, or said nothing for long.
        except asyncio.CancelledError:
            return  # The daemon ends; asyncio would log a cancelled handler as a fault.
        finally:
            self._clients.discard(task)
            writer.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A failed assertion is ours: it ends the daemon in order, not a connection in silence.
        fault = None if task.cancelled() else task.exception()
        if fault is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(fault)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), IDLE_SECONDS)
            except ValueError:
                await _send(writer, _failure(f"a line is at most {MAX_LINE_BYTES} bytes"))
                return
            if not line:
                return
            try:
                await asyncio.wait_for(_send(writer, self.answer(line)), IDLE_SECONDS)
            except TimeoutError:
                writer.transport.abort()  # closing would keep what it does not take for as long as it likes
                return
            await asyncio.sleep(0)  # requests that came in one piece do not keep the loop from its events

    def answer(self, line: bytes) -> bytes:
        """One request line -> one answer line, with the action emitted on the way."""
        try:
            request = msgspec.json.decode(line, type=_Request)
        except (msgspec.MsgspecError, RecursionError) as error:
            return _failure(f"not a request: {error}")
        try:
            return _line(self._desk.answer(request.verb, request.args, request.who))
        except Refused as error:
            return _failure(str(error))
        except VIEW_FAULTS as error:
            # A fault of a view is told to whoever looked; looking must never end the trading.
            return _failure(f"{request.verb} failed: {type(error).__name__}: {error}")


class KillFile:
    """A file that kills: HOME/KILL, looked at every 0.5 s, whatever has become of the socket."""

    name = "kill_file"

    def __init__(self, home: Path, every_seconds: float = KILL_CHECK_SECONDS) -> None:
        self.path = home / "KILL"
        self._every_seconds = every_seconds

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Emit one kill each time the file appears; at once if it is there already."""
        told = False
        while True:
            present = _present(self.path)
            if present and not told:
                emit(OperatorActed(verb=Verb.KILL, who="kill file"))
            told = told if present is None else present
            await asyncio.sleep(self._every_seconds)


class ControlClient:
    """The other end, for the command line: blocking, one call a connection."""

    @staticmethod
    def call(home: Path, verb: str, args: dict[str, Any] | None = None, timeout: float = 5.0, who: str = "") -> dict[str, Any]:
        """The daemon's answer (`ok` False and `error` when it refuses). Raises `NotRunning` or `Unanswered`.

        `timeout` is seconds for each step; `who` is "top" or nothing. `args` of an acting verb are `market` and, for
        flatten, `take`.
        """
        with _connect(home, timeout) as connection:
            try:
                connection.sendall(_line({"verb": verb, "args": args or {}} | ({"who": who} if who else {})))
                line = _receive_line(connection)
            except OSError as error:
                raise Unanswered(f"{verb}: no answer from the daemon: {error}") from None
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise Unanswered(f"{verb}: the daemon's answer cannot be read: {error}") from None


def _line(answer: dict[str, Any]) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def _failure(reason: str) -> bytes:
    return _line({"ok": False, "error": " ".join(reason.split())})


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await writer.drain()


def _present(path: Path) -> bool | None:
    """None: it could not be told, which is neither yes nor no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return True


# The socket's place.


def _record(home: Path) -> Path:
    return home / "positions" / "control.json"


def _choose_place(wanted: Path) -> Path:
    """Beside the record, or in a private folder of the system where that path is longer than a socket's may be."""
    wanted = wanted.absolute()
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH_BYTES:
        return wanted
    return Path(tempfile.mkdtemp(prefix=_TEMP_PREFIX)) / "control.sock"


def _read_place(home: Path) -> Path | None:
    try:
        return Path(msgspec.json.decode(_record(home).read_bytes(), type=_Place).socket)
    except (OSError, msgspec.MsgspecError):
        return None


def _clear_dead(home: Path) -> None:
    place = _read_place(home)
    for old in {str(path): path for path in (place, (home / "positions" / "control.sock").absolute()) if path}.values():
        if _alive(old):
            raise FileExistsError(f"{old} belongs to a daemon that runs")
        _remove_socket(old)


def _alive(place: Path) -> bool:
    if len(os.fsencode(place)) > MAX_SOCKET_PATH_BYTES:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(place))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
    return True


def _remove_socket(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISSOCK(place.lstat().st_mode):
            place.unlink()
    if place.parent.name.startswith(_TEMP_PREFIX):
        with contextlib.suppress(OSError):
            place.parent.rmdir()


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    # A chmod after the bind would leave a moment in which others may connect.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _bind(place: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        with _private_files():
            listening.bind(str(place))
        listening.listen(MAX_CLIENTS)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _write_private(path: Path, raw: bytes) -> None:
    beside = path.with_suffix(".new")
    with _private_files():
        beside.write_bytes(raw)
    beside.replace(path)


def _connect(home: Path, timeout: float) -> socket.socket:
    place = _read_place(home)
    if place is None:
        raise NotRunning(f"no daemon runs on {home}")
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(str(place))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        raise NotRunning(f"no daemon runs on {home}") from None
    except OSError as error:
        connection.close()
        raise Unanswered(f"the daemon's socket does not answer: {error}") from None
    return connection


def _receive_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        part = connection.recv(65_536)
        if not part:
            raise ConnectionAbortedError("the connection was cut")
        received += part
        if len(received) > MAX_ANSWER_BYTES:
            raise ConnectionAbortedError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(received)
