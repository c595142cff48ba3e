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

Api = Literal["responses", "chat", "messages", "gemini"]
"""The four wires: OpenAI Responses, chat completions, Anthropic messages, Gemini generateContent."""
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
    """As the server calls it."""
    schema_mode: SchemaMode = "json_schema"


class Citation(msgspec.Struct, frozen=True):
    url: str
    title: str = ""


class Found(msgspec.Struct, frozen=True):
    """What a search-capable model wrote after looking: untrusted text, and where it says it has it from."""

    text: str
    citations: tuple[Citation, ...]
    searches: int
    """How many it made; each costs beside the tokens, and `cost_usd` has both."""
    finish: Finish
    usage: Usage
    cost_usd: Decimal | None
    price_source: PriceSource
    model: str


class ProviderError(Exception):
    """The call failed; `kind` is a reason of `events.SignalsFailed`. `detail` holds no secret.

    `maybe_billed`: the request left us and may be on the bill though nothing whole came back.
    """

    def __init__(
        self, kind: Kind, detail: str, retry_after_s: float | None = None, *, maybe_billed: bool = False, usage: Usage | None = None
    ) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: Kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.maybe_billed = maybe_billed
        self.usage = usage


class Model(Protocol):
    """What the slow loop needs of a provider: one client of one SDK, made once, closed once. No retry, no limit, no budget."""

    provider: str
    model: str

    async def complete(self, system: str, user: str, schema: dict[str, Any], deadline_s: float) -> Completion:
        """One answer within the deadline, or ProviderError."""
        ...

    async def search(self, system: str, user: str, deadline_s: float) -> Found:
        """One answer after looking on the web, or ProviderError; `bad_request` where it cannot search."""
        ...

    async def close(self) -> None: ...


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a provider (`llm-providers.md` 3). `price_id` is its name in the price table."""

    name: str
    api: Api
    base_url: str
    model: str
    """The current cheap one; empty: the person names it."""
    env_key: str = ""
    key_url: str = ""
    """Where a person gets the key."""
    schema_mode: SchemaMode = "json_schema"
    price_id: str = ""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    key_required: bool = True
    local: bool = False
    """A server of one's own: its calls cost nothing."""
    search_tools: tuple[str, ...] = ()
    """What it may search with; empty: it cannot."""
    search_usd: Decimal = Decimal(0)
    """Of one search, beside the tokens."""
    extra: dict[str, Any] = {}
    """Added to the request body as it stands."""
    retired: dict[str, str] = {}
    """Names that are gone -> what took their place; a prefix ends with `*`."""
    cutoffs: dict[str, str] = {}
    """Model -> last day it was trained on, where that is known; the latest of what is told of it."""


PROVIDERS: dict[str, ProviderSpec] = {
    spec.name: spec
    for spec in (
        ProviderSpec(
            name="gemini",
            api="gemini",
            env_key="GEMINI_API_KEY",
            key_url="https://aistudio.google.com/apikey",
            base_url="https://generativelanguage.googleapis.com",
            model="gemini-3.1-flash-lite",
            price_id="google",
            search_tools=("google_search",),
            search_usd=Decimal("0.014"),
            retired={
                "gemini-2.5-flash*": "gemini-3.1-flash-lite",
                "gemini-2.0-*": "gemini-3.1-flash-lite",
                "gemini-1*": "gemini-3.1-flash-lite",
            },
        ),
        ProviderSpec(
            name="anthropic",
            api="messages",
            env_key="ANTHROPIC_API_KEY",
            key_url="https://console.anthropic.com/settings/keys",
            base_url="https://api.anthropic.com",
            model="claude-haiku-5-5",
            price_id="anthropic",
            search_tools=("web_search_20260318",),
            search_usd=Decimal("0.01"),
        ),
        ProviderSpec(
            name="openai",
            api="responses",
            env_key="OPENAI_API_KEY",
            key_url="https://platform.openai.com/api-keys",
            base_url="https://api.openai.com/v1",
            model="gpt-6-luna",
            price_id="openai",
            max_tokens_field="max_completion_tokens",
            search_tools=("web_search",),
            search_usd=Decimal("0.01"),
            extra={"reasoning": {"effort": "low"}},
        ),
        ProviderSpec(
            name="deepseek",
            api="chat",
            env_key="DEEPSEEK_API_KEY",
            key_url="https://platform.deepseek.com/api_keys",
            base_url="https://api.deepseek.com",
            model="deepseek-flash",
            schema_mode="json_object",
            price_id="deepseek",
            extra={"thinking": {"type": "disabled"}},
            retired={"deepseek-chat": "deepseek-flash", "deepseek-reasoner": "deepseek-flash"},
        ),
        ProviderSpec(
            name="xai",
            api="chat",
            env_key="XAI_API_KEY",
            key_url="https://console.x.ai",
            base_url="https://api.x.ai/v1",
            model="grok-4.3",
            price_id="x-ai",
            search_tools=("web_search", "x_search"),
            search_usd=Decimal("0.005"),
            cutoffs={"grok-4.3": "2025-12-31"},
            retired={
                "grok-4-fast*": "grok-4.3",
                "grok-4-1-fast*": "grok-4.3",
                "grok-4.1-fast*": "grok-4.3",
                "grok-4-0709": "grok-4.3",
                "grok-3*": "grok-4.3",
            },
        ),
        ProviderSpec(
            name="openrouter",
            api="chat",
            env_key="OPENROUTER_API_KEY",
            key_url="https://openrouter.ai/settings/keys",
            base_url="https://openrouter.ai/api/v1",
            model="openai/gpt-6-luna",
            price_id="openrouter",
            # Without it a route that cannot do schemas drops ours silently.
            extra={"provider": {"require_parameters": True}},
        ),
        ProviderSpec(name="ollama", api="chat", base_url="http://127.0.0.1:11434/v1", model="", key_required=False, local=True),
        ProviderSpec(name="vllm", api="chat", base_url="http://127.0.0.1:8000/v1", model="", key_required=False, local=True),
        ProviderSpec(name="llamacpp", api="chat", base_url="http://127.0.0.1:8080/v1", model="", key_required=False, local=True),
        ProviderSpec(
            name="openai_compatible",
            api="chat",
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

    status: Literal["chosen", "missing_key", "unknown_name", "none_set"]
    text: str
    spec: ProviderSpec | None = None


def choose(name: str, env: Mapping[str, str]) -> Choice:
    """Resolve `llm.provider`: a name needs its key; `auto` takes the first key that is set. Keeps no secret."""
    if name == "auto":
        return _choose_auto(env)
    spec = PROVIDERS.get(name)
    if spec is None:
        return Choice("unknown_name", f"llm.provider: {name!r} is not one of auto, {', '.join(PROVIDERS)}")
    if spec.key_required and not env.get(spec.env_key, "").strip():
        return Choice("missing_key", f"Missing API key: {spec.env_key} not set. Add {spec.env_key}=... to .env")
    return Choice("chosen", f"{spec.name}", spec)


def _choose_auto(env: Mapping[str, str]) -> Choice:
    asking = [p for p in PROVIDERS.values() if p.key_required]
    chosen = next((p for p in asking if env.get(p.env_key, "").strip()), None)
    if chosen is not None:
        return Choice("chosen", f"{chosen.name}: {chosen.env_key} is set", chosen)
    return Choice("none_set", f"no model key is set (one of {', '.join(p.env_key for p in asking)})")


def replacement(spec: ProviderSpec, model: str) -> str | None:
    """What took the place of a model that is known to be gone; None: nothing is known against it."""
    for name, newer in spec.retired.items():
        if model == name or (name.endswith("*") and model.startswith(name[:-1])):
            return newer
    return None
