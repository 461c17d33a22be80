// Overview: the loop as a picture, what is due, and what to do next.

import { actionButton, rollback, train } from "../actions.js";
import { h, section, sentence } from "../dom.js";
import { capital, count, day, figure, plural, share, short, time, version } from "../format.js";
import { loopPicture } from "../loop.js";
import { events } from "../parts.js";

export const title = "Overview";

export const load = (get) => get("overview");

export const view = (data, { linkTo, query, refresh }) => [
  lede(data),
  loopPicture(data.loop, data.correction_rate, linkTo),
  alerts(data.alerts),
  h("div", { class: "columns" }, next(data, linkTo), due(data, query.base, refresh)),
  h("div", { class: "columns three" }, serving(data, query.base, refresh), believed(data, linkTo), review(data, linkTo)),
  section("What changed last", events(data.events)),
];

function lede({ serving: { version: name, since }, today }) {
  const began = since ? ` since ${day(since)}` : "";
  const did = today.answers === null ? "" : ` Today it answered ${plural(today.answers, "time")}, and`;
  const people = ` people reviewed ${plural(today.reviewed, "pair")}: ${count(today.corrected)} corrected, ${count(today.agreed)} agreed.`;
  return h("p", { class: "lede" }, `${capital(version(name))} serves${began}.${did || " Today"}${people}`);
}

function alerts(open) {
  if (!open.length) return "";
  return h("section", { class: "card warn", "aria-labelledby": "alerts" }, h("h2", { id: "alerts" }, plural(open.length, "open alert")),
    h("ul", { class: "plainlist" }, open.map(({ message, at, action }) =>
      h("li", null, message, h("span", { class: "soft" }, ` since ${time(at)}${action && `; ${action}`}`)))));
}

function next({ next: steps }, linkTo) {
  if (!steps.length) return section("What to do next", h("p", null, "Nothing. The loop runs by itself."));
  return section("What to do next", h("ol", { class: "steps" }, steps.map(({ text, command, page }) =>
    h("li", null, h("p", null, sentence(text)), h("p", { class: "soft" },
      command && !text.includes(command) && [h("code", null, command), " "], page && page !== "overview" && h("a", { href: linkTo(page) }, `See ${page}`))))));
}

function due({ due: state }, base, refresh) {
  const button = actionButton("Train now", train(base, refresh));
  if (!state) return section("Until training is due", h("p", { class: "empty" }, "Not known: see above."), h("p", { class: "row" }, button));
  return section(state.due ? "Training is due" : "Until training is due",
    h("ul", { class: "due" }, state.conditions.map(condition)), h("p", { class: "row" }, button));
}

function condition({ name, value, threshold, text, holds }) {
  const fill = h("i");
  fill.style.width = `${100 * (value === null ? 1 : Math.min(1, value / (threshold || 1)))}%`;
  return h("li", { class: holds && "holds" }, h("b", null, capital(name), holds ? " ✓" : ""), h("span", null, text),
    h("span", { class: "track", "aria-hidden": "true" }, fill));
}

function serving({ serving: { version: name, since, who, reason, previous, problem }, correction_rate: rate }, base, refresh) {
  return section("What serves",
    h("p", { class: "big" }, name === "base" ? "the base model" : short(name)),
    facts([
      ["since", since && `${time(since)}, by ${who}`],
      ["because", reason],
      ["corrected", `${share(rate.now)}, of ${count(rate.now.n)}`],
      ["before", rate.before?.n ? `${share(rate.before)} with ${version(rate.before_version)}` : null],
      ["change", rate.change?.text],
      ["problem", problem],
    ]),
    name !== "base" && h("p", { class: "row" }, actionButton("Roll back", rollback(capital(version(previous)), base, refresh))));
}

function believed({ calibration, drift }, linkTo) {
  return section("Is it to be believed?",
    facts([
      ["calibration", calibration ? `no. ${calibration.number}, ${calibration.method}, ${day(calibration.created_at)}` : "none: the raw confidence is answered"],
      ["fitted on", calibration && plural(calibration.samples, "review")],
      ...drift.map(({ name, value, bound, level, text }) =>
        [`drift: ${name}`, h("span", { title: text, "data-level": level }, level === "unknown" ? "not known" : `${figure(value, 2)} of ${figure(bound, 2)} allowed`)]),
    ]),
    h("p", null, h("a", { href: linkTo("calibration") }, "Reliability"), " · ", h("a", { href: linkTo("quality") }, "Quality")));
}

function review({ reviews, queue, last_run: run }, linkTo) {
  return section("Reviews and training",
    facts([
      ["reviewed", `${count(reviews.reviewed)}, ${count(reviews.corrected)} corrected`],
      ["at random", count(reviews.random)],
      ["not yet trained on", plural(reviews.corrected_unused, "correction")],
      ["waiting", queue && `${count(queue.waiting)}, ${count(queue.on_screens)} on a screen`],
      ["to look at again", queue && `${count(queue.suspects)} suspect, ${count(queue.disagree)} disagreed on`],
      ["last training", run && `${run.status}, ${time(run.finished_at ?? run.started_at)}`],
    ]),
    h("p", null, h("a", { href: linkTo("data") }, "Data")));
}

/** Names and what is known of them; what is not known is left out. */
const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
