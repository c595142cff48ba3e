"""The control socket and the kill file, over real sockets in a temporary home."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.console import control
from llm_maker.console.control import (
    ControlClient,
    ControlFailed,
    ControlServer,
    KillFile,
    NotRunning,
    Unanswered,
)
from llm_maker.console.desk import ACTS, READS, Desk, Refused
from llm_maker.core.events import Event, OperatorActed, Verb


def ask(verb: str, args: dict[str, Any]) -> dict[str, Any]:
    if args.get("market") == "nowhere":
        raise Refused("no market 'nowhere'\nhere")
    if args.get("market") == "broken":
        return {"oops": {}["missing"]}
    if args.get("market") == "bug":
        raise AssertionError("ours")
    return {"verb": verb, "args": args}


def find(text: str) -> str | None:
    return {"btc": "0xbtc"}.get(text)


def size(instrument: str, shares: str) -> int | None:
    return round(float(shares) * 1_000_000) if re.fullmatch(r"-?[0-9.]+", shares) else None


class Daemon:
    """A running server, what it emitted, and calls made from another thread as the command line makes them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.emitted: list[Event] = []
        self.server = ControlServer(home, Desk(ask, find, size))

    async def __aenter__(self) -> Daemon:
        self.server.open()
        self.task = asyncio.create_task(self.server.run(self.emitted.append))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def call(self, verb: str, **args: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ControlClient.call, self.home, verb, args)

    async def raw(self, line: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(_place(self.home), limit=1 << 20)
        writer.write(line)
        answer = json.loads(await reader.readline())
        writer.close()
        return answer


def _place(home: Path) -> str:
    return json.loads((home / "positions" / "control.json").read_text())["socket"]


@pytest.mark.parametrize("verb", READS)
async def test_reading_verbs_are_asked_and_emit_nothing(tmp_path, verb):
    async with Daemon(tmp_path) as daemon:
        assert await daemon.call(verb, market="btc") == {"ok": True, "verb": verb, "args": {"market": "btc"}}
        assert daemon.emitted == []


@pytest.mark.parametrize("verb", [verb for verb in ACTS if verb not in (Verb.ADOPT, Verb.APPROVE, Verb.SPLIT)])
async def test_acting_verbs_become_one_event(tmp_path, verb):
    async with Daemon(tmp_path) as daemon:
        assert (await daemon.call(verb))["ok"] is True
        assert daemon.emitted == [OperatorActed(verb=verb, who="control socket")]


async def test_verbs_with_an_argument_of_their_own(tmp_path):
    async with Daemon(tmp_path) as daemon:
        assert (await daemon.call("adopt", market="btc"))["ok"] and (await daemon.call("approve", intent_id="i7"))["ok"]
        assert (await daemon.call("split", market="btc", shares="12.5"))["ok"]
        assert daemon.emitted == [
            OperatorActed(Verb.ADOPT, "control socket", "0xbtc"),
            OperatorActed(Verb.APPROVE, "control socket", intent_id="i7"),
            OperatorActed(Verb.SPLIT, "control socket", "0xbtc", qty=12_500_000),
        ]


async def test_an_action_names_its_market_and_may_take(tmp_path):
    async with Daemon(tmp_path) as daemon:
        await daemon.call("flatten", market="btc", take=True)
        await daemon.call("cancel-all", market="btc")
        assert daemon.emitted == [
            OperatorActed(verb=Verb.FLATTEN, who="control socket", instrument="0xbtc", take=True),
            OperatorActed(verb=Verb.CANCEL_ALL, who="control socket", instrument="0xbtc"),
        ]


@pytest.mark.parametrize(
    ("verb", "args", "error"),
    [
        ("flaten", {}, "did you mean 'flatten'?"),
        ("xyzzy", {}, "known: status"),
        ("pause", {"market": "eth"}, "no market 'eth' here"),
        ("pause", {"market": 3}, "market, intent_id, shares, plan, reason are texts"),
        ("adopt", {}, "adopt needs a market"),
        ("approve", {}, "approve needs the id"),
        ("split", {"market": "btc", "shares": "many"}, "'many' is no number of shares"),
        ("split", {"market": "btc", "shares": "-1"}, "'-1' is no number of shares"),
        ("flatten", {"take": "yes"}, "take is true or false"),
        ("reduce", {"take": True}, "reduce takes no 'take'; known: market"),
        ("kill", {"now": True}, "kill takes no 'now'"),
        ("why", {"market": "nowhere"}, "no market 'nowhere' here"),
        ("why", {"market": "broken"}, "why failed: KeyError"),
    ],
)
async def test_refusals_are_one_line_and_emit_nothing(tmp_path, verb, args, error):
    async with Daemon(tmp_path) as daemon:
        answer = await daemon.call(verb, **args)
        assert answer["ok"] is False
        assert error in answer["error"]
        assert "\n" not in answer["error"]
        assert daemon.emitted == []
        assert (await daemon.call("status"))["ok"] is True


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"[]\n", b'{"verb": 3}\n', b'{"verb": "status", "x": 1}\n', b"\xff\xfe\n", b"[" * 9_000 + b"\n"],
)
async def test_what_is_no_request_is_answered_and_harms_nothing(tmp_path, line):
    async with Daemon(tmp_path) as daemon:
        assert "not a request" in (await daemon.raw(line))["error"]
        assert (await daemon.call("status"))["ok"] is True


async def test_a_line_has_a_limit(tmp_path):
    async with Daemon(tmp_path) as daemon:
        answer = await daemon.raw(b'{"verb": "' + b"x" * (2 * control.MAX_LINE_BYTES) + b'"}\n')
        assert str(control.MAX_LINE_BYTES) in answer["error"]
        assert (await daemon.call("status"))["ok"] is True


async def test_connections_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_CLIENTS", 2)
    async with Daemon(tmp_path) as daemon:
        held = [await asyncio.open_unix_connection(_place(tmp_path)) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_unix_connection(_place(tmp_path))
        assert "too many connections" in json.loads(await reader.readline())["error"]
        for _, other in [*held, (reader, writer)]:
            other.close()
        await asyncio.sleep(0.05)
        assert (await daemon.call("status"))["ok"] is True


async def test_one_connection_may_ask_many_times(tmp_path):
    async with Daemon(tmp_path) as daemon:
        reader, writer = await asyncio.open_unix_connection(_place(tmp_path))
        writer.write(b'{"verb":"pause"}\n{"verb":"resume"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(2)]
        writer.close()
        assert [answer["verb"] for answer in answers] == ["pause", "resume"]
        assert [event.verb for event in daemon.emitted] == [Verb.PAUSE, Verb.RESUME]


async def test_an_idle_connection_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.05)
    async with Daemon(tmp_path):
        reader, writer = await asyncio.open_unix_connection(_place(tmp_path))
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_only_the_owner_may_connect(tmp_path):
    async with Daemon(tmp_path):
        assert stat.S_IMODE(os.stat(_place(tmp_path)).st_mode) == 0o600  # noqa: PTH116
        assert stat.S_IMODE((tmp_path / "positions" / "control.json").stat().st_mode) == 0o600


async def test_a_stopped_daemon_leaves_nothing_and_is_not_running(tmp_path):
    async with Daemon(tmp_path) as daemon:
        await daemon.call("status")
    assert list((tmp_path / "positions").iterdir()) == []
    with pytest.raises(NotRunning, match="no daemon runs"):
        ControlClient.call(tmp_path, "status")


async def test_stopping_does_not_wait_for_open_connections(tmp_path):
    async with Daemon(tmp_path) as daemon:
        reader, writer = await asyncio.open_unix_connection(_place(tmp_path))
        await daemon.call("status")
    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()


async def test_a_dead_daemons_socket_is_replaced(tmp_path):
    killed = ControlServer(tmp_path, Desk(ask))
    killed.open()
    assert killed._listening is not None
    killed._listening.close()  # as a kill -9 does: the files stay
    with pytest.raises(NotRunning):
        ControlClient.call(tmp_path, "status")
    async with Daemon(tmp_path) as daemon:
        assert (await daemon.call("status"))["ok"] is True


async def test_a_living_daemons_socket_is_not_taken(tmp_path):
    async with Daemon(tmp_path) as daemon:
        with pytest.raises(ControlFailed, match="control socket in"):
            ControlServer(tmp_path, Desk(ask)).open()
        assert (await daemon.call("status"))["ok"] is True


async def test_a_file_that_is_no_socket_is_kept(tmp_path):
    (tmp_path / "positions").mkdir()
    (tmp_path / "positions" / "control.sock").write_text("a person's")
    with pytest.raises(ControlFailed):
        ControlServer(tmp_path, Desk(ask)).open()
    assert (tmp_path / "positions" / "control.sock").read_text() == "a person's"


async def test_a_long_home_gets_a_short_path_and_cleans_it_up(tmp_path):
    home = tmp_path / ("deep" * 20) / ("deeper" * 10)
    async with Daemon(home) as daemon:
        place = Path(_place(home))
        assert len(str(place)) <= control.MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert (await daemon.call("status"))["ok"] is True
    assert not place.parent.exists()


async def test_a_failed_assertion_ends_the_port(tmp_path):
    daemon = Daemon(tmp_path)
    async with daemon:
        with pytest.raises(Unanswered):
            await daemon.call("why", market="bug")
        with pytest.raises(AssertionError, match="ours"):
            await asyncio.wait_for(daemon.task, 2)


def test_a_daemon_that_does_not_answer_is_unanswered_not_absent(tmp_path):
    (tmp_path / "positions").mkdir()
    place = tmp_path / "positions" / "control.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(place))
        mute.listen()
        (tmp_path / "positions" / "control.json").write_text(json.dumps({"socket": str(place)}))
        with pytest.raises(Unanswered, match="pause"):
            ControlClient.call(tmp_path, "pause", timeout=0.1)


@settings(max_examples=200, deadline=None)
@given(line=st.binary(max_size=200) | st.text(max_size=100).map(lambda verb: json.dumps({"verb": verb}).encode()))
def test_any_line_gets_one_answer_line(line):
    emitted: list[Event] = []
    server = ControlServer(Path("unused"), Desk(ask))
    server._desk.emit = emitted.append
    answer = server.answer(line)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert json.loads(answer)["ok"] is bool(emitted) or json.loads(answer)["ok"]


async def _watch(home: Path, emitted: list[Event]) -> asyncio.Task[None]:
    return asyncio.create_task(KillFile(home, every_seconds=0.01).run(emitted.append))


async def _until(condition: Any) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.005)


KILL = OperatorActed(verb=Verb.KILL, who="kill file")


async def test_the_kill_file_kills_once_each_time_it_appears(tmp_path):
    emitted: list[Event] = []
    watching = await _watch(tmp_path, emitted)
    await asyncio.sleep(0.05)
    assert emitted == []
    for times in (1, 2):
        (tmp_path / "KILL").touch()
        await _until(lambda times=times: len(emitted) == times)
        await asyncio.sleep(0.05)
        (tmp_path / "KILL").unlink()
        await asyncio.sleep(0.05)
    assert emitted == [KILL, KILL]
    watching.cancel()


async def test_a_kill_file_from_before_the_start_counts(tmp_path):
    (tmp_path / "KILL").symlink_to("nowhere")
    emitted: list[Event] = []
    watching = await _watch(tmp_path, emitted)
    await _until(lambda: emitted == [KILL])
    watching.cancel()


async def test_a_kill_file_that_cannot_be_looked_for_is_neither_there_nor_gone(tmp_path, monkeypatch):
    (tmp_path / "KILL").touch()
    emitted: list[Event] = []
    watching = await _watch(tmp_path, emitted)
    await _until(lambda: emitted == [KILL])
    with monkeypatch.context() as patch:
        patch.setattr(control, "_present", lambda _: None)
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    assert emitted == [KILL]
    watching.cancel()


async def test_the_kill_file_is_looked_at_twice_a_second(tmp_path):
    assert KillFile(tmp_path)._every_seconds == 0.5
    assert KillFile(tmp_path).path == tmp_path / "KILL"
