"""The private key and the other secrets where a process may let them out: words of an object, copies, tracebacks with their locals,
what is told of a fault, core dumps. Every key here is worth nothing anywhere."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import subprocess
import sys
import traceback
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from rich.console import Console
from rich.traceback import Traceback

from llm_maker import app, cli_shared
from llm_maker.config import Config
from llm_maker.config_text import ConfigError
from llm_maker.core.commands import Level
from llm_maker.keys import SECRET_NAMES, Secrets, read_env
from llm_maker.runtime.daemon_log import DaemonLog
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain import transactions
from llm_maker.venues.polymarket.chain.relayer import Turn
from llm_maker.venues.polymarket.orders.sign import Signer
from llm_maker.world import Refused

DIGITS = "c0ffee" * 10 + "abcd"
"""A private key of nobody."""
PK = "0x" + DIGITS
TOKEN = "123456789:THROWAWAY-bot-token"
URLS = f"tgram://{TOKEN}/4242 mailto://me:THROWAWAY%20pass@mail.example ntfy://THROWAWAYtopic json://127.0.0.1:9/THROWAWAYpath?key=THROWAWAYq"
ENV = {"LLM_MAKER_PK": PK, "LLM_MAKER_ALERT_URLS": URLS, "LLM_MAKER_TELEGRAM_TOKEN": TOKEN, "OPENAI_API_KEY": "THROWAWAY-a+b/c=="}


def lets_out(text: str) -> bool:
    """Whether the key stands there in any form: digits, bytes as Python shows them, a number."""
    raw = bytes.fromhex(DIGITS)
    forms = (DIGITS, repr(raw)[2:-1], str(int(DIGITS, 16)), repr(list(raw))[1:-1])
    return any(form.lower() in text.lower() for form in forms) or "THROWAWAY" in text


def test_the_search_finds_a_key_in_any_form():
    raw = bytes.fromhex(DIGITS)
    assert all(map(lets_out, (PK, PK.upper(), repr(raw), f"{raw!r}", str(int(DIGITS, 16)), str(list(raw)))))
    assert not lets_out("0x" + "ab" * 32)


# Objects.

HOLDERS: dict[str, Callable[[], Any]] = {
    "secrets": lambda: Secrets(ENV),
    "a secret": lambda: Secrets(ENV).get("LLM_MAKER_PK"),
    "all of them": lambda: Secrets(ENV).values(),
    "signer": lambda: Signer(PK),
    "environment": lambda: read_env(Path("nowhere"), ENV),
}
holders = pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)


@holders
def test_what_holds_a_key_does_not_show_it(make: Callable[[], Any]):
    held = make()
    shown = [
        repr(held),
        f"{[held]}",
        pprint.pformat({"a": held}),
        f"{held!r:>9}",
        repr(vars(held)) if hasattr(held, "__dict__") else "",
    ]
    out = StringIO()
    Console(file=out, width=200).print({"held": [held]})
    assert not any(map(lets_out, [*shown, out.getvalue()]))


@pytest.mark.parametrize("name", ["secrets", "a secret", "signer"])
@pytest.mark.parametrize(
    "store", [copy.copy, copy.deepcopy, pickle.dumps, lambda held: pickle.dumps([held], 0), lambda held: copy.deepcopy({"a": held})]
)
def test_what_holds_a_key_is_neither_copied_nor_pickled(name: str, store: Callable[[Any], Any]):
    with pytest.raises(TypeError) as caught:
        store(HOLDERS[name]())
    assert not lets_out(str(caught.value))


@pytest.mark.parametrize("name", ["secrets", "signer"])
@pytest.mark.parametrize("encode", [json.dumps, msgspec.json.encode, msgspec.to_builtins, vars, dict, dataclasses.asdict])
def test_what_holds_a_key_becomes_no_json(name: str, encode: Callable[[Any], Any]):
    with pytest.raises(TypeError) as caught:
        encode(HOLDERS[name]())
    assert not lets_out(str(caught.value))


# Tracebacks, with the locals of every frame.


def _broken_env(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"LLM_MAKER_PK={PK}\nOPENAI_API_KEY='unclosed\n")
    cli_shared.read(tmp_path / "config.yaml", {}, tmp_path)


def _broken_config(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in ENV.items()))
    (tmp_path / "config.yaml").write_text("mode: wrong\n")
    cli_shared.read(tmp_path / "config.yaml", {}, tmp_path)


def _no_key(tmp_path: Path) -> None:
    Signer(Secrets({"LLM_MAKER_PK": PK + "00"}).get("LLM_MAKER_PK") or "")


def _no_digest(tmp_path: Path) -> None:
    Signer(Secrets(ENV).get("LLM_MAKER_PK") or "").sign(b"too short")


def _wrong_wallet(tmp_path: Path) -> None:
    wallet = Wallet(WalletKind.PROXY, "0x" + "11" * 20, "0x" + "22" * 20)
    key = Secrets(ENV).get("LLM_MAKER_PK") or ""
    transactions.signed_envelope(key, wallet, _CALL, Turn("0x" + "33" * 20, "1"), gas=1, deadline=1, note="")


def _not_signable(tmp_path: Path) -> None:
    key = Secrets(ENV).get("LLM_MAKER_PK") or ""
    transactions.signed_raw(key, _CALL, nonce="nonsense", gas=1, gas_price=1)  # type: ignore[arg-type]


_CALL = transactions.Call("0x" + "44" * 20, "0x")


@pytest.mark.parametrize("fails", [_broken_env, _broken_config, _no_key, _no_digest, _wrong_wallet, _not_signable])
def test_no_traceback_holds_the_key_even_with_all_locals(
    fails: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLM_MAKER_PK", PK)
    try:
        fails(tmp_path)
    except (ConfigError, ValueError, AssertionError, transactions.CannotSign) as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        out = StringIO()
        Console(file=out, width=300).print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    else:
        raise AssertionError("it did not fail")
    # This file's own frames name the key, and are not the program's.
    ours = told[told.index(fails.__name__) :]
    assert "key" in told and not lets_out(ours), ours
    assert DIGITS not in out.getvalue()


# What is told of a fault.


def forms() -> list[str]:
    """Every way in which something foreign may say a secret back."""
    found = [PK, DIGITS, DIGITS.upper(), URLS, *URLS.split(), TOKEN, TOKEN.partition(":")[2], "THROWAWAY%20pass", "THROWAWAY pass"]
    return [*found, "THROWAWAYtopic", "THROWAWAYpath", "THROWAWAYq", "THROWAWAY-a+b/c==", "THROWAWAY-a%2Bb%2Fc%3D%3D"]


def test_a_fault_is_told_without_any_form_of_a_secret(tmp_path: Path):
    shown: list[str] = []
    log = DaemonLog(tmp_path / "daemon.jsonl", Secrets(ENV).values(), "debug", shown.append)
    log.also = lambda ts, notice: shown.append(notice.text)
    for form in forms():
        try:
            raise ValueError(f"a library says {form!r}")
        except ValueError as error:
            log.fault(error, ["o1"])
        log.say(Level.WARNING, "venue", f"could not reach {form}: 127.0.0.1:8787 and mail.example")
    log.close()
    written = (tmp_path / "daemon.jsonl").read_text()
    assert not lets_out(written) and not any(map(lets_out, shown))
    assert written.count("ValueError: a library says '***'") >= len(forms())
    assert "127.0.0.1:8787 and mail.example" in written, "a host is no secret"


def test_the_whole_story_of_a_fault_is_kept_for_its_owner_without_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(typer.Exit), cli_shared.faults(tmp_path, Secrets(ENV).values()):
        raise KeyError("\n".join(forms()))
    story = tmp_path / "logs" / "fault.txt"
    assert story.stat().st_mode & 0o077 == 0
    assert "Traceback" in story.read_text() and not lets_out(story.read_text() + capsys.readouterr().err)


def test_no_secret_is_so_short_that_it_would_blank_out_words():
    env = dict.fromkeys(SECRET_NAMES, "x") | {"LLM_MAKER_PK": "0x", "LLM_MAKER_ALERT_URLS": "ntfy://a/b"}
    assert set(Secrets(env).values()) == {"x", "0x", "ntfy://a/b", "ntfy%3A%2F%2Fa%2Fb"}
    assert list(Secrets(ENV).values()) == sorted(Secrets(ENV).values(), key=lambda form: (-len(form), form)), "the longest first"


# The memory of the process.

LOOKS = """
import ctypes, resource
from llm_maker.runtime.memory_guard import keep_private
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
said = keep_private()
print([before, said, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux's")
def test_a_process_that_is_kept_private_leaves_no_core_and_lets_nobody_attach():
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, '', 0, (0, 0)]\n"


@pytest.mark.parametrize(("mode", "kept"), [("live", True), ("paper", False)])
def test_a_live_run_keeps_its_memory_private_before_anything_else(
    mode: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app, "keep_private", lambda: "it cannot be done")
    monkeypatch.setattr(app, "lock_home", lambda positions: (_ for _ in ()).throw(Refused("locked")))
    config = Config.model_validate({"mode": mode, "venue": "polymarket", "llm": {"provider": "none"}, "risk": {"bankroll_usd": 10}})
    with pytest.raises(Refused, match="it cannot be done" if kept else "locked"):
        app.Daemon(config, Secrets(ENV), tmp_path, app.Options(), lambda line: None)
