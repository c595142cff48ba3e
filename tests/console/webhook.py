"""A service on loopback that takes alarms as apprise's `json://` sends them; it may refuse, hang or be slow on request."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """`messages` holds (path, title, body) of all that was taken; use as a context manager."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str]] = []
        self.asked = 0
        self.status = 200
        self.hang_s = 0.0
        self.go = threading.Event()
        """Set: whoever hangs goes on."""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked += 1
                if hook.hang_s:
                    hook.go.wait(hook.hang_s)
                if hook.status == 200:
                    said: dict[str, Any] = json.loads(raw)
                    hook.messages.append((self.path, said["title"], said["message"]))
                try:
                    self.send_response(hook.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    return  # whoever asked has left

            def log_message(self, format: str, *args: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, path: str = "hook") -> str:
        return f"json://127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()

    def got(self, code: str, path: str = "/hook") -> list[tuple[str, str]]:
        """(title, body) of the messages about a code that came to a path."""
        return [(title, body) for at, title, body in self.messages if at == path and f"\n{code}, market time" in body]

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while len(self.messages) < count and time.monotonic() < end:
            time.sleep(0.02)
