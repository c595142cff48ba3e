"""What a fresh process costs: importing, the first quote, memory with many markets. Each figure from processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rows import ROOT, Row, Size, row

_IMPORT = "import time; t = time.perf_counter(); import llm_maker.app; print(time.perf_counter() - t)"
_PEAK = """
import contextlib, resource, sys
from llm_maker.cli import main
with contextlib.suppress(SystemExit):
    main()
try:
    # Of this program alone: what getrusage tells may still be the parent's size at the fork.
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(peak)
"""
_PATIENCE_S = 600.0


def _environment(**keys: int) -> dict[str, str]:
    """Ours without any key of a person's, and with compiled modules kept as usual: the shipped config and what is named here."""
    foreign = ("LLM_MAKER__", "PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and not k.endswith("_API_KEY")}
    return {**kept, "PYTHONPATH": str(ROOT), **{f"LLM_MAKER__{k}": str(v) for k, v in keys.items()}}


def _python(*args: str, **keys: int) -> list[str]:
    """The lines that a fresh interpreter prints."""
    command = [sys.executable, *args]
    done = subprocess.run(
        command, env=_environment(**keys), cwd=ROOT, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
    )
    assert done.returncode == 0, f"{' '.join(args[:6])}: {done.stderr[-2_000:]}"
    return done.stdout.strip().splitlines()


def imports(size: Size, folder: Path) -> list[Row]:
    """Importing the wiring in a fresh interpreter; the first one, which may have to compile, is left out."""
    _python("-c", _IMPORT)
    return [row("import llm_maker.app", [float(_python("-c", _IMPORT)[0]) * 1e3 for _ in range(size.repeats)], "ms", goal=400.0)]


def first_quote(size: Size, folder: Path) -> list[Row]:
    """A fresh `run` on an empty home: by its own word, and from the start of the process to the order in the log."""
    told, seen = zip(*(_one_quote(folder / f"quote-{n}") for n in range(size.repeats)), strict=True)
    return [
        row("first quote, as the run tells it", told, "s", goal=1.0, note="simulated market, empty home"),
        row(
            "first quote, from the start of the process",
            seen,
            "s",
            goal=1.0,
            note="until the order stands in logs/executions.jsonl",
        ),
    ]


def _one_quote(home: Path) -> tuple[float, float]:
    shutil.rmtree(home, ignore_errors=True)
    log = home / "logs" / "executions.jsonl"
    command = [sys.executable, "-m", "llm_maker", "run", "--config", str(ROOT / "config.yaml"), "--home", str(home)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--duration", "1.5", "--json"],
        env=_environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seen = 0.0
    while not seen and process.poll() is None:
        time.sleep(0.002)
        if log.exists() and log.stat().st_size:
            seen = time.perf_counter() - began
    result: dict[str, Any] = json.loads(process.communicate(timeout=_PATIENCE_S)[0].splitlines()[-1])
    assert seen and result["first_quote_seconds"] is not None, "the run quoted nothing"
    return float(result["first_quote_seconds"]), seen


_MEMORY_GOALS = {20: 80.0, 500: 120.0, 1_000: 180.0}


def memory(size: Size, folder: Path) -> list[Row]:
    """Peak resident memory of a whole `run`, every simulated market chosen, after a stated market time."""
    rows = []
    for markets in size.markets:
        home = folder / f"memory-{markets}"
        until = ["--until", f"{size.memory_s:g}", "--speed", "0", "--json"]
        command = ["-c", _PEAK, "run", "--config", str(ROOT / "config.yaml"), "--home", str(home), *until]
        lines = _python(*command, PAPER__MARKETS=markets, MARKET_SELECTION__MAX_MARKETS=markets)
        result = json.loads(lines[-2])
        note = f"after {result['market_seconds']:.0f} s of market time, {result['frames']} messages"
        peak = int(lines[-1]) / 1024
        rows.append(
            Row(name=f"peak memory, {markets:,} markets", value=peak, unit="MB", goal=_MEMORY_GOALS.get(markets), note=note)
        )
    return rows
