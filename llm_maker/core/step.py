"""One step of the engine: the state, the strategy, the moment, and the commands so far. Orders leave the core only here.

An order is in flight from the step that decides it: `place` and `cancel` record before they return.
"""

from __future__ import annotations

from llm_maker.core import orders, risk
from llm_maker.core.commands import AnyCommand, CancelOrder, Level, Notice, PlaceOrder, RequestAccount, TimeInForce
from llm_maker.core.orders import Order, What
from llm_maker.core.state import Halt, Market, State, refresh_exposure, reserved_shares
from llm_maker.core.strategy import Needs, QuoteTarget, Strategy
from llm_maker.core.values import NS_PER_S, Leg, Side

ACCOUNT_RETRY_NS = 5 * NS_PER_S
"""Between two questions about the account."""
ACCOUNT_MARGIN_NS = 120 * NS_PER_S
"""Fills are asked for from this long before the moment that needs them: the venue's clock is not ours."""
RECENT_ORDERS = 2_000
"""Final orders kept for late fills."""


class Step:
    """What one event may read, change and ask for."""

    __slots__ = ("now", "out", "state", "strategy")

    def __init__(self, state: State, strategy: Strategy, now: int) -> None:
        self.state = state
        self.strategy = strategy
        self.now = now
        self.out: list[AnyCommand] = []

    @property
    def needs(self) -> Needs:
        """What the strategy reads beyond the book."""
        return self.strategy.needs(self.state.strategy_params)

    def notice(self, level: Level, code: str, text: str, instrument: str = "") -> None:
        self.out.append(Notice(level, code, text, instrument))

    def halt(self, name: str, text: str, until_ns: int) -> None:
        """Stand still from now on; `until_ns` 0 waits for a person. The quotes go at the next Tick at the latest."""
        halts = self.state.halts
        if name not in halts:
            halts[name] = Halt(self.now, until_ns, text)
            self.state.counts.halts += 1
            self.notice(Level.ERROR, f"halt_{name}", text)
            for market in self.state.markets.values():
                market.dirty = True

    def ask_account(self, reason: str) -> None:
        """Ask what rests and what is held, and for every fill that a lost message could have hidden."""
        state = self.state
        state.account_asked_ns = self.now
        doubtful = [o.placed_ns for o in state.orders.values() if o.is_live]
        doubtful += [fill.ts for m in state.markets.values() for fill in m.position.pending.values()]
        since = min([state.account_seen_ns or self.now, *doubtful]) - ACCOUNT_MARGIN_NS
        self.out.append(RequestAccount(reason, asked_ns=self.now, since_ns=since))

    def cancel(self, order: Order, reason: str) -> None:
        """Ask the venue to cancel, once; cancels have first call on the message budget and are sent even beyond it."""
        market = self.state.markets[order.instrument]
        orders.step(order, What.CANCEL_SENT, self.now)
        order.sent_cancel = True
        order.cancel_ns = self.now
        venue = self.state.venues[market.instrument.venue]
        risk.spend_message(venue, self.state.params, self.now, cancel=True)
        self.out.append(CancelOrder(order.order_id, order.instrument, reason))

    def withdraw(self, market: Market, reason: str) -> None:
        """Cancel every order of ours on a market that is not already being canceled."""
        for order in self.state.live_orders(market):
            if order.may_cancel:
                self.cancel(order, reason)

    def quote(self, market: Market, target: QuoteTarget, allowed: risk.Gate, decision_id: str) -> str:
        """Place a post-only order for a target; why not, or an empty string."""
        reducing = target.qty <= risk.reducible(self.state, market, target.side)
        return self._send(market, target, allowed, decision_id, reduce_only=reducing, crossing=False)

    def cross(self, market: Market, target: QuoteTarget, allowed: risk.Gate) -> str:
        """Place an order that takes, down to its limit price; only exits come here, never a model's answer."""
        return self._send(market, target, allowed, "", reduce_only=True, crossing=True)

    def _send(
        self,
        market: Market,
        target: QuoteTarget,
        allowed: risk.Gate,
        decision_id: str,
        *,
        reduce_only: bool,
        crossing: bool,
    ) -> str:
        state = self.state
        lifetime = 0 if crossing else state.params.execution.quote_lifetime_ns
        resting = TimeInForce.GTD if lifetime else TimeInForce.GTC
        command = PlaceOrder(
            order_id=f"{state.session}-{state.next_order}",
            instrument=market.instrument.id,
            side=target.side,
            leg=choose_leg(state, market, target.side, target.qty),
            price=target.price,
            qty=target.qty,
            time_in_force=TimeInForce.IOC if crossing else resting,
            post_only=not crossing,
            reduce_only=reduce_only,
            reason=target.reason,
            expires_ns=self.now + lifetime if lifetime else None,
            decision_id=decision_id,
            decided_ns=self.now,
        )
        refused = risk.gate(state, market, command, allowed)
        if refused:
            return refused
        venue = state.venues[market.instrument.venue]
        if not risk.spend_message(venue, state.params, self.now, cancel=False):
            return "message budget"
        state.next_order += 1
        order = orders.new(command, self.now)
        state.orders[order.order_id] = order
        market.live.append(order.order_id)
        refresh_exposure(state, market)
        state.counts.placed += 1
        if not state.counts.first_quote_ns:
            state.counts.first_quote_ns = self.now
        self.out.append(command)
        return ""

    def settle_order(self, market: Market, order: Order, *, was_final: bool) -> None:
        """After an order moved: out of the live ones when it has ended, back among them when the world took that back."""
        state = self.state
        if order.is_final and not was_final:
            market.live.remove(order.order_id)
            state.recent.append(order.order_id)
            if len(state.recent) > RECENT_ORDERS:
                state.orders.pop(state.recent.pop(0), None)
        elif was_final and order.is_live:
            state.recent.remove(order.order_id)
            market.live.append(order.order_id)
        refresh_exposure(state, market)
        market.dirty = True


def choose_leg(state: State, market: Market, side: Side, qty: int) -> Leg:
    """Sell a token only from our own confirmed, unreserved shares; otherwise buy the other outcome (design section 3)."""
    if not market.instrument.is_binary:
        return Leg.NONE
    held = Leg.YES if side is Side.SELL else Leg.NO
    free = market.position.free_to_sell(held) - reserved_shares(state, market, held)
    return held if free >= qty else (Leg.NO if held is Leg.YES else Leg.YES)
