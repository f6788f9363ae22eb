// Makes and finds elements; text is always text, never markup.

export const find = (id) => document.getElementById(id);

/** An element: make("a", { href: "#/", class: "x" }, "text", child, ...). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A bar filled to a share from 0 to 1; decoration beside a number that says the same. */
export function bar(share) {
  const fill = make("span", { class: "fill" });
  fill.style.width = `${Math.round(100 * share)}%`;
  return make("span", { class: "share", "aria-hidden": "true" }, fill);
}

export function later(wait, action) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), wait);
  };
}
