"""`reload`: what reading config.yaml again would change, in dollars; what may change while running, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llm_maker.config import Config


class Change(msgspec.Struct, frozen=True):
    """One key."""

    key: str
    before: str
    after: str
    allowed: bool
    why: str = ""
    """Where it is not allowed: why, and what to do."""


class Plan(msgspec.Struct, frozen=True):
    """What a reload would do; `id` is made of the new numbers, so that what was shown is what is done."""

    id: str
    changes: list[Change]
    effects: list[str]
    """The limits in dollars, before and after, and what happens to what rests and is held at once."""
    config: Config
    """The new one."""


def plan(running: Config, read: Callable[[], Config]) -> Plan:
    """Compare. Raises `ConfigError` where the file is wrong now."""
    raise NotImplementedError


def told(found: Plan) -> dict[str, Any]:
    """For `reload` and the page: plan, changes, effects, allowed."""
    raise NotImplementedError
