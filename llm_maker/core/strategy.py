"""The contract of a strategy: what it sees (`MarketView`), what it may want (`Target`), how it is called (`Strategy`).

The engine knows no strategy by name; it alone turns targets into orders, legs and merges, and may always do less.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from llm_maker.core.bars import Bars
from llm_maker.core.book import Book
from llm_maker.core.estimators import Estimators
from llm_maker.core.hazard import Hazard
from llm_maker.core.positions import Position
from llm_maker.core.values import Instrument, Mode, Side


class QuoteTarget(msgspec.Struct, frozen=True):
    """A wanted resting order: YES-book side, price and quantity, and why. Always post-only."""

    side: Side
    price: int
    qty: int
    reason: str


class Urgency(StrEnum):
    TOUCH = "touch"
    """Rest at the touch, as maker."""
    CROSS = "cross"
    """Walk the visible book up to the slippage limit. Never set from a model's answer."""


class PositionTarget(msgspec.Struct, frozen=True):
    """A wanted net position; at most one per instrument."""

    net: int
    urgency: Urgency
    reason: str


Target = QuoteTarget | PositionTarget


class View(msgspec.Struct):
    """What the fast loop may read of one market's opinion: the effective one, after weight, age and price move.

    `shift`: add to the market's log-odds (0: no view). `size_ratio`: on every quantity. `target_net`: the position wanted,
    None for no view. `widen`: half-spread factor >= 1. `exit`: reduce until flat. `silent`: no orders at all (seed rule).
    """

    shift: float = 0.0
    size_ratio: float = 1.0
    widen: float = 1.0
    target_net: int | None = None
    exit: bool = False
    silent: bool = False
    bias: int = 0
    """The stated bias, -1, 0 or 1, while confidence suffices; 0 otherwise."""
    lean: int = 0
    """The side that the action opens: 1 for `buy_yes`, -1 for `buy_no`; 0 for what opens nothing."""
    weight: float = 0.0
    decision_id: str = ""


class Needs(msgspec.Struct, frozen=True):
    """What a strategy reads beyond the book, each worth its time on every look; what it does not read is left empty."""

    places: bool = False
    """`hazard`, `bid_ahead`, `ask_ahead` and `adverse`: our places in the queues are followed and fills are learned from."""
    parity: bool = False


class MarketView(msgspec.Struct):
    """All that a strategy may know of one market at one moment. To be read, never changed, never kept."""

    now: int
    instrument: Instrument
    book: Book
    estimators: Estimators
    bars: Bars
    position: Position
    opinion: View
    max_position: int
    """Hard cap of |net|, quantity units."""
    base_qty: int
    mode: Mode
    fallback: bool
    """The slow loop is in FALLBACK: half size, no view."""
    own_bid: int
    """Best price of ours resting or in flight on that side; 0 for none. For sticking to a queue place."""
    own_ask: int
    bid_depth: int
    """Quantity of others in the three best levels when the top last changed; deeper changes are not seen in between."""
    ask_depth: int
    widen: float = 1.0
    """Asked for by risk (volatility, re-entry after a pull) and by the opinion: a factor on the half-spread."""
    toxicity: float = 0.0
    """Price units to add to the half-spread, measured on our own fills."""
    free_cash_ratio: float = 1.0
    best_bid: int = 0
    """Best price and its quantity without our own resting orders; 0: nobody else is there. What is improved on, or joined."""
    best_ask: int = 0
    bid_qty: int = 0
    ask_qty: int = 0
    parity: float = 0.0
    """Price units that the other outcomes of the event move fair value by, so that all of them sum to 1.

    Plus only where their sum is below 1: that says something only if every outcome is listed (`core/parity.py`)."""
    bankroll: int = 0
    """Cash units."""
    hazard: Hazard | None = None
    """How soon orders fill in this class of tick and spread, and at what cost; None before the first lesson."""
    bid_ahead: int = -1
    """Quantity before our best bid at its own price, an upper estimate; -1: not known. `ask_ahead` alike."""
    ask_ahead: int = -1
    adverse: float | None = None
    """Mean adverse move in the 60 s after our fills here, price units, of the sides that have one; None before the first."""
    shown_bids: dict[int, int] = {}
    """Price -> quantity of ours in the book's levels; empty where the venue's book does not show our orders."""
    shown_asks: dict[int, int] = {}


class Strategy(Protocol):
    """A pure rule. `params` and `own` are msgspec structs of the strategy's own types; `own` is checkpointed with the state.

    `own.note` (str) says in a few fixed words why nothing is wanted; empty otherwise.
    """

    name: str
    params_type: type[Any]
    state_type: type[Any]

    def on_market(self, view: MarketView, own: Any, params: Any) -> list[Target]:
        """What is wanted on this market now; an empty list is "no orders". May update `own`, nothing else."""
        ...

    def needs(self, params: Any) -> Needs:
        """What it reads under these params; may change with them."""
        ...

    def due(self, last_asked_ns: int, now: int, params: Any) -> bool:
        """Whether a new round of questions to the model is due by this strategy's rhythm."""
        ...
