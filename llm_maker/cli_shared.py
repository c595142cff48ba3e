"""What the verbs share: options, one-line faults with their exit codes, and the call to a running daemon.

0 fine, 1 failed, 2 bad usage or config. A traceback reaches nobody: it is kept in logs/fault.txt.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer._click.exceptions import ClickException  # typer shows no public name for its usage errors

FAILED, BAD_USAGE = 1, 2
_MIN_SECRET = 6
"""A shorter value is no secret worth hiding, and would blank out ordinary words."""

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
    stderr_line(f"error: {line}" if not line.startswith("error") else line)
    raise typer.Exit(code)


def stderr_line(line: str) -> None:
    """One line beside the results."""
    with nobody_reads(sys.stderr):
        sys.stderr.write(line + "\n")


@contextlib.contextmanager
def nobody_reads(stream: TextIO) -> Iterator[None]:
    """What is written within may find its terminal closed, or the reader of its pipe gone: then it goes nowhere."""
    try:
        yield
    except OSError:
        # Python flushes once more at its end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def read(config: Path, overrides: dict[str, Any], home: Path) -> tuple[Any, Any]:
    """Config and secrets as the files and the environment have them now. Raises `ConfigError`."""
    from llm_maker.config import load
    from llm_maker.keys import Secrets, read_env

    env = read_env(home / ".env" if (home / ".env").exists() else Path(".env"), os.environ)
    path = config if config.exists() or config != SHIPPED else None
    return load(path, env, overrides), Secrets(env)


def load(config: Path, overrides: dict[str, Any], home: Path) -> tuple[Any, Any]:
    """Config and secrets, or one line and exit 2."""
    from llm_maker.config_text import ConfigError

    try:
        return read(config, overrides, home)
    except ConfigError as error:
        fail(str(error), BAD_USAGE)


def overrides(**values: Any) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in values.items() if value is not None}


@contextlib.contextmanager
def faults(home: Path = HERE, secrets: Sequence[str] = ()) -> Iterator[None]:
    """Every fault becomes one line: a person's says what is wrong, ours where its whole story was kept; no secret in either."""

    def hidden(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***") if len(secret) >= _MIN_SECRET else text
        return text

    try:
        yield
    except (typer.Exit, typer.Abort, ClickException):
        raise
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; what Python still wants to flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as fault:
        text = hidden(" ".join(str(fault).split())) or type(fault).__name__
        code = _code(fault)
        if code is None:
            story = home / "logs" / "fault.txt"
            with contextlib.suppress(OSError):  # nothing else is left to tell it with but the line itself
                story.parent.mkdir(parents=True, exist_ok=True)
                story.touch(mode=0o600)
                story.write_text(hidden(traceback.format_exc()))
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
    if isinstance(fault, JournalError | LedgerError | ReplayDiffers | OSError):
        return FAILED
    return None


def show(answer: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    if as_json:
        print(json.dumps(answer))
        return
    for line in lines(answer):
        print(line)


def ask(home: Path, verb: str, args: dict[str, Any]) -> dict[str, Any]:
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


def progress(what: str, quiet: bool) -> Callable[[int, int], None] | None:
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
