"""The simulation of `quoting.md` 9 made again from its text alone, to see whether its arms (a) and (b) come out in its order.

Nothing of the product runs here: numpy over many market-days at once, 8,640 steps of 10 s, by the rules of 9.1 and 9.2. It is the
yardstick beside which the real engine is read (`benchmarks.arms`): what differs there is the engine, or its exchange.

`python -m benchmarks.published --days 2000`
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import msgspec
import numpy as np

from llm_maker.venues.paper.regimes import FAST_HALF_LIFE_S, FAST_SD, JUMP_SD, REGIMES, URGENCY_MAX, URGENCY_SCALE, Regime

STEPS, STEP_S, DAY_S = 8_640, 10.0, 86_400.0
TICK = 0.01
LOT, CAP = 50.0, 200.0
OTHERS = 200.0
GAMMA, DECAY, ARRIVALS = 0.5, 60.0, 0.8
"""gam (1/USD), k (1/USD), and the share of noise takers that are the intensity A of the closed form."""
FEE = 0.04
TABLE = {
    "benign": ((13.40, 8.8, 0.79, 0.30), (14.84, 5.1, 1.32, 0.21), (1.44, 0.28)),
    "mixed": ((2.85, 9.8, 0.30, 0.47), (6.24, 4.9, 0.86, 0.35), (3.39, 0.31)),
    "toxic": ((-5.04, 12.6, -0.60, 0.70), (0.17, 6.5, 0.05, 0.55), (5.20, 0.37)),
    "neglected": ((-0.10, 11.7, 0.04, 0.53), (7.55, 6.5, 0.91, 0.48), (7.65, 0.39)),
}
"""9.3: (mean, sd, edge in cents, toxic share) of (a) and of (b), and b - a with half its interval."""
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Outcome(msgspec.Struct, frozen=True):
    """One arm in one regime: USD per market-day, and of its fills cents a share and the share at a loss."""

    pnl: list[float]
    edge_cents: float
    toxic: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.pnl))

    @property
    def sd(self) -> float:
        return float(np.std(self.pnl, ddof=1))


def expit(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


class Days:
    """Many market-days of one regime side by side; `seed` gives the same world to every arm."""

    def __init__(self, regime: Regime, days: int, seed: int) -> None:
        self.regime, self.days = regime, days
        self.dice = dice = np.random.default_rng(seed)
        self.x = dice.uniform(-2.0, 2.0, days)
        self.slow = dice.normal(0.0, regime.slow_sd, days)
        self.fast = dice.normal(0.0, FAST_SD, days)
        self.half = dice.choice(np.array([0.010, 0.015, 0.020, 0.025]), days)
        self.net, self.cash = np.zeros(days), np.zeros(days)
        self.shares = self.edge = self.bad = 0.0

    def move(self) -> None:
        """Ten seconds of news, of what the public learns of it, and of its slow error's own walk."""
        regime, dice, n = self.regime, self.dice, self.days
        variance = regime.sigma**2 * STEP_S / DAY_S
        public, hidden = dice.normal(0.0, math.sqrt(variance / 2), n), dice.normal(0.0, math.sqrt(variance / 2), n)
        jumps = np.where(dice.random(n) < regime.jumps_per_day * STEP_S / DAY_S, dice.normal(0.0, JUMP_SD, n), 0.0)
        drift = 0.5 * (variance + regime.jumps_per_day * STEP_S / DAY_S * JUMP_SD**2) * np.tanh(0.5 * self.x)
        self.x += drift + public + hidden + jumps
        kept = 0.5 ** (STEP_S / FAST_HALF_LIFE_S)
        self.fast = self.fast * kept + hidden + jumps + dice.normal(0.0, FAST_SD * math.sqrt(1 - kept * kept), n)
        kept = 0.5 ** (STEP_S / (regime.slow_half_life_days * DAY_S))
        self.slow = self.slow * kept + dice.normal(0.0, regime.slow_sd * math.sqrt(1 - kept * kept), n)

    def public(self) -> Floats:
        return expit(self.x - self.slow - self.fast)

    def book(self) -> tuple[Floats, Floats]:
        """What the other makers show, in ticks."""
        value = self.public()
        bid = np.clip(np.floor((value - self.half) / TICK + 1e-9), 1, 98)
        ask = np.clip(np.ceil((value + self.half) / TICK - 1e-9), 2, 99)
        return bid, np.maximum(ask, bid + 1)

    def trade(self, bid: Floats, ask: Floats, ours: tuple[Floats, Floats]) -> None:
        """The takers of one step; each side has at most one of a kind, noise before informed."""
        dice, regime, n = self.dice, self.regime, self.days
        for side in (1, -1):
            came = dice.random(n) < regime.noise_per_day * STEP_S / DAY_S
            size, reach, luck = dice.exponential(40.0, n), dice.exponential(0.0167, n), dice.random(n)
            self._take(side, came, size, self.public() + side * reach, luck, (bid, ask), ours, informed=False)
        urgency = 1.0 + np.minimum(URGENCY_MAX, np.abs(self.fast) / URGENCY_SCALE)
        came = dice.random(n) < regime.informed_per_day * STEP_S / DAY_S * urgency
        size, luck = dice.exponential(120.0, n), dice.random(n)
        true = expit(self.x)
        fee = FEE * true * (1.0 - true)
        for side in (1, -1):
            self._take(side, came, size, true - side * fee, luck, (bid, ask), ours, informed=True)

    def _take(
        self,
        side: int,
        came: Floats,
        size: Floats,
        limit: Floats,
        luck: Floats,
        book: tuple[Floats, Floats],
        ours: tuple[Floats, Floats],
        *,
        informed: bool,
    ) -> None:
        """Buyers (side 1) meet asks, sellers bids; our share by 9.1: better 50 %, joined 30 %, behind only what is left of 200."""
        theirs, mine = (book[1], ours[1]) if side > 0 else (book[0], ours[0])
        quoting = ~np.isnan(mine)
        at = np.where(quoting, mine, theirs)
        room = np.clip(CAP + side * self.net, 0.0, LOT)
        better, joined = quoting & (side * (theirs - at) > 0), quoting & (theirs == at)
        reaches_us = came & (side * (limit - at * TICK) >= 0)
        reaches_them = came & (side * (limit - theirs * TICK) >= 0)
        share = np.where(better, np.where(informed & (size > OTHERS), 1.0, 0.5), np.where(joined, 0.3, 0.0))
        first = reaches_us & (luck < share)
        behind = quoting & ~better & ~joined & reaches_us & (size > OTHERS)
        filled = np.where(first, np.minimum(size, room), np.where(behind, np.minimum(size - OTHERS, room), 0.0))
        self._fill(side, filled, at)
        traded = reaches_them | (filled > 0)
        if informed:
            self.slow = np.where(traded, self.slow - side * self.regime.informed_impact, self.slow)
        else:
            self.fast = np.where(traded, self.fast - side * self.regime.noise_impact, self.fast)

    def _fill(self, side: int, filled: Floats, at: Floats) -> None:
        if not filled.any():
            return
        price = np.where(filled > 0, at * TICK, 0.0)
        self.net -= side * filled
        self.cash += side * filled * price
        edge = side * (price - expit(self.x)) * filled
        self.shares += float(filled.sum())
        self.edge += float(edge.sum())
        self.bad += float(filled[edge < 0].sum())


def touch(world: Days, bid: Floats, ask: Floats) -> tuple[Floats, Floats]:
    """(a): one tick inside a spread of three or more, else joined; stops at the cap; no skew."""
    wide = ask - bid >= 3
    mine = np.where(wide, bid + 1, bid), np.where(wide, ask - 1, ask)
    return np.where(world.net < CAP, mine[0], np.nan), np.where(world.net > -CAP, mine[1], np.nan)


def inventory(world: Days, bid: Floats, ask: Floats, *, skewed: bool = True) -> tuple[Floats, Floats]:
    """(b): the closed form of 2.1 on the public value, no wider than a tick inside the touch, no narrower than 1c."""
    fair = world.public()
    sigma = fair * (1 - fair) * world.regime.sigma / math.sqrt(DAY_S)
    arrivals = world.regime.noise_per_day * ARRIVALS / DAY_S
    risk = 1 + GAMMA * LOT / DECAY
    c1 = math.log(risk) / (GAMMA * LOT)
    c2 = math.sqrt(GAMMA / (2 * arrivals * LOT * DECAY) * risk ** (DECAY / (GAMMA * LOT) + 1))
    half = np.maximum(np.minimum(c1 + 0.5 * LOT * sigma * c2, (ask - bid) / 2 * TICK - TICK), 0.01)
    centre = fair - (world.net * sigma * c2 if skewed else 0.0)
    mine_bid = np.minimum(np.floor((centre - half) / TICK + 1e-9), ask - 1)
    mine_ask = np.maximum(np.ceil((centre + half) / TICK - 1e-9), bid + 1)
    can_buy = (world.net < CAP) & (mine_bid >= 1)
    can_sell = (world.net > -CAP) & (mine_ask <= 99)
    return np.where(can_buy, mine_bid, np.nan), np.where(can_sell, mine_ask, np.nan)


ARMS = {
    "a": touch,
    "b": inventory,
    "b without skew": lambda world, bid, ask: inventory(world, bid, ask, skewed=False),
}


def run(regime: str, arm: str, days: int, seed: int) -> Outcome:
    """One arm; our quotes of a step were made in the step before."""
    world = Days(REGIMES[regime], days, seed)
    ours: tuple[Floats, Floats] = (np.full(days, np.nan), np.full(days, np.nan))
    for _ in range(STEPS):
        world.move()
        bid, ask = world.book()
        # A late quote that has come to cross the others' would have been refused: post-only.
        standing = np.where(ours[0] < ask, ours[0], np.nan), np.where(ours[1] > bid, ours[1], np.nan)
        world.trade(bid, ask, standing)
        ours = ARMS[arm](world, bid, ask)
    pnl = world.cash + world.net * expit(world.x)
    shares = max(world.shares, 1e-9)
    return Outcome([float(v) for v in pnl], 100 * world.edge / shares, world.bad / shares)


def table(found: dict[str, dict[str, Outcome]]) -> list[str]:
    """Markdown: ours beside theirs."""
    lines = [
        "| regime | arm | P&L +- sd | edge, cents | toxic share | b - a | `quoting.md` 9.3: P&L, sd, edge, toxic | b - a there |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for regime, arms in found.items():
        base = np.array(arms["a"].pnl)
        for arm, one in arms.items():
            gap = np.array(one.pnl) - base
            half = 1.96 * float(np.std(gap, ddof=1)) / math.sqrt(len(gap))
            told = TABLE[regime]["ab".index(arm)] if arm in ("a", "b") else None
            there = f"{told[0]:+.2f}, {told[1]}, {told[2]:+.2f}, {told[3]:.2f}" if told else ""
            lines.append(
                f"| {regime} | {arm} | {one.mean:+.2f} +-{one.sd:.1f} | {one.edge_cents:+.2f} | {one.toxic:.2f} | "
                f"{'' if arm == 'a' else f'{gap.mean():+.2f} +-{half:.2f}'} | {there} | "
                f"{f'{TABLE[regime][2][0]:+.2f} +-{TABLE[regime][2][1]}' if arm == 'b' else ''} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.published", description="The published simulation, made again.")
    parser.add_argument("--days", type=int, default=2_000, help="market-days an arm")
    parser.add_argument("--seed", type=int, default=200_001)
    args = parser.parse_args()
    found: dict[str, dict[str, Outcome]] = {}
    for number, regime in enumerate(REGIMES):
        found[regime] = {}
        for arm in ARMS:
            print(f"{regime} ({arm}) ...", end="\r", file=sys.stderr)
            found[regime][arm] = run(regime, arm, args.days, args.seed + number)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
