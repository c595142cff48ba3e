"""The bars that are no tests: a fresh run, backtests of the recorded tape, replays, goals of the benchmarks; in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from benchmarks.rows import ROOT, SHARED
from llm_maker.runtime.tape import TapeReader

KEYS = [
    "mode",
    "venue",
    "simulated",
    "seed",
    "frames",
    "decisions",
    "signals",
    "orders_placed",
    "orders_canceled",
    "fills",
    "pnl_usd",
    "pnl_exit_usd",
    "llm_cost_usd",
    "halts",
    "refusals",
    "first_quote_seconds",
    "speed_achieved",
]
TAPE = "polymarket_nhl_20260607_0130.jsonl.zst"
FRAMES = 97_742
_PATIENCE_S = 1_200.0


class Result(msgspec.Struct, frozen=True):
    """One line of the table. `met` None: it could not be measured here, and the figure says why."""

    bar: str
    command: str
    seeds: str
    figure: str
    goal: str
    met: bool | None


class Bar(msgspec.Struct, frozen=True):
    """A bar by name; it is measured in a folder of its own."""

    name: str
    measure: Callable[[Path], list[Result]]


def _environment(hash_seed: str = "0") -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LLM_MAKER__") and not k.endswith("_API_KEY")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}


def _verb(*args: str, hash_seed: str = "0", before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "llm_maker", *args]
    return subprocess.run(
        command, cwd=ROOT, env=_environment(hash_seed), capture_output=True, text=True, check=False, timeout=_PATIENCE_S
    )


def _last_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-400:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _without_network() -> tuple[str, ...]:
    """What cuts the network off a child, where the system lets us; nothing elsewhere."""
    cut = ("unshare", "-rn")
    with contextlib.suppress(OSError):
        if subprocess.run([*cut, "true"], check=False, capture_output=True).returncode == 0:
            return cut
    return ()


def fresh_run(folder: Path) -> list[Result]:
    """Thirty seconds at sixty times the speed, in an empty home, without a network."""
    cut = _without_network()
    done = _verb("run", "--home", str(folder), "--duration", "30", "--speed", "60", "--json", before=cut)
    r = _last_json(done)
    missing = [key for key in KEYS if key not in r]
    logs = {name: _log(folder / "logs" / name) for name in ("llm_decisions.jsonl", "executions.jsonl")}
    filled = [line for line in logs["executions.jsonl"] if line.get("event") == "fill"]
    acted = [s["action"] for line in logs["llm_decisions.jsonl"] for s in line.get("signals", [])]
    met = not missing and min(r["fills"], r["signals"], r["decisions"], len(filled), len(acted)) > 0 and r["clean_stop"]
    figure = (
        f"exit 0, {r['fills']} fills, {r['signals']} signals, {r['decisions']} decisions, {r['orders_placed']} orders, "
        f"P&L {r['pnl_usd']:+.2f} USD (at the touch {r['pnl_exit_usd']:+.2f}), first quote {r['first_quote_seconds']} s, "
        f"speed {r['speed_achieved']:g}, network {'cut' if cut else 'NOT cut: unshare is not allowed here'}"
    )
    if missing:
        figure += f"; missing keys: {', '.join(missing)}"
    goal = "exit 0, all keys, fills, signals and decisions above 0, logs filled, stop proved"
    command = "python -m llm_maker run --duration 30 --speed 60 --json"
    return [Result("fresh run", command, str(r["seed"]), figure, goal, bool(met))]


def _log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _tape() -> Path | None:
    path = SHARED / "tapes" / TAPE
    return path if path.exists() else None


def backtests(folder: Path) -> list[Result]:
    """The recorded tape twice, in other folders, under other hash seeds."""
    tape, command = _tape(), f"python -m llm_maker backtest --tape {TAPE} --json"
    if tape is None:
        return [Result("backtest", command, "", f"not measured: no {TAPE}", "see there", None)]
    first, second = (
        _last_json(_verb("backtest", "--tape", str(tape), "--home", str(folder / seed), "--json", hash_seed=seed)) for seed in "12"
    )
    bands = first["bands"]
    low, real, high = (bands[name]["qty"] for name in ("pessimistic", "realistic", "optimistic"))
    tops = told_tops(tape)
    wrong = [token for token, top in tops.items() if not _same(first["tops"].get(token, {}), top)]
    same = first["journal_sha256"] == second["journal_sha256"]
    ratios = [r["times_decode_only"] for r in (first, second)]
    seed = str(first["seed"])
    counted = f"{first['frames']} frames, {first['malformed']} malformed, {first['gaps']} gaps"
    whole = (first["frames"], first["malformed"], first["gaps"]) == (FRAMES, 0, 0)
    filled = f"{low / 1e6:g} <= {real / 1e6:g} <= {high / 1e6:g} shares; {first['fills']} fills"
    speed = f"{min(ratios)}x and {max(ratios)}x ({first['frames_per_second']:,} frames/s)"
    return [
        Result("backtest: frames", command, seed, counted, f"{FRAMES}, 0, 0", whole),
        Result("backtest: last tops", command, seed, f"{len(tops)} tokens, {len(wrong)} differ", "all as the venue's", not wrong),
        Result("backtest: bands", command, seed, filled, "pessimistic <= realistic <= optimistic", low <= real <= high),
        Result(
            "backtest: journal", command, seed, f"sha256 {first['journal_sha256'][:16]}, twice", "two hash seeds, one sha256", same
        ),
        Result("backtest: over bare decode", command, seed, speed, "at most 10x", min(ratios) <= 10.0),
    ]


def told_tops(tape: Path) -> dict[str, tuple[str | None, str | None]]:
    """Token -> the last best prices that the venue itself told, read from the raw frames and by nothing of ours."""
    told: dict[str, tuple[str | None, str | None]] = {}
    for line in TapeReader(tape):
        message = msgspec.json.decode(line.frame)
        for entry in message if isinstance(message, list) else [message]:
            for change in entry.get("price_changes", [entry]):
                if "best_bid" in change:
                    told[change["asset_id"]] = change["best_bid"], change["best_ask"]
    return told


def _same(ours: dict[str, float | None], told: tuple[str | None, str | None]) -> bool:
    return all(_price(have) == _price(want) for have, want in zip((ours.get("best_bid"), ours.get("best_ask")), told, strict=True))


def _price(value: float | str | None) -> Decimal | None:
    """None: an empty side, which the venue tells as 0 or 1."""
    price = None if value is None else Decimal(str(value))
    return price if price is not None and 0 < price < 1 else None


def replays(folder: Path) -> list[Result]:
    """Journals of a backtest and of a run that was killed: proved; torn at the end: cut; altered elsewhere: refused."""
    results = []
    tape = _tape()
    if tape is None:
        results.append(Result("replay: backtest", "", "", f"not measured: no {TAPE}", "proved", None))
    else:
        _last_json(_verb("backtest", "--tape", str(tape), "--home", str(folder / "tape"), "--json"))
        results.append(_proved("replay: backtest", folder / "tape" / "logs" / "backtest"))
    journals = killed(folder / "killed")
    results.append(_proved("replay: killed and restarted", journals))
    plain = _plain(journals, folder / "plain")
    return [*results, _torn(plain, folder / "torn"), _altered(plain, folder / "altered")]


def _proved(name: str, journals: Path) -> Result:
    proof = _last_json(_verb("replay", str(journals), "--json"))
    figure = f"{proof['entries']} events in {len(proof['files'])} files, every command as recorded"
    return Result(name, "python -m llm_maker replay JOURNAL --json", "", figure, "every command the same", bool(proof["proved"]))


def killed(home: Path) -> Path:
    """A run killed with -9 in the middle, started again and ended in order; its journals."""
    first = _start(home, "600")
    log = home / "logs" / "executions.jsonl"
    _wait(lambda: log.exists() and log.read_bytes().count(b"\n") > 100, "orders before the kill")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = _start(home, "3")
    out = second.communicate(timeout=_PATIENCE_S)[0]
    assert second.returncode == 0 and json.loads(out.splitlines()[-1])["resumed"], "the restart did not go on"
    return next((home / "logs" / "journal").iterdir())


def _start(home: Path, duration: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llm_maker", "run", "--home", str(home), "--duration", duration, "--speed", "60", "--json"]
    return subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _wait(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


def _plain(journals: Path, folder: Path) -> Path:
    """The oldest journal of a folder, unpacked into another one."""
    first = min(journals.glob("journal-*"))
    folder.mkdir()
    plain = folder / first.name.removesuffix(".zst")
    raw = first.read_bytes()
    plain.write_bytes(zstandard.ZstdDecompressor().decompress(raw) if first.suffix == ".zst" else raw)
    return plain


def _torn(journal: Path, folder: Path) -> Result:
    folder.mkdir()
    torn = folder / journal.name
    torn.write_bytes(journal.read_bytes()[:-7])
    done = _verb("replay", str(torn), "--json")
    found = _last_json(done)["files"][0]["torn"]
    command = "python -m llm_maker replay TORN --json"
    return Result("replay: torn last line", command, "", str(found or "not reported"), "cut and reported", bool(found))


def _altered(journal: Path, folder: Path) -> Result:
    """One digit changed in the middle; every line of the refusal must be one, and name the place."""
    folder.mkdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    at = len(lines) // 2
    digit = next(i for i, byte in enumerate(lines[at]) if chr(byte).isdigit() and lines[at][i : i + 1] != b"9")
    lines[at] = lines[at][:digit] + b"9" + lines[at][digit + 1 :]
    altered = folder / journal.name
    altered.write_bytes(b"".join(lines))
    done = _verb("replay", str(altered))
    said = done.stderr.strip()
    met = done.returncode == 2 and f"line {at + 1}" in said and len(said.splitlines()) == 1
    figure = f"exit {done.returncode}: {said.replace(str(folder), '...')[:200]}"
    return Result("replay: one byte altered", "python -m llm_maker replay ALTERED", "", figure, f"exit 2, names line {at + 1}", met)


def bench(folder: Path) -> list[Result]:
    """Every goal of the benchmarks, with its figure; rows without a goal are not bars."""
    file = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", str(file)], cwd=ROOT, env=_environment(), check=False, stdout=sys.stderr
    )
    assert done.returncode == 0, f"the benchmarks ended with exit {done.returncode}"
    rows = json.loads(file.read_bytes())["rows"]
    return [_goal(r) for r in rows if r["goal"] is not None]


def _goal(r: dict[str, Any]) -> Result:
    goal = f"{'at least' if r['more_is_better'] else 'at most'} {r['goal']:g} {r['unit']}"
    figure = f"{r['value']:.4g} {r['unit']} ({r['note']})" if r["note"] else f"{r['value']:.4g} {r['unit']}"
    return Result(f"bench: {r['name']}", "python -m benchmarks", "", figure, goal, r["met"])
