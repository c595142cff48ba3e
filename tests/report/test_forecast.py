"""Scores against scikit-learn and model-diagnostics, against hand-made cases, and the honesty of the intervals."""

from __future__ import annotations

import json
import math
import random

import msgspec
import numpy as np
import pytest
from model_diagnostics.scoring import LogLoss, SquaredError, decompose
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from llm_maker.report.forecast import ForecastLine, score
from llm_maker.report.forecast_page import page
from llm_maker.report.forecast_scores import (
    brier_losses,
    calibration,
    clipped,
    corp,
    equal_count_bins,
    isotonic,
    log_losses,
    reliability,
)

EXACT = 1e-9
DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US


def drawn(seed: int, n: int = 700, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Miscalibrated forecasts rounded to cents, so that many are equal, some of them 0 or 1; outcomes 0 or 1."""
    print(f"seed {seed}")
    dice = np.random.default_rng(seed)
    truth = dice.beta(0.6, 0.9, n)
    p = np.round(np.clip(truth**1.3 + dice.normal(0, 0.08, n), 0, 1), decimals)
    return p, (dice.random(n) < truth).astype(float)


def lines(p, y, market=None, model="m", days=None, names=None) -> list[ForecastLine]:
    return [
        ForecastLine(
            question_id=names[i] if names else f"q{i}",
            model=model,
            p=float(p[i]),
            market_p=None if market is None else float(market[i]),
            outcome=None if y[i] is None else float(y[i]),
            ts_us=None if days is None else START_US + int(days[i]) * DAY_US + i,
        )
        for i in range(len(p))
    ]


# Against the libraries.


@pytest.mark.parametrize("seed", range(8))
def test_scores_agree_with_scikit_learn(seed):
    p, y = drawn(seed)
    found = score(lines(p, y), resamples=200).models[0]
    q = np.clip(p, 0.01, 0.99)
    assert found.brier == pytest.approx(brier_score_loss(y, p), abs=EXACT)
    assert found.log_score == pytest.approx(log_loss(y, q), abs=EXACT)
    assert isotonic(p, y) == pytest.approx(IsotonicRegression().fit(p, y).predict(p), abs=EXACT)
    logit = np.log(q / (1 - q))[:, None]
    oracle = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1_000).fit(logit, y)
    assert found.calibration.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-8)
    assert found.calibration.intercept == pytest.approx(oracle.intercept_[0], abs=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_the_decomposition_agrees_with_model_diagnostics(seed):
    p, y = drawn(seed)
    found = score(lines(p, y), resamples=200).models[0]
    for ours, forecast, rule in (
        (found.brier_parts, p, SquaredError()),
        (found.log_parts, np.clip(p, 0.01, 0.99), LogLoss()),
    ):
        told = decompose(y_obs=y, y_pred=forecast, scoring_function=rule).row(0, named=True)
        for name in ("score", "miscalibration", "discrimination", "uncertainty"):
            assert getattr(ours, name) == pytest.approx(told[name], abs=EXACT), name
        assert ours.miscalibration - ours.discrimination + ours.uncertainty == pytest.approx(ours.score, abs=1e-15)
        assert min(ours.miscalibration, ours.discrimination) >= 0


@pytest.mark.parametrize("seed", range(4))
def test_the_decomposition_of_split_outcomes_agrees_too(seed):
    p, y = drawn(seed)
    y[::7] = np.random.default_rng(seed).choice([0.5, 0.25], len(y[::7]))
    told = decompose(y_obs=y, y_pred=p, scoring_function=SquaredError()).row(0, named=True)
    assert msgspec.to_builtins(corp(p, y, brier_losses)) == pytest.approx(
        {k: told[k] for k in corp(p, y, brier_losses).__struct_fields__}
    )
    # LogLoss there subtracts the outcome's own entropy, which the parts that are differences do not see.
    log = corp(clipped(p), y, log_losses)
    told = decompose(y_obs=y, y_pred=np.clip(p, 0.01, 0.99), scoring_function=LogLoss()).row(0, named=True)
    assert log.miscalibration == pytest.approx(told["miscalibration"], abs=EXACT)
    assert log.discrimination == pytest.approx(told["discrimination"], abs=EXACT)


def test_equal_count_bins_are_those_of_scikit_learn_where_nothing_ties():
    dice = np.random.default_rng(3)
    p = dice.random(1_000)
    y = (dice.random(1_000) < p).astype(float)
    observed, forecast = calibration_curve(y, p, n_bins=10, strategy="quantile")
    curve = reliability(p, y, np.arange(1_000), np.random.default_rng(0), 200)
    assert [b.n for b in curve.bins] == [100] * 10
    assert [b.forecast for b in curve.bins] == pytest.approx(forecast, abs=EXACT)
    assert [b.observed for b in curve.bins] == pytest.approx(observed, abs=EXACT)
    assert curve.ece == pytest.approx(np.abs(observed - forecast).mean(), abs=EXACT)


# By hand.


def test_four_forecasts_by_hand():
    found = score(lines([0.9, 0.2, 0.6, 0.4], [1, 0, 0, 1]), resamples=200).models[0]
    assert (found.n, found.base_rate) == (4, 0.5)
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
    assert found.log_score == pytest.approx(-(math.log(0.9) + math.log(0.8) + 2 * math.log(0.4)) / 4)
    # Isotonic: 0, then 0.4 and 0.6 pooled to 0.5, then 1.
    parts = found.brier_parts
    assert (parts.miscalibration, parts.discrimination, parts.uncertainty) == pytest.approx((0.0675, 0.125, 0.25))
    assert found.log_parts.uncertainty == pytest.approx(math.log(2))
    assert found.log_parts.discrimination == pytest.approx(math.log(2) / 2)
    assert found.reliability.ece == pytest.approx((0.1 + 0.2 + 0.6 + 0.6) / 4)
    assert found.sharpness == pytest.approx(math.sqrt((0.375**2 + 0.325**2 + 0.075**2 + 0.125**2) / 4))


def test_certain_and_wrong_is_held_at_the_clip_and_a_split_outcome_is_expected():
    assert log_losses(clipped(np.array([0.0, 1.0])), np.array([1.0, 0.0])) == pytest.approx([-math.log(0.01)] * 2)
    assert log_losses(np.array([0.0, 1.0]), np.array([0.0, 1.0])).tolist() == [0, 0]
    assert log_losses(np.array([0.2]), np.array([0.5])) == pytest.approx([-(math.log(0.2) + math.log(0.8)) / 2])
    found = score(lines([0.2, 0.7], [0.5, 1]), resamples=200).models[0]
    assert found.split == 1
    assert found.brier == pytest.approx((0.09 + 0.09) / 2)


def test_equal_forecasts_share_a_bin_whatever_the_order():
    p = np.array([0.1] * 7 + [0.5] * 2 + [0.9] * 11)
    assert equal_count_bins(p).tolist() == [0] * 7 + [1] * 2 + [2] * 11
    # By the middle rank: 1.5 of 20 is in the first tenth, though the last of the two is not.
    assert equal_count_bins(np.array([0.1] + [0.2] * 2 + [0.3] * 17)).tolist() == [0] * 3 + [1] * 17
    order = np.random.default_rng(0).permutation(len(p))
    assert (equal_count_bins(p[order]) == equal_count_bins(p)[order]).all()
    assert set(equal_count_bins(np.full(50, 0.3)).tolist()) == {0}


def test_slopes_that_do_not_exist_say_why():
    question = np.arange(4)
    y = np.array([0.0, 0.0, 1.0, 1.0])
    for p, outcomes, why in (
        ([0.3] * 4, y, "the same"),
        ([0.1, 0.2, 0.3, 0.4], np.zeros(4), "every outcome"),
        ([0.1, 0.2, 0.3, 0.4], y, "threshold"),
        ([0.1, 0.3, 0.3, 0.4], y, "threshold"),
        ([0.4, 0.3, 0.2, 0.1], y, "threshold"),
        ([0.0, 0.001, 0.005, 0.01], np.array([0.0, 1.0, 0.0, 1.0]), "the same"),
    ):
        found = calibration(np.array(p), outcomes, question)
        assert found.slope is None
        assert why in found.why
    # Odds told 1:4 and 4:1, seen 1:2 and 2:1: the slope is ln 2 / ln 4.
    p, y = np.array([0.2] * 3 + [0.8] * 3), np.array([0, 0, 1, 1, 1, 0.0])
    found = calibration(p, y, np.arange(6))
    assert (found.slope, found.intercept) == pytest.approx((0.5, 0), abs=1e-12)
    # In units of ln 4: information 6 (1/3)(2/3) = 4/3, squared scores 4 (1/3)^2 + 2 (2/3)^2 = 4/3.
    assert found.slope_error == pytest.approx(math.sqrt(3 / 4) / math.log(4), abs=1e-12)
    one_question = calibration(p, y, np.array([0, 0, 1, 2, 2, 3]))
    assert one_question.slope_error == pytest.approx(
        math.sqrt((2 * (2 / 3) ** 2 + 2 * (2 / 3) ** 2) * 9 / 16) / math.log(4), abs=1e-12
    )


def test_a_slope_does_not_overflow_where_outcomes_nearly_part():
    p = np.concatenate([np.linspace(0.02, 0.5, 500), np.linspace(0.49999, 0.98, 500)])
    found = calibration(p, np.repeat([0.0, 1.0], 500), np.arange(1_000))
    assert found.slope is not None
    assert found.slope > 50
    close = calibration(np.array([0.5, 0.5 + 1e-9, 0.5 + 2e-9, 0.5]), np.array([0.0, 1, 0, 1]), np.arange(4))
    assert close.slope is not None


# Against the market and one another.


def priced(seed: int, questions: int, skill: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p, y, market): p lies `skill` of the way from the market to the truth, with a little noise."""
    print(f"seed {seed}")
    dice = np.random.default_rng(seed)
    truth = dice.uniform(0.05, 0.95, questions)
    market = np.clip(truth + dice.normal(0, 0.15, questions), 0.02, 0.98)
    p = np.clip(market + skill * (truth - market) + dice.normal(0, 0.01, questions), 0.01, 0.99)
    return p, (dice.random(questions) < truth).astype(float), market


def gain_of(rows, **more):
    return score(rows, resamples=500, **more).models[0].market.brier_gain


def test_the_gain_is_the_difference_of_the_two_scores():
    p, y, market = priced(1, 200, 0.5)
    found = score(lines(p, y, market), resamples=300).models[0].market
    assert found.brier_gain.mean == pytest.approx(brier_score_loss(y, market) - brier_score_loss(y, p), abs=EXACT)
    assert found.log_gain.mean == pytest.approx(log_loss(y, market) - log_loss(y, p), abs=EXACT)
    assert found.market_brier - found.brier == pytest.approx(found.brier_gain.mean, abs=EXACT)
    assert found.rms_difference == pytest.approx(math.sqrt(np.mean((p - market) ** 2)))


def test_better_worse_and_cannot_be_told():
    p, y, market = priced(2, 600, 0.9)
    assert gain_of(lines(p, y, market)).verdict == "better"
    assert gain_of(lines(market, y, p)).verdict == "worse"
    dice = np.random.default_rng(5)
    noise = np.clip(market + dice.normal(0, 0.005, 600), 0, 1)
    assert gain_of(lines(noise, y, market)).verdict == "cannot be told"
    same = gain_of(lines(market, y, market))
    assert (same.verdict, same.mean, same.low, same.high) == ("none", 0, 0, 0)


def test_fewer_than_twenty_questions_or_days_have_an_interval_but_no_verdict():
    p, y, market = priced(2, 600, 1.0)
    few = gain_of(lines(p[:19], y[:19], market[:19]))
    assert (few.verdict, few.units) == ("none", 19)
    assert "19 questions" in few.why
    assert few.low < few.mean < few.high
    assert gain_of(lines(p, y, market, days=np.arange(600) % 2)).why == "questions of 2 days, at least 20 are needed"
    days = gain_of(lines(p, y, market, days=np.arange(600) // 10))
    assert (days.unit, days.units, days.verdict) == ("day", 60, "better")
    assert gain_of(lines(p, y, market, days=np.arange(600) // 30)).unit == "day"
    assert gain_of(lines(p, y, market, days=np.arange(600) // 32)).unit == "question"
    assert days.block >= 2
    one = gain_of(lines(p[:1], y[:1], market[:1]))
    assert (one.low, one.high, one.p_value, one.verdict) == (None, None, None, "none")


def test_asking_a_question_again_adds_no_certainty():
    p, y, market = priced(3, 60, 0.5)
    once = gain_of(lines(p, y, market))
    names = [f"q{i}" for i in range(60)] * 8
    often = lines(np.tile(p, 8), np.tile(y, 8), np.tile(market, 8), days=np.repeat(np.arange(8), 60), names=names)
    again = gain_of(often)
    assert (again.n, again.questions, again.units) == (480, 60, 60)
    assert (again.low, again.high) == pytest.approx((once.low, once.high), rel=0.15)
    # The band knows it as well: eight copies of an outcome are one throw.
    alone, copied = (score(rows, resamples=2_000).models[0].reliability.bins for rows in (lines(p, y, market), often))
    width = [sum(b.high - b.low for b in bins) for bins in (alone, copied)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_neither_the_order_of_rows_nor_another_model_changes_a_number():
    p, y, market = priced(4, 120, 0.3)
    mine = lines(p, y, market, days=np.arange(120) // 4)
    other = lines(np.clip(p + 0.05, 0, 1), y, market, model="other", days=np.arange(120) // 4)
    both = mine + other
    told = score(both, seed=3, resamples=300)
    random.Random(0).shuffle(both)
    assert msgspec.to_builtins(score(both, seed=3, resamples=300)) == msgspec.to_builtins(told)
    alone = score(mine, seed=3, resamples=300).models[0]
    beside = next(m for m in told.models if m.model == "m")
    assert beside.reliability == alone.reliability
    assert (beside.market.brier_gain.low, beside.market.brier_gain.high) == (
        alone.market.brier_gain.low,
        alone.market.brier_gain.high,
    )
    assert score(mine, seed=4, resamples=300).models[0].market.brier_gain.low != alone.market.brier_gain.low


def test_one_of_many_models_needs_more_than_its_own_interval():
    found = None
    for seed in range(40):
        p, y, market = priced(seed, 150, 0.4)
        alone = score(lines(p, y, market), resamples=500).models[0].market.brier_gain
        if alone.verdict == "better" and 0.015 < alone.p_value < 0.045:
            found = seed
            break
    assert found is not None
    dice = np.random.default_rng(9)
    rows = lines(p, y, market)
    for k in range(6):
        rows += lines(np.clip(market + dice.normal(0, 0.01, 150), 0, 1), y, market, model=f"noise {k}")
    gain = next(m for m in score(rows, resamples=500).models if m.model == "m").market.brier_gain
    assert gain.low > 0
    assert gain.p_value == alone.p_value
    assert gain.p_value < 0.05 < gain.p_holm
    assert gain.verdict == "cannot be told"


def test_the_best_two_meet_where_both_answered():
    p, y, market = priced(6, 300, 0.9)
    rows = lines(p, y, market, model="good") + lines(market, y, market, model="copy")[:200]
    rows += lines(1 - p, y, market, model="contrary")
    found = score(rows, resamples=300)
    pair = found.best_two
    assert {pair.first, pair.second} == {"good", "copy"}
    assert pair.brier_gain.n == 200
    sign = 1 if pair.first == "good" else -1
    assert sign * pair.brier_gain.mean == pytest.approx(np.mean((market - y)[:200] ** 2 - (p - y)[:200] ** 2), abs=EXACT)
    assert not found.same_rows
    apart = lines(p, y, market, model="a", days=np.zeros(300)) + lines(p, y, market, model="b", days=np.ones(300))
    assert score(apart, resamples=200).best_two is None


def test_pending_and_unpriced_rows_are_counted():
    rows = [
        ForecastLine("a", "m", 0.5, 0.5, None),
        ForecastLine("b", "m", 0.5, None, 1.0),
        ForecastLine("c", "m", 0.5, 0.4, 1.0),
        ForecastLine("d", "silent", 0.5, 0.4, None),
    ]
    found = score(rows, resamples=200)
    assert (found.rows, found.resolved, found.pending, found.unpaired, found.silent) == (4, 2, 2, 1, ("silent",))
    assert (found.models[0].n, found.models[0].pending, found.models[0].market.n) == (2, 1, 1)
    assert score(rows[:1]).models == ()


# The page.


def test_the_page_says_what_matters_and_fits():
    p, y, market = priced(7, 200, 0.9)
    rows = lines(p, y, market, model="good") + lines(1 - p, y, market, model="a model with a name that is far too long for a table")
    rows += lines([0.5] * 3, [None, 0.5, 1], model="unpriced")
    found = score(rows, resamples=300)
    told = page(found, "some.csv")
    text = "\n".join(told)
    for words in (
        "403 forecasts, 402 resolved, 1 pending",
        "optimistic",
        "Holm p",
        "better",
        "worse",
        "no market price in any row",
        "the models did not forecast the same rows",
        "2 resolved rows without market_p",
        "1 row with an outcome between 0 and 1",
        "not every row tells its time",
        "●",
        "○",
        "│",
        "·",
    ):
        assert words in text, words
    assert max(len(line) for line in told) <= 135
    json.dumps(msgspec.to_builtins(found), allow_nan=False)
