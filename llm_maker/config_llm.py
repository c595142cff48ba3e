"""The `llm` section of config.yaml: whom the slow loop asks, how, how often and for how much."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from llm_maker.config_fields import Names, Ratio, Seconds, Section, SomeUsd, Usd, ordered

ProviderName = Literal[
    "gemini", "anthropic", "openai", "deepseek", "xai", "openrouter", "ollama", "vllm", "llamacpp", "openai_compatible"
]  # fmt: skip
PricePerMillion = float | None
BUILT_IN = "default"
"""The prompt that comes with the program."""


def _day(value: Any) -> Any:
    """YAML reads an unquoted day as a date; a quoted one must be a day too."""
    if type(value) is date:
        return value.isoformat()
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f"{value!r} is no day; must be like 2026-05-31") from None
    return value


def _checked_url(url: str | None, provider: str) -> None:
    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"base_url is {url!r}; must start with http:// or https://")
    if provider == "openai_compatible" and url is None:
        raise ValueError("provider 'openai_compatible' needs base_url, for example http://127.0.0.1:11434/v1")


class MemberConfig(Section):
    """One model: of the ensemble, or in reserve."""

    provider: ProviderName
    model: str | None = None
    base_url: str | None = None
    price_per_million_input_usd: PricePerMillion = Field(default=None, ge=0, le=10_000)
    price_per_million_output_usd: PricePerMillion = Field(default=None, ge=0, le=10_000)
    extra: dict[str, Any] = Field(default={})
    """Added to the request's body as it stands."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        _checked_url(self.base_url, self.provider)
        if (self.price_per_million_input_usd is None) != (self.price_per_million_output_usd is None):
            raise ValueError("price_per_million_input_usd and price_per_million_output_usd go together")
        return self


class Blocks(Section):
    """How many tokens of the prompt each part of one market may take; what is longer is cut."""

    question: int = Field(default=120, ge=20, le=2_000)
    rules: int = Field(default=250, ge=0, le=8_000)
    news: int = Field(default=300, ge=0, le=8_000)
    past: int = Field(default=150, ge=0, le=4_000)
    market: int = Field(default=380, ge=50, le=4_000)


class News(Section):
    """The scout: a search-capable model that looks for dated facts on the markets that matter, on a budget of its own."""

    provider: Literal["none", "xai", "openai", "anthropic", "gemini"] = "none"
    model: str | None = None
    base_url: str | None = None
    every_minutes: float = Field(default=20.0, ge=1, le=1_440)
    max_markets: int = Field(default=5, ge=1, le=100)
    fresh_minutes: float = Field(default=60.0, ge=1, le=10_080)
    timeout_seconds: float = Field(default=90.0, ge=5, le=600)
    daily_budget_usd: Usd = 1.0
    search_usd: float | None = Field(default=None, ge=0, le=10)
    extra: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        _checked_url(self.base_url, self.provider)
        return self


class Llm(Section):
    """Whom we ask, how often and for how much."""

    provider: Literal[
        "auto", "none", "simulated",
        "gemini", "anthropic", "openai", "deepseek", "xai", "openrouter", "ollama", "vllm", "llamacpp", "openai_compatible",
    ] = "auto"  # fmt: skip
    model: str | None = None
    base_url: str | None = None
    ensemble: tuple[MemberConfig, ...] = Field(default=(), strict=False, max_length=8)
    reserve: tuple[MemberConfig, ...] = Field(default=(), strict=False, max_length=8)
    ensemble_mode: Literal["pool", "vote"] = "pool"
    max_requests_per_minute: int = Field(default=15, ge=1, le=10_000)
    timeout_seconds: float = Field(default=20.0, ge=2, le=600)
    daily_budget_usd: Usd = 5.0
    unknown_call_usd: SomeUsd = 0.05
    failures_to_fallback: int = Field(default=3, ge=1, le=100)
    probe_seconds: Seconds = 60.0
    probe_max_seconds: Seconds = 900.0
    min_gap_seconds: Seconds = 10.0
    fill_gap_seconds: Seconds = 45.0
    show_price: bool = True
    portfolio: bool = False
    bandit: bool = False
    prompts_dir: str | None = None
    prompts: Names = (BUILT_IN,)
    blocks: Blocks = Blocks()
    max_output_tokens: int = Field(default=4_000, ge=100, le=200_000)
    price_per_million_input_usd: PricePerMillion = Field(default=None, ge=0, le=10_000)
    price_per_million_output_usd: PricePerMillion = Field(default=None, ge=0, le=10_000)
    cutoff: Annotated[str | None, BeforeValidator(_day)] = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    cassette: str | None = None
    learn: bool = True
    news: News = News()
    simulated_skill_r2: Ratio = 0.1

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        ordered(self, "probe_seconds", "probe_max_seconds")
        _checked_url(self.base_url, self.provider)
        if (self.price_per_million_input_usd is None) != (self.price_per_million_output_usd is None):
            raise ValueError("price_per_million_input_usd and price_per_million_output_usd go together")
        alone = {"model", "base_url", "price_per_million_input_usd", "price_per_million_output_usd"} & self.model_fields_set
        if self.ensemble and any(getattr(self, name) is not None for name in alone):
            raise ValueError(f"{min(alone)} stands beside an ensemble and would be read by nobody; give it to a member")
        if self.bandit and self.ensemble_mode == "vote":
            raise ValueError("bandit is true and ensemble_mode is 'vote'; the bandit asks one model, which has nobody to vote with")
        if self.ensemble and self.provider != "auto":
            raise ValueError(f"provider is {self.provider!r} beside an ensemble; name it among the ensemble, or set provider: auto")
        if not self.prompts:
            raise ValueError(f"prompts is empty; name at least one, for example {BUILT_IN}")
        if self.prompts_dir is None and any(name != BUILT_IN for name in self.prompts):
            raise ValueError("prompts names a prompt of your own; prompts_dir must say where it is")
        if not self.bandit and len(self.prompts) > 1:
            raise ValueError("prompts names several; choose one, or let the bandit choose: bandit: true")
        if self.bandit and not self.learn:
            raise ValueError("bandit is true and learn is false; it would never hear what became of its choices: learn: true")
        if self.bandit and max(1, len(self.ensemble)) * len(self.prompts) < 2:
            raise ValueError("bandit has nothing to choose from; name several models in ensemble, or several prompts")
        return self
