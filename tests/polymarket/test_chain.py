"""Merge, split and redeem over loopback: what is signed for each kind of wallet, and how every way to fail is told."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from llm_maker.core.values import NS_PER_S, FixedGrid, Instrument, InstrumentId, Kind
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain.chain import VALID_S, Chain, ChainHosts
from llm_maker.venues.polymarket.chain.relayer import BUILDER_SECRETS, RELAYER_SECRETS, RelayerKey, relayer_key
from tests.fakes.polymarket.relayer import ADAPTERS, RELAYER_KEY, ChainHouse, routes

KEY = "0x" + "11" * 32  # throwaway: the golden key of polymarket.md 1.3
SIGNER = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
CONDITION = "0x" + "ab" * 32
TOKENS = (111, 222)
SPEED = 20.0
GASLESS = (WalletKind.PROXY, WalletKind.SAFE, WalletKind.DEPOSIT)
OUR_KEY = RelayerKey(fixed={"RELAYER_API_KEY": RELAYER_KEY, "RELAYER_API_KEY_ADDRESS": SIGNER})


def market(route: str = "ctf") -> Instrument:
    return Instrument(
        id=InstrumentId(CONDITION), venue="polymarket", kind=Kind.BINARY, price_decimals=4, qty_decimals=6, grid=FixedGrid(100),
        qty_step=10_000, min_qty=5_000_000, payout=10_000, token_ids=(str(TOKENS[0]), str(TOKENS[1])), route=route,
    )  # fmt: skip


@dataclass
class Clock:
    """Venue time that runs `SPEED` times as fast as ours, and leaps when told to."""

    ahead_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def now(self) -> int:
        return int((1_790_000_000 + self.ahead_s + (time.monotonic() - self.began) * SPEED) * NS_PER_S)


@dataclass
class Scene:
    house: ChainHouse
    chain: Chain
    clock: Clock
    wallet: Wallet
    url: str
    key_reads: list[str]


def wallet_of(kind: WalletKind) -> Wallet:
    from llm_maker.venues.polymarket.chain.addresses import derived

    return Wallet(kind, next(address for found, address in derived(SIGNER) if found is kind), SIGNER)


@asynccontextmanager
async def scene(
    kind: WalletKind = WalletKind.DEPOSIT, *, key: RelayerKey | None = OUR_KEY, private: str = KEY, timeout_s: float = 40.0
) -> AsyncIterator[Scene]:
    house = ChainHouse(conditions={CONDITION: TOKENS}, polls=0)
    app = web.Application()
    app.router.add_routes(routes(lambda request: house))
    app.router.add_get("/markets/keyset", _listing)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    clock, wallet, reads = Clock(), wallet_of(kind), []

    def handed() -> str:
        reads.append("read")
        return private

    chain = Chain(handed, wallet, ChainHosts(url, f"{url}/rpc"), Pace(clock.now, SPEED), relayer_key=key, timeout_s=timeout_s)
    house.hold(wallet.maker, CONDITION, 50_000_000, 60_000_000)
    try:
        yield Scene(house, chain, clock, wallet, url, reads)
    finally:
        await chain.close()
        await runner.cleanup()


async def _listing(request: web.Request) -> web.Response:
    row = {
        "id": "1", "conditionId": CONDITION, "version": "v1", "negRisk": False, "outcomes": '["Yes","No"]',
        "clobTokenIds": json.dumps([str(t) for t in TOKENS]), "question": "?", "slug": "q", "closed": False,
    }  # fmt: skip
    return web.json_response({"markets": [row], "next_cursor": None})


def held(at: Scene) -> tuple[int, int]:
    return at.house.shares[at.wallet.maker.lower(), TOKENS[0]], at.house.shares[at.wallet.maker.lower(), TOKENS[1]]


@pytest.mark.parametrize("kind", list(WalletKind))
async def test_a_merge_from_every_kind_of_wallet(kind):
    async with scene(kind) as at:
        done = await at.chain.merge(market(), 20_000_000)
        assert (done.outcome, done.cash, done.reason) == ("done", 20_000_000, "")
        assert done.tx.startswith("0x") and held(at) == (30_000_000, 40_000_000)
        (work,) = at.house.works
        assert (work.what, work.wallet, work.condition, work.qty) == ("merge", at.wallet.maker, CONDITION, 20_000_000)
        assert work.adapter == ADAPTERS["ctf"]
        assert len(at.house.transactions) == 1


@pytest.mark.parametrize("kind", list(WalletKind))
async def test_a_split_pays_and_a_second_one_uses_the_next_nonce(kind):
    async with scene(kind) as at:
        first = await at.chain.split(market("neg_risk"), 7_000_000)
        second = await at.chain.split(market("neg_risk"), 1_000_000)
        assert (first.outcome, first.cash, second.outcome, second.cash) == ("done", -7_000_000, "done", -1_000_000)
        assert held(at) == (58_000_000, 68_000_000)
        assert [work.adapter for work in at.house.works] == [ADAPTERS["neg_risk"]] * 2


@pytest.mark.parametrize("kind", list(WalletKind))
async def test_a_redemption_tells_what_the_chain_paid(kind):
    async with scene(kind) as at:
        at.house.payouts[CONDITION] = (1_000_000, 0)
        done = await at.chain.redeem(market(), 50_000_000, 60_000_000)
        assert (done.outcome, done.cash) == ("done", 50_000_000) and held(at) == (0, 0)


async def test_a_redemption_is_refused_while_the_market_is_open_or_the_balance_is_not_ours():
    async with scene() as at:
        early = await at.chain.redeem(market(), 50_000_000, 60_000_000)
        at.house.payouts[CONDITION] = (0, 1_000_000)
        foreign = await at.chain.redeem(market(), 50_000_000, 40_000_000)
        dust = await at.chain.redeem(market(), 50_009_000, 59_995_000)
        gone = await at.chain.redeem(market(), 50_000_000, 60_000_000)
        assert early.outcome == foreign.outcome == gone.outcome == "failed"
        assert "not resolved" in early.reason and "we count 50000000 and 40000000" in foreign.reason and "no share" in gone.reason
        assert (dust.outcome, dust.cash) == ("done", 60_000_000) and len(at.house.works) == 1


@pytest.mark.parametrize("kind", GASLESS)
async def test_the_body_is_that_of_the_sdk(kind, monkeypatch):
    """The SDK's own client merges on the same fake; nonce and clock are the same, so the envelope must be, but for the note."""
    from polymarket.auth import RelayerApiKey
    from polymarket.clients.async_secure import AsyncSecureClient
    from polymarket.environments import PRODUCTION, _create_environment
    from polymarket.models.clob import ApiKeyCreds

    async with scene(kind) as at:
        now = at.clock.now() // NS_PER_S
        hosts = dict.fromkeys(("clob_url", "gamma_url", "data_url", "relayer_url"), at.url)
        config = replace(PRODUCTION._config, rpc_url=f"{at.url}/rpc", **hosts)
        client = await AsyncSecureClient._create(
            private_key=KEY,
            wallet=at.wallet.maker,
            environment=_create_environment(name="loopback", config=config),
            credentials=ApiKeyCreds(key="k", secret="czM=", passphrase="p"),
            api_key=RelayerApiKey(key=RELAYER_KEY, address=SIGNER),
            validate_credentials=False,
        )
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda: float(now - 300))  # the SDK signs for 600 s, we for 300
            await client.merge_positions(condition_id=CONDITION, amount=20_000_000)
        await client.close()
        at.house.nonces.clear()
        at.house.hold(at.wallet.maker, CONDITION, 50_000_000, 60_000_000)
        ours = Chain(
            lambda: KEY, at.wallet, ChainHosts(at.url, f"{at.url}/rpc"), Pace(lambda: now * NS_PER_S, SPEED), relayer_key=OUR_KEY
        )
        assert (await ours.merge(market(), 20_000_000)).outcome == "done"
        await ours.close()
        theirs, mine = at.house.bodies
        assert "erge" in theirs.pop("metadata") and mine.pop("metadata") == f"merge 20000000 of {CONDITION}"
        assert mine == theirs


@pytest.mark.parametrize(
    ("fate", "words"),
    [("refuse", "quota exceeded"), ("busy", "wallet busy"), ("unauthorized", "invalid authorization")],
)
async def test_what_the_relayer_refuses_has_failed_and_is_not_sent_again(fate, words):
    async with scene() as at:
        at.house.submits = [fate]
        refused = await at.chain.merge(market(), 20_000_000)
        assert refused.outcome == "failed" and words in refused.reason and refused.tx == ""
        assert at.house.asked["/submit"] == 1 and held(at) == (50_000_000, 60_000_000)


@pytest.mark.parametrize("kind", list(WalletKind))
async def test_what_reverts_on_the_chain_has_failed(kind):
    async with scene(kind) as at:
        at.house.submits = ["fail"]
        failed = await at.chain.split(market(), 1_000_000)
        assert failed.outcome == "failed" and "reverted" in failed.reason and failed.tx.startswith("0x")


@pytest.mark.parametrize("kind", [WalletKind.SAFE, WalletKind.EOA])
async def test_what_does_not_end_in_time_is_unknown_until_a_later_look(kind):
    async with scene(kind, timeout_s=5.0) as at:
        at.house.submits = ["stuck"]
        waiting = await at.chain.merge(market(), 20_000_000)
        assert waiting.outcome == "unknown" and waiting.tx and waiting.reason
        assert (await at.chain.check(waiting.tx)).outcome == "unknown"
        (transaction,) = at.house.transactions.values()
        transaction.final, transaction.polls = "0x1" if kind is WalletKind.EOA else "STATE_CONFIRMED", 0
        transaction.work = at.house.do(at.wallet.maker, ADAPTERS["ctf"], _calldata(at))
        # As after a restart: the handle is all that is left.
        again = Chain(lambda: KEY, at.wallet, ChainHosts(at.url, f"{at.url}/rpc"), Pace(at.clock.now, SPEED), relayer_key=OUR_KEY)
        later = await again.check(waiting.tx)
        await again.close()
        assert (later.outcome, later.cash, later.tx) == ("done", 20_000_000, transaction.hash)


def _calldata(at: Scene) -> bytes:
    from llm_maker.venues.polymarket.chain.transactions import merge_call

    return bytes.fromhex(merge_call(market(), 20_000_000).data[2:])


@pytest.mark.parametrize("kind", GASLESS)
@pytest.mark.parametrize("fate", ["lost", "garbage"])
async def test_a_lost_answer_is_found_again_by_the_signature(kind, fate):
    async with scene(kind) as at:
        at.house.submits = [fate]
        done = await at.chain.merge(market(), 20_000_000)
        assert (done.outcome, done.cash) == ("done", 20_000_000) and done.tx.startswith("0x")
        assert at.house.asked["/submit"] == 1


async def test_a_submit_that_never_arrived_is_unknown_first_and_failed_once_it_cannot_arrive():
    async with scene(timeout_s=5.0) as at:
        at.house.submits = ["drop"]
        lost = await at.chain.merge(market(), 20_000_000)
        assert lost.outcome == "unknown" and lost.tx.startswith("lost:")
        assert (await at.chain.check(lost.tx)).outcome == "unknown"
        at.clock.ahead_s += VALID_S + 5
        assert (await at.chain.check(lost.tx)).outcome == "failed"
        assert held(at) == (50_000_000, 60_000_000) and at.house.asked["/submit"] == 1


async def test_a_lost_submit_has_not_failed_while_it_may_have_been_done():
    async with scene(timeout_s=3.0) as at:
        at.house.submits = ["drop"]
        lost = await at.chain.merge(market(), 20_000_000)
        at.clock.ahead_s += VALID_S + 5
        at.house.nonces[SIGNER.lower()] += 1
        used = await at.chain.check(lost.tx)
        at.house.nonces[SIGNER.lower()] -= 1
        at.house.begin("", "STATE_CONFIRMED", None)
        unsigned = await at.chain.check(lost.tx)
        at.house.transactions.clear()
        assert (used.outcome, unsigned.outcome, (await at.chain.check(lost.tx)).outcome) == ("unknown", "unknown", "failed")
        assert "nonce is used" in used.reason and "without their signatures" in unsigned.reason


async def test_an_unreachable_host_fails_before_anything_is_sent():
    async with scene() as at:
        nowhere = ChainHosts("http://127.0.0.1:1", f"{at.url}/rpc")
        cut_off = Chain(lambda: KEY, at.wallet, nowhere, Pace(at.clock.now, SPEED), relayer_key=OUR_KEY)
        blind = Chain(
            lambda: KEY, at.wallet, ChainHosts(at.url, "http://127.0.0.1:1"), Pace(at.clock.now, SPEED), relayer_key=OUR_KEY
        )
        for chain in (cut_off, blind):
            result = await chain.merge(market(), 20_000_000)
            assert result.outcome == "failed" and "127.0.0.1" in result.reason
            await chain.close()
        assert not at.house.bodies


async def test_without_a_relayer_key_the_cure_names_the_variables_and_nothing_is_signed():
    async with scene(key=None) as at:
        refused = await at.chain.merge(market(), 20_000_000)
        assert refused.outcome == "failed" and all(name in refused.reason for name in RELAYER_SECRETS)
        assert not at.key_reads and not at.house.bodies


async def test_a_plain_key_needs_no_relayer_and_reads_its_key_only_to_sign():
    async with scene(WalletKind.EOA, key=None) as at:
        short = await at.chain.merge(market(), 50_000_001)
        assert short.outcome == "failed" and "fewer than" in short.reason and not at.key_reads
        assert (await at.chain.merge(market(), 50_000_000)).outcome == "done"
        assert at.key_reads == ["read"] and not at.house.bodies


@pytest.mark.parametrize(
    ("method", "error", "outcome", "words"),
    [
        ("eth_estimateGas", "execution reverted: not approved", "failed", "not approved"),
        ("eth_sendRawTransaction", "insufficient funds for gas", "failed", f"send POL to {SIGNER}"),
        ("eth_sendRawTransaction", "nonce too low", "failed", "nonce too low"),
        ("eth_sendRawTransaction", "already known", "unknown", "not mined"),
        ("eth_sendRawTransaction", "request timeout on the free tier", "unknown", "not mined"),
        ("eth_sendRawTransaction", "drop", "unknown", "not mined"),
        ("eth_gasPrice", "drop", "failed", "eth_gasPrice"),
    ],
)
async def test_a_node_says_no_or_says_nothing(method, error, outcome, words):
    async with scene(WalletKind.EOA, timeout_s=3.0) as at:
        at.house.rpc_faults[method] = error
        result = await at.chain.merge(market(), 20_000_000)
        assert result.outcome == outcome and words in result.reason
        assert bool(result.tx) == (outcome == "unknown")


async def test_a_node_of_another_chain_is_refused():
    async with scene(WalletKind.EOA) as at:
        at.house.chain_id = 80002
        result = await at.chain.merge(market(), 20_000_000)
        assert result.outcome == "failed" and "chain 80002" in result.reason and not at.key_reads


async def test_a_market_of_protocol_v2_or_of_no_known_route_is_refused_by_name():
    async with scene() as at:
        for route in ("v3", ""):
            for result in (await at.chain.merge(market(route), 1), await at.chain.split(market(route), 1)):
                assert result.outcome == "failed" and "route" in result.reason
        assert not at.house.asked


async def test_a_broken_key_is_told_without_a_word_of_it():
    broken = "0xsecret-that-is-no-key"
    async with scene(private=broken) as at:
        result = await at.chain.merge(market(), 20_000_000)
        assert result.outcome == "failed" and "secret" not in repr(result) and not at.house.bodies
    async with scene(private="0x" + "22" * 32) as at:
        other = await at.chain.merge(market(), 20_000_000)
        assert other.outcome == "failed" and "not that of the wallet" in other.reason and not at.house.bodies


async def test_one_transaction_at_a_time():
    async with scene() as at:
        results = await asyncio.gather(*(at.chain.merge(market(), 1_000_000) for _ in range(4)))
        assert [r.outcome for r in results] == ["done"] * 4
        assert [int(body["nonce"]) for body in at.house.bodies] == [0, 1, 2, 3]
        assert held(at) == (46_000_000, 56_000_000)


async def test_a_builder_key_signs_each_request():
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    given = dict(zip(BUILDER_SECRETS, ("builder-key", secret, "words"), strict=True))
    key = relayer_key(given.get)
    assert isinstance(key, RelayerKey) and secret not in repr(key) and "words" not in repr(key)
    async with scene(key=key) as at:
        at.house.builder = ("builder-key", secret, "words")
        assert (await at.chain.merge(market(), 20_000_000)).outcome == "done"
        at.house.builder = ("builder-key", base64.urlsafe_b64encode(b"t" * 32).decode(), "words")
        assert "invalid authorization" in (await at.chain.merge(market(), 1_000_000)).reason


def test_half_a_relayer_key_is_named():
    assert relayer_key(lambda name: None) is None
    assert "LLM_MAKER_RELAYER_ADDRESS" in str(relayer_key({"LLM_MAKER_RELAYER_KEY": "k"}.get))
    assert "missing: LLM_MAKER_BUILDER_PASSPHRASE" in str(relayer_key(dict.fromkeys(BUILDER_SECRETS[:2], "czM=").get))
    broken = dict.fromkeys(BUILDER_SECRETS, "abc")
    assert "base64" in str(relayer_key(broken.get))


async def test_a_look_with_nothing_to_look_by_is_unknown():
    async with scene() as at:
        assert (await at.chain.check("")).outcome == "unknown"
        assert (await at.chain.check("never-heard-of")).outcome == "unknown"


def test_importing_the_port_imports_no_sdk():
    modules = "llm_maker.venues.polymarket.chain.chain, llm_maker.venues.polymarket.chain.relayer"
    code = f"import sys, {modules}; print('polymarket' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
