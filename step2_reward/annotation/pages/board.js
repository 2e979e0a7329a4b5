// The ranking as tiles: by click, by drag (pointer events: mouse, pen and finger), by keyboard.
import { el, letter, ordinal } from "./dom.js";

const FAR = 5; // pixels that a pointer moves before it is a drag

export class Board {
  /**
   * @param root element that takes the tiles
   * @param say called with a sentence after each change, for screen readers
   * @param changed called after each change
   */
  constructor(root, { say, changed }) {
    this.root = root;
    this.say = say;
    this.changed = changed;
    this.drag = null;
    root.addEventListener("keydown", (event) => this.onKey(event));
    root.addEventListener("pointerdown", (event) => this.onPointerDown(event));
    root.addEventListener("pointermove", (event) => this.onPointerMove(event));
    root.addEventListener("pointerup", (event) => this.onPointerUp(event));
    root.addEventListener("pointercancel", () => this.endDrag());
    root.addEventListener("click", (event) => this.onClick(event));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.drag) this.endDrag();
    });
  }

  /** Shows another ranking. `excerpts`: a few words of each response. */
  open(ranking, excerpts) {
    this.ranking = ranking;
    this.excerpts = excerpts;
    this.draw();
  }

  /** Changes the ranking, says so, and keeps the focus on the tile. */
  change(response, action, focus = true) {
    const before = JSON.stringify(this.ranking.groups);
    action(this.ranking);
    if (JSON.stringify(this.ranking.groups) === before) return;
    this.draw();
    this.say(this.sentence(response));
    this.changed();
    if (focus) this.focus(response);
  }

  focus(response) {
    this.root.querySelector(`.tile[data-response="${response}"] .grip`)?.focus();
  }

  sentence(response) {
    const place = this.ranking.placeOf(response);
    const left = this.ranking.unplaced.length;
    const rest = left ? `${left} not placed yet.` : "All are placed.";
    if (!place) return `Response ${letter(response)} taken out. ${rest}`;
    const tied = this.ranking.tiedWith(response).map(letter).join(" and ");
    const tie = tied ? `, tied with ${tied}` : "";
    return `Response ${letter(response)} is ${ordinal(place)}${tie}. ${rest}`;
  }

  draw() {
    const { groups, unplaced } = this.ranking;
    const places = el("ol", { class: "places", "aria-label": "Ranking, best first" });
    groups.forEach((group, index) => {
      const place = this.ranking.placeOf(group[0]);
      places.append(
        el(
          "li",
          { class: group.length > 1 ? "place tied" : "place", "data-group": index },
          el("span", { class: "number", "aria-hidden": "true" }, String(place)),
          el("div", { class: "tiles" }, group.map((response) => this.tile(response))),
        ),
      );
    });
    if (!groups.length) {
      places.append(el("li", { class: "empty" }, "The best response goes here."));
    }
    const tray = el("div", { class: "tray", role: "group", "aria-label": "Not placed yet" });
    tray.append(...unplaced.map((response) => this.tile(response)));
    this.root.replaceChildren(places, ...(unplaced.length ? [tray] : []));
  }

  tile(response) {
    const name = letter(response);
    const place = this.ranking.placeOf(response);
    const tied = this.ranking.tiedWith(response).map(letter).join(", ");
    const at = this.ranking.groupOf(response);
    const alone = !tied;
    const label = place
      ? `Response ${name}, ${ordinal(place)}${tied ? `, tied with ${tied}` : ""}`
      : `Place response ${name}`;
    const button = (act, sign, text, off) =>
      el("button", { type: "button", "data-act": act, "aria-label": text, title: text, disabled: off }, sign);
    const last = at === this.ranking.groups.length - 1;
    const actions = place
      ? el(
          "span",
          { class: "acts" },
          button("up", "↑", `Move ${name} up`, alone && at === 0),
          button("down", "↓", `Move ${name} down`, alone && last),
          button("tie", "=", `Tie ${name} with the one above`, at === 0),
          button("remove", "×", `Take ${name} out of the ranking`, false),
        )
      : el("span", { class: "acts" }, button("place", "Place", `Place ${name} next`, false));
    return el(
      "div",
      { class: "tile", "data-response": response },
      el("span", { class: "dots", "aria-hidden": "true" }, "⠿"),
      el(
        "button",
        {
          type: "button",
          class: "grip",
          "aria-label": label,
          "aria-describedby": "board-hint",
          "aria-keyshortcuts": place ? "ArrowUp ArrowDown T Delete" : "Enter",
        },
        el("b", { "aria-hidden": "true" }, name),
        el("span", { class: "excerpt", "aria-hidden": "true", dir: "auto" }, this.excerpts[response]),
      ),
      actions,
    );
  }

  act(response, name) {
    const actions = {
      up: (r) => r.up(response),
      down: (r) => r.down(response),
      tie: (r) => r.tieUp(response),
      remove: (r) => r.remove(response),
      place: (r) => r.placeLast(response),
    };
    const before = this.ranking.unplaced;
    this.change(response, actions[name]);
    // Whoever places one after the other finds the next of those left under the same key.
    if (name === "place") {
      const next = before.find((other) => other > response) ?? before.find((o) => o !== response);
      this.focus(next ?? response);
    }
  }

  onClick(event) {
    const tile = event.target.closest(".tile");
    if (!tile || this.dragged) return;
    const response = Number(tile.dataset.response);
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act) this.act(response, act);
    else if (event.target.closest(".grip") && !this.ranking.placeOf(response)) {
      this.act(response, "place");
    }
  }

  onKey(event) {
    const tile = event.target.closest(".tile");
    if (!tile || event.ctrlKey || event.altKey || event.metaKey) return;
    const response = Number(tile.dataset.response);
    const placed = this.ranking.placeOf(response) > 0;
    const keys = { ArrowUp: "up", ArrowDown: "down", t: "tie", T: "tie", Delete: "remove", Backspace: "remove" };
    if (/^[1-9]$/.test(event.key)) {
      this.change(response, (r) => r.toPlace(response, Number(event.key)));
    } else if (placed && keys[event.key]) this.act(response, keys[event.key]);
    else return;
    event.preventDefault();
  }

  onPointerDown(event) {
    const tile = event.target.closest(".tile");
    if (!tile || event.button !== 0 || event.target.closest("[data-act]")) return;
    // A finger on the words scrolls the page; only the dots drag.
    if (event.pointerType !== "mouse" && !event.target.closest(".dots")) return;
    this.endDrag(); // another finger's, or one whose end was not seen
    this.drag = { tile, id: event.pointerId, x: event.clientX, y: event.clientY, ghost: null };
  }

  onPointerMove(event) {
    const drag = this.drag;
    if (!drag || event.pointerId !== drag.id) return;
    if (!event.buttons) {
      this.endDrag(); // let go outside of the board
      return;
    }
    if (!drag.ghost) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < FAR) return;
      const box = drag.tile.getBoundingClientRect();
      drag.ghost = drag.tile.cloneNode(true);
      drag.ghost.className = "tile ghost";
      drag.ghost.style.width = `${box.width}px`;
      drag.ghost.style.left = `${box.left}px`;
      drag.ghost.style.top = `${box.top}px`;
      document.body.append(drag.ghost);
      drag.tile.classList.add("away");
      this.root.setPointerCapture(drag.id);
      this.root.classList.add("dragging");
    }
    event.preventDefault();
    drag.ghost.style.transform = `translate(${event.clientX - drag.x}px, ${event.clientY - drag.y}px)`;
    drag.target = this.targetAt(event.clientX, event.clientY, Number(drag.tile.dataset.response));
    this.mark(drag.target);
  }

  onPointerUp(event) {
    const drag = this.drag;
    if (!drag || event.pointerId !== drag.id) return;
    const target = drag.ghost ? drag.target : null;
    const response = Number(drag.tile.dataset.response);
    this.dragged = Boolean(drag.ghost); // the click that may follow at once is none
    setTimeout(() => {
      this.dragged = false;
    });
    this.endDrag();
    if (!target) return;
    this.change(response, (r) => {
      if (target.kind === "out") r.remove(response);
      else if (target.kind === "tie") r.tie(response, target.index);
      else r.insert(response, target.index);
    });
  }

  endDrag() {
    if (!this.drag) return;
    this.drag.ghost?.remove();
    this.drag.tile.classList.remove("away");
    this.root.classList.remove("dragging");
    this.mark(null);
    this.drag = null;
  }

  /** What a drop there would do: between two groups, into one (a tie), or out of the ranking. */
  targetAt(x, y, response) {
    const tray = this.root.querySelector(".tray")?.getBoundingClientRect();
    if (tray && y > tray.top) return { kind: "out" };
    const box = this.root.getBoundingClientRect();
    if (x < box.left - 80 || x > box.right + 80) return null;
    const places = [...this.root.querySelectorAll(".place")];
    for (const [index, place] of places.entries()) {
      const { top, bottom, height } = place.getBoundingClientRect();
      if (y > bottom) continue;
      const share = (y - top) / height;
      const own = this.ranking.groups[index].length === 1 && this.ranking.groups[index][0] === response;
      if (own && share > 0) return null;
      if (share < 0.28) return { kind: "insert", index };
      if (share < 0.72) return { kind: "tie", index };
      return { kind: "insert", index: index + 1 };
    }
    return { kind: "insert", index: places.length };
  }

  mark(target) {
    for (const node of this.root.querySelectorAll(".into, .before, .after, .out")) {
      node.classList.remove("into", "before", "after", "out");
    }
    if (!target) return;
    const places = this.root.querySelectorAll(".place");
    if (target.kind === "out") this.root.querySelector(".tray")?.classList.add("out");
    else if (target.kind === "tie") places[target.index].classList.add("into");
    else if (places[target.index]) places[target.index].classList.add("before");
    else (places[places.length - 1] ?? this.root.querySelector(".empty"))?.classList.add("after");
  }
}
