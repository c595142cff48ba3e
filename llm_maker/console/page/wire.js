// The way to the daemon: the key, requests, and one stream of pictures that is taken up again whenever it breaks.
const STORE = "llm-maker-key";
const STALE_MS = 4_000, DEAF_MS = 12_000, WAIT_MS = 10_000;
const BACK_OFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000];

class Told extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

const wire = {
  key: "", readOnly: false, state: "closed", why: "", since: 0, tries: 0, heardMs: 0, lostMs: 0, retryMs: 0, killed: false, anew: false, stop: null, wake: null,
};

/** Takes the key out of the address, so that neither a glance nor the history shows it. */
function takeKey() {
  const given = keyIn(location.hash);
  if (given) {
    keep(given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given;
}

/** The key of a link or of a plain key as pasted. */
function keyIn(text) {
  const found = /(?:#|^|&)key=([^&\s]+)/.exec(text.slice(Math.max(0, text.indexOf("#"))));
  if (!found) return "";
  try { return decodeURIComponent(found[1]); } catch { return found[1]; }
}

function keep(key) {
  wire.key = key;
  try { key ? sessionStorage.setItem(STORE, key) : sessionStorage.removeItem(STORE); } catch { /* a browser that keeps nothing */ }
}

function kept() {
  try { return sessionStorage.getItem(STORE) ?? ""; } catch { return ""; }
}

/** One request; throws `Told` where the daemon refuses, and what `fetch` throws where it is not there. */
async function call(path, body) {
  const headers = { Authorization: `Bearer ${wire.key}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers, cache: "no-store", credentials: "omit",
    body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(WAIT_MS),
  });
  let told;
  try { told = await answer.json(); } catch { throw new Told(answer.status, `status ${answer.status}, no JSON`); }
  if (!answer.ok || told.ok === false) throw new Told(answer.status, clean(told.error) || `status ${answer.status}`);
  return told;
}

/** Hands every picture to `hear`, until the key is wrong or this is no longer the one that is `wanted`. */
async function follow(hear, changed, wanted) {
  const link = (state, why = "") => { wire.state = state; wire.why = why; changed(); };
  while (wire.key && wanted()) {
    if (wire.state !== "live") link(wire.heardMs ? "lost" : "connecting", wire.why);
    wire.anew = false;
    try {
      wire.readOnly = (await call("/api/me")).read_only === true;
      await stream((board) => { wire.tries = 0; wire.heardMs = Date.now(); wire.lostMs = 0; link("live"); hear(board); });
      wire.why = "The daemon closed the stream";
    } catch (error) {
      if (error instanceof Told && error.status === 401) {
        if (!wanted()) return;
        keep("");
        return link("refused", "That key does not open this daemon: it is another daemon’s, or was made anew.");
      }
      wire.why = error instanceof Told ? error.message : "No answer: the daemon has stopped, or the way to it is cut";
    }
    if (!wanted() || !wire.key || wire.anew) continue;
    wire.lostMs ||= Date.now();
    const wait = BACK_OFF_MS[Math.min(wire.tries, BACK_OFF_MS.length - 1)] * (0.8 + 0.4 * Math.random());
    wire.tries += 1;
    wire.retryMs = Date.now() + wait;
    link("lost", wire.why);
    await new Promise((done) => { wire.wake = done; setTimeout(done, wait); });
  }
  if (wanted()) link("closed");
}

/** The stream from its very beginning, at once. */
function takeUpAnew() {
  Object.assign(wire, { since: 0, anew: true });
  wire.stop?.abort();
}

async function stream(hear) {
  const stop = (wire.stop = new AbortController());
  let heard = Date.now();
  const guard = setInterval(() => { if (Date.now() - heard > DEAF_MS) stop.abort(); }, 1_000);
  try {
    const headers = { Authorization: `Bearer ${wire.key}`, Accept: "text/event-stream" };
    const answer = await fetch(`/api/stream?since=${wire.since}`, { headers, cache: "no-store", credentials: "omit", signal: stop.signal });
    if (!answer.ok || !answer.body) throw new Told(answer.status, `the stream was refused with status ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard = Date.now();
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
        if (data) hear(JSON.parse(data));
      }
    }
  } finally {
    clearInterval(guard);
    stop.abort();
  }
}

/** How old the picture is, in seconds; null: there is none. */
const oldness = () => (wire.heardMs ? (Date.now() - wire.heardMs) / 1_000 : null);
const isStale = () => wire.heardMs > 0 && (wire.state !== "live" || Date.now() - wire.heardMs > STALE_MS);
