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
    progress,
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
def top(
    home: Home = HERE,
    refresh: Annotated[float, typer.Option("--refresh", metavar="SECONDS", min=0.2, max=60, help="How often it looks.")] = 1.0,
) -> None:
    """The live screen of the running daemon: every market, what it does and why, and keys to stop it. `?` there tells them."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("top needs a terminal; `llm-maker status` is for pipes", BAD_USAGE)
    from llm_maker.console.top import Top

    screen = Top(home, refresh)
    with faults(home):
        screen.run()
    if screen.return_code:
        raise typer.Exit(FAILED)


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
def why(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MARKET|ORDER|FILL",
            help="A market of the running daemon: its id, the beginning of it, or words of "
            "its question. Or an order (SESSION-N, or the venue's id) or a fill, as logs/executions.jsonl has them.",
        ),
    ],
    home: Home = HERE,
    account: Annotated[str, typer.Option(metavar="NAME", help="Of an order or a fill: whose; `twin` for the account beside.")] = "",
    as_json: AsJson = False,
) -> None:
    """Why a market is quoted as it is; or why an order was sent, and what became of it, from the journal, daemon or none."""
    from llm_maker.console import tables
    from llm_maker.console.control import ControlClient, NotRunning, Unanswered
    from llm_maker.traces import ORDER

    market: dict[str, Any] = {}
    if not account and not ORDER.fullmatch(what):
        try:
            market = ControlClient.call(home, "why", {"market": what})
        except (NotRunning, Unanswered) as error:
            market = {"ok": False, "error": str(error)}
    if market.get("ok"):
        show(market, as_json, tables.why_lines)
    else:
        _inquire(home, what, account, str(market.get("error", "")), as_json)


def _inquire(home: Path, what: str, account: str, no_market: str, as_json: bool) -> None:
    """`why` of an order or a fill; `no_market` is why it is no market."""
    from llm_maker import inquiry
    from llm_maker.console import inquiry_lines

    bar = progress("reading the journal", as_json)
    with faults(home):
        try:
            told = inquiry.inquire(home, what, account, (lambda done: bar(done, 0)) if bar else lambda done: None)
        except inquiry.NotFound as nothing:
            fail(f"{no_market}; and {nothing}" if no_market else str(nothing), FAILED)
        finally:
            if bar:
                bar(1, 1)
        show(inquiry.plain(told), as_json, inquiry_lines.inquiry_lines)


def _act(home: Path, verb: str, market: str, as_json: bool, *, take: bool = False, yes: bool = True, **extra: str) -> None:
    if not yes and not typer.confirm(f"{verb.replace('_', '-')} {market or 'everything'}: sure?", err=True):
        fail("nothing was done", FAILED)
    args: dict[str, Any] = {"market": market, **extra} if market else {**extra}
    if take:
        args["take"] = True
    answer = ask(home, verb, args)
    # What another has to answer is only asked for here; its end stands in the log.
    word = "asked for; the log tells how it ends" if verb in ("adopt", "approve", "split") else "done"
    said = f"{verb.replace('_', '-')}: {word}" + (f" for {answer['market']}" if market else "")
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
    if take and market:
        from llm_maker.console.top_help import crossing

        detail: Any = ask(home, "detail", {"market": market})
        stderr_line(f"crossing the spread in {detail['row']['market_id']} costs {crossing(detail)}")
    elif take:
        seen = ask(home, "status", {})
        cost = seen["equity_usd"] - seen["exit_equity_usd"]
        stderr_line(f"crossing the spread on every position costs about ${cost:.2f} including fees")
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
    waiting = [wish["intent_id"] for wish in ask(home, "status", {})["intents"]]
    if intent_id not in waiting:
        fail(f"no wish {intent_id!r} waits here; " + (f"waiting: {', '.join(waiting)}" if waiting else "none does"), FAILED)
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


@app.command()
def page(
    home: Home = HERE,
    read_only: Annotated[bool, typer.Option("--read-only", help="A link that may look and not act.")] = False,
    as_json: AsJson = False,
) -> None:
    """The link to the running daemon's page, with the key that opens it: whoever has the link has the key."""
    from llm_maker.console import http_keys

    address = ask(home, "status", {})["page"]
    if not address:
        fail("the daemon serves no page: console.http is false, or its log says under `http` why it could not", FAILED)
    try:
        key = http_keys.read_key(home / "positions", "read" if read_only else "all")
    except (http_keys.KeyUnsafe, OSError) as error:
        fail(f"no key: {error}", FAILED)
    url = http_keys.link(address, key)
    print(json.dumps({"url": url, "read_only": read_only}) if as_json else url)
    port = address.rpartition(":")[2]
    stderr_line(f"from another machine: `ssh -L {port}:127.0.0.1:{port} THIS_MACHINE`, then open the link there")


# A number below 0 is no option.
@app.command(context_settings={"ignore_unknown_options": True})
def intend(
    market: MarketName,
    shares: Annotated[str, typer.Argument(metavar="SHARES", help="The net YES position wanted; minus is NO. 0 is flat.")],
    home: Home = HERE,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the journal.")] = "",
    as_json: AsJson = False,
) -> None:
    """Wish for a position, by hand or from a program of yours. It passes the same gates as every order and is worked as maker.

    Above risk.approve_above_usd it waits for `approve ID`. Until it is done the strategy leaves the market to it.
    """
    answer = ask(home, "intend", {"market": market, "shares": shares, "reason": reason})
    print(json.dumps(answer) if as_json else f"{answer['intent_id']}: asked for in {answer['market']}; the log tells how it ends")


@app.command()
def reload(
    home: Home = HERE,
    check: Annotated[bool, typer.Option("--check", help="Only show: exit 0 if it could be done, 1 if not.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Read the configuration file again: shows what changes, in dollars, asks, and puts it in force without a restart."""
    from llm_maker.console import reload_lines

    found = ask(home, "changes", {})
    if not as_json or not found["allowed"]:
        show(found, as_json, reload_lines.reload_lines)
    if not found["allowed"]:
        fail(
            "nothing was changed: " + ", ".join(c["key"] for c in found["changes"] if not c["allowed"]) + " cannot change here",
            FAILED,
        )
    if check or not found["changes"]:
        if as_json:
            print(json.dumps(found))
        return
    if not yes:
        _consent(found)
    done = ask(home, "reload", {"plan": found["plan"]})
    print(json.dumps(done) if as_json else "in force")


def _consent(found: dict[str, Any]) -> None:
    """A person's word; where more real money may be lost, the word `live`."""
    if found["real_money"] and found["raises_risk"]:
        said = typer.prompt("more real money may be lost; type `live` to go on", err=True, default="", show_default=False)
        if said.strip() != "live":
            fail("nothing was changed", FAILED)
    elif not typer.confirm("put this in force?", err=True):
        fail("nothing was changed", FAILED)


@app.command()
def alerts(
    home: Home = HERE,
    config: ConfigFile = SHIPPED,
    test: Annotated[bool, typer.Option("--test", help="Send one to every service; exit 1 if one does not take it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where alarms are sent, with the secrets hidden, and what each of them means; with --test: whether they arrive."""
    from llm_maker.console import alert_lines
    from llm_maker.console.alerts import try_services

    loaded, secrets = load(config, {}, home)
    urls = secrets.get("LLM_MAKER_ALERT_URLS") or ""
    if not test:
        bot = bool(secrets.get("LLM_MAKER_TELEGRAM_TOKEN"))
        show(alert_lines.told(loaded.alerts, urls, bot=bot), as_json, alert_lines.lines)
        return
    if not urls:
        fail("no service is set: put LLM_MAKER_ALERT_URLS into .env (see .env.example)", FAILED)
    with faults(home, secrets.values()):
        found = try_services(urls, f"{loaded.account} on {loaded.venue}, a test")
    show(found, as_json, alert_lines.test_lines)
    if not found["ok"]:
        raise typer.Exit(FAILED)
