"""The curves of the page: sampled by market time, thinned, bounded however long and however many, and JSON."""

from __future__ import annotations

import itertools
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.console import history, shapes
from llm_maker.console.history import Columns, Past
from llm_maker.core import events as ev
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.strategy.maker import Maker
from tests.core.builders import SHARE, USD, Rig, binary


@pytest.fixture
def rig() -> Rig:
    rig = Rig(strategy=Maker()).start(binary(), binary("n"))
    rig.ack()
    rig.run(1)
    return rig


def test_the_account_and_one_market(rig):
    past = Past()
    past.look(rig.state, None)
    past.look(rig.state, None)
    rig.hold(Side.BUY, 5000, 10 * SHARE)
    rig.send(ev.CashMoved(ev.CashKind.FEE, -60 * USD))
    rig.run(1)
    past.look(rig.state, -1.5)
    told = past.told(rig.state, "m", [])
    assert told.keys() == get_type_hints(shapes.History).keys()
    account, market = told["account"], told["market"]
    assert len(account["ts_ms"]) == 2, "market time had not moved on between the first two"
    assert account["ts_ms"][1] - account["ts_ms"][0] == 1_000
    assert account["values"]["equity"] == [10_000.0, pytest.approx(9_941.0, abs=1)]
    assert account["values"]["drawdown"][1] == pytest.approx(59, abs=1)
    assert account["values"]["inventory"] == [0.0, 5.0]
    assert account["values"]["twin"] == [None, -1.5]
    assert market["values"]["bid"] == [0.5, 0.5]
    assert market["values"]["our_bid"][0] == 0.5
    assert market["values"]["position"] == [0.0, 10.0]
    msgspec.json.encode(told)


def test_what_is_not_there_is_none(rig):
    rig.send(ev.FeedLost(("m",), "damaged frame"))
    rig.ack()
    past = Past()
    past.look(rig.state, None)
    values = past.told(rig.state, "m", [])["market"]["values"]
    assert (values["bid"], values["ask"], values["our_bid"]) == ([None], [None], [None])
    assert past.told(rig.state, "", [])["market"] is None
    assert past.told(rig.state, "nobody", [])["market"] is None


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=400), st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_a_curve_keeps_its_bound_its_order_and_its_last_point(gaps, most):
    columns, ts, kept = Columns(("x",), "d"), 0, []
    for gap in gaps:
        ts += gap
        if columns.due(ts):
            columns.add(ts, (float(ts),), most)
            kept.append(ts)
            told = columns.told(0)
            assert len(told["ts_ms"]) == len(told["values"]["x"]) <= most
            assert told["ts_ms"][-1] == ts // 1_000_000
            assert told["values"]["x"] == sorted(told["values"]["x"])
            assert set(told["values"]["x"]) <= set(map(float, kept))


def test_a_month_is_covered_evenly(rig):
    past = Past()
    start = rig.state.now
    for second in range(0, 30 * 86_400, 300):
        rig.state.now = start + second * NS_PER_S
        past.look(rig.state, None)
    ts = past.told(rig.state, "m", [])["account"]["ts_ms"]
    assert history.POINTS / 4 < len(ts) <= history.POINTS
    gaps = [later - earlier for earlier, later in itertools.pairwise(ts)]
    assert max(gaps) <= 4 * min(gaps)
    assert ts[-1] - ts[0] > 29 * 86_400_000


def test_many_markets_share_the_room_and_those_that_go_are_forgotten(rig, monkeypatch):
    monkeypatch.setattr(history, "MARKET_POINTS_IN_ALL", 20)
    monkeypatch.setattr(history, "MARKET_POINTS_LEAST", 5)
    past = Past()
    for _ in range(50):
        rig.state.now += NS_PER_S
        past.look(rig.state, None)
    assert len(past.told(rig.state, "m", [])["market"]["ts_ms"]) <= 10
    del rig.state.markets["m"]
    rig.state.now += 1_000 * NS_PER_S
    past.look(rig.state, None)
    assert past.told(rig.state, "m", [])["market"] is None


def test_what_was_measured_of_the_models(rig):
    rig.state.skills["gpt|sports"] = Skill(weight=0.2, why="measured", signals=40, slope=0.3, trust=((0.7, 0.5), (1.0, 1.1)))
    rig.state.skills["gpt|"] = Skill(weight=0.0, measured=False, why="prior")
    first, second = Past().told(rig.state, "", [])["calibration"]
    assert (first["model"], first["category"], first["n"], first["weight"]) == ("gpt", "sports", 40, 0.2)
    assert first["confidence"] == [{"up_to": 0.7, "rho": 0.5}, {"up_to": 1.0, "rho": 1.1}]
    assert second["category"] == ""
    assert second["weight"] == rig.state.params.signals.prior_weight
