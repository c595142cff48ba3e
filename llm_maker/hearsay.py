"""What a shadow hears of the events that were meant for main: all shadows what a person does, some the model's answers too.

A person's pause, reduce, flatten, kill and wishes apply to every account: the difference between them is then the model's alone.
`adopt` does not, for foreign shares are the real account's. It decides nothing; a shadow journals what it hears as its own.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable

import msgspec

from llm_maker.core.advice import Signal
from llm_maker.core.events import (
    AccountStreamUp,
    Event,
    IntentReceived,
    OperatorActed,
    SignalsFailed,
    SignalsReceived,
    SignalsSkipped,
    Started,
    StopRequested,
    Verb,
    WeightUpdated,
)
from llm_maker.core.signals import market_x
from llm_maker.core.state import State
from llm_maker.core.values import expit, logit

Answer = SignalsReceived | SignalsFailed | SignalsSkipped
MEMORY = 64
"""Signals of main that the placebo's are drawn from."""


class PersonOnly:
    """Of main's own events what a person or the end of the run brings: what the twin hears, who knows of no model."""

    def __init__(self, stream: str = "") -> None:
        """`stream`: the venue whose account stream a core with live rules waits for; the paper exchange always speaks."""
        self._stream = stream

    def on_main(self, event: Event) -> Iterable[Event]:
        match event:
            case Started():
                return (event, AccountStreamUp(self._stream)) if self._stream else (event,)
            case StopRequested() | IntentReceived():
                return (event,)
            case OperatorActed() if event.verb is not Verb.ADOPT:
                return (event,)
            case _:
                return ()

    def on_tick(self) -> Iterable[Event]:
        return ()


class Answers(PersonOnly):
    """The same, and every answer as main was given it: the late one that it did not use, and the one that never came."""

    def __init__(self, main: State, stream: str = "") -> None:
        super().__init__(stream)
        self._main = main
        self._pending = ""
        """The request that main waits for."""

    def on_main(self, event: Event) -> Iterable[Event]:
        match event:
            case SignalsReceived() | SignalsFailed() | SignalsSkipped():
                awaited, self._pending = event.request_id == self._pending, self._main.slow.pending
                return (self.told(event if awaited else msgspec.structs.replace(event, request_id="")),)
            case WeightUpdated():
                return (event,)
            case _:
                if isinstance(event, Started):
                    self._pending = ""
                return super().on_main(event)

    def on_tick(self) -> Iterable[Event]:
        """Main asks, and gives an answer up, on a Tick only."""
        lost, self._pending = self._pending, self._main.slow.pending
        return (SignalsFailed(lost, "", "timeout", "no answer in time"),) if lost and lost != self._pending else ()

    def told(self, answer: Answer) -> Answer:
        """The answer as this account hears it."""
        return answer


class Dealt(msgspec.Struct, frozen=True):
    """A signal of main as a card: what it said, and its distance to the market then, in log-odds (None: it named no number)."""

    signal: Signal
    p_yes: float | None
    p_low: float | None
    p_high: float | None
    binary: bool


class Dealer(Answers):
    """Deals each answer's opinions to the wrong markets: words of the same kind, as often and as sure, about something else.

    For each signal one is drawn from the last `MEMORY` of main's, never of the same market, by a hash of seed, decision and place:
    its action, confidence and distance in log-odds to its own market's mid, set on this market's mid. Without such a one to draw
    nothing is said. The placebo pays for no model. The memory begins empty in each session.
    """

    def __init__(self, main: State, seed: int, stream: str = "") -> None:
        super().__init__(main, stream)
        self._seed = seed
        self._cards: deque[Dealt] = deque(maxlen=MEMORY)

    def told(self, answer: Answer) -> Answer:
        if isinstance(answer, SignalsSkipped):
            return answer
        if isinstance(answer, SignalsFailed):
            return msgspec.structs.replace(answer, cost=0)
        self._cards.extend(card for card in map(self._card, answer.signals) if card is not None)
        dealt = (self._deal(signal, f"{answer.decision_id}/{n}") for n, signal in enumerate(answer.signals))
        return msgspec.structs.replace(answer, signals=tuple(s for s in dealt if s is not None), cost=0, members=())

    def _x(self, market_id: str) -> tuple[float, bool] | None:
        """Where a market stands, in its fair-value space, and whether that is log-odds; None: nowhere yet."""
        market = self._main.markets.get(market_id)
        if market is None or market.book.mid is None:
            return None
        return market_x(market.instrument, market.book.mid), market.instrument.is_binary

    def _card(self, signal: Signal) -> Dealt | None:
        place = self._x(signal.market_id)
        if place is None:
            return None
        x, binary = place

        def distance(p: float | None) -> float | None:
            return logit_of(p) - x if p is not None and binary else None

        return Dealt(signal, distance(signal.p_yes), distance(signal.p_low), distance(signal.p_high), binary)

    def _deal(self, signal: Signal, key: str) -> Signal | None:
        place = self._x(signal.market_id)
        if place is None:
            return None
        x, binary = place
        cards = [card for card in self._cards if card.signal.market_id != signal.market_id and card.binary == binary]
        if not cards:
            return None
        drawn = hashlib.blake2b(f"{self._seed}/{key}".encode(), digest_size=8).digest()
        card = cards[int.from_bytes(drawn) % len(cards)]

        def here(d: float | None) -> float | None:
            return None if d is None else expit(x + d)

        return msgspec.structs.replace(
            card.signal,
            market_id=signal.market_id,
            p_yes=here(card.p_yes),
            p_low=here(card.p_low),
            p_high=here(card.p_high),
            reasoning=f"placebo: said of {card.signal.market_id}",
            evidence="",
        )


def logit_of(p: float) -> float:
    """Log-odds of a stated probability, kept as far from 0 and 1 as a market's own."""
    edge = 0.005
    return logit(min(max(p, edge), 1.0 - edge))
