"""Whole seeded days in hostile weather: a slice here, 2,000 seeds in `make prove`, which goes on where it was broken off."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

import llm_maker
from tests.sim.climate import KINDS
from tests.sim.weather import Weather

SLICE = range(16)
FULL = range(16, 2_016)
BLOCK = 100
REPLAY_EVERY = 5
"""A crash replays its journal anyway; every so many seeds the whole run is replayed from its first event."""
RECORD = Path(os.environ.get("LLM_MAKER_PROVE_DIR", "prove")) / "weather.jsonl"


def sail(seeds):
    """Run these seeds; what happened, summed. A failure says its seed, and that seed alone brings it back."""
    happened, counts, crossed, longest = Counter(), Counter(), Counter(), 0
    for seed in seeds:
        weather = Weather(seed)
        try:
            report = weather.run()
            if seed % REPLAY_EVERY == 0:
                weather.replay()
        except Exception as error:
            at = (weather.now - weather.start) / 1e9
            raise AssertionError(f"seed {seed}, {at:.3f}s after its start: {error}") from error
        happened += report.happened
        crossed += report.crossed
        longest = max(longest, report.longest_ns)
        counts += Counter({k: n for k, n in report.counts.items() if not k.endswith("_ns")})
        counts += Counter(
            {
                "runs": 1, "events": report.events, "crashes": report.sessions - 1, "merges sent": report.merges,
                f"ended: {report.ending}": 1, f"stop {'clean' if report.stop.clean else 'unclean'}": 1,
                "quoting at the end": report.quotes_at_end > 0,
            }
        )  # fmt: skip
    table = {"happened": dict(happened), "counts": dict(counts), "crossed": dict(crossed), "longest_unexplained_s": longest / 1e9}
    print(f"seeds {seeds.start}..{seeds.stop - 1}: {json.dumps(table)}")
    return happened, counts, crossed


def complete(happened, counts, crossed):
    """Weather that never came proves nothing."""
    missing = [kind for kind in (*KINDS, "stood_still") if not happened[kind]]
    missing += [
        kind for kind in ("fills", "merges", "crashes", "fallbacks", "gaps", "halts", "quoting at the end") if not counts[kind]
    ]
    missing += [kind for kind in ("stop", "operator") if not crossed[kind]]
    return missing


def test_a_slice_of_days_in_every_kind_of_weather():
    missing = complete(*sail(SLICE))
    assert not missing, f"seeds {SLICE} never saw {missing}"


def test_the_same_seed_is_the_same_day():
    first, second = Weather(3), Weather(3)
    first.run()
    second.run()
    assert first.log == second.log


def sources():
    """What a proof is of: the code under test and the weather itself."""
    digest = hashlib.sha256()
    for folder in (Path(llm_maker.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def wanted():
    """`LLM_MAKER_SIM_SEEDS=500-600` runs other seeds, one by one in a block of that range."""
    asked = os.environ.get("LLM_MAKER_SIM_SEEDS")
    low, _, high = asked.partition("-") if asked else (FULL.start, "", FULL.stop)
    seeds = range(int(low), int(high or int(low) + 1))
    return [range(at, min(at + BLOCK, seeds.stop)) for at in range(seeds.start, seeds.stop, BLOCK)]


@pytest.mark.prove
@pytest.mark.parametrize("seeds", wanted(), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_seed_of_the_proof(seeds):
    key = {"sources": sources(), "first": seeds.start, "last": seeds.stop - 1}
    lines = RECORD.read_text(encoding="utf-8").splitlines() if RECORD.exists() else []
    if any(key.items() <= json.loads(line).items() for line in lines):
        pytest.skip(f"seeds {seeds.start}-{seeds.stop - 1} are proved for these sources in {RECORD}")
    happened, counts, crossed = sail(seeds)
    if len(seeds) == BLOCK:
        missing = complete(happened, counts, crossed)
        assert not missing, f"seeds {seeds} never saw {missing}"
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    with RECORD.open("a", encoding="utf-8") as file:
        file.write(json.dumps(key | {"happened": happened, "counts": counts, "crossed": crossed}) + "\n")
