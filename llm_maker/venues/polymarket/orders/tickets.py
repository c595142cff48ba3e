"""An order on its way out: what the core asked for, what will be signed, when it ends, how long it has waited.

Pure; the signature is made when it leaves. Rules of an order's life are those of `polymarket.md` 2.3.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.venues.polymarket.auth import Wallet
from llm_maker.venues.polymarket.orders.drafts import Draft, draft
from llm_maker.venues.polymarket.orders.ours import Ours
from llm_maker.venues.polymarket.orders.sign import Signer, order_json, order_signature, order_type_of

GTD_EARLY_S = 60
"""The venue expires an order so much before the time it was given."""
GTD_LEAST_S = 180
"""That time must be so far ahead."""
_TAKES = (TimeInForce.IOC, TimeInForce.FOK)


class Ticket(msgspec.Struct, frozen=True):
    """`expiration_s`: Unix time as it is sent, 0 for an order without an end; `since`: when it was asked for, ns."""

    command: PlaceOrder
    draft: Draft
    expiration_s: int
    since: int

    @property
    def order_id(self) -> str:
        return self.command.order_id

    @property
    def takes(self) -> bool:
        """It ends at once, and may have traded."""
        return self.command.time_in_force in _TAKES

    @property
    def too_late(self) -> bool:
        """It would expire too soon for the venue: it waited before it came to us."""
        return bool(self.expiration_s) and self.expiration_s - self.since // NS_PER_S < GTD_LEAST_S

    def body(self, signer: Signer, owner: str) -> bytes:
        """The exact bytes of the order as the venue takes it; `owner` is the API key."""
        return order_json(
            self.draft,
            order_signature(self.draft, signer),
            owner=owner,
            order_type=order_type_of(self.command.time_in_force),
            expiration_s=self.expiration_s,
            post_only=self.command.post_only,
        )


def ticket(command: PlaceOrder, instrument: Instrument, wallet: Wallet, now: int) -> Ticket:
    """Draft the order; an order that takes is never post-only, and one with an end has it far enough ahead."""
    expiration_s = 0
    if command.time_in_force is TimeInForce.GTD:
        assert command.expires_ns is not None, f"{command.order_id}: GTD without an end"
        expiration_s = command.expires_ns // NS_PER_S + GTD_EARLY_S
        assert expiration_s - command.decided_ns // NS_PER_S >= GTD_LEAST_S, f"{command.order_id}: GTD too short for the venue"
    made = Ticket(command, draft(command, instrument, wallet), expiration_s, now)
    assert not (made.takes and command.post_only), f"{command.order_id}: an order that takes is never post-only"
    return made


def ours_of(command: PlaceOrder, instrument: Instrument, drafted: Draft) -> Ours:
    """An order as it is known by either id; its quantity is what the venue is told."""
    return Ours(
        order_id=command.order_id,
        venue_id=drafted.venue_id,
        instrument=instrument,
        side=command.side,
        leg=command.leg,
        price=command.price,
        qty=drafted.qty,
        post_only=command.post_only,
    )
