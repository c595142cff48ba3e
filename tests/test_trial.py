"""Runs in memory: what a backtest says, several configs at once as each alone, no file anywhere; the simulated market."""

from __future__ import annotations

import json

import pytest

from llm_maker import lab, trial, variants
from llm_maker.config import Config, load
from llm_maker.core.events import WeightUpdated
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S, usd
from llm_maker.report.figures import figures, together
from llm_maker.report.track import Fill, Quoted, Track
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.tape import TapeError
from llm_maker.venues.paper.market import MarketParams
from llm_maker.world import simulated_analyst
from tests.test_backtest_llm import T0, make_tape

MARKET = MarketParams(seed=7, markets=2, regime="toxic", activity=60.0)


def config(**overrides) -> Config:
    return load(None, {}, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    return make_tape(tmp_path_factory.mktemp("tape") / "t.jsonl", 40, 6)


ARMS = {
    "inventory": config(),
    "touch": config(strategy__quoting="touch"),
    "skewed": config(strategy__skew_max_ticks=8),
    "unlucky": config(paper__settle_fail_pct=40.0, paper__cancel_ms=3_000),
}


def unnamed(track: Track) -> Track:
    track.label.pop("account")
    return track


def test_a_run_in_memory_says_what_the_backtest_says_and_leaves_no_file(tape, tmp_path, monkeypatch):
    told = lab.backtest(ARMS["touch"], tape, tmp_path / "home", "none")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    track = trial.run_tape(ARMS["touch"], tape)
    assert not list((tmp_path / "empty").iterdir())
    found = figures(track)
    assert (found.fills, found.orders) == (told["fills"], told["orders_placed"]) and found.fills > 10
    assert (found.pnl, found.pnl_exit) == (told["pnl_usd"], told["pnl_exit_usd"])
    assert found.capture == pytest.approx(usd(track.flows["capture"]), abs=1e-6), "the core's own sum"
    assert track.label["tape"] == "t.jsonl" and track.label["truncated"] is None


def test_configs_side_by_side_are_what_each_is_alone(tape):
    together_ = trial.run_many(ARMS, tape)
    alone = {name: trial.run_tape(one, tape) for name, one in ARMS.items()}
    assert list(together_) == list(ARMS)
    for name, track in together_.items():
        assert track.label["account"] == name
        assert unnamed(track) == unnamed(alone[name]), name
    assert alone["touch"].fills != alone["inventory"].fills and alone["unlucky"].failed_fills > 0
    assert len({track.end_ns for track in alone.values()}) > 1, "one stops long before another, and hears nothing more"


def test_another_selection_is_another_pass(tape):
    none = config(market_selection__exclude=["0x" + "ab" * 32])
    found = trial.run_many({"all": ARMS["touch"], "none": none}, tape)
    assert found["all"].fills and not found["none"].fills
    assert found["none"].counts["placed"] == 0


def test_samples_are_taken_where_they_are_wanted(tape):
    assert trial.run_tape(ARMS["touch"], tape).samples == {}
    assert trial.run_tape(ARMS["touch"], tape, sample_ns=10 * NS_PER_S).samples


def test_recorded_signals_are_heard_by_every_account(tape, tmp_path):
    said = {"market_id": "0x" + "ab" * 32, "action": "buy_yes", "confidence": 0.9, "directional_bias": "bullish", "p_yes": 0.5}
    stamp = {"timestamp": iso(T0 + NS_PER_S), "decision_id": "D-1", "model": "m", "prompt_version": "v"}
    path = tmp_path / "llm_decisions.jsonl"
    path.write_text(json.dumps({**stamp, "signals": [said]}) + "\n")
    often = {"strategy__decision_interval": 5, "strategy__signal_prior_weight": 0.5}
    configs = {"a": config(**often), "b": config(**often, strategy__quoting="touch")}
    heard, silent = trial.run_many(configs, tape, signals=path), trial.run_many(configs, tape)
    for name in configs:
        assert (heard[name].counts["signals"], silent[name].counts["signals"]) == (1, 0)
        assert heard[name].fills != silent[name].fills, name
    assert variants.variant_id(configs["a"], variants.heard(path)) != variants.variant_id(configs["a"])


def test_no_tape_is_one_line(tmp_path):
    with pytest.raises(TapeError, match=r"none\.jsonl"):
        trial.run_tape(ARMS["touch"], tmp_path / "none.jsonl")


def test_simulated_accounts_side_by_side_are_what_each_is_alone():
    arms = {name: ARMS[name] for name in ("inventory", "touch")}
    days = 150 / 86_400
    both = trial.simulate_many(arms, market=MARKET, days=days)
    for name, one in arms.items():
        alone = trial.run_simulated(one, market=MARKET, days=days)
        assert unnamed(both[name]) == unnamed(alone), name
        assert alone.fills and alone.label["simulated"] is True and alone.label["seed"] == 7
        assert alone.end_ns <= MARKET.start_ns + 150 * NS_PER_S
    assert both["touch"].equity != both["inventory"].equity


def test_an_analyst_is_heard_with_the_weight_that_is_frozen():
    advised = config(llm__simulated_skill_r2=0.3, strategy__decision_interval=10, strategy__refresh_seconds=30)
    heavy = WeightUpdated("simulated(R2=0.30)", "", Skill(weight=0.5, why="frozen"))
    days, coarse = 600 / 86_400, 5 * NS_PER_S
    plain = trial.run_simulated(advised, market=MARKET, days=days, tick_ns=coarse)
    heard = trial.run_simulated(advised, market=MARKET, days=days, tick_ns=coarse, analyst=simulated_analyst, opening=[heavy])
    assert plain.counts["signals"] == 0 and heard.counts["signals"] > 0
    assert plain.equity != heard.equity
    assert {fill.model for fill in heard.fills} >= {"simulated(R2=0.30)"}


# Figures.


def track_of(*fills: Fill, **instruments: Quoted) -> Track:
    return Track(
        label={},
        start_ns=0,
        end_ns=1,
        start_cash=100_000_000,
        equity=101_500_000,
        exit_equity=101_000_000,
        flows={"transfers": 1_000_000, "fees": -20_000},
        counts={"placed": 3},
        fills=list(fills),
        instruments=instruments,
    )


def fill(side: int, price: int, mid2: int, **marks: int) -> Fill:
    return Fill(
        ts=0,
        fill_id="f",
        order_id="o",
        instrument="m",
        side=side,
        price=price,
        qty=10_000_000,
        fee=0,
        maker=True,
        cash=0,
        position_after=0,
        mid2=mid2,
        marks={int(key[1:]): mark for key, mark in marks.items()},
    )


def test_the_figures_of_a_few_fills_by_hand():
    market = Quoted(name="m", price_scale=10_000, qty_scale=1_000_000, payout=10_000, net=-5_000_000, mid2=8_000)
    track = track_of(fill(1, 4_900, 10_000, s60=10_100), fill(-1, 5_200, 10_100), m=market)
    found = figures(track)
    assert (found.pnl, found.pnl_exit, found.fees, found.orders) == (0.5, 0.0, -0.02, 3)
    assert found.capture == pytest.approx(10 * 0.01 + 10 * 0.015)
    assert found.shares == 20 and found.markout(60) == pytest.approx(0.5), "the second fill's horizon is not reached"
    assert found.markout(300) is None, "and never 0"
    assert found.inventory == pytest.approx(5 * 0.6), "NO shares"
    assert found.drawdown == 0.0
    twice = together([found, found])
    assert (twice.pnl, twice.shares, twice.markout(60), twice.markout(300)) == (1.0, 40, found.markout(60), None)


def test_what_is_not_known_adds_nothing():
    assert figures(track_of(fill(1, 4_900, 0, s60=9_000), m=Quoted(name="m", price_scale=1, qty_scale=1, payout=1))).capture == 0
