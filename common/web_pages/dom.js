// Elements are made here and nowhere from markup: what users and models wrote is only ever text.

/** A new element. `attributes`: "class", "aria-…" and so on; functions under "on…" are listeners. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, String(value));
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

/** A, B, C … for places on the page. */
export function letter(place) {
  return String.fromCharCode(65 + place);
}

/** 1st, 2nd, 3rd, 4th … */
export function ordinal(number) {
  const teen = number % 100 > 10 && number % 100 < 14;
  return number + (teen ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th"));
}

/** Text with what would be unseen, or would turn its surroundings about, made visible. */
export function visible(text) {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) =>
      `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
    );
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

export function dayAndClock(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const day = date.toLocaleDateString([], { day: "numeric", month: "short" });
  return today ? clock(seconds) : `${day}, ${clock(seconds)}`;
}
