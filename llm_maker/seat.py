"""The operator's seat of one daemon: what its person sees, is told, and presses, whichever door they come by.

It joins the rooms of `console/` with a running daemon: one desk behind the control socket, the HTTP server and the chat; one stream
of what happened; one list of alarms. It reads the state between two events, and what it does to it is an event.
"""

from __future__ import annotations

import asyncio
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec

from llm_maker import __version__, reload
from llm_maker.config import Config
from llm_maker.config_text import ConfigError
from llm_maker.console import view
from llm_maker.console.alarms import Alarms, Day
from llm_maker.console.alerts import Alerts
from llm_maker.console.board import Around, Rows, board, detail
from llm_maker.console.chat import Chat
from llm_maker.console.control import ControlFailed, ControlServer, KillFile
from llm_maker.console.desk import PROTECTS, Desk, Refused
from llm_maker.console.history import Past
from llm_maker.console.http import HttpServer
from llm_maker.console.pulse import Pulse
from llm_maker.console.tail import Tail
from llm_maker.core.commands import AnyCommand, Level, Notice
from llm_maker.core.events import Event, ParamsChanged, Started
from llm_maker.core.state import State
from llm_maker.core.values import usd
from llm_maker.core.worth import equity
from llm_maker.keys import Secrets
from llm_maker.mind import Mind
from llm_maker.port import Port
from llm_maker.report import summary
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.service import Service
from llm_maker.twins import Twins
from llm_maker.world import Refused as NotStarted
from llm_maker.world import World

LOOK_SECONDS = 1.0
"""How often the curves are sampled and the alarms looked at, wall time."""
PICTURE_SECONDS = 0.4
"""However many screens look: the board is made at most this often."""
CHANGES_SHARE = 0.02
"""Of the loop's time at most, for those who look at what a reload would change."""
FAREWELL_SECONDS = 5.0
ROWS_AT_ONCE = 10
"""So many markets are shown as of now; of more, all rows are made in the course of a second, a few at a time."""
ROWS_SECONDS = 0.05
WATCHED_SECONDS, UNWATCHED_FACTOR = 5.0, 0.1
"""Nobody has looked for so long: a tenth as fast will do."""


class Sat(Protocol):
    """What the seat needs of a daemon."""

    config: Config
    home: Path
    provider: str
    resumed: bool
    world: World
    mind: Mind
    twins: Twins
    account: Account
    session: Session
    recorder: Recorder
    inbox: Inbox | None
    log: DaemonLog
    read_config: reload.FileReader | None

    @property
    def state(self) -> State: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def speed(self) -> float: ...


class Seat:
    """Everything between a daemon and its person."""

    def __init__(self, daemon: Sat, secrets: Secrets) -> None:
        self._daemon = daemon
        config = daemon.config
        self._config = config
        """As it is in force; a reload puts another in its place."""
        find, size = (lambda text: view.find(daemon.state, text)), (lambda *of: view.units(daemon.state, *of))
        self.desk = Desk(self.answer, find, size, self._reload, self._shut)
        self.tail = Tail(lambda: daemon.state)
        self.past = Past()
        self.alarms = Alarms(
            lambda: daemon.state,
            config.alerts.unknown_order_seconds,
            daily_summary=config.alerts.daily_summary,
            day=Day(summary.mark, summary.result, daemon.twins.difference_usd, _money(config, daemon.world)),
            budgets=self._budgets,
        )
        self.alerts = Alerts(
            config.alerts,
            secrets.get("LLM_MAKER_ALERT_URLS") or "",
            _speaker(config, daemon.home, daemon.world),
            daemon.log.say,
            hide=daemon.log.redacted,
            question=self._question,
        )
        self.service = Service(self._standing)
        self._token = secrets.get("LLM_MAKER_TELEGRAM_TOKEN") or ""
        self._over = False
        self._began = time.monotonic()
        self._look = self._picture_due = 0.0
        self._picture: dict[str, Any] | None = None
        self._shown: tuple[float, object, dict[str, Any] | Refused] | None = None
        """Until when the last answer to `changes` stands, of which state of the file, and it; a refusal is one."""
        self._rows = Rows()
        self._rows_at = self._board_at = self._began
        self._pulse = Pulse(daemon.home / "logs" / "journal")
        self.http: HttpServer | None = None
        daemon.log.also = self._hear

    # What the seat hears.

    def record(self, seq: int, ts: int, event: Event, commands: list[AnyCommand]) -> None:
        """A step of the account, after the recorder has written it."""
        if isinstance(event, Started):
            self.desk.session = event.session
        self._daemon.recorder.record(seq, ts, event, commands)
        self.tail.record(seq, ts, event, commands)

    def _hear(self, ts: int, notice: Notice) -> None:
        self.tail.hear(ts, notice)
        self.alarms.hear(ts, notice)
        self.alerts.hear(ts, notice)

    def _budgets(self) -> dict[str, tuple[float, float]]:
        spent = self._daemon.mind.spent_today_usd()
        return {} if spent is None else {"models": (spent, self._daemon.config.llm.daily_budget_usd)}

    def _question(self, market_id: str) -> str:
        market = self._daemon.state.markets.get(market_id)
        return market.instrument.question if market is not None else ""

    def idle(self) -> None:
        """Between two events, very often: nearly free unless a look is due."""
        now = time.monotonic()
        if now - self._rows_at >= ROWS_SECONDS:
            self._roll_rows(now)
        if now < self._look:
            return
        if not self._look:
            self.service.ready()  # the first events have gone through the loop
        self._look = now + LOOK_SECONDS
        daemon = self._daemon
        self.past.look(daemon.state, daemon.twins.difference_usd())
        for notice in self.alarms.look():
            daemon.log.notice(daemon.state.now, notice)
        self.service.alive()

    def _roll_rows(self, now: float) -> None:
        """Some of many markets' rows, so that no board has to make them all between two events."""
        state = self._daemon.state
        if len(state.markets) > ROWS_AT_ONCE:
            pace = 1.0 if now - self._board_at < WATCHED_SECONDS else UNWATCHED_FACTOR
            self._rows.refresh(state, math.ceil(len(state.markets) * min(now - self._rows_at, 1.0) * pace))
        self._rows_at = now

    # The doors.

    def ports(self) -> list[Port]:
        """What a person reaches the daemon by. Raises `world.Refused` where live would have no stop verbs."""
        daemon, config = self._daemon, self._config
        self._tell_of_start()
        self.alerts.open()
        control = ControlServer(daemon.home, self.desk)
        found: list[Port] = [KillFile(daemon.home), self.alerts, self._pulse]
        try:
            control.open()
            found.append(control)
        except ControlFailed as error:
            if config.mode == "live":
                raise NotStarted(f"{error}; live needs its stop verbs") from None
            daemon.log.say(Level.WARNING, "control", str(error))
        if config.console.http:
            self.http = HttpServer(daemon.home, self.desk, config.console, daemon.log.say)
            found.append(self.http)
        if self._token and config.alerts.telegram_chats:
            found.append(Chat(self.desk, self._token, config.alerts.telegram_chats, config.alerts.telegram_host, daemon.log.say))
        return found

    def _tell_of_start(self) -> None:
        """Whether the last run ended in order; said before the new session's first event wipes the traces."""
        daemon, state = self._daemon, self._daemon.state
        resting = [order.order_id for order in state.orders.values() if order.is_live]
        if daemon.resumed and state.session and (resting or not state.stopped):
            how = "stopped without proof that nothing rests" if state.stopped else "did not end in order (a crash, a power cut?)"
            told = f"session {state.session} {how}; {len(resting)} orders of it may rest: they are looked up first"
            daemon.log.say(Level.WARNING, "restarted_after_crash", told)

    # What is read.

    def answer(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        """What a reading verb is told; what only the wiring knows is added to the view. Raises `Refused`."""
        daemon = self._daemon
        match verb:
            case "board":
                return self._board(_since(args))
            case "detail":
                market = daemon.state.markets[self._market(args)]
                strategy = daemon.account.engine.strategy
                return dict(detail(daemon.state, market, self.tail.of(market.instrument.id), strategy))
            case "history":
                found = self._market(args) if args.get("market") else ""
                marks = [e for e in self.tail.of(found, 2_000) if e["kind"] in ("fill", "signal")][-200:] if found else []
                return dict(self.past.told(daemon.state, found, marks))
            case "changes":
                return self._changes()
        told = view.ask(daemon.state, verb, args, daemon.account.engine.strategy)
        if verb in ("status", "markets", "why"):
            told["simulated"] = daemon.world.market is not None
        if verb == "status":
            told |= {"twin": daemon.twins.told(), **daemon.facts}
            told["page"] = self.http.address if self.http else ""
        if verb == "markets":
            out = [c for c in daemon.world.universe.choices.values() if not c.chosen]
            told["not_chosen"] = [{"market_id": c.instrument, "question": c.question, "why": c.why} for c in out]
        return told

    def _market(self, args: dict[str, Any]) -> str:
        text = str(args.get("market", ""))
        found = view.find(self._daemon.state, text)
        if found is None:
            raise Refused(f"no market {text!r} here, or more than one; `llm-maker markets` lists them")
        return found

    def _board(self, since: int) -> dict[str, Any]:
        """One picture for all who look; only the stream is each one's own."""
        now = self._board_at = time.monotonic()
        if self._picture is None or now >= self._picture_due:
            self._picture = dict(board(self._daemon.state, self._around()))
            self._picture_due = time.monotonic() + PICTURE_SECONDS
        return self._picture | {"tail": self.tail.since(since), "last": self.tail.last}

    def _around(self) -> Around:
        daemon = self._daemon
        live = daemon.provider not in ("none", "simulated")
        return Around(
            version=__version__,
            venue=daemon.config.venue,
            provider=daemon.provider,
            simulated=daemon.world.market is not None,
            started_ns=daemon.state.counts.started_ns,
            twin=daemon.twins.told(),
            health=self._health(),
            model_cost_today=daemon.mind.spent_today_usd(),
            model_budget=self._config.llm.daily_budget_usd if live else None,
            alarms=self.alarms.board(),
            tail=[],
            last=self.tail.last,
            rows=self._rows.told(daemon.state) if len(daemon.state.markets) > ROWS_AT_ONCE else None,
        )

    def _health(self) -> dict[str, Any]:
        daemon = self._daemon
        return {
            "rss_mb": round(_rss_mb(), 1),
            "uptime_s": round(time.monotonic() - self._began, 1),
            "events": daemon.session.events,
            "tasks": len(asyncio.all_tasks()),
            "inbox": len(daemon.inbox) if daemon.inbox is not None else 0,
            "loop_delay_ms": self._pulse.loop_delay_ms,
            "journal_mb": self._pulse.journal_mb,
            "storage_failed": daemon.account.storage_failed,
        }

    # What is changed.

    def _shut(self, verb: str) -> str:
        """Why an act can no longer be done: nobody handles its event any more, or it would only begin at the next start."""
        session, state = self._daemon.session, self._daemon.state
        if self._over or session.dead or session.stopped:
            return "the run has ended, nothing is done any more"
        if state.stopping and verb not in PROTECTS:
            return f"the daemon is stopping ({state.stopping}), nothing new is begun"
        return ""

    def _plan(self) -> reload.Plan:
        daemon = self._daemon
        if daemon.read_config is None:
            raise Refused("this daemon has no configuration file to read again")
        try:
            return reload.plan(self._config, daemon.read_config, daemon.state, daemon.provider, daemon.speed)
        except ConfigError as error:
            raise Refused(str(error)) from None

    def _changes(self) -> dict[str, Any]:
        """However often it is asked for: of hundreds of markets it takes tens of milliseconds, so it stands the longer for that.

        Never longer than the file stands: an edit of it is seen at once.
        """
        began, reader = time.monotonic(), self._daemon.read_config
        stamp = None if reader is None else reader.stamp()
        if self._shown is None or began >= self._shown[0] or stamp != self._shown[1]:
            try:
                told: dict[str, Any] | Refused = reload.told(self._plan())
            except Refused as no:
                told = no
            now = time.monotonic()
            self._shown = (now + max(PICTURE_SECONDS, (now - began) / CHANGES_SHARE), stamp, told)
        answer = self._shown[2]
        if isinstance(answer, Refused):
            raise Refused(str(answer))
        return answer

    def _reload(self, plan_id: str, who: str) -> dict[str, Any]:
        """What was shown is what is done, whole or not at all; the twins follow."""
        daemon, found = self._daemon, self._plan()
        self._shown = None
        if plan_id != found.id:
            raise Refused("the file has changed since it was shown, or nothing was shown: `llm-maker reload` again")
        if found.refused:
            raise Refused(f"nothing was changed: {reload.refusal(found)}")
        assert daemon.inbox is not None
        if found.changes:
            params, maker = msgspec.Raw(msgspec.json.encode(found.params)), msgspec.Raw(msgspec.json.encode(found.maker))
            daemon.inbox.put(ParamsChanged(params, maker, who), daemon.account.name)
            daemon.twins.reload(found.params, found.maker, daemon.inbox, who)
            self._config = found.config
        return {"ok": True} | reload.told(found)

    def _standing(self) -> str:
        """How things stand in one line, for a service manager."""
        state, money = self._daemon.state, "REAL MONEY" if self._config.mode == "live" else "paper"
        worth = equity(state)
        pnl, orders = usd(worth - state.flows.start - state.flows.transfers), sum(len(m.live) for m in state.markets.values())
        return f"{money}, {state.mode.value}: equity ${usd(worth):,.2f}, P&L {pnl:+,.2f}, {orders} orders"

    async def farewell(self) -> None:
        """The run has ended, well or by a fault: the last words leave."""
        self._over = True
        self.service.stopping()
        await self.alerts.farewell(FAREWELL_SECONDS)


def _speaker(config: Config, home: Path, world: World) -> str:
    """Which daemon an alarm comes from, and what money it is about."""
    place, money = home.resolve().name, "REAL MONEY" if config.mode == "live" else "PAPER"
    simulated = ", SIMULATED" if world.market is not None else ""
    return f"{config.account} on {config.venue}{f' ({place})' if place else ''}, {money}{simulated}"


def _money(config: Config, world: World) -> str:
    """What a sum of money is to be called."""
    return "" if config.mode == "live" else f" (paper money{', simulated market' if world.market is not None else ''})"


def _since(args: dict[str, Any]) -> int:
    since = args.get("since", 0)
    if not isinstance(since, int) or isinstance(since, bool):
        raise Refused("since is a number: what `last` said")
    return since


def _rss_mb() -> float:
    """Of now where the system tells it (Linux); else the highest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return pages * resource.getpagesize() / (1 << 20)
