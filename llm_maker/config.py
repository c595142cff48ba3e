"""What a person sets: config.yaml, `LLM_MAKER__SECTION__KEY` and the command line -> one frozen `Config`, or why not.

People's units here (USD, shares, seconds, percent); `to_params` makes the core's. Secrets never enter `Config`:
they live in `Secrets`, read from .env and the environment. This file knows no venue, no model and not the wiring.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import yaml
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from llm_maker.core.params import ExecutionParams, ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S

ENV_PREFIX = "LLM_MAKER__"
MAX_FILE_BYTES = 1_000_000
KEY_OF = {
    "gemini": "GEMINI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "xai": "XAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "openai_compatible": "OPENAI_API_KEY",
}
"""Provider -> the secret it needs, in the order in which `auto` tries them."""
SECRET_NAMES = (*dict.fromkeys(KEY_OF.values()), "LLM_MAKER_PK", "LLM_MAKER_BROWSER_ADDRESS")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ConfigError(Exception):
    """A person's mistake; `str` is one line: where, the key, its value, what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


def _whole_units(value: float) -> float:
    if Decimal(repr(value)).as_tuple().exponent < -6:  # type: ignore[operator]
        raise ValueError("has more than 6 decimals")
    return value


def _whole_milli(value: float) -> float:
    if Decimal(repr(value)).as_tuple().exponent < -3:  # type: ignore[operator]
        raise ValueError("has more than 3 decimals")
    return value


Usd = Annotated[float, Field(ge=0, le=1e9), AfterValidator(_whole_units)]
SomeUsd = Annotated[float, Field(gt=0, le=1e9), AfterValidator(_whole_units)]
Shares = Annotated[float, Field(gt=0, le=1e6), AfterValidator(_whole_milli)]
Percent = Annotated[float, Field(gt=0, le=100)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000), AfterValidator(_whole_units)]
Hours = Annotated[float, Field(ge=0, le=8_760), AfterValidator(_whole_milli)]
Millis = Annotated[int, Field(ge=1, le=600_000)]
Megabytes = Annotated[float, Field(gt=0, le=1e6), AfterValidator(_whole_units)]
Ticks = Annotated[int, Field(ge=0, le=1_000)]
Names = Annotated[tuple[str, ...], Field(strict=False, max_length=10_000)]


def _ordered(section: BaseModel, low: str, high: str) -> None:
    below, above = getattr(section, low), getattr(section, high)
    if below > above:
        raise ValueError(f"{low} {below:g} is above {high} {above:g}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Filters(_Section):
    """Which markets are worth quoting; nothing here looks at the book."""

    min_hours_to_end: Hours = 0.0
    max_hours_to_end: Hours = 0.0
    categories: Names = ()


class MarketSelection(_Section):
    """The universe: what we may quote."""

    select: Literal["all", "listed"] = "all"
    include: Names = ()
    exclude: Names = ()
    max_markets: int = Field(default=20, ge=1, le=5_000)
    filters: Filters = Filters()


class Llm(_Section):
    """Whom we ask, how often and for how much."""

    provider: Literal[
        "auto",
        "none",
        "simulated",
        "gemini",
        "anthropic",
        "openai",
        "deepseek",
        "xai",
        "openrouter",
        "openai_compatible",
    ] = "auto"
    model: str | None = None
    base_url: str | None = None
    max_requests_per_minute: int = Field(default=15, ge=1, le=10_000)
    timeout_seconds: float = Field(default=30.0, ge=2, le=600)
    daily_budget_usd: Usd = 5.0
    failures_to_fallback: int = Field(default=3, ge=1, le=100)
    probe_seconds: Seconds = 60.0
    probe_max_seconds: Seconds = 900.0
    min_gap_seconds: Seconds = 10.0
    show_price: bool = True
    max_output_tokens: int = Field(default=4_000, ge=100, le=200_000)
    price_per_million_input_usd: float | None = Field(default=None, ge=0, le=10_000)
    price_per_million_output_usd: float | None = Field(default=None, ge=0, le=10_000)
    simulated_skill_r2: Ratio = 0.1

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        _ordered(self, "probe_seconds", "probe_max_seconds")
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url is {self.base_url!r}; must start with http:// or https://")
        if self.provider == "openai_compatible" and self.base_url is None:
            raise ValueError("provider 'openai_compatible' needs base_url, for example http://127.0.0.1:11434/v1")
        if (self.price_per_million_input_usd is None) != (self.price_per_million_output_usd is None):
            raise ValueError("price_per_million_input_usd and price_per_million_output_usd go together")
        return self


class StrategyConfig(_Section):
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
    refresh_seconds: float = Field(default=1_800.0, ge=1, le=2_592_000)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        _ordered(self, "base_position_size", "max_position_size")
        _ordered(self, "base_usd", "max_usd")
        _ordered(self, "min_confidence_to_trade", "min_confidence_to_size_up")
        _ordered(self, "signal_prior_weight", "signal_max_weight")
        _ordered(self, "signal_half_life_seconds", "signal_expiry_seconds")
        if self.signal_half_life_seconds == 0:
            raise ValueError("signal_half_life_seconds is 0; must be above 0")
        return self


class Execution(_Section):
    """How a wanted quote becomes an order, and when a resting one is left alone."""

    tick_improvement: Ticks = 1
    max_spread_threshold: float = Field(default=0.10, gt=0, le=1)
    min_liquidity_threshold: Usd = 50.0
    reprice_ticks: Ticks = 1
    fine_reprice_ticks: Ticks = 2
    resize_ratio: Ratio = 0.25
    flicker_seconds: Seconds = 2.0
    merge_min_sets: Shares = 20.0
    merge_cash_ratio: Ratio = 0.30


class Risk(_Section):
    """Limits; percent is of the bankroll."""

    bankroll_usd: SomeUsd = 10_000.0
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
        _ordered(self, "max_market_pct", "max_event_pct")
        _ordered(self, "max_event_pct", "max_cluster_pct")
        _ordered(self, "max_cluster_pct", "max_gross_pct")
        _ordered(self, "daily_loss_pct", "weekly_loss_pct")
        _ordered(self, "weekly_loss_pct", "monthly_loss_pct")
        _ordered(self, "volatility_widen_ratio", "volatility_pull_ratio")
        _ordered(self, "resolution_pull_hours", "resolution_reduce_hours")
        _ordered(self, "stop_cooldown_seconds", "repeated_stop_cooldown_seconds")
        return self


class Paper(_Section):
    """The paper exchange (every venue but a live one) and the simulated market."""

    cash_usd: SomeUsd = 10_000.0
    entry_ms: int = Field(default=250, ge=0, le=600_000)
    cancel_ms: int = Field(default=250, ge=0, le=600_000)
    confirm_median_s: float = Field(default=5.0, ge=0, le=3_600)
    settle_fail_pct: float = Field(default=0.1, ge=0, le=100)
    band: Literal["realistic", "pessimistic", "optimistic"] = "realistic"
    improve_share: Ratio = 0.5
    volume_cap_pct: Percent = 10.0
    markets: int = Field(default=8, ge=1, le=5_000)
    regime: Literal["benign", "mixed", "toxic", "neglected"] = "mixed"
    activity: float = Field(default=20.0, gt=0, le=1_000)
    days_to_end: float = Field(default=7.0, gt=0, le=3_650)
    rewards: bool = True


class Logging(_Section):
    """What is written, and how much disk it may take."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    journal_max_mb: Megabytes = 64.0
    journal_total_mb: Megabytes = 2_000.0
    decisions_max_mb: Megabytes = 64.0
    raw_llm: bool = True

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        _ordered(self, "journal_max_mb", "journal_total_mb")
        return self


class Console(_Section):
    """What the terminal shows while the daemon runs."""

    live_lines: int = Field(default=12, ge=0, le=200)
    refresh_seconds: float = Field(default=1.0, ge=0.1, le=60)


class Config(_Section):
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
    logging: Logging = Logging()
    console: Console = Console()


class Secrets:
    """Keys from .env and the environment; never shown, logged or put into `Config`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._held = {name: env[name].strip() for name in SECRET_NAMES if env.get(name, "").strip()}

    def get(self, name: str) -> str | None:
        """The secret, or None where it is absent or empty."""
        assert name in SECRET_NAMES, name
        return self._held.get(name)

    def values(self) -> tuple[str, ...]:
        """All held secrets, for the redaction of logs alone."""
        return tuple(self._held.values())

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._held)})"


def read_env(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The .env file under the process environment (which wins); neither is changed. An absent file is an empty one."""
    if not path.exists():
        return dict(environ)
    text = _read_text(path)
    for line in parse_stream(io.StringIO(text)):
        if line.error:
            raise ConfigError(f"{path.name}: line {line.original.line} is not NAME=value")
    held = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in held.items() if value is not None} | dict(environ)


def load(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """File, then `LLM_MAKER__SECTION__KEY` of `env`, then `overrides` (dotted keys, from the command line).

    `path` None: the defaults. Raises `ConfigError`, whose text is one line, for everything a person can get wrong.
    """
    name = path.name if path else "defaults"
    tree: dict[str, Any] = _read_yaml(path) if path else {}
    origins: dict[str, str] = {}
    for variable in sorted(env):
        if variable.startswith(ENV_PREFIX):
            keys = variable.removeprefix(ENV_PREFIX).lower().split("__")
            _put(tree, keys, _env_value(variable, env[variable]), variable)
            origins[".".join(keys)] = variable
    for dotted, value in (overrides or {}).items():
        _put(tree, dotted.split("."), value, "command line")
        origins[dotted] = "command line"
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_first_line(error, name, origins)) from None
    if config.mode == "live":
        raise ConfigError(f"{origins.get('mode', name)}: mode is 'live'; this version trades paper money only: mode: paper")
    return config


def check_run(config: Config, *, tape: bool) -> None:
    """Refuse what this version cannot run: a live feed that is not in it."""
    if config.venue == "polymarket" and not tape:
        raise ConfigError(
            "venue is 'polymarket'; its live data is not in this version: "
            "give a recorded tape with --tape FILE, or set venue: simulated"
        )
    if config.llm.provider == "simulated" and (tape or config.venue != "simulated"):
        raise ConfigError("llm.provider is 'simulated'; that analyst knows the simulated venue alone: auto, none or a real one")


def check_keys(config: Config, secrets: Secrets) -> None:
    """Refuse a provider that is named but has no key; a server on this machine needs none."""
    provider = config.llm.provider
    key = KEY_OF.get(provider)
    if key is None or secrets.get(key) is not None:
        return
    if provider == "openai_compatible" and urlsplit(config.llm.base_url or "").hostname in _LOOPBACK:
        return
    raise ConfigError(
        f"Missing API key: {key} not set; llm.provider is '{provider}'. Put {key}=... into .env, or set llm.provider: auto"
    )


def to_params(config: Config) -> Params:
    """People's units -> the core's, exactly. `slow.enabled` is False only where the provider is `none`."""
    return Params(
        risk=_risk(config),
        exits=_exits(config.strategy),
        execution=_execution(config.execution),
        signals=_signals(config.strategy),
        slow=_slow(config),
    )


def _risk(config: Config) -> RiskParams:
    risk = config.risk
    return RiskParams(
        live=config.mode == "live",
        bankroll=_cash(risk.bankroll_usd),
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
    )


def _slow(config: Config) -> SlowParams:
    llm = config.llm
    return SlowParams(
        enabled=llm.provider != "none",
        interval_ns=_ns(config.strategy.decision_interval),
        max_markets=config.strategy.max_markets_per_query,
        failures_to_fallback=llm.failures_to_fallback,
        # The analyst ends its own call at timeout_seconds; the core waits twice that before it gives the answer up.
        answer_timeout_ns=2 * _ns(llm.timeout_seconds),
        probe_ns=_ns(llm.probe_seconds),
        probe_max_ns=_ns(llm.probe_max_seconds),
        min_gap_ns=_ns(llm.min_gap_seconds),
    )


def _units(value: float, per: int) -> int:
    return int((Decimal(repr(value)) * per).to_integral_value())


def _cash(usd: float) -> int:
    return _units(usd, CASH_PER_USD)


def _milli(shares: float) -> int:
    return _units(shares, 1_000)


def _ns(time: float, seconds_each: int = 1) -> int:
    return _units(time, seconds_each * NS_PER_S)


def _ratio(percent: float) -> float:
    return float(Decimal(repr(percent)) / 100)


# Reading: every way in which a file can be wrong becomes one line.


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give one with --config FILE") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name}: {len(raw)} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 text at byte {error.start}") from None


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}: not YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not YAML: {_short(str(error))}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    tree = _parse_yaml(_read_text(path), path.name)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path.name}: not a list of 'key: value' lines, but {_short(repr(tree))}")
    return _sections(tree, Config)


def _sections(tree: dict[Any, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Keys as text, and a section whose keys are all commented out as an empty one."""
    cleaned: dict[str, Any] = {}
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        below = _section_of(field) if field else None
        cleaned[str(key)] = value
        if below and (value is None or isinstance(value, dict)):
            cleaned[str(key)] = _sections(value or {}, below)
    return cleaned


def _put(tree: dict[str, Any], keys: list[str], value: object, origin: str) -> None:
    for depth, key in enumerate(keys[:-1], start=1):
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{origin}: {'.'.join(keys[:depth])!r} is not a section")
        tree = below
    tree[keys[-1]] = value


def _env_value(variable: str, text: str) -> Any:
    return _parse_yaml(text, variable)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def keys_of(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below `model`, dotted, with its field; a section comes before its keys."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if below := _section_of(field):
            yield from keys_of(below, f"{prefix}{name}.")


def _first_line(error: ValidationError, name: str, origins: Mapping[str, str]) -> str:
    faults = error.errors(include_url=False)
    # A misspelt key explains what follows from it, so it is told first.
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = ".".join(str(part) for part in fault["loc"])
    where = next((origins[key] for key in sorted(origins, reverse=True) if _overlap(key, path)), name)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {_fault_text(path, fault)}{more}"


def _overlap(one: str, other: str) -> bool:
    """Whether one dotted key lies at or below the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _fault_text(path: str, fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(path)
    known = dict(keys_of())
    key = next((".".join(parts) for parts in _prefixes(path) if ".".join(parts) in known), "")
    if fault["type"] == "value_error":
        cause = str(fault["ctx"]["error"])
        if not key or _section_of(known[key]):
            return f"{key}: {cause}" if key else cause
        return f"{path} is {_shown(fault['input'])}, which {cause}"
    allowed = _allowed(known[key]) if key else "a list of 'key: value' lines"
    return f"{path} is {_shown(fault['input'])}; must be {allowed}"


def _prefixes(path: str) -> Iterator[list[str]]:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        yield parts[:length]


def _unknown(path: str) -> str:
    section, _, leaf = path.rpartition(".")
    paths = [known for known, _ in keys_of()]
    siblings = [known for known in paths if known.rpartition(".")[0] == section]
    leaves = {known.rpartition(".")[2]: known for known in paths}
    near = difflib.get_close_matches(leaf, [known.rpartition(".")[2] for known in siblings], 1)
    if near:
        return f"unknown key '{path}'; did you mean '{f'{section}.' if section else ''}{near[0]}'?"
    if re.search(r"key|secret|token|password|private", leaf):
        return f"unknown key '{path}'; secrets go into .env: {', '.join(SECRET_NAMES)}"
    if elsewhere := difflib.get_close_matches(leaf, list(leaves), 1, 0.7):
        return f"unknown key '{path}'; did you mean '{leaves[elsewhere[0]]}'?"
    return f"unknown key '{path}'; known here: {', '.join(known.rpartition('.')[2] for known in siblings)}"


def _allowed(field: FieldInfo) -> str:
    """What a key may be, in people's words, from its declaration."""
    options = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    empty = ", or empty" if type(None) in get_args(field.annotation) else ""
    kind = options[0] if empty else field.annotation
    if _section_of(field):
        return "a section"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_range(field)}{empty}"
    if kind is bool:
        return "true or false"
    if kind is str:
        pattern = next((bound.pattern for bound in field.metadata if hasattr(bound, "pattern")), None)
        return f"a text{f' like {pattern}' if pattern else ''}{empty}"
    if kind == tuple[str, ...]:
        return "a list of texts"
    return f"one of {', '.join(str(option) for option in options)}"


def _range(field: FieldInfo) -> str:
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "below"}
    found = [
        f"{word} {getattr(bound, name):.15g}" for name, word in words.items() for bound in field.metadata if hasattr(bound, name)
    ]
    return f" {' '.join(found)}" if found else ""


def _shown(value: object) -> str:
    """A value as the person wrote it."""
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
