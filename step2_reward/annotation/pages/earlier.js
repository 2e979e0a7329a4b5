// The labeler's earlier answers, newest first, a page of them at a time.
import { call, Unreached } from "./api.js";
import { byId, dayAndClock, el, visible } from "./dom.js";

let choose; // what happens with the one that was chosen
let older = null; // where the list goes on
let asking = false; // for older ones

/**
 * @param chosen called with the entry that somebody wants to correct
 * @param failed called with an error that another try won't change, or that the dialog cannot show
 */
export function listenToEarlier(chosen, failed) {
  choose = chosen;
  byId("show-earlier").addEventListener("click", () => showNewest().catch(failed));
  byId("earlier-more").addEventListener("click", () => {
    if (asking) return;
    asking = true;
    addOlder()
      .catch((error) => {
        if (error instanceof Unreached) say("The server cannot be reached at the moment.");
        else byId("earlier").close(), failed(error);
      })
      .finally(() => {
        asking = false;
      });
  });
}

async function showNewest() {
  const page = await call("/api/mine");
  byId("earlier-list").replaceChildren();
  say("");
  add(page);
  if (!page.all) byId("earlier-list").append(el("li", { class: "muted" }, "There are none yet."));
  byId("earlier").showModal();
}

/** The focus goes to the first of them: who uses the keyboard reads on from there. */
async function addOlder() {
  const [first] = add(await call(`/api/mine?saved=${older.saved}&key=${older.key}`));
  if (first) first.firstElementChild.focus();
  else if (!older) byId("earlier").querySelector(".close").focus();
}

function add(page) {
  older = page.older;
  const entries = page.answers.map(entryOf);
  byId("earlier-list").append(...entries);
  byId("earlier-more").hidden = !older;
  const shown = byId("earlier-list").childElementCount;
  if (older || shown > entries.length) say(`${shown} of ${page.all} are shown.`);
  return entries;
}

function entryOf(entry) {
  const marks = [dayAndClock(entry.saved)];
  if (entry.cannot_judge) marks.push("can’t judge");
  if (entry.corrected) marks.push("corrected");
  const button = el(
    "button",
    { type: "button" },
    el("span", { dir: "auto" }, visible(entry.prompt)),
    el("small", {}, marks.join(" · ")),
  );
  button.addEventListener("click", () => choose(entry));
  return el("li", {}, button);
}

function say(text) {
  byId("earlier-count").textContent = text;
}
