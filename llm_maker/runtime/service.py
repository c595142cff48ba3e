"""Speaking to systemd: ready, alive, stopping. Does nothing where no service manager listens."""

from __future__ import annotations


class Service:
    """The other end of `NOTIFY_SOCKET`; failures to speak are no failures of ours."""

    def ready(self, status: str) -> None:
        """The daemon runs."""

    def alive(self, status: str = "") -> None:
        """The loop turns; told at most twice in the watchdog's time, however often it is called."""

    def stopping(self) -> None:
        """The end has begun."""
