"""The verbs a person types. Turns arguments into calls, results into lines or JSON, and faults into one line and an exit code.

0 fine, 1 failed, 2 bad usage or config. A traceback reaches nobody: it is in logs/daemon.jsonl.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer._click.exceptions import ClickException  # typer shows no public name for its usage errors

from llm_maker import __version__

FAILED, BAD_USAGE = 1, 2


app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)

ConfigFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The configuration; taken from here, not from the home.")
]
Home = Annotated[Path, typer.Option("--home", metavar="DIR", help="Where logs/ and positions/ live.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MarketName = Annotated[str, typer.Argument(metavar="MARKET", help="A market's id, the beginning of it, or words of its question.")]
SHIPPED = Path("config.yaml")
HERE = Path()


def fail(line: str, code: int) -> NoReturn:
    """One line to stderr, and out."""
    sys.stderr.write(f"error: {line}\n" if not line.startswith("error") else line + "\n")
    raise typer.Exit(code)


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


def _load(config: Path, overrides: dict[str, Any], home: Path) -> tuple[Any, Any]:
    """Config and secrets, or one line and exit 2."""
    from llm_maker.config import Secrets, load, read_env
    from llm_maker.config_text import ConfigError

    try:
        env = read_env(home / ".env" if (home / ".env").exists() else Path(".env"), os.environ)
        path = config if config.exists() or config != SHIPPED else None
        return load(path, env, overrides), Secrets(env)
    except ConfigError as error:
        fail(str(error), BAD_USAGE)


def _overrides(**values: Any) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in values.items() if value is not None}


@app.command()
def run(
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    venue: Annotated[str | None, typer.Option(help="Override `venue`: simulated, or polymarket (with --tape).")] = None,
    mode: Annotated[str | None, typer.Option(help="Override `mode`: paper; this version refuses live.")] = None,
    seed: Annotated[int | None, typer.Option(help="Override `seed`.")] = None,
    tape: Annotated[Path | None, typer.Option(metavar="FILE", help="Play a recorded tape instead of a live feed.")] = None,
    speed: Annotated[float, typer.Option(help="Market seconds in one of yours; 0: as fast as possible.")] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds of yours.")] = None,
    until: Annotated[float | None, typer.Option(help="Stop after this many market seconds.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One cycle of signals and quotes, then cancel and exit.")] = False,
    leave: Annotated[bool, typer.Option("--leave", help="With --once: leave the orders resting.")] = False,
    as_json: AsJson = False,
) -> None:
    """The daemon: quote until stopped (Ctrl-C, `kill`, --duration, --until)."""
    from llm_maker import app as wiring
    from llm_maker.config import check_keys, check_run
    from llm_maker.config_text import ConfigError
    from llm_maker.runtime.daemon_log import stderr

    for name, number in (("speed", speed), ("duration", duration), ("until", until)):
        if number is not None and not math.isfinite(number):
            fail(f"--{name} is {number:g}; must be a finite number", BAD_USAGE)
    if speed < 0:
        fail(f"--speed is {speed:g}; must be 0 or more", BAD_USAGE)
    loaded, secrets = _load(config, _overrides(venue=venue, mode=mode, seed=seed), home)
    for name, number in (("duration", duration), ("until", until)):
        if number is not None and number <= 0:
            fail(f"--{name} is {number:g}; must be above 0", BAD_USAGE)
    if leave and not once:
        fail("--leave goes with --once: only then is there a cycle to leave orders of", BAD_USAGE)
    options = wiring.Options(tape=tape, speed=speed, duration=duration, until=until, once=once, leave=leave)
    screen = _screen(loaded, as_json)
    with _faults(home):
        try:
            check_run(loaded, tape=tape is not None)
            check_keys(loaded, secrets)
        except ConfigError as error:
            fail(str(error), BAD_USAGE)
        daemon = wiring.Daemon(loaded, secrets, home, options, screen.say if screen else stderr)
        try:
            for line in wiring.banner(daemon):
                stderr(line)
            with screen.showing(daemon) if screen else contextlib.nullcontext():
                clean = wiring.run(daemon, screen.refresh if screen else lambda: None)
            result = daemon.result()
        finally:
            daemon.close()
    _closing(result, as_json)
    if not clean and not leave:
        ids = ", ".join(result["resting"]) or "none is known to rest"
        fail(f"the stop could not be proved clean; orders that may rest: {ids}; see logs/executions.jsonl", FAILED)


def _closing(result: dict[str, Any], as_json: bool) -> None:
    """The five lines, and with --json one object as the last line of stdout."""
    from llm_maker.report.summary import closing_lines

    for line in closing_lines(result):
        print(line, file=sys.stderr if as_json else sys.stdout)
    if result["clean_stop"]:
        sys.stderr.write("stopped: proved that no order of ours rests\n")
    if as_json:
        print(json.dumps(result))


def _screen(config: Any, as_json: bool) -> Any:
    """The live lines, where a terminal is there to show them."""
    if as_json or not sys.stdout.isatty() or config.console.live_lines == 0:
        return None
    from llm_maker.console.live import Screen

    return Screen(config.console.live_lines, config.console.refresh_seconds)


@contextlib.contextmanager
def _faults(home: Path = HERE) -> Iterator[None]:
    """Every fault becomes one line: a person's says what is wrong, ours where its whole story was kept."""
    try:
        yield
    except (typer.Exit, ClickException):
        raise
    except Exception as fault:
        text = " ".join(str(fault).split()) or type(fault).__name__
        code = _code(fault)
        if code is None:
            story = home / "logs" / "fault.txt"
            with contextlib.suppress(OSError):  # nothing else is left to tell it with but the line itself
                story.parent.mkdir(parents=True, exist_ok=True)
                story.write_text(traceback.format_exc())
            fail(f"a fault of our own: {type(fault).__name__}: {text}; the whole story is in {story}", FAILED)
        fail(text, code)


def _code(fault: BaseException) -> int | None:
    from llm_maker.config_text import ConfigError
    from llm_maker.runtime.journal import JournalDamaged, JournalError
    from llm_maker.runtime.ledger import LedgerError, LedgerUnreadable
    from llm_maker.runtime.locks import AlreadyRunning, LockUnavailable
    from llm_maker.runtime.replay import ReplayDiffers
    from llm_maker.runtime.tape import TapeError
    from llm_maker.world import Refused

    if isinstance(fault, Refused | ConfigError | AlreadyRunning | LockUnavailable | LedgerUnreadable | TapeError | JournalDamaged):
        return BAD_USAGE
    if isinstance(fault, JournalError | LedgerError | ReplayDiffers | OSError | AssertionError | RuntimeError):
        return FAILED
    return None


@app.command()
def backtest(
    tape: Annotated[Path, typer.Option(metavar="FILE", help="The recorded tape.")],
    config: ConfigFile = SHIPPED,
    home: Home = HERE,
    signals: Annotated[str, typer.Option(help="`none`, or a llm_decisions.jsonl whose signals are played again.")] = "none",
    seed: Annotated[int | None, typer.Option(help="Override `seed`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded tape through the strategy and the paper exchange, as fast as possible."""
    from llm_maker import lab

    loaded, _ = _load(config, _overrides(seed=seed), home)
    with _faults(home):
        result = lab.backtest(loaded, tape, home, signals, _progress("backtest", as_json))
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

    with _faults():
        result = lab.replay(journal, _progress("replay", as_json))
    if as_json:
        print(json.dumps(result))
    else:
        for line in lab.replay_lines(result):
            print(line)


@app.command()
def report(home: Home = HERE, as_json: AsJson = False) -> None:
    """What made or lost the money on this home."""
    from llm_maker import lab

    with _faults():
        found = lab.report(home)
    if not found["accounts"]:
        fail(f"{home}: nothing has been traded here yet; `llm-maker run` first", FAILED)
    if as_json:
        print(json.dumps(found))
    else:
        for line in lab.report_lines(found):
            print(line)


@app.command()
def status(home: Home = HERE, as_json: AsJson = False) -> None:
    """The state of the running daemon."""
    from llm_maker.console import tables

    _show(_ask(home, "status", {}), as_json, tables.status_lines)


@app.command()
def markets(home: Home = HERE, as_json: AsJson = False) -> None:
    """What is in and why, what is not and why."""
    from llm_maker.console import tables

    _show(_ask(home, "markets", {}), as_json, tables.market_lines)


@app.command()
def why(market: MarketName, home: Home = HERE, as_json: AsJson = False) -> None:
    """Why a market is quoted as it is: the whole gate chain with its numbers."""
    from llm_maker.console import tables

    _show(_ask(home, "why", {"market": market}), as_json, tables.why_lines)


def _show(answer: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    if as_json:
        print(json.dumps(answer))
        return
    for line in lines(answer):
        print(line)


def _ask(home: Path, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """One call to the running daemon."""
    from llm_maker.console.control import ControlClient, NotRunning, Unanswered

    try:
        answer = ControlClient.call(home, verb, args)
    except NotRunning as error:
        fail(f"{error}; start one with `llm-maker run --home {home}`", FAILED)
    except Unanswered as error:
        fail(str(error), FAILED)
    if not answer.get("ok", False):
        fail(str(answer.get("error", "refused")), FAILED)
    return answer


def _act(home: Path, verb: str, market: str, as_json: bool, *, take: bool = False, yes: bool = True) -> None:
    if not yes and not typer.confirm(f"{verb.replace('_', '-')} {market or 'everything'}: sure?", err=True):
        fail("nothing was done", FAILED)
    args: dict[str, Any] = {"instrument": market} if market else {}
    if take:
        args["take"] = True
    answer = _ask(home, verb, args)
    said = f"{verb.replace('_', '-')}: done" + (f" for {answer['instrument']}" if market else "")
    print(json.dumps(answer) if as_json else said)


MarketOrAll = Annotated[str, typer.Argument(metavar="[MARKET]", help="A market as in `why`; without it, everything.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def pause(market: MarketOrAll = "", home: Home = HERE, as_json: AsJson = False) -> None:
    """Cancel our quotes and stand still until `resume`."""
    _act(home, "pause", market, as_json)


@app.command()
def resume(market: MarketOrAll = "", home: Home = HERE, as_json: AsJson = False) -> None:
    """Go on after a pause, a reduce, or a halt that waits for a person."""
    _act(home, "resume", market, as_json)


@app.command()
def reduce(market: MarketOrAll = "", home: Home = HERE, as_json: AsJson = False) -> None:
    """Only reduce positions from now on."""
    _act(home, "reduce", market, as_json)


@app.command()
def flatten(
    market: MarketOrAll = "",
    home: Home = HERE,
    take: Annotated[bool, typer.Option("--take", help="Cross the spread at once; prints the cost first.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Leave positions, as maker at the touch; with --take by crossing."""
    if take:
        seen = _ask(home, "status", {})
        cost = seen["equity_usd"] - seen["exit_equity_usd"]
        print(f"crossing the spread on every position costs about ${cost:.2f} including fees", file=sys.stderr)
    _act(home, "flatten", market, as_json, take=take, yes=yes)


@app.command(name="cancel-all")
def cancel_all(market: MarketOrAll = "", home: Home = HERE, yes: Yes = False, as_json: AsJson = False) -> None:
    """Cancel every order of ours and stay paused until `resume`."""
    _act(home, "cancel_all", market, as_json, yes=yes)


@app.command()
def kill(home: Home = HERE, yes: Yes = False, as_json: AsJson = False) -> None:
    """Cancel everything of ours, prove it, end the daemon. With the socket dead: `touch HOME/KILL`, and remove it later."""
    _act(home, "kill", "", as_json, yes=yes)


def _progress(what: str, quiet: bool) -> Callable[[int, int], None] | None:
    """A progress bar on stderr where a terminal is there."""
    if quiet or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None)
    bar.start()

    def advance(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total or None)
        if total and done >= total:
            bar.stop()

    return advance
