"""One request as it arrived, read alike on all four wires: who is asked, with which words, schema and tools.

Owns where each wire keeps what. Knows no step, no reply and no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Wire = Literal["responses", "chat", "messages", "gemini"]
"""OpenAI Responses, chat completions, Anthropic messages, Gemini generateContent."""
SchemaMode = Literal["json_schema", "json_object", "prompt_only"]
HANDLE = re.compile(r"^\[(M\d+)\]$", re.MULTILINE)


@dataclass(slots=True)
class Seen:
    """One request. `headers` are case-insensitive; `user` is the last thing said to the model."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    wire: Wire = "chat"
    model: str = ""
    query: str = ""
    system: str = field(init=False)
    user: str = field(init=False)
    text_bytes: int = field(init=False)
    """Of all the words: the system prompt and every message."""

    def __post_init__(self) -> None:
        self.model = self.model or str(self.body.get("model", ""))
        system, said = _words(self.wire, self.body)
        self.system, self.user = system, said[-1] if said else ""
        self.text_bytes = len(system.encode()) + sum(len(text.encode()) for text in said)

    @property
    def handles(self) -> list[str]:
        """The markets asked about, `[M1]` on a line of its own."""
        return HANDLE.findall(self.user)

    @property
    def schema_mode(self) -> SchemaMode:
        return _format(self.wire, self.body)[0]

    @property
    def schema(self) -> dict[str, Any] | None:
        return _format(self.wire, self.body)[1]

    @property
    def search_tools(self) -> tuple[str, ...]:
        """Tools of the wire that look on the web; empty: it was not asked to."""
        return _search_tools(self.wire, self.body)

    @property
    def caches(self) -> bool:
        """Whether the prefix is kept: on Anthropic's wire only where it was asked for."""
        if self.wire != "messages":
            return True
        blocks = self.body.get("system")
        marked = isinstance(blocks, list) and any(isinstance(b, dict) and "cache_control" in b for b in blocks)
        return marked or "cache_control" in self.body

    @property
    def credential(self) -> str:
        """The key as it was sent, without the scheme."""
        if self.wire == "gemini":
            return self.headers.get("x-goog-api-key", "")
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or (self.headers.get("x-api-key", "") if self.wire == "messages" else "")


def _plain(content: Any) -> str:
    """A string, or a list of blocks with `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(block["text"]) for block in content if isinstance(block, dict) and "text" in block)
    return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _words(wire: Wire, body: dict[str, Any]) -> tuple[str, list[str]]:
    """(system prompt, everything else that was said, in order)."""
    if wire == "gemini":
        system = _plain(_dict(body.get("systemInstruction")).get("parts"))
        return system, [_plain(turn.get("parts")) for turn in _dicts(body.get("contents"))]
    if wire == "messages":
        return _plain(body.get("system")), [_plain(turn.get("content")) for turn in _dicts(body.get("messages"))]
    if wire == "responses" and isinstance(body.get("input"), str):
        return str(body.get("instructions") or ""), [body["input"]]
    turns = _dicts(body.get("input" if wire == "responses" else "messages"))
    rules = [str(body.get("instructions") or "")] if wire == "responses" else []
    rules += [_plain(turn.get("content")) for turn in turns if turn.get("role") in ("system", "developer")]
    said = [_plain(turn.get("content")) for turn in turns if turn.get("role") not in ("system", "developer")]
    return "\n".join(filter(None, rules)), said


def _format(wire: Wire, body: dict[str, Any]) -> tuple[SchemaMode, dict[str, Any] | None]:
    if wire == "gemini":
        config = _dict(body.get("generationConfig"))
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        if schema is not None:
            return "json_schema", _dict(schema)
        return ("json_object" if config.get("responseMimeType") == "application/json" else "prompt_only"), None
    wanted = {
        "responses": _dict(_dict(body.get("text")).get("format")),
        "chat": _dict(body.get("response_format")),
        "messages": _dict(_dict(body.get("output_config")).get("format")),
    }[wire]
    if wanted.get("type") == "json_schema":
        named = _dict(wanted.get("json_schema")) if wire == "chat" else wanted
        return "json_schema", _dict(named.get("schema"))
    return ("json_object" if wanted.get("type") == "json_object" else "prompt_only"), None


def _search_tools(wire: Wire, body: dict[str, Any]) -> tuple[str, ...]:
    tools = _dicts(body.get("tools"))
    if wire == "gemini":
        return tuple("google_search" for tool in tools if "googleSearch" in tool or "google_search" in tool)
    types = [str(tool.get("type", "")) for tool in tools]
    return tuple(name for name in types if name.startswith(("web_search", "x_search")))
