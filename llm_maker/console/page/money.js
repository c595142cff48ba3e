// The account at a glance: who, how, well or not, alarms, money, and its curves.
const ICONS = { ok: "✓", info: "i", warning: "!", error: "✕" };
const LEVEL_WORDS = { info: "note", warning: "warning", error: "error" };
const RANGES = [["15 min", 900_000], ["1 h", 3_600_000], ["6 h", 21_600_000], ["1 d", 86_400_000], ["all", Infinity]];
const HISTORY_MS = 6_000;

const seen = { board: null, past: null, rangeMs: Infinity, allAlarms: false, spoken: new Set() };

const held = (board) => board.rows.filter((row) => Math.abs(row.position) > 1e-9);
const quoted = (row) => (row.our_bid > 0 || row.our_ask > 0);

function header(board) {
  const root = document.documentElement;
  trait(root, "data-money", board.real_money ? "real" : "paper");
  say($("kind"), board.real_money ? "REAL MONEY" : "PAPER");
  trait($("kind"), "class", `badge ${board.real_money ? "real" : "paper"}`);
  trait($("kind"), "title", board.real_money ? "Orders and losses are real" : "No real money: orders go to a simulated exchange");
  show($("simulated"), board.simulated);
  show($("read-only"), wire.readOnly);
  say($("who"), `${clean(board.account)} on ${clean(board.venue)}`);
  const [icon, word] = modeOf(board.mode);
  trait($("mode"), "data-mode", board.mode);
  trait($("acts"), "data-mode", board.mode);
  say(find("i", $("mode")), icon);
  say(find("b", $("mode")), word);
  say($("why"), clean(board.why));
  trait($("why"), "title", clean(board.why));
  say($("clock"), `${clock(board.now_ns)} UTC`);
}

/** The one sentence: [level, text]. What is worst is said first. */
function verdict(board) {
  const standing = board.alarms.filter((alarm) => alarm.standing), worst = standing.find((alarm) => alarm.level === "error");
  const down = Object.entries(board.venues).filter(([, venue]) => !venue.up);
  const why = clean(board.why);
  if (board.health.storage_failed) return ["error", "Not well: what happens can no longer be written down."];
  if (board.unknown_orders.length) return ["error", `Not well: ${many(board.unknown_orders.length, "order")} unknown, which the venue has not said to stand or to be gone.`];
  if (board.mode === "halted") return ["error", `Halted: nothing is quoted${why ? `, because ${why}` : ""}.`];
  if (worst) return ["error", `Not well: ${clean(worst.text)}`];
  if (down.length) return ["error", `Not well: ${down.map(([name, venue]) => `${name} is down${venue.down_reason ? ` (${clean(venue.down_reason)})` : ""}`).join(", ")}.`];
  if (board.mode === "reduce_only") return ["warning", `Only reducing${why ? `: ${why}` : ""}. ${many(held(board).length, "position")} left.`];
  if (board.slow_loop.mode === "FALLBACK") return ["warning", `Quoting by rules alone, half size: the model failed (${clean(board.slow_loop.cause) || "cause not told"}).`];
  if (standing.length) return ["warning", `Needs a look: ${clean(standing[0].text)}`];
  if (!board.rows.length) return ["warning", "Running, but no market has been chosen yet."];
  const both = board.rows.filter((row) => row.our_bid > 0 && row.our_ask > 0).length, some = board.rows.filter(quoted).length;
  if (!some) return ["warning", `Running, but nothing is quoted in any of ${many(board.rows.length, "market")}.`];
  return ["ok", `Well: quoting ${count(some)} of ${many(board.rows.length, "market")}, ${count(both)} on both sides; ${many(board.orders, "order")} working.`];
}

function drawVerdict(board) {
  const [level, text] = verdict(board);
  trait($("verdict"), "data-level", level);
  say(find("i", $("verdict")), ICONS[level]);
  say(find("p", $("verdict")), text);
  return level;
}

/** Read aloud once: an alarm that has just come, and not the ages that change under it. */
function speakAlarms(board) {
  const standing = board.alarms.filter((alarm) => alarm.standing), key = (alarm) => `${alarm.code} ${alarm.market_id} ${alarm.since_ns}`;
  const fresh = standing.filter((alarm) => !seen.spoken.has(key(alarm)));
  seen.spoken = new Set(standing.map(key));
  if (fresh.length) say($("spoken-alarm"), fresh.map((alarm) => `${LEVEL_WORDS[alarm.level]}: ${clean(alarm.text)}`).join(". "));
}

function drawAlarms(board) {
  speakAlarms(board);
  const rank = (alarm) => (alarm.standing ? { error: 0, warning: 1, info: 2 }[alarm.level] : 3), alarms = [...board.alarms].sort((a, b) => rank(a) - rank(b));
  const shown = seen.allAlarms ? alarms : alarms.slice(0, 4), more = alarms.length - shown.length;
  show($("alarms"), board.alarms.length > 0);
  keyed(find("ol", $("alarms")), shown, (alarm) => `${alarm.code} ${alarm.market_id} ${alarm.since_ns}`, () => {
    const copy = h("button", { class: "quiet", "aria-label": "Copy the command that helps" }, "copy");
    const node = h("li", {}, h("i", { "aria-hidden": "true" }), h("div", {}, h("p", {}, h("b"), " ", h("span", { class: "outside" })),
      h("p", { class: "cure" }, h("span", { class: "outside" }), copy)), h("small"));
    copy.addEventListener("click", () => navigator.clipboard?.writeText(find("code", node).textContent).then(() => say(copy, "copied"), () => say(copy, "select it")));
    return node;
  }, (node, alarm) => {
    const level = alarm.standing ? alarm.level : "info";
    trait(node, "data-level", level);
    say(find("i", node), alarm.standing ? ICONS[alarm.level] : "○");
    say(find("b", node), `${LEVEL_WORDS[alarm.level]}${alarm.standing ? "" : ", over"}:`);
    const row = board.rows.find((each) => each.market_id === alarm.market_id);
    say(find("p span", node), clean(alarm.text) + (alarm.market_id ? ` [${short(row ? title(row) : clean(alarm.market_id))}]` : ""));
    show(find(".cure", node), Boolean(clean(alarm.cure)));
    helps(find(".cure span", node), alarm.cure);
    show(find(".cure button", node), find("code", node) !== null && Boolean(navigator.clipboard));
    say(find("small", node), `${span((board.now_ns - alarm.since_ns) / S)} ago${alarm.count > 1 ? `, ${count(alarm.count)} times` : ""}`);
  });
  show($("alarms-more"), more > 0 || seen.allAlarms && board.alarms.length > 4);
  say($("alarms-more"), seen.allAlarms ? "Show fewer" : `Show ${count(more)} more`);
}

function drawWaiting(board) {
  show($("waiting"), board.intents.length > 0);
  keyed(find("ul", $("waiting")), board.intents, (intent) => intent.intent_id, (intent) => {
    const button = h("button", { class: "primary", "data-act": "approve", onclick: () => askApproval(intent) }, "Approve…");
    return h("li", {}, h("p", { class: "outside" }), button);
  }, (node, intent) => {
    const row = board.rows.find((each) => each.market_id === intent.market_id);
    say(node.firstChild, `${clean(intent.who) || "somebody"} wants ${shares(intent.target)} shares (YES; minus is NO) of “${short(row ? title(row) : clean(intent.market_id), 120)}”${intent.reason ? `: ${clean(intent.reason)}` : ""}  [${clean(intent.intent_id)}]`);
  });
}

/** [term, value, note, share of the limit or null, tone]. */
function tiles(board) {
  const { money } = board, away = money.equity - money.exit, ratio = (part, whole) => (finite(part) && finite(whole) && whole > 0 ? part / whole : null);
  const loss = finite(money.today) ? Math.max(0, -money.today) : null;
  return [
    ["Equity", usd(money.equity), `${usd(money.exit)} if all were left now, ${usd(away)} less`, null, ""],
    ["Today", change(money.today), money.daily_loss_limit > 0 ? `halts at −${usd(money.daily_loss_limit)}` : "no daily limit", ratio(loss, money.daily_loss_limit), sign(money.today)],
    ["Since the start", change(money.pnl), `cash ${usd(money.cash)}`, null, sign(money.pnl)],
    ["Drawdown", usd(money.drawdown), money.drawdown_limit > 0 ? `of ${usd(money.drawdown_limit)} allowed` : "no limit", ratio(money.drawdown, money.drawdown_limit), ""],
    ["Exposure at worst", usd(money.exposure), `${percent(ratio(money.exposure, money.bankroll), 1)} of the ${usd(money.bankroll, 0)} bankroll`, ratio(money.exposure, money.bankroll), ""],
    ["Model cost today", cost(money.model_cost_today), finite(money.model_budget) ? `of ${usd(money.model_budget)} a day; ${cost(money.model_cost)} in all` : "no model is paid", ratio(money.model_cost_today, money.model_budget), ""],
    ["Spread earned", change(money.earned_spread), `fees ${change(-money.fees)}, rebates ${change(money.rebates)}, rewards ${change(money.rewards)}`, null, sign(money.earned_spread)],
  ];
}

function drawMoney(board) {
  keyed(find("dl", $("money")), tiles(board), ([term]) => term,
    ([term]) => h("div", { class: "card tile" }, h("dt", {}, term), h("dd", {}, h("b"), h("span", { class: "gauge" }, h("i")), h("small"))),
    (node, [, value, note, part, tone]) => {
      trait(node, "data-tone", tone || null);
      say(find("b", node), value);
      say(find("small", node), note);
      const gauge = find(".gauge", node);
      show(gauge, part !== null);
      trait(gauge, "data-level", part >= 0.9 ? "error" : part >= 0.7 ? "warning" : "ok");
      if (part !== null) gauge.firstChild.style.width = `${100 * Math.min(1, Math.max(0, part))}%`;
    });
}

// The curves: asked for now and then, the newest point from every picture.

const dollars = (value, digits) => usd(value, Math.min(4, digits));
const curves = {
  equity: new Chart($("curve-equity"), { name: "Equity", lines: [{ key: "equity", name: "equity, USD" }], axis: dollars, word: (value) => usd(value), least: 0.5 }),
  drawdown: new Chart($("curve-drawdown"), { name: "Drawdown", lines: [{ key: "drawdown", name: "below the highest, USD", fill: true }], axis: (value, digits) => dollars(value, digits), word: (value) => usd(value), zero: true, least: 0.5 }),
  exposure: new Chart($("curve-exposure"), { name: "At worst", lines: [{ key: "exposure", name: "all", mark: "━" }, { key: "inventory", name: "positions, USD", mark: "┅", fill: true }], axis: dollars, word: (value) => usd(value), zero: true, least: 1 }),
  twin: new Chart($("curve-twin"), { name: "Against the twin", lines: [{ key: "twin", name: "ours less its, USD", fill: true }], axis: dollars, word: (value) => change(value), zero: true, least: 0.5, empty: "No twin runs beside: what the model is worth is not measured." }),
  cost: new Chart($("curve-cost"), { name: "Model cost", height: 96, lines: [{ key: "model_cost", name: "so far, USD", step: true, fill: true }], axis: dollars, word: cost, zero: true, least: 0.01, empty: "Nothing has been paid to a model." }),
};

function drawCurves() {
  const { past, board } = seen;
  if (!past || !board) return;
  const now = board.now_ns / 1e6, { money, twin } = board, ts = [...past.account.ts_ms], at = {};
  for (const [key, list] of Object.entries(past.account.values)) at[key] = [...list];
  if (now > (ts.at(-1) ?? 0)) {
    ts.push(now);
    const newest = { equity: money.equity, drawdown: money.drawdown, exposure: money.exposure, model_cost: money.model_cost, twin: twin?.difference_usd ?? null };
    for (const key of Object.keys(at)) at[key].push(key in newest ? newest[key] : (at[key].at(-1) ?? null));
  }
  const fromMs = now - seen.rangeMs, limits = (value, name) => (value > 0 ? [{ value, name }] : []);
  curves.equity.draw(ts, at, { fromMs });
  const below = at.drawdown.map((value) => (finite(value) ? -value : null));
  curves.drawdown.draw(ts, { drawdown: below }, { fromMs, levels: money.drawdown_limit > 0 ? [{ value: -money.drawdown_limit, name: `limit −${usd(money.drawdown_limit, 0)}` }] : [] });
  curves.exposure.draw(ts, at, { fromMs, levels: limits(money.bankroll, `bankroll ${usd(money.bankroll, 0)}`) });
  curves.twin.draw(ts, at, { fromMs });
  curves.cost.draw(ts, { model_cost: at.model_cost?.some((value) => value > 0) ? at.model_cost : [] }, { fromMs });
  drawTwin(twin);
}

function drawTwin(twin) {
  if (!twin) return;
  const range = twin.interval_usd ? `95 %: ${change(twin.interval_usd[0])} to ${change(twin.interval_usd[1])}` : "interval not known";
  curves.twin.remark = range;
  const note = `Ours less the same without the model, ${twin.paper_money ? "in paper money, " : ""}day ${fixed(twin.days, 2, 0)} of ${count(twin.verdict_days)} before a verdict`;
  trait(curves.twin.caption, "title", note);
}
