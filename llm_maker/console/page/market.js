// The selected market: its price with our quotes, fills and signals, the model's words, the book, the gates.
const DETAIL_MS = 1_500;
const one = { detail: null, past: null, askedMs: 0, pastMs: 0, opinion: null, error: "" };

const priceChart = new Chart($("market-price"), {
  name: "Price", height: 260, band: ["our_bid", "our_ask"], axis: (value, digits) => fixed(value, Math.max(2, digits)), word: price, least: 0.002,
  lines: [
    { key: "ask", name: "ask", mark: "┄", step: true }, { key: "bid", name: "bid", mark: "┄", step: true }, { key: "our_ask", name: "our ask", mark: "━", step: true },
    { key: "our_bid", name: "our bid", mark: "━", step: true }, { key: "fair", name: "fair", mark: "─" },
  ],
});
const positionChart = new Chart($("market-position"), {
  name: "Position", height: 92, zero: true, least: 1, axis: (value, digits) => minus(fixed(value, digits)), word: shares, lines: [{ key: "position", name: "net YES shares, minus is NO", step: true, fill: true }],
});
priceChart.onMark = (mark) => { if (mark.entry.kind === "signal") { one.opinion = mark.entry; drawOpinion(); } };
$("market-price").append(h("p", { class: "note pins-key" }, "▲ we bought  ▼ we sold  ◆ the model spoke (Y buy YES, N buy NO, S sell, H hold, X exit): point or press to read"));

function choose(id, byHand = false) {
  if (table.chosen !== id) {
    table.chosen = id;
    Object.assign(one, { detail: null, past: null, askedMs: 0, pastMs: 0, opinion: null, error: "" });
    priceChart.draw([], {});
    positionChart.draw([], {});
    drawMarkets();
    drawStream();
    askMarket();
  }
  show($("market"), Boolean(id));
  if (byHand) $("market").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

/** Asks for the chosen market, if it is time. */
async function askMarket() {
  const id = table.chosen, now = Date.now(), wanted = `market=${encodeURIComponent(id)}`;
  if (!id || document.hidden || now - one.askedMs < DETAIL_MS) return;
  one.askedMs = now;
  try {
    const detail = await call(`/api/detail?${wanted}`);
    if (id !== table.chosen) return;
    Object.assign(one, { detail, error: "" });
    if (now - one.pastMs > HISTORY_MS) {
      one.pastMs = now;
      const past = await call(`/api/history?${wanted}`);
      if (id !== table.chosen) return;
      one.past = past;
    }
  } catch (error) {
    if (id !== table.chosen) return;
    one.error = error instanceof Told ? error.message : "no answer";
  }
  drawMarket();
}

function markOf(entry) {
  const { facts, kind } = entry, ms = entry.ts_ns / 1e6;
  if (kind === "fill") {
    const buy = /buy|bid|^yes/i.test(String(facts.side)) || facts.side === 1;
    return { ms, value: facts.price, shape: buy ? "buy" : "sell", entry, text: `${clock(entry.ts_ns).slice(11)}  ${clean(entry.text)}` };
  }
  const action = String(facts.action ?? ""), letter = { buy_yes: "Y", buy_no: "N", sell_yes: "S", sell_no: "S", hold: "H", exit: "X" }[action] ?? "?";
  return { ms, value: null, shape: "signal", letter, tone: action === "hold" ? "calm" : "", entry, text: `${clock(entry.ts_ns).slice(11)}  ${clean(facts.model)}: ${actionOf(action)}, confidence ${fixed(facts.confidence ?? 0, 2)}${finite(facts.p_yes) ? `, p ${fixed(facts.p_yes, 3)}` : ""}` };
}

function drawMarket() {
  const { detail, past } = one, { board } = seen;
  const row = board?.rows.find((each) => each.market_id === table.chosen) ?? detail?.row;
  show($("market"), Boolean(row));
  if (!row) return;
  say($("market-title"), title(row));
  const [icon, word] = modeOf(row.mode);
  say($("market-sub"), one.error ? `The daemon did not tell of this market: ${one.error}` : `${row.market_id}  ·  ${icon} ${word}${row.why ? `: ${clean(row.why)}` : ""}`);
  if (past?.market) {
    const fromMs = board ? board.now_ns / 1e6 - seen.rangeMs : -Infinity, marks = past.marks.map(markOf), { ts_ms: ts, values } = past.market;
    const holes = Object.fromEntries(Object.entries(values).map(([key, list]) => [key, key === "position" ? list : list.map((value) => value || null)]));
    priceChart.draw(ts, holes, { fromMs, marks: marks.filter((mark) => !ts.length || mark.ms >= ts[0]) });
    positionChart.draw(ts, holes, { fromMs });
  }
  if (!detail) return;
  const gates = detail.why;
  show($("market-change"), Boolean(gates.nearest_change));
  say(find("span", $("market-change")), clean(gates.nearest_change));
  drawOpinion();
  drawLadder(detail);
  drawGates(gates);
  keyed($("lately"), [...detail.tail].reverse().slice(0, 30), (entry) => entry.n, makeEntry, (node, entry) => fillEntry(node, entry, true));
}

function drawOpinion() {
  const { detail, opinion } = one, { board } = seen;
  if (!detail) return;
  const { row, why } = detail, now = board?.now_ns ?? 0;
  if (opinion) {
    const { facts } = opinion;
    say($("reasoning-title"), `What it said at ${clock(opinion.ts_ns, now)}`);
    say($("opinion"), `${clean(facts.model)}: ${actionOf(facts.action)}, confidence ${fixed(facts.confidence ?? 0, 2)}${finite(facts.p_yes) ? `, p(YES) ${fixed(facts.p_yes, 3)}` : ""}`);
    say($("reasoning"), clean(facts.reasoning) || "It gave no reason.");
    say($("opinion-weight"), `decision ${clean(facts.decision_id)}`);
  } else {
    const weight = why.opinion ?? {};
    say($("reasoning-title"), "The model’s opinion");
    say($("opinion"), row.signal ? `${clean(detail.model) || "a model"}: ${actionOf(row.signal)}, confidence ${fixed(row.confidence ?? 0, 2)}, ${span(row.signal_age_s)} ago` : "It has said nothing of this market.");
    say($("reasoning"), row.signal ? clean(detail.reasoning) || "It gave no reason." : "");
    const words = [`weight ${fixed(row.weight, 3)}`, clean(weight.why_weight), finite(weight.shift_log_odds) ? `moves our price by ${minus(fixed(weight.shift_log_odds, 4))} in log-odds` : "", finite(weight.target) ? `wants ${shares(weight.target)} shares` : "", detail.decision_id ? `decision ${clean(detail.decision_id)}` : ""];
    say($("opinion-weight"), row.signal ? words.filter(Boolean).join("  ·  ") : "");
  }
  show($("reasoning"), $("reasoning").textContent !== "");
  show(find("h4", $("market")), detail.past.length > 0);
  keyed($("past"), detail.past.slice(0, 8).map((each, n) => ({ ...each, n })), (each) => each.n, () => h("li", { class: "outside" }), (node, each) =>
    say(node, `${span(each.age_s)} ago: ${actionOf(each.action)}, confidence ${fixed(each.confidence ?? 0, 2)}${finite(each.p_yes) ? `, p ${fixed(each.p_yes, 3)}` : ""}${finite(each.price) ? `, price then ${price(each.price)}` : ""}`));
}

function drawLadder({ bids, asks, row }) {
  const most = Math.max(...[...bids, ...asks].map((level) => level.shares), 1e-9), gap = row.bid > 0 && row.ask > 0 ? row.ask - row.bid : null;
  const lines = [...[...asks].reverse().map((level) => ({ ...level, side: "ask" })), { side: "middle" }, ...bids.map((level) => ({ ...level, side: "bid" }))];
  const empty = !bids.length && !asks.length;
  show($("ladder"), !empty);
  show(find(".none", $("ladder").parentElement), empty);
  say(find(".none", $("ladder").parentElement), "The book is empty, or not trusted.");
  keyed(find("tbody", $("ladder")), empty ? [] : lines, (line) => `${line.side} ${line.price ?? ""}`,
    ({ side }) => (side === "middle" ? h("tr", { class: "middle" }, h("td", { colspan: "3" })) : h("tr", { class: side }, h("td"), h("td", {}, h("i"), h("span")), h("td"))),
    (node, line) => {
      if (line.side === "middle") return say(node.firstChild, gap === null ? "one side is empty" : `spread ${fixed(gap, 4, 2)}  ·  fair ${price(row.fair)}`);
      const [ours, depth, at] = node.children;
      trait(node, "data-ours", line.ours > 0 ? "" : null);
      say(ours, line.ours > 0 ? `● ${shares(line.ours)}` : "");
      depth.firstChild.style.width = `${Math.max(1, (100 * line.shares) / most)}%`;
      say(depth.lastChild, shares(line.shares));
      say(at, price(line.price));
    });
}

function drawGates(why) {
  keyed($("gates"), why.gates ?? [], (gate) => gate.gate, () => h("li", {}, h("i"), h("b"), h("span", { class: "outside" })), (node, gate) => {
    trait(node, "data-level", gate.open ? "ok" : "error");
    say(node.children[0], gate.open ? "✓" : "✕");
    trait(node.children[0], "aria-label", gate.open ? "open" : "closed");
    say(node.children[1], gate.gate);
    say(node.children[2], `${clean(gate.numbers)}${gate.open ? "" : ` → ${clean(gate.mode).replace("_", " ")}`}`);
  });
  const items = [];
  for (const [name, side] of Object.entries(why.sides ?? {})) {
    const resting = side.resting.map((order) => `${shares(order.remaining)} at ${price(order.price)} (${clean(order.token)}, ${clean(order.status).replace("_", " ")}, ${span(order.age_s)})`);
    items.push([name === "buy" ? "bid, wanted" : "ask, wanted", finite(side.wanted) ? price(side.wanted) : "none"]);
    items.push([name === "buy" ? "bid, resting" : "ask, resting", resting.join("; ") || "none"]);
    if (side.refused.length) items.push([name === "buy" ? "bid, refused" : "ask, refused", clean(side.refused.join(", ")), "warning"]);
  }
  for (const [name, text] of Object.entries(why.caps ?? {})) items.push([`cap: ${name}`, clean(text)]);
  if (finite(why.base_size)) items.push(["size", `${shares(why.base_size)} shares a quote, ${shares(why.max_position)} at most`]);
  if (why.strategy_note) items.push(["strategy", clean(why.strategy_note)]);
  pairs($("sides"), items);
}
