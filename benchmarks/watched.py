"""What looking costs the trading: tick to order of our daemon alone, and with `top` and the page attached, turn about.

`top` runs in a terminal of its own, the page in headless Chromium; where no Chromium is at hand, whoever reads its stream stands
for it, and the row says so. All of it shares the machine's cores with the daemon and the venue, as on a small VPS.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import legs
from benchmarks.rows import ROOT, Row, Size, percentile, row

GOAL = 1.2
"""Of p99 with everything attached over p99 without."""
_KINDS = {"order": "tick to order, where nothing rests", "cancel": "tick to cancel, where the price moved"}
_ATTACHED = 5
"""Times the usual warm-up: a browser needs some seconds until it looks."""
_PATIENCE_S = 60.0
_SCREEN = (24, 80)


def watched(size: Size, folder: Path) -> list[Row]:
    """p50 and p99 of both, and their ratio, at each rate of messages."""
    rounds: dict[str, list[list[dict[str, Any]]]] = {"alone": [], "watched": []}
    eyes = ""
    for number in range(size.live_rounds):
        for name, taken in rounds.items():
            home = folder / f"{name}-{number}"
            with legs.venue(*_venue_args(size, number + 1)) as venue:
                with legs.daemon(venue.port, size.live_markets, home), _eyes(home, look=name == "watched") as found:
                    eyes = found or eyes
                    assert venue.next().get("ready"), "the venue waits for two quotes in every market first"
                    taken.append([venue.next() for _ in size.live_rates])
                venue.end()
    return [each for place, rate in enumerate(size.live_rates) for each in _rows(rounds, place, rate, eyes)]


def _venue_args(size: Size, seed: int) -> list[str]:
    told = {
        "seed": seed,
        "markets": size.live_markets,
        "rates": ",".join(map(str, size.live_rates)),
        "seconds": size.live_s,
        "warm": size.live_warm_s * _ATTACHED,
        "moves": size.live_moves,
    }
    return [text for name, value in told.items() for text in (f"--{name}", str(value))]


def _rows(rounds: dict[str, list[list[dict[str, Any]]]], place: int, rate: int, eyes: str) -> list[Row]:
    found = []
    for kind, words in _KINDS.items():
        samples = {name: [took for each in taken for took in each[place][kind]] for name, taken in rounds.items()}
        assert all(samples.values()), f"{words}: nothing was answered"
        for name, taken in samples.items():
            found.append(
                Row(
                    name=f"{words}, {rate:,}/s: {name}",
                    value=percentile(taken, 0.5) / 1e3,
                    unit="us",
                    best=min(taken) / 1e3,
                    worst=percentile(taken, 0.99) / 1e3,
                    note=f"worst is p99; {len(taken)} samples" + (f"; {eyes}" if name == "watched" else ""),
                )
            )
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            # Of all rounds together: p99 of one round is a handful of samples.
            ratio = percentile(samples["watched"], share) / percentile(samples["alone"], share)
            found.append(row(f"{words}, {rate:,}/s: {name} watched over alone", [ratio], "x", goal=GOAL if name == "p99" else None))
    return found


@contextlib.contextmanager
def _eyes(home: Path, *, look: bool) -> Iterator[str]:
    """`top` and the page, both showing this daemon; who they are, in words. `look` False: nobody."""
    if not look:
        yield ""
        return
    link = _link(home)
    with _top(home), _page(link) as browser:
        yield f"top in a terminal of 80x24, the page {browser}"


def _link(home: Path) -> dict[str, Any]:
    limit = time.monotonic() + _PATIENCE_S
    while True:
        command = [sys.executable, "-m", "llm_maker", "page", "--json", "--home", str(home)]
        done = subprocess.run(command, cwd=ROOT, env=legs.environment(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            told: dict[str, Any] = json.loads(done.stdout)
            return told
        assert time.monotonic() < limit, done.stderr
        time.sleep(0.5)


@contextlib.contextmanager
def _top(home: Path) -> Iterator[None]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *_SCREEN, 0, 0))
    command = [sys.executable, "-m", "llm_maker", "top", "--home", str(home)]
    environment = {**legs.environment(), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    try:
        yield
        assert process.poll() is None, f"top ended with exit {process.returncode}"
    finally:
        process.kill()
        process.wait()


def _drain(terminal: int) -> None:
    """Somebody has to look, or the terminal is full; ends with the program on its other side."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass
    os.close(terminal)


@contextlib.contextmanager
def _page(link: dict[str, Any]) -> Iterator[str]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        with _reader(link):
            yield "by a reader of its stream (no Chromium is here)"
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto(link["url"])
        opened.wait_for_timeout(1_500)
        try:
            yield "in headless Chromium"
        finally:
            browser.close()


@contextlib.contextmanager
def _reader(link: dict[str, Any]) -> Iterator[None]:
    address, key = link["url"].split("/#key=")
    request = urllib.request.Request(f"{address}/api/stream?since=0", headers={"Authorization": f"Bearer {key}"})
    answer = urllib.request.urlopen(request, timeout=_PATIENCE_S)
    threading.Thread(target=_read_on, args=(answer,), daemon=True).start()
    try:
        yield
    finally:
        answer.close()


def _read_on(answer: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        for _ in answer:
            pass
