"""The accounts beside main: the twin is main without a model, to the byte; none of them can harm main; each answers for itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_maker import app, lab, twins
from llm_maker.config import load
from llm_maker.core.commands import RequestSignals
from llm_maker.core.events import OperatorActed, SignalsReceived, Started, StopRequested, Tick, Verb
from llm_maker.core.signals import market_x
from llm_maker.hearsay import MEMORY, Answers, Dealer, logit_of
from llm_maker.keys import Secrets
from llm_maker.runtime.journal import Entry, files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.ledger import Ledger
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.world import Refused
from tests.fakes.model_server import ModelServer
from tests.rehearsal.stage import Rehearsal

SEED = 11
ALL = [twins.COPY, twins.TWIN, twins.PLACEBO]
BUSY = {"seed": SEED, "paper.markets": 4, "paper.activity": 150.0, "strategy.decision_interval": 15.0, "llm.min_gap_seconds": 5.0}


def daemon_of(home: Path, until: float, say: Callable[[str], None] = lambda line: None, **settings: Any) -> app.Daemon:
    print("seed", SEED)
    config = load(None, {}, {**BUSY, **{key.replace("__", "."): value for key, value in settings.items()}})
    return app.Daemon(config, Secrets({}), home, app.Options(speed=0.0, until=until), say)


def ran(daemon: app.Daemon) -> dict[str, Any]:
    """To its proved end."""
    try:
        assert asyncio.run(daemon.run()), "a clean stop"
        return daemon.result()
    finally:
        daemon.close()


def crashed(daemon: app.Daemon, at_event: int) -> None:
    """As after kill -9: what was not flushed is lost, nothing is closed in order."""

    class PowerLoss(BaseException):
        pass

    def watch() -> None:
        if daemon.session.events >= at_event:
            raise PowerLoss

    with pytest.raises(PowerLoss):
        asyncio.run(daemon.run(watch))
    daemon.ledger.close()
    daemon.lock.release()


def journal_folder(home: Path) -> Path:
    return next((home / "logs" / "journal").iterdir())


def entries(home: Path, account: str) -> list[Entry]:
    return [entry for path in files(journal_folder(home), account) for entry in read_journal(path)]


def lived(found: list[Entry]) -> list[tuple[int, int, object, tuple[object, ...]]]:
    """Everything but whose it is, and how it was brought to its end."""
    stop = next((n for n, entry in enumerate(found) if isinstance(entry.event, StopRequested)), len(found))
    return [(e.seq, e.ts, e.event, e.commands) for e in found[:stop]]


def daemon_lines(home: Path, code: str = "twin") -> list[str]:
    lines = [json.loads(line) for line in (home / "logs" / "daemon.jsonl").read_text().splitlines()]
    return [line["text"] for line in lines if line["event"] == code]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a model, which has no twin: it would be main again."""
    home = tmp_path_factory.mktemp("rules")
    assert ran(daemon_of(home, 120.0, llm__provider="none", twin__placebo=True))["twin"] is None
    assert not entries(home, "twin") and not (home / "logs" / "twin").exists()
    return home


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model, nobody beside it."""
    home = tmp_path_factory.mktemp("alone")
    ran(daemon_of(home, 120.0, twin__enabled=False))
    return home


def test_the_twin_is_main_without_a_model_to_the_byte(rules: Path, alone: Path, tmp_path: Path):
    main = lived(entries(rules, "main"))
    assert sum(len(commands) for *_, commands in main) > 30, "main has traded"
    told = ran(daemon_of(tmp_path, 120.0))
    assert told["decisions"] > 2 and told["twin"]["accounts"]["twin"]["decisions"] == 0
    assert lived(entries(tmp_path, "twin")) == main
    assert lived(entries(tmp_path, "main")) == lived(entries(alone, "main")) != main, "and main what it is without a twin"
    assert told["twin"]["difference_usd"] == pytest.approx(told["pnl_usd"] - told["twin"]["accounts"]["twin"]["pnl_usd"], abs=1e-6)


def test_the_copy_is_main_and_hears_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(twins, "names", lambda config, provider: ALL)
    told = ran(daemon_of(tmp_path, 120.0, llm__simulated_skill_r2=0.5))
    main, copy = entries(tmp_path, "main"), entries(tmp_path, twins.COPY)
    asked = [c for e in main for c in e.commands if isinstance(c, RequestSignals)]
    assert len(asked) > 2
    assert not [c for name in ALL for e in entries(tmp_path, name) for c in e.commands if isinstance(c, RequestSignals)]
    alike = [(ts, event, tuple(c for c in made if not isinstance(c, RequestSignals))) for _, ts, event, made in lived(main)]
    assert [(ts, event, made) for _, ts, event, made in lived(copy)] == alike
    assert told["twin"]["accounts"][twins.COPY]["pnl_usd"] == told["pnl_usd"]
    # The placebo heard as many answers, in its own words.
    heard = [e.event for e in entries(tmp_path, twins.PLACEBO) if isinstance(e.event, SignalsReceived)]
    said = [e.event for e in main if isinstance(e.event, SignalsReceived)]
    assert [(h.request_id, h.decision_id, h.cost) for h in heard] == [(s.request_id, s.decision_id, 0) for s in said]
    assert sum(len(h.signals) for h in heard) >= sum(len(s.signals) for s in said[1:])
    assert lab.replay(journal_folder(tmp_path))["proved"]
    names = {path.name.removeprefix("journal-").rpartition("-")[0] for path in journal_folder(tmp_path).iterdir()}
    assert names == {"main", *ALL}
    decided = [json.loads(line) for line in (tmp_path / "logs" / "llm_decisions.jsonl").read_text().splitlines()]
    assert {line["account"] for line in decided} == {"main"} and len(decided) == told["decisions"]
    assert isinstance(decided[-1]["twin_difference_usd"], float) and "twin_interval_usd" in decided[-1]


def test_the_placebo_deals_each_opinion_to_another_market(tmp_path: Path):
    daemon = daemon_of(tmp_path, 90.0)
    dealer = Dealer(daemon.state, SEED)
    pairs: list[tuple[SignalsReceived, SignalsReceived]] = []
    real = daemon.session.deliver

    def deliver(ts: int, account: str, event: Any) -> None:
        real(ts, account, event)
        if isinstance(event, Tick):
            assert not list(dealer.on_tick())
        if account == "main" and isinstance(event, SignalsReceived):
            (told,) = dealer.on_main(event)
            assert isinstance(told, SignalsReceived)
            pairs.append((event, told))
            for signal in told.signals:
                donor_id = signal.reasoning.removeprefix("placebo: said of ")
                assert donor_id != signal.market_id
                donors = [c for c in dealer._cards if c.signal.market_id == donor_id]
                here = daemon.state.markets[signal.market_id]
                assert here.book.mid is not None and signal.p_yes is not None
                moved = logit_of(signal.p_yes) - market_x(here.instrument, here.book.mid)
                assert any(c.p_yes == pytest.approx(moved, abs=1e-6) and c.signal.confidence == signal.confidence for c in donors)

    daemon.session.deliver = deliver  # type: ignore[method-assign]
    ran(daemon)
    assert len(pairs) > 2 and sum(len(told.signals) for _, told in pairs) > 3
    assert all({s.market_id for s in told.signals} <= {s.market_id for s in event.signals} for event, told in pairs)
    assert len(dealer._cards) <= MEMORY
    again = Dealer(daemon.state, SEED)
    again._cards.extend(dealer._cards)
    assert again._deal(pairs[-1][0].signals[0], "x/0") == dealer._deal(pairs[-1][0].signals[0], "x/0"), "by the seed alone"


def test_an_answer_that_main_did_not_wait_for_is_late_for_all_and_one_that_never_came_fails_for_all(tmp_path: Path):
    daemon = daemon_of(tmp_path, 10.0)
    state, ear = daemon.state, Answers(daemon.state)
    state.slow.pending = "1-r1"
    assert not list(ear.on_tick())
    state.slow.pending = ""
    (answer,) = ear.on_main(SignalsReceived("1-r1", "d1", "m", "v", ()))
    assert isinstance(answer, SignalsReceived) and answer.request_id == "1-r1"
    (late,) = ear.on_main(SignalsReceived("1-r0", "d0", "m", "v", (), cost=7))
    assert isinstance(late, SignalsReceived) and (late.request_id, late.cost) == ("", 7)
    state.slow.pending = "1-r2"
    assert not list(ear.on_tick())
    state.slow.pending = ""
    assert [(f.request_id, f.reason) for f in ear.on_tick()] == [("1-r2", "timeout")]  # type: ignore[union-attr]
    assert not list(ear.on_tick())
    assert list(ear.on_main(OperatorActed(Verb.PAUSE, "test"))) and not list(ear.on_main(OperatorActed(Verb.ADOPT, "test")))
    daemon.close()


def test_a_person_pauses_all(tmp_path: Path):
    daemon = daemon_of(tmp_path, 60.0)
    daemon.start()
    daemon.session.deliver(daemon.session.now, "main", OperatorActed(Verb.PAUSE, "test"))
    assert all(state.operator_mode == daemon.state.operator_mode == "halted" for state in daemon.twins.states)
    daemon.close()


def fault_in_the_core(daemon: app.Daemon) -> None:
    engine = daemon.twins.shadows[0].engine
    real, count = engine.on_event, iter(range(10**9))

    def broken(now: int, event: Any) -> Any:
        assert next(count) < 500, "a bug of the twin's"
        return real(now, event)

    class Broken:
        state, on_event = engine.state, staticmethod(broken)

    daemon.twins.shadows[0].engine = Broken()  # type: ignore[assignment]


def fault_in_the_exchange(daemon: app.Daemon) -> None:
    exchange = daemon.twins.shadows[0].exchange._inner
    assert isinstance(exchange, Exchange)
    real, count = exchange.advance, iter(range(10**9))

    def broken(now: int) -> Any:
        assert next(count) < 20, "a bug of the twin's exchange"
        return real(now)

    exchange.advance = broken  # type: ignore[method-assign]


def fault_of_the_disk(daemon: app.Daemon) -> None:
    journal = daemon.twins.shadows[0].journal
    assert isinstance(journal, JournalWriter)

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    journal._os_write = full


@pytest.mark.parametrize("fault", [fault_in_the_core, fault_in_the_exchange, fault_of_the_disk])
def test_a_shadow_that_breaks_ends_alone_and_says_so(alone: Path, tmp_path: Path, fault: Callable[[app.Daemon], None]):
    daemon = daemon_of(tmp_path, 120.0)
    fault(daemon)
    told = ran(daemon)
    assert lived(entries(tmp_path, "main")) == lived(entries(alone, "main"))
    ended = [text for text in daemon_lines(tmp_path) if "has ended by a fault of its own" in text]
    assert len(ended) == 1 and "main goes on" in ended[0]
    assert told["clean_stop"] and told["twin"]["difference_usd"] is None and told["twin"]["accounts"]["twin"]["mode"] == "ended"


def test_main_has_sent_before_a_shadow_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    class Port:
        name = "wire"

        def execute(self, command: object) -> None:
            order.append("sent")

        def flush(self) -> None:
            order.append("flushed")

    daemon = daemon_of(tmp_path, 30.0)
    daemon.account.venue = app.Account(daemon.engine, None, venue=Port()).venue  # type: ignore[arg-type]
    hear = daemon.twins.shadows[0].hear
    monkeypatch.setattr(daemon.twins.shadows[0], "hear", lambda *event: (order.append("shadow"), hear(*event)))
    daemon.start()
    assert order[:3] == ["sent", "flushed", "shadow"], "Started: main asks for the account, then the shadow hears"
    sent = 0
    for _ in range(3_000):
        item = daemon.session.timeline.pop()
        assert item is not None
        order.clear()
        daemon.session.deliver(*item)
        if "sent" in order:
            sent += 1
            assert order.index("flushed") < order.index("shadow")
    assert sent > 20
    daemon.close()


# Coming back.


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as kill -9 leaves it."""
    home = tmp_path_factory.mktemp("crash")
    crashed(daemon_of(home, 600.0), 1_500)
    return home


def behind(folder: Path) -> None:
    """The last half of its lines never reached the disk."""
    path = files(folder, "twin")[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))


def damaged(folder: Path) -> None:
    path = files(folder, "twin")[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = lines[len(lines) // 2].replace(b'"ts":1', b'"ts":2', 1)
    path.write_bytes(b"".join(lines))


def gone(folder: Path) -> None:
    for path in files(folder, "twin"):
        path.unlink()


def ahead(folder: Path) -> None:
    """Main's last lines never reached the disk, the twin's did."""
    path = files(folder, "main")[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-40]))


def as_left(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (as_left, "brought to the present"),
        pytest.param(behind, "begun anew", marks=pytest.mark.prove),
        pytest.param(ahead, "begun anew", marks=pytest.mark.prove),
        pytest.param(damaged, "begun anew", marks=pytest.mark.prove),
        pytest.param(gone, "begun anew", marks=pytest.mark.prove),
    ],
)
def test_after_a_kill_main_goes_on_as_ever_and_its_shadow_as_well_as_it_can(
    crash: Path, tmp_path: Path, harm: Callable[[Path], None], said: str
):
    alone, both = tmp_path / "alone", tmp_path / "both"
    for home in (alone, both):
        shutil.copytree(crash, home)
        harm(journal_folder(home))
    ran(daemon_of(alone, 30.0, twin__enabled=False))
    daemon = daemon_of(both, 30.0)
    placed = daemon.twins.states[0].counts.placed
    told = ran(daemon)
    assert lived(entries(both, "main")) == lived(entries(alone, "main")), "main as before"
    twin = daemon_lines(both)
    assert any(said in text for text in twin), twin
    assert told["twin"]["accounts"]["twin"]["fills"] > 0 and told["twin"]["difference_usd"] is not None
    assert daemon.state.counts.placed > placed
    assert lab.replay(journal_folder(both))["proved"]
    # And from here on in order, to the byte: nothing is said any more.
    again = ran(daemon_of(both, 10.0))
    assert daemon_lines(both) == twin and again["resumed"] and again["twin"]["days"] > told["twin"]["days"]


def test_a_twin_that_is_switched_on_later_begins_at_mains_moment(tmp_path: Path):
    ran(daemon_of(tmp_path, 30.0, twin__enabled=False))
    first = ran(daemon_of(tmp_path, 60.0, twin__placebo=True))
    assert first["twin"]["days"] < 75 / 86_400
    assert all(account["fills"] > 0 for account in first["twin"]["accounts"].values())
    assert sum("begins here" in text for text in daemon_lines(tmp_path)) == 2
    started = entries(tmp_path, "twin")[0]
    assert isinstance(started.event, Started) and started.event.session == 2
    last = ran(daemon_of(tmp_path, 30.0, twin__enabled=False))
    assert last["twin"] is None and last["resumed"]


def test_main_may_not_bear_a_shadows_name(tmp_path: Path):
    with pytest.raises(Refused, match="the name of a paper account beside it"):
        daemon_of(tmp_path, 10.0, account="twin")


# Beside real money, at the fake venue.


class _Models:
    """The fake model server in a thread of its own."""

    def __enter__(self) -> str:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = ModelServer(["ok"])
        asyncio.run_coroutine_threadsafe(self.server.__aenter__(), self.loop).result(10)
        return self.server.url

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self.server.__aexit__(None, None, None), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.mark.prove
def test_beside_real_money_a_paper_copy_hears_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-THROWAWAY-ONLY-FOR-TESTS-0001")
    with _Models() as url:
        llm = {"provider": "openai_compatible", "base_url": url, "model": "fake"}
        with Rehearsal(tmp_path, SEED, 20.0, llm=llm, twin={"placebo": True}) as rehearsal:
            rehearsal.start()
            rehearsal.until(lambda s: all(a["fills"] > 0 for a in s["twin"]["accounts"].values()), 1_200)
            status = rehearsal.until(lambda s: s["counts"]["decisions"] >= 2 and s["counts"]["fills"] > 0, 600)
            assert status["real_money"] and status["twin"]["against"] == twins.COPY and status["twin"]["paper_money"]
            rehearsal.kill()
            rehearsal.start()
            rehearsal.until(lambda s: s["session"] == 2 and all(a["mode"] == "active" for a in s["twin"]["accounts"].values()), 600)
            rehearsal.wait(60)
            result = rehearsal.stop()
            assert result["exit_code"] == 0 and result["clean_stop"], result
            rehearsal.check()
            folder = rehearsal.journal
            known = Ledger.open(tmp_path / "positions" / "ledger.sqlite3")
            scopes = {(s.mode, s.account) for s in known.scopes()}
            known.close()
            assert scopes >= {("live", "main"), ("paper", twins.COPY), ("paper", twins.TWIN), ("paper", twins.PLACEBO)}
            said = [e.event for e in rehearsal.entries() if isinstance(e.event, SignalsReceived)]
            paper = {name: [e for p in files(folder, name) for e in read_journal(p)] for name in ALL}
            assert [e.event for e in paper[twins.COPY] if isinstance(e.event, SignalsReceived)] == said and len(said) >= 2
            assert not [e for e in paper[twins.TWIN] if isinstance(e.event, SignalsReceived)]
            assert lab.replay(folder)["proved"]
            assert any("brought to the present" in text for text in daemon_lines(tmp_path))
