// A packet's way, on the twin of the pool as it is: both ways, each step, the rule's line. The question is in the address.

import { call, may, mayGive, query as search } from "../api.js";
import { linked } from "../cells.js";
import { badge, field, fill, h, refusal, select, shownIf } from "../dom.js";
import { objects } from "../store.js";
import { showLine } from "./document.js";

export async function trace({ query, replace }) {
  const state = { from: "", to: "", protocol: "icmp", port: "", frame: "", at: "", ...query };
  const [vms, vifs] = await Promise.all([objects("vms"), objects("vifs")]);
  const names = h("datalist", { id: "ends" }, ["outside", ...vms.keys(), ...vifs.keys()].slice(0, 3000).map((name) => h("option", { value: name })));
  const answer = h("div", { "aria-live": "polite" });
  const end = (name) => h("input", { name, list: "ends", required: name === "from", value: state[name], autocomplete: "off", spellcheck: "false" });
  const port = h("input", { name: "port", type: "number", min: 1, max: 65535, value: state.port });
  const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); read(); replace(search(shown())); ask(); } },
    field("From", end("from")), field("To", end("to")),
    h("button", { type: "button", "aria-label": "Swap both ends", onclick: () => { [form.elements.from.value, form.elements.to.value] = [form.elements.to.value, form.elements.from.value]; } }, "⇄"),
    field("Packet", select([["icmp", "ping"], ["tcp", "TCP"], ["udp", "UDP"], ...(mayGive("POST", "/v1/trace", "frame") ? [["frame", "a frame in hexadecimal"]] : [])], state.frame ? "frame" : state.protocol, { name: "protocol", onchange: fit })),
    field("Port", port),
    field("Frame", h("input", { name: "frame", value: state.frame, spellcheck: "false", class: "mono" })),
    shownIf(mayGive("POST", "/v1/trace", "at"), field("As it was at", h("input", { name: "at", value: state.at, placeholder: "now", autocomplete: "off", title: "A revision, or a time as 2026-01-31T10:42:00Z" }))),
    h("button", { class: "primary" }, "Trace"));

  function fit() {
    const chosen = form.elements.protocol.value;
    const ports = chosen === "tcp" || chosen === "udp";
    port.parentElement.hidden = !ports;
    port.required = ports;
    form.elements.frame.parentElement.hidden = chosen !== "frame";
    form.elements.frame.required = chosen === "frame";
  }
  function read() {
    for (const name of ["from", "to", "protocol", "port", "frame", "at"]) state[name] = form.elements[name].value.trim();
  }
  const shown = () => ({ from: state.from, to: state.to, protocol: state.protocol, port: ["tcp", "udp"].includes(state.protocol) ? state.port : "", frame: state.protocol === "frame" ? state.frame : "", at: state.at });

  async function ask() {
    const framed = state.protocol === "frame";
    const body = { source: state.from, target: state.to, at: state.at, ...(framed ? { frame: state.frame.replace(/[\s:]/g, "") } : { protocol: state.protocol, port: ["tcp", "udp"].includes(state.protocol) ? Number(state.port) : 0 }) };
    fill(answer, h("p", { class: "muted" }, "Asking the twin…"));
    try { fill(answer, traced(await call("POST", "/v1/trace", { body }))); } catch (error) { fill(answer, refusal(error)); }
  }
  fit();
  if (state.from && (state.to || state.frame)) await ask();
  return {
    element: [h("h1", "Trace"), h("p", { class: "muted" }, "Nothing is sent: the twin has the flows that every host should have now. “vnet trace --live” asks the switches themselves."), names, form, answer],
    queried: (values) => { for (const name of ["from", "to", "protocol", "port", "frame", "at"]) form.elements[name].value = values[name] ?? (name === "protocol" ? "icmp" : ""); fit(); read(); if (state.from) ask(); },
  };
}

export function traced(found) {
  return [
    h("p", { class: "verdict" }, badge(found.reached ? "reached" : "not reached", found.reached ? "good" : "bad"), " ", found.title),
    found.reason && h("p", h("strong", "Why: "), found.reason),
    found.guessed?.length > 0 && h("p", badge("guessed", "warn"), ` It is not known where ${found.guessed.join(", ")} ran then.`),
    found.legs.map((leg, at) => packet(leg, at, found)),
  ];
}

function packet(leg, at, found) {
  const failed = !found.reached && at === found.legs.length - 1;
  const open = failed || (!leg.aside && found.legs.length <= 3);
  return h("details", { class: ["card", "leg", failed ? "failed" : "reached"], open },
    h("summary", h("strong", leg.title), ": ", leg.verdict),
    leg.answers.map((a) => h("p", `${a.to} is answered: `, h("code", a.frame))),
    leg.lost.map((l) => h("p", badge("lost", "bad"), ` at ${l.place}: ${l.reason}`)),
    h("ol", { class: "way" }, leg.hops.map(hop)));
}

function hop(found) {
  return h("li", { class: "hop" },
    h("h2", found.switch, found.came_in && h("span", { class: "muted" }, `, in by ${found.came_in}`)),
    h("ol", { class: "steps" }, found.steps.map(step)),
    (found.sent.length ? found.sent : ["dropped"]).map((text) => h("p", { class: ["sent", !found.sent.length && "dropped"] }, `⇒ ${text}`)));
}

function step(found) {
  if (found.table < 0) return h("li", h("span"), h("span", found.actions.map((a) => h("div", h("code", a)))));
  return h("li",
    h("span", h("strong", found.name.toLowerCase().replaceAll("_", " ")), h("span", { class: "does" }, ` ${found.does}`)),
    h("span",
      found.priority >= 0 ? [h("strong", found.source), found.place && [" ", line(found.place)], found.match && h("div", h("code", { class: "muted" }, `priority ${found.priority}, ${found.match}`))] : h("em", "no flow matches"),
      found.wrong && h("div", badge("wrong", "bad"), " ", found.wrong),
      found.actions.map((a) => h("div", h("code", a)))));
}

/** A place in the pool's document, which opens it there. */
export function line(place) {
  const number = Number(place.split(":")[1]);
  if (!may("GET", "/v1/export") || !number || !place.startsWith("pool.vnet.yaml:")) return h("span", { class: "muted" }, place);
  return h("button", { class: "plain line", onclick: (event) => showLine(number, event.currentTarget) }, `line ${number}`);
}

/** A link that asks for a trace. */
export const traceLink = (from, to, text, more = {}) => h("a", { href: `#/trace${search({ from, to, protocol: "icmp", ...more })}` }, text);
export const ends = (found) => [linked("vif", found)];
