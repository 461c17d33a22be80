// Two versions side by side.

import { h, section } from "../dom.js";
import { NONE, count, figure, share, short } from "../format.js";
import { choice } from "../parts.js";
import { table } from "../tables.js";

/** The choice of two, and what the server says of them if both are chosen. */
export function comparing(versions, compared, { query, again }) {
  const names = versions.filter(({ status }) => status !== "removed").map(({ name }) => name);
  if (!names.length) return false;
  const options = [["", "choose"], ["base", "base"], ...names.map((name) => [name, short(name)])];
  const pick = (key, label) => choice(label, options, compared?.[key].name ?? query[key] ?? "", (name) => again({ [key]: name }));
  return section("Compare two", h("p", { class: "row" }, pick("one", "One"), pick("other", "The other")), compared ? result(compared) : h("p", { class: "empty" }, "Choose two versions."));
}

const known = (of) => (of?.n ? `${share(of)}, of ${count(of.n)}` : NONE);

function result({ one, other, populations, live, rows, settings }) {
  const names = [short(one.name), short(other.name)];
  const measures = populations.flatMap((each) => [
    { name: `${each.name}: accuracy`, of: (side) => known(each[side]?.accuracy) },
    ...["brier", "nll", "ece"].map((key) => ({ name: `${each.name}: ${key}`, of: (side) => figure(each[side]?.[key]) })),
  ]);
  if (live) measures.push({ name: "corrected in use", of: (side) => known(live[side]) });
  return [
    table("Figures of both", [
      { title: "measure", of: ({ name }) => name },
      { title: names[0], of: ({ of }) => of("one"), number: true },
      { title: names[1], of: ({ of }) => of("other"), number: true },
    ], measures, { empty: "The gate kept no figures of these two." }),
    live?.difference?.text && h("p", null, live.difference.text),
    rows && h("p", null, `Learned from: ${count(rows.both)} rows both, ${count(rows.only_one)} only ${names[0]}, ${count(rows.only_other)} only ${names[1]}.`),
    table("Settings that differ", [
      { title: "setting", of: ({ key }) => key },
      { title: names[0], of: (row) => JSON.stringify(row.one) },
      { title: names[1], of: (row) => JSON.stringify(row.other) },
    ], settings, { empty: "They were trained with the same settings." }),
  ];
}
