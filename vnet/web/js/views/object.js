// One object: its fields, and for what runs its place, why, rules in force, flows explained, counters, who may reach it, events.

import { call, enc, get, may, noun, nouns, query as search, scoped } from "../api.js";
import { cell, fields, linked, place, title } from "../cells.js";
import { amount, badge, field, fill, h, notice, refusal, select, table } from "../dom.js";
import { objects } from "../store.js";
import { captureLink } from "./capture.js";
import { changing, decide } from "./change.js";
import { COLUMNS } from "./events.js";
import { line, traceLink } from "./trace.js";

const EVENTS_OF = ["host", "network", "vif"]; // by which events are found
const SECTIONS = { vif: [migration, quarantine, rules, reach, traffic, flows], vm: [migration, vifs], "security-group": [counters], host: [host], network: [], expectation: [] };
const APART = new Set(["place", "agent", "migration", "rules", "neighbours"]); // shown in sections of their own

export async function object({ rest: [word, key], signal }) {
  const found = noun(word);
  if (!found || !key) throw new Error(`there is no sort of object ${word}`);
  const single = `/v1/${found.plural}/${enc(key)}`;
  const head = h("div");
  let value = await get(single, signal);
  const sections = (SECTIONS[word] ?? []).map((make) => make(value, single)).filter(Boolean);
  const elements = sections.map((s) => s.element ?? s);
  const aside = elements.filter((e) => e.localName === "section" && !["security-group", "vm"].includes(word) || e.classList.contains("aside"));
  const wide = elements.filter((e) => !aside.includes(e));
  const news = may("GET", "/v1/events") && EVENTS_OF.includes(word) ? h("section", { class: "card" }) : null;

  async function show() {
    fill(head, card(found, value));
    for (const section of sections) section.update?.(value);
    if (news) fill(news, h("h2", "Events"), table(COLUMNS, (await get(`/v1/events${search({ [word]: key, limit: 20 })}`, signal)).reverse(), { caption: `Events of ${key}`, empty: "None." }));
  }
  await show();
  return {
    element: [h("p", { class: "muted crumbs" }, h("a", { href: `#/list/${found.plural}` }, title(found.texts))), h("h1", `${title(found.text)} ${key}`), h("div", { class: "columns" }, head, aside.length > 0 && h("div", aside)), changing(found, key, single, value), wide, news, named(found, key)],
    changed: async (words) => {
      if (!words.has(word)) return;
      try { value = await get(single, signal); await show(); } catch (error) { if (error.status === 404) fill(head, h("p", { role: "status", class: "refusal" }, "It is not there any more.")); }
    },
    leave: () => sections.forEach((s) => s.leave?.()),
  };
}

function card(found, value) {
  const shown = fields(found).filter((f) => !APART.has(f.name) && f.name in value);
  const set = shown.filter((f) => !empty(value[f.name]));
  const unset = shown.filter((f) => empty(value[f.name]));
  return [
    value.place && h("section", { class: "card" }, h("h2", "Place"), h("p", place(value.place), value.place.since && [" since ", cell("since", value.place.since)]),
      value.place.why.length > 0 && [h("h3", "Why"), h("ul", value.place.why.map((r) => h("li", r.text, " ", h("code", { class: "muted" }, r.code))))],
      value.place.picks_up && h("p", badge("picks up connections", "warn")), value.place.connections && h("p", `Connections: ${value.place.connections}`), captureLink(value.id)),
    h("section", { class: "card" }, h("h2", "Fields"), list(found, set, value),
      unset.length > 0 && h("details", h("summary", `${unset.length} that are not set`), h("dl", { class: "fields" }, unset.map((f) => [h("dt", f.text), h("dd", { class: "muted" }, f.doc || "–")])))),
  ];
}
const empty = (value) => value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);
const list = (found, shown, value) => h("dl", { class: "fields" }, shown.map((f) => [h("dt", f.text), h("dd", { title: f.doc }, cell(f.name, value[f.name]))]));

/** The lists that have a filter for this object. */
function named(found, key) {
  const links = nouns().flatMap((n) => n.filters.filter((f) => f.refers === found.word && may("GET", `/v1/${n.plural}`)).map((f) => h("li", h("a", { href: `#/list/${n.plural}${search({ [f.name]: key })}` }, title(n.texts)))));
  return links.length ? h("section", { class: "card" }, h("h2", "Named by"), h("ul", links)) : null;
}

// --- what runs ------------------------------------------------------------------------------------

function migration(value, single) {
  const path = single.split("/").slice(0, 3).join("/");
  const box = h("section", { class: "card aside" });
  const step = (name, text, body) => async () => { try { await call("POST", `${single}/${name}`, { body }); notice(text); } catch (error) { notice(error.message, "bad"); } };
  async function update(now) {
    const moves = now.migration && now.migration.phase !== "none" ? now.migration : null;
    const offered = may("POST", `${path}/{id}/prepare`);
    const hosts = offered && may("GET", "/v1/hosts") ? [...(await objects("hosts")).keys()] : [];
    const here = now.place?.host ?? now.vifs?.[0]?.place.host ?? now.host;
    const to = select(hosts.filter((name) => name !== here), "", { "aria-label": "Destination" });
    fill(box, h("h2", "Migration"),
      moves ? [h("p", badge(moves.phase, "moving"), ` from `, linked("host", moves.source), " to ", linked("host", moves.destination)), moves.waiting.length > 0 && h("p", `Waits for: ${moves.waiting.join("; ")}`)] : h("p", { class: "muted" }, "None under way."),
      offered && h("p", { class: "actions" },
        !moves && to.options.length > 0 && [to, h("button", { onclick: () => step("prepare", `${to.value} gets ready.`, { to: to.value })() }, "Prepare there")],
        moves && moves.phase !== "active" && [h("button", { onclick: step("activate", "Active at the destination.", {}) }, "Activate"), h("button", { onclick: step("abort", "Aborted.") }, "Abort")],
        moves?.phase === "active" && h("button", { class: "primary", onclick: step("finish", "Finished.", {}) }, "Finish")),
      offered && h("p", { class: "hint" }, "The toolstack moves the guest; this moves its network."));
  }
  return { element: box, update };
}

function quarantine(value, single) {
  if (!may("PUT", "/v1/vifs/{id}/quarantine")) return null;
  const box = h("section", { class: "card" });
  const act = (method, body, text) => async () => {
    try {
      if (await decide(method, `${single}/quarantine`, body, { heading: `${text}?`, action: text })) notice("Done.");
    } catch (error) { notice(error.message, "bad"); }
  };
  async function update(now) {
    const others = [...(await objects("networks")).keys()].filter((name) => name !== now.network);
    const to = select(others, "", { "aria-label": "Network of the quarantine" });
    fill(box, h("h2", "Quarantine"), now.former_network
      ? [h("p", badge("in quarantine", "warn"), " on ", linked("network", now.network), ", from ", linked("network", now.former_network)), h("button", { onclick: act("DELETE", undefined, "Release it") }, "Release…")]
      : others.length ? h("p", { class: "actions" }, to, h("button", { onclick: () => act("PUT", { network: to.value }, "Put it in quarantine")() }, "Put it there…")) : h("p", { class: "muted" }, "There is no other network."));
  }
  return { element: box, update };
}

function vifs(value) {
  const box = h("section", { class: "card" });
  return { element: box, update: (now) => fill(box, h("h2", "VIFs"), table([
    { title: "VIF", cell: (v) => linked("vif", v.id) }, { title: "Network", cell: (v) => linked("network", v.network) }, { title: "Addresses", class: "mono", cell: (v) => v.addresses.join(", ") }, { title: "Place", cell: (v) => place(v.place) },
  ], now.vifs, { caption: `VIFs of ${now.name}`, empty: "None." })) };
}

function host(value) {
  const box = h("section", { class: "card" });
  return { element: box, update: (now) => fill(box, h("h2", "Agent"), h("p", cell("agent", now.agent)), h("dl", { class: "fields" }, Object.entries(now.agent).filter(([k, v]) => k !== "problems" && k !== "alive" && v !== "").map(([k, v]) => [h("dt", title(k)), h("dd", cell(k, v))])),
    Object.keys(now.agent.problems).length > 0 && [h("h3", "Problems"), h("ul", Object.entries(now.agent.problems).map(([k, v]) => h("li", h("strong", k), `: ${v}`)))],
    now.neighbours.length > 0 && [h("h3", "Neighbours of its NICs, by LLDP"), h("ul", now.neighbours.map((n) => h("li", h("strong", n.nic), ` at ${n.place}`, n.port_description && `, ${n.port_description}`, n.address && `, ${n.address}`, n.vlan && `, untagged VLAN ${n.vlan}`)))]) };
}

// --- rules, flows, reachability -------------------------------------------------------------------

/** A section that is filled when it is opened, since hosts or the twin are asked for it. */
function later(heading, make) {
  const box = h("div");
  const again = async () => {
    fill(box, h("p", { class: "muted" }, "Asking…"));
    try { fill(box, await make()); } catch (error) { if (error.name !== "AbortError") fill(box, refusal(error)); }
  };
  return h("details", { class: "card", ontoggle: (event) => { if (event.currentTarget.open) again(); } }, h("summary", h("h2", heading)), box);
}

function rules(value, single) {
  if (!may("GET", "/v1/vifs/{id}/explained")) return null;
  return later("Rules in force", async () => {
    const { steps } = await get(`${single}/explained`);
    if (!steps.length) return h("p", "No security group judges it: everything passes.");
    const names = [...new Set(steps.flatMap((s) => s.groups))];
    const groups = new Map(await Promise.all(names.map(async (name) => [name, await get(`/v1/security-groups/${enc(name)}`)])));
    return [h("p", { class: "muted" }, "The first step in which a rule matches decides. Within a step a rule that drops wins over one that rejects, that over one that allows, any over a default."),
      h("ol", steps.map((step) => h("li", h("h3", `${step.mandatory ? "Mandatory rules" : "Rules"} of tier ${step.tier}`), step.groups.map((name) => [h("p", linked("security-group", name), step.tier === "vif" && ` – by default ${groups.get(name).ingress} in, ${groups.get(name).egress} out`, groups.get(name).mode === "monitor" && badge("monitor: decides nothing", "warn")),
        ruleTable(groups.get(name).rules.filter((r) => step.tier === "vif" || Boolean(r.mandatory) === step.mandatory), name)]))))];
  });
}

function ruleTable(found, name, counts = null) {
  return table([
    { title: "Rule", cell: (r) => r.name },
    { title: "Direction", cell: (r) => r.direction },
    { title: "Action", cell: (r) => badge(r.action ?? "allow", (r.action ?? "allow") === "allow" ? "good" : "bad") },
    { title: "Protocol", cell: (r) => r.protocol ?? "any" },
    { title: "Ports", cell: (r) => (r.ports ?? []).join(", ") },
    { title: "Remote", cell: (r) => [r.remote ?? "any"].flat().join(", ") },
    ...(counts ? [{ title: "Packets", number: true, cell: (r) => counts.find((c) => c.rule === r.name && c.direction === r.direction)?.packets ?? "" }] : []),
  ], found, { caption: `Rules of ${name}`, empty: "No rules." });
}

function counters(value, single) {
  const box = h("section", { class: "card" });
  async function update(now) {
    let found = null;
    if (may("GET", "/v1/security-groups/{id}/counters")) { try { found = await get(`${single}/counters?wait_s=3`); } catch { /* as where no host counts */ } }
    const byDefault = (found?.rules ?? []).filter((r) => !r.rule);
    fill(box, h("h2", "Rules"), ruleTable(now.rules, now.name, found?.rules),
      byDefault.map((r) => h("p", `By default ${r.direction}: ${r.action}, ${amount(r.packets, "packets")}`)),
      found && Object.entries(found.missing).map(([host, why]) => h("p", { class: "muted" }, `${host} is not in the sums: ${why}`)));
  }
  return { element: box, update };
}

function flows(value, single) {
  if (!may("GET", "/v1/vifs/{id}/explained")) return null;
  return later("Flows, explained", async () => {
    const found = await get(`${single}/explained`);
    if (found.host === null) return h("p", "It runs nowhere, so no host has flows of its own for it.");
    const tables = [...new Set(found.flows.map((f) => f.table))];
    return [h("p", { class: "muted" }, `As host ${found.host} should have them; “vnet show flows --vif ${found.vif}” there counts what each has seen.`),
      tables.map((number) => { const of = found.flows.filter((f) => f.table === number); return h("section", h("h3", `${number} ${of[0].name.toLowerCase().replaceAll("_", " ")}`, h("span", { class: "muted" }, ` ${of[0].does}`)), table([
        { title: "For", cell: (f) => [f.source, f.place && [" ", line(f.place)], f.asks.length > 0 && h("p", { class: "muted" }, `asks ${f.asks.join("; ")}`)] },
        { title: "Priority", number: true, cell: (f) => f.priority },
        { title: "Match", class: "mono", cell: (f) => f.match },
      ], of, { caption: `Flows of table ${number}` })); })];
  });
}

function reach(value) {
  if (!may("GET", "/v1/matrix")) return null;
  const answer = h("div", { "aria-live": "polite" });
  const protocol = select([["icmp", "ping"], ["tcp", "TCP"], ["udp", "UDP"]], "icmp", { onchange: () => { port.parentElement.hidden = protocol.value === "icmp"; } });
  const port = h("input", { type: "number", min: 1, max: 65535, value: 443 });
  async function show(event) {
    event?.preventDefault();
    const asked = { protocol: protocol.value, port: protocol.value === "icmp" ? "" : port.value };
    fill(answer, h("p", { class: "muted" }, "Asking the twin…"));
    try {
      const found = await get(`/v1/matrix${search(asked)}`);
      const mine = found.classes.findIndex((c) => c.vifs.includes(value.id));
      if (mine < 0) { fill(answer, h("p", "It runs nowhere.")); return; }
      const names = (test) => found.classes.flatMap((c, n) => (test(n) ? c.vifs : [])).filter((v) => v !== value.id);
      const links = (ids, way) => ids.length ? h("p", { class: "names" }, ids.slice(0, 300).map((id, n) => [n ? ", " : "", linked("vif", id), " ", traceLink(way ? id : value.id, way ? value.id : id, "(why)", asked)]), ids.length > 300 && ` and ${ids.length - 300} more`) : h("p", "Nobody.");
      fill(answer, scoped() && h("p", { class: "muted" }, "Of the VIFs in the token’s scope."), h("h3", "May reach it"), links(names((n) => found.reaches[n][mine]), true), h("h3", "It reaches"), links(names((n) => found.reaches[mine][n]), false));
    } catch (error) { fill(answer, refusal(error)); }
  }
  const made = h("details", { class: "card", ontoggle: (event) => { if (event.currentTarget.open && !answer.hasChildNodes()) show(); } }, h("summary", h("h2", "Who may reach it")),
    h("form", { class: "filters", onsubmit: show }, field("By", protocol), field("Port", port), h("button", "Show")), answer);
  port.parentElement.hidden = true;
  return made;
}

// --- counters -------------------------------------------------------------------------------------

const EVERY_MS = 3000;
const POINTS = 60;

function traffic(value) {
  if (!may("GET", "/v1/traffic")) return null;
  const box = h("section", { class: "card" });
  const seen = [];
  let timer = 0;
  let over = false;
  async function look() {
    try {
      if (document.visibilityState !== "visible") return;
      const found = (await get(`/v1/traffic${search({ vif: value.id })}`)).vifs[value.id];
      if (found && found.at !== seen.at(-1)?.at) seen.push(found);
      seen.splice(0, seen.length - POINTS);
      fill(box, h("h2", "Counters"), found ? drawn(seen) : h("p", { class: "muted" }, "No host counts for it now."));
    } catch (error) { fill(box, h("h2", "Counters"), refusal(error)); }
    finally { if (!over) timer = setTimeout(look, EVERY_MS); }
  }
  look();
  return { element: box, leave: () => { over = true; clearTimeout(timer); } };
}

function drawn(seen) {
  const rows = [["From the VM", "from_vm"], ["To the VM", "to_vm"]].map(([text, name]) => {
    const rates = seen.slice(1).map((now, n) => Math.max(0, (now[`${name}_bytes`] - seen[n][`${name}_bytes`]) * 8000 / (now.at - seen[n].at)));
    return { text, name, rates, last: seen.at(-1) };
  });
  return table([
    { title: "Way", cell: (r) => r.text },
    { title: "Now", number: true, cell: (r) => (r.rates.length ? amount(r.rates.at(-1), "bit/s") : "…") },
    { title: "Course", cell: (r) => spark(r.rates) },
    { title: "Packets", number: true, cell: (r) => r.last[`${r.name}_packets`] },
    { title: "Bytes", number: true, cell: (r) => amount(r.last[`${r.name}_bytes`], "B") },
    { title: "Dropped", number: true, cell: (r) => r.last[`${r.name}_dropped`] },
  ], rows, { caption: "Counters of the VIF's port" });
}

function spark(values) {
  const most = Math.max(1, ...values);
  const points = values.map((v, n) => `${n ? "L" : "M"}${(n * 2).toFixed(1)} ${(22 - 20 * v / most).toFixed(1)}`).join("");
  return h("svg", { viewBox: `0 0 ${POINTS * 2} 24`, width: POINTS * 2, height: 24, role: "img", "aria-label": values.length ? `at most ${amount(most, "bit/s")} in the last minutes` : "no course yet" }, h("path", { d: points || "M0 0", class: "spark" }));
}
