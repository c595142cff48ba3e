"""Asks the package index for known holes in what constraints.txt names: `make audit`, and the end of `make check`.

Exit 0: none is known, or no index could be asked, which is said. Exit 1: at least one, each with the version that mends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 120
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"


def asked(command: list[str]) -> tuple[dict[str, Any] | None, str]:
    """What pip-audit found; None and the reason where it could not ask."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {SECONDS} s"
    except OSError as error:
        return None, str(error)
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return None, said[-1].strip()[:200] if said else f"pip-audit ended with {done.returncode}"
    return (found, "") if isinstance(found, dict) and found.get("dependencies") else (None, "pip-audit named no package")


def report(found: dict[str, Any]) -> list[str]:
    """A line for each hole."""
    return [
        f"{package['name']} {package['version']}: {hole['id']}; mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for package in found["dependencies"]
        for hole in package.get("vulns", [])
    ]


def main(command: list[str]) -> int:
    """Run it; one line for people, or one for each hole."""
    found, why = asked(command)
    if found is None:
        sys.stdout.write(f"audit skipped: no index ({why})\n")
        return 0
    holes, unknown = report(found), [p["name"] for p in found["dependencies"] if p.get("skip_reason")]
    if len(unknown) == len(found["dependencies"]):
        sys.stdout.write("audit skipped: no index (the one that answers knows none of the packages)\n")
        return 0
    for line in holes:
        sys.stdout.write(f"audit: {line}\n")
    if unknown:
        sys.stdout.write(f"audit: not looked up: {', '.join(unknown)}\n")
    sys.stdout.write(f"audit: {len(found['dependencies']) - len(unknown)} packages, {len(holes)} known holes\n")
    return 1 if holes else 0


if __name__ == "__main__":
    quiet = ["--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    which = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    sys.exit(main(sys.argv[1:] or [sys.executable, "-m", "pip_audit", *quiet, *which]))
