// What a document would change, and who gains or loses a way to whom; then to apply it, or to try it. One rule: what is applied is the plan that was shown.

import { call, get, may, query as search, steps } from "../api.js";
import { at, linked } from "../cells.js";
import { badge, field, fill, h, notice, refusal, table, when } from "../dom.js";
import { ask } from "./dialog.js";
import { trial } from "./overview.js";

const YAML = "application/yaml";
const MOST = 4 * 1024 * 1024; // bytes of a file that is read into the page
const LEVELS = { none: "good", flows: "good" };

export async function plan({ signal }) {
  const text = h("textarea", { spellcheck: "false", rows: 18, required: true, wrap: "off" });
  const answer = h("div", { "aria-live": "polite" });
  const tried = h("div");
  const file = h("input", { type: "file", accept: ".yaml,.yml,.json", onchange: async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > MOST) { notice("That file is too large for the page: “vnet plan” takes it.", "bad"); return; }
    text.value = await chosen.text();
    fill(answer);
  } });
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); look(); } },
    field("Document", text, "YAML, whole: what is not in it any more goes."),
    h("div", { class: "actions" }, h("button", { class: "primary" }, "Plan"),
      may("GET", "/v1/export") && h("button", { type: "button", onclick: async () => { try { text.value = await get("/v1/export"); fill(answer); } catch (error) { notice(error.message, "bad"); } } }, "Take the pool as it is"),
      h("label", { class: "file" }, "Take a file: ", file)));

  async function look() {
    const sent = text.value;
    fill(answer, h("p", { class: "muted" }, "Planning, and asking the twin who would reach whom…"));
    try {
      const found = await call("POST", `/v1/plan${search({ filename: "document", reachability: true })}`, { body: { media: YAML, text: sent }, signal });
      fill(answer, shown(found), found.changes.length > 0 && may("POST", "/v1/apply") && h("p", { class: "actions" }, h("button", { class: "primary", onclick: () => apply(sent, found) }, "Apply…")));
    } catch (error) { fill(answer, refusal(error)); }
  }

  async function apply(sent, found) {
    const said = await confirmed(found, "Apply");
    if (!said) return;
    const log = h("ol", { class: "progress", "aria-live": "polite" });
    fill(answer, h("h2", "Applying"), log);
    try {
      const done = await steps(`/v1/apply${search({ filename: "document", revision: found.revision, plan: found.id, try_s: said.try_s, force: said.force ? "true" : "" })}`, { body: { media: YAML, text: sent }, reason: said.reason, progress: (line) => log.append(h("li", line)) });
      answer.append(applied(done));
      await onTrial();
    } catch (error) { answer.append(refusal(error)); }
  }

  async function onTrial() {
    if (!may("GET", "/v1/status")) return;
    const found = (await get("/v1/status")).trial;
    fill(tried, found && trial(found, onTrial));
  }
  await onTrial();
  return { element: [h("h1", "Plan and apply"), tried, h("section", { class: "card" }, form), answer], changed: onTrial };
}

/** Asks whether a plan is meant: what goes, why, and whether it is only tried. */
export function confirmed(found, action) {
  const deleted = found.changes.filter((c) => c.action === "delete");
  const lost = (found.reachability ?? []).filter((d) => !d.gained);
  const broken = found.expectations.filter((e) => e.held && !e.holds);
  return ask({
    heading: `${action} ${found.changes.length} change${found.changes.length === 1 ? "" : "s"}?`, action, danger: deleted.length > 0 || broken.length > 0,
    content: [h("p", "Disruption: ", disruption(found.disruption)),
      deleted.length > 0 && h("p", badge(`${deleted.length} deleted`, "bad"), " ", deleted.slice(0, 30).map((c) => `${c.kind} ${c.name}`).join(", "), deleted.length > 30 && "…"),
      lost.length > 0 && h("p", badge(`${lost.length} way${lost.length === 1 ? "" : "s"} lost`, "warn")),
      broken.length > 0 && h("p", badge("breaks what holds now", "bad"), " ", broken.map((e) => e.name).join("; "))],
    fields: [field("Why (for the history)", h("input", { name: "reason", maxlength: 500, autocomplete: "off" })),
      field("Try it for so many seconds, then take it back unless it is confirmed", h("input", { name: "try_s", type: "number", min: 1, max: 86400, placeholder: "leave empty to keep it" })),
      broken.length > 0 && h("p", h("label", h("input", { type: "checkbox", name: "force", value: "yes", required: true }), " Break these expectations"))],
  });
}

export function applied(done) {
  return h("section", { class: "card" }, h("h2", `Revision ${done.revision}`),
    h("p", badge(`${done.acknowledged.length} followed`, "good"), done.waiting.length > 0 && badge(`waits for ${done.waiting.join(", ")}`, "warn"), done.dead.length > 0 && badge(`no report from ${done.dead.join(", ")}`, "bad")),
    done.problems.length > 0 && h("ul", done.problems.map((p) => h("li", p.text))),
    done.trial && h("p", "On trial until ", when(done.trial.ends)));
}

export const disruption = (name) => badge(name, LEVELS[name] ?? "warn");

/** A plan: its changes, the expectations that it concerns, and the difference in reachability. */
export function shown(found) {
  const failing = found.expectations.filter((e) => !e.holds);
  return h("section", { class: "card plan" }, h("h2", found.changes.length ? `${found.changes.length} change${found.changes.length === 1 ? "" : "s"}` : "Nothing to change"),
    found.changes.length > 0 && h("p", "Disruption: ", disruption(found.disruption)),
    found.changes.length > 0 && table([
      { title: "Change", cell: (c) => badge(c.action, { create: "good", update: "warn", delete: "bad" }[c.action]) },
      { title: "Object", cell: (c) => (c.action === "create" ? `${c.kind} ${c.name}` : [`${c.kind} `, linked(c.kind, c.name)]) },
      { title: "Fields", cell: (c) => fieldChanges(Object.fromEntries(Object.entries(c.fields).map(([k, f]) => [k, f.old])), Object.fromEntries(Object.entries(c.fields).map(([k, f]) => [k, f.new]))) },
      { title: "Disruption", cell: (c) => c.disruption },
      { title: "Reason", cell: (c) => c.reason },
    ], found.changes.slice(0, 500), { caption: "Changes" }),
    found.changes.length > 500 && h("p", { class: "muted" }, `${found.changes.length - 500} more`),
    failing.length > 0 && [h("h3", "Expectations that would fail"), failing.map((e) => h("details", h("summary", badge(e.held ? "holds now" : "fails now too", e.held ? "bad" : "warn"), ` ${e.name}: ${e.why}`), h("pre", { tabindex: "0" }, e.trace)))],
    found.expectations.length > 0 && !failing.length && h("p", badge(`all ${found.expectations.length} expectations hold`, "good")),
    found.reachability && difference(found.reachability));
}

const isNone = (value) => value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);
const plain = (value) => (isNone(value) ? "–" : Array.isArray(value) ? value.map(plain).join(", ") : typeof value === "object" ? Object.entries(value).sort(([a], [b]) => (b === "name") - (a === "name")).filter(([, v]) => !isNone(v) && v !== false).map(([k, v]) => (k === "name" ? `${v}:` : `${k.replaceAll("_", " ")} ${plain(v)}`)).join(" ") : String(value));

/** Fields before and after; of lists of objects, such as rules, what comes and what goes. */
export function fieldChanges(before, after) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return h("ul", { class: "changes" }, names.map((name) => {
    const [old, now] = [before[name], after[name]];
    if (isNone(old) && isNone(now)) return null;
    const lists = [old, now].every((v) => v === null || v === undefined || Array.isArray(v)) && [old, now].flat().some((v) => v && typeof v === "object");
    if (!lists) return h("li", h("strong", name), ": ", !isNone(old) && h("del", plain(old)), !isNone(old) && !isNone(now) && " → ", !isNone(now) && h("ins", plain(now)));
    const texts = (value) => new Set((value ?? []).map(plain));
    const [gone, come] = [[...texts(old)].filter((t) => !texts(now).has(t)), [...texts(now)].filter((t) => !texts(old).has(t))];
    return h("li", h("strong", name), h("ul", { class: "changes" }, gone.map((t) => h("li", "− ", h("del", t))), come.map((t) => h("li", "+ ", h("ins", t)))));
  }));
}

/** Who gains and who loses a way to whom, drawn. */
export function difference(found) {
  if (!found.length) return h("p", badge("nobody gains or loses a way to anybody", "good"));
  const ends = (names) => [names.slice(0, 12).map((name, n) => [n ? ", " : "", h("a", { href: at("vif", name.includes("/") ? name : `${name}/0`) }, name)]), names.length > 12 && ` and ${names.length - 12} more`];
  return [h("h3", "Reachability"), h("div", { role: "list", "aria-label": "Difference in reachability" }, found.slice(0, 200).map((d) => h("div", { class: ["difference", d.gained ? "gained" : "lost"], role: "listitem" },
    h("span", ends(d.sources)),
    h("span", { class: "arrow" }, h("span", badge(d.gained ? "gains" : "loses", d.gained ? "good" : "bad"), d.what.join(", ")), h("svg", { viewBox: "0 0 160 14", preserveAspectRatio: "none", "aria-hidden": "true" }, h("path", { d: d.gained ? "M0 7H156M148 2l8 5-8 5" : "M0 7H66M94 7H156M148 2l8 5-8 5M72 1l16 12M88 1l-16 12" }))),
    h("span", ends(d.targets))))),
    found.length > 200 && h("p", { class: "muted" }, `${found.length - 200} more`)];
}
