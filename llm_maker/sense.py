"""Numbers of a valid config that make no sense together: each with what to set instead. Pure; it knows nothing but the config."""

from __future__ import annotations

from collections.abc import Iterator

from llm_maker.config import Config

SMALLEST_ORDER_SHARES = 5
"""What most markets take at least (`docs/polymarket.md`)."""
MIDDLE_USD = 0.5
"""The price at which neither outcome is cheap."""

Suspicion = tuple[str, str]
"""What is odd, and what to set; one line each."""


def suspicions(config: Config) -> list[Suspicion]:
    """Everything odd, the dearest first. `config` is as a run takes it: with the caps of live mode."""
    return [*_sizes(config), *_losses(config), *_quoting(config), *(_real(config) if config.mode == "live" else ())]


def bankroll(config: Config) -> float:
    """USD at work: the bankroll, or all of the paper money."""
    return config.paper.cash_usd if config.risk.bankroll_usd is None else config.risk.bankroll_usd


def _sizes(config: Config) -> Iterator[Suspicion]:
    risk, base, bank = config.risk, config.strategy.base_position_size, bankroll(config)
    if config.mode == "paper" and bank > config.paper.cash_usd:
        text = f"the bankroll (${bank:,.2f}) is more than the paper account holds (${config.paper.cash_usd:,.2f})"
        yield text, f"set risk.bankroll_usd: {config.paper.cash_usd:.15g}"
    if base > risk.max_order_usd:
        text = f"an order of {base:g} shares can cost up to ${base:,.2f}, more than risk.max_order_usd (${risk.max_order_usd:,.2f})"
        yield text, f"set strategy.base_position_size: {max(1, int(risk.max_order_usd))}"
    market, least = bank * risk.max_market_pct / 100, SMALLEST_ORDER_SHARES * MIDDLE_USD
    if market < least:
        text = (
            f"one market may lose ${market:,.2f}, and the smallest order at {MIDDLE_USD:g} costs ${least:,.2f}: few can be quoted"
        )
        yield (
            text,
            f"set risk.bankroll_usd: {least * 100 / risk.max_market_pct:,.0f}".replace(",", "")
            + " or more, or raise risk.max_market_pct",
        )
    if risk.max_gross_pct + risk.min_free_cash_pct > 100:
        text = "risk.max_gross_pct and risk.min_free_cash_pct together are above 100: the first is never reached"
        yield text, f"set risk.max_gross_pct: {100 - risk.min_free_cash_pct:.15g}"


def _losses(config: Config) -> Iterator[Suspicion]:
    risk, bank = config.risk, bankroll(config)
    daily = risk.daily_loss_pct / 100 * bank
    if config.mode == "live" and config.live.daily_loss_usd > bank:
        text = f"live.daily_loss_usd (${config.live.daily_loss_usd:,.2f}) is more than the bankroll (${bank:,.2f})"
        yield text, f"set live.daily_loss_usd: {daily:.15g}"
    # Real money has a limit of the day in dollars beside the share, and the smaller holds.
    of_day = min(daily, config.live.daily_loss_usd) if config.mode == "live" else daily
    if of_day > risk.max_drawdown_pct / 100 * bank:
        text = "risk.daily_loss_pct is above risk.max_drawdown_pct: the loss of a day never halts it"
        yield text, f"set risk.daily_loss_pct: {risk.max_drawdown_pct:g}"


def _quoting(config: Config) -> Iterator[Suspicion]:
    strategy, risk, execution = config.strategy, config.risk, config.execution
    if strategy.quoting == "inventory" and strategy.skew_max_ticks == 0:
        yield (
            "quotes do not lean against the position held (strategy.skew_max_ticks is 0), which loses",
            "set strategy.skew_max_ticks: 3.5",
        )
    if execution.reprice_ticks >= risk.fat_finger_ticks:
        text = "an order may stray (execution.reprice_ticks) as far as is taken for a mistake (risk.fat_finger_ticks)"
        yield text, "set execution.reprice_ticks: 1"
    if strategy.refresh_seconds > strategy.signal_expiry_seconds:
        text = "opinions expire (strategy.signal_expiry_seconds) before they are asked for again (strategy.refresh_seconds)"
        yield text, f"set strategy.refresh_seconds: {strategy.signal_expiry_seconds:.15g}"


def _real(config: Config) -> Iterator[Suspicion]:
    risk = config.risk
    if risk.resolution_reduce_hours == 0:
        text = "nothing is reduced before a market resolves (risk.resolution_reduce_hours is 0): positions are held into the end"
        yield text, "set risk.resolution_reduce_hours: 24"
    if not config.polymarket.heartbeat:
        text = "the venue would not cancel our orders if this machine fell silent (polymarket.heartbeat is false)"
        yield text, "set polymarket.heartbeat: true"
    if risk.stop_exit == "maker":
        text = "a stop-loss never crosses the spread (risk.stop_exit is maker): in a fast market it may not end"
        yield text, "set risk.stop_exit: maker_then_taker"
