"""The estimate of tokens and the cut: high enough, never over budget, never in the middle of a fence."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_maker.config_llm import Blocks
from llm_maker.llm.blocks import CLOSE, OPEN, BlockBudget, fit, tokens


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("This market will resolve to Yes if the named person wins and accepts the nomination of the party.", 18, 30),
        ("yes_price 0.4351, bid 0.4265, ask 0.4437", 22, 40),  # a digit may be a token of its own
        ("挪威奥斯陆星期五会下雨吗", 12, 18),
        ("Пойдёт ли дождь в Осло в пятницу?", 10, 40),
        ("🎲🎲🎲", 3, 9),
    ],
)
def test_the_estimate_is_high_but_of_this_world(text, least, most):
    """`least` is what the thriftiest known tokenizers make of it, or a little less."""
    assert least <= tokens(text) <= most


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_parts_never_weigh_less_than_the_whole(left, right):
    assert tokens(left + right) <= tokens(left) + tokens(right)
    assert tokens(left) <= tokens(left + right)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters() | st.sampled_from(f"{OPEN}{CLOSE} ab"), max_size=300), st.integers(0, 60))
@example(f"{OPEN}" * 50, 10)
@example("\ud800 x" * 50, 12)
def test_what_is_cut_fits_and_is_a_beginning(text, budget):
    cut = fit(text, budget)
    assert tokens(cut) <= budget
    if cut != text:
        head = cut.removesuffix(CLOSE).removesuffix("…")
        assert text.startswith(head)
        assert cut == "" or "…" in cut
    else:
        assert tokens(text) <= budget


def test_it_cuts_at_a_word_and_closes_what_it_cut_open():
    assert fit("one two three four five six", 4) == "one two…"
    assert fit("one two", 4) == "one two"
    assert fit("x" * 1000, 10) == "x" * 34 + "…", "a word that fills the room is cut in its middle"
    cut = fit(f"a {OPEN}bb cc dd ee ff gg hh ii{CLOSE}", 7)
    assert cut.count(OPEN) == cut.count(CLOSE) == 1 and cut.endswith(f"…{CLOSE}")
    assert fit("abc def", 0) == fit("abc def ghi", 1) == ""


def test_the_cut_leaves_little_room_unused():
    dice = random.Random(4)
    words = " ".join("".join(dice.choices("etaoin", k=dice.randint(1, 9))) for _ in range(2000))
    for budget in (20, 120, 300, 2000):
        assert budget - 4 <= tokens(fit(words, budget)) <= budget


def test_megabytes_are_cut_at_once():
    assert tokens(fit("word " * 2_000_000, 50)) <= 50


def test_the_budgets_are_those_of_the_config():
    assert BlockBudget(**Blocks().model_dump()) == BlockBudget()
