// Frames of VIFs as a file of pcapng: started, ended and downloaded here. The question is in the address.

import { call, may, query as search, stream } from "../api.js";
import { amount, badge, field, fill, h, refusal } from "../dom.js";
import { objects } from "../store.js";

const MOST = 256 * 1024 * 1024; // bytes that the page keeps
const MEDIA = "application/x-pcapng";

export async function capture({ query, replace }) {
  const state = { vifs: "", filter: "", seconds: "30", snap: "", ...query };
  const known = await objects("vifs");
  const answer = h("div", { "aria-live": "polite" });
  const input = (name, attrs = {}) => h("input", { name, value: state[name], autocomplete: "off", spellcheck: "false", ...attrs });
  const names = h("datalist", { id: "captured" }, [...new Set([...known.values()].flatMap((v) => [v.id, v.vm]).filter(Boolean))].slice(0, 3000).map((name) => h("option", { value: name })));
  const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); for (const name of Object.keys(state)) state[name] = form.elements[name].value.trim(); replace(search(state)); run(); } },
    field("VIFs and VMs, by commas", input("vifs", { list: "captured", required: true })),
    field("Filter, as tcpdump's", input("filter", { placeholder: "tcp port 5432", class: "mono" })),
    field("Seconds", input("seconds", { type: "number", min: 1, max: 3600, required: true })),
    field("Bytes of each frame", input("snap", { type: "number", min: 14, max: 9238, placeholder: "all" })),
    h("button", { class: "primary" }, "Capture"));

  let ended = null; // ends the capture that runs

  async function run() {
    if (ended) return;
    const wanted = state.vifs.split(",").map((name) => name.trim()).filter(Boolean);
    const vifs = [...new Set(wanted.flatMap((name) => { const of = [...known.values()].filter((v) => v.vm === name).map((v) => v.id); return of.length ? of : [name]; }))];
    const body = { vifs, seconds: Number(state.seconds), ...(state.filter && { filter: state.filter }), ...(state.snap && { snap: Number(state.snap) }) };
    const going = new AbortController();
    const told = h("span", { class: "mono" }, "waiting for the hosts");
    const stop = h("button", { onclick: () => ended?.() }, "Stop");
    ended = () => going.abort();
    const parts = [];
    let size = 0;
    fill(answer, h("p", { class: "card" }, badge("capturing", "moving"), ` ${vifs.join(", ")}: `, told, " ", stop));
    let problem = null;
    try {
      for await (const part of stream("/v1/captures", body, going.signal)) {
        parts.push(part);
        size += part.length;
        told.textContent = amount(size, "B");
        const id = parts.length === 1 || !ended.id ? commentOf(await joined(parts.slice(0, 4))) : null;
        // Asked to end, hosts send what is left, and the file ends whole.
        if (id) { ended = Object.assign(() => { stop.disabled = true; call("DELETE", `/v1/captures/${encodeURIComponent(id)}`).catch(() => going.abort()); }, { id }); }
        if (size > MOST) { ended(); break; }
      }
    } catch (error) { if (error.name !== "AbortError") problem = error; }
    ended = null;
    fill(answer, problem && refusal(problem), size > 0 && saved(parts, size, vifs));
  }
  return {
    element: [h("h1", "Capture"), h("p", { class: "muted" }, "What VIFs send and are sent, on whatever hosts they are, in one file for Wireshark. Each capture is in the history."), names, form, answer],
    leave: () => ended?.(),
  };
}

function saved(parts, size, vifs) {
  const url = URL.createObjectURL(new Blob(parts, { type: MEDIA }));
  const name = `${vifs[0].replaceAll("/", "-")}${vifs.length > 1 ? `-and-${vifs.length - 1}-more` : ""}.pcapng`;
  return h("p", { class: "card" }, badge("done", "good"), ` ${amount(size, "B")} `, h("a", { href: url, download: name }, `Download ${name}`));
}

const joined = async (parts) => new DataView(await new Blob(parts).arrayBuffer());

/** The comment of a file's first block, which is the capture's id; null while that block is not whole (draft-ietf-opsawg-pcapng §4.1). */
export function commentOf(view) {
  if (view.byteLength < 28) return null;
  const little = view.getUint32(8, true) === 0x1a2b3c4d;
  const end = view.getUint32(4, little) - 4;
  if (view.byteLength < end) return null;
  for (let at = 24; at + 4 <= end;) {
    const [code, length] = [view.getUint16(at, little), view.getUint16(at + 2, little)];
    if (code === 1) return new TextDecoder().decode(new Uint8Array(view.buffer, at + 4, length));
    if (code === 0) return null;
    at += 4 + length + (-length & 3);
  }
  return null;
}

/** A link that captures a VIF or a VM. */
export const captureLink = (vifs) => may("POST", "/v1/captures") && h("a", { href: `#/capture${search({ vifs })}` }, "Capture its frames");
