"""The real tape in full: `touch`, `inventory` and everything on, in each of the three bands, and whether every cent is told.

`python -m benchmarks.tape TAPE`: prints a table of all runs (`--whole`: each report); exit code 1 if an identity does not close.
Paper money on recorded data; the fills are simulated. Thirteen minutes are no evidence of anything but that the books close.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from llm_maker.config import load
from llm_maker.report import account_text
from llm_maker.report.account import Account, account
from llm_maker.trial import run_tape
from llm_maker.venues.paper.matching import BANDS

TERMS = ("toxicity", "flow", "parity", "decay", "table", "reward", "rebate", "unwind", "taper", "kelly")
RUNS: dict[str, dict[str, object]] = {
    "touch": {"strategy.quoting": "touch"},
    "inventory": {f"strategy.terms.{name}": False for name in TERMS},
    "everything on": {f"strategy.terms.{name}": True for name in TERMS},
    "as shipped": {},
}


def runs(tape: Path) -> dict[str, Account]:
    """Every quoting in every band, by `NAME, BAND`."""
    found = {}
    for name, keys in RUNS.items():
        for band in BANDS:
            print(f"{name}, {band} ...", end="\r", file=sys.stderr)
            config = load(None, {}, {**keys, "paper.band": band, "llm.provider": "none"})
            found[f"{name}, {band}"] = account(run_tape(config, tape))
    return found


def term_costs(tape: Path) -> list[str]:
    """What each term costs in time: a whole run with it on, over one with none; the lower of two."""

    def seconds(keys: dict[str, object]) -> float:
        config, best = load(None, {}, {**keys, "llm.provider": "none"}), 1e9
        for _ in range(2):
            began = time.perf_counter()
            run_tape(config, tape)
            best = min(best, time.perf_counter() - began)
        return best

    none = seconds(RUNS["inventory"])
    lines = [f"inventory, no extra term: {none:.2f} s"]
    for name in TERMS:
        lines.append(f"with {name}: {seconds({**RUNS['inventory'], f'strategy.terms.{name}': True}) / none:.2f}x")
    return [*lines, f"everything on: {seconds(RUNS['everything on']) / none:.2f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.tape", description="The real tape in full, in three bands.")
    parser.add_argument("tape", type=Path)
    parser.add_argument("--whole", action="store_true", help="print every report, not the table alone")
    parser.add_argument("--cost", action="store_true", help="what each term costs in time, too")
    args = parser.parse_args()
    found = runs(args.tape)
    if args.whole:
        for name, one in found.items():
            print("\n".join([f"== {name}", *account_text.lines(one)]))
    print("\n".join(account_text.beside(found)))
    open_ones = [name for name, one in found.items() if not one.split.closes]
    rounding = max(abs(one.split.rounding) for one in found.values())
    print(f"{len(found) - len(open_ones)} of {len(found)} identities close; the largest rounding is {rounding:.6f} USD")
    if args.cost:
        print("\n".join(term_costs(args.tape)))
    if open_ones:
        sys.exit("these do not: " + "; ".join(open_ones))


if __name__ == "__main__":
    main()
