"""What reaches a daemon at a bad moment: acts while it ends, a file read again and again, a disk that cannot be looked at."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_maker import app, config_text, lab, seat
from llm_maker.config import load
from llm_maker.config_text import ConfigError, parse_yaml
from llm_maker.console import control, pulse
from llm_maker.console.control import ControlServer
from llm_maker.console.desk import ACTS, INTEND, PROTECTS, RELOAD, Desk, Refused
from llm_maker.core.values import Mode
from llm_maker.keys import Secrets

ARGS = {
    "adopt": {},
    "split": {"shares": "10"},
    "approve": {"intent_id": "w0-1"},
    "intend": {"shares": "20"},
    "reload": {"plan": "x"},
}


def daemon(home: Path) -> app.Daemon:
    config = load(None, {}, {"paper.markets": 3, "console.http": False})
    return app.Daemon(config, Secrets({}), home, app.Options(speed=0.0, until=20.0), lambda line: None)


def refusal(desk: Desk, verb: str, market: str) -> str:
    """Why not; empty: it was taken."""
    args = ARGS.get(verb, {}) | ({} if verb in (*PROTECTS, "resume", "flatten", "approve", "reload") else {"market": market})
    try:
        desk.act(verb, args, "a test")
    except Refused as no:
        return str(no)
    return ""


def test_nothing_is_begun_while_it_stops_and_nothing_is_said_to_be_done_after_its_end(tmp_path: Path):
    """An act that nobody handles is not answered with ok, a wish does not wait for the next start, a kill is not taken back."""
    one, stopping = daemon(tmp_path), dict[str, str]()
    verbs = (*(verb.value for verb in ACTS), RELOAD, INTEND)

    def watch() -> None:
        if one.state.stopping and not stopping and one.account.stop is None:
            stopping.update({verb: refusal(one.seat.desk, verb, next(iter(one.state.markets))) for verb in verbs})

    assert app.run(one, watch)
    ended = {verb: refusal(one.seat.desk, verb, next(iter(one.state.markets))) for verb in verbs}
    one.close()
    assert stopping and {verb for verb, why in stopping.items() if not why} == PROTECTS
    assert all("the daemon is stopping (the market time asked for has passed)" in why for why in stopping.values() if why)
    assert all("the run has ended" in why for why in ended.values()), ended
    assert lab.replay(next((tmp_path / "logs" / "journal").iterdir()))["proved"]
    assert "kill" in one.state.halts and one.state.operator_mode is Mode.HALTED, "what protects was handled, and holds"
    again = daemon(tmp_path)
    assert "kill" in again.state.halts, "a killed daemon that is started again stands still"
    again.session.emergency("a fault of ours")
    assert "the run has ended" in refusal(again.seat.desk, "kill", ""), "after a fault nobody handles it either"
    again.close()


def test_after_a_fault_nothing_is_decided_while_the_last_words_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, events = daemon(tmp_path), list[int]()
    one.options = app.Options(speed=0.0)

    async def dies(self: pulse.Pulse, emit: Any) -> None:
        while not one.state.counts.placed:
            await asyncio.sleep(0)
        raise RuntimeError("a port is dead")

    async def slow() -> None:
        events.append(one.session.events)
        await asyncio.sleep(0.1)
        events.append(one.session.events)

    monkeypatch.setattr(pulse.Pulse, "run", dies)
    monkeypatch.setattr(one.seat, "farewell", slow)
    with pytest.raises(RuntimeError, match="a port is dead"):
        app.run(one)
    one.close()
    assert events[0] == events[1] > 0, "an answer to the last cancels would have been quoted upon"


def test_who_looks_at_a_reload_again_and_again_has_little_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, now, plans = daemon(tmp_path), [100.0], list[float]()
    monkeypatch.setattr(seat.time, "monotonic", lambda: now[0])

    def planned(self: seat.Seat) -> Any:
        plans.append(now[0])
        now[0] += 0.08
        raise Refused("config.yaml: not YAML")

    monkeypatch.setattr(seat.Seat, "_plan", planned)
    until = now[0] + 60
    while now[0] < until:
        with pytest.raises(Refused, match="not YAML"):
            one.seat.desk.answer("changes", {}, "a test")
        now[0] += 0.02
    one.close()
    assert 10 <= len(plans) <= 16, "2% of a minute, though it was asked for three thousand times"


def test_a_file_that_has_not_changed_is_parsed_once(monkeypatch: pytest.MonkeyPatch):
    config_text._parsed.cache_clear()
    parsed: list[str] = []

    def counted(text: str, Loader: Any) -> Any:
        parsed.append(text)
        return real(text, Loader)

    real = yaml.load
    monkeypatch.setattr(config_text.yaml, "load", counted)
    first = parse_yaml("a: {b: 1}", "x.yaml")
    first["a"]["b"] = 2
    assert parse_yaml("a: {b: 1}", "x.yaml") == {"a": {"b": 1}}, "whoever changes its own changes no other's"
    for name in ("x.yaml", "y.yaml"):
        with pytest.raises(ConfigError, match=f"{name}: not YAML at line"):
            parse_yaml("a: [", name)
    assert parsed == ["a: {b: 1}", "a: ["]


async def test_a_journal_that_cannot_be_looked_at_does_not_end_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").write_bytes(b"x" * 10)
    (tmp_path / "one" / "b").write_bytes(b"x" * 5)
    assert pulse._bytes_in(tmp_path) == 15
    real = Path.stat

    def sick(path: Path, *, follow_symlinks: bool = True) -> Any:
        if path.name == "a":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", sick)
    assert pulse._bytes_in(tmp_path) == 5 and pulse._bytes_in(tmp_path / "gone") == 0


async def test_what_a_client_does_not_take_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.05)
    server = ControlServer(tmp_path, Desk(lambda verb, args: {"filler": "x" * 4_000_000}))
    server.open()
    task = asyncio.create_task(server.run(lambda event: None))
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(tmp_path / "positions" / "control.sock"))
        rude.sendall(b'{"verb":"status"}\n')
        for wanted in (True, False):
            while bool(server._clients) is not wanted:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        got = 0
        rude.settimeout(1.0)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := await asyncio.to_thread(rude.recv, 1 << 20):
                got += len(part)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 0 < got < 2_000_000
