"""Two accounts compared: the arithmetic to the cash unit, the verdict only where there is one, nothing where there is nothing."""

from random import Random

import msgspec
import pytest

from llm_maker.core.values import CASH_PER_USD
from llm_maker.report.paired import DAY_NS, HOUR_NS, MIN_DAYS, Paired, against, by_market, daily, lines, paired, partial
from llm_maker.report.track import Fill, Money, Point, Quoted, Track

T0 = 20_000 * DAY_NS
SEED = 20_261_121
USD = CASH_PER_USD
CASH = 1_000 * USD


def track(points, *, start=T0, end=None, name="a", transfers=(), costs=()):
    """A record with these (ns after `start`, equity less start cash); its end is the last point unless told."""
    told = [Point(start + after, CASH + pnl, CASH) for after, pnl in points]
    return Track(
        label={"account": name}, start_ns=start, end_ns=told[-1].ts if end is None else end, start_cash=CASH,
        equity=told[-1].equity, exit_equity=told[-1].equity, flows={}, counts={}, points=told,
        money=[Money(ts=ts, kind="transfer", amount=amount) for ts, amount in transfers], model_costs=list(costs),
    )  # fmt: skip


def days(gains, *, name="a", per_day=24, **given):
    """A day's gain each, spread over `per_day` points; whole days."""
    points, level = [], 0
    for day, gain in enumerate(gains):
        for k in range(1, per_day + 1):
            points.append((day * DAY_NS + k * DAY_NS // per_day, level + gain * k // per_day))
        level += gain
    return track(points, name=name, **given)


def luck(seed, n, level=0, sd=3):
    dice = Random(seed)
    return [int(dice.gauss(level, sd) * USD) for _ in range(n)]


def test_a_day_is_what_equity_moved_by_in_it():
    gains = luck(SEED, 12)
    assert daily(days(gains)) == {T0 + i * DAY_NS: gain for i, gain in enumerate(gains)}
    by_hour = daily(days(gains), step_ns=HOUR_NS)
    assert len(by_hour) == 12 * 24 and sum(by_hour.values()) == sum(gains) and all(k % HOUR_NS == 0 for k in by_hour)


def test_what_was_moved_in_or_out_is_no_gain():
    moved = days([5 * USD, 7 * USD, -2 * USD])
    paid_in = msgspec.structs.replace(
        moved,
        points=[Point(p.ts, p.equity + 100 * USD * (p.ts >= T0 + DAY_NS + HOUR_NS), p.cash) for p in moved.points],
        equity=moved.equity + 100 * USD,
        money=[
            Money(ts=T0 + DAY_NS + HOUR_NS, kind="transfer", amount=100 * USD),
            Money(ts=T0 + 5, kind="reward", amount=3 * USD),
        ],
    )
    assert daily(paid_in) == daily(moved)


def test_the_first_and_the_last_step_count_as_they_are_and_are_named():
    start = T0 + 18 * HOUR_NS
    cut = track([(HOUR_NS, 10), (7 * HOUR_NS, 30), (31 * HOUR_NS, 100)], start=start)
    assert daily(cut) == {T0: 10, T0 + DAY_NS: 20, T0 + 2 * DAY_NS: 70}
    assert partial(cut) == [T0, T0 + 2 * DAY_NS]
    assert partial(days([1, 2, 3])) == []


def test_a_step_without_a_point_is_no_step_and_its_money_is_not_lost():
    gap = track([(HOUR_NS, 10), (5 * DAY_NS + HOUR_NS, 50), (6 * DAY_NS, 60)])
    assert daily(gap) == {T0: 10, T0 + 5 * DAY_NS: 50}
    found = paired(gap, track([(HOUR_NS, 1), (5 * DAY_NS + HOUR_NS, 2), (6 * DAY_NS, 3)], name="b"))
    assert found.total == 57 and found.steps == 3 and found.step_ns == HOUR_NS, "hours: one, one after the gap, the last"
    assert found.days == pytest.approx(3 / 24)


def test_an_account_that_did_nothing_has_nothing():
    idle = track([(DAY_NS, 0)])
    assert daily(idle) == {T0: 0}
    assert paired(idle, idle).total == 0.0


def test_the_difference_is_net_of_both_models():
    print("seed", SEED)
    n = 40
    costs = [(T0 + i * DAY_NS + HOUR_NS, 2 * USD) for i in range(n)]
    a, b = days(luck(1, n), costs=costs), days(luck(2, n), name="b", costs=costs[:10])
    found = paired(a, b)
    gross = sum(luck(1, n)) - sum(luck(2, n))
    assert found.gross == gross and found.total == pytest.approx(gross - 30 * 2 * USD, abs=1e-3)
    assert found.days == n == found.steps and found.partial == 0
    assert found.per_day.value == pytest.approx(found.total / n)
    assert paired(a, b, cost_usd=12.0).total == pytest.approx(found.total - 12 * USD, abs=1e-3)
    assert paired(b, a).total == -found.total


def test_a_cost_at_either_end_counts_once_and_one_outside_not():
    n = 25
    edges = [(T0, USD), (T0 + 3 * DAY_NS, USD), (T0 + n * DAY_NS, USD), (T0 - 1, USD), (T0 + n * DAY_NS + 1, USD)]
    assert paired(days([0] * n, costs=edges), days([0] * n, name="b")).total == -3 * USD


@pytest.mark.parametrize(("level", "verdict"), [(3, "better"), (-3, "worse"), (0, "no difference seen")])
def test_the_verdict_is_that_of_the_difference(level, verdict):
    print("seed", SEED)
    common = luck(SEED, 60, sd=20)
    edge = luck(SEED + 1, 60, level=level, sd=3)
    found = paired(days([c + e for c, e in zip(common, edge, strict=True)]), days(common, name="b"))
    assert found.verdict == verdict, found
    assert found.per_day.low <= found.per_day.value <= found.per_day.high


def test_less_than_twenty_days_have_an_interval_by_hours_and_no_verdict():
    sure = days([5 * USD] * (MIN_DAYS - 1))
    found = paired(sure, days([0] * (MIN_DAYS - 1), name="b"))
    assert (found.verdict, found.why, found.step_ns, found.steps) == ("", "too few days", HOUR_NS, 19 * 24)
    assert found.per_day.value == pytest.approx(5 * USD) and found.per_day.low > 0
    assert "no verdict: too few days (19.0, 20 needed)" in lines(found)[-1]


def test_a_long_record_of_few_days_seen_is_few_days():
    """Two tapes of three days each, a year apart."""
    points = [(i * HOUR_NS, i * USD) for i in range(1, 73)]
    both = track(points + [(365 * DAY_NS + after, 72 * USD + pnl) for after, pnl in points])
    found = paired(both, track([(after, 0) for after, _ in points] + [(368 * DAY_NS, 0)], name="b"))
    assert found.days == pytest.approx(6.0) and found.verdict == ""


def test_only_the_time_that_both_have_counts():
    n = 30
    a = days([USD] * n)
    late = days([0] * n, start=T0 + 5 * DAY_NS + 6 * HOUR_NS, name="b")
    found = paired(a, late)
    assert found.days == pytest.approx(n - 5.25) and found.partial == 1
    assert found.total == pytest.approx((n - 5.25) * USD, abs=USD / 24)
    apart = paired(a, days([0], start=T0 + 100 * DAY_NS, name="b"))
    assert apart == Paired(first="a", second="b", why="no common time") and lines(apart) == ["a less b: no common time"]


def test_a_model_that_costs_and_changes_nothing_is_worse():
    """Every day the same difference: there is no spread to test, and no doubt."""
    n, gains = 30, luck(SEED, 30)
    costs = [(T0 + i * DAY_NS + HOUR_NS, 2 * USD) for i in range(n)]
    found = paired(days(gains, costs=costs), days(gains, name="twin"))
    assert (found.verdict, found.per_day.value, found.per_day.high, found.p) == ("worse", -2 * USD, -2 * USD, 0.0)
    assert against(days(gains, costs=costs), {"twin": days(gains)})[0].verdict == "worse"
    same = paired(days(gains), days(gains, name="twin"))
    assert (same.verdict, same.total, same.p) == ("no difference seen", 0.0, None)


def test_the_difference_by_market_is_of_what_was_traded_there():
    """Bought 10 shares at 0.40 with a fee; the mid at the end is 0.46; the other account did nothing there, and was rewarded."""
    market = Quoted(name="m", price_scale=10_000, qty_scale=100, payout=10_000, mid2=9_200, net=1_000)
    fill = Fill(
        ts=T0 + 1, fill_id="f", order_id="o", instrument="m", side=1, price=4_000, qty=1_000, fee=20_000, maker=True,
        cash=-4 * USD, position_after=1_000,
    )  # fmt: skip
    a = msgspec.structs.replace(days([0]), fills=[fill], instruments={"m": market})
    rewards = [Money(ts=T0, kind="reward", amount=USD, instrument="n"), Money(ts=T0, kind="merge", amount=USD, instrument="n")]
    b = msgspec.structs.replace(days([0], name="b"), money=[*rewards, Money(ts=T0, kind="reward", amount=USD)])
    assert by_market(a, b) == {"m": 0.6 * USD - 20_000, "n": -USD}


def test_many_variants_need_more_proof():
    print("seed", SEED)
    base = days([0] * 60, name="base")
    weak = {f"v{i}": days(luck(SEED + i, 60), name="v") for i in range(12)}
    alone = [paired(base, other) for other in weak.values()]
    found = against(base, weak)
    assert [f.second for f in found] == list(weak)
    assert all(together.p >= one.p for together, one in zip(found, alone, strict=True))
    best = min(range(12), key=lambda i: alone[i].p)
    assert found[best].p == pytest.approx(min(1.0, 12 * alone[best].p))
    assert found[0].variants == 12 and "Holm, 12 variants" in "\n".join(lines(found[0]))
    assert against(base, {}) == []


def test_the_lines_are_those():
    costs = [(T0 + HOUR_NS, 5 * USD)]
    base = luck(3, 25, level=4, sd=1)
    told = lines(paired(days(base, costs=costs), days([0] * 25, name="twin")))
    total = sum(base) / USD
    assert told[0] == f"a less twin: {total - 5:+.2f} USD in 25.0 days (25 days)"
    assert told[1] == f"  before model cost {total:+.2f} USD, model cost +5.00 USD"
    assert told[2].startswith(f"  a day {(total - 5) / 25:+.2f} USD, 95 % ") and told[3] == "  better"


@pytest.mark.prove
def test_of_worthless_models_one_in_twenty_is_taken_for_something():
    """Independent days, 40 of them: the verdict needs interval and test, and is wrong no more than about 5 % of the time."""
    runs = 1_000
    wrong = sum(
        paired(days(luck(2 * k, 40), per_day=1), days(luck(2 * k + 1, 40), per_day=1, name="b")).verdict != "no difference seen"
        for k in range(runs)
    )
    print(f"wrong verdicts: {wrong} of {runs}")
    assert 15 <= wrong <= 85
