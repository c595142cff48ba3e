"""What a hostile reader of the daemon's joints asked: who ends it and why, what a broken shadow may cost, whose home goes on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from llm_maker import app, home_report, lab, trial, twins
from llm_maker.cli_shared import faults
from llm_maker.compare import _span
from llm_maker.config import load
from llm_maker.core.events import OperatorActed, Verb
from llm_maker.core.values import NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.runtime.journal import Entry, JournalError, files, seal
from llm_maker.runtime.ledger import LedgerError
from llm_maker.runtime.loop import fault_of
from llm_maker.runtime.replay import ReplayDiffers
from llm_maker.runtime.replay import compare as proved_same
from llm_maker.venues.paper.market import MarketParams
from llm_maker.world import Refused
from tests.llm.samples import brief, request
from tests.test_twins import BUSY, daemon_of, entries, journal_folder, lived, ran

# Who ended it, and why.


async def _raises() -> None:
    raise ZeroDivisionError("of the client's")


async def _cancels_itself() -> None:
    raise asyncio.CancelledError


async def _goes_on() -> None:
    await asyncio.sleep(60)


async def test_a_task_that_cancels_itself_is_as_dead_as_one_that_raises():
    tasks = [asyncio.create_task(each()) for each in (_raises, _cancels_itself, _goes_on)]
    await asyncio.wait(tasks[:2])
    found = [fault_of(task) for task in tasks]
    tasks[2].cancel()
    assert isinstance(found[0], ZeroDivisionError) and isinstance(found[1], asyncio.CancelledError) and found[2] is None


@pytest.mark.parametrize(("dies", "of"), [(_raises, "ZeroDivisionError: of the client's"), (_cancels_itself, "CancelledError")])
def test_a_port_that_dies_ends_the_run_and_its_cause_is_kept_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dies: Callable[[], Any], of: str
):
    daemon = daemon_of(tmp_path, 600.0)

    class Port:
        name = "llm"

        def execute(self, command: object) -> None:
            pass

        def flush(self) -> None:
            pass

        async def run(self, emit: object) -> None:
            await asyncio.sleep(0.2)
            await dies()

    daemon.analyst = Port()  # type: ignore[assignment]
    try:
        with pytest.raises(typer.Exit) as ended, faults(tmp_path):
            asyncio.run(daemon.run())
    finally:
        daemon.close()
    assert ended.value.exit_code == 1
    assert f"llm died of {of}" in capsys.readouterr().err
    told = [json.loads(line) for line in (tmp_path / "logs" / "daemon.jsonl").read_text().splitlines()]
    (story,) = [line["traceback"] for line in told if line["event"] == "fault"]
    for text in (story, (tmp_path / "logs" / "fault.txt").read_text()):
        assert f"llm died of {of}" in text and "direct cause" in text


def test_a_command_that_differs_is_told_by_its_field_and_not_by_the_page():
    asked = request(brief("A"), brief("B"))
    other = msgspec.structs.replace(asked, markets=(asked.markets[0], msgspec.structs.replace(asked.markets[1], bid_depth=7.5)))
    entry = Entry(715, 1, "main", OperatorActed(Verb.PAUSE, "test"), (asked,))
    with pytest.raises(
        ReplayDiffers, match=r"^entry 715, command 0: RequestSignals\.markets\[1\]\.bid_depth: recorded \S+, now 7\.5$"
    ):
        proved_same(entry, [other])
    with pytest.raises(ReplayDiffers, match="recorded 1 commands, now 0"):
        proved_same(entry, [])


# What a broken shadow may cost.

FAULTS: tuple[Exception, ...] = (
    AssertionError("a"), KeyError("k"), ValueError("v"), TypeError("t"), ZeroDivisionError("z"), OSError(28, "full"),
    RecursionError("r"), AttributeError("x"), JournalError("j"), LedgerError("l"), NameError("n"), StopIteration(), EOFError("e"),
    UnicodeEncodeError("utf-8", "x", 0, 1, "bad"), ImportError("i"), BufferError("b"),
)  # fmt: skip


def _places(shadow: Any) -> dict[str, tuple[Any, str]]:
    """Where a shadow can break: whose method."""
    exchange = shadow.exchange._inner
    own = {f"exchange.{name}": (exchange, name) for name in ("advance", "observe", "execute", "next_ns", "checkpoint")}
    journal = {f"journal.{name}": (shadow.journal, name) for name in ("write", "flush", "_os_write", "rotate_if_due")}
    ear = {f"ear.{name}": (shadow._ear, name) for name in ("on_tick", "on_main")}
    kept = {"recorder": (shadow.recorder, "record"), "rows": (shadow.recorder._fill_book, "rows")}
    return {**own, **journal, **ear, **kept, "log": (shadow.recorder._logs.executions, "write")}


def _break(shadow: Any, dice: random.Random) -> str:
    """Make it break somewhere, some time; says where."""
    places: dict[str, Any] = {**_places(shadow), "core": None}
    where, fault, left = dice.choice(sorted(places)), dice.choice(FAULTS), dice.randrange(1, dice.choice([3, 40, 600, 3_000]))

    def breaking(real: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise fault
            return real(*args, **named)

        return acted

    if places[where] is None:
        engine = shadow.engine

        class Broken:
            state, on_event = engine.state, staticmethod(breaking(engine.on_event))

        shadow.engine = Broken()
    else:
        whose, name = places[where]
        setattr(whose, name, breaking(getattr(whose, name)))
    return f"{where}: {fault!r} at call {left}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 200), marks=pytest.mark.prove)], ids=["some", "many"])
def test_wherever_a_shadow_breaks_main_is_what_it_is_alone(tmp_path: Path, seeds: range):
    busy = {"paper__activity": 300.0, "twin__placebo": True}
    ran(daemon_of(tmp_path / "alone", 25.0, **busy, twin__enabled=False))
    alone = lived(entries(tmp_path / "alone", "main"))
    assert sum(len(made) for *_, made in alone) > 10, "main has traded"
    ended = 0
    for seed in seeds:
        dice, home = random.Random(seed), tmp_path / str(seed)
        daemon = daemon_of(home, 25.0, **busy)
        shadow = dice.choice(daemon.twins.shadows)
        told = f"seed {seed}, {shadow.name}, {_break(shadow, dice)}"
        result = ran(daemon)
        assert lived(entries(home, "main")) == alone, told
        assert result["clean_stop"] and result["resting"] == [], told
        ended += result["twin"]["accounts"][shadow.name]["mode"] == "ended"
    assert ended or len(seeds) < 10, "some of them broke while they ran"


def test_a_shadow_whose_state_is_in_pieces_costs_main_neither_its_status_nor_its_result(tmp_path: Path):
    daemon = daemon_of(tmp_path, 20.0)
    (shadow,) = daemon.twins.shadows

    class Broken:
        state = shadow.engine.state

        def on_event(self, now: int, event: object) -> None:
            self.state.held.append("a market that is not there")
            raise KeyError("half-way")

    shadow.engine = Broken()  # type: ignore[assignment]
    told = ran(daemon)["twin"]["accounts"]["twin"]
    assert (told["mode"], told["pnl_usd"], told["difference_usd"]) == ("ended", None, None) and "half-way" in told["why"]
    assert len(entries(tmp_path, "main")) > 100


@pytest.mark.parametrize(
    ("provider", "mode", "settings", "expected"),
    [
        ("simulated", "paper", {}, [twins.TWIN]),
        ("gemini", "live", {"twin.placebo": True}, [twins.COPY, twins.TWIN, twins.PLACEBO]),
        ("none", "paper", {"twin.placebo": True}, []),
        ("none", "live", {"twin.placebo": True}, [twins.COPY]),
        ("gemini", "live", {"twin.enabled": False}, []),
    ],
)
def test_a_twin_stands_only_beside_a_main_that_asks(provider: str, mode: str, settings: dict[str, Any], expected: list[str]):
    assert twins.names(_config(mode, **settings), provider) == expected


def _config(mode: str = "paper", **settings: Any) -> Any:
    live = {"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 500} if mode == "live" else {}
    return load(None, {}, {**live, **{key.replace("__", "."): value for key, value in settings.items()}})


# Whose home goes on.


def test_what_main_lives_through_without_its_twin_is_told_as_nobodys_worth(tmp_path: Path):
    """By status and report alike; a second such gap leaves one old journal of the twin, not two."""
    for _ in range(2):
        ran(daemon_of(tmp_path, 20.0))
        ran(daemon_of(tmp_path, 200.0, llm__provider="none"))
    told = ran(daemon_of(tmp_path, 40.0))["twin"]
    assert told["days"] < 60 / 86_400
    (found,) = home_report.compared([entry.track for entry in home_report.gather(tmp_path).entries])
    assert found.total / 1e6 == pytest.approx(told["difference_usd"], abs=1e-6)
    assert len(list(journal_folder(tmp_path).glob("aside-journal-twin-*"))) == 2, "one life: its journal, and what its end began"


def _as_an_older_build_left_it(path: Path) -> None:
    """The header of a journal that ended in order, without what that build did not know."""
    (line,) = path.read_bytes().splitlines()
    header = json.loads(line)
    del header["h"], header["meta"]["exchange"]["scatter"]
    body = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()[:-1]
    path.write_bytes(body + b',"h":"' + seal(header["previous"].encode(), body) + b'"}\n')


def test_a_home_of_a_build_that_knew_no_scatter_goes_on_and_in_another_world_it_does_not(tmp_path: Path):
    ran(daemon_of(tmp_path, 20.0))
    for account in ("main", "twin"):
        _as_an_older_build_left_it(files(journal_folder(tmp_path), account)[-1])
    told = ran(daemon_of(tmp_path, 20.0))
    assert told["resumed"] and told["clean_stop"] and told["twin"]["days"] > 35 / 86_400, "the comparison goes on too"
    assert not [line for line in (tmp_path / "logs" / "daemon.jsonl").read_text().splitlines() if "begun anew" in line]
    with pytest.raises(Refused, match="another simulated world"):
        daemon_of(tmp_path, 20.0, paper__latency="sampled")


def _lives(home: Path, seed: int, *, short: bool) -> Iterator[tuple[app.Daemon, random.Random]]:
    """Sessions of one home on markets that resolve soon, with settlements that fail and a latency that is drawn."""
    dice = random.Random(seed)
    end = dice.choice([0.005, 0.01, 3.0])
    for _ in range(2 if short else dice.randrange(3, 6)):
        harsh = {
            "seed": seed,
            "paper.activity": 300.0,
            "paper.days_to_end": end,
            "paper.settle_fail_pct": 10.0,
            "paper.latency": "sampled",
            "twin.placebo": True,
            "execution.merge_min_sets": 5.0,
            "risk.resolution_reduce_hours": 0.0,
            "risk.resolution_pull_hours": 0.0,
        }
        config = load(None, {}, {**BUSY, **harsh})
        until = 30.0 if short else dice.choice([60.0, 200.0])
        yield app.Daemon(config, Secrets({}), home, app.Options(speed=0.0, until=until), lambda line: None), dice


def _one_life(daemon: app.Daemon, dice: random.Random, *, killed: bool) -> None:
    """With a person's hand in it somewhere; `killed`: as after kill -9 at a random event."""

    class PowerLoss(BaseException):
        pass

    at, dies = dice.randrange(50, 1_500), dice.randrange(300, 4_000)
    verbs = [
        OperatorActed(Verb.FLATTEN, "test", take=True),
        OperatorActed(Verb.FLATTEN, "test"),
        OperatorActed(Verb.REDUCE, "test"),
    ]
    waiting: list[tuple[int, OperatorActed]] = [(at, dice.choice(verbs)), (at + 500, OperatorActed(Verb.RESUME, "test"))]

    def watch() -> None:
        while waiting and daemon.session.events >= waiting[0][0]:
            assert daemon.inbox is not None
            daemon.inbox.put(waiting.pop(0)[1], "main")
        if killed and daemon.session.events >= dies:
            raise PowerLoss

    try:
        asyncio.run(daemon.run(watch))
        daemon.close()
    except PowerLoss:
        daemon.ledger.close()
        daemon.lock.release()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 21), marks=pytest.mark.prove)], ids=["one", "many"])
def test_whatever_a_home_lives_through_every_account_answers_for_its_money(tmp_path: Path, seeds: range):
    short = len(seeds) == 1
    for seed in seeds:
        print("seed", seed)
        home = tmp_path / str(seed)
        for daemon, dice in _lives(home, seed, short=short):
            _one_life(daemon, dice, killed=dice.random() < 0.6)
        last, _ = next(_lives(home, seed, short=short))
        ran(last)
        accounts = home_report.report(home)["accounts"]
        assert {each["account"] for each in accounts} == {"main", "twin", "placebo"}
        for each in accounts:
            identity = each["identity_usd"]
            assert identity["closes"] and identity["unexplained"] == 0, (seed, each["account"], identity)
            assert each["fills"] > 0
        assert lab.replay(journal_folder(home))["proved"]


# Runs in memory.


def test_a_live_config_trades_in_memory_as_a_paper_one_does():
    market = MarketParams(seed=5, markets=2, activity=200.0)
    bankroll = {"risk.bankroll_usd": 10_000}
    made = trial.simulate_many({"paper": _config(), "live": _config("live", **bankroll)}, market=market, days=0.004)
    assert made["paper"].fills and made["live"].fills, "an engine that waits for an account's stream makes nothing"


@pytest.mark.parametrize(("seconds", "told"), [(790, "13 minutes"), (9_000, "2.5 hours"), (345_600, "4.0 days")])
def test_a_comparison_says_how_long_it_was(seconds: int, told: str):
    assert _span(seconds * NS_PER_S / (86_400 * NS_PER_S)) == told
