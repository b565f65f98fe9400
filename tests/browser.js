// What tests/browser.py runs in a page; every function is there for every script that it runs.

const frames = n => new Promise(done => {
  const next = () => (n-- > 0 ? requestAnimationFrame(next) : done());
  next();
});

// Name an element so that a reader of a failed test finds it.
function where(element) {
  const tag = element.tagName.toLowerCase();
  const id = element.id ? "#" + element.id : "";
  const classes = [...element.classList].map(name => "." + name).join("");
  const inside = element.closest("[id]");
  const place = !id && inside ? ` in #${inside.id}` : "";
  const text = (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
  return `${tag}${id}${classes}${place}${text ? ` "${text}"` : ""}`;
}

function openDetails() {
  document.querySelectorAll("details").forEach(one => { one.open = true; });
}

// Plotly measures text in a picture of its own, which it keeps far beside the page.
const ownOfPlotly = element => element.closest("#js-plotly-tester");

const shown = element => element.checkVisibility({ visibilityProperty: true });

// Down the whole page as a reader would, so that what loads late loads.
async function scrollThrough() {
  openDetails();
  for (let top = 0; top < document.documentElement.scrollHeight; top += innerHeight) {
    scrollTo({ top, behavior: "instant" });
    await frames(2);
  }
  const waiting = [...document.images].filter(one => shown(one) && !one.complete);
  const loaded = one => new Promise(done => { one.onload = one.onerror = done; });
  const late = new Promise(done => setTimeout(done, 10000));
  await Promise.race([Promise.all(waiting.map(loaded)), late]);
  scrollTo({ top: 0, behavior: "instant" });
}

async function decodes(source) {
  const image = new Image();
  image.src = source;
  try { await image.decode(); } catch { return false; }
  return image.naturalWidth > 0;
}

async function brokenImages() {
  const told = [];
  for (const image of document.images) {
    // Those behind others, such as the other picture of a flicker, may not have been asked for.
    const good = image.complete && image.naturalWidth > 0 ? true : !shown(image) && await decodes(image.src);
    if (!good) told.push(`${where(image)} ${image.src.slice(0, 200)}`);
  }
  for (const image of document.querySelectorAll("svg image")) {
    if (!await decodes(image.href.baseVal)) told.push(where(image));
  }
  for (const object of document.querySelectorAll("object, embed")) {
    if (!await decodes(object.data ?? object.src)) told.push(where(object));
  }
  return told;
}

function allLinks() {
  const address = one => one.getAttribute("href") ?? one.getAttribute("xlink:href");
  const links = [...document.querySelectorAll("a, area, link, svg a")].filter(address);
  return links.map(one => {
    const href = address(one).trim();
    const fragment = href.startsWith("#") ? href.slice(1) : "";
    const found = Boolean(fragment && document.getElementById(decodeURIComponent(fragment)));
    return { href, fragment, found, loaded: one.matches("link"), where: where(one) };
  });
}

function allPictures() {
  const outer = "img, canvas, object, [role=img], svg:not(svg svg)";
  const ignored = "[aria-hidden=true], [role=presentation], [role=img] *, object *";
  const pictures = [...document.querySelectorAll(outer)].filter(
    one => !one.matches(ignored) && !one.closest("[aria-hidden=true]") && !ownOfPlotly(one));
  return pictures.map(one => {
    const title = one.querySelector?.(":scope > title")?.textContent;
    const labels = (one.getAttribute("aria-labelledby") ?? "").split(/\s+/).filter(Boolean)
      .map(id => document.getElementById(id)?.textContent ?? "").join(" ");
    const alt = one.getAttribute("alt") || one.getAttribute("aria-label") || labels || title || "";
    const source = one.getAttribute("src") ?? one.getAttribute("data") ?? "";
    return { alt, file: source.startsWith("data:") ? "" : source, where: where(one) };
  });
}

function overflowing() {
  const root = document.documentElement, width = root.clientWidth;
  const holds = one => getComputedStyle(one).overflowX !== "visible";
  const inBox = one => {
    for (let box = one.parentElement; box && box !== document.body; box = box.parentElement)
      if (holds(box)) return true;
    return false;
  };
  const out = box => box.width > 0 && box.height > 0 && (box.right > width + 1 || box.left < -1);
  const told = [];
  for (const one of document.body.querySelectorAll("*")) {
    if (!shown(one) || inBox(one) || ownOfPlotly(one)) continue;
    let reach = out(one.getBoundingClientRect()) ? one.getBoundingClientRect() : null;
    for (const text of holds(one) ? [] : one.childNodes) {
      if (reach || text.nodeType !== Node.TEXT_NODE) continue;
      const range = document.createRange();
      range.selectNodeContents(text);
      if (out(range.getBoundingClientRect())) reach = range.getBoundingClientRect();
    }
    if (reach) told.push(`${where(one)}: ${Math.round(reach.left)} to ${Math.round(reach.right)} of ${width} px`);
  }
  if (root.scrollWidth > width + 1) told.push(`the page: ${root.scrollWidth} of ${width} px`);
  return told;
}

// Colours as the browser itself mixes them: whatever notation, one over the other.
const mixer = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function mixed(layers) {
  mixer.clearRect(0, 0, 1, 1);
  for (const [colour, opacity] of layers) {
    mixer.globalAlpha = opacity;
    mixer.fillStyle = colour;
    mixer.fillRect(0, 0, 1, 1);
  }
  return [...mixer.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

// What a page without a background is shown on: white, or its browser's dark.
function paper() {
  const probe = document.createElement("div");
  probe.style.backgroundColor = "Canvas";
  document.documentElement.append(probe);
  const colour = getComputedStyle(probe).backgroundColor;
  probe.remove();
  return colour;
}

function luminance(colour) {
  const [r, g, b] = colour.map(value => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function lowContrast(least) {
  const told = new Map(), lowest = [paper(), 1];
  const written = one => [...one.childNodes].some(
    node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  for (const one of document.body.querySelectorAll("*:not(script, style, template, svg *)")) {
    if (!written(one) || !shown(one) || one.disabled) continue;
    const behind = [];
    let opacity = 1;
    for (let box = one; box; box = box.parentElement) {
      opacity *= getComputedStyle(box).opacity;
      behind.unshift([getComputedStyle(box).backgroundColor, 1]);
    }
    const text = [getComputedStyle(one).color, opacity];
    const [front, back] = [mixed([lowest, ...behind, text]), mixed([lowest, ...behind])];
    const [less, more] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (more + 0.05) / (less + 0.05);
    const kind = `rgb(${front}) on rgb(${back}): ${ratio.toFixed(2)}`;
    if (ratio < least) told.set(kind, [...(told.get(kind) ?? []), where(one)]);
  }
  return [...told].map(([kind, all]) => `${kind}, ${all.length} times, first ${all[0]}`);
}

// What a reader of a screen is told: of a picture or a group it is tested elsewhere.
function unnamedControls() {
  const words = one => (one?.textContent ?? "").trim();
  const named = one => {
    const ids = (one.getAttribute("aria-labelledby") ?? "").split(/\s+/).filter(Boolean);
    const others = [...ids.map(id => document.getElementById(id)), ...(one.labels ?? [])];
    if (one.matches("button")) others.push(one);
    if (one.matches("input[type=submit], input[type=button], input[type=reset]") && one.value.trim()) return true;
    return Boolean((one.getAttribute("aria-label") ?? "").trim() || others.some(words));
  };
  const controls = document.querySelectorAll("input:not([type=hidden]), button, select, textarea");
  return [...controls].filter(one => !named(one)).map(one => `${where(one)} ${one.name ?? ""}`.trim());
}

function repeatedIds() {
  const times = new Map();
  // Plotly gives the scenes of all its plots one name, by which nothing finds them.
  for (const one of document.querySelectorAll("[id]:not(.js-plotly-plot *)")) times.set(one.id, (times.get(one.id) ?? 0) + 1);
  return [...times].filter(([, n]) => n > 1).map(([id, n]) => `${id}: ${n} times`);
}

async function bringIntoView(element) {
  element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  await frames(2);
  const box = element.getBoundingClientRect();
  return [box.left, box.top];
}

// What became of a figure that is drawn late, once something has.
async function drawn(figure) {
  await bringIntoView(figure);
  return ["true", "failed"].find(state => state === figure.dataset.ready) ?? null;
}

// Move a slider or tick a box of the 3-D view, and wait until it is drawn so.
async function choose(root, name, value) {
  const input = root.querySelector(`input[name="${name}"]`);
  const plotted = new Promise(done => root.querySelector(".view3d-plot").once("plotly_afterplot", done));
  if (input.type === "checkbox") input.checked = value;
  else input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  await plotted;
  await frames(2);
}

// Where the middle of a cell is, from the corner of the plotting area: row i, column j.
function cellOf(plot, i, j) {
  const { xaxis, yaxis } = plot._fullLayout;
  return [xaxis.l2p(j), yaxis.l2p(i)];
}
