"""Each thing broken in turn: the check that should notice does, and its cure, taken at its word, makes it fine again.

A cure that is a command is run, one that is a setting is set; where it asks for a deed (a deposit, an approval, another key), the
row does that deed.
"""

from __future__ import annotations

import errno
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_maker import doctor, local_checkup
from llm_maker.checkup import Check
from llm_maker.config import Config, load
from llm_maker.doctor import examine
from llm_maker.keys import Secrets
from llm_maker.wizard_text import leaves
from tests.doctor_scene import ALERT_URL, EVERYTHING, MODEL_KEY, Scene, fit, scene
from tests.fakes.polymarket.relayer import RELAYER_KEY
from tests.fakes.polymarket.setup import THROWAWAY_KEY

SETTING = re.compile(r"\bset ([a-z_]+(?:\.[a-z_]+)*): (\[\]|[^\s;,]+)")
COMMAND = re.compile(r"^(chmod|rm) ")
TOKEN = "12345678:throwaway-token-of-no-bot-at-all-000"  # marked: worth nothing anywhere


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    return load(None, {}, leaves(config) | settings)


def apply(cure: str, config: Config) -> Config:
    """Do what a cure says, word for word."""
    if COMMAND.match(cure):
        subprocess.run(shlex.split(cure), check=True)
        return config
    found = dict(SETTING.findall(cure))
    assert found, f"neither a command nor a setting: {cure}"
    return with_settings(config, {key: yaml.safe_load(value) for key, value in found.items()})


# What needs no venue.


@dataclass
class Home:
    """A paper home on the simulated venue."""

    path: Path
    monkeypatch: pytest.MonkeyPatch
    config: Config = field(default_factory=Config)
    env: dict[str, str] = field(default_factory=dict)

    def set(self, **settings: Any) -> None:
        self.config = with_settings(self.config, {key.replace("__", "."): value for key, value in settings.items()})

    async def look(self) -> dict[str, Check]:
        found = await examine(
            self.config, Secrets(self.env), self.path, progress=lambda check: None, env_file=self.path / ".env", base=self.path
        )
        text = "\n".join(f"{check.text}{check.cure}" for check in found)
        assert not [value for value in self.env.values() if value in text]
        assert all(bool(check.cure) == (check.state in ("warning", "failed")) and "\n" not in check.text for check in found)
        return {check.name: check for check in found}


Deed = Callable[[Home], None]


def settings(**changed: Any) -> Deed:
    return lambda at: at.set(**changed)


def env(**changed: str) -> Deed:
    return lambda at: at.env.update(changed)


def file(name: str, mode: int, text: str = "") -> Deed:
    def deed(at: Home) -> None:
        path = at.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    return deed


def swapped(where: Any, name: str, value: Any) -> Deed:
    return lambda at: at.monkeypatch.setattr(where, name, value)


def limits(number: int, soft: int) -> Deed:
    old = local_checkup.resource.getrlimit
    return swapped(local_checkup.resource, "getrlimit", lambda what: (soft, soft) if what == number else old(what))


def mounted(at: Home) -> None:
    read = Path.read_text
    told = f"/dev/sda / ext4 rw 0 0\nserver:/x {at.path} nfs4 rw 0 0\n"
    at.monkeypatch.setattr(Path, "read_text", lambda self, **how: told if str(self) == "/proc/mounts" else read(self, **how))


def elsewhere(at: Home) -> None:
    """`choose another --home`."""
    at.path = at.path.parent / "another"


def used(at: Home) -> None:
    folder = at.path / "logs" / "journal" / "polymarket-paper--main"
    folder.mkdir(parents=True)
    (folder / "journal-1.jsonl").touch()


FREE = 50
BY_WORD: Deed = lambda at: None  # noqa: E731
"""The cure is applied literally."""

LOCAL: list[tuple[str, Deed, str, Deed]] = [
    # check, what breaks it, words of what is then said, the deed of the cure
    ("secrets", file(".env", 0o644), "can be read by others", BY_WORD),
    ("secrets", file(".env", 0o600, "GEMINI_KEY=\nGEMNI_API_KEY=x\n"), "rename it GEMINI_API_KEY", file(".env", 0o600)),
    ("secrets", file(".env", 0o600, "what is this"), "line 1 is not NAME=value", file(".env", 0o600)),
    ("home", mounted, "network filesystem (nfs4)", elsewhere),
    ("past", used, "a home of paper on polymarket", elsewhere),
    (
        "disk",
        settings(logging__journal_total_mb=999_000.0),
        "less than the journals may take",
        settings(logging__journal_total_mb=FREE, logging__journal_max_mb=10),
    ),
    ("kill file", file("KILL", 0o600), "would stop at once", BY_WORD),
    (
        "python",
        swapped(local_checkup.python, "__defaults__", ((3, 10, 4),)),
        "Python 3.10.4",
        swapped(local_checkup.python, "__defaults__", ((3, 11, 0),)),
    ),
    (
        "packages",
        swapped(local_checkup, "shipped", lambda name: "msgspec==0.0.1\n"),
        "tested with 0.0.1",
        swapped(local_checkup, "shipped", lambda name: ""),
    ),
    (
        "open files",
        limits(local_checkup.resource.RLIMIT_NOFILE, 64),
        "64 may be open",
        limits(local_checkup.resource.RLIMIT_NOFILE, 1_024),
    ),
    (
        "memory",
        swapped(local_checkup, "_free_mb", lambda: 100.0),
        "lower paper.markets",
        swapped(local_checkup, "_free_mb", lambda: 900.0),
    ),
    (
        "page port",
        swapped(local_checkup, "_bindable", lambda host, port: errno.EADDRINUSE if port else 0),
        "no port of 8787 to 8807",
        BY_WORD,
    ),
    (
        "page port",
        swapped(local_checkup, "_bindable", lambda host, port: 0 if host == "127.0.0.1" else errno.EADDRNOTAVAIL),
        "",
        BY_WORD,
    ),
    ("page port", settings(console__http_host="0.0.0.0"), "open to whoever reaches", BY_WORD),
    ("page keys", file("positions/http_key", 0o640), "can be read by others", BY_WORD),
    ("logs", settings(logging__level="error"), "logging.level is error", BY_WORD),
    ("risk", settings(risk__bankroll_usd=20_000.0), "more than the paper account holds", BY_WORD),
    ("risk", settings(risk__bankroll_usd=50.0), "the smallest order", BY_WORD),
    ("risk", settings(strategy__base_position_size=150), "more than risk.max_order_usd", BY_WORD),
    ("risk", settings(risk__max_gross_pct=90), "never reached", BY_WORD),
    ("risk", settings(risk__daily_loss_pct=4, risk__max_drawdown_pct=3), "never halts", BY_WORD),
    ("risk", settings(strategy__skew_max_ticks=0), "which loses", BY_WORD),
    ("risk", settings(execution__reprice_ticks=9), "execution.reprice_ticks", BY_WORD),
    ("risk", settings(strategy__refresh_seconds=90_000), "expire", BY_WORD),
    ("alert urls", env(LLM_MAKER_ALERT_URLS="nonsense"), "no scheme", env(LLM_MAKER_ALERT_URLS=ALERT_URL)),
    (
        "alert urls",
        env(LLM_MAKER_ALERT_URLS=f"{ALERT_URL} ntfx://secret-topic"),
        "number 2 (ntfx://...)",
        env(LLM_MAKER_ALERT_URLS=ALERT_URL),
    ),
    ("alert urls", env(LLM_MAKER_TELEGRAM_TOKEN="short-token"), "not like a bot's", lambda at: at.env.clear()),
    ("alert urls", env(LLM_MAKER_TELEGRAM_TOKEN=TOKEN), "no chat may command", settings(alerts__telegram_chats=[7])),
    ("alert urls", settings(alerts__telegram_chats=[7]), "no bot to hear them", BY_WORD),
]


@pytest.mark.parametrize(("name", "broken", "words", "deed"), LOCAL, ids=[f"{row[0]}-{i}" for i, row in enumerate(LOCAL)])
async def test_the_cure_works_without_a_venue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: Deed, words: str, deed: Deed
):
    fit(monkeypatch)
    at = Home(tmp_path / "home", monkeypatch)
    at.path.mkdir()
    if not words:
        at.set(console__http_host="192.0.2.1")
        words = "no address of this machine"
    before = await at.look()
    assert words == "no address of this machine" or {c.name: c for c in before.values() if c.state not in ("ok", "skipped")} == {}
    broken(at)
    ill = await at.look()
    assert ill[name].state in ("warning", "failed") and words in f"{ill[name].text} {ill[name].cure}", ill[name]
    assert {n for n, check in ill.items() if check.state in ("warning", "failed")} == {name}, "nothing else is alarmed"
    if deed is BY_WORD:
        at.config = apply(ill[name].cure, at.config)
    deed(at)
    well = await at.look()
    assert well[name].state == "ok", well[name]


async def test_a_port_that_is_really_taken_moves_the_page(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = local_checkup.page(with_settings(Config(), {"console.http_port": port}), running=False)
    assert check.state == "ok" and f"({port} is taken)" in check.text and f":{port} " not in check.text


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ("/dev/sda / ext4 rw 0 0\n", ""),
        ("srv:/a / nfs rw 0 0\n/dev/sda {home} ext4 rw 0 0\n", ""),
        ("/dev/sda / ext4 rw 0 0\nme@srv: {home} fuse.sshfs rw 0 0\n", "fuse.sshfs"),
        ("", ""),
        ("x\n", ""),
    ],
)
def test_the_nearest_mount_counts(tmp_path: Path, mounts: str, kind: str):
    assert local_checkup.network_disk(tmp_path / "home", mounts.replace("{home}", str(tmp_path))) == kind


def test_a_home_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    check = doctor._home(tmp_path / "file")
    assert check.state == "failed" and "--home" in check.cure


# Real money, over the fakes.


LiveDeed = Callable[[Scene], None]


def keep(name: str, value: str) -> LiveDeed:
    return lambda at: at.env.update({name: value})


def chain(**changes: Any) -> LiveDeed:
    return lambda at: [setattr(at.venue.chain, name, value) for name, value in changes.items()] and None


def account(**changes: Any) -> LiveDeed:
    return lambda at: [setattr(at.account, name, value) for name, value in changes.items()] and None


def hosts(**changes: str) -> LiveDeed:
    return lambda at: at.hosts(**changes)


def given(**changes: Any) -> LiveDeed:
    def deed(at: Scene) -> None:
        at.config = with_settings(at.config, {key.replace("__", "."): value for key, value in changes.items()})

    return deed


def without(name: str) -> LiveDeed:
    return lambda at: at.env.pop(name) and None


def setting(what: str, value: Any) -> LiveDeed:
    return lambda at: setattr(at, what, value)


def blocked(on: bool) -> LiveDeed:
    return lambda at: setattr(at.venue, "blocked", on)


WORD: LiveDeed = lambda at: None  # noqa: E731
NOWHERE = "http://127.0.0.1:1"
LIVE: list[tuple[str, LiveDeed, LiveDeed]] = [
    ("selling", chain(sellable=False), chain(sellable=True)),
    ("risk", given(polymarket__heartbeat=False), WORD),
    ("budget", given(llm__daily_budget_usd=0), WORD),
    ("risk", given(risk__resolution_pull_hours=0, risk__resolution_reduce_hours=0), WORD),
    ("risk", given(risk__stop_exit="maker"), WORD),
    ("risk", given(live__daily_loss_usd=900), WORD),
    ("budget", given(llm__daily_budget_usd=0.01), WORD),
    ("twin", given(twin__enabled=False), WORD),
    ("alert urls", without("LLM_MAKER_ALERT_URLS"), keep("LLM_MAKER_ALERT_URLS", ALERT_URL)),
    ("model", without("OPENAI_API_KEY"), keep("OPENAI_API_KEY", MODEL_KEY)),
    ("model", given(llm__model="gpt-no-such"), given(llm__model="gpt-6-luna")),
    ("clock", setting("skew_s", 2.5), setting("skew_s", 0.0)),
    ("clock", setting("skew_s", -30.0), setting("skew_s", 0.0)),
    ("place", blocked(True), blocked(False)),
    ("clob", hosts(clob=NOWHERE), hosts()),
    ("gamma", hosts(gamma=NOWHERE), hosts()),
    ("data", hosts(data=NOWHERE), hosts()),
    ("relayer", hosts(relayer=NOWHERE), hosts()),
    ("node", hosts(rpc=NOWHERE), hosts()),
    ("node", chain(chain_id=80_002), chain(chain_id=137)),
    ("market socket", hosts(ws_market="ws://127.0.0.1:1/ws"), hosts()),
    ("user socket", hosts(ws_user="ws://127.0.0.1:1/ws"), hosts()),
    ("key", keep("LLM_MAKER_PK", "0x1234"), keep("LLM_MAKER_PK", THROWAWAY_KEY)),
    (
        "wallet",
        keep("LLM_MAKER_BROWSER_ADDRESS", "0x" + "ab" * 20),
        lambda at: at.env.update(LLM_MAKER_BROWSER_ADDRESS=at.account.maker),
    ),
    ("contract", chain(unmade=True), chain(unmade=False)),
    ("standing", account(closed_only=True), account(closed_only=False)),
    ("money", account(cash=Decimal(0)), account(cash=Decimal(1_000))),
    ("money", given(risk__bankroll_usd=50_000), given(risk__bankroll_usd=200)),
    ("merges", chain(approved=False), chain(approved=True)),
    ("merges", without("LLM_MAKER_RELAYER_KEY"), keep("LLM_MAKER_RELAYER_KEY", RELAYER_KEY)),
]
IN_EVERY_RUN = 1
"""Of the rows above; all of them by `make prove`."""


@pytest.mark.parametrize(
    ("name", "broken", "deed"),
    [pytest.param(*row, marks=[] if i < IN_EVERY_RUN else pytest.mark.prove, id=f"{row[0]}-{i}") for i, row in enumerate(LIVE)],
)
async def test_the_cure_works_with_real_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: LiveDeed, deed: LiveDeed
):
    fit(monkeypatch)
    async with scene(tmp_path) as at:
        broken(at)
        ill = (await at.look())[name]
        assert ill.state in ("warning", "failed"), ill
        if deed is WORD:
            at.config = apply(ill.cure, at.config)
        deed(at)
        found = await at.look()
        assert {check.name: check for check in found.values() if check.state != "ok"} == {}
        assert list(found) == EVERYTHING


@pytest.mark.parametrize(("name", "words"), [("core dumps", "ulimit -c 0"), ("user", "a user of its own")])
def test_what_real_money_wants_of_the_process(monkeypatch: pytest.MonkeyPatch, name: str, words: str):
    fit(monkeypatch)
    assert [check.state for check in local_checkup.safety()] == ["ok", "ok"]
    monkeypatch.setattr(local_checkup.os, "geteuid", lambda: 0)
    monkeypatch.setattr(local_checkup.resource, "getrlimit", lambda what: (-1, -1))
    monkeypatch.setattr(local_checkup.sys, "platform", "another")
    check = next(check for check in local_checkup.safety() if check.name == name)
    assert check.state == "warning" and words in check.cure


@pytest.mark.prove
def test_a_core_limit_set_as_the_cure_says_is_seen(tmp_path: Path):
    """`ulimit -c 0`, in a shell of its own."""
    code = "from llm_maker.local_checkup import safety; print(next(c.state for c in safety() if c.name == 'core dumps'))"
    done = subprocess.run(
        ["sh", "-c", f'ulimit -c 0; exec {shlex.quote(sys.executable)} -c "{code}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "ok"
