"""The two keys of the HTTP server, and the record of where it listens: files of mode 0600 in HOME/positions/."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Literal

import msgspec

Right = Literal["all", "read"]
FILES: dict[Right, str] = {"all": "http_key", "read": "http_read_key"}
_KEY_BYTES = 32
_SHAPE = re.compile(rb"[A-Za-z0-9_-]{20,200}")


class KeyUnsafe(Exception):
    """A key file cannot be used as it is; says what is wrong and what cures it."""


class Keys:
    """The key that may do all and the one that may only read; never shown, not in `repr`."""

    def __init__(self, everything: str, reading: str) -> None:
        self._all, self._read = everything.encode(), reading.encode()

    def right_of(self, shown: bytes) -> Right | None:
        """What the holder of this key may do. Takes the same time for every wrong key of a length."""
        everything, reading = hmac.compare_digest(shown, self._all), hmac.compare_digest(shown, self._read)
        return "all" if everything else "read" if reading else None


def open_keys(positions: Path) -> Keys:
    """The keys of this home, made on the first run and never overwritten. Raises `KeyUnsafe` or `OSError`."""
    positions.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        _make(positions / name)
    everything, reading = read_key(positions, "all"), read_key(positions, "read")
    if everything == reading:
        raise KeyUnsafe(f"{FILES['all']} and {FILES['read']} hold the same key: delete one and start again")
    return Keys(everything, reading)


def read_key(positions: Path, right: Right) -> str:
    """One key from its file. Raises `KeyUnsafe`, `OSError`."""
    path = positions / FILES[right]
    # What is judged is what is read: a file put in its place in between is another descriptor.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise KeyUnsafe(f"{path} is no ordinary file: delete it and start again")
        if found.st_uid != os.geteuid():
            raise KeyUnsafe(f"{path} belongs to another user: delete it and start again")
        if found.st_mode & 0o077:
            raise KeyUnsafe(f"{path} can be read by others: `chmod 600 {path}`, or delete it for a new key")
        key = file.read(4_096).strip()
    if not _SHAPE.fullmatch(key):
        raise KeyUnsafe(f"{path} holds no key: delete it and start again")
    return key.decode()


def _make(path: Path) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(_KEY_BYTES) + "\n")


# Where it listens.


class _Place(msgspec.Struct):
    """positions/http.json."""

    address: str
    pid: int


def write_address(positions: Path, address: str) -> None:
    """Say where this daemon's server is, for other programs of the same user. Raises `OSError`."""
    beside = positions / "http.json.new"
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(_Place(address, os.getpid())) + b"\n")
    beside.replace(positions / "http.json")


def remove_address(positions: Path) -> None:
    (positions / "http.json").unlink(missing_ok=True)


def link(address: str, key: str) -> str:
    """What a browser opens: the key stands in the fragment, which is never sent."""
    return f"{address}/#key={key}"
