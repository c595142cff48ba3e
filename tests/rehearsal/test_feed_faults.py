"""The feed's faults one by one, and a venue that is not there: told, counted, quotes pulled meanwhile, healed after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.polymarket.faults import KINDS
from tests.rehearsal.door import Door
from tests.rehearsal.paper import Status, calm, ended, nothing_rests_on_doubt, paper, pulled, quoted
from tests.rehearsal.stage import Rehearsal

SETTINGS = {
    **calm(),
    "polymarket": {"ping_seconds": 3, "frozen_seconds": 8, "book_check_seconds": 5, "backoff_max_seconds": 5},
}
LAG_S = 4.0

FAULTS: tuple[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]], ...] = (
    # kind, how it comes, which counters tell of it (one is enough), why quotes went (one is enough; empty: they may stay)
    ("market_close", {"times": 1}, ("reconnects",), ("venue",)),
    ("market_freeze", {}, ("frozen", "rest_mismatch"), ("gap", "venue", "silence")),
    ("market_half_open", {}, ("half_open", "frozen", "rest_mismatch"), ("gap", "venue", "silence")),
    # The book check finds it, or the watch over the connection does, which then is made anew.
    ("market_freeze_token", {"times": 1}, ("frozen", "rest_mismatch"), ("gap", "venue")),
    ("market_delay", {"value": 1.5 * LAG_S}, ("lagging",), ("lag",)),
    ("market_drop", {"share": 0.5}, ("gaps", "rest_mismatch"), ("gap",)),
    ("market_reorder", {"share": 0.5}, ("gaps",), ("gap",)),
    ("market_duplicate", {}, ("skipped",), ()),
    ("market_crossed", {"times": 1}, ("gaps",), ("gap: crossed",)),
    ("market_wrong_best", {"times": 1}, ("gaps",), ("gap: best_missing",)),
)


def counted(status: Status) -> dict[str, int]:
    """Everything that `status` counts of the feed and its books, and whether it lags."""
    venue = status["venues"]["polymarket"]
    feed = {name: number for name, number in status["feed"].items() if isinstance(number, int)}
    return {**feed, **{name: int(venue[name]) for name in ("gaps", "pruned", "skipped", "lagging")}}


def strike(rehearsal: Rehearsal, kind: str, how: dict[str, Any], counters: tuple[str, ...]) -> tuple[int, int]:
    """One kind of fault comes, is counted, and goes; quotes come back. When it began and ended, market time."""
    sound = rehearsal.until(quoted)
    before = counted(sound)
    faults, call = rehearsal.faults, rehearsal.background.call
    # One token alone is mirrored by the other: nothing would be missing.
    for only in rehearsal.venue.markets[0].tokens if kind == "market_freeze_token" else ("",):
        seen = faults.seen[kind]
        call(faults.on, kind, **{"share": 1.0, "only": only, **how})
        rehearsal.until(lambda _, seen=seen: faults.seen[kind] > seen)
    rehearsal.until(lambda s: any(counted(s).get(name, 0) > before.get(name, 0) for name in counters), 240)
    call(faults.off, kind)
    healed = rehearsal.until(quoted, 240)
    assert healed["venues"]["polymarket"]["up"] and healed["feed"]["trouble"] == ""
    return sound["now_ns"], healed["now_ns"]


@pytest.mark.prove  # on a busy machine another pull may come first, and there is then nothing left to pull
def test_each_fault_of_the_feed_is_told_counted_and_healed(tmp_path):
    settings = {**SETTINGS, "risk": {**SETTINGS["risk"], "max_feed_lag_ms": int(1000 * LAG_S)}}
    with paper(tmp_path, 9, 10.0, **settings) as rehearsal:
        rehearsal.start()
        rehearsal.until(quoted)
        struck = [(kind, why, *strike(rehearsal, kind, how, counters)) for kind, how, counters, why in FAULTS]
        ended(rehearsal)
        entries = rehearsal.entries()
        nothing_rests_on_doubt(rehearsal)
    assert {kind for kind, *_ in struck} == {kind for kind in KINDS if kind.startswith("market_")} - {"market_closed"}
    for kind, expected, began, done in struck:
        reasons = pulled(entries, began, done)
        assert not expected or any(reason.startswith(expected) for reason in reasons), f"{kind}: {reasons}"


# A venue that is not there.


class Behind(Rehearsal):
    """The daemon reaches the venue by a door."""

    door: Door

    def _config(self) -> dict[str, Any]:
        self.inner_port = int(self.venue.base.rpartition(":")[2])
        self.venue.base = f"http://127.0.0.1:{self.door.port}"
        return super()._config()


@contextmanager
def behind_a_door(home: Path, seed: int, speed: float, **settings: Any) -> Iterator[tuple[Behind, Door]]:
    rehearsal = Behind(home, seed, speed, mode="paper", **settings)
    with Door(lambda: rehearsal.inner_port) as door:
        rehearsal.door = door
        with rehearsal:
            yield rehearsal, door


def tries(door: Door, path: str, speed: float, least_s: float) -> int:
    """How often a path was asked for while the door was slammed; each wait at least `least_s` venue seconds, and no shrinking."""
    knocks = [at for at, asked in door.knocks if asked.startswith(path)]
    waits = [(later - earlier) * speed for earlier, later in pairwise(knocks)]
    assert all(wait >= least_s for wait in waits) and all(later > earlier / 2 for earlier, later in pairwise(waits)), waits
    return len(knocks)


@pytest.mark.prove
def test_without_a_network_it_says_so_waits_and_recovers_by_itself(tmp_path):
    with behind_a_door(tmp_path, 10, 8.0, **calm()) as (rehearsal, door):
        rehearsal.start()
        host = f"127.0.0.1:{door.port}"
        status = rehearsal.until(lambda s: s["discovery"]["trouble"] and s["feed"].get("connect_failed") and not s["markets"], 40)
        told = rehearsal.errors().splitlines()
        listings = [line for line in told if "Gamma" in line and host in line]
        sockets = [line for line in told if f"WARNING market data: {host} cannot be reached" in line]
        assert len(listings) == 1 and "Connect call failed" in listings[0], rehearsal.errors()
        assert len(sockets) == 1 and "refused" in sockets[0].lower(), rehearsal.errors()
        assert (status["counts"]["placed"], status["orders"], status["feed"]["connected"]) == (0, 0, 0)
        assert host in status["discovery"]["trouble"] and not status["venues"]["polymarket"]["up"]
        text = rehearsal.verb("status").stdout
        assert "DOWN" in text and "no markets yet" in text and host in text
        result = ended(rehearsal)
        assert result["orders_placed"] == 0

        rehearsal.start()
        rehearsal.until(lambda s: s["feed"].get("connect_failed", 0) >= 2, 60)
        door.slam()
        rehearsal.wait(30)
        assert 2 <= tries(door, "/gamma", 8.0, 1.0) <= 6
        assert 2 <= tries(door, "/ws/market", 8.0, 0.5) <= 7
        door.open()
        rehearsal.until(lambda s: quoted(s) and not s["discovery"]["trouble"], 240)
        assert "reached again" in rehearsal.errors() and "can be read again" in rehearsal.errors()
        ended(rehearsal)


def test_a_venue_that_goes_away_and_comes_back_is_taken_up_again(tmp_path):
    with behind_a_door(tmp_path, 11, 20.0, **calm(), polymarket={"discovery_minutes": 1}) as (rehearsal, door):
        door.open()
        rehearsal.start()
        began = rehearsal.until(quoted)["now_ns"]
        door.shut()
        status = rehearsal.until(lambda s: not s["venues"]["polymarket"]["up"] and s["discovery"]["trouble"], 240)
        assert status["orders"] == 0 and {line["mode"] for line in status["markets"]} == {"halted"}
        assert len(status["markets"]) == 3, "a look that failed changes nothing"
        door.open()
        back = rehearsal.until(lambda s: quoted(s) and not s["discovery"]["trouble"], 240)
        assert back["feed"]["reconnects"] >= 1
        ended(rehearsal)
        nothing_rests_on_doubt(rehearsal)
        assert "venue" in pulled(rehearsal.entries(), began, back["now_ns"])
