"""The verbs that study configs on recorded tapes: compare some, sweep a grid. Paper money, no daemon, no key, no network."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_maker.cli_shared import BAD_USAGE, HERE, SHIPPED, AsJson, ConfigFile, Home, fail, faults, load, progress, stderr_line

app = typer.Typer()
INTERRUPTED = 130
_MAX_JOBS = 1_024
_TAPES = (".jsonl", ".gz", ".zst")

Signals = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A llm_decisions.jsonl whose signals every config hears; none if left out.")
]


@app.command()
def compare(
    configs: Annotated[
        list[Path], typer.Argument(metavar="A.yaml B.yaml...", help="The first is the base; each other against it.")
    ],
    tape: Annotated[list[Path], typer.Option(metavar="FILE...", help="Recorded tapes.")],
    signals: Signals = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Run configs on the same tapes: what each made, and the difference to the first, corrected for all that was tried."""
    from llm_maker import compare as study

    # What follows `--tape FILE` reaches us as arguments: the shell has spelt a pattern out.
    tapes = [*tape, *(path for path in configs if path.suffix in _TAPES)]
    configs = [path for path in configs if path.suffix not in _TAPES]
    if len(configs) < 2:
        fail("compare takes two configs or more: a base, and what is held against it", BAD_USAGE)
    named = {_label(path, configs): load(path, {}, home)[0] for path in configs}
    if len(named) < len(configs):
        fail("one file is named twice; its difference to itself is 0", BAD_USAGE)
    with faults(home), _bar("compare", as_json) as bar:
        found = study.compare(named, tapes, home, signals, bar)
    if as_json:
        print(json.dumps(study.as_json(found), allow_nan=False))
    else:
        for line in study.lines(found):
            print(line)


def _label(path: Path, paths: Sequence[Path]) -> str:
    """The file's name; with its folder where two have the same."""
    return path.name if sum(other.name == path.name for other in paths) == 1 else str(path)


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """The progress bar, which is gone however its work ends."""
    bar = progress(what, quiet)
    try:
        yield bar
    finally:
        if bar:
            bar(1, 1)


@app.command()
def sweep(
    grid: Annotated[
        list[str], typer.Option(metavar="KEY=V1,V2,...", help="A key of the config and its values; give it again for more.")
    ],
    tapes: Annotated[list[str], typer.Option(metavar="GLOB", help="Recorded tapes: a pattern, or files.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="More tapes, where the shell spelt a pattern out.")
    ] = None,
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The table: .csv, or .parquet beside a .csv; logs/sweep.csv if left out.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, max=_MAX_JOBS, help="Processes.")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray: the cluster that RAY_ADDRESS names, or one made here.")] = "local",
    signals: Signals = None,
    folds: Annotated[int | None, typer.Option(metavar="K", min=1, help="Of the walk-forward; up to 3 if left out.")] = None,
    choose: Annotated[str, typer.Option(help="The winner of a fold is best by: pnl or sharpe.")] = "pnl",
    as_json: AsJson = False,
) -> None:
    """Run every config of a grid on every tape, in processes or on Ray; resumable; with walk-forward and deflated Sharpe."""
    for name, value, known in (("engine", engine, ("local", "ray")), ("choose", choose, ("pnl", "sharpe"))):
        if value not in known:
            fail(f"--{name} is {value!r}; must be one of {', '.join(known)}", BAD_USAGE)
    from llm_maker import sweep as study
    from llm_maker import sweep_table as page
    from llm_maker.sweep_runs import engine_for
    from llm_maker.variants import heard, note, tried

    out = home / "logs" / "sweep.csv" if out is None else out

    def loaded(values: Mapping[str, object]) -> Any:
        return load(config, dict(values), home)[0]

    with faults(home):
        page.check_out(out)
        where = engine_for(engine, jobs)
        values = study.read_grid(grid)
        cells, base = study.cells_of(values, loaded, "" if signals is None else heard(signals))
        plan = study.Plan(
            keys=tuple(values), cells=cells, base=base, tapes=study.look_at(_found([*tapes, *(more or [])])), signals=signals
        )
        page.check_folds(plan, folds)
        outcomes = _run(plan, out.with_suffix(".runs.jsonl"), where, as_json)
        ids = {one.id: str(one.path) for one in plan.tapes}
        note(home, "sweep", {cell.variant: cell.name for cell in cells}, ids)
        result = page.judge(plan, outcomes, folds=folds, choose="pnl" if choose == "pnl" else "sharpe", tried=len(tried(home, ids)))
        files = page.write(result, out)
    if as_json:
        print(json.dumps({**page.as_json(result), "files": [str(path) for path in files]}, allow_nan=False))
        return
    for line in page.lines(result):
        print(line)
    print(f"table: {', '.join(map(str, files))}")


def _run(plan: Any, kept: Path, engine: Any, quiet: bool) -> Any:
    """Every outcome; at Ctrl-C one line and exit 130."""
    from llm_maker import sweep as study

    store = study.Store(kept)
    try:
        for word in store.words:
            stderr_line(word)
        with _bar("sweep", quiet) as bar:
            return study.run(plan, store, engine, bar)
    except study.Interrupted as stop:
        stderr_line(str(stop))
        raise typer.Exit(INTERRUPTED) from None
    finally:
        store.close()


def _found(patterns: Sequence[str]) -> list[Path]:
    """The files that the patterns name, each once, in order of name."""
    found: dict[str, None] = {}
    for pattern in patterns:
        names = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not names:
            fail(f"--tapes {pattern}: no such file", BAD_USAGE)
        found |= dict.fromkeys(names)
    return [Path(name) for name in found]
