// What can be done from here: activate, roll back, train. Each asks why, and for the token.

import { act } from "./api.js";
import { $, h, say } from "./dom.js";
import { capital } from "./format.js";
import { Refusal } from "../http.js";
import { keep, recall } from "../preferences.js";

const TOKEN = "lyra-nli.admin-token";
let allowed = { enabled: false, hint: "" };

/** What the server says about actions on this page. */
export const setActions = (actions) => (allowed = actions ?? { enabled: false, hint: "" });

/** Close what asks about a page that is left. */
export const forgetActions = () => $("action").close();

/** A button that does something, once it was told why. */
export const actionButton = (words, action, { primary = false } = {}) =>
  h("button", { type: "button", class: primary && "agree", "aria-haspopup": "dialog", onclick: () => ask(action) }, words);

/**
 * Ask why, and do it.
 *
 * `path` and `body` are what is sent, `done` is called with the answer.
 */
function ask({ title, text, go, path, body, done }) {
  const form = $("action").querySelector("form");
  const { reason, name, token } = form.elements;
  $("action-title").textContent = title;
  $("action-text").textContent = text;
  $("action-go").textContent = go;
  $("action-go").disabled = !allowed.enabled;
  reason.value = "";
  name.value = recall("reviewer") ?? "";
  token.value = stored();
  blame(allowed.enabled ? "" : allowed.hint);
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    const empty = [reason, token].filter((input) => !input.value.trim());
    if (empty.length) return blame(empty.includes(reason) ? "Please say why." : "Please give the admin token.", empty);
    form.ariaBusy = "true";
    try {
      const answer = await act(path, { ...body, reason: reason.value.trim(), ...(name.value.trim() && { name: name.value.trim() }) }, token.value);
      remember(token.value, name.value.trim());
      $("action").close();
      say(answer.message);
      done(answer);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      blame([error.message, ...error.problems, error.hint].filter(Boolean).join(" "), error.status === 401 ? [token] : []);
    } finally {
      form.ariaBusy = null;
    }
  };
  $("action-cancel").onclick = () => $("action").close();
  $("action").showModal();
  reason.focus();
}

function blame(words, inputs = []) {
  $("action-fault").textContent = capital(words);
  for (const input of $("action").querySelectorAll("input")) input.ariaInvalid = inputs.includes(input) ? "true" : null;
  inputs[0]?.focus();
}

// A token lives as long as the tab; where the browser forbids storage, as long as the question.

function stored() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

function remember(token, name) {
  if (name) keep("reviewer", name);
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // it is asked for again
  }
}

export const activate = (version, base, done) => ({
  title: `Let ${version} serve?`, text: "It answers from the next request on. The version that serves now becomes the one to go back to.",
  go: "Activate", path: "activate", body: { version, ...(base && { base }) }, done,
});
export const rollback = (to, base, done) => ({
  title: "Go back?", text: `${to} will serve from the next request on.`, go: "Roll back", path: "rollback", body: { ...(base && { base }) }, done,
});
export const train = (base, done) => ({
  title: "Train now?", text: "A training takes minutes and much of this machine. The gate decides whether what comes out may serve.",
  go: "Train", path: "train", body: { ...(base && { base }) }, done,
});
