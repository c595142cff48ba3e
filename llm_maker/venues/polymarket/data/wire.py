"""Polymarket's market channel: a raw frame becomes events of the one YES book.

Pure parsing (`polymarket.md` 3.3): no socket, no clock, no book. It knows which message tells what, and when the two tokens of a
market disagree; `messages` has the words, `tokens` the mirror, `numbers` the units. It refuses to know what a book holds, whether a
gap may heal, or what anyone should do about it.

A message is one JSON object; a frame holds one or an array of them. A message that cannot be read gives none of its
own events, is counted under a name (kind, field, what) and, when it could have changed a book, becomes `FeedLost` of
the markets it mentions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    Event,
    FeedLost,
    InstrumentListed,
    Levels,
    MarketResolved,
    TopReported,
    TradePrinted,
)
from llm_maker.core.values import NS_PER_MS, Instrument, Side
from llm_maker.venues.polymarket.data.messages import (
    Book,
    LastTrade,
    Level,
    Message,
    NewMarket,
    PriceChange,
    Resolved,
    Tag,
    TickSize,
    Top,
)
from llm_maker.venues.polymarket.data.tokens import Best, Market, Token, Units
from llm_maker.venues.polymarket.numbers import MAX_NAME, WireError, tick_grid, units

_MAX_NAMES = 64
_MENTION = re.compile(rb'"([^"\\]{1,100})"')
Frame = bytes | msgspec.Raw
_HARMLESS = ("last_trade_price", "best_bid_ask", "new_market")
"""Kinds whose loss leaves every book as true as it was."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Wire:
    """The parser of one connection: `parse` never raises, whatever the frame.

    Counters: `frames`; `pongs`; `unknown_asset` (entries of tokens not ours); `new_markets` (read, no event: discovery
    is not this file's); `mirror_mismatch` (YES and NO disagreed); `malformed` and `unknown` by name, at most 64 names
    each, the rest under "other"; `last_fault` is the newest malformed message's name with the text that caused it.
    """

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self.frames = self.pongs = self.unknown_asset = self.new_markets = self.mirror_mismatch = 0
        self.malformed: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.last_fault = ""
        self._markets: dict[str, Market] = {}
        self._tokens: dict[str, Token] = {}
        self._sizes: dict[int, Units] = {}
        # Not strict: a timestamp is text on the wire, and the decoder turns it into an integer.
        self._decode = msgspec.json.Decoder(Message | list[Message], strict=False).decode
        self._decode_one = msgspec.json.Decoder(Message, strict=False).decode
        for instrument in instruments:
            self.add(instrument)

    @property
    def instruments(self) -> list[Instrument]:
        """As last told by the venue (tick, minimum size)."""
        return [market.instrument for market in self._markets.values()]

    def add(self, instrument: Instrument) -> None:
        """Know one more market, or new rules of a known one; its `token_ids` are (YES, NO)."""
        assert instrument.is_binary and len(instrument.token_ids) == 2, "a binary market has two tokens"
        digits = instrument.qty_decimals
        sizes = self._sizes.setdefault(digits, Units("size", digits))
        market = self._markets[instrument.id] = Market(instrument, sizes)
        self._tokens[market.yes.id] = market.yes
        self._tokens[market.no.id] = market.no

    def parse(self, frame: Frame) -> list[Event]:
        """The events of one frame, in its order; empty where it tells nothing of our markets."""
        self.frames += 1
        try:
            told = self._decode(frame)
        except _UNREADABLE:
            return self._salvage(bytes(frame).strip())
        if type(told) is not list:
            return self._message(told)
        return [event for message in told for event in self._message(message)]

    def _message(self, message: Any) -> list[Event]:
        try:
            return _READERS[type(message)](self, message)
        except WireError as fault:
            return self._fault(str(message.__struct_config__.tag), fault, msgspec.json.encode(message))

    # One reader per kind of message.

    def _price_change(self, message: PriceChange) -> list[Event]:
        """The ordinary message is one level told by YES and by NO, and both agree: the same answer by a short way."""
        changes = message.price_changes
        if len(changes) == 2:
            yes, no = changes
            token = self._tokens.get(yes.asset_id)
            if token is not None and token.no:
                yes, no, token = no, yes, token.market.yes
            if token is not None and (
                yes.asset_id == token.id and no.asset_id == (mirror := token.market.no).id and yes.size == no.size
            ):
                price = token.prices[yes.price]
                bid, ask = token.best_bids[yes.best_bid], token.best_asks[yes.best_ask]
                if (
                    yes.side != no.side
                    and price == mirror.prices[no.price]
                    and bid == mirror.best_asks[no.best_ask]
                    and ask == mirror.best_bids[no.best_bid]
                ):
                    level = ((price, token.sizes[yes.size]),)
                    bids, asks = (level, ()) if yes.side == "BUY" else ((), level)
                    return [BookDelta(token.market.instrument.id, bids, asks, bid, ask, message.timestamp * NS_PER_MS)]
        return self._folded(message)

    def _folded(self, message: PriceChange) -> list[Event]:
        """Fold both legs of each market; one delta a market where they agree, a gap where they do not."""
        tokens = self._tokens
        legs: dict[Token, dict[int, int]] = {}
        tops: dict[Token, Best] = {}
        for change in message.price_changes:
            token = tokens.get(change.asset_id)
            if token is None:
                self.unknown_asset += 1
                continue
            # A level's key is its YES price, negative on the ask side: equal legs are then equal dicts.
            key = token.prices[change.price] if change.side == token.buys else -token.prices[change.price]
            leg = legs.get(token)
            if leg is None:
                legs[token] = {key: token.sizes[change.size]}
            else:
                leg[key] = token.sizes[change.size]
            tops[token] = token.bests(change.best_bid, change.best_ask)
        venue_ts = message.timestamp * NS_PER_MS
        events: list[Event] = []
        for token, leg in legs.items():
            market, top = token.market, tops[token]
            if token.no:
                if market.yes in legs:
                    continue
            elif (mirror := legs.get(market.no)) is not None:
                both = top if tops[market.no] == top else _merged(top, tops[market.no])
                if mirror != leg or both is None:
                    events.append(self._mismatch(market, "price_change"))
                    continue
                top = both
            bids, asks = _sides(leg)
            events.append(BookDelta(market.instrument.id, bids, asks, top[0], top[1], venue_ts))
        return events

    def _book(self, message: Book) -> list[Event]:
        """The first book of a pair is the snapshot; its mirror of the same time is compared whole, and tells no more.

        So a subscription to NO alone has its snapshots too.
        """
        token = self._token(message.asset_id)
        if token is None:
            return []
        market = token.market
        told = _snapshot(token, message)
        events = self._learn(market, message.tick_size, message.min_order_size)
        unpaired, market.unpaired = market.unpaired, None
        if unpaired is not None and unpaired[0] is not token and unpaired[1].venue_ts == told.venue_ts:
            return events if unpaired[1] == told else [*events, self._mismatch(market, "book")]
        market.unpaired = token, told
        return [*events, told]

    def _last_trade(self, message: LastTrade) -> list[Event]:
        token = self._token(message.asset_id)
        if token is None:
            return []
        qty = token.sizes[message.size]
        if qty == 0:
            raise WireError("size", "a trade of nothing", message.size)
        side = Side.BUY if message.side == token.buys else Side.SELL
        price, venue_ts = token.prices[message.price], message.timestamp * NS_PER_MS
        transaction = (message.transaction_hash or "")[:MAX_NAME]
        return [TradePrinted(token.market.instrument.id, price, qty, side, venue_ts, transaction)]

    def _tick_size(self, message: TickSize) -> list[Event]:
        """New grid, then a gap: the book is dropped until the next one. The other token's repeat tells nothing."""
        token = self._token(message.asset_id)
        if token is None:
            return []
        events = self._learn(token.market, message.new_tick_size, None)
        if events:
            token.market.unpaired = None
            events.append(FeedLost((token.market.instrument.id,), "tick size changed"))
        return events

    def _top(self, message: Top) -> list[Event]:
        token = self._token(message.asset_id)
        if token is None:
            return []
        bid, ask = token.bests(message.best_bid, message.best_ask)
        return [TopReported(token.market.instrument.id, bid, ask, message.timestamp * NS_PER_MS)]

    def _new_market(self, message: NewMarket) -> list[Event]:
        self.new_markets += 1
        return []

    def _resolved(self, message: Resolved) -> list[Event]:
        market = self._markets.get(message.market)
        winner = self._tokens.get(message.winning_asset_id)
        if winner is None and market is None:
            self.unknown_asset += 1
            return []
        if winner is None or (market is not None and winner.market is not market):
            raise WireError("winning_asset_id", "not a token of the market", message.winning_asset_id)
        instrument = winner.market.instrument
        return [MarketResolved(instrument.id, 0 if winner.no else instrument.payout)]

    # What the readers share.

    def _token(self, asset_id: str) -> Token | None:
        token = self._tokens.get(asset_id)
        if token is None:
            self.unknown_asset += 1
        return token

    def _learn(self, market: Market, tick: str | None, minimum: str | None) -> list[Event]:
        """The venue's own tick and minimum size stand over what we were told at the start."""
        known = market.instrument
        grid = tick_grid("tick_size", tick) if tick else known.grid
        least = units(minimum, known.qty_decimals, "min_order_size") if minimum else known.min_qty
        if grid == known.grid and least == known.min_qty:
            return []
        market.instrument = replace(known, grid=grid, min_qty=least)
        return [InstrumentListed(market.instrument)]

    def _mismatch(self, market: Market, kind: str) -> FeedLost:
        self.mirror_mismatch += 1
        return FeedLost((market.instrument.id,), f"{kind}: YES and NO disagree")

    # What cannot be read.

    def _salvage(self, text: bytes) -> list[Event]:
        """The slow way through a frame of which at least one message is not what we know."""
        try:
            if text.startswith(b"["):
                return [event for raw in _RAW_LIST.decode(text) for event in self._salvage_one(bytes(raw))]
            if text.startswith(b'"'):  # bare text as a tape keeps it
                text = msgspec.json.decode(text, type=str).encode()
        except _UNREADABLE:
            return self._fault("frame", WireError("json", "not JSON"), text)
        if text == b"PONG":
            self.pongs += 1
            return []
        if text.startswith((b"{", b"[")):
            return self._salvage_one(text)
        self._count_fault(f"frame: {_NO_JSON}", text[:40].decode(errors="replace"))
        return []

    def _salvage_one(self, raw: bytes) -> list[Event]:
        try:
            return self._message(self._decode_one(raw))
        except _UNREADABLE as error:
            fault = error
        try:
            kind = msgspec.json.decode(raw, type=Tag).event_type
        except _UNREADABLE as error:
            what = _without_values(error) if isinstance(error, msgspec.ValidationError) else "not JSON"
            return self._fault("frame", WireError("message", what), raw)
        if kind not in _KINDS:
            _count(self.unknown, kind)
            return []
        what = _without_values(fault)
        if kind == "price_change" and b'"price_changes"' not in raw:
            what = "the shape of before 2025-09-15, no price_changes"
        return self._fault(kind, WireError("message", what), raw)

    def _fault(self, kind: str, fault: WireError, raw: bytes) -> list[Event]:
        self._count_fault(f"{kind}.{fault.name}", fault.text)
        lost = () if kind in _HARMLESS else self._mentioned(raw)
        return [FeedLost(lost, f"malformed {kind}")] if lost else []

    def _count_fault(self, name: str, text: str) -> None:
        _count(self.malformed, name)
        self.last_fault = f"{name[:MAX_NAME]} {text[:MAX_NAME]!r}"

    def _mentioned(self, raw: bytes) -> tuple[str, ...]:
        """Our markets named in the text; all of them where it is torn and could have named any."""
        found: dict[str, None] = {}
        for word in _MENTION.findall(raw):
            name = word.decode(errors="replace")
            if name in self._tokens:
                found[self._tokens[name].market.instrument.id] = None
            elif name in self._markets:
                found[name] = None
        return tuple(found) if found or _is_json(raw) else tuple(self._markets)


_NO_JSON = "bare text, neither JSON nor PONG"
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_READERS: dict[Any, Callable[[Wire, Any], list[Event]]] = {
    PriceChange: Wire._price_change,
    LastTrade: Wire._last_trade,
    Book: Wire._book,
    Top: Wire._top,
    TickSize: Wire._tick_size,
    NewMarket: Wire._new_market,
    Resolved: Wire._resolved,
}
_KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in _READERS)


def _sides(leg: dict[int, int]) -> tuple[Levels, Levels]:
    if len(leg) == 1:
        (level,) = leg.items()
        return ((level,), ()) if level[0] > 0 else ((), ((-level[0], level[1]),))
    bids = tuple((key, qty) for key, qty in leg.items() if key > 0)
    return bids, tuple((-key, qty) for key, qty in leg.items() if key < 0)


def _snapshot(token: Token, message: Book) -> BookSnapshot:
    """Best level first; empty levels left out."""
    bids, asks = (message.asks, message.bids) if token.no else (message.bids, message.asks)
    folded = _ladder(token, bids, descending=True), _ladder(token, asks, descending=False)
    return BookSnapshot(token.market.instrument.id, *folded, message.timestamp * NS_PER_MS)


def _ladder(token: Token, levels: list[Level], *, descending: bool) -> Levels:
    totals = {token.prices[level.price]: token.sizes[level.size] for level in levels}
    if len(totals) != len(levels):
        raise WireError("price", "one level told twice")
    return tuple(sorted(((price, qty) for price, qty in totals.items() if qty), reverse=descending))


def _merged(one: Best, two: Best) -> Best | None:
    """The best prices both legs allow, a side told by one leg taken from it; None where they disagree."""
    bid = two[0] if one[0] is None else one[0]
    ask = two[1] if one[1] is None else one[1]
    agree = two[0] in (None, bid) and two[1] in (None, ask)
    return (bid, ask) if agree else None


def _count(table: dict[str, int], name: str) -> None:
    name = name[:MAX_NAME]
    if name not in table and len(table) >= _MAX_NAMES:
        name = "other"
    table[name] = table.get(name, 0) + 1


def _without_values(error: Exception) -> str:
    """A decoder's complaint without indexes and quoted input, so that one kind of damage is one name."""
    return re.sub(r"'[^']*'", "", re.sub(r"\[\d+\]", "[]", str(error))).replace("`", "") or type(error).__name__


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except _UNREADABLE:
        return False
    return True
