"""No secret in any log, prompt, cassette or error: keys marked as worthless are planted everywhere, every server echoes them, the
daemon dies in the middle; then every file, every line for a person and every body that arrived is searched."""

from __future__ import annotations

import asyncio
import http.server
import json
import sqlite3
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from llm_maker import app, cli
from llm_maker.keys import KEY_OF, SECRET_NAMES
from llm_maker.llm.cassette import Cassette
from llm_maker.llm.providers import PROVIDERS
from tests.fakes.models import ModelServer, Seen, signal
from tests.slow import named, play, single

MARKED = {name: f"THROWAWAY-{n:02}-{name.replace('_', '-')}-0000" for n, name in enumerate(SECRET_NAMES)}
"""Worth nothing anywhere; one for each secret there is."""
STEPS = {
    "gemini": ("ok", "key_400"),
    "anthropic": ("ok", "401", "ok"),
    "openai": ("ok", "500", "401_text"),
    "deepseek": ("ok", "429", "ok", "garbage", "refusal"),
    "xai": ("key_400",),
}
"""What each provider does from call to call; the last step again and again. 401 and key_400 say the key back."""


def answer(handles: list[str], seen: Seen) -> dict[str, Any]:
    """A good answer that tells everybody the key it was asked with."""
    leak = f"your key is {seen.credential}, Authorization: Bearer {seen.credential}"
    return {"signals": [signal(handle, reasoning=leak, evidence=leak) for handle in handles], seen.credential: leak}


def notes(seen: Seen) -> str:
    told = {
        "text": f"The key {seen.credential} was seen.",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "url": "https://news.example/one",
    }
    return json.dumps({"notes": [told], "key": seen.credential})


@contextmanager
def serving(server: ModelServer) -> Iterator[ModelServer]:
    """The fake on a loop of its own, so that a daemon may have this thread to itself."""
    loop, up = asyncio.new_event_loop(), threading.Event()
    done = asyncio.Event()

    async def serve() -> None:
        async with server:
            up.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()


def config_for(server: ModelServer) -> dict[str, Any]:
    four = [named(provider, server) for provider in ("gemini", "anthropic", "openai", "deepseek")]
    llm = {
        "ensemble": four,
        "reserve": [named("xai", server)],
        "news": named("openai", server),
        "cassette": "tape.jsonl",
        "timeout_seconds": 5,
    }
    strategy = {"decision_interval": 20, "refresh_seconds": 20}
    return {"llm": llm, "strategy": strategy, "logging": {"journal_max_mb": 0.2}, "paper": {"markets": 3}}


class Looker(threading.Thread):
    """A person at the page, while there is one: what each reading door answers, again and again."""

    PATHS = ("/api/status", "/api/markets", "/api/changes", "/api/history", "/metrics", "/", "/healthz")

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home, self.over = home, threading.Event()
        self.heard: dict[str, bytes] = {}

    def run(self) -> None:
        while not self.over.wait(0.6):
            try:
                self._look()
            except (OSError, ValueError):
                continue  # it is not there yet, or no longer

    def _look(self) -> None:
        place = json.loads((self.home / "positions" / "http.json").read_text())["address"]
        key = (self.home / "positions" / "http_key").read_text().strip()

        def ask(path: str, query: str = "") -> bytes:
            asked = urllib.request.Request(place + path + query, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(asked, timeout=5) as answer:
                raw: bytes = answer.read()
            self.heard[path] = self.heard.get(path, b"") + raw
            return raw

        for path in self.PATHS:
            ask(path)
        for row in json.loads(ask("/api/board"))["rows"][:1]:
            for verb in ("why", "detail", "history"):
                ask(f"/api/{verb}", f"?market={row['market_id']}")


class Webhook(http.server.BaseHTTPRequestHandler):
    """Where alarms are sent; keeps their bodies."""

    bodies: list[bytes]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def watched(home: Path) -> Iterator[tuple[Looker, list[bytes], str]]:
    """Page and alarms of the daemons of `home`: who looks, what was sent, and the address it is sent to."""
    bodies: list[bytes] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Hook", (Webhook,), {"bodies": bodies}))
    threading.Thread(target=server.serve_forever).start()
    looker = Looker(home)
    looker.start()
    try:
        yield looker, bodies, f"json://127.0.0.1:{server.server_port}"
    finally:
        looker.over.set()
        looker.join(20)
        server.shutdown()
        server.server_close()


def files(home: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file with its bytes, unpacked."""
    for path in sorted(home.rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            packed = path.suffix == ".zst"
            yield path, zstandard.ZstdDecompressor().decompressobj().decompress(raw) if packed else raw


def leaks(raw: bytes) -> list[str]:
    return [name for name, value in MARKED.items() if value.encode() in raw]


def test_the_search_finds_what_is_there(tmp_path: Path):
    (tmp_path / "a.zst").write_bytes(zstandard.ZstdCompressor().compress(MARKED["XAI_API_KEY"].encode() * 9))
    assert [found for _, raw in files(tmp_path) for found in leaks(raw)] == ["XAI_API_KEY"]


@pytest.mark.parametrize("runs", [1, pytest.param(2, marks=pytest.mark.prove)])
def test_no_secret_is_written_shown_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], runs: int
):
    """One run dies of a fault that says every secret; of two the first ends well, and the second goes on where it stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llm_maker.llm.scout._LOOK_S", 0.1)
    for name, value in MARKED.items():
        monkeypatch.setenv(name, value)
    calls: Counter[str] = Counter()
    by_key = {MARKED[KEY_OF[provider]]: provider for provider in STEPS}

    def fault(seen: Seen) -> str:
        who = by_key[seen.credential]
        if seen.search_tools:
            return "ok"
        calls[who] += 1
        return STEPS[who][min(calls[who], len(STEPS[who])) - 1]

    def run(*args: str) -> object:
        monkeypatch.setattr(sys, "argv", ["llm-maker", "run", "--speed", "40", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code

    secrets = list(MARKED.values())
    monkeypatch.setenv("LLM_MAKER__CONSOLE__HTTP", "true")
    monkeypatch.setenv("LLM_MAKER__CONSOLE__HTTP_PORT", "0")
    with (
        serving(ModelServer(fault=fault, answer=answer, search_text=notes, key=None, secrets=secrets)) as server,
        watched(tmp_path) as (looker, sent, hook),
    ):
        monkeypatch.setenv("LLM_MAKER_ALERT_URLS", f"{hook}/{MARKED['LLM_MAKER_ALERT_URLS']}")
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_for(server)))
        assert runs == 1 or run("--until", "100") == 0
        dies_of(ValueError(f"a foreign library said: {' '.join(secrets)}"), monkeypatch, looker)
        assert run("--until", "600") == 1
    assert server.violations == [], "no key in a body, an address or another provider's header"
    assert {PROVIDERS[by_key[seen.credential]].api for seen in server.seen} == {"gemini", "messages", "responses", "chat"}
    assert all(PROVIDERS[by_key[seen.credential]].api == seen.wire or seen.search_tools for seen in server.seen)
    shown = capfd.readouterr()
    found = {path.relative_to(tmp_path).as_posix(): leaks(raw) for path, raw in files(tmp_path) if leaks(raw)}
    assert found == {} and leaks((shown.out + shown.err).encode()) == []
    assert "a fault of our own: ValueError: a foreign library said: *** ***" in shown.err
    everything_was_there(tmp_path, packed=runs > 1)
    doors = {"/api/board", "/api/status", "/api/changes", "/api/why", "/api/detail", "/metrics", "/", "/healthz"}
    assert doors <= set(looker.heard) and {door: leaks(raw) for door, raw in looker.heard.items() if leaks(raw)} == {}
    assert b"your key is ***" in looker.heard["/api/board"] + looker.heard["/api/detail"], "what a model says was shown"
    assert any(b"a foreign library said: *** ***" in body for body in sent) and leaks(b"".join(sent)) == []
    key = (tmp_path / "positions" / "http_key").read_bytes().strip()
    told = [raw for path, raw in files(tmp_path) if path.name != "http_key"] + [*looker.heard.values(), shown.err.encode(), *sent]
    assert len(key) >= 20 and not any(key in raw for raw in told), "the page's own key is in its file alone"


def dies_of(error: Exception, monkeypatch: pytest.MonkeyPatch, looker: Looker) -> None:
    """A daemon that fails in the middle, once a provider has been given up and the page has shown what a model said."""
    seen, watch = 0, app.Daemon._watch

    def watched(daemon: app.Daemon, began: float) -> None:
        nonlocal seen
        seen += 1
        shown = looker.heard.get("/api/board", b"") + looker.heard.get("/api/detail", b"") if seen % 20 == 0 else b""
        if b"your key is ***" in shown and b"stopped after auth" in (daemon.home / "logs" / "daemon.jsonl").read_bytes():
            raise error
        watch(daemon, began)

    monkeypatch.setattr(app.Daemon, "_watch", watched)


def everything_was_there(home: Path, *, packed: bool) -> None:
    """Or the search has shown nothing: each kind of file was written, and the failures did happen."""
    written = {path.name for path, _ in files(home)}
    logs = {"daemon.jsonl", "executions.jsonl", "llm_decisions.jsonl", "llm_raw.jsonl", "news.jsonl", "snapshot.json", "fault.txt"}
    assert logs | {"tape.jsonl", "ledger.sqlite3"} <= written and (not packed or any(name.endswith(".zst") for name in written))
    text = b"".join(raw for _, raw in files(home)).decode(errors="replace")
    assert "your key is ***" in text, "the answers that echo a key were kept, without it"
    said = (home / "logs" / "daemon.jsonl").read_text()
    assert all(f"stopped after auth: {cure}" in said for cure in ("check the key in .env",)) and '"fault"' in said
    assert "ValueError" in (home / "logs" / "fault.txt").read_text()
    with closing(sqlite3.connect(home / "positions" / "ledger.sqlite3")) as ledger:
        assert ledger.execute("SELECT count(*) FROM forecasts").fetchone()[0] > 0


async def test_a_key_that_is_no_secret_blanks_out_nothing(tmp_path: Path):
    """Servers of one's own are given keys like `x`; a cassette without its x's could not be read again."""
    async with ModelServer(key=None) as server:
        llm = single("openai_compatible", server, model="m", cassette="tape.jsonl")
        await play(tmp_path, llm, secrets={"OPENAI_API_KEY": "x"}, until=20.0)
    tape = Cassette.read(tmp_path / "tape.jsonl")
    assert [exchange.provider for exchange in tape.exchanges] == ["openai_compatible"] * len(server.seen) and server.seen
