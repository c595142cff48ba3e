"""What is learned of a model: known skill is found, none is found to be none, and little proof moves little."""

import json
import math
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.skill import Forecast, at, skill_key
from llm_maker.core.values import NS_PER_S, expit, logit
from llm_maker.report import platt
from llm_maker.report.skill_fit import Rules, measure
from llm_maker.report.slope import REFERENCE_S, UNBOUNDED, rows, student_quantile, through_zero

HOUR = 3_600 * NS_PER_S
DAY = 24 * HOUR
NOW = 20_100 * DAY
RULES = Rules(horizon_s=3_600)
LIVE = Rules(horizon_s=3_600, prior_weight=0.0, gate=True)
M = skill_key("m", "")


def forecast(**given):
    plain = {
        "ts": NOW - DAY, "decision_id": "d", "model": "m", "category": "c", "instrument": "i", "event_id": "", "role": "used",
        "p_yes": 0.6, "confidence": 0.7, "bias": 1, "x_market": 0.0,
    }  # fmt: skip
    told = Forecast(**plain | given)
    # Where the move is measured from; unless said otherwise nothing has happened until then.
    return msgspec.structs.replace(told, later={REFERENCE_S: told.x_market} | told.later) if told.later else told


def moment(dice, slope, *, day, event, hours=(1, 2, 5), instruments=2, noise=0.1, **given):
    """One event-day: instruments that share their news, a disagreement that lasts, opinions every half hour (they overlap)."""
    view = dice.gauss(0.0, 0.4)
    walk = [0.0]
    for _ in range(60):
        walk.append(walk[-1] + dice.gauss(0.0, noise / math.sqrt(2)))
    found = []
    for number in range(instruments):
        for half in (2 * h + k for h in hours for k in (0, 1)):
            d, x = view + dice.gauss(0.0, 0.2), 0.3 + walk[half]
            found.append(
                forecast(
                    **{
                        "ts": NOW - day * DAY + half * HOUR // 2,
                        "instrument": f"{event}/{number}",
                        "event_id": event,
                        "p_yes": expit(x + d),
                        "x_market": x,
                        "later": {3_600: x + slope * d + walk[half + 2] - walk[half]},
                    }
                    | given
                )
            )
    return found


def record(seed, slope, days, first_day=1, per_day=5, **given):
    dice = Random(seed)
    return [f for n in range(days) for f in moment(dice, slope, day=first_day + n // per_day, event=f"e{n % per_day}", **given)]


def test_known_skill_is_recovered_and_shrunk_by_event_days():
    skill = measure(record(1, 0.3, 400), now_ns=NOW, rules=Rules(recent_event_days=1_000))[M]
    assert skill.slope_low < 0.3 < skill.slope_high and skill.slope_high - skill.slope_low < 0.1
    assert skill.event_days == 400
    assert skill.signals == 400 * 2 * 3, "two instruments, three hours; the half hours overlap"
    assert skill.weight == pytest.approx((400 * skill.slope + 200 * 0.15) / 600)
    assert skill.why.startswith("measured: slope 0.") and skill.why.endswith(" in 400 event-days")


def test_more_skill_than_the_cap_is_capped_and_less_than_none_is_none():
    for slope, weight in ((2.0, 0.5), (-2.0, 0.0)):
        assert measure(record(2, slope, 300), now_ns=NOW, rules=RULES)[M].weight == weight


def coverage(seeds, days, slope):
    """How often the interval holds the truth, and the mean weight from a prior of 0."""
    hits, weights = 0, []
    for seed in seeds:
        skill = measure(record(seed, slope, days), now_ns=NOW, rules=Rules(prior_weight=0.0, recent_event_days=10_000))[M]
        hits += skill.slope_low <= slope <= skill.slope_high
        weights.append(skill.weight)
    return hits / len(seeds), sum(weights) / len(weights)


def test_without_skill_the_weight_is_near_zero_and_the_interval_holds_zero():
    share, weight = coverage(range(60), 20, 0.0)
    assert share >= 0.85  # 60 draws of 0.95: below this once in ten thousand
    assert weight < 0.01


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("days", "slope"), [(10, 0.0), (40, 0.0), (40, 0.2)])
def test_the_interval_holds_the_truth_at_its_nominal_rate(days, slope):
    share, _ = coverage(range(1_000), days, slope)
    print(f"{days} event-days, slope {slope}: covered {share:.1%} of 1,000")
    assert 0.93 <= share <= 0.98  # 0.95 +- 3 standard errors, and the jackknife is a little wide with ten


def test_event_days_and_not_calls_make_the_interval():
    # Ten times the opinions on the same news, and the same news in ten instruments, are no more proof.
    few, many = ([moment(Random(day), 0.0, day=day, event="e", instruments=n) for day in range(1, 31)] for n in (1, 10))
    narrow, wide = (measure([f for day in days for f in day], now_ns=NOW, rules=RULES)[M] for days in (many, few))
    assert narrow.event_days == wide.event_days == 30
    assert narrow.slope_high - narrow.slope_low > 0.5 * (wide.slope_high - wide.slope_low)


def test_the_same_opinion_many_times_within_the_horizon_counts_once():
    once = record(3, 0.3, 30, hours=(1,), instruments=1)
    loud = {f.event_id for f in once[:2]}
    often = [msgspec.structs.replace(f, ts=f.ts + n) for f in once for n in range(9 if f.event_id in loud else 1)]
    assert measure(often, now_ns=NOW, rules=RULES)[M].signals == measure(once, now_ns=NOW, rules=RULES)[M].signals == 30
    one, more = (measure(fs, now_ns=NOW, rules=RULES)[M] for fs in (once, often))
    assert (one.slope, one.slope_low, one.weight) == pytest.approx((more.slope, more.slope_low, more.weight))


def test_the_prior_stands_without_proof_and_gives_way_to_much():
    for prior in (0.0, 0.15):
        rules = Rules(prior_weight=prior)
        skill = measure([forecast()], now_ns=NOW, rules=rules)[M]
        assert (skill.weight, skill.why, skill.signals, skill.event_days) == (prior, "prior", 0, 0)
        one_day = measure(record(4, 0.4, 1), now_ns=NOW, rules=rules)[M]
        assert abs(one_day.weight - prior) < 0.01, "one event-day against two hundred"
        assert (one_day.slope_low, one_day.slope_high) == (-UNBOUNDED, UNBOUNDED)
    sure = measure(record(5, 0.4, 300), now_ns=NOW, rules=Rules(prior_weight=0.0, prior_signals=1e-9))[M]
    assert sure.weight == pytest.approx(sure.slope)
    deaf = measure(record(5, 0.4, 300), now_ns=NOW, rules=Rules(prior_signals=1e9))[M]
    assert deaf.weight == pytest.approx(0.15, abs=1e-6)


def test_a_category_is_shrunk_to_the_model_and_not_to_the_prior():
    rich, poor = record(6, 0.4, 300, category="rich"), record(7, 0.0, 5, category="poor", first_day=40)
    found = measure(rich + poor, now_ns=NOW, rules=Rules(prior_weight=0.0))
    assert set(found) == {M, "m|rich", "m|poor"}
    assert found[M].weight > 0.2
    assert found[M].weight - 0.02 < found["m|poor"].weight < found[M].weight, "five event-days against two hundred"


def test_the_order_of_the_record_changes_no_digit():
    forecasts = record(8, 0.2, 60) + record(9, 0.1, 20, category="other", p_yes=None) + record(10, 0.0, 20, model="n")
    expected = msgspec.json.encode(measure(forecasts, now_ns=NOW, rules=RULES))
    for seed in range(3):
        shuffled = Random(seed).sample(forecasts, len(forecasts))
        turned = [msgspec.structs.replace(f, later=dict(reversed(f.later.items()))) for f in shuffled]
        assert msgspec.json.encode(measure(turned, now_ns=NOW, rules=RULES)) == expected


def test_nothing_gives_nothing():
    assert measure([], now_ns=NOW, rules=RULES) == {}


def test_a_model_that_never_disagrees_keeps_the_prior():
    agreed = [forecast(ts=NOW - n * DAY, p_yes=0.5, later={3_600: 0.1}) for n in range(1, 200)]
    skill = measure(agreed, now_ns=NOW, rules=RULES)[M]
    assert (skill.weight, skill.why, skill.slope, skill.event_days) == (0.15, "prior", 0.0, 0)
    assert (skill.slope_low, skill.slope_high) == (-UNBOUNDED, UNBOUNDED)


def test_simulated_and_real_opinions_never_mix():
    with pytest.raises(AssertionError, match="simulated"):
        measure([forecast(), forecast(simulated=True)], now_ns=NOW, rules=RULES)
    with pytest.raises(AssertionError, match="horizons"):
        measure([], now_ns=NOW, rules=Rules(horizon_s=60))


def test_a_model_not_heard_of_for_a_season_is_forgotten_and_the_future_is_not_read():
    old, new = forecast(ts=NOW - 91 * DAY, model="old"), forecast(ts=NOW - 89 * DAY)
    late = forecast(ts=NOW + 1, model="late")
    assert set(measure([old, new, late], now_ns=NOW, rules=RULES)) == {M, "m|c"}


# The gate, and the switch-off.


def test_the_gate_lets_nothing_through_before_it_is_passed():
    few = measure(record(11, 0.4, 12), now_ns=NOW, rules=LIVE)
    assert (few[M].weight, few[M].why) == (0.0, "gate: 12 of 300 event-days")
    by_user = measure(record(11, 0.4, 12), now_ns=NOW, rules=msgspec.structs.replace(LIVE, user_weight=0.07))
    assert [by_user[key].weight for key in (M, "m|c")] == [0.07, 0.07]


def test_the_gate_gives_the_lower_bound_and_no_more():
    skill = measure(record(12, 0.3, 320), now_ns=NOW, rules=LIVE)[M]
    assert skill.slope_low < skill.weight < skill.slope, "one-sided 95 % lies between"
    assert skill.why.startswith("gate passed")
    rules = msgspec.structs.replace(LIVE, user_weight=0.02, recent_event_days=1_000)
    shut = measure(record(13, -0.05, 320), now_ns=NOW, rules=rules)[M]
    assert shut.weight == 0.02 and shut.why.startswith("gate: lower bound -0.")


def test_behind_a_passed_gate_a_small_category_follows_the_model_but_never_beyond_its_own_record():
    good, bad = record(14, 0.4, 320, category="good"), record(15, -0.5, 60, category="bad", first_day=70)
    found = measure(good + bad, now_ns=NOW, rules=LIVE)
    assert found[M].weight > 0.2
    assert found["m|bad"].weight < 0.8 * found[M].weight
    assert found["m|bad"].why.startswith("of all categories: gate passed")


@pytest.mark.parametrize("rules", [RULES, LIVE], ids=["paper", "live"])
def test_skill_that_has_gone_is_switched_off(rules):
    early, late = record(16, 0.5, 400, first_day=31), record(17, 0.0, 120)
    found = measure(early + late, now_ns=NOW, rules=rules)
    for key in (M, "m|c"):
        assert found[key].weight == 0.0 and found[key].why.startswith("no skill in 30 days: slope ")
    kept = measure(early + record(17, 0.0, 80), now_ns=NOW, rules=rules)[M]
    assert kept.weight > 0.2, "eighty event-days switch nothing off"


def test_a_category_without_proof_of_its_own_is_switched_off_with_the_model():
    late = record(18, 0.0, 120, category="much") + record(19, 0.0, 5, category="little")
    early = record(20, 0.5, 400, first_day=31, category="much") + record(21, 0.5, 50, first_day=31, category="little")
    little = measure(early + late, now_ns=NOW, rules=RULES)["m|little"]
    assert little.weight == 0.0 and little.why.startswith("of all categories: no skill in 30 days")


# Whose words, and whose weight.


def test_what_was_told_gives_the_weight_and_a_models_own_words_its_calibration():
    told = record(22, 0.3, 40)
    own = [msgspec.structs.replace(f, role="member", p_yes=0.9, outcome=1.0, instrument=f"q{n}") for n, f in enumerate(told)]
    both = measure(told + own, now_ns=NOW, rules=RULES)[M]
    alone = measure(told, now_ns=NOW, rules=RULES)[M]
    assert (both.weight, both.slope, both.signals) == (alone.weight, alone.slope, alone.signals), "what the core was told, as told"
    assert both.outcomes == 480 and both.platt != platt.IDENTITY and both.brier == pytest.approx(0.01)
    members = measure([msgspec.structs.replace(f, role="member") for f in told], now_ns=NOW, rules=RULES)[M]
    assert members == alone, "a member has a record too"


def test_what_was_told_is_not_calibrated_again_and_a_members_words_are():
    shouting = questions(7, 400, 0.0, 0.3, later={3_600: 0.5})
    told = measure([msgspec.structs.replace(f, role="used") for f in shouting], now_ns=NOW, rules=RULES)[M]
    found = measure(shouting, now_ns=NOW, rules=RULES)
    words, here = found[M], found["m|c"]
    assert told.platt == platt.IDENTITY and words.platt[1] < 0.6
    assert told.outcomes == words.outcomes == 400 and told.brier == words.brier, "the stated ones are scored"
    by_hand = [logit(here.calibrated(f.p_yes)) - f.x_market for f in shouting]
    prices = [expit(f.x_market) for f in shouting]
    moves = [(expit(0.5) - p) / (p * (1 - p)) for p in prices]
    assert words.slope == pytest.approx(sum(d * y for d, y in zip(by_hand, moves, strict=True)) / sum(d * d for d in by_hand))


def test_a_model_that_only_exaggerates_the_market_has_no_skill():
    """Fair prices that jump to their end: in log-odds they run away from 1/2, and to say so is no knowledge."""
    dice = Random(11)
    found = []
    for n in range(4_000):
        x = dice.gauss(0.0, 1.0)
        end = 5.0 if dice.random() < expit(x) else -5.0
        later = end if dice.random() < 0.3 else x
        found.append(forecast(instrument=f"q{n}", p_yes=expit(2.0 * x), x_market=x, later={3_600: later}, ts=NOW - DAY + n))
    skill = measure(found, now_ns=NOW, rules=RULES)[M]
    assert skill.slope_low < 0.0 < skill.slope_high and abs(skill.slope) < 0.05, "seed 11"


def test_the_weight_is_measured_on_the_disagreement_it_multiplies():
    dice = Random(12)
    raw = []
    for n in range(600):
        d, x = dice.gauss(0.0, 0.4), dice.gauss(0.0, 0.5)
        later = x + 0.02 * d + dice.gauss(0.0, 0.01)
        raw.append(forecast(instrument=f"q{n}", p_yes=expit(x + d), x_market=x, later={3_600: later}, ts=NOW - DAY + n))
    smoothed = [msgspec.structs.replace(f, role="used", d=0.2 * (logit(f.p_yes) - f.x_market)) for f in raw]
    bare, used = (measure(sample, now_ns=NOW, rules=RULES)[M].slope for sample in (raw, smoothed))
    assert used == pytest.approx(5.0 * bare), "seed 12"


# Against outcomes.


def questions(seed, count, alpha, beta, repeats=1, **given):
    """Resolved questions whose stated log-odds x mean alpha + beta x."""
    dice = Random(seed)
    found = []
    for n in range(count):
        x = dice.gauss(0.0, 1.5)
        happened = float(dice.random() < expit(alpha + beta * x))
        own = {"instrument": f"q{seed}/{n}", "p_yes": expit(x), "x_market": alpha + beta * x, "outcome": happened, "role": "member"}
        found += [forecast(**own, ts=NOW - DAY + k, **given) for k in range(repeats)]
    return found


def test_platt_finds_the_miscalibration_and_waits_for_two_hundred_questions():
    assert measure(questions(1, 199, 0.5, 0.5, repeats=3), now_ns=NOW, rules=RULES)[M].platt == platt.IDENTITY
    skill = measure(questions(1, 3_000, 0.5, 0.5), now_ns=NOW, rules=RULES)[M]
    assert skill.platt == pytest.approx((0.5, 0.5), abs=0.12)
    assert skill.outcomes == 3_000 and skill.brier_market < skill.brier
    shrunk, plain = (
        measure(questions(1, 200, 0.5, 0.5), now_ns=NOW, rules=Rules(platt_questions=q))[M].platt for q in (50.0, 1e-9)
    )
    assert shrunk[1] > plain[1] + 0.05 and abs(shrunk[0]) < abs(plain[0]), "fifty questions of the identity beside two hundred"


def test_a_category_is_calibrated_towards_the_model():
    many, few = questions(2, 2_000, 0.0, 0.5, category="many"), questions(3, 20, 1.0, 1.5, category="few")
    found = measure(many + few, now_ns=NOW, rules=RULES)
    whole, part = found[M].platt, found["m|few"].platt
    assert whole[1] < part[1] < 1.0 and part[0] > whole[0]


def test_a_question_weighs_one_however_often_it_was_asked():
    asked = questions(4, 300, 0.3, 0.6)
    again = asked + [msgspec.structs.replace(f, ts=f.ts + 1) for f in asked[:40] for _ in range(1)] * 9
    once, often = (measure(fs, now_ns=NOW, rules=RULES)[M] for fs in (asked, again))
    assert once.platt == pytest.approx(often.platt, abs=1e-9) and once.brier == pytest.approx(often.brier)
    assert once.outcomes == often.outcomes == 300


def test_brier_by_hand():
    rows = [
        forecast(instrument=i, p_yes=p, x_market=0.0, outcome=o) for i, p, o in (("a", 0.8, 1.0), ("b", 0.4, 0.0), ("b", 0.2, 0.0))
    ]
    skill = measure(
        [*rows, forecast(instrument="open"), forecast(instrument="bare", p_yes=None, outcome=1.0)], now_ns=NOW, rules=RULES
    )[M]
    assert (skill.outcomes, skill.brier_market) == (2, 0.25)
    assert skill.brier == pytest.approx((0.04 + (0.16 + 0.04) / 2) / 2)


# Confidence.


def test_trust_rises_with_a_confidence_that_means_something():
    sure, unsure = record(23, 0.5, 150, confidence=0.9), record(24, 0.1, 150, confidence=0.5, first_day=40)
    trust = measure(sure + unsure, now_ns=NOW, rules=RULES)[M].trust
    assert [upper for upper, _ in trust] == [0.5, 0.9]
    assert at(trust, 0.4, 1.0) < 0.8 and at(trust, 0.95, 1.0) > 1.2
    assert measure(record(23, 0.5, 45, confidence=0.9), now_ns=NOW, rules=RULES)[M].trust == (), "270 signals"
    behind = measure(sure + unsure, now_ns=NOW, rules=msgspec.structs.replace(LIVE, gate_event_days=100))[M]
    assert max(value for _, value in behind.trust) == 1.0, "behind the gate nothing counts for more than the lower bound"
    assert measure(record(25, 0.0, 300), now_ns=NOW, rules=RULES)[M].trust == (), "a ratio to a slope that may be 0"


def test_trust_that_falls_is_flat_and_never_more_than_ten_knots():
    sure, unsure = record(26, 0.1, 150, confidence=0.9), record(27, 0.5, 150, confidence=0.5, first_day=40)
    ((upper, value),) = measure(sure + unsure, now_ns=NOW, rules=RULES)[M].trust
    assert upper == 0.9 and value == pytest.approx(1.0, abs=0.05)
    dice = Random(28)
    spread = [f for n in range(300) for f in moment(dice, n / 300, day=1 + n, event="e", confidence=0.5 + n / 600)]
    trust = measure(spread, now_ns=NOW, rules=Rules(forget_days=1_000))[M].trust
    values = [value for _, value in trust]
    assert 2 < len(trust) <= 10 and values == sorted(values) and values[0] >= 0.0 and values[-1] <= 2.0


def biased(seed, days, move, confidence):
    dice = Random(seed)
    found = []
    for day in range(1, days + 1):
        bias = dice.choice((-1, 1))
        later = {3_600: bias * move + dice.gauss(0.0, 0.05)}
        found.append(forecast(ts=NOW - day * DAY, p_yes=None, bias=bias, confidence=confidence, later=later))
    return found


def test_a_bare_bias_is_worth_the_move_that_followed_it():
    found = measure(biased(1, 80, 0.2, 0.85) + biased(2, 80, 0.0, 0.65), now_ns=NOW, rules=RULES)[M]
    assert [upper for upper, _ in found.betas] == [0.6, 0.7, 0.8, 0.9, 1.0]
    assert at(found.betas, 0.85, 9.0) == pytest.approx(0.2 * 80 / 280, rel=0.1), "eighty event-days against two hundred at 0"
    assert at(found.betas, 0.65, 9.0) < 0.01 and at(found.betas, 0.5, 9.0) == 0.0
    assert found.slope_low > 0.0 and found.weight > 0.15, "and its slope is measured on the other half of the days"
    against = measure(biased(3, 80, -0.2, 0.85), now_ns=NOW, rules=RULES)[M]
    assert at(against.betas, 0.85, 9.0) == 0.0, "a bias that fails is not traded against"
    assert measure(record(1, 0.2, 5), now_ns=NOW, rules=RULES)[M].betas == ()


def test_a_bare_bias_is_not_judged_by_a_mean_made_of_itself():
    slopes = [measure(biased(seed, 40, 0.0, 0.85), now_ns=NOW, rules=RULES)[M].slope for seed in range(40)]
    up, down = sum(s > 0 for s in slopes), sum(s < 0 for s in slopes)
    assert up + down >= 20 and down >= 8, "in the days it was made of, a mean is never wrong"


# The pieces.


def test_the_standard_error_is_that_of_leaving_out_a_day():
    sample = rows(record(30, 0.2, 12), 3_600, lambda f: math.log(f.p_yes / (1 - f.p_yes)) - f.x_market)
    whole = through_zero(sample)
    days = sorted({row.event_day for row in sample})
    without = [through_zero([row for row in sample if row.event_day != day]).slope for day in days]
    error = math.sqrt(11 / 12 * sum((s - whole.slope) ** 2 for s in without))
    assert whole.high - whole.slope == pytest.approx(student_quantile(0.975, 11) * error)
    assert whole.slope - whole.bound == pytest.approx(student_quantile(0.95, 11) * error)


@pytest.mark.parametrize(
    "bad",
    [
        {"x_market": math.nan}, {"x_market": math.inf}, {"x_market": 1e300}, {"p_yes": math.nan}, {"p_yes": 1.5},
        {"confidence": math.nan}, {"later": {3_600: math.nan}}, {"later": {3_600: -1e300}},
    ],
)  # fmt: skip
def test_what_is_no_number_is_no_forecast(bad):
    good = record(31, 0.2, 30)
    odd = forecast(**{"instrument": "odd", "later": {3_600: 0.2}} | bad)
    assert measure([*good, odd], now_ns=NOW, rules=RULES) == measure(good, now_ns=NOW, rules=RULES)


ODD = st.builds(
    forecast,
    ts=st.integers(NOW - 40 * DAY, NOW),
    instrument=st.sampled_from("ab"),
    event_id=st.sampled_from(["", "e"]),
    category=st.sampled_from(["", "c"]),
    role=st.sampled_from(["used", "member"]),
    p_yes=st.one_of(st.none(), st.floats(0, 1), st.floats()),
    confidence=st.one_of(st.floats(0, 1), st.floats()),
    bias=st.sampled_from([-1, 0, 1]),
    x_market=st.one_of(st.floats(-5, 5), st.floats()),
    later=st.one_of(st.just({}), st.fixed_dictionaries({3_600: st.one_of(st.floats(-5, 5), st.floats())})),
    outcome=st.one_of(st.none(), st.floats(0, 1), st.floats()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ODD, max_size=20), st.booleans())
def test_whatever_the_record_holds_every_number_is_one(forecasts, gate):
    rules = Rules(gate=gate, gate_event_days=2, recent_event_days=3, platt_min=1, trust_min=1)
    found = measure(forecasts, now_ns=NOW, rules=rules)
    for skill in found.values():
        assert 0.0 <= skill.weight <= 0.5 and skill.why
        assert all(0.0 <= value <= 2.0 for _, value in skill.trust) and skill.platt[1] >= 0.05
        text = msgspec.json.encode(skill)
        assert "Infinity" not in json.dumps(msgspec.to_builtins(skill)) and "NaN" not in json.dumps(msgspec.to_builtins(skill))
        assert msgspec.json.decode(text, type=type(skill)) == skill, "null is what JSON makes of what is no number"
