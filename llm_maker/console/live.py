"""The live lines of a terminal while the daemon runs: two of the account, one for each market, the last notices.

It reads the state between two events and changes nothing. A fault of the screen is counted, said once, and never reaches the
trading; drawing is bound by a monotonic clock of its own, and no number of it enters the state.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.errors import ConsoleError
from rich.live import Live
from rich.text import Text

from llm_maker.console import tables, view
from llm_maker.core.state import Market, State
from llm_maker.core.values import usd
from llm_maker.core.worth import equity

NOTICES = 4
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ConsoleError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""All that a view or a terminal can raise; the end of the process and memory running out are not among them."""
_MODE_STYLES = {"active": "bold green", "reduce_only": "bold yellow", "halted": "bold red"}


class _World(Protocol):
    @property
    def market(self) -> object | None: ...


class _Session(Protocol):
    @property
    def now(self) -> int: ...


class Running(Protocol):
    """What the screen needs of a daemon."""

    @property
    def state(self) -> State: ...
    @property
    def world(self) -> _World: ...
    @property
    def session(self) -> _Session: ...


class Screen:
    """At most `lines` markets, drawn at most every `refresh_seconds` of wall time, on stdout unless a console is given."""

    def __init__(self, lines: int, refresh_seconds: float, console: Console | None = None) -> None:
        self.faults = 0
        self._lines = lines
        self._refresh_seconds = refresh_seconds
        self._console = console or Console()
        self._notices: deque[str] = deque(maxlen=NOTICES)
        self._live: Live | None = None
        self._daemon: Running | None = None
        self._due = 0.0

    def say(self, line: str) -> None:
        """Show a notice under the table; on stderr while there is no table."""
        if self._live is None:
            _to_stderr(line)
        else:
            self._notices.append(line)

    @contextmanager
    def showing(self, daemon: Running) -> Iterator[None]:
        """The table is on the terminal within; afterwards it is gone and the last notices stand on stderr."""
        live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._daemon, self._live, self._due = daemon, live, 0.0
        self._guard(live.start)
        try:
            yield
        finally:
            self._guard(live.stop)
            self._live = self._daemon = None
            if self.faults > 1:
                self._notices.append(f"the screen failed {self.faults} times")
            while self._notices:
                _to_stderr(self._notices.popleft())

    def refresh(self) -> None:
        """Draw if it is time; almost free if not, for it is called after every step of the loop."""
        if self._live is None or time.monotonic() < self._due:
            return
        self._guard(self._draw)
        self._due = time.monotonic() + self._refresh_seconds

    def _draw(self) -> None:
        assert self._live is not None and self._daemon is not None
        frame = Text()
        daemon = self._daemon
        failed = not self._guard(lambda: frame.append_text(self._table(daemon)))
        if failed:
            frame.append("the table cannot be drawn; trading goes on\n", "bold red")
        for notice in self._notices:
            # Its end names the market; whole it stands on stderr afterwards.
            frame.append(tables.clip_middle(notice, self._console.size.width).rstrip() + "\n", "yellow")
        frame.rstrip()
        frame.no_wrap, frame.overflow = True, "crop"
        self._live.update(frame, refresh=True)

    def _table(self, daemon: Running) -> Text:
        width, height = self._console.size
        room = height - len(self._notices) - 5
        return table(daemon, max(1, min(self._lines, room)), width)

    def _guard(self, action: Callable[[], object]) -> bool:
        """Whether it went well; the first fault of all is told."""
        try:
            action()
        except _FAULTS as fault:
            self.faults += 1
            if self.faults == 1:
                self._notices.append(f"the screen failed ({type(fault).__name__}: {fault}); trading goes on")
            return False
        return True


def _to_stderr(line: str) -> None:
    with suppress(OSError):  # the terminal was closed; the log has the line
        sys.stderr.write(line + "\n")


def table(daemon: Running, lines: int, width: int) -> Text:
    """The account in two lines, then `lines` markets: those with a position first, then those with orders."""
    state = daemon.state
    shown = sorted(state.markets.values(), key=_rank)[:lines]
    text = _account(daemon)
    text.append(tables.heading(width) + "\n", "dim")
    for market in shown:
        line = view.line(state, market)
        text.append(tables.row(line, width) + "\n", None if tables.quotes(line) else "dim")
    hidden = len(state.markets) - len(shown)
    if hidden:
        text.append(f"and {hidden} more: `llm-maker markets`\n", "dim")
    return text


def _rank(market: Market) -> int:
    return 0 if market.position.net else 1 if market.live else 2


def _account(daemon: Running) -> Text:
    state, counts = daemon.state, daemon.state.counts
    worth = equity(state)
    gain = worth - state.flows.start - state.flows.transfers
    slow = view.slow_loop(state)["mode"]
    real = state.params.risk.live
    text = Text().append("REAL MONEY " if real else "PAPER ", "bold magenta" if real else "bold cyan")
    if daemon.world.market is not None:
        text.append("SIMULATED ", "bold cyan")
    text.append(f"{state.mode.value.upper()} ", _MODE_STYLES[state.mode.value])
    text.append(f"{tables.when(daemon.session.now)}")
    why = tables.clean(state.mode_text())
    text.append(f"  {why}\n" if why else "\n", "red")
    text.append(f"equity {tables.money(usd(worth))}  ")
    text.append(f"P&L {tables.money(usd(gain), signed=True)}", "green" if gain >= 0 else "red")
    text.append(f"  fills {counts.fills}  decisions {counts.decisions}  ")
    text.append(f"{slow}\n", "bold red" if slow == "FALLBACK" else "")
    return text
