// The eight criteria of one response, 0 to 2 each, with their definitions at hand.
import { el, letter } from "./dom.js";

const POINTS = [
  [0, "poor"],
  [1, "fair"],
  [2, "good"],
];

/**
 * @param points {criterion: points}, changed in place
 * @param criteria [{name, definition}]
 * @param ask_ratings whether they are wanted; else they are optional, and the box is closed
 */
export function ratings(response, points, { criteria, ask_ratings: asked }, changed) {
  const count = el("span", { class: "muted" });
  const recount = () => {
    const rated = Object.keys(points).length;
    count.textContent = rated || asked ? `${rated} of ${criteria.length} rated` : "optional";
  };
  const table = el("div", { class: "criteria" });
  const fill = () => {
    if (table.firstChild) return; // forty groups of buttons are made only where they are wanted
    table.append(...criteria.map((criterion) => group(response, criterion, points, () => {
      recount();
      changed();
    })));
  };
  recount();
  const summary = el("summary", {}, "Rate on eight criteria ", count);
  const box = el("details", { class: "ratings", ontoggle: fill }, summary, table);
  if (asked) {
    fill();
    box.open = true;
  }
  return box;
}

function group(response, { name, definition }, points, changed) {
  const id = `rating-${response}-${name}`;
  const set = el("fieldset", { "aria-describedby": `${id}-definition` });
  const choices = POINTS.map(([value, word]) => {
    const input = el("input", { type: "radio", name: id, value, id: `${id}-${value}` });
    input.checked = points[name] === value;
    input.addEventListener("change", () => {
      points[name] = value;
      showClear();
      changed();
    });
    return el("label", { for: `${id}-${value}`, title: word }, input,
      el("span", {}, String(value), el("span", { class: "unseen" }, ` ${word}`)));
  });
  const clear = el("button", { type: "button", class: "clear", "aria-label": `Clear ${name}` }, "×");
  // It keeps its room, so that nothing moves under the pointer.
  const showClear = () => {
    clear.style.visibility = points[name] === undefined ? "hidden" : "visible";
  };
  showClear();
  clear.addEventListener("click", () => {
    delete points[name];
    for (const input of set.querySelectorAll("input")) input.checked = false;
    set.querySelector("input").focus();
    showClear();
    changed();
  });
  set.append(
    el("legend", {}, name, el("span", { class: "unseen" }, ` of response ${letter(response)}`)),
    el("div", { class: "points" }, choices, clear),
    el("p", { id: `${id}-definition` }, definition),
  );
  return set;
}
