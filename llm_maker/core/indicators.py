"""What chart readers look at, kept as the market goes: EMA 9 and 21, RSI 14, MACD 12/26/9, CVD, volume profile (`quoting.md` 7).

The averages are fed the close of every five-minute bar, those in which nothing happened too: log-odds of a binary market, the
price of a linear one. What is open is looked at through a copy and never fed. Prints feed the CVD (taker buying less selling) and
the profile (where volume went, forgotten with a half-life of half a day). Context for the model, and nothing is decided by it: no
evidence was found that these numbers price binaries. Free where no bar ends; it knows no book and no order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from llm_maker.core.events import TradePrinted
from llm_maker.core.values import NS_PER_S, Instrument

INTERVAL_S = 300
INTERVAL_NS = INTERVAL_S * NS_PER_S
CVD_BARS = 12
"""The hour of the CVD: the open bar and the eleven before it."""
MAX_PROFILE = 120
"""Prices of the profile; the one with the least volume gives way."""
VALUE_AREA = 0.7
_MAX_FLAT = 300
"""Bars without any change that are fed one by one after a silence: an EMA 21 is then at its price to twelve digits."""
_KEEP_PROFILE = 0.5 ** (INTERVAL_S / 43_200)
_DUST = 1e-3
"""Of the profile's volume: a price with less than this part of it, or than one quantity unit, is forgotten."""
_LINEAR_STEP = 2_000
"""A linear market's profile counts in steps of this part of the first price seen (5 basis points)."""


class Ema(msgspec.Struct, array_like=True):
    """Exponential mean: begins as the plain mean of the first `span` values, then e += 2/(span + 1) (x - e)."""

    span: int
    count: int = 0
    value: float = 0.0
    """Their sum, until there are `span` of them."""

    @property
    def ready(self) -> bool:
        return self.count >= self.span

    def push(self, x: float) -> None:
        self.count += 1
        if self.count > self.span:
            self.value += 2.0 / (self.span + 1) * (x - self.value)
        else:
            self.value += x
            if self.count == self.span:
                self.value /= self.span


class Rsi(msgspec.Struct, array_like=True):
    """Wilder's relative strength: plain means of the first `span` gains and losses, then G += (g - G)/span, the same for losses."""

    span: int
    count: int = 0
    """Changes seen."""
    last: float | None = None
    gain: float = 0.0
    loss: float = 0.0

    @property
    def ready(self) -> bool:
        return self.count >= self.span

    @property
    def value(self) -> float:
        """0 to 100; 0 where nothing ever changed."""
        moved = self.gain + self.loss
        return 100.0 * self.gain / moved if moved > 0.0 else 0.0

    def push(self, x: float) -> None:
        last, self.last = self.last, x
        if last is None:
            return
        self.count += 1
        up, down = max(x - last, 0.0), max(last - x, 0.0)
        if self.count > self.span:
            self.gain += (up - self.gain) / self.span
            self.loss += (down - self.loss) / self.span
        else:
            self.gain += up
            self.loss += down
            if self.count == self.span:
                self.gain /= self.span
                self.loss /= self.span


class Macd(msgspec.Struct, array_like=True):
    """EMA 12 less EMA 26, seeded at the same bar (the fast one skips the first 14 values), and the EMA 9 of that."""

    skipped: int = 0
    fast: Ema = msgspec.field(default_factory=lambda: Ema(12))
    slow: Ema = msgspec.field(default_factory=lambda: Ema(26))
    signal: Ema = msgspec.field(default_factory=lambda: Ema(9))

    @property
    def ready(self) -> bool:
        return self.signal.ready

    @property
    def value(self) -> float:
        return self.fast.value - self.slow.value

    def push(self, x: float) -> None:
        self.slow.push(x)
        if self.skipped < self.slow.span - self.fast.span:
            self.skipped += 1
        else:
            self.fast.push(x)
        if self.slow.ready:
            self.signal.push(self.value)


class Averages(msgspec.Struct, array_like=True):
    """All that is fed closes; values in log-odds or price units."""

    ema9: Ema = msgspec.field(default_factory=lambda: Ema(9))
    ema21: Ema = msgspec.field(default_factory=lambda: Ema(21))
    rsi: Rsi = msgspec.field(default_factory=lambda: Rsi(14))
    macd: Macd = msgspec.field(default_factory=Macd)

    @property
    def ready(self) -> bool:
        return self.macd.ready

    def push(self, x: float) -> None:
        self.ema9.push(x)
        self.ema21.push(x)
        self.rsi.push(x)
        self.macd.push(x)


class ValueArea(NamedTuple):
    """Where the volume is: the price with the most of it, and the span grown from there to hold 70 %; price units."""

    poc: int
    low: int
    high: int


class Indicators(msgspec.Struct):
    """Running indicators of one market: `on_time` before the price in force changes, `on_trade` at every print."""

    next_ns: int = 0
    """The end of the open bar; 0: nothing seen yet."""
    close: int = 0
    """Price at the end of the last closed bar; 0: none has closed."""
    averages: Averages = msgspec.field(default_factory=Averages)
    cvd: int = 0
    """Taker buying less taker selling since the market is watched, quantity units."""
    flows: list[int] = msgspec.field(default_factory=lambda: [0])
    """The same of the last bars, at most `CVD_BARS`; the last one is open."""
    profile: dict[int, float] = {}
    """Price over `step` -> decayed volume, quantity units."""
    step: int = 0
    """Price units of one place of the profile; 0: no print yet."""

    def on_time(self, instrument: Instrument, price: int, now: int) -> None:
        """Close what has ended by `now`; `price` was in force until now (0: there was none). Cheap unless a bar ended."""
        if now < self.next_ns:
            return
        if self.next_ns:
            self._end(instrument, price or self.close, (now - self.next_ns) // INTERVAL_NS + 1)
        self.next_ns = now - now % INTERVAL_NS + INTERVAL_NS

    def on_trade(self, instrument: Instrument, event: TradePrinted, price: int, now: int) -> None:
        """A public print; `price` as in `on_time`."""
        if now >= self.next_ns:
            self.on_time(instrument, price, now)
        flow = event.side * event.qty
        self.cvd += flow
        self.flows[-1] += flow
        if not self.step:
            self.step = 1 if instrument.is_binary else max(1, event.price // _LINEAR_STEP)
        profile, place = self.profile, event.price // self.step
        if place in profile:
            profile[place] += event.qty
            return
        if len(profile) >= MAX_PROFILE:
            del profile[min(profile, key=lambda p: (profile[p], p))]
        profile[place] = float(event.qty)

    def load(self, instrument: Instrument, closes: Sequence[int], end_ns: int) -> None:
        """Begin the averages anew from the closes of the bars before `end_ns`, oldest first, none left out."""
        self.averages = Averages()
        for close in closes:
            self.averages.push(_x(instrument, close))
        if closes:
            self.close, self.next_ns = closes[-1], end_ns + INTERVAL_NS

    def provisional(self, instrument: Instrument, price: int, now: int) -> Averages:
        """The averages as they would be if the open bar closed here."""
        seen = copy.deepcopy(self.averages)
        ended = (now - self.next_ns) // INTERVAL_NS + 1 if self.next_ns and now >= self.next_ns else 0
        for _ in range(min(ended, _MAX_FLAT) + 1):
            seen.push(_x(instrument, price or self.close))
        return seen

    def value_area(self) -> ValueArea | None:
        """None before any print. The lower of two prices with the same volume is the POC; equal neighbours enter together."""
        if not self.profile:
            return None
        places = sorted(self.profile)
        volumes = [self.profile[place] for place in places]
        low = high = volumes.index(max(volumes))
        poc, inside, enough = places[low], volumes[low], VALUE_AREA * sum(volumes)
        while inside < enough:
            below = volumes[low - 1] if low > 0 else -1.0
            above = volumes[high + 1] if high + 1 < len(volumes) else -1.0
            if below >= above:
                low, inside = low - 1, inside + below
            if above >= below:
                high, inside = high + 1, inside + above
        return ValueArea(poc * self.step, places[low] * self.step, places[high] * self.step)

    def line(self, instrument: Instrument, price: int, now: int) -> str:
        """One line for the model; empty until every average is warm (34 bars)."""
        if not self.averages.ready or not (price or self.close):
            return ""
        seen = self.provisional(instrument, price, now)
        unit, show = ("log-odds", _log_odds) if instrument.is_binary else ("price", _dollars)
        strength = f"{seen.rsi.value:.0f}" if seen.rsi.gain + seen.rsi.loss > 0.0 else "flat"
        parts = [
            f"{unit} EMA9 {show(instrument, seen.ema9.value)} EMA21 {show(instrument, seen.ema21.value)}",
            f"RSI14 {strength}",
            f"MACD {show(instrument, seen.macd.value)} signal {show(instrument, seen.macd.signal.value)}",
        ]
        area = self.value_area()
        if area is not None:
            poc, low, high = (f"{instrument.usd_price(at):.6g}" for at in area)
            parts += [f"CVD 1h {instrument.usd_qty(self._hour(now)):+.0f}", f"POC {poc} ({low}-{high})"]
        return ", ".join(parts)

    def _hour(self, now: int) -> int:
        """Signed taker volume of the last hour; bars that have ended since the last word count as empty."""
        ended = (now - self.next_ns) // INTERVAL_NS + 1 if now >= self.next_ns else 0
        return sum(self.flows[max(len(self.flows) + ended - CVD_BARS, 0) :])

    def _end(self, instrument: Instrument, price: int, bars: int) -> None:
        """`bars` bars have ended, the first of them at `price`, and nothing has happened in the others."""
        if price:
            x = _x(instrument, price)
            for _ in range(min(bars, _MAX_FLAT)):
                self.averages.push(x)
            self.close = price
        self.flows = [*self.flows, *[0] * min(bars, CVD_BARS)][-CVD_BARS:]
        keep = _KEEP_PROFILE**bars
        dust = max(_DUST * keep * sum(self.profile.values()), 1.0)
        self.profile = {place: volume * keep for place, volume in self.profile.items() if volume * keep > dust}


def _x(instrument: Instrument, price: int) -> float:
    """What the averages are of: log-odds, no nearer to 0 and 1 than one price unit, or the price itself."""
    if not instrument.is_binary:
        return float(price)
    yes = min(max(price, 1), instrument.payout - 1)
    # Of the integers, not of their ratio: so a mirrored market has exactly mirrored averages.
    return math.log(yes) - math.log(instrument.payout - yes)


def _log_odds(instrument: Instrument, x: float) -> str:
    return f"{x:+.3f}"


def _dollars(instrument: Instrument, x: float) -> str:
    return f"{instrument.usd_price(x):.6g}"
