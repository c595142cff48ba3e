"""What the opinions of the past were worth: measured once a day of market time from our own record, and told to the core.

The arithmetic runs in a process of its own (`python -m llm_maker.learn`), so that neither its time nor its memory is the daemon's;
it reads the ledger without writing, and has no secret in its environment.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from llm_maker.config import Config
from llm_maker.core.commands import Command, Level
from llm_maker.core.events import WeightUpdated
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S
from llm_maker.llm.bandit import Record, records
from llm_maker.port import Emit
from llm_maker.report.skill_fit import Rules, measure
from llm_maker.report.slope import REFERENCE_S
from llm_maker.runtime.forecasts import read_forecasts
from llm_maker.runtime.ledger import LedgerError
from llm_maker.runtime.rows import Scope

DAY_NS = 86_400 * NS_PER_S
REACH_NS = 365 * DAY_NS
MOST = 150_000
"""How far back the record is read, and how much of it at most: about 170 MB for as long as it takes."""
LOOK_S = 30.0
"""How often it is looked whether a new day has begun, wall time."""
PATIENCE_S = 300.0
"""What a measurement may take; it is tried again the next day."""
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""Of the environment, for the other process: nothing that could be a secret."""
_SAME = 1e-9
_NOT_MEASURED = "the worth of the model's opinions could not be measured: "


class Job(msgspec.Struct, frozen=True):
    """What the other process is given, as JSON on its standard input."""

    ledger: str
    scope: Scope
    now_ns: int
    rules: Rules


def rules_of(config: Config) -> Rules:
    """Paper starts at the prior weight; live at nothing, or at what its user has set, until the gate is passed."""
    prior = config.strategy.signal_prior_weight
    if config.mode == "live":
        return Rules(prior_weight=0.0, gate=True, user_weight=prior)
    return Rules(prior_weight=prior)


class Learned(msgspec.Struct, frozen=True):
    """What it says, as JSON on its standard output: skill by model and category, and the record of each of the bandit's arms."""

    skills: dict[str, Skill]
    arms: dict[str, Record]


class Learner:
    """The port that measures: at the start, and whenever a new UTC day of market time has begun."""

    name = "learn"

    def __init__(
        self,
        ledger: Path,
        scope: Scope,
        rules: Rules,
        now: Callable[[], int],
        known: Callable[[], Mapping[str, Skill]],
        say: Callable[[Level, str], None],
        anything: Callable[[], bool] = lambda: True,
    ) -> None:
        """`now`: market time; `known`: what the core goes by at present; `anything`: whether there is any opinion on record."""
        self._anything = anything
        self._ledger, self._scope, self._rules = ledger, scope, rules
        self._now, self._known, self._say = now, known, say
        self.arms: dict[str, Record] = {}
        """Of the last measurement, for the bandit."""

    def execute(self, command: Command) -> None:
        """It takes no commands."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Until cancelled; a measurement that fails is said, and changes nothing."""
        measured = -1
        while True:
            now = self._now()
            if now // DAY_NS != measured:
                measured = now // DAY_NS
                await self._measure(now, emit)
            await asyncio.sleep(LOOK_S)

    async def _measure(self, now: int, emit: Emit) -> None:
        try:
            if not self._anything():
                return
        except LedgerError as error:
            self._say(Level.WARNING, f"{_NOT_MEASURED}{error}; it stays as it was")
            return
        job = Job(str(self._ledger), self._scope, now, self._rules)
        found = await _other_process(msgspec.json.encode(job))
        if isinstance(found, str):
            self._say(Level.WARNING, f"{_NOT_MEASURED}{found}; it stays as it was")
            return
        self.arms = found.arms
        for key, skill in sorted(found.skills.items()):
            if not _same(self._known().get(key), skill):
                model, _, category = key.rpartition("|")
                emit(WeightUpdated(model, category, skill))


async def _other_process(job: bytes) -> Learned | str:
    """What it measured, or why it did not."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llm_maker.learn",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=kept,
            # A Ctrl-C in the terminal is the daemon's: it ends this one itself.
            start_new_session=True,
        )
    except OSError as error:
        return f"no process for it: {error.strerror}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(job)
    except TimeoutError:
        return f"not done after {PATIENCE_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()
        return last[-1] if last else f"exit code {process.returncode}"
    try:
        return msgspec.json.decode(out, type=Learned)
    except msgspec.MsgspecError as error:
        return f"what it said cannot be read: {error}"


def _same(known: Skill | None, new: Skill) -> bool:
    """Nothing in it has moved by more than rounding."""
    if known is None:
        return False
    numbers = (known.weight - new.weight, known.platt[0] - new.platt[0], known.platt[1] - new.platt[1])
    counted = (known.signals, known.outcomes, known.why, known.trust, known.betas)
    return all(abs(n) < _SAME for n in numbers) and counted == (new.signals, new.outcomes, new.why, new.trust, new.betas)


def main() -> int:
    """The other process: a job on standard input, what was measured on standard output, one line of error."""
    os.nice(10)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    uri = f"{Path(job.ledger).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            forecasts = read_forecasts(
                lambda sql, values: connection.execute(sql, values).fetchall(),
                job.scope,
                max(0, job.now_ns - REACH_NS),
                most=MOST,
                horizons=(REFERENCE_S, job.rules.horizon_s),
            )
    except sqlite3.Error as error:
        sys.stderr.write(f"{job.ledger}: {error}\n")
        return 1
    # A home may have gone from a simulated analyst to a real model: each kind is measured by itself.
    skills: dict[str, Skill] = {}
    for kind in (False, True):
        skills |= measure([f for f in forecasts if f.simulated == kind], now_ns=job.now_ns, rules=job.rules)
    learned = Learned(skills, records(forecasts, job.now_ns))
    sys.stdout.buffer.write(msgspec.json.encode(learned))
    return 0


if __name__ == "__main__":
    sys.exit(main())
