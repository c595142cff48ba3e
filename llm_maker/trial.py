"""One run in memory: configs side by side through tape or simulated market in virtual time; of each its `Track`, and no file.

What a backtest is without its journal and logs: engine, paper exchange, recorded signals, one order of events. Accounts of one run
hear the same market and Tick events and nothing of one another, so that each is what it would be alone. All money is paper money.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from llm_maker.app import STRATEGIES
from llm_maker.config import Config, MarketSelection
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.events import Event, Started, Tick
from llm_maker.core.params import Params
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.port import Simulator
from llm_maker.report.track import Track
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import Scope
from llm_maker.runtime.signals_file import SignalsFile
from llm_maker.runtime.tape import TapeFeed
from llm_maker.runtime.timeline import TICK_NS, Ticker, Timeline
from llm_maker.runtime.universe import SelectedFeed
from llm_maker.tracks import track
from llm_maker.tuning import maker_params, to_params
from llm_maker.universe import Universe
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.world import Refused, exchange_params, open_tape

DAY_S = 86_400
Told = Callable[[Config, SimulatedMarket], Simulator]
"""Makes the analyst of one account on a simulated market, as `world.simulated_analyst` does."""


class Pace(Ticker):
    """The engine's Tick at another grain than the product's, for many market-days of a coarse simulated market."""

    def __init__(self, start_ns: int, every_ns: int = TICK_NS) -> None:
        super().__init__(start_ns)
        self._next, self._every = start_ns + every_ns, every_ns

    def advance(self, now: int) -> list[Event]:
        if now < self._next:
            return []
        self._next += self._every
        return [Tick()]


class Side:
    """One account of a run: engine, exchange and perhaps an analyst, recording into memory."""

    def __init__(self, config: Config, scope: Scope, analyst: Simulator | None, sample_ns: int) -> None:
        exchange = Exchange(exchange_params(config))
        strategy = STRATEGIES[config.strategy.name]
        params = params_of(config, advised=analyst is not None)
        self.scope, self.memory, self._sampled = scope, Memory(), sample_ns > 0
        self.state = new_state(scope.account, params, strategy, maker_params(config), exchange.params.start_cash)
        self.simulators: list[Simulator] = [exchange] if analyst is None else [exchange, analyst]
        self.recorder = Recorder(self.state, scope, self.memory, None, simulated=True, sample_ns=sample_ns)
        self.account = Account(Engine(self.state, strategy), None, self.recorder, self.simulators)

    def track(self) -> Track:
        """The record up to this account's own last event."""
        self.recorder.save_state(self.state.now)
        return track(self.memory, self.scope, samples=self._sampled)


def params_of(config: Config, *, advised: bool) -> Params:
    """The core's numbers for a run in virtual time: a slow loop only where somebody answers it."""
    params = to_params(config)
    # A live config too: the money is paper here, and no venue tells of an account that such rules would wait for.
    params = msgspec.structs.replace(params, risk=msgspec.structs.replace(params.risk, live=False))
    return msgspec.structs.replace(params, slow=msgspec.structs.replace(params.slow, enabled=advised))


def run_tape(config: Config, tape: Path, *, account: str = "main", signals: Path | None = None, sample_ns: int = 0) -> Track:
    """One config over a tape to its end and a clean stop, as `backtest` does it; `sample_ns` 0 takes no samples.

    Raises `TapeError` for a damaged tape or signals file, `Refused` for one that this version cannot play.
    """
    return run_many({account: config}, tape, signals=signals, sample_ns=sample_ns)[account]


def run_many(
    configs: Mapping[str, Config], tape: Path, *, signals: Path | None = None, checked: bool = False, sample_ns: int = 0
) -> dict[str, Track]:
    """Account name -> Track of its config, all on one pass over the tape: one more pass for each other `market_selection`.

    `checked`: the tape has been read to its end before.
    """
    passes: dict[str, tuple[MarketSelection, dict[str, Config]]] = {}
    for name, config in configs.items():
        selection = config.market_selection
        passes.setdefault(selection.model_dump_json(), (selection, {}))[1][name] = config
    found: dict[str, Track] = {}
    for selection, group in passes.values():
        found |= _one_pass(selection, group, tape, signals, checked, sample_ns)
        checked = True
    return {name: found[name] for name in configs}


def _one_pass(
    selection: MarketSelection, configs: Mapping[str, Config], tape: Path, signals: Path | None, checked: bool, sample_ns: int
) -> dict[str, Track]:
    reader, instruments, wire = open_tape(tape, checked=checked)
    feed = TapeFeed(reader, instruments, wire)
    start = feed.next_ns()
    if start is None:
        raise Refused(f"{tape}: no frame after the header")
    shown = selected(feed, Universe(selection), instruments, start)
    sides = {
        name: Side(
            config,
            Scope(reader.venue, "paper", f"backtest:{tape.name}", name),
            None if signals is None else SignalsFile(signals),
            sample_ns,
        )
        for name, config in configs.items()
    }
    _play(_session(sides, shown, Ticker(start), start))
    tracks = {name: side.track() for name, side in sides.items()}
    for one in tracks.values():
        one.label |= {"tape": tape.name, "truncated": feed.truncated}
    return tracks


def selected(feed: Simulator, universe: Universe, instruments: Iterable[Instrument], start: int) -> Simulator:
    """The feed as the universe lets it through; the feed itself where every market passes, for a filter costs every event."""
    for instrument in instruments:
        universe.judge(instrument, start)
    return feed if all(choice.chosen for choice in universe.choices.values()) else SelectedFeed(feed, universe)


def run_simulated(
    config: Config,
    *,
    market: MarketParams,
    days: float,
    tick_ns: int = TICK_NS,
    analyst: Told | None = None,
    opening: Sequence[Event] = (),
    account: str = "main",
    sample_ns: int = 0,
) -> Track:
    """One config on a simulated market of its own; see `simulate_many`."""
    configs = {account: config}
    return simulate_many(configs, market=market, days=days, tick_ns=tick_ns, analyst=analyst, opening=opening, sample_ns=sample_ns)[
        account
    ]


def simulate_many(
    configs: Mapping[str, Config],
    *,
    market: MarketParams,
    days: float,
    tick_ns: int = TICK_NS,
    analyst: Told | None = None,
    opening: Sequence[Event] = (),
    sample_ns: int = 0,
) -> dict[str, Track]:
    """Account name -> Track on one simulated market, for `days` of market time.

    Every market of it is shown, whatever `market_selection` says. `opening` is delivered to each account after `Started` (a frozen
    weight, say). The record ends with the last moment's events and no stop: cancels are no part of a day.
    """
    feed = SimulatedMarket(market)
    sides = {
        name: Side(config, Scope("simulated", "paper", f"seed:{market.seed}", name), analyst and analyst(config, feed), sample_ns)
        for name, config in configs.items()
    }
    session = _session(sides, feed, Pace(market.start_ns, tick_ns), market.start_ns, opening)
    end = market.start_ns + round(days * DAY_S) * NS_PER_S
    while (item := session.timeline.pop(end)) is not None:
        session.deliver(*item)
    tracks = {name: side.track() for name, side in sides.items()}
    for one in tracks.values():
        one.label |= {"regime": market.regime, "seed": market.seed}
    return tracks


def _session(sides: Mapping[str, Side], feed: Simulator, ticker: Ticker, start: int, opening: Sequence[Event] = ()) -> Session:
    """All sides on one timeline, each told that it has started."""
    own = [(name, simulator) for name, side in sides.items() for simulator in side.simulators]
    session = Session([side.account for side in sides.values()], Timeline([("", feed), *own, ("", ticker)]))
    for name in sides:
        for event in (Started(1, False), *opening):
            session.deliver(start, name, event)
    return session


def _play(session: Session) -> None:
    """To the feed's end, then until every account has stopped. As `Session.run_virtual`, but who has stopped hears nothing more:
    his record ends there, however long another takes."""
    timeline = session.timeline
    while not timeline.feeds_ended():
        item = timeline.pop()
        assert item is not None, "a feed that has not ended has something to say"
        session.deliver(*item)
    session.request_stop("the feed has ended")
    while session.accounts:
        session.accounts = [account for account in session.accounts if account.stop is None]
        item = timeline.pop() if session.accounts else None
        if item is not None:
            session.deliver(*item)
