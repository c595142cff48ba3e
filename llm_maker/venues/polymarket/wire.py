"""Polymarket's market channel: a raw frame becomes events of the one YES book, a tape's header becomes instruments.

Pure parsing (`polymarket.md` 3.3): no socket, no clock, no book. It knows the venue's words, units and mirror (NO at
price q is YES at 1 - q, side flipped); it refuses to know what a book holds, whether a gap may heal, or what anyone
should do about it. Numbers go from text to integer units exactly; no float and no exponent is accepted.

A message is one JSON object; a frame holds one or an array of them. A message that cannot be read gives none of its
own events, is counted under a name (kind, field, what) and, when it could have changed a book, becomes `FeedLost` of
the markets it mentions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

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
from llm_maker.core.values import (
    NS_PER_MS,
    FeeCurve,
    FeeRule,
    FixedGrid,
    Instrument,
    InstrumentId,
    Kind,
    RewardRule,
    Side,
)

VENUE = "polymarket"
PRICE_DECIMALS = 4
QTY_DECIMALS = 6
PAYOUT = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS = 40
_MAX_UNITS = (1 << 63) - 1
"""What a journal can hold."""
_MAX_NAMES = 64
_MAX_NAME = 120
_MAX_CACHED = 1 << 15
_MENTION = re.compile(rb'"([^"\\]{1,100})"')

_Ms = Annotated[int, msgspec.Meta(ge=10**12, lt=10**13)]
"""A timestamp in milliseconds, from 2001 to 2286; seconds and microseconds are refused."""
Frame = bytes | msgspec.Raw
_Best = tuple[int | None, int | None]


class WireError(ValueError):
    """A text that is not what the venue's rules say: which field, what is wrong, and the text itself."""

    def __init__(self, field: str, what: str, text: str = "") -> None:
        super().__init__(f"{field}: {what}" + (f": {text[:_MAX_NAME]!r}" if text else ""))
        self.field, self.what, self.text = field, what, text

    @property
    def name(self) -> str:
        """Without the text: what faults are counted under."""
        return f"{self.field}: {self.what}"


class _Level(msgspec.Struct, gc=False):
    price: str
    size: str


class _Change(msgspec.Struct, gc=False):
    asset_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    best_bid: str | None = None
    best_ask: str | None = None


class _Book(msgspec.Struct, tag_field="event_type", tag="book"):
    asset_id: str
    bids: list[_Level]
    asks: list[_Level]
    timestamp: _Ms
    tick_size: str | None = None
    min_order_size: str | None = None


class _PriceChange(msgspec.Struct, tag_field="event_type", tag="price_change", gc=False):
    timestamp: _Ms
    price_changes: list[_Change]


class _LastTrade(msgspec.Struct, tag_field="event_type", tag="last_trade_price"):
    asset_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    timestamp: _Ms


class _TickSize(msgspec.Struct, tag_field="event_type", tag="tick_size_change"):
    asset_id: str
    new_tick_size: str
    timestamp: _Ms


class _Top(msgspec.Struct, tag_field="event_type", tag="best_bid_ask"):
    asset_id: str
    timestamp: _Ms
    best_bid: str | None = None
    best_ask: str | None = None


class _NewMarket(msgspec.Struct, tag_field="event_type", tag="new_market"):
    pass


class _Resolved(msgspec.Struct, tag_field="event_type", tag="market_resolved"):
    market: str
    winning_asset_id: str


class _Tag(msgspec.Struct):
    event_type: str


_Message = _Book | _PriceChange | _LastTrade | _TickSize | _Top | _NewMarket | _Resolved
_HARMLESS = ("last_trade_price", "best_bid_ask", "new_market")
"""Kinds whose loss leaves every book as true as it was."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Units(dict[str, int]):
    """Text -> units with a bounded memory, so that a text seen before costs one lookup."""

    def __init__(self, field: str, decimals: int) -> None:
        self.field, self.decimals = field, decimals

    def __missing__(self, text: str) -> int:
        return self.keep(text, units(text, self.decimals, self.field))

    def keep(self, text: str, value: int) -> int:
        if len(self) >= _MAX_CACHED:
            self.clear()
        self[text] = value
        return value


class _Prices(_Units):
    """A token's price text -> the price of YES."""

    def __init__(self, instrument: Instrument, *, no: bool) -> None:
        super().__init__("price", instrument.price_decimals)
        self.payout, self.no = instrument.payout, no

    def __missing__(self, text: str) -> int:
        price = units(text, self.decimals, self.field)
        if not 0 < price < self.payout:
            raise WireError(self.field, "out of range", text)
        return self.keep(text, self.payout - price if self.no else price)


class _Bests(dict[str | None, int | None]):
    """A token's best_bid or best_ask text -> YES's best price on the side it tells; None where not told.

    Not told: missing or empty text. "0" or "1" on either side: that side is empty (`polymarket.md` 3.3).
    """

    def __init__(self, field: str, instrument: Instrument, *, no: bool) -> None:
        self.field, self.decimals, self.payout, self.no = field, instrument.price_decimals, instrument.payout, no
        self.empty = 0 if field == "best_bid" else instrument.payout

    def __missing__(self, text: str | None) -> int | None:
        best = self._told(text) if text else None
        if best is not None and self.no:
            best = self.payout - best
        if len(self) >= _MAX_CACHED:
            self.clear()
        self[text] = best
        return best

    def _told(self, text: str) -> int:
        price = units(text, self.decimals, self.field)
        if price > self.payout:
            raise WireError(self.field, "out of range", text)
        return price if 0 < price < self.payout else self.empty


class _Token:
    """One outcome's token as a table of translations into the YES book."""

    __slots__ = ("best_asks", "best_bids", "buys", "id", "market", "no", "prices", "sizes")

    def __init__(self, market: _Market, token_id: str, *, no: bool, sizes: _Units) -> None:
        self.id, self.market, self.no, self.sizes = token_id, market, no, sizes
        self.buys = "SELL" if no else "BUY"
        """The side, in this token's words, of a YES bid."""
        self.prices = _Prices(market.instrument, no=no)
        self.best_bids = _Bests("best_bid", market.instrument, no=no)
        self.best_asks = _Bests("best_ask", market.instrument, no=no)

    def bests(self, best_bid: str | None, best_ask: str | None) -> _Best:
        """This token's best prices, told as those of YES."""
        bid, ask = self.best_bids[best_bid], self.best_asks[best_ask]
        return (ask, bid) if self.no else (bid, ask)


class _Market:
    """One binary market: its instrument as last told, its two tokens, and the book that waits for its mirror."""

    __slots__ = ("instrument", "no", "unpaired", "yes")

    def __init__(self, instrument: Instrument, sizes: _Units) -> None:
        self.instrument = instrument
        self.yes = _Token(self, instrument.token_ids[0], no=False, sizes=sizes)
        self.no = _Token(self, instrument.token_ids[1], no=True, sizes=sizes)
        self.unpaired: tuple[_Token, BookSnapshot] | None = None


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
        self._markets: dict[str, _Market] = {}
        self._tokens: dict[str, _Token] = {}
        self._sizes: dict[int, _Units] = {}
        # Not strict: a timestamp is text on the wire, and the decoder turns it into an integer.
        self._decode = msgspec.json.Decoder(_Message | list[_Message], strict=False).decode
        self._decode_one = msgspec.json.Decoder(_Message, strict=False).decode
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
        sizes = self._sizes.setdefault(digits, _Units("size", digits))
        market = self._markets[instrument.id] = _Market(instrument, sizes)
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

    def _price_change(self, message: _PriceChange) -> list[Event]:
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

    def _folded(self, message: _PriceChange) -> list[Event]:
        """Fold both legs of each market; one delta a market where they agree, a gap where they do not."""
        tokens = self._tokens
        legs: dict[_Token, dict[int, int]] = {}
        tops: dict[_Token, _Best] = {}
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

    def _book(self, message: _Book) -> list[Event]:
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

    def _last_trade(self, message: _LastTrade) -> list[Event]:
        token = self._token(message.asset_id)
        if token is None:
            return []
        qty = token.sizes[message.size]
        if qty == 0:
            raise WireError("size", "a trade of nothing", message.size)
        side = Side.BUY if message.side == token.buys else Side.SELL
        price, venue_ts = token.prices[message.price], message.timestamp * NS_PER_MS
        return [TradePrinted(token.market.instrument.id, price, qty, side, venue_ts)]

    def _tick_size(self, message: _TickSize) -> list[Event]:
        """New grid, then a gap: the book is dropped until the next one. The other token's repeat tells nothing."""
        token = self._token(message.asset_id)
        if token is None:
            return []
        events = self._learn(token.market, message.new_tick_size, None)
        if events:
            token.market.unpaired = None
            events.append(FeedLost((token.market.instrument.id,), "tick size changed"))
        return events

    def _top(self, message: _Top) -> list[Event]:
        token = self._token(message.asset_id)
        if token is None:
            return []
        bid, ask = token.bests(message.best_bid, message.best_ask)
        return [TopReported(token.market.instrument.id, bid, ask, message.timestamp * NS_PER_MS)]

    def _new_market(self, message: _NewMarket) -> list[Event]:
        self.new_markets += 1
        return []

    def _resolved(self, message: _Resolved) -> list[Event]:
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

    def _token(self, asset_id: str) -> _Token | None:
        token = self._tokens.get(asset_id)
        if token is None:
            self.unknown_asset += 1
        return token

    def _learn(self, market: _Market, tick: str | None, minimum: str | None) -> list[Event]:
        """The venue's own tick and minimum size stand over what we were told at the start."""
        known = market.instrument
        grid = _grid("tick_size", tick) if tick else known.grid
        least = units(minimum, known.qty_decimals, "min_order_size") if minimum else known.min_qty
        if grid == known.grid and least == known.min_qty:
            return []
        market.instrument = replace(known, grid=grid, min_qty=least)
        return [InstrumentListed(market.instrument)]

    def _mismatch(self, market: _Market, kind: str) -> FeedLost:
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
            kind = msgspec.json.decode(raw, type=_Tag).event_type
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
        self.last_fault = f"{name[:_MAX_NAME]} {text[:_MAX_NAME]!r}"

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
    _PriceChange: Wire._price_change,
    _LastTrade: Wire._last_trade,
    _Book: Wire._book,
    _Top: Wire._top,
    _TickSize: Wire._tick_size,
    _NewMarket: Wire._new_market,
    _Resolved: Wire._resolved,
}
_KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in _READERS)


def units(text: str, decimals: int, field: str) -> int:
    """Plain decimal text -> an integer of 10^-decimals, exactly; no sign, exponent, float or rounding.

    "0.46" at 4 decimals is 4600. Trailing zeros beyond the unit are exact and pass; any other digit there is an error.
    """
    whole, _, part = text.partition(".")
    digits = whole + part
    if len(text) > _MAX_DIGITS or not (digits.isascii() and digits.isdecimal()):
        raise WireError(field, "not a plain decimal", text)
    if len(part) > decimals:
        part = part.rstrip("0")
        if len(part) > decimals:
            raise WireError(field, f"more than {decimals} decimals", text)
    value = int("0" + whole + part + "0" * (decimals - len(part)))
    if value > _MAX_UNITS:
        raise WireError(field, "out of range", text)
    return value


def _sides(leg: dict[int, int]) -> tuple[Levels, Levels]:
    if len(leg) == 1:
        (level,) = leg.items()
        return ((level,), ()) if level[0] > 0 else ((), ((-level[0], level[1]),))
    bids = tuple((key, qty) for key, qty in leg.items() if key > 0)
    return bids, tuple((-key, qty) for key, qty in leg.items() if key < 0)


def _snapshot(token: _Token, message: _Book) -> BookSnapshot:
    """Best level first; empty levels left out."""
    bids, asks = (message.asks, message.bids) if token.no else (message.bids, message.asks)
    folded = _ladder(token, bids, descending=True), _ladder(token, asks, descending=False)
    return BookSnapshot(token.market.instrument.id, *folded, message.timestamp * NS_PER_MS)


def _ladder(token: _Token, levels: list[_Level], *, descending: bool) -> Levels:
    totals = {token.prices[level.price]: token.sizes[level.size] for level in levels}
    if len(totals) != len(levels):
        raise WireError("price", "one level told twice")
    return tuple(sorted(((price, qty) for price, qty in totals.items() if qty), reverse=descending))


def _merged(one: _Best, two: _Best) -> _Best | None:
    """The best prices both legs allow, a side told by one leg taken from it; None where they disagree."""
    bid = two[0] if one[0] is None else one[0]
    ask = two[1] if one[1] is None else one[1]
    agree = two[0] in (None, bid) and two[1] in (None, ask)
    return (bid, ask) if agree else None


def _count(table: dict[str, int], name: str) -> None:
    name = name[:_MAX_NAME]
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


# The header of a tape.

_REBATE_PPM = {"crypto": 200_000, "sports": 150_000}
_REBATE_PPM_OTHER = 250_000
"""Maker's share of the taker fee by category (`polymarket.md` 4.5), where a header does not tell it."""
_FEE_QUANTUM = 10
"""10^-5 USD."""


class _Listing(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One market in a tape's header; decimals are text. `reward` is (spread USD, shares, USD a day)."""

    condition_id: str
    token_ids: tuple[str, str]
    outcomes: tuple[str, ...]
    question: str
    tick_size: str
    min_order_size: str
    neg_risk: bool
    fee_rate: str
    rebate_share: str | None = None
    reward: tuple[str, str, str] | None = None
    event_id: str = ""
    category: str = ""
    cluster: str = ""
    start_time: str | None = None
    end_time: str | None = None


def instruments_from_header(header: dict[str, Any]) -> list[Instrument]:
    """A tape's header -> its instruments; raises `WireError` naming the market's place and the field.

    Without `end_time` the resolution guard is off. Without `rebate_share` the category's share of `polymarket.md` 4.5
    is used, 25 % where there is no category. Without `event_id` a market is its own event.
    """
    if header.get("venue") != VENUE:
        raise WireError("venue", f"expected {VENUE}", str(header.get("venue")))
    try:
        listings = msgspec.convert(header["instruments"], list[_Listing])
    except (KeyError, msgspec.ValidationError) as error:
        raise WireError("instruments", f"expected a list of markets: {error}") from error
    tokens = [token for listing in listings for token in listing.token_ids]
    if len(set(tokens)) != len(tokens):
        raise WireError("instruments", "a token is listed twice")
    found: list[Instrument] = []
    for place, listing in enumerate(listings):
        try:
            found.append(_instrument(listing))
        except WireError as fault:
            raise WireError(f"instruments[{place}].{fault.field}", fault.what, fault.text) from fault
    return found


def _instrument(listing: _Listing) -> Instrument:
    rebate = listing.rebate_share
    share = units(rebate, 6, "rebate_share") if rebate else _REBATE_PPM.get(listing.category, _REBATE_PPM_OTHER)
    end_ns = _time("end_time", listing.end_time)
    return Instrument(
        id=InstrumentId(listing.condition_id),
        venue=VENUE,
        kind=Kind.BINARY,
        price_decimals=PRICE_DECIMALS,
        qty_decimals=QTY_DECIMALS,
        grid=_grid("tick_size", listing.tick_size),
        qty_step=10 ** (QTY_DECIMALS - 2),  # orders take two decimals of a share (`polymarket.md` 4.3)
        min_qty=units(listing.min_order_size, QTY_DECIMALS, "min_order_size"),
        payout=PAYOUT,
        fee=FeeRule(
            curve=FeeCurve.VARIANCE,
            taker_ppm=units(listing.fee_rate, 6, "fee_rate"),
            rebate_ppm=share,
            quantum=_FEE_QUANTUM,
        ),
        reward=_reward(listing.reward),
        question=listing.question,
        outcomes=listing.outcomes,
        token_ids=listing.token_ids,
        event_id=listing.event_id or listing.condition_id,
        exclusive=listing.neg_risk,
        cluster=listing.cluster,
        category=listing.category,
        start_ns=_time("start_time", listing.start_time),
        end_ns=end_ns,
        guard_end=end_ns is not None,
    )


def header_from_instruments(instruments: Iterable[Instrument], source: str = "") -> dict[str, Any]:
    """The header of a tape of these instruments; `instruments_from_header` gives the same instruments back.

    Times are kept to the microsecond.
    """
    listings = [msgspec.to_builtins(_listing(instrument)) for instrument in instruments]
    return {"tape": 1, "venue": VENUE, "source": source, "instruments": listings}


def _listing(instrument: Instrument) -> _Listing:
    assert isinstance(instrument.grid, FixedGrid) and len(instrument.token_ids) == 2, "an instrument of this venue"
    reward, own_event = instrument.reward, instrument.event_id == instrument.id
    return _Listing(
        condition_id=instrument.id,
        token_ids=(instrument.token_ids[0], instrument.token_ids[1]),
        outcomes=instrument.outcomes,
        question=instrument.question,
        tick_size=_text(instrument.grid.step, PRICE_DECIMALS),
        min_order_size=_text(instrument.min_qty, QTY_DECIMALS),
        neg_risk=instrument.exclusive,
        fee_rate=_text(instrument.fee.taker_ppm, 6),
        rebate_share=_text(instrument.fee.rebate_ppm, 6),
        reward=_reward_text(reward) if reward else None,
        event_id="" if own_event else instrument.event_id,
        category=instrument.category,
        cluster=instrument.cluster,
        start_time=_time_text(instrument.start_ns),
        end_time=_time_text(instrument.end_ns),
    )


def _grid(field: str, text: str) -> FixedGrid:
    step = units(text, PRICE_DECIMALS, field)
    if step == 0 or PAYOUT % step:
        raise WireError(field, "not a tick", text)
    return FixedGrid(step)


def _reward(told: tuple[str, str, str] | None) -> RewardRule | None:
    if told is None:
        return None
    spread, shares, pool = told
    return RewardRule(units(spread, PRICE_DECIMALS, "reward"), units(shares, QTY_DECIMALS, "reward"), units(pool, 6, "reward"))


def _reward_text(rule: RewardRule) -> tuple[str, str, str]:
    return _text(rule.max_spread, PRICE_DECIMALS), _text(rule.min_qty, QTY_DECIMALS), _text(rule.pool_per_day, 6)


def _text(value: int, decimals: int) -> str:
    return f"{Decimal(value).scaleb(-decimals).normalize():f}"


def _time(field: str, text: str | None) -> int | None:
    """ISO 8601 with an offset -> ns."""
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError) as error:
        raise WireError(field, "not an ISO 8601 time with an offset", text) from error
    return since // timedelta(microseconds=1) * 1000


def _time_text(ns: int | None) -> str | None:
    return None if ns is None else (_EPOCH + timedelta(microseconds=ns // 1000)).isoformat()
