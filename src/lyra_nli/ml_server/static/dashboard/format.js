// Figures in words: one way to write each kind.

export const NONE = "–";
export const LABELS = ["supports", "refutes", "neutral"];

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const whole = new Intl.NumberFormat("en");

export const count = (n) => (known(n) ? whole.format(n) : NONE);
export const figure = (value, digits = 3) => (known(value) ? value.toFixed(digits) : NONE);
export const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)}%` : NONE);
export const signed = (value) =>
  known(value) ? `${value < 0 ? "−" : "+"}${(100 * Math.abs(value)).toFixed(1)} points` : NONE;

/** 12.0% (10.0 to 14.1) */
export const share = ({ value, low, high }) =>
  known(value) ? `${percent(value)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})` : NONE;

/** 0.034 (0.020 to 0.050) */
export const interval = (estimate) => {
  if (!known(estimate?.value)) return NONE;
  const { value, low, high } = estimate;
  return known(low) && known(high) ? `${figure(value)} (${figure(low)} to ${figure(high)})` : figure(value);
};

/** What a version is called in a narrow place: v3. */
export const short = (name) => (name ?? "base").replace(/^lora-lyra-/, "");
/** What a version is called in a sentence. */
export const version = (name) =>
  name === "base" || !name ? "the base model" : name === "unknown" ? "an unknown version" : name;

const DAY = { year: "numeric", month: "short", day: "numeric" };
const dated = (at, options) => {
  const time = new Date(at ?? "");
  // Not to be broken in a narrow column.
  return Number.isNaN(time.getTime()) ? NONE : time.toLocaleString("en-GB", options).replaceAll(" ", "\u00a0");
};

export const day = (at) => dated(at, { ...DAY, timeZone: "UTC" });
export const time = (at) => dated(at, { ...DAY, hour: "2-digit", minute: "2-digit" });
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
/** With a capital, unless it is the name of a version. */
export const capital = (words) =>
  words.startsWith("lora-") ? words : words.charAt(0).toUpperCase() + words.slice(1);
