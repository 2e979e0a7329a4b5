// The labeler's page: one prompt at a time, ranked, saved, and the next.
import { call, Refused, signedInAs, signIn, Unreached } from "./api.js";
import { Board } from "./board.js";
import { byId, clock, dayAndClock, el, letter, ordinal, visible } from "./dom.js";
import { listenToEarlier } from "./earlier.js";
import { show } from "./markdown.js";
import { newId, Outbox, store } from "./outbox.js";
import { notPlaced, Ranking } from "./ranking.js";
import { ratings } from "./ratings.js";

const IDLE = 60; // seconds without any sign of life that do not count as work
const ROLES = { system: "System", user: "User", assistant: "Assistant" };

let me; // who is signed in, and the project's criteria
let outbox;
let item = null; // the prompt on the page
let ranking;
let points; // for each place {criterion: points}
let plain = store.get("annotate-plain") === true;
let seconds = 0;
let lastSign = performance.now();
let missing = null; // what the status says is not placed yet
let busy = false; // an answer is on its way
let looking = false; // for the next prompt

const board = new Board(byId("board"), { say: announce, changed });

function announce(text) {
  // The same sentence twice would not be read again.
  byId("announcer").textContent = byId("announcer").textContent === text ? `${text} ` : text;
}

function notice(text, ...more) {
  // An alert that is written anew is read anew.
  if (text && !more.length && byId("notice").textContent === text) return;
  byId("notice").replaceChildren(...(text ? [text, ...more] : []));
  byId("notice").hidden = !text;
}

function status(text, kind = "") {
  missing = null;
  byId("status").textContent = text;
  byId("status").className = `status ${kind}`;
}

// ---- the page of one prompt

function open(next) {
  setBusy(false); // what is inert takes no focus
  item = next;
  const draft = draftOf(item);
  const kept = draft.order ? draft : (item.answer ?? {});
  lastSign = performance.now();
  ranking = new Ranking(item.responses.length, kept.order ?? []);
  points = item.responses.map((_, i) => ({ ...(kept.ratings?.[i] ?? {}) }));
  seconds = draft.seconds ?? item.answer?.seconds ?? 0;
  byId("cannot-judge").checked = kept.cannot_judge ?? false;
  byId("comment").value = kept.comment ?? "";
  byId("leave-correction").hidden = !item.answer;
  byId("save").textContent = item.answer ? "Save correction" : "Save and go on";
  drawTexts();
  board.open(ranking, item.responses.map(excerpt));
  changed();
  byId("message").hidden = true;
  byId("main").hidden = byId("phone-bar").hidden = false;
  for (const box of document.querySelectorAll(".scroll, .prompt")) box.scrollTop = 0;
  window.scrollTo(0, 0);
  byId("prompt-title").focus({ preventScroll: true });
}

function excerpt(text) {
  return visible(text.slice(0, 300)).replace(/[#*`>_|-]+/g, " ").replace(/\s+/g, " ").trim().slice(0, 90);
}

function drawTexts() {
  const { messages, responses } = item;
  const single = messages.length === 1;
  byId("prompt").replaceChildren(
    ...messages.map((message) =>
      el(
        "div",
        { class: `turn ${message.role}` },
        single ? null : el("p", { class: "role" }, ROLES[message.role] ?? message.role),
        show(message.content, plain),
      ),
    ),
  );
  byId("responses").replaceChildren(...responses.map(card));
}

function card(text, place) {
  const name = letter(place);
  const scroll = el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `Text of response ${name}` },
    show(text, plain),
  );
  const taller = el("button", { type: "button", class: "quiet taller", "aria-expanded": "false" }, "Whole height");
  taller.addEventListener("click", () => {
    const open = scroll.classList.toggle("whole");
    taller.setAttribute("aria-expanded", String(open));
    taller.textContent = open ? "Less height" : "Whole height";
  });
  const button = el("button", { type: "button", class: "place-button" });
  button.addEventListener("click", () => {
    const placed = ranking.placeOf(place) > 0;
    board.change(place, (r) => (placed ? r.remove(place) : r.placeLast(place)), false);
  });
  const article = el(
    "article",
    { class: "card", id: `response-${place}`, "aria-labelledby": `name-${place}`, "data-place": place },
    el(
      "header",
      {},
      el("h3", { id: `name-${place}` }, el("span", { class: "unseen" }, "Response "), name),
      el("span", { class: "badge" }),
      taller,
      button,
    ),
    scroll,
    ratings(place, points[place], me, changed),
  );
  requestAnimationFrame(() => {
    taller.hidden = scroll.scrollHeight <= scroll.clientHeight + 2;
  });
  return article;
}

/** After any change: badges, the phone's bar, and the draft. */
function changed() {
  for (const article of document.querySelectorAll(".card")) {
    const place = Number(article.dataset.place);
    const rank = ranking.placeOf(place);
    const tied = ranking.tiedWith(place).map(letter).join(", ");
    article.querySelector(".badge").textContent = rank
      ? `${ordinal(rank)}${tied ? `, tied with ${tied}` : ""}`
      : "";
    article.classList.toggle("placed", rank > 0);
    const button = article.querySelector(".place-button");
    button.textContent = rank ? "Take out" : `Place ${ordinal(1 + ranking.groups.flat().length)}`;
    button.setAttribute(
      "aria-label",
      rank ? `Take response ${letter(place)} out` : `Place response ${letter(place)} next`,
    );
  }
  const cannot = byId("cannot-judge").checked;
  byId("board").classList.toggle("off", cannot);
  byId("board").inert = cannot;
  const order = ranking.groups.map((group) => group.map(letter).join(" = ")).join(" › ");
  const left = ranking.unplaced.length;
  if (missing !== null && (cannot || String(ranking.unplaced) !== missing)) status("");
  byId("phone-ranking").textContent = cannot
    ? "Can’t judge"
    : order + (left ? `${order ? " · " : ""}${left} to place` : "");
  keepDraft();
}

// ---- drafts

function draftName() {
  return `annotate-draft-${me.project}-${me.labeler}-${item.key}`;
}

function keepDraft() {
  store.set(draftName(), { ...answer(), seconds, of: item.answer });
}

/** What was left unsaved; nothing when the answer has been corrected elsewhere meanwhile. */
function draftOf({ answer }) {
  const draft = store.get(draftName()) ?? {};
  return JSON.stringify(draft.of ?? null) === JSON.stringify(answer) ? draft : {};
}

function answer() {
  const cannot = byId("cannot-judge").checked;
  return {
    order: cannot ? [] : ranking.groups,
    cannot_judge: cannot,
    ratings: points.some((p) => Object.keys(p).length) ? points : [],
    comment: byId("comment").value,
  };
}

// ---- saving

async function save() {
  if (busy || !item || byId("main").hidden || document.querySelector("dialog[open]")) return;
  const cannot = byId("cannot-judge").checked;
  if (!cannot && !ranking.complete) {
    status(notPlaced(ranking.unplaced), "bad");
    missing = String(ranking.unplaced);
    board.focus(ranking.unplaced[0]);
    return;
  }
  outbox.add(item.key, { answer_id: newId(), ...answer(), seconds: Math.round(seconds * 10) / 10 });
  store.set(draftName(), null); // the outbox keeps it now
  await flush();
}

/** Sends what there is to send, then shows the next prompt. */
async function flush() {
  setBusy(true);
  status("Saving …");
  try {
    const { saved, refused } = await outbox.send();
    notice("");
    if (refused.length) notice(`Not saved: ${refused[0].message}.`);
    if (saved) {
      me.done = saved.done;
      announce(`Saved at ${clock(saved.saved)}.`);
      await nextPrompt(`Saved at ${clock(saved.saved)}`);
    } else await nextPrompt("");
  } catch (error) {
    fail(error);
  } finally {
    setBusy(false);
  }
}

function waiting(error, wait, kept) {
  status("Not saved yet", "bad");
  const focused = byId("notice").contains(document.activeElement);
  const again = el("button", { type: "button" }, "Try now");
  again.addEventListener("click", () => outbox.wake());
  notice(
    `Not saved yet: ${error.message}. Your answer is kept in this ${kept ? "browser" : "page, do not close it"}` +
      ` and is sent again by itself (next in ${wait} s). `,
    again,
  );
  if (focused) again.focus();
}

function setBusy(value) {
  busy = value;
  byId("main").inert = value;
  byId("main").setAttribute("aria-busy", String(value));
  byId("save").setAttribute("aria-disabled", String(value));
  byId("phone-save").setAttribute("aria-disabled", String(value));
}

/** Loads the next prompt, however long the server is away. */
async function nextPrompt(said) {
  looking = true;
  const found = await untilReached(() => call("/api/next", {})).finally(() => {
    looking = false;
  });
  Object.assign(me, { done: found.done, left: found.left });
  who();
  if (found.item) {
    open(found.item);
    status(said, "good");
  } else {
    item = null;
    message(
      me.left ? "Nothing for you at the moment" : "Thank you, all done",
      me.left
        ? "Other labelers are at work on the prompts that are left. Should one be given back, it appears here."
        : `There is nothing left for you to rank. You ranked ${me.done}. You can still correct earlier answers.`,
      me.left > 0,
    );
  }
}

async function untilReached(action) {
  for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
    try {
      const found = await action();
      if (wait > 1) notice("");
      return found;
    } catch (error) {
      if (!(error instanceof Unreached)) throw error;
      notice(`The server cannot be reached; trying again. Everything that was saved is safe.`);
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }
}

// ---- everything else on the page

function message(title, text, again = false) {
  const said = !byId("message").hidden && byId("message-title").textContent === title;
  byId("main").hidden = byId("phone-bar").hidden = true;
  byId("message").hidden = false;
  byId("message-title").textContent = title;
  byId("message-text").textContent = text;
  byId("message-again").hidden = !again;
  if (!said) byId("message-title").focus(); // else it takes the focus from something again and again
}

function fail(error) {
  if (error instanceof Refused) {
    const kept = outbox?.length ? " Your last answer is kept in this browser until then." : "";
    const title = error.status === 401 || error.status === 403 ? "Please sign in" : "This does not work";
    message(title, `${error.message}.${kept}`.replace(/^./, (c) => c.toUpperCase()));
    return;
  }
  message("Something went wrong", `${error}. Load the page again; what was saved is safe.`);
  throw error;
}

function who() {
  const left = me.left ? ` · up to ${me.left} to go` : "";
  byId("who").textContent = `${me.labeler} · ${me.done} ranked${left}`;
}

async function correct(entry) {
  byId("earlier").close();
  if (busy) return status("Your last answer has to be saved first.", "bad");
  try {
    open((await call(`/api/items/${entry.key}`)).item);
    status(`You are correcting an answer saved at ${dayAndClock(entry.saved)}.`);
  } catch (error) {
    if (error instanceof Unreached) notice("The server cannot be reached at the moment.");
    else fail(error);
  }
}

/** Work is the time between signs of life that are not far apart. */
function sign() {
  const now = performance.now();
  const passed = (now - lastSign) / 1000;
  if (passed < IDLE && !document.hidden) seconds += passed;
  lastSign = now;
}

async function stillAtWork() {
  if (!item || item.answer || busy || performance.now() - lastSign > 5 * 60000) return;
  try {
    const { yours } = await call(`/api/items/${item.key}/at-work`, {});
    if (!yours) {
      notice(
        "You left this prompt alone for long, so that it may go to somebody else. You can still " +
          "save your answer if nobody has taken it.",
      );
    }
  } catch {
    // Saving says what is wrong; there is no need to interrupt anybody's reading.
  }
}

function listen() {
  byId("save").addEventListener("click", save);
  byId("phone-save").addEventListener("click", save);
  byId("cannot-judge").addEventListener("change", changed);
  byId("comment").addEventListener("input", keepDraft);
  byId("message-again").addEventListener("click", () => nextPrompt("").catch(fail));
  listenToEarlier(correct, (error) =>
    error instanceof Unreached ? notice("The server cannot be reached at the moment.") : fail(error),
  );
  byId("leave-correction").addEventListener("click", () => {
    store.set(draftName(), null);
    nextPrompt("").catch(fail);
  });
  byId("show-help").addEventListener("click", () => byId("help").showModal());
  byId("show-plain").addEventListener("click", () => {
    plain = !plain;
    store.set("annotate-plain", plain);
    byId("show-plain").setAttribute("aria-pressed", String(plain));
    if (item) {
      drawTexts();
      changed();
    }
  });
  byId("show-plain").setAttribute("aria-pressed", String(plain));
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
  });
  for (const kind of ["pointermove", "keydown", "scroll", "touchstart"]) {
    document.addEventListener(kind, sign, { passive: true, capture: true });
  }
  setInterval(stillAtWork, Math.max(1000, Math.min(60000, me.lease_seconds * 250)));
  setInterval(() => byId("message").hidden || !me.left || byId("message-again").hidden || busy ||
    looking || nextPrompt("").catch(fail), 20000);
}

async function start() {
  try {
    await untilReached(() => signIn("labeler"));
    me = await untilReached(() => call("/api/me"));
  } catch (error) {
    return fail(error);
  }
  signedInAs(me.labeler);
  for (const { name, definition } of me.criteria) {
    byId("help-criteria").append(el("dt", {}, name), el("dd", {}, definition));
  }
  outbox = new Outbox(`annotate-unsent-${me.project}-${me.labeler}`, { waiting });
  listen();
  who();
  await flush();
}

// A link that is pasted into the address bar of this very page loads nothing by itself.
window.addEventListener("hashchange", () => location.hash.length > 20 && location.reload());
start();
