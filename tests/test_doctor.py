"""The doctor over the fake venue: everything fine, each thing wrong with its cure, the round trip, and no secret in any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from llm_maker import account_checkup, checkup
from llm_maker.config import Config, Llm, Risk
from llm_maker.console.control import ControlServer
from llm_maker.console.desk import Desk
from llm_maker.doctor import examine
from llm_maker.keys import Secrets
from llm_maker.venues.net import Http
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain.relayer import RELAYER_SECRETS
from llm_maker.venues.polymarket.orders.drafts import EXCHANGES
from tests.doctor_scene import EVERYTHING, MODEL_KEY, SPEED, Scene, fit, scene
from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.relayer import RELAYER_KEY
from tests.fakes.polymarket.setup import THROWAWAY_KEY
from tests.polymarket.scripted import Say, Server, clob_of, paced


@pytest.fixture(autouse=True)
def _fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fit(monkeypatch)


@pytest.mark.parametrize("kind", [3, *(pytest.param(kind, marks=pytest.mark.prove) for kind in (0, 1, 2))])
async def test_everything_is_fine(tmp_path, kind):
    async with scene(tmp_path, kind=kind) as at:
        found = await at.look()
        assert list(found) == EVERYTHING
        assert {name: check for name, check in found.items() if check.state != "ok"} == {}
        assert at.models.requests == 1 and at.models.violations == [], "one tiny question to the model"


async def test_without_a_key_the_account_is_skipped_and_says_why(tmp_path):
    async with scene(tmp_path) as at:
        at.env = {"OPENAI_API_KEY": MODEL_KEY}
        found = await at.look()
        skipped = [name for name, check in found.items() if check.state == "skipped"]
        assert skipped == EVERYTHING[EVERYTHING.index("key") :] and list(found) == EVERYTHING
        assert all("LLM_MAKER_PK and LLM_MAKER_BROWSER_ADDRESS not set" in found[name].text for name in skipped)


async def test_the_simulated_venue_needs_no_network(tmp_path):
    found = await examine(Config(), Secrets({}), tmp_path / "new", progress=lambda check: None)
    assert [check.name for check in found][-2:] == ["venue", "clock"]
    assert {check.name: check.state for check in found if check.state != "ok"} == {"clock": "skipped"}
    assert not (tmp_path / "new").exists()


Change = Callable[[Scene], None]


def _env(name: str, value: str) -> Change:
    return lambda at: at.env.update({name: value})


def _host(name: str, url: str) -> Change:
    return lambda at: at.hosts(**{name: url})


def _account(**changes: Any) -> Change:
    return lambda at: [setattr(at.account, name, value) for name, value in changes.items()] and None


def _without(*names: str) -> Change:
    return lambda at: [at.env.pop(name) for name in names] and None


def _more_money_than_there_is(at: Scene) -> None:
    at.config = at.config.model_copy(update={"risk": Risk(bankroll_usd=20_000.0)})


def _model(**changes: Any) -> Change:
    def change(at: Scene) -> None:
        at.config = at.config.model_copy(update={"llm": Llm(base_url=at.models.openai_url, **changes)})

    return change


def _skew(seconds: float) -> Change:
    return lambda at: setattr(at, "skew_s", seconds)


def _blocked(at: Scene) -> None:
    at.venue.blocked = True


def _chain(**changes: Any) -> Change:
    return lambda at: [setattr(at.venue.chain, name, value) for name, value in changes.items()] and None


WRONG = [
    (lambda at: (at.home / ".env").chmod(0o644), "secrets", "warning", "chmod 600"),
    (lambda at: (at.home / "KILL").touch(), "kill file", "warning", "rm "),
    (_model(provider="deepseek"), "model", "failed", "DEEPSEEK_API_KEY"),
    (_model(model="gpt-no-such"), "model", "failed", "llm.model"),
    (_without("OPENAI_API_KEY"), "model", "warning", ".env"),
    (_host("clob", "http://127.0.0.1:1"), "clob", "failed", "127.0.0.1:1 cannot be reached"),
    (_host("gamma", "http://127.0.0.1:1"), "gamma", "failed", "cannot be reached"),
    (_host("data", "http://127.0.0.1:1"), "data", "failed", "cannot be reached"),
    (_host("relayer", "http://127.0.0.1:1"), "relayer", "failed", "cannot be reached"),
    (_host("rpc", "http://127.0.0.1:1"), "node", "failed", "polymarket.hosts.rpc"),
    (_chain(chain_id=80002), "node", "failed", "chain 80002"),
    (_host("ws_market", "ws://127.0.0.1:1/ws"), "market socket", "failed", "cannot be opened"),
    (_host("ws_user", "ws://127.0.0.1:1/ws"), "user socket", "failed", "cannot be opened"),
    (_host("geoblock", "http://127.0.0.1:1"), "place", "warning", "not known"),
    (_blocked, "place", "failed", "no orders from here"),
    (_skew(2.5), "clock", "warning", "ahead"),
    (_skew(-3.0), "clock", "warning", "NTP"),
    (_skew(-30.0), "clock", "failed", "behind"),
    (_env("LLM_MAKER_PK", "0x1234"), "key", "failed", "LLM_MAKER_PK"),
    (_env("LLM_MAKER_BROWSER_ADDRESS", "0x" + "ab" * 20), "wallet", "failed", "can stand for"),
    (_chain(unmade=True), "contract", "failed", "does not exist"),
    (_account(closed_only=True), "standing", "failed", "only close"),
    (_more_money_than_there_is, "money", "warning", "risk.bankroll_usd"),
    (_account(cash=Decimal(0)), "money", "failed", "holds no pUSD"),
    (_chain(approved=False), "merges", "warning", "may not move"),
    (_chain(sellable=False), "selling", "failed", "may not take"),
    (_without(*RELAYER_SECRETS), "merges", "warning", "LLM_MAKER_RELAYER_KEY"),
    (_without("LLM_MAKER_RELAYER_ADDRESS"), "merges", "failed", "LLM_MAKER_RELAYER_ADDRESS"),
    (_env("LLM_MAKER_RELAYER_KEY", "a-key-of-nobody"), "merges", "failed", "does not answer to our key"),
]
OFTEN = {"secrets", "clob", "wallet", "selling"}
"""What of `WRONG` every run looks at; all of it by `make prove`."""


@pytest.mark.parametrize(
    ("change", "name", "state", "words"),
    [pytest.param(*row, marks=[] if row[1] in OFTEN else pytest.mark.prove) for row in WRONG],
)
async def test_each_thing_that_is_wrong_is_found_and_the_rest_goes_on(tmp_path, change, name, state, words):
    async with scene(tmp_path) as at:
        change(at)
        found = await at.look()
        check = found[name]
        assert check.state == state and words in f"{check.text} {check.cure}", check
        assert list(found) == EVERYTHING


async def test_an_order_that_we_did_not_place_under_our_key_is_found(tmp_path):
    faults = Faults()
    async with scene(tmp_path, faults=faults) as at:
        faults.on("foreign_order")
        at.venue.step()
        rows = at.venue.house.open_orders(at.account)
        assert rows
        found = await at.look()
        assert found["orders"].state == "failed" and rows[0]["id"] in found["orders"].text
        assert "api_key_nonce" in found["orders"].cure
        known = [row["id"].lower() for row in at.venue.house.open_orders(at.account)]
        again = await examine(at.config, Secrets(at.env), at.home, progress=lambda check: None, pace=at.pace, known_orders=known)
        assert next(check for check in again if check.name == "orders").state == "ok"


async def test_a_plain_key_needs_gas(tmp_path):
    async with scene(tmp_path, kind=0) as at:
        at.venue.chain.pol = 10**15
        found = await at.look()
        assert found["merges"].state == "warning" and "send POL" in found["merges"].cure


async def test_a_running_daemon_is_seen_and_its_socket_left_alone(tmp_path):
    server = ControlServer(tmp_path, Desk(lambda verb, args: {"ok": True}))
    server.open()
    serving = asyncio.create_task(server.run(lambda event: None))
    found = await examine(Config(), Secrets({}), tmp_path, progress=lambda check: None)
    assert next(check for check in found if check.name == "control").text.startswith("a daemon is at work")
    assert (tmp_path / "positions" / "control.json").exists()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_a_host_that_never_answers_ends_its_checks_in_time(tmp_path):
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    silent = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with scene(tmp_path) as at:
        names = ("clob", "gamma", "data", "relayer", "geoblock", "rpc")
        at.hosts(0.5, **dict.fromkeys(names, f"http://{silent}"), ws_market=f"ws://{silent}", ws_user=f"ws://{silent}")
        found = await at.look()
        assert list(found) == EVERYTHING
        for name in ("clob", "gamma", "data", "relayer", "node", "market socket", "user socket", "api key"):
            assert found[name].state == "failed", found[name]
    server.close()


async def test_a_host_that_echoes_a_secret_does_not_make_us_say_it(tmp_path):
    async with scene(tmp_path) as at, Server(at.pace) as server:
        server.on("GET", "/markets/keyset", Say({"error": f"bad {THROWAWAY_KEY} and {RELAYER_KEY}"}, status=400))
        at.hosts(gamma=server.url, rpc=f"{at.venue.hosts['rpc']}?access={MODEL_KEY}")
        found = await at.look()
        assert "bad *** and ***" in found["gamma"].text and found["node"].state == "ok"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Say({"version": 3}), "of version 3"),
        (Say({"error": "no"}, status=500), "does not tell"),
        (Say(b"<html>"), "does not tell"),
    ],
)
async def test_another_version_of_the_exchange_is_found(told, words):
    pace = paced(SPEED)
    async with Server(pace) as server:
        server.on("GET", "/version", told)
        server.on("GET", "/time", Say(b"no number"))
        http = Http(server.url, pace)
        check = await checkup._version(http)
        assert check.state == "failed" and words in check.text
        assert [check.state for check in await checkup._order_book(http, pace)] == ["ok", "failed"]
        await http.close()


ALL = str(2**256 - 1)


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ({"balance": "300000000", "allowances": dict.fromkeys(EXCHANGES.values(), ALL)}, "ok", "300.00 pUSD"),
        ({"balance": "300000000", "allowances": {EXCHANGES["ctf"]: ALL}}, "failed", "route neg_risk"),
        ({"balance": "300000000", "allowances": dict.fromkeys(EXCHANGES.values(), "299999999")}, "failed", "ctf and neg_risk"),
        ({"balance": "300000000", "allowance": "5"}, "failed", "not known"),
        ({"balance": "a lot", "allowances": {}}, "failed", "not known"),
        ({"balance": "0", "allowances": dict.fromkeys(EXCHANGES.values(), ALL)}, "failed", "no pUSD"),
    ],
)
async def test_money_without_its_allowances_is_found(told, state, words):
    pace = paced(SPEED)
    async with Server(pace) as server:
        server.on("GET", "/balance-allowance", Say(told))
        clob = clob_of(server, pace)
        config = Config(risk=Risk(bankroll_usd=200.0))
        check = await account_checkup._money(clob, Wallet(WalletKind.EOA, "0xabc", "0xabc"), config)
        assert check.state == state and words in check.text
        await clob.close()


# There and back.


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
async def test_a_round_trip_leaves_nothing(tmp_path, kind):
    async with scene(tmp_path, kind=kind) as at:
        found = await at.trip()
        assert [(name, check.state) for name, check in found.items()] == [
            ("order", "ok"),
            ("placed", "ok"),
            ("live", "ok"),
            ("gone", "ok"),
        ]
        assert at.venue.house.open_orders(at.account) == []
        assert at.venue.counters["heartbeat_cancels"] == 0


async def test_nothing_is_sent_without_the_typed_words(tmp_path):
    async with scene(tmp_path) as at:
        found = await at.trip(consent="yes")
        assert found["consent"].state == "failed" and not at.venue.house.orders()
        assert not [line for line in at.venue.log if line[1] == "POST"]


@pytest.mark.parametrize("kind", ["post_hang_done", pytest.param("post_hang_lost", marks=pytest.mark.prove)])
async def test_an_order_whose_answer_is_lost_is_cancelled_all_the_same(tmp_path, kind):
    faults = Faults()
    async with scene(tmp_path, faults=faults) as at:
        faults.on(kind)
        found = await at.trip()
        assert found["placed"].state == "warning" and at.venue.house.open_orders(at.account) == []
        assert found["gone"].state == ("ok" if kind == "post_hang_done" else "failed")


async def test_a_cancel_that_is_not_taken_names_the_order_and_the_way_out(tmp_path):
    faults = Faults()
    async with scene(tmp_path, faults=faults) as at:
        faults.on("disabled", only="DELETE")
        found = await at.trip()
        (row,) = at.venue.house.open_orders(at.account)
        assert found["gone"].state == "failed" and row["id"] in found["gone"].text and "cancel-all" in found["gone"].cure


async def test_a_refused_order_is_told_in_the_venues_words(tmp_path):
    async with scene(tmp_path) as at:
        at.account.cash = Decimal(0)
        found = await at.trip()
        assert found["placed"].state == "failed" and "balance" in found["placed"].text and "gone" not in found


@pytest.mark.parametrize("market", ["0x" + "00" * 32, "nonsense"])
async def test_a_market_that_is_not_there_is_told(tmp_path, market):
    async with scene(tmp_path) as at:
        found = await at.trip(market)
        assert found["market"].state == "failed" and not at.venue.house.open_orders(at.account)


async def test_an_interrupted_trip_cancels_before_it_ends(tmp_path):
    faults = Faults()
    async with scene(tmp_path, faults=faults) as at:
        faults.on("slow", only="GET /clob/data/order", value=4.0)
        trip = asyncio.create_task(at.trip())
        while not at.venue.house.open_orders(at.account):
            await asyncio.sleep(0.01)
        trip.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trip
        assert at.venue.house.open_orders(at.account) == []
