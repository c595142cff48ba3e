"""The fake model server: real sockets on loopback, four wires, a script of misbehaviour, and a bill.

A request takes the next step of `script`, whatever its wire; after its end `fault` is asked, and without one all is well.
Owns the sockets and what was seen and billed; formats, words, refusals and checks are its neighbours'.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.models import listing, texts
from tests.fakes.models.address import Address
from tests.fakes.models.asked import Seen, Wire
from tests.fakes.models.bill import Billed, Meter, usage_changed
from tests.fakes.models.checks import violations
from tests.fakes.models.faults import BODIES, ENDED, ERRORS, SHAPED, Step, error_reply, step_of
from tests.fakes.models.texts import SPOKEN
from tests.fakes.models.wires import Reply, Usage, body_of

THROWAWAY_KEY = "test-throwaway-key-0000"  # marked: worth nothing anywhere
MAX_VIOLATIONS = 200
_STEP_DOWN = ("schema_400", "object_400")


class Watched:
    """A model of the slow loop whose calls are counted as attempts (`ModelServer.watch`)."""

    def __init__(self, model: Any, server: ModelServer) -> None:
        self._model, self._server = model, server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def complete(self, *args: Any, **kwargs: Any) -> Any:
        with self._server.attempt():
            return await self._model.complete(*args, **kwargs)

    async def search(self, *args: Any, **kwargs: Any) -> Any:
        with self._server.attempt():
            return await self._model.search(*args, **kwargs)


@dataclass
class ModelServer(Address):
    """`async with ModelServer(["500"]) as server:`, then `server.base_url(wire)`; at the end `assert server.violations == []`."""

    script: list[str | Step] = field(default_factory=list)
    port: int = 0
    hang_s: float = 30.0
    """How long `hang` says nothing and `drip` takes: longer than the client's deadline."""
    retry_after: str = "7"
    key: str | None = THROWAWAY_KEY
    """The only right one; None: any."""
    secrets: list[str] = field(default_factory=list)
    """Marked keys that must not arrive in any body."""
    fault: Callable[[Seen], str | Step | None] | None = None
    """What to do with a request beyond the script; None: answer it."""
    answer: texts.Brain = texts.answer
    search_text: str | Callable[[Seen], str] = texts.NOTES
    sources: tuple[tuple[str, str], ...] = texts.SOURCES
    """(url, title) of what a search cites."""
    searches: int = 2
    usage: Usage | None = None
    """Of every answer; None: counted as `bill` says."""
    reasoning_tokens: int = 64
    models: list[str] | None = None
    """All there are; None: every name is one."""
    refuses: set[str] = field(default_factory=set)
    """`json_schema`, `json_object`, `search`: what this server always answers with 400."""
    get_script: list[str | Step] = field(default_factory=list)
    """Steps of the requests for lists of models, which take none of `script`; only statuses and bodies."""
    keep: int | None = None
    """How many of `seen` and `bill` are kept; None: all."""
    seen: list[Seen] = field(default_factory=list)
    listed: list[Seen] = field(default_factory=list)
    """The requests for lists of models."""
    bill: list[Billed] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    requests: int = 0

    async def __aenter__(self) -> ModelServer:
        self._steps = [_checked(step) for step in self.script]
        self._get_steps = [_checked(step) for step in self.get_script]
        self._closing = asyncio.Event()
        self._meter = Meter()
        self._attempts = self._allowed = self._arrived = 0
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/v1/responses", partial(self._handle, "responses"))
        app.router.add_post("/v1/chat/completions", partial(self._handle, "chat"))
        app.router.add_post("/v1/messages", partial(self._handle, "messages"))
        for version in ("v1", "v1beta"):
            app.router.add_post(f"/{version}/models/{{model:.+}}:generateContent", partial(self._handle, "gemini"))
            app.router.add_get(f"/{version}/models", self._list)
            app.router.add_get(f"/{version}/models/{{model:.+}}", self._list)
        app.router.add_route("*", "/{nowhere:.*}", self._nowhere)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """One attempt of ours. More requests than attempts, and the SDK has tried again by itself: a violation.

        A count, because bytes and times tell nothing: our own retry may be identical and, under a test's clock, immediate. Once
        begun, every request must lie within an attempt. A schema that was refused allows one request more: asking with less.
        """
        self._attempts += 1
        self._allowed += 1
        yield

    def watch(self, model: Any) -> Any:
        """The same model, each `complete` and `search` of it counted as one attempt."""
        return Watched(model, self)

    async def _handle(self, wire: Wire, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._object(f"{request.path}: the body is no JSON object")
            body = {}
        seen = Seen(request.path, request.headers, body, wire, request.match_info.get("model", ""), request.query_string)
        try:
            self._note(seen, raw)
            return await self._serve(seen, request)
        except ConnectionError:
            raise  # the client gave up, which is what it should do
        except Exception as error:
            self._object(f"the fake itself failed: {error!r}")
            raise

    def _note(self, seen: Seen, raw: bytes) -> None:
        self.seen.append(seen)
        if self.keep is not None and len(self.seen) > self.keep:
            del self.seen[0]
        self.requests += 1
        self._arrived += self._attempts > 0
        if self._arrived > self._allowed:
            self._allowed += 1  # said once for each
            self._object(f"{seen.path}: more requests than attempts: the SDK tried again")
        for finding in violations(seen, raw, self.key, self.secrets):
            self._object(f"{seen.path}: {finding}")

    def _object(self, finding: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(finding)

    def _next(self, seen: Seen) -> Step:
        if self.requests <= len(self._steps):
            step = self._steps[self.requests - 1]
        else:
            step = _checked((self.fault(seen) if self.fault is not None else None) or "ok")
        answers = step.name in SPOKEN or step.name in ENDED or step.name in SHAPED or step.name == "slow"
        natural = self._natural(seen) if answers else None
        return Step(natural) if natural else step

    def _natural(self, seen: Seen) -> str | None:
        """What the vendor itself would refuse."""
        if self.models is not None and seen.model not in self.models:
            return "404"
        if seen.wire == "chat" and "search_parameters" in seen.body:
            return "410"
        if seen.wire == "messages" and {"temperature", "top_p", "top_k"} & set(seen.body):
            return "400"
        old_gemini = seen.wire == "gemini" and seen.model.startswith(("gemini-1", "gemini-2"))
        if seen.search_tools and seen.schema_mode != "prompt_only" and (seen.wire == "messages" or old_gemini):
            return "400"
        if seen.search_tools and "search" in self.refuses:
            return "400"
        if seen.schema_mode in self.refuses:
            return "schema_400" if seen.schema_mode == "json_schema" else "object_400"
        if seen.wire == "chat" and seen.schema_mode == "json_object" and "json" not in (seen.system + seen.user).lower():
            return "400"
        return None

    async def _serve(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        step = self._next(seen)
        if step.name in ERRORS:
            self._allowed += step.name in _STEP_DOWN
            return self._error(step, seen)
        reply = self._reply(step, seen)
        row = self._billed(step, seen, reply)
        if step.name in ("hang", "drip", "reset", "no_reply", "huge"):
            return await self._misbehave(step, request)
        if step.name in BODIES:
            content_type, raw = BODIES[step.name]
            return web.Response(body=raw, content_type=content_type)
        if step.name == "slow":
            await self._pause(float(step.value or 0.2))
        body = msgspec.json.encode(body_of(seen, reply))
        response = web.Response(body=body, content_type="application/json", headers={"x-request-id": "req_fake"})
        await response.prepare(request)
        await response.write_eof()
        transport = request.transport
        row.told = step.name not in ("no_usage", "bad_usage") and transport is not None and not transport.is_closing()
        return response

    def _reply(self, step: Step, seen: Seen) -> Reply:
        searching = bool(seen.search_tools) and step.name != "no_search"
        if seen.search_tools:
            document: texts.Document = {}
            whole = self.search_text if isinstance(self.search_text, str) else self.search_text(seen)
        else:
            document = self.answer(seen.handles, seen)
            whole = json.dumps(document, ensure_ascii=False)
        text = texts.text_of(step.name, document, whole, seen.handles)
        changes = {
            "text": step.value,
            "truncated": whole[: len(whole) * 2 // 3],
            "context_window": whole[: len(whole) * 2 // 3],
            "truncated_empty": "",
            "refusal": "",
            "failed": "",
            "malformed_response": "}{",
        }
        text = changes.get(step.name, text)
        searches = self.searches if searching else 0
        usage = self.usage or self._meter.usage(seen, text, self.reasoning_tokens, searches)
        return Reply(
            text=text,
            usage=usage,
            ended=ENDED.get(step.name, "stop"),
            reason=step.value if step.name in ENDED else "",
            sources=self.sources if searching and step.name != "no_citations" else (),
            searches=searches,
            thinking=step.name == "thinking",
            split=step.name == "split",
            empty=step.name == "no_choices",
            usage_told=step.name != "no_usage",
            usage_changed=usage_changed(step, seen.wire, usage),
        )

    def _billed(self, step: Step, seen: Seen, reply: Reply) -> Billed:
        usage, told = reply.usage, reply.usage_changed
        cost = Decimal(str(told["cost"])) if "cost" in told else None
        if "cost_in_usd_ticks" in told:
            cost = Decimal(told["cost_in_usd_ticks"]) / 10**10
        row = Billed(
            seen.wire, seen.model, step.name, usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning,
            usage.tool, reply.searches, cost,
        )  # fmt: skip
        self.bill.append(row)
        if self.keep is not None and len(self.bill) > self.keep:
            del self.bill[0]
        return row

    def _error(self, step: Step, seen: Seen) -> web.Response:
        # By name: a client that follows the redirect comes to another origin.
        made = error_reply(step, seen, self.retry_after, f"http://localhost:{self.port}")
        return web.Response(status=made.status, body=made.body, headers=made.headers, content_type=made.content_type)

    async def _misbehave(self, step: Step, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        transport = request.transport
        seconds = float(step.value or self.hang_s)
        if step.name == "hang":
            await self._pause(seconds)
            return web.Response(status=504)
        if step.name in ("reset", "no_reply"):
            if step.name == "reset":
                response.headers["Content-Length"] = "100000"
                await response.prepare(request)
                await response.write(b'{"id": "cut')
            if transport is not None:
                transport.abort()
            return response
        await response.prepare(request)
        for _ in range(100):
            try:
                await response.write(b" " * (100_000 if step.name == "huge" else 1))
            except ConnectionError:
                break  # the client gave up, which is what it should do
            if step.name == "drip":
                await self._pause(seconds / 100)
        return response

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return

    async def _list(self, request: web.Request) -> web.Response:
        wire, model = listing.vendor_of(request.headers, request.path), request.match_info.get("model", "")
        seen = Seen(request.path, request.headers, {}, wire, model, request.query_string)
        self.listed.append(seen)
        at = len(self.listed) - 1
        step = self._get_steps[at] if at < len(self._get_steps) else step_of("ok")
        if self.key is not None and seen.credential != self.key:
            self._object(f"{seen.path}: another key than the test's")
        if step.name == "ok" and model and self.models is not None and model not in self.models:
            step = step_of("404")
        if step.name in ERRORS:
            return self._error(step, seen)
        if step.name in BODIES:
            content_type, raw = BODIES[step.name]
            return web.Response(body=raw, content_type=content_type)
        known = ["fake-model"] if self.models is None else self.models
        return web.json_response(listing.one(wire, model) if model else listing.all_of(wire, known))

    async def _nowhere(self, request: web.Request) -> web.Response:
        self._object(f"{request.method} {request.path}: there is no such path")
        return web.json_response({"error": {"message": "no such path", "code": None}}, status=404)


def _checked(step: str | Step) -> Step:
    return step_of(step) if isinstance(step, str) else step


def parse_script(text: str) -> list[str]:
    """`500*3,slow=0.5` -> 500, 500, 500, slow=0.5."""
    steps: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, times = part.partition("*")
        steps += [name] * int(times or 1)
    return steps
