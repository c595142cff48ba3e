"""The record of one account that every number of the report is computed from. Plain data; it knows neither ledger nor journal.

Prices in price units and quantities in quantity units of their instrument; mids doubled, so that they are integers; money in cash
units; times in ns of market time.
"""

from __future__ import annotations

from typing import Any

import msgspec

MARKOUTS_S = (1, 10, 60, 300, 3_600, 86_400)
"""Horizons after a fill, seconds; settlement comes after them."""


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One fill that stands (failed settlements are left out), with what stood beside it."""

    ts: int
    fill_id: str
    order_id: str
    instrument: str
    side: int
    """1 bought YES (or sold NO), -1 the reverse."""
    price: int
    qty: int
    fee: int
    maker: bool
    cash: int
    """What it moved before the fee."""
    position_after: int
    mid2: int = 0
    """0: not known."""
    marks: dict[int, int] = {}
    """Horizon in seconds -> doubled mid; a horizon that the data do not reach is missing."""
    fair: float = 0.0
    terms: dict[str, float] = {}
    model: str = ""
    action: str = ""
    confidence: float = 0.0
    shift: float = 0.0
    decision_id: str = ""
    reason: str = ""


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument as the report needs it."""

    name: str
    price_scale: int
    qty_scale: int
    payout: int
    """Price units; 0: it is linear."""
    category: str = ""
    event_id: str = ""
    mid2: int = 0
    """At the end of the record; 0: not known."""
    settled2: int | None = None
    """Twice what a YES share paid; None: not resolved."""
    net: int = 0
    quoted_ns: int = 0
    """Time with at least one resting quote."""
    taker_ppm: int = 0
    """Taker fee, parts per million of p(1-p) of the payout."""
    pool_per_day: int = 0
    """What the venue pays all makers together for resting orders, cash units; 0: nothing."""


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """Cash that is no fill: rebate, reward, fee, funding, transfer, redemption, merge, split."""

    ts: int
    kind: str
    amount: int
    instrument: str = ""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A position from flat to flat."""

    instrument: str
    opened_ns: int
    closed_ns: int
    side: int
    qty: int
    pnl: int
    exit_reason: str


class Point(msgspec.Struct, frozen=True, array_like=True):
    """Equity at a moment, marks at mid."""

    ts: int
    equity: int
    cash: int


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A market at a moment: the book's best, ours (0: none), position, fair value."""

    ts: int
    bid: int
    ask: int
    own_bid: int
    own_ask: int
    net: int
    fair: float


class Track(msgspec.Struct, kw_only=True):
    """Everything of one account, oldest first."""

    label: dict[str, Any]
    """`account venue mode wallet simulated` and whatever names the run."""
    start_ns: int
    end_ns: int
    start_cash: int
    equity: int
    exit_equity: int
    flows: dict[str, int]
    """`core.state.Flows`."""
    counts: dict[str, int]
    fills: list[Fill] = []
    instruments: dict[str, Quoted] = {}
    money: list[Money] = []
    trips: list[Trip] = []
    points: list[Point] = []
    samples: dict[str, list[Sample]] = {}
    refusals: dict[str, tuple[int, int]] = {}
    """Reason -> (episodes, ns)."""
    model_costs: list[tuple[int, int]] = []
    """(ts, cash units), one for each call."""
    failed_fills: int = 0
