"use strict";
// Answers to browse. What models and users wrote is only ever set as text, never as markup.
(() => {
  const holder = document.getElementById("data");
  const root = document.getElementById("samples");
  if (!holder || !root) return;
  const data = JSON.parse(holder.textContent);
  const PAGE = 8;
  const titles = new Map(data.models);
  const decodings = ["sample", "greedy"].filter((d) => data.prompts.some((p) => p.d[d]));
  const tasks = [...new Set(data.prompts.map((p) => p.t).filter(Boolean))].sort();
  const known = (name) =>
    data.prompts.some((p) => Object.values(p.d).some((d) => Object.values(d.a).some((a) => a.k && (name === "ratio" ? a.k.s && a.k.a : a.k[name]))));

  /** What can be shown as colour: its name, unit, numbers of an answer, and words for the legend. */
  const COLOURS = {
    ratio: {
      title: "Log-ratio RLHF / SFT (per-token KL)", unit: "nats",
      of: (k) => k.a && k.s && k.a.map((a, t) => a - k.s[t]),
      words: ["SFT likelier", "RLHF likelier"],
      note: "Summed over an answer and averaged over RLHF’s own samples it is the KL to the SFT model.",
    },
    v: { title: "Value (the critic’s expected return)", unit: "deviations", of: (k) => k.v, words: ["low", "high"],
      note: "The return that the critic expects before this token, in deviations of the reward model’s scores." },
    g: { title: "Advantage", unit: "deviations", of: (k) => k.g, words: ["worse than expected", "better"],
      note: "GAE with the run’s γ, λ and β, not normalized over a rollout." },
    a: { title: "Log-probability under RLHF", unit: "nats", of: (k) => k.a, words: ["surprising", ""], note: "" },
    s: { title: "Log-probability under SFT", unit: "nats", of: (k) => k.s, words: ["surprising", ""], note: "" },
  };
  const colours = Object.keys(COLOURS).filter(known);

  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };
  /** Text with what acts instead of being seen written out. */
  const visible = (text) =>
    text.replace(/\r\n/g, "\n").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
  const fixed = (x, digits) => (x < 0 ? "−" : "") + Math.abs(x).toFixed(digits);

  const state = { split: "", decoding: decodings[0], outcome: "", task: "", order: "listed", scored: false, text: "", colour: colours[0] || "", beside: titles.has("rlhf") ? "rlhf" : (data.models[1] || data.models[0])[0], page: 0 };
  const TIE = 1e-9;
  const outcome = (gap) => (gap === undefined ? "" : gap > TIE ? "win" : gap < -TIE ? "loss" : "tie");
  const unit = (split) => (data.judges[split] === "reward_model" ? "of reward score" : "points of 100");
  const digits = (split) => (data.judges[split] === "reward_model" ? 2 : 1);

  const select = (label, name, options, change) => {
    const box = el("select", { id: `f-${name}`, onchange: (e) => { state[name] = e.target.value; if (change) change(); else { state.page = 0; update(); } } },
      options.map(([value, words]) => el("option", { value, selected: state[name] === value }, words)));
    return el("label", { for: `f-${name}` }, el("span", {}, label), box);
  };
  const all = (words) => ["", words];
  const search = el("input", { type: "search", id: "f-text", oninput: (e) => { state.text = e.target.value.toLowerCase(); state.page = 0; update(); } });
  const scored = el("input", { type: "checkbox", id: "f-scored", onchange: (e) => { state.scored = e.target.checked; state.page = 0; update(); } });
  const count = el("p", { role: "status", "aria-live": "polite", class: "count" });
  const list = el("div", { class: "sample-list" });
  const legend = el("div", { class: "colour-legend" });

  const filters = el("div", { class: "filters", role: "group", "aria-label": "Filters" },
    select("Split", "split", [all("all splits"), ...data.splits.map((s) => [s, s])]),
    decodings.length > 1 && select("Decoding", "decoding", decodings.map((d) => [d, d === "sample" ? "sampled" : d])),
    select("RLHF against SFT", "outcome", [all("wins, ties, losses"), ["win", "wins"], ["tie", "ties"], ["loss", "losses"]]),
    tasks.length > 0 && select("Task", "task", [all("all tasks"), ...tasks.map((t) => [t, t])]),
    select("Order", "order", [["listed", "as listed"], ["worst", "largest regressions first"], ["best", "largest wins first"], ...(colours.includes("ratio") ? [["kl", "largest log-ratio of RLHF’s answer first"]] : [])]),
    data.models.length > 2 && select("Beside SFT", "beside", data.models.filter(([m]) => m !== "sft")),
    el("label", { for: "f-text" }, el("span", {}, "Text in prompt or answers"), search),
    colours.length > 0 && select("Colour over the text", "colour", [["", "none"], ...colours.map((c) => [c, COLOURS[c].title])], () => draw()),
    colours.length > 0 && el("label", { for: "f-scored", class: "check" }, scored, el("span", {}, "only with scores by token")),
  );

  const klOf = (p) => {
    const k = p.d[state.decoding] && p.d[state.decoding].a.rlhf && p.d[state.decoding].a.rlhf.k;
    const ratios = k && COLOURS.ratio.of(k);
    return ratios ? ratios.reduce((a, b) => a + b, 0) : undefined;
  };
  let found = [];
  const update = () => {
    found = data.prompts.filter((p) => {
      const d = p.d[state.decoding];
      if (!d || (state.split && p.s !== state.split) || (state.task && p.t !== state.task)) return false;
      if (state.outcome && outcome(d.g) !== state.outcome) return false;
      const shown = ["sft", state.beside].map((m) => d.a[m]).filter(Boolean);
      if (state.scored && !shown.some((a) => a.k)) return false;
      return !state.text || [p.p, ...shown.map((a) => a.r)].some((text) => text.toLowerCase().includes(state.text));
    });
    const key = { worst: (p) => p.d[state.decoding].g, best: (p) => { const g = p.d[state.decoding].g; return g === undefined ? g : -g; }, kl: (p) => { const kl = klOf(p); return kl === undefined ? kl : -kl; } }[state.order];
    if (key) {
      const last = (x) => (x === undefined ? Infinity : x);
      found.sort((a, b) => last(key(a)) - last(key(b)));
    }
    draw();
  };

  /** The largest number that any answer has, so that colours mean the same all over the page. */
  const extents = new Map();
  const extent = (name) => {
    if (!extents.has(name)) {
      const values = [];
      for (const p of data.prompts) for (const d of Object.values(p.d)) for (const a of Object.values(d.a)) {
        const own = a.k && COLOURS[name].of(a.k);
        if (own) for (const x of own) values.push(Math.abs(x));
      }
      values.sort((a, b) => a - b);
      extents.set(name, values[Math.floor(0.99 * (values.length - 1))] || 1);
    }
    return extents.get(name);
  };
  const paint = (node, value, most) => {
    const share = Math.min(1, Math.abs(value) / most);
    node.style.setProperty("background-color", `color-mix(in srgb, var(--${value < 0 ? "minus" : "plus"}) ${Math.round(85 * share)}%, transparent)`);
  };

  const tokenText = (answer) => {
    const k = answer.k;
    const shown = state.colour && COLOURS[state.colour].of(k);
    const detail = el("p", { class: "detail", "aria-live": "polite" });
    const box = el("div", { class: "text tokens", role: "group", "aria-label": "Answer by token" });
    const spans = k.x.map((text, t) => {
      const end = t === k.x.length - 1 && text === "" && answer.e;
      const span = el("span", { class: end ? "token stop" : "token", tabindex: t === 0 ? 0 : -1 }, end ? "end" : visible(t === 0 ? text.trimStart() : text));
      if (shown) paint(span, shown[t], extent(state.colour));
      return span;
    });
    const tell = (t) => {
      const name = k.x[t] === "" ? (t === k.x.length - 1 && answer.e ? "end token" : "part of a character") : `“${visible(k.x[t])}”`;
      const numbers = colours.filter((c) => COLOURS[c].of(k)).map((c) => `${COLOURS[c].title.split(" (")[0].toLowerCase()} ${signed(COLOURS[c].of(k)[t], 3)} ${COLOURS[c].unit}`);
      detail.replaceChildren(el("strong", {}, `${t + 1}. ${name}`), ` ${numbers.join(" · ")}`);
      for (const other of spans) other.classList.toggle("here", other === spans[t]);
    };
    box.addEventListener("pointerover", (e) => { const t = spans.indexOf(e.target); if (t >= 0) tell(t); });
    box.addEventListener("click", (e) => { const t = spans.indexOf(e.target); if (t >= 0) tell(t); });
    box.addEventListener("focusin", (e) => { const t = spans.indexOf(e.target); if (t >= 0) tell(t); });
    box.addEventListener("keydown", (e) => {
      const at = spans.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 }[e.key];
      if (at < 0 || to === undefined || !spans[to]) return;
      e.preventDefault();
      spans[at].tabIndex = -1;
      spans[to].tabIndex = 0;
      spans[to].focus();
    });
    box.append(...spans);
    return [box, detail];
  };

  const answerBox = (p, model, answer) => {
    const words = [];
    if (answer) {
      if (answer.o !== undefined) words.push(`${fixed(answer.o, 1)} points of 100`);
      if (answer.w !== undefined) words.push(`reward ${fixed(answer.w, 2)} (raw score)`);
      words.push(`${answer.n} tokens${answer.e ? "" : ", cut off"}`);
      if (answer.b) words.push(`best of ${answer.b}`);
      const ratios = answer.k && COLOURS.ratio.of(answer.k);
      if (ratios) words.push(`log-ratio ${signed(ratios.reduce((a, b) => a + b, 0), 2)} nats`);
    }
    const low = answer && answer.c ? Object.entries(answer.c).filter(([, x]) => x < 2).map(([n, x]) => `${n} ${fixed(x, x % 1 ? 1 : 0)}`) : [];
    return el("div", { class: "answer" },
      el("h4", {}, titles.get(model)),
      answer === undefined ? el("p", { class: "note" }, "no answer")
        : answer.k ? tokenText(answer)
          : el("div", { class: "text" }, answer.r.trim() ? visible(answer.r) : el("em", {}, "(empty)")),
      answer && el("p", { class: "note" }, words.join(" · ")),
      low.length > 0 && el("p", { class: "note" }, `below 2 points: ${low.join(", ")}`));
  };

  const card = (p) => {
    const d = p.d[state.decoding];
    const kind = outcome(d.g);
    const words = { win: "RLHF wins", tie: "tie", loss: "RLHF loses" }[kind];
    const over = state.decoding === "sample" ? ", mean of all samples" : "";
    const gap = kind ? `${words}${kind === "tie" ? "" : ` by ${signed(d.g, digits(p.s))} ${unit(p.s)}`}${over}` : "";
    return el("article", { class: "sample" },
      el("h3", {}, `${p.s}, prompt ${p.i}`, p.t ? el("span", { class: "tag" }, p.t) : null, gap ? el("span", { class: `tag ${kind}` }, gap) : null),
      el("div", { class: "text prompt" }, visible(p.p)),
      el("div", { class: "pair" }, answerBox(p, "sft", d.a.sft), state.beside !== "sft" && answerBox(p, state.beside, d.a[state.beside])));
  };

  const previous = el("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const next = el("button", { type: "button", onclick: () => turn(1) }, "Next");
  const where = el("span", { class: "note" });
  const turn = (by) => { state.page += by; draw(); count.scrollIntoView({ block: "start" }); };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    count.textContent = `${found.length} of ${data.prompts.length} prompts`;
    where.textContent = `page ${state.page + 1} of ${pages}`;
    previous.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
    const c = COLOURS[state.colour];
    legend.hidden = !c;
    if (c) {
      const most = extent(state.colour);
      const both = state.colour !== "a" && state.colour !== "s";
      legend.replaceChildren(
        el("span", {}, `${c.title}, ${c.unit}:`),
        el("span", {}, `${fixed(-most, 2)} ${c.words[0]}`), el("span", { class: both ? "ramp" : "ramp half", role: "img", "aria-label": "colour ramp" }),
        el("span", {}, both ? `+${most.toFixed(2)} ${c.words[1]}` : "0"),
        el("span", { class: "note" }, `${c.note} Point at a token for its numbers, or move through them with the arrow keys.`));
    }
    list.replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE).map(card));
  };

  root.append(filters, count, legend, list, el("div", { class: "pager" }, previous, where, next));
  update();
})();
