// A noun's list, with the filters that the API says it has. One rule: the filters are in the address.

import { get, may, noun, query as search, schema } from "../api.js";
import { columns, text, title } from "../cells.js";
import { field, fill, h, refusal, select, table } from "../dom.js";
import { objects } from "../store.js";
import { making } from "./change.js";

const SHOWN = 200; // rows at first

export async function list({ rest: [plural], query, replace }) {
  const found = noun(plural);
  if (!found) throw new Error(`there are no ${plural}`);
  const state = { ...query };
  const results = h("div", { class: "results" });
  const count = h("p", { class: "muted", role: "status" });
  let shown = SHOWN;

  const form = h("form", { class: "filters", onsubmit: (e) => e.preventDefault(), role: "search" },
    field("Search", h("input", { type: "search", name: "q", value: state.q ?? "", oninput: (e) => set("q", e.target.value) })));
  for (const filter of found.filters) form.append(field(title(filter.name.replaceAll("-", "_")), await input(filter, state[filter.name] ?? "")));

  async function input(filter, value) {
    const options = filter.choices?.length ? filter.choices : filter.refers && may("GET", `/v1/${noun(filter.refers).plural}`) ? [...(await objects(noun(filter.refers).plural)).keys()] : null;
    const attrs = { name: filter.name, title: filter.doc, onchange: (e) => set(filter.name, e.target.value) };
    if (options && options.length <= 500) return select([["", "any"], ...options.map((o) => [o, o])], value, attrs);
    return h("input", { ...attrs, value, placeholder: filter.labels ? "key=value" : "" });
  }

  function set(name, value) {
    state[name] = value;
    shown = SHOWN;
    replace(search(state));
    show();
  }

  let asked = 0;
  async function show() {
    const mine = ++asked;
    try {
      const rows = await matching();
      if (mine !== asked) return;
      const words = (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      const left = words.length ? rows.filter((row) => { const all = text(row).toLowerCase(); return words.every((w) => all.includes(w)); }) : rows;
      fill(count, left.length === rows.length ? `${rows.length} in all` : `${left.length} of ${rows.length}`);
      const more = left.length > shown && h("button", { onclick: () => { shown += 1000; show(); } }, `Show ${Math.min(1000, left.length - shown)} more`);
      fill(results, table(columns(found, state.all === "1"), left.slice(0, shown), { caption: found.texts, key: (row) => row[found.key] }), more);
    } catch (error) {
      if (mine === asked) fill(results, refusal(error));
    }
  }

  /** The objects that the API's filters leave: asked of the API, so that they mean here what they mean there. */
  async function matching() {
    const filters = Object.fromEntries(found.filters.map((f) => [f.name, state[f.name] ?? ""]));
    const filtered = search(filters);
    return filtered ? get(`/v1/${plural}${filtered}`) : [...(await objects(plural)).values()];
  }

  form.append(field("Columns", select([["", "usual"], ["1", "all"]], state.all ?? "", { name: "all", onchange: (e) => set("all", e.target.value) })));
  await show();
  return {
    element: [h("h1", title(found.texts)), form, h("p", { class: "actions" }, count, making(found) && h("a", { class: "button", href: `#/new/${found.word}` }, `New ${found.text}`)), results],
    changed: (words) => (words.has(found.word) || (words.has("vif") && "vifs" in (schema(found.schema).properties ?? {})) ? show() : null),
    queried: (values) => {
      for (const name of Object.keys({ ...state, ...values })) {
        state[name] = values[name] ?? "";
        const control = form.elements[name];
        if (control) control.value = state[name];
      }
      show();
    },
  };
}
