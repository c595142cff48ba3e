"""What must hold in any weather, worked out anew from what was told and sent, and from what the exchange truly did.

Trusts no cache of the core: cash and shares are folded again from the events, worst cases from the orders, and what a
bad market is from the weather itself. Knows no dice.
"""

from __future__ import annotations

from collections import Counter

from llm_maker.core.commands import MergeSets, Notice, PlaceOrder, Stop, TimeInForce
from llm_maker.core.events import (
    BookSnapshot,
    CashKind,
    CashMoved,
    ClockStepped,
    FeedLost,
    FillFailed,
    OperatorActed,
    OrderFilled,
    RegimeChanged,
    SetsMerged,
    Started,
    StorageFailed,
    Tick,
    VenueDown,
    VenueUp,
    Verb,
)
from llm_maker.core.orders import FINAL, Status
from llm_maker.core.values import NS_PER_S, Leg, Mode, Regime, Side, cash_flow, leg_price, leg_side, to_cash_up

QUIET_REGIMES = (Regime.CANCEL_ONLY, Regime.RESTART, Regime.CLOSED)
REST_BOUND_NS = NS_PER_S
"""Cancel latency, a Tick, a look-up there and back; what was lost or late on the way comes on top."""
LAG_SLACK_NS = 300 * NS_PER_S // 1_000
"""The core's baseline drifts up a little with time."""


class Ledger:
    """Cash and shares by the events alone: each fill once, undone once."""

    def __init__(self, cash):
        self.start = self.cash = cash
        self.shares = Counter()
        self.fills = {}
        self.failed = {}
        self.merged = set()
        self.asked = {}
        self.instruments = {}

    def take(self, event):
        kind = type(event)
        if kind is OrderFilled and event.fill_id not in self.fills:
            self.fills[event.fill_id] = event
            if event.fill_id not in self.failed:
                self._book(event, 1)
        elif kind is FillFailed and event.fill_id not in self.failed:
            self.failed[event.fill_id] = True
            if event.fill_id in self.fills:
                self._book(self.fills[event.fill_id], -1)
        elif kind is SetsMerged and event.work_id not in self.merged:
            self.merged.add(event.work_id)
            instrument = self.instruments[event.instrument]
            self.cash += (
                instrument.payout * event.qty // 10 ** (instrument.price_decimals + instrument.qty_decimals - 6) - event.cost
            )
            self.shares[event.instrument, Leg.YES] -= event.qty
            self.shares[event.instrument, Leg.NO] -= event.qty
        elif kind is CashMoved:
            self.cash += event.amount
            if event.kind is CashKind.REDEMPTION:
                self.shares[event.instrument, event.leg] -= event.qty
        else:
            return False
        return True

    def _book(self, fill, times):
        instrument = self.instruments[fill.instrument]
        self.cash += times * (cash_flow(instrument, fill.side, fill.leg, fill.price, fill.qty) - fill.fee)
        self.shares[fill.instrument, fill.leg] += times * leg_side(fill.side, fill.leg) * fill.qty


class Oracle:
    """Looks at every step. A breach is an AssertionError whose text says what, where and when."""

    def __init__(self, cash, patience_ns):
        self.ledger = Ledger(cash)
        self.patience_ns = patience_ns
        self.gapped = {}
        self.down = "not connected"
        self.heard_ns = 0
        self.least_delay_ns = 1 << 62
        self.late_ns = 0
        """How much later than the fastest the last message came."""
        self.halted = ""
        self.paused = {}
        self.regime = Regime.OPEN
        self.may_take = {}
        """Market -> True once the operator has said so while something was held."""
        self.stop_began = {}
        self.bad_since = {}
        self.explained_ns = Counter()
        """Order -> what losses and delays on its way explain of a late end."""
        self.longest_ns = 0
        self.seen_resting = {}
        self.placed = {}
        self.crossed = Counter()
        self.counts = Counter()
        self.absolved = {}
        self.very_late = {}
        """Orders that come to the venue when their absence counts as proved."""
        self.strangers = Counter()
        """Orders that have ended once: should the world take that back, two on a side are its fault."""

    # What the weather tells.

    def crashed(self, markets):
        """A session ended without a word; nothing that was known of any book is known to the next."""
        for market in markets:
            self.gapped[market] = "crash"
        self.bad_since.clear()

    def hear(self, now, event, state):
        """Keep our own account of what an engine must know after this event."""
        kind = type(event)
        touched = self.ledger.take(event)
        if kind is BookSnapshot:
            if not self.down:
                self.gapped.pop(event.instrument, None)
        elif kind is VenueDown:
            self.down = event.reason
            for market in state.markets:
                self.gapped[market] = "down"
        elif kind is VenueUp:
            self.down = ""
        elif kind is FeedLost:
            for market in event.instruments:
                self.gapped[market] = event.reason
        elif kind is ClockStepped and abs(event.step_ns) > NS_PER_S:
            self.halted = "clock"
        elif kind is StorageFailed:
            self.halted = "storage"
        elif kind is RegimeChanged:
            self.regime = event.regime
        elif kind is OperatorActed:
            self._obey(event, state)
        elif kind is Started:
            self.bad_since.clear()
        sent = getattr(event, "venue_ts", 0)
        if sent:
            self.least_delay_ns = min(self.least_delay_ns, now - sent)
            self.late_ns = now - sent - self.least_delay_ns
        if sent or kind in (VenueUp, Started):
            self.heard_ns = now
        return touched

    def _obey(self, event, state):
        targets = [event.instrument] if event.instrument else list(state.markets)
        if event.verb is Verb.FLATTEN and event.take:
            for market in targets:
                if state.markets[market].position.net:
                    self.may_take[market] = True
        if event.verb is Verb.KILL:
            self.halted = "kill"
        elif event.verb in (Verb.PAUSE, Verb.CANCEL_ALL):
            self.paused[event.instrument] = True
        elif event.verb in (Verb.RESUME, Verb.REDUCE) or (event.verb is Verb.FLATTEN):
            self.paused.pop(event.instrument, None)
            if event.verb is Verb.RESUME and not event.instrument and self.halted != "kill":
                self.halted = ""

    # What must hold.

    def check(self, now, event, commands, state, touched):
        places = [c for c in commands if type(c) is PlaceOrder]
        if places:
            for number, command in enumerate(places):
                self._check_place(now, command, state, {c.order_id for c in places[number + 1 :]})
        for command in commands:
            if type(command) is Notice and command.code == "exit_stop":
                self.stop_began[command.instrument] = now
            elif type(command) is Notice and command.code == "work_judged":
                self._judged(command)
            elif type(command) is MergeSets:
                self.counts["merges"] += 1
                self.ledger.asked[command.work_id] = (command.instrument, command.qty)
        if touched:
            self._check_money(event, state)
        if commands:
            self._check_orders(state)
        self._note_bad(now, state)
        if type(event) is Tick:
            self._check_tick(now, state)

    def _judged(self, notice):
        """A merge whose answer was lost with a crash, and that the account has shown to be done."""
        what, work_id = notice.text.split()[:2]
        if what == "merge" and notice.text.endswith("it was done"):
            self.ledger.take(SetsMerged(*self.ledger.asked[work_id], work_id=work_id))

    def _check_money(self, event, state):
        ledger = self.ledger
        assert state.cash == ledger.cash, f"after {event}: cash {state.cash}, events make {ledger.cash}"
        flows = state.flows
        sums = flows.start + flows.trading + flows.fees + flows.rebates + flows.rewards + flows.funding + flows.transfers
        assert sums == state.cash, f"after {event}: flows make {sums}, cash is {state.cash}"
        position = state.markets[event.instrument].position
        for leg, held in ((Leg.YES, position.yes), (Leg.NO, position.no)):
            have = held.settled + held.pending
            told = ledger.shares[event.instrument, leg]
            assert have == told, f"after {event}: {leg} {have}, events make {told}"

    def _check_orders(self, state):
        """Own bid below own ask, one live order a side, every live one counted where it must be, quotes post-only."""
        sides = {}
        live = {}
        for order in state.orders.values():
            if order.status in FINAL:
                # Should the world take that back, it may stand beside its successor.
                self.absolved[order.order_id] = True
                continue
            live.setdefault(order.instrument, []).append(order.order_id)
            assert order.post_only or order.time_in_force is TimeInForce.IOC, f"{order.order_id} may take and may rest"
            if order.order_id in self.absolved:
                continue
            key = (order.instrument, order.side)
            assert key not in sides, f"two live orders on one side: {order.order_id} and {sides[key].order_id}"
            sides[key] = order
        for (instrument, side), order in sides.items():
            other = sides.get((instrument, side.other))
            if side is Side.BUY and other is not None:
                assert order.price < other.price, f"own cross: {order.order_id} and {other.order_id}"
        for name, market in state.markets.items():
            assert sorted(market.live) == sorted(live.get(name, [])), f"{name}: live {market.live}, not final {live.get(name, [])}"

    def _check_place(self, now, command, state, later):
        """This order beside all that is live, in flight or UNKNOWN; orders of the same step after it not counted."""
        market = state.markets[command.instrument]
        assert command.order_id not in self.placed, f"{command.order_id} sent twice"
        self.placed[command.order_id] = now
        why = self.bad(now, command.instrument, state)
        assert not why, f"{command.order_id} placed on a market that is {why}"
        if not command.post_only:
            self._check_taker(now, command)
        if leg_side(command.side, command.leg) is Side.SELL:
            selling = [o for o in state.orders.values() if o.status not in FINAL and o.instrument == command.instrument]
            claimed = sum(o.remaining for o in selling if o.leg is command.leg and leg_side(o.side, o.leg) is Side.SELL)
            ours = self.ledger.shares[command.instrument, command.leg]
            assert claimed <= ours, f"{command.order_id}: sales of {claimed} with {ours} of our own"
        orders = [o for o in state.orders.values() if o.status not in FINAL and o.order_id not in later]
        here = [o for o in orders if o.instrument == command.instrument]
        beside = sum(o.remaining for o in here if o.side is command.side and o.order_id != command.order_id)
        net, side = market.position.net, command.side
        if command.qty <= max(0, -side * net - beside):
            return
        assert command.post_only, f"{command.order_id} takes and adds"
        risk = state.params.risk
        limit = risk.max_position_milli * 10**market.instrument.qty_decimals // 1000
        assert side * net + beside + command.qty <= limit, f"{command.order_id}: position cap"
        adding = command.qty - max(0, -side * net - beside)
        cost = _cash_of(market.instrument, command, adding)
        assert cost <= risk.max_order_cost, f"{command.order_id}: order cap"
        others = [o for o in orders if o.order_id != command.order_id]
        reserved = sum(_cash_of(state.markets[o.instrument].instrument, o, o.remaining) for o in others)
        if cost:
            assert state.cash - reserved - cost >= int(risk.free_cash_ratio * risk.bankroll), f"{command.order_id}: free cash"
        losses = {name: _losses(state.markets[name], orders) for name in state.markets}
        worst = {name: max(0, -min(pair)) for name, pair in losses.items()}
        bank = risk.bankroll

        def within(loss, ratio, name):
            cash = to_cash_up(market.instrument, loss)
            assert cash <= int(ratio * bank) + len(worst), f"{command.order_id}: {name} {cash} over {ratio * bank}"

        within(worst[command.instrument], risk.market_ratio, "market cap")
        within(sum(worst.values()), risk.gross_ratio, "gross cap")
        group = [n for n, m in state.markets.items() if m.instrument.event_id == market.instrument.event_id]
        within(_joint(market.instrument.exclusive, group, losses, worst), risk.event_ratio, "event cap")
        cluster = [n for n, m in state.markets.items() if m.instrument.cluster == market.instrument.cluster]
        if market.instrument.cluster:
            within(sum(worst[n] for n in cluster), risk.cluster_ratio, "cluster cap")

    def _check_taker(self, now, command):
        """A crossing order is the operator's, or a stop's that has waited its time as a maker."""
        name = command.instrument
        began = self.stop_began.get(name)
        stop = "stop" in command.reason and began is not None and now - began >= self.patience_ns
        operator = "operator" in command.reason and self.may_take.get(name, False)
        assert stop or operator, f"{command.order_id} crosses for {command.reason!r}, stop began {began}"
        assert command.time_in_force is TimeInForce.IOC and command.reduce_only, f"{command.order_id} takes without an end"
        self.crossed["stop" if stop else "operator"] += 1

    def bad(self, now, name, state):
        """Why nothing of ours may rest on a market, by the weather and by the plainest fields of the state."""
        market = state.markets[name]
        venue = state.venues[market.instrument.venue]
        if self.down or name in self.gapped:
            return f"gapped: {self.down or self.gapped[name]}"
        if self.halted or "" in self.paused or name in self.paused or state.halts or state.stopping:
            return "halted"
        if self.regime in QUIET_REGIMES:
            return f"in regime {self.regime}"
        if now - self.heard_ns > state.params.risk.max_silence_ns:
            return "silent"
        if (
            self.late_ns > state.params.risk.max_feed_lag_ns + LAG_SLACK_NS
            or venue.lagging
            or not market.book.trusted
            or market.book.best_bid >= market.book.best_ask > 0
        ):
            return "lagging or untrusted"
        if market.pulled_until > now or market.resolved is not None or market.operator_mode is Mode.HALTED:
            return "pulled"
        return "" if state.account_known else "of an account not yet read"

    def _note_bad(self, now, state):
        for name in state.markets:
            if not self.bad(now, name, state):
                self.bad_since.pop(name, None)
            elif name not in self.bad_since:
                self.bad_since[name] = now

    def _check_tick(self, now, state):
        """By this Tick a cancel is on its way for all that the engine believes to rest where nothing may."""
        for name in self.gapped:
            if name in state.markets:
                assert not state.markets[name].book.trusted, f"{name} is trusted though {self.gapped[name]}"
        for name in self.bad_since:
            for order_id in state.markets[name].live:
                order = state.orders[order_id]
                if order.status is Status.UNKNOWN:
                    assert order.lookups > 0 or now - order.changed_ns <= NS_PER_S, f"{order_id} is UNKNOWN and nobody asks"
                else:
                    why = self.bad(now, name, state)
                    assert order.sent_cancel, f"{order_id} is {order.status} without a cancel on a market that is {why}"

    def check_resting(self, now, state, resting):
        """The truth: how long has an order really rested where nothing may."""
        for order in resting:
            known = state.orders.get(order.order_id)
            ended = known is not None and known.status in FINAL and order.order_id not in self.very_late
            assert not ended, f"{order.order_id} rests, and we believe it {known.status}"
            since = self.bad_since.get(order.instrument)
            if since is None or order.order_id not in state.orders:
                continue
            began = max(since, self.seen_resting.setdefault(order.order_id, now))
            spent = now - began - self.explained_ns[order.order_id]
            self.longest_ns = max(self.longest_ns, spent)
            assert spent <= REST_BOUND_NS, (
                f"{order.order_id} ({state.orders[order.order_id].status}) rests for {(now - began) / NS_PER_S:.2f}s, of which "
                f"{self.explained_ns[order.order_id] / NS_PER_S:.2f}s are explained, on a market that is "
                f"{self.bad(now, order.instrument, state)}"
            )

    def check_calm(self, state, cash, holdings, resting):
        """All messages have arrived: engine, events and exchange agree to the last unit."""
        unknown = [o.order_id for o in state.orders.values() if o.status is Status.UNKNOWN]
        assert not unknown, f"still UNKNOWN: {unknown}"
        live = sorted(o.order_id for o in state.orders.values() if o.status is Status.OPEN)
        rests = sorted(
            o.order_id for o in resting if o.order_id in state.orders and state.orders[o.order_id].status in (Status.OPEN, *FINAL)
        )
        assert live == rests, f"we believe {live} rest, the exchange has {rests}"
        assert state.cash == cash, f"cash {state.cash}, the exchange says {cash}"
        for name, market in state.markets.items():
            for leg, held in ((Leg.YES, market.position.yes), (Leg.NO, market.position.no)):
                told = holdings.get((name, leg), 0)
                assert held.settled + held.pending == told, f"{name} {leg}: {held}, the exchange says {told}"
                settling = sum(f.qty for f in market.position.pending.values() if f.leg is leg)
                strange = held.foreign - self.strangers[name, leg]
                assert abs(strange) <= settling, f"{name} {leg}: {strange} too many are held for foreign"

    def check_stop(self, stop, resting, in_flight):
        """Clean means that nothing rests or is on its way; otherwise what rests is named."""
        assert type(stop) is Stop
        rests = [o.order_id for o in resting] + in_flight
        if stop.clean:
            assert not rests, f"a clean stop, and {rests} rest"
        else:
            missing = [i for i in rests if i not in stop.resting]
            assert not missing, f"the stop does not name {missing}"


def _cash_of(instrument, order, qty):
    if leg_side(order.side, order.leg) is Side.SELL:
        return 0
    return to_cash_up(instrument, leg_price(instrument, order.price, order.leg) * qty)


def _losses(market, orders):
    """(P&L if NO wins, if YES wins) with every order that hurts filled; price x quantity units."""
    payout, position = market.instrument.payout, market.position
    here = [o for o in orders if o.instrument == market.instrument.id]
    no_wins = -position.cost - sum(o.remaining * o.price for o in here if o.side is Side.BUY)
    asks = sum(o.remaining * (payout - o.price) for o in here if o.side is Side.SELL)
    return no_wins, position.net * payout - position.cost - asks


def _joint(exclusive, group, losses, worst):
    """Of one event: the worst outcome where exactly one pays, else the sum."""
    if not exclusive or len(group) < 2:
        return sum(worst[n] for n in group)
    none = sum(losses[n][0] for n in group)
    return max(0, -min([none] + [none - losses[n][0] + losses[n][1] for n in group]))
