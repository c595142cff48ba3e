// One row per market: made once, then only what changed is touched.
const reason = (row) => [clean(row.why), row.exit ? `leaving: ${clean(row.exit)}` : ""].filter(Boolean).join("; ");
const COLUMNS = [
  { key: "question", name: "Market", sort: (row) => title(row).toLowerCase(), text: title, sub: reason },
  { key: "mode", name: "Mode", sort: (row) => row.mode, text: (row) => modeOf(row.mode).join(" ") },
  { key: "bid", name: "Bid", hint: "Best bid of the book", sort: (row) => row.bid, text: (row) => price(row.bid) },
  { key: "our_bid", name: "Ours", hint: "Our best bid, and the shares behind it", sort: (row) => row.our_bid, text: (row) => price(row.our_bid), sub: (row) => (row.our_bid > 0 ? shares(row.our_bid_shares) : "") },
  { key: "bid_ahead", name: "Ahead", hint: "Shares ahead of our best bid, at most", sort: (row) => row.bid_ahead, text: (row) => shares(row.bid_ahead) },
  { key: "ask", name: "Ask", hint: "Best ask of the book", sort: (row) => row.ask, text: (row) => price(row.ask) },
  { key: "our_ask", name: "Ours", hint: "Our best ask, and the shares behind it", sort: (row) => row.our_ask, text: (row) => price(row.our_ask), sub: (row) => (row.our_ask > 0 ? shares(row.our_ask_shares) : "") },
  { key: "ask_ahead", name: "Ahead", hint: "Shares ahead of our best ask, at most", sort: (row) => row.ask_ahead, text: (row) => shares(row.ask_ahead) },
  { key: "book_age_s", name: "Book age", hint: "Since the book changed or was confirmed", sort: (row) => row.book_age_s, text: (row) => span(row.book_age_s) },
  { key: "fair", name: "Fair", hint: "Our fair value", sort: (row) => row.fair, text: (row) => price(row.fair) },
  { key: "position", name: "Position", hint: "Net YES shares, minus is NO; below: its average price", sort: (row) => row.position, text: (row) => (row.position ? shares(row.position) : NONE), sub: (row) => (row.position && finite(row.avg_price) ? `at ${price(row.avg_price)}` : ""), tone: (row) => sign(row.position) },
  { key: "pnl_usd", name: "P&L", hint: "Since first traded, marked at the mid, USD", sort: (row) => row.pnl_usd, text: (row) => change(row.pnl_usd), tone: (row) => sign(row.pnl_usd) },
  { key: "worst_usd", name: "At worst", hint: "Lost at worst if everything resting fills, USD", sort: (row) => row.worst_usd, text: (row) => usd(row.worst_usd) },
  { key: "signal", name: "Signal", hint: "The model's action and confidence; below: its age and its weight in our price", sort: (row) => row.confidence ?? -1, text: (row) => (row.signal ? `${actionOf(row.signal)} ${fixed(row.confidence ?? 0, 2)}` : NONE), sub: (row) => (row.signal ? `${span(row.signal_age_s)} old, w ${fixed(row.weight, 3)}` : "") },
  { key: "reward_usd_per_day", name: "Reward", hint: "What the venue pays here a day; below: our share by what rests now", sort: (row) => (row.reward_usd_per_day ?? 0) * (row.reward_share ?? 0), text: (row) => (finite(row.reward_usd_per_day) ? `${usd(row.reward_usd_per_day, 0)}/d` : NONE), sub: (row) => (finite(row.reward_share) ? percent(row.reward_share, 1) : "") },
  { key: "why", name: "Not quoting because", sort: (row) => row.why, text: reason },
];
const WHICH = { quoted, silent: (row) => !quoted(row) || Boolean(row.why), held: (row) => Math.abs(row.position) > 1e-9 };

const table = { sort: "", down: false, filter: "", which: "", chosen: "" };

function makeTable() {
  const head = find("thead tr", $("markets"));
  COLUMNS.forEach((column, n) => {
    const name = (column.full = { our_bid: "Our bid", our_ask: "Our ask", bid_ahead: "Ahead of our bid", ask_ahead: "Ahead of our ask" }[column.key] ?? column.name);
    head.append(h("th", { role: "columnheader", scope: "col", class: `c-${column.key}`, title: column.hint ?? null },
      h("button", { onclick: () => sortBy(column.key), "aria-label": `Sort by ${name}` }, column.name, h("i", { "aria-hidden": "true" }))));
    $("sort").append(h("option", { value: column.key }, `by ${name}`));
    column.nth = n;
  });
  $("sort").prepend(h("option", { value: "" }, "as the daemon lists"));
  $("sort").value = "";
  $("sort").addEventListener("change", () => { table.sort = $("sort").value; table.down = !["question", "mode", "why", ""].includes(table.sort); drawMarkets(); });
  $("filter").addEventListener("input", () => { table.filter = $("filter").value.trim().toLowerCase(); drawMarkets(); });
  $("which").addEventListener("change", () => { table.which = $("which").value; drawMarkets(); });
}

function sortBy(key) {
  if (table.sort === key && table.down === ["question", "mode", "why"].includes(key)) Object.assign(table, { sort: "", down: false });
  else if (table.sort === key) table.down = !table.down;
  else Object.assign(table, { sort: key, down: !["question", "mode", "why"].includes(key) });
  $("sort").value = table.sort;
  drawMarkets();
}

function sorted(rows) {
  const column = COLUMNS.find((each) => each.key === table.sort);
  if (!column) return rows;
  const turn = table.down ? -1 : 1, low = (value) => value === null || value === undefined || value === "";
  return [...rows].sort((a, b) => {
    const [x, y] = [column.sort(a), column.sort(b)];
    if (low(x) || low(y)) return low(x) - low(y);
    return x < y ? -turn : x > y ? turn : 0;
  });
}

function makeRow(row) {
  const cells = COLUMNS.map((column) => h(column.nth ? "td" : "th", { class: `c-${column.key}`, role: column.nth ? "cell" : "rowheader", scope: column.nth ? null : "row", "data-name": column.full }));
  const button = h("button", { class: "outside" }, h("span"));
  cells[0].append(button, h("small", { class: "outside" }));
  COLUMNS.forEach((column, n) => { if (n) cells[n].append(h("span"), ...(column.sub ? [h("small")] : [])); });
  const node = h("tr", { role: "row", "data-market": row.market_id }, ...cells);
  node.addEventListener("click", () => choose(row.market_id, true));
  return node;
}

function fillRow(node, row) {
  trait(node, "data-mode", row.mode);
  trait(node, "aria-current", row.market_id === table.chosen ? "true" : null);
  const question = node.firstChild.firstChild;
  say(question.firstChild, title(row));
  say(node.firstChild.lastChild, reason(row));
  trait(question, "title", `${title(row)}\n${row.market_id}`);
  trait(question, "aria-pressed", String(row.market_id === table.chosen));
  for (let n = 1; n < COLUMNS.length; n++) {
    const column = COLUMNS[n], cell = node.children[n], text = column.text(row);
    say(cell.firstChild, text);
    if (column.sub) say(cell.lastChild, column.sub(row));
    if (column.tone) trait(cell, "data-tone", column.tone(row));
    trait(cell, "data-none", text === NONE || text === "" ? "" : null);
  }
  trait(node.children[COLUMNS.length - 1], "title", clean(row.why) || null);
}

function drawMarkets() {
  const { board } = seen;
  if (!board) return;
  const words = table.filter, fits = (row) => !words || title(row).toLowerCase().includes(words) || row.market_id.toLowerCase().includes(words) || row.why.toLowerCase().includes(words) || row.mode.includes(words);
  const shown = sorted(board.rows.filter((row) => fits(row) && (!table.which || WHICH[table.which](row))));
  for (const cell of find("thead tr", $("markets")).children) {
    const here = cell.classList.contains(`c-${table.sort}`);
    trait(cell, "aria-sort", here ? (table.down ? "descending" : "ascending") : null);
    say(find("i", cell), here ? (table.down ? "▼" : "▲") : "");
  }
  const silent = board.rows.filter((row) => !quoted(row)).length;
  say(find("h2 small", $("markets")), shown.length === board.rows.length ? `${count(board.rows.length)}${silent ? `, ${count(silent)} not quoted` : ""}` : `${count(shown.length)} of ${count(board.rows.length)}`);
  trait($("markets"), "data-rewards", board.rows.some((row) => finite(row.reward_usd_per_day)) ? "some" : "none");
  keyed(find("tbody", $("markets")), shown, (row) => row.market_id, makeRow, fillRow);
  const none = find(".none", $("markets"));
  show(none, !shown.length);
  say(none, board.rows.length ? "No market is like that." : "No market yet: the daemon is choosing, or its filters let none through. `llm-maker markets` tells why.");
}

function drawInventory(board) {
  const rows = held(board).sort((a, b) => b.worst_usd - a.worst_usd), most = Math.max(...rows.map((row) => row.worst_usd), 1e-9), shown = rows.slice(0, 12);
  show(find(".note", $("inventory")), rows.length > 0);
  show(find(".none", $("inventory")), !rows.length);
  say(find("h2", $("inventory")), rows.length ? `Inventory, ${many(rows.length, "market")}` : "Inventory");
  keyed(find("ol", $("inventory")), [...shown, ...(rows.length > shown.length ? [null] : [])], (row) => row?.market_id ?? "",
    (row) => (row ? h("li", {}, h("button", { class: "outside", onclick: () => choose(row.market_id, true) }), h("span", { class: "scale" }, h("i")), h("b"), h("small")) : h("li", { class: "note" })),
    (node, row) => {
      if (!row) return say(node, `and ${count(rows.length - shown.length)} smaller`);
      const [name, scale, size, worst] = node.children;
      say(name, title(row));
      trait(scale, "data-side", row.position > 0 ? "yes" : "no");
      scale.firstChild.style.width = `${(50 * row.worst_usd) / most}%`;
      say(size, shares(row.position));
      say(worst, usd(row.worst_usd));
    });
}
