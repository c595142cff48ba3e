"""What every term of the quoting is worth: the real engine against itself with one thing changed, on the simulated venue.

`python -m benchmarks.arms --out FOLDER`: prints the table and keeps it as arms.json and arms.md; resumable. World, seeds and
arms are `benchmarks/regimes.yaml`, fixed before the first comparison.

Paired by market-day on common random numbers (the simulated market does not hear us, so all arms see the same one). Two measures
of one expectation, USD per market-day: `edge` values each fill at the true probability of its moment, `P&L` what is held at the
end at the true probability of then, as `quoting.md` 9 does; the first has less luck in it. Rewards and rebates stand apart.
Everything here is simulated.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.rows import ROOT
from benchmarks.skill import Store, Task, half, work
from benchmarks.skill_runs import Plan, Result, run
from llm_maker.core.values import usd

FILE = ROOT / "benchmarks" / "regimes.yaml"
BASE = "inventory"


class Setting(msgspec.Struct, frozen=True):
    """The regime file, read."""

    regimes: dict[str, dict[str, float]]
    market: dict[str, float]
    seeds: dict[str, dict[str, int]]
    volume_caps: list[float]
    base: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    ending_arms: dict[str, dict[str, Any]]
    opinion_arms: dict[str, Any]

    def keys(self, arm: str, cap: float) -> dict[str, object]:
        """The config of an arm, as dotted keys."""
        base: dict[str, object] = {"strategy.quoting": self.base["quoting"], "paper.volume_cap_pct": cap}
        base |= {f"strategy.terms.{name}": on for name, on in self.base["terms"].items()}
        if arm in self.ending_arms or arm.startswith("ending"):
            base["paper.days_to_end"] = 2.0
        changed: Mapping[str, object] = {**self.arms, **self.ending_arms}.get(arm, {})
        return {**base, **changed}


def setting() -> Setting:
    return msgspec.convert(yaml.safe_load(FILE.read_text(encoding="utf-8")), Setting)


class Paired(msgspec.Struct, frozen=True):
    """An arm against the base, USD per market-day; halves of 95 % intervals."""

    regime: str
    cap: float
    arm: str
    days: int
    edge: float
    edge_half: float
    pnl: float
    pnl_half: float
    gap: float
    gap_half: float
    pnl_gap: float
    pnl_gap_half: float
    paid: float
    """Rewards and rebates, per market-day."""
    paid_gap: float
    shares: float


class Day(msgspec.Struct, frozen=True):
    """One run with what the venue paid for quoting."""

    result: Result
    paid: float


def market_days(plan: Plan, regime: str, seed: int, arm: str, cap: float) -> Day:
    """One run of an arm."""
    witness, state = run(plan, regime, seed, (), 0.0, setting().keys(arm, cap))
    pnl, edge, shares = witness.results()
    result = Result(regime, 0.0, 0.0, seed, pnl, edge, shares, state.counts.fills, 0, 0)
    return Day(result, usd(state.flows.rewards + state.flows.rebates))


class Days(Store):
    """A folder with one file a run."""

    def day(self, name: str) -> Day:
        return msgspec.json.decode(self.path(name).read_bytes(), type=Day)


def name_of(regime: str, cap: float, arm: str, seed: int) -> str:
    return f"{regime}-{cap:g}-{arm.replace(' ', '_')}-{seed}"


def tasks(plan: Plan, seeds: range, caps: list[float], arms: list[str]) -> Iterator[Task]:
    """Seed by seed, so that what is broken off is a smaller experiment and not half of one."""
    for seed in seeds:
        for regime in plan.regimes:
            for cap in caps:
                for arm in arms:
                    yield name_of(regime, cap, arm, seed), market_days, (plan, regime, seed, arm, cap)


def base_of(arm: str, found: Setting) -> str:
    """What an arm is paired with: the base in the same world."""
    if arm in found.ending_arms:
        return "ending base"
    return "rewards paid" if arm.startswith("table ") else BASE


def paired(store: Days, seeds: range, regime: str, cap: float, arm: str) -> Paired | None:
    """Market-day by market-day, over the seeds that both have; None where there are none."""
    base = base_of(arm, setting())
    runs = []
    for seed in seeds:
        here, there = name_of(regime, cap, arm, seed), name_of(regime, cap, base, seed)
        if store.path(here).exists() and store.path(there).exists():
            runs.append((store.day(here), store.day(there)))
    if not runs:
        return None
    edge = [v for a, _ in runs for v in a.result.edge.values()]
    pnl = [v for a, _ in runs for v in a.result.pnl.values()]
    gap = [a.result.edge.get(m, 0.0) - b.result.edge.get(m, 0.0) for a, b in runs for m in a.result.edge]
    pnl_gap = [a.result.pnl.get(m, 0.0) - b.result.pnl.get(m, 0.0) for a, b in runs for m in a.result.pnl]
    days = len(edge)
    paid = [a.paid for a, _ in runs], [b.paid for _, b in runs]
    return Paired(
        regime,
        cap,
        arm,
        days,
        statistics.fmean(edge),
        half(edge),
        statistics.fmean(pnl),
        half(pnl),
        statistics.fmean(gap),
        half(gap),
        statistics.fmean(pnl_gap),
        half(pnl_gap),
        sum(paid[0]) / days,
        (sum(paid[0]) - sum(paid[1])) / days,
        sum(a.result.shares for a, _ in runs) / days,
    )


def table(found: list[Paired], seeds: range) -> list[str]:
    """Markdown, one row an arm."""
    lines = [
        f"SIMULATED. Seeds {seeds.start}..{seeds.stop - 1}, USD per market-day, +- is half a 95 % interval; every arm against "
        "the base (`inventory` with its extra terms off) on the same seeds.",
        "",
        "| regime | cap | arm | market-days | shares | edge of the fills | P&L at the truth | edge against the base | "
        "P&L against the base | rewards and rebates | against the base |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for p in found:
        lines.append(
            f"| {p.regime} | {p.cap:g} % | {p.arm} | {p.days} | {p.shares:.0f} | {p.edge:+.2f} +-{p.edge_half:.2f} | "
            f"{p.pnl:+.2f} +-{p.pnl_half:.2f} | {p.gap:+.2f} +-{p.gap_half:.2f} | {p.pnl_gap:+.2f} +-{p.pnl_gap_half:.2f} | "
            f"{p.paid:+.2f} | {p.paid_gap:+.2f} |"
        )
    return lines


def main() -> None:
    found = setting()
    parser = argparse.ArgumentParser(prog="benchmarks.arms", description="What every term of the quoting is worth; simulated.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="runs and tables; goes on with what is there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=int, default=250, help="runs of each arm in each regime, of 8 market-days each")
    parser.add_argument("--first", type=int, default=found.seeds["testing"]["first"], help="the first seed")
    parser.add_argument("--regimes", nargs="+", default=list(found.regimes))
    parser.add_argument("--caps", nargs="+", type=float, default=found.volume_caps)
    parser.add_argument("--arms", nargs="+", default=[*found.arms, *found.ending_arms])
    args = parser.parse_args()
    unknown = [arm for arm in args.arms if arm not in found.arms and arm not in found.ending_arms]
    if unknown:
        sys.exit(f"no arm {unknown[0]!r}; there are {', '.join([*found.arms, *found.ending_arms])}")
    plan = Plan(regimes=tuple(args.regimes), markets=int(found.market["markets"]), days=found.market["days"])
    store, seeds = Days(args.out, plan), range(args.first, args.first + args.runs)
    arms = [BASE, *dict.fromkeys([*(base_of(arm, found) for arm in args.arms), *args.arms])]
    arms = list(dict.fromkeys(arms))
    work(store, args.jobs, tasks(plan, seeds, args.caps, arms))
    rows = [paired(store, seeds, regime, cap, arm) for regime in args.regimes for cap in args.caps for arm in arms]
    told = [row for row in rows if row is not None]
    lines = table(told, seeds)
    print("\n".join(lines))
    (args.out / "arms.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (args.out / "arms.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")


if __name__ == "__main__":
    main()
