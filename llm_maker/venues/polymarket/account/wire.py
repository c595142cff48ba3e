"""What Polymarket tells of our own orders and fills, from the user channel or from REST, becomes the core's events.

Pure (`polymarket.md` 2.3, 3.4, 4.1): no socket, no clock, no position. It refuses to know whether an order of ours still lives, and
what anyone should do about it.

A trade is told again with every status, in any order, twice, by both ways; a fill's id is that of (trade, order), so that the core
books it once. What cannot be read is counted under a name and gives no event; `parse` never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from llm_maker.core.events import (
    Event,
    FillFailed,
    FillSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    RestingOrder,
)
from llm_maker.core.values import Leg, Liquidity, Side, leg_price, leg_side
from llm_maker.venues.polymarket.account.fills import as_maker, as_taker, fills_of, shares, token_of
from llm_maker.venues.polymarket.account.messages import (
    Envelope,
    MakerEntry,
    OrderEnd,
    OrderNote,
    TradeNote,
    TradeStatus,
    order_end,
    trade_status,
)
from llm_maker.venues.polymarket.numbers import MAX_NAME, PRICE_DECIMALS, WireError, units
from llm_maker.venues.polymarket.orders.ours import Ours, OwnOrders

LIMIT = 20_000
"""Fills, and strangers' orders and trades, that are remembered."""
_MAX_NAMES = 64
_MAX_SHOWN = 4_096
"""Bytes of a row in which our key is looked for before some of it is shown."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
Row = bytes | msgspec.Raw
_V = TypeVar("_V")


class _Open(msgspec.Struct):
    """A fill whose settlement is not known: how far it is, what was told of it, when it matched (Unix seconds, 0 unknown)."""

    status: TradeStatus
    fills: list[OrderFilled]
    matched_s: int


class AccountWire:
    """The one reader of an account's words; the socket and REST share it, so that neither repeats the other.

    Counters: `frames`, `pongs`; `malformed` and `unknown` by name, at most 64 names each, the rest under "other", `last_fault` the
    newest; `unrecorded` (fills under our key of orders that we have no record of: no event, the account's list shows the shares);
    `foreign_orders` and `foreign_trades` (of the same wallet, not ours), each counted once; `uneven` (trades whose makers do not
    add up to the taker's size, told at its own price); `contradicted` (a settlement that ended both ways: the first stands).
    """

    def __init__(self, own: OwnOrders, owner: Callable[[], str] | str, maker: str) -> None:
        """`owner` is our API key, `maker` the address that holds the funds."""
        self._own, self._maker = own, maker.lower()
        self._key: Callable[[], str] = owner if callable(owner) else lambda: owner
        self.frames = self.pongs = self.unrecorded = self.foreign_orders = self.foreign_trades = 0
        self.uneven = self.contradicted = 0
        self.malformed: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.last_fault = ""
        self.traded: dict[str, None] = {}
        """Tokens of which a fill was told since the start."""
        self.fresh: dict[str, None] = {}
        """Tokens of which something was told since their balance was last asked for; the reader takes them out."""
        self._open: dict[str, _Open] = {}
        self._ended: dict[str, TradeStatus] = {}
        self._strangers: dict[str, None] = {}
        self._complain_at = 1

    @property
    def faults(self) -> int:
        """Messages and rows that could not be read."""
        return sum(self.malformed.values())

    def open_since(self) -> int:
        """When the oldest fill that is not settled matched, Unix seconds; 0: there is none, or it was not told."""
        return min((trade.matched_s for trade in self._open.values() if trade.matched_s), default=0)

    def complaint(self) -> str:
        """One line for a person when more has gone wrong than was told before (at 1, then at each doubling); else empty."""
        total = self.faults + self.unrecorded + self.contradicted
        if total < self._complain_at:
            return ""
        self._complain_at = 2 * total
        return (
            f"the account's own messages: {self.faults} not readable (last: {self.last_fault or 'none'}), "
            f"{self.unrecorded} fills of orders under our key that we have no record of, "
            f"{self.contradicted} settlements that ended both ways"
        )

    # The user channel.

    def parse(self, frame: bytes) -> list[Event]:
        """The events of one frame, in its order: an object, an array of them, or the text PONG."""
        self.frames += 1
        text = frame.strip()
        if text == b"PONG":
            self.pongs += 1
            return []
        try:
            rows: list[Row] = [*_ROWS.decode(text)] if text.startswith(b"[") else [text]
        except _UNREADABLE as error:
            self._unreadable("frame", error, text)
            return []
        return [event for row in rows for event in self._message(row)]

    def _message(self, row: Row) -> list[Event]:
        try:
            kind = _ENVELOPE.decode(row).kind
            if kind == "trade":
                return self._trade(_TRADE.decode(row))
            if kind == "order":
                return self._order(_ORDER.decode(row))
        except _UNREADABLE as error:
            self._unreadable("message", error, row)
            return []
        _count(self.unknown, kind or "without a kind")
        return []

    def _order(self, note: OrderNote) -> list[Event]:
        """An UPDATE tells nothing: fills come by trades, and what they do not tell, the account's cross-check finds."""
        ours = self._own.by_venue(note.id)
        if ours is None:
            self.foreign_orders += self._is_new(note.id)
            return []
        match note.type.upper():
            case "PLACEMENT":
                return [OrderAccepted(ours.order_id, ours.venue_id)]
            case "UPDATE":
                return []
            case "CANCELLATION":
                return self._cancellation(ours, note)
        _count(self.unknown, f"order {note.type}")
        return []

    def _cancellation(self, ours: Ours, note: OrderNote) -> list[Event]:
        """The end of an order. One that was wholly matched was filled, not canceled: its trades say so, or a look-up does.

        Of one that was matched in part it is told how much, as by a look-up: its trades may come after this.
        """
        try:
            matched = _matched(note)
            whole = matched >= (shares(note.original_size, "original_size") if note.original_size else ours.qty)
        except WireError as fault:
            # How much was matched cannot be read; that it has ended can, and a fill after the end is booked all the same.
            self._fault("order", fault.name, fault.text)
            matched, whole = 0, False
        if whole:
            return []
        expired = order_end(note.status) is OrderEnd.EXPIRED
        if matched:
            return [OrderLookedUp(ours.order_id, "expired" if expired else "canceled", matched)]
        if expired:
            return [OrderExpired(ours.order_id)]
        return [OrderCanceled(ours.order_id, (note.status or "")[:MAX_NAME])]

    # Trades, by either way.

    def trades(self, rows: Iterable[Row]) -> list[Event]:
        """The events of `GET /data/trades`: those of the user channel, and none of what was told already. Never raises."""
        events: list[Event] = []
        for row in rows:
            try:
                events += self._trade(_TRADE.decode(row))
            except _UNREADABLE as error:
                self._unreadable("trade", error, row)
        return events

    def _trade(self, note: TradeNote) -> list[Event]:
        """Every order of ours in the trade, as maker or as taker; one that cannot be read does not take the others with it."""
        entries = note.maker_orders or []
        made: dict[str, tuple[Ours, list[MakerEntry]]] = {}
        unrecorded: list[str] = []
        for entry in entries:
            ours = self._own.by_venue(entry.order_id)
            if ours is not None:
                made.setdefault(ours.order_id, (ours, []))[1].append(entry)
            elif self._is_us(entry.owner, entry.maker_address):
                unrecorded.append(entry.order_id)
        taker_id = note.taker_order_id or ""
        took = self._own.by_venue(taker_id)
        if took is None and note.trader_side != "MAKER" and self._is_us(note.owner, note.maker_address):
            unrecorded.append(taker_id)
        for order_id in unrecorded:
            self.unrecorded += self._is_new(f"{note.id}:{order_id}")
        if not made and took is None and not unrecorded:
            self.foreign_trades += self._is_new(note.id)
        events: list[Event] = []
        for ours, parts in made.values():
            events += self._told(note, ours, Liquidity.MAKER, parts)
        return events + self._told(note, took, Liquidity.TAKER, entries) if took is not None else events

    def _told(self, note: TradeNote, ours: Ours, liquidity: Liquidity, entries: list[MakerEntry]) -> list[Event]:
        """What is new about one order's part of a trade.

        What was first told of it stands, whatever a later message says of prices and sizes: a fill's id must never come to mean
        another fill. An unknown status is provisional. After the end nothing is told any more.
        """
        key, status = f"{note.id}:{ours.order_id}", trade_status(note.status)
        if status is None:
            _count(self.unknown, f"trade status {note.status or ''}")
            status = TradeStatus.MATCHED
        ended, known = self._ended.get(key), self._open.get(key)
        if ended is not None:
            self.contradicted += status.is_final and status is not ended
            return []
        if known is not None and known.status is status:
            return []
        try:
            fills = known.fills if known is not None else self._fills(key, note, ours, liquidity, entries)
        except WireError as fault:
            self._fault("trade", fault.name, fault.text)
            return []
        token = token_of(ours)
        self.traded[token] = self.fresh[token] = None
        self._open.pop(key, None)
        if not status.is_final:
            _keep(self._open, key, _Open(status, fills, note.matched_s))
            return [*fills]
        _keep(self._ended, key, status)
        end = FillSettled if status is TradeStatus.CONFIRMED else FillFailed
        return [event for fill in fills for event in (fill, end(fill.fill_id, fill.instrument))]

    def _fills(self, key: str, note: TradeNote, ours: Ours, liquidity: Liquidity, entries: list[MakerEntry]) -> list[OrderFilled]:
        if not note.id:
            raise WireError("id", "a trade without one")
        if liquidity is Liquidity.MAKER:
            return fills_of(key, ours, liquidity, as_maker(ours, entries))
        parts, even = as_taker(ours, note, entries)
        self.uneven += not even
        return fills_of(key, ours, liquidity, parts)

    def _is_us(self, owner: str | None, address: str | None) -> bool:
        return owner == self._key() if owner else (address or "").lower() == self._maker

    # Orders by REST.

    def order(self, row: Row) -> OrderLookedUp | None:
        """`GET /data/order/{id}`, of any status; None where it cannot be told (unreadable, not ours, a new word), and counted."""
        try:
            note, original, filled = _sized(row)
        except _UNREADABLE as error:
            self._unreadable("order", error, row)
            return None
        except WireError as fault:
            self._fault("order", fault.name, fault.text)
            return None
        ours, end = self._own.by_venue(note.id), order_end(note.status)
        if ours is None:
            self.foreign_orders += self._is_new(note.id)
            return None
        if end is None:
            _count(self.unknown, f"order status {note.status or ''}")
            return None
        if end is not OrderEnd.OPEN and filled >= original:
            end = OrderEnd.FILLED
        return OrderLookedUp(ours.order_id, end.value, filled)

    def resting(self, rows: Iterable[Row]) -> tuple[RestingOrder, ...]:
        """`GET /data/orders`: what rests, `qty` what is left of it; each order once.

        Of an order that is not ours `order_id` is empty; where its token is not known either, `instrument` is the venue's id of the
        market, `leg` NONE, and side and price are its token's. Raises `WireError` for a row that cannot be read: a list without it
        would say that nothing rests there.
        """
        found: dict[str, RestingOrder] = {}
        for row in rows:
            try:
                note, original, filled = _sized(row)
                if filled < original and order_end(note.status) in (OrderEnd.OPEN, None):
                    found[note.id] = self._resting(note, original - filled)
            except _UNREADABLE as error:
                self._unreadable("order", error, row)
                raise WireError("order", _words(error)) from error
            except WireError as fault:
                self._fault("order", fault.name, fault.text)
                raise
        return tuple(found.values())

    def _resting(self, note: OrderNote, left: int) -> RestingOrder:
        ours = self._own.by_venue(note.id)
        if ours is not None:
            return RestingOrder(ours.order_id, ours.venue_id, ours.instrument.id, ours.side, ours.leg, ours.price, left)
        self.foreign_orders += self._is_new(note.id)
        if note.side not in ("BUY", "SELL"):
            raise WireError("side", "neither BUY nor SELL", note.side)
        side, price = Side[note.side], units(note.price, PRICE_DECIMALS, "price")
        known = self._own.token(note.asset_id)
        if known is None:
            return RestingOrder("", note.id, note.market, side, Leg.NONE, price, left)
        instrument, leg = known
        return RestingOrder("", note.id, instrument.id, leg_side(side, leg), leg, leg_price(instrument, price, leg), left)

    # What is counted.

    def _is_new(self, name: str) -> bool:
        """Whether this order or trade that is not ours is met for the first time."""
        new = name not in self._strangers
        _keep(self._strangers, name, None)
        return new

    def _unreadable(self, what: str, error: Exception, row: Row) -> None:
        self._fault(what, _words(error), bytes(row)[:_MAX_SHOWN].decode(errors="replace"))

    def _fault(self, what: str, fault: str, text: str) -> None:
        name, key = f"{what}.{fault}", self._key()
        _count(self.malformed, name)
        self.last_fault = f"{name[:MAX_NAME]} {(text.replace(key, 'our key') if key else text)[:MAX_NAME]!r}"


_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_ENVELOPE = msgspec.json.Decoder(Envelope)
_TRADE = msgspec.json.Decoder(TradeNote)
_ORDER = msgspec.json.Decoder(OrderNote)


def _sized(row: Row) -> tuple[OrderNote, int, int]:
    """A row, its original and its matched quantity."""
    note = _ORDER.decode(row)
    return note, shares(note.original_size, "original_size"), _matched(note)


def _matched(note: OrderNote) -> int:
    return shares(note.size_matched, "size_matched") if note.size_matched else 0


def _keep(table: dict[str, _V], name: str, value: _V) -> None:
    """Remember, and forget the oldest beyond the limit."""
    table[name] = value
    if len(table) > LIMIT:
        del table[next(iter(table))]


def _count(table: dict[str, int], name: str) -> None:
    name = name[:MAX_NAME]
    if name not in table and len(table) >= _MAX_NAMES:
        name = "other"
    table[name] = table.get(name, 0) + 1


def _words(error: Exception) -> str:
    """A decoder's complaint without indexes and quoted input, so that one kind of damage is one name."""
    return re.sub(r"'[^']*'", "", re.sub(r"\[\d+\]", "[]", str(error))).replace("`", "") or type(error).__name__
