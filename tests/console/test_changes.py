"""`why`'s nearest change: known for every reason that the source can give, and true: applied to a real engine, it quotes."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import msgspec
import pytest

from llm_maker.config import Config
from llm_maker.config_text import keys_of
from llm_maker.console import view
from llm_maker.console.changes import RULES
from llm_maker.console.keys_in_force import KEYS, in_force
from llm_maker.core import events as ev
from llm_maker.core import quote, risk, step
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.hazard import Hazard, key
from llm_maker.core.risk import GATES
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.strategy import maker, table
from llm_maker.strategy.maker import Maker
from llm_maker.tuning import maker_params, to_params
from tests.core.builders import SHARE, T0, USD, Rig, Scripted, Wants, advice, binary, linear, of

HOUR = 3_600 * NS_PER_S


class Shop:
    """A rig whose numbers are those of a config file, with the shipped strategy unless told otherwise."""

    def __init__(self, *instruments, strategy=None, wants=None, **keys):
        self.tree = {"llm": {"provider": "none"}}
        self.rig = Rig(strategy=strategy or Maker(), wants=wants)
        self.rig.start(*(instruments or (binary(),)))
        self.set({key.replace("__", "."): value for key, value in keys.items()})

    def set(self, values):
        for name, value in values.items():
            *path, last = name.split(".")
            section = self.tree
            for part in path:
                section = section.setdefault(part, {})
            section[last] = int(value) if name.endswith(("_positions", "_ticks", "_10s")) else value
        config = Config.model_validate(self.tree)
        rig = self.rig
        own = maker_params(config) if isinstance(rig.strategy, Maker) else rig.state.strategy_params
        encoded = (msgspec.Raw(msgspec.json.encode(params)) for params in (to_params(config), own))
        self.rig.send(ev.ParamsChanged(*encoded, "test"))

    def why(self, name="m"):
        return view.why(self.rig.state, self.rig.market(name), self.rig.strategy)

    def apply(self, change):
        """What a person, or time, would do; then the market is looked at again."""
        rig = self.rig
        if change["do"] == "wait":
            before = {m.instrument.id: (m.book.bids, m.book.asks) for m in rig.state.markets.values() if m.book.trusted}
            rig.wait(change["seconds"] - 0.25)
            for name, (bids, asks) in before.items():
                rig.book(name, tuple(bids.items()), tuple(asks.items()))
            rig.run(0.5)
        if change["values"]:
            self.set(change["values"])
        if change["verb"]:
            target = "m" if change["text"].endswith("resume m`") else ""
            rig.send(ev.OperatorActed(ev.Verb(change["verb"]), "test", target))
        rig.run(2)

    def quotes(self, name="m", side=None):
        return [o for o in self.rig.live(side, name) if o.post_only and not o.sent_cancel]


def pause(shop):
    shop.rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test"))


def pause_one(shop):
    shop.rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test", "m"))


def lose(shop):
    shop.rig.run(1)
    shop.rig.send(ev.CashMoved(ev.CashKind.FEE, -300 * USD))
    shop.rig.run(2)


def lose_a_lot(shop):
    shop.rig.run(1)
    shop.rig.send(ev.CashMoved(ev.CashKind.FEE, -700 * USD))
    shop.rig.run(2)


def jump(shop):
    shop.rig.run(2)
    shop.rig.move(6500)


def storm(shop):
    estimators = shop.rig.market().estimators
    estimators.steps, estimators.sig_5m_median = 10_000, 0.001
    estimators.sig_5m = 20.0 * max(estimators.sig_5m_median, estimators.sig_calm)
    shop.rig.run(1)


def stop_out(shop):
    shop.rig.market().cooldown_until = shop.rig.now + 30 * NS_PER_S
    shop.rig.run(2)


def refuse(shop):
    for order in list(shop.rig.live()):
        shop.rig.send(ev.OrderRejected(order.order_id, "balance", "no"))
    shop.rig.run(1)


def doubt(shop):
    shop.rig.advise(advice("buy_yes", 0.55, "bullish"))
    shop.rig.run(2)


def quiet(shop):
    shop.rig.run(1)


def wide(shop):
    shop.rig.move(5000, half=400)


def pessimist(shop):
    """Fills have taught that every price is picked off."""
    market = shop.rig.market()
    lesson = Hazard()
    for ticks in range(-5, 6):
        for _ in range(200):
            lesson.learn_adverse(ticks, 30.0, 1.0)
    tick = 100
    spread = (market.book.best_ask - market.book.best_bid) // tick
    shop.rig.state.hazards[key(market.instrument, tick, spread)] = lesson
    shop.rig.run(2)


CASES = [
    ("mode", pause, {}, "verb"),
    ("mode", lose, {}, "wait"),
    ("mode", lose_a_lot, {"risk.daily_loss_pct": 10.0, "risk.weekly_loss_pct": 10.0, "risk.monthly_loss_pct": 10.0}, "verb"),
    ("market", pause_one, {}, "verb"),
    ("pull", jump, {}, "wait"),
    ("pull", storm, {}, "set"),
    ("cooldown", stop_out, {}, "wait"),
    ("venue refused", refuse, {}, "wait"),
    ("wide spread", wide, {"execution.max_spread_threshold": 0.05}, "set"),
    ("thin book", quiet, {"execution.min_liquidity_threshold": 5_000.0}, "set"),
    ("less than the smallest order", quiet, {"strategy.base_position_size": 2.0}, "set"),
    ("low confidence", doubt, {"strategy.signal_rule": "seed"}, "set"),
    ("no expected gain", pessimist, {"strategy.terms.table": True}, "set"),
    ("order cap", quiet, {"risk.max_order_usd": 1.0}, "set"),
    ("market cap", quiet, {"risk.max_market_pct": 0.01}, "set"),
    ("position cap", quiet, {"strategy.base_position_size": 3.0, "strategy.max_position_size": 3.0}, "set"),
    ("free cash", quiet, {"risk.min_free_cash_pct": 99.99}, "set"),
]


@pytest.mark.parametrize(("reason", "stage", "keys", "do"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES])
def test_the_nearest_change_makes_it_quote(reason, stage, keys, do):
    shop = Shop()
    shop.set(keys)
    stage(shop)
    for order in list(shop.rig.live()):
        if order.sent_cancel:
            shop.rig.send(ev.OrderCanceled(order.order_id))
    assert not shop.quotes()
    facts = shop.why()
    change = facts["changes"][0]
    assert change["do"] == do, facts["nearest_change"]
    if do == "set":
        assert all(f"{value:g} (it is " in change["text"] or isinstance(value, bool) for value in change["values"].values())
    shop.apply(change)
    assert shop.quotes(), f"{reason}: {facts['nearest_change']}"


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        (quiet, {"risk.max_order_usd": 1.0, "risk.max_market_pct": 0.01, "risk.min_free_cash_pct": 99.99}),
        (quiet, {"risk.max_order_usd": 1.0, "execution.min_liquidity_threshold": 5_000.0}),
        (wide, {"execution.max_spread_threshold": 0.05, "strategy.base_position_size": 2.0, "risk.max_market_pct": 0.01}),
        (doubt, {"strategy.signal_rule": "seed", "risk.max_market_pct": 0.01}),
    ],
)
def test_what_stands_behind_the_first_reason_is_told_with_it(stage, keys):
    """One change that is followed makes it quote: not the first of three, each found out after the one before."""
    shop = Shop()
    shop.set(keys)
    stage(shop)
    shop.rig.ack()
    assert not shop.quotes()
    before = shop.rig.saved()
    change = shop.why()["changes"][0]
    assert shop.rig.saved() == before
    assert len(change["values"]) >= 2 and all(key in change["text"] for key in change["values"])
    shop.apply(change)
    assert shop.quotes(), change["text"]


def test_a_market_held_over_its_cap_by_an_order_in_doubt_tells_what_the_gate_counts():
    """The other side's order counts in the worst case, though this one adds nothing to it."""
    shop = Shop()
    rig = shop.rig
    rig.ack()
    rig.hold(Side.BUY, 5000, 20 * SHARE)
    shop.set({"risk.max_market_pct": 0.2})
    bid, ask = rig.one(Side.BUY), rig.one(Side.SELL)
    rig.send(ev.OrderUncertain(bid.order_id, "timeout"), ev.OrderCanceled(ask.order_id))
    rig.run(1)
    rig.ack()
    assert not shop.quotes(side=Side.SELL)
    facts = shop.why()
    assert facts["sides"]["sell"]["refused"] == ["market cap"]
    shop.apply(next(change for change in facts["changes"] if "risk.max_market_pct" in change["values"]))
    assert shop.quotes(side=Side.SELL), facts["nearest_change"]


def test_a_value_one_step_short_of_the_nearest_does_not_help():
    """The number is the nearest one, not merely one that suffices."""
    for name, stage, value, nudge in (
        ("execution.max_spread_threshold", wide, 0.05, -0.001),
        ("risk.max_order_usd", quiet, 1.0, -0.05),
        ("risk.max_market_pct", quiet, 0.01, -0.002),
        ("risk.min_free_cash_pct", quiet, 99.99, 0.01),
    ):
        shop = Shop()
        shop.set({name: value})
        stage(shop)
        shop.rig.ack()
        (change,) = shop.why()["changes"]
        shop.set({name: round(change["values"][name] + nudge, 6)})
        shop.rig.run(2)
        assert not shop.quotes(), name


def test_the_end_and_the_start_of_an_event_open_again():
    near = Shop(binary(end_ns=T0 + HOUR, guard_end=True))
    near.rig.run(1)
    change = near.why()["changes"][0]
    assert set(change["values"]) == {"risk.resolution_pull_hours", "risk.resolution_reduce_hours"}
    near.apply(change)
    assert near.quotes()
    for _ in range(20):
        near.rig.wait(30)
        near.rig.book()
        near.rig.run(2)
        near.rig.ack()
    assert near.quotes(), "not for a moment only"
    soon = Shop(binary(start_ns=T0 + 300 * NS_PER_S))
    soon.rig.run(1)
    change = soon.why()["changes"][0]
    assert change["do"] == "wait"
    assert 898 <= change["seconds"] <= 900
    soon.apply(change)
    assert soon.quotes()


def test_one_position_more_is_allowed():
    shop = Shop(binary(), binary("n"))
    shop.set({"risk.max_open_positions": 1})
    rig = shop.rig
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test", "n"))
    rig.ack()
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "test", "n"))
    rig.run(2)
    assert not shop.quotes("n")
    (change,) = shop.why("n")["changes"]
    assert change["values"] == {"risk.max_open_positions": 2}
    shop.apply(change)
    assert shop.quotes("n")


@pytest.mark.parametrize(
    ("cap", "key", "grouped"),
    [
        ("event cap", "risk.max_event_pct", {"event_id": "e"}),
        ("cluster cap", "risk.max_cluster_pct", {"cluster": "c"}),
        ("gross cap", "risk.max_gross_pct", {}),
    ],
)
def test_a_cap_that_other_markets_fill(cap, key, grouped):
    """Percent caps may not pass one another, so what stands above moves along."""
    shop = Shop(binary(**grouped), binary("n", **grouped))
    keys = dict.fromkeys(("risk.max_market_pct", "risk.max_event_pct", "risk.max_cluster_pct", "risk.max_gross_pct"), 0.5)
    shop.rig.hold(Side.BUY, 5000, 99 * SHARE, "n")
    order = list(keys)
    shop.set(dict.fromkeys(reversed(order), 100.0))
    shop.set(dict.fromkeys(order[: order.index(key) + 1], 0.5))
    shop.rig.run(2)
    shop.rig.ack()
    shop.rig.run(1)
    assert not shop.quotes()
    facts = shop.why()
    assert cap in facts["sides"]["buy"]["refused"]
    change = facts["changes"][0]
    assert key in change["values"]
    shop.apply(change)
    assert shop.quotes()


def test_a_side_at_its_position_cap_tells_what_would_let_it_add():
    shop = Shop()
    shop.rig.ack()
    shop.rig.hold(Side.BUY, 5000, 150 * SHARE)
    shop.rig.run(2)
    shop.rig.ack()
    assert not shop.quotes(side=Side.BUY)
    side = shop.why()["sides"]["buy"]
    assert side["lack"] == "position near its cap"
    change = next(c for c in shop.why()["changes"] if "strategy.max_position_size" in c["values"])
    shop.apply(change)
    assert shop.quotes(side=Side.BUY)


def test_a_linear_market_without_a_size_names_the_money():
    shop = Shop(linear())
    rig = shop.rig
    rig.book("l", ((6_799_900, 5_000), (6_799_000, 5_000)), ((6_800_100, 5_000), (6_801_000, 5_000)))
    rig.run(32)
    assert "no size configured" in shop.why("l")["sides"]["buy"]["refused"]
    (change,) = shop.why("l")["changes"]
    assert set(change["values"]) == {"strategy.base_usd", "strategy.max_usd"}
    shop.apply(change)
    assert shop.quotes("l")


def test_an_exit_that_finds_no_depth_tells_how_far_it_would_have_to_reach():
    shop = Shop()
    shop.rig.ack()
    shop.rig.hold(Side.BUY, 5000, 50 * SHARE)
    shop.set({"risk.exit_max_slippage": 0.01})
    shop.rig.book("m", ((4000, 500 * SHARE),), ((6000, 500 * SHARE),))
    shop.rig.ack()
    shop.rig.run(31)
    shop.rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m", take=True))
    shop.rig.ack()
    shop.rig.run(1)
    change = next(c for c in shop.why()["changes"] if "risk.exit_max_slippage" in c["values"])
    shop.rig.log.clear()
    shop.set(change["values"])
    for _ in range(3):
        shop.rig.ack()
        shop.rig.run(1)
    assert [order for order in of(shop.rig.log, PlaceOrder) if not order.post_only]


def test_a_price_too_far_from_fair_tells_how_many_ticks():
    shop = Shop(strategy=Scripted(), wants=Wants(((1, 5500, 50 * SHARE),)))
    shop.set({"risk.fat_finger_ticks": 1, "risk.fat_finger_pct": 0.1})
    shop.rig.book("m", ((5000, 500 * SHARE),), ((5600, 500 * SHARE),))
    shop.rig.run(40)
    shop.rig.ack()
    assert not shop.quotes()
    assert shop.why()["sides"]["buy"]["refused"] == ["fat finger"]
    (change,) = shop.why()["changes"]
    shop.apply(change)
    assert shop.quotes()


def test_when_the_messages_are_spent_it_tells_how_long():
    shop = Shop()
    shop.rig.ack()
    shop.set({"risk.messages_per_10s": 10})
    facts = shop.why()
    for n in range(20):
        shop.rig.wait(0.05)
        shop.rig.move(5000 + 400 * (n % 2))
        shop.rig.ack()
        facts = shop.why()
        if "message budget" in facts["sides"]["buy"]["refused"]:
            break
    change = next(c for c in facts["changes"] if "messages" in c["text"])
    assert change["do"] == "wait"
    assert 0 < change["seconds"] <= 10
    assert not shop.quotes()
    shop.apply(change)
    assert shop.quotes()


@pytest.mark.parametrize("fault", ["silent", "gap", "down", "one side"])
def test_what_only_the_world_can_mend_is_said_to_be_so(fault):
    shop = Shop()
    rig = shop.rig
    rig.run(1)
    rig.ack()
    match fault:
        case "silent":
            rig.run(15, alive=False)
        case "gap":
            rig.send(ev.FeedLost(("m",), "damaged frame"))
        case "down":
            rig.send(ev.VenueDown("v", "socket closed"))
        case "one side":
            rig.book("m", ((5000, 500 * SHARE),), ())
    rig.ack()
    rig.run(1, alive=False)
    assert not shop.quotes()
    changes = shop.why()["changes"]
    assert [change["do"] for change in changes] == ["outside"]
    rig.send(ev.VenueUp("v", True))
    rig.book()
    rig.run(2)
    assert shop.quotes()


def test_two_closed_gates_are_both_told():
    shop = Shop()
    stop_out(shop)
    pause(shop)
    shop.rig.ack()
    changes = shop.why()["changes"]
    assert [change["do"] for change in changes] == ["verb", "wait"]
    shop.apply(changes[0])
    assert not shop.quotes()
    shop.apply(changes[1])
    assert shop.quotes()


# Every reason there is.


def constants(module: ModuleType, *functions: str) -> set[str]:
    """Every text that these functions return."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            for part in ast.walk(node):
                if isinstance(part, ast.Return) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str):
                    found.add(part.value.value)
    return found - {""}


def notes(module: ModuleType) -> set[str]:
    """Every text that a module puts into `own.note`."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Attribute) and t.attr == "note" for t in targets) and isinstance(node.value, ast.Constant):
            found.add(node.value.value)
    return found - {""}


def after_side(module: ModuleType) -> set[str]:
    """What follows a side in the texts that a module adds to refusals."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.JoinedStr) and len(node.values) == 2 and isinstance(node.values[1], ast.Constant):
            text = str(node.values[1].value)
            if text.startswith(" ") and "name.lower()" in ast.unparse(node.values[0]):
                found.add(text.strip())
    return found


def reasons() -> set[str]:
    names = {rule.__name__.removeprefix("gate_") for rule in GATES}
    found = names | constants(risk, "gate", "_limits") | constants(step, "_send") | constants(maker, "unfit")
    found |= notes(quote) | notes(table) | notes(maker) | after_side(quote)
    shop = Shop()
    found |= {name for name, _ in risk.cash_rooms(shop.rig.state, shop.rig.market())}
    source = inspect.getsource(quote)
    assert '"venue refused"' in source
    assert '"position cap"' in inspect.getsource(risk._room)
    return found | {"venue refused", "position cap"}


def test_every_reason_in_the_source_knows_a_change():
    found = reasons() - {"taking"}
    assert {"wide spread", "no expected gain", "fat finger", "message budget", "no depth within the slippage limit"} <= found
    assert len(found) >= 30
    assert found <= RULES.keys()
    assert RULES.keys() <= found, "a rule for a reason that nothing gives"


def test_every_key_that_is_recommended_exists_and_is_read_back():
    known = {name for name, _ in keys_of(Config)}
    assert set(KEYS) <= known
    config = Config.model_validate({"llm": {"provider": "none"}})
    shop = Shop()
    for named in KEYS:
        if not named.startswith("live."):
            section, *path = named.split(".")
            wanted = getattr(config, section)
            for name in path:
                wanted = getattr(wanted, name)
            assert in_force(shop.rig.state, named) == pytest.approx(wanted), named


def test_asking_why_changes_nothing():
    shop = Shop(binary(), binary("n"))
    shop.set({"strategy.terms.table": True})
    shop.rig.advise(advice("buy_yes", 0.9, "bullish", p_yes=0.7))
    shop.rig.run(3)
    before = shop.rig.saved()
    for name in ("m", "n"):
        shop.why(name)
    assert shop.rig.saved() == before


def test_a_side_that_waits_for_the_venue_says_for_which_order():
    shop = Shop()
    shop.rig.ack()
    for order in shop.rig.live():
        shop.rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    shop.rig.run(1)
    facts = shop.why()
    assert not facts["sides"]["buy"]["refused"]
    assert {"1-1", "1-2"} == {word for change in facts["changes"] for word in change["text"].split() if word.startswith("1-")}
    assert all(change["do"] == "outside" for change in facts["changes"])
