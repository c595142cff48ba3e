"""Locks: a second instance is refused with the pid of the first, and a dead one holds nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import llm_maker
from llm_maker.runtime.locks import AlreadyRunning, LockUnavailable, lock_home, lock_wallet

ROOT = Path(llm_maker.__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from llm_maker.runtime.locks import lock_home
lock = lock_home(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_instance_on_the_same_home_is_refused_and_a_killed_one_frees_it(tmp_path):
    positions = tmp_path / "positions"
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(positions)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning) as refused:
            lock_home(positions)
        assert refused.value.pid == child.pid
        assert str(child.pid) in str(refused.value)
        assert "\n" not in str(refused.value)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    with lock_home(positions):
        assert (positions / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_refused_one_leaves_the_holders_pid_in_place(tmp_path):
    with lock_home(tmp_path):
        for _ in range(2):
            with pytest.raises(AlreadyRunning):
                lock_home(tmp_path)
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_longer_pid_of_a_dead_instance_leaves_no_trace(tmp_path):
    (tmp_path / ".lock").write_text("123456789012\n")
    with lock_home(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_released_is_free_and_releasing_twice_is_once(tmp_path):
    lock = lock_home(tmp_path)
    lock.release()
    lock.release()
    lock_home(tmp_path).release()


def test_one_live_daemon_per_wallet_whatever_its_case(tmp_path):
    with lock_wallet(tmp_path, "0xAbC1"):
        with pytest.raises(AlreadyRunning, match="0xabc1"):
            lock_wallet(tmp_path, "0xabc1")
        lock_wallet(tmp_path, "0xabc2").release()


def test_a_wallet_name_cannot_leave_its_directory(tmp_path):
    state = tmp_path / "state"
    lock_wallet(state, "../../evil").release()
    assert [path.parent for path in tmp_path.rglob("*.lock")] == [state]


def test_a_place_that_cannot_hold_a_lock_is_another_error(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(LockUnavailable):
        lock_home(blocker / "positions")
