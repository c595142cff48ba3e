"""Who may ask, how often, who is still alive: API keys, per-signer token buckets, heartbeats (`polymarket.md` 1.5, 2.4, 2.6)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.fakes.polymarket.house import House
from tests.fakes.polymarket.records import ZERO, FakeAccount
from tests.fakes.polymarket.verify import BAD_KEY, Refused, check_l1, check_l2, credentials

ORDERS = (40.0, 60.0)
CANCELS = (80.0, 120.0)
"""Rate a second and burst of the Standard tier, which may owe cancels."""
BEAT_LIMIT_MS = 10_000
BEAT_CHECK_MS = 5_000


@dataclass
class Key:
    """One API key: whose it is, and its proof."""

    api_key: str
    secret: str
    passphrase: str
    account: FakeAccount


class Keys:
    """The house's own keys, and those that L1 proofs made beside them."""

    def __init__(self, house: House, window_s: float) -> None:
        self._house, self._window_s = house, window_s
        self._made: dict[str, Key] = {}

    def find(self, api_key: str) -> Key | None:
        account = self._house.accounts.get(api_key)
        if account is not None:
            return Key(account.api_key, account.secret, account.passphrase, account)
        return self._made.get(api_key)

    def of(self, account: FakeAccount) -> list[str]:
        return [account.api_key, *(key.api_key for key in self._made.values() if key.account is account)]

    def prove(self, headers: Mapping[str, str], now_ms: int, *, create: bool) -> Key:
        """The key of an L1 proof. Creating one that is there, and deriving one that is not, are refused as the venue does."""
        address, nonce = check_l1(headers, now_ms // 1000, self._window_s)
        api_key, secret, passphrase = credentials(address, nonce)
        found = self.find(api_key)
        if found is not None and create:
            raise Refused(400, "Could not create api key", "there is one")
        if found is None and not create:
            raise Refused(400, "Could not derive api key!", f"none of nonce {nonce}")
        if found is None:
            account = next((each for each in self._house.accounts.values() if each.signer.lower() == address.lower()), None)
            if account is None:  # a stranger: keys he may have, money he has not
                account = FakeAccount(address, address, 0, api_key, secret, passphrase, cash=ZERO)
                self._house.add_account(account)
            found = Key(api_key, secret, passphrase, account)
            if account.api_key != api_key:
                self._made[api_key] = found
        return found

    def check(self, headers: Mapping[str, str], method: str, path: str, body: bytes, now_ms: int) -> Key:
        """Whose private request this is."""
        key = self.find(headers.get("POLY_API_KEY", ""))
        if key is None:
            raise Refused(401, BAD_KEY, "no such key")
        check_l2(
            headers,
            method,
            path,
            body,
            address=key.account.signer,
            secret=key.secret,
            passphrase=key.passphrase,
            now_s=now_ms // 1000,
            window_s=self._window_s,
        )
        return key


class Meter:
    """One bucket: `take` refuses what it has not, `charge` may leave it owing."""

    def __init__(self, rate: float, burst: float, now_ms: int) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, now_ms

    def left(self, now_ms: int) -> float:
        self._tokens = min(self.burst, self._tokens + self.rate * max(now_ms - self._at, 0) / 1000)
        self._at = max(self._at, now_ms)
        return self._tokens

    def take(self, cost: int, now_ms: int) -> None:
        """All or nothing; what costs more than the burst is never admitted, so it is not told when to come again."""
        missing = cost - self.left(now_ms)
        if missing > 1e-9:
            headers = self.headers(now_ms, wait_s := missing / self.rate)
            if cost <= self.burst:
                headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
            raise Refused(429, "Too Many Requests", f"{cost} of {self._tokens:.1f} tokens", headers=headers)
        self._tokens -= cost

    def charge(self, cost: int, now_ms: int) -> None:
        self._tokens = self.left(now_ms) - cost

    def headers(self, now_ms: int, wait_s: float = 0.0) -> dict[str, str]:
        return {
            "Poly-RateLimit-Remaining": str(math.floor(self._tokens)),
            "Poly-RateLimit-Reset": str(math.ceil(now_ms / 1000 + wait_s)),
            "Poly-RateLimit-Tier": "Standard",
        }


class Limits:
    """Two meters per signer; none at all where `enforced` is off."""

    def __init__(self, enforced: bool) -> None:
        self.enforced = enforced
        self._meters: dict[tuple[str, str], Meter] = {}

    def orders(self, signer: str, cost: int, now_ms: int) -> dict[str, str]:
        return self._take("orders", signer, cost, now_ms)

    def cancels(self, signer: str, cost: int, now_ms: int) -> dict[str, str]:
        return self._take("cancels", signer, cost, now_ms)

    def swept(self, signer: str, count: int, now_ms: int) -> dict[str, str]:
        """The second part of a cancel-all's cost, known only when it is done: the bucket may owe it."""
        meter = self._meter("cancels", signer, now_ms)
        meter.charge(count, now_ms)
        return meter.headers(now_ms)

    def _take(self, kind: str, signer: str, cost: int, now_ms: int) -> dict[str, str]:
        meter = self._meter(kind, signer, now_ms)
        if self.enforced:
            meter.take(cost, now_ms)
        return meter.headers(now_ms)

    def _meter(self, kind: str, signer: str, now_ms: int) -> Meter:
        rate, burst = ORDERS if kind == "orders" else CANCELS
        return self._meters.setdefault((kind, signer.lower()), Meter(rate, burst, now_ms))


@dataclass
class _Pulse:
    expected: str = ""
    last_ms: int | None = None
    """None: not armed yet."""


class Heartbeats:
    """The dead-man switch of each API key (`polymarket.md` 2.4): armed by its first beat, never disarmed."""

    def __init__(self, now_ms: int) -> None:
        self._pulses: dict[str, _Pulse] = {}
        self._checked_ms = now_ms

    def beat(self, api_key: str, heartbeat_id: str, now_ms: int) -> str:
        """The id to send next time; a wrong one is answered with the right one and refreshes nothing."""
        pulse = self._pulses.setdefault(api_key, _Pulse())
        if heartbeat_id != pulse.expected:
            raise Refused(400, "Invalid Heartbeat ID", f"{heartbeat_id!r}, not {pulse.expected!r}", heartbeat_id=pulse.expected)
        pulse.expected, pulse.last_ms = str(uuid.uuid4()), now_ms
        return pulse.expected

    def silent(self, now_ms: int) -> Iterator[str]:
        """Keys whose orders must go now; looked at every five seconds."""
        if now_ms - self._checked_ms < BEAT_CHECK_MS:
            return
        self._checked_ms = now_ms - (now_ms - self._checked_ms) % BEAT_CHECK_MS
        for api_key, pulse in self._pulses.items():
            if pulse.last_ms is not None and now_ms - pulse.last_ms > BEAT_LIMIT_MS:
                yield api_key
