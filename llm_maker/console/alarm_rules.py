"""What each code of `logs/daemon.jsonl` means to a person, what the daemon does by itself, and what helps: one table. Pure data."""

from __future__ import annotations

import msgspec


class Rule(msgspec.Struct, frozen=True):
    """What a code of `logs/daemon.jsonl` means to a person."""

    title: str
    """What it means, in one line."""
    does: str
    """What the daemon does by itself."""
    cure: str
    """What the person does: the command that helps first. MARKET stands for the market that it is about."""
    sent: bool = True
    """False: shown, but sent to nobody."""
    always: bool = False
    """Sent whatever `alerts.level` says."""


def _shown(title: str, does: str, cure: str) -> Rule:
    return Rule(title, does, cure, sent=False)


_LIMIT = "pulls every quote and stands still"
_RESUME = "`llm-maker resume`"
_WHY = "`llm-maker why MARKET`"
_DONE = "a person, or their program, did it: nothing"
_BOOKED = "booked by what the venue told; compare with the site"
_MACHINE = "`llm-maker doctor`; the disk (`df -h .`)"

_LIMITS = {
    "halt_kill": Rule(
        "somebody pressed kill",
        "cancels all of ours, proves it, ends",
        "`rm KILL` in the home if it was that file; `llm-maker run`, then `llm-maker resume`, when you want it back",
    ),
    "halt_daily_loss": Rule(
        "the day's loss limit is passed",
        f"{_LIMIT} until 00:00 UTC",
        "`llm-maker report`: find out why; it goes on by itself the next UTC day",
    ),
    "halt_weekly_loss": Rule(
        "the week's loss limit is passed",
        f"{_LIMIT} until Monday 00:00 UTC",
        "`llm-maker report`: find out why; it goes on by itself next Monday",
    ),
    "halt_monthly_loss": Rule(
        "the month's loss limit is passed",
        f"{_LIMIT} until a person resumes",
        f"`llm-maker report`: find out why, then {_RESUME}; the limit counts from there",
    ),
    "halt_drawdown": Rule(
        "the account is too far below its highest",
        f"{_LIMIT} until a person resumes",
        f"`llm-maker report`: find out why, then {_RESUME}; the highest counts from there",
    ),
    "halt_daily_loss_over": Rule("the day's halt has run out", "trades again", "`llm-maker status`; nothing to do"),
    "halt_weekly_loss_over": Rule("the week's halt has run out", "trades again", "`llm-maker status`; nothing to do"),
    "exit_stop": Rule(
        "a stop-loss", "leaves as maker; crosses after `risk.exit_patience_seconds`", f"{_WHY}; nothing, or `risk.stop_exit: maker`"
    ),
    "exit_target": _shown("a take-profit", "leaves as maker at the touch", "nothing"),
    "exit_deadline": _shown("a position's time is over", "leaves as maker at the touch", "nothing"),
    "exit_signal": _shown("the model wants out of a market", "only reduces there until flat", "nothing"),
    "exit_done": _shown("a position has been left", "quotes there again", "nothing"),
}

_DATA = {
    "trouble_lasts": Rule(
        "feed or account have been in trouble for a minute",
        "quotes nothing that it touches; goes on trying",
        "`llm-maker status`; then `llm-maker doctor`, and the venue's status page",
    ),
    "trouble_over": Rule("the trouble of feed or account is over", "quotes again", "nothing"),
    "venue_down": _shown(
        "the market data connection ended, or was never there",
        "pulls the quotes, connects again with growing waits",
        "nothing; if it lasts: `llm-maker doctor`, the network",
    ),
    "feed": _shown(
        "a market data socket has trouble", "connects again with growing waits", "nothing; if it lasts: `llm-maker doctor`"
    ),
    "silence": _shown(
        "nothing came for `risk.max_silence_seconds`",
        "pulls all quotes; makes a dead socket anew",
        "if it lasts: the network, `llm-maker markets` (are they closed?)",
    ),
    "feed_lag": _shown(
        "market data is over `risk.max_feed_lag_ms` late",
        "pulls all quotes; back after a while without a late message",
        "if often: the network, or a machine that is too slow or too far away",
    ),
    "loop_delay": _shown(
        "this machine gave the daemon no time",
        "pulls all quotes until fresh data comes",
        "if often: a bigger machine with nothing else on it (`uptime`, `top`)",
    ),
    "gap": _shown("a book cannot be trusted", "pulls that market, asks for a fresh book", f"nothing; if it lasts: {_WHY}"),
    "regime": Rule(
        "the venue changed what it allows (restart, post_only, cancel_only, closed, open)",
        "follows: quotes only what is allowed, tries again",
        "`llm-maker status`; while it is closed even cancels may be refused: look at your open orders on the site",
    ),
    "discovery": Rule(
        "the listings cannot be read, or no market passes the selection",
        "quotes what it knows, looks again",
        "`llm-maker markets --survey`; then `llm-maker doctor`",
    ),
    "history": _shown("past prices cannot be had", "goes on; the model's trends start empty", "nothing"),
}

_ORDERS = {
    "unknown_too_long": Rule(
        "the venue has not said for long whether orders of ours rest",
        "counts them as live, sends none in their place, looks them up again and again",
        "look at your open orders on the site; `llm-maker status`, then `llm-maker doctor`",
    ),
    "unknown_order": Rule("the venue speaks of an order that we do not hold", "leaves it alone", "compare with the site"),
    "order_rejected": Rule(
        "the venue refused an order",
        "that side waits 10 s",
        f"{_WHY}; for `balance`: `llm-maker doctor` (allowances, money), and what you hold there",
    ),
    "order_lost": Rule("a partly filled order is known to nobody any more", "takes the rest as canceled", "compare with the site"),
    "overfill": Rule("the venue filled more than was asked", "books it", "compare with the site"),
    "forgotten_order": Rule(
        "an order of ours that had ended by our count rests", "cancels it", "nothing; if it happens twice: report it"
    ),
    "foreign_order": Rule(
        "an order rests on the account that is not ours",
        "never touches it; counts it in the worst case",
        "look at it on the site; if it is not yours: `llm-maker kill` and move the money, another has your key",
    ),
    "halt_foreign_orders": Rule(
        "a live start found orders that are not ours",
        f"{_LIMIT}; arms no heartbeat",
        f"look at them on the site: cancel them there, or {_RESUME} to trade beside them",
    ),
    "settlement_failed": Rule(
        "a trade failed on the chain", "takes position and cash back", "nothing; often: `llm-maker pause`, and wait for the venue"
    ),
    "venue": Rule(
        "the venue's orders or account channel says no, or the heartbeat is not well",
        "no new risk until it is well; tries again where that can help",
        "read its words; `llm-maker doctor` names what to mend (key, clock, region, wallet), then start again",
    ),
}

_MONEY = {
    "account": Rule(
        "wallet or API credentials do not fit",
        "sends nothing, tries again",
        "`llm-maker doctor`; mend `.env` or the clock, start again",
    ),
    "account_stream": _shown(
        "we would not hear of our own fills",
        "pulls everything, connects again, reads the account before it quotes",
        "nothing; if it lasts: `llm-maker doctor`",
    ),
    "account_unknown": _shown(
        "the account could not be read",
        "asks again every 5 s; after 5 minutes without an answer all quotes are pulled",
        "nothing; if it lasts: `llm-maker doctor`",
    ),
    "transfer": Rule(
        "cash changed by something that is no trade of ours",
        "books it outside the P&L; a small loss counts as a cost",
        "nothing if you know where it came from (deposit, reward, rebate); else the account's history on the site",
    ),
    "halt_cash": Rule(
        "more than a dollar is gone that our fills do not explain",
        _LIMIT,
        f"you withdrew it: {_RESUME}; you did not: `llm-maker kill`, then the account's history on the site",
    ),
    "drift": Rule("shares that we bought are not there", "asks again; twice halts", "a trade that still settles: wait a minute"),
    "halt_drift": Rule(
        "shares that we bought were missing twice",
        _LIMIT,
        f"a trade that still settles: wait a minute, {_RESUME}; moved by hand: put them back, then {_RESUME}",
    ),
    "redemption": Rule("a resolved market paid another sum than was due", "books what came", "compare with the site"),
    "redeemed": _shown("the venue paid out by itself", "books it", "nothing"),
    "halt_redemption": Rule("a payment came before its reason", _LIMIT, f"compare with the site, then {_RESUME}; report it"),
    "halt_unknown_fill": Rule("a fill in a market that is not known", _LIMIT, f"compare with the site, then {_RESUME}; report it"),
    "halt_unknown_settlement": Rule(
        "a settlement in a market that is not known", _LIMIT, f"compare with the site, then {_RESUME}; report it"
    ),
    "halt_unknown_merge": Rule(
        "a merge in a market that is not known", _LIMIT, f"compare with the site, then {_RESUME}; report it"
    ),
    "halt_unknown_split": Rule(
        "a split in a market that is not known", _LIMIT, f"compare with the site, then {_RESUME}; report it"
    ),
    "halt_unknown_redemption": Rule(
        "a redemption in a market that is not known", _LIMIT, f"compare with the site, then {_RESUME}; report it"
    ),
    "merge_failed": Rule(
        "sets could not be turned back into cash",
        "tries again after a minute",
        "`llm-maker doctor` (`merges`): relayer key, or POL for a wallet of kind `eoa`",
    ),
    "split_failed": Rule(
        "cash could not be made into sets",
        "leaves it",
        "`llm-maker doctor` (`merges`): relayer key, or POL for a wallet of kind `eoa`",
    ),
    "redeem_failed": Rule(
        "a payment could not be claimed",
        "tries again every 10 minutes",
        "`llm-maker doctor` (`merges`); or claim it on the site, which the daemon notices",
    ),
    "work_judged": Rule("a merge, split or claim was never answered", "believes the account", "compare with the site"),
    "unasked_work": Rule("the venue answered work that was not asked for", "books nothing", "compare with the site; report it"),
}

_MODEL = {
    "fallback": Rule(
        "the model failed several times in a row",
        "rules quote alone at half size; asks the model again with growing waits",
        "the cure that the line names; `llm-maker doctor` (`model`)",
    ),
    "fallback_over": Rule("the model answers again", "its opinions count again", "nothing"),
    "llm_failed": _shown(
        "an answer of the model cannot be used", "asks again; several in a row switch to rules", "the cure it names"
    ),
    "llm": Rule(
        "a model, or what is kept of it, has trouble",
        "asks the others, or waits",
        "the cure that the line names; `llm-maker doctor`",
    ),
    "probe_failed": _shown("the model still does not answer", "tries again later", "the cure that `fallback` named"),
    "late_answer": _shown("an answer came too late", "does not use it", "nothing; if often: `llm.timeout_seconds`, a faster model"),
    "no_markets": _shown("No markets to analyze", "waits", "`llm-maker markets`"),
    "signal_refused": _shown("an opinion breaks the rules", "does not use it", f"nothing; {_WHY}"),
    "budget_nearly_spent": Rule(
        "four fifths of a day's budget for models are spent", "asks on until it is spent", "`llm.daily_budget_usd`, or nothing"
    ),
    "budget_spent": Rule(
        "a day's budget for models is spent", "asks no more until 00:00 UTC; rules quote alone", "`llm.daily_budget_usd`, or wait"
    ),
    "news": Rule("the search for news has trouble", "goes on without news, tries again", "the cure that the line names"),
    "learn": _shown("the model could not be measured", "its weight stays as it was", "nothing; if it lasts: report it"),
    "twin": Rule(
        "an account beside ours (paper money) has trouble",
        "trading is not touched",
        "`llm-maker status`; the comparison may be void",
    ),
}

_HOME = {
    "fault": Rule(
        "a bug of ours ended the daemon",
        "cancels all of ours, ends with exit 1",
        "look at your open orders on the site; report it (`logs/daemon.jsonl` has the story); start again",
    ),
    "restarted_after_crash": Rule(
        "the last run did not end in order",
        "has read the journal; looks up every order and reads the account before it quotes",
        "`llm-maker status`; why it ended: `logs/daemon.jsonl`, `logs/fault.txt`, `journalctl`",
    ),
    "daily_summary": Rule("how the day went", "nothing", "`llm-maker report`", always=True),
    "halt_storage": Rule(
        "the journal cannot be written",
        "cancels everything of ours and ends",
        f"make room on the disk, start again, {_RESUME}",
    ),
    "ledger": Rule(
        "the ledger cannot be written",
        "goes on: the journal has everything, and keeps it above its cap",
        f"make room and start again, which mends it; {_MACHINE}",
    ),
    "log": Rule("a log file cannot be written", "drops its lines, goes on", _MACHINE),
    "journal_cut": _shown("a crash had left half a line", "cut it; fills are asked of the venue again", "nothing"),
    "halt_clock": Rule("this machine's clock was set", _LIMIT, f"NTP (`timedatectl`), then {_RESUME}"),
    "control": Rule(
        "the control socket cannot be opened",
        "goes on without it (paper money only)",
        "`touch KILL` in the home stops it; `llm-maker doctor`",
    ),
    "http": Rule("the page or its port has trouble", "goes on without it", "`console.http_port`; `llm-maker doctor`"),
    "chat": Rule(
        "the Telegram chat has trouble, or a stranger writes to the bot",
        "answers no stranger; tries again",
        "`alerts.telegram_chats`, LLM_MAKER_TELEGRAM_TOKEN; a stranger: nothing, or a new bot",
    ),
    "alerts": _shown("alarms cannot be sent", "tries again, then gives the message up", "`llm-maker alerts --test`"),
    "stopping": _shown(
        "a stop is under way", "cancels, then proves that nothing rests", "wait; Ctrl-C again ends without the proof"
    ),
}

_PERSON = {
    "approve": Rule(
        "a wish waits for your approval, or was dropped", "waits", "`llm-maker status` shows it; `llm-maker approve ID`"
    ),
    "intent_done": _shown("a wish for a position is done", "quotes on", "nothing"),
    "adopt": _shown("an adoption could not be done now", "leaves it", "`llm-maker adopt MARKET` again in a few seconds"),
    "split": _shown("a split was not begun", "leaves it", "what the line says; then `llm-maker split MARKET SHARES`"),
    "no_such_market": _shown("an action or a wish names a market that is not here", "does nothing", "`llm-maker markets`"),
    "operator_pause": _shown("paused by a person", "quotes nothing until `resume`", f"{_RESUME} when you want it"),
    "operator_resume": _shown("resumed by a person", "quotes again", _DONE),
    "operator_reduce": _shown("reduce-only by a person", "only reduces until `resume`", f"{_RESUME} when you want it"),
    "operator_flatten": _shown(
        "a person wants out of positions", "leaves them, and stays reduce-only", f"{_RESUME} when you want it"
    ),
    "operator_cancel_all": _shown("a person canceled everything", "stays paused until `resume`", f"{_RESUME} when you want it"),
    "operator_kill": _shown("a person pressed kill", "as `halt_kill`", _DONE),
    "operator_adopt": _shown("a person adopted shares", "they are ours from now on", _DONE),
    "operator_approve": _shown("a person approved a wish", "works it", _DONE),
    "operator_split": _shown("a person asked for sets", "makes them", _DONE),
    "operator_reload": _shown("new numbers are in force", "quotes by them", "`llm-maker status`"),
}

SECTIONS: dict[str, dict[str, Rule]] = {
    "Limits and exits": _LIMITS,
    "Data": _DATA,
    "Orders": _ORDERS,
    "Account and money": _MONEY,
    "The model": _MODEL,
    "The daemon and its machine": _HOME,
    "A person's doing": _PERSON,
}
RULES: dict[str, Rule] = {code: rule for section in SECTIONS.values() for code, rule in section.items()}
"""Every code that a notice or a line of the wiring can have."""

_OPENING = """# What each alarm means

Made from `llm_maker/console/alarm_rules.py` by `python -m llm_maker.console.alarms > docs/alarms.md`; do not edit it by hand.

Every line of `logs/daemon.jsonl` has a code in `event`. Warnings and errors stand among the alarms of `llm-maker top` and the page.
Those marked *sent* also go to the services of `LLM_MAKER_ALERT_URLS`, if they are as bad as `alerts.level` and `alerts.mute` does
not name them. `llm-maker alerts` shows the services, `llm-maker alerts --test` sends one to each. Polymarket's own, with their
words, are in [polymarket.md](polymarket.md#3-when-something-goes-wrong).

A **halt** (`halt_...`) pulls every quote and lasts until `llm-maker resume`, but those of the day and the week, which run out by
themselves. Deal with the cause first: a halt whose cause is still there comes back."""


def markdown() -> str:
    """docs/alarms.md, whole."""
    parts = [_OPENING]
    for heading, rules in SECTIONS.items():
        lines = [f"## {heading}", "", "| code | it means | what it does by itself | what you do |", "|---|---|---|---|"]
        for code, rule in rules.items():
            sent = "; *sent*" if rule.sent else ""
            lines.append(f"| `{code}`{sent} | {rule.title} | {rule.does} | {rule.cure} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def cure_of(code: str, market_id: str = "") -> str:
    """What helps against an alarm, its market named; empty for a code that nobody knows."""
    rule = RULES.get(code)
    if rule is None:
        return ""
    return rule.cure.replace("MARKET", market_id) if market_id else rule.cure
