"""The log of what was tried: every config that a comparison or a sweep has run, on which tapes; HOME/logs/variants.jsonl.

A result is worth less the more was tried on the same data (`quoting.md` 6.6), whoever remembers it or not. A variant is known by
what decides its run: a key that only says what is written or shown makes no other variant of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.runtime.clock import LiveClock
from llm_maker.runtime.line_log import LineLog, iso
from llm_maker.runtime.signals_file import SignalsFile
from llm_maker.world import Refused

_SILENT = {"account", "console", "logging", "polymarket", "twin"}
"""Sections and keys that no run in memory asks."""
_MAX_BYTES = 1 << 40
"""The log is never rotated: what was tried stays tried."""
_CHUNK = 1 << 20


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what ran, by id and name, on which tapes, by id and name."""

    timestamp: str
    verb: str
    variants: dict[str, str]
    tapes: dict[str, str]


def variant_id(config: Config, heard: str = "") -> str:
    """What decides a run of this config, in sixteen hexadecimal digits; `heard` is the id of the signals file, if there is one."""
    return sha256(config.model_dump_json(exclude=_SILENT).encode() + heard.encode()).hexdigest()[:16]


def file_id(path: Path) -> str:
    """The content of a file, in sixteen hexadecimal digits; `Refused` where it cannot be read."""
    digest = sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:16]


def heard(signals: Path) -> str:
    """Id of a signals file that can be played; `TapeError` for one that cannot, `Refused` for one that cannot be read."""
    SignalsFile(signals)
    return file_id(signals)


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> its value in each of two configs, for the keys that differ."""
    mine, theirs = dict(_leaves(one.model_dump(mode="json"))), dict(_leaves(other.model_dump(mode="json")))
    return {key: (mine.get(key), theirs.get(key)) for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def note(home: Path, verb: str, variants: Mapping[str, str], tapes: Mapping[str, str]) -> None:
    """Write down what has been tried: id -> name of each."""
    line = Tried(timestamp=iso(LiveClock().now()), verb=verb, variants=dict(variants), tapes=dict(tapes))
    failures: list[str] = []
    log = LineLog(_path(home), _MAX_BYTES, failures.append)
    log.last()  # what a kill left of a torn line is cut
    log.write([msgspec.json.encode(line)])
    log.close()
    if failures:
        raise OSError(failures[0])


def tried(home: Path, tapes: Iterable[str]) -> set[str]:
    """Every variant ever run on any of these tapes."""
    path, wanted = _path(home), set(tapes)
    if not path.exists():
        return set()
    found: set[str] = set()
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for number, text in enumerate(whole.splitlines(), start=1):
        try:
            line = msgspec.json.decode(text, type=Tried)
        except msgspec.MsgspecError as error:
            raise Refused(f"{path}:{number}: not a line of this log: {error}") from None
        if wanted & line.tapes.keys():
            found |= line.variants.keys()
    return found


def _path(home: Path) -> Path:
    return home / "logs" / "variants.jsonl"
