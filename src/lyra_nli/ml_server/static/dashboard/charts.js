// Charts: plotly draws them once the page stands; each has a table, a PNG and a CSV file.

import { h, say } from "./dom.js";
import { csv, table } from "./tables.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };
const drawn = new Map(); // place -> a function that draws it, for the page on the screen
let loading;

/**
 * A chart with its heading and its table.
 *
 * `plot(theme)` gives {data, layout}; `summary` is what the chart shows, in a sentence.
 * `columns` and `rows` are those of its table. Without rows there is `empty` in its place.
 */
export function chart({ title, summary, plot, columns, rows, height = 300, empty, controls }) {
  const heading = h("div", { class: "heading" }, h("h2", null, title), controls);
  if (!rows.length) return h("figure", { class: "card chart" }, heading, h("p", { class: "empty" }, empty));
  const place = h("div", { class: "plot", role: "img", "aria-label": summary });
  place.style.height = `${height}px`;
  const details = h("details", null,
    h("summary", null, "Table"), table(title, columns, rows));
  const image = h("button", { type: "button", class: "plain small", onclick: () => saveImage(title, plot, height) }, "PNG");
  const file = h("button", { type: "button", class: "plain small", onclick: () => saveTable(title, columns, rows) }, "CSV");
  image.ariaLabel = `Save “${title}” as PNG`;
  file.ariaLabel = `Save “${title}” as CSV`;
  drawn.set(place, () => draw(place, plot, details));
  return h("figure", { class: "card chart" }, heading,
    h("figcaption", null, summary), place, h("div", { class: "under" }, details, h("div", { class: "save" }, image, file)));
}

/** Draw what the page has; called when it stands. */
export async function drawCharts() {
  for (const [place, run] of drawn) {
    if (!place.dataset.drawn && (await library()) !== undefined && place.isConnected) await run();
  }
}

/** Let go of the charts of a page that is left. */
export function forgetCharts() {
  for (const place of drawn.keys()) window.Plotly?.purge(place);
  drawn.clear();
}

/** Draw all anew, in the colours of now. */
const redraw = () => drawn.forEach((run) => run());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });

async function draw(place, plot, details) {
  const plotly = await library();
  place.dataset.drawn = plotly ? "yes" : "no";
  if (plotly) return plotly.react(place, ...figureOf(plot), CONFIG);
  details.open = true;
  place.style.height = "";
  place.replaceChildren("The charts need the Python package plotly beside this server: ",
    h("code", null, "pip install plotly"), ". The table has the same figures.");
}

function figureOf(plot) {
  const theme = colours();
  const { data, layout } = plot(theme);
  return [data, { ...frame(theme), ...layout }];
}

/** Plotly, or null where it is not installed. Not before the page has been painted. */
function library() {
  loading ??= painted()
    .then(() => import("../plotly.min.js"))
    .then(() => window.Plotly, () => null);
  return loading;
}

const painted = () => new Promise((then) => requestAnimationFrame(() => setTimeout(then)));

// Plotly's one way to read HTML is decoding entities when it saves an image. So much is allowed.
window.trustedTypes?.createPolicy("default", {
  createHTML: (text) => (/^(&#?\w+;)?$/.test(text) ? text : null),
});

async function saveImage(title, plot, height) {
  const plotly = await library();
  if (!plotly) return say("Without the Python package plotly there is no picture.");
  const [data, layout] = figureOf(plot);
  const margin = { ...layout.margin, t: (layout.margin.t ?? 0) + 44 };
  const titled = { ...layout, margin, title: { text: escaped(title), x: 0.02, y: 0.97, yanchor: "top", font: { size: 16 } } };
  save(title, "png", await plotly.toImage({ data, layout: titled }, { format: "png", width: 1000, height: height + 44, scale: 2 }));
}

function saveTable(title, columns, rows) {
  const url = URL.createObjectURL(new Blob(["\ufeff", csv(columns, rows)], { type: "text/csv" }));
  save(title, "csv", url);
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function save(title, kind, href) {
  const name = title.toLowerCase().replace(/\W+/g, "-");
  h("a", { href, download: `lyra-nli-${name}.${kind}` }).click();
  say(`lyra-nli-${name}.${kind} saved.`);
}

/** A text for plotly, which reads a few HTML tags in labels: here none means anything. */
export const escaped = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// --- colours --------------------------------------------------------------------------------

/** The colours of now, as the browser resolved them. */
function colours() {
  const probe = document.body.appendChild(h("i", { hidden: "" }));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["ink", "soft", "line", "card", "accent", "supports", "refutes", "neutral"];
  const theme = Object.fromEntries(names.map((name) => [name, colour(name)]));
  theme.series = [1, 2, 3, 4, 5, 6].map((number) => colour(`series-${number}`));
  theme.sans = getComputedStyle(document.body).fontFamily;
  probe.remove();
  return theme;
}

/** What all charts have in common. */
const frame = ({ ink, soft, line, card, sans }) => ({
  font: { family: sans, size: 13, color: soft },
  paper_bgcolor: card,
  plot_bgcolor: card,
  margin: { l: 54, r: 16, t: 34, b: 40 },
  dragmode: false,
  hovermode: "closest",
  hoverlabel: { bgcolor: ink, bordercolor: ink, font: { family: sans, size: 13, color: card } },
  legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: ink }, itemclick: false, itemdoubleclick: false },
  xaxis: axis(line),
  yaxis: axis(line),
});

/** An axis without frills. */
export const axis = (line, { title, ...more } = {}) => ({
  gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, fixedrange: true, automargin: true,
  ...(title && { title: { font: { size: 13 }, standoff: 10, ...title } }), ...more,
});
