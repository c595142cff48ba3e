"""What the HTML page is told by the other parts of the report. Plain data, every field optional; money in USD, times in ns."""

from __future__ import annotations

import msgspec


class KeyFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the report as it is to be read: `value` with its unit, `note` what it is measured by."""

    label: str
    value: str
    note: str = ""


class MoneyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an account's P&L identity."""

    label: str
    usd: float | None
    """None: not known, never 0."""
    note: str = ""
    total: bool = False
    """A sum of what stands above it."""


class DifferencePoint(msgspec.Struct, frozen=True, array_like=True):
    """A cumulative difference at a moment and its 95 % limits, USD; None: no interval."""

    ts: int
    usd: float
    low: float | None = None
    high: float | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One account less another, paired on the same market, net of the model's cost. The mean is USD a day with 95 % limits."""

    first: str
    second: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    days: float
    verdict: str
    series: list[DifferencePoint] = []


class StatedBin(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a reliability curve, parts of one; `low`, `high`: where 95 % of `observed` would lie were every forecast right."""

    stated: float
    observed: float
    low: float
    high: float
    n: int


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table for people; the first column names the row, the others are shown as numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page shows and does not compute. What is empty is said to be, where it would stand."""

    title: str = ""
    build: str = ""
    headline: list[KeyFigure] = []
    identity: dict[str, list[MoneyRow]] = {}
    """By account, named as `html_plots.accounts_of` names it (the account's own name where that is the only one)."""
    differences: list[Difference] = []
    reliability: dict[str, list[StatedBin]] = {}
    """By model."""
    tables: list[Table] = []
    refusals: dict[str, str] = {}
    """What a reason of `Track.refusals` means, one sentence each."""
    notes: list[str] = []
    """What to beware of when reading."""
