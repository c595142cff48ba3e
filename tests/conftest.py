"""What all tests share: no way out to the network, hypothesis without deadlines, a skip that says why."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("LLM_MAKER_SHARED_DATA", ROOT.parent / "shared" / "data"))
"""Recorded data kept outside the repository; see `shared` below."""
_LOOPBACK = ("127.", "::1", "localhost")

settings.register_profile("quiet", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quiet")

_connect = socket.socket.connect


def _connect_here(self: socket.socket, address: Any) -> Any:
    if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOOPBACK):
        raise AssertionError(f"a test reached for the network: {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that leaves the machine fails, whatever a key in the environment might allow."""
    monkeypatch.setattr(socket.socket, "connect", _connect_here)
    for name in [name for name in os.environ if name.startswith("LLM_MAKER__") or name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    # A daemon of a test serves no page unless its test wants one (`LLM_MAKER__CONSOLE__HTTP=true`): it costs a quarter of a second.
    monkeypatch.setenv("LLM_MAKER__CONSOLE__HTTP", "false")


@pytest.fixture
def shared() -> Path:
    """The folder of recorded data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no recorded data at {SHARED} (set LLM_MAKER_SHARED_DATA)")
    return SHARED
