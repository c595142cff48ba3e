"""Frozen numbers the core is tuned by, in core units (ns, cash, ppm, ratios). `tuning.py` makes them from people's units.

Quantities are given in `qty_milli` (thousandths of a share) because instruments differ in their finest unit; `qty` converts.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, Instrument, Qty


class RiskParams(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and triggers (`quoting.md` 4). Ratios are of the bankroll unless said otherwise."""

    live: bool = False
    """The stricter defaults: unknown start or end time forbids new risk."""
    bankroll: int
    """Cash units; every cap is a share of it."""
    max_order_cost: int
    """Worst-case capital of one order."""
    market_ratio: float = 0.02
    event_ratio: float = 0.05
    cluster_ratio: float = 0.10
    gross_ratio: float = 0.50
    free_cash_ratio: float = 0.20
    linear_stress_ratio: float = 0.20
    """The price move that a linear position's worst case assumes."""
    max_position_milli: int = 200_000
    max_open_positions: int = 10
    daily_loss_ratio: float = 0.02
    daily_loss: int = 0
    """Cash units beside the share, the smaller holds; 0: the share alone."""
    weekly_loss_ratio: float = 0.04
    monthly_loss_ratio: float = 0.06
    max_drawdown_ratio: float = 0.06
    max_feed_lag_ns: int = 1_000 * NS_PER_MS
    max_loop_delay_ns: int = 250 * NS_PER_MS
    max_book_age_ns: int = 60 * NS_PER_S
    """Book age with trades printing elsewhere."""
    max_silence_ns: int = 10 * NS_PER_S
    """No message at all from a venue."""
    jump_cooldown_ns: int = 30 * NS_PER_S
    jump_ticks: int = 5
    sweep_ratio: float = 0.8
    stop_cooldown_ns: int = 900 * NS_PER_S
    repeated_stop_cooldown_ns: int = 3_600 * NS_PER_S
    volatility_widen_ratio: float = 4.0
    volatility_pull_ratio: float = 8.0
    resolution_pull_ns: int = 7_200 * NS_PER_S
    resolution_reduce_ns: int = 86_400 * NS_PER_S
    event_window_ns: int = 600 * NS_PER_S
    """Around a scheduled start: pulled."""
    fat_finger_ticks: int = 5
    fat_finger_ratio: float = 0.10
    messages_per_10s: int = 200
    """Places and cancels of one venue; cancels may use it all, places stop at 80 %."""
    exit_patience_ns: int = 600 * NS_PER_S
    exit_max_slippage_ratio: float = 0.05
    stop_exit_crosses: bool = True
    """`risk.stop_exit: maker_then_taker`; False never crosses."""
    approve_above: int = 0
    """Cash units; 0: intents need no approval."""
    unknown_lookup_ns: int = 2 * NS_PER_S
    ack_timeout_ns: int = 10 * NS_PER_S
    """An order or a cancel without an answer for this long becomes UNKNOWN."""


class ExitParams(msgspec.Struct, frozen=True, kw_only=True):
    """The default exit plan; a decision may bring its own."""

    stop_ratio: float = 0.05
    target_ratio: float = 0.08
    hold_ns: int = 30 * NS_PER_S
    """The stop must hold this long."""
    deadline_ns: int = 0
    """0: none."""


class ExecutionParams(msgspec.Struct, frozen=True, kw_only=True):
    """How targets become orders."""

    reprice_ticks: int = 1
    """A resting order this many ticks or fewer away from its target keeps its place... """
    fine_reprice_ticks: int = 2
    """... and this many where the tick is finer than 0.005 USD."""
    resize_ratio: float = 0.25
    """... unless its quantity is off by more than this share."""
    flicker_ns: int = 2 * NS_PER_S
    """An order that is off its target within the tolerance is moved after this long all the same."""
    quote_lifetime_ns: int = 0
    """A resting quote expires by itself after this; 0: never."""
    merge_min_milli: int = 20_000
    merge_cash_ratio: float = 0.30


class SignalParams(msgspec.Struct, frozen=True, kw_only=True):
    """How far an opinion reaches (design section 5, `quoting.md` 1.4)."""

    rule: str = "pooled"
    """`pooled`, or `seed`: the raw rule, where confidence below the minimum means no orders in that market."""
    min_confidence: float = 0.6
    size_up_confidence: float = 0.8
    size_up_max: float = 1.5
    base_milli: int = 50_000
    """Of a binary market; a linear one is sized in money."""
    base_cash: int = 0
    """Cash units; a linear instrument is not quoted while this is 0."""
    max_position_cash: int = 0
    prior_weight: float = 0.15
    max_weight: float = 0.5
    half_life_ns: int = 7_200 * NS_PER_S
    expiry_ns: int = 3 * 7_200 * NS_PER_S
    refresh_ns: int = 1_800 * NS_PER_S
    smoothing: float = 0.2
    """K of `quoting.md` 1.4 for a gap of `refresh_ns`; K(dt) = 1 - (1 - smoothing)^(dt / refresh)."""
    bias_beta: float = 0.0
    """Logit move per unit of bias and confidence when no p_yes is given; starts at 0, not at a guess."""
    expire_before_end_ns: int = 6 * 3_600 * NS_PER_S
    full_weight: float = 0.15
    """From this weight on an opinion moves the position by its whole base x multiplier; below it, by its share of that."""
    disagreement_logit: float = 1.0
    """Models this far apart (standard deviation of log-odds) or further: half the size, half as much again of spread."""
    kelly_ratio: float = 0.1
    """Of the full Kelly bet, where a model hands out shares of the capital and its skill has not been measured ... """
    kelly_measured_ratio: float = 0.25
    """... and where it has (`quoting.md` 3)."""


class SlowParams(msgspec.Struct, frozen=True, kw_only=True):
    """The rhythm of the slow loop."""

    enabled: bool = True
    listens: bool = False
    """Asks nobody and takes the answers that another account was given: those which that one waited for have a request id."""
    interval_ns: int = 45 * NS_PER_S
    max_markets: int = 10
    failures_to_fallback: int = 3
    answer_timeout_ns: int = 41 * NS_PER_S
    """The core stops waiting for an answer after this, and counts a failure."""
    probe_ns: int = 60 * NS_PER_S
    """First probe in FALLBACK; doubles to `probe_max_ns`."""
    probe_max_ns: int = 900 * NS_PER_S
    min_gap_ns: int = 10 * NS_PER_S
    """Between two requests, however many triggers fire."""
    whole: bool = False
    """Whenever one market is due all are asked about, so that one answer sees the portfolio."""
    fill_gap_ns: int = 45 * NS_PER_S
    """A market that was answered this short a time ago is not asked again for a fill."""


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """Everything above, of one account."""

    risk: RiskParams
    exits: ExitParams = ExitParams()
    execution: ExecutionParams = ExecutionParams()
    signals: SignalParams = SignalParams()
    slow: SlowParams = SlowParams()


def qty(instrument: Instrument, milli: int) -> Qty:
    """Thousandths of a share or contract -> the instrument's units."""
    return Qty(milli * 10**instrument.qty_decimals // 1000)


def sizes(params: Params, instrument: Instrument, mark: float) -> tuple[int, int]:
    """(base quantity, position cap): shares for a binary market, money over the mark for a linear one."""
    if instrument.is_binary:
        return qty(instrument, params.signals.base_milli), qty(instrument, params.risk.max_position_milli)
    if mark <= 0:
        return 0, 0
    unit = 10 ** (instrument.price_decimals + instrument.qty_decimals) / mark / CASH_PER_USD
    return int(params.signals.base_cash * unit), int(params.signals.max_position_cash * unit)
