"""The lists of models: which there are, or one of them, as each vendor tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.models.asked import Wire


def vendor_of(headers: Mapping[str, str], path: str) -> Wire:
    """Who asks for a list: OpenAI's and Anthropic's stand under one path. OpenAI's two wires have one list."""
    if "x-goog-api-key" in headers or path.startswith("/v1beta/"):
        return "gemini"
    return "messages" if "anthropic-version" in headers else "chat"


def one(wire: Wire, model: str) -> dict[str, Any]:
    if wire == "gemini":
        limits = {"inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536}
        return {"name": f"models/{model}", "displayName": model, "supportedGenerationMethods": ["generateContent"], **limits}
    if wire == "messages":
        made = {"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"}
        return made | {"lifecycle": "active", "deprecated_at": None}
    return {"id": model, "object": "model", "created": 0, "owned_by": "fake"}


def all_of(wire: Wire, models: list[str]) -> dict[str, Any]:
    """Everything on one page."""
    each = [one(wire, model) for model in models]
    if wire == "gemini":
        return {"models": each}
    if wire == "messages":
        ends = {"first_id": models[0], "last_id": models[-1]} if models else {"first_id": None, "last_id": None}
        return {"data": each, "has_more": False, **ends}
    return {"object": "list", "data": each}
