"""The universe: which markets may be quoted, and why each is in or out, in one phrase with the number and the key that decides.

It judges by a market's name, category and end, and by what the venue's listing says of it (`Facts`). It asks nobody, keeps no clock
and looks at no book: discovery asks, the runtime filters feeds with it, `llm-maker markets` shows its verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_S, Instrument, usd

if TYPE_CHECKING:
    from llm_maker.config import Filters, MarketSelection

_HOUR_NS = 3_600 * NS_PER_S
_RULES_KEPT = 100
"""Of markets that were taken once and are no more."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a venue's listing says of a market beside its rules; None: not told. It lags, and is for choosing only."""

    slug: str = ""
    event_slug: str = ""
    event_id: str = ""
    tags: tuple[str, ...] = ()
    """Ids, slugs and labels alike."""
    volume_24h: int | None = None
    """Cash units, as `liquidity` and `reward_per_day`."""
    liquidity: int | None = None
    spread: int | None = None
    """Price units, as `price`."""
    price: int | None = None
    reward_per_day: int | None = None
    accepting: bool = True
    closed: bool = False
    paid: int | None = None
    """What one YES share paid, price units, once the venue has said so for good."""
    refused: str = ""
    """Why this version cannot trade it, whatever the selection says."""


class Candidate(msgspec.Struct, frozen=True):
    """A market that a survey found; `instrument` None: it is refused and cannot be written down as one."""

    id: str
    question: str
    facts: Facts
    instrument: Instrument | None = None
    rules: str = ""
    """How it resolves, in the venue's words: foreign text, for the model's eyes."""


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One market's verdict, and what it was judged by where a listing told."""

    instrument: str
    question: str
    chosen: bool
    why: str
    facts: Facts | None = None
    end_ns: int | None = None


class Universe:
    """Two ways to judge: each market once, as a feed lists it; or all that a survey found, again at every survey."""

    def __init__(self, selection: MarketSelection) -> None:
        self.selection = selection
        self.choices: dict[str, Choice] = {}
        self._rules: dict[str, str] = {}

    def rules_of(self, market_id: str) -> str:
        """How a market that was taken resolves, in the venue's words; empty: not told."""
        return self._rules.get(market_id, "")

    def judge(self, instrument: Instrument, now: int, facts: Facts | None = None) -> Choice:
        """The verdict on a market that a feed lists; the first one stays. `max_markets` counts those that were taken."""
        known = self.choices.get(instrument.id)
        if known is None:
            why = self._why_not(instrument, facts, now)
            taken = sum(c.chosen for c in self.choices.values())
            if not why and taken >= self.selection.max_markets:
                why = f"market_selection.max_markets is {self.selection.max_markets}"
            known = Choice(instrument.id, instrument.question, not why, why or "passes the selection", facts)
            self.choices[instrument.id] = known
        return known

    def rejudge(self, candidates: Iterable[Candidate], now: int) -> list[Choice]:
        """A whole survey anew, best first: of those that pass, `max_markets` are taken.

        A market already taken goes before all others for as long as it passes, so that a change of rank changes nothing; then
        those that `include` names, then by reward, then by volume. What the survey did not find has no verdict any more.
        """
        found = {c.id: c for c in candidates}
        why = {c.id: self._verdict(c, now) for c in found.values()}
        passing = sorted((c for c in found.values() if not why[c.id]), key=self._rank)
        most = self.selection.max_markets
        choices = [
            _choice(c, place < most, _taken(c.facts) if place < most else _left(place, most)) for place, c in enumerate(passing)
        ]
        choices += [_choice(c, False, why[c.id]) for c in found.values() if why[c.id]]
        self.choices = {choice.instrument: choice for choice in choices}
        self._keep_rules(passing[:most])
        return choices

    def _keep_rules(self, taken: Sequence[Candidate]) -> None:
        """Of a market that has left the selection a position may be left: its rules stay until many others have left after it."""
        now = {c.id: c.rules for c in taken if c.rules}
        before = [name for name in self._rules if name not in now][-_RULES_KEPT:]
        self._rules = {name: self._rules[name] for name in before} | now

    def includes(self, instrument: Instrument, facts: Facts | None) -> bool:
        """`market_selection.include` names it."""
        return _named(instrument, facts, self.selection.include)

    def _rank(self, candidate: Candidate) -> tuple[bool, bool, int, int, str]:
        known, facts = self.choices.get(candidate.id), candidate.facts
        assert candidate.instrument is not None, "only what can be written down passes"
        return (
            known is None or not known.chosen,
            not self.includes(candidate.instrument, facts),
            -(facts.reward_per_day or 0),
            -(facts.volume_24h or 0),
            candidate.id,
        )

    def _verdict(self, candidate: Candidate, now: int) -> str:
        if candidate.instrument is None:
            assert candidate.facts.refused, "without an instrument there is a reason"
            return candidate.facts.refused
        return self._why_not(candidate.instrument, candidate.facts, now)

    def _why_not(self, instrument: Instrument, facts: Facts | None, now: int) -> str:
        s = self.selection
        if _named(instrument, facts, s.exclude):
            return "named in market_selection.exclude"
        if facts is not None and (facts.refused or facts.closed or not facts.accepting):
            return "closed" if facts.closed else facts.refused or "takes no orders now"
        included = self.includes(instrument, facts)
        grouped = _of_events(instrument, facts, s.events) or _of_tags(facts, s.tags)
        if not included and not grouped:
            if s.select == "listed":
                return f"market_selection.select is 'listed' and {_and(s.events, s.tags)} does not name it"
            if s.events or s.tags:
                return f"market_selection is of some events or tags, and {_and(s.events, s.tags)} does not name it"
        if included and s.select == "all":
            return ""
        return _filtered(instrument, facts, s.filters, now)


def _choice(candidate: Candidate, chosen: bool, why: str) -> Choice:
    end_ns = candidate.instrument.end_ns if candidate.instrument else None
    return Choice(candidate.id, candidate.question, chosen, why, candidate.facts, end_ns)


def _taken(facts: Facts) -> str:
    told = [f"reward ${usd(facts.reward_per_day):,.2f} a day"] if facts.reward_per_day else []
    told += [f"24h volume ${usd(facts.volume_24h):,.0f}"] if facts.volume_24h is not None else []
    return "passes the selection" + (f": {', '.join(told)}" if told else "")


def _left(place: int, most: int) -> str:
    return f"passes the selection as number {place + 1}, market_selection.max_markets is {most}"


def _and(events: tuple[str, ...], tags: tuple[str, ...]) -> str:
    names = ["include"] + ["events"] * bool(events) + ["tags"] * bool(tags)
    return names[0] if len(names) == 1 else f"any of {', '.join(names)}"


def _named(instrument: Instrument, facts: Facts | None, patterns: tuple[str, ...]) -> bool:
    """By id or slug, or by a piece of the question; `*` is a wildcard, and case does not matter."""
    if not patterns:
        return False
    names = (instrument.id.casefold(), facts.slug.casefold() if facts else "")
    question = instrument.question.casefold()
    for pattern in (p.casefold() for p in patterns if p):
        if pattern in names or pattern in question:
            return True
        if "*" in pattern and any(fnmatchcase(text, pattern) for text in (*names, question)):
            return True
    return False


def _of_events(instrument: Instrument, facts: Facts | None, events: tuple[str, ...]) -> bool:
    names = (instrument.event_id, facts.event_id, facts.event_slug) if facts else (instrument.event_id,)
    return any(name and name in events for name in names)


def _of_tags(facts: Facts | None, tags: tuple[str, ...]) -> bool:
    carried = {tag.casefold() for tag in facts.tags} if facts else set()
    return any(tag.casefold() in carried for tag in tags)


def _filtered(instrument: Instrument, facts: Facts | None, filters: Filters, now: int) -> str:
    categories = {c.casefold() for c in filters.categories}
    if categories and instrument.category.casefold() not in categories:
        return f"category {instrument.category or 'unknown'} is not in market_selection.filters.categories"
    late = _wrong_end(instrument, filters, now)
    if late or facts is None:
        return late
    return _too_little(facts, filters) or _wrong_price(instrument, facts, filters)


def _wrong_end(instrument: Instrument, filters: Filters, now: int) -> str:
    low, high = filters.min_hours_to_end, filters.max_hours_to_end
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


def _too_little(facts: Facts, filters: Filters) -> str:
    """What there is less of than a filter asks for; what was not told does not pass a filter that asks for it."""
    if filters.rewards_only and not facts.reward_per_day:
        return "pays no liquidity reward, filters.rewards_only is true"
    for name, told, key, limit in (
        ("24h volume", facts.volume_24h, "min_volume_24h_usd", filters.min_volume_24h_usd),
        ("liquidity", facts.liquidity, "min_liquidity_usd", filters.min_liquidity_usd),
        ("reward a day", facts.reward_per_day, "min_reward_usd_per_day", filters.min_reward_usd_per_day),
    ):
        if limit and told is None:
            return f"its {name} is unknown, filters.{key} is {limit:g}"
        if told is not None and told < round(limit * CASH_PER_USD):
            return f"{name} ${usd(told):,.2f}, filters.{key} is {limit:g}"
    return ""


def _wrong_price(instrument: Instrument, facts: Facts, filters: Filters) -> str:
    one, spread, price = 10**instrument.price_decimals, facts.spread, facts.price
    if filters.max_spread and spread is None:
        return f"its spread is unknown, filters.max_spread is {filters.max_spread:g}"
    if filters.max_spread and spread is not None and spread > round(filters.max_spread * one):
        return f"spread {instrument.usd_price(spread):g}, filters.max_spread is {filters.max_spread:g}"
    low, high = filters.min_price, filters.max_price
    if price is None:
        return f"its price is unknown, filters asks for {low:g} to {high:g}" if low > 0 or high < 1 else ""
    if price < round(low * one):
        return f"price {instrument.usd_price(price):g}, filters.min_price is {low:g}"
    if price > round(high * one):
        return f"price {instrument.usd_price(price):g}, filters.max_price is {high:g}"
    return ""
