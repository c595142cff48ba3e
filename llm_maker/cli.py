"""The command line: its root, and `run`. The others are in `cli_operate`, `cli_lab`, `cli_report`, `cli_study`."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # typer shows no public name for its usage errors

from llm_maker import __version__, cli_lab, cli_operate, cli_report, cli_study
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
    nobody_reads,
    overrides,
    read,
    stderr_line,
)

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main() -> None:
    """The console script: `run` when no verb is given, the nearest verb when it is misspelt."""
    args = sys.argv[1:]
    if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
        args = ["run", *args]
    known = [str(c.name or getattr(c.callback, "__name__", "")) for c in app.registered_commands]
    try:
        if not args[0].startswith("-") and args[0] not in known:
            near = difflib.get_close_matches(args[0], known, 1)
            fail(
                f"unknown verb '{args[0]}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"), BAD_USAGE
            )
        code = app(args, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.stderr.write("\nerror: nothing was done: the question was not answered (--yes answers it)\n")
        sys.exit(FAILED)
    except ClickException as error:
        sys.stderr.write(f"error: {error.format_message()}\n")
        sys.exit(BAD_USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Makes markets with an LLM's advice. Without a verb: run."""
    if version:
        print(f"llm_maker {__version__}")
        raise typer.Exit(0)


@app.command()
def run(
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    venue: Annotated[str | None, typer.Option(help="Override `venue`: simulated or polymarket.")] = None,
    mode: Annotated[str | None, typer.Option(help="Override `mode`: paper, or live (real money; asks first).")] = None,
    seed: Annotated[int | None, typer.Option(help="Override `seed`.")] = None,
    tape: Annotated[Path | None, typer.Option(metavar="FILE", help="Play a recorded tape instead of a live feed.")] = None,
    speed: Annotated[float, typer.Option(help="Market seconds in one of yours; 0: as fast as possible.")] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds of yours.")] = None,
    until: Annotated[float | None, typer.Option(help="Stop after this many market seconds.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One cycle of signals and quotes, then cancel and exit.")] = False,
    leave: Annotated[bool, typer.Option("--leave", help="With --once: leave the orders resting.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Live: do not ask for the word `live`.")] = False,
    unproved: Annotated[bool, typer.Option("--unproved", help="Live: start after a stop that could not prove its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """The daemon: quote until stopped (Ctrl-C, `kill`, --duration, --until)."""
    from llm_maker import app as wiring
    from llm_maker.banner import banner
    from llm_maker.config import check_keys, check_run
    from llm_maker.config_text import ConfigError
    from llm_maker.reload import FileReader
    from llm_maker.runtime.daemon_log import stderr

    for name, number in (("speed", speed), ("duration", duration), ("until", until)):
        if number is not None and not math.isfinite(number):
            fail(f"--{name} is {number:g}; must be a finite number", BAD_USAGE)
    if speed < 0:
        fail(f"--speed is {speed:g}; must be 0 or more", BAD_USAGE)
    changed = overrides(venue=venue, mode=mode, seed=seed)
    loaded, secrets = load(config, changed, home)
    for name, number in (("duration", duration), ("until", until)):
        if number is not None and number <= 0:
            fail(f"--{name} is {number:g}; must be above 0", BAD_USAGE)
    if leave and not once:
        fail("--leave goes with --once: only then is there a cycle to leave orders of", BAD_USAGE)
    options = wiring.Options(
        tape=tape,
        speed=speed,
        duration=duration,
        until=until,
        once=once,
        leave=leave,
        base=config.parent,
        unproved=unproved,
    )
    screen = _screen(loaded, as_json)
    with faults(home, secrets.values()):
        try:
            check_run(loaded, secrets, tape=tape is not None)
            check_keys(loaded, secrets)
        except ConfigError as error:
            fail(str(error), BAD_USAGE)
        if loaded.mode == "live":
            _consent(loaded, yes=yes)
        reader = FileReader(config, lambda: read(config, changed, home)[0])
        daemon = wiring.Daemon(loaded, secrets, home, options, screen.say if screen else stderr, reader)
        result: dict[str, Any] | None = None
        try:
            for line in banner(daemon):
                stderr(line)
            with screen.showing(daemon) if screen else contextlib.nullcontext():
                clean = wiring.run(daemon, screen.refresh if screen else lambda: None)
            result = daemon.result()
        finally:
            _end(daemon, result, as_json)
    if not clean and not leave:
        ids = ", ".join(daemon.resting()) or "none is known to rest"
        fail(f"the stop could not be proved clean; orders that may rest: {ids}; see logs/executions.jsonl", FAILED)


def _consent(config: Any, *, yes: bool) -> None:
    """Real money: what it may cost, in dollars, and the word of a person."""
    from llm_maker.tuning import worst_cases

    for line in worst_cases(config):
        print(line, file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        fail("live needs the word of a person: type it in a terminal, or give --yes", BAD_USAGE)
    if typer.prompt("type `live` to trade with real money", err=True, default="", show_default=False).strip() != "live":
        fail("nothing was started", FAILED)


def _end(daemon: Any, result: dict[str, Any] | None, as_json: bool) -> None:
    """Leave the files whole; one that could not be ended well does not unsay how the run ended."""
    try:
        daemon.close()
    finally:
        if result is not None:
            _closing(result, as_json)


def _closing(result: dict[str, Any], as_json: bool) -> None:
    """The five lines, and with --json one object as the last line of stdout."""
    from llm_maker.report.summary import closing_lines

    where = sys.stderr if as_json else sys.stdout
    with nobody_reads(where):
        for line in closing_lines(result):
            # A pipe or a service manager would hold them back behind the last line, which people look for.
            print(line, file=where, flush=True)
    if result["clean_stop"]:
        stderr_line("stopped: proved that no order of ours rests")
    if as_json:
        with nobody_reads(sys.stdout):
            print(json.dumps(result), flush=True)


def _screen(config: Any, as_json: bool) -> Any:
    """The live lines, where a terminal is there to show them."""
    if as_json or not sys.stdout.isatty() or config.console.live_lines == 0:
        return None
    from llm_maker.console.live import Screen

    return Screen(config.console.live_lines, config.console.refresh_seconds)


for verbs in (cli_operate, cli_lab, cli_report, cli_study):
    app.registered_commands += verbs.app.registered_commands
