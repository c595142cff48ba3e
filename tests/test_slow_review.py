"""What a hostile reading of the slow loop found. Each test says what must hold; strict xfail while it does not yet."""

from __future__ import annotations

import asyncio
import random
import sys
from decimal import Decimal

import msgspec
import pytest
import yaml

from llm_maker import learn
from llm_maker.config import load
from llm_maker.config_text import ConfigError
from llm_maker.core import events as ev
from llm_maker.core.commands import RequestSignals
from llm_maker.core.params import SignalParams
from llm_maker.core.signals import accept
from llm_maker.core.skill import Forecast, Skill
from llm_maker.core.state import weight_of
from llm_maker.core.values import CASH_PER_USD, NS_PER_S, Instrument, Side, logit
from llm_maker.keys import Secrets
from llm_maker.llm import pool
from llm_maker.llm.analyst import Analyst
from llm_maker.llm.budget import DailyBudget, RateLimit, Usage
from llm_maker.llm.build import NotAvailable, pricer_of, resolve
from llm_maker.llm.cassette import Cassette
from llm_maker.llm.prompt import render
from llm_maker.llm.providers import ProviderError
from llm_maker.mind import Mind
from llm_maker.report.skill_fit import Rules, measure
from llm_maker.runtime.forecasts import ForecastBook
from llm_maker.runtime.ledger import Ledger, LedgerError
from llm_maker.runtime.rows import ForecastRow, MarkRow, Row, Scope
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from llm_maker.universe import Candidate, Facts, Universe
from tests.core.builders import SHARE, Rig, advice, binary, of
from tests.llm import samples
from tests.llm.members import Scripted, Time, member

DAY = 86_400 * NS_PER_S
KEY = "throwaway-test-key-not-real"


def maker_rig(*instruments: Instrument, **changes) -> Rig:
    return Rig(strategy=Maker(), wants=MakerParams(interval_ns=changes.pop("interval_ns", 45 * NS_PER_S)), **changes).start(
        *instruments or (binary(),)
    )


def config_of(tmp_path, **llm):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"llm": llm}))
    return load(path, {})


# What an opinion is worth.


def forecasts_of(rows: list[tuple[int, Row]]) -> list[Forecast]:
    marks: dict[tuple[str, str], dict[int, float]] = {}
    for _, row in rows:
        if isinstance(row, MarkRow):
            marks.setdefault((row.decision_id, row.instrument), {})[row.horizon_s] = row.x_market
    return [
        Forecast(ts=ts, later=marks.get((row.decision_id, row.instrument), {}), **msgspec.structs.asdict(row))
        for ts, row in rows
        if isinstance(row, ForecastRow)
    ]


def test_an_echo_of_the_price_does_not_pass_the_gate():
    """The model repeats the price that it was shown. The true price never moves; the best prices come and go by a tick."""
    dice, names = random.Random(1), [f"m{i:02}" for i in range(12)]
    half_hour = 1_800 * NS_PER_S
    rig = maker_rig(
        *(binary(n, event_id=f"e{n}") for n in names), enabled=True, max_markets=100, prior_weight=0.0, interval_ns=half_hour,
        refresh_ns=half_hour * 9 // 10, answer_timeout_ns=60 * NS_PER_S, max_silence_ns=10**15, jump_ticks=100,
    )  # fmt: skip
    book, rows = ForecastBook(rig.state), []

    def look(event: ev.Event):
        out = rig.send(event)
        rows.extend((rig.now, row) for row in book.rows(rig.now, event))
        return next(iter(of(out, RequestSignals)), None)

    def flicker():
        for name in names:
            bid, ask = dice.choice((4800, 4900)), dice.choice((5100, 5200))
            rig.book(name, ((bid, 500 * SHARE), (4700, 500 * SHARE)), ((ask, 500 * SHARE), (5300, 500 * SHARE)))

    for n in range(3 * 48):
        rig.wait(1_490)
        flicker()
        asked = look(ev.Tick())
        rig.wait(5)
        flicker()
        signals = tuple(advice("hold", 0.7, market=b.market_id, p_yes=b.yes_price) for b in asked.markets)
        look(ev.SignalsReceived(asked.request_id, f"d{n}", "gpt", "v1", signals))
        rig.wait(305)
        flicker()
        look(ev.Tick())
    found = measure(forecasts_of(rows), now_ns=rig.now, rules=Rules(prior_weight=0.0, gate=True, gate_event_days=30))["gpt|"]
    assert found.signals > 500 and found.weight == 0.0, found.why


def test_our_own_tilted_quotes_are_no_proof_that_the_model_was_right():
    rig = Rig(strategy=Maker(), wants=MakerParams())
    rig.listed(binary())
    rig.send(ev.VenueUp("v", True, shows_own=True), ev.Started(1, False), ev.AccountSnapshot((), ()))

    def show():
        """Nobody else ever moves."""
        bids, asks = {4700: 500 * SHARE, 4600: 500 * SHARE}, {5300: 500 * SHARE, 5400: 500 * SHARE}
        for order in rig.live():
            side = bids if order.side is Side.BUY else asks
            side[order.price] = side.get(order.price, 0) + order.remaining
        rig.book("m", sorted(bids.items(), reverse=True), sorted(asks.items()))

    for _ in range(3):
        show()
        rig.run(1)
        rig.ack()
    show()
    book = ForecastBook(rig.state)
    rig.send(ev.WeightUpdated("gpt", "", Skill(weight=0.5)))
    rig.state.slow.pending, rig.state.slow.markets = "r", ["m"]
    answer = ev.SignalsReceived("r", "d", "gpt", "v1", (advice("hold", 0.7, "bullish", p_yes=0.6),))
    rig.send(answer)
    rows = book.rows(rig.now, answer)
    for _ in range(310):
        rig.wait(1)
        rig.ack()
        show()
        rig.send(ev.Tick())
        rows += book.rows(rig.now, ev.Tick())
    (mark,) = [row for row in rows if isinstance(row, MarkRow)]
    assert mark.x_market == pytest.approx(rows[0].x_market)


def test_what_the_core_refused_measures_nothing():
    rig = maker_rig()
    book = ForecastBook(rig.state)
    rig.send(ev.VenueDown("v", "gone"))
    rig.wait(1_200)
    rig.state.slow.pending, rig.state.slow.markets = "r", ["m"]
    answer = ev.SignalsReceived("r", "d", "gpt", "v1", (advice("hold", 0.7, p_yes=0.6),))
    rig.send(answer)
    assert rig.market().opinion is None
    rows = [(rig.now, row) for row in book.rows(rig.now, answer)]
    told = [msgspec.structs.replace(f, later={3_600: logit(0.6)}) for f in forecasts_of(rows)]
    found = measure(told, now_ns=rig.now + DAY, rules=Rules())
    assert not found or found["gpt|"].signals == 0


async def test_a_ledger_that_cannot_be_read_is_said_and_ends_nothing(tmp_path):
    def broken() -> bool:
        raise LedgerError("disk I/O error")

    said: list[str] = []
    scope = Scope("v", "live", "0x0", "main")
    port = learn.Learner(tmp_path / "l.sqlite3", scope, Rules(), lambda: 1, dict, lambda level, text: said.append(text), broken)
    await port._measure(1, lambda event: None)
    assert len(said) == 1 and "disk I/O error" in said[0]


async def test_a_home_that_began_with_the_simulated_analyst_learns_of_a_real_model(tmp_path):
    ledger, scope = Ledger.open(tmp_path / "l.sqlite3"), Scope("simulated", "paper", "paper", "main")
    for seq, (model, simulated) in enumerate((("simulated(R2=0.10)", True), ("openai/gpt", False)), 1):
        told = {"decision_id": f"d{seq}", "model": model, "role": "used", "prompt_version": "v", "instrument": "i", "category": ""}
        told |= {"event_id": "e", "p_yes": 0.6, "confidence": 0.7, "bias": 0, "x_market": 0.0, "d": 0.4, "simulated": simulated}
        row = ForecastRow(**dict.fromkeys(ForecastRow.__struct_fields__) | told)
        ledger.append(scope, seq, 20_000 * DAY + seq, [row])
    ledger.drain()
    said: list[str] = []
    emitted: list[ev.Event] = []
    port = learn.Learner(ledger.path, scope, Rules(), lambda: 20_001 * DAY, dict, lambda level, text: said.append(text))
    await port._measure(20_001 * DAY, emitted.append)
    ledger.close()
    assert not said and any(e.model == "openai/gpt" for e in emitted)


@pytest.mark.parametrize("interpreter", ["/nonexistent/python", "/bin/echo"])
async def test_a_measurement_that_fails_is_said_and_changes_nothing(tmp_path, monkeypatch, interpreter):
    monkeypatch.setattr(sys, "executable", interpreter)
    said: list[str] = []
    scope = Scope("v", "live", "0x0", "main")
    port = learn.Learner(tmp_path / "l.sqlite3", scope, Rules(), lambda: 1, dict, lambda level, text: said.append(text))
    task = asyncio.create_task(port.run(lambda event: None))
    await asyncio.wait([task], timeout=1.0)
    died = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not died and said


def test_a_weight_that_the_user_takes_back_is_gone():
    told = Forecast(
        ts=20_000 * DAY, decision_id="d", model="gpt", category="", instrument="i", event_id="e", role="used", p_yes=0.6,
        confidence=0.7, bias=1, x_market=0.0,
    )  # fmt: skip
    skill = measure([told], now_ns=20_001 * DAY, rules=Rules(prior_weight=0.0, gate=True, user_weight=0.3))["gpt|"]
    rig = maker_rig(prior_weight=0.3)
    rig.send(ev.WeightUpdated("gpt", "", skill))
    rig.advise(advice("buy_yes", 0.9, "bullish", p_yes=0.6))
    assert weight_of(rig.state, rig.market()) == 0.3
    silent = msgspec.structs.replace(rig.state.params.signals, prior_weight=0.0)
    changed = msgspec.json.encode(msgspec.structs.replace(rig.state.params, signals=silent))
    rig.send(ev.ParamsChanged(msgspec.Raw(changed), msgspec.Raw(msgspec.json.encode(MakerParams()))))
    assert weight_of(rig.state, rig.market()) == 0.0


# What an opinion moves.


def test_a_hold_that_has_earned_nothing_leaves_the_lean_against_the_inventory():
    def bid(*signals):
        rig = maker_rig(stop_ratio=0.0, target_ratio=0.0)
        rig.hold(Side.BUY, 5000, 100 * SHARE)
        rig.move(5000, half=300)
        rig.send(ev.WeightUpdated("gpt", "", Skill(weight=1e-9)))
        if signals:
            rig.advise(*signals)
        rig.run(1)
        for _ in range(4):
            rig.ack()
            rig.run(2.5)
        return rig.one(Side.BUY).price

    assert bid(advice("hold", 0.7, p_yes=0.5)) == bid()


def allotted(signal, skill=None, previous=None, now=10_000 * NS_PER_S):
    sizes, bankroll = (50 * SHARE, 200 * SHARE), 10_000 * CASH_PER_USD
    verdict = accept(signal, previous, binary(), 5000.0, 0, sizes, SignalParams(), now, ("d", "gpt"), skill, bankroll)
    assert verdict.opinion is not None, verdict.refused
    return verdict.opinion


def test_kelly_bets_nothing_against_its_own_edge():
    opinion = allotted(advice("buy_yes", 0.7, "bullish", p_yes=0.3, p_low=0.2, p_high=0.6, share=0.2))
    assert opinion.d0 < 0 and opinion.target_net == 0


def test_kelly_bets_nothing_where_earlier_opinions_still_outweigh_this_one():
    first = allotted(advice("buy_no", 0.9, "bearish", p_yes=0.1), now=8_200 * NS_PER_S)
    opinion = allotted(advice("buy_yes", 0.7, "bullish", p_yes=0.55, share=0.5), previous=first)
    assert opinion.d0 < 0 and opinion.target_net == 0


def test_the_larger_bet_needs_skill_that_was_measured():
    signal = advice("buy_yes", 0.7, "bullish", p_yes=0.6, share=1.0)
    unmeasured = Skill(weight=0.15, why="gate: 1 of 300 event-days", signals=1, event_days=1, slope_low=-1000.0)
    assert allotted(signal, unmeasured).target_net == allotted(signal).target_net


def test_kelly_bets_by_the_weight_that_counts():
    signal = advice("buy_yes", 0.7, "bullish", p_yes=0.52, share=1.0)
    skill = Skill(weight=0.2, signals=400, event_days=300, slope_low=0.1)
    doubted = msgspec.structs.replace(skill, trust=((1.0, 0.1),))
    assert allotted(signal, doubted).target_net <= 0.2 * allotted(signal, skill).target_net


def test_a_share_does_not_make_a_sale_larger():
    def left(**more):
        signal, sizes = advice("sell_yes", 0.7, "bearish", p_yes=0.45, **more), (50 * SHARE, 200 * SHARE)
        verdict = accept(signal, None, binary(), 5000.0, 180 * SHARE, sizes, SignalParams(), DAY, ("d", "gpt"), None, 10**10)
        assert verdict.opinion is not None
        return verdict.opinion.target_net

    assert left(share=0.1) == left() == 130 * SHARE


def test_an_outvoted_share_is_not_bet():
    def voice(key, action, bias, p, share):
        return pool.Voice(key, (advice(action, 0.8, bias, p_yes=p, share=share),))

    voices = [voice("a", "buy_yes", "bullish", 0.7, 0.9), voice("b", "buy_no", "bearish", 0.3, 0.05)]
    (signal,) = pool.pool([*voices, voice("c", "buy_no", "bearish", 0.3, 0.05)], {}, {"m": ""}, "pool")
    assert signal.action == "buy_no" and signal.share <= 0.05 + 1e-12


# What is asked, and what it costs.


def test_with_the_whole_portfolio_everybody_has_a_turn_and_nobody_two():
    rig = maker_rig(*(binary(f"m{i}") for i in range(6)), enabled=True, whole=True, max_markets=3)
    calls, asked = 0, set()
    for _ in range(900):
        rig.wait(1)
        out = rig.send(*(rig.echo(m) for m in rig.state.markets.values()), ev.Tick())
        for request in of(out, RequestSignals):
            calls += 1
            asked |= {b.market_id for b in request.markets}
            signals = tuple(advice("hold", market=b.market_id, p_yes=0.5) for b in request.markets)
            rig.send(ev.SignalsReceived(request.request_id, f"d{calls}", "gpt", "v1", signals))
    assert len(asked) == 6 and calls <= 3, (sorted(asked), calls)


def test_a_model_that_cannot_answer_the_whole_question_is_not_tried_for_ever():
    rig = maker_rig(*(binary(f"m{i:02}") for i in range(12)), enabled=True, max_markets=12)
    failed = 0
    for n in range(900):
        rig.wait(4)
        for request in of(rig.send(rig.echo(rig.market("m00")), ev.Tick()), RequestSignals):
            if len(request.markets) > 8:
                failed += 1
                rig.send(ev.SignalsFailed(request.request_id, f"d{n}", "truncated", "", 2_400))
            else:
                signals = tuple(advice("hold", market=b.market_id) for b in request.markets)
                rig.send(ev.SignalsReceived(request.request_id, f"d{n}", "gpt", "v1", signals))
    assert rig.state.counts.fallbacks <= 3 and failed <= 12, (rig.state.counts.fallbacks, failed)


def test_the_users_own_price_counts(tmp_path):
    config = config_of(tmp_path, provider="openai", price_per_million_input_usd=100, price_per_million_output_usd=1000)
    (plan,) = resolve(config, Secrets({"OPENAI_API_KEY": KEY}), simulated_feed=False).members
    cost = pricer_of(plan).cost(Usage(input=10_000, output=1_000), None, 1_795_000_000 * NS_PER_S)
    assert cost.usd == Decimal(2)


def test_a_paid_model_through_a_local_proxy_is_not_free(tmp_path):
    config = config_of(tmp_path, provider="openai", base_url="http://127.0.0.1:4000/v1")
    (plan,) = resolve(config, Secrets({"OPENAI_API_KEY": KEY}), simulated_feed=False).members
    assert pricer_of(plan).cost(Usage(input=10_000, output=1_000), None, 1_795_000_000 * NS_PER_S).usd != 0


def test_a_clock_set_back_does_not_stop_the_questions():
    rate = RateLimit(1)
    rate.take(20_000 * DAY)
    waited = rate.wait_ns(19_999 * DAY)
    assert waited <= 60 * NS_PER_S and rate.wait_ns(19_999 * DAY + waited) == 0


async def test_a_pool_keeps_its_name_over_a_restart():
    time = Time()
    async with time.running():
        first = Scripted(time=time, model="gpt-6-luna", says="gpt-6-luna-2026-05-01")
        other = Scripted(*[ProviderError("overload", "busy")] * 2, time=time, model="grok-4.3", says="grok-4.3-0817")
        analyst = Analyst(
            [member(first, "a"), member(other, "b")], [], render=lambda request, one: render(request, one.template), skills={},
            mode="pool", budget=DailyBudget(None), record=lambda facts: None, say=lambda level, text: None, clock=time.clock,
        )  # fmt: skip
        names = [(await analyst.answer(samples.request()))[0].model for _ in range(2)]
    assert names[0] == names[1]


# What stands in the way of the next start, and what grows.


def test_a_cassette_with_a_torn_end_can_be_gone_on_with(tmp_path):
    exchange = b'{"key":"k","provider":"p","model":"m","at":"2026-01-01T00:00:00Z","latency_s":1.0,"user":"u"}'
    path = tmp_path / "tape.jsonl"
    path.write_bytes(b'{"cassette":1}\n' + exchange + b"\n" + exchange[:40])
    config = config_of(tmp_path, provider="ollama", model="x", cassette="tape.jsonl")
    mind = Mind(config, Secrets({}), simulated_feed=False, base=tmp_path)
    mind._recorded(Scripted(time=Time()))
    mind._keep(exchange)
    mind._keep(exchange)
    mind.close()
    assert len(Cassette.read(path).exchanges) == 3


def test_rules_of_markets_that_are_long_over_are_forgotten(tmp_path):
    universe = Universe(config_of(tmp_path, provider="none").market_selection)
    for day in range(50):
        found = [Candidate(f"c{day}-{i}", "q", Facts(), binary(f"c{day}-{i}"), "r" * 2_000) for i in range(20)]
        universe.rejudge(found, day * DAY)
    assert sum(bool(universe.rules_of(f"c{day}-{i}")) for day in range(50) for i in range(20)) <= 200


def test_a_reserve_is_used_or_refused(tmp_path):
    config = config_of(tmp_path, reserve=[{"provider": "ollama", "model": "x"}])
    try:
        mind = resolve(config, Secrets({}), simulated_feed=False)
    except NotAvailable:
        return
    assert mind.members or mind.reserve


def test_a_bandit_without_learning_is_refused(tmp_path):
    models = [{"provider": "ollama", "model": name} for name in ("x", "y")]
    with pytest.raises(ConfigError, match="learn"):
        config_of(tmp_path, ensemble=models, bandit=True, learn=False)
