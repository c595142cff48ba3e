"""What happens to a run at random moments: the venue, the clock, the loop, the process, the operator, the rules of a market.

A part of `weather.Weather`, whose fields it moves; decides nothing about when a thing is wrong.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.commands import (
    CancelOrder,
    RequestAccount,
    RequestSnapshot,
)
from llm_maker.core.engine import Engine, restore
from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    CashMoved,
    ClockStepped,
    FeedLost,
    FillFailed,
    FillSettled,
    InstrumentDropped,
    InstrumentListed,
    IntentReceived,
    LoopDelayed,
    MergeFailed,
    OperatorActed,
    OrderFilled,
    ParamsChanged,
    RegimeChanged,
    SetsMerged,
    Started,
    StorageFailed,
    TopReported,
    TradePrinted,
    VenueDown,
    VenueUp,
    Verb,
    WeightUpdated,
)
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_MS, NS_PER_S, FixedGrid, Regime
from llm_maker.venues.paper.regimes import VENUE
from tests.sim.climate import INCIDENTS, STRATEGY, params_of

HOT = (BookDelta, BookSnapshot, TopReported, TradePrinted)
MONEY = (OrderFilled, FillSettled, FillFailed, SetsMerged, MergeFailed, CashMoved)
"""What a port must deliver in the end, however late: it can be read again from the venue's history."""


class Incidents:
    """One method for each name in `climate.INCIDENTS`."""

    def _incident(self):
        if self.now >= self.storm_end:
            return
        self.later(self.dice.expovariate(1.0) * self.incident_s * NS_PER_S, self._incident)
        if not self.alive or self.now < self.blocked_until:
            return
        kind = self.dice.choice(INCIDENTS)
        self.happened[kind] += 1
        getattr(self, f"_do_{kind}")()

    def _some_market(self):
        return self.dice.choice(list(self.instruments))

    def _do_feed_lost(self):
        some = self.dice.sample(list(self.instruments), self.dice.randrange(1, len(self.instruments) + 1))
        self._deliver(FeedLost(tuple(some), "frozen shard"))

    def _do_venue_down(self):
        self.connected = False
        self.connection += 1
        self._deliver(VenueDown(VENUE, "socket closed"))
        self.later(self.seconds(0.1, 15), self._connect, self.connection)

    def _connect(self, connection):
        """A fresh connection: the word that it stands, then a full book of each market."""
        if not self.alive or connection != self.connection or self.connected:
            return
        self.connected = True
        self._deliver(VenueUp(VENUE, True))
        for name in self.instruments:
            if not self.hits("feed_drop"):
                self.market.execute(self.now, RequestSnapshot(name, "connected"))

    def _do_regime(self):
        regime = self.dice.choice([r for r in Regime if r is not Regime.OPEN])
        self._regime(regime)
        self.later(self.seconds(1, 20), self._regime, Regime.OPEN)

    def _regime(self, regime):
        event = RegimeChanged(VENUE, regime)
        self.exchange.observe(self.now, event)
        self.later(self.dice.choice((0, self.seconds(0, 1))), self._deliver_always, event)

    def _do_clock_step(self):
        step = self.dice.choice((-5, -1, 1, 3, 600)) * NS_PER_S + self.dice.randrange(-1, 2) * NS_PER_MS
        self._deliver(ClockStepped(step))
        self.later(self.seconds(1, 15), self._deliver, OperatorActed(Verb.RESUME, "weather"))

    def _do_loop_block(self):
        """Nothing is heard for a while; then all of it at once, behind the word that we were late."""
        delay = self.seconds(0.1, 6)
        self.blocked_until = self.now + delay
        for order in self.exchange.resting():
            self._explain(order.order_id, delay)
        self.later(delay, self._wake_up, delay)

    def _wake_up(self, delay=0):
        self.blocked_until = 0
        waiting, self.blocked = self.blocked, []
        if delay:
            self._deliver(LoopDelayed(delay))
        for event in waiting:
            self._deliver(event)

    def _do_lag(self):
        self.lag_ns = self.seconds(0.5, 6)
        self.lag_until = self.now + self.seconds(1, 15)

    def _do_silence(self):
        self.silent_until = self.now + self.seconds(2, 20)

    def _do_crash(self):
        self._crash()

    def _do_crash_sending(self):
        self.crash_sending = True

    def _crash(self):
        """The process is gone: with what its journal had not handed on of public data, and with all it was about to hear."""
        self.alive = self.connected = False
        self.connection += 1
        self.blocked, self.blocked_until = [event for event in self.blocked if isinstance(event, MONEY)], 0
        for event in self.blocked:
            self.later(NS_PER_S, self._deliver, event)
        self.blocked = []
        while self.journal and isinstance(self.journal[-1][1], HOT) and not self.journal[-1][2] and self.dice.random() < 0.8:
            self.journal.pop()
            self.log.pop()
            self.happened["journal_tail_lost"] += 1
        down = self.seconds(0.2, 12)
        self.later(down, self._restart)

    def _restart(self):
        """Back from the checkpoint and the journal behind it: every command must be the one that was recorded."""
        if self.alive:
            return
        self.engine = Engine(restore(self.saved, STRATEGY), STRATEGY)
        for at, event, commands in self.journal:
            made = self.engine.on_event(at, event)
            assert made == commands, f"after the restart {event} gives {made}, recorded {commands}"
        self.alive = True
        self.session += 1
        self.oracle.crashed(self.state.markets)
        for order in self.exchange.resting():
            self._explain(order.order_id, 3 * NS_PER_S)
        self._deliver(Started(self.session, True))
        if self.dice.random() < 0.5:
            self.later(self.seconds(0.1, 4), self._connect, self.connection)
        else:
            # A feed that does not say that it is up: it simply goes on.
            self.connected = True

    def _do_operator_market(self):
        verb = self.dice.choice((Verb.PAUSE, Verb.RESUME, Verb.RESUME, Verb.REDUCE, Verb.FLATTEN, Verb.CANCEL_ALL))
        name = self._some_market()
        self._deliver(OperatorActed(verb, "weather", name, take=self.dice.random() < 0.5))
        self.later(self.seconds(2, 20), self._deliver, OperatorActed(Verb.RESUME, "weather", name))

    def _do_operator_all(self):
        verb = self.dice.choice((Verb.PAUSE, Verb.RESUME, Verb.REDUCE, Verb.FLATTEN, Verb.CANCEL_ALL))
        self._deliver(OperatorActed(verb, "weather", take=self.dice.random() < 0.5))
        self.later(self.seconds(2, 15), self._deliver, OperatorActed(Verb.RESUME, "weather"))

    def _do_tick_change(self):
        name = self._some_market()
        step = 50 if self.instruments[name].grid == FixedGrid(100) else 100
        instrument = self.instruments[name] = msgspec.structs.replace(self.instruments[name], grid=FixedGrid(step))
        self.oracle.ledger.instruments[name] = instrument
        event = InstrumentListed(instrument)
        self.exchange.observe(self.now, event)
        self.later(self.dice.choice((0, self.seconds(0, 2))), self._deliver_always, event)

    def _do_dropped(self):
        name = self._some_market()
        self._deliver(InstrumentDropped(name, "filters"))
        self.later(self.seconds(2, 20), self._relist, name)

    def _relist(self, name):
        self._deliver_always(InstrumentListed(self.instruments[name]))

    def _do_storage(self):
        self._deliver(StorageFailed("ledger", "disk full"))
        self.later(self.seconds(1, 10), self._deliver, OperatorActed(Verb.RESUME, "weather"))

    def _do_weight(self):
        self._deliver(
            WeightUpdated(
                self.analyst.model, self.dice.choice(("politics", "weather", "sports")), Skill(weight=self.dice.choice((0.0, 0.5)))
            )
        )

    def _do_params(self):
        self.params = params_of(self.dice)
        patience = self.oracle.patience_ns = min(self.oracle.patience_ns, self.params.risk.exit_patience_ns)
        assert patience > 0
        raw = (msgspec.Raw(msgspec.json.encode(self.params)), msgspec.Raw(msgspec.json.encode(self.strategy_params)))
        self._deliver(ParamsChanged(*raw))

    def _do_intent(self):
        number = f"I{self.events}"
        net = self.dice.randrange(-40, 41) * 1_000_000
        self._deliver(IntentReceived(number, self._some_market(), net, "weather", "a bot"))
        if self.dice.random() < 0.5:
            self.later(self.seconds(1, 5), self._deliver, OperatorActed(Verb.APPROVE, "weather", intent_id=number))

    def _do_repeat_account(self):
        """An account read that nobody asked for just now: an old one again, or a fresh cross-check."""
        if self.last_snapshot is not None and self.dice.random() < 0.3:
            self._deliver(self.last_snapshot)
        else:
            self._arrive(RequestAccount("cross-check"))

    def _do_venue_cancels(self):
        """The venue takes an order out by itself: a balance that moved, a game that begins."""
        resting = self.exchange.resting()
        if resting:
            order = self.dice.choice(resting)
            self._arrive(CancelOrder(order.order_id, order.instrument, "by the venue"))
