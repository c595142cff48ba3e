"""`sweep`: the grid before anything runs, tables that no number of processes changes, going on after a kill, walk-forward, luck."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_maker import cli, sweep, sweep_runs, sweep_table
from llm_maker.config import load
from llm_maker.config_text import ConfigError
from llm_maker.core.values import NS_PER_S
from llm_maker.report import walk_forward
from llm_maker.report.metrics import null_best_sharpe, psr, sharpe
from llm_maker.sweep_runs import Outcome, engine_for
from llm_maker.world import Refused
from tests.test_backtest_llm import T0, make_tape

ROOT = Path(__file__).parents[1]
GRID = ["strategy.quoting=inventory,touch", "strategy.skew_max_ticks=3.5,8"]
DAY_NS = 86_400 * NS_PER_S


@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    """Three short tapes of three days; the names are not in order of time."""
    folder = tmp_path_factory.mktemp("tapes")
    return [make_tape(folder / f"{name}.jsonl", 30, n, T0 + n * DAY_NS) for n, name in ((1, "c"), (0, "d"), (2, "a"))]


def loaded(values):
    return load(None, {}, dict(values))


def plan_of(tapes, grid=GRID) -> sweep.Plan:
    values = sweep.read_grid(grid)
    cells, base = sweep.cells_of(values, loaded)
    return sweep.Plan(keys=tuple(values), cells=cells, base=base, tapes=sweep.look_at(tapes))


def swept(plan, path, engine=None) -> list[Outcome]:
    store = sweep.Store(path)
    try:
        return sweep.run(plan, store, engine or engine_for("local", 1))
    finally:
        store.close()


def verb(*args):
    done = CliRunner().invoke(cli.app, ["sweep", *map(str, args)])
    return done.exit_code, done.output


def grid_args(grid=GRID):
    return [part for one in grid for part in ("--grid", one)]


# The grid.


def test_a_grid_is_every_combination_read_as_yaml_reads_it():
    grid = sweep.read_grid(["strategy.quoting=inventory, touch", "strategy.terms.table=true,false", "paper.entry_ms=0,250,1000"])
    assert grid == {
        "strategy.quoting": ["inventory", "touch"],
        "strategy.terms.table": [True, False],
        "paper.entry_ms": [0, 250, 1000],
    }
    cells, base = sweep.cells_of(grid, loaded)
    assert len(cells) == 12 and len({cell.variant for cell in cells}) == 12
    assert cells[base].values == {"strategy.quoting": "inventory", "strategy.terms.table": False, "paper.entry_ms": 250}
    assert cells[0].name == "quoting=inventory table=true entry_ms=0" and cells[0].config.paper.entry_ms == 0
    cells, base = sweep.cells_of({"strategy.skew_max_ticks": [2, 5]}, loaded)
    assert [cell.name for cell in cells] == ["base", "skew_max_ticks=2", "skew_max_ticks=5"] and base == 0


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (["strategy.skw_max_ticks=2,3"], "unknown key 'strategy.skw_max_ticks'; did you mean 'strategy.skew_max_ticks'?"),
        (["strategy.skew_max_ticks=2,many"], "strategy.skew_max_ticks is 'many'; must be a number"),
        (["strategy.skew_max_ticks=2,-1"], "strategy.skew_max_ticks is -1; must be a number from 0"),
        (["strategy.base_position_size=50,500"], "base_position_size 500 is above max_position_size 200"),
        (["strategy.skew_max_ticks"], "says no values"),
        (["strategy.skew_max_ticks="], "says no values"),
        (["=2"], "says no values"),
        (["strategy.skew_max_ticks=2", "strategy.skew_max_ticks=3"], "strategy.skew_max_ticks twice"),
        (["strategy.skew_max_ticks=2,2.0"], "are one and the same to a run"),
        (["logging.level=info,debug"], "are one and the same to a run"),
        (["strategy.quoting=[a"], "not YAML"),
        (["seed=" + ",".join(map(str, range(101))), "paper.entry_ms=" + ",".join(map(str, range(101)))], "10201 cells; at most"),
    ],
)
def test_a_wrong_grid_is_one_line_before_anything_runs(tapes, tmp_path, grid, told):
    code, said = verb(*grid_args(grid), "--tapes", tapes[0], "--home", tmp_path)
    assert code == 2 and told in said and len(said.strip().splitlines()) == 1, said
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--tapes", "nothing*"], "--tapes nothing*: no such file"),
        (["--tapes", "T", "--out", "table.txt"], "must end in .csv or .parquet"),
        (["--tapes", "T", "--engine", "spark"], "--engine is 'spark'; must be one of local, ray"),
        (["--tapes", "T", "--choose", "luck"], "--choose is 'luck'"),
        (["--tapes", "T", "--jobs", "0"], "--jobs"),
        (["--tapes", "T", "--folds", "3"], "--folds is 3; 3 tapes leave room for 2 at most"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(tapes, tmp_path, monkeypatch, args, told):
    monkeypatch.chdir(tmp_path)
    args = [part for arg in args for part in ([str(tape) for tape in tapes] if arg == "T" else [arg])]
    code, said = verb(*grid_args(), *args)
    assert code == 2 and told in said, said
    assert not list(tmp_path.iterdir())


def test_tapes_come_in_order_of_time_and_each_once(tapes, tmp_path):
    assert [tape.path.stem for tape in sweep.look_at(tapes)] == ["d", "c", "a"]
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(tapes[0].read_bytes())
    with pytest.raises(Refused, match="are the same tape"):
        sweep.look_at([*tapes, copy])


# Running, and going on.


def test_one_process_and_two_write_the_same_table(tapes, tmp_path):
    args = [*grid_args(GRID[:1]), "--tapes", tapes[0].parent / "*.jsonl"]
    said = [verb(*args, "--jobs", jobs, "--home", tmp_path / str(jobs), "--folds", 2) for jobs in (1, 2)]
    assert [code for code, _ in said] == [0, 0], said
    one, two = ((tmp_path / str(jobs) / "logs" / "sweep.csv").read_bytes() for jobs in (1, 2))
    assert one == two
    assert said[0][1].replace("/1/", "/2/") == said[1][1]
    assert "walk-forward" in said[0][1] and "out of sample" in said[0][1]


def test_the_table_has_every_cell_and_every_tape(tapes, tmp_path):
    plan = plan_of(tapes)
    outcomes = swept(plan, tmp_path / "runs.jsonl")
    result = sweep_table.judge(plan, outcomes, folds=None, choose="pnl", tried=4)
    files = sweep_table.write(result, tmp_path / "table.csv")
    with files[0].open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["row"] for row in found] == ["cell"] * 4 + ["tape"] * 12
    for n, cell in enumerate(plan.cells):
        whole, parts = found[n], [row for row in found[4:] if row["cell"] == str(n)]
        assert [row["tape"] for row in parts] == ["d.jsonl", "c.jsonl", "a.jsonl"]
        assert float(whole["pnl_usd"]) == pytest.approx(sum(float(row["pnl_usd"]) for row in parts), abs=1e-6)
        assert int(whole["fills"]) == sum(int(row["fills"]) for row in parts)
        assert whole["strategy.quoting"] == cell.config.strategy.quoting
        assert float(whole["strategy.skew_max_ticks"]) == cell.config.strategy.skew_max_ticks
        assert whole["markout_3600s_cents"] == "", "a horizon past the data is empty, not 0"
        assert float(whole["drawdown_usd"]) == max(float(row["drawdown_usd"]) for row in parts)
    assert sum(int(row["fills"]) for row in found[:4]) > 0
    told = sweep_table.as_json(result)
    assert json.loads(json.dumps(told, allow_nan=False))["rows"] == told["rows"]


class Counting:
    """The runs of this process, counted; breaks off before run `broken`, as a person would."""

    def __init__(self, broken: int = 1_000) -> None:
        self.done: list[str] = []
        self._broken = broken

    def __call__(self, tasks):
        for task in tasks:
            if len(self.done) == self._broken:
                raise KeyboardInterrupt
            self.done.append(task.key)
            yield sweep_runs.outcome(task)


def test_a_sweep_that_was_broken_off_goes_on(tapes, tmp_path):
    plan, path = plan_of(tapes, GRID[:1]), tmp_path / "runs.jsonl"
    first, then, whole = Counting(2), Counting(), Counting()
    with pytest.raises(sweep.Interrupted, match="stopped after 2 of 6 runs"):
        swept(plan, path, first)
    assert path.read_bytes().count(b"\n") == 2
    resumed = swept(plan, path, then)
    assert len(then.done) == 4 and not set(first.done) & set(then.done)
    assert resumed == swept(plan, tmp_path / "anew.jsonl", whole)
    again = Counting()
    assert swept(plan, path, again) == resumed and not again.done
    more = Counting()
    swept(plan_of(tapes), path, more)
    assert len(more.done) == 6, "a wider grid runs what is new in it"


def test_a_torn_last_line_is_dropped_with_a_word_and_its_run_done_again(tapes, tmp_path):
    plan, path = plan_of(tapes, GRID[:1]), tmp_path / "runs.jsonl"
    whole = swept(plan, path)
    path.write_bytes(path.read_bytes()[:-40])
    store = sweep.Store(path)
    assert len(store.done) == 5 and "the last line was torn" in store.words[0]
    store.close()
    assert path.read_bytes().count(b"\n") == 5 and path.read_bytes().endswith(b"\n")
    again = Counting()
    assert swept(plan, path, again) == whole and len(again.done) == 1
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(Refused, match=r"runs.jsonl:1: not a finished run"):
        sweep.Store(path)


def test_another_build_does_not_trust_the_runs_of_this_one(tapes, monkeypatch):
    plan = plan_of(tapes, GRID[:1])
    keys = {task.key for task in plan.tasks()}
    monkeypatch.setattr(sweep, "build_id", lambda: "another")
    assert not keys & {task.key for task in plan.tasks()}


@pytest.mark.prove
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_kill_leaves_whole_lines_and_no_process(tmp_path, number):
    """Two processes at work, stopped after the first line: Ctrl-C is exit 130 and says how to go on."""
    tape = make_tape(tmp_path / "long.jsonl", 1_200)
    command = [sys.executable, "-m", "llm_maker", "sweep", "--grid", "seed=1,2,3,4,5,6,7,8,9,10", "--jobs", "2", "--tapes", tape]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    kept = tmp_path / "logs" / "sweep.runs.jsonl"
    deadline = time.monotonic() + 60
    while not (kept.exists() and kept.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    done = sweep.Store(kept).done
    assert 0 < len(done) < 10
    if number == signal.SIGINT:
        assert process.returncode == 130 and f"stopped after {len(done)} of 10 runs" in said and "Traceback" not in said, said
    while time.monotonic() < deadline and _alive(process.pid):
        time.sleep(0.05)
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_that_breaks_off_is_named(tapes, monkeypatch):
    def broken(*args, **kwargs):
        raise AssertionError("the books do not balance")

    monkeypatch.setattr(sweep_runs, "run_many", broken)
    with pytest.raises(sweep_runs.RunFailed, match=r"quoting=inventory on d.jsonl: AssertionError: the books do not balance"):
        sweep_runs.outcome(plan_of(tapes, GRID[:1]).tasks()[0])


# Tables in other forms, other engines.


def test_parquet_holds_what_the_csv_holds(tapes, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    code, said = verb(*grid_args(GRID[:1]), "--tapes", tapes[0], "--home", tmp_path, "--out", tmp_path / "t.parquet")
    assert code == 0, said
    read = parquet.read_table(tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open(newline="") as file:
        text = list(csv.DictReader(file))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in read.to_pylist()] == text
    assert str(read.schema.field("markout_86400s_cents").type) == "double", "though no tape reaches it"


@pytest.mark.parametrize(("args", "needs"), [(["--out", "t.parquet"], "pyarrow"), (["--engine", "ray"], "ray")])
def test_a_library_that_is_missing_is_one_line(tapes, tmp_path, monkeypatch, args, needs):
    for name in ("pyarrow", "pyarrow.parquet", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    code, said = verb(*grid_args(), "--tapes", tapes[0], "--home", tmp_path, *args)
    extra = {"pyarrow": "parquet"}.get(needs, needs)
    assert code == 2 and f"needs {needs}, which is not installed; pip install 'llm_maker[{extra}]'" in said, said


@pytest.mark.prove
def test_a_ray_cluster_writes_the_same_table(tapes, tmp_path):
    """In a process of its own: Ray is a cluster of processes, made on the loopback and ended with the verb."""
    pytest.importorskip("ray", reason="ray is not installed")
    assert verb(*grid_args(), "--tapes", *tapes, "--home", tmp_path)[0] == 0
    command = [sys.executable, "-m", "llm_maker", "sweep", *grid_args(), "--jobs", "2", "--engine", "ray", "--out", "ray.csv"]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--tapes", *map(str, tapes)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "logs" / "sweep.csv").read_bytes()


# Walk-forward and luck.


def test_a_fold_is_chosen_on_what_came_before_and_reported_on_what_came_after():
    #          trained on 1-2 | reported 3-4 | reported 5-6
    variants = [[1, 1, 1, 1, 1, 1], [3, 3, -9, -9, 0, 0], [0, 0, 8, 8, -5, -5]]
    folds = walk_forward.walk(variants, 0, 2)
    assert [(f.start, f.end, f.winner, f.trained, f.tested, f.base) for f in folds] == [(2, 4, 1, 6, -18, 2), (4, 6, 2, 16, -10, 2)]
    steady = walk_forward.walk([[5, -4, 5, -4, 0, 0], [0.4, 0.5, 0.4, 0.5, 1, 1]], 0, 1, "sharpe")
    assert steady[0].winner == 1 and walk_forward.walk([[5, -4, 5, -4, 0, 0], [0.4, 0.5, 0.4, 0.5, 1, 1]], 0, 1)[0].winner == 0
    assert walk_forward.best([[1, 1], [2, 0], [1, 1]], 2, "pnl") == 2, "of equal ones the base"


def test_the_winner_of_many_worthless_variants_is_seen_through_and_a_good_one_is_not():
    seed = 11
    print("seed", seed)
    dice = random.Random(seed)
    worthless = [[dice.gauss(0, 1) for _ in range(60)] for _ in range(20)]
    told = walk_forward.luck(worthless, 0, 20)
    ratios = [sharpe(steps) for steps in worthless]
    middle = sum(ratios) / 20
    bar = null_best_sharpe((sum((r - middle) ** 2 for r in ratios) / 19) ** 0.5, 20)
    best = worthless[told.winner]
    assert sum(best) == max(map(sum, worthless)) and told.null_best == pytest.approx(bar)
    assert told.deflated == pytest.approx(psr(best, bar)) and not told.convincing
    assert psr(best, 0.0) > 0.9, "by itself it would have looked good"
    good = [*worthless[:-1], [dice.gauss(1.2, 1) for _ in range(60)]]
    found = walk_forward.luck(good, 0, 20)
    assert found.winner == 19 and found.convincing
    assert walk_forward.luck(good, 0, 500).null_best > found.null_best, "what was tried before counts"


def test_a_level_becomes_steps():
    points = [(0, 0.0), (5, 1.0), (10, 3.0), (31, 2.0), (39, 7.0)]
    assert walk_forward.steps_of(points, 0, 39, 10) == [3.0, 0.0, 4.0]
    assert walk_forward.steps_of(points, 0, 9, 10) == [1.0]


def test_a_single_tape_is_split_by_time_and_says_so(tmp_path):
    plan = plan_of([make_tape(tmp_path / "one.jsonl", 190)])
    outcomes = swept(plan, tmp_path / "runs.jsonl")
    result = sweep_table.judge(plan, outcomes, folds=None, choose="pnl", tried=1)
    assert result.steps.unit == "minutes" and len(result.steps.starts) == 3 and len(result.folds) == 1
    for cell, gains in zip(result.cells, result.steps.gains, strict=True):
        assert sum(gains) == pytest.approx(cell.pnl)
    (fold,) = result.folds
    assert (fold.start, fold.end) == (2, 3) and fold.trained == max(sum(gains[:2]) for gains in result.steps.gains)
    text = "\n".join(sweep_table.lines(result))
    assert "one tape only: it is split by time" in text and "paper money" in text
    with pytest.raises(ConfigError, match="--folds is 3; 3 minutes leave room for 2 at most"):
        sweep_table.judge(plan, outcomes, folds=3, choose="pnl", tried=1)


def test_tapes_that_overlap_in_time_are_told(tmp_path):
    one, two = make_tape(tmp_path / "a.jsonl", 60, 1, T0), make_tape(tmp_path / "b.jsonl", 60, 2, T0 + 30 * NS_PER_S)
    plan = plan_of([one, two], GRID[:1])
    result = sweep_table.judge(plan, swept(plan, tmp_path / "runs.jsonl"), folds=1, choose="pnl", tried=1)
    assert "b.jsonl begins before a.jsonl ends" in result.steps.words[0]
    assert "too few to tell it from luck" in "\n".join(sweep_table.lines(result))
