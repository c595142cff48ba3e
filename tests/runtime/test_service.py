"""What a service manager is told, over a real socket: ready once the loop has run, alive while it turns, nothing once it hangs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_maker.runtime.service import STATUS_SECONDS, Service

HANGS = """
import sys, time
from llm_maker import app, cli, seat
seat.LOOK_SECONDS = 0.02
turns, watch = 0, app.Daemon._watch
def watched(daemon, began):
    global turns
    turns += 1
    watch(daemon, began)
    if turns > 200 and daemon.state.counts.placed:
        print("hangs", flush=True)
        time.sleep(600)
app.Daemon._watch = watched
sys.argv = ["llm-maker", "run", "--home", sys.argv[1], "--speed", "40"]
cli.main()
"""
"""A daemon whose loop stands still after some turns."""


class Manager:
    """The socket that a service manager listens on."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """Every datagram that waits."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    try:
        yield manager
    finally:
        manager.socket.close()


class Hand:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_alive_and_stopping_are_told(tmp_path: Path, abstract: bool):
    name = f"llm-maker-test-{os.getpid()}"
    address, named = ("\0" + name, "@" + name) if abstract else (str(tmp_path / "n"), str(tmp_path / "n"))
    with listening(address) as manager:
        service = Service(lambda: "paper: 3\norders", {"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "3000000"}, Hand())
        service.ready()
        service.alive()
        service.stopping()
        told = ["READY=1\nSTATUS=paper: 3 orders", "WATCHDOG=1", "STOPPING=1\nSTATUS=paper: 3 orders"]
        assert manager.heard() == told


def test_alive_is_told_three_times_in_the_watchdogs_time_and_the_status_now_and_then(tmp_path: Path):
    with listening(str(tmp_path / "n")) as manager:
        clock = Hand()
        service = Service(lambda: "s", {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "9000000"}, clock)
        service.ready()
        heard = manager.heard()[1:]
        for tenth in range(300):
            clock.now = 100 + tenth / 10
            service.alive()
            heard += manager.heard()  # a queue takes ten
        assert heard.count("WATCHDOG=1") == 10
        assert heard.count("STATUS=s") == 29 // STATUS_SECONDS == 1


@pytest.mark.parametrize(("of", "told"), [("ours", 1), ("1", 0), ("", 1)])
def test_a_watchdog_of_another_process_is_not_answered(tmp_path: Path, of: str, told: int):
    with listening(str(tmp_path / "n")) as manager:
        environ = {
            "NOTIFY_SOCKET": str(tmp_path / "n"),
            "WATCHDOG_USEC": "9000000",
            "WATCHDOG_PID": of.replace("ours", str(os.getpid())),
        }
        Service(environ=environ, clock=lambda: 1.0).alive()
        assert manager.heard().count("WATCHDOG=1") == told


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nothing_is_opened_and_no_status_is_made(environ: dict[str, str]):
    asked: list[str] = []
    service = Service(lambda: asked.append("status") or "", {**environ, "WATCHDOG_USEC": "1"})
    service.ready(), service.alive(), service.stopping()
    assert service._socket is None and asked == []


def test_a_manager_that_is_gone_or_does_not_read_stops_nothing(tmp_path: Path):
    service = Service(lambda: "x", {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1"})
    service.ready()
    with listening(str(tmp_path / "nobody")) as manager:
        for _ in range(5_000):
            service.ready()  # far more than a socket's queue takes: it would block
        assert 0 < len(manager.heard()) < 5_000
        service.stopping()
        assert manager.heard() == ["STOPPING=1\nSTATUS=x"]


def test_a_daemon_is_ready_once_it_runs_and_silent_once_its_loop_hangs(tmp_path: Path):
    with listening(str(tmp_path / "n")) as manager:
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "30000"}
        command = [sys.executable, "-c", HANGS, str(tmp_path / "home")]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
            try:
                assert daemon.stdout is not None and daemon.stdout.readline() == "hangs\n"
                heard = manager.heard()
                with pytest.raises(subprocess.TimeoutExpired):
                    daemon.wait(0.5)  # fifty times the interval: it lives, and says no more
                assert manager.heard() == []
            finally:
                daemon.kill()
    assert heard[0].startswith("READY=1\nSTATUS=paper, active: equity $")
    assert heard.count("WATCHDOG=1") >= 1 and not any("STOPPING" in words for words in heard)
