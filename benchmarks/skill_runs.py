"""Simulated market-days through the real engine, for `benchmarks.skill`: whom it listens to, what he said, what it earned.

One run is some markets for some time, with one analyst who counts for something, or a panel that is only listened to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from llm_maker.config import load
from llm_maker.core.advice import MemberAnswer, Signal
from llm_maker.core.commands import AnyCommand, Command, RequestSignals
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.events import Event, OrderFilled, SignalsReceived, Started, Tick, WeightUpdated
from llm_maker.core.signals import Opinion, accept, bias_sign, market_x
from llm_maker.core.skill import HORIZONS_S, Forecast, Skill
from llm_maker.core.state import State
from llm_maker.core.values import NS_PER_S, expit, usd
from llm_maker.port import Simulator
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.tuning import maker_params, to_params
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.world import exchange_params, simulated_analyst

SKILLS = (0.0, 0.05, 0.10, 0.20, 0.30)
_GRAIN_NS = 10 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S
_SAMPLE_NS = 60 * NS_PER_S
_SHARE, _USD = 1_000_000, 10_000
"""Units of the simulated instruments."""
_PANEL = "panel"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is run. A market-day is one market for `days`; every run has `markets` of them."""

    regimes: tuple[str, ...] = ("mixed", "toxic", "neglected")
    training: int = 32
    """Runs per regime, from `training_seed` on."""
    testing: int = 12
    """Runs per regime and arm, from `testing_seed` on."""
    training_seed: int = 500_000
    testing_seed: int = 200_001
    skills: tuple[float, ...] = SKILLS
    markets: int = 8
    days: float = 1.0
    horizon_s: int = 3_600
    """Of the price response that the weight is learned from."""


class Result(msgspec.Struct, frozen=True):
    """One run: what each market brought, USD, at the final truth and by the edge of its fills."""

    regime: str
    r2: float
    weight: float
    seed: int
    pnl: dict[str, float]
    edge: dict[str, float]
    shares: float
    fills: int
    signals: int
    refused: int


class Pace(Ticker):
    """The engine's Tick at the grain of this market, forty times coarser than the product's: ten times the market-days."""

    def advance(self, now: int) -> list[Event]:
        if now < self._next:
            return []
        self._next += _GRAIN_NS
        return [Tick()]


class Panel:
    """Analysts of every skill who answer the same request; the last one speaks, the others are members of its answer."""

    name = "llm"

    def __init__(self, analysts: list[Simulator]) -> None:
        self._analysts = analysts

    def observe(self, now: int, event: Event) -> None:
        """Markets are seen through the brief only."""

    def execute(self, now: int, command: Command) -> None:
        if isinstance(command, RequestSignals):
            for analyst in self._analysts:
                analyst.execute(now, command)

    def next_ns(self) -> int | None:
        return self._analysts[0].next_ns()

    def advance(self, now: int) -> list[Event]:
        answers = [event for analyst in self._analysts for event in analyst.advance(now)]
        heard = [a for a in answers if isinstance(a, SignalsReceived)]
        if not heard:
            return answers[:1]
        members = tuple(MemberAnswer(a.model, a.prompt_version, "ok", a.signals) for a in heard)
        return [msgspec.structs.replace(heard[-1], model=_PANEL, members=members)]

    def checkpoint(self) -> bytes:
        """A training run that was broken off is done anew."""
        return b""

    def restore(self, saved: bytes) -> None:
        """So there is nothing to go on from."""


class Witness:
    """Sees what the logs would: answers beside the market of their moment, the market later, fills beside the truth."""

    def __init__(self, state: State, truth: Callable[[str], float], seed: int) -> None:
        self._state, self.truth, self._seed = state, truth, seed
        self._forecasts: list[Forecast] = []
        self._mids: dict[str, dict[int, float]] = defaultdict(dict)
        self._fills: list[tuple[str, float, float, float, float]] = []
        self.truths: dict[str, float] = {}
        """Forecast -> the true log-odds at its moment."""
        self._sample_ns = 0
        self._opinions: dict[tuple[str, str], Opinion] = {}

    def record(self, seq: int, ts: int, event: Event, commands: list[AnyCommand]) -> None:
        if isinstance(event, Tick):
            if ts >= self._sample_ns:
                self._sample(ts)
        elif isinstance(event, OrderFilled):
            price, qty, true = event.price / _USD, int(event.side) * event.qty / _SHARE, expit(self.truth(event.instrument))
            self._fills.append((event.instrument, qty, price, usd(event.fee), true))
        elif isinstance(event, SignalsReceived):
            self._hear(ts, event)

    def _sample(self, ts: int) -> None:
        minute = ts // _SAMPLE_NS
        self._sample_ns = (minute + 1) * _SAMPLE_NS
        for name, market in self._state.markets.items():
            if market.mark > 0:
                self._mids[name][minute] = market_x(market.instrument, market.mark)

    def _hear(self, ts: int, event: SignalsReceived) -> None:
        for member in event.members:
            for signal in member.signals:
                market = self._state.markets[signal.market_id]
                forecast = Forecast(
                    ts=ts,
                    decision_id=event.decision_id,
                    model=member.model,
                    category=market.instrument.category,
                    instrument=f"{self._seed}/{signal.market_id}",
                    event_id=f"{self._seed}/{market.instrument.event_id}",
                    role="member",
                    p_yes=signal.p_yes,
                    confidence=signal.confidence,
                    bias=bias_sign(signal.directional_bias),
                    x_market=market_x(market.instrument, market.mark),
                    d=self._smoothed(ts, event.decision_id, member.model, signal),
                    prompt_version=member.prompt_version,
                    simulated=True,
                )
                self._forecasts.append(forecast)
                self.truths[moment(forecast)] = self.truth(signal.market_id)

    def _smoothed(self, ts: int, decision: str, model: str, signal: Signal) -> float | None:
        """The disagreement that the core would go by if this member were the only one; None: it would refuse it."""
        market = self._state.markets[signal.market_id]
        if market.book.mid is None:
            return None
        params, key = self._state.params.signals, (model, signal.market_id)
        verdict = accept(
            signal, self._opinions.get(key), market.instrument, market.book.mid, 0, (0, 0), params, ts, (decision, model)
        )
        if verdict.opinion is None:
            return None
        self._opinions[key] = verdict.opinion
        return verdict.opinion.d0

    def forecasts(self) -> list[Forecast]:
        """With what the market said later, where the run lasted until then."""
        found = []
        for f in self._forecasts:
            mids = self._mids[f.instrument.partition("/")[2]]
            at = {h: mids.get((f.ts + h * NS_PER_S) // _SAMPLE_NS) for h in HORIZONS_S}
            found.append(msgspec.structs.replace(f, later={h: x for h, x in at.items() if x is not None}))
        return found

    def results(self) -> tuple[dict[str, float], dict[str, float], float]:
        """(at the final truth, by the edge of the fills) in USD per market, and the shares that changed hands."""
        pnl, edge = (dict.fromkeys(self._state.markets, 0.0) for _ in range(2))
        for name, qty, price, fee, true in self._fills:
            pnl[name] += qty * (expit(self.truth(name)) - price) - fee
            edge[name] += qty * (true - price) - fee
        return pnl, edge, sum(abs(f[1]) for f in self._fills)


def moment(f: Forecast) -> str:
    return f"{f.instrument}@{f.ts}"


def run(
    plan: Plan, regime: str, seed: int, r2s: tuple[float, ...], weight: float, keys: Mapping[str, object] | None = None
) -> tuple[Witness, State]:
    """One run of all markets: nobody asked, one analyst who counts for `weight`, or a panel that is only listened to.

    `keys`: dotted keys of the config, beside those that make the world.
    """
    world = {"markets": plan.markets, "regime": regime, "activity": 1.0, "days_to_end": 30.0, "rewards": False}
    given = {"seed": seed, **{f"paper.{k}": v for k, v in world.items()}, "paper.settle_fail_pct": 0.0, **(keys or {})}
    config = load(None, {}, given if r2s else {**given, "llm.provider": "none"})
    paper = config.paper
    market = SimulatedMarket(
        MarketParams(
            seed=seed,
            markets=paper.markets,
            regime=regime,
            step_ns=_GRAIN_NS,
            days_to_end=paper.days_to_end,
            rewards=paper.rewards,
        )
    )
    analysts = [simulated_analyst(load(None, {}, {**given, "llm.simulated_skill_r2": r2}), market) for r2 in r2s]
    exchange = Exchange(exchange_params(config))
    simulators: list[Simulator] = [exchange]
    if analysts:
        simulators.append(analysts[0] if len(analysts) == 1 else Panel(analysts))
    start = market.next_ns()
    assert start is not None
    timeline = Timeline([("", market), *(("main", s) for s in simulators), ("", Pace(start))])
    strategy = Maker()
    state = new_state("main", to_params(config), strategy, maker_params(config), exchange.params.start_cash)
    witness = Witness(state, market.truth, seed)
    session = Session([Account(Engine(state, strategy), None, witness, simulators)], timeline)
    session.deliver(start, "main", Started(1, False))
    if analysts:
        model = _PANEL if len(analysts) > 1 else f"simulated(R2={r2s[0]:.2f})"
        session.deliver(start, "main", WeightUpdated(model, "", Skill(weight=weight, why="frozen for this run")))
    end = start + int(plan.days * DAY_NS)
    while True:
        # Not `run_virtual`: a stop would be part of the day. What is due at its last moment is still lived through.
        item = timeline.pop(end)
        if item is None:
            return witness, state
        session.deliver(*item)


class Lesson(msgspec.Struct, frozen=True):
    """One training run: the answers of the whole panel, and the truth of their moments."""

    forecasts: list[Forecast]
    truths: dict[str, float]


def learn(plan: Plan, regime: str, seed: int) -> Lesson:
    witness, _ = run(plan, regime, seed, plan.skills, 0.0)
    return Lesson(witness.forecasts(), witness.truths)


def trial(plan: Plan, regime: str, seed: int, r2: float, weight: float) -> Result:
    witness, state = run(plan, regime, seed, (r2,), weight)
    pnl, edge, shares = witness.results()
    c = state.counts
    return Result(regime, r2, weight, seed, pnl, edge, shares, c.fills, c.signals, c.signals_refused)
