"""A weight learned on the simulated venue: towards zero without skill, above zero with it; and the experiment is what it says."""

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from benchmarks import skill as bench
from benchmarks import skill_runs as runs
from benchmarks.skill_runs import Plan
from llm_maker.core.values import NS_PER_S

SMALL = Plan(
    regimes=("mixed",), training=2, testing=1, training_seed=7_000, testing_seed=9_000, skills=(0.0, 0.5), markets=2, days=0.08
)


@pytest.mark.prove
def test_a_small_experiment_runs_and_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "code", lambda: "this code")
    weights, arms = bench.bench(SMALL, tmp_path, 1)
    none, some = weights["mixed"]
    assert some.truth_low < 0.5 < some.truth_high and some.truth > 0.2, "the analyst is as skilled as he was set"
    assert some.skill.slope != none.skill.slope
    assert some.skill.event_days == none.skill.event_days == 4
    assert {(a.r2, a.name) for a in arms} == {(r2, name) for r2 in SMALL.skills for name in ("learned", "prior")}
    assert all(a.days == 2 and a.refused == 0.0 for a in arms)
    lines = (tmp_path / "skill.md").read_text().splitlines()
    assert sum(line.startswith("| mixed") for line in lines) == 2 + 4
    assert len(json.loads((tmp_path / "skill.json").read_text())["arms"]) == 4

    monkeypatch.setattr(bench, "trial", None)
    monkeypatch.setattr(bench, "learn", None)
    assert bench.bench(SMALL, tmp_path, 1) == (weights, arms), "nothing is done twice"
    with pytest.raises(SystemExit, match="another plan"):
        bench.Store(tmp_path, msgspec.structs.replace(SMALL, markets=5))


def test_the_arms_differ_in_the_weight_and_in_nothing_else():
    silent, other = (runs.trial(SMALL, "mixed", 9_001, r2, 0.0) for r2 in (0.1, 0.5))
    assert (silent.pnl, silent.edge, silent.fills) == (other.pnl, other.edge, other.fills), "without weight nobody is heard"
    witness, state = runs.run(SMALL, "mixed", 9_001, (0.5,), 0.5)
    calm, _ = runs.run(SMALL, "mixed", 9_001, (0.5,), 0.0)
    assert witness.results() != calm.results(), "with weight he is"
    assert [witness.truth(m) for m in state.markets] == [calm.truth(m) for m in state.markets], "in the same market"
    pnl, edge, shares = witness.results()
    held = sum(abs(m.position.net) for m in state.markets.values())
    assert shares > 0 and (held == 0 or pnl != edge)


def test_a_forecast_is_seen_beside_the_market_of_its_moment_and_of_later():
    lesson = runs.learn(SMALL, "mixed", 7_001)
    assert {f.model for f in lesson.forecasts} == {"simulated(R2=0.00)", "simulated(R2=0.50)"}
    end = max(f.ts for f in lesson.forecasts)
    for f in lesson.forecasts:
        assert f.simulated and f.role == "member" and f.p_yes is not None and f.instrument.startswith("7001/SIM-")
        assert (3_600 in f.later) >= (f.ts < end - 3_700 * NS_PER_S), "whoever has an hour left has the price of an hour later"
        assert 86_400 not in f.later
    apart = [abs(f.later[300] - f.x_market) for f in lesson.forecasts if 300 in f.later]
    assert 0.0 < sum(apart) / len(apart) < 0.2


@pytest.mark.prove
@pytest.mark.timeout(0)
def test_learned_weights_at_full_size(tmp_path):
    kept = os.environ.get("LLM_MAKER_PROVE_DIR")
    folder = Path(kept) / f"skill-{bench.code()}" if kept else tmp_path
    for old in folder.parent.glob("skill-*"):
        if kept and old != folder:
            shutil.rmtree(old)  # runs of other code
    plan = Plan()
    weights, arms = bench.bench(plan, folder, os.cpu_count() or 1)
    for regime, (none, *skilled) in weights.items():
        assert none.skill.slope_low <= 0.0 and none.skill.weight < 0.01, f"{regime}: no skill, no weight"
        for one in skilled:
            assert one.truth_low > 0.0, f"{regime}: R2 {one.r2} is there to be found"
            if regime != "neglected":
                # There the market's error heals in days: no price within hours tells skill from none, and none is invented.
                assert one.skill.slope_low > 0.0 and one.skill.weight > 0.0, f"{regime}: R2 {one.r2} was not found"
        found = [one.skill.weight for one in skilled]
        assert regime == "neglected" or found == sorted(found), f"{regime}: more skill, more weight"
        assert all(one.skill.weight <= max(one.truth_high, 0.0) for one in (none, *skilled)), "never more than it is worth"
    for arm in arms:
        # What the arms earn is printed with its interval and its power: at this size it is no verdict.
        assert arm.days == plan.testing * plan.markets and arm.refused < 0.01
        assert arm.weight > 0.0 or arm.edge == arm.pnl == 0.0, "without weight nothing changes"
