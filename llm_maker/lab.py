"""The lab's verbs: a backtest of a tape, the proof of a journal. Wires pieces like `app`, runs no daemon."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import __version__
from llm_maker.app import STRATEGIES
from llm_maker.config import Config
from llm_maker.core.engine import Engine, checkpoint, new_state
from llm_maker.core.events import Started
from llm_maker.core.state import State
from llm_maker.llm.build import NotAvailable
from llm_maker.llm.cassette import CassetteError
from llm_maker.llm.playback import Playback, Wanted
from llm_maker.llm.playback import lines as playback_lines
from llm_maker.port import Simulator
from llm_maker.report import summary
from llm_maker.runtime import replay as proof
from llm_maker.runtime.clock import LiveClock
from llm_maker.runtime.journal import Checkpoint
from llm_maker.runtime.journal import files as journal_files
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.loop import Account, Session
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import Scope
from llm_maker.runtime.signals_file import SignalsFile
from llm_maker.runtime.tape import TapeFeed, TapeReader
from llm_maker.runtime.timeline import Ticker, Timeline
from llm_maker.trial import params_of, selected
from llm_maker.tuning import maker_params
from llm_maker.universe import Universe
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.polymarket.data.wire import Wire
from llm_maker.world import Refused, exchange_params, open_tape

Progress = Callable[[int, int], None] | None
_FLUSH_BYTES = 1 << 20


def backtest(
    config: Config, tape: Path, home: Path, signals: str, progress: Progress = None, play: Wanted | None = None
) -> dict[str, Any]:
    """A tape through strategy and paper exchange in virtual time; journal, logs and a ledger in HOME/logs/backtest, made anew.

    `signals`: `none`, or a file of decisions; or `play`: the configured models, from a cassette.
    """
    assert play is None or signals == "none", "either decisions or models"
    decode_only = decode_speed(tape)
    began = time.perf_counter()
    opened = open_tape(tape, checked=True)
    analyst = SignalsFile(Path(signals)) if signals != "none" else None
    with _models(config, opened[0].header, play) as models:
        result = _play(config, tape, opened, home, analyst, models, progress)
        wall = time.perf_counter() - began
        first_day = iso(result.pop("first_ns"))[:10]
        return result | {
            "signals_from": signals if models is None else f"{'models asked, and ' if play and play.ask else ''}cassette",
            "llm": None if models is None else models.result(first_day),
            "frames_per_second": round(result["frames"] / wall),
            "decode_only_frames_per_second": round(decode_only),
            "times_decode_only": round(decode_only * wall / result["frames"], 2),
        }


@contextlib.contextmanager
def _models(config: Config, header: dict[str, Any], play: Wanted | None) -> Iterator[Playback | None]:
    """The models of a backtest, made before anything of an earlier one is touched and closed whatever happens."""
    if play is None:
        yield None
        return
    rules = {one["condition_id"]: str(one.get("rules") or "") for one in header["instruments"]}
    try:
        models = Playback(config, play, lambda market: rules.get(market, ""), today=lambda: iso(LiveClock().now()))
    except NotAvailable as error:
        raise Refused(str(error)) from None
    try:
        yield models
    except CassetteError as error:
        raise OSError(str(error)) from None
    finally:
        models.close()


def _play(
    config: Config,
    tape: Path,
    opened: tuple[TapeReader, list[Any], Wire],
    home: Path,
    decisions: SignalsFile | None,
    models: Playback | None,
    progress: Progress,
) -> dict[str, Any]:
    """The run itself; its result with the tape's first moment."""
    # Only a tape that reads to its end may take the place of an earlier backtest.
    folder = home / "logs" / "backtest"
    if folder.exists():
        shutil.rmtree(folder)
    reader, instruments, wire = opened
    feed = TapeFeed(reader, instruments, wire)
    start = feed.next_ns()
    if start is None:
        raise Refused(f"{tape}: no frame after the header")
    shown = selected(feed, Universe(config.market_selection), instruments, start)
    exchange = Exchange(exchange_params(config))
    analyst = decisions if models is None else models.analyst
    simulators: list[Simulator] = [exchange] if analyst is None else [exchange, analyst]
    timeline = Timeline([("", shown), *((config.account, s) for s in simulators), ("", Ticker(start))])
    strategy = STRATEGIES[config.strategy.name]
    params = params_of(config, advised=analyst is not None)
    state = new_state(config.account, params, strategy, maker_params(config), exchange.params.start_cash)
    engine = Engine(state, strategy)
    label = {"tape": tape.name, "exchange": msgspec.to_builtins(exchange.params), "build": __version__}
    # Nobody outside hears a backtest: the journal may wait in memory, and stays one plain chain of files.
    limits = JournalLimits(compress=False, flush_at=_FLUSH_BYTES, max_file=1 << 40)
    writer = JournalWriter.create(
        folder, config.account, lambda: Checkpoint(checkpoint(state), timeline.checkpoint(), label), limits=limits
    )
    scope = Scope("polymarket", "paper", f"backtest:{tape.name}", config.account)
    facts = (lambda request_id: {}) if models is None else models.facts_of
    memory = Memory()
    recorder = Recorder(state, scope, memory, folder, simulated=True, facts=facts)
    account = Account(engine, writer, recorder, simulators, durable=False)
    session = Session([account], timeline)
    before = summary.mark(state)
    session.deliver(start, account.name, Started(1, False))
    session.run_virtual(progress=(lambda done: progress(feed.frames, 0)) if progress else None)
    if progress:
        progress(1, 1)
    writer.close()
    recorder.save_state(state.now)
    recorder.close()
    _keep(memory, folder / "ledger.sqlite3")
    ended = account.stop is not None and account.stop.clean
    journal = {"journal": str(writer.path), "journal_sha256": writer.hexdigest, "clean_stop": ended}
    return {"first_ns": start, **_told(config, tape, feed, wire, state, before, exchange), **journal}


def _keep(memory: Memory, path: Path) -> None:
    """The rows of a backtest in a ledger of their own, beside its journal: no account's report may mix with them."""
    ledger = Ledger.open(path)
    try:
        memory.write(ledger)
    finally:
        ledger.close()


def _told(
    config: Config, tape: Path, feed: TapeFeed, wire: Wire, state: State, before: summary.Mark, exchange: Exchange
) -> dict[str, Any]:
    """What a run came to."""
    return {
        "mode": "backtest",
        "venue": "polymarket",
        "tape": tape.name,
        "simulated": False,
        "paper_money": True,
        "seed": config.seed,
        "frames": feed.frames,
        "malformed": sum(wire.malformed.values()),
        "malformed_by_name": dict(wire.malformed),
        "truncated": feed.truncated,
        **summary.result(state, before),
        "tops": tops(state),
        "bands": exchange.band_fills()["total"],
        "pruned": sum(m.book.pruned for m in state.markets.values()),
        "resolution_guard": _guard(state),
    }


def decode_speed(tape: Path) -> float:
    """Frames a second of the bare work nobody can avoid: decompress, split into lines, msgspec-decode each to plain objects."""
    reader = TapeReader(tape)
    decode = msgspec.json.Decoder().decode
    began, frames = time.perf_counter(), 0
    for line in reader:
        decode(line.frame)
        frames += 1
    return frames / (time.perf_counter() - began) if frames else 0.0


def tops(state: State) -> dict[str, dict[str, Any]]:
    """Token id -> our last best prices in that token's terms, from the one YES book."""
    found: dict[str, dict[str, Any]] = {}
    for market in state.markets.values():
        book, instrument = market.book, market.instrument
        bid, ask, payout = book.best_bid, book.best_ask, instrument.payout
        yes = {"best_bid": bid or None, "best_ask": ask or None}
        no = {"best_bid": payout - ask if ask else None, "best_ask": payout - bid if bid else None}
        for token, top in zip(instrument.token_ids, (yes, no), strict=False):
            found[token] = {k: None if v is None else instrument.usd_price(v) for k, v in top.items()}
    return found


def _guard(state: State) -> str:
    if all(m.instrument.guard_end for m in state.markets.values()):
        return "on"
    return "off: the tape does not tell when its markets end"


def backtest_lines(result: dict[str, Any]) -> list[str]:
    """The report of a backtest, for people."""
    bands = result["bands"]
    fills = ", ".join(f"{name} {bands[name]['fills']} ({bands[name]['qty'] / 1e6:g} shares)" for name in bands)
    lines = [
        f"tape {result['tape']}: {result['frames']} frames, {result['malformed']} malformed, {result['gaps']} gaps, "
        f"{result['pruned']} stale levels pruned",
        f"paper money; signals: {result['signals_from']}; resolution guard {result['resolution_guard']}",
        f"orders {result['orders_placed']} placed, {result['orders_canceled']} canceled, {result['fills']} fills",
        f"fills by band (one order stream): {fills}",
        f"P&L at mid {summary.gain(result['pnl_usd'])}, at the touch with fees {summary.gain(result['pnl_exit_usd'])}",
        f"speed {result['frames_per_second']} frames/s; reading and decoding alone {result['decode_only_frames_per_second']}: "
        f"the whole takes {result['times_decode_only']}x as long",
        f"journal {result['journal']} sha256 {result['journal_sha256']}",
    ]
    if result["truncated"]:
        lines.append(f"the tape is cut short: {result['truncated']}")
    lines += [f"refused {name}: {n['episodes']:g}x, {n['seconds']:.0f}s" for name, n in result["refusals"].items()]
    models = [] if result["llm"] is None else playback_lines(result["llm"], result["signals"])
    return models + lines + summary.closing_lines(result)


def replay(journal: Path, progress: Progress = None) -> dict[str, Any]:
    """Prove one journal file, or every file of a folder."""
    if not journal.exists():
        raise Refused(f"{journal}: no such journal")
    paths = [journal]
    if journal.is_dir():
        names = sorted({p.name.removeprefix("journal-").rpartition("-")[0] for p in journal.glob("journal-*")})
        paths = [path for name in names for path in journal_files(journal, name)]
        if not paths:
            raise Refused(f"{journal}: no journal files in this folder")
    proved = []
    for path in paths:
        found = proof.replay(path, STRATEGIES, (lambda done: progress(done, 0)) if progress else None)
        proved.append({"file": path.name, "entries": found.entries, "commands": found.commands, "torn": found.torn})
    if progress:
        progress(1, 1)
    return {"proved": True, "files": proved, "entries": sum(p["entries"] for p in proved)}


def replay_lines(result: dict[str, Any]) -> list[str]:
    lines = [f"{p['file']}: {p['entries']} events, {p['commands']} commands, every one as recorded" for p in result["files"]]
    return lines + [f"cut: {p['torn']}" for p in result["files"] if p["torn"]]
