"""The bandit: it finds the better arm and keeps looking, the same dice give the same choice, and loud arms win nothing by luck."""

import math
from collections import Counter
from random import Random

import msgspec
import pytest

from llm_maker.core.skill import Forecast
from llm_maker.core.values import NS_PER_S, expit, logit
from llm_maker.llm.bandit import EXPLORED, HALF_LIFE_NS, Bandit, Record, arm_of, records

HOUR = 3_600 * NS_PER_S
DAY = 24 * HOUR
T0 = 20_000 * DAY
NOW = T0 + 2 * DAY


def forecast(**changed):
    fields = {
        "ts": T0, "decision_id": "D1", "model": "m", "category": "", "instrument": "i", "event_id": "", "role": "member",
        "p_yes": 0.7, "confidence": 0.6, "bias": 1, "x_market": 0.0, "later": {3_600: 0.2}, "prompt_version": "p",
    }  # fmt: skip
    told = Forecast(**fields | changed)
    # Where the later move is measured from; unless said otherwise nothing has happened until then.
    return msgspec.structs.replace(told, later={300: told.x_market} | told.later) if told.later else told


def only(*forecasts, now=NOW, **more):
    (record,) = records(forecasts, now, **more).values()
    return record


def worth(x, p_yes, target, w=0.15):
    return (expit(x) - target) ** 2 - (expit(x + w * (logit(p_yes) - x)) - target) ** 2


# What an opinion was worth.


def test_one_opinion():
    assert records([forecast()], NOW) == {"m@p": only(forecast())} and arm_of("m", "p") == "m@p"
    record = only(forecast())
    assert record.mean == pytest.approx(worth(0.0, 0.7, expit(0.2))) and record.mean > 0 and record.var < 1e-30
    assert record.n == pytest.approx(0.5 ** (2 / 30))
    assert only(forecast(later={3_600: -0.2})).mean < 0
    assert only(forecast(later={3_600: 0.0})).mean < 0, "a disagreement that nothing bears out costs"
    assert only(forecast(p_yes=0.5)).mean == 0


def test_for_small_moves_it_is_the_log_odds_formula_in_units_of_price():
    x, y, d, w = logit(0.3), 0.01, 0.02, 0.15
    got = only(forecast(x_market=x, p_yes=expit(x + d), later={3_600: x + y})).mean
    assert got == pytest.approx((0.3 * 0.7) ** 2 * (y**2 - (y - w * d) ** 2), rel=0.02)


def test_the_outcome_goes_before_the_horizon():
    late = forecast(outcome=0.0)
    assert only(late).mean == pytest.approx(worth(0.0, 0.7, 0.0)) and only(late).mean < 0 < only(forecast()).mean
    assert only(forecast(outcome=1.0, later={})).mean > 0


def test_against_a_fair_later_price_the_expected_value_is_that_against_the_outcome():
    """E over the outcome, given the price at the horizon: exact, and so both may stand in one mean."""
    for x, p_yes, later in ((0.4, 0.9, 1.3), (-2.0, 0.02, -4.0), (3.0, 0.1, 0.5)):
        price = expit(later)
        against_outcome = price * worth(x, p_yes, 1.0) + (1 - price) * worth(x, p_yes, 0.0)
        assert worth(x, p_yes, price) == pytest.approx(against_outcome, abs=1e-15)


def test_one_value_for_each_event_and_day():
    same_day = [forecast(instrument=f"i{k}", event_id="e", p_yes=p, ts=T0 + k * HOUR) for k, p in enumerate((0.6, 0.8))]
    record = only(*same_day)
    assert record.n == pytest.approx(0.5 ** ((NOW - T0 - HOUR) / HALF_LIFE_NS))
    assert record.mean == pytest.approx((worth(0, 0.6, expit(0.2)) + worth(0, 0.8, expit(0.2))) / 2)
    apart = [forecast(), forecast(instrument="j"), forecast(ts=T0 + DAY)]
    assert only(*apart).n == pytest.approx(2 * 0.5 ** (2 / 30) + 0.5 ** (1 / 30))


def test_the_days_of_one_outcome_are_one_throw():
    assert only(*(forecast(ts=T0 - k * DAY, outcome=1.0) for k in range(30)), now=T0).n == 1.0


def test_what_cannot_be_judged_is_left_out():
    nan = math.nan
    silent = [
        forecast(p_yes=None), forecast(later={}), forecast(later={300: 1.0}), forecast(ts=NOW + 1), forecast(ts=NOW - HOUR + 1),
        forecast(p_yes=nan), forecast(x_market=nan), forecast(later={3_600: nan}), forecast(outcome=nan),
        forecast(x_market=math.inf), forecast(ts=T0 - 400 * DAY),
    ]  # fmt: skip
    assert records(silent, NOW) == {}
    assert records([forecast(p_yes=p, x_market=x) for p in (0.0, 1.0, -5.0, 1e308) for x in (-800.0, 800.0)], NOW)


def test_a_members_own_answer_goes_before_the_pooled_one():
    pooled = forecast(role="used", model="pool", p_yes=0.6)
    assert set(records([pooled, forecast()], NOW)) == {"m@p"}
    assert set(records([pooled], NOW)) == {"pool@p"}, "one model alone has no members"


def test_what_is_old_counts_less():
    old, new = forecast(later={3_600: -2.0}), forecast(ts=T0 + 60 * DAY, later={3_600: 2.0})
    record = only(old, new, now=T0 + 60 * DAY + HOUR)
    assert record.n == pytest.approx(1.25, rel=0.01)
    assert record.mean == pytest.approx((worth(0, 0.7, expit(-2)) + 4 * worth(0, 0.7, expit(2))) / 5, rel=0.01)


# Choosing.


def shares(bandit, known, requests=4_000):
    chosen = Counter(bandit.choose(f"R{k}", known) for k in range(requests))
    return {arm: count / requests for arm, count in chosen.items()}


def test_the_same_request_chooses_the_same_arm():
    known = {"a": Record(40, 1e-4, 1e-5), "b": Record(30, 0.0, 1e-5)}
    choices = [Bandit(["a", "b", "c"], seed=7).choose(f"R{k}", known) for k in range(200)]
    again = Bandit(["c", "b", "a"], seed=7)
    for k in reversed(range(200)):
        again.choose("another", known)
        assert again.choose(f"R{k}", dict(reversed(known.items()))) == choices[k]
    assert choices != [Bandit(["a", "b", "c"], seed=8).choose(f"R{k}", known) for k in range(200)]
    assert "".join(choices[:12]) == "acbabcbbcbaa", "a replay of a recorded day would choose otherwise"


def test_nothing_known_is_equal_shares():
    found = shares(Bandit(["a", "b", "c", "d"], seed=1), {})
    assert all(abs(share - 0.25) < 0.03 for share in found.values()), found


def test_equal_arms_have_equal_shares():
    found = shares(Bandit(["a", "b", "c"], seed=2), dict.fromkeys("abc", Record(200, 3e-4, 1e-5)))
    assert all(abs(share - 1 / 3) < 0.035 for share in found.values()), found


def test_no_arm_starves():
    hopeless = {"a": Record(500, 1e-2, 1e-6), "b": Record(500, -1e-2, 1e-6)}
    found = shares(Bandit(["a", "b"], seed=3), hopeless, 20_000)
    assert found["b"] == pytest.approx(EXPLORED / 2, abs=0.006)


def test_a_new_arm_is_tried_and_one_left_behind_is_forgotten():
    known = {"old": Record(300, -1e-3, 1e-5), "retired": Record(300, 9.0, 1e-5)}
    found = shares(Bandit(["old", "new"], seed=4), known)
    assert found["new"] > 0.6 and "retired" not in found
    good = shares(Bandit(["old", "new"], seed=4), {"old": Record(300, 4e-3, 1e-5)})
    assert EXPLORED / 2 < good["new"] < 0.5


@pytest.mark.parametrize("record", [Record(0.0, 0.0, 0.0), Record(1e-9, 1.0, 0.0), Record(1e9, 0.0, 0.0), Record(3.0, 1.0, 1e6)])
def test_no_record_is_an_exception(record):
    assert Bandit(["a", "b"], seed=5).choose("R", {"a": record}) in "ab"
    assert Bandit(["a"], seed=5).choose("R", {}) == "a"


# In a world: a market with an error e that it half mends within the hour, and arms that see e through noise.

_SD = 0.3


def says(kind, dice, x, e):
    noise = {"good": 0.4, "fair": 1.2}.get(kind)
    if noise is not None:
        return expit(x + e + dice.gauss(0, noise))
    if kind == "placebo":
        return expit(x + dice.gauss(0, 0.5))
    if kind == "liar":
        return 0.995 if dice.random() < 0.5 else 0.005
    assert kind == "exaggerates"
    return expit(2.5 * x)


def opinion(kind, dice, name, ts, *, outcomes=0.0):
    x = logit(dice.uniform(0.05, 0.95))
    e = dice.gauss(0, _SD)
    later = x + 0.5 * e + dice.gauss(0, 0.15)
    outcome = float(dice.random() < expit(x + e)) if dice.random() < outcomes else None
    return forecast(
        ts=ts,
        decision_id=name,
        instrument=name,
        model=kind,
        x_market=x,
        p_yes=says(kind, dice, x, e),
        later={3_600: later},
        outcome=outcome,
    )


def run(kinds, *, seed, days, per_day=16, outcomes=0.0):
    """Days of requests of two markets each; who was chosen on each day."""
    dice, log, chosen = Random(f"world:{seed}"), [], []
    bandit = Bandit([arm_of(kind, "p") for kind in kinds], seed=seed)
    for day in range(days):
        known = records(log, T0 + day * DAY)
        chosen.append(Counter())
        for k in range(per_day):
            kind = bandit.choose(f"R{day}:{k}", known).removesuffix("@p")
            chosen[-1][kind] += 1
            log += [opinion(kind, dice, f"{day}:{k}:{i}", T0 + day * DAY + k * HOUR, outcomes=outcomes) for i in range(2)]
    return chosen


def true_means(kinds, count=20_000):
    means = {}
    for kind in kinds:
        dice = Random(f"mean:{kind}")
        record = only(*(opinion(kind, dice, f"{k}", T0) for k in range(count)))
        means[kind] = record.mean
    return means


def regret(chosen, means):
    best = max(means.values())
    return sum(count * (best - means[kind]) for day in chosen for kind, count in day.items())


def test_it_converges_to_the_better_arm():
    kinds = ("good", "fair", "placebo")
    means = true_means(kinds)
    assert means["good"] > means["fair"] and means["good"] > 0 > means["placebo"]
    totals = []
    for seed in range(3):
        chosen = run(kinds, seed=seed, days=30)
        late = sum(chosen[20:], Counter())
        uniform = 30 * 16 * sum(max(means.values()) - mean for mean in means.values()) / 3
        totals.append(regret(chosen, means) / uniform)
        print(f"seed {seed}: regret {regret(chosen, means):.4f} of {uniform:.4f} at equal shares; last ten days {dict(late)}")
        assert late["good"] / late.total() > 0.6, late
        assert all(sum(chosen, Counter())[kind] >= 5 for kind in kinds), "all are explored"
    assert sum(totals) / 3 < 0.6, totals


@pytest.mark.parametrize("outcomes", [0.0, 1.0])
def test_a_loud_liar_does_not_win_by_variance(outcomes):
    shares_of = []
    for seed in range(3):
        late = sum(run(("fair", "liar"), seed=seed, days=30, outcomes=outcomes)[15:], Counter())
        shares_of.append(late["liar"] / late.total())
    print(f"outcomes {outcomes}: the liar's share of the last 15 days {[round(s, 3) for s in shares_of]}")
    assert max(shares_of) < 0.2


def test_a_lucky_tail_is_no_fortune():
    """Always YES at a fair price of half a cent: one in two hundred pays, and the rest were wrong by little."""
    dice = Random(11)
    lottery = [
        forecast(instrument=f"{k}", x_market=logit(0.005), p_yes=0.995, outcome=float(dice.random() < 0.005)) for k in range(400)
    ]
    lucky = msgspec.structs.replace(lottery[0], outcome=1.0)
    assert only(*lottery).mean < 0
    assert only(*lottery[1:200], lucky).mean < 2e-4, "no value leaves the square of the pooled price's move"


def test_exaggerating_a_fair_market_is_not_paid():
    """Prices that jump to their end are fair in price and drift outward in log-odds; there the same arm would earn."""
    dice = Random(12)
    told, in_log_odds = [], []
    for k in range(20_000):
        p = dice.uniform(0.05, 0.95)
        x, steps = logit(p), [0.005, 0.995]
        later = logit(steps[dice.random() < (p - 0.005) / 0.99])
        d = logit(expit(2.5 * x)) - x
        told.append(forecast(instrument=f"{k}", x_market=x, p_yes=expit(2.5 * x), later={3_600: later}))
        in_log_odds.append((later - x) ** 2 - (later - x - 0.15 * d) ** 2)
    record = only(*told)
    mean = math.fsum(in_log_odds) / len(in_log_odds)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in in_log_odds)) / len(in_log_odds)
    print(f"log-odds {mean:+.4f} (se {error:.4f}); price {record.mean:+.5f} (se {math.sqrt(record.var / record.n):.5f})")
    assert mean > 10 * error and record.mean < 2 * math.sqrt(record.var / record.n)
