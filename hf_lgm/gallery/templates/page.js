"use strict";
// Everything that is shown goes through textContent and properties: names are a stranger's, and stay text.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const [list, dialog, search, slider] = ["classes", "detail", "search", "step"].map(byId);
const items = []; // of each class: its place in the list, and its name as it is searched for
const tiles = []; // the buttons of all images, in their order
let current = null; // the image that is open
let playing = 0;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(Boolean));
  return element;
}

const nameOf = (label) => data.classes[label].trim() || "(blank)";
const named = (tag, label, properties = {}) =>
  make(tag, { dir: "auto", title: nameOf(label), textContent: nameOf(label), ...properties });
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

function madeThrough(set) {
  const through = set.through.join(" and ");
  if (set.is_real) return through ? `real images, chosen through ${through}` : "real images";
  return through ? `through ${through}` : "it does not say through which backbone";
}

// Images are decoded when they come near to the window, not before.

const sources = new WeakMap();
const arrivals = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      target.src = sources.get(target);
      arrivals.unobserve(target);
    }
  },
  { rootMargin: "400px" },
);

function words(set, image) {
  const kind = image.row === null ? "Distilled image" : `Real image, row ${image.row} of the source,`;
  const where = data.sets.length > 1 ? `, ${set.name}` : "";
  return `${kind} of ${nameOf(image.label)}${where}${image.src ? "" : ", which is not here"}`;
}

function picture(src, alt) {
  const element = make("img", { alt, decoding: "async" });
  sources.set(element, src);
  arrivals.observe(element);
  return element;
}

function hatched(row, alt) {
  const said = make("span", {}, `row ${row}`, make("br"), "not here");
  const element = make("div", { className: "missing" }, said);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", alt);
  return element;
}

function shown(set, image) {
  return image.src ? picture(image.src, words(set, image)) : hatched(image.row, words(set, image));
}

function tile(set, image, open) {
  const button = make("button", { type: "button", className: "tile", onclick: open }, shown(set, image));
  button.image = image;
  return button;
}

// The grid: a card for each class, or a row with a cell for each set.

function fillGrid() {
  const most = Math.max(...data.sets.map((set) => set.images.length)) / Math.max(1, data.classes.length);
  const isRows = data.sets.length > 1 || most > 1;
  const main = document.querySelector("main");
  main.classList.add(isRows ? "rows" : "cards");
  main.classList.toggle("narrow", isRows && most <= 1);
  main.style.setProperty("--sets", data.sets.length);
  main.style.setProperty("--column", most > 1 ? "1fr" : `${Math.max(7, Math.min(14, 48 / data.sets.length))}rem`);
  main.style.setProperty("--card", data.classes.length > 30 ? "8.5rem" : "11rem");
  const cells = data.sets.map((set) => {
    const byClass = data.classes.map(() => []);
    set.images.forEach((image, number) => {
      Object.assign(image, { set, number });
      byClass[image.label].push(image);
    });
    set.byClass = byClass;
    return byClass;
  });
  data.classes.forEach((name, label) => {
    const item = make("li", {}, named("h2", label));
    cells.forEach((byClass, number) => {
      const own = byClass[label].map((image) => tile(data.sets[number], image, () => open(image)));
      for (const button of own) button.tabIndex = -1;
      tiles.push(...own);
      item.append(...(isRows ? [make("div", { className: "cell" }, ...own)] : own));
    });
    items.push({ item, folded: folded(name) });
  });
  list.append(...items.map(({ item }) => item));
  fillHeads(isRows);
}

function fillHeads(isRows) {
  const images = data.sets.reduce((sum, set) => sum + set.images.length, 0);
  const size = `${count(images, "image", "images")} of ${count(data.classes.length, "class", "classes")}`;
  const [first] = data.sets;
  byId("about").textContent = data.sets.length > 1 ? size : `${size}, ${madeThrough(first)}`;
  if (!isRows || data.sets.length < 2) return;
  const heads = byId("sets");
  heads.hidden = false;
  for (const set of data.sets) {
    const about = make("p", { className: "soft", textContent: madeThrough(set) });
    heads.append(make("div", {}, make("h2", { dir: "auto", textContent: set.name }), about));
  }
  const follow = () => heads.style.setProperty("--top", `${document.querySelector("header").offsetHeight}px`);
  new ResizeObserver(follow).observe(document.querySelector("header"));
}

// Search.

function filter() {
  const wanted = folded(search.value.trim());
  let found = 0;
  for (const { item, folded: name } of items) {
    item.hidden = !name.includes(wanted);
    found += !item.hidden;
  }
  const all = count(items.length, "class", "classes");
  byId("count").textContent = wanted ? (found ? `${found.toLocaleString("en")} of ${all}` : "No such class") : all;
  rove(visibleTiles()[0]);
}

// Arrow keys: of all images one can be reached by Tab, the others from there.

const visibleTiles = () => tiles.filter((button) => !button.closest("li").hidden);

function rove(button) {
  for (const other of tiles) if (other.tabIndex === 0) other.tabIndex = -1;
  if (button) button.tabIndex = 0;
}

function inNextLine(visible, at, step) {
  const middle = (box) => box.left + box.width / 2;
  const here = visible[at].getBoundingClientRect();
  let line = null;
  let best = null;
  for (let i = at + step; visible[i]; i += step) {
    const box = visible[i].getBoundingClientRect();
    if (Math.abs(box.top - here.top) < 2) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) >= 2) break;
    const distance = Math.abs(middle(box) - middle(here));
    if (!best || distance < best.distance) best = { distance, button: visible[i] };
  }
  return best?.button;
}

function moveInGrid(event) {
  const visible = visibleTiles();
  const at = visible.indexOf(document.activeElement);
  if (at < 0) return;
  const targets = {
    ArrowRight: () => visible[at + 1],
    ArrowLeft: () => visible[at - 1],
    ArrowDown: () => inNextLine(visible, at, 1),
    ArrowUp: () => inNextLine(visible, at, -1),
    Home: () => visible[0],
    End: () => visible.at(-1),
  };
  if (!targets[event.key]) return;
  event.preventDefault();
  const target = targets[event.key]();
  if (target) target.focus();
}

// One image.

function open(image) {
  current = image;
  const { set, label } = image;
  const own = set.byClass[label];
  byId("detail-name").textContent = nameOf(label);
  const which = own.length > 1 ? `, image ${own.indexOf(image) + 1} of ${own.length}` : "";
  byId("detail-about").textContent = `${set.name}, ${madeThrough(set)}${which}`;
  byId("large").replaceChildren(shown(set, image));
  showGrowth(set, image);
  byId("same").replaceChildren(...[sameClass(image)].filter(Boolean));
  byId("facts").replaceChildren(...[neighbours(set, image), realOnes(image), confusions(set, label)].filter(Boolean));
  byId("facts").hidden = !byId("facts").hasChildNodes();
  if (!dialog.open) dialog.showModal();
  if (!document.activeElement.closest("dialog .buttons")) byId("detail-name").focus(); // what had it may be gone
  dialog.scrollTop = 0;
}

function section(title, note, ...content) {
  return make("section", {}, make("h3", { textContent: title }), note && make("p", { className: "soft", textContent: note }), ...content);
}

function strip(entries) {
  return make("ul", { className: "strip" }, ...entries.map((parts) => make("li", {}, ...parts)));
}

const similarity = (cosine) => make("div", { className: "soft number", textContent: cosine.toFixed(2) });

function sameClass(image) {
  const all = data.sets.flatMap((set) => set.byClass[image.label]);
  if (all.length < 2) return null;
  const entries = all.map((other) => {
    const button = tile(other.set, other, () => open(other));
    if (other === image) button.setAttribute("aria-current", "true");
    const set = data.sets.length > 1 && make("div", { className: "name soft", dir: "auto", textContent: other.set.name });
    return [button, set];
  });
  return section("All of this class", null, strip(entries));
}

function neighbours(set, image) {
  if (!image.synthetic?.length) return null;
  const entries = image.synthetic.map(([number, cosine]) => {
    const other = set.images[number];
    return [tile(set, other, () => open(other)), named("div", other.label, { className: "name" }), similarity(cosine)];
  });
  return section("Nearest in the set", `By the cosine of their features through ${data.seen.model}.`, strip(entries));
}

function realOnes(image) {
  if (!image.real?.length) return null;
  const where = `the ${data.seen.split} split of ${data.seen.dataset}`;
  if (image.real.every((near) => near.src)) {
    const entries = image.real.map((near) => [
      make("div", { className: "picture" }, picture(near.src, `Real image, row ${near.row}, of ${nameOf(near.label)}`)),
      named("div", near.label, { className: "name" }),
      similarity(near.similarity),
    ]);
    return section("Nearest real images", `In ${where}.`, strip(entries));
  }
  const head = make("tr", {}, ...["Row", "Class"].map((text) => make("th", { scope: "col", textContent: text })));
  head.append(make("th", { scope: "col", className: "number", textContent: "Similarity" }));
  const lines = image.real.map((near) =>
    make(
      "tr",
      {},
      make("td", { textContent: near.row }),
      named("td", near.label),
      make("td", { className: "number", textContent: near.similarity.toFixed(2) }),
    ),
  );
  const table = make("table", { className: "table" }, make("thead", {}, head), make("tbody", {}, ...lines));
  return section("Nearest real images", `Rows of ${where}, whose images are not in this page.`, table);
}

function confusions(set, label) {
  const found = set.confusions?.[label];
  if (!found?.total) return null;
  const lines = found.taken_for.map(([other, number]) => {
    const share = (100 * number) / found.total;
    const bar = make("div");
    bar.style.width = `${share}%`;
    const text = share > 0 && share < 1 ? "< 1 %" : `${Math.round(share)} %`;
    const name = named("span", other, { className: "name" });
    const line = make("li", {}, name, make("div", { className: "track" }, bar), make("span", { className: "number", textContent: text }));
    line.className = other === label ? "right" : "";
    return line;
  });
  const note = `What a probe trained on this set takes ${count(found.total, "real image", "real images")} of this class for.`;
  return section("Taken for", note, make("ul", { className: "shares" }, ...lines));
}

// Growth: pictures of the run, each of all images in a grid, of which one cell is shown.

function showGrowth(set, image) {
  stop();
  const isThere = set.growth && Number.isInteger(image.cell);
  byId("growth").hidden = !isThere;
  if (!isThere) return;
  slider.max = set.growth.frames.length;
  slider.value = slider.max;
  drawStep();
}

async function drawStep() {
  const { set, cell, label } = current;
  const { frames, columns, rows } = set.growth;
  const step = Number(slider.value);
  const isFinished = step >= frames.length;
  const text = isFinished ? "finished" : `${step + 1} of ${frames.length}`;
  byId("frame").textContent = text;
  slider.setAttribute("aria-valuetext", isFinished ? "finished" : `picture ${text}`);
  let canvas = byId("large").querySelector("canvas");
  if (isFinished) {
    canvas?.remove();
    return;
  }
  const frame = new Image();
  frame.src = frames[step];
  await frame.decode();
  if (Number(slider.value) !== step || current.set !== set || current.cell !== cell) return; // meanwhile moved on
  const [width, height] = [frame.naturalWidth / columns, frame.naturalHeight / rows];
  canvas = byId("large").querySelector("canvas") ?? byId("large").appendChild(make("canvas", { width, height }));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${nameOf(label)} on the way, picture ${text}`);
  canvas.getContext("2d").drawImage(frame, -(cell % columns) * width, -Math.floor(cell / columns) * height);
}

function stop() {
  clearInterval(playing);
  playing = 0;
  byId("play").textContent = "Play";
}

function play() {
  if (playing) return stop();
  if (slider.value === slider.max) slider.value = 0;
  byId("play").textContent = "Stop";
  playing = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    drawStep();
    if (slider.value === slider.max) stop();
  }, 120);
  return drawStep();
}

// The image before or after it that is not filtered away, of the same set.

function goOn(step) {
  const own = visibleTiles().map((button) => button.image).filter((image) => image.set === current.set);
  const at = own.indexOf(current);
  open(own.at((at + step + own.length) % own.length) ?? current);
}

byId("previous").onclick = () => goOn(-1);
byId("next").onclick = () => goOn(1);
byId("close").onclick = () => dialog.close();
byId("play").onclick = play;
slider.oninput = () => {
  stop();
  drawStep();
};
search.oninput = filter;
search.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== "ArrowDown") return;
  event.preventDefault();
  visibleTiles()[0]?.focus();
});
list.addEventListener("keydown", moveInGrid);
list.addEventListener("focusin", (event) => rove(event.target));
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!dialog.open || !step || event.target === slider) return;
  event.preventDefault();
  goOn(step);
});
dialog.addEventListener("close", () => {
  stop();
  tiles.find((button) => button.image === current)?.focus();
});
fillGrid();
filter();
