// Who reaches whom, by classes of VIFs that are alike: now or as it was, while hosts and links fail, or under each single failure. The question is in the address.

import { get, may, mayGive, query as search } from "../api.js";
import { linked } from "../cells.js";
import { badge, field, fill, h, refusal, select, shownIf, table } from "../dom.js";

const EACH = "each";
const NAMES = ["protocol", "port", "at", "down", "cut", EACH];
const listed = (text) => text.split(",").filter(Boolean);
const named = (failure) => (failure.down ? `down ${failure.down}` : `cut ${failure.cut}`);

export async function matrix({ query, replace, signal }) {
  const state = { protocol: "icmp", port: "", at: "", down: "", cut: "", [EACH]: "", ...query };
  const answer = h("div", { "aria-live": "polite" });
  const port = h("input", { name: "port", type: "number", min: 1, max: 65535, value: state.port });
  const at = h("input", { name: "at", value: state.at, placeholder: "now", autocomplete: "off", title: "A revision, or a time as 2026-01-31T10:42:00Z", onchange: () => offer() });
  const fail = h("select", { name: "fail", multiple: true, size: 4 });
  const each = h("input", { type: "checkbox", name: EACH, value: "1", checked: state[EACH] === "1", onchange: fit });
  const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(); } },
    field("Packet", select([["icmp", "ping"], ["tcp", "TCP"], ["udp", "UDP"]], state.protocol, { name: "protocol", onchange: fit })),
    field("Port", port),
    shownIf(mayGive("GET", "/v1/matrix", "at"), field("As it was at", at)),
    shownIf(may("GET", "/v1/failures"), field("While these fail", fail)),
    shownIf(mayGive("GET", "/v1/matrix", "each-failure"), h("p", { class: "field" }, h("label", each, " Under each single failure"))),
    h("button", { class: "primary" }, "Show"));

  function fit() {
    const ports = form.elements.protocol.value !== "icmp";
    port.parentElement.hidden = !ports;
    port.required = ports;
    fail.disabled = each.checked;
  }
  /** The failures that the pool of that moment can have. */
  async function offer() {
    if (!may("GET", "/v1/failures")) return;
    const chosen = new Set([...listed(state.down).map((n) => `down ${n}`), ...listed(state.cut).map((n) => `cut ${n}`)]);
    try {
      const found = await get(`/v1/failures${search({ at: at.value.trim() })}`);
      fill(fail, found.map((f) => h("option", { value: named(f), selected: chosen.has(named(f)) }, f.text)));
    } catch (error) { fill(answer, refusal(error)); }
  }
  function read() {
    const picked = each.checked ? [] : [...fail.selectedOptions].map((o) => o.value.split(" "));
    const of = (word) => picked.filter(([w]) => w === word).map(([, name]) => name).join(",");
    Object.assign(state, { protocol: form.elements.protocol.value, at: at.value.trim(), down: of("down"), cut: of("cut"), [EACH]: each.checked ? "1" : "" });
    state.port = state.protocol === "icmp" ? "" : port.value;
    replace(search(Object.fromEntries(NAMES.map((name) => [name, state[name]]))));
    return ask();
  }
  let asking = null;
  signal.addEventListener("abort", () => asking?.abort());
  /** Asks the twin, which works on no earlier question of this page any more, and on none once the page is left. */
  async function ask() {
    asking?.abort();
    const mine = asking = new AbortController();
    fill(answer, h("p", { class: "muted" }, state[EACH] ? "Asking the twin, under one failure after another…" : "Asking the twin…"));
    const now = { at: state.at, down: state.down, cut: state.cut };
    try {
      const [found, expected, single] = await Promise.all([
        get(`/v1/matrix${search({ ...now, protocol: state.protocol, port: state.port, "each-failure": state[EACH] && "true" })}`, mine.signal),
        may("GET", "/v1/check") ? get(`/v1/check${search(now)}`, mine.signal) : null,
        state[EACH] && may("GET", "/v1/failures") ? get(`/v1/failures${search({ at: state.at, expectations: "true" })}`, mine.signal) : null]);
      fill(answer, drawn(found, state), expected && expectations(expected, single, state));
    } catch (error) { if (!mine.signal.aborted) fill(answer, refusal(error)); }
  }
  fit();
  await Promise.all([offer(), ask()]);
  return {
    element: [h("h1", "Matrix"), h("p", { class: "muted" }, "On the twin. A row sends, a column receives; VIFs that all reach and are reached alike are one."), form, answer],
    queried: async (values) => {
      Object.assign(state, { protocol: "icmp", port: "", at: "", down: "", cut: "", [EACH]: "" }, values);
      form.elements.protocol.value = state.protocol;
      port.value = state.port;
      at.value = state.at;
      each.checked = state[EACH] === "1";
      fit();
      await Promise.all([offer(), ask()]);
    },
  };
}

function drawn(found, state) {
  const chosen = h("p", { class: "muted", role: "status" }, "Choose a cell for its meaning.");
  const classes = found.classes;
  const parted = new Map(found.parted.map((p) => [`${p.source} ${p.target}`, p.failures]));
  const failing = state.down || state.cut;
  const meaning = (y, x) => (!found.reaches[y][x] ? "does not reach" : parted.has(`${y} ${x}`) ? "reaches, but not under every failure" : "reaches");
  const mean = (y, x) => {
    const by = parted.get(`${y} ${x}`) ?? [];
    const link = `#/trace${search({ from: classes[y].vifs[0], to: classes[x].vifs.find((v) => v !== classes[y].vifs[0]) ?? classes[x].vifs[0], protocol: found.protocol, port: found.port || "", at: state.at })}`;
    fill(chosen, badge(meaning(y, x), !found.reaches[y][x] ? "bad" : by.length ? "warn" : "good"), ` ${classes[y].name} → ${classes[x].name} `, !failing && may("POST", "/v1/trace") && h("a", { href: link }, "Trace it"),
      by.length > 0 && h("span", ` parted by: ${by.slice(0, 20).join("; ")}${by.length > 20 ? ` and ${by.length - 20} more` : ""}`));
  };
  if (!classes.length) return h("p", "No VIF runs.");
  return [chosen,
    found.guessed.length > 0 && h("p", badge("guessed", "warn"), ` It is not known where ${found.guessed.length > 12 ? `${found.guessed.length} VIFs` : found.guessed.join(", ")} ran then.`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Reachability" }, h("table", { class: "matrix" },
      h("caption", { class: "hidden" }, `Reachability by ${found.protocol} ${found.port || ""}: rows send, columns receive`),
      h("thead", h("tr", h("th", { scope: "col" }, h("span", "from \\ to")), classes.map((c) => h("th", { scope: "col", title: c.vifs.join(", ") }, h("span", c.name))))),
      h("tbody", classes.map((row, y) => h("tr", h("th", { scope: "row", title: row.vifs.join(", ") }, row.name),
        classes.map((column, x) => h("td", { class: [found.reaches[y][x] && (parted.has(`${y} ${x}`) ? "partly" : "yes"), x === y && row.vifs.length === 1 && "self"] },
          x === y && row.vifs.length === 1 ? "–" : h("button", { tabindex: x + y === 0 || (y === 0 && x === 1) ? "0" : "-1", "aria-label": `${row.name} ${meaning(y, x)} ${column.name}`, title: `${row.name} → ${column.name}`, onclick: () => mean(y, x), onkeydown: (e) => arrows(e) }, !found.reaches[y][x] ? "·" : parted.has(`${y} ${x}`) ? "!" : "✓"))))))))];
}

/** The arrow keys go from cell to cell. */
function arrows(event) {
  const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!by) return;
  event.preventDefault();
  const cell = event.currentTarget.closest("td");
  let [y, x] = [cell.parentElement.rowIndex, cell.cellIndex];
  for (;;) {
    y += by[0];
    x += by[1];
    const next = cell.closest("table").rows[y]?.cells[x];
    if (!next || x === 0 || y === 0) return;
    const button = next.querySelector("button");
    if (button) { button.focus(); return; }
  }
}

/** Which expectations hold; single: what becomes of them under each single failure, null where that was not asked. */
function expectations(found, single, state) {
  const under = (e) => {
    const failing = single.filter((f) => f.fails.includes(e.name)).map((f) => f.text);
    return failing.length ? [badge("not under every failure", "bad"), h("ul", failing.slice(0, 20).map((text) => h("li", text))), failing.length > 20 && `and ${failing.length - 20} more`] : badge(`under all ${single.length}`, "good");
  };
  return h("section", { class: "card wide" }, h("h2", "Expectations"), table([
    { title: "Expectation", cell: (e) => linked("expectation", e.name) },
    { title: state.at ? "Then" : state.down || state.cut ? "While these fail" : "Now", cell: (e) => (e.asked ? badge(e.holds ? "holds" : "fails", e.holds ? "good" : "bad") : badge("an end is down")) },
    { title: "Why", cell: (e) => [e.why, e.trace && h("details", h("summary", "Trace"), h("pre", { tabindex: "0" }, e.trace))] },
    ...(single ? [{ title: "Single failures", cell: under }] : []),
  ], found, { caption: "Expectations", empty: "The pool has none." }));
}
