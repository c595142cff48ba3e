"""The universe: each rule says why in words, a survey is ranked, the taken stay, and nothing of an unchosen market gets through."""

import msgspec
import pytest

from llm_maker.config import MarketSelection
from llm_maker.core.events import BookSnapshot, InstrumentListed, Tick, VenueUp
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.universe import SelectedFeed
from llm_maker.universe import Candidate, Facts, Universe
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from tests.core.builders import USD, binary

HOUR = 3_600 * NS_PER_S


def selection(filters=None, **fields):
    return MarketSelection.model_validate(fields | ({"filters": filters} if filters else {}))


def market(name="m-1", question="Will it rain in Dunhollow?", end_h=None, category="weather"):
    return binary(name, question=question, category=category, end_ns=None if end_h is None else int(end_h * HOUR))


@pytest.mark.parametrize(
    ("rules", "chosen", "why"),
    [
        (selection(), True, "passes"),
        (selection(exclude=["m-1"]), False, "exclude"),
        (selection(exclude=["m-*"]), False, "exclude"),
        (selection(exclude=["Dunhollow"]), False, "exclude"),
        (selection(exclude=["snow"]), True, "passes"),
        (selection(select="listed", include=["m-1"]), True, "passes"),
        (selection(select="listed", include=["m-2"]), False, "include does not name it"),
        (selection(select="listed", include=["rain in dun"]), True, "passes"),
        (selection(select="listed", include=["*DUNHOLLOW?"]), True, "passes"),
        (selection(select="listed", include=["m-"]), False, "include does not name it"),
        (selection(select="listed", include=["", "m-2"]), False, "include does not name it"),
        (selection(select="listed", include=["m-1"], exclude=["m-1"]), False, "exclude"),
        (selection({"categories": ["sports"]}), False, "category weather"),
        (selection({"categories": ["weather"]}), True, "passes"),
        (selection({"min_hours_to_end": 5}), False, "ends in 4.0h"),
        (selection({"max_hours_to_end": 3}), False, "ends in 4.0h"),
        (selection({"min_hours_to_end": 3, "max_hours_to_end": 5}), True, "passes"),
    ],
)
def test_a_verdict_and_why(rules, chosen, why):
    verdict = Universe(rules).judge(market(end_h=14), 10 * HOUR)
    assert verdict.chosen is chosen and why in verdict.why


def test_an_unknown_end_does_not_pass_a_filter_that_asks_for_one():
    verdict = Universe(selection({"min_hours_to_end": 1})).judge(market(), 0)
    assert not verdict.chosen and "unknown" in verdict.why


def test_a_market_is_judged_once_and_the_number_counts_the_chosen():
    universe = Universe(selection({"min_hours_to_end": 2}, max_markets=2, exclude=["m-1"]))
    verdicts = [universe.judge(market(f"m-{n}", end_h=10), 0).chosen for n in (1, 2, 3, 4)]
    assert verdicts == [False, True, True, False]
    assert universe.choices["m-4"].why == "market_selection.max_markets is 2"
    assert universe.judge(market("m-2", end_h=10), 9 * HOUR).chosen, "close to its end it is still the same market"


# By what a listing tells.

FACTS = {
    "slug": "rain-in-dunhollow", "event_slug": "rain", "event_id": "77", "tags": ("9", "weather", "Weather"),
    "volume_24h": 1_000 * USD, "liquidity": 500 * USD, "spread": 200, "price": 4_000, "reward_per_day": 3 * USD,
}  # fmt: skip


def candidate(name="m-1", instrument=..., **facts):
    made = market(name, end_h=24) if instrument is ... else instrument
    return Candidate(name, f"{name}?", Facts(**FACTS | facts), made)


def verdict(rules, one):
    (choice,) = Universe(rules).rejudge([one], 10 * HOUR)
    return choice


@pytest.mark.parametrize(
    ("filters", "facts", "why"),
    [
        ({}, {}, ""),
        ({"min_volume_24h_usd": 1_000}, {}, ""),
        ({"min_volume_24h_usd": 1_000.5}, {}, "24h volume $1,000.00, filters.min_volume_24h_usd is 1000.5"),
        ({"min_volume_24h_usd": 1}, {"volume_24h": None}, "its 24h volume is unknown, filters.min_volume_24h_usd is 1"),
        ({"min_liquidity_usd": 500}, {}, ""),
        ({"min_liquidity_usd": 501}, {}, "liquidity $500.00, filters.min_liquidity_usd is 501"),
        ({"min_liquidity_usd": 1}, {"liquidity": None}, "its liquidity is unknown, filters.min_liquidity_usd is 1"),
        ({"max_spread": 0.02}, {}, ""),
        ({"max_spread": 0.019}, {}, "spread 0.02, filters.max_spread is 0.019"),
        ({"max_spread": 0.02}, {"spread": None}, "its spread is unknown, filters.max_spread is 0.02"),
        ({"min_price": 0.4, "max_price": 0.4}, {}, ""),
        ({"min_price": 0.41}, {}, "price 0.4, filters.min_price is 0.41"),
        ({"max_price": 0.39}, {}, "price 0.4, filters.max_price is 0.39"),
        ({"min_price": 0.1}, {"price": None}, "its price is unknown, filters asks for 0.1 to 1"),
        ({}, {"price": None, "spread": None, "volume_24h": None, "liquidity": None, "reward_per_day": None}, ""),
        ({"rewards_only": True}, {}, ""),
        ({"rewards_only": True}, {"reward_per_day": 0}, "pays no liquidity reward, filters.rewards_only is true"),
        ({"rewards_only": True}, {"reward_per_day": None}, "pays no liquidity reward, filters.rewards_only is true"),
        ({"min_reward_usd_per_day": 3}, {}, ""),
        ({"min_reward_usd_per_day": 3.5}, {}, "reward a day $3.00, filters.min_reward_usd_per_day is 3.5"),
        ({"categories": ["Weather"]}, {}, ""),
        ({"categories": ["sports"]}, {}, "category weather is not in market_selection.filters.categories"),
        ({"max_hours_to_end": 3}, {}, "ends in 14.0h, filters.max_hours_to_end is 3"),
        ({}, {"closed": True, "refused": "has no order book"}, "closed"),
        ({}, {"accepting": False}, "takes no orders now"),
        ({}, {"refused": "protocol v2: not traded by this version"}, "protocol v2: not traded by this version"),
    ],
)
def test_a_filter_and_its_reason(filters, facts, why):
    choice = verdict(selection(filters), candidate(**facts))
    assert choice.chosen is (why == "")
    assert choice.why == (why or choice.why) and (why or choice.why.startswith("passes the selection"))
    assert choice.facts == candidate(**facts).facts and choice.end_ns == 24 * HOUR


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (selection(include=["rain-in-dunhollow"], select="listed"), ""),
        (selection(include=["rain-*"], select="listed"), ""),
        (selection(include=["rain-in"], select="listed"), "market_selection.select is 'listed' and include does not name it"),
        (selection(events=["rain"], select="listed"), ""),
        (selection(tags=["WEATHER"], select="listed"), ""),
        (
            selection(tags=["sports"], select="listed"),
            "market_selection.select is 'listed' and any of include, tags does not name it",
        ),
        (selection(events=["77"]), ""),
        (
            selection(events=["78"], tags=["8"]),
            "market_selection is of some events or tags, and any of include, events, tags does not name it",
        ),
        (selection(events=["78"], tags=["9"]), ""),
        (selection(events=["78"], include=["m-1"]), ""),
        (selection(exclude=["rain-*"], include=["m-1"], events=["rain"]), "named in market_selection.exclude"),
    ],
)
def test_named_by_slug_event_or_tag(rules, why):
    choice = verdict(rules, candidate())
    assert choice.chosen is (why == "") and choice.why == (why or choice.why)


def test_include_goes_before_the_filters_but_not_before_what_cannot_be_traded():
    rules = selection({"min_volume_24h_usd": 5_000}, include=["m-1"])
    assert verdict(rules, candidate()).chosen
    assert not verdict(rules, candidate(closed=True)).chosen and not verdict(rules, candidate(refused="no")).chosen
    listed = selection({"min_volume_24h_usd": 5_000}, include=["m-1"], select="listed")
    assert not verdict(listed, candidate()).chosen, "a list is filtered"


def test_what_is_no_instrument_says_why():
    choice = verdict(selection(), candidate(instrument=None, refused="protocol v2: not traded by this version"))
    assert (choice.chosen, choice.why, choice.question) == (False, "protocol v2: not traded by this version", "m-1?")


def taken(universe, *candidates):
    return [choice.instrument for choice in universe.rejudge(candidates, 0) if choice.chosen]


def test_the_best_are_taken_by_reward_then_volume_and_what_include_names_first():
    found = [
        candidate("m-1", reward_per_day=None, volume_24h=9_000 * USD),
        candidate("m-2", reward_per_day=5 * USD, volume_24h=1),
        candidate("m-3", reward_per_day=5 * USD, volume_24h=2),
        candidate("m-4", reward_per_day=0, volume_24h=None),
    ]
    assert taken(Universe(selection(max_markets=3)), *found) == ["m-3", "m-2", "m-1"]
    assert taken(Universe(selection(max_markets=2, include=["m-4"])), *found) == ["m-4", "m-3"]
    universe = Universe(selection(max_markets=2))
    taken(universe, *found)
    assert universe.choices["m-3"].why == "passes the selection: reward $5.00 a day, 24h volume $0"
    assert universe.choices["m-1"].why == "passes the selection as number 3, market_selection.max_markets is 2"


def test_a_taken_market_stays_while_it_passes():
    """A change of rank changes nothing; a filter does, and then the next best comes."""
    universe = Universe(selection({"min_volume_24h_usd": 10}, max_markets=2))
    low, high = candidate("m-1", reward_per_day=1 * USD), candidate("m-2", reward_per_day=2 * USD)
    best = candidate("m-3", reward_per_day=9 * USD)
    assert taken(universe, low, high) == ["m-2", "m-1"]
    for _ in range(3):
        assert taken(universe, best, low, high) == ["m-2", "m-1"]
    assert taken(universe, best, candidate("m-1", volume_24h=0), high) == ["m-2", "m-3"]
    assert taken(universe, best, low, high) == ["m-3", "m-2"], "who left has no claim any more"


def test_a_survey_forgets_what_it_did_not_find():
    universe = Universe(selection())
    taken(universe, candidate("m-1"), candidate("m-2"))
    taken(universe, candidate("m-2"))
    assert list(universe.choices) == ["m-2"]


def test_the_first_verdict_stays_for_a_feed_even_with_facts():
    universe = Universe(selection({"min_volume_24h_usd": 2_000}))
    assert universe.judge(market(), 0).chosen, "a feed that tells nothing of volume is not held to it"
    assert universe.judge(market(), 0, candidate().facts).chosen
    assert not universe.judge(market("m-2"), 0, candidate().facts).chosen


# The filter on a feed.


def feed(**fields):
    inner = SimulatedMarket(MarketParams(seed=2, markets=3, activity=300.0))
    return SelectedFeed(inner, Universe(selection(**fields)))


def heard(source, seconds):
    end, events = source.next_ns() + int(seconds * NS_PER_S), []
    while source.next_ns() <= end:
        events += source.advance(source.next_ns())
    return events


def test_nothing_of_an_unchosen_market_gets_through():
    events = heard(feed(exclude=["SIM-0002"]), 60)
    names = {e.instrument.id if isinstance(e, InstrumentListed) else getattr(e, "instrument", None) for e in events}
    assert names == {"SIM-0001", "SIM-0003", None}
    assert any(isinstance(e, VenueUp) for e in events)


def test_the_chosen_markets_hear_what_they_would_hear_alone():
    everything = heard(feed(), 60)
    some = heard(feed(exclude=["SIM-0002"]), 60)
    assert some == [
        e for e in everything if getattr(getattr(e, "instrument", None), "id", getattr(e, "instrument", "")) != "SIM-0002"
    ]


def test_verdicts_survive_a_checkpoint():
    source = feed(max_markets=2)
    heard(source, 20)
    again = feed(max_markets=2)
    again.restore(source.checkpoint())
    assert again._universe.choices == source._universe.choices
    assert again.checkpoint() == source.checkpoint() and heard(again, 20) == heard(source, 20)


def test_an_event_without_a_market_passes():
    source = feed()
    assert source._passes(Tick(), 0)
    assert not source._passes(BookSnapshot("never listed", (), (), 0), 0)
    assert msgspec.json.decode(source.checkpoint())["choices"] == []


def test_rules_of_what_was_taken_stay_when_it_is_dropped():
    universe = Universe(selection(max_markets=1))
    first, second = (Candidate(n, "q", Facts(volume_24h=v), market(n), f"rules of {n}") for n, v in (("a", 2), ("b", 1)))
    universe.rejudge([first, second], 0)
    assert universe.rules_of("a") == "rules of a" and universe.rules_of("b") == ""
    universe.rejudge([second], 0)
    assert universe.rules_of("a") == "rules of a" and universe.rules_of("b") == "rules of b"
