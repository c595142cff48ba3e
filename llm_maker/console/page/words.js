// Numbers as words, and the smallest of helpers for the document. What comes from outside becomes text and nothing else.
const NONE = "–";
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+/g;
const S = 1_000_000_000;

const $ = (id) => document.getElementById(id);
const find = (query, within = document) => within.querySelector(query);

/** Without control characters and marks that turn the direction of writing. */
function clean(text) {
  return String(text ?? "").replace(CONTROL, " ").trim();
}

/** An element; children are elements or text. */
function h(tag, traits = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** The text of an element, touched only when it is another. */
function say(node, text) {
  text = String(text);
  if (node.said === text) return;
  node.said = text;
  node.textContent = text;
}

function trait(node, name, value) {
  if (value == null || value === false) { if (node.hasAttribute(name)) node.removeAttribute(name); }
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** The children of a parent made to be these items, in this order; nodes stay while their key stays, and so does the focus. */
function keyed(parent, items, keyOf, make, fill) {
  const kept = (parent.kept ??= new Map()), seen = new Set(), focus = document.activeElement;
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) continue;
    let node = kept.get(key);
    if (!node) kept.set(key, (node = make(item)));
    seen.add(key);
    fill(node, item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const [key, node] of kept) {
    if (seen.has(key)) continue;
    node.remove();
    kept.delete(key);
  }
  if (focus !== document.activeElement && parent.contains(focus)) focus.focus({ preventScroll: true });
}

/** A definition list made to be these [term, value, note, level]. */
function pairs(list, items) {
  keyed(list, items, ([term]) => term,
    ([term]) => h("div", {}, h("dt", {}, term), h("dd", { class: "outside" })),
    (node, [, value, level]) => { say(node.lastChild, value); trait(node, "data-level", level || null); });
}

const formats = new Map();
function fixed(value, digits, least = digits) {
  const key = digits * 32 + least;
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat("en-US", { minimumFractionDigits: least, maximumFractionDigits: digits }));
  }
  return formats.get(key).format(value);
}

const finite = (value) => typeof value === "number" && Number.isFinite(value);
const minus = (text) => (/[1-9]/.test(text) ? text.replace("-", "−") : text.replace("-", ""));

function usd(value, digits = 2) {
  if (!finite(value)) return NONE;
  const text = fixed(Math.abs(value), digits);
  return value < 0 && /[1-9]/.test(text) ? `−$${text}` : `$${text}`;
}

function change(value, digits = 2) {
  if (!finite(value)) return NONE;
  const text = fixed(Math.abs(value), digits);
  return !/[1-9]/.test(text) ? `$${text}` : `${value < 0 ? "−" : "+"}$${text}`;
}

/** Small sums need more digits to be anything. */
const cost = (value) => usd(value, finite(value) && value !== 0 && Math.abs(value) < 1 ? 4 : 2);

/** A price; 0 and unknown are no price. */
function price(value) {
  if (!finite(value) || value === 0) return NONE;
  return value < 2 ? fixed(value, 4, 2) : fixed(value, value < 1_000 ? 4 : 2, 2);
}

const count = (value) => (finite(value) ? fixed(value, 0) : NONE);
const shares = (value) => (finite(value) ? minus(fixed(value, Math.abs(value) < 100 ? 2 : 1, 0)) : NONE);
const percent = (value, digits = 0) => (finite(value) ? `${minus(fixed(100 * value, digits))} %` : NONE);
const many = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

function span(seconds) {
  if (!finite(seconds)) return NONE;
  if (seconds < 0) seconds = 0;
  if (seconds < 9.95) return `${fixed(seconds, 1, 0)} s`;
  if (seconds < 120) return `${fixed(seconds, 0)} s`;
  if (seconds < 7_200) return `${fixed(seconds / 60, 0)} min`;
  if (seconds < 172_800) return `${fixed(seconds / 3_600, 1, 0)} h`;
  return `${fixed(seconds / 86_400, 1, 0)} d`;
}

/** Nanoseconds of market time, UTC; the day only where it is not the day of `beside`. */
function clock(ns, beside = null) {
  if (!finite(ns) || ns <= 0) return NONE;
  const text = new Date(ns / 1e6).toISOString();
  const same = beside !== null && text.slice(0, 10) === new Date(beside / 1e6).toISOString().slice(0, 10);
  return same ? text.slice(11, 19) : `${text.slice(0, 10)} ${text.slice(11, 19)}`;
}

/** What helps, in words; what stands between back-quotes is a command. */
function helps(node, cure) {
  const text = clean(cure);
  if (node.said === text) return;
  node.said = text;
  node.replaceChildren("what helps: ", ...text.split(/`([^`]+)`/).map((part, n) => (n % 2 ? h("code", {}, part) : part)));
}

const hour = (date = new Date()) => date.toTimeString().slice(0, 8);
const short = (text, most = 70) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const title = (row) => clean(row.question) || row.market_id;
const MODES = { active: ["▶", "Active"], reduce_only: ["◐", "Reduce only"], halted: ["■", "Halted"] };
const modeOf = (mode) => MODES[mode] ?? ["?", clean(mode)];
const ACTIONS = { buy_yes: "buy YES", buy_no: "buy NO", sell_yes: "sell YES", sell_no: "sell NO", hold: "hold", exit: "exit" };
const actionOf = (action) => ACTIONS[action] ?? clean(action);
const sign = (value) => (!finite(value) || Math.abs(value) < 0.005 ? "flat" : value > 0 ? "up" : "down");
