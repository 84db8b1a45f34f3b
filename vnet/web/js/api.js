// The REST API and its stream of events, as anybody else uses them. One rule: the token is in sessionStorage and in a header, never in an address.

const KEY = "vnet-token";
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.message || `status ${status}`);
    this.name = "Refusal";
    Object.assign(this, { status, problem, code: problem.code });
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

let spec = null;
let whoami = null;

/** What the API has, and who calls. Throws Refusal where the token is none. */
export async function connect() {
  whoami = await call("GET", "/v1/caller");
  spec = await call("GET", "/v1/openapi.json");
}
export const caller = () => whoami;
export const nouns = () => spec["x-vnet-nouns"];
export const noun = (word) => nouns().find((n) => n.word === word || n.plural === word);
export const schema = (name) => spec.components.schemas[name];
export const version = () => spec.info.version;
export const scoped = () => Boolean(whoami.token && ["networks", "vms", "security_groups", "qos_classes", "labels"].some((k) => whoami.token[k]?.length));

/** Whether the caller's role and scope have a call. path: as in the API's document, "/v1/vifs/{id}". False for one that this controller does not have. */
export function may(method, path) {
  const found = operation(method, path);
  return Boolean(found) && found["x-vnet-roles"].includes(whoami.role) && (!scoped() || found["x-vnet-scoped"]);
}

export const operation = (method, path) => spec.paths[path]?.[method.toLowerCase()];

/** Whether the caller may give a part of a call's query or body. */
export const mayGive = (method, path, name) => may(method, path) && !(scoped() && operation(method, path)["x-vnet-whole-pool"].includes(name));

export const enc = encodeURIComponent;
export function query(values) {
  const found = new URLSearchParams(Object.entries(values).filter(([, v]) => v !== "" && v !== null && v !== undefined && v !== false));
  return found.size ? `?${found}` : "";
}

function headers(more) {
  return token.get() ? { Authorization: `Bearer ${token.get()}`, ...more } : more;
}

async function answered(response) {
  if (response.ok) return response;
  let problem = { message: response.statusText };
  try { problem = await response.json(); } catch { /* no JSON: the status has to do */ }
  if (response.status === 401) dispatchEvent(new CustomEvent("vnet-unauthorized"));
  throw new Refusal(response.status, problem);
}

/** One call. body: an object, or {media, text}. reason: why, for the history. match: the tag that it is bound to. Returns the answer, of JSON its value. */
export async function call(method, path, { body, reason, match, signal } = {}) {
  const sent = body?.media ? [body.media, body.text] : body !== undefined ? ["application/json", JSON.stringify(body)] : null;
  const more = { ...(sent && { "Content-Type": sent[0] }), ...(reason && { "Vnet-Reason": enc(reason) }), ...(match && { "If-Match": `"${match}"` }) };
  const response = await answered(await fetch(path, { method, headers: headers(more), body: sent?.[1], signal, cache: "no-store", credentials: "omit" }));
  return response.headers.get("content-type")?.startsWith("application/json") ? response.json() : response.text();
}
export const get = (path, signal) => call("GET", path, { signal });

/** A long call: progress is told as it comes. Returns the result of its last line. */
export async function steps(path, { body, reason, progress } = {}) {
  const sent = body?.media ? [body.media, body.text] : body !== undefined ? ["application/json", JSON.stringify(body)] : null;
  const more = { Accept: "application/x-ndjson", ...(sent && { "Content-Type": sent[0] }), ...(reason && { "Vnet-Reason": enc(reason) }) };
  const response = await answered(await fetch(path, { method: "POST", headers: headers(more), body: sent?.[1], cache: "no-store", credentials: "omit" }));
  let last = null;
  for await (const line of lines(response.body, "\n")) {
    if (!line.trim()) continue;
    last = JSON.parse(line);
    progress?.(last.text);
  }
  if (last?.kind === "failed") throw new Refusal(409, last.problem);
  return last?.result;
}

/** The bytes of a long answer as they come. */
export async function* stream(path, body, signal) {
  const response = await answered(await fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal, cache: "no-store", credentials: "omit" }));
  const reader = response.body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function* lines(stream, end) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split(end);
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

/** Follows the pool's events until aborted: each to `take`, the state of the stream to `state`. It connects again, and goes on after the last event. */
export async function follow(take, state, signal) {
  let last = "";
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 15000)) {
    try {
      const more = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const response = await answered(await fetch("/v1/events", { headers: headers(more), signal, cache: "no-store", credentials: "omit" }));
      state(true);
      wait = 500;
      for await (const block of lines(response.body, "\n\n")) {
        const found = Object.fromEntries(block.split("\n").map((line) => { const at = line.indexOf(": "); return [line.slice(0, at), line.slice(at + 2)]; }));
        if (found.id) last = found.id;
        if (found.data) take(JSON.parse(found.data));
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
    }
    state(false);
    await new Promise((done) => setTimeout(done, wait));
  }
}
