// The page: its frame, its addresses, who is logged in. One rule: an address says all that a page shows, but for the token.

import { call, caller, connect, may, nouns, scoped, token, version } from "./api.js";
import { fill, h, field, notice, refusal, select } from "./dom.js";
import { start, stop, watch } from "./store.js";
import { capture } from "./views/capture.js";
import { create } from "./views/change.js";
import { events } from "./views/events.js";
import { history } from "./views/history.js";
import { list } from "./views/list.js";
import { map } from "./views/map.js";
import { matrix } from "./views/matrix.js";
import { object } from "./views/object.js";
import { overview } from "./views/overview.js";
import { plan } from "./views/plan.js";
import { tokens } from "./views/tokens.js";
import { trace } from "./views/trace.js";

// path: of the address after "#/"; needs: the call without which the page is not offered.
const PAGES = [
  { path: "", title: "Overview", view: overview, needs: ["GET", "/v1/vifs"] },
  { path: "map", title: "Map", view: map, needs: ["GET", "/v1/vifs"] },
  { path: "trace", title: "Trace", view: trace, needs: ["POST", "/v1/trace"] },
  { path: "matrix", title: "Matrix", view: matrix, needs: ["GET", "/v1/matrix"] },
  { path: "capture", title: "Capture", view: capture, needs: ["POST", "/v1/captures"] },
  { path: "plan", title: "Plan and apply", view: plan, needs: ["POST", "/v1/plan"] },
  { path: "history", title: "History", view: history, needs: ["GET", "/v1/history"] },
  { path: "events", title: "Events", view: events, needs: ["GET", "/v1/events"] },
  { path: "tokens", title: "Tokens", view: tokens, needs: ["GET", "/v1/tokens"] },
];
const main = document.getElementById("main");
const bar = document.getElementById("bar");
const side = document.getElementById("side");
let shown = null; // {key, leave}

/** The address: {page, rest, query}. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map(decodeURIComponent);
  return { page, rest, query: Object.fromEntries(new URLSearchParams(query)) };
}

// --- the frame ------------------------------------------------------------------------------------

const THEMES = [["", "System"], ["light", "Light"], ["dark", "Dark"]];
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  dispatchEvent(new CustomEvent("vnet-theme"));
}

function frame() {
  const chosen = localStorage.getItem("vnet-theme") ?? "";
  fill(bar,
    h("button", { class: "plain menu", "aria-expanded": "false", "aria-controls": "side", "aria-label": "Menu", onclick: menu }, "☰"),
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/web/icon.svg", alt: "", width: 24, height: 24 }), h("span", { id: "pool" }, "vnet")),
    h("span", { class: "stream", id: "stream", role: "status" }),
    h("span", { class: "gap" }),
    h("label", { class: "theme" }, h("span", { class: "hidden" }, "Colours"),
      select(THEMES, chosen, { onchange: (e) => { localStorage.setItem("vnet-theme", e.target.value); theme(e.target.value); } })),
    h("span", { class: "who", title: scoped() ? "has a scope" : "" }, `${caller().name} `, h("span", { class: "badge plain" }, caller().role, scoped() ? ", scoped" : "")),
    token.get() && h("button", { class: "plain", onclick: logout }, "Log out"));
  const pages = PAGES.filter((p) => p.needs === null || may(...p.needs));
  fill(side,
    h("ul", pages.map((p) => h("li", link(`#/${p.path}`, p.title)))),
    h("h2", { id: "lists" }, "Objects"),
    h("ul", { "aria-labelledby": "lists" }, nouns().filter((n) => may("GET", `/v1/${n.plural}`)).map((n) => h("li", link(`#/list/${n.plural}`, capital(n.texts))))),
    h("p", { class: "muted version" }, `vnet ${version()}`));
}
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const link = (href, text) => h("a", { href, onclick: () => document.body.classList.remove("open") }, text);

function menu(event) {
  const open = document.body.classList.toggle("open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
}

function mark() {
  const here = location.hash.split("?")[0] || "#/";
  for (const a of side.querySelectorAll("a")) {
    const is = a.getAttribute("href") === here;
    if (is) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
}

// --- who is logged in -----------------------------------------------------------------------------

function login(text = "") {
  stop();
  leave();
  fill(bar, h("span", { class: "brand" }, h("img", { src: "/web/icon.svg", alt: "", width: 24, height: 24 }), "vnet"));
  fill(side);
  document.body.classList.add("out");
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const send = async (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    await enter();
  };
  fill(main, h("div", { class: "login card" }, h("h1", "Log in"), text && h("p", { role: "alert", class: "refusal" }, text),
    h("form", { onsubmit: send }, field("Token", input, "“vnet token make NAME --role viewer” on the controller's machine makes one. It is kept until this tab is closed."), h("button", { class: "primary" }, "Log in"))));
  input.focus();
  document.title = "Log in – vnet";
}

function logout() {
  token.set("");
  login();
}

async function enter() {
  try {
    await connect();
  } catch (error) {
    if (error.status !== 401) { fill(main, h("h1", "vnet"), refusal(error), h("button", { onclick: enter }, "Try again")); return; }
    const had = token.get();
    token.set("");
    login(had ? error.message : "");
    return;
  }
  document.body.classList.remove("out");
  frame();
  if (may("GET", "/v1/events")) start((live) => fill(document.getElementById("stream") ?? h("i"), h("span", { class: ["dot", live ? "good" : "bad"], "aria-hidden": "true" }), live ? "live" : "not connected"));
  if (may("GET", "/v1/pool")) call("GET", "/v1/pool").then((pool) => fill(document.getElementById("pool"), pool.name), () => {});
  route();
}

// --- pages ----------------------------------------------------------------------------------------

function leave() {
  shown?.leave?.();
  shown = null;
}

/** Shows what the address says. A view is called with {rest, query, go, signal} and returns an element, or {element, changed}: changed is called with what events concern. */
async function route() {
  const { page, rest, query } = address();
  const key = [page, ...rest].join("/");
  const known = { list: { title: "Objects", view: list }, object: { title: "Object", view: object }, new: { title: "New object", view: create } }[page] ?? PAGES.find((p) => p.path === page);
  mark();
  if (!known || (known.needs && !may(...known.needs))) {
    leave();
    fill(main, h("h1", known ? "Not yours" : "No such page"), h("p", known ? `This takes another role than ${caller().role}, or a token without a scope.` : "The address is of no page."));
    main.dataset.shown = location.hash;
    return;
  }
  if (shown?.key === key && shown.queried) { shown.queried(query); main.dataset.shown = location.hash; return; }
  const moved = shown !== null;
  leave();
  const controller = new AbortController();
  const mine = { key, leave: () => controller.abort() };
  shown = mine;
  document.title = `${[...rest].reverse().join(" ") || known.title} – vnet`;
  main.setAttribute("aria-busy", "true");
  try {
    const made = await known.view({ rest, query, signal: controller.signal, replace: (values) => { const at = `#/${[page, ...rest].map(encodeURIComponent).join("/")}`; window.history.replaceState(null, "", at + values); } });
    if (shown !== mine) { made.leave?.(); return; }
    fill(main, made.element ?? made);
    mine.queried = made.queried;
    const unwatch = made.changed ? watch(made.changed) : null;
    mine.leave = () => { controller.abort(); unwatch?.(); made.leave?.(); };
    made.shown?.();
  } catch (error) {
    if (shown !== mine || error.name === "AbortError") return;
    fill(main, h("h1", known.title), refusal(error));
  } finally {
    if (shown === mine) { main.removeAttribute("aria-busy"); main.dataset.shown = location.hash; }
  }
  if (moved) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); }); // its address is of no page
addEventListener("hashchange", () => { if (!document.body.classList.contains("out")) route(); });
addEventListener("vnet-unauthorized", () => { if (token.get() && !document.body.classList.contains("out")) { token.set(""); login("The token has ended, or is none any more."); } });
addEventListener("keydown", (event) => { if (event.key === "Escape" && document.body.classList.contains("open")) { document.body.classList.remove("open"); bar.querySelector(".menu")?.focus(); } });
addEventListener("unhandledrejection", (event) => { if (event.reason?.name === "Refusal" || event.reason?.problem) { notice(event.reason.message, "bad"); event.preventDefault(); } });
theme(localStorage.getItem("vnet-theme") ?? "");
document.body.classList.add("out");
enter();
