"""Each kind of failure and what it means for the next call; time is an argument."""

import pytest

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.breaker import Breaker

T0 = 1_700_000_000 * NS_PER_S


def s(seconds):
    return T0 + round(seconds * NS_PER_S)


def fail(breaker, kind, *at, retry_after_s=None):
    changes = []
    for seconds in at:
        breaker.begin(s(seconds))
        changes.append(breaker.record(kind, s(seconds), retry_after_s))
    return changes


@pytest.mark.parametrize("kind", ["overload", "timeout", "connection"])
def test_three_failures_open_it_and_one_probe_at_a_time_closes_it(kind):
    breaker = Breaker()
    quiet, still, change = fail(breaker, kind, 0, 1, 2)
    assert quiet is still is None and change.level is Level.WARNING and "paused for 30 s" in change.text and kind in change.text
    assert (breaker.state, breaker.cause) == ("open", kind)
    assert not breaker.may(s(31.9)) and breaker.patience_ns(s(31.9)) == 0
    assert breaker.why(s(31.9)) == f"paused after {kind}; next try in 1 s"
    assert breaker.may(s(32)) and breaker.why(s(32)) == ""
    breaker.begin(s(32))
    assert not breaker.may(s(33)) and "probe" in breaker.why(s(33)), "half-open: one at a time"
    breaker.drop()
    assert breaker.may(s(34)), "a cancelled probe leaves the place free"
    breaker.begin(s(34))
    over = breaker.record("ok", s(35), None)
    assert over.level is Level.INFO and breaker.state == "closed"
    assert fail(breaker, kind, 36, 37) == [None, None] and breaker.may(s(38)), "counted anew"


def test_failures_far_apart_do_not_open_it():
    breaker = Breaker()
    assert fail(breaker, "timeout", 0, 301, 602, 903) == [None] * 4
    assert fail(breaker, "overload", 905)[0] is not None, "three within ten minutes, whichever they are"


def test_the_pause_grows_and_is_bounded_and_starts_anew():
    breaker, at, pauses = Breaker(), 2, []
    fail(breaker, "overload", 0, 1, 2)
    for _ in range(8):
        pause = next(p for p in range(1, 2_000) if breaker.may(s(at + p)))
        pauses.append(pause)
        at += pause
        assert fail(breaker, "connection", at) == [None], "said when it opened, not at each probe"
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]
    breaker.begin(s(at + 900))
    breaker.record("ok", s(at + 900), None)
    fail(breaker, "overload", at + 901, at + 902, at + 903)
    assert breaker.may(s(at + 933)) and not breaker.may(s(at + 932))


def test_the_servers_own_time_is_kept_when_it_is_longer():
    breaker = Breaker()
    fail(breaker, "overload", 0, 1)
    fail(breaker, "overload", 2, retry_after_s=100.0)
    assert not breaker.may(s(101)) and breaker.may(s(102))
    early = Breaker()
    fail(early, "overload", 0, retry_after_s=60.0)
    assert early.state == "closed" and not early.may(s(59)) and early.patience_ns(s(59)) == NS_PER_S and early.may(s(60))


@pytest.mark.parametrize("kind", ["auth", "billing", "bad_request"])
def test_what_a_person_must_mend_stops_it_at_once_and_is_said_once(kind):
    breaker = Breaker()
    (change,) = fail(breaker, kind, 0)
    assert change.level is Level.ERROR and kind in change.text and breaker.state == "stopped"
    tried = [second for second in range(0, 4 * 3600, 60) if breaker.may(s(second)) and fail(breaker, kind, second) == [None]]
    assert tried == [3600, 7200, 10800], "tried again at most once an hour, and never said again"
    assert "next try in 60 min" in breaker.why(s(10800))
    breaker.begin(s(14400))
    back = breaker.record("ok", s(14400), None)
    assert back.level is Level.INFO and breaker.may(s(14400))
    assert fail(breaker, kind, 14401)[0].level is Level.ERROR, "another time is said again"


def test_another_cause_of_the_stop_is_said_and_a_lost_probe_costs_an_hour():
    breaker = Breaker()
    fail(breaker, "auth", 0)
    assert fail(breaker, "timeout", 3600) == [None] and not breaker.may(s(7199))
    assert fail(breaker, "rate_limit", 7200) == [None] and not breaker.may(s(10799)) and breaker.state == "stopped"
    assert "billing" in fail(breaker, "billing", 10800)[0].text


@pytest.mark.parametrize(("told", "waits"), [(7.0, 7), (90.5, 91), (1e12, 3600), (float("inf"), 3600)])
def test_a_rate_limit_waits_as_told(told, waits):
    breaker = Breaker()
    assert fail(breaker, "rate_limit", 0, retry_after_s=told) == [None]
    assert not breaker.may(s(waits - 1)) and breaker.may(s(waits))
    assert breaker.patience_ns(s(0)) == round(min(told, 3600) * NS_PER_S) and breaker.state == "closed"


@pytest.mark.parametrize("told", [None, 0.0, -5.0, float("nan")])
def test_a_rate_limit_without_a_time_waits_longer_each_time(told):
    breaker, at = Breaker(), 0
    for pause in (30, 60, 120, 240, 480, 900, 900):
        fail(breaker, "rate_limit", at, retry_after_s=told)
        assert not breaker.may(s(at + pause - 1)) and breaker.may(s(at + pause))
        at += pause
    breaker.record("ok", s(at), None)
    fail(breaker, "rate_limit", at, retry_after_s=told)
    assert breaker.may(s(at + 30))


@pytest.mark.parametrize("kind", ["refusal", "malformed"])
def test_a_useless_answer_is_counted_and_never_opens_it(kind):
    breaker = Breaker()
    assert fail(breaker, kind, *range(20)) == [None] * 20 and breaker.may(s(20)) and breaker.counts == {kind: 20}
    fail(breaker, "overload", 20, 21, 22)
    assert fail(breaker, kind, 60)[0].level is Level.INFO, "an answer, be it nonsense, is an answer"


def test_a_bug_that_asks_against_it_is_loud():
    breaker = Breaker()
    fail(breaker, "auth", 0)
    with pytest.raises(AssertionError):
        breaker.begin(s(1))
