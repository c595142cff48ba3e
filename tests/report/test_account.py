"""One account in numbers: every ratio and row by hand; what is not known is None and reads n/a; a record that closes says so."""

import re
from random import Random

import msgspec
import pytest

from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.report import account_text, metrics, pnl
from llm_maker.report.account import HORIZONS, MOST_INTERVALS, account
from llm_maker.report.account_extras import extras
from llm_maker.report.groups import Columns
from llm_maker.report.html_plots import accounts_of
from llm_maker.report.paired import DAY_NS, HOUR_NS, paired
from llm_maker.report.track import Fill, Money, Point, Quoted, Track, Trip

T0 = 20_000 * DAY_NS
USD = CASH_PER_USD
SHARE = 1_000_000
SEED = 20_261_121
LABEL = {"account": "main", "venue": "simulated", "mode": "paper", "wallet": "paper", "simulated": True}
FLOWS = dict.fromkeys(("start", "trading", "fees", "rebates", "rewards", "funding", "transfers", "capture"), 0)


def quoted(**changes):
    return Quoted(**{"name": "m?", "price_scale": 10_000, "qty_scale": SHARE, "payout": 10_000, "mid2": 10_000} | changes)


def fill(n=1, side=1, price=4_900, shares=10, **changes):
    base = {
        "ts": T0 + n * NS_PER_S, "fill_id": f"f{n}", "order_id": f"o{n}", "instrument": "m", "side": side, "price": price,
        "qty": shares * SHARE, "fee": 0, "maker": True, "cash": -side * price * shares * 100, "position_after": 0, "mid2": 9_900,
    }  # fmt: skip
    return Fill(**base | changes)


def track(gained=0, *, days=1.0, fills=(), instruments=None, points=(), flows=None, **changes):
    """It began with 1,000 USD and has `gained` cash units more at the end; `points` are (ns after the start, gained by then)."""
    told = [Point(T0 + after, 1_000 * USD + pnl, 0) for after, pnl in points]
    base = {
        "label": LABEL, "start_ns": T0, "end_ns": T0 + int(days * DAY_NS), "start_cash": 1_000 * USD,
        "equity": 1_000 * USD + gained, "exit_equity": 1_000 * USD + gained - USD, "flows": FLOWS | (flows or {}), "counts": {},
        "fills": list(fills), "points": told, "instruments": {"m": quoted()} if instruments is None else instruments,
    }  # fmt: skip
    return Track(**base | changes)


def rows_of(found, heading):
    return {row.name: row for row in found.by[heading]}


def test_the_ratios_of_six_hours():
    """+1 +1 -2 +4 0 +2 USD: mean 1, sd 2 (n - 1), downside sd sqrt(4/6)."""
    gains, level, points = (1, 1, -2, 4, 0, 2), 0, []
    for hour, gain in enumerate(gains, 1):
        level += gain * USD
        points.append((hour * HOUR_NS, level))
    found = account(track(6 * USD, days=0.25, points=points)).ratios
    assert (found.steps, found.step_s, found.days) == (6, 3_600, 0.25)
    assert found.sharpe == pytest.approx(1 / 2) and found.sortino == pytest.approx(1 / (4 / 6) ** 0.5)
    assert found.sharpe_year is None and found.sortino_year is None, "a year of six hours is none"
    assert found.per_day_usd.value == pytest.approx(24.0), "6 USD in a quarter of a day"
    assert found.per_day_usd.low < 24 < found.per_day_usd.high
    assert found.drawdown_usd == 2.0 and found.drawdown_share == pytest.approx(2 / 1_002)
    assert found.return_on_capital == pytest.approx(6 / found.equity_usd)
    assert found.equity_usd == pytest.approx(1_000 + (0 + 1 + 2 + 0 + 4 + 4) / 6), "each level counts until the next one"


def test_a_day_is_the_total_over_the_days_even_where_an_hour_is_cut():
    points = [(int(h * HOUR_NS), int(h * h * USD)) for h in (1, 2, 3, 4, 5, 5.5)]
    found = account(track(int(30.25 * USD), days=5.5 / 24, points=points)).ratios
    assert found.steps == 6 and found.per_day_usd.value == pytest.approx(30.25 / (5.5 / 24))


def test_twenty_days_are_judged_by_days_and_thirty_by_years():
    def of(days):
        points = [(d * DAY_NS, d * USD + (d % 2) * USD) for d in range(1, days + 1)]
        return account(track(points[-1][1], days=days, points=points)).ratios

    assert (of(19).step_s, of(20).step_s, of(20).steps) == (3_600, 86_400, 20)
    assert of(29).sharpe_year is None and of(30).sharpe_year == pytest.approx(of(30).sharpe * 365**0.5)


def test_time_in_which_nothing_was_recorded_is_no_time():
    """Two hours, three weeks of silence, two hours."""
    hours = (0.5, 1, 1.5, 2, 502.5, 503, 503.5, 504)
    found = account(track(USD, days=21, points=[(int(h * HOUR_NS), n * USD // 8) for n, h in enumerate(hours, 1)]))
    assert found.ratios.steps == 4 and found.ratios.days == pytest.approx(4 / 24)
    assert "NO VERDICT: 4.0 h seen, 20 days needed" in "\n".join(account_text.lines(found))


def test_what_was_moved_in_is_neither_gain_nor_loss_nor_a_peak():
    moved = [
        Money(ts=T0 + HOUR_NS, kind="transfer", amount=500 * USD),
        Money(ts=T0 + 2 * HOUR_NS, kind="transfer", amount=-700 * USD),
    ]
    points = [(HOUR_NS, 501 * USD), (2 * HOUR_NS, -199 * USD), (3 * HOUR_NS, -202 * USD)]
    found = account(track(-202 * USD, days=0.125, points=points, money=moved, flows={"transfers": -200 * USD}))
    assert found.ratios.drawdown_usd == 3.0 and found.split.pnl == -2.0
    assert found.split.pnl_exit == -3.0, "leaving costs a dollar more"


def test_round_trips():
    made = ((5, 60), (3, 120), (0, 30), (-2, 600))
    trips = [
        Trip(instrument="m", opened_ns=T0, closed_ns=T0 + s * NS_PER_S, side=1, qty=1, pnl=p * USD, exit_reason="") for p, s in made
    ]
    found = account(track(trips=trips)).ratios
    assert (found.trips, found.average_win_usd, found.average_loss_usd, found.hold_s) == (4, 4.0, -2.0, 202.5)
    assert found.wins == metrics.wilson(2, 4), "what brought nothing has neither won nor lost"


def test_turnover_is_the_price_of_the_token_and_of_a_linear_one_its_notional():
    """Ten NO bought at 0.51 (YES sold at 0.49), and half a unit at 200 USD of which cash saw nothing."""
    linear = quoted(name="perp", price_scale=100, qty_scale=1_000, payout=0, mid2=40_000)
    no = fill(1, side=-1, cash=-5_100_000)
    perp = fill(2, instrument="p", price=20_000, qty=500, cash=0, mid2=40_000)
    found = account(track(fills=[no, perp], instruments={"m": quoted(), "p": linear})).ratios
    assert found.turnover_usd == pytest.approx(5.1 + 100) and found.shares == pytest.approx(10.5)
    assert found.turnover_share == pytest.approx(105.1 / 1_000)


def test_time_quoted_and_the_share_of_the_pools():
    """Half a day before midnight, half a day after it: the first half is paid. Quoted 6 h and 12 h; the pool is 100 a day."""
    two = {"m": quoted(quoted_ns=6 * HOUR_NS), "n": quoted(name="n?", quoted_ns=12 * HOUR_NS, pool_per_day=100 * USD)}
    found = account(
        track(5 * USD, start_ns=T0 - DAY_NS // 2, days=0.5, instruments=two, flows={"rewards": 5 * USD}, points=[(-1, 0), (1, 0)])
    ).ratios
    assert found.days == pytest.approx(3 / 24), "only the hours beside midnight and the last one were seen"
    steady = [(h * HOUR_NS, 0) for h in range(-11, 13)]
    found = account(
        track(5 * USD, start_ns=T0 - DAY_NS // 2, days=0.5, instruments=two, flows={"rewards": 5 * USD}, points=steady)
    ).ratios
    assert found.days == pytest.approx(1.0) and found.quoted_share == pytest.approx((6 + 12) / 2 / 24)
    assert found.rewards_per_day_usd == pytest.approx(5 / 0.5), "of the half day that was paid for"
    assert found.reward_share == pytest.approx(5 / (100 * 0.5 * 0.5))
    before = account(track(days=0.9, instruments=two, points=[(HOUR_NS, 0)])).ratios
    assert before.rewards_per_day_usd is None and before.reward_share is None, "nothing is paid before midnight"


def test_an_account_that_did_nothing_has_nothing_and_divides_by_nothing():
    empty = account(track(instruments={}))
    r = empty.ratios
    assert (r.sharpe, r.per_day_usd, r.wins, r.hold_s, r.per_share_cents, r.quoted_share, r.reward_share) == (None,) * 7
    assert all(rows == [] for rows in empty.by.values()) and empty.terms == {}
    assert all(after.markout_usd is None for after in empty.split.horizons.values()), "n/a, never 0"
    nowhen = account(track(days=0, instruments={}, fills=[]))
    assert nowhen.ratios.days == 0 and nowhen.ratios.return_on_capital is None
    assert account(track(days=0, fills=[fill(0)])).by["market"][0].fills == 1
    assert "n/a (0 hours" in "\n".join(account_text.lines(nowhen))


def told():
    """Bought 10 at 0.49 with the mid at 0.495, 0.50 after a second; sold 20 at 0.52 with the mid at 0.51, nothing known later."""
    opinion = {"model": "gpt", "action": "buy_yes", "confidence": 0.72, "shift": 0.2}
    bought = fill(1, marks={1: 10_000}, terms={"skew": 30.0, "fair": 5_000.0}, fee=100_000, reason="inventory", **opinion)
    sold = fill(2, side=-1, price=5_200, shares=20, mid2=10_200, terms={"skew": 10.0}, maker=False, instrument="n")
    two = {"m": quoted(net=10 * SHARE), "n": quoted(name="n?", mid2=10_000, net=-20 * SHARE)}
    return track(400_000, fills=[bought, sold], instruments=two, flows={"fees": -100_000}, points=[(HOUR_NS, 0)])


def test_the_rows_are_those_of_their_fills():
    found = account(told())
    market = rows_of(found, "market")
    assert (market["m?"].capture_usd, market["m?"].pnl_usd) == (pytest.approx(0.05), pytest.approx(0.1 - 0.1))
    assert market["m?"].markouts_usd == dict.fromkeys(HORIZONS.values()) | {"1 s": pytest.approx(0.05)}
    assert market["m?"].known == dict.fromkeys(HORIZONS.values(), 0) | {"1 s": 1} and market["m?"].instrument == "m"
    assert (market["n?"].capture_usd, market["n?"].pnl_usd) == (pytest.approx(0.2), pytest.approx(0.4))
    names = {heading: [row.name for row in rows] for heading, rows in found.by.items()}
    assert names == {
        "market": ["m?", "n?"], "side": ["buy", "sell"], "liquidity": ["maker", "taker"], "reason": ["inventory", "none"],
        "model": ["gpt", "none"], "action": ["buy_yes", "none"], "confidence": ["0.7-0.8", "none"], "largest term": ["skew"],
    }  # fmt: skip
    assert {term: [row.name for row in rows] for term, rows in found.terms.items()} == {
        "opinion": ["none", "with"],
        "skew": ["against", "with"],
    }
    assert found.split.closes and found.split.pnl == pytest.approx(0.4) and found.split.fees == pytest.approx(-0.1)
    assert found.split.horizons["1 s"].markout_usd == pytest.approx(0.05) and found.split.horizons["1 s"].known == 1


def test_markets_of_one_name_stay_apart():
    fills = [fill(1, instrument="0xaaaa11112222"), fill(2, instrument="0xbbbb33334444")]
    found = account(track(fills=fills, instruments={f.instrument: quoted(name="game 4") for f in fills}))
    assert [row.name for row in found.by["market"]] == ["game 4 [11112222]", "game 4 [33334444]"]


def drawn(seed, n=400, hours=30):
    print(f"seed {seed}")
    dice = Random(seed)
    fills = []
    for k in range(n):
        mid2 = dice.randrange(4_000, 16_000)
        marks = {h: mid2 + dice.randrange(-200, 200) for h in (1, 10, 60, 300) if dice.random() < 0.8}
        fills.append(
            fill(
                k * hours * 3_600 // n, dice.choice((1, -1)), dice.randrange(2_000, 8_000), dice.randrange(1, 40), marks=marks,
                mid2=mid2 if dice.random() < 0.9 else 0, instrument=f"m{dice.randrange(50)}", fee=dice.randrange(900),
                terms={"skew": dice.choice((-1.0, 0.0, 2.0))}, model=dice.choice(("", "gpt")), confidence=dice.random(),
            )
        )  # fmt: skip
    instruments = {f"m{k}": quoted(name=f"question {k}?", mid2=9_000 + 31 * k, net=SHARE) for k in range(50)}
    return track(0, days=hours / 24, fills=fills, instruments=instruments, points=[(h * HOUR_NS, h) for h in range(1, hours + 1)])


@pytest.mark.parametrize("limit", [1 << 62, 1 << 30], ids=["64 bits", "more than 64 bits"])
def test_groups_are_those_of_the_identity_to_the_last_unit(monkeypatch, limit):
    monkeypatch.setattr("llm_maker.report.groups._FITS", limit)
    made = drawn(SEED)
    columns = Columns(made, [k % 7 for k in range(400)], 7)
    for key in (pnl.market, pnl.side, pnl.confidence, pnl.leaning("skew")):
        found, parts = columns.by(key), pnl.by(made, key)
        assert list(found) == list(parts)
        for name, part in parts.items():
            group = found[name]
            assert (group.fills, group.capture, group.pnl) == (part.fills, part.capture, part.pnl + part.fees)
            assert group.markouts == {h: split.markout for h, split in part.horizons.items()}
            assert group.known == {h: split.known for h, split in part.horizons.items()}
            assert sum(group.by_step) == group.pnl and group.shares == pytest.approx(part.shares)
        assert sum(group.pnl for group in found.values()) == sum(m.pnl - m.fee for m in pnl.moves(made))


def test_rows_have_intervals_where_there_are_enough_steps_and_not_for_ever():
    found = account(drawn(SEED))
    buy = rows_of(found, "side")["buy"]
    assert buy.per_day_usd.value == pytest.approx(buy.pnl_usd / 1.25) and buy.per_day_usd.low < buy.per_day_usd.high
    assert len(found.by["market"]) == 50
    assert sum(row.per_day_usd is not None for row in found.by["market"]) <= MOST_INTERVALS
    one = account(track(USD, days=1, fills=[fill(k) for k in range(9)], points=[(h * HOUR_NS, h) for h in range(1, 25)]))
    assert one.by["side"][0].per_day_usd is None, "nine fills of one hour are one observation"


def test_the_lines_are_labelled_fit_and_never_say_zero_for_what_is_not_known():
    lines = account_text.lines(account(told()))
    text = "\n".join(lines)
    assert "SIMULATED market" in lines[0] and "PAPER money" in lines[0]
    assert "P&L at mid           +0.400000 USD   the parts add up to it exactly" in text
    assert re.search(r"^ +markout 60 s +n/a ", text, re.M) and re.search(r"^  1 s +\+0\.0500 +\+0\.2000 +1 of 2$", text, re.M)
    assert "skew, with" in text and "skew, against" in text and "0.7-0.8" in text
    assert max(map(len, account_text.lines(account(drawn(SEED))))) <= 140
    shadow = account_text.lines(account(told()), short=True)
    assert len(shadow) < len(lines) and "by market" not in "\n".join(shadow)


def test_a_fill_without_its_mid_is_unknown_and_captured_nothing_that_is_known():
    found = account(track(100_000, fills=[fill(1, mid2=0, marks={1: 9_900})], instruments={"m": quoted(net=10 * SHARE)}))
    assert found.by["side"][0].capture_usd is None and found.by["side"][0].pnl_usd == pytest.approx(0.1)
    assert found.split.unknown == pytest.approx(0.1) and found.split.horizons["1 s"].markout_usd is None
    text = "\n".join(account_text.lines(found))
    assert re.search(r"unknown +\+0\.100000 +1 fills whose mid is not on record", text) and "0 of 1 fills" in text


def test_money_that_nothing_explains_is_not_called_exact():
    text = "\n".join(account_text.lines(account(msgspec.structs.replace(told(), equity=1_003 * USD))))
    assert "THE PARTS DO NOT EXPLAIN IT" in text and "UNEXPLAINED" in text and "shares came or went" in text


def test_a_real_market_is_not_called_simulated():
    label = LABEL | {"venue": "polymarket", "mode": "live", "wallet": "0xabc", "simulated": False}
    assert account_text.whose(label) == "main on polymarket, LIVE money, 0xabc"


def test_tables_for_csv_have_every_row_and_none_for_what_is_not_known():
    tables = account_text.csv_tables(account(told()))
    assert set(tables) == {"pnl", "markouts", "ratios", "groups", "refusals"}
    money = {row["line"]: row["usd"] for row in tables["pnl"]}
    assert money["pnl"] == pytest.approx(money["capture"] + 0.25 + money["fees"] + money["rounding"])
    assert [row["markout_usd"] for row in tables["markouts"]] == [pytest.approx(0.05), *[None] * 6]
    assert tables["ratios"][0]["sharpe"] is None and tables["ratios"][0]["per_day_usd_low"] is None
    skew = {row["name"]: row for row in tables["groups"] if row["by"] == "term: skew"}
    assert skew["with"]["pnl_usd"] == pytest.approx(0.0) and skew["against"]["pnl_usd"] == pytest.approx(0.4)
    assert skew["with"]["markout_1s_usd"] == pytest.approx(0.05) and skew["with"]["markout_60s_usd"] is None
    assert all(row["simulated"] is True for rows in tables.values() for row in rows)


def test_the_page_is_told_the_difference_net_of_cost_up_to_the_end():
    """A dollar an hour less 0.40 for the model in the second one, against half a dollar an hour; the last point is the total."""
    main = track(
        4 * USD, days=4 / 24, points=[(h * HOUR_NS, h * USD) for h in range(1, 5)], model_costs=[(T0 + HOUR_NS + 1, 400_000)]
    )
    twin = track(2 * USD, days=4 / 24, points=[(h * HOUR_NS, h * USD // 2) for h in range(1, 5)], label=LABEL | {"account": "twin"})
    p = paired(main, twin)
    named = {each.name: account(each.track) for each in accounts_of([main, twin])}
    (difference,) = extras(named, [(p, main, twin)], [], "0").differences
    assert [(point.ts - T0) // HOUR_NS for point in difference.series] == [0, 1, 2, 3, 4]
    assert [point.usd for point in difference.series] == pytest.approx([0, 0.5, 0.6, 1.1, 1.6])
    assert difference.series[-1].usd == pytest.approx(p.total / USD)
    assert difference.mean is None and difference.verdict == "none, too few days", "four hours make no mean a day"
    long = track(USD, days=300, points=[(k * HOUR_NS, k) for k in range(1, 7_200)])
    series = extras(named, [(p, long, long)], [], "0").differences[0].series
    assert len(series) <= 501 and series[-1].ts == long.end_ns
