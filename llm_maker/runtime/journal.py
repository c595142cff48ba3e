"""The journal's format: the truth of one account, every event with the commands it caused, one JSON line each.

Every file opens with a checkpoint, so it replays alone; every line carries a running hash, so damage is found and named. It knows
lines, hashes and file names; `journal_writer` writes them, `journal_reader` reads them. It refuses to know what an event means,
what time it is on the wall, and who reads the lines; no path, pid or latency enters them, so equal runs write equal bytes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core.commands import AnyCommand
from llm_maker.core.events import AnyEvent

FORMAT = 1
GENESIS = "0" * 16
"""The hash before the first file."""
MAX_LINE_BYTES = 256 << 20
_SEQ_DIGITS = 12
SEAL_BYTES = len(b',"h":"0123456789abcdef"}\n')
"""What closes a line."""
HASH_AT = slice(-19, -3)
"""Where the hash stands in a line."""


class JournalError(Exception):
    """The journal could not be written, or is not where it should be; one line for a person."""


class JournalDamaged(Exception):
    """A journal is not what was written; names the file and the line (1 is the header)."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}: line {line}: {reason}")
        self.path, self.line, self.reason = path, line, reason


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything a file needs to replay alone: JSON of the state and of each simulator, and what they were built from.

    `meta` holds deterministic facts only: strategy name, parameters.
    """

    state: bytes
    simulators: dict[str, bytes] = {}
    meta: dict[str, Any] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file. `previous` is the last hash of the file before it; `first_seq` is its first entry's."""

    journal: int
    version: str
    account: str
    first_seq: int
    previous: str
    state: msgspec.Raw
    simulators: dict[str, msgspec.Raw]
    meta: dict[str, Any]


class Entry(msgspec.Struct, frozen=True):
    """One line: an event and what the core asked for because of it. `ts` is market time, ns."""

    seq: int
    ts: int
    account: str = msgspec.field(name="a")
    event: AnyEvent
    commands: tuple[AnyCommand, ...]


class RawEntry(msgspec.Struct, frozen=True):
    """The same line with event and commands still JSON; the bytes are those that were written."""

    seq: int
    ts: int
    account: str = msgspec.field(name="a")
    event: msgspec.Raw
    commands: msgspec.Raw


ENTRY_DECODER = msgspec.json.Decoder(Entry)
RAW_DECODER = msgspec.json.Decoder(RawEntry)
EVENT_DECODER = msgspec.json.Decoder(AnyEvent)
COMMAND_DECODER = msgspec.json.Decoder(AnyCommand)


def seal(previous: bytes, body: bytes) -> bytes:
    """The running hash (16 hex digits) of a line without its closing `h` field, after the line before it."""
    return hashlib.blake2b(previous + body, digest_size=8).hexdigest().encode()


def file_name(account: str, first_seq: int) -> str:
    return f"journal-{account}-{first_seq:0{_SEQ_DIGITS}d}.jsonl"


def files(directory: Path, account: str) -> list[Path]:
    """All journal files of the account, oldest first; of a file and its compressed copy, the file."""
    pattern = re.compile(rf"journal-{re.escape(account)}-(\d{{{_SEQ_DIGITS},}})\.jsonl(\.zst)?")
    found: dict[int, Path] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), path)
    return [found[first] for first in sorted(found)]


def find_latest(directory: Path, account: str) -> Path | None:
    """The newest journal file of the account; None when there is none."""
    found = files(directory, account)
    return found[-1] if found else None


def first_seq_of(path: Path) -> int:
    """The number of a file's first entry, from its name."""
    return int(path.name.removesuffix(".zst").removesuffix(".jsonl").rpartition("-")[2])
