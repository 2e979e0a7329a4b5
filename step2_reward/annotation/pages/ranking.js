// The ranking itself: groups of tied responses, best first. No elements here.
import { letter } from "./dom.js";

/** What to say when some are left. */
export function notPlaced(unplaced) {
  const names = unplaced.map(letter);
  const last = names.pop();
  const list = names.length ? `${names.join(", ")} and ${last} are` : `${last} is`;
  return `${list} not placed yet. If you can’t rank them, say “I can’t judge these”.`;
}

export class Ranking {
  /** @param {number} count responses, numbered by their places on the page */
  constructor(count, groups = []) {
    this.count = count;
    this.groups = groups.map((group) => [...group]);
  }

  /** Index of the group that a response is in; -1 when it is not placed. */
  groupOf(response) {
    return this.groups.findIndex((group) => group.includes(response));
  }

  get unplaced() {
    const all = Array.from({ length: this.count }, (_, i) => i);
    return all.filter((response) => this.groupOf(response) < 0);
  }

  get complete() {
    return this.unplaced.length === 0;
  }

  /** The place that people would say: after a tie of two for the first comes the third. */
  placeOf(response) {
    const at = this.groupOf(response);
    return at < 0 ? 0 : 1 + this.groups.slice(0, at).flat().length;
  }

  tiedWith(response) {
    const at = this.groupOf(response);
    return at < 0 ? [] : this.groups[at].filter((other) => other !== response);
  }

  remove(response) {
    this.groups = this.groups
      .map((group) => group.filter((other) => other !== response))
      .filter((group) => group.length);
  }

  /** As a group of its own, before the group that has this index now; at the end when none has. */
  insert(response, index) {
    const alone = this.groupOf(response) === index && this.groups[index].length === 1;
    if (alone) return;
    const before = this.groups.slice(0, index);
    this.remove(response);
    const left = before.map((g) => g.filter((o) => o !== response)).filter((g) => g.length);
    this.groups.splice(left.length, 0, [response]);
  }

  placeLast(response) {
    this.insert(response, this.groups.length);
  }

  /** To the place that people would say, or the next one behind a tie that spans it. */
  toPlace(response, place) {
    this.remove(response);
    const index = this.groups.findIndex((group) => this.placeOf(group[0]) >= place);
    this.insert(response, index < 0 ? this.groups.length : index);
  }

  /** Into the group that has this index now. */
  tie(response, index) {
    const others = (this.groups[index] ?? []).filter((other) => other !== response);
    if (!others.length) return;
    this.remove(response);
    this.groups[this.groupOf(others[0])].push(response);
    this.groups[this.groupOf(others[0])].sort((a, b) => a - b);
  }

  tieUp(response) {
    this.tie(response, this.groupOf(response) - 1);
  }

  /** Out of a tie, or past the group above. */
  up(response) {
    const at = this.groupOf(response);
    if (at < 0) return;
    if (this.groups[at].length > 1) this.insert(response, at);
    else if (at > 0) this.insert(response, at - 1);
  }

  /** Out of a tie, or past the group below. */
  down(response) {
    const at = this.groupOf(response);
    if (at < 0) return;
    if (this.groups[at].length > 1) this.insert(response, at + 1);
    else if (at < this.groups.length - 1) this.insert(response, at + 2);
  }
}
