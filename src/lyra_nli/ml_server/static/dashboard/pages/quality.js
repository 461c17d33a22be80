// Quality: how often people correct what the model says, over time, by version, class and site.

import { chart } from "../charts.js";
import { h, section } from "../dom.js";
import { LABELS, NONE, capital, count, day, figure, interval, percent, share, short, signed, version } from "../format.js";
import { alertTable, choice, driftTable } from "../parts.js";
import { asIntervals, asMatrix, asStack, overWeeks } from "../plots.js";
import { shareColumns, table } from "../tables.js";

export const title = "Quality";

export const load = (get) => get("quality");

export const view = (data, context) => [
  h("p", { class: "lede" }, `What people said of the answers, counted over ${data.population}: only pairs drawn at random tell how often the model errs.`),
  overTime(data, context),
  h("div", { class: "columns" }, byVersion(data), confusion(data, context)),
  section("Before and after each change", activations(data.activations)),
  h("div", { class: "columns" }, byClass(data), byDomain(data)),
  h("div", { class: "columns" }, labels(data), section("Drift", driftTable(data.drift))),
  section("Alerts", alertTable(data.alerts)),
];

const MEASURES = {
  rate: { words: "Correction rate", of: (row) => row.correction_rate },
  accuracy: { words: "Accuracy", of: (row) => row.accuracy },
  brier: { words: "Brier score", of: (row) => ({ value: row.brier, low: null, high: null, n: row.brier_n, few: row.brier_n < 30 }) },
};

function overTime({ weeks, activations }, { query, again }) {
  const chosen = query.measure in MEASURES ? query.measure : "rate";
  const { words, of } = MEASURES[chosen];
  const weekly = { title: "week", of: ({ week }) => week };
  const last = weeks.at(-1);
  return chart({
    title: `${words} by week`,
    controls: choice("Show", Object.entries(MEASURES).map(([key, each]) => [key, each.words]), chosen, (measure) => again({ measure })),
    summary: last ? `${words} of each version by week, with 95% intervals; dotted lines mark when another version began to serve. Last: ${last.week}, ${short(last.version)}, ${chosen === "brier" ? figure(last.brier) : share(of(last))}.` : "",
    plot: overWeeks(weeks, of, activations, { asPercent: chosen !== "brier" }),
    columns: [
      weekly, { title: "version", of: (row) => row.version, show: short },
      ...shareColumns("corrected", (row) => row.correction_rate, percent),
      { title: "accuracy", of: (row) => row.accuracy.value, show: percent, number: true },
      { title: "Brier", of: (row) => row.brier, show: figure, number: true },
    ],
    rows: weeks, height: 340, empty: "No pair that was drawn at random has been reviewed yet.",
  });
}

function byVersion({ versions }) {
  return chart({
    title: "Correction rate by version",
    summary: "The share of each version's answers that people corrected, with its 95% interval.",
    plot: asIntervals([{ name: "corrected", points: versions.map((row) => ({ name: short(row.version), estimate: row.correction_rate })) }]),
    columns: [
      { title: "version", of: (row) => row.version, show: short },
      ...shareColumns("corrected", (row) => row.correction_rate, percent),
      { title: "accuracy", of: (row) => row.accuracy.value, show: percent, number: true },
      { title: "Brier (95%)", of: (row) => row.brier?.value, show: (_, row) => interval(row.brier), number: true },
    ],
    rows: versions, height: 80 + 48 * versions.length, empty: "No version has random reviews yet.",
  });
}

function confusion({ confusion: all }, { query, again }) {
  const chosen = all.find((each) => each.version === query.version) ?? all[0];
  const matrix = chosen?.n ? chosen.matrix : [];
  const names = all.map((each) => [each.version, each.version === "all" ? "all versions" : short(each.version)]);
  return chart({
    title: "What it said, and what people said",
    controls: names.length > 1 && choice("Of", names, chosen.version, (name) => again({ version: name })),
    summary: chosen ? `${count(chosen.n)} reviewed answers; shades and percentages are shares of what the model said.` : "",
    plot: asMatrix(matrix, LABELS, { rows: "the model", columns: "people" }),
    columns: [
      { title: "the model said", of: ({ label }) => label },
      ...LABELS.map((label, n) => ({ title: `people: ${label}`, of: ({ row }) => row[n], show: count, number: true })),
    ],
    rows: matrix.map((row, n) => ({ label: LABELS[n], row })), height: 310, empty: "Nothing is reviewed yet.",
  });
}

const activations = (rows) =>
  table("Changes of what serves, with the correction rate on both sides", [
    { title: "when", of: ({ at }) => at, show: day },
    { title: "change", of: ({ to_version }) => to_version, show: (to, { from_version: from, action }) => `${capital(action)}: ${short(from)} → ${short(to)}` },
    { title: "before", of: ({ before }) => before?.value, show: (_, { before }) => (before ? share(before) : NONE), number: true },
    { title: "after", of: ({ after }) => after?.value, show: (_, { after }) => (after ? share(after) : NONE), number: true },
    { title: "difference", of: ({ difference }) => difference?.value, show: (value, { difference }) => (difference ? `${signed(value)} (${signed(difference.low)} to ${signed(difference.high)})`.replaceAll(" points (", " (").replace(" points to", " to") : NONE), number: true },
    { title: "p (worse)", of: ({ p }) => p, show: (p) => (p !== null && p < 0.001 ? "< 0.001" : figure(p)), number: true },
    { title: "e (worse)", of: ({ e_value }) => e_value, show: (value) => figure(value, 1), number: true },
    { title: "in words", of: ({ text }) => text, wide: true },
  ], rows, { empty: "Nothing was activated yet." });

function byClass({ classes }) {
  const judged = classes.filter(({ judged, meant }) => judged + meant > 0);
  const group = (name, key) => ({ name, points: classes.map((row) => ({ name: row.label, estimate: row[key] })) });
  return chart({
    title: "By class",
    summary: "Right: of what the model gave this label, how much people confirmed. Found: of what people gave it, how much the model had.",
    plot: asIntervals([group("right", "right"), group("found", "found")]),
    columns: [
      { title: "class", of: ({ label }) => label },
      { title: "judged", of: (row) => row.judged, show: count, number: true }, { title: "right", of: (row) => row.right.value, show: (_, row) => share(row.right), number: true },
      { title: "meant", of: (row) => row.meant, show: count, number: true }, { title: "found", of: (row) => row.found.value, show: (_, row) => share(row.found), number: true },
    ],
    rows: judged, height: 300, empty: "Nothing is reviewed yet.",
  });
}

function byDomain({ domains }) {
  return chart({
    title: "By source",
    summary: "Correction rate by the site the premise comes from; the most reviewed come first.",
    plot: asIntervals([{ name: "corrected", points: domains.slice(0, 10).map((row) => ({ name: row.domain || "unknown", estimate: row.correction_rate })) }]),
    columns: [{ title: "site", of: ({ domain }) => domain || "unknown" }, ...shareColumns("corrected", (row) => row.correction_rate, percent)],
    rows: domains, height: 300, empty: "No reviewed pair names its source.",
  });
}

const PATTERNS = { supports: "", refutes: "/", neutral: "." };

function labels({ labels_by_week: rows }) {
  const weeks = [...new Set(rows.map(({ start }) => start))];
  const sum = (week, label) => rows.filter((row) => row.start === week).reduce((total, row) => total + row[label], 0);
  return chart({
    title: "What it answers",
    summary: "The labels of all logged answers, week by week, as shares.",
    plot: asStack(LABELS.map((label) => ({ name: label, colour: label, pattern: PATTERNS[label], y: weeks.map((week) => sum(week, label)) })), weeks, { asShare: true }),
    columns: [
      { title: "week", of: ({ week }) => week }, { title: "version", of: (row) => row.version, show: version },
      ...LABELS.map((label) => ({ title: label, of: (row) => row[label], show: count, number: true })),
    ],
    rows, height: 300, empty: "No answer is logged yet.",
  });
}
