"""The shipped files as text to be edited: values put into a commented config.yaml, secrets into an .env, nothing else touched.

Text in, text out; and the one way such files reach the disk: whole, or not at all. It knows no prompt and no terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from llm_maker.config import Config, load
from llm_maker.config_text import ConfigError, keys_of, read_text, read_yaml

_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_SECRET = re.compile(r"[A-Za-z0-9_./:+@%?&=,~-]*")
_COMMENT = re.compile(r"( +)#")


class CannotEdit(Exception):
    """The text is not laid out so that the value could be put into it without harm to the rest."""


@cache
def shipped(name: str) -> str:
    """A file that comes with the program: `yaml`, the config with its comments; `env`, where secrets go; `txt`, the versions."""
    return (resources.files("llm_maker") / f"shipped.{name}").read_text(encoding="utf-8")


def leaves(config: Config) -> dict[str, Any]:
    """Every key that holds a value, dotted, as plain data: what YAML would give."""
    found: dict[str, Any] = {}
    tree = config.model_dump(mode="json")
    for key, field in keys_of(Config):
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        below: Any = tree
        for part in key.split("."):
            below = below[part]
        found[key] = [_told(each) for each in below] if isinstance(below, list) else below
    return found


def _told(item: Any) -> Any:
    """A model of the ensemble without what it leaves open."""
    return {name: value for name, value in item.items() if value not in (None, {})} if isinstance(item, dict) else item


def written(value: Any) -> str:
    """A value as it stands behind its key, on one line; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, str) and value.isprintable():
        # Alone it needs fewer quotes than in a list.
        return yaml.safe_dump(value, width=10**9, allow_unicode=True).removesuffix("...\n").strip()
    return _written(value)


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(key)}: {_written(each)}' for key, each in value.items())}}}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    # What would be folded or lost is written with escapes; in a list, so that a comma or a bracket is quoted too.
    strange = isinstance(value, str) and not value.isprintable()
    text = yaml.safe_dump([value], default_flow_style=True, default_style='"' if strange else None, width=10**9, allow_unicode=True)
    return text.strip()[1:-1]


def edited(text: str, changes: Mapping[str, Any]) -> str:
    """The YAML with these dotted keys at these values: comments, order and all other lines stay. Raises `CannotEdit`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise CannotEdit("not YAML") from None
    if root is None:
        root = yaml.MappingNode("map", [])
    if not isinstance(root, yaml.MappingNode):
        raise CannotEdit("no keys")
    cuts: list[tuple[int, int, str]] = []
    absent: dict[str, list[str]] = {}
    for key, value in changes.items():
        node, path = root, key.split(".")
        for depth, part in enumerate(path):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            last = depth == len(path) - 1
            if pair is None:
                if not last or (depth and node.flow_style):
                    absent.setdefault(path[0] if depth == 0 else "?", []).append(_nested(path[1:], value))
                elif depth == 0:
                    absent.setdefault("", []).append(f"{part}: {written(value)}".rstrip())
                else:
                    first = node.value[0][0].start_mark
                    cuts.append((first.index, first.index, f"{part}: {written(value)}".rstrip() + "\n" + " " * first.column))
                break
            if last:
                cuts.append(_cut(text, pair, written(value)))
            elif not isinstance(pair[1], yaml.MappingNode) or not pair[1].value:
                raise CannotEdit(f"{part} holds no keys")
            else:
                node = pair[1]
    if "?" in absent:
        raise CannotEdit("a section is missing")
    for start, end, new in sorted(cuts, reverse=True):
        text = text[:start] + new + text[end:]
    return _appended(text, absent)


def _nested(path: list[str], value: Any) -> str:
    if len(path) != 1:
        raise CannotEdit("a section of a section is missing")
    return f"  {path[0]}: {written(value)}".rstrip()


def _appended(text: str, absent: Mapping[str, list[str]]) -> str:
    """Sections and keys that the text did not have, at its end."""
    for section, lines in absent.items():
        text += "" if not text or text.endswith("\n") else "\n"
        text += (f"{section}:\n" if section else "") + "\n".join(lines) + "\n"
    return text


def _cut(text: str, pair: tuple[yaml.Node, yaml.Node], new: str) -> tuple[int, int, str]:
    """From where to where the old value stands, and what to put there; a comment behind it keeps its column if it can."""
    key, value = pair
    start = text.index(":", key.end_mark.index) + 1
    end = max(start, _end(value))
    if value.start_mark.line == key.end_mark.line and value.start_mark.index > start:
        start = value.start_mark.index
        lead = ""
    else:
        lead = " " if new else ""
    new = lead + new
    behind = _COMMENT.match(text, end)
    if behind is not None:
        gap = len(behind[1]) + (end - start) - len(new)
        return start, end + len(behind[1]), new + " " * max(1, gap)
    return start, end, new


def _end(node: yaml.Node) -> int:
    """Where a value's own text ends: a block's mark stands at the next key, behind comments that are not its own."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        below = [each for item in node.value for each in (item if isinstance(item, tuple) else (item,))]
        return max((_end(each) for each in below), default=int(node.start_mark.index))
    return int(node.end_mark.index)


def config_text(path: Path, base: Config, wanted: Config) -> str:
    """What `path` shall hold so that it means `wanted`: the file that is there (it means `base`), or the shipped one, edited.

    Proved before it is given: read back, it is `wanted`.
    """
    before, after = leaves(base), leaves(wanted)
    changes = {key: value for key, value in after.items() if value != before[key]}
    if path.exists():
        text = read_text(path)
        with contextlib.suppress(CannotEdit):
            if changes:
                text = edited(text, changes)
            if _means(text) == wanted:
                return text
    defaults = leaves(Config())
    text = edited(shipped("yaml"), {key: value for key, value in after.items() if value != defaults[key]})
    assert _means(text) == wanted, "what is written is what was chosen"
    return text


def _means(text: str) -> Config | None:
    """The config that a text says, without the caps of live mode; None where it says none."""
    try:
        return Config.model_validate(yaml.load(text, Loader=_FAST) or {})
    except (yaml.YAMLError, ValidationError):
        return None


def stands(path: Path) -> Config:
    """What the file itself says, no environment, no caps of live mode; the defaults where there is none. Raises `ConfigError`."""
    if not path.exists():
        return Config()
    load(path, {})  # its one clear line, where something is wrong with it
    return Config.model_validate(read_yaml(path, Config))


def env_text(text: str, secrets: Mapping[str, str]) -> str:
    """The .env with these names at these values, every other line as it was; an empty value takes a name out."""
    lines = text.splitlines()
    for name, value in secrets.items():
        said = f"{name}={value if _PLAIN_SECRET.fullmatch(value) else _quoted(value)}"
        places = [i for i, line in enumerate(lines) if re.match(rf"\s*(export\s+)?{name}\s*(=|$)", line)]
        for place in places:
            lines[place] = said
        if not places:
            lines.append(said)
    return "\n".join(lines) + "\n" if lines else ""


def _quoted(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ConfigError("a secret has more than one line")
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


# To the disk.


@contextlib.contextmanager
def beside(path: Path, text: str, mode: int) -> Iterator[Path]:
    """The new file beside the old one, in its mode from the first byte; gone at the end unless it took the other's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name.lstrip('.')}.new-{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield new
    finally:
        new.unlink(missing_ok=True)


def kept_copy(path: Path) -> Path:
    """A copy of a file that is about to be replaced: `NAME.bak-N`, the first that is free."""
    raw = path.read_bytes()
    for number in range(1, 10_000):
        copy = path.with_name(f"{path.name}.bak-{number}")
        try:
            with copy.open("xb") as file:
                file.write(raw)
        except FileExistsError:
            continue
        copy.chmod(path.stat().st_mode & 0o777)
        return copy
    raise ConfigError(f"{path}: 9,999 copies of it are there already; take some away")
