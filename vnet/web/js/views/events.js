// The pool's events, the newest first, with filters that are in the address.

import { get, query as search } from "../api.js";
import { linked } from "../cells.js";
import { field, fill, h, table, when } from "../dom.js";

const FILTERS = [["kind", "Kind"], ["host", "Host"], ["network", "Network"], ["vif", "VIF"]];
export const COLUMNS = [
  { title: "Time", cell: (e) => when(e.time) },
  { title: "Kind", cell: (e) => e.kind },
  { title: "Host", cell: (e) => linked("host", e.host) },
  { title: "VIF", cell: (e) => linked("vif", e.vif) },
  { title: "Text", cell: (e) => e.text },
];

export async function events({ query, replace }) {
  const state = { limit: "100", ...query };
  const results = h("div");
  const show = async () => fill(results, table(COLUMNS, (await get(`/v1/events${search(state)}`)).reverse(), { caption: "Events, the newest first" }));
  const set = (name, value) => { state[name] = value; replace(search(state)); return show(); };
  const form = h("form", { class: "filters", onsubmit: (e) => e.preventDefault(), role: "search" },
    FILTERS.map(([name, text]) => field(text, h("input", { name, value: state[name] ?? "", onchange: (e) => set(name, e.target.value.trim()) }))),
    field("How many", h("input", { type: "number", min: 1, max: 2000, name: "limit", value: state.limit, onchange: (e) => set("limit", e.target.value) })));
  await show();
  return { element: [h("h1", "Events"), form, results], changed: show };
}
