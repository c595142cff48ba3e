"""What one order of ours got in one trade: prices, quantities, fees, and the ids of the fills (`polymarket.md` 3.4, 4.4, 4.5).

Side and leg come from our own record of the order, never from the trade. It refuses to know statuses, and what was told before.
"""

from __future__ import annotations

from llm_maker.core.events import OrderFilled
from llm_maker.core.values import Instrument, Leg, Liquidity, complement, fee
from llm_maker.venues.polymarket.account.messages import MakerEntry, TradeNote
from llm_maker.venues.polymarket.numbers import QTY_DECIMALS, WireError, units
from llm_maker.venues.polymarket.orders.ours import Ours

Parts = dict[int, int]
"""YES price -> quantity, prices ascending."""


def token_of(ours: Ours) -> str:
    return ours.instrument.token_ids[ours.leg is Leg.NO]


def shares(text: str, field: str) -> int:
    """A size in quantity units; more than six decimals are refused."""
    return units(text, QTY_DECIMALS, field)


def as_maker(ours: Ours, entries: list[MakerEntry]) -> Parts:
    """Our own entries of the trade; the top level, which is the taker's, tells nothing of us."""
    for entry in entries:
        _check_token(ours, entry.asset_id)
    return _parts(ours.instrument, entries)


def as_taker(ours: Ours, note: TradeNote, entries: list[MakerEntry]) -> tuple[Parts, bool]:
    """Each maker's price, because improvement is the taker's: that of the other outcome is one of ours at 1 - q.

    Where the makers cannot be read or do not add up to the size, the top level's price for all of it, and False.
    """
    _check_token(ours, note.asset_id)
    size = shares(note.size, "size")
    try:
        parts = _parts(ours.instrument, entries)
    except WireError:
        parts = {}
    if sum(parts.values()) == size:
        return parts, True
    return {_yes_price(ours.instrument, note.asset_id, note.price): size}, False


def fills_of(key: str, ours: Ours, liquidity: Liquidity, parts: Parts) -> list[OrderFilled]:
    """One fill a price. Its id is the key alone where there is one price, and never depends on the order of entries."""
    if not parts or 0 in parts.values():
        raise WireError("size", "a trade of nothing")
    return [
        OrderFilled(
            order_id=ours.order_id,
            fill_id=key if len(parts) == 1 else f"{key}:{price}",
            instrument=ours.instrument.id,
            side=ours.side,
            leg=ours.leg,
            price=price,
            qty=qty,
            fee=fee(ours.instrument, price, qty, liquidity),
            liquidity=liquidity,
        )
        for price, qty in parts.items()
    ]


def _check_token(ours: Ours, token: str) -> None:
    """The order's digest holds its token: a trade of it in another one is nothing that can happen."""
    if token != token_of(ours):
        raise WireError("asset_id", "not the token of our order", token)


def _parts(instrument: Instrument, entries: list[MakerEntry]) -> Parts:
    parts: Parts = {}
    for entry in entries:
        price = _yes_price(instrument, entry.asset_id, entry.price)
        parts[price] = parts.get(price, 0) + shares(entry.matched_amount, "matched_amount")
    return dict(sorted(parts.items()))


def _yes_price(instrument: Instrument, token: str, text: str) -> int:
    if token not in instrument.token_ids:
        raise WireError("asset_id", "not a token of our order's market", token)
    price = units(text, instrument.price_decimals, "price")
    if not 0 < price < instrument.payout:
        raise WireError("price", "out of range", text)
    return complement(instrument, price) if token == instrument.token_ids[1] else price
