"""The state as `shapes.Board` and `shapes.Detail`: what `top` and the page show. Pure: reads the state, changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.console.shapes import Alarm, Board, Detail, Entry
from llm_maker.core.state import Market, State


class Around(msgspec.Struct, frozen=True):
    """What the wiring knows and the state does not."""

    version: str
    venue: str
    provider: str
    simulated: bool
    started_ns: int
    twin: dict[str, Any] | None
    health: dict[str, Any]
    model_cost_today: float | None
    model_budget: float | None
    alarms: list[Alarm]
    tail: list[Entry]
    last: int


def board(state: State, around: Around) -> Board:
    """Everything a screen shows at a glance."""
    raise NotImplementedError


def detail(state: State, market: Market, tail: list[Entry]) -> Detail:
    """One market, whole."""
    raise NotImplementedError
