// What is on the screen. Texts are only ever set as text: nothing that a page or a model
// wrote is read as HTML.

export const $ = (id) => document.getElementById(id);
const verdicts = [...document.querySelectorAll(".verdict")];
const percent = (share) => (share > 0.995 && share < 1 ? ">99%" : `${Math.round(100 * share)}%`);
const capital = (word) => word[0].toUpperCase() + word.slice(1);

const TAGS = {
  uncertain: "Least certain",
  disagree: "Models disagree",
  suspect: "To look at again",
  recent: "Newest",
  random: "Drawn at random",
  second: "Second look, blind",
  undone: "Undone: judge it again",
};

/** Show a pair, as yet without what the served model says. */
export function showItem(item, asked) {
  const blind = item.purpose === "second";
  $("notice").hidden = true;
  $("work").hidden = false;
  $("premise").textContent = item.premise;
  $("claim").textContent = item.hypothesis;
  for (const id of ["premise", "claim"]) $(id).scrollTop = 0;
  $("tag").textContent = TAGS[item.reason_for] || item.reason_for;
  $("tag").dataset.sampling = item.sampling;
  $("before").textContent = about(item, asked);
  showSource(item);
  showStanding(item);
  $("model").replaceChildren(blind ? BLIND : standing(item));
  $("agree").hidden = blind;
  if (!blind) $("agree-text").textContent = `Agree: ${item.relation}`;
  for (const button of verdicts) {
    const stands = button.dataset.label === item.relation;
    button.classList.toggle("stands", stands);
    button.classList.remove("chosen");
    button.querySelector(".said").textContent = item.reviewed_before ? "stands" : "model";
    setChance(button, null);
  }
  $("reason").value = "";
  $("pair").focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
}

const BLIND = "Someone has judged this pair. What they and the model said is hidden, so that your verdict is your own.";

function about(item, asked) {
  if (item.reviewed_before) {
    const { reviewer, reviewed_at } = item.reviewed_before;
    return `judged before${reviewer && ` by ${reviewer}`}${reviewed_at && `, ${day(reviewed_at)}`}`;
  }
  const another = !["random", "second", "undone", asked].includes(item.reason_for);
  return another ? `nothing under “${TAGS[asked].toLowerCase()}” just now` : "";
}

const day = (at) => new Date(at).toLocaleDateString(undefined, { dateStyle: "medium" });

function showSource(item) {
  const link = $("source");
  const url = URL.canParse(item.source_url) ? new URL(item.source_url) : null;
  link.hidden = !url || !["http:", "https:"].includes(url.protocol);
  link.removeAttribute("href");
  if (link.hidden) return;
  link.href = url.href;
  link.textContent = [item.page_title, url.hostname].filter(Boolean).join(" · ") + " ↗";
}

/** Show whether people have rejected the claim, or decided about the source's site. */
export function showStanding({ purpose, claim_id, claim_adoption_status, claim_rejection_reason, site }) {
  const blind = purpose === "second";
  const rejected = claim_adoption_status === "not_adopted";
  $("claim-button").hidden = blind || !claim_id;
  $("claim-button").firstChild.textContent = rejected ? "Restore" : "Reject";
  note("claim-note", rejected && "Rejected", claim_rejection_reason);
  const ruled = site && DECIDED[site.decision];
  $("domain-button").hidden = blind || !site;
  $("domain-button").firstChild.textContent = ruled ? "Site rule" : "Block site";
  note("domain-note", ruled && `${site.host} is ${ruled}`, ruled && site.reason);
  $("domain-note").dataset.decision = site?.decision ?? "none";
}

/** What a rule makes of a site, in a word. */
export const DECIDED = { block: "blocked", unblock: "let through" };

function note(id, what, why) {
  $(id).hidden = !what;
  $(id).replaceChildren(...(what ? [element("b", what), why ? `: ${why}` : ""] : []));
}

function standing(item) {
  const sure = item.confidence === null ? "" : ` (${percent(item.confidence)})`;
  const who = item.reviewed_before ? "The label that stands: " : "The model said: ";
  return line(who, item.relation, `${sure}.`);
}

function line(before, label, after) {
  const part = document.createDocumentFragment();
  const name = document.createElement("b");
  name.dataset.label = name.textContent = label;
  part.append(before, name, after);
  return part;
}

/** Add what the served model says now. */
export function showJudgement(item, judged) {
  for (const button of verdicts) setChance(button, judged.probabilities[button.dataset.label]);
  const version = judged.adapter === "base" ? "the base model" : judged.adapter;
  const cut = judged.truncated ? "; the source was cut to fit" : "";
  const now = line(` Now ${version} says: `, judged.label, ` (${percent(judged.confidence)}${cut}).`);
  if (sameJudgement(item, judged)) {
    $("model").replaceChildren(line("The model says: ", judged.label, ` (${percent(judged.confidence)}${cut}), ${version}.`));
  } else {
    $("model").append(now);
  }
}

/** Whether the model that serves now is the one whose answer is stored. */
export const sameJudgement = (item, judged) =>
  item.relation === judged.label &&
  item.confidence !== null &&
  Math.abs(item.confidence - judged.confidence) <= 0.01; // float types round otherwise

/** Say that the served model can't be asked. */
export const noJudgement = (why) => $("model").append(` The served model has no answer: ${why}`);

function setChance(button, share) {
  button.querySelector(".chance").textContent = share === null ? "" : percent(share);
  button.querySelector(".bar i").style.width = share === null ? "0" : `${100 * share}%`;
}

/** Mark the button of a verdict that is on its way. */
export const showChosen = (label) =>
  verdicts.forEach((button) => button.classList.toggle("chosen", button.dataset.label === label));

/** Show a message in the place of the pair; `go` names what Enter does. */
export function showNotice({ title, text, list = [], go, tone = "" }) {
  $("work").hidden = true;
  $("notice").hidden = false;
  $("notice").dataset.tone = tone;
  $("notice-title").textContent = title;
  $("notice-text").textContent = text;
  $("notice-list").hidden = !list.length;
  $("notice-list").replaceChildren(...list.map((each) => element("li", each)));
  $("notice-go").textContent = go;
  $("notice-go").focus();
}

let fading;

/** Say in passing what was done. */
export function say(words) {
  const toast = $("status");
  toast.textContent = words;
  toast.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("shown"), Math.max(3500, 60 * words.length));
}

/** Show today's counts, what training waits for, and what the reviews show. */
export function showProgress({ today, due, sampling, agreement, random_share, second_share }) {
  $("foot").hidden = false;
  $("today").replaceChildren(element("b", today.reviewed), " today");
  $("today").title = `${today.corrected} corrected, ${today.agreed} agreed, ${today.undone} undone`;
  $("due-title").textContent = due.due ? "Training is due" : "Until training is due";
  $("due").replaceChildren(...due.conditions.map(condition));
  $("honest").textContent = honest(sampling, random_share);
  $("agreement").textContent = agreed(agreement, second_share);
}

function condition({ name, value, threshold, text, holds }) {
  const item = element("li", "");
  const track = element("span", "");
  const fill = document.createElement("i");
  fill.style.width = `${100 * (value === null ? 1 : Math.min(1, value / (threshold || 1)))}%`;
  track.className = "track";
  track.append(fill);
  const words = element("span", "");
  words.append(element("b", left(name, value, threshold, holds)), document.createElement("br"), text);
  item.className = holds ? "holds" : "";
  item.append(words, track);
  return item;
}

const ENOUGH = {
  samples: "Enough corrections",
  "correction rate": "Correction rate reached",
  "days since training": "No wait left",
};

function left(name, value, threshold, holds) {
  if (holds) return ENOUGH[name] || name;
  if (name === "correction rate") return `Correction rate below ${percent(threshold)}`;
  const missing = Math.ceil(threshold - value);
  const what = name === "samples" ? "correction" : "day";
  return `${missing} more ${what}${missing === 1 ? "" : "s"}`;
}

function honest({ random, random_corrected, correction_rate, low, high }, share) {
  const drawn = share ? `${percent(share)} of the pairs are drawn at random, whatever the order.` : "Just now no pair is drawn at random.";
  const why = `${drawn} The other orders look for errors, so only the random ones tell how often the model errs:`;
  if (!random) return `${why} none is reviewed yet.`;
  return `${why} ${random_corrected} of ${random} so far, ${percent(correction_rate)} (95% interval ${percent(low)} to ${percent(high)}).`;
}

function agreed({ n, kappa, low, high, observed }, share) {
  if (!n) return share ? `${percent(share)} are shown to a second person, blind, to see how far people agree.` : "";
  const interval = low === null ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`;
  const figure = kappa === null ? "" : `, Cohen's kappa ${kappa.toFixed(2)}${interval}`;
  return `Two people agreed on ${percent(observed)} of ${n} blind second looks${figure}.`;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** Say what a review did. */
export const sayReviewed = (previous, label) =>
  say(previous === label ? `${capital(label)} confirmed. U undoes it.` : `${capital(previous)} corrected to ${label}. U undoes it.`);
