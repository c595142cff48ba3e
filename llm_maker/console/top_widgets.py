"""The widgets of `top`: lines that repaint only what changed, a table with a cursor, a page to read, a question to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.geometry import Region
from textual.message import Message
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from llm_maker.console.top_text import DIM, LABEL, PLAIN, STRONG, Line, fitted, plain, width_of

PALE = "#6e7681"
CURSOR = "on #1f3a5f"


STYLES = """
Screen { background: #0d1117; color: #d1d7e0; }
Lines, Table { height: 1; }
#table { height: 1fr; }
#tabs, #scope { background: #161b22; }
#low { height: 1fr; }
#market { width: 1fr; height: 1fr; }
#side { width: 1fr; }
#side > * { height: 1fr; }
#filter { display: none; height: 1; background: #161b22; }
.wide .pane { border: round #444c56; border-title-color: #6cb6ff; padding: 0 1; }
.wide #market { width: 3fr; }
.wide #side { width: 2fr; }
.wide #stream { height: 2fr; }
Page, Ask { align: center middle; background: #0d1117 70%; }
#page { background: #0d1117; border: round #6cb6ff; padding: 0 1; }
#page-body { height: 1fr; }
#page-title, #page-foot { height: 1; }
#ask { width: 72; max-width: 96%; height: auto; max-height: 96%; background: #161b22; border: round #daaa3f; padding: 0 1; }
#ask-word { margin-top: 1; }
"""


class Lines(Widget):
    """Styled lines; `show` sends to the terminal no more of a line than what changed. Longer than the widget: `scroll_lines`."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.lines: list[Line] = []
        self.top = 0
        self.pale = False
        """What is no longer true is drawn in grey, whatever its style."""

    def show(self, lines: list[Line], pale: bool = False) -> None:
        """Put these in the place of those."""
        before, self.lines = self.lines, lines
        if pale is not self.pale or self._settle():
            self.pale = pale
            self.refresh()
            return
        self.repaint(before, lines)

    def repaint(self, before: list[Line], after: list[Line]) -> None:
        """Refresh the parts that differ."""
        regions = []
        for y in range(self.content_size.height):
            old, new = self.shown(before, y), self.shown(after, y)
            if old != new:
                start, end = _changed(old, new, self.content_size.width)
                regions.append(Region(start, y, end - start, 1))
        if regions:
            self.refresh(*regions)

    def shown(self, lines: list[Line], y: int) -> Line:
        """What stands in line `y` of the widget."""
        return _at(lines, self.top + y)

    def scroll_lines(self, by: int) -> None:
        """Down by so many lines, as far as there are any."""
        before = self.top
        self.top += by
        self._settle()
        if self.top != before:
            self.refresh()

    def _settle(self) -> bool:
        top = max(0, min(self.top, len(self.lines) - self.content_size.height))
        moved, self.top = top != self.top, top
        return moved

    def render_line(self, y: int) -> Strip:
        """One line of the widget as the terminal gets it."""
        width = self.content_size.width
        spans = fitted(self.shown(self.lines, y), width)
        segments = [Segment(text, self._style(style)) for text, style in spans]
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _style(self, style: str) -> Style:
        return self.rich_style + Style.parse(PALE if self.pale else style or "none")


def _at(lines: list[Line], i: int) -> Line:
    return lines[i] if 0 <= i < len(lines) else ()


def _letters(line: Line, width: int) -> Iterator[tuple[str, str]]:
    letters = [(letter, style) for text, style in line for letter in text]
    yield from letters[:width]
    yield from ((" ", PLAIN) for _ in range(width - len(letters)))


def _changed(old: Line, new: Line, width: int) -> tuple[int, int]:
    """The first cell that differs and the one after the last; all of them where letters and cells are not the same thing."""
    if not (plain(old).isascii() and plain(new).isascii()):
        return 0, width
    differ = [i for i, (a, b) in enumerate(zip(_letters(old, width), _letters(new, width), strict=True)) if a != b]
    return (differ[0], differ[-1] + 1) if differ else (0, 1)


class Table(Lines):
    """A heading that stays, then rows by key, one of them chosen: the choice follows its key, wherever the row goes."""

    class Chosen(Message):
        """Another row was chosen."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.keys: list[str] = []
        self._heading: Line = ()
        self._rows: list[Line] = []
        self._painted = 0
        self.chosen = ""
        """A key; it may have left the table, and then nothing is chosen."""

    @property
    def _room(self) -> int:
        return max(1, self.content_size.height - 1)

    def show_rows(self, heading: Line, keys: list[str], rows: list[Line], pale: bool = False) -> None:
        """Put these in the place of those; the chosen one stays at its height on the screen."""
        if self.chosen in self.keys and self.chosen in keys:
            self.top += keys.index(self.chosen) - self.keys.index(self.chosen)
        self.keys, self._heading, self._rows = keys, heading, rows
        self._paint(pale)

    def _paint(self, pale: bool) -> None:
        width = self.content_size.width
        marked = [_mark(row, width) if key == self.chosen else row for key, row in zip(self.keys, self._rows, strict=True)]
        before, top, self.lines = self.lines, self._painted, [self._heading, *marked]
        self._settle()
        self._painted = self.top
        if pale is not self.pale or top != self.top or len(before) != len(self.lines):
            self.pale = pale
            self.refresh()
        else:
            self.repaint(before, self.lines)

    def shown(self, lines: list[Line], y: int) -> Line:
        """The heading does not scroll."""
        return _at(lines, self.top + y if y else 0)

    def _settle(self) -> bool:
        at = self.keys.index(self.chosen) if self.chosen in self.keys else None
        top = max(0, min(self.top, len(self.keys) - self._room))
        if at is not None:
            top = min(max(top, at - self._room + 1), at)
        moved, self.top = top != self.top, top
        return moved

    def choose(self, key: str) -> None:
        """Another row."""
        if key == self.chosen or key not in self.keys:
            return
        self.chosen = key
        self._paint(self.pale)
        self.post_message(self.Chosen())

    def move(self, by: int) -> None:
        """So many rows down, at most to the ends."""
        if self.keys:
            at = self.keys.index(self.chosen) if self.chosen in self.keys else -by if by > 0 else 0
            self.choose(self.keys[max(0, min(len(self.keys) - 1, at + by))])

    def page(self) -> int:
        """How many rows a page key moves."""
        return max(1, self._room - 1)

    def on_click(self, event: events.Click) -> None:
        """The row under the pointer."""
        i = self.top + event.y - 1
        if event.y > 0 and 0 <= i < len(self.keys):
            self.choose(self.keys[i])

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the choice."""
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the choice."""
        self.move(-3)


def _mark(row: Line, width: int) -> Line:
    """A sign and a ground: the choice is seen without colours too."""
    spans: Line = ((">", STRONG), *row[1:], (" " * max(0, width - width_of(row)), PLAIN))
    return tuple((text, f"{style} {CURSOR}") for text, style in spans)


class Page(ModalScreen[None]):
    """Something to read over the whole screen; `source` is asked again with every picture. Any of its keys leads back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *((key, "dismiss", "back") for key in ("escape", "q", "enter", "w", "question_mark", "left")),
        ("down", "scroll(1)", "down"),
        ("up", "scroll(-1)", "up"),
        ("pagedown,space", "scroll(20)", "page down"),
        ("pageup", "scroll(-20)", "page up"),
        ("home", "scroll(-99999)", "top"),
        ("end", "scroll(99999)", "end"),
    ]

    def __init__(self, source: Callable[[int], tuple[Line, list[Line], bool]]) -> None:
        super().__init__()
        self._source = source
        self._title, self._body, self._foot = Lines("page-title"), Lines("page-body"), Lines("page-foot")

    def compose(self) -> ComposeResult:
        """A title, the text, how to leave."""
        with Vertical(id="page"):
            yield self._title
            yield self._body
            yield self._foot

    def on_resize(self) -> None:
        """Drawn again for the new width, once it is known to all."""
        self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """The text as it is now: (title, lines, whether they are stale)."""
        title, lines, pale = self._source(self._body.content_size.width)
        self._title.show([title])
        self._body.show(lines, pale)
        more = len(lines) > self._body.content_size.height
        self._foot.show([(("Esc back" + ("   arrows, PageDown: more" if more else ""), DIM),)])

    def action_scroll(self, by: int) -> None:
        """So many lines down."""
        self._body.scroll_lines(by)

    async def action_dismiss(self, result: None = None) -> None:
        """Back to the table."""
        self.dismiss(None)


class Ask(ModalScreen[str]):
    """A question that says what will happen. Answers the key that was pressed, or the word that was typed; else nothing."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "answer('')", "no")]

    def __init__(self, lines: Callable[[int], list[Line]], keys: str = "", word: str = "") -> None:
        super().__init__()
        assert bool(keys) is not bool(word), "a key or a word"
        self._lines, self._keys, self._word = lines, keys, word
        self._text = Lines("ask-text")

    def compose(self) -> ComposeResult:
        """The question, and where a word is typed."""
        with Vertical(id="ask"):
            yield self._text
            if self._word:
                yield Input(id="ask-word", compact=True)

    def on_resize(self) -> None:
        """Drawn again for the new width."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        lines = self._lines(self._text.content_size.width)
        self._text.styles.height = len(lines)
        self._text.show(lines)

    def on_key(self, event: events.Key) -> None:
        """A key that is none of the answers is no."""
        if not self._word:
            event.stop()
            self.dismiss(event.character if event.character and event.character in self._keys else "")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Another word is no."""
        self.dismiss(self._word if event.value.strip() == self._word else "")

    def action_answer(self, answer: str) -> None:
        """Leave with this answer."""
        self.dismiss(answer)


def titled(words: str, said: str) -> Line:
    """A page's first line."""
    return ((words, LABEL), ("  ", PLAIN), (said, DIM))
