"""The simulated analyst: as skilled as it is set, the same on every run, honest about being simulated."""

import math
import statistics

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.advice import Action, Bias
from llm_maker.core.commands import CancelOrder
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped
from llm_maker.core.values import NS_PER_S, expit, logit
from llm_maker.llm.simulated import SimulatedAnalyst
from tests.llm.samples import brief, request

VAR = 0.12**2
TRUTH = {f"m{i}": (i % 41 - 20) / 20 for i in range(3000)}


def make(r2=0.10, seed=7, truth=TRUTH.__getitem__, **kwargs):
    return SimulatedAnalyst(truth, seed=seed, error_variance=VAR, r2=r2, **kwargs)


def answered(analyst, command, now=0):
    analyst.execute(now, command)
    events = analyst.advance(analyst.next_ns())
    assert len(events) == 1
    return events[0]


def market(name, price=0.5, **changed):
    return brief(name, yes_price=price, **{"position": 0.0, "hours_to_end": 500.0} | changed)


def test_it_answers_after_its_latency_and_says_what_it_is():
    analyst = make()
    analyst.execute(5, CancelOrder("o", "m1", "not for us"))
    assert analyst.next_ns() is None
    analyst.execute(10, request(market("m1"), request_id="R1"))
    assert analyst.next_ns() == 10 + 2 * NS_PER_S
    assert analyst.advance(analyst.next_ns() - 1) == []
    (event,) = analyst.advance(analyst.next_ns())
    assert analyst.next_ns() is None
    assert (event.model, event.simulated, event.decision_id, event.cost) == ("simulated(R2=0.10)", True, "D-R1", 0)
    assert event.signals[0].reasoning.startswith("simulated")


def _regression(r2):
    """Slope of (truth - market) on (answer - market), and the correlation squared; the error has variance VAR."""
    from random import Random

    dice = Random("errors")
    errors = {name: dice.gauss(0.0, math.sqrt(VAR)) for name in TRUTH}
    analyst = make(r2, truth=lambda name: errors[name])
    event = answered(analyst, request(*[market(name, 0.5) for name in TRUTH]))
    e = [errors[s.market_id] for s in event.signals]
    d = [logit(s.p_yes) for s in event.signals]
    return statistics.linear_regression(d, e).slope, statistics.correlation(d, e) ** 2


def test_its_skill_is_the_one_that_was_set():
    for r2 in (0.05, 0.2, 0.5, 1.0):
        slope, found = _regression(r2)
        print(f"seed 7, {len(TRUTH)} markets: R2 {r2} found {found:.3f}, slope {slope:.3f}")
        assert abs(found - r2) < 0.04 and abs(slope - r2) < 0.04, "the calibrated weight is R2 itself"


def test_without_skill_it_knows_nothing_and_is_as_loud():
    slope, found = _regression(0.0)
    assert abs(slope) < 0.02 and found < 0.005
    event = answered(make(0.0), request(*[market(name, 0.3) for name in TRUTH]))
    d = [logit(s.p_yes) - logit(0.3) for s in event.signals]
    assert abs(statistics.fmean(d)) < 0.03
    assert abs(statistics.pstdev(d) - math.sqrt(VAR / 0.10)) < 0.02


def test_half_of_the_noise_stays_with_the_market():
    analyst = make(0.2)
    noise = []
    for _ in range(2):
        event = answered(analyst, request(*[market(name) for name in TRUTH]))
        noise.append([logit(s.p_yes) - TRUTH[s.market_id] for s in event.signals])
    assert abs(statistics.correlation(*noise) - 0.5) < 0.05
    assert abs(statistics.pvariance(noise[0]) - VAR * 4.0) < 0.006


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.001, 0.999),
    st.floats(-6, 6),
    st.sampled_from([0.0, 0.01, 0.1, 0.9, 1.0]),
    st.floats(-100, 100),
    st.integers(),
)
def test_its_answers_do_not_contradict_themselves(price, x, r2, position, seed):
    analyst = make(r2, seed=seed, truth=lambda _: x)
    (s,) = answered(analyst, request(market("m1", price, position=position))).signals
    assert 0 < s.p_low <= s.p_yes <= s.p_high < 1 and 0.5 <= s.confidence <= 1.0
    if s.action in (Action.BUY_YES, Action.SELL_NO):
        assert s.directional_bias is Bias.BULLISH and s.p_low > max(price, 0.005) - 1e-12
    if s.action in (Action.BUY_NO, Action.SELL_YES):
        assert s.directional_bias is Bias.BEARISH and s.p_high < min(price, 0.995) + 1e-12
    assert (s.action is Action.SELL_NO) <= (position < 0) and (s.action is Action.SELL_YES) <= (position > 0)


def test_it_uses_all_its_actions_and_its_confidence_grows_with_the_edge():
    analyst = make(1.0, truth=lambda _: logit(0.6))
    actions = {}
    for price, position in ((0.5, 0.0), (0.7, 0.0), (0.7, 9.0), (0.5, -9.0), (0.6, 0.0)):
        (s,) = answered(analyst, request(market("m1", price, position=position))).signals
        actions[(price, position)] = str(s.action)
    assert list(actions.values()) == ["buy_yes", "buy_no", "sell_yes", "sell_no", "hold"]
    confidence = [answered(analyst, request(market("m1", p))).signals[0].confidence for p in (0.59, 0.55, 0.5, 0.4)]
    assert confidence == sorted(confidence) and confidence[0] < 0.6 < confidence[-1]


def test_a_linear_instrument_gets_no_view():
    (s,) = answered(make(), request(market("BTC", 68000.12, kind="linear"))).signals
    assert (s.action, s.directional_bias, s.confidence, s.p_yes) == (Action.HOLD, Bias.NEUTRAL, 0.0, None)


def test_scripted_and_random_failures():
    analyst = make(outcomes=("timeout", "malformed", "silence", "ok"))
    got = []
    for i in range(5):
        analyst.execute(i * NS_PER_S * 10, request(market("m1"), request_id=f"R{i}"))
        if analyst.next_ns() is not None:
            got += analyst.advance(analyst.next_ns())
    assert [getattr(e, "reason", "ok") for e in got] == ["timeout", "malformed", "ok", "ok"]
    assert isinstance(got[0], SignalsFailed) and [e.request_id for e in got] == ["R0", "R1", "R3", "R4"]
    empty = request(market("m1")).__class__("R9", (), request(market("m1")).portfolio, "interval")
    assert answered(make(), empty) == SignalsSkipped("R9", "empty_agenda")
    flaky = make(fail_ppm=250_000)
    failed = sum(isinstance(answered(flaky, request(market("m1"))), SignalsFailed) for _ in range(400))
    assert 70 <= failed <= 130


def test_a_draw_depends_on_its_market_alone():
    alone = answered(make(), request(market("m5"))).signals[0]
    among = answered(make(), request(market("m1"), market("m5"), market("m9"))).signals[1]
    assert alone == among
    assert answered(make(seed=8), request(market("m5"))).signals[0] != alone


def test_a_checkpoint_continues_as_if_nothing_had_happened():
    one, two = make(), make()
    for analyst in (one, two):
        answered(analyst, request(market("m2"), market("m1")))
        analyst.execute(100, request(market("m1"), request_id="R2"))
    resumed = make()
    resumed.restore(one.checkpoint())
    assert resumed.checkpoint() == two.checkpoint()
    later = request(market("m2"), market("m1"), request_id="R3")
    for analyst in (resumed, two):
        analyst.execute(200, later)
    assert resumed.advance(10**12) == two.advance(10**12) != []
    assert isinstance(answered(resumed, later), SignalsReceived)
    assert expit(0.0) == 0.5
