// The project page: how far, how fast, how well agreed.
import { call, Refused, signIn } from "./api.js";
import { dayChart, histogram, meter, progressBar } from "./charts.js";
import { byId, clock, dayAndClock, el, visible } from "./dom.js";
import { show } from "./markdown.js";

const EVERY = 20; // seconds between looks at the server

const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

function figure(value, label, note = "") {
  return el("div", { class: "figure" }, el("strong", {}, value), el("span", {}, label),
    note ? el("small", {}, note) : null);
}

function draw(data) {
  byId("figures").replaceChildren(
    figure(`${data.complete} / ${data.prompts}`, "prompts complete", `${data.begun} more begun`),
    figure(`${data.answers} / ${data.wanted}`, "answers", `${data.per_prompt} a prompt`),
    figure(number(data.alpha), "Krippendorff’s α", "ordinal, over all responses"),
    figure(number(data.mean_w), "mean Kendall’s W", "over prompts"),
    figure(String(data.cannot_judge), "can’t judge", `${data.comments} comments, ${data.corrected} corrected`),
  );
  byId("bar").replaceChildren(progressBar(data.answers, data.wanted));
  drawLabelers(data);
  byId("histogram").replaceChildren(
    data.histogram.some(Boolean)
      ? histogram(data.histogram, "Prompts by Kendall’s W")
      : el("p", { class: "none" }, "No prompt has two rankings yet."),
  );
  const names = data.labelers.map((labeler) => labeler.name);
  byId("days").replaceChildren(
    data.days.length ? dayChart(data.days, names, "Answers a day, by labeler") : el("p", { class: "none" }, "No answers yet."),
  );
  drawDisagreed(data);
  byId("when").textContent = `as of ${clock(data.now)}`;
  byId("main").hidden = false;
}

function drawLabelers(data) {
  const heads = ["Labeler", "Answers", "Can’t judge", "Per hour", "Median time", "Agreement", `Gold`, "Last answer"];
  const rows = data.labelers.map((row) => {
    const cell = (text, ...more) => el("td", {}, text, ...more);
    const time = row.median_seconds === null ? "–" : duration(row.median_seconds);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, row.name, row.has_link ? null : el("small", {}, " no link now")),
      cell(String(row.answers)),
      cell(String(row.cannot_judge)),
      cell(number(row.per_hour, 0)),
      cell(time),
      cell(number(row.tau), row.tau === null ? null : meter(row.tau, -1)),
      row.gold
        ? cell(`${Math.round(100 * row.gold_right)} % of ${row.gold}`, meter(row.gold_right))
        : cell("–"),
      cell(row.last === null ? "–" : dayAndClock(row.last)),
    );
  });
  byId("labelers").replaceChildren(
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows),
  );
}

function duration(seconds) {
  const rounded = Math.round(seconds);
  return rounded < 60 ? `${rounded} s` : `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
}

let drawn = "";

function drawDisagreed(data) {
  // Who reads there keeps the place, and the focus, as long as nothing has changed.
  if (JSON.stringify(data.disagreed) === drawn) return;
  drawn = JSON.stringify(data.disagreed);
  const reading = document.activeElement?.closest("#disagreed details")?.dataset.key;
  const open = new Set([...document.querySelectorAll("#disagreed details[open]")].map((d) => d.dataset.key));
  const entries = data.disagreed.map((entry) => {
    const prompt = entry.messages[entry.messages.length - 1].content;
    const details = el(
      "details",
      { class: "disagreed", "data-key": entry.key },
      el("summary", {}, el("span", { class: "w" }, `W ${number(entry.w)}`), el("span", { dir: "auto" }, visible(prompt.slice(0, 160)))),
    );
    const fill = () => {
      if (details.open && details.childElementCount === 1) details.append(inFull(entry));
    };
    details.addEventListener("toggle", fill);
    details.open = open.has(entry.key);
    fill();
    return details;
  });
  byId("disagreed").replaceChildren(
    ...(entries.length ? entries : [el("p", { class: "none" }, "Nothing yet.")]),
  );
  document.querySelector(`#disagreed details[data-key="${reading}"] summary`)?.focus();
}

function inFull(entry) {
  const names = Object.keys(entry.ranks);
  const means = entry.responses.map((_, i) => names.reduce((sum, name) => sum + entry.ranks[name][i], 0) / names.length);
  const order = entry.responses.map((_, i) => i).sort((a, b) => means[a] - means[b]);
  const rank = (value) => String(value).replace(".5", "½");
  const comments = Object.entries(entry.comments).map(([name, text]) =>
    el("p", { class: "remark", dir: "auto" }, el("b", {}, `${name}: `), visible(text)));
  return el(
    "div",
    { class: "in-full" },
    el("div", { class: "prompt" }, entry.messages.map((m) => show(m.content, false))),
    comments,
    el("div", { class: "wide", tabindex: "0" }, el("table", {},
      el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)),
        el("th", { scope: "col" }, "mean"), el("th", { scope: "col" }, "Response"))),
      el("tbody", {}, order.map((i) => el("tr", {},
        names.map((name) => el("td", { class: "rank" }, rank(entry.ranks[name][i]))),
        el("td", { class: "rank" }, number(means[i], 1)),
        el("td", {}, el("div", { class: "scroll", tabindex: "0" }, show(entry.responses[i], false)))))))),
  );
}

async function look() {
  try {
    draw(await call("/api/project"));
    byId("notice").hidden = true;
  } catch (error) {
    if (error instanceof Refused) {
      byId("main").hidden = true;
      byId("message").hidden = false;
      byId("message-title").textContent = "Please sign in";
      byId("message-text").textContent = `Open the project page’s link, which the server wrote to links.txt.`;
      return;
    }
    byId("notice").textContent = "The server cannot be reached; trying again.";
    byId("notice").hidden = false;
  }
  setTimeout(look, EVERY * 1000);
}

window.addEventListener("hashchange", () => location.hash.length > 20 && location.reload());
try {
  await signIn("project");
} catch {
  // `look` says what is wrong.
}
await look();
