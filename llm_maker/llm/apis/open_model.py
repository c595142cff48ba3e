"""The one place where a provider's wire becomes a client: only that client's module, and so only its SDK, is imported."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import Api, Model, ProviderSpec


def open_model(
    spec: ProviderSpec,
    *,
    api_key: str,
    pricer: Pricer,
    base_url: str = "",
    model: str = "",
    extra: dict[str, Any] | None = None,
    max_output_tokens: int = 4_000,
    clock: Callable[[], int] = time.time_ns,
    on_step: Callable[[str], None] = lambda line: None,
) -> Model:
    """The client for a provider, with its SDK loaded (up to a second: at the start, not in the loop).

    ValueError: a `base_url` or an `extra` that no request can have.
    """
    client = _client_of(spec.api)
    return client(
        spec,
        api_key=api_key,
        pricer=pricer,
        base_url=base_url,
        model=model,
        extra=extra,
        max_output_tokens=max_output_tokens,
        clock=clock,
        on_step=on_step,
    )


class _Client(Protocol):
    def __call__(
        self,
        spec: ProviderSpec,
        *,
        api_key: str,
        pricer: Pricer,
        base_url: str,
        model: str,
        extra: dict[str, Any] | None,
        max_output_tokens: int,
        clock: Callable[[], int],
        on_step: Callable[[str], None],
    ) -> Model: ...


def _client_of(api: Api) -> _Client:
    if api == "chat":
        from llm_maker.llm.apis.chat import Chat

        return Chat
    if api == "responses":
        from llm_maker.llm.apis.responses import Responses

        return Responses
    if api == "messages":
        from llm_maker.llm.apis.messages import Messages

        return Messages
    from llm_maker.llm.apis.gemini import Gemini

    return Gemini
