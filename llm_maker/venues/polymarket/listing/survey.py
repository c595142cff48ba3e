"""One look at Polymarket's listings (Gamma): everything the selection could want, as candidates, or why there is no answer.

It knows which question finds what (`polymarket.md` 2.1) and asks only what the selection leaves open. A look is whole or `Failed`:
half a listing would read as markets that are gone. What is chosen of it is the universe's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.universe import Candidate
from llm_maker.venues.net import Http, Pace, Reply
from llm_maker.venues.polymarket.listing import gamma
from llm_maker.venues.polymarket.listing.fields import Fields
from llm_maker.venues.polymarket.numbers import WireError

if TYPE_CHECKING:
    from llm_maker.config import MarketSelection

Say = Callable[[Level, str], None]
"""Level and text, for people."""
PAGE = 100
"""Rows of a keyset page at most (since 2026-05-14)."""
PAGES = 10
"""Pages of one listing, unless `max_markets` needs more."""
_IDS_A_QUERY = 50
_ROWS_AT_ONCE = 20
"""Rows that are read before others may run: about 2 ms."""
_CONDITION = re.compile(r"0x[0-9a-fA-F]{64}")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_Query = tuple[tuple[str, str], ...]


class Failed(msgspec.Struct, frozen=True):
    """No answer, or one that cannot be read: nothing is known of any market by it."""

    why: str


class _NoAnswer(Exception):
    """Ends a look; never leaves it."""


class Survey:
    """Asks Gamma. `selection` tells what to look for; its filters that the venue knows too are asked there."""

    def __init__(self, gamma_http: Http, selection: MarketSelection, pace: Pace, say: Say) -> None:
        self.http, self.selection, self.pace, self._say = gamma_http, selection, pace, say
        self._tag_ids: dict[str, str] = {}
        self._said: set[str] = set()

    async def look(self, held: Iterable[str] = ()) -> list[Candidate] | Failed:
        """Every market the selection could want, and those of `held` (condition ids) wherever they are, closed ones too."""
        found: dict[str, Candidate] = {}
        selection, now = self.selection, self.pace.now()
        ids = {*held, *(p for p in selection.include if _CONDITION.fullmatch(p))}
        try:
            await self._named(found, "condition_ids", sorted(ids))
            await self._named(found, "slug", [p for p in selection.include if _SLUG.fullmatch(p) and p not in ids])
            for event in selection.events:
                await self._event(found, event)
            for query in [await self._tag(tag) for tag in selection.tags]:
                if query:
                    await self._listing(found, (*query, *self._bounds(now)))
            for bounds in self._general(found, now):
                await self._listing(found, bounds)
        except _NoAnswer as error:
            return Failed(str(error))
        return list(found.values())

    # What is asked.

    def _general(self, found: dict[str, Candidate], now: int) -> list[_Query]:
        """The listings of everything: where nothing narrows it, and where `include` has a piece of a question to be looked for."""
        s = self.selection
        slugs = {c.facts.slug for c in found.values()}
        pieces = [p for p in s.include if not _CONDITION.fullmatch(p) and p not in slugs]
        wanted: list[_Query] = [] if s.select == "listed" or s.events or s.tags else [self._bounds(now)]
        if pieces:
            self._once(Level.INFO, f"looked for among the {PAGE * self._pages} busiest markets: {', '.join(pieces)}")
            # Where `include` goes before the filters, the venue must not apply them either.
            wanted.append(() if s.select == "all" else self._bounds(now))
        return list(dict.fromkeys(wanted))

    def _bounds(self, now: int) -> _Query:
        """Our filters in the venue's words, never tighter than ours: volume of all time is at least that of a day."""
        f = self.selection.filters
        asked = [
            ("volume_num_min", str(int(f.min_volume_24h_usd)) if f.min_volume_24h_usd >= 1 else ""),
            ("liquidity_num_min", str(int(f.min_liquidity_usd)) if f.min_liquidity_usd >= 1 else ""),
            ("end_date_min", _iso(now, f.min_hours_to_end) if f.min_hours_to_end else ""),
            ("end_date_max", _iso(now, f.max_hours_to_end) if f.max_hours_to_end else ""),
        ]
        return tuple((name, value) for name, value in asked if value)

    @property
    def _pages(self) -> int:
        return max(PAGES, 2 * self.selection.max_markets // PAGE)

    @property
    def _order(self) -> str:
        """Names that the venue sorts as numbers; `volume` and `liquidity` it sorts as text."""
        f = self.selection.filters
        return "liquidityNum" if f.min_liquidity_usd and not f.min_volume_24h_usd else "volume24hr"

    # How it is asked.

    async def _named(self, found: dict[str, Candidate], key: str, names: Sequence[str]) -> None:
        """Markets by name, open ones first: a listing without a word on `closed` may be of either kind alone."""
        missing = list(names)
        for closed in ("false", "true"):
            for at in range(0, len(missing), _IDS_A_QUERY):
                query = [(key, name) for name in missing[at : at + _IDS_A_QUERY]]
                reply = await self._ask(
                    "/markets/keyset", (("limit", str(PAGE)), ("closed", closed), ("include_tag", "true"), *query)
                )
                rows, _ = self._read(reply, "markets")
                await self._take(found, rows)
            seen = {c.id.casefold() if key == "condition_ids" else c.facts.slug for c in found.values()}
            missing = [name for name in missing if name.casefold() not in seen]

    async def _listing(self, found: dict[str, Candidate], narrowed: _Query) -> None:
        """Page after page until the cursor ends, or as many as are wanted."""
        query = (
            ("limit", str(PAGE)),
            ("closed", "false"),
            ("include_tag", "true"),
            ("order", self._order),
            ("ascending", "false"),
            *narrowed,
        )
        cursor = ""
        for _ in range(self._pages):
            reply = await self._ask("/markets/keyset", (*query, ("after_cursor", cursor)) if cursor else query)
            rows, following = self._read(reply, "markets")
            await self._take(found, rows)
            if not following or following == cursor:
                return
            cursor = following

    async def _event(self, found: dict[str, Candidate], name: str) -> None:
        path = f"/events/{name}" if name.isdigit() else f"/events/slug/{quote(name, safe='')}"
        reply = await self._ask(path, (), missing_ok=True)
        if reply.status == 404:
            self._once(Level.WARNING, f"market_selection.events: the venue knows no event {name!r}")
            return
        try:
            event, rows = gamma.event_rows(reply.body)
        except WireError as fault:
            raise _NoAnswer(f"Gamma {path}: {fault}") from None
        await self._take(found, rows, event)

    async def _tag(self, name: str) -> _Query:
        """A tag as the listing wants it, by its number; () where the venue knows none of that name."""
        if not name.isdigit() and name not in self._tag_ids:
            path = f"/tags/slug/{quote(name, safe='')}"
            reply = await self._ask(path, (), missing_ok=True)
            if reply.status == 404:
                self._once(Level.WARNING, f"market_selection.tags: the venue knows no tag {name!r}")
                return ()
            try:
                number = Fields(reply.body, "tag").text("id")
            except WireError as fault:
                raise _NoAnswer(f"Gamma {path}: {fault}") from None
            if not number.isdigit():
                raise _NoAnswer(f"Gamma {path}: a tag without an id")
            self._tag_ids[name] = number
        return (("tag_id", self._tag_ids.get(name, name)),)

    async def _ask(self, path: str, query: _Query, *, missing_ok: bool = False) -> Reply:
        reply = await self.http.request("GET", path, query=query)
        if reply.ok or (missing_ok and reply.status == 404):
            return reply
        where = "" if reply.status else f" at {urlsplit(self.http.base).netloc}"
        raise _NoAnswer(f"Gamma {path}{where}: {reply.error}")

    def _read(self, reply: Reply, key: str) -> tuple[list[msgspec.Raw], str]:
        try:
            return gamma.page(reply.body, key)
        except WireError as fault:
            raise _NoAnswer(f"Gamma: {fault}") from None

    async def _take(self, found: dict[str, Candidate], rows: list[msgspec.Raw], event: Fields | None = None) -> None:
        now = self.pace.now()
        for place, row in enumerate(rows):
            read = gamma.candidate(row, now, event)
            found.setdefault(read.id, read)
            if place % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
                await self.pace.sleep(0.0)

    def _once(self, level: Level, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(level, text)


def _iso(now: int, hours: float) -> str:
    at = now // NS_PER_S + round(hours * 3_600)
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
