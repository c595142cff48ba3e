"""Secrets: which there are, and where they come from. They live here alone: never in `Config`, in a log, a prompt or a page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from llm_maker.config_text import ConfigError, read_text

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
API_SECRETS = ("LLM_MAKER_API_KEY", "LLM_MAKER_API_SECRET", "LLM_MAKER_API_PASSPHRASE")
"""The venue's credentials, where they are given and not derived from the key."""
RELAYER_SECRETS = (
    "LLM_MAKER_RELAYER_KEY",
    "LLM_MAKER_RELAYER_ADDRESS",
    "LLM_MAKER_BUILDER_KEY",
    "LLM_MAKER_BUILDER_SECRET",
    "LLM_MAKER_BUILDER_PASSPHRASE",
)
"""What the venue's relayer wants for merging and redeeming: a relayer key with its address, or a builder's three."""
ALERT_SECRETS = ("LLM_MAKER_ALERT_URLS", "LLM_MAKER_TELEGRAM_TOKEN")
"""Where alarms are sent (apprise URLs, separated by spaces: most hold a token), and the bot that may be commanded."""
SECRET_NAMES = (
    *dict.fromkeys(KEY_OF.values()), "LLM_MAKER_PK", "LLM_MAKER_BROWSER_ADDRESS", *API_SECRETS, *RELAYER_SECRETS, *ALERT_SECRETS,
)  # fmt: skip


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
    text = read_text(path)
    for line in parse_stream(io.StringIO(text)):
        if line.error:
            raise ConfigError(f"{path.name}: line {line.original.line} is not NAME=value")
    held = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in held.items() if value is not None} | dict(environ)
