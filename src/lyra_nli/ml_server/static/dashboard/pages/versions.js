// Versions: their lineage, what the gate said of each, and two side by side.

import { actionButton, rollback, train } from "../actions.js";
import { get as ask } from "../api.js";
import { $, h, say, section } from "../dom.js";
import { capital, count, figure, percent, share, short, time, version } from "../format.js";
import { lineage } from "../lineage.js";
import { events } from "../parts.js";
import { table } from "../tables.js";
import { comparing } from "./versions_compare.js";
import { detail } from "./versions_detail.js";

export const title = "Versions";

/** The list, and with it the version and the comparison that the address names. */
export async function load(get, query, more) {
  const both = query.one && query.other;
  const [answer, one, compared] = await Promise.all([
    get("versions"),
    query.version && get(`versions/${encodeURIComponent(query.version)}`),
    both && get("versions/compare", { one: query.one, other: query.other }),
  ]);
  Object.assign(more, { detail: one, compared });
  return { ...answer, missing: [...new Set([answer, one, compared].flatMap((each) => each?.missing ?? []))], notes: [...new Set([answer, one, compared].flatMap((each) => each?.notes ?? []))] };
}

export function view(data, context) {
  const { more, query, linkTo, refresh } = context;
  const { versions } = data;
  watch(data.training, refresh);
  return [
    h("p", { class: "lede" }, lede(data)),
    h("p", { class: "row" }, buttons(data, query.base, refresh)),
    training(data.training),
    versions.length > 0 && section("Lineage", lineage(versions, more.detail?.version.name, linkTo)),
    more.detail && detail(more.detail, data, context),
    section("All versions", list(versions, linkTo)),
    comparing(versions, more.compared, context),
    section("What served, and why", events(data.events)),
    section("Trainings", runs(data.runs)),
  ].filter(Boolean);
}

const lede = ({ active, versions }) =>
  versions.length
    ? `${capital(version(active))} serves. There ${versions.length === 1 ? "is one version" : `are ${count(versions.length)} versions`}; a version serves only after the gate has passed it, or somebody said why it should.`
    : "There is no version yet. A training makes one from what people corrected.";

const buttons = ({ active, previous }, base, refresh) => [
  actionButton("Train now", train(base, refresh)),
  active && active !== "base" && actionButton("Roll back", rollback(capital(version(previous)), base, refresh)),
];

function list(versions, linkTo) {
  return table("Versions", [
    { title: "version", of: ({ name }) => name, show: (name) => h("a", { href: linkTo("versions", { version: name }) }, short(name)) },
    { title: "", of: ({ aliases }) => aliases.join(" "), show: (aliases) => aliases && h("span", { class: "tag" }, aliases) },
    { title: "gate", of: ({ status }) => status, show: (status) => h("span", { "data-status": status }, status) },
    { title: "trained on", of: ({ samples_used }) => samples_used, show: count, number: true },
    { title: "accuracy", of: (row) => row.accuracy_after, show: (after, row) => `${percent(row.accuracy_before)} → ${percent(after)}`, number: true },
    { title: "Brier", of: (row) => row.brier_after, show: (after, row) => `${figure(row.brier_before)} → ${figure(after)}`, number: true },
    { title: "answers", of: ({ answers }) => answers, show: count, number: true },
    { title: "corrected", of: (row) => row.correction_rate?.value, show: (_, row) => (row.correction_rate?.n ? share(row.correction_rate) : "–"), number: true },
    { title: "made", of: ({ created_at }) => created_at, show: time },
    { title: "files", of: ({ folder }) => folder, show: (folder, { problem }) => (folder === "ok" ? "ok" : h("span", { "data-level": "large", title: problem }, folder)) },
  ], [...versions].reverse(), { empty: "No version yet." });
}

const runs = (rows) =>
  table("Trainings", [
    { title: "began", of: ({ started_at }) => started_at, show: time },
    { title: "ended", of: ({ finished_at }) => finished_at, show: time },
    { title: "status", of: ({ status }) => status },
    { title: "rows", of: ({ samples }) => samples, show: count, number: true },
    { title: "forced because", of: ({ forced_reason }) => forced_reason },
    { title: "message", of: ({ message }) => message, wide: true },
  ], rows, { empty: "No training yet." });

// --- a training that was started from here ----------------------------------------------------

function training(state) {
  if (!state?.running && !state?.log.length) return false;
  return section(state.running ? "Training now" : "The training that was started here",
    h("p", { id: "training-state" }, stateOf(state)),
    h("pre", { id: "training-log", tabindex: "0", "aria-label": "Log of the training" }, state.log.join("\n")));
}

const ENDS = { 0: "It passed the gate.", 9: "It was trained, but the gate did not pass it." };
const stateOf = ({ running, started_at, reason, exit_code }) =>
  `${running ? "Runs since" : "Began"} ${time(started_at)}, because: ${reason}. ${running ? "" : (ENDS[exit_code] ?? `It failed, with exit code ${exit_code}: the log says why.`)}`;

let watching;

/** While a training runs, show its log; when it has ended, the page anew. */
function watch(state, refresh) {
  clearTimeout(watching);
  if (!state?.running) return;
  watching = setTimeout(async () => {
    if (!$("training-log")) return;
    const { training: now } = await ask("training").catch(() => ({ training: state }));
    if (!$("training-log")) return;
    if (!now.running) {
      say("The training has ended.");
      return refresh();
    }
    $("training-log").textContent = now.log.join("\n");
    $("training-state").textContent = stateOf(now);
    $("training-log").scrollTop = $("training-log").scrollHeight;
    watch(now, refresh);
  }, 2000);
}
