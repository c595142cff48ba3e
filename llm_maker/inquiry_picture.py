"""A market at one moment as a person is shown it, and an event in words: what `why ORDER` puts before and after a decision."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.console import view
from llm_maker.core import events as e
from llm_maker.core import risk
from llm_maker.core.commands import AnyCommand, PlaceOrder
from llm_maker.core.quote import EXIT, INTENT, effective
from llm_maker.core.signals import Opinion
from llm_maker.core.state import Market, State
from llm_maker.core.values import Instrument, Side, leg_price, leg_side, usd
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.replay import OF_A_FEED

LEVELS = 5
Levels = tuple[tuple[int, int, int], ...]
"""(price, quantity of all, of that ours), best first; units of the market."""
_OF_VALUE = ("opinion", "flow", "parity", "decay")
"""Terms that move what we think a share is worth; the others move only our prices."""
_SHARES = ("taper", "unwind")
"""Terms that are shares taken off an order, not price."""


class Seen(msgspec.Struct, frozen=True):
    """The book and what stood beside it; units of the market."""

    bids: Levels
    asks: Levels
    trusted: bool
    best_bid: int
    best_ask: int
    bid_qty: int
    ask_qty: int
    changed_ns: int
    now: int
    net: int
    decision_id: str
    mode: str
    all_bids: dict[int, int]
    all_asks: dict[int, int]

    def qty_at(self, side: Side, price: int) -> int:
        """What the book shows at a price."""
        return (self.all_bids if side is Side.BUY else self.all_asks).get(price, 0)

    def told(self, instrument: Instrument) -> dict[str, Any]:
        """USD, shares and seconds; `mid`, `spread` and `micro_price` None unless both sides are there."""
        both = self.trusted and self.best_bid > 0 and self.best_ask > 0
        micro = None
        if both and self.bid_qty + self.ask_qty:
            micro = (self.best_bid * self.ask_qty + self.best_ask * self.bid_qty) / (self.bid_qty + self.ask_qty)
        return {
            "bids": [_level(instrument, level) for level in self.bids],
            "asks": [_level(instrument, level) for level in self.asks],
            "trusted": self.trusted,
            "mid": instrument.usd_price((self.best_bid + self.best_ask) / 2) if both else None,
            "spread": instrument.usd_price(self.best_ask - self.best_bid) if both else None,
            "micro_price": None if micro is None else round(instrument.usd_price(micro), 6),
            "age_s": (self.now - self.changed_ns) / 1e9 if self.changed_ns else None,
            "position": instrument.usd_qty(self.net),
        }


def _level(instrument: Instrument, level: tuple[int, int, int]) -> dict[str, float]:
    price, qty, ours = level
    return {"price": instrument.usd_price(price), "shares": instrument.usd_qty(qty), "ours": instrument.usd_qty(ours)}


def seen(state: State, market: Market, leave_out: tuple[AnyCommand, ...] = ()) -> Seen:
    """The market as it is now; `leave_out`: commands whose orders are not yet part of it."""
    made = {command.order_id for command in leave_out if isinstance(command, PlaceOrder)}
    book = market.book

    def levels(side: Side) -> Levels:
        own: dict[int, int] = {}
        for order in state.live_orders(market):
            if order.side is side and order.order_id not in made:
                own[order.price] = own.get(order.price, 0) + order.remaining
        return tuple((price, qty, own.get(price, 0)) for price, qty in book.top(side, LEVELS))

    gate = risk.allowance(state, market)
    return Seen(
        bids=levels(Side.BUY),
        asks=levels(Side.SELL),
        trusted=book.trusted,
        best_bid=book.best_bid,
        best_ask=book.best_ask,
        bid_qty=book.bid_qty,
        ask_qty=book.ask_qty,
        changed_ns=book.changed_ns,
        now=state.now,
        net=market.position.net,
        decision_id=market.opinion.decision_id if market.opinion else "",
        mode=gate.mode.value if gate.name == "open" else f"{gate.mode.value} ({gate.name}: {gate.text})",
        all_bids=dict(book.bids),
        all_asks=dict(book.asks),
    )


def what_changed(before: Seen, after: Seen, instrument: Instrument) -> list[str]:
    """The differences that a decision can have come from, in words; empty: none but the passing of time."""
    price, qty = instrument.usd_price, instrument.usd_qty
    found = []
    for name, old, new, old_qty, new_qty in (
        ("bid", before.best_bid, after.best_bid, before.bid_qty, after.bid_qty),
        ("ask", before.best_ask, after.best_ask, before.ask_qty, after.ask_qty),
    ):
        if old != new:
            found.append(f"best {name} {_price(price(old), old)} -> {_price(price(new), new)}")
        elif old_qty != new_qty:
            found.append(f"shares at the best {name} {qty(old_qty):g} -> {qty(new_qty):g}")
    if before.net != after.net:
        found.append(f"our position {qty(before.net):g} -> {qty(after.net):g}")
    if before.decision_id != after.decision_id:
        found.append(f"the opinion in force {before.decision_id or 'none'} -> {after.decision_id or 'none'}")
    if before.mode != after.mode:
        found.append(f"what is allowed here: {before.mode} -> {after.mode}")
    return found


def _price(value: float, units: int) -> str:
    return f"{value:g}" if units else "none"


def event_told(event: e.Event, instrument: Instrument) -> dict[str, Any]:
    """An event: its type, the market it is of, and one line; `instrument` is the market that is asked about."""
    about = str(getattr(event, "instrument", ""))
    elsewhere = f", in {about}" if about and about != instrument.id else ""
    return {"type": type(event).__name__, "market_id": about, "text": _words(event, instrument) + elsewhere}


def _words(event: e.Event, instrument: Instrument) -> str:
    price, qty = instrument.usd_price, instrument.usd_qty
    here = getattr(event, "instrument", "") == instrument.id
    match event:
        case e.Tick():
            return "time passed: every market is looked at again now and then"
        case e.BookDelta():
            return "the book changed"
        case e.BookSnapshot():
            return "a whole book came"
        case e.TopReported():
            return "the venue told its best prices"
        case e.TradePrinted() if here:
            return f"a trade of {qty(event.qty):g} at {price(event.price):g}"
        case e.OrderFilled() if here:
            side, at = leg_side(event.side, event.leg), leg_price(instrument, event.price, event.leg)
            return (
                f"our order {event.order_id} was filled: {side.name.lower()} {qty(event.qty):g} {event.leg.value} at {price(at):g}"
            )
        case e.SignalsReceived():
            return f"{event.model} answered: decision {event.decision_id}, {len(event.signals)} signals"
        case e.OperatorActed():
            return f"a person: {event.verb.value} by {event.who}"
        case e.IntentReceived():
            return f"a wish of {event.who}: {event.intent_id}: {event.reason}"
        case e.ParamsChanged():
            return f"new numbers are in force{f', by {event.who}' if event.who else ''}"
        case e.AccountSnapshot():
            return "the venue said what rests and what is held"
        case e.Started():
            return f"session {event.session} began"
        case _:
            return _plainly(event)


def _plainly(event: e.Event) -> str:
    """The type's name as words, with the order and the reason it names."""
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in type(event).__name__).strip()
    order, reason = getattr(event, "order_id", ""), str(getattr(event, "reason", ""))
    said = f"{name} {order}".strip() + (f": {reason}" if reason else "")
    return said if type(event) in OF_A_FEED or not order else f"of our own order: {said}"


def order_told(instrument: Instrument, command: PlaceOrder, ts: int) -> dict[str, Any]:
    """An order in its own token's terms, with the price of YES beside it. USD and shares."""
    return {
        "order_id": command.order_id,
        "market_id": instrument.id,
        "question": instrument.question,
        "side": leg_side(command.side, command.leg).name.lower(),
        "token": command.leg.value,
        "price": instrument.usd_price(leg_price(instrument, command.price, command.leg)),
        "yes_side": command.side.name.lower(),
        "yes_price": instrument.usd_price(command.price),
        "shares": instrument.usd_qty(command.qty),
        "time_in_force": command.time_in_force.value,
        "post_only": command.post_only,
        "reduce_only": command.reduce_only,
        "reason": command.reason,
        "decision_id": command.decision_id,
        "ts_ns": ts,
        "time": iso(ts),
    }


def fill_told(instrument: Instrument, event: e.OrderFilled, ts: int, mid: float) -> dict[str, Any]:
    """A fill in its token's terms; `mid` in price units of YES, 0 where there was none."""
    return {
        "fill_id": event.fill_id,
        "ts_ns": ts,
        "time": iso(ts),
        "side": leg_side(event.side, event.leg).name.lower(),
        "token": event.leg.value,
        "price": instrument.usd_price(leg_price(instrument, event.price, event.leg)),
        "yes_side": int(event.side),
        "yes_price": instrument.usd_price(event.price),
        "shares": instrument.usd_qty(event.qty),
        "fee_usd": usd(event.fee),
        "liquidity": event.liquidity.value,
        "status": "settled" if event.settled else "provisional",
        "mid": instrument.usd_price(mid) if mid else None,
        "ahead": None,
    }


def signal_told(state: State, market: Market, now: int) -> dict[str, Any] | None:
    """The opinion in force, as it counted; None: there was none."""
    opinion: Opinion | None = market.opinion
    if opinion is None:
        return None
    shown, signal = effective(state, market, now), opinion.signal
    chain = view.why(state, market)["opinion"]
    return {
        "action": signal.action.value,
        "confidence": signal.confidence,
        "p_yes": signal.p_yes,
        "age_s": (now - opinion.received_ns) / 1e9,
        "weight": shown.weight,
        "why_weight": chain["why_weight"],
        "shift_log_odds": shown.shift,
        "target": chain["target"],
        "size_ratio": shown.size_ratio,
        "widen": shown.widen,
        "decision_id": opinion.decision_id,
        "model": opinion.model,
        "reasoning": signal.reasoning,
        "fallback": state.slow.fallback,
    }


def fair_told(market: Market, reason: str) -> dict[str, Any]:
    """The micro-price and what each term of the strategy added to it, USD; terms of size are shares.

    Exits and wishes are priced by the touch, and have no terms.
    """
    instrument = market.instrument
    own = {} if reason.startswith((EXIT, INTENT)) else dict(getattr(market.own, "terms", {}))
    unit = 10**instrument.price_decimals
    terms = {name: value if name in _SHARES else value / unit for name, value in own.items()}
    micro = market.estimators.fair / unit
    value = micro + sum(terms.get(name, 0.0) for name in _OF_VALUE) if terms else None
    return {
        "micro_price": micro,
        "fair": value,
        "reservation": None if value is None else value + terms.get("target", 0.0) + terms.get("skew", 0.0),
        "half_spread": None if value is None else terms.get("half", 0.0) + terms.get("toxicity", 0.0),
        "terms": terms,
        "note": getattr(market.own, "note", ""),
    }
