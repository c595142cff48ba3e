"""Run the fake Polymarket as a process: prints what a config needs, then serves until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.fakes.polymarket.faults import KINDS as FAULTS
from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.server import FakePolymarket
from tests.fakes.polymarket.setup import KINDS, THROWAWAY_KEY, some_house, throwaway_account


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.polymarket", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markets", type=int, default=3)
    parser.add_argument("--speed", type=float, default=1.0, help="venue seconds in one of the wall")
    parser.add_argument("--kind", choices=sorted(KINDS), default="eoa", help="of the throwaway account's wallet")
    parser.add_argument("--nonce", type=int, default=1, help="of its API key")
    parser.add_argument("--cash", type=int, default=10_000, help="pUSD it has")
    parser.add_argument("--no-limits", action="store_true", help="no rate limits")
    parser.add_argument("--storm", action="store_true", help="bad weather, hour after hour")
    parser.add_argument("--level", type=int, choices=(1, 2, 3), default=1, help="how bad")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND[=SHARE]", help=f"one of {', '.join(FAULTS)}")
    args = parser.parse_args()
    try:
        asyncio.run(_serve(args))
    except KeyboardInterrupt:
        return
    except OSError as error:
        sys.exit(f"port {args.port}: {error.strerror}")


async def _serve(args: argparse.Namespace) -> None:
    now_ms = time.time_ns() // 1_000_000
    account = throwaway_account(KINDS[args.kind], nonce=args.nonce, cash=args.cash)
    house = some_house(args.seed, markets=args.markets, now_ms=now_ms, accounts=[account])
    faults = Faults(args.seed)
    for each in args.fault:
        kind, _, share = each.partition("=")
        faults.on(kind, float(share or 1))
    venue = FakePolymarket(house, faults, speed=args.speed, rate_limits=not args.no_limits)
    await venue.start(args.port)
    hosts = "\n".join(f"    {name}: {url}" for name, url in venue.hosts.items())
    sys.stdout.write(
        f"# fake Polymarket, seed {args.seed}, {args.markets} markets, speed {args.speed:g}\n"
        f"# LLM_MAKER_PK={THROWAWAY_KEY}  (throwaway)\n"
        f"# LLM_MAKER_BROWSER_ADDRESS={account.maker}\n"
        f"polymarket:\n  signature_type: {args.kind}\n  api_key_nonce: {args.nonce}\n  hosts:\n{hosts}\n"
    )
    sys.stdout.flush()
    number = 0
    while True:
        if args.storm:
            faults.play(Faults.storm(args.seed + number, args.level), venue.now_ms())
        number += 1
        await venue.pause(3_600)


if __name__ == "__main__":
    main()
