"""Discovery: which Polymarket markets there are for us, kept up to date, told as events.

It looks (`survey`), has the universe judge, asks the CLOB for the rules of what was taken, and emits what changed. A look that
failed changes nothing. A market that leaves the selection is dropped, which is reduce-only, and goes on being streamed; only a
resolved one is let go. It owns the timer of the looks; it decides nothing of trading and opens no socket of data.

Rules come from three mouths. Gamma lags; GET /clob-markets stands over it; and what the market's own socket said last stands over
both (`told`), until the CLOB says something new well after it (`polymarket.md` 2.1: the tick moves with the price).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from msgspec.structs import replace

from llm_maker.core.commands import Level
from llm_maker.core.events import InstrumentDropped, InstrumentListed, MarketResolved
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.port import Emit
from llm_maker.universe import Candidate, Choice, Universe
from llm_maker.venues.net import Backoff, Http, Pace
from llm_maker.venues.polymarket.listing import gamma
from llm_maker.venues.polymarket.listing.history import History
from llm_maker.venues.polymarket.listing.survey import Failed, Say, Survey
from llm_maker.venues.polymarket.numbers import WireError
from llm_maker.venues.polymarket.rest import Clob

_AT_ONCE = 8
"""Questions to one host at the same time."""
_ROUNDS = 10
"""Of choosing: each replaces what the CLOB does not have yet by the next best."""
_SOCKET_LEADS_NS = 120 * NS_PER_S
"""A tick that the CLOB tells sooner than this after the socket told another may be an old answer."""


class _Rules(msgspec.Struct, frozen=True):
    """A market's rules, and when the CLOB was asked for them; 0: it was not, or did not answer."""

    instrument: Instrument
    asked_ns: int = 0


class _Listed(msgspec.Struct):
    """A market that was told to the core."""

    instrument: Instrument
    said: Instrument
    """By the CLOB's last word."""
    out: str = ""
    """Why it is not in the selection any more; "": it is."""
    resolved: bool = False
    told_ns: int = 0
    """When the socket last changed its rules."""

    def take(self, rules: _Rules) -> bool:
        """New rules; True: something changed. The grid and the least size that the socket told stay until there is news."""
        before, new = self.instrument, rules.instrument
        early = rules.asked_ns < self.told_ns + _SOCKET_LEADS_NS and not _same_sizes(new, before)
        if self.told_ns and (early or _same_sizes(new, self.said)):
            self.instrument = replace(new, grid=before.grid, min_qty=before.min_qty)
        else:
            self.instrument = new
        if rules.asked_ns and not early:
            self.said = new
        return self.instrument != before


class Discovery:
    """A part of the venue's port: `run` for ever; `told` from the feed."""

    def __init__(
        self,
        gamma_http: Http,
        clob: Clob,
        universe: Universe,
        pace: Pace,
        *,
        every_s: float,
        say: Say,
        on_market: Callable[[Instrument], None],
        on_gone: Callable[[str], None],
        keep: Callable[[], set[str]] = set,
        history: History | None = None,
    ) -> None:
        """`on_market`: a new market or new rules of one, called before the event; `on_gone`: nothing of it need stream any more.

        `keep`: ids of markets that must be known whatever the selection says, because a position stands there.
        """
        self.clob, self.universe, self.pace, self.history = clob, universe, pace, history
        self.every_s, self.keep = every_s, keep
        self._survey = Survey(gamma_http, universe.selection, pace, say)
        self._say, self._on_market, self._on_gone = say, on_market, on_gone
        self._listed: dict[str, _Listed] = {}
        self._said: set[str] = set()
        self._empty = False
        self._emit: Emit | None = None
        self.trouble = "not looked yet"
        """Why the last look was not whole; empty: it was."""

    async def run(self, emit: Emit) -> None:
        """Look at once, then every `every_s`; after a failure sooner, backing off, until it works."""
        backoff, failing = Backoff(2.0, 60.0), False
        while True:
            trouble = self.trouble = await self.refresh(emit)
            if trouble and not failing:
                self._say(Level.WARNING, f"{trouble}; the markets stay as they are, and it is tried again")
            elif failing and not trouble:
                self._say(Level.INFO, "the venue's listings can be read again")
            failing = bool(trouble)
            if not failing:
                backoff.reset()
            await self.pace.sleep(min(backoff.next(), self.every_s) if failing else self.every_s)

    async def survey(self) -> list[Candidate] | Failed:
        """One whole look: what the selection could want, and all that we hold or have listed."""
        live = {name for name, known in self._listed.items() if not known.resolved}
        return await self._survey.look(live | {name for name in self.keep() if name not in self._listed})

    def told(self, instrument: Instrument) -> None:
        """The socket told another tick or minimum size, and the core has heard of it. Call it after that event.

        For the core a listing puts a market back into the universe: one that was dropped is dropped again.
        """
        known = self._listed.get(instrument.id)
        if known is None:
            return
        known.instrument = replace(known.instrument, grid=instrument.grid, min_qty=instrument.min_qty)
        known.told_ns = self.pace.now()
        if known.out:
            self._tell(InstrumentDropped(instrument.id, known.out))

    async def refresh(self, emit: Emit) -> str:
        """Look, choose, tell; returns why it is not whole, or ""."""
        self._emit = emit
        found = await self.survey()
        if isinstance(found, Failed):
            return found.why
        candidates = {c.id: c for c in found}
        choices, rules, troubles = await self._choose(candidates)
        paid = await self._ended(candidates, troubles)
        known = set(self._listed)
        for choice in choices:
            if choice.chosen and choice.instrument in rules:
                self._enter(rules[choice.instrument])
        self._enter_kept(candidates, rules)
        for name, listed in list(self._listed.items()):
            if not listed.resolved:
                self._judged(name, listed, rules.get(name), paid.get(name))
        self._warn_of_nothing(choices, troubles)
        await self._past([listed for name, listed in self._listed.items() if name not in known])
        return f"{len(troubles)} questions to the CLOB had no answer: {troubles[0]}" if troubles else ""

    # Choosing: the universe's verdicts, and the CLOB's word on what they take.

    async def _choose(self, candidates: dict[str, Candidate]) -> tuple[list[Choice], dict[str, _Rules], list[str]]:
        """Until all that is taken has its rules, or the CLOB does not answer. `candidates` takes on what it said."""
        rules: dict[str, _Rules] = {}
        troubles: list[str] = []
        asked: set[str] = set()
        choices: list[Choice] = []
        for _ in range(_ROUNDS):
            choices = self.universe.rejudge(candidates.values(), self.pace.now())
            wanted = [c.instrument for c in choices if c.chosen] + [n for n in (*self._listed, *self.keep()) if n in candidates]
            new = [name for name in dict.fromkeys(wanted) if name not in asked and _open(candidates[name])]
            if not new or troubles:
                break
            asked.update(new)
            await _each(new, lambda name: self._ask_rules(name, candidates, rules, troubles))
        return choices, rules, troubles

    async def _ask_rules(self, name: str, candidates: dict[str, Candidate], rules: dict[str, _Rules], troubles: list[str]) -> None:
        """GET /clob-markets of one market. No answer: a known one keeps its rules, another waits for the next look."""
        before, known = candidates[name], name in self._listed or name in self.keep()
        assert before.instrument is not None
        asked_ns = self.pace.now()
        reply = await self.clob.public("GET", f"/clob-markets/{name}")
        if reply.ok:
            after = candidates[name] = gamma.refine(before, reply.body)
            assert after.instrument is not None
            if not after.facts.refused:
                rules[name] = _Rules(after.instrument, asked_ns)
        elif reply.status == 404 and not known:
            candidates[name] = gamma.unknown_yet(before)
        else:
            troubles.append(f"GET /clob-markets of {before.question or name}: {reply.error}")
            if known:
                rules[name] = _Rules(self._listed[name].instrument if name in self._listed else before.instrument)

    async def _ended(self, candidates: dict[str, Candidate], troubles: list[str]) -> dict[str, int]:
        """What YES paid in closed markets of ours, as far as it is known for good: Gamma's word, else the CLOB's winner."""
        over = {name for name, known in self._listed.items() if known.resolved}
        ours = {*self._listed, *self.keep()} - over
        closed = [c for c in candidates.values() if c.id in ours and c.facts.closed and c.instrument is not None]
        paid = {c.id: c.facts.paid for c in closed if c.facts.paid is not None}

        async def ask(name: str) -> None:
            instrument = candidates[name].instrument
            assert instrument is not None
            reply = await self.clob.public("GET", f"/markets/{name}")
            where = f"GET /markets of {instrument.question or name}"
            if not reply.ok and reply.status != 404:
                troubles.append(f"{where}: {reply.error}")
            elif reply.ok:
                try:
                    price = gamma.winner(reply.body, instrument)
                except WireError as fault:
                    self._once(f"{where}: {fault}")
                    return
                if price is not None:
                    paid[name] = price

        await _each([c.id for c in closed if c.id not in paid], ask)
        return paid

    # Telling: nothing here waits, so that the feed's word cannot come in between.

    def _enter(self, rules: _Rules) -> None:
        """A taken market: told if it is new, back, or changed."""
        name = rules.instrument.id
        known = self._listed.get(name)
        if known is None:
            self._listed[name] = _Listed(rules.instrument, rules.instrument)
            self._list(rules.instrument)
            return
        if known.take(rules) or known.out:
            known.out = ""
            self._list(known.instrument)

    def _enter_kept(self, candidates: dict[str, Candidate], rules: dict[str, _Rules]) -> None:
        """Markets of an earlier session that were not taken are told all the same; `_judged` drops them at once."""
        for name in sorted(self.keep() - set(self._listed)):
            found = candidates.get(name)
            if found is None or found.instrument is None:
                why = found.facts.refused if found else "the venue does not list it"
                self._once(f"a position stands in {name}, which cannot be watched: {why}")
            else:
                self._enter(rules.get(name, _Rules(found.instrument)))

    def _judged(self, name: str, known: _Listed, rules: _Rules | None, paid: int | None) -> None:
        """A listed market that is out, or over."""
        choice = self.universe.choices.get(name)
        if choice is None or not choice.chosen:
            why = f"not in the selection any more: {choice.why}" if choice else "the venue does not list it any more"
            if rules is not None and known.take(rules):
                self._list(known.instrument)
                self._tell(InstrumentDropped(name, known.out or why))
            elif not known.out:
                self._tell(InstrumentDropped(name, why))
            known.out = known.out or why
        if paid is not None:
            known.resolved = True
            self._tell(MarketResolved(name, paid))
            self._on_gone(name)

    def _list(self, instrument: Instrument) -> None:
        self._on_market(instrument)
        self._tell(InstrumentListed(instrument))

    def _tell(self, event: InstrumentListed | InstrumentDropped | MarketResolved) -> None:
        assert self._emit is not None, "told before run"
        self._emit(event)

    def _warn_of_nothing(self, choices: list[Choice], troubles: list[str]) -> None:
        empty = not troubles and not any(c.chosen for c in choices)
        if empty and not self._empty:
            reasons = Counter(c.why for c in choices).most_common(1)
            most = f"; most often: {reasons[0][0]}" if reasons else ""
            self._say(Level.WARNING, f"no market passes market_selection, {len(choices)} were looked at{most}")
        self._empty = empty

    async def _past(self, fresh: list[_Listed]) -> None:
        """Candles of before, one market after another: nothing waits for them."""
        emit = self._emit
        assert emit is not None, "told before run"
        for listed in fresh:
            if self.history is not None and not listed.resolved:
                for bars in await self.history.load(listed.instrument):
                    emit(bars)

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(Level.WARNING, text)


def _open(candidate: Candidate) -> bool:
    return candidate.instrument is not None and not candidate.facts.closed and not candidate.facts.refused


def _same_sizes(one: Instrument, other: Instrument) -> bool:
    return one.grid == other.grid and one.min_qty == other.min_qty


async def _each(names: Iterable[str], ask: Callable[[str], Awaitable[None]]) -> None:
    """Ask of all, a few at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> None:
        async with gate:
            await ask(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
