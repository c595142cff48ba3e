"""Which wallet a key stands for, whether it exists, and the API key that is asked for over loopback."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.auth import Credentials, Wallet, WalletKind
from llm_maker.venues.polymarket.chain.addresses import derived
from llm_maker.venues.polymarket.chain.rpc import Rpc
from llm_maker.venues.polymarket.chain.wallets import Problem, credentials, deployed, detect
from llm_maker.venues.polymarket.orders.sign import Signer, checksum
from llm_maker.venues.polymarket.rest import Clob
from tests.fakes.polymarket.relayer import ChainHouse, routes
from tests.fakes.polymarket.verify import Refused, check_l1

KEY = "0x" + "11" * 32  # throwaway: the golden key of polymarket.md 1.3
SIGNER = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
NOW_S = 1_763_000_000
SECRET = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
TOLD = {"apiKey": "0000-key", "secret": SECRET, "passphrase": "a phrase"}
STRANGER = "0x" + "00" * 19 + "01"


def pace() -> Pace:
    return Pace(lambda: NOW_S * NS_PER_S, 10.0)


@asynccontextmanager
async def served(*added: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_routes(added)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("place", range(5))
async def test_every_address_that_the_key_derives_is_recognised(place):
    kind, address = derived(SIGNER)[place]
    assert detect(SIGNER, address) == Wallet(kind, address, SIGNER)
    assert detect(SIGNER, address.lower(), kind.name.lower()) == Wallet(kind, address, SIGNER)


def test_the_five_derivations_differ_and_are_those_of_the_sdk():
    from polymarket._internal.wallet import classify_account
    from polymarket.environments import PRODUCTION

    found = derived(SIGNER)
    assert len({address for _, address in found}) == 5
    words = {"EOA": 0, "POLY_PROXY": 1, "GNOSIS_SAFE": 2, "DEPOSIT_WALLET": 3}
    for kind, address in found:
        account = classify_account(signer=SIGNER, wallet=address, config=PRODUCTION._config.wallet_derivation)
        assert (words[account.wallet_type], account.signer_type) == (kind, "OWNER")


def test_our_derivation_is_that_of_the_sdk_for_any_key():
    from polymarket._internal import wallet
    from polymarket.environments import PRODUCTION

    rules = PRODUCTION._config.wallet_derivation
    dice = random.Random(7)
    for _ in range(50):
        signer = checksum("0x" + dice.randbytes(20).hex())
        assert derived(signer) == (
            (WalletKind.EOA, signer),
            (WalletKind.DEPOSIT, wallet.derive_beacon_deposit_wallet_address(signer, rules)),
            (WalletKind.DEPOSIT, wallet.derive_uups_deposit_wallet_address(signer, rules)),
            (WalletKind.PROXY, wallet.derive_proxy_wallet_address(signer, rules)),
            (WalletKind.SAFE, wallet.derive_safe_wallet_address(signer, rules)),
        )


def test_a_start_finds_its_wallet_without_the_sdk():
    asked = f"""
import sys
from llm_maker.venues.polymarket.chain.wallets import detect
assert detect({SIGNER!r}, {SIGNER!r}).kind == 0
heavy = [name for name in sys.modules if name.split(".")[0] in ("polymarket", "eth_account", "eth_utils", "eth_abi", "web3")]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", asked], check=True, cwd=Path(__file__).parents[2])


async def test_a_foreign_address_lists_what_the_key_can_stand_for():
    problem = detect(SIGNER, STRANGER)
    assert isinstance(problem, Problem)
    assert all(f"{kind.name.lower()} {address}" in problem.text for kind, address in derived(SIGNER))


async def test_a_configured_kind_is_checked_and_never_believed():
    safe = next(address for kind, address in derived(SIGNER) if kind is WalletKind.SAFE)
    problem = detect(SIGNER, safe, "proxy")
    assert isinstance(problem, Problem) and "safe wallet" in problem.text and "auto" in problem.cure
    assert isinstance(detect(SIGNER, STRANGER, "deposit"), Problem)


@pytest.mark.parametrize("address", ["", "0x12", SIGNER[:-1] + "a", "not an address"])
async def test_what_is_no_address_is_told(address):
    problem = detect(SIGNER, address)
    assert isinstance(problem, Problem) and "LLM_MAKER_BROWSER_ADDRESS" in problem.text


async def test_whether_a_wallet_exists_is_yes_no_or_not_known():
    house = ChainHouse(deployed={STRANGER})
    async with served(*routes(lambda request: house)) as url:
        rpc = Rpc(f"{url}/rpc", pace())
        assert await deployed(rpc, STRANGER) is True
        assert await deployed(rpc, SIGNER) is False
        house.rpc_faults["eth_getCode"] = "rate limit"
        assert isinstance(await deployed(rpc, SIGNER), Problem)
        await rpc.close()


class Keys:
    """The venue's two paths for API keys: `made` and `derived` answer with status and body."""

    def __init__(self, made: tuple[int, Any], derived_: tuple[int, Any]) -> None:
        self.answers = {"POST": made, "GET": derived_}
        self.asked: list[tuple[str, str, int]] = []

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/auth/api-key", self.handle), web.get("/auth/derive-api-key", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        try:
            address, nonce = check_l1(request.headers, NOW_S, 30)
        except Refused as refused:
            return web.json_response({"error": refused.words}, status=refused.status)
        self.asked.append((request.method, address, nonce))
        status, body = self.answers[request.method]
        return web.json_response(body, status=status)


async def ask(keys: Keys, given: tuple[str, str, str] | None = None, now: Callable[[], int] | None = None) -> Credentials | Problem:
    async with served(*keys.routes()) as url:
        clock = Pace(now, 10.0) if now else pace()
        clob = Clob(url, clock)
        try:
            return await credentials(clob, Signer(KEY), 7, given, clock)
        finally:
            await clob.close()


async def test_a_key_is_made_under_our_own_nonce():
    keys = Keys((200, TOLD), (500, {}))
    made = await ask(keys)
    assert isinstance(made, Credentials) and (made.key, made.address) == ("0000-key", SIGNER)
    assert [(method, address.lower(), nonce) for method, address, nonce in keys.asked] == [("POST", SIGNER.lower(), 7)]
    assert made.for_socket() == TOLD


@pytest.mark.parametrize("first", [(400, {"error": "Could not create api key"}), (500, {"error": "oops"}), (200, {"odd": 1})])
async def test_a_key_that_exists_or_whose_answer_was_lost_is_derived(first):
    keys = Keys(first, (200, TOLD))
    made = await ask(keys)
    assert isinstance(made, Credentials) and made.key == "0000-key"
    assert [(method, nonce) for method, _, nonce in keys.asked] == [("POST", 7), ("GET", 7)]


async def test_given_credentials_ask_nobody():
    keys = Keys((500, {}), (500, {}))
    made = await ask(keys, ("k", SECRET, "p"))
    assert isinstance(made, Credentials) and made.key == "k" and not keys.asked
    broken = await ask(keys, ("k", "abc", "p"))
    assert isinstance(broken, Problem) and "base64" in broken.text and "abc" not in repr(broken)


async def test_a_wrong_clock_is_a_problem_whose_cure_is_the_clock():
    problem = await ask(Keys((200, TOLD), (200, TOLD)), now=lambda: (NOW_S - 3600) * NS_PER_S)
    assert isinstance(problem, Problem) and "clock" in problem.cure


async def test_a_venue_that_gives_no_key_is_a_problem_without_a_secret_in_it():
    half = {"apiKey": "0000-key", "secret": SECRET}
    problem = await ask(Keys((200, half), (200, half)))
    assert isinstance(problem, Problem) and SECRET not in repr(problem) and KEY[2:] not in repr(problem)


async def test_an_unreachable_venue_is_a_problem():
    clob = Clob("http://127.0.0.1:1", pace())
    problem = await credentials(clob, Signer(KEY), 0, None, pace())
    await clob.close()
    assert isinstance(problem, Problem) and "cannot be reached" in problem.text
