"""A grid of configs over many tapes: what is to be run, what has been run, and what comes of it.

Every cell is a config that differs from the base in the grid's keys, and runs on every tape, each run by itself (`sweep_runs` says
where). What is finished is kept in a file beside the table, known by config, tape and build: the same command goes on where an
earlier one ended, and a wider grid reuses what a narrower one ran.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

import llm_maker
from llm_maker.config import Config
from llm_maker.config_text import ConfigError, parse_yaml
from llm_maker.runtime.tape import MARKET
from llm_maker.sweep_runs import Engine, Outcome, Task
from llm_maker.variants import file_id, variant_id
from llm_maker.world import Refused, open_tape

MAX_CELLS = 10_000
BASE = "base"
Progress = Callable[[int, int], None] | None
Load = Callable[[Mapping[str, object]], Config]
"""The base config with some dotted keys set otherwise; raises `ConfigError` or fails with one line."""


class Cell(msgspec.Struct, frozen=True):
    """One config of the grid."""

    name: str
    values: dict[str, Any]
    """Dotted key -> value as given; empty for a base that is no cell of the grid."""
    config: Config
    variant: str


class Recording(msgspec.Struct, frozen=True):
    """A tape that reads to its end."""

    path: Path
    id: str
    start_ns: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run. The base is always one of the cells."""

    keys: tuple[str, ...]
    cells: tuple[Cell, ...]
    base: int
    """Place of the base among the cells."""
    tapes: tuple[Recording, ...]
    """In order of their first moment."""
    signals: Path | None = None

    def tasks(self) -> list[Task]:
        """Every run, cell by cell."""
        build = build_id()
        return [
            Task(
                sha256(f"{cell.variant} {tape.id} {build}".encode()).hexdigest()[:32],
                cell.name,
                cell.config,
                tape.path,
                self.signals,
            )
            for cell in self.cells
            for tape in self.tapes
        ]


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`KEY=V1,V2,...` of each -> key -> values, read as YAML reads them; `ConfigError` for what is no such thing."""
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, sign, said = text.partition("=")
        key = key.strip()
        values = parse_yaml(f"[{said}]", f"--grid {key}") if sign and key and said.strip() else None
        if not values:
            raise ConfigError(f"--grid {text!r} says no values; write it like strategy.skew_max_ticks=2,3.5,5")
        if key in grid:
            raise ConfigError(f"--grid gives {key} twice; put all its values behind one")
        grid[key] = values
    cells = 1
    for values in grid.values():
        cells *= len(values)
    if cells > MAX_CELLS:
        raise ConfigError(f"--grid makes {cells} cells; at most {MAX_CELLS}")
    return grid


def cells_of(grid: Mapping[str, Sequence[Any]], load: Load, heard: str = "") -> tuple[tuple[Cell, ...], int]:
    """Every cell of the grid, the last key fastest, and the place of the base: a cell of its own, first, unless the grid has it.

    Each is read by `load` before anything runs, so that a wrong key or value is refused here. `heard`: id of the signals file.
    """
    found: list[Cell] = []
    ends = [key.rpartition(".")[2] for key in grid]
    names = {key: end if ends.count(end) == 1 else key for key, end in zip(grid, ends, strict=True)}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        config = load(chosen)
        name = " ".join(f"{names[key]}={_shown(value)}" for key, value in chosen.items())
        cell = Cell(name, chosen, config, variant_id(config, heard))
        if same := next((one for one in found if one.variant == cell.variant), None):
            raise ConfigError(f"--grid: '{same.name}' and '{name}' are one and the same to a run")
        found.append(cell)
    base = load({})
    variant = variant_id(base, heard)
    place = next((i for i, cell in enumerate(found) if cell.variant == variant), None)
    if place is not None:
        return tuple(found), place
    return (Cell(BASE, {}, base, variant), *found), 0


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def look_at(paths: Iterable[Path]) -> tuple[Recording, ...]:
    """Tapes in order of their first moment, each read to its end once; `Refused` for one that is there twice or says nothing."""
    found: dict[str, Recording] = {}
    for path in paths:
        reader, _, _ = open_tape(path)
        start = next((line.recv_ns for line in reader if line.channel == MARKET), None)
        if start is None:
            raise Refused(f"{path}: no frame after the header")
        one = Recording(path, file_id(path), start)
        if one.id in found:
            raise Refused(f"{path} and {found[one.id].path} are the same tape; what it says would count twice")
        found[one.id] = one
    return tuple(sorted(found.values(), key=lambda tape: (tape.start_ns, str(tape.path))))


@cache
def build_id() -> str:
    """This build: its version and every line of its code."""
    digest = sha256(llm_maker.__version__.encode())
    root = Path(llm_maker.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """Finished runs, a line each, appended as they come: what an interrupted sweep leaves is whole lines.

    `words` is what has to be said of the file as it was found. Raises `Refused` for a file that is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words: list[str] = []
        self.done: dict[str, Outcome] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole, _, torn = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                outcome = msgspec.json.decode(line, type=Outcome)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Refused(
                    f"{path}:{number}: not a finished run of a sweep: {error}; move the file away to begin anew"
                ) from None
            self.done[outcome.key] = outcome
        self._file = path.open("ab")
        if torn:
            self._file.truncate(len(whole) + bool(whole))
            self.words.append(f"{path}: the last line was torn and is dropped; its run is done again")

    def add(self, outcome: Outcome) -> None:
        """Keep one finished run."""
        self.done[outcome.key] = outcome
        self._file.write(msgspec.json.encode(outcome) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Interrupted(Exception):
    """A person stopped the sweep; what was finished is kept."""

    def __init__(self, done: int, total: int, path: Path) -> None:
        super().__init__(f"stopped after {done} of {total} runs; they are kept in {path}, and the same command goes on from there")


def run(plan: Plan, store: Store, engine: Engine, progress: Progress = None) -> list[Outcome]:
    """Run what is not in the store yet; every outcome, in the order of `Plan.tasks`. Raises `Interrupted` at Ctrl-C."""
    tasks = plan.tasks()
    waiting = [task for task in tasks if task.key not in store.done]
    finished = len(tasks) - len(waiting)
    if progress:
        progress(finished, len(tasks))
    try:
        with closing(engine(waiting)) as outcomes:
            for outcome in outcomes:
                store.add(outcome)
                finished += 1
                if progress:
                    progress(finished, len(tasks))
    except KeyboardInterrupt:
        raise Interrupted(finished, len(tasks), store.path) from None
    return [store.done[task.key] for task in tasks]
