"""The stream of what happened: every order, fill, decision, act and notice once, in words and numbers, bounded."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from llm_maker.console import shapes
from llm_maker.console.alarm_rules import RULES, cure_of
from llm_maker.console.tail import REASONING_MAX, TEXT_MAX, Tail
from llm_maker.core import events as ev
from llm_maker.core.commands import Level, Notice
from llm_maker.core.events import Event
from llm_maker.core.values import Leg, Liquidity, Side
from llm_maker.strategy.maker import Maker
from tests.core.builders import SHARE, Rig, advice, binary


class Heard(Rig):
    """A rig whose steps the tail hears as the seat's recorder does: notices by the log, then the step."""

    def __init__(self, most: int = 2_000):
        super().__init__(strategy=Maker())
        self.tail = Tail(lambda: self.state, most)
        self.start(binary(), binary("n"))
        self.ack()
        self.run(1)

    def send(self, *events: Event):
        out = []
        for event in events:
            commands = super().send(event)
            for command in commands:
                if isinstance(command, Notice):
                    self.tail.hear(self.now, command)
            self.tail.record(0, self.now, event, commands)
            out += commands
        return out

    def kinds(self, kind: str):
        return [entry for entry in self.tail.since(0, 10_000) if entry["kind"] == kind]


@pytest.fixture
def rig() -> Heard:
    return Heard()


def fill(rig: Heard, fill_id: str = "f1", qty: int = 10 * SHARE) -> ev.OrderFilled:
    order = rig.one(Side.SELL)
    return ev.OrderFilled(order.order_id, fill_id, "m", Side.SELL, order.leg, order.price, qty, 1_000, Liquidity.MAKER)


def test_orders_say_why(rig):
    orders = rig.kinds("order")
    assert [entry["market_id"] for entry in orders] == ["m", "m", "n", "n"]
    assert orders[0]["text"] == "buy 50 at 0.50: inventory" or orders[1]["text"] == "buy 50 at 0.50: inventory"
    assert any(entry["text"] == "sell 50 at 0.52 (buy NO at 0.48): inventory" for entry in orders)
    assert {"order_id", "side", "price", "shares", "reason", "decision_id"} <= orders[0]["facts"].keys()
    assert all(entry.keys() == get_type_hints(shapes.Entry).keys() for entry in orders)
    msgspec.json.encode(orders)


def test_a_fill_told_twice_is_told_once(rig):
    event = fill(rig)
    rig.send(event)
    rig.send(event)
    rig.wait(1)
    rig.send(event)
    (entry,) = rig.kinds("fill")
    assert entry["text"] == "filled: sell 10 at 0.52 (buy NO at 0.48), mid 0.51, fee $0.0010; -10 held now"
    facts = entry["facts"]
    assert (facts["price"], facts["shares"], facts["fee_usd"], facts["mid"]) == (0.52, 10.0, 0.001, 0.51)
    assert facts["token"] == Leg.NO.value


def test_a_fill_of_an_earlier_session_told_again_is_not_news(rig):
    event = fill(rig)
    rig.send(event)
    born_again = Tail(lambda: rig.state)
    rig.wait(5)
    born_again.record(0, rig.now, event, rig.engine.on_event(rig.now, event))
    assert born_again.since(0) == []


def test_signals_with_their_reasoning_and_their_decision(rig):
    long = "x" * 5_000
    rig.advise(advice("buy_yes", 0.9, "bullish", p_yes=0.6, reasoning=long), advice("hold", 0.5, market="n", reasoning="calm"))
    (decision,) = rig.kinds("decision")
    assert decision["facts"]["signals"] == 2
    assert decision["facts"]["outcome"] == "ok"
    first, second = rig.kinds("signal")
    assert first["text"].startswith("buy_yes, confidence 0.9, p 0.600: xxx")
    assert len(first["text"]) <= TEXT_MAX
    assert len(first["facts"]["reasoning"]) == REASONING_MAX
    assert second["text"] == "hold, confidence 0.5: calm"


def test_a_signal_that_was_not_taken_says_so(rig):
    rig.advise(advice("buy_yes", 0.9, "bearish"))
    (entry,) = rig.kinds("signal")
    assert entry["text"] == "buy_yes, confidence 0.9, not taken"
    assert not entry["facts"]["accepted"]


def test_failures_and_idle_cycles(rig):
    rig.state.slow.pending = "r"
    rig.send(ev.SignalsFailed("r", "d9", "timeout", "no answer in 30s"))
    for _ in range(5):
        rig.send(ev.SignalsSkipped("r", "empty_agenda"))
    failed, idle = rig.kinds("decision")
    assert (failed["level"], failed["text"]) == ("warning", "no valid answer, timeout: no answer in 30s")
    assert idle["text"] == "nobody asked: empty agenda"


def test_what_a_person_does_is_told_with_who(rig):
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "page", "m"), ev.IntentReceived("w1-1", "n", 50 * SHARE, "chat 7", "I know"))
    paused, wish = rig.kinds("operator")
    assert (paused["code"], paused["text"], paused["market_id"]) == ("pause", "pause by page", "m")
    assert wish["text"] == "chat 7 wants a position of 50, intent w1-1: I know"
    assert next(entry["text"] for entry in rig.kinds("cancel") if entry["market_id"] == "m").endswith(": market")


def test_an_alarm_carries_its_cure(rig):
    code = next(iter(RULES))
    rig.tail.hear(rig.now, Notice(Level.WARNING, code, "something"))
    rig.tail.hear(rig.now, Notice(Level.INFO, "exit_done", "an exit has ended", "m"))
    assert rig.kinds("alarm")[-1]["cure"] == cure_of(code)
    assert rig.kinds("notice")[-1]["text"] == "an exit has ended"


def test_money_that_moves_without_a_trade(rig):
    rig.send(ev.CashMoved(ev.CashKind.REWARD, 1_500_000), ev.MarketResolved("n", 10_000))
    assert [entry["text"] for entry in rig.kinds("settlement")] == ["reward +$1.50", "resolved: a YES share pays 1.00"]


def test_the_venues_doubts_are_told(rig):
    order = rig.one(Side.BUY)
    rig.send(ev.OrderUncertain(order.order_id, "timeout"))
    told = rig.kinds("order")[-1]
    assert told["level"] == "warning"
    assert told["text"] == f"{order.order_id} UNKNOWN: timeout; counted as live until the venue says"


def test_many_orders_push_out_no_fill():
    rig = Heard(most=30)
    rig.send(fill(rig))
    for n in range(200):
        rig.wait(1)
        rig.move(5000 + 400 * (n % 2), "n")
        rig.ack()
    assert len(rig.kinds("order") + rig.kinds("cancel")) == 30
    assert len(rig.kinds("fill")) == 1
    numbers = [entry["n"] for entry in rig.tail.since(0, 10_000)]
    assert numbers == sorted(set(numbers))
    assert rig.tail.last == numbers[-1]


def test_a_reader_gets_what_is_new_once(rig):
    last = rig.tail.last
    assert rig.tail.since(last) == []
    rig.send(fill(rig))
    new = rig.tail.since(last)
    assert [entry["n"] for entry in new] == list(range(last + 1, rig.tail.last + 1))
    assert rig.tail.since(0, 3) == rig.tail.since(0, 10_000)[-3:]
    assert rig.tail.since(0, 0) == []
    assert {entry["market_id"] for entry in rig.tail.of("m")} == {"m"}
