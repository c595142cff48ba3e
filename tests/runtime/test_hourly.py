"""The interval of a running sum: by hand, of hours that are skipped, and that it covers what it says."""

from __future__ import annotations

import math
from random import Random

import pytest

from llm_maker.runtime.hourly import HOUR_NS, Hourly


def looked(values):
    hourly = Hourly()
    for at, value in values:
        hourly.look(int(at * HOUR_NS), value)
    return hourly


def test_by_hand():
    hourly = looked([(0, 0), (0.5, 99), (1, 10), (2, 0), (3, 10), (4, 0), (5, 10)])
    mean = 10 / 5
    spread = sum((d - mean) ** 2 for d in (10, -10, 10, -10, 10)) / 5
    assert hourly.half(5 * HOUR_NS) == pytest.approx(1.96 * math.sqrt(spread * 5))
    assert hourly.half(20 * HOUR_NS) == pytest.approx(1.96 * math.sqrt(spread * 20)), "of a longer span, by the same rate"


def test_four_hours_say_nothing_and_a_steady_gain_leaves_no_doubt():
    assert looked((h, h * h) for h in range(5)).half(HOUR_NS) is None
    assert looked((h, 7 * h) for h in (0, 1, 2, 5, 6, 9)).half(9 * HOUR_NS) == pytest.approx(0.0, abs=1e-6), (
        "skipped hours count as many"
    )


def test_it_covers_what_it_says():
    dice, covered, tries = Random(11), 0, 600
    print("seed 11")
    for _ in range(tries):
        total, values = 0, [(0, 0)]
        for hour in range(1, 101):
            total += round(dice.gauss(3.0, 1_000.0))
            values.append((hour, total))
        half = looked(values).half(100 * HOUR_NS)
        assert half is not None
        covered += abs(total - 300.0) <= half
    assert 0.92 < covered / tries < 0.975
