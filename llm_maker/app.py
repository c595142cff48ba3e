"""The one place that knows all: from a config to a running session, and what is left of it afterwards.

Builds exchange, analyst, journal, ledger and control around a `world`, brings an account back after a stop or a crash, runs the
loop. The pieces do not know one another; nothing here decides about trading.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import __version__
from llm_maker.comeback import Place, bring_back
from llm_maker.config import Config, Secrets
from llm_maker.console import view
from llm_maker.console.control import ControlFailed, ControlServer, KillFile
from llm_maker.core.commands import Level, Notice
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import Event, ParamsChanged, Started, StopRequested
from llm_maker.core.orders import Status
from llm_maker.core.state import State
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, Mode
from llm_maker.llm.budget import DailyBudget
from llm_maker.llm.build import NotAvailable, build_analyst, resolve
from llm_maker.port import Port, Simulator
from llm_maker.report import summary
from llm_maker.runtime.clock import PacedClock, VirtualClock
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import LineLog
from llm_maker.runtime.locks import Lock, lock_home
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.rows import Scope
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.tuning import maker_params, run_params
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.world import Refused, exchange_params, make_world, simulated_analyst

STRATEGIES: dict[str, Strategy] = {"maker": Maker()}
STOP_WALL_SECONDS = 30.0
"""A stop that has proved nothing after this says so and ends."""


def scope_of(config: Config, tape: Path | None, session: int | None = None) -> Scope:
    """Whose rows these are; a tape rehearsal is a new one each time."""
    wallet = f"tape:{tape.name}#{session}" if tape else "paper"
    return Scope("polymarket" if tape else config.venue, config.mode, wallet, config.account)


class Options(msgspec.Struct, frozen=True):
    """What the command line adds to the config; seconds are wall seconds, `until` market seconds."""

    tape: Path | None = None
    speed: float = 1.0
    duration: float | None = None
    until: float | None = None
    once: bool = False
    leave: bool = False


class Daemon:
    """One run on one home."""

    def __init__(self, config: Config, secrets: Secrets, home: Path, options: Options, say: Callable[[str], None]) -> None:
        self.config, self.home, self.options, self.say = config, home, options, say
        self.began = time.monotonic()
        try:
            self.mind = resolve(config, secrets, simulated_feed=options.tape is None)
        except NotAvailable as error:
            raise Refused(str(error)) from None
        self.provider = self.mind.provider
        self._secrets = secrets
        kill_file = KillFile(home).path
        if kill_file.exists():
            raise Refused(f"{kill_file} is there and would stop this run at once; remove it first")
        self.lock: Lock = lock_home(home / "positions")
        self.log = DaemonLog(home / "logs" / "daemon.jsonl", secrets.values(), config.logging.level, say)
        self.ledger = Ledger.open(home / "positions" / "ledger.sqlite3", on_failure=self._ledger_failed)
        self.world = make_world(config, options.tape)
        self.params = run_params(config, self.provider, options.speed)
        self.exchange = Exchange(exchange_params(config))
        self.analyst: Port | None = None
        self.inbox: Inbox | None = None
        self.budget = DailyBudget(None)
        self.first_quote_seconds: float | None = None
        self.wall_seconds = self.market_seconds = 0.0
        self._stop_asked = 0.0
        self._interrupts = 0
        self._abort = asyncio.Event()
        self.frames = 0
        self._facts: dict[str, dict[str, Any]] = {}
        self._raw = LineLog(home / "logs" / "llm_raw.jsonl", _bytes(config.logging.decisions_max_mb), self._log_failed)
        self._build()

    def _build(self) -> None:
        config, world = self.config, self.world
        strategy = STRATEGIES[config.strategy.name]
        simulators: list[Simulator] = [self.exchange]
        if self.provider == "simulated" and world.market is not None:
            simulators.append(simulated_analyst(config, world.market))
        sources: list[tuple[str, Simulator]] = [("", world.feed)]
        sources += [(config.account, s) for s in simulators]
        sources.append(("", Ticker(world.start_ns)))
        timeline = Timeline(sources)
        label = {"world": world.label, "exchange": msgspec.to_builtins(self.exchange.params), "build": __version__}
        cash = self.exchange.params.start_cash
        session_number = 0
        if self.options.tape is not None:
            session_number = self.ledger.next_session()
        self.scope = scope_of(config, self.options.tape, session_number)
        folder = self.home / "logs" / "journal" / _folder(self.scope)
        limits = JournalLimits(max_file=_bytes(config.logging.journal_max_mb), max_total=_bytes(config.logging.journal_total_mb))
        fresh = Engine(new_state(config.account, self.params, strategy, maker_params(config), cash), strategy)
        place = Place(self.home, folder, config.account, self.scope, self.ledger)
        back = bring_back(place, timeline, simulators, fresh, STRATEGIES, label, self._recorder)
        for cut in back.cuts:
            self.log.say(Level.WARNING, "journal_cut", cut)
        self.engine, self.recorder = back.engine, back.recorder
        engine = self.engine

        def snapshot() -> Checkpoint:
            return Checkpoint(checkpoint(engine.state), timeline.checkpoint(), label)

        if back.latest is None:
            journal = JournalWriter.create(folder, config.account, snapshot, limits=limits)
        else:
            journal = JournalWriter.resume(back.latest, snapshot, limits=limits, reader=back.reader)
        self.analyst = self._real_analyst()
        self.account = Account(engine, journal, self.recorder, simulators, analyst=self.analyst, seq=back.seq)
        self.session = Session([self.account], timeline)
        self.session.now = engine.state.now or world.start_ns
        self.resumed = back.latest is not None
        self.before = summary.mark(engine.state)
        self._session_number = session_number or self.ledger.next_session(above=engine.state.session)

    def _recorder(self, state: State) -> Recorder:
        return Recorder(
            state,
            self.scope,
            self.ledger,
            self.home / "logs",
            simulated=True,
            facts=lambda request_id: self._facts.pop(request_id, {}),
            on_notice=self._notice,
            on_failure=self._log_failed,
            max_bytes=_bytes(self.config.logging.decisions_max_mb),
        )

    def _real_analyst(self) -> Port | None:
        if self.provider in ("none", "simulated"):
            return None
        limit = self.config.llm.daily_budget_usd
        saved = self.ledger.risk_state(self.scope).get("llm_budget")
        plain = msgspec.json.decode(saved, type=dict[str, str]) if saved else {}
        self.budget = DailyBudget.from_plain(Decimal(str(limit)), plain) if plain else DailyBudget(Decimal(str(limit)))
        try:
            return build_analyst(self.config, self._secrets, self.provider, self.budget, self._remember_call, self._llm_says)
        except NotAvailable as error:
            raise Refused(str(error)) from None

    @property
    def state(self) -> State:
        return self.engine.state

    def _remember_call(self, facts: Any) -> None:
        """What a call cost in time and tokens goes to the decision log; its words, if wanted, to llm_raw.jsonl."""
        usage = facts.usage
        tokens = {"input": usage.input, "cached": usage.cached, "output": usage.output} if usage else None
        self._facts[facts.request.request_id] = {"latency_ms": round(facts.latency_ms, 1), "tokens": tokens}
        if self.config.logging.raw_llm:
            self._raw.write([msgspec.json.encode(self.log.redacted(msgspec.to_builtins(facts)))])
        spent = msgspec.json.encode(self.budget.to_plain()).decode()
        self.ledger.remember(self.scope, {"llm_budget": spent})

    def _llm_says(self, level: Level, text: str) -> None:
        self.log.say(level, "llm", text)

    def _notice(self, ts: int, notice: Notice) -> None:
        self.log.notice(ts, notice)

    def _log_failed(self, reason: str) -> None:
        self.log.say(Level.ERROR, "log", reason)

    def _ledger_failed(self, reason: str) -> None:
        self.log.say(Level.ERROR, "ledger", f"the ledger could not be written: {reason}; the journal holds everything")

    def start(self) -> None:
        """Begin the session: the first event is `Started`; numbers changed in the file since the last time follow."""
        session, account = self.session, self.account
        ts = max(session.now, account.engine.state.now)
        session.deliver(ts, account.name, Started(self._session_number, self.resumed))
        wanted, state = maker_params(self.config), self.state
        if state.params != self.params or state.strategy_params != wanted:
            changed = ParamsChanged(msgspec.Raw(msgspec.json.encode(self.params)), msgspec.Raw(msgspec.json.encode(wanted)))
            session.deliver(ts, account.name, changed)

    async def run(self, on_idle: Callable[[], None] = lambda: None) -> bool:
        """Run until stopped; True if the stop was proved clean."""
        loop = asyncio.get_running_loop()
        self._abort = asyncio.Event()
        speed = self.options.speed
        first = self.session.timeline.next_ns() or self.session.now
        clock: PacedClock | VirtualClock
        clock = PacedClock(speed, max(self.session.now, first - NS_PER_S)) if speed > 0 else VirtualClock(self.session.now)
        self.inbox = inbox = Inbox(clock, self.scope.venue)
        inbox.bind(loop)
        tasks = self._start_ports(loop, inbox)
        self.start()
        wall_start, market_start = time.monotonic(), self.session.now
        until = market_start + int(self.options.until * NS_PER_S) if self.options.until is not None else None

        def idle() -> None:
            self._watch(wall_start)
            on_idle()

        main = asyncio.create_task(self.session.run(inbox, clock, until, idle), name="loop")
        try:
            await self._supervise(main, tasks)
        finally:
            self.wall_seconds = time.monotonic() - wall_start
            self.market_seconds = (self.session.now - market_start) / NS_PER_S
            for task in (main, *tasks):
                task.cancel()
            await asyncio.gather(main, *tasks, return_exceptions=True)
            for number in _stop_signals():
                loop.remove_signal_handler(number)
        return self.account.stop is not None and self.account.stop.clean

    def _start_ports(self, loop: asyncio.AbstractEventLoop, inbox: Inbox) -> list[asyncio.Task[None]]:
        name = self.account.name

        def emit(event: Event) -> None:
            inbox.put(event, name)

        control = ControlServer(self.home, self.answer, lambda text: view.find(self.state, text))
        ports: list[Port] = [KillFile(self.home)]
        try:
            control.open()
            ports.append(control)
        except ControlFailed as error:
            self.log.say(Level.WARNING, "control", str(error))
        if self.analyst is not None:
            ports.append(self.analyst)
        for number in _stop_signals():
            loop.add_signal_handler(number, self._interrupt, signal.Signals(number).name)
        return [asyncio.create_task(port.run(emit), name=port.name) for port in ports]

    def answer(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        """What a reading verb is told; what only the wiring knows is added to the view."""
        told = view.ask(self.state, verb, args)
        if verb == "status":
            told["simulated"] = self.world.market is not None
        if verb == "markets":
            out = [c for c in self.world.universe.choices.values() if not c.chosen]
            told["not_chosen"] = [{"market_id": c.instrument, "question": c.question, "why": c.why} for c in out]
        return told

    def _interrupt(self, name: str) -> None:
        """Once: stop in order. Again: end now and say what may rest."""
        self._interrupts += 1
        if self._interrupts > 1:
            self._abort.set()
        elif self.state.stopping or self._stop_asked:
            self.log.say(Level.WARNING, "stopping", f"{name}: a stop is under way; once more ends without its proof")
        else:
            self._ask_stop(name)

    def _ask_stop(self, reason: str) -> None:
        if not self._stop_asked and self.inbox is not None:
            self._stop_asked = time.monotonic()
            self.inbox.put(StopRequested(reason), self.account.name)

    def _watch(self, wall_start: float) -> None:
        counts = self.state.counts
        if self.first_quote_seconds is None and counts.placed > self.before.counts.placed:
            self.first_quote_seconds = time.monotonic() - self.began
        if self.options.duration is not None and time.monotonic() - wall_start >= self.options.duration:
            self._ask_stop(f"--duration {self.options.duration:g} is over")
        if self.options.once and self._cycle_done():
            if self.options.leave:
                self._abort.set()
            else:
                self._ask_stop("--once is done")

    def _cycle_done(self) -> bool:
        """One decision (or failure, or none wanted), then time for its orders to be answered."""
        counts, base = self.state.counts, self.before.counts
        asked = counts.decisions + counts.failures > base.decisions + base.failures
        if not asked and self.state.params.slow.enabled:
            return False
        orders = [o for o in self.state.orders.values() if o.is_live]
        answered = all(o.status is Status.OPEN for o in orders)
        return answered and counts.placed > base.placed

    async def _supervise(self, main: asyncio.Task[None], ports: list[asyncio.Task[None]]) -> None:
        """Until the loop ends; a port that dies, or a fault of ours, pulls the quotes and ends the run."""
        abort = asyncio.create_task(self._abort.wait(), name="abort")
        try:
            while not main.done():
                await asyncio.wait({main, abort, *ports}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                if abort.done():
                    return
                for task in ports:
                    if task.done() and not task.cancelled() and task.exception() is not None:
                        raise RuntimeError(f"{task.get_name()} died") from task.exception()
                stop_asked = self._stop_asked
                if stop_asked and time.monotonic() - stop_asked > STOP_WALL_SECONDS:
                    return
            main.result()
        except Exception as fault:
            ids = self.session.emergency(str(fault))
            self.log.fault(fault, ids)
            raise
        finally:
            abort.cancel()

    def resting(self) -> list[str]:
        """Our orders that are not proved gone."""
        return [o.order_id for o in self.state.orders.values() if o.is_live]

    def result(self) -> dict[str, Any]:
        """The JSON of the run."""
        tape = self.world.tape
        frames = tape.frames if tape else self.session.frames
        return {
            "mode": self.config.mode,
            "venue": self.scope.venue,
            "simulated": tape is None,
            "paper_money": True,
            "seed": self.config.seed,
            "provider": self.provider,
            "frames": frames,
            **summary.result(self.state, self.before),
            "first_quote_seconds": None if self.first_quote_seconds is None else round(self.first_quote_seconds, 3),
            "speed_asked": self.options.speed,
            "speed_achieved": round(self.market_seconds / self.wall_seconds, 2) if self.wall_seconds else None,
            "wall_seconds": round(self.wall_seconds, 3),
            "session": self._session_number,
            "resumed": self.resumed,
            "clean_stop": self.account.stop is not None and self.account.stop.clean,
            "resting": self.resting(),
        }

    def close(self) -> None:
        """Leave the files whole."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.lock.release)
            stack.callback(self.log.close)
            stack.callback(self._raw.close)
            stack.callback(self.ledger.close)
            stack.callback(self.recorder.close)
            if self.account.journal is not None:
                stack.callback(self.account.journal.close)
            stop, journal = self.account.stop, self.account.journal
            if stop is not None and stop.clean and journal is not None and not self.account.storage_failed:
                journal.rotate()
                self.recorder.indexed(self.account.seq)
            self.recorder.save_state(self.state.now)


def _stop_signals() -> list[signal.Signals]:
    """What ends a run in order: a closed terminal too, unless `nohup` has said that it shall not."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def _folder(scope: Scope) -> str:
    return "-".join(part.replace(":", "_").replace("#", "_").replace("/", "_") for part in scope.key[:3])


def _bytes(megabytes: float) -> int:
    return int(megabytes * 1_000_000)


def run(daemon: Daemon, on_idle: Callable[[], None] = lambda: None) -> bool:
    """Run a daemon to its end on the fastest event loop there is; True if the stop was clean."""
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run(on_idle))
    return asyncio.run(daemon.run(on_idle))


def banner(daemon: Daemon) -> list[str]:
    """What is running, and what to change next."""
    config, tape = daemon.config, daemon.options.tape
    feed = f"tape {tape.name}" if tape else f"simulated market, seed {config.seed}, {config.paper.markets} markets"
    lines = [
        f"llm_maker {__version__}: PAPER money, {feed}; no order leaves this machine",
        f"signals: {daemon.mind.text}",
    ]
    if daemon.provider in ("none", "simulated"):
        lines.append("next: put a model's key into .env (see .env.example), edit config.yaml; `llm-maker status` shows the rest")
    if daemon.resumed:
        lines.append(f"goes on where session {daemon.state.session} stopped")
    state = daemon.state
    why = [f"{name}: {halt.text}" for name, halt in state.halts.items()]
    if state.operator_mode is not Mode.ACTIVE:
        why.append(f"{state.operator_mode.value}, by the operator")
    if why:
        lines.append(f"NOT ACTIVE ({'; '.join(why)}): `llm-maker resume` when it is right")
    return lines
