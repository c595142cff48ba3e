"""What looking costs the trading: our daemon at the loopback venue with nobody looking, and with `top` and the page, turn about.

A browser on the machine that trades takes a core from the trading whatever it looks at. So the same eyes also look at another
daemon, which runs beside all the time: what they cost ours beyond that is what answering them costs it. All three share one run,
in moments that follow one another, so that a machine with a mood of its own disturbs all alike.

`top` runs in a terminal of its own, the page in headless Chromium; where no Chromium is at hand, whoever reads its stream stands
for it, and the row says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import legs
from benchmarks.rows import ROOT, Row, Size, percentile, row

GOAL = 1.2
"""Of p99 with everything attached over p99 without."""
KINDS = {"order": "tick to order, where nothing rests", "cancel": "tick to cancel, where the price moved"}
ALONE, ELSEWHERE, WATCHED = "alone", "eyes elsewhere", "watched"
LOOKS = (ALONE, ELSEWHERE, WATCHED)
_SEED = 1
_PATIENCE_S = 60.0
_SCREEN = (24, 80)

Taken = dict[str, list[dict[str, Any]]]
"""What the venue told of each moment, by where the eyes were."""
Open = Callable[[dict[str, Any] | None], None]
"""Shows the page of a link; None shows nothing."""


def watched(size: Size, folder: Path) -> list[Row]:
    """p50 and p99 of each, and their ratios, at each rate of messages."""
    turns = _turns(size)
    taken: dict[int, Taken] = {rate: {look: [] for look in LOOKS} for rate in size.live_rates}
    ours, other = folder / "ours", folder / "other"
    with legs.venue(*_venue_args(size, [rate for rate, _ in turns])) as venue:
        with (
            legs.daemon(venue.port, size.live_markets, ours),
            _another(other),
            _top(ours) as our_top,
            _top(other) as other_top,
            _browser() as (eyes, show),
        ):
            links = {ALONE: None, ELSEWHERE: _link(other), WATCHED: _link(ours)}
            assert venue.next().get("ready"), "the venue waits for two quotes in every market first"
            for rate, look in turns:
                _awake(our_top, look == WATCHED)
                _awake(other_top, look == ELSEWHERE)
                show(links[look])
                taken[rate][look].append(venue.next())
            _awake(our_top, True)
            _awake(other_top, True)
        venue.end()
    return [each for rate in size.live_rates for each in _rows(taken[rate], rate, f"top in a terminal of 80x24, the page {eyes}")]


def _turns(size: Size) -> list[tuple[int, str]]:
    """Rate and look of each moment; in every round the looks in another order."""
    random, found = Random(_SEED), []
    for _ in range(size.watched_rounds):
        for rate in size.live_rates:
            found += [(rate, look) for look in random.sample(LOOKS, len(LOOKS))]
    return found


def _venue_args(size: Size, rates: list[int]) -> list[str]:
    told = {
        "seed": _SEED,
        "markets": size.live_markets,
        "rates": ",".join(map(str, rates)),
        "seconds": size.watched_s,
        "warm": size.watched_warm_s,
        "moves": size.watched_moves,
    }
    return [text for name, value in told.items() for text in (f"--{name}", str(value))]


def _rows(taken: Taken, rate: int, eyes: str) -> list[Row]:
    found = []
    for kind, words in KINDS.items():
        samples = {look: [took for moment in taken[look] for took in moment[kind]] for look in LOOKS}
        assert all(samples.values()), f"{words}: nothing was answered"
        for look, times in samples.items():
            found.append(
                Row(
                    name=f"{words}, {rate:,}/s: {look}",
                    value=percentile(times, 0.5) / 1e3,
                    unit="us",
                    best=min(times) / 1e3,
                    worst=percentile(times, 0.99) / 1e3,
                    note=f"worst is p99; {len(times)} samples" + (f"; {eyes}" if look == WATCHED else ""),
                )
            )
        for one, other in ((WATCHED, ALONE), (ELSEWHERE, ALONE), (WATCHED, ELSEWHERE)):
            for share, name, goal in ((0.5, "p50", None), (0.99, "p99", GOAL if one == WATCHED else None)):
                # Round by round: a machine that stands still for a moment spoils that round, and no other.
                rounds = zip(taken[one], taken[other], strict=True)
                ratios = [percentile(a[kind], share) / percentile(b[kind], share) for a, b in rounds if a[kind] and b[kind]]
                found.append(row(f"{words}, {rate:,}/s: {name} {one} over {other}", ratios, "x", goal=goal))
    return found


@contextlib.contextmanager
def _another(home: Path) -> Iterator[None]:
    """Another daemon, on paper in a simulated market."""
    home.mkdir(parents=True)
    command = [sys.executable, "-m", "llm_maker", "run", "--config", str(ROOT / "config.yaml"), "--home", str(home)]
    with (home / "said.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=home, env=legs.environment(), stdout=said, stderr=said)
        try:
            yield
            assert process.poll() is None, f"the other daemon ended with exit {process.returncode}: see {said.name}"
        finally:
            process.terminate()
            process.wait()


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
def _top(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *_SCREEN, 0, 0))
    command = [sys.executable, "-m", "llm_maker", "top", "--home", str(home)]
    environment = {**legs.environment(), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    try:
        yield process
        assert process.poll() is None, f"top ended with exit {process.returncode}"
    finally:
        process.kill()
        process.wait()


def _awake(top: subprocess.Popen[bytes], looks: bool) -> None:
    """One that does not look stands still where it is."""
    top.send_signal(signal.SIGCONT if looks else signal.SIGSTOP)


def _drain(terminal: int) -> None:
    """Somebody has to look, or the terminal is full; ends with the program on its other side."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass
    os.close(terminal)


@contextlib.contextmanager
def _browser() -> Iterator[tuple[str, Open]]:
    """What shows the page, in words, and how to turn it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reader = _Reader()
        try:
            yield "by a reader of its stream (no Chromium is here)", reader.show
        finally:
            reader.show(None)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()

        def show(link: dict[str, Any] | None) -> None:
            opened.goto("about:blank")
            if link is not None:
                opened.goto(link["url"])
                opened.wait_for_selector("html[data-state=live]", state="attached", timeout=_PATIENCE_S * 1e3)

        try:
            yield "in headless Chromium", show
        finally:
            browser.close()


class _Reader:
    """Reads a page's stream as fast as it comes."""

    def __init__(self) -> None:
        self._answer: Any = None

    def show(self, link: dict[str, Any] | None) -> None:
        if self._answer is not None:
            # Another thread waits in its read: only a shut socket ends that.
            self._answer.fp.raw._sock.shutdown(2)
            self._answer = None
        if link is not None:
            address, key = link["url"].split("/#key=")
            request = urllib.request.Request(f"{address}/api/stream?since=0", headers={"Authorization": f"Bearer {key}"})
            self._answer = urllib.request.urlopen(request, timeout=_PATIENCE_S)
            threading.Thread(target=_read_on, args=(self._answer,), daemon=True).start()


def _read_on(answer: Any) -> None:
    with contextlib.suppress(OSError, ValueError), answer:
        for _ in answer:
            pass
