"""The pieces that skill is learned with, beside scikit-learn and scipy."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression

from llm_maker.core.skill import Forecast
from llm_maker.core.values import expit
from llm_maker.report import platt
from llm_maker.report.slope import rising, rows, student_quantile


def answers(seed, count, alpha, beta, *, fractional=False):
    dice = Random(seed)
    found = []
    for _ in range(count):
        x = dice.gauss(0.0, 1.5)
        p = expit(alpha + beta * x)
        found.append(platt.Answer(x, p if fractional else float(dice.random() < p), dice.choice((0.2, 0.5, 1.0))))
    return found


@pytest.mark.parametrize("prior", [platt.IDENTITY, (0.3, 0.7)])
@pytest.mark.parametrize("fractional", [False, True])
def test_platt_agrees_with_scikit_learn(prior, fractional):
    own = answers(5, 300, 0.4, 0.6, fractional=fractional)
    share = 50.0 / sum(a.weight for a in own)
    expected = [expit(prior[0] + prior[1] * a.x) for a in own]
    yes = [a.weight * (a.outcome + share * e) for a, e in zip(own, expected, strict=True)]
    no = [a.weight * (1 - a.outcome + share * (1 - e)) for a, e in zip(own, expected, strict=True)]
    x = np.array([[a.x] for a in own])
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1_000, solver="newton-cholesky")
    theirs.fit(np.vstack((x, x)), [1] * len(own) + [0] * len(own), sample_weight=yes + no)
    assert platt.fit(own, prior) == pytest.approx((theirs.intercept_[0], theirs.coef_[0][0]), abs=1e-7)


def test_platt_at_its_limits():
    assert platt.fit([]) == platt.IDENTITY
    backwards = platt.fit(answers(6, 2_000, 0.0, -1.0))
    assert backwards[1] == platt.MIN_BETA, "never turned around"
    separated = platt.fit([platt.Answer(x, float(x > 0), 1.0) for x in (-3.0, -1.0, 1.0, 3.0)])
    assert 1.0 < separated[1] < 1.2, "four questions against fifty"
    one_place = platt.fit([platt.Answer(1.0, 1.0, 1.0)] * 500)
    assert expit(sum(one_place)) == pytest.approx((500 + 50 * expit(1.0)) / 550), "only the sum can be known"
    assert one_place[0] == pytest.approx(one_place[1] - 1.0), "and it is shared alike"


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 30, 1_000])
def test_students_quantiles(freedom):
    for q in (0.95, 0.975):
        assert student_quantile(q, freedom) == pytest.approx(student.ppf(q, freedom), rel=0.002)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 3)), min_size=1, max_size=12))
def test_pooled_neighbours_are_those_of_scikit_learn(pairs):
    values, weights = zip(*pairs, strict=True)
    theirs = isotonic_regression(list(values), sample_weight=list(weights))
    assert rising(values, weights) == pytest.approx(list(theirs), abs=1e-9)


@pytest.mark.parametrize("x", [-100.0, -40.0, 40.0, 100.0])
def test_a_price_at_its_end_divides_by_nothing(x):
    told = Forecast(
        ts=0, decision_id="d", model="m", category="", instrument="i", event_id="", role="used", p_yes=0.5, confidence=0.5, bias=0,
        x_market=x, later={300: x, 3_600: -x},
    )  # fmt: skip
    (row,) = rows([told], 3_600, lambda f: 1.0)
    assert math.isfinite(row.y) and row.y * x < 0
