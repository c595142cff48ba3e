"""Exact values: price, quantity, cash, the price grid, fee and reward rules, instruments. All rounding lives here.

Integers only: a price counts `10**-price_decimals` USD, a quantity `10**-qty_decimals` units, cash `10**-6` USD, time
nanoseconds. Floats enter through the two doors `floor_to_grid` and `ceil_to_grid`, whose names say which way they round.
This file knows nothing of books, orders or accounts.
"""

from __future__ import annotations

import math
from enum import IntEnum, StrEnum
from typing import NewType

import msgspec

Price = NewType("Price", int)
"""Units of `Instrument.price_decimals`; on a binary market always the price of YES."""
Qty = NewType("Qty", int)
"""Units of `Instrument.qty_decimals`; never negative unless it is called `net`."""
Cash = NewType("Cash", int)
"""10^-6 USD; signed."""
Ns = NewType("Ns", int)
"""Nanoseconds of market time since the Unix epoch, or a length of it."""
InstrumentId = NewType("InstrumentId", str)
OrderId = NewType("OrderId", str)
FillId = NewType("FillId", str)

CASH_PER_USD = 1_000_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
PPM = 1_000_000
_FLOAT_SLACK = 1e-6
"""Price units: what a float may miss a grid line by and still be on it."""


class Side(IntEnum):
    """The side of an order, a level or a print on the one (YES) book; its value is the sign of the exposure."""

    BUY = 1
    SELL = -1

    @property
    def other(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class Leg(StrEnum):
    """Which token of a binary market an order trades; `NONE` for a linear instrument."""

    YES = "yes"
    NO = "no"
    NONE = "none"


class Kind(StrEnum):
    """What an instrument pays: a fixed sum on one of two outcomes, or the difference of two prices."""

    BINARY = "binary"
    LINEAR = "linear"


class Liquidity(StrEnum):
    MAKER = "maker"
    TAKER = "taker"


class Mode(StrEnum):
    """What the daemon, or one market, may do: everything, only reduce, or nothing but cancel."""

    ACTIVE = "active"
    REDUCE_ONLY = "reduce_only"
    HALTED = "halted"


class Regime(StrEnum):
    """What the venue itself allows at the moment."""

    OPEN = "open"
    POST_ONLY = "post_only"
    CANCEL_ONLY = "cancel_only"
    RESTART = "restart"
    CLOSED = "closed"


class FixedGrid(msgspec.Struct, frozen=True, tag="fixed"):
    """Every multiple of one step (price units)."""

    step: int

    def step_below(self, price: int) -> int:
        """The step between grid prices just below `price`."""
        return self.step

    def floor(self, price: int) -> int:
        return price - price % self.step

    def ceil(self, price: int) -> int:
        return price + -price % self.step


class TieredGrid(msgspec.Struct, frozen=True, tag="tiered"):
    """Steps that change with the price: `tiers` are `(upto, step)`, ascending; the last `upto` is the upper bound.

    A price `p` with `previous upto <= p <= upto` is a multiple of that tier's step; each `upto` lies on both its grids
    (Kalshi's tapered grid: $0.001 below 0.10 and above 0.90, $0.01 between).
    """

    tiers: tuple[tuple[int, int], ...]

    def step_below(self, price: int) -> int:
        for upto, step in self.tiers:
            if price <= upto:
                return step
        return self.tiers[-1][1]

    def floor(self, price: int) -> int:
        step = self.step_below(price)
        return price - price % step

    def ceil(self, price: int) -> int:
        step = self.step_below(price)
        return price + -price % step


class SignificantGrid(msgspec.Struct, frozen=True, tag="significant"):
    """Prices of at most `figures` significant figures and no step finer than `finest`; whole USD are always allowed.

    Hyperliquid's rule for perpetuals: five significant figures, at most `6 - szDecimals` decimals, integers always.
    """

    figures: int
    finest: int
    whole: int
    """Price units in one whole USD."""

    def step_below(self, price: int) -> int:
        digits = len(str(max(price - 1, 1)))
        coarse: int = 10 ** max(digits - self.figures, 0)
        return max(self.finest, min(coarse, self.whole))

    def floor(self, price: int) -> int:
        step = self._step_at(price)
        return price - price % step

    def ceil(self, price: int) -> int:
        step = self._step_at(price)
        return price + -price % step

    def _step_at(self, price: int) -> int:
        return self.step_below(price + 1)


Grid = FixedGrid | TieredGrid | SignificantGrid


class FeeCurve(StrEnum):
    NONE = "none"
    VARIANCE = "variance"
    """Per unit: rate x p x (1 - p), in USD (Polymarket, Kalshi)."""
    NOTIONAL = "notional"
    """Rate x price x quantity (perpetuals, in basis points)."""


class FeeRule(msgspec.Struct, frozen=True):
    """What a fill costs, as data. Rates in parts per million; `quantum` and `minimum` in cash units."""

    curve: FeeCurve = FeeCurve.NONE
    taker_ppm: int = 0
    maker_ppm: int = 0
    rebate_ppm: int = 0
    """Share of the taker's fee that the venue pays back on a maker's fill."""
    quantum: int = 1
    minimum: int = 0


class RewardRule(msgspec.Struct, frozen=True):
    """Liquidity reward of one market (`quoting.md` 2.7): spread in price units, quantity in units, pool in cash a day."""

    max_spread: int
    min_qty: int
    pool_per_day: int


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What trades: its units, its grid, its rules. A binary market is one instrument: the YES book, both tokens.

    `payout` is the price units a winning share pays (binary only, else 0). `unit_end_ns` etc. are market time.
    """

    id: InstrumentId
    venue: str
    kind: Kind
    price_decimals: int
    qty_decimals: int
    grid: Grid
    qty_step: int
    """An order's quantity is a multiple of this; a fill's need not be."""
    min_qty: int
    payout: int = 0
    fee: FeeRule = FeeRule()
    reward: RewardRule | None = None
    question: str = ""
    outcomes: tuple[str, ...] = ()
    token_ids: tuple[str, ...] = ()
    """(YES, NO) on Polymarket; empty elsewhere."""
    route: str = ""
    """The venue's own word for the contract that settles it (Polymarket: ctf, neg_risk, v3); what is signed depends on it."""
    event_id: str = ""
    """Markets of one event; with `exclusive`, exactly one of them pays."""
    exclusive: bool = False
    cluster: str = ""
    category: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
    guard_start: bool = True
    """False where the venue says that nothing is scheduled to start: no start is then missing."""
    guard_end: bool = True
    """False where a tape does not tell the end: the resolution guard is then off, and the report says so."""

    @property
    def is_binary(self) -> bool:
        return self.kind is Kind.BINARY

    @property
    def min_price(self) -> int:
        """The lowest price an order may carry."""
        return self.grid.ceil(1)

    @property
    def max_price(self) -> int:
        """The highest price an order may carry."""
        return self.grid.floor(self.payout - 1) if self.payout else (1 << 62)

    def tick_at(self, price: int) -> int:
        return self.grid.step_below(price)

    def on_grid(self, price: int) -> bool:
        return self.grid.floor(price) == price

    def next_bid(self, price: int, steps: int = 1) -> int:
        """`steps` grid lines below `price`."""
        for _ in range(steps):
            price = self.grid.floor(price - 1)
        return price

    def next_ask(self, price: int, steps: int = 1) -> int:
        """`steps` grid lines above `price`."""
        for _ in range(steps):
            price = self.grid.ceil(price + 1)
        return price

    def usd_price(self, price: float) -> float:
        """For people and the model only."""
        return price / float(10**self.price_decimals)

    def usd_qty(self, qty: float) -> float:
        """For people and the model only: shares or contracts."""
        return qty / float(10**self.qty_decimals)

    def floor_qty(self, qty: float) -> Qty:
        """Down to a quantity an order may carry."""
        return Qty(int(qty) - int(qty) % self.qty_step)


def floor_to_grid(instrument: Instrument, value: float) -> Price:
    """The nearest grid price at or below a model's price (price units); the way a bid is rounded."""
    return Price(instrument.grid.floor(math.floor(value + _FLOAT_SLACK)))


def ceil_to_grid(instrument: Instrument, value: float) -> Price:
    """The nearest grid price at or above a model's price (price units); the way an ask is rounded."""
    return Price(instrument.grid.ceil(math.ceil(value - _FLOAT_SLACK)))


def complement(instrument: Instrument, price: int) -> Price:
    """The price of the other outcome (`quoting.md` 1.3)."""
    return Price(instrument.payout - price)


def leg_side(side: Side, leg: Leg) -> Side:
    """What an order does to its own token: exposure sold through NO buys NO."""
    return side.other if leg is Leg.NO else side


def leg_price(instrument: Instrument, price: int, leg: Leg) -> Price:
    """An order's price in its own token's terms."""
    return complement(instrument, price) if leg is Leg.NO else Price(price)


def to_cash_down(instrument: Instrument, notional: int) -> Cash:
    """Price units x quantity units -> cash, rounded towards minus infinity."""
    exponent = instrument.price_decimals + instrument.qty_decimals - 6
    return Cash(notional // 10**exponent if exponent >= 0 else notional * 10**-exponent)


def to_cash_up(instrument: Instrument, notional: int) -> Cash:
    """Price units x quantity units -> cash, rounded towards plus infinity."""
    return Cash(-to_cash_down(instrument, -notional))


def cash_flow(instrument: Instrument, side: Side, leg: Leg, price: int, qty: int) -> Cash:
    """What a binary fill moves, before fees: negative when a token is bought. Rounded against us."""
    notional = leg_price(instrument, price, leg) * qty
    if leg_side(side, leg) is Side.BUY:
        return Cash(-to_cash_up(instrument, notional))
    return to_cash_down(instrument, notional)


def fee(instrument: Instrument, price: int, qty: int, liquidity: Liquidity) -> Cash:
    """The fee of one fill, rounded up to the rule's quantum (Polymarket: 10^-5 USD, `polymarket.md` 4.5)."""
    rule = instrument.fee
    rate = rule.taker_ppm if liquidity is Liquidity.TAKER else rule.maker_ppm
    return _rated(instrument, price, qty, rate, up=True)


def rebate(instrument: Instrument, price: int, qty: int) -> Cash:
    """What a maker's fill earns back, rounded down (`quoting.md` 2.8)."""
    rule = instrument.fee
    return _rated(instrument, price, qty, rule.taker_ppm * rule.rebate_ppm // PPM, up=False)


def _rated(instrument: Instrument, price: int, qty: int, rate_ppm: int, *, up: bool) -> Cash:
    rule = instrument.fee
    if rate_ppm == 0 or rule.curve is FeeCurve.NONE:
        return Cash(0)
    if rule.curve is FeeCurve.VARIANCE:
        numerator = rate_ppm * qty * price * (instrument.payout - price)
        denominator = PPM * 10**instrument.price_decimals
    else:
        numerator, denominator = rate_ppm * qty * price, PPM
    exponent = instrument.price_decimals + instrument.qty_decimals - 6
    if exponent >= 0:
        denominator *= 10**exponent
    else:
        numerator *= 10**-exponent
    denominator *= rule.quantum
    quanta = -(-numerator // denominator) if up else numerator // denominator
    charged = quanta * rule.quantum
    return Cash(max(charged, rule.minimum) if up else charged)


def usd(cash: int) -> float:
    """For people only."""
    return cash / CASH_PER_USD


def logit(p: float) -> float:
    """log-odds; exactly odd: `logit(1 - p) == -logit(p)` where `1 - p` is exact."""
    return math.log(p) - math.log(1.0 - p)


def expit(x: float) -> float:
    """The inverse of `logit`, exactly odd around 1/2."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return 1.0 - 1.0 / (1.0 + math.exp(x))
