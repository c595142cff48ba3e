"""Alarms on their way: each once, not too many, worse ones first; and no service, however dead, is felt by the loop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_maker import cli
from llm_maker.config_console import Alerts as Settings
from llm_maker.console import alerts as module
from llm_maker.console import sender
from llm_maker.console.alerts import MOST_HEARD, MOST_WAITING, TRIES, Alerts
from llm_maker.console.sender import MOST_LEFT_BEHIND, Hands, Service, name_of
from llm_maker.core.commands import Level, Notice
from llm_maker.keys import Secrets
from llm_maker.runtime.daemon_log import DaemonLog
from tests.console.webhook import Webhook
from tests.core.builders import T0

W, E, INFO = Level.WARNING, Level.ERROR, Level.INFO


class FakeService:
    """Takes everything, unless it is told to fail or to hang."""

    made: list[FakeService]
    why = ""

    def __init__(self, url: str) -> None:
        self.name, self.got = url, []
        self.why, self.tries = "", 0
        self.hold = threading.Event()
        self.hold.set()
        FakeService.made.append(self)

    def load(self) -> str:
        return ""

    def send(self, title: str, body: str, level: Level) -> str:
        self.tries += 1
        self.hold.wait(20)
        if not self.why:
            self.got.append((title, body))
        return self.why


class Clock:
    """Monotonic seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[[], FakeService]:
    FakeService.made = []
    monkeypatch.setattr(module, "Service", FakeService)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_PAUSE_MAX_S", 0.03)
    return lambda: FakeService.made[0]


class Said(list[tuple[Level, str, str]]):
    def __call__(self, level: Level, code: str, text: str) -> None:
        self.append((level, code, text))


@asynccontextmanager
async def running(alerts: Alerts) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(alerts.run(lambda event: None))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert true()


def made(urls: str = "one", clock: Clock | None = None, say: Any = lambda *of: None, **settings: Any) -> Alerts:
    return Alerts(Settings(**settings), urls, "main on v, PAPER", say, clock=clock or Clock())


async def codes_sent(alerts: Alerts, service: Callable[[], FakeService]) -> list[str]:
    """What has been delivered when all that can leave has left."""
    async with running(alerts):
        await until(lambda: not alerts._heard and not any(line.waiting for line in alerts._lines))
    return [body.splitlines()[-1].partition(",")[0] for _, body in service().got]


# What is sent, and how often.


async def test_the_same_again_is_counted_and_told_when_its_time_has_come(service: Callable[[], FakeService]):
    clock = Clock()
    alerts = made(clock=clock, repeat_minutes=30)
    for _ in range(13):
        alerts.hear(T0, Notice(W, "drift", "shares are missing"))
    alerts.hear(T0, Notice(W, "drift", "shares are missing", "other"))
    clock.now += 30 * 60
    alerts.hear(T0, Notice(W, "drift", "still"))
    assert await codes_sent(alerts, service) == ["drift"] * 3
    bodies = [body for _, body in service().got]
    assert "raised 12 times since 2026-01-01 00:00:00 UTC" in bodies[2] and "times since" not in bodies[0] + bodies[1]


async def test_what_got_worse_is_sent_at_once(service: Callable[[], FakeService]):
    alerts = made()
    for level in (W, W, E, E, W):
        alerts.hear(T0, Notice(level, "venue", "the heartbeat"))
    assert await codes_sent(alerts, service) == ["venue", "venue"]
    assert [title.split()[0] for title, _ in service().got] == ["WARNING", "ERROR"]


@pytest.mark.parametrize(
    ("first", "between", "again"),
    [
        ("halt_drawdown", "operator_resume", "halt_drawdown"),
        ("halt_daily_loss", "halt_daily_loss_over", "halt_daily_loss"),
        ("fallback", "fallback_over", "fallback"),
        ("trouble_over", "trouble_lasts", "trouble_over"),
    ],
)
async def test_what_was_over_is_news_when_it_comes_back(service: Callable[[], FakeService], first: str, between: str, again: str):
    alerts = made()
    for code in (first, between, again):
        alerts.hear(T0, Notice(E, code, "x"))
    assert (await codes_sent(alerts, service)).count(first) == 2


async def test_level_and_mute_are_respected_and_the_summary_comes_all_the_same(service: Callable[[], FakeService]):
    said = Said()
    alerts = made(level="error", mute=("halt_cash", "halt_cahs"), say=said)
    for level, code in ((W, "drift"), (E, "halt_cash"), (E, "halt_drift"), (INFO, "daily_summary"), (E, "overfill"), (W, "gap")):
        alerts.hear(T0, Notice(level, code, "x"))
    assert await codes_sent(alerts, service) == ["halt_drift", "daily_summary", "overfill"]
    assert [text for _, code, text in said if code == "alerts"] == [
        "alerts.mute: no alarm has the code 'halt_cahs'; did you mean 'halt_cash'?"
    ]


async def test_what_is_only_shown_is_sent_to_nobody(service: Callable[[], FakeService]):
    alerts = made(level="info")
    for code in ("gap", "venue_down", "operator_pause", "alerts", "llm_failed"):
        alerts.hear(T0, Notice(E, code, "x"))
    assert await codes_sent(alerts, service) == []


async def test_a_storm_is_held_back_and_comes_as_one_while_an_error_still_gets_through(service: Callable[[], FakeService]):
    clock = Clock()
    alerts = made(clock=clock, max_per_hour=10)
    async with running(alerts):
        for n in range(40):
            alerts.hear(T0, Notice(W, "order_rejected", "balance", f"m{n:02}"))
        alerts.hear(T0, Notice(E, "halt_drawdown", "drawdown"))
        await until(lambda: len(service().got) == 9 and not alerts._heard)
        await asyncio.sleep(0.1)
        assert len(service().got) == 9, "eight of ten for warnings, and the error"
        clock.now += 3_601
        await until(lambda: len(service().got) == 10)
    title, body = service().got[-1]
    assert (
        title.startswith("WARNING 32 alarms were held back") and "order_rejected [m08]: balance" in body and "and 12 more" in body
    )
    assert service().got[8][0].startswith("ERROR")


async def test_what_is_held_back_leaves_with_the_last_words(service: Callable[[], FakeService]):
    alerts = made(max_per_hour=1)
    async with running(alerts):
        for n in range(3):
            alerts.hear(T0, Notice(E, "overfill", "x", f"m{n}"))
        await until(lambda: len(service().got) == 1)
        await alerts.farewell(5.0)
    assert [title.split(" [")[0] for title, _ in service().got][1] == "ERROR 2 alarms were held back"


async def test_a_message_says_who_speaks_what_it_means_and_what_helps(service: Callable[[], FakeService]):
    alerts = Alerts(
        Settings(), "one", "main on v, PAPER, SIMULATED", lambda *of: None, question=lambda market: f"Will {market}\x1b[2J win?"
    )
    alerts.hear(T0, Notice(W, "exit_stop", "stop: leaving\nat mid\x07 0.47", "0xabc"))
    async with running(alerts):
        await until(lambda: service().got)
    ((title, body),) = service().got
    assert title == "WARNING a stop-loss [main on v, PAPER, SIMULATED]"
    assert body.splitlines() == [
        "stop: leaving at mid 0.47",
        "market: Will 0xabc [2J win? 0xabc",
        "what to do: `llm-maker why 0xabc`; nothing, or `risk.stop_exit: maker`",
        "exit_stop, market time 2026-01-01 00:00:00 UTC",
    ]


# Services that are not well.


async def test_a_message_is_tried_again_and_arrives_once(service: Callable[[], FakeService]):
    said = Said()
    alerts = made(say=said)
    service().why = "it answered 503"
    alerts.hear(T0, Notice(E, "overfill", "x"))
    async with running(alerts):
        await until(lambda: service().tries == 2)
        service().why = ""
        await until(lambda: service().got)
        await asyncio.sleep(0.1)
    assert len(service().got) == 1
    assert [(level, code) for level, code, _ in said] == [(W, "alerts"), (INFO, "alerts")]
    assert said[0][2] == "one (address 1 of 1) takes no alarm: it answered 503; tried again, trading goes on"


async def test_a_message_is_given_up_after_some_tries_and_the_loss_is_told(service: Callable[[], FakeService]):
    alerts = made()
    service().why = "no"
    alerts.hear(T0, Notice(E, "overfill", "first"))
    async with running(alerts):
        await until(lambda: not any(line.waiting for line in alerts._lines) and service().tries == TRIES)
        service().why = ""
        alerts.hear(T0, Notice(E, "halt_drift", "second"))
        await until(lambda: service().got)
    ((_, body),) = service().got
    assert "1 alarms before this one were too many, or could not be delivered here" in body and body.startswith("second")


async def test_nothing_that_waits_grows_without_bound(service: Callable[[], FakeService]):
    alerts = made("one two", max_per_hour=1_000)
    for n in range(3 * MOST_HEARD):
        alerts.hear(T0, Notice(E, "overfill", "x", f"m{n}"))
    assert len(alerts._heard) == MOST_HEARD and alerts._dropped == 2 * MOST_HEARD
    service().hold.clear()
    async with running(alerts):
        await until(lambda: alerts._lines[0].lost == 3 * MOST_HEARD - MOST_WAITING)
        assert len(alerts._lines[0].waiting) == MOST_WAITING
        service().hold.set()
        await until(lambda: len(service().got) >= MOST_WAITING)
    assert f"{3 * MOST_HEARD - MOST_WAITING} alarms before this one were too many" in service().got[0][1]
    assert len(service().got) == MOST_WAITING and service().got[-1][1].splitlines()[1] == f"market: m{3 * MOST_HEARD - 1}"


async def test_without_a_service_nothing_runs_and_nothing_is_kept():
    alerts = made("")
    before = set(threading.enumerate())
    async with running(alerts):
        for n in range(10):
            alerts.hear(T0, Notice(E, "overfill", "x", f"m{n}"))
        await asyncio.sleep(0.05)
        await alerts.farewell(5.0)
    assert not alerts._heard and not alerts._seen and set(threading.enumerate()) <= before


async def test_calls_that_hang_are_left_behind_and_never_more_than_a_few():
    hands, hold = Hands(), threading.Event()
    began = set(threading.enumerate())

    def hang() -> str:
        hold.wait(20)
        return ""

    said = [await hands.do(hang, lambda: 0.0) for _ in range(MOST_LEFT_BEHIND + 4)]
    assert said[MOST_LEFT_BEHIND:] == [f"{MOST_LEFT_BEHIND} calls hang"] * 4
    assert len(set(threading.enumerate()) - began) == MOST_LEFT_BEHIND
    hold.set()
    await until(lambda: set(threading.enumerate()) <= began)
    assert await hands.do(lambda: "back", lambda: time.monotonic() + 5) == "back"
    hands.end()


async def test_the_last_words_wait_for_nobody_who_hangs(service: Callable[[], FakeService]):
    alerts = made("hangs well", repeat_minutes=0)
    hangs, well = FakeService.made
    hangs.hold.clear()
    async with running(alerts):
        alerts.hear(T0, Notice(E, "fault", "a bug"))
        began = time.monotonic()
        await alerts.farewell(1.0)
        took = time.monotonic() - began
    hangs.hold.set()
    assert took < 5.0, "bounded, whatever the machine is busy with"
    assert [title.split(" [")[0] for title, _ in well.got] == ["ERROR a bug of ours ended the daemon"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_dead_services_are_not_felt_by_the_loop_nor_by_the_one_that_works(monkeypatch: pytest.MonkeyPatch):
    """Refused, hanging, failing, slow: the loop ticks on, and the one that works has its message."""
    monkeypatch.setattr(module, "CALL_SECONDS", 0.8)
    ticks, said = 0, Said()

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    await asyncio.to_thread(Service("json://127.0.0.1:1/x").load)
    with Webhook() as well, Webhook() as hangs, Webhook() as fails, Webhook() as slow:
        hangs.hang_s, fails.status, slow.hang_s = 20.0, 500, 0.3
        urls = " ".join(
            (hangs.url(), f"json://127.0.0.1:{free_port()}/refused", fails.url(), slow.url(), "xx:/nothing", well.url("token12345"))
        )
        alerts = Alerts(Settings(), urls, "main", said)
        ticking = asyncio.create_task(tick())
        async with running(alerts):
            for code in ("overfill", "halt_drift"):
                alerts.hear(T0, Notice(E, code, "x"))
            await until(lambda: len(well.messages) == 2 and slow.messages and fails.asked and hangs.asked, 15.0)
        ticking.cancel()
        assert ticks > 100, "the loop went on while they hung"
        assert len(well.got("overfill", "/token12345")) == 1
    text = "\n".join(line for _, _, line in said)
    assert "an unknown service (address 5 of 6) is not an address that apprise knows" in text and "it answered 500" in text
    assert "no answer in" in text and "token12345" not in text


# Secrets.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("json://user:pass@127.0.0.1:8080/token", "json://127.0.0.1"),
        ("jsons://hooks.example.org/services/T0/B0", "jsons://hooks.example.org"),
        ("discord://123456789012/abcdefGHIJ", "discord"),
        ("tgram://123456789:abcdefGHIJ/12345", "tgram"),
        ("slack://TokenA/TokenB/TokenC", "slack"),
        ("ntfy://mysecrettopic", "ntfy"),
        ("ntfys://ntfy.example.org/mysecrettopic", "ntfys://ntfy.example.org"),
        ("mailto://me:secret@gmail.com", "mailto://gmail.com"),
        ("json://SecretKeyWithoutDots", "json"),
        ("nonsense", "an unknown service"),
        ("json://[", "json"),
    ],
)
def test_a_service_is_named_without_its_secrets(url: str, shown: str):
    assert name_of(url) == shown


THROWAWAY = {
    "LLM_MAKER_PK": "0x" + "5ec2e7" * 10 + "beef",
    "GEMINI_API_KEY": "throwaway-gemini-key-000",
    "LLM_MAKER_API_SECRET": "throwaway-api-secret-111",
}


async def test_no_secret_is_in_a_message_whatever_a_market_or_a_notice_says(service: Callable[[], FakeService], tmp_path: Path):
    """Throwaway keys planted in a question, in a notice and in an address."""
    url = "json://user:throwaway-password-222@127.0.0.1/throwaway-token-333"
    secrets = Secrets({**THROWAWAY, "LLM_MAKER_ALERT_URLS": url})
    log = DaemonLog(tmp_path / "daemon.jsonl", secrets.values(), "error", lambda line: None)
    planted = [*THROWAWAY.values(), THROWAWAY["LLM_MAKER_PK"][2:], url, "throwaway-password-222", "throwaway-token-333"]
    alerts = Alerts(
        Settings(max_per_hour=1_000),
        url,
        "main",
        log.say,
        hide=log.redacted,
        question=lambda market: f"Will {' '.join(planted)} win?",
    )
    log.also = alerts.hear
    for n, secret in enumerate(planted):
        log.notice(T0, Notice(E, "overfill", f"look: {secret}!", f"m{n}"))
    log.fault(ValueError(" ".join(planted)), [])
    async with running(alerts):
        await until(lambda: len(service().got) == len(planted) + 1)
    everything = json.dumps(service().got) + (tmp_path / "daemon.jsonl").read_text()
    assert [secret for secret in planted if secret in everything] == [] and "look: ***!" in everything
    log.close()


# The verb.


def verb(home: Path, monkeypatch: pytest.MonkeyPatch, urls: str, *args: str) -> Any:
    monkeypatch.chdir(home)
    monkeypatch.setenv("LLM_MAKER_ALERT_URLS", urls)
    return CliRunner().invoke(cli.app, ["alerts", "--home", str(home), *args])


def test_the_verb_tries_every_service_and_says_which_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Webhook() as well, Webhook() as fails:
        fails.status = 500
        done = verb(tmp_path, monkeypatch, f"{well.url('throwaway-token')} {fails.url('throwaway-other')}", "--test")
        assert done.exit_code == 1 and done.output.splitlines() == [
            "ok     json://127.0.0.1",
            "failed json://127.0.0.1: it answered 500",
        ]
        assert len(well.messages) == 1 and "this is a test" in well.messages[0][1]
        fails.status = 200
        done = verb(tmp_path, monkeypatch, f"{well.url()} {fails.url()}", "--test", "--json")
        assert done.exit_code == 0 and json.loads(done.stdout)["ok"] is True


def test_the_verb_without_a_service_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = verb(tmp_path, monkeypatch, "", "--test")
    assert done.exit_code == 1 and "LLM_MAKER_ALERT_URLS" in done.output


def test_the_verb_lists_services_and_codes_and_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = verb(tmp_path, monkeypatch, "discord://123456789012/throwaway-token json://u:throwaway-pass@localhost/throwaway-path")
    assert done.exit_code == 0 and "discord, json://localhost" in done.output and "* halt_drawdown" in done.output
    assert "throwaway" not in done.output and "123456789012" not in done.output
    told = json.loads(verb(tmp_path, monkeypatch, "discord://123456789012/throwaway-token", "--json").stdout)
    assert told["services"] == ["discord"] and told["codes"]["gap"]["sent"] is False and "throwaway" not in json.dumps(told)


def test_what_apprise_says_never_reaches_the_terminal(capfd: pytest.CaptureFixture[str]):
    """Its own lines name hosts and addresses."""
    port = free_port()
    assert Service(f"json://127.0.0.1:{port}/throwaway-token").send("t", "b", E) == "refused, or not reached"
    assert sender.CALL_SECONDS > 0
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


def test_words_of_a_market_are_words_for_a_service_of_html_too():
    """A lone `<` would make such a service refuse the alarm for good, and marks would be a stranger's links in a mail of ours."""
    with Webhook() as hook:
        assert Service(f"{hook.url()}?format=html").send("ERROR x", "Will A & B be < 5 <a href=http://x>now</a>?", E) == ""
    (_, title, body), *rest = hook.messages
    assert not rest and title == "ERROR x" and "&lt;" in body and "&amp;" in body and "<" not in body
