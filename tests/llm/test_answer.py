"""Any text -> signals or a named failure; good signals outlive the bad ones beside them."""

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_maker.core.advice import Action, Bias, Grade
from llm_maker.core.events import SignalsReceived
from llm_maker.llm.answer import MAX_CHARS, MAX_PROSE, Answer, Failure, parse, schema_of
from tests.llm.samples import brief

HANDLES = {"M1": brief("0xaaaa"), "M2": brief("0xbbbb"), "M3": brief("BTC-PERP", kind="linear")}
SEED_EXAMPLE = """{
  "signals": [
    {
      "market_id": "M1",
      "action": "buy_yes",
      "confidence": 0.82,
      "reasoning": "Order book leans to the bid and the spread is tight.",
      "directional_bias": "bullish",
      "risk_level": "medium",
      "priority": "high"
    },
    {
      "market_id": "M2",
      "action": "hold",
      "confidence": 0.4,
      "reasoning": "No edge.",
      "directional_bias": "neutral",
      "priority": "low"
    }
  ]
}"""


def entry(handle="M1", **changed):
    return {
        "market_id": handle, "evidence": "polls", "p_yes": 0.56, "p_low": 0.5, "p_high": 0.62, "action": "buy_yes",
        "confidence": 0.7, "reasoning": "why", "directional_bias": "bullish", "risk_level": "low", "priority": "high",
    } | changed  # fmt: skip


def answer(*entries):
    return json.dumps({"signals": list(entries)})


def ok(text, **kwargs):
    result = parse(text, HANDLES, **kwargs)
    assert isinstance(result, Answer), result
    return result


def failed(text, **kwargs):
    result = parse(text, HANDLES, **kwargs)
    assert isinstance(result, Failure), result
    return result.reason


def test_golden_the_seeds_own_example():
    first, second = ok(SEED_EXAMPLE).signals
    assert (first.market_id, first.action, first.confidence) == ("0xaaaa", Action.BUY_YES, 0.82)
    assert (first.directional_bias, first.risk_level, first.priority) == (Bias.BULLISH, Grade.MEDIUM, Grade.HIGH)
    assert first.p_yes is first.p_low is first.p_high is None
    assert (second.market_id, second.risk_level, second.priority) == ("0xbbbb", Grade.MEDIUM, Grade.LOW)


def test_a_full_answer():
    (signal,) = ok(answer(entry())).signals
    assert (signal.market_id, signal.p_low, signal.p_yes, signal.p_high) == ("0xaaaa", 0.5, 0.56, 0.62)
    assert (signal.evidence, signal.reasoning) == ("polls", "why")


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{answer(entry())}\n```",
        f"```\n{answer(entry())}\n```",
        f"Sure [as you asked], see {{below}}:\n{answer(entry())}\nThat is all.",
        json.dumps([entry()]),
        json.dumps(entry()),
        "\ufeff  " + answer(entry()),
        answer(entry(handle=" [m1] ", action="BUY_YES", directional_bias="Bullish ")),
        answer({**{k: v for k, v in entry().items() if k != "market_id"}, "handle": "M1"}),
        answer(entry(evidence=["polls", "weather"], notes="extra fields are ignored")),
        answer(entry(p_low=None, p_high=None)),
    ],
)
def test_what_models_do_and_we_tolerate(text):
    (signal,) = ok(text).signals
    assert (signal.market_id, signal.action, signal.p_yes) == ("0xaaaa", Action.BUY_YES, 0.56)


@pytest.mark.parametrize(
    "bad",
    [
        {"market_id": "M9"}, {"market_id": "0xaaaa"}, {"market_id": 1}, {"market_id": None}, {"market_id": "M01"},
        {"confidence": 1.01}, {"confidence": -0.1}, {"confidence": float("nan")}, {"confidence": 1e308},
        {"confidence": float("inf")}, {"confidence": "0.7"}, {"confidence": True}, {"confidence": None},
        {"p_yes": 0.0}, {"p_yes": 1}, {"p_yes": 56}, {"p_yes": float("nan")}, {"p_yes": "0.5"}, {"p_yes": None},
        {"p_low": 0.7}, {"p_high": 0.1}, {"p_low": 0.6, "p_high": 0.5, "p_yes": 0.55},
        {"action": "sell everything"}, {"action": None}, {"directional_bias": "sideways"}, {"risk_level": "extreme"},
        {"priority": 3}, {"reasoning": {"a": 1}},
    ],
)  # fmt: skip
def test_one_bad_signal_is_refused_alone(bad):
    result = ok(answer(entry(**bad), entry("M2")))
    assert [s.market_id for s in result.signals] == ["0xbbbb"]
    assert len(result.invalid) == 1 and len(result.invalid[0]) < 300
    assert failed(answer(entry(**bad))) == "malformed"


def test_a_market_named_twice_is_refused_twice():
    result = ok(answer(entry("M1"), entry("m1", action="exit"), entry("M2")))
    assert [s.market_id for s in result.signals] == ["0xbbbb"]
    assert len(result.invalid) == 2


def test_duplicate_keys_hide_nothing():
    twice = answer(entry("M1"), entry("M2")).replace('"action": "buy_yes"', '"action": "hold", "action": "exit"', 1)
    assert [s.market_id for s in ok(twice).signals] == ["0xbbbb"]
    assert failed('{"signals": [], "signals": ' + json.dumps([entry()]) + "}") == "malformed"


def test_a_probability_of_a_linear_instrument_means_nothing():
    (signal,) = ok(answer(entry("M3"))).signals
    assert (signal.market_id, signal.p_yes, signal.p_low, signal.p_high) == ("BTC-PERP", None, None, None)
    assert signal.directional_bias is Bias.BULLISH


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("", "stop", "empty"), ("  \n", "stop", "empty"), ("", "length", "truncated"),
        ('{"signals": []}', "stop", "empty"),
        ("[]", "stop", "empty"), ("I refuse.", "refusal", "refusal"), (answer(entry()), "refusal", "refusal"),
        ("no json here", "stop", "malformed"), ("no json here", "length", "truncated"),
        ('{"signals": 5}', "stop", "malformed"), ('{"a": 1}', "stop", "malformed"), ("[1, 2]", "stop", "malformed"),
        ('{"signals": [1, null]}', "stop", "malformed"), (answer(entry()) * 2, "stop", "malformed"),
        (answer(entry())[:-20], "length", "truncated"), (answer(entry(), entry("M2"))[:-30], "stop", "truncated"),
        ('{"signals": [' + json.dumps(entry()) + '], "x": ', "stop", "truncated"),
        ('{"signals": [' + json.dumps(entry()) + "], }", "stop", "malformed"),
        ("[" * 100_000, "stop", "malformed"), ('{"a":' * 30_000, "stop", "malformed"),
        ('{"signals": [{"p_yes": ' + "9" * 10_000 + "}]}", "stop", "malformed"),
        (" " * MAX_CHARS + answer(entry()), "stop", "malformed"), ("x" * 5_000_000, "stop", "malformed"),
        (json.dumps([{}] * 5000), "stop", "malformed"),
    ],
)  # fmt: skip
def test_named_failures(text, finish, reason):
    assert failed(text, finish=finish) == reason


@pytest.mark.parametrize("cut", range(1, len(answer(entry("M1"), entry("M2"))) - 1, 7))
def test_no_cut_of_an_answer_passes_for_a_smaller_answer(cut):
    """A cut answer is never salvaged: the signals that fell off might have been the exits."""
    assert failed(answer(entry("M1"), entry("M2"))[:cut], finish="length") == "truncated"
    assert failed(answer(entry("M1"), entry("M2"))[:cut]) in ("truncated", "malformed")


def test_prose_is_cut_and_made_harmless():
    (signal,) = ok(answer(entry(reasoning="a\x1b[2J\u202eb\n" + "x" * 10_000, evidence="\ud800!"))).signals
    assert len(signal.reasoning) == MAX_PROSE and "\x1b" not in signal.reasoning and "\u202e" not in signal.reasoning
    msgspec.json.encode(SignalsReceived("R", "D", "m", "p", (signal,)))  # a lone surrogate would break the journal


def _journalled(result):
    if isinstance(result, Answer):
        assert result.signals
        encoded = msgspec.json.encode(SignalsReceived("R", "D", "m", "p", result.signals))
        assert msgspec.json.decode(encoded, type=SignalsReceived).signals == result.signals
        for s in result.signals:
            assert 0 <= s.confidence <= 1
            assert s.p_yes is None or (s.p_low or s.p_yes) <= s.p_yes <= (s.p_high or s.p_yes)
    else:
        assert result.reason in ("malformed", "truncated", "refusal", "empty")
        result.detail.encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b'\xff\xfe{"signals"')
@example(answer(entry()).encode())
def test_no_bytes_make_it_raise(data):
    _journalled(parse(data, HANDLES))


_JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.sampled_from(["M1", "hold", "low"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*entry(), "signals"]), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(list(entry())), _JUNK, max_size=4), max_size=4), st.integers(0, 60))
def test_no_shape_makes_it_raise(changes, cut):
    text = answer(*[entry(**change) for change in changes], entry("M2"))
    _journalled(parse(text, HANDLES))
    _journalled(parse(text[: len(text) - cut], HANDLES))


# Shares of the capital.


def shares(*given, portfolio=True):
    result = ok(answer(*[entry(f"M{i}", share=share) for i, share in enumerate(given, 1)]), portfolio=portfolio)
    return [s.share for s in result.signals], result


def test_shares_are_read_in_portfolio_mode_only():
    assert shares(0.25, None, 1e-400)[0] == [0.25, None, 0.0]
    assert shares(0.25, None, 0.1, portfolio=False)[0] == [None, None, None]
    assert shares("much", -5, [0.1], portfolio=False)[0] == [None, None, None], "what was not asked for cannot spoil a signal"
    assert [s.share for s in ok(answer(entry("M1")), portfolio=True).signals] == [None], "absent is no say"


@pytest.mark.parametrize("bad", [-0.01, 1.01, 1e308, float("nan"), float("inf"), -float("inf"), "0.5", True, {}, [], 10**40])
def test_a_bad_share_refuses_its_signal_alone(bad):
    result = ok(answer(entry("M1", share=bad), entry("M2", share=0.5)), portfolio=True)
    assert [(s.market_id, s.share) for s in result.signals] == [("0xbbbb", 0.5)]
    assert len(result.invalid) == 1 and "share" in result.invalid[0] and not result.scaled


def test_shares_beyond_the_whole_are_scaled_to_it():
    got, result = shares(1.0, 0.5, 0.5)
    assert got == [0.5, 0.25, 0.25] and result.scaled and result.invalid == ()
    got, result = shares(0.1, 0.2, 0.7)
    assert got == [0.1, 0.2, 0.7] and not result.scaled
    got, result = shares(0.5, 0.5 + 1e-10)
    assert got == [0.5, 0.5 + 1e-10] and not result.scaled, "a sum of floats is not exact"
    refused = ok(answer(entry("M1", share=0.9), entry("M2", share=0.9, action="?"), entry("M3", share=0.1)), portfolio=True)
    assert [s.share for s in refused.signals] == [0.9, 0.1] and not refused.scaled, "what was refused takes no share"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=3))
def test_the_sum_of_shares_is_never_more_than_the_capital(given_shares):
    got, result = shares(*given_shares)
    total = sum(share or 0.0 for share in got)
    assert total <= 1.0 + 1e-9
    assert [share is None for share in got] == [share is None for share in given_shares]
    assert result.scaled == (sum(share or 0.0 for share in given_shares) > 1.0 + 1e-9)


def test_the_schemas_own_words_are_read_back():
    """A signal with exactly the schema's fields is valid, in both modes: what is asked for and what is read agree."""
    for portfolio in (False, True):
        fields = schema_of(portfolio=portfolio)["properties"]["signals"]["items"]["required"]
        full = {name: entry("M1", share=0.5)[name] for name in fields}
        (signal,) = ok(answer(full), portfolio=portfolio).signals
        assert signal.share == (0.5 if portfolio else None)
