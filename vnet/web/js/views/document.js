// The pool's document, as "vnet export" prints it, at a line.

import { get } from "../api.js";
import { h } from "../dom.js";

const AROUND = 7;

/** Shows a line with those around it, beside what was clicked; again, and it closes. */
export async function showLine(number, button) {
  const shown = button.parentElement.querySelector(":scope > .excerpt");
  if (shown) { shown.remove(); button.setAttribute("aria-expanded", "false"); return; }
  const lines = (await get("/v1/export")).split("\n");
  const first = Math.max(1, number - AROUND);
  const last = Math.min(lines.length, number + AROUND);
  const parts = [];
  for (let n = first; n <= last; n += 1) parts.push(h("span", { class: n === number ? "here" : null }, `${String(n).padStart(5)}  ${lines[n - 1]}\n`));
  button.setAttribute("aria-expanded", "true");
  button.after(h("pre", { class: "excerpt", tabindex: "0", role: "region", "aria-label": `The pool's document around line ${number}` }, parts));
}
