// Joins the parts: the door, the pictures as they come, and the age of the last one.
const live = { hearing: 0, historyMs: 0, due: false };

/** What was heard of another run of the daemon is forgotten: its numbers count anew. */
function beginAnew(board) {
  for (const list of [find(".entries", $("stream")), $("lately")]) {
    list.kept?.clear();
    list.replaceChildren();
  }
  Object.assign(news, { entries: [], counts: {} });
  seen.past = null;
  Object.assign(one, { past: null, pastMs: 0, opinion: null });
  live.historyMs = 0;
  wire.killed = false;
  answer("ok", `The daemon was started anew: session ${count(board.session)}.`);
}

function hear(board) {
  const before = seen.board;
  if (before && (board.session !== before.session || board.started_ns !== before.started_ns || board.last < wire.since)) {
    beginAnew(board);
    if (wire.since > 0) takeUpAnew();
  }
  seen.board = board;
  const fresh = board.tail.filter((entry) => entry.n > (news.entries.at(-1)?.n ?? 0));
  if (!wire.anew) hearEntries(fresh);
  if (!wire.anew) wire.since = board.last;
  if (!live.due) {
    live.due = true;
    requestAnimationFrame(() => { live.due = false; draw(); });
  }
  askHistory();
  askMarket();
}

function draw() {
  const { board } = seen;
  show($("door"), false);
  show($("main"), true);
  show($("acts"), true);
  header(board);
  const level = drawVerdict(board);
  drawAlarms(board);
  drawWaiting(board);
  drawMoney(board);
  drawCurves();
  drawMarkets();
  if (!table.chosen && board.rows.length) choose(board.rows[0].market_id);
  drawMarket();
  drawInventory(board);
  drawStream();
  drawModel(board);
  drawHealth(board);
  drawActs(board);
  const side = change(board.money.today ?? board.money.pnl);
  document.title = `${isStale() ? "OLD " : level === "ok" ? "" : `${ICONS[level]} `}${side} · ${board.account} · ${board.real_money ? "REAL MONEY" : "paper"}`;
  say($("foot"), `llm_maker ${clean(board.version)}. Times are market time, UTC. ${board.simulated ? "The market is simulated: its figures show that the machine works, not that it would earn." : board.real_money ? "" : "Paper money: no order leaves that machine’s own exchange."}`);
}

async function askHistory() {
  if (document.hidden || Date.now() - live.historyMs < HISTORY_MS) return;
  live.historyMs = Date.now();
  try {
    seen.past = await call("/api/history");
    const bins = JSON.stringify(seen.past.calibration ?? []);
    if (live.bins !== bins) worth($("calibration"), seen.past.calibration ?? []);
    live.bins = bins;
    drawCurves();
  } catch { /* the stream tells whether the daemon is there; the curves stay as they were */ }
}

const LINKS = { live: ["●", "live"], connecting: ["◌", "connecting"], lost: ["○", "no connection"], closed: ["○", "no key"], refused: ["○", "key refused"] };

/** Called on every change of the link and once a second: an old picture must never look live. */
function linked() {
  const { state } = wire, stale = isStale(), age = oldness(), root = document.documentElement;
  trait(root, "data-state", state === "live" && stale ? "stale" : state);
  trait(root, "data-stale", stale ? "" : null);
  const [icon, word] = state === "live" && stale ? ["○", "silent"] : LINKS[state];
  say(find("i", $("link")), icon);
  say(find("b", $("link")), word);
  const old = $("old"), doorOpen = state === "closed" || state === "refused";
  show(old, !doorOpen && (stale || (state === "lost" && !seen.board)));
  if (!old.hidden) {
    const left = Math.max(0, (wire.retryMs - Date.now()) / 1_000), since = wire.heardMs ? hour(new Date(wire.heardMs)) : "";
    say(find("b", old), wire.killed ? "Killed: the daemon has ended." : wire.heardMs ? `Old picture, of ${since}.` : "No connection.");
    const words = [wire.heardMs ? `Nothing has been heard for ${span(Math.floor(age))}.` : "", wire.killed ? "What was canceled and proved stands in its log; llm-maker on that machine starts it again." : wire.why ? `${clean(wire.why)}.` : "", state === "lost" && left > 0.5 ? `Trying again in ${Math.ceil(left)} s.` : ""];
    say(find("span", old), words.filter(Boolean).join(" "));
  }
  if (doorOpen) {
    show($("door"), true);
    show($("main"), false);
    show($("acts"), false);
    if ($("ask").open) $("ask").close();
    say($("door-why"), wire.why || "It is not in this address, and this tab has not been given one.");
    trait($("door-why"), "class", state === "refused" ? "warn" : "");
  }
  if (stale && !document.title.startsWith("OLD")) document.title = `OLD ${document.title}`;
}

function forget() {
  keep("");
  wire.why = "Forgotten.";
  wire.heardMs = 0;
  wire.stop?.abort();
  wire.wake?.();
  linked();
}

/** Begins with this key; an earlier run of it ends. */
async function enter(key) {
  const turn = ++live.hearing;
  wire.stop?.abort();
  keep(key);
  Object.assign(wire, { since: 0, tries: 0, state: "closed", heardMs: 0, lostMs: 0, why: "", killed: false });
  news.entries = [];
  show($("door"), false);
  const mine = (action) => (...args) => { if (turn === live.hearing) action(...args); };
  await follow(mine(hear), mine(linked), () => turn === live.hearing);
}

for (const [name, ms] of RANGES) {
  const button = h("button", { "aria-pressed": String(ms === seen.rangeMs) }, name);
  button.addEventListener("click", () => {
    seen.rangeMs = ms;
    for (const each of $("range").children) trait(each, "aria-pressed", String(each === button));
    drawCurves();
    drawMarket();
  });
  $("range").append(button);
}
makeTable();
makeKinds();
makeActs();
$("alarms-more").addEventListener("click", () => { seen.allAlarms = !seen.allAlarms; drawAlarms(seen.board); });
$("retry").addEventListener("click", () => { wire.tries = 0; wire.wake?.(); });
$("door-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = $("key").value.trim();
  $("key").value = "";
  enter(keyIn(typed) || typed);
});
window.addEventListener("hashchange", () => { const given = takeKey(); if (given) enter(given); });
window.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "") || $("ask").open;
  if (event.key === "/" && !typing && !$("main").hidden) { event.preventDefault(); $("filter").focus(); }
  if (event.key === "Escape" && document.activeElement === $("filter")) { $("filter").value = ""; table.filter = ""; drawMarkets(); }
});
show($("acts"), false);
setInterval(linked, 1_000);
const given = takeKey() || kept();
if (given) enter(given);
else linked();
