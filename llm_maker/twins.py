"""The accounts beside main that say what the model was worth: paper money, the same events, the same rules.

`twin` is main without a model. `main-paper`, beside real money only, is main's rules and answers on the paper exchange: the twin
is compared with it, never with live fills. `placebo` is main with its opinions dealt to the wrong markets. Each has its own
state, exchange, journal (beside main's), logs (`logs/NAME/`) and rows; none asks a model, none sends anything to a feed.

Main comes first: a shadow whose journal does not fit is brought to main's moment or begun anew, and `daemon.jsonl` says which.
Knows no wall clock and decides nothing about trading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from llm_maker.comeback import Place, bring_back
from llm_maker.config import Config
from llm_maker.core.commands import CancelOrder, Level, Notice
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import (
    AccountStreamUp,
    Event,
    InstrumentDropped,
    InstrumentListed,
    MarketResolved,
    ParamsChanged,
    RegimeChanged,
    Tick,
    VenueDown,
    VenueUp,
)
from llm_maker.core.params import Params
from llm_maker.core.state import State
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, usd
from llm_maker.core.worth import equity
from llm_maker.hearsay import Answers, Dealer, PersonOnly
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.runtime.fill_book import SAMPLE_NS
from llm_maker.runtime.hourly import Hourly
from llm_maker.runtime.inbox import Inbox
from llm_maker.runtime.journal import Checkpoint, JournalDamaged, find_latest
from llm_maker.runtime.journal import files as journal_files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account
from llm_maker.runtime.replay import OF_A_FEED
from llm_maker.runtime.rows import Scope
from llm_maker.runtime.shadow import FAULTS, Guarded, Shadow
from llm_maker.runtime.timeline import Timeline
from llm_maker.tuning import maker_params
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.world import Refused, exchange_params

NO_START = (*FAULTS, JournalDamaged, Refused)
"""All that can keep a shadow from its journal: what a home is refused for, and every bug of ours."""
TWIN, PLACEBO, COPY = "twin", "placebo", "main-paper"
ASIDE = "aside-"
"""Before the name of a journal that no longer fits: kept, and read by nobody."""
_OUTSIDE: frozenset[type[Event]] = OF_A_FEED | {Tick, AccountStreamUp}
"""What comes to a shadow from a world that its own journal does not hold."""
_GAP_NS = NS_PER_S
"""Where main's time and a shadow's ended further apart, the shadow begins anew: one lived through what the other did not."""
VERDICT_DAYS = 20
SHADOW_SAMPLE_NS = 5 * SAMPLE_NS
"""A shadow is sampled for the eye alone: its books are main's, whose samples the signals are judged by."""


def names(config: Config, provider: str) -> list[str]:
    """The shadows of a run, in the order in which they hear; where no model is asked a twin would only be main again."""
    if not config.twin.enabled:
        return []
    found = [COPY] if config.mode == "live" else []
    return found if provider == "none" else [*found, TWIN, *([PLACEBO] if config.twin.placebo else [])]


def shadow_params(params: Params, name: str) -> Params:
    """Main's numbers for an account that asks no model; all but the twin listen where main asks."""
    listens = name != TWIN and params.slow.enabled
    return msgspec.structs.replace(params, slow=msgspec.structs.replace(params.slow, enabled=False, listens=listens))


class Base(msgspec.Struct, frozen=True):
    """Where a comparison began: both P&Ls then, net of model cost (cash units), and which life of the other it was."""

    since_ns: int
    own: int
    other: int
    life: str


class Surroundings(msgspec.Struct, frozen=True):
    """What the wiring lends: main's own files and facts."""

    config: Config
    params: Params
    place: Place
    """Main's."""
    label: dict[str, Any]
    limits: JournalLimits
    log: DaemonLog
    strategies: dict[str, Strategy]


class _Kept(msgspec.Struct):
    """One shadow with what belongs to it."""

    shadow: Shadow
    recorder: Recorder
    scope: Scope
    log: DaemonLog
    base: Base | None


def net(state: State) -> int:
    """An account's P&L since it began, transfers out, the model paid; cash units."""
    return equity(state) - state.flows.start - state.flows.transfers + state.flows.llm_cost


class Twins:
    """All shadows of a run. `bring_back` makes them; before that, and where none are wanted, there are none."""

    def __init__(self, config: Config, provider: str) -> None:
        """`provider`: whom main asks. Raises `world.Refused` where main bears the name of a shadow."""
        wanted = names(config, provider)
        if config.account in (COPY, TWIN, PLACEBO):
            raise Refused(f"account is {config.account!r}, which is the name of a paper account beside it; choose another name")
        self._wanted = wanted
        self._kept: dict[str, _Kept] = {}
        self._main: Account | None = None
        self._hourly = Hourly()

    @property
    def accounts(self) -> int:
        """How many accounts the run has, main too: they share its disk."""
        return 1 + len(self._wanted)

    @property
    def shadows(self) -> list[Shadow]:
        return [kept.shadow for kept in self._kept.values()]

    @property
    def states(self) -> list[State]:
        """Of those that run: what a broken one holds is no reason to follow a market."""
        return [shadow.engine.state for shadow in self.shadows if not shadow.fault]

    def bring_back(self, around: Surroundings, main: Account, timeline: Timeline, session: int, now: int) -> None:
        """Every shadow as its journal left it, at main's moment `now`; `session` is the number of the one that begins."""
        self._around, self._main = around, main
        for name in self._wanted:
            try:
                self._kept[name] = self._bring(name, timeline, session, now)
            except NO_START as fault:  # a full disk, a bug: main must start all the same
                self._say(Level.ERROR, f"{name} does not run: {type(fault).__name__}: {fault}")

    # One shadow.

    def _bring(self, name: str, timeline: Timeline, session: int, now: int) -> _Kept:
        around = self._around
        meta, scope = self._last_life(name)
        exchange = Exchange(self._exchange_params())
        guarded = Guarded(exchange)
        alone = Timeline([(name, guarded)])
        log = self._log(name)
        made: list[Recorder] = []

        def recorder(state: State) -> Recorder:
            made.append(self._recorder(state, scope, log))
            return made[-1]

        label = {**around.label, "exchange": msgspec.to_builtins(exchange.params)}
        place = msgspec.structs.replace(around.place, account=name, scope=scope)
        try:
            back = bring_back(place, alone, [guarded], self._fresh(name), around.strategies, label, recorder, _OUTSIDE)
            if back.reader is not None:
                self._refuse_another_life(back.engine.state)
        except NO_START as fault:  # whatever ails its journal, a lawful refusal or a bug: main must start all the same
            if made:
                made[-1].close()
            kept = f"the old one is kept as {ASIDE}journal-{name}-*"
            self._say(Level.WARNING, f"{name}: begun anew, its journal cannot be gone on from ({fault}); {kept}")
            self._set_aside(name)
            scope = msgspec.structs.replace(scope, wallet=f"{around.place.scope.wallet}#{session}")
            exchange = Exchange(self._exchange_params())
            guarded, meta = Guarded(exchange), None
            alone = Timeline([(name, guarded)])
            back = bring_back(
                msgspec.structs.replace(place, scope=scope), alone, [guarded], self._fresh(name), around.strategies, label, recorder
            )
        for cut in back.cuts:
            self._say(Level.WARNING, f"{name}: {cut}")
        state = back.engine.state
        if back.reader is None:
            if meta is not None and self._main is not None and self._main.seq:
                self._say(Level.INFO, f"{name}: begins here, beside an account that ran before")
        else:
            self._bring_to_present(name, state, exchange, guarded, now)
        timeline.join(alone)
        base = self._base(name, meta, state, now)
        facts = {**label, "wallet": scope.wallet, "base": msgspec.to_builtins(base)}

        def snapshot() -> Checkpoint:
            return Checkpoint(checkpoint(state), timeline.checkpoint(name), facts)

        limits = msgspec.structs.replace(around.limits, indexed=place.ledger.indexed(scope))
        if back.latest is None:
            journal = JournalWriter.create(place.folder, name, snapshot, limits=limits)
        else:
            journal = JournalWriter.resume(back.latest, snapshot, limits=limits, reader=back.reader)
        shadow = Shadow(back.engine, journal, back.recorder, guarded, back.seq, around.place.account, self._ear(name), self._broke)
        return _Kept(shadow, back.recorder, scope, log, base)

    def _fresh(self, name: str) -> Engine:
        around = self._around
        strategy = around.strategies[around.config.strategy.name]
        cash = self._exchange_params().start_cash
        return Engine(new_state(name, shadow_params(around.params, name), strategy, maker_params(around.config), cash), strategy)

    def _exchange_params(self) -> Any:
        """The paper exchange as configured; beside real money with main's bankroll to trade with."""
        params = exchange_params(self._around.config)
        if self._around.config.mode != "live":
            return params
        return msgspec.structs.replace(params, start_cash=self._around.params.risk.bankroll)

    def _last_life(self, name: str) -> tuple[dict[str, Any] | None, Scope]:
        """What its newest journal says of itself, and whose rows are its; a journal begun anew has rows of its own."""
        scope = msgspec.structs.replace(self._around.place.scope, mode="paper", account=name)
        latest = find_latest(self._around.place.folder, name)
        try:
            meta = dict(read_journal(latest).header.meta) if latest is not None else {}
        except NO_START:  # `bring_back` meets the same fault, and says it
            meta = {}
        return meta, msgspec.structs.replace(scope, wallet=str(meta.get("wallet", scope.wallet)))

    def _set_aside(self, name: str) -> None:
        """Its last life alone is kept: each may take the share of the disk that the one which runs has."""
        folder = self._around.place.folder
        found = journal_files(folder, name)
        for path in folder.glob(f"{ASIDE}journal-{name}-*") if found else ():
            path.unlink()
        for path in found:
            path.rename(path.with_name(ASIDE + path.name))

    def _refuse_another_life(self, state: State) -> None:
        """What only one of the two lived through would be told as the model's worth for ever: raises Refused."""
        assert self._main is not None
        away = self._main.engine.state.now - state.now
        if abs(away) > _GAP_NS:
            raise Refused(f"it ends {abs(away) / NS_PER_S:.3f}s {'after' if away < 0 else 'before'} main's")

    def _bring_to_present(self, name: str, state: State, exchange: Exchange, guarded: Guarded, now: int) -> None:
        """Nothing of it rests from before."""
        assert self._main is not None
        away, at = self._main.engine.state.now - state.now, max(now, state.now)
        resting = exchange.resting()
        guarded.skip_to(at)
        for order in resting:
            guarded.execute(at, CancelOrder(order.order_id, order.instrument, "brought to the present"))
        if resting or not state.stopped:
            ends = f"its journal ends {abs(away) / NS_PER_S:.3f}s {'after' if away < 0 else 'before'} main's"
            done = f"{len(resting)} resting paper orders canceled, positions kept"
            self._say(Level.INFO, f"{name}: brought to the present, {ends}; {done}")

    def _ear(self, name: str) -> PersonOnly:
        assert self._main is not None
        around, main = self._around, self._main.engine.state
        stream = around.config.venue if around.params.risk.live else ""
        if name == TWIN:
            return PersonOnly(stream)
        return Dealer(main, around.config.seed, stream) if name == PLACEBO else Answers(main, stream)

    def _log(self, name: str) -> DaemonLog:
        """Its notices: a file of its own, because main says most of them too."""
        return DaemonLog(self._around.place.home / "logs" / name / "daemon.jsonl", (), "info", lambda line: None)

    def _recorder(self, state: State, scope: Scope, log: DaemonLog) -> Recorder:
        def notice(ts: int, told: Notice) -> None:
            log.notice(ts, told)
            # A halt that is main's too has been told: a kill, a full disk.
            shared = self._main is not None and told.code.removeprefix("halt_") in self._main.engine.state.halts
            if told.level is Level.ERROR and not shared:
                self._say(Level.WARNING, f"{scope.account} (paper money beside {self._around.place.account}): {told.text}")

        around = self._around
        return Recorder(
            state,
            scope,
            around.place.ledger,
            around.place.home / "logs" / scope.account,
            simulated=True,
            on_notice=notice,
            on_failure=lambda reason: self._say(Level.ERROR, reason),
            max_bytes=int(around.config.logging.decisions_max_mb * 1_000_000),
            sample_ns=SHADOW_SAMPLE_NS,
        )

    def _broke(self, name: str, fault: Exception) -> None:
        text = f"{name} has ended by a fault of its own ({type(fault).__name__}: {fault}); {self._around.place.account} goes on"
        self._say(Level.ERROR, text)

    def _say(self, level: Level, text: str) -> None:
        self._around.log.say(level, "twin", text)

    # The run.

    def begin(self, ts: int) -> None:
        """After `Started`: changed numbers, and whatever of main's world a shadow does not know."""
        for name, kept in self._kept.items():
            shadow, state = kept.shadow, kept.shadow.engine.state
            params, wanted = shadow_params(self._around.params, name), maker_params(self._around.config)
            if state.params != params or state.strategy_params != wanted:
                changed = ParamsChanged(msgspec.Raw(msgspec.json.encode(params)), msgspec.Raw(msgspec.json.encode(wanted)))
                shadow.hear(ts, name, changed)
            assert self._main is not None
            for event in _missing(state, self._main.engine.state):
                shadow.hear(ts, "", event)

    def reload(self, params: Params, maker: Any, inbox: Inbox, who: str) -> None:
        """Main's new numbers are theirs too, from the same moment."""
        self._around = msgspec.structs.replace(self._around, params=params)
        for name in self._kept:
            raw = msgspec.json.encode(shadow_params(params, name))
            inbox.put(ParamsChanged(msgspec.Raw(raw), msgspec.Raw(msgspec.json.encode(maker)), who), name)

    def _other(self, name: str) -> tuple[State, str] | None:
        """Whom a shadow is compared with, and which life of it: main, or main's paper copy beside real money; None: nobody."""
        if self._around.config.mode != "live":
            assert self._main is not None
            return self._main.engine.state, f"{self._main.name} {self._around.place.scope.wallet}"
        copy = self._kept.get(COPY)
        return None if copy is None or copy.shadow.fault else (copy.shadow.engine.state, f"{COPY} {copy.scope.wallet}")

    def _base(self, name: str, meta: dict[str, Any] | None, state: State, now: int) -> Base | None:
        """Where its comparison began: as its journal says, or now (`meta` None), where either of the two began anew."""
        other, told = self._other(name), (meta or {}).get("base")
        base = msgspec.convert(told, Base) if told else None
        if other is None or (base is not None and base.life == other[1]):
            return base
        return Base(now, net(state), net(other[0]), other[1])

    def difference(self, name: str = TWIN) -> int | None:
        """What the model was worth so far, its cost paid: the other's P&L minus the shadow's since both began; cash units."""
        kept = self._kept.get(name)
        other = self._other(name) if kept is not None else None
        if kept is None or kept.base is None or other is None or kept.shadow.fault:
            return None
        return (net(other[0]) - kept.base.other) - (net(kept.shadow.engine.state) - kept.base.own)

    def difference_usd(self) -> float | None:
        found = self.difference()
        if found is not None and self._main is not None:
            self._hourly.look(self._main.engine.state.now, found)
        return None if found is None else usd(found)

    def interval_usd(self) -> tuple[float, float] | None:
        """95 % limits of `difference_usd`, by how much it moves in an hour; None where the hours are too few."""
        found, kept = self.difference(), self._kept.get(TWIN)
        if found is None or kept is None or kept.base is None or self._main is None:
            return None
        half = self._hourly.half(self._main.engine.state.now - kept.base.since_ns)
        return None if half is None else (usd(round(found - half)), usd(round(found + half)))

    def measured(self) -> tuple[float | None, tuple[float, float] | None]:
        """Both, for the decision log."""
        return self.difference_usd(), self.interval_usd()

    def told(self) -> dict[str, Any] | None:
        """For `status` and the result of a run; None where there is no twin. A verdict is the report's, with its interval."""
        if not self._kept or TWIN not in self._wanted:
            return None
        assert self._main is not None
        began = self._kept[TWIN].base if TWIN in self._kept else None
        return {
            "against": COPY if self._around.config.mode == "live" else self._around.place.account,
            "difference_usd": self.difference_usd(),
            "interval_usd": self.interval_usd(),
            "days": 0.0 if began is None else round((self._main.engine.state.now - began.since_ns) / NS_PER_S / 86_400, 4),
            "verdict_days": VERDICT_DAYS,
            "paper_money": True,
            "accounts": {name: self._account(name, kept) for name, kept in self._kept.items()},
        }

    def _account(self, name: str, kept: _Kept) -> dict[str, Any]:
        state, difference = kept.shadow.engine.state, self.difference(name)
        return {
            "mode": "ended" if kept.shadow.fault else state.mode.value,
            "why": kept.shadow.fault or state.mode_text(),
            # What broke half-way through a step may hold a state that no sum can be made of.
            "pnl_usd": None if kept.shadow.fault else usd(net(state)),
            "fills": state.counts.fills,
            "decisions": state.counts.decisions,
            "difference_usd": None if difference is None else usd(difference),
        }

    def close(self) -> None:
        """Leave the files whole; a fault of one is said, and keeps nobody else from closing."""
        for name, kept in self._kept.items():
            shadow = kept.shadow
            steps: list[Callable[[], object]] = [lambda kept=kept: _sealed(kept)] if shadow.stop is not None else []  # type: ignore[misc]
            if shadow.journal is not None:
                steps.append(shadow.journal.close)
            for step in (*steps, lambda kept=kept: kept.recorder.save_state(kept.shadow.engine.state.now), kept.recorder.close):  # type: ignore[misc]
                try:
                    step()
                except NO_START as fault:
                    self._say(Level.ERROR, f"{name}: {type(fault).__name__}: {fault}")
            kept.log.close()
        self._kept = {}


def _sealed(kept: _Kept) -> None:
    """After an end in order: a checkpoint that another build can go on from."""
    assert kept.shadow.journal is not None
    kept.shadow.journal.rotate()
    kept.recorder.indexed(kept.shadow.seq)


def _missing(mine: State, main: State) -> Iterable[Event]:
    """What a shadow that was away, or is new, has to hear to stand in main's world; nothing where it was there all the time."""
    for venue in main.venues.values():
        there = mine.venues.get(venue.name)
        if venue.up and (there is None or not there.up):
            yield VenueUp(venue.name, venue.snapshots)
        elif not venue.up and there is not None and there.up:
            yield VenueDown(venue.name, venue.down_reason)
        if there is not None and there.regime is not venue.regime:
            yield RegimeChanged(venue.name, venue.regime)
    for market in main.markets.values():
        name, here = market.instrument.id, mine.markets.get(market.instrument.id)
        if here is None and market.resolved is not None:
            continue
        if here is None or here.instrument != market.instrument or (market.in_universe and not here.in_universe):
            yield InstrumentListed(market.instrument)
        if not market.in_universe and (here is None or here.in_universe):
            yield InstrumentDropped(name, market.drop_reason)
        if here is not None and market.resolved is not None and here.resolved is None:
            yield MarketResolved(name, market.resolved)
    for market in mine.markets.values():
        if market.instrument.id not in main.markets and market.in_universe:
            yield InstrumentDropped(market.instrument.id, "it is no longer followed")
