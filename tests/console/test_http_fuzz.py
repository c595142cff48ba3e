"""Whatever is sent to the HTTP server of a real daemon: it answers, never with a fault of its own, and acts for its key alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.console import http_guard
from llm_maker.console.desk import VERBS
from llm_maker.console.http_wire import Limits
from tests.console.http_client import Got, Served, ran, serving

LIMITS = Limits(head=0.05, write=1.0, idle=0.05, beat=0.01)
PATHS = [
    "/",
    "/healthz",
    "/metrics",
    *(f"/api/{name}" for name in ("me", "stream", "board", "detail", "history", "why", "status")),
]
PATHS += ["/api/markets", "/api/changes", *(f"/api/act/{verb}" for verb in (*VERBS, "cancel-all", "nothing"))]
METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "G\x00T", "get", "X" * 300]
WRONG = [
    "",
    "Bearer",
    "Bearer ",
    "Basic eDp5",
    "Bearer throwaway-wrong-key-for-a-test",
    "Bearer \xff",
    "Bearer null",
    "bearer undefined",
]
MARKETS = ["SIM-0001", "SIM", "", "\x00", "../..", "%s%n", "\u202e", "x" * 500, "SIM-0001\r\nX: y"]
VALUES = st.one_of(
    st.sampled_from(MARKETS),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.none(), max_size=2),
)
ARGS = st.dictionaries(
    st.one_of(st.sampled_from(["market", "take", "intent_id", "shares", "plan", "reason"]), st.text(max_size=8)),
    VALUES,
    max_size=4,
)
GOOD_ARGS = st.sampled_from(
    [{}, {"market": "SIM-0001"}, {"market": "SIM-0001", "shares": "10", "reason": "x"}, {"intent_id": "w1"}]
)
QUERY = st.lists(
    st.tuples(
        st.sampled_from(["since", "market", "key", "token", "%00", "a b"]),
        st.sampled_from(["", "0", "-1", "9" * 30, "SIM-0001", "SIM", "%ff", "%00", "a=b", "a&b", "\u00e9"]),
    ),
    max_size=3,
)
HEADER_NAMES = [
    "Host", "Origin", "Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade", "Connection",
    "Sec-Fetch-Site", "Cookie", "Range", "If-None-Match", "X-Forwarded-Host", "X-HTTP-Method-Override", "Accept-Encoding",
]  # fmt: skip
HEADER_VALUES = [
    "", "0", "-1", "5", "9" * 20, "chunked", "gzip", "websocket", "Upgrade", "close", "100-continue", "application/json",
    "evil.example", "http://evil.example", "null", "cross-site", "same-origin", "kill", "bytes=0-", "*", "x" * 9_000, "\u00e9",
    "a\x01b",
]  # fmt: skip
HEADERS = st.dictionaries(st.sampled_from(HEADER_NAMES), st.sampled_from(HEADER_VALUES), max_size=3)
ENDS = ["/", "/..", "%2e%2e/", "//", "\x00", "#x", "a" * 9_000]


CHANGES = ["method", "target", "query", "key", "headers", "body", "cut"]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A good request with at most two things wrong with it: what is far off is refused before it could do harm."""
    path = draw(st.sampled_from(PATHS))
    act = path.startswith("/api/act/")
    args = draw(st.one_of(GOOD_ARGS, ARGS)) if act else {}
    query = [("market", "SIM-0001")] if path in ("/api/detail", "/api/why") else []
    asked: dict[str, Any] = {
        "method": "POST" if act else "GET", "target": path, "query": query, "key": "http_key", "headers": {},
        "body": json.dumps(args).encode() if act else b"", "cut": 0,
    }  # fmt: skip
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2, unique=True)):
        asked[change] = draw(_changed(change, path))
    return asked


def _changed(what: str, path: str) -> st.SearchStrategy[Any]:
    match what:
        case "method":
            return st.sampled_from(METHODS)
        case "target":
            ends = st.sampled_from(ENDS).map(lambda end: path + end)
            return st.one_of(ends, st.text(max_size=12).map(lambda text: "/" + text))
        case "query":
            return QUERY
        case "key":
            return st.sampled_from(["http_read_key", None, *WRONG])
        case "headers":
            return HEADERS
        case "body":
            return st.one_of(st.binary(max_size=40), ARGS.map(lambda args: json.dumps(args).encode()))
    return st.sampled_from([1, 20])


async def send(served: Served, asked: dict[str, Any]) -> Got | None:
    """What came back; None: the connection was cut without an answer."""
    headers = (
        {"Content-Type": "application/json"}
        | ({"Content-Length": str(len(asked["body"]))} if asked["body"] else {})
        | asked["headers"]
    )
    known = asked["key"] if asked["key"] in ("http_key", "http_read_key") else None
    if known is None and asked["key"] is not None:
        headers["Authorization"] = asked["key"]
    query = "&".join(f"{name}={value}" for name, value in asked["query"])
    target = asked["target"] + ("?" + query if query else "")
    raw = (
        served.head(asked["method"], target.replace(" ", "%20").replace("\n", "").replace("\r", ""), headers, key=known)
        + asked["body"]
    )
    async with served.line() as line:
        try:
            await line.send(raw[: -asked["cut"]] if asked["cut"] else raw)
            status, found = await line.head()
            if asked["method"] == "HEAD" or found.get("content-type") == "text/event-stream":
                return Got(status, found, b"")
            length = int(found.get("content-length", "0"))
            return Got(status, found, await asyncio.wait_for(line.reader.readexactly(length), 5))
        except (EOFError, ConnectionError, asyncio.IncompleteReadError):
            return None


def judge(asked: dict[str, Any], got: Got | None, acted: list[Any]) -> None:
    assert not acted or (asked["key"] == "http_key" and asked["method"] == "POST"), (asked, acted)
    if got is None:
        return
    assert got.status < 500, (asked, got)
    assert got.status == 200 or asked["method"] == "HEAD" or (got.json["ok"] is False and got.json["error"]), (asked, got)
    assert not acted or got.status == 200
    assert "access-control-allow-origin" not in got.headers and got.headers["x-content-type-options"] == "nosniff"
    assert b"Traceback" not in got.body
    path = asked["target"].partition("?")[0]
    if got.status == 200 and asked["key"] not in ("http_key", "http_read_key"):
        assert path in ("/", "/healthz"), "read without a key"


class Rig:
    """One daemon and one server for many examples, on a loop that is driven from outside."""

    def __init__(self, home: Path) -> None:
        uvloop = pytest.importorskip("uvloop")  # what the daemon prefers
        self.loop = uvloop.new_event_loop()
        self._stack = AsyncExitStack()
        self.daemon = self.run(ran(home))
        self.daemon.seat.desk._shut = lambda verb: ""  # its run is over, which would refuse every act
        self.served = self.run(self._stack.enter_async_context(serving(home, self.daemon.seat.desk, LIMITS)))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def close(self) -> None:
        self.run(self._stack.aclose())
        self.daemon.close()
        self.loop.close()

    def fuzz(self, asked: dict[str, Any]) -> None:
        before = len(self.served.emitted)
        got = self.run(send(self.served, asked))
        judge(asked, got, self.served.emitted[before:])
        assert not self.served.task.done() and self.served.said == []


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("READS_PER_S", "READS_BURST", "ACTS_PER_S", "ACTS_BURST", "WRONG_KEYS_PER_S", "WRONG_KEYS_BURST"):
            patch.setattr(http_guard, name, 1e9)
        made = Rig(tmp_path_factory.mktemp("fuzz"))
        yield made
        made.close()


@settings(max_examples=40)
@given(asked=requests())
def test_nothing_sent_is_a_fault_or_acts_without_the_key(rig: Rig, asked: dict[str, Any]):
    rig.fuzz(asked)


@pytest.mark.prove
@pytest.mark.timeout(900)
@settings(max_examples=3_000)
@given(asked=requests())
def test_nothing_sent_is_a_fault_or_acts_without_the_key_at_length(rig: Rig, asked: dict[str, Any]):
    rig.fuzz(asked)


@settings(max_examples=25)
@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"GET /api/board HTTP/1.1\r\n" + tail)))
def test_bytes_that_are_no_request_are_refused_or_cut(rig: Rig, raw: bytes):
    async def talk() -> None:
        async with rig.served.line() as line:
            await line.send(raw + b"\r\n\r\n")
            try:
                status, _ = await line.head()
            except EOFError:
                return
            assert 400 <= status < 500

    before = len(rig.served.emitted)
    rig.run(talk())
    assert len(rig.served.emitted) == before and not rig.served.task.done() and rig.served.said == []


def test_the_fuzz_reaches_every_path(rig: Rig):
    """Or it would prove nothing: a good request of each kind is one of its examples, and is answered."""
    plain = {"query": [], "headers": {}, "cut": 0, "key": "http_key"}
    for path in PATHS:
        act = path.startswith("/api/act/")
        asked = plain | {"method": "POST" if act else "GET", "target": path, "body": b'{"market":"SIM-0001"}' if act else b""}
        if path in ("/api/detail", "/api/why"):
            asked["query"] = [("market", "SIM-0001")]
        before = len(rig.served.emitted)
        got = rig.run(send(rig.served, asked))
        assert got is not None
        reads = {f"/api/act/{verb}" for verb in VERBS[:7]}
        refused = reads | {"/api/changes", *(f"/api/act/{verb}" for verb in ("approve", "split", "reload", "intend", "nothing"))}
        assert got.status == (409 if path in refused else 200), (path, got)
        assert (len(rig.served.emitted) > before) == (act and path not in refused), path
