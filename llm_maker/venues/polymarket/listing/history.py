"""What a market's price did before we listened: Data API price points -> closed candles (`polymarket.md` 2.7).

GET /v2/prices-history is what the SDK 0.14.0 asks: points of one token, oldest first, in buckets of a width, at most 15 days. A
candle here is what those points tell: no volume, and no price that was not one of them. Failing is a warning; nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_maker.core.bars import LIMIT
from llm_maker.core.commands import Level
from llm_maker.core.events import BarsLoaded
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.venues.net import Http, Pace
from llm_maker.venues.polymarket.listing.fields import Fields
from llm_maker.venues.polymarket.listing.survey import Say
from llm_maker.venues.polymarket.numbers import WireError

INTERVALS_S = (60, 3_600)
Bar = tuple[int, int, int, int, int, int]


class History:
    """Asks the Data API for the candles of a market."""

    def __init__(self, data: Http, pace: Pace, say: Say) -> None:
        self.http, self.pace, self._say = data, pace, say
        self._failing = False

    async def load(self, instrument: Instrument) -> list[BarsLoaded]:
        """One event an interval that has candles: [] where there are none, or no answer came."""
        events = []
        for interval_s in INTERVALS_S:
            bars = await self._bars(instrument, interval_s)
            if bars:
                events.append(BarsLoaded(instrument.id, interval_s, bars))
        return events

    async def _bars(self, instrument: Instrument, interval_s: int) -> tuple[Bar, ...]:
        end_s = self.pace.now() // NS_PER_S // interval_s * interval_s
        query = {
            "token_id": instrument.token_ids[0],
            "start": str(end_s - LIMIT * interval_s),
            "end": str(end_s),
            "bucket_seconds": str(interval_s),
            "limit": str(2 * LIMIT),
        }
        reply = await self.http.request("GET", "/v2/prices-history", query=query)
        bars: tuple[Bar, ...] = ()
        why = "" if reply.ok else reply.error
        try:
            bars = candles(reply.body, instrument, interval_s, end_s) if reply.ok else ()
        except WireError as fault:
            why = str(fault)
        if why and not self._failing:
            self._say(Level.WARNING, f"no past prices of {instrument.question or instrument.id}: {why}; its trend builds up here")
        self._failing = bool(why)
        return bars


def candles(body: bytes, instrument: Instrument, interval_s: int, end_s: int) -> tuple[Bar, ...]:
    """The candles that had closed by `end_s`. Raises `WireError`; a reply without data is a market without a past."""
    bars: dict[int, Bar] = {}
    for at_s, price in sorted(_points(Fields(body, "prices-history").objects("data"), instrument), key=lambda point: point[0]):
        start_s = at_s - at_s % interval_s
        if start_s + interval_s > end_s or not 0 < price < instrument.payout:
            continue
        _, first, high, low, _, volume = bars.get(start_s, (0, price, price, price, price, 0))
        bars[start_s] = (start_s * NS_PER_S, first, max(high, price), min(low, price), price, volume)
    return tuple(bars.values())[-LIMIT:]


def _points(rows: Iterable[Fields], instrument: Instrument) -> Iterable[tuple[int, int]]:
    """(seconds, price units to the nearest)."""
    for row in rows:
        at_s, price = row.units("timestamp", 0), row.number("price")
        if at_s is None or price is None:
            raise WireError("data", "a point without its time or price")
        yield at_s, int(price.scaleb(instrument.price_decimals).to_integral_value())
