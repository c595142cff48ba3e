"""What the simulated exchange is configured by, owes itself and remembers.

Plain records: the state notes what is due, and does nothing about it.
"""

from __future__ import annotations

from heapq import heappush
from typing import Literal

import msgspec

from llm_maker.core.commands import (
    CancelOrder,
    LookUpOrder,
    MergeSets,
    PlaceOrder,
    RedeemShares,
    RequestAccount,
    SplitCash,
)
from llm_maker.core.events import (
    AccountSnapshot,
    CancelRejected,
    CashMoved,
    FillFailed,
    FillSettled,
    MergeFailed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    RedeemFailed,
    SetsMerged,
    SetsSplit,
    SplitFailed,
)
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, Regime
from llm_maker.venues.paper.latency import Scatter
from llm_maker.venues.paper.matching import Market
from llm_maker.venues.paper.purse import Purse
from llm_maker.venues.paper.queue import Model


class ExchangeParams(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration; defaults are those of the design. Times ns, cash 10^-6 USD, chances ppm."""

    seed: int
    start_cash: int = 1_000 * CASH_PER_USD
    entry_ns: int = 250 * NS_PER_MS
    """From a command to its effect at the exchange; merges and questions travel as long as orders."""
    cancel_ns: int = 250 * NS_PER_MS
    scatter: Scatter = Scatter()
    """How orders and cancels vary around both; nothing about an order arrives before the order."""
    response_ns: int = 0
    """From the effect to our hearing of it; 0: folded into `entry_ns`."""
    confirm_median_ns: int = 5 * NS_PER_S
    confirm_sigma: float = 0.6
    """Of the logarithm of the settlement time."""
    settle_fail_ppm: int = 1_000
    improve_share: float = 0.5
    volume_cap_ratio: float = 0.10
    subtract_ns: int = NS_PER_S
    queue_model: Model = "power_prob_3"
    queue_power: int = 3
    band: Literal["pessimistic", "realistic", "optimistic"] = "realistic"
    """The fills that move money."""
    min_payout: int = CASH_PER_USD
    """A day's rebates, or rewards, that sum up to less are dropped: the venue names a minimum and no carry-over."""
    linear_stress_ppm: int = 200_000
    """Margin of a linear position and its orders, of their notional."""
    drop_ack_ppm: int = 0
    """The answer to a place is lost without a word."""
    uncertain_ppm: int = 0
    """The place times out; half of those orders rest all the same."""
    reject_ppm: int = 0


class Timer(msgspec.Struct, frozen=True, tag=True, tag_field="type"):
    """What the exchange owes itself."""


class Expire(Timer, frozen=True, tag=True):
    order_id: str


class Settle(Timer, frozen=True, tag=True):
    fill_id: str


class CompleteSplit(Timer, frozen=True, tag=True):
    command: SplitCash


class CompleteMerge(Timer, frozen=True, tag=True):
    command: MergeSets


class PayFunding(Timer, frozen=True, tag=True):
    instrument: str
    due_ns: int


class SampleRewards(Timer, frozen=True, tag=True):
    pass


class PayDay(Timer, frozen=True, tag=True):
    pass


Action = (
    PlaceOrder | CancelOrder | MergeSets | SplitCash | RedeemShares | RequestAccount | LookUpOrder
    | Expire | Settle | CompleteMerge | CompleteSplit | PayFunding | SampleRewards | PayDay
)  # fmt: skip
Report = (
    OrderAccepted | OrderRejected | OrderFilled | FillSettled | FillFailed | OrderCanceled | OrderExpired
    | CancelRejected | OrderUncertain | OrderLookedUp | AccountSnapshot | SetsMerged | MergeFailed | SetsSplit
    | SplitFailed | RedeemFailed | CashMoved
)  # fmt: skip
Ending = Literal["filled", "canceled", "expired", "absent"]


class Finished(msgspec.Struct):
    """An order that rests no more; `number` orders them by their end."""

    status: Ending
    filled: int
    bands: list[int]
    counts: list[int]
    number: int


class State(msgspec.Struct):
    """All that a checkpoint holds; heaps are (due ns, running number, what)."""

    purse: Purse
    markets: dict[str, Market] = {}
    where: dict[str, str] = {}
    """Resting order id -> instrument."""
    coming: dict[str, int] = {}
    """Order id -> when it arrives."""
    finished: dict[str, Finished] = {}
    ended: int = 0
    regimes: dict[str, Regime] = {}
    actions: list[tuple[int, int, Action]] = []
    outbox: list[tuple[int, int, Report]] = []
    number: int = 0
    sampling: bool = False
    payday: bool = False

    def later(self, due: int, action: Action) -> None:
        """Note what takes effect at `due`; equal times in the order they were noted."""
        self.number += 1
        heappush(self.actions, (due, self.number, action))

    def tell(self, heard_ns: int, report: Report) -> None:
        """Note what is heard of us at `heard_ns`."""
        self.number += 1
        heappush(self.outbox, (heard_ns, self.number, report))
