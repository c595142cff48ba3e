"""The queue models: where an order stands after prints and cancels, by hand and by property."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.values import NS_PER_MS
from llm_maker.venues.paper.queue import MATCH_NS, Queue, _left_ahead

MODEL = "power_prob_3"


def printed(queue, now, qty, model=MODEL):
    return queue.on_print(now, qty, (qty, qty), model)


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
    assert _left_ahead(100, 300, 64, "power_prob_3", 3) == 1
    assert _left_ahead(100, 300, 64, "power_prob_2", 3) == 37
    assert _left_ahead(100, 300, 56, "power_prob", 3) == 2
    assert _left_ahead(100, 300, 64, "risk_adverse", 3) == 0
    # more than stood behind us must have stood in front
    assert _left_ahead(100, 10, 60, "power_prob_3", 3) == 60 * 100**3 // 110**3 + (60 - 45 - 10)


STEP = st.tuples(st.booleans(), st.integers(0, 700), st.integers(0, 150))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.lists(STEP, max_size=30), st.sampled_from(["power_prob", "power_prob_2", MODEL]))
def test_the_adverse_front_is_never_ahead_of_the_likely_one(level, steps, model):
    queue, now, filled = Queue.behind(level), 0, [0, 0]
    for is_print, gap_ms, size in steps:
        now += gap_ms * NS_PER_MS
        if is_print:
            over = printed(queue, now, size, model)
            filled = [have + more for have, more in zip(filled, over, strict=True)]
        else:
            queue.on_change(now, level, size, model)
            level = size
        assert 0 <= queue.likely <= queue.adverse
        assert filled[0] <= filled[1]
