"""Everything simulated in a run, as configured: a simulated market or a recorded tape, the paper exchange, the told analyst.

It chooses and parametrizes; it starts nothing, and knows no journal and no account.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, PPM
from llm_maker.port import Simulator
from llm_maker.runtime.tape import TapeFeed, TapeReader
from llm_maker.runtime.universe import SelectedFeed
from llm_maker.tuning import exact
from llm_maker.universe import Universe
from llm_maker.venues.paper.latency import Scatter, Unmeasured, measured
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.paper.records import ExchangeParams
from llm_maker.venues.paper.regimes import REGIMES
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.venues.polymarket.listing.tape_header import instruments_from_header

_TYPICAL_SLOPE = 0.2
"""p(1 - p) of a typical simulated market: turns an error in price into one in log-odds."""
_RMS_ERROR = {"benign": 0.0145, "mixed": 0.0169, "toxic": 0.0215, "neglected": 0.074}
"""Root mean square error of the mid in USD, `quoting.md` 9.1."""


class Refused(Exception):
    """This home or this input cannot be run as asked; one line, exit code 2."""


class World(msgspec.Struct):
    """Where a run's prices come from: the simulated or recorded feed, who sees it, and the truth where there is one."""

    feed: Simulator | None
    """None: a live venue's ports bring them."""
    tape: TapeFeed | None
    market: SimulatedMarket | None
    universe: Universe
    start_ns: int
    label: dict[str, Any]
    """What the world was made from; a home goes on only in the same one."""


def exchange_params(config: Config) -> ExchangeParams:
    """The paper exchange as configured; raises Refused for a latency log from which nothing can be drawn."""
    p = config.paper
    return ExchangeParams(
        seed=config.seed,
        start_cash=exact(p.cash_usd, CASH_PER_USD),
        entry_ns=p.entry_ms * NS_PER_MS,
        cancel_ns=p.cancel_ms * NS_PER_MS,
        confirm_median_ns=exact(p.confirm_median_s, NS_PER_S),
        settle_fail_ppm=round(p.settle_fail_pct / 100 * PPM),
        improve_share=p.improve_share,
        volume_cap_ratio=p.volume_cap_pct / 100,
        queue_model=p.queue_model,
        queue_power=p.queue_power,
        band=p.band,
        scatter=_scatter(config),
    )


def _scatter(config: Config) -> Scatter:
    p = config.paper
    if p.latency == "constant":
        if p.latency_log:
            raise Refused("paper.latency_log is set, but paper.latency is constant; sampled draws from the log")
        return Scatter()
    if not p.latency_log:
        return Scatter(sigma=p.latency_sigma, tail_ppm=round(p.latency_tail_pct / 100 * PPM))
    try:
        with Path(p.latency_log).expanduser().open("rb") as lines:
            return measured(lines)
    except (OSError, Unmeasured) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise Refused(f"paper.latency_log: {p.latency_log}: {said}") from None


def open_tape(path: Path, *, checked: bool = False) -> tuple[TapeReader, list[Any], Wire]:
    """A recorded tape with its instruments and the parser of its venue; read to its end first, unless that was done."""
    reader = TapeReader(path)
    if not checked:
        reader.check()
    venue = reader.header["venue"]
    if venue != "polymarket":
        raise Refused(f"{path}: line 1: venue is {venue!r}; this version reads tapes of polymarket")
    instruments = instruments_from_header(reader.header)
    return reader, instruments, Wire(instruments)


def make_world(config: Config, tape: Path | None) -> World:
    """The simulated market, or a recorded tape."""
    universe = Universe(config.market_selection)
    if tape is not None:
        reader, instruments, wire = open_tape(tape)
        feed = TapeFeed(reader, instruments, wire)
        start = feed.next_ns()
        if start is None:
            raise Refused(f"{tape}: no frame after the header")
        return World(SelectedFeed(feed, universe), feed, None, universe, start, {"tape": tape.name})
    p = config.paper
    params = MarketParams(
        seed=config.seed,
        markets=p.markets,
        regime=p.regime,
        activity=p.activity,
        days_to_end=p.days_to_end,
        rewards=p.rewards,
    )
    market = SimulatedMarket(params)
    label = {"market": msgspec.to_builtins(params)}
    return World(SelectedFeed(market, universe), None, market, universe, params.start_ns, label)


def simulated_analyst(config: Config, market: SimulatedMarket) -> Simulator:
    """An analyst that is told the market's truth, as blurred as the regime's own mid and as skilled as configured."""
    from llm_maker.llm.simulated import SimulatedAnalyst

    assert config.paper.regime in REGIMES
    return SimulatedAnalyst(
        market.truth,
        seed=config.seed,
        error_variance=(_RMS_ERROR[config.paper.regime] / _TYPICAL_SLOPE) ** 2,
        r2=config.llm.simulated_skill_r2,
    )


def same_world(meta: dict[str, Any], label: dict[str, Any], home: Path) -> None:
    """A home goes on only in the world it was in. What an older build did not yet write counts as it was then: the default."""
    if _plain(meta.get("world")) != _plain(label["world"]) or _exchange(meta.get("exchange")) != _exchange(label["exchange"]):
        raise Refused(
            f"{home}: this home holds a run of another simulated world (seed, markets or paper settings differ); "
            f"give the same ones, or another --home"
        )


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _exchange(value: Any) -> ExchangeParams | None:
    return None if value is None else msgspec.convert(_plain(value), ExchangeParams)
