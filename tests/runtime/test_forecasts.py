"""The record of opinions: rows at the answer, later prices at each horizon, outcomes; the same after a restart."""

from __future__ import annotations

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core.advice import MemberAnswer
from llm_maker.core.skill import HORIZONS_S
from llm_maker.core.values import NS_PER_S, logit
from llm_maker.runtime.forecasts import ForecastBook
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.rows import ForecastRow, MarkRow, OutcomeRow, Scope
from tests.core.builders import Rig, advice, binary

SCOPE = Scope("v", "paper", "", "a")


class Desk:
    """A rig whose events go into a book of forecasts, and its rows into a ledger."""

    def __init__(self, path) -> None:
        self.rig = Rig().start(binary("m", category="weather", event_id="e"))
        self.rig.move(5000)
        self.ledger = Ledger.open(path / "ledger.sqlite3")
        self.book = ForecastBook(self.rig.state)
        self.seq = 0

    def say(self, event):
        self.rig.send(event)
        self.seq += 1
        rows = self.book.rows(self.rig.now, event)
        self.ledger.append(SCOPE, self.seq, self.rig.now, rows)
        return rows

    def answer(self, *signals, members=(), decision="d1"):
        slow = self.rig.state.slow
        slow.pending, slow.markets = "r", ["m"]
        return self.say(ev.SignalsReceived("r", decision, "gpt", "v1", signals, members=members))

    def later(self, seconds):
        self.rig.wait(seconds)
        return self.say(ev.Tick())

    def told(self):
        self.ledger.drain()
        return self.ledger.forecasts(SCOPE)


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


def test_an_opinion_is_kept_with_the_market_of_its_moment(desk):
    (row,) = desk.answer(advice("buy_yes", 0.8, "bullish", p_yes=0.6))
    assert isinstance(row, ForecastRow)
    (told,) = desk.told()
    assert (told.model, told.role, told.p_yes, told.confidence, told.bias) == ("gpt", "used", 0.6, 0.8, 1)
    assert told.x_market == logit(0.5) and told.category == "weather" and told.event_id == "e"
    assert told.later == {} and told.outcome is None and told.ts == desk.rig.now
    assert told.d == desk.rig.market().opinion.d0 != 0


def test_each_members_own_word_is_kept_beside_what_was_used(desk):
    members = (
        MemberAnswer("gpt-a", "v1", "ok", (advice("hold", p_yes=0.7),), 0.5),
        MemberAnswer("gpt-b", "v2", "timeout", detail="no answer"),
    )
    rows = desk.answer(advice("hold", p_yes=0.65), members=members)
    assert [(r.model, r.role, r.p_yes, r.prompt_version) for r in rows] == [
        ("gpt", "used", 0.65, "v1"),
        ("gpt-a", "member", 0.7, "v1"),
    ]


def test_the_market_is_looked_at_again_at_each_horizon(desk):
    desk.answer(advice("hold", p_yes=0.6))
    mids, at = {}, 0
    for n, horizon in enumerate(HORIZONS_S):
        assert desk.later(horizon - at - 10) == []
        mid = 5000 + 100 * (n + 1)
        desk.rig.move(mid)
        rows = desk.later(10)
        assert [(r.horizon_s, r.x_market) for r in rows] == [(horizon, logit(mid / 10_000))]
        mids[horizon], at = logit(mid / 10_000), horizon
    assert desk.told()[0].later == mids
    assert desk.later(1_000_000) == []


def test_a_market_without_a_trusted_price_is_waited_for_and_then_given_up(desk):
    desk.answer(advice("hold", p_yes=0.6))
    desk.rig.send(ev.FeedLost(("m",), "test"))
    assert desk.later(300) == [] and desk.later(20) == []
    desk.rig.move(5200)
    (row,) = desk.later(6)
    assert isinstance(row, MarkRow) and row.horizon_s == 300
    desk.rig.send(ev.FeedLost(("m",), "test"))
    desk.later(3600)
    desk.later(400)
    desk.rig.move(5300)
    assert desk.later(10) == [], "a price an hour and more late is not that of the hour"


def test_a_resolution_is_an_outcome_and_ends_the_looking(desk):
    desk.answer(advice("hold", p_yes=0.6))
    (row,) = desk.say(ev.MarketResolved("m", 10_000))
    assert isinstance(row, OutcomeRow) and row.paid_ppm == 1_000_000
    assert desk.told()[0].outcome == 1.0
    assert desk.later(400) == []


def test_a_new_book_goes_on_where_the_old_one_stopped(desk):
    desk.answer(advice("hold", p_yes=0.6))
    desk.later(305)
    assert set(desk.told()[0].later) == {300}
    desk.book = ForecastBook(desk.rig.state, desk.told())
    assert [r.horizon_s for r in desk.later(3_300)] == [3_600]


def test_the_same_answer_told_twice_is_looked_at_once(desk):
    desk.answer(advice("hold", p_yes=0.6))
    desk.answer(advice("hold", p_yes=0.6))
    assert len(desk.later(301)) == 1


def test_only_rows_since_then_are_read(desk):
    desk.answer(advice("hold", p_yes=0.6))
    desk.later(5_000)
    desk.answer(advice("hold", p_yes=0.7), decision="d2")
    desk.ledger.drain()
    (told,) = desk.ledger.forecasts(SCOPE, desk.rig.now - 10 * NS_PER_S)
    assert told.decision_id == "d2" and msgspec.structs.asdict(told)["later"] == {}


def test_a_linear_market_has_no_probability_to_keep(tmp_path):
    from tests.core.builders import linear

    rig = Rig().start(linear())
    rig.book("l", ((6_800_000, 50),), ((6_800_100, 50),))
    rig.state.slow.pending, rig.state.slow.markets = "r", ["l"]
    event = ev.SignalsReceived("r", "d", "gpt", "v1", (advice("hold", market="l"),))
    rig.send(event)
    assert ForecastBook(rig.state).rows(rig.now, event) == []
