"""`make prove`: every bar of what this must show, at full size; finished bars are kept, so a broken-off proof goes on.

Results stand in prove/results.json and prove/results.md: bar, command, seeds, figure, goal, met. A finished bar counts for the code
it was measured on; with other code, or with `--again`, it is measured anew. A bar that cannot be measured here says so: not met.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import bars, quoting_bars
from benchmarks.bars import Bar, Result
from benchmarks.rows import ROOT

FOLDER = Path(os.environ.get("LLM_MAKER_PROVE_DIR", ROOT / "prove"))
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error|errors|deselected|xfailed)")


class Finished(msgspec.Struct, frozen=True):
    """What is kept of a bar: its results and the code they are of."""

    code: str
    seconds: float
    results: list[Result]


def code() -> str:
    """What a proof is of: every line that is run, and the shipped config."""
    digest = hashlib.sha256()
    files = [path for folder in ("llm_maker", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in [*files, ROOT / "config.yaml", ROOT / "constraints.txt"]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def pytest_bar(name: str, goal: str, seeds: str, *args: str) -> Bar:
    """A bar that tests prove: all of those selected pass, and at least one is."""

    def measure(folder: Path) -> list[Result]:
        command = ["-m", "pytest", "-q", "-rs", "--timeout", "0", "-p", "no:cacheprovider", *args]
        began = time.perf_counter()
        done = _show(command, folder / "output.txt")
        text = (folder / "output.txt").read_text(encoding="utf-8")
        last = next((line for line in reversed(text.splitlines()) if _COUNTS.search(line)), f"exit code {done}")
        counts = {word: int(number) for number, word in _COUNTS.findall(last)}
        skipped = counts.get("skipped", 0)
        figure = ", ".join(f"{n} {word}" for word, n in counts.items() if word != "deselected") or last
        met = done == 0 and counts.get("passed", 0) > 0
        if not met:
            figure += ": " + "; ".join(line for line in text.splitlines() if line.startswith(("FAILED", "ERROR")))[:600]
        note = f" ({skipped} could not run here)" if skipped else ""
        wall = time.perf_counter() - began
        return [Result(name, " ".join(["python", *command]), seeds, f"{figure}{note}, {wall:.0f} s", goal, met)]

    return Bar(name, measure)


def _show(command: Sequence[str], output: Path) -> int:
    """Run a child of ours, its words both shown and kept."""
    with output.open("w", encoding="utf-8") as kept:
        env = {**os.environ, "LLM_MAKER_PROVE_DIR": str(FOLDER)}
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write("  " + line)
            kept.write(line)
        return process.wait()


SUITE_SECONDS = 300.0


def suite(folder: Path) -> list[Result]:
    """`make test`'s own selection, timed."""
    began = time.perf_counter()
    (result,) = pytest_bar("make test", "green", "", "-n", "2", "-m", "not prove").measure(folder)
    wall = time.perf_counter() - began
    limit = f"under {SUITE_SECONDS:.0f} s on two cores"
    return [result, Result("make test: time", "the same", "", f"{wall:.0f} s", limit, wall < SUITE_SECONDS)]


BARS: list[Bar] = [
    Bar("run", bars.fresh_run),
    Bar("backtest", bars.backtests),
    Bar("replay", bars.replays),
    pytest_bar("fallback", "three failures, stops alive, one good answer back", "", "tests", "-k", "fallback"),
    pytest_bar("kill -9", "50 kills: positions are the fills, no order doubled", "2", "-m", "prove", "tests/runtime"),
    pytest_bar("weather", "2,000 seeds: every invariant holds", "16..2015", "-m", "prove", "tests/sim/test_weather.py"),
    pytest_bar(
        "every provider",
        "each through its SDK, each failure to its reaction; memory",
        "",
        "-m",
        "prove",
        "tests/llm",
        "tests/test_imports.py",
    ),
    pytest_bar(
        "a week of failures",
        "the bill to the cent, FALLBACK as designed",
        "in the test",
        "-m",
        "prove",
        "tests/sim/test_slow_week.py",
    ),
    pytest_bar(
        "slow loop, whole",
        "daemons with every mode; learning; cassettes",
        "",
        "-m",
        "prove",
        "tests/test_slow_loop.py",
        "tests/test_learn.py",
        "tests/test_backtest_llm.py",
    ),
    pytest_bar(
        "skill",
        "weights: none where there is no skill, some where there is",
        "500000.. 200001..",
        "-m",
        "prove",
        "tests/sim/test_skill.py",
    ),
    pytest_bar(
        "published simulation",
        "arms (a) and (b) in the published order, in every regime",
        "200001..200004",
        "-m",
        "prove",
        "tests/test_arms.py",
    ),
    Bar("arms", quoting_bars.arms),
    Bar("twin at known skill", quoting_bars.twin),
    Bar("real tape", quoting_bars.tape),
    Bar("sweeps", quoting_bars.sweeps),
    pytest_bar(
        "fills",
        "a random quoter loses in every band; bands monotone; latency costs; conserved",
        "in the tests",
        "-m",
        "prove",
        "tests/paper",
    ),
    pytest_bar("twin", "equal to main without a model; never in main's way", "in the tests", "-m", "prove", "tests/test_twins.py"),
    pytest_bar("page", "every plot drawn, nothing requested, at every width", "", "-m", "prove", "tests/report/test_html_page.py"),
    pytest_bar("scores", "intervals cover what they say", "in the tests", "-m", "prove", "tests/report"),
    pytest_bar(
        "signatures",
        "1,000 random orders byte for byte as the SDK's; every size at every tick",
        "in the tests",
        "-m",
        "prove",
        "tests/polymarket/test_sign.py",
        "tests/polymarket/test_drafts.py",
    ),
    pytest_bar(
        "venue storms",
        "three hours with every misbehaviour: money to the unit, nothing doubled, nothing left resting",
        "21 22 23",
        "-m",
        "prove",
        "tests/rehearsal",
        "-k",
        "storm or together",
    ),
    pytest_bar(
        "venue kill -9", "100 kills: no doubled order, no lost fill", "32", "-m", "prove", "tests/rehearsal", "-k", "hundred"
    ),
    pytest_bar(
        "venue silence",
        "a daemon that stands still, halts or is killed; every kind of wallet; paper on live data",
        "31 41 42 51..53",
        "tests/rehearsal",
        "-k",
        "not hour and not hundred",
    ),
    pytest_bar(
        "soak",
        "8 h of market with page, top, recorder, twin: RSS grows under 10 MB, no task lost, files within their caps, a clean stop",
        "81",
        "-s",
        "-m",
        "prove",
        "tests/rehearsal/test_soak.py",
    ),
    pytest_bar(
        "seat", "page, top, alarms, chat, HTTP fuzz: all of them at full size", "in the tests", "-m", "prove", "tests/console"
    ),
    pytest_bar(
        "deployment",
        "unit, container's steps, backup and restore, wizard, doctor, reload, why",
        "in the tests",
        "-m",
        "prove",
        "tests/test_deploy.py",
        "tests/test_security.py",
        "tests/test_wizard.py",
        "tests/test_doctor.py",
        "tests/test_reload.py",
        "tests/test_inquiry.py",
    ),
    pytest_bar("bad input", "one line, exit 2, nothing lost", "", "tests/test_cli.py", "tests/test_config.py", "-m", "not prove"),
    Bar("make test", suite),
    Bar("bench", bars.bench),
]


class Proof:
    """The state file and the table made from it."""

    def __init__(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        self._path = FOLDER / "results.json"
        kept = self._path.read_bytes() if self._path.exists() else b"{}"
        self.finished = msgspec.json.decode(kept, type=dict[str, Finished])

    def keep(self, name: str, finished: Finished) -> None:
        self.finished[name] = finished
        ordered = {bar.name: self.finished[bar.name] for bar in BARS if bar.name in self.finished}
        draft = self._path.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
        draft.replace(self._path)
        (FOLDER / "results.md").write_text("\n".join(self.lines()) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """The table, in markdown."""
        now = code()
        lines = ["| bar | command | seeds | figure | goal | met |", "|---|---|---|---|---|---|"]
        for bar in BARS:
            found = self.finished.get(bar.name)
            if found is None:
                lines.append(f"| {bar.name} | | | not measured yet | | |")
                continue
            stale = "" if found.code == now else f", of other code ({found.code})"
            for r in found.results:
                cells = (r.bar, f"`{r.command}`", r.seeds, r.figure + stale, r.goal, {True: "yes", False: "NO", None: ""}[r.met])
                lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
        return lines


def prove(names: list[str], *, again: bool) -> bool:
    """Measure what is not yet proved of this code; True if every bar is met."""
    proof, now = Proof(), code()
    wanted = [bar for bar in BARS if not names or bar.name in names]
    for number, bar in enumerate(wanted, 1):
        found = proof.finished.get(bar.name)
        if found is not None and found.code == now and not again:
            print(f"[{number}/{len(wanted)}] {bar.name}: finished", file=sys.stderr)
            continue
        print(f"[{number}/{len(wanted)}] {bar.name} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="llm_maker-prove-") as folder:
            results = _measured(bar, Path(folder))
        proof.keep(bar.name, Finished(now, round(time.perf_counter() - began, 1), results))
    print("\n".join(proof.lines()))
    return all(bar.name in proof.finished and _met(proof.finished[bar.name]) for bar in wanted)


def _measured(bar: Bar, folder: Path) -> list[Result]:
    """A bar's results; one that breaks is a bar not met, and the others go on."""
    try:
        return bar.measure(folder)
    except (AssertionError, OSError, subprocess.SubprocessError, ValueError, KeyError) as fault:
        return [Result(bar.name, "", "", f"broke: {' '.join(str(fault).split())[:400]}", "", False)]


def _met(finished: Finished) -> bool:
    return all(r.met is not False for r in finished.results)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.prove", description="Every bar at full size; finished ones are kept.")
    names = [bar.name for bar in BARS]
    parser.add_argument("names", nargs="*", metavar="BAR", help=", ".join(names))
    parser.add_argument("--again", action="store_true", help="measure finished bars anew")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in names]
    if unknown:
        parser.error(f"no such bar: {', '.join(unknown)}; there are {', '.join(names)}")
    sys.exit(0 if prove(args.names, again=args.again) else 1)


if __name__ == "__main__":
    main()
