// The changes of the pool: who, when, why; one of them with what was before and after; and the way back.

import { get, may, query as search, steps } from "../api.js";
import { linked } from "../cells.js";
import { badge, field, fill, h, notice, refusal, select, table, when } from "../dom.js";
import { applied, confirmed, disruption, fieldChanges, shown } from "./plan.js";

export async function history(context) {
  return context.rest.length ? record(context.rest[0]) : list(context);
}

async function list({ query, replace }) {
  const state = { limit: "100", caller: "", refused: "", ...query };
  const results = h("div");
  const answer = h("div", { "aria-live": "polite" });
  async function show() {
    const found = (await get(`/v1/history${search(state)}`)).reverse();
    fill(results, table([
      { title: "Revision", cell: (r) => h("a", { href: `#/history/${encodeURIComponent(r.revision ?? r.id)}` }, r.revision ?? "step") },
      { title: "Time", cell: (r) => when(r.time) },
      { title: "By", cell: (r) => r.caller },
      { title: "Change", cell: (r) => r.summary || r.call },
      { title: "Objects", number: true, cell: (r) => r.count },
      { title: "Disruption", cell: (r) => (r.refused ? badge(`refused: ${r.refused}`, "bad") : r.disruption && disruption(r.disruption)) },
      { title: "Why", cell: (r) => r.reason },
    ], found, { caption: "Changes, the newest first", empty: "None." }));
  }
  const set = (name, value) => { state[name] = value; replace(search(state)); return show(); };
  const form = h("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() },
    field("By", h("input", { value: state.caller, onchange: (e) => set("caller", e.target.value.trim()) })),
    field("Show", select([["", "changes"], ["true", "refused calls"]], state.refused, { onchange: (e) => set("refused", e.target.value) })),
    field("How many", h("input", { type: "number", min: 1, max: 10000, value: state.limit, onchange: (e) => set("limit", e.target.value) })));
  const from = h("input", { required: true, inputmode: "numeric", autocomplete: "off" });
  const to = h("input", { placeholder: "the present", inputmode: "numeric", autocomplete: "off" });
  const compare = may("GET", "/v1/diff") && h("form", { class: "filters", onsubmit: async (e) => {
    e.preventDefault();
    try { fill(answer, shown(await get(`/v1/diff${search({ from: from.value.trim(), to: to.value.trim() })}`))); } catch (error) { fill(answer, refusal(error)); }
  } }, field("Compare revision", from), field("with", to), h("button", "Compare"));
  await show();
  return { element: [h("h1", "History"), form, results, compare, answer], changed: show };
}

async function record(id) {
  const found = await get(`/v1/history/${encodeURIComponent(id)}`);
  const answer = h("div", { "aria-live": "polite" });
  const name = found.revision === null ? "a step" : `revision ${found.revision}`;

  async function look() {
    fill(answer, h("p", { class: "muted" }, "Planning the way back…"));
    try {
      const back = await get(`/v1/history/${encodeURIComponent(id)}/rollback`);
      fill(answer, h("h2", `Back to ${name}`), shown(back), back.changes.length > 0 && may("POST", "/v1/history/{id}/rollback") && h("p", { class: "actions" }, h("button", { class: "danger", onclick: () => go(back) }, "Roll back…")));
    } catch (error) { fill(answer, refusal(error)); }
  }
  async function go(back) {
    const said = await confirmed(back, "Roll back");
    if (!said) return;
    const log = h("ol", { class: "progress" });
    fill(answer, h("h2", "Rolling back"), log);
    try {
      answer.append(applied(await steps(`/v1/history/${encodeURIComponent(id)}/rollback${search({ revision: back.revision, try_s: said.try_s, force: said.force ? "true" : "" })}`, { reason: said.reason, progress: (line) => log.append(h("li", line)) })));
      notice(`The pool is as at ${name}.`);
    } catch (error) { answer.append(refusal(error)); }
  }
  return [h("p", { class: "muted crumbs" }, h("a", { href: "#/history" }, "History")), h("h1", name[0].toUpperCase() + name.slice(1)),
    h("section", { class: "card" }, h("dl", { class: "fields" },
      [["Time", when(found.time)], ["By", found.caller], ["From", found.source], ["Why", found.reason], ["Call", h("code", found.call)], ["Disruption", found.disruption && disruption(found.disruption)], ["Summary", found.summary]].filter(([, v]) => v).map(([k, v]) => [h("dt", k), h("dd", v)]))),
    h("section", { class: "card" }, h("h2", "Changes"), table([
      { title: "Change", cell: (c) => badge(c.action, { create: "good", update: "warn", delete: "bad" }[c.action]) },
      { title: "Object", cell: (c) => [`${c.noun} `, linked(c.noun, c.name)] },
      { title: "Fields", cell: (c) => fieldChanges(c.old, c.new) },
      { title: "Reason", cell: (c) => c.reason ?? "" },
    ], (found.changes ?? []).slice(0, 500), { caption: "Changes", empty: "None is recorded." })),
    found.revision !== null && may("GET", "/v1/history/{id}/rollback") && h("p", { class: "actions" }, h("button", { onclick: look }, `Plan the way back to ${name}`), may("POST", "/v1/trace") && h("a", { href: `#/trace${search({ at: found.revision })}` }, "Trace in the pool as it was")),
    answer];
}
