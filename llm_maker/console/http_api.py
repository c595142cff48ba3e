"""What the HTTP server answers, without a socket: a request's head becomes a `Call` or is `Denied`, and a call an `Answer`.

The desk reads and acts; this file knows paths, rights and formats. No state is changed by GET.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec

from llm_maker.console.control import VIEW_FAULTS
from llm_maker.console.desk import Desk, Refused
from llm_maker.console.http_guard import Denied, Guard
from llm_maker.console.http_keys import Right
from llm_maker.core.commands import Level

MAX_BODY_BYTES = 65_536
WHO = "page"
_KIND = Literal["page", "health", "me", "read", "stream", "metrics", "act"]
_JSON, _TEXT, _HTML = "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8"
_TARGET = re.compile(r"/[\x21-\x7e]{0,8000}")
_ACT = re.compile(r"/api/act/([a-z][a-z_-]{0,39})")
_SINCE = re.compile(r"[0-9]{1,15}")
_PATHS: dict[str, tuple[_KIND, str, tuple[str, ...]]] = {
    "/": ("page", "", ()),
    "/healthz": ("health", "", ()),
    "/metrics": ("metrics", "board", ()),
    "/api/me": ("me", "", ()),
    "/api/stream": ("stream", "board", ("since",)),
    "/api/board": ("read", "board", ("since",)),
    "/api/detail": ("read", "detail", ("market",)),
    "/api/history": ("read", "history", ("market",)),
    "/api/why": ("read", "why", ("market",)),
    "/api/status": ("read", "status", ()),
    "/api/markets": ("read", "markets", ()),
    "/api/changes": ("read", "changes", ()),
}
_ONCE = frozenset(
    ("host", "origin", "authorization", "content-type", "content-length", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")
)
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Server": "llm_maker",
}
"""On every answer; the page brings its own policy."""


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    kind: str = _JSON
    headers: dict[str, str] = {}


class Call(msgspec.Struct, frozen=True):
    """A request that may be answered: what it is, its arguments, and what its key may do."""

    kind: _KIND
    verb: str = ""
    args: dict[str, Any] = {}
    right: Right | None = None


class Page(msgspec.Struct, frozen=True):
    """The one file of the page, and the policy that lets its own script and style run and nothing else."""

    body: bytes
    policy: str


def page_of(html: bytes) -> Page:
    """Raises `ValueError` for a page without a script or a style of its own."""

    def hashes(tag: bytes) -> str:
        found = re.findall(rb"<%b(?:\s[^>]*)?>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
        if not found:
            raise ValueError(f"no <{tag.decode()}> in it")
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in found)

    return Page(
        html,
        f"default-src 'none'; script-src {hashes(b'script')}; style-src {hashes(b'style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> Answer:
    """An error as every client reads it."""
    return Answer(status, msgspec.json.encode({"ok": False, "error": " ".join(text.split())}), headers=headers or {})


def denial(denied: Denied) -> Answer:
    headers = {"Retry-After": str(denied.retry_after)} if denied.retry_after else {}
    if denied.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return failure(denied.status, denied.text, headers | denied.headers)


class Api:
    """Every path of the server. `broken` is told of a failed assertion of ours, which ends the daemon."""

    def __init__(
        self, desk: Desk, guard: Guard, page: Page, say: Callable[[Level, str, str], None], broken: Callable[[BaseException], None]
    ) -> None:
        self._desk, self._guard, self._page = desk, guard, page
        self._say, self._broken = say, broken
        self._told: set[str] = set()

    def judge(self, method: str, target: str, headers: Iterable[tuple[str, str]], now: float) -> Call:
        """Everything that can be said before a body is read. Raises `Denied`."""
        found: dict[str, str] = {}
        for name, value in headers:
            if (low := name.lower()) in found and low in _ONCE:
                raise Denied(400, f"{low} is sent twice")
            found[low] = value
        path, mark, query = target.partition("?")
        self._guard.check_place(found, page=method == "GET" and path == "/")
        if not _TARGET.fullmatch(target):
            raise Denied(400, "a path begins with / and has no control characters")
        right = None
        if path.startswith("/api/") or path == "/metrics":
            right = self._guard.check_key(found, now)
        else:
            self._guard.spend_public(now)
        act = _ACT.fullmatch(path)
        if act is None and path not in _PATHS:
            raise Denied(404, "nothing is here")
        allowed = "POST" if act else "GET"
        if method != allowed:
            raise Denied(405, f"this takes {allowed} alone", headers={"Allow": allowed})
        if act:
            assert right is not None
            return self._act(act[1].replace("-", "_"), right, found, query if mark else None, now)
        kind, verb, known = _PATHS[path]
        args = _arguments(query, known) if mark else {}
        if right is not None:
            self._guard.spend_read(right, now)
        return Call(kind, verb, args, right)

    def _act(self, verb: str, right: Right, headers: dict[str, str], query: str | None, now: float) -> Call:
        if right != "all":
            raise Denied(403, "this key may only read")
        if query is not None:
            raise Denied(400, "an action takes its arguments in a JSON body")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON or "content-encoding" in headers:
            raise Denied(415, f"an action wants Content-Type: {_JSON}, not compressed")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
            raise Denied(413, f"a body is at most {MAX_BODY_BYTES} bytes")
        self._guard.spend_act(verb, now)
        return Call("act", verb, {}, right)

    def answer(self, call: Call, body: bytes = b"") -> Answer:
        """The answer to everything but a stream and the metrics. Raises `Denied`."""
        match call.kind:
            case "page":
                return Answer(200, self._page.body, _HTML, {"Content-Security-Policy": self._page.policy})
            case "health":
                return Answer(200, b"ok\n", _TEXT)
            case "me":
                return Answer(200, msgspec.json.encode({"ok": True, "read_only": call.right == "read"}))
            case "act":
                return Answer(200, msgspec.json.encode(self.ask(call, _object(body))))
        return Answer(200, msgspec.json.encode(self.ask(call, call.args)))

    def ask(self, call: Call, args: dict[str, Any]) -> dict[str, Any]:
        """What the desk says. Raises `Denied`: 409 where it refuses, 500 for a fault of a view, which is ours."""
        try:
            told = self._desk.act(call.verb, args, WHO) if call.kind == "act" else self._desk.answer(call.verb, args, WHO)
        except Refused as error:
            raise Denied(409, str(error)) from None
        except VIEW_FAULTS as error:
            self.fault(call.verb, error)
            raise Denied(500, f"{call.verb} failed: {type(error).__name__}: {error}") from None
        except AssertionError as error:
            self._broken(error)
            raise
        if not told.get("ok", False):
            raise Denied(409, str(told.get("error", "refused")))
        return told

    def fault(self, what: str, error: BaseException) -> None:
        """A fault of ours that must not end the trading: said once for each place."""
        if what not in self._told and len(self._told) < 20:
            self._told.add(what)
            self._say(
                Level.WARNING, "http", f"{what} failed for a viewer: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            )


def _arguments(query: str, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError:
        raise Denied(400, "this query cannot be read") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known:
            raise Denied(400, f"a query here takes {', '.join(known) or 'nothing'}; a key never stands in an address")
        if name in found:
            raise Denied(400, f"{name} is given twice")
        if name == "since" and not _SINCE.fullmatch(value):
            raise Denied(400, "since is a number: what `last` said")
        found[name] = int(value) if name == "since" else value
    return found


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Denied(400, "the body is no JSON object") from None
