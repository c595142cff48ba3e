"""Is the weight that is learned worth having? The simulated analyst at known skills, learned on some seeds, tested on others.

`python -m benchmarks.skill --out FOLDER`: prints the table and keeps it as skill.json and skill.md; resumable.

Per regime: training runs in shadow (weight 0), where analysts of every skill R2 answer the same questions; `skill_fit.measure` with
a prior weight of 0 makes a weight of each one's answers. Then, on other seeds, the frozen weight and the prior weight of paper
trade against no weight, on common random numbers: the simulated market does not hear us, so all arms see the same market.
Real engine, strategy, paper exchange and analyst; market time in the grain of `quoting.md` 9.1, whose intensities `activity` 1 is:
background makers look every 10 s on average, and the engine's Tick is as coarse. No rewards, rebates or failed settlements.

Two measures of one expectation, in USD per market-day: `P&L` marks what is held at the true probability at the end, as
`quoting.md` 9 does; `edge` values each fill at the true probability of its moment. The truth is a martingale, so they differ by the
luck of the position alone, and the second has less of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import ROOT
from benchmarks.skill_runs import DAY_NS, SKILLS, Lesson, Plan, Result, learn, moment, trial
from llm_maker.core.skill import HORIZONS_S, Forecast, Skill, skill_key
from llm_maker.core.values import logit
from llm_maker.report.skill_fit import Rules, measure
from llm_maker.report.slope import REFERENCE_S, rows, through_zero

PRIOR = 0.15
PUBLISHED = {
    "benign": (0.0, 0.20, 0.24, 0.32, 0.39),
    "mixed": (0.0, 0.29, 0.50, 0.68, 0.81),
    "toxic": (0.0, 0.54, 0.91, 1.39, 1.65),
    "neglected": (0.0, 0.88, 1.81, 3.29, 4.62),
}
"""c - b of `quoting.md` 9.3 for the same skills: 2,000 market-days, a weight by regression, smoothed."""
Task = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A run by name, and how it is made."""


class Store:
    """A folder with one file a run; of the same code and plan, or it is refused."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        world = msgspec.structs.replace(plan, regimes=(), training=0, testing=0, horizon_s=0)
        label = {"code": code(), "plan": msgspec.to_builtins(world)}
        path = folder / "label.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(label)):
            sys.exit(f"{folder} holds runs of other code or of another plan; give another --out, or remove it")
        path.write_text(json.dumps(label, indent=1) + "\n", encoding="utf-8")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def keep(self, name: str, what: Lesson | Result) -> None:
        path = self.path(name)
        half = path.with_suffix(".part")
        half.write_bytes(msgspec.json.encode(what))
        half.replace(path)

    def lesson(self, name: str) -> Lesson:
        return msgspec.json.decode(self.path(name).read_bytes(), type=Lesson)

    def result(self, name: str) -> Result:
        return msgspec.json.decode(self.path(name).read_bytes(), type=Result)


def code() -> str:
    """What a run is of: the product's lines and ours."""
    digest = hashlib.sha256()
    for path in [
        *sorted((ROOT / "llm_maker").rglob("*.py")),
        *sorted((ROOT / "benchmarks").glob("skill*.py")),
        ROOT / "config.yaml",
    ]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def work(store: Store, jobs: int, todo: Iterable[Task]) -> None:
    """Do what is not yet done, in order, over `jobs` processes."""
    left = [(name, make, args) for name, make, args in todo if not store.path(name).exists()]
    if not left:
        return
    began = time.perf_counter()
    for done, (name, result) in enumerate(_done(left, jobs), 1):
        store.keep(name, result)
        spent = time.perf_counter() - began
        print(f"{done}/{len(left)} runs, {spent / done * (len(left) - done) / 60:.0f} min left", end="\r", file=sys.stderr)
    print(file=sys.stderr)


def _done(todo: list[Task], jobs: int) -> Iterator[tuple[str, Lesson | Result]]:
    """Results as they come in, by name."""
    if jobs == 1:
        yield from ((name, make(*args)) for name, make, args in todo)
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(make, *args): name for name, make, args in todo}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


# What comes of it.


class Learned(msgspec.Struct, frozen=True):
    """What a regime's training seeds say of one skill."""

    r2: float
    skill: Skill
    truth: float
    truth_low: float
    truth_high: float
    """Slope of the truth itself, not of a later price, on the disagreement: what R2 is, measured."""
    by_horizon: dict[int, tuple[float, float, float]]


class Arm(msgspec.Struct, frozen=True):
    """Paired differences of one arm to no weight: mean and half a 95 % interval, per market-day."""

    regime: str
    r2: float
    name: str
    weight: float
    days: int
    pnl: float
    pnl_half: float
    edge: float
    edge_half: float
    visible: float
    """The smallest difference in edge that would be found in four of five experiments of this size."""
    refused: float


def learned(plan: Plan, store: Store, regime: str) -> list[Learned]:
    """One weight per skill, from the training runs of a regime."""
    lessons = [store.lesson(_training(regime, seed)) for seed in _seeds(plan.training_seed, plan.training)]
    forecasts = [f for lesson in lessons for f in lesson.forecasts]
    truths = {key: x for lesson in lessons for key, x in lesson.truths.items()}
    now = max(f.ts for f in forecasts) + DAY_NS
    skills = measure(forecasts, now_ns=now, rules=Rules(prior_weight=0.0, horizon_s=plan.horizon_s))
    found = []
    for r2 in plan.skills:
        model = f"simulated(R2={r2:.2f})"
        own = [f for f in forecasts if f.model == model]
        told = [msgspec.structs.replace(f, later={REFERENCE_S: f.x_market, plan.horizon_s: truths[moment(f)]}) for f in own]
        true = through_zero(rows(told, plan.horizon_s, _plain))
        horizons = {h: through_zero(rows(own, h, _smoothed)) for h in HORIZONS_S if h > REFERENCE_S}
        by_horizon = {h: (s.slope, s.low, s.high) for h, s in horizons.items() if s.event_days}
        found.append(Learned(r2, skills[skill_key(model, "")], true.slope, true.low, true.high, by_horizon))
    return found


def _smoothed(f: Forecast) -> float | None:
    """The disagreement that the weight multiplies."""
    return f.d


def _plain(f: Forecast) -> float | None:
    return None if f.p_yes is None else logit(f.p_yes) - f.x_market


def compare(plan: Plan, store: Store, regime: str, weights: list[Learned]) -> list[Arm]:
    """Every arm against none, market-day by market-day."""
    arms = []
    for lesson in weights:
        for name, weight in (("learned", lesson.skill.weight), ("prior", PRIOR)):
            pairs = []
            for seed in _seeds(plan.testing_seed, plan.testing):
                there, here = _testing(regime, lesson.r2, weight, seed), _testing(regime, *_NOBODY, seed)
                if weight == 0.0 and store.path(here).exists():
                    there = here  # without weight there is nothing to tell the skills apart
                if store.path(there).exists() and store.path(here).exists():
                    pairs.append((store.result(there), store.result(here)))
            if pairs:
                arms.append(_arm(regime, lesson.r2, name, weight, pairs))
    return arms


def alone(plan: Plan, store: Store, regime: str) -> str:
    """What the rules earn without anybody's opinion, in a line."""
    paths = [store.path(_testing(regime, *_NOBODY, seed)) for seed in _seeds(plan.testing_seed, plan.testing)]
    runs = [store.result(path.stem) for path in paths if path.exists()]
    pnl, edge = [v for r in runs for v in r.pnl.values()], [v for r in runs for v in r.edge.values()]
    if not pnl:
        return f"{regime}: not run"
    shares, fills = (sum(of) / len(pnl) for of in ([r.shares for r in runs], [r.fills for r in runs]))
    return (
        f"{regime}: P&L {statistics.fmean(pnl):+.2f} +-{half(pnl):.2f}, edge {statistics.fmean(edge):+.2f} +-{half(edge):.2f}, "
        f"{shares:.0f} shares in {fills:.1f} fills"
    )


def _arm(regime: str, r2: float, name: str, weight: float, pairs: list[tuple[Result, Result]]) -> Arm:
    pnl = [a.pnl[m] - b.pnl[m] for a, b in pairs for m in sorted(b.pnl)]
    edge = [a.edge[m] - b.edge[m] for a, b in pairs for m in sorted(b.edge)]
    refused = sum(a.refused for a, _ in pairs) / max(1, sum(a.signals for a, _ in pairs))
    width = half(edge)
    return Arm(
        regime,
        r2,
        name,
        weight,
        len(pnl),
        statistics.fmean(pnl),
        half(pnl),
        statistics.fmean(edge),
        width,
        width * 2.8 / 1.96,
        refused,
    )


def half(values: list[float]) -> float:
    """Half of a 95 % interval of the mean, normal: the market-days are many."""
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)


_NOBODY = (0.10, 0.0)


def _training(regime: str, seed: int) -> str:
    return f"training-{regime}-{seed}"


def _testing(regime: str, r2: float, weight: float, seed: int) -> str:
    return f"testing-{regime}-{r2:.2f}-{weight:.6f}-{seed}"


def trials(plan: Plan, weights: dict[str, list[Learned]]) -> Iterator[Task]:
    """Seed by seed, so that what is broken off is a smaller experiment and not half of one."""
    for seed in _seeds(plan.testing_seed, plan.testing):
        for regime, lessons in weights.items():
            arms = [_NOBODY, *((one.r2, w) for one in lessons for w in (one.skill.weight, PRIOR) if w > 0.0)]
            for r2, weight in dict.fromkeys(arms):
                yield _testing(regime, r2, weight, seed), trial, (plan, regime, seed, r2, weight)


NOTES = """\
Beside `quoting.md` 9.3 (c - b, 2,000 market-days): there w is near the slope of the truth; here W is the slope of the price an hour
later, smaller by the share of the market's error that heals within the hour (compare the columns), and shrunk by half again with
as few event-days as these. In `neglected` the error heals in days: no price within hours shows the skill, so hardly any is learned,
and only outcomes or the prior can bring it in. Theirs tilts the quotes and nothing else;
here a signal sets a position target and a size too, each by its share of the weight they are meant for (0.15). A market-day is
smaller here: the paper exchange lets us have a tenth of the volume, stops, caps and pauses act, and an opinion starts from a fifth
of itself in each one-day run.""".splitlines()


def table(plan: Plan, weights: dict[str, list[Learned]], arms: list[Arm], without: list[str]) -> list[str]:
    """Markdown: what was learned, what it brought."""
    hours = plan.horizon_s / 3_600
    lines = [
        f"Training: seeds {plan.training_seed}..{plan.training_seed + plan.training - 1}, {plan.markets} markets each for "
        f"{plan.days:g} day(s), in shadow; the weight is the slope at {hours:g} h, shrunk from 0. +- and brackets are 95 %.",
        "",
        "| regime | R2 | event-days | slope of the truth | slope at 1 h | slope at 6 h | learned W | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for regime, lessons in weights.items():
        for one in lessons:
            cells = [_interval(*one.by_horizon[h]) if h in one.by_horizon else "" for h in (3_600, 21_600)]
            true = _interval(one.truth, one.truth_low, one.truth_high)
            s = one.skill
            lines.append(
                f"| {regime} | {one.r2:.2f} | {s.event_days} | {true} | {cells[0]} | {cells[1]} | {s.weight:.3f} | {s.why} |"
            )
    lines += [
        "",
        f"Testing: seeds {plan.testing_seed}.., common random numbers, against weight 0, USD per market-day.",
        "",
        "| regime | R2 | arm | W | market-days | P&L at the truth | edge of the fills | visible at 80 % | refused | "
        "`quoting.md` 9.3 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for a in arms:
        book = f"{PUBLISHED[a.regime][SKILLS.index(a.r2)]:+.2f}" if a.name == "learned" and a.r2 in SKILLS else ""
        lines.append(
            f"| {a.regime} | {a.r2:.2f} | {a.name} | {a.weight:.3f} | {a.days} | {a.pnl:+.2f} +-{a.pnl_half:.2f} | "
            f"{a.edge:+.2f} +-{a.edge_half:.2f} | {a.visible:.2f} | {a.refused:.1%} | {book} |"
        )
    return [*lines, "", "Without weight, USD per market-day:", "", *(f"- {line}" for line in without), "", *NOTES]


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def bench(plan: Plan, folder: Path, jobs: int) -> tuple[dict[str, list[Learned]], list[Arm]]:
    """Train, freeze, test; what is done already is read. The table goes to skill.md, the figures to skill.json."""
    store = Store(folder, plan)
    lessons = [(regime, seed) for regime in plan.regimes for seed in _seeds(plan.training_seed, plan.training)]
    work(store, jobs, ((_training(*key), learn, (plan, *key)) for key in lessons))
    weights = {regime: learned(plan, store, regime) for regime in plan.regimes}
    work(store, jobs, trials(plan, weights))
    arms = [arm for regime in plan.regimes for arm in compare(plan, store, regime, weights[regime])]
    without = [alone(plan, store, regime) for regime in plan.regimes]
    lines = table(plan, weights, arms, without)
    print("\n".join(lines))
    (folder / "skill.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plain = {"plan": plan, "learned": weights, "arms": arms, "without": without}
    (folder / "skill.json").write_bytes(msgspec.json.format(msgspec.json.encode(plain)) + b"\n")
    return weights, arms


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.skill", description="The worth of a learned weight, on simulated skills.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="runs and tables; goes on with what is there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--training", type=int, default=Plan().training, help="training runs per regime")
    parser.add_argument("--testing", type=int, default=Plan().testing, help="test runs per regime and arm")
    parser.add_argument("--regimes", nargs="+", default=list(Plan().regimes), choices=list(PUBLISHED))
    parser.add_argument("--skills", nargs="+", type=float, default=list(SKILLS), choices=SKILLS, metavar="R2")
    args = parser.parse_args()
    plan = Plan(regimes=tuple(args.regimes), training=args.training, testing=args.testing, skills=tuple(sorted({*args.skills})))
    bench(plan, args.out, args.jobs)


if __name__ == "__main__":
    main()
