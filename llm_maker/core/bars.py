"""Closed bars of one market, 1 minute to 1 day, in market time: bounded, packed, written only when something changed.

Open and close are the price in force (the mid, where there is a book); prints add volume and stretch high and low, so
that a bounce between bid and ask is no trend. A bar in which nothing happened is not kept: readers get it back flat.
It knows nothing of indicators, books or instruments.
"""

from __future__ import annotations

import struct

import msgspec

from llm_maker.core.events import BarsLoaded
from llm_maker.core.values import NS_PER_S

INTERVALS_S = (60, 300, 900, 3_600, 14_400, 86_400)
LIMIT = 300
"""Bars kept of each interval."""
_PACKED = struct.Struct("<I4qq")
"""start (s), open, high, low, close, volume: 44 bytes a bar, 13 kB for an interval that is full and never flat."""
_MINUTE_NS = INTERVALS_S[0] * NS_PER_S
_SLACK = 32
"""Old bars are cut off this many at a time."""


class Bar(msgspec.Struct, frozen=True, array_like=True):
    """One closed bar: prices in price units, volume in quantity units."""

    start_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int


class Forming(msgspec.Struct, array_like=True):
    """A bar of one interval that has begun and holds at least one change; `start_s` is aligned to the interval."""

    start_s: int
    open: int
    high: int
    low: int
    close: int
    volume: int

    def add(self, bar: Forming) -> None:
        self.high = max(self.high, bar.high)
        self.low = min(self.low, bar.low)
        self.close = bar.close
        self.volume += bar.volume


class Bars(msgspec.Struct):
    """Running bars of one market: `on_price` at every price, `on_trade` at every print; free where nothing changes."""

    price: int = 0
    """The price in force; 0 before the first."""
    first_price: int = 0
    first_ns: int = 0
    minute: Forming | None = None
    minute_end_ns: int = 0
    forming: dict[int, Forming] = {}
    """By interval, above the minute."""
    packed: dict[int, bytearray] = {}
    """Closed bars by interval, oldest first; flat ones left out."""

    def on_price(self, price: int, now: int) -> None:
        """The price in force from `now` on; also called on a timer, it closes what has ended."""
        if price == self.price and now < self.minute_end_ns:
            return
        minute = self._minute(price, now)
        self.price = minute.close = price
        if price > minute.high:
            minute.high = price
        elif price < minute.low:
            minute.low = price

    def on_trade(self, price: int, qty: int, now: int) -> None:
        """A public print: volume, high and low. Before the first price it is the price."""
        minute = self._minute(self.price or price, now)
        minute.volume += qty
        if price > minute.high:
            minute.high = price
        elif price < minute.low:
            minute.low = price

    def load(self, event: BarsLoaded) -> None:
        """Take a venue's candles in place of ours of the same time or older; our later bars stay."""
        assert event.interval_s in INTERVALS_S, event.interval_s
        if not event.bars:
            return
        last_s = event.bars[-1][0] // NS_PER_S
        kept = self.packed.get(event.interval_s, b"")
        buffer = bytearray()
        for start_ns, *fields in event.bars[-LIMIT:]:
            buffer += _PACKED.pack(start_ns // NS_PER_S, *fields)
        for at in range(0, len(kept), _PACKED.size):
            if _PACKED.unpack_from(kept, at)[0] > last_s:
                buffer += kept[at : at + _PACKED.size]
        self.packed[event.interval_s] = buffer[-LIMIT * _PACKED.size :]

    def closed(self, interval_s: int) -> list[Bar]:
        """Closed bars, oldest first, at most `LIMIT`, without holes: a bar in which nothing changed is flat."""
        assert interval_s in INTERVALS_S, interval_s
        stored = list(_PACKED.iter_unpack(self.packed.get(interval_s, b"")))
        if not stored:
            return []
        end_s = max(stored[-1][0] + interval_s, self._open_start_s(interval_s))
        first_s = max(stored[0][0], end_s - LIMIT * interval_s)
        bars: list[Bar] = []
        for row, following in zip(stored, [*stored[1:], None], strict=True):
            if row[0] >= first_s:
                bars.append(Bar(row[0] * NS_PER_S, *row[1:]))
            next_s = following[0] if following else end_s
            close = row[4]
            for start_s in range(max(row[0] + interval_s, first_s), next_s, interval_s):
                bars.append(Bar(start_s * NS_PER_S, close, close, close, close, 0))
        return bars

    def change(self, now: int, horizon_ns: int) -> float | None:
        """Price now less the price `horizon_ns` ago, price units; None where that is not known.

        The old price is the close of the finest bar that ended by then: up to a minute older than asked, more where
        only coarser bars reach so far.
        """
        then = self._price_at(now - horizon_ns)
        return None if then is None or not self.price else float(self.price - then)

    def _minute(self, price: int, now: int) -> Forming:
        """The forming minute at `now`; the one that ended is closed first. `price` begins the very first."""
        minute = self.minute
        if minute is None:
            self.price = self.first_price = price
            self.first_ns = now
        elif now < self.minute_end_ns:
            return minute
        else:
            self._close_minute(minute, now)
        start_ns = now - now % _MINUTE_NS
        self.minute_end_ns = start_ns + _MINUTE_NS
        in_force = self.price
        self.minute = Forming(start_ns // NS_PER_S, in_force, in_force, in_force, in_force, 0)
        return self.minute

    def _close_minute(self, minute: Forming, now: int) -> None:
        now_s = now // NS_PER_S
        changed = minute.high != minute.low or minute.volume > 0 or INTERVALS_S[0] not in self.packed
        if changed:
            self._store(INTERVALS_S[0], minute)
        for interval_s in INTERVALS_S[1:]:
            forming = self.forming.get(interval_s)
            if changed:
                # A bar is closed below as soon as it ends, so the one that is forming here is the minute's own.
                if forming is None:
                    start_s = minute.start_s - minute.start_s % interval_s
                    forming = Forming(start_s, minute.open, minute.high, minute.low, minute.close, minute.volume)
                    self.forming[interval_s] = forming
                else:
                    forming.add(minute)
            if forming is not None and forming.start_s + interval_s <= now_s:
                self._store(interval_s, forming)
                del self.forming[interval_s]

    def _store(self, interval_s: int, bar: Forming) -> None:
        buffer = self.packed.setdefault(interval_s, bytearray())
        if len(buffer) >= (LIMIT + _SLACK) * _PACKED.size:
            del buffer[: -(LIMIT - 1) * _PACKED.size]
        buffer += _PACKED.pack(bar.start_s, bar.open, bar.high, bar.low, bar.close, bar.volume)

    def _open_start_s(self, interval_s: int) -> int:
        """Start of the interval that is open at the last word heard; 0 before any."""
        last_s = self.minute.start_s if self.minute else 0
        return last_s - last_s % interval_s

    def _price_at(self, at_ns: int) -> int | None:
        if self.first_ns <= at_ns < self.first_ns + _MINUTE_NS and self.first_ns:
            return self.first_price
        at_s = at_ns // NS_PER_S
        for interval_s in INTERVALS_S:
            close = _close_by(self.packed.get(interval_s, b""), at_s - interval_s)
            if close is not None:
                return close
        return self.first_price if 0 < self.first_ns <= at_ns else None


def _close_by(packed: bytes | bytearray, start_s: int) -> int | None:
    """Close of the last packed bar that starts at or before `start_s`."""
    low, high = 0, len(packed) // _PACKED.size
    while low < high:
        middle = (low + high) // 2
        if _PACKED.unpack_from(packed, middle * _PACKED.size)[0] <= start_s:
            low = middle + 1
        else:
            high = middle
    if not low:
        return None
    close: int = _PACKED.unpack_from(packed, (low - 1) * _PACKED.size)[4]
    return close
