// Data: who reviewed how much, how far people agree, and what waits.

import { REVIEW } from "../api.js";
import { chart } from "../charts.js";
import { h, section } from "../dom.js";
import { count, figure, percent, plural, share, short, time } from "../format.js";
import { pairText } from "../parts.js";
import { asStack } from "../plots.js";
import { table } from "../tables.js";

export const title = "Data";

export const load = (get) => get("data");

export const view = (data) => [
  h("p", { class: "lede" }, lede(data.totals)),
  byDay(data),
  h("div", { class: "columns three" }, figures("Drawn at random", count(data.totals.random), "reviews, which alone tell how often the model errs"), agreement(data.agreement), queue(data.queue)),
  section("Reviewers", reviewers(data.reviewers)),
  section("Labels to look at again", suspects(data.suspects), data.suspects.length > 0 && h("p", null, h("a", { href: REVIEW }, "Review them"), ", in the order “suspect labels again”.")),
];

const lede = ({ reviewed, corrected, corrected_unused: left, correction_rate: rate }) =>
  `${plural(reviewed, "review")}, ${count(corrected)} of them corrections; ${count(left)} are not yet trained on.` +
  (rate.n ? ` Of the ${count(rate.n)} random first looks ${share(rate)} were corrected.` : "");

function byDay({ days }) {
  const last = days.at(-1);
  const bars = (name, key, colour, pattern) => ({ name, colour, pattern, y: days.map((row) => row[key]) });
  const columns = ["reviewed", "agreed", "corrected", "random", "queue", "unknown"];
  return chart({
    title: "Reviews by day",
    summary: last ? `The last ${days.length} days. On ${last.day}: ${plural(last.reviewed, "review")}, ${count(last.corrected)} corrected.` : "",
    plot: asStack([bars("agreed", "agreed", "neutral", ""), bars("corrected", "corrected", "refutes", "/")], days.map(({ day }) => day)),
    columns: [{ title: "day", of: ({ day }) => day }, ...columns.map((key) => ({ title: key, of: (row) => row[key], show: count, number: true }))],
    rows: days, height: 300, empty: "Nobody has reviewed anything yet.",
  });
}

const figures = (name, value, text) => section(name, h("p", { class: "big" }, value), h("p", { class: "soft" }, text));

function agreement(of) {
  if (!of?.n) return figures("Agreement", "–", "No pair was judged by two people yet.");
  const interval = of.low === null ? "" : ` (${figure(of.low, 2)} to ${figure(of.high, 2)})`;
  const kappa = of.kappa === null ? "" : `; Cohen's kappa ${figure(of.kappa, 2)}${interval}`;
  return figures("Agreement", percent(of.observed, 0), `of ${plural(of.n, "blind second look")}${kappa}`);
}

function queue(of) {
  if (!of) return figures("Queue", "–", "Not known: see above.");
  return figures("Queue", count(of.waiting), `wait, ${count(of.on_screens)} on a screen; ${count(of.suspects)} suspect labels, ${count(of.disagree)} disagreed on`);
}

const reviewers = (rows) =>
  table("Reviewers", [
    { title: "name", of: ({ reviewer }) => reviewer || "no name" },
    { title: "reviewed", of: ({ reviewed }) => reviewed, show: count, number: true },
    { title: "corrected", of: ({ corrected }) => corrected, show: (n, { reviewed }) => `${count(n)} (${percent(n / reviewed, 0)})`, number: true },
    { title: "last", of: ({ last }) => last, show: time },
  ], rows, { empty: "Nobody yet." });

const suspects = (rows) =>
  table("Labels that a training or a second look found hard to believe", [
    { title: "pair", of: ({ edge_id }) => edge_id, show: (_, row) => pairText(row) },
    { title: "label", of: ({ label }) => label },
    { title: "score", of: ({ score }) => score, show: (score) => figure(score, 2), number: true },
    { title: "found by", of: ({ source }) => source, show: (source, { detail }) => (detail?.version ? `${source} ${short(detail.version)}` : source) },
  ], rows, { empty: "None: no training has doubted a label." });
