"""`llm-maker top`: the live screen of a running daemon, over its control socket and nothing else.

It asks for the board about once a second in a thread, draws it, and turns keys into acts, each named "top". It holds nothing
the daemon would miss: it may start first, hang, or go away. A picture that is no longer true is grey and says since when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Input

from llm_maker.console import tables, top_help, top_table, top_text
from llm_maker.console.cells import age, clean, clip, clip_middle
from llm_maker.console.control import VIEW_FAULTS
from llm_maker.console.shapes import Board, Row
from llm_maker.console.top_look import ENTRIES, Look, woken
from llm_maker.console.top_table import ALL
from llm_maker.console.top_text import BAD, DIM, GOOD, LABEL, PLAIN, STRONG, WARN, Line
from llm_maker.console.top_widgets import STYLES, Ask, Lines, Page, Table, titled

DETAIL_SECONDS = 0.15
"""At most so often, however fast a key repeats."""
SAID_SECONDS = 12.0
WIDE, TALL, LOW = 120, 30, 16
"""Columns and lines from which all panes are there at once; lines below which there is none."""
PANE_LINES = 8
"""Of a small terminal's pane: it gives the rest to the table."""
PANES = ("market", "stream", "alarms", "money")


class Main(Screen[None]):
    """The first screen: Tab changes the pane, not the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [("tab", "app.pane(1)", "next pane"), ("shift+tab", "app.pane(-1)", "pane before")]


class Top(App[None]):
    """The screen of the daemon of `home`."""

    CSS = STYLES
    AUTO_FOCUS = None
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q,ctrl+c,ctrl+q", "quit", "leave"),
        ("p", "act('pause')", "pause"),
        ("r", "act('reduce')", "reduce-only"),
        ("u,P", "ask_resume", "resume"),
        ("c", "ask_cancel", "cancel"),
        ("f", "ask_flatten", "flatten"),
        ("k", "ask_kill", "kill"),
        ("a", "ask_approve", "approve"),
        ("w", "why", "why"),
        ("enter", "whole", "the whole of it"),
        ("slash", "filter", "filter"),
        ("question_mark", "help", "help"),
        ("escape", "unfilter", "show all"),
        ("right_square_bracket", "scroll_pane(5)", "scroll the pane"),
        ("left_square_bracket", "scroll_pane(-5)", "scroll the pane"),
        ("up", "move(-1)", "up"),
        ("down", "move(1)", "down"),
        ("pageup", "move_page(-1)", "page up"),
        ("pagedown", "move_page(1)", "page down"),
        ("home", "move(-99999)", "first"),
        ("end", "move(99999)", "last"),
    ]

    def __init__(self, home: Path, refresh_seconds: float = 1.0) -> None:
        super().__init__()
        self.look = Look(home, refresh_seconds)
        self._filter = ""
        self._pane = "stream"
        self._said: tuple[str, str] = ("", PLAIN)
        self._said_at = 0.0
        self._order, self._widths = top_table.Order(), top_table.Widths()
        self._hurry, self._hurry_detail = asyncio.Event(), asyncio.Event()
        self._parts = {name: Lines(name) for name in ("head", "tabs", "scope", "keys", *PANES)}
        self._table = Table("table")
        self._table.chosen = ALL

    # The screen.

    def get_default_screen(self) -> Main:
        """The first one."""
        return Main(id="_default")

    def compose(self) -> ComposeResult:
        """Header, table, panes, what the keys act on, the keys."""
        parts = self._parts
        for name in PANES:
            parts[name].add_class("pane")
            parts[name].border_title = name
        yield parts["head"]
        yield self._table
        yield parts["tabs"]
        with Horizontal(id="low"):
            yield parts["market"]
            with Vertical(id="side"):
                yield from (parts[name] for name in PANES[1:])
        yield parts["scope"]
        yield Input(placeholder="letters of a market; Enter keeps, Esc shows all", id="filter", compact=True)
        yield parts["keys"]

    def on_mount(self) -> None:
        """Start to look."""
        self.run_worker(self._watch(), name="board")
        self.run_worker(self._watch_detail(), name="detail")
        self.set_interval(1.0, self.draw)

    def on_resize(self) -> None:
        """Everything has another place."""
        self.call_after_refresh(self.draw)

    # Looking.

    async def _watch(self) -> None:
        while True:
            wait = await self.look.look()
            self._hurry_detail.set()
            self.draw()
            await woken(self._hurry, wait)

    async def _watch_detail(self) -> None:
        while True:
            await woken(self._hurry_detail, None)
            if self._table.chosen != ALL and not self.look.fault:
                await self.look.look_at(self._table.chosen)
                self.draw()
            await asyncio.sleep(DETAIL_SECONDS)

    # Drawing.

    def draw(self) -> None:
        """Everything, as far as it has changed."""
        if not self._table.is_attached:
            return
        self._draw_frame()
        if self.look.board is not None:
            self._draw_table(self.look.board)
            self._draw_panes(self.look.board)
        self._draw_foot()
        if isinstance(self.screen, Page):
            self.screen.draw()

    def _draw_frame(self) -> None:
        """The header, then how the height is shared."""
        width, height = self.size
        self.screen_stack[0].set_class(width >= WIDE and height >= TALL, "wide")
        lines = self._head(width)
        head = self._parts["head"]
        if height < LOW:
            lines = lines[:2]
        head.styles.height = len(lines)
        head.show(lines)
        wide, low = self.screen_stack[0].has_class("wide"), height < LOW
        rows = len(self._shown()) + 2
        room = height - len(lines) - (2 if wide else 3)
        self._table.styles.height = "1fr" if low else min(rows, room * 45 // 100 if wide else max(room // 2, room - PANE_LINES))
        self._parts["tabs"].display = not (wide or low)
        self.query_one("#low").display = not low
        self.query_one("#side").display = wide or self._pane != "market"
        for name in PANES:
            self._parts[name].display = wide or self._pane == name

    def _head(self, width: int) -> list[Line]:
        board, look = self.look.board, self.look
        if board is None:
            return top_help.absent(str(look.home), look.fault, look.tries, width)
        if look.stale:
            return _drawn(lambda: top_help.stale_head(board, str(look.home), look.fault, look.age_seconds, width))
        return _drawn(lambda: top_text.head(board, ("live", GOOD), width))

    def _shown(self) -> list[Row]:
        if self.look.board is None:
            return []
        return top_table.matching(self.look.board["rows"], self._filter) if self._filter else self.look.board["rows"]

    def _draw_table(self, board: Board) -> None:
        rows = self._order.sorted(board["rows"], time.monotonic())
        shown = top_table.matching(rows, self._filter) if self._filter else rows
        told = [top_table.cells(row) for row in shown]
        names = [top_text.called(row["market_id"], row["question"]) for row in shown]
        shape = self._widths.shape(told, names, self.size.width)
        lines = [top_table.line(row, cells, shape) for row, cells in zip(shown, told, strict=True)]
        lines.insert(0, top_table.total(board, len(rows) - len(shown), shape))
        keys = [ALL, *(row["market_id"] for row in shown)]
        self._table.show_rows(top_table.heading(shape), keys, lines, self.look.stale)

    def _draw_panes(self, board: Board) -> None:
        names = {row["market_id"]: top_text.called(row["market_id"], row["question"]) for row in board["rows"]}
        for name in PANES:
            pane = self._parts[name]
            width, height = pane.content_size
            if pane.display and width and height:
                pane.show(self._pane_lines(name, board, names, width, height), self.look.stale)
        self._parts["tabs"].show([top_help.tab_line(board, PANES, self._pane, self.look.stale)])

    def _pane_lines(self, name: str, board: Board, names: dict[str, str], width: int, height: int) -> list[Line]:
        if name == "stream":
            return top_text.stream(list(self.look.entries), names, width, ENTRIES)
        if name == "alarms":
            return top_text.alarms(board["alarms"], board["now_ns"], names, width)
        if name == "money":
            return _drawn(lambda: top_text.account(board, width))
        return self._market_lines(width, height)

    def _market_lines(self, width: int, height: int) -> list[Line]:
        if self._table.chosen == ALL:
            return top_text.wrapped("no single market is chosen: the arrows choose one, Enter shows it whole", width, DIM)
        detail = self.look.detail_of(self._table.chosen)
        if detail is None:
            return top_text.wrapped(self.look.detail_fault or "asking", width, WARN if self.look.detail_fault else DIM)
        return _drawn(lambda: top_text.market(detail, width, height))

    def _draw_foot(self) -> None:
        width = self.size.width
        words, found = self._scope()
        scope: Line = (("acts on ", LABEL), (clip_middle(words, max(10, width - 9)), STRONG if found else BAD))
        self._parts["scope"].show([scope], self.look.stale and self.look.board is not None)
        said, style = self._said if time.monotonic() - self._said_at < SAID_SECONDS else ("", PLAIN)
        waiting = len(self.look.board["intents"]) if self.look.board is not None else 0
        keys = top_help.key_line(width, waiting)
        self._parts["keys"].show([((clip(said, width), style),) if said else keys])

    # What the keys act on.

    def _scope(self) -> tuple[str, list[Row]]:
        """In words, and the markets; none: there is nothing to act on."""
        if self.look.board is None:
            return "nothing: no daemon answers", []
        rows = self.look.board["rows"]
        if self._table.chosen == ALL:
            hidden = len(rows) - len(self._shown())
            return top_help.scope_words(rows, None) + (f", {hidden} of them hidden by the filter" if hidden else ""), rows
        chosen = [row for row in rows if row["market_id"] == self._table.chosen]
        return (top_help.scope_words(rows, chosen[0]), chosen) if chosen else ("nothing: the chosen market is gone", [])

    def say(self, text: str, style: str) -> None:
        """The answer to a key, in the place of the keys for a while."""
        self._said, self._said_at = (clean(text), style), time.monotonic()
        self._draw_foot()

    def action_act(self, verb: str) -> None:
        """Do it to what is chosen, at once."""
        words, rows = self._scope()
        if rows or self._table.chosen == ALL:
            self._act(verb, self._table.chosen)
        else:
            self.say(f"{verb}: {words}", WARN)

    def _act(self, verb: str, chosen: str, **extra: Any) -> None:
        """Do it to what was chosen when it was asked; the answer is shown."""
        args = extra | ({} if chosen == ALL else {"market": chosen})
        self.run_worker(self._acted(verb, args, f"{verb.replace('_', '-')} {self._called(chosen)}"))

    async def _acted(self, verb: str, args: dict[str, Any], name: str) -> None:
        self.say(f"asked: {name}", WARN)
        done, words = await self.look.act(verb, args)
        if verb == "kill" and not done:
            words += f"; without the socket: touch {self.look.home / 'KILL'}"
        self.say(f"done: {name}" if done else f"{name} {words}", "bold reverse #57ab5a" if done else "bold reverse #f47067")
        self._hurry.set()

    def _called(self, market: str) -> str:
        rows = self.look.board["rows"] if self.look.board is not None else []
        if market == ALL:
            return "ALL"
        return next((top_text.called(market, row["question"]) for row in rows if row["market_id"] == market), market)

    # Questions. What was chosen when the question came is what the answer is about.

    def _ask(self, question: Ask, answered: Callable[[str], None]) -> None:
        if len(self.screen_stack) == 1:  # one at a time, however fast the keys come
            self.push_screen(question, lambda answer: answered(answer) if answer else None)

    def _asked_of(self) -> tuple[Board, str, list[Row]] | None:
        """What a question speaks of; None: there is nothing, which is said."""
        words, rows = self._scope()
        if self.look.board is None or not (rows or self._table.chosen == ALL):
            self.say(words, WARN)
            return None
        return self.look.board, words, rows

    def action_ask_cancel(self) -> None:
        """Cancel, after a yes."""
        if (of := self._asked_of()) is not None:
            chosen, (board, words, rows) = self._table.chosen, of
            self._ask(Ask(lambda w: top_help.ask_cancel(board, rows, words, w), "y"), lambda _: self._act("cancel_all", chosen))

    def action_ask_resume(self) -> None:
        """Resume, after a yes."""
        if (of := self._asked_of()) is not None:
            chosen, (board, words, _) = self._table.chosen, of
            self._ask(Ask(lambda w: top_help.ask_resume(board, words, w), "y"), lambda _: self._act("resume", chosen))

    def action_ask_flatten(self) -> None:
        """Leave, after the cost was said."""
        if (of := self._asked_of()) is not None:
            chosen, (board, words, rows), detail = self._table.chosen, of, self.look.detail_of(self._table.chosen)
            row = None if chosen == ALL else rows[0]
            question = Ask(lambda w: top_help.ask_flatten(board, row, detail, words, w), "mt")
            self._ask(question, lambda answer: self._act("flatten", chosen, **({"take": True} if answer == "t" else {})))

    def action_ask_kill(self) -> None:
        """End the daemon, after the word was typed."""
        board = self.look.board
        if board is None:
            self.say(f"nothing answers; `touch {self.look.home / 'KILL'}` ends a daemon whose socket is dead", WARN)
        else:
            self._ask(Ask(lambda w: top_help.ask_kill(board, w), word="kill"), lambda _: self._act("kill", ALL))

    def action_ask_approve(self) -> None:
        """Let a wish go ahead, after a yes."""
        waiting = list(self.look.board["intents"]) if self.look.board is not None else []
        if waiting:
            self._ask_wish(waiting, 0)
        else:
            self.say("nothing waits for approval", DIM)

    def _ask_wish(self, waiting: list[dict[str, Any]], i: int) -> None:
        intent, told = waiting[i], f"{i + 1} of {len(waiting)}"
        name = self._called(str(intent.get("market_id", "")))

        def answered(answer: str) -> None:
            if answer == "y":
                self._act("approve", ALL, intent_id=str(intent.get("intent_id", "")))
            else:
                self._ask_wish(waiting, (i + 1) % len(waiting))

        self._ask(Ask(lambda w: top_help.ask_approve(intent, told, name, w), "yn"), answered)

    # Pages, panes, the cursor.

    def _page(self, title: str, body: Callable[[int], list[Line]]) -> None:
        def source(width: int) -> tuple[Line, list[Line], bool]:
            said = f"STALE, no answer for {age(self.look.age_seconds)}" if self.look.stale else "live"
            return titled(title, said), _drawn(lambda: body(width)), self.look.stale

        self.push_screen(Page(source))

    def action_why(self) -> None:
        """The whole gate chain of the chosen market; of all: what stands still."""
        if self._table.chosen == ALL:
            self._page("not quoted, and why", lambda w: top_table.still(self.look.board["rows"] if self.look.board else [], w))
        else:
            self._page("why", lambda w: self._why_lines())

    def _why_lines(self) -> list[Line]:
        detail = self.look.detail_of(self._table.chosen)
        if detail is None:
            return [((self.look.detail_fault or "asking", WARN),)]
        kind = {"simulated": self.look.board is not None and self.look.board["simulated"]}
        return [((line, PLAIN),) for line in tables.why_lines({**detail["why"], **kind})]

    def action_whole(self) -> None:
        """All that is known of what is chosen."""
        self._page("account" if self._table.chosen == ALL else "market", self._whole)

    def _whole(self, width: int) -> list[Line]:
        if self.look.board is None:
            return self._head(width)
        names = {row["market_id"]: top_text.called(row["market_id"], row["question"]) for row in self.look.board["rows"]}
        if self._table.chosen == ALL:
            heading: Line = (("what happened", LABEL),)
            return [
                *top_text.account(self.look.board, width),
                (),
                heading,
                *top_text.stream(list(self.look.entries), names, width, ENTRIES),
            ]
        detail = self.look.detail_of(self._table.chosen)
        return [((self.look.detail_fault or "asking", WARN),)] if detail is None else top_text.whole(detail, names, width)

    def action_help(self) -> None:
        """Every key."""
        self._page("keys and words", top_help.help_lines)

    def action_pane(self, by: int) -> None:
        """The next pane."""
        self._pane = PANES[(PANES.index(self._pane) + by) % len(PANES)]
        self.draw()
        self.call_after_refresh(self.draw)

    def action_scroll_pane(self, by: int) -> None:
        """What is longer than its place."""
        self._parts[self._pane].scroll_lines(by)

    def action_move(self, by: int) -> None:
        """Choose another row."""
        self._table.move(by)

    def action_move_page(self, by: int) -> None:
        """Choose a row a page away."""
        self._table.move(by * self._table.page())

    @on(Table.Chosen)
    def _chosen(self) -> None:
        self._parts["market"].top = 0
        self._hurry_detail.set()
        self._draw_foot()
        if self.look.board is not None:
            self._draw_panes(self.look.board)

    # The filter.

    def action_filter(self) -> None:
        """Type letters of a market."""
        field = self.query_one("#filter", Input)
        self._parts["keys"].display, field.display = False, True
        field.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._filter = event.value.strip()
        keys = [row["market_id"] for row in self._shown()]
        if self._table.chosen not in (ALL, *keys):
            # What the keys act on is never out of sight.
            self._table.chosen = keys[0] if keys else ALL
            self._hurry_detail.set()
        self.draw()

    @on(Input.Submitted, "#filter")
    def action_leave_filter(self) -> None:
        """Back to the table with what was typed."""
        field = self.query_one("#filter", Input)
        self._parts["keys"].display, field.display = True, False
        self.set_focus(None)

    def action_unfilter(self) -> None:
        """All markets again."""
        self.query_one("#filter", Input).value = ""
        self.action_leave_filter()


def _drawn(draw: Callable[[], list[Line]]) -> list[Line]:
    """A part whose answer has another shape than this version knows is one line, not the end of the screen."""
    try:
        return draw()
    except VIEW_FAULTS as fault:
        return [((f"cannot be drawn: {type(fault).__name__}: {clean(str(fault))}", BAD),)]
