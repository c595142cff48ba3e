"""Secrets: which there are, and where they come from. They live here alone: never in `Config`, in a log, a prompt or a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

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

_MIN_PART = 8
"""A shorter part of a secret is no token, and would blank out ordinary words."""
_HOST = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-fA-F:]+\])(:\d+)?")


class Hidden(str):
    """A secret as a string that works and does not show: `repr` is `***`, so a traceback with its locals, or a list of it, says
    nothing; it is neither copied nor pickled. Formatting it is using it: nobody does but those who send or sign."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither copied nor stored")


class Secrets:
    """Keys from .env and the environment; never shown, logged, copied, stored or put into `Config`."""

    __slots__ = ("_held",)

    def __init__(self, env: Mapping[str, str]) -> None:
        self._held = {name: Hidden(env[name].strip()) for name in SECRET_NAMES if env.get(name, "").strip()}

    def get(self, name: str) -> str | None:
        """The secret, or None where it is absent or empty."""
        assert name in SECRET_NAMES, name
        return self._held.get(name)

    def values(self) -> tuple[str, ...]:
        """All that must not be read in a log, the longest first: each held secret, in every form in which it may come back."""
        found = {Hidden(form) for name, value in self._held.items() for form in _forms(name, value) if len(form) >= _MIN_PART}
        return tuple(sorted({*self._held.values(), *found}, key=lambda form: (-len(form), form)))

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._held)})"

    def __getstate__(self) -> NoReturn:
        raise TypeError("secrets are neither copied nor stored")


def _forms(name: str, value: str) -> Iterator[str]:
    """What else gives a secret away: as it stands in an address, the digits of a key, the parts of alert URLs."""
    yield quote(value, safe="")
    if name == "LLM_MAKER_PK":
        digits = value.lower().removeprefix("0x")
        yield from (digits, digits.upper())
    elif name == "LLM_MAKER_TELEGRAM_TOKEN":
        yield value.rpartition(":")[2]
    elif name == "LLM_MAKER_ALERT_URLS":
        for url in value.split():
            yield from (url, *_parts(url))


def _parts(url: str) -> Iterator[str]:
    """Where an alert service keeps its tokens: user and password, a host that is none, the path, the query."""
    _, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    host, *path = place.split("/")
    login, _, host = host.rpartition("@")
    if not _HOST.fullmatch(host):
        yield from (host, host.rpartition(":")[2])
    for part in (login, *login.split(":", 1), *path, *(pair.partition("=")[2] for pair in query.split("&"))):
        yield from (part, unquote(part))


class _Environment(dict[str, str]):
    """Variables by name; shown without their values."""

    def __repr__(self) -> str:
        return f"Environment({len(self)} variables)"


def read_env(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The .env file under the process environment (which wins); neither is changed. An absent file is an empty one."""
    environ = _Environment(environ)
    if not path.exists():
        return environ
    held = _parsed(read_text(path))
    if isinstance(held, int):
        raise ConfigError(f"{path.name}: line {held} is not NAME=value")
    return _Environment(held | environ)


def _parsed(text: str) -> _Environment | int:
    """The pairs of a .env file, or the line that is none. It raises nothing, so that no traceback has the text among its locals."""
    for line in parse_stream(io.StringIO(text)):
        if line.error:
            return line.original.line
    held = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return _Environment({name: value for name, value in held.items() if value is not None})
