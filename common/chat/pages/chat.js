// The chat's page. It holds the conversation; the server answers, and remembers nothing.

import { byId, el, visible } from "/static/dom.js";

let about = null; // what the server says of its models
let turns = []; // {question, answers, scores, remarks}
let attempt = 0; // how often the question at this place was asked before
let answering = null; // stops the answers that are coming

class Refused extends Error {}

async function call(path, body, signal) {
  const request = { credentials: "same-origin", cache: "no-store", signal };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = { "content-type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is the command that serves this page running?");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Refused(said.error ?? `The server answers with code ${response.status}.`);
  }
  return response;
}

function tell(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = text === "";
}

// --- what is seen

function exchange(turn) {
  const answers = about.models.map((name, i) =>
    el(
      "section",
      { class: "answer", "data-model": i },
      el("h2", {}, visible(name)),
      el("div", { class: "text plain", dir: "auto" }, visible(turn.answers[i] ?? "")),
      el("p", { class: "remark" }, turn.remarks[i] ?? ""),
    ),
  );
  return el(
    "article",
    { class: "exchange" },
    el("div", { class: "question text plain", dir: "auto" }, visible(turn.question)),
    el("div", { class: "answers" }, answers),
  );
}

function drawAll() {
  byId("talk").replaceChildren(...turns.map(exchange));
  drawButtons();
}

function drawButtons() {
  const busy = answering !== null;
  byId("stop").disabled = !busy;
  for (const id of ["send", "reset", "load"]) byId(id).disabled = busy;
  for (const id of ["undo", "retry", "save"]) byId(id).disabled = busy || turns.length === 0;
  byId("status").textContent = busy ? "answering" : "";
}

function drawSampling() {
  byId("sampling").replaceChildren(
    ...Object.entries(about.sampling).map(([name, value]) =>
      el(
        "label",
        {},
        name.replaceAll("_", " "),
        el("input", { name, inputmode: "decimal", value, autocomplete: "off" }),
      ),
    ),
  );
}

// --- asking

async function ask(question) {
  const turn = { question, answers: [], scores: [], remarks: [] };
  const sampling = {};
  for (const field of byId("sampling").querySelectorAll("input")) {
    sampling[field.name] = field.value.trim() === "" ? NaN : Number(field.value);
    if (!Number.isFinite(sampling[field.name])) {
      tell(`${field.name} must be a number.`);
      return false;
    }
  }
  tell("");
  answering = new AbortController();
  drawButtons();
  const node = exchange(turn);
  const boxes = [...node.querySelectorAll(".answer")];
  let taken = false;
  try {
    const past = turns.map(({ question, answers }) => ({ question, answers }));
    const body = { turns: past, question, sampling, attempt };
    const response = await call("/api/answer", body, answering.signal);
    taken = true;
    byId("talk").append(node);
    for (const box of boxes) box.ariaBusy = "true";
    node.scrollIntoView({ block: "end" });
    await take(response, turn, boxes);
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  }
  answering = null;
  if (taken) {
    for (const [i, box] of boxes.entries()) {
      box.ariaBusy = "false";
      turn.answers[i] ??= "";
      turn.scores[i] ??= null;
      if (turn.remarks[i] === undefined) turn.remarks[i] = "stopped";
      box.querySelector(".remark").textContent = turn.remarks[i];
    }
    turns.push(turn);
    attempt = 0;
  }
  drawButtons();
  return taken;
}

/** Lines of JSON as they come: pieces of answers, then each whole one with its score. */
async function take(response, turn, boxes) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map(JSON.parse)) {
      if (line.error) throw new Refused(line.error);
      const i = line.model;
      if (line.remark !== undefined) {
        turn.answers[i] = line.answer;
        turn.scores[i] = line.score;
        turn.remarks[i] = line.remark;
        boxes[i].ariaBusy = "false";
      } else {
        turn.answers[i] = (turn.answers[i] ?? "") + line.text;
      }
      boxes[i].querySelector(".text").textContent = visible(turn.answers[i]);
      boxes[i].querySelector(".remark").textContent = turn.remarks[i] ?? "";
    }
    if (atTheEnd()) window.scrollTo(0, document.body.scrollHeight);
  }
}

/** Whoever has scrolled back to read is left there. */
function atTheEnd() {
  return window.innerHeight + window.scrollY > document.body.scrollHeight - 160;
}

// --- files: JSON lines, a row a model, as the terminal's /save writes them

function save() {
  const rows = about.models.map((model, i) => {
    const system = about.system ? [{ role: "system", content: about.system }] : [];
    const said = turns.flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.answers[i] },
    ]);
    return { model, messages: [...system, ...said], scores: turns.map((turn) => turn.scores[i]) };
  });
  const text = rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const link = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  el("a", { href: link, download: "conversation.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(link), 60_000);
}

function read(text) {
  let rows = text.split("\n").filter((line) => line.trim() !== "").map(JSON.parse);
  if (rows.length === 1) rows = about.models.map(() => rows[0]);
  if (rows.length !== about.models.length) {
    throw new Error(`it holds ${rows.length} models’ conversations, but ${about.models.length} talk here`);
  }
  const system = rows[0].messages.find((message) => message.role === "system")?.content ?? "";
  const talks = rows.map((row) => row.messages.filter((message) => message.role !== "system"));
  const talk = talks[0].flatMap((message, place) => {
    const role = place % 2 ? "assistant" : "user";
    const same = talks.every((talk) => talk.length === talks[0].length && talk[place].role === role);
    const texts = talks.map((talk) => talk[place]?.content);
    if (!same || texts.some((t) => typeof t !== "string") || talks[0].length % 2) {
      throw new Error("user and assistant must take turns in it, the assistant last");
    }
    if (role === "assistant") return [];
    if (texts.some((t) => t !== texts[0])) throw new Error("it asks the models different questions");
    const scores = rows.map((row) => row.scores?.[place / 2] ?? null);
    return [
      {
        question: texts[0],
        answers: talks.map((talk) => talk[place + 1]?.content),
        scores,
        remarks: scores.map((s) => (s === null ? "" : `reward ${s < 0 ? "" : "+"}${s.toFixed(2)} deviations`)),
      },
    ];
  });
  return { talk, system };
}

async function load(file) {
  try {
    const { talk, system } = read(await file.text());
    turns = talk;
    attempt = 0;
    const other = system !== (about.system ?? "");
    tell(other ? "The file’s system message differs from this chat’s, which stays (see --system)." : "");
  } catch (error) {
    tell(`${file.name} cannot be loaded: ${error.message}`);
  }
  drawAll();
}

// --- the desk

async function send() {
  const field = byId("question");
  const question = field.value.trim();
  if (question === "" || answering) return;
  field.value = "";
  if (!(await ask(question)) && field.value === "") field.value = question;
}

function undo() {
  const turn = turns.pop();
  if (!turn) return null;
  attempt += 1;
  drawAll();
  return turn;
}

byId("desk").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
byId("stop").addEventListener("click", () => answering?.abort());
byId("undo").addEventListener("click", undo);
byId("retry").addEventListener("click", async () => {
  const turn = undo();
  if (!turn || (await ask(turn.question))) return;
  turns.push(turn); // nothing new came: what was there stays
  drawAll();
});
byId("reset").addEventListener("click", () => {
  turns = [];
  attempt = 0;
  drawAll();
});
byId("save").addEventListener("click", save);
byId("load").addEventListener("change", (event) => {
  if (event.target.files[0]) load(event.target.files[0]);
  event.target.value = "";
});

try {
  const token = location.hash.slice(1);
  if (token) {
    await call("/api/session", { token });
    history.replaceState(null, "", location.pathname);
  }
  about = await (await call("/api/about")).json();
  byId("who").textContent = visible(
    about.models.join(" and ") + (about.scored ? ", scored by the reward model" : ""),
  );
  byId("desk").hidden = false;
  drawSampling();
  drawAll();
  byId("question").focus();
} catch (error) {
  tell(error.message);
}
