"""The fake model server with one fixed usage: the same public face over `tests.fakes.models`, and the steps of one text each.

Each request takes the next step of the script; after its end every answer is `ok`. Run by hand:
`python -m tests.fakes.model_server --port 8123 --script "500*3,ok"` prints its base URL and serves until interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.fakes import models
from tests.fakes.models import HANDLE, THROWAWAY_KEY, Seen, Usage, parse_script
from tests.fakes.models.__main__ import main

STEPS = (
    "ok", "seed", "fenced", "bare_list", "garbage", "prose", "truncated", "refusal",
    "filtered", "nan", "wrong_handle", "duplicate_keys", "empty_text", "no_signals", "400", "schema_400",
    "object_400", "401", "402", "403", "404", "413", "429", "429_quota",
    "500", "503", "529", "307", "hang", "drip", "reset", "empty_body",
    "html", "huge", "not_completion", "billed", "ticks", "no_usage",
)  # fmt: skip
"""Those that every client of chat completions must survive; `models.STEPS` has all."""

FIXED = Usage(input=6000, output=1000, cached=2000, reasoning=300)


@dataclass
class ModelServer(models.ModelServer):
    """`async with ModelServer(["500"]) as server:` then `server.url` is the base URL, `server.seen` what was sent."""

    usage: Usage | None = FIXED


__all__ = ["HANDLE", "STEPS", "THROWAWAY_KEY", "ModelServer", "Seen", "main", "parse_script"]

if __name__ == "__main__":
    main()
