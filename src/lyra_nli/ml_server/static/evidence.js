// What a person says about the evidence behind a pair: its claim, and the site of its source.

import * as api from "./api.js";
import * as view from "./view.js";

const { $ } = view;

/** Ask whether to reject the pair's claim, or to restore it. */
export function openClaim(item, reviewer) {
  if (!item || $("claim-button").hidden) return;
  const rejected = item.claim_adoption_status === "not_adopted";
  $("claim-reason-field").hidden = rejected;
  ask("claim", {
    title: rejected ? "Restore this claim?" : "Reject this claim?",
    text: rejected
      ? `It was rejected: ${item.claim_rejection_reason || "without a reason"}`
      : "It is taken out of the evidence until somebody restores it. This is about the claim, not about the pair: judge that as well.",
    actions: [rejected ? "claim_restore" : "claim_reject"],
    values: { reason: "" },
    focus: "reason",
    async send(action, { reason }, key) {
      const { claim_id } = item;
      const body = action === "claim_reject" ? { action, claim_id, reason } : { action, claim_id };
      const answer = await api.act(body, reviewer, key);
      item.claim_adoption_status = answer.new_status;
      item.claim_rejection_reason = answer.new_status === "adopted" ? "" : reason;
      view.showStanding(item);
      view.say(`${answer.message} ${action === "claim_reject" ? "C, or “Restore”, puts it back." : ""}`.trim());
    },
  });
}

// What can be done where that is decided; Enter does the first.
const POSSIBLE = {
  none: ["domain_block"],
  block: ["domain_clear_override", "domain_unblock"],
  unblock: ["domain_clear_override", "domain_block"],
};
const NAMES = {
  claim_reject: "Reject it",
  claim_restore: "Restore it",
  domain_block: "Block",
  domain_unblock: "Let through",
  domain_clear_override: "Clear the rule",
};

/** Ask whether to block the site of the pair's source, or what is to become of its rule. */
export function openDomain(item, reviewer) {
  if (!item?.site || $("domain-button").hidden) return;
  const { host, decision, pattern, reason, why } = item.site;
  const ruled = view.DECIDED[decision];
  ask("domain", {
    title: ruled ? "The rule for this site" : "Block this site?",
    text: ruled
      ? `${host} is ${ruled} (${why}): ${reason || "without a reason"}`
      : "Nothing more is taken from it until somebody clears the rule.",
    actions: POSSIBLE[decision],
    values: { domain_pattern: pattern || host, reason: "" },
    focus: "reason",
    async send(action, values, key) {
      const answer = await api.act({ action, ...values }, reviewer, key);
      item.site = await api.site(item.source_url);
      view.showStanding(item);
      view.say(decided(answer, item.site));
    },
  });
}

function decided({ action, decision, domain_pattern, message }, site) {
  if (action === "domain_clear_override") return message;
  const applies = site.pattern === domain_pattern;
  return `${domain_pattern} is ${view.DECIDED[decision]}. ${applies ? "D, or “Site rule”, clears that." : "It does not decide about this source."}`;
}

/** Show a dialog; `send` does what was chosen, and what the server refuses is said in its field. */
function ask(name, { title, text, actions, values, focus, send }) {
  const dialog = $(`${name}-dialog`);
  const form = dialog.querySelector("form");
  $(`${name}-dialog-title`).textContent = title;
  $(`${name}-dialog-text`).textContent = text;
  form.querySelectorAll("[type=submit]").forEach((button, number) => {
    button.value = actions[number] || "";
    button.textContent = NAMES[button.value] || "";
    button.hidden = !button.value;
  });
  for (const [field, value] of Object.entries(values)) form.elements[field].value = value;
  blame(form, []);
  const keyOf = keys();
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    const action = event.submitter.value;
    const given = Object.fromEntries(Object.keys(values).map((field) => [field, form.elements[field].value.trim()]));
    form.ariaBusy = "true";
    try {
      await send(action, given, keyOf(action, given));
      dialog.close();
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      blame(form, error.details.length ? error.details : [{ message: `${error.message} ${error.hint}` }]);
    } finally {
      form.ariaBusy = null;
    }
  };
  form.querySelector(".cancel").onclick = () => dialog.close();
  dialog.showModal();
  const field = form.elements[focus];
  if (field.checkVisibility()) field.focus();
  else form.querySelector("[type=submit]").focus();
}

/** The same request has the same idempotency key; another one, another. */
function keys() {
  const known = new Map();
  return (...request) => {
    const text = JSON.stringify(request);
    if (!known.has(text)) known.set(text, api.newKey());
    return known.get(text);
  };
}

/** Put each fault at the field that it is about, or else below them. */
function blame(form, details) {
  const places = [...form.querySelectorAll(".fault")];
  for (const place of places) place.textContent = "";
  for (const input of form.querySelectorAll("input")) input.ariaInvalid = null;
  for (const { parameter = "", code, message } of details) {
    const place = places.find((each) => each.dataset.for === parameter) || places.at(-1);
    const words = code === "missing" ? "Please fill this in." : message.replace(`${parameter}: `, "");
    place.textContent += `${place.textContent && " "}${words[0].toUpperCase()}${words.slice(1)}`;
    const input = form.elements[place.dataset.for];
    if (input) input.ariaInvalid = "true";
  }
  form.querySelector("[aria-invalid=true]")?.focus();
}
