"""Everything the core can ask for, each with the reason why. Names are imperatives; a port executes them, no one else.

Prices and sides are those of the YES book; the venue's port turns `leg` into its token (`values.leg_side`, `leg_price`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from llm_maker.core.values import Leg, Side


class TimeInForce(StrEnum):
    GTC = "gtc"
    GTD = "gtd"
    IOC = "ioc"
    FOK = "fok"


class Command(msgspec.Struct, frozen=True, tag=True, tag_field="type", gc=False):
    """Base of all commands; the tag is the class name."""


class PlaceOrder(Command, frozen=True, tag=True):
    """A new order. Quotes are post-only; a crossing order has a limit price and is IOC or FOK."""

    order_id: str
    instrument: str
    side: Side
    leg: Leg
    price: int
    qty: int
    time_in_force: TimeInForce
    post_only: bool
    reduce_only: bool
    reason: str
    expires_ns: int | None = None
    decision_id: str = ""
    """The decision whose signal shaped the order; empty when no signal did."""
    decided_ns: int = 0
    """Market time of the step that decided it: a venue's signature derives its timestamp from this, never from a clock."""


class CancelOrder(Command, frozen=True, tag=True):
    order_id: str
    instrument: str
    reason: str


class MergeSets(Command, frozen=True, tag=True):
    """Turn `qty` YES and `qty` NO shares of our own into cash; answered by `SetsMerged` or `MergeFailed` of the same id."""

    instrument: str
    qty: int
    reason: str
    work_id: str = ""


class SplitCash(Command, frozen=True, tag=True):
    """Turn cash into `qty` YES and `qty` NO shares; answered by `SetsSplit` or `SplitFailed` of the same id."""

    instrument: str
    qty: int
    reason: str
    work_id: str = ""


class RedeemShares(Command, frozen=True, tag=True):
    """Turn our shares of a resolved market into cash; asked only while nothing foreign is part of the balance.

    Answered by `CashMoved` (redemption), one for each leg that was held, or `RedeemFailed` of the same id.
    """

    instrument: str
    yes_qty: int
    no_qty: int
    reason: str
    work_id: str = ""


class RequestSnapshot(Command, frozen=True, tag=True):
    instrument: str
    reason: str


class RequestAccount(Command, frozen=True, tag=True):
    """Ask what rests and what is held; fills since `since_ns` are told again first (a fill told twice is booked once)."""

    reason: str
    asked_ns: int = 0
    """Market time of the question; the answer carries it back."""
    since_ns: int = 0


class LookUpOrder(Command, frozen=True, tag=True):
    order_id: str
    instrument: str
    reason: str


class PastDecision(msgspec.Struct, frozen=True):
    """An earlier decision on a market, and what happened after it until now. USD and shares."""

    age_s: float
    action: str
    confidence: float
    p_yes: float | None
    price: float
    """The mid then."""
    moved: float
    """The mid now less the mid then."""
    filled: float
    """Shares of our fills since."""
    pnl_usd: float
    """Of this market since, marked at the mid."""


class MarketBrief(msgspec.Struct, frozen=True):
    """What the slow loop may know of one market, frozen at the moment of asking. USD, shares and ratios: for a model."""

    market_id: str
    question: str
    outcomes: tuple[str, ...]
    category: str
    kind: str
    yes_price: float
    spread: float
    bid: float
    ask: float
    bid_depth: float
    ask_depth: float
    imbalance: float
    """Bid depth over ask depth."""
    trend_5m: float | None
    trend_1h: float | None
    trend_24h: float | None
    volatility: float
    """Of the price, per square root of an hour."""
    flow: float
    """Decayed signed taker volume, shares."""
    position: float
    """Net YES shares; minus is NO."""
    avg_price: float | None
    pnl_pct: float | None
    hours_to_end: float | None
    last_action: str
    last_p_yes: float | None
    last_age_s: float | None
    trend_4h: float | None = None
    bids: tuple[tuple[float, float], ...] = ()
    """(price, shares) of the best levels, ours among them; best first."""
    asks: tuple[tuple[float, float], ...] = ()
    avg_trade: float = 0.0
    trades_per_hour: float = 0.0
    own_bid: tuple[float, float] | None = None
    """(price, shares) of our resting quote; None: none rests."""
    own_ask: tuple[float, float] | None = None
    reward_usd_per_day: float | None = None
    """What the venue pays for resting orders here; None: nothing."""
    reward_max_spread: float | None = None
    """How far from the mid such an order may rest, USD."""
    reward_min_size: float | None = None
    event_id: str = ""
    trigger: str = ""
    """Why it is asked before its answer is old; empty: it is old."""
    past: tuple[PastDecision, ...] = ()
    """Newest first."""
    indicators: str = ""
    """One line of what chart readers look at (`core/indicators.py`); it tells the price. Empty until it is warm."""


class PortfolioBrief(msgspec.Struct, frozen=True):
    """The portfolio block of the prompt and of the decision log, USD."""

    equity_usd: float
    cash_usd: float
    pnl_today_usd: float
    exposure_usd: float
    open_positions: int
    mode: str


class RequestSignals(Command, frozen=True, tag=True):
    """Ask the model about these markets, in this order. `probe`: a single try while in FALLBACK."""

    request_id: str
    markets: tuple[MarketBrief, ...]
    portfolio: PortfolioBrief
    reason: str
    probe: bool = False


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Notice(Command, frozen=True, tag=True):
    """Tell the operator: what happened and, where there is one, the cure. Goes to the daemon log and to alerts."""

    level: Level
    code: str
    text: str
    instrument: str = ""


class Stop(Command, frozen=True, tag=True):
    """The core has nothing left to do: end the daemon. `clean`: nothing of ours rests anywhere."""

    clean: bool
    reason: str
    resting: tuple[str, ...] = ()
    """Order ids that cannot be proved gone."""


AnyCommand = (
    PlaceOrder | CancelOrder | MergeSets | SplitCash | RedeemShares | RequestSnapshot | RequestAccount | LookUpOrder
    | RequestSignals | Notice | Stop
)  # fmt: skip
VenueCommand = PlaceOrder | CancelOrder | MergeSets | SplitCash | RedeemShares | RequestSnapshot | RequestAccount | LookUpOrder
