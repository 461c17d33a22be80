// Making elements. Texts are only ever set as text: nothing is read as HTML.

export const $ = (id) => document.getElementById(id);

/** An element: `h("a", {href: "#"}, "text", child)`. Nothing, null and false are left out. */
export const h = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);

/** The same within an SVG picture. */
export const svg = (name, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return element;
}

/** A sentence of the server's, in which `backquotes` mark a command. */
export const sentence = (text) =>
  text.split("`").map((part, number) => (number % 2 ? h("code", null, part) : part));

/** A part of a page under a heading of its own. */
export const section = (title, ...children) =>
  h("section", { class: "card" }, h("h2", null, title), children);

let fading;

/** Say in passing what was done. */
export function say(words) {
  const toast = $("status");
  toast.textContent = words;
  toast.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("shown"), Math.max(3500, 60 * words.length));
}
