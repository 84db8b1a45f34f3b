// To make an object, change it and remove it, by forms that follow from what the API says its calls take. One rule: nothing here knows a noun; what a
// change disrupts, and what goes with an object, is asked by a dry run and shown before it is done.

import { call, caller, enc, get, may, mayGive, noun, operation, schema } from "../api.js";
import { at, nounOf, title } from "../cells.js";
import { badge, field, fill, h, notice, refusal, select } from "../dom.js";
import { forget, objects } from "../store.js";
import { ask } from "./dialog.js";
import { shown } from "./plan.js";

const NAMES_MOST = 1000; // in a list of names to choose from

// --- fields ---------------------------------------------------------------------------------------

/** The shape of a field: {kind, options, integers}. */
function shapeOf(property) {
  const found = (property.anyOf ?? [property]).filter((one) => one.type !== "null");
  const [first, second] = found;
  if (found.length === 1 && first.enum) return { kind: "choice", options: first.enum.map((word) => [word, word]) };
  if (found.length === 1 && first.type === "boolean") return { kind: "choice", options: [["true", "yes"], ["false", "no"]], boolean: true };
  if (found.length === 1 && (first.type === "integer" || first.type === "number")) return { kind: "number" };
  if (found.length === 1 && first.type === "string") return { kind: "text" };
  if (first?.type === "object" && first.additionalProperties?.type === "string") return { kind: "pairs" };
  if (first?.type === "array" && ["string", "integer"].includes(first.items?.type) && (!second || second.enum)) return { kind: "words", integers: first.items.type === "integer", among: second?.enum ?? [] };
  if (found.length === 2 && first.type === "integer" && second.enum) return { kind: "text", integers: true };
  return { kind: "json" };
}

function written(shape, value) {
  if (value === null || value === undefined) return "";
  if (shape.kind === "json") return typeof value === "object" && !Object.keys(value).length ? "" : JSON.stringify(value, null, 1);
  if (shape.kind === "pairs") return Object.entries(value).map(([key, word]) => `${key}=${word}`).join(", ");
  return Array.isArray(value) ? value.join(", ") : String(value);
}

/** The value that a text stands for; null for none, which gives a field its default. Throws Error. */
function read(shape, text) {
  const words = text.split(",").map((word) => word.trim()).filter(Boolean);
  const number = (word) => { if (!/^-?\d+$/.test(word)) throw new Error(`${word} is no number`); return Number(word); };
  if (!text.trim()) return null;
  if (shape.kind === "words" && text.trim() === "[]") return []; // none, where nothing means that it is allocated
  if (shape.kind === "json") { try { return JSON.parse(text); } catch (error) { throw new Error(`this is no JSON: ${error.message}`); } }
  if (shape.kind === "number") return number(text.trim());
  if (shape.kind === "pairs") return Object.fromEntries(words.map((word) => { const [key, ...rest] = word.split("="); if (!rest.length) throw new Error(`${word}: write KEY=VALUE`); return [key, rest.join("=")]; }));
  if (shape.kind === "words" && words.length === 1 && shape.among.includes(words[0])) return words[0];
  if (shape.kind === "words") return shape.integers ? words.map(number) : words;
  if (shape.boolean) return text === "true";
  return shape.integers && /^\d+$/.test(text.trim()) ? Number(text) : text.trim();
}

/** The names of a sort of objects, to choose from; null where the caller may not list them, or they are too many. */
async function namesOf(word) {
  const found = noun(word);
  if (!found || !may("GET", `/v1/${found.plural}`)) return null;
  const names = [...(await objects(found.plural, { counts: false })).keys()];
  return names.length <= NAMES_MOST ? names : null;
}

let lists = 0;
/** A form's fields: {elements, values}. values() is what differs from `value`, by name; it throws Error, and points at the field. */
async function fieldsOf({ properties, required = [] }, value, given) {
  const made = [];
  const ordered = Object.entries(properties).sort(([a], [b]) => required.includes(b) - required.includes(a));
  for (const [name, property] of ordered) {
    if (!given(name)) continue;
    const shape = shapeOf(property);
    const before = written(shape, value?.[name]);
    const needed = required.includes(name);
    let input;
    let names = null;
    if (shape.kind === "choice") input = select([...(needed ? [] : [["", "– as it is by default –"]]), ...shape.options], before, { name });
    else if (shape.kind === "json") input = h("textarea", { name, rows: 6, spellcheck: "false", value: before });
    else {
      const word = nounOf(name);
      names = word && shape.kind === "text" ? await namesOf(word) : null;
      input = h("input", { name, value: before, autocomplete: "off", spellcheck: "false", type: shape.kind === "number" ? "number" : "text", list: names ? `names${++lists}` : null });
    }
    input.required = needed;
    input.addEventListener("input", () => input.setCustomValidity(""));
    const hint = [property.description ?? "", { words: "Several by commas.", pairs: "As KEY=VALUE, several by commas.", json: "As JSON." }[shape.kind]].filter(Boolean).join(" ");
    made.push({ name, shape, input, before, element: h("div", field(title(name) + (needed ? " (needed)" : ""), input, hint), names && h("datalist", { id: input.getAttribute("list") }, names.map((one) => h("option", { value: one })))) });
  }
  const values = () => {
    const found = {};
    for (const { name, shape, input, before } of made) {
      if (input.value === before) continue;
      try { found[name] = read(shape, input.value); } catch (error) { input.setCustomValidity(error.message); input.reportValidity(); throw error; }
    }
    return found;
  };
  return { elements: made.map((one) => one.element), values };
}

/** Does what a call says, once a dry run's plan was shown and meant: exactly that, or the plan is shown anew. Whether it was done. Throws Refusal. */
export async function decide(method, path, body, { heading, action, danger = false }) {
  for (let stale = false, reason = ""; ; stale = true) {
    const plan = await call(method, `${path}?dry-run=true`, { body });
    if (!plan.changes.length) { notice("Nothing would change."); return false; }
    const others = plan.changes.filter((change) => change.action === "delete").length - (method === "DELETE");
    const said = await ask({
      heading, action, danger: danger || others > 0,
      content: [stale && h("p", { role: "alert" }, badge("The pool has changed since: this is the plan now, and nothing is done yet", "warn")), others > 0 && h("p", badge(others === 1 ? "1 other goes with it" : `${others} others go with it`, "bad")), shown(plan)],
      fields: [field("Why (for the history)", h("input", { name: "reason", maxlength: 500, autocomplete: "off", value: reason }))],
    });
    if (!said) return false;
    reason = said.reason;
    try { await call(method, path, { body, reason, match: plan.id }); } catch (error) { if (error.status === 412) continue; throw error; }
    forget();
    return true;
  }
}

const bodyOf = (method, path) => schema(operation(method, path).requestBody.content["application/json"].schema.$ref.split("/").pop());

// --- of one object --------------------------------------------------------------------------------

/** The section of an object's page in which it is changed and removed; null where the caller may do neither. */
export function changing(found, key, single, { owner }) {
  const path = `/v1/${found.plural}/{id}`;
  const [changes, removes] = [may("PATCH", path), may("DELETE", path)];
  if (!changes && !removes) return null;
  if (owner === "document") return h("p", { class: "card" }, "It is the document’s, and changed there", may("POST", "/v1/plan") ? [": ", h("a", { href: "#/plan" }, "plan and apply"), "."] : ".");
  const name = `${found.text} ${key}`;
  const box = h("div", { "aria-live": "polite" });
  const told = h("div");
  const attempt = async (job) => { fill(told); try { await job(); } catch (error) { fill(told, refusal(error)); } };

  async function form() {
    const value = await get(single);
    const { elements, values } = await fieldsOf(bodyOf("PATCH", path), value, (part) => mayGive("PATCH", path, part));
    const made = h("form", { onsubmit: (event) => {
      event.preventDefault();
      let body;
      try { body = values(); } catch { return; }
      if (!Object.keys(body).length) { notice("Nothing is changed."); return; }
      attempt(async () => { if (await decide("PATCH", single, body, { heading: `Change ${name}?`, action: "Change" })) { notice(`${name} is changed.`); await form(); } });
    } }, h("div", { class: "columns" }, elements), h("p", { class: "actions" }, h("button", { class: "primary" }, "Plan the change…")));
    fill(box, made);
  }
  const remove = () => attempt(async () => {
    if (!await decide("DELETE", single, undefined, { heading: `Remove ${name}?`, action: "Remove", danger: true })) return;
    notice(`${name} is gone.`);
    location.hash = `#/list/${found.plural}`;
  });
  return h("details", { class: "card", ontoggle: (event) => { if (event.currentTarget.open && changes && !box.hasChildNodes()) attempt(form); } },
    h("summary", h("h2", changes ? "Change" : "Remove")), told, box,
    removes && h("p", { class: "actions" }, h("button", { class: "danger", onclick: remove }, `Remove ${name}…`)));
}

// --- a new one ------------------------------------------------------------------------------------

/** The call that makes an object: {method, path}; null where the caller may not. */
export function making(found) {
  const [post, put] = [["POST", `/v1/${found.plural}`], ["PUT", `/v1/${found.plural}/{id}`]];
  const [method, path] = [post, put].find(([m, p]) => may(m, p)) ?? [];
  return method ? { method, path } : null;
}

export async function create({ rest: [word] }) {
  const found = noun(word);
  const by = found && making(found);
  if (!by) throw new Error(found ? `${caller().role} makes no ${found.texts}` : `there is no sort of object ${word}`);
  const key = by.method === "PUT" ? h("input", { required: true, autocomplete: "off", spellcheck: "false" }) : null;
  const told = h("div", { "aria-live": "polite" });
  const { elements, values } = await fieldsOf(bodyOf(by.method, by.path), null, (name) => mayGive(by.method, by.path, name));
  const form = h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    fill(told);
    try {
      const body = values();
      const path = key ? `/v1/${found.plural}/${enc(key.value.trim())}` : by.path;
      if (!await decide(by.method, path, body, { heading: `Make this ${found.text}?`, action: "Make" })) return;
      const name = key?.value.trim() ?? body[found.key];
      notice(`${title(found.text)}${name ? ` ${name}` : ""} is there.`);
      location.hash = name ? at(found.word, name) : `#/list/${found.plural}`;
    } catch (error) { if (error.name === "Refusal" || error.problem) fill(told, refusal(error)); }
  } }, key && field(`${title(found.key)} (needed)`, key), h("div", { class: "columns" }, elements), h("p", { class: "actions" }, h("button", { class: "primary" }, "Plan it…")));
  return [h("p", { class: "muted crumbs" }, h("a", { href: `#/list/${found.plural}` }, title(found.texts))), h("h1", `New ${found.text}`), told, form];
}
