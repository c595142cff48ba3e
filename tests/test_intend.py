"""`intend` and `approve`: a person's wish goes all the way, from the desk to the orders and their end, through every gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_maker import app, lab
from llm_maker.config import load
from llm_maker.console.desk import Refused
from llm_maker.core.commands import Notice, PlaceOrder
from llm_maker.core.events import Event, IntentReceived
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.keys import Secrets
from llm_maker.runtime.journal import Entry, files
from llm_maker.runtime.journal_reader import read_journal
from tests.core.builders import SHARE, Rig

SEED = 2
SETTINGS = {"seed": SEED, "paper.markets": 2, "paper.activity": 500.0, "llm.provider": "none", "risk.approve_above_usd": 250.0}
Act = Callable[[app.Daemon], None]


def life(home: Path, until: float, steps: list[tuple[float, Act]]) -> None:
    """A session with something done at some of its moments, in market seconds since it began."""
    daemon = app.Daemon(load(None, {}, SETTINGS), Secrets({}), home, app.Options(speed=0.0, until=until), lambda line: None)
    deliver, began = daemon.session.deliver, daemon.session.now or daemon.world.start_ns

    def delivered(ts: int, account: str, event: Event) -> None:
        deliver(ts, account, event)
        if steps and (ts - began) / NS_PER_S > steps[0][0]:
            steps.pop(0)[1](daemon)

    daemon.session.deliver = delivered  # type: ignore[method-assign]
    try:
        assert asyncio.run(daemon.run())
        assert not steps
    finally:
        daemon.close()


class Story:
    """A small wish, a large one that waits over a restart, its approval, and one that is taken back."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said: dict[str, Any] = {}
        self.refusals: list[str] = []
        life(home, 60.0, [(1, self._small), (30, self._large)])
        life(home, 150.0, [(5, self._approve), (100, self._more), (120, self._take_back)])

    def ask(self, daemon: app.Daemon, verb: str, **args: Any) -> dict[str, Any]:
        return daemon.seat.desk.answer(verb, args, "control socket")

    def _small(self, daemon: app.Daemon) -> None:
        self.market = market = next(iter(daemon.state.markets))
        self.other = list(daemon.state.markets)[1]
        for shares in ("many", "", "1.00000001", "nan", "1e400", "9e999999", "inf", "2\x1b[2J"):
            with pytest.raises(Refused) as refused:
                self.ask(daemon, "intend", market=market, shares=shares)
            self.refusals.append(str(refused.value))
        for args in ({"shares": "5"}, {"market": "no such", "shares": "5"}, {"market": market, "shares": 5}):
            with pytest.raises(Refused):
                self.ask(daemon, "intend", **args)
        self.said["small"] = self.ask(daemon, "intend", market=market, shares="-8", reason="my\x07own\n model " + "x" * 500)

    def _large(self, daemon: app.Daemon) -> None:
        self.said["large"] = self.ask(daemon, "intend", market=self.other, shares="600", reason="a hunch")

    def _approve(self, daemon: app.Daemon) -> None:
        self.said["waiting"] = waiting = self.ask(daemon, "status")["intents"]
        self.said["net_before"] = daemon.state.markets[self.other].position.net
        self.ask(daemon, "approve", intent_id="w9-9")
        self.ask(daemon, "approve", intent_id=waiting[0]["intent_id"])

    def _more(self, daemon: app.Daemon) -> None:
        self.ask(daemon, "pause", market=self.other)  # from here on its position stays what it is
        self.said["more"] = self.ask(daemon, "intend", market=self.other, shares="-600", reason="the other way")

    def _take_back(self, daemon: app.Daemon) -> None:
        market = daemon.state.markets[self.other]
        self.said["waited"] = dict(daemon.state.intents)
        self.said["back"] = self.ask(
            daemon, "intend", market=self.other, shares=f"{market.instrument.usd_qty(market.position.net):.6g}"
        )

    def entries(self) -> list[Entry]:
        folder = next((self.home / "logs" / "journal").iterdir())
        return [entry for path in files(folder, "main") for entry in read_journal(path)]

    def notices(self, code: str) -> list[str]:
        found = [c for entry in self.entries() for c in entry.commands if isinstance(c, Notice)]
        return [notice.text for notice in found if notice.code == code]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    print("seed", SEED)
    return Story(tmp_path_factory.mktemp("intend"))


def worked(story: Story, intent_id: str) -> list[PlaceOrder]:
    reason = f"intent {intent_id}"
    return [c for entry in story.entries() for c in entry.commands if isinstance(c, PlaceOrder) and c.reason == reason]


def test_a_wish_for_no_is_worked_as_maker_to_its_end(story: Story):
    intent_id = story.said["small"]["intent_id"]
    orders = worked(story, intent_id)
    assert orders and all(order.post_only for order in orders)
    assert any(intent_id in text and "is done" in text for text in story.notices("intent_done"))
    (event,) = [e.event for e in story.entries() if isinstance(e.event, IntentReceived) and e.event.intent_id == intent_id]
    assert event.target_net < 0 and len(event.reason) <= 200 and "\n" not in event.reason


def test_a_wrong_size_is_refused_in_one_line(story: Story):
    assert len(story.refusals) == 8
    assert all("is no number of shares (YES; minus is NO)" in line and "\n" not in line for line in story.refusals)


def test_a_large_one_waits_over_a_restart_for_the_id_that_status_lists(story: Story):
    intent_id = story.said["large"]["intent_id"]
    assert [(i["intent_id"], i["market_id"], i["target"], i["reason"]) for i in story.said["waiting"]] == [
        (intent_id, story.other, 600.0, "a hunch")
    ]
    assert any("no such intent waiting" in text for text in story.notices("approve")), "the unknown id is told"
    orders = worked(story, intent_id)
    entries = story.entries()
    approved = next(
        n for n, e in enumerate(entries) if getattr(e.event, "intent_id", "") == intent_id and "Acted" in type(e.event).__name__
    )
    first = next(n for n, e in enumerate(entries) if any(getattr(c, "reason", "") == f"intent {intent_id}" for c in e.commands))
    assert orders and first >= approved and all(order.side is Side.BUY and order.post_only for order in orders)


def test_a_wish_for_what_is_held_takes_the_others_back(story: Story):
    waiting = story.said["more"]["intent_id"]
    assert waiting in story.said["waited"]
    (told,) = [text for text in story.notices("intent_done") if story.said["back"]["intent_id"] in text]
    assert "taken back" in told and waiting in told
    assert worked(story, waiting) == [] and worked(story, story.said["back"]["intent_id"]) == []


def test_ids_never_repeat_and_the_journal_proves_itself(story: Story):
    ids = [entry.event.intent_id for entry in story.entries() if isinstance(entry.event, IntentReceived)]
    assert len(ids) == len(set(ids)) == 4
    assert [name.partition("-")[0] for name in ids] == ["w1", "w1", "w2", "w2"], "of their session, as an order's id is"
    assert lab.replay(next((story.home / "logs" / "journal").iterdir()))["proved"]


def test_a_wish_that_an_exit_overrules_is_told_as_over():
    rig = Rig(wants=()).start()
    rig.send(IntentReceived("i1", "m", 60 * SHARE, "bot.py", "my model"))
    rig.fill(rig.one(), 40 * SHARE)
    said: list[str] = []
    for _ in range(33):
        for out in (rig.move(4500), rig.run(1), rig.ack()):
            said += [c.text for c in out or () if isinstance(c, Notice) and c.code == "intent_done"]
    assert said == ["intent i1 of bot.py is over, unfinished: an exit (stop) goes before it"]
    assert rig.market().intent is None
