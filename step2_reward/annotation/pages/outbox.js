// Answers on their way to the server. What is not acknowledged stays here, in this browser too.
import { call, Refused, Unreached } from "./api.js";

const WAITS = [1, 2, 4, 8, 15]; // seconds between attempts; the last one repeats
const FINAL = ["not yours", "invalid", "other content"]; // refusals that another try won't change
const PATIENCE = 15; // seconds until an answer counts as not saved yet

/** localStorage where there is one; a browser may forbid it. */
export const store = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
  names() {
    try {
      return Object.keys(localStorage);
    } catch {
      return [];
    }
  },
};

export class Outbox {
  /** @param name differs between projects and labelers that share a browser */
  constructor(name, { waiting }) {
    this.name = name;
    this.waiting = waiting;
    this.entries = this.unsent();
    this.wake = () => {};
    window.addEventListener("online", () => this.wake());
    window.addEventListener("beforeunload", (event) => {
      if (this.entries.length) event.preventDefault();
    });
  }

  get length() {
    return this.entries.length;
  }

  /** What this browser has kept, oldest first; each answer by itself, for there may be two tabs. */
  unsent() {
    const ours = (name) => name.startsWith(`${this.name}-`) && /^[0-9a-f]{32}$/.test(name.slice(this.name.length + 1));
    const entries = store.names().filter(ours).map((name) => store.get(name));
    return entries.filter((entry) => entry?.body).sort((a, b) => a.at - b.at);
  }

  /** Keeps an answer, to be sent until the server has it. */
  add(key, body) {
    const entry = { key, body, at: Date.now() };
    this.entries.push(entry);
    this.kept = store.set(`${this.name}-${body.answer_id}`, entry);
  }

  /**
   * Sends everything, oldest first, again and again until it has arrived.
   * @returns {Promise<{saved: object, refused: Refused[]}>} the last acknowledgement, and what was refused
   */
  send() {
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async sendAll() {
    let saved = null;
    const refused = [];
    for (let attempt = 0; this.entries.length; ) {
      const { key, body } = this.entries[0];
      try {
        saved = await call(`/api/items/${key}/answer`, body, PATIENCE);
      } catch (error) {
        if (error instanceof Unreached) {
          const seconds = WAITS[Math.min(attempt, WAITS.length - 1)];
          attempt += 1;
          this.waiting(error, seconds, this.kept !== false);
          await this.pause(seconds);
          continue;
        }
        if (!(error instanceof Refused)) throw error;
        if (!FINAL.includes(error.kind)) throw error; // kept for later
        refused.push(error);
      }
      attempt = 0;
      this.entries.shift();
      store.set(`${this.name}-${body.answer_id}`, null);
    }
    return { saved, refused };
  }

  pause(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** An id that no other answer has: sent twice, an answer is saved once. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
