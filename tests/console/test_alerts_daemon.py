"""Alarms of the wiring by their real causes, in whole daemons: each received by a webhook, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_maker import app
from llm_maker.config import load
from llm_maker.core.events import StopRequested
from llm_maker.keys import Secrets
from llm_maker.runtime.ledger import LedgerError
from tests.console.test_alarms import PROVED, WIRED
from tests.console.webhook import Webhook
from tests.fakes.model_server import ModelServer
from tests.rehearsal.stage import Rehearsal
from tests.slow import named, single
from tests.test_secrets import serving

SOON_S = 20.0
BUSY = {"seed": 11, "paper.markets": 3, "paper.activity": 150.0}


def daemon_of(home: Path, hook: Webhook, **settings: Any) -> app.Daemon:
    secrets = {
        "LLM_MAKER_ALERT_URLS": hook.url(),
        "LLM_MAKER_TELEGRAM_TOKEN": "1:throwaway-bot-token",
        "OPENAI_API_KEY": "throwaway-key",
    }
    config = load(None, {}, BUSY | {key.replace("__", "."): value for key, value in settings.items()})
    return app.Daemon(config, Secrets(secrets), home, app.Options(speed=20.0), lambda line: None)


def codes(hook: Webhook) -> Counter[str]:
    return Counter(body.splitlines()[-1].partition(",")[0] for _, _, body in hook.messages)


class Hands:
    """Breaks a running daemon's world, one thing after the other; ends it when all alarms are there, or when it takes too long."""

    def __init__(self, daemon: app.Daemon, hook: Webhook, wanted: set[str], breaks: list[Callable[[app.Daemon], None]]) -> None:
        self.daemon, self.hook, self.wanted, self.breaks = daemon, hook, wanted, breaks
        self.began = time.monotonic()

    def __call__(self) -> None:
        daemon = self.daemon
        if daemon.state.counts.placed and self.breaks:
            self.breaks.pop(0)(daemon)
        if set(codes(self.hook)) >= self.wanted or time.monotonic() - self.began > SOON_S:
            raise ZeroDivisionError("a fault of our own, by a test")


def no_ledger(daemon: app.Daemon) -> None:
    with contextlib.closing(sqlite3.connect(daemon.ledger.path)) as beside:
        beside.execute("ALTER TABLE progress RENAME TO elsewhere")


def no_twin(daemon: app.Daemon) -> None:
    def broken(now: int) -> None:
        raise KeyError("a bug of the shadow's")

    daemon.twins._kept["twin"].shadow.exchange._inner.advance = broken


@pytest.mark.prove
def test_what_a_whole_daemon_has_to_tell_arrives_once(tmp_path: Path):
    """No socket, no page, a full log, no ledger, a broken twin, no Telegram; then a fault, and a start after it."""
    (tmp_path / "positions" / "control.sock").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "executions.jsonl").symlink_to("/dev/full")
    chat = {"alerts__telegram_chats": (7,), "alerts__telegram_host": "http://127.0.0.1:9"}
    page = {"console__http": True, "console__http_host": "192.0.2.1", "console__http_port": 0}
    first = WIRED - {"fault", "restarted_after_crash"}
    with Webhook() as hook:
        daemon = daemon_of(tmp_path, hook, **chat, **page)
        try:
            with pytest.raises(ZeroDivisionError):
                asyncio.run(daemon.run(Hands(daemon, hook, first, [no_ledger, no_twin])))
        finally:
            with contextlib.suppress(LedgerError):  # it says once more that it could not be written
                daemon.close()
        assert {code: codes(hook)[code] for code in sorted(first | {"fault"})} == dict.fromkeys(sorted(first | {"fault"}), 1)
        with contextlib.closing(sqlite3.connect(daemon.ledger.path)) as beside:
            beside.execute("ALTER TABLE elsewhere RENAME TO progress")

        again = daemon_of(tmp_path, hook)

        def stop_soon() -> None:
            if codes(hook)["restarted_after_crash"] or time.monotonic() - began > SOON_S:
                assert again.inbox is not None
                again.inbox.put(StopRequested("seen"), again.account.name)

        began = time.monotonic()
        try:
            assert asyncio.run(again.run(stop_soon)), "a clean stop"
        finally:
            again.close()
        third = daemon_of(tmp_path, hook)
        third.seat._tell_of_start()
        third.close()
    assert codes(hook)["restarted_after_crash"] == 1, "after the crash, and not after the stop in order"
    told = json.dumps(hook.messages)
    assert "PAPER, SIMULATED" in told and "throwaway" not in told


# At full size: fakes of a model's server and of a venue.


def wait_until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


@pytest.mark.prove
def test_a_model_and_a_search_that_refuse_are_told_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llm_maker.llm.scout._LOOK_S", 0.1)
    with serving(ModelServer(fault=lambda seen: "401", key=None)) as server, Webhook() as hook:
        llm = single("openai", server) | {"llm.news": named("openai", server)}
        daemon = daemon_of(tmp_path, hook, **llm, **{"strategy.decision_interval": 20.0, "strategy.refresh_seconds": 20.0})
        try:
            with pytest.raises(ZeroDivisionError):
                asyncio.run(daemon.run(Hands(daemon, hook, {"llm", "news"}, [])))
        finally:
            daemon.close()
    assert {code: codes(hook)[code] for code in ("llm", "news")} == {"llm": 1, "news": 1}


class Told(Rehearsal):
    """A rehearsal whose daemon tells a webhook."""

    hook: Webhook

    def _env(self) -> dict[str, str]:
        return super()._env() | {"LLM_MAKER_ALERT_URLS": self.hook.url()}


@pytest.mark.prove
@pytest.mark.timeout(240)
@pytest.mark.parametrize("code", sorted(PROVED - {"llm", "news"}))
def test_what_the_venue_refuses_is_told_once(tmp_path: Path, code: str):
    """No market passes; the credentials are refused; the heartbeat is refused."""
    nothing = {"select": "listed", "include": ["no-such-market"]}
    settings: dict[str, Any] = {"market_selection": nothing} if code == "discovery" else {}
    with Webhook() as hook, Told(tmp_path, 5, 5.0, mode="paper" if code == "discovery" else "live", **settings) as stage:
        stage.hook = hook
        if code == "account":
            stage.background.call(stage.faults.on, "error_500", 1.0, only="auth")
        stage.start()
        if code == "venue":
            stage.until(lambda status: True, 600)
            stage.background.call(stage.faults.on, "error_500", 1.0, only="heartbeat")
        wait_until(lambda: hook.got(code))
        stage.background.call(stage.faults.calm)
        stage.kill()
        assert len(hook.got(code)) == 1, codes(hook)
