// The lineage of the versions as a picture: who was trained when whom served.

import { h, svg } from "./dom.js";
import { short } from "./format.js";

const [STEP, LANE, INSET] = [92, 64, 36];
const SIGNS = { passed: "passed", rejected: "did not pass", unproven: "not proven", removed: "removed" };

/** One column a version, in the order of time; what led to the version that serves is the first lane. */
export function lineage(versions, chosen, linkTo) {
  const places = laid(versions);
  const width = INSET * 2 + STEP * versions.length;
  const lanes = 1 + Math.max(...Object.values(places).map(([, lane]) => lane));
  const at = (name) => {
    const [column, lane] = places[name] ?? places.base;
    return [INSET + STEP * column, 30 + LANE * lane];
  };
  const height = 30 + LANE * (lanes - 1) + 48;
  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "The lineage of the versions" },
    versions.map(({ name, parent }) => svg("path", { class: "track", d: curve(at(parent ?? "base"), at(name)) })),
    station({ name: "base", aliases: [], status: "passed" }, at("base"), false),
    versions.map((each) => svg("a", { href: linkTo("versions", { version: each.name }), "aria-label": `${each.name}, ${[SIGNS[each.status], ...each.aliases].join(", ")}`, "aria-current": each.name === chosen && "true" },
      station(each, at(each.name), each.name === chosen))));
  const place = h("div", { class: "scroll lineage", tabindex: "0", role: "region", "aria-label": "Lineage" }, picture);
  requestAnimationFrame(() => (place.scrollLeft = place.scrollWidth)); // the newest are on the right
  return place;
}

function laid(versions) {
  const places = { base: [0, 0] };
  const ends = [Infinity]; // lane -> its last column; the first is kept for what led here
  const line = ancestry(versions);
  versions.forEach(({ name, parent }, number) => {
    const [from] = places[parent ?? "base"] ?? places.base;
    let lane = line.has(name) ? 0 : ends.findIndex((end) => end <= from);
    if (lane < 0) lane = ends.length;
    if (lane) ends[lane] = number + 1;
    places[name] = [number + 1, lane];
  });
  return places;
}

/** The version that serves (or else the last one), its parent, and so on. */
function ancestry(versions) {
  const byName = new Map(versions.map((each) => [each.name, each]));
  const line = new Set();
  let each = versions.find(({ aliases }) => aliases.includes("active")) ?? versions.at(-1);
  while (each && !line.has(each.name)) {
    line.add(each.name);
    each = byName.get(each.parent);
  }
  return line;
}

function curve([x, y], [to, down]) {
  if (y === down) return `M${x} ${y} H${to}`;
  const turn = to - STEP / 2;
  return `M${x} ${y} H${Math.max(x, turn - 26)} C${turn} ${y} ${turn - 10} ${down} ${to} ${down}`;
}

function station({ name, status, aliases }, [x, y], chosen) {
  const alias = aliases[0];
  return svg("g", { class: "version", "data-status": status, "data-alias": alias, "data-chosen": chosen },
    svg("circle", { class: "halo", cx: x, cy: y, r: 16 }),
    svg("circle", { class: "dot", cx: x, cy: y, r: 9 }),
    status === "rejected" && svg("path", { class: "cross", d: `M${x - 4} ${y - 4} l8 8 m0 -8 l-8 8` }),
    svg("text", { x, y: y + 29, "text-anchor": "middle" }, short(name)),
    alias && svg("text", { class: "alias", x, y: y + 43, "text-anchor": "middle" }, alias));
}
