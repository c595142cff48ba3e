"""Speaking to a service manager (systemd's `sd_notify`): ready, alive, stopping. Does nothing where none listens.

`alive` belongs into the loop itself: a loop that stands still then falls silent, and the manager ends the process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

STATUS_SECONDS = 15.0
"""How often the line for `systemctl status` is told anew."""
_WATCHDOGS_SHARE = 3
"""Told this often in the watchdog's time: a late one or two do no harm."""


class Service:
    """The other end of `NOTIFY_SOCKET`; a manager that does not listen is no failure of ours."""

    def __init__(
        self,
        status: Callable[[], str] = lambda: "",
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`status`: one line on how things stand; `clock`: seconds that never run back."""
        environ = os.environ if environ is None else environ
        self._status, self._clock = status, clock
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._every = _watchdog_seconds(environ)
        self._beat_due = self._status_due = 0.0
        self._socket: socket.socket | None = None

    def ready(self) -> None:
        """The daemon runs; told before anything else is."""
        self._status_due = self._clock() + STATUS_SECONDS
        self._tell(f"READY=1\n{self._line()}")

    def alive(self) -> None:
        """The loop turns: call it from there as often as you like, it is told three times in the watchdog's time."""
        if not self._address:
            return
        now = self._clock()
        if self._every and now >= self._beat_due:
            self._beat_due = now + self._every
            self._tell("WATCHDOG=1")
        if now >= self._status_due:
            self._status_due = now + STATUS_SECONDS
            self._tell(self._line())

    def stopping(self) -> None:
        """The end has begun."""
        self._tell(f"STOPPING=1\n{self._line()}")

    def _line(self) -> str:
        return f"STATUS={' '.join(self._status().split())}" if self._address else ""

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError):  # nobody is there, or its queue is full: the next word is as good
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(words.encode(), self._address)


def _address(named: str) -> str:
    """A path, or a name of the abstract kind, which is written with `@`; "" for none and for what is neither."""
    if named.startswith("@"):
        return "\0" + named[1:]
    return named if named.startswith("/") else ""


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """How often to tell that the loop turns; 0: nobody waits for it, or for another process."""
    asked, of = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not asked.isdecimal() or (of and of != str(os.getpid())):
        return 0.0
    return int(asked) / 1e6 / _WATCHDOGS_SHARE
