"""The slow loop from the core's side: who is asked about and when, what a failure means, FALLBACK and back."""

from __future__ import annotations

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core.advice import Grade
from llm_maker.core.commands import Level, RequestSignals
from llm_maker.core.params import SlowParams
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from tests.core.builders import CASH, SHARE, USD, Rig, acts, advice, binary, notices, of

NAMES = ("a", "b", "c", "d")


def asked(commands) -> list[RequestSignals]:
    return of(commands, RequestSignals)


def names(request: RequestSignals) -> list[str]:
    return [m.market_id for m in request.markets]


def slow(*instruments, **changes) -> Rig:
    return Rig(enabled=True, **changes).start(*instruments or [binary(n) for n in NAMES])


def first(rig: Rig) -> RequestSignals:
    (request,) = asked(rig.run(0.25))
    return request


def answer(rig: Rig, request: RequestSignals, *signals, cost=0, decision="d1"):
    signals = signals or tuple(advice("hold", market=m) for m in names(request))
    return rig.send(ev.SignalsReceived(request.request_id, decision, "gpt", "v1", signals, 0, cost))


def fail(rig: Rig, request: RequestSignals, reason="timeout", detail=""):
    return rig.send(ev.SignalsFailed(request.request_id, "d", reason, detail, 300))


def fallen(rig: Rig) -> Rig:
    """Three failures in a row."""
    for _ in range(3):
        rig.wait(45)
        fail(rig, first(rig))
    assert rig.state.slow.fallback
    return rig


# Who, in which order.


def test_open_positions_come_first_then_calm_then_tight_then_deep():
    rig = slow()
    thin, deep = 100 * SHARE, 900 * SHARE
    rig.move(5000, "a", half=200)
    rig.move(5000, "b", half=100, size=thin)
    rig.move(5000, "c", half=100, size=deep)
    rig.move(5000, "d", half=400)
    rig.hold(Side.BUY, 5000, 20 * SHARE, "d")
    for name in NAMES:
        rig.market(name).trigger = ""
    assert names(first(rig)) == ["d", "c", "b", "a"]


def test_low_volatility_comes_before_a_tight_spread():
    rig = slow(binary("a"), binary("b"))
    rig.move(5000, "a", half=100)
    rig.move(5000, "b", half=300)
    rig.market("a").estimators.sig_x = 9e-3
    rig.market("b").estimators.sig_x = 1e-3
    assert names(first(rig)) == ["b", "a"]


def test_equals_stand_in_the_order_of_their_ids():
    rig = slow(*[binary(n) for n in ("c", "a", "b")])
    assert names(first(rig)) == ["a", "b", "c"]


def test_no_more_markets_than_allowed_the_rest_at_the_next_turn():
    rig = slow(max_markets=3)
    one = first(rig)
    assert names(one) == ["a", "b", "c"]
    answer(rig, one)
    rig.wait(45)
    assert names(first(rig)) == ["d"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.send(ev.MarketResolved("b", 0)),
        lambda r: r.send(ev.FeedLost(("b",), "shard")),
        lambda r: r.send(ev.InstrumentDropped("b", "filters")),
        lambda r: r.send(ev.OperatorActed(ev.Verb.PAUSE, "cli", "b")),
        lambda r: r.book("b", bids=()),
    ],
    ids=["resolved", "gap", "dropped", "paused", "one-sided"],
)
def test_a_market_that_cannot_be_quoted_is_not_asked_about(spoil):
    rig = slow()
    spoil(rig)
    assert names(first(rig)) == ["a", "c", "d"]


def test_a_dropped_market_with_a_position_is_still_asked_about():
    rig = slow()
    rig.hold(Side.BUY, 5000, 20 * SHARE, "b")
    rig.send(ev.InstrumentDropped("b", "filters"))
    assert names(first(rig))[0] == "b"


# When.


def test_nothing_is_asked_before_the_account_is_known_nor_while_stopping_nor_when_off():
    rig = Rig(enabled=True)
    rig.listed()
    rig.send(ev.Started(1, False))
    rig.book()
    assert asked(rig.run(2)) == []
    stopping = slow()
    stopping.send(ev.StopRequested("x"))
    assert asked(stopping.run(60)) == []
    assert asked(Rig(enabled=False).start().run(60)) == []


def test_one_question_at_a_time():
    rig = slow(answer_timeout_ns=600 * NS_PER_S)
    first(rig)
    assert asked(rig.run(120)) == []


def test_a_fresh_answer_is_not_asked_again_until_it_is_old():
    rig = slow(binary("a"))
    answer(rig, first(rig))
    assert asked(rig.run(100)) == []
    rig.wait(1_700)
    assert names(first(rig)) == ["a"]


@pytest.mark.parametrize("trigger", ["jump", "sweep", "fill", "stop"])
def test_a_trigger_asks_again_before_its_time_and_says_why(trigger):
    rig = slow(binary("a"), binary("b"))
    answer(rig, first(rig))
    rig.market("b").trigger = trigger
    rig.wait(45 if trigger == "fill" else 10)
    request = first(rig)
    assert names(request) == ["b"] and request.reason == trigger and rig.market("b").trigger == ""


def test_triggers_keep_the_least_gap():
    rig = slow(binary("a"))
    answer(rig, first(rig))
    rig.market("a").trigger = "jump"
    assert asked(rig.run(9)) == [] and len(asked(rig.run(2))) == 1


def test_a_jump_a_sweep_and_a_fill_are_triggers():
    rig = slow(binary("a"))
    answer(rig, first(rig))
    rig.move(5100, "a")
    rig.move(5900, "a")
    assert rig.market("a").trigger == "jump"
    rig.wait(10)
    answer(rig, first(rig))
    rig.send(ev.TradePrinted("a", 6000, 1500 * SHARE, Side.BUY, rig.now))
    assert rig.market("a").trigger == "sweep"
    rig.wait(10)
    answer(rig, first(rig))
    rig.hold(Side.BUY, 5800, 20 * SHARE, "a")
    assert rig.market("a").trigger == "fill"


def test_an_empty_agenda_says_so_once_in_the_seeds_words_and_is_no_failure():
    rig = slow(binary("a"))
    rig.send(ev.FeedLost(("a",), "shard"))
    out = rig.run(200)
    assert [n.text for n in notices(out, "no_markets")] == ["No markets to analyze"]
    assert rig.state.slow.failures == 0 and asked(out) == []
    rig.move(5000, "a")
    rig.run(50)
    rig.send(ev.SignalsSkipped(rig.state.slow.pending, "busy"), ev.FeedLost(("a",), "shard"))
    assert len(notices(rig.run(100), "no_markets")) == 1, "said again when it is empty again"


# What it carries.


def test_the_request_carries_everything_frozen():
    rig = slow(binary("a", category="sports", end_ns=None))
    rig.hold(Side.BUY, 5000, 20 * SHARE, "a")
    request = first(rig)
    (brief,) = request.markets
    assert request.request_id == "1-r1" and not request.probe
    assert (brief.market_id, brief.question, brief.outcomes, brief.category) == ("a", "a?", ("Yes", "No"), "sports")
    assert (brief.bid, brief.ask, brief.spread, brief.yes_price) == (0.50, 0.52, pytest.approx(0.02), 0.51)
    assert (brief.bid_depth, brief.ask_depth, brief.imbalance) == (1000.0, 1000.0, 1.0)
    assert (brief.position, brief.avg_price, brief.pnl_pct) == (20.0, 0.50, pytest.approx(2.0))
    assert (brief.last_action, brief.last_p_yes, brief.last_age_s, brief.hours_to_end) == ("", None, None, None)
    portfolio = request.portfolio
    assert portfolio.cash_usd == (CASH - 20 * SHARE * 5000) / USD and portfolio.open_positions == 1
    assert portfolio.equity_usd == (CASH + 20 * SHARE * 100) / USD and portfolio.mode == "active"
    before = msgspec.json.encode(request)
    rig.move(7000, "a")
    rig.hold(Side.BUY, 7000, 20 * SHARE, "a")
    assert msgspec.json.encode(request) == before


def test_the_next_request_tells_the_last_answer():
    rig = slow(binary("a"))
    answer(rig, first(rig), advice("buy_yes", 0.7, "bullish", "a", p_yes=0.6))
    rig.wait(1_800)
    (brief,) = first(rig).markets
    assert (brief.last_action, brief.last_p_yes) == ("buy_yes", 0.6) and brief.last_age_s == pytest.approx(1800.25)


def test_a_loss_on_no_is_told_on_the_cost_of_no():
    rig = slow(binary("a"))
    rig.hold(Side.SELL, 5000, 20 * SHARE, "a")
    assert first(rig).markets[0].pnl_pct == pytest.approx(-2.0)


def test_request_ids_never_repeat_within_a_session_and_start_anew_in_the_next():
    rig = slow(binary("a"))
    one = first(rig)
    rig.send(ev.SignalsSkipped(one.request_id, "rate_wait"))
    rig.wait(45)
    assert (one.request_id, first(rig).request_id) == ("1-r1", "1-r2")
    rig.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    rig.book("a")
    rig.wait(45)
    assert first(rig).request_id == "2-r1"


# Answers.


def test_an_answer_is_counted_paid_and_kept():
    rig = slow(binary("a"))
    answer(rig, first(rig), advice("hold", market="a", priority=Grade.HIGH), cost=1_234)
    assert rig.state.counts.decisions == rig.state.counts.signals == 1 and rig.state.flows.llm_cost == -1_234
    assert rig.state.cash == CASH, "the model is paid elsewhere"
    assert rig.market("a").opinion.decision_id == "d1"


def test_a_late_answer_is_ignored_but_paid():
    rig = slow(binary("a"))
    request = first(rig)
    rig.run(61)
    assert rig.state.slow.failures == 1
    out = answer(rig, request, cost=50)
    assert notices(out, "late_answer") and rig.market("a").opinion is None and rig.state.flows.llm_cost == -50


def test_an_answer_told_twice_counts_once():
    rig = slow(binary("a"))
    request = first(rig)
    answer(rig, request)
    opinion = rig.market("a").opinion
    answer(rig, request, advice("buy_yes", 0.9, "bullish", "a"))
    assert rig.market("a").opinion is opinion and rig.state.counts.decisions == 1


def test_a_late_answer_does_not_answer_the_next_question():
    rig = slow(binary("a"))
    old = first(rig)
    (new,) = asked(rig.run(50))
    answer(rig, old)
    assert rig.state.slow.pending == new.request_id != old.request_id and rig.market("a").opinion is None


def test_an_answer_without_signals_is_an_answer():
    rig = slow(binary("a"))
    request = first(rig)
    rig.send(ev.SignalsReceived(request.request_id, "d", "gpt", "v1", ()))
    assert rig.state.slow.failures == 0 and rig.state.slow.pending == ""


# Failures and FALLBACK.


def test_no_answer_in_time_is_a_failure():
    rig = slow(binary("a"))
    first(rig)
    out = rig.run(40)
    assert rig.state.slow.failures == 0
    out = rig.run(3)
    assert rig.state.slow.failures == 1 and "no answer in time" in notices(out, "llm_failed")[0].text


def test_a_skip_is_no_failure_and_the_markets_keep_their_turn():
    rig = slow(binary("a"), binary("b"))
    answer(rig, first(rig))
    rig.market("b").trigger = "jump"
    rig.wait(10)
    request = first(rig)
    rig.send(ev.SignalsSkipped(request.request_id, "rate_wait"))
    assert rig.state.slow.failures == 0 and rig.state.slow.pending == ""
    rig.wait(45)
    assert names(first(rig)) == ["b"]


def test_a_skip_of_markets_never_answered_asks_them_again():
    rig = slow()
    rig.send(ev.SignalsSkipped(first(rig).request_id, "rate_wait"))
    rig.wait(45)
    assert len(first(rig).markets) == 4


def test_one_answer_forgets_the_failures():
    rig = slow(binary("a"))
    for _ in range(2):
        fail(rig, first(rig))
        rig.wait(45)
    answer(rig, first(rig))
    assert rig.state.slow.failures == 0 and not rig.state.slow.fallback
    rig.wait(1_800)
    fail(rig, first(rig))
    assert not rig.state.slow.fallback


def test_three_failures_in_a_row_say_the_seeds_words_with_cause_and_cure():
    rig = slow(binary("a"))
    for _ in range(2):
        fail(rig, first(rig), "auth", "401")
        rig.wait(45)
        assert not rig.state.slow.fallback
    (said,) = notices(fail(rig, first(rig), "auth", "401"), "fallback")
    assert said.text.startswith("Switching to fallback mode after 3 consecutive failures") and said.level is Level.WARNING
    assert "401" in said.text and ".env" in said.text
    assert rig.state.slow.fallback and rig.state.counts.fallbacks == 1 and rig.state.counts.failures == 3


def test_a_failure_of_another_request_is_not_counted_but_paid():
    rig = slow(binary("a"))
    first(rig)
    rig.send(ev.SignalsFailed("1-r77", "d", "auth", "", 300))
    assert rig.state.slow.failures == 0 and rig.state.slow.pending and rig.state.flows.llm_cost == -300


def test_probes_come_with_doubling_pauses_up_to_a_limit():
    rig = fallen(slow())
    start, at = rig.now, []
    while len(at) < 7:
        for request in asked(rig.run(0.25)):
            assert request.probe and len(request.markets) == 1 and request.reason == "probe"
            at.append((rig.now - start) / NS_PER_S)
            fail(rig, request)
    gaps = [round(b - a) for a, b in zip([0.0, *at], at, strict=False)]
    assert gaps == [60, 120, 240, 480, 900, 900, 900]


def test_triggers_do_not_ask_in_fallback():
    rig = fallen(slow())
    rig.market("a").trigger = "jump"
    assert asked(rig.run(50)) == []


def test_one_good_answer_to_a_probe_returns():
    rig = fallen(slow())
    rig.wait(60)
    probe = first(rig)
    out = answer(rig, probe)
    assert not rig.state.slow.fallback and rig.state.slow.failures == 0
    (said,) = notices(out, "fallback_over")
    assert said.level is Level.WARNING and "gpt" in said.text and "timeout" in said.text
    rig.wait(45)
    assert len(first(rig).markets) == 3, "the others are due again"


def test_a_late_answer_does_not_end_fallback():
    rig = slow()
    old = first(rig)
    rig.run(400)
    assert rig.state.slow.fallback
    answer(rig, old)
    assert rig.state.slow.fallback


def test_a_skipped_probe_waits_as_long_again():
    rig = fallen(slow())
    rig.wait(60)
    rig.send(ev.SignalsSkipped(first(rig).request_id, "rate_wait"))
    assert asked(rig.run(59)) == [] and rig.state.slow.fallback
    assert len(asked(rig.run(2))) == 1


def test_a_probe_without_an_answer_is_a_failed_probe():
    rig = fallen(slow())
    rig.wait(60)
    first(rig)
    out = rig.run(62)
    assert notices(out, "probe_failed") and rig.state.slow.probe_gap_ns == 120 * NS_PER_S


def quoting() -> Rig:
    rig = Rig(strategy=Maker(), wants=MakerParams(), enabled=True, **{"base_milli": 50_000}).start(binary("m"))
    rig.move(5000)
    rig.run(0.5)
    rig.ack()
    return rig


def through_fallback(rig: Rig) -> Rig:
    for _ in range(3):
        while not rig.state.slow.pending:
            rig.run(1)
            rig.ack()
        fail(rig, RequestSignals(rig.state.slow.pending, (), None, ""))
    for _ in range(5):
        rig.run(1)
        rig.ack()
    return rig


def test_in_fallback_quotes_are_symmetric_at_half_size_without_a_view():
    rig = quoting()
    answer(rig, RequestSignals(rig.state.slow.pending, (), None, ""), advice("buy_yes", 1.0, "bullish", p_yes=0.95))
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.5)))
    for _ in range(5):
        rig.run(1)
        rig.ack()
    assert rig.one(Side.BUY).qty == 75 * SHARE
    rig.wait(1_800)
    rig.move(5000)
    through_fallback(rig)
    bid, ask = rig.one(Side.BUY), rig.one(Side.SELL)
    assert (bid.remaining, ask.remaining) == (25 * SHARE, 25 * SHARE)
    assert bid.price + ask.price == 10_000


def test_a_stop_loss_works_in_fallback():
    rig = through_fallback(quoting())
    rig.hold(Side.BUY, 5500, 50 * SHARE)
    for _ in range(36):
        rig.run(1)
        rig.ack()
    assert rig.state.slow.fallback and notices(rig.log, "exit_stop")
    assert rig.live(Side.BUY) == [] and rig.one(Side.SELL).remaining == 50 * SHARE


def test_an_exit_said_before_the_model_died_keeps_its_word():
    rig = quoting()
    rig.hold(Side.BUY, 4950, 50 * SHARE)
    answer(rig, RequestSignals(rig.state.slow.pending, (), None, ""), advice("exit", 0.3))
    rig.state.slow.fallback = True
    for _ in range(4):
        rig.run(1)
        rig.ack()
    assert rig.market().exit_plan.exiting == "signal" and rig.live(Side.BUY) == []


def test_the_defaults_are_the_designs():
    shipped = SlowParams()
    assert (shipped.failures_to_fallback, shipped.interval_ns, shipped.max_markets) == (3, 45 * NS_PER_S, 10)


def test_a_quiet_slow_loop_sends_nothing_but_questions():
    rig = slow()
    for _ in range(10):
        for request in asked(rig.run(45)):
            answer(rig, request)
    assert {type(c) for c in acts(rig.log)} <= {RequestSignals, type(acts(rig.log)[0])}


def test_a_halted_account_asks_nobody():
    rig = slow()
    answer(rig, first(rig))
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "cli"))
    assert asked(rig.run(2_000)) == []
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    assert asked(rig.run(1))
