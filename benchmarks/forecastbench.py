"""Turns a folder of ForecastBench rounds into a file for `llm-maker report --forecasts`, the market price as the forecaster.

    python -m benchmarks.forecastbench FOLDER --out FILE.jsonl [--by-source]

FOLDER (or the environment's FORECASTBENCH) holds question sets `DATE-llm.json` and `DATE_resolution_set.json`, plain or .zst. A
question is used if it comes from a market or a crowd (it has no list of resolution dates): p and market_p are its price when the
set was frozen, ts that moment. Its outcome is taken only where the set says `resolved`: for an open question `resolved_to` is a
later price, no outcome; one that the set leaves out was annulled or has no data. Both are written as pending.
ForecastBench: Forecasting Research Institute, CC BY-SA 4.0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard


def load(path: Path) -> Any:
    """JSON, plain or zstd-compressed."""
    raw = path.read_bytes()
    return json.loads(zstandard.ZstdDecompressor().stream_reader(raw).read() if path.suffix == ".zst" else raw)


def convert(folder: Path, by_source: bool = False) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(what became of it, row) for every question of every round; dataset questions, which no market prices, have no row."""
    for questions in sorted(folder.glob("*-llm.json*")):
        date = questions.name.partition("-llm.json")[0]
        (resolutions,) = folder.glob(f"{date}_resolution_set.json*")
        told = {(str(r["source"]), str(r["id"])): r for r in load(resolutions)["resolutions"] if isinstance(r["id"], str)}
        for question in load(questions)["questions"]:
            if question["resolution_dates"] != "N/A":
                yield "dataset question: no market", None
                continue
            source, name = str(question["source"]), str(question["id"])
            end = told.get((source, name))
            done = end is not None and end["resolved"]
            price = float(question["freeze_datetime_value"])
            yield (
                "resolved" if done else "pending: absent from the resolutions" if end is None else "pending: still open",
                {
                    "question_id": f"{source}:{name}",
                    "model": f"{source} price" if by_source else "market price",
                    "p": price,
                    "market_p": price,
                    "outcome": end["resolved_to"] if done and end is not None else None,
                    "ts": question["freeze_datetime"],
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="ForecastBench rounds as a file of forecasts")
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("FORECASTBENCH"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--by-source", action="store_true", help="one forecaster for each market")
    args = parser.parse_args()
    if args.folder is None or not list(args.folder.glob("*-llm.json*")):
        parser.error("name the folder that holds DATE-llm.json and DATE_resolution_set.json (.zst or not)")
    counts: Counter[str] = Counter()
    with args.out.open("w", encoding="utf-8") as out:
        for what, row in convert(args.folder, args.by_source):
            counts[what] += 1
            if row is not None:
                out.write(json.dumps(row) + "\n")
    for what, n in sorted(counts.items()):
        sys.stdout.write(f"{n:5} {what}\n")
    sys.stdout.write(f"score it: llm-maker report --forecasts {args.out}\n")


if __name__ == "__main__":
    main()
