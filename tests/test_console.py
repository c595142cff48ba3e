"""What a person is shown: the answers of `status`, `markets` and `why`, their lines, and the live screen, over a real state."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from llm_maker.console import live, tables, view
from llm_maker.console.live import Screen
from llm_maker.core import events as ev
from llm_maker.core.advice import Action, Bias, Signal
from llm_maker.core.commands import PlaceOrder, RequestSignals
from llm_maker.core.engine import Engine, new_state
from llm_maker.core.params import Params, RiskParams
from llm_maker.core.risk import GATES
from llm_maker.core.state import Intent
from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S, FixedGrid, Instrument, InstrumentId, Kind, Liquidity
from llm_maker.report.summary import closing_lines
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams

START = 1_780_000_000 * NS_PER_S
DEEP = 50_000


class World:
    """One account on a venue `v`, moved by events only; every order is accepted by the venue that we play."""

    def __init__(self, *questions: str, free_cash_ratio: float = 0.2) -> None:
        risk = RiskParams(bankroll=2_000 * CASH_PER_USD, max_order_cost=50 * CASH_PER_USD, free_cash_ratio=free_cash_ratio)
        strategy = Maker()
        state = new_state("main", Params(risk=risk), strategy, MakerParams(), 1_000 * CASH_PER_USD)
        self.engine = Engine(state, strategy)
        self.now = START
        self.placed: list[PlaceOrder] = []
        self.asked = ""
        self.on(ev.Started(1, False), ev.VenueUp("v", snapshots=True))
        self.on(*(ev.InstrumentListed(binary(f"m{i}", question)) for i, question in enumerate(questions, start=1)))
        self.on(ev.AccountSnapshot((), ()))

    @property
    def state(self):
        return self.engine.state

    @property
    def daemon(self):
        return SimpleNamespace(state=self.state, world=SimpleNamespace(market=object()), session=SimpleNamespace(now=self.now))

    def on(self, *events: ev.Event, accept: bool = True) -> None:
        for event in events:
            self.now += 10 * NS_PER_MS
            commands = self.engine.on_event(self.now, event)
            for command in commands:
                if isinstance(command, RequestSignals):
                    self.asked = command.request_id
                if isinstance(command, PlaceOrder):
                    self.placed.append(command)
                    if accept:
                        self.on(ev.OrderAccepted(command.order_id, f"v{command.order_id}"))

    def book(self, market: str, bid: int = 4200, ask: int = 4500) -> None:
        bids, asks = ((bid, DEEP), (bid - 100, DEEP)), ((ask, DEEP), (ask + 100, DEEP))
        self.on(ev.BookSnapshot(market, bids, asks, self.now))

    def fill(self, qty: int) -> None:
        order = self.placed[0]
        self.on(
            ev.OrderFilled(
                order.order_id,
                "f1",
                order.instrument,
                order.side,
                order.leg,
                order.price,
                qty,
                0,
                Liquidity.MAKER,
                settled=True,
            )
        )

    def ask(self, verb: str, **args: str):
        """As it arrives at the other end of the socket."""
        return msgspec.json.decode(msgspec.json.encode(view.ask(self.state, verb, args, self.engine.strategy)), type=dict)

    def status(self) -> str:
        return "\n".join(tables.status_lines(self.ask("status")))

    def markets(self, **more) -> list[str]:
        return tables.market_lines(self.ask("markets") | more)

    def why(self, market: str = "m1") -> list[str]:
        return tables.why_lines(self.ask("why", market=market))


def binary(name: str, question: str) -> Instrument:
    return Instrument(
        id=InstrumentId(name),
        venue="v",
        kind=Kind.BINARY,
        price_decimals=4,
        qty_decimals=2,
        grid=FixedGrid(100),
        qty_step=1,
        min_qty=500,
        payout=10_000,
        question=question,
        event_id=name,
    )


@pytest.fixture
def quoting() -> World:
    world = World("Will it snow in Basel?", "Will it rain in Bern?")
    world.book("m1")
    world.book("m2", 4200, 6500)
    return world


def line_of(lines: list[str], beginning: str) -> str:
    return next(line for line in lines if line.strip().startswith(beginning))


# `status`.


def test_status_says_that_all_is_well(quoting):
    quoting.fill(2_000)
    quoting.on(ev.Tick())
    text = quoting.status()
    assert text.startswith("main: ACTIVE, PAPER money\n")
    assert "2026-05-28 20:26:" in text
    assert "yes: quoting 1 of 2 markets" in text
    assert "equity $1,000.30, P&L +$0.30" in text
    assert "1 fill\n" in text
    assert "odd" not in text
    assert re.search(r"Will it snow in Basel\? +0\.42/0\.45 +\+20@0\.42 +0\.42/0\.45", text)
    assert all(cell_len(line) <= 80 for line in text.splitlines())


def test_status_lists_what_waits_for_a_person_and_where_the_page_is(quoting):
    quoting.state.intents["w1-1"] = Intent("w1-1", "m1", 30_000, "chat 7", "a hunch")
    lines = tables.status_lines(quoting.ask("status") | {"page": "127.0.0.1:8787"})
    told = "\n".join(lines)
    assert "waits        chat 7 wants 300 of m1: a hunch; `llm-maker approve w1-1`" in told
    assert "page         127.0.0.1:8787; `llm-maker page` prints its link" in told


def test_status_tells_of_a_wish_that_keeps_the_strategy_out_of_a_market(quoting):
    quoting.on(ev.IntentReceived("w1-1", "m1", 30_000, "top", "a hunch"))
    (line,) = [line for line in quoting.status().splitlines() if line.startswith("  wish")]
    assert line.startswith("  wish         top wants 300 of m1: a hunch; w1-1, at work")
    assert quoting.ask("status")["intents"] == []


def test_the_columns_stay_where_they_are_for_a_position_of_four_figures(quoting):
    line = quoting.ask("markets")["markets"][0]
    for held in ({"position": 0}, {"position": -62.36, "avg_price": 0.5043}, {"position": -131.9, "avg_price": 0.51}):
        row = tables.row(line | held | {"our_bid": 0.48, "our_ask": 0.51, "signal": "hold", "signal_age_s": 25.0})
        assert row.index("0.48/0.51") == tables.heading().index("ours") and row.index("hold") == tables.heading().index("signal")


def test_status_of_a_simulated_market_says_so(quoting):
    lines = tables.status_lines(quoting.ask("status") | {"simulated": True})
    assert lines[0] == "main: ACTIVE, PAPER money on a SIMULATED market"


def test_status_before_anything_is_listed():
    assert World().status().endswith("no markets yet")


def test_an_unknown_order_is_named(quoting):
    doubtful = quoting.placed[0].order_id
    quoting.on(ev.OrderUncertain(doubtful, "timeout"))
    text = quoting.status()
    assert "look: 1 odd thing below" in text
    assert f"1 order UNKNOWN, counted as live until the venue says: {doubtful}" in " ".join(text.split())


def test_a_lost_venue_is_odd_and_so_is_that_nothing_is_quoted(quoting):
    quoting.on(ev.VenueDown("v", "socket closed"))
    odd = tables.oddities(quoting.ask("status"))
    assert "venue v: DOWN: socket closed" in odd
    for order in quoting.placed:
        quoting.on(ev.OrderCanceled(order.order_id))
    odd = tables.oddities(quoting.ask("status"))
    assert "nothing is quoted: `llm-maker markets` tells why" in odd


def test_silence_is_odd(quoting):
    quoting.now += 11 * NS_PER_S
    quoting.on(ev.Tick())
    assert "venue v: up, open, heard 11s ago, lag 0 ms, SILENT" in tables.oddities(quoting.ask("status"))


def test_a_failing_model_is_odd(quoting):
    for _ in range(3):
        while not quoting.asked:
            quoting.now += 45 * NS_PER_S
            quoting.book("m1")
            quoting.on(ev.Tick())
        asked, quoting.asked = quoting.asked, ""
        quoting.on(ev.SignalsFailed(asked, "d1", "auth", "401"))
    assert any(odd.startswith("the model fails, rules quote alone: ") for odd in tables.oddities(quoting.ask("status")))
    assert "FALLBACK" in quoting.status()


def test_a_pause_is_told_with_its_reason(quoting):
    quoting.on(ev.OperatorActed(ev.Verb.PAUSE, "test"))
    assert "halted: paused by the operator" in tables.oddities(quoting.ask("status"))


def test_an_opinion_is_shown_with_its_age(quoting):
    quoting.on(ev.Tick())
    signal = Signal("m1", Action.BUY_YES, 0.9, Bias.BULLISH, p_yes=0.5)
    quoting.on(ev.SignalsReceived(quoting.asked, "d1", "model", "p1", (signal,)))
    quoting.now += 30 * NS_PER_S
    quoting.on(ev.Tick())
    assert line_of(quoting.markets(), "Will it snow").endswith("buy_yes 30s")
    assert "buy_yes, confidence 0.9, 30s ago" in line_of(quoting.why(), "model")
    assert "log-odds at weight 0.1" in line_of(quoting.why(), "effect")


# `markets`.


def test_markets_tell_what_is_in_what_is_not_and_why(quoting):
    lines = quoting.markets(
        not_chosen=[
            {"market_id": "m8", "question": "Will it hail?", "why": "named in market_selection.exclude"},
            {"market_id": "m9", "question": "", "why": "named in market_selection.exclude"},
        ]
    )
    assert lines[:2] == ["main: PAPER money", "2 markets in, 1 quoted; 2 not chosen"]
    assert tables.market_lines(quoting.ask("markets") | {"simulated": True})[0] == "main: PAPER money on a SIMULATED market"
    assert "  account      main: PAPER money" in quoting.why()
    still = lines.index("in, but not quoted, and why")
    assert lines[still + 1 : still + 3] == ["  wide spread", "      Will it rain in Bern?"]
    rest = lines.index("not chosen, and why")
    assert lines[rest + 1 :] == ["  named in market_selection.exclude", "      Will it hail?", "      m9"]


def test_a_closed_gate_is_told_in_full(quoting):
    quoting.on(ev.VenueDown("v", "socket closed"))
    lines = quoting.markets()
    assert "v is down: sock" in line_of(lines, "Will it rain")
    assert "  v is down: socket closed" in lines


def test_a_refused_side_is_told_beside_the_quote():
    world = World("Will it snow in Basel?", free_cash_ratio=0.5)
    world.book("m1")
    assert "buy free cash, sell free cash" in "\n".join(world.markets())
    told = "lower risk.min_free_cash_pct to 49.894 (it is 50), or let positions be merged or sold"
    assert world.why()[-1] == f"nearest change: {told}"


# `why`.


def test_why_shows_the_whole_chain_and_both_sides(quoting):
    lines = quoting.why()
    named = [line.split()[0] for line in lines[lines.index("gates, in the order they are judged") + 1 : lines.index("quotes") - 1]]
    assert named == [rule.__name__.removeprefix("gate_") for rule in GATES]
    assert "wants 50 at 0.42 (inventory, joins the best); limits leave 50" in line_of(lines, "buy")
    assert line_of(lines, "rests 50 at").count("OPEN") == 1
    assert "quoting; active, every gate is open" in line_of(lines, "now")
    assert lines[-1] == "nearest change: none needed, it is quoted"


def test_why_ends_with_the_nearest_change(quoting):
    lines = quoting.why("m2")
    assert "nothing wanted: wide spread" in line_of(lines, "buy")
    assert line_of(lines, "refused: wide spread, for 0s")
    told = "raise execution.max_spread_threshold to 0.23 (it is 0.1), or wait for a tighter book"
    assert lines[-1] == f"nearest change: {told}"


def test_the_deciding_gate_is_the_one_to_change(quoting):
    """A reduce-only account is not what keeps quotes from a venue that is down."""
    quoting.on(ev.OperatorActed(ev.Verb.REDUCE, "test"))
    assert quoting.why()[-1] == "nearest change: `llm-maker resume`"
    quoting.on(ev.VenueDown("v", "socket closed"))
    lines = quoting.why()
    assert "HALTED  v is down: socket closed" in line_of(lines, "venue")
    assert "REDUCE  reduce-only, by the operator" in line_of(lines, "mode")
    back = "the connection must come back (socket closed); it is tried again by itself"
    assert lines[-1] == f"nearest change: {back}; then `llm-maker resume`"


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (ev.OperatorActed(ev.Verb.PAUSE, "test", "m1"), "`llm-maker resume m1`"),
        (ev.InstrumentDropped("m1", "excluded"), "market_selection must choose it again: excluded"),
        (ev.MarketResolved("m1", 10_000), "nothing: it is resolved"),
        (ev.StopRequested("test"), "nothing: the daemon is stopping"),
        (ev.ClockStepped(9 * NS_PER_S), "`llm-maker resume`, once the reason is dealt with"),
        (ev.FeedLost(("m1",), "damaged frame"), "a fresh, sound book must arrive: no trusted book: damaged frame"),
    ],
)
def test_what_would_have_to_change(quoting, event, change):
    quoting.on(event)
    assert quoting.why()[-1] == f"nearest change: {change}"


def test_a_loss_halt_tells_how_long_it_stands(quoting):
    quoting.on(ev.Tick(), ev.CashMoved(ev.CashKind.FEE, -60 * CASH_PER_USD))
    quoting.now += NS_PER_S
    quoting.on(ev.Tick())
    assert re.fullmatch(r"nearest change: wait 3\.[56]h until the halt runs out", quoting.why()[-1])
    assert "today -$60.00" in quoting.status()


def test_a_market_is_found_by_id_beginning_or_words(quoting):
    assert view.find(quoting.state, "m1") == view.find(quoting.state, "SNOW in") == "m1"
    assert view.find(quoting.state, "Will it") is None
    assert view.find(quoting.state, "") is None
    assert quoting.ask("why", market="will it")["error"] == "2 markets match 'will it'; `llm-maker markets` lists them"
    assert quoting.ask("why", market="hail")["error"].startswith("no market matches 'hail'")


def test_looking_changes_nothing(quoting):
    before = msgspec.json.encode(quoting.state)
    quoting.status()
    quoting.markets()
    quoting.why()
    live.table(quoting.daemon, 12, 80)
    assert msgspec.json.encode(quoting.state) == before


# Cells.


@given(st.text(max_size=60), st.integers(1, 40))
@settings(max_examples=200)
def test_a_clipped_cell_has_its_width_and_no_control(text, width):
    for clipped in (tables.clip(text, width), tables.clip_middle(text, width)):
        assert cell_len(clipped) == width
        assert clipped.isprintable()


def test_a_hostile_question_moves_no_cursor():
    world = World("\x1b[2J\x1b]0;owned\x07Will\r\nit \u202esnow?")
    world.book("m1")
    text = "\n".join([*world.markets(), *world.why(), world.status(), live.table(world.daemon, 5, 80).plain])
    assert all(c.isprintable() for c in text.replace("\n", ""))


def test_long_names_keep_both_ends():
    assert tables.clip_middle("Will the Oilers win game 4?", 20) == "Will the ..n game 4?"
    first, second = (tables.clip_middle(f"Will the Edmonton Oilers win game {n}", 22) for n in (4, 5))
    assert first != second
    assert first.startswith("Will the")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.42"), (0.4205, "0.4205"), (0.001, "0.001"), (68000.12, "68000.12"), (0.0, "-"), (None, "-"), (1.0, "1.00")],
)
def test_prices(value, text):
    assert tables.price(value) == text


@pytest.mark.parametrize(("held", "text"), [(12.683, "+12.68@0.28"), (-87.5, "-87.5@0.28"), (12345.6, "+12346@0.28"), (0.0, "-")])
def test_positions(held, text):
    assert tables.position({"position": held, "avg_price": 0.28}) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (99, "99s"), (720, "12m"), (10_800, "3h"), (172_800, "2d")])
def test_ages(seconds, text):
    assert tables.age(seconds) == text


def test_money_is_never_minus_nothing():
    assert tables.money(-0.001, signed=True) == "+$0.00"
    assert tables.money(-1234.5) == "-$1,234.50"


# The live screen.


class Terminal:
    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=width, height=height, force_terminal=True, color_system=None)

    def shown(self) -> str:
        """What was written, without the cursor's movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())


def test_the_table_puts_positions_first_then_quotes():
    world = World("first", "second", "third", "fourth")
    for name in ("m4", "m2"):
        world.book(name)
    world.fill(1_000)
    lines = live.table(world.daemon, 3, 80).plain.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["fourth", "second", "first"]
    assert lines[6] == "and 1 more: `llm-maker markets`"
    assert lines[0].startswith("PAPER SIMULATED ACTIVE 2026-05-28 20:26:40 UTC")
    assert lines[1] == "equity $1,000.15  P&L +$0.15  fills 1  decisions 0  LLM"


def test_a_tape_is_not_called_simulated(quoting):
    daemon = quoting.daemon
    daemon.world.market = None
    assert live.table(daemon, 3, 80).plain.startswith("PAPER ACTIVE ")


def test_a_halt_is_told_on_top(quoting):
    quoting.on(ev.OperatorActed(ev.Verb.PAUSE, "test"))
    assert (
        live.table(quoting.daemon, 3, 80).plain.splitlines()[0].endswith("HALTED 2026-05-28 20:26:40 UTC  paused by the operator")
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 5), (1, 1), (200, 60)])
def test_it_fits_every_terminal(width, height):
    world = World(*(f"Will it snow in 東京 on day {n} of the month?" for n in range(30)))
    terminal = Terminal(width, height)
    screen = Screen(30, 1.0, terminal.console)
    with screen.showing(world.daemon):
        for n in range(6):
            screen.say(f"notice {n} " + "long " * 30)
        screen.refresh()
        shown = terminal.shown()
    assert screen.faults == 0
    assert shown.count("\n") < height
    assert all(cell_len(line) <= width for line in shown.splitlines())


def test_a_narrow_line_is_cut_and_not_wrapped():
    world = World("first", "second", "third")
    terminal = Terminal(40, 24)
    with (screen := Screen(30, 1.0, terminal.console)).showing(world.daemon):
        screen.refresh()
        assert len(terminal.shown().strip().splitlines()) == 2 + 1 + 3


def test_rows_make_room_for_the_notices():
    world = World(*(f"day {n}" for n in range(30)))
    terminal = Terminal(80, 24)
    with (screen := Screen(30, 1.0, terminal.console)).showing(world.daemon):
        for n in range(live.NOTICES):
            screen.say(f"notice {n}")
        screen.refresh()
        assert terminal.shown().rstrip().endswith(f"notice {live.NOTICES - 1}")
        assert "and 15 more: `llm-maker markets`" in terminal.shown()


def test_it_draws_only_when_it_is_time(quoting, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live.time, "monotonic", lambda: clock.now)
    drawn = []
    monkeypatch.setattr(live, "table", lambda *args: drawn.append(clock.now) or live.Text("x"))
    screen = Screen(5, 1.0, Terminal().console)
    screen.refresh()
    with screen.showing(quoting.daemon):
        for clock.now in (100.0, 100.1, 100.9, 101.0, 101.5, 102.5):
            screen.refresh()
    screen.refresh()
    assert drawn == [100.0, 101.0, 102.5]


def test_notices_stand_under_the_table_and_outlive_it(quoting, capsys):
    terminal = Terminal()
    screen = Screen(5, 0.0, terminal.console)
    screen.say("before")
    assert capsys.readouterr().err == "before\n"
    with screen.showing(quoting.daemon):
        for n in range(6):
            screen.say(f"notice {n}")
        screen.refresh()
    assert terminal.shown().index("Will it snow") < terminal.shown().index("notice 5")
    assert "notice 1" not in terminal.shown()
    assert capsys.readouterr().err == "notice 2\nnotice 3\nnotice 4\nnotice 5\n"


def test_a_fault_of_the_view_is_told_once_and_disturbs_nothing(quoting, monkeypatch, capsys):
    def broken(*_):
        raise KeyError("oops")

    monkeypatch.setattr(live.view, "line", broken)
    terminal = Terminal()
    screen = Screen(5, 0.0, terminal.console)
    with screen.showing(quoting.daemon):
        for _ in range(3):
            screen.refresh()
    assert screen.faults == 3
    assert "the table cannot be drawn; trading goes on" in terminal.shown()
    told = capsys.readouterr().err
    assert told.count("the screen failed (KeyError: 'oops')") == 1
    assert "the screen failed 3 times" in told


def test_a_dead_terminal_disturbs_nothing(quoting, capsys):
    class Dead(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("gone")

    screen = Screen(5, 0.0, Console(file=Dead(), width=80, height=24, force_terminal=True))
    with screen.showing(quoting.daemon):
        screen.refresh()
        screen.say("still here")
        screen.refresh()
    assert screen.faults >= 2
    told = capsys.readouterr().err
    assert "still here" in told
    assert told.count("OSError: gone") == 1


def test_the_end_of_the_run_is_not_swallowed(quoting):
    screen = Screen(5, 0.0, Terminal().console)
    with pytest.raises(RuntimeError, match="ours"), screen.showing(quoting.daemon):
        raise RuntimeError("ours")
    assert screen.faults == 0


def test_closing_lines_put_the_sign_before_the_dollar_and_count_one_decision():
    run = {
        "pnl_split_usd": {"spread": 8.52, "inventory": -0.05, "fees": 0.0, "rebates": -0.001, "rewards": 1234.5},
        "refusals": {}, "llm_cost_usd": 0.0, "decisions": 1, "halted_by": {}, "fallbacks": 0, "fills": 1, "markets": 1,
        "simulated": True, "paper_money": True,
    }  # fmt: skip
    spread, moves, cost, *_ = closing_lines(run)
    assert spread.endswith("+$8.52 (paper money, simulated market)")
    assert moves.endswith("-$0.05; fees $0.00, rebates $0.00, rewards +$1,234.50")
    assert cost.endswith(" for 1 decision")
