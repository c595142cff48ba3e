"""Where the runs of a sweep take place: in this process, over several, or on a Ray cluster. The same runs, the same outcomes.

A run is a pure function of its task, so that neither where it ran nor what ended first can be seen in what comes of it.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.report.figures import Figures, figures
from llm_maker.trial import run_many
from llm_maker.world import Refused

LOOPBACK = "127.0.0.1"


class Task(msgspec.Struct, frozen=True):
    """One cell on one tape."""

    key: str
    """Of config, tape and build: what the outcome is known by."""
    cell: str
    config: Config
    tape: Path
    signals: Path | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What came of a task."""

    key: str
    figures: Figures
    start_ns: int
    end_ns: int
    points: list[tuple[int, float]]
    """(ns, what was gained by then in USD), from the start to the end."""
    truncated: str = ""


Outcomes = Generator[Outcome, None, None]
Engine = Callable[[Sequence[Task]], Outcomes]
"""Does tasks and gives their outcomes as they come. It may be closed at any moment, and ends what it began."""


class RunFailed(RuntimeError):
    """A run broke off by a fault of ours; says which."""


def outcome(task: Task) -> Outcome:
    """Do one task. The tape has been read to its end before."""
    try:
        found = run_many({"main": task.config}, task.tape, signals=task.signals, checked=True)["main"]
    except Exception as error:
        raise RunFailed(f"{task.cell} on {task.tape.name}: {type(error).__name__}: {error}") from error
    base = found.start_cash
    levels = [(found.start_ns, base), *((point.ts, point.equity) for point in found.points), (found.end_ns, found.equity)]
    points = [(ts, (level - base) / 1e6) for ts, level in levels]
    return Outcome(task.key, figures(found), found.start_ns, found.end_ns, points, str(found.label.get("truncated") or ""))


def engine_for(name: str, jobs: int) -> Engine:
    """`local`: in this process for one job, else in `jobs` of them; `ray`: on the cluster RAY_ADDRESS names, or one made here.

    Raises `Refused` where Ray is not installed.
    """
    if name == "ray":
        # Ray tells its makers how it is used unless it is told not to.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        return partial(_on_ray, module_of("ray", "ray", "--engine ray"), jobs)
    return _here if jobs == 1 else partial(_in_processes, jobs)


def module_of(name: str, extra: str, what: str) -> Any:
    """An optional library, or `Refused` with how it is installed; `what` asks for it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Refused(f"{what} needs {name.partition('.')[0]}, which is not installed; pip install 'llm_maker[{extra}]'") from None


def _here(tasks: Sequence[Task]) -> Outcomes:
    yield from map(outcome, tasks)


def _end_with_its_maker() -> None:
    """A process that only computes has nothing to save: it ends silently at Ctrl-C, and when nobody waits for it any more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_outlive, daemon=True).start()


def _outlive() -> None:
    maker = multiprocessing.parent_process()
    assert maker is not None, "only a child waits for its maker"
    maker.join()
    os._exit(1)


def _in_processes(jobs: int, tasks: Sequence[Task]) -> Outcomes:
    if not tasks:
        return
    # Spawned, not forked: a child starts from nothing, whatever threads there are here.
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_end_with_its_maker)
    waiting: set[Future[Outcome]] = set()
    try:
        waiting = {pool.submit(outcome, task) for task in tasks}
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in ended:
                yield one.result()
    except BrokenProcessPool:
        raise RunFailed("a process of the sweep was ended from outside (out of memory?); the same command goes on") from None
    finally:
        if waiting:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _on_ray(ray: Any, jobs: int, tasks: Sequence[Task]) -> Outcomes:
    if not tasks:
        return
    own = "RAY_ADDRESS" not in os.environ
    local = {"num_cpus": jobs, "include_dashboard": False, "_node_ip_address": LOOPBACK} if own else {}
    ray.init(log_to_driver=False, configure_logging=False, **local)
    waiting: list[Any] = []
    try:
        remote = ray.remote(outcome)
        waiting = [remote.remote(task) for task in tasks]
        while waiting:
            ended, waiting = ray.wait(waiting, num_returns=1)
            try:
                yield ray.get(ended[0])
            except ray.exceptions.RayError as error:
                # A fault of the task carries its cause, a lost node or a killed worker has none.
                raise RunFailed(str(getattr(error, "cause", error))) from None
    finally:
        for one in waiting:
            with contextlib.suppress(ray.exceptions.RayError):  # it may be over by now, or its node gone
                ray.cancel(one, force=True)
        ray.shutdown()
