"""The universe: each rule says why in words, the first verdict stays, and nothing of an unchosen market gets through."""

import msgspec
import pytest

from llm_maker.config import MarketSelection
from llm_maker.core.events import BookSnapshot, InstrumentListed, Tick, VenueUp
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.universe import SelectedFeed, Universe
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from tests.core.builders import binary

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
