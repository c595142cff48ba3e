"""What stands now and what went wrong lately, in the words of the table of rules; and what no single event tells.

Pure but for its memory: it reads the state, hears the daemon's log, and changes neither.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_maker.console.alarm_rules import RULES, Rule, cure_of, markdown
from llm_maker.console.shapes import Alarm
from llm_maker.core.commands import Level, Notice
from llm_maker.core.orders import Status
from llm_maker.core.state import State, Venue
from llm_maker.core.values import NS_PER_S, Mode, Regime, usd
from llm_maker.core.worth import equity

__all__ = ["RULES", "Alarms", "Rule", "cure_of", "markdown"]

DAY_NS = 86_400 * NS_PER_S
MOST_LATELY = 100
MOST_HEARD = 1_000
LATELY_NS = DAY_NS
PATIENCE_NS = 60 * NS_PER_S
"""Market time: a trouble of feed or account is told when it has lasted this long, and its end when that has."""
NEARLY_SPENT = 0.8
_PRESSED = {Mode.HALTED: "operator_pause", Mode.REDUCE_ONLY: "operator_reduce"}

Budgets = Callable[[], Mapping[str, tuple[float, float]]]
"""Name -> (USD spent today, the day's limit)."""


class Stands(msgspec.Struct, frozen=True):
    """One condition that is so at this moment."""

    code: str
    level: Level
    text: str
    market_id: str = ""
    trouble: bool = False
    """Of feed or account: told when it lasts."""
    since_ns: int = 0
    """Where the state tells it; 0: since it was first seen."""
    about: str = ""
    """What tells two of one code and market apart: a venue's name."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.code, self.market_id, self.about


class _Lately(msgspec.Struct):
    """What was raised, and how often."""

    notice: Notice
    first_ns: int
    last_ns: int
    count: int = 1


class Day(msgspec.Struct, frozen=True):
    """How a day is measured: by whom it is known, and in what money."""

    mark: Callable[[State], Any]
    """The account's numbers at this moment, to compare with later."""
    result: Callable[[State, Any], dict[str, Any]]
    """What happened since such a mark (`report/summary.py`)."""
    twin: Callable[[], float | None]
    """USD that the model was worth so far against its twin; None: no twin."""
    label: str = ""
    """After every sum of money: paper, simulated."""


class Alarms:
    """What was raised and what stands."""

    def __init__(
        self,
        state: Callable[[], State],
        unknown_order_seconds: float,
        *,
        daily_summary: bool,
        day: Day | None = None,
        budgets: Budgets = dict,
    ) -> None:
        """`unknown_order_seconds` is market time; without `day` no summary is made."""
        self._state = state
        self._unknown_ns = int(unknown_order_seconds * NS_PER_S)
        self._day = _DayBook(day) if day is not None and daily_summary else None
        self._budgets = budgets
        self._budget_told: dict[str, str] = {}
        self._heard: deque[tuple[int, Notice]] = deque(maxlen=MOST_HEARD)
        """Not looked at yet."""
        self._lately: dict[tuple[str, str], _Lately] = {}
        self._since: dict[tuple[str, str, str], int] = {}
        self._unknown: dict[str, int] = {}
        """Order id -> since when it is UNKNOWN."""
        self._unknown_told: set[str] = set()
        self._trouble_told: tuple[str, ...] = ()
        self._well_ns = 0

    def hear(self, ts: int, notice: Notice) -> None:
        """A line of the daemon's log; from any thread: the ledger's speaks too."""
        self._heard.append((ts, notice))

    def _absorb(self) -> None:
        """What was heard since the last time."""
        while self._heard:
            ts, notice = self._heard.popleft()
            if notice.code == "operator_resume":
                # Somebody has looked at it: what is still so stands all the same.
                self._lately = {k: v for k, v in self._lately.items() if notice.instrument and k[1] != notice.instrument}
            if self._day is not None:
                self._day.hear(notice)
            if notice.level is Level.INFO or notice.code.startswith("operator_"):
                continue
            key = (notice.code, notice.instrument)
            found = self._lately.pop(key, None)
            first, count = (found.first_ns, found.count + 1) if found is not None else (ts, 1)
            self._lately[key] = _Lately(notice, first, ts, count)
            if len(self._lately) > MOST_LATELY:
                del self._lately[next(iter(self._lately))]

    def look(self) -> list[Notice]:
        """About once a second: what no event tells (an order unknown for too long, a day that ended), each once."""
        state = self._state()
        self._absorb()
        standing = self._standing(state)
        told = [*self._look_at_orders(state), *self._look_at_trouble(state, standing), *self._look_at_budgets(state)]
        if self._day is not None:
            told += self._day.look(state)
        return told

    def board(self) -> list[Alarm]:
        """What stands now, then what happened lately; each newest first."""
        state = self._state()
        standing = sorted(self._standing(state), key=lambda s: -self._since[s.key])
        here = {(s.code, s.market_id) for s in standing}
        self._absorb()
        self._lately = {k: v for k, v in self._lately.items() if not v.last_ns or state.now - v.last_ns <= LATELY_NS}
        counts = {key: found.count for key, found in self._lately.items()}
        lately = [found for key, found in self._lately.items() if key not in here][::-1]
        shown = [
            _alarm(s.code, s.level, s.text, s.market_id, self._since[s.key], counts.get((s.code, s.market_id), 1), standing=True)
            for s in standing
        ]
        for found in lately:
            n = found.notice
            shown.append(_alarm(n.code, n.level, n.text, n.instrument, found.first_ns, found.count, standing=False))
        return shown

    def _standing(self, state: State) -> list[Stands]:
        """What is so now; since when is remembered."""
        found = [*_halts(state), *_pressed(state), *_feeds(state), *_account(state), *self._unknowns(state), *self._spent(state)]
        self._since = {s.key: s.since_ns or self._since.get(s.key) or state.now for s in found}
        return found

    # Orders that the venue does not answer for.

    def _unknowns(self, state: State) -> list[Stands]:
        live = [state.orders[i] for market in state.markets.values() for i in market.live]
        unknown = {o.order_id: o.instrument for o in live if o.status is Status.UNKNOWN}
        self._unknown = {i: self._unknown.get(i) or min(state.now, state.orders[i].changed_ns or state.now) for i in unknown}
        late = [i for i, since in self._unknown.items() if state.now - since >= self._unknown_ns]
        by_market: dict[str, list[str]] = {}
        for order_id in late:
            by_market.setdefault(unknown[order_id], []).append(order_id)
        return [
            Stands(
                "unknown_too_long",
                Level.WARNING,
                f"not known for {(state.now - min(self._unknown[i] for i in ids)) / NS_PER_S:.0f}s whether they rest: {_few(ids)}",
                market,
                since_ns=min(self._unknown[i] for i in ids),
            )
            for market, ids in by_market.items()
        ]

    def _look_at_orders(self, state: State) -> list[Notice]:
        late = [i for i, since in self._unknown.items() if state.now - since >= self._unknown_ns]
        fresh = [i for i in late if i not in self._unknown_told]
        self._unknown_told = set(late)
        if not fresh:
            return []
        seconds = (state.now - min(self._unknown[i] for i in fresh)) / NS_PER_S
        text = f"not known for {seconds:.0f}s whether {len(fresh)} orders of ours rest: {_few(fresh)}"
        markets = {state.orders[i].instrument for i in fresh}
        return [Notice(Level.WARNING, "unknown_too_long", text, markets.pop() if len(markets) == 1 else "")]

    # Trouble that lasts.

    def _look_at_trouble(self, state: State, standing: list[Stands]) -> list[Notice]:
        trouble = [s for s in standing if s.trouble]
        lasting = [s for s in trouble if state.now - self._since[s.key] >= PATIENCE_NS]
        if trouble:
            self._well_ns = 0
        elif not self._well_ns:
            self._well_ns = state.now
        if state.stopping:
            return []
        if lasting and not self._trouble_told:
            self._trouble_told = tuple(s.code for s in lasting)
            seconds = (state.now - min(self._since[s.key] for s in lasting)) / NS_PER_S
            return [Notice(Level.WARNING, "trouble_lasts", f"for {seconds:.0f}s: {'; '.join(s.text for s in lasting)}")]
        if self._trouble_told and self._well_ns and state.now - self._well_ns >= PATIENCE_NS:
            self._trouble_told = ()
            return [Notice(Level.WARNING, "trouble_over", f"feed and account have been well for {PATIENCE_NS // NS_PER_S}s")]
        return []

    # The models' purse.

    def _spent(self, state: State) -> list[Stands]:
        dry = [name for name, (spent, limit) in self._budgets().items() if limit > 0 and spent >= limit]
        if state.slow.fallback and state.slow.cause.startswith("budget"):
            dry = dry or ["models"]
        return [Stands("budget_spent", Level.WARNING, f"today's budget is spent: {', '.join(dry)}")] if dry else []

    def _look_at_budgets(self, state: State) -> list[Notice]:
        told: list[Notice] = []
        budgets = self._budgets()
        dry = state.slow.fallback and state.slow.cause.startswith("budget")
        for name, (spent, limit) in budgets.items():
            share = spent / limit if limit > 0 else 0.0
            gone = share >= 1 or (dry and name == "models")
            text = f"${spent:.2f} of ${limit:.2f} for {name} are spent today"
            before = self._budget_told.get(name, "")
            if not gone and share < NEARLY_SPENT:
                self._budget_told.pop(name, None)
            elif gone and before != "spent":
                self._budget_told[name] = "spent"
                told.append(Notice(Level.WARNING, "budget_spent", text))
            elif not gone and not before:
                self._budget_told[name] = "nearly"
                told.append(Notice(Level.WARNING, "budget_nearly_spent", text))
        return told


class _DayBook:
    """The summary of each UTC day of market time."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self._number = -1
        self._base: Any = None
        self._since_ns = 0
        self._whole = False
        """The day's beginning was seen by this run."""
        self._day_base = self._transfers = 0
        self._halts: list[str] = []

    def hear(self, notice: Notice) -> None:
        if notice.code.startswith("halt_") and not notice.code.endswith("_over") and notice.code not in self._halts:
            self._halts.append(notice.code)

    def look(self, state: State) -> list[Notice]:
        risk = state.risk
        if risk.day < 0:
            return []
        told: list[Notice] = []
        if self._number >= 0 and risk.day > self._number:
            told.append(Notice(Level.INFO, "daily_summary", self._text(state)))
        if risk.day != self._number:
            self._whole = self._number >= 0
            self._number, self._since_ns, self._halts = risk.day, state.now, []
            self._base = self._day.mark(state)
        self._day_base, self._transfers = risk.day_base, state.flows.transfers
        return told

    def _text(self, state: State) -> str:
        """The day's P&L by the bases of the loss limits, which survive a restart; what is only known of this run says so."""
        run, flows = self._day.result(state, self._base), state.flows
        parts = run["pnl_split_usd"]
        pnl = usd(state.risk.day_base - self._day_base - (flows.transfers - self._transfers))
        total = usd(equity(state) - flows.start - flows.transfers)
        drawdown = usd(max(0, state.risk.high_water - state.risk.equity))
        top = next(iter(run["refusals"]), "")
        twin = self._day.twin()
        days = (state.risk.day - self._number) if state.risk.day - self._number > 1 else 0
        date = datetime.fromtimestamp(self._number * 86_400, UTC).date().isoformat()
        start = "" if self._whole else f" (since the start at {datetime.fromtimestamp(self._since_ns / NS_PER_S, UTC):%H:%M} UTC)"
        lines = [
            f"{date}{f' and {days - 1} days more' if days else ''}{self._day.label}: P&L {_gain(pnl)}, in all {_gain(total)}",
            f"${drawdown:,.2f} below the highest",
            f"{run['fills']} fills{start}",
            f"spread earned {_gain(parts['spread'])}, moves against us {_gain(parts['inventory'])}",
            f"model cost ${parts['llm_cost']:.4f}",
            f"model against its twin so far {_gain(twin)} (paper money)" if twin is not None else "",
            f"halts: {', '.join(self._halts) or 'none'}",
            f"top refusal: {top}, {run['refusals'][top]['seconds']:.0f}s over all markets" if top else "",
        ]
        return "; ".join(line for line in lines if line)


# What the state says.


def _halts(state: State) -> list[Stands]:
    found = [
        Stands(f"halt_{name}", Level.ERROR, halt.text, since_ns=halt.since_ns, about=name) for name, halt in state.halts.items()
    ]
    if state.stopping:
        found.append(Stands("stopping", Level.WARNING, f"stopping: {state.stopping}", since_ns=state.stop_ns))
    return found


def _pressed(state: State) -> list[Stands]:
    """What a person has set, and what goes on without the model."""
    found: list[Stands] = []
    if state.operator_mode in _PRESSED and not state.stopping:
        found.append(
            Stands(_PRESSED[state.operator_mode], Level.INFO, state.operator_mode.value.replace("_", "-") + ", by a person")
        )
    for market in state.markets.values():
        if market.operator_mode in _PRESSED:
            text = market.operator_mode.value.replace("_", "-") + ", by a person"
            found.append(Stands(_PRESSED[market.operator_mode], Level.INFO, text, market.instrument.id))
    if state.slow.fallback:
        found.append(Stands("fallback", Level.WARNING, f"rules quote alone: {state.slow.cause}"))
    if state.intents:
        found.append(Stands("approve", Level.WARNING, f"waits for approval: {_few(list(state.intents))}"))
    return found


def _feeds(state: State) -> list[Stands]:
    return [stands for venue in state.venues.values() for stands in _feed(venue)]


def _feed(venue: Venue) -> list[Stands]:
    found: list[Stands] = []

    def add(code: str, text: str) -> None:
        found.append(Stands(code, Level.WARNING, f"{venue.name}: {text}", trouble=code != "regime", about=venue.name))

    if not venue.up:
        add("venue_down", f"down, {venue.down_reason}")
    if venue.up and venue.silent:
        add("silence", "silent")
    if venue.lagging:
        add("feed_lag", "its data is late")
    if venue.delayed:
        add("loop_delay", "nothing fresh since our loop stood still")
    if venue.regime is not Regime.OPEN:
        add("regime", venue.regime.value)
    return found


def _account(state: State) -> list[Stands]:
    found: list[Stands] = []
    if state.stream_down:
        found.append(Stands("account_stream", Level.WARNING, f"the account's stream is down: {state.stream_down}", trouble=True))
    elif not state.account_known and state.session:
        found.append(Stands("account_unknown", Level.WARNING, "the account has not been read", trouble=True))
    if state.drift_ns:
        found.append(Stands("drift", Level.WARNING, "shares of ours are missing at the venue", since_ns=state.drift_ns))
    if state.cash_told is not None:
        text = f"the venue's cash differs from ours by {_gain(usd(state.cash_told))}"
        found.append(Stands("transfer", Level.WARNING, text, since_ns=state.cash_told_ns))
    if state.foreign_orders:
        text = f"{len(state.foreign_orders)} orders rest that are not ours: {_few(list(state.foreign_orders))}"
        found.append(Stands("foreign_order", Level.WARNING, text))
    return found


def _alarm(code: str, level: Level, text: str, market_id: str, since_ns: int, count: int, *, standing: bool) -> Alarm:
    return Alarm(
        code=code,
        level=level.value,
        text=text,
        cure=cure_of(code, market_id),
        market_id=market_id,
        since_ns=since_ns,
        count=count,
        standing=standing,
    )


def _few(ids: list[str], most: int = 8) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _gain(value: float) -> str:
    shown = round(value, 2)
    return f"{'-' if shown < 0 else '+' if shown > 0 else ''}${abs(shown):,.2f}"


if __name__ == "__main__":
    sys.stdout.write(markdown())
