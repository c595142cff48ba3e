"""One alarm to one service by apprise, in a thread that nobody has to wait for: what hangs there is left behind.

apprise speaks to over a hundred services, blocks while it does, and may raise or hang; nothing of that gets further than this file.
Its own words are never shown, because they may hold the address, which is a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from llm_maker.core.commands import Level

CALL_SECONDS = 20.0
"""A call that has not ended after this is left behind."""
MOST_LEFT_BEHIND = 3
"""Threads that may hang at a time; with as many nothing is sent until one of them has come back."""
_HOSTED = ("json", "xml", "form", "mailto", "gotify", "matrix", "mqtt", "apprise", "ntfy", "mmost", "rocket", "syslog")
"""Schemes whose host is a host; that of others is often a token."""
_KIND = {Level.INFO: "info", Level.WARNING: "warning", Level.ERROR: "failure"}
_STATUS = re.compile(r"error=(\d{3})\b")
FOREIGN = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError, ImportError,
    NameError, SyntaxError, EOFError, BufferError, MemoryError, StopIteration, StopAsyncIteration,
)  # fmt: skip
"""Whatever a foreign library may raise for what a service answers."""
UNKNOWN_ADDRESS = "not an address that apprise knows"


def name_of(url: str) -> str:
    """Scheme and host of an apprise URL; the scheme alone where the host may be a token."""
    scheme, _, rest = url.partition("://")
    if not rest or not re.fullmatch(r"[a-z0-9]{1,20}", scheme.lower()):
        return "an unknown service"
    try:
        host = urlsplit(f"http://{rest}").hostname or ""
    except ValueError:
        host = ""
    hosted = scheme.lower().startswith(_HOSTED) and (_is_address(host) or re.fullmatch(r"([a-z0-9-]{1,30}\.)+[a-z]{2,12}", host))
    return f"{scheme}://{host}" if hosted else scheme


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


class Service:
    """One address; used by one thread at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._plugin: Any = None
        self.name = name_of(url)

    def load(self) -> str:
        """Make ready; blocks for seconds the first time in a process. Why not, or an empty string."""
        if self._plugin is not None:
            return ""
        try:
            import apprise

            _listen()
            self._plugin = apprise.Apprise.instantiate(self._url, asset=apprise.AppriseAsset(async_mode=False))
        except FOREIGN as error:
            return f"apprise: {type(error).__name__}"
        return "" if self._plugin is not None else UNKNOWN_ADDRESS

    def send(self, title: str, body: str, level: Level) -> str:
        """Blocks; why it was not taken, or an empty string."""
        why = self.load()
        if why:
            return why
        _EAR.status = ""
        try:
            # Said to be plain, or services of HTML and Markdown would take what stands in a market's question for marks: they
            # refuse the whole message for a lone `<`, or show a stranger's link.
            taken = self._plugin.notify(body=body, title=title, notify_type=_kind(level), body_format=_plain())
        except FOREIGN as error:
            return type(error).__name__
        return "" if taken else f"it answered {_EAR.status}" if _EAR.status else "refused, or not reached"


def _plain() -> Any:
    import apprise

    return apprise.NotifyFormat.TEXT


def _kind(level: Level) -> Any:
    import apprise

    return apprise.NotifyType(_KIND[level])


class _Ear(logging.Handler):
    """Takes the HTTP status out of apprise's words, and lets nothing else of them through."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of = threading.local()

    @property
    def status(self) -> str:
        return getattr(self._of, "status", "")

    @status.setter
    def status(self, text: str) -> None:
        self._of.status = text

    def emit(self, record: logging.LogRecord) -> None:
        found = _STATUS.search(record.getMessage())
        if found:
            self.status = found[1]


_EAR = _Ear()


def _listen() -> None:
    words = logging.getLogger("apprise")
    if _EAR not in words.handlers:
        words.addHandler(_EAR)
        words.propagate = False


class Worker:
    """One thread that does one blocking call after the other; it never keeps the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[str], Callable[[], str]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def do(self, call: Callable[[], str]) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        self._jobs.put((loop, answer, call))
        return answer

    def end(self) -> None:
        """After the call that is under way, if that ever ends."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, answer, call = job
            said = call()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, answer, said)


def _settle(answer: asyncio.Future[str], said: str) -> None:
    if not answer.done():
        answer.set_result(said)


class Hands:
    """Calls with a deadline, by one worker at a time; one whose call hangs is left behind, and another takes its place."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._left: list[Worker] = []

    async def do(self, call: Callable[[], str], until: Callable[[], float]) -> str:
        """What the call said, or why there is no answer; `until` is asked again and again (monotonic seconds)."""
        self._left = [worker for worker in self._left if worker.alive]
        if len(self._left) >= MOST_LEFT_BEHIND:
            return f"{len(self._left)} calls hang"
        if self._worker is None or not self._worker.alive:
            self._worker = Worker()
        began, answer = time.monotonic(), self._worker.do(call)
        while not answer.done() and time.monotonic() < until() and self._worker.alive:
            await asyncio.wait({answer}, timeout=0.1)
        if answer.done():
            return answer.result()
        self._worker.end()
        self._left.append(self._worker)
        self._worker = None
        return f"no answer in {time.monotonic() - began:.0f}s"

    def end(self) -> None:
        if self._worker is not None:
            self._worker.end()
