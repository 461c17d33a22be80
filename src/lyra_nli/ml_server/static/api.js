// The server, as this page sees it.

import { Refusal, call, post as send } from "./http.js";

export { Refusal };

const post = (path, body, key) => send(path, body, key && { "Idempotency-Key": key });

/** A key that is new for every intended write: sent again with it, a write is done once. */
export const newKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

const today = () => {
  const start = new Date();
  start.setHours(0, 0, 0, 0);
  return start.toISOString();
};

/** The next edge; null when nothing is left. `skip`: ids that are not wanted. */
export async function next(order, reviewer, skip) {
  const query = new URLSearchParams({ order, reviewer });
  skip.forEach((id) => query.append("skip", id));
  return (await call(`feedback/next?${query}`)).item;
}

/** What the served model says now: label, confidence, probabilities, adapter. */
export async function judge({ edge_id, premise, hypothesis }) {
  const pairs = [{ pair_id: edge_id.slice(0, 512), premise, hypothesis }];
  return (await post("nli", { pairs })).results[0];
}

export const correct = (args, key) => post("feedback", { action: "edge_correct", ...args }, key);
/** Say something about a claim or a domain: any of the actions that take no `reviewer`. */
export const act = (body, reviewer, key) => post(`feedback?${new URLSearchParams({ reviewer })}`, body, key);
/** What the domain rules say about the site of a page. */
export const site = async (url) => (await call(`feedback/site?${new URLSearchParams({ url })}`)).site;
export const second = (args, key) => post("feedback/second", args, key);
// A review is undone once: sent again, it is the same undo.
export const undo = (review_id, reviewer) =>
  post("feedback/undo", { review_id, reviewer }, `undo-${review_id}`);
export const progress = (reviewer) =>
  call(`feedback/progress?${new URLSearchParams({ reviewer, day_start: today() })}`);

/** Give an edge back. Works also while the page closes. */
export const release = (lease) =>
  fetch("feedback/release", {
    method: "POST",
    keepalive: true,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ lease }),
  }).catch(() => undefined);
