"""How bad it gets: the rates of one run, the limits it is run under, the lies of its model. All drawn from the dice handed in."""

from __future__ import annotations

from collections import Counter

import msgspec

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.commands import (
    Stop,
)
from llm_maker.core.params import ExecutionParams, ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams, Terms

DAY_S = 86_400
STRATEGY = Maker()


class Climate(msgspec.Struct):
    """How often each thing goes wrong, as chances; drawn for a run, zero in calm weather."""

    feed_drop: float = 0.0
    feed_double: float = 0.0
    feed_reorder: float = 0.0
    feed_late: float = 0.0
    feed_crossed: float = 0.0
    place_lost: float = 0.0
    place_uncertain: float = 0.0
    place_late: float = 0.0
    place_very_late: float = 0.0
    place_doubled: float = 0.0
    cancel_lost: float = 0.0
    cancel_late: float = 0.0
    cancel_refused: float = 0.0
    lookup_lost: float = 0.0
    account_lost: float = 0.0
    account_unknown: float = 0.0
    merge_failed: float = 0.0
    merge_unsure: float = 0.0
    answer_lost: float = 0.0
    answer_late: float = 0.0
    answer_double: float = 0.0
    money_late: float = 0.0
    money_very_late: float = 0.0
    money_double: float = 0.0
    lie: float = 0.0
    model_fails: float = 0.0
    model_silent: float = 0.0


RARE = {
    "place_very_late": 0.02, "feed_crossed": 0.01, "feed_late": 0.01, "feed_reorder": 0.02, "feed_drop": 0.05, "feed_double": 0.2,
}  # fmt: skip
"""The most of some; of the others half of all goes wrong at worst."""
INCIDENTS = (
    "feed_lost", "venue_down", "regime", "clock_step", "loop_block", "lag", "silence", "crash", "crash_sending", "operator_market",
    "operator_all", "tick_change", "dropped", "storage", "weight", "params", "intent", "repeat_account", "venue_cancels",
)  # fmt: skip
ENDINGS = ("calm", "calm", "calm", "stop_in_storm", "kill_in_storm")
KINDS = (
    *Climate.__struct_fields__,
    *INCIDENTS,
    "late_fill",
    "fill_after_cancel",
    "settlement_failed",
    "resolved",
    "journal_tail_lost",
)


class Report(msgspec.Struct):
    """What a run was: for counting, not for judging."""

    seed: int
    ending: str
    happened: Counter
    counts: dict
    crossed: Counter
    longest_ns: int
    stop: Stop | None
    events: int
    sessions: int
    quotes_at_end: int
    rejected: Counter
    merges: int


def params_of(dice):
    """Limits near enough to be met, triggers fast enough to fire within minutes."""
    risk = RiskParams(
        bankroll=1_000 * CASH_PER_USD,
        max_order_cost=dice.choice((15, 40, 100)) * CASH_PER_USD,
        market_ratio=dice.choice((0.02, 0.05, 0.10)),
        event_ratio=dice.choice((0.05, 0.12)),
        cluster_ratio=dice.choice((0.06, 0.15)),
        gross_ratio=dice.choice((0.10, 0.40)),
        free_cash_ratio=dice.choice((0.2, 0.6, 0.85)),
        max_position_milli=dice.choice((60_000, 200_000)),
        daily_loss_ratio=dice.choice((0.003, 0.02, 0.5)),
        max_drawdown_ratio=dice.choice((0.004, 0.06, 0.5)),
        jump_ticks=dice.choice((5, 8)),
        jump_cooldown_ns=8 * NS_PER_S,
        stop_cooldown_ns=15 * NS_PER_S,
        repeated_stop_cooldown_ns=25 * NS_PER_S,
        resolution_pull_ns=20 * NS_PER_S,
        resolution_reduce_ns=60 * NS_PER_S,
        exit_patience_ns=dice.choice((6, 20)) * NS_PER_S,
        messages_per_10s=dice.choice((60, 200)),
        approve_above=dice.choice((0, 10 * CASH_PER_USD)),
    )
    exits = ExitParams(
        stop_ratio=dice.choice((0.01, 0.05)), target_ratio=dice.choice((0.02, 0.08)), hold_ns=dice.choice((0, 5)) * NS_PER_S
    )
    signals = SignalParams(
        rule=dice.choice(("pooled", "pooled", "seed")),
        prior_weight=dice.choice((0.0, 0.15, 0.5)),
        refresh_ns=30 * NS_PER_S,
        expiry_ns=300 * NS_PER_S,
        expire_before_end_ns=60 * NS_PER_S,
    )
    slow = SlowParams(answer_timeout_ns=8 * NS_PER_S, probe_ns=8 * NS_PER_S, probe_max_ns=30 * NS_PER_S, min_gap_ns=3 * NS_PER_S)
    merges = ExecutionParams(merge_min_milli=dice.choice((10_000, 20_000)))
    return Params(risk=risk, exits=exits, execution=merges, signals=signals, slow=slow)


def strategy_of(dice, seed):
    """The maker as shipped, in one of its two forms; two seeds of four quote with every term on, and the event listed whole."""
    quoting = dice.choice(("inventory", "touch"))
    if seed % 4 in (0, 3):
        return MakerParams(quoting=quoting, interval_ns=10 * NS_PER_S)
    return MakerParams(
        interval_ns=10 * NS_PER_S,
        terms=Terms(**dict.fromkeys(Terms.__struct_fields__, True)),
        by_date=tuple(f"SIM-{n:04d}" for n in range(1, 8)),
        complete_events=("E-one",),
        taper_ns=120 * NS_PER_S,
        taper_end_ns=60 * NS_PER_S,
    )


def climate_of(dice):
    """A third of all things never goes wrong in a run, some go wrong often."""
    rates = {}
    for name in Climate.__struct_fields__:
        most = RARE.get(name, 0.5)
        rates[name] = most * dice.choice((0.0, 0.0, 0.05, 0.2, 1.0))
    return Climate(**rates)


def lie(dice, name):
    """Any signal that a valid answer may hold, however absurd."""
    p = dice.choice((None, 0.0, 1.0, dice.random()))
    return Signal(
        market_id=name,
        action=dice.choice(list(Action)),
        confidence=dice.choice((0.0, 0.59, 0.8, 1.0, dice.random())),
        directional_bias=dice.choice(list(Bias)),
        risk_level=dice.choice(list(Grade)),
        priority=dice.choice(list(Grade)),
        p_yes=p,
        p_low=None if p is None else p * dice.random(),
        p_high=None if p is None else p + (1 - p) * dice.random(),
        reasoning="simulated: a lie",
        stop_ratio=dice.choice((None, 0.005, 0.5)),
        target_ratio=dice.choice((None, 0.005, 2.0)),
    )
