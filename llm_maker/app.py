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
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import __version__
from llm_maker.comeback import Place, bring_back, folder_of, scope_of
from llm_maker.config import Config
from llm_maker.console.control import KillFile
from llm_maker.core.commands import Level, Notice
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import Event, ParamsChanged, Started, StopRequested
from llm_maker.core.orders import Status
from llm_maker.core.state import State
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.live import LiveVenue, live_clock, refuse_unsafe, wallet_folder, watch_clock
from llm_maker.mind import House, Mind
from llm_maker.port import Port, Simulator
from llm_maker.reload import FileReader
from llm_maker.report import summary
from llm_maker.runtime.clock import LiveClock, LoopWatch, PacedClock, VirtualClock
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.locks import Lock, lock_home, lock_wallet
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session, fault_of
from llm_maker.runtime.memory_guard import keep_private
from llm_maker.runtime.replay import OF_A_FEED, OF_A_VENUE
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.seat import Seat
from llm_maker.strategy.maker import Maker
from llm_maker.tuning import maker_params, run_params
from llm_maker.twins import Surroundings, Twins
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.world import Refused, World, exchange_params, make_world, simulated_analyst

STRATEGIES: dict[str, Strategy] = {"maker": Maker()}
STOP_WALL_SECONDS = 30.0
"""A stop that has proved nothing after this says so and ends."""
STOP_LIVE_SECONDS = 75.0
"""The same on a real venue, which may be slow to answer; longer than the core's own patience."""
EMERGENCY_SECONDS = 3.0
"""What the last cancels of a fault have to leave the machine."""


class Options(msgspec.Struct, frozen=True):
    """What the command line adds to the config; seconds are wall seconds, `until` market seconds."""

    tape: Path | None = None
    speed: float = 1.0
    duration: float | None = None
    until: float | None = None
    once: bool = False
    leave: bool = False
    base: Path | None = None
    """Where relative paths of the config start; None: the home."""
    unproved: bool = False
    """Live: start though the last stop could not prove that nothing of ours rests."""


class Daemon:
    """One run on one home."""

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        home: Path,
        options: Options,
        say: Callable[[str], None],
        read_config: FileReader | None = None,
    ) -> None:
        """`read_config` reads the file again, for a reload; None: there is no file."""
        self.config, self.home, self.options, self.say = config, home, options, say
        self.read_config, self.speed = read_config, options.speed
        self.began = time.monotonic()
        if config.mode == "live" and (trouble := keep_private()):
            raise Refused(trouble)
        simulated_feed = options.tape is None and config.venue == "simulated"
        self.mind = Mind(config, secrets, simulated_feed=simulated_feed, base=options.base or home)
        self.provider = self.mind.provider
        self._secrets = secrets
        kill_file = KillFile(home).path
        if kill_file.exists():
            raise Refused(f"{kill_file} is there and would stop this run at once; remove it first")
        self.lock: Lock = lock_home(home / "positions")
        self.wallet = (secrets.get("LLM_MAKER_BROWSER_ADDRESS") or "").lower() if config.mode == "live" else ""
        self.wallet_lock = lock_wallet(wallet_folder(), self.wallet) if self.wallet else None
        self.log = DaemonLog(home / "logs" / "daemon.jsonl", secrets.values(), config.logging.level, say)
        self.ledger = Ledger.open(home / "positions" / "ledger.sqlite3", on_failure=self._ledger_failed)
        self.clock: LiveClock | None = None
        self.live: LiveVenue | None = None
        self.world = self._world()
        self.params = run_params(config, self.provider, options.speed)
        self.exchange = Exchange(exchange_params(config)) if config.mode == "paper" else None
        self.analyst: Port | None = None
        self.inbox: Inbox | None = None
        self.first_quote_seconds: float | None = None
        self.wall_seconds = self.market_seconds = 0.0
        self._stop_asked, self._interrupts = 0.0, 0
        self._abort = asyncio.Event()
        self.twins = Twins(config, self.provider)
        self.seat = Seat(self, secrets)
        self._build()

    def _world(self) -> World:
        """Simulated, recorded or real."""
        config, options = self.config, self.options
        if options.tape is not None or config.venue == "simulated":
            return make_world(config, options.tape)
        self.clock = live_clock(config, options.speed)
        self.live = LiveVenue(config, self._secrets, self.clock, options.speed, self.log.say, lambda: self.state)
        return World(None, None, None, self.live.universe, self.clock.now(), {"live": config.venue, "mode": config.mode})

    def _build(self) -> None:
        config, world, live = self.config, self.world, self.live
        strategy = STRATEGIES[config.strategy.name]
        simulators: list[Simulator] = [self.exchange] if self.exchange else []
        if self.provider == "simulated" and world.market is not None:
            simulators.append(simulated_analyst(config, world.market))
        sources: list[tuple[str, Simulator]] = [("", world.feed)] if world.feed else []
        sources += [(config.account, s) for s in simulators]
        sources.append(("", Ticker(world.start_ns)))
        timeline = Timeline(sources)
        exchange = msgspec.to_builtins(self.exchange.params) if self.exchange else None
        label = {"world": world.label, "exchange": exchange, "build": __version__}
        # What a live account holds is told by the venue, and enters the ledger as a transfer.
        cash = self.exchange.params.start_cash if self.exchange else 0
        session_number = 0
        if self.options.tape is not None:
            session_number = self.ledger.next_session()
        self.scope = scope_of(config, self.options.tape, session_number, self.wallet)
        folder = self.home / "logs" / "journal" / folder_of(self.scope)
        full, share = _bytes(config.logging.journal_max_mb), _bytes(config.logging.journal_total_mb) // self.twins.accounts
        limits = JournalLimits(max_file=full, max_total=share, indexed=self.ledger.indexed(self.scope))
        fresh = Engine(new_state(config.account, self.params, strategy, maker_params(config), cash), strategy)
        place = Place(self.home, folder, config.account, self.scope, self.ledger)
        outside = frozenset() if live is None else OF_A_FEED if self.exchange else OF_A_VENUE
        back = bring_back(place, timeline, simulators, fresh, STRATEGIES, label, self._recorder, outside)
        for cut in back.cuts:
            self.log.say(Level.WARNING, "journal_cut", cut)
        self.engine, self.recorder = back.engine, back.recorder
        engine = self.engine

        def snapshot() -> Checkpoint:
            return Checkpoint(checkpoint(engine.state), timeline.checkpoint("", config.account), label)

        if back.latest is None:
            journal = JournalWriter.create(folder, config.account, snapshot, limits=limits)
        else:
            journal = JournalWriter.resume(back.latest, snapshot, limits=limits, reader=back.reader)
        self.house = House(
            self.home, self.ledger, self.scope, self.log, lambda: self.state, world.universe.rules_of, self.options.speed > 0
        )
        self.analyst = self.mind.analyst(self.house)
        self.account = Account(
            engine,
            journal,
            self.seat,
            simulators,
            venue=live.account if live else None,
            analyst=self.analyst,
            feed=live.feed if live else None,
            seq=back.seq,
        )
        now = max(engine.state.now, world.start_ns) if live else engine.state.now or world.start_ns
        if live is not None:
            timeline.skip_to(now)
            refuse_unsafe(engine.state, config, world.start_ns, unproved=self.options.unproved)
        self.resumed = back.latest is not None
        self.before = summary.mark(engine.state)
        self._session_number = session_number or self.ledger.next_session(above=engine.state.session)
        around = Surroundings(config, self.params, place, label, limits, self.log, STRATEGIES)
        self.twins.bring_back(around, self.account, timeline, self._session_number, now)
        self.session = session = Session([self.account], timeline, self.twins.shadows)
        session.now = now
        if live is not None:
            live.beside = lambda: self.twins.states
        self.log.now = lambda: session.now

    def _recorder(self, state: State) -> Recorder:
        return Recorder(
            state,
            self.scope,
            self.ledger,
            self.home / "logs",
            simulated=self.exchange is not None,
            facts=self.mind.facts_of,
            on_notice=self._notice,
            on_failure=self._log_failed,
            max_bytes=_bytes(self.config.logging.decisions_max_mb),
            difference=self.twins.measured,
        )

    @property
    def state(self) -> State:
        return self.engine.state

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
        self.twins.begin(ts)

    async def run(self, on_idle: Callable[[], None] = lambda: None) -> bool:
        """Run until stopped; True if the stop was proved clean."""
        loop = asyncio.get_running_loop()
        self._abort = asyncio.Event()
        speed = self.options.speed
        first = self.session.timeline.next_ns() or self.session.now
        clock: LiveClock | PacedClock | VirtualClock
        if self.clock is not None:
            clock = self.clock
        else:
            clock = PacedClock(speed, max(self.session.now, first - NS_PER_S)) if speed > 0 else VirtualClock(self.session.now)
        afresh = self.live.feed.start_afresh if self.live else None
        self.inbox = inbox = Inbox(clock, self.scope.venue, on_room=(lambda: afresh("the inbox was full")) if afresh else None)
        inbox.bind(loop)
        tasks = self._start_ports(loop, inbox)
        self.start()
        if self.live is not None:
            tasks += self._start_live(self.live, inbox)
        wall_start, market_start = time.monotonic(), self.session.now
        until = market_start + int(self.options.until * NS_PER_S) if self.options.until is not None else None

        def idle() -> None:
            self._watch(wall_start)
            self.seat.idle()
            on_idle()

        main = asyncio.create_task(self.session.run(inbox, clock, until, idle), name="loop")
        try:
            await self._supervise(main, tasks)
        finally:
            self.wall_seconds = time.monotonic() - wall_start
            self.market_seconds = (self.session.now - market_start) / NS_PER_S
            main.cancel()  # nothing is decided any more while the last words leave
            await self.seat.farewell()
            for task in (main, *tasks):
                task.cancel()
            await asyncio.gather(main, *tasks, return_exceptions=True)
            if self.live is not None:
                await self.live.close()
            await self.mind.hang_up()
            for number in _stop_signals():
                loop.remove_signal_handler(number)
        return self.account.stop is not None and self.account.stop.clean

    def _start_ports(self, loop: asyncio.AbstractEventLoop, inbox: Inbox) -> list[asyncio.Task[None]]:
        name = self.account.name

        def emit(event: Event) -> None:
            inbox.put(event, name)

        ports = self.seat.ports()
        if self.analyst is not None:
            ports.append(self.analyst)
        ports += self.mind.ports(self.house)
        for number in _stop_signals():
            loop.add_signal_handler(number, self._interrupt, signal.Signals(number).name)
        return [asyncio.create_task(port.run(emit), name=port.name) for port in ports]

    def _start_live(self, live: LiveVenue, inbox: Inbox) -> list[asyncio.Task[None]]:
        """The real venue's ports, and the watch over our own clock and loop."""
        assert self.clock is not None
        name = self.account.name

        def of_all(event: Event) -> None:
            inbox.put(event)

        def of_account(event: Event) -> None:
            inbox.put(event, name)

        live.begin(of_all)
        jobs = {
            "feed": live.feed.run(live.heard(of_all)),
            "discovery": live.discovery.run(of_all),
            "loop watch": LoopWatch().run(of_all),
            "clock": watch_clock(self.clock, of_all),
        }
        if live.account is not None:
            jobs["account"] = live.account.run(of_account)
        return [asyncio.create_task(job, name=what) for what, job in jobs.items()]

    @property
    def facts(self) -> dict[str, Any]:
        """What only a live venue's ports know."""
        return self.live.facts() if self.live else {}

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
                    if (cause := fault_of(task)) is not None:
                        raise RuntimeError(f"{task.get_name()} died of {type(cause).__name__}: {cause}") from cause
                stop_asked = self._stop_asked
                if stop_asked and time.monotonic() - stop_asked > (STOP_LIVE_SECONDS if self.live else STOP_WALL_SECONDS):
                    return
            main.result()
        except Exception as fault:
            main.cancel()  # else the answers to these cancels would let the core quote again
            ids = self.session.emergency(str(fault))
            self.log.fault(fault, ids)
            if self.live is not None and ids:
                await asyncio.sleep(EMERGENCY_SECONDS)
            raise
        finally:
            abort.cancel()

    def resting(self) -> list[str]:
        """Our orders that are not proved gone, with the venue's id where it is known."""
        live = [o for o in self.state.orders.values() if o.is_live]
        return [f"{o.order_id} ({o.venue_id})" if o.venue_id and self.live else o.order_id for o in live]

    def result(self) -> dict[str, Any]:
        """The JSON of the run."""
        tape = self.world.tape
        frames = tape.frames if tape else self.session.frames
        return {
            "mode": self.config.mode,
            "venue": self.scope.venue,
            "simulated": self.world.market is not None,
            "paper_money": self.exchange is not None,
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
            "twin": self.twins.told(),
        }

    def close(self) -> None:
        """Leave the files whole."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.lock.release)
            if self.wallet_lock is not None:
                stack.callback(self.wallet_lock.release)
            stack.callback(self.log.close)
            stack.callback(self.mind.close)
            stack.callback(self.ledger.close)
            stack.callback(self.twins.close)
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


def _bytes(megabytes: float) -> int:
    return int(megabytes * 1_000_000)


def run(daemon: Daemon, on_idle: Callable[[], None] = lambda: None) -> bool:
    """Run a daemon to its end on the fastest event loop there is; True if the stop was clean."""
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run(on_idle))
    return asyncio.run(daemon.run(on_idle))
