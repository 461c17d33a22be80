// Calibration: whether a confidence means what it says, before and after it is corrected.

import { chart } from "../charts.js";
import { h, section } from "../dom.js";
import { NONE, capital, count, figure, interval, percent, plural, short, time, version } from "../format.js";
import { choice } from "../parts.js";
import { asReliability } from "../plots.js";
import { table } from "../tables.js";

export const title = "Calibration";

export const load = (get, { version: name }) => get("calibration", name ? { version: name } : {});

export const view = (data, context) => [
  h("div", { class: "heading" }, h("p", { class: "lede" }, lede(data)), sources(data, context)),
  h("div", { class: "columns" },
    reliability("Before", data.before, "the confidence as the model gives it"),
    reliability("After", data.after, "the confidence as it is corrected", data.current ? undefined : "No calibration is fitted yet.")),
  section("How good it is", measures(data)),
  section("Calibrations so far", history(data.history)),
  h("div", { class: "columns" }, section("Changes", changes(data.events)), section("Evaluations", evaluations(data.evaluations))),
];

function lede({ source, current, population, samples, wanted }) {
  const which = population === "random" ? "reviews drawn at random" : `reviews (${population})`;
  const enough = samples < wanted ? ` A calibration needs ${count(wanted)}.` : "";
  const now = current ? `Calibration no. ${current.number} (${current.method}) corrects its confidence.` : "Its confidence is answered as it is.";
  return `${capital(version(source))}, on ${count(samples)} ${which}.${enough} ${now}`;
}

function sources({ sources: all, source }, { again }) {
  if (all.length < 2) return "";
  return choice("Of", all.map((each) => [each.source, `${short(each.source)} (${count(each.samples)})`]), source, (name) => again({ version: name }));
}

function reliability(name, figures, what, empty = "Not measured yet.") {
  const rows = figures?.bins.filter(({ n }) => n > 0) ?? [];
  const off = ({ confidence, accuracy }) => Math.abs(confidence - accuracy);
  const [worst] = rows.filter(({ n }) => n >= 30).sort((one, other) => off(other) - off(one));
  return chart({
    title: `${name}: ${what}`,
    summary: `How often it was right at each confidence, with 95% intervals, over how many judgements.${worst ? ` Farthest off: it said ${percent(worst.confidence)}, and was right in ${percent(worst.accuracy)} of ${plural(worst.n, "judgement")}.` : ""}`,
    plot: asReliability(figures?.bins ?? []),
    columns: [
      { title: "confidence", of: ({ low, high }) => `${percent(low, 0)} to ${percent(high, 0)}` },
      { title: "judgements", of: ({ n }) => n, show: count, number: true },
      { title: "said", of: ({ confidence }) => confidence, show: percent, number: true },
      { title: "right", of: ({ accuracy }) => accuracy, show: percent, number: true },
      { title: "95% low", of: (bin) => bin.accuracy_low, show: percent, number: true },
      { title: "95% high", of: (bin) => bin.accuracy_high, show: percent, number: true },
    ],
    rows, height: 380, empty,
  });
}

const measures = ({ before, after }) =>
  table("Measures before and after", [
    { title: "measure", of: ({ name }) => name },
    { title: "before (95%)", of: ({ key }) => before[key]?.value, show: (_, { key }) => interval(before[key]), number: true },
    { title: "after (95%)", of: ({ key }) => after?.[key]?.value, show: (_, { key }) => interval(after?.[key]), number: true },
    { title: "meaning", of: ({ meaning }) => meaning, wide: true },
  ], before ? MEASURES : [], { empty: "Nothing to measure yet." });

const MEASURES = [
  { key: "ece", name: "Calibration error (ECE)", meaning: "how far the confidence is from the truth, on average; 0 is best" },
  { key: "brier", name: "Brier score", meaning: "squared error of the probabilities; 0 is best, 2 is certain and wrong" },
  { key: "nll", name: "Log loss (NLL)", meaning: "how surprised it was by what people said; 0 is best" },
];

const history = (rows) =>
  table("Calibrations", [
    { title: "no.", of: ({ number }) => number },
    { title: "method", of: ({ method }) => method },
    { title: "reviews", of: ({ samples }) => samples, show: count, number: true },
    { title: "fitted", of: ({ created_at }) => created_at, show: time },
    { title: "", of: ({ current }) => (current ? "current" : "") },
  ], rows, { empty: "None yet." });

const changes = (rows) =>
  table("Changes of the calibration", [
    { title: "when", of: ({ at }) => at, show: time },
    { title: "what", of: ({ action }) => action },
    { title: "from", of: ({ from }) => from, number: true },
    { title: "to", of: ({ to }) => to, number: true },
    { title: "who", of: ({ who }) => who },
    { title: "why", of: ({ reason }) => reason, show: (reason) => reason || NONE, wide: true },
  ], rows, { empty: "None yet." });

const evaluations = (rows) =>
  table("Evaluations", [
    { title: "when", of: ({ evaluated_at }) => evaluated_at, show: time },
    { title: "of", of: ({ source }) => source, show: short },
    { title: "reviews", of: ({ samples }) => samples, show: count, number: true },
    { title: "Brier", of: ({ brier_score }) => brier_score, show: (value) => figure(value), number: true },
    { title: "calibrated", of: ({ brier_score_calibrated }) => brier_score_calibrated, show: (value) => figure(value), number: true },
    { title: "ECE", of: ({ expected_calibration_error }) => expected_calibration_error, show: (value) => figure(value), number: true },
  ], rows, { empty: "None yet." });
