"""A person's file of forecasts becomes rows, or one line that says what is wrong with it: file, line, value, what is allowed.

JSONL (one object a line) or CSV (comma-separated, with a header), told apart by the first character. Columns:

    question_id  text or whole number         p          0 to 1
    model        text                         market_p   0 to 1, or empty: scored, not compared with the market
    outcome      0 to 1, or empty: pending    ts         ISO 8601 with a time zone, or seconds (ms, us, ns) since 1970; or empty

A time without a zone is refused, for a guess would move it to another day. Other columns are ignored, unless one looks like a known
one misspelt. It refuses to know what a good forecast is.
"""

from __future__ import annotations

import csv
import difflib
import functools
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, TextIO

from llm_maker.config_text import ConfigError
from llm_maker.report.forecast import ForecastLine

MAX_ROWS = 1_000_000
COLUMNS = ("question_id", "model", "p", "market_p", "outcome", "ts")
_ALWAYS = ("question_id", "model", "p")
_ALSO_CALLED = {
    "question_id": ("id", "question", "market_id", "condition_id"),
    "model": ("model_id", "model_name", "forecaster"),
    "p": ("prob", "probability", "p_yes", "forecast", "prediction"),
    "market_p": ("market", "market_price", "market_prob", "price", "mid", "yes_price"),
    "outcome": ("result", "resolution", "resolved", "resolved_to", "y", "label", "answer"),
    "ts": ("time", "timestamp", "date", "datetime", "created_at"),
}
_MEANT = {other: column for column, others in _ALSO_CALLED.items() for other in others}
_ID_LENGTH = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_FIRST_S, _LAST_S = _FIRST.timestamp(), _LAST.timestamp()


class ForecastFileError(ConfigError):
    """The file cannot be scored as it stands; `str` is one line."""


class _Wrong(Exception):
    """What is wrong with one line; `read` says where."""


def read(path: Path) -> list[ForecastLine]:
    """Every row of the file, pending ones too; `ForecastFileError` at the first line that is wrong, and for a file without rows."""
    rows: list[ForecastLine] = []
    seen: dict[tuple[str, str, int | None], int] = {}
    outcomes: dict[str, tuple[float, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, raw in _lines(path, file):
                row = _row(path, number, raw)
                key = (row.question_id, row.model, row.ts_us)
                if key in seen:
                    cure = "" if row.ts_us is not None else "; a question asked again needs a ts"
                    _fail(path, number, f"same question_id, model and ts as line {seen[key]}{cure}")
                seen[key] = number
                if row.outcome is not None:
                    told, where = outcomes.setdefault(row.question_id, (row.outcome, number))
                    if told != row.outcome:
                        said = f"outcome {row.outcome:g} for {_shown(row.question_id)}, which has {told:g} at line {where}"
                        _fail(path, number, f"{said}; one question has one outcome")
                if len(rows) == MAX_ROWS:
                    _fail(path, number, f"more than {MAX_ROWS} rows; score it in parts")
                rows.append(row)
    except FileNotFoundError:
        raise ForecastFileError(f"{path}: no such file; give one with --forecasts FILE") from None
    except UnicodeDecodeError as error:
        raise ForecastFileError(f"{path}: not UTF-8 text ({error.reason}); a compressed file must be unpacked first") from None
    except OSError as error:
        raise ForecastFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not rows:
        raise ForecastFileError(f"{path}: no forecasts in it; needed are lines with {', '.join(COLUMNS)}")
    return rows


def _fail(path: Path, number: int, text: str) -> NoReturn:
    raise ForecastFileError(f"{path}: line {number}: {text}")


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    start = file.read(1)
    while start and start.isspace():
        start = file.read(1)
    file.seek(0)
    if start == "[":
        raise ForecastFileError(f"{path}: a JSON list; must be JSONL, one object a line, or CSV with a header")
    yield from _json_lines(path, file) if start == "{" else _csv_lines(path, file)


def _json_lines(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
        except _Wrong as wrong:
            _fail(path, number, str(wrong))
        except json.JSONDecodeError as error:
            _fail(path, number, f"not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError):  # digits or brackets without end
            _fail(path, number, "not JSON that can be read")
        if not isinstance(raw, dict):
            _fail(path, number, f"not an object with {', '.join(COLUMNS)}")
        _check_columns(path, number, list(raw), _ALWAYS)
        yield number, raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Wrong(f"{_shown(key)} is given twice")
        found[key] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise _Wrong(f"{text} is no number; leave out what is not known, or write null")


def _csv_lines(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(file, strict=True)
    header: list[str] = []
    number = 0
    try:
        for cells in reader:
            # A quoted cell may hold line ends, so a row is named by the line it begins on.
            number, began = reader.line_num, number + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if len(header) == 1 and (other := next((c for c in ";\t|" if c in header[0]), "")):
                    _fail(path, began, f"columns are parted by {other!r}; must be commas")
                if twice := next((name for name in header if name and header.count(name) > 1), ""):
                    _fail(path, began, f"column {_shown(twice)} is given twice")
                _check_columns(path, began, header, (*_ALWAYS, "outcome"))
                continue
            if len(cells) != len(header):
                _fail(path, began, f"{len(cells)} cells; the header has {len(header)}")
            yield began, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        _fail(path, reader.line_num, f"not CSV: {error}")


def _check_columns(path: Path, number: int, found: list[str], needed: tuple[str, ...]) -> None:
    """Every needed column is there, and none that is absent hides behind another name."""
    absent = [column for column in COLUMNS if column not in found]
    if not absent:
        return
    for name in found:
        if name not in COLUMNS and (near := _meant(name)) in absent:
            _fail(path, number, f"unknown column {_shown(name)}; did you mean '{near}'?")
    missing = [column for column in needed if column in absent]
    if missing:
        names = ", ".join(_shown(name) for name in found[:8])
        _fail(path, number, f"column '{missing[0]}' is missing; needed: {', '.join(needed)}; found: {names}")


@functools.lru_cache(maxsize=256)
def _meant(name: str) -> str | None:
    """The known column that another name stands for or is nearest to."""
    return _MEANT.get(name.lower()) or next(iter(difflib.get_close_matches(name.lower(), COLUMNS, 1, 0.7)), None)


def _row(path: Path, number: int, raw: Mapping[str, Any]) -> ForecastLine:
    try:
        p = _probability("p", raw["p"])
        if p is None:
            raise _Wrong("p is empty; must be a number from 0 to 1")
        return ForecastLine(
            _name("question_id", raw["question_id"]),
            _name("model", raw["model"]),
            p,
            _probability("market_p", raw.get("market_p")),
            _probability("outcome", raw.get("outcome")),
            _microseconds(raw.get("ts")),
        )
    except _Wrong as wrong:
        _fail(path, number, str(wrong))


def _name(column: str, value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        raise _Wrong(f"{column} is {_shown(value)}; must be a text")
    # A name goes to a terminal: nothing in it may steer one.
    if not text.isprintable() or len(text) > _ID_LENGTH:
        raise _Wrong(f"{column} is {_shown(value)}; must be printable, of at most {_ID_LENGTH} characters")
    return text.strip()


def _number(value: Any) -> float | None:
    """None for what is no finite number; one written as text counts, for in CSV all are."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _probability(column: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        empty = {"market_p": ", or empty", "outcome": " (0.5: split), or empty while it is open"}.get(column, "")
        raise _Wrong(f"{column} is {_shown(value)}; must be a number from 0 to 1{empty}")
    return number


def _microseconds(value: Any) -> int | None:
    if value is None or value == "":
        return None
    allowed = "must be ISO 8601 with a time zone, like 2026-11-21T09:30:00Z, or seconds since 1970"
    number = _number(value)
    if number is not None:
        # The years 2000 to 2100 in one unit are far outside them in every other.
        for per_second in (1, 10**3, 10**6, 10**9):
            if _FIRST_S <= number / per_second < _LAST_S:
                exact = value if isinstance(value, int) else int(value) if str(value).isdigit() else None
                return round(number * 10**6 / per_second) if exact is None else exact * 10**6 // per_second
        raise _Wrong(f"ts is {_shown(value)}; {allowed} (or ms, us, ns), in the years 2000 to 2099")
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise _Wrong(f"ts is {_shown(value)}; {allowed}")
    if moment.tzinfo is None:
        day = f"{value}T00:00:00Z" if len(str(value)) <= 10 else f"{value}Z"
        raise _Wrong(f"ts is {_shown(value)}, without a time zone; if it is UTC write {day}")
    if not _FIRST <= moment < _LAST:
        raise _Wrong(f"ts is {_shown(value)}; {allowed}, in the years 2000 to 2099")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _shown(value: object) -> str:
    if value is None or value == "":
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
