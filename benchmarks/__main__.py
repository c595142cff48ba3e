"""`python -m benchmarks`: run the benchmarks and print one table; `--json FILE` keeps the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import hot, live, process, watched
from benchmarks.rows import FULL, TINY, Row, Size, as_plain, table

Benchmark = Callable[[Size, Path], list[Row]]
BENCHMARKS: dict[str, Benchmark] = {
    "backtest": hot.backtest,
    "messages": hot.messages,
    "engine": hot.engine,
    "growth": hot.growth,
    "imports": process.imports,
    "first_quote": process.first_quote,
    "memory": process.memory,
}
LIVE: dict[str, Benchmark] = {
    "sign": live.sign,
    "burst": live.burst,
    "wire": live.wire,
    "live_memory": live.live_memory,
    "watched": watched.watched,
}
"""At a venue on loopback."""
ALL = BENCHMARKS | LIVE


def measure(size: Size, names: list[str]) -> list[Row]:
    """Every benchmark in a folder of its own that is gone afterwards."""
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="llm_maker-bench-") as folder:
            rows += ALL[name](size, Path(folder))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Speed and memory beside the goals of the design.")
    parser.add_argument("names", nargs="*", choices=[*ALL, []], metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes: does it run, not how fast")
    args = parser.parse_args()
    rows = measure(TINY if args.tiny else FULL, args.names or list(ALL))
    missed = [r.name for r in rows if r.met is False]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else f"{os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {load}; ratios are of one run")
    print("\n".join(table(rows)))
    print(f"goals missed: {', '.join(missed)}" if missed else "every goal met")
    if args.json:
        args.json.write_text(
            json.dumps({"python": platform.python_version(), "rows": as_plain(rows)}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
