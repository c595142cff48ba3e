"""The verbs that need no daemon: the lab's (backtest, replay), and what looks at a venue before a run (record, doctor)."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_maker.cli_shared import (
    BAD_USAGE,
    FAILED,
    HERE,
    SHIPPED,
    AsJson,
    ConfigFile,
    Home,
    fail,
    faults,
    load,
    overrides,
    progress,
    read,
    stderr_line,
)

app = typer.Typer()
_LABEL = 11
"""Columns of a label of `init`."""


@app.command()
def backtest(
    tape: Annotated[Path, typer.Option(metavar="FILE", help="The recorded tape.")],
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    signals: Annotated[str, typer.Option(help="`none`, or a llm_decisions.jsonl whose signals are played again.")] = "none",
    cassette: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answers of models, recorded before, for the models of the config; free.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask the models for what the cassette lacks, and record it; at most llm.daily_budget_usd.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Override `seed`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded tape through the strategy and the paper exchange, as fast as possible."""
    from llm_maker import lab
    from llm_maker.llm.playback import Wanted

    loaded, secrets = load(config, overrides(seed=seed), home)
    if ask and cassette is None and loaded.llm.cassette is not None:
        cassette = config.parent / Path(loaded.llm.cassette).expanduser()
    if ask and cassette is None:
        fail("--ask records what it paid for: it goes with --cassette FILE, or llm.cassette in the config", BAD_USAGE)
    if cassette is not None and signals != "none":
        fail(f"--signals {signals} and {'--ask' if ask else '--cassette'} exclude one another: one of them answers", BAD_USAGE)
    play = None if cassette is None else Wanted(cassette, ask, secrets, config.parent)
    with faults(home, secrets.values()):
        result = lab.backtest(loaded, tape, home, signals, progress("backtest", as_json), play)
    if as_json:
        print(json.dumps(result))
    else:
        for line in lab.backtest_lines(result):
            print(line)


@app.command()
def replay(
    journal: Annotated[
        Path,
        typer.Argument(
            metavar="JOURNAL", help="A journal file (.jsonl or .jsonl.zst), or the folder that holds them: logs/journal/NAME."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Prove a journal: every command must be the one recorded."""
    from llm_maker import lab

    with faults():
        result = lab.replay(journal, progress("replay", as_json))
    if as_json:
        print(json.dumps(result))
    else:
        for line in lab.replay_lines(result):
            print(line)


@app.command()
def record(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new tape: .jsonl, .jsonl.gz or .jsonl.zst.")],
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    venue: Annotated[str | None, typer.Option(help="Override `venue`.")] = None,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds; without it, at Ctrl-C.")] = None,
    speed: Annotated[float, typer.Option(hidden=True)] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Write a tape of a live venue's public data: the markets that market_selection takes, whole."""
    from llm_maker import record as recorder

    loaded, _ = load(config, overrides(venue=venue), home)
    if duration is not None and not duration > 0:
        fail(f"--duration is {duration:g}; must be above 0", BAD_USAGE)
    with faults(home):
        done = recorder.record(loaded, out, duration, speed, stderr_line, progress("record", as_json))
    if as_json:
        print(json.dumps(done))
    elif done["tape"] is None:
        print("nothing was recorded")
    else:
        print(
            f"{done['tape']}: {done['frames']} frames, {done['markets_heard']} of {done['markets']} markets, {done['bytes']} bytes"
        )
        print(f"play it: llm-maker backtest --tape {done['tape']}")


def _wrapped(line: str) -> list[str]:
    """At most as wide as the terminal, broken between words; what follows stands under the text, not under its label."""
    pieces = textwrap.wrap(
        line,
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return pieces or [line]


class _Person:
    """A terminal for the wizard."""

    def say(self, line: str = "") -> None:
        for piece in _wrapped(line):
            print(piece)

    def ask(self, question: str, default: str, *, hidden: bool = False) -> str:
        return str(typer.prompt(question, default=default, show_default=bool(default), hide_input=hidden))

    def confirm(self, question: str, *, default: bool) -> bool:
        return bool(typer.confirm(question, default=default))


@app.command()
def init(
    home: Home = HERE,
    venue: Annotated[str | None, typer.Option(help="simulated or polymarket.")] = None,
    mode: Annotated[str | None, typer.Option(help="paper or live.")] = None,
    provider: Annotated[str | None, typer.Option(help="Whom to ask: `llm.provider`.")] = None,
    bankroll: Annotated[float | None, typer.Option(metavar="USD", help="What to put at work: `risk.bankroll_usd`.")] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="Whether the page is served.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: what is not given stays as it is, or at its default.")] = False,
) -> None:
    """A few questions, then config.yaml and .env in the home. Enter all the way: paper money, the simulated market, no key."""
    import os
    import sys

    from llm_maker import wizard
    from llm_maker.config_text import ConfigError

    given = overrides(venue=venue, mode=mode, llm__provider=provider, risk__bankroll_usd=bankroll, console__http=page)
    if not yes and not sys.stdin.isatty():
        fail("init asks questions: type it in a terminal, or give --yes", BAD_USAGE)
    with faults(home):
        try:
            there = wizard.standing(home, os.environ, given)
            chosen = wizard.Chosen(there.begin, {}) if yes else wizard.Interview(_Person(), there).whole()
            wizard.ready(chosen, there)
            lines = wizard.differences(there, chosen)
            if yes and chosen.config.mode == "live":
                lines = [*lines, *wizard.limits(chosen.config)] if lines else []
            for line in lines:
                print(line)
            if lines and not yes and not typer.confirm("write this?", default=True):
                fail("nothing was written", FAILED)
            for line in wizard.write(there, chosen) if lines else ["nothing to write: the files say this already"]:
                print(line)
        except ConfigError as error:
            fail(str(error), BAD_USAGE)
        except (typer.Abort, KeyboardInterrupt):
            stderr_line("")  # after the question that Ctrl-C was typed at
            fail("nothing was written", FAILED)
    look, run = wizard.command("doctor", home), wizard.command("run", home)
    print(f"next: `{look}` looks everything over\n      `{run}` starts it")
    live = chosen.config.mode == "live" and not yes
    if live and typer.confirm("look everything over now?", default=True):
        doctor(config=home / "config.yaml", home=home)


@app.command()
def doctor(
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    venue: Annotated[str | None, typer.Option(help="Override `venue`.")] = None,
    mode: Annotated[str | None, typer.Option(help="Override `mode`.")] = None,
    round_trip: Annotated[
        str | None,
        typer.Option("--round-trip", metavar="CONDITION_ID", help="Place ONE smallest order far from the touch there; cancel it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --round-trip: do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that can be wrong before it costs money, each with its cure. Exit 1 if something must be mended."""
    import asyncio

    from llm_maker import doctor as examination
    from llm_maker import round_trip as trip
    from llm_maker.comeback import known_orders as known
    from llm_maker.console import tables
    from llm_maker.runtime.clock import LiveClock
    from llm_maker.venues.net import Pace

    if as_json:
        _legible(config, overrides(venue=venue, mode=mode), home)
    loaded, secrets = load(config, overrides(venue=venue, mode=mode), home)

    def progress(check: Any) -> None:
        if not as_json:
            print(tables.check_line(check.name, check.state, check.text, check.cure))

    with faults(home, secrets.values()):
        if round_trip is None:
            found = asyncio.run(
                examination.examine(loaded, secrets, home, progress=progress, known_orders=known(home), base=config.parent)
            )
        else:
            if not yes:
                typer.confirm(
                    "this places one real order of the smallest size, far from the touch, and cancels it: go on?", abort=True
                )
            pace = Pace(LiveClock().now)
            found = asyncio.run(trip.round_trip(loaded, secrets, round_trip, consent=trip.CONSENT, progress=progress, pace=pace))
    bad = [check for check in found if check.state == "failed"]
    if as_json:
        told = [{"name": c.name, "state": c.state, "text": c.text, "cure": c.cure} for c in found]
        print(json.dumps({"ok": not bad, "checks": told}))
    else:
        print(f"{len(found)} checks, {len(bad)} failed" if bad else f"{len(found)} checks, none failed")
    if bad:
        raise typer.Exit(FAILED)


def _legible(config: Path, changed: dict[str, Any], home: Path) -> None:
    """A program that reads the findings gets a config that is wrong as one of them."""
    from llm_maker.config_text import ConfigError

    try:
        read(config, changed, home)
    except ConfigError as error:
        check = {"name": "config", "state": "failed", "text": str(error), "cure": "correct it; docs/configuration.md has every key"}
        print(json.dumps({"ok": False, "checks": [check]}))
        raise typer.Exit(BAD_USAGE) from None
