"use strict";
// Figures are made when they come near, and given new rows when something else is looked at.
const FIGURES = DATA.figures.map((about) => ({
  ...about, node: document.getElementById(`figure-${about.name}`), view: null, drawing: null,
}));

// The lines of the page stand where a definition says "@lines".
function withLines(spec) {
  const names = Object.keys(DATA.lines);
  const walk = (node) => {
    if (Array.isArray(node)) return node.map(walk);
    if (node === null || typeof node !== "object") return node;
    if (Array.isArray(node.domain) && node.domain[0] === "@lines") {
      const dashed = Array.isArray(node.range[0]);
      const range = names.map((name) => (dashed ? DATA.lines[name].dash : DATA.lines[name].colour));
      return { ...node, domain: names, range };
    }
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, walk(value)]));
  };
  return walk(spec);
}

const hasRows = (figure, rows) =>
  rows.some((row) => row[figure.needs] !== null && row[figure.needs] !== undefined);

function whereText(figure) {
  const words = [scene().trace, scene().place, scene().setting];
  const of = DATA.maps.of[state.map];
  if (figure.shape === "devices") words[1] = "all devices";
  if (figure.shape === "map") words.push(...(of ? [of.policy, sizeText(of.slots)] : []));
  else if (figure.shape !== "points") words.push(sizeText(state.slots));
  return words.filter(Boolean).join(", ");
}

// Of the capacities those that leave room for a word each on a logarithmic axis.
function ticks(rows, room) {
  const shares = [...new Set(rows.map((row) => row.share))].filter((share) => share > 0)
    .sort((a, b) => b - a);
  const least = room * Math.log(shares[0] / shares.at(-1));
  const kept = shares.slice(0, 1);
  for (const share of shares.slice(1)) if (Math.log(kept.at(-1) / share) >= least) kept.push(share);
  return kept.reverse();
}

async function draw(figure) {
  const rows = SHAPES[figure.shape]();
  const known = hasRows(figure, rows);
  const { node } = figure;
  node.hidden = !known;
  sayAbsent();
  const where = node.querySelector(".where");
  where.replaceChildren(badge(scene().measured), ` ${whereText(figure)}`);
  if (!known) return;
  const { step } = figure.spec.height;
  const height = step && step * new Set(rows.filter((row) => hasRows(figure, [row]))
    .map((row) => row.policy)).size;
  const shares = figure.shape === "points" && ticks(rows, 40 / node.clientWidth);
  if (figure.view) {
    if (shares) figure.view.signal("ticks", shares);
    if (step) figure.view.signal("height", height);
    await figure.view.data("rows", rows).resize().runAsync();
    return;
  }
  const spec = withLines(figure.spec);
  spec.data = { name: "rows", values: rows };
  if (step) spec.height = height;
  if (shares) spec.params[0].value = shares;
  const made = await vegaEmbed(node.querySelector(".chart"), spec, {
    actions: false, renderer: "svg",
  });
  figure.view = made.view;
}

// What cannot be drawn is a line that says why, never a silence.
function sayAbsent() {
  const lines = FIGURES.filter(({ node }) => node.hidden)
    .map(({ title, absent }) => element("li", {}, element("b", {}, title), `: ${absent}`));
  document.getElementById("absent").replaceChildren(...lines);
}

// One after another, so that a later state never loses to an earlier one.
function redraw(figure) {
  figure.drawing = (figure.drawing ?? Promise.resolve()).then(() => draw(figure));
  return figure.drawing;
}

const badge = (measured) => {
  const word = measured ? "measured" : "simulated";
  return element("span", { class: `badge ${word}` }, word);
};

function redrawAll() {
  for (const figure of FIGURES) if (figure.drawing) redraw(figure);
}

function watchFigures() {
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      const figure = FIGURES.find(({ node }) => node === target);
      if (!figure.drawing) redraw(figure);
    }
  }, { rootMargin: "400px" });
  for (const { node } of FIGURES) seen.observe(node);
  const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 50));
  const next = () => {
    const figure = FIGURES.find(({ drawing }) => !drawing);
    if (figure) redraw(figure).finally(() => idle(next));
    else document.documentElement.dataset.drawn = "all";
  };
  idle(next);
  window.addEventListener("beforeprint", () => {
    FIGURES.filter((figure) => !figure.drawing).forEach(redraw);
    for (const each of document.querySelectorAll("details.warnings")) each.open = true;
  });
}

function swatch(line) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 26 8");
  svg.setAttribute("aria-hidden", "true");
  const stroke = document.createElementNS(svg.namespaceURI, "path");
  stroke.setAttribute("d", "M0 4H26");
  stroke.setAttribute("stroke", line.colour);
  stroke.setAttribute("stroke-width", "2.5");
  if (line.dash[1] > 0) stroke.setAttribute("stroke-dasharray", line.dash.join(" "));
  svg.append(stroke);
  return svg;
}

function chip(name) {
  const line = DATA.lines[name];
  const made = element("button", {
    type: "button", class: "chip", "data-line": name,
    "aria-pressed": String(!state.hidden.has(name)),
    title: line.future ? "knows the future: a bound, not a choice" : null,
    onclick: () => {
      if (!state.hidden.delete(name)) state.hidden.add(name);
      made.setAttribute("aria-pressed", String(!state.hidden.has(name)));
      redrawAll();
    },
  }, swatch(line), name + (line.future ? " †" : ""));
  return made;
}

function fillLegend() {
  const here = new Set(ROW_NUMBERS[state.scene].map((i) => POINTS.policy[i]));
  const bounds = Object.keys(DATA.lines).filter((n) => DATA.lines[n].bound && here.has(n));
  const names = scene().lines.filter((name) => here.has(name));
  const [first, rest] = [names.slice(0, 12), names.slice(12)];
  const set = (shown) => () => {
    for (const name of [...names, ...bounds]) {
      if (shown(name)) state.hidden.delete(name);
      else state.hidden.add(name);
    }
    fillLegend();
    redrawAll();
  };
  const starters = new Set([...scene().shown, ...bounds]);
  const tools = [
    element("button", { type: "button", class: "link", onclick: set((n) => starters.has(n)) }, "as at first"),
    element("button", { type: "button", class: "link", onclick: set(() => true) }, "all"),
    element("button", { type: "button", class: "link", onclick: set(() => false) }, "none"),
  ];
  const more = rest.length
    ? [element("details", {}, element("summary", {}, `${rest.length} more compositions`),
      element("div", { class: "chips" }, ...rest.map(chip)))]
    : [];
  document.getElementById("legend").replaceChildren(
    element("div", { class: "chips" }, ...first.map(chip), ...bounds.map(chip)), ...more,
    element("p", { class: "tools" }, "Show: ", ...tools,
      names.some((name) => DATA.lines[name].future)
        ? element("span", {}, "† knows the future: a bound, not a choice") : ""));
}
