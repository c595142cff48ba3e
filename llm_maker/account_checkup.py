"""Polymarket as `doctor` looks at it with a key: the wallet, the API key, what rests, the money, and the way to merge.

It changes nothing anywhere, but that an API key may be made or derived as a start would do it. What it says holds no secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from llm_maker.checkup import LIMIT_S, NETWORK, Check, Tell, bounded, fields
from llm_maker.config import Config
from llm_maker.core.values import CASH_PER_USD, usd
from llm_maker.keys import API_SECRETS, Secrets
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.auth import Credentials, Wallet, WalletKind
from llm_maker.venues.polymarket.chain import transactions, wallets
from llm_maker.venues.polymarket.chain.relayer import NO_KEY, Relayer, relayer_key
from llm_maker.venues.polymarket.chain.rpc import Rpc
from llm_maker.venues.polymarket.orders.drafts import EXCHANGES
from llm_maker.venues.polymarket.orders.sign import Signer
from llm_maker.venues.polymarket.rest import Clob

GAS_WARNING = 10**17
"""0.1 POL, in the chain's smallest unit: dozens of merges."""
WITH_API_KEY = ("standing", "orders", "money")
WITH_WALLET = ("contract", "api key", *WITH_API_KEY, "selling", "merges")


async def examine(config: Config, secrets: Secrets, pace: Pace, tell: Tell, known: Collection[str], *, running: bool) -> None:
    """What only a key can ask. `known`: venue ids of our own orders; `running`: a daemon of ours is at work on this home."""
    key, address = secrets.get("LLM_MAKER_PK"), secrets.get("LLM_MAKER_BROWSER_ADDRESS")
    if not key or not address:
        names = " and ".join(n for n, v in (("LLM_MAKER_PK", key), ("LLM_MAKER_BROWSER_ADDRESS", address)) if not v)
        _skip(tell, ("key", "wallet", *WITH_WALLET), f"no key: {names} not set; none is needed for paper money")
        return
    try:
        signer = Signer(key)
    except ValueError as error:
        tell(Check("key", "failed", f"LLM_MAKER_PK: {error}", "export the private key again and put it into .env"))
        _skip(tell, ("wallet", *WITH_WALLET), "the key is not usable")
        return
    tell(Check("key", "ok", f"its address is {signer.address}"))
    found = wallets.detect(signer.address, address, config.polymarket.signature_type)
    if isinstance(found, wallets.Problem):
        tell(Check("wallet", "failed", found.text, found.cure))
        _skip(tell, WITH_WALLET, "the wallet is not known")
        return
    tell(Check("wallet", "ok", f"{found.maker} is this key's {wallets.kind_name(found.kind)}"))
    limit = config.polymarket.request_timeout_seconds
    rpc = Rpc(config.polymarket.hosts.rpc, pace, timeout=limit)
    clob = Clob(config.polymarket.hosts.clob, pace, timeout=limit)
    try:
        tell(await bounded("contract", _contract(rpc, found), pace))
        made = await credentials(config, secrets, clob, signer, pace)
        if isinstance(made, Check):
            tell(made)
            _skip(tell, WITH_API_KEY, "there is no API key to ask with")
        else:
            clob.credentials = made
            tell(await bounded("api key", _accepted(clob, made), pace))
            tell(await bounded("standing", _standing(clob), pace))
            tell(await bounded("orders", _orders(clob, made, known, running=running), pace))
            tell(await bounded("money", _money(clob, found, config), pace))
        tell(await bounded("selling", _selling(found, rpc), pace))
        tell(await bounded("merges", _merges(config, secrets, found, rpc, pace), pace))
    finally:
        await rpc.close()
        await clob.close()


def _skip(tell: Tell, names: tuple[str, ...], why: str) -> None:
    for name in names:
        tell(Check(name, "skipped", why))


async def credentials(config: Config, secrets: Secrets, clob: Clob, signer: Signer, pace: Pace) -> Credentials | Check:
    """The API key, as a start would get it."""
    told = [secrets.get(name) for name in API_SECRETS]
    given = (str(told[0]), str(told[1]), str(told[2])) if all(told) else None
    try:
        async with asyncio.timeout(pace.wall(LIMIT_S)):
            found = await wallets.credentials(clob, signer, config.polymarket.api_key_nonce, given, pace)
    except TimeoutError:
        return Check("api key", "failed", f"no API key within {LIMIT_S:g}s", NETWORK)
    return Check("api key", "failed", found.text, found.cure) if isinstance(found, wallets.Problem) else found


async def _contract(rpc: Rpc, wallet: Wallet) -> Check:
    if wallet.kind is WalletKind.EOA:
        return Check("contract", "ok", "a plain key needs none")
    found = await wallets.deployed(rpc, wallet.maker)
    if isinstance(found, wallets.Problem):
        return Check("contract", "failed", found.text, found.cure)
    if found:
        return Check("contract", "ok", f"the {wallets.kind_name(wallet.kind)} exists on the chain")
    text = f"the {wallets.kind_name(wallet.kind)} {wallet.maker} does not exist on the chain yet"
    return Check("contract", "failed", text, "log in on the site with this account and make one deposit or trade there")


async def _accepted(clob: Clob, ours: Credentials) -> Check:
    reply = await clob.private("GET", "/auth/api-keys")
    keys = fields(reply).get("apiKeys")
    if reply.status in (401, 403):
        cure = "leave LLM_MAKER_API_* out to have the key derived, and check this machine's clock"
        return Check("api key", "failed", f"the venue does not take our API key: {reply.error}", cure)
    if not isinstance(keys, list):
        return Check("api key", "failed", f"the venue does not list our API keys: {reply.error or 'no list'}", "try again later")
    if ours.key not in keys:
        return Check("api key", "failed", "our API key is not among this account's", "set another polymarket.api_key_nonce")
    return Check("api key", "ok", f"accepted; this account has {len(keys)}")


async def _standing(clob: Clob) -> Check:
    reply = await clob.private("GET", "/auth/ban-status/closed-only")
    closed = fields(reply).get("closed_only")
    if closed is False:
        return Check("standing", "ok", "the account may trade")
    if closed is True:
        text = "the venue lets this account only close positions"
        return Check("standing", "failed", text, "write to the venue's support; stay in paper mode")
    return Check("standing", "failed", f"whether the account may trade is not known: {reply.error or 'no word'}", "try again later")


async def _orders(clob: Clob, ours: Credentials, known: Collection[str], *, running: bool) -> Check:
    """Orders under our API key that we did not place: the heartbeat's end would cancel them with ours (`polymarket.md` 2.4)."""
    rows, reply = await clob.pages("/data/orders")
    if not reply.ok:
        return Check("orders", "failed", f"what rests is not known: {reply.error}", "try again later")
    try:
        open_orders = [msgspec.json.decode(row, type=_Open) for row in rows]
    except msgspec.DecodeError as error:
        return Check("orders", "failed", f"what rests cannot be read: {error}", "try again later")
    under_ours = [order for order in open_orders if order.owner == ours.key]
    strange = [order.id for order in under_ours if order.id.lower() not in known]
    if not strange:
        rest = f"; {len(open_orders) - len(under_ours)} under other keys, which we leave alone" if open_orders != under_ours else ""
        return Check("orders", "ok", f"nothing foreign rests under our API key{rest}")
    text = f"{len(strange)} orders rest under our API key, first {strange[0]}"
    if running:
        return Check("orders", "warning", f"{text}; a daemon works on this home, so they may be its own")
    cure = "the heartbeat cancels all of them: cancel them, or give this program a key of its own (polymarket.api_key_nonce)"
    return Check("orders", "failed", f"{text}, not known to this home", cure)


async def _money(clob: Clob, wallet: Wallet, config: Config) -> Check:
    query = {"asset_type": "COLLATERAL", "signature_type": str(int(wallet.kind))}
    reply = await clob.private("GET", "/balance-allowance", query=query)
    told = fields(reply)
    allowances = told.get("allowances")
    try:
        balance = int(told.get("balance", ""))
        allowed = {name.lower(): int(amount) for name, amount in allowances.items()} if isinstance(allowances, dict) else None
    except ValueError:
        balance, allowed = -1, None
    if balance < 0 or allowed is None:
        return Check("money", "failed", f"balance and allowances are not known: {reply.error or 'no numbers'}", "try again later")
    missing = [route for route in transactions.ROUTES if allowed.get(EXCHANGES[route].lower(), 0) < balance]
    if balance == 0:
        return Check("money", "failed", f"the wallet {wallet.maker} holds no pUSD", "deposit on the site, or correct the address")
    if missing:
        text = f"the exchange may not take pUSD for markets of route {' and '.join(missing)}"
        return Check("money", "failed", text, "allow it once on the site: place one order there in such a market")
    bankroll = config.risk.bankroll_usd
    if bankroll is not None and balance < bankroll * CASH_PER_USD:
        text = f"{usd(balance):,.2f} pUSD is less than risk.bankroll_usd ({bankroll:,.2f})"
        return Check("money", "warning", text, "deposit, or lower risk.bankroll_usd: limits are shares of it")
    return Check("money", "ok", f"{usd(balance):,.2f} pUSD, and both exchanges may take it")


async def _selling(wallet: Wallet, rpc: Rpc) -> Check:
    """Whether the exchanges may take our shares: without it every exit is refused with `not enough balance / allowance`."""
    for name, call in await asyncio.to_thread(transactions.selling_calls, wallet.maker):
        answer = await rpc.words(call.to, call.data)
        if not answer.ok:
            text = f"whether shares can be sold is not known: {answer.error}"
            return Check("selling", "warning", text, "set polymarket.hosts.rpc to another Polygon node")
        if not any(answer.result):
            text = f"{name} may not take the wallet's shares: what is bought there cannot be sold"
            return Check("selling", "failed", text, "allow it once on the site: sell something there in such a market")
    return Check("selling", "ok", "both exchanges may take our shares")


async def _merges(config: Config, secrets: Secrets, wallet: Wallet, rpc: Rpc, pace: Pace) -> Check:
    """Whether complete sets can be turned back into cash; without it quoting goes on, but binds more of it."""
    for name, call in await asyncio.to_thread(transactions.approval_calls, wallet.maker):
        answer = await rpc.words(call.to, call.data)
        if not answer.ok:
            return Check(
                "merges", "warning", f"whether sets can be merged is not known: {answer.error}", "set polymarket.hosts.rpc"
            )
        if not any(answer.result):
            text = f"{name} may not move the wallet's shares: merges there will fail"
            return Check("merges", "warning", text, "allow it once on the site: sell or merge there in such a market")
    if wallet.kind is WalletKind.EOA:
        gas = await rpc.number("eth_getBalance", wallet.signer, "latest")
        if gas.ok and gas.result >= GAS_WARNING:
            return Check("merges", "ok", f"the key has {gas.result / 10**18:.2f} POL to pay for them")
        text = f"the key has {gas.result / 10**18:.3f} POL to pay for them" if gas.ok else f"its POL is not known: {gas.error}"
        return Check("merges", "warning", text, f"send POL to {wallet.signer}")
    key = relayer_key(secrets.get)
    if isinstance(key, str):
        return Check("merges", "failed", key, "complete them in .env, or take them out")
    if key is None:
        what, _, cure = NO_KEY.partition(": ")
        return Check("merges", "warning", f"no relayer key: {what}", cure)
    relayer = Relayer(config.polymarket.hosts.relayer, pace, key, timeout=config.polymarket.request_timeout_seconds)
    try:
        told = await relayer.find("0x" + "00" * 32)
    finally:
        await relayer.close()
    if told is not None:
        cure = "check the network; if it stays, make a new relayer key on the site"
        return Check("merges", "failed", f"the relayer does not answer to our key: {told.error}", cure)
    return Check("merges", "ok", "the relayer takes our key, and the adapters may move our shares")


class _Open(msgspec.Struct):
    id: str
    owner: str = ""
