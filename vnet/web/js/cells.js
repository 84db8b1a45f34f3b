// Values of objects as people read them, from what the API says of its own types. One rule: a noun needs nothing here to be shown.

import { noun, schema } from "./api.js";
import { badge, h, when } from "./dom.js";

/** The address of an object's page. */
export const at = (word, key) => `#/object/${word}/${encodeURIComponent(key)}`;
export const linked = (word, key) => (key ? h("a", { href: at(word, key) }, key) : "");

// Fields whose values name objects, where the field is not called as their noun is.
const NAMES = { incoming: "host", hosts: "host", uplink: null, vif_qos: "qos-class", qos: "qos-class", former_network: "network", security_groups: "security-group", vm_groups: "security-group", address_sets: "address-set", source: null, destination: null };

/** The noun that a field's values name; null for none. */
export function nounOf(name) {
  if (name in NAMES) return NAMES[name];
  return noun(name.replaceAll("_", "-"))?.word ?? null;
}

/** A field of an object, by its name. */
export function cell(name, value) {
  if (value === null || value === undefined || value === "") return "";
  if (name === "place") return place(value);
  if (name === "agent") return agent(value);
  if (name === "migration") return value.phase === "none" ? "" : badge(`${value.phase} ${value.source ?? "?"} → ${value.destination ?? "?"}`, "moving");
  const word = nounOf(name);
  if (word && typeof value === "string") return linked(word, value);
  if (Array.isArray(value)) {
    if (!value.length) return "";
    if (word && value.every((v) => typeof v === "string")) return value.map((v, n) => [n ? ", " : "", linked(word, v)]);
    if (value.every((v) => v && typeof v === "object")) return value.map((v) => v.name ?? v.id ?? v.mac ?? short(v)).join(", ");
    return value.join(", ");
  }
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:/.test(value)) return when(value);
  if (typeof value === "object") return labels(value);
  return String(value);
}

const short = (value) => Object.entries(value).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ");
const labels = (value) => Object.entries(value).map(([k, v]) => h("span", { class: "badge plain" }, `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`));

export function place(value) {
  const level = value.state === "ready" && !value.why?.length ? "good" : value.state === "ready" ? "warn" : "bad";
  return [badge(value.state, level), value.host && [" on ", linked("host", value.host)]];
}

export function agent(value) {
  const wrong = Object.keys(value.problems ?? {}).length;
  return value.alive ? badge(wrong ? `${wrong} problem${wrong > 1 ? "s" : ""}` : value.behind ? `${value.behind} behind` : "alive", wrong || value.behind ? "warn" : "good") : badge("silent", "bad");
}

// What a list shows at first; others follow a noun's schema.
const FIRST = {
  host: ["name", "address", "uplinks", "agent", "vifs"],
  network: ["name", "type", "vni", "key", "tag", "uplink", "mtu", "encryption", "vifs", "labels"],
  vm: ["name", "title", "host", "vifs", "migration", "labels"],
  vif: ["id", "vm", "network", "addresses", "mac", "place", "security_groups", "migration"],
  "security-group": ["name", "ingress", "egress", "tier", "mode", "rules", "vifs"],
};

/** The fields of a noun with their descriptions, its key first. */
export function fields(found) {
  const properties = schema(found.schema).properties;
  return [found.key, ...Object.keys(properties).filter((name) => name !== found.key)].map((name) => ({ name, text: title(name), doc: properties[name]?.description ?? "" }));
}
// A field's or a noun's name for people.
export const title = (name) => { const text = name.replaceAll("_", " ").replace(/\b(mac|mtu|vni|id|vm|vif|vifs|qos)\b/g, (w) => (w === "vifs" ? "VIFs" : w === "qos" ? "QoS" : w.toUpperCase())); return text[0].toUpperCase() + text.slice(1); };

/** The columns of a noun's list. */
export function columns(found, all = false) {
  const known = fields(found);
  const names = !all && FIRST[found.word] ? FIRST[found.word].filter((n) => known.some((f) => f.name === n)) : known.map((f) => f.name).filter((n) => all || n !== "owner").slice(0, all ? undefined : 9);
  return names.map((name) => ({
    title: name === found.key ? title(found.text) : title(name),
    name,
    number: name === "vifs" && found.word !== "vm",
    class: ["mac", "addresses"].includes(name) ? "mono" : null,
    cell: (row) => (name === found.key ? linked(found.word, row[name]) : cell(found.word === "vm" && name === "vifs" ? "vif" : name, found.word === "vm" && name === "vifs" ? row.vifs.map((v) => v.id) : row[name])),
  }));
}

/** All that an object says as one text, for searching. */
export function text(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.map(text).join(" ");
  return Object.entries(value).map(([k, v]) => (typeof v === "string" ? `${v} ${k}=${v}` : text(v))).join(" ");
}
