"""Checkpoints: encode, restore, the same bytes and the same commands ever after; several accounts on one feed stay apart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import events as ev
from llm_maker.core.commands import PlaceOrder, RequestSignals
from llm_maker.core.engine import Engine, checkpoint, new_state, restore
from llm_maker.core.events import SignalsReceived
from llm_maker.core.orders import Status
from llm_maker.core.params import ExitParams, Params, RiskParams, SignalParams, SlowParams
from llm_maker.core.skill import Skill
from llm_maker.core.state import State
from llm_maker.core.values import NS_PER_S, Leg, Regime, Side
from llm_maker.core.worth import equity
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from llm_maker.venues.paper.exchange import Exchange, ExchangeParams
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from tests.core.builders import CASH, SHARE, Rig, Scripted, Wants, advice, binary, linear

START = 1_767_225_600 * NS_PER_S
FAULTS = {"drop_ack_ppm": 20_000, "uncertain_ppm": 20_000, "reject_ppm": 20_000, "settle_fail_ppm": 50_000}
EVENTS = 6_000


def account_params(**signals: Any) -> Params:
    """Tight limits, so that a short run has halts of markets, exits and refusals in it."""
    return Params(
        risk=RiskParams(bankroll=CASH, max_order_cost=100_000_000, stop_cooldown_ns=20 * NS_PER_S),
        exits=ExitParams(stop_ratio=0.01, target_ratio=0.01, hold_ns=2 * NS_PER_S, deadline_ns=60 * NS_PER_S),
        signals=SignalParams(**signals),
        slow=SlowParams(interval_ns=10 * NS_PER_S),
    )


class World:
    """Simulated markets, one exchange and one engine for every account, and a model that answers from what it was shown."""

    def __init__(self, seed: int, accounts: dict[str, tuple[Params, MakerParams]]) -> None:
        market = SimulatedMarket(MarketParams(seed=seed, markets=3, activity=400.0, step_ns=NS_PER_S // 4, start_ns=START))
        self.feeds = [market]
        self.exchanges = {name: Exchange(ExchangeParams(seed=seed, start_cash=CASH, **FAULTS)) for name in accounts}
        self.timeline = Timeline([("", market), *self.exchanges.items(), ("", Ticker(START))])
        self.engines = {
            name: Engine(new_state(name, params, Maker(), maker, CASH), Maker()) for name, (params, maker) in accounts.items()
        }
        self.logs: dict[str, list[tuple[int, Any, list]]] = {name: [] for name in accounts}
        for name in accounts:
            self.deliver(START, name, ev.Started(1, False))

    def deliver(self, now: int, account: str, event: ev.Event) -> None:
        for name, engine in self.engines.items():
            if account in ("", name):
                if not account:
                    self.exchanges[name].observe(now, event)
                commands = engine.on_event(now, event)
                self.logs[name].append((now, event, commands))
                for command in commands:
                    self.exchanges[name].execute(now, command)
                    for feed in self.feeds:
                        feed.execute(now, command)
                    if isinstance(command, RequestSignals):
                        self.deliver(now, name, answered(command))

    def run(self, events: int = EVENTS) -> World:
        for _ in range(events):
            item = self.timeline.pop()
            assert item is not None
            self.deliver(*item)
        return self


ACTIONS = ("buy_yes", "buy_no", "hold", "sell_yes", "exit", "sell_no")


def answered(request: RequestSignals) -> SignalsReceived:
    """A model without skill, a function of the question alone."""
    number = int(request.request_id.partition("-r")[2])
    signals = []
    for place, brief in enumerate(request.markets):
        action = ACTIONS[(number + place) % len(ACTIONS)]
        p = min(max(brief.yes_price + (0.07 if action == "buy_yes" else -0.07 if action == "buy_no" else 0.011), 0.01), 0.99)
        signals.append(advice(action, 0.5 + number % 5 / 10, market=brief.market_id, p_yes=p))
    return SignalsReceived(request.request_id, f"d{number}", "simulated", "v1", tuple(signals), simulated=True)


@pytest.fixture(scope="module")
def day() -> World:
    seed = 3
    print(f"seed {seed}")
    return World(seed, {"a": (account_params(), MakerParams())}).run()


def test_the_run_has_everything_in_it(day):
    """A property over a run says nothing about what did not happen in it."""
    state = day.engines["a"].state
    counts = state.counts
    assert counts.fills > 20 and counts.unknown and counts.failed_settlements and counts.signals and counts.canceled > 20
    assert state.refused and any(m.exit_plan for m in state.markets.values())
    assert any(m.opinion for m in state.markets.values()) and any(m.markouts.pending for m in state.markets.values())
    assert any(isinstance(c, PlaceOrder) and c.reduce_only for _, _, out in day.logs["a"] for c in out)


def test_a_restored_state_encodes_to_the_same_bytes_and_is_equal(day):
    state = day.engines["a"].state
    saved = checkpoint(state)
    other = restore(saved, Maker())
    assert checkpoint(other) == saved and other == state
    assert all(type(m.own) is Maker.state_type for m in other.markets.values())


@given(st.integers(1, EVENTS - 1))
@settings(max_examples=6, deadline=None)
def test_from_any_moment_on_a_restored_engine_decides_the_same(day, cut):
    log = day.logs["a"]
    first = Engine(new_state("a", account_params(), Maker(), MakerParams(), CASH), Maker())
    for now, event, commands in log[:cut]:
        assert first.on_event(now, event) == commands
    saved = checkpoint(first.state)
    second = Engine(restore(saved, Maker()), Maker())
    assert checkpoint(second.state) == saved
    for now, event, commands in log[cut:]:
        assert second.on_event(now, event) == commands
    assert checkpoint(second.state) == checkpoint(day.engines["a"].state)


def test_restoring_after_every_event_changes_nothing(day):
    engine = Engine(new_state("a", account_params(), Maker(), MakerParams(), CASH), Maker())
    for now, event, commands in day.logs["a"][:400]:
        engine = Engine(restore(checkpoint(engine.state), Maker()), Maker())
        assert engine.on_event(now, event) == commands


def test_the_same_seed_is_the_same_run(day):
    again = World(3, {"a": (account_params(), MakerParams())}).run()
    assert checkpoint(again.engines["a"].state) == checkpoint(day.engines["a"].state)
    assert [c for _, _, c in again.logs["a"]] == [c for _, _, c in day.logs["a"]]


def test_the_books_of_the_venue_and_ours_agree_on_cash_and_shares():
    """What the exchange counts and what our events made of it; only what is still on its way may differ."""
    world = World(11, {"a": (account_params(), MakerParams())}).run(3_000)
    engine, exchange = world.engines["a"], world.exchanges["a"]
    world.deliver(engine.state.now, "a", ev.StopRequested("end"))
    for _ in range(3_000):
        world.deliver(*world.timeline.pop())
        if engine.state.stopped:
            break
    state = engine.state
    assert state.stopped and not [o for o in state.orders.values() if o.is_live]
    assert state.cash == exchange.cash
    for market in state.markets.values():
        held = exchange.holdings()
        for leg in (Leg.YES, Leg.NO):
            ours = market.position.held(leg)
            assert ours.settled + ours.pending == held.get((market.instrument.id, leg), 0) and ours.foreign == 0
    flows = state.flows
    assert state.cash == flows.start + flows.trading + flows.fees + flows.rebates + flows.rewards + flows.funding + flows.transfers


# Exactness.


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=0, max_value=1))
@settings(max_examples=200, deadline=None)
def test_floats_come_back_exactly(value, weight):
    rig = Rig().start()
    rig.market().mark = rig.market().estimators.fair = value
    rig.market().estimators.sig_x = weight
    rig.state.skills["gpt|x"] = Skill(weight=weight)
    other = rig.reborn()
    assert other.market().mark.hex() == value.hex() and other.state.skills["gpt|x"].weight.hex() == weight.hex()
    assert other.saved() == rig.saved()


def test_every_field_of_the_state_comes_back():
    """A state with something in every corner."""
    rig = Rig(wants=((1, 5000, 20 * SHARE), (-1, 5200, 20 * SHARE)), approve_above=1).start(
        binary("m", event_id="e", cluster="c"), linear()
    )
    rig.book("l", ((6_800_000, 50),), ((6_800_100, 50),))
    rig.hold(Side.SELL, 6_800_012, 3, "l")
    rig.fill(rig.one(Side.BUY), 5 * SHARE, settled=False)
    rig.send(
        ev.OrderUncertain(rig.one(Side.SELL).order_id, "t"),
        ev.FillSettled("early", "m"),
        ev.WeightUpdated("gpt", "x", Skill(weight=0.1)),
    )
    rig.send(ev.IntentReceived("i", "m", 99 * SHARE, "bot", "why"), ev.TradePrinted("m", 5000, 700, Side.BUY, rig.now))
    rig.send(ev.AccountSnapshot((ev.RestingOrder("", "x-9", "m", Side.BUY, Leg.YES, 1, 1),), (ev.Holding("l", Leg.NONE, -3),)))
    rig.advise(advice("buy_yes", 0.9, "bullish", p_yes=0.7))
    rig.send(ev.ClockStepped(5 * NS_PER_S), ev.RegimeChanged("v", Regime.POST_ONLY))
    rig.run(15)
    state = rig.state
    assert state.intents and state.foreign_orders and state.halts and state.events and state.clusters and state.held
    other = rig.reborn().state
    assert other == state
    for name in State.__struct_fields__:
        assert type(getattr(other, name)) is type(getattr(state, name)), name
    assert rig.one(Side.SELL).status is Status.UNKNOWN is other.orders[rig.one(Side.SELL).order_id].status


def test_a_checkpoint_of_another_strategy_is_refused():
    rig = Rig().start()
    with pytest.raises(AssertionError, match="strategy scripted"):
        restore(rig.saved(), Maker())


def test_a_checkpoint_with_a_value_of_the_wrong_type_is_refused():
    saved = msgspec.json.decode(Rig().start().saved())
    saved["cash"] = "much"
    with pytest.raises(msgspec.ValidationError):
        restore(msgspec.json.encode(saved), Scripted())


def test_a_checkpoint_shares_nothing_with_what_it_was_made_of():
    rig = Rig(wants=((1, 5000, 20 * SHARE),)).start()
    other = rig.reborn()
    saved = other.saved()
    rig.move(4000)
    rig.run(5)
    rig.fill(rig.live()[0])
    assert other.saved() == saved


def test_nothing_of_the_machine_is_in_it():
    text = Rig().start().saved().decode()
    assert "/" not in text.replace("b/s", "") and "NaN" not in text and "Infinity" not in text


# Several accounts.


def alone(name: str, params: Params, maker: MakerParams) -> World:
    return World(5, {name: (params, maker)}).run(4_000)


def test_accounts_on_one_feed_do_not_influence_one_another():
    one = (account_params(), MakerParams())
    two = (account_params(base_milli=20_000, prior_weight=0.0), MakerParams(quoting="touch", max_spread_usd=0.2))
    together = World(5, {"one": one, "two": two})
    alone_one, alone_two = alone("one", *one), alone("two", *two)
    # Both accounts' events share the clock, so the shared run is cut where each lone run ended.
    together.run(9_000)
    for name, lone in (("one", alone_one), ("two", alone_two)):
        ours, theirs = together.logs[name], lone.logs[name]
        assert len(ours) >= len(theirs) > 3_000
        assert ours[: len(theirs)] == theirs
    states = [e.state for e in together.engines.values()]
    assert states[0].counts.fills and states[1].counts.fills and states[0].cash != states[1].cash
    assert [s.account for s in states] == ["one", "two"]


def test_one_account_that_halts_leaves_the_other_quoting():
    a, b = Rig(wants=((1, 5000, 20 * SHARE),), account="a"), Rig(wants=((1, 5000, 20 * SHARE),), account="b")
    for rig in (a, b):
        rig.start()
        rig.ack()
        rig.run(2)
    a.send(ev.CashMoved(ev.CashKind.FEE, -CASH // 20))
    for rig in (a, b):
        rig.run(2)
    assert a.state.halts and not b.state.halts and len(b.live()) == 1 and equity(b.state) == CASH


def test_defaults_of_a_struct_are_never_shared():
    one, two = Rig().start(), Rig().start()
    one.hold(Side.BUY, 5000, 20 * SHARE)
    one.send(ev.TradePrinted("m", 5000, 700, Side.BUY, one.now))
    one.run(20)
    fresh = Rig().start()
    assert fresh.saved() == two.saved()
    assert isinstance(one.state.strategy_params, Wants)
