"""The verbs that speak to a running daemon: look at it, ask it why, tell it what to do."""

from __future__ import annotations

import json
import sys
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
    MarketName,
    ask,
    fail,
    faults,
    load,
    overrides,
    show,
    stderr_line,
)

app = typer.Typer()


@app.command()
def status(home: Home = HERE, as_json: AsJson = False) -> None:
    """The state of the running daemon."""
    from llm_maker.console import tables

    show(ask(home, "status", {}), as_json, tables.status_lines)


@app.command()
def markets(
    home: Home = HERE,
    config: ConfigFile = SHIPPED,
    venue: Annotated[str | None, typer.Option(help="Override `venue`; asks the venue itself.")] = None,
    look: Annotated[bool, typer.Option("--survey", help="Ask the venue's listings now, without a daemon.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in and why, what is not and why: of the running daemon, or with --survey of the venue's listings now."""
    from llm_maker.console import tables

    if not look and venue is None:
        show(ask(home, "markets", {}), as_json, tables.market_lines)
        return
    from llm_maker import record

    loaded, _ = load(config, overrides(venue=venue), home)
    if loaded.venue == "simulated":
        fail("venue is 'simulated', which lists nothing before it runs: give --venue polymarket", BAD_USAGE)
    with faults(home):
        found = record.survey(loaded, stderr_line)
    show(found, as_json, tables.survey_lines)


@app.command()
def why(market: MarketName, home: Home = HERE, as_json: AsJson = False) -> None:
    """Why a market is quoted as it is: the whole gate chain with its numbers."""
    from llm_maker.console import tables

    show(ask(home, "why", {"market": market}), as_json, tables.why_lines)


def _act(home: Path, verb: str, market: str, as_json: bool, *, take: bool = False, yes: bool = True, **extra: str) -> None:
    if not yes and not typer.confirm(f"{verb.replace('_', '-')} {market or 'everything'}: sure?", err=True):
        fail("nothing was done", FAILED)
    args: dict[str, Any] = {"instrument": market, **extra} if market else {**extra}
    if take:
        args["take"] = True
    answer = ask(home, verb, args)
    # What another has to answer is only asked for here; its end stands in the log.
    word = "asked for; the log tells how it ends" if verb in ("adopt", "approve", "split") else "done"
    said = f"{verb.replace('_', '-')}: {word}" + (f" for {answer['instrument']}" if market else "")
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
        seen = ask(home, "status", {})
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


@app.command()
def adopt(market: MarketName, home: Home = HERE, yes: Yes = False, as_json: AsJson = False) -> None:
    """Make shares of a market that the account held before us ours: they may then be sold, merged and redeemed."""
    _act(home, "adopt", market, as_json, yes=yes)


@app.command()
def approve(
    intent_id: Annotated[str, typer.Argument(metavar="ID", help="What `status` says is waiting.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Let a wish go ahead that risk.approve_above_usd holds back."""
    _act(home, "approve", "", as_json, intent_id=intent_id)


@app.command()
def split(
    market: MarketName,
    shares: Annotated[str, typer.Argument(metavar="SHARES", help="Sets to make: each dollar becomes a YES and a NO share.")],
    home: Home = HERE,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Turn cash into complete sets of a market, so that both sides can be sold; merging turns them back."""
    _act(home, "split", market, as_json, yes=yes, shares=shares)
