"""A simulated world with everything on (exchange, journal, strategy, gates) whose every message can be timed."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter_ns

import msgspec

from benchmarks.rows import ROOT
from llm_maker.app import STRATEGIES
from llm_maker.config import load
from llm_maker.core.commands import AnyCommand
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import BookDelta, Event, Started
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.loop import HOT, Account, Session
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.tuning import maker_params, to_params
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.world import exchange_params

ACTIVITY = 60.0
"""Takers come so much more often than on a usual day, so that positions exist within a minute."""
_RICH = 10_000.0
"""USD for each market: where every one of them is quoted, no cap of the whole account may be what decides."""


class Timed(Engine):
    """The engine, and how long it took for the last event (ns)."""

    __slots__ = ("took",)

    def on_event(self, now: int, event: Event) -> list[AnyCommand]:
        began = perf_counter_ns()
        commands = super().on_event(now, event)
        self.took = perf_counter_ns() - began
        return commands


class Costs:
    """Nanoseconds per book message: the engine's alone by kind, and the whole of it."""

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.deep: list[int] = []
        self.top: list[int] = []
        self.held: list[int] = []
        """Top changes of markets with a position and quotes of ours."""


class Stage:
    """`markets` simulated markets, brought to life for `warm_s` of market time."""

    def __init__(self, folder: Path, markets: int, warm_s: float) -> None:
        rich = {"risk.bankroll_usd": _RICH * markets, "paper.cash_usd": _RICH * markets}
        config = load(ROOT / "config.yaml", {}, {**rich, "risk.max_open_positions": 5_000, "risk.messages_per_10s": 100_000})
        params = to_params(config)
        params = msgspec.structs.replace(params, slow=msgspec.structs.replace(params.slow, enabled=False))
        feed = SimulatedMarket(MarketParams(seed=7, markets=markets, activity=ACTIVITY))
        exchange = Exchange(exchange_params(config))
        start = feed.next_ns() or 0
        self.timeline = Timeline([("", feed), ("main", exchange), ("", Ticker(start))])
        strategy = STRATEGIES[config.strategy.name]
        self.engine = Timed(new_state("main", params, strategy, maker_params(config), exchange.params.start_cash), strategy)
        self.journal = JournalWriter.create(
            folder / f"stage-{markets}",
            "main",
            lambda: Checkpoint(checkpoint(self.engine.state), self.timeline.checkpoint(), {}),
        )
        self.session = Session([Account(self.engine, self.journal, None, [exchange])], self.timeline)
        self.session.deliver(start, "main", Started(1, False))
        until = start + int(warm_s * NS_PER_S)
        while self.session.now < until:
            self._next()

    @property
    def state(self) -> State:
        return self.engine.state

    def measure(self, messages: int, costs: Costs) -> None:
        """Time this many public messages; everything else between them happens untimed."""
        deliver, engine = self.session.deliver, self.engine
        while messages:
            item = self.timeline.pop()
            assert item is not None, "simulated markets follow one another"
            event = item[2]
            if type(event) not in HOT:
                deliver(*item)
                continue
            messages -= 1
            market = self.state.markets[event.instrument]  # type: ignore[attr-defined]  # HOT events name one
            version, held = market.book.top_version, _held(market)
            began = perf_counter_ns()
            deliver(*item)
            costs.whole.append(perf_counter_ns() - began)
            if type(event) is BookDelta:
                kind = costs.deep if market.book.top_version == version else costs.top
                kind.append(engine.took)
                if held and kind is costs.top:
                    costs.held.append(engine.took)

    def close(self) -> None:
        self.journal.close()

    def _next(self) -> None:
        item = self.timeline.pop()
        assert item is not None, "simulated markets follow one another"
        self.session.deliver(*item)


def _held(market: Market) -> bool:
    return market.position.net != 0 and bool(market.live)
