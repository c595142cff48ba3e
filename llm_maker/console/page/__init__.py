"""The page: one document of markup, style and script that holds no data and asks nobody but the daemon that served it."""

from __future__ import annotations

from importlib import resources

_SCRIPTS = ("words.js", "charts.js", "wire.js", "money.js", "markets.js", "market.js", "stream.js", "acts.js", "page.js")
"""In the order in which they are read: each knows those before it."""


def page_text() -> str:
    """The whole document, with exactly one inline `<style>` and one inline `<script>`, no attribute that is either."""
    folder = resources.files(__package__)

    def text(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    script = '"use strict";\n(() => {\n' + "\n".join(map(text, _SCRIPTS)) + "})();\n"
    return text("page.html").replace("/*style*/", text("page.css")).replace("/*script*/", script)
