"""From the config to a running analyst of a real provider: key, price, limits, budget. Imports the provider's SDK only here."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from urllib.parse import urlsplit

import msgspec

from llm_maker.config import Config
from llm_maker.core.commands import Level
from llm_maker.keys import SECRET_NAMES, Secrets
from llm_maker.llm.analyst import Analyst, AnalystSettings, DecisionFacts
from llm_maker.llm.apis.chat import OpenAICompatible
from llm_maker.llm.budget import DailyBudget, Pricer, RateLimit
from llm_maker.llm.providers import PROVIDERS, ProviderSpec, choose

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class NotAvailable(Exception):
    """The provider cannot be used as configured; one line."""


class Mind(msgspec.Struct, frozen=True):
    """Whom the slow loop asks (`none` and `simulated` are ours), and the line that says why."""

    provider: str
    text: str


def resolve(config: Config, secrets: Secrets, *, simulated_feed: bool) -> Mind:
    """Whom `llm.provider` means: `auto` is the first usable key, else the simulated analyst on its own feed, else rules alone."""
    name = config.llm.provider
    if name == "none":
        return Mind("none", "rules only: llm.provider is none")
    if name == "simulated":
        return Mind("simulated", "a simulated analyst (it is told a noisy truth)")
    found = choose(name, {key: secrets.get(key) or "" for key in SECRET_NAMES})
    if found.spec is not None:
        model = config.llm.model or found.spec.model or "no model named"
        where = f" at {config.llm.base_url}" if config.llm.base_url else ""
        return Mind(found.spec.name, f"{found.text}, model {model}{where}")
    if found.status == "none_set" and simulated_feed:
        return Mind("simulated", f"a simulated analyst (it is told a noisy truth): {found.text}")
    if found.status == "none_set":
        return Mind("none", f"rules only: {found.text}")
    raise NotAvailable(found.text)


def build_analyst(
    config: Config,
    secrets: Secrets,
    provider: str,
    budget: DailyBudget,
    record: Callable[[DecisionFacts], None],
    say: Callable[[Level, str], None],
) -> Analyst:
    """The slow loop's port for a named provider."""
    llm, spec = config.llm, PROVIDERS[provider]
    model = llm.model or spec.model
    if not model:
        raise NotAvailable(f"llm.model is empty; provider '{provider}' has no default model")
    client = OpenAICompatible(
        spec,
        api_key=secrets.get(spec.env_key) or "",
        pricer=_pricer(config, spec, model),
        base_url=llm.base_url or "",
        model=model,
        max_output_tokens=llm.max_output_tokens,
        on_step=lambda line: say(Level.WARNING, line),
    )
    # The core waits twice the timeout for an answer; ours must come before that.
    settings = AnalystSettings(timeout_s=llm.timeout_seconds, deadline_s=1.8 * llm.timeout_seconds, show_price=llm.show_price)
    rate = RateLimit(llm.max_requests_per_minute)
    return Analyst(client, rate=rate, budget=budget, record=record, say=say, settings=settings)


def _pricer(config: Config, spec: ProviderSpec, model: str) -> Pricer:
    """Own prices from config first need both numbers; a server on this machine costs nothing."""
    llm = config.llm
    per_million = None
    if llm.price_per_million_input_usd is not None and llm.price_per_million_output_usd is not None:
        per_million = (Decimal(str(llm.price_per_million_input_usd)), Decimal(str(llm.price_per_million_output_usd)))
    host = urlsplit(llm.base_url or spec.base_url).hostname
    return Pricer(spec.price_id, model, per_million=per_million, local=host in _LOOPBACK and per_million is None)
