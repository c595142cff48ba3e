"""The page in a real browser, on the real server of a running daemon: it streams, its buttons act, and it asks nobody else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_maker.console.page import page_text

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")
PATIENCE_S = 20.0
WIDTHS = ((360, 740), (800, 1_100), (1_280, 900), (1_920, 1_080))
LIVE = "html[data-state=live] body:has(#main:not([hidden]))"


def until(what: Callable[[], Any], why: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(0.05)
    return found


@dataclass
class Running:
    """A daemon on a simulated market, and where its page is."""

    home: Path
    process: subprocess.Popen[bytes]
    address: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    def link(self, kind: str = "http_key") -> str:
        return f"{self.address}/#key={self.keys[kind]}"

    def board(self) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.address}/api/board", headers={"Authorization": f"Bearer {self.keys['http_key']}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return dict(json.load(answer))

    def journalled(self) -> str:
        """Every line of the daemon's log about what a person did."""
        log = (self.home / "logs" / "daemon.jsonl").read_text()
        return "\n".join(line for line in log.splitlines() if "operator_" in line)


def started(home: Path, port: int = 0) -> Running:
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("LLM_MAKER__") and not name.endswith("_API_KEY")
    }
    settings = {"LLM_MAKER__CONSOLE__HTTP": "true", "LLM_MAKER__CONSOLE__HTTP_PORT": str(port)}
    command = [sys.executable, "-m", "llm_maker", "--home", str(home), "--speed", "60", "--duration", "120"]
    with (home.parent / f"{home.name}.txt").open("wb") as said:
        process = subprocess.Popen(command, env=ours | settings, stdout=said, stderr=said)
    return Running(home, process)


def ready(daemon: Running) -> Running:
    folder, told = daemon.home / "positions", daemon.home.parent / f"{daemon.home.name}.txt"
    until(lambda: (folder / "http.json").exists() or daemon.process.poll() is not None, "no page was served")
    assert daemon.process.poll() is None, told.read_text()
    daemon.address = json.loads((folder / "http.json").read_text())["address"]
    daemon.keys = {name: (folder / name).read_text().strip() for name in ("http_key", "http_read_key")}
    return daemon


def ended(daemon: Running) -> None:
    """Nothing of it is needed any more."""
    daemon.process.kill()
    daemon.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for all tests here that leave it running; what they do to it they undo."""
    found = started(tmp_path_factory.mktemp("page") / "home")
    try:
        yield found
    finally:
        ended(found)


@pytest.fixture(scope="module")
def browser(running: Running) -> Iterator[Any]:
    """It starts while the daemon does."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def daemon(running: Running) -> Running:
    return ready(running)


@dataclass
class Seen:
    """A tab, and all that it did of itself."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Console warnings and errors (a policy that was broken is one), page errors, dialogs."""

    def text(self, query: str) -> str:
        return str(self.tab.inner_text(query))

    def fits(self) -> bool:
        return bool(self.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    def act(self, verb: str, typed: str = "") -> None:
        self.tab.click(f"#acts [data-act={verb}]")
        if typed:
            self.tab.fill("#ask-word", typed)
        self.tab.click("#ask-yes")

    def until(self, holds: str) -> None:
        """Until an expression is true; asked from without, because the page's policy lets nobody compile one within."""
        until(lambda: self.tab.evaluate(f"Boolean({holds})"), f"never: {holds}; said: {self.said}")

    def answered(self, words: str) -> None:
        self.until(f"document.querySelector('#answer p').textContent.includes({json.dumps(words)})")


Open = Callable[..., Seen]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """A link and how wide -> a tab that is closed after the test."""
    contexts: list[Any] = []

    def opening(link: str, width: int = 1_280, height: int = 900, **more: Any) -> Seen:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **more))
        seen = Seen(contexts[-1].new_page())
        tab = seen.tab
        tab.set_default_timeout(PATIENCE_S * 1_000)
        tab.on("request", lambda request: seen.requests.append(request.url))
        tab.on("console", lambda line: seen.said.append(f"{line.type} {line.text}") if line.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda error: seen.said.append(f"page error {error}"))
        tab.on("dialog", lambda dialog: (seen.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        tab.goto(link)
        return seen

    yield opening
    for context in contexts:
        context.close()


def test_the_page_holds_nothing_that_its_policy_would_forbid():
    text = page_text()
    assert len(re.findall(r"<script[\s>]", text)) == len(re.findall(r"<style[\s>]", text)) == 1
    markup = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"""\s(on\w+|style|src)\s*=|href="(?!data:)""", markup)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?://(?!www\.w3\.org/2000/svg)", text
    )
    assert "/*script*/" not in text and "/*style*/" not in text


@browser_needed
def test_the_page_in_a_browser(opened, daemon):
    seen = opened(daemon.link(), color_scheme="dark")
    tab = seen.tab
    tab.wait_for_selector(LIVE)
    assert tab.url == f"{daemon.address}/", "the key left the address bar"
    assert seen.text("#kind") == "PAPER" and seen.text("#simulated") == "SIMULATED"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 22)"
    assert tab.locator("#markets tbody tr").count() == len(daemon.board()["rows"]) == 8
    before = seen.text("#clock")
    for width, height in WIDTHS:
        tab.set_viewport_size({"width": width, "height": height})
        assert seen.fits(), width

    # Kill without its word is not to be pressed; a pause is, and the log knows who pressed it.
    tab.click("#acts [data-act=kill]")
    assert tab.is_disabled("#ask-yes") and "the daemon ends" in seen.text("#ask-body") and "PAPER" in seen.text("#ask-money")
    tab.click("#ask-no")
    seen.act("pause")
    seen.answered("Pause: done")
    seen.until(
        "document.querySelector('#verdict').dataset.level === 'error' && document.querySelector('#mode').dataset.mode === 'halted'"
    )
    assert seen.text("#clock") != before, "the pictures stream"
    assert daemon.board()["mode"] == "halted" and "pause by page" in daemon.journalled()
    seen.act("resume")
    seen.answered("Resume: done")
    assert not seen.said, seen.said
    assert all(url.startswith(f"{daemon.address}/") for url in seen.requests)


RESUME = """key => fetch('/api/act/resume', {method: 'POST', body: '{}',
  headers: {Authorization: `Bearer ${key}`, 'Content-Type': 'application/json'}}).then(answer => answer.status)"""


@pytest.mark.prove
@browser_needed
def test_the_key_that_only_looks_presses_nothing(opened, daemon):
    seen = opened(daemon.link("http_read_key"), 360, 740)
    tab = seen.tab
    tab.wait_for_selector(LIVE)
    tab.wait_for_selector("#acts [data-act=kill]:disabled")
    assert tab.is_visible("#read-only") and not tab.locator("[data-act]:enabled").count() and seen.fits()
    assert not seen.said
    before = daemon.journalled()
    assert tab.evaluate(RESUME, daemon.keys["http_read_key"]) == 403
    assert daemon.journalled() == before


@pytest.mark.prove
@browser_needed
def test_a_wrong_key_and_none(opened, daemon):
    seen = opened(daemon.address, 360, 740)
    tab = seen.tab
    tab.wait_for_selector("#door:not([hidden])")
    assert seen.fits() and not tab.is_visible("#main") and not tab.is_visible("#acts")
    tab.fill("#key", "a-wrong-key-of-a-test")
    tab.press("#key", "Enter")
    tab.wait_for_selector("html[data-state=refused]", state="attached")
    assert "does not open" in seen.text("#door-why")
    tab.fill("#key", daemon.link())
    tab.press("#key", "Enter")
    tab.wait_for_selector(LIVE)
    assert tab.evaluate("[...Object.keys(localStorage)].length") == 0 and daemon.keys["http_key"] not in tab.content()


PRESSED = (
    ("reduce", "Reduce only", "reduce_only"),
    ("cancel_all", "Cancel all", "halted"),
    ("flatten", "Flatten", "reduce_only"),
    ("resume", "Resume", "active"),
)


@pytest.mark.prove
@browser_needed
def test_every_button_says_what_it_does_and_does_it(opened, daemon):
    seen = opened(daemon.link())
    tab = seen.tab
    tab.wait_for_selector(LIVE)
    for verb, name, mode in PRESSED:
        tab.click(f"#acts [data-act={verb}]")
        assert re.search(r"\d", seen.text("#ask-body")), f"{verb}: no number"
        tab.click("#ask-yes")
        seen.answered(f"{name}: ")
        until(lambda mode=mode: daemon.board()["mode"] == mode, f"{verb} did not lead to {mode}")
        assert f"{verb} by page" in daemon.journalled()

    # One market alone, found by its name, and the others go on.
    row = daemon.board()["rows"][4]
    tab.fill("#filter", row["market_id"].lower())
    seen.until("document.querySelectorAll('#markets tbody tr').length === 1")
    tab.click("#markets tbody tr button")
    seen.until(f"document.querySelector('#market-title').textContent === {json.dumps(row['question'])}")
    tab.click("#market-acts [data-act=pause]")
    assert row["question"] in seen.text("#ask-body")
    tab.click("#ask-yes")
    until(
        lambda: [r["market_id"] for r in daemon.board()["rows"] if r["mode"] == "halted"] == [row["market_id"]], "one market pauses"
    )
    seen.until("document.querySelector('#gates [data-level=error]')")
    assert seen.text("#market-change").startswith("Nearest change")
    tab.click("#market-acts [data-act=resume]")
    tab.click("#ask-yes")
    until(lambda: all(r["mode"] == "active" for r in daemon.board()["rows"]), "it goes on")
    tab.click("#more")
    tab.get_by_text("Reload the configuration…").click()
    tab.wait_for_selector("#ask-body:not(:has-text('Reading the file'))")
    assert "nothing would change" in seen.text("#ask-body") and not tab.is_visible("#ask-yes")
    assert not seen.said, seen.said


@pytest.mark.prove
@browser_needed
def test_a_curve_is_read_by_pointer_and_by_keys(opened, daemon):
    seen = opened(daemon.link())
    tab = seen.tab
    tab.wait_for_selector(LIVE)
    seen.until("document.querySelector('#curve-equity .line')?.getAttribute('d').length > 200")
    equity = "#curve-equity svg"
    tab.focus(equity)
    tab.keyboard.press("Home")
    first = seen.text("#curve-equity .legend b")
    assert re.fullmatch(r"\$[\d,]+\.\d\d", first) and seen.text("#curve-equity figcaption time") and first in seen.text("#spoken")
    tab.keyboard.press("Escape")
    tab.focus("#filter")
    box = tab.locator(equity).bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    assert tab.locator("#curve-equity .cross line").count() == 1
    tab.mouse.move(5, 5)
    seen.until("!document.querySelector('#curve-equity .cross line')")


def hostile(board: dict[str, Any]) -> dict[str, Any]:
    """Two hundred markets that say anything."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202egnorw\u202c " + "AVeryLongWordWithoutASpace" * 9
    rows = [board["rows"][n % 8] | {"market_id": f"0x{n:064x}", "question": f"{n} {evil}", "why": evil} for n in range(200)]
    alarm = {
        "code": "drift",
        "level": "error",
        "text": evil,
        "cure": evil,
        "market_id": rows[1]["market_id"],
        "since_ns": 1,
        "count": 3,
        "standing": True,
    }
    wish = {"intent_id": evil, "market_id": rows[2]["market_id"], "target": -400, "who": evil, "reason": evil}
    entry = {
        "n": 1,
        "ts_ns": board["now_ns"],
        "kind": "signal",
        "level": "info",
        "code": "",
        "market_id": "",
        "text": evil,
        "cure": evil,
        "facts": {"reasoning": evil},
    }
    return board | {
        "rows": rows,
        "alarms": [alarm],
        "intents": [wish],
        "tail": [entry],
        "last": 1,
        "real_money": True,
        "simulated": False,
        "why": evil,
    }


@pytest.mark.prove
@browser_needed
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_words_from_outside_are_words_and_nothing_else(opened, daemon, width, height):
    board = json.dumps(hostile(daemon.board()))
    seen = opened("about:blank", width, height)
    tab = seen.tab
    tab.route("**/api/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=f"data: {board}\n\n"))
    tab.goto(daemon.link())
    seen.until("document.querySelectorAll('#markets tbody tr').length === 200")
    assert seen.text("#kind") == "REAL MONEY" and not tab.is_visible("#simulated") and "<script>alert(1)" in seen.text("#alarms")
    assert not tab.locator("main script, main img").count() and "\u202e" not in seen.text("main") and seen.fits()
    tab.click("#waiting button")
    assert "<img src=x" in seen.text("#ask-body") and seen.fits()
    assert all(url.startswith((f"{daemon.address}/", "about:")) for url in seen.requests)
    assert not [line for line in seen.said if "Failed to load resource" not in line], seen.said


@pytest.mark.prove
@browser_needed
def test_an_old_picture_never_looks_live_and_a_killed_daemon_is_gone(opened, tmp_path):
    own = ready(started(tmp_path / "home"))
    try:
        seen = opened(own.link())
        tab = seen.tab
        tab.wait_for_selector(LIVE)
        ended(own)
        tab.wait_for_selector("html[data-stale] #old:not([hidden])")
        assert "Old picture" in seen.text("#old")
        seen.until("getComputedStyle(document.querySelector('main')).opacity < 0.9")
        assert tab.title().startswith("OLD")
        port = int(own.address.rpartition(":")[2])
        (own.home / "positions" / "http.json").unlink()
        own = ready(started(tmp_path / "home", port))
        assert own.address.endswith(f":{port}")
        # The page tries by itself too, and may have hidden the button in this very moment.
        tab.evaluate("document.querySelector('#retry').click()")
        tab.wait_for_selector("html[data-state=live]:not([data-stale])", state="attached")
        seen.answered("session 2")
        seen.until("document.querySelector('#old').hidden && document.querySelectorAll('#stream .entries li').length > 3")

        seen.act("kill", "kill")
        seen.answered("Kill: taken")
        own.process.wait(PATIENCE_S)
        tab.wait_for_selector("#old:not([hidden])")
        seen.until("document.querySelector('#old').textContent.includes('Killed')")
        assert "kill by page" in own.journalled()
        # A server that has gone is a request that fails; nothing else was said.
        assert not [line for line in seen.said if "Failed to load resource" not in line], seen.said
    finally:
        ended(own)
