"""The universe: which listed markets are quoted, and why each is in or out. A filter between a feed and everything else.

Knows names, categories and end times; looks at no book and no price.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from llm_maker.config import MarketSelection
from llm_maker.core.commands import Command
from llm_maker.core.events import Event, InstrumentListed
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.port import Simulator

_HOUR_NS = 3_600 * NS_PER_S


class Choice(msgspec.Struct, frozen=True):
    """One market's verdict."""

    instrument: str
    question: str
    chosen: bool
    why: str


class Universe:
    """Judges each market once, when it is listed; `max_markets` counts those that were taken."""

    def __init__(self, selection: MarketSelection) -> None:
        self.selection = selection
        self.choices: dict[str, Choice] = {}

    @property
    def open(self) -> bool:
        """Nothing but the number of markets is restricted."""
        s = self.selection
        filters = s.filters.min_hours_to_end or s.filters.max_hours_to_end or s.filters.categories
        return s.select == "all" and not s.exclude and not filters

    def judge(self, instrument: Instrument, now: int) -> Choice:
        """The verdict on a market; the first one stays."""
        known = self.choices.get(instrument.id)
        if known is None:
            why = self._why_not(instrument, now)
            known = Choice(instrument.id, instrument.question, not why, why or "passes the selection")
            self.choices[instrument.id] = known
        return known

    def _why_not(self, instrument: Instrument, now: int) -> str:
        s = self.selection
        if _named(instrument, s.exclude):
            return "named in market_selection.exclude"
        if s.select == "listed" and not _named(instrument, s.include):
            return "market_selection.select is 'listed' and include does not name it"
        if s.filters.categories and instrument.category not in s.filters.categories:
            return f"category {instrument.category or 'unknown'} is not in market_selection.filters.categories"
        late = self._wrong_end(instrument, now)
        if late:
            return late
        if sum(c.chosen for c in self.choices.values()) >= s.max_markets:
            return f"market_selection.max_markets is {s.max_markets}"
        return ""

    def _wrong_end(self, instrument: Instrument, now: int) -> str:
        low, high = self.selection.filters.min_hours_to_end, self.selection.filters.max_hours_to_end
        if not low and not high:
            return ""
        if instrument.end_ns is None:
            return "its end time is unknown and market_selection.filters asks for one"
        hours = (instrument.end_ns - now) / _HOUR_NS
        if hours < low:
            return f"ends in {hours:.1f}h, filters.min_hours_to_end is {low:g}"
        if high and hours > high:
            return f"ends in {hours:.1f}h, filters.max_hours_to_end is {high:g}"
        return ""


def _named(instrument: Instrument, patterns: tuple[str, ...]) -> bool:
    """By id, or by a piece of the question; `*` is a wildcard."""
    texts = (instrument.id, instrument.question)
    return any(fnmatchcase(text, pattern) or pattern in text for text in texts for pattern in patterns)


class SelectedFeed:
    """A feed that tells of chosen markets only."""

    def __init__(self, feed: Simulator, universe: Universe) -> None:
        self._feed, self._universe = feed, universe
        self.name = feed.name

    def observe(self, now: int, event: Event) -> None:
        self._feed.observe(now, event)

    def execute(self, now: int, command: Command) -> None:
        self._feed.execute(now, command)

    def next_ns(self) -> int | None:
        return self._feed.next_ns()

    def advance(self, now: int) -> list[Event]:
        """Events of chosen markets; may be empty though something was due."""
        return [event for event in self._feed.advance(now) if self._passes(event, now)]

    def _passes(self, event: Event, now: int) -> bool:
        if isinstance(event, InstrumentListed):
            return self._universe.judge(event.instrument, now).chosen
        instrument = getattr(event, "instrument", None)
        if instrument is None:
            return True
        choice = self._universe.choices.get(instrument)
        return choice is not None and choice.chosen

    def checkpoint(self) -> bytes:
        return msgspec.json.encode({"feed": msgspec.Raw(self._feed.checkpoint()), "choices": list(self._universe.choices.values())})

    def restore(self, saved: bytes) -> None:
        kept = msgspec.json.decode(saved, type=_Saved)
        self._feed.restore(bytes(kept.feed))
        self._universe.choices = {c.instrument: c for c in kept.choices}


class _Saved(msgspec.Struct):
    feed: msgspec.Raw
    choices: list[Choice]
