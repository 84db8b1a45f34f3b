// The pool as the page knows it. One rule: an event says what may have changed, and that alone is asked for again, by whoever shows it.

import { enc, follow, get, noun, nouns } from "./api.js";

const kept = new Map(); // plural: a promise of the objects by their keys
const miscounted = new Set(); // plurals of those whose numbers of VIFs may be old
const watchers = new Set();
const SOON_MS = 250;
const OFTEN = 20; // VIFs that changed at once: then the whole list is asked for
const COUNTING = new Set(["hosts", "networks", "security-groups"]);
const CONNECTED = { live: false };

/** The objects of a noun, by their keys; asked for where they are not known or may be old. counts: whether numbers of VIFs in them have to be new, too. */
export async function objects(plural, { counts = true } = {}) {
  if (counts && miscounted.delete(plural)) kept.delete(plural);
  if (!kept.has(plural)) {
    const { key } = noun(plural);
    kept.set(plural, get(`/v1/${plural}`).then((found) => new Map(found.map((o) => [o[key], o]))).catch((error) => { kept.delete(plural); throw error; }));
  }
  return kept.get(plural);
}

export const forget = () => kept.clear();
export const connected = () => CONNECTED.live;

/** Calls `changed(words, events)` after events, until the function that it returns is called. words: the nouns whose objects may be others now. */
export function watch(changed) {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

let waiting = [];
let timer = 0;

function later() {
  timer ||= setTimeout(settle, SOON_MS);
}

async function settle() {
  const events = waiting;
  waiting = [];
  timer = 0;
  const words = new Set(events.flatMap(concerned));
  const vifs = new Set(events.filter((e) => e.vif).map((e) => e.vif));
  if (vifs.size) for (const { plural } of nouns()) if (COUNTING.has(plural)) miscounted.add(plural);
  for (const word of words) {
    const plural = noun(word)?.plural;
    if (!plural || !kept.has(plural)) continue;
    if (plural === "vifs" && vifs.size && vifs.size <= OFTEN && !events.some((e) => concerned(e).includes("vif") && !e.vif)) await refresh(vifs);
    else kept.delete(plural);
  }
  for (const changed of [...watchers]) await Promise.resolve(changed(words, events)).catch((error) => console.warn(error.message));
}

async function refresh(ids) {
  const known = await kept.get("vifs").catch(() => null);
  if (!known) return;
  await Promise.all([...ids].map(async (id) => {
    try { known.set(id, await get(`/v1/vifs/${enc(id)}`)); } catch (error) { if (error.status === 404) known.delete(id); else kept.delete("vifs"); }
  }));
}

/** The nouns that an event concerns: that of its kind, and VIFs and VMs for what runs. An event of the whole pool concerns all. */
function concerned(event) {
  const own = nouns().map((n) => n.word).filter((word) => event.kind.startsWith(`${word}-`));
  if (event.vif) return [...own, "vif", "vm"];
  if (own.length) return [...own, ...(event.host ? ["host"] : [])];
  if (event.host) return ["host", "vif", "vm"];
  return nouns().map((n) => n.word);
}

let stream = null;
export function start(state) {
  stop();
  stream = new AbortController();
  follow((event) => { waiting.push(event); later(); }, (live) => {
    if (live && !CONNECTED.live) kept.clear(); // what came while nobody listened
    CONNECTED.live = live;
    state(live);
  }, stream.signal);
}
export function stop() {
  stream?.abort();
  stream = null;
  CONNECTED.live = false;
  kept.clear();
}
