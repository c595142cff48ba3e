"""Polymarket as `doctor` looks at it without a key: its hosts, this machine's clock and place, our own signature of a known order.

Every check ends in one `Check`, within its time, whatever the world does, and changes nothing anywhere.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from llm_maker.config import Config
from llm_maker.core.values import NS_PER_MS, NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.venues.net import Http, Pace, Reply, Socket, SocketClosed
from llm_maker.venues.polymarket.chain.rpc import CHAIN_ID, Rpc
from llm_maker.venues.polymarket.orders.drafts import Draft
from llm_maker.venues.polymarket.orders.sign import Signer, order_signature

VERSION = 2
"""Of the exchange whose orders we sign (`polymarket.md` 1.3)."""
SAMPLES = 3
LIMIT_S = 30.0
"""Venue seconds that one check may take."""
SKEW_WARNING_S, SKEW_FAILED_S = 1.0, 5.0
GOLDEN_KEY = "0x" + "11" * 32  # throwaway: the key of the golden vector, worth nothing anywhere
GOLDEN_DIGEST = "0x5c258659f556bdde8620651707ecf32879827661c1b8ed1375028ca3a4945cc0"
GOLDEN_SIGNATURE = (
    "0xe5c5d392d3ecf4af37535cdd0718fd1e05973831ad43cd63e6fa45efe568cf4f"
    "7f92b4c7aaae8023c84500b86b5d9203e1252d7f4afa7eba29d8bb964534ef651b"
)
NETWORK = "check this machine's network, its firewall and polymarket.hosts"


class Check(msgspec.Struct, frozen=True):
    """One finding; `cure` is what to do about it, in one line."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    text: str
    cure: str = ""


Tell = Callable[[Check], None]


def telling(secrets: Secrets, found: list[Check], progress: Tell) -> Tell:
    """Keep and pass on each check, without any secret that a host's words may have held."""
    # The address is no secret: the cure of a wrong one names it.
    hidden = [value for value in secrets.values() if value != secrets.get("LLM_MAKER_BROWSER_ADDRESS")]
    hidden += [value.removeprefix("0x") for value in hidden]

    def clean(text: str) -> str:
        for value in hidden:
            text = text.replace(value, "***")
        return text

    def tell(check: Check) -> None:
        told = msgspec.structs.replace(check, text=clean(check.text), cure=clean(check.cure))
        found.append(told)
        progress(told)

    return tell


async def bounded(name: str, check: Awaitable[Check], pace: Pace) -> Check:
    """A check that takes too long has failed."""
    try:
        async with asyncio.timeout(pace.wall(LIMIT_S)):
            return await check
    except TimeoutError:
        return Check(name, "failed", f"no result within {LIMIT_S:g}s", NETWORK)


async def public(config: Config, pace: Pace, tell: Tell) -> None:
    """What anyone can ask: hosts, clock, version, place."""
    hosts, limit = config.polymarket.hosts, config.polymarket.request_timeout_seconds
    clob = Http(hosts.clob, pace, timeout=limit)
    try:
        for check in await _order_book(clob, pace):
            tell(check)
        tell(await bounded("version", _version(clob), pace))
    finally:
        await clob.close()
    others = [
        ("gamma", _host("gamma", hosts.gamma, "/markets/keyset?limit=1", pace, limit, whole=True)),
        ("data", _host("data", hosts.data, "/", pace, limit)),
        ("relayer", _host("relayer", hosts.relayer, "/", pace, limit)),
        ("node", _node(hosts.rpc, pace, limit)),
        ("market socket", _socket("market socket", hosts.ws_market, pace, limit)),
        ("user socket", _socket("user socket", hosts.ws_user, pace, limit)),
        ("place", _place(hosts.geoblock, pace, limit, live=config.mode == "live")),
    ]
    for check in await asyncio.gather(*(bounded(name, each, pace) for name, each in others)):
        tell(check)


async def _order_book(http: Http, pace: Pace) -> tuple[Check, Check]:
    """The order book's host and its latency; and this machine's clock against its time, which is told in whole seconds."""
    took: list[float] = []
    skews: list[float] = []
    for _ in range(SAMPLES):
        sent = pace.now()
        reply = await http.request("GET", "/time")
        came = pace.now()
        if not reply.ok:
            lost = Check("clob", "failed", f"{netloc(http.base)} cannot be reached: {reply.error}", NETWORK)
            return lost, Check("clock", "skipped", "the venue's time is not known")
        took.append((came - sent) / NS_PER_MS / pace.speed)
        if reply.body.strip().isdigit():
            skews.append(((sent + came) / 2 - (int(reply.body) + 0.5) * NS_PER_S) / NS_PER_S)
    reached = Check("clob", "ok", f"{netloc(http.base)} answers in {statistics.median(took):.0f} ms (median of {SAMPLES})")
    if not skews:
        return reached, Check("clock", "failed", "the venue tells no time", "try again later")
    skew = statistics.median(skews)
    if abs(skew) <= SKEW_WARNING_S:
        return reached, Check("clock", "ok", f"within {SKEW_WARNING_S:g}s of the venue's")
    state: Literal["warning", "failed"] = "warning" if abs(skew) <= SKEW_FAILED_S else "failed"
    text = f"this machine's clock is {abs(skew):.1f}s {'ahead of' if skew > 0 else 'behind'} the venue's"
    return reached, Check("clock", state, text, "turn on NTP, for example: timedatectl set-ntp true")


async def _version(http: Http) -> Check:
    reply = await http.request("GET", "/version")
    told = fields(reply).get("version")
    if told == VERSION:
        return Check("version", "ok", f"the exchange is of version {VERSION}, as our orders")
    if reply.ok and told is not None:
        text = f"the exchange is of version {str(told)[:20]}, our orders are of version {VERSION}"
        return Check("version", "failed", text, "do not trade; a newer llm_maker is needed")
    return Check("version", "failed", f"the exchange does not tell its version: {reply.error or 'no number'}", "try again later")


async def _host(name: str, base: str, path: str, pace: Pace, limit: float, *, whole: bool = False) -> Check:
    """Any answer shows that a host is there; with `whole` it must be a good one."""
    http = Http(base, pace, timeout=limit)
    try:
        began = pace.now()
        reply = await http.request("GET", path)
        took = (pace.now() - began) / NS_PER_MS / pace.speed
    finally:
        await http.close()
    if reply.ok or (reply.status and reply.status < 500 and not whole):
        return Check(name, "ok", f"{netloc(base)} answers in {took:.0f} ms")
    word = f"answers with {reply.error}" if reply.status else f"cannot be reached: {reply.error}"
    return Check(name, "failed", f"{netloc(base)} {word}", NETWORK if not reply.status else "try again later")


async def _node(base: str, pace: Pace, limit: float) -> Check:
    rpc = Rpc(base, pace, timeout=limit)
    try:
        chain = await rpc.number("eth_chainId")
    finally:
        await rpc.close()
    if not chain.ok:
        return Check(
            "node", "failed", f"{netloc(base)} does not answer: {chain.error}", "set polymarket.hosts.rpc to another Polygon node"
        )
    if chain.result != CHAIN_ID:
        text = f"{netloc(base)} is of chain {chain.result}, not of Polygon ({CHAIN_ID})"
        return Check("node", "failed", text, "set polymarket.hosts.rpc to a Polygon node")
    return Check("node", "ok", f"{netloc(base)} is a node of Polygon")


async def _socket(name: str, url: str, pace: Pace, limit: float) -> Check:
    try:
        socket = await Socket.open(url, pace, 2 * limit)
    except SocketClosed as error:
        return Check(name, "failed", f"{netloc(url)} cannot be opened: {error}", NETWORK)
    await socket.close()
    return Check(name, "ok", f"{netloc(url)} opens")


async def _place(url: str, pace: Pace, limit: float, *, live: bool) -> Check:
    http = Http(url, pace, timeout=limit)
    try:
        reply = await http.request("GET", "")
    finally:
        await http.close()
    told = fields(reply)
    country = " ".join(str(told.get(name, ""))[:20] for name in ("country", "region")).strip() or "an unknown country"
    if told.get("blocked") is False:
        return Check("place", "ok", f"orders are taken from here ({country})")
    if told.get("blocked") is True:
        cure = "stay in paper mode, or trade from where the venue's terms allow it"
        return Check("place", "failed" if live else "warning", f"the venue takes no orders from here ({country})", cure)
    return Check("place", "warning", f"whether orders are taken from here is not known: {reply.error or 'no word of it'}", NETWORK)


def signing() -> Check:
    """Our own digest and signature of one known order (`polymarket.md` 1.3)."""
    signer = Signer(GOLDEN_KEY)
    draft = Draft(
        salt=12345,
        maker=signer.address,
        signer=signer.address,
        token_id="71321045679252212594626385532706912750332728571942532289631379312455583992563",
        maker_amount=40_000_000,
        taker_amount=100_000_000,
        side=0,
        signature_type=0,
        timestamp_ms=1_763_000_000_000,
        route="ctf",
    )
    if (draft.venue_id, order_signature(draft, signer)) == (GOLDEN_DIGEST, GOLDEN_SIGNATURE):
        return Check("signing", "ok", "a known order is signed as it must be")
    return Check("signing", "failed", "a known order comes out with another signature", "do not trade; install llm_maker anew")


def netloc(url: str) -> str:
    """A host for people: a node's address may carry an access key in its path."""
    return urlsplit(url).netloc


def fields(reply: Reply) -> dict[str, Any]:
    """The reply's JSON object; empty where there is none."""
    if not reply.ok:
        return {}
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
