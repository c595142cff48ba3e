"""The comparison of quotings: the regime file is what is simulated, the published arms come out in their order, arms are paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks import arms, published
from benchmarks.skill_runs import Plan
from llm_maker.config import load
from llm_maker.venues.paper.regimes import REGIMES

FOUND = arms.setting()


def test_the_regime_file_is_what_is_simulated():
    for name, regime in REGIMES.items():
        for key, value in FOUND.regimes[name].items():
            assert getattr(regime, key) == value, (name, key)
    assert list(FOUND.regimes) == list(REGIMES)


def test_every_arm_is_a_config_that_can_be_run():
    for arm in (arms.BASE, *FOUND.arms, *FOUND.ending_arms):
        config = load(None, {}, {**FOUND.keys(arm, 10.0), "llm.provider": "none"})
        assert config.strategy.terms.table == (arm.startswith("table")), arm
        assert arms.base_of(arm, FOUND) in ("ending base", "rewards paid", arms.BASE)


def test_an_arm_is_paired_with_itself_at_exactly_nothing(tmp_path):
    plan = Plan(regimes=("mixed",), markets=2, days=0.05)
    store, seeds = arms.Days(tmp_path, plan), range(1, 3)
    arms.work(store, 1, arms.tasks(plan, seeds, [100.0], [arms.BASE, "touch"]))
    same, other = (arms.paired(store, seeds, "mixed", 100.0, arm) for arm in (arms.BASE, "touch"))
    assert same is not None and other is not None
    assert (same.days, same.gap, same.pnl_gap, same.gap_half) == (4, 0.0, 0.0, 0.0)
    assert other.days == 4 and any(line.startswith("| mixed | 100 % | touch | 4 |") for line in arms.table([same, other], seeds))


def test_the_published_world_keeps_its_books_and_its_money():
    """Money is what was traded: cash plus position at the truth is the sum of all fills' edges when the truth stands still."""

    @dataclass
    class Still:
        noise_per_day: float = 60.0
        informed_per_day: float = 20.0
        sigma: float = 0.0
        jumps_per_day: float = 0.0
        slow_sd: float = 0.0
        slow_half_life_days: float = 1.0
        noise_impact: float = 0.0
        informed_impact: float = 0.0

    world = published.Days(Still(), 200, seed=5)  # type: ignore[arg-type]
    before = world.x.copy()
    for _ in range(300):
        world.move()
        bid, ask = world.book()
        assert (bid < ask).all()
        world.trade(bid, ask, published.touch(world, bid, ask))
    assert (world.x == before).all() and world.shares > 0
    worth = float((world.cash + world.net * published.expit(world.x)).sum())
    assert worth == pytest.approx(world.edge, rel=1e-9)
    assert (np.abs(world.net) <= published.CAP + 1e-9).all()


@pytest.mark.prove
@pytest.mark.timeout(0)
def test_the_published_arms_come_out_in_their_order():
    """9.3: (b) beats (a) in every regime by more than its interval, and the regimes stand in the same order."""
    days, found = 2_000, {}
    for number, regime in enumerate(REGIMES):
        found[regime] = {arm: published.run(regime, arm, days, 200_001 + number) for arm in published.ARMS}
    print("\n".join(published.table(found)))
    for regime, told in published.TABLE.items():
        gap = np.array(found[regime]["b"].pnl) - np.array(found[regime]["a"].pnl)
        assert gap.mean() > 1.96 * gap.std() / np.sqrt(days), regime
        for arm, number in (("a", 0), ("b", 1)):
            assert found[regime][arm].mean == pytest.approx(told[number][0], abs=0.12 * told[number][1]), (regime, arm)
            assert found[regime][arm].edge_cents == pytest.approx(told[number][2], abs=0.15), (regime, arm)
    for arm, number in (("a", 0), ("b", 1)):
        ours = sorted(published.TABLE, key=lambda r: found[r][arm].mean)
        theirs = sorted(published.TABLE, key=lambda r: published.TABLE[r][number][0])
        assert ours == theirs, arm
