"""Every class of reply of `polymarket.md` 2.5 to orders, cancels and look-ups: what it means, each order for itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_maker.core.values import Regime
from llm_maker.venues.net import Outcome, Reply
from llm_maker.venues.polymarket.orders.regimes import Met, met
from llm_maker.venues.polymarket.orders.replies import Ended, Fate, canceled, fault_of, looked_up, placed

A, B, C = ("0x" + digit * 64 for digit in "abc")
TAKEN = {"success": True, "errorMsg": "", "orderID": A, "status": "live", "makingAmount": "", "takingAmount": "", "tradeIDs": []}


def ok(body) -> Reply:
    return Reply(Outcome.OK, 200, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(words, status=400) -> Reply:
    return Reply(Outcome.REFUSED, status, json.dumps({"error": words}).encode(), words)


def unknown(words="", status=0) -> Reply:
    return Reply(Outcome.UNKNOWN, status, b"", words)


def one(reply):
    (answer,) = placed(reply, [A], batch=False)
    return answer


@pytest.mark.parametrize("status", ["live", "matched", "delayed", "unmatched", "LIVE"])
def test_accepted(status):
    answer = one(ok(TAKEN | {"status": status, "orderID": A.upper().replace("0X", "0x")}))
    assert (answer.fate, answer.venue_id, answer.status) == (Fate.ACCEPTED, A, status.lower())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("invalid post-only order: order crosses book", "post_only"),
        ("invalid post-only order: only GTC and GTD order types are allowed", "other"),
        ("not enough balance / allowance", "balance"),
        ("not enough balance / allowance: the balance is not enough -> balance: 1, sum of matched orders: 5", "balance"),
        ("order 0x1 is invalid. Price (0.123) breaks minimum tick size rule: 0.01", "tick"),
        ("order 0x1 is invalid. Size (1) lower than the minimum: 5", "size"),
        ("invalid amount for a marketable BUY order ($0.5), min size: $1", "size"),
        ("order 0x1 is invalid. Duplicated.", "duplicate"),
        ("the market is not yet ready to process new orders", "closed"),
        ("No orderbook exists for the requested token id", "closed"),
        ("post-only mode: only post-only orders and cancels are allowed", "closed"),
        ("invalid expiration", "other"),
        ("no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found.", "other"),
        ("something nobody has seen", "other"),
    ],
)
def test_refusals_and_their_reasons(words, reason):
    for answer in (
        one(refused(words)),
        one(ok(TAKEN | {"success": False, "errorMsg": words, "orderID": ""})),
        one(ok(TAKEN | {"success": True, "errorMsg": words, "orderID": ""})),
    ):
        assert (answer.fate, answer.reason, answer.detail, answer.fault) == (Fate.REJECTED, reason, words, None)


@pytest.mark.parametrize(
    "words",
    [
        "order_version_mismatch",
        "invalid order version, please use the latest clob-client",
        "the order signer address has to be the address of the API KEY",
        "the order owner has to be the owner of the API KEY",
        "maker address not allowed, please use the deposit wallet flow",
        "'0x19E7' address banned",
        "'0x19E7' address in closed only mode",
    ],
)
def test_set_up_wrong_is_a_refusal_with_a_cure_that_lasts(words):
    answer = one(refused(words))
    assert (answer.fate, answer.reason) == (Fate.REJECTED, "other")
    assert answer.fault and answer.fault.lasting and answer.fault.cure


def test_a_key_or_a_place_that_is_refused_may_come_round():
    for status in (401, 403):
        answer = one(refused("Unauthorized/Invalid api key", status))
        assert answer.fate is Fate.REJECTED and answer.fault and not answer.fault.lasting
    assert fault_of(400, "not enough balance / allowance") is None


def test_the_limiter_with_a_word_when_to_come_back_is_a_refusal():
    assert one(refused("Too Many Requests", 429)).reason == "rate"


@pytest.mark.parametrize(
    "reply",
    [
        unknown("no answer within 5s"),
        unknown("service not ready", 425),
        unknown("there are no matching orders", 500),
        unknown("the trade contains rounding issues", 500),
        unknown("post-only mode: only post-only orders and cancels are allowed; post_only_mode", 503),
        unknown("Too Many Requests", 429),
        refused("order match delayed due to market conditions"),
        refused("could not insert order"),
        ok(TAKEN | {"errorMsg": "order match delayed due to market conditions"}),
        ok(TAKEN | {"errorMsg": "order match delayed due to market conditions", "orderID": ""}),
        ok(TAKEN | {"status": "something new"}),
        ok(TAKEN | {"orderID": ""}),
        ok(TAKEN | {"orderID": None, "status": None, "errorMsg": None}),
        ok({}),
        ok([]),
        ok([TAKEN]),
        ok(b""),
        ok(b"<html>"),
        ok(b"\xff\xfe"),
        ok(b"[" * 100_000),
        ok({"success": "yes"}),
        ok({"orderID": 5, "success": True}),
    ],
)
def test_what_is_not_said_is_unknown(reply):
    assert one(reply).fate is Fate.UNKNOWN


def test_never_sent_is_a_refusal_because_the_venue_cannot_have_it():
    answer = one(Reply(Outcome.UNSENT, error="refused"))
    assert (answer.fate, answer.reason, answer.detail) == (Fate.REJECTED, "other", "never sent: refused")


def fates(entries, ids=(A, B, C)):
    return [answer.fate for answer in placed(ok(entries), ids, batch=True)]


def entry(venue_id="", words=""):
    return TAKEN | {"orderID": venue_id, "errorMsg": words}


def test_a_batch_is_judged_order_by_order():
    answers = placed(ok([entry(A), entry("", "not enough balance / allowance"), entry(C)]), [A, B, C], batch=True)
    assert [answer.fate for answer in answers] == [Fate.ACCEPTED, Fate.REJECTED, Fate.ACCEPTED]
    assert answers[1].reason == "balance"


def test_an_entry_goes_to_its_id_and_not_to_its_place():
    assert fates([entry(C), entry(A), entry(B)]) == [Fate.ACCEPTED] * 3
    # The refused one cannot be told where ids contradict the places.
    assert fates([entry(B), entry("", "not enough balance"), entry(A)]) == [Fate.ACCEPTED, Fate.ACCEPTED, Fate.UNKNOWN]


def test_a_batch_reply_that_lacks_entries_leaves_the_others_in_doubt():
    assert fates([entry(B)]) == [Fate.UNKNOWN, Fate.ACCEPTED, Fate.UNKNOWN]
    assert fates([entry("", "no")]) == [Fate.UNKNOWN] * 3
    assert fates([]) == fates({"error": "x"}) == [Fate.UNKNOWN] * 3
    assert fates([entry(A), entry(B), entry(C), entry("", "no")]) == [Fate.ACCEPTED] * 3


def test_an_id_that_is_not_ours_is_handed_on_at_its_place():
    other = "0x" + "d" * 64
    answers = placed(ok([entry(A), entry(other), entry(C)]), [A, B, C], batch=True)
    assert [answer.venue_id for answer in answers] == [A, other, C]


def test_a_batch_refused_as_a_whole():
    answers = placed(refused("Too many orders in payload: 18, max allowed: 15"), [A, B], batch=True)
    assert [answer.fate for answer in answers] == [Fate.REJECTED] * 2


def test_cancels_are_read_in_both_lists():
    body = {"canceled": [A.upper().replace("0X", "0x")], "not_canceled": {B: "order can't be found - already canceled or matched"}}
    answers = canceled(ok(body), [A, B, C])
    assert [answer.ended for answer in answers] == [Ended.CANCELED, Ended.GONE, Ended.UNKNOWN]


@pytest.mark.parametrize(
    ("words", "ended"),
    [
        ("already canceled or matched", Ended.GONE),
        ("order not found", Ended.GONE),
        ("order is in the delayed state and cannot be canceled", Ended.REFUSED),
        ("", Ended.REFUSED),
        (None, Ended.REFUSED),
    ],
)
def test_why_a_cancel_was_not_done(words, ended):
    (answer,) = canceled(ok({"canceled": [], "not_canceled": {A: words}}), [A])
    assert answer.ended is ended


def test_both_lists_at_once_is_no_cancel():
    (answer,) = canceled(ok({"canceled": [A], "not_canceled": {A: "no"}}), [A])
    assert answer.ended is Ended.REFUSED


@pytest.mark.parametrize(
    ("reply", "ended"),
    [
        (unknown("no answer within 5s"), Ended.UNKNOWN),
        (unknown("service not ready", 425), Ended.UNKNOWN),
        (unknown("Trading is currently disabled", 503), Ended.UNKNOWN),
        (ok(b"<html>"), Ended.UNKNOWN),
        (ok({}), Ended.UNKNOWN),
        (ok({"not_canceled": {}}), Ended.UNKNOWN),
        (ok({"canceled": None, "not_canceled": None}), Ended.UNKNOWN),
        (Reply(Outcome.UNSENT, error="refused"), Ended.REFUSED),
        (refused("Unauthorized/Invalid api key", 401), Ended.REFUSED),
        (refused("order not found", 404), Ended.GONE),
    ],
)
def test_a_cancel_that_was_not_answered_by_lists(reply, ended):
    (answer,) = canceled(reply, [A])
    assert answer.ended is ended


def test_a_list_refused_as_a_whole_says_nothing_of_one_order():
    assert {answer.ended for answer in canceled(refused("order not found", 404), [A, B])} == {Ended.REFUSED}


def test_looked_up():
    row = b'{"id": "0xa"}'
    assert looked_up(ok(row)) == row
    for nothing in (b"", b"null", b"{}", b'""', b"[]"):
        assert looked_up(ok(nothing)) == b""
    assert looked_up(Reply(Outcome.REFUSED, 404, b'{"error":"order not found"}', "order not found")) == b""
    assert looked_up(Reply(Outcome.REFUSED, 404, b"")) == b""
    for failed in (
        Reply(Outcome.REFUSED, 404, b"<html>404</html>"),
        Reply(Outcome.REFUSED, 404, b'"no such route"'),
        Reply(Outcome.REFUSED, 400, b"{}"),
        Reply(Outcome.REFUSED, 401, b"{}"),
        unknown("no answer within 5s"),
        unknown("", 500),
        Reply(Outcome.UNSENT),
        ok(b"<html>"),
        ok(b"[1]"),
    ):
        assert looked_up(failed) is None


def test_regimes_are_read_from_status_and_words():
    assert met(425, "") == Met(Regime.RESTART)
    assert met(503, "post-only mode: only post-only orders and cancels are allowed; post_only_mode", 79.0) == Met(
        Regime.POST_ONLY, 79.0
    )
    assert met(503, "Trading is currently cancel-only. New orders are not accepted") == Met(Regime.CANCEL_ONLY)
    assert met(503, "Trading is currently disabled. Check polymarket.com for updates") == Met(Regime.CLOSED)
    assert met(401, "") == met(403, "") == Met(Regime.CLOSED)
    assert met(503, "upstream connect error") is met(500, "") is met(400, "not enough balance / allowance") is None


TREE = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.sampled_from([A, B]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["success", "errorMsg", "orderID", "status", "canceled", "not_canceled", A]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(TREE, st.integers(1, 3))
def test_no_body_breaks_a_reader_or_accepts_without_an_id(body, count):
    ids, reply = [A, B, C][:count], ok(json.dumps(body).encode())
    for batch in (True, False) if count == 1 else (True,):
        answers = placed(reply, ids, batch=batch)
        assert len(answers) == count
        assert all(answer.venue_id for answer in answers if answer.fate is Fate.ACCEPTED)
    assert len(canceled(reply, ids)) == count
    looked_up(reply)
