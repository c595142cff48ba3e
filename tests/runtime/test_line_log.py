"""A log that cannot be written: lines are dropped whole, counted and said once; what is there stays readable."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llm_maker.runtime.line_log import LineLog


def test_lines_come_whole_however_the_system_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log, real = LineLog(tmp_path / "a.jsonl", 1 << 20), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    log.write([b'{"a":1}', b'{"b":2}'])
    assert log.path.read_bytes() == b'{"a":1}\n{"b":2}\n'


def test_a_full_disk_drops_whole_lines_says_so_once_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    log, real = LineLog(tmp_path / "a.jsonl", 1 << 20, told.append), os.write
    log.write([b"1"])

    def half_then_full(fd: int, data: bytes) -> int:
        if len(data) == 5:
            return real(fd, data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half_then_full)
    log.write([b"2222"])
    log.write([b"3333"])
    assert log.lost == 2 and len(told) == 1 and "No space left" in told[0]
    assert log.path.read_bytes() == b"1\n"
    monkeypatch.setattr(os, "write", real)
    log.write([b"4"])
    assert log.path.read_bytes() == b"1\n4\n"


def test_a_full_file_is_kept_once(tmp_path: Path):
    log = LineLog(tmp_path / "a.jsonl", 10)
    for text in (b"first", b"second", b"third"):
        log.write([text])
    assert log.path.read_bytes() == b"third\n"
    assert (tmp_path / "a.jsonl.1").read_bytes() == b"second\n"


def test_a_new_file_that_cannot_be_made_leaves_everybody_elses_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Were the old one closed first, its number could be another file's by the next line, which would be written into that."""
    log, real, wrong = LineLog(tmp_path / "a.jsonl", 8), os.open, OSError(errno.EMFILE, "Too many open files")
    log.write([b"1234567"])

    def none(*args: object, **how: object) -> int:
        raise wrong

    monkeypatch.setattr(os, "open", none)
    log.write([b"2"])
    monkeypatch.setattr(os, "open", real)
    other = tmp_path / "the ledger"
    with other.open("wb", buffering=0) as file:
        file.write(b"money")
        monkeypatch.setattr(os, "open", none)
        log.write([b"3"])
        monkeypatch.setattr(os, "open", real)
        log.write([b"4"])
    assert other.read_bytes() == b"money" and log.path.read_bytes() == b"4\n" and log.lost == 2
