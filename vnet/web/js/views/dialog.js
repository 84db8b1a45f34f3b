// A question before something changes. One rule: what it will do stands in it.

import { append, h } from "../dom.js";

/** Asks; resolves to null where it was not meant, else to the values of its fields by their names. */
export function ask({ heading, content, action, danger = false, fields = [] }) {
  return new Promise((resolve) => {
    const form = h("form", { method: "dialog" });
    const dialog = h("dialog", { "aria-labelledby": "ask" }, h("h2", { id: "ask" }, heading), h("div", { class: "dialog-content" }, content), form);
    let meant = null;
    append(form, [fields, h("p", { class: "actions" }, h("button", { type: "submit", value: "yes", class: danger ? "danger" : "primary" }, action), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))]);
    form.addEventListener("submit", () => { meant = Object.fromEntries(new FormData(form)); });
    dialog.addEventListener("close", () => { dialog.remove(); resolve(meant); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
