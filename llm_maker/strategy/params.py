"""What the maker is tuned by, and which of its terms are on; what it keeps of a market between two looks."""

from __future__ import annotations

import msgspec

from llm_maker.core.values import NS_PER_S


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Every term of the `inventory` quoting beyond fair value, skew and floor: on or off, each by itself.

    What each one is worth is measured; one that did not help is off by default.
    """

    toxicity: bool = True
    """Widen by the measured 60 s markout of our own fills (`quoting.md` 2.3)."""
    flow: bool = False
    """Lean fair value with the signed taker flow (1.1); only where the venue's aggressor side has been audited."""
    parity: bool = False
    """Project the outcomes of one event, of which exactly one pays, onto a sum of 1 (1.3).

    Off: it leans to selling, on the same word of the listing that the cap of the event trusts, and its worth is not measured."""
    decay: bool = False
    """Let a "by date" market drift to NO while nothing happens (1.2)."""
    table: bool = False
    """Choose among candidate ticks by expected value, queue place included (2.4), in place of the rule of spreads."""
    reward: bool = True
    """The venue's liquidity reward in that table (2.7)."""
    rebate: bool = True
    """The maker rebate in the edge (2.8)."""
    unwind: bool = False
    """Hold no more than the present book would take back at a bearable cost; seen once a second where only deep levels change."""
    taper: bool = False
    """Smaller orders as resolution comes near."""
    kelly: bool = False
    """The position a view asks for is its fractional Kelly bet (3), not a step of the base size."""


class MakerParams(msgspec.Struct, frozen=True, kw_only=True):
    """What the maker is tuned by; ratios and USD as people write them."""

    quoting: str = "inventory"
    signal_rule: str = "pooled"
    interval_ns: int = 45 * NS_PER_S
    tick_improvement: int = 1
    max_spread_usd: float = 0.10
    max_spread_ratio: float = 0.002
    """Linear instruments: of the price."""
    min_liquidity_usd: float = 50.0
    """Within three levels, on each side; read as the cost of the token a taker of that side would get."""
    skew_max_ticks: float = 3.5
    edge_floor_ticks: float = 1.0
    soft_cap: float = 0.7
    queue_patience: float = 5.0
    """Join a one-tick spread only behind fewer average trades than this."""
    sig_ref: float = 0.0625 / 293.9387691339814
    """Price volatility per square root of a second that `skew_max_ticks` is meant for: 6.25c a day, as a share of the payout."""
    flow_ticks: float = 0.25
    """w_f of `quoting.md` 1.1: ticks of fair value per standard deviation of flow, at most 0.5."""
    decay_hold_ns: int = 6 * 3_600 * NS_PER_S
    """How long a position is expected to be held: the drift of that time is priced in."""
    by_date: tuple[str, ...] = ()
    """Ids of "by date" markets beside those whose question says so."""
    complete_events: tuple[str, ...] = ()
    """Events of which every outcome is listed here: there a sum below 1 is corrected too, not only one above."""
    unwind_max_ticks: float = 3.0
    """What leaving the whole position on the present book may cost a share, on the mean, in ticks from fair value."""
    taper_ns: int = 72 * 3_600 * NS_PER_S
    """From this long before resolution on what adds to a position shrinks, linearly, to a quarter at the reduce-only hour."""
    taper_end_ns: int = 24 * 3_600 * NS_PER_S
    """The reduce-only hour: how long before resolution it comes."""
    kelly_ratio: float = 0.1
    terms: Terms = Terms()


class Near(msgspec.Struct, array_like=True):
    """The book near the touch as the table last read it, without us; quantity units."""

    version: int
    at_ns: int
    bids: tuple[int, ...]
    """Quantity at or better than 0, 1, 2 ticks behind the best bid; `asks` alike."""
    asks: tuple[int, ...]
    mid2: int
    """Twice the midpoint of the reward rule; 0: none."""
    rivals: int
    """The most that the others can score there."""


class MakerState(msgspec.Struct):
    """Why it wanted nothing, and what made its last prices; both for `why` and the report."""

    note: str = ""
    terms: dict[str, float] = {}
    """Term -> what it added to the reservation price or (`half`, `toxicity`) to the half-spread, price units.

    Of the terms that only shrink orders (`taper`, `unwind`): the quantity they took off both sides, shares, absent where none."""
    near: Near | None = None
