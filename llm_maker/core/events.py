"""Everything that can happen: frozen, tagged, each with what its fields mean. Nothing else enters the core.

An event carries no time of its own: the inbox stamps market time and sequence and hands both to `engine.on_event`.
`venue_ts` is the venue's own timestamp (ns), kept to measure lag. Prices, quantities and sides are those of the one YES book.
Names are past participles. What an event means is fixed here, whatever the venue.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from llm_maker.core.advice import MemberAnswer, Signal
from llm_maker.core.skill import Skill
from llm_maker.core.values import Instrument, Leg, Liquidity, Regime, Side

Levels = tuple[tuple[int, int], ...]
"""(price, total quantity at that price) pairs; quantity 0 removes the level."""


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="type", gc=False):
    """Base of all events; the tag is the class name."""


# Market data: the same for every account.


class BookSnapshot(Event, frozen=True, tag=True):
    """The whole book; replaces what was held and ends a gap if it is newer than it."""

    instrument: str
    bids: Levels
    asks: Levels
    venue_ts: int


class BookDelta(Event, frozen=True, tag=True):
    """New totals at some levels, and the venue's own best prices after them.

    `best_bid` 0 and `best_ask` equal to the payout (binary) mean an empty side; None means the venue did not say.
    """

    instrument: str
    bids: Levels
    asks: Levels
    best_bid: int | None
    best_ask: int | None
    venue_ts: int


class TopReported(Event, frozen=True, tag=True):
    """The venue's best prices without a change; a check on our book."""

    instrument: str
    best_bid: int | None
    best_ask: int | None
    venue_ts: int


class TradePrinted(Event, frozen=True, tag=True, omit_defaults=True):
    """A public trade; `side` is the taker's, on the YES book; all prints of one taker order share their `transaction`, if told."""

    instrument: str
    price: int
    qty: int
    side: Side
    venue_ts: int
    transaction: str = ""


class PriceReported(Event, frozen=True, tag=True):
    """A price without a book (index, mark, another venue's); has its own freshness limit."""

    instrument: str
    source: str
    price: int
    venue_ts: int


class FundingReported(Event, frozen=True, tag=True):
    """The funding rate longs will pay at `due_ns`, in parts per million of notional."""

    instrument: str
    rate_ppm: int
    due_ns: int


class OpenInterestReported(Event, frozen=True, tag=True):
    instrument: str
    qty: int


class LiquidationReported(Event, frozen=True, tag=True):
    instrument: str
    side: Side
    price: int
    qty: int


class BarsLoaded(Event, frozen=True, tag=True):
    """Closed candles of one interval, oldest first: (start_ns, open, high, low, close, volume)."""

    instrument: str
    interval_s: int
    bars: tuple[tuple[int, int, int, int, int, int], ...]


class InstrumentListed(Event, frozen=True, tag=True):
    """The universe gained a market, or learned new rules of a known one (tick, fee, reward, end)."""

    instrument: Instrument


class InstrumentDropped(Event, frozen=True, tag=True):
    """The market left the universe: reduce-only until flat."""

    instrument: str
    reason: str


class MarketResolved(Event, frozen=True, tag=True):
    """The outcome is known: `price` is what one YES share pays, in price units."""

    instrument: str
    price: int


# The venue's connection.


class VenueUp(Event, frozen=True, tag=True):
    """Data flows. `snapshots` False: a gap heals only by its top agreeing (a tape). `shows_own`: books contain our own orders."""

    venue: str
    snapshots: bool
    shows_own: bool = False


class VenueDown(Event, frozen=True, tag=True):
    """No data can be trusted: every book of the venue is stale from now on."""

    venue: str
    reason: str


class RegimeChanged(Event, frozen=True, tag=True):
    venue: str
    regime: Regime


class FeedLost(Event, frozen=True, tag=True):
    """Data of some markets cannot be trusted (frozen shard, conflation, damaged frame): a gap in each."""

    instruments: tuple[str, ...]
    reason: str


# Time.


class Tick(Event, frozen=True, tag=True):
    """250 ms of market time have passed; deadlines are judged here, not on data."""


class ClockStepped(Event, frozen=True, tag=True):
    """The wall clock moved against the monotonic one by `step_ns`; over 1 s this halts."""

    step_ns: int


class LoopDelayed(Event, frozen=True, tag=True):
    """Our own loop did not run for `delay_ns`: what we hold may be stale."""

    delay_ns: int


# Our orders and money: of one account.


class OrderAccepted(Event, frozen=True, tag=True):
    order_id: str
    venue_id: str


class OrderRejected(Event, frozen=True, tag=True):
    """The venue refused; `reason` is one of ours: post_only, balance, tick, size, closed, duplicate, rate, other."""

    order_id: str
    reason: str
    detail: str = ""


class OrderFilled(Event, frozen=True, tag=True):
    """Part or all of our order traded. Provisional until `FillSettled`, unless `settled`.

    May come before the acceptance or after a cancel. `fill_id` is unique per order and trade.
    """

    order_id: str
    fill_id: str
    instrument: str
    side: Side
    leg: Leg
    price: int
    qty: int
    fee: int
    liquidity: Liquidity
    settled: bool = False


class FillSettled(Event, frozen=True, tag=True):
    fill_id: str
    instrument: str


class FillFailed(Event, frozen=True, tag=True):
    """The settlement failed for good: position and cash go back."""

    fill_id: str
    instrument: str


class OrderCanceled(Event, frozen=True, tag=True):
    order_id: str
    reason: str = ""


class OrderExpired(Event, frozen=True, tag=True):
    order_id: str


class CancelRejected(Event, frozen=True, tag=True):
    """The venue would not cancel. `gone` True: it says no such order rests, which is not yet a proof of its end."""

    order_id: str
    reason: str
    gone: bool


class OrderUncertain(Event, frozen=True, tag=True):
    """We do not know whether the venue has it (timeout, 5xx): it counts as live until looked up."""

    order_id: str
    reason: str


class OrderLookedUp(Event, frozen=True, tag=True):
    """The venue's answer about one order; `filled` is its cumulative matched quantity."""

    order_id: str
    found: Literal["open", "filled", "canceled", "expired", "absent"]
    filled: int = 0


class RestingOrder(msgspec.Struct, frozen=True):
    """One resting order as the venue lists it; `order_id` empty when it is not one of ours."""

    order_id: str
    venue_id: str
    instrument: str
    side: Side
    leg: Leg
    price: int
    qty: int


class Holding(msgspec.Struct, frozen=True):
    instrument: str
    leg: Leg
    qty: int


class AccountSnapshot(Event, frozen=True, tag=True):
    """All that rests and all that is held, as the venue says at one moment; `cash` None where it was not told."""

    orders: tuple[RestingOrder, ...]
    holdings: tuple[Holding, ...]
    cash: int | None = None
    asked_ns: int = 0
    """When the question was asked that this answers (`RequestAccount.asked_ns`)."""


class AccountUnknown(Event, frozen=True, tag=True):
    """The account could not be read. Never to be taken for "nothing there"."""

    reason: str


class AccountStreamUp(Event, frozen=True, tag=True):
    """The venue tells us of our own orders and fills from now on; what happened before must be asked for."""

    venue: str


class AccountStreamDown(Event, frozen=True, tag=True):
    """We would not hear of a fill: nothing of ours may rest."""

    venue: str
    reason: str


class SetsMerged(Event, frozen=True, tag=True):
    """`qty` YES and NO shares became `qty` of payout; `cost` is what the venue charged."""

    instrument: str
    qty: int
    cost: int = 0
    work_id: str = ""


class SetsSplit(Event, frozen=True, tag=True):
    """Cash became `qty` YES and NO shares; `cost` is what the venue charged beside the payout."""

    instrument: str
    qty: int
    cost: int = 0
    work_id: str = ""


class MergeFailed(Event, frozen=True, tag=True):
    """`final` False: the result is not known yet and the shares stay reserved."""

    instrument: str
    qty: int
    reason: str
    final: bool = True
    work_id: str = ""


class SplitFailed(Event, frozen=True, tag=True):
    """`final` False: the result is not known yet."""

    instrument: str
    qty: int
    reason: str
    final: bool = True
    work_id: str = ""


class RedeemFailed(Event, frozen=True, tag=True):
    """`final` False: the result is not known yet."""

    instrument: str
    reason: str
    final: bool = True
    work_id: str = ""


class CashKind(StrEnum):
    FEE = "fee"
    REBATE = "rebate"
    REWARD = "reward"
    FUNDING = "funding"
    REDEMPTION = "redemption"
    TRANSFER = "transfer"


class CashMoved(Event, frozen=True, tag=True):
    """Money that is not a fill: `amount` is signed, plus is ours. A redemption names the shares it burned (linear: signed)."""

    kind: CashKind
    amount: int
    instrument: str = ""
    leg: Leg = Leg.NONE
    qty: int = 0
    work_id: str = ""
    """Of the redemption that was asked for; empty where the venue paid by itself."""


# The slow loop.


class SignalsReceived(Event, frozen=True, tag=True):
    """One valid answer: signals for some or all of the markets asked about. `cost` in cash units."""

    request_id: str
    decision_id: str
    model: str
    prompt_version: str
    signals: tuple[Signal, ...]
    invalid: int = 0
    """Signals of the answer that were refused (unknown handle, bad value)."""
    cost: int = 0
    simulated: bool = False
    members: tuple[MemberAnswer, ...] = ()
    """Where several models were asked: each one's own answer, those that failed too."""


class SignalsFailed(Event, frozen=True, tag=True):
    """No valid answer.

    Why: timeout, connection, auth, billing, rate_limit, overload, malformed, truncated, refusal, bad_request, budget.
    """

    request_id: str
    decision_id: str
    reason: str
    detail: str = ""
    cost: int = 0


class SignalsSkipped(Event, frozen=True, tag=True):
    """The cycle asked nobody, which is no failure: rate wait or nothing to ask."""

    request_id: str
    reason: Literal["rate_wait", "empty_agenda", "busy"]


class WeightUpdated(Event, frozen=True, tag=True):
    """The measured worth of a model's opinion; computed outside, from our own log. An empty category is all of them."""

    model: str
    category: str
    skill: Skill


# People and the house itself.


class Verb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    REDUCE = "reduce"
    FLATTEN = "flatten"
    CANCEL_ALL = "cancel_all"
    KILL = "kill"
    ADOPT = "adopt"
    APPROVE = "approve"
    SPLIT = "split"


class OperatorActed(Event, frozen=True, tag=True):
    """A person pressed something. `instrument` empty: the whole account. `take`: flatten may cross. `who` names the channel."""

    verb: Verb
    who: str
    instrument: str = ""
    take: bool = False
    intent_id: str = ""
    qty: int = 0
    """Sets to make of cash (`split`), in units of the instrument."""


class IntentReceived(Event, frozen=True, tag=True):
    """A wish of something impure (a bot file, a person): a signed position target, through the same gates."""

    intent_id: str
    instrument: str
    target_net: int
    who: str
    reason: str


class ParamsChanged(Event, frozen=True, tag=True):
    """A reload: the encoded parameters (JSON of `params.Params` and of the strategy's own). `who` empty: the start did it."""

    params: msgspec.Raw
    strategy_params: msgspec.Raw
    who: str = ""


class StorageFailed(Event, frozen=True, tag=True):
    """Journal or ledger could not be written: nothing new may be risked that could be forgotten."""

    what: str
    reason: str


class Started(Event, frozen=True, tag=True):
    """A session began. `session` is persisted first and never repeats, so client order ids do not either."""

    session: int
    resumed: bool


class StopRequested(Event, frozen=True, tag=True):
    """Cancel all of ours, prove it, end."""

    reason: str


MarketEvent = (
    BookSnapshot | BookDelta | TopReported | TradePrinted | PriceReported | FundingReported | OpenInterestReported
    | LiquidationReported | BarsLoaded | InstrumentListed | InstrumentDropped | MarketResolved | VenueUp | VenueDown
    | RegimeChanged | FeedLost
)  # fmt: skip
"""The same for every account on the feed."""
TimeEvent = Tick | ClockStepped | LoopDelayed
AccountEvent = (
    OrderAccepted | OrderRejected | OrderFilled | FillSettled | FillFailed | OrderCanceled | OrderExpired | CancelRejected
    | OrderUncertain | OrderLookedUp | AccountSnapshot | AccountUnknown | AccountStreamUp | AccountStreamDown | SetsMerged
    | MergeFailed | SetsSplit | SplitFailed | RedeemFailed | CashMoved
    | SignalsReceived | SignalsFailed | SignalsSkipped | WeightUpdated | OperatorActed | IntentReceived | ParamsChanged
    | StorageFailed | Started | StopRequested
)  # fmt: skip
"""Of one account."""
AnyEvent = MarketEvent | TimeEvent | AccountEvent
