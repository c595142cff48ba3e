"""Where each SDK finds the fake, and where it finds nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.models.asked import Wire


class Address:
    """The base URL that each SDK wants, for one port on loopback."""

    port: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        return f"{self.root}/v1"

    url = openai_url

    @property
    def anthropic_url(self) -> str:
        return self.root

    gemini_url = anthropic_url

    def base_url(self, wire: Wire) -> str:
        return self.openai_url if wire in ("responses", "chat") else self.root


@contextmanager
def refused() -> Iterator[Address]:
    """An address where nobody listens, and nobody can begin to while it is held."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = Address()
        address.port = held.getsockname()[1]
        yield address
