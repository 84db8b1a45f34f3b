// The live map: hosts with their VMs, networks, tunnels, traffic, health and migrations. The same stands below it as a table.
// One rule: what an event changes is changed in the picture; nothing is laid out anew unless a host or a network comes or goes.

import cytoscape from "../../vendor/cytoscape.js";
import { get, may, query as search } from "../api.js";
import { linked } from "../cells.js";
import { amount, badge, field, fill, h, select, table } from "../dom.js";
import { objects } from "../store.js";

const TUNNELS = new Set(["vxlan", "geneve", "gre"]);
const CHIP = { w: 74, h: 24, gap: 8 };
const HOST = { pad: 14, head: 34, gap: 110 };
const MOVE_MS = 700;
const POLL_MS = 700; // while something moves: its phases have no events of their own
const TRAFFIC_MS = 3000;
const NAMED = 400; // VMs with their names at any size; of more at a closer look
const DRAWN = 3000; // VMs; of more those that migrate, and how many there are
const EDGES = 60; // VMs whose networks are drawn as lines of their own

export async function map({ query, replace, signal }) {
  const state = { ...query };
  const box = h("div", { class: "map", role: "img", "aria-label": "Map of the pool; the tables below say the same", tabindex: "0" });
  const detail = h("aside", { class: "card detail", "aria-label": "What is chosen" });
  const told = h("p", { class: "hidden", role: "status" });
  const same = h("section", { class: "card wide" });
  const picture = new Picture(box, (found) => { choose(found); });
  let health = { findings: [], tunnels: [] };
  let model = await read();
  let rates = new Map(); // bits a second: of VIFs {in, out} by their ids, of tunnels by "source to"

  const form = h("form", { class: "filters", onsubmit: (e) => e.preventDefault(), role: "search" },
    field("Find", h("input", { type: "search", name: "q", value: state.q ?? "", oninput: (e) => set("q", e.target.value) })),
    field("Network", select([["", "all"], ...[...model.networks.keys()].map((n) => [n, n])], state.network ?? "", { name: "network", onchange: (e) => set("network", e.target.value) })),
    h("div", { class: "field actions" },
      h("button", { type: "button", onclick: () => picture.zoom(1.3), "aria-label": "Closer" }, "+"),
      h("button", { type: "button", onclick: () => picture.zoom(1 / 1.3), "aria-label": "Farther" }, "−"),
      h("button", { type: "button", onclick: () => picture.fit() }, "Fit")));

  function set(name, value) { state[name] = value; replace(search(state)); picture.filter(state); }

  function choose(found) {
    fill(told, found ? `${found.word} ${found.key} is chosen` : "");
    state.chosen = found ? `${found.word}:${found.key}` : "";
    replace(search(state));
    describe();
  }
  function describe() {
    const [word, ...rest] = (state.chosen ?? "").split(":");
    picture.choose(word ? { word, key: rest.join(":") } : null);
    fill(detail, described(model, word, rest.join(":"), rates));
    detail.hidden = !word;
  }

  async function read(words = null) {
    if (may("GET", "/v1/health") && (!words || words.has("host"))) health = await get("/v1/health").catch(() => health);
    const [hosts, networks, vifs] = await Promise.all([may("GET", "/v1/hosts") ? objects("hosts", { counts: false }) : new Map(), objects("networks", { counts: false }), objects("vifs")]);
    return modelOf(ordered(hosts), ordered(networks), vifs, health);
  }
  async function show(words = null) {
    model = await read(words ?? new Set());
    picture.show(model);
    picture.filter(state);
    fill(same, tables(model));
    describe();
    if (model.moving.length) poll();
  }

  let polling = 0;
  function poll() {
    polling ||= setTimeout(async () => {
      polling = 0;
      if (signal.aborted) return;
      const known = await objects("vifs");
      await Promise.all(model.moving.slice(0, 50).map(async (vif) => { try { known.set(vif.id, await get(`/v1/vifs/${encodeURIComponent(vif.id)}`)); } catch { /* it went: an event says so */ } }));
      await show();
    }, POLL_MS);
  }

  async function traffic() {
    if (signal.aborted) return;
    if (document.visibilityState === "visible") {
      try {
        rates = ratesOf(await get("/v1/traffic", signal));
        picture.traffic(model, rates);
        describe();
      } catch { /* hosts that do not answer have no figures */ }
    }
    setTimeout(traffic, TRAFFIC_MS);
  }
  let before = null;
  function ratesOf(now) {
    const found = new Map();
    if (before) {
      for (const [id, count] of Object.entries(now.vifs)) {
        const old = before.vifs[id];
        const seconds = (count.at - (old?.at ?? count.at)) / 1000;
        if (!old || seconds <= 0) { if (picture.rates.has(id)) found.set(id, picture.rates.get(id)); continue; }
        found.set(id, { out: Math.max(0, (count.from_vm_bytes - old.from_vm_bytes) * 8 / seconds), in: Math.max(0, (count.to_vm_bytes - old.to_vm_bytes) * 8 / seconds) });
      }
      const sent = new Map(before.tunnels.map((t) => [wayOf(t.source, t.to), t]));
      for (const count of now.tunnels) {
        const way = wayOf(count.source, count.to);
        const old = sent.get(way);
        if (!old || count.at <= old.at || count.bytes < old.bytes) { if (picture.rates.has(way)) found.set(way, picture.rates.get(way)); continue; } // flows that begin anew count anew
        found.set(way, (count.bytes - old.bytes) * 8000 / (count.at - old.at));
      }
    }
    before = now;
    return found;
  }

  const recolour = () => picture.style();
  addEventListener("vnet-theme", recolour);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", recolour);
  return {
    element: [h("h1", "Map"), form, h("div", { class: "mapbox" }, box, detail), told, legend(), same],
    shown: async () => { picture.begin(model); await show(); if (may("GET", "/v1/traffic")) traffic(); },
    changed: (words) => (["host", "network", "vm", "vif"].some((w) => words.has(w)) ? show(words) : null),
    queried: (values) => { Object.assign(state, { q: "", network: "", chosen: "" }, values); for (const name of ["q", "network"]) form.elements[name].value = state[name]; picture.filter(state); describe(); },
    leave: () => { picture.end(); clearTimeout(polling); removeEventListener("vnet-theme", recolour); dark.removeEventListener("change", recolour); },
  };
}

const wayOf = (source, to) => `tunnel ${source} ${to}`;
/** Bits a second through a tunnel: {there, back}, of its ends in their order. */
const tunnelRate = (rates, [a, b]) => ({ there: rates.get(wayOf(a, b)) ?? 0, back: rates.get(wayOf(b, a)) ?? 0 });

// --- the pool as a picture has it -----------------------------------------------------------------

const ordered = (found) => new Map([...found].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true })));

/** VMs (VIFs without one stand for themselves) on the hosts where they run; networks; tunnels between hosts that share a tunnel network. */
function modelOf(hosts, networks, vifs, health) {
  const vms = new Map();
  const moving = [];
  for (const vif of vifs.values()) {
    const name = vif.vm ?? vif.id;
    const vm = vms.get(name) ?? vms.set(name, { name, word: vif.vm ? "vm" : "vif", vifs: [], networks: new Set(), host: null, to: null, phase: "", health: "good" }).get(name);
    vm.vifs.push(vif);
    vm.networks.add(vif.network);
    vm.host ??= vif.place.host ?? null;
    if (vif.migration && vif.migration.phase !== "none") {
      moving.push(vif);
      vm.to = vif.migration.destination;
      vm.phase = vif.migration.phase;
      if (vif.migration.phase === "active") vm.host = vm.to;
    }
    if (vif.place.state === "defined" && !vif.place.host) vm.health = vm.health === "bad" ? "bad" : "off";
    else if (vif.place.state !== "ready" || vif.place.why.length) vm.health = "bad";
  }
  const members = new Map(); // network: host: its VIFs there
  for (const vif of vifs.values()) {
    if (!vif.place.host) continue;
    const of = members.get(vif.network) ?? members.set(vif.network, new Map()).get(vif.network);
    of.set(vif.place.host, [...(of.get(vif.place.host) ?? []), vif]);
  }
  const tunnels = new Map();
  for (const [name, of] of members) {
    if (!TUNNELS.has(networks.get(name)?.type)) continue;
    const on = [...of.keys()].filter((host) => hosts.has(host) || !hosts.size).sort();
    for (let a = 0; a < on.length; a++) for (let b = a + 1; b < on.length; b++) {
      const key = `${on[a]} ${on[b]}`;
      const tunnel = tunnels.get(key) ?? tunnels.set(key, { key, ends: [on[a], on[b]], networks: [], health: "good" }).get(key);
      tunnel.networks.push(name);
      if ([on[a], on[b]].some((host) => hosts.get(host)?.agent.alive === false)) tunnel.health = "bad";
    }
  }
  for (const tunnel of tunnels.values()) {
    const of = health.tunnels.filter((t) => tunnel.ends.includes(t.source) && tunnel.ends.includes(t.to));
    tunnel.says = health.findings.filter((f) => f.hosts.length && f.hosts.every((host) => tunnel.ends.includes(host)) && f.code.startsWith("tunnel"));
    if (of.some((t) => t.passes === false) || tunnel.says.some((f) => f.code !== "tunnel-mtu")) tunnel.health = "bad";
    else if (of.length && tunnel.health === "good") tunnel.health = "warn";
  }
  // Those of tunnels are on their edges.
  for (const [name, host] of hosts) host.ails = health.findings.some((f) => !f.code.startsWith("tunnel") && f.hosts.includes(name));
  return { hosts, networks, vifs, vms, findings: health.findings, members, tunnels, moving, colours: new Map([...networks.keys()].map((n, at) => [n, at])) };
}

const tunnelBadge = (tunnel) => badge({ good: "works", warn: "not as it should be", bad: "does not work, or a host does not report" }[tunnel.health], tunnel.health);
const healthOf = (host) => (!host.agent.alive ? "bad" : Object.keys(host.agent.problems).length || host.agent.behind || host.ails ? "warn" : "good");

function described(model, word, key, rates) {
  const rate = (ids) => ids.map((id) => rates.get(id)).filter(Boolean).reduce((a, r) => ({ in: a.in + r.in, out: a.out + r.out }), { in: 0, out: 0 });
  const line = (ids) => (rates.size ? h("p", `Sends ${amount(rate(ids).out, "bit/s")}, gets ${amount(rate(ids).in, "bit/s")}`) : null);
  if (word === "host" && model.hosts.has(key)) {
    const host = model.hosts.get(key);
    const vms = [...model.vms.values()].filter((vm) => vm.host === key);
    return [h("h2", linked("host", key)), badge({ good: "as desired", warn: "with problems", bad: "does not report" }[healthOf(host)], healthOf(host)), h("p", `${vms.length} VMs, ${vms.reduce((n, vm) => n + vm.vifs.length, 0)} VIFs`), line(vms.flatMap((vm) => vm.vifs.map((v) => v.id))), h("ul", Object.entries(host.agent.problems).slice(0, 5).map(([k, v]) => h("li", `${k}: ${v}`)), model.findings.filter((f) => f.hosts.includes(key)).slice(0, 5).map((f) => h("li", f.text, h("p", { class: "muted" }, f.remedy))))];
  }
  if (word === "network" && model.networks.has(key)) {
    const network = model.networks.get(key);
    const of = [...(model.members.get(key)?.entries() ?? [])];
    return [h("h2", linked("network", key)), h("p", `${network.type}, MTU ${network.mtu}, ${of.reduce((n, [, vifs]) => n + vifs.length, 0)} VIFs that run${network.encryption ? ", encrypted" : ""}`), line(of.flatMap(([, vifs]) => vifs.map((v) => v.id))), h("ul", of.map(([host, vifs]) => h("li", `${host}: ${vifs.length} VIFs`)))];
  }
  if (word === "vm" || word === "vif") {
    const vm = model.vms.get(key);
    if (!vm) return h("p", `${key} is not there.`);
    return [h("h2", linked(vm.word, key)), h("p", vm.host ? `runs on ${vm.host}` : "runs nowhere", vm.to && [" ", badge(`${vm.phase} → ${vm.to}`, "moving")]), line(vm.vifs.map((v) => v.id)),
      h("ul", vm.vifs.map((v) => h("li", linked("vif", v.id), ` on ${v.network}: ${v.addresses.join(", ") || v.mac}`, v.place.why.map((r) => h("p", { class: "muted" }, r.text)))))];
  }
  if (word === "tunnel" && model.tunnels.has(key)) {
    const tunnel = model.tunnels.get(key);
    return [h("h2", `Tunnel ${tunnel.ends.join(" – ")}`), tunnelBadge(tunnel), h("p", `carries ${tunnel.networks.join(", ")}`), rates.size > 0 && tunnelLine(tunnel, rates), h("ul", tunnel.says.map((f) => h("li", f.text, h("p", { class: "muted" }, f.remedy))))];
  }
  return "";
}

function tunnelLine(tunnel, rates) {
  const [a, b] = tunnel.ends;
  const { there, back } = tunnelRate(rates, tunnel.ends);
  return h("p", `${a} sends ${amount(there, "bit/s")}, ${b} ${amount(back, "bit/s")}`);
}

function tables(model) {
  const runs = (host) => [...model.vms.values()].filter((vm) => vm.host === host);
  const nowhere = runs(null);
  return [h("h2", "The same as tables"),
    table([
      { title: "Host", cell: (host) => linked("host", host.name) },
      { title: "Health", cell: (host) => badge({ good: "as desired", warn: "with problems", bad: "does not report" }[healthOf(host)], healthOf(host)) },
      { title: "VIFs", number: true, cell: (host) => runs(host.name).reduce((n, vm) => n + vm.vifs.length, 0) },
      { title: "VMs", cell: (host) => { const vms = runs(host.name); return [vms.slice(0, 20).map((vm, n) => [n ? ", " : "", linked(vm.word, vm.name), vm.to ? ` (→ ${vm.to})` : ""]), vms.length > 20 && [", ", h("a", { href: `#/list/vifs?host=${encodeURIComponent(host.name)}` }, `${vms.length - 20} more`)]]; } },
    ], [...model.hosts.values()], { caption: "Hosts of the map", empty: "No hosts that you may see." }),
    nowhere.length > 0 && h("p", `Run nowhere: ${nowhere.slice(0, 20).map((vm) => vm.name).join(", ")}${nowhere.length > 20 ? ` and ${nowhere.length - 20} more` : ""}`),
    table([
      { title: "Network", cell: (n) => linked("network", n.name) },
      { title: "Type", cell: (n) => n.type },
      { title: "VIFs by host", cell: (n) => [...(model.members.get(n.name)?.entries() ?? [])].map(([host, vifs]) => `${host}: ${vifs.length}`).join(", ") },
    ], [...model.networks.values()], { caption: "Networks of the map" }),
    table([
      { title: "Tunnel", cell: (t) => t.ends.join(" – ") },
      { title: "Networks", cell: (t) => t.networks.join(", ") },
      { title: "Health", cell: (t) => [tunnelBadge(t), t.says.map((f) => f.text).join("; ")] },
    ], [...model.tunnels.values()].slice(0, 200), { caption: "Tunnels of the map", empty: "No tunnels: no tunnel network is on two hosts." })];
}

const legend = () => h("ul", { class: "legend", "aria-label": "Legend" },
  h("li", h("span", { class: "swatch host" }), "host"), h("li", h("span", { class: "swatch net" }), "network, its colour on its VMs"),
  h("li", h("span", { class: "swatch line" }), "VIFs there, wider with traffic"), h("li", h("span", { class: "swatch tunnel" }), "tunnel between hosts, wider with traffic"),
  h("li", h("span", { class: "swatch bad" }), "asks for attention"), h("li", h("span", { class: "swatch moving" }), "migrates"));

// --- the picture ----------------------------------------------------------------------------------

const HUES = [212, 28, 150, 330, 262, 52, 186, 0, 96, 290, 232, 20, 170, 310];
/** The colour of the network of a number, as #rrggbb. */
function colour(at, dark) {
  const [hue, saturation, light] = [HUES[at % HUES.length], at >= HUES.length ? 0.3 : 0.62, dark ? 0.66 : 0.38];
  const part = (n) => { const k = (n + hue / 30) % 12; return light - saturation * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1)); };
  return `#${[0, 8, 4].map((n) => Math.round(255 * part(n)).toString(16).padStart(2, "0")).join("")}`;
}

class Picture {
  constructor(box, chosen) {
    this.box = box;
    this.chosen = chosen;
    this.rates = new Map();
    this.shape = "";
  }

  begin(model) {
    this.cy = cytoscape({ container: this.box, elements: [], layout: { name: "preset" }, minZoom: 0.05, maxZoom: 4, boxSelectionEnabled: false, autoungrabify: true, textureOnViewport: model.vms.size > NAMED, pixelRatio: "auto" });
    globalThis.vnetMap = this.cy; // for tests and for the curious
    this.cy.on("tap", (event) => {
      const target = event.target;
      this.chosen(target === this.cy ? null : target.data("word") ? { word: target.data("word"), key: target.data("key") } : null);
    });
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.sized = new ResizeObserver(() => { this.cy.resize(); if (!this.touched) this.fit(); });
    this.sized.observe(this.box);
    this.cy.on("dragpan scrollzoom pinchzoom", () => { this.touched = true; });
    this.style();
  }

  end() {
    this.sized?.disconnect();
    this.cy?.destroy();
    this.cy = null;
  }

  key(event) {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (step) this.cy.panBy({ x: step[0], y: step[1] });
    else if (event.key === "+" || event.key === "=") this.zoom(1.3);
    else if (event.key === "-") this.zoom(1 / 1.3);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
  zoom(by) { this.touched = true; this.cy.zoom({ level: this.cy.zoom() * by, renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 } }); }
  fit() { this.touched = false; this.cy.fit(this.cy.elements("node"), 24); }

  /** Brings the picture to a model: what is new is put in its place, what moves moves, what is gone goes. */
  show(model) {
    const cy = this.cy;
    this.model = model;
    const shape = JSON.stringify([[...model.hosts.keys()], [...model.networks.keys()], this.box.clientWidth < this.box.clientHeight]);
    const first = shape !== this.shape;
    const wanted = this.wanted(model);
    cy.batch(() => {
      cy.elements().forEach((element) => { if (!wanted.has(element.id()) && !element.data("temporary")) element.remove(); });
      const added = [];
      for (const [id, element] of wanted) {
        const known = cy.getElementById(id);
        if (known.empty()) added.push(element);
        else known.data(element.data);
      }
      cy.add(added.filter((e) => !e.data.source));
      cy.add(added.filter((e) => e.data.source));
    });
    for (const [id, element] of wanted) {
      if (!element.position) continue;
      const node = cy.getElementById(id);
      const from = node.position();
      if (Math.abs(from.x - element.position.x) + Math.abs(from.y - element.position.y) < 1) continue;
      if (first || element.data.word !== "vm" && element.data.word !== "vif" || matchMedia("(prefers-reduced-motion: reduce)").matches) node.position(element.position);
      else node.stop(true).animate({ position: element.position, duration: MOVE_MS, easing: "ease-in-out-cubic" });
    }
    this.shape = shape;
    if (first && !this.touched) this.fit();
  }

  /** All elements of a model by their ids, with their places. */
  wanted(model) {
    const found = new Map();
    const dark = isDark();
    const put = (id, data, position) => found.set(id, { group: data.source ? "edges" : "nodes", data: { id, ...data }, ...(position && { position }) });
    const on = new Map([...model.hosts.keys()].map((name) => [name, []]));
    const some = model.vms.size > DRAWN;
    const counts = new Map();
    const elsewhere = [];
    for (const vm of [...model.vms.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))) {
      counts.set(vm.host, (counts.get(vm.host) ?? 0) + 1);
      if (!some || vm.to) (on.get(vm.host) ?? elsewhere).push(vm);
    }
    if (elsewhere.length) on.set("", elsewhere);
    const most = Math.max(1, ...[...on.values()].map((vms) => vms.length));
    const across = Math.max(2, Math.ceil(Math.sqrt(most / 1.6)));
    const down = Math.ceil(most / across);
    const size = { w: across * (CHIP.w + CHIP.gap) - CHIP.gap + 2 * HOST.pad, h: HOST.head + Math.max(1, down) * (CHIP.h + CHIP.gap) - CHIP.gap + HOST.pad };
    const tall = this.box.clientWidth < this.box.clientHeight;
    const columns = on.size <= 4 ? (tall ? 1 : on.size) : Math.ceil(Math.sqrt(on.size * (tall ? 0.6 : 1.5)));
    const wide = columns * (size.w + HOST.gap) - HOST.gap;
    const nets = [...model.networks.values()];
    const row = Math.max(1, Math.min(nets.length, Math.floor((Math.max(wide, tall ? 340 : 600) + 40) / 170)));
    nets.forEach((network, n) => {
      const line = Math.floor(n / row);
      const here = Math.min(row, nets.length - line * row);
      put(`network ${network.name}`, { word: "network", key: network.name, label: network.name, sub: network.type, colour: colour(model.colours.get(network.name), dark) },
        { x: wide / 2 + (n % row - (here - 1) / 2) * Math.max(170, Math.min(wide / here, 260)), y: -150 - (Math.ceil(nets.length / row) - 1 - line) * 64 });
    });
    let at = 0;
    for (const [name, vms] of on) {
      const x = at % columns * (size.w + HOST.gap) + size.w / 2;
      const y = Math.floor(at / columns) * (size.h + HOST.gap) + size.h / 2;
      at += 1;
      const host = model.hosts.get(name);
      put(`host ${name}`, { word: host ? "host" : "", key: name, label: host ? `${name}  ·  ${counts.get(name) ?? 0} VM${counts.get(name) === 1 ? "" : "s"}` : model.hosts.size ? "run nowhere" : "yours", health: host ? healthOf(host) : "off", w: size.w, h: size.h }, { x, y });
      vms.forEach((vm, n) => {
        const colours = [...vm.networks].map((net) => colour(model.colours.get(net) ?? 0, dark));
        put(`vm ${vm.name}`, { word: vm.word, key: vm.name, label: vm.name, health: vm.health, moving: vm.to ? "yes" : "", first: colours[0], second: colours[1] ?? colours[0] },
          { x: x - size.w / 2 + HOST.pad + CHIP.w / 2 + n % across * (CHIP.w + CHIP.gap), y: y - size.h / 2 + HOST.head + CHIP.h / 2 + Math.floor(n / across) * (CHIP.h + CHIP.gap) });
        if (vm.to && vm.to !== vm.host && on.has(vm.to)) put(`move ${vm.name}`, { source: `vm ${vm.name}`, target: `host ${vm.to}`, type: "move", label: vm.phase });
      });
    }
    for (const [network, of] of model.members) {
      if (!model.networks.has(network)) continue;
      for (const [host, vifs] of of) {
        if (!on.has(host)) continue;
        const rate = vifs.map((v) => this.rates.get(v.id)).filter(Boolean).reduce((a, r) => a + r.in + r.out, 0);
        put(`on ${network} ${host}`, { source: `network ${network}`, target: `host ${host}`, type: TUNNELS.has(model.networks.get(network).type) ? "overlay" : "wire", colour: colour(model.colours.get(network), dark), ...trafficData(rate, vifs.length) });
      }
    }
    const rank = new Map([...on.keys()].map((name, n) => [name, n]));
    for (const tunnel of model.tunnels.values()) {
      const [a, b] = tunnel.ends;
      if (!on.has(a) || !on.has(b)) continue;
      const apart = Math.abs(rank.get(a) - rank.get(b));
      put(`tunnel ${tunnel.key}`, { word: "tunnel", key: tunnel.key, source: `host ${a}`, target: `host ${b}`, type: "tunnel", health: tunnel.health, ...tunnelData(this.rates, tunnel), bend: on.size > 4 || apart < 2 ? 0 : tall ? -110 * apart : size.h * 0.7 + 30 * apart, end: tall ? "50% 0" : "0 50%" });
    }
    return found;
  }

  traffic(model, rates) {
    this.rates = rates;
    if (!this.cy) return;
    this.cy.batch(() => {
      for (const [network, of] of model.members) for (const [host, vifs] of of) {
        const rate = vifs.map((v) => rates.get(v.id)).filter(Boolean).reduce((a, r) => a + r.in + r.out, 0);
        this.cy.getElementById(`on ${network} ${host}`).data(trafficData(rate, vifs.length));
      }
      for (const tunnel of model.tunnels.values()) this.cy.getElementById(`tunnel ${tunnel.key}`).data(tunnelData(rates, tunnel));
    });
  }

  /** Shows what a filter leaves; the rest is faint. */
  filter({ q = "", network = "" }) {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    this.cy.batch(() => {
      this.cy.elements().removeClass("faint");
      if (!words.length && !network) return;
      const has = (node) => words.every((w) => `${node.data("label")} ${node.data("key")}`.toLowerCase().includes(w));
      this.cy.nodes("[word = 'vm'], [word = 'vif']").forEach((node) => { if (!has(node) || network && !(this.model?.vms.get(node.data("key"))?.networks.has(network))) node.addClass("faint"); });
      this.cy.nodes("[word = 'network']").forEach((node) => { if (network && node.data("key") !== network) node.addClass("faint"); });
      this.cy.edges("[type = 'overlay'], [type = 'wire']").forEach((edge) => { if (network && !edge.source().same(this.cy.getElementById(`network ${network}`))) edge.addClass("faint"); });
    });
  }

  /** Marks what is chosen, with lines to its networks. */
  choose(found) {
    const cy = this.cy;
    cy.batch(() => {
      cy.elements("[temporary]").remove();
      cy.elements().removeClass("chosen");
      if (!found) return;
      const id = found.word === "vif" ? `vm ${found.key}` : `${found.word} ${found.key}`;
      const node = cy.getElementById(id);
      if (node.empty()) return;
      node.addClass("chosen");
      const vms = found.word === "network" ? [...(this.model?.vms.values() ?? [])].filter((vm) => vm.networks.has(found.key)) : found.word === "vm" || found.word === "vif" ? [this.model?.vms.get(found.key)] : [];
      for (const vm of vms.filter(Boolean).slice(0, EDGES)) for (const net of vm.networks) {
        if (found.word === "network" && net !== found.key || cy.getElementById(`network ${net}`).empty()) continue;
        cy.add({ group: "edges", data: { id: `vif ${vm.name} ${net}`, source: `vm ${vm.name}`, target: `network ${net}`, type: "vif", temporary: "yes", colour: colour(this.model.colours.get(net), isDark()) } });
      }
    });
  }

  style() {
    if (!this.cy) return;
    const style = getComputedStyle(document.documentElement);
    const v = (name) => style.getPropertyValue(name).trim();
    const font = "system-ui, sans-serif";
    const levels = { good: v("--good"), warn: v("--warn"), bad: v("--bad"), off: v("--line") };
    const many = this.cy.nodes().length > NAMED;
    this.cy.style([
      { selector: "node, edge", style: { "z-index-compare": "manual" } },
      { selector: "node", style: { "font-family": font, "color": v("--text"), "text-valign": "center", "text-halign": "center" } },
      { selector: "node[word = 'host'], node[id ^= 'host ']", style: { "shape": "round-rectangle", "width": "data(w)", "height": "data(h)", "background-color": v("--card"), "border-width": 2, "border-color": v("--line"), "label": "data(label)", "text-valign": "top", "text-margin-y": 26, "font-size": 15, "font-weight": 600, "z-index": 1, "corner-radius": 14 } },
      ...Object.entries(levels).map(([level, at]) => ({ selector: `node[id ^= 'host '][health = '${level}']`, style: { "border-color": at } })),
      { selector: "node[id ^= 'host '][health = 'bad']", style: { "border-style": "dashed" } },
      { selector: "node[word = 'vm'], node[word = 'vif']", style: { "shape": "round-rectangle", "width": CHIP.w, "height": CHIP.h, "background-fill": "linear-gradient", "background-gradient-stop-colors": (n) => `${n.data("first")} ${n.data("first")} ${n.data("second")} ${n.data("second")}`, "background-gradient-stop-positions": "0% 50% 50% 100%", "background-gradient-direction": "to-right", "label": "data(label)", "color": isDark() ? "#0b0e13" : "#fff", "font-size": 11, "text-max-width": CHIP.w - 6, "text-wrap": "ellipsis", "min-zoomed-font-size": many ? 9 : 4, "z-index": 3, "border-width": 0 } },
      { selector: "node[health = 'bad'][id ^= 'vm ']", style: { "border-width": 3, "border-color": levels.bad, "border-style": "double" } },
      { selector: "node[health = 'off'][id ^= 'vm ']", style: { "opacity": 0.55 } },
      { selector: "node[moving = 'yes']", style: { "border-width": 3, "border-color": v("--moving"), "z-index": 9 } },
      { selector: "node[word = 'network']", style: { "shape": "round-rectangle", "width": 150, "height": 38, "background-color": v("--card"), "border-width": 3, "border-color": "data(colour)", "label": (n) => `${n.data("label")}\n${n.data("sub")}`, "text-wrap": "wrap", "font-size": 12, "z-index": 2, "text-max-width": 140 } },
      { selector: "edge", style: { "font-family": font, "font-size": 11, "color": v("--text"), "text-background-color": v("--page"), "text-background-opacity": 0.85, "text-background-padding": 2, "curve-style": "straight", "min-zoomed-font-size": 7 } },
      { selector: "edge[type = 'overlay'], edge[type = 'wire']", style: { "line-color": "data(colour)", "width": "data(width)", "line-opacity": 0.55, "label": "data(label)", "curve-style": "bezier", "z-index": 0 } },
      { selector: "edge[type = 'overlay']", style: { "line-style": "dashed", "line-dash-pattern": [7, 4] } },
      { selector: "edge[type = 'tunnel']", style: { "line-color": levels.good, "width": "data(width)", "label": "data(label)", "line-opacity": 0.75, "line-style": "dashed", "line-dash-pattern": [3, 4], "z-index": 0 } },
      { selector: "edge[type = 'tunnel'][bend != 0]", style: { "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)", "control-point-weights": 0.5, "source-endpoint": "data(end)", "target-endpoint": "data(end)" } },
      { selector: "edge[type = 'tunnel'][health = 'warn']", style: { "line-color": levels.warn } },
      { selector: "edge[type = 'tunnel'][health = 'bad']", style: { "line-color": levels.bad, "line-dash-pattern": [2, 6] } },
      { selector: "edge[type = 'move']", style: { "line-color": v("--moving"), "target-arrow-color": v("--moving"), "target-arrow-shape": "triangle", "width": 3, "curve-style": "bezier", "label": "data(label)", "z-index": 10, "line-style": "solid" } },
      { selector: "edge[type = 'vif']", style: { "line-color": "data(colour)", "width": 2.5, "z-index": 8, "opacity": 1 } },
      { selector: ".chosen", style: { "border-width": 4, "border-color": v("--focus"), "line-color": v("--focus"), "opacity": 1 } },
      { selector: ".faint", style: { "opacity": 0.12 } },
    ]);
    if (this.model) this.show(this.model);
  }
}

const widthOf = (rate) => Math.min(9, rate > 0 ? Math.log10(1 + rate / 1000) * 1.6 : 0);
function trafficData(rate, vifs) {
  return { width: 1.5 + widthOf(rate), label: rate >= 1000 ? amount(rate, "bit/s") : vifs > 1 ? `${vifs} VIFs` : "" };
}
function tunnelData(rates, tunnel) {
  const { there, back } = tunnelRate(rates, tunnel.ends);
  return { width: 3 + widthOf(there + back), label: there + back >= 1000 ? amount(there + back, "bit/s") : "" };
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
