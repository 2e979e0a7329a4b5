// The project page's drawings, in the page's own colours.
import { el, svg } from "./dom.js";

/** How much is answered, and how much of it makes complete prompts. */
export function progressBar(done, wanted) {
  const share = wanted ? Math.min(1, done / wanted) : 0;
  const percent = `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  return el(
    "div",
    { class: "progress-row" },
    svg(
      "svg",
      { viewBox: "0 0 1000 14", preserveAspectRatio: "none", class: "progress", role: "img", "aria-label": percent },
      svg("rect", { width: 1000, height: 14, class: "track" }),
      svg("rect", { width: 1000 * share, height: 14, class: "done" }),
    ),
    el("span", {}, percent),
  );
}

/** A share between 0 and 1 (or from −1, then drawn from the middle) as a small bar in a table. */
export function meter(value, low = 0) {
  const at = (v) => (100 * (v - low)) / (1 - low);
  const zero = at(Math.max(0, low));
  const end = at(Math.max(low, Math.min(1, value)));
  return svg(
    "svg",
    { viewBox: "0 0 100 8", class: "meter", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { width: 100, height: 8, class: "track" }),
    svg("rect", {
      x: Math.min(zero, end), width: Math.abs(end - zero), height: 8,
      class: end < zero ? "bad" : "done",
    }),
  );
}

/** Counts in equal bins between 0 and 1. */
export function histogram(counts, title) {
  const [width, height, left, bottom] = [460, 180, 6, 24];
  const most = Math.max(1, ...counts);
  const step = (width - 2 * left) / counts.length;
  const scale = (height - bottom - 18) / most;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": title });
  counts.forEach((count, i) => {
    const tall = count * scale;
    const x = left + i * step + 2;
    const y = height - bottom - tall;
    drawing.append(
      svg("rect", { x, y, width: step - 4, height: tall, rx: 2, class: "done" },
        svg("title", {}, `${(i / counts.length).toFixed(1)} to ${((i + 1) / counts.length).toFixed(1)}: ${count}`)),
    );
    if (count) drawing.append(svg("text", { x: x + step / 2 - 2, y: y - 5, class: "middle" }, String(count)));
  });
  drawing.append(svg("line", { x1: left, x2: width - left, y1: height - bottom, y2: height - bottom, class: "axis" }));
  for (let i = 0; i <= 5; i += 1) {
    const x = left + (i / 5) * (width - 2 * left);
    const place = i === 0 ? "" : i === 5 ? "end" : "middle";
    drawing.append(svg("text", { x, y: height - 7, class: place }, (i / 5).toFixed(1)));
  }
  return drawing;
}

/** Stacked bars, one a day; each labeler has a colour. */
export function dayChart(days, names, title) {
  const [width, height, bottom] = [460, 180, 24];
  const shown = days.slice(-21);
  const totals = shown.map((day) => Object.values(day.answers).reduce((a, b) => a + b, 0));
  const most = Math.max(1, ...totals);
  const step = Math.min(56, (width - 12) / Math.max(1, shown.length));
  const scale = (height - bottom - 18) / most;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": title });
  shown.forEach((day, i) => {
    let y = height - bottom;
    const x = 6 + i * step + 3;
    names.forEach((name, n) => {
      const count = day.answers[name] ?? 0;
      y -= count * scale;
      drawing.append(
        svg("rect", { x, y, width: step - 6, height: count * scale, class: `series-${n % 8}` },
          svg("title", {}, `${day.day}, ${name}: ${count}`)),
      );
    });
    drawing.append(svg("text", { x: x + step / 2 - 3, y: y - 5, class: "middle" }, String(totals[i])));
    if (shown.length <= 8 || i % 3 === 0) {
      drawing.append(svg("text", { x: x + step / 2 - 3, y: height - 7, class: "middle" }, day.day.slice(5)));
    }
  });
  drawing.append(svg("line", { x1: 6, x2: width - 6, y1: height - bottom, y2: height - bottom, class: "axis" }));
  const legend = el("ul", { class: "legend" }, names.map((name, n) =>
    el("li", {}, svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" },
      svg("rect", { width: 10, height: 10, rx: 2, class: `series-${n % 8}` })), name)));
  return el("div", {}, drawing, legend);
}
