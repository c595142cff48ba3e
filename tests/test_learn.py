"""What opinions were worth, as a daemon learns it: another process reads the ledger, the core is told, and a restart goes on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from llm_maker import app, learn
from llm_maker.config import load
from llm_maker.core.commands import Level
from llm_maker.core.events import WeightUpdated
from llm_maker.core.skill import Skill
from llm_maker.core.values import NS_PER_S, expit
from llm_maker.keys import SECRET_NAMES
from llm_maker.learn import DAY_NS, Learner, rules_of
from llm_maker.llm.bandit import records
from llm_maker.report.skill_fit import Rules, measure
from llm_maker.runtime.journal import files
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.replay import replay
from llm_maker.runtime.rows import ForecastRow, MarkRow, OutcomeRow, Row, Scope
from tests.slow import Run, play

SCOPE = Scope("simulated", "paper", "paper", "main")
NOW = 20_454 * DAY_NS
"""2026-01-01, when the simulated market begins."""
MODEL = "simulated(R2=0.30)"
SIMULATED = {
    "llm.provider": "simulated", "llm.simulated_skill_r2": 0.3, "paper.markets": 2, "market_selection.max_markets": 2,
    "paper.activity": 5.0, "strategy.decision_interval": 10.0, "strategy.refresh_seconds": 20.0,
}  # fmt: skip


def told_by(model: str, *, slope: float, days: int = 60, simulated: bool = True, seed: int = 7) -> list[tuple[int, Row]]:
    """Opinions of `days` days on five markets, each with the market's move within an hour: `slope` times the disagreement."""
    dice, rows = Random(seed), []
    for day in range(days):
        for market in range(5):
            ts, decision, d = NOW - (days - day) * DAY_NS, f"D-{model}-{day}", dice.gauss(0.0, 0.5)
            moved = slope * d + dice.gauss(0.0, 0.02)
            opinion = ForecastRow(
                decision_id=decision, model=model, role="used", prompt_version="p", instrument=f"m{market}", category="weather",
                event_id=f"e{market}", p_yes=expit(d), confidence=0.7, bias=1 if d > 0 else -1, x_market=0.0, d=d,
                simulated=simulated,
            )  # fmt: skip
            rows.append((ts, opinion))
            for horizon, x in ((300, 0.0), (3_600, moved)):
                mark = MarkRow(decision_id=decision, instrument=f"m{market}", horizon_s=horizon, x_market=x)
                rows.append((ts + horizon * NS_PER_S, mark))
    return rows


def write(path: Path, rows: Sequence[tuple[int, Row]], scope: Scope = SCOPE) -> None:
    """Put rows into a ledger beside what its journal says."""
    Ledger.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        first = connection.execute("SELECT min(seq) FROM forecasts").fetchone()[0] or 0
        for n, (ts, row) in enumerate(rows):
            names = ("venue", "mode", "wallet", "account", "seq", "n", "ts", *row.__struct_fields__)
            values = (*scope.key, min(first, 0) - 10, n, ts, *msgspec.structs.astuple(row))
            sql = f"INSERT INTO {row.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            connection.execute(sql, values)


class Listener:
    """A learner with ears: what it emitted and what it said."""

    def __init__(self, ledger: Path, rules: Rules | None = None, now: int = NOW) -> None:
        self.now, self.known = now, dict[str, Skill]()
        self.emitted: list[WeightUpdated] = []
        self.said: list[tuple[Level, str]] = []
        self.learner = Learner(
            ledger, SCOPE, rules or Rules(), lambda: self.now, lambda: self.known, lambda *told: self.said.append(told)
        )

    def _heard(self, event: Any) -> None:
        self.emitted.append(event)
        self.known[f"{event.model}|{event.category}"] = event.skill

    async def measured(self, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
        """Let it run until it has measured so often."""
        done = 0
        inner = learn._other_process

        async def counted(job: bytes) -> Any:
            nonlocal done
            found = await inner(job)
            done += 1
            return found

        monkeypatch.setattr(learn, "_other_process", counted)
        monkeypatch.setattr(learn, "LOOK_S", 0.02)
        running = asyncio.create_task(self.learner.run(self._heard))
        try:
            async with asyncio.timeout(60):
                while done < times and not running.done():
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        monkeypatch.setattr(learn, "_other_process", inner)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    write(path, [*told_by("skilled", slope=0.4), (NOW - DAY_NS, OutcomeRow(instrument="m0", paid_ppm=1_000_000))])
    return path


def read(path: Path) -> Any:
    found = Ledger.open(path)
    try:
        return found.forecasts(SCOPE)
    finally:
        found.close()


async def test_the_other_process_finds_what_was_put_in(ledger: Path, monkeypatch: pytest.MonkeyPatch):
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    skills = {f"{e.model}|{e.category}": e.skill for e in listener.emitted}
    assert set(skills) == {"skilled|", "skilled|weather"} and listener.said == []
    whole = skills["skilled|"]
    assert whole.signals == 300 and whole.event_days == 300 and whole.outcomes == 1
    assert 0.35 < whole.slope < 0.45 and 0.15 < whole.weight < 0.4, "between the prior and what was measured"
    forecasts = read(ledger)
    assert skills == measure(forecasts, now_ns=NOW, rules=Rules()), "the same numbers as in this process"
    assert listener.learner.arms == records(forecasts, NOW)


async def test_what_has_not_changed_is_not_told_again_and_a_new_day_is_measured(ledger: Path, monkeypatch: pytest.MonkeyPatch):
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    told = len(listener.emitted)
    await listener.measured(monkeypatch)
    assert len(listener.emitted) == told
    write(ledger, told_by("another", slope=-0.4))
    running = asyncio.create_task(listener.learner.run(listener._heard))
    await listener.measured(monkeypatch)
    running.cancel()
    assert {e.model for e in listener.emitted[told:]} == {"another"}
    assert listener.known["another|"].weight == 0.0, "a model that is wrong counts for nothing"


async def test_live_stays_at_nothing_until_its_gate_is_passed(ledger: Path, monkeypatch: pytest.MonkeyPatch):
    live = load(None, {}, {"venue": "polymarket", "mode": "live", "risk.bankroll_usd": 100.0})
    rules = rules_of(live)
    assert (rules.prior_weight, rules.gate, rules.user_weight) == (0.0, True, 0.0)
    assert rules_of(load(None, {}, {})).prior_weight == 0.15 and not rules_of(load(None, {}, {})).gate
    short = Listener(ledger, msgspec.structs.replace(rules, gate_event_days=301))
    await short.measured(monkeypatch)
    assert {e.skill.weight for e in short.emitted} == {0.0} and "gate: 300 of 301" in short.known["skilled|"].why
    passed = Listener(ledger, rules)
    await passed.measured(monkeypatch)
    assert 0.0 < passed.known["skilled|"].weight <= passed.known["skilled|"].slope_low + 0.05, "then at its lower bound"


def standing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "stand-in"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(learn.sys, "executable", str(program))


async def test_no_secret_is_in_its_environment(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = {name: f"marked-{name.lower()}-0000" for name in (*SECRET_NAMES, "SOME_OTHER_TOKEN", "LLM_MAKER__LLM__MODEL")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    standing_in(tmp_path, monkeypatch, f"""env > {tmp_path}/env; cat > {tmp_path}/job; echo '{{"skills":{{}},"arms":{{}}}}'""")
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    seen, job = (tmp_path / "env").read_text(), (tmp_path / "job").read_text()
    assert "PATH=" in seen and str(ledger) in job
    assert not [name for name, value in secrets.items() if name in seen + job or value in seen + job]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo one >&2; echo 'two: disk I/O error' >&2; exit 1", "two: disk I/O error"),
        ("exit 3", "exit code 3"),
        ("exec sleep 60", "not done after 0.3 s"),
    ],
)
async def test_a_measurement_that_fails_is_said_and_changes_nothing(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
):
    monkeypatch.setattr(learn, "PATIENCE_S", 0.3)
    standing_in(tmp_path, monkeypatch, script)
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    assert listener.emitted == [] and listener.learner.arms == {}
    ((level, text),) = listener.said
    assert level is Level.WARNING and told in text and "it stays as it was" in text


@pytest.mark.parametrize("damage", ["gone", "garbage"])
async def test_a_ledger_that_cannot_be_read_is_said(ledger: Path, monkeypatch: pytest.MonkeyPatch, damage: str):
    if damage == "gone":
        ledger.unlink()
    else:
        ledger.write_bytes(b"no database " * 1_000)
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    assert listener.emitted == [] and [level for level, _ in listener.said] == [Level.WARNING]
    assert str(ledger) in listener.said[0][1] and not (damage == "gone" and ledger.exists())


async def test_a_home_that_went_from_a_simulated_analyst_to_a_real_model_goes_on_learning(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
):
    write(ledger, told_by("openai/gpt", slope=0.2, simulated=False))
    listener = Listener(ledger)
    await listener.measured(monkeypatch)
    assert listener.said == [] and set(listener.known) == {f"{m}|{c}" for m in ("skilled", "openai/gpt") for c in ("", "weather")}


@pytest.mark.prove
async def test_a_daemon_learns_replays_and_goes_on_with_what_it_learned(tmp_path: Path):
    first = await play(tmp_path, SIMULATED, until=30.0, speed=100.0)
    assert first.daemon.state.skills == {} and first.events(WeightUpdated) == []
    write(tmp_path / "positions" / "ledger.sqlite3", told_by(MODEL, slope=0.5))
    second = await play(tmp_path, SIMULATED, until=200.0, speed=40.0)
    told = {f"{e.model}|{e.category}": e.skill for e in second.events(WeightUpdated)}
    assert f"{MODEL}|" in told and second.daemon.state.skills == told and told[f"{MODEL}|"].weight > 0.2
    assert second.kept(f"skill {MODEL}|") == json.dumps(json.loads(msgspec.json.encode(told[f"{MODEL}|"])), separators=(",", ":"))
    weights = [s["weight"] for line in second.answered for s in line["signals"] if s["accepted"]]
    assert weights[-1] > 0.2, "what was learned is in force"
    replays_exactly(second)
    third = await play(tmp_path, SIMULATED, until=30.0, speed=30.0)
    assert third.daemon.resumed and {key: third.daemon.state.skills[key] for key in told} == told
    again = [f"{e.model}|{e.category}" for e in third.events(WeightUpdated)]
    assert [key for key in again if key in told] == list(told), "what has not changed is not told again"


def replays_exactly(run: Run) -> None:
    """Every command of every journal file is made again from its events."""
    journals = files(run.daemon.account.journal.path.parent, "main")
    assert sum(replay(path, app.STRATEGIES).entries for path in journals) > 100


@pytest.mark.prove
@pytest.mark.timeout(300)
async def test_more_than_a_day_of_market_time_is_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learn, "LOOK_S", 0.2)
    quiet = {"strategy.refresh_seconds": 600, "paper.activity": 1.0, "paper.markets": 1, "market_selection.max_markets": 1}
    run = await play(tmp_path, SIMULATED | quiet, until=88_000.0, speed=4_000.0, wall=250)
    told = run.events(WeightUpdated)
    assert told and {e.model for e in told} == {MODEL}
    whole = run.daemon.state.skills[f"{MODEL}|"]
    assert whole.signals > 20 and whole.event_days == 1 and whole.why.startswith("measured")
    assert json.loads(run.kept(f"skill {MODEL}|"))["weight"] == pytest.approx(whole.weight)
    replays_exactly(run)
