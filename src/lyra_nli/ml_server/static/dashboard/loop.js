// The loop as a picture: seven stations on a track, each with its figure of today.

import { h, svg } from "./dom.js";
import { percent, version } from "./format.js";

const WORDS = { ok: "", wait: "waiting", due: "due", warn: "look at this", missing: "not known" };
const BREAK = 760; // below this width the stations stand under each other

/** The picture; it is laid out anew when its width changes. `linkTo` gives a page's address. */
export function loopPicture(stations, rate, linkTo) {
  const place = h("div", { class: "loop" });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.round(contentRect.width) === width || !contentRect.width) return;
    width = Math.round(contentRect.width);
    place.replaceChildren(width < BREAK ? column(width, stations, linkTo) : ring(width, stations, rate, linkTo));
  }).observe(place);
  return place;
}

function picture(width, height, ...children) {
  const about = "The loop: answers are reviewed, corrections make a training due, the gate lets a version serve, and the watch looks after it";
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": about }, children);
}

/** Four stations above, three below; the track runs through all of them. */
function ring(width, stations, rate, linkTo) {
  const [w, tall, edge] = [Math.min(208, width / 4 - 36), 104, 2];
  const [top, bottom] = [edge, 246];
  const gap = (width - 2 * edge - 4 * w) / 3;
  const places = stations.map((_, n) =>
    n < 4 ? [edge + n * (w + gap), top] : [edge + (6.5 - n) * (w + gap), bottom]);
  const [left, right] = [edge + w / 2, width - edge - w / 2];
  const [up, down] = [top + tall / 2, bottom + tall / 2];
  const first = places[6][0];
  const last = places[4][0] + w;
  const track = `M${left} ${up} H${right} C${right} ${down - 40} ${right} ${down} ${last} ${down} H${first} C${left} ${down} ${left} ${down - 40} ${left} ${up}`;
  return picture(width, bottom + tall + edge, svg("path", { class: "track", d: track }),
    ...[0, 1, 2].map((n) => arrow(edge + (n + 1) * w + (n + 0.55) * gap, up, 0)),
    ...[0, 1].map((n) => arrow(places[5 + n][0] + w + 0.45 * gap, down, 180)),
    arrow(right, (top + tall + bottom) / 2 + 2, 90), arrow(left, (top + tall + bottom) / 2 + 2, -90),
    middle(width / 2, (top + tall + bottom) / 2, rate),
    ...stations.map((station, n) => card(station, ...places[n], w, tall, linkTo)));
}

/** One under the other, with the way back on the left. */
function column(width, stations, linkTo) {
  const [tall, gap, inset] = [76, 16, 22];
  const end = stations.length * (tall + gap) - gap;
  const track = `M${inset} ${tall / 2} H14 Q2 ${tall / 2} 2 ${tall / 2 + 12} V${end - tall / 2 - 12} Q2 ${end - tall / 2} 14 ${end - tall / 2} H${inset}`;
  return picture(width, end + 2, svg("path", { class: "track", d: track }), arrow(2, end / 2, -90),
    svg("path", { class: "track", d: `M${width / 2} 10 V${end - 10}` }),
    ...stations.map((station, n) => card(station, inset, n * (tall + gap) + 1, width - inset - 1, tall, linkTo)));
}

const arrow = (x, y, turn) =>
  svg("path", { class: "arrow", d: "M-5 -5 L4 0 L-5 5", transform: `translate(${x} ${y}) rotate(${turn})` });

function card({ id, title, figure, text, state, page }, x, y, w, tall, linkTo) {
  const words = WORDS[state];
  const low = tall < 90;
  const label = `${title}: ${figure} ${text}${words && `, ${words}`}`;
  const lines = low ? [clipped(text, w / 7 - 14)] : wrapped(text, w / 7.1 - 3);
  return svg("a", { href: linkTo(page), class: "station", "data-station": id, "data-state": state, "aria-label": label },
    svg("rect", { x, y, width: w, height: tall, rx: 15 }),
    svg("text", { class: "title", x: x + 16, y: y + 25 }, title),
    mark(state, x + w - 22, y + 20),
    words && svg("text", { class: "state", x: x + w - 36, y: y + 24.5, "text-anchor": "end" }, words),
    svg("text", { class: "figure", x: x + 16, y: y + (low ? 56 : 58) }, figure),
    low
      ? svg("text", { class: "text", x: x + w - 16, y: y + 55, "text-anchor": "end" }, lines)
      : lines.map((line, n) => svg("text", { class: "text", x: x + 16, y: y + 77 + 15 * n }, line)));
}

/** A shape for each state, so that none is told by its colour alone. */
function mark(state, x, y) {
  const shapes = {
    ok: ["circle", { cx: x, cy: y, r: 5 }],
    wait: ["circle", { cx: x, cy: y, r: 4.5, class: "open" }],
    due: ["path", { d: `M${x} ${y - 6.5} l6.5 6.5 -6.5 6.5 -6.5 -6.5z` }],
    warn: ["path", { d: `M${x} ${y - 6.5} l7 12.5 h-14z` }],
    missing: ["path", { d: `M${x - 5} ${y} h10`, class: "open" }],
  };
  const [name, { class: more = "", ...where }] = shapes[state] ?? shapes.missing;
  return svg(name, { ...where, class: `mark ${more}` });
}

/** In the middle: what the loop is for. */
function middle(x, y, { now, version: name, before, before_version }) {
  const interval = now.value === null ? "no random review yet" : `${percent(now.low)} to ${percent(now.high)}, of ${now.n.toLocaleString("en")} random reviews`;
  const earlier = before?.value != null ? `; before, with ${version(before_version)}, ${percent(before.value)}` : "";
  return svg("g", { class: "middle", "text-anchor": "middle" },
    svg("text", { class: "big", x, y: y + 4 }, percent(now.value)),
    svg("text", { class: "title", x, y: y + 27 }, `of what ${version(name)} says is corrected`),
    svg("text", { class: "text", x, y: y + 47 }, interval + earlier));
}

const clipped = (text, letters) => (text.length > letters ? `${text.slice(0, Math.max(3, letters - 1)).trimEnd()}…` : text);

function wrapped(text, letters) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (`${lines.at(-1)} ${word}`.length > letters && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = `${lines.at(-1)} ${word}`.trim();
  }
  return lines.length > 2 ? [lines[0], clipped(lines.slice(1).join(" "), letters)] : lines;
}
