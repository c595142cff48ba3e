"""Gamma's rows: each field as the wire writes it, every refusal in its words, and no row that breaks the reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_maker.core.values import NS_PER_S, FeeCurve, FixedGrid, Kind, Liquidity, fee, rebate
from llm_maker.venues.polymarket.listing.fields import Fields, time_ns
from llm_maker.venues.polymarket.listing.gamma import NOT_YET, RULES_CHARS, candidate, event_rows, page, refine, winner
from llm_maker.venues.polymarket.listing.tape_header import header_from_instruments, instruments_from_header
from llm_maker.venues.polymarket.numbers import WireError
from tests.polymarket.rows import NOW, compact, condition, raw, row, tokens

AUGMENTED = {"negRisk": True, "events": [{"id": "7", "slug": "e", "negRiskAugmented": True}]}


def read(**changes):
    return candidate(raw(**changes), NOW)


def refined(known=None, **changes):
    return refine(known or read(), json.dumps(compact(**changes)).encode())


def test_an_ordinary_row_becomes_an_instrument():
    found = read()
    made = found.instrument
    assert (found.id, found.question, found.facts.refused) == (condition(1), "Will it rain in town 1?", "")
    assert (made.id, made.venue, made.kind, made.route, made.event_id) == (condition(1), "polymarket", Kind.BINARY, "ctf", "260654")
    assert (made.price_decimals, made.qty_decimals, made.payout, made.qty_step) == (4, 6, 10_000, 10_000)
    assert (made.grid, made.min_qty) == (FixedGrid(100), 5_000_000)
    assert (made.outcomes, made.token_ids) == (("Yes", "No"), tuple(tokens(1)))
    assert (made.fee.curve, made.fee.taker_ppm, made.fee.maker_ppm, made.fee.rebate_ppm) == (FeeCurve.VARIANCE, 50_000, 0, 250_000)
    assert (made.reward.max_spread, made.reward.min_qty, made.reward.pool_per_day) == (450, 20_000_000, 3_500_000)
    assert (made.category, made.start_ns, made.guard_end, made.exclusive) == ("weather", None, True, False)
    assert made.end_ns == 1_798_718_400 * NS_PER_S


def test_its_facts():
    facts = read().facts
    assert (facts.slug, facts.event_slug, facts.event_id, facts.tags) == (
        "rain-in-town-1", "rain", "260654", ("9", "weather", "Weather"),
    )  # fmt: skip
    # The book's two best prices stand over `spread`, which is older; what is finer than a unit is cut off.
    assert (facts.volume_24h, facts.liquidity, facts.spread, facts.price) == (1_234_567_890, 20_328_374_700, 100, 5350)
    assert (facts.reward_per_day, facts.accepting, facts.closed, facts.paid) == (3_500_000, True, False, None)


def test_the_fee_is_the_venues():
    """rate x p(1-p) to 10^-5 USD, at least 0.00001; a maker pays none and gets a share back."""
    made = read().instrument
    assert fee(made, 5000, 100_000_000, Liquidity.TAKER) == 1_250_000
    assert fee(made, 100, 10_000, Liquidity.TAKER) == 10
    assert fee(made, 5000, 100_000_000, Liquidity.MAKER) == 0
    assert rebate(made, 5000, 100_000_000) == 312_500


@pytest.mark.parametrize(
    ("changes", "taker", "share"),
    [
        ({}, 50_000, 250_000),
        ({"feesEnabled": False}, 0, 0),
        ({"feesEnabled": "false"}, 0, 0),
        ({"feesEnabled": False, "feeSchedule": ...}, 0, 0),
        ({"feesEnabled": ..., "feeSchedule": ...}, 0, 0),
        ({"feesEnabled": ...}, 50_000, 250_000),
        ({"feeSchedule": {"rate": "0.03", "exponent": 1, "takerOnly": True, "rebateRate": 0.15}}, 30_000, 150_000),
        ({"feeSchedule": ..., "feeType": "crypto_fees"}, 70_000, 200_000),
        ({"feeSchedule": None, "feeType": "sports_fees_v2"}, 50_000, 150_000),
        ({"feeSchedule": None, "feeType": "new_kind", "tags": []}, 50_000, 250_000),
        ({"feeSchedule": {"rate": 0.04}, "feeType": "politics_fees"}, 40_000, 250_000),
    ],
)
def test_the_fee_as_told_or_as_its_category_has_it(changes, taker, share):
    rule = read(**changes).instrument.fee
    assert (rule.taker_ppm, rule.rebate_ppm, rule.quantum, rule.minimum) == (taker, share, 10, 10)


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({}, "weather"),
        ({"category": "Crypto"}, "crypto"),
        ({"feeType": None}, "weather"),
        ({"feeType": None, "tags": [{"id": "2", "slug": "politics", "label": "Politics"}]}, "politics"),
        ({"feeType": None, "tags": None}, ""),
    ],
)
def test_category(changes, category):
    assert read(**changes).instrument.category == category


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "v2"}, "protocol v2: not traded by this version"),
        ({"version": "v2", "clobTokenIds": ...}, "protocol v2: not traded by this version"),
        ({"version": "v3"}, "unknown protocol 'v3': not traded by this version"),
        ({"version": ...}, "its protocol version is not told: not traded by this version"),
        ({"version": None}, "its protocol version is not told: not traded by this version"),
        ({"outcomes": '["A","B","C"]'}, "has 3 outcomes: only markets of two are traded"),
        ({"outcomes": None}, "has 0 outcomes: only markets of two are traded"),
        ({"clobTokenIds": "[]"}, NOT_YET),
        ({"clobTokenIds": None}, NOT_YET),
        ({"enableOrderBook": False}, "has no order book"),
        ({"enableOrderBook": None}, "has no order book"),
        (AUGMENTED | {"groupItemTitle": "Person A"}, "unnamed outcome of an augmented event: Person A"),
        (AUGMENTED | {"groupItemTitle": "Candidate AB"}, "unnamed outcome of an augmented event: Candidate AB"),
        (AUGMENTED | {"groupItemTitle": "Other"}, "unnamed outcome of an augmented event: Other"),
        (AUGMENTED | {"groupItemTitle": "The field", "negRiskOther": True}, "unnamed outcome of an augmented event: The field"),
        (AUGMENTED | {"groupItemTitle": ""}, "unnamed outcome of an augmented event: no name"),
        (AUGMENTED | {"groupItemTitle": "Meta AI"}, ""),
        (AUGMENTED | {"groupItemTitle": "Stephen A. Smith"}, ""),
        ({"groupItemTitle": "Person A"}, ""),
        ({"feeSchedule": {"rate": 0.05, "exponent": 2}}, "fee exponent 2: this version knows 1"),
        ({"feeSchedule": {"rate": 0.05, "exponent": 1, "takerOnly": False}}, "makers pay its fee too: not traded by this version"),
        ({"feeSchedule": {"rate": 0, "exponent": 0, "takerOnly": False}}, ""),
        ({"feeSchedule": {"rate": 0.05, "exponent": 2}, "feesEnabled": False}, ""),
        ({"orderPriceMinTickSize": 0.03}, "its listing cannot be read: orderPriceMinTickSize: not a tick: '0.03'"),
        ({"orderPriceMinTickSize": None}, "its listing cannot be read: orderPriceMinTickSize: missing"),
        ({"orderMinSize": "five"}, "its listing cannot be read: orderMinSize: not a number: 'five'"),
        ({"volume24hr": "1e99"}, "its listing cannot be read: volume24hr: out of range: '1e99'"),
        ({"closed": "perhaps"}, "its listing cannot be read: closed: neither true nor false: '\"perhaps\"'"),
        ({"clobTokenIds": '["1"]'}, "its listing cannot be read: clobTokenIds: not two tokens"),
        ({"clobTokenIds": "nonsense"}, "its listing cannot be read: clobTokenIds: not a list of texts: '\"nonsense\"'"),
        ({"endDate": "soon"}, "its listing cannot be read: endDate: not an ISO 8601 time: 'soon'"),
        ({"question": ["?"]}, "its listing cannot be read: question: not a text: '[\"?\"]'"),
    ],
)
def test_why_not(changes, why):
    assert read(**changes).facts.refused == why


def test_protocol_is_told_by_version_alone():
    """Many v1 markets carry position ids too, and the CLOB has no book of those (`polymarket.md` 1.4)."""
    assert read(positionIds=["1", "2"]).instrument.token_ids == tuple(tokens(1))
    two = read(version="v2", positionIds=["1", "2"])
    assert two.instrument is None and two.facts.refused.startswith("protocol v2")


def test_what_is_refused_or_closed_is_an_instrument_still():
    """A position may stand in it."""
    assert read(enableOrderBook=False).instrument is not None
    assert read(closed=True, acceptingOrders=False).instrument is not None


def test_the_first_outcome_plays_yes_unless_one_is_called_so():
    teams = read(outcomes='["FaZe", "illwill"]').instrument
    assert (teams.outcomes, teams.token_ids) == (("FaZe", "illwill"), tuple(tokens(1)))
    swapped = read(outcomes=["No", "Yes"], closed=True, umaResolutionStatus="resolved", outcomePrices='["1","0"]')
    assert (swapped.instrument.outcomes, swapped.instrument.token_ids) == (("Yes", "No"), tuple(tokens(1)[::-1]))
    assert (swapped.facts.price, swapped.facts.paid) == (4650, 0)


def test_neg_risk_is_a_route_and_an_augmented_event_is_not_exclusive():
    plain = read(negRisk=True, events=[{"id": 30829, "slug": "e"}]).instrument
    assert (plain.route, plain.exclusive, plain.event_id) == ("neg_risk", True, "30829")
    open_ended = read(**AUGMENTED, groupItemTitle="Stephen A. Smith").instrument
    assert (open_ended.route, open_ended.exclusive) == ("neg_risk", False)
    assert read(events=[]).instrument.event_id == condition(1)


def test_a_header_of_a_tape_keeps_the_route_and_what_is_exclusive():
    found = [
        read().instrument,
        read(negRisk=True).instrument,
        read(**AUGMENTED, groupItemTitle="Stephen A. Smith").instrument,
    ]
    for each in found:
        assert instruments_from_header(json.loads(json.dumps(header_from_instruments([each])))) == [each]


@pytest.mark.parametrize(
    ("changes", "spread", "price"),
    [
        ({"bestBid": 0, "bestAsk": 1}, 90, 5200),
        ({"bestBid": None, "bestAsk": "0.001"}, 90, 5200),
        ({"bestBid": 0.54, "bestAsk": 0.53}, 90, 5200),
        ({"bestBid": "", "lastTradePrice": "", "spread": None}, None, None),
        ({"bestBid": "0.5", "bestAsk": "0.51"}, 100, 5050),
    ],
)
def test_price_and_spread_of_a_book_with_one_side(changes, spread, price):
    facts = read(**changes).facts
    assert (facts.spread, facts.price) == (spread, price)


@pytest.mark.parametrize(
    ("rewards", "pool"),
    [
        (None, 0),
        ([], 0),
        ([{"rewardsDailyRate": 30, "startDate": "2026-04-29", "endDate": "2026-09-20"}], 0),
        ([{"rewardsDailyRate": 30, "startDate": "2026-09-22"}], 0),
        ([{"rewardsDailyRate": 30, "startDate": "2026-09-21", "endDate": "2026-09-21"}], 30_000_000),
        ([{"rewardsDailyRate": "1.5", "startDate": "2026-01-01"}, {"rewardsDailyRate": 2, "startDate": "2026-01-01"}], 3_500_000),
    ],
)
def test_the_reward_is_what_runs_today(rewards, pool):
    found = read(clobRewards=rewards)
    assert found.facts.reward_per_day == pool
    assert (found.instrument.reward.pool_per_day if found.instrument.reward else 0) == pool


@pytest.mark.parametrize(
    ("changes", "paid"),
    [
        ({"outcomePrices": '["1", "0"]', "umaResolutionStatus": "resolved"}, 10_000),
        ({"outcomePrices": '["0", "1"]', "umaResolutionStatus": "resolved"}, 0),
        ({"outcomePrices": '["0.5", "0.50"]', "umaResolutionStatus": "resolved"}, 5_000),
        ({"outcomePrices": '["1", "0"]', "umaResolutionStatus": "proposed"}, None),
        ({"outcomePrices": '["1", "0"]', "umaResolutionStatus": None}, None),
        ({"outcomePrices": '["0.9995", "0.0005"]', "umaResolutionStatus": "resolved"}, None),
        ({"outcomePrices": '["0", "0"]', "umaResolutionStatus": "resolved"}, None),
        ({"outcomePrices": None, "umaResolutionStatus": "resolved"}, None),
        ({"outcomePrices": '["1", "0"]', "umaResolutionStatus": "resolved", "closed": False}, None),
    ],
)
def test_paid_only_when_it_is_said_for_good(changes, paid):
    assert read(**{"closed": True} | changes).facts.paid == paid


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-08 20:00:00+00", 1_778_270_400),
        ("2026-05-08T20:00:00Z", 1_778_270_400),
        ("2026-05-08T22:00:00+02:00", 1_778_270_400),
        ("2026-05-08", 1_778_198_400),
    ],
)
def test_times(text, seconds):
    assert time_ns(text, "t") == seconds * NS_PER_S
    assert read(gameStartTime=text).instrument.start_ns == seconds * NS_PER_S


def test_a_time_beyond_a_journal_is_a_fault():
    with pytest.raises(WireError, match="out of range"):
        time_ns("2500-12-31", "endDate")


# The CLOB over Gamma.


def test_the_order_book_stands_over_the_listing():
    told = refined(
        mts="0.001", mos=15, nr=True, fd={"r": 0.03, "e": 1, "to": True}, r={"mi": 50, "ma": 3}, gst="2026-10-01T00:00:00Z"
    ).instrument
    assert (told.grid, told.min_qty, told.route, told.fee.taker_ppm) == (FixedGrid(10), 15_000_000, "neg_risk", 30_000)
    assert (told.reward.max_spread, told.reward.min_qty, told.reward.pool_per_day) == (300, 50_000_000, 3_500_000)
    assert (told.start_ns, told.exclusive) == (1_790_812_800 * NS_PER_S, False)
    assert refined(read(negRisk=True), nr=False).instrument.exclusive is False


def test_what_the_order_book_does_not_say_stays():
    known = read()
    assert refined(known, mts=..., mos=..., nr=..., fd=..., r=...) == known
    assert refined(read(clobRewards=[])).instrument.reward is None, "a spread and a size alone are no reward"
    assert refined(read(feesEnabled=False), fd={"r": 0, "e": 0, "to": True}).instrument.fee.taker_ppm == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"t": []}, NOT_YET),
        ({"t": [{"t": "", "o": ""}, {"t": "", "o": ""}]}, NOT_YET),
        ({"t": None}, NOT_YET),
        ({"t": [{"t": "1", "o": "Yes"}, {"t": "2", "o": "No"}]}, "its order book is of other tokens than its listing"),
        ({"fd": {"r": 0.05, "e": 2}}, "fee exponent 2: this version knows 1"),
        ({"fd": {"r": 0.05, "e": 1, "to": False}}, "makers pay its fee too: not traded by this version"),
        ({"mts": 0.03}, "its order book's rules cannot be read: mts: not a tick: '0.03'"),
        ({"t": "x"}, "its order book's rules cannot be read: t: not a list"),
    ],
)
def test_why_the_order_book_refuses(changes, why):
    assert refined(**changes).facts.refused == why


def test_an_order_book_that_takes_no_orders():
    assert not refined(ao=False).facts.accepting and refined(ao=True).facts.accepting


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"t":', b"\xff\xfe"])
def test_a_reply_that_is_no_object_is_a_refusal(body):
    assert "cannot be read" in refine(read(), body).facts.refused


def closed_market(*winners, **changes):
    told = [{"token_id": token, "winner": token in winners} for token in tokens(1)]
    return json.dumps({"closed": True, "tokens": told} | changes).encode()


def test_the_winner():
    yes, no = tokens(1)
    made = read().instrument
    assert winner(closed_market(yes), made) == 10_000 and winner(closed_market(no), made) == 0
    assert winner(closed_market(), made) is None and winner(closed_market(yes, no), made) is None
    assert winner(closed_market(yes, closed=False), made) is None
    with pytest.raises(WireError, match="not a token of the market"):
        winner(json.dumps({"closed": True, "tokens": [{"token_id": "5", "winner": True}]}).encode(), made)


# Pages.


def test_a_page_and_its_cursor():
    rows, cursor = page(json.dumps({"markets": [row(1), row(2)], "next_cursor": "abc"}).encode(), "markets")
    assert [candidate(each, NOW).id for each in rows] == [condition(1), condition(2)] and cursor == "abc"
    assert page(b'{"markets":[],"next_cursor":null}', "markets") == ([], "") == page(b'{"markets":[]}', "markets")
    for body in (b'{"data":[]}', b'{"markets":null}', b'{"markets":{}}', b"[]", b"offset too large"):
        with pytest.raises(WireError):
            page(body, "markets")


def test_markets_of_an_event_take_from_it_what_they_do_not_say():
    told = {"id": "7", "slug": "who", "negRiskAugmented": True, "tags": [{"id": "2", "slug": "politics"}]}
    body = json.dumps(told | {"markets": [row(1, events=..., negRisk=True, groupItemTitle="Person A")]}).encode()
    event, rows = event_rows(body)
    found = candidate(rows[0], NOW, event)
    assert (found.facts.event_slug, found.facts.event_id, found.instrument.event_id) == ("who", "7", "7")
    assert found.facts.tags == ("9", "weather", "Weather", "2", "politics")
    assert found.facts.refused == "unnamed outcome of an augmented event: Person A"


@pytest.mark.parametrize("broken", [b"", b"null", b"[]", b"7", b'"x"', b"{}", b'{"conditionId":{}}', b"\xff"])
def test_a_row_that_is_none_is_a_candidate_that_says_so(broken):
    found = candidate(broken, NOW)
    assert found.instrument is None and found.facts.refused and found.id


_JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=3)


@given(st.dictionaries(st.sampled_from(sorted(row())), _JUNK | st.dictionaries(st.text(max_size=3), _JUNK, max_size=2), max_size=6))
def test_no_row_breaks_the_reader(changes):
    found = candidate(raw(**changes), NOW)
    assert found.id and (found.instrument is not None or found.facts.refused)
    if found.instrument is not None:
        made = found.instrument
        assert made.grid.step > 0 and made.min_qty >= 0 and len(made.token_ids) == 2 and made.fee.taker_ppm >= 0


def test_no_number_passes_through_a_float():
    text = b'{"a":0.1000000000000000055511151231257827,"b":"0.3","c":1e-4,"d":1234567890123456789.123456}'
    told = Fields(text)
    assert told.units("b", 6) == 300_000 and told.units("c", 4) == 1
    assert told.about("d", 0) == 1234567890123456789 and told.about("a", 6) == 100_000
    with pytest.raises(WireError, match="out of range"):
        told.about("d", 6)
    with pytest.raises(WireError, match="more than 6 decimals"):
        told.units("a", 6)


# Another project's captures, where they lie beside the checkout.

CAPTURED = "wire_fixtures_nautilus/crates/adapters/polymarket/test_data"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "closed", "paid"),
    [
        ("gamma_market", False, None),
        ("gamma_market_closed_binary_accepting_true", True, None),
        ("gamma_market_closed_binary_accepting_false", True, 0),
        ("gamma_market_sports_market_money_line", True, 10_000),
        ("gamma_market_sports_market_map_handicap", True, 10_000),
    ],
)
def test_captured_markets_are_read(shared, name, closed, paid):
    told = json.loads((shared / CAPTURED / f"{name}.json").read_text())
    before = candidate(json.dumps(told), NOW)
    assert before.facts.refused.startswith("its protocol version is not told"), "captured before versions were told"
    found = candidate(json.dumps(told | {"version": "v1"}), NOW)
    assert found.instrument is not None and found.facts.refused == "" and found.facts.closed is closed
    assert found.instrument.grid.step in (10, 100) and found.instrument.min_qty == 5_000_000
    assert found.facts.paid == paid


@pytest.mark.shared
def test_a_captured_event_is_read(shared):
    events = json.loads((shared / CAPTURED / "gamma_event.json").read_text())
    event, rows = event_rows(json.dumps(events[0]).encode())
    found = [candidate(json.dumps(json.loads(bytes(each)) | {"version": "v1"}), NOW, event) for each in rows]
    assert found and all(c.instrument is not None and c.instrument.route == "neg_risk" for c in found)
    assert {c.instrument.event_id for c in found} == {"30829"}


@pytest.mark.shared
def test_a_captured_winner_is_read(shared):
    market = json.loads((shared / CAPTURED / "gamma_market_closed_binary_accepting_true.json").read_text())
    made = candidate(json.dumps(market | {"version": "v1"}), NOW).instrument
    assert winner((shared / CAPTURED / "clob_market_closed_binary_accepting_true.json").read_bytes(), made) == 10_000


def test_the_rules_are_kept_cut_and_never_needed():
    assert read(description="Resolves YES if it rains.").rules == "Resolves YES if it rains."
    assert refined(read(description="Resolves YES if it rains.")).rules == "Resolves YES if it rains."
    assert len(read(description="x" * 100_000).rules) == RULES_CHARS
    for broken in ({"a": 1}, True, None):
        told = read(description=broken)
        assert told.rules == "" and told.instrument is not None and not told.facts.refused
