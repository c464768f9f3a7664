"use strict";
// What is looked at: a scene and a capacity, chosen above; everything below follows.
const picks = Object.fromEntries(["trace", "device", "setting", "slots"]
  .map((name) => [name, document.getElementById(`pick-${name}`)]));

function fillSelect(select, values, chosen, text = (value) => value) {
  select.replaceChildren(...values.map((value) =>
    element("option", { value, selected: value === chosen }, text(value))));
  select.closest("label").hidden = values.length < 2;
}

const unique = (values) => [...new Set(values)];

function fillPicks() {
  const now = scene();
  const all = DATA.scenes;
  fillSelect(picks.trace, unique(all.map((each) => each.trace)), now.trace);
  const ofTrace = all.filter((each) => each.trace === now.trace);
  fillSelect(picks.device, unique(ofTrace.map((each) => each.device)), now.device);
  const ofDevice = ofTrace.filter((each) => each.device === now.device);
  fillSelect(picks.setting, unique(ofDevice.map((each) => each.setting)), now.setting,
    (setting) => setting || "as usual");
  fillSelect(picks.slots, now.slots, state.slots, sizeText);
}

// The scene that agrees with what was picked, and as far as may be with the one before.
function pick(changed) {
  const before = scene();
  const wanted = { ...before, [changed]: picks[changed].value };
  const fits = (each) => (each[changed] === wanted[changed] ? 4 : -4)
    + 2 * (each.trace === wanted.trace) + (each.device === wanted.device)
    + (each.setting === wanted.setting);
  const scores = DATA.scenes.map(fits);
  look(scores.indexOf(Math.max(...scores)));
}

function look(number, slots) {
  const before = scene().slots.indexOf(state.slots);
  state.scene = number;
  const all = scene().slots;
  if (slots !== undefined) state.slots = slots;
  else if (!all.includes(state.slots)) {
    state.slots = all[before < 0 ? Math.floor(all.length / 2) : Math.min(before, all.length - 1)];
  }
  const shown = new Set(scene().shown);
  state.hidden = new Set(scene().lines.filter((name) => !shown.has(name)));
  for (const each of document.querySelectorAll(".answer")) {
    each.hidden = Number(each.dataset.scene) !== number;
  }
  fillPicks();
  fillLegend();
  fillMaps();
  redrawAll();
  if (document.getElementById("here").checked) filterRuns();
}

function fillMaps() {
  const here = DATA.maps.of.map((of, i) => i).filter((i) => DATA.maps.of[i].scene === state.scene);
  const at = (i) => DATA.maps.of[i].slots === state.slots;
  state.map = here.find(at) ?? here[0] ?? -1;
  const name = (i) => `${DATA.maps.of[i].policy}, ${sizeText(DATA.maps.of[i].slots)}`;
  for (const select of document.querySelectorAll(".pick-map")) {
    fillSelect(select, here, state.map, name);
  }
}

for (const name of ["trace", "device", "setting"]) {
  picks[name].addEventListener("change", () => pick(name));
}
picks.slots.addEventListener("change", () => {
  state.slots = Number(picks.slots.value);
  fillMaps();
  redrawAll();
});
document.getElementById("pick").addEventListener("submit", (event) => event.preventDefault());
for (const select of document.querySelectorAll(".pick-map")) {
  select.addEventListener("change", () => {
    state.map = Number(select.value);
    for (const other of document.querySelectorAll(".pick-map")) other.value = select.value;
    redrawAll();
  });
}
for (const button of document.querySelectorAll("button[data-scene]")) {
  button.addEventListener("click", () => {
    look(Number(button.dataset.scene));
    document.getElementById("pick").scrollIntoView({ block: "start" });
  });
}
document.querySelectorAll("table.sortable").forEach(makeSortable);
document.getElementById("filter").addEventListener("input", filterRuns);
document.getElementById("here").addEventListener("change", filterRuns);
document.getElementById("more").addEventListener("click", () => {
  view.until += 240;
  fillRuns();
});
look(0);
fillColumns();
headRuns();
fillRuns();
watchFigures();
