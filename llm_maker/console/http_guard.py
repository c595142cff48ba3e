"""Who may ask the HTTP server, from where, and how often. Pure: time is handed in, and the names of headers are small.

The rules of where are for browsers: a page from elsewhere, or a name that an attacker points at this machine, gets nothing even
though it runs on it. A key that is right is never kept out by somebody else's wrong ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_maker.console.http_keys import Keys, Right

READS_PER_S, READS_BURST = 20.0, 100.0
"""Of hundreds of markets one answer takes the loop 7 ms."""
ACTS_PER_S, ACTS_BURST = 5.0, 10.0
WRONG_KEYS_PER_S, WRONG_KEYS_BURST = 10 / 60, 10.0
TOO_MANY = 429
STOPS = frozenset({"kill", "cancel_all", "pause"})
"""What must get through after a program has spent the holder's other acts."""
_HERE = ("localhost", "127.0.0.1", "[::1]")


class Denied(Exception):
    """Not served: the status, one line, and seconds until it may be tried again (0: it is not a matter of time)."""

    def __init__(self, status: int, text: str, retry_after: int = 0, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after, self.headers = status, text, retry_after, headers or {}


class Bucket:
    """So many at once, and so many a second after that."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, 0.0

    def take(self, now: float) -> int:
        """0: granted; else whole seconds until one will be."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0
        return int((1 - self._left) / self._per_second) + 1


class Guard:
    """The rules for one server; `bound` is the host as it stands in a URL, `names` are what else it is called."""

    def __init__(self, keys: Keys, bound: str, port: int, names: tuple[str, ...]) -> None:
        self._keys = keys
        self._hosts = {f"{host}:{port}" for host in (*_HERE, bound.lower())}
        if port == 80:
            self._hosts |= {host.removesuffix(":80") for host in self._hosts}
        self._names = frozenset(name.lower() for name in names)
        self._wrong = Bucket(WRONG_KEYS_PER_S, WRONG_KEYS_BURST)
        self._public = Bucket(READS_PER_S, READS_BURST)
        self._reads = {right: Bucket(READS_PER_S, READS_BURST) for right in ("all", "read")}
        self._acts, self._stops = Bucket(ACTS_PER_S, ACTS_BURST), Bucket(ACTS_PER_S, ACTS_BURST)

    def check_place(self, headers: Mapping[str, str], *, page: bool) -> None:
        """Host, Origin and Sec-Fetch-Site; `page` may be opened from a link elsewhere. Raises `Denied`."""
        host = headers.get("host", "").lower()
        if host not in self._hosts and not self._is_named(host):
            raise Denied(421, "this server is not called that; a name it has is told to it by console.http_names")
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, where = origin.lower().partition("://")
            if scheme not in ("http", "https") or not (where == host or self._is_named(where)):
                raise Denied(403, "this origin may not ask here")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if not (page and opened):
                raise Denied(403, "another site may not ask here")

    def _is_named(self, host: str) -> bool:
        """A name without a port stands for any port, because a proxy in front has its own."""
        name, colon, port = host.rpartition(":")
        return host in self._names or (bool(colon) and port.isdecimal() and name in self._names)

    def check_key(self, headers: Mapping[str, str], now: float) -> Right:
        """What the holder may do. Raises `Denied`."""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if not shown:
            self.spend_public(now)
            raise Denied(401, "a key is needed: Authorization: Bearer KEY; `llm-maker page` prints the link that has it")
        right = self._keys.right_of(shown.strip().encode("utf-8", "surrogateescape")) if scheme.lower() == "bearer" else None
        if right is None:
            if wait := self._wrong.take(now):
                raise Denied(TOO_MANY, "too many wrong keys", wait)
            raise Denied(401, "this key opens nothing; `llm-maker page` prints the link with the right one")
        return right

    def spend_public(self, now: float) -> None:
        """One request that showed no key. Raises `Denied`."""
        if wait := self._public.take(now):
            raise Denied(TOO_MANY, "too many requests", wait)

    def spend_read(self, right: Right, now: float) -> None:
        """One answer read; each key has its own allowance. Raises `Denied`."""
        if wait := self._reads[right].take(now):
            raise Denied(TOO_MANY, "too many requests", wait)

    def spend_act(self, verb: str, now: float) -> None:
        """One action; those that stop have their own allowance. Raises `Denied`."""
        bucket = self._stops if verb in STOPS else self._acts
        if wait := bucket.take(now):
            raise Denied(TOO_MANY, "too many actions", wait)
