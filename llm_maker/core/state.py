"""The one shared state of an account: markets, orders, money, risk and the slow loop. `engine.on_event` is its one writer.

Everything here is a msgspec struct, so a checkpoint is `encode(state)` and nothing else. Times are market ns, 0 is "never".
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_maker.core.bars import Bars
from llm_maker.core.book import Book
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.estimators import Estimators
from llm_maker.core.events import RestingOrder
from llm_maker.core.exits import ExitPlan
from llm_maker.core.hazard import Hazard, Lesson, Resting
from llm_maker.core.indicators import Indicators
from llm_maker.core.lag import Lag
from llm_maker.core.markouts import Markouts
from llm_maker.core.orders import Order
from llm_maker.core.params import Params
from llm_maker.core.positions import Position, RoundTrip
from llm_maker.core.signals import Opinion, Remembered, SlowLoop, weight_in_force
from llm_maker.core.skill import Skill, skill_of
from llm_maker.core.values import Instrument, Leg, Mode, Regime, Side, leg_price, leg_side, to_cash_up


class Venue(msgspec.Struct):
    """One feed: its connection, its regime, how late and how silent it is, and our message budget there."""

    name: str
    up: bool = False
    down_reason: str = "not connected yet"
    snapshots: bool = True
    """A fresh snapshot can be had; False on a tape."""
    shows_own: bool = False
    """Its books contain our own resting orders."""
    regime: Regime = Regime.OPEN
    heard_ns: int = 0
    delayed: bool = False
    """Our loop stood still, and nothing that is fresh has come since."""
    lag: Lag = msgspec.field(default_factory=Lag)
    lagging: bool = False
    calm_ns: int = 0
    """Since when no message was late by more than half the limit; 0: the last one was."""
    silent: bool = False
    budget: float = 0.0
    """Messages that may be sent now; refilled with time."""
    budget_ns: int = 0


class Intent(msgspec.Struct, frozen=True):
    """A position wish of something impure, accepted for work."""

    intent_id: str
    instrument: str
    target_net: int
    who: str
    reason: str


class Work(msgspec.Struct, frozen=True):
    """A merge, split or redemption under way; quantity units."""

    work_id: str
    what: str
    instrument: str
    qty: int
    asked_ns: int


class Market(msgspec.Struct):
    """All that is known of one instrument: its book, our place in it, and why we may or may not quote."""

    instrument: Instrument
    book: Book
    estimators: Estimators
    markouts: Markouts
    bars: Bars
    position: Position
    own: Any
    """The strategy's own state; its type is the strategy's `state_type`."""
    indicators: Indicators = msgspec.field(default_factory=Indicators)
    exit_plan: ExitPlan | None = None
    opinion: Opinion | None = None
    trigger: str = ""
    """Why the model should look again before its answer is old: jump, sweep, fill, stop."""
    past: list[Remembered] = msgspec.field(default_factory=list)
    """The last decisions here, oldest first; for the model's memory."""
    answered_ns: int = 0
    """When the model last answered a question about it, with a word on it or without."""
    near_stop: bool = False
    """The position had lost half of what its stop allows at the last look."""
    end_stage: int = -1
    """How many of the hours before the end at which the model looks again have passed; -1: not looked yet."""
    intent: Intent | None = None
    live: list[str] = msgspec.field(default_factory=list)
    """Ids of our orders here that are not final."""
    operator_mode: Mode = Mode.ACTIVE
    in_universe: bool = True
    drop_reason: str = ""
    resolved: int | None = None
    pulled_until: int = 0
    pull_reason: str = ""
    cautious_until: int = 0
    """After a pull: twice the half-spread until then."""
    cooldown_until: int = 0
    held_off: dict[str, int] = msgspec.field(default_factory=dict)
    """Side (` taking` after it: of orders that take) -> until when none is sent, because the venue refused the last one."""
    stops_day: int = 0
    stops: int = 0
    last_trade_ns: int = 0
    bid_depth: int = 0
    ask_depth: int = 0
    mark: float = 0.0
    """Last mid of a trusted book, price units; 0: none yet."""
    mark_ns: int = 0
    dirty: bool = True
    requote_ns: int = 0
    """The next time to look again without any news."""
    quoted: bool = False
    quoted_ns: int = 0
    """Total time with at least one resting quote; for `report`."""
    quoted_since: int = 0
    snapshot_asked_ns: int = 0
    resolved_seen_ns: int = 0
    """When an account list first lacked our shares of this resolved market."""
    merge_failed_ns: int = 0
    """When a merge last failed: the next one waits."""
    redeem_ns: int = 0
    """When the payment of a resolved market was last asked for."""
    loss_yes: int = 0
    """P&L if YES wins and every resting order that hurts fills, price x quantity units (cached by `exposure`)."""
    loss_no: int = 0
    reserved: int = 0
    """Cash that resting orders may take."""
    worst: int = 0
    """Worst case of this market alone, cash."""
    off_target: dict[str, int] = msgspec.field(default_factory=dict)
    """Order id -> since when it has been off its target but within tolerance."""
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    """`side reason` -> since when refused without a break."""
    wanted: dict[str, int] = msgspec.field(default_factory=dict)
    """Last shaped targets, `buy`/`sell` -> price; for `why`."""
    resting: dict[str, Resting] = msgspec.field(default_factory=dict)
    """Order id -> its place in the queue and what it faces; of our orders that rest."""
    lessons: list[Lesson] = msgspec.field(default_factory=list)
    """Our fills whose markout is still to be learned from, oldest first."""

    def own_price(self, side: Side, orders: dict[str, Order]) -> int:
        """Our best resting price on a side; 0: none."""
        prices = [orders[i].price for i in self.live if orders[i].side is side]
        if not prices:
            return 0
        return max(prices) if side is Side.BUY else min(prices)


class Halt(msgspec.Struct):
    """Why the whole account stands still; `until_ns` 0 waits for a person."""

    since_ns: int
    until_ns: int
    text: str


class RiskState(msgspec.Struct):
    """Bases of the loss limits; survive a restart. Equity in cash units; periods as day numbers since the epoch (UTC)."""

    day: int = -1
    day_base: int = 0
    week: int = -1
    week_base: int = 0
    month: int = -1
    month_base: int = 0
    high_water: int = 0
    equity: int = 0
    judged_ns: int = 0


class Flows(msgspec.Struct):
    """Where the money went, cash units, signed: plus is ours."""

    start: int = 0
    trading: int = 0
    """Cash of fills without fees, and of merges and redemptions."""
    fees: int = 0
    rebates: int = 0
    rewards: int = 0
    funding: int = 0
    transfers: int = 0
    capture: int = 0
    """Sum over fills of side x (mid - price) x quantity at the moment of the fill: the spread earned before the market moved on."""
    llm_cost: int = 0
    """Paid elsewhere: never part of `cash`."""


class Counts(msgspec.Struct):
    """What happened, for `status` and the closing lines."""

    placed: int = 0
    canceled: int = 0
    fills: int = 0
    decisions: int = 0
    signals: int = 0
    signals_refused: int = 0
    failures: int = 0
    fallbacks: int = 0
    gaps: int = 0
    halts: int = 0
    unknown: int = 0
    overfills: int = 0
    failed_settlements: int = 0
    merges: int = 0
    first_quote_ns: int = 0
    started_ns: int = 0


class ClosedTrip(msgspec.Struct, frozen=True):
    """A position that came back to flat, with why it was left and what was thought when it began."""

    instrument: str
    trip: RoundTrip
    exit_reason: str
    reasoning: str


class Tally(msgspec.Struct):
    """Episodes of one reason to refuse, and how long they lasted in all."""

    count: int = 0
    ns: int = 0


class State(msgspec.Struct):
    """One account."""

    account: str
    params: Params
    strategy: str
    strategy_params: Any
    now: int = 0
    session: int = 0
    next_order: int = 1
    next_request: int = 1
    next_work: int = 0
    cash: int = 0
    """Own ledger cash; moved by typed events only."""
    markets: dict[str, Market] = msgspec.field(default_factory=dict)
    venues: dict[str, Venue] = msgspec.field(default_factory=dict)
    events: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Event id -> its markets, for the caps by event."""
    clusters: dict[str, list[str]] = msgspec.field(default_factory=dict)
    orders: dict[str, Order] = msgspec.field(default_factory=dict)
    """All that are not final, and the final ones of the last minutes (late fills)."""
    recent: list[str] = msgspec.field(default_factory=list)
    """Final orders in order of ending, oldest first."""
    operator_mode: Mode = Mode.ACTIVE
    halts: dict[str, Halt] = msgspec.field(default_factory=dict)
    risk: RiskState = msgspec.field(default_factory=RiskState)
    flows: Flows = msgspec.field(default_factory=Flows)
    counts: Counts = msgspec.field(default_factory=Counts)
    slow: SlowLoop = msgspec.field(default_factory=SlowLoop)
    skills: dict[str, Skill] = msgspec.field(default_factory=dict)
    """`model|category` -> what was measured of its opinions; the prior weight where absent."""
    hazards: dict[str, Hazard] = msgspec.field(default_factory=dict)
    """Class of tick and spread -> what our own orders taught about fills there; pooled over all markets."""
    refused: dict[str, Tally] = msgspec.field(default_factory=dict)
    held: list[str] = msgspec.field(default_factory=list)
    """Instruments with a position or any holding of our own."""
    exposed: dict[str, bool] = msgspec.field(default_factory=dict)
    """Instruments with a position or an order of ours that is not final (a set; the values mean nothing)."""
    gross: int = 0
    """Sum of all markets' worst cases, cash."""
    reserved: int = 0
    """Sum of all markets' reserved cash."""
    account_known: bool = False
    """An account snapshot was compared since the session began, or since its stream came back."""
    account_asked_ns: int = 0
    account_seen_ns: int = 0
    """When the last account snapshot that was compared had been asked for."""
    account_halts: bool = False
    """This session has not yet seen the account: orders that are not ours halt a live start."""
    foreign_ns: int = 0
    """When an order that is not ours was last seen on the account."""
    stream_down: str = ""
    """Why we would not hear of our own fills; empty: we would."""
    cash_told: int | None = None
    """The venue's cash that our ledger did not explain at the last look; None: it did."""
    cash_told_ns: int = 0
    cash_seen: bool = False
    """The ledger's cash was set against the venue's once."""
    drift_ns: int = 0
    """Since when the venue's list lacks shares of ours; 0: it does not."""
    account_doubted: bool = False
    """What a snapshot called foreign may have been ours all along: ask again soon."""
    stopping: str = ""
    stop_ns: int = 0
    stopped: bool = False
    works: dict[str, Work] = msgspec.field(default_factory=dict)
    """Merges, splits and redemptions that are not answered yet."""
    intents: dict[str, Intent] = msgspec.field(default_factory=dict)
    """Waiting for `approve`."""
    closed: list[ClosedTrip] = msgspec.field(default_factory=list)
    """Round trips that the present event ended; for the ledger."""
    foreign_orders: dict[str, RestingOrder] = msgspec.field(default_factory=dict)
    """Venue id -> resting order that is not ours: shown, counted in the worst case, never touched."""

    @property
    def mode(self) -> Mode:
        if self.halts or self.stopping or self.operator_mode is Mode.HALTED:
            return Mode.HALTED
        return self.operator_mode

    def live_orders(self, market: Market) -> list[Order]:
        return [self.orders[i] for i in market.live]

    def mode_text(self) -> str:
        """Why the mode is what it is."""
        if self.stopping:
            return f"stopping: {self.stopping}"
        if self.halts:
            return "; ".join(f"{name}: {halt.text}" for name, halt in self.halts.items())
        return {Mode.ACTIVE: "", Mode.REDUCE_ONLY: "reduce-only, by the operator", Mode.HALTED: "paused by the operator"}[
            self.operator_mode
        ]


def weight_of(state: State, market: Market) -> float:
    """What the opinion of this market counts for: W times rho of its confidence as measured in this category, or the prior."""
    if market.opinion is None:
        return 0.0
    skill = skill_of(state.skills, market.opinion.model, market.instrument.category)
    return weight_in_force(skill, market.opinion.signal.confidence, state.params.signals)


def acting(state: State, market: Market) -> Opinion | None:
    """The opinion while it may act: not expired, not in shadow (weight 0), not while rules have taken over."""
    opinion = market.opinion
    if opinion is None or state.now >= opinion.expires_ns or state.slow.fallback or weight_of(state, market) <= 0:
        return None
    return opinion


def order_cash(instrument: Instrument, command: PlaceOrder | Order, qty: int) -> int:
    """Cash an order may take if `qty` of it fills: the price of the token it buys, 0 when it sells one."""
    if not instrument.is_binary or leg_side(command.side, command.leg) is Side.SELL:
        return 0
    return to_cash_up(instrument, leg_price(instrument, command.price, command.leg) * qty)


def reserved_shares(state: State, market: Market, leg: Leg) -> int:
    """Shares of a leg that our resting sells of it already claim."""
    orders = state.live_orders(market)
    return sum(o.remaining for o in orders if o.leg is leg and leg_side(o.side, o.leg) is Side.SELL)


def refresh_exposure(state: State, market: Market) -> None:
    """Recompute the market's cached worst case and reserved cash after its orders or position changed.

    Binary, in price x quantity units: NO wins -> `-cost - sum(bids q p)`;
    YES wins -> `net payout - cost - sum(asks q (payout - p))`.
    Linear: the larger side's quantity times the mark times the stress ratio. Foreign holdings count at their mark.
    """
    instrument, position = market.instrument, market.position
    reserved = 0
    bids, bid_cost, asks, ask_cost = foreign_resting(state, market)
    for order in state.live_orders(market):
        reserved += order_cash(instrument, order, order.remaining)
        if order.side is Side.BUY:
            bids += order.remaining
            bid_cost += order.remaining * order.price
        else:
            asks += order.remaining
            ask_cost += order.remaining * (instrument.payout - order.price)
    worst = worst_loss(state.params, market, bids, bid_cost, asks, ask_cost)
    market.loss_no = -position.cost - bid_cost
    market.loss_yes = position.net * instrument.payout - position.cost - ask_cost
    if market.live or position.net:
        state.exposed[instrument.id] = True
    else:
        state.exposed.pop(instrument.id, None)
    state.gross += worst - market.worst
    state.reserved += reserved - market.reserved
    market.worst, market.reserved = worst, reserved


def foreign_resting(state: State, market: Market) -> tuple[int, int, int, int]:
    """(bids, their cost, asks, their cost) of resting orders that are not ours: they fill into the same account."""
    bids = bid_cost = asks = ask_cost = 0
    for order in state.foreign_orders.values():
        if order.instrument != market.instrument.id:
            continue
        if order.side is Side.BUY:
            bids, bid_cost = bids + order.qty, bid_cost + order.qty * order.price
        else:
            asks, ask_cost = asks + order.qty, ask_cost + order.qty * (market.instrument.payout - order.price)
    return bids, bid_cost, asks, ask_cost


def worst_loss(params: Params, market: Market, bids: int, bid_cost: int, asks: int, ask_cost: int) -> int:
    """Cash lost in the worst outcome if these resting quantities fill on top of the position and of foreign holdings."""
    instrument, position = market.instrument, market.position
    if instrument.is_binary:
        no_wins = -position.cost - bid_cost
        yes_wins = position.net * instrument.payout - position.cost - ask_cost
        loss = max(0, -no_wins, -yes_wins)
        mark = round(market.mark)
        foreign = position.yes.foreign * mark + position.no.foreign * (instrument.payout - mark)
        return to_cash_up(instrument, loss + foreign)
    net = max(abs(position.net + bids), abs(position.net - asks))
    return to_cash_up(instrument, int(net * market.mark * params.risk.linear_stress_ratio))


def index(state: State, instrument: Instrument) -> None:
    """Into its event and its cluster, for the caps."""
    if instrument.event_id:
        state.events.setdefault(instrument.event_id, []).append(instrument.id)
    if instrument.cluster:
        state.clusters.setdefault(instrument.cluster, []).append(instrument.id)


def unindex(state: State, instrument: Instrument) -> None:
    """Out of its event and its cluster, which end with their last market."""
    for groups, key in ((state.events, instrument.event_id), (state.clusters, instrument.cluster)):
        if key in groups:
            groups[key].remove(instrument.id)
            if not groups[key]:
                del groups[key]
