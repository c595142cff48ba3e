"""The bars of quoting and report: the arms at full size, the twin at known skill, the real tape in three bands, sweeps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bars import TAPE, Result
from benchmarks.rows import ROOT, SHARED

RUNS = 250
"""Of each arm in each regime: 2,000 market-days."""
KEPT = Path(os.environ.get("LLM_MAKER_PROVE_DIR", ROOT / "prove"))
_TAPE = SHARED / "tapes" / TAPE


def arms(folder: Path) -> list[Result]:
    """Every arm against the base; goes on where it was broken off, so long as the code is the same."""
    from benchmarks.skill import code

    out = KEPT / f"arms-{code()}"
    command = ["-m", "benchmarks.arms", "--out", str(out), "--runs", str(RUNS)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    found = json.loads((out / "arms.json").read_text(encoding="utf-8"))
    results = []
    for row in found:
        if row["arm"] == "inventory":
            continue
        low, high = row["gap"] - row["gap_half"], row["gap"] + row["gap_half"]
        figure = f"edge {row['gap']:+.2f} [{low:+.2f}, {high:+.2f}] USD per market-day over {row['days']}, simulated"
        # `touch` is what `inventory` has to beat; of a term it is only told what it is worth.
        goal, met = ("below the base: inventory is better", high < 0.0) if row["arm"] == "touch" else ("told", None)
        name = f"{row['arm']} in {row['regime']}, cap {row['cap']:g} %"
        results.append(Result(name, " ".join(["python", *command]), f"200001..{200_000 + RUNS}", figure, goal, met))
    return results


def twin(folder: Path) -> list[Result]:
    """The simulated analyst at R2 = 0 and 0.2 against no opinion, its weight learned on the training seeds and frozen."""
    from benchmarks.skill import code

    out = KEPT / f"twin-{code()}"
    regimes = ["benign", "mixed", "toxic", "neglected"]
    command = ["-m", "benchmarks.skill", "--out", str(out), "--skills", "0", "0.2", "--regimes", *regimes]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    found = json.loads((out / "skill.json").read_text(encoding="utf-8"))
    return [
        Result(
            f"R2 = {row['r2']} in {row['regime']}, {row['name']} weight {row['weight']:.3f}",
            " ".join(["python", *command]),
            "500000.. 200001..",
            f"edge {row['edge']:+.2f} +-{row['edge_half']:.2f} USD per market-day over {row['days']}, simulated, before model cost",
            "told",
            None,
        )
        for row in found["arms"]
    ]


def tape(folder: Path) -> list[Result]:
    """Touch, inventory and everything on in three bands of the real tape: every identity closes."""
    if not _TAPE.exists():
        return [Result("real tape", "", "", "no recorded tape here", "every identity closes", None)]
    command = ["-m", "benchmarks.tape", str(_TAPE), "--cost"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    told = next((line for line in done.stdout.splitlines() if "identities close" in line), done.stderr.strip()[-300:])
    costs = "; ".join(line for line in done.stdout.splitlines() if re.match(r"(with |everything on:|inventory, no)", line))
    shown = "python -m benchmarks.tape TAPE --cost"
    return [
        Result("real tape", shown, "", told, "every identity closes", done.returncode == 0),
        Result("cost of each term", shown, "", costs, "told", None),
    ]


def sweeps(folder: Path) -> list[Result]:
    """Two processes against one, on the real tape."""
    if not _TAPE.exists():
        return [Result("sweep --jobs 2", "", "", "no recorded tape here", "1.7x", None)]
    spent = {}
    for jobs in (1, 2):
        home = folder / str(jobs)
        command = ["sweep", "--grid", "strategy.skew_max_ticks=1,2,3,3.5,4,5", "--grid", "strategy.edge_floor_ticks=1,1.5"]
        command += ["--tapes", str(_TAPE), "--jobs", str(jobs), "--home", str(home), "--out", str(home / "sweep.csv"), "--json"]
        home.mkdir(parents=True)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "llm_maker", *command], cwd=folder, check=True, capture_output=True)
        spent[jobs] = time.perf_counter() - began
    ratio = spent[1] / spent[2]
    figure = f"{spent[1]:.1f} s with one, {spent[2]:.1f} s with two: {ratio:.2f}x"
    return [Result("sweep --jobs 2", "llm-maker sweep, 12 cells of the real tape", "", figure, "1.7x or more", ratio >= 1.7)]
