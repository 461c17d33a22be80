// One version: what the gate said, what it was made from, and when it served.

import { reportPage } from "../api.js";
import { actionButton, activate } from "../actions.js";
import { chart } from "../charts.js";
import { h, section } from "../dom.js";
import { NONE, count, day, figure, plural, share, short, time, version } from "../format.js";
import { events } from "../parts.js";
import { asIntervals } from "../plots.js";
import { table } from "../tables.js";

export function detail(one, { active }, { query, refresh, linkTo }) {
  const { name, status, parent, problem } = one.version;
  const may = name !== active && status !== "removed";
  return h("article", { class: "detail", "aria-labelledby": "detail-title" },
    h("div", { class: "heading" }, h("h2", { id: "detail-title" }, name),
      may && actionButton(`Activate ${short(name)}`, activate(name, query.base, refresh), { primary: true }),
      h("a", { class: "button", href: linkTo("versions") }, "Close")),
    problem && h("p", { class: "missing" }, problem),
    h("p", null, [one.gate?.sentence, `Trained on ${plural(one.version.samples_used, "row")} when ${version(parent)} served.`, ...one.served.map(period)].filter(Boolean).join(" ")),
    one.gate && gate(one.gate),
    h("div", { class: "columns" }, made(one), section("Calibrations", calibrations(one.calibrations), h("p", null, h("a", { href: linkTo("calibration", { version: name }) }, "Reliability")))),
    section("Changes", events(one.events)),
    one.report_page && h("p", null, h("a", { href: reportPage(name, query.base ?? "fast"), target: "_blank", rel: "noopener" }, "The gate's report, to read or print")),
    one.report && h("details", { class: "card" }, h("summary", null, "The gate's whole report"), h("pre", { tabindex: "0" }, one.report)));
}

const period = ({ from, to }) => `It served from ${day(from)}${to ? ` to ${day(to)}` : " until now"}.`;

function gate({ checks, populations, against_base: base, against_active: before }) {
  const rows = populations.flatMap(({ name, models }) => models.map((model) => ({ ...model, population: name })));
  const groups = ["base", "active", "candidate"].filter((model) => rows.some((row) => row.model === model));
  return [
    h("div", { class: "columns" },
      section("The gate's checks", table("The gate's checks", [
        { title: "check", of: ({ name }) => name },
        { title: "figure", of: ({ value }) => value, show: (value) => figure(value), number: true },
        { title: "threshold", of: ({ threshold }) => threshold, show: (value) => figure(value), number: true },
        { title: "", of: ({ holds }) => holds, show: (holds, { enforced }) => (holds ? "holds" : h("b", { "data-level": enforced ? "large" : "" }, enforced ? "does not hold" : "does not hold; not enforced")) },
      ], checks)),
      chart({
        title: "Accuracy on rows it never saw",
        summary: "The same rows, answered by the base, by the version that served, and by this one, with 95% intervals.",
        plot: asIntervals(groups.map((model) => ({ name: model, points: rows.filter((row) => row.model === model).map((row) => ({ name: row.population, estimate: row.accuracy })) }))),
        columns: [
          { title: "rows", of: ({ population }) => population }, { title: "model", of: ({ model }) => model },
          { title: "n", of: ({ n }) => n, show: count, number: true },
          { title: "accuracy", of: ({ accuracy }) => accuracy.value, show: (_, row) => share(row.accuracy), number: true },
          ...["brier", "nll", "ece"].map((key) => ({ title: key, of: (row) => row[key], show: (value) => figure(value), number: true })),
        ],
        rows, height: 90 + 70 * populations.length, empty: "The gate kept no figures.",
      })),
    changes("the base", base), before && changes("the version that served", before),
  ];
}

const changes = (whom, of) =>
  of && h("p", null, `Against ${whom}: ${plural(of.fixed, "error")} fixed (${share(of.efr)} of its errors), ${plural(of.broken, "right answer")} broken (${share(of.nfr)})${of.p === null ? "" : `; p = ${of.p < 0.0001 ? of.p.toExponential(1) : figure(of.p, 4)}`}.`);

function made({ manifest, digest, run }) {
  if (!manifest) return section("Made from", h("p", { class: "empty" }, "Its manifest is not there: see above."));
  const { rows, recipe, library_versions: libraries } = manifest;
  const facts = [
    ["rows", `${count(rows.train)} to learn from, ${count(rows.dev)} to tune on, ${rows.holdout ? `${count(rows.holdout)} never seen` : "each judged by a copy that had not seen it"}`],
    ["dataset", manifest.dataset_hash.slice(0, 16)], ["digest", digest.slice(0, 16)],
    ["seed", String(manifest.seed)], ["commit", manifest.git_commit?.slice(0, 12) ?? NONE], ["made", time(manifest.created_at)],
    ["run", run && `${run.status}, ${time(run.started_at)} to ${time(run.finished_at)}`],
  ];
  const listed = (of) => h("dl", { class: "facts" }, Object.entries(of).map(([key, value]) => [h("dt", null, key), h("dd", null, typeof value === "string" ? value : JSON.stringify(value))]));
  return section("Made from",
    h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([key, value]) => [h("dt", null, key), h("dd", null, value)])),
    h("details", null, h("summary", null, "Recipe"), listed(recipe)), h("details", null, h("summary", null, "Libraries"), listed(libraries)));
}

const calibrations = (rows) =>
  table("Calibrations of this version", [
    { title: "no.", of: ({ number }) => number },
    { title: "method", of: ({ method }) => method },
    { title: "reviews", of: ({ samples }) => samples, show: count, number: true },
    { title: "fitted", of: ({ created_at }) => created_at, show: time },
    { title: "", of: ({ current }) => (current ? "current" : "") },
  ], rows, { empty: "None: its confidence is answered as it is." });
