"""What we hold of one instrument and what it cost. Exact integers; provisional until settled.

A binary position is two holdings of one signed exposure: buying NO at q is selling YES at payout - q. So `cost`,
`realised` and the prices here are in YES terms, in price units x quantity units, which never round. Cash does round:
against us (binary, `cash_rounding`) or carried (linear, `cash_remainder`). With `scale` of those units per cash unit:

    binary   scale (sum of cash + fees) + cash_rounding  + yes mark + no (payout - mark) == realised + unrealised(mark)
    linear   scale (sum of cash + fees) + cash_remainder + unrealised(mark)              == realised + unrealised(mark)

Adopted shares are a transfer: they enter the left side as a gift of their worth at the price of adoption.
This file knows no orders, no book, no strategy; what resting orders reserve is the engine's business.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.events import OrderFilled
from llm_maker.core.values import (
    Cash,
    Instrument,
    Leg,
    Liquidity,
    Side,
    cash_flow,
    leg_price,
    leg_side,
    to_cash_down,
    to_cash_up,
)

SEEN_LIMIT = 1000
"""Fill ids remembered per position: far more than a venue repeats after a reconnect."""
EARLY_LIMIT = 100
"""Settlements that came before their fill."""


class Held(msgspec.Struct):
    """One leg. `settled` may be sold; `pending` is what of the unsettled purchases is still held.

    Sales reduce `settled` first: `pending == min(unsettled, max(0, all))`, the rest is `settled`. It goes negative only
    when a purchase failed after its shares were sold or merged, and for a short linear position.
    """

    settled: int = 0
    pending: int = 0
    foreign: int = 0
    """Seen at the venue, not made by our fills; never ours to sell until adopted."""
    merging: int = 0
    """Part of `settled` that a merge under way has claimed."""
    unsettled: int = 0
    """Sum of purchases not settled yet, sold or not."""

    def move(self, qty: int, unsettled: int = 0) -> None:
        total = self.settled + self.pending + qty
        self.unsettled += unsettled
        self.pending = min(self.unsettled, max(0, total))
        self.settled = total - self.pending


class PendingFill(msgspec.Struct, frozen=True):
    """A fill that may still fail. `cash` is the signed change it made, fee included."""

    fill_id: str
    side: Side
    leg: Leg
    price: int
    qty: int
    cash: int
    fee: int
    liquidity: Liquidity
    ts: int


class Trip(msgspec.Struct):
    """Sums of the round trip under way: quantity in, notional in and out (YES prices), fees."""

    qty: int = 0
    paid: int = 0
    received: int = 0
    fees: int = 0


class RoundTrip(msgspec.Struct, frozen=True):
    """From flat to flat, or to the other side. Prices are mean YES prices; `side` BUY is long YES, SELL is long NO."""

    side: Side
    qty: int
    entry_price: float
    exit_price: float
    realised: int
    """Cash units, before fees, rounded down."""
    fees: int
    entry_ns: int
    exit_ns: int
    hold_ns: int
    entry_reason: str
    entry_decision: str


class FillResult(msgspec.Struct, frozen=True):
    """What a fill did. `cash`: signed change, fee included. `realised`: price x quantity units, before fees."""

    duplicate: bool = False
    """Told before: nothing was changed."""
    void: bool = False
    """New, but its failure had been told already: the order did trade, position and cash do not change."""
    cash: int = 0
    realised: int = 0
    opened: int = 0
    """Quantity that grew the position."""
    closed: int = 0
    flipped: bool = False
    round_trip: RoundTrip | None = None


class Position(msgspec.Struct):
    """One instrument of one account. A linear instrument uses `yes` alone, which goes negative when short."""

    yes: Held = msgspec.field(default_factory=Held)
    no: Held = msgspec.field(default_factory=Held)
    cost: int = 0
    """Of the open net position at its average price: signed like `net`, YES terms, price x quantity units."""
    realised: int = 0
    """Before fees, price x quantity units."""
    fees: int = 0
    """Cash units."""
    cash_rounding: int = 0
    """What rounding cash against us has cost, price x quantity units; never negative."""
    cash_remainder: int = 0
    """Realised but below one cash unit, carried to the next fill; linear only."""
    volume: int = 0
    """Quantity traded."""
    entry_ns: int = 0
    """Of the last entry from flat (or flip); the engine may overwrite reason and decision right after that fill."""
    entry_reason: str = ""
    entry_decision: str = ""
    trip: Trip = msgspec.field(default_factory=Trip)
    last_trip: RoundTrip | None = None
    """The last one finished, by whatever finished it: also by a redemption or a failed settlement."""
    pending: dict[str, PendingFill] = msgspec.field(default_factory=dict)
    seen: dict[str, int] = msgspec.field(default_factory=dict)
    """Fill id -> when told, oldest first."""
    early: dict[str, bool] = msgspec.field(default_factory=dict)
    """Fill id -> settled (True) or failed, told before the fill itself."""

    @property
    def net(self) -> int:
        """Own exposure in YES, provisional included, foreign not; minus is NO (or short)."""
        yes, no = self.yes, self.no
        return yes.settled + yes.pending - no.settled - no.pending

    @property
    def foreign_net(self) -> int:
        return self.yes.foreign - self.no.foreign

    @property
    def avg_price(self) -> float | None:
        """Average YES price of the open net position, price units; None when flat."""
        net = self.net
        return self.cost / net if net else None

    def legs(self, instrument: Instrument) -> tuple[Leg, ...]:
        """The legs this instrument has."""
        return (Leg.YES, Leg.NO) if instrument.is_binary else (Leg.NONE,)

    def held(self, leg: Leg) -> Held:
        return self.no if leg is Leg.NO else self.yes

    def free_to_sell(self, leg: Leg) -> int:
        """Own settled shares that no merge has claimed; what resting sells reserve is for the caller to subtract."""
        held = self.held(leg)
        return max(0, held.settled - held.merging)

    def sets(self) -> int:
        """Complete sets that may be merged now."""
        return min(self.free_to_sell(Leg.YES), self.free_to_sell(Leg.NO))

    def apply_fill(self, instrument: Instrument, event: OrderFilled, now: int, reason: str = "", decision: str = "") -> FillResult:
        """Take one fill, once. `reason` and `decision` are the order's; kept if the fill enters a position."""
        assert event.qty > 0, f"fill {event.fill_id} of {event.qty}"
        assert (event.leg is not Leg.NONE) is instrument.is_binary, f"fill {event.fill_id}: leg {event.leg.value}"
        if event.fill_id in self.seen:
            return FillResult(duplicate=True)
        self._remember(event.fill_id, now)
        fate = self.early.pop(event.fill_id, None)
        if fate is False:
            return FillResult(void=True)
        side, leg, price, qty = event.side, event.leg, event.price, event.qty
        gained, closed, trip = self._book(instrument, side, price, qty, fee=event.fee, now=now, why=(reason, decision))
        cash = self._pay(instrument, side, leg, price, qty, gained=gained) - event.fee
        settled = event.settled or fate is True
        bought = leg_side(side, leg) is Side.BUY
        self.held(leg).move(qty if bought else -qty, qty if bought and not settled else 0)
        self.volume += qty
        if not settled:
            self.pending[event.fill_id] = PendingFill(event.fill_id, side, leg, price, qty, cash, event.fee, event.liquidity, now)
        opened = qty - closed
        return FillResult(
            cash=cash,
            realised=gained,
            opened=opened,
            closed=closed,
            flipped=bool(closed and opened),
            round_trip=trip,
        )

    def settle(self, fill_id: str) -> bool:
        """The fill is final; True if it was waiting. May come before the fill itself (delivery is not ordered)."""
        fill = self.pending.pop(fill_id, None)
        if fill is None:
            self._remember_early(fill_id, settled=True)
            return False
        if leg_side(fill.side, fill.leg) is Side.BUY:
            self.held(fill.leg).move(0, -fill.qty)
        return True

    def fail(self, instrument: Instrument, fill_id: str, now: int) -> int:
        """Undo a fill that did not settle; returns the signed cash that comes back, its fee included.

        Binary cash and shares go back exactly; `realised` moves as by the reverse trade at the same price, so that the
        identity holds whatever was traded in between. Of a fill that is final or undone already nothing changes.
        """
        fill = self.pending.pop(fill_id, None)
        if fill is None:
            self._remember_early(fill_id, settled=False)
            return 0
        gained, _, _ = self._book(
            instrument, fill.side.other, fill.price, fill.qty, fee=-fill.fee, now=now, why=("settlement failed", "")
        )
        if instrument.is_binary:
            back = -fill.cash
            flow = fill.cash + fill.fee
            self.cash_rounding -= _rounded_off(instrument, fill.side, fill.leg, fill.price, fill.qty, cash=flow)
        else:
            back = self._pay(instrument, fill.side.other, fill.leg, fill.price, fill.qty, gained=gained) + fill.fee
        bought = leg_side(fill.side, fill.leg) is Side.BUY
        self.held(fill.leg).move(-fill.qty if bought else fill.qty, -fill.qty if bought else 0)
        self.volume -= fill.qty
        return back

    def merge_started(self, qty: int) -> None:
        """Reserve complete sets for a merge that is being sent."""
        assert 0 < qty <= self.sets(), f"merge of {qty} with {self.sets()} sets"
        self.yes.merging += qty
        self.no.merging += qty

    def merged(self, instrument: Instrument, qty: int) -> int:
        """Sets became cash, which is returned. Nothing is realised: a set's worth is the payout at every mark."""
        self.merge_failed(qty)
        self.yes.move(-qty)
        self.no.move(-qty)
        notional = instrument.payout * qty
        cash = to_cash_down(instrument, notional)
        self.cash_rounding += notional - _notional(instrument, cash)
        return cash

    def split(self, instrument: Instrument, qty: int) -> int:
        """Cash became sets: the signed change of cash. Nothing is realised."""
        self.yes.move(qty)
        self.no.move(qty)
        notional = instrument.payout * qty
        cash = -to_cash_up(instrument, notional)
        self.cash_rounding += -notional - _notional(instrument, cash)
        return cash

    def worth_of(self, instrument: Instrument, qty: int, price: int) -> int:
        """Cash of `qty` shares at a token's own price, rounded down."""
        return to_cash_down(instrument, qty * price)

    def merge_failed(self, qty: int) -> None:
        """Give the reserved shares free."""
        self.yes.merging = max(0, self.yes.merging - qty)
        self.no.merging = max(0, self.no.merging - qty)

    def redeem(self, instrument: Instrument, leg: Leg, qty: int, payout_price: int, now: int = 0) -> int:
        """Burn `qty` shares of a resolved leg for cash, which is returned; a sale at the price of the outcome.

        `payout_price` is what one YES share pays (as in `MarketResolved`), whichever leg is burned; price units. A linear
        position is closed at the price of its end; `qty` is signed there, minus for a short one.
        """
        assert qty > 0 or not instrument.is_binary, "shares that are there are redeemed"
        side = leg_side(Side.SELL, leg) if qty > 0 else Side.BUY
        if not instrument.is_binary:
            gained, _, _ = self._book(instrument, side, payout_price, abs(qty), fee=0, now=now, why=("settled", ""))
            self.yes.move(-qty)
            return self._pay(instrument, side, leg, payout_price, abs(qty), gained=gained)
        gained, _, _ = self._book(instrument, side, payout_price, qty, fee=0, now=now, why=("redemption", ""))
        cash = self._pay(instrument, side, leg, payout_price, qty, gained=gained)
        self.held(leg).move(-qty)
        return cash

    def set_foreign(self, leg: Leg, qty: int) -> None:
        """What the venue holds for us beyond what our fills made."""
        self.held(leg).foreign = qty

    def adopt(self, leg: Leg, at_price: int, now: int = 0) -> int:
        """A person makes the foreign holding ours, as if bought at this YES price; returns its quantity.

        No cash moves: the worth of the shares at that price is a transfer, for the caller to book.
        """
        held = self.held(leg)
        qty = held.foreign
        if qty == 0:
            return 0
        side = leg_side(Side.BUY if qty > 0 else Side.SELL, leg)
        self._book(None, side, at_price, abs(qty), fee=0, now=now, why=("adopted", ""))
        held.move(qty)
        held.foreign = 0
        return qty

    def unrealised(self, mark: float) -> float:
        """Gain of the open net position at a YES price, price x quantity units."""
        return self.net * mark - self.cost

    def value(self, instrument: Instrument, mark_price: int) -> Cash:
        """Worth of all own holdings at a YES price, rounded down; of a linear position the gain not yet paid."""
        if not instrument.is_binary:
            return to_cash_down(instrument, self.net * mark_price - self.cost + self.cash_remainder)
        no = self.no.settled + self.no.pending
        return to_cash_down(instrument, self.net * mark_price + no * instrument.payout)

    def _book(
        self,
        instrument: Instrument | None,
        side: Side,
        price: int,
        qty: int,
        *,
        fee: int,
        now: int,
        why: tuple[str, str],
    ) -> tuple[int, int, RoundTrip | None]:
        """Book exposure at average cost, before the shares move: (realised, closed, round trip that ended).

        The released cost is floored in YES terms, which a mirrored position floors to the same realised sum; the last
        share takes what is left, so nothing is lost. `instrument` None: an adoption, of which no round trip is told.
        """
        net = self.net
        closed = min(qty, abs(net)) if net * side < 0 else 0
        opened = qty - closed
        released = self.cost * closed // abs(net) if closed else 0
        gained = -side * price * closed - released
        self.cost += side * price * opened - released
        self.realised += gained
        self.fees += fee
        closing_fee = fee * closed // qty
        ended = None
        if closed:
            self.trip.received += price * closed
            self.trip.fees += closing_fee
            if closed == abs(net):
                ended = self._end_trip(instrument, side.other, now)
        if opened:
            if closed == abs(net):
                self.entry_ns, self.entry_reason, self.entry_decision = now, *why
            self.trip.qty += opened
            self.trip.paid += price * opened
            self.trip.fees += fee - closing_fee
        return gained, closed, ended

    def _end_trip(self, instrument: Instrument | None, side: Side, now: int) -> RoundTrip | None:
        trip, self.trip = self.trip, Trip()
        if instrument is None:
            return None
        self.last_trip = RoundTrip(
            side=side,
            qty=trip.qty,
            entry_price=trip.paid / trip.qty,
            exit_price=trip.received / trip.qty,
            realised=to_cash_down(instrument, side * (trip.received - trip.paid)),
            fees=trip.fees,
            entry_ns=self.entry_ns,
            exit_ns=now,
            hold_ns=now - self.entry_ns,
            entry_reason=self.entry_reason,
            entry_decision=self.entry_decision,
        )
        return self.last_trip

    def _pay(self, instrument: Instrument, side: Side, leg: Leg, price: int, qty: int, *, gained: int) -> int:
        """The cash of a trade before its fee, and what its rounding leaves behind."""
        if instrument.is_binary:
            cash = cash_flow(instrument, side, leg, price, qty)
            self.cash_rounding += _rounded_off(instrument, side, leg, price, qty, cash=cash)
            return cash
        total = self.cash_remainder + gained
        cash = to_cash_down(instrument, total)
        self.cash_remainder = total - _notional(instrument, cash)
        return cash

    def _remember(self, fill_id: str, now: int) -> None:
        self.seen[fill_id] = now
        if len(self.seen) > SEEN_LIMIT:
            # A pending fill is never forgotten: its repetition would be booked twice.
            oldest = next((i for i in self.seen if i not in self.pending), fill_id)
            if oldest != fill_id:
                del self.seen[oldest]

    def _remember_early(self, fill_id: str, *, settled: bool) -> None:
        if fill_id in self.seen:
            return
        self.early[fill_id] = settled
        if len(self.early) > EARLY_LIMIT:
            del self.early[next(iter(self.early))]


def _notional(instrument: Instrument, cash: int) -> int:
    """Cash units -> price x quantity units; exact for what `to_cash_down` returned."""
    exponent = instrument.price_decimals + instrument.qty_decimals - 6
    if exponent < 0:
        return cash // int(10**-exponent)
    return cash * int(10**exponent)


def _rounded_off(instrument: Instrument, side: Side, leg: Leg, price: int, qty: int, *, cash: int) -> int:
    """Price x quantity units that rounding took from us in a fill's cash (before its fee)."""
    exact = -leg_side(side, leg) * leg_price(instrument, price, leg) * qty
    return exact - _notional(instrument, cash)
