"""The statistics of the report against arch, empyrical and statsmodels, closed forms, and the truth they estimate."""

import math
import warnings
from random import Random

import empyrical
import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from arch.bootstrap import optimal_block_length as arch_block
from scipy import stats
from statsmodels.api import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from llm_maker.report import metrics

SEED = 20_261_121


def series(seed, n, *, phi=0.0, level=0.1):
    """Skewed, of autocorrelation `phi`."""
    dice = np.random.default_rng(seed)
    x = dice.gamma(1.0, 1.0, n) - 1.0
    for i in range(1, n):
        x[i] += phi * x[i - 1]
    return x + level


def test_ratios_are_those_of_empyrical():
    print("seed", SEED)
    for k in range(30):
        x = series(SEED + k, 2 + 17 * k) * 0.01
        year = math.sqrt(365)
        assert metrics.sharpe(list(x)) * year == pytest.approx(empyrical.sharpe_ratio(x, annualization=365), abs=1e-9)
        assert metrics.sortino(list(x)) * year == pytest.approx(empyrical.sortino_ratio(x, annualization=365), abs=1e-9)


def test_drawdown_is_that_of_empyrical():
    print("seed", SEED)
    for k in range(30):
        x = series(SEED + k, 2 + 17 * k) * 0.01
        wealth = [1.0, *np.cumprod(1.0 + x)]
        found = metrics.max_drawdown(wealth)
        assert found.share == pytest.approx(-empyrical.max_drawdown(x), abs=1e-9)
        assert found.amount == pytest.approx(max(max(wealth[: i + 1]) - w for i, w in enumerate(wealth)), abs=1e-12)


def test_a_drawdown_of_pnl_that_began_below_zero_has_an_amount_and_no_share():
    assert metrics.max_drawdown([-5, -9, -2, -4]) == metrics.Drawdown(4.0, None)


def test_nothing_is_said_of_too_little():
    alike = [0.1] * 50
    for short in ([], [1.0]):
        assert metrics.sharpe(short) is metrics.sortino(short) is metrics.psr(short) is None
        assert metrics.bootstrap(short) is metrics.diebold_mariano(short) is None
    assert metrics.sharpe(alike) is metrics.sortino(alike) is metrics.psr(alike) is metrics.diebold_mariano(alike) is None
    assert metrics.bootstrap([0.25] * 50) == metrics.Interval(0.25, 0.25, 0.25)
    assert metrics.bootstrap([1.0, 2.0, 3.0, 4.0]) is None
    assert metrics.max_drawdown([]) is metrics.wilson(0, 0) is metrics.deflated_sharpe([1.0, 2.0, 4.0], []) is None


def test_a_year_is_not_made_of_a_month():
    assert metrics.annualised(0.1, 29.9) is None
    assert metrics.annualised(None, 400) is None
    assert metrics.annualised(0.1, 30) == pytest.approx(0.1 * math.sqrt(365))


def test_the_block_length_is_that_of_arch():
    print("seed", SEED)
    dice = Random(SEED)
    for k in range(80):
        x = series(SEED + k, dice.randint(11, 400), phi=dice.uniform(-0.6, 0.97))
        theirs = float(arch_block(x)["stationary"].iloc[0])
        assert metrics.optimal_block_length(list(x)) == pytest.approx(theirs, abs=1e-9)


def test_short_and_flat_series_have_a_block_too():
    for flat in ([], [1.0], [1.0, 1.0], [1.0] * 40):
        assert metrics.optimal_block_length(flat) == 1.0
    for x in ([0.0, 1.0, 0.0], [1.0, -1.0] * 20, [1.0] + [0.0] * 9):
        assert 0.0 <= metrics.optimal_block_length(x) <= len(x) / 2, x


@pytest.mark.parametrize("stat", ["mean", "sharpe"])
def test_the_interval_is_that_of_arch(stat):
    print("seed", SEED)
    ours, theirs = {
        "mean": (metrics.mean, lambda x: np.array([x.mean()])),
        "sharpe": (metrics.sharpe, lambda x: np.array([x.mean() / x.std(ddof=1)])),
    }[stat]
    resamples = 8_000 if stat == "mean" else 2_000
    for n, block in ((40, 2.0), (120, 6.0)):
        x = series(SEED + n, n, phi=0.4)
        found = metrics.bootstrap(x, ours, block=block, resamples=resamples, seed=1)
        low, high = StationaryBootstrap(block, x, seed=2).conf_int(theirs, resamples, method="bca").ravel()
        # A 2.5 % quantile of R resamples has a standard error of about 2.7 sd / sqrt(R); the bias correction adds as much.
        room = 5 * 2.7 * (high - low) / 3.92 / math.sqrt(resamples) * 1.5
        assert found.value == pytest.approx(theirs(x)[0], abs=1e-12)
        assert abs(found.low - low) < room and abs(found.high - high) < room, (n, found, low, high, room)


def test_the_interval_is_skewed_as_the_values_are():
    x = np.random.default_rng(SEED).gamma(0.5, 1.0, 60)
    found = metrics.bootstrap(x, block=1.0)
    assert found.high - found.value > 1.15 * (found.value - found.low)
    mirrored = metrics.bootstrap(-x, block=1.0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_the_same_seed_gives_the_same_interval():
    x = series(SEED, 50)
    assert metrics.bootstrap(x, seed=7) == metrics.bootstrap(x, seed=7)
    assert metrics.bootstrap(x, seed=7) != metrics.bootstrap(x, seed=8)


def test_resampling_in_pieces_changes_only_the_dice(monkeypatch):
    x = series(SEED, 50)
    whole = metrics.bootstrap(x, resamples=4_000)
    monkeypatch.setattr(metrics, "_CHUNK", 777)
    pieces = metrics.bootstrap(x, resamples=4_000)
    assert pieces.low == pytest.approx(whole.low, abs=0.1 * (whole.high - whole.low))


def test_blocks_widen_the_interval_of_a_series_that_trends():
    x = series(SEED, 300, phi=0.8)
    alone, together = metrics.bootstrap(x, block=1.0), metrics.bootstrap(x)
    assert together.high - together.low > 1.6 * (alone.high - alone.low)


def test_days_on_which_mostly_nothing_happened_have_an_interval():
    x = [0.0] * 50 + [1.0]
    found = metrics.bootstrap(x)
    assert found.low <= found.value <= found.high and found.low >= 0.0


def coverage(phi, n, runs, **given):
    truth = 0.1
    hits = 0
    for k in range(runs):
        x = series(SEED + k, n + 50, phi=phi, level=0.0)[50:] + truth
        found = metrics.bootstrap(x, seed=k, **given)
        hits += found.low <= truth <= found.high
    return metrics.wilson(hits, runs)


@pytest.mark.prove
def test_ninety_five_in_a_hundred_intervals_hold_the_truth():
    """Nearly, of independent days; 60 that hang together cover less than they say, with arch's BCa as with ours."""
    print("seed", SEED)
    for phi, n, at_least in ((0.0, 60, 0.91), (0.0, 240, 0.925), (0.4, 60, 0.83), (0.4, 240, 0.90)):
        found = coverage(phi, n, 1_000)
        print(f"phi {phi} n {n}: coverage {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
        assert found.high > at_least and found.low < 0.97, (phi, n, found)


def test_wilson_is_that_of_statsmodels():
    for wins, n in ((0, 1), (0, 20), (20, 20), (7, 31), (510, 1_000)):
        found = metrics.wilson(wins, n)
        assert (found.low, found.high) == pytest.approx(proportion_confint(wins, n, method="wilson"), abs=1e-9)
        assert found.value == wins / n


def test_psr_is_the_formula_with_the_moments_of_scipy():
    print("seed", SEED)
    for k in range(20):
        x = series(SEED + k, 20 + 20 * k)
        ratio = x.mean() / x.std(ddof=1)
        room = 1 - stats.skew(x) * ratio + (stats.kurtosis(x, fisher=False) - 1) / 4 * ratio**2
        expected = stats.norm.cdf((ratio - 0.05) * math.sqrt(len(x) - 1) / math.sqrt(room))
        assert metrics.psr(list(x), 0.05) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "factor"), [(10, 1.57), (20, 1.90), (100, 2.53)])
def test_the_best_of_worthless_tries(n, factor):
    assert metrics.null_best_sharpe(1.0, n) == pytest.approx(factor, abs=0.005)
    best = np.random.default_rng(SEED).normal(size=(20_000, n)).max(axis=1).mean()
    assert metrics.null_best_sharpe(1.0, n) == pytest.approx(best, rel=0.03)


def test_many_tries_deflate_and_one_does_not():
    x = list(series(SEED, 60, level=0.25))
    alone = metrics.psr(x)
    assert metrics.deflated_sharpe(x, [metrics.sharpe(x)]) == alone
    few, many = ([0.1 * (-1) ** k for k in range(n)] for n in (4, 100))
    assert metrics.deflated_sharpe(x, many) < metrics.deflated_sharpe(x, few) < alone
    assert metrics.null_best_sharpe(1 / math.sqrt(60), 20) == pytest.approx(0.25, abs=0.005)  # `quoting.md` 6.6


@pytest.mark.prove
def test_holm_is_that_of_statsmodels():
    dice = Random(SEED)
    for n in (1, 2, 7, 30):
        given = [dice.random() ** 3 for _ in range(n)]
        assert metrics.holm(given) == pytest.approx(list(multipletests(given, method="holm")[1]), abs=1e-12)
    assert metrics.holm([]) == []


def test_diebold_mariano_is_the_regression_on_a_constant_of_statsmodels():
    print("seed", SEED)
    for k, lag in ((0, 0), (1, 1), (2, 5), (3, 3)):
        x = series(SEED + k, 60 + 40 * k, phi=0.3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = OLS(x, np.ones(len(x))).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False})
        found = metrics.diebold_mariano(list(x), lag)
        assert found == pytest.approx((float(fit.tvalues[0]), float(fit.pvalues[0])), abs=1e-9)
    x = list(series(SEED, 100))
    assert metrics.diebold_mariano(x) == metrics.diebold_mariano(x, 4)
