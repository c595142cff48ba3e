"""Signatures equal to the SDK's byte for byte, over all routes and kinds of wallet; and a key that never shows."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import random
import subprocess
import sys
import traceback

import msgspec
import pytest
from eth_account import Account
from polymarket._internal.actions.auth import build_l1_auth_headers
from polymarket._internal.l1_auth import sign_api_key_auth

from llm_maker.core.commands import TimeInForce
from llm_maker.core.values import Leg, Side
from llm_maker.venues.polymarket.auth import WalletKind
from llm_maker.venues.polymarket.orders import sign
from llm_maker.venues.polymarket.orders.drafts import ROUTES, Draft, draft
from llm_maker.venues.polymarket.orders.sign import Signer, checksum, l1_headers, order_json, order_signature, order_type_of
from tests.polymarket.sdk import (
    ACCOUNT,
    ADDRESS,
    FUNDS,
    TAKING,
    THROWAWAY_KEY,
    TOKEN,
    instrument,
    place,
    random_order,
    theirs,
    tick_size,
    wallet,
)

SIGNER = Signer(THROWAWAY_KEY)
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of the curve."""


# Orders.


def test_the_golden_order_has_its_signature():
    golden = Draft(12345, ADDRESS, ADDRESS, TOKEN, 40_000_000, 100_000_000, 0, 0, 1_763_000_000_000, "ctf")
    assert order_signature(golden, SIGNER) == (
        "0xe5c5d392d3ecf4af37535cdd0718fd1e05973831ad43cd63e6fa45efe568cf4f"
        "7f92b4c7aaae8023c84500b86b5d9203e1252d7f4afa7eba29d8bb964534ef651b"
    )


def _compare(monkeypatch: pytest.MonkeyPatch, seed: int, count: int) -> None:
    rng, seen, also, compared = random.Random(seed), set(), set(), 0
    print(f"seed {seed}")
    while compared < count:
        command, market, owner = random_order(rng)
        ours = draft(command, market, owner)
        if command.time_in_force in TAKING and ours.maker_amount % 10_000:
            continue  # less than a cent: the SDK builds no such order, and the venue refuses ours
        compared += 1
        expiration_s = ours.timestamp_ms // 1000 + 300 if command.time_in_force is TimeInForce.GTD else 0
        signature = order_signature(ours, SIGNER)
        body = order_json(
            ours,
            signature,
            owner="owner",
            order_type=order_type_of(command.time_in_force),
            expiration_s=expiration_s,
            post_only=command.post_only,
        )
        sdk = theirs(monkeypatch, command, market, owner, ours, expiration_s)
        assert (ours.digest, signature, json.loads(body)) == (sdk.digest, sdk.signature, sdk.body), (command, market, owner)
        seen.add((ours.route, ours.side, ours.signature_type))
        also |= {command.time_in_force, tick_size(market)}
    assert len(seen) == 3 * 2 * 4 and len(also) == 4 + 6, "every route, side and kind of wallet; every time in force and tick"


def test_two_hundred_orders_are_the_sdks(monkeypatch):
    _compare(monkeypatch, 1, 200)


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_thousand_orders_are_the_sdks(monkeypatch, seed):
    _compare(monkeypatch, seed, 1000)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", WalletKind)
def test_the_length_of_a_signature(kind, route):
    signature = bytes.fromhex(order_signature(draft(place(), instrument(route=route), wallet(kind)), SIGNER)[2:])
    assert len(signature) == (317 if kind is WalletKind.DEPOSIT else 65)
    assert signature[64] in (27, 28)


def test_s_is_low_and_the_same_digest_has_the_same_signature():
    digests = [n.to_bytes(32, "big") for n in range(300)]
    signed = [SIGNER.sign(digest) for digest in digests]
    assert signed == [Signer(THROWAWAY_KEY[2:]).sign(digest) for digest in digests]
    assert all(int.from_bytes(each[32:64], "big") <= _ORDER // 2 for each in signed)
    assert {each[64] for each in signed} == {27, 28}
    assert signed[5] == bytes(ACCOUNT.unsafe_sign_hash(digests[5]).signature)


def test_another_key_than_the_orders_signs_nothing():
    with pytest.raises(AssertionError):
        order_signature(draft(place(), instrument(), wallet()), Signer("22" * 32))


# The body (`polymarket.md` 2.3).


def test_the_body_is_compact_and_has_the_venues_types():
    ours = draft(place(Side.SELL, leg=Leg.NO), instrument(), wallet())
    body = order_json(ours, "0xab", owner="u", order_type="GTC", expiration_s=0, post_only=True)
    assert body == (
        b'{"order":{"salt":%d,"maker":"%s","signer":"%s","tokenId":"7","makerAmount":"4700000","takerAmount":"10000000",'
        b'"side":"BUY","expiration":"0","signatureType":0,"timestamp":"1763000000123","metadata":"0x%s","builder":"0x%s",'
        b'"signature":"0xab"},"owner":"u","orderType":"GTC","deferExec":false,"postOnly":true}'
        % (ours.salt, ADDRESS.encode(), ADDRESS.encode(), b"0" * 64, b"0" * 64)
    )


def test_the_words_for_a_time_in_force():
    assert [order_type_of(tif) for tif in TimeInForce] == ["GTC", "GTD", "FAK", "FOK"]


@pytest.mark.parametrize(
    ("order_type", "expiration_s", "post_only"),
    [("FAK", 0, True), ("FOK", 0, True), ("GTD", 0, True), ("GTC", 1_763_000_000, True), ("FAK", 1_763_000_000, False)],
)
def test_a_body_the_venue_must_refuse_is_our_own_fault(order_type, expiration_s, post_only):
    ours = draft(place(), instrument(), wallet())
    with pytest.raises(AssertionError):
        order_json(ours, "0x", owner="u", order_type=order_type, expiration_s=expiration_s, post_only=post_only)


# Credentials (`polymarket.md` 1.5).


@pytest.mark.parametrize(("seconds", "nonce"), [(1_763_000_000, 0), (1_763_000_001, 0), (1_900_000_000, 2**40)])
def test_the_headers_for_credentials_are_the_sdks(seconds, nonce):
    signed = sign_api_key_auth(ACCOUNT, chain_id=137, timestamp=seconds, nonce=nonce)
    assert l1_headers(SIGNER, seconds, nonce) == build_l1_auth_headers(signed)


# Addresses.


@pytest.mark.parametrize("key", ["11" * 32, "0x" + "11" * 32, "aB" * 32, f"{1:064x}", f"{_ORDER - 1:064x}"])
def test_a_key_has_its_address(key):
    assert Signer(key).address == Account.from_key(key).address


@pytest.mark.parametrize("address", [ADDRESS, FUNDS, "0x" + "52908400098527886E0F7030069857D2E4169EE7", "0x" + "0" * 40])
def test_an_address_is_checksummed(address):
    assert checksum(address) == checksum(address.lower()) == checksum("0x" + address[2:].upper()) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "0x", ADDRESS[2:], ADDRESS + "0", ADDRESS[:-1], ADDRESS[:-1] + "g", ADDRESS[:-1] + "a", ADDRESS + "\n", " " + ADDRESS,
        "0X" + "0" * 40,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="not an address"):
        checksum(text)


# The key.

SECRET = "5ec12e7" + "0d" * 28 + "1"
"""A throwaway key whose digits occur nowhere else."""


def _shows(text: str) -> bool:
    number = int(SECRET, 16)
    forms = (SECRET, SECRET.upper(), str(number), repr(bytes.fromhex(SECRET))[2:-1], SECRET[:16], SECRET[-16:])
    return any(form in text for form in forms)


def test_the_key_is_in_no_word_of_the_signer():
    signer = Signer(SECRET)
    log = io.StringIO()
    logging.getLogger("sign").addHandler(logging.StreamHandler(log))
    logging.getLogger("sign").error("%s %r", signer, signer)
    attributes = {name: getattr(signer, name) for name in dir(signer) if not name.startswith("__")}
    words = [
        repr(signer),
        str(signer),
        f"{signer}",
        f"{signer!a:>80}",
        str.format("{}", signer),
        repr([signer]),
        log.getvalue(),
        repr(attributes),
    ]
    assert log.getvalue() and not any(_shows(text) for text in words)
    assert repr(signer) == f"Signer({signer.address})"


@pytest.mark.parametrize(
    "store", [vars, pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, msgspec.to_builtins]
)
def test_the_signer_is_neither_opened_nor_copied(store):
    with pytest.raises(TypeError) as caught:
        store(Signer(SECRET))
    assert not _shows(str(caught.value))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_signer_is_not_pickled(protocol):
    with pytest.raises(TypeError):
        pickle.dumps(Signer(SECRET), protocol)


@pytest.mark.parametrize(
    "key",
    [
        "", "0x", SECRET[:-1], SECRET + "0", "0X" + SECRET, " " + SECRET, SECRET + "\n", SECRET[:-1] + "g", "é" + SECRET[1:],
        "0x0x" + SECRET, " ".join(SECRET), "0" * 64, f"{_ORDER:064x}", "f" * 64,
    ],
)  # fmt: skip
def test_a_broken_key_is_refused_without_a_word_of_it(key):
    with pytest.raises(ValueError, match="the private key is not one") as caught:
        Signer(key)
    error = caught.value
    assert str(error) == sign.KEY_BROKEN and error.__cause__ is None and error.__context__ is None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == sign.__file__:
            assert not (key and any(key in repr(value) for value in frame.f_locals.values())), frame.f_locals


def test_a_fault_while_signing_shows_no_key():
    signer = Signer(SECRET)
    try:
        signer.sign(b"short")
    except AssertionError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "short" in shown and not _shows(shown)


def test_only_live_trading_loads_the_key_library():
    code = "import sys, llm_maker.app, llm_maker.cli; print({'coincurve', 'polymarket', 'eth_account'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
