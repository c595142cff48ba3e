"""Eight hours of the market with everything on: page, `top`, recorder, twin and a model; nothing grows, and it ends well.

`LLM_MAKER_SOAK_HOURS` and `LLM_MAKER_SOAK_SPEED` (market seconds in one of the wall) change its size; the bar is 8 hours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_maker import lab
from llm_maker.runtime.tape import TapeReader
from tests.rehearsal.paper import agree, paper
from tests.rehearsal.stage import ROOT, Rehearsal

HOURS = float(os.environ.get("LLM_MAKER_SOAK_HOURS", "8"))
SPEED = float(os.environ.get("LLM_MAKER_SOAK_SPEED", "24"))
WARM_UP = 0.2
"""The part of the run after which memory may no longer grow: caches, curves and rings are full then."""
GROWTH_MB = 10.0
MEGABYTE = 1_000_000
CAPS = {"journal_max_mb": 4.0, "journal_total_mb": 24.0, "decisions_max_mb": 1.0}
TASKS = 1
"""How many more tasks than after the warm-up may be there at the quietest looks; a request that is being answered has one for
a moment. One that is lost ends the daemon (`app._supervise`), and is seen by that.
"""


class Model:
    """The fake model server, in a process of its own."""

    def __enter__(self) -> Model:
        command = [sys.executable, "-m", "tests.fakes.models", "--port", "0"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        # What it says later is read away: a full pipe would stop it.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def top(home: Path) -> Iterator[list[str]]:
    """`top` in a terminal of tmux; what its screen showed at the end is put into the list."""
    shown: list[str] = []
    if shutil.which("tmux") is None:
        yield shown
        return
    tmux = ["tmux", "-L", f"soak{os.getpid()}"]
    command = f"{sys.executable} -m llm_maker top --home {home}"
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", command], check=True, cwd=ROOT)
    try:
        yield shown
        done = subprocess.run([*tmux, "capture-pane", "-p"], check=False, capture_output=True, text=True)
        shown.append(done.stdout)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)


@contextlib.contextmanager
def page(link: str) -> Iterator[Any]:
    """The page in headless Chromium, open all the time; None where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.soak_errors = []
        opened.on("pageerror", lambda error: opened.soak_errors.append(str(error)))
        opened.goto(link)
        try:
            yield opened
        finally:
            browser.close()


@contextlib.contextmanager
def recorder(rehearsal: Rehearsal, tape: Path) -> Iterator[subprocess.Popen[str]]:
    """`record` of the same venue, beside the daemon."""
    command = [sys.executable, "-m", "llm_maker", "record", "--out", str(tape), "--speed", str(rehearsal.speed), "--json"]
    process = subprocess.Popen(
        command, cwd=rehearsal.home, env=rehearsal._env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()


class Scrape:
    """Asks for /metrics and the board now and then, as a Prometheus and a script of the owner would."""

    def __init__(self, address: str, key: str) -> None:
        self.address, self.key, self.failed = address, key, 0

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    def board(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/api/board?since=0"))
        return found


def resident_mb(process: subprocess.Popen[str]) -> float:
    told = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in told.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def caps_are_kept(home: Path) -> dict[str, float]:
    """Megabytes by kind of file; none above what the config allows it, with one file more that was just begun."""
    sizes: dict[str, float] = {}
    for path in (home / "logs").rglob("*"):
        if path.is_file():
            kind = "journal" if "journal" in path.parts else path.name.split(".")[0]
            place = f"{path.parent.name}/{kind}"
            sizes[place] = sizes.get(place, 0.0) + path.stat().st_size / MEGABYTE
    journals = sum(size for place, size in sizes.items() if place.endswith("/journal"))
    assert journals <= CAPS["journal_total_mb"] + 3 * CAPS["journal_max_mb"], sizes
    for place, size in sizes.items():
        if re.search(r"llm_decisions|executions|llm_raw", place):
            assert size <= 2 * CAPS["decisions_max_mb"] + 0.5, (place, sizes)
    return sizes


@pytest.mark.prove
@pytest.mark.timeout(0)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_eight_hours_with_everything_on(tmp_path, monkeypatch):
    monkeypatch.delenv("LLM_MAKER__CONSOLE__HTTP", raising=False)
    tape = tmp_path / "soak.jsonl.zst"
    with (
        Model() as model,
        paper(
            tmp_path / "home",
            81,
            SPEED,
            markets=8,
            logging=CAPS,
            console={"http_port": 0},
            llm={
                "provider": "openai_compatible",
                "base_url": model.url,
                "model": "some",
                "timeout_seconds": 20,
                "daily_budget_usd": 1_000,
                "price_per_million_input_usd": 0.1,
                "price_per_million_output_usd": 0.4,
                "max_requests_per_minute": 600,
            },
            strategy={"refresh_seconds": 600},
        ) as rehearsal,
    ):
        rehearsal.start()
        rehearsal.until(lambda s: s["counts"]["fills"] >= 1 and s["page"], 1_200)
        link = rehearsal.verb("page", "--json")
        assert link.returncode == 0, link.stderr
        told = json.loads(link.stdout)
        scrape = Scrape(rehearsal.status()["page"], (rehearsal.home / "positions" / "http_key").read_text().strip())
        with recorder(rehearsal, tape) as recording, top(rehearsal.home) as shown, page(told["url"]) as opened:
            samples = _watch(rehearsal, scrape, recording, opened)
            board = scrape.board()
            if opened is not None:
                assert opened.soak_errors == []
        if shown:
            assert "PAPER" in shown[0] and max(map(len, shown[0].splitlines())) <= 80, shown[0]
        result = rehearsal.stop(120.0)
        assert (result["exit_code"], result["clean_stop"], result["resting"]) == (0, True, [])
        sizes = caps_are_kept(rehearsal.home)
        assert not (rehearsal.home / "logs" / "fault.txt").exists()
        said = [json.loads(line) for line in (rehearsal.home / "logs" / "daemon.jsonl").read_text().splitlines()]
        assert [line for line in said if line["level"] == "error"] == []
        assert lab.replay(rehearsal.journal)["proved"] is True
        agree(rehearsal)
    frames = sum(1 for _ in TapeReader(tape))
    settled = samples[int(len(samples) * WARM_UP) :]
    parts = (settled[: len(settled) // 8], settled[-(len(settled) // 8) :])
    early, late = [sum(s[1] for s in part) / len(part) for part in parts]
    quietest = [min(s[2] for s in part) for part in parts]
    print(
        f"\nsoak: seed 81, {result['market_seconds'] / 3_600:.2f} h of market at {SPEED:g}x, {board['counts']['placed']} orders, "
        f"{board['counts']['fills']} fills, {board['counts']['decisions']} decisions, {frames} frames on tape; "
        f"RSS {early:.1f} MB after the warm-up, {late:.1f} MB at the end, most {max(s[1] for s in samples):.1f}; "
        f"tasks at the quietest looks {quietest[0]} and {quietest[1]}, most {max(s[2] for s in settled)}; "
        f"page {'open' if opened is not None else 'not at hand'}, "
        f"top {'open' if shown else 'not at hand'}; files { ({k: round(v, 2) for k, v in sizes.items()}) }"
    )
    assert late - early < GROWTH_MB
    assert abs(quietest[1] - quietest[0]) <= TASKS, "no task is left behind, and none is lost"
    assert result["market_seconds"] >= HOURS * 3_600 and frames > 0
    assert board["counts"]["decisions"] > 0 and board["counts"]["fills"] > 0 and board["twin"] is not None


def _watch(rehearsal: Rehearsal, scrape: Scrape, recording: subprocess.Popen[str], opened: Any) -> list[tuple[float, float, int]]:
    """(hours, RSS in MB, tasks) every few seconds until the hours are over; everything must be alive at each look."""
    samples: list[tuple[float, float, int]] = []
    assert rehearsal.process is not None
    began, said = scrape.board()["now_ns"], 0.0
    while True:
        if opened is not None:
            opened.wait_for_timeout(3_000)
        else:
            time.sleep(3)
        assert rehearsal.alive(), rehearsal.errors()[-3_000:]
        assert recording.poll() is None, recording.communicate()
        board = scrape.board()
        assert "llm_maker" in scrape.get("/metrics")
        hours = (board["now_ns"] - began) / 3.6e12
        samples.append((hours, resident_mb(rehearsal.process), board["health"]["tasks"]))
        if hours - said >= HOURS / 16:
            said = hours
            sys.stderr.write(f"soak: {hours:.2f} h, RSS {samples[-1][1]:.1f} MB, {samples[-1][2]} tasks\n")
        if hours >= HOURS:
            return samples
