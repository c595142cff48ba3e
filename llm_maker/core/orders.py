"""The order machine: one table `(status, what) -> status`, and the order it moves.

An order is in flight from the step that decides it, and counts as exposure until the venue has proved its end; a
timed-out order is UNKNOWN, neither accepted nor rejected. This file knows no book, no position and no clock; it sends
nothing, and it does not decide what a silence means: the engine does, and says so with `What.UNCERTAIN` and
`What.FOUND_ABSENT`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import Instrument, Leg, Side


class Status(StrEnum):
    """Where an order stands; a partial fill is a quantity, not a status."""

    PENDING_NEW = "pending_new"
    """Sent, or about to be; the venue has not answered."""
    OPEN = "open"
    """The venue has it."""
    PENDING_CANCEL = "pending_cancel"
    """A cancel is on its way; may still fill."""
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    """The venue never took it: by its own word, or by an absence that the engine holds for proved."""
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """The venue's words are missing or contradict one another; live until a look-up tells."""


class What(StrEnum):
    """What can happen to an order. `FOUND_*` is the venue's answer to a look-up or its line in an account snapshot."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FILLED_PART = "filled_part"
    FILLED_ALL = "filled_all"
    CANCEL_SENT = "cancel_sent"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CANCEL_REFUSED = "cancel_refused"
    """The venue would not cancel, for a reason that does not say that the order is gone."""
    CANCEL_GONE = "cancel_gone"
    """The venue says that no such order rests."""
    UNCERTAIN = "uncertain"
    FOUND_OPEN = "found_open"
    FOUND_FILLED = "found_filled"
    FOUND_CANCELED = "found_canceled"
    FOUND_EXPIRED = "found_expired"
    FOUND_ABSENT = "found_absent"


FINAL = (Status.FILLED, Status.CANCELED, Status.REJECTED, Status.EXPIRED)

TABLE: dict[tuple[Status, What], Status] = {
    # PENDING_NEW: no answer yet.
    (Status.PENDING_NEW, What.ACCEPTED): Status.OPEN,
    (Status.PENDING_NEW, What.REJECTED): Status.REJECTED,
    # Real world: the fill overtakes the acknowledgement, and is itself the proof of acceptance.
    (Status.PENDING_NEW, What.FILLED_PART): Status.OPEN,
    (Status.PENDING_NEW, What.FILLED_ALL): Status.FILLED,
    (Status.PENDING_NEW, What.CANCEL_SENT): Status.PENDING_CANCEL,
    # Real world: an IOC's rest, or a venue that clears its book at the start of a game, in the very first message.
    (Status.PENDING_NEW, What.CANCELED): Status.CANCELED,
    (Status.PENDING_NEW, What.EXPIRED): Status.EXPIRED,
    (Status.PENDING_NEW, What.UNCERTAIN): Status.UNKNOWN,
    (Status.PENDING_NEW, What.FOUND_OPEN): Status.OPEN,
    (Status.PENDING_NEW, What.FOUND_FILLED): Status.FILLED,
    (Status.PENDING_NEW, What.FOUND_CANCELED): Status.CANCELED,
    (Status.PENDING_NEW, What.FOUND_EXPIRED): Status.EXPIRED,
    (Status.PENDING_NEW, What.FOUND_ABSENT): Status.REJECTED,
    # OPEN: the venue has it.
    # Real world: the reply and the user channel both report the acceptance, or a fill came first.
    (Status.OPEN, What.ACCEPTED): Status.OPEN,
    # Real world: "duplicate" for a repeated request, or a refusal after a fill: two words that contradict one another.
    (Status.OPEN, What.REJECTED): Status.UNKNOWN,
    (Status.OPEN, What.FILLED_PART): Status.OPEN,
    (Status.OPEN, What.FILLED_ALL): Status.FILLED,
    (Status.OPEN, What.CANCEL_SENT): Status.PENDING_CANCEL,
    # Real world: the venue cancels by itself (balance moved, market closed).
    (Status.OPEN, What.CANCELED): Status.CANCELED,
    (Status.OPEN, What.EXPIRED): Status.EXPIRED,
    # Real world: the answer to an earlier cancel, said twice or late.
    (Status.OPEN, What.CANCEL_REFUSED): Status.OPEN,
    (Status.OPEN, What.CANCEL_GONE): Status.UNKNOWN,
    (Status.OPEN, What.UNCERTAIN): Status.UNKNOWN,
    (Status.OPEN, What.FOUND_OPEN): Status.OPEN,
    (Status.OPEN, What.FOUND_FILLED): Status.FILLED,
    (Status.OPEN, What.FOUND_CANCELED): Status.CANCELED,
    (Status.OPEN, What.FOUND_EXPIRED): Status.EXPIRED,
    # It did exist, so its absence does not tell how it ended.
    (Status.OPEN, What.FOUND_ABSENT): Status.UNKNOWN,
    # PENDING_CANCEL: ours until the venue confirms.
    # Real world: the acceptance arrives after the cancel was sent.
    (Status.PENDING_CANCEL, What.ACCEPTED): Status.PENDING_CANCEL,
    # Real world: a cancel sent before the answer, and the answer was no.
    (Status.PENDING_CANCEL, What.REJECTED): Status.REJECTED,
    # Real world: fills go on until the cancel is confirmed.
    (Status.PENDING_CANCEL, What.FILLED_PART): Status.PENDING_CANCEL,
    (Status.PENDING_CANCEL, What.FILLED_ALL): Status.FILLED,
    (Status.PENDING_CANCEL, What.CANCEL_SENT): Status.PENDING_CANCEL,
    (Status.PENDING_CANCEL, What.CANCELED): Status.CANCELED,
    (Status.PENDING_CANCEL, What.EXPIRED): Status.EXPIRED,
    # Real world: an order in a taker delay cannot be canceled, or the request was over the rate limit.
    (Status.PENDING_CANCEL, What.CANCEL_REFUSED): Status.OPEN,
    # Not a proof of its end: filled, canceled, or not yet arrived.
    (Status.PENDING_CANCEL, What.CANCEL_GONE): Status.UNKNOWN,
    (Status.PENDING_CANCEL, What.UNCERTAIN): Status.UNKNOWN,
    # Real world: the look-up was answered before the cancel arrived.
    (Status.PENDING_CANCEL, What.FOUND_OPEN): Status.PENDING_CANCEL,
    (Status.PENDING_CANCEL, What.FOUND_FILLED): Status.FILLED,
    (Status.PENDING_CANCEL, What.FOUND_CANCELED): Status.CANCELED,
    (Status.PENDING_CANCEL, What.FOUND_EXPIRED): Status.EXPIRED,
    # Real world: the order itself may still be on its way behind the look-up.
    (Status.PENDING_CANCEL, What.FOUND_ABSENT): Status.UNKNOWN,
    # UNKNOWN: only a proof of the end, or the venue's word that it rests now, leads out.
    # Real world: a late acceptance may be older than the doubt (a cancel that timed out): it does not say "rests now".
    (Status.UNKNOWN, What.ACCEPTED): Status.UNKNOWN,
    (Status.UNKNOWN, What.REJECTED): Status.REJECTED,
    # A fill proves that it existed, not that the rest still rests.
    (Status.UNKNOWN, What.FILLED_PART): Status.UNKNOWN,
    (Status.UNKNOWN, What.FILLED_ALL): Status.FILLED,
    # A cancel may be tried on it all the same; its status stays a question.
    (Status.UNKNOWN, What.CANCEL_SENT): Status.UNKNOWN,
    (Status.UNKNOWN, What.CANCELED): Status.CANCELED,
    (Status.UNKNOWN, What.EXPIRED): Status.EXPIRED,
    (Status.UNKNOWN, What.CANCEL_REFUSED): Status.UNKNOWN,
    (Status.UNKNOWN, What.CANCEL_GONE): Status.UNKNOWN,
    (Status.UNKNOWN, What.UNCERTAIN): Status.UNKNOWN,
    (Status.UNKNOWN, What.FOUND_OPEN): Status.OPEN,
    (Status.UNKNOWN, What.FOUND_FILLED): Status.FILLED,
    (Status.UNKNOWN, What.FOUND_CANCELED): Status.CANCELED,
    (Status.UNKNOWN, What.FOUND_EXPIRED): Status.EXPIRED,
    (Status.UNKNOWN, What.FOUND_ABSENT): Status.REJECTED,
    # FILLED: nothing can rest any more; every later word is late.
    (Status.FILLED, What.ACCEPTED): Status.FILLED,
    (Status.FILLED, What.REJECTED): Status.FILLED,
    # Real world: the order's own update overtakes its trades.
    (Status.FILLED, What.FILLED_PART): Status.FILLED,
    # Real world: overfill by dust.
    (Status.FILLED, What.FILLED_ALL): Status.FILLED,
    (Status.FILLED, What.CANCELED): Status.FILLED,
    (Status.FILLED, What.EXPIRED): Status.FILLED,
    (Status.FILLED, What.CANCEL_REFUSED): Status.FILLED,
    (Status.FILLED, What.CANCEL_GONE): Status.FILLED,
    (Status.FILLED, What.UNCERTAIN): Status.FILLED,
    (Status.FILLED, What.FOUND_OPEN): Status.FILLED,
    (Status.FILLED, What.FOUND_FILLED): Status.FILLED,
    (Status.FILLED, What.FOUND_CANCELED): Status.FILLED,
    (Status.FILLED, What.FOUND_EXPIRED): Status.FILLED,
    (Status.FILLED, What.FOUND_ABSENT): Status.FILLED,
    # CANCELED: ended by the venue's word.
    (Status.CANCELED, What.ACCEPTED): Status.CANCELED,
    (Status.CANCELED, What.REJECTED): Status.CANCELED,
    # Real world: the fill comes after the cancel's confirmation (cancel replies carry no matched size).
    (Status.CANCELED, What.FILLED_PART): Status.CANCELED,
    (Status.CANCELED, What.FILLED_ALL): Status.FILLED,
    (Status.CANCELED, What.CANCELED): Status.CANCELED,
    (Status.CANCELED, What.EXPIRED): Status.CANCELED,
    (Status.CANCELED, What.CANCEL_REFUSED): Status.CANCELED,
    (Status.CANCELED, What.CANCEL_GONE): Status.CANCELED,
    (Status.CANCELED, What.UNCERTAIN): Status.CANCELED,
    # Resurrection: mostly an old answer, but a venue that says it rests must be asked again.
    (Status.CANCELED, What.FOUND_OPEN): Status.UNKNOWN,
    (Status.CANCELED, What.FOUND_FILLED): Status.FILLED,
    (Status.CANCELED, What.FOUND_CANCELED): Status.CANCELED,
    (Status.CANCELED, What.FOUND_EXPIRED): Status.CANCELED,
    (Status.CANCELED, What.FOUND_ABSENT): Status.CANCELED,
    # EXPIRED: as CANCELED.
    (Status.EXPIRED, What.ACCEPTED): Status.EXPIRED,
    (Status.EXPIRED, What.REJECTED): Status.EXPIRED,
    (Status.EXPIRED, What.FILLED_PART): Status.EXPIRED,
    (Status.EXPIRED, What.FILLED_ALL): Status.FILLED,
    (Status.EXPIRED, What.CANCELED): Status.EXPIRED,
    (Status.EXPIRED, What.EXPIRED): Status.EXPIRED,
    (Status.EXPIRED, What.CANCEL_REFUSED): Status.EXPIRED,
    (Status.EXPIRED, What.CANCEL_GONE): Status.EXPIRED,
    (Status.EXPIRED, What.UNCERTAIN): Status.EXPIRED,
    # Resurrection: see CANCELED.
    (Status.EXPIRED, What.FOUND_OPEN): Status.UNKNOWN,
    (Status.EXPIRED, What.FOUND_FILLED): Status.FILLED,
    (Status.EXPIRED, What.FOUND_CANCELED): Status.EXPIRED,
    (Status.EXPIRED, What.FOUND_EXPIRED): Status.EXPIRED,
    (Status.EXPIRED, What.FOUND_ABSENT): Status.EXPIRED,
    # REJECTED: the venue never took it; any sign that it did brings it back, because its rest may be live.
    # Resurrection: we held it for absent and the acceptance came after all.
    (Status.REJECTED, What.ACCEPTED): Status.UNKNOWN,
    (Status.REJECTED, What.REJECTED): Status.REJECTED,
    # Resurrection: it traded, so it exists, and its rest may rest.
    (Status.REJECTED, What.FILLED_PART): Status.UNKNOWN,
    (Status.REJECTED, What.FILLED_ALL): Status.FILLED,
    (Status.REJECTED, What.CANCELED): Status.CANCELED,
    (Status.REJECTED, What.EXPIRED): Status.EXPIRED,
    (Status.REJECTED, What.CANCEL_REFUSED): Status.REJECTED,
    (Status.REJECTED, What.CANCEL_GONE): Status.REJECTED,
    (Status.REJECTED, What.UNCERTAIN): Status.REJECTED,
    # Resurrection: it arrived after the look-up that did not find it.
    (Status.REJECTED, What.FOUND_OPEN): Status.OPEN,
    (Status.REJECTED, What.FOUND_FILLED): Status.FILLED,
    (Status.REJECTED, What.FOUND_CANCELED): Status.CANCELED,
    (Status.REJECTED, What.FOUND_EXPIRED): Status.EXPIRED,
    (Status.REJECTED, What.FOUND_ABSENT): Status.REJECTED,
}
"""Every pair that the world can send. A pair that is not here is our own bug: `ImpossibleTransition`."""


class ImpossibleTransition(AssertionError):
    """Our own fault: an order was told something that cannot happen to it."""


class Order(msgspec.Struct):
    """One of our orders: what was asked (as in `PlaceOrder`) and what is known of it. Quantity units, times in ns."""

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
    placed_ns: int
    changed_ns: int
    """When the status last changed."""
    status: Status = Status.PENDING_NEW
    decision_id: str = ""
    expires_ns: int | None = None
    filled: int = 0
    """Sum of the fills told to `fill`; never falls, and may pass `qty` by dust."""
    sent_cancel: bool = False
    """A cancel was sent and not refused; False again once the venue says that the order rests."""
    cancel_ns: int = 0
    """When the last cancel was sent; 0: never, or the venue has found it resting since."""
    lookups: int = 0
    """Look-ups asked since the last doubt began; counted by the engine, set to 0 here when a new doubt begins."""
    absents: int = 0
    """Late enough look-ups of the present doubt that were answered "absent"."""
    absent_of: int = 0
    """The number of the look-up that was last answered so."""
    absent_ns: int = 0
    unlisted: int = 0
    """Account lists, asked after such answers, that lack it too."""
    lookup_ns: int = 0
    venue_id: str = ""

    @property
    def remaining(self) -> int:
        """What may still fill; never negative. Of an order that is not final, this is exposure."""
        return max(0, self.qty - self.filled)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_live(self) -> bool:
        """Not proved ended: counts as exposure, UNKNOWN included."""
        return self.status not in FINAL

    @property
    def may_cancel(self) -> bool:
        """No cancel is on its way; in doubt one is tried, then the look-ups tell."""
        return not self.sent_cancel and not (self.status is Status.UNKNOWN and self.cancel_ns)


def new(command: PlaceOrder, now: int) -> Order:
    """The order that a command makes, in flight from this moment."""
    assert command.qty > 0, f"order {command.order_id} of quantity {command.qty}"
    return Order(
        order_id=command.order_id,
        instrument=command.instrument,
        side=command.side,
        leg=command.leg,
        price=command.price,
        qty=command.qty,
        time_in_force=command.time_in_force,
        post_only=command.post_only,
        reduce_only=command.reduce_only,
        reason=command.reason,
        decision_id=command.decision_id,
        expires_ns=command.expires_ns,
        placed_ns=now,
        changed_ns=now,
    )


def command(order: Order) -> PlaceOrder:
    """The command that made the order, again: what the venue's id of it was derived from."""
    return PlaceOrder(
        order_id=order.order_id,
        instrument=order.instrument,
        side=order.side,
        leg=order.leg,
        price=order.price,
        qty=order.qty,
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        reason=order.reason,
        expires_ns=order.expires_ns,
        decision_id=order.decision_id,
        decided_ns=order.placed_ns,
    )


def step(order: Order, what: What, now: int) -> bool:
    """Move the order by the table; True if its status changed (a final order may come back to life: look at `is_live`).

    Raises `ImpossibleTransition` for a pair that only a bug of ours can make. Fills go through `fill`.
    """
    after = TABLE.get((order.status, what))
    if after is None:
        raise ImpossibleTransition(f"order {order.order_id}: {what.value} while {order.status.value}")
    if what is What.CANCEL_SENT:
        order.sent_cancel, order.cancel_ns = True, now
    elif what is What.CANCEL_REFUSED or after is Status.OPEN:
        order.sent_cancel = False
    if what is What.FOUND_OPEN and after is Status.OPEN:
        order.cancel_ns = 0
    if after is order.status:
        return False
    if after is Status.UNKNOWN:
        order.lookups = order.lookup_ns = order.absents = order.absent_of = order.absent_ns = order.unlisted = 0
    order.status, order.changed_ns = after, now
    return True


def fill(order: Order, qty: int, now: int, dust: int = 0) -> int:
    """Add one fill, which is a fact whatever the order's status, and move the status.

    An order is full when `filled >= qty`. Returns by how much the order is now overfilled in all, 0 while that is below
    `dust` (`dust(instrument)`; venues overfill by less than 0.01 share): more is for the engine to alarm about.
    """
    assert qty > 0, f"order {order.order_id}: fill of {qty}"
    order.filled += qty
    step(order, What.FILLED_ALL if order.filled >= order.qty else What.FILLED_PART, now)
    excess = max(0, order.filled - order.qty)
    return excess if excess >= dust else 0


def dust(instrument: Instrument) -> int:
    """0.01 share in quantity units: overfills below it are the venue's rounding (`polymarket.md` 6)."""
    scale: int = 10**instrument.qty_decimals
    return scale // 100
