"""What made or lost the money: the exact P&L identity of a track and its parts, fill by fill (`quoting.md` 6.1).

For each fill i of side s, quantity n and price pi, with m the mid at the fill, m_h the mid `h` later and M the mark at the end
(what a share paid, once the market is resolved), all in half price units:

    P&L = sum s n (m - pi)  [capture]  +  sum s n (m_h - m)  [markout]  +  sum s n (M - m_h)  [inventory]
          - fees + rebates + rewards + funding + rounding          and the model's bill beside it, paid elsewhere

for every horizon h alone. A fill without a price at h has no markout there, and its whole move from m on is inventory; one whose
own mid is not known has neither, and its move is `unknown`. Merges and splits turn pairs into cash and cash into pairs at the
payout, and redemptions are sales at M, so no line is needed for them. Amounts are integers: `Identity.scale` of them are one cash
unit, chosen so that half a price unit times a quantity unit of every instrument is a whole number of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from fractions import Fraction

import msgspec

from llm_maker.core.values import CASH_PER_USD
from llm_maker.report.track import MARKOUTS_S, Fill, Quoted, Track

SETTLEMENT = 0
"""The horizon after all the others: what the share paid."""
HORIZONS = (*MARKOUTS_S, SETTLEMENT)
_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9)
NOT_LEANING = frozenset(("fair", "half", "toxicity"))
"""Terms that move neither quote towards a side: the fair value itself, and what widens."""


class Moves(msgspec.Struct, frozen=True):
    """One fill, split; amounts as in the identity of its track."""

    fill: Fill
    pnl: int
    """From its price to the mark at the end, before fees."""
    capture: int | None
    """None: the mid of its moment is not known."""
    markouts: dict[int, int]
    """Horizon -> move from then; one past the data is missing."""
    fee: int


class Horizon(msgspec.Struct, frozen=True):
    """One split of the same move. `markout` is of `known` of the `of` fills; None (n/a): the data reach none of them."""

    markout: int | None
    inventory: int
    known: int
    of: int


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """P&L at mid of an account, split. Amounts in `1 / scale` cash units.

    For each horizon, always: `pnl == capture + unknown + markout + inventory + fees + rebates + rewards + funding + rounding +
    unexplained`. It `closes` when nothing is unexplained: the equity that was booked is what the fills make of it, to the rounding
    of each movement of cash. None: it is of a part of the account, whose equity nobody books. `why`: why it does not.
    """

    scale: int
    pnl: int
    fills: int
    capture: int
    unknown: int
    """Whole move of the fills without a mid."""
    unknown_fills: int
    horizons: dict[int, Horizon]
    fees: int
    """Signed: what was paid is minus."""
    rebates: int
    rewards: int
    funding: int
    rounding: int
    """Of cash to its unit, fill by fill, and of marks between two prices."""
    unexplained: int
    llm_cost: int
    """Minus; not part of the P&L."""
    closes: bool | None
    why: str = ""

    def usd(self, amount: int) -> float:
        """For people only."""
        return amount / self.scale / CASH_PER_USD


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The fills of one kind, added up; `1 / scale` cash units. `moves` are the fills themselves, for an interval."""

    scale: int
    fills: int
    shares: float
    capture: int | None
    """None: of none of them is the mid known."""
    horizons: dict[int, Horizon]
    pnl: int
    """From their prices to the end, before fees."""
    fees: int
    """Signed as in the identity."""
    moves: list[Moves]


def moves(track: Track, instruments: Collection[str] | None = None) -> list[Moves]:
    """Every fill that stands, split; of these instruments, or all."""
    scale = scale_of(track)
    last = {fill.instrument: fill.price for fill in track.fills}
    ends = {name: _end(quoted, last.get(name, 0)) for name, quoted in track.instruments.items()}
    units = {name: _unit(quoted, scale) for name, quoted in track.instruments.items()}
    return [
        _moves(fill, track.instruments[fill.instrument], ends[fill.instrument], units[fill.instrument], scale)
        for fill in track.fills
        if instruments is None or fill.instrument in instruments
    ]


def identity(track: Track, instruments: Collection[str] | None = None) -> Identity:
    """The split of a track's P&L; of some of its instruments it is of what they made, and there is nothing to close it against."""
    scale = scale_of(track)
    split = moves(track, instruments)
    capture = sum(m.capture for m in split if m.capture is not None)
    unknown = [m.pnl for m in split if m.capture is None]
    flows = track.flows if instruments is None else _flows_of(track, instruments)
    fees, rebates, rewards, funding = (flows[key] * scale for key in ("fees", "rebates", "rewards", "funding"))
    told = sum(m.pnl for m in split) + fees + rebates + rewards + funding
    rounding, unexplained, closes, why = 0, 0, None, "a part of the account"
    if instruments is None:
        rounding, unexplained, why = _close(track, scale, (track.equity - track.start_cash - flows["transfers"]) * scale - told)
        closes = not unexplained
    return Identity(
        scale=scale,
        pnl=told + rounding + unexplained,
        fills=len(split),
        capture=capture,
        unknown=sum(unknown),
        unknown_fills=len(unknown),
        horizons=_horizons(split),
        fees=fees,
        rebates=rebates,
        rewards=rewards,
        funding=funding,
        rounding=rounding,
        unexplained=unexplained,
        llm_cost=-sum(cost for _, cost in track.model_costs) * scale,
        closes=closes,
        why=why,
    )


def by(track: Track, key: Callable[[Fill], str]) -> dict[str, Part]:
    """The fills grouped by a key, in order of name."""
    groups: dict[str, list[Moves]] = {}
    for one in moves(track):
        groups.setdefault(key(one.fill), []).append(one)
    scale = scale_of(track)
    return {name: _part(track, scale, groups[name]) for name in sorted(groups)}


def scale_of(track: Track) -> int:
    """Parts of a cash unit that make half a price unit times a quantity unit of every instrument a whole number."""
    return math.lcm(1, *(_half(quoted).denominator for quoted in track.instruments.values()))


def settled(track: Track) -> set[str]:
    """The instruments whose outcome is known."""
    return {name for name, quoted in track.instruments.items() if quoted.settled2 is not None}


# Keys for `by`.


def market(fill: Fill) -> str:
    return fill.instrument


def side(fill: Fill) -> str:
    return "buy" if fill.side > 0 else "sell"


def liquidity(fill: Fill) -> str:
    return "maker" if fill.maker else "taker"


def reason(fill: Fill) -> str:
    return fill.reason or "none"


def model(fill: Fill) -> str:
    return fill.model or "none"


def action(fill: Fill) -> str:
    return fill.action or "none"


def confidence(fill: Fill) -> str:
    """The bin of the stated confidence; `none` without an opinion."""
    return confidence_bin(fill.confidence) if fill.model else "none"


def confidence_bin(stated: float) -> str:
    """`0.6-0.7`, the upper end not in it; all below one half are one bin."""
    low = max((edge for edge in _EDGES if edge <= stated), default=0.0)
    high = min((edge for edge in _EDGES if edge > stated), default=1.0)
    return f"{low:.1f}-{high:.1f}"


def agreement(fill: Fill) -> str:
    """Whether the fill went the way that the opinion leant: `with`, `against`, `none` (`quoting.md` 6.1, tilt by sign of d)."""
    return _leaning(fill.side * fill.shift)


def leaning(name: str) -> Callable[[Fill], str]:
    """The key of one term of the strategy: whether the fill went the way that it moved the reservation price."""
    return lambda fill: _leaning(fill.side * fill.terms.get(name, 0.0))


def largest_term(fill: Fill) -> str:
    """The term that moved the reservation price most; `none` where none did."""
    sizes = {name: abs(value) for name, value in fill.terms.items() if name not in NOT_LEANING and value}
    return max(sizes, key=lambda name: (sizes[name], name), default="none")


def _leaning(signed: float) -> str:
    return "with" if signed > 0 else "against" if signed < 0 else "none"


def _half(quoted: Quoted) -> Fraction:
    """Cash units in half a price unit times a quantity unit."""
    return Fraction(CASH_PER_USD, 2 * quoted.price_scale * quoted.qty_scale)


def _unit(quoted: Quoted, scale: int) -> int:
    unit = _half(quoted) * scale
    assert unit.denominator == 1, "the scale is a multiple of every denominator"
    return unit.numerator


def _end(quoted: Quoted, last_price: int) -> int:
    """The doubled mark at the end. Of what is flat any one does: without a mark the last fill's price."""
    if quoted.settled2 is not None:
        return quoted.settled2
    return quoted.mid2 if quoted.mid2 or quoted.net else 2 * last_price


def _moves(fill: Fill, quoted: Quoted, end: int, unit: int, scale: int) -> Moves:
    size = fill.side * fill.qty * unit
    known = fill.mid2 != 0
    marks = fill.marks if quoted.settled2 is None else fill.marks | {SETTLEMENT: quoted.settled2}
    return Moves(
        fill=fill,
        pnl=size * (end - 2 * fill.price),
        capture=size * (fill.mid2 - 2 * fill.price) if known else None,
        markouts={horizon: size * (mid2 - fill.mid2) for horizon, mid2 in marks.items()} if known else {},
        fee=fill.fee * scale,
    )


def _horizons(split: list[Moves]) -> dict[int, Horizon]:
    """The same move after the fills, split at each horizon."""
    later = sum(m.pnl - m.capture for m in split if m.capture is not None)
    found = {}
    for horizon in HORIZONS:
        told = [m.markouts[horizon] for m in split if horizon in m.markouts]
        found[horizon] = Horizon(sum(told) if told else None, later - sum(told), len(told), len(split))
    return found


def _close(track: Track, scale: int, rest: int) -> tuple[int, int, str]:
    """(rounding, unexplained, why) of what the lines leave over.

    Equity takes a mark between two prices at the one that is less for us, which is known exactly; each fill, each other movement of
    cash and each market may round by one cash unit.
    """
    marking = 0
    for quoted in track.instruments.values():
        if quoted.settled2 is None:
            taken = quoted.mid2 // 2 if quoted.net > 0 else -(-quoted.mid2 // 2)
            marking += quoted.net * (2 * taken - quoted.mid2) * _unit(quoted, scale)
    entries = len(track.fills) + track.failed_fills + len(track.money) + len(track.instruments)
    if abs(rest - marking) <= entries * scale:
        return rest, 0, ""
    if "since_ns" in track.label:
        return 0, rest, "the record begins with positions whose fills are older: what they made since is unexplained"
    return 0, rest, "the equity on record is not what its fills and movements of cash make: shares came or went without one"


def _flows_of(track: Track, instruments: Collection[str]) -> dict[str, int]:
    """What of the cash that is no trade names these instruments."""

    def moved(kind: str) -> int:
        return sum(move.amount for move in track.money if move.kind == kind and move.instrument in instruments)

    paid = sum(fill.fee for fill in track.fills if fill.instrument in instruments)
    return {"fees": moved("fee") - paid, "rebates": moved("rebate"), "rewards": moved("reward"), "funding": moved("funding")}


def _part(track: Track, scale: int, split: list[Moves]) -> Part:
    captures = [m.capture for m in split if m.capture is not None]
    return Part(
        scale=scale,
        fills=len(split),
        shares=sum(m.fill.qty / track.instruments[m.fill.instrument].qty_scale for m in split),
        capture=sum(captures) if captures else None,
        horizons=_horizons(split),
        pnl=sum(m.pnl for m in split),
        fees=-sum(m.fee for m in split),
        moves=split,
    )
