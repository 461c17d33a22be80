// What several pages show in the same way.

import { h } from "./dom.js";
import { NONE, figure, short, time } from "./format.js";
import { table } from "./tables.js";

/** The audit log, newest first. */
export const events = (rows) =>
  table("Changes of what serves", [
    { title: "when", of: ({ at }) => at, show: time },
    { title: "what", of: ({ action }) => action.replaceAll("_", " ") },
    { title: "from", of: ({ from_version }) => from_version, show: short },
    { title: "to", of: ({ to_version }) => to_version, show: short },
    { title: "who", of: ({ who }) => who },
    { title: "why", of: ({ reason }) => reason, show: (reason) => reason || NONE, wide: true },
  ], rows, { empty: "Nothing was activated yet: the base model serves." });

/** What the watch found. */
export const alertTable = (rows) =>
  table("Alerts", [
    { title: "since", of: ({ at }) => at, show: time },
    { title: "rule", of: ({ rule }) => rule.replaceAll("_", " ") },
    { title: "version", of: ({ version }) => version, show: short },
    { title: "what", of: ({ message }) => message, wide: true },
    { title: "done about it", of: ({ action }) => action, show: (action) => action || NONE },
    { title: "resolved", of: ({ resolved_at }) => resolved_at, show: (at) => (at ? time(at) : h("b", null, "open")) },
  ], rows, { empty: "No alert so far." });

/** How far the traffic has moved. */
export const driftTable = (rows) =>
  table("Drift", [
    { title: "of", of: ({ name }) => name },
    { title: "value", of: ({ value }) => value, show: (value) => figure(value), number: true },
    { title: "allowed", of: ({ bound }) => bound, show: (bound) => figure(bound, 2), number: true },
    { title: "", of: ({ level }) => level, show: (level) => h("span", { "data-level": level }, level === "unknown" ? "not known" : level) },
    { title: "meaning", of: ({ text }) => text, wide: true },
  ], rows, { empty: "Nothing is logged yet to compare with." });

/** A choice of one of a few; `changed` gets the value. */
export const choice = (label, options, value, changed) => {
  const select = h("select", { "aria-label": label, onchange: () => changed(select.value) }, options.map(([key, words]) => h("option", { value: key }, words)));
  select.value = value;
  return h("label", { class: "choice" }, h("span", null, label), select);
};

/** A premise and what is claimed, as texts. */
export const pairText = ({ premise, hypothesis }) =>
  h("div", { class: "texts" }, h("p", null, premise), h("p", null, "→ ", hypothesis));
