// The pool at a glance: what is there, what moves, what asks for attention.

import { call, get, may, steps } from "../api.js";
import { linked } from "../cells.js";
import { badge, fill, h, notice, table, when } from "../dom.js";
import { objects } from "../store.js";
import { COLUMNS } from "./events.js";

const PROBLEMS_SHOWN = 50;

export async function overview() {
  const page = h("div");
  const between = h("section", { class: "card wide" });
  const show = async () => {
    const parts = may("GET", "/v1/status") ? whole(await get("/v1/status"), show, between) : await tenants();
    if (may("GET", "/v1/health")) await health(between);
    const newest = may("GET", "/v1/events") ? (await get("/v1/events?limit=12")).reverse() : [];
    fill(page, parts, h("section", { class: "card wide" }, h("h2", "Newest events"), table(COLUMNS, newest, { caption: "Newest events", empty: "None yet." }), h("p", h("a", { href: "#/events" }, "All events"))));
  };
  await show();
  return { element: [h("h1", "Overview"), page], changed: show };
}

function whole(status, again, between) {
  const vifs = Object.values(status.vifs).reduce((a, b) => a + b, 0);
  const ready = status.vifs.ready ?? 0;
  const dead = status.hosts - status.live_hosts;
  return [
    status.trial && trial(status.trial, again),
    h("div", { class: "tiles" },
      tile("Hosts", `${status.live_hosts}/${status.hosts}`, dead ? `${dead} do not report` : "all report", dead ? "bad" : "good", "#/list/hosts"),
      tile("VIFs", `${ready}/${vifs}`, vifs === ready ? "all ready" : Object.entries(status.vifs).filter(([k, v]) => v && k !== "ready").map(([k, v]) => `${v} ${k}`).join(", "), ready === vifs ? "good" : "warn", "#/list/vifs"),
      tile("Networks", status.networks, status.pool ? `revision ${status.pool.revision}` : "no pool yet", "plain", "#/list/networks"),
      tile("Migrations", status.moving.length, status.moving.length ? "under way" : "none under way", status.moving.length ? "moving" : "plain", "#/map"),
      tile("Attention", status.problems.length, status.problems.length ? "not as desired" : "all is as desired", status.problems.length ? "bad" : "good", "#/")),
    status.moving.length > 0 && h("section", { class: "card wide" }, h("h2", "Migrations"), table([
      { title: "Unit", cell: (m) => m.unit },
      { title: "Phase", cell: (m) => badge(m.migration.phase, "moving") },
      { title: "From", cell: (m) => linked("host", m.migration.source) },
      { title: "To", cell: (m) => linked("host", m.migration.destination) },
      { title: "Waits for", cell: (m) => m.migration.waiting.join("; ") }], status.moving, { caption: "Migrations" })),
    h("section", { class: "card wide" }, h("h2", "Asks for attention"),
      table([
        { title: "Text", cell: (p) => p.text },
        { title: "Host", cell: (p) => linked("host", p.host) },
        { title: "Code", cell: (p) => h("code", p.code) }], status.problems.slice(0, PROBLEMS_SHOWN), { caption: "What is not as desired", empty: "Nothing: all is as desired." }),
      status.problems.length > PROBLEMS_SHOWN && h("p", { class: "muted" }, `${status.problems.length - PROBLEMS_SHOWN} more`)),
    may("GET", "/v1/health") && between,
    status.picking_up.length > 0 && h("section", { class: "card wide" }, h("h2", "Connections that are picked up"), h("ul", status.picking_up.slice(0, 20).map((r) => h("li", r.text)))),
    Object.keys(status.elsewhere).length > 0 && h("section", { class: "card wide" }, h("h2", "Agents elsewhere"), h("ul", Object.entries(status.elsewhere).map(([host, machine]) => h("li", linked("host", host), ` by ${machine}`)))),
  ];
}

/** What is wrong with the network between hosts, as they have stated, or with `looked` as they have just found. */
async function health(box, looked = null) {
  const found = looked ?? await get("/v1/health").catch(() => null);
  if (!found) { fill(box); return; }
  const look = async (event) => {
    event.currentTarget.disabled = true;
    try { await health(box, await call("POST", "/v1/health")); } catch (error) { notice(error.message, "bad"); event.target.disabled = false; }
  };
  fill(box, h("h2", "The network between hosts"),
    table([
      { title: "Text", cell: (f) => f.text },
      { title: "To do", cell: (f) => f.remedy },
      { title: "Hosts", cell: (f) => f.hosts.map((host, n) => [n ? ", " : "", linked("host", host)]) },
      { title: "Code", cell: (f) => h("code", f.code) }], found.findings.slice(0, PROBLEMS_SHOWN), { caption: "What is wrong with the network between hosts", empty: looked ? `Nothing is wrong: ${found.tunnels.filter((t) => t.passes).length} ways through tunnels and ${found.uplinks.length} uplinks were looked at.` : "Hosts have stated nothing that is wrong." }),
    Object.entries(looked?.missing ?? {}).map(([host, why]) => h("p", { class: "muted" }, `${host} did not look: ${why}`)),
    may("POST", "/v1/health") && h("button", { onclick: look }, "Have hosts look now"));
}

function tile(title, value, text, level, href) {
  return h("a", { class: ["tile", level], href }, h("span", { class: "tile-title" }, title), h("strong", String(value)), h("span", text));
}

/** What a caller with a scope sees: its own. */
async function tenants() {
  const [vifs, vms] = await Promise.all([objects("vifs"), objects("vms")]);
  const wrong = [...vifs.values()].filter((v) => v.place.state !== "ready" || v.place.why.length);
  return [
    h("div", { class: "tiles" },
      tile("VMs", vms.size, "in your scope", "plain", "#/list/vms"),
      tile("VIFs", `${vifs.size - wrong.length}/${vifs.size}`, wrong.length ? "not all ready" : "all ready", wrong.length ? "warn" : "good", "#/list/vifs")),
    h("section", { class: "card wide" }, h("h2", "Asks for attention"), table([
      { title: "VIF", cell: (v) => linked("vif", v.id) },
      { title: "State", cell: (v) => v.place.state },
      { title: "Why", cell: (v) => v.place.why.map((r) => r.text).join("; ") }], wrong.slice(0, PROBLEMS_SHOWN), { empty: "Nothing: all VIFs are ready." })),
  ];
}

export function trial(found, again) {
  const act = (what, text) => async () => { await steps(`/v1/trial/${what}?revision=${found.revision}`); notice(text); again(); };
  return h("section", { class: "card wide warn", role: "status" }, h("h2", `Revision ${found.revision} is on trial`),
    h("p", `It is taken back at `, when(found.ends), `, unless it is confirmed. Tried by ${found.caller}${found.reason ? `: ${found.reason}` : ""}.`),
    h("p", { class: "actions" },
      may("POST", "/v1/trial/confirm") && h("button", { class: "primary", onclick: act("confirm", "Confirmed: it stays.") }, "Keep it"),
      may("POST", "/v1/trial/revert") && h("button", { onclick: act("revert", "Taken back.") }, "Take it back now")));
}
