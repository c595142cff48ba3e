// What a person may do, each said in words and numbers before it is done, and what the daemon answered.
const ACTS = {
  pause: {
    name: "Pause", does: (board, row) => [row ? `Cancels what rests of ours in this market and quotes nothing here until you resume it.` : `${cancels(board)} Nothing is quoted in ${many(board.rows.length, "market")} until you resume.`, stays(board, row)],
  },
  resume: {
    name: "Resume", does: (board, row) => (row ? ["This market may be quoted again, where its gates are open."] : [`Quoting goes on in ${many(board.rows.length, "market")}, where their gates are open.`, board.mode === "halted" ? `A halt that waits for a person is lifted${board.why ? `; now: ${clean(board.why)}` : ""}.` : "Markets that were paused one by one stay paused."]),
  },
  reduce: {
    name: "Reduce only", does: (board, row) => [row ? "From now on orders here only make its position smaller; the others are canceled." : `From now on orders only make positions smaller: ${many(held(board).length, "position")}. What would add is canceled, until you resume.`, stays(board, row)],
  },
  cancel_all: {
    name: "Cancel all", does: (board, row) => [row ? "Cancels every order of ours in this market, and it stays paused until you resume it." : `${cancels(board)} It stays paused until you resume. Orders that are not ours stay${board.foreign_orders ? ` (${count(board.foreign_orders)})` : ""}.`, stays(board, row)],
  },
  flatten: {
    name: "Flatten", does: (board, row) => [row ? `Leaves ${shares(row.position)} shares, as maker at the touch, and stays reduce-only here.` : `Leaves ${many(held(board).length, "position")}, as maker at the touch, and stays reduce-only until you resume.`],
    extra: (board, row) => h("label", { class: "check" }, h("input", { type: "checkbox", id: "ask-take" }), row ? " Cross the spread at once, and pay the spread and the fee" : ` Cross the spread at once: costs about ${usd(board.money.equity - board.money.exit)} with fees`),
  },
  kill: {
    name: "Kill", whole: true, grave: true,
    does: (board) => [`${cancels(board)} Then it waits for the proof that nothing rests, and the daemon ends: this page goes silent.`, `Positions stay: ${many(held(board).length, "position")}, and nobody watches their stops. All that rests and is held could lose ${usd(board.money.exposure)} at worst.`, "To start again somebody must run llm-maker on that machine."],
    extra: () => h("label", { class: "typed" }, h("span", {}, "Type ", h("code", {}, "kill"), " to go on"), h("input", { id: "ask-word", autocomplete: "off", autocapitalize: "off", spellcheck: "false" })),
  },
};
const READ_ONLY = "This link may only look. `llm-maker page` prints one that may act.";

const cancels = (board) => (board.orders ? `Cancels ${board.orders === 1 ? "the one working order" : `all ${count(board.orders)} working orders`} of ours.` : "No order of ours is working now.");

function stays(board, row) {
  if (row) return row.position ? `Its position stays: ${shares(row.position)} shares, ${usd(row.worst_usd)} at worst with what rests.` : "It holds no position.";
  const n = held(board).length;
  return n ? `Positions stay: ${many(n, "position")}; ${usd(board.money.exposure)} at worst with what rests.` : "No position is held.";
}

const asked = { send: null };

/** Opens the dialog: `parts` are nodes, `send` acts and returns what to say. */
function ask(name, parts, { yes = name, grave = false, send }) {
  const { board } = seen, dialog = $("ask");
  asked.send = send;
  say($("ask-title"), name);
  say($("ask-money"), `${board.real_money ? "REAL MONEY" : "PAPER"}${board.simulated ? ", SIMULATED" : ""}: ${clean(board.account)} on ${clean(board.venue)}`);
  trait($("ask-money"), "class", board.real_money ? "badge real" : "badge paper");
  $("ask-body").replaceChildren(...parts);
  say($("ask-yes"), yes);
  trait($("ask-yes"), "class", grave ? "primary kill" : "primary");
  $("ask-yes").disabled = send === null;
  show($("ask-yes"), send !== null);
  show($("ask-stale"), isStale());
  say($("ask-stale"), isStale() ? `This picture is ${span(oldness())} old: the numbers may be wrong, and the daemon may not hear.` : "");
  if (!dialog.open) dialog.showModal();
}

function askAct(verb, row = null) {
  const { board } = seen, act = ACTS[verb];
  if (!board || wire.readOnly) return;
  if (act.whole) row = null;
  const parts = [];
  if (row || !act.whole) parts.push(h("p", { class: "scope outside" }, row ? `Only “${title(row)}”` : "Every market"));
  parts.push(h("ul", {}, ...act.does(board, row).map((line) => h("li", { class: "outside" }, line))));
  const extra = act.extra?.(board, row);
  if (extra) parts.push(extra);
  ask(`${act.name}${row || act.whole ? "" : act.name.endsWith("all") ? "" : " all"}`, parts, {
    yes: verb === "cancel_all" && row ? "Cancel its orders" : act.name, grave: act.grave,
    send: () => send(verb, { ...(row ? { market: row.market_id } : {}), ...($("ask-take")?.checked ? { take: true } : {}) }, act.name, row),
  });
  const word = $("ask-word");
  if (!word) return;
  $("ask-yes").disabled = true;
  word.addEventListener("input", () => { $("ask-yes").disabled = word.value.trim().toLowerCase() !== "kill"; });
  word.focus();
}

function askApproval(intent) {
  const row = seen.board?.rows.find((each) => each.market_id === intent.market_id);
  if (!seen.board || wire.readOnly) return;
  const lines = [`${clean(intent.who) || "Somebody"} wishes to hold ${shares(intent.target)} shares (YES; minus is NO) of “${row ? title(row) : clean(intent.market_id)}”; held now: ${shares(row?.position ?? null)}.`, `Why: ${clean(intent.reason) || "not told"}.`, "It passes the same gates and limits as everything else."];
  ask("Approve", [h("ul", {}, ...lines.map((line) => h("li", { class: "outside" }, line)))], { send: () => send("approve", { intent_id: intent.intent_id }, "Approve", row) });
}

async function send(verb, body, name, row) {
  const where = row ? ` for “${title(row)}”` : "";
  answer("busy", `${name}${where}: asked, waiting for the daemon…`);
  try {
    const told = await call(`/api/act/${verb}`, body);
    if (verb === "kill") wire.killed = true;
    const word = { kill: "taken; the daemon cancels, proves it and ends", approve: "taken; the stream tells how it goes", flatten: "taken; the stream tells how it goes" }[verb] ?? "done";
    answer("ok", `${name}${where}: ${word} (${hour()}).`);
    return told;
  } catch (error) {
    if (error instanceof Told) answer("error", `${name}${where}: refused. ${error.message}`);
    else answer("error", `${name}${where}: no answer, so it may or may not have been done. On the machine: llm-maker ${verb.replace("_", "-")}${verb === "kill" ? ", or touch the file KILL in its home" : ""}.`);
    return null;
  }
}

function answer(level, text) {
  trait($("answer"), "data-level", level);
  say(find("p", $("answer")), `${{ ok: "✓ ", error: "✕ ", busy: "… " }[level]}${text}`);
  show($("answer"), true);
}

const limitOf = ({ unit }, value) => (unit === "usd" ? usd(value) : `${fixed(value, 4, 0)} ${clean(unit)}`);

async function askReload() {
  const wait = h("p", {}, "Reading the file…");
  ask("Reload the configuration", [wait], { send: null });
  try {
    const told = await call("/api/changes"), changes = told.changes ?? [], barred = changes.filter((each) => each.allowed === false);
    const rows = changes.map((each) => h("tr", { "data-level": each.allowed === false ? "error" : null }, h("th", { scope: "row" }, clean(each.key)), h("td", {}, clean(each.before)), h("td", {}, clean(each.after)), h("td", {}, each.allowed === false ? `✕ ${clean(each.why)}` : "✓ while running")));
    const parts = changes.length
      ? [h("div", { class: "scroll" }, h("table", { class: "changes" }, h("thead", {}, h("tr", {}, ...["key", "now", "then", ""].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows))), h("ul", {}, ...(told.limits ?? []).map((limit) => h("li", { class: "outside" }, `${clean(limit.name)}: ${limitOf(limit, limit.before)} → ${limitOf(limit, limit.after)}${limit.raises ? ", more may be lost" : ""}`)), ...(told.effects ?? []).map((line) => h("li", { class: "outside" }, clean(line))))]
      : [h("p", {}, "The file says what is in force: nothing would change.")];
    if (barred.length) parts.push(h("p", { class: "warn" }, "Nothing can be applied while a key that may not change while running has changed: put it back, or restart."));
    if (told.raises_risk) parts.unshift(h("p", { class: "warn" }, `! More may be lost afterwards than now${told.real_money ? ", and it is real money" : ""}.`));
    const may = changes.length && !barred.length && told.allowed !== false && !wire.readOnly;
    ask("Reload the configuration", parts, { yes: "Apply", send: may ? () => send("reload", { plan: told.plan }, "Reload", null) : null });
  } catch (error) {
    wait.textContent = `The daemon did not tell: ${error instanceof Told ? error.message : "no answer"}`;
  }
}

function askMore() {
  const parts = [h("p", { class: "stack" },
    h("button", { type: "button", "data-act": "flatten", disabled: wire.readOnly, onclick: () => { $("ask").close(); askAct("flatten"); } }, "Flatten every position…"),
    h("button", { type: "button", onclick: askReload }, "Reload the configuration…"),
    h("button", { type: "button", onclick: () => { $("ask").close(); forget(); } }, "Forget the key in this tab")),
    h("p", { class: "note" }, "Not here on purpose: adopt, split and intend, which need thought and a terminal (llm-maker --help).")];
  if (wire.readOnly) parts.unshift(h("p", { class: "warn" }, READ_ONLY));
  ask("More", parts, { send: null });
}

/** Buttons that act are dead for a key that only looks, and say so. */
function drawActs(board) {
  for (const button of document.querySelectorAll("[data-act]")) {
    const idle = button.dataset.act === "resume" && button.closest("#acts") && board.mode === "active";
    button.disabled = wire.readOnly;
    trait(button, "data-idle", idle ? "" : null);
    trait(button, "title", wire.readOnly ? READ_ONLY : null);
  }
}

function makeActs() {
  for (const button of $("acts").querySelectorAll("[data-act]")) button.addEventListener("click", () => askAct(button.dataset.act));
  for (const button of $("market-acts").children) button.addEventListener("click", () => askAct(button.dataset.act, seen.board?.rows.find((row) => row.market_id === table.chosen) ?? null));
  $("more").addEventListener("click", askMore);
  $("ask-no").addEventListener("click", () => $("ask").close());
  $("ask").addEventListener("close", () => { asked.send = null; });
  find("form", $("ask")).addEventListener("submit", (event) => {
    event.preventDefault();
    const { send } = asked;
    if (!send || $("ask-yes").disabled) return;
    $("ask").close();
    send();
  });
  $("answer-close").addEventListener("click", () => show($("answer"), false));
}
