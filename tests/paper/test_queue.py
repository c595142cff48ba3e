"""The queue models: where an order stands after prints and cancels, by hand and by property."""

import math
import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.values import NS_PER_MS
from llm_maker.venues.paper.queue import MATCH_NS, Law, Model, Queue, _left_ahead

MODEL = Law("power_prob_3")


def printed(queue, now, qty, law=MODEL):
    return queue.on_print(now, qty, (qty, qty), law)


def test_a_print_eats_the_front_and_the_rest_is_ours():
    queue = Queue.behind(100)
    assert printed(queue, 0, 60) == (0, 0)
    assert printed(queue, 1, 60) == (20, 20)
    assert (queue.adverse, queue.likely) == (0, 0)


def test_the_decrease_of_a_print_is_no_cancel_whichever_comes_first():
    after = Queue.behind(100)
    printed(after, 0, 30)
    after.on_change(10 * NS_PER_MS, 130, 100, MODEL)
    before = Queue.behind(100)
    before.on_change(0, 130, 100, MODEL)
    printed(before, 10 * NS_PER_MS, 30)
    for queue in (after, before):
        printed(queue, 2 * MATCH_NS, 0)
        assert (queue.adverse, queue.likely) == (70, 70)


def test_an_unexplained_decrease_is_a_cancel_after_half_a_second():
    queue = Queue.behind(100)
    queue.on_change(0, 200, 180, MODEL)
    assert queue.likely == 100
    printed(queue, MATCH_NS + 1, 0)
    assert queue.likely == 100 - 20 * 100**3 // 200**3
    assert queue.adverse == 100


def test_a_print_netted_by_a_refill_excuses_no_later_cancel():
    queue = Queue.behind(100)
    printed(queue, 0, 50)
    queue.on_change(MATCH_NS + 1, 100, 60, MODEL)
    printed(queue, 3 * MATCH_NS, 0)
    # 50 ahead, 50 behind, 40 cancelled: 40 x (1/2)^3 of it ahead.
    assert queue.likely == 50 - 5
    assert queue.adverse == 50


def test_nobody_stands_further_back_than_the_level_is_deep():
    queue = Queue.behind(100)
    queue.on_change(0, 100, 20, MODEL)
    printed(queue, MATCH_NS + 1, 0)
    assert (queue.adverse, queue.likely) == (20, 20)


def test_a_partly_explained_decrease_counts_each_part_once():
    queue = Queue.behind(100)
    queue.on_change(0, 100, 60, MODEL)
    printed(queue, 1, 30)
    assert (queue.adverse, queue.likely) == (60, 60)


def test_models_by_hand():
    # front 1, back 3, 64 cancelled
    assert _left_ahead(100, 300, 64, Law("power_prob_3", 3)) == 1
    assert _left_ahead(100, 300, 64, Law("power_prob_2", 3)) == 37
    assert _left_ahead(100, 300, 56, Law("power_prob", 3)) == 2
    assert _left_ahead(100, 300, 64, Law("risk_adverse", 3)) == 0
    # more than stood behind us must have stood in front
    assert _left_ahead(100, 10, 60, Law("power_prob_3", 3)) == 60 * 100**3 // 110**3 + (60 - 45 - 10)


LAWS = [Law(model, power, share) for model in get_args(Model) for power, share in ((1, 1), (3, 100))]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_every_model_is_the_formula_rounded_towards_the_back(law):
    """`quoting.md` 5.1 with fractions and floats of its own: front' = front - (1 - P) c + min(0, back - P c)."""
    dice = random.Random(7)
    for _ in range(400):
        front, back = (dice.choice((0, dice.randint(1, 9), dice.randint(1, 90_000))) for _ in range(2))
        cancelled = dice.randint(0, front + back)
        ours = _left_ahead(front, back, cancelled, law)
        if front == 0 or law.model == "risk_adverse":
            assert ours == 0
            continue
        stays = chance_behind(front, back, law)
        exact = min((1 - stays) * cancelled + max(stays * cancelled - back, 0), front)
        assert exact - 1 - 1e-6 * cancelled <= ours <= exact + 1e-9 * cancelled, (front, back, cancelled)
        assert 0 <= ours <= front and cancelled - ours <= back + 1


def chance_behind(front, back, law):
    n, total = law.power, front + back

    def log(qty):
        return math.log(1 + qty / law.share)

    return {
        "power_prob": lambda: back**n / (back**n + front**n),
        "power_prob_2": lambda: back**n / total**n,
        "power_prob_3": lambda: 1 - (front / total) ** n,
        "log_prob": lambda: log(back) / (log(back) + log(front)),
        "log_prob_2": lambda: log(back) / log(total),
    }[law.model]()


def test_the_log_models_count_shares_not_units():
    cents, micro = ((_left_ahead(100 * u, 300 * u, 64 * u, Law("log_prob", share=u)) / u) for u in (100, 1_000_000))
    assert abs(cents - micro) < 0.02
    assert abs(micro - 64 * math.log(101) / (math.log(101) + math.log(301))) < 1e-5
    assert micro > _left_ahead(100, 300, 64, Law("power_prob_3")), "the log models think better of our place"


STEP = st.tuples(st.booleans(), st.integers(0, 700), st.integers(0, 150))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.lists(STEP, max_size=30), st.sampled_from(LAWS))
def test_the_adverse_front_is_never_ahead_of_the_likely_one(level, steps, law):
    queue, now, filled = Queue.behind(level), 0, [0, 0]
    for is_print, gap_ms, size in steps:
        now += gap_ms * NS_PER_MS
        if is_print:
            over = printed(queue, now, size, law)
            filled = [have + more for have, more in zip(filled, over, strict=True)]
        else:
            queue.on_change(now, level, size, law)
            level = size
        assert 0 <= queue.likely <= queue.adverse
        assert filled[0] <= filled[1]
