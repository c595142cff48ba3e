"""Who may run: one daemon per home, one live daemon per wallet. Kernel locks, which end with their process.

It refuses to guess from a pid whether a process lives; the pid in the file is only for the message.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path
from types import TracebackType

_PLAIN = re.compile(r"[0-9a-z]{1,80}")


class AlreadyRunning(Exception):
    """Another process holds the lock; one line, with its pid."""

    def __init__(self, what: str, pid: int | None) -> None:
        super().__init__(f"another llm_maker (pid {pid or 'unknown'}) {what}")
        self.pid = pid


class LockUnavailable(Exception):
    """The lock file cannot be opened or locked at all (permission, a read-only disk); one line."""


class Lock:
    """An exclusive lock on one file, taken at construction and held until `release` or the process's end.

    The file is never deleted: a second process that opened it before the deletion would lock a file nobody sees.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LockUnavailable(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            pid = self._holder()
            self.release()
            raise AlreadyRunning(what, pid) from error
        except OSError as error:
            self.release()
            raise LockUnavailable(f"{path}: {error.strerror}") from error

    def release(self) -> None:
        """Give the lock back; twice is once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _holder(self) -> int | None:
        text = os.pread(self._fd, 32, 0).strip()
        return int(text) if text.isdigit() else None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def lock_home(positions: Path) -> Lock:
    """One instance per home: the lock file lies in its `positions/`."""
    return Lock(positions / ".lock", f"works in {positions.parent}; stop it, or give this one its own --home")


def lock_wallet(state_dir: Path, wallet: str) -> Lock:
    """One live daemon per wallet, whatever its home: the lock file lies in a directory of the user."""
    name = wallet.lower()
    if not _PLAIN.fullmatch(name):
        name = hashlib.sha256(wallet.encode()).hexdigest()
    return Lock(state_dir / f"wallet-{name}.lock", f"trades live with the wallet {wallet}; stop it first")
