"""What `top` and the page show at a glance and of one market: true, whole, for every lawful state, and JSON."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from llm_maker.app import Daemon, Options
from llm_maker.app import run as run_daemon
from llm_maker.config import load
from llm_maker.console import shapes
from llm_maker.console.board import Around, Rows, board, detail, gain, reward_share, row
from llm_maker.core import events as ev
from llm_maker.core.rewards import midpoint2, q_min, rivals, scale, sides
from llm_maker.core.state import Intent
from llm_maker.core.values import Leg, RewardRule, Side, usd
from llm_maker.core.worth import equity
from llm_maker.keys import Secrets
from llm_maker.strategy.maker import Maker
from tests.core.builders import CASH, SHARE, USD, Rig, advice, binary, linear


def around(**changes) -> Around:
    facts = {
        **{"version": "1", "venue": "v", "provider": "none", "simulated": True, "started_ns": 1, "twin": None, "health": {}},
        **{"model_cost_today": None, "model_budget": None, "alarms": [], "tail": [], "last": 0},
    }
    return Around(**(facts | changes))


def told(rig: Rig) -> dict:
    """As it arrives at the other end of a socket."""
    return msgspec.json.decode(msgspec.json.encode(board(rig.state, around())))


@pytest.fixture
def rig() -> Rig:
    rig = Rig(strategy=Maker()).start(binary(), binary("n"))
    rig.ack()
    rig.run(2)
    return rig


def test_the_shapes_are_those_that_are_promised(rig):
    shown = told(rig)
    assert shown.keys() == get_type_hints(shapes.Board).keys()
    assert shown["money"].keys() == get_type_hints(shapes.Money).keys()
    assert all(line.keys() == get_type_hints(shapes.Row).keys() for line in shown["rows"])
    whole = detail(rig.state, rig.market(), [], rig.strategy)
    assert whole.keys() == get_type_hints(shapes.Detail).keys()
    assert all(level.keys() == get_type_hints(shapes.Level).keys() for level in whole["bids"] + whole["asks"])


def halted(rig):
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test"))


def stopping(rig):
    rig.send(ev.StopRequested("test"))


def killed(rig):
    rig.send(ev.OperatorActed(ev.Verb.KILL, "test"))


def empty_book(rig):
    rig.book("m", (), ())


def lost_book(rig):
    rig.hold(Side.BUY, 5000, 10 * SHARE)
    rig.send(ev.FeedLost(("m",), "damaged frame"))


def foreign(rig):
    rig.send(ev.AccountSnapshot((ev.RestingOrder("", "x", "m", Side.BUY, Leg.YES, 4800, 500),), (ev.Holding("m", Leg.YES, 700),)))


def resolved(rig):
    rig.hold(Side.BUY, 5000, 10 * SHARE)
    rig.send(ev.MarketResolved("m", 0))


def dropped(rig):
    rig.send(ev.InstrumentDropped("m", "excluded"))


def linear_too(rig):
    rig.listed(linear())
    rig.book("l", ((6_799_900, 5_000),), ((6_800_100, 5_000),))
    rig.hold(Side.SELL, 6_800_000, 10, "l")


def never_seen(rig):
    rig.listed(binary("new", reward=RewardRule(300, 20 * SHARE, USD)))
    rig.hold(Side.BUY, 4000, 10 * SHARE, "new")


def uncertain(rig):
    rig.send(*(ev.OrderUncertain(order.order_id, "timeout") for order in rig.live()))


def down(rig):
    rig.send(ev.VenueDown("v", "socket closed"))


@pytest.mark.parametrize(
    "happen",
    [halted, stopping, killed, empty_book, lost_book, foreign, resolved, dropped, linear_too, never_seen, uncertain, down],
    ids=lambda happen: happen.__name__,
)
def test_every_lawful_state_can_be_shown_and_showing_changes_nothing(rig, happen):
    happen(rig)
    before = rig.saved()
    shown = told(rig)
    assert len(shown["rows"]) == len(rig.state.markets)
    for market in rig.state.markets.values():
        msgspec.json.encode(detail(rig.state, market, [], rig.strategy))
    assert rig.saved() == before
    assert shown["money"]["equity"] == usd(equity(rig.state))


def test_nothing_at_all_can_be_shown():
    assert told(Rig())["rows"] == []


def test_the_rows_gains_are_the_accounts(rig):
    """Rewards and the like aside, what the markets brought is what the account has more."""
    rig.hold(Side.BUY, 5000, 20 * SHARE)
    rig.fill(rig.one(Side.SELL, "n"), 10 * SHARE, fee=1_000)
    rig.move(5300)
    shown = told(rig)
    assert sum(line["pnl_usd"] for line in shown["rows"]) == pytest.approx(shown["money"]["pnl"], abs=1e-5)
    assert shown["money"]["fees"] == 0.001
    first = shown["rows"][0]
    assert first["position"] == 20
    assert first["pnl_usd"] == pytest.approx(20 * 0.03)


def test_a_position_without_a_price_counts_for_what_it_cost(rig):
    never_seen(rig)
    assert gain(rig.market("new")) == 0


def test_a_resolved_market_counts_at_its_outcome(rig):
    rig.hold(Side.BUY, 5000, 10 * SHARE)
    rig.send(ev.MarketResolved("m", 0))
    assert row(rig.state, rig.market())["pnl_usd"] == -5.0


def test_our_size_and_what_stands_before_it(rig):
    line = row(rig.state, rig.market())
    assert (line["our_bid"], line["our_bid_shares"]) == (0.50, 50.0)
    assert line["bid_ahead"] == 500.0
    rig.book("m", ((5100, 30 * SHARE), (5000, 200 * SHARE)), ((5200, 500 * SHARE),))
    before = row(rig.state, rig.market())
    assert before["bid_ahead"] == 230.0
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test", "m"))
    rig.ack()
    gone = row(rig.state, rig.market())
    assert (gone["our_bid"], gone["our_bid_shares"], gone["bid_ahead"]) == (0.0, 0.0, None)


def test_the_share_of_a_reward_is_the_rules(rig):
    rule = RewardRule(300, 20 * SHARE, 50 * USD)
    rig.listed(binary("r", reward=rule))
    rig.book("r")
    rig.ack()
    market = rig.market("r")
    line = row(rig.state, market)
    assert line["reward_usd_per_day"] == 50.0
    mid2 = midpoint2(rule, market.book.bids, market.book.asks)
    ours = [(o.side, o.price, o.remaining) for o in rig.live(name="r")]
    theirs = [(Side.BUY, p, q) for p, q in market.book.bids.items()] + [(Side.SELL, p, q) for p, q in market.book.asks.items()]
    mine = q_min(*sides(rule, ours, mid2), mid2, 10_000)
    assert mine > scale(rule)
    assert line["reward_share"] == pytest.approx(mine / (mine + rivals(*sides(rule, theirs, mid2), mid2, 10_000)), abs=1e-4)
    assert row(rig.state, rig.market())["reward_share"] is None
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test"))
    rig.ack()
    assert reward_share(rig.state, market, []) == 0.0


def test_the_ladder_shows_our_orders_beside_a_book_that_does_not(rig):
    rig.book("m", ((4900, 500 * SHARE),), ((5200, 500 * SHARE),))
    whole = detail(rig.state, rig.market(), [])
    assert [(level["price"], level["shares"], level["ours"]) for level in whole["bids"]] == [(0.5, 0.0, 50.0), (0.49, 500.0, 0.0)]
    assert whole["asks"][0] == {"price": 0.52, "shares": 500.0, "ours": 50.0}


def test_a_long_book_is_cut_at_ten_levels(rig):
    rig.book("m", tuple((4900 - 100 * n, SHARE) for n in range(30)), ((5200, SHARE),))
    assert len(detail(rig.state, rig.market(), [])["bids"]) == 10


def test_the_models_words_and_its_earlier_ones(rig):
    rig.advise(advice("hold", 0.7, reasoning="first", p_yes=0.5))
    rig.run(5)
    rig.advise(advice("buy_yes", 0.9, "bullish", reasoning="second", p_yes=0.6))
    whole = detail(rig.state, rig.market(), [], rig.strategy)
    assert (whole["reasoning"], whole["model"], whole["decision_id"]) == ("second", "gpt", "d1")
    assert [past["action"] for past in whole["past"]] == ["buy_yes", "hold"]
    assert whole["past"][1]["age_s"] == 5.0
    assert whole["why"]["sides"]["buy"]["wish"]["shares"] > 0


def test_limits_and_drawdown_in_dollars(rig):
    rig.run(1)
    rig.send(ev.CashMoved(ev.CashKind.FEE, -60 * USD))
    money = told(rig)["money"]
    assert (money["daily_loss_limit"], money["drawdown_limit"], money["bankroll"]) == (200.0, 600.0, usd(CASH))
    assert (money["drawdown"], money["today"], money["fees"]) == (60.0, -60.0, 60.0)


def test_what_waits_for_approval_is_listed(rig):
    rig.state.intents["w1-1"] = Intent("w1-1", "m", 300 * SHARE, "chat", "because")
    rig.state.intents["w1-2"] = Intent("w1-2", "gone", SHARE, "chat", "")
    first, second = told(rig)["intents"]
    assert first == {"intent_id": "w1-1", "market_id": "m", "target": 300.0, "who": "chat", "reason": "because"}
    assert second["target"] is None


def test_kept_rows_come_round_and_follow_the_markets(rig):
    rows = Rows()
    assert [line["market_id"] for line in rows.told(rig.state)] == ["m", "n"]
    rig.move(5300, "m")
    rig.move(5300, "n")
    stale = rows.told(rig.state)
    assert {line["bid"] for line in stale} == {0.5}
    rows.refresh(rig.state, 1)
    assert sorted(line["bid"] for line in rows.told(rig.state)) == [0.5, 0.52]
    rows.refresh(rig.state, 1)
    assert {line["bid"] for line in rows.told(rig.state)} == {0.52}
    rig.listed(binary("new"))
    assert [line["market_id"] for line in rows.told(rig.state)] == ["m", "n", "new"]
    del rig.state.markets["new"]
    rows.refresh(rig.state, 5)
    assert [line["market_id"] for line in rows.told(rig.state)] == ["m", "n"]


def test_a_running_daemon_answers_in_these_shapes(tmp_path):
    config = load(None, {}, {"console.http": False, "paper.markets": 30, "market_selection.max_markets": 30})
    daemon = Daemon(config, Secrets({}), tmp_path, Options(speed=0, until=30.0), lambda line: None)
    seen: dict[str, dict] = {}

    def look() -> None:
        if "board" not in seen and daemon.state.counts.fills:
            seen["board"] = daemon.seat.answer("board", {"since": 0})
            first = seen["board"]["rows"][0]["market_id"]
            seen["detail"] = daemon.seat.answer("detail", {"market": first})
            seen["history"] = daemon.seat.answer("history", {"market": first})

    try:
        run_daemon(daemon, look)
    finally:
        daemon.close()
    shown = seen["board"]
    assert shown.keys() == get_type_hints(shapes.Board).keys()
    assert len(shown["rows"]) == 30
    assert shown["tail"][-1]["n"] == shown["last"] > 0
    assert any(entry["kind"] == "fill" for entry in shown["tail"])
    health = {"rss_mb", "uptime_s", "events", "tasks", "inbox", "loop_delay_ms", "journal_mb", "storage_failed"}
    assert shown["health"].keys() == health
    assert shown["twin"]["against"] == "main"
    assert seen["detail"].keys() == get_type_hints(shapes.Detail).keys()
    assert seen["history"].keys() == get_type_hints(shapes.History).keys()
    msgspec.json.encode(seen)
