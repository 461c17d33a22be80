// The review page: one pair at a time, by keyboard, touch or mouse.

import * as api from "./api.js";
import { keep, recall, startTheme } from "./preferences.js";
import { openClaim, openDomain } from "./evidence.js";
import * as view from "./view.js";

const { $ } = view;
const MOST_SKIPPED = 200;

const state = {
  reviewer: recall("reviewer") || "",
  order: recall("order") || "uncertain",
  item: null, // the pair on the screen
  judged: null, // what the served model says about it
  key: "", // its idempotency key: sent twice, a verdict is one review
  done: [], // reviews that U can take back, newest last
  skipped: [],
  busy: false,
  go: null, // what Enter does while a message is shown
};

// --- the pair -------------------------------------------------------------------------------

const LOST = "The next pair could not be fetched";

/** Fetch a pair; `lost` is what to say when that fails. */
async function showNext(lost = LOST) {
  await busily(async () => {
    const item = await api.next(state.order, state.reviewer, state.skipped);
    if (item) open(item);
    else nothingLeft();
  }, () => showNext(lost), { lost });
  refresh();
}

function open(item) {
  letGo();
  state.item = item;
  state.judged = state.go = null;
  state.key = api.newKey();
  view.showItem(item, state.order);
  if (item.purpose === "first") ask(item);
}

async function ask(item) {
  try {
    const judged = await api.judge(item);
    if (state.item !== item) return;
    state.judged = judged;
    view.showJudgement(item, judged);
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    if (state.item === item) view.noJudgement(error.problems[0] || error.message);
  }
}

function nothingLeft() {
  const skipped = state.skipped.length;
  close({
    title: "Nothing is left to review",
    text: skipped ? "All that is left are pairs that you skipped, or that others have on their screens." : "New judgements of the model will appear here.",
    go: "Look again",
  }, () => {
    state.skipped = [];
    showNext();
  });
}

/** Take the pair off the screen; others may have it. */
function letGo() {
  if (state.item?.lease) api.release(state.item.lease);
  state.item = null;
}

/** Put a message in the place of the pair. */
function close(message, then) {
  letGo();
  state.go = then;
  view.showNotice(message);
}

// --- verdicts -------------------------------------------------------------------------------

function decide(label) {
  const { item } = state;
  if (!item || state.busy || !label) return;
  view.showChosen(label);
  return busily(async () => {
    if (item.purpose === "second") await giveSecond(item, label);
    else await giveFirst(item, label);
    state.item = null; // judged, and its lease used up, even when no next pair comes
  }, showNext).then((done) => done && showNext("Saved, but the next pair could not be fetched"));
}

async function giveFirst(item, label) {
  const known = state.judged && view.sameJudgement(item, state.judged);
  const answer = await api.correct({
    edge_id: item.edge_id,
    correct_relation: label,
    reason: $("reason").value.trim(),
    reviewer: state.reviewer,
    edge_version: item.edge_version,
    ...(item.lease && { lease: item.lease }),
    ...(known && { predicted_by: state.judged.adapter }),
  }, state.key);
  state.done.push(answer.review_id);
  $("undo").disabled = false;
  view.sayReviewed(answer.previous_relation, label);
}

async function giveSecond(item, label) {
  const reason = $("reason").value.trim();
  const { edge_id, lease } = item;
  const answer = await api.second({ edge_id, label, reason, lease, reviewer: state.reviewer }, state.key);
  view.say(answer.message);
}

/** Do what the message on the screen offers. */
function goOn() {
  if (!state.busy) state.go?.();
}

function skip() {
  const { item } = state;
  if (!item || state.busy) return;
  state.skipped = [...state.skipped, item.edge_id].slice(-MOST_SKIPPED);
  letGo();
  showNext();
}

async function undo() {
  if (state.busy) return;
  const review = state.done.at(-1);
  if (!review) {
    view.say("There is nothing of this visit to undo.");
    return;
  }
  await busily(async () => {
    const answer = await api.undo(review, state.reviewer);
    state.done.pop();
    view.say(answer.message);
    if (answer.item) open(answer.item);
    else close({ title: "Undone", text: answer.message, go: "Next pair" }, showNext);
  }, showNext, { onConflict: () => state.done.pop() });
  $("undo").disabled = !state.done.length;
  refresh();
}

/** Do one thing at a time. A conflict is explained; any other refusal can be tried again. */
async function busily(work, then, more) {
  state.busy = true;
  $("work").setAttribute("aria-busy", "true");
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    view.showChosen(null);
    explain(error, then, more);
    return false;
  } finally {
    state.busy = false;
    $("work").removeAttribute("aria-busy");
  }
}

function explain(error, then, { onConflict, lost = "That did not work" } = {}) {
  if (error.status === 409) {
    onConflict?.();
    close({ title: "Somebody was faster", text: `${sentence(error.message)} Nothing was overwritten.`, go: "Next pair", tone: "warn" }, then);
  } else if (state.item && (error.status === 0 || error.status >= 500)) {
    view.say(`Not saved: ${error.message} Press the key again.`);
  } else {
    const list = error.problems;
    close({ title: lost, text: `${sentence(error.message)} ${error.hint}`, list, go: "Try again", tone: "warn" }, then);
  }
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[.:]?$/, ".");

async function refresh() {
  try {
    view.showProgress(await api.progress(state.reviewer));
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
  }
}

// --- keys and buttons -----------------------------------------------------------------------

const KEYS = {
  1: () => decide("supports"),
  2: () => decide("refutes"),
  3: () => decide("neutral"),
  Enter: () => (state.item ? decide(state.item.relation) : goOn()),
  s: () => (state.item ? skip() : goOn()),
  u: undo,
  r: () => state.item && $("reason").focus(),
  o: () => !$("source").hidden && $("source").click(),
  c: () => openClaim(state.item, state.reviewer),
  d: () => openDomain(state.item, state.reviewer),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const { target, key } = event;
  if (target === $("reason")) {
    if (key === "Escape") $("pair").focus();
    else if (key === "Enter" && (event.ctrlKey || event.metaKey)) KEYS.Enter();
    else return;
    event.preventDefault();
    return;
  }
  const pressesIt = ["Enter", " "].includes(key) && target.closest("button, a");
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || pressesIt) return;
  if (target === $("order")) return;
  const act = KEYS[key.length === 1 ? key.toLowerCase() : key];
  if (!act) return;
  event.preventDefault();
  act();
});

document.querySelectorAll(".verdict").forEach((button) => button.addEventListener("click", () => decide(button.dataset.label)));
$("agree").addEventListener("click", () => decide(state.item?.relation));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("claim-button").addEventListener("click", KEYS.c);
$("domain-button").addEventListener("click", KEYS.d);
$("notice-go").addEventListener("click", goOn);
$("help-button").addEventListener("click", () => $("help").showModal());
$("who").addEventListener("click", askName);
$("order").addEventListener("change", () => {
  state.order = $("order").value;
  keep("order", state.order);
  letGo();
  $("order").blur();
  showNext();
});
window.addEventListener("pagehide", letGo);
window.addEventListener("pageshow", (event) => event.persisted && showNext());

// --- who reviews ----------------------------------------------------------------------------

function askName() {
  $("name").value = state.reviewer;
  $("name-dialog").showModal();
}

$("name-dialog").addEventListener("cancel", (event) => !state.reviewer && event.preventDefault());
$("name-dialog").addEventListener("close", () => {
  const name = $("name").value.trim();
  if (!name) return askName();
  const changed = name !== state.reviewer;
  state.reviewer = name;
  keep("reviewer", name);
  $("who").textContent = name;
  if (!changed) return;
  letGo();
  state.done = [];
  $("undo").disabled = true;
  showNext();
});

startTheme($("theme"));
$("order").value = state.order;
if (!$("order").value) $("order").value = state.order = "uncertain";
$("who").textContent = state.reviewer || "Name";
if (state.reviewer) showNext();
else askName();
