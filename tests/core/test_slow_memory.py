"""What the slow loop remembers, what wakes it, and how measured skill, disagreement and shares of capital reach the quotes."""

from __future__ import annotations

import msgspec
import pytest

from llm_maker.core import events as ev
from llm_maker.core.agenda import END_HOURS
from llm_maker.core.brief import LEVELS, MAX_PAST, brief
from llm_maker.core.commands import RequestSignals
from llm_maker.core.quote import effective
from llm_maker.core.skill import Skill, at, skill_of
from llm_maker.core.state import weight_of
from llm_maker.core.values import NS_PER_S, RewardRule, Side, expit, logit
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from tests.core.builders import SHARE, Rig, advice, binary, of

HOUR = 3_600 * NS_PER_S


def rig_of(*instruments, **changes) -> Rig:
    rig = Rig(strategy=Maker(), wants=MakerParams(), **changes).start(*instruments or (binary(),))
    rig.move(5000)
    rig.run(1)
    return rig


def brief_of(rig: Rig):
    return brief(rig.state, rig.market(), rig.now)


def test_a_decision_is_remembered_with_what_became_of_it():
    rig = rig_of()
    rig.advise(advice("buy_yes", 0.8, "bullish", p_yes=0.6))
    rig.wait(100)
    rig.hold(Side.BUY, 4900, 10 * SHARE)
    rig.move(5200)
    (past,) = brief_of(rig).past
    assert (past.action, past.confidence, past.p_yes) == ("buy_yes", 0.8, 0.6)
    assert past.age_s == 100 and past.price == 0.5 and past.moved == pytest.approx(0.02) and past.filled == 10
    assert past.pnl_usd == pytest.approx(10 * 0.03)


def test_the_newest_decisions_come_first_and_the_oldest_go():
    rig = rig_of()
    for n in range(MAX_PAST + 2):
        rig.advise(advice("hold", 0.5 + n / 100))
        rig.wait(10)
    assert [round(p.confidence, 2) for p in brief_of(rig).past] == [0.55, 0.54, 0.53, 0.52]


def test_a_refused_signal_is_not_remembered():
    rig = rig_of()
    rig.advise(advice("buy_yes", 0.8, "bearish"))
    assert brief_of(rig).past == ()


def test_the_brief_shows_the_book_our_quotes_and_the_reward():
    rig = rig_of(binary(reward=RewardRule(300, 20 * SHARE, 5_000_000)))
    told = brief_of(rig)
    assert told.bids[0] == (0.49, 500.0) and len(told.bids) <= LEVELS and len(told.asks) <= LEVELS
    assert told.asks[0][0] > told.bids[0][0]
    assert (told.reward_usd_per_day, told.reward_max_spread, told.reward_min_size) == (5.0, 0.03, 20.0)
    ours = rig.live(Side.BUY)[0]
    assert told.own_bid == (ours.price / 10_000, ours.remaining / SHARE) and told.own_ask is not None


def losing(cents: int) -> Rig:
    rig = rig_of()
    rig.hold(Side.BUY, 5000, 50 * SHARE)
    rig.market().trigger = ""
    rig.move(5000 - cents * 100)
    rig.run(2)
    return rig


def test_a_stop_that_comes_near_wakes_the_model_once_an_approach():
    assert losing(1).market().trigger == "", "2 % of 5 % is not near"
    rig = losing(2)
    assert rig.market().trigger == "near stop"
    rig.market().trigger = ""
    rig.run(5)
    assert rig.market().trigger == ""
    rig.move(4900)
    rig.run(2)
    rig.move(4800)
    rig.run(2)
    assert rig.market().trigger == "", "it was not away"
    rig.move(5000)
    rig.run(2)
    rig.move(4800)
    rig.run(2)
    assert rig.market().trigger == "near stop"


def test_what_woke_the_model_is_not_lost_when_it_fails():
    rig = rig_of(enabled=True)
    (request,) = of(rig.run(60), RequestSignals)
    rig.send(ev.SignalsReceived(request.request_id, "d", "gpt", "v1", (advice("hold"),)))
    rig.market().trigger = "near stop"
    (again,) = of(rig.run(11), RequestSignals)
    assert again.reason == "near stop"
    rig.send(ev.SignalsFailed(again.request_id, "d2", "timeout"))
    assert of(rig.run(30), RequestSignals) == [], "a model that failed is asked at its rhythm"
    (later,) = of(rig.run(16), RequestSignals)
    assert later.reason == "asked again" and later.markets[0].market_id == "m"


def test_an_answer_that_met_a_gap_is_asked_for_again_when_the_book_is_back():
    rig = rig_of(enabled=True)
    (request,) = of(rig.run(60), RequestSignals)
    rig.send(ev.FeedLost(("m",), "test"))
    rig.send(ev.SignalsReceived(request.request_id, "d", "gpt", "v1", (advice("hold"),)))
    assert rig.market().opinion is None
    assert of(rig.run(30), RequestSignals) == []
    rig.move(5000)
    (again,) = of(rig.run(46), RequestSignals)
    assert again.reason == "asked again"


def test_an_end_that_comes_near_wakes_the_model_at_each_hour_named():
    rig = rig_of()
    instrument = rig.market().instrument
    rig.send(ev.InstrumentListed(msgspec.structs.replace(instrument, end_ns=rig.now + 50 * HOUR)))
    rig.run(2)
    assert rig.market().trigger == "", "to be listed late is no approach"
    for hours in END_HOURS:
        rig.now = rig.market().instrument.end_ns - hours * HOUR
        rig.run(2)
        assert rig.market().trigger == "end near", hours
        rig.market().trigger = ""
        rig.run(2)
        assert rig.market().trigger == ""


def test_a_market_listed_near_its_end_is_no_approach():
    rig = rig_of(binary(end_ns=Rig().now + 10 * HOUR))
    assert rig.market().trigger == "" and rig.market().end_stage == 2


def opinion_of(rig: Rig):
    return effective(rig.state, rig.market(), rig.now)


def test_a_category_without_a_record_takes_the_models_own():
    skills = {"gpt|": Skill(weight=0.3), "gpt|sports": Skill(weight=0.1)}
    assert skill_of(skills, "gpt", "sports").weight == 0.1
    assert skill_of(skills, "gpt", "politics").weight == 0.3
    assert skill_of(skills, "claude", "sports") is None


def test_measured_trust_in_a_stated_confidence_scales_the_weight():
    rig = rig_of(prior_weight=0.0)
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.4, trust=((0.5, 0.25), (1.0, 1.5)))))
    rig.advise(advice("hold", 0.5, p_yes=0.8))
    assert weight_of(rig.state, rig.market()) == pytest.approx(0.1)
    rig.advise(advice("hold", 0.9, p_yes=0.8))
    assert weight_of(rig.state, rig.market()) == pytest.approx(0.6)
    assert opinion_of(rig).weight == pytest.approx(0.5), "and never more than the maximum"


def test_knots_hold_beyond_the_last():
    assert at((), 0.9, 1.0) == 1.0 and at(((0.5, 0.2), (0.8, 0.7)), 0.95, 1.0) == 0.7 and at(((0.5, 0.2),), 0.5, 1.0) == 0.2


def test_a_bare_bias_moves_as_far_as_it_was_measured_to():
    rig = rig_of()
    rig.advise(advice("hold", 0.9, "bearish"))
    assert opinion_of(rig).shift == 0.0, "no guess before it is measured"
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.5, betas=((0.7, 0.1), (1.0, 0.4)))))
    rig.advise(advice("hold", 0.9, "bearish"))
    assert rig.market().opinion.raw_d == pytest.approx(-0.4)


def test_models_that_disagree_quote_wider_and_smaller():
    calm, torn = rig_of(), rig_of()
    calm.advise(advice("hold", 0.7, p_yes=0.5))
    torn.advise(advice("hold", 0.7, p_yes=0.5, disagreement=2.0))
    assert opinion_of(torn).widen == pytest.approx(1.5) and opinion_of(torn).size_ratio == pytest.approx(0.5)
    assert opinion_of(calm).widen == 1.0 and opinion_of(calm).size_ratio == 1.0
    half = rig_of()
    half.advise(advice("hold", 0.7, p_yes=0.5, disagreement=0.5))
    assert opinion_of(half).widen == pytest.approx(1.25)


def shared(share: float, *, action: str = "buy_yes", p: float = 0.9, weight: float = 0.5) -> int:
    rig = rig_of(prior_weight=weight)
    bias = "bullish" if action == "buy_yes" else "bearish"
    rig.advise(advice(action, 0.9, bias, p_yes=p, share=share))
    return rig.market().opinion.target_net / SHARE


def test_a_share_of_the_capital_is_bounded_by_kelly_and_the_cap():
    rig = rig_of()
    bank = rig.state.params.risk.bankroll / 1e6
    d = rig.state.params.signals.smoothing * logit(0.9)
    kelly = 0.1 * bank * (expit(0.5 * d) - 0.5) / 0.25
    cap = rig.state.params.risk.max_position_milli / 1000
    assert 0 < shared(0.001) <= 0.001 * bank / 0.5
    assert shared(1.0) <= min(kelly, cap) and shared(1.0) > 0.9 * min(kelly, cap)
    assert shared(1.0, action="buy_no", p=0.1) == -shared(1.0)
    assert shared(0.0) == 0
    assert shared(1.0, weight=0.0) == 0, "an opinion in shadow moves nothing"


def test_a_share_never_takes_back_what_is_held():
    rig = rig_of()
    rig.hold(Side.BUY, 5000, 100 * SHARE)
    rig.advise(advice("buy_yes", 0.9, "bullish", p_yes=0.9, share=0.0))
    assert rig.market().opinion.target_net == 100 * SHARE


def test_a_doubtful_exit_is_obeyed_without_crossing():
    """An exit at confidence 0.01 pulls us out as maker: no answer of a model causes an order that takes."""
    rig = rig_of()
    rig.hold(Side.BUY, 4900, 50 * SHARE)
    rig.advise(advice("exit", 0.01, "bearish", p_yes=0.01))
    rig.run(900)
    sells = [c for c in rig.log if type(c).__name__ == "PlaceOrder"]
    assert sells and all(c.post_only for c in sells)


@pytest.mark.parametrize(("weight", "part"), [(0.5, 1.0), (0.15, 1.0), (0.075, 0.5), (0.015, 0.1)])
def test_a_small_weight_moves_positions_and_sizes_by_its_share(weight, part):
    rig = rig_of(prior_weight=0.0)
    rig.hold(Side.BUY, 5000, 10 * SHARE)
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=weight)))
    rig.advise(advice("buy_yes", 1.0, "bullish", p_yes=0.9))
    whole = rig.market().opinion.target_net - 10 * SHARE
    assert whole == 75 * SHARE
    view = opinion_of(rig)
    assert view.target_net == pytest.approx(part * (whole + 10 * SHARE), abs=1)
    assert view.size_ratio == pytest.approx(1.0 + part * 0.5)


def test_an_exit_is_wanted_whole_whatever_the_weight():
    rig = rig_of(prior_weight=0.001)
    rig.hold(Side.BUY, 5000, 50 * SHARE)
    rig.advise(advice("exit", 0.9, "bearish", p_yes=0.2))
    assert opinion_of(rig).target_net == 0 and opinion_of(rig).exit
