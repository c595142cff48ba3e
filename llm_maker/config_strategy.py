"""The sections `strategy` and `execution` of the config: what is quoted, by which terms, and how it becomes an order."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from llm_maker.config_fields import Hours, Names, Percent, Ratio, Seconds, Section, Shares, Ticks, Usd, ordered


class Terms(Section):
    """The terms of `inventory` quoting, each by itself; off where it did not help when it was measured."""

    toxicity: bool = True
    flow: bool = False
    parity: bool = False
    decay: bool = False
    table: bool = False
    reward: bool = True
    rebate: bool = True
    unwind: bool = False
    taper: bool = False
    kelly: bool = False


class StrategyConfig(Section):
    """What is quoted, and how far an opinion reaches."""

    name: Literal["maker"] = "maker"
    quoting: Literal["inventory", "touch"] = "inventory"
    decision_interval: float = Field(default=45.0, ge=1, le=86_400)
    max_markets_per_query: int = Field(default=10, ge=1, le=100)
    min_confidence_to_trade: Ratio = 0.6
    min_confidence_to_size_up: Ratio = 0.8
    size_up_max: float = Field(default=1.5, ge=1, le=10)
    base_position_size: Shares = 50.0
    max_position_size: Shares = 200.0
    base_usd: Usd = 0.0
    max_usd: Usd = 0.0
    stop_loss_percentage: Percent = 5.0
    take_profit_percentage: Percent = 8.0
    stop_hold_seconds: Seconds = 30.0
    exit_deadline_hours: Hours = 0.0
    terms: Terms = Terms()
    flow_ticks: float = Field(default=0.25, ge=0, le=0.5)
    decay_hold_hours: Hours = 6.0
    by_date: Names = ()
    complete_events: Names = ()
    unwind_max_ticks: float = Field(default=3.0, gt=0, le=100)
    taper_hours: Hours = 72.0
    skew_max_ticks: float = Field(default=3.5, ge=0, le=100)
    edge_floor_ticks: float = Field(default=1.0, ge=0, le=100)
    signal_rule: Literal["pooled", "seed"] = "pooled"
    signal_prior_weight: float = Field(default=0.15, ge=0, le=1)
    signal_max_weight: float = Field(default=0.5, ge=0, le=1)
    signal_half_life_seconds: Seconds = 7_200.0
    signal_expiry_seconds: Seconds = 21_600.0
    signal_smoothing: Ratio = 0.2
    signal_bias_beta: float = Field(default=0.0, ge=0, le=5)
    signal_expire_before_end_hours: Hours = 6.0
    signal_full_weight: float = Field(default=0.15, gt=0, le=1)
    signal_disagreement: float = Field(default=1.0, gt=0, le=10)
    kelly: Ratio = 0.1
    kelly_measured: Ratio = 0.25
    refresh_seconds: float = Field(default=1_800.0, ge=1, le=2_592_000)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "base_position_size", "max_position_size")
        ordered(self, "base_usd", "max_usd")
        ordered(self, "min_confidence_to_trade", "min_confidence_to_size_up")
        ordered(self, "signal_prior_weight", "signal_max_weight")
        ordered(self, "signal_half_life_seconds", "signal_expiry_seconds")
        if self.signal_half_life_seconds == 0:
            raise ValueError("signal_half_life_seconds is 0; must be above 0")
        return self


class Execution(Section):
    """How a wanted quote becomes an order, and when a resting one is left alone."""

    tick_improvement: Ticks = 1
    max_spread_threshold: float = Field(default=0.10, gt=0, le=1)
    min_liquidity_threshold: Usd = 50.0
    reprice_ticks: Ticks = 1
    fine_reprice_ticks: Ticks = 2
    resize_ratio: Ratio = 0.25
    flicker_seconds: Seconds = 2.0
    quote_lifetime_seconds: Seconds = 0.0
    merge_min_sets: Shares = 20.0
    merge_cash_ratio: Ratio = 0.30

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if 0 < self.quote_lifetime_seconds < 300:
            raise ValueError(f"quote_lifetime_seconds is {self.quote_lifetime_seconds:g}; must be 0 or at least 300")
        return self
