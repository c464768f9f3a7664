"use strict";
// Tables: those in the page are sorted where they stand; that of runs is made from its columns.
function compare(a, b) {
  const [x, y] = [a, b].map((v) => (v === null || v === undefined || v === "" || v === "-" ? null : v));
  if (x === null || y === null) return (x === null) - (y === null);
  if (typeof x === "number" && typeof y === "number") return x - y;
  return String(x).localeCompare(String(y), "en", { numeric: true });
}

// Unknown values stay last in both directions.
const directed = (sign) => (a, b) =>
  (a === null || b === null || a === "-" || b === "-" ? compare(a, b) : sign * compare(a, b));

function sortButton(header, text, sort) {
  header.replaceChildren(element("button", { type: "button", class: "sort", onclick: () => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    sort(up ? 1 : -1);
  } }, text));
}

function makeSortable(table) {
  const value = (row, i) => {
    const cell = row.cells[i];
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    const number = Number(text.replace(/,/g, "").replace(/^\+|\s*[x%].*$| points?$/g, ""));
    return text !== "" && Number.isFinite(number) ? number : text || null;
  };
  [...table.tHead.rows[0].cells].forEach((header, i) => sortButton(header, header.textContent, (sign) => {
    const by = directed(sign);
    const rows = [...table.tBodies[0].rows].sort((a, b) => by(value(a, i), value(b, i)));
    table.tBodies[0].append(...rows);
  }));
}

const RUNS = unpacked(DATA.table.data);
const COLUMNS = DATA.table.columns;
const PAGE_ROWS = 60;
const view = { order: RUNS.policy.map((_, i) => i), by: null, sign: 1, until: PAGE_ROWS };

const COMPARISONS = { "<": (a, b) => a < b, ">": (a, b) => a > b, "=": (a, b) => a === b,
  "<=": (a, b) => a <= b, ">=": (a, b) => a >= b };

// Words must all occur in a row; `tpot_s<20` compares a column, by its name or its label.
function matcher(text) {
  const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  return words.map((word) => {
    const [, left, sign, right] = word.match(/^([^<>=]+)(<=|>=|<|>|=)(-?[\d.]+)$/) ?? [];
    const column = COLUMNS.find((each) => each.name.toLowerCase() === left);
    if (column && !column.text) {
      const test = COMPARISONS[sign];
      return (i) => RUNS[column.name][i] !== null && test(RUNS[column.name][i], Number(right));
    }
    const texts = COLUMNS.filter((each) => each.text).map((each) => RUNS[each.name]);
    const reasons = DATA.table.of.reason;
    return (i) => texts.some((each) => String(each[i]).toLowerCase().includes(word))
      || said(reasons, i).toLowerCase().includes(word);
  });
}

const said = (once, i) => once.words[once.at === 0 ? 0 : once.at[i]];

function filterRuns() {
  const tests = matcher(document.getElementById("filter").value);
  const { trace, device, setting } = scene();
  if (document.getElementById("here").checked) {
    tests.push((i) => RUNS.trace[i] === trace && RUNS.device[i] === device
      && (RUNS.setting?.[i] ?? "") === setting);
  }
  view.order = RUNS.policy.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
  if (view.by) {
    const [column, by] = [RUNS[view.by], directed(view.sign)];
    view.order.sort((a, b) => by(column[a], column[b]) || a - b);
  }
  view.until = PAGE_ROWS;
  fillRuns();
}

function runRow(i) {
  const failed = RUNS.status[i] !== "ok";
  return element("tr", { class: failed ? "failed" : null }, ...COLUMNS.filter((c) => c.shown).map((column) => {
    const value = RUNS[column.name][i];
    if (column.name === "policy") {
      const line = DATA.lines[value];
      return element("th", { scope: "row" }, ...(line ? [swatch(line)] : []),
        element("button", { type: "button", class: "link", onclick: () => aboutRun(i) }, value));
    }
    if (column.name === "status" && failed) {
      return element("td", { title: said(DATA.table.of.reason, i) }, value);
    }
    if (column.name === "device") {
      return element("td", { class: RUNS.source[i] }, value);
    }
    return element("td", { class: column.text ? null : "n" }, short(value));
  }));
}

function fillRuns() {
  const [, body] = document.querySelectorAll("#table > *");
  const shown = view.order.slice(0, view.until);
  body.replaceChildren(...shown.map(runRow));
  const [found, all] = [view.order.length, RUNS.policy.length];
  document.getElementById("counted").textContent =
    `${found.toLocaleString("en")} of ${all.toLocaleString("en")} runs` +
    (shown.length < found ? `, the first ${shown.length} here` : "");
  document.getElementById("more").hidden = shown.length >= found;
}

function headRuns() {
  const row = element("tr");
  for (const column of COLUMNS.filter((each) => each.shown)) {
    const header = element("th", { class: column.text ? null : "n", title: column.formula || null });
    if (view.by === column.name) {
      header.setAttribute("aria-sort", view.sign > 0 ? "ascending" : "descending");
    }
    sortButton(header, column.label, (sign) => {
      Object.assign(view, { by: column.name, sign });
      filterRuns();
    });
    row.append(header);
  }
  document.querySelector("#table thead").replaceChildren(row);
}

function fillColumns() {
  document.querySelector("#columns div").replaceChildren(...COLUMNS.map((column) => {
    const box = element("input", { type: "checkbox", checked: column.shown, onchange: () => {
      column.shown = box.checked;
      headRuns();
      fillRuns();
    } });
    return element("label", { title: column.formula || null }, box, ` ${column.label}`);
  }));
}

function facts(title, found) {
  const rows = Object.entries(found).filter(([, value]) => value !== null && value !== "");
  if (!rows.length) return [];
  const text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return [element("h3", {}, title), element("table", { class: "facts" }, element("tbody", {},
    ...rows.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name),
      element("td", { class: "long" }, text(value))))))];
}

// All that a run says of itself: its configuration, numbers, contract and provenance.
function aboutRun(i) {
  const of = DATA.table.of;
  const config = Object.keys(of).filter((name) => name.startsWith("config."))
    .map((name) => [name.slice(7), said(of[name], i)]);
  const numbers = COLUMNS.filter((each) => !each.text)
    .map((each) => [each.label, RUNS[each.name][i] === null ? null : short(RUNS[each.name][i])]);
  const dialog = document.getElementById("about");
  dialog.querySelector("h2").textContent = `${RUNS.policy[i]}, ${RUNS.slots[i]} slots, ${RUNS.device[i]}`;
  const sections = ["contract", "provenance", "trace", "measurement", "memory", "regime"];
  dialog.querySelector("div").replaceChildren(
    ...facts("Run", { id: of.id[i], status: RUNS.status[i], reason: said(of.reason, i),
      "decision digest": of.decision_digest[i] }),
    ...facts("Warnings", said(of.warnings, i)),
    ...facts("Configuration", Object.fromEntries(config)),
    ...facts("Numbers", Object.fromEntries(numbers)),
    ...sections.flatMap((name) => facts(name[0].toUpperCase() + name.slice(1), said(of[name], i) ?? {})));
  dialog.showModal();
}
