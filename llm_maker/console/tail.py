"""What happened lately, in words with numbers beside them: the stream of `top` and the page. Bounded; forgets the oldest.

Prices and sizes are those of the one YES book, USD and shares. Orders and cancels, of which there may be many, are kept apart, so
that they push out nothing but one another. What is told as a notice is not told again by the event that caused it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from llm_maker.console.alarm_rules import RULES, cure_of
from llm_maker.console.shapes import Entry, Kind
from llm_maker.console.tables import money, number, price
from llm_maker.core import events as e
from llm_maker.core.advice import Signal
from llm_maker.core.commands import AnyCommand, CancelOrder, Level, Notice, PlaceOrder
from llm_maker.core.state import Market, State
from llm_maker.core.values import Leg, Side, leg_price, leg_side, usd

MOST = 2_000
MOST_OFTEN = 600
"""Of orders and cancels, which come by the hundred: what is older stands in logs/executions.jsonl, and `why ORDER` finds it."""
TEXT_MAX = 300
REASONING_MAX = 2_000
_OPERATOR = "operator_"
_OF_SETTLEMENT = ("settlement_failed", "redeemed", "redemption", "redeem_failed", "merge_failed", "split_failed", "drift")


class Tail:
    """Hears what the recorder hears, after the state has moved, and every line of the daemon's log."""

    def __init__(self, state: Callable[[], State], most: int = MOST) -> None:
        self._state = state
        self._often: deque[Entry] = deque(maxlen=min(most, MOST_OFTEN))
        """Orders and cancels."""
        self._entries: deque[Entry] = deque(maxlen=most)
        self._fills: dict[str, bool] = {}
        """Ids of the last fills (a set; the values mean nothing)."""
        self._most = most
        self._idle = ""
        """Why nobody was asked the last time: said once, not every cycle."""
        self.last = 0
        self._handlers: dict[type[e.Event], Callable[[int, Any], None]] = {
            e.OrderFilled: self._fill,
            e.OrderRejected: self._rejected,
            e.OrderCanceled: self._canceled,
            e.OrderExpired: self._expired,
            e.OrderUncertain: self._uncertain,
            e.SignalsReceived: self._received,
            e.SignalsFailed: self._failed,
            e.SignalsSkipped: self._skipped,
            e.IntentReceived: self._intent,
            e.MarketResolved: self._resolved,
            e.CashMoved: self._cash,
            e.SetsMerged: self._merged,
            e.SetsSplit: self._split,
        }

    def record(self, seq: int, ts: int, event: e.Event, commands: list[AnyCommand]) -> None:
        """One step: what was decided, ordered, filled, and what a person did. Notices come by `hear`."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(ts, event)
        for command in commands:
            if isinstance(command, PlaceOrder):
                self._order(ts, command)
            elif isinstance(command, CancelOrder):
                facts = {"order_id": command.order_id, "reason": command.reason}
                self._add(ts, "cancel", f"cancel {command.order_id}: {command.reason}", command.instrument, facts)

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log."""
        code, rule = notice.code, RULES.get(notice.code)
        kind: Kind = "notice"
        if code.startswith(_OPERATOR):
            kind, code = "operator", code.removeprefix(_OPERATOR)
        elif code in _OF_SETTLEMENT:
            kind = "settlement"
        elif rule is not None and notice.level is not Level.INFO:
            kind = "alarm"
        cure = cure_of(notice.code, notice.instrument) if kind == "alarm" else ""
        self._add(ts, kind, notice.text, notice.instrument, {}, level=notice.level, code=code, cure=cure)

    def since(self, n: int, most: int = 200) -> list[Entry]:
        """Entries with a number above `n`, oldest first; of more than `most` the newest."""
        new = [entry for kept in (self._often, self._entries) for entry in takewhile(lambda e: e["n"] > n, reversed(kept))]
        return sorted(new, key=_number)[-most:] if most > 0 else []

    def of(self, market_id: str, most: int = 50) -> list[Entry]:
        """The last entries of one market, oldest first."""
        found = [entry for kept in (self._often, self._entries) for entry in kept if entry["market_id"] == market_id]
        return sorted(found, key=_number)[-most:]

    def _add(
        self,
        ts: int,
        kind: Kind,
        text: str,
        market_id: str = "",
        facts: dict[str, Any] | None = None,
        *,
        level: Level = Level.INFO,
        code: str = "",
        cure: str = "",
    ) -> None:
        self.last += 1
        entry: Entry = {
            "n": self.last,
            "ts_ns": ts,
            "kind": kind,
            "level": level.value,
            "code": code,
            "market_id": market_id,
            "text": text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 2] + "..",
            "cure": cure,
            "facts": facts or {},
        }
        (self._often if kind in ("order", "cancel") else self._entries).append(entry)

    # Orders and money.

    def _order(self, ts: int, command: PlaceOrder) -> None:
        market = self._state().markets[command.instrument]
        facts = _trade(market, command.side, command.leg, command.price, command.qty) | {
            "order_id": command.order_id,
            "reason": command.reason,
            "decision_id": command.decision_id,
            "post_only": command.post_only,
        }
        how = "" if command.post_only else ", taking"
        shaped = f", by {command.decision_id}" if command.decision_id else ""
        self._add(ts, "order", f"{_words(facts)}{how}: {command.reason}{shaped}", command.instrument, facts)

    def _fill(self, ts: int, event: e.OrderFilled) -> None:
        market = self._state().markets.get(event.instrument)
        if market is None or event.fill_id in self._fills or market.position.seen.get(event.fill_id, ts) < ts:
            return
        self._fills[event.fill_id] = True
        if len(self._fills) > self._most:
            del self._fills[next(iter(self._fills))]
        mid = market.instrument.usd_price(market.mark) if market.mark > 0 else None
        order = self._state().orders.get(event.order_id)
        facts = _trade(market, event.side, event.leg, event.price, event.qty) | {
            "order_id": event.order_id,
            "fill_id": event.fill_id,
            "fee_usd": usd(event.fee),
            "mid": mid,
            "liquidity": event.liquidity.value,
            "reason": order.reason if order is not None else "",
        }
        held = market.instrument.usd_qty(market.position.net)
        told = f"filled: {_words(facts)}, mid {price(mid)}"
        told += f", fee ${facts['fee_usd']:.4f}" if event.fee else ""
        self._add(ts, "fill", f"{told}; {number(held)} held now", event.instrument, facts)

    def _of_order(self, ts: int, order_id: str, kind: Kind, text: str, level: Level, **facts: str) -> None:
        order = self._state().orders.get(order_id)
        market_id = order.instrument if order is not None else ""
        self._add(ts, kind, text, market_id, {"order_id": order_id, **facts}, level=level)

    def _rejected(self, ts: int, event: e.OrderRejected) -> None:
        # Of any other reason there is a notice.
        if event.reason == "post_only":
            text = f"{event.order_id} refused by the venue: it would have crossed"
            self._of_order(ts, event.order_id, "order", text, Level.INFO, reason=event.reason)

    def _canceled(self, ts: int, event: e.OrderCanceled) -> None:
        order = self._state().orders.get(event.order_id)
        if order is not None and not order.sent_cancel:
            # Not asked for: the venue did it, or an order that takes has ended.
            text = f"{event.order_id} ended by the venue" + (f": {event.reason}" if event.reason else "")
            self._of_order(ts, event.order_id, "cancel", text, Level.INFO, reason=event.reason)

    def _expired(self, ts: int, event: e.OrderExpired) -> None:
        self._of_order(ts, event.order_id, "cancel", f"{event.order_id} expired", Level.INFO, reason="expired")

    def _uncertain(self, ts: int, event: e.OrderUncertain) -> None:
        text = f"{event.order_id} UNKNOWN: {event.reason}; counted as live until the venue says"
        self._of_order(ts, event.order_id, "order", text, Level.WARNING, reason=event.reason)

    def _resolved(self, ts: int, event: e.MarketResolved) -> None:
        market = self._state().markets.get(event.instrument)
        if market is not None:
            paid = market.instrument.usd_price(event.price)
            self._add(ts, "settlement", f"resolved: a YES share pays {_paid(paid)}", event.instrument, {"price": paid})

    def _cash(self, ts: int, event: e.CashMoved) -> None:
        amount = usd(event.amount)
        self._add(ts, "settlement", f"{event.kind.value} {money(amount, signed=True)}", event.instrument, {"amount_usd": amount})

    def _merged(self, ts: int, event: e.SetsMerged) -> None:
        self._sets(ts, event.instrument, event.qty, "merged into cash")

    def _split(self, ts: int, event: e.SetsSplit) -> None:
        self._sets(ts, event.instrument, event.qty, "made of cash")

    def _sets(self, ts: int, instrument: str, qty: int, what: str) -> None:
        market = self._state().markets.get(instrument)
        if market is not None:
            shares = market.instrument.usd_qty(qty)
            self._add(ts, "settlement", f"{number(shares)} sets {what}", instrument, {"shares": shares})

    # The slow loop, and wishes from outside.

    def _received(self, ts: int, event: e.SignalsReceived) -> None:
        self._idle = ""
        count, cost = len(event.signals), usd(event.cost)
        facts = {
            "decision_id": event.decision_id,
            "model": event.model,
            "signals": count,
            "cost_usd": cost,
            "outcome": "ok",
            "simulated": event.simulated,
        }
        told = f"{event.model}{' (simulated)' if event.simulated else ''}: {count} {'signal' if count == 1 else 'signals'}"
        told += f", {event.invalid} invalid" if event.invalid else ""
        told += f", ${cost:.4f}" if event.cost else ""
        self._add(ts, "decision", told, "", facts)
        for signal in event.signals:
            self._signal(ts, signal, event)

    def _signal(self, ts: int, signal: Signal, event: e.SignalsReceived) -> None:
        market = self._state().markets.get(signal.market_id)
        if market is None:
            return
        accepted = market.opinion is not None and market.opinion.signal == signal
        facts = {
            "action": signal.action.value,
            "confidence": signal.confidence,
            "p_yes": signal.p_yes,
            "model": event.model,
            "reasoning": signal.reasoning[:REASONING_MAX],
            "decision_id": event.decision_id,
            "accepted": accepted,
            "price": market.instrument.usd_price(market.mark) if market.mark > 0 else None,
        }
        sure = f"{signal.action.value}, confidence {signal.confidence:g}"
        sure += f", p {signal.p_yes:.3f}" if signal.p_yes is not None else ""
        because = f": {signal.reasoning}" if signal.reasoning else ""
        self._add(ts, "signal", f"{sure}{'' if accepted else ', not taken'}{because}", signal.market_id, facts)

    def _failed(self, ts: int, event: e.SignalsFailed) -> None:
        self._idle = ""
        facts = {
            "decision_id": event.decision_id,
            "model": "",
            "signals": 0,
            "cost_usd": usd(event.cost),
            "outcome": event.reason,
        }
        because = f": {event.detail}" if event.detail else ""
        self._add(ts, "decision", f"no valid answer, {event.reason}{because}", "", facts, level=Level.WARNING)

    def _skipped(self, ts: int, event: e.SignalsSkipped) -> None:
        if event.reason != self._idle:
            self._idle = event.reason
            facts = {"decision_id": "", "model": "", "signals": 0, "cost_usd": 0.0, "outcome": f"skipped: {event.reason}"}
            self._add(ts, "decision", f"nobody asked: {event.reason.replace('_', ' ')}", "", facts)

    def _intent(self, ts: int, event: e.IntentReceived) -> None:
        market = self._state().markets.get(event.instrument)
        if market is not None:
            target = market.instrument.usd_qty(event.target_net)
            facts = {"intent_id": event.intent_id, "target": target, "who": event.who, "reason": event.reason}
            because = f": {event.reason}" if event.reason else ""
            text = f"{event.who} wants a position of {number(target)}, intent {event.intent_id}{because}"
            self._add(ts, "operator", text, event.instrument, facts, code="intend")


def _number(entry: Entry) -> int:
    return entry["n"]


def _paid(value: float) -> str:
    return price(value) if value else "0"


def _trade(market: Market, side: Side, leg: Leg, at: int, qty: int) -> dict[str, Any]:
    """An order or fill in YES terms, with the token that moves where it is NO."""
    instrument = market.instrument
    return {
        "side": side.name.lower(),
        "price": instrument.usd_price(at),
        "shares": instrument.usd_qty(qty),
        "token": leg.value,
        "token_side": leg_side(side, leg).name.lower(),
        "token_price": instrument.usd_price(leg_price(instrument, at, leg)),
    }


def _words(facts: dict[str, Any]) -> str:
    """`sell 50 at 0.42 (buy NO at 0.58)`."""
    told = f"{facts['side']} {number(facts['shares'])} at {price(facts['price'])}"
    if facts["token"] == Leg.NO.value:
        told += f" ({facts['token_side']} NO at {price(facts['token_price'])})"
    return told
