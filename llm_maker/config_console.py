"""The sections `console` and `alerts` of config.yaml: what a person sees and presses, and what comes to them by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llm_maker.config_fields import Names, Section

_LOOPBACK_HTTP = ("http://127.0.0.1", "http://localhost", "http://[::1]")


def _safe_host(url: str) -> str:
    if not url.startswith("https://") and not url.startswith(_LOOPBACK_HTTP):
        raise ValueError("must begin with https:// (http:// is for this machine alone)")
    return url.rstrip("/")


class Console(Section):
    """What the terminal shows while the daemon runs, and where the page and the metrics are served."""

    live_lines: int = Field(default=12, ge=0, le=200)
    refresh_seconds: float = Field(default=1.0, ge=0.1, le=60)
    http: bool = True
    http_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    http_port: int = Field(default=8787, ge=0, le=65_535)
    http_names: Names = ()


class Alerts(Section):
    """What is told without being asked for: to the services of LLM_MAKER_ALERT_URLS, and to a chat that may also command."""

    level: Literal["info", "warning", "error"] = "warning"
    mute: Names = ()
    repeat_minutes: float = Field(default=60.0, ge=0, le=10_080)
    max_per_hour: int = Field(default=20, ge=1, le=1_000)
    daily_summary: bool = True
    unknown_order_seconds: float = Field(default=60.0, ge=1, le=86_400)
    telegram_chats: Annotated[tuple[int, ...], Field(strict=False, max_length=20)] = ()
    telegram_host: Annotated[str, AfterValidator(_safe_host)] = "https://api.telegram.org"
