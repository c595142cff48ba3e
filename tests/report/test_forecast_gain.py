"""Intervals of a paired difference: near Student's where those hold, and covering the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from llm_maker.report.forecast_gain import (
    Rows,
    _resampled,
    block_length,
    gains,
    holm,
    interval,
    narrowed,
    questions_needed,
    widened,
)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("distance", "questions"), [(0.01, 40_000), (0.02, 10_000), (0.05, 1_600)])
def test_the_questions_that_are_needed_are_those_of_the_reference(distance, questions):
    assert questions_needed(np.full(9, 0.5), np.full(9, 0.5 - distance)) == pytest.approx(questions, rel=1e-9)
    assert questions_needed(np.full(9, 0.5), np.full(9, 0.5)) is None


def test_students_stretch_is_near_the_exact_one_and_inverts():
    for n in (5, 10, 20, 60, 1_000):
        exact = student.ppf(0.975, n - 1) * math.sqrt(n / (n - 1))
        assert widened(1.959963984540054, n) == pytest.approx(exact, rel=0.006)
        assert narrowed(widened(1.7, n), n) == pytest.approx(1.7)


def test_the_p_value_and_the_interval_are_one_statement():
    dice = np.random.default_rng(0)
    told = set()
    for _ in range(300):
        sample = dice.exponential(1, 40) - 1 + dice.choice([-0.35, 0.35])
        drawn = sample[dice.integers(0, 40, (2_000, 40))].mean(axis=1)
        low, high, p_value = interval(float(sample.mean()), drawn, 40)
        told.add(p_value < 0.05)
        if abs(p_value - 0.05) > 0.003:
            assert (low > 0 or high < 0) == (p_value < 0.05)
    assert told == {True, False}


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 2.9])
def test_the_p_value_of_few_units_is_students(distance):
    dice = np.random.default_rng(4)
    sample = dice.normal(size=12)
    sample = (sample - sample.mean()) / sample.std(ddof=1) * math.sqrt(12) + distance
    drawn = sample[dice.integers(0, 12, (40_000, 12))].mean(axis=1)
    low, high, p_value = interval(distance, drawn, 12)
    assert p_value == pytest.approx(ttest_1samp(sample, 0).pvalue, rel=0.2)
    assert (low, high) == pytest.approx((distance - student.ppf(0.975, 11), distance + student.ppf(0.975, 11)), abs=0.2)


def test_blocks_follow_one_another_round_the_end():
    at = np.concatenate(list(_resampled(50, 5.0, 400, np.random.default_rng(0))))
    assert at.shape == (400, 50)
    assert np.mean(np.diff(at, axis=1) % 50 == 1) == pytest.approx(0.8 + 0.2 / 50, abs=0.01)
    assert np.bincount(at.ravel(), minlength=50) == pytest.approx(np.full(50, 400), rel=0.25)
    alone = np.concatenate(list(_resampled(50, 1.0, 400, np.random.default_rng(0))))
    assert np.mean(np.diff(alone, axis=1) % 50 == 1) == pytest.approx(1 / 50, abs=0.01)


def test_blocks_grow_with_the_memory_of_a_series():
    dice = np.random.default_rng(1)
    steps = dice.normal(size=1_000)
    remembered = steps.copy()
    for i in range(1, 1_000):
        remembered[i] = 0.7 * remembered[i - 1] + steps[i]
    assert block_length(steps) < 4
    assert 12 < block_length(remembered) < 40
    assert block_length(np.zeros(30)) == 1


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("questions", "world"),
    [
        (20, "plain"),
        (40, "plain"),
        (120, "plain"),
        (40, "rare"),
        (120, "rare"),
        (120, "days"),
        (120, "shared days"),
        (400, "shared days"),
    ],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(questions, world):
    """1 to 5 forecasts a question. The market is off by 0.05 and the model by 0.04, rms, so the gain is 0.0009 exactly.

    `rare`: few yes, the model right, the market off by 0.3 p(1-p) either way. `days`: resampled by day; `shared days`: half of the
    market's error is one for all questions of a day and lasts into the next.
    """
    rounds, missed = 1_500, 0
    rare = np.random.default_rng(0).beta(0.6, 4, 2_000_000).clip(0.01, 0.99)
    gained = float(np.mean((0.3 * rare * (1 - rare)) ** 2)) if world == "rare" else 0.0009
    spread = max(20, questions // 3)
    for seed in range(rounds):
        dice = np.random.default_rng([11, seed])
        first = np.sort(dice.integers(0, spread, questions))
        asked = dice.integers(1, 6, questions)
        question = np.repeat(np.arange(questions), asked)
        noise = dice.normal(size=spread + 1)
        shared = ((noise[1:] + 0.6 * noise[:-1]) / math.sqrt(1.36))[first]
        own = dice.normal(size=questions)
        truth = dice.beta(0.6, 4, questions).clip(0.01, 0.99) if world == "rare" else dice.uniform(0.2, 0.8, questions)
        if world == "rare":
            market, p = truth + 0.3 * truth * (1 - truth) * np.sign(own), truth
        else:
            market = truth + 0.05 * (math.sqrt(0.5) * (shared + own) if world == "shared days" else own)
            p = truth + dice.normal(0, 0.04, questions)
        y = (dice.random(questions) < truth).astype(float)
        day = first[question] + np.concatenate([np.arange(k) for k in asked]) if "days" in world else None
        gain, _ = gains(Rows(p[question], y[question], question, day), market[question], dice, 1_000)
        missed += not gain.low <= gained <= gain.high
    print(f"{questions} questions, {world}: covers {1 - missed / rounds:.3f} of {rounds}")
    assert 0.92 <= 1 - missed / rounds <= 0.98
