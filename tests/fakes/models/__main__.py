"""The fake model server by hand: `python -m tests.fakes.models --port 8123 --script "500*3,slow=2,429=30"`.

Prints its base URLs (OpenAI's first), serves until interrupted, and says what each request was and what became of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.fakes.models.faults import STEPS
from tests.fakes.models.server import ModelServer, parse_script


async def _serve(port: int, script: list[str], hang_s: float) -> None:
    # Any key will do by hand; a person's own must not be called wrong.
    async with ModelServer([*script], port=port, hang_s=hang_s, key=None, keep=100) as server:
        _say(server.openai_url)
        _say(f"anthropic and gemini: {server.root}")
        said = 0
        while True:
            await asyncio.sleep(0.2)
            if server.requests > said:
                said = server.requests
                _say(f"{said} requests; last: {server.seen[-1].wire} {server.seen[-1].model}; {_last(server)}")
            while server.violations:
                _say(f"  objection: {server.violations.pop(0)}")


def _last(server: ModelServer) -> str:
    if not server.bill:
        return "nothing billed"
    row = server.bill[-1]
    return f"last billed: {row.step}, input {row.input} (cached {row.cached}), output {row.output}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="", help=f"steps, comma separated, with =VALUE and *N: {', '.join(STEPS)}")
    parser.add_argument("--hang", type=float, default=30.0, help="seconds that hang and drip take")
    args = parser.parse_args()
    try:
        asyncio.run(_serve(args.port, parse_script(args.script), args.hang))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
