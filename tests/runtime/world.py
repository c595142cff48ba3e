"""A small simulated world for tests: feed, exchange, analyst, engine, journal, all in virtual time and labelled simulated."""

from pathlib import Path

import msgspec

from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import Started
from llm_maker.core.params import Params, RiskParams, SlowParams
from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.llm.simulated import SimulatedAnalyst
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.paper.records import ExchangeParams

STRATEGIES = {"maker": Maker()}
CASH = 10_000 * CASH_PER_USD


def params(**slow) -> Params:
    fast = {"interval_ns": 10 * NS_PER_S, "min_gap_ns": 5 * NS_PER_S, "fill_gap_ns": 0}
    return Params(risk=RiskParams(bankroll=CASH, max_order_cost=100 * CASH_PER_USD), slow=SlowParams(**fast | slow))


class World:
    """The sources of one simulated run, built the same each time; `engine` starts new unless one is given."""

    def __init__(self, seed=3, markets=3, activity=60.0, engine=None, analyst=True, settings=None, **exchange):
        self.feed = SimulatedMarket(MarketParams(seed=seed, markets=markets, activity=activity))
        self.exchange = Exchange(ExchangeParams(seed=seed, start_cash=CASH, **exchange))
        self.simulators = [self.exchange]
        if analyst:
            self.simulators.append(SimulatedAnalyst(self.feed.truth, seed=seed, error_variance=0.01))
        self.start_ns = self.feed.next_ns()
        self.timeline = Timeline([("", self.feed), *(("main", s) for s in self.simulators), ("", Ticker(self.start_ns))])
        self.engine = engine or Engine(
            new_state("main", settings or params(), STRATEGIES["maker"], MakerParams(interval_ns=10 * NS_PER_S), CASH),
            STRATEGIES["maker"],
        )

    @property
    def feeds(self):
        return [s for account, s in self.timeline.sources if not account]

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(checkpoint(self.engine.state), self.timeline.checkpoint(), {"build": "test"})

    def journal(self, folder: Path, **limits) -> JournalWriter:
        return JournalWriter.create(folder, "main", self.checkpoint, limits=JournalLimits(compress=False, **limits))

    def session(self, journal=None, recorder=None, venue=None, seq=0) -> tuple[Session, Account]:
        account = Account(self.engine, journal, recorder, self.simulators, venue=venue, seq=seq)
        return Session([account], self.timeline), account

    def run(self, folder: Path, seconds: float, recorder=None, between=lambda session: None, **limits) -> Account:
        """A whole run: start, `seconds` of market time, a stop that is proved."""
        journal = self.journal(folder, **limits)
        session, account = self.session(journal, recorder)
        session.deliver(self.start_ns, "main", Started(1, False))
        between(session)
        session.run_virtual(self.start_ns + int(seconds * NS_PER_S))
        journal.close()
        return account


def net_of_fills(fills) -> dict[str, int]:
    """Instrument -> sum of side x quantity, zeros left out."""
    net: dict[str, int] = {}
    for fill in fills:
        net[fill.instrument] = net.get(fill.instrument, 0) + int(fill.side) * fill.qty
    return {instrument: qty for instrument, qty in net.items() if qty}


def net_of_state(state) -> dict[str, int]:
    return {i: m.position.net for i, m in state.markets.items() if m.position.net}


def builtins(state) -> object:
    """A state as plain data, to compare two of them whole."""
    return msgspec.json.decode(checkpoint(state))
