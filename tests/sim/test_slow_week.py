"""The slow loop among models that fail in every way there is: real analyst, engine and strategy, in virtual time.

A day here, a week of several seeds in `make prove`. An ensemble of two with one in reserve, or one model alone. After the last
failure comes a calm morning with a fresh budget, in which all must be well again.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from random import Random

import pytest

from llm_maker.config import Config
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.events import SignalsReceived, Started, Tick
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.llm.budget import DailyBudget, to_cash
from llm_maker.llm.build import Surroundings, build_analyst, resolve
from llm_maker.llm.offline import OfflineAnalyst, VirtualTime
from llm_maker.llm.templates import BUILT_IN
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.tuning import cycle_seconds, maker_params, to_params
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.world import exchange_params
from tests.sim.failing_models import DAY_NS, MINUTE_NS, FailingModel, episodes, happened, with_outages
from tests.sim.slow_oracle import SlowOracle

GRAIN_NS = 10 * NS_PER_S
CALM_NS = 2 * 3_600 * NS_PER_S
MARKETS = 2
MAX_OUTPUT, UNKNOWN = 1_000, 0.05
MODELS = {"one": (1, 6), "two": (2, 8), "spare": (3, 12)}
"""USD per million tokens in and out."""
DAY_SEEDS = (6, 3)
"""Of the ensemble and of one model alone; between them they meet every kind of failure."""
_OUTAGES = ("hang", "connection", "overload", "timeout", "not_json", "refusal")


class Pace(Ticker):
    """The engine's Tick at a grain forty times coarser than the product's."""

    def advance(self, now):
        if now < self._next:
            return []
        self._next += GRAIN_NS
        return [Tick()]


@dataclass
class Story:
    """What one run came to."""

    seed: int
    oracle: SlowOracle
    models: list
    days: dict
    said: Counter


def named(model):
    per_input, per_output = MODELS[model]
    prices = {"price_per_million_input_usd": per_input, "price_per_million_output_usd": per_output}
    return {"provider": "openai_compatible", "model": model, "base_url": "http://models.invalid/v1", **prices}


def config_of(seed, *, alone, limit, per_minute):
    whom = named("one") if alone else {"ensemble": [named("one"), named("two")], "reserve": [named("spare")]}
    bounds = {
        "daily_budget_usd": limit,
        "max_requests_per_minute": per_minute,
        "max_output_tokens": MAX_OUTPUT,
        "unknown_call_usd": UNKNOWN,
        "probe_seconds": 30,
        "probe_max_seconds": 240,
    }
    return Config.model_validate(
        {
            "seed": seed,
            "llm": whom | bounds,
            "strategy": {"refresh_seconds": 40, "max_position_size": 400},
            "risk": {"max_silence_seconds": 600, "max_book_age_seconds": 3_600, "daily_loss_pct": 90, "weekly_loss_pct": 95,
                     "monthly_loss_pct": 95, "max_drawdown_pct": 95, "max_market_pct": 10, "max_event_pct": 10},
            "paper": {"markets": MARKETS, "regime": "toxic", "cash_usd": 10_000},
        }
    )  # fmt: skip


def live_through(seed, days, *, alone=False, limit=9.0, per_minute=2):
    config = config_of(seed, alone=alone, limit=limit, per_minute=per_minute)
    feed = SimulatedMarket(
        MarketParams(
            seed=seed, markets=MARKETS, regime="toxic", activity=3.0, step_ns=15 * NS_PER_S, days_to_end=60.0, rewards=False
        )
    )
    exchange = Exchange(exchange_params(config))
    start, dice = feed.next_ns(), Random(f"episodes {seed}")
    storm_end = start + days * DAY_NS
    outages = []
    for hour in range(2, 24 * days, 4):
        began = start + int((hour + dice.random()) * 60) * MINUTE_NS
        outages.append((began, began + int(dice.uniform(5, 40)) * MINUTE_NS, _OUTAGES[len(outages) % len(_OUTAGES)]))
    time, models, said = VirtualTime(), [], Counter()
    time.at(start)

    def opened(plan, make):
        own = with_outages(dice, episodes(dice, start, storm_end), [] if alone else outages)
        price = tuple(map(Decimal, MODELS[plan.model]))
        models.append(
            FailingModel(plan.spec.name, plan.model, price=price, max_output=MAX_OUTPUT, seed=seed, clock=time.clock, episodes=own)
        )
        return models[-1]

    strategy = Maker()
    state = new_state("main", to_params(config), strategy, maker_params(config), exchange.params.start_cash)
    heard = []
    around = Surroundings(
        budget=DailyBudget(Decimal(str(limit)), keep=lambda plain: heard and heard[0].booked(plain)),
        record=lambda facts: None,
        say=lambda level, text: said.update([f"{level}"]),
        skills=state.skills,
        opened=opened,
        clock=time.clock,
    )
    analyst = build_analyst(config, Secrets({}), resolve(config, Secrets({}), simulated_feed=False), around, (BUILT_IN,)).analyst
    oracle = SlowOracle(
        state,
        models,
        limit=Decimal(str(limit)),
        per_minute=per_minute,
        failures_to_fallback=config.llm.failures_to_fallback,
        deadline_s=cycle_seconds(config),
        unknown_usd=Decimal(str(UNKNOWN)),
    )
    heard.append(oracle)
    offline = OfflineAnalyst(analyst, time, oracle.hear_facts)
    timeline = Timeline([("", feed), ("main", exchange), ("main", offline), ("", Pace(start))])
    session = Session([Account(Engine(state, strategy), None, oracle, [exchange, offline])], timeline)
    session.deliver(start, "main", Started(1, False))
    try:
        while (item := timeline.pop(storm_end + CALM_NS)) is not None:
            session.deliver(*item)
    finally:
        time.close()
    return Story(seed, oracle, models, oracle.finish(), said)


def check_the_end(story):
    """All is well again, and every part of the story was told."""
    oracle, state = story.oracle, story.oracle.state
    assert isinstance(oracle.last, SignalsReceived) and not state.slow.fallback and state.slow.failures == 0
    out = [one for one in oracle.last.members if one.outcome != "ok"]
    assert not out, f"still out: {out}"
    assert oracle.entered == oracle.left == state.counts.fallbacks > 0, "each FALLBACK was left"
    assert oracle.halves > 0 and oracle.fulls > 0 and oracle.directional > 0, "opinions count, and not in fallback"
    assert to_cash(oracle.cost_told) <= oracle.cost_events <= to_cash(oracle.cost_told) + sum(oracle.outcomes.values())
    assert oracle.cost_events == -state.flows.llm_cost, "what the core notes is what was booked"
    assert state.counts.fills > 0 and not state.halts


def table(stories):
    """Printed: what happened, so that a reader can judge whether it was weather."""
    lines = []
    kinds = Counter()
    for story in stories:
        oracle, counts = story.oracle, story.oracle.state.counts
        kinds.update(happened(story.models))
        gates = Counter()
        for gate in oracle.gates.values():
            gates.update(gate.episodes)
        lines.append(
            f"seed {story.seed}: {len(story.models)} models, {sum(len(m.calls) for m in story.models)} calls, "
            f"{sum(oracle.outcomes.values())} cycles {dict(oracle.outcomes)}"
        )
        lines.append(f"  members: {dict(oracle.member_outcomes)}")
        lines.append(
            f"  FALLBACK {oracle.entered} times in and {oracle.left} out, {oracle.halves} quotes at half size, "
            f"{oracle.fulls} larger ones outside; breakers {dict(gates)}; {counts.fills} fills, {oracle.stops} stops"
        )
        lines += [
            f"  day {n}: servers charge {true:.4f} USD, we booked {booked:.4f} of {oracle.limit} (beyond any bound: {excess:.2f})"
            for n, (true, booked, excess) in enumerate(story.days.values())
        ]
    lines.append("calls by kind: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    print("\n".join(["", *lines]))
    return kinds


def judge(stories):
    kinds = table(stories)
    for story in stories:
        check_the_end(story)
    assert not [kind for kind, count in kinds.items() if not count], "every kind of failure must have happened"
    outcomes, episodes_ = Counter(), Counter()
    for story in stories:
        outcomes.update(story.oracle.outcomes)
        for gate in story.oracle.gates.values():
            episodes_.update(gate.episodes)
    wanted = {"ok", "malformed", "truncated", "refusal", "overload", "rate_limit", "timeout", "connection", "auth", "billing",
              "bad_request", "budget", "skipped: rate_wait"}  # fmt: skip
    assert wanted <= set(outcomes), f"no cycle ended with {wanted - set(outcomes)}"
    assert min(episodes_[name] for name in ("stop", "pause", "recovery")) > 0
    assert sum(story.oracle.stops for story in stories) > 0, "a stop must have had to work"


@pytest.mark.prove
def test_a_slow_day():
    judge([live_through(DAY_SEEDS[0], 1), live_through(DAY_SEEDS[1], 1, alone=True)])


@pytest.mark.prove
@pytest.mark.timeout(0)
def test_slow_weeks():
    first = int(os.environ.get("LLM_MAKER_SEED", "1"))
    stories = [live_through(seed, 7) for seed in range(first, first + 3)]
    stories += [live_through(seed, 7, alone=True, limit=2.0, per_minute=3) for seed in range(first + 3, first + 5)]
    judge(stories)
