"""How late a venue's messages come. It refuses to know what they say and how late is too late."""

from __future__ import annotations

import msgspec

_DRIFT_DIVISOR = 5_000
"""The baseline rises by one part in this (200 ppm, twice a bad clock's drift): a lag of 2 s stays seen for an hour."""


class Lag(msgspec.Struct):
    """How late a venue's messages come, against the earliest they came; both clocks may be wrong by any constant."""

    lag_ns: int = 0
    baseline_ns: int | None = None
    """Smallest receive time less venue time, as it was at `baseline_at_ns`."""
    baseline_at_ns: int = 0

    def on_message(self, now: int, venue_ts: int) -> int:
        """Lag of this message, ns; one without a venue time (0) leaves the last."""
        if not venue_ts:
            return self.lag_ns
        delay = now - venue_ts
        if self.baseline_ns is not None:
            baseline = self.baseline_ns + (now - self.baseline_at_ns) // _DRIFT_DIVISOR
            if delay > baseline:
                self.lag_ns = delay - baseline
                return self.lag_ns
        self.baseline_ns, self.baseline_at_ns = delay, now
        self.lag_ns = 0
        return 0
