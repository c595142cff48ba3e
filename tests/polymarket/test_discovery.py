"""Discovery against small Gamma, CLOB and Data servers: what is asked, what is told, and that a failure changes nothing."""

import asyncio
import itertools
import json

import pytest
from aiohttp import web
from msgspec.structs import replace

from llm_maker.config import MarketSelection
from llm_maker.core.commands import Level
from llm_maker.core.events import BarsLoaded, InstrumentDropped, InstrumentListed, MarketResolved
from llm_maker.core.values import NS_PER_S, FixedGrid
from llm_maker.universe import Universe
from llm_maker.venues.net import Http, Pace
from llm_maker.venues.polymarket.listing.discovery import Discovery
from llm_maker.venues.polymarket.listing.history import History, candles
from llm_maker.venues.polymarket.listing.survey import Failed
from llm_maker.venues.polymarket.numbers import WireError
from llm_maker.venues.polymarket.rest import Clob
from tests.polymarket.rows import NOW, compact, condition, row, tokens

SPEED = 1_000.0


class Hosts:
    """Gamma, CLOB and Data in one server, by path. `broken`: (path prefix -> status or text) that is answered instead."""

    def __init__(self):
        self.rows, self.compact, self.clob_markets, self.events, self.tags, self.points = {}, {}, {}, {}, {}, {}
        self.broken, self.asked, self.page = {}, [], 100

    def add(self, number, **changes):
        self.rows[condition(number)] = row(number, **changes)
        self.compact[condition(number)] = compact(number)

    def change(self, number, **changes):
        self.rows[condition(number)] |= changes

    def paths(self, prefix):
        return [(path, query) for path, query in self.asked if path.startswith(prefix)]

    async def answer(self, request):
        query = [(key, value) for key, value in request.query.items()]
        self.asked.append((request.path, query))
        for prefix, said in self.broken.items():
            if request.path.startswith(prefix):
                return web.Response(status=said) if isinstance(said, int) else web.Response(text=said)
        kind, _, rest = request.path.lstrip("/").partition("/")
        if request.path == "/markets/keyset":
            return self._markets(request.query)
        if kind == "v2":
            return _told(self.points.get(request.query["bucket_seconds"]))
        held = {"clob-markets": self.compact, "markets": self.clob_markets, "events": self.events, "tags": self.tags}[kind]
        return _told(held.get(rest.removeprefix("slug/")))

    def _markets(self, query):
        found = [r for r in self.rows.values() if str(r["closed"]).lower() == query.get("closed", "true")]
        for key, field in (("condition_ids", "conditionId"), ("slug", "slug")):
            if key in query:
                found = [r for r in found if r[field] in query.getall(key)]
        if "tag_id" in query:
            found = [r for r in found if any(tag["id"] == query["tag_id"] for tag in r["tags"])]
        if query.get("order"):
            found.sort(key=lambda r: float(r[query["order"]]), reverse=query["ascending"] == "false")
        at, size = int(query.get("after_cursor", "0")), min(self.page, int(query["limit"]))
        more = {"next_cursor": str(at + size)} if at + size < len(found) else {}
        return _told({"markets": found[at : at + size]} | more)


def _told(body):
    return web.Response(status=404) if body is None else web.json_response(body)


class House:
    """A discovery, its hosts, and everything it told."""

    def __init__(self, base, hosts):
        self.hosts, self.told, self.said, self.calls, self.kept, self.now = hosts, [], [], [], set(), NOW
        self.pace = Pace(lambda: self.now, SPEED)
        self.gamma, self.clob = Http(base, self.pace, timeout=600.0), Clob(base, self.pace, timeout=600.0)

    def make(self, history=False, every_s=600.0, **selection):
        self.universe = Universe(MarketSelection.model_validate(selection))
        say = lambda level, text: self.said.append((level, text))  # noqa: E731
        self.discovery = Discovery(
            self.gamma,
            self.clob,
            self.universe,
            self.pace,
            every_s=every_s,
            say=say,
            on_market=lambda instrument: self.calls.append(("market", instrument.id)),
            on_gone=lambda name: self.calls.append(("gone", name)),
            keep=lambda: set(self.kept),
            history=History(self.gamma, self.pace, say) if history else None,
        )
        return self

    async def refresh(self):
        """What one look told, and why it was not whole."""
        before = len(self.told)
        trouble = await self.discovery.refresh(self.told.append)
        return self.told[before:], trouble

    async def listed(self):
        return [e.instrument for e in (await self.refresh())[0] if isinstance(e, InstrumentListed)]


@pytest.fixture
async def hosts():
    return Hosts()


@pytest.fixture
async def house(hosts):
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", hosts.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    built = House(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", hosts)
    yield built
    await built.gamma.close()
    await built.clob.close()
    await runner.cleanup()


def wanted(asked):
    return dict(asked[1])


# A look: what is asked.


async def test_all_is_a_listing_by_volume_to_the_last_page(house, hosts):
    for number in range(1, 6):
        hosts.add(number, volume24hr=number * 100)
    hosts.page = 2
    found = await house.make().discovery.survey()
    assert [c.id for c in found] == [condition(n) for n in (5, 4, 3, 2, 1)]
    asked = [wanted(each) for each in hosts.paths("/markets/keyset")]
    first = {"limit": "100", "closed": "false", "include_tag": "true", "order": "volume24hr", "ascending": "false"}
    assert asked == [first, first | {"after_cursor": "2"}, first | {"after_cursor": "4"}]


async def test_pages_are_bounded_and_a_cursor_that_stands_still_ends_them(house, hosts):
    for number in range(1, 31):
        hosts.add(number)
    hosts.page = 1
    assert len(await house.make().discovery.survey()) == 10
    assert len(await house.make(max_markets=600).discovery.survey()) == 12
    hosts.broken["/markets/keyset"] = json.dumps({"markets": [row(1)], "next_cursor": "same"})
    hosts.asked.clear()
    assert len(await house.make().discovery.survey()) == 1 and len(hosts.asked) == 2


async def test_filters_the_venue_knows_are_asked_there_never_tighter(house, hosts):
    filters = {"min_volume_24h_usd": 1500.75, "min_liquidity_usd": 0.5, "min_hours_to_end": 1.5, "max_hours_to_end": 48}
    await house.make(filters=filters).discovery.survey()
    asked = wanted(hosts.asked[0])
    assert asked["volume_num_min"] == "1500" and "liquidity_num_min" not in asked
    assert (asked["end_date_min"], asked["end_date_max"]) == ("2026-09-21T15:43:20Z", "2026-09-23T14:13:20Z")
    hosts.asked.clear()
    await house.make(filters={"min_liquidity_usd": 2_000_000}).discovery.survey()
    assert wanted(hosts.asked[0])["liquidity_num_min"] == "2000000" and wanted(hosts.asked[0])["order"] == "liquidityNum"


async def test_a_list_of_ids_and_slugs_is_looked_up_and_nothing_else(house, hosts):
    hosts.add(1)
    hosts.add(2)
    hosts.add(3, closed=True)
    hosts.add(4)
    found = await house.make(select="listed", include=[condition(1), "rain-in-town-2", condition(3)]).discovery.survey()
    assert {c.id for c in found} == {condition(1), condition(2), condition(3)}
    assert [(wanted(a).get("condition_ids"), wanted(a).get("slug"), wanted(a)["closed"]) for a in hosts.asked] == [
        (condition(3), None, "false"),
        (condition(3), None, "true"),
        (None, "rain-in-town-2", "false"),
    ]
    assert hosts.asked[0][1].count(("condition_ids", condition(1))) == 1, "many ids are one question"


async def test_a_piece_of_a_question_is_looked_for_in_the_listing(house, hosts):
    hosts.add(1)
    hosts.add(2, question="Will it snow in Dunhollow?")
    house.make(select="listed", include=["dunhollow"], filters={"min_volume_24h_usd": 5})
    assert [i.id for i in await house.listed()] == [condition(2)]
    assert house.said == [(Level.INFO, "looked for among the 1000 busiest markets: dunhollow")]
    assert any("order" in wanted(a) and wanted(a)["volume_num_min"] == "5" for a in hosts.asked)


async def test_more_ids_than_one_question_may_carry(house, hosts):
    for number in range(1, 131):
        hosts.add(number)
    found = await house.make(select="listed", include=[condition(n) for n in range(1, 131)]).discovery.survey()
    assert len(found) == 130 and [len(query) - 3 for _, query in hosts.asked] == [50, 50, 30]


async def test_events_by_slug_and_number(house, hosts):
    event = {"id": "7", "slug": "who", "negRiskAugmented": True}
    named = row(1, events=..., negRisk=True, groupItemTitle="Stephen A. Smith")
    unnamed = row(2, events=..., negRisk=True, groupItemTitle="Person B")
    hosts.events = {"who": event | {"markets": [named, unnamed]}, "8": {"id": "8", "markets": []}}
    hosts.compact[condition(1)] = compact(1, nr=True)
    (made,) = await house.make(events=["who", "8", "nobody"]).listed()
    assert (made.id, made.event_id, made.route, made.exclusive) == (condition(1), "7", "neg_risk", False)
    assert house.universe.choices[condition(2)].why == "unnamed outcome of an augmented event: Person B"
    assert [path for path, _ in hosts.asked][:3] == ["/events/slug/who", "/events/8", "/events/slug/nobody"]
    assert house.said == [(Level.WARNING, "market_selection.events: the venue knows no event 'nobody'")]
    await house.refresh()
    assert len(house.said) == 1, "said once"


async def test_tags_by_slug_are_found_by_their_number_once(house, hosts):
    hosts.add(1)
    hosts.add(2, tags=[{"id": "2", "slug": "politics", "label": "Politics"}])
    hosts.tags = {"politics": {"id": "2", "slug": "politics"}}
    house.make(tags=["politics", "9", "nothing"])
    assert {i.id for i in await house.listed()} == {condition(1), condition(2)}
    await house.refresh()
    assert [path for path, _ in hosts.paths("/tags")] == ["/tags/slug/politics", "/tags/slug/nothing", "/tags/slug/nothing"]
    assert [wanted(a)["tag_id"] for a in hosts.asked if "tag_id" in wanted(a)] == ["2", "9"] * 2


@pytest.mark.parametrize("said", [500, 404, 429, "<html>", "[]", '{"data":[]}'])
async def test_an_answer_that_is_none_is_a_failure(house, hosts, said):
    hosts.add(1)
    hosts.broken["/markets/keyset"] = said
    found = await house.make().discovery.survey()
    assert isinstance(found, Failed) and found.why.startswith("Gamma")


async def test_the_second_page_failing_fails_the_whole_look(house, hosts, monkeypatch):
    for number in range(1, 4):
        hosts.add(number)
    hosts.page = 2
    house.make()
    ask = house.gamma.request

    async def then_nothing(*args, **kwargs):
        hosts.broken["/markets"] = {} if len(hosts.asked) == 0 else 503
        hosts.broken = {k: v for k, v in hosts.broken.items() if v}
        return await ask(*args, **kwargs)

    monkeypatch.setattr(house.gamma, "request", then_nothing)
    assert isinstance(await house.discovery.survey(), Failed) and len(hosts.asked) == 2


# What is told.


async def test_a_taken_market_is_known_before_it_is_told_and_has_the_order_books_rules(house, hosts):
    hosts.add(1)
    hosts.compact[condition(1)] = compact(1, mts=0.001, mos=15)
    events, trouble = await house.make().refresh()
    assert trouble == "" and house.calls == [("market", condition(1))]
    (event,) = events
    assert (event.instrument.grid, event.instrument.min_qty) == (FixedGrid(10), 15_000_000)
    assert await house.refresh() == ([], ""), "nothing changed"


async def test_refused_markets_are_never_told_and_say_why(house, hosts):
    hosts.add(1, version="v2")
    hosts.add(2, version="v9")
    hosts.add(3, enableOrderBook=False)
    events, _ = await house.make().refresh()
    assert events == [] and not hosts.paths("/clob-markets")
    assert {c.why for c in house.universe.choices.values()} == {
        "protocol v2: not traded by this version",
        "unknown protocol 'v9': not traded by this version",
        "has no order book",
    }
    assert len(house.said) == 1 and house.said[0][1].startswith("no market passes market_selection, 3 were looked at; most often: ")


@pytest.mark.parametrize("yet", [None, compact(1, t=[])])
async def test_a_market_that_the_order_book_does_not_know_yet_gives_its_place_and_is_judged_again(house, hosts, yet):
    hosts.add(1, volume24hr=900)
    hosts.add(2, volume24hr=500)
    hosts.compact[condition(1)] = yet
    house.make(max_markets=1)
    assert [i.id for i in await house.listed()] == [condition(2)]
    assert house.universe.choices[condition(1)].why == "the order book does not know it yet"
    hosts.compact[condition(1)] = compact(1)
    assert await house.refresh() == ([], ""), "who is in stays"
    hosts.change(2, acceptingOrders=False)
    events, _ = await house.refresh()
    assert [e.instrument.id for e in events if isinstance(e, InstrumentListed)] == [condition(1)]


async def test_new_rules_are_told(house, hosts):
    hosts.add(1)
    (before,) = await house.make().listed()
    hosts.change(1, endDate="2026-12-31T13:00:00Z", gameStartTime="2026-12-01 00:00:00+00", question="Will it rain at all?")
    hosts.compact[condition(1)] = compact(1, mts=0.001, mos=6, fd={"r": 0.03, "e": 1, "to": True}, r={"mi": 50, "ma": 3})
    (after,) = await house.listed()
    assert after.end_ns == before.end_ns + 3_600 * NS_PER_S and after.start_ns and after.question == "Will it rain at all?"
    assert (after.grid, after.min_qty, after.fee.taker_ppm, after.reward.max_spread) == (FixedGrid(10), 6_000_000, 30_000, 300)
    assert house.calls == [("market", condition(1))] * 2, "whoever parses its data knows the rules too"
    assert await house.refresh() == ([], "")


async def test_leaving_the_selection_is_reduce_only_and_goes_on_streaming(house, hosts):
    hosts.add(1)
    house.make(filters={"min_volume_24h_usd": 100})
    await house.refresh()
    hosts.change(1, volume24hr=5)
    events, _ = await house.refresh()
    assert events == [
        InstrumentDropped(condition(1), "not in the selection any more: 24h volume $5.00, filters.min_volume_24h_usd is 100")
    ]
    assert ("gone", condition(1)) not in house.calls
    assert await house.refresh() == ([], ""), "dropped once"
    hosts.change(1, orderMinSize=6)
    hosts.compact[condition(1)] = compact(1, mos=6)
    events, _ = await house.refresh()
    assert [type(e) for e in events] == [InstrumentListed, InstrumentDropped], "new rules do not bring it back"
    hosts.change(1, volume24hr=500)
    (back,) = await house.listed()
    assert back.min_qty == 6_000_000
    assert await house.refresh() == ([], "")


async def test_no_orders_taken_drops_and_taking_them_again_lists(house, hosts):
    hosts.add(1)
    await house.make().refresh()
    hosts.change(1, acceptingOrders=False)
    assert (await house.refresh())[0] == [InstrumentDropped(condition(1), "not in the selection any more: takes no orders now")]
    hosts.change(1, acceptingOrders=True)
    assert len(await house.listed()) == 1


async def test_a_market_that_falls_out_of_the_listing_is_asked_for_by_name(house, hosts):
    hosts.add(1, volume24hr=10)
    house.make(max_markets=1)
    await house.refresh()
    hosts.page = 1
    for number in range(2, 14):
        hosts.add(number, volume24hr=1_000)
    assert await house.refresh() == ([], ""), "beyond the last page it is still there"
    del hosts.rows[condition(1)]
    events, _ = await house.refresh()
    assert InstrumentDropped(condition(1), "the venue does not list it any more") in events


async def test_a_failed_look_changes_nothing_and_is_said_once(house, hosts):
    hosts.add(1)
    house.make()
    await house.refresh()
    hosts.broken["/markets/keyset"] = 503
    for _ in range(2):
        events, trouble = await house.refresh()
        assert events == [] and trouble == "Gamma /markets/keyset: HTTP 503"
    assert house.universe.choices[condition(1)].chosen
    hosts.broken.clear()
    assert await house.refresh() == ([], "")


@pytest.mark.parametrize("said", [500, 404, 429])
async def test_an_order_book_that_cannot_be_asked_changes_nothing_of_a_known_market(house, hosts, said):
    hosts.add(1)
    house.make()
    await house.refresh()
    hosts.add(2)
    hosts.change(1, orderPriceMinTickSize=0.1, orderMinSize=9)
    hosts.broken["/clob-markets"] = said
    events, trouble = await house.refresh()
    assert events == [] and trouble.startswith(f"{1 if said == 404 else 2} questions to the CLOB had no answer: GET /clob-markets")
    hosts.broken.clear()
    assert [i.id for i in await house.listed()] == [condition(2)]


# The tick: the socket's word stands.


async def test_an_older_answer_does_not_flip_the_tick_back(house, hosts):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    house.discovery.told(replace(made, grid=FixedGrid(10)))
    assert await house.refresh() == ([], ""), "the CLOB still says 0.01, and the socket knows better"
    hosts.change(1, question="Will it rain at all?")
    (after,) = await house.listed()
    assert after.grid == FixedGrid(10), "what else changed is told, on the socket's grid"
    house.now += 600 * NS_PER_S
    assert await house.refresh() == ([], ""), "the CLOB says what it said before: that is no news"
    hosts.compact[condition(1)] = compact(1, mts=0.0025)
    (late,) = await house.listed()
    assert late.grid == FixedGrid(25), "something new, asked well after: it is believed"


async def test_news_from_the_order_book_waits_while_the_sockets_word_is_fresh(house, hosts):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    house.discovery.told(replace(made, grid=FixedGrid(10)))
    hosts.compact[condition(1)] = compact(1, mts=0.0025)
    assert await house.refresh() == ([], "")
    house.now += 121 * NS_PER_S
    (late,) = await house.listed()
    assert late.grid == FixedGrid(25)
    hosts.compact[condition(1)] = compact(1, mts=0.01)
    assert [i.grid for i in await house.listed()] == [FixedGrid(100)]


async def test_once_the_order_book_has_caught_up_its_next_word_is_news(house, hosts):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    house.discovery.told(replace(made, grid=FixedGrid(10)))
    hosts.compact[condition(1)] = compact(1, mts=0.001)
    assert await house.refresh() == ([], "")
    house.now += 121 * NS_PER_S
    hosts.compact[condition(1)] = compact(1, mts=0.01)
    assert [i.grid for i in await house.listed()] == [FixedGrid(100)]


async def test_gammas_tick_never_stands_over_the_order_books(house, hosts):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    hosts.change(1, orderPriceMinTickSize=0.001)
    assert await house.refresh() == ([], "") and made.grid == FixedGrid(100)
    hosts.compact[condition(1)] = compact(1, mts=...)
    (after,) = await house.listed()
    assert after.grid == FixedGrid(10), "only where the CLOB does not say"


async def test_a_tick_told_in_the_middle_of_a_look_stands(house, hosts, monkeypatch):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    ask = house.clob.public

    async def meanwhile(*args, **kwargs):
        reply = await ask(*args, **kwargs)
        house.discovery.told(replace(made, grid=FixedGrid(10)))
        return reply

    monkeypatch.setattr(house.clob, "public", meanwhile)
    assert await house.refresh() == ([], "")


async def test_a_dropped_market_that_the_socket_lists_anew_is_dropped_again(house, hosts):
    hosts.add(1)
    house.make()
    (made,) = await house.listed()
    hosts.change(1, acceptingOrders=False)
    await house.refresh()
    house.told.clear()
    house.discovery.told(made)
    assert house.told == [InstrumentDropped(condition(1), "not in the selection any more: takes no orders now")]
    house.discovery.told(replace(made, id="0xunknown"))
    assert len(house.told) == 1


# The end.


async def over(house, hosts, **changes):
    hosts.add(1)
    await house.make().refresh()
    hosts.change(1, closed=True, acceptingOrders=False, **changes)
    return (await house.refresh())[0]


CLOSED = InstrumentDropped(condition(1), "not in the selection any more: closed")


@pytest.mark.parametrize(("prices", "paid"), [('["1","0"]', 10_000), ('["0","1"]', 0), ('["0.5","0.5"]', 5_000)])
async def test_resolved_by_gammas_last_word(house, hosts, prices, paid):
    events = await over(house, hosts, umaResolutionStatus="resolved", outcomePrices=prices)
    assert events == [CLOSED, MarketResolved(condition(1), paid)]
    assert house.calls[-1] == ("gone", condition(1))
    hosts.asked.clear()
    assert await house.refresh() == ([], "") and not hosts.paths("/markets/0x"), "over is over"


@pytest.mark.parametrize(("place", "paid"), [(0, 10_000), (1, 0)])
async def test_resolved_by_the_order_books_winner(house, hosts, place, paid):
    told = [{"token_id": token, "winner": at == place} for at, token in enumerate(tokens(1))]
    hosts.clob_markets[condition(1)] = {"closed": True, "tokens": told}
    assert await over(house, hosts) == [CLOSED, MarketResolved(condition(1), paid)]


async def test_closed_is_not_resolved(house, hosts):
    """Proposed prices are no resolution; the market goes on streaming, and is asked again."""
    events = await over(house, hosts, umaResolutionStatus="proposed", outcomePrices='["1","0"]')
    assert events == [CLOSED] and ("gone", condition(1)) not in house.calls
    hosts.clob_markets[condition(1)] = {"closed": True, "tokens": [{"token_id": "5", "winner": True}]}
    assert (await house.refresh())[0] == []
    assert "the winner is not a token of the market" in house.said[-1][1]
    hosts.change(1, umaResolutionStatus="resolved")
    assert (await house.refresh())[0] == [MarketResolved(condition(1), 10_000)]


async def test_an_end_that_cannot_be_asked_for_is_no_end(house, hosts):
    hosts.add(1)
    await house.make().refresh()
    hosts.change(1, closed=True)
    hosts.broken["/markets/0x"] = 500
    events, trouble = await house.refresh()
    assert events == [CLOSED] and "questions to the CLOB had no answer: GET /markets of" in trouble
    told = [{"token_id": token, "winner": at == 0} for at, token in enumerate(tokens(1))]
    hosts.clob_markets[condition(1)] = {"closed": True, "tokens": told}
    hosts.broken.clear()
    assert await house.refresh() == ([MarketResolved(condition(1), 10_000)], "")


# Positions of an earlier session.


async def test_a_market_with_a_position_is_listed_and_dropped_at_once(house, hosts):
    hosts.add(1, volume24hr=5)
    hosts.add(2)
    hosts.compact[condition(1)] = compact(1, mts=0.001)
    house.kept = {condition(1)}
    house.make(filters={"min_volume_24h_usd": 100})
    events, _ = await house.refresh()
    kept = [e for e in events if getattr(e.instrument, "id", e.instrument) == condition(1)]
    assert kept[0].instrument.grid == FixedGrid(10)
    assert kept[1:] == [
        InstrumentDropped(condition(1), "not in the selection any more: 24h volume $5.00, filters.min_volume_24h_usd is 100")
    ]
    assert house.calls.count(("market", condition(1))) == 1
    assert await house.refresh() == ([], "")


async def test_a_kept_market_that_is_wanted_is_an_ordinary_one(house, hosts):
    hosts.add(1)
    house.kept = {condition(1)}
    assert [type(e) for e in (await house.make().refresh())[0]] == [InstrumentListed]


async def test_a_kept_market_that_ended_meanwhile(house, hosts):
    hosts.add(1, closed=True, umaResolutionStatus="resolved", outcomePrices='["0","1"]')
    house.kept = {condition(1)}
    events, _ = await house.make(history=True).refresh()
    assert [type(e) for e in events] == [InstrumentListed, InstrumentDropped, MarketResolved]
    assert house.calls == [("market", condition(1)), ("gone", condition(1))] and not hosts.paths("/v2")
    assert await house.refresh() == ([], "")


async def test_a_kept_market_that_cannot_be_watched_is_said(house, hosts):
    hosts.add(1, version="v2")
    house.kept = {condition(1), condition(2)}
    events, _ = await house.make().refresh()
    await house.refresh()
    assert events == []
    assert [text for _, text in house.said if text.startswith("a position")] == [
        f"a position stands in {condition(1)}, which cannot be watched: protocol v2: not traded by this version",
        f"a position stands in {condition(2)}, which cannot be watched: the venue does not list it",
    ]


async def test_a_kept_market_is_listed_by_gammas_rules_where_the_order_book_does_not_answer(house, hosts):
    hosts.add(1, volume24hr=5)
    hosts.broken["/clob-markets"] = 500
    house.kept = {condition(1)}
    events, trouble = await house.make(filters={"min_volume_24h_usd": 100}).refresh()
    assert [type(e) for e in events] == [InstrumentListed, InstrumentDropped] and trouble


# The loop.


async def until(condition_holds):
    for _ in range(2_000):
        if condition_holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came about")


async def test_run_looks_at_once_again_and_again_and_says_what_does_not_answer(house, hosts):
    hosts.add(1)
    hosts.broken["/markets/keyset"] = 503
    house.make(every_s=20.0)
    running = asyncio.create_task(house.discovery.run(house.told.append))
    await until(lambda: len(hosts.asked) >= 3)
    assert house.told == [] and [text for _, text in house.said] == [
        "Gamma /markets/keyset: HTTP 503; the markets stay as they are, and it is tried again"
    ]
    hosts.broken.clear()
    await until(lambda: house.told)
    await until(lambda: len(hosts.asked) >= 20)
    running.cancel()
    assert [type(e) for e in house.told] == [InstrumentListed]
    assert house.said[1:] == [(Level.INFO, "the venue's listings can be read again")]


# The past.


def point(at_s, price, resolution=60):
    return {"timestamp": at_s, "price": price, "resolution_seconds": resolution}


async def test_past_prices_come_after_the_listing(house, hosts):
    hosts.add(1)
    now_s = NOW // NS_PER_S
    minute, hour = now_s - now_s % 60, now_s - now_s % 3_600
    hosts.points = {
        "60": {
            "data": [point(minute - 120, 0.5), point(minute - 60, 0.515)],
            "pagination": {"has_more": False, "next_cursor": None},
        },
        "3600": {"data": [point(hour - 3_600, 0.4), point(hour, 0.6)], "pagination": {"has_more": False, "next_cursor": None}},
    }
    events, _ = await house.make(history=True).refresh()
    assert isinstance(events[0], InstrumentListed) and events[1:] == [
        BarsLoaded(condition(1), 60, ((_ns(minute - 120), *[5000] * 4, 0), (_ns(minute - 60), *[5150] * 4, 0))),
        BarsLoaded(condition(1), 3_600, ((_ns(hour - 3_600), *[4000] * 4, 0),)),
    ]
    asked = wanted(hosts.paths("/v2/prices-history")[1])
    assert asked["token_id"] == tokens(1)[0] and int(asked["end"]) - int(asked["start"]) == 300 * 3_600 <= 15 * 86_400
    await house.refresh()
    assert len(hosts.paths("/v2/prices-history")) == 2, "once a market"


def _ns(seconds):
    return seconds * NS_PER_S


@pytest.mark.parametrize("said", [404, 500, "<html>", '{"data":[{"price":1}]}'])
async def test_no_past_is_a_warning_and_blocks_nothing(house, hosts, said):
    hosts.add(1)
    hosts.add(2)
    hosts.broken["/v2/"] = said
    events, trouble = await house.make(history=True).refresh()
    assert [type(e) for e in events] == [InstrumentListed] * 2 and trouble == ""
    assert len(house.said) == 1 and house.said[0][0] is Level.WARNING and house.said[0][1].startswith("no past prices of")


async def test_candles(house, hosts):
    hosts.add(1)
    (made,) = await house.make().listed()
    points = [point(130, 0.51), point(119, "0.49"), point(60, 0.5), point(61, 0.53), point(180, 0.6), point(240, 0.9), point(0, 1)]
    body = json.dumps({"data": points}).encode()
    # The seventh is no price, the sixth's minute has not closed by 240.
    assert candles(body, made, 60, 240) == (
        (_ns(60), 5000, 5300, 4900, 4900, 0),
        (_ns(120), 5100, 5100, 5100, 5100, 0),
        (_ns(180), 6000, 6000, 6000, 6000, 0),
    )
    assert candles(b'{"data":null,"pagination":{}}', made, 60, 240) == () == candles(b'{"data":[]}', made, 60, 240)
    with pytest.raises(WireError):
        candles(b"[]", made, 60, 240)


async def test_many_candles_are_the_last_three_hundred(house, hosts):
    hosts.add(1)
    (made,) = await house.make().listed()
    body = json.dumps({"data": [point(60 * n, 0.5) for n in range(500)]}).encode()
    bars = candles(body, made, 60, 60 * 500)
    assert len(bars) == 300 and bars[-1][0] == _ns(60 * 499)
    assert all(later[0] > sooner[0] for sooner, later in itertools.pairwise(bars))
