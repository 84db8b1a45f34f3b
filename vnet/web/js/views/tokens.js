// Tokens of people and toolstacks: a new one's text is shown once.

import { call, enc, get, may } from "../api.js";
import { badge, field, fill, h, notice, select, table, when } from "../dom.js";
import { ask } from "./dialog.js";

const SCOPE = ["networks", "vms", "security_groups", "qos_classes", "labels"];

export async function tokens() {
  const results = h("div");
  const made = h("div", { "aria-live": "polite" });
  async function show() {
    fill(results, table([
      { title: "Name", cell: (t) => t.name },
      { title: "Role", cell: (t) => [badge(t.role), t.user && badge("user of a proxy"), t.host && ` of host ${t.host}`] },
      { title: "Scope", cell: (t) => SCOPE.filter((k) => t[k].length).map((k) => `${k.replaceAll("_", " ")}: ${t[k].join(", ")}`).join("; ") || "the whole pool" },
      { title: "Made", cell: (t) => [when(t.made), t.maker && ` by ${t.maker}`] },
      { title: "Ends", cell: (t) => (t.ends ? when(t.ends) : "never") },
      { title: "Action", cell: (t) => may("DELETE", "/v1/tokens/{id}") && h("button", { "aria-label": `Revoke ${t.name}`, onclick: () => revoke(t.name) }, "Revoke…") },
    ], await get("/v1/tokens"), { caption: "Tokens", empty: "None." }));
  }
  async function revoke(name) {
    if (!await ask({ heading: `Revoke ${name}?`, content: h("p", "Whoever shows it is let in no more, and open streams end."), action: "Revoke", danger: true })) return;
    await call("DELETE", `/v1/tokens/${enc(name)}`);
    notice(`Token ${name} is revoked.`);
    show();
  }
  const inputs = { name: h("input", { required: true, autocomplete: "off" }), role: select(["viewer", "operator", "network-admin"], "viewer"), networks: h("input", { placeholder: "all" }), vms: h("input", { placeholder: "all" }), days: h("input", { type: "number", min: 0, step: "any", value: 30 }) };
  async function make(event) {
    event.preventDefault();
    const words = (input) => input.value.split(",").map((w) => w.trim()).filter(Boolean);
    try {
      const done = await call("PUT", `/v1/tokens/${enc(inputs.name.value.trim())}`, { body: { role: inputs.role.value, networks: words(inputs.networks), vms: words(inputs.vms), days: Number(inputs.days.value) } });
      fill(made, h("section", { class: "card warn" }, h("h2", `Token ${done.token.name}`), h("p", "Its text is shown here and nowhere else:"), h("pre", { tabindex: "0" }, done.secret)));
      show();
    } catch (error) { notice(error.message, "bad"); }
  }
  await show();
  return [h("h1", "Tokens"), results, may("PUT", "/v1/tokens/{id}") && h("form", { class: "card filters", onsubmit: make }, field("Name", inputs.name), field("Role", inputs.role), field("Networks", inputs.networks), field("VMs", inputs.vms), field("Days", inputs.days), h("button", { class: "primary" }, "Make a token")), made];
}
