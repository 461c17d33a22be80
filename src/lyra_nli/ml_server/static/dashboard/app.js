// The dashboard: which page is on the screen, and what it shows.

import { forgetActions, setActions } from "./actions.js";
import { ROOT, get } from "./api.js";
import { drawCharts, forgetCharts } from "./charts.js";
import { $, h, sentence } from "./dom.js";
import { time } from "./format.js";
import { Refusal } from "../http.js";
import { startTheme } from "../preferences.js";
import * as calibration from "./pages/calibration.js";
import * as data from "./pages/data.js";
import * as overview from "./pages/overview.js";
import * as quality from "./pages/quality.js";
import * as shadow from "./pages/shadow.js";
import * as versions from "./pages/versions.js";

const PAGES = { overview, versions, quality, calibration, data, shadow };
let shown = 0; // counts visits: an answer that comes after the next one began is dropped

/** Which page the address names, and what it asks for. */
function here() {
  const name = location.pathname.slice(ROOT.pathname.length);
  return { name: name in PAGES ? name : "overview", query: Object.fromEntries(new URLSearchParams(location.search)) };
}

/** The address of a page; the chosen base model stays chosen. */
function linkTo(name, query = {}) {
  const url = new URL(name, ROOT);
  const { base } = here().query;
  url.search = new URLSearchParams({ ...(base && { base }), ...query });
  return url.href;
}

function go(href) {
  history.pushState(null, "", href);
  show({ arrived: true });
}

async function show({ arrived = false } = {}) {
  const visit = ++shown;
  const { name, query } = here();
  const page = PAGES[name];
  nav(name);
  document.title = `${page.title} · lyra-nli`;
  $("main").ariaBusy = "true";
  let parts;
  let answer = null;
  try {
    const more = {};
    answer = await page.load((path, own = {}) => get(path, { ...(query.base && { base: query.base }), ...own }), query, more);
    const again = (changes = {}) => go(linkTo(name, { ...query, ...changes }));
    parts = () => page.view(answer, { query, linkTo, again, more, refresh: () => show() });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    parts = () => [refused(error)];
  }
  if (visit !== shown) return;
  forgetCharts();
  forgetActions();
  setActions(answer?.actions);
  $("main").replaceChildren(h("h1", { tabindex: "-1" }, page.title), missing(answer?.missing), ...parts());
  $("main").ariaBusy = null;
  bases(answer);
  foot(answer);
  if (arrived) {
    window.scrollTo({ top: 0 });
    $("main").querySelector("h1").focus({ preventScroll: true });
  }
  drawCharts();
}

function refused(error) {
  return h("section", { class: "missing", role: "alert" },
    h("p", null, h("b", null, error.message)), h("p", null, error.hint),
    h("ul", null, error.problems.map((each) => h("li", null, each))),
    h("p", { class: "row" }, h("button", { type: "button", onclick: () => show() }, "Try again")));
}

function missing(sentences = []) {
  if (!sentences.length) return "";
  return h("section", { class: "missing", "aria-label": "What is missing" },
    h("ul", null, sentences.map((each) => h("li", null, sentence(each)))));
}

function nav(current) {
  $("pages").replaceChildren(...Object.entries(PAGES).map(([name, { title, short = title }]) =>
    h("a", { href: linkTo(name), "aria-current": name === current && "page" }, short)));
  // Not `scrollIntoView`: the Tab key would go on from there.
  const link = $("pages").querySelector("[aria-current]");
  $("pages").scrollLeft = link.offsetLeft - $("pages").offsetLeft - ($("pages").clientWidth - link.offsetWidth) / 2;
}

function bases(answer) {
  const all = answer?.bases ?? [];
  $("model").hidden = new Set(all.map(({ name }) => name)).size < 2;
  $("base").replaceChildren(...all.map(({ role, name }) => h("option", { value: role }, `${role}: ${name}`)));
  $("base").value = here().query.base ?? "fast";
}

function foot(answer) {
  const notes = answer?.notes ?? [];
  $("foot").replaceChildren(
    notes.length ? h("ul", null, notes.map((each) => h("li", null, sentence(each)))) : "",
    answer ? h("p", null, `As of ${time(answer.at)}. Intervals are 95%; hollow points rest on fewer than 30.`) : "");
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href.baseVal ?? link.href, location.href);
  const inside = url.origin === ROOT.origin && url.pathname.slice(ROOT.pathname.length) in PAGES && url.pathname.startsWith(ROOT.pathname);
  if (!inside || url.hash) return;
  event.preventDefault();
  go(url.href);
});
$("base").addEventListener("change", () => go(linkTo(here().name, { base: $("base").value })));
window.addEventListener("popstate", () => show());
// Relative to the address that the page came from, which `pushState` changes.
for (const link of document.querySelectorAll("[rel=icon], .top > a")) link.setAttribute("href", link.href);
startTheme($("theme"));
show();
