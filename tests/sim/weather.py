"""One seed, one whole run: engine, simulated exchange, simulated market and simulated analyst with hostile weather between them.

Virtual time; everything in it is simulated. The exchange and the market always see the truth in order; what the engine
hears and what becomes of its commands is this file's business: lost, late, doubled, out of order, contradictory, during a
blocked loop, across a crash. It judges nothing: `oracle` does. The dice of a run follow from its seed alone.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import count
from random import Random

import msgspec

from llm_maker.core.commands import (
    CancelOrder,
    LookUpOrder,
    MergeSets,
    PlaceOrder,
    RequestAccount,
    RequestSignals,
    RequestSnapshot,
    Stop,
)
from llm_maker.core.engine import Engine, checkpoint, new_state, restore
from llm_maker.core.events import (
    AccountSnapshot,
    AccountUnknown,
    BookDelta,
    CancelRejected,
    CashMoved,
    FillFailed,
    Holding,
    InstrumentListed,
    MarketResolved,
    MergeFailed,
    OperatorActed,
    OrderCanceled,
    OrderFilled,
    OrderUncertain,
    RestingOrder,
    SignalsFailed,
    SignalsReceived,
    Started,
    StopRequested,
    Tick,
    TopReported,
    VenueUp,
    Verb,
)
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, Leg, Regime, Side
from llm_maker.llm.simulated import SimulatedAnalyst
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.paper.records import ExchangeParams
from tests.sim.climate import DAY_S, ENDINGS, STRATEGY, Climate, Report, climate_of, lie, params_of, strategy_of
from tests.sim.incidents import MONEY, Incidents
from tests.sim.oracle import Oracle

RESTLESS = 8
"""Messages of one market in stillness while others take or leave room under a common cap: that must come to an end."""
TICK_NS = 250 * NS_PER_MS
UPLINK = {
    PlaceOrder: "_send_place",
    CancelOrder: "_send_cancel",
    LookUpOrder: "_send_lookup",
    RequestAccount: "_send_account",
    MergeSets: "_send_merge",
}
ONCE = (CashMoved,)
"""Without an id in the contract: the port must tell it once."""
CALM_S = 95
STILL_S = 20
QUIET_AFTER_S = 9
"""An answer that is on its way, the flicker time, a refused side's wait, a round trip."""


SHARED = ("gross cap", "event cap", "cluster cap", "free cash", "positions", "message budget")
"""Refusals by limits that several markets share."""


class Weather(Incidents):
    """One run; `run` plays it to its end or raises what the oracle found."""

    def __init__(self, seed, storm_s=None):
        self.seed = seed
        dice = self.dice = Random(f"{seed}:weather")
        self.happened = Counter()
        self.climate = climate_of(dice)
        self.incident_s = dice.choice((6.0, 12.0, 30.0))
        midnight = 20_454 * DAY_S
        self.now = self.start = (midnight + dice.choice((3_600, DAY_S - 90))) * NS_PER_S
        self.storm_end = self.start + (storm_s or dice.randrange(150, 300)) * NS_PER_S
        self.ending = dice.choice(ENDINGS)
        self.params = params_of(dice)
        self.strategy_params = strategy_of(dice, seed)
        self.market = SimulatedMarket(
            MarketParams(
                seed=seed,
                markets=dice.randrange(3, 7),
                regime=dice.choice(("benign", "mixed", "toxic")),
                activity=dice.choice((300.0, 1_000.0, 2_500.0)),
                step_ns=NS_PER_S,
                start_ns=self.start,
                days_to_end=dice.choice((7.0, 7.0, 0.004)),
            )
        )
        self.exchange = Exchange(
            ExchangeParams(
                seed=seed,
                start_cash=1_000 * CASH_PER_USD,
                settle_fail_ppm=dice.choice((0, 1_000, 100_000, 300_000)),
                confirm_median_ns=dice.choice((1, 5)) * NS_PER_S,
                volume_cap_ratio=1.0,
                reject_ppm=dice.choice((0, 20_000)),
                min_payout=0,
            )
        )
        self.analyst = SimulatedAnalyst(self.market.truth, seed=seed, error_variance=0.01, r2=0.1)
        self.oracle = Oracle(self.exchange.cash, self.params.risk.exit_patience_ns)
        state = new_state("main", self.params, STRATEGY, self.strategy_params, self.exchange.cash)
        self.engine = Engine(state, STRATEGY)
        self.first_saved = self.saved = checkpoint(state)
        self.journal = []
        self.log = []
        self._due = []
        self._number = count()
        self.alive = True
        self.connected = True
        self.connection = 0
        self.blocked_until = 0
        self.blocked = []
        self.lag_until = 0
        self.lag_ns = 0
        self.silent_until = 0
        self.last_feed_due = 0
        self.crash_sending = False
        self.session = 1
        self.frozen = False
        self.stop = None
        self.instruments = {}
        self.canceled = {}
        self.on_the_way = {}
        self.quiet_after = 0
        self.strangers = dice.choice((0, 0, 37_000_000))
        self.steady = {}
        self.restless = Counter()
        self.rejected = Counter()
        self.last_snapshot = None
        self.events = 0

    @property
    def state(self):
        return self.engine.state

    def hits(self, kind):
        """Roll for one thing; what happened is counted."""
        rate = getattr(self.climate, kind)
        hit = rate > 0 and self.dice.random() < rate
        if hit:
            self.happened[kind] += 1
        return hit

    def later(self, delay_ns, act, *args):
        heappush(self._due, (self.now + max(int(delay_ns), 0), next(self._number), act, args))

    def seconds(self, low, high):
        return int(self.dice.uniform(low, high) * NS_PER_S)

    # Time.

    def run(self):
        """Storm, then calm, stillness and a stop; or a stop in the storm."""
        self._deliver(Started(1, False))
        self.later(TICK_NS, self._tick)
        self.later(self.seconds(1, self.incident_s), self._incident)
        self._until(self.storm_end)
        if self.ending == "calm":
            self._calm_down()
            self._until(self.now + CALM_S * NS_PER_S)
            self._check_calm()
            self._stand_still()
            quotes = sum(len(m.live) for m in self.state.markets.values())
            self._deliver(StopRequested("the day is over"))
            self._until(self.now + 20 * NS_PER_S)
            assert self.stop is not None and self.stop.clean, f"no clean stop in calm weather: {self.stop}"
        else:
            quotes = 0
            self.crash_sending = False
            self._wake_up()
            if not self.alive:
                self._restart()
            order = StopRequested("in the storm") if self.ending == "stop_in_storm" else OperatorActed(Verb.KILL, "weather")
            self._deliver(order)
            self._until(self.now + 62 * NS_PER_S)
            assert self.stop is not None, "a stop that never ends"
        self._prove_stop()
        return self._report(quotes)

    def _until(self, end):
        while self.now < end and self.stop is None:
            due = self._due[0][0]
            source = None
            for simulator in (self.exchange, self.analyst) if self.frozen else (self.market, self.exchange, self.analyst):
                at = simulator.next_ns()
                if at is not None and (at < due or (at == due and source is None)):
                    due, source = at, simulator
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            if source is None:
                _, _, act, args = heappop(self._due)
                act(*args)
            else:
                for event in source.advance(self.now):
                    self._from(source, event)

    def _from(self, source, event):
        if source is self.market:
            event = self._dressed(event)
            self.exchange.observe(self.now, event)
            self._feed(event)
        elif source is self.exchange:
            self._answer(event)
        else:
            self._advice(event)

    def _dressed(self, event):
        """Markets in events and clusters, which the simulated market does not make."""
        if type(event) is not InstrumentListed:
            return event
        place = len(self.instruments)
        group, exclusive = ("E-one", True) if self.seed % 2 else ("E-many", False)
        instrument = msgspec.structs.replace(
            event.instrument,
            event_id=group if place % 3 < 2 else event.instrument.event_id,
            exclusive=exclusive and place % 3 < 2,
            cluster="C" if place % 2 else "",
        )
        self.instruments[instrument.id] = instrument
        self.oracle.ledger.instruments[instrument.id] = instrument
        return InstrumentListed(instrument)

    def _tick(self):
        self.later(TICK_NS, self._tick)
        if self.now >= self.blocked_until:
            self._deliver(Tick())
        if self.alive and self.now >= self.blocked_until and self.stop is None:
            self.oracle.check_resting(self.now, self.state, self.exchange.resting())
        if self.dice.random() < 0.002:
            self.saved, self.journal = checkpoint(self.state) if self.alive else self.saved, [] if self.alive else self.journal

    # The engine.

    def _deliver(self, event):
        """One event whole: decide, journal, send. Not while the engine is dead or its loop blocked."""
        if not self.alive:
            if isinstance(event, MONEY):
                self.later(NS_PER_S, self._deliver, event)
            return
        if self.now < self.blocked_until:
            self.blocked.append(event)
            return
        if self.stop is not None:
            return
        self.events += 1
        touched = self.oracle.hear(self.now, event, self.state)
        commands = self.engine.on_event(self.now, event)
        self.journal.append((self.now, event, commands))
        self.log.append((self.now, event, commands))
        self.oracle.check(self.now, event, commands, self.state, touched)
        crash = self.crash_sending and any(type(c) in (PlaceOrder, CancelOrder) for c in commands)
        for command in commands[: self.dice.randrange(len(commands))] if crash else commands:
            self._send(command)
        if self.frozen and self.now >= self.quiet_after:
            for command in commands:
                if type(command) in (PlaceOrder, CancelOrder, MergeSets) and command.instrument in self.steady:
                    same = self.steady[command.instrument] == self._input(self.state.markets[command.instrument])
                    assert not same, f"steady input, and {command} after {event}"
                    self.restless[command.instrument] += 1
                    assert self.restless[command.instrument] <= RESTLESS, (
                        f"{command} after {event}: markets that never come to rest"
                    )
        if crash:
            self.crash_sending = False
            self._crash()

    def _send(self, command):
        if type(command) is Stop:
            self.stop = command
        elif type(command) is RequestSnapshot:
            if self.connected and not self.frozen:
                self.market.execute(self.now, command)
        elif type(command) is RequestSignals:
            if not self.frozen and not self.hits("model_silent"):
                self.analyst.execute(self.now, command)
        elif type(command) in UPLINK:
            getattr(self, UPLINK[type(command)])(command)

    # Commands on their way to the exchange.

    def _arrive(self, command):
        self.on_the_way.pop((type(command), getattr(command, "order_id", "")), None)
        self.exchange.execute(self.now, command)

    def _go(self, delay_ns, command):
        if type(command) is PlaceOrder:
            self.on_the_way[type(command), command.order_id] = True
        self.later(delay_ns, self._arrive, command)

    def _explain(self, order_id, ns):
        self.oracle.explained_ns[order_id] += ns

    def _send_place(self, command):
        order = command.order_id
        if self.hits("place_lost"):
            return
        if self.hits("place_uncertain"):
            wait = self.seconds(0.5, 4)
            self._explain(order, wait + 5 * NS_PER_S)
            self.later(wait, self._answered, OrderUncertain(order, "timeout"))
            if self.dice.random() < 0.5:
                self._go(self.seconds(0, 6), command)
            return
        delay = 0
        if self.hits("place_late"):
            delay = self.seconds(0.3, 6)
        elif self.hits("place_very_late"):
            # Beyond what the core takes for the proof that it never arrived.
            delay = self.seconds(14, 30)
            self.oracle.very_late[order] = self.oracle.absolved[order] = True
            self._explain(order, 60 * NS_PER_S)
        self._explain(order, 2 * delay)
        self._go(delay, command)
        if self.hits("place_doubled"):
            self._explain(order, 5 * NS_PER_S)
            self.later(delay + self.seconds(0, 2), self._arrive, command)

    def _send_cancel(self, command):
        order = command.order_id
        if self.hits("cancel_lost"):
            self._explain(order, 15 * NS_PER_S)
        elif self.hits("cancel_refused"):
            self._explain(order, NS_PER_S)
            self.later(self.seconds(0.1, 0.6), self._answered, CancelRejected(order, "rate", gone=False))
        else:
            delay = self.seconds(0.2, 5) if self.hits("cancel_late") else 0
            self._explain(order, delay)
            self._go(delay, command)

    def _send_lookup(self, command):
        if self.hits("lookup_lost"):
            lookups = self.state.orders[command.order_id].lookups
            self._explain(command.order_id, min(2 * 2**lookups, 60) * NS_PER_S + 2 * NS_PER_S)
        else:
            self._go(0, command)

    def _send_account(self, command):
        if self.hits("account_lost"):
            return
        if self.hits("account_unknown"):
            self.later(self.seconds(0.2, 2), self._deliver, AccountUnknown("503"))
        else:
            self._go(0, command)

    def _send_merge(self, command):
        if self.hits("merge_failed"):
            failed = MergeFailed(command.instrument, command.qty, "reverted", work_id=command.work_id)
            self.later(self.seconds(0.2, 3), self._deliver, failed)
            return
        if self.hits("merge_unsure"):
            unsure = MergeFailed(command.instrument, command.qty, "timeout", final=False, work_id=command.work_id)
            self.later(self.seconds(0.2, 1), self._deliver, unsure)
        self._go(0, command)

    # What the exchange says.

    def _answer(self, event):
        if isinstance(event, MONEY):
            self._money(event)
            return
        if type(event) is AccountSnapshot:
            event = self._with_strangers(event)
        order = getattr(event, "order_id", "")
        if self.hits("answer_lost"):
            self._explain(order, 15 * NS_PER_S)
            return
        delay = self.seconds(0.2, 4) if self.hits("answer_late") else 0
        self._explain(order, delay)
        self.later(delay, self._answered, event)
        if self.hits("answer_double"):
            # An old "open" costs one more round.
            self._explain(order, 5 * NS_PER_S)
            self.later(delay + self.seconds(0, 6), self._answered, event)

    def _with_strangers(self, event):
        """The account as a person shares it: shares and an order there that are none of ours."""
        if not self.strangers:
            return event
        name = next(iter(self.instruments))
        self.oracle.strangers[name, Leg.YES] = self.strangers
        held = {(h.instrument, h.leg): h.qty for h in event.holdings}
        held[name, Leg.YES] = held.get((name, Leg.YES), 0) + self.strangers
        order = RestingOrder("", "X-1", name, Side.BUY, Leg.YES, 100, 5_000_000)
        return AccountSnapshot((*event.orders, order), tuple(Holding(*key, qty) for key, qty in held.items()), event.cash)

    def _answered(self, event):
        """An answer to a session that has ended is heard by nobody."""
        if not self.alive:
            self._explain(getattr(event, "order_id", ""), 15 * NS_PER_S)
            return
        if type(event) is OrderCanceled:
            self.canceled[event.order_id] = True
        elif type(event) is AccountSnapshot:
            self.last_snapshot = event
        elif hasattr(event, "detail"):
            self.rejected[event.reason] += 1
        self._deliver(event)

    def _money(self, event):
        kind = type(event)
        delay = 0
        if self.hits("money_very_late"):
            delay = self.seconds(5, 40)
        elif self.hits("money_late"):
            delay = self.seconds(0.2, 5)
        if delay and kind is OrderFilled:
            self.happened["late_fill"] += 1
            self._explain(event.order_id, 2 * delay)
        if kind is FillFailed:
            self.happened["settlement_failed"] += 1
        self.later(delay, self._paid, event)
        if kind not in ONCE and self.hits("money_double"):
            self.later(delay + self.seconds(0, 10), self._paid, event)

    def _paid(self, event):
        if type(event) is OrderFilled and event.order_id in self.canceled:
            self.happened["fill_after_cancel"] += 1
        self._deliver(event)

    # What the market says.

    def _feed(self, event):
        kind = type(event)
        if kind is InstrumentListed:
            self._deliver_always(event)
            return
        if kind is MarketResolved:
            self.happened["resolved"] += 1
            # The account may hear of its money before the market's channel tells the outcome.
            self.later(self.dice.choice((0, 0, self.seconds(0, 5))), self._deliver_always, event)
            return
        if kind is VenueUp:
            self.later(0, self._deliver, event)
            return
        if not self.connected or self.now < self.silent_until or self.hits("feed_drop"):
            return
        delay = self.dice.randrange(5, 60) * NS_PER_MS
        if self.now < self.lag_until:
            delay += self.lag_ns
        if self.hits("feed_late"):
            delay += self.seconds(0.2, 3)
        due = max(self.now + delay, self.last_feed_due)
        if self.hits("feed_reorder"):
            due = self.now + delay + self.seconds(0.05, 1.5)
        else:
            self.last_feed_due = due
        self.later(due - self.now, self._told, event, self.connection)
        if self.hits("feed_double"):
            self.later(due - self.now + self.dice.choice((0, 0, self.seconds(0, 2))), self._told, event, self.connection)
        if kind is BookDelta and event.best_ask and self.hits("feed_crossed"):
            price = event.best_ask
            glitch = BookDelta(event.instrument, ((price, 7_000_000),), (), price, price, event.venue_ts)
            self.later(due - self.now, self._told, glitch, self.connection)

    def _deliver_always(self, event):
        """Facts about markets are told again until they are heard."""
        if self.alive and self.now >= self.blocked_until:
            self._deliver(event)
        else:
            self.later(NS_PER_S, self._deliver_always, event)

    def _told(self, event, connection):
        if self.alive and connection == self.connection:
            self._deliver(event)

    # What the model says.

    def _advice(self, event):
        if type(event) is SignalsReceived and self.hits("model_fails"):
            event = SignalsFailed(
                event.request_id, event.decision_id, self.dice.choice(("malformed", "timeout", "rate_limit")), "weather"
            )
        elif type(event) is SignalsReceived and self.hits("lie"):
            names = [s.market_id for s in event.signals] + self.dice.sample(list(self.instruments), 1) + ["NOWHERE"]
            lies = tuple(lie(self.dice, name) for name in names)
            event = msgspec.structs.replace(event, signals=lies)
        self.later(0, self._told, event, self.connection)

    # Calm, and the end.

    def _calm_down(self):
        self.climate = Climate()
        self.exchange.params = msgspec.structs.replace(self.exchange.params, reject_ppm=0)
        self.crash_sending = False
        self.lag_until = self.silent_until = 0
        if self.now < self.blocked_until:
            self._wake_up(1)
        if not self.alive:
            self._restart()
        if not self.connected:
            self._connect(self.connection)
        self._regime(Regime.OPEN)
        self.later(NS_PER_S, self._all_resume)
        self.later(30 * NS_PER_S, self._all_resume)
        self.later(32 * NS_PER_S, self._arrive, RequestAccount("cross-check"))
        self.later(60 * NS_PER_S, self._arrive, RequestAccount("cross-check"))
        self.later((CALM_S - 2) * NS_PER_S, self._arrive, RequestAccount("cross-check"))

    def _all_resume(self):
        self._deliver(OperatorActed(Verb.RESUME, "weather"))
        for name in self.instruments:
            if name in self.state.markets:
                self._deliver(OperatorActed(Verb.RESUME, "weather", name))

    def _check_calm(self):
        self.oracle.check_calm(self.state, self.exchange.cash, self.exchange.holdings(), self.exchange.resting())

    def _stand_still(self):
        """The same book told again and Ticks; what was due is done within the first seconds, and then nothing is sent."""
        self.frozen = True
        tops = {name: (market.book.best_bid, market.book.best_ask) for name, market in self.state.markets.items()}
        end = self.now + STILL_S * NS_PER_S
        self.quiet_after = self.now + QUIET_AFTER_S * NS_PER_S
        self.later(QUIET_AFTER_S * NS_PER_S - 1, self._expect_quiet, end)
        for second in range(STILL_S):
            for name, (bid, ask) in tops.items():
                if bid and ask:
                    self.later(second * NS_PER_S + 1, self._told_still, name, bid, ask)
        self._until(end)
        self.quiet_after = end + 3_600 * NS_PER_S

    def _expect_quiet(self, end):
        """From here on nothing is sent for the markets in which nothing is due by time alone.

        A market that a cap shared with others holds down is free to move when time moves one of those.
        """
        steady = {}
        for name, market in self.state.markets.items():
            plan = market.exit_plan
            waits = (market.pulled_until, market.cautious_until, market.cooldown_until)
            left = (market.instrument.end_ns or end) - self.params.risk.resolution_reduce_ns
            if plan is not None and (plan.exiting or plan.breached_ns):
                continue
            if market.off_target or market.position.pending or any(fill.next_horizon < 3 for fill in market.markouts.pending):
                continue
            if market.opinion is not None:
                waits = (*waits, market.opinion.expires_ns)
            if (
                any(self.now - NS_PER_S < at < end for at in waits)
                or left - NS_PER_S < end < (market.instrument.end_ns or 0) + NS_PER_S
            ):
                continue
            steady[name] = market
        restless = len(steady) < len(self.state.markets)
        for name, market in steady.items():
            if not (restless and any(key.endswith(SHARED) for key in market.refusals)):
                self.steady[name] = self._input(market)
        self.happened["stood_still"] += bool(self.steady)

    def _input(self, market):
        """What a quote follows from beside its book: measured by the clock, moved by late money, or taken by other markets."""
        estimators = market.estimators
        return (
            estimators.fair,
            estimators.sig_x,
            estimators.volatility_ratio,
            market.position.net,
            self.state.cash,
            self.state.gross,
        )

    def _told_still(self, name, bid, ask):
        self._deliver(TopReported(name, bid, ask, self.now))

    def _prove_stop(self):
        """What is still on its way arrives; after a clean stop nothing may rest."""
        waiting = [order_id for kind, order_id in self.on_the_way if kind is PlaceOrder and order_id not in self.oracle.very_late]
        self.exchange.advance(self.now + NS_PER_S)
        resting = [o for o in self.exchange.resting() if o.order_id not in self.oracle.very_late]
        self.oracle.check_stop(self.stop, resting, waiting)

    def replay(self):
        """The whole log through a fresh engine from the first checkpoint: the same commands, the same state."""
        engine = Engine(restore(self.first_saved, STRATEGY), STRATEGY)
        for at, event, commands in self.log:
            made = engine.on_event(at, event)
            assert made == commands, f"replayed, {event} gives {made}, recorded {commands}"
        assert checkpoint(engine.state) == checkpoint(self.state), "the same events, another state"

    def _report(self, quotes):
        return Report(
            seed=self.seed,
            ending=self.ending,
            happened=self.happened,
            counts=msgspec.to_builtins(self.state.counts),
            crossed=self.oracle.crossed,
            longest_ns=self.oracle.longest_ns,
            stop=self.stop,
            events=self.events,
            sessions=self.session,
            quotes_at_end=quotes,
            rejected=self.rejected,
            merges=self.oracle.counts["merges"],
        )
