"""The HTTP server over raw sockets: who gets in, from where, how often, and what a slow or rude client may hold."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_maker import cli
from llm_maker.console import http, http_guard
from llm_maker.console.control import ControlServer
from llm_maker.console.desk import Desk, Refused
from llm_maker.console.http_guard import Bucket
from llm_maker.console.http_wire import Limits
from llm_maker.console.page import page_text
from llm_maker.core.events import OperatorActed, Verb
from tests.console.http_client import PAGE, ran, serving

FAST = Limits(head=0.08, write=0.2, idle=0.1, beat=0.01, wait=0.0)
READS = ["/api/board", "/api/detail?market=a", "/api/history", "/api/status", "/api/markets", "/api/why?market=a", "/api/changes"]
BIG = "x" * 1_000_000


def ask(verb: str, args: dict[str, Any]) -> dict[str, Any]:
    match args.get("market"):
        case "nowhere":
            raise Refused("no market 'nowhere'\nhere")
        case "broken":
            return {"oops": {}["missing"]}
        case "bug":
            raise AssertionError("ours")
    return {"verb": verb, "args": args, "last": args.get("since", 0) + 1}


def heavy(verb: str, args: dict[str, Any]) -> dict[str, Any]:
    return ask(verb, args) | {"filler": BIG}


def find(text: str) -> str | None:
    return {"btc": "0xbtc"}.get(text)


def desk() -> Desk:
    return Desk(ask, find)


# What is served.


async def test_the_page_holds_no_data_and_only_its_own_script_runs(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        got = await served.ask("GET", "/", key=None)
    assert got.status == 200 and got.body == PAGE.encode()
    policy = got.headers["content-security-policy"]
    for tag in ("script", "style"):
        inside = re.search(f"<{tag}>(.*)</{tag}>", PAGE)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert got.headers["x-content-type-options"] == "nosniff" and got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cache-control"] == "no-store" and got.headers["cross-origin-opener-policy"] == "same-origin"
    assert "aiohttp" not in got.headers["server"].lower() and not re.search(r"\d", got.headers["server"])


async def test_the_page_we_ship_runs_one_script_and_one_style(tmp_path: Path):
    async with serving(tmp_path, desk(), page=None) as served:
        got = await served.ask("GET", "/", key=None)
    assert got.status == 200 and got.body == page_text().encode() and not served.said
    policy = got.headers["content-security-policy"]
    assert [policy.count(f"{tag}-src 'sha256-") for tag in ("script", "style")] == [1, 1] and policy.count("sha256-") == 2


async def test_health_is_one_word_without_a_key(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        got = await served.ask("GET", "/healthz", key=None)
    assert (got.status, got.body) == (200, b"ok\n")


@pytest.mark.parametrize("key", ["http_key", "http_read_key"])
async def test_both_keys_read(tmp_path: Path, key: str):
    async with serving(tmp_path, desk()) as served:
        for path in READS:
            got = await served.ask("GET", path, key=key)
            assert got.status == 200 and got.json["verb"] == path.partition("?")[0].rpartition("/")[2]
            assert got.headers["content-type"] == "application/json"
        me = await served.ask("GET", "/api/me", key=key)
        since = await served.ask("GET", "/api/board?since=41", key=key)
    assert me.json == {"ok": True, "read_only": key == "http_read_key"}
    assert since.json["args"] == {"since": 41}
    assert served.emitted == []


async def test_an_act_is_an_event_that_says_who(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        got = await served.act("cancel-all", {"market": "btc"})
    assert got.status == 200 and got.json == {"ok": True, "verb": "cancel_all", "market": "0xbtc", "take": False}
    assert served.emitted == [OperatorActed(Verb.CANCEL_ALL, "page", "0xbtc", False)]


async def test_the_reading_key_acts_on_nothing(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        statuses = [
            (await served.act(verb, key="http_read_key")).status for verb in ("kill", "pause", "reload", "intend", "nonsense")
        ]
        none = await served.act("kill", key=None)
    assert statuses == [403] * 5 and none.status == 401 and served.emitted == []


async def test_what_the_desk_refuses_is_told_in_one_line(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        for verb, args in [("adopt", {}), ("pause", {"market": "eth"}), ("pause", {"why": 1}), ("paus", {}), ("status", {})]:
            got = await served.act(verb, args)
            assert got.status == 409 and got.json["ok"] is False and got.json["error"]
        nowhere = await served.ask("GET", "/api/why?market=nowhere")
    assert nowhere.status == 409 and nowhere.json["error"] == "no market 'nowhere' here"
    assert served.emitted == []


async def test_a_fault_of_a_view_is_told_and_trading_goes_on(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        got = [await served.ask("GET", "/api/why?market=broken") for _ in range(2)]
        assert [each.status for each in got] == [500, 500] and "KeyError" in got[0].json["error"]
        assert (await served.ask("GET", "/api/board")).status == 200 and not served.task.done()
    assert [text for _, text in served.said] == ["why failed for a viewer: KeyError: 'missing'"], "once"


async def test_a_failed_assertion_ends_the_daemon(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        assert (await served.ask("GET", "/api/why?market=bug")).status == 500
        with pytest.raises(AssertionError, match="ours"):
            await asyncio.wait_for(asyncio.shield(served.task), 5)
    assert not (tmp_path / "positions" / "http.json").exists()


# Who gets in.


async def test_nothing_is_read_without_a_key(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        for path in [*READS, "/api/stream", "/api/me", "/metrics", "/api/nothing", "/api/"]:
            got = await served.ask("GET", path, key=None)
            assert got.status == 401 and got.headers["www-authenticate"] == "Bearer" and set(got.json) == {"ok", "error"}, path


async def test_a_key_is_shown_in_one_way_only(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        key = served.key()
        basic = base64.b64encode(f"x:{key}".encode()).decode()
        for shown in (
            f"Basic {basic}",
            f"Token {key}",
            key,
            f"Bearer {key}x",
            f"Bearer {key[:-1]}",
            f"Bearer {key.swapcase()}",
            "Bearer é",
        ):
            got = await served.ask("GET", "/api/me", headers={"Authorization": shown}, key=None)
            assert got.status == 401, shown
        for name in ("key", "token", "access_token"):
            assert (await served.ask("GET", f"/api/me?{name}={key}", key=None)).status == 401
            assert (await served.ask("GET", f"/api/me?{name}={key}")).status == 400, "not even beside the right one"
            assert (await served.ask("GET", f"/?{name}={key}", key=None)).status == 400
        cookie = await served.ask("GET", "/api/me", headers={"Cookie": f"key={key}"}, key=None)
        assert cookie.status == 401
        twice = served.head("GET", "/api/me", key=None).replace(
            b"\r\n\r\n", f"\r\nAuthorization: Bearer {key}".encode() * 2 + b"\r\n\r\n"
        )
        async with served.line() as line:
            await line.send(twice)
            assert (await line.got()).status == 400


async def test_wrong_keys_run_out_and_the_right_one_still_opens(tmp_path: Path):
    wrong = {"Authorization": "Bearer throwaway-wrong-key-for-a-test"}
    async with serving(tmp_path, desk(), Limits(wait=0.0)) as served:
        got = [await served.ask("GET", "/api/me", headers=wrong, key=None) for _ in range(12)]
        assert [each.status for each in got] == [401] * 10 + [429] * 2
        assert int(got[-1].headers["retry-after"]) > 0
        assert (await served.ask("GET", "/api/me")).status == 200
        assert (await served.act("kill")).status == 200


async def test_requests_are_limited_and_a_stop_is_not_kept_out_by_other_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("READS_PER_S", "ACTS_PER_S"):
        monkeypatch.setattr(http_guard, name, 0.01)
    monkeypatch.setattr(http_guard, "READS_BURST", 3.0)
    monkeypatch.setattr(http_guard, "ACTS_BURST", 2.0)
    async with serving(tmp_path, desk(), Limits(wait=0.0)) as served:
        assert [(await served.ask("GET", "/healthz", key=None)).status for _ in range(4)] == [200] * 3 + [429]
        assert [(await served.ask("GET", "/api/me", key=None)).status for _ in range(2)] == [429] * 2
        assert [(await served.ask("GET", "/api/me", key="http_read_key")).status for _ in range(4)] == [200] * 3 + [429]
        assert [(await served.ask("GET", "/api/me")).status for _ in range(4)] == [200] * 3 + [429], "each key has its own"
        assert [(await served.act("resume")).status for _ in range(3)] == [200, 200, 429]
        assert (await served.act("kill")).status == 200
    assert [event.verb for event in served.emitted if isinstance(event, OperatorActed)] == [Verb.RESUME, Verb.RESUME, Verb.KILL]


async def test_who_asks_again_and_again_for_what_is_refused_waits_and_nobody_else_does(tmp_path: Path):
    """At a thousand refusals a second and more, anybody on this machine would have all of the loop's time."""
    async with serving(tmp_path, desk(), Limits(refusals=1e-6, wait=3_600.0)) as served, served.line() as line:
        rude = served.head("GET", "/nothing", {"Host": "elsewhere"}, key=None)
        await line.send(rude * 3)
        waiting = asyncio.create_task(line.got())
        assert (await served.ask("GET", "/api/me")).status == 200 and (await served.act("kill")).status == 200
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()


def test_a_bucket_fills_again_and_says_when():
    bucket = Bucket(0.5, 2.0)
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 3]
    assert bucket.take(102.0) == 0 and bucket.take(102.0) > 0
    assert bucket.take(1_000.0) == 0 and bucket.take(1_000.0) == 0 and bucket.take(1_000.0) > 0, "never more than its burst"


# From where.


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", "127.0.0.1:{port}@evil"]
)
async def test_another_name_of_this_machine_gets_nothing(tmp_path: Path, host: str):
    async with serving(tmp_path, desk()) as served:
        named = {"Host": host.format(port=served.port)}
        got = [await served.ask("GET", path, headers=named) for path in ("/", "/api/board", "/healthz")]
        acted = await served.ask("POST", "/api/act/kill", b"{}", headers=named)
    assert {each.status for each in (*got, acted)} <= {421, 400} and served.emitted == []


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST:{port}", "maker.example", "maker.example:444"]
)
async def test_names_it_has_are_served(tmp_path: Path, host: str):
    async with serving(tmp_path, desk(), http_names=("Maker.example",)) as served:
        got = await served.ask("GET", "/api/board", headers={"Host": host.format(port=served.port)})
    assert got.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "file://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_page_from_elsewhere_may_neither_read_nor_act(tmp_path: Path, headers: dict[str, str]):
    async with serving(tmp_path, desk()) as served:
        sent = {name: value.format(port=served.port) for name, value in headers.items()}
        read = await served.ask("GET", "/api/board", headers=sent)
        act = await served.ask("POST", "/api/act/kill", b"{}", headers=sent)
    assert (read.status, act.status) == (403, 403) and served.emitted == []
    assert not [name for name in read.headers if name.startswith("access-control")]


async def test_our_own_page_may_and_a_link_from_elsewhere_opens_it(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        ours = {"Origin": f"http://127.0.0.1:{served.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await served.ask("POST", "/api/act/pause", b"{}", headers=ours)).status == 200
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await served.ask("GET", "/", headers=link, key=None)).status == 200
        assert (await served.ask("GET", "/api/board", headers=link)).status == 403
        framed = link | {"Sec-Fetch-Dest": "iframe"}
        assert (await served.ask("GET", "/", headers=framed, key=None)).status == 403


# What is sent.


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "POST"])
async def test_one_method_a_path(tmp_path: Path, method: str):
    async with serving(tmp_path, desk()) as served:
        got = await served.ask(method, "/api/board", headers={"Content-Length": "0"})
        assert got.status == 405 and got.headers["allow"] == "GET"
        if method != "POST":
            acted = await served.ask(method, "/api/act/kill", headers={"Content-Length": "0"})
            assert acted.status == 405 and acted.headers["allow"] == "POST"
        assert (await served.ask("GET", "/api/act/kill")).status == 405
    assert served.emitted == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415),
        ({"Content-Type": ""}, b"{}", 415),
        ({"Content-Encoding": "gzip"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 200),
        ({}, b"", 400),
        ({}, b"[]", 400),
        ({}, b'"{}"', 400),
        ({}, b"{", 400),
        ({}, b"\xff\xfe", 400),
        ({}, b'{"take":NaN}', 400),
        ({}, b"[" * 60_000, 400),
        ({}, b'{"market":"\\ud800"}', 400),
        ({}, b'{"market":7}', 409),
        ({}, b'{"market":"' + b"x" * 65_536 + b'"}', 413),
    ],
)
async def test_a_body_is_a_small_json_object(tmp_path: Path, headers: dict[str, str], body: bytes, status: int):
    async with serving(tmp_path, desk()) as served:
        got = await served.ask("POST", "/api/act/pause", body, headers)
    assert got.status == status and len(served.emitted) == (status == 200)


async def test_a_huge_body_is_refused_before_it_comes_and_while_it_comes(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        async with served.line() as line:
            await line.send(
                served.head("POST", "/api/act/pause", {"Content-Type": "application/json", "Content-Length": str(1 << 40)})
            )
            assert (await line.got()).status == 413
        chunked = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        async with served.line() as line:
            await line.send(served.head("POST", "/api/act/pause", chunked) + b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
            assert (await line.got()).status == 413
        async with served.line() as line:
            await line.send(served.head("GET", "/api/me", {"X-Long": "x" * 100_000}))
            assert (await line.got()).status == 400
        async with served.line() as line:
            await line.send(served.head("GET", "/api/me", {f"X-{n}": "x" for n in range(500)}))
            assert (await line.got()).status == 400
    assert served.emitted == []


TRICKS = [
    "/../positions/http_key", "/%2e%2e/positions/http_key", "/api/../../etc/passwd", "//api/board", "/api//board",
    "/api/board/", "/api/board%00", "/api/%62oard", "/api/act/kill/../pause", "/api/act/", "/api/act/KILL", "/api/act/%6bill",
    "/api\\board", "/page.html", "/.env", "/positions/http_key", "/" + "a" * 4_000, "/api/board;x", "/metrics/", "/healthz/..",
    "http://127.0.0.1/api/board", "*", "/api/board?since=-1", "/api/board?since=1e3", "/api/board?since=1&since=2",
    "/api/board?a", "/api/board?since=99999999999999999999", "/api/why?market=%ff", "/api/why?market=a&x=1",
]  # fmt: skip


async def test_a_path_is_what_it_says_or_nothing(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        for path in TRICKS:
            for method in ("GET", "POST"):
                got = await served.ask(method, path, b"{}")
                assert got.status in (400, 404, 405) and got.json["ok"] is False and b"root:" not in got.body, (method, path)
    assert served.emitted == []


# Slow and greedy clients.


async def test_a_client_that_says_nothing_or_dribbles_is_cut(tmp_path: Path):
    async with serving(tmp_path, desk(), FAST) as served:
        async with served.line() as silent, served.line() as slow:
            dribble = asyncio.create_task(_dribble(slow, served.head("GET", "/api/me")[:-2]))
            assert await silent.is_cut() and await slow.is_cut()
            dribble.cancel()
        async with served.line() as line:
            await line.send(served.head("GET", "/healthz"))
            assert (await line.got()).status == 200
            dribble = asyncio.create_task(_dribble(line, served.head("GET", "/api/me")[:-2]))
            assert await line.is_cut(), "the second request of a connection too"
            dribble.cancel()
        assert (await served.ask("GET", "/api/me")).status == 200


async def _dribble(line: Any, raw: bytes) -> None:
    """A byte at a time, for ever."""
    try:
        for byte in raw:
            await line.send(bytes([byte]))
            await asyncio.sleep(0.01)
        while True:
            await line.send(b"x")
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path):
    async with serving(tmp_path, desk(), FAST) as served, served.line() as line:
        await line.send(served.head("POST", "/api/act/kill", {"Content-Type": "application/json", "Content-Length": "1000"}) + b"{")
        got = await line.got()
        assert got.status == 408 and await line.is_cut()
    assert served.emitted == []


async def test_a_kept_connection_serves_again_and_is_cut_when_idle(tmp_path: Path):
    async with serving(tmp_path, desk(), FAST) as served, served.line() as line:
        await line.send(served.head("GET", "/api/me") + served.head("GET", "/healthz"))
        assert [(await line.got()).status, (await line.got()).status] == [200, 200]
        assert await line.is_cut()


async def test_too_many_connections_are_told_and_room_comes_again(tmp_path: Path):
    async with serving(tmp_path, desk(), Limits(connections=2)) as served:
        async with served.line(), served.line() as second:
            await second.send(served.head("GET", "/api/me"))
            assert (await second.got()).status == 200
            async with served.line() as third:
                got = await third.got()
                assert got.status == 503 and got.json["ok"] is False and await third.is_cut()
        for _ in range(200):
            try:
                if (await served.ask("GET", "/api/me")).status == 200:
                    return
            except EOFError:
                pass
            await asyncio.sleep(0.02)
    raise AssertionError("no room came back")


async def test_the_stream_tells_each_reader_what_is_new_to_it(tmp_path: Path):
    async with serving(tmp_path, desk(), FAST) as served, served.line() as one, served.line() as other:
        await one.send(served.head("GET", "/api/stream"))
        await other.send(served.head("GET", "/api/stream?since=100", key="http_read_key"))
        status, headers = await one.head()
        assert status == 200 and headers["content-type"] == "text/event-stream" and headers["cache-control"] == "no-store"
        assert (await other.head())[0] == 200
        assert [(await one.event())["args"]["since"] for _ in range(4)] == [0, 1, 2, 3]
        assert [(await other.event())["args"]["since"] for _ in range(4)] == [100, 101, 102, 103]


async def test_streams_are_few_and_a_reader_that_does_not_read_loses_its_own(tmp_path: Path):
    limits = Limits(write=0.2, beat=0.02, streams=1)
    async with serving(tmp_path, Desk(heavy), limits) as served, served.line(limit=1_024) as deaf:
        await deaf.send(served.head("GET", "/api/stream"))
        assert (await deaf.head())[0] == 200
        refused = await served.ask("GET", "/api/stream")
        assert refused.status == 429
        for _ in range(250):
            async with served.line() as line:
                await line.send(served.head("GET", "/api/stream", key="http_read_key"))
                if (await line.head())[0] == 200:
                    return
            await asyncio.sleep(0.04)
    raise AssertionError("the deaf reader kept its place")


async def test_a_stream_ends_with_the_server(tmp_path: Path):
    async with serving(tmp_path, desk(), FAST) as served, served.line() as line:
        await line.send(served.head("GET", "/api/stream"))
        assert (await line.head())[0] == 200
        served.task.cancel()
        assert await line.is_cut()
        await asyncio.gather(served.task, return_exceptions=True)
        assert served.server.address == ""


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_client_that_says_nothing_or_dribbles_is_cut,
        test_too_many_connections_are_told_and_room_comes_again,
        test_streams_are_few_and_a_reader_that_does_not_read_loses_its_own,
        test_a_stream_ends_with_the_server,
    ],
)
def test_the_same_on_the_loop_that_the_daemon_prefers(tmp_path: Path, scenario: Any):
    """Its transports are others."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(tmp_path))


# Its files and its port.


async def test_keys_are_made_once_and_private(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        files = [tmp_path / "positions" / name for name in ("http_key", "http_read_key", "http.json")]
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
        keys = [served.key(), served.key("http_read_key")]
        assert json.loads(files[2].read_text())["address"] == served.server.address
        assert keys[0] != keys[1] and all(len(key) >= 43 for key in keys)
    assert not files[2].exists()
    async with serving(tmp_path, desk()) as served:
        assert [served.key(), served.key("http_read_key")] == keys
        assert not [key for key in keys if key in f"{served.said}{vars(served.server)}"]
    files[0].unlink()
    async with serving(tmp_path, desk()) as served:
        assert served.key() != keys[0] and (await served.ask("GET", "/api/me")).status == 200, "a deleted key is a new key"


@pytest.mark.parametrize("how", ["readable", "empty", "a link", "the same twice"])
async def test_an_unsafe_key_turns_the_server_off_and_names_the_cure(tmp_path: Path, how: str):
    async with serving(tmp_path, desk()) as served:
        key = tmp_path / "positions" / "http_key"
    if how == "readable":
        key.chmod(0o640)
    elif how == "empty":
        key.write_text("\n")
    elif how == "a link":
        key.rename(key.with_name("elsewhere"))
        key.symlink_to(key.with_name("elsewhere"))
    else:
        key.write_text((tmp_path / "positions" / "http_read_key").read_text())
    async with serving(tmp_path, desk()) as served:
        assert served.server.address == "" and not served.task.done(), "trading goes on"
    ((level, text),) = served.said
    assert level == "warning" and "no page" in text
    assert how != "readable" or f"chmod 600 {key}" in text


async def test_a_taken_port_is_passed_over_and_none_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serving(tmp_path, desk(), http_port=port) as served:
            assert port < served.port < port + http.PORTS
            assert (await served.ask("GET", "/healthz")).status == 200
        monkeypatch.setattr(http, "PORTS", 1)
        async with serving(tmp_path, desk(), http_port=port) as served:
            assert served.server.address == "" and not served.task.done()
    assert served.said == [("warning", f"no page and no API: the ports {port} to {port} of 127.0.0.1 are all taken: "
                            "set console.http_port, or console.http: false")]  # fmt: skip


async def test_a_host_that_is_none_of_ours_is_said(tmp_path: Path):
    async with serving(tmp_path, desk(), http_host="192.0.2.1") as served:
        assert served.server.address == ""
    assert len(served.said) == 1 and "192.0.2.1" in served.said[0][1]


async def test_beyond_this_machine_it_warns_that_keys_travel_open(tmp_path: Path):
    async with serving(tmp_path, desk(), http_host="0.0.0.0", http_port=0) as served:
        assert served.server.address.startswith("http://127.0.0.1:")
        assert (await served.ask("GET", "/healthz")).status == 200
    assert [level for level, text in served.said if "unencrypted" in text] == ["warning"]


async def test_a_missing_page_is_loud_and_no_fault(tmp_path: Path):
    def gone() -> str:
        raise FileNotFoundError("page.html")

    async with serving(tmp_path, desk(), page=gone) as served:
        assert not served.task.done()
    assert [level for level, _ in served.said] == ["warning"]


# The link.


async def test_the_link_opens_what_its_key_may(tmp_path: Path):
    async with serving(tmp_path, desk()) as served:
        control = ControlServer(tmp_path, Desk(lambda verb, args: {"page": served.server.address}))
        control.open()
        task = asyncio.create_task(control.run(served.emitted.append))
        results = [
            await _invoke("page", "--home", str(tmp_path), *more) for more in ((), ("--read-only",), ("--json", "--read-only"))
        ]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        links = [results[0].stdout.strip(), results[1].stdout.strip(), json.loads(results[2].stdout)["url"]]
        rights = []
        for link in links:
            address, _, key = link.partition("/#key=")
            assert address == served.server.address
            me = await served.ask("GET", "/api/me", headers={"Authorization": f"Bearer {key}"}, key=None)
            rights.append(me.json["read_only"])
    assert rights == [False, True, True]


async def test_no_link_without_a_daemon_or_a_page(tmp_path: Path):
    alone = await _invoke("page", "--home", str(tmp_path))
    assert alone.exit_code == 1 and "no daemon runs" in alone.stderr and "Traceback" not in alone.stderr


async def _invoke(*args: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, cli.app, list(args))


# With a daemon behind it.


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


async def test_every_reading_path_shows_a_real_daemon(home: Path):
    daemon = await ran(home)
    market = next(iter(daemon.state.markets))
    async with serving(home, daemon.seat.desk) as served:
        for path in (
            "board",
            f"detail?market={market}",
            f"history?market={market}",
            "history",
            "status",
            "markets",
            f"why?market={market}",
        ):
            got = await served.ask("GET", f"/api/{path}")
            assert got.status == 200 and got.json["ok"] is True, (path, got.body[:300])
        board = (await served.ask("GET", "/api/board")).json
        assert board["account"] == daemon.config.account and [row["market_id"] for row in board["rows"]] == list(
            daemon.state.markets
        )
        assert (await served.ask("GET", "/metrics", key="http_read_key")).body.startswith(b"# HELP llm_maker_")
        changes = await served.ask("GET", "/api/changes")
        assert changes.status == 409 and "no configuration file" in changes.json["error"]
    daemon.close()
