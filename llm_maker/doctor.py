"""`doctor`: is this machine, this home, this configuration and this account fit to run? Every finding with its cure in one line.

It wires the checks and looks at what is local; the venue's own are in `checkup` and `account_checkup`. No secret leaves it.
"""

from __future__ import annotations

import asyncio
import difflib
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from llm_maker import account_checkup, checkup, local_checkup
from llm_maker.checkup import Check, Tell, telling
from llm_maker.comeback import TAPE
from llm_maker.config import Config
from llm_maker.config_llm import BUILT_IN
from llm_maker.config_text import ConfigError
from llm_maker.console.control import ControlClient, ControlFailed, ControlServer, NotRunning, Unanswered
from llm_maker.console.desk import Desk
from llm_maker.keys import SECRET_NAMES, Secrets, read_env
from llm_maker.llm.build import NotAvailable, Plan, client_of, news_plan, pricer_of, resolve, templates_of
from llm_maker.llm.probe import probe
from llm_maker.runtime.clock import LiveClock
from llm_maker.venues.net import Pace

MEGABYTE = 1_000_000
PROBE_TOKENS, PROBE_SECONDS = 1_500, 25.0
"""Room for a model that thinks before it says yes, and less time than a check may take."""
LOW_DISK_MB = 200
"""Less than this, and the journal may soon have nowhere to go; then the daemon stops."""


async def examine(
    config: Config,
    secrets: Secrets,
    home: Path,
    *,
    progress: Tell,
    pace: Pace | None = None,
    env_file: Path | None = None,
    known_orders: Collection[str] = (),
    base: Path | None = None,
) -> list[Check]:
    """Every check, told as it ends.

    `env_file`: where secrets were read from; `known_orders`: the venue's ids of our own orders; `base`: where relative paths of
    the config start.
    """
    found: list[Check] = []
    tell = telling(secrets, found, progress)
    pace = pace or Pace(LiveClock().now)
    running = await asyncio.to_thread(_running, home)
    file = env_file or (home / ".env" if (home / ".env").exists() else Path(".env"))
    own = (_config(config), _env(file), _home(home), _past(home, config), _disk(home, config), _control(home, running), _kill(home))
    for check in own:
        tell(check)
    for check in local_checkup.machine(config, home, running=running):
        tell(check)
    asked = await _models(config, secrets, base or home, tell, pace)
    for check in await asyncio.to_thread(local_checkup.judged, config, secrets, asked=asked):
        tell(check)
    if config.venue != "polymarket":
        tell(Check("venue", "ok", f"{config.venue} comes with the program: no network, no key"))
        tell(Check("clock", "skipped", "no venue is asked; the simulated market has a time of its own"))
        return found
    tell(checkup.signing())
    await checkup.public(config, pace, tell)
    await account_checkup.examine(config, secrets, pace, tell, known_orders, running=running)
    return found


def _config(config: Config) -> Check:
    money = "real money" if config.mode == "live" else "paper money"
    if config.mode == "live" and config.risk.bankroll_usd is None:
        return Check("config", "failed", "mode is 'live' and risk.bankroll_usd is empty", "say what you are ready to put at work")
    return Check("config", "ok", f"valid: venue {config.venue}, {money}")


def _env(file: Path) -> Check:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        return Check("secrets", "ok", f"no {file.name}: secrets come from the environment alone")
    except OSError as error:
        return Check("secrets", "failed", f"{file} cannot be looked at: {error.strerror}", "check its folder's permissions")
    if mode & 0o077:
        return Check("secrets", "warning", f"{file} can be read by others (mode {mode:04o})", f"chmod 600 {file}")
    try:
        strange = local_checkup.unknown_names(list(read_env(file, {})))
    except ConfigError as error:
        return Check("secrets", "failed", str(error), f"correct {file}")
    if strange:
        near = difflib.get_close_matches(strange[0], SECRET_NAMES, 1)
        cure = f"rename it {near[0]}, or take it out" if near else "take it out; .env.example has the names"
        return Check("secrets", "warning", f"{file}: nobody reads {', '.join(strange[:3])}", cure)
    return Check("secrets", "ok", f"{file} is yours alone")


def _standing(path: Path) -> Path:
    """The nearest folder that exists: a home may still have to be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _home(home: Path) -> Check:
    place = _standing(home)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check("home", "failed", f"{place} cannot be written: {error.strerror}", "choose another --home, or its owner")
    remote = local_checkup.network_disk(place)
    if remote:
        text = f"{place} is on a network filesystem ({remote}), where locks and the ledger cannot be trusted"
        return Check("home", "failed", text, "choose another --home, on a disk of this machine")
    return Check(
        "home", "ok", f"{home.absolute()} can be written" + ("" if place == home.absolute() else " (it is still to be made)")
    )


def _past(home: Path, config: Config) -> Check:
    """A home belongs to one venue and one kind of money; another is refused at the start."""
    there = sorted(folder.name for folder in (home / "logs" / "journal").glob("*") if any(folder.glob("journal-*")))
    played = [name.split("-", 2) for name in there if TAPE not in name]
    other = next((parts for parts in played if parts[:2] != [config.venue, config.mode]), None)
    if other is not None:
        text = f"{home.absolute()} is a home of {other[1]} on {other[0]}, and this is {config.mode} on {config.venue}"
        return Check("past", "failed", text, "give another --home, or set venue and mode back")
    return Check("past", "ok", "it has run here before, and goes on" if played else "nothing has run here yet")


def _disk(home: Path, config: Config) -> Check:
    try:
        free = shutil.disk_usage(_standing(home)).free / MEGABYTE
    except OSError as error:
        return Check("disk", "failed", f"free space is not known: {error.strerror}", "check the disk")
    text, wanted = f"{free:,.0f} MB free", config.logging.journal_total_mb
    if free < LOW_DISK_MB:
        return Check("disk", "failed", text, "make room, or choose another --home: without its journal the daemon stops")
    if free < wanted:
        cure = f"make room, or lower logging.journal_total_mb ({wanted:g})"
        return Check("disk", "warning", f"{text}, less than the journals may take", cure)
    return Check("disk", "ok", text)


def _running(home: Path) -> bool:
    """Whether a daemon is at work on this home."""
    try:
        ControlClient.call(home, "status", timeout=2.0)
    except NotRunning:
        return False
    except Unanswered:
        return True
    return True


def _control(home: Path, running: bool) -> Check:
    if running:
        return Check("control", "ok", "a daemon is at work on this home and answers")
    fresh = [path for path in (home / "positions", home) if not path.exists()]
    server = ControlServer(home, Desk(lambda verb, args: {}))
    try:
        server.open()
    except ControlFailed as error:
        return Check("control", "failed", str(error), "choose another --home; until then only the kill file stops a daemon")
    finally:
        server.close()
        _unmake(fresh)
    return Check("control", "ok", "the control socket can be opened")


def _unmake(folders: list[Path]) -> None:
    """Take away what the trial made; what is not empty stays."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _kill(home: Path) -> Check:
    file = home / "KILL"
    if file.exists():
        return Check("kill file", "warning", f"{file} is there: a daemon would stop at once", f"rm {file}")
    return Check("kill file", "ok", f"`touch {file}` stops a daemon, whatever else is dead")


async def _models(config: Config, secrets: Secrets, base: Path, tell: Callable[[Check], None], pace: Pace) -> bool:
    """Whom the slow loop and the scout would ask: each answers a tiny question, or says why not. It costs a fraction of a cent.

    Whether any would be asked by the slow loop.
    """
    try:
        mind = resolve(config, secrets, simulated_feed=config.venue == "simulated")
        news = news_plan(config, secrets)
        templates = templates_of(config, base)
    except NotAvailable as error:
        tell(Check("model", "failed", str(error), "mend it in .env or in the section llm, or set llm.provider: auto"))
        return False
    if not mind.members:
        wanted = mind.provider == "none" and config.llm.provider != "none"
        cure = "put a model's key into .env (see .env.example), or set llm.provider: none" if wanted else ""
        tell(Check("model", "warning" if wanted else "ok", mind.text, cure))
    named = [("model", plan) for plan in mind.members] + [("model in reserve", plan) for plan in mind.reserve]
    if news is not None:
        named.append(("news model", news))
    for what, plan in named:
        tell(await checkup.bounded(what, _probed(what, plan, config, secrets), pace))
    if any(template.name != BUILT_IN for template in templates):
        tell(Check("prompts", "ok", ", ".join(f"{t.name} ({t.version})" for t in templates)))
    return bool(mind.members)


_MODEL_CURES = {
    "retired": "set the name it says",
    "unknown_model": "set a name that the provider has",
    "auth": "check the key in .env",
    "billing": "top the account up, or name another provider",
    "unreachable": "check the network and base_url",
}


async def _probed(what: str, plan: Plan, config: Config, secrets: Secrets) -> Check:
    pricer = await asyncio.to_thread(pricer_of, plan)
    try:
        model = await asyncio.to_thread(client_of, plan, secrets, pricer, PROBE_TOKENS, lambda level, line: None, time.time_ns)
    except NotAvailable as error:
        return Check(what, "failed", str(error), "mend it in the section llm")
    try:
        found = await probe(model, plan.spec, min(config.llm.timeout_seconds, PROBE_SECONDS))
    finally:
        await model.close()
    if found.status != "ok":
        return Check(what, "failed", found.text, _MODEL_CURES.get(found.status, "name another model in the section llm"))
    if not pricer.known:
        text = f"{found.text}; nobody knows its price: each call is booked at {config.llm.unknown_call_usd:g} USD"
        return Check(what, "warning", text, "set price_per_million_input_usd and price_per_million_output_usd")
    return Check(what, "ok", found.text)
