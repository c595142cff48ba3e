"""On the wire, over loopback: what a moved price costs until the answer stands at the venue, ours against a typical bot's; orders a
second through our port; and the floor of signing.

Each leg is a process of its own against the same seeded frames (`loopback_venue`), one after the other and turn about, so that
a busy machine disturbs both alike. Ours is the whole daemon: journal, ledger, logs, risk, checks and heartbeat. Only its pace is
set so high that no limit is measured, and it follows every tick at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import legs
from benchmarks.rows import Row, Size, percentile, row

_WORDS = {
    "order": "tick to order, where nothing rests",
    "cancel": "tick to cancel, where the price moved",
    "replace": "tick to the new order behind that cancel",
}
_GOAL = 0.5
_STRETCH = "stretch 0.25x"


def wire(size: Size, folder: Path) -> list[Row]:
    """Tick-to-order of both legs at each rate of messages; without the typical bot's library, ours alone, and it says so."""
    legs_there = {"ours": legs.daemon} | ({} if legs.missing_bot() else {"typical bot": legs.typical_bot})
    rounds: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in legs_there}
    for number in range(size.live_rounds):
        for name, leg in legs_there.items():
            with legs.venue(*_venue_args(size, seed=number + 1)) as venue:
                with leg(venue.port, size.live_markets, folder / f"{name}-{number}"):
                    assert venue.next().get("ready"), "the venue waits for two quotes in every market first"
                    rounds[name].append([venue.next() for _ in size.live_rates])
                venue.end()
    return [
        each
        for place, rate in enumerate(size.live_rates)
        for each in _of_rate(rate, {n: [r[place] for r in rounds[n]] for n in rounds})
    ]


def _venue_args(size: Size, seed: int) -> list[str]:
    told = {
        "seed": seed,
        "markets": size.live_markets,
        "rates": ",".join(map(str, size.live_rates)),
        "seconds": size.live_s,
        "warm": size.live_warm_s,
        "moves": size.live_moves,
    }
    return [text for name, value in told.items() for text in (f"--{name}", str(value))]


def _of_rate(rate: int, told: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows = []
    for kind, words in _WORDS.items():
        taken = {name: [each[kind] for each in rounds] for name, rounds in told.items()}
        for name, rounds in taken.items():
            rows.append(_spread(f"{words}, {rate:,}/s: {name}", rounds, _missed(told[name], rate) or legs.missing_bot()))
        if len(taken) == 2:
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                ours, theirs = ([percentile(samples, share) for samples in taken[leg]] for leg in ("ours", "typical bot"))
                ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
                note = _STRETCH if share == 0.5 else ""
                rows.append(row(f"{words}, {rate:,}/s: {name} over the typical bot's", ratios, "x", goal=_GOAL, note=note))
    return rows


def _spread(name: str, rounds: list[list[int]], note: str) -> Row:
    """The median of all rounds, with p99 as the worst."""
    assert all(rounds), f"{name}: in one of the rounds no move was answered; {note}"
    samples = [took for each in rounds for took in each]
    return Row(
        name=name,
        value=percentile(samples, 0.5) / 1e3,
        unit="us",
        best=min(samples) / 1e3,
        worst=percentile(samples, 0.99) / 1e3,
        note=f"worst is p99; {len(samples)} samples{note and '; '}{note}",
    )


def _missed(rounds: list[dict[str, Any]], rate: int) -> str:
    """What was not answered, or answers nothing; and whether the venue itself kept its pace."""
    counts = {name: sum(each["counts"].get(name, 0) for each in rounds) for name in ("missed", "missed cancels", "other orders")}
    told = [f"{number} {name}" for name, number in counts.items() if number]
    slow = min(each["achieved"] for each in rounds)
    return ", ".join(told + ([f"the venue sent only {slow:.0f} messages/s"] if slow < 0.95 * rate else []))


def sign(size: Size, folder: Path) -> list[Row]:
    """A command becomes a signed order, against the least that can be: one signature of coincurve's and two keccaks."""
    from benchmarks import entry

    ours, floor, theirs = entry.signing(size.signatures, size.repeats)
    ratios = [a / b for a, b in zip(ours, floor, strict=True)]
    rows = [
        row("draft and sign an order", ours, "us", note="amounts, salt, digest and signature, from the core's command"),
        row("one coincurve signature and two keccaks", floor, "us"),
        row("draft and sign over that", ratios, "x", goal=1.5),
    ]
    if theirs:
        rows.append(row("the same order by py-clob-client-v2", theirs, "us", note="create_order, all it asks for known"))
    return rows


def burst(size: Size, folder: Path) -> list[Row]:
    """Orders a second through our port: drafted, signed, posted in batches, acknowledged; without core and journal."""
    from benchmarks import entry

    with legs.venue("--markets", str(size.live_markets)) as venue:
        took = entry.burst(venue.port, size.live_markets, size.burst_orders, size.repeats)
        said = venue.end()
    requests = sum(said["requests"].get(f"POST {path}", 0) for path in ("/order", "/orders"))
    note = f"{size.burst_orders} at once, {said['orders'] / requests:.1f} in a request, to the last acknowledgement"
    return [
        row("orders through our port", [size.burst_orders / each for each in took], "orders/s", goal=1_000, more=True, note=note)
    ]


_MEMORY_GOALS = {20: 80.0, 500: 120.0, 1_000: 180.0}


def live_memory(size: Size, folder: Path) -> list[Row]:
    """Peak resident memory of the live daemon once it has followed so many markets for a while; Linux alone tells it."""
    rows = []
    for markets in size.live_memory_markets:
        args = ["--markets", str(markets), "--rates", "1000", "--seconds", f"{size.live_s:g}", "--warm", "0", "--moves", "0"]
        with legs.venue(*args) as venue, legs.daemon(venue.port, markets, folder / str(markets), orderly=False) as process:
            assert venue.next().get("ready"), "the venue waits until every token is followed"
            told = venue.next()
            peak = _peak_mb(process.pid)
            if peak:
                note = f"all followed, {told['resting']} orders resting, {size.live_s:g} s of {told['achieved']:,.0f} messages/s"
                name = f"peak memory live, {markets:,} markets"
                rows.append(Row(name=name, value=peak, unit="MB", goal=_MEMORY_GOALS.get(markets), note=note))
    return rows


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
