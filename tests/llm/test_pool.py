"""Several opinions made into one: weights, log-odds, votes and their ties; the order of the models never matters."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.skill import Skill
from llm_maker.core.values import expit, logit
from llm_maker.llm.answer import MAX_PROSE
from llm_maker.llm.pool import MEASURED_SIGNALS, Voice, parts, pool, weights

WEATHER = {"0xa": "weather"}


def signal(market="0xa", action=Action.HOLD, confidence=0.6, bias=Bias.NEUTRAL, **changed):
    return Signal(market, action, confidence, bias, **changed)


def measured(weight, signals=MEASURED_SIGNALS, **changed):
    return Skill(**{"weight": weight, "slope": weight, "signals": signals} | changed)


def one(*voices, skills=None, mode="pool"):
    (made,) = pool([Voice(f"p/{name}", (said,)) for name, said in voices], skills or {}, WEATHER, mode)
    return made


def test_the_mean_is_in_log_odds_and_disagreement_is_its_standard_deviation():
    made = one(("a", signal(p_yes=0.9)), ("b", signal(p_yes=0.5)))
    assert made.p_yes == pytest.approx(0.75) and made.disagreement == pytest.approx(math.log(3))
    assert made.p_low is made.p_high is None, "nobody gave an interval"
    assert one(("a", signal(p_yes=0.3)), ("b", signal(p_yes=0.3))).disagreement == pytest.approx(0, abs=1e-12)


def test_weights_as_measured_and_the_mean_of_them_for_the_unmeasured():
    skills = {"a|": measured(0.3), "b|weather": measured(0.1), "b|": measured(0.5), "c|": measured(0.9, MEASURED_SIGNALS - 1)}
    assert weights(["a", "b", "c"], skills, "weather") == pytest.approx((0.5, 1 / 6, 1 / 3))
    assert weights(["a", "b"], skills, "sports") == pytest.approx((0.375, 0.625)), "where a category has no record, all of them"
    assert weights(["c", "d"], skills, "weather") == (0.5, 0.5), "none measured"
    assert weights(["e", "f", "g"], {"e|": measured(0.0), "f|": measured(0.0)}, "") == pytest.approx((1 / 3,) * 3), "all are 0"
    assert weights(["a", "e"], {**skills, "e|": measured(0.0)}, "") == (1.0, 0.0)
    made = one(("a", signal(p_yes=0.9)), ("b", signal(p_yes=0.5)), skills={"p/a|": measured(0.3), "p/b|": measured(0.1)})
    x = 0.75 * logit(0.9)
    assert made.p_yes == pytest.approx(expit(x))
    assert made.disagreement == pytest.approx(math.sqrt(0.75 * (logit(0.9) - x) ** 2 + 0.25 * x**2))


def test_each_is_calibrated_before_the_pool():
    skills = {"p/a|": measured(0.2, platt=(0.5, 0.5)), "p/b|": measured(0.2)}
    made = one(("a", signal(p_yes=0.9)), ("b", signal(p_yes=0.6)), skills=skills)
    assert made.p_yes == pytest.approx(expit((0.5 + 0.5 * logit(0.9) + logit(0.6)) / 2))


def test_the_interval_has_each_ones_doubt_and_their_quarrel():
    made = one(("a", signal(p_yes=0.9, p_low=0.8, p_high=0.95)), ("b", signal(p_yes=0.5, p_low=0.4, p_high=0.6)))
    a, b = (logit(0.95) - logit(0.8)) / 2, (logit(0.6) - logit(0.4)) / 2
    half = math.sqrt((a**2 + b**2) / 2 + math.log(3) ** 2)
    assert made.p_low == pytest.approx(expit(math.log(3) - half)) and made.p_high == pytest.approx(expit(math.log(3) + half))
    lone = one(("a", signal(p_yes=0.9, p_high=0.95)), ("b", signal(p_yes=0.9)))
    assert lone.p_high == pytest.approx(0.95) and lone.p_low < 0.9, "one end stands for both"


def test_one_alone_keeps_its_words_and_only_its_probabilities_are_calibrated():
    said = signal(p_yes=0.9, p_low=0.8, p_high=0.95, reasoning="why", stop_ratio=0.2, target_ratio=0.3, share=0.4)
    assert one(("a", said)) == said
    made = one(("a", said), skills={"p/a|": Skill(weight=0.1, platt=(0.2, 0.5))})
    assert made.p_yes == pytest.approx(expit(0.2 + 0.5 * logit(0.9))) and made.p_low < made.p_yes < made.p_high
    assert msgspec.structs.replace(made, p_yes=0.9, p_low=0.8, p_high=0.95) == said
    turned = one(("a", said), skills={"p/a|": Skill(weight=0.1, platt=(0.0, -1.0))})
    assert turned.p_low < turned.p_yes < turned.p_high, "a model that is wrong more often than not"
    assert one(("a", said), mode="vote") == msgspec.structs.replace(said, p_yes=None, p_low=None, p_high=None)
    together = one(("a", said), ("b", said))
    assert together.stop_ratio is together.target_ratio is None and together.share == pytest.approx(0.4)


def test_a_vote_goes_to_the_weight_and_confidence_to_those_who_won():
    skills = {"p/a|": measured(0.3), "p/b|": measured(0.2), "p/c|": measured(0.2)}
    made = one(
        ("a", signal(action=Action.BUY_YES, confidence=0.9, bias=Bias.BULLISH, risk_level=Grade.LOW, reasoning="up")),
        ("b", signal(action=Action.SELL_YES, confidence=0.8, bias=Bias.BEARISH, risk_level=Grade.HIGH, reasoning="down")),
        ("c", signal(action=Action.SELL_YES, confidence=0.5, bias=Bias.BEARISH, risk_level=Grade.HIGH, reasoning="fall")),
        skills=skills,
    )
    assert (made.action, made.directional_bias, made.risk_level) == (Action.SELL_YES, Bias.BEARISH, Grade.HIGH)
    assert made.confidence == pytest.approx((0.2 * 0.8 + 0.2 * 0.5) / 0.7)
    assert made.reasoning == "[b] down [c] fall"


def test_a_tie_goes_to_the_careful_side():
    up = signal(action=Action.BUY_YES, confidence=0.9, bias=Bias.BULLISH, risk_level=Grade.LOW, priority=Grade.LOW, reasoning="up")
    out = signal(
        action=Action.EXIT, confidence=0.9, bias=Bias.BEARISH, risk_level=Grade.HIGH, priority=Grade.MEDIUM, reasoning="out"
    )
    made = one(("a", up), ("b", out))
    assert (made.action, made.directional_bias, made.risk_level, made.priority) == (
        Action.HOLD,
        Bias.NEUTRAL,
        Grade.HIGH,
        Grade.MEDIUM,
    )
    assert made.confidence == 0.0 and made.reasoning == "[a] up [b] out", "nobody won, both are heard"
    hold = one(("a", up), ("b", signal(confidence=0.7)))
    assert hold.action is Action.HOLD and hold.confidence == pytest.approx(0.35)
    fourth = {f"p/{name}|": measured(weight) for name, weight in (("a", 0.05), ("b", 0.05), ("c", 0.3), ("d", 0.4))}
    voices = (("a", up), ("b", up), ("c", up), ("d", out))
    assert one(*voices, skills=fourth).action is Action.HOLD, "0.05 + 0.05 + 0.3 against 0.4, whatever floats say"


def test_who_is_absent_from_a_market_has_no_voice_there():
    voices = [Voice("p/a", (signal("0xa", p_yes=0.9), signal("0xb", p_yes=0.2))), Voice("p/b", (signal("0xa", p_yes=0.5),))]
    categories = {"0xc": "x", "0xb": "x", "0xa": "x"}
    made = pool(voices, {}, categories, "pool")
    assert [m.market_id for m in made] == ["0xb", "0xa"] and made[0].p_yes == 0.2 and made[0].disagreement == 0
    assert parts(voices, {}, categories) == pytest.approx((0.75, 0.25))
    mute = one(("a", signal(p_yes=0.9)), ("b", signal()))
    assert mute.p_yes == pytest.approx(0.9), "a probability that was not given does not count as a half"
    worthless = one(("a", signal(p_yes=0.9)), ("b", signal()), skills={"p/a|": measured(0.0), "p/b|": measured(0.2)})
    assert worthless.p_yes == pytest.approx(0.9)
    assert pool([], {}, categories, "pool") == () and parts([], {}, categories) == ()


def test_vote_mode_lets_only_the_vote_speak():
    made = one(("a", signal(p_yes=0.9, p_low=0.8, p_high=0.95)), ("b", signal(p_yes=0.5)), mode="vote")
    assert made.p_yes is made.p_low is made.p_high is None and made.disagreement == pytest.approx(math.log(3))


def test_shares_are_averaged_and_never_more_than_the_whole():
    made = one(("a", signal(share=0.2)), ("b", signal(share=0.4)), ("c", signal()))
    assert made.share == pytest.approx(0.3) and one(("a", signal()), ("b", signal())).share is None
    voices = [Voice("p/a", (signal("0xa", share=1.0),)), Voice("p/b", (signal("0xb", share=0.6), signal("0xc")))]
    both = pool(voices, {}, {"0xa": "", "0xb": "", "0xc": ""}, "pool")
    assert [s.share for s in both] == [pytest.approx(0.625), pytest.approx(0.375), None]


def test_long_words_are_cut_and_each_has_its_part_of_the_room():
    made = one(*((name, signal(reasoning=name * 600, evidence="")) for name in "abc"))
    assert len(made.reasoning) <= MAX_PROSE and all(f"[{name}] {name}" in made.reasoning for name in "abc")
    assert made.evidence == ""


_P = st.floats(0.001, 0.999)
_SIGNALS = st.builds(
    lambda p, spread, action, confidence, bias, risk, share, words: signal(
        action=action, confidence=confidence, bias=bias, risk_level=risk, priority=risk, share=share, reasoning=words,
        p_yes=p, p_low=None if p is None else p * spread, p_high=None if p is None else 1 - (1 - p) * spread,
    ),
    st.none() | _P, st.floats(0.1, 1), st.sampled_from(Action), st.floats(0, 1), st.sampled_from(Bias), st.sampled_from(Grade),
    st.none() | st.floats(0, 1), st.text("xyz ", max_size=9),
)  # fmt: skip
_SKILLS = st.builds(
    lambda weight, n, alpha, beta: Skill(weight=weight, slope=weight, signals=n, platt=(alpha, beta)),
    st.sampled_from((0.0, 0.1, 0.2, 0.3)), st.sampled_from((0, 50, 900)), st.floats(-1, 1), st.floats(-0.5, 3),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), _SIGNALS), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from([f"p/{name}|{category}" for name in "abcd" for category in ("", "weather")]), _SKILLS),
    st.sampled_from(("pool", "vote")),
)
def test_the_order_of_the_models_never_matters(voices, skills, mode):
    """Bit for bit; two may even bear the same name. And whatever goes in, what comes out is a signal."""
    made = {one(*order, skills=skills, mode=mode) for order in itertools.permutations(voices)}
    assert len(made) == 1
    (said,) = made
    known = [p for p in (said.p_low, said.p_yes, said.p_high) if p is not None]
    assert known == sorted(known) and all(0 < p < 1 for p in known)
    assert 0 <= said.confidence <= 1 and said.disagreement >= 0 and len(said.reasoning) <= MAX_PROSE
    assert said.action in {s.action for _, s in voices} | {Action.HOLD}
    assert sum(weights([f"p/{name}" for name, _ in voices], skills, "weather")) == pytest.approx(1)
