// What happened, newest first; the model and its worth; the health of the machine.
const KINDS = {
  alarm: ["!", "alarms"], operator: ["☞", "operator"], fill: ["⇄", "fills"], signal: ["◆", "signals"], decision: ["◇", "decisions"],
  settlement: ["✓", "settlements"], notice: ["·", "notices"], order: ["+", "orders"], cancel: ["−", "cancels"],
};
const KEPT = 1_500, SHOWN = 120;
const news = { entries: [], quiet: new Set(["order", "cancel"]), counts: {} };

function makeEntry(entry) {
  const [icon] = KINDS[entry.kind] ?? ["·"];
  return h("li", { "data-kind": entry.kind, "data-level": entry.level }, h("i", { "aria-hidden": "true" }, icon), h("time"), h("p", { class: "outside" }));
}

function fillEntry(node, entry, told = false) {
  if (node.filled) return;
  node.filled = true;
  const side = entry.facts?.side, row = seen.board?.rows.find((each) => each.market_id === entry.market_id);
  if (entry.kind === "fill") trait(node, "data-side", /buy|bid/i.test(String(side)) || side === 1 ? "buy" : "sell");
  say(node.children[1], clock(entry.ts_ns, seen.board?.now_ns ?? null));
  const body = node.children[2], where = row ? title(row) : clean(entry.market_id);
  body.append(h("b", {}, entry.kind), ` ${clean(entry.text).replace(/^(?:filled|cancel|order|signal|decision|fill):? /, "")}`);
  if (where && !told) body.append(h("small", {}, where));
  if (clean(entry.cure)) helps(body.appendChild(h("small")), entry.cure);
}

function hearEntries(entries) {
  for (const entry of entries) news.counts[entry.kind] = (news.counts[entry.kind] ?? 0) + 1;
  news.entries.push(...entries);
  if (news.entries.length <= KEPT) return;
  // Orders and cancels are many: what is rare is kept longer.
  const busy = news.entries.filter((entry) => news.quiet.has(entry.kind)).slice(-KEPT / 3), rare = news.entries.filter((entry) => !news.quiet.has(entry.kind)).slice(-KEPT / 2);
  news.entries = [...busy, ...rare].sort((a, b) => a.n - b.n);
}

function makeKinds() {
  for (const [kind, [icon, name]] of Object.entries(KINDS)) {
    const chip = h("button", { "data-kind": kind, "aria-pressed": String(!news.quiet.has(kind)) }, h("i", { "aria-hidden": "true" }, icon), h("span", {}, name), h("small"));
    chip.addEventListener("click", () => {
      news.quiet.has(kind) ? news.quiet.delete(kind) : news.quiet.add(kind);
      trait(chip, "aria-pressed", String(!news.quiet.has(kind)));
      drawStream();
    });
    $("kinds").append(chip);
  }
  $("stream-here").addEventListener("change", drawStream);
}

function drawStream() {
  for (const chip of $("kinds").children) say(chip.lastChild, count(news.counts[chip.dataset.kind] ?? 0));
  const here = $("stream-here").checked && table.chosen, shown = [];
  for (let n = news.entries.length - 1; n >= 0 && shown.length < SHOWN; n--) {
    const entry = news.entries[n];
    if (!news.quiet.has(entry.kind) && (!here || entry.market_id === here)) shown.push(entry);
  }
  keyed(find(".entries", $("stream")), shown, (entry) => entry.n, makeEntry, fillEntry);
  const none = find(".none", $("stream"));
  show(none, !shown.length);
  show(find(".entries", $("stream")), shown.length > 0);
  say(none, news.entries.length ? "Nothing of the kinds that are shown." : "Nothing yet.");
}

function drawModel(board) {
  const { slow_loop: slow, money, counts } = board, weights = board.rows.map((row) => row.weight).filter((weight) => weight > 0);
  const items = [
    ["advice by", `${clean(slow.mode)}${board.provider && board.provider !== "none" ? `, ${clean(board.provider)}` : ""}`, slow.mode === "FALLBACK" ? "warning" : ""],
    ...(slow.cause ? [["cause", clean(slow.cause), "warning"]] : []),
    ...(slow.waiting_for ? [["waiting for", clean(slow.waiting_for)]] : []),
    ["decisions, signals", `${count(counts.decisions)}, ${count(counts.signals)}${counts.signals_refused ? `; ${count(counts.signals_refused)} refused` : ""}`],
    ["failures", `${count(counts.failures)}${slow.failures_in_a_row ? `, ${count(slow.failures_in_a_row)} in a row` : ""}; ${many(counts.fallbacks ?? 0, "fallback")}`, slow.failures_in_a_row ? "warning" : ""],
    ["weight in our price", weights.length ? `${fixed(Math.min(...weights), 3)} to ${fixed(Math.max(...weights), 3)} in ${many(weights.length, "market")}` : "0: its opinions are shown and move nothing"],
    ["paid", `${cost(money.model_cost)}${finite(money.model_cost_today) ? `, today ${cost(money.model_cost_today)}` : ""}${finite(money.model_budget) ? ` of ${usd(money.model_budget)}` : ""}`],
    ["against the twin", board.twin ? change(board.twin.difference_usd) : "no twin"],
  ];
  pairs(find("dl", $("model")), items);
}

function drawHealth(board) {
  const { health, venues, counts, refused } = board;
  keyed($("venues"), Object.entries(venues), ([name]) => name, () => h("li", {}, h("i"), h("p", { class: "outside" }, h("b"), h("span"))), (node, [name, venue]) => {
    const well = venue.up && !venue.lagging && !venue.silent;
    trait(node, "data-level", well ? "ok" : venue.up ? "warning" : "error");
    say(node.firstChild, well ? "✓" : venue.up ? "!" : "✕");
    say(find("b", node), clean(name));
    const words = [venue.up ? clean(venue.regime) : `down: ${clean(venue.down_reason)}`, `lag ${fixed(venue.lag_ms ?? 0, 0)} ms${venue.lagging ? ", too much" : ""}`, finite(venue.heard_s) ? `heard ${span(venue.heard_s)} ago${venue.silent ? ", silent" : ""}` : "never heard", `${count(venue.trusted)} books trusted`, many(venue.gaps ?? 0, "gap"), `${count(venue.pruned)} pruned`];
    say(find("span", node), ` ${words.join(", ")}`);
  });
  const items = [
    ["up for", span(health.uptime_s)], ["memory", finite(health.rss_mb) ? `${fixed(health.rss_mb, 0)} MB` : NONE],
    ["loop delay, last minute", finite(health.loop_delay_ms) ? `${fixed(health.loop_delay_ms, 1)} ms` : NONE, health.loop_delay_ms > 250 ? "warning" : ""],
    ["events; waiting", `${count(health.events)}; ${count(health.inbox)}`, health.inbox > 1_000 ? "warning" : ""],
    ["journal", finite(health.journal_mb) ? `${fixed(health.journal_mb, 1)} MB` : NONE], ["storage", health.storage_failed ? "FAILED" : "written", health.storage_failed ? "error" : ""],
    ["orders working", count(board.orders)], ["orders unknown", board.unknown_orders.length ? clean(board.unknown_orders.join(", ")) : "none", board.unknown_orders.length ? "error" : ""],
    ["orders not ours", count(board.foreign_orders), board.foreign_orders ? "warning" : ""],
    ["placed, canceled, filled", `${count(counts.placed)}, ${count(counts.canceled)}, ${count(counts.fills)}`], ["session, version", `${count(board.session)}, ${clean(board.version)}`],
  ];
  pairs(find("dl", $("health")), items);
  const all = Object.entries(refused).sort((a, b) => b[1] - a[1]);
  show(find("h3", $("health")), all.length > 0);
  pairs($("refused"), all.slice(0, 8).map(([reason, n]) => [clean(reason), count(n)]));
}
