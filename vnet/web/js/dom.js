// Elements from values. One rule: what comes from a pool becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "rect", "path", "circle", "text", "title", "line"]);

/** An element. attrs: attributes, "onclick" and the like as listeners, "class" also as a list. children: elements, texts, lists of these, null for none. */
export function h(tag, attrs, ...children) {
  if (attrs instanceof Node || Array.isArray(attrs) || typeof attrs !== "object") [attrs, children] = [null, [attrs, ...children]];
  const [name, inside] = SVG_TAGS.has(tag) && tag !== "title" ? [tag, SVG] : [tag, null];
  const made = inside ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.setAttribute("class", [value].flat().filter(Boolean).join(" "));
    else if (key === "value" && "value" in made) made.value = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  append(made, children);
  return made;
}

export function append(parent, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
  return parent;
}

/** Replaces what is in an element. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  return append(parent, children);
}

/** A table. columns: [{title, cell, number, wide}]; cell: a row to what stands there. caption: what it is, for those who cannot see it. */
export function table(columns, rows, { caption = "", empty = "None.", key = null } = {}) {
  if (!rows.length) return h("p", { class: "muted" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "Table" },
    h("table",
      caption && h("caption", { class: "hidden" }, caption),
      h("thead", h("tr", columns.map((c) => h("th", { scope: "col", class: c.number && "number" }, c.title)))),
      h("tbody", rows.map((row) => h("tr", { "data-key": key ? key(row) : null },
        columns.map((c, at) => h(at ? "td" : "th", { scope: at ? null : "row", class: [c.number && "number", c.class] }, c.cell(row))))))));
}

/** A form field with its label. */
export function field(label, input, hint = "") {
  const id = input.id || `f${nextId++}`;
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}h`);
  return h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("p", { class: "hint", id: `${id}h` }, hint));
}
let nextId = 1;

/** An element that is shown only if a condition holds. */
export function shownIf(condition, element) {
  element.hidden = !condition;
  return element;
}

/** A choice among [value, text] or texts. */
export function select(options, value, attrs = {}) {
  const made = h("select", attrs, options.map((o) => { const [v, t] = Array.isArray(o) ? o : [o, o]; return h("option", { value: v, selected: v === value }, t); }));
  return made;
}

/** A word with a colour and a sign, so that it says the same without colour. */
export function badge(text, level = "plain") {
  const sign = { good: "✓", warn: "!", bad: "✕", moving: "→" }[level];
  return h("span", { class: ["badge", level] }, sign && h("span", { "aria-hidden": "true" }, sign + " "), text);
}

export function notice(text, level = "good") {
  const box = document.getElementById("notices");
  const made = h("div", { class: ["notice", level] }, text, h("button", { class: "plain", "aria-label": "Dismiss", onclick: () => made.remove() }, "×"));
  box.append(made);
  setTimeout(() => made.remove(), level === "bad" ? 20000 : 6000);
}

/** What a refusal says, with each problem of a document. */
export function refusal(error) {
  const problems = error.problem?.problems ?? [];
  return h("div", { class: "refusal", role: "alert" }, h("p", h("strong", "Refused: "), error.message),
    problems.length > 0 && h("ul", problems.slice(0, 50).map((p) => h("li", p.line ? `${p.file}:${p.line}:${p.column}: ` : p.path ? `${p.path}: ` : "", p.message, p.hint && h("span", { class: "muted" }, ` ${p.hint}`)))));
}

export function when(text) {
  if (!text) return "";
  const time = new Date(text);
  return h("time", { datetime: text, title: text }, time.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" }));
}

const UNITS = ["", "k", "M", "G", "T"];
/** A number with a unit as people read it: 1234567, "bit/s" is "1.2 Mbit/s". */
export function amount(value, unit) {
  let at = 0;
  while (value >= 1000 && at < UNITS.length - 1) { value /= 1000; at += 1; }
  return `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${UNITS[at]}${unit}`;
}
