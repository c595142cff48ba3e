"""A person's text becomes plain values, and whatever is wrong with it one line: where, the key, its value, what is allowed.

It knows YAML, dotted keys and what a pydantic model declares. It refuses to know which keys there are: the model is handed in.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

MAX_FILE_BYTES = 1_000_000


class ConfigError(Exception):
    """A person's mistake; `str` is one line: where, the key, its value, what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """The file as text; `ConfigError` where it is absent, unreadable, too large or not UTF-8."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give one with --config FILE") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name}: {len(raw)} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 text at byte {error.start}") from None


def parse_yaml(text: str, name: str) -> Any:
    """YAML -> plain values; `name` is where the text stood."""
    tree, wrong = _parsed(text)
    if wrong:
        raise ConfigError(f"{name}: not YAML{wrong}")
    return copy.deepcopy(tree)


@lru_cache(maxsize=4)
def _parsed(text: str) -> tuple[Any, str]:
    """The tree, or what is wrong with the text: remembered, because a daemon reads its file again at every look at a reload."""
    try:
        return yaml.load(text, Loader=_Loader), ""
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return None, f"{line}: {error.problem}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, f": {_short(str(error))}"


def read_yaml(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """A file of `model`'s keys -> the tree of what it says; nothing of it is judged yet."""
    tree = parse_yaml(read_text(path), path.name)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path.name}: not a list of 'key: value' lines, but {_short(repr(tree))}")
    return _sections(tree, model)


def _sections(tree: dict[Any, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Keys as text, and a section whose keys are all commented out as an empty one."""
    cleaned: dict[str, Any] = {}
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        below = _section_of(field) if field else None
        cleaned[str(key)] = value
        if below and (value is None or isinstance(value, dict)):
            cleaned[str(key)] = _sections(value or {}, below)
    return cleaned


def put(tree: dict[str, Any], keys: list[str], value: object, origin: str) -> None:
    """Set the value at a path of keys, over whatever the tree said; `origin` is who says so."""
    for depth, key in enumerate(keys[:-1], start=1):
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{origin}: {'.'.join(keys[:depth])!r} is not a section")
        tree = below
    tree[keys[-1]] = value


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below `model`, dotted, with its field; a section comes before its keys."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if below := _section_of(field):
            yield from keys_of(below, f"{prefix}{name}.")


def first_line(
    error: ValidationError, name: str, origins: Mapping[str, str], model: type[BaseModel], secrets: Sequence[str]
) -> str:
    """The first thing wrong, in people's words.

    `origins`: dotted key -> who said it, for what does not stand in the file `name`. `secrets` belong into .env, and the line says
    so where one was put here.
    """
    faults = error.errors(include_url=False)
    # A misspelt key explains what follows from it, so it is told first.
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path = ".".join(str(part) for part in fault["loc"])
    where = next((origins[key] for key in sorted(origins, reverse=True) if _overlap(key, path)), name)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {_fault_text(path, fault, model, secrets)}{more}"


def _overlap(one: str, other: str) -> bool:
    """Whether one dotted key lies at or below the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _fault_text(path: str, fault: Any, model: type[BaseModel], secrets: Sequence[str]) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(path, model, secrets)
    known = dict(keys_of(model))
    key = next((".".join(parts) for parts in _prefixes(path) if ".".join(parts) in known), "")
    if fault["type"] == "value_error":
        cause = str(fault["ctx"]["error"])
        if not key or _section_of(known[key]):
            return f"{key}: {cause}" if key else cause
        return f"{path} is {_shown(fault['input'])}, which {cause}"
    wanted = allowed(known[key]) if key else "a list of 'key: value' lines"
    return f"{path} is {_shown(fault['input'])}; must be {wanted}"


def _prefixes(path: str) -> Iterator[list[str]]:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        yield parts[:length]


def _unknown(path: str, model: type[BaseModel], secrets: Sequence[str]) -> str:
    section, _, leaf = path.rpartition(".")
    paths = [known for known, _ in keys_of(model)]
    siblings = [known for known in paths if known.rpartition(".")[0] == section]
    leaves = {known.rpartition(".")[2]: known for known in paths}
    near = difflib.get_close_matches(leaf, [known.rpartition(".")[2] for known in siblings], 1)
    if near:
        return f"unknown key '{path}'; did you mean '{f'{section}.' if section else ''}{near[0]}'?"
    if re.search(r"key|secret|token|password|private", leaf, re.IGNORECASE):
        return f"unknown key '{path}'; secrets go into .env: {', '.join(secrets)}"
    if elsewhere := difflib.get_close_matches(leaf, list(leaves), 1, 0.7):
        return f"unknown key '{path}'; did you mean '{leaves[elsewhere[0]]}'?"
    return f"unknown key '{path}'; known here: {', '.join(known.rpartition('.')[2] for known in siblings)}"


def allowed(field: FieldInfo) -> str:
    """What a key may be, in people's words, from its declaration."""
    options = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    empty = ", or empty" if type(None) in get_args(field.annotation) else ""
    kind = options[0] if empty else field.annotation
    if _section_of(field):
        return "a section"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_range(field)}{empty}"
    if kind is bool:
        return "true or false"
    if kind is str:
        pattern = next((bound.pattern for bound in field.metadata if hasattr(bound, "pattern")), None)
        return f"a text{f' like {pattern}' if pattern else ''}{empty}"
    if get_origin(kind) is tuple:
        of = get_args(kind)[0]
        return f"a list of {'texts' if of is str else 'whole numbers' if of is int else 'sections'}"
    if get_origin(kind) is dict:
        return "'key: value' lines"
    return f"one of {', '.join(str(option) for option in options)}"


def _range(field: FieldInfo) -> str:
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "below"}
    found = [
        f"{word} {getattr(bound, name):.15g}" for name, word in words.items() for bound in field.metadata if hasattr(bound, name)
    ]
    return f" {' '.join(found)}" if found else ""


def _shown(value: object) -> str:
    """A value as the person wrote it."""
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
