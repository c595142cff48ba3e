"""Small running numbers of one market: fair value, volatility, jump and sweep, flow.

Equations: `quoting.md` 1.1, 1.2 and 4. Floats, because this is the model's side of the house; times stay integers.
It knows nothing of orders, opinions or limits: it measures, the engine and risk decide.
"""

from __future__ import annotations

import math

import msgspec

from llm_maker.core.book import Book
from llm_maker.core.events import TradePrinted
from llm_maker.core.values import NS_PER_S, Instrument, Side

STEP_S = 10
STEP_NS = STEP_S * NS_PER_S
"""The clock of all volatility estimates: market time, never events."""
FAIR_LEVELS = 3
_FAIR_UNIT = 1 << 20
"""Fair values are multiples of 2^-20 price units: `payout - fair` is exact, a mirrored book gives a mirrored fair."""
_MAX_LOGIT = 6.0
_JUMP_SD = 4.0
_WARM_STEPS = 30
"""Five minutes: before that the volatility ratio is 1."""
_PRIOR_STEPS = 18
_DAY_ROOT_S = math.sqrt(86_400.0)
_PRIOR_X, _FLOOR_X = 0.30 / _DAY_ROOT_S, 0.12 / _DAY_ROOT_S
"""Binary: belief volatility at the start, and at least: half of a common 0.25 per root day (`quoting.md` 9.1)."""
_PRIOR_LOG, _FLOOR_LOG = 0.03 / _DAY_ROOT_S, 0.01 / _DAY_ROOT_S
"""Linear: the same of the logarithm of price."""
_FLOW_HALF_LIFE_S = 120.0
_FLOW_SD_HALF_LIFE_S = 3_600.0
_RATE_HALF_LIFE_S = 600.0
_TRADE_WEIGHT = 0.05
_MEDIAN_STEP = 5e-4
"""Relative step of the running median: half a day for a lasting change of a factor of 10."""


def _gain(half_life_s: float) -> float:
    """Weight of one clock step in an exponential mean."""
    return 1.0 - math.exp2(-STEP_S / half_life_s)


_SIG_GAIN = _gain(1_800.0)
_SIG_5M_GAIN = _gain(300.0)
_FLOW_SD_GAIN = _gain(_FLOW_SD_HALF_LIFE_S)


class Estimators(msgspec.Struct):
    """What one market has been doing. Volatility is per root second, of log-odds (binary) or log price (linear)."""

    fair: float = 0.0
    """Depth-weighted mid shrunk half-way to the mid, price units; the last known one, 0 before any two-sided book."""
    sig_x: float = 0.0
    """Diffusive volatility: bipower, free of jumps and of noise; 0 before the first sample."""
    sig_5m: float = 0.0
    """Realised volatility, half-life 5 minutes, jumps and noise included."""
    sig_5m_median: float = 0.0
    jump_var: float = 0.0
    """Variance per second that came in jumps."""
    jumped_ns: int = 0
    """Last jump: a 4-sd step of the belief, or a fast move of the mid; 0 for never."""
    swept_ns: int = 0
    """Last print that took most of the near depth; 0 for never."""
    flow: float = 0.0
    """Signed taker quantity, half-life 120 s; decayed at each print and clock step."""
    avg_trade: float = 0.0
    """Mean quantity of a print; 0 before the first."""
    trade_rate: float = 0.0
    """Prints per second, half-life 600 s; builds up from 0."""
    steps: int = 0
    flow_var: float = 0.0
    flow_steps: int = 0
    flow_ns: int = 0
    next_step_ns: int = 0
    last_step_ns: int = 0
    x: float | None = None
    """Belief at the last step; None after a break."""
    move: float | None = None
    """Its change over the last step."""
    bipower: float = 0.0
    autocov: float = 0.0
    square: float = 0.0
    """Per step: means of |move||previous move|, move x previous move, move squared."""
    grid_x: float = 0.0
    """One tick in terms of x."""
    sig_calm: float = 0.0
    """What never counts as a storm: one tick in five minutes, and the floor of `sig_x`."""
    mid_twice: int = 0
    """Best bid plus best ask at the last look; and lowest and highest per second of the last ten."""
    mid_seconds: list[int] = []
    mid_lows: list[int] = []
    mid_highs: list[int] = []
    print_ts: int = 0
    print_side: int = 0
    print_qty: int = 0
    print_depth: int = 0
    """Prints of one side and venue time are one sweep, set against the depth before the first of them."""

    def on_top(self, instrument: Instrument, book: Book, now: int, jump_ticks: int) -> None:
        """After a change of the book's top: fair value, and a move of the mid by `jump_ticks` within 10 s."""
        if not book.two_sided:
            return
        self.fair = fair_value(instrument, book)
        twice = book.best_bid + book.best_ask
        if twice == self.mid_twice:
            return
        low, high = self._mid_range(twice, now)
        if max(twice - low, high - twice) >= 2 * jump_ticks * _tick(instrument, book):
            self.jumped_ns = now
            self.mid_seconds, self.mid_lows, self.mid_highs = [now // NS_PER_S], [twice], [twice]
        self.mid_twice = twice

    def on_trade(self, instrument: Instrument, book: Book, event: TradePrinted, now: int, sweep_ratio: float) -> None:
        """A public print, before the book shows it: sweep, flow, mean size, rate."""
        if event.venue_ts == self.print_ts != 0 and event.side == self.print_side:
            self.print_qty += event.qty
        else:
            self.print_ts, self.print_side, self.print_qty = event.venue_ts, int(event.side), event.qty
            self.print_depth = book.depth(event.side.other, FAIR_LEVELS) if book.trusted else 0
        if self.print_depth > 0 and self.print_qty >= sweep_ratio * self.print_depth:
            self.swept_ns = now
        self._decay_flow(now)
        self.flow += event.side * event.qty
        self.trade_rate += math.log(2.0) / _RATE_HALF_LIFE_S
        self.avg_trade += (_TRADE_WEIGHT if self.avg_trade else 1.0) * (event.qty - self.avg_trade)

    def on_clock(self, instrument: Instrument, book: Book, now: int) -> None:
        """Called at every tick of the clock; samples once per 10 s of market time."""
        if now < self.next_step_ns:
            return
        self.next_step_ns = now - now % STEP_NS + STEP_NS
        self._decay_flow(now)
        self.flow_steps += 1
        self.flow_var += max(_FLOW_SD_GAIN, 1.0 / self.flow_steps) * (self.flow * self.flow - self.flow_var)
        if not book.two_sided:
            self.x = self.move = None
            return
        self.fair = fair_value(instrument, book)
        self._sample(instrument, _tick(instrument, book), now)

    @property
    def flow_z(self) -> float:
        """Flow over its running standard deviation; 0 before there is one."""
        return self.flow / math.sqrt(self.flow_var) if self.flow_var > 0.0 else 0.0

    @property
    def volatility_ratio(self) -> float:
        """Volatility of the last minutes over its own median of about a day; 1 in the first five minutes."""
        if self.steps < _WARM_STEPS:
            return 1.0
        return self.sig_5m / max(self.sig_5m_median, self.sig_calm)

    def sig_price(self, instrument: Instrument, price: float) -> float:
        """Diffusive volatility of the price, price units per root second: p(1-p) sig_x, or price x sig (1.2)."""
        return self._scale(instrument, price) * (self.sig_x or _prior(instrument))

    def variance(self, instrument: Instrument, price: float, horizon_s: float) -> float:
        """Variance of the price over a horizon, jumps included, price units squared; of a binary never above p(1-p)."""
        scale = self._scale(instrument, price)
        sig = self.sig_x or _prior(instrument)
        variance = scale * scale * (sig * sig + self.jump_var) * horizon_s
        return min(variance, price * (instrument.payout - price)) if instrument.is_binary else variance

    def _scale(self, instrument: Instrument, price: float) -> float:
        """Price units per unit of x."""
        return price * (instrument.payout - price) / instrument.payout if instrument.is_binary else price

    def _mid_range(self, twice: int, now: int) -> tuple[int, int]:
        """Lowest and highest doubled mid of the last 10 s, the one in force until now among them."""
        second = now // NS_PER_S
        before = self.mid_twice or twice
        while self.mid_seconds and self.mid_seconds[0] < second - STEP_S:
            del self.mid_seconds[0], self.mid_lows[0], self.mid_highs[0]
        if not self.mid_seconds or self.mid_seconds[-1] != second:
            self.mid_seconds.append(second)
            self.mid_lows.append(before)
            self.mid_highs.append(before)
        self.mid_lows[-1] = min(self.mid_lows[-1], twice)
        self.mid_highs[-1] = max(self.mid_highs[-1], twice)
        return min(self.mid_lows), max(self.mid_highs)

    def _decay_flow(self, now: int) -> None:
        elapsed_s = (now - self.flow_ns) / NS_PER_S if self.flow_ns else 0.0
        self.flow_ns = now
        self.flow *= math.exp2(-elapsed_s / _FLOW_HALF_LIFE_S)
        self.trade_rate *= math.exp2(-elapsed_s / _RATE_HALF_LIFE_S)

    def _sample(self, instrument: Instrument, tick: int, now: int) -> None:
        x = belief(instrument, self.fair)
        self.grid_x = tick / self._scale(instrument, self.fair)
        self.sig_calm = max(self.grid_x / math.sqrt(300.0), _floor(instrument))
        late = now - self.last_step_ns > 2 * STEP_NS
        before, self.x, self.last_step_ns = self.x, x, now
        if before is None or late:
            self.move = None
            return
        previous, self.move = self.move, x - before
        self._update_volatility(instrument, self.move, previous, now)

    def _update_volatility(self, instrument: Instrument, move: float, previous: float | None, now: int) -> None:
        if not self.steps:
            prior = _prior(instrument)
            self.sig_x = self.sig_5m = self.sig_5m_median = prior
            self.bipower, self.square = 2.0 / math.pi * prior * prior * STEP_S, prior * prior * STEP_S
        self.steps += 1
        self._flag_jump(move, now)
        young = 1.0 / (self.steps + _PRIOR_STEPS)
        self.square += max(_SIG_5M_GAIN, young) * (move * move - self.square)
        self.sig_5m = math.sqrt(self.square / STEP_S)
        self._track_median()
        if previous is not None:
            gain = max(_SIG_GAIN, young)
            self.bipower += gain * (abs(move * previous) - self.bipower)
            self.autocov += gain * (move * previous - self.autocov)
        diffusive = math.pi / 2.0 * self.bipower - 2.0 * self._noise_var()
        self.sig_x = max(math.sqrt(max(diffusive, 0.0) / STEP_S), _floor(instrument))

    def _noise_var(self) -> float:
        return max(0.0, -self.autocov)

    def _flag_jump(self, move: float, now: int) -> None:
        """A step of more than 4 sd; rounding to the grid is noise of a twelfth of a squared tick."""
        noise = max(self._noise_var(), self.grid_x * self.grid_x / 12.0)
        jumped = abs(move) > _JUMP_SD * math.sqrt(self.sig_x * self.sig_x * STEP_S + 2.0 * noise)
        self.jump_var += _SIG_GAIN * ((move * move / STEP_S if jumped else 0.0) - self.jump_var)
        if jumped:
            self.jumped_ns = now

    def _track_median(self) -> None:
        """A running median by equal relative steps: no outlier moves it by more than one of them."""
        if self.steps <= _WARM_STEPS:
            self.sig_5m_median = self.sig_5m
            return
        step = max(_MEDIAN_STEP, 0.5 / self.steps)
        if self.sig_5m > self.sig_5m_median:
            self.sig_5m_median *= 1.0 + step
        elif self.sig_5m < self.sig_5m_median:
            self.sig_5m_median /= 1.0 + step


def _prior(instrument: Instrument) -> float:
    return _PRIOR_X if instrument.is_binary else _PRIOR_LOG


def _floor(instrument: Instrument) -> float:
    return _FLOOR_X if instrument.is_binary else _FLOOR_LOG


def _tick(instrument: Instrument, book: Book) -> int:
    """The wider of the steps just above the best bid and just below the best ask: the same for a mirrored book."""
    return max(instrument.tick_at(book.best_bid + 1), instrument.tick_at(book.best_ask))


def fair_value(instrument: Instrument, book: Book) -> float:
    """Fair value of a two-sided book, price units (`quoting.md` 1.1): m + (a - b)(Qb - Qa) / (4 (Qb + Qa)).

    b, a and the depths Q are of the three best levels that are not dust (below the reward's minimum, or the smallest
    order); bounded by the best prices, dust or not. Mirrored books give exactly mirrored values: the offset is rounded
    to even in units of 2^-20, which is odd, and everything else is exact. A side of dust alone leaves the mid.
    """
    dust = max(instrument.reward.min_qty if instrument.reward else 0, instrument.min_qty)
    bids, asks = book.top(Side.BUY, FAIR_LEVELS, dust), book.top(Side.SELL, FAIR_LEVELS, dust)
    if not bids or not asks:
        return (book.best_bid + book.best_ask) / 2
    bid, ask = bids[0][0], asks[0][0]
    bid_depth, ask_depth = sum(qty for _, qty in bids), sum(qty for _, qty in asks)
    offset = (ask - bid) * (bid_depth - ask_depth) * _FAIR_UNIT / (4 * (bid_depth + ask_depth))
    fair = (bid + ask) / 2 + round(offset) / _FAIR_UNIT
    return min(max(fair, float(book.best_bid)), float(book.best_ask))


def belief(instrument: Instrument, price: float) -> float:
    """Log-odds of a price, clipped to +-6, exactly odd; of a linear instrument the logarithm of the price."""
    if not instrument.is_binary:
        return math.log(price)
    return min(max(math.log(price) - math.log(instrument.payout - price), -_MAX_LOGIT), _MAX_LOGIT)
