"""A simulated exchange for one account: commands in, the account's events out, driven by a feed's own market events.

The one fill model of live paper, backtest and the simulated venue. All it does is simulated; it can lose money. It owns latency,
the life of an order and injected faults; what may enter is `admission`, who trades `matching`, what that moves `purse`, when it is
final `settlement`, what comes with time `payments`. It knows no feed, no strategy, no account name and no clock; dice are drawn
from the seed and the name of what is decided, so that neither a restart nor another order of calls changes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop
from typing import Any

import msgspec

from llm_maker.core import values
from llm_maker.core.commands import (
    CancelOrder,
    Command,
    LookUpOrder,
    MergeSets,
    PlaceOrder,
    RedeemShares,
    RequestAccount,
    SplitCash,
    TimeInForce,
)
from llm_maker.core.events import (
    AccountSnapshot,
    BookDelta,
    BookSnapshot,
    CancelRejected,
    CashKind,
    CashMoved,
    Event,
    FundingReported,
    Holding,
    InstrumentListed,
    MarketResolved,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    RegimeChanged,
    RestingOrder,
    TradePrinted,
)
from llm_maker.core.values import PPM, Leg, Liquidity
from llm_maker.venues.paper import admission, matching, payments, settlement
from llm_maker.venues.paper.matching import BANDS, MAX_DECIMALS, FillRules, Market, Resting
from llm_maker.venues.paper.purse import Purse
from llm_maker.venues.paper.queue import Law, Queue
from llm_maker.venues.paper.records import (
    Action,
    CompleteMerge,
    CompleteSplit,
    Ending,
    ExchangeParams,
    Expire,
    Finished,
    PayDay,
    PayFunding,
    Report,
    SampleRewards,
    Settle,
    State,
)

_MAX_FINISHED = 4_000
"""Ended orders remembered for look-ups, duplicates and the report; the older half is forgotten beyond it.

A core asks about the last 2,000 at most; what is remembered stands in every checkpoint.
"""
_Handler = Callable[[int, Any], None]
_Effect = Callable[[State, ExchangeParams, int, Any], None]


class Exchange:
    """`port.Simulator` of one account; see the file's docstring."""

    name = "paper"

    def __init__(self, params: ExchangeParams) -> None:
        self.params = params
        self._rules = FillRules(
            seed=params.seed,
            improve_ppm=round(params.improve_share * PPM),
            cap_ppm=round(params.volume_cap_ratio * PPM),
            subtract_ns=params.subtract_ns,
            laws=tuple(Law(params.queue_model, params.queue_power, 10**decimals) for decimals in range(MAX_DECIMALS + 1)),
            money=BANDS.index(params.band),
        )
        self._state = State(purse=Purse(cash=params.start_cash))
        self._effects: dict[type, _Handler] = {
            PlaceOrder: self._place,
            CancelOrder: self._cancel,
            MergeSets: self._on_state(settlement.merge),
            SplitCash: self._on_state(settlement.split),
            RedeemShares: self._on_state(settlement.redeem),
            RequestAccount: self._tell_account,
            LookUpOrder: self._look_up,
            Expire: self._expire,
            Settle: self._on_state(settlement.settle),
            CompleteMerge: self._on_state(settlement.complete_merge),
            CompleteSplit: self._on_state(settlement.complete_split),
            PayFunding: self._on_state(payments.pay_funding),
            SampleRewards: self._on_state(payments.sample_rewards),
            PayDay: self._on_state(payments.pay_day),
        }
        self._observers: dict[type, _Handler] = {
            BookSnapshot: self._see_book,
            TradePrinted: self._see_trade,
            InstrumentListed: self._see_rules,
            MarketResolved: self._see_end,
            FundingReported: self._see_funding,
            RegimeChanged: self._see_regime,
        }

    # port.Simulator

    def observe(self, now: int, event: Event) -> None:
        """Take a market event. What it makes happen comes out of `advance`, at `now` or later."""
        state = self._state
        if state.actions and state.actions[0][0] <= now:
            self._run(now)
        if type(event) is BookDelta:
            market = state.markets.get(event.instrument)
            if market is None or market.orders:
                self._see_book(now, event)
            else:
                matching.apply_delta(market, event)
            return
        see = self._observers.get(type(event))
        if see is not None:
            see(now, event)

    def execute(self, now: int, command: Command) -> None:
        """Send a command on its way; `RequestSnapshot` and what is not the exchange's are ignored."""
        params, coming = self.params, self._state.coming
        if isinstance(command, PlaceOrder):
            due = now + params.scatter.travel_ns(params.seed, "entry", command.order_id, params.entry_ns)
            coming.setdefault(command.order_id, due)
            self._later(due, command)
        elif isinstance(command, CancelOrder):
            due = now + params.scatter.travel_ns(params.seed, "cancel", command.order_id, params.cancel_ns)
            self._later(max(due, coming.get(command.order_id, 0)), command)
        elif isinstance(command, LookUpOrder):
            self._later(max(now + params.entry_ns, coming.get(command.order_id, 0)), command)
        elif isinstance(command, MergeSets | SplitCash | RedeemShares | RequestAccount):
            self._later(now + params.entry_ns, command)

    def next_ns(self) -> int | None:
        """When something happens or is heard next."""
        actions, outbox = self._state.actions, self._state.outbox
        if not outbox:
            return actions[0][0] if actions else None
        return min(outbox[0][0], actions[0][0]) if actions else outbox[0][0]

    def advance(self, now: int) -> list[Event]:
        """Let time pass until `now`; what is heard by then, in order."""
        self._run(now)
        heard: list[Event] = []
        while self._state.outbox and self._state.outbox[0][0] <= now:
            heard.append(heappop(self._state.outbox)[2])
        return heard

    def skip_to(self, now: int) -> None:
        """Nothing ran until `now`: what fell due meanwhile is still done, but no reward is earned for that time."""
        payments.skip_samples(self._state, self.params, now)

    def checkpoint(self) -> bytes:
        """The whole state; sorted, so that equal states give equal bytes."""
        self._state.actions.sort(key=_when)
        self._state.outbox.sort(key=_when)
        return msgspec.json.encode(msgspec.to_builtins(self._state, str_keys=True), order="deterministic")

    def restore(self, saved: bytes) -> None:
        """Continue from `checkpoint` of an exchange with the same parameters."""
        self._state = msgspec.json.decode(saved, type=State)
        heapify(self._state.actions)
        heapify(self._state.outbox)

    # What tests and the report read

    @property
    def cash(self) -> int:
        """Cash with matched fills counted, settled or not."""
        return self._state.purse.cash

    def holdings(self) -> dict[tuple[str, Leg], int]:
        """(instrument, leg) -> shares, provisional ones too; a linear position is signed, under `Leg.NONE`."""
        return self._state.purse.totals()

    def resting(self) -> list[Resting]:
        """Every order that rests, by instrument, then in the order it came."""
        return [order for _, market in sorted(self._state.markets.items()) for order in market.orders]

    def band_fills(self) -> dict[str, Any]:
        """Fills of the three bands: {"total", "instruments": {id}, "orders": {id}} -> band -> {"qty", "fills"}.

        Quantities in the instruments' units. `orders` holds what rests and the last ended ones; totals hold all.
        """
        markets = sorted(self._state.markets.items())
        per_order = {key: (end.bands, end.counts) for key, end in self._state.finished.items() if any(end.bands)}
        per_order |= {order.order_id: (order.bands, order.counts) for order in self.resting()}
        return {
            "total": _by_band(_summed(m.band_qty for _, m in markets), _summed(m.band_fills for _, m in markets)),
            "instruments": {key: _by_band(market.band_qty, market.band_fills) for key, market in markets},
            "orders": {key: _by_band(qty, fills) for key, (qty, fills) in sorted(per_order.items())},
        }

    # Time

    def _later(self, due: int, action: Action) -> None:
        self._state.later(due, action)

    def _tell(self, now: int, event: Report) -> None:
        self._state.tell(now + self.params.response_ns, event)

    def _on_state(self, effect: _Effect) -> _Handler:
        return lambda now, what: effect(self._state, self.params, now, what)

    def _run(self, now: int) -> None:
        actions = self._state.actions
        while actions and actions[0][0] <= now:
            due, _, action = heappop(actions)
            self._effects[type(action)](due, action)

    def _chance(self, purpose: str, key: str, ppm: int) -> bool:
        return matching.chance(self.params.seed, purpose, key, ppm)

    # The feed

    def _market(self, instrument: str) -> Market:
        market = self._state.markets.get(instrument)
        if market is None:
            market = self._state.markets[instrument] = Market(id=instrument)
        return market

    def _see_book(self, now: int, event: BookDelta | BookSnapshot) -> None:
        market = self._market(event.instrument)
        for order, qty in matching.on_book(market, now, event, self._rules):
            self._filled(now, market, order, qty, order.price)

    def _see_trade(self, now: int, event: TradePrinted) -> None:
        market = self._market(event.instrument)
        for order, qty in matching.on_trade(market, now, event, self._rules):
            self._filled(now, market, order, qty, order.price)

    def _see_rules(self, now: int, event: InstrumentListed) -> None:
        instrument = event.instrument
        market = self._market(instrument.id)
        market.instrument = instrument
        for order in list(market.orders):
            if not admission.allowed(instrument, order.price):
                self._end(market, order, "canceled")
                self._tell(now, OrderCanceled(order.order_id, "tick_change"))
        payments.expect_sample(self._state, self.params, now, market)

    def _see_end(self, now: int, event: MarketResolved) -> None:
        market = self._market(event.instrument)
        market.closed = True
        for order in list(market.orders):
            self._end(market, order, "canceled")
            self._tell(now, OrderCanceled(order.order_id, "resolved"))
        for fill_id in self._state.purse.unfinished(market.id):
            settlement.settle(self._state, self.params, now, Settle(fill_id))
        if market.instrument is None:
            return
        for leg, qty, amount in self._state.purse.redeem(market.instrument, event.price):
            self._tell(now, CashMoved(CashKind.REDEMPTION, amount, market.id, leg, qty))
        self._back(market)

    def _see_funding(self, now: int, event: FundingReported) -> None:
        market = self._market(event.instrument)
        if event.due_ns > now:
            if event.due_ns not in market.funding:
                self._later(event.due_ns, PayFunding(market.id, event.due_ns))
            market.funding[event.due_ns] = event.rate_ppm

    def _see_regime(self, _now: int, event: RegimeChanged) -> None:
        self._state.regimes[event.venue] = event.regime

    # Orders

    def _place(self, now: int, command: PlaceOrder) -> None:
        self._state.coming.pop(command.order_id, None)
        answered = not self._chance("drop_ack", command.order_id, self.params.drop_ack_ppm)
        if self._chance("uncertain", command.order_id, self.params.uncertain_ppm):
            self._tell(now, OrderUncertain(command.order_id, "timeout"))
            if self._chance("lost", command.order_id, PPM // 2):
                return
            answered = False
        refusal = admission.refusal(self._state, self.params, now, command)
        if refusal is None:
            self._enter(now, command, answered)
            return
        if refusal[0] != "duplicate":
            self._remember(command.order_id, "absent", 0, [0, 0, 0], [0, 0, 0])
        if answered:
            self._tell(now, OrderRejected(command.order_id, *refusal))

    def _enter(self, now: int, command: PlaceOrder, answered: bool) -> None:
        """Accept: take what may be taken, then rest or end. A taker's bands are all alike."""
        market = self._state.markets[command.instrument]
        order = Resting(
            order_id=command.order_id,
            instrument=market.id,
            side=command.side,
            leg=command.leg,
            price=command.price,
            qty=command.qty,
            queue=Queue.behind(0),
            bands=[0, 0, 0],
            counts=[0, 0, 0],
        )
        order.queue = Queue.behind(matching.level(market, order))
        market.orders.append(order)
        self._state.where[order.order_id] = market.id
        self._back(market)
        if answered:
            self._tell(now, OrderAccepted(order.order_id, f"{self.name}-{order.order_id}"))
        found = [] if command.post_only else matching.walk(market, order.side, order.price, order.qty)
        killed = command.time_in_force is TimeInForce.FOK and sum(qty for _, qty in found) < order.qty
        for price, qty in [] if killed else found:
            matching.use_up(market, order.side, price, qty)
            matching.grant(market, order, qty, self._rules.money)
            self._filled(now, market, order, qty, price, liquidity=Liquidity.TAKER)
        if order.order_id not in self._state.where:
            return
        if command.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self._end(market, order, "canceled")
            self._tell(now, OrderCanceled(order.order_id, command.time_in_force.value))
            return
        if command.expires_ns is not None:
            self._later(command.expires_ns, Expire(order.order_id))
        payments.expect_sample(self._state, self.params, now, market)

    def _cancel(self, now: int, command: CancelOrder) -> None:
        found = self._find(command.order_id)
        if found is None:
            ended = self._state.finished.get(command.order_id)
            self._tell(now, CancelRejected(command.order_id, ended.status if ended else "absent", gone=True))
            return
        self._end(*found, "canceled")
        self._tell(now, OrderCanceled(command.order_id, "requested"))

    def _expire(self, now: int, timer: Expire) -> None:
        found = self._find(timer.order_id)
        if found is not None:
            self._end(*found, "expired")
            self._tell(now, OrderExpired(timer.order_id))

    def _look_up(self, now: int, command: LookUpOrder) -> None:
        found = self._find(command.order_id)
        ended = self._state.finished.get(command.order_id)
        if found is not None:
            self._tell(now, OrderLookedUp(command.order_id, "open", found[1].filled))
        elif ended is not None:
            self._tell(now, OrderLookedUp(command.order_id, ended.status, ended.filled))
        else:
            self._tell(now, OrderLookedUp(command.order_id, "absent"))

    def _tell_account(self, now: int, command: RequestAccount) -> None:
        """What rests (its remaining quantity) and what is held (matched fills counted, settled or not)."""
        orders = tuple(
            RestingOrder(o.order_id, f"{self.name}-{o.order_id}", o.instrument, o.side, o.leg, o.price, o.remaining)
            for o in self.resting()
        )
        held = tuple(Holding(instrument, leg, qty) for (instrument, leg), qty in self.holdings().items())
        self._tell(now, AccountSnapshot(orders, held, self.cash, command.asked_ns))

    def _find(self, order_id: str) -> tuple[Market, Resting] | None:
        instrument = self._state.where.get(order_id)
        if instrument is None:
            return None
        market = self._state.markets[instrument]
        return market, next(order for order in market.orders if order.order_id == order_id)

    def _end(self, market: Market, order: Resting, status: Ending) -> None:
        market.orders = [other for other in market.orders if other is not order]
        del self._state.where[order.order_id]
        self._back(market)
        self._remember(order.order_id, status, order.filled, order.bands, order.counts)

    def _remember(self, order_id: str, status: Ending, filled: int, bands: list[int], counts: list[int]) -> None:
        state = self._state
        state.ended += 1
        state.finished[order_id] = Finished(status, filled, bands, counts, state.ended)
        if len(state.finished) > _MAX_FINISHED:
            oldest = state.ended - _MAX_FINISHED // 2
            state.finished = {key: end for key, end in state.finished.items() if end.number > oldest}

    # Fills and money

    def _filled(
        self,
        now: int,
        market: Market,
        order: Resting,
        qty: int,
        price: int,
        *,
        liquidity: Liquidity = Liquidity.MAKER,
    ) -> None:
        instrument = market.instrument
        assert instrument is not None, "an order rests only in a listed market"
        market.last_price = price
        fill = OrderFilled(
            order_id=order.order_id,
            fill_id=f"{order.order_id}/{order.counts[self._rules.money]}",
            instrument=market.id,
            side=order.side,
            leg=order.leg,
            price=price,
            qty=qty,
            fee=values.fee(instrument, price, qty, liquidity),
            liquidity=liquidity,
            settled=not instrument.is_binary,
        )
        self._state.purse.book(instrument, fill)
        self._tell(now, fill)
        if not fill.settled:
            self._later(now + settlement.confirm_ns(self.params, fill.fill_id), Settle(fill.fill_id))
        if order.remaining == 0:
            self._end(market, order, "filled")
        else:
            self._back(market)

    def _back(self, market: Market) -> None:
        admission.reserve(self._state.purse, market, self.params.linear_stress_ppm)


def _when(entry: tuple[int, int, Any]) -> tuple[int, int]:
    return entry[0], entry[1]


def _summed(rows: Iterable[list[int]]) -> list[int]:
    return [sum(column) for column in zip([0, 0, 0], *rows, strict=True)]


def _by_band(qty: list[int], fills: list[int]) -> dict[str, dict[str, int]]:
    return {band: {"qty": qty[index], "fills": fills[index]} for index, band in enumerate(BANDS)}
