"""A generated feed: many simulated binary markets that send the same events as a venue, in market time, from one seed.

The model is `quoting.md` 9.1: background makers quote around the public belief, noise takers come at random, informed
takers know the truth. Takers trade with the background makers only: this file knows nothing of our orders, fills or
money, and everything in it is simulated. Each market owns its dice: its path depends on neither neighbours nor caller.
"""

from __future__ import annotations

import heapq
from enum import StrEnum
from random import Random

import msgspec

from llm_maker.core.commands import Command, RequestSnapshot
from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    Event,
    InstrumentListed,
    MarketResolved,
    TopReported,
    TradePrinted,
    VenueUp,
)
from llm_maker.core.values import NS_PER_MS, NS_PER_S, Instrument, Side, ceil_to_grid, expit, floor_to_grid
from llm_maker.venues.paper.regimes import (
    DAY_S,
    MIN_QTY,
    PAYOUT,
    QTY_STEP,
    REGIMES,
    SHARE,
    TICK,
    URGENCY_MAX,
    VENUE,
    Latent,
    Motion,
    decode_dice,
    encode_dice,
    jump,
    listing,
    strike,
)

INFORMED_FEE = 0.04
"""The informed takers' fee rate in `quoting.md` 9.1; what the instrument charges us is `FEE`."""

_HALF_SPREADS = (0.010, 0.015, 0.020, 0.025)
_DEPTHS = (0, 1, 2, 4, 7)
"""Background levels, in ticks behind the touch."""
_LOT = 200.0
_NOISE_SHARES = 40.0
_NOISE_REACH = 0.0167
_INFORMED_SHARES = 120.0
_PATIENCE = 0.002
"""Background makers let the public value move this far from their quotes before they move them."""
_TOP_SHARE = 0.05
"""Of the looks that change no price: the best prices are told again instead of a size changed."""
_SNAPSHOT_DELAY_NS = 100 * NS_PER_MS
_RELIST_S = (60.0, 600.0)


class MarketParams(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated. `activity` multiplies how often takers come and divides what each one moves the price.

    `step_ns`: mean time between two looks of the background makers at a market: the feed's grain, not the model's (keep
    it well under the ten minutes in which news spreads). `days_to_end`: mean life of a market, drawn within half of it
    either way. `replace`: a resolved market is followed by a new one. Volumes are arbitrary.
    """

    seed: int
    markets: int = 8
    regime: str = "mixed"
    activity: float = 1.0
    step_ns: int = NS_PER_S
    start_ns: int = 1_767_225_600 * NS_PER_S
    """2026-01-01T00:00:00Z."""
    days_to_end: float = 7.0
    rewards: bool = True
    replace: bool = True


class Phase(StrEnum):
    """Where a market is in its life; each phase ends at its market's `next_ns`, except the last."""

    COMING = "coming"
    LISTED = "listed"
    TRADING = "trading"
    OVER = "over"


class Market(msgspec.Struct):
    """The whole state of one market, its dice included. `snapshot_ns` and `next_ns` are 0 when nothing is due."""

    instrument: Instrument
    generation: int
    latent: Latent
    half: float
    """The background makers' half-spread, USD."""
    quoted: float
    """The public value their quotes stand around, USD."""
    bids: dict[int, int]
    """What the background makers rest, units by price; neither side is ever empty."""
    asks: dict[int, int]
    dice: Random
    now_ns: int
    next_ns: int
    end_ns: int
    snapshot_ns: int = 0
    thin: bool = False
    """A level is missing: the makers refill at their next look."""
    phase: Phase = Phase.COMING
    former_id: str = ""
    former_x: float = 0.0


class _Saved(msgspec.Struct, frozen=True):
    params: MarketParams
    up: bool
    markets: list[Market]


class SimulatedMarket:
    """A feed of simulated markets (`port.Simulator`): 'SIM-0001', 'SIM-0002', ...; a successor is 'SIM-0001-2'."""

    name = VENUE

    def __init__(self, params: MarketParams) -> None:
        assert params.markets > 0 and params.step_ns > 0 and params.activity >= 0.0 and params.days_to_end > 0.0
        self._params = params
        regime = REGIMES[params.regime]
        self._motion = Motion(regime)
        per_second = params.activity / DAY_S
        self._looks = NS_PER_S / params.step_ns
        self._noise = 2.0 * regime.noise_per_day * per_second
        self._informed = regime.informed_per_day * per_second * (1.0 + URGENCY_MAX)
        self._jumps = regime.jumps_per_day / DAY_S
        self._rate = self._looks + self._noise + self._informed + self._jumps
        # A busier market must not also be a better informed one: the day's impact stays that of the table.
        calm = 1.0 / max(1.0, params.activity)
        self._noise_impact = regime.noise_impact * calm
        self._informed_impact = regime.informed_impact * calm
        self._up = False
        self._markets = [self._create(slot, 1, params.start_ns) for slot in range(params.markets)]
        self._index()

    # The port.

    def observe(self, now: int, event: Event) -> None:
        """A feed learns nothing from events."""

    def execute(self, now: int, command: Command) -> None:
        """Answer `RequestSnapshot` of a listed market 100 ms later; everything else is for others."""
        if not isinstance(command, RequestSnapshot):
            return
        slot = self._slots.get(command.instrument)
        if slot is None:
            return
        market = self._markets[slot]
        listed = market.phase in (Phase.LISTED, Phase.TRADING) and market.instrument.id == command.instrument
        if listed and not market.snapshot_ns:
            market.snapshot_ns = now + _SNAPSHOT_DELAY_NS
            heapq.heappush(self._due, (market.snapshot_ns, slot))

    def next_ns(self) -> int | None:
        return self._due[0][0] if self._due else None

    def advance(self, now: int) -> list[Event]:
        """All events due; those of one instant in the order of the markets, `VenueUp` after the first listings."""
        events: list[Event] = []
        due = self._due
        while due and due[0][0] <= now:
            at, slot = heapq.heappop(due)
            if slot == len(self._markets):
                self._up = True
                events.append(VenueUp(venue=VENUE, snapshots=True))
            else:
                self._wake(slot, at, events)
        return events

    def checkpoint(self) -> bytes:
        return _ENCODER.encode(_Saved(params=self._params, up=self._up, markets=self._markets))

    def restore(self, saved: bytes) -> None:
        """Raises ValueError where the checkpoint is of another configuration, msgspec.DecodeError where it is none."""
        state = _DECODER.decode(saved)
        if state.params != self._params:
            raise ValueError(f"the simulated market was saved with {state.params}, not {self._params}")
        self._up, self._markets = state.up, state.markets
        self._index()

    def truth(self, instrument_id: str) -> float:
        """The true log-odds now; the last ones of a resolved market, until its successor resolves. Else KeyError."""
        market = self._markets[self._slots[instrument_id]]
        return market.latent.x if market.instrument.id == instrument_id else market.former_x

    # One market.

    def _index(self) -> None:
        """Everything that follows from the markets' state: whose is an id, and what is due when."""
        self._slots = {name: slot for slot, market in enumerate(self._markets) for name in _names(market)}
        due = [(at, slot) for slot, market in enumerate(self._markets) for at in (market.next_ns, market.snapshot_ns)]
        self._due = [entry for entry in due if entry[0]]
        if not self._up:
            self._due.append((self._params.start_ns, len(self._markets)))
        heapq.heapify(self._due)

    def _create(self, slot: int, generation: int, at: int) -> Market:
        """A market to be listed at `at`; all of it follows from seed, slot, generation and `at`."""
        params = self._params
        name = f"SIM-{slot + 1:04d}" + (f"-{generation}" if generation > 1 else "")
        dice = Random(f"{params.seed}:{name}")
        latent = self._motion.draw(dice)
        end_ns = at + int(params.days_to_end * dice.uniform(0.5, 1.5) * DAY_S * NS_PER_S)
        instrument = listing(name, end_ns, dice, rewards=params.rewards)
        market = Market(
            instrument=instrument,
            generation=generation,
            latent=latent,
            half=dice.choice(_HALF_SPREADS),
            quoted=expit(latent.public),
            bids={},
            asks={},
            dice=dice,
            now_ns=at,
            next_ns=at,
            end_ns=end_ns,
        )
        _requote(market)
        return market

    def _wake(self, slot: int, at: int, events: list[Event]) -> None:
        market = self._markets[slot]
        if market.snapshot_ns == at:
            market.snapshot_ns = 0
            events.append(_snapshot(market, at))
        if market.next_ns != at:
            return
        if market.phase is Phase.TRADING:
            self._pass_time(market, at)
            if at < market.end_ns:
                events += self._happen(market, at)
            else:
                self._forget_snapshot(slot)
                events.append(_resolve(market))
                market = self._succeed(slot, at)
        elif market.phase is Phase.LISTED:
            market.phase = Phase.TRADING
            events.append(_snapshot(market, at))
        else:
            market.phase = Phase.LISTED
            events.append(InstrumentListed(market.instrument))
        if market.phase is not Phase.COMING:
            market.next_ns = self._next(market, at)
        if market.next_ns:
            heapq.heappush(self._due, (market.next_ns, slot))

    def _forget_snapshot(self, slot: int) -> None:
        market = self._markets[slot]
        if market.snapshot_ns:
            self._due.remove((market.snapshot_ns, slot))
            heapq.heapify(self._due)
            market.snapshot_ns = 0

    def _next(self, market: Market, at: int) -> int:
        if market.phase is Phase.OVER:
            return 0
        if market.phase is Phase.LISTED:
            return at + 1 + int(market.dice.random() * self._params.step_ns)
        # Poisson: cutting a gap at the end changes nothing before it.
        return min(max(at + 1, market.end_ns), at + 1 + int(market.dice.expovariate(self._rate) * NS_PER_S))

    def _pass_time(self, market: Market, at: int) -> None:
        self._motion.pass_time(market.latent, (at - market.now_ns) / NS_PER_S, market.dice)
        market.now_ns = at

    def _happen(self, market: Market, at: int) -> list[Event]:
        """One thing: a look of the makers, a noise taker, an informed one, or news."""
        which = market.dice.random() * self._rate
        if which < self._looks:
            return [_look(market, at)]
        if which < self._looks + self._noise:
            return self._noise_taker(market, at)
        if which < self._looks + self._noise + self._informed:
            # Drawn at the highest rate there can be, kept at today's.
            came = market.dice.random() * (1.0 + URGENCY_MAX) < market.latent.urgency
            return self._informed_taker(market, at) if came else []
        jump(market.latent, market.dice)
        return []

    def _noise_taker(self, market: Market, at: int) -> list[Event]:
        dice = market.dice
        side = Side.BUY if dice.random() < 0.5 else Side.SELL
        limit = expit(market.latent.public) + side * dice.expovariate(1.0 / _NOISE_REACH)
        events = _take(market, side, limit, dice.expovariate(1.0 / _NOISE_SHARES), at)
        if events:
            strike(market.latent, side, self._noise_impact, informed=False)
        return events

    def _informed_taker(self, market: Market, at: int) -> list[Event]:
        """Trades while the edge over the price beats the taker fee, taken at the true probability."""
        latent = market.latent
        side = Side.BUY if latent.x > latent.public else Side.SELL
        true = expit(latent.x)
        limit = true - side * INFORMED_FEE * true * (1.0 - true)
        events = _take(market, side, limit, market.dice.expovariate(1.0 / _INFORMED_SHARES), at)
        if events:
            strike(latent, side, self._informed_impact, informed=True)
        return events

    def _succeed(self, slot: int, at: int) -> Market:
        """The market that now has this slot: the resolved one, or a new one to be listed some minutes later."""
        ended = self._markets[slot]
        if not self._params.replace:
            return ended
        listed_ns = at + int(ended.dice.uniform(*_RELIST_S) * NS_PER_S)
        successor = self._create(slot, ended.generation + 1, listed_ns)
        successor.former_id, successor.former_x = ended.instrument.id, ended.latent.x
        self._slots.pop(ended.former_id, None)
        self._slots[successor.instrument.id] = slot
        self._markets[slot] = successor
        return successor


def _resolve(market: Market) -> MarketResolved:
    """Pay with the true probability: there is no tail of certainty before it (`quoting.md` 9.6)."""
    market.phase = Phase.OVER
    pays = market.dice.random() < expit(market.latent.x)
    return MarketResolved(instrument=market.instrument.id, price=PAYOUT if pays else 0)


def _names(market: Market) -> tuple[str, ...]:
    return (market.instrument.id, market.former_id) if market.former_id else (market.instrument.id,)


# The background makers.


def _look(market: Market, at: int) -> Event:
    """Move or refill the quotes if that is due; otherwise change one size a little, or just tell the top again."""
    public = expit(market.latent.public)
    moved = abs(public - market.quoted) > _PATIENCE
    if moved:
        market.quoted = public
    if moved or market.thin:
        bids, asks = _requote(market)
        if bids or asks:
            return _delta(market, bids, asks, at)
    if market.dice.random() < _TOP_SHARE:
        return TopReported(market.instrument.id, max(market.bids), min(market.asks), at)
    return _resize(market, at)


def _requote(market: Market) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Make the book what the makers want around `quoted`, rounded outward; what changed, as levels."""
    instrument, value, half = market.instrument, market.quoted * PAYOUT, market.half * PAYOUT
    bid = max(floor_to_grid(instrument, value - half), instrument.min_price)
    ask = min(ceil_to_grid(instrument, value + half), instrument.max_price)
    assert bid < ask, "half-spreads of a tick or more, rounded outward, cannot meet"
    market.thin = False
    return (
        _replace(market.bids, [price for d in _DEPTHS if (price := bid - d * TICK) >= TICK], market.dice),
        _replace(market.asks, [price for d in _DEPTHS if (price := ask + d * TICK) < PAYOUT], market.dice),
    )


def _replace(side: dict[int, int], wanted: list[int], dice: Random) -> list[tuple[int, int]]:
    """Drop the levels that are not wanted, add those that are missing, leave the others their queue."""
    changes = [(price, 0) for price in side if price not in wanted]
    for price, _ in changes:
        del side[price]
    for price in wanted:
        if price not in side:
            side[price] = _quantity(_LOT * dice.uniform(0.6, 1.4))
            changes.append((price, side[price]))
    return changes


def _resize(market: Market, at: int) -> BookDelta:
    """One level drifts back towards the usual lot, with a little noise."""
    dice = market.dice
    on_bid = dice.random() < 0.5
    levels = market.bids if on_bid else market.asks
    price = list(levels)[int(dice.random() * len(levels))]
    shares = levels[price] / SHARE
    levels[price] = _quantity(shares + 0.1 * (_LOT - shares) + _LOT * dice.uniform(-0.1, 0.1))
    change = [(price, levels[price])]
    return _delta(market, change if on_bid else [], [] if on_bid else change, at)


def _take(market: Market, side: Side, limit: float, shares: float, at: int) -> list[Event]:
    """A taker walks the book up to `limit` (USD): a print for each level, then one delta; nothing if he finds nothing.

    The last level of a side is never taken whole: it stands for everybody behind it.
    """
    levels, best = (market.asks, min) if side is Side.BUY else (market.bids, max)
    left = _quantity(shares)
    changes: list[tuple[int, int]] = []
    prints: list[Event] = []
    while left:
        price = best(levels)
        free = levels[price] if len(levels) > 1 else levels[price] - QTY_STEP
        traded = min(left, free)
        if (limit * PAYOUT - price) * side < 0.0 or traded == 0:
            break
        left -= traded
        prints.append(TradePrinted(market.instrument.id, price, traded, side, at))
        changes.append((price, levels[price] - traded))
        levels[price] -= traded
        if levels[price] == 0:
            del levels[price]
            market.thin = True
    if not prints:
        return []
    bids, asks = ([], changes) if side is Side.BUY else (changes, [])
    return [*prints, _delta(market, bids, asks, at)]


def _quantity(shares: float) -> int:
    """Shares to units, down to what an order may carry and never below the least one."""
    units = int(shares * SHARE)
    return max(MIN_QTY, units - units % QTY_STEP)


def _delta(market: Market, bids: list[tuple[int, int]], asks: list[tuple[int, int]], at: int) -> BookDelta:
    best_bid, best_ask = max(market.bids), min(market.asks)
    return BookDelta(market.instrument.id, tuple(bids), tuple(asks), best_bid, best_ask, at)


def _snapshot(market: Market, at: int) -> BookSnapshot:
    """The whole book, best prices first."""
    bids = tuple(sorted(market.bids.items(), reverse=True))
    return BookSnapshot(market.instrument.id, bids, tuple(sorted(market.asks.items())), at)


_ENCODER = msgspec.json.Encoder(enc_hook=encode_dice)
_DECODER = msgspec.json.Decoder(_Saved, dec_hook=decode_dice)
