"""What a signal may do (design section 5), rule by rule: the pure judgement first, then the whole engine with the maker."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import events as ev
from llm_maker.core.advice import Action, Bias, Grade
from llm_maker.core.commands import CancelOrder, PlaceOrder
from llm_maker.core.params import SignalParams
from llm_maker.core.signals import Opinion, accept, contradiction, market_x, remaining, size_multiplier, smoothing, view
from llm_maker.core.skill import Skill
from llm_maker.core.state import acting
from llm_maker.core.values import NS_PER_S, Side, logit
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from tests.core.builders import SHARE, Rig, Wants, advice, binary, linear, notices, of, places

P = SignalParams(base_milli=50_000)
BASE, LIMIT = 50 * SHARE, 200 * SHARE
HOUR = 3_600 * NS_PER_S
WEIGHT = 0.15
M = binary()


def opined(signal, *, mid=5000.0, net=0, previous=None, now=HOUR, params=P, instrument=M) -> Opinion:
    verdict = accept(signal, previous, instrument, mid, net, (BASE, LIMIT), params, now, ("d", "gpt"))
    assert verdict.opinion is not None, verdict.refused
    return verdict.opinion


def seen(opinion, *, mid=5000.0, weight=WEIGHT, now=HOUR, params=P, instrument=M):
    return view(opinion, instrument, mid, weight, params, now)


# The position asked for.


@pytest.mark.parametrize(
    ("action", "confidence", "net", "target"),
    [
        # Below 0.6: no new directional risk, whatever is said.
        ("buy_yes", 0.59, 0, None),
        ("buy_no", 0.0, 30, None),
        ("sell_yes", 0.59, 30, None),
        ("hold", 0.59, 30, None),
        # From 0.6 to 0.8: the base.
        ("buy_yes", 0.6, 0, 50),
        ("buy_yes", 0.8, 10, 60),
        ("buy_no", 0.7, 0, -50),
        ("buy_no", 0.7, 30, -20),
        # Above 0.8: linear to 1.5x at 1.
        ("buy_yes", 0.9, 0, 62.5),
        ("buy_yes", 1.0, 0, 75),
        ("buy_no", 1.0, 0, -75),
        # 200 a side at most; beyond it a buy adds nothing and sells nothing.
        ("buy_yes", 0.7, 180, 200),
        ("buy_yes", 0.7, 230, 230),
        ("buy_no", 0.7, -180, -200),
        ("buy_no", 0.7, -230, -230),
        # A sale reduces that holding and never opens the other side.
        ("sell_yes", 0.7, 80, 30),
        ("sell_yes", 1.0, 80, 5),
        ("sell_yes", 0.7, 30, 0),
        ("sell_yes", 0.7, 0, 0),
        ("sell_yes", 0.7, -40, -40),
        ("sell_no", 0.7, -80, -30),
        ("sell_no", 0.7, -30, 0),
        ("sell_no", 0.7, 0, 0),
        ("sell_no", 0.7, 40, 40),
        # Hold: where it is.
        ("hold", 0.7, 35, 35),
        ("hold", 0.7, -35, -35),
        # Exit: flat, at any confidence.
        ("exit", 0.0, 80, 0),
        ("exit", 1.0, -80, 0),
    ],
)
def test_the_position_a_signal_asks_for(action, confidence, net, target):
    opinion = opined(advice(action, confidence), net=net * SHARE)
    assert opinion.target_net == (None if target is None else int(target * SHARE))


@given(st.sampled_from(list(Action)), st.floats(0, 1), st.integers(-300, 300))
@settings(max_examples=300, deadline=None)
def test_no_signal_asks_for_more_than_its_action_allows(action, confidence, shares):
    net = shares * SHARE
    target = opined(advice(action.value, confidence), net=net).target_net
    if target is None:
        return
    assert abs(target) <= max(LIMIT, abs(net))
    assert abs(target - net) <= 1.5 * BASE or action is Action.EXIT
    if action in (Action.SELL_YES, Action.SELL_NO, Action.EXIT):
        assert abs(target) <= abs(net) and target * net >= 0
    assert (target - net) * {Action.BUY_YES: 1, Action.BUY_NO: -1}.get(action, 0) >= 0


@pytest.mark.parametrize(("confidence", "multiplier"), [(0.0, 1.0), (0.8, 1.0), (0.85, 1.125), (0.9, 1.25), (1.0, 1.5)])
def test_size_grows_linearly_above_the_size_up_confidence(confidence, multiplier):
    assert size_multiplier(confidence, P) == pytest.approx(multiplier)


def test_a_size_up_confidence_of_one_sizes_nothing_up():
    assert size_multiplier(1.0, SignalParams(size_up_confidence=1.0)) == 1.0


# Contradictions.


@pytest.mark.parametrize(
    ("signal", "refused"),
    [
        (advice("buy_yes", bias="bearish"), True),
        (advice("buy_no", bias="bullish"), True),
        (advice("buy_yes", bias="neutral"), False),
        (advice("sell_yes", bias="bullish"), False),
        (advice("exit", bias="bullish"), False),
        (advice("buy_yes", bias="bullish", p_yes=0.49), True),
        (advice("buy_yes", bias="bullish", p_yes=0.49, p_high=0.51), False),
        (advice("buy_yes", bias="bullish", p_yes=0.40, p_high=0.49), True),
        (advice("buy_no", bias="bearish", p_yes=0.51), True),
        (advice("buy_no", bias="bearish", p_yes=0.51, p_low=0.49), False),
        (advice("buy_no", bias="bearish", p_yes=0.60, p_low=0.51), True),
        (advice("hold", bias="bullish", p_yes=0.30), False),
    ],
)
def test_a_signal_that_argues_against_itself(signal, refused):
    assert (contradiction(signal, M, 5000.0) == "contradiction") is refused


def test_a_contradiction_leaves_the_former_opinion_and_is_counted():
    rig = Rig().start()
    rig.advise(advice("hold", p_yes=0.6))
    before = rig.market().opinion
    out = rig.advise(advice("buy_yes", bias="bearish"))
    assert rig.market().opinion is before and notices(out, "signal_refused")
    assert rig.state.refused["signal: contradiction"].count == 1 == rig.state.counts.signals_refused


# Disagreement, smoothed in time.


def test_the_first_answer_moves_one_fifth_of_the_way():
    opinion = opined(advice(p_yes=0.6))
    assert opinion.raw_d == pytest.approx(logit(0.6)) and opinion.d0 == pytest.approx(0.2 * logit(0.6))


def test_smoothing_is_in_time_not_in_answers():
    whole, third = smoothing(P, P.refresh_ns), smoothing(P, P.refresh_ns // 3)
    assert whole == pytest.approx(0.2) and 1 - (1 - third) ** 3 == pytest.approx(whole)
    assert smoothing(P, 0) == 0.0 and smoothing(P, 10 * P.refresh_ns) == pytest.approx(1 - 0.8**10)


def test_three_equal_answers_in_thirds_reach_what_one_does():
    first = opined(advice(p_yes=0.7), now=HOUR)
    once = opined(advice(p_yes=0.7), previous=first, now=HOUR + P.refresh_ns)
    step, thrice = P.refresh_ns // 3, first
    for n in (1, 2, 3):
        thrice = opined(advice(p_yes=0.7), previous=thrice, now=HOUR + n * step)
    assert thrice.d0 == pytest.approx(once.d0)


def test_an_expired_opinion_is_not_smoothed_with():
    first = opined(advice(p_yes=0.9))
    fresh = opined(advice(p_yes=0.6), previous=first, now=first.expires_ns)
    assert fresh.d0 == pytest.approx(smoothing(P, fresh.received_ns - HOUR) * logit(0.6))


def test_a_bias_without_a_probability_moves_by_the_fitted_beta_which_starts_at_zero():
    assert opined(advice(bias="bullish")).raw_d == 0.0
    fitted = SignalParams(bias_beta=0.4)
    assert opined(advice(bias="bullish", confidence=0.5), params=fitted).raw_d == pytest.approx(0.2)
    assert opined(advice(bias="bearish", confidence=0.5), params=fitted).raw_d == pytest.approx(-0.2)


def test_a_certain_model_is_read_as_nearly_certain():
    assert opined(advice(p_yes=1.0)).raw_d == pytest.approx(logit(0.995))


def test_a_linear_market_takes_no_probability():
    signal = advice(bias="bullish", p_yes=0.99, confidence=1.0)
    assert opined(signal, mid=6_800_012.0, instrument=linear(), params=SignalParams(bias_beta=0.01)).raw_d == pytest.approx(0.01)


# What is left of it: age, the market's own move, expiry.


def test_age_halves_it_every_half_life():
    opinion = opined(advice(p_yes=0.7))
    fresh, old = seen(opinion), seen(opinion, now=HOUR + P.half_life_ns)
    assert fresh.weight == pytest.approx(WEIGHT) and old.weight == pytest.approx(WEIGHT / 2)
    assert fresh.shift == pytest.approx(WEIGHT * opinion.d0) and old.shift == pytest.approx(fresh.shift / 2)


def test_the_market_going_its_way_uses_it_up_and_never_turns_it_round():
    opinion = opined(advice(p_yes=0.9))
    assert remaining(opinion, opinion.x0 + opinion.d0 / 4) == pytest.approx(0.75 * opinion.d0)
    assert remaining(opinion, opinion.x0 + 2 * opinion.d0) == 0.0
    assert seen(opinion, mid=9000.0).shift == 0.0


def test_the_market_going_against_it_does_not_enlarge_it():
    opinion = opined(advice(p_yes=0.9))
    assert remaining(opinion, opinion.x0 - 1.0) == pytest.approx(opinion.d0)
    bear = opined(advice(p_yes=0.1))
    assert remaining(bear, bear.x0 + 1.0) == pytest.approx(bear.d0)
    assert remaining(bear, bear.x0 + bear.d0 / 2) == pytest.approx(bear.d0 / 2)


@given(st.floats(0.02, 0.98), st.floats(200, 9800), st.floats(200, 9800))
@settings(max_examples=200, deadline=None)
def test_what_remains_keeps_its_sign_and_never_grows(p_yes, mid, later):
    opinion = opined(advice(p_yes=p_yes), mid=mid)
    left = remaining(opinion, market_x(M, later))
    assert left * opinion.d0 >= 0 and abs(left) <= abs(opinion.d0)


def test_past_its_expiry_a_signal_is_nothing():
    opinion = opined(advice("exit", 1.0, "bullish", p_yes=0.9, risk_level=Grade.HIGH))
    assert opinion.expires_ns == HOUR + P.expiry_ns
    assert seen(opinion, now=opinion.expires_ns - 1).exit
    assert seen(opinion, now=opinion.expires_ns) == seen(None)


def test_a_signal_ends_six_hours_before_its_market():
    ends = binary(end_ns=100 * HOUR)
    assert opined(advice(), instrument=ends, now=90 * HOUR).expires_ns == 94 * HOUR
    assert opined(advice(), instrument=ends, now=97 * HOUR).expires_ns == 97 * HOUR, "born expired"


def test_no_weight_reaches_beyond_its_bound():
    assert seen(opined(advice(p_yes=0.9)), weight=0.9).weight == P.max_weight


# Size, width, bias.


@pytest.mark.parametrize(("risk", "size", "widen"), [("low", 1.0, 1.0), ("medium", 1.0, 1.0), ("high", 0.5, 1.5)])
def test_high_risk_halves_and_widens(risk, size, widen):
    shown = seen(opined(advice(risk_level=Grade(risk))))
    assert (shown.size_ratio, shown.widen) == (size, widen)


def test_confidence_sizes_up_and_high_risk_halves_that():
    assert seen(opined(advice(confidence=1.0, risk_level=Grade.HIGH))).size_ratio == pytest.approx(0.75)


@pytest.mark.parametrize(("confidence", "bias"), [(0.59, 0), (0.6, 1)])
def test_a_bias_counts_only_with_confidence(confidence, bias):
    assert seen(opined(advice(bias="bullish", confidence=confidence))).bias == bias
    assert seen(opined(advice(bias="bearish", confidence=confidence))).bias == -bias


def test_only_the_seed_rule_is_silent_at_low_confidence():
    unsure = opined(advice(confidence=0.5))
    assert not seen(unsure).silent
    assert seen(unsure, params=SignalParams(rule="seed")).silent
    assert not seen(opined(advice(confidence=0.6)), params=SignalParams(rule="seed")).silent


def test_shadow_is_nothing_at_all():
    loud = opined(advice("exit", 1.0, "bullish", p_yes=0.9, risk_level=Grade.HIGH))
    assert seen(loud, weight=0.0) == seen(None)
    assert seen(opined(advice(confidence=0.1)), weight=0.0, params=SignalParams(rule="seed")) == seen(None)


# Through the engine, with the maker.


def maker(quoting="inventory", **changes) -> Rig:
    rig = Rig(strategy=Maker(), wants=MakerParams(quoting=quoting, signal_rule=changes.get("rule", "pooled")), **changes)
    rig.start()
    rig.move(5000)
    rig.run(1)
    settle(rig)
    return rig


def settle(rig: Rig, rounds: int = 4) -> None:
    for _ in range(rounds):
        rig.run(1)
        rig.ack()


def quotes(rig: Rig):
    bid, ask = rig.one(Side.BUY), rig.one(Side.SELL)
    return (bid.price, bid.remaining), (ask.price, ask.remaining)


def traded(rig: Rig):
    return [c for c in rig.log if isinstance(c, PlaceOrder | CancelOrder)]


def wild(rig: Rig, *signals) -> Rig:
    """A while of market with these signals in it."""
    for n, mid in enumerate((5000, 5100, 5000, 4900, 4800, 4900)):
        rig.move(mid)
        if n == 1 and signals:
            rig.advise(*signals)
        rig.run(3)
        rig.ack()
        if n == 2 and rig.live(Side.BUY):
            rig.fill(rig.live(Side.BUY)[0], 20 * SHARE)
    return rig


LOUD = [
    advice("buy_yes", 1.0, "bullish", p_yes=0.9, risk_level=Grade.HIGH, priority=Grade.LOW, stop_ratio=0.001),
    advice("buy_no", 1.0, "bearish", p_yes=0.1, risk_level=Grade.HIGH),
    advice("exit", 1.0, "bearish", p_yes=0.1),
]


@pytest.mark.parametrize("signal", LOUD, ids=lambda s: s.action.value)
@pytest.mark.parametrize("rule", ["pooled", "seed"])
def test_in_shadow_the_commands_are_those_without_the_signal(signal, rule):
    changes = {"prior_weight": 0.0, "rule": rule}
    with_it, without = wild(maker(**changes), signal), wild(maker(**changes))
    assert traded(with_it) == traded(without) and len(traded(without)) > 6
    assert with_it.market().opinion.signal == signal, "computed and shown all the same"
    assert with_it.market().opinion.d0 != 0.0
    assert with_it.market().exit_plan == without.market().exit_plan


@pytest.mark.parametrize("signal", LOUD, ids=lambda s: s.action.value)
def test_out_of_shadow_they_are_not(signal):
    assert traded(wild(maker(), signal)) != traded(wild(maker()))


def test_a_measured_weight_takes_the_place_of_the_prior():
    rig = maker(prior_weight=0.0)
    rig.advise(advice(p_yes=0.9))
    assert acting(rig.state, rig.market()) is None
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.4)))
    assert acting(rig.state, rig.market()) is rig.market().opinion
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.0)))
    assert acting(rig.state, rig.market()) is None


def test_a_weight_is_of_one_model_and_category():
    rig = maker(prior_weight=0.0)
    rig.advise(advice(p_yes=0.9))
    rig.send(ev.WeightUpdated("other", "", Skill(weight=0.4)), ev.WeightUpdated("gpt", "sports", Skill(weight=0.4)))
    assert acting(rig.state, rig.market()) is None


def test_a_bullish_view_bids_no_lower_and_asks_higher():
    calm, bull, bear = maker(), maker(), maker()
    bull.advise(advice("hold", 0.7, "bullish", p_yes=0.95))
    bear.advise(advice("hold", 0.7, "bearish", p_yes=0.05))
    for rig in (calm, bull, bear):
        rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.5)))
        settle(rig)
    (bid, _), (ask, _) = quotes(calm)
    assert quotes(bull)[0][0] >= bid and quotes(bull)[1][0] > ask
    assert quotes(bear)[0][0] < bid and quotes(bear)[1][0] <= ask


def test_below_the_minimum_confidence_passive_quoting_goes_on_without_a_target():
    rig = maker()
    rig.advise(advice("buy_yes", 0.5, "bullish"))
    settle(rig)
    assert len(rig.live()) == 2 and rig.market().opinion.target_net is None


def test_the_seed_rule_is_silent_there():
    rig = maker("touch", rule="seed")
    rig.advise(advice("buy_yes", 0.5, "bullish"))
    settle(rig)
    assert rig.live() == [] and "low confidence" in rig.state.refused


def test_high_risk_is_half_the_size():
    rig = maker()
    (_, size), _ = quotes(rig)
    rig.advise(advice("hold", risk_level=Grade.HIGH))
    settle(rig)
    assert quotes(rig)[0][1] == size // 2


def test_no_signal_ever_crosses():
    for signal in LOUD:
        rig = wild(maker(), signal)
        rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.5)))
        wild(rig, signal)
        assert all(p.post_only for p in places(rig.log))


def test_exit_leaves_at_any_confidence_as_maker_and_adds_nothing():
    rig = maker()
    rig.hold(Side.BUY, 4900, 50 * SHARE)
    rig.advise(advice("exit", 0.0))
    settle(rig)
    sell = rig.one(Side.SELL)
    assert sell.post_only and sell.remaining == 50 * SHARE and sell.price == rig.market().book.best_ask
    assert rig.live(Side.BUY) == [] and rig.market().exit_plan.exiting == "signal"
    rig.run(1_200)
    assert all(p.post_only for p in places(rig.log)), "not even after the patience of a stop"


def test_after_the_exit_the_market_is_quoted_again():
    rig = maker()
    rig.hold(Side.BUY, 4900, 50 * SHARE)
    rig.advise(advice("exit", 0.0))
    settle(rig)
    rig.fill(rig.one(Side.SELL))
    settle(rig)
    assert rig.market().position.net == 0 and len(rig.live()) == 2


def test_exit_of_dust_does_not_silence_the_market():
    rig = maker()
    rig.hold(Side.BUY, 4900, 2 * SHARE)
    rig.advise(advice("exit", 1.0))
    settle(rig)
    assert len(rig.live()) == 2 and not rig.market().exit_plan.exiting


def test_a_decision_brings_its_own_exit_plan():
    rig = maker()
    rig.advise(advice("buy_yes", 0.7, "bullish", stop_ratio=0.2, target_ratio=0.3))
    rig.hold(Side.BUY, 5000, 50 * SHARE)
    assert rig.market().exit_plan.stop_ratio == 0.2 and rig.market().exit_plan.targets == ((0.3, 1.0),)


def test_an_expired_decision_brings_none():
    rig = maker()
    rig.advise(advice("buy_yes", 0.7, "bullish", stop_ratio=0.2))
    rig.wait(3 * 7_200)
    rig.hold(Side.BUY, 5000, 50 * SHARE)
    assert rig.market().exit_plan.stop_ratio == 0.05


@pytest.mark.parametrize(("priority", "share"), [("high", 1.0), ("medium", 0.9), ("low", 0.8)])
def test_priority_orders_capital(priority, share):
    def bid(priced: Rig) -> int:
        priced.advise(advice(priority=Grade(priority)))
        priced.state.strategy_params = Wants(((1, 5000, 100 * SHARE),))
        priced.run(1)
        return priced.one(Side.BUY).qty

    # Gross cap $40: 80 shares at 0.50 for the highest priority.
    assert bid(Rig(gross_ratio=0.004).start()) == int(80 * share) * SHARE
    assert bid(Rig(gross_ratio=0.004, prior_weight=0.0).start()) == 80 * SHARE, "in shadow nothing is held back"


def test_an_order_names_the_decision_that_shaped_it():
    rig = maker()
    assert {p.decision_id for p in places(rig.log)} == {""}
    rig.advise(advice("hold", risk_level=Grade.HIGH))
    before = len(rig.log)
    settle(rig)
    assert {p.decision_id for p in places(rig.log[before:])} == {"d1"}


def test_a_signal_for_a_market_not_asked_about_is_refused():
    rig = Rig().start(binary("m"), binary("n"))
    rig.state.slow.pending, rig.state.slow.markets = "r", ["m"]
    rig.send(ev.SignalsReceived("r", "d", "gpt", "v1", (advice(market="n"), advice(market="nowhere"), advice(market="m"))))
    assert rig.market("n").opinion is None and rig.market("m").opinion is not None
    assert rig.state.refused["signal: not asked"].count == 2


def test_a_signal_without_a_trusted_book_is_refused():
    rig = Rig().start()
    rig.send(ev.FeedLost(("m",), "shard"))
    rig.advise(advice())
    assert rig.market().opinion is None and "signal: no trusted book" in rig.state.refused


def test_a_signal_never_changes_the_market_struct_it_did_not_come_for():
    rig = Rig().start(binary("m"), binary("n"))
    before = msgspec.json.encode(rig.market("n"))
    rig.advise(advice("buy_yes", 0.9, Bias.BULLISH.value, p_yes=0.9))
    assert msgspec.json.encode(rig.market("n")) == before
    assert of(rig.log, CancelOrder) == []
