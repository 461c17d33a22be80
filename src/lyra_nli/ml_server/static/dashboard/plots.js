// The kinds of charts, as plotly's traces and layouts.

import { axis, escaped } from "./charts.js";
import { percent, short } from "./format.js";

const DAY = 86_400_000;
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];

/** Proportions over weeks, one line a version, and a mark where another version began to serve. */
export const overWeeks = (rows, estimate, activations, { asPercent = true } = {}) => ({ line, ink, card, soft, series }) => {
  const versions = [...new Set(rows.map((row) => row.version))];
  const tick = asPercent ? { tickformat: ".0%" } : {};
  return {
    data: versions.map((name, number) => {
      const own = rows.filter((row) => row.version === name && estimate(row).value !== null);
      const colour = series[number % series.length];
      const all = own.map(estimate);
      return {
        type: "scatter", mode: "lines+markers", cliponaxis: false, name: escaped(short(name)),
        // In the middle of the week, and half a day apart where versions share one.
        x: own.map((row) => new Date(Date.parse(row.start) + (3 + number / 2) * DAY).toISOString()),
        y: all.map(({ value }) => value),
        text: own.map((row) => `${row.week}: ${asPercent ? percent(estimate(row).value) : estimate(row).value.toFixed(3)}, of ${estimate(row).n}`),
        hovertemplate: "%{text}",
        line: { color: colour, width: 2 },
        marker: { size: 8, symbol: SYMBOLS[number % SYMBOLS.length], color: all.map(({ few }) => (few ? card : colour)), line: { color: colour, width: 1.6 } },
        error_y: bars(all, colour),
      };
    }),
    layout: {
      showlegend: true,
      xaxis: axis(line, { type: "date", showgrid: false }),
      yaxis: axis(line, { rangemode: "tozero", ...tick }),
      shapes: activations.map(({ at }) => ({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: soft, width: 1, dash: "dot" } })),
      annotations: activations.map(({ at, to_version }, number) => ({
        x: at, yref: "paper", y: 1, yanchor: "top", yshift: -14 * (number % 3), xanchor: "left", xshift: 3, showarrow: false,
        text: `→ ${escaped(short(to_version))}`, font: { size: 11, color: ink },
      })),
      margin: { l: 54, r: 24, t: 34, b: 40 },
    },
  };
};

function bars(estimates, colour) {
  return {
    type: "data", symmetric: false, color: colour, thickness: 1.2, width: 3,
    array: estimates.map(({ value, high }) => (high ?? value) - value),
    arrayminus: estimates.map(({ value, low }) => value - (low ?? value)),
  };
}

/** A point and its interval for each name, from top to bottom; one colour for each of `groups`. */
export const asIntervals = (groups) => ({ line, card, series }) => ({
  data: groups.map(({ name, points }, number) => {
    const colour = series[number];
    const all = points.map(({ estimate }) => estimate);
    const { array, arrayminus, ...look } = bars(all, colour);
    return {
      type: "scatter", mode: "markers", orientation: "h", name: escaped(name),
      x: all.map(({ value }) => value),
      y: points.map((point) => escaped(point.name)),
      text: all.map(({ value, n }) => `${percent(value)}, of ${n}`),
      hovertemplate: "%{y}: %{text}",
      marker: { size: 10, symbol: SYMBOLS[number], color: all.map(({ few }) => (few ? card : colour)), line: { color: colour, width: 1.8 } },
      error_x: { ...look, array, arrayminus },
    };
  }),
  layout: {
    showlegend: groups.length > 1,
    xaxis: axis(line, { tickformat: ".0%", rangemode: "tozero", zeroline: false }),
    yaxis: axis(line, { range: [groups[0].points.length - 0.5, -0.5], type: "category", showgrid: false, ticksuffix: "  " }),
    margin: { l: 20, r: 20, t: groups.length > 1 ? 34 : 10, b: 40 },
    scattermode: "group", scattergap: 0.4,
  },
});

/** A matrix of counts; its shades are shares of its rows. */
export const asMatrix = (matrix, labels, { rows, columns }) => ({ line, card, ink, accent }) => {
  const totals = matrix.map((row) => row.reduce((sum, n) => sum + n, 0));
  const shares = matrix.map((row, i) => row.map((n) => (totals[i] ? n / totals[i] : 0)));
  return {
    data: [{
      type: "heatmap", x: labels, y: labels, z: shares, customdata: matrix, zmin: 0, zmax: 1, xgap: 3, ygap: 3,
      colorscale: [[0, mix(card, accent, 0.05)], [1, mix(card, accent, 0.75)]], showscale: false,
      hovertemplate: `${rows} %{y}, ${columns} %{x}: %{customdata} (%{z:.1%})<extra></extra>`,
    }],
    layout: {
      xaxis: axis(line, { title: { text: columns }, side: "top", showgrid: false, ticks: "" }),
      yaxis: axis(line, { title: { text: rows }, autorange: "reversed", showgrid: false, ticks: "" }),
      annotations: matrix.flatMap((row, i) => row.map((n, j) => ({
        x: labels[j], y: labels[i], showarrow: false, font: { size: 15, color: shares[i][j] > 0.55 ? contrast(mix(card, accent, 0.75 * shares[i][j])) : ink },
        text: `<b>${n.toLocaleString("en")}</b><br>${percent(shares[i][j], 0)}`,
      }))),
      margin: { l: 20, r: 10, t: 60, b: 10 },
    },
  };
};

const channels = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
const mix = (one, other, part) => {
  const [a, b] = [channels(one), channels(other)];
  return `rgb(${a.map((channel, i) => Math.round(channel + part * (b[i] - channel))).join(",")})`;
};
const contrast = (colour) => {
  const [r, g, b] = channels(colour);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14161a" : "#ffffff";
};

/** How often a confidence was right, bin by bin, over how many judgements each bin holds. */
export const asReliability = (bins) => ({ line, soft, card, accent }) => {
  const held = bins.filter(({ n }) => n > 0);
  const lowest = Math.min(0.3, ...held.map(({ low }) => low)); // of three labels, the likeliest has a third
  const estimates = held.map(({ accuracy, accuracy_low, accuracy_high }) => ({ value: accuracy, low: accuracy_low, high: accuracy_high }));
  return {
    data: [
      { type: "scatter", mode: "lines", name: "as it should be", x: [lowest, 1], y: [lowest, 1], line: { color: soft, width: 1.4, dash: "dash" }, hoverinfo: "skip" },
      {
        type: "scatter", mode: "lines+markers", cliponaxis: false, name: "was right", x: held.map(({ confidence }) => confidence), y: held.map(({ accuracy }) => accuracy),
        text: held.map(({ confidence, accuracy, n }) => `said ${percent(confidence)}, right ${percent(accuracy)}, of ${n}`), hovertemplate: "%{text}<extra></extra>",
        line: { color: accent, width: 2 }, marker: { size: 9, color: held.map(({ n }) => (n < 30 ? card : accent)), line: { color: accent, width: 1.6 } },
        error_y: bars(estimates, accent),
      },
      {
        type: "bar", name: "judgements", yaxis: "y2", x: bins.map(({ low, high }) => (low + high) / 2), y: bins.map(({ n }) => n), width: bins.map(({ low, high }) => 0.9 * (high - low)),
        marker: { color: soft, opacity: 0.45 }, hovertemplate: "%{y} judgements<extra></extra>",
      },
    ],
    layout: {
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(line, { title: { text: "confidence" }, range: [lowest - 0.02, 1.02], tickformat: ".0%", anchor: "y2" }),
      yaxis: axis(line, { domain: [0.3, 1], range: [0, 1.04], tickformat: ".0%", title: { text: "was right" } }),
      yaxis2: axis(line, { domain: [0, 0.2], title: { text: "count" }, nticks: 3 }),
    },
  };
};

/** Bars on top of each other; each part has a pattern of its own beside its colour. */
export const asStack = (parts, x, { asShare = false } = {}) => (theme) => ({
  data: parts.map(({ name, colour, y, pattern = "" }) => ({
    type: "bar", name, x, y, marker: { color: theme[colour], pattern: { shape: pattern, bgcolor: theme[colour], fgcolor: theme.card, size: 7, solidity: 0.18 } },
    hovertemplate: `%{x}: %{y:,} ${name}<extra></extra>`,
  })),
  layout: {
    barmode: "stack", ...(asShare && { barnorm: "percent" }), bargap: 0.15, showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
    xaxis: axis(theme.line, { type: "date", showgrid: false }),
    yaxis: axis(theme.line, asShare ? { ticksuffix: "%" } : { rangemode: "tozero" }),
  },
});
