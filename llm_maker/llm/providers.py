"""The providers: what each is known by, which one config and keys lead to, and the one call all of them answer.

Text in, text out, or one `ProviderError` with a kind. It refuses to know an SDK, a socket, and the value of a key beyond whether it
is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from llm_maker.llm.budget import PriceSource, Usage

SchemaMode = Literal["json_schema", "json_object", "prompt_only"]
Kind = Literal["timeout", "connection", "auth", "billing", "rate_limit", "overload", "malformed", "refusal", "bad_request"]
Finish = Literal["stop", "length", "refusal"]


class Completion(msgspec.Struct, frozen=True):
    """What came back. `cost_usd` None: nobody knows the price. `schema_mode` is the one that was answered."""

    text: str
    finish: Finish
    usage: Usage
    cost_usd: Decimal | None
    price_source: PriceSource
    model: str
    schema_mode: SchemaMode = "json_schema"


class ProviderError(Exception):
    """The call failed; `kind` is a reason of `events.SignalsFailed`. `detail` holds no secret."""

    def __init__(self, kind: Kind, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: Kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s


class Model(Protocol):
    """What the analyst needs of a provider."""

    provider: str
    model: str

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline, or ProviderError."""
        ...


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a provider (`llm-providers.md` 3). `price_id` is its name in the price table."""

    name: str
    env_key: str
    base_url: str
    model: str
    schema_mode: SchemaMode = "json_schema"
    price_id: str = ""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    key_required: bool = True
    implemented: bool = True
    extra: dict[str, Any] = {}
    """Added to the request body as it stands."""


PROVIDERS: dict[str, ProviderSpec] = {
    spec.name: spec
    for spec in (
        ProviderSpec(
            name="gemini",
            env_key="GEMINI_API_KEY",
            base_url="https://generativelanguage.googleapis.com",
            model="gemini-3.1-flash-lite",
            price_id="google",
            implemented=False,
        ),
        ProviderSpec(
            name="anthropic",
            env_key="ANTHROPIC_API_KEY",
            base_url="https://api.anthropic.com",
            model="claude-haiku-5-5",
            price_id="anthropic",
            implemented=False,
        ),
        ProviderSpec(
            name="openai",
            env_key="OPENAI_API_KEY",
            base_url="https://api.openai.com/v1",
            model="gpt-6-luna",
            price_id="openai",
            max_tokens_field="max_completion_tokens",
        ),
        ProviderSpec(
            name="deepseek",
            env_key="DEEPSEEK_API_KEY",
            base_url="https://api.deepseek.com",
            model="deepseek-flash",
            schema_mode="json_object",
            price_id="deepseek",
            extra={"thinking": {"type": "disabled"}},
        ),
        ProviderSpec(
            name="xai",
            env_key="XAI_API_KEY",
            base_url="https://api.x.ai/v1",
            model="grok-4.3",
            price_id="x-ai",
        ),
        ProviderSpec(
            name="openrouter",
            env_key="OPENROUTER_API_KEY",
            base_url="https://openrouter.ai/api/v1",
            model="openai/gpt-6-luna",
            price_id="openrouter",
            # Without it a route that cannot do schemas drops ours silently.
            extra={"provider": {"require_parameters": True}},
        ),
        ProviderSpec(
            name="openai_compatible",
            env_key="OPENAI_API_KEY",
            base_url="http://127.0.0.1:11434/v1",
            model="",
            key_required=False,
        ),
    )
}
"""In the order in which `auto` looks for a key."""


class Choice(msgspec.Struct, frozen=True):
    """Which provider config and environment lead to. Only `chosen` has a usable `spec`; `text` is the line to say."""

    status: Literal["chosen", "missing_key", "not_implemented", "unknown_name", "none_set"]
    text: str
    spec: ProviderSpec | None = None


def choose(name: str, env: Mapping[str, str]) -> Choice:
    """Resolve `llm.provider`: a name needs its key; `auto` takes the first key that is set. Keeps no secret."""
    if name == "auto":
        return _choose_auto(env)
    spec = PROVIDERS.get(name)
    if spec is None:
        return Choice("unknown_name", f"llm.provider: {name!r} is not one of auto, {', '.join(PROVIDERS)}")
    if not spec.implemented:
        usable = ", ".join(p.name for p in PROVIDERS.values() if p.implemented)
        return Choice("not_implemented", f"llm.provider: {name} is not available yet; available: {usable}")
    if spec.key_required and not env.get(spec.env_key, "").strip():
        return Choice("missing_key", f"Missing API key: {spec.env_key} not set. Add {spec.env_key}=... to .env")
    return Choice("chosen", f"{spec.name}", spec)


def _choose_auto(env: Mapping[str, str]) -> Choice:
    candidates = [p for p in PROVIDERS.values() if p.key_required and env.get(p.env_key, "").strip()]
    waiting = ", ".join(f"{p.env_key} is set, but {p.name} is not available yet" for p in candidates if not p.implemented)
    chosen = next((p for p in candidates if p.implemented), None)
    if chosen is not None:
        note = f" ({waiting})" if waiting else ""
        return Choice("chosen", f"{chosen.name}: {chosen.env_key} is set{note}", chosen)
    keys = ", ".join(p.env_key for p in PROVIDERS.values() if p.key_required and p.implemented)
    return Choice("none_set", waiting or f"no model key is set (one of {keys})")
