"""What a simulated market is made of: the regimes of `quoting.md` 9.1, the log-odds they drive, its listing, its dice.

Everybody's belief is a log-odds number; the true one is `x`, the public one `x - slow - fast`. This file knows no book,
order or event, and rolls no dice of its own: a seeded generator is handed in.
"""

from __future__ import annotations

import base64
import math
import struct
from random import Random
from typing import Any

import msgspec

from llm_maker.core.values import (
    CASH_PER_USD,
    FeeCurve,
    FeeRule,
    FixedGrid,
    Instrument,
    InstrumentId,
    Kind,
    RewardRule,
    Side,
)

VENUE = "simulated"
PAYOUT = 10_000
TICK = 100
SHARE = 1_000_000
QTY_STEP = 10_000
MIN_QTY = 5 * SHARE
FEE = FeeRule(curve=FeeCurve.VARIANCE, taker_ppm=50_000, rebate_ppm=250_000, quantum=10)
GRID = FixedGrid(TICK)
DAY_S = 86_400.0
JUMP_SD = 0.25
FAST_SD = 0.03
"""Stationary deviation of the fast error's own noise."""
FAST_HALF_LIFE_S = 600.0
URGENCY_SCALE = 0.05
URGENCY_MAX = 8.0
_FICTION = (
    ("politics", "will the council of {place} pass motion {n}"),
    ("weather", "will the gauge at {place} read over {n} mm of rain"),
    ("economics", "will the {place} index close above {n}"),
    ("sports", "will {place} United score more than {n} points this season"),
    ("technology", "will the {place} works ship build {n}"),
)
_PLACES = (
    "Alderwick",
    "Brambleford",
    "Cindermoor",
    "Dunhollow",
    "Eastmarrow",
    "Fennbridge",
    "Grayharbour",
    "Hollinshaw",
)
_FAST_DECAY = math.log(2) / FAST_HALF_LIFE_S
_FAST_VARIANCE = FAST_SD * FAST_SD


class Regime(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table in `quoting.md` 9.1: rates per day (noise: per side), deviations and impacts in log-odds."""

    noise_per_day: float
    informed_per_day: float
    sigma: float
    """Belief volatility, per square root of a day."""
    jumps_per_day: float
    slow_sd: float
    slow_half_life_days: float
    noise_impact: float = 0.002
    informed_impact: float = 0.004


REGIMES: dict[str, Regime] = {
    "benign": Regime(noise_per_day=120, informed_per_day=48, sigma=0.20, jumps_per_day=0.7, slow_sd=0.08, slow_half_life_days=1.5),
    "mixed": Regime(noise_per_day=60, informed_per_day=120, sigma=0.25, jumps_per_day=0.7, slow_sd=0.12, slow_half_life_days=1.5),
    "toxic": Regime(noise_per_day=30, informed_per_day=200, sigma=0.30, jumps_per_day=1.0, slow_sd=0.20, slow_half_life_days=1.5),
    "neglected": Regime(
        noise_per_day=60,
        informed_per_day=20,
        sigma=0.25,
        jumps_per_day=0.7,
        slow_sd=0.40,
        slow_half_life_days=5.0,
        informed_impact=0.002,
    ),
}


class Latent(msgspec.Struct):
    """The true log-odds and what the public has wrong about them."""

    x: float
    slow: float
    """An error that heals in days, or when informed takers trade."""
    fast: float
    """News that only the informed have yet: heals in minutes."""

    @property
    def public(self) -> float:
        return self.x - self.slow - self.fast

    @property
    def urgency(self) -> float:
        """How many times more often informed takers come than when there is no news; at most `1 + URGENCY_MAX`."""
        return 1.0 + min(URGENCY_MAX, abs(self.fast) / URGENCY_SCALE)


class Motion:
    """One regime per second, ready for use: how a `Latent` moves over any length of time."""

    def __init__(self, regime: Regime) -> None:
        self._variance = regime.sigma**2 / DAY_S
        self._drift = 0.5 * (self._variance + regime.jumps_per_day / DAY_S * JUMP_SD**2)
        self._slow_decay = math.log(2) / (regime.slow_half_life_days * DAY_S)
        self._slow_sd = regime.slow_sd

    def draw(self, dice: Random) -> Latent:
        """A market at its start: the truth anywhere in (-2, 2), the errors from their stationary law."""
        x = dice.uniform(-2.0, 2.0)
        return Latent(x=x, slow=dice.gauss(0.0, self._slow_sd), fast=dice.gauss(0.0, FAST_SD))

    def pass_time(self, latent: Latent, seconds: float, dice: Random) -> None:
        """Diffuse for `seconds`: half of the news is public at once, the rest is fast error.

        The drift makes the true probability a martingale (`quoting.md` 1.2), with the jump term to second order. Made
        for gaps well under the fast half-life: within one, drift is straight and what diffuses does not yet decay.
        """
        gauss = dice.gauss
        diffusion = math.sqrt(0.5 * self._variance * seconds)
        hidden = gauss(0.0, diffusion)
        drift = self._drift * math.tanh(0.5 * latent.x)
        latent.x += drift * seconds + gauss(0.0, diffusion) + hidden
        kept = math.exp(-_FAST_DECAY * seconds)
        latent.fast = latent.fast * kept + hidden + gauss(0.0, math.sqrt(_FAST_VARIANCE * (1.0 - kept * kept)))
        kept = math.exp(-self._slow_decay * seconds)
        latent.slow = latent.slow * kept + gauss(0.0, self._slow_sd * math.sqrt(1.0 - kept * kept))


def jump(latent: Latent, dice: Random) -> None:
    """News that nobody has priced: the truth moves and the public does not."""
    size = dice.gauss(0.0, JUMP_SD)
    latent.x += size
    latent.fast += size


def strike(latent: Latent, side: Side, impact: float, *, informed: bool) -> None:
    """A taker's trade moves the public belief his way: out of the slow error if he knew, into the fast one if not."""
    if informed:
        latent.slow -= side * impact
    else:
        latent.fast -= side * impact


def listing(name: str, end_ns: int, dice: Random, *, rewards: bool) -> Instrument:
    """The rules of one made-up market, Polymarket-like: 1c tick, shares to 0.01, orders of 5 shares or more."""
    category, template = dice.choice(_FICTION)
    question = template.format(place=dice.choice(_PLACES), n=dice.randrange(10, 1000))
    # Drawn either way, so that a switch about money leaves the path alone.
    pool, rewarded = dice.randrange(5, 51) * CASH_PER_USD, dice.random() < 0.5
    return Instrument(
        id=InstrumentId(name),
        venue=VENUE,
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=6,
        grid=GRID,
        qty_step=QTY_STEP,
        min_qty=MIN_QTY,
        payout=PAYOUT,
        fee=FEE,
        reward=RewardRule(max_spread=350, min_qty=50 * SHARE, pool_per_day=pool) if rewards and rewarded else None,
        question=f"Simulated: {question}? ({name})",
        outcomes=("Yes", "No"),
        event_id=f"{name}-event",
        category=category,
        end_ns=end_ns,
    )


def encode_dice(value: Any) -> Any:
    """Hook for msgspec: a generator as its 625 words in base64 and the half of a pair of normals it may still hold."""
    if not isinstance(value, Random):
        raise TypeError(f"no JSON form of {type(value)}")
    _, words, spare = value.getstate()
    return [base64.b64encode(struct.pack(">625I", *words)).decode("ascii"), spare]


def decode_dice(kind: type[Any], value: Any) -> Any:
    """Hook for msgspec: the inverse of `encode_dice`."""
    if kind is not Random:
        raise TypeError(f"no value of {kind} from JSON")
    text, spare = value
    words = base64.b64decode(text)
    if len(words) != 4 * 625:
        raise ValueError(f"a generator has 625 words, not {len(words)} bytes")
    # Any seed does, for all of it is overwritten.
    dice = Random(0)
    dice.setstate((3, struct.unpack(">625I", words), spare))
    return dice
