// What the server knows. Addresses are taken from this file's own, wherever it is mounted.

import { call, post } from "../http.js";

/** Where the dashboard's pages lie. */
export const ROOT = new URL("../../", import.meta.url);
/** The review page. */
export const REVIEW = new URL("../review", ROOT).href;

const address = (path, query) => {
  const url = new URL(`api/${path}`, ROOT);
  url.search = new URLSearchParams(query);
  return url;
};

/** The gate's report on a version, as a page of its own. */
export const reportPage = (name, base) => address(`versions/${encodeURIComponent(name)}/report.html`, { base }).href;

export const get = (path, query = {}) => call(address(path, query));

/** Do something that needs the admin token: `activate`, `rollback` or `train`. */
export const act = (action, body, token) =>
  post(address(action), body, { Authorization: `Bearer ${token}` });
