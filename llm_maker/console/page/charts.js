// Curves over market time, drawn as SVG: axes, units, a read-out under the pointer or the arrow keys, holes where nothing is known.
const SVG = "http://www.w3.org/2000/svg";
const TIME_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

function s(tag, traits = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(traits)) if (value != null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Round steps that cut [low, high] in about `wanted` pieces. */
function steps(low, high, wanted) {
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw)), part = raw / power;
  const step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 2.5 ? 2.5 : part <= 5 ? 5 : 10), found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return { step, found };
}

function digitsOf(step) {
  for (let digits = 0; digits < 6; digits++) if (Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) < 1e-6) return digits;
  return 6;
}

function moment(ms, stepS) {
  const text = new Date(ms).toISOString();
  return stepS >= 86_400 ? text.slice(5, 10) : stepS >= 60 ? text.slice(11, 16) : text.slice(11, 19);
}

/**
 * One figure. `lines`: [{key, name, mark, step, fill}], the class of a line is `line-KEY`; `mark` is what it looks like in the legend.
 * `axis(value, digits)` words a tick, `word(value)` a value. `levels()`: [{value, name}] drawn where they are near.
 */
class Chart {
  constructor(host, { name, lines, axis, word, height = 132, zero = false, least = 0, band = null, empty = "Nothing to draw yet." }) {
    Object.assign(this, { host, name, lines, axis, word, height, zero, least, band, empty });
    this.data = null; this.at = null; this.levels = []; this.marks = []; this.onMark = null; this.due = false; this.remark = "";
    this.id = `fade-${host.id}`;
    this.legend = h("div", { class: "legend" });
    this.values = lines.map((line) => {
      const value = h("b");
      const entry = h("span", { class: `key key-${line.key}` }, h("i", { "aria-hidden": "true" }, line.mark ?? "━"), h("span", {}, line.name), value);
      this.legend.append(entry);
      return { entry, value };
    });
    this.when = h("time");
    this.note = h("span", { class: "level" });
    this.caption = h("figcaption", {}, h("span", { class: "name" }, name), this.when, this.note);
    this.svg = s("svg", { tabindex: "0", role: "img", height, "aria-label": name });
    this.none = h("p", { class: "none" }, empty);
    this.marked = h("p", { class: "marked outside", hidden: true });
    host.append(this.caption, this.legend, this.svg, this.none, this.marked);
    this.grid = s("g", { class: "grid" }); this.plot = s("g", { class: "plot" });
    this.pins = s("g", { class: "pins" }); this.cross = s("g", { class: "cross" });
    this.svg.append(this.grid, this.plot, this.pins, this.cross);
    this.svg.addEventListener("pointermove", (event) => this.point(this.over(event)));
    this.svg.addEventListener("pointerdown", (event) => this.point(this.over(event)));
    this.svg.addEventListener("pointerleave", () => { this.at = null; this.read(); });
    this.svg.addEventListener("click", (event) => { this.point(this.over(event)); if (this.near) this.onMark?.(this.near); });
    this.svg.addEventListener("keydown", (event) => this.press(event));
    this.svg.addEventListener("blur", () => { this.at = null; this.read(); });
    new ResizeObserver(() => this.later()).observe(this.svg.parentElement);
  }

  /** `ts`: ms, oldest first; `values`: by the key of a line; `marks`: [{ms, value, shape, letter, text, entry}]. */
  draw(ts, values, { levels = [], marks = [], fromMs = -Infinity } = {}) {
    let first = 0;
    while (first < ts.length && ts[first] < fromMs) first++;
    this.data = { ts: ts.slice(first), values: Object.fromEntries(this.lines.map(({ key }) => [key, (values[key] ?? []).slice(first)])) };
    this.levels = levels;
    this.marks = marks.filter((mark) => mark.ms >= fromMs);
    this.later();
  }

  later() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.paint(); });
  }

  range() {
    const { values } = this.data;
    let low = Infinity, high = -Infinity;
    const take = (value) => { if (finite(value)) { low = Math.min(low, value); high = Math.max(high, value); } };
    for (const { key } of this.lines) values[key].forEach(take);
    for (const mark of this.marks) take(mark.value);
    if (low > high) return null;
    if (this.zero) { take(0); }
    for (const level of this.levels) if (level.always || (level.value <= high + (high - low) * 1.5 && level.value >= low - (high - low) * 1.5)) take(level.value);
    const middle = (low + high) / 2, half = Math.max((high - low) / 2, this.least / 2, Math.abs(middle) * 1e-6, 1e-6) * 1.12;
    return this.zero && low >= 0 ? [0, Math.max(high, this.least) * 1.08] : this.zero && high <= 0 ? [Math.min(low, -this.least) * 1.08, 0] : [middle - half, middle + half];
  }

  paint() {
    const width = this.host.clientWidth - parseFloat(getComputedStyle(this.host).paddingLeft) - parseFloat(getComputedStyle(this.host).paddingRight);
    const data = this.data, range = data && data.ts.length > 1 ? this.range() : null;
    this.svg.toggleAttribute("hidden", range === null);
    show(this.none, range === null);
    show(this.legend, range !== null);
    if (range === null || width <= 0) return;
    trait(this.svg, "width", width);
    trait(this.svg, "viewBox", `0 0 ${width} ${this.height}`);
    const [low, high] = range, ticks = steps(low, high, Math.max(2, Math.round(this.height / 44))), digits = digitsOf(ticks.step);
    const words = ticks.found.map((value) => this.axis(value, digits));
    const left = 10 + 7.2 * Math.max(...words.map((text) => text.length)), right = width - 8, top = 8, bottom = this.height - 20;
    const t0 = data.ts[0], t1 = Math.max(data.ts.at(-1), t0 + 1_000);
    this.x = (ms) => left + ((ms - t0) / (t1 - t0)) * (right - left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    this.box = { left, right, top, bottom };
    this.paintGrid(ticks.found, words, t0, t1);
    this.paintLines();
    this.paintMarks();
    this.read();
  }

  paintGrid(found, words, t0, t1) {
    const { left, right, top, bottom } = this.box, nodes = [];
    found.forEach((value, n) => {
      const y = Math.round(this.y(value)) + 0.5;
      nodes.push(s("line", { x1: left, x2: right, y1: y, y2: y, class: Math.abs(value) < 1e-12 ? "naught" : null }));
      nodes.push(s("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, words[n]));
    });
    const room = Math.max(2, Math.floor((right - left) / 76)), stepS = TIME_STEPS_S.find((step) => (t1 - t0) / 1_000 / step <= room) ?? Math.ceil((t1 - t0) / 1_000 / room / 86_400) * 86_400;
    for (let ms = Math.ceil(t0 / (stepS * 1_000)) * stepS * 1_000; ms <= t1; ms += stepS * 1_000) {
      const x = Math.round(this.x(ms)) + 0.5;
      nodes.push(s("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      if (x > left + 14 && x < right - 18) nodes.push(s("text", { x, y: bottom + 16, "text-anchor": "middle" }, moment(ms, stepS)));
    }
    for (const { value, name } of this.levels) {
      const y = this.y(value);
      if (y < top - 2 || y > bottom + 2) continue;
      nodes.push(s("line", { x1: left, x2: right, y1: y, y2: y, class: "limit" }));
      nodes.push(s("text", { x: right - 2, y: y < top + 14 ? y + 13 : y - 5, "text-anchor": "end", class: "limit" }, name));
    }
    this.grid.replaceChildren(...nodes);
    say(this.note, [this.remark, ...this.levels.filter(({ value }) => this.y(value) < top - 2 || this.y(value) > bottom + 2).map(({ value, name }) => `${this.y(value) < top ? "↑" : "↓"} ${name}`)].filter(Boolean).join("; "));
    trait(this.note, "title", this.levels.length ? "An arrow: beyond this picture" : null);
  }

  /** Pieces of a line without holes, each a list of [x, y]. */
  pieces(key, step) {
    const { ts, values } = this.data, found = [];
    let piece = null;
    values[key].forEach((value, n) => {
      if (!finite(value)) { piece = null; return; }
      const x = this.x(ts[n]), y = this.y(value);
      if (!piece) found.push((piece = []));
      else if (step) piece.push([x, piece.at(-1)[1]]);
      piece.push([x, y]);
    });
    return found;
  }

  paintLines() {
    const nodes = [], path = (points) => points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    if (this.band) nodes.push(...this.bands(path));
    for (const { key, step, fill } of this.lines) {
      const pieces = this.pieces(key, step);
      if (fill) {
        const base = Math.min(this.box.bottom, Math.max(this.box.top, this.y(0)));
        const areas = pieces.map((points) => `${path(points)}L${points.at(-1)[0].toFixed(1)} ${base}L${points[0][0].toFixed(1)} ${base}Z`);
        nodes.push(s("path", { d: areas.join(""), class: `area area-${key}` }));
      }
      nodes.push(s("path", { d: pieces.map((points) => (points.length > 1 ? path(points) : `${path(points)}h1`)).join(""), class: `line line-${key}` }));
    }
    this.plot.replaceChildren(...nodes);
  }

  /** Between two lines, wherever both are. */
  bands(path) {
    const { ts, values } = this.data, [low, high] = this.band, found = [];
    for (let n = 0; n + 1 < ts.length; n++) {
      const a = values[low][n], b = values[high][n];
      if (!finite(a) || !finite(b)) continue;
      let to = n + 1;
      while (to + 1 < ts.length && values[low][to] === a && values[high][to] === b) to++;
      const [x0, x1, y0, y1] = [this.x(ts[n]), this.x(ts[to]), this.y(a), this.y(b)];
      found.push(path([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) + "Z");
      n = to - 1;
    }
    return [s("path", { d: found.join(""), class: "band" })];
  }

  paintMarks() {
    const { top, left, right } = this.box;
    let beside = -Infinity;
    this.pins.replaceChildren(...this.marks.flatMap((mark) => {
      const x = (mark.x = this.x(mark.ms)), dense = mark.shape === "signal" && x - beside < 14;
      if (mark.shape === "signal" && !dense) beside = x;
      if (x < left - 1 || x > right + 9) return [];
      const y = (mark.y = finite(mark.value) ? this.y(mark.value) : top + 7);
      const shape = { buy: `M${x} ${y - 6}l5.5 10h-11z`, sell: `M${x} ${y + 6}l5.5 -10h-11z`, signal: dense ? `M${x} ${y - 3}l3 3l-3 3l-3 -3z` : `M${x} ${y - 7}l7 7l-7 7l-7 -7z` }[mark.shape];
      const body = s("path", { d: shape, class: `pin pin-${mark.shape} ${mark.tone ?? ""}` });
      return mark.letter && !dense ? [body, s("text", { x, y: y + 3.5, "text-anchor": "middle", class: `pin-letter ${mark.tone ?? ""}` }, mark.letter)] : [body];
    }));
  }

  over(event) {
    return event.clientX - this.svg.getBoundingClientRect().left;
  }

  point(x) {
    if (!this.data?.ts.length || !this.box) return;
    const { ts } = this.data;
    const ms = ts[0] + ((x - this.box.left) / (this.box.right - this.box.left)) * (ts.at(-1) - ts[0]);
    let low = 0, high = ts.length - 1;
    while (low < high) { const middle = (low + high) >> 1; ts[middle] < ms ? (low = middle + 1) : (high = middle); }
    this.at = low > 0 && ms - ts[low - 1] < ts[low] - ms ? low - 1 : low;
    this.near = this.marks.filter((mark) => Math.abs(mark.x - x) < 9).sort((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x))[0] ?? null;
    this.read();
  }

  press(event) {
    const last = (this.data?.ts.length ?? 0) - 1, jump = event.shiftKey ? 10 : 1, at = this.at ?? last;
    const to = { ArrowLeft: at - jump, ArrowRight: at + jump, Home: 0, End: last }[event.key];
    if (event.key === "Enter" && this.near) this.onMark?.(this.near);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.point(this.x(this.data.ts[Math.min(last, Math.max(0, to))]));
    say($("spoken"), `${this.name}, ${moment(this.data.ts[this.at], 1)}: ${this.lines.map(({ key, name }) => `${name} ${this.word(this.data.values[key][this.at], key)}`).join(", ")}${this.near ? `; ${this.near.text}` : ""}`);
  }

  /** The legend tells what is under the pointer, or what is newest. */
  read() {
    if (!this.data?.ts.length || !this.box) return;
    const { ts, values } = this.data, n = this.at === null ? ts.length - 1 : Math.min(this.at, ts.length - 1);
    this.lines.forEach(({ key }, line) => {
      say(this.values[line].value, this.word(values[key][n], key));
      show(this.values[line].entry, values[key].some(finite));
    });
    say(this.when, this.at === null ? "" : moment(ts[n], 1));
    if (this.at === null) this.near = null;
    show(this.marked, this.near != null);
    say(this.marked, this.near ? this.near.text : "");
    const x = this.x(ts[n]), { top, bottom } = this.box;
    const dots = this.lines.filter(({ key }) => finite(values[key][n])).map(({ key }) => s("circle", { cx: x, cy: this.y(values[key][n]), r: 3, class: `dot dot-${key}` }));
    this.cross.replaceChildren(...(this.at === null ? [] : [s("line", { x1: x, x2: x, y1: top, y2: bottom })]), ...dots);
    trait(this.svg, "aria-label", `${this.name}, ${moment(ts[0], 1)} to ${moment(ts.at(-1), 1)} UTC; now ${this.lines.map((line) => `${line.name} ${this.word(values[line.key].at(-1), line.key)}`).join(", ")}. Arrow keys read earlier values.`);
  }
}

/** What each model's opinions were worth: the slope of later prices on what it said, with its 95 % interval; 0 is worth nothing, 1 as much as said. */
function worth(host, skills) {
  const shown = skills.filter((skill) => finite(skill.slope)), ends = shown.flatMap((skill) => [skill.slope, skill.slope_low, skill.slope_high]).filter(finite);
  const low = Math.max(-3, Math.min(-0.2, ...ends)), high = Math.min(4, Math.max(1.2, ...ends)), width = 280, left = 6, right = width - 6;
  const x = (value) => left + ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (right - left);
  const items = skills.map((skill) => {
    const { n, slope, slope_low: from, slope_high: to } = skill, drawn = finite(slope), range = finite(from) && finite(to) ? `95 %: ${minus(fixed(from, 2))} to ${minus(fixed(to, 2))}` : "interval not known";
    const words = drawn ? `slope ${minus(fixed(slope, 2))}, ${range}` : "slope not known yet";
    const nodes = drawn ? [s("line", { x1: left, x2: right, y1: 11, y2: 11 }), ...[0, 1].map((value) => s("line", { x1: x(value), x2: x(value), y1: 3, y2: 19, class: value ? "limit" : "naught" }))] : [];
    if (drawn && finite(from) && finite(to)) nodes.push(s("line", { x1: x(from), x2: x(to), y1: 11, y2: 11, class: "interval" }));
    if (drawn) nodes.push(s("circle", { cx: x(slope), cy: 11, r: 4.5, class: "bin" }));
    const scores = skill.outcomes ? `${many(skill.outcomes, "outcome")}${finite(skill.brier) ? `, Brier ${fixed(skill.brier, 3)}` : ""}${finite(skill.brier_market) ? ` (market ${fixed(skill.brier_market, 3)})` : ""}` : "no outcome yet";
    return h("li", {}, h("p", { class: "outside" }, h("b", {}, `${clean(skill.model)}${skill.category ? `, ${clean(skill.category)}` : ""}`), ` weight ${fixed(skill.weight ?? 0, 3)}`),
      ...(drawn ? [s("svg", { viewBox: `0 0 ${width} 22`, role: "img", "aria-label": words }, s("g", { class: "grid" }, ...nodes))] : []),
      h("small", { class: "outside" }, `${words}; ${many(n ?? 0, "opinion")}, ${scores}. ${skill.measured ? "" : "Not measured yet: the weight is the prior. "}${clean(skill.why)}`));
  });
  const none = h("p", { class: "none" }, "Nothing measured yet: its weight is the prior.");
  const note = h("span", { class: "level" }, "what later prices made of its words; 0: nothing, 1: as much as it said");
  host.replaceChildren(h("figcaption", {}, h("span", { class: "name" }, "Calibration"), ...(shown.length ? [note] : [])), items.length ? h("ol", { class: "worth" }, ...items) : none);
}
