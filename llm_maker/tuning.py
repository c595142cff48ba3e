"""People's units become the core's and the strategy's: USD to cash, percent to ratios, seconds to ns, exactly.

It refuses to know where a number came from and what is done with it.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from llm_maker.config import Config
from llm_maker.config_strategy import Execution, StrategyConfig
from llm_maker.core.params import ExecutionParams, ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S
from llm_maker.strategy.params import MakerParams, Terms

CYCLE_SHARE = 0.8
"""Of the decision interval: what a cycle of the slow loop may take."""
ANSWER_GRACE_S = 5.0
_UNPACED = 10_000.0
"""The speed that is assumed where none is set."""


def to_params(config: Config) -> Params:
    """People's units -> the core's, exactly. `slow.enabled` is False only where the provider is `none`."""
    return Params(
        risk=_risk(config),
        exits=_exits(config.strategy),
        execution=_execution(config.execution),
        signals=_signals(config.strategy),
        slow=_slow(config),
    )


def run_params(config: Config, provider: str, speed: float) -> Params:
    """The core's numbers for this run: no slow loop without a model, and patience with one that lives in wall time."""
    params = to_params(config)
    if provider == "none":
        return msgspec.structs.replace(params, slow=msgspec.structs.replace(params.slow, enabled=False))
    if provider == "simulated" or speed == 1.0:
        return params
    # A real model answers in wall time: at another speed its answer is as late in market time as the market is fast.
    patience = int(params.slow.answer_timeout_ns * (speed or _UNPACED))
    return msgspec.structs.replace(params, slow=msgspec.structs.replace(params.slow, answer_timeout_ns=patience))


def maker_params(config: Config) -> MakerParams:
    """People's units -> the strategy's."""
    s, e = config.strategy, config.execution
    return MakerParams(
        quoting=s.quoting,
        signal_rule=s.signal_rule,
        interval_ns=_ns(s.decision_interval),
        tick_improvement=e.tick_improvement,
        max_spread_usd=e.max_spread_threshold,
        min_liquidity_usd=e.min_liquidity_threshold,
        skew_max_ticks=s.skew_max_ticks,
        edge_floor_ticks=s.edge_floor_ticks,
        flow_ticks=s.flow_ticks,
        decay_hold_ns=_ns(s.decay_hold_hours, 3_600),
        by_date=s.by_date,
        complete_events=s.complete_events,
        unwind_max_ticks=s.unwind_max_ticks,
        taper_ns=_ns(s.taper_hours, 3_600),
        taper_end_ns=_ns(config.risk.resolution_reduce_hours, 3_600),
        kelly_ratio=s.kelly,
        terms=Terms(**s.terms.model_dump()),
    )


def _risk(config: Config) -> RiskParams:
    risk = config.risk
    return RiskParams(
        live=config.mode == "live",
        bankroll=_cash(config.paper.cash_usd if risk.bankroll_usd is None else risk.bankroll_usd),
        max_order_cost=_cash(risk.max_order_usd),
        market_ratio=_ratio(risk.max_market_pct),
        event_ratio=_ratio(risk.max_event_pct),
        cluster_ratio=_ratio(risk.max_cluster_pct),
        gross_ratio=_ratio(risk.max_gross_pct),
        free_cash_ratio=_ratio(risk.min_free_cash_pct),
        linear_stress_ratio=_ratio(risk.linear_stress_pct),
        max_position_milli=_milli(config.strategy.max_position_size),
        max_open_positions=risk.max_open_positions,
        daily_loss_ratio=_ratio(risk.daily_loss_pct),
        daily_loss=_cash(config.live.daily_loss_usd) if config.mode == "live" else 0,
        weekly_loss_ratio=_ratio(risk.weekly_loss_pct),
        monthly_loss_ratio=_ratio(risk.monthly_loss_pct),
        max_drawdown_ratio=_ratio(risk.max_drawdown_pct),
        max_feed_lag_ns=risk.max_feed_lag_ms * NS_PER_MS,
        max_loop_delay_ns=risk.max_loop_delay_ms * NS_PER_MS,
        max_book_age_ns=_ns(risk.max_book_age_seconds),
        max_silence_ns=_ns(risk.max_silence_seconds),
        jump_cooldown_ns=_ns(risk.jump_cooldown_seconds),
        jump_ticks=risk.jump_ticks,
        sweep_ratio=_ratio(risk.sweep_pct),
        stop_cooldown_ns=_ns(risk.stop_cooldown_seconds),
        repeated_stop_cooldown_ns=_ns(risk.repeated_stop_cooldown_seconds),
        volatility_widen_ratio=risk.volatility_widen_ratio,
        volatility_pull_ratio=risk.volatility_pull_ratio,
        resolution_pull_ns=_ns(risk.resolution_pull_hours, 3_600),
        resolution_reduce_ns=_ns(risk.resolution_reduce_hours, 3_600),
        event_window_ns=_ns(risk.event_window_seconds),
        fat_finger_ticks=risk.fat_finger_ticks,
        fat_finger_ratio=_ratio(risk.fat_finger_pct),
        messages_per_10s=risk.messages_per_10s,
        exit_patience_ns=_ns(risk.exit_patience_seconds),
        exit_max_slippage_ratio=risk.exit_max_slippage,
        stop_exit_crosses=risk.stop_exit == "maker_then_taker",
        approve_above=_cash(risk.approve_above_usd),
        unknown_lookup_ns=_ns(risk.unknown_lookup_seconds),
        ack_timeout_ns=_ns(risk.ack_timeout_seconds),
    )


def _exits(strategy: StrategyConfig) -> ExitParams:
    return ExitParams(
        stop_ratio=_ratio(strategy.stop_loss_percentage),
        target_ratio=_ratio(strategy.take_profit_percentage),
        hold_ns=_ns(strategy.stop_hold_seconds),
        deadline_ns=_ns(strategy.exit_deadline_hours, 3_600),
    )


def _execution(execution: Execution) -> ExecutionParams:
    return ExecutionParams(
        reprice_ticks=execution.reprice_ticks,
        fine_reprice_ticks=execution.fine_reprice_ticks,
        resize_ratio=execution.resize_ratio,
        flicker_ns=_ns(execution.flicker_seconds),
        quote_lifetime_ns=_ns(execution.quote_lifetime_seconds),
        merge_min_milli=_milli(execution.merge_min_sets),
        merge_cash_ratio=execution.merge_cash_ratio,
    )


def _signals(strategy: StrategyConfig) -> SignalParams:
    return SignalParams(
        rule=strategy.signal_rule,
        min_confidence=strategy.min_confidence_to_trade,
        size_up_confidence=strategy.min_confidence_to_size_up,
        size_up_max=strategy.size_up_max,
        base_milli=_milli(strategy.base_position_size),
        base_cash=_cash(strategy.base_usd),
        max_position_cash=_cash(strategy.max_usd),
        prior_weight=strategy.signal_prior_weight,
        max_weight=strategy.signal_max_weight,
        half_life_ns=_ns(strategy.signal_half_life_seconds),
        expiry_ns=_ns(strategy.signal_expiry_seconds),
        refresh_ns=_ns(strategy.refresh_seconds),
        smoothing=strategy.signal_smoothing,
        bias_beta=strategy.signal_bias_beta,
        expire_before_end_ns=_ns(strategy.signal_expire_before_end_hours, 3_600),
        full_weight=strategy.signal_full_weight,
        disagreement_logit=strategy.signal_disagreement,
        kelly_ratio=strategy.kelly,
        kelly_measured_ratio=strategy.kelly_measured,
    )


def cycle_seconds(config: Config) -> float:
    """The deadline of a whole cycle of the slow loop, waiting and reserve included: below the interval where one call fits."""
    return round(max(config.llm.timeout_seconds, CYCLE_SHARE * config.strategy.decision_interval), 6)


def _slow(config: Config) -> SlowParams:
    llm = config.llm
    return SlowParams(
        enabled=llm.provider != "none",
        interval_ns=_ns(config.strategy.decision_interval),
        max_markets=config.strategy.max_markets_per_query,
        failures_to_fallback=llm.failures_to_fallback,
        # The analyst ends its own cycle at the deadline; the core waits a little longer before it gives the answer up.
        answer_timeout_ns=exact(cycle_seconds(config) + ANSWER_GRACE_S, NS_PER_S),
        probe_ns=_ns(llm.probe_seconds),
        probe_max_ns=_ns(llm.probe_max_seconds),
        min_gap_ns=_ns(llm.min_gap_seconds),
        fill_gap_ns=_ns(llm.fill_gap_seconds),
        whole=llm.portfolio,
    )


def exact(value: float, per: int) -> int:
    """A number as it was written, in units of which `per` make one; no float comes between."""
    return int((Decimal(repr(value)) * per).to_integral_value())


def _cash(usd: float) -> int:
    return exact(usd, CASH_PER_USD)


def _milli(shares: float) -> int:
    return exact(shares, 1_000)


def _ns(time: float, seconds_each: int = 1) -> int:
    return exact(time, seconds_each * NS_PER_S)


def _ratio(percent: float) -> float:
    return float(Decimal(repr(percent)) / 100)


def worst_cases(config: Config) -> list[str]:
    """The effective risk of a run in dollars, as told before real money is touched."""
    risk, params = config.risk, to_params(config).risk
    bank = params.bankroll / CASH_PER_USD
    daily = min(params.daily_loss_ratio * bank, params.daily_loss / CASH_PER_USD or bank)
    shares = config.strategy.max_position_size
    return [
        f"LIVE on {config.venue}, real money. At worst, by the limits in force (bankroll ${bank:,.2f}):",
        f"  one order      ${min(params.max_order_cost / CASH_PER_USD, config.strategy.base_position_size):,.2f}",
        f"  one market     ${min(params.market_ratio * bank, shares):,.2f}   (and no more than {shares:g} shares of a side)",
        f"  one event      ${params.event_ratio * bank:,.2f}",
        f"  everything     ${params.gross_ratio * bank:,.2f}   in at most {config.market_selection.max_markets} markets",
        f"  one UTC day    ${daily:,.2f}   then it halts; a week ${risk.weekly_loss_pct * bank / 100:,.2f}, "
        f"a month ${risk.monthly_loss_pct * bank / 100:,.2f}, from its highest ${risk.max_drawdown_pct * bank / 100:,.2f}",
        f"  messages       {risk.messages_per_10s} orders and cancels in 10 s; a stop-loss "
        + ("crosses the spread if it must" if params.stop_exit_crosses else "never crosses the spread"),
        "stop it: Ctrl-C, `llm-maker kill`, or `touch HOME/KILL`; each cancels what is ours and proves it",
    ]
