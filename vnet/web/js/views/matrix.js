// Who reaches whom, by classes of VIFs that are alike. The question is in the address.

import { get, may, query as search } from "../api.js";
import { linked } from "../cells.js";
import { badge, field, fill, h, refusal, select, table } from "../dom.js";

export async function matrix({ query, replace }) {
  const state = { protocol: "icmp", port: "", network: "", ...query };
  const answer = h("div", { "aria-live": "polite" });
  const port = h("input", { name: "port", type: "number", min: 1, max: 65535, value: state.port });
  const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(); } },
    field("Packet", select([["icmp", "ping"], ["tcp", "TCP"], ["udp", "UDP"]], state.protocol, { name: "protocol", onchange: fit })),
    field("Port", port), h("button", { class: "primary" }, "Show"));
  function fit() {
    const ports = form.elements.protocol.value !== "icmp";
    port.parentElement.hidden = !ports;
    port.required = ports;
  }
  function read() {
    state.protocol = form.elements.protocol.value;
    state.port = state.protocol === "icmp" ? "" : port.value;
    replace(search({ protocol: state.protocol, port: state.port }));
    return ask();
  }
  async function ask() {
    fill(answer, h("p", { class: "muted" }, "Asking the twin…"));
    try {
      const [found, expected] = await Promise.all([get(`/v1/matrix${search({ protocol: state.protocol, port: state.port })}`), may("GET", "/v1/check") ? get("/v1/check") : []]);
      fill(answer, drawn(found), expectations(expected));
    } catch (error) { fill(answer, refusal(error)); }
  }
  fit();
  await ask();
  return { element: [h("h1", "Matrix"), h("p", { class: "muted" }, "On the twin of the pool as it is. A row sends, a column receives; VIFs that all reach and are reached alike are one."), form, answer] };
}

function drawn(found) {
  const chosen = h("p", { class: "muted", role: "status" }, "Choose a cell for its meaning.");
  const classes = found.classes;
  const mean = (y, x) => {
    const yes = found.reaches[y][x];
    const link = `#/trace${search({ from: classes[y].vifs[0], to: classes[x].vifs.find((v) => v !== classes[y].vifs[0]) ?? classes[x].vifs[0], protocol: found.protocol, port: found.port || "" })}`;
    fill(chosen, badge(yes ? "reaches" : "does not reach", yes ? "good" : "bad"), ` ${classes[y].name} → ${classes[x].name} `, h("a", { href: link }, "Trace it"));
  };
  if (!classes.length) return h("p", "No VIF runs.");
  return [chosen,
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Reachability" }, h("table", { class: "matrix" },
      h("caption", { class: "hidden" }, `Reachability by ${found.protocol} ${found.port || ""}: rows send, columns receive`),
      h("thead", h("tr", h("th", { scope: "col" }, h("span", "from \\ to")), classes.map((c) => h("th", { scope: "col", title: c.vifs.join(", ") }, h("span", c.name))))),
      h("tbody", classes.map((row, y) => h("tr", h("th", { scope: "row", title: row.vifs.join(", ") }, row.name),
        classes.map((column, x) => h("td", { class: [found.reaches[y][x] && "yes", x === y && row.vifs.length === 1 && "self"] },
          x === y && row.vifs.length === 1 ? "–" : h("button", { tabindex: x + y === 0 || (y === 0 && x === 1) ? "0" : "-1", "aria-label": `${row.name} ${found.reaches[y][x] ? "reaches" : "does not reach"} ${column.name}`, title: `${row.name} → ${column.name}`, onclick: () => mean(y, x), onkeydown: (e) => arrows(e) }, found.reaches[y][x] ? "✓" : "·"))))))))];
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

export function expectations(found) {
  return h("section", { class: "card wide" }, h("h2", "Expectations"), table([
    { title: "Expectation", cell: (e) => linked("expectation", e.name) },
    { title: "Now", cell: (e) => badge(e.holds ? "holds" : "fails", e.holds ? "good" : "bad") },
    { title: "Why", cell: (e) => [e.why, e.trace && h("details", h("summary", "Trace"), h("pre", { tabindex: "0" }, e.trace))] },
  ], found, { caption: "Expectations", empty: "The pool has none." }));
}
