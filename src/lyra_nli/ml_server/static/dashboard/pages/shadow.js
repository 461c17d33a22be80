// Shadow: where two versions answer differently.

import { REVIEW } from "../api.js";
import { chart } from "../charts.js";
import { h, section } from "../dom.js";
import { LABELS, NONE, count, day, percent, share, short, signed, time } from "../format.js";
import { choice, pairText } from "../parts.js";
import { asIntervals, asMatrix } from "../plots.js";
import { shareColumns, table } from "../tables.js";

export const title = "Shadow";

export const load = (get) => get("shadow");

export const view = (data, context) => [
  h("p", { class: "lede" }, "Two versions on the same pairs: where they disagree, a review tells the most."),
  section("On trial", trials(data.trials)),
  h("div", { class: "columns" }, pairs(data), labels(data, context)),
  section("Comparisons", comparisons(data.comparisons)),
  section("Pairs they disagree about", edges(data.edges), data.edges.length > 0 && h("p", null, h("a", { href: REVIEW }, "Review them"), ", in the order “models disagree”.")),
];

const against = ({ one, other }) => `${short(one)} – ${short(other)}`;
const HOW = "`lyra-nli adapters compare active --with previous` compares two on pairs that nobody has reviewed.".replaceAll("`", "");

function pairs({ pairs: rows }) {
  return chart({
    title: "How often they disagree",
    summary: "The share of pairs to which two versions gave different labels, with its 95% interval.",
    plot: asIntervals([{ name: "disagree", points: rows.map((row) => ({ name: `${against(row)}, ${row.kind}`, estimate: row.disagreement })) }]),
    columns: [
      { title: "versions", of: against }, { title: "kind", of: ({ kind }) => kind },
      ...shareColumns("disagree", (row) => row.disagreement, percent),
      { title: "comparisons", of: (row) => row.comparisons, show: count, number: true }, { title: "last", of: ({ last }) => last, show: day },
    ],
    rows, height: 80 + 48 * rows.length, empty: `No two versions were compared yet. ${HOW}`,
  });
}

function labels({ comparisons: all }, { query, again }) {
  const known = all.filter((each) => each.labels);
  const chosen = known.find(({ id }) => id === query.comparison) ?? known[0];
  const names = known.map((each) => [each.id, `${against(each)}, ${day(each.at)}`]);
  return chart({
    title: "Which labels change",
    controls: names.length > 1 && choice("Of", names, chosen.id, (comparison) => again({ comparison })),
    summary: chosen ? `What ${short(chosen.one)} said, and what ${short(chosen.other)} said, of ${count(chosen.compared)} pairs.` : "",
    plot: asMatrix(chosen?.labels ?? [], LABELS, { rows: short(chosen?.one), columns: short(chosen?.other) }),
    columns: [
      { title: `${short(chosen?.one)} said`, of: ({ label }) => label },
      ...LABELS.map((label, n) => ({ title: `${short(chosen?.other)}: ${label}`, of: ({ row }) => row[n], show: count, number: true })),
    ],
    rows: chosen ? chosen.labels.map((row, n) => ({ label: LABELS[n], row })) : [], height: 310, empty: "No comparison has counted labels yet.",
  });
}

const trials = (rows) =>
  table("Versions on trial", [
    { title: "version", of: ({ version }) => version, show: short },
    { title: "as", of: ({ kind }) => kind },
    { title: "of the traffic", of: (row) => row.share, show: (part) => percent(part, 0), number: true },
    { title: "since", of: ({ started_at }) => started_at, show: time },
    { title: "disagrees", of: (row) => row.disagreement.value, show: (_, row) => (row.kind === "shadow" ? share(row.disagreement) : NONE), number: true },
  ], rows, { empty: "None. `lyra-nli shadow start NAME` lets a version judge live pairs again.".replaceAll("`", "") });

const comparisons = (rows) =>
  table("Comparisons", [
    { title: "when", of: ({ at }) => at, show: time },
    { title: "kind", of: ({ kind }) => kind },
    { title: "versions", of: against },
    { title: "pairs", of: ({ compared }) => compared, show: count, number: true },
    { title: "disagree", of: (row) => row.disagreement.value, show: (_, row) => share(row.disagreement), number: true },
    { title: "confidence", of: (row) => row.confidence_shift, show: (shift) => (shift === null ? NONE : signed(shift)), number: true },
  ], rows, { empty: `None yet. ${HOW}` });

const edges = (rows) =>
  table("Pairs on which two versions disagree", [
    { title: "pair", of: ({ edge_id }) => edge_id, show: (_, row) => pairText(row) },
    { title: "answers", of: ({ answers }) => JSON.stringify(answers), show: (_, { answers }) => h("ul", { class: "plainlist" }, Object.entries(answers).map(said)) },
    { title: "apart", of: ({ score }) => score, show: (score) => score.toFixed(2), number: true },
  ], rows, { empty: "None in the queue." });

function said([name, chances]) {
  const label = LABELS.reduce((best, each) => (chances[each] > chances[best] ? each : best));
  return h("li", null, `${short(name)}: `, h("b", { "data-label": label }, label), ` ${percent(chances[label], 0)}`);
}
