"""What must hold of the slow loop in any weather, from the events, the orders and the servers' own books alone.

Takes the documented rules (`llm-providers.md` 2.6 and 6, design section 5) as they are written; looks into no breaker, no budget
and no agenda. Knows no dice.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from decimal import Decimal

from llm_maker.core.commands import Notice, PlaceOrder, RequestSignals
from llm_maker.core.events import SignalsFailed, SignalsReceived, SignalsSkipped, Tick
from llm_maker.core.orders import FINAL
from llm_maker.core.values import NS_PER_S
from tests.sim.failing_models import DAY_NS, MINUTE_NS

SETTLING_NS = 15 * NS_PER_S
"""What rests when rules take over is replaced within this."""


class Gate:
    """When one server may be asked, by what it has answered."""

    def __init__(self):
        self.failures, self.stopped, self.paused_until, self.pause = deque(maxlen=3), False, None, 30
        self.told, self.bare = 0, 30
        self.episodes = Counter()

    def from_ns(self):
        return max(self.told, self.paused_until or 0)

    def note(self, call):
        now, kind = call.ended, call.seen
        told = call.retry_after_s is not None and call.retry_after_s > 0
        if kind in ("auth", "billing", "bad_request"):
            self.episodes["stop"] += not self.stopped
            self.stopped, self.paused_until = True, now + 3_600 * NS_PER_S
        elif kind in ("ok", "refusal", "malformed"):
            if self.paused_until is not None:
                self.failures.clear()
                self.episodes["recovery"] += 1
            self.stopped, self.paused_until, self.pause, self.bare = False, None, 30, 30
        else:
            if told:
                self.told = max(self.told, now + int(min(call.retry_after_s, 3_600) * NS_PER_S))
            if self.stopped:
                self.paused_until = now + 3_600 * NS_PER_S
            elif kind == "rate_limit":
                if not told:
                    self.told, self.bare = max(self.told, now + self.bare * NS_PER_S), min(2 * self.bare, 900)
            else:
                self._failed(now)

    def _failed(self, now):
        self.failures.append(now)
        if self.paused_until is not None:
            self.pause = min(2 * self.pause, 900)
        elif len(self.failures) == 3 and now - self.failures[0] <= 600 * NS_PER_S:
            self.episodes["pause"] += 1
            self.pause = 30
        else:
            return
        self.paused_until = max(now + self.pause * NS_PER_S, self.told)


class SlowOracle:
    """A recorder of the session that checks each step; `hear_facts` and `booked` are the analyst's record and the budget's."""

    def __init__(self, state, models, *, limit, per_minute, failures_to_fallback, deadline_s, unknown_usd):
        self.state, self.models = state, models
        self.limit, self.per_minute, self.most_failures = limit, per_minute, failures_to_fallback
        self.deadline_ns, self.unknown_usd = int(deadline_s * NS_PER_S), unknown_usd
        self.gates = {id(model): Gate() for model in models}
        self.seen = dict.fromkeys(self.gates, 0)
        self.pending = {}
        self.asked_ns, self.answered = {}, Counter()
        self.failures = 0
        self.fallback_since = None
        self.entered = self.left = self.halves = self.fulls = self.directional = self.stops = 0
        self.outcomes, self.member_outcomes = Counter(), Counter()
        self.days = {}
        self.cost_told = self.cost_events = 0
        self.breached = defaultdict(int)
        self.last = None

    # What the mind's side tells.

    def booked(self, plain):
        day, spent = int(plain["day"]), Decimal(plain["spent_usd"])
        self.days[day] = spent
        if spent > self.limit:
            # Calls whose price nobody told are booked at more than they can cost, and side by side by one each.
            unknown = any("price" in call.kind for call in self._calls_of(day))
            most = self.limit + self._excess(day) + (len(self.models) * self.unknown_usd if unknown else 0)
            assert spent <= most, f"{spent} USD spent or set aside of {self.limit}"

    def hear_facts(self, facts):
        """One cycle: what was asked and paid, beside the servers' books."""
        true, fresh = Decimal(0), 0
        for model in self.models:
            new = model.calls[self.seen[id(model)] :]
            self.seen[id(model)] += len(new)
            fresh += len(new)
            for call in new:
                self._check_call(model, call, len(new))
                true += call.usd
        assert facts.cost_usd >= true, f"{facts.decision_id}: {true} USD were spent, {facts.cost_usd} booked"
        assert sum(m.attempts for m in facts.members) == fresh, f"{facts.decision_id}: calls nobody tells of"
        for one in facts.members:
            self.member_outcomes[one.outcome] += 1
            model = next(m for m in self.models if one.name.split("#")[0] == f"{m.provider}/{m.model}")
            if one.outcome == "open":
                blocked = self.gates[id(model)].from_ns()
                assert blocked > facts.asked_ns, f"{facts.decision_id}: {one.name} was not asked, and might have been"
            elif one.outcome == "budget":
                left = self.limit - self.days[facts.asked_ns // DAY_NS]
                assert left < Decimal("0.1"), f"{facts.decision_id}: {left} USD were left"
        self.cost_told += facts.cost_usd

    def _check_call(self, model, call, fresh):
        gate = self.gates[id(model)]
        assert call.began >= gate.from_ns(), f"{model.model}: asked {(gate.from_ns() - call.began) / 1e9} s too early"
        assert call.ended, f"{model.model}: a call without an end"
        before = model.calls.index(call, self.seen[id(model)] - fresh) - self.per_minute
        if before >= 0:
            apart = call.began - model.calls[before].began
            assert apart >= MINUTE_NS, f"{model.model}: {self.per_minute + 1} calls within {apart / 1e9} s"
        gate.note(call)

    # What the session tells.

    def record(self, seq, ts, event, commands):
        if isinstance(event, SignalsReceived | SignalsFailed | SignalsSkipped):
            self._hear(ts, event)
        fallback = self.state.slow.fallback
        assert fallback == (self.fallback_since is not None), f"fallback is {fallback} after {self.failures} failures and {event}"
        for command in commands:
            if isinstance(command, RequestSignals):
                assert command.request_id not in self.asked_ns and command.probe == (self.fallback_since is not None)
                self.asked_ns[command.request_id] = ts
            elif isinstance(command, PlaceOrder):
                self._check_order(command)
            elif isinstance(command, Notice):
                self.stops += command.code == "exit_stop"
        if isinstance(event, Tick):
            self._check_stops(ts)
            if self.fallback_since is not None and ts - self.fallback_since > SETTLING_NS:
                for order in self.state.orders.values():
                    if order.status not in FINAL and order.reason == "inventory" and not order.sent_cancel:
                        assert order.qty <= self._half(order.instrument) and not order.decision_id, f"{order} rests in fallback"

    def _hear(self, ts, event):
        self.answered[event.request_id] += 1
        assert self.answered[event.request_id] == 1, f"{event.request_id} was answered twice"
        took = ts - self.asked_ns[event.request_id]
        assert took <= self.deadline_ns + 1_000, f"{event.request_id} took {took / 1e9} s"
        self.last = event
        if isinstance(event, SignalsSkipped):
            self.outcomes[f"skipped: {event.reason}"] += 1
            return
        self.cost_events += event.cost
        if isinstance(event, SignalsReceived):
            self.outcomes["ok"] += 1
            self.left += self.fallback_since is not None
            self.failures, self.fallback_since = 0, None
            return
        self.outcomes[event.reason] += 1
        self.failures += 1
        if self.failures == self.most_failures:
            self.entered += 1
            self.fallback_since = ts

    def _half(self, instrument):
        base = self.state.params.signals.base_milli * 10 ** self.state.markets[instrument].instrument.qty_decimals // 1_000
        return base // 2

    def _check_order(self, order):
        if order.reason != "inventory":
            return
        if self.fallback_since is None:
            self.fulls += order.qty > self._half(order.instrument)
            self.directional += bool(order.decision_id)
            return
        self.halves += 1
        assert order.qty <= self._half(order.instrument), f"{order} is too large for rules alone"
        assert not order.decision_id, f"{order} follows an opinion in fallback"

    def _check_stops(self, ts):
        """Beyond its stop for so long that every patience is over: it must have been sold."""
        params = self.state.params
        for name, market in self.state.markets.items():
            position, instrument = market.position, market.instrument
            average = position.avg_price
            if average is None or abs(position.net) < instrument.min_qty or market.mark <= 0:
                self.breached[name] = 0
                continue
            paid = average if position.net > 0 else instrument.payout - average
            worth = market.mark if position.net > 0 else instrument.payout - market.mark
            reach = worth * (1 - params.risk.exit_max_slippage_ratio)
            best = market.book.best_bid if position.net > 0 else instrument.payout - market.book.best_ask
            if worth > paid * (1 - params.exits.stop_ratio) + 1e-6 or best < reach:
                self.breached[name] = 0  # not beyond it, or nobody buys within the slippage that is allowed
                continue
            self.breached[name] = self.breached[name] or ts
            longest = params.exits.hold_ns + params.risk.exit_patience_ns + 300 * NS_PER_S
            assert ts - self.breached[name] <= longest, f"{name}: a stop has not worked for {(ts - self.breached[name]) / 1e9} s"

    # At the end.

    def _calls_of(self, day):
        return [call for model in self.models for call in model.calls if call.began // DAY_NS == day]

    def _excess(self, day):
        return sum((call.excess for call in self._calls_of(day)), Decimal(0))

    def finish(self):
        """Day -> (what the servers charge, what we booked, what was beyond any bound)."""
        open_ = [request for request in self.asked_ns if not self.answered[request]]
        assert len(open_) <= 1, f"never answered: {open_}"
        found = {}
        for day, booked in sorted(self.days.items()):
            true = sum((call.usd for call in self._calls_of(day)), Decimal(0))
            assert true <= booked, f"day {day}: {true} USD were spent, {booked} booked"
            assert true <= self.limit + self._excess(day), f"day {day}: {true} USD of {self.limit}"
            found[day] = (true, booked, self._excess(day))
        return found
