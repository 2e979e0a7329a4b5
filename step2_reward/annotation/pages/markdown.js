// A small part of Markdown as elements: paragraphs, headings, lists, quotes, tables, code, emphasis.
// Links are shown and not followed. Time and memory grow with the length of the text, no faster.
import { el, visible } from "./dom.js";

const LONG = 60000; // characters that are shown at first
const DEEPEST = 6; // quotes and lists inside one another
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;

/** What a response's box holds: rendered, or as plain text. */
export function show(text, plain) {
  const box = el("div", { class: plain ? "text plain" : "text", dir: "auto" });
  const cut = text.length > LONG;
  const shown = cut ? text.slice(0, LONG) : text;
  box.append(...(plain ? [visible(shown)] : blocks(visible(shown).split("\n"), 0)));
  if (cut) {
    const more = el("button", { type: "button", class: "more" });
    more.textContent = `Show all ${text.length.toLocaleString()} characters`;
    more.addEventListener("click", () => {
      box.className = "text plain";
      box.replaceChildren(visible(text));
    });
    box.append(more);
  }
  return box;
}

/** Elements for lines of Markdown. */
export function blocks(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const [node, next] = block(lines, at, depth);
    if (node) found.push(node);
    at = next;
  }
  return found;
}

function block(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  const fence = /^ {0,3}(`{3,}|~{3,})/.exec(line);
  if (fence) return code(lines, at, fence[1]);
  const heading = /^ {0,3}(#{1,6})[ \t]+(.*)$/.exec(line);
  if (heading) {
    const level = Math.min(6, 3 + heading[1].length); // below the page's own
    return [el(`h${level}`, {}, inline(heading[2].replace(/[ \t]#+[ \t]*$/, ""))), at + 1];
  }
  if (RULE.test(line)) return [el("hr"), at + 1];
  if (depth < DEEPEST && /^ {0,3}>/.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && item(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, depth);
}

function code(lines, at, fence) {
  let end = at + 1;
  const closing = (line) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");
  while (end < lines.length && !closing(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).join("\n");
  const node = el("pre", { tabindex: "0", dir: "ltr" }, el("code", {}, text));
  return [node, end + 1];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && /^ {0,3}>/.test(lines[end])) end += 1;
  const inside = lines.slice(at, end).map((line) => line.replace(/^ {0,3}> ?/, ""));
  return [el("blockquote", {}, blocks(inside, depth + 1)), end];
}

function item(line) {
  const found = /^([ \t]*)(?:([-*+])|(\d{1,9})[.)])(?:[ \t]+(.*))?$/.exec(line);
  if (!found || (found[4] === undefined && found[1].length > 3)) return null;
  const [whole, indent, , number, text = ""] = found;
  return { indent: indent.length, number, text, width: whole.length - text.length };
}

function list(lines, at, depth) {
  const first = item(lines[at]);
  const ordered = first.number !== undefined;
  const node = el(ordered ? "ol" : "ul", ordered ? { start: first.number } : {});
  let next = at;
  while (next < lines.length) {
    const here = item(lines[next]);
    if (!here || here.indent > first.indent + 1 || (here.number !== undefined) !== ordered) break;
    const inside = [here.text];
    next += 1;
    while (next < lines.length) {
      const line = lines[next];
      const indent = line.length - line.trimStart().length;
      if (!line.trim()) {
        const after = lines[next + 1] ?? "";
        if (!after.trim() || after.length - after.trimStart().length <= first.indent) break;
        inside.push("");
      } else if (indent > first.indent) {
        inside.push(line.slice(Math.min(indent, here.width)));
      } else if (item(line) || special(line)) break;
      else inside.push(line);
      next += 1;
    }
    node.append(el("li", {}, tight(blocks(inside, depth + 1))));
    while (next + 1 < lines.length && !lines[next].trim() && item(lines[next + 1])) next += 1;
  }
  return [node, next];
}

/** A list item's one paragraph, without the paragraph's space around it. */
function tight(nodes) {
  const first = nodes[0];
  if (first?.tagName !== "P") return nodes;
  return [...first.childNodes, ...nodes.slice(1)];
}

/** Whether a table's head is here: cells, and below them the line that parts them from the rest. */
function isTable(lines, at) {
  const below = lines[at + 1] ?? "";
  return lines[at].includes("|") && below.includes("|") && below.includes("-") && /^[ \t|:-]+$/.test(below);
}

function table(lines, at) {
  const cells = (line) =>
    line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const row = (tag) => (line) => el("tr", {}, cells(line).map((c) => el(tag, {}, inline(c))));
  const head = el("thead", {}, row("th")(lines[at]));
  const body = el("tbody", {}, lines.slice(at + 2, end).map(row("td")));
  return [el("div", { class: "wide", tabindex: "0" }, el("table", {}, head, body)), end];
}

function special(line) {
  return RULE.test(line) || /^ {0,3}(?:`{3,}|~{3,}|#{1,6}[ \t]|>)/.test(line);
}

function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !special(lines[end])) {
    if ((depth < DEEPEST && item(lines[end])) || isTable(lines, end)) break;
    end += 1;
  }
  const node = el("p", {});
  lines.slice(at, end).forEach((line, i) => {
    if (i) node.append(el("br"));
    node.append(...inline(line.trimEnd())); // code without a fence keeps its indentation
  });
  return [node, end];
}

const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["*", "em"],
  ["_", "em"],
];
const REACH = 2000; // characters within which emphasis and code must end

/** Text and elements for a line; emphasis inside emphasis goes three deep. */
export function inline(text, depth = 0) {
  const found = [];
  let plain = "";
  const flush = () => {
    if (plain) found.push(plain);
    plain = "";
  };
  for (let at = 0; at < text.length; ) {
    const [node, next] = depth < 3 ? span(text, at, depth) : [null, at];
    if (node) {
      flush();
      found.push(node);
      at = next;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  flush();
  return found;
}

function span(text, at, depth) {
  const char = text[at];
  if (char === "\\" && /[\\`*_#[\]()>~|.!+-]/.test(text[at + 1] ?? "")) return [text[at + 1], at + 2];
  if (char === "`") {
    let width = 1;
    while (text[at + width] === "`" && width < 4) width += 1;
    const end = within(text, "`".repeat(width), at + width);
    if (end < 0) return [null, at];
    return [el("code", {}, text.slice(at + width, end)), end + width];
  }
  for (const [mark, tag] of MARKS) {
    if (char !== mark[0] || !text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    if (/\s/.test(text[start] ?? " ")) continue;
    if (char === "_" && /\w/.test(text[at - 1] ?? " ")) continue; // snake_case
    const end = within(text, mark, start + 1);
    if (end < 0 || /\s/.test(text[end - 1])) continue;
    if (char === "_" && /\w/.test(text[end + mark.length] ?? " ")) continue;
    return [el(tag, {}, inline(text.slice(start, end), depth + 1)), end + mark.length];
  }
  return [null, at];
}

function within(text, mark, from) {
  const end = text.slice(from, from + REACH).indexOf(mark);
  return end < 0 ? -1 : from + end;
}
