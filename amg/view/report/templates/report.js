// The report in the browser: the gallery, and a viewer that draws an image's masks.
//
// Data come as scripts that call `amgReport` (a page opened from a disk may not fetch files). What
// they hold is only ever put into the page as text: no HTML is made here.

"use strict";

// ---------------------------------------------------------------------------------------------
// Masks: COCO's compressed run lengths, column-major. A mask is kept as where its runs end; pixel
// i is in the mask if the number of ends up to i is odd.

/** Read a count string (pycocotools, rleFrString) into the ends of its runs, background first. */
function readRunEnds(counts) {
  const ends = new Int32Array(counts.length); // a run takes at least one character
  let n = 0, end = 0, value = 0, weight = 1, last = 0, beforeLast = 0;
  for (let i = 0; i < counts.length; i++) {
    const digit = counts.charCodeAt(i) - 48;
    value += (digit & 31) * weight; // not shifted: a number may have 35 bits
    weight *= 32;
    if (digit & 32) continue;
    if (digit & 16) value -= weight;
    if (n > 2) value += beforeLast; // from the fourth on, the difference to the one two before
    end += value;
    ends[n++] = end;
    beforeLast = last;
    last = value;
    value = 0;
    weight = 1;
  }
  return ends.slice(0, n);
}

/** Whether a pixel, given by its place column-major, is in a mask: by bisection. */
function isInside(ends, place) {
  let low = 0, high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] <= place) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}

/** For 0 to `full`: how many of `n` pixel centres lie in front, and whether one lies there. */
function makeRanks(full, n) {
  const before = new Int32Array(full + 1), isSampled = new Uint8Array(full + 1);
  for (let i = 0; i < n; i++) isSampled[Math.floor(((2 * i + 1) * full) / (2 * n))] = 1;
  for (let x = 0; x < full; x++) before[x + 1] = before[x] + isSampled[x];
  return { before, isSampled };
}

/** A grid of at most the image's size, column-major, into which masks are painted by their runs:
    each end goes to the number of sampled pixels in front of it, so no mask is ever unpacked. */
class Grid {
  constructor(imageWidth, imageHeight, width, height) {
    this.imageHeight = imageHeight;
    this.width = Math.max(1, Math.min(width, imageWidth));
    this.height = Math.max(1, Math.min(height, imageHeight));
    this.columns = makeRanks(imageWidth, this.width);
    this.rows = makeRanks(imageHeight, this.height);
    this.labels = new Int32Array(this.width * this.height);
  }

  place(end) {
    const x = Math.floor(end / this.imageHeight);
    const inColumn = this.columns.isSampled[x] ? this.rows.before[end - x * this.imageHeight] : 0;
    return this.columns.before[x] * this.height + inColumn;
  }

  paint(ends, label) {
    for (let i = 0; i + 1 < ends.length; i += 2) {
      this.labels.fill(label, this.place(ends[i]), this.place(ends[i + 1]));
    }
  }

  /** The label at each pixel of a canvas, row by row; canvases may be larger than the image. */
  atCanvas(width, height) {
    const labels = new Int32Array(width * height);
    const rows = new Int32Array(height);
    for (let y = 0; y < height; y++) rows[y] = Math.floor(((y + 0.5) * this.height) / height);
    for (let x = 0; x < width; x++) {
      const column = Math.floor(((x + 0.5) * this.width) / width) * this.height;
      for (let y = 0; y < height; y++) labels[y * width + x] = this.labels[column + rows[y]];
    }
    return labels;
  }
}

// ---------------------------------------------------------------------------------------------
// Data files

const amgReport = {
  index: null,
  waiting: new Map(),
  loaded: new Map(), // the images opened last, decoded

  /** Called by data/gallery.js. */
  gallery(index) {
    amgReport.index = index;
    startGallery(index);
  },

  /** Called by data/NUMBER.js. */
  image(data) {
    for (const mask of data.masks) mask.ends = readRunEnds(mask.counts);
    amgReport.waiting.get(data.row)?.(data);
  },

  readRunEnds,
  isInside,
  Grid,
};
window.amgReport = amgReport;

const KEPT_IMAGES = 8;

function fileOf(folder, item, suffix) {
  return `${folder}/${String(item.row).padStart(6, "0")}.${suffix}`;
}

/** The masks of an image, from its data file. */
function loadMasks(item) {
  const { loaded, waiting } = amgReport;
  if (loaded.has(item.row)) return loaded.get(item.row);
  const promise = new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(item.row, resolve);
    script.src = fileOf("data", item, "js");
    script.onload = () => script.remove();
    script.onerror = () => {
      script.remove();
      loaded.delete(item.row);
      reject(new Error(`${script.src} cannot be read`));
    };
    document.head.append(script);
  }).finally(() => waiting.delete(item.row));
  loaded.set(item.row, promise);
  if (loaded.size > KEPT_IMAGES) loaded.delete(loaded.keys().next().value);
  return promise;
}

// ---------------------------------------------------------------------------------------------
// Small helpers

const byId = (id) => document.getElementById(id);

/** An element with a class and children; strings become text. */
function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const whole = (number) => Math.round(number).toLocaleString("en");
const many = (n, one) => `${whole(n)} ${n === 1 ? one : `${one}s`}`;
const score = (number) => (number === null ? "–" : number.toFixed(2));

/** A share in percent; only all is 100 %, and only nothing is 0 %. */
function percent(share, digits = 1) {
  if (share === 0 || share === 1) return `${100 * share} %`;
  const least = 10 ** -digits;
  return `${Math.min(Math.max(100 * share, least), 100 - least).toFixed(digits)} %`;
}

function seconds(number) {
  return number < 10 ? `${Number(number.toPrecision(2))} s` : `${whole(number)} s`;
}

// ---------------------------------------------------------------------------------------------
// Light, dark, or as the system says

const THEMES = ["system", "light", "dark"];

function storedTheme() {
  try {
    return localStorage.getItem("amg-theme");
  } catch {
    return null; // some browsers keep nothing for files
  }
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("amg-theme", theme);
  } catch {
    // for this visit, then
  }
}

function startTheme() {
  let theme = THEMES.includes(storedTheme()) ? storedTheme() : "system";
  setTheme(theme);
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    setTheme(theme);
  });
}

// ---------------------------------------------------------------------------------------------
// The gallery

const PAGE_SIZE = 24;
const isFailed = (item) => !["ok", "empty"].includes(item.status);

/** Orders of the gallery. `key`: smallest first, null leaves an image out. */
const VIEWS = [
  { name: "In order", key: (item) => item.row },
  { name: "Random sample" },
  { name: "Fewest masks", of: "fewest", key: (item) => (isFailed(item) ? null : item.masks) },
  { name: "Most masks", of: "most", key: (item) => (isFailed(item) ? null : -item.masks) },
  { name: "Least coverage", of: "uncovered", key: (item) => item.coverage },
  { name: "Slowest", of: "slowest", key: (item) => -item.seconds },
  { name: "Failed", of: "failed", key: (item) => (isFailed(item) ? item.row : null) },
];

const gallery = { items: [], byRow: new Map(), view: VIEWS[0], shown: [], page: 0 };

function startGallery(index) {
  gallery.items = index.items;
  gallery.byRow = new Map(index.items.map((item) => [item.row, item]));
  gallery.view = VIEWS[index.isAll ? 0 : 1];
  for (const view of VIEWS) {
    if (view.of === "failed" && !index.items.some(isFailed)) continue;
    const input = make("input");
    Object.assign(input, { type: "radio", name: "view", checked: view === gallery.view });
    input.addEventListener("change", () => showView(view));
    byId("views").append(make("label", "", input, make("span", "", view.name)));
  }
  byId("search").addEventListener("input", () => showView(gallery.view));
  byId("page-before").addEventListener("click", () => turnTo(gallery.page - 1));
  byId("page-after").addEventListener("click", () => turnTo(gallery.page + 1));
  byId("page").addEventListener("change", (event) => turnTo(event.target.selectedIndex));
  byId("gallery-tools").hidden = false;
  byId("without-script").remove();
  showView(gallery.view);
  startViewer();
}

function itemsOf(view) {
  if (!view.key) return amgReport.index.sample.map((row) => gallery.byRow.get(row));
  const kept = gallery.items.filter((item) => view.key(item) !== null);
  return kept.sort((a, b) => view.key(a) - view.key(b) || a.row - b.row);
}

/** What the reader may conclude from an order, and what not. */
function hintOf(view) {
  const { isAll, extremes, sample } = amgReport.index;
  if (!view.key) return isAll ? "All images, shuffled." : `${many(sample.length, "image")}, drawn uniformly.`;
  if (isAll || !view.of) return "";
  const n = extremes[view.of];
  if (!n) return "";
  return `The first ${whole(n)} are the first of the whole run in this order; after them come the other images of the gallery.`;
}

function showView(view) {
  gallery.view = view;
  const wanted = byId("search").value.trim().toLowerCase();
  gallery.shown = itemsOf(view).filter((item) => item.id.toLowerCase().includes(wanted));
  const found = wanted ? `${many(gallery.shown.length, "image")} with this name. ` : "";
  byId("view-hint").textContent = found + hintOf(view);
  const nPages = Math.max(1, Math.ceil(gallery.shown.length / PAGE_SIZE));
  byId("page").replaceChildren(...Array.from({ length: nPages }, (_, i) => new Option(whole(i + 1))));
  byId("page-of").textContent = `of ${whole(nPages)}`;
  byId("pages").hidden = nPages === 1;
  turnTo(0, false);
}

function turnTo(page, isTurned = true) {
  gallery.page = page;
  const first = page * PAGE_SIZE;
  const items = gallery.shown.slice(first, first + PAGE_SIZE);
  byId("grid").replaceChildren(...items.map(makeCard));
  byId("page").selectedIndex = page;
  byId("page-before").disabled = page === 0;
  byId("page-after").disabled = first + PAGE_SIZE >= gallery.shown.length;
  if (isTurned) byId("gallery").scrollIntoView();
}

function makeCard(item) {
  const card = make("a", "card");
  card.href = `#image=${item.row}`;
  if (item.note === null) {
    const thumb = make("img");
    Object.assign(thumb, { src: fileOf("thumbs", item, "jpg"), alt: "", loading: "lazy", decoding: "async" });
    card.append(thumb);
  } else {
    card.append(make("span", "blank", item.note));
  }
  const name = make("span", "name", make("bdi", "", item.id));
  name.title = item.id;
  const about = make("span", "about");
  if (isFailed(item)) about.append(make("span", "badge", item.status));
  else {
    const coverage = item.coverage === null ? "" : ` · ${percent(item.coverage, 0)} covered`;
    about.append(gallery.view.of === "slowest" ? seconds(item.seconds) : many(item.masks, "mask") + coverage);
  }
  card.append(make("div", "text", name, about));
  return make("li", "", card);
}

// ---------------------------------------------------------------------------------------------
// The viewer

const MAX_CANVAS_PX = 1600;
const FILL = 0.5, SELECTED_FILL = 0.55, SHADE = 0.45;
const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

const viewer = {
  item: null,
  masks: [], // largest first
  shown: [], // places in `masks` of those that pass the filters
  under: [], // of those, the ones under the pointer, smallest first
  active: null, // the one that is shown, a place in `masks`
};

function startViewer() {
  const dialog = byId("viewer");
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", leave);
  dialog.addEventListener("keydown", onKey);
  const frame = byId("frame");
  frame.addEventListener("pointermove", (event) => event.pointerType !== "touch" && pointAt(event));
  frame.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && select(null));
  frame.addEventListener("click", cycleAt);
  for (const id of ["least-iou", "least-stability", "least-area"]) {
    byId(id).addEventListener("input", () => {
      filter();
      drawSoon();
    });
  }
  byId("drawn").addEventListener("change", drawOverlay);
  startList();
  new ResizeObserver(layOut).observe(byId("stage"));
  window.addEventListener("hashchange", followHash);
  followHash();
}

/** The image that the address names, if any, is the one that is open. */
function followHash() {
  const match = /^#image=(\d+)$/.exec(location.hash);
  const item = match ? gallery.byRow.get(Number(match[1])) : undefined;
  if (item) show(item);
  else if (byId("viewer").open) byId("viewer").close();
}

function leave() {
  const item = viewer.item;
  viewer.item = null;
  if (location.hash.startsWith("#image=")) history.replaceState(null, "", "#gallery");
  const place = gallery.shown.indexOf(item);
  if (place < 0) return;
  const page = Math.floor(place / PAGE_SIZE);
  if (page !== gallery.page) turnTo(page, false);
  byId("grid").children[place % PAGE_SIZE].firstChild.focus();
}

/** Go to another image of the order that the gallery is in. */
function step(by) {
  const place = gallery.shown.indexOf(viewer.item);
  const item = place < 0 ? gallery.shown[0] : gallery.shown[place + by];
  if (!item) return;
  history.replaceState(null, "", `#image=${item.row}`);
  show(item);
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const isSlider = event.target.type === "range";
  if (event.key === "ArrowLeft" && !isSlider) step(-1);
  else if (event.key === "ArrowRight" && !isSlider) step(1);
  else if (event.key === "m") byId("drawn").click();
  else return;
  event.preventDefault();
}

async function show(item) {
  viewer.item = item;
  Object.assign(viewer, { masks: [], shown: [], under: [], active: null });
  const place = gallery.shown.indexOf(item);
  byId("viewer-name").firstChild.textContent = item.id;
  byId("viewer-name").title = item.id;
  byId("viewer-place").textContent = place < 0 ? "" : `${whole(place + 1)} of ${whole(gallery.shown.length)}`;
  byId("viewer-uri").replaceChildren(make("bdi", "", item.uri));
  byId("before").disabled = place <= 0;
  byId("after").disabled = place < 0 || place === gallery.shown.length - 1;
  byId("viewer-note").textContent = noteOf(item);
  byId("picture").hidden = item.note !== null;
  byId("picture").alt = `The image ${item.id}`;
  if (item.note === null) byId("picture").src = fileOf("images", item, "jpg");
  else byId("picture").removeAttribute("src");
  if (!byId("viewer").open) {
    byId("viewer").showModal();
    byId("viewer-name").focus();
  }
  layOut();
  try {
    const { masks } = await loadMasks(item);
    if (viewer.item !== item) return; // the reader has gone on
    viewer.masks = masks;
    setUpFilters();
    filter();
    drawOverlay();
  } catch (error) {
    if (viewer.item === item) byId("viewer-note").textContent = error.message;
    return;
  }
  const next = gallery.shown[place + 1];
  if (place >= 0 && next?.note === null) new Image().src = fileOf("images", next, "jpg");
}

function noteOf(item) {
  const reason = isFailed(item) ? `${item.status}: ${item.error ?? "no reason was given"}` : "";
  const masks = item.note !== null && item.masks ? " Its masks are shown all the same." : "";
  if (item.status === "missing") return reason;
  return [reason, item.note === null ? "" : item.note + masks].filter(Boolean).join(" ");
}

// Layout: the frame has the image's shape and fills the stage; canvases have its real pixels.

function layOut() {
  const { item } = viewer;
  if (!item) return;
  const frame = byId("frame"), stage = byId("stage");
  const hasSize = item.width !== null && (item.note === null || item.masks > 0);
  frame.hidden = !hasSize;
  if (!hasSize) return;
  const style = getComputedStyle(stage);
  const note = byId("viewer-note").offsetHeight;
  const roomX = stage.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const roomY = stage.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom) - note;
  const scale = Math.min(roomX / item.width, roomY / item.height);
  const width = Math.max(1, item.width * scale), height = Math.max(1, item.height * scale);
  frame.style.width = `${width}px`;
  frame.style.height = `${height}px`;
  const sharpness = Math.min(window.devicePixelRatio || 1, MAX_CANVAS_PX / Math.max(width, height));
  for (const id of ["overlay", "highlight"]) {
    byId(id).width = Math.max(1, Math.round(width * sharpness));
    byId(id).height = Math.max(1, Math.round(height * sharpness));
  }
  drawOverlay();
  drawHighlight();
}

// Drawing

function packed([red, green, blue], opacity) {
  const alpha = Math.round(255 * opacity);
  const bytes = LITTLE_ENDIAN ? [red, green, blue, alpha] : [alpha, blue, green, red];
  return ((bytes[3] << 24) | (bytes[2] << 16) | (bytes[1] << 8) | bytes[0]) >>> 0;
}

const outlinePx = (canvas) => Math.max(1, Math.round(Math.max(canvas.width, canvas.height) / 700));

/** All masks that pass the filters, each pixel in the colour of the smallest; outlines solid. */
function drawOverlay() {
  const canvas = byId("overlay"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const { item, masks, shown } = viewer;
  if (!item || !masks.length || !byId("drawn").checked) return;
  const { width, height } = canvas, t = outlinePx(canvas);
  const grid = new Grid(item.width, item.height, width, height);
  for (const place of shown) grid.paint(masks[place].ends, place + 1);
  const labels = grid.atCanvas(width, height);
  const fills = [packed([0, 0, 0], SHADE), ...masks.map((mask) => packed(mask.colour, FILL))];
  const lines = [fills[0], ...masks.map((mask) => packed(mask.colour, 1))];
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      const isEdge = (x >= t && labels[i - t] !== label) || (y >= t && labels[i - t * width] !== label);
      pixels[i] = isEdge ? lines[label] : fills[label];
    }
  }
  context.putImageData(image, 0, 0);
}

let willDraw = false;

/** Draw once for all that a slider says until the next frame. */
function drawSoon() {
  if (willDraw) return;
  willDraw = true;
  requestAnimationFrame(() => {
    willDraw = false;
    drawOverlay();
  });
}

/** The mask that is pointed at: its colour, a white outline, and what it was made from. */
function drawHighlight() {
  const canvas = byId("highlight"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const { item, masks, active } = viewer;
  byId("overlay").classList.toggle("faint", active !== null);
  if (!item || active === null) return;
  const { width, height } = canvas, t = outlinePx(canvas), mask = masks[active];
  const grid = new Grid(item.width, item.height, width, height);
  grid.paint(mask.ends, 1);
  const labels = grid.atCanvas(width, height);
  const fill = packed(mask.colour, SELECTED_FILL), line = packed([255, 255, 255], 1);
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!labels[i]) continue;
      const isEdge = !labels[i - t] || !labels[i + t] || !labels[i - t * width] || !labels[i + t * width];
      pixels[i] = isEdge || x < t || x >= width - t ? line : fill;
    }
  }
  context.putImageData(image, 0, 0);
  const at = (x, y) => [(x * width) / item.width, (y * height) / item.height];
  if (mask.asked) drawBox(context, ...at(mask.asked[0], mask.asked[1]), ...at(mask.asked[2], mask.asked[3]), t);
  for (const [x, y] of mask.points) drawPoint(context, ...at(x, y), 2 + 2 * t);
}

/** The box that was asked with. */
function drawBox(context, x0, y0, x1, y1, thickness) {
  for (const [colour, dash] of [["black", []], ["white", [4 * thickness]]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.setLineDash(dash);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  context.setLineDash([]);
}

function drawPoint(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = "white";
  context.fill();
  context.lineWidth = radius / 2;
  context.strokeStyle = "black";
  context.stroke();
}

// Filters

function filterBounds() {
  return {
    iou: Number(byId("least-iou").value),
    stability: Number(byId("least-stability").value),
    area: Number(byId("least-area").value) > 0 ? 10 ** Number(byId("least-area").value) : 0,
  };
}

/** The area's slider ends at the image's size, in powers of ten; the others are the same for all. */
function setUpFilters() {
  const slider = byId("least-area");
  slider.max = Math.max(1, Math.log10(viewer.item.width * viewer.item.height || 10)).toFixed(1);
  byId("filters").disabled = !viewer.masks.length;
}

/** A slider at 0 asks for nothing: scores may be negative, or no number. */
function isAtLeast(score, least) {
  return least === 0 || (score !== null && score >= least);
}

function filter() {
  const least = filterBounds();
  const passes = (mask) =>
    isAtLeast(mask.iou, least.iou) && isAtLeast(mask.stability, least.stability) && mask.area >= least.area;
  viewer.shown = [...viewer.masks.keys()].filter((place) => passes(viewer.masks[place]));
  byId("least-iou-value").textContent = score(least.iou);
  byId("least-stability-value").textContent = score(least.stability);
  byId("least-area-value").textContent = `${whole(least.area)} px`;
  byId("least-area").setAttribute("aria-valuetext", `${whole(least.area)} pixels`);
  byId("count").textContent = `${whole(viewer.shown.length)} of ${many(viewer.masks.length, "mask")}`;
  fillList();
  select(viewer.shown.includes(viewer.active) ? viewer.active : null);
}

// Pointing and choosing

/** The masks that hold the pixel under the pointer, smallest first. */
function masksAt(event) {
  const { item, masks, shown } = viewer;
  const box = byId("frame").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) * item.width) / box.width);
  const y = Math.floor(((event.clientY - box.top) * item.height) / box.height);
  if (x < 0 || y < 0 || x >= item.width || y >= item.height) return [];
  return shown.filter((place) => isInside(masks[place].ends, x * item.height + y)).reverse();
}

function pointAt(event) {
  const under = masksAt(event);
  if (String(under) === String(viewer.under)) return; // a click may have chosen one of them
  select(under.length ? under[0] : null, under);
}

/** The next larger mask at this place, then again the smallest. */
function cycleAt(event) {
  const under = masksAt(event);
  const isSamePlace = String(under) === String(viewer.under);
  const next = isSamePlace ? (under.indexOf(viewer.active) + 1) % under.length : 0;
  select(under.length ? under[next] : null, under);
}

function select(place, under = []) {
  viewer.active = place;
  viewer.under = under;
  drawHighlight();
  describe();
  markInList();
}

function describe() {
  const { item, masks, active, under } = viewer;
  const hasMask = active !== null;
  byId("mask").hidden = !hasMask;
  byId("mask-hint").hidden = hasMask || !masks.length;
  if (!hasMask) return;
  const mask = masks[active];
  const [x, y, width, height] = mask.box.map(Math.round);
  const rows = [
    ["Predicted IoU", score(mask.iou)],
    ["Stability", score(mask.stability)],
    ["Area", `${whole(mask.area)} px · ${percent(mask.area / (item.width * item.height))}`],
    ["Box", `${x}, ${y} · ${width} × ${height}`],
    [mask.points.length === 1 ? "Point" : "Points", mask.points.map((xy) => xy.map(Math.round).join(", ")).join(" · ")],
    ["Crop layer, level", `${mask.layer}, ${mask.level}`],
  ];
  if ("prompt" in mask) {
    rows.unshift(["Category", mask.category], ["Score", mask.score === null ? null : score(mask.score)], ["Prompt", mask.prompt]);
  }
  if (under.length > 1) rows.push(["Masks here", `${under.indexOf(active) + 1} of ${under.length}`]);
  const heading = make("dt", "heading", makeSwatch(mask), `Mask ${mask.index}`);
  const known = rows.filter(([, value]) => value !== null && value !== "");
  const pairs = known.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]);
  byId("mask").replaceChildren(heading, ...pairs);
}

function makeSwatch(mask) {
  const swatch = make("span", "swatch");
  swatch.style.backgroundColor = `rgb(${mask.colour.join(" ")})`;
  return swatch;
}

// The list: one stop for the Tab key, arrows inside, as the listbox pattern of ARIA has it.

function startList() {
  const list = byId("list");
  list.addEventListener("keydown", (event) => {
    const { shown, active } = viewer;
    const at = shown.indexOf(active);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? shown.length - 1 : at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (shown[to] !== undefined) select(shown[to]);
  });
  list.addEventListener("focus", () => viewer.active === null && viewer.shown.length && select(viewer.shown[0]));
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) select(Number(option.dataset.place));
  });
}

function fillList() {
  const { item, masks, shown } = viewer;
  const options = shown.map((place) => {
    const mask = masks[place];
    const share = make("span", "share", percent(mask.area / (item.width * item.height)));
    const text = mask.category ? `${mask.category}, mask ${mask.index}` : `Mask ${mask.index}`;
    const option = make("li", "", makeSwatch(mask), text, share);
    option.setAttribute("role", "option");
    option.setAttribute("aria-label", `${text}, predicted IoU ${score(mask.iou)}, stability ${score(mask.stability)}, ${share.textContent}`);
    option.id = `option-${place}`;
    option.dataset.place = place;
    return option;
  });
  byId("list").replaceChildren(...options);
  byId("list").hidden = !masks.length;
}

function markInList() {
  const list = byId("list");
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  const option = viewer.active === null ? null : byId(`option-${viewer.active}`);
  if (option) {
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    const below = option.offsetTop + option.offsetHeight - list.clientHeight - list.offsetTop;
    list.scrollTop = Math.min(Math.max(list.scrollTop, below), option.offsetTop - list.offsetTop);
  } else list.removeAttribute("aria-activedescendant");
}

startTheme();
