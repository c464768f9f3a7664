"use strict";
// The data of the page, and what is being looked at.
const DATA = JSON.parse(document.getElementById("data").textContent);
const plain = (column) => (Array.isArray(column) ? column : column.at.map((i) => column.words[i]));
const unpacked = (columns) =>
  Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, plain(column)]));

const POINTS = unpacked(DATA.points);
const NAMES = Object.keys(POINTS);
const ROW_NUMBERS = DATA.scenes.map(() => []);
POINTS.scene.forEach((scene, i) => ROW_NUMBERS[scene].push(i));

const state = { scene: 0, slots: 0, map: 0, hidden: new Set() };
const scene = () => DATA.scenes[state.scene];

function pointRow(i) {
  const row = {};
  for (const name of NAMES) row[name] = POINTS[name][i];
  return row;
}

function pointsOf(number, slots) {
  return ROW_NUMBERS[number]
    .filter((i) => !state.hidden.has(POINTS.policy[i]))
    .filter((i) => slots === undefined || POINTS.slots[i] === slots)
    .map(pointRow);
}

// Scenes of other devices with the trace and setting of this one.
function siblings() {
  const { trace, setting } = scene();
  return DATA.scenes.map((each, i) => i)
    .filter((i) => DATA.scenes[i].trace === trace && DATA.scenes[i].setting === setting);
}

function array(place, size) {
  return place === null ? new Array(size).fill(0) : DATA.maps.arrays[place];
}

function expertRows(of) {
  const size = of.layers * of.experts;
  const [asked, missed, late, prefetched] =
    ["asked", "missed", "late", "prefetched"].map((name) => array(of[name], size));
  const rows = [];
  for (let i = 0; i < size; i++) {
    rows.push({
      layer: Math.floor(i / of.experts),
      expert: i % of.experts,
      hit_rate: asked[i] ? (100 * (asked[i] - missed[i] - late[i])) / asked[i] : null,
      traffic: of.bytes ? ((missed[i] + prefetched[i]) * of.bytes) / 1e6 : null,
      asked: asked[i], missed: missed[i], late: late[i], prefetched: prefetched[i],
    });
  }
  return rows;
}

function stepRows(of) {
  const rows = [];
  let at = 0;
  for (let layer = 0; layer < of.layers; layer++) {
    for (const [part, title] of Object.entries(DATA.parts)) {
      const ms = of[part] === null ? 0 : DATA.maps.arrays[of[part]][layer];
      if (!ms) continue;
      rows.push({ policy: of.policy, layer, part: title, start: at, end: at + ms, ms });
      at += ms;
    }
  }
  return rows;
}

const SHAPES = {
  points: () => pointsOf(state.scene),
  capacity: () => pointsOf(state.scene, state.slots).filter((row) => !row.bound),
  devices: () => {
    const here = siblings();
    if (here.length < 2) return [];
    return here.flatMap((i, place) =>
      pointsOf(i, state.slots).map((row) => ({ ...row, device: DATA.scenes[i].device, place })));
  },
  map: () => (DATA.maps.of[state.map] ? expertRows(DATA.maps.of[state.map]) : []),
  steps: () => DATA.maps.of
    .filter((of) => of.scene === state.scene && of.slots === state.slots)
    .filter((of) => !state.hidden.has(of.policy))
    .flatMap(stepRows),
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const short = (value) => {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 99.95
    ? value.toLocaleString("en", { maximumFractionDigits: 0 })
    : value.toPrecision(3).includes("e") ? value.toExponential(2) : Number(value).toPrecision(3);
};

function sizeText(slots) {
  const i = POINTS.slots.findIndex((each, at) => each === slots && POINTS.scene[at] === state.scene);
  const gb = POINTS.gb ? POINTS.gb[i] : null;
  const share = `${Number(POINTS.share[i].toFixed(1))} %`;
  return gb === null ? `${slots} slots (${share})`
    : gb >= 0.1 ? `${short(gb)} GB (${share})` : `${short(1e3 * gb)} MB (${share})`;
}
