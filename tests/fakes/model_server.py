"""A fake model server on loopback: chat completions as OpenAI-compatible servers speak them, misbehaving by script.

Each request takes the next step of the script; after its end every answer is `ok`. Run by hand:
`python -m tests.fakes.model_server --port 8123 --script "500*3,ok"` prints its base URL and serves until interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

THROWAWAY_KEY = "test-throwaway-key-0000"  # marked: worth nothing anywhere
HANDLE = re.compile(r"^\[(M\d+)\]$", re.MULTILINE)
STEPS = (
    "ok", "seed", "fenced", "bare_list", "garbage", "prose", "truncated", "refusal",
    "filtered", "nan", "wrong_handle", "duplicate_keys", "empty_text", "no_signals", "400", "schema_400",
    "object_400", "401", "402", "403", "404", "413", "429", "429_quota",
    "500", "503", "529", "307", "hang", "drip", "reset", "empty_body",
    "html", "huge", "not_completion", "billed", "ticks", "no_usage",
)  # fmt: skip


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def user(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass
class ModelServer:
    """`async with ModelServer(["500"]) as server:` then `server.url` is the base URL, `server.seen` what was sent."""

    script: list[str] = field(default_factory=list)
    port: int = 0
    hang_s: float = 30.0
    """How long `hang` says nothing and `drip` takes: longer than the client's deadline."""
    retry_after: str = "7"
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> ModelServer:
        unknown = [step for step in self.script if step not in STEPS]
        if unknown:
            raise ValueError(f"no such step: {unknown}; there are {', '.join(STEPS)}")
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._closing = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        server = site._server
        assert server is not None
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(Seen(request.path, dict(request.headers), body))
        at = len(self.seen) - 1
        step = self.script[at] if at < len(self.script) else "ok"
        handles = HANDLE.findall(str(body["messages"][-1]["content"]))
        if step in _ERRORS:
            return self._error(step, request)
        if step in ("hang", "drip", "reset", "huge"):
            return await self._stream(step, request)
        if step in _BODIES:
            content_type, raw = _BODIES[step]
            return web.Response(body=raw, content_type=content_type)
        return web.json_response(_completion(step, handles, str(body.get("model"))))

    def _error(self, step: str, request: web.Request) -> web.Response:
        status, message, code = _ERRORS[step]
        # Providers echo keys in their errors: so does this one.
        message = message.replace("KEY", request.headers.get("Authorization", ""))
        error = {"message": message, "type": "fake_error", "param": None, "code": code}
        headers = {"Retry-After": self.retry_after} if status in (429, 503) else {}
        if status == 307:
            headers["Location"] = f"http://localhost:{self.port}/v1/chat/completions"
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _stream(self, step: str, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        transport = request.transport
        if step == "reset":
            response.headers["Content-Length"] = "100000"
            await response.prepare(request)
            await response.write(b'{"id": "cut')
            assert transport is not None
            transport.abort()
            return response
        if step == "hang":
            await self._pause(self.hang_s)
            return web.Response(status=504)
        await response.prepare(request)
        for _ in range(100):
            try:
                await response.write(b" " * (100_000 if step == "huge" else 1))
            except ConnectionError:
                break  # the client gave up, which is what it should do
            if step == "drip":
                await self._pause(self.hang_s / 100)
        return response

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return


_ERRORS: dict[str, tuple[int, str, str | None]] = {
    "400": (400, "context length exceeded", "context_length_exceeded"),
    "schema_400": (400, "This response_format type is unavailable now", "invalid_request_error"),
    "object_400": (400, "'response_format.type' must be 'text'", None),
    "401": (401, "Incorrect API key provided: KEY", "invalid_api_key"),
    "402": (402, "Insufficient Balance", None),
    "403": (403, "not for this key", None),
    "404": (404, "no such model", "model_not_found"),
    "413": (413, "too long", None),
    "429": (429, "slow down", "rate_limit_exceeded"),
    "429_quota": (429, "You exceeded your current quota", "insufficient_quota"),
    "500": (500, "internal error", None),
    "503": (503, "overloaded", None),
    "529": (529, "overloaded", None),
    "307": (307, "moved", None),
}
_BODIES: dict[str, tuple[str, bytes]] = {
    "empty_body": ("application/json", b""),
    "html": ("text/html", b"<html><body>Bad gateway</body></html>"),
    "not_completion": ("application/json", b'{"hello": [1, 2'),
}


def _signal(handle: str, **changed: Any) -> dict[str, Any]:
    return {
        "market_id": handle,
        "evidence": "fake evidence",
        "p_yes": 0.56,
        "p_low": 0.5,
        "p_high": 0.62,
        "action": "hold",
        "confidence": 0.7,
        "reasoning": "fake reasoning",
        "directional_bias": "bullish",
        "risk_level": "low",
        "priority": "medium",
    } | changed


def _seed_signal(handle: str) -> dict[str, Any]:
    """Only the seed's fields."""
    return {
        "market_id": handle,
        "action": "buy_yes",
        "confidence": 0.82,
        "reasoning": "Momentum and depth favour YES.",
        "directional_bias": "bullish",
        "risk_level": "medium",
        "priority": "high",
    }


def _text(step: str, handles: list[str]) -> str:
    signals = [_signal(handle) for handle in handles]
    whole = json.dumps({"signals": signals})
    special = {
        "seed": json.dumps({"signals": [_seed_signal(handle) for handle in handles]}),
        "fenced": f"Here you are:\n```json\n{whole}\n```\nGood luck!",
        "bare_list": json.dumps(signals),
        "garbage": "\x00\x1b[31m}{ not json at all",
        "prose": "I would rather talk about something else.",
        "truncated": whole[: len(whole) * 2 // 3],
        "nan": json.dumps({"signals": [_signal(h, confidence=float("nan")) for h in handles]}),
        "wrong_handle": json.dumps({"signals": [_signal("M999")]}),
        "duplicate_keys": whole.replace('"action": "hold"', '"action": "hold", "action": "exit"'),
        "empty_text": "",
        "no_signals": '{"signals": []}',
        "refusal": "",
        "filtered": "",
    }
    return special.get(step, whole)


def _completion(step: str, handles: list[str], model: str) -> dict[str, Any]:
    """The smallest reply that the SDK takes, with usage."""
    finish = {"truncated": "length", "filtered": "content_filter"}.get(step, "stop")
    refusal = "I cannot help with that." if step == "refusal" else None
    message = {"role": "assistant", "content": None if refusal else _text(step, handles), "refusal": refusal}
    usage: dict[str, Any] = {
        "prompt_tokens": 6000,
        "completion_tokens": 1000,
        "total_tokens": 7000,
        "prompt_tokens_details": {"cached_tokens": 2000},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }
    usage |= {"billed": {"cost": 0.00123}, "ticks": {"cost_in_usd_ticks": 37756000}}.get(step, {})
    reply: dict[str, Any] = {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "logprobs": None, "message": message}],
        "usage": usage,
    }
    if step == "no_usage":
        del reply["usage"]
    return reply


def parse_script(text: str) -> list[str]:
    """`500*3,ok` -> 500, 500, 500, ok."""
    steps: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, times = part.partition("*")
        steps += [name] * int(times or 1)
    return steps


async def _serve(port: int, script: list[str], hang_s: float) -> None:
    async with ModelServer(script, port=port, hang_s=hang_s) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="", help=f"steps, comma separated, with *N: {', '.join(STEPS)}")
    parser.add_argument("--hang", type=float, default=30.0, help="seconds that hang and drip take")
    args = parser.parse_args()
    try:
        asyncio.run(_serve(args.port, parse_script(args.script), args.hang))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
