"""What a person sets: config.yaml, `LLM_MAKER__SECTION__KEY` and the command line -> one frozen `Config`, or why not.

The table of all keys, in people's units (USD, shares, seconds, percent); `tuning` makes the core's. Secrets never enter `Config`:
they live in `keys.Secrets`, read from .env and the environment. This file knows no venue, no model and not the wiring.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from llm_maker.config_console import Alerts, Console
from llm_maker.config_fields import (
    Hours,
    Megabytes,
    Millis,
    Names,
    Percent,
    Ratio,
    Seconds,
    Section,
    Shares,
    SomeUsd,
    Usd,
    ordered,
    whole_units,
)
from llm_maker.config_llm import Llm
from llm_maker.config_strategy import Execution, StrategyConfig
from llm_maker.config_text import ConfigError, first_line, parse_yaml, put, read_yaml
from llm_maker.keys import API_SECRETS, KEY_OF, SECRET_NAMES, Secrets

ENV_PREFIX = "LLM_MAKER__"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Filters(Section):
    """Which markets are worth quoting, by what the venue's listing says of them; 0 or empty: no limit."""

    min_hours_to_end: Hours = 0.0
    max_hours_to_end: Hours = 0.0
    categories: Names = ()
    min_volume_24h_usd: Usd = 0.0
    min_liquidity_usd: Usd = 0.0
    max_spread: float = Field(default=0.0, ge=0, le=1)
    min_price: float = Field(default=0.0, ge=0, le=1)
    max_price: float = Field(default=1.0, ge=0, le=1)
    rewards_only: bool = False
    min_reward_usd_per_day: Usd = 0.0

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "min_price", "max_price")
        return self


class MarketSelection(Section):
    """The universe: what we may quote."""

    select: Literal["all", "listed"] = "all"
    include: Names = ()
    exclude: Names = ()
    events: Names = ()
    tags: Names = ()
    max_markets: int = Field(default=20, ge=1, le=5_000)
    filters: Filters = Filters()


class Risk(Section):
    """Limits; percent is of the bankroll."""

    bankroll_usd: Annotated[float | None, AfterValidator(whole_units)] = Field(default=None, gt=0, le=1e9)
    max_order_usd: Usd = 100.0
    max_market_pct: Percent = 2.0
    max_event_pct: Percent = 5.0
    max_cluster_pct: Percent = 10.0
    max_gross_pct: Percent = 50.0
    min_free_cash_pct: float = Field(default=20.0, ge=0, lt=100)
    linear_stress_pct: Percent = 20.0
    max_open_positions: int = Field(default=10, ge=1, le=5_000)
    daily_loss_pct: Percent = 2.0
    weekly_loss_pct: Percent = 4.0
    monthly_loss_pct: Percent = 6.0
    max_drawdown_pct: Percent = 6.0
    max_feed_lag_ms: Millis = 1_000
    max_loop_delay_ms: Millis = 250
    max_book_age_seconds: Seconds = 60.0
    max_silence_seconds: Seconds = 10.0
    jump_ticks: int = Field(default=5, ge=1, le=1_000)
    jump_cooldown_seconds: Seconds = 30.0
    sweep_pct: Percent = 80.0
    stop_cooldown_seconds: Seconds = 900.0
    repeated_stop_cooldown_seconds: Seconds = 3_600.0
    volatility_widen_ratio: float = Field(default=4.0, ge=1, le=1_000)
    volatility_pull_ratio: float = Field(default=8.0, ge=1, le=1_000)
    resolution_pull_hours: Hours = 2.0
    resolution_reduce_hours: Hours = 24.0
    event_window_seconds: Seconds = 600.0
    fat_finger_ticks: int = Field(default=5, ge=1, le=1_000)
    fat_finger_pct: Percent = 10.0
    messages_per_10s: int = Field(default=200, ge=10, le=100_000)
    stop_exit: Literal["maker_then_taker", "maker"] = "maker_then_taker"
    exit_patience_seconds: Seconds = 600.0
    exit_max_slippage: Ratio = 0.05
    approve_above_usd: Usd = 0.0
    unknown_lookup_seconds: float = Field(default=2.0, ge=0.1, le=600)
    ack_timeout_seconds: float = Field(default=10.0, ge=0.5, le=600)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "max_market_pct", "max_event_pct")
        ordered(self, "max_event_pct", "max_cluster_pct")
        ordered(self, "max_cluster_pct", "max_gross_pct")
        ordered(self, "daily_loss_pct", "weekly_loss_pct")
        ordered(self, "weekly_loss_pct", "monthly_loss_pct")
        ordered(self, "volatility_widen_ratio", "volatility_pull_ratio")
        ordered(self, "resolution_pull_hours", "resolution_reduce_hours")
        ordered(self, "stop_cooldown_seconds", "repeated_stop_cooldown_seconds")
        return self


class Paper(Section):
    """The paper exchange (every venue but a live one) and the simulated market."""

    cash_usd: SomeUsd = 10_000.0
    entry_ms: int = Field(default=250, ge=0, le=600_000)
    cancel_ms: int = Field(default=250, ge=0, le=600_000)
    confirm_median_s: float = Field(default=5.0, ge=0, le=3_600)
    settle_fail_pct: float = Field(default=0.1, ge=0, le=100)
    band: Literal["realistic", "pessimistic", "optimistic"] = "realistic"
    improve_share: Ratio = 0.5
    volume_cap_pct: Percent = 10.0
    queue_model: Literal["power_prob_3", "power_prob_2", "power_prob", "log_prob", "log_prob_2", "risk_adverse"] = "power_prob_3"
    queue_power: int = Field(default=3, ge=1, le=10)
    latency: Literal["constant", "sampled"] = "constant"
    latency_sigma: float = Field(default=0.5, ge=0, le=3)
    latency_tail_pct: float = Field(default=1.0, ge=0, le=100)
    latency_log: str | None = None
    markets: int = Field(default=8, ge=1, le=5_000)
    regime: Literal["benign", "mixed", "toxic", "neglected"] = "mixed"
    activity: float = Field(default=20.0, gt=0, le=1_000)
    days_to_end: float = Field(default=7.0, gt=0, le=3_650)
    rewards: bool = True


class Hosts(Section):
    """Where the venue lives; all of it is here, so that a rehearsal can stand in for it."""

    clob: str = "https://clob.polymarket.com"
    gamma: str = "https://gamma-api.polymarket.com"
    data: str = "https://data-api.polymarket.com"
    relayer: str = "https://relayer-v2.polymarket.com"
    ws_market: str = "wss://ws-subscriptions-clob.polymarket.com/ws/market"
    ws_user: str = "wss://ws-subscriptions-clob.polymarket.com/ws/user"
    geoblock: str = "https://polymarket.com/api/geoblock"
    rpc: str = "https://polygon.drpc.org"

    @model_validator(mode="after")
    def _urls(self) -> Self:
        for name, url in self:
            allowed = ("ws", "wss") if name.startswith("ws_") else ("http", "https")
            parts = urlsplit(url)
            if parts.scheme not in allowed or not parts.hostname:
                raise ValueError(f"{name} is {url!r}; must start with {allowed[1]}:// and name a host")
            if parts.scheme in ("ws", "http") and parts.hostname not in _LOOPBACK:
                raise ValueError(f"{name} is {url!r}; without encryption only this machine may be named")
        return self


class Polymarket(Section):
    """The venue's connection: hosts, sockets, checks, wallet."""

    hosts: Hosts = Hosts()
    signature_type: Literal["auto", "eoa", "proxy", "safe", "deposit"] = "auto"
    api_key_nonce: int = Field(default=1, ge=0, le=2**31)
    assets_per_socket: int = Field(default=200, ge=2, le=500)
    ping_seconds: float = Field(default=10.0, ge=1, le=25)
    frozen_seconds: float = Field(default=30.0, ge=5, le=600)
    book_check_seconds: float = Field(default=30.0, ge=5, le=3_600)
    reconnect_minutes: float = Field(default=60.0, ge=1, le=1_440)
    backoff_max_seconds: float = Field(default=30.0, ge=1, le=600)
    request_timeout_seconds: float = Field(default=5.0, ge=0.5, le=60)
    discovery_minutes: float = Field(default=10.0, ge=1, le=1_440)
    orders_per_second: float = Field(default=40.0, ge=1, le=600)
    cancels_per_second: float = Field(default=80.0, ge=1, le=1_200)
    heartbeat: bool = True


class Live(Section):
    """What live mode allows at most, whatever the other sections say."""

    max_markets: int = Field(default=2, ge=1, le=5_000)
    max_order_shares: Shares = 5.0
    max_position_shares: Shares = 20.0
    daily_loss_usd: SomeUsd = 25.0
    signal_prior_weight: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "max_order_shares", "max_position_shares")
        return self


class Twin(Section):
    """The accounts beside `main` that say what the model was worth: paper money, same market, same rules, no model."""

    enabled: bool = True
    placebo: bool = False


class Logging(Section):
    """What is written, and how much disk it may take."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    journal_max_mb: Megabytes = 64.0
    journal_total_mb: Megabytes = 2_000.0
    decisions_max_mb: Megabytes = 64.0
    raw_llm: bool = True

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "journal_max_mb", "journal_total_mb")
        return self


class Config(Section):
    """The whole of config.yaml; the defaults are the shipped file."""

    mode: Literal["paper", "live"] = "paper"
    venue: Literal["simulated", "polymarket"] = "simulated"
    account: str = Field(default="main", pattern=r"^[a-z0-9_-]{1,32}$")
    seed: int = Field(default=1, ge=0, le=2**32 - 1)
    market_selection: MarketSelection = MarketSelection()
    llm: Llm = Llm()
    strategy: StrategyConfig = StrategyConfig()
    execution: Execution = Execution()
    risk: Risk = Risk()
    paper: Paper = Paper()
    live: Live = Live()
    twin: Twin = Twin()
    polymarket: Polymarket = Polymarket()
    logging: Logging = Logging()
    console: Console = Console()
    alerts: Alerts = Alerts()


def load(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """File, then `LLM_MAKER__SECTION__KEY` of `env`, then `overrides` (dotted keys, from the command line).

    `path` None: the defaults. Raises `ConfigError`, whose text is one line, for everything a person can get wrong.
    """
    name = path.name if path else "defaults"
    tree: dict[str, Any] = read_yaml(path, Config) if path else {}
    origins: dict[str, str] = {}
    for variable in sorted(env):
        if variable.startswith(ENV_PREFIX):
            keys = variable.removeprefix(ENV_PREFIX).lower().split("__")
            put(tree, keys, parse_yaml(env[variable], variable), variable)
            origins[".".join(keys)] = variable
    for dotted, value in (overrides or {}).items():
        put(tree, dotted.split("."), value, "command line")
        origins[dotted] = "command line"
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(first_line(error, name, origins, Config, SECRET_NAMES)) from None
    return _live_caps(config) if config.mode == "live" else config


def _live_caps(config: Config) -> Config:
    """The config of a live run: sizes and numbers of the other sections, but no more than `live` allows."""
    cap, strategy, selection = config.live, config.strategy, config.market_selection
    base = min(strategy.base_position_size, cap.max_order_shares)
    sizes = {
        "base_position_size": base,
        "max_position_size": min(strategy.max_position_size, cap.max_position_shares),
        # A sure model sizes up, but not beyond the largest order.
        "size_up_max": min(strategy.size_up_max, cap.max_order_shares / base),
        "signal_prior_weight": min(strategy.signal_prior_weight, cap.signal_prior_weight),
    }
    markets = {"max_markets": min(selection.max_markets, cap.max_markets)}
    return config.model_copy(
        update={"strategy": strategy.model_copy(update=sizes), "market_selection": selection.model_copy(update=markets)}
    )


def check_run(config: Config, secrets: Secrets, *, tape: bool) -> None:
    """Refuse what cannot be run together, before anything is opened."""
    if config.llm.provider == "simulated" and (tape or config.venue != "simulated"):
        raise ConfigError("llm.provider is 'simulated'; that analyst knows the simulated venue alone: auto, none or a real one")
    if config.mode != "live":
        return
    if tape:
        raise ConfigError("mode is 'live' with --tape; a tape is played with paper money: mode: paper")
    if config.venue == "simulated":
        raise ConfigError("mode is 'live' and venue is 'simulated'; real money needs a real venue: venue: polymarket")
    if config.risk.bankroll_usd is None:
        raise ConfigError("mode is 'live' and risk.bankroll_usd is empty; say what you are ready to put at work, for example 200")
    for name in ("LLM_MAKER_PK", "LLM_MAKER_BROWSER_ADDRESS"):
        if secrets.get(name) is None:
            raise ConfigError(f"mode is 'live' and {name} is not set; put {name}=... into .env (`llm-maker doctor` checks it)")
    given = [name for name in API_SECRETS if secrets.get(name) is not None]
    if given and len(given) < len(API_SECRETS):
        missing = next(name for name in API_SECRETS if name not in given)
        raise ConfigError(f"{given[0]} is set and {missing} is not; give all of {', '.join(API_SECRETS)}, or none of them")


def rehearsal(config: Config) -> bool:
    """Every host of the venue is this machine: a rehearsal, whose time may run faster."""
    return all(urlsplit(url).hostname in _LOOPBACK for _, url in config.polymarket.hosts)


def check_keys(config: Config, secrets: Secrets) -> None:
    """Refuse a provider that is named but has no key; a server on this machine needs none."""
    llm = config.llm
    named: list[tuple[str, str | None, str, str]] = [(llm.provider, llm.base_url, "llm.provider is", "set llm.provider: auto")]
    named += [(one.provider, one.base_url, "llm.ensemble names", "take it out of llm.ensemble") for one in llm.ensemble]
    named += [(one.provider, one.base_url, "llm.reserve names", "take it out of llm.reserve") for one in llm.reserve]
    named.append((llm.news.provider, llm.news.base_url, "llm.news.provider is", "set llm.news.provider: none"))
    for provider, base_url, where, instead in named:
        key = KEY_OF.get(provider)
        local = provider == "openai_compatible" and urlsplit(base_url or "").hostname in _LOOPBACK
        if key is not None and secrets.get(key) is None and not local:
            raise ConfigError(f"Missing API key: {key} not set; {where} '{provider}'. Put {key}=... into .env, or {instead}")
