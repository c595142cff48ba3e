"""What the scout found out: dated, cited, untrusted notes on a market, and the board where the prompt reads them.

Pure; time is an argument (market ns). Knows no provider and no fence: whoever shows a note fences it.
"""

from __future__ import annotations

import msgspec


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as a model reported it; every field is foreign text."""

    text: str
    date: str
    """Of the fact, ISO 8601 day as told; empty: it did not say."""
    url: str = ""
    """Where it says it has it from; one of the citations that the provider confirmed, or empty."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one search on one market brought."""

    market_id: str
    found_ns: int
    model: str
    notes: tuple[Note, ...]


class NewsBoard:
    """The newest report of each market while it is fresh; bounded in markets."""

    def __init__(self, ttl_ns: int, limit: int = 500) -> None:
        self._ttl_ns, self._limit = ttl_ns, limit
        self._reports: dict[str, Report] = {}

    def put(self, report: Report) -> None:
        self._reports.pop(report.market_id, None)
        self._reports[report.market_id] = report
        while len(self._reports) > self._limit:
            del self._reports[next(iter(self._reports))]

    def of(self, market_id: str, now: int) -> Report | None:
        """What is known now; None: nothing, or nothing that is still fresh."""
        report = self._reports.get(market_id)
        return report if report is not None and now - report.found_ns < self._ttl_ns else None
