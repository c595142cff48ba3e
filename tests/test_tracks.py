"""Tracks and the identity end to end: the real engine on the paper exchange, recorded in either way, and the real tape."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_maker import lab
from llm_maker.config import Config
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.events import Started
from llm_maker.core.values import NS_PER_S
from llm_maker.core.worth import equity, exit_equity
from llm_maker.home_report import report
from llm_maker.report import pnl
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import EquityRow, FillRow, RiskRow, Scope
from llm_maker.runtime.timeline import Timeline
from llm_maker.strategy.params import MakerParams
from llm_maker.tracks import BUCKETS, track, tracks_of
from llm_maker.trial import Pace
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.paper.records import ExchangeParams
from tests.runtime.world import CASH, STRATEGIES, params

SCOPE = Scope("simulated", "paper", "paper", "main")
MIDNIGHT = 1_767_225_600 * NS_PER_S
TAPE = "tapes/polymarket_nhl_20260607_0130.jsonl.zst"


class Both(Memory):
    """Whatever is recorded goes into a ledger as well."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ledger = Ledger.open(path)

    def append(self, scope, seq, ts, rows, *, wait=False):
        super().append(scope, seq, ts, rows)
        self.ledger.append(scope, seq, ts, rows, wait=True)

    def remember(self, scope, values, ts=0):
        super().remember(scope, values, ts)
        self.ledger.remember(scope, values, ts)


class Run:
    """Hours of a simulated market across midnight, when rewards and rebates are paid; markets end and are paid out on the way."""

    def __init__(self, source, seed=7, hours=0.8, markets=3, tick_ns=NS_PER_S):
        self.start = start = MIDNIGHT - int(0.7 * hours * 3_600) * NS_PER_S
        self.market = SimulatedMarket(
            MarketParams(seed=seed, markets=markets, activity=150.0, start_ns=start, days_to_end=0.02 * hours, rewards=True)
        )
        self.exchange = Exchange(ExchangeParams(seed=seed, start_cash=CASH, settle_fail_ppm=60_000, min_payout=1))
        settings = params(enabled=False)
        bold = msgspec.structs.replace(settings.risk, resolution_pull_ns=0, resolution_reduce_ns=0)  # to hold shares at the end
        settings = msgspec.structs.replace(settings, risk=bold)
        self.state = new_state("main", settings, STRATEGIES["maker"], MakerParams(), CASH)
        self.recorder = Recorder(self.state, SCOPE, source, None, simulated=True)
        account = Account(Engine(self.state, STRATEGIES["maker"]), None, self.recorder, [self.exchange])
        timeline = Timeline([("", self.market), ("main", self.exchange), ("", Pace(start, tick_ns))])
        self.session = Session([account], timeline)
        self.session.deliver(start, "main", Started(1, False))
        self.end = start + int(hours * 3_600) * NS_PER_S

    def until(self, end):
        while (item := self.session.timeline.pop(end)) is not None:
            self.session.deliver(*item)
        return self

    def finish(self):
        self.until(self.end)
        self.recorder.save_state(self.state.now)
        return self


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run; (run, what it left)."""
    both = Both(tmp_path_factory.mktemp("run") / "ledger.sqlite3")
    made = Run(both).finish()
    both.ledger.drain()
    yield made, both
    both.ledger.close()


def total(found: pnl.Identity, horizon: int) -> int:
    split = found.horizons[horizon]
    money = found.fees + found.rebates + found.rewards + found.funding + found.rounding + found.unexplained
    return found.capture + found.unknown + (split.markout or 0) + split.inventory + money


def closed(found: pnl.Identity, state) -> None:
    """The identity is the account's, and closes at every horizon."""
    assert found.closes is True, found.why
    assert found.pnl == (equity(state) - state.flows.start - state.flows.transfers) * found.scale
    assert all(total(found, horizon) == found.pnl for horizon in pnl.HORIZONS)


def test_the_run_had_everything_in_it(run):
    made, both = run
    found, flows = track(both, SCOPE), made.state.flows
    kinds = {move.kind for move in found.money}
    assert {"merge", "reward", "rebate", "redemption"} <= kinds and found.failed_fills > 0, kinds
    assert flows.rewards > 0 and flows.rebates > 0 and len(pnl.settled(found)) > 1 and len(found.fills) > 100
    assert any(not quoted.net and quoted.settled2 is None for quoted in found.instruments.values()) or found.trips


def test_the_identity_of_a_run_closes_to_its_rounding(run):
    made, both = run
    found = pnl.identity(track(both, SCOPE))
    closed(found, made.state)
    assert abs(found.rounding) <= (found.fills + 200) * found.scale and found.unknown_fills == 0
    reached = [found.horizons[h].known for h in (1, 10, 60, 300)]
    assert all(0.5 * found.fills < known <= found.fills for known in reached), reached
    assert found.horizons[86_400].markout is None and found.horizons[pnl.SETTLEMENT].known > 0


def test_markets_alone_add_up_to_the_account(run):
    _, both = run
    whole = track(both, SCOPE)
    found = pnl.identity(whole)
    parts = [pnl.identity(whole, [name]) for name in whole.instruments]
    for line in ("capture", "rewards", "rebates", "fees", "fills"):
        assert sum(getattr(part, line) for part in parts) == getattr(found, line), line
    assert sum(part.pnl for part in parts) == found.pnl - found.rounding


def test_memory_and_ledger_give_the_same_track(run):
    made, both = run
    one, two = track(both, SCOPE, samples=True), track(both.ledger, SCOPE, samples=True)
    assert msgspec.to_builtins(one) == msgspec.to_builtins(two)
    assert one.label == {"account": "main", "venue": "simulated", "mode": "paper", "wallet": "paper", "simulated": True}
    assert (one.equity, one.exit_equity, one.start_cash) == (equity(made.state), exit_equity(made.state), CASH)
    assert one.flows == msgspec.to_builtins(made.state.flows) and one.counts == msgspec.to_builtins(made.state.counts)
    assert one.points[-1].equity == one.equity and one.end_ns == made.state.now and one.start_ns == made.start
    assert set(one.samples) <= set(one.instruments) and all(len(s) > 5 for s in one.samples.values())
    assert sum(q.quoted_ns for q in one.instruments.values()) > 600 * NS_PER_S


def test_a_fill_carries_what_stood_beside_it(run):
    _, both = run
    found = track(both, SCOPE)
    rows = {(row.order_id, row.fill_id): (ts, row) for _, ts, row in both.scan(FillRow, SCOPE)}
    for fill in found.fills:
        ts, row = rows[fill.order_id, fill.fill_id]
        assert (fill.ts, fill.price, fill.qty, fill.side, fill.cash) == (ts, row.price, row.qty, row.side, row.cash)
        assert fill.mid2 > 0 and fill.fair > 0 and row.status != "failed"
    assert len(found.fills) + found.failed_fills == len(rows)


def test_what_is_newer_than_the_totals_waits_for_the_next_ones():
    """A report read while a daemon writes, also right after a fill has failed: money and fills are of one moment."""
    memory = Memory()
    made = Run(memory, seed=11)
    began, read, failed, behind = made.session.now, 0, 0, 0
    while made.session.now - began < 1_200 * NS_PER_S:
        made.session.deliver(*made.session.timeline.pop())
        counts = made.state.counts
        if counts.failed_settlements == failed and counts.fills <= read:
            continue
        read, failed = (counts.fills + 20, counts.failed_settlements)
        found = track(memory, SCOPE)
        assert pnl.identity(found).closes is True, (counts.fills, failed)
        assert found.failed_fills == failed
        told = [fill.ts for fill in found.fills] + [move.ts for move in found.money] + [trip.closed_ns for trip in found.trips]
        assert all(ts <= found.end_ns for ts in told)
        behind += found.end_ns < made.state.now and len(found.fills) < sum(1 for _ in memory.scan(FillRow, SCOPE)) - failed
    assert failed > 1 and behind > 2


def test_a_part_of_time_opens_with_the_equity_of_its_moment(run):
    _, both = run
    whole = track(both, SCOPE)
    since = whole.start_ns + (whole.end_ns - whole.start_ns) // 2
    for source in (both, both.ledger):
        part = track(source, SCOPE, since)
        first = next(p for p in whole.points if p.ts >= since)
        assert part.label["since_ns"] == part.start_ns == first.ts and part.start_cash == first.equity
        assert part.fills == [f for f in whole.fills if f.ts > first.ts] and 0 < len(part.fills) < len(whole.fills)
        assert part.points[0] == first and part.points[-1] == whole.points[-1]
        found = pnl.identity(part)
        assert found.pnl == (whole.equity - first.equity) * found.scale
        assert all(total(found, horizon) == found.pnl for horizon in pnl.HORIZONS)
        assert found.closes is True or "older" in found.why
    assert msgspec.to_builtins(track(both, SCOPE, whole.start_ns)) == msgspec.to_builtins(whole), "from the start: the whole"


def test_a_restart_goes_on_with_the_marks_that_are_due(tmp_path):
    """Two halves with a new recorder between them leave what one whole leaves."""
    whole, halves = Memory(), Memory()
    Run(whole, seed=3, hours=0.2).finish()
    made = Run(halves, seed=3, hours=0.2)
    made.until(made.session.now + 400 * NS_PER_S)
    made.recorder.save_state(made.state.now)
    seq = made.session.accounts[0].seq
    made.session.accounts[0].recorder = made.recorder = Recorder(made.state, SCOPE, halves, None, simulated=True)
    assert made.session.accounts[0].seq == seq
    made.finish()
    one, two = track(whole, SCOPE), track(halves, SCOPE)
    assert [fill.marks for fill in one.fills] == [fill.marks for fill in two.fills] and len(one.fills) > 10
    assert (one.instruments, one.equity, one.start_ns) == (two.instruments, two.equity, two.start_ns)
    assert pnl.identity(two).closes is True


def test_a_long_record_keeps_its_drawdown(tmp_path):
    """A point a minute for a month is thinned, and the deepest fall is still there."""
    memory = Memory()
    minute = 60 * NS_PER_S
    count = 12 * BUCKETS
    for n in range(count):
        worth = 1_000_000 + (n * 7_919) % 50_000 - (400_000 if n == 20_001 else 0) + (300_000 if n == 20_003 else 0)
        memory.append(SCOPE, n + 1, n * minute, [EquityRow(equity=worth, cash=0, realized_pnl=0, unrealized_pnl=0)])
    memory.remember(SCOPE, {"now": str(count * minute), "equity": "5", "cash": "1", "start_ns": "1"})
    found = track(memory, SCOPE)
    values = [point.equity for point in found.points]
    assert (
        len(values) <= 3 * (BUCKETS + 1) + 1
        and values[-1] == 5
        and [p.ts for p in found.points] == sorted({p.ts for p in found.points})
    )
    told = [row.equity for _, _, row in memory.scan(EquityRow, SCOPE)]
    assert min(values[:-1]) == min(told) and max(values) == max(told)


def test_a_ledger_of_an_older_build_gives_what_it_has(run, tmp_path):
    """Without facts, marks, list of instruments: every move is unknown, and what cannot be closed is not called closed."""
    _, both = run
    old = Memory()
    new = ("instruments", "marks", "settled", "nets", "seq", "start_ns")
    for seq, ts, row in both.scan(FillRow, SCOPE):
        old.append(SCOPE, seq, ts, [row])
    old.append(SCOPE, 1 << 40, 0, [RiskRow(key=k, value=v) for k, v in both.risk_state(SCOPE).items() if k not in new])
    found = track(old, SCOPE)
    split = pnl.identity(found)
    assert split.unknown_fills == split.fills == len(found.fills) > 0 and split.capture == 0
    assert all(horizon.markout is None for horizon in split.horizons.values()) and split.closes is False
    assert all(quoted.payout == quoted.price_scale for quoted in found.instruments.values())


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(1, 5))
def test_the_identity_closes_over_many_market_hours(seed):
    memory = Memory()
    made = Run(memory, seed=seed, hours=2.0, markets=4).finish()
    counts = made.state.counts
    print(f"seed {seed}: {counts.fills} fills, {counts.failed_settlements} failed, {counts.merges} merges")
    closed(pnl.identity(track(memory, SCOPE)), made.state)


@pytest.mark.prove
@pytest.mark.shared
def test_the_real_tape_closes_exactly(shared, tmp_path):
    """To the last unit; capture and inventory are the P&L that the backtest prints, and the account's own report knows of none."""
    result = lab.backtest(Config(), shared / TAPE, tmp_path, "none")
    assert tracks_of(tmp_path) == [] and report(tmp_path) == {"accounts": []}
    (found,) = tracks_of(tmp_path, backtest=True, samples=True)
    split = pnl.identity(found)
    assert split.closes is True and (split.rounding, split.unexplained, split.unknown) == (0, 0, 0)
    assert len(found.fills) == result["fills"] > 0 and found.label["wallet"].startswith("backtest:")
    for horizon in pnl.HORIZONS:
        assert total(split, horizon) == split.pnl
    assert split.usd(split.capture + split.horizons[60].inventory + split.horizons[60].markout) == pytest.approx(result["pnl_usd"])
    assert split.usd(split.capture) == pytest.approx(result["pnl_split_usd"]["spread"], abs=1e-5)
    assert split.horizons[1].known == len(found.fills) and split.horizons[3_600].markout is None, "the tape is 13 minutes long"
    assert found.samples
