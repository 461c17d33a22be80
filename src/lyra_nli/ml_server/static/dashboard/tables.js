// Tables: what a screen reader reads instead of a chart, and what goes into a CSV file.

import { h } from "./dom.js";

/**
 * A table. `columns`: {title, of: row => value, show: value => text, number, wide}; what `of`
 * gives goes into the CSV file as it is, what `show` makes of it is on the screen.
 */
export function table(caption, columns, rows, { empty = "Nothing yet." } = {}) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const head = columns.map(({ title, number }) =>
    h("th", { scope: "col", class: number && "number" }, title));
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", null,
      h("caption", null, caption),
      h("thead", null, h("tr", null, head)),
      h("tbody", null, rows.map((row) => h("tr", null, columns.map((column, n) => cell(column, row, n)))))));
}

function cell({ of, show = (value) => value ?? "–", number, wide }, row, position) {
  const attributes = { class: (number && "number") || (wide && "wide"), scope: position === 0 && "row" };
  const shown = show(of(row), row);
  return h(position === 0 ? "th" : "td", attributes, typeof shown === "number" ? String(shown) : shown);
}

/** The rows as CSV: quoted where needed, and nothing that a spreadsheet would run as a formula. */
export function csv(columns, rows) {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ of }) => of(row)))];
  return lines.map((line) => line.map(field).join(",") + "\r\n").join("");
}

function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Columns for a proportion: its value, its interval, and of how many. */
export const shareColumns = (title, of, format) => [
  { title, of: (row) => of(row)?.value, show: format, number: true },
  { title: "95% low", of: (row) => of(row)?.low, show: format, number: true },
  { title: "95% high", of: (row) => of(row)?.high, show: format, number: true },
  { title: "of", of: (row) => of(row)?.n ?? 0, show: (n, row) => [n.toLocaleString("en"), of(row)?.few ? few() : ""], number: true },
];

/** A mark beside a figure that rests on little. */
export const few = () => h("span", { class: "few", title: "fewer than 30: too few to rely on" }, "few");
